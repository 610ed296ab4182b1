"""Layers that the Winograd units compute: values against golden, cycles against stepped."""

import re
from dataclasses import replace

import numpy as np
import pytest
import winograd_cases as cases

from golden.errors import HardwareError
from golden.network import Network, Padding, Tensor
from golden.run import run
from rtl_models.reference import golden_network, winograd_forms
from simulator.energy import DEFAULT_TABLE, TABLES
from simulator.hardware import changed_hardware, load_hardware, with_winograd
from simulator.machine import simulate
from simulator.plan import plan_network
from simulator.prepared import PreparedNetwork
from simulator.timing import run_timings


def plans(rng, preset, use, count, **array):
    """Networks and hardware that fit together, and whose layer has a form."""
    found = 0
    while found < count:
        network, hardware = cases.network(rng, preset), cases.hardware(rng, preset, use, **array)
        try:
            plan = plan_network(network, hardware)
        except HardwareError:  # buffers too small for the layer
            continue
        if winograd_forms(plan):
            found += 1
            yield network, hardware, plan


@pytest.mark.parametrize("use", ["f2", "f4"])
@pytest.mark.parametrize("preset", cases.PRESETS)
def test_codes_and_overflows_of_all_parts_equal_golden(preset, use):
    rng = np.random.default_rng([1, cases.PRESETS.index(preset), int(use[1])])
    for network, hardware, plan in plans(rng, preset, use, 8):
        x = cases.sample(rng, network, 2)
        tensors, overflows = golden_network(network, hardware, [x], winograd_forms(plan))
        result = simulate(network, hardware, [x])
        assert (result.outputs[0] == tensors[1]).all()
        assert result.layers[0].overflow.outputs_affected == overflows[0].outputs
        if hardware.array.events_bits > 2:  # the counters of PEs stop
            assert result.layers[0].overflow.events == overflows[0].events
        assert (PreparedNetwork(network, hardware).run([x]).outputs[0] == tensors[1]).all()


@pytest.mark.parametrize("use", ["f2", "f4"])
@pytest.mark.parametrize("preset", cases.PRESETS)
def test_fast_equals_stepped_in_everything(preset, use):
    rng = np.random.default_rng([2, cases.PRESETS.index(preset), int(use[1])])
    for network, hardware, _ in plans(rng, preset, use, 4):
        x = cases.sample(rng, network)
        fast = simulate(network, hardware, [x])
        stepped = simulate(network, hardware, [x], speed="stepped")
        assert (fast.outputs[0] == stepped.outputs[0]).all()
        assert fast.to_dict()["layers"] == stepped.to_dict()["layers"]


@pytest.mark.parametrize("preset", cases.PRESETS)
def test_auto_never_changes_an_output(preset):
    rng = np.random.default_rng([3, cases.PRESETS.index(preset)])
    forms = set()
    for _ in range(12):
        network, hardware = cases.network(rng, preset), cases.hardware(rng, preset, "f2")
        hardware = changed_hardware(
            with_winograd(hardware, "auto"),
            array={"acc_bits": 32, "spill_interval": 0},
            buffers=load_hardware(preset).buffers.model_dump(),
        )
        x = cases.sample(rng, network)
        result = simulate(network, hardware, [x])
        forms.add(result.layers[0].algorithm)
        assert (result.outputs[0] == run(network, [x]).outputs[0]).all()
    # Some layers are direct, some not; repeated units never pay on a ternary array (W10).
    assert (len(forms) > 1) == (preset != "ternary4x4")


@pytest.mark.parametrize("preset", cases.PRESETS)
def test_auto_takes_the_fewest_cycles_or_the_least_energy_of_the_reports(preset):
    rng = np.random.default_rng([7, cases.PRESETS.index(preset)])
    for network, hardware, _ in plans(rng, preset, "f2", 4, acc_bits=32, spill_interval=0):
        for choose_by in ("cycles", "energy"):
            reports = []
            for use in ("off", *hardware.winograd.names, "auto"):
                result = simulate(network, with_winograd(hardware, use, choose_by), values=False)
                reports.append(result.cycles if choose_by == "cycles" else result.energy_pj)
            assert reports[-1] == pytest.approx(min(reports), rel=1e-12)


