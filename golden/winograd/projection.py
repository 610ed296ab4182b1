"""n-hot and ternary weights in the Winograd domain.

A transform mixes the weights of a kernel, so n-hot weights are not n-hot once transformed, and a
serial array adds more terms than their number suggests. `weight_terms` counts them. The other way
is to project the transformed weights: terms are then few again, but the result is no convolution
any more, the division leaves a remainder, and the error is what `projected_layer` measures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from golden.errors import InputError
from golden.formats import Int64Array
from golden.network import Conv2D
from golden.operators import Array, accumulators, operands
from golden.winograd.convolution import (
    choose,
    from_tiles,
    transformed_weights,
    winograd_stages,
)
from golden.winograd.transforms import Transform

Method = Literal["nhot", "ternary"]


@dataclass(frozen=True)
class WeightTerms:
    """Signed powers of two that weights are made of.

    Parameters
    ----------
    mean : float
        Terms of one transformed weight.
    most : int
    per_output : float
        Terms for one output and input channel: what a serial array adds.
    direct_per_output : float
        The same for the direct sum.
    """

    mean: float
    most: int
    per_output: float
    direct_per_output: float

    @property
    def saving(self) -> float:
        """Terms of the direct sum for each term of the transform; 1 where all weights are 0."""
        return self.direct_per_output / self.per_output if self.per_output else 1.0


def weight_terms(transform: Transform, weights: Int64Array) -> WeightTerms:
    """Count the terms (non-adjacent form) of weights, as they are and transformed.

    Parameters
    ----------
    transform : Transform
    weights : (out_channels, kernel_height, kernel_width, in_channels) int64 array
        Zero point subtracted.
    """
    terms = _naf_terms(transformed_weights(transform, weights))
    direct = _naf_terms(weights).mean()
    taps = transform.kernel
    mean = float(terms.mean())
    return WeightTerms(
        mean=mean,
        most=int(terms.max()),
        per_output=_per_output(transform, mean),
        direct_per_output=float(direct * taps[0] * taps[1]),
    )


def _per_output(transform: Transform, mean: float) -> float:
    """Terms of a tile's products for each of its outputs, from their mean."""
    rows, columns = transform.outputs
    return mean * transform.products / (rows * columns)


def _naf_terms(values: Int64Array) -> NDArray[np.uint8]:
    """Terms of the non-adjacent form: the bits in which v and 3v differ."""
    magnitudes = np.abs(values)
    terms: NDArray[np.uint8] = np.bitwise_count(magnitudes ^ (3 * magnitudes))
    return terms


@dataclass(frozen=True)
class ProjectedWeights:
    """Transformed weights of few terms: factor * codes stands for U.

    Parameters
    ----------
    codes : (out_channels, products, in_channels) int64 array
        n-hot values; or -1, 0, 1.
    factor : (out_channels, products) int64 array
        1 for n-hot. A ternary sum is multiplied by it once, before the output transform.
    """

    codes: Int64Array
    factor: Int64Array


def projected_terms(transform: Transform, projected: ProjectedWeights) -> float:
    """Terms of the codes for one output and input channel: what a serial array adds."""
    return _per_output(transform, float(_naf_terms(projected.codes).mean()))


def project_transformed(
    transform: Transform, weights: Int64Array, method: Method, terms: int = 2
) -> ProjectedWeights:
    """Project U to n-hot values or to ternary ones.

    Parameters
    ----------
    transform : Transform
    weights : (out_channels, kernel_height, kernel_width, in_channels) int64 array
        Zero point subtracted.
    method : "nhot" or "ternary"
        ``nhot``: the nearest sum of at most `terms` signed powers of two, the smaller magnitude of
        two as near. ``ternary``: for each output channel and product the codes and the integer
        factor of least squared error, factors as large as the mean of the magnitudes kept.
    terms : int
        1 to 4.

    Raises
    ------
    InputError
        For an unknown method or a number of terms out of range.
    """
    u = transformed_weights(transform, weights)
    if method == "nhot" and 1 <= terms <= 4:
        return ProjectedWeights(_nearest_nhot(u, terms), np.ones(u.shape[:2], dtype=np.int64))
    if method == "ternary":
        return _ternary(u)
    raise InputError(
        f"transformed weights are projected with 'nhot' of 1 to 4 terms or with 'ternary', not with"
        f" {method!r} of {terms}; choose one"
    )


