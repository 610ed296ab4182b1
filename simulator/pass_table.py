"""All passes of a cut as arrays, one element a pass: rule T3 times them, plans are made of them."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator import kernels
from simulator.cuts import Block, Cut, output_planes, step_geometry
from simulator.hardware import Hardware
from simulator.passes import Range
from simulator.program import Geometry
from simulator.transfers import Operations

IntArray = NDArray[np.int64]

RESCALING_CYCLES = 4
"""K of rule V3: what the rescalers of an addition take."""


class Places(NamedTuple):
    """Where a step's tensors and weight blocks lie: bytes from the base."""

    inputs: tuple[int, ...]
    output: int
    blocks: tuple[int, ...]  # group by group, chunk by chunk


class PassTable(NamedTuple):
    """The passes of a step in order; bank addresses and halves are not part of it.

    Boolean columns are arrays of bool, the others of int64. `store_words` is 0 where a pass stores
    nothing, because it is not drained or has no pixel.
    """

    strip: IntArray  # index into Cut.strips
    group: IntArray  # index into Cut.groups
    chunk: IntArray  # index into Group.chunks, 0 for whole tiles
    block: IntArray  # index into the step's blocks
    first_tile: IntArray  # pixel tiles
    last_tile: IntArray  # one past
    drain: NDArray[np.bool_]
    load_weights: NDArray[np.bool_]
    load_activations: NDArray[np.bool_]
    block_offset: IntArray
    load_offset: IntArray
    load_segments: IntArray  # 0 where the strip needs no input
    load_words: IntArray
    store_offset: IntArray
    store_segments: IntArray
    store_words: IntArray
    store_first_row_words: IntArray
    store_bank: IntArray
    store_line: IntArray  # pixel tile of the first pixel, counted from the pass's first


def blocks_of(cut: Cut) -> list[Block]:
    """Weight blocks of a step: group by group, chunk by chunk."""
    return [block for group in cut.groups for block in group.blocks]


def tabulate(cut: Cut, hardware: Hardware, places: Places) -> PassTable:
    """List the passes of a cut."""
    geometry = step_geometry(cut.step)
    word_bytes = hardware.word_bytes
    strip, group, chunk, first_tile, last_tile = _loops(cut)
    chunks = np.array([len(each.blocks) for each in cut.groups])
    block = (np.cumsum(chunks) - chunks)[group] + chunk

    planes = np.array([each.planes for each in cut.groups])[group]
    in_words = planes[:, 1] - planes[:, 0]
    first_row = np.array([each.first_row for each in cut.strips])[strip]
    rows = np.array([each.rows for each in cut.strips])[strip]
    whole = rows == geometry.height  # its planes follow each other without a gap
    row_words = geometry.width

    out = np.array([output_planes(cut.step, each.channels) for each in cut.groups])[group]
    drain = chunk == chunks[group] - 1
    height, width = geometry.stored
    first_pixel = _first_output(geometry, first_tile)
    end = np.minimum(_first_output(geometry, last_tile), height * width)
    words = np.where(drain, np.maximum(end - first_pixel, 0), 0)
    oy, ox = np.divmod(first_pixel, width)
    # With a form a strip begins with a row of tiles (rule W7).
    index = first_tile * geometry.rows if geometry.form else oy * geometry.pitch + ox
    line, bank = np.divmod(index, geometry.rows)
    plane_words = height * width
    return PassTable(
        strip=strip,
        group=group,
        chunk=chunk,
        block=block,
        first_tile=first_tile,
        last_tile=last_tile,
        drain=drain,
        load_weights=_changes(block),
        load_activations=_changes(strip) | _changes(planes[:, 0]) | _changes(planes[:, 1]),
        block_offset=np.array(places.blocks, dtype=np.int64)[block],
        load_offset=places.inputs[0]
        + (planes[:, 0] * geometry.height + first_row) * row_words * word_bytes,
        load_segments=np.where(rows == 0, 0, np.where(whole, 1, in_words)),
        load_words=rows * row_words * np.where(whole, in_words, 1),
        store_offset=places.output + (out[:, 0] * plane_words + first_pixel) * word_bytes,
        store_segments=np.where(words > 0, out[:, 1] - out[:, 0], 0),
        store_words=words,
        store_first_row_words=width - ox,
        store_bank=bank,
        store_line=line - first_tile,
    )


def operations(
    table: PassTable, cut: Cut, run_cycles: IntArray, places: Places, hardware: Hardware
) -> Operations:
    """Write the passes of a step that runs alone as the scheduler takes them."""
    geometry, step = step_geometry(cut.step), cut.step
    count = table.strip.size
    beats = np.array([block.beats for block in blocks_of(cut)], dtype=np.int64)
    first = np.arange(count) == 0
    second = places.inputs[1] - places.inputs[0] if step.operands == 2 else None

    def all_passes(value: int) -> IntArray:
        return np.full(count, value, dtype=np.int64)

    return Operations(
        layer=all_passes(0),
        order=first.astype(np.int64) if hardware.halves == 2 else all_passes(2),
        run_cycles=run_cycles,
        descriptor_offset=np.arange(count, dtype=np.int64) * hardware.descriptor_bytes,
        weight_offset=table.block_offset,
        weight_beats=np.where(table.load_weights, beats[table.block], 0),
        load_offset=table.load_offset,
        load_segments=np.where(table.load_activations, table.load_segments, 0),
        load_words=table.load_words,
        load_stride_bytes=all_passes(geometry.height * geometry.width * hardware.word_bytes),
        load_row_words=all_passes(geometry.width),
        load_single=all_passes(int(geometry.stride[1] > 1)),
        second_offset=all_passes(-1) if second is None else table.load_offset + second,
        store_offset=table.store_offset,
        store_segments=table.store_segments,
        store_words=table.store_words,
        store_stride_bytes=all_passes(prod(geometry.stored) * hardware.word_bytes),
        store_first_row_words=table.store_first_row_words,
        store_row_words=all_passes(geometry.stored[1]),
        store_single=all_passes(int(geometry.form > 0)),
    )


