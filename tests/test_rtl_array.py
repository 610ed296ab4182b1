import random
from pathlib import Path

import pytest
from array_model import ArrayModel, Inputs, random_tile
from pe_model import PeFormat, addend

from rtl_models import VerificationError, run_bench
from rtl_models.sources import sources
from simulator import stepped
from simulator.hardware import changed_hardware, load_hardware

BENCH = Path(__file__).parent / "benches" / "bench_array.py"
MAC = {"PE_KIND": 0, "ACC_BITS": 18, "EVENTS_W": 3}
SERIAL = {"PE_KIND": 1, "ACC_BITS": 20, "SATURATE": 1}
PARALLEL = {"PE_KIND": 1, "TERMS": 2, "ACC_BITS": 24}
TERNARY = {"PE_KIND": 2, "ACC_BITS": 11, "SATURATE": 1, "SPILL": 5, "WIDE_BITS": 13}


def shape(rows, cols, feed, depth):
    return {"ROWS": rows, "COLS": cols, "FEED": feed, "DEPTH": depth}


ARRAYS = [
    pytest.param(shape(1, 1, 1, 1) | MAC, 800, id="1x1-feed1-depth1-mac"),
    pytest.param(shape(1, 3, 2, 1) | SERIAL, 500, id="1x3-feed2-depth1-serial"),
    pytest.param(shape(3, 1, 4, 2) | PARALLEL, 500, id="3x1-feed4-depth2-parallel"),
    pytest.param(shape(2, 3, 1, 3) | TERNARY, 400, id="2x3-feed1-depth3-ternary"),
    pytest.param(shape(2, 3, 4, 2) | MAC | {"SPILL": 8, "WIDE_BITS": 24}, 400, id="2x3-mac-spill"),
    pytest.param(shape(4, 4, 2, 3) | MAC | {"SATURATE": 1}, 200, id="4x4-feed2-depth3-mac"),
]

pytestmark = pytest.mark.rtl


