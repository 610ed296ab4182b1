from pathlib import Path

import pytest

from rtl_models import VerificationError, run_bench

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
