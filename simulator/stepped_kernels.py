"""One cycle of the accelerator, register by register (docs/microarchitecture.md, sections 4 to 8).

Registers live in NamedTuples of int64 arrays, named as in the document; one-element arrays stand
for single registers. A step function reads the registers as they are at the beginning of the cycle,
and leaves them as they are at its end. All of this file runs compiled, and each function can be
called for one cycle from Python. No arithmetic is shared with `golden` or `simulator.kernels`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator._jit import jit

IntArray = NDArray[np.int64]

MAC, SHIFT_ADD, TERNARY = 0, 1, 2
DOUBLE, SINGLE, MULTIPLIER16, SHIFT_HALF_UP, SHIFT_HALF_EVEN = 0, 1, 2, 3, 4
FILL, COMPUTE, DRAIN, STALL_FEED = 0, 1, 2, 3

SEEN = ("steps", "exact", "minimum", "maximum", "first_step", "events")
STEPS, EXACT, MINIMUM, MAXIMUM, FIRST_STEP, EVENTS = range(6)
"""What only a model can see of an output: its steps, an accumulator without width, the extremes of
its prefixes, the step (from 0) of the first overflow event (-1: none; a spill belongs to the step
it follows), and the number of events without a maximum."""

COUNTERS = (
    "fill",
    "compute",
    "drain",
    "stall_feed",
    "steps",
    "entries",
    "window_words",
    "feed_words",
    "parameter_reads",
    "output_codes",
    "transformed_words",
    "summed_results",
    "overflow_events",
    "overflow_outputs",
)
"""Counters of a run: cycles by cause (E5), events, and the overflow counters (D4)."""
(
    COUNT_STEPS,
    COUNT_ENTRIES,
    COUNT_WINDOW_WORDS,
    COUNT_FEED_WORDS,
    COUNT_PARAMETER_READS,
    COUNT_OUTPUT_CODES,
    COUNT_TRANSFORMED_WORDS,
    COUNT_SUMMED_RESULTS,
    COUNT_OVERFLOW_EVENTS,
    COUNT_OVERFLOW_OUTPUTS,
) = range(4, 14)

# -- array and PEs: registers and signals ----------------------------------------------------------


class ArrayConfig(NamedTuple):
    """Parameters of the array; R, C, F, D and the P rules' widths."""

    rows: int
    cols: int
    feed: int
    depth: int
    kind: int  # MAC, SHIFT_ADD or TERNARY
    terms: int
    weight_bits: int  # of a mac's code
    acc_bits: int
    saturate: bool
    spill_interval: int
    wide_acc_bits: int
    events_max: int


class PERegisters(NamedTuple):
    """Registers of all PEs, each (R, C) (section 5)."""

    x: IntArray
    code: IntArray
    step: IntArray
    clear: IntArray
    acc: IntArray
    overflow: IntArray
    events: IntArray
    wide: IntArray
    spill_count: IntArray  # `count` in the document, which every tuple has already
    result: IntArray
    result_overflow: IntArray
    result_events: IntArray


class ArrayRegisters(NamedTuple):
    """Registers of the array (section 4)."""

    n: IntArray  # (1,)
    word: IntArray  # (D, R, F), word 0 the oldest; from n on, what the shifting left there
    offset: IntArray  # (C,)
    done: IntArray  # (C,)
    handoff: IntArray  # (1,)
    pe: PERegisters
    seen: IntArray  # (6, R, C) by SEEN; no hardware
    result_seen: IntArray  # the same of the output in the shadow registers


class ArrayInputs(NamedTuple):
    """Signals into the array in one cycle."""

    feed_valid: IntArray  # (1,)
    feed_data: IntArray  # (R, F)
    entry_valid: IntArray  # (C,)
    last: IntArray  # (C,)
    advance: IntArray  # (C,)
    lane: IntArray  # (C,)
    code: IntArray  # (C,)
    handoff_ready: IntArray  # (1,)
    drain: IntArray  # (1,) cfg_drain
    flush: IntArray  # (1,)


class ArrayOutputs(NamedTuple):
    """Signals out of the array in the same cycle."""

    feed_ready: IntArray  # (1,)
    entry_ready: IntArray  # (C,)
    issue: IntArray  # (C,)
    release: IntArray  # (1,)
    fire: IntArray  # (1,)


# -- array and PEs: one cycle ----------------------------------------------------------------------


@jit
def signed(value: int, bits: int) -> int:
    """Read the low `bits` bits as two's complement."""
    sign = 1 << (bits - 1)
    return ((value & ((sign << 1) - 1)) ^ sign) - sign


@jit
def fits(value: int, bits: int) -> bool:
    """Whether `bits` bits hold the value."""
    return -(1 << (bits - 1)) <= value < 1 << (bits - 1)


