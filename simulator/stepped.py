"""The accelerator cycle by cycle: every register of docs/microarchitecture.md, every cycle.

`step_layer` runs a layer, `run_step` a step of a planned network. `Engine` is one engine whose
cycles can be taken one at a time, so that Verilog can be compared with it; `ArrayModel` is the
array alone, driven signal by signal. The registers are the fields of
`simulator.stepped_kernels.EngineRegisters`, by the document's names.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import prod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from golden.errors import InputError
from golden.formats import IntFormat, split_by_range
from golden.network import FullyConnected, WeightedLayer
from simulator import stepped_kernels as kernels
from simulator.cuts import step_geometry
from simulator.hardware import Hardware
from simulator.memory_image import activation_banks, outputs_from_banks
from simulator.passes import Pass
from simulator.plan import StepPlan, plan_network
from simulator.program import ROUNDINGS, Geometry, LayerProgram, compile_geometry, layer_geometry
from simulator.results import AccumulatorValues, Events, LayerTiming, RunTiming
from simulator.timing import lone_layer, time_plan
from simulator.transfers import step_schedule
from simulator.winograd import form_of

IntArray = NDArray[np.int64]

ENGINE_CAUSES = kernels.COUNTERS[:4]
"""Causes of an engine's cycles (rule E5)."""

ENGINE_EVENTS = kernels.COUNTERS[4:12]
"""Events that an engine counts (`simulator.results.Events`)."""


@dataclass(frozen=True)
class EngineRun(RunTiming):
    """One run of the engine; its causes are `ENGINE_CAUSES`.

    Parameters
    ----------
    overflow_events, overflow_outputs : int
        The counters of rule D4.
    """

    overflow_events: int
    overflow_outputs: int


def array_config(hardware: Hardware) -> kernels.ArrayConfig:
    """Parameters of the array as the kernels read them."""
    array = hardware.array
    return kernels.ArrayConfig(
        rows=array.rows,
        cols=array.cols,
        feed=array.feed,
        depth=hardware.depth,
        kind={"mac": kernels.MAC, "shift_add": kernels.SHIFT_ADD, "ternary": kernels.TERNARY}[
            hardware.pe.kind
        ],
        terms=hardware.pe.terms,
        weight_bits=hardware.weight_operand_bits,
        acc_bits=array.acc_bits,
        saturate=array.acc_overflow == "saturate",
        spill_interval=array.spill_interval,
        wide_acc_bits=array.wide_acc_bits,
        events_max=(1 << array.events_bits) - 1,
    )


def reset_array(hardware: Hardware) -> kernels.ArrayRegisters:
    """Set the registers of an array to what they are after reset: all 0."""
    array = hardware.array
    pes = (array.rows, array.cols)
    return kernels.ArrayRegisters(
        n=_zeros(1),
        word=_zeros(hardware.depth, array.rows, array.feed),
        offset=_zeros(array.cols),
        done=_zeros(array.cols),
        handoff=_zeros(1),
        pe=kernels.PERegisters(*(_zeros(*pes) for _ in kernels.PERegisters._fields)),
        seen=_unseen(pes),
        result_seen=_unseen(pes),
    )


def array_inputs(hardware: Hardware) -> kernels.ArrayInputs:
    """All signals into the array, at 0."""
    array = hardware.array
    per_column = {name: _zeros(array.cols) for name in ("last", "advance", "lane", "code")}
    return kernels.ArrayInputs(
        feed_valid=_zeros(1),
        feed_data=_zeros(array.rows, array.feed),
        entry_valid=_zeros(array.cols),
        handoff_ready=_zeros(1),
        drain=_zeros(1),
        flush=_zeros(1),
        **per_column,
    )


def array_outputs(hardware: Hardware) -> kernels.ArrayOutputs:
    """All signals out of the array, at 0."""
    cols = hardware.array.cols
    return kernels.ArrayOutputs(
        feed_ready=_zeros(1),
        entry_ready=_zeros(cols),
        issue=_zeros(cols),
        release=_zeros(1),
        fire=_zeros(1),
    )


