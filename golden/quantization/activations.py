"""Scale and zero point of activations, from a histogram of their real values.

real = scale * (code - zero_point), code = clip(rint(real / scale) + zero_point), ties of rint to
even codes before the zero point is added (ONNX QuantizeLinear). The range always holds 0, so that
padding is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from golden.errors import InputError
from golden.quantization.clipping import (
    KL_BINS,
    PERCENTILE,
    RANGE_RULES,
    Float64Array,
    Int64Array,
    RangeRule,
    kl_clip_of_histogram,
)
from golden.quantization.codes import nearest_nhot

Scheme = Literal["symmetric", "asymmetric"]

FINE = 4
"""Bins of a `Histogram` for each bin of the magnitudes that ``kl`` looks at."""

SHRINK = [np.exp2(-np.arange(41) / 8), np.exp2(np.arange(-8, 9) / 64)]
"""Factors on each end of the range that ``mse`` tries: first 1 to 1/32, then around the best."""

SWEEPS = 3
"""Times that ``mse`` goes over both ends with the same factors."""


@dataclass(frozen=True)
class Histogram:
    """Counts of samples in equal bins from -largest to largest.

    Parameters
    ----------
    counts : (2 * FINE * KL_BINS,) int64 array
    largest : float
    low, high : float
        Smallest and largest sample.
    """

    counts: Int64Array
    largest: float
    low: float
    high: float

    def __add__(self, other: Histogram) -> Histogram:
        """Histogram of both sets of samples, which must have been counted up to one `largest`."""
        if self.largest != other.largest:
            raise ValueError(f"bins differ: largest {self.largest} and {other.largest}")
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Histogram(self.counts + other.counts, self.largest, low, high)

    def magnitudes(self) -> Int64Array:
        """Count magnitudes in `KL_BINS` bins from 0 to `largest`."""
        half = len(self.counts) // 2
        folded = self.counts[half:] + self.counts[:half][::-1]
        return np.asarray(folded.reshape(KL_BINS, -1).sum(axis=1))

    def percentile(self, percent: float) -> float:
        """Value below which `percent` of the samples lie, interpolated in its bin."""
        below = np.concatenate([[0], np.cumsum(self.counts)])
        edges = np.linspace(-self.largest, self.largest, len(below))
        value = np.interp(percent / 100 * below[-1], below, edges)
        return float(np.clip(value, self.low, self.high))


def histogram(samples: NDArray[Any], largest: float | None = None) -> Histogram:
    """Count samples of any shape.

    Parameters
    ----------
    samples : float array
        Finite, at least one.
    largest : float or None
        Largest magnitude of all batches, where several are to be added; otherwise of these.

    Raises
    ------
    InputError
        For samples that are none or not finite.
    """
    if samples.size == 0 or not np.isfinite(samples).all():
        raise InputError("activation samples must be finite and at least one; check the input data")
    low, high = float(samples.min()), float(samples.max())
    reach = max(-low, high) if largest is None else largest
    limits = (-(reach or 1.0), reach or 1.0)
    counts, _ = np.histogram(samples, 2 * FINE * KL_BINS, limits)
    return Histogram(counts.astype(np.int64), limits[1], low, high)


@dataclass(frozen=True)
class QuantizationParameters:
    """How real values become codes.

    Parameters
    ----------
    scale : float
        Positive.
    zero_point : int
        The code of 0.
    low, high : int
        Smallest and largest code.
    """

    scale: float
    zero_point: int
    low: int
    high: int

    @property
    def bits(self) -> int:
        """Width of the codes."""
        return (self.high - self.low).bit_length()

    def codes(self, values: NDArray[Any]) -> Int64Array:
        """Codes of real values."""
        rounded = np.rint(np.asarray(values, dtype=np.float64) / self.scale) + self.zero_point
        return np.asarray(np.clip(rounded, self.low, self.high).astype(np.int64))

    def reals(self, codes: NDArray[Any]) -> Float64Array:
        """Real values that codes stand for."""
        return np.asarray(self.scale * (np.asarray(codes, dtype=np.float64) - self.zero_point))


def quantization_parameters(
    samples: NDArray[Any] | Histogram,
    bits: int,
    *,
    scheme: Scheme = "asymmetric",
    rule: RangeRule = "max",
    percentile: float = PERCENTILE,
    signed: bool = True,
) -> QuantizationParameters:
    """Choose the scale and zero point of one activation tensor.

    Parameters
    ----------
    samples : float array or Histogram
        Real values of any shape, or their histogram, from which all rules but ``max`` work.
    bits : int
        2 to 8.
    scheme : Scheme
        ``asymmetric``: all 2**bits codes, over [min(low, 0), max(high, 0)]; ``symmetric``: codes -L
        to L, L = 2**(bits - 1) - 1, zero point 0 (EasyQuant: 63 of INT7).
    rule : RangeRule
        ``max``: the extremes of the samples; ``percentile``: p of the magnitudes, or asymmetric 100
        - p and p of the values; ``mse``: least squared error, by a search over each end of the
        range; ``kl``: magnitudes clipped as TensorRT does, see `clipping.kl_clip`.
    percentile : float
        Above 50, at most 100.
    signed : bool
        Whether asymmetric codes start at -2**(bits - 1) or at 0.

    Returns
    -------
    QuantizationParameters
        Scale 1 where all samples are 0 and the codes are symmetric.

    Raises
    ------
    InputError
        For bits, a rule or a percentile out of range, or samples that are none or not finite.
    """
    _check(bits, rule, percentile)
    counted = samples if isinstance(samples, Histogram) else histogram(samples)
    if scheme == "symmetric":
        levels = (1 << (bits - 1)) - 1
        return _symmetric(counted, levels, rule, percentile)
    start = -(1 << (bits - 1)) if signed else 0
    return _asymmetric(counted, start, start + (1 << bits) - 1, rule, percentile)


def _check(bits: int, rule: str, percentile: float) -> None:
    if not 2 <= bits <= 8:
        raise InputError(f"activations must have 2 to 8 bits, not {bits}; choose a width in range")
    if rule not in RANGE_RULES:
        raise InputError(f"range must be {' or '.join(RANGE_RULES)}, not {rule!r}; choose one")
    if not 50 < percentile <= 100:
        raise InputError(
            f"percentile must be above 50 and at most 100, not {percentile:g}; for example 99.99"
        )


def _symmetric(
    counted: Histogram, levels: int, rule: RangeRule, percentile: float
) -> QuantizationParameters:
    largest = max(-counted.low, counted.high)
    clip = largest
    if rule == "kl":
        clip = min(largest, kl_clip_of_histogram(counted.magnitudes(), counted.largest, levels + 1))
    elif rule == "percentile":
        folded = counted.counts + counted.counts[::-1]
        clip = replace(counted, counts=folded, low=0.0, high=largest).percentile(
            50 + percentile / 2
        )
    spanned = _symmetric_over(clip or largest, levels)
    if rule == "mse" and largest > 0:
        error = _error_of(counted)
        for factors in SHRINK:
            tried = [_symmetric_over(clip * float(factor), levels) for factor in factors]
            spanned = min(tried, key=error)
            clip = spanned.scale * levels
    return spanned


def _symmetric_over(clip: float, levels: int) -> QuantizationParameters:
    return QuantizationParameters(clip / levels or 1.0, 0, -levels, levels)


def _asymmetric(
    counted: Histogram, code_low: int, code_high: int, rule: RangeRule, percentile: float
) -> QuantizationParameters:
    low, high = min(counted.low, 0.0), max(counted.high, 0.0)
    if rule == "percentile":
        cut_low = min(counted.percentile(100 - percentile), 0.0)
        cut_high = max(counted.percentile(percentile), 0.0)
        if cut_low < cut_high:  # not all samples but a few are 0
            low, high = cut_low, cut_high
    elif rule == "kl":
        signs = 2 if low < 0 < high else 1  # magnitudes of both signs share the codes
        bins = (code_high - code_low + 1) // signs
        clip = kl_clip_of_histogram(counted.magnitudes(), counted.largest, bins)
        low, high = max(low, -clip), min(high, clip)
    elif rule == "mse" and low < high:
        low, high = _least_squares_range(counted, low, high, code_low, code_high)
    return _asymmetric_over(low, high, code_low, code_high)


def _asymmetric_over(
    low: float, high: float, code_low: int, code_high: int
) -> QuantizationParameters:
    """Spread the codes over [low, high]; the zero point is rounded, ties to even."""
    scale = float(high - low) / (code_high - code_low) or 1.0
    zero_point = int(np.clip(np.rint(code_low - low / scale), code_low, code_high))
    return QuantizationParameters(scale, zero_point, code_low, code_high)


def _least_squares_range(
    counted: Histogram, low: float, high: float, code_low: int, code_high: int
) -> tuple[float, float]:
    """Shrink one end of the range after the other; of equal errors the first tried wins."""
    error = _error_of(counted)

    def loss(ends: tuple[float, float]) -> float:
        return error(_asymmetric_over(*ends, code_low, code_high))

    for factors in SHRINK:
        start = low, high
        for _ in range(SWEEPS):
            low, high = min(((low, start[1] * f) for f in factors), key=loss)
            low, high = min(((start[0] * f, high) for f in factors), key=loss)
    return low, high


def _error_of(counted: Histogram) -> Callable[[QuantizationParameters], float]:
    """Sum of squared errors of samples at the centres of their bins."""
    (occupied,) = counted.counts.nonzero()
    centres = ((occupied + 0.5) * 2 / len(counted.counts) - 1) * counted.largest
    weights = counted.counts[occupied]

    def error(parameters: QuantizationParameters) -> float:
        wrong = parameters.reals(parameters.codes(centres)) - centres
        return float((wrong**2) @ weights)

    return error


def nhot_table(parameters: QuantizationParameters, terms: int) -> Int64Array:
    """Nearest code whose distance from the zero point is a sum of `terms` signed powers of two.

    The array multiplies by code - zero_point, so that is what becomes n-hot. Of two equally near
    the smaller distance is taken; exponents reach one past the largest distance.

    Parameters
    ----------
    parameters : QuantizationParameters
    terms : int

    Returns
    -------
    (high - low + 1,) int64 array
        For each code from `low` to `high`.
    """
    operands = np.arange(parameters.low, parameters.high + 1) - parameters.zero_point
    low, high = int(operands[0]), int(operands[-1])
    exponent = max(-low, high).bit_length()
    return nearest_nhot(operands, terms, exponent, low, high) + parameters.zero_point
