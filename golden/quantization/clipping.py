"""Where a quantizer clips: max, percentile, least squares, least Kullback-Leibler divergence.

All ranges here hold 0. A row of zeros gets the range 0, of which `unit_where_zero` makes scale 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from golden.quantization.blocks import block_slices, each_block

Float64Array = NDArray[np.float64]
Int64Array = NDArray[np.int64]

Projection = Callable[[Float64Array], Float64Array]
"""From real weights over their scale to the integers that stand for them, element by element."""

RangeRule = Literal["max", "percentile", "mse", "kl"]
RANGE_RULES: tuple[RangeRule, ...] = get_args(RangeRule)

PERCENTILE = 99.99

KL_BINS = 2048
"""Bins of the histogram of magnitudes, as in TensorRT's calibration."""

FACTORS = np.exp2(np.arange(-80, 17) / 16)
"""First guesses of `least_squares_scale`: 1/32 to 2, sixteen an octave."""

REFINEMENTS = 24
"""Golden-section steps after the best of `FACTORS`; each leaves 0.618 of the interval."""


def symmetric_clip(
    rows: Float64Array, levels: int, rule: RangeRule, percentile: float = PERCENTILE
) -> Float64Array:
    """Magnitude that the largest code stands for, for each row.

    Parameters
    ----------
    rows : (R, N) float64 array
    levels : int
        Largest code: codes run from -levels to levels.
    rule : RangeRule
        ``max``: the largest magnitude; ``percentile``: of the magnitudes, linearly interpolated;
        ``mse``: least sum of squared errors, see `least_squares_scale`; ``kl``: see `kl_clip`.
    percentile : float
        0 to 100.

    Returns
    -------
    (R,) float64 array
        0 for a row of zeros.
    """
    if rule == "percentile":
        clip: Float64Array = np.percentile(np.abs(rows), percentile, axis=1)
        return np.where(clip > 0, clip, largest_magnitude(rows))  # mostly zeros
    if rule == "kl":
        return np.array([kl_clip(row, levels + 1) for row in rows])
    largest = largest_magnitude(rows)
    if rule == "max":
        return largest
    start = unit_where_zero(largest / levels)
    scales = least_squares_scale(rows, start, lambda x: np.clip(np.rint(x), -levels, levels))
    return np.where(largest > 0, scales * levels, 0.0)


def largest_magnitude(rows: Float64Array) -> Float64Array:
    """Largest magnitude of each row."""
    return np.asarray(np.maximum(rows.max(axis=1), -rows.min(axis=1)))


def unit_where_zero(scales: Float64Array) -> Float64Array:
    """Replace the scale of rows of zeros, 0, by 1."""
    return np.where(scales > 0, scales, 1.0)


# Least squares ------------------------------------------------------------------------------------


def least_squares_scale(
    rows: Float64Array, start: Float64Array, project: Projection
) -> Float64Array:
    """Scale of each row with the least sum of (w - scale * project(w / scale))**2.

    Tries `start` times each of `FACTORS`, then narrows the interval between the neighbours of the
    best by golden section, all rows at once; of equal errors the first tried wins. The error is not
    convex in the scale, so this is the optimum of the grid, improved, and not proved to be the
    global one.

    Parameters
    ----------
    rows : (R, N) float64 array
    start : (R,) float64 array
        Positive.
    project : callable

    Returns
    -------
    (R,) float64 array
    """
    errors = np.stack([squared_error(rows, start * factor, project) for factor in FACTORS])
    best = errors.argmin(axis=0)
    scale: Float64Array = start * FACTORS[best]
    least = errors.min(axis=0)
    low = start * FACTORS[np.maximum(best - 1, 0)]
    high = start * FACTORS[np.minimum(best + 1, len(FACTORS) - 1)]
    ratio = (np.sqrt(5) - 1) / 2
    inner = [high - ratio * (high - low), low + ratio * (high - low)]
    error = [squared_error(rows, point, project) for point in inner]
    for _ in range(REFINEMENTS):
        left = error[0] <= error[1]
        for point, found in zip(inner, error, strict=True):
            scale, least = np.where(found < least, point, scale), np.minimum(found, least)
        low, high = np.where(left, low, inner[0]), np.where(left, inner[1], high)
        new = np.where(left, high - ratio * (high - low), low + ratio * (high - low))
        found = squared_error(rows, new, project)
        inner = [np.where(left, new, inner[1]), np.where(left, inner[0], new)]
        error = [np.where(left, found, error[1]), np.where(left, error[0], found)]
    return scale


