"""Layers that the Winograd units compute: which ones, with which weights, in which order (rules W).

A step of the array becomes another step of the array: an output pixel is a tile of m x m outputs,
the kernel the n x n taps of a patch, the weights U = G g G^T.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from golden.network import Conv2D
from simulator.hardware import Hardware
from simulator.lowering import Step
from simulator.program import Geometry

IntArray = NDArray[np.int64]


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


def winograd_step(step: Step, name: str, hardware: Hardware) -> Step | str:
    """Let the Winograd units compute a step of the array.

    Parameters
    ----------
    step : Step
        Of the array, direct.
    name : str
        A key of `FORMS` that the hardware knows.
    hardware : Hardware

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
    if hardware.array.acc_overflow == "saturate":
        return "saturating accumulators do not keep sums modulo a power of two"
    weights = transformed(layer.weights.astype(np.int64) - layer.weight_zero_point, form)
    limit = 1 << (hardware.weight_operand_bits - 1)
    if weights.max(initial=0) >= limit or weights.min(initial=0) < -limit:
        return f"a transformed weight exceeds the {hardware.weight_operand_bits} bits of an operand"
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
            chunk_words=min(hardware.winograd.chunk_words // form.taps**2, geometry.in_words),
            image=(geometry.out_height, geometry.out_width),
        ),
    )


def _unfit(step: Step) -> str:
    """Why no form computes a step; empty where all can."""
    geometry = step.geometry
    if not isinstance(step.layer, Conv2D) or geometry is None:
        return "it is no convolution"
    if geometry.kernel != (3, 3):
        return f"its kernel is {geometry.kernel[0]} x {geometry.kernel[1]}"
    if geometry.stride != (1, 1):
        return "its stride is not 1"
    if geometry.dilation != (1, 1):
        return "its dilation is not 1"
    if geometry.groups != 1:
        return "it is grouped"
    return ""


def transformed(weights: IntArray, form: Form) -> IntArray:
    """U = G g G^T: (out_channels, 3, 3, C) weights to (out_channels, n, n, C)."""
    g = form.weights
    found: IntArray = np.einsum("ki,oijc,lj->oklc", g, weights, g)
    return found
