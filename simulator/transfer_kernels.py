"""Kernels of `simulator.transfers`: rules T4 to T10 as recurrences, and as machines that step.

The two halves share nothing but the shape of their arguments and the names of operations. The first
solves the recurrences of docs/microarchitecture.md, section 10, a stretch of equal beats at a time.
The second holds what a designer would draw (sequencer, DMA, memory) and moves it cycle by cycle,
a word, a beat and a burst at a time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator._jit import jit

IntArray = NDArray[np.int64]

DESCRIPTOR, WEIGHTS, ACTIVATIONS, SECOND, STORE = 0, 1, 2, 3, 4
"""Operations of a pass; columns of `Times.start` and `Times.end`."""

CONTROL, STALL_DESCRIPTOR, STALL_WEIGHTS, STALL_ACTIVATIONS, STALL_OUTPUTS = 0, 1, 2, 3, 4
"""Columns of `Times.causes` (rule T10)."""

PAGE_BYTES = 4096
BURST_BEATS = 256
OUTSTANDING = 8

IDLE, CONTROLLED, RUNNING = 0, 1, 2
"""What the engine's side does in a cycle (rule T5)."""


class Bus(NamedTuple):
    """What transfers depend on besides their shape; bytes are powers of two.

    `interval_cycles` is I and `latency_cycles` L of rule T9; a descriptor is whole beats.
    """

    beat_bytes: int
    word_bytes: int
    rows: int
    latency_cycles: int
    interval_cycles: int
    descriptor_bytes: int


class Operations(NamedTuple):
    """The passes of one program in order, one element a pass; offsets are bytes from the base.

    Offsets and strides of loads and stores are multiples of a word, those of descriptors and
    weights of a beat. A run of a load holds whole image rows. The first pass of a layer (but the
    first of all) has not `order` 0.
    """

    layer: IntArray  # from 0, rising by one at most
    order: IntArray
    run_cycles: IntArray  # of the engine, see section 8
    descriptor_offset: IntArray
    weight_offset: IntArray
    weight_beats: IntArray  # 0: nothing to load
    load_offset: IntArray
    load_segments: IntArray  # 0: nothing to load
    load_words: IntArray
    load_stride_bytes: IntArray
    load_row_words: IntArray
    load_single: IntArray  # 1 where the horizontal stride is more than 1
    second_offset: IntArray  # -1: no second operand
    store_offset: IntArray
    store_segments: IntArray  # 0: nothing to store
    store_words: IntArray
    store_stride_bytes: IntArray
    store_first_row_words: IntArray
    store_row_words: IntArray
    store_single: IntArray  # 1 where a piece is one word (rule W6)


class Times(NamedTuple):
    """Cycles in which things happen; both halves fill it."""

    start: IntArray  # (passes, 5) s of each operation (rule T4)
    end: IntArray  # (passes, 5) e
    configure: IntArray  # (passes,) c (rule T5)
    done: IntArray  # (passes,)
    layer_end: IntArray  # (layers,)
    causes: IntArray  # (layers, 5) cycles outside the engine's runs (rule T10)


# -- recurrences -----------------------------------------------------------------------------------


class _Runs(NamedTuple):
    """One operation: runs of bytes, and the pieces of their words."""

    offset: int
    segments: int
    bytes: int
    stride_bytes: int
    whole_beats: bool  # every beat is one piece
    first_row_words: int
    row_words: int
    piece_words: int


class _Channel(NamedTuple):
    """What one direction of the memory remembers from operation to operation."""

    last_beat: IntArray  # (1,) cycle of the latest beat
    burst_end: IntArray  # (OUTSTANDING,) of the operation's latest bursts


@jit
def _pieces(runs: _Runs, low: int, high: int) -> int:
    """Pieces of the words low .. high - 1 of a run, all of one beat (T7, T8)."""
    count = 0
    while low < high:
        row_end = _row_end(runs, low)
        stop = min(high, row_end)
        count += (stop - low + runs.piece_words - 1) // runs.piece_words
        low = stop
    return count


