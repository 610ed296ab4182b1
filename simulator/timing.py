"""Cycles and counted events of networks and layers, without stepping (the fast speed).

Runs of the engine follow the recurrence at the end of section 8 of docs/microarchitecture.md,
transfers the rules of section 10 (`simulator.transfers`); layers of the host are estimated by rule
V5.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.network import (
    FullyConnected,
    Layer,
    Mean,
    Network,
    Pool2D,
    Tensor,
    WeightedLayer,
)
from simulator.cuts import step_geometry
from simulator.events import run_events, transfer_events
from simulator.hardware import Hardware
from simulator.lowering import Step
from simulator.pass_table import Runs
from simulator.passes import Pass
from simulator.plan import NetworkPlan, Program, StepPlan, plan_network
from simulator.program import layer_geometry
from simulator.results import CAUSES, Events, LayerTiming, LayerUnit, RunTiming
from simulator.transfers import (
    TRANSFER_CAUSES,
    Bus,
    Operations,
    Schedule,
    bus_of,
    schedule,
)

IntArray = NDArray[np.int64]

FILL_CYCLES = 3
"""Cycles 1 to 3 of a run: the pipeline fills (rule E1)."""

StepRuns = Callable[[StepPlan], Sequence[RunTiming]]
"""Times the runs of all passes of a step."""

Scheduler = Callable[[Operations, Bus], Schedule]


def time_network(network: Network, hardware: Hardware) -> tuple[LayerTiming, ...]:
    """Cycles by cause and events of every layer of one inference.

    The cycles of a layer reach from the end of the layer before to its own end (rule T10). They
    are not those of the layer alone, because its first descriptor and weights are loaded before.

    Parameters
    ----------
    network : Network
    hardware : Hardware

    Raises
    ------
    HardwareError
        Where a buffer cannot hold the smallest pass, or the PE cannot take a weight.
    """
    return time_plan(plan_network(one_inference(network), hardware))


def time_layer(
    layer: WeightedLayer, input_shape: tuple[int, ...], hardware: Hardware
) -> LayerTiming:
    """Cycles by cause and events of one array layer that is a whole program, one inference.

    Parameters
    ----------
    layer : WeightedLayer
    input_shape : tuple of int
        Batch first.
    hardware : Hardware

    Raises
    ------
    HardwareError
        Where a buffer cannot hold the smallest pass, or the PE cannot take a weight.
    """
    return time_plan(plan_network(lone_layer(layer, input_shape, hardware), hardware))[0]


def plan_layer(layer: WeightedLayer, input_shape: tuple[int, ...], hardware: Hardware) -> StepPlan:
    """Plan one array layer that is a whole program; parameters are those of `time_layer`."""
    plan = plan_network(lone_layer(layer, input_shape, hardware), hardware)
    return plan.programs[0].steps[0]


def lone_layer(layer: WeightedLayer, input_shape: tuple[int, ...], hardware: Hardware) -> Network:
    """Network of one layer that reads an input of the array's own codes.

    The input of a dense layer is vectors of its features.
    """
    geometry = layer_geometry(layer, input_shape, hardware)
    codes = f"int{hardware.array.activation_bits}"
    shapes: list[tuple[int, ...]] = [
        (1, geometry.height, geometry.width, geometry.in_channels),
        (1, geometry.out_height, geometry.out_width, geometry.out_channels),
    ]
    if isinstance(layer, FullyConnected):
        shapes = [(1, *shape[2:]) for shape in shapes]
    return Network(
        name=layer.name,
        tensors=(Tensor("input", shapes[0], codes), Tensor("output", shapes[1], codes)),
        layers=(replace(layer, inputs=(0,), outputs=(1,)),),
        inputs=(0,),
        outputs=(1,),
    )


def one_inference(network: Network) -> Network:
    """Return the network with batches of 1."""
    tensors = tuple(replace(each, shape=(1, *each.shape[1:])) for each in network.tensors)
    return replace(network, tensors=tensors)


def time_plan(
    plan: NetworkPlan,
    runs: StepRuns | None = None,
    scheduler: Scheduler = schedule,
) -> tuple[LayerTiming, ...]:
    """Time a network that is planned already, a layer each.

    Parameters
    ----------
    plan : NetworkPlan
    runs : callable or None
        What times the runs of a step; None for the recurrence.
    scheduler : callable
        `schedule`, or `step_schedule`.
    """
    hardware = plan.hardware
    timed_runs: StepRuns = runs or (lambda step: run_timings(step, hardware))
    layers = plan.lowered.network.layers
    timings = [LayerTiming(0, dict.fromkeys(CAUSES, 0)) for _ in layers]
    for part in plan.parts:
        if isinstance(part, Program):
            found = _time_program(part, hardware, timed_runs, scheduler)
            for each, timing in zip(part.steps, found, strict=True):
                timings[each.step.layer_index] += timing
        else:
            timings[part.layer_index] += _time_on_host(part, plan)
    for index, unit in enumerate(layer_units(plan)):
        if unit == "vector":
            timings[index] += LayerTiming(0, {}, _vector_events(layers[index], plan))
    return tuple(timings)


def layer_units(plan: NetworkPlan) -> tuple[LayerUnit, ...]:
    """Who does each layer of the network."""
    units: dict[int, LayerUnit] = {step.layer_index: step.unit for step in plan.steps}
    return tuple(units.get(index, "free") for index in range(len(plan.lowered.network.layers)))


# -- programs -------------------------------------------------------------------------------------


def program_operations(
    program: Program, run_cycles: Sequence[int], hardware: Hardware
) -> Operations:
    """Write the passes of a program as the scheduler takes them; a layer is a step."""
    passes = program.passes
    steps = [step for step in program.steps for _ in step.passes]
    offset = program.descriptor_offset

    def column(values: Sequence[int]) -> IntArray:
        return np.array(values, dtype=np.int64)

    def stored(name: str, missing: int) -> IntArray:
        return column([getattr(p.store, name) if p.store else missing for p in passes])

    return Operations(
        layer=np.repeat(np.arange(len(program.steps)), [len(s.passes) for s in program.steps]),
        order=column([p.order for p in passes]),
        run_cycles=column(run_cycles),
        descriptor_offset=offset + np.arange(len(passes)) * hardware.descriptor_bytes,
        weight_offset=column([p.weights.offset for p in passes]),
        weight_beats=column([p.weights.beats if p.load_weights else 0 for p in passes]),
        load_offset=column([p.load.offset for p in passes]),
        load_segments=column([p.load.segments if p.load_activations else 0 for p in passes]),
        load_words=column([p.load.words for p in passes]),
        load_stride_bytes=column([p.load.stride_bytes for p in passes]),
        load_row_words=column([p.load.row_words for p in passes]),
        load_single=column([int(step_geometry(s.step).stride[1] > 1) for s in steps]),
        second_offset=column([_second_offset(p) for p in passes]),
        store_offset=stored("offset", 0),
        store_segments=stored("segments", 0),
        store_words=stored("words", 1),
        store_stride_bytes=stored("stride_bytes", 0),
        store_first_row_words=stored("first_row_words", 1),
        store_row_words=stored("row_words", 1),
        store_single=column([int(step_geometry(s.step).form > 0) for s in steps]),
    )


def _second_offset(each: Pass) -> int:
    return -1 if each.load.second_offset is None else each.load.second_offset


def _time_program(
    program: Program, hardware: Hardware, runs: StepRuns, scheduler: Scheduler
) -> list[LayerTiming]:
    """Time the steps of a program."""
    timed = [runs(step) for step in program.steps]
    cycles = [run.cycles for step in timed for run in step]
    operations = program_operations(program, cycles, hardware)
    found = scheduler(operations, bus_of(hardware))
    moved = transfer_events(operations, hardware)
    return [
        _step_timing(step, int(cycles), causes, events)
        for step, cycles, causes, events in zip(
            timed, found.layer_cycles, found.causes, moved, strict=True
        )
    ]


def _step_timing(
    runs: Sequence[RunTiming], cycles: int, causes: IntArray, moved: Events
) -> LayerTiming:
    """Put a step together from its engine runs and its transfers."""
    by_cause = dict.fromkeys(CAUSES, 0) | dict(zip(TRANSFER_CAUSES, causes.tolist(), strict=True))
    events = moved
    same = {id(run): run for run in runs}  # most runs of a long step are one and the same
    for key, count in Counter(map(id, runs)).items():
        for cause, spent in same[key].cycles_by_cause.items():
            by_cause[cause] += count * spent
        events += same[key].events * count
    return LayerTiming(cycles, by_cause, events)


# -- runs of the engine ---------------------------------------------------------------------------


def run_timings(plan: StepPlan, hardware: Hardware) -> list[RunTiming]:
    """Time the runs of all passes of a step by the recurrence; equal runs are one object."""
    runs = Runs(plan.cut, hardware)
    geometry = step_geometry(plan.step)
    pixels = {
        tiles: geometry.pixels_of(range(*tiles))
        for tiles in {each.pixel_tiles for each in plan.passes}
    }
    known: dict[tuple[Any, ...], RunTiming] = {}
    found = []
    for each in plan.passes:
        tiles = each.pixel_tiles[1] - each.pixel_tiles[0]
        key = (each.channel_tiles, each.words, tiles, pixels[each.pixel_tiles])
        if key not in known:
            known[key] = _run_timing(plan, each, runs, pixels[each.pixel_tiles])
        found.append(known[key])
    return found


def _run_timing(plan: StepPlan, each: Pass, runs: Runs, pixels: int) -> RunTiming:
    """Time one run, with `pixels` rows of all its pixel tiles that own one."""
    tiles = [tile.cut(each.words) for tile in plan.tiles[slice(*each.channel_tiles)]]
    pixel_tiles = each.pixel_tiles[1] - each.pixel_tiles[0]
    run = runs.run(each.channel_tiles, each.words, pixel_tiles, each.drain)
    events = run_events(plan.step, tiles, each.drain, pixel_tiles, pixels, runs.hardware)
    by_cause = {
        "fill": FILL_CYCLES,
        "compute": run.compute,
        "drain": run.drain,
        "stall_feed": run.stall_feed,
    }
    return RunTiming(run.total, by_cause, events)


# -- layers without weights -----------------------------------------------------------------------


def _time_on_host(step: Step, plan: NetworkPlan) -> LayerTiming:
    """Estimate a layer of the host (rule V5)."""
    hardware, tensors = plan.hardware, plan.lowered.network.tensors
    layer = plan.lowered.network.layers[step.layer_index]
    read = sum(_tensor_bytes(tensors[i], hardware) for i in step.inputs)
    written = _tensor_bytes(tensors[step.output], hardware)
    events = _vector_events(layer, plan) + Events(
        output_codes=prod(tensors[step.output].shape),
        dram_read_bytes=read,
        dram_write_bytes=written,
    )
    by_cause = {
        "stall_activations": _host_transfer_cycles(read, hardware),
        "vector": -(-events.vector_operations // hardware.post.lanes),
        "stall_outputs": _host_transfer_cycles(written, hardware),
    }
    return LayerTiming(sum(by_cause.values()), by_cause, events)


def _host_transfer_cycles(size_bytes: int, hardware: Hardware) -> int:
    return hardware.dram.latency_cycles + -(-size_bytes // hardware.dram.bytes_per_cycle)


def _vector_events(layer: Layer, plan: NetworkPlan) -> Events:
    tensors = plan.lowered.network.tensors
    shapes = [tensors[i].shape for i in layer.inputs]
    return Events(
        vector_operations=vector_operations(layer, shapes, tensors[layer.outputs[0]].shape)
    )


def vector_operations(
    layer: Layer, input_shapes: Sequence[tuple[int, ...]], output_shape: tuple[int, ...]
) -> int:
    """Elements that a layer works on: its outputs; taps inside the image, inputs of a mean.

    A dense layer that the array cannot do has its products.
    """
    if isinstance(layer, Pool2D):
        return _pool_taps(layer, input_shapes[0], output_shape)
    if isinstance(layer, Mean):
        return prod(input_shapes[0])
    if isinstance(layer, FullyConnected):
        return prod(output_shape) * int(layer.weights.shape[1])
    return prod(output_shape)


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