@jit
def confine(value: int, bits: int, saturate: bool) -> int:
    """Wrap or saturate to `bits` bits (P2)."""
    if not saturate:
        return signed(value, bits)
    high = (1 << (bits - 1)) - 1
    return min(max(value, -high - 1), high)


@jit
def addend(config: ArrayConfig, x: int, code: int) -> int:
    """Decode what one step adds (S2)."""
    if config.kind == MAC:
        return x * signed(code, config.weight_bits)
    if config.kind == TERNARY:
        return x * signed(code, 2)
    total = 0
    for term in range(config.terms):
        group = (code >> (6 * term)) & 63
        if group & 32:
            shifted = x << (group & 15)
            total += -shifted if group & 16 else shifted
    return total


@jit
def record_event(config: ArrayConfig, pe: PERegisters, seen: IntArray, r: int, c: int) -> None:
    """Count one overflow event (P3)."""
    pe.overflow[r, c] = 1
    pe.events[r, c] = min(pe.events[r, c] + 1, config.events_max)
    seen[EVENTS, r, c] += 1


@jit
def hand_over(
    config: ArrayConfig, pe: PERegisters, seen: IntArray, result_seen: IntArray, r: int, c: int
) -> None:
    """Move an output to the shadow registers and begin again (P4, P5)."""
    total = pe.acc[r, c]
    if config.spill_interval > 0:
        total += pe.wide[r, c]
        if not fits(total, config.wide_acc_bits):
            record_event(config, pe, seen, r, c)
            if seen[FIRST_STEP, r, c] < 0:
                seen[FIRST_STEP, r, c] = seen[STEPS, r, c] - 1
        total = confine(total, config.wide_acc_bits, config.saturate)
    pe.result[r, c] = total
    pe.result_overflow[r, c] = pe.overflow[r, c]
    pe.result_events[r, c] = pe.events[r, c]
    pe.acc[r, c] = 0
    pe.overflow[r, c] = 0
    pe.events[r, c] = 0
    pe.wide[r, c] = 0
    pe.spill_count[r, c] = 0

    for field in range(len(seen)):
        result_seen[field, r, c] = seen[field, r, c]
        seen[field, r, c] = -1 if field == FIRST_STEP else 0


@jit
def accumulate(config: ArrayConfig, pe: PERegisters, seen: IntArray, r: int, c: int) -> None:
    """Do one step (P2, P3, P5)."""
    base = pe.acc[r, c]
    if config.spill_interval > 0:
        if pe.spill_count[r, c] == config.spill_interval:
            spilled = pe.wide[r, c] + base
            if not fits(spilled, config.wide_acc_bits):
                record_event(config, pe, seen, r, c)
                if seen[FIRST_STEP, r, c] < 0:
                    seen[FIRST_STEP, r, c] = seen[STEPS, r, c] - 1
            pe.wide[r, c] = confine(spilled, config.wide_acc_bits, config.saturate)
            base = 0
            pe.spill_count[r, c] = 0
        pe.spill_count[r, c] += 1
    added = addend(config, pe.x[r, c], pe.code[r, c])
    total = base + added
    if not fits(total, config.acc_bits):
        record_event(config, pe, seen, r, c)
        if seen[FIRST_STEP, r, c] < 0:
            seen[FIRST_STEP, r, c] = seen[STEPS, r, c]
    pe.acc[r, c] = confine(total, config.acc_bits, config.saturate)

    seen[STEPS, r, c] += 1
    seen[EXACT, r, c] += added
    seen[MINIMUM, r, c] = min(seen[MINIMUM, r, c], seen[EXACT, r, c])
    seen[MAXIMUM, r, c] = max(seen[MAXIMUM, r, c], seen[EXACT, r, c])


