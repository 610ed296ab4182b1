"""Counted events of engine runs and of transfers: what energy is made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulator import kernels
from simulator.cuts import ChannelTile, Cut, step_geometry
from simulator.hardware import Hardware
from simulator.lowering import Step
from simulator.results import Events
from simulator.transfers import Operations


def run_events(
    step: Step,
    tiles: Sequence[ChannelTile],
    drain: bool,
    pixel_tiles: int,
    pixels: int,
    hardware: Hardware,
) -> Events:
    """Count the events of runs that walk channel tiles.

    Parameters
    ----------
    step : Step
    tiles : sequence of ChannelTile
        Cut to the words of the runs.
    drain : bool
        Whether results are read (rule E4).
    pixel_tiles : int
        Of all runs.
    pixels : int
        Rows of them that own one.
    hardware : Hardware
    """
    geometry = step_geometry(step)
    words = pixel_tiles * sum(tile.words.size for tile in tiles)
    channels = sum(tile.channels for tile in tiles) if drain else 0
    results = channels * hardware.drain_groups * pixel_tiles
    events = Events(
        window_words=words,
        feed_words=words,
        parameter_reads=results * geometry.tile_outputs,
        output_codes=channels * pixels * geometry.tile_outputs,
    )
    if geometry.form:
        events += Events(transformed_words=words, summed_results=results * tiles[0].ends.size)
    if step.unit == "array":
        entries = sum(int(kernels.column_entries(tile.counts, tile.ends).sum()) for tile in tiles)
        steps = pixels * sum(int(tile.counts.sum()) for tile in tiles)
        events += Events(steps=steps, entries=entries * pixel_tiles)
    return events


def cut_events(cut: Cut, hardware: Hardware) -> Events:
    """Count the events of all runs of a cut: every chunk of words meets every pixel tile once."""
    geometry = step_geometry(cut.step)
    pixels = geometry.pixels_of(range(geometry.pixel_tiles))
    events = Events()
    for group in cut.groups:
        for words in group.chunks or (None,):
            tiles = [tile.cut(words) for tile in cut.tiles[slice(*group.tiles)]]
            drain = words is None or words == group.chunks[-1]
            events += run_events(cut.step, tiles, drain, geometry.pixel_tiles, pixels, hardware)
    return events


def transfer_events(operations: Operations, hardware: Hardware) -> list[Events]:
    """Count the bytes that the bus moves for each step."""
    ops = operations
    weights = ops.weight_beats * hardware.beat_bytes
    operands = 1 + (ops.second_offset >= 0)
    loads = ops.load_segments * ops.load_words * operands * hardware.word_bytes
    stores = ops.store_segments * ops.store_words * hardware.word_bytes
    descriptors = np.full_like(weights, hardware.descriptor_bytes)
    totals = [
        np.bincount(ops.layer, column).astype(np.int64).tolist()
        for column in (weights, loads, stores, weights + loads + descriptors)
    ]
    return [
        Events(
            weight_load_bytes=weight,
            activation_load_bytes=load,
            output_store_bytes=store,
            dram_read_bytes=read,
            dram_write_bytes=store,
        )
        for weight, load, store, read in zip(*totals, strict=True)
    ]
