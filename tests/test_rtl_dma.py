"""The DMA with its memories against the text: what it moves, and in which cycles."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from dma_model import (
    ACTIVATIONS,
    BLOCK_ERROR,
    BOUNDS_ERROR,
    DESCRIPTOR,
    FIELDS,
    NEVER,
    ORIGIN,
    READ_ERROR,
    SECOND,
    STORE,
    WEIGHTS,
    WRITE_ERROR,
    Bus,
    Machine,
    Memories,
    bursts_of,
    transfer,
)

from rtl_models import lint
from rtl_models import run_bench as run_cocotb
from rtl_models.runner import find_tool
from rtl_models.sources import VERILOG, sources

BENCHES = Path(__file__).parent / "benches"
MASK = 0xFFFFFFFF

MACHINES = {
    "default": Machine(),
    "word-is-a-beat": Machine(feed=8, rows=8),
    "word-is-2-beats": Machine(feed=16, rows=5, cols=1),
    "word-is-4-beats": Machine(feed=8, code_bits=16, data_bits=32, rows=2),
    "beat-is-8-words": Machine(feed=4, data_bits=256, rows=16, post_bits=64),
    "beat-is-4-words-of-16-bits": Machine(feed=2, code_bits=16, data_bits=128, cols=1),
    "beat-is-16-words": Machine(feed=1, data_bits=128, rows=6),
    "rows-3": Machine(rows=3, feed=2, cols=5),
    "rows-1": Machine(rows=1, feed=2, data_bits=32),
    "rows-7-wide": Machine(rows=7, feed=2, data_bits=256, cols=2),
}

pytestmark = pytest.mark.rtl


# -- running ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Compile the bench for a machine, once."""
    done = {}

    def compiled(machine):
        if machine not in done:
            program = tmp_path_factory.mktemp("dma") / "bench.vvp"
            files = [BENCHES / "dma_bench.v", BENCHES / "axi_checker.v"]
            files += [VERILOG / "tb" / "axi_memory.v"]
            files += sources("dma", "beat_memory", "bank_memory")
            settings = [f"-Pdma_bench.{name}={v}" for name, v in machine.parameters.items()]
            command = [find_tool("iverilog"), "-g2012", "-s", "dma_bench", *settings]
            subprocess.run([*command, "-o", program, *files], check=True)
            done[machine] = program
        return done[machine]

    return compiled


