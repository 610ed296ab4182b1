"""Expected cycles and registers are derived by hand, beside each test, from the rules."""

import tomllib
from dataclasses import replace

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden.accumulate import Accumulator, accumulate_layer
from golden.errors import HardwareError, InputError
from golden.network import Conv2D, FullyConnected, Padding, Requantization, Tensor
from golden.operators import post_process
from simulator import stepped_kernels as kernels
from simulator.digits import digit_count
from simulator.hardware import hardware_from_dict, load_hardware, to_toml
from simulator.program import ROUNDINGS, compile_layer
from simulator.results import CAUSES, Events
from simulator.stepped import ArrayModel, Engine, step_layer
from simulator.timing import plan_layer, time_layer

PES = {
    "mac": {"kind": "mac"},
    "serial": {"kind": "shift_add", "terms": 1},
    "parallel": {"kind": "shift_add", "terms": 2},
    "ternary": {"kind": "ternary"},
}

LARGE = {"activation_bytes": 1 << 20, "weight_bytes": 1 << 20, "output_bytes": 1 << 20}


def hardware(pe="mac", rows=1, cols=1, feed=1, depth=1, lanes=1, tables=None, **array):
    """A small array; `tables` changes settings of other tables."""
    tree = tomllib.loads(to_toml(load_hardware("mac4x4")))
    tree["array"] |= {"rows": rows, "cols": cols, "feed": feed, "lookahead": feed * depth} | array
    tree["pe"] = PES[pe]
    tree["post"]["lanes"] = lanes
    for name, settings_ in (tables or {}).items():
        tree[name] |= settings_
    return hardware_from_dict(tree)


def replace_buffers(machine, buffers):
    tree = tomllib.loads(to_toml(machine))
    tree["buffers"] |= buffers
    return hardware_from_dict(tree)


def common(weights, **fields):
    weights = np.asarray(weights)
    defaults = {
        "name": "layer",
        "inputs": (0,),
        "outputs": (1,),
        "weights": weights,
        "weight_bits": 8,
        "weight_zero_point": 0,
        "bias": None,
        "input_zero_point": 0,
        "output_zero_point": 0,
        # Multiplier 2**30 with shift 1 is an identity.
        "requantization": Requantization(np.array([2**30], np.int32), np.array([1], np.int32)),
        "activation_min": -128,
        "activation_max": 127,
    }
    return defaults | fields


def dense(weights, **fields):
    return FullyConnected(**common(np.atleast_2d(np.asarray(weights)), **fields))


def conv(weights, **fields):
    return Conv2D(**common(weights, **fields))


def run(layer, machine, x):
    """One engine run of the whole layer on one image; (run, output image)."""
    x = np.asarray(x)
    program = compile_layer(layer, (1, *x.shape), machine)
    engine = Engine(machine, program.geometry, x, layer.input_zero_point)
    return engine.run(program), engine.output_image()


# -- cycles by hand --------------------------------------------------------------------------------


def test_one_product_takes_twelve_cycles():
    # Fill 1-3, issue and fire in 4, N = 1: done in 4 + 1 + 7 = 12; 5-12 come after the last fire.
    found, image = run(dense([3]), hardware(), [5])
    assert found.cycles == 12
    assert found.cycles_by_cause == {"fill": 3, "compute": 1, "drain": 8, "stall_feed": 0}
    assert found.events == Events(
        steps=1, entries=1, window_words=1, feed_words=1, parameter_reads=1, output_codes=1
    )
    assert image.tolist() == [[[15]]]


def test_words_follow_each_other_every_cycle_even_with_a_window_of_one():
    # H = 4, 5, 6; fire in 6; 6 + 1 + 7.
    found, image = run(dense([1, 2, 3]), hardware(), [1, 1, 1])
    assert found.cycles == 14
    assert found.cycles_by_cause["compute"] == 3
    assert image.item() == 6


