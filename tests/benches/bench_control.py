"""`control` between a host on AXI4-Lite and a dma and an engine that only take their time.

Events and counters are those of program_model, the fields of descriptors are numbered as in
docs/programming.md. The bench's machine: 3 rows, 2 columns, words of 4 codes of 8 bits, 1 lane,
banks of 50 and 40 words, 5 layers.
"""

import os
import random

import cocotb
from axi_lite_master import OKAY, SLVERR, AxiLiteMaster
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge
from control_stubs import ERRORS, KINDS, Surroundings
from program_model import CAUSES, COUNTERS, ENGINE_CAUSES, OVERFLOWS, PassTimes, schedule

ROWS, COLS, FEED, LANES, LAYERS = 3, 2, 4, 1, 5
ACT_WORDS, OUT_WORDS = 50, 40
MACHINE = 0xC0FFEE11
MAGIC = 0x4E415031
DESCRIPTOR_BYTES = 384  # 4 * (64 + 3) rounded up to a multiple of 128

ID, VERSION, MACHINE_ID, SHAPE, KIND = 0x00, 0x04, 0x08, 0x0C, 0x10
CONTROL, STATUS, ERROR, DESCRIPTOR = 0x14, 0x18, 0x1C, 0x20
BASE_LOW, BASE_HIGH, PROGRAM, ENABLE, INTERRUPT = 0x24, 0x28, 0x2C, 0x30, 0x34
CYCLES_LOW, CYCLES_HIGH, LAYER, LAYER_COUNTERS, TOTAL_COUNTERS = 0x38, 0x3C, 0x40, 0x80, 0xC0
BUSY, DONE, FAILED, REFUSED = 1, 2, 4, 8
CONSTANTS = {
    ID: 0x4E415049,
    VERSION: 0x00010000,
    MACHINE_ID: MACHINE,
    SHAPE: (LANES - 1) << 24 | (FEED - 1) << 16 | (COLS - 1) << 8 | (ROWS - 1),
    # shift_add, 2 terms, 20 bits, saturating, a bus of DATA_W bits, 8-bit codes
    KIND: 1 | 2 << 2 | 20 << 5 | 1 << 11 | int(os.environ.get("DATA_W", "64")) // 8 << 12,
}
LISTED = [*range(0, 0x44, 4), *range(0x80, 0xB0, 4), *range(0xC0, 0xF0, 4)]
WRITABLE = {CONTROL, BASE_LOW, BASE_HIGH, PROGRAM, ENABLE, INTERRUPT, LAYER}

# Words of a descriptor that the run of its pass does not need
BEFORE_RUN = {0, 1, *range(33, 52)}


def seeded():
    return random.Random(int(os.environ.get("SEED", "1")))


def flags(order=1, layer_end=1, program_end=1, drain=1, mode=0, **others):
    return (
        order
        | layer_end << 2
        | program_end << 3
        | drain << 4
        | others.get("rounding", 0) << 7
        | mode << 10
    )