@jit
def step_array(
    config: ArrayConfig, state: ArrayRegisters, inputs: ArrayInputs, outputs: ArrayOutputs
) -> None:
    """One cycle of the array: fills `outputs`, moves `state` on (A1 to A6, P1 to P5).

    `flush` empties the window and restarts the columns at the end of the cycle; whatever else
    happens in that cycle happens.
    """
    n, pe = state.n[0], state.pe

    all_past = n > 0
    all_done = True
    for c in range(config.cols):
        outputs.entry_ready[c] = state.offset[c] < n and not state.done[c]
        outputs.issue[c] = outputs.entry_ready[c] and inputs.entry_valid[c]  # A1
        moved = state.offset[c] + inputs.advance[c] * outputs.issue[c]
        all_past = all_past and moved > 0
        all_done = all_done and (state.done[c] or (outputs.issue[c] and inputs.last[c]))
    release = 1 if all_past else 0  # A3
    fire = 1 if all_done and inputs.handoff_ready[0] else 0  # A5
    outputs.release[0] = release
    outputs.fire[0] = fire
    outputs.feed_ready[0] = n - release < config.depth  # A4

    for r in range(config.rows):
        for c in range(config.cols):
            if pe.clear[r, c]:
                hand_over(config, pe, state.seen, state.result_seen, r, c)
            if pe.step[r, c]:
                accumulate(config, pe, state.seen, r, c)

    for c in range(config.cols):  # A6, P1
        for r in range(config.rows):
            pe.clear[r, c] = state.handoff[0]
            pe.step[r, c] = outputs.issue[c] and inputs.code[c] != 0
            if outputs.issue[c]:
                pe.x[r, c] = state.word[state.offset[c], r, inputs.lane[c]]
                pe.code[r, c] = inputs.code[c]

    for c in range(config.cols):  # A2, A3
        if outputs.issue[c]:
            state.offset[c] += inputs.advance[c]
            state.done[c] |= inputs.last[c]
        state.offset[c] -= release
    load = inputs.feed_valid[0] and outputs.feed_ready[0]  # A4
    state.n[0] = n - release + (1 if load else 0)
    for r in range(config.rows):
        for lane in range(config.feed):
            if release:
                for d in range(config.depth - 1):
                    state.word[d, r, lane] = state.word[d + 1, r, lane]
            if load:
                state.word[n - release, r, lane] = inputs.feed_data[r, lane]
    if fire:
        state.done[:] = 0
    state.handoff[0] = fire and inputs.drain[0]  # A5, E4
    if inputs.flush[0]:
        state.n[0] = 0
        state.offset[:] = 0
        state.done[:] = 0


# -- requantization --------------------------------------------------------------------------------


@jit
def halve_away(value: int, bits: int) -> int:
    """Divide by 2**bits and round half away from zero."""
    if bits == 0:
        return value
    magnitude = (abs(value) + (1 << (bits - 1))) >> bits
    return -magnitude if value < 0 else magnitude


@jit
def halve_up(value: int, bits: int) -> int:
    """Divide by 2**bits and round half up."""
    if bits == 0:
        return value
    return (value >> bits) + ((value >> (bits - 1)) & 1)


@jit
def halve_even(value: int, bits: int) -> int:
    """Divide by 2**bits and round half to even."""
    if bits == 0:
        return value
    quotient = value >> bits
    rest = value - (quotient << bits)
    half = 1 << (bits - 1)
    return quotient + (1 if rest > half or (rest == half and quotient & 1) else 0)


@jit
def requantize(biased: int, multiplier: int, shift: int, rounding: int) -> int:
    """Bring accumulator plus bias to the output scale (`golden.network.Rounding`)."""
    left, right = max(shift, 0), max(-shift, 0)
    if rounding == DOUBLE:
        x = signed(signed(biased, 32) << left, 32)
        product = x * multiplier
        if product == 1 << 62:  # -2**31 squared, the one that does not fit
            return halve_away((1 << 31) - 1, right)
        return halve_away(halve_up(product, 31), right)
    if rounding == SINGLE:
        return halve_up(signed(biased, 32) * multiplier, 31 - shift)
    if rounding == MULTIPLIER16:
        high = halve_up(multiplier, 16) if multiplier < 0x7FFF0000 else 0x7FFF
        return signed(halve_up(biased * high, 15 - shift), 32)
    if rounding == SHIFT_HALF_UP:
        return halve_up(biased << left, right)
    return halve_even(biased << left, right)


# -- engine: registers -----------------------------------------------------------------------------


class EngineConfig(NamedTuple):
    """Configuration of one run, stable until `done` (E1)."""

    array: ArrayConfig
    lanes: int  # Q
    height: int
    width: int
    in_words: int
    out_height: int
    out_width: int
    out_channels: int
    out_words: int
    pitch: int
    stride_y: int
    stride_x: int
    pad_top: int
    pad_left: int
    input_zero_point: int
    pixel_first: int  # pixel tiles of the layer
    pixel_stop: int
    channel_first: int  # channel tile of the layer that is the run's 0
    channel_tiles: int
    drain: int  # cfg_drain
    post_bits: int
    rounding: int
    output_zero_point: int
    activation_min: int
    activation_max: int
    side: int  # n of a Winograd form (rules W), 0 for a direct convolution
    outputs: int  # m, or 1
    chunk_words: int
    parts: int  # of a tile (W4), or 1
    result_bits: int  # P
    shift: int  # t
    inverse: int  # of the odd part, modulo 2**(P - t)
    input_matrix: IntArray  # (n, n) B^T
    output_matrix: IntArray  # (m, n) A^T


class Memories(NamedTuple):
    """Contents of all memories (section 2), as `simulator.program` lays them out."""

    feed_last: IntArray
    feed_addr: IntArray
    feed_rot: IntArray
    feed_dy: IntArray
    feed_dx: IntArray
    feed_start: IntArray
    entry_last: NDArray[np.uint8]
    entry_advance: NDArray[np.uint8]
    entry_lane: NDArray[np.uint8]
    entry_code: NDArray[np.int32]
    entry_start: IntArray
    activation: IntArray  # (R, bank_words, F)
    bias: IntArray
    multiplier: IntArray
    shift: IntArray
    output: IntArray  # (R, out_bank_words, F), written