class Run(NamedTuple):
    """Cycles of one run of the engine, by cause but for the three of `fill`."""

    compute: int
    stall_feed: int
    drain: int
    total: int  # `fill` included


class Runs:
    """Cycles of the engine runs of one step; runs that its cuts have in common are timed once."""

    def __init__(self, cut: Cut, hardware: Hardware) -> None:
        self.step, self.tiles, self.hardware = cut.step, cut.tiles, hardware
        self.known: dict[tuple[Range, Range | None, int], Run] = {}

    def run(self, tiles: Range, words: Range | None, pixel_tiles: int, drain: bool) -> Run:
        """Time a run of so many pixel tiles with channel tiles, or with words of one."""
        key = (tiles, words, pixel_tiles)
        if key not in self.known:
            self.known[key] = self._run(tiles, words, pixel_tiles, drain)
        return self.known[key]

    def cycles(self, table: PassTable, cut: Cut) -> IntArray:
        """Cycles of the runs of all passes."""
        pixel_tiles = table.last_tile - table.first_tile
        keys, which = np.unique(
            np.stack([table.group, table.chunk, pixel_tiles]), axis=1, return_inverse=True
        )
        totals = []
        for g, chunk, count in keys.T.tolist():
            group = cut.groups[g]
            words = group.chunks[chunk] if group.chunks else None
            drain = chunk == len(group.blocks) - 1
            totals.append(self.run(group.tiles, words, count, drain).total)
        return np.array(totals, dtype=np.int64)[which.ravel()]

    def _run(self, tiles: Range, words: Range | None, pixel_tiles: int, drain: bool) -> Run:
        chosen = [tile.cut(words) for tile in self.tiles[slice(*tiles)]]
        filled = [kernels.with_fillers(tile.counts, tile.ends) for tile in chosen]
        results = [tile.channels * self.hardware.drain_groups for tile in chosen]
        geometry = step_geometry(self.step)
        if geometry.form:
            return Run(
                *kernels.winograd_run_cycles(
                    np.concatenate(filled, axis=1),
                    geometry.part_words,
                    prod(geometry.kernel),
                    np.array(results, dtype=np.int64),
                    geometry.tile_outputs,
                    pixel_tiles,
                    self.hardware.depth,
                )
            )
        vector = self.step.unit == "vector"
        compute, stall_feed, drained, total = kernels.run_cycles(
            np.concatenate(filled, axis=1),
            np.cumsum([tile.words.size for tile in chosen]),
            np.array(results, dtype=np.int64),
            pixel_tiles,
            1 if vector else self.hardware.depth,
            drain,
        )
        late = RESCALING_CYCLES if self.step.mode == "add" else 0
        return Run(compute, stall_feed, drained + late, total + late)


def _loops(cut: Cut) -> tuple[IntArray, IntArray, IntArray, IntArray, IntArray]:
    """List (strip, group, chunk, first pixel tile, one past the last) in rule T3's order."""
    strips, groups = range(len(cut.strips)), range(len(cut.groups))
    pairs = (
        [(s, g) for s in strips for g in groups]
        if cut.strips_outer
        else [(s, g) for g in groups for s in strips]
    )
    parts = [_pair(cut, s, g) for s, g in pairs]
    columns = np.concatenate(parts, axis=1)
    return columns[0], columns[1], columns[2], columns[3], columns[4]


def _pair(cut: Cut, s: int, g: int) -> IntArray:
    """List the passes of one strip and one group."""
    first, last = cut.strips[s].tiles
    chunks = len(cut.groups[g].chunks)
    if not chunks:
        return np.array([[s], [g], [0], [first], [last]], dtype=np.int64)
    tiles = np.repeat(np.arange(first, last), chunks)
    chunk = np.tile(np.arange(chunks), last - first)
    return np.stack([np.full_like(tiles, s), np.full_like(tiles, g), chunk, tiles, tiles + 1])


def _changes(column: IntArray) -> NDArray[np.bool_]:
    """Where an element differs from the one before; the first does."""
    return np.concatenate([[True], column[1:] != column[:-1]])


def _first_output(geometry: Geometry, tile: IntArray) -> IntArray:
    """Output, in the order of the image, that pixel tiles begin with."""
    index, width = tile * geometry.rows, geometry.stored[1]
    if geometry.form:
        return -(-index // geometry.pitch) * geometry.stride[0] * width
    return _real_pixels(geometry.pitch, width, index)


def _real_pixels(pitch: int, out_width: int, index: IntArray) -> IntArray:
    """Output pixels with a smaller pixel index (rule M1), rows below the image included."""
    row, column = np.divmod(index, pitch)
    return row * out_width + np.minimum(column, out_width)
