from pathlib import Path

import pytest

from rtl_models import VerificationError, run_bench
from rtl_models.sources import sources

BENCHES = Path(__file__).parent / "benches"
MAC = {"PE_KIND": 0}
SERIAL = {"PE_KIND": 1, "TERMS": 1}
PARALLEL = {"PE_KIND": 1, "TERMS": 2}
TERNARY = {"PE_KIND": 2}
KIND = {"mac": MAC, "serial": SERIAL, "parallel": PARALLEL, "ternary": TERNARY}
WRAP = {"SATURATE": 0}
SATURATE = {"SATURATE": 1}

pytestmark = pytest.mark.rtl


@pytest.mark.parametrize(
    ("parameters", "addends"),
    [
        pytest.param(MAC | {"X_W": 9, "WEIGHT_W": 9}, 2**18, id="mac-9x9", marks=pytest.mark.slow),
        pytest.param(MAC | {"X_W": 5, "WEIGHT_W": 3}, 2**8, id="mac-5x3"),
        pytest.param(SERIAL | {"X_W": 9}, 2**15, id="serial-9"),
        pytest.param(PARALLEL | {"X_W": 5}, 2**17, id="parallel-5"),
        pytest.param(TERNARY | {"X_W": 9}, 2**11, id="ternary-9"),
    ],
)
def test_pe_adds_operand_times_weight_for_every_operand_and_code(tmp_path, parameters, addends):
    run_bench(
        "pe_sweep",
        BENCHES / "bench_pe_sweep.py",
        tmp_path,
        parameters=parameters,
        sources=[*sources("napier_pe"), BENCHES / "pe_sweep.v"],
    )
    assert (tmp_path / "sweep.txt").read_text().count("\n") == addends


# Accumulators that a few of the largest addends of each kind overflow.
NARROW_BITS = {"mac": 18, "serial": 20, "parallel": 20, "ternary": 11}


@pytest.mark.parametrize("kind", KIND)
def test_pe_of_default_widths_follows_the_rules_in_every_cycle(tmp_path, kind):
    run_random_operands(tmp_path, KIND[kind])


@pytest.mark.parametrize("kind", NARROW_BITS)
@pytest.mark.parametrize(
    "format_",
    [
        pytest.param(WRAP | {"EVENTS_W": 2}, id="wrap"),
        pytest.param(SATURATE | {"EVENTS_W": 1}, id="saturate"),
        pytest.param(WRAP | {"SPILL": 3, "EVENTS_W": 2}, id="wrap-spill"),
        pytest.param(SATURATE | {"SPILL": 1, "EVENTS_W": 8}, id="saturate-spill"),
    ],
)
def test_pe_registers_follow_the_rules_in_every_cycle(tmp_path, kind, format_):
    bits = NARROW_BITS[kind]
    run_random_operands(tmp_path, KIND[kind] | format_ | {"ACC_BITS": bits, "WIDE_BITS": bits + 2})


def test_pe_takes_operands_of_sixteen_bit_activations(tmp_path):
    run_random_operands(tmp_path, MAC | {"X_W": 17, "WEIGHT_W": 9, "ACC_BITS": 24})


def test_pe_takes_transformed_operands_and_weights(tmp_path):
    run_random_operands(tmp_path, MAC | {"X_W": 16, "WEIGHT_W": 15, "ACC_BITS": 32})


def run_random_operands(folder, parameters):
    run_bench(
        "napier_pe",
        BENCHES / "bench_pe.py",
        folder,
        parameters=parameters,
        test_filter=r".*\.random_operands",
    )


@pytest.mark.parametrize(
    "format_",
    [
        pytest.param(WRAP, id="wrap"),
        pytest.param(SATURATE, id="saturate"),
        pytest.param({"SPILL": 2, "WIDE_BITS": 10}, id="spill"),
    ],
)
@pytest.mark.parametrize("kind", KIND)
def test_pe_agrees_with_sums_done_by_hand(tmp_path, kind, format_):
    run_bench(
        "napier_pe",
        BENCHES / "bench_pe.py",
        tmp_path,
        parameters=KIND[kind] | format_ | {"ACC_BITS": 8},
        test_filter=r".*\.sums_done_by_hand",
    )


@pytest.mark.parametrize(
    "format_", [pytest.param({}, id="plain"), pytest.param({"SPILL": 3}, id="spill")]
)
def test_pe_is_unknown_before_reset_and_zero_after(tmp_path, format_):
    run_bench(
        "napier_pe",
        BENCHES / "bench_pe.py",
        tmp_path,
        parameters=MAC | format_ | {"ACC_BITS": 16},
        test_filter=r".*\.power_up_state",
    )


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"PE_KIND": 3}, "PE_KIND is 0"),
        ({"ACC_BITS": 1}, "must be at least 2"),
        ({"SPILL": 4, "ACC_BITS": 32, "WIDE_BITS": 24}, "WIDE_BITS"),
        ({"SATURATE": 2}, "SATURATE is 0 or 1"),
    ],
)
def test_pe_refuses_parameters_it_cannot_be_built_with(tmp_path, parameters, complaint):
    with pytest.raises(VerificationError, match=complaint):
        run_bench(
            "napier_pe",
            BENCHES / "bench_pe.py",
            tmp_path,
            parameters=parameters,
            test_filter=r".*\.random_operands",
        )