class FeederRegisters(NamedTuple):
    """Feeder (F rules); the address registers point at the word to be read next."""

    f1_valid: IntArray  # (1,)
    f1_word: IntArray  # (1,) address that gave the memory's output
    f1_pixel_tile: IntArray  # (1,)
    f2_valid: IntArray  # (1,)
    f2_bank: IntArray  # (R, F) output registers of the activation banks
    f2_rot: IntArray  # (1,)
    f2_mask: IntArray  # (R,)
    next_word: IntArray  # (1,)
    next_pixel_tile: IntArray  # (1,)
    next_channel_tile: IntArray  # (1,) of the run; channel_tiles when nothing is left


class TransformRegisters(NamedTuple):
    """Input transform (W1 to W3); its pipeline is a patch and the cycle in which it ends."""

    patch: IntArray  # (n, n, R, F)
    place: IntArray  # (3,) row and column of the next word, word of the chunk
    left: IntArray  # (2,) words of the tile that are not yet accepted, not yet read out
    chunks: IntArray  # (1,) begun and not read out
    half: IntArray  # (2, words, R, F)
    stored: IntArray  # (2,) cycle in which the half is complete, -1 where it is not
    in_half: IntArray  # (1,)
    out_half: IntArray  # (1,)
    out_word: IntArray  # (1,) of the half, read next
    valid: IntArray  # (1,)
    word: IntArray  # (R, F) the memory's output register


class StreamRegisters(NamedTuple):
    """Stream memories' output registers (E2), each (C,)."""

    entry_valid: IntArray
    entry: IntArray  # address that gave the memory's output
    part: IntArray  # of the tile (W4)
    pixel_tile: IntArray
    channel_tile: IntArray  # of the run; channel_tiles when nothing is left


class DrainRegisters(NamedTuple):
    """Drain and post-processor (D rules)."""

    part: IntArray  # (1,) of the tile, that fires next (W4)
    pixel_tile: IntArray  # (1,) of the tile that fires next
    channel_tile: IntArray  # (1,) the same, of the run
    counter: IntArray  # (1,) of D1
    fired: IntArray  # (2, 4) fires of the last two cycles: {valid, pixel tile, channel tile, part}
    reading: IntArray  # (1,) results are read this cycle
    read_index: IntArray  # (1,) 0 .. N - 1
    phase: IntArray  # (1,) output of the result that is read (W5)
    tile: IntArray  # (3,) {pixel tile, channel tile, part} of the read
    sums: IntArray  # (R, C, m, m) of the output transform (W5)
    late_valid: IntArray  # (3,) outputs on their way to the post-processor
    late_value: IntArray  # (3, Q)
    late_place: IntArray  # (3, 4)
    post_valid: IntArray  # (4,) stages u+1 .. u+4 of D3
    post_value: IntArray  # (4, Q)
    post_place: IntArray  # (4, 4) {pixel tile, first row, channel, output of the tile}


class EngineRegisters(NamedTuple):
    """Everything that one run of the engine changes."""

    busy: IntArray  # (1,)
    cycle: IntArray  # (1,) number of the latest cycle (E1)
    done: IntArray  # (1,) `done` was high in the latest cycle
    array: ArrayRegisters
    feeder: FeederRegisters
    transform: TransformRegisters
    streams: StreamRegisters
    drain: DrainRegisters
    counters: IntArray  # by COUNTERS
    inputs: ArrayInputs  # signals of the latest cycle
    outputs: ArrayOutputs


# -- engine: one cycle -----------------------------------------------------------------------------


@jit
def is_pixel(config: EngineConfig, pixel_tile: int, row: int) -> bool:
    """Whether a row of a tile owns an output pixel (M1)."""
    index = pixel_tile * config.array.rows + row
    return index // config.pitch < config.out_height and index % config.pitch < config.out_width


@jit
def columns_used(config: EngineConfig, channel_tile: int) -> int:
    """Output channels of a channel tile of the run."""
    first = (config.channel_first + channel_tile) * config.array.cols
    return min(config.array.cols, config.out_channels - first)


