"""Guarded reads from the bytes of a TensorFlow Lite file.

Python's flatbuffers has no verifier, so every read goes through `_reading`, which turns whatever a
damaged file provokes into a `ModelError`; vectors are taken as NumPy views, which cannot leave the
file, and only what the operators name is read at all. `golden.importers.tflite` judges it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.errors import ModelError, UnsupportedError

CONTROL_FLOW = ("IF", "WHILE", "CALL", "CALL_ONCE")

SHAPE_ARITHMETIC = ("SHAPE", "STRIDED_SLICE", "PACK")
"""What exporters put before a reshape of unknown batch; the stored output shape says it all."""

_Options = tuple[str, tuple[str, ...]]

_WINDOW = ("Padding", "StrideH", "StrideW", "FusedActivationFunction")
_DILATION = ("DilationHFactor", "DilationWFactor")
_POOL: _Options = ("Pool2DOptions", (*_WINDOW, "FilterHeight", "FilterWidth"))
_NO_OPTIONS: _Options = ("", ())

OPTIONS: dict[str, _Options] = {
    "CONV_2D": ("Conv2DOptions", _WINDOW + _DILATION),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", (*_WINDOW, *_DILATION, "DepthMultiplier")),
    "FULLY_CONNECTED": (
        "FullyConnectedOptions",
        ("FusedActivationFunction", "WeightsFormat", "KeepNumDims"),
    ),
    "AVERAGE_POOL_2D": _POOL,
    "MAX_POOL_2D": _POOL,
    "MEAN": ("ReducerOptions", ("KeepDims",)),
    "ADD": ("AddOptions", ("FusedActivationFunction",)),
    "MUL": ("MulOptions", ("FusedActivationFunction",)),
    "CONCATENATION": ("ConcatenationOptions", ("Axis", "FusedActivationFunction")),
    "PAD": _NO_OPTIONS,
    "PADV2": _NO_OPTIONS,
    "RESHAPE": _NO_OPTIONS,
    "SQUEEZE": _NO_OPTIONS,
    "EXPAND_DIMS": _NO_OPTIONS,
    "SOFTMAX": ("SoftmaxOptions", ("Beta",)),
    "RELU": _NO_OPTIONS,
    "RELU6": _NO_OPTIONS,
    "RELU_N1_TO_1": _NO_OPTIONS,
    "QUANTIZE": _NO_OPTIONS,
    "DEQUANTIZE": _NO_OPTIONS,
    "RESIZE_NEAREST_NEIGHBOR": (
        "ResizeNearestNeighborOptions",
        ("AlignCorners", "HalfPixelCenters"),
    ),
}
"""Operators that are known, the schema's table of their options, and the fields read from it."""


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Name what was being read when a damaged file sent the reader astray."""
    try:
        yield
    except (
        struct.error,
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        TypeError,
        ValueError,
    ):
        raise ModelError(
            f"{what} must lie inside the file and be well formed, but does not; "
            "the file is damaged, fetch or export it again"
        ) from None


@dataclass(frozen=True)
class FileTensor:
    """A tensor as the file states it; `data` is empty for an activation."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: NDArray[np.float32]
    zero_points: NDArray[np.int64]
    axis: int
    data: NDArray[np.uint8]


@dataclass(frozen=True)
class Operator:
    """An operator as the file states it; an input of -1 is an optional one left out."""

    index: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any]


