"""The accelerator in Verilog, and the bridge from Python to it."""

from rtl_models.runner import (
    BenchResult,
    VerificationError,
    find_tool,
    lint,
    run_bench,
    run_yosys,
)

__all__ = [
    "BenchResult",
    "VerificationError",
    "find_tool",
    "lint",
    "run_bench",
    "run_yosys",
]
