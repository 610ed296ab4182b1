"""How a step is cut into passes that fit the buffers (rules T1 to T3), and what passes move.

A *cut* is channel groups times pixel strips. Sizes and moved bytes come from the cut alone, so that
a cut of millions of passes costs no more than one of few.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.errors import HardwareError
from simulator import kernels
from simulator.hardware import Hardware
from simulator.lowering import Step
from simulator.passes import Range
from simulator.program import Geometry, entry_rule, patch_order, word_order

MAX_PASSES = 1 << 17
"""Passes that a step may have."""

MAX_TILES = (1 << 16) - 1
"""Pixel tiles that a descriptor can express."""


@dataclass(frozen=True)
class ChannelTile:
    """One channel tile: its words and the entries its weights make.

    Parameters
    ----------
    first_channel, channels : int
        Output channels; `channels` columns (lanes of a vector step) are used.
    words : (n,) int64 array
        Listed window words (rule M3), as (ky * kernel_width + kx) * in_words + cw, `in_words` being
        that of the whole input. The two words of add and mul are 0 and 1, the operands.
    counts : (C, n) int32 array
        Entries of each column at each word, fillers not included; (1, n) ones for vector steps.
        With a Winograd form the words of `words` are those of the patches (rule W1), and those of
        `counts` the transformed ones in the order of rule W3.
    ends : (parts,) int64 array
        One past the last word of each part (rule W4); n alone for a direct convolution.
    """

    first_channel: int
    channels: int
    words: NDArray[np.int64]
    counts: NDArray[np.int32]
    ends: NDArray[np.int64]

    def cut(self, words: Range | None) -> ChannelTile:
        """Keep a range of the words of a tile of one part (rule E4); None keeps all."""
        if words is None:
            return self
        counts = np.ascontiguousarray(self.counts[:, slice(*words)])
        kept = self.words[slice(*words)]
        return replace(self, words=kept, counts=counts, ends=np.array([kept.size]))


@dataclass(frozen=True)
class Block:
    """Beats of the sections of a weight block."""

    feed_beats: int
    parameter_beats: int
    stream_beats: tuple[int, ...]

    @property
    def beats(self) -> int:
        """Beats that are moved."""
        return self.feed_beats + self.parameter_beats + sum(self.stream_beats)

    @property
    def held_beats(self) -> int:
        """Beats that memories take, all streams being as deep as the longest (rule T1)."""
        streams = len(self.stream_beats) * max(self.stream_beats, default=0)
        return self.feed_beats + self.parameter_beats + streams


@dataclass(frozen=True)
class Group:
    """Channel tiles held together in the weight memories, or the chunks of one that does not fit.

    Parameters
    ----------
    tiles : Range
    chunks : tuple of Range
        Positions in the words of the only tile; empty for whole tiles.
    blocks : tuple of Block
        One for each chunk, or one.
    channels : Range
        Output channels of the step.
    planes : Range
        Planes of the input that they read.
    """

    tiles: Range
    chunks: tuple[Range, ...]
    blocks: tuple[Block, ...]
    channels: Range
    planes: Range

    @property
    def in_words(self) -> int:
        """Words of a pixel that passes of the group load."""
        return self.planes[1] - self.planes[0]


@dataclass(frozen=True)
class Strip:
    """Consecutive pixel tiles, and what of the input they need.

    Parameters
    ----------
    tiles : Range
    first_row, rows : int
        Input rows, first to last, that any tap touches; 0 rows where all taps lie in the padding.
    first_line : int
        Line of a phase plane (rule M2) that becomes line 0 in the banks.
    bank, phase_y : int
        Bank of the first word and vertical phase of the first row.
    lines : int
        Lines from `first_line` to the last that the rows reach.
    """

    tiles: Range
    first_row: int
    rows: int
    first_line: int
    bank: int
    phase_y: int
    lines: int


@dataclass(frozen=True)
class Capacity:
    """What one pass may fill (rule T1): words of a bank, and beats."""

    activation_words: int
    weight_beats: int
    output_words: int


@dataclass(frozen=True)
class Cut:
    """A step cut into groups and strips.

    Parameters
    ----------
    step : Step
    tiles : tuple of ChannelTile
    groups : tuple of Group
    strips : tuple of Strip
    strips_outer : bool
        The loop order of rule T3.
    moved_bytes : int
        What the bus moves: weights, activations, outputs.
    """

    step: Step
    tiles: tuple[ChannelTile, ...]
    groups: tuple[Group, ...]
    strips: tuple[Strip, ...]
    strips_outer: bool
    moved_bytes: int

    @cached_property
    def plane_lines(self) -> int:
        """Lines of a phase plane in the banks, for all passes of the step."""
        return max(strip.lines for strip in self.strips)

    @property
    def passes(self) -> int:
        """Passes that the cut has."""
        tiles = sum(strip.tiles[1] - strip.tiles[0] for strip in self.strips)
        chunks = [len(group.chunks) for group in self.groups]
        return sum(tiles * chunk if chunk else len(self.strips) for chunk in chunks)


def step_geometry(step: Step) -> Geometry:
    """Return the geometry of a step of the array or of the vector unit."""
    if step.geometry is None:
        raise ValueError(f"step {step.name!r} runs on the host and has no geometry")
    return step.geometry


def channel_tiles(step: Step, hardware: Hardware) -> tuple[ChannelTile, ...]:
    """List the words of every channel tile and count their entries (rules M3, S3, V1)."""
    geometry = step_geometry(step)
    if step.layer is None:
        return _vector_tiles(step, geometry)
    cols, taps = geometry.cols, geometry.kernel[0] * geometry.kernel[1]
    weights: NDArray[Any] = np.ascontiguousarray(step.layer.weights)
    counts = kernels.count_entries(
        weights.reshape(geometry.out_channels, taps, -1),
        step.layer.weight_zero_point,
        geometry.groups,
        geometry.in_words,
        geometry.feed,
        *entry_rule(hardware),
    )
    if geometry.form:
        return _winograd_tiles(geometry, counts)
    tiles = []
    for first in range(0, geometry.out_channels, cols):
        block = counts[first : first + cols]
        words = np.flatnonzero(block.any(axis=0))
        if words.size == 0:
            words = np.array([_input_channels(geometry, (first, first + 1))[0] // geometry.feed])
        padded = np.zeros((cols, words.size), dtype=np.int32)
        padded[: len(block)] = block[:, words]
        tiles.append(ChannelTile(first, len(block), words, padded, np.array([words.size])))
    return tuple(tiles)


def _winograd_tiles(geometry: Geometry, counts: NDArray[np.int32]) -> tuple[ChannelTile, ...]:
    """List all words of patches, and count the entries of the parts (rules W1, W3, W4)."""
    ends, patches = np.cumsum(geometry.part_words), patch_order(geometry)
    ordered = counts[:, word_order(geometry)]
    tiles = []
    for first in range(0, geometry.out_channels, geometry.cols):
        block = ordered[first : first + geometry.cols]
        padded = np.zeros((geometry.cols, ordered.shape[1]), dtype=np.int32)
        padded[: len(block)] = block
        tiles.append(ChannelTile(first, len(block), patches, padded, ends))
    return tuple(tiles)


def _vector_tiles(step: Step, geometry: Geometry) -> tuple[ChannelTile, ...]:
    taps = np.arange(step.operands * geometry.kernel[0] * geometry.kernel[1])
    ones = np.ones((1, taps.size), dtype=np.int32)
    ends = np.array([taps.size])
    return tuple(
        ChannelTile(
            tile * geometry.feed,
            geometry.columns_used(tile),
            taps * geometry.in_words + tile,
            ones,
            ends,
        )
        for tile in range(geometry.channel_tiles)
    )


def _input_channels(geometry: Geometry, channels: Range) -> Range:
    """Input channels that a range of output channels of a grouped layer reads."""
    group_outputs = geometry.out_channels // geometry.groups
    group_inputs = geometry.in_channels // geometry.groups
    first, last = channels[0] // group_outputs, (channels[1] - 1) // group_outputs
    return first * group_inputs, (last + 1) * group_inputs


# -- sizes (T1) -----------------------------------------------------------------------------------


def capacity(hardware: Hardware) -> Capacity:
    """Bound a pass by the hardware: all of each buffer, or half where it is doubled."""
    halves = hardware.halves
    return Capacity(
        activation_words=hardware.bank_words // halves,
        weight_beats=hardware.buffers.weight_bytes // halves // hardware.beat_bytes,
        output_words=hardware.output_bank_words // halves,
    )


def output_planes(step: Step, channels: Range) -> Range:
    """Planes of the output tensor that a range of the step's channels lies in."""
    feed, first = step_geometry(step).feed, step.first_channel
    return (first + channels[0]) // feed, -(-(first + channels[1]) // feed)