def _zeros(*shape: int) -> IntArray:
    return np.zeros(shape, np.int64)


def _unseen(shape: tuple[int, ...]) -> IntArray:
    seen = _zeros(len(kernels.SEEN), *shape)
    seen[kernels.FIRST_STEP] = -1
    return seen


class ArrayModel:
    """The array alone (A and P rules): set `inputs`, call `step`, read `outputs` and `registers`.

    Parameters
    ----------
    hardware : Hardware

    Attributes
    ----------
    registers : ArrayRegisters
        As they are at the beginning of the next cycle.
    inputs : ArrayInputs
        Arrays to be filled for the next cycle.
    outputs : ArrayOutputs
        Of the latest cycle, in answer to its inputs.
    """

    def __init__(self, hardware: Hardware) -> None:
        self.config = array_config(hardware)
        self.registers = reset_array(hardware)
        self.inputs = array_inputs(hardware)
        self.outputs = array_outputs(hardware)

    def step(self) -> None:
        """Take one cycle."""
        kernels.step_array(self.config, self.registers, self.inputs, self.outputs)


class Engine:
    """One engine with its memories; its accumulators outlive a run (rule E4).

    ``start(program)`` is cycle 0; then ``step()`` takes one cycle until ``busy`` is False, or
    ``finish()`` takes all that are left.

    Parameters
    ----------
    hardware : Hardware
    geometry : Geometry
        Of the layer that it works on.
    image : integer array
        One input image; codes, channels last.
    input_zero_point : int

    Attributes
    ----------
    registers : EngineRegisters
        After `step`: the registers at the end of the cycle; `inputs` and `outputs` in it are the
        signals of the array during the cycle.
    output_banks : (R, out_bank_words, F) int64 array
        Output memory (rule M6).
    records : (7, out_height, out_width, parts * out_channels) int64 array
        What the drain has read of each output, or of each part of a Winograd tile (rule W4): the
        fields of `kernels.SEEN`, then the result.
    """

    def __init__(
        self, hardware: Hardware, geometry: Geometry, image: ArrayLike, input_zero_point: int
    ) -> None:
        self.hardware = hardware
        self.geometry = geometry
        self.activation_banks = activation_banks(image, geometry, input_zero_point)
        self.output_banks = _zeros(geometry.rows, geometry.out_bank_words, geometry.feed)
        outputs = (geometry.out_height, geometry.out_width, geometry.out_channels)
        parts = max(1, geometry.part_words.size)
        self.records = _zeros(len(kernels.SEEN) + 1, *outputs[:2], parts * outputs[2])
        self.registers = _reset_engine(hardware, geometry)

    @property
    def busy(self) -> bool:
        """Whether a run is under way."""
        return bool(self.registers.busy[0])

    def start(self, program: LayerProgram) -> None:
        """Take cycle 0 of a run of `program`, which is of the engine's layer."""
        self.config = _engine_config(program)
        self.memories = _memories(program, self.activation_banks, self.output_banks)
        _start(self.config, self.memories, self.registers)

    def step(self) -> None:
        """Take one cycle."""
        kernels.step_engine(self.config, self.memories, self.registers, self.records)

    def finish(self) -> EngineRun:
        """Take the cycles that are left and say what the run was."""
        kernels.finish_engine(self.config, self.memories, self.registers, self.records)
        counters = dict(
            zip(kernels.COUNTERS, self.registers.counters.tolist(), strict=True),
        )
        return EngineRun(
            cycles=int(self.registers.cycle[0]),
            cycles_by_cause={cause: counters[cause] for cause in ENGINE_CAUSES},
            events=Events(**{name: counters[name] for name in ENGINE_EVENTS}),
            overflow_events=counters["overflow_events"],
            overflow_outputs=counters["overflow_outputs"],
        )

    def run(self, program: LayerProgram) -> EngineRun:
        """Run `program` from `start` to `done`."""
        self.start(program)
        return self.finish()

    def output_image(self) -> IntArray:
        """(height, width, out_channels) codes of the output memory."""
        return outputs_from_banks(self.output_banks, self.geometry)


