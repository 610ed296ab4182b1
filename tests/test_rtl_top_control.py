from pathlib import Path

import pytest

from rtl_models import lint, run_bench

BENCH = Path(__file__).parent / "benches" / "bench_control.py"

# The machine of the bench; MACHINE_ID needs all of its bits.
PARAMETERS = {
    "ROWS": 3,
    "COLS": 2,
    "FEED": 4,
    "PE_KIND": 1,
    "TERMS": 2,
    "ACC_BITS": 20,
    "SATURATE": 1,
    "ACT_WORDS": 50,
    "OUT_WORDS": 40,
    "LAYERS": 5,
    "MACHINE_ID": 0xC0FFEE11,
}

pytestmark = pytest.mark.rtl


@pytest.mark.parametrize("data_bits", [32, 64, 1024])
def test_control_follows_the_rules_of_registers_descriptors_and_order(tmp_path, data_bits):
    result = run_bench(
        "control",
        BENCH,
        tmp_path,
        parameters=PARAMETERS | {"DATA_W": data_bits},
        environment={"DATA_W": str(data_bits)},
        seed=data_bits,
    )
    assert len(result.tests) == 10


SHAPES = [
    {"ROWS": 1, "COLS": 1, "FEED": 1, "DATA_W": 32, "LAYERS": 1},
    {"ROWS": 8, "COLS": 4, "FEED": 8, "LANES": 8, "DATA_W": 128, "CODE_W": 16},
    {"ROWS": 256, "COLS": 2, "FEED": 16, "LANES": 16, "DATA_W": 1024, "ADDR_W": 64},
    {"ROWS": 5, "COLS": 3, "FEED": 2, "VECTOR": 0, "LAYERS": 48, "MACHINE_ID": 0xFFFFFFFF},
]


@pytest.mark.parametrize("tool", ["iverilog", "verilator", "yosys"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape['ROWS']}x{shape['COLS']}")
def test_control_is_clean_in_every_shape(shape, tool):
    assert lint(tool, "control", shape) == ""
