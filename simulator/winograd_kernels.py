"""Jitted loops of Winograd layers: transforms, channel sums, division.

Kernels only loop; matrices come by argument (`simulator.winograd_values`). Nothing here calls
`golden`'s arithmetic: the two are compared. Sums may wrap: a kernel is exact modulo a power of two,
and its caller knows which.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator._jit import jit_nogil

Array = NDArray[Any]


@jit_nogil
def transform_weights(first: int, last: int, weights: Array, G: Array, U: Array) -> None:
    """Write U = G g G^T of the kernels of input channels first to last.

    Parameters
    ----------
    first, last : int
    weights : (in_channels, r, r, out_channels) int64
        Minus their zero point.
    G : (n, r) int64
    U : (n * n, in_channels, out_channels)
    """
    _, r, _, K = weights.shape
    n = len(G)
    half = np.empty((n, r, K), dtype=np.int64)
    total = np.empty(K, dtype=np.int64)
    for c in range(first, last):
        half[:] = 0
        for i in range(n):
            for a in range(r):
                if G[i, a] != 0:
                    for b in range(r):
                        for k in range(K):
                            half[i, b, k] += G[i, a] * weights[c, a, b, k]
        for i in range(n):
            for j in range(n):
                total[:] = 0
                for b in range(r):
                    if G[j, b] != 0:
                        for k in range(K):
                            total[k] += G[j, b] * half[i, b, k]
                for k in range(K):
                    U[i * n + j, c, k] = total[k]


@jit_nogil
def transform_inputs(
    first: int,
    last: int,
    x: Array,
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
        Tiles, numbered through samples, rows and columns.
    x : (N, H, W, C) int64
        Codes minus their zero point.
    corner : (int, int)
        Rows and columns of padding before the image; beyond the image operands are 0.
    pitch : int
        Outputs of a tile along an axis.
    grid : (int, int)
        Rows and columns of tiles.
    B : (n, n) int64
        B^T.
    V : (n * n, tiles, C)
    """
    _, H, W, C = x.shape
    n = len(B)
    rows, columns = grid
    patch = np.empty((n, n, C), dtype=np.int64)
    half = np.empty((n, n, C), dtype=np.int64)
    total = np.empty(C, dtype=np.int64)
    for t in range(first, last):
        sample, at = divmod(t, rows * columns)
        top = at // columns * pitch - corner[0]
        left = at % columns * pitch - corner[1]
        for i in range(n):
            for j in range(n):
                y, z = top + i, left + j
                if 0 <= y < H and 0 <= z < W:
                    patch[i, j] = x[sample, y, z]
                else:
                    patch[i, j] = 0
        for i in range(n):
            for j in range(n):
                half[i, j] = 0
                for a in range(n):
                    b = B[i, a]
                    if b != 0:
                        for c in range(C):
                            half[i, j, c] += b * patch[a, j, c]
        for i in range(n):
            for j in range(n):
                total[:] = 0
                for a in range(n):
                    b = B[j, a]
                    if b != 0:
                        for c in range(C):
                            total[c] += b * half[i, a, c]
                for c in range(C):
                    V[i * n + j, t, c] = total[c]


@jit_nogil
def channel_sums(first: int, last: int, V: Array, U: Array, groups: int, M: Array) -> None:
    """Write M = sum over input channels of U * V, for products first to last.

    Parameters
    ----------
    first, last : int
    V : (products, tiles, in_channels)
    U : (products, in_channels / groups, out_channels)
    groups : int
    M : (products, tiles, out_channels)
        Four tiles are summed together, so that each transformed weight is read once for them. All
        three arrays are int32 (sums modulo 2**32), int64 (2**64) or float64
        (exact below 2**53).
    """
    _, T, _ = V.shape
    _, C, K = U.shape
    width = K // groups
    for p in range(first, last):
        if C == 1:  # depthwise: nothing to add
            for t in range(T):
                for k in range(K):
                    M[p, t, k] = V[p, t, k // width] * U[p, 0, k]
            continue
        M[p] = 0
        whole = T - T % 4
        for t in range(0, whole, 4):
            for g in range(groups):
                start, stop = g * width, (g + 1) * width
                m0, m1 = M[p, t, start:stop], M[p, t + 1, start:stop]
                m2, m3 = M[p, t + 2, start:stop], M[p, t + 3, start:stop]
                for c in range(C):
                    v0, v1 = V[p, t, g * C + c], V[p, t + 1, g * C + c]
                    v2, v3 = V[p, t + 2, g * C + c], V[p, t + 3, g * C + c]
                    row = U[p, c, start:stop]
                    for k in range(width):
                        u = row[k]
                        m0[k] += v0 * u
                        m1[k] += v1 * u
                        m2[k] += v2 * u
                        m3[k] += v3 * u
        for t in range(whole, T):
            for g in range(groups):
                m0 = M[p, t, g * width : (g + 1) * width]
                for c in range(C):
                    v0 = V[p, t, g * C + c]
                    row = U[p, c, g * width : (g + 1) * width]
                    for k in range(width):
                        m0[k] += v0 * row[k]


@jit_nogil
def transform_outputs(
    first: int,
    last: int,
    M: Array,
    A: Array,
    grid: tuple[int, int],
    shift: int,
    inverse: int,
    kept: int,
    y: Array,
) -> None:
    """Write y = Z / (2**shift * odd), Z = A^T M A, of tiles first to last.

    Parameters
    ----------
    first, last : int
        As in `transform_inputs`.
    M : (products, tiles, out_channels)
    A : (m, n) int64
        A^T.
    grid : (int, int)
    shift : int
    inverse : int
        Of the odd part, modulo 2**64.
    kept : int
        Low bits of the quotient that are valid; they are extended by their sign.
    y : (N, P, Q, out_channels) int64
    """
    m, n = A.shape
    K = M.shape[2]
    _, P, Q, _ = y.shape
    rows, columns = grid
    spare = 64 - kept
    half = np.empty((m, n, K), dtype=np.int64)
    total = np.empty(K, dtype=np.int64)
    for t in range(first, last):
        sample, at = divmod(t, rows * columns)
        top, left = at // columns * m, at % columns * m
        for i in range(m):
            for j in range(n):
                half[i, j] = 0
                for a in range(n):
                    b = A[i, a]
                    if b != 0:
                        for k in range(K):
                            half[i, j, k] += b * np.int64(M[a * n + j, t, k])
        for i in range(min(m, P - top)):
            for j in range(min(m, Q - left)):
                total[:] = 0
                for a in range(n):
                    b = A[j, a]
                    if b != 0:
                        for k in range(K):
                            total[k] += b * half[i, a, k]
                for k in range(K):
                    quotient = (total[k] >> shift) * inverse
                    y[sample, top + i, left + j, k] = (quotient << spare) >> spare