def strip_of(geometry: Geometry, tiles: Range) -> Strip:
    """Find the input rows that pixel tiles touch, and where the banks have them (rules M1, M2)."""
    sy, sx = geometry.stride
    pitch, rows = geometry.pitch, geometry.rows
    first, last = tiles[0] * rows, tiles[1] * rows - 1
    top = first // pitch + (first % pitch >= geometry.out_width)
    bottom = min(last // pitch, geometry.out_height - 1)
    low = max(top * sy - geometry.pad_top, 0)
    reach = (geometry.kernel[0] - 1) * geometry.dilation[0]
    high = min(bottom * sy - geometry.pad_top + reach, geometry.height - 1)
    if top > bottom or low > high:
        return Strip(tiles, 0, 0, 0, 0, 0, 1)
    first_line, bank = divmod(low // sy * pitch, rows)
    phase_y = low % sy
    last_index = bank + (high - low + phase_y) // sy * pitch + (geometry.width - 1) // sx
    return Strip(tiles, low, high - low + 1, first_line, bank, phase_y, last_index // rows + 1)


def tile_lines(geometry: Geometry, tiles: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find `Strip.lines` of single pixel tiles, all at once."""
    (sy, sx), pitch = geometry.stride, geometry.pitch
    first = tiles * geometry.rows
    top = first // pitch + (first % pitch >= geometry.out_width)
    bottom = np.minimum((first + geometry.rows - 1) // pitch, geometry.out_height - 1)
    low = np.maximum(top * sy - geometry.pad_top, 0)
    reach = (geometry.kernel[0] - 1) * geometry.dilation[0]
    high = np.minimum(bottom * sy - geometry.pad_top + reach, geometry.height - 1)
    bank = low // sy * pitch % geometry.rows
    index = bank + (high - low + low % sy) // sy * pitch + (geometry.width - 1) // sx
    lines: NDArray[np.int64] = np.where(
        (top > bottom) | (low > high), 1, index // geometry.rows + 1
    )
    return lines


def _last_fitting(first: int, end: int, fits: Callable[[int], bool]) -> int:
    """Find the largest stop up to `end` that fits; all smaller ones do. `first` if none does.

    Steps are doubled while they fit, so that nothing much longer than the answer is looked at.
    """
    low, high = first, first + 1
    while high < end and fits(high):
        low, high = high, min(2 * high - first, end)
    return low + bisect_left(range(low + 1, high + 1), True, key=lambda stop: not fits(stop))


class Cutter:
    """Cuts one step; what all its cuts share is computed once.

    Parameters
    ----------
    step : Step
        Of the array or of the vector unit.
    hardware : Hardware
    """

    def __init__(self, step: Step, hardware: Hardware) -> None:
        self.step = step
        self.hardware = hardware
        self.geometry = step_geometry(step)
        self.tiles = channel_tiles(step, hardware)
        self._feed_places, self._stream_places = hardware.feed_places, hardware.stream_places
        self._parameter_beats = hardware.parameter_beats
        cols = self.geometry.cols if step.unit == "array" else 0
        entries = np.zeros((len(self.tiles) + 1, cols), dtype=np.int64)
        if cols:
            entries[1:] = [kernels.column_entries(tile.counts, tile.ends) for tile in self.tiles]
        self._entries = np.cumsum(entries, axis=0)
        self._words = np.cumsum([0, *(tile.words.size for tile in self.tiles)]).tolist()
        # The cuts of a step have much in common.
        self._group = cache(self._group_of)
        self._needs = cache(self._needs_of)
        self._chunked = cache(self._cut_tile)
        self._strip = cache(partial(strip_of, self.geometry))

    @cached_property
    def whole(self) -> Capacity:
        """What a single pass of the whole step would take."""
        group = self._group((0, len(self.tiles)))
        pixel_tiles = self.geometry.pixel_tiles
        lines = self._strip((0, pixel_tiles)).lines
        return Capacity(
            activation_words=self._activation_words(lines, group.in_words),
            weight_beats=group.blocks[0].held_beats,
            output_words=pixel_tiles * self._bank_words(group.channels),
        )

    @cached_property
    def _largest_tile_beats(self) -> int:
        """Beats that the weight memories need so that no channel tile is cut."""
        return max(self._group((i, i + 1)).blocks[0].held_beats for i in range(len(self.tiles)))

    def share(self, most: Capacity, weight_share: int, pixel_share: int) -> Capacity:
        """Bound passes by `most` and by one part in so many of the whole step.

        Weights are bounded to no less than a channel tile: more chunks would only move more bytes.
        """
        whole = self.whole
        weight_beats = max(-(-whole.weight_beats // weight_share), self._largest_tile_beats)
        return Capacity(
            activation_words=min(most.activation_words, -(-whole.activation_words // pixel_share)),
            weight_beats=min(most.weight_beats, weight_beats),
            output_words=min(most.output_words, -(-whole.output_words // pixel_share)),
        )

    def cut(self, limit: Capacity) -> Cut:
        """Cut the step into the largest passes that `limit` allows, in the cheaper order.

        Raises
        ------
        HardwareError
            Where a buffer cannot hold the smallest pass, or the passes are too many.
        """
        groups = self._groups(limit)
        strips = self._strips(groups, limit)
        strips_outer, moved_bytes = self._order(groups, strips)
        cut = Cut(self.step, self.tiles, groups, strips, strips_outer, moved_bytes)
        if cut.passes > MAX_PASSES:
            raise HardwareError(
                f"layer {self.step.name!r} takes {cut.passes} passes, but a layer may take"
                f" {MAX_PASSES}; enlarge the buffers, first buffers.weight_bytes="
                f"{self.hardware.buffers.weight_bytes}"
            )
        return cut

    # -- groups (T2) ------------------------------------------------------------------------------

    def _groups(self, limit: Capacity) -> tuple[Group, ...]:
        """Consecutive channel tiles as long as they fit, or one tile cut into chunks."""
        groups = []
        first = 0
        while first < len(self.tiles):
            stop = _last_fitting(first, len(self.tiles), partial(self._fits, limit, first))
            fitting = stop > first
            weight_beats = limit.weight_beats
            groups.append(
                self._group((first, stop)) if fitting else self._chunked(first, weight_beats)
            )
            first = stop if fitting else first + 1
        return tuple(groups)

    def _fits(self, limit: Capacity, first: int, stop: int) -> bool:
        """Whether channel tiles fit with one pixel tile; `_strips` answers for a single one."""
        needs = self._needs((first, stop))
        if needs.weight_beats > limit.weight_beats or stop - first == 1:
            return needs.weight_beats <= limit.weight_beats
        inputs, outputs = needs.activation_words, needs.output_words
        return inputs <= limit.activation_words and outputs <= limit.output_words

    def _needs_of(self, span: Range) -> Capacity:
        """Find what a pass of channel tiles takes with the smallest strip."""
        channels, (first, stop) = self._channels(span), span
        planes = self._planes(span, channels)
        return Capacity(
            activation_words=self._activation_words(self._most_lines, planes[1] - planes[0]),
            weight_beats=self._held_beats(
                self._words[stop] - self._words[first],
                self._entries[stop] - self._entries[first],
                channels,
            ),
            output_words=self.geometry.strip_tiles * self._bank_words(channels),
        )

    def _channels(self, span: Range) -> Range:
        first, last = self.tiles[span[0]], self.tiles[span[1] - 1]
        return first.first_channel, last.first_channel + last.channels

    def _group_of(self, span: Range) -> Group:
        channels = self._channels(span)
        words = self._words[span[1]] - self._words[span[0]]
        block = self._block(words, self._entries[span[1]] - self._entries[span[0]], channels)
        return Group(span, (), (block,), channels, self._planes(span, channels))

    def _block(self, words: int, entries: NDArray[np.int64], channels: Range) -> Block:
        """Weight block of so many feed words and entries of each column, fillers included."""
        return Block(
            feed_beats=-(-words // self._feed_places),
            parameter_beats=self._parameters(channels) * self._parameter_beats,
            stream_beats=tuple((-(-entries // self._stream_places)).tolist()),
        )

    def _held_beats(self, words: int, entries: NDArray[np.int64], channels: Range) -> int:
        """Beats that memories take for the block of `_block`."""
        longest = -(-int(entries.max(initial=0)) // self._stream_places)
        parameter_beats = self._parameters(channels) * self._parameter_beats
        return -(-words // self._feed_places) + parameter_beats + entries.size * longest

    def _parameters(self, channels: Range) -> int:
        return 1 if self.step.unit == "vector" else channels[1] - channels[0]

    def _planes(self, span: Range, channels: Range) -> Range:
        if self.step.unit == "vector":
            return span
        first, last = _input_channels(self.geometry, channels)
        return first // self.geometry.feed, -(-last // self.geometry.feed)

    def _cut_tile(self, index: int, weight_beats: int) -> Group:
        """Cut one channel tile along its words into the fewest chunks that fit, longest first."""
        group = self._group((index, index + 1))
        tile = self.tiles[index]
        if self.step.unit == "vector" or self.geometry.form:  # sums of a cut tile would be lost
            raise self._too_small(
                "the feed words of one window",
                "weight_bytes",
                self._largest_tile_beats * self.hardware.beat_bytes,
                (),
                " or use a smaller window",
            )
        words = tile.words.size
        chunks: list[Range] = []
        blocks: list[Block] = []
        start = 0
        while start < words:
            stop, block = self._chunk(tile, start, group.channels, weight_beats)
            if stop == start:
                raise self._too_small(
                    "one window word of one channel tile's weight block",
                    "weight_bytes",
                    self._least_weight_beats() * self.hardware.beat_bytes,
                    ("cols", "feed"),
                )
            chunks.append((start, stop))
            blocks.append(block)
            start = stop
        return Group(group.tiles, tuple(chunks), tuple(blocks), group.channels, group.planes)

    def _chunk(
        self, tile: ChannelTile, start: int, channels: Range, weight_beats: int
    ) -> tuple[int, Block]:
        """Find the longest chunk from `start` that fits: one past its last word, and its block."""

        def entries(stop: int) -> NDArray[np.int64]:
            part = tile.cut((start, stop))
            return kernels.column_entries(part.counts, part.ends)

        def fits(stop: int) -> bool:
            held_beats = self._held_beats(stop - start, entries(stop), channels)
            return held_beats <= weight_beats

        stop = _last_fitting(start, tile.words.size, fits)
        return stop, self._block(stop - start, entries(max(stop, start + 1)), channels)

    def _least_weight_beats(self) -> int:
        """Weight memory that is enough where every word is a chunk of its own."""
        return max(
            self._held_beats(
                1, np.maximum(tile.counts.max(axis=1), 1).astype(np.int64), (0, tile.channels)
            )
            for tile in self.tiles
        )

    # -- strips (T2) ------------------------------------------------------------------------------

    def _strips(self, groups: tuple[Group, ...], limit: Capacity) -> tuple[Strip, ...]:
        """Consecutive pixel tiles whose input rows and outputs fit."""
        geometry = self.geometry
        in_words = max(group.in_words for group in groups)
        out_words = max(self._bank_words(group.channels) for group in groups)
        word_bytes = geometry.rows * self.hardware.word_bytes
        least = geometry.strip_tiles
        if least * out_words > limit.output_words:
            raise self._too_small(
                "the outputs of one pixel tile and one channel tile",
                "output_bytes",
                least * out_words * word_bytes,
                ("rows", "cols"),
            )
        needed = self._activation_words(self._most_lines, in_words)
        if needed > limit.activation_words:
            raise self._too_small(
                "the input rows of one pixel tile",
                "activation_bytes",
                needed * word_bytes,
                ("rows",),
            )

        def fits(first: int, stop: int) -> bool:
            words = self._activation_words(self._strip((first, stop)).lines, in_words)
            outputs = (stop - first) * out_words
            return words <= limit.activation_words and outputs <= limit.output_words

        strips: list[Strip] = []
        first = 0
        while first < geometry.pixel_tiles:
            end = min(geometry.pixel_tiles, first + MAX_TILES)
            stop = _last_fitting(first, end, partial(fits, first))
            if stop < geometry.pixel_tiles:
                stop = max(first + 1, stop - (stop - first) % least)
            strips.append(self._strip((first, stop)))
            first = stop
        return tuple(strips)

    def _activation_words(self, lines: int, in_words: int) -> int:
        """Words of a bank that strips of so many lines take."""
        phases = self.geometry.stride[0] * self.geometry.stride[1]
        return self.step.operands * phases * lines * in_words

    def _out_words(self, channels: Range) -> int:
        """Words of an output."""
        first, last = output_planes(self.step, channels)
        return last - first

    def _bank_words(self, channels: Range) -> int:
        """Words of a bank that the outputs of one pixel tile take."""
        return self.geometry.tile_outputs * self._out_words(channels)

    @cached_property
    def _most_lines(self) -> int:
        """Lines that the smallest strip with the most takes."""
        geometry, least = self.geometry, self.geometry.strip_tiles
        if least == 1:
            return int(tile_lines(geometry, np.arange(geometry.pixel_tiles)).max())
        spans = [
            (first, min(first + least, geometry.pixel_tiles))
            for first in range(0, geometry.pixel_tiles, least)
        ]
        return max(self._strip(span).lines for span in spans)

    def _too_small(
        self, what: str, key: str, need_bytes: int, lower: tuple[str, ...], way: str = ""
    ) -> HardwareError:
        """Say what a buffer must hold; `lower` are sizes of the array that make it less."""
        array = self.hardware.array
        smaller = [f"array.{name}" for name in lower if getattr(array, name) > 1]
        if smaller:
            way = f" or lower {' or '.join(smaller)}"
        halves = self.hardware.halves
        half = ", half of it for each pass," if halves == 2 else ""
        return HardwareError(
            f"layer {self.step.name!r} needs {need_bytes} bytes for {what}, but"
            f" buffers.{key}={getattr(self.hardware.buffers, key)}{half} is too small; raise it to"
            f" at least {need_bytes * halves}{way}"
        )

    # -- order (T3) -------------------------------------------------------------------------------

    def _order(self, groups: tuple[Group, ...], strips: tuple[Strip, ...]) -> tuple[bool, int]:
        """Whether strips are the outer loop, and the bytes that the passes move."""
        pixel_tiles = self.geometry.pixel_tiles
        beats = [sum(block.beats for block in group.blocks) for group in groups]
        # A tile cut into chunks loads each anew for every pixel tile, in either order.
        again = [len(group.chunks) > 1 for group in groups]
        rows = sum(strip.rows for strip in strips)
        in_words = [group.in_words for group in groups]
        # The strip is kept from one group to the next where they read the same planes.
        fresh = [i == 0 or groups[i].planes != groups[i - 1].planes for i in range(len(groups))]
        kept_words = sum(n for n, new in zip(in_words, fresh, strict=True) if new)

        def weight_beats(loads: int) -> int:
            return sum(
                n * (pixel_tiles if chunks else loads)
                for n, chunks in zip(beats, again, strict=True)
            )

        row_bytes = self.step.operands * self.geometry.width * self.hardware.word_bytes
        beat_bytes = self.hardware.beat_bytes
        outer_loads = len(strips) if len(groups) > 1 else 1
        strips_outer = weight_beats(outer_loads) * beat_bytes + rows * kept_words * row_bytes
        words = sum(in_words) if len(strips) > 1 else kept_words
        groups_outer = weight_beats(1) * beat_bytes + rows * words * row_bytes
        pixels = self.geometry.stored[0] * self.geometry.stored[1]
        stored = (
            sum(self._out_words(group.channels) for group in groups)
            * pixels
            * self.hardware.word_bytes
        )
        return strips_outer <= groups_outer, min(strips_outer, groups_outer) + stored