@jit
def results_cycles(config: EngineConfig, channel_tile: int) -> int:
    """N of D1."""
    return columns_used(config, channel_tile) * (config.array.rows // config.lanes)


@jit
def handoff_cycles(config: EngineConfig, channel_tile: int, part: int) -> int:
    """Cycles from a fire to the next one at the earliest (D1, W5)."""
    results = results_cycles(config, channel_tile)
    if config.side == 0:
        return results
    return results * config.outputs**2 if part == config.parts - 1 else max(results, 2)


@jit
def read_next_feed_word(
    config: EngineConfig, memories: Memories, feeder: FeederRegisters, counters: IntArray
) -> None:
    """Stage 1 reads the feed memory, if any word is left (F1, F2, F5)."""
    tile = feeder.next_channel_tile[0]
    feeder.f1_valid[0] = 1 if tile < config.channel_tiles else 0
    if not feeder.f1_valid[0]:
        return
    word = feeder.next_word[0]
    feeder.f1_word[0] = word
    feeder.f1_pixel_tile[0] = feeder.next_pixel_tile[0]
    counters[COUNT_FEED_WORDS] += 1
    if not memories.feed_last[word]:
        feeder.next_word[0] = word + 1
        return
    feeder.next_pixel_tile[0] += 1
    if feeder.next_pixel_tile[0] == config.pixel_stop:
        feeder.next_pixel_tile[0] = config.pixel_first
        tile += 1
        feeder.next_channel_tile[0] = tile
    feeder.next_word[0] = memories.feed_start[tile]


@jit
def read_activation_banks(
    config: EngineConfig, memories: Memories, feeder: FeederRegisters
) -> None:
    """Stage 2 takes the word of stage 1 (F2, F3, F4)."""
    word, pixel_tile = feeder.f1_word[0], feeder.f1_pixel_tile[0]
    rows, bank_words = config.array.rows, memories.activation.shape[1]
    rot = memories.feed_rot[word]
    feeder.f2_rot[0] = rot
    for b in range(rows):
        address = pixel_tile * config.in_words + memories.feed_addr[word]
        if b < rot:
            address += config.in_words
        if 0 <= address < bank_words:  # elsewhere every row that reads this bank is masked
            for lane in range(config.array.feed):
                feeder.f2_bank[b, lane] = memories.activation[b, address, lane]
    for r in range(rows):
        oy, ox = divmod(pixel_tile * rows + r, config.pitch)
        iy = oy * config.stride_y - config.pad_top + memories.feed_dy[word]
        ix = ox * config.stride_x - config.pad_left + memories.feed_dx[word]
        inside = 0 <= iy < config.height and 0 <= ix < config.width
        feeder.f2_mask[r] = inside and is_pixel(config, pixel_tile, r)


@jit
def drive_array(
    config: EngineConfig,
    memories: Memories,
    feeder: FeederRegisters,
    transform: TransformRegisters,
    streams: StreamRegisters,
    inputs: ArrayInputs,
) -> None:
    """Signals of feeder, or transform, and streams to the array in this cycle (F3, F4, E2, W3)."""
    inputs.feed_valid[0] = transform.valid[0] if config.side else feeder.f2_valid[0]
    for r in range(config.array.rows):
        for lane in range(config.array.feed):
            if config.side:
                inputs.feed_data[r, lane] = transform.word[r, lane]
            else:
                inputs.feed_data[r, lane] = fed_operand(config, feeder, r, lane)
    for c in range(config.array.cols):
        inputs.entry_valid[c] = streams.entry_valid[c]
        if streams.entry_valid[c]:
            entry = streams.entry[c]
            inputs.last[c] = memories.entry_last[entry]
            inputs.advance[c] = memories.entry_advance[entry]
            inputs.lane[c] = memories.entry_lane[entry]
            inputs.code[c] = memories.entry_code[entry]


@jit
def fed_operand(config: EngineConfig, feeder: FeederRegisters, row: int, lane: int) -> int:
    """Operand at the feeder's output (F3, F4)."""
    bank = (row + feeder.f2_rot[0]) % config.array.rows
    operand = feeder.f2_bank[bank, lane] - config.input_zero_point
    return operand if feeder.f2_mask[row] else 0


@jit
def step_transform(
    config: EngineConfig,
    feeder: FeederRegisters,
    transform: TransformRegisters,
    cycle: int,
    loaded: bool,
    counters: IntArray,
) -> bool:
    """One cycle of the input transform (W1 to W3); whether the feeder's word is accepted.

    `loaded` tells whether the array takes the word at the output.
    """
    row, column, word = transform.place
    begins = row == 0 and column == 0 and word == 0
    ready = not begins or transform.chunks[0] < 2
    accepted = ready and feeder.f2_valid[0] == 1
    freed = read_transformed(config, transform, cycle, loaded)
    if accepted:
        counters[COUNT_TRANSFORMED_WORDS] += 1
        transform.chunks[0] += begins
        for r in range(config.array.rows):
            for lane in range(config.array.feed):
                transform.patch[row, column, r, lane] = fed_operand(config, feeder, r, lane)
        accept_patch_word(config, transform, cycle)
    transform.chunks[0] -= freed
    return ready


@jit
def accept_patch_word(config: EngineConfig, transform: TransformRegisters, cycle: int) -> None:
    """Go on to the next place; at the end of a patch its transform goes to the half (W2)."""
    side = config.side
    transform.place[1] += 1
    if transform.place[1] < side:
        return
    transform.place[1] = 0
    transform.place[0] += 1
    if transform.place[0] < side:
        return
    transform.place[0] = 0
    half, word = transform.in_half[0], transform.place[2]
    length = min(config.chunk_words, transform.left[0])
    matrix = config.input_matrix
    for r in range(config.array.rows):
        for lane in range(config.array.feed):
            for k in range(side):
                for tap in range(side):
                    total = 0
                    for i in range(side):
                        for j in range(side):
                            factor = matrix[k, i] * matrix[tap, j]
                            total += factor * transform.patch[i, j, r, lane]
                    transform.half[half, (k * side + tap) * length + word, r, lane] = total
    transform.place[2] += 1
    if transform.place[2] < length:
        return
    transform.place[2] = 0
    transform.stored[half] = cycle + side * side + 2 * side + 1
    transform.in_half[0] = 1 - half
    transform.left[0] -= length
    if transform.left[0] == 0:
        transform.left[0] = config.in_words


@jit
def read_transformed(
    config: EngineConfig, transform: TransformRegisters, cycle: int, loaded: bool
) -> int:
    """Read the next transformed word (W3); 1 where it is the last of its chunk."""
    half = transform.out_half[0]
    complete = 0 <= transform.stored[half] < cycle
    if loaded:
        transform.valid[0] = 0
    if transform.valid[0] or not complete:
        return 0
    transform.valid[0] = 1
    word = transform.out_word[0]
    for r in range(config.array.rows):
        for lane in range(config.array.feed):
            transform.word[r, lane] = transform.half[half, word, r, lane]
    transform.out_word[0] += 1
    length = min(config.chunk_words, transform.left[1])
    if transform.out_word[0] < config.side**2 * length:
        return 0
    transform.out_word[0] = 0
    transform.out_half[0] = 1 - half
    transform.stored[half] = -1
    transform.left[1] -= length
    if transform.left[1] == 0:
        transform.left[1] = config.in_words
    return 1


@jit
def step_streams(
    config: EngineConfig,
    memories: Memories,
    streams: StreamRegisters,
    issue: IntArray,
    cycle: int,
    counters: IntArray,
) -> None:
    """Columns that issue read their next entry, in cycle 1 all read their first (E1, E2, S5)."""
    for c in range(config.array.cols):
        if issue[c]:
            if memories.entry_code[streams.entry[c]]:
                for r in range(config.array.rows):
                    counters[COUNT_STEPS] += is_pixel(config, streams.pixel_tile[c], r)
            part_end = memories.entry_last[streams.entry[c]]
            streams.part[c] += part_end
            if streams.part[c] == config.parts:
                streams.part[c] = 0
                streams.pixel_tile[c] += 1
                if streams.pixel_tile[c] == config.pixel_stop:
                    streams.pixel_tile[c] = config.pixel_first
                    streams.channel_tile[c] += 1
                streams.entry[c] = memories.entry_start[c, streams.channel_tile[c]]
            else:
                streams.entry[c] += 1
        elif cycle > 1:
            continue
        streams.entry_valid[c] = streams.channel_tile[c] < config.channel_tiles
        counters[COUNT_ENTRIES] += streams.entry_valid[c]


@jit
def read_results(
    config: EngineConfig,
    drain: DrainRegisters,
    pe: PERegisters,
    seen: IntArray,
    records: IntArray,
    counters: IntArray,
) -> None:
    """Read Q results from the shadow registers (D2, D3 cycle u, D4, W5)."""
    groups = config.array.rows // config.lanes
    column, group = divmod(drain.read_index[0], groups)
    pixel_tile, part = drain.tile[0], drain.tile[2]
    channel = (config.channel_first + drain.tile[1]) * config.array.cols + column
    first_row = group * config.lanes
    if config.side == 0:
        for q in range(config.lanes):
            drain.post_value[0, q] = pe.result[first_row + q, column]
        enter_post_processor(drain, pixel_tile, first_row, channel, 0, counters)
    else:
        if drain.phase[0] == 0:
            counters[COUNT_SUMMED_RESULTS] += 1
            for q in range(config.lanes):
                sum_result(config, drain, pe, first_row + q, column, part)
        if part == config.parts - 1:
            drain.late_valid[0] = 1
            place = (pixel_tile, first_row, channel, drain.phase[0])
            for i in range(4):
                drain.late_place[0, i] = place[i]
            i, j = divmod(drain.phase[0], config.outputs)
            for q in range(config.lanes):
                total = drain.sums[first_row + q, column, i, j]
                drain.late_value[0, q] = divided(config, total)
    if drain.phase[0] > 0:
        return
    channel += part * config.out_channels  # where the model keeps what it saw of the part
    for q in range(config.lanes):
        r = first_row + q
        if is_pixel(config, pixel_tile, r):
            counters[COUNT_OVERFLOW_EVENTS] += pe.result_events[r, column]
            counters[COUNT_OVERFLOW_OUTPUTS] += pe.result_overflow[r, column]
            oy, ox = divmod(pixel_tile * config.array.rows + r, config.pitch)
            for field in range(len(seen)):
                records[field, oy, ox, channel] = seen[field, r, column]
            records[len(seen), oy, ox, channel] = pe.result[r, column]


@jit
def enter_post_processor(
    drain: DrainRegisters,
    pixel_tile: int,
    first_row: int,
    channel: int,
    output: int,
    counters: IntArray,
) -> None:
    """Cycle u of D3 for the results in stage 0."""
    drain.post_valid[0] = 1
    place = (pixel_tile, first_row, channel, output)
    for i in range(4):
        drain.post_place[0, i] = place[i]
    counters[COUNT_PARAMETER_READS] += 1


@jit
def sum_result(
    config: EngineConfig, drain: DrainRegisters, pe: PERegisters, row: int, column: int, part: int
) -> None:
    """Add a result to the outputs of its tile, modulo 2**P (W5, W9)."""
    k, tap = divmod(part % config.side**2, config.side)
    matrix = config.output_matrix
    for i in range(config.outputs):
        for j in range(config.outputs):
            before = drain.sums[row, column, i, j] if part > 0 else 0
            factor = matrix[i, k] * matrix[j, tap]
            total = before + factor * pe.result[row, column]
            drain.sums[row, column, i, j] = signed(total, config.result_bits)


@jit
def divided(config: EngineConfig, total: int) -> int:
    """Divide exactly: shift, and multiply by the inverse of the odd part (W5)."""
    kept = config.result_bits - config.shift
    return signed(signed(total >> config.shift, kept) * config.inverse, kept)


@jit
def step_output_transform(config: EngineConfig, drain: DrainRegisters, counters: IntArray) -> None:
    """Move outputs on towards the post-processor (W5: 3 cycles)."""
    if drain.late_valid[2]:
        for q in range(config.lanes):
            drain.post_value[0, q] = drain.late_value[2, q]
        place = drain.late_place[2]
        enter_post_processor(drain, place[0], place[1], place[2], place[3], counters)
    for stage in range(2, 0, -1):
        drain.late_valid[stage] = drain.late_valid[stage - 1]
        for q in range(config.lanes):
            drain.late_value[stage, q] = drain.late_value[stage - 1, q]
        for i in range(4):
            drain.late_place[stage, i] = drain.late_place[stage - 1, i]
    drain.late_valid[0] = 0


@jit
def write_outputs(
    config: EngineConfig, drain: DrainRegisters, output: IntArray, counters: IntArray
) -> None:
    """Write Q codes to the output memory (D3 cycle u + 4, M6)."""
    place = drain.post_place[3]
    pixel_tile, first_row, channel = place[0], place[1], place[2]
    tile_outputs = config.outputs**2
    word, lane = divmod(channel, config.array.feed)
    for q in range(config.lanes):
        if is_pixel(config, pixel_tile, first_row + q):
            line = pixel_tile * tile_outputs + place[3]
            address = line * config.out_words + word
            output[first_row + q, address, lane] = drain.post_value[3, q]
            counters[COUNT_OUTPUT_CODES] += 1


@jit
def step_post_processor(
    config: EngineConfig, memories: Memories, drain: DrainRegisters, counters: IntArray
) -> None:
    """Move the post-processor on by a stage (D3)."""
    if drain.post_valid[3]:
        write_outputs(config, drain, memories.output, counters)
    for stage in range(3, 0, -1):  # into u+4 rounded, into u+3 multiplied, into u+2 biased
        drain.post_valid[stage] = drain.post_valid[stage - 1]
        for i in range(4):
            drain.post_place[stage, i] = drain.post_place[stage - 1, i]
        channel = drain.post_place[stage, 2]
        for q in range(config.lanes):
            value = drain.post_value[stage - 1, q]
            if stage == 1:
                value = signed_post(value + memories.bias[channel], config.post_bits)
            elif stage == 3:  # the model multiplies where it rounds
                value = config.output_zero_point + requantize(
                    value, memories.multiplier[channel], memories.shift[channel], config.rounding
                )
                value = min(max(value, config.activation_min), config.activation_max)
            drain.post_value[stage, q] = value
    drain.post_valid[0] = 0


@jit
def signed_post(value: int, bits: int) -> int:
    """Wrap to POST_W bits; int64 itself wraps at 64."""
    return value if bits == 64 else signed(value, bits)


@jit
def step_drain(
    config: EngineConfig,
    drain: DrainRegisters,
    pe: PERegisters,
    seen: IntArray,
    records: IntArray,
    counters: IntArray,
) -> None:
    """Read results, before the PEs change the shadow registers (D2)."""
    if drain.reading[0]:
        read_results(config, drain, pe, seen, records, counters)
        drain.phase[0] += 1
        last_part = drain.tile[2] == config.parts - 1
        if drain.phase[0] == (config.outputs**2 if last_part else 1):
            drain.phase[0] = 0
            drain.read_index[0] += 1
        if drain.read_index[0] == results_cycles(config, drain.tile[1]):
            drain.reading[0] = 0
    if drain.fired[1, 0]:  # fire in t, handoff in t+1, clear in t+2, reads from t+3
        drain.reading[0] = 1
        drain.read_index[0] = 0
        for i in range(3):
            drain.tile[i] = drain.fired[1, i + 1]


@jit
def step_handoff(config: EngineConfig, drain: DrainRegisters, fire: int) -> None:
    """Take a fire, and count the cycles to the next (D1)."""
    for i in range(4):
        drain.fired[1, i] = drain.fired[0, i]
    drain.fired[0, 0] = fire and config.drain
    drain.fired[0, 1] = drain.pixel_tile[0]
    drain.fired[0, 2] = drain.channel_tile[0]
    drain.fired[0, 3] = drain.part[0]
    if drain.counter[0] > 0:
        drain.counter[0] -= 1
    if fire:
        if config.drain:
            drain.counter[0] = handoff_cycles(config, drain.channel_tile[0], drain.part[0]) - 1
        drain.part[0] += 1
        if drain.part[0] < config.parts:
            return
        drain.part[0] = 0
        drain.pixel_tile[0] += 1
        if drain.pixel_tile[0] == config.pixel_stop:
            drain.pixel_tile[0] = config.pixel_first
            drain.channel_tile[0] += 1


@jit
def is_done(config: EngineConfig, drain: DrainRegisters) -> bool:
    """After the last fire nothing is on its way to the output memory (E3, E4)."""
    return (
        drain.channel_tile[0] == config.channel_tiles
        and not drain.fired[0, 0]
        and not drain.fired[1, 0]
        and not drain.reading[0]
        and not drain.late_valid.any()
        and not drain.post_valid.any()
    )


@jit
def cause_of_cycle(cycle: int, any_issue: bool, columns_done: bool, all_fired: bool) -> int:
    """Say why this cycle was spent (E5); `columns_done`, `all_fired` as at its beginning."""
    if cycle <= 3:
        return FILL
    if any_issue:
        return COMPUTE
    if columns_done or all_fired:
        return DRAIN
    return STALL_FEED


@jit
def step_engine(
    config: EngineConfig, memories: Memories, state: EngineRegisters, records: IntArray
) -> None:
    """One cycle of a busy engine (all rules of sections 4 to 8).

    `records` (7, out_height, out_width, out_channels) takes what the drain reads, by SEEN, and the
    results last; no hardware.
    """
    array, feeder, transform = state.array, state.feeder, state.transform
    streams, drain = state.streams, state.drain
    inputs, outputs, counters = state.inputs, state.outputs, state.counters
    state.cycle[0] += 1
    state.done[0] = is_done(config, drain)
    columns_done = bool(array.done.all())
    all_fired = drain.channel_tile[0] == config.channel_tiles

    drive_array(config, memories, feeder, transform, streams, inputs)
    inputs.handoff_ready[0] = drain.counter[0] == 0  # D1
    inputs.drain[0] = config.drain
    step_post_processor(config, memories, drain, counters)
    step_output_transform(config, drain, counters)
    step_drain(config, drain, array.pe, array.result_seen, records, counters)
    step_array(config.array, array, inputs, outputs)
    any_issue = bool(outputs.issue.any())
    counters[cause_of_cycle(state.cycle[0], any_issue, columns_done, all_fired)] += 1

    ready = outputs.feed_ready[0] == 1
    counters[COUNT_WINDOW_WORDS] += ready and inputs.feed_valid[0] == 1
    if config.side:
        loaded = ready and inputs.feed_valid[0] == 1
        ready = step_transform(config, feeder, transform, state.cycle[0], loaded, counters)
    if not feeder.f2_valid[0] or ready:  # F2
        feeder.f2_valid[0] = feeder.f1_valid[0]
        if feeder.f1_valid[0]:
            read_activation_banks(config, memories, feeder)
        read_next_feed_word(config, memories, feeder, counters)
    step_streams(config, memories, streams, outputs.issue, state.cycle[0], counters)
    step_handoff(config, drain, outputs.fire[0])
    if state.done[0]:
        state.busy[0] = 0


@jit
def finish_engine(
    config: EngineConfig, memories: Memories, state: EngineRegisters, records: IntArray
) -> None:
    """Take the cycles of a run that are left, up to `done`."""
    while state.busy[0]:
        step_engine(config, memories, state, records)
