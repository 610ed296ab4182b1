"""From real weights and scales to integer codes: rounding to all integers, or to a set of levels.

Weights are (C, K) matrices and scales (C,); every function works block by block.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.errors import InputError
from golden.quantization.blocks import each_block
from golden.quantization.clipping import (
    RANGE_RULES,
    Float64Array,
    Int64Array,
    Projection,
    RangeRule,
    largest_magnitude,
    least_squares_scale,
    symmetric_clip,
    unit_where_zero,
)
from golden.quantization.method import Options, WeightTask
from golden.quantization.search import output_cosines, require_moments, search_scale

OBJECTIVES = ("weights", "outputs")
"""What a searched scale makes small: errors of the weights, or angles of the outputs."""


def largest_code(bits: int) -> int:
    """L = 2**(bits - 1) - 1, the largest symmetric code."""
    return (1 << (bits - 1)) - 1


def span(low: int, high: int) -> str:
    """Words for the integers from `low` to `high`, for errors."""
    return f"{low} to {high}" if low < high else str(high)


def projected(rows: Float64Array, scales: Float64Array, project: Projection) -> Int64Array:
    """Codes project(w / scale)."""
    codes = np.empty(rows.shape, np.int64)

    def block(row: slice, column: slice) -> None:
        codes[row, column] = project(rows[row, column] / scales[row, np.newaxis])

    each_block(block, rows.shape)
    return codes


# All integers -------------------------------------------------------------------------------------


def symmetric_codes(rows: Float64Array, scales: Float64Array, bits: int) -> Int64Array:
    """Codes clip(rint(w / scale), -L, L); ties of rint to even."""
    return projected(rows, scales, to_integers(bits))


def to_integers(bits: int) -> Projection:
    """Projection clip(rint(x), -L, L); ties of rint to even."""
    levels = largest_code(bits)
    return lambda scaled: np.asarray(np.clip(np.rint(scaled), -levels, levels))


def symmetric_scales(rows: Float64Array, bits: int, options: Options) -> Float64Array:
    """Scales of symmetric codes.

    Parameters
    ----------
    rows : (C, K) float64 array
    bits : int
    options : mapping
        ``per``: "channel" or "tensor" (all scales equal); ``range``: a `RangeRule`;
        ``percentile``: for that rule.

    Returns
    -------
    (C,) float64 array
        1 where all weights are 0.
    """
    levels = largest_code(bits)
    chosen = rows.reshape(1, -1) if options["per"] == "tensor" else rows
    clips = symmetric_clip(chosen, levels, range_rule(options), percentile(options))
    return np.broadcast_to(unit_where_zero(clips / levels), len(rows)).copy()


def range_rule(options: Options) -> RangeRule:
    """Read the setting ``range``."""
    return next(rule for rule in RANGE_RULES if rule == options["range"])


def percentile(options: Options) -> float:
    """Read the setting ``percentile``."""
    percent = float(options["percentile"])
    if not 50 < percent <= 100:
        raise InputError(
            f"percentile must be above 50 and at most 100, not {percent:g}; for example 99.99"
        )
    return percent


# Levels -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Levels:
    """A set of integers with their negatives; of two equally near the smaller magnitude is taken.

    Parameters
    ----------
    magnitudes : (M,) int64 array
        Ascending, the first 0.
    """

    magnitudes: Int64Array

    @property
    def largest(self) -> int:
        """Largest level."""
        return int(self.magnitudes[-1])

    @property
    def size(self) -> int:
        """Number of levels, both signs and 0."""
        return 2 * len(self.magnitudes) - 1

    @property
    def codebook_bits(self) -> int:
        """Bits that number the levels."""
        return (self.size - 1).bit_length()

    @cached_property
    def _nearest(self) -> Float64Array:
        """Level of the reals above (j - 1) / 2 and up to j / 2, for each j.

        All of them are nearest to one level, as midpoints of integers are multiples of one half.
        """
        halves = np.arange(2 * self.largest + 1)
        midpoints = self.magnitudes[:-1] + self.magnitudes[1:]  # twice them
        return self.magnitudes[np.searchsorted(midpoints, halves)].astype(np.float64)

    def project(self, values: NDArray[Any]) -> Float64Array:
        """Nearest levels, as float64."""
        halves = np.abs(values) * 2.0
        np.ceil(halves, out=halves)
        np.minimum(halves, 2 * self.largest, out=halves)
        return np.asarray(np.copysign(self._nearest.take(halves.astype(np.intp)), values))


def nhot_levels(terms: int, max_exponent: int, largest: int) -> Levels:
    """V(n, E, L): sums of `terms` of {0, +-2**0 .. +-2**max_exponent} of magnitude up to `largest`.

    nhot_levels(1, 2, 4) is 0, 1, 2, 4 and their negatives. Source: arXiv 2103.11704.
    """
    powers = 1 << np.arange(max_exponent + 1)
    digits = np.concatenate([-powers, [0], powers])
    values = np.zeros(1, dtype=np.int64)
    for _ in range(terms):
        values = np.unique(values[:, np.newaxis] + digits)
    return Levels(values[(values >= 0) & (values <= largest)])


def nearest_nhot(
    weights: Int64Array, terms: int, max_exponent: int, low: int, high: int
) -> Int64Array:
    """Nearest sums of `terms` signed powers of two up to 2**max_exponent, from low to high.

    For integers whose range is not symmetric, as low = -128, high = 127; low <= 0 <= high. Of two
    equally near the smaller magnitude is taken.
    """
    positive = nhot_levels(terms, max_exponent, high).project(np.maximum(weights, 0))
    negative = nhot_levels(terms, max_exponent, -low).project(np.maximum(-weights, 0))
    return (positive - negative).astype(np.int64)


def level_scales(task: WeightTask, levels: Levels, objective: str, method: str) -> Float64Array:
    """Scale of each channel for a set of levels.

    Parameters
    ----------
    task : WeightTask
    levels : Levels
    objective : "max", "weights" or "outputs"
        The largest weight gets the largest level; least squared error of the weights; or, of
        EasyQuant's candidates around the first, the best cosine of the outputs.
    method : str
        For the error where there are no moments.
    """
    rows = task.weights
    start = unit_where_zero(largest_magnitude(rows) / levels.largest)
    if objective == "max":
        return start
    if objective == "weights":
        return least_squares_scale(rows, start, levels.project)
    moments = require_moments(task.moments, method)

    def score(scales: Float64Array) -> Float64Array:
        codes = projected(rows, scales, levels.project)
        return output_cosines(scales[:, np.newaxis] * codes, moments)

    return search_scale(start, score)