class FlatBuffer:
    """Guarded reads from the bytes of a TensorFlow Lite file."""

    def __init__(self, data: bytes) -> None:
        import tflite

        if data[4:8] != b"TFL3":
            raise ModelError(
                "must start as a TensorFlow Lite file of schema version 3 does "
                f"(bytes 4 to 7 b'TFL3'), not {data[4:8]!r}; export the network with "
                "tf.lite.TFLiteConverter"
            )
        self._schema = tflite
        self._operator_names = _names(tflite.BuiltinOperator)
        self._type_names = _names(tflite.TensorType)
        self._tensors: dict[int, FileTensor] = {}
        with _reading("the model"):
            self._model = tflite.Model.GetRootAs(data, 0)
            subgraphs = self._model.SubgraphsLength()
        if subgraphs != 1:
            raise UnsupportedError(
                f"must hold one subgraph, not {subgraphs}; export it without control flow and "
                "with one signature"
            )
        with _reading("subgraph 0"):
            self._graph = self._model.Subgraphs(0)
            self.inputs = _integers(self._graph.InputsAsNumpy())
            self.outputs = _integers(self._graph.OutputsAsNumpy())
            self.operator_count: int = self._graph.OperatorsLength()
            self.tensor_count: int = self._graph.TensorsLength()

    def operators(self) -> list[Operator]:
        """Every operator of the subgraph but those that compute shapes."""
        every = [self.operator(index) for index in range(self.operator_count)]
        return [operator for operator in every if operator.name not in SHAPE_ARITHMETIC]

    def computes_in_float(self, operators: Sequence[Operator]) -> bool:
        """Whether all inputs and everything that is computed are float32."""
        written = [index for operator in operators for index in operator.outputs]
        return all(self.tensor(index).dtype == "float32" for index in (*self.inputs, *written))

    def operator(self, index: int) -> Operator:
        """Operator `index` of the subgraph; refuse what Napier does not know."""
        with _reading(f"operator {index}"):
            table = self._graph.Operators(index)
            code = table.OpcodeIndex()
            if code >= self._model.OperatorCodesLength():
                raise ValueError
            entry = self._model.OperatorCodes(code)
            number = max(entry.DeprecatedBuiltinCode(), entry.BuiltinCode())
            name = self._operator_names.get(number, f"number {number}")
            if name == "CUSTOM":
                name = f"CUSTOM {_text(entry.CustomCode())!r}"
            inputs = _integers(table.InputsAsNumpy())
            outputs = _integers(table.OutputsAsNumpy())
        place = place_of(self, index, name, outputs)
        if name in SHAPE_ARITHMETIC and all(self.tensor(o).dtype == "int32" for o in outputs):
            return Operator(index, name, inputs, outputs, {})
        if name not in OPTIONS:
            why = " (control flow)" if name in CONTROL_FLOW else ""
            raise UnsupportedError(
                f"{place} is not known to Napier{why}; it knows {', '.join(OPTIONS)}"
            )
        return Operator(index, name, inputs, outputs, self._options(place, name, table))

    def _options(self, place: str, name: str, table: Any) -> dict[str, Any]:
        kind, fields = OPTIONS[name]
        if not kind:
            return {}
        with _reading(f"{place}: its options"):
            options = getattr(self._schema, kind)()
            union = table.BuiltinOptions()
            expected = getattr(self._schema.BuiltinOptions, kind)
            if union is None or table.BuiltinOptionsType() != expected:
                raise ValueError
            options.Init(union.Bytes, union.Pos)
            return {field: getattr(options, field)() for field in fields}

    def tensor(self, index: int) -> FileTensor:
        """Tensor `index` of the subgraph."""
        if index not in self._tensors:
            if not 0 <= index < self.tensor_count:
                raise ModelError(
                    f"tensor {index} is named but the file has {self.tensor_count}; "
                    "the file is damaged, fetch or export it again"
                )
            self._tensors[index] = self._read_tensor(index)
        return self._tensors[index]

    def _read_tensor(self, index: int) -> FileTensor:
        with _reading(f"tensor {index}"):
            table = self._graph.Tensors(index)
            name = _text(table.Name()) or f"tensor_{index}"
        place = f"tensor {index} ({quoted(name)})"
        with _reading(place):
            if table.Sparsity() is not None:
                raise UnsupportedError(f"{place} is stored sparse; export it dense")
            if table.IsVariable():
                raise UnsupportedError(f"{place} keeps state between runs; export without state")
            number = table.Type()
            dtype = self._type_names.get(number, f"type {number}").lower()
            scales, zero_points, axis = _quantization(place, table.Quantization())
            shape = _integers(table.ShapeAsNumpy())
            data = self._buffer(place, table.Buffer())
        return FileTensor(name, shape, dtype, scales, zero_points, axis, data)

    def _buffer(self, place: str, index: int) -> NDArray[np.uint8]:
        if index >= self._model.BuffersLength():
            raise ValueError
        buffer = self._model.Buffers(index)
        if buffer.Offset() > 1:
            raise UnsupportedError(
                f"{place} keeps its data behind the flatbuffer; export a model below 2 GB"
            )
        return _vector(buffer.DataAsNumpy(), np.uint8)


def place_of(file: FlatBuffer, index: int, name: str, outputs: Sequence[int]) -> str:
    """How error messages name an operator."""
    output = f", output {quoted(file.tensor(outputs[0]).name)}" if outputs else ""
    return f"operator {index} ({name}{output})"


def quoted(name: str) -> str:
    """Name of a tensor in a message: of a fused name the first part, and not too much of it."""
    first = name.split(";")[0]
    return repr(first if len(first) <= 60 else f"{first[:60]}...")


def _quantization(place: str, table: Any) -> tuple[NDArray[np.float32], NDArray[np.int64], int]:
    if table is None:
        return np.empty(0, np.float32), np.empty(0, np.int64), 0
    if table.DetailsType() != 0:
        raise UnsupportedError(
            f"{place} is quantized by custom or blockwise details; "
            "export it with one scale per tensor or per channel"
        )
    scales = _vector(table.ScaleAsNumpy(), np.float32)
    return scales, _vector(table.ZeroPointAsNumpy(), np.int64), table.QuantizedDimension()


def _names(enumeration: type) -> dict[int, str]:
    return {v: k for k, v in vars(enumeration).items() if isinstance(v, int)}


def _vector(value: Any, dtype: type[np.generic]) -> NDArray[Any]:
    """View of a vector; flatbuffers returns the integer 0 for an absent one."""
    return np.empty(0, dtype) if isinstance(value, int) else np.asarray(value, dtype)


def _integers(value: Any) -> tuple[int, ...]:
    return tuple(_vector(value, np.int32).tolist())


def _text(value: bytes | None) -> str:
    return value.decode("utf-8") if value else ""