@pytest.mark.parametrize("stall", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize(("parameters", "cycles"), ARRAYS)
def test_array_follows_the_rules_in_every_register_and_cycle(tmp_path, parameters, cycles, stall):
    # Stalled streams need more cycles for the same number of tiles.
    environment = {"STALL": str(stall), "CYCLES": str(cycles * 2 if stall == 0.9 else cycles)}
    result = run_bench(
        "napier_array",
        BENCH,
        tmp_path,
        parameters=parameters,
        test_filter=r".*\.(random_streams|reset_flush)",
        environment=environment,
    )
    assert len(result.tests) == 2


@pytest.mark.parametrize(("parameters", "cycles"), ARRAYS[3:5])
def test_array_is_unknown_before_reset_and_zero_after(tmp_path, parameters, cycles):
    run_bench(
        "napier_array",
        BENCH,
        tmp_path,
        parameters=parameters,
        test_filter=r".*\.registers_are_unknown",
    )


def test_array_refuses_a_feed_that_is_no_power_of_two(tmp_path):
    with pytest.raises(VerificationError, match="FEED must be a power of two, not 3"):
        run_bench("napier_array", BENCH, tmp_path, parameters={"FEED": 3})


MUTANTS = [
    ("window loads beyond its depth", "kept < N_W'(DEPTH)", "n_q <= N_W'(DEPTH)"),
    ("feed_ready forgets the release", "kept < N_W'(DEPTH)", "n_q < N_W'(DEPTH)"),
    ("load goes to the wrong place", "load && kept == N_W'(d)", "load && n_q == N_W'(d)"),
    ("entry issued beyond the window", "offset_q < OFFSET_W'(n)", "offset_q <= OFFSET_W'(n)"),
    ("a done column issues", "offset_q < OFFSET_W'(n) && !done_q", "offset_q < OFFSET_W'(n)"),
    ("release sees registers only", "passed = moved != '0", "passed = offset_q != '0"),
    ("fire waits a cycle", "finished = done_q || (issue && entry_last)", "finished = done_q"),
    ("done outlives a flush", "finished && !fire && !flush", "finished && !fire"),
    ("offset outlives a flush", "offset_d = flush ? '0 :", "offset_d ="),
    ("fire without handoff_ready", "&finished && handoff_ready", "&finished"),
    ("handoff without drain_enable", "fire && drain_enable", "fire"),
    ("a filler is a step", "issue[c] && code != '0", "issue[c]"),
    ("operands move without issue", "else if (issue) begin", "else begin"),
    ("all_done looks ahead", "all_done = &done", "all_done = &finished"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong"), [pair for _, *pair in MUTANTS], ids=[name for name, *_ in MUTANTS]
)
def test_bench_finds_a_broken_array(tmp_path, right, wrong):
    texts = {path.name: path.read_text() for path in sources("napier_array")}
    assert sum(text.count(right) for text in texts.values()) == 1
    for name, text in texts.items():
        (tmp_path / name).write_text(text.replace(right, wrong))
    with pytest.raises(VerificationError, match="bench_array"):
        run_bench(
            "napier_array",
            BENCH,
            tmp_path / "build",
            parameters=shape(1, 3, 2, 2) | MAC,
            sources=[tmp_path / name for name in texts],
            test_filter=r".*\.(random_streams|reset_flush)",
            environment={"STALL": "0.3", "CYCLES": "500"},
        )


def settings(preset, **array):
    return changed_hardware(load_hardware(preset), array=array, post={"lanes": 1})


def registers_of_stepped(state, spill):
    n = state.n[0]
    names = ("acc", "overflow", "events", "result", "result_overflow", "result_events")
    names += ("x", "code", "step", "clear", *(("wide", "spill_count") if spill else ()))
    return {
        "word": state.word[:n].tolist(),
        "offset": state.offset.tolist(),
        "done": state.done.tolist(),
        "handoff": int(state.handoff[0]),
        **{name.replace("spill_", ""): getattr(state.pe, name).tolist() for name in names},
    }


def registers_of_plain(model, names):
    found = {
        "word": model.window,
        "offset": model.offset,
        "done": model.done,
        "handoff": model.handoff,
    }
    for name in names - found.keys():
        found[name] = [[getattr(pe, name) for pe in row] for row in model.pes]
    return found


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize(
    "hardware",
    [
        pytest.param(settings("mac4x4", acc_bits=18, events_bits=3), id="mac"),
        pytest.param(
            settings("ternary4x4", acc_bits=11, feed=1, lookahead=3, acc_overflow="saturate"),
            id="ternary-saturate",
        ),
        pytest.param(
            settings("nhot2_4x4", acc_bits=16, spill_interval=5, wide_acc_bits=18, cols=3),
            id="serial-spill",
        ),
        pytest.param(settings("nhot2_parallel_4x4", acc_bits=22, rows=2), id="parallel"),
    ],
)
def test_stepped_array_and_the_rules_in_plain_python_agree_in_every_register(hardware, stall):
    """With the benches above: Verilog, the stepped model, and the plain rules are one machine."""
    array, rng = hardware.array, random.Random(7)
    fmt = PeFormat(
        pe_kind={"mac": 0, "shift_add": 1, "ternary": 2}[hardware.pe.kind],
        terms=hardware.pe.terms,
        x_w=array.activation_bits + 1,
        weight_w=array.weight_bits + 1,
        acc_bits=array.acc_bits,
        saturate=int(array.acc_overflow == "saturate"),
        events_w=array.events_bits,
        spill=array.spill_interval,
        wide_bits=array.wide_acc_bits,
    )
    plain = ArrayModel(array.rows, array.cols, hardware.depth, fmt)
    model = stepped.ArrayModel(hardware)
    words, streams, fires = [], [[] for _ in range(array.cols)], 0
    for _ in range(1500):
        if len(words) < 4:
            tile = random_tile(array.rows, array.cols, array.feed, fmt, addend, rng)
            words += tile.words
            for stream, entries in zip(streams, tile.streams, strict=True):
                stream += entries
        inputs = Inputs(
            word=words[0] if rng.random() >= stall else None,
            entries=[stream[0] if rng.random() >= stall else None for stream in streams],
            handoff_ready=int(rng.random() >= stall),
            drain_enable=int(rng.random() < 0.9),
            flush=0,
        )
        model.inputs.feed_valid[0] = inputs.word is not None
        model.inputs.feed_data[:] = 99 if inputs.word is None else inputs.word
        for c, entry in enumerate(inputs.entries):
            model.inputs.entry_valid[c] = entry is not None
            if entry is not None:
                for name in ("last", "advance", "lane", "code"):
                    getattr(model.inputs, name)[c] = getattr(entry, name)
        model.inputs.handoff_ready[0] = inputs.handoff_ready
        model.inputs.drain[0] = inputs.drain_enable
        outputs = plain.outputs(inputs)
        model.step()
        plain.tick(inputs)
        assert model.outputs.feed_ready[0] == outputs.feed_ready
        assert model.outputs.entry_ready.tolist() == outputs.entry_ready
        assert model.outputs.fire[0] == outputs.fire
        found = registers_of_stepped(model.registers, array.spill_interval)
        assert found == registers_of_plain(plain, found.keys())
        if inputs.word is not None and outputs.feed_ready:
            words.pop(0)
        for c, stream in enumerate(streams):
            if inputs.entries[c] is not None and outputs.entry_ready[c]:
                stream.pop(0)
        fires += outputs.fire
    assert fires > 10
