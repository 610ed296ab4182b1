"""A bench that did not run, or found something, must never look like one that passed."""

import pytest

from golden.errors import ToolError
from rtl_models import VerificationError, find_tool, lint, run_bench
from rtl_models.sources import modules, sources

PASSES = """
import os

import cocotb


@cocotb.test()
async def parameter_is_set(dut):
    assert int(dut.X_W.value) == 5


@cocotb.test()
async def seed_and_environment_arrive(dut):
    assert os.environ["GREETING"] == "hello"
    assert os.environ["COCOTB_RANDOM_SEED"] == "11"
"""
FAILS = """
import cocotb
from cocotb.triggers import Timer


@cocotb.test()
async def passes(dut):
    dut.x.value = 3
    await Timer(1, unit="ns")


@cocotb.test()
async def fails(dut):
    assert False, "seven is not eight"
"""
TOP = "pe_ternary"

pytestmark = pytest.mark.rtl


def bench(folder, name, text):
    path = folder / f"bench_{name}.py"
    path.write_text(text)
    return path


def test_a_bench_that_passes_names_its_tests(tmp_path):
    result = run_bench(
        TOP,
        bench(tmp_path, "passes", PASSES),
        tmp_path / "build",
        parameters={"X_W": 5},
        environment={"GREETING": "hello"},
        seed=11,
    )
    assert result.tests == ("parameter_is_set", "seed_and_environment_arrive")
    assert (result.seed, result.waves) == (11, None)


def test_a_failure_names_test_seed_and_reason(tmp_path):
    with pytest.raises(VerificationError, match=r"1 of 2 tests .* seed 12 .*fails: seven is not"):
        run_bench(TOP, bench(tmp_path, "fails", FAILS), tmp_path / "build", seed=12)


def test_a_filter_that_matches_nothing_is_an_error(tmp_path):
    with pytest.raises(ToolError, match="ran not one test"):
        run_bench(TOP, bench(tmp_path, "none", FAILS), tmp_path / "build", test_filter="nothing")


def test_a_bench_without_tests_is_an_error(tmp_path):
    with pytest.raises(ToolError, match=r"bench_empty\.py"):
        run_bench(TOP, bench(tmp_path, "empty", "x = 1\n"), tmp_path / "build")


def test_a_bench_that_cannot_be_imported_is_an_error(tmp_path):
    with pytest.raises(ToolError, match="No module named 'nowhere_to_be_found'"):
        run_bench(
            TOP, bench(tmp_path, "import", "import nowhere_to_be_found\n"), tmp_path / "build"
        )


def test_a_parameter_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(ToolError, match="NO_SUCH not found"):
        run_bench(TOP, bench(tmp_path, "x", FAILS), tmp_path / "build", parameters={"NO_SUCH": 1})


def test_verilog_that_does_not_compile_is_an_error(tmp_path):
    broken = tmp_path / "pe_ternary.v"
    broken.write_text("module pe_ternary (input wire a;\nendmodule\n")
    with pytest.raises(ToolError, match="syntax error"):
        run_bench(TOP, bench(tmp_path, "y", FAILS), tmp_path / "build", sources=[broken])


def test_waves_are_written_on_demand(tmp_path):
    result = run_bench(
        TOP,
        bench(tmp_path, "waves", FAILS),
        tmp_path / "build",
        test_filter=r".*\.passes",
        waves=True,
    )
    assert result.waves is not None
    assert result.waves.stat().st_size > 0


@pytest.mark.parametrize("name", ["iverilog", "verilator", "yosys"])
def test_a_missing_program_is_one_sentence_with_the_way_out(monkeypatch, tmp_path, name):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match=f"^{name} .*sudo apt-get install {name}$"):
        find_tool(name)
    with pytest.raises(ToolError, match=name):
        lint(name, TOP)


def test_sources_are_the_module_and_what_it_needs_and_nothing_else():
    names = {path.stem for path in sources("napier_pe")}
    assert names == {
        *("napier_pe", "pe_mac", "pe_shift_add", "pe_ternary", "pe_accumulator", "fit_signed"),
    }
    assert {path.stem for path in sources(*modules())} == set(modules())
    with pytest.raises(ValueError, match="no Verilog module 'nothing'"):
        sources("nothing")