def test_a_serial_weight_takes_a_cycle_for_each_digit_and_a_zero_none():
    # 7 = 8 - 1 in cycles 4 and 5, the zero is not listed, 1 in cycle 6.
    found, image = run(dense([7, 0, 1]), hardware("serial"), [2, 9, 3])
    assert found.cycles == 14
    assert found.events.entries == 3
    assert found.events.window_words == 2
    assert image.item() == 17


@pytest.mark.parametrize(
    ("depth", "cycles"),
    [
        # Columns of 7, 1 and 1, 7 (two entries, one entry). A window of one word: word 0 goes in
        # cycle 5, word 1 is issued by column 1 in 6 and 7: fire 7, N = 2, 7 + 2 + 7.
        (1, 16),
        # Two words: column 1 issues in 4, 5, 6, column 0 in 4, 5, 6: fire 6.
        (2, 15),
    ],
)
def test_a_deeper_window_lets_a_column_run_ahead(depth, cycles):
    found, image = run(dense([[7, 1], [1, 7]]), hardware("serial", cols=2, depth=depth), [1, 10])
    assert found.cycles == cycles
    assert image.tolist() == [[[17, 71]]]


def test_a_tile_waits_until_the_tile_before_is_drained():
    # N = 3 channels * 1: fires in 4, 7, 10, 13; every tile has one cycle of work, in the cycle
    # after the fire before (4, 5, 8, 11). Done in 13 + 3 + 7.
    found, image = run(dense([[1], [2], [3]]), hardware(cols=3, depth=2), [[1], [2], [3], [4]])
    assert found.cycles == 23
    assert found.cycles_by_cause == {"fill": 3, "compute": 4, "drain": 16, "stall_feed": 0}
    assert image[0].tolist() == [[1, 2, 3], [2, 4, 6], [3, 6, 9], [4, 8, 12]]


def test_more_requantizers_drain_faster():
    # 4 rows: N = 4 with one lane, 1 with four. Fire in 4.
    for lanes, cycles in ((1, 15), (2, 13), (4, 12)):
        found, _ = run(dense([1]), hardware(rows=4, lanes=lanes), [[1], [2], [3], [4]])
        assert found.cycles == cycles
        assert found.events.parameter_reads == 4 // lanes


def test_the_leftover_channel_tile_drains_its_used_columns_only():
    # 3 channels on 2 columns: N = 2, then 1. Fires in 4 and max(5, 4 + 2) = 6; 6 + 1 + 7.
    found, image = run(dense([[1], [2], [3]]), hardware(cols=2, depth=2), [5])
    assert found.cycles == 14
    assert found.events.parameter_reads == 3
    # The unused column of the second tile has a filler: an entry, not a step.
    assert (found.events.entries, found.events.steps) == (4, 3)
    assert image.item(0, 0, 2) == 15


def test_fillers_take_a_cycle_of_their_column():
    # Column 0: 17 words, one entry each; column 1: words 0 and 16, filler at 15: still 17 cycles,
    # because one word a cycle arrives: 4 .. 20, N = 2, 20 + 2 + 7.
    weights = np.ones((2, 17), int)
    weights[1, 1:16] = 0
    found, image = run(dense(weights), hardware(cols=2, depth=2), np.arange(17))
    assert found.cycles == 29
    assert found.events.entries == 17 + 3
    assert found.events.steps == 17 + 2
    assert image.tolist() == [[[127, 16]]]  # 136 is clamped


def test_a_tile_without_weights_still_takes_its_cycle_and_writes_the_bias():
    found, image = run(dense([0], bias=np.array([7])), hardware(), [5])
    assert (found.cycles, found.events.steps, found.events.entries) == (12, 0, 1)
    assert image.item() == 7


def test_idle_rows_write_and_count_nothing():
    # 3 dense rows on 2 PE rows: the second tile has an idle row. The product 50 * 3 = 150 wraps
    # in 8 bits, in the real rows only.
    machine = hardware(rows=2, acc_bits=8)
    found, image = run(dense([3]), machine, [[50], [50], [50]])
    assert found.events.output_codes == 3
    assert found.events.steps == 3
    assert (found.overflow_events, found.overflow_outputs) == (3, 3)
    assert image.ravel().tolist() == [-106, -106, -106]


