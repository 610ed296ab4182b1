"""Accumulation in the declared order with a declared accumulator, and a record of every overflow.

The accumulator starts at 0 and holds no bias. One *step* is what one processing element adds in one
cycle. After every step the exact sum of content and addend either fits the accumulator or is an
*overflow event*, and the content wraps or saturates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from golden.arithmetic import saturate, wrap
from golden.errors import HardwareError
from golden.formats import Int64Array, IntFormat, split_by_range
from golden.network import Conv2D, WeightedLayer
from golden.operators import Array, operands, output_size, pad_image

Overflow = Literal["wrap", "saturate"]
Steps = Literal["product", "terms", "parallel_terms", "ternary", "units"]
"""What one step adds; a zero weight is no step, a zero activation is one.

* ``product``: w * x, the step of a multiplier.
* ``terms``: one signed power of two of w times x, highest exponent first (`naf_digits`).
* ``parallel_terms``: `terms` of these at once, highest exponents first; without a number all of
  them, so again w * x.
* ``ternary``: +x or -x; w must be -1, 0 or 1.
* ``units``: |w| times +x or -x.
"""

MAX_BITS = 62
"""Widest accumulator; the exact sum of its content and an addend then fits int64."""

BLOCK_ELEMENTS = 1 << 15
"""Outputs worked on at once, so that their records stay in the cache."""


@dataclass(frozen=True)
class Accumulator:
    """One accumulator, or a narrow one that spills into a wide one.

    Parameters
    ----------
    acc_bits : int
        Width of the (narrow) accumulator, two's complement, 2 to 62.
    overflow : "wrap" or "saturate"
        What both accumulators do with a sum they cannot hold.
    spill_interval : int or None
        After this many steps of an output the narrow content is added to the wide accumulator and
        cleared; the rest is added after the last step. None: one accumulator only.
    wide_acc_bits : int or None
        Width of the wide accumulator, given with `spill_interval`; at least `acc_bits`.

    Raises
    ------
    HardwareError
        For a width, rule or interval out of range.
    """

    acc_bits: int
    overflow: Overflow = "wrap"
    spill_interval: int | None = None
    wide_acc_bits: int | None = None

    def __post_init__(self) -> None:
        if not 2 <= self.acc_bits <= MAX_BITS:
            raise HardwareError(
                f"acc_bits must be 2 to {MAX_BITS}, but is {self.acc_bits}; choose a width in range"
            )
        if self.overflow not in ("wrap", "saturate"):
            raise HardwareError(
                f"overflow must be 'wrap' or 'saturate', but is {self.overflow!r}; choose one"
            )
        if (self.spill_interval is None) != (self.wide_acc_bits is None):
            raise HardwareError(
                f"spill_interval and wide_acc_bits belong together, but are {self.spill_interval}"
                f" and {self.wide_acc_bits}; give both or neither"
            )
        if self.spill_interval is not None and self.spill_interval < 1:
            raise HardwareError(
                f"spill_interval must be at least 1 step, but is {self.spill_interval};"
                " leave it out for a single accumulator"
            )
        if self.wide_acc_bits is not None and not self.acc_bits <= self.wide_acc_bits <= MAX_BITS:
            raise HardwareError(
                f"wide_acc_bits must be acc_bits ({self.acc_bits}) to {MAX_BITS}, but is"
                f" {self.wide_acc_bits}; choose a width in range"
            )

    @property
    def result_bits(self) -> int:
        """Width of what the accumulation leaves: wide where it spills."""
        return self.acc_bits if self.wide_acc_bits is None else self.wide_acc_bits


@dataclass(frozen=True)
class AccumulateResult:
    """What an accumulation left and what happened on the way; every array has the outputs' shape.

    Parameters
    ----------
    value : int64 array
        Content of the accumulator (the wide one where it spills) after the last step.
    events : int64 array
        Overflow events, those of the wide accumulator included.
    first_step : int64 array
        Step of the first event, counted from 0 over the steps of that output; -1 where none. A
        spill belongs to the step it follows.
    exact : int64 array
        The sum without any width.
    minimum, maximum : int64 array
        Extremes of an accumulator without width over all prefixes, the initial 0 included.
    transient : bool array
        Some event, yet the exact sum fits the width of the result.
    persistent : bool array
        The exact sum does not fit the width of the result.
    """

    value: Int64Array
    events: Int64Array
    first_step: Int64Array
    exact: Int64Array
    minimum: Int64Array
    maximum: Int64Array
    transient: NDArray[np.bool_]
    persistent: NDArray[np.bool_]


def naf_digits(values: ArrayLike) -> Int64Array:
    """Non-adjacent form: each integer as the sum of the fewest signed powers of two.

    Parameters
    ----------
    values : int64 array, any shape, magnitudes below 2**40

    Returns
    -------
    (E, ...) int64 array
        One row per exponent from the highest that occurs down to 0; entries -2**e, 0 or 2**e.
        Summed over the first axis they give `values`.

    Notes
    -----
    7 = 8 - 1, not 4 + 2 + 1. Source: Reitwiesner 1960; digit z = 2 - (v mod 4) for odd v, then
    v = (v - z) / 2.
    """
    remainder = np.asarray(values, dtype=np.int64).copy()
    rows: list[Int64Array] = []
    while remainder.any():
        digit = np.where(remainder & 1, 2 - (remainder & 3), 0)
        rows.append(digit << len(rows))
        remainder = (remainder - digit) >> 1
    return np.array(rows[::-1], dtype=np.int64).reshape(len(rows), *remainder.shape)


def digit_groups(values: ArrayLike, terms: int) -> Int64Array:
    """Sum so many digits of `naf_digits` of each integer, highest exponents first: (groups, ...).

    digit_groups([11], 2) is [[12], [-1]]: 11 = 16 - 4 - 1.
    """
    digits = naf_digits(values)
    group = (np.cumsum(digits != 0, axis=0) - 1) // terms
    count = max(1, int(group.max(initial=0)) + 1)
    return np.stack([np.where(group == i, digits, 0).sum(axis=0) for i in range(count)])


def step_coefficients(weights: ArrayLike, steps: Steps, terms: int | None = None) -> Int64Array:
    """Factors that each step applies to its activation.

    Parameters
    ----------
    weights : (..., ) int64 array
        Zero point already subtracted.
    steps : Steps
    terms : int or None
        Of ``parallel_terms``.

    Returns
    -------
    (D, ...) int64 array
        In the order of the steps of one weight; 0 is no step.

    Raises
    ------
    HardwareError
        For an unknown decomposition, or weights a ternary step cannot hold.
    """
    exact = np.asarray(weights, dtype=np.int64)
    if steps == "terms":
        return naf_digits(exact)
    if steps == "ternary" and np.abs(exact).max(initial=0) > 1:
        raise HardwareError(
            "ternary steps take weights of -1, 0 and 1, but the weights reach from"
            f" {exact.min()} to {exact.max()}; ternarize them first"
        )
    if steps == "units":
        count = np.arange(np.abs(exact).max(initial=0)).reshape(-1, *(1,) * exact.ndim)
        return np.where(np.abs(exact) > count, np.sign(exact), 0)
    if steps == "parallel_terms" and terms is not None:
        return digit_groups(exact, terms)
    if steps not in ("product", "parallel_terms", "ternary"):
        raise HardwareError(
            "steps must be 'product', 'terms', 'parallel_terms', 'ternary' or 'units', but is"
            f" {steps!r}; choose one"
        )
    return exact[np.newaxis]


@dataclass(frozen=True)
class _Windows:
    """Where each output finds its operands: flat[base[pixel] + offset[k] + group_base[group]]."""

    flat: Int64Array
    base: Int64Array
    offset: Int64Array
    group_base: Int64Array
    pixels_shape: tuple[int, ...]


def _conv_windows(layer: Conv2D, x: Int64Array) -> _Windows:
    _, R, S, per_group = layer.weights.shape
    (sy, sx), (dy, dx), pad = layer.stride, layer.dilation, layer.padding
    P = output_size(x.shape[1], pad.top, pad.bottom, R, sy, dy)
    Q = output_size(x.shape[2], pad.left, pad.right, S, sx, dx)
    image = pad_image(x, pad, 0)
    N, H, W, C = image.shape
    n, p, q = np.ogrid[:N, :P, :Q]
    r, s, c = np.ogrid[:R, :S, :per_group]
    return _Windows(
        flat=image.reshape(-1),
        base=(((n * H + p * sy) * W + q * sx) * C).reshape(-1),
        offset=((r * dy * W + s * dx) * C + c).reshape(-1),
        group_base=np.arange(layer.groups) * per_group,
        pixels_shape=(N, P, Q),
    )


def _dense_windows(x: Int64Array, in_features: int) -> _Windows:
    rows = x.size // in_features
    return _Windows(
        flat=x.reshape(-1),
        base=np.arange(rows) * in_features,
        offset=np.arange(in_features),
        group_base=np.zeros(1, dtype=np.int64),
        pixels_shape=(rows,),
    )


class _Records:
    """Accumulators and records of a block of outputs, (out_channels, pixels) each."""

    def __init__(self, accumulator: Accumulator, shape: tuple[int, int]) -> None:
        self.accumulator = accumulator
        self.narrow_format = IntFormat(accumulator.acc_bits)
        self.result_format = IntFormat(accumulator.result_bits)
        self.confine = wrap if accumulator.overflow == "wrap" else saturate
        self.narrow = np.zeros(shape, dtype=np.int64)
        self.wide = np.zeros(shape, dtype=np.int64)
        self.events = np.zeros(shape, dtype=np.int64)
        self.first_step = np.full(shape, -1, dtype=np.int64)
        self.exact = np.zeros(shape, dtype=np.int64)
        self.minimum = np.zeros(shape, dtype=np.int64)
        self.maximum = np.zeros(shape, dtype=np.int64)
        self.steps_done = np.zeros(shape[0], dtype=np.int64)

    def step(self, rows: Int64Array, addend: Int64Array) -> None:
        """Add one addend to each output of the channels `rows`."""
        self.narrow[rows], over = self.confine(self.narrow[rows] + addend, self.narrow_format)
        self._record(rows, over)
        exact = self.exact[rows] + addend
        self.exact[rows] = exact
        self.minimum[rows] = np.minimum(self.minimum[rows], exact)
        self.maximum[rows] = np.maximum(self.maximum[rows], exact)
        self.steps_done[rows] += 1
        if self.accumulator.spill_interval is not None:
            self._spill(rows[self.steps_done[rows] % self.accumulator.spill_interval == 0])

    def _record(self, rows: Int64Array, over: NDArray[np.bool_], steps_ago: int = 0) -> None:
        if not over.any():
            return
        self.events[rows] += over
        first = self.first_step[rows]
        step = (self.steps_done[rows] - steps_ago)[:, np.newaxis]
        self.first_step[rows] = np.where(over & (first < 0), step, first)

    def _spill(self, rows: Int64Array) -> None:
        total = self.wide[rows] + self.narrow[rows]
        self.wide[rows], over = self.confine(total, self.result_format)
        self.narrow[rows] = 0
        self._record(rows, over, steps_ago=1)

    def finish(self) -> AccumulateResult:
        if self.accumulator.spill_interval is not None:
            self._spill(np.arange(len(self.narrow)))
        persistent = split_by_range(self.exact, self.result_format)
        return AccumulateResult(
            value=self.narrow if self.accumulator.spill_interval is None else self.wide,
            events=self.events,
            first_step=self.first_step,
            exact=self.exact,
            minimum=self.minimum,
            maximum=self.maximum,
            transient=(self.events > 0) & ~persistent,
            persistent=persistent,
        )


def _accumulate_block(
    windows: _Windows, base: Int64Array, coefficients: Int64Array, accumulator: Accumulator
) -> AccumulateResult:
    """Accumulate the outputs of some pixels; coefficients are (K, steps per output in order)."""
    _, K, taps = coefficients.shape
    groups = len(windows.group_base)
    group = np.arange(K) // (K // groups)
    records = _Records(accumulator, (K, len(base)))
    for k in range(taps):
        operand = windows.flat[windows.group_base[:, np.newaxis] + base + windows.offset[k]]
        for coefficient in coefficients[:, :, k]:
            rows = np.flatnonzero(coefficient)
            if rows.size:
                records.step(rows, operand[group[rows]] * coefficient[rows, np.newaxis])
    return records.finish()


def accumulate_layer(
    layer: WeightedLayer,
    x: Array,
    accumulator: Accumulator,
    steps: Steps = "product",
    terms: int | None = None,
) -> AccumulateResult:
    """Accumulate every output of a layer, step by step.

    Parameters
    ----------
    layer : Conv2D, DepthwiseConv2D or FullyConnected
    x : integer array
        Input codes, (N, H, W, C), or for a fully connected layer any shape whose size is a multiple
        of in_features.
    accumulator : Accumulator
    steps : Steps
    terms : int or None
        See `step_coefficients`.

    Returns
    -------
    AccumulateResult
        Arrays of shape (N, P, Q, out_channels), or (rows, out_features).

    Raises
    ------
    HardwareError
        Where the steps cannot hold the weights.
    InputError
        Where `x` does not fit the layer.

    Notes
    -----
    k runs over (kernel_y, kernel_x, in_channel), in_channel fastest; inside one weight, the highest
    exponent comes first. Padded taps are steps whose operand is 0.
    """
    activations, weights = operands(layer, x)
    K = len(weights)
    coefficients = step_coefficients(weights.reshape(K, -1), steps, terms)
    if isinstance(layer, Conv2D):
        windows = _conv_windows(layer, activations)
    else:
        windows = _dense_windows(activations, weights.shape[1])
    block = max(1, BLOCK_ELEMENTS // K)
    parts = [
        _accumulate_block(windows, windows.base[start : start + block], coefficients, accumulator)
        for start in range(0, len(windows.base), block)
    ]
    return _joined(parts, (*windows.pixels_shape, K))


def _joined(parts: list[AccumulateResult], shape: tuple[int, ...]) -> AccumulateResult:
    """Blocks of (out_channels, pixels) as arrays of `shape`, channels last."""

    def join(name: str) -> Array:
        return np.concatenate([getattr(part, name) for part in parts], axis=1).T.reshape(shape)

    return AccumulateResult(**{name: join(name) for name in AccumulateResult.__dataclass_fields__})
