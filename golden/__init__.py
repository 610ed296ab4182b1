"""Golden model: what a quantized network computes, in NumPy, so that a reader can check it."""

from golden.accumulate import AccumulateResult, Accumulator, accumulate_layer
from golden.errors import (
    HardwareError,
    InputError,
    ModelError,
    NapierError,
    OutputError,
    ToolError,
    UnsupportedError,
)
from golden.files import load_network, save_network
from golden.importers.tflite import load_tflite
from golden.network import Network
from golden.run import RunResult, accumulators, run

__all__ = [
    "AccumulateResult",
    "Accumulator",
    "HardwareError",
    "InputError",
    "ModelError",
    "NapierError",
    "Network",
    "OutputError",
    "RunResult",
    "ToolError",
    "UnsupportedError",
    "accumulate_layer",
    "accumulators",
    "load_network",
    "load_tflite",
    "run",
    "save_network",
]