def test_idle_and_padded_rows_are_fed_zeros():
    # A kernel of 3 taps on a row of 4 pixels, padding 1 on the left: OW = 3, pitch 4, so row 3 of
    # the tile is idle. Tap 0 reads the pixels -1 (padding), 0, 1, and for the idle row pixel 2.
    layer = conv(np.ones((1, 1, 3, 1), int), padding=Padding(left=1), input_zero_point=1)
    machine = hardware(rows=4)
    program = compile_layer(layer, (1, 1, 4, 1), machine)
    engine = Engine(machine, program.geometry, [11, 21, 31, 41], 1)
    engine.start(program)
    fed = []
    while engine.busy:
        engine.step()
        if engine.registers.inputs.feed_valid.item():
            fed.append(engine.registers.inputs.feed_data.ravel().tolist())
    assert fed == [[0, 10, 20, 0], [10, 20, 30, 0], [20, 30, 40, 0]]
    assert engine.output_image().ravel().tolist() == [30, 60, 90]


def test_feeding_four_channels_a_word_takes_a_cycle_for_each_entry():
    # F = 4: one word, 4 entries, cycles 4 to 7.
    found, image = run(dense([1, 2, 3, 4]), hardware(feed=4), [1, 1, 1, 1])
    assert found.cycles == 15
    assert found.events.window_words == 1
    assert image.item() == 10


def test_a_depthwise_layer_uses_all_columns_where_the_word_is_as_wide():
    # F = C = 2: one word of 2 channels, each column picks its own: issue in 4 for all.
    layer = conv(np.array([3, 5]).reshape(2, 1, 1, 1), groups=2)
    found, image = run(layer, hardware(cols=2, feed=2), np.array([[[2, 7]]]))
    assert found.cycles == 4 + 2 + 7
    assert image.tolist() == [[[6, 35]]]


# -- registers by hand -----------------------------------------------------------------------------


def test_registers_of_one_product_cycle_by_cycle():
    machine = hardware()
    program = compile_layer(dense([3]), (1, 1), machine)
    engine = Engine(machine, program.geometry, [5], 0)
    engine.start(program)
    r = engine.registers
    feeder, streams, array, pe = r.feeder, r.streams, r.array, r.array.pe
    trace = {}
    while engine.busy:
        engine.step()
        trace[int(r.cycle[0])] = {
            "f1_valid": feeder.f1_valid.item(),
            "f2_valid": feeder.f2_valid.item(),
            "entry_valid": streams.entry_valid.item(),
            "n": array.n.item(),
            "handoff": array.handoff.item(),
            "step": pe.step.item(),
            "clear": pe.clear.item(),
            "x": pe.x.item(),
            "acc": pe.acc.item(),
            "result": pe.result.item(),
            "output": engine.output_banks.item(),
            "done": r.done.item(),
        }
    # Registers at the end of the cycle that changes them, so visible in the next: read in 1 (E1),
    # f2 in 2, the window in 3, issue and fire in 4 (A6: operands and handoff visible in 5), acc and
    # clear visible in 6, result in 7, read in 7, written in 11, done in 12.
    changes = {
        "f1_valid": {1: 1, 2: 0},
        "f2_valid": {2: 1, 3: 0},
        "entry_valid": {1: 1, 4: 0},
        "n": {3: 1, 4: 0},
        "handoff": {4: 1, 5: 0},
        "step": {4: 1, 5: 0},
        "clear": {5: 1, 6: 0},
        "x": {4: 5},
        "acc": {5: 15, 6: 0},
        "result": {6: 15},
        "output": {11: 15},
        "done": {12: 1},
    }
    for name, steps in changes.items():
        value, expected = 0, []
        for cycle in range(1, 13):
            value = steps.get(cycle, value)
            expected.append(value)
        assert [trace[cycle][name] for cycle in trace] == expected, name