def _reset_engine(hardware: Hardware, geometry: Geometry) -> kernels.EngineRegisters:
    array, lanes = hardware.array, hardware.post.lanes
    side, outputs = (geometry.kernel[0], geometry.stride[0]) if geometry.form else (1, 1)
    word = (array.rows, array.feed)
    feeder = {name: _zeros(1) for name in kernels.FeederRegisters._fields}
    feeder |= {"f2_bank": _zeros(array.rows, array.feed), "f2_mask": _zeros(array.rows)}
    drain = {name: _zeros(1) for name in kernels.DrainRegisters._fields}
    drain |= {
        "fired": _zeros(2, 4),
        "tile": _zeros(3),
        "sums": _zeros(array.rows, array.cols, outputs, outputs),
        "late_valid": _zeros(3),
        "late_value": _zeros(3, lanes),
        "late_place": _zeros(3, 4),
        "post_valid": _zeros(4),
        "post_value": _zeros(4, lanes),
        "post_place": _zeros(4, 4),
    }
    transform = {name: _zeros(1) for name in kernels.TransformRegisters._fields}
    transform |= {
        "patch": _zeros(side, side, *word),
        "place": _zeros(3),
        "left": _zeros(2),
        "half": _zeros(2, side * side * geometry.chunk_words, *word),
        "stored": _zeros(2) - 1,
        "word": _zeros(*word),
    }
    return kernels.EngineRegisters(
        busy=_zeros(1),
        cycle=_zeros(1),
        done=_zeros(1),
        array=reset_array(hardware),
        feeder=kernels.FeederRegisters(**feeder),
        transform=kernels.TransformRegisters(**transform),
        streams=kernels.StreamRegisters(
            *(_zeros(array.cols) for _ in kernels.StreamRegisters._fields)
        ),
        drain=kernels.DrainRegisters(**drain),
        counters=_zeros(len(kernels.COUNTERS)),
        inputs=array_inputs(hardware),
        outputs=array_outputs(hardware),
    )


def _start(
    config: kernels.EngineConfig, memories: kernels.Memories, registers: kernels.EngineRegisters
) -> None:
    """Cycle 0: `start` is sampled and the array flushed; the PEs keep their sums (E1, E4)."""
    array, feeder, streams, drain = (
        registers.array,
        registers.feeder,
        registers.streams,
        registers.drain,
    )
    registers.busy[0] = 1
    for register in (registers.cycle, registers.done, array.n, array.offset, array.done):
        register[:] = 0
    feeder.f1_valid[0] = feeder.f2_valid[0] = 0
    feeder.next_word[0] = memories.feed_start[0]
    transform = registers.transform
    for register in (transform.place, transform.chunks, transform.valid, transform.out_word):
        register[:] = 0
    transform.in_half[0] = transform.out_half[0] = 0
    transform.left[:] = config.in_words
    transform.stored[:] = -1
    streams.entry_valid[:] = 0
    streams.entry[:] = memories.entry_start[:, 0]
    for pixel_tile in (feeder.next_pixel_tile, streams.pixel_tile, drain.pixel_tile):
        pixel_tile[:] = config.pixel_first
    for channel_tile in (feeder.next_channel_tile, streams.channel_tile, drain.channel_tile):
        channel_tile[:] = 0
    streams.part[:] = 0
    drain.part[0] = drain.phase[0] = drain.counter[0] = 0
    registers.counters[:] = 0


