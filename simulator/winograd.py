"""Layers that the Winograd units compute: which ones, with which weights, in which order (rules W).

A step of the array becomes another step of the array: an output pixel is a tile of m x m outputs,
the kernel the n x n taps of a patch, the weights U = G g G^T.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.network import Conv2D
from simulator.hardware import Hardware
from simulator.lowering import Step
from simulator.program import Geometry
from simulator.sharing import THREADS, share_out
from simulator.winograd_kernels import transform_weights

Array = NDArray[Any]
IntArray = NDArray[np.int64]

PARALLEL_WEIGHTS = 200_000
"""Transformed weights from which on threads are worth starting."""


@dataclass(frozen=True)
class Form:
    """F(m x m, 3 x 3) with the row-minimal weight transform.

    Parameters
    ----------
    number : int
        `Geometry.form`, cfg_winograd.
    outputs, taps : int
        m and n = m + 2.
    shift, odd : int
        Outputs are 2**shift * odd times the convolution.
    weights : (n, 3) int64 array
        G; source: Cook-Toom at 0, 1, -1 (, 2, -2), infinity, each row divided by its divisor.
    inputs : (n, n) int64 array
        B^T.
    sums : (m, n) int64 array
        A^T.
    """

    number: int
    outputs: int
    taps: int
    shift: int
    odd: int
    weights: IntArray
    inputs: IntArray
    sums: IntArray


FORMS = {
    "f2": Form(
        number=1,
        outputs=2,
        taps=4,
        shift=2,
        odd=1,
        weights=np.array([[1, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 1]]),
        inputs=np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]]),
        sums=np.array([[2, 1, 1, 0], [0, 1, -1, 2]]),
    ),
    "f4": Form(
        number=2,
        outputs=4,
        taps=6,
        shift=6,
        odd=9,
        weights=np.array(
            [[1, 0, 0], [-1, -1, -1], [-1, 1, -1], [1, 2, 4], [1, -2, 4], [0, 0, 1]],
        ),
        inputs=np.array(
            [
                [4, 0, -5, 0, 1, 0],
                [0, -4, -4, 1, 1, 0],
                [0, 4, -4, -1, 1, 0],
                [0, -2, -1, 2, 1, 0],
                [0, 2, -1, -2, 1, 0],
                [0, 4, 0, -5, 0, 1],
            ]
        ),
        sums=np.array(
            [
                [6, 4, 4, 1, 1, 0],
                [0, 4, -4, 2, -2, 0],
                [0, 4, 4, 4, 4, 0],
                [0, 4, -4, 8, -8, 24],
            ]
        ),
    ),
}
"""The forms by their names in hardware files."""


def form_of(geometry: Geometry) -> Form:
    """Form of a geometry whose `form` is not 0."""
    return next(form for form in FORMS.values() if form.number == geometry.form)


def winograd_step(step: Step, name: str, hardware: Hardware, *, safe: bool) -> Step | str:
    """Let the Winograd units compute a step of the array.

    Parameters
    ----------
    step : Step
        Of the array, direct.
    name : str
        A key of `FORMS` that the hardware knows.
    hardware : Hardware
    safe : bool
        Only where every output is proven to be that of the direct convolution for all inputs of
        8 or 16 bits (rule W8).

    Returns
    -------
    Step, or str
        Why the step runs directly.
    """
    reason = _unfit(step)
    if reason:
        return reason
    layer, geometry, form = step.layer, step.geometry, FORMS[name]
    assert isinstance(layer, Conv2D)
    assert geometry is not None
    weights = transformed(layer, form)
    limit = 1 << (hardware.weight_operand_bits - 1)
    if weights.max(initial=0) >= limit or weights.min(initial=0) < -limit:
        return f"a transformed weight exceeds the {hardware.weight_operand_bits} bits of an operand"
    inputs = operand_range(layer.input_zero_point, hardware, step.input_signed)
    chunk_words = min(hardware.winograd.chunk_words // form.taps**2, geometry.in_words)
    if safe:
        reason = _unsafe(layer, weights, inputs, form, chunk_words * geometry.feed, hardware)
        if reason:
            return reason
    m = form.outputs
    return replace(
        step,
        layer=replace(layer, weights=weights, weight_zero_point=0, stride=(m, m)),
        geometry=replace(
            geometry,
            out_height=-(-geometry.out_height // m),
            out_width=-(-geometry.out_width // m),
            kernel=(form.taps, form.taps),
            stride=(m, m),
            form=form.number,
            chunk_words=chunk_words,
            image=(geometry.out_height, geometry.out_width),
        ),
    )


def _unfit(step: Step) -> str:
    """Why no form computes a step; empty where all can."""
    geometry = step.geometry
    if not isinstance(step.layer, Conv2D) or geometry is None:
        return "it is no convolution"
    if geometry.kernel != (3, 3):
        if geometry.kernel == (geometry.height, geometry.width) != (1, 1):
            return "it takes its whole image at once"  # dense ones do
        return f"its kernel is {geometry.kernel[0]} x {geometry.kernel[1]}"
    if geometry.stride != (1, 1):
        return "its stride is not 1"
    if geometry.dilation != (1, 1):
        return "its dilation is not 1"
    if geometry.groups != 1:
        return "it is grouped"
    return ""


def operand_range(zero_point: int, hardware: Hardware, signed: bool) -> tuple[int, int]:
    """Smallest and largest code minus zero point."""
    bits = hardware.array.activation_bits
    low = -(1 << (bits - 1)) if signed else 0
    return low - zero_point, low + (1 << bits) - 1 - zero_point


def _unsafe(
    layer: Conv2D,
    weights: Array,
    inputs: tuple[int, int],
    form: Form,
    chunk_channels: int,
    hardware: Hardware,
) -> str:
    """Why outputs may differ from the direct convolution's; empty where they cannot (rule W8)."""
    low, high = inputs
    rows = layer.weights.reshape(len(weights), -1).astype(np.int32) - layer.weight_zero_point
    positive = np.maximum(rows, 0).sum(axis=1, dtype=np.int64)
    negative = rows.sum(axis=1, dtype=np.int64) - positive
    ends = np.stack([positive * high + negative * low, positive * low + negative * high])
    most, least = ends.max(initial=0), ends.min(initial=0)
    needed = form.shift + 1 + max(int(most).bit_length(), int(-least - 1).bit_length())
    if needed > hardware.result_bits:
        return (
            f"its sums may need {needed} bits modulo which they are exact, results have"
            f" {hardware.result_bits}"
        )
    array = hardware.array
    if array.acc_overflow == "wrap" and not array.spill_interval:
        return ""
    # Nothing may be lost before the output transform: twice the magnitudes bound all digits.
    gains = np.abs(form.inputs).sum(axis=1)
    largest = np.outer(gains, gains)[..., np.newaxis] * max(-low, high)
    products = 2 * np.abs(weights.astype(np.int64)) * largest
    spans = range(0, products.shape[3], chunk_channels)
    parts = [products[..., i : i + chunk_channels].sum(axis=3).max() for i in spans]
    narrow = int(max(parts))
    if array.spill_interval:
        narrow = min(narrow, array.spill_interval * int(products.max()))
    if 1 + narrow.bit_length() > array.acc_bits:
        return f"a part may need {1 + narrow.bit_length()} bits, accumulators have {array.acc_bits}"
    return ""


def transformed(layer: Conv2D, form: Form) -> Array:
    """U = G g G^T: (out_channels, n, n, in_channels), int16 where they surely fit."""
    weights: Array = np.ascontiguousarray(layer.weights)
    zero = layer.weight_zero_point
    largest = max(zero - int(weights.min(initial=zero)), int(weights.max(initial=zero)) - zero)
    gain = int(np.abs(form.weights).sum(axis=1).max()) ** 2
    U = np.empty(
        (len(weights), form.taps, form.taps, weights.shape[3]),
        dtype=np.int16 if gain * largest < 1 << 15 else np.int32,
    )
    threads = THREADS if U.size > PARALLEL_WEIGHTS else 1
    share_out(transform_weights, len(U), threads, weights, zero, form.weights, U)
    return U
