"""Plans: the passes of a network's steps, and where everything lies in external memory.

`simulator.lowering` says what the steps are, `simulator.cuts` cuts one into passes that fit the
buffers (rules T1, T2), here rule T3 chooses among the cuts and the passes get their addresses
(docs/programming.md). From the base: the descriptors of every program, the weight blocks, then
inputs, constants, intermediates and outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.errors import HardwareError
from golden.network import Network
from simulator.cuts import ChannelTile, Cut, Cutter, capacity, step_geometry
from simulator.energy import layer_energy, load_table
from simulator.events import cut_events, transfer_events
from simulator.hardware import Hardware
from simulator.lowering import Layout, Lowered, Step, layout, lower
from simulator.pass_table import PassTable, Places, Runs, blocks_of, operations, tabulate
from simulator.passes import Load, Pass, Range, Store, WeightBlock
from simulator.transfers import Operations, bus_of, schedule
from simulator.winograd import winograd_step

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
    passes: tuple[Pass, ...]

    @property
    def tiles(self) -> tuple[ChannelTile, ...]:
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
    def passes(self) -> tuple[Pass, ...]:
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

    @cached_property
    def winograd_steps(self) -> dict[int, Step]:
        """Steps that the Winograd units compute, by the index of their layer."""
        return {
            step.layer_index: step
            for step in self.steps
            if step.geometry is not None and step.geometry.form
        }


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


@dataclass(frozen=True)
class Alone:
    """A cut as a program of one step, which is how cuts and algorithms are compared.

    Parameters
    ----------
    cut : Cut
    hardware : Hardware
    runs : Runs
        Of this step; cuts share them.
    """

    cut: Cut
    hardware: Hardware
    runs: Runs

    @cached_property
    def cycles(self) -> int:
        """Cycles of the program (rules T4 to T10)."""
        return schedule(self._operations, bus_of(self.hardware)).cycles

    @cached_property
    def energy_pj(self) -> float:
        """Energy of the program, external memory included (`simulator.energy`)."""
        hardware, form = self.hardware, step_geometry(self.cut.step).form
        (moved,) = transfer_events(self._operations, hardware)
        events = cut_events(self.cut, hardware) + moved
        table = load_table(hardware.energy.table)
        return layer_energy(events, hardware, table, self.cycles, form).total

    @cached_property
    def _operations(self) -> Operations:
        cut, hardware = self.cut, self.hardware
        blocks = np.array([block.beats * hardware.beat_bytes for block in blocks_of(cut)])
        ends = np.cumsum(-(-blocks // ALIGNMENT_BYTES) * ALIGNMENT_BYTES).tolist()
        # Where tensors lie does not matter: they all begin at multiples of 4096.
        places = Places((0,) * cut.step.operands, 0, (0, *ends[:-1]))
        table = tabulate(cut, hardware, places)
        return operations(table, cut, self.runs.cycles(table, cut), places, hardware)


def choose_cut(step: Step, hardware: Hardware) -> Alone:
    """Cut a step as rule T3 says: the fewest cycles of all cuts that move no more than the largest.

    Raises
    ------
    HardwareError
        Where a buffer cannot hold the smallest pass, or the passes are too many.
    """
    cutter = Cutter(step, hardware)
    most = capacity(hardware)
    largest = cutter.cut(most)
    best = Alone(largest, hardware, Runs(largest, hardware))
    if hardware.halves == 1:
        return best
    tried = {most}
    seen = {(largest.groups, largest.strips)}
    for weight_share, pixel_share in product(SHARES, SHARES):
        limit = cutter.share(most, weight_share, pixel_share)
        if limit in tried:
            continue
        tried.add(limit)
        try:
            cut = cutter.cut(limit)
        except HardwareError:  # so small a part holds no pass at all
            continue
        if cut.moved_bytes > largest.moved_bytes or (cut.groups, cut.strips) in seen:
            continue
        seen.add((cut.groups, cut.strips))
        other = Alone(cut, hardware, best.runs)
        if other.cycles < best.cycles:
            best = other
    return best


def choose_step(step: Step, hardware: Hardware) -> Cut:
    """Cut a step, computed directly or by the Winograd units as `winograd.use` says.

    ``auto`` takes what has the fewest cycles alone, or the least energy alone where
    `winograd.choose_by` says so; direct where two are equal. A form that cannot compute a step, or
    that does not fit the buffers (rule W7), is passed over.

    Raises
    ------
    HardwareError
        See `choose_cut`.
    """
    use = hardware.winograd.use
    names = {"auto": hardware.winograd.names, "off": ()}.get(use, (use,))
    found, reason = [], ""
    for name in names if step.unit == "array" else ():
        other = winograd_step(step, name, hardware, safe=use == "auto")
        if isinstance(other, str):
            reason = other
            continue
        try:
            found.append(choose_cut(other, hardware))
        except HardwareError:
            reason = "its streams, or rows of tiles, do not fit the buffers"
    if found and use != "auto":
        return found[0].cut
    by_energy = hardware.winograd.choose_by == "energy"
    if found:
        reason = f"it takes no more {'energy' if by_energy else 'cycles'} directly"
    direct = choose_cut(replace(step, reason=reason), hardware)
    if not found:
        return direct.cut

    def cost(alone: Alone) -> float:
        return alone.energy_pj if by_energy else alone.cycles

    return min([direct, *found], key=cost).cut


def _plan(lowered: Lowered, hardware: Hardware) -> NetworkPlan:
    cuts = {
        index: choose_step(step, hardware)
        for index, step in enumerate(lowered.steps)
        if step.unit != "host"
    }
    chosen = (cuts[i].step if i in cuts else step for i, step in enumerate(lowered.steps))
    lowered = replace(lowered, steps=tuple(chosen))
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

    def build(self, cut: Cut, places: Places, layer_end: bool) -> tuple[Pass, ...]:
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
                Pass(
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
                    weights=WeightBlock(
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

    def _load(self, cut: Cut, row: Any, half: int, places: Places) -> Load:
        step, geometry = cut.step, step_geometry(cut.step)
        strip, in_words = cut.strips[row.strip], cut.groups[row.group].in_words
        base, phase_words = half * self.activation_half, cut.plane_lines * in_words
        pair = step.operands == 2
        return Load(
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

    def _store(self, cut: Cut, row: Any, output_base: int) -> Store | None:
        if not row.store_segments:
            return None
        step, geometry = cut.step, step_geometry(cut.step)
        first, last = (step.first_channel + each for each in cut.groups[row.group].channels)
        return Store(
            offset=row.store_offset,
            segments=row.store_segments,
            words=row.store_words,
            stride_bytes=prod(geometry.stored) * self.hardware.word_bytes,
            base=output_base + row.store_line * row.store_segments,
            bank=row.store_bank,
            first_row_words=row.store_first_row_words,
            row_words=geometry.stored[1],
            first_lane=first % geometry.feed,
            last_lane=(last - 1) % geometry.feed,
        )
