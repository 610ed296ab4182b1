from pathlib import Path

import pytest

from rtl_models import run_bench

BENCH = Path(__file__).parent / "benches" / "bench_requantizer.py"

pytestmark = pytest.mark.rtl


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({"LANES": 1, "ACC_W": 16, "POST_W": 32, "OUT_W": 8}, id="1-lane-16-bit"),
        pytest.param({"LANES": 4, "ACC_W": 32, "POST_W": 32, "OUT_W": 8}, id="4-lanes-32-bit"),
        pytest.param({"LANES": 2, "ACC_W": 48, "POST_W": 64, "OUT_W": 16}, id="2-lanes-48-bit"),
    ],
)
def test_requantizer_equals_golden_at_the_extremes_and_under_stalls(tmp_path, parameters):
    result = run_bench("requantizer", BENCH, tmp_path, parameters=parameters)
    assert len(result.tests) == 20