@jit
def _row_end(runs: _Runs, word: int) -> int:
    """First word of the run that is of a later row than `word`."""
    later = word - runs.first_row_words
    if later < 0:
        return runs.first_row_words
    return runs.first_row_words + (later // runs.row_words + 1) * runs.row_words


@jit
def _cost(bus: Bus, runs: _Runs, first_byte: int, beat: int) -> int:
    """Cycles of one beat of the run that begins at `first_byte` (T7, T8)."""
    if runs.whole_beats:
        return 1
    low = max(beat * bus.beat_bytes - first_byte, 0)
    high = min((beat + 1) * bus.beat_bytes - first_byte, runs.bytes)
    return _pieces(runs, low // bus.word_bytes, high // bus.word_bytes)


@jit
def _span(bus: Bus, runs: _Runs, first_byte: int, beat: int, stop: int) -> int:
    """Sum over the beats beat .. stop - 1 of the cycles until the next may follow."""
    if runs.whole_beats:
        return (stop - beat) * bus.interval_cycles
    width = bus.beat_bytes // bus.word_bytes
    whole_cycles = max(bus.interval_cycles, -(-width // runs.piece_words))
    total = 0
    while beat < stop:
        word = (beat * bus.beat_bytes - first_byte) // bus.word_bytes
        same = 0
        if word >= 0:  # whole beats of one row are alike
            left = min(_row_end(runs, word), runs.bytes // bus.word_bytes) - word
            same = min(left // width, stop - beat)
        if same > 0:
            total += same * whole_cycles
            beat += same
        else:
            total += max(bus.interval_cycles, _cost(bus, runs, first_byte, beat))
            beat += 1
    return total


@jit
def _burst_stop(bus: Bus, beat: int, run_stop: int) -> int:
    """One past the last beat of the burst that begins at `beat` (T6)."""
    page_beats = PAGE_BYTES // bus.beat_bytes
    page_stop = (beat // page_beats + 1) * page_beats
    return min(run_stop, page_stop, beat + BURST_BEATS)


@jit
def _address_cycle(channel: _Channel, burst: int, earlier: int) -> int:
    """Cycle of the address of a burst, `earlier` being that of the one before (T6)."""
    free = channel.burst_end[burst % OUTSTANDING] + 1 if burst >= OUTSTANDING else 0
    return max(earlier + 1, free)


@jit
def _read(bus: Bus, channel: _Channel, runs: _Runs, start: int) -> int:
    """End of a read that begins in cycle `start` (T6, T7, T9)."""
    address = start
    free = channel.last_beat[0] + bus.interval_cycles  # first cycle that may take the next beat
    end = start
    burst = 0
    for segment in range(runs.segments):
        first_byte = runs.offset + segment * runs.stride_bytes
        beat = first_byte // bus.beat_bytes
        run_stop = (first_byte + runs.bytes - 1) // bus.beat_bytes + 1
        while beat < run_stop:
            stop = _burst_stop(bus, beat, run_stop)
            address = _address_cycle(channel, burst, address)
            taken = max(free, address + bus.latency_cycles + 1)
            taken += _span(bus, runs, first_byte, beat, stop - 1)
            channel.burst_end[burst % OUTSTANDING] = taken
            channel.last_beat[0] = taken
            cost = _cost(bus, runs, first_byte, stop - 1)
            free = taken + max(cost, bus.interval_cycles)
            end = taken + cost
            beat = stop
            burst += 1
    return end


@jit
def _write(bus: Bus, channel: _Channel, runs: _Runs, start: int) -> int:
    """End of a write whose first cycle that counts is `start` (T6, T8, T9).

    As a beat is taken a cycle or more after its last piece was read, `z_k` is `w_{k-1} + cost_k -
    1`, and `w_k` follows `w_{k-1}` by the larger of cost and interval.
    """
    address = start
    taken = channel.last_beat[0]
    end = start
    burst = 0
    for segment in range(runs.segments):
        first_byte = runs.offset + segment * runs.stride_bytes
        beat = first_byte // bus.beat_bytes
        run_stop = (first_byte + runs.bytes - 1) // bus.beat_bytes + 1
        while beat < run_stop:
            stop = _burst_stop(bus, beat, run_stop)
            address = _address_cycle(channel, burst, address)
            cost = _cost(bus, runs, first_byte, beat)
            packed = (start + 2 if burst == 0 else taken) + cost
            taken = max(packed, taken + bus.interval_cycles, address + 1)
            taken += _span(bus, runs, first_byte, beat + 1, stop)
            end = taken + bus.latency_cycles + 1
            channel.burst_end[burst % OUTSTANDING] = end
            channel.last_beat[0] = taken
            beat = stop
            burst += 1
    return end


@jit
def _runs_of(bus: Bus, operations: Operations, j: int, kind: int) -> _Runs:
    """List what an operation of pass j moves; no segments where there is nothing to do."""
    if kind == DESCRIPTOR:
        offset = operations.descriptor_offset[j]
        return _Runs(offset, 1, bus.descriptor_bytes, 0, True, 0, 1, 1)
    if kind == WEIGHTS:
        size = operations.weight_beats[j] * bus.beat_bytes
        return _Runs(operations.weight_offset[j], int(size > 0), size, 0, True, 0, 1, 1)
    wide = bus.word_bytes >= bus.beat_bytes
    if kind == STORE:
        return _Runs(
            operations.store_offset[j],
            operations.store_segments[j],
            operations.store_words[j] * bus.word_bytes,
            operations.store_stride_bytes[j],
            wide,
            operations.store_first_row_words[j],
            operations.store_row_words[j],
            1 if operations.store_single[j] else bus.rows,
        )
    offset = operations.load_offset[j]
    segments = operations.load_segments[j]
    if kind == SECOND:
        offset = operations.second_offset[j]
        segments = segments if offset >= 0 else 0
    return _Runs(
        offset,
        segments,
        operations.load_words[j] * bus.word_bytes,
        operations.load_stride_bytes[j],
        wide,
        0,
        operations.load_row_words[j],
        1 if operations.load_single[j] else bus.rows,
    )


@jit
def _slot_kind(order: int, slot: int) -> int:
    """Operation in place `slot` of five for a pass of this order (T4)."""
    store_slot = (4, 2, 1)[order]
    if slot == store_slot:
        return STORE
    return slot - int(slot > store_slot)


@jit
def _overlap(start: int, end: int, times: Times, j: int) -> int:
    """Cycles of start .. end from c_j to done_j."""
    if j < 0 or j >= times.done.size or times.done[j] == 0:
        return 0
    return max(0, min(end, int(times.done[j])) - max(start, int(times.configure[j])) + 1)


@jit
def _run_pass(operations: Operations, times: Times, j: int, loaded: int) -> None:
    """Time the engine's run, `loaded` being E_j (T5)."""
    before = times.done[j - 1] if j > 0 else 0
    times.configure[j] = max(loaded, before) + 1
    times.done[j] = times.configure[j] + 1 + operations.run_cycles[j]
    times.causes[operations.layer[j], CONTROL] += 2


@jit
def schedule(bus: Bus, operations: Operations, times: Times) -> None:
    """Fill `times` (zeros) by the recurrences."""
    passes = operations.layer.size
    reads = _Channel(np.full(1, -bus.interval_cycles), np.zeros(OUTSTANDING, dtype=np.int64))
    writes = _Channel(np.full(1, -bus.interval_cycles), np.zeros(OUTSTANDING, dtype=np.int64))
    end = 0
    for j in range(passes + 1):
        order = operations.order[j] if j < passes else 0
        layer = operations.layer[max(j - 1, 0)]
        for slot in range(5):
            kind = _slot_kind(order, slot)
            if j == passes and kind != STORE:
                continue
            start = end + 1
            if kind != STORE:
                end = _read(bus, reads, _runs_of(bus, operations, j, kind), start)
                times.start[j, kind], times.end[j, kind] = start, end
            elif j == 0:
                end = start
            else:
                after_run = max(start, times.done[j - 1] + 1)
                end = _write(bus, writes, _runs_of(bus, operations, j - 1, STORE), after_run)
                times.start[j - 1, STORE], times.end[j - 1, STORE] = start, end
                times.layer_end[layer] = end
            if j < passes and slot == (3 if order == 0 else 4):
                _run_pass(operations, times, j, end)
            free = end - start + 1
            free -= _overlap(start, end, times, j - 1) + _overlap(start, end, times, j)
            times.causes[layer, _cause(kind)] += free
            if kind == STORE and j < passes:
                layer = operations.layer[j]


@jit
def _cause(kind: int) -> int:
    """Cause of the cycles of an operation (T10)."""
    return (
        STALL_DESCRIPTOR,
        STALL_WEIGHTS,
        STALL_ACTIVATIONS,
        STALL_ACTIVATIONS,
        STALL_OUTPUTS,
    )[kind]


# -- machines --------------------------------------------------------------------------------------


class _Memory:
    """The memory of rule T9: queues of bursts, their oldest first."""

    read_age: IntArray  # cycles since the address
    read_left: IntArray  # beats still to come
    reads: int  # bursts in the queue
    read_wait: int  # cycles until the next beat may come
    write_age: IntArray
    write_left: IntArray
    writes: int
    write_wait: int
    response_age: IntArray  # cycles since the burst's last beat
    responses: int


class _DMA:
    """Registers of the DMA."""

    active: int
    kind: int
    age: int  # cycles since the operation's first that counts
    outstanding: int
    # addresses
    ask_segments: int  # runs not yet asked for, this one included
    ask_byte: int  # first byte of the next burst's first beat
    ask_stop: int  # one past the last byte of the run
    ask_run: int  # first byte of the run
    # data
    segments: int  # runs whose words are not through, this one included
    run: int
    byte: int  # next byte
    stop: int
    row_left: int  # words left of the row
    beat_held: int  # loads: a beat is being unpacked; stores: one waits for the bus
    # shape
    bytes: int
    stride_bytes: int
    single_piece: int  # a beat is one piece
    first_row_words: int
    row_words: int
    piece_words: int


class _Sequencer:
    """Registers of the sequencer."""

    current: int  # pass whose descriptor, weights and activations are loaded
    operation: int
    stored: int  # passes stored
    loaded: int  # passes loaded
    runs_done: int
    run_left: int  # cycles of the engine's run
    starting: int  # the engine starts in this cycle


def _registers(machine: type) -> np.dtype[np.void]:
    """Record type of a machine's registers; queues have a place for each outstanding burst."""
    fields: list[tuple[str, Any, Any]] = [
        (name, np.int64, (OUTSTANDING,) if kind == "IntArray" else ())
        for name, kind in machine.__annotations__.items()
    ]
    return np.dtype(fields)


MEMORY_REGISTERS = _registers(_Memory)
DMA_REGISTERS = _registers(_DMA)
SEQUENCER_REGISTERS = _registers(_Sequencer)


@jit
def _shift(queue: IntArray) -> None:
    """Drop the oldest element."""
    for i in range(OUTSTANDING - 1):
        queue[i] = queue[i + 1]


@jit
def _begin(bus: Bus, operations: Operations, dma: _DMA, j: int, kind: int) -> bool:
    """Set the DMA up; False where the operation has nothing to do."""
    dma.kind = kind
    dma.single_piece = kind <= WEIGHTS or bus.word_bytes >= bus.beat_bytes
    dma.piece_words = bus.rows
    dma.segments = 1
    dma.stride_bytes = 0
    if kind == DESCRIPTOR:
        dma.run = operations.descriptor_offset[j]
        dma.bytes = bus.descriptor_bytes
    elif kind == WEIGHTS:
        dma.run = operations.weight_offset[j]
        dma.bytes = operations.weight_beats[j] * bus.beat_bytes
        if dma.bytes == 0:
            return False
    elif kind == STORE:
        dma.run = operations.store_offset[j]
        dma.segments = operations.store_segments[j]
        dma.bytes = operations.store_words[j] * bus.word_bytes
        dma.stride_bytes = operations.store_stride_bytes[j]
        dma.first_row_words = operations.store_first_row_words[j]
        dma.row_words = operations.store_row_words[j]
        if operations.store_single[j]:
            dma.piece_words = 1
    else:
        dma.run = operations.load_offset[j]
        if kind == SECOND:
            dma.run = operations.second_offset[j]
            if dma.run < 0:
                return False
        dma.segments = operations.load_segments[j]
        dma.bytes = operations.load_words[j] * bus.word_bytes
        dma.stride_bytes = operations.load_stride_bytes[j]
        dma.first_row_words = operations.load_row_words[j]
        dma.row_words = operations.load_row_words[j]
        if operations.load_single[j]:
            dma.piece_words = 1
    if dma.segments == 0:
        return False
    dma.byte = dma.run
    dma.stop = dma.run + dma.bytes
    dma.row_left = dma.first_row_words
    dma.ask_segments = dma.segments
    dma.ask_run = dma.run
    dma.ask_byte = dma.run - dma.run % bus.beat_bytes
    dma.ask_stop = dma.stop
    dma.beat_held = 0
    dma.outstanding = 0
    dma.age = 0
    dma.active = 1
    return True


@jit
def _next_burst(bus: Bus, dma: _DMA) -> int:
    """Beats of the next burst; moves the address registers on (T6)."""
    beats = 0
    while True:
        beats += 1
        dma.ask_byte += bus.beat_bytes
        if dma.ask_byte >= dma.ask_stop:
            dma.ask_segments -= 1
            dma.ask_run += dma.stride_bytes
            dma.ask_byte = dma.ask_run - dma.ask_run % bus.beat_bytes
            dma.ask_stop = dma.ask_run + dma.bytes
            return beats
        if dma.ask_byte % PAGE_BYTES == 0 or beats == BURST_BEATS:
            return beats


@jit
def _move_piece(bus: Bus, dma: _DMA) -> bool:
    """Move one piece between the beat and the banks; True if it was the beat's last (T7, T8)."""
    words = 0
    while True:
        if dma.single_piece:
            dma.byte += bus.beat_bytes - dma.byte % bus.beat_bytes
        else:
            dma.byte += bus.word_bytes
            dma.row_left -= 1
            words += 1
        run_ends = dma.byte >= dma.stop
        row_ends = dma.row_left == 0
        beat_ends = run_ends or dma.byte % bus.beat_bytes == 0
        if row_ends:
            dma.row_left = dma.row_words
        if run_ends:
            dma.segments -= 1
            dma.run += dma.stride_bytes
            dma.byte = dma.run
            dma.stop = dma.run + dma.bytes
            dma.row_left = dma.first_row_words
        if beat_ends:
            return True
        if row_ends or words == dma.piece_words:
            return False


@jit
def _step_read(bus: Bus, dma: _DMA, memory: _Memory) -> bool:
    """One cycle of a load; True in its last."""
    ask = dma.age >= 1 and dma.ask_segments > 0 and dma.outstanding < OUTSTANDING
    beat_valid = (
        memory.reads > 0 and memory.read_age[0] > bus.latency_cycles and memory.read_wait == 0
    )
    ended = False
    beat_ready = dma.beat_held == 0
    if dma.beat_held and _move_piece(bus, dma):
        beat_ready = True
        dma.beat_held = 0
        ended = dma.segments == 0
    if beat_valid and beat_ready and not ended:
        dma.beat_held = 1
        memory.read_wait = bus.interval_cycles
        memory.read_left[0] -= 1
        if memory.read_left[0] == 0:
            _shift(memory.read_age)
            _shift(memory.read_left)
            memory.reads -= 1
            dma.outstanding -= 1
    if ask:
        memory.read_age[memory.reads] = 0
        memory.read_left[memory.reads] = _next_burst(bus, dma)
        memory.reads += 1
        dma.outstanding += 1
    return ended


@jit
def _step_write(bus: Bus, dma: _DMA, memory: _Memory) -> bool:
    """One cycle of a store; True in its last."""
    ask = dma.age >= 1 and dma.ask_segments > 0 and dma.outstanding < OUTSTANDING
    responds = memory.responses > 0 and memory.response_age[0] > bus.latency_cycles
    takes = (
        dma.beat_held == 1
        and memory.writes > 0
        and memory.write_age[0] >= 1
        and memory.write_wait == 0
    )
    if takes:
        dma.beat_held = 0
        memory.write_wait = bus.interval_cycles
        memory.write_left[0] -= 1
        if memory.write_left[0] == 0:
            _shift(memory.write_age)
            _shift(memory.write_left)
            memory.writes -= 1
            memory.response_age[memory.responses] = 0
            memory.responses += 1
    if dma.age >= 2 and dma.segments > 0 and dma.beat_held == 0:
        dma.beat_held = _move_piece(bus, dma)
    if responds:
        _shift(memory.response_age)
        memory.responses -= 1
        dma.outstanding -= 1
    if ask:
        memory.write_age[memory.writes] = 0
        memory.write_left[memory.writes] = _next_burst(bus, dma)
        memory.writes += 1
        dma.outstanding += 1
    return dma.outstanding == 0 and dma.ask_segments == 0


@jit
def _step_memory(memory: _Memory) -> None:
    """Let the memory's clocks tick."""
    for i in range(OUTSTANDING):  # beyond a queue's end nobody looks
        memory.read_age[i] += 1
        memory.write_age[i] += 1
        memory.response_age[i] += 1
    memory.read_wait = max(memory.read_wait - 1, 0)
    memory.write_wait = max(memory.write_wait - 1, 0)


@jit
def _step_run(operations: Operations, times: Times, sequencer: _Sequencer, cycle: int) -> int:
    """One cycle of the engine's side (T5): IDLE, CONTROLLED or RUNNING."""
    j = sequencer.runs_done
    if sequencer.run_left > 0:
        sequencer.run_left -= 1
        if sequencer.run_left == 0:
            times.done[j] = cycle
            sequencer.runs_done += 1
        return RUNNING
    if sequencer.starting:
        sequencer.starting = 0
        sequencer.run_left = operations.run_cycles[j]
        return CONTROLLED
    if sequencer.loaded > j:
        times.configure[j] = cycle
        sequencer.starting = 1
        return CONTROLLED
    return IDLE


@jit
def _step_operation(
    bus: Bus,
    operations: Operations,
    sequencer: _Sequencer,
    dma: _DMA,
    memory: _Memory,
) -> bool:
    """One cycle of the operation that the DMA is in; True in its last."""
    kind = sequencer.operation
    if not dma.active:
        j = sequencer.current
        if kind == STORE:
            j -= 1
            if j < 0:
                return True
            if sequencer.runs_done <= j:
                return False
        if not _begin(bus, operations, dma, j, kind):
            return True
    ended = _step_write(bus, dma, memory) if kind == STORE else _step_read(bus, dma, memory)
    dma.age += 1
    if ended:
        dma.active = 0
    return ended


@jit
def _next_operation(operations: Operations, sequencer: _Sequencer) -> None:
    """Move on to the operation that follows (T4)."""
    j, kind = sequencer.current, sequencer.operation
    order = operations.order[j]
    following = kind + 1
    if kind == STORE:
        following = (DESCRIPTOR, ACTIVATIONS, WEIGHTS)[order]
    elif kind == SECOND:
        following = (STORE, DESCRIPTOR, DESCRIPTOR)[order]
    elif (order == 1 and kind == WEIGHTS) or (order == 2 and kind == DESCRIPTOR):
        following = STORE
    sequencer.operation = following
    if following == DESCRIPTOR:
        sequencer.current += 1
        if sequencer.current == operations.layer.size:
            sequencer.operation = STORE


@jit
def step_schedule(bus: Bus, operations: Operations, times: Times) -> None:
    """Fill `times` (zeros) cycle by cycle."""
    passes = operations.layer.size
    memory = np.zeros(1, dtype=MEMORY_REGISTERS)[0]
    dma = np.zeros(1, dtype=DMA_REGISTERS)[0]
    sequencer = np.zeros(1, dtype=SEQUENCER_REGISTERS)[0]
    cycle = 0
    begins = True
    while sequencer.stored < passes:
        cycle += 1
        j, kind = sequencer.current, sequencer.operation
        moved = j - 1 if kind == STORE else j
        layer = operations.layer[sequencer.stored]
        if begins and moved >= 0:
            times.start[moved, kind] = cycle
        begins = _step_operation(bus, operations, sequencer, dma, memory)
        running = _step_run(operations, times, sequencer, cycle)
        _step_memory(memory)
        if running == CONTROLLED:
            times.causes[layer, CONTROL] += 1
        elif running == IDLE:
            cause = min(kind + 1, 3) if kind != STORE else STALL_OUTPUTS
            times.causes[layer, cause] += 1
        if begins:
            if moved >= 0:
                times.end[moved, kind] = cycle
            if kind == STORE and moved >= 0:
                sequencer.stored += 1
                times.layer_end[layer] = cycle
            if kind == SECOND:
                sequencer.loaded += 1
            if sequencer.stored < passes:
                _next_operation(operations, sequencer)