def drive(model, **signals):
    """One cycle of an array with the given signals, the rest 0."""
    for name, array in zip(model.inputs._fields, model.inputs, strict=True):
        array[...] = signals.get(name, 0)
    model.step()
    return {name: array.tolist() for name, array in model.outputs._asdict().items()}


def test_the_array_alone_accepts_what_its_window_holds():
    # D = 2: two words are accepted, the third only in the cycle in which word 0 is released (A4).
    model = ArrayModel(hardware(depth=2))
    for _ in range(2):
        assert drive(model, feed_valid=1, feed_data=7)["feed_ready"] == [1]
    assert model.registers.n.item() == 2
    assert drive(model, feed_valid=1)["feed_ready"] == [0]
    out = drive(model, feed_valid=1, entry_valid=1, advance=1, code=3)
    assert (out["feed_ready"], out["issue"], out["release"]) == ([1], [1], [1])
    assert model.registers.n.item() == 2
    assert model.registers.offset.tolist() == [0]


def test_a_column_ahead_of_the_window_waits():
    # After an entry with advance 2 the offset is 1 (one word released), beyond the loaded words.
    model = ArrayModel(hardware(depth=2))
    drive(model, feed_valid=1)
    drive(model, entry_valid=1, advance=2, code=1)
    assert (model.registers.offset.item(), model.registers.n.item()) == (1, 0)
    assert drive(model, entry_valid=1)["entry_ready"] == [0]
    drive(model, feed_valid=1)  # released at once: offset 1 passes it, but only once it is held
    assert (model.registers.offset.item(), model.registers.n.item()) == (1, 1)
    assert drive(model, feed_valid=1)["release"] == [1]
    assert (model.registers.offset.item(), model.registers.n.item()) == (0, 1)


def test_fire_waits_for_the_slowest_column_and_for_the_drain():
    model = ArrayModel(hardware(cols=2, depth=2))
    drive(model, feed_valid=1)
    last = {"last": 1, "advance": 1, "code": 1, "drain": 1}
    out = drive(model, entry_valid=[1, 0], handoff_ready=1, **last)
    assert out["fire"] == [0]
    assert model.registers.done.tolist() == [1, 0]
    out = drive(model, entry_valid=[1, 1], handoff_ready=0, **last)
    assert (out["issue"], out["fire"]) == ([0, 1], [0])
    assert model.registers.done.tolist() == [1, 1]
    out = drive(model, entry_valid=[1, 1], handoff_ready=1, **last)
    assert (out["issue"], out["fire"]) == ([0, 0], [1])
    assert model.registers.done.tolist() == [0, 0]
    assert model.registers.handoff.item() == 1


def test_flush_empties_the_window_and_leaves_the_sums():
    model = ArrayModel(hardware(depth=2))
    drive(model, feed_valid=1, feed_data=4)
    drive(model, feed_valid=1, entry_valid=1, last=1, advance=1, code=3)
    drive(model)
    drive(model, flush=1, feed_valid=1)
    registers = model.registers
    assert (registers.n.item(), registers.offset.item(), registers.done.item()) == (0, 0, 0)
    assert registers.pe.acc.item() == 12


# -- overflow by hand ------------------------------------------------------------------------------


def accumulators(layer, machine, x):
    return step_layer(layer, machine, np.asarray(x)).accumulators


@pytest.mark.parametrize(
    ("overflow", "value"),
    [
        ("wrap", 44),  # 100, 200 - 256 = -56, 44: one event at step 1
        ("saturate", 127),  # 100, 127, 127: events at steps 1 and 2
    ],
)
def test_an_eight_bit_accumulator_overflows(overflow, value):
    machine = hardware(acc_bits=8, acc_overflow=overflow)
    found = accumulators(dense([1, 1, 1]), machine, [[100, 100, 100]])
    assert found.value.item() == value
    assert found.events.item() == (1 if overflow == "wrap" else 2)
    assert found.first_step.item() == 1
    assert (found.minimum.item(), found.maximum.item()) == (0, 300)
    assert found.persistent.item()