def test_auto_by_energy_follows_the_energy_table(tmp_path):
    # F2 takes 16 steps where 36 are direct. The shipped table charges for memory, of which F2 uses
    # more; where only multiplying costs, F2 is the cheaper.
    rng = np.random.default_rng(8)
    network = cases.network(rng, "mac4x4")
    weights = rng.integers(1, 100, (4, 3, 3, 4)).astype(np.int8)
    rule = replace(network.layers[0].requantization, multiplier=np.array([1 << 30], np.int32))
    layer = replace(
        network.layers[0], weights=weights, bias=None, padding=Padding(1, 1, 1, 1),
        requantization=replace(rule, shift=np.array([-9], np.int32)),
    )  # fmt: skip
    tensors = tuple(replace(tensor, shape=(1, 12, 12, 4)) for tensor in network.tensors)
    network = replace(network, tensors=tensors, layers=(layer,))
    text = (TABLES / f"{DEFAULT_TABLE}.toml").read_text()
    free = re.sub(r"(fj_per_bit|pj_per_byte) = [\d.]+", r"\1 = 0.0", text)
    free = re.sub(r"fj_per_bit = \[.*\]", "fj_per_bit = [1e-9, 1e-9, 1e-9]", free)
    table = tmp_path / "multipliers.toml"
    table.write_text(free)
    found = {}
    for name in ("default", str(table)):
        tables = {"energy": {"table": name}, "array": {"acc_bits": 32}}
        hardware = changed_hardware(load_hardware("mac4x4"), **tables)
        hardware = with_winograd(hardware, "auto", "energy")
        found[name] = simulate(network, hardware, values=False).layers[0]
    assert (found["default"].algorithm, found["default"].reason) == (
        "direct", "it takes no more energy directly",
    )  # fmt: skip
    assert found[str(table)].algorithm != "direct"


