"""The accelerator in Verilog, and the bridge from Python to it."""

from rtl_models.runner import (
    BenchResult,
    VerificationError,
    find_tool,
    lint,
    run_bench,
    run_yosys,
)
from rtl_models.sources import VERILOG, modules, sources

__all__ = [
    "VERILOG",
    "BenchResult",
    "VerificationError",
    "find_tool",
    "lint",
    "modules",
    "run_bench",
    "run_yosys",
    "sources",
]