def test_a_transient_overflow_of_a_wrapping_accumulator_is_harmless():
    # 100, 200 -> -56, -56 - 150 = -206 -> 50: two events, and the exact sum 50 fits.
    layer = dense([1, 1, -1])
    machine = hardware(acc_bits=8, activation_bits=16)
    found = accumulators(layer, machine, [[100, 100, 150]])
    assert (found.value.item(), found.events.item(), found.first_step.item()) == (50, 2, 1)
    assert not found.persistent.item()


def test_the_event_counter_stays_at_its_maximum():
    layer = dense([1] * 5)
    machine = hardware(acc_bits=8, acc_overflow="saturate", events_bits=1)
    result = step_layer(layer, machine, np.full((1, 5), 100))
    assert result.accumulators.events.item() == 4
    assert (result.overflow_events, result.overflow_outputs) == (1, 1)


@pytest.mark.parametrize(
    ("overflow", "value", "events"),
    [
        # Steps 100, 200 -> wraps to -56, spilled; 100; the result is -56 + 100.
        ("wrap", 44, 1),
        # 100, 127 spilled; 100; 227.
        ("saturate", 227, 1),
    ],
)
def test_spilling_adds_the_narrow_sum_to_the_wide_one(overflow, value, events):
    machine = hardware(acc_bits=8, acc_overflow=overflow, spill_interval=2, wide_acc_bits=16)
    found = accumulators(dense([1, 1, 1]), machine, [[100, 100, 100]])
    assert (found.value.item(), found.events.item()) == (value, events)
    assert found.first_step.item() == 1
    assert not found.persistent.item()


def test_a_spill_is_an_event_of_the_step_it_follows():
    # 9 bits wide: 100 (spill 100), 200 (spill), 255 overflows at the third spill, the last: step 2.
    machine = hardware(acc_bits=8, acc_overflow="saturate", spill_interval=1, wide_acc_bits=9)
    found = accumulators(dense([1, 1, 1]), machine, [[100, 100, 100]])
    assert (found.value.item(), found.events.item(), found.first_step.item()) == (255, 1, 2)
    assert found.persistent.item()


# -- cut layers ------------------------------------------------------------------------------------


def test_a_run_without_drain_ends_with_its_fire_and_keeps_the_sums():
    machine = hardware()
    program = compile_layer(dense([3, 5]), (1, 2), machine)
    engine = Engine(machine, program.geometry, [2, 7], 0)
    first = engine.run(program.part(words=range(1), drain=False))
    # Issue and fire in 4, done in 5: one cycle after the fire.
    assert first.cycles == 5
    assert first.cycles_by_cause == {"fill": 3, "compute": 1, "drain": 1, "stall_feed": 0}
    assert first.events.output_codes == first.events.parameter_reads == 0
    assert engine.registers.array.pe.acc.item() == 6
    second = engine.run(program.part(words=range(1, 2)))
    assert second.cycles == 12
    assert engine.output_image().item() == 2 * 3 + 7 * 5


def test_a_fire_that_drains_nothing_leaves_no_wait_behind():
    # N = 2, but D1 counts the results of a tile that is read, and here none is.
    machine = hardware(cols=2)
    program = compile_layer(dense([[3, 5], [1, 1]]), (1, 2), machine)
    engine = Engine(machine, program.geometry, [2, 7], 0)
    engine.run(program.part(words=range(1), drain=False))
    assert engine.registers.drain.counter.item() == 0
    assert engine.run(program.part(words=range(1, 2))).cycles == 4 + 2 + 7
    assert engine.output_image().tolist() == [[[41, 9]]]


