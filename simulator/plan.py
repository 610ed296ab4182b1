"""How a weighted layer is cut into passes that fit the buffers (rules T1 to T3).

`cut_layer` cuts for given parts of the buffers; `simulator.timing.plan_layer` chooses the parts.

A *pass* is one run of the engine: a range of pixel tiles times a range of channel tiles, or one
pixel tile times a part (chunk) of one channel tile's words. The plan counts stream entries straight
from the weights; it does not build the streams.

Bytes
-----
Everything is packed densely and rounded up to bytes at the end:

* A channel tile is the entries of all C columns, fillers included, of `entry_bits` each, its feed
  words of `feed_word_bits` each, and `parameter_bits` for each channel, rounded up to bytes once
  for each channel tile. Each chunk of a cut tile is rounded up alone; the last one has the
  parameters. A pass loads the sum over its channel tiles.
* The activations of a strip are input rows x W x in_words x F codes, rounded up once.
* The outputs of a pass are its real pixels x its channels, rounded up once.

What must fit is what the memories hold: C x the longest column of the group (all columns are as
deep), and whole output words (R x F codes for each word and pixel tile).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise, product
from math import ceil, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.errors import HardwareError
from golden.network import Conv2D, FullyConnected, Network, Padding, WeightedLayer
from simulator import kernels, passes
from simulator.cuts import ChannelTile as StepTile
from simulator.cuts import Cut, Cutter, step_geometry
from simulator.cuts import capacity as pass_capacity
from simulator.hardware import Hardware
from simulator.lowering import Layout, Lowered, Step, layout, lower
from simulator.pass_table import PassTable, Places, Runs, blocks_of, operations, tabulate
from simulator.transfers import bus_of, schedule

Range = tuple[int, int]
"""First and one past the last."""


@dataclass(frozen=True)
class Geometry:
    """A weighted layer as a convolution on one image.

    A dense layer is a 1 x 1 convolution on an image of height 1.

    Parameters
    ----------
    height, width, in_channels : int
        Of one image; a dense layer has height 1 and its rows as width.
    out_height, out_width, out_channels : int
    kernel_height, kernel_width : int
    stride, dilation : tuple of int
    padding : Padding
    groups : int
    """

    height: int
    width: int
    in_channels: int
    out_height: int
    out_width: int
    out_channels: int
    kernel_height: int
    kernel_width: int
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: Padding
    groups: int

    @property
    def pixels(self) -> int:
        """Output pixels of one image."""
        return self.out_height * self.out_width

    @property
    def pitch(self) -> int:
        """Pixel indices from one output row to the next (rule M1)."""
        return max(self.out_width, ceil(self.width / self.stride[1]))

    def pixel_tiles(self, rows: int) -> int:
        """Pixel tiles of an array with `rows` rows (rule M1)."""
        return ceil(((self.out_height - 1) * self.pitch + self.out_width) / rows)

    def real_pixels(self, tiles: Range, rows: int) -> int:
        """Rows of the pixel tiles `tiles` that own an output pixel."""
        return self._pixels_before(tiles[1] * rows) - self._pixels_before(tiles[0] * rows)

    def input_rows(self, tiles: Range, rows: int) -> int:
        """Input rows, first to last, that the pixel tiles `tiles` touch with any tap."""
        first, last = tiles[0] * rows, tiles[1] * rows - 1
        top = first // self.pitch + (first % self.pitch >= self.out_width)
        bottom = min(last // self.pitch, self.out_height - 1)
        if top > bottom:
            return 0
        low = top * self.stride[0] - self.padding.top
        high = (
            bottom * self.stride[0] - self.padding.top + (self.kernel_height - 1) * self.dilation[0]
        )
        return max(0, min(high, self.height - 1) - max(low, 0) + 1)

    def _pixels_before(self, index: int) -> int:
        row, column = divmod(index, self.pitch)
        if row >= self.out_height:
            return self.pixels
        return row * self.out_width + min(column, self.out_width)


def geometry(layer: WeightedLayer, input_shape: tuple[int, ...]) -> Geometry:
    """Shapes of a weighted layer for one image.

    Parameters
    ----------
    layer : WeightedLayer
    input_shape : tuple of int
        NHWC for convolutions; the batch does not matter. For a dense layer all but the last
        `in_features` elements are rows, batch included.

    Returns
    -------
    Geometry
    """
    if isinstance(layer, Conv2D):
        _, height, width, in_channels = input_shape
        out_channels, kernel_height, kernel_width, _ = layer.weights.shape
        padding, stride, dilation = layer.padding, layer.stride, layer.dilation
        reach_y = dilation[0] * (kernel_height - 1) + 1
        reach_x = dilation[1] * (kernel_width - 1) + 1
        return Geometry(
            height=height,
            width=width,
            in_channels=in_channels,
            out_height=(height + padding.top + padding.bottom - reach_y) // stride[0] + 1,
            out_width=(width + padding.left + padding.right - reach_x) // stride[1] + 1,
            out_channels=out_channels,
            kernel_height=kernel_height,
            kernel_width=kernel_width,
            stride=stride,
            dilation=dilation,
            padding=padding,
            groups=layer.groups,
        )
    if not isinstance(layer, FullyConnected):
        raise TypeError(f"{type(layer).__name__} is not a layer of the array")
    out_features, in_features = layer.weights.shape
    rows = prod(input_shape) // in_features
    return Geometry(
        height=1,
        width=rows,
        in_channels=in_features,
        out_height=1,
        out_width=rows,
        out_channels=out_features,
        kernel_height=1,
        kernel_width=1,
        stride=(1, 1),
        dilation=(1, 1),
        padding=Padding(),
        groups=1,
    )


@dataclass(frozen=True)
class ChannelTile:
    """One channel tile: its words and the entries its weights make.

    Parameters
    ----------
    first_channel, channels : int
        Output channels; `channels` columns are used.
    words : (n,) int64 array
        Listed window words (rule M3), as (ky * kernel_width + kx) * in_words + cw.
    counts : (C, n) int32 array
        Entries of each column at each word, fillers not included.
    """

    first_channel: int
    channels: int
    words: NDArray[np.int64]
    counts: NDArray[np.int32]


@dataclass(frozen=True)
class Pass:
    """One run of the engine.

    Parameters
    ----------
    pixel_tiles, channel_tiles : (first, one past the last)
    words : (first, one past the last) or None
        None for whole channel tiles; otherwise positions in `ChannelTile.words` of the only channel
        tile, and there is only one pixel tile.
    drain : bool
        Whether results are written; False for all but the last chunk of a cut tile (rule E4).
    load_weight_bytes, load_activation_bytes, store_bytes : int
        0 where nothing is moved (left in the buffer by the pass before).
    """

    pixel_tiles: Range
    channel_tiles: Range
    words: Range | None
    drain: bool
    load_weight_bytes: int
    load_activation_bytes: int
    store_bytes: int


@dataclass(frozen=True)
class LayerPlan:
    """A layer's channel tiles and its passes in order."""

    geometry: Geometry
    tiles: tuple[ChannelTile, ...]
    passes: tuple[Pass, ...]


