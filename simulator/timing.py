"""Cycles and counted events of a layer, without stepping (the fast speed).

Array layers follow the recurrence at the end of section 8 of docs/microarchitecture.md for every
engine run, and rules T4 to T6 for the transfers between runs; other layers follow rule T7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, prod

import numpy as np
from numpy.typing import NDArray

from golden.errors import HardwareError
from golden.network import (
    Add,
    AveragePool2D,
    Clamp,
    Dequantize,
    Layer,
    MaxPool2D,
    Mean,
    Mul,
    Pool2D,
    Quantize,
    Reshape,
    Softmax,
    Tensor,
    WeightedLayer,
)
from simulator import kernels
from simulator.hardware import Hardware, check_layer_fits
from simulator.plan import (
    Capacity,
    LayerPlan,
    Pass,
    Range,
    capacity,
    channel_tiles,
    cut_layer,
    geometry,
    whole_layer,
)
from simulator.results import CAUSES, Events, LayerTiming

FILL_CYCLES = 3
"""Cycles 1 to 3 of a run: the pipeline fills (rule E1)."""

POST_PROCESSED = (Add, Mul, Softmax, Clamp, Quantize, Dequantize)
"""Layers whose work is one operation for each output element."""


SHARES = (1, 2, 4, 8)
"""Passes of at most one part in so many of the layer are tried (rule T3)."""


def plan_layer(layer: WeightedLayer, input_shape: tuple[int, ...], hardware: Hardware) -> LayerPlan:
    """Choose how a weighted layer is cut into passes (rule T3).

    Parameters
    ----------
    layer : WeightedLayer
    input_shape : tuple of int
        Of one inference (batch 1).
    hardware : Hardware

    Returns
    -------
    LayerPlan

    Raises
    ------
    HardwareError
        Where a buffer cannot hold the smallest pass, or the PE cannot take a weight.
    """
    return _choose(layer, input_shape, hardware)[0]


def time_layer(
    layer: WeightedLayer, input_shape: tuple[int, ...], hardware: Hardware
) -> LayerTiming:
    """Cycles by cause and events of one array layer and one inference, cut as `plan_layer` does.

    Parameters and errors are those of `plan_layer`.
    """
    return _choose(layer, input_shape, hardware)[1]


def time_plan(plan: LayerPlan, hardware: Hardware) -> LayerTiming:
    """Cycles by cause and events of a layer that is cut already."""
    return _time(plan, hardware, {})


def _choose(
    layer: WeightedLayer, input_shape: tuple[int, ...], hardware: Hardware
) -> tuple[LayerPlan, LayerTiming]:
    """Rule T3: the fewest cycles of all cuts that move no more bytes than the largest passes do."""
    check_layer_fits(layer, hardware)
    shape = geometry(layer, input_shape)
    tiles = channel_tiles(layer, shape, hardware)
    runs: _Runs = {}
    most = capacity(hardware)
    best = cut_layer(layer.name, shape, tiles, hardware, most)
    timing = _time(best, hardware, runs)
    if not hardware.buffers.double_buffer:
        return best, timing
    limit_bytes = _dram_bytes(timing)
    whole = whole_layer(shape, tiles, hardware)
    tried = {most}
    for weight_share, pixel_share in product(SHARES, SHARES):
        limit = Capacity(
            activation_bytes=min(most.activation_bytes, -(-whole.activation_bytes // pixel_share)),
            weight_bytes=min(most.weight_bytes, -(-whole.weight_bytes // weight_share)),
            output_bytes=min(most.output_bytes, -(-whole.output_bytes // pixel_share)),
        )
        if limit in tried:
            continue
        tried.add(limit)
        try:
            plan = cut_layer(layer.name, shape, tiles, hardware, limit)
        except HardwareError:  # so small a part holds no pass at all
            continue
        if sum(p.load_weight_bytes + p.load_activation_bytes for p in plan.passes) > limit_bytes:
            continue
        found = _time(plan, hardware, runs)
        if found.cycles < timing.cycles and _dram_bytes(found) <= limit_bytes:
            best, timing = plan, found
    return best, timing


def _dram_bytes(timing: LayerTiming) -> int:
    return timing.events.dram_read_bytes + timing.events.dram_write_bytes


def _time(plan: LayerPlan, hardware: Hardware, known: _Runs) -> LayerTiming:
    """Time a plan; `known` keeps the runs that plans of one layer have in common."""
    runs = []
    for each in plan.passes:
        pixel_tiles = each.pixel_tiles[1] - each.pixel_tiles[0]
        key = (each.channel_tiles, each.words, pixel_tiles)
        if key not in known:
            known[key] = _run(plan, each, pixel_tiles, hardware)
        runs.append(known[key])
    loads_stores = np.array(
        [(p.load_weight_bytes, p.load_activation_bytes, p.store_bytes) for p in plan.passes],
        dtype=np.int64,
    )
    stalls, total = _transfers(loads_stores, [run.total for run in runs], hardware)
    shape = plan.geometry
    steps = sum(int(tile.counts.sum()) for tile in plan.tiles) * shape.pixels
    words = sum(run.words for run in runs)
    return LayerTiming(
        cycles=total,
        cycles_by_cause=dict.fromkeys(CAUSES, 0)
        | stalls
        | {
            "fill": FILL_CYCLES * len(runs),
            "compute": sum(run.compute for run in runs),
            "stall_feed": sum(run.stall_feed for run in runs),
            "drain": sum(run.drain for run in runs),
        },
        events=Events(
            steps=steps,
            entries=sum(run.entries for run in runs),
            window_words=words,
            feed_words=words,
            parameter_reads=sum(run.parameter_reads for run in runs),
            output_codes=shape.pixels * shape.out_channels,
            dram_read_bytes=int(loads_stores[:, :2].sum()),
            dram_write_bytes=int(loads_stores[:, 2].sum()),
        ),
    )


@dataclass(frozen=True)
class _Run:
    """Cycles and events of one engine run; everything that does not depend on its transfers."""

    compute: int
    stall_feed: int
    drain: int
    total: int
    entries: int
    words: int
    parameter_reads: int


_Runs = dict[tuple[Range, Range | None, int], _Run]
"""Runs by channel tiles, words, and number of pixel tiles."""


def _run(plan: LayerPlan, each: Pass, pixel_tiles: int, hardware: Hardware) -> _Run:
    """One engine run."""
    tiles = plan.tiles[slice(*each.channel_tiles)]
    counts = [tile.counts for tile in tiles]
    if each.words is not None:
        counts = [counts[0][:, slice(*each.words)]]
    filled = [kernels.with_fillers(np.ascontiguousarray(count)) for count in counts]
    words = [count.shape[1] for count in counts]
    drain_cycles = [tile.channels * hardware.drain_groups for tile in tiles]
    compute, stall_feed, drain, total = kernels.run_cycles(
        np.concatenate(filled, axis=1),
        np.cumsum(words),
        np.array(drain_cycles, dtype=np.int64),
        pixel_tiles,
        hardware.depth,
        each.drain,
    )
    return _Run(
        compute=compute,
        stall_feed=stall_feed,
        drain=drain,
        total=total,
        entries=sum(int(count.sum()) for count in filled) * pixel_tiles,
        words=sum(words) * pixel_tiles,
        parameter_reads=sum(drain_cycles) * pixel_tiles if each.drain else 0,
    )


def _transfers(
    loads_stores: NDArray[np.int64], run_cycles: list[int], hardware: Hardware
) -> tuple[dict[str, int], int]:
    """Stalls by cause and the layer's cycles; a row is (weights, activations, store) of a pass."""
    weights, activations, outputs, total = kernels.transfer_stalls(
        np.ascontiguousarray(loads_stores[:, 0]),
        np.ascontiguousarray(loads_stores[:, 1]),
        np.ascontiguousarray(loads_stores[:, 2]),
        np.array(run_cycles, dtype=np.int64),
        hardware.buffers.double_buffer,
        hardware.dram.bytes_per_cycle,
        hardware.dram.latency_cycles,
    )
    stalls = {
        "stall_weights": weights,
        "stall_activations": activations,
        "stall_outputs": outputs,
    }
    return stalls, total