def legal_words(rng, **of_flags):
    """A descriptor of random fields that make sense; nothing to load or store."""
    word = [0] * (DESCRIPTOR_BYTES // 4)
    word[0], word[1] = MAGIC, MACHINE
    word[2] = flags(rounding=rng.randrange(5), **of_flags) | rng.getrandbits(2) << 5
    word[3] = rng.randrange(LAYERS)
    word[4] = rng.randint(1, 65535) << 16 | rng.randint(1, 65535)
    word[5] = rng.randint(1, 6) << 16 | rng.randint(1, 6)  # 2 columns x 3 rows
    word[6], word[7], word[8] = (rng.getrandbits(10) for _ in range(3))
    for n in (9, 10, 11):
        word[n] = rng.getrandbits(32)
    word[12], word[13] = rng.randint(1, ACT_WORDS), rng.randint(1, OUT_WORDS)
    for n in range(14, 23):
        word[n] = rng.randrange(-(1 << 19), 1 << 19) & 0xFFFFFFFF
    for n in range(23, 27):
        word[n] = rng.randrange(-256, 256) & 0xFFFFFFFF
    word[27], word[28] = rng.randrange(-512, 512) & 0xFFFFFFFF, rng.randrange(32)
    word[29], word[31] = rng.getrandbits(32), rng.getrandbits(32)
    word[30], word[32] = (rng.randrange(-128, 128) & 0xFFFFFFFF for _ in range(2))
    for r in range(ROWS):
        word[64 + r] = rng.getrandbits(32)
    return word


def with_weights(word, rng):
    word[33], word[34] = rng.getrandbits(20) << 12, rng.randint(1, 1 << 20)
    word[35:38] = [rng.getrandbits(32) for _ in range(3)]
    return word


def with_loads(word, rng):
    word[38], word[41], word[49] = (rng.getrandbits(30) << 2 for _ in range(3))
    for n in (39, 40, 43, 44):
        word[n] = rng.randint(1, 1 << 31)
    for n in (42, 46, 48, 50):
        word[n] = rng.getrandbits(32)
    stride_x, stride_y = rng.randint(1, 255), rng.randint(1, 255)
    word[45] = rng.randrange(ROWS) << 16 | stride_y << 8 | stride_x
    word[47] = rng.randrange(stride_y) << 16 | rng.randrange(ROWS)
    return word


def with_stores(word, rng):
    word[52], word[55] = (rng.getrandbits(30) << 2 for _ in range(2))
    for n in (53, 54, 58, 59):
        word[n] = rng.randint(1, 1 << 31)
    word[56], word[61] = rng.getrandbits(32), rng.getrandbits(32)
    word[57], word[60] = rng.randrange(ROWS), rng.randrange(ROWS)
    word[62] = rng.randrange(FEED) << 8 | rng.randrange(FEED)
    return word


def random_program(rng, passes):
    """PassTimes and descriptors of a program of that many passes, each with a layer of its own."""
    times, descriptors = [], []
    layer, new_layer = 0, True
    for j in range(passes):
        last = j == passes - 1
        layer_end = last or (layer < LAYERS - 1 and rng.random() < 0.4)
        order = rng.randint(1 if new_layer else 0, 2)
        mode = rng.choice([0, 0, 1, 2, 3, 4])
        drain = int(layer_end or rng.random() < 0.6)
        word = legal_words(
            rng,
            order=order,
            layer_end=int(layer_end),
            program_end=int(last),
            drain=drain,
            mode=mode,
        )
        word[3] = layer
        if mode:
            word[5] = rng.randint(1, 12) << 16 | rng.randint(1, 12)  # 4 lanes x 3 rows
        if not drain:
            word[4] = 1 << 16 | 1
        durations = dict.fromkeys(KINDS, 0)
        length = rng.choice([3, 30])
        durations["descriptor"] = DESCRIPTOR_BYTES // 4 + rng.randint(0, length)
        if rng.random() < 0.7:
            with_weights(word, rng)
            durations["weights"] = rng.randint(1, length)
        if rng.random() < 0.7:
            with_loads(word, rng)
            durations["activations"] = rng.randint(1, length)
            if mode >= 3:
                durations["second"] = rng.randint(1, length)
        if drain and rng.random() < 0.8:
            with_stores(word, rng)
            durations["store"] = rng.randint(1, length)
        # A run of a few cycles, or one that outlasts the next pass's loads
        scale = rng.choice([2, 20, 100])
        run = {name: rng.randint(0, scale) for name in ENGINE_CAUSES}
        run["fill"] += 1
        run |= {name: rng.getrandbits(20) for name in OVERFLOWS}
        times.append(PassTimes(order, layer, bool(layer_end), durations, run))
        descriptors.append(word)
        new_layer = bool(layer_end)
        layer += new_layer
    return times, descriptors


async def power_up(dut, rng):
    Clock(dut.clk, 10, unit="ns").start()
    dut.rst.value = 1
    host = AxiLiteMaster(dut, rng)
    Surroundings(dut, seeded())
    await RisingEdge(dut.clk)
    await FallingEdge(dut.clk)
    dut.rst.value = 0
    return host


async def read(host, offset):
    data, response = await host.read(offset)
    assert response == OKAY, hex(offset)
    return data


async def write(host, offset, data):
    assert await host.write(offset, data) == OKAY, hex(offset)


async def set_up(host, base, program):
    await write(host, BASE_LOW, base & 0xFFFFFFFF)
    await write(host, BASE_HIGH, base >> 32)
    await write(host, PROGRAM, program)
    await write(host, ENABLE, 3)


async def counters(host, first):
    return {name: await read(host, first + 4 * i) for i, name in enumerate(COUNTERS)}


def pack(words, but=()):
    return sum(word << 32 * n for n, word in enumerate(words[: 64 + ROWS]) if n not in but)


async def check_program(dut, host, rng, times, descriptors, program=0x3000):
    """Run a program from CONTROL to the interrupt and compare all that can be seen of it."""
    around = Surroundings(dut, rng)
    expected = schedule(times)
    playing = cocotb.start_soon(around.run(times, descriptors))
    await write(host, CONTROL, 1)
    await playing
    (zero,) = around.starts
    assert [(kind, j, s - zero, e - zero) for kind, j, s, e in around.operations] == (
        expected.operations
    )
    assert [cycle - zero for cycle in around.taken] == expected.taken
    assert [cycle - zero for cycle in around.started] == expected.started
    assert [cycle - zero for cycle in around.done] == expected.done
    assert around.cycle - zero == expected.cycles + 2  # one cycle to finish, one to the interrupt
    assert (around.clears, around.aborts) == ([], [])
    assert around.offsets == [program + DESCRIPTOR_BYTES * j for j in range(len(times))]
    for j, seen in around.loads:
        assert seen == pack(descriptors[j])
    for j, seen in [*around.ran, *around.stored]:
        assert seen == pack(descriptors[j], BEFORE_RUN), f"pass {j}"

    assert await read(host, STATUS) == DONE
    assert await read(host, ERROR) == 0
    assert await read(host, DESCRIPTOR) == len(times) - 1
    assert await read(host, INTERRUPT) == 1
    assert await read(host, CYCLES_LOW) == expected.cycles
    assert await read(host, CYCLES_HIGH) == 0
    total = {name: value % (1 << 32) for name, value in expected.total.items()}
    assert await counters(host, TOTAL_COUNTERS) == total
    assert total["cycles"] == sum(total[name] for name in (*ENGINE_CAUSES, *CAUSES))
    for layer in range(LAYERS + 2):
        await write(host, LAYER, layer)
        expected_counts = expected.layers.get(layer, dict.fromkeys(COUNTERS, 0))
        assert await counters(host, LAYER_COUNTERS) == expected_counts, f"layer {layer}"
    return around


@cocotb.test()
async def outputs_are_unknown_before_reset_and_at_rest_after(dut):
    Clock(dut.clk, 10, unit="ns").start()
    dut.rst.value = 0
    AxiLiteMaster(dut), Surroundings(dut, seeded())
    await FallingEdge(dut.clk)
    assert not dut.irq.value.is_resolvable
    dut.rst.value = 1
    await FallingEdge(dut.clk)
    dut.rst.value = 0
    names = ("irq", "op_start", "dma_abort", "engine_start", "clear", "take")
    names += ("s_axi_bvalid", "s_axi_rvalid")
    for _ in range(5):
        assert {name: int(getattr(dut, name).value) for name in names} == dict.fromkeys(names, 0)
        await FallingEdge(dut.clk)


@cocotb.test()
async def every_register_has_the_documented_access(dut):
    rng = seeded()
    host = await power_up(dut, rng)
    kept = {
        BASE_LOW: 0xFFFFF000,
        BASE_HIGH: 0xFF,
        PROGRAM: 0xFFFFF000,
        ENABLE: 3,
        LAYER: 0xFFFFFFFF,
    }
    state = dict.fromkeys(LISTED, 0) | CONSTANTS
    for _ in range(400):
        offset = rng.choice([rng.choice(LISTED), rng.choice(list(kept)), rng.randrange(4096)])
        if rng.random() < 0.5:
            data = rng.getrandbits(32)
            if offset == CONTROL:
                data &= ~1
            strobe = 15 if rng.random() < 0.8 else rng.getrandbits(4)
            legal = offset in WRITABLE and strobe == 15
            assert await host.write(offset, data, strobe) == (OKAY if legal else SLVERR)
            if legal and offset in kept:
                state[offset] = data & kept[offset]
        else:
            legal = offset in LISTED
            expected = (state[offset], OKAY) if legal else (0, SLVERR)
            assert await host.read(offset) == expected, hex(offset)


@cocotb.test()
async def reads_and_writes_pass_each_other(dut):
    host = await power_up(dut, None)
    rng = seeded()

    async def reads():
        for _ in range(100):
            offset = rng.choice(list(CONSTANTS))
            assert await host.read(offset) == (CONSTANTS[offset], OKAY)

    reading = cocotb.start_soon(reads())
    for i in range(100):
        await write(host, LAYER, i)
    await reading
    assert await read(host, LAYER) == 99


@cocotb.test()
async def programs_follow_the_rules_in_every_event_and_counter(dut):
    rng = seeded()
    host = await power_up(dut, rng)
    for _ in range(int(os.environ.get("PROGRAMS", "10"))):
        base, program = rng.getrandbits(28) << 12, rng.getrandbits(10) << 12
        await set_up(host, base, program)
        times, descriptors = random_program(rng, rng.randint(1, 8))
        await check_program(dut, host, rng, times, descriptors, program)
        assert int(dut.base.value) == base
        assert int(dut.irq.value) == 1
        await write(host, INTERRUPT, 2)
        assert int(dut.irq.value) == 1
        if rng.random() < 0.5:  # otherwise the next start clears it
            await write(host, INTERRUPT, 1)
            assert int(dut.irq.value) == 0
        else:
            await write(host, ENABLE, 2)


async def run_to_error(dut, host, rng, times, descriptors, error=None, linger=0):
    """Start a program that will fail; returns the surroundings when the machine is at rest."""
    around = Surroundings(dut, rng)
    playing = cocotb.start_soon(around.run(times, descriptors, error, linger))
    await write(host, CONTROL, 1)
    await playing
    return around


async def check_error(dut, host, around, code, descriptor):
    assert len(around.clears) == 1
    stopped = around.aborts[0]
    assert all(cycle < stopped for cycle in (*around.started, *around.taken))
    assert around.aborts == list(range(stopped, around.clears[0]))
    assert await read(host, STATUS) == FAILED
    assert await read(host, ERROR) == code
    assert await read(host, DESCRIPTOR) == descriptor
    assert await read(host, INTERRUPT) == 2
    total = await counters(host, TOTAL_COUNTERS)
    assert total["cycles"] == await read(host, CYCLES_LOW)


@cocotb.test()
async def an_error_in_any_operation_stops_the_machine_and_it_starts_again(dut):
    rng = seeded()
    host = await power_up(dut, rng)
    await set_up(host, 1 << 32, 0x3000)
    for kind in KINDS:
        for name, code in ERRORS.items():
            times, descriptors = random_program(rng, 4)
            # the kind's second operation, in its first, a middle or its last cycle
            wanted = [op for op in schedule(times).operations if op[0] == kind]
            if not wanted:
                continue
            _, j, begin, end = rng.choice(wanted)
            at = rng.choice([begin, begin + 1, end, rng.randint(begin, end)])

            error = (name, lambda around, at=at: around.since_start() == at)
            around = await run_to_error(
                dut, host, rng, times, descriptors, error, rng.randint(0, 9)
            )
            assert around.aborts[0] - around.starts[0] == at + 1
            fetched = [op for op in schedule(times).operations if op[0] == "descriptor"]
            last = max(j for _, j, begin, _ in fetched if begin <= at)
            await check_error(dut, host, around, code, last)
            times, descriptors = random_program(rng, 2)
            await check_program(dut, host, rng, times, descriptors)


@cocotb.test()
async def a_late_write_error_of_the_last_store_is_an_error(dut):
    rng = seeded()
    host = await power_up(dut, rng)
    await set_up(host, 0, 0)
    times, descriptors = random_program(rng, 1)
    end = schedule(times).cycles

    error = ("error_write", lambda around: around.since_start() == end + 1)
    around = await run_to_error(dut, host, rng, times, descriptors, error)
    await check_error(dut, host, around, 2, 0)


@cocotb.test()
async def an_abort_at_any_time_stops_the_machine(dut):
    rng = seeded()
    host = await power_up(dut, rng)
    await set_up(host, 1 << 32, 0x3000)
    for _ in range(12):
        times, descriptors = random_program(rng, 3)
        around = Surroundings(dut, rng)
        playing = cocotb.start_soon(around.run(times, descriptors, linger=5))
        await write(host, CONTROL, 1)
        for _ in range(rng.randrange(schedule(times).cycles - 20)):
            await FallingEdge(dut.clk)
        await write(host, CONTROL, 2)
        await playing
        await check_error(dut, host, around, 8, await read(host, DESCRIPTOR))
        await write(host, CONTROL, 2)  # of no effect at rest
        assert await read(host, STATUS) == FAILED
    await check_program(dut, host, rng, times, descriptors)


@cocotb.test()
async def a_start_while_busy_is_refused_and_the_settings_are_locked(dut):
    rng = seeded()
    host = await power_up(dut, None)
    await set_up(host, 0x5000, 0x3000)
    times, descriptors = random_program(rng, 5)
    around = Surroundings(dut, rng)
    playing = cocotb.start_soon(around.run(times, descriptors))
    await write(host, CONTROL, 1)
    assert await read(host, STATUS) == BUSY
    await write(host, CONTROL, 1)
    assert await read(host, STATUS) == BUSY | REFUSED
    for offset in (BASE_LOW, BASE_HIGH, PROGRAM):
        assert await host.write(offset, 0xABCDE000) == SLVERR
    await write(host, LAYER, 1)
    assert await read(host, BASE_LOW) == 0x5000
    assert await read(host, PROGRAM) == 0x3000
    await playing
    (zero,) = around.starts
    assert around.cycle - zero == schedule(times).cycles + 2
    assert await read(host, STATUS) == DONE | REFUSED
    await check_program(dut, host, rng, times, descriptors)  # which clears the flag


@cocotb.test()
async def reset_in_any_cycle_leaves_nothing_behind(dut):
    rng = seeded()
    host = await power_up(dut, rng)
    for _ in range(int(os.environ.get("RESETS", "15"))):
        await set_up(host, 0, 0x3000)
        times, descriptors = random_program(rng, 2)
        around = Surroundings(dut, rng)
        at = rng.randrange(schedule(times).cycles + 3)
        fails_at = rng.randrange(3 * at + 1)
        error = ("error_read", lambda around, at=fails_at: around.since_start() == at)
        playing = cocotb.start_soon(around.run(times, descriptors, error, linger=9, cycles=at))
        await write(host, CONTROL, 1)
        await playing
        dut.rst.value = 1
        await FallingEdge(dut.clk)
        dut.rst.value = 0
        for name in ERRORS:
            getattr(dut, name).value = 0
        assert int(dut.irq.value) == 0
        for offset in (STATUS, ERROR, DESCRIPTOR, BASE_LOW, PROGRAM, ENABLE, INTERRUPT, LAYER):
            assert await read(host, offset) == 0
        assert set((await counters(host, TOTAL_COUNTERS)).values()) == {0}
        await set_up(host, 0, 0x3000)
        await check_program(dut, host, rng, times, descriptors)


def set_word(n, value):
    return lambda word: word.__setitem__(n, value & 0xFFFFFFFF)


def set_half(n, high, value):
    def change(word):
        shift = 16 if high else 0
        word[n] = word[n] & ~(0xFFFF << shift) | value << shift

    return change


def set_flags(mask, value):
    return lambda word: word.__setitem__(2, word[2] & ~mask | value)


def several(*changes):
    def change(word):
        for each in changes:
            each(word)

    return change


CHUNK = set_flags(4 | 8 | 16, 0)  # neither drained nor the last pass of anything

ILLEGAL = {
    "magic": (3, set_word(0, MAGIC ^ 1)),
    "magic goes before machine": (3, several(set_word(0, 0), set_word(1, 0))),
    "machine": (4, set_word(1, MACHINE ^ 1 << 31)),
    "machine goes before fields": (4, several(set_word(1, 0), set_flags(3, 3))),
    "order": (5, set_flags(3, 3)),
    "order of a first pass": (5, set_flags(3, 0)),
    "rounding": (5, set_flags(7 << 7, 5 << 7)),
    "mode": (5, set_flags(7 << 10, 5 << 10)),
    "program_end without layer_end": (5, set_flags(4, 0)),
    "layer_end without drain": (
        5,
        several(set_flags(16, 0), set_word(4, 1 << 16 | 1), set_word(53, 0)),
    ),
    "bits of word 2": (5, set_flags(1 << 13, 1 << 13)),
    "layer": (5, set_word(3, LAYERS)),
    "pixel_tiles": (5, set_half(4, False, 0)),
    "channel_tiles": (5, set_half(4, True, 0)),
    "tiles of a chunk": (5, several(CHUNK, set_word(53, 0), set_word(4, 2 << 16 | 1))),
    "pixels of a chunk": (5, several(CHUNK, set_word(53, 0), set_word(4, 1 << 16 | 2))),
    "no results": (5, set_half(5, False, 0)),
    "no results_last": (5, set_half(5, True, 0)),
    "results": (5, set_half(5, False, 7)),
    "results_last": (5, set_half(5, True, 7)),
    "results of a vector pass": (5, several(set_flags(7 << 10, 1 << 10), set_half(5, False, 13))),
    "feed_base": (5, set_word(6, 1024)),
    "stream_base": (5, set_word(7, 1024)),
    "first_channel": (5, set_word(8, 1024)),
    "no in_words": (5, set_word(12, 0)),
    "in_words": (5, set_word(12, ACT_WORDS + 1)),
    "no out_words": (5, set_word(13, 0)),
    "out_words": (5, set_word(13, OUT_WORDS + 1)),
    **{f"word {n} high": (5, set_word(n, 1 << 19)) for n in range(14, 23)},
    **{f"word {n} low": (5, set_word(n, -(1 << 19) - 1)) for n in range(14, 23)},
    **{f"word {n} high": (5, set_word(n, 256)) for n in range(23, 27)},
    **{f"word {n} low": (5, set_word(n, -257)) for n in range(23, 27)},
    "second_offset high": (5, set_word(27, 512)),
    "second_offset low": (5, set_word(27, -513)),
    "left_shift": (5, set_word(28, 32)),
    "first_shift": (5, set_word(30, 128)),
    "second_shift": (5, set_word(32, -129)),
    "weight_offset": (5, set_word(33, 2048)),
    "load_offset": (5, set_word(38, 2)),
    "load_words": (5, set_word(40, 0)),
    "load_stride": (5, set_word(41, 1)),
    "load_row_words": (5, set_word(43, 0)),
    "load_rows": (5, set_word(44, 0)),
    "load_stride_x": (5, set_word(45, 1 << 8)),
    "load_stride_y": (5, several(set_word(45, 1), set_word(47, 0))),
    "load_bank": (5, set_half(45, True, ROWS)),
    "load_pitch_banks": (5, set_half(47, False, ROWS)),
    "load_phase_y": (5, several(set_word(45, 4 << 8 | 1), set_word(47, 4 << 16))),
    "second_load_offset": (5, set_word(49, 1)),
    "word 51": (5, set_word(51, 1)),
    "store of a chunk": (5, several(CHUNK, set_word(4, 1 << 16 | 1))),
    "store_offset": (5, set_word(52, 3)),
    "store_words": (5, set_word(54, 0)),
    "store_stride": (5, set_word(55, 2)),
    "store_bank": (5, set_word(57, ROWS)),
    "store_first_row_words": (5, set_word(58, 0)),
    "store_row_words": (5, set_word(59, 0)),
    "store_gap_banks": (5, set_word(60, ROWS)),
    "store_first_lane": (5, set_word(62, FEED)),
    "store_last_lane": (5, set_word(62, FEED << 8)),
    "bits of word 62": (5, set_word(62, 1 << 16)),
    "word 63": (5, set_word(63, 1 << 31)),
}

LEGAL = {
    "last values": several(
        set_word(3, LAYERS - 1),
        set_word(4, 0xFFFFFFFF),
        set_word(5, 6 << 16 | 6),
        *(set_word(n, 1023) for n in (6, 7, 8)),
        set_word(12, ACT_WORDS),
        set_word(13, OUT_WORDS),
        *(set_word(n, (1 << 19) - 1) for n in range(14, 23)),
        *(set_word(n, 255) for n in range(23, 27)),
        set_word(27, 511),
        set_word(28, 31),
        set_word(30, 127),
        set_word(32, 127),
        set_word(45, (ROWS - 1) << 16 | 0xFFFF),
        set_word(47, 254 << 16 | ROWS - 1),
        set_word(57, ROWS - 1),
        set_word(60, ROWS - 1),
        set_word(62, (FEED - 1) << 8 | FEED - 1),
    ),
    "first values": several(
        set_word(3, 0),
        set_word(4, 1 << 16 | 1),
        set_word(5, 1 << 16 | 1),
        set_word(12, 1),
        set_word(13, 1),
        *(set_word(n, -(1 << 19)) for n in range(14, 23)),
        *(set_word(n, -256) for n in range(23, 27)),
        set_word(27, -512),
        set_word(30, -128),
        set_word(32, -128),
    ),
    "a chunk": several(
        CHUNK, set_word(4, 1 << 16 | 1), set_word(5, 0), set_word(13, 0), set_word(53, 0)
    ),
    "results of a vector pass": several(set_flags(7 << 10, 2 << 10), set_word(5, 12 << 16 | 12)),
    "nothing to load or store": several(
        *(set_word(n, 0) for n in range(33, 63)), set_word(33, 1), set_word(38, 1), set_word(52, 1)
    ),
}


def full_descriptor(rng):
    """One pass of an array layer that loads weights and activations and stores."""
    word = legal_words(rng, order=rng.randint(1, 2))
    return with_stores(with_loads(with_weights(word, rng), rng), rng)


@cocotb.test()
async def every_field_that_makes_no_sense_is_refused(dut):
    rng = seeded()
    host = await power_up(dut, None)
    await set_up(host, 0, 0x3000)
    full = {"descriptor": 100, "weights": 1, "activations": 1, "second": 0, "store": 1}
    durations = dict(full)
    run = dict.fromkeys((*ENGINE_CAUSES, *OVERFLOWS), 1)
    times = [PassTimes(1, 0, True, each, run) for each in (durations, full)]
    for name, (code, change) in ILLEGAL.items():
        word = full_descriptor(rng)
        change(word)
        around = await run_to_error(dut, host, rng, times, [word])
        assert await read(host, ERROR) == code, name
        assert [kind for kind, *_ in around.operations] == ["descriptor"], name
        await check_error(dut, host, around, code, 0)
    for name, change in LEGAL.items():
        word = full_descriptor(rng)
        change(word)
        durations |= {
            "weights": int(word[34] > 0),
            "activations": int(word[39] > 0),
            "store": int(word[53] > 0),
        }
        await run_to_error(dut, host, rng, times, [word, full_descriptor(rng)])
        assert await read(host, ERROR) == 0, name
        assert await read(host, STATUS) == DONE, name
