"""What a layer computes, without stepping (the fast speed): accumulators, overflows, codes.

Array layers run their steps in the order of the hardware, many pixels at a time. Nothing here calls
`golden`'s arithmetic: the two are compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from golden.network import DTYPES, Requantization, Rounding, Tensor, WeightedLayer
from simulator import kernels
from simulator.hardware import Hardware, check_layer_fits
from simulator.program import Geometry, entry_rule, layer_geometry
from simulator.results import AccumulatorValues, OverflowRecord
from simulator.sharing import TASKS_PER_THREAD, THREADS, share_out

Array = NDArray[Any]

LANES = 256
"""Pixels worked on together: fewer cost more in loop overhead, more leave the cache (measured)."""

PARALLEL_STEPS = 5_000_000
"""Steps of a layer from which on threads are worth starting."""

EXACT_BITS = {np.float32: 24, np.float64: 53}
"""Integers up to 2^bits, and so their sums in any order, are exact (IEEE 754-2008, table 3.5)."""

BLOCK_WEIGHTS = 1 << 24
"""Weights whose steps are listed at once (16 bytes each)."""

PARALLEL_OUTPUTS = 200_000
"""The same for the outputs of the post-processor."""

ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)
"""Rounding rules in the order that the kernels number them."""


@dataclass(frozen=True)
class _Accumulated:
    """Accumulators of all samples in tiles of pixels: (pixel tiles, out_channels, lanes)."""

    shape: Geometry
    pixels: int
    value: Array
    minimum: Array
    maximum: Array
    events: NDArray[np.int32]
    first: NDArray[np.int32]
    persistent: NDArray[np.bool_]
    tallies: NDArray[np.int64]


def accumulate(layer: WeightedLayer, x: Array, hardware: Hardware) -> AccumulatorValues:
    """Accumulate every output of an array layer as the hardware's PEs do.

    Parameters
    ----------
    layer : WeightedLayer
    x : integer array
        Codes: (N, H, W, C), or for a dense layer any shape whose size is a multiple of in_features.
    hardware : Hardware
        The PE kind, accumulator widths and overflow rule.

    Returns
    -------
    AccumulatorValues
        Arrays of shape (N, out_height, out_width, out_channels), or (rows, out_features).

    Raises
    ------
    HardwareError
        Where the PE has no code for a weight.
    """
    tiles = _accumulate(layer, x, hardware)
    shape: tuple[int, ...] = (-1, tiles.shape.out_channels)
    if layer.weights.ndim == 4:
        shape = (-1, tiles.shape.out_height, tiles.shape.out_width, tiles.shape.out_channels)
    return _untiled(tiles, shape)


def _untiled(tiles: _Accumulated, shape: tuple[int, ...]) -> AccumulatorValues:
    """Take accumulators out of their tiles of pixels."""

    def untiled(array: Array) -> Array:
        flat = array.transpose(0, 2, 1).reshape(-1, tiles.shape.out_channels)
        return flat[: tiles.pixels].reshape(shape)

    return AccumulatorValues(
        value=untiled(tiles.value).astype(np.int64),
        events=untiled(tiles.events).astype(np.int64),
        first_step=untiled(tiles.first).astype(np.int64) - 1,
        minimum=untiled(tiles.minimum).astype(np.int64),
        maximum=untiled(tiles.maximum).astype(np.int64),
        persistent=untiled(tiles.persistent),
    )


def run_weighted(
    layer: WeightedLayer, x: Array, output: Tensor, hardware: Hardware
) -> tuple[Array, OverflowRecord]:
    """Output codes and overflow record of an array layer.

    Parameters
    ----------
    layer : WeightedLayer
    x : integer array
        As for `accumulate`.
    output : Tensor
        Its shape (the batch follows `x`) and element type.
    hardware : Hardware

    Returns
    -------
    codes : array
    record : OverflowRecord
        Over all outputs of all samples.
    """
    tiles = _accumulate(layer, x, hardware)
    codes = post_process(layer, tiles.value, tiles.pixels, output, hardware)
    return codes, tallied_record(tiles.tallies, hardware)


def count_overflows(
    layer: WeightedLayer, x: Array, output: Tensor, hardware: Hardware
) -> tuple[Array, tuple[int, int, int]]:
    """Output codes of an array layer, and how often its accumulators overflowed.

    `run_weighted` with less to tell: quicker where many accumulators overflow, unless they spill.

    Parameters
    ----------
    layer, x, output, hardware
        As for `run_weighted`.

    Returns
    -------
    codes : array
    counts : (int, int, int)
        Overflow events, transient outputs, persistent outputs.
    """
    if hardware.array.spill_interval:
        codes, record = run_weighted(layer, x, output, hardware)
        return codes, (record.events, record.transient, record.persistent)
    parts = [_count_channels(job, accumulator_rules(hardware)) for job in _jobs(layer, x, hardware)]
    pixels, contents, tallies = zip(*parts, strict=True)
    codes = post_process(layer, np.concatenate(contents, axis=1), pixels[0], output, hardware)
    events, transient, persistent = np.concatenate(tallies).sum(axis=0).tolist()
    return codes, (events, transient, persistent)


def post_process(
    layer: WeightedLayer, contents: Array, pixels: int, output: Tensor, hardware: Hardware
) -> Array:
    """Output codes from accumulators.

    Parameters
    ----------
    layer : WeightedLayer
    contents : (pixel tiles, out_channels, lanes) float32, or any integer type
    pixels : int
        Of all samples; they fill the lanes of the tiles in order.
    output : Tensor
        Its shape (the batch follows `pixels`) and element type.
    hardware : Hardware
    """
    channels = contents.shape[1]
    codes = np.empty((pixels, channels), dtype=DTYPES[output.dtype])
    rule = layer.requantization
    bias = np.zeros(1, dtype=np.int64) if layer.bias is None else layer.bias
    parameters = np.empty((3, channels), dtype=np.int64)
    parameters[0], parameters[1], parameters[2] = bias, rule.multiplier, rule.shift
    rules = np.array(
        [
            rounding_index(rule),
            hardware.post_bits,
            layer.output_zero_point,
            layer.activation_min,
            layer.activation_max,
        ]
    )
    threads = THREADS if codes.size > PARALLEL_OUTPUTS else 1
    share_out(kernels.post_process, len(contents), threads, contents, parameters, rules, codes)
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


def _accumulate(layer: WeightedLayer, x: Array, hardware: Hardware) -> _Accumulated:
    """Accumulate a layer, a very large one in blocks of output channels."""
    parts = [
        _accumulate_channels(job, accumulator_rules(hardware)) for job in _jobs(layer, x, hardware)
    ]
    if len(parts) == 1:
        return parts[0]
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts], axis=1)
        for name in ("value", "minimum", "maximum", "events", "first", "persistent")
    }
    tallies = np.concatenate([part.tallies for part in parts])
    shape = replace(parts[0].shape, out_channels=len(layer.weights))
    return _Accumulated(shape, parts[0].pixels, **arrays, tallies=tallies)


@dataclass(frozen=True)
class _Job:
    """What the kernels need to accumulate some output channels of a layer.

    Parameters
    ----------
    shape : Geometry
        Of these channels.
    pixels : int
        Of all samples.
    size : (int, int, int)
        Pixel tiles, output channels, lanes.
    dtype : type
        Integers that hold the sum of any two prefixes.
    largest, bound : int
        Magnitudes that no operand and no prefix exceeds.
    tasks, threads : int
    planes, window, rows, factors, starts : array
        See `kernels.accumulate`.
    """

    shape: Geometry
    pixels: int
    size: tuple[int, int, int]
    dtype: type[np.signedinteger[Any]]
    largest: int
    bound: int
    tasks: int
    threads: int
    planes: Array
    window: NDArray[np.int64]
    rows: NDArray[np.uint32]
    factors: NDArray[np.int64]
    starts: NDArray[np.int64]

    @property
    def narrow(self) -> bool:
        """Whether 16 bits hold every product and the number of steps of every channel."""
        product = self.largest * int(np.abs(self.factors).max(initial=0))
        return max(product, int(np.diff(self.starts).max())) < 1 << 15

    def arguments(self, lane: type[np.number[Any]]) -> tuple[object, ...]:
        """First arguments of the kernels, from `planes` to `starts`, for lanes of this type."""
        planes = self.planes.astype(lane) if lane is np.float32 else self.planes
        factors = self.factors.astype(lane)
        return planes, self.window, self.shape.groups, self.rows, factors, self.starts


def _jobs(layer: WeightedLayer, x: Array, hardware: Hardware) -> Iterator[_Job]:
    """Prepare the jobs of a layer: one, or blocks of output channels of a very large one."""
    check_layer_fits(layer, hardware)
    images = x if layer.weights.ndim == 4 else x.reshape(1, 1, -1, layer.weights.shape[1])
    shape = layer_geometry(layer, images.shape, hardware)
    channels = shape.out_channels
    weights: Array = np.ascontiguousarray(layer.weights)
    weights = weights.reshape(channels, -1, weights.shape[-1])
    blocks = 1 if shape.groups > 1 else min(channels, ceil(weights.size / BLOCK_WEIGHTS))
    for i in range(blocks):
        block = weights[channels * i // blocks : channels * (i + 1) // blocks]
        part = shape if blocks == 1 else replace(shape, out_channels=len(block))
        yield _job(layer, block, images, part, hardware)


def _job(
    layer: WeightedLayer, weights: Array, images: Array, shape: Geometry, hardware: Hardware
) -> _Job:
    """Prepare the output channels that `weights` (channels, taps, inputs of a group) make."""
    pixels = images.shape[0] * shape.out_height * shape.out_width
    planes, largest = _planes(images, layer.input_zero_point, shape)
    rows, factors, starts, norm = kernels.build_steps(
        weights, layer.weight_zero_point, shape.groups, *entry_rule(hardware)
    )
    lanes = min(LANES, ceil(pixels / 16) * 16)
    tiles = ceil(pixels / lanes)
    threads = THREADS if rows.size * pixels > PARALLEL_STEPS else 1
    parts = ceil(TASKS_PER_THREAD * threads / tiles) if threads > 1 else 1
    return _Job(
        shape=shape,
        pixels=pixels,
        size=(tiles, shape.out_channels, lanes),
        dtype=np.int32 if largest * norm < 1 << 30 else np.int64,
        largest=largest,
        bound=largest * norm,
        tasks=tiles * parts,
        threads=threads,
        planes=planes,
        window=_window(shape),
        rows=rows,
        factors=factors,
        starts=starts,
    )


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
    return _Accumulated(
        job.shape, job.pixels, value, minimum, maximum, events, first, persistent, tallies
    )


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


def _planes(x: Array, zero_point: int, shape: Geometry) -> tuple[Array, int]:
    """Operands by channel as `kernels.fill_planes` lays them out, and their largest magnitude.

    The planes are as large as the taps reach; their codes are int16 where they fit.
    """
    low, high = int(x.min()) - zero_point, int(x.max()) - zero_point
    largest = max(-low, high, 0)
    planes = np.zeros(
        (len(x), x.shape[3], *shape.reach), np.int16 if largest < 1 << 15 else np.int32
    )
    kernels.fill_planes(np.ascontiguousarray(x), zero_point, shape.pad_top, shape.pad_left, planes)
    return planes, largest


def _window(shape: Geometry) -> NDArray[np.int64]:
    size = (shape.out_height, shape.out_width)
    return np.array([*size, *shape.kernel, *shape.stride, *shape.dilation], dtype=np.int64)


def accumulator_rules(hardware: Hardware) -> NDArray[np.int64]:
    """Limits of the accumulators as kernels take them (`kernels._exact`)."""
    array = hardware.array
    narrow, wide = 1 << (array.acc_bits - 1), 1 << (array.wide_acc_bits - 1)
    saturate = int(array.acc_overflow == "saturate")
    return np.array(
        [-narrow, narrow - 1, saturate, array.spill_interval, -wide, wide - 1], dtype=np.int64
    )
