"""Accumulator widths proved from the weights: exact worst cases, no sampling.

A channel adds w[k] * x[k] over its taps. The weights are known; every operand x[k] (activation
minus zero point) can be any integer of an interval, whatever the others are. The smallest and the
largest sum then follow tap by tap from the sign of w[k], and so do the extremes of every prefix in
the declared order. All numbers are integers; widths come from bit lengths, never from logarithms.

What a certificate assumes is the range of the operands, nothing else. A tap in the padding adds 0
even where the range excludes 0, so positions at the border of the image are looked at too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from golden.accumulate import Steps, naf_digits, step_coefficients
from golden.check import INTEGER_FORMATS
from golden.errors import UnsupportedError
from golden.formats import Int64Array, IntFormat, bits_needed
from golden.network import DTYPES, Conv2D, Tensor, WeightedLayer
from golden.operators import Array, output_size
from golden.ranges import Range

BoolArray = NDArray[np.bool_]
Extreme = Literal["lo", "hi"]

MAX_BITS = 62
"""Sums need room for one more addend in int64."""

BLOCK_ELEMENTS = 1 << 16
"""Weights or steps worked on at once, so that large layers need little memory."""


@dataclass(frozen=True)
class Certificate:
    """Worst cases of one layer; every array holds one element for each output channel.

    Parameters
    ----------
    x_min, x_max : int
        Range of the operands, activation minus zero point.
    taps : int
        Weights of a channel.
    datatype_bits : int
        Width that suffices for any weights and activations of these element types.
    l1_bits : int64 array
        Width by the sum of the weights' magnitudes and the element type of the activations.
    lo, hi : int64 array
        Exact worst case of the sum, bias excluded.
    prefix_lo, prefix_hi : int64 array
        Exact worst case, at any time, of an accumulator that starts at 0 and adds products in the
        declared order. Where the operands can be 0 these are lo and hi.
    term_lo, term_hi : int64 array
        The same for an accumulator that adds signed powers of two, highest exponent first.
    bias : int64 array
        0 where the layer has none.

    Notes
    -----
    A2Q (Colbert et al., 2023) asks P >= a + log2(1 + 2**-a) + 1 bits, 2**a = K * 2**(N + M - 1 - s)
    for K products of N-bit inputs (s = 1 where signed, else 0) and M-bit weights; or the same with
    ||w||_1 * 2**(N - s). In integers that is P = 1 + (2**a).bit_length(). N counts the bits of the
    operand: int8 codes minus their zero point need up to 9.
    """

    x_min: int
    x_max: int
    taps: int
    datatype_bits: int
    l1_bits: Int64Array
    lo: Int64Array
    hi: Int64Array
    prefix_lo: Int64Array
    prefix_hi: Int64Array
    term_lo: Int64Array
    term_hi: Int64Array
    bias: Int64Array

    @property
    def exact_bits(self) -> Int64Array:
        """Smallest width in which no product overflows at any step."""
        return _widths(self.prefix_lo, self.prefix_hi)

    @property
    def exact_bits_with_bias(self) -> Int64Array:
        """Smallest width of an accumulator that starts at the bias instead of 0."""
        return _widths(self.prefix_lo + self.bias, self.prefix_hi + self.bias)

    @property
    def term_bits(self) -> Int64Array:
        """Smallest width in which no term overflows at any step."""
        return _widths(self.term_lo, self.term_hi)


@dataclass(frozen=True)
class SpillCertificate:
    """Worst cases of a narrow accumulator that spills into a wide one, one for each channel.

    Parameters
    ----------
    narrow_lo, narrow_hi : int64 array
        Of the narrow accumulator, at any step.
    wide_lo, wide_hi : int64 array
        Of the wide one, at any spill, as long as the narrow one does not overflow.
    """

    narrow_lo: Int64Array
    narrow_hi: Int64Array
    wide_lo: Int64Array
    wide_hi: Int64Array

    @property
    def narrow_bits(self) -> Int64Array:
        """Smallest width of the narrow accumulator in which nothing overflows."""
        return _widths(self.narrow_lo, self.narrow_hi)

    @property
    def wide_bits(self) -> Int64Array:
        """Smallest width of the wide accumulator in which nothing overflows."""
        return _widths(self.wide_lo, self.wide_hi)


@dataclass(frozen=True)
class Witness:
    """An input that reaches a worst case.

    Parameters
    ----------
    channel : int
        Output channel.
    position : (int, int)
        Row and column of the output; (row, 0) for a fully connected layer.
    value : int
        The sum there, bias excluded.
    patch : array of codes
        What the output reads: (kernel_height, kernel_width, channels of the group), the zero point
        where that is padding; or (in_features,).
    codes : array of codes
        A whole input, of the shape of the layer's input tensor, that holds the patch.
    """

    channel: int
    position: tuple[int, int]
    value: int
    patch: Array
    codes: Array


def _widths(low: Int64Array, high: Int64Array) -> Int64Array:
    pairs = zip(low.tolist(), high.tolist(), strict=True)
    return np.array([bits_needed(a, b) for a, b in pairs], dtype=np.int64)


# Operands and taps --------------------------------------------------------------------------------


def operand_range(layer: WeightedLayer, codes: Range) -> Range:
    """Range of activation minus zero point, from that of the codes."""
    return codes[0] - layer.input_zero_point, codes[1] - layer.input_zero_point


def _exact_weights(layer: WeightedLayer) -> Int64Array:
    """Weights minus their zero point, (out_channels, taps) in the declared order."""
    exact = layer.weights.astype(np.int64) - layer.weight_zero_point
    return exact.reshape(len(exact), -1)


def _inside(
    size: int, before: int, after: int, kernel: int, stride: int, dilation: int
) -> BoolArray:
    """Which taps of each output along one axis are inside the image: (positions, kernel)."""
    positions = np.arange(output_size(size, before, after, kernel, stride, dilation))
    at = positions[:, np.newaxis] * stride - before + np.arange(kernel) * dilation
    inside: BoolArray = (at >= 0) & (at < size)
    return inside


def _axes_inside(layer: Conv2D, shape: tuple[int, ...]) -> tuple[BoolArray, BoolArray]:
    """`_inside` for rows and columns of an input of `shape`."""
    _, R, S, _ = layer.weights.shape
    (sy, sx), (dy, dx), pad = layer.stride, layer.dilation, layer.padding
    return (
        _inside(shape[1], pad.top, pad.bottom, R, sy, dy),
        _inside(shape[2], pad.left, pad.right, S, sx, dx),
    )


def _largest(patterns: BoolArray) -> BoolArray:
    """Rows of distinct `patterns` that are not part of another row."""
    is_part = (patterns[:, np.newaxis] <= patterns).all(axis=-1)
    largest: BoolArray = patterns[is_part.sum(axis=1) == 1]
    return largest


def _kernel_patterns(
    layer: Conv2D, shape: tuple[int, ...], x_range: Range
) -> list[tuple[BoolArray, BoolArray]]:
    """Kernel rows and columns inside the image, for every kind of output that can be the worst.

    Where an operand can be 0, a tap inside the image does all that a tap outside does: outputs that
    see part of what another sees are left out.
    """
    rows, columns = (np.unique(axis, axis=0) for axis in _axes_inside(layer, shape))
    if x_range[0] <= 0 <= x_range[1]:
        rows, columns = _largest(rows), _largest(columns)
    return [(row, column) for row in rows for column in columns]


def _tap_patterns(layer: WeightedLayer, shape: tuple[int, ...], x_range: Range) -> BoolArray:
    """`_kernel_patterns` as masks of all taps of a channel: (patterns, taps)."""
    if not isinstance(layer, Conv2D):
        return np.ones((1, layer.weights.shape[1]), dtype=np.bool_)
    return np.array(
        [
            np.repeat(np.outer(rows, columns), layer.weights.shape[3])
            for rows, columns in _kernel_patterns(layer, shape, x_range)
        ]
    )


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of rows that hold about `BLOCK_ELEMENTS` together."""
    height = max(1, BLOCK_ELEMENTS // columns)
    return (slice(start, start + height) for start in range(0, rows, height))


def _both_ends(
    minima: Callable[[Range], Int64Array], x_range: Range
) -> tuple[Int64Array, Int64Array]:
    """Minima, and maxima: the minima for negated operands, negated."""
    return minima(x_range), -minima((-x_range[1], -x_range[0]))


# Certificates -------------------------------------------------------------------------------------


def certify(layer: WeightedLayer, source: Tensor, codes: Range) -> Certificate:
    """Worst cases of the accumulators of a layer.

    Parameters
    ----------
    layer : WeightedLayer
    source : Tensor
        The layer's input, for its shape and element type.
    codes : (int, int)
        Smallest and largest code that the input can hold.

    Raises
    ------
    UnsupportedError
        Where a sum could need more than 62 bits.
    """
    weights, x_range = _exact_weights(layer), operand_range(layer, codes)
    datatype_bits, l1_bits = _published_bounds(layer, weights, source)
    patterns = _tap_patterns(layer, source.shape, x_range)

    def minima(x_range: Range) -> Int64Array:
        return np.concatenate(
            [
                reduce(np.minimum, (_minima(weights[block] * seen, x_range) for seen in patterns))
                for block in _blocks(*weights.shape)
            ],
            axis=1,
        )

    (lo, prefix_lo, term_lo), (hi, prefix_hi, term_hi) = _both_ends(minima, x_range)
    bias = np.zeros(len(weights), dtype=np.int64) if layer.bias is None else layer.bias
    return Certificate(
        *(*x_range, weights.shape[1], datatype_bits, l1_bits),
        *(lo, hi, prefix_lo, prefix_hi, term_lo, term_hi, bias),
    )


def _published_bounds(
    layer: WeightedLayer, weights: Int64Array, source: Tensor
) -> tuple[int, Int64Array]:
    """Datatype bound and l1 bounds (see `Certificate`); they do not depend on the range."""
    codes = INTEGER_FORMATS[source.dtype]
    stored = IntFormat(layer.weight_bits, signed=layer.weights.dtype.kind == "i")
    zero = layer.weight_zero_point
    log2_operand = bits_needed(*operand_range(layer, (codes.min, codes.max))) - 1
    log2_weight = bits_needed(stored.min - zero, stored.max - zero) - 1
    datatype_bits = 1 + (weights.shape[1] << (log2_operand + log2_weight)).bit_length()
    norms = np.abs(weights).sum(axis=1).tolist()
    l1_bits = [1 + (norm << log2_operand).bit_length() for norm in norms]
    if datatype_bits > MAX_BITS:
        raise UnsupportedError(
            f"the sums of layer {layer.name!r} could need {datatype_bits} bits, but certificates"
            f" end at {MAX_BITS}; use activations of fewer bits"
        )
    return datatype_bits, np.array(l1_bits, dtype=np.int64)


def _minima(weights: Int64Array, x_range: Range) -> Int64Array:
    """(3, channels): smallest sum, smallest prefix of products, smallest prefix of terms.

    All prefixes reach their minimum at the same input: each operand is at the end of its range that
    its weight asks for, and the partial sums of a weight's terms have the sign of the weight.
    """
    first = min(int(weights.min()), 0)
    values = np.arange(first, max(int(weights.max()), 1) + 1)
    partial = np.cumsum(naf_digits(values), axis=0)  # after each exponent; the last row is `values`
    lowest = np.minimum(partial * x_range[0], partial * x_range[1])
    index = weights - first
    sums = np.cumsum(lowest[-1][index], axis=1)
    terms = sums + (lowest.min(axis=0) - lowest[-1])[index]
    return np.array(
        [sums[:, -1], np.minimum(sums.min(axis=1), 0), np.minimum(terms.min(axis=1), 0)]
    )


# Two stages ---------------------------------------------------------------------------------------


class _StepList(NamedTuple):
    """Steps in order, (outputs, steps) each; short ones end with zeros.

    An output is a channel seen through one tap pattern, channels fastest.

    Parameters
    ----------
    coefficient : int64 array
        Sum of the terms of the step's weight up to and including this step.
    begins : bool array
        The step is the first of its weight.
    following : int64 array
        Place of the first step of the next weight.
    inside : bool array
        The tap is inside the image; outside it the operand is 0.
    """

    coefficient: Int64Array
    begins: BoolArray
    following: Int64Array
    inside: BoolArray

    def rows(self, index: list[int]) -> _StepList:
        return _StepList(
            self.coefficient[index], self.begins[index], self.following[index], self.inside[index]
        )


def _step_list(weights: Int64Array, patterns: BoolArray, steps: Steps) -> _StepList:
    first = min(int(weights.min()), 0)
    values = np.arange(first, max(int(weights.max()), 1) + 1)
    digits = step_coefficients(values, steps)
    order = np.argsort(digits == 0, axis=0, kind="stable")  # what is no step goes last
    partial = np.cumsum(np.take_along_axis(digits, order, axis=0), axis=0)
    index = weights - first
    count = (digits != 0).sum(axis=0)[index]
    ends = np.cumsum(count, axis=1)
    shape = (len(weights), max(1, int(ends[:, -1].max())))
    coefficient, following = (np.zeros(shape, dtype=np.int64) for _ in range(2))
    begins = np.ones(shape, dtype=np.bool_)
    inside = np.ones((len(patterns), *shape), dtype=np.bool_)
    for term in range(int(count.max())):
        channel, tap = np.nonzero(count > term)
        place = (ends - count)[channel, tap] + term
        coefficient[channel, place] = partial[term][index[channel, tap]]
        begins[channel, place] = term == 0
        following[channel, place] = ends[channel, tap]
        inside[:, channel, place] = patterns[:, tap]
    repeats = (len(patterns), 1)
    return _StepList(
        np.tile(coefficient, repeats),
        np.tile(begins, repeats),
        np.tile(following, repeats),
        inside.reshape(-1, shape[1]),
    )


def _least(coefficient: Int64Array, inside: BoolArray, x_range: Range) -> Int64Array:
    """Smallest product with an operand."""
    return np.where(inside, np.minimum(coefficient * x_range[0], coefficient * x_range[1]), 0)


def _smallest_sums(steps: _StepList, x_range: Range) -> Int64Array:
    """Smallest content after each step of an accumulator that is never cleared."""
    added = _least(steps.coefficient, steps.inside, x_range)
    earlier = np.where(steps.begins[:, 1:], 0, added[:, :-1])  # terms of the same weight
    added[:, 1:] -= earlier
    return np.cumsum(added, axis=1)


def _narrow_minima(steps: _StepList, sums: Int64Array, interval: int, x_range: Range) -> Int64Array:
    """Smallest content, for each output, of an accumulator that is cleared every `interval` steps.

    `sums` are the `_smallest_sums`. Between two times of clearing the content holds the last terms
    of a weight, if it was cleared between its terms, and then what the sums grow by.
    """
    outputs, longest = sums.shape
    start = np.arange(0, longest, interval)
    cut = ~steps.begins[:, start]
    if not cut.any():
        grown: Int64Array = np.minimum.reduceat(sums, start, axis=1)
        grown[:, 1:] -= sums[:, start[1:] - 1]
        least: Int64Array = grown.min(axis=1, initial=0)
        return least
    stop = np.minimum(start + interval, longest)
    whole = np.where(cut, steps.following[:, start], start)  # the first step of a whole weight
    lost = np.where(cut, steps.coefficient[:, start - 1], 0)  # terms cleared away
    row, last = np.arange(outputs)[:, np.newaxis], np.maximum(whole - 1, 0)
    rest = _least(steps.coefficient[row, last] - lost, steps.inside[row, last] & cut, x_range)
    before = np.where(whole > 0, sums[row, last], 0) - rest
    edges = row[..., np.newaxis] * longest + np.stack(
        [whole, np.broadcast_to(stop, whole.shape)], axis=-1
    )
    flat = np.append(sums, 0)
    lowest = np.minimum.reduceat(flat, edges.reshape(-1))[::2].reshape(whole.shape)
    minima: Int64Array = np.where(whole < stop, lowest - before, 0).min(axis=1)
    for at in range(interval):  # the steps of the weight that was cut
        place = np.minimum(start + at, longest - 1)
        of_it = start + at < np.minimum(whole, stop)
        if not of_it.any():
            break
        terms = _least(steps.coefficient[:, place] - lost, steps.inside[:, place] & of_it, x_range)
        minima = np.minimum(minima, terms.min(axis=1))
    return np.minimum(minima, 0)


def _wide_minima(sums: Int64Array, interval: int) -> Int64Array:
    """Smallest content of the wide accumulator, for each output."""
    spilled = np.concatenate([sums[:, interval - 1 :: interval], sums[:, -1:]], axis=1)
    minima: Int64Array = spilled.min(axis=1)
    return np.minimum(minima, 0)


def certify_spill(
    layer: WeightedLayer, source: Tensor, codes: Range, interval: int, steps: Steps = "product"
) -> SpillCertificate:
    """Worst cases of a narrow accumulator that spills every `interval` steps of an output.

    Parameters
    ----------
    layer, source, codes
        As for `certify`.
    interval : int
        Steps between spills, at least 1; a zero weight is no step.
    steps : Steps
        What one step adds.

    Raises
    ------
    HardwareError
        Where the steps cannot hold the weights.
    """
    weights, x_range = _exact_weights(layer), operand_range(layer, codes)
    patterns = _tap_patterns(layer, source.shape, x_range)

    def minima(x_range: Range) -> Int64Array:
        parts = []
        for block in _blocks(*weights.shape):
            listed = _step_list(weights[block], patterns, steps)
            sums = _smallest_sums(listed, x_range)
            narrow = _narrow_minima(listed, sums, interval, x_range)
            stages = narrow, _wide_minima(sums, interval)
            parts.append(np.reshape(stages, (2, len(patterns), -1)).min(axis=1))
        return np.concatenate(parts, axis=1)

    (narrow_lo, wide_lo), (narrow_hi, wide_hi) = _both_ends(minima, x_range)
    return SpillCertificate(narrow_lo, narrow_hi, wide_lo, wide_hi)


def largest_spill_interval(
    layer: WeightedLayer, source: Tensor, codes: Range, acc_bits: int, steps: Steps = "product"
) -> int | None:
    """Most steps between spills for which a narrow accumulator of `acc_bits` never overflows.

    Parameters
    ----------
    layer, source, codes, steps
        As for `certify_spill`.
    acc_bits : int
        Width of the narrow accumulator.

    Returns
    -------
    int or None
        None where it need not spill at all, 0 where no interval is safe. A smaller interval than
        the largest can be unsafe, for it groups other steps.
    """
    certificate = certify(layer, source, codes)
    whole = certificate.term_bits if steps == "terms" else certificate.exact_bits
    if whole.max() <= acc_bits:
        return None
    weights, x_range = _exact_weights(layer), operand_range(layer, codes)
    patterns, limits = _tap_patterns(layer, source.shape, x_range), IntFormat(acc_bits)
    ends = ((x_range, limits.min), ((-x_range[1], -x_range[0]), -limits.max))
    lower_ends = []
    for block in _blocks(*weights.shape):
        listed = _step_list(weights[block], patterns, steps)
        lower_ends += [_End(listed, _smallest_sums(listed, x), x, limit) for x, limit in ends]
    interval = min(end.steps_that_fit() for end in lower_ends)
    suspects: list[_End] = []  # outputs that overflowed at larger intervals
    while interval > 0:
        if not any(suspect.overflowing(interval).size for suspect in suspects):
            for end in lower_ends:
                found = end.overflowing(interval)
                if found.size:
                    suspects.append(end.rows([int(found[0])]))
                    break
            else:
                return interval
        interval -= 1
    return 0


class _End(NamedTuple):
    """The lower end of some accumulators; the upper one is the lower one of negated operands."""

    steps: _StepList
    sums: Int64Array
    x_range: Range
    limit: int

    def rows(self, index: list[int]) -> _End:
        return _End(self.steps.rows(index), self.sums[index], self.x_range, self.limit)

    def steps_that_fit(self) -> int:
        """Return how many steps every output can make from 0 without overflow."""
        over = self.sums < self.limit
        first = np.where(over.any(axis=1), over.argmax(axis=1), over.shape[1])
        return int(first.min())

    def overflowing(self, interval: int) -> Int64Array:
        """Find the outputs whose narrow accumulator can overflow."""
        minima = _narrow_minima(self.steps, self.sums, interval, self.x_range)
        return np.flatnonzero(minima < self.limit)


# Witnesses ----------------------------------------------------------------------------------------


def witness(layer: WeightedLayer, source: Tensor, codes: Range, extreme: Extreme) -> Witness:
    """Build an input at which the layer's worst channel reaches its smallest or largest sum.

    Parameters
    ----------
    layer, source, codes
        As for `certify`.
    extreme : "lo" or "hi"

    Returns
    -------
    Witness
        The output nearest to the middle of the image that can reach the extreme. The rest of the
        input holds the zero point, or the code nearest to it in range.
    """
    weights, (low, high) = _exact_weights(layer), operand_range(layer, codes)
    sign = 1 if extreme == "hi" else -1
    operand = np.where(weights * sign > 0, high, np.where(weights * sign < 0, low, 0))
    patterns = _tap_patterns(layer, source.shape, (low, high))
    sums = (weights * operand) @ patterns.T  # (channels, patterns)
    channel, index = divmod(int((sums * sign).argmax()), len(patterns))
    zero = layer.input_zero_point
    fill = min(max(zero, codes[0]), codes[1])
    wanted = np.where(weights[channel] == 0, fill, operand[channel] + zero)
    patch = np.where(patterns[index], wanted, zero).astype(DTYPES[source.dtype])
    patch = patch.reshape(layer.weights.shape[1:])
    image = np.full(source.shape, fill, dtype=patch.dtype)
    position = (0, 0)
    if isinstance(layer, Conv2D):
        seen = _kernel_patterns(layer, source.shape, (low, high))[index]
        position = _place(layer, image, patch, channel, seen)
    else:
        image.reshape(-1)[: patch.size] = patch
    return Witness(channel, position, int(sums[channel, index]), patch, image)


def _place(
    layer: Conv2D, image: Array, patch: Array, channel: int, seen: tuple[BoolArray, BoolArray]
) -> tuple[int, int]:
    """Write `patch` to where the middlemost output reads it that sees these rows and columns."""
    position, taps = [], []
    before = (layer.padding.top, layer.padding.left)
    for axis, outputs in enumerate(_axes_inside(layer, image.shape)):
        found = np.flatnonzero((outputs == seen[axis]).all(axis=1))
        at = int(found[np.abs(2 * found - len(outputs) + 1).argmin()])
        kernel = np.flatnonzero(seen[axis])
        taps.append(
            (kernel, at * layer.stride[axis] - before[axis] + kernel * layer.dilation[axis])
        )
        position.append(at)
    (r, y), (s, x) = taps
    C = layer.weights.shape[3]
    first = channel // (len(layer.weights) // layer.groups) * C
    image[0, y[:, np.newaxis], x, first : first + C] = patch[r[:, np.newaxis], s]
    return position[0], position[1]