def run_bench(program, folder, machine, memories, operations, **plusargs):
    """Run operations; return the events and the memories that they left."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [op[name] & MASK for op in operations for name in FIELDS]
    (folder / "operations.hex").write_text("\n".join(f"{word:x}" for word in words))
    (folder / "image.hex").write_text(memories.external.hex(" ").replace(" ", "\n"))
    digits = machine.code_bits // 4
    for bank, content in enumerate(memories.outputs):
        lines = ["".join(f"{code:0{digits}x}" for code in word[::-1]) for word in content]
        (folder / f"output_{bank}.hex").write_text("\n".join(lines))
    settings = {"operations": len(operations), "image": "image.hex", **plusargs}
    command = [find_tool("vvp"), "-n", program, *(f"+{k}={v}" for k, v in settings.items())]
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    complaints = [line for line in process.stdout.splitlines() if "finish" not in line]
    assert complaints == []
    return read_events(folder / "events.txt"), read_memories(folder, machine)


def read_events(path):
    events = []
    for line in path.read_text().splitlines():
        cycle, kind, *rest = line.split()
        if kind == "D":
            events.append((int(cycle), kind, int(rest[0]), int(rest[1], 16)))
        elif kind == "E":
            events.append((int(cycle), kind, rest[0], int(rest[1])))
        else:
            events.append((int(cycle), kind, *map(int, rest)))
    return events


def dump(path):
    lines = path.read_text().split("\n")
    return [line for line in lines if line and not line.startswith("//")]


def known(values):
    return {key: int(text, 16) for key, text in values.items() if "x" not in text}


def read_memories(folder, machine):
    digits = machine.code_bits // 4
    activations = {}
    for bank in range(machine.rows):
        for address, word in enumerate(dump(folder / f"activation_{bank}.txt")):
            for lane in range(machine.feed):
                end = len(word) - lane * digits
                activations[bank, address, lane] = word[end - digits : end]
    streams = {}
    for column in range(machine.cols):
        for beat, word in enumerate(dump(folder / f"stream_{column}.txt")):
            streams[column, beat] = word
    return Memories(
        external=bytearray.fromhex(" ".join(dump(folder / "memory.txt"))),
        outputs=[],
        activations=known(activations),
        feed=known(dict(enumerate(dump(folder / "feed.txt")))),
        streams=known(streams),
        params=known(dict(enumerate(dump(folder / "parameters.txt")))),
    )


def check_run(build, folder, machine, memories, operations, latency=0, interval=1, **plusargs):
    """Run operations that all end well or with errors of their own; compare everything."""
    timed = "stall" not in plusargs
    bench = Memories(bytearray(memories.external), memories.outputs)
    plusargs = {"latency": latency, "interval": interval, **plusargs}
    program = build(machine)
    events, left = run_bench(program, folder, machine, bench, operations, **plusargs)

    errors = [transfer(machine, memories, op) for op in operations]
    assert [event[2:] for event in events if event[1] == "E"] == [("done", e) for e in errors]
    assert [event[2:] for event in events if event[1] == "D"] == memories.descriptor
    assert left.external == memories.external
    assert left.activations == memories.activations
    assert left.feed == memories.feed
    assert left.streams == memories.streams
    assert left.params == memories.params

    moved = [event[:4] for event in events if event[1] not in "SDE"]
    assert [event[1:] for event in moved if event[1] in ("AR", "AW")] == [
        ("AW" if op["kind"] == STORE else "AR", position, len(costs) - 1)
        for op in operations
        for position, costs in bursts_of(machine, op)
    ]
    if timed:
        check_times(Bus(machine, latency, interval), operations, events)


def check_times(bus, operations, events):
    """Assert that every transfer and every end is in the cycle that the rules give."""
    starts = [i for i, event in enumerate(events) if event[1] == "S"]
    end = None
    for op, first, after in zip(operations, starts, [*starts[1:], len(events)], strict=True):
        s = events[first][0]
        assert end is None or s == end + 1 + op["gap"]
        happened = [event for event in events[first:after] if event[1] not in "SD"]
        expected = bus.events(op, s)
        assert sorted(e[:2] if e[1] == "E" else e for e in happened) == sorted(expected), op
        end = expected[-1][0]


# -- stimuli ---------------------------------------------------------------------------------------


def some_memories(rng, machine):
    limit = 1 << machine.code_bits
    return Memories(
        external=bytearray(rng.bytes(machine.bytes)),
        outputs=rng.integers(0, limit, (machine.rows, machine.out_words, machine.feed)).tolist(),
    )


def operation(kind, **fields):
    """One operation; fields that are not given are of no importance to its kind."""
    op = dict.fromkeys(FIELDS, 0) | {"kind": kind, "abort_at": NEVER, "reset_at": NEVER}
    op |= {"base_low": ORIGIN & MASK, "base_high": ORIGIN >> 32}
    unknown = fields.keys() - op.keys()
    assert not unknown
    return op | fields


def based(rng, op, machine, extent, offset, align):
    """Choose a base and an offset so that `extent` bytes from there lie in the memory."""
    position = int(rng.integers((machine.bytes - extent) // align)) * align
    base = int(rng.integers(position // 4096 + 1)) * 4096
    op |= {"base_low": (ORIGIN + base) & MASK, "base_high": (ORIGIN + base) >> 32}
    op[offset] = position - base
    return op


def random_descriptor(rng, machine, memories):
    return based(
        rng, operation(DESCRIPTOR), machine, machine.descriptor_bytes, "descriptor_offset", 128
    )


def random_weights(rng, machine, memories):
    """A block of random beats, put into the memory with its section ends."""
    vector = int(rng.integers(4) == 0)
    parts = -(-machine.param_bits // (machine.data_bits - 1))
    words = int(rng.integers(1, 8))
    lengths = [int(rng.integers(1, 12)), words * parts]
    lengths += [] if vector else rng.integers(1, 12, machine.cols).tolist()
    op = operation(
        WEIGHTS,
        weight_beats=sum(lengths),
        load_feed=int(rng.integers(machine.feed_beats - lengths[0] + 1)),
        load_parameters=int(rng.integers(machine.param_words - words + 1)),
        load_streams=int(rng.integers(machine.stream_beats - max([0, *lengths[2:]]) + 1)),
        vector=vector,
    )
    based(rng, op, machine, sum(lengths) * machine.beat_bytes, "weight_offset", 4096)
    put_block(rng, machine, memories, op, lengths)
    return op


def put_block(rng, machine, memories, op, lengths):
    ends = np.cumsum(lengths) - 1
    first = (op["base_high"] << 32 | op["base_low"]) - ORIGIN + op["weight_offset"]
    for i in range(op["weight_beats"]):
        beat = bytearray(rng.bytes(machine.beat_bytes))
        beat[-1] = beat[-1] & 0x7F | (0x80 if i in ends else 0)
        position = first + i * machine.beat_bytes
        memories.external[position : position + machine.beat_bytes] = beat


def load_fields(rng, machine, *, rows, row_words, planes, sx, sy, runs, pitch=None):
    """Fields of a load whose words all fit, as the layout asks for."""
    columns = -(-row_words // sx)
    pitch = columns + int(rng.integers(4)) if pitch is None else pitch
    phase_y, bank = int(rng.integers(sy)), int(rng.integers(machine.rows))
    lines = (bank + (rows - 1 + phase_y) // sy * pitch + columns - 1) // machine.rows + 1
    in_words = planes + int(rng.integers(3))
    phase_words = (lines + int(rng.integers(2))) * in_words
    room = machine.act_words - sx * sy * phase_words
    assert room >= 0
    words = planes * rows * row_words // runs
    size = machine.word_bytes
    return {
        "load_segments": runs,
        "load_words": words,
        "load_stride": (words + int(rng.choice([0, 1, 2, 5, 37]))) * size,
        "load_base": int(rng.integers(room + 1)),
        "load_row_words": row_words,
        "load_rows": rows,
        "load_stride_x": sx,
        "load_stride_y": sy,
        "load_bank": bank,
        "load_phase_words": phase_words,
        "load_pitch_banks": pitch % machine.rows,
        "load_phase_y": phase_y,
        "load_pitch_words": pitch // machine.rows * in_words,
        "in_words": in_words,
    }


def place_load(rng, machine, op):
    offset = "load_offset"
    if op["kind"] == SECOND:
        offset = "second_load_offset"
        op["second_load_base"], op["load_base"] = op["load_base"], 0
    extent = (op["load_segments"] - 1) * op["load_stride"] + op["load_words"] * machine.word_bytes
    return based(rng, op, machine, extent, offset, machine.word_bytes)


def random_load(rng, machine, memories, kind=ACTIVATIONS):
    while True:
        rows, row_words = int(rng.integers(1, 6)), int(rng.integers(1, 24))
        planes = int(rng.integers(1, 4))
        sx, sy = (1, 1) if rng.integers(2) else rng.integers(1, 4, 2).tolist()
        runs = int(rng.choice([1, planes, planes * rows]))
        if 2 * sx * sy * (planes + 2) * (rows * (row_words + 4) // machine.rows + 2) < (
            machine.act_words
        ):
            break
        if machine.rows < 4 and rng.integers(3) == 0:
            rows, row_words, planes, sx, sy, runs = 2, 5, 1, 1, 1, 1
            break
    fields = load_fields(
        rng, machine, rows=rows, row_words=row_words, planes=planes, sx=sx, sy=sy, runs=runs
    )
    return place_load(rng, machine, operation(kind, **fields))


def random_second(rng, machine, memories):
    return random_load(rng, machine, memories, SECOND)


def store_fields(rng, machine, *, words, planes, first, row, gap):
    out_words = planes + int(rng.integers(3))
    bank = int(rng.integers(machine.rows))
    ends = max(0, words - first + row - 1) // row
    lines = (bank + words - 1 + ends * gap) // machine.rows + 1
    room = machine.out_words - lines * out_words
    assert room >= 0
    size = machine.word_bytes
    return {
        "store_segments": planes,
        "store_words": words,
        "store_stride": (words + int(rng.choice([0, 1, 3, 50]))) * size,
        "store_base": int(rng.integers(room + 1)),
        "store_bank": bank,
        "store_first_row_words": first,
        "store_row_words": row,
        "store_gap_banks": gap % machine.rows,
        "store_gap_words": gap // machine.rows * out_words,
        "store_first_lane": int(rng.choice([0, rng.integers(machine.feed)])),
        "store_last_lane": int(rng.choice([machine.feed - 1, rng.integers(machine.feed)])),
        "out_words": out_words,
    }


def place_store(rng, machine, op):
    extent = (op["store_segments"] - 1) * op["store_stride"]
    extent += op["store_words"] * machine.word_bytes
    return based(rng, op, machine, extent, "store_offset", machine.word_bytes)


def random_store(rng, machine, memories):
    planes, row = int(rng.integers(1, 4)), int(rng.integers(1, 20))
    first = int(rng.integers(1, row + 1))
    words = int(rng.integers(1, min(60, 30 * machine.rows)))
    gap = int(rng.choice([0, rng.integers(min(10, 2 * machine.rows))]))
    fields = store_fields(rng, machine, words=words, planes=planes, first=first, row=row, gap=gap)
    return place_store(rng, machine, operation(STORE, **fields))


KINDS = (random_descriptor, random_weights, random_load, random_second, random_store)


def random_operations(rng, machine, memories, count):
    operations = []
    for i in range(count):
        op = KINDS[i % 5 if i < 5 else rng.choice(5, p=[0.05, 0.15, 0.35, 0.1, 0.35])](
            rng, machine, memories
        )
        op["gap"] = int(rng.choice([0, 0, 0, 3]))
        operations.append(op)
    return operations


def long(*values):
    return pytest.param(*values, marks=pytest.mark.long)


# -- claims ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize(("latency", "interval"), [(0, 1), (7, 3), long(20, 1)])
def test_random_transfers_take_the_cycles_of_the_rules(tmp_path, build, name, latency, interval):
    machine = MACHINES[name]
    rng = np.random.default_rng([ord(letter) for letter in name] + [latency, interval])
    memories = some_memories(rng, machine)
    operations = random_operations(rng, machine, memories, 60)
    check_run(build, tmp_path, machine, memories, operations, latency, interval)


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize(("stall", "order"), [(1, 1), (50, 2), (90, 0), long(10, 0), long(50, 1)])
def test_random_transfers_are_right_whatever_the_bus_does(tmp_path, build, name, stall, order):
    machine = MACHINES[name]
    rng = np.random.default_rng([ord(letter) for letter in name] + [stall, order])
    memories = some_memories(rng, machine)
    operations = random_operations(rng, machine, memories, 20)
    settings = {"latency": 3, "stall": stall, "order": order, "seed": stall + order}
    check_run(build, tmp_path, machine, memories, operations, **settings)


def test_runs_are_cut_at_4096_bytes_and_after_256_beats(tmp_path, build):
    machine = Machine(rows=2, feed=4, data_bits=32, act_words=6000)
    rng = np.random.default_rng(1)
    memories = some_memories(rng, machine)
    fields = load_fields(
        rng, machine, rows=1, row_words=3000, planes=1, sx=1, sy=1, runs=1, pitch=3000
    )
    fields |= {"in_words": 1, "load_base": 3}
    op = operation(ACTIVATIONS, **fields, load_offset=4096 - 5 * 4)
    lengths = [len(costs) for _, costs in bursts_of(machine, op)]
    assert lengths == [5] + 11 * [256] + [179]
    check_run(build, tmp_path, machine, memories, [op], latency=9)


def test_a_store_is_cut_at_4096_bytes_and_after_256_beats(tmp_path, build):
    machine = Machine(rows=3, feed=8, data_bits=64, out_words=400)
    rng = np.random.default_rng(2)
    memories = some_memories(rng, machine)
    fields = store_fields(rng, machine, words=1100, planes=1, first=1100, row=1100, gap=0)
    fields |= {"out_words": 1, "store_base": 3}
    op = operation(STORE, **fields, store_offset=4096 - 3 * 8)
    lengths = [len(costs) for _, costs in bursts_of(machine, op)]
    assert lengths == [3, 256, 256, 256, 256, 73]
    check_run(build, tmp_path, machine, memories, [op], latency=2, interval=2)


def test_no_more_than_8_bursts_are_outstanding_where_every_run_is_one_word(tmp_path, build):
    machine = Machine(rows=3, feed=2)
    rng = np.random.default_rng(3)
    memories = some_memories(rng, machine)
    fields = load_fields(rng, machine, rows=5, row_words=8, planes=1, sx=1, sy=2, runs=40)
    load = operation(ACTIVATIONS, **fields, load_offset=4098) | {"load_stride": 26}
    fields = store_fields(rng, machine, words=1, planes=30, first=1, row=4, gap=2)
    store = operation(STORE, **fields, store_offset=8194) | {"store_stride": 14}
    assert [len(bursts_of(machine, op)) for op in (load, store)] == [40, 30]
    check_run(build, tmp_path, machine, memories, [load, store], latency=60)


def test_a_row_end_in_a_beat_ends_a_piece(tmp_path, build):
    # Beats of 4 words, rows of 5 words, the first one at word 3 of a beat. Words by beat, / where
    # a row ends: 0 | 1 2 3 4 / | 5 6 7 8 | 9 / 10 11 12 | 13 14.
    machine = Machine(rows=8, feed=2, data_bits=64)
    rng = np.random.default_rng(4)
    memories = some_memories(rng, machine)
    fields = load_fields(rng, machine, rows=3, row_words=5, planes=1, sx=1, sy=1, runs=1, pitch=9)
    op = operation(ACTIVATIONS, **fields, load_offset=4096 + 6)
    assert [costs for _, costs in bursts_of(machine, op)] == [[1, 1, 1, 2, 1]]
    check_run(build, tmp_path, machine, memories, [op])


def long_load(rng, machine):
    """Draw a load of 9 runs from 0x1000 on."""
    fields = load_fields(rng, machine, rows=9, row_words=45, planes=1, sx=1, sy=1, runs=9)
    return operation(ACTIVATIONS, **fields, load_offset=0x1004) | {"load_stride": 184}


def long_store(rng, machine):
    """Draw a store of 3 planes from 0x4000 on."""
    fields = store_fields(rng, machine, words=130, planes=3, first=7, row=20, gap=3)
    fields |= {"store_first_lane": 1, "store_last_lane": 2, "store_stride": 1000}
    return operation(STORE, **fields, store_offset=0x4000 - 20)


@pytest.mark.parametrize("response", [2, 3], ids=["slverr", "decerr"])
@pytest.mark.parametrize("stall", [0, 50])
@pytest.mark.parametrize("kind", [ACTIVATIONS, STORE])
@pytest.mark.parametrize("aborts", [0, 1], ids=["goes-on", "aborts"])
def test_an_error_answer_is_reported_and_the_next_transfers_are_right(
    tmp_path, build, response, stall, kind, aborts
):
    machine = MACHINES["default"]
    rng = np.random.default_rng(5)
    memories = some_memories(rng, machine)
    load, store = long_load(rng, machine), long_store(rng, machine)
    bad, offset = (load, "load_offset") if kind == ACTIVATIONS else (store, "store_offset")
    good = [load | {"load_offset": 0x6000}, store | {"store_offset": 0x9000}]
    bench = Memories(bytearray(memories.external), memories.outputs)
    settings = {"latency": 5, "stall": stall, "error_response": response}
    settings |= {"error_at": ORIGIN + bad[offset] + 1200}
    operations = [bad | {"abort_on_error": aborts}, *good]
    events, left = run_bench(build(machine), tmp_path, machine, bench, operations, **settings)

    ends = [i for i, event in enumerate(events) if event[1] == "E"]
    error = READ_ERROR if kind == ACTIVATIONS else WRITE_ERROR
    first = ("aborted" if aborts else "done", error)
    assert [events[i][2:] for i in ends] == [first, ("done", 0), ("done", 0)]
    assert [transfer(machine, memories, op) for op in good] == [0, 0]
    assert left.activations == memories.activations
    assert left.external[0x6000:] == memories.external[0x6000:]
    if stall == 0:
        check_times(Bus(machine, 5, 1), good, events[ends[0] + 1 :])


@pytest.mark.parametrize("how", ["abort_at", "reset_at"])
@pytest.mark.parametrize(("stall", "order"), [(0, 0), (50, 0), (80, 1)])
def test_after_an_abort_or_reset_in_any_cycle_all_transfers_are_right(
    tmp_path, build, how, stall, order
):
    machine = MACHINES["default"]
    rng = np.random.default_rng(6)
    memories = some_memories(rng, machine)
    # Sources and destinations are disjoint: what is done in part is done again in full.
    load, store = long_load(rng, machine), long_store(rng, machine)
    weights = operation(WEIGHTS, weight_beats=35, weight_offset=0x8000)
    put_block(rng, machine, memories, weights, [7, 4, 8, 8, 8])
    descriptor = operation(DESCRIPTOR, descriptor_offset=0x9000)
    whole = [load, store, weights, descriptor]
    operations = []
    for cycle in [*range(1, 30), *range(30, 150, 7)]:
        broken = whole[cycle % 4] if cycle % 3 else store
        operations += [broken | {how: cycle}, whole[int(rng.integers(4))]]
    operations += whole
    bench = Memories(bytearray(memories.external), memories.outputs)
    settings = {"latency": 11, "stall": stall, "order": order}
    events, left = run_bench(build(machine), tmp_path, machine, bench, operations, **settings)

    ends = [event for event in events if event[1] == "E"]
    broken_off = [end[2] for end in ends].count("aborted" if how == "abort_at" else "reset")
    assert len(ends) == len(operations)
    assert broken_off > 25
    assert all(end[3] == 0 for end in ends)
    assert all(
        end[2] == "done" for op, end in zip(operations, ends, strict=True) if op[how] == NEVER
    )
    for op in whole:
        transfer(machine, memories, op)
    assert left.external == memories.external
    assert left.activations == memories.activations
    assert left.feed == memories.feed
    assert left.streams == memories.streams
    assert left.params == memories.params
    if stall == 0:
        starts = [i for i, event in enumerate(events) if event[1] == "S"]
        for op, first, after in zip(operations, starts, [*starts[1:], len(events)], strict=True):
            if op[how] == NEVER:
                check_times(Bus(machine, 11, 1), [op], events[first:after])


LOADS_BEYOND = {
    "past-the-end": {"load_base": 2480},
    "below-0": {"load_base": -3 & MASK},
    "far-away": {"load_base": 0x7FFFFFFF},
    "by-the-pitch": {"load_pitch_words": 2000},
    "by-a-phase": {"load_stride_y": 2, "load_phase_words": 2490},
}


@pytest.mark.parametrize("name", LOADS_BEYOND)
@pytest.mark.parametrize("shape", ["default", "word-is-2-beats", "rows-1"])
def test_a_load_beyond_the_banks_is_an_error_and_writes_nothing_there(tmp_path, build, name, shape):
    machine = MACHINES[shape]
    rng = np.random.default_rng(7)
    memories = some_memories(rng, machine)
    fields = load_fields(rng, machine, rows=4, row_words=17, planes=2, sx=1, sy=1, runs=2)
    op = operation(ACTIVATIONS, **(fields | LOADS_BEYOND[name]))
    op["load_pitch_words"] -= op["load_pitch_words"] % op["in_words"]
    probe = Memories(bytearray(memories.external), memories.outputs)
    assert transfer(machine, probe, op) == BOUNDS_ERROR
    check_run(build, tmp_path, machine, memories, [op, random_load(rng, machine, memories)])


@pytest.mark.parametrize(
    ("field", "value"), [("load_feed", 54), ("load_parameters", 39), ("load_streams", 43)]
)
@pytest.mark.parametrize("beyond", [0, 100, 1 << 31])
def test_weights_beyond_a_memory_are_an_error_and_write_nothing_there(
    tmp_path, build, field, value, beyond
):
    machine = MACHINES["default"]
    rng = np.random.default_rng(8)
    memories = some_memories(rng, machine)
    bad = operation(WEIGHTS, weight_beats=35) | {field: value + beyond}
    put_block(rng, machine, memories, bad, [7, 4, 8, 8, 8])
    good = operation(WEIGHTS, weight_beats=35)
    probe = Memories(bytearray(memories.external), memories.outputs)
    assert [transfer(machine, probe, op) for op in (bad, good)] == [BOUNDS_ERROR, 0]
    check_run(build, tmp_path, machine, memories, [bad, good])


def test_a_store_beyond_the_banks_is_an_error_and_writes_nothing(tmp_path, build):
    machine = MACHINES["default"]
    rng = np.random.default_rng(9)
    memories = some_memories(rng, machine)
    fields = store_fields(rng, machine, words=30, planes=2, first=30, row=30, gap=0)
    bad = operation(STORE, **fields) | {"store_base": machine.out_words}
    good = operation(STORE, **fields)
    check_run(build, tmp_path, machine, memories, [bad, good])


@pytest.mark.parametrize(
    ("lengths", "vector", "errors"),
    [
        pytest.param([7, 4, 8, 8, 8], 0, 0, id="whole"),
        pytest.param([7, 4], 1, 0, id="vector"),
        pytest.param([7, 4, 8, 8], 0, BLOCK_ERROR, id="a-stream-is-missing"),
        pytest.param([7, 4, 8, 8, 8, 2], 0, BLOCK_ERROR, id="beats-follow"),
        pytest.param([7, 4, 8], 1, BLOCK_ERROR, id="beats-follow-in-a-vector-pass"),
        pytest.param([7, 3, 8, 8, 8], 0, BLOCK_ERROR, id="ends-in-a-parameter"),
        pytest.param([7, 4, 8, 8, -8], 0, BLOCK_ERROR, id="last-section-has-no-end"),
        pytest.param([35], 0, BLOCK_ERROR, id="one-section"),
    ],
)
def test_sections_must_end_with_the_beats_of_the_block(tmp_path, build, lengths, vector, errors):
    machine = MACHINES["default"]
    rng = np.random.default_rng(10)
    memories = some_memories(rng, machine)
    op = operation(WEIGHTS, weight_beats=sum(map(abs, lengths)), vector=vector)
    put_block(rng, machine, memories, op, [n for n in lengths if n > 0])
    probe = Memories(bytearray(memories.external), memories.outputs)
    assert transfer(machine, probe, op) == errors
    check_run(build, tmp_path, machine, memories, [op])


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({"PAYLOAD_W": 63, "WIDTH": 9, "BEATS": 5}, id="7-places"),
        pytest.param({"PAYLOAD_W": 63, "WIDTH": 31, "BEATS": 8}, id="2-places"),
        pytest.param({"PAYLOAD_W": 63, "WIDTH": 40, "BEATS": 3}, id="1-place"),
        pytest.param({"PAYLOAD_W": 127, "WIDTH": 16, "BEATS": 1}, id="1-beat"),
    ],
)
def test_beat_memory_reads_any_field(tmp_path, parameters):
    run_cocotb("beat_memory", BENCHES / "bench_beat_memory.py", tmp_path, parameters=parameters)


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({"WORDS": 5, "LANES": 4, "LANE_W": 8}, id="4-lanes"),
        pytest.param({"WORDS": 1, "LANES": 2, "LANE_W": 16}, id="1-word"),
        pytest.param({"WORDS": 9, "LANES": 1, "LANE_W": 72}, id="1-lane"),
    ],
)
def test_bank_memory_writes_lanes(tmp_path, parameters):
    run_cocotb("bank_memory", BENCHES / "bench_bank_memory.py", tmp_path, parameters=parameters)


LINT_SHAPES = {
    "all-ones": {"ROWS": 1, "COLS": 1, "DATA_W": 32, "ACT_WORDS": 1, "OUT_WORDS": 1}
    | {"FEED_BEATS": 1, "STREAM_BEATS": 1, "PARAM_WORDS": 1},
    "word-is-4-beats": {"ROWS": 3, "COLS": 5, "FEED": 16, "CODE_W": 16, "POST_W": 64},
    "16x16": {"ROWS": 16, "COLS": 16, "FEED": 4, "DATA_W": 128, "ACT_WORDS": 3000},
    "beat-is-16-words": {"ROWS": 7, "COLS": 2, "FEED": 2, "DATA_W": 256, "POST_W": 64},
    "word-is-a-beat": {"ROWS": 8, "COLS": 8, "FEED": 8, "ADDR_W": 32},
    "wide-bus": {"ROWS": 5, "COLS": 8, "DATA_W": 512, "ADDR_W": 64},
}


@pytest.mark.parametrize("tool", ["iverilog", "verilator", "yosys"])
@pytest.mark.parametrize("shape", LINT_SHAPES)
def test_dma_is_clean_in_every_shape(shape, tool):
    assert lint(tool, "dma", LINT_SHAPES[shape]) == ""
