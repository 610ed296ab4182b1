"""Accumulators of 3 x 3 layers in the Winograd domain, at speed.

An independent statement of what `golden.winograd` computes: the matrices are written out, the rest
is loops. Weights are transformed with the row-minimal G, as the hardware gets them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.errors import InputError
from golden.network import Conv2D, Padding
from simulator import winograd_kernels as kernels
from simulator.sharing import THREADS, share_out
from simulator.winograd import FORMS, Form

Array = NDArray[Any]

PARALLEL_WORK = 2_000_000
"""Products or elements from which on threads are worth starting."""

BLOCK_ELEMENTS = 1 << 24
"""Transformed operands and sums kept at once, so that large images need little memory."""


def winograd_accumulators(
    layer: Conv2D, x: Array, name: str, bits: int | None = None
) -> NDArray[np.int64]:
    """Accumulators of a 3 x 3 layer of stride and dilation 1.

    Parameters
    ----------
    layer : Conv2D
    x : (N, H, W, C) integer array
        Codes.
    name : "f2" or "f4"
    bits : int or None
        Width to which every stage wraps, up to 62; None: wide enough for any operands.

    Returns
    -------
    (N, P, Q, out_channels) int64 array
        Modulo 2**(bits - shift), as signed numbers.

    Raises
    ------
    InputError
        Where the layer is none that a transform computes, or the width is out of range.
    """
    form = FORMS[name]
    _check(layer, name, bits, form.shift)
    weights = layer.weights.astype(np.int64) - layer.weight_zero_point
    operands = x.astype(np.int64) - layer.input_zero_point
    y = np.empty(output_shape(layer, x), dtype=np.int64)
    if not y.size:
        return y
    dtype, valid = _number(weights, operands, form, bits)
    U = _transform_weights(weights, form, dtype)
    rows, columns = _grid(layer, x, form)
    per_sample = len(U) * rows * columns * (x.shape[3] + len(weights))
    samples = max(1, BLOCK_ELEMENTS // per_sample)
    for start in range(0, len(x), samples):
        block = operands[start : start + samples]
        V = transform_inputs(layer, block, form, dtype)
        M = np.empty((*V.shape[:2], len(weights)), dtype=dtype)
        threads = _threads(M.size * U.shape[1])
        share_out(kernels.channel_sums, len(V), threads, V, U, layer.groups, M)
        transform_outputs(M, form, valid, y[start : start + samples])
    return y


def part_layer(
    layer: Conv2D, x: Array, name: str, chunk_channels: int
) -> tuple[Conv2D, NDArray[np.int32]]:
    """Make the layer of windows of one pixel whose accumulators are the parts of a Winograd layer.

    A part is the sum of one product of the transform over a chunk of the input channels. So
    `simulator.values.accumulate` gives what the accumulators of an array hold, and their records.

    Parameters
    ----------
    layer : Conv2D
        3 x 3, stride, dilation and groups 1.
    x : (N, H, W, C) integer array
        Codes.
    name : "f2" or "f4"
    chunk_channels : int

    Returns
    -------
    parts : Conv2D
        As many groups as products times chunks; output channel (p * chunks + q) * out_channels + k
        is product p of chunk q for output channel k. Missing channels have weights of 0.
    operands : (N, tile_rows, tile_columns, products * chunks * chunk_channels) int32 array
        Its input, of zero point 0.

    Raises
    ------
    InputError
        Where the layer is none that a transform computes, or has groups.
    """
    form = FORMS[name]
    _check(layer, name, None, form.shift)
    if layer.groups != 1 or chunk_channels < 1:
        raise InputError(
            f"parts are those of layers without groups in chunks of 1 channel or more, but layer"
            f" {layer.name!r} has groups={layer.groups} and chunk_channels={chunk_channels}; run it"
            " directly"
        )
    weights = layer.weights.astype(np.int64) - layer.weight_zero_point
    K, _, _, C = weights.shape
    U = _transform_weights(weights, form, np.dtype(np.int32))
    V = transform_inputs(
        layer, x.astype(np.int64) - layer.input_zero_point, form, np.dtype(np.int32)
    )
    chunks = -(-C // chunk_channels)
    missing = chunks * chunk_channels - C
    by_chunk = np.pad(U, ((0, 0), (0, missing), (0, 0))).reshape(-1, chunk_channels, K)
    operands = np.pad(V.transpose(1, 0, 2), ((0, 0), (0, 0), (0, missing)))
    parts = replace(
        layer,
        weights=by_chunk.transpose(0, 2, 1).reshape(-1, 1, 1, chunk_channels),
        weight_zero_point=0,
        bias=None,
        input_zero_point=0,
        padding=Padding(),
        groups=len(by_chunk),
    )
    return parts, operands.reshape(len(x), *_grid(layer, x, form), -1)


def part_outputs(layer: Conv2D, x: Array, name: str, parts: Array, bits: int) -> NDArray[np.int64]:
    """Accumulators of a layer from what its parts left.

    Parameters
    ----------
    layer, x, name
        As for `part_layer`.
    parts : (N, tile_rows, tile_columns, products * chunks * out_channels) int64 array
    bits : int
        Width of a part; everything wraps to it.

    Returns
    -------
    (N, P, Q, out_channels) int64 array
        Modulo 2**(bits - shift), as signed numbers.
    """
    form = FORMS[name]
    _check(layer, name, bits, form.shift)
    y = np.empty(output_shape(layer, x), dtype=np.int64)
    tiles, products, K = int(np.prod(parts.shape[:3])), len(form.inputs) ** 2, len(layer.weights)
    sums = parts.reshape(tiles, products, -1, K).sum(axis=2)
    transform_outputs(np.ascontiguousarray(sums.swapaxes(0, 1)), form, bits, y)
    return y


def output_shape(layer: Conv2D, x: Array) -> tuple[int, int, int, int]:
    """Shape of what 3 x 3 kernels make of (N, H, W, C) codes."""
    (N, H, W, _), pad = x.shape, layer.padding
    height, width = H + pad.top + pad.bottom - 2, W + pad.left + pad.right - 2
    return N, max(0, height), max(0, width), len(layer.weights)


def _grid(layer: Conv2D, x: Array, form: Form) -> tuple[int, int]:
    """Rows and columns of tiles."""
    _, height, width, _ = output_shape(layer, x)
    pitch = len(form.sums)
    return -(-height // pitch), -(-width // pitch)


def _transform_weights(weights: Array, form: Form, dtype: np.dtype[Any]) -> Array:
    """U, (products, in_channels, out_channels)."""
    K, _, _, C = weights.shape
    U = np.empty((len(form.inputs) ** 2, C, K), dtype=dtype)
    by_channel = np.ascontiguousarray(weights.transpose(3, 1, 2, 0))
    share_out(kernels.transform_weights, C, _threads(U.size), by_channel, form.weights, U)
    return U


def transform_inputs(layer: Conv2D, operands: Array, form: Form, dtype: np.dtype[Any]) -> Array:
    """Make V, (products, tiles, in_channels); tiles count through samples, rows and columns."""
    grid = _grid(layer, operands, form)
    tiles = len(operands) * grid[0] * grid[1]
    V = np.empty((len(form.inputs) ** 2, tiles, operands.shape[3]), dtype=dtype)
    corner = (layer.padding.top, layer.padding.left)
    share_out(
        kernels.transform_inputs, tiles, _threads(V.size),
        operands, corner, len(form.sums), grid, form.inputs, V,
    )  # fmt: skip
    return V


def transform_outputs(M: Array, form: Form, valid: int, y: NDArray[np.int64]) -> None:
    """Write y, (N, P, Q, out_channels), from M, (products, tiles, out_channels) modulo 2**valid."""
    pitch = len(form.sums)
    grid = (-(-y.shape[1] // pitch), -(-y.shape[2] // pitch))
    inverse = pow(form.odd, -1, 1 << 64)
    signed_inverse = inverse - (1 << 64) if inverse >> 63 else inverse
    share_out(
        kernels.transform_outputs, M.shape[1], _threads(M.size),
        M, form.sums, grid, form.shift, signed_inverse, valid - form.shift, y,
    )  # fmt: skip


def _check(layer: Conv2D, name: str, bits: int | None, shift: int) -> None:
    kernel = layer.weights.shape[1:3]
    if kernel != (3, 3) or layer.stride != (1, 1) or layer.dilation != (1, 1):
        raise InputError(
            f"{name} computes kernels 3x3 of stride and dilation 1, but layer {layer.name!r} has"
            f" {kernel[0]}x{kernel[1]}, stride {layer.stride} and dilation {layer.dilation}; run it"
            " directly"
        )
    if bits is not None and not shift < bits <= 62:
        raise InputError(
            f"bits must be {shift + 1} to 62 with {name}, but is {bits}; choose a width in range"
        )


def _number(
    weights: Array, operands: Array, form: Form, bits: int | None
) -> tuple[np.dtype[Any], int]:
    """Choose what sums are made of, and the power of two modulo which the outputs are right.

    int32 where 32 bits are enough; else float64 where no sum reaches 2**53; else int64.
    """
    largest = max(-int(operands.min(initial=0)), int(operands.max(initial=0)))
    norm = int(np.abs(weights).reshape(len(weights), -1).sum(axis=1).max())
    enough = (norm * largest).bit_length() + 1 + form.shift
    if min(enough, bits or enough) <= 32:
        return np.dtype(np.int32), min(32, bits or 32)
    rows = [int(np.abs(m).sum(axis=1).max()) ** 2 for m in (form.inputs, form.weights)]
    inputs = weights.shape[3] * int(np.abs(weights).max())
    exact = largest * rows[0] * inputs * rows[1] < 1 << 53
    return np.dtype(np.float64 if exact else np.int64), bits or 64


def _threads(work: int) -> int:
    return THREADS if work > PARALLEL_WORK else 1
