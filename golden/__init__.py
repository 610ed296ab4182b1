"""Golden model: what a quantized network computes, in NumPy, so that a reader can check it."""

from golden.errors import (
    HardwareError,
    InputError,
    ModelError,
    NapierError,
    OutputError,
    ToolError,
    UnsupportedError,
)
from golden.network import Network
from golden.run import RunResult, accumulators, run

__all__ = [
    "HardwareError",
    "InputError",
    "ModelError",
    "NapierError",
    "Network",
    "OutputError",
    "RunResult",
    "ToolError",
    "UnsupportedError",
    "accumulators",
    "run",
]