def squared_error(rows: Float64Array, scales: Float64Array, project: Projection) -> Float64Array:
    """Sum of (w - scale * project(w / scale))**2 of each row."""

    def block(row: slice, column: slice) -> Float64Array:
        scale = scales[row, np.newaxis]
        scaled = rows[row, column] / scale
        scaled -= project(scaled)
        return np.asarray(np.einsum("ij,ij->i", scaled, scaled))

    total = np.zeros(len(rows))
    slices = block_slices(rows.shape)
    for (row, _), part in zip(slices, each_block(block, rows.shape), strict=True):
        total[row] += part
    return np.asarray(total * scales**2)


# Kullback-Leibler ---------------------------------------------------------------------------------


def kl_clip(values: Float64Array, bins: int) -> float:
    """Clipping magnitude with the least divergence of histograms, after TensorRT's calibration.

    Of `KL_BINS` bins of |values|, the first i are merged into `bins` groups and spread again over
    the bins that are not empty (Q); the reference P has what lies beyond in its last bin. The i
    with the least sum P log(P / Q) wins, the first of equals, and the clip is (i + 0.5) bin widths.
    All bins are a candidate too, which both sources leave out: the largest value of an image is a
    frequent one, and there every other i is bad.

    Source: S. Migacz, 8-bit inference with TensorRT (2017), in the form of
    BUG1989/caffe-int8-convert-tools, which leaves out the first bin (zeros) and gives empty bins
    the probability 0.0001 of the others.
    """
    magnitudes = np.abs(values)
    largest = float(magnitudes.max(initial=0.0))
    if largest == 0:
        return 0.0
    counts, _ = np.histogram(magnitudes, KL_BINS, (0, largest))
    return kl_clip_of_histogram(counts, largest, bins)


def kl_clip_of_histogram(counts: Int64Array, largest: float, bins: int) -> float:
    """`kl_clip` from the counts of equal bins of magnitudes from 0 to `largest`."""
    used = counts[1:].astype(np.float64)
    if used.sum() == 0:
        return largest
    divergences = [_divergence(used, kept, bins) for kept in range(bins, len(used) + 1)]
    kept = bins + int(np.argmin(divergences))
    return min(largest, (kept + 0.5) * largest / len(counts))


def _divergence(counts: Float64Array, kept: int, bins: int) -> float:
    p = counts[:kept].copy()
    p[-1] += counts[kept:].sum()
    occupied = p > 0
    starts = np.arange(bins) * (kept // bins)
    merged = np.add.reduceat(counts[:kept], starts)
    members = np.add.reduceat(occupied.astype(np.float64), starts)
    mean = merged / np.maximum(members, 1)
    q = np.repeat(mean, np.diff(np.append(starts, kept)))
    q[~occupied] = 0
    p, q = _smooth(p), _smooth(q)
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())


def _smooth(histogram: Float64Array, epsilon: float = 1e-4) -> Float64Array:
    """Give empty bins a little, taken from the others in equal parts."""
    empty = histogram == 0
    occupied = len(histogram) - int(empty.sum())
    if occupied == 0:
        return np.ones_like(histogram)
    taken = epsilon * empty.sum() / occupied
    return np.where(empty, epsilon, np.maximum(histogram - taken, epsilon))
