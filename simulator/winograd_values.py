"""Accumulators of 3 x 3 layers in the Winograd domain, at speed.

An independent statement of what `golden.winograd` computes: the matrices are written out, the rest
is loops. Weights are transformed with the row-minimal G, as the hardware gets them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.errors import InputError
from golden.network import Conv2D
from simulator import winograd_kernels as kernels

Array = NDArray[Any]

THREADS = os.cpu_count() or 1

TASKS_PER_THREAD = 4

PARALLEL_PRODUCTS = 2_000_000
"""Products of a layer from which on threads are worth starting."""

BLOCK_ELEMENTS = 1 << 24
"""Transformed operands and sums kept at once, so that large images need little memory."""


@dataclass(frozen=True)
class Matrices:
    """A transform along one axis of a tile.

    Parameters
    ----------
    B : (n, n) int64 array
        B^T.
    G : (n, 3) int64 array
    A : (m, n) int64 array
        A^T.
    shift, odd : int
        Outputs come out 2**shift * odd times too large.
    """

    B: Array
    G: Array
    A: Array
    shift: int
    odd: int


def _matrices(B: list[str], G: list[str], A: list[str], shift: int, odd: int) -> Matrices:
    def read(rows: list[str]) -> Array:
        return np.array([[int(number) for number in row.split()] for row in rows], dtype=np.int64)

    return Matrices(read(B), read(G), read(A), shift, odd)


TRANSFORMS = {
    "f2": _matrices(
        ["1 0 -1 0", "0 1 1 0", "0 -1 1 0", "0 -1 0 1"],
        ["1 0 0", "1 1 1", "1 -1 1", "0 0 1"],
        ["2 1 1 0", "0 1 -1 2"],
        shift=2,
        odd=1,
    ),
    "f4": _matrices(
        [
            "4 0 -5 0 1 0",
            "0 -4 -4 1 1 0",
            "0 4 -4 -1 1 0",
            "0 -2 -1 2 1 0",
            "0 2 -1 -2 1 0",
            "0 4 0 -5 0 1",
        ],
        ["1 0 0", "-1 -1 -1", "-1 1 -1", "1 2 4", "1 -2 4", "0 0 1"],
        ["6 4 4 1 1 0", "0 4 -4 2 -2 0", "0 4 4 4 4 0", "0 4 -4 8 -8 24"],
        shift=6,
        odd=9,
    ),
}
"""F(2x2,3x3) and F(4x4,3x3) at the points 0, 1, -1, (2, -2,) and infinity."""


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
    matrices = TRANSFORMS[name]
    _check(layer, name, bits, matrices.shift)
    K, taps, _, C = layer.weights.shape
    N, H, W, channels = x.shape
    pad, pitch = layer.padding, len(matrices.A)
    P, Q = H + pad.top + pad.bottom - taps + 1, W + pad.left + pad.right - taps + 1
    y = np.empty((N, P, Q, K), dtype=np.int64)
    grid = (-(-P // pitch), -(-Q // pitch))
    weights = layer.weights.astype(np.int64) - layer.weight_zero_point
    operands = x.astype(np.int64) - layer.input_zero_point
    dtype, valid = _number(weights, operands, matrices, bits)
    products = len(matrices.B) ** 2
    U = np.empty((products, C, K), dtype=dtype)
    threads = THREADS if U.size > PARALLEL_PRODUCTS else 1
    by_channel = np.ascontiguousarray(weights.transpose(3, 1, 2, 0))
    _share_out(kernels.transform_weights, C, threads, by_channel, matrices.G, U)
    # Blocks of samples: tiles number through the samples of a block.
    samples = max(1, BLOCK_ELEMENTS // (products * grid[0] * grid[1] * (channels + K)))
    inverse = pow(matrices.odd, -1, 1 << 64)
    signed_inverse = inverse - (1 << 64) if inverse >> 63 else inverse
    for start in range(0, N, samples):
        block = operands[start : start + samples]
        tiles = len(block) * grid[0] * grid[1]
        threads = THREADS if products * tiles * C * K > PARALLEL_PRODUCTS else 1
        V = np.empty((products, tiles, channels), dtype=dtype)
        _share_out(
            kernels.transform_inputs, tiles, threads,
            block, (pad.top, pad.left), pitch, grid, matrices.B, V,
        )  # fmt: skip
        M = np.empty((products, tiles, K), dtype=dtype)
        _share_out(kernels.channel_sums, products, threads, V, U, layer.groups, M)
        _share_out(
            kernels.transform_outputs, tiles, threads,
            M, matrices.A, grid, matrices.shift, signed_inverse, valid - matrices.shift,
            y[start : start + samples],
        )  # fmt: skip
    return y


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
    weights: Array, operands: Array, matrices: Matrices, bits: int | None
) -> tuple[np.dtype[Any], int]:
    """Choose what sums are made of, and the power of two modulo which the outputs are right.

    int32 where 32 bits are enough; else float64 where no sum reaches 2**53; else int64.
    """
    largest = max(-int(operands.min(initial=0)), int(operands.max(initial=0)))
    norm = int(np.abs(weights).reshape(len(weights), -1).sum(axis=1).max())
    enough = (norm * largest).bit_length() + 1 + matrices.shift
    if min(enough, bits or enough) <= 32:
        return np.dtype(np.int32), min(32, bits or 32)
    rows = [int(np.abs(m).sum(axis=1).max()) ** 2 for m in (matrices.B, matrices.G)]
    inputs = weights.shape[3] * int(np.abs(weights).max())
    exact = largest * rows[0] * inputs * rows[1] < 1 << 53
    return np.dtype(np.float64 if exact else np.int64), bits or 64


def _share_out(kernel: Callable[..., None], tasks: int, threads: int, *arguments: object) -> None:
    """Run kernel(first, last, *arguments) over all tasks; it must release Python's lock."""
    if threads == 1:
        kernel(0, tasks, *arguments)
        return
    parts = min(tasks, TASKS_PER_THREAD * threads)
    ends = [tasks * i // parts for i in range(parts + 1)]
    with ThreadPoolExecutor(threads) as pool:
        runs = [pool.submit(kernel, first, last, *arguments) for first, last in pairwise(ends)]
        for run in runs:
            run.result()