def test_a_layer_larger_than_its_buffers_is_cut_and_stays_the_same():
    rng = np.random.default_rng(3)
    layer = conv(rng.integers(-127, 128, (9, 3, 3, 8)), padding=Padding(1, 1, 1, 1))
    x = rng.integers(-128, 128, (1, 9, 9, 8))
    small = {"activation_bytes": 640, "weight_bytes": 500, "output_bytes": 100}
    cut = hardware(rows=4, cols=4, feed=2, depth=2, lanes=2, tables={"buffers": small})
    whole = replace_buffers(cut, LARGE)
    passes = plan_layer(layer, x.shape, cut).passes
    assert sum(not each.drain for each in passes) > 3
    assert len({each.pixel_tiles for each in passes}) > 3
    assert all(each.words is None for each in plan_layer(layer, x.shape, whole).passes)
    in_parts, at_once = step_layer(layer, cut, x), step_layer(layer, whole, x)
    np.testing.assert_array_equal(in_parts.outputs, at_once.outputs)
    np.testing.assert_array_equal(in_parts.accumulators.value, at_once.accumulators.value)
    np.testing.assert_array_equal(in_parts.accumulators.maximum, at_once.accumulators.maximum)
    assert in_parts.timing.events.steps == at_once.timing.events.steps
    assert in_parts.timing.cycles > at_once.timing.cycles


# -- requantization --------------------------------------------------------------------------------


@given(
    st.integers(-(2**31), 2**31 - 1),
    st.integers(2**30, 2**31 - 1),
    st.integers(-31, 8),
    st.sampled_from(ROUNDINGS),
)
@settings(deadline=None, derandomize=True, max_examples=500)
def test_requantization_equals_the_plain_statement(acc, multiplier, shift, rounding):
    if rounding.startswith("shift"):
        shift = min(shift, 0)
    found = kernels.requantize(acc, multiplier, shift, ROUNDINGS.index(rounding))
    assert found == naive.requantize(acc, multiplier, shift, rounding)


@pytest.mark.parametrize(
    ("rounding", "multiplier", "shift", "expected"),
    [
        # One half of -5, -3, 3, 5: ties half up, except half to even in the last.
        ("double", 2**30, 0, [-2, -1, 2, 3]),
        ("single", 2**30, 0, [-2, -1, 2, 3]),
        ("multiplier16", 2**30, 0, [-2, -1, 2, 3]),
        ("shift_half_up", 0, -1, [-2, -1, 2, 3]),
        ("shift_half_even", 0, -1, [-2, -2, 2, 2]),
    ],
)
def test_ties_of_every_rounding(rounding, multiplier, shift, expected):
    rule = ROUNDINGS.index(rounding)
    found = [kernels.requantize(acc, multiplier, shift, rule) for acc in (-5, -3, 3, 5)]
    assert found == expected


def test_the_one_product_that_does_not_fit_saturates():
    # gemmlowp, SaturatingRoundingDoublingHighMul: INT32_MIN squared gives INT32_MAX.
    assert kernels.requantize(-(2**31), -(2**31), 0, ROUNDINGS.index("double")) == 2**31 - 1


def test_the_second_rounding_of_double_goes_away_from_zero():
    # A quarter of -6: -3 after the multiply, then -1.5 -> -2; a single rounding gives -1.
    assert kernels.requantize(-6, 2**30, -1, ROUNDINGS.index("double")) == -2
    assert kernels.requantize(-6, 2**30, -1, ROUNDINGS.index("single")) == -1


@pytest.mark.parametrize(("bits", "code"), [(8, -128), (16, 32767)])
def test_the_sum_with_the_bias_wraps_to_the_width_of_the_post_processor(bits, code):
    # D3: 1 + (2**31 - 1) wraps to -2**31 in 32 bits, the lowest code; 64 bits hold it.
    rule = Requantization(np.array([0], np.int32), np.array([0], np.int32), "shift_half_up")
    limit = 2 ** (bits - 1)
    layer = dense(
        [1],
        bias=np.array([2**31 - 1]),
        requantization=rule,
        activation_min=-limit,
        activation_max=limit - 1,
    )
    _, image = run(layer, hardware(activation_bits=bits), [1])
    assert image.item() == code


# -- random layers against golden and the fast model -----------------------------------------------


