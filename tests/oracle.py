"""TensorFlow Lite Micro's reference kernels as the outside judge of bit equality."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray


def run_tflite_micro(
    model: bytes, inputs: Sequence[NDArray[Any]], tensors: Iterable[int], arena_bytes: int = 1 << 22
) -> dict[int, NDArray[Any]]:
    """Run a valid model and return the tensors asked for, by their index in the file.

    The interpreter keeps every tensor apart, so that intermediate ones can be read.
    """
    runtime = pytest.importorskip("tflite_micro").runtime
    interpreter = runtime.Interpreter.from_bytes(
        model,
        arena_size=arena_bytes,
        intrepreter_config=runtime.InterpreterConfig.kPreserveAllTensors,
    )
    for index, array in enumerate(inputs):
        interpreter.set_input(np.ascontiguousarray(array), index)
    interpreter.invoke()
    return {index: interpreter.GetTensor(index, 0)["tensor_data"].copy() for index in tensors}
