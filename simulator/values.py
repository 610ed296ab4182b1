"""What a layer computes, without stepping (the fast speed): accumulators, overflows, codes.

Array layers run their steps in the order of the hardware, many pixels at a time. Nothing here calls
`golden`'s arithmetic: the two are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from golden.network import DTYPES, Requantization, Rounding, Tensor, WeightedLayer
from simulator import kernels
from simulator.hardware import Hardware, check_layer_fits
from simulator.program import entry_rule, layer_geometry
from simulator.results import AccumulatorValues, OverflowCounts, OverflowRecord
from simulator.sharing import TASKS_PER_THREAD, THREADS, share_out

Array = NDArray[Any]

LANES = 256
"""Pixels worked on together: fewer cost more in loop overhead, more leave the cache (measured)."""

PARALLEL_STEPS = 5_000_000
"""Steps of a layer from which on threads are worth starting."""

PARALLEL_OUTPUTS = 200_000
"""The same for the outputs of the post-processor."""

EXACT_BITS = {np.float32: 24, np.float64: 53}
"""Integers up to 2^bits, and so their sums in any order, are exact (IEEE 754-2008, table 3.5)."""

BLOCK_WEIGHTS = 1 << 24
"""Weights whose steps are listed at once (12 bytes each step at that time)."""

KEPT_WEIGHTS = 1 << 21
"""Weights of a layer whose steps are kept for the next run (8 bytes each step)."""

ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)
"""Rounding rules in the order that the kernels number them."""


class ArrayLayer:
    """A layer with weights whose steps are listed once, for any inputs of one shape.

    Parameters
    ----------
    layer : WeightedLayer
    input_shape : tuple of int
        Batch first, any batch: (N, H, W, C), or for a dense layer any shape whose size is a
        multiple of in_features.
    hardware : Hardware
        The PE kind, accumulator widths and overflow rule.

    Raises
    ------
    HardwareError
        Where the PE has no code for a weight.
    InputError
        The shape is not one the layer takes.
    """

    def __init__(
        self, layer: WeightedLayer, input_shape: tuple[int, ...], hardware: Hardware
    ) -> None:
        check_layer_fits(layer, hardware)
        self.layer, self.hardware = layer, hardware
        self.shape = layer_geometry(layer, input_shape, hardware)
        self.post = PostProcessor(layer, hardware)
        self._rules = accumulator_rules(hardware)

    @property
    def norm(self) -> int:
        """Largest sum of magnitudes that an output channel multiplies with; see `build_steps`."""
        return max(steps.norm for steps in self._steps())

    def run(self, x: Array, output: Tensor) -> tuple[Array, OverflowRecord]:
        """Output codes and overflow record.

        Parameters
        ----------
        x : integer array
            Codes.
        output : Tensor
            Its shape (the batch follows `x`) and element type.

        Returns
        -------
        codes : array
        record : OverflowRecord
            Over all outputs of all samples.
        """
        tiles = self._accumulate(x)
        codes = self.post.run(tiles.value, tiles.pixels, output)
        return codes, tallied_record(tiles.tallies, self.hardware)

    def accumulate(self, x: Array) -> AccumulatorValues:
        """Accumulate every output as the hardware's PEs do.

        Returns
        -------
        AccumulatorValues
            Arrays of shape (N, out_height, out_width, out_channels), or (rows, out_features).
        """
        shape: tuple[int, ...] = (-1, self.shape.out_channels)
        if self.layer.weights.ndim == 4:
            shape = (-1, self.shape.out_height, self.shape.out_width, self.shape.out_channels)
        return _untiled(self._accumulate(x), shape)

    def count_overflows(self, x: Array, output: Tensor) -> tuple[Array, OverflowCounts]:
        """Output codes, and how often the accumulators overflowed.

        `run` with less to tell: quicker where many accumulators overflow, unless they spill.

        Returns
        -------
        codes : array
        counts : OverflowCounts
        """
        if self.hardware.array.spill_interval:
            codes, record = self.run(x, output)
            return codes, record.counts
        parts = [_count_channels(job, self._rules) for job in self._jobs(x)]
        pixels, contents, tallies = zip(*parts, strict=True)
        codes = self.post.run(np.concatenate(contents, axis=1), pixels[0], output)
        return codes, OverflowCounts(*np.concatenate(tallies).sum(axis=0).tolist())

    def _accumulate(self, x: Array) -> _Accumulated:
        parts = [_accumulate_channels(job, self._rules) for job in self._jobs(x)]
        if len(parts) == 1:
            return parts[0]
        arrays = {
            name: np.concatenate([getattr(part, name) for part in parts], axis=1)
            for name in ("value", "minimum", "maximum", "events", "first", "persistent")
        }
        tallies = np.concatenate([part.tallies for part in parts])
        return _Accumulated(parts[0].pixels, **arrays, tallies=tallies)

    def _steps(self) -> Iterable[_Steps]:
        """List the steps in blocks of output channels, or give those listed before."""
        return self._kept if self.layer.weights.size <= KEPT_WEIGHTS else self._listed()

    @cached_property
    def _kept(self) -> tuple[_Steps, ...]:
        return tuple(self._listed())

    def _listed(self) -> Iterator[_Steps]:
        groups, channels = self.shape.groups, self.shape.out_channels
        weights: Array = np.ascontiguousarray(self.layer.weights)
        weights = weights.reshape(channels, -1, weights.shape[-1])
        blocks = 1 if groups > 1 else min(channels, ceil(weights.size / BLOCK_WEIGHTS))
        for i in range(blocks):
            block = weights[channels * i // blocks : channels * (i + 1) // blocks]
            rule = self.layer.weight_zero_point, groups, *entry_rule(self.hardware)
            rows, factors, starts, norm = kernels.build_steps(block, *rule)
            yield _Steps(rows, factors.astype(np.float32), starts, norm)

    def _jobs(self, x: Array) -> Iterator[_Job]:
        """Prepare the jobs: one for each block of output channels."""
        shape, zero_point = self.shape, self.layer.input_zero_point
        images, size, reach = x, (shape.out_height, shape.out_width), shape.reach
        if self.layer.weights.ndim == 2:  # one row of vectors, whatever the samples
            images = x.reshape(1, 1, -1, shape.in_channels)
            size = reach = 1, images.shape[2]
        image = _Image(
            np.ascontiguousarray(images), zero_point, shape.pad_top, shape.pad_left, reach
        )
        window = np.array([*size, *shape.kernel, *shape.stride, *shape.dilation], dtype=np.int64)
        pixels = len(images) * size[0] * size[1]
        for steps in self._steps():
            largest = _largest_operand(x, zero_point, steps.norm)
            yield _job(steps, image, pixels, largest, window, shape.groups)


@dataclass(frozen=True)
class _Accumulated:
    """Accumulators of all samples in tiles of pixels: (pixel tiles, out_channels, lanes)."""

    pixels: int
    value: Array
    minimum: Array
    maximum: Array
    events: NDArray[np.int32]
    first: NDArray[np.int32]
    persistent: NDArray[np.bool_]
    tallies: NDArray[np.int64]


def _untiled(tiles: _Accumulated, shape: tuple[int, ...]) -> AccumulatorValues:
    """Take accumulators out of their tiles of pixels."""

    def untiled(array: Array) -> Array:
        flat = array.transpose(0, 2, 1).reshape(-1, array.shape[1])
        return flat[: tiles.pixels].reshape(shape)

    return AccumulatorValues(
        value=untiled(tiles.value).astype(np.int64),
        events=untiled(tiles.events).astype(np.int64),
        first_step=untiled(tiles.first).astype(np.int64) - 1,
        minimum=untiled(tiles.minimum).astype(np.int64),
        maximum=untiled(tiles.maximum).astype(np.int64),
        persistent=untiled(tiles.persistent),
    )


class PostProcessor:
    """Bias, requantization, zero point and clamp of a layer (rule D3).

    Parameters
    ----------
    layer : WeightedLayer
    hardware : Hardware
    """

    def __init__(self, layer: WeightedLayer, hardware: Hardware) -> None:
        self.bits = hardware.post_bits
        rule = layer.requantization
        bias = np.zeros(1, dtype=np.int64) if layer.bias is None else layer.bias
        self._parameters = np.empty((3, len(layer.weights)), dtype=np.int64)
        self._parameters[0], self._parameters[1] = bias, rule.multiplier
        self._parameters[2] = rule.shift
        self._rules = np.array(
            [
                rounding_index(rule),
                hardware.post_bits,
                layer.output_zero_point,
                layer.activation_min,
                layer.activation_max,
            ]
        )

    def run(self, contents: Array, pixels: int, output: Tensor) -> Array:
        """Output codes from accumulators.

        Parameters
        ----------
        contents : (pixel tiles, out_channels, lanes) float32, or any integer type
        pixels : int
            Of all samples; they fill the lanes of the tiles in order.
        output : Tensor
            Its shape (the batch follows `pixels`) and element type.
        """
        codes = np.empty((pixels, contents.shape[1]), dtype=DTYPES[output.dtype])
        threads = THREADS if codes.size > PARALLEL_OUTPUTS else 1
        arguments = contents, self._parameters, self._rules, codes
        share_out(kernels.post_process, len(contents), threads, *arguments)
        return codes.reshape((-1, *output.shape[1:]))


def rounding_index(rule: Requantization) -> int:
    """Return the number that kernels give a rounding rule."""
    return ROUNDINGS.index(rule.rounding)


def overflow_record(values: AccumulatorValues, hardware: Hardware) -> OverflowRecord:
    """Sum up what the accumulators of a layer did."""
    affected = values.events > 0
    return _record(
        int(values.events.sum()),
        int((affected & ~values.persistent).sum()),
        int((affected & values.persistent).sum()),
        int(values.minimum.min()),
        int(values.maximum.max()),
        hardware,
    )


def tallied_record(tallies: NDArray[np.int64], hardware: Hardware) -> OverflowRecord:
    """Sum up the tallies of `kernels.accumulate`."""
    events, transient, persistent, minimum, maximum = zip(*tallies.tolist(), strict=True)
    return _record(
        sum(events), sum(transient), sum(persistent), min(minimum), max(maximum), hardware
    )


def _record(
    events: int, transient: int, persistent: int, minimum: int, maximum: int, hardware: Hardware
) -> OverflowRecord:
    return OverflowRecord(
        acc_bits=hardware.array.acc_bits,
        acc_overflow=hardware.array.acc_overflow,
        events=events,
        outputs_affected=transient + persistent,
        transient=transient,
        persistent=persistent,
        minimum=minimum,
        maximum=maximum,
        bits_needed=1 + max((-minimum - 1).bit_length() if minimum else 0, maximum.bit_length()),
    )


@dataclass(frozen=True)
class _Steps:
    """What some output channels of a layer add: see `kernels.build_steps`.

    Factors are the usual lanes; no weight has more than the 24 bits that these hold.
    """

    rows: NDArray[np.uint32]
    factors: NDArray[np.float32]
    starts: NDArray[np.int64]
    norm: int


class _Image(NamedTuple):
    """Activations that a layer reads, and where they lie: see `kernels.fill_planes`.

    Parameters
    ----------
    x : (N, H, W, in_channels) array
        C-contiguous.
    zero_point, top, left : int
    reach : (int, int)
        Rows and columns that the taps reach.
    """

    x: Array
    zero_point: int
    top: int
    left: int
    reach: tuple[int, int]

    def planes(self, kind: type[np.number[Any]]) -> Array:
        """Operands by channel, as numbers of this type."""
        planes = np.zeros((len(self.x), self.x.shape[3], *self.reach), kind)
        kernels.fill_planes(self.x, self.zero_point, self.top, self.left, planes)
        return planes


@dataclass(frozen=True)
class _Job:
    """What the kernels need to accumulate some output channels of a layer.

    Parameters
    ----------
    steps : _Steps
    pixels : int
        Of all samples.
    size : (int, int, int)
        Pixel tiles, output channels, lanes.
    largest : int
        Magnitude that no operand exceeds.
    tasks, threads : int
    image : _Image
    window : array
    groups : int
        See `kernels.accumulate`.
    """

    steps: _Steps
    pixels: int
    size: tuple[int, int, int]
    largest: int
    tasks: int
    threads: int
    image: _Image
    window: NDArray[np.int64]
    groups: int

    @property
    def bound(self) -> int:
        """Magnitude that no prefix exceeds."""
        return self.largest * self.steps.norm

    @property
    def dtype(self) -> type[np.signedinteger[Any]]:
        """Integers that hold the sum of any two prefixes."""
        return np.int32 if self.bound < 1 << 30 else np.int64

    @property
    def narrow(self) -> bool:
        """Whether 16 bits hold every product and the number of steps of every channel."""
        product = self.largest * int(np.abs(self.steps.factors).max(initial=0))
        return max(product, int(np.diff(self.steps.starts).max())) < 1 << 15

    def arguments(self, lane: type[np.number[Any]]) -> tuple[object, ...]:
        """First arguments of the kernels, from `planes` to `starts`, for lanes of this type."""
        narrow = np.int16 if self.largest < 1 << 15 else np.int32
        planes = self.image.planes(lane if lane is np.float32 else narrow)
        factors = self.steps.factors.astype(lane, copy=False)
        return planes, self.window, self.groups, self.steps.rows, factors, self.steps.starts


def _job(
    steps: _Steps,
    image: _Image,
    pixels: int,
    largest: int,
    window: NDArray[np.int64],
    groups: int,
) -> _Job:
    """Prepare the output channels that these steps make."""
    lanes = min(LANES, ceil(pixels / 16) * 16)
    tiles = ceil(pixels / lanes)
    threads = THREADS if steps.rows.size * pixels > PARALLEL_STEPS else 1
    parts = ceil(TASKS_PER_THREAD * threads / tiles) if threads > 1 else 1
    size = tiles, steps.starts.size - 1, lanes
    return _Job(steps, pixels, size, largest, tiles * parts, threads, image, window, groups)


def _accumulate_channels(job: _Job, rules: NDArray[np.int64]) -> _Accumulated:
    """Accumulate the channels of a job, with a record of every output."""
    lane = np.float32 if job.bound <= 1 << EXACT_BITS[np.float32] else job.dtype
    value, minimum, maximum = (np.empty(job.size, dtype=lane) for _ in range(3))
    events, first = (np.zeros(job.size, dtype=np.int32) for _ in range(2))
    persistent = np.zeros(job.size, dtype=np.bool_)
    tallies = np.zeros((job.tasks, 5), dtype=np.int64)
    share_out(
        kernels.accumulate,
        job.tasks,
        job.threads,
        *job.arguments(lane),
        rules,
        value,
        minimum,
        maximum,
        events,
        first,
        persistent,
        tallies,
    )
    return _Accumulated(job.pixels, value, minimum, maximum, events, first, persistent, tallies)


def _count_channels(job: _Job, rules: NDArray[np.int64]) -> tuple[int, Array, NDArray[np.int64]]:
    """Accumulate the channels of a job and count: pixels, contents by tile, tallies."""
    narrow = job.narrow and rules[1] < 1 << 13  # 16-bit lanes see every overflow
    lane = np.int16 if narrow else job.dtype
    value = np.empty(job.size, dtype=lane)
    tallies = np.zeros((job.tasks, 3), dtype=np.int64)
    if lane is np.int32:  # no prefix leaves 31 bits, and the kernel's limits must be int32
        rules = np.clip(rules, -(1 << 30), (1 << 30) - 1)
    arguments = (*job.arguments(lane), rules, np.dtype(job.dtype), value, tallies)
    share_out(kernels.count_overflows, job.tasks, job.threads, *arguments)
    return job.pixels, value, tallies


def _largest_operand(x: Array, zero_point: int, norm: int) -> int:
    """Magnitude that no operand exceeds: of any code, or of those of `x` where that is too large.

    Too large for floats to hold all sums: only then is it worth looking at every code.
    """
    codes = np.iinfo(x.dtype)
    largest = max(zero_point - int(codes.min), int(codes.max) - zero_point)
    if largest * norm <= 1 << EXACT_BITS[np.float32]:
        return largest
    return max(zero_point - int(x.min()), int(x.max()) - zero_point, 0)


def accumulator_rules(hardware: Hardware) -> NDArray[np.int64]:
    """Limits of the accumulators as kernels take them (`kernels._exact`)."""
    array = hardware.array
    narrow, wide = 1 << (array.acc_bits - 1), 1 << (array.wide_acc_bits - 1)
    saturate = int(array.acc_overflow == "saturate")
    return np.array(
        [-narrow, narrow - 1, saturate, array.spill_interval, -wide, wide - 1], dtype=np.int64
    )