def random_hardware(draw):
    pe = draw(st.sampled_from(sorted(PES)))
    rows = draw(st.sampled_from([1, 2, 3, 4, 5, 8]))
    spill = draw(st.sampled_from([0, 0, 1, 3, 8]))
    acc_bits = draw(st.sampled_from([6, 8, 12, 16, 20, 24]))
    tables = {
        "buffers": {
            "activation_bytes": draw(st.sampled_from([1 << 16, 1200])),
            "weight_bytes": draw(st.sampled_from([1 << 16, 400])),
            "output_bytes": draw(st.sampled_from([1 << 16, 400])),
            "double_buffer": draw(st.booleans()),
        },
        "dram": {
            "bytes_per_cycle": draw(st.sampled_from([1, 4, 16])),
            "latency_cycles": draw(st.sampled_from([0, 5, 40])),
        },
    }
    return hardware(
        pe,
        rows=rows,
        cols=draw(st.sampled_from([1, 2, 3, 4, 7])),
        feed=draw(st.sampled_from([1, 2, 4])),
        depth=draw(st.integers(1, 3)),
        lanes=draw(st.sampled_from([d for d in range(1, rows + 1) if rows % d == 0])),
        tables=tables,
        activation_bits=draw(st.sampled_from([8, 8, 16])),
        acc_bits=acc_bits,
        acc_overflow=draw(st.sampled_from(["wrap", "saturate"])),
        spill_interval=spill,
        wide_acc_bits=draw(st.sampled_from([25, 32])),
        events_bits=draw(st.sampled_from([1, 20])),
    )


def random_weights(draw, machine, rng, shape):
    """Weights that the PE can hold and their zero point."""
    values = np.arange(-127, 128)
    if machine.pe.kind == "ternary":
        values = np.array([-1, 0, 1])
    if machine.pe.terms == 2:
        values = values[digit_count(values) <= 2]
    weights = rng.choice(values, shape)
    weights[rng.random(shape) > draw(st.sampled_from([1.0, 0.5, 0.1, 0.02]))] = 0
    if (machine.serial or machine.pe.kind == "mac") and draw(st.integers(0, 4)) == 0:
        zero_point = draw(st.integers(0, 255))
        return np.clip(weights + zero_point, 0, 255).astype(np.uint8), zero_point
    return weights.astype(np.int8), 0


@st.composite
def cases(draw):
    machine = random_hardware(draw)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    wide = machine.array.activation_bits == 16
    low, high = (-32768, 32767) if wide else draw(st.sampled_from([(-128, 127), (0, 255)]))
    kind = draw(st.sampled_from(["dense", "conv", "conv", "grouped", "depthwise"]))
    groups = 1 if kind in ("dense", "conv") else draw(st.integers(2, 6))
    per_group = 1 if kind == "depthwise" else draw(st.integers(1, 6))
    out_channels = groups * draw(st.integers(1, 3 if groups > 1 else 9))
    if kind == "dense":
        features = draw(st.integers(1, 40))
        shape, weights_shape = (draw(st.integers(1, 6)), features), (out_channels, features)
    else:
        kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
        size = (draw(st.integers(5, 8)), draw(st.integers(5, 8)))
        shape, weights_shape = (*size, groups * per_group), (out_channels, *kernel, per_group)
    weights, weight_zero_point = random_weights(draw, machine, rng, weights_shape)
    channels = draw(st.sampled_from([1, out_channels]))
    roundings = ["double", "multiplier16", "shift_half_even"] if wide else ROUNDINGS[:2]
    fields = {
        "weight_zero_point": weight_zero_point,
        "bias": rng.integers(-3000, 3000, out_channels) if draw(st.booleans()) else None,
        "input_zero_point": 0 if wide else draw(st.integers(low, high)),
        "output_zero_point": 0 if wide else draw(st.integers(low, high)),
        "requantization": Requantization(
            rng.integers(2**30, 2**31, channels).astype(np.int32),
            rng.integers(-14, 1, channels).astype(np.int32),
            draw(st.sampled_from([*roundings, "shift_half_up"])),
        ),
        "activation_min": low,
        "activation_max": high,
    }
    if kind == "dense":
        layer = dense(weights, **fields)
    else:
        layer = conv(
            weights,
            stride=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
            dilation=(draw(st.integers(1, 2)), draw(st.integers(1, 2))),
            padding=Padding(*(draw(st.integers(0, 2)) for _ in range(4))),
            groups=groups,
            **fields,
        )
    try:
        plan_layer(layer, (1, *shape), machine)
    except HardwareError:  # the smallest pass does not fit the small buffers
        machine = replace_buffers(machine, LARGE)
    batch = draw(st.sampled_from([1, 1, 2]))
    return layer, machine, rng.integers(low, high + 1, (batch, *shape))