def _engine_config(program: LayerProgram) -> kernels.EngineConfig:
    geometry, hardware, parameters = program.geometry, program.hardware, program.parameters
    form = form_of(geometry) if geometry.form else None
    nothing = _zeros(1, 1)
    kept = 0 if form is None else hardware.result_bits - form.shift
    return kernels.EngineConfig(
        array=array_config(hardware),
        lanes=hardware.post.lanes,
        height=geometry.height,
        width=geometry.width,
        in_words=geometry.in_words,
        out_height=geometry.out_height,
        out_width=geometry.out_width,
        out_channels=geometry.out_channels,
        out_words=geometry.out_words,
        pitch=geometry.pitch,
        stride_y=geometry.stride[0],
        stride_x=geometry.stride[1],
        pad_top=geometry.pad_top,
        pad_left=geometry.pad_left,
        input_zero_point=program.input_zero_point,
        pixel_first=program.pixel_tiles.start,
        pixel_stop=program.pixel_tiles.stop,
        channel_first=program.channel_tiles.start,
        channel_tiles=len(program.channel_tiles),
        drain=int(program.drain),
        post_bits=hardware.post_bits,
        rounding=ROUNDINGS.index(parameters.rounding),
        output_zero_point=parameters.output_zero_point,
        activation_min=parameters.activation_min,
        activation_max=parameters.activation_max,
        side=0 if form is None else form.taps,
        outputs=1 if form is None else form.outputs,
        chunk_words=geometry.chunk_words,
        parts=max(1, geometry.part_words.size),
        result_bits=hardware.result_bits,
        shift=0 if form is None else form.shift,
        inverse=0 if form is None else pow(form.odd, -1, 1 << kept),
        input_matrix=nothing if form is None else form.inputs,
        output_matrix=nothing if form is None else form.sums,
    )


def _memories(program: LayerProgram, activations: IntArray, outputs: IntArray) -> kernels.Memories:
    feed, streams, parameters = program.feed, program.streams, program.parameters
    return kernels.Memories(
        feed_last=feed.last,
        feed_addr=feed.addr,
        feed_rot=feed.rot,
        feed_dy=feed.dy,
        feed_dx=feed.dx,
        feed_start=feed.start,
        entry_last=streams.last,
        entry_advance=streams.advance,
        entry_lane=streams.lane,
        entry_code=streams.code,
        entry_start=streams.start,
        activation=activations,
        bias=parameters.bias,
        multiplier=parameters.multiplier,
        shift=parameters.shift,
        output=outputs,
    )


@dataclass(frozen=True)
class StepRun:
    """What `run_step` returns.

    Parameters
    ----------
    outputs : (N, out_height, out_width, out_channels) int64 array
        Codes.
    accumulators : AccumulatorValues
        In the same shape.
    runs : tuple of EngineRun
        One for each pass, of one image.
    overflow_events, overflow_outputs : int
        The hardware's counters (rule D4), all images.
    """

    outputs: IntArray
    accumulators: AccumulatorValues
    runs: tuple[EngineRun, ...]
    overflow_events: int
    overflow_outputs: int


@dataclass(frozen=True)
class LayerRun:
    """What `step_layer` returns.

    Parameters
    ----------
    outputs : int64 array
        Codes, in the shape of the layer's output.
    accumulators : AccumulatorValues
        In the same shape.
    timing : LayerTiming
        Of one image.
    overflow_events, overflow_outputs : int
        The hardware's counters (rule D4), all images.
    """

    outputs: IntArray
    accumulators: AccumulatorValues
    timing: LayerTiming
    overflow_events: int
    overflow_outputs: int


def step_layer(layer: WeightedLayer, hardware: Hardware, x: ArrayLike) -> LayerRun:
    """Run a layer cycle by cycle: all its passes, transfers included, image after image.

    Parameters
    ----------
    layer : WeightedLayer
    hardware : Hardware
    x : integer array
        Input codes, batch first.

    Raises
    ------
    InputError, HardwareError
        The layer does not take the input, or the hardware not the layer.
    """
    codes = np.asarray(x, dtype=np.int64)
    _check_operands(layer, hardware, codes)
    plan = plan_network(lone_layer(layer, codes.shape, hardware), hardware)
    step = plan.programs[0].steps[0]
    found = run_step(step, hardware, codes)
    shape = _output_shape(layer, codes.shape, layer_geometry(layer, codes.shape, hardware))
    accumulators = AccumulatorValues(
        **{
            field.name: getattr(found.accumulators, field.name).reshape(shape)
            for field in fields(AccumulatorValues)
        }
    )
    return LayerRun(
        outputs=found.outputs.reshape(shape),
        accumulators=accumulators,
        timing=time_plan(plan, lambda _: found.runs, step_schedule)[0],
        overflow_events=found.overflow_events,
        overflow_outputs=found.overflow_outputs,
    )