def test_a_run_of_one_tile_takes_the_cycles_of_the_rules():
    # One PE, one channel, an output image of 2 x 2: 16 patch words are accepted in cycles 3 to 18,
    # complete in 3 + 16 + 16 + 8 = 43 (W2, W3); first read in 44, in the window in 45, issue and
    # fire in 46. N = 1, so fires are 2 cycles apart (W5): the last in 46 + 2 * 15 = 76. Its 4
    # outputs end the run in 76 + 4 + 10 = 90. 16 cycles compute, 3 fill, 4 .. 45 wait: 42.
    rng = np.random.default_rng(4)
    network = cases.network(rng, "mac4x4")
    layer = replace(
        network.layers[0],
        weights=np.arange(-4, 5, dtype=np.int8).reshape(1, 3, 3, 1),
        bias=None,
        padding=replace(network.layers[0].padding, top=1, bottom=1, left=1, right=1),
    )
    tensors = tuple(replace(tensor, shape=(1, 2, 2, 1)) for tensor in network.tensors)
    network = replace(network, tensors=tensors, layers=(layer,))
    hardware = changed_hardware(
        load_hardware("mac4x4"),
        array={"rows": 1, "cols": 1, "feed": 1, "lookahead": 1},
        post={"lanes": 1},
        winograd={"forms": "f2", "use": "f2", "chunk_words": 16},
    )
    step = plan_network(network, hardware).programs[0].steps[0]
    (run_timing,) = run_timings(step, hardware)
    assert run_timing.cycles == 90
    assert run_timing.cycles_by_cause == {
        "fill": 3,
        "compute": 16,
        "stall_feed": 42,
        "drain": 29,
    }
    assert run_timing.events.transformed_words == 16
    assert run_timing.events.summed_results == 16


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stride": (2, 2)}, "its stride is not 1"),
        ({"dilation": (2, 2)}, "its dilation is not 1"),
        ({"weights": np.ones((2, 1, 1, 4), np.int8)}, "its kernel is 1 x 1"),
        ({"weights": np.ones((2, 9, 9, 4), np.int8)}, "it takes its whole image at once"),
        ({"weights": np.ones((4, 3, 3, 1), np.int8), "groups": 4}, "it is grouped"),
    ],
    ids=["stride", "dilation", "kernel", "dense", "groups"],
)
def test_other_layers_run_directly_and_say_why(changes, reason):
    rng = np.random.default_rng(5)
    network = cases.network(rng, "mac4x4")
    layer = replace(network.layers[0], **{"weights": np.ones((2, 3, 3, 4), np.int8)} | changes)
    channels = len(layer.weights)
    layer = replace(layer, bias=np.zeros(channels, np.int64))
    rule = layer.requantization
    layer = replace(
        layer,
        requantization=replace(
            rule,
            multiplier=np.full(channels, 1 << 30, np.int32),
            shift=np.zeros(channels, np.int32),
        ),
        padding=replace(layer.padding, top=0, bottom=0, left=0, right=0),
    )
    reach = [
        (size - 1) * d for size, d in zip(layer.weights.shape[1:3], layer.dilation, strict=True)
    ]
    size = tuple((9 - r - 1) // s + 1 for r, s in zip(reach, layer.stride, strict=True))
    tensors = (
        replace(network.tensors[0], shape=(1, 9, 9, 4)),
        replace(network.tensors[1], shape=(1, *size, channels)),
    )
    network = replace(network, tensors=tensors, layers=(layer,))
    result = simulate(network, with_winograd(load_hardware("mac4x4"), "auto"), values=False)
    assert (result.layers[0].algorithm, result.layers[0].reason) == ("direct", reason)


def test_auto_passes_over_a_form_whose_sums_might_not_fit():
    rng = np.random.default_rng(6)
    network = cases.network(rng, "mac4x4", most=10)
    hardware = cases.hardware(
        rng, "mac4x4", "f4", acc_bits=16, acc_overflow="wrap", spill_interval=0
    )
    reason = simulate(network, with_winograd(hardware, "auto"), values=False).layers[0].reason
    assert "bits" in reason


@pytest.mark.parametrize(("channels", "size"), [(64, 224), (512, 28)])
def test_the_winograd_preset_runs_layers_of_vgg16_in_every_form(channels, size):
    rng = np.random.default_rng(9)
    layer = cases.network(rng, "mac4x4").layers[0]
    rule = replace(layer.requantization, multiplier=np.array([1 << 30], np.int32))
    layer = replace(
        layer, weights=rng.integers(-9, 10, (channels, 3, 3, channels)).astype(np.int8), bias=None,
        padding=Padding(1, 1, 1, 1), requantization=replace(rule, shift=np.array([-9], np.int32)),
    )  # fmt: skip
    tensors = tuple(Tensor(name, (1, size, size, channels), "int8") for name in "xy")
    network = Network("vgg", tensors, (replace(layer, input_zero_point=0),), (0,), (1,))
    cycles = {}
    for use in ("off", "f2", "f4", "auto"):
        hardware = with_winograd(load_hardware("winograd16x16"), use)
        result = simulate(network, hardware, values=False)
        assert result.layers[0].algorithm == {"off": "direct", "auto": "f4"}.get(use, use)
        cycles[use] = result.cycles
    assert cycles["auto"] == cycles["f4"] < cycles["f2"] < cycles["off"] / 1.9


def test_units_are_added_where_they_are_asked_for_and_missing():
    plain = load_hardware("mac4x4")
    assert with_winograd(plain, "f2").winograd.forms == "f2"
    assert with_winograd(plain, "auto").winograd.forms == "both"
    assert with_winograd(with_winograd(plain, "f2"), "f4").winograd.forms == "both"
    assert with_winograd(plain, "off").operand_bits == plain.operand_bits == 9
    assert with_winograd(plain, "f2").operand_bits == 11  # 4 times 256 needs 2 bits more
    assert with_winograd(plain, "f4").operand_bits == 16  # 100 times 256 needs 7 bits more


def test_sums_that_the_division_would_shift_out_are_refused():
    hardware, units = load_hardware("mac4x4"), {"forms": "f4"}
    with pytest.raises(HardwareError, match=r"results have 6 bits; widen array\.acc_bits"):
        changed_hardware(hardware, array={"acc_bits": 6}, winograd=units)
    assert changed_hardware(hardware, array={"acc_bits": 7}, winograd=units).result_bits == 7