@given(cases())
@settings(deadline=None, derandomize=True, max_examples=200)
def test_a_stepped_layer_equals_golden(case):
    layer, machine, x = case
    found = step_layer(layer, machine, x)
    array = machine.array
    accumulator = Accumulator(
        array.acc_bits,
        array.acc_overflow,
        array.spill_interval or None,
        array.wide_acc_bits if array.spill_interval else None,
    )
    expected = accumulate_layer(layer, x, accumulator, "terms" if machine.serial else "product")
    for name in ("value", "events", "first_step", "minimum", "maximum", "persistent"):
        np.testing.assert_array_equal(
            getattr(found.accumulators, name).ravel(), getattr(expected, name).ravel(), name
        )
    dtype = {-32768: "int16", -128: "int8", 0: "uint8"}[layer.activation_min]
    codes = post_process(layer, expected.value, Tensor("out", found.outputs.shape, dtype))
    np.testing.assert_array_equal(found.outputs.ravel(), codes.ravel())
    limit = 2**array.events_bits - 1
    assert found.overflow_events == np.minimum(expected.events, limit).sum()
    assert found.overflow_outputs == np.count_nonzero(expected.events)


@given(cases())
@settings(deadline=None, derandomize=True, max_examples=200)
def test_a_stepped_layer_takes_the_cycles_of_the_fast_model(case):
    layer, machine, x = case
    found = step_layer(layer, machine, x[:1]).timing
    assert found == time_layer(layer, (1, *x.shape[1:]), machine)
    assert sorted(found.cycles_by_cause) == sorted(CAUSES)
    assert sum(found.cycles_by_cause.values()) == found.cycles


# -- inputs ----------------------------------------------------------------------------------------


def test_each_image_of_a_batch_is_a_run_of_its_own():
    rng = np.random.default_rng(5)
    layer = conv(rng.integers(-9, 10, (3, 2, 2, 2)))
    x = rng.integers(-128, 128, (3, 4, 4, 2))
    machine = hardware(rows=2, cols=2)
    together = step_layer(layer, machine, x)
    alone = [step_layer(layer, machine, x[i : i + 1]) for i in range(3)]
    np.testing.assert_array_equal(together.outputs, np.concatenate([a.outputs for a in alone]))
    assert {a.timing.cycles for a in alone} == {together.timing.cycles}


def test_dense_outputs_have_the_shape_of_their_input():
    machine = hardware(rows=2, cols=2)
    x = np.ones((2, 3, 4), int)
    assert step_layer(dense(np.ones((5, 4), int)), machine, x).outputs.shape == (2, 3, 5)
    assert step_layer(dense(np.ones((5, 12), int)), machine, x).outputs.shape == (2, 5)


def test_a_code_that_is_no_operand_is_refused():
    with pytest.raises(InputError) as error:
        step_layer(dense([1, 1]), hardware(), np.array([[0, 300]]))
    assert str(error.value) == (
        'layer "layer" gets the input code 300, which minus its zero point 0 must fit 9 bits; use'
        " codes of 8 bits"
    )


def test_an_input_without_a_batch_is_refused():
    with pytest.raises(InputError, match="takes one or more images, batch first"):
        step_layer(dense([1, 1]), hardware(), np.array([1, 2]))


def test_a_layer_without_bias_adds_none():
    layer = dense([1, 1], bias=np.array([5]))
    x = np.array([[1, 2]])
    assert step_layer(layer, hardware(), x).outputs.item() == 8
    assert step_layer(replace(layer, bias=None), hardware(), x).outputs.item() == 3