def _nearest_nhot(u: Int64Array, terms: int) -> Int64Array:
    """Nearest n-hot magnitudes; a power of two above the largest one is allowed."""
    powers = 1 << np.arange(int(np.abs(u).max()).bit_length() + 1)
    levels = np.zeros(1, dtype=np.int64)
    for _ in range(terms):
        levels = np.unique(levels[:, np.newaxis] + np.concatenate([-powers, [0], powers]))
    levels = levels[levels >= 0]
    magnitudes = np.abs(u)
    above = np.searchsorted(levels, magnitudes)
    low, high = levels[np.maximum(above - 1, 0)], levels[above]
    nearest: Int64Array = np.where(magnitudes - low <= high - magnitudes, low, high)
    return np.sign(u) * np.where(high == magnitudes, magnitudes, nearest)


def _ternary(u: Int64Array) -> ProjectedWeights:
    """Keep the k largest magnitudes that maximise (their sum)**2 / k: least squared error."""
    magnitudes = np.abs(u)
    ordered = -np.sort(-magnitudes, axis=2)
    sums = np.cumsum(ordered, axis=2)
    counts = np.arange(1, u.shape[2] + 1)
    kept = (sums.astype(np.float64) ** 2 / counts).argmax(axis=2)[..., np.newaxis]
    total, count = np.take_along_axis(sums, kept, 2), kept + 1
    factor = (2 * total + count) // (2 * count)
    threshold = np.take_along_axis(ordered, kept, 2)
    codes = np.sign(u) * (magnitudes >= np.maximum(threshold, 1))
    return ProjectedWeights(codes, factor[..., 0])


@dataclass(frozen=True)
class ProjectedResult:
    """What a layer with projected transformed weights computes, and how far off it is.

    Parameters
    ----------
    accumulators : (N, P, Q, out_channels) int64 array
        Z divided by the divisor, rounded half up: with projected weights there is a remainder.
    weight_sqnr_db, output_sqnr_db : float
        Power of the exact values over that of the error, of U and of the accumulators; infinite
        where nothing is off.
    """

    accumulators: Int64Array
    weight_sqnr_db: float
    output_sqnr_db: float


def projected_layer(
    layer: Conv2D, codes: Array, transform: Transform, projected: ProjectedWeights
) -> ProjectedResult:
    """Run a layer with projected transformed weights.

    Parameters
    ----------
    layer : Conv2D
        One that the transform computes.
    codes : (N, H, W, C) integer array
    transform : Transform
    projected : ProjectedWeights

    Raises
    ------
    InputError
        Where the transform does not compute the layer.
    """
    choice = choose(layer, transform)
    if choice.transform is None:
        raise InputError(
            f"layer {layer.name!r} is not computed by {transform.name}: {choice.reason}; leave its"
            " weights as they are"
        )
    x, w = operands(layer, codes)
    u = projected.codes * projected.factor[..., np.newaxis]
    stages = winograd_stages(layer, x, w, transform, u=u)
    exact = accumulators(layer, codes)
    rounded = (2 * stages.output + transform.divisor) // (2 * transform.divisor)
    result = from_tiles(rounded, exact.shape)
    return ProjectedResult(
        accumulators=result,
        weight_sqnr_db=_sqnr_db(transformed_weights(transform, w), u),
        output_sqnr_db=_sqnr_db(exact, result),
    )


def _sqnr_db(exact: Int64Array, approximate: Int64Array) -> float:
    signal = float((exact.astype(np.float64) ** 2).sum())
    noise = float(((exact - approximate).astype(np.float64) ** 2).sum())
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal else float("-inf")