# -- layers without weights (rule T7) -------------------------------------------------------------


def time_vector_layer(
    layer: Layer, inputs: Sequence[Tensor], output: Tensor, hardware: Hardware
) -> LayerTiming:
    """Cycles by cause and events of one layer without weights and one inference.

    The layer is cut into as many equal passes as its inputs need in the activation buffer or its
    output in the output buffer, whichever is more; a pass reads, computes and writes its share.
    Rows that two passes of a pool both need are counted once.

    Parameters
    ----------
    layer : Layer
        Any but a `WeightedLayer`.
    inputs : sequence of Tensor
        With the shapes of one inference (batch 1); constants are loaded like any other.
    output : Tensor
    hardware : Hardware

    Returns
    -------
    LayerTiming
    """
    operations = vector_operations(layer, [tensor.shape for tensor in inputs], output.shape)
    if isinstance(layer, Reshape):
        return LayerTiming(0, dict.fromkeys(CAUSES, 0))
    read = sum(_tensor_bytes(tensor, hardware) for tensor in inputs)
    written = _tensor_bytes(output, hardware)
    buffers = hardware.buffers
    share = 2 if buffers.double_buffer else 1
    passes = max(
        1,
        ceil(read / (buffers.activation_bytes // share)),
        ceil(written / (buffers.output_bytes // share)),
    )
    shares = np.array([_shares(total, passes) for total in (0, read, written, operations)])
    run_cycles = -(-shares[3] // hardware.post.lanes)
    stalls, total = _transfers(np.ascontiguousarray(shares[:3].T), run_cycles.tolist(), hardware)
    return LayerTiming(
        cycles=total,
        cycles_by_cause=dict.fromkeys(CAUSES, 0) | stalls | {"vector": int(run_cycles.sum())},
        events=Events(
            vector_operations=operations,
            output_codes=prod(output.shape),
            dram_read_bytes=read,
            dram_write_bytes=written,
        ),
    )


def vector_operations(
    layer: Layer, input_shapes: Sequence[tuple[int, ...]], output_shape: tuple[int, ...]
) -> int:
    """Elements that the post-processor works on; pools and mean count the taps inside the image."""
    if isinstance(layer, AveragePool2D | MaxPool2D):
        return _pool_taps(layer, input_shapes[0], output_shape)
    if isinstance(layer, Mean):
        return prod(input_shapes[0])
    return prod(output_shape) if isinstance(layer, POST_PROCESSED) else 0


def _pool_taps(layer: Pool2D, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
    """Taps inside the image: they are separable into rows and columns."""
    batch, height, width, channels = input_shape
    before = (layer.padding.top, layer.padding.left)
    inside = []
    for axis, size in enumerate((height, width)):
        position = np.arange(output_shape[1 + axis])[:, None] * layer.stride[axis]
        tap = position - before[axis] + np.arange(layer.kernel[axis])
        inside.append(int(((tap >= 0) & (tap < size)).sum()))
    return batch * channels * inside[0] * inside[1]


def _tensor_bytes(tensor: Tensor, hardware: Hardware) -> int:
    """Bytes of a tensor in the buffers: codes of `activation_bits`, or 4 or 8 bytes an element."""
    wide = {"float32": 4, "int32": 4, "int64": 8}
    return prod(tensor.shape) * wide.get(tensor.dtype, hardware.activation_code_bytes)


def _shares(total: int, passes: int) -> list[int]:
    """`total` in `passes` parts that differ by one at most."""
    return [total * (i + 1) // passes - total * i // passes for i in range(passes)]