@dataclass(frozen=True)
class _Group:
    """Channel tiles held together in the weight buffer, or the chunks of one that does not fit."""

    tiles: Range
    chunks: tuple[Range, ...]  # empty: whole tiles
    weight_bytes: tuple[int, ...]  # one for each chunk, or one


@dataclass(frozen=True)
class Capacity:
    """Bytes that one pass may fill of each buffer (rule T1)."""

    activation_bytes: int
    weight_bytes: int
    output_bytes: int


def capacity(hardware: Hardware) -> Capacity:
    """Bound a pass by the hardware: all of each buffer, or half where it is doubled (rule T1)."""
    halves = 2 if hardware.buffers.double_buffer else 1
    buffers = hardware.buffers
    return Capacity(
        activation_bytes=buffers.activation_bytes // halves,
        weight_bytes=buffers.weight_bytes // halves,
        output_bytes=buffers.output_bytes // halves,
    )


def whole_layer(shape: Geometry, tiles: tuple[ChannelTile, ...], hardware: Hardware) -> Capacity:
    """Size a layer: what a single pass of all of it takes of each buffer (`cut_layer`)."""
    rows = hardware.array.rows
    pixel_tiles = shape.pixel_tiles(rows)
    depth = sum(kernels.column_entries(tile.counts) for tile in tiles)
    words = sum(tile.words.size for tile in tiles)
    held = hardware.array.cols * int(np.max(depth))
    return Capacity(
        activation_bytes=_bytes(
            shape.input_rows((0, pixel_tiles), rows) * _row_bits(shape, hardware)
        ),
        weight_bytes=_bytes(_content_bits(held, words, shape.out_channels, hardware)),
        output_bytes=_held_output_bytes(tiles, (0, len(tiles)), pixel_tiles, hardware),
    )