def run_step(plan: StepPlan, hardware: Hardware, x: ArrayLike) -> StepRun:
    """Run all passes of a step of the array cycle by cycle, image after image.

    Parameters
    ----------
    plan : StepPlan
    hardware : Hardware
    x : integer array
        Input codes, batch first, in any shape of as many elements; lanes beyond the last feature
        of a vector may be missing.
    """
    layer, geometry = plan.step.layer, step_geometry(plan.step)
    if layer is None:
        raise ValueError(f"step {plan.step.name!r} is not the array's")
    image = (geometry.height, geometry.width, geometry.in_channels)
    codes = np.asarray(x, dtype=np.int64)
    codes = codes.reshape(len(codes), -1)
    codes = np.pad(codes, ((0, 0), (0, prod(image) - codes.shape[1]))).reshape(-1, *image)
    program = compile_geometry(layer, geometry, hardware)
    programs = [_program_of(program, each) for each in plan.passes]
    engines, runs = [], []
    for each in codes:
        engine = Engine(hardware, geometry, each, layer.input_zero_point)
        runs = [engine.run(part) for part in programs]
        engines.append((engine, runs))
    return StepRun(
        outputs=np.stack([engine.output_image() for engine, _ in engines]),
        accumulators=_accumulator_values([engine.records for engine, _ in engines], hardware),
        runs=tuple(runs),
        overflow_events=sum(run.overflow_events for _, image in engines for run in image),
        overflow_outputs=sum(run.overflow_outputs for _, image in engines for run in image),
    )


def _check_operands(layer: WeightedLayer, hardware: Hardware, codes: IntArray) -> None:
    if codes.ndim < 2 or codes.shape[0] < 1:
        raise InputError(
            f'layer "{layer.name}" takes one or more images, batch first, but its input has the'
            f" shape {codes.shape}; add a batch axis"
        )
    operands = IntFormat(hardware.array.activation_bits + 1)
    outside = split_by_range(codes - layer.input_zero_point, operands)
    if outside.any():
        raise InputError(
            f'layer "{layer.name}" gets the input code {int(codes[outside][0])}, which minus its'
            f" zero point {layer.input_zero_point} must fit {operands.bits} bits; use codes of"
            f" {hardware.array.activation_bits} bits"
        )


def _program_of(program: LayerProgram, each: Pass) -> LayerProgram:
    return program.part(
        pixel_tiles=range(*each.pixel_tiles),
        channel_tiles=range(*each.channel_tiles),
        words=None if each.words is None else range(*each.words),
        drain=each.drain,
    )


def _output_shape(
    layer: WeightedLayer, input_shape: tuple[int, ...], geometry: Geometry
) -> tuple[int, ...]:
    if not isinstance(layer, FullyConnected):
        return (input_shape[0], geometry.out_height, geometry.out_width, geometry.out_channels)
    if input_shape[-1] == geometry.in_channels:
        return (*input_shape[:-1], geometry.out_channels)
    return (prod(input_shape) // geometry.in_channels, geometry.out_channels)


def _accumulator_values(records: list[IntArray], hardware: Hardware) -> AccumulatorValues:
    found = dict(zip((*kernels.SEEN, "value"), np.stack(records, axis=1), strict=True))
    return AccumulatorValues(
        value=found["value"],
        events=found["events"],
        first_step=found["first_step"],
        minimum=found["minimum"],
        maximum=found["maximum"],
        persistent=split_by_range(found["exact"], IntFormat(hardware.result_bits)),
    )
