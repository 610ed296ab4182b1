"""EasyQuant's search for the scale of one operand that brings a layer's outputs nearest in angle.

The paper's S multiplies (code = clip(rint(x * S))), so that a larger S clips more; scales here are
1 / S. Source: Wu et al., EasyQuant, 2020 (2006.16669), section 3.1 and algorithm 1; the ranges of
its released code and of ncnn's port as read there (`ranges`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from golden.errors import InputError
from golden.quantization.clipping import Float64Array
from golden.quantization.method import Moments

SearchRanges = Literal["paper", "released", "ncnn"]
"""Which scales are tried, from a start S.

* ``paper``: linspace(0.5, 2, 100) * S, the ends included; S itself is among them.
* ``released``: S, and smaller ones only: of weights 98 between 1 and S, of activations 198 between
  0.8 * S and S.
* ``ncnn``: S * (0.5 + 1.5 * k / 100) for k = 0 .. 99; S itself is not among them.
"""

SEARCH_RANGES: tuple[SearchRanges, ...] = get_args(SearchRanges)

Operand = Literal["weights", "activations"]

LARGEST_GAIN = 16
"""Outputs shorter than this part of what they should be are not lengthened."""


def search_scale(
    start: Float64Array,
    score: Callable[[Float64Array], Float64Array],
    ranges: SearchRanges = "paper",
    operand: Operand = "weights",
) -> Float64Array:
    """Scale with the best score, for several channels (or one tensor) at once.

    Parameters
    ----------
    start : (C,) float64 array
        Scales to start from, from the largest magnitude; C = 1 for a tensor of activations.
    score : callable
        From (C,) scales to (C,) scores, higher is better. Channels are judged apart.
    ranges : SearchRanges
    operand : Operand
        What is searched; only ``released`` makes a difference.

    Returns
    -------
    (C,) float64 array
        A candidate replaces the best so far where its score is strictly higher, in ascending order
        of S, the start first where it is among them.
    """
    best = scores = None
    for scales in _candidates(start, ranges, operand):
        found = score(scales)
        if best is None or scores is None:
            best, scores = scales, found
        better = found > scores
        best, scores = np.where(better, scales, best), np.where(better, found, scores)
    assert best is not None
    return best


def _candidates(start: Float64Array, ranges: SearchRanges, operand: Operand) -> list[Float64Array]:
    if ranges == "paper":
        factors = [1.0, *np.linspace(0.5, 2, 100)]
    elif ranges == "ncnn":
        factors = [0.5 + 1.5 * k / 100 for k in range(100)]
    elif operand == "activations":
        factors = [1.0, *np.linspace(0.8, 1.0, 200)[1:-1]]
    else:
        larger = 1 / start
        return [start, *(1 / (1 + part * (larger - 1)) for part in np.linspace(0, 1, 100)[1:-1])]
    return [start / factor for factor in factors]


def output_cosines(weights: Float64Array, moments: Moments) -> Float64Array:
    """Cosine between the outputs of quantized and of float weights, over all calibration data.

    Parameters
    ----------
    weights : (C, K) float64 array
        Real values of the quantized weights.
    moments : Moments

    Returns
    -------
    (C,) float64 array
        0 where either output is zero throughout.
    """
    power, inner = _power_and_inner(weights, moments)
    norms = np.sqrt(np.maximum(power, 0) * moments.power)
    return np.divide(inner, norms, out=np.zeros_like(inner), where=norms > 0)


def output_errors(weights: Float64Array, moments: Moments) -> Float64Array:
    """Sum of squared differences between outputs of quantized and of float weights, (C,)."""
    power, inner = _power_and_inner(weights, moments)
    return np.asarray(np.maximum(power - 2 * inner + moments.power, 0))


def output_gains(weights: Float64Array, moments: Moments) -> Float64Array:
    """Factor on each channel's scale with the least squared error of its outputs, (C,).

    A cosine does not see the length of a channel's outputs, which clipping shortens; the layers
    behind do. 1 where the outputs are zero or point away.
    """
    power, inner = _power_and_inner(weights, moments)
    return least_squares_gains(inner, power, moments.power)


def least_squares_gains(
    inner: Float64Array, power: Float64Array, aim_power: Float64Array
) -> Float64Array:
    """Factors with the least squared error, from <o, o^>, |o^|**2 and |o|**2 of each channel.

    1 where o^ points away from o, or is so short that what is left of it says nothing: of codes
    that cancel, the noise of their sums.
    """
    long_enough = power * LARGEST_GAIN**2 > aim_power
    gains = np.divide(inner, power, out=np.ones_like(inner), where=long_enough & (power > 0))
    return np.where(gains > 0, gains, 1.0)


def _power_and_inner(weights: Float64Array, moments: Moments) -> tuple[Float64Array, Float64Array]:
    """|o^|**2 and <o, o^> of each channel."""
    groups, taps, _ = moments.gram.shape
    grouped = weights.reshape(groups, -1, taps)
    power = np.einsum("gck,gck->gc", grouped @ moments.gram, grouped).reshape(-1)
    return power, np.einsum("ck,ck->c", moments.cross, weights)


def require_moments(moments: Moments | None, method: str) -> Moments:
    """Refuse a method that looks at outputs where there is no calibration data."""
    if moments is None:
        raise InputError(
            f"{method} compares layer outputs and needs calibration data, of which there is none;"
            " give some samples, or choose a method that looks at weights alone"
        )
    return moments
