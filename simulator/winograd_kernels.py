"""Jitted loops of Winograd layers: transforms, division.

Kernels only loop; matrices come by argument (`simulator.winograd`). Nothing here calls `golden`'s
arithmetic: the two are compared. Sums may wrap: a kernel is exact modulo a power of two, and its
caller knows which.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator._jit import jit_nogil

Array = NDArray[Any]

BLOCK = 256
"""Tiles that the output transform works on together."""


@jit_nogil
def transform_weights(
    first: int, last: int, weights: Array, zero_point: int, G: Array, U: Array
) -> None:
    """Write U = G g G^T of the kernels of output channels first to last.

    Parameters
    ----------
    first, last : int
    weights : (out_channels, r, r, in_channels)
    zero_point : int
        Of the weights.
    G : (n, r) int64
    U : (out_channels, n, n, in_channels)
    """
    _, r, _, C = weights.shape
    n = len(G)
    half = np.empty((n, r, C), dtype=np.int32)
    total = np.empty(C, dtype=np.int32)
    for k in range(first, last):
        half[:] = 0
        for i in range(n):
            for a in range(r):
                factor = np.int32(G[i, a])
                if factor != 0:
                    for b in range(r):
                        for c in range(C):
                            half[i, b, c] += factor * (np.int32(weights[k, a, b, c]) - zero_point)
        for i in range(n):
            for j in range(n):
                total[:] = 0
                for b in range(r):
                    factor = np.int32(G[j, b])
                    if factor != 0:
                        for c in range(C):
                            total[c] += factor * half[i, b, c]
                for c in range(C):
                    U[k, i, j, c] = total[c]


@jit_nogil
def transform_inputs(
    first: int,
    last: int,
    start: int,
    x: Array,
    zero_point: int,
    corner: tuple[int, int],
    pitch: int,
    grid: tuple[int, int],
    B: Array,
    V: Array,
) -> None:
    """Write V = B^T d B of tiles first to last.

    Parameters
    ----------
    first, last : int
        Tiles, numbered through samples, rows and columns from tile `start`.
    start : int
    x : (N, H, W, C)
        Codes.
    zero_point : int
        Of the codes; beyond the image operands are 0.
    corner : (int, int)
        Rows and columns of padding before the image.
    pitch : int
        Outputs of a tile along an axis.
    grid : (int, int)
        Rows and columns of tiles.
    B : (n, n) int64
        B^T.
    V : (n * n, blocks, C, lanes)
        Tile t is lane t % lanes of block t // lanes.
    """
    _, H, W, C = x.shape
    n = len(B)
    lanes = V.shape[3]
    rows, columns = grid
    patch = np.empty((n, n, C), dtype=np.int32)
    half = np.empty((n, n, C), dtype=np.int32)
    total = np.empty(C, dtype=np.int32)
    for t in range(first, last):
        sample, at = divmod(start + t, rows * columns)
        top = at // columns * pitch - corner[0]
        left = at % columns * pitch - corner[1]
        for i in range(n):
            for j in range(n):
                y, z = top + i, left + j
                if 0 <= y < H and 0 <= z < W:
                    for c in range(C):
                        patch[i, j, c] = np.int32(x[sample, y, z, c]) - zero_point
                else:
                    patch[i, j] = 0
        for i in range(n):
            for j in range(n):
                half[i, j] = 0
                for a in range(n):
                    b = np.int32(B[i, a])
                    if b != 0:
                        for c in range(C):
                            half[i, j, c] += b * patch[a, j, c]
        block, lane = divmod(t, lanes)
        for i in range(n):
            for j in range(n):
                total[:] = 0
                for a in range(n):
                    b = np.int32(B[j, a])
                    if b != 0:
                        for c in range(C):
                            total[c] += b * half[i, a, c]
                for c in range(C):
                    V[i * n + j, block, c, lane] = total[c]


@jit_nogil
def transform_outputs(
    first: int,
    last: int,
    start: int,
    sums: Array,
    A: Array,
    image: tuple[int, int],
    grid: tuple[int, int],
    shift: int,
    inverse: int,
    kept: int,
    y: Array,
) -> None:
    """Write y = Z / (2**shift * odd), Z = A^T M A, of output channels first to last.

    Parameters
    ----------
    first, last : int
    start : int
        Number of the first tile, see `transform_inputs`.
    sums : (products, out_channels, tiles) int64
        M.
    A : (m, n) int64
        A^T.
    image : (int, int)
        Rows and columns of outputs; those of tiles beyond it are dropped.
    grid : (int, int)
        Rows and columns of tiles.
    shift : int
    inverse : int
        Of the odd part, modulo 2**64.
    kept : int
        Low bits of the quotient that are valid; they are extended by their sign.
    y : (pixel blocks, out_channels, lanes) int64
        Pixels count through samples, rows and columns.
    """
    m, n = A.shape
    P, Q = image
    rows, columns = grid
    tiles, lanes = sums.shape[2], y.shape[2]
    spare = 64 - kept
    half = np.empty((m, n, BLOCK), dtype=np.int64)
    total = np.empty(BLOCK, dtype=np.int64)
    for k in range(first, last):
        for begin in range(0, tiles, BLOCK):
            count = min(BLOCK, tiles - begin)
            half[:] = 0
            for i in range(m):
                for a in range(n):
                    b = A[i, a]
                    if b != 0:
                        for j in range(n):
                            source = sums[a * n + j, k, begin : begin + count]
                            for t in range(count):
                                half[i, j, t] += b * source[t]
            for i in range(m):
                for j in range(m):
                    total[:] = 0
                    for a in range(n):
                        b = A[j, a]
                        if b != 0:
                            for t in range(count):
                                total[t] += b * half[i, a, t]
                    for t in range(count):
                        sample, at = divmod(start + begin + t, rows * columns)
                        row = at // columns * m + i
                        column = at % columns * m + j
                        if row < P and column < Q:
                            quotient = (total[t] >> shift) * inverse
                            block, lane = divmod((sample * P + row) * Q + column, lanes)
                            y[block, k, lane] = (quotient << spare) >> spare
