"""TensorFlow Lite's reference kernels as the outside judges of bit equality."""

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


def run_litert(model: bytes, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Run a model with LiteRT's reference kernels, which still know the older uint8 scheme."""
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(
        model_content=model,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
    )
    interpreter.allocate_tensors()
    for details, array in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(details["index"], array)
    interpreter.invoke()
    return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]