def cut_layer(
    name: str,
    shape: Geometry,
    tiles: tuple[ChannelTile, ...],
    hardware: Hardware,
    limit: Capacity,
) -> LayerPlan:
    """Cut a weighted layer into the largest passes that `limit` allows.

    Parameters
    ----------
    name : str
        Of the layer, for errors.
    shape : Geometry
        From `geometry`, for one inference (batch 1).
    tiles : tuple of ChannelTile
        From `channel_tiles`.
    hardware : Hardware
    limit : Capacity

    Returns
    -------
    LayerPlan

    Raises
    ------
    HardwareError
        Where a buffer cannot hold the smallest pass.
    """
    groups = _channel_groups(name, tiles, hardware, limit)
    strips = _pixel_strips(name, shape, tiles, groups, hardware, limit)
    return LayerPlan(shape, tiles, _passes(shape, tiles, groups, strips, hardware))


def channel_tiles(
    layer: WeightedLayer, shape: Geometry, hardware: Hardware
) -> tuple[ChannelTile, ...]:
    """List the words and count the entries of every channel tile (rules M3, S3)."""
    cols, feed = hardware.array.cols, hardware.array.feed
    in_words = ceil(shape.in_channels / feed)
    taps = shape.kernel_height * shape.kernel_width
    weights: NDArray[Any] = np.ascontiguousarray(layer.weights)
    counts = kernels.count_entries(
        weights.reshape(shape.out_channels, taps, -1),
        layer.weight_zero_point,
        shape.groups,
        in_words,
        feed,
        hardware.serial,
    )
    tiles = []
    for first in range(0, shape.out_channels, cols):
        block = counts[first : first + cols]
        words = np.flatnonzero(block.any(axis=0))
        if words.size == 0:
            group = first // (shape.out_channels // shape.groups)
            words = np.array([group * (shape.in_channels // shape.groups) // feed])
        padded = np.zeros((cols, words.size), dtype=np.int32)
        padded[: len(block)] = block[:, words]
        tiles.append(ChannelTile(first, len(block), words, padded))
    return tuple(tiles)


# -- capacities -----------------------------------------------------------------------------------


def _too_small(
    name: str, what: str, key: str, total_bytes: int, need_bytes: int, hardware: Hardware, way: str
) -> HardwareError:
    half = ", half of it for each pass," if hardware.buffers.double_buffer else ""
    enough = need_bytes * (2 if hardware.buffers.double_buffer else 1)
    return HardwareError(
        f"layer {name!r} needs {need_bytes} bytes for {what}, but buffers.{key}={total_bytes}{half}"
        f" is too small; raise it to at least {enough} or {way}"
    )


def _bytes(bits: int) -> int:
    return -(-bits // 8)


def _channel_groups(
    name: str, tiles: tuple[ChannelTile, ...], hardware: Hardware, limit: Capacity
) -> list[_Group]:
    """Rule T2: consecutive channel tiles as long as they fit, or one tile cut into chunks."""
    entries = [kernels.column_entries(tile.counts) for tile in tiles]
    sizes = [
        _bytes(_content_bits(int(column.sum()), tile.words.size, tile.channels, hardware))
        for tile, column in zip(tiles, entries, strict=True)
    ]
    cols = hardware.array.cols
    groups: list[_Group] = []
    first = 0
    while first < len(tiles):
        depth = np.zeros(cols, dtype=np.int64)
        words = channels = 0
        last = first
        while last < len(tiles):
            depth = depth + entries[last]
            words += tiles[last].words.size
            channels += tiles[last].channels
            held = cols * int(depth.max())
            fits = _bytes(_content_bits(held, words, channels, hardware)) <= limit.weight_bytes
            if not (fits and _outputs_fit(tiles, (first, last + 1), hardware, limit)):
                break
            last += 1
        if last > first:
            groups.append(_Group((first, last), (), (sum(sizes[first:last]),)))
            first = last
        else:
            groups.append(_cut(name, tiles, first, limit.weight_bytes, hardware))
            first += 1
    return groups


def _content_bits(entries: int, words: int, channels: int, hardware: Hardware) -> int:
    return (
        entries * hardware.entry_bits
        + words * hardware.feed_word_bits
        + channels * hardware.parameter_bits
    )


def _outputs_fit(
    tiles: tuple[ChannelTile, ...], span: Range, hardware: Hardware, limit: Capacity
) -> bool:
    """Whether one pixel tile's outputs fit; of one channel tile, `_pixel_strips` checks it."""
    one_tile = span[1] - span[0] == 1
    return one_tile or _held_output_bytes(tiles, span, 1, hardware) <= limit.output_bytes


def _held_output_bytes(
    tiles: tuple[ChannelTile, ...], span: Range, pixel_tiles: int, hardware: Hardware
) -> int:
    """Output memory taken by whole words of F codes (rule M6)."""
    array = hardware.array
    last = tiles[span[1] - 1]
    first_word = tiles[span[0]].first_channel // array.feed
    words = (last.first_channel + last.channels - 1) // array.feed - first_word + 1
    return _bytes(pixel_tiles * array.rows * words * array.feed * array.activation_bits)


def _cut(
    name: str, tiles: tuple[ChannelTile, ...], index: int, limit_bytes: int, hardware: Hardware
) -> _Group:
    """Cut one channel tile along its words into the fewest chunks that fit, longest first."""
    tile = tiles[index]
    words = tile.words.size
    chunks: list[Range] = []
    sizes: list[int] = []
    start = 0
    while start < words:
        stop = kernels.chunk_end(
            tile.counts,
            start,
            8 * limit_bytes,
            hardware.entry_bits,
            hardware.feed_word_bits,
            tile.channels * hardware.parameter_bits,
        )
        if stop == start:
            raise _too_small(
                name,
                "one window word of one channel tile's weight streams",
                "weight_bytes",
                hardware.buffers.weight_bytes,
                max(_widest_word_bytes(each, hardware) for each in tiles),
                hardware,
                "lower array.cols or array.feed",
            )
        entries = int(kernels.column_entries(tile.counts[:, start:stop]).sum())
        channels = tile.channels if stop == words else 0
        chunks.append((start, stop))
        sizes.append(_bytes(_content_bits(entries, stop - start, channels, hardware)))
        start = stop
    return _Group((index, index + 1), tuple(chunks), tuple(sizes))


def _widest_word_bytes(tile: ChannelTile, hardware: Hardware) -> int:
    """Weight memory that a channel tile needs when every word is a chunk of its own."""
    entries = np.maximum(tile.counts.max(axis=0), 1) * hardware.array.cols
    bits = _content_bits(int(entries.max()), 1, 0, hardware)
    last_bits = _content_bits(int(entries[-1]), 1, tile.channels, hardware)
    return _bytes(max(bits, last_bits))


def _row_bits(shape: Geometry, hardware: Hardware) -> int:
    array = hardware.array
    lanes = ceil(shape.in_channels / array.feed) * array.feed
    return shape.width * lanes * array.activation_bits


def _pixel_strips(
    name: str,
    shape: Geometry,
    tiles: tuple[ChannelTile, ...],
    groups: list[_Group],
    hardware: Hardware,
    limit: Capacity,
) -> list[Range]:
    """Rule T2: consecutive pixel tiles whose input rows and outputs fit."""
    rows = hardware.array.rows
    row_bits = _row_bits(shape, hardware)
    tile_output_bytes = max(_held_output_bytes(tiles, group.tiles, 1, hardware) for group in groups)
    if tile_output_bytes > limit.output_bytes:
        raise _too_small(
            name,
            "the outputs of one pixel tile and one channel tile",
            "output_bytes",
            hardware.buffers.output_bytes,
            tile_output_bytes,
            hardware,
            "lower array.rows or array.cols",
        )

    def too_many(strip: Range) -> bool:
        input_bytes = _bytes(shape.input_rows(strip, rows) * row_bits)
        output_bytes = (strip[1] - strip[0]) * tile_output_bytes
        return input_bytes > limit.activation_bytes or output_bytes > limit.output_bytes

    strips: list[Range] = []
    first, count = 0, shape.pixel_tiles(rows)
    while first < count:
        if too_many((first, first + 1)):
            most_rows = max(shape.input_rows((i, i + 1), rows) for i in range(count))
            raise _too_small(
                name,
                "the input rows of one pixel tile",
                "activation_bytes",
                hardware.buffers.activation_bytes,
                _bytes(most_rows * row_bits),
                hardware,
                "lower array.rows",
            )
        stops = range(first + 1, count + 1)
        fitting = bisect_left(stops, True, key=lambda stop: too_many((first, stop)))
        strips.append((first, first + fitting))
        first += fitting
    return strips


# -- order ----------------------------------------------------------------------------------------


def _passes(
    shape: Geometry,
    tiles: tuple[ChannelTile, ...],
    groups: list[_Group],
    strips: list[Range],
    hardware: Hardware,
) -> tuple[Pass, ...]:
    """Rule T3: the cheaper loop order, and nothing loaded that the pass before left behind."""
    rows, code_bits = hardware.array.rows, hardware.array.activation_bits
    row_bits = _row_bits(shape, hardware)
    strip_bytes = [_bytes(shape.input_rows(strip, rows) * row_bits) for strip in strips]
    input_bytes = sum(strip_bytes)
    weight_bytes = sum(sum(group.weight_bytes) for group in groups)
    strips_outer = (
        input_bytes + len(strips) * weight_bytes <= len(groups) * input_bytes + weight_bytes
    )
    pairs = (
        [(s, g) for s in range(len(strips)) for g in range(len(groups))]
        if strips_outer
        else [(s, g) for g in range(len(groups)) for s in range(len(strips))]
    )
    passes: list[Pass] = []
    held_strip = -1
    held_weights: tuple[int, int] = (-1, -1)
    for s, g in pairs:
        strip, group = strips[s], groups[g]
        first, last = group.tiles
        channels = (
            tiles[last - 1].first_channel + tiles[last - 1].channels - tiles[first].first_channel
        )
        runs: list[tuple[Range, int]]  # pixel tiles, chunk
        if group.chunks:
            runs = [
                ((pixel, pixel + 1), chunk)
                for pixel in range(*strip)
                for chunk in range(len(group.chunks))
            ]
        else:
            runs = [(strip, 0)]
        for pixel_tiles, chunk in runs:
            drain = chunk == max(len(group.chunks) - 1, 0)
            outputs = shape.real_pixels(pixel_tiles, rows) * channels if drain else 0
            passes.append(
                Pass(
                    pixel_tiles=pixel_tiles,
                    channel_tiles=group.tiles,
                    words=group.chunks[chunk] if group.chunks else None,
                    drain=drain,
                    load_weight_bytes=0
                    if held_weights == (g, chunk)
                    else group.weight_bytes[chunk],
                    load_activation_bytes=0 if held_strip == s else strip_bytes[s],
                    store_bytes=_bytes(outputs * code_bits),
                )
            )
            held_strip, held_weights = s, (g, chunk)
    return tuple(passes)


# -- plans of steps and networks ------------------------------------------------------------------


ALIGNMENT_BYTES = 4096
"""Programs, weight blocks and tensors begin at multiples of this."""

SHARES = (1, 2, 4, 8)
"""Passes of at most one part in so many of the step are tried (rule T3)."""


@dataclass(frozen=True)
class WeightMemories:
    """Depths of the weight memories, both halves included.

    Parameters
    ----------
    feed_beats, stream_beats : int
        Of the feed memory; of every column's stream memory.
    parameter_words : int
    """

    feed_beats: int
    stream_beats: int
    parameter_words: int


@dataclass(frozen=True)
class StepPlan:
    """A step of the array or of the vector unit, and its passes.

    Parameters
    ----------
    step : Step
    cut : Cut
        Its groups, strips and `plane_lines` (lines of a phase plane in the banks, of all passes).
    passes : tuple of Pass
        In order.
    """

    step: Step
    cut: Cut
    passes: tuple[passes.Pass, ...]

    @property
    def tiles(self) -> tuple[StepTile, ...]:
        """All channel tiles."""
        return self.cut.tiles

    @property
    def plane_lines(self) -> int:
        """Lines of a phase plane, which feed words are made with (rule M3)."""
        return self.cut.plane_lines


@dataclass(frozen=True)
class Program:
    """Steps that the accelerator does without the host.

    Parameters
    ----------
    steps : tuple of StepPlan
    descriptor_offset : int
        Of the first descriptor.
    """

    steps: tuple[StepPlan, ...]
    descriptor_offset: int

    @property
    def passes(self) -> tuple[passes.Pass, ...]:
        """Passes of all steps in order."""
        return tuple(each for step in self.steps for each in step.passes)


@dataclass(frozen=True)
class NetworkPlan:
    """What runs where, and where everything lies in external memory.

    Parameters
    ----------
    lowered : Lowered
    hardware : Hardware
    parts : tuple of Program or Step
        In order; a step is the host's.
    offsets : dict of int to int
        First byte of every tensor that the accelerator reads or writes, reshaped ones included.
    layouts : dict of int to Layout
        Of the same tensors.
    memories : WeightMemories
    total_bytes : int
        Size of the memory that everything takes.
    """

    lowered: Lowered
    hardware: Hardware
    parts: tuple[Program | Step, ...]
    offsets: dict[int, int]
    layouts: dict[int, Layout]
    memories: WeightMemories
    total_bytes: int

    @property
    def programs(self) -> tuple[Program, ...]:
        """Programs in order."""
        return tuple(part for part in self.parts if isinstance(part, Program))

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps in order."""
        return self.lowered.steps


def plan_network(network: Network, hardware: Hardware) -> NetworkPlan:
    """Plan a network for the accelerator.

    Parameters
    ----------
    network : Network
        Of one inference (batch 1).
    hardware : Hardware

    Raises
    ------
    HardwareError
        Where a buffer cannot hold the smallest pass, the PE cannot take a weight, or everything
        together exceeds the 32 bits of offsets.
    """
    lowered = lower(network, hardware)
    return _plan(lowered, hardware)


def plan_step(step: Step, lowered: Lowered, hardware: Hardware) -> NetworkPlan:
    """Plan a single step that runs alone: one program of one layer.

    Parameters
    ----------
    step : Step
        Of the array or of the vector unit.
    lowered : Lowered
        What `step` is part of.
    hardware : Hardware
    """
    return _plan(replace(lowered, steps=(step,)), hardware)


def choose_cut(step: Step, hardware: Hardware) -> Cut:
    """Cut a step as rule T3 says: the fewest cycles of all cuts that move no more than the largest.

    Raises
    ------
    HardwareError
        Where a buffer cannot hold the smallest pass, or the passes are too many.
    """
    cutter = Cutter(step, hardware)
    most = pass_capacity(hardware)
    best = cutter.cut(most)
    if hardware.halves == 1:
        return best
    runs = Runs(best, hardware)
    fewest = cycles_alone(best, hardware, runs)
    limit_bytes = best.moved_bytes
    tried = {most}
    seen = {(best.groups, best.strips)}
    for weight_share, pixel_share in product(SHARES, SHARES):
        limit = most.share(cutter.whole, weight_share, pixel_share)
        if limit in tried:
            continue
        tried.add(limit)
        try:
            cut = cutter.cut(limit)
        except HardwareError:  # so small a part holds no pass at all
            continue
        if cut.moved_bytes > limit_bytes or (cut.groups, cut.strips) in seen:
            continue
        seen.add((cut.groups, cut.strips))
        cycles = cycles_alone(cut, hardware, runs)
        if cycles < fewest:
            best, fewest = cut, cycles
    return best


def cycles_alone(cut: Cut, hardware: Hardware, runs: Runs | None = None) -> int:
    """Cycles of a program of one step (rules T4 to T10)."""
    runs = Runs(cut, hardware) if runs is None else runs
    blocks = np.array([block.beats * hardware.beat_bytes for block in blocks_of(cut)])
    ends = np.cumsum(-(-blocks // ALIGNMENT_BYTES) * ALIGNMENT_BYTES).tolist()
    # Where tensors lie does not matter: they all begin at multiples of 4096.
    places = Places((0,) * cut.step.operands, 0, (0, *ends[:-1]))
    table = tabulate(cut, hardware, places)
    each = operations(table, cut, runs.cycles(table, cut), places, hardware)
    return schedule(each, bus_of(hardware)).cycles


def _plan(lowered: Lowered, hardware: Hardware) -> NetworkPlan:
    cuts = {
        index: choose_cut(step, hardware)
        for index, step in enumerate(lowered.steps)
        if step.unit != "host"
    }
    memory = _Memory()
    spans = _spans(lowered.steps)
    descriptors = [
        memory.take(sum(cuts[i].passes for i in range(*span)) * hardware.descriptor_bytes)
        for span in spans
    ]
    blocks = {
        index: tuple(memory.take(block.beats * hardware.beat_bytes) for block in blocks_of(cut))
        for index, cut in cuts.items()
    }
    offsets = _place_tensors(lowered, hardware, memory)
    if memory.size_bytes > 1 << 32:
        raise HardwareError(
            f"network {lowered.network.name!r} takes {memory.size_bytes} bytes of external memory,"
            f" but offsets have 32 bits; use a smaller network, or larger buffers for fewer passes"
        )
    memories = _weight_memories(cuts.values(), hardware)
    programs = []
    for span, offset in zip(spans, descriptors, strict=True):
        builder = _PassBuilder(hardware, memories)
        steps = []
        for i in range(*span):
            step = lowered.steps[i]
            places = Places(
                tuple(offsets[tensor] for tensor in step.inputs), offsets[step.output], blocks[i]
            )
            ends = i + 1 == span[1] or lowered.steps[i + 1].layer_index != step.layer_index
            steps.append(StepPlan(step, cuts[i], builder.build(cuts[i], places, ends)))
        programs.append(Program(tuple(steps), offset))
    return NetworkPlan(
        lowered=lowered,
        hardware=hardware,
        parts=_parts(lowered.steps, spans, programs),
        offsets=offsets,
        layouts={i: layout(lowered.network.tensors[i].shape) for i in offsets},
        memories=memories,
        total_bytes=memory.size_bytes,
    )


def _spans(steps: tuple[Step, ...]) -> list[Range]:
    """List the runs of steps between those of the host."""
    hosts = [-1, *(i for i, step in enumerate(steps) if step.unit == "host"), len(steps)]
    return [(a + 1, b) for a, b in pairwise(hosts) if b > a + 1]


def _parts(
    steps: tuple[Step, ...], spans: list[Range], programs: list[Program]
) -> tuple[Program | Step, ...]:
    first = {span[0]: program for span, program in zip(spans, programs, strict=True)}
    return tuple(
        first.get(i, step) for i, step in enumerate(steps) if i in first or step.unit == "host"
    )


class _Memory:
    """Takes aligned stretches of external memory one after the other."""

    def __init__(self) -> None:
        self.size_bytes = 0

    def take(self, size_bytes: int) -> int:
        offset = self.size_bytes
        self.size_bytes += -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        return offset


def _place_tensors(lowered: Lowered, hardware: Hardware, memory: _Memory) -> dict[int, int]:
    """Place inputs, constants, intermediates and outputs: those that the units touch."""
    network, storage = lowered.network, lowered.storage
    steps = [step for step in lowered.steps if step.unit != "host"]
    touched = {storage[i] for step in steps for i in (*step.inputs, step.output)}
    first = [*network.inputs, *(constant.tensor for constant in network.constants)]
    last = {storage[i] for i in network.outputs if i in storage} - set(first)
    middle = sorted(touched - set(first) - last)
    offsets = {}
    for i in (*first, *middle, *sorted(last)):
        if i in touched:
            words = layout(network.tensors[i].shape).words(hardware.array.feed)
            offsets[i] = memory.take(words * hardware.word_bytes)
    return {i: offsets[root] for i, root in sorted(storage.items()) if root in offsets}


def _weight_memories(cuts: Iterable[Cut], hardware: Hardware) -> WeightMemories:
    """Depths that hold the largest block, twice where the halves alternate."""
    blocks = [block for cut in cuts for block in blocks_of(cut)]
    parameter_beats = max((block.parameter_beats for block in blocks), default=0)
    stream_beats = (beats for block in blocks for beats in block.stream_beats)
    return WeightMemories(
        feed_beats=hardware.halves * max((block.feed_beats for block in blocks), default=0),
        stream_beats=hardware.halves * max(stream_beats, default=0),
        parameter_words=hardware.halves * parameter_beats // hardware.parameter_beats,
    )


class _PassBuilder:
    """Makes the passes of a program's steps; halves alternate at every load and store (rule T1)."""

    def __init__(self, hardware: Hardware, memories: WeightMemories) -> None:
        self.hardware = hardware
        halves = hardware.halves
        self.feed_half = memories.feed_beats // halves
        self.stream_half = memories.stream_beats // halves
        self.parameter_half = memories.parameter_words // halves
        self.activation_half = hardware.bank_words // halves
        self.output_half = hardware.output_bank_words // halves
        self.loaded = {"weights": 0, "activations": 0, "outputs": 0}  # halves filled so far

    def build(self, cut: Cut, places: Places, layer_end: bool) -> tuple[passes.Pass, ...]:
        """Make the passes of the next step; `layer_end` tells whether its layer ends with it."""
        table = tabulate(cut, self.hardware, places)
        blocks = blocks_of(cut)
        weights = self._halves("weights", table.load_weights)
        activations = self._halves("activations", table.load_activations)
        outputs = self._halves("outputs", table.drain, ahead=True)
        count = table.strip.size
        found = []
        columns = zip(*(column.tolist() for column in table), strict=True)
        rows: Iterator[Any] = map(PassTable._make, columns)  # of integers now
        for j, row in enumerate(rows):
            block, group, strip = blocks[row.block], cut.groups[row.group], cut.strips[row.strip]
            load = self._load(cut, row, activations[j], places)
            output_base = outputs[j] * self.output_half
            found.append(
                passes.Pass(
                    pixel_tiles=(row.first_tile, row.last_tile),
                    channel_tiles=group.tiles,
                    words=group.chunks[row.chunk] if group.chunks else None,
                    planes=group.planes,
                    drain=row.drain,
                    order=(2 if self.hardware.halves == 1 else int(j == 0)),
                    layer_end=layer_end and j == count - 1,
                    activation_base=load.base
                    + (row.first_tile - strip.first_line) * group.in_words,
                    output_base=output_base,
                    weights=passes.WeightBlock(
                        offset=row.block_offset,
                        feed_beats=block.feed_beats,
                        parameter_beats=block.parameter_beats,
                        stream_beats=block.stream_beats,
                        load_feed=weights[j] * self.feed_half,
                        load_parameters=weights[j] * self.parameter_half,
                        load_streams=weights[j] * self.stream_half,
                    ),
                    load_weights=row.load_weights,
                    load=load,
                    load_activations=row.load_activations,
                    store=self._store(cut, row, output_base),
                )
            )
        return tuple(found)

    def _halves(self, buffer: str, filled: NDArray[np.bool_], ahead: bool = False) -> list[int]:
        """Half that each pass uses; the next one where `filled`, or, `ahead`, after it."""
        number = self.loaded[buffer] + np.cumsum(filled)
        self.loaded[buffer] = int(number[-1])
        if ahead:
            number = number - filled + 1
        halves: list[int] = ((number - 1) % self.hardware.halves).tolist()
        return halves

    def _load(self, cut: Cut, row: Any, half: int, places: Places) -> passes.Load:
        step, geometry = cut.step, step_geometry(cut.step)
        strip, in_words = cut.strips[row.strip], cut.groups[row.group].in_words
        base, phase_words = half * self.activation_half, cut.plane_lines * in_words
        pair = step.operands == 2
        return passes.Load(
            offset=row.load_offset,
            segments=row.load_segments,
            words=row.load_words,
            stride_bytes=geometry.height * geometry.width * self.hardware.word_bytes,
            base=base,
            row_words=geometry.width,
            rows=strip.rows,
            bank=strip.bank,
            phase_y=strip.phase_y,
            phase_words=phase_words,
            second_offset=row.load_offset + places.inputs[1] - places.inputs[0] if pair else None,
            second_base=base + phase_words if pair else None,
        )

    def _store(self, cut: Cut, row: Any, output_base: int) -> passes.Store | None:
        if not row.store_segments:
            return None
        step, geometry = cut.step, step_geometry(cut.step)
        first, last = (step.first_channel + each for each in cut.groups[row.group].channels)
        return passes.Store(
            offset=row.store_offset,
            segments=row.store_segments,
            words=row.store_words,
            stride_bytes=geometry.out_height * geometry.out_width * self.hardware.word_bytes,
            base=output_base + row.store_line * row.store_segments,
            bank=row.store_bank,
            first_row_words=row.store_first_row_words,
            row_words=geometry.out_width,
            first_lane=first % geometry.feed,
            last_lane=(last - 1) % geometry.feed,
        )
