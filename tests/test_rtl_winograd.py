from itertools import product
from pathlib import Path

import numpy as np
import pytest
import winograd_cases as cases

from golden.errors import HardwareError
from golden.run import run
from golden.winograd.ranges import certify_winograd, winograd_witness
from golden.winograd.transforms import winograd
from rtl_models import run_bench
from rtl_models.reference import winograd_forms
from rtl_models.replay import build_dut
from rtl_models.subjects import SUBJECTS
from rtl_models.top import TopSimulation, verify_network
from simulator.hardware import changed_hardware, load_hardware, with_winograd
from simulator.plan import plan_network

BENCHES = Path(__file__).parent / "benches"

pytestmark = pytest.mark.rtl


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({"FORMS": 1, "LANES": 4, "X_W": 9, "HALF": 64}, id="F2"),
        pytest.param({"FORMS": 2, "LANES": 2, "X_W": 9, "HALF": 100}, id="F4"),
        pytest.param({"FORMS": 3, "LANES": 1, "X_W": 17, "HALF": 144}, id="both-16-bit"),
    ],
)
def test_input_transform_equals_its_matrices_in_the_cycles_of_its_rules(tmp_path, parameters):
    bench = BENCHES / "bench_input_transform.py"
    result = run_bench("input_transform", bench, tmp_path, parameters=parameters)
    assert len(result.tests) == 4


@pytest.mark.long
def test_corner_tiles_are_transformed_exactly(tmp_path):
    bench = BENCHES / "bench_input_transform_corners.py"
    parameters = {"FORMS": 3, "LANES": 16, "X_W": 9, "HALF": 36}
    run_bench("input_transform", bench, tmp_path, parameters=parameters)


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({"FORMS": 1, "LANES": 2, "SUM_W": 30, "DEPTH": 4}, id="F2"),
        pytest.param({"FORMS": 2, "LANES": 1, "SUM_W": 32, "DEPTH": 3}, id="F4"),
        pytest.param(
            {"FORMS": 3, "LANES": 2, "RESULT_W": 64, "SUM_W": 48, "DEPTH": 2}, id="both-48-bit"
        ),
    ],
)
def test_output_transform_gives_the_outputs_of_the_direct_convolution(tmp_path, parameters):
    bench = BENCHES / "bench_output_transform.py"
    result = run_bench("output_transform", bench, tmp_path, parameters=parameters)
    assert len(result.tests) == 2


def test_parts_of_a_tile_are_chunks_outside_and_taps_inside_at_any_pace(tmp_path):
    subject = next(each for each in SUBJECTS if each.module == "part_counter")
    dut = build_dut(subject, tmp_path)
    rng = np.random.default_rng(7)
    for form, side in ((0, 1), (1, 4), (2, 6)):  # rule W4; a direct tile has one part
        for chunks in (1, 2, 7) if form else (1,):
            parts = [*product(range(chunks), range(side), range(side))]
            dut.cycle(cfg_winograd=form, cfg_chunks=chunks, load=1, advance=1)
            for place in range(2 * len(parts)):  # after the last part the first again
                _, row, column = parts[place % len(parts)]
                expected = (row, column, place % len(parts) == 0, (place + 1) % len(parts) == 0)
                for advance in [0] * rng.integers(2) + [1]:
                    dut.cycle(load=0, advance=advance)
                    names = ("tap_row", "tap_column", "first", "last")
                    assert tuple(dut[name] for name in names) == expected


@pytest.mark.parametrize(
    ("preset", "use", "seed"),
    [
        ("mac4x4", "f2", 1),
        ("mac4x4", "f4", 2),
        ("nhot2_4x4", "f2", 3),
        ("nhot2_parallel_4x4", "f4", 4),
        ("ternary4x4", "f2", 5),
        *(
            pytest.param(preset, use, seed, marks=pytest.mark.long)
            for preset in cases.PRESETS
            for use in ("f2", "f4")
            for seed in range(10, 20)
        ),
    ],
)
def test_a_layer_through_the_accelerator_equals_golden_in_bits_and_the_model_in_cycles(
    tmp_path, preset, use, seed
):
    rng = np.random.default_rng([seed, int(use[1])])
    while True:
        network, hardware = cases.network(rng, preset, most=7), cases.hardware(rng, preset, use)
        try:
            plan = plan_network(network, hardware)
        except HardwareError:  # buffers too small for the layer
            continue
        if winograd_forms(plan):
            break
    simulation = TopSimulation(tmp_path / "builds", "icarus")
    result = verify_network(
        network, hardware, [cases.sample(rng, network)], simulation, tmp_path / "run"
    )
    assert result.difference is None
    assert result.codes == np.prod(network.tensors[1].shape)


@pytest.mark.parametrize(("use", "side"), [("f2", 2), ("f4", 4)])
def test_the_worst_input_is_exact_at_the_certified_width_and_wrong_one_bit_below(
    tmp_path, use, side
):
    rng = np.random.default_rng(side)
    network = cases.network(rng, "mac4x4", most=7)
    (layer,), source = network.layers, network.tensors[0]
    certificate = certify_winograd(layer, source, (-128, 127), winograd(side, 3))
    bits = certificate.wrapped_bits
    channel = int(bits.argmax())
    low, high = (int(ends["direct"][channel]) for ends in (certificate.lo, certificate.hi))
    extreme = "hi" if high.bit_length() >= (-low - 1).bit_length() else "lo"
    witness = winograd_witness(
        layer, source, (-128, 127), winograd(side, 3), "output", extreme, channel
    )
    direct = run(network, [witness.codes]).outputs[0]
    simulation = TopSimulation(tmp_path, "icarus")
    for acc_bits, right in ((int(bits.max()), True), (int(bits.max()) - 1, False)):
        array = {"acc_bits": acc_bits, "acc_overflow": "wrap"}
        hardware = with_winograd(changed_hardware(load_hardware("mac4x4"), array=array), use)
        result = verify_network(network, hardware, [witness.codes], simulation)
        assert result.difference is None  # golden's wrapped sums and the Verilog's are the same
        assert (result.run.tensors[1] == direct).all() == right
