from pathlib import Path

import pytest

from rtl_models import run_bench

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
