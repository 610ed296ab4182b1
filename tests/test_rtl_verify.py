"""`rtl_models.verify` must notice what is wrong, and say where it starts."""

import numpy as np
import pytest

from golden.errors import HardwareError, InputError, ToolError
from golden.network import FullyConnected, Requantization
from rtl_models.sources import sources
from rtl_models.verify import random_layer, verify_layer, verify_random
from simulator.hardware import load_hardware

MACHINE = load_hardware("mac4x4")

pytestmark = pytest.mark.rtl


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("verify")


def layer_of(weights, bias=0, shift=0):
    """Dense layer that adds small products, so that every code can be summed by hand."""
    weights = np.array(weights, np.int8)
    return FullyConnected(
        name="hand",
        inputs=(0,),
        outputs=(1,),
        weights=weights,
        weight_bits=8,
        weight_zero_point=0,
        bias=np.full(len(weights), bias, np.int64),
        input_zero_point=0,
        output_zero_point=0,
        requantization=Requantization(
            np.full(1, 1 << 30, np.int32), np.full(1, shift, np.int32), "shift_half_even"
        ),
        activation_min=-128,
        activation_max=127,
    )


def patched(folder, module, before, after):
    """Copy the engine's sources with one text replaced."""
    folder.mkdir()
    copies = []
    for path in sources("layer_engine"):
        text = path.read_text(encoding="utf-8")
        if path.stem == module:
            assert text.count(before) == 1
            text = text.replace(before, after)
        copies.append(folder / path.name)
        copies[-1].write_text(text, encoding="utf-8")
    return copies


def test_equal_layers_pass_and_report_what_was_compared(work):
    x = np.array([[3, -5], [100, 7]], np.int8)
    report = verify_layer(layer_of([[2, 1], [0, -4], [5, 5]]), MACHINE, x, workdir=work, seed=7)
    assert report.passed
    assert report.difference is None
    assert (report.name, report.op, report.seed, report.runs) == ("hand", "dense", 7, 2)
    assert report.outputs == 2 * 3
    assert report.input_shape == (2, 2)
    assert report.cycles == sum(report.cycles_by_cause.values())


def test_narrower_accumulators_are_found_where_the_first_sum_wraps(work):
    # 100 * 100 = 10000 is 0x2710; 12 bits keep 0x710, which are also the model's low 12 bits, so
    # that the overflow flag differs first. The product is issued in cycle 4 and in the accumulate
    # stage in cycle 6 (rule E1, section 5).
    x = np.array([[100]], np.int8)
    report = verify_layer(layer_of([[100]]), MACHINE, x, workdir=work, overrides={"ACC_BITS": 12})
    difference = report.difference
    assert difference is not None
    assert (difference.sample, difference.run, difference.cycle) == (0, 0, 6)
    assert (difference.signal, difference.found) == ("overflow[0][0]", "0x1")
    assert difference.expected == "0x0"
    assert difference.waves is not None
    assert difference.waves.stat().st_size > 0


FAULTS = {
    "handoff one cycle late": (
        "drain",
        "handoff_count_q <= fire_results - 1'b1",
        "handoff_count_q <= fire_results",
        "handoff_counter",
    ),
    "entry stream not repeated": (
        "stream_reader",
        "tile_last && !pixel_last ? first_q : following",
        "following",
        "entry[0]",
    ),
    "row mask one row too tall": ("feeder", "y < cfg_height", "y <= cfg_height", "f2_mask[1]"),
    "window loads without regard to a release": (
        "array_window",
        "kept < N_W'(DEPTH)",
        "n_q < N_W'(DEPTH)",
        "feed_ready",
    ),
    "cause of a cycle": ("layer_engine", "ended_q || all_done", "all_done", "drain_cycles"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found_and_the_first_wrong_signal_is_named(work, fault):
    module, before, after, signal = FAULTS[fault]
    files = patched(work / fault.replace(" ", "_"), module, before, after)
    for seed in range(10):
        layer, x = random_layer(np.random.default_rng(seed), MACHINE)
        report = verify_layer(layer, MACHINE, x, workdir=work / module, sources=files, seed=seed)
        if not report.passed:
            break
    difference = report.difference
    assert difference is not None, "no layer showed the fault"
    assert difference.signal == signal
    assert difference.cycle is not None
    assert difference.waves is not None
    assert difference.waves.is_file()
    assert f"cycle {difference.cycle}: {signal} is {difference.found}" in str(difference)


def test_a_wrong_code_is_found(work):
    # 5 / 2 = 2.5 goes to the even 2; with ties up it would be 3.
    files = patched(work / "ties", "rescaler", "cfg_rounding == SHIFT_HALF_EVEN && !odd", "1'b0")
    layer, x = layer_of([[1]], shift=-1), np.array([[5]], np.int8)
    assert verify_layer(layer, MACHINE, x, workdir=work).passed
    difference = verify_layer(layer, MACHINE, x, workdir=work, sources=files).difference
    assert difference is not None
    assert (difference.signal, difference.expected, difference.found) == (
        "post_code[0]",
        "0x2",
        "0x3",
    )


def test_an_engine_that_never_ends_is_found(work):
    files = patched(work / "endless", "layer_engine", "done_q  <= finished", "done_q  <= 1'b0")
    difference = verify_layer(
        layer_of([[1]]), MACHINE, np.array([[5]], np.int8), workdir=work, sources=files
    ).difference
    assert difference is not None
    assert (difference.signal, difference.cycle) == ("done_pulse", 13)


def test_unknown_values_are_found(work):
    # Parameters that are never read stay unknown, and so do the codes made with them.
    files = patched(
        work / "unread", "post_processor", "assign param_read = read", "assign param_read = 0"
    )
    difference = verify_layer(
        layer_of([[1]]), MACHINE, np.array([[5]], np.int8), workdir=work, sources=files
    ).difference
    assert difference is not None
    assert (difference.signal, difference.found) == ("post_code[0]", "x")


def test_sources_that_do_not_compile_are_a_tool_error(work):
    files = patched(work / "broken", "drain", "endmodule", "endmodul")
    with pytest.raises(ToolError, match="Icarus cannot compile engine_harness"):
        verify_layer(
            layer_of([[1]]), MACHINE, np.array([[5]], np.int8), workdir=work, sources=files
        )


def test_input_that_is_not_a_batch_of_codes_is_refused(work):
    with pytest.raises(InputError, match="float64 of shape"):
        verify_layer(layer_of([[1]]), MACHINE, np.array([[0.5]]), workdir=work)
    with pytest.raises(InputError, match=r"shape \(1,\)"):
        verify_layer(layer_of([[1]]), MACHINE, np.array([5], np.int8), workdir=work)
    with pytest.raises(HardwareError, match="input codes from 5 to 300"):
        verify_layer(layer_of([[1]]), MACHINE, np.array([[5], [300]], np.int16), workdir=work)


def test_random_layers_are_the_same_for_the_same_seed(work):
    seen = []
    first = verify_random(3, MACHINE, 5, seen.append, workdir=work)
    assert seen == first
    assert [report.seed for report in first] == [5, 6, 7]
    assert all(report.passed for report in first)
    again = verify_random(3, MACHINE, 5, workdir=work)
    assert [r.cycles for r in again] == [r.cycles for r in first]
