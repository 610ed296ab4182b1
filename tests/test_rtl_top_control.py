from pathlib import Path

import pytest

from rtl_models import lint, run_bench
from rtl_models.parameters import top_parameters
from simulator.hardware import changed_hardware, load_hardware

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


@pytest.mark.parametrize(
    "data_bits",
    [64, pytest.param(32, marks=pytest.mark.long), pytest.param(1024, marks=pytest.mark.long)],
)
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


def machine(preset, bytes_per_cycle=8, lanes=1, **array):
    tables = {"post": {"lanes": lanes}, "dram": {"bytes_per_cycle": bytes_per_cycle}}
    return changed_hardware(load_hardware(preset), array=array, **tables)


MACHINES = {
    "mac": machine("mac4x4"),
    "serial-spill": machine("nhot2_4x4", acc_bits=16, spill_interval=5, wide_acc_bits=24),
    "parallel-wide-bus": machine("nhot2_parallel_4x4", 32, lanes=4),
    "ternary-narrow-bus": machine("ternary4x4", 4, acc_overflow="saturate"),
    "one-pe": machine("mac4x4", rows=1, cols=1, feed=1, lookahead=1),
    "5x3": machine("mac4x4", 16, lanes=5, rows=5, cols=3, feed=8, lookahead=8),
    "16-bit": machine("mac4x4", activation_bits=16, acc_bits=40),
}


@pytest.mark.parametrize("tool", ["iverilog", "verilator", "yosys"])
@pytest.mark.parametrize(
    "depths", [(37, 100, 5), pytest.param((1, 1, 1), marks=pytest.mark.long)], ids=str
)
@pytest.mark.parametrize("name", MACHINES)
def test_top_is_clean_in_every_shape(name, depths, tool):
    assert lint(tool, "napier_top", top_parameters(MACHINES[name], *depths)) == ""


@pytest.mark.parametrize("tool", ["iverilog", "verilator", "yosys"])
def test_top_is_clean_without_a_vector_unit(tool):
    assert lint(tool, "napier_top", {"VECTOR": 0}) == ""
