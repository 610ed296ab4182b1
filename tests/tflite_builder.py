"""Builds TensorFlow Lite files for the tests: tensors and operators in, bytes out.

It writes the schema's tables with the `tflite` package's own writers, so that nothing of Napier's
reader is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import tflite
from numpy.typing import ArrayLike, NDArray

OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "ADD": "AddOptions",
    "MUL": "MulOptions",
    "CONCATENATION": "ConcatenationOptions",
    "PAD": "PadOptions",
    "PADV2": "PadV2Options",
    "RESHAPE": "ReshapeOptions",
    "SHAPE": "ShapeOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "PACK": "PackOptions",
    "SQUEEZE": "SqueezeOptions",
    "EXPAND_DIMS": "ExpandDimsOptions",
    "SOFTMAX": "SoftmaxOptions",
    "QUANTIZE": "QuantizeOptions",
    "DEQUANTIZE": "DequantizeOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
}


@dataclass
class TensorSpec:
    """A tensor to be written; `data` is None for an activation."""

    shape: tuple[int, ...]
    dtype: str
    scales: NDArray[np.float32]
    zero_points: NDArray[np.int64]
    axis: int
    data: bytes | None
    name: str
    fields: dict[str, Any]


@dataclass
class ModelBuilder:
    """Collects tensors and operators of one subgraph, then writes the file."""

    tensors: list[TensorSpec] = field(default_factory=list)
    operators: list[tuple[str, Sequence[int], Sequence[int], dict[str, Any]]] = field(
        default_factory=list
    )

    def tensor(
        self,
        shape: Sequence[int],
        dtype: str,
        scale: ArrayLike = (),
        zero_point: ArrayLike = 0,
        *,
        axis: int = 0,
        data: ArrayLike | None = None,
        name: str | None = None,
        **fields: Any,
    ) -> int:
        """Add a tensor; int4 data is given one code per element and packed here."""
        scales = np.atleast_1d(np.asarray(scale, np.float32))
        zero_points = np.atleast_1d(np.asarray(zero_point, np.int64))
        if zero_points.size == 1:
            zero_points = np.repeat(zero_points, scales.size)
        index = len(self.tensors)
        self.tensors.append(
            TensorSpec(
                tuple(int(n) for n in shape),
                dtype,
                scales,
                zero_points,
                axis,
                None if data is None else _bytes(np.asarray(data), dtype),
                f"tensor{index}" if name is None else name,
                fields,
            )
        )
        return index

    def constant(self, values: ArrayLike, dtype: str = "int32") -> int:
        """Add an unquantized constant, a shape or a list of axes."""
        array = np.asarray(values, dtype)
        return self.tensor(array.shape, dtype, data=array)

    def operator(
        self, name: str, inputs: Sequence[int], outputs: Sequence[int], **options: Any
    ) -> None:
        """Add an operator; options are the schema's field names."""
        self.operators.append((name, inputs, outputs, options))

    def build(self, inputs: Sequence[int], outputs: Sequence[int], subgraphs: int = 1) -> bytes:
        """Write the file."""
        b = flatbuffers.Builder(1024)
        buffers = [_table(b, "Buffer")]
        tensors = []
        for spec in self.tensors:
            tensors.append(_tensor(b, spec, len(buffers) if spec.data is not None else 0))
            if spec.data is not None:
                buffers.append(_table(b, "Buffer", Data=_byte_vector(b, spec.data)))
        names = list(dict.fromkeys(name for name, *_ in self.operators))
        codes = [_operator_code(b, name) for name in names]
        operators = [
            _operator(b, names.index(name), name, ins, outs, options)
            for name, ins, outs, options in self.operators
        ]
        graph = _table(
            b,
            "SubGraph",
            Tensors=_offsets(b, tensors),
            Inputs=_int32s(b, inputs),
            Outputs=_int32s(b, outputs),
            Operators=_offsets(b, operators),
            Name=b.CreateString("main"),
        )
        model = _table(
            b,
            "Model",
            Version=3,
            OperatorCodes=_offsets(b, codes),
            Subgraphs=_offsets(b, [graph] * subgraphs),
            Description=b.CreateString("random"),
            Buffers=_offsets(b, buffers),
        )
        b.Finish(model, b"TFL3")
        return bytes(b.Output())


def _bytes(values: NDArray[Any], dtype: str) -> bytes:
    if dtype != "int4":
        return values.astype(dtype).tobytes()
    codes = values.reshape(-1).astype(np.int64) & 15
    codes = np.append(codes, np.zeros(codes.size % 2, np.int64)).reshape(-1, 2)
    return (codes[:, 0] | codes[:, 1] << 4).astype(np.uint8).tobytes()


def _table(b: flatbuffers.Builder, kind: str, **fields: Any) -> int:
    getattr(tflite, f"{kind}Start")(b)
    for name, value in fields.items():
        getattr(tflite, f"{kind}Add{name}")(b, value)
    return int(getattr(tflite, f"{kind}End")(b))


def _offsets(b: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return int(b.EndVector())


def _int32s(b: flatbuffers.Builder, values: Sequence[int]) -> int:
    return int(b.CreateNumpyVector(np.asarray(values, np.int32)))


def _byte_vector(b: flatbuffers.Builder, data: bytes) -> int:
    b.StartVector(1, len(data), 16)  # the schema aligns buffers to 16 bytes
    b.head -= len(data)
    b.Bytes[b.head : b.head + len(data)] = data
    return int(b.EndVector())


def _tensor(b: flatbuffers.Builder, spec: TensorSpec, buffer: int) -> int:
    fields: dict[str, Any] = {
        "Shape": _int32s(b, spec.shape),
        "Type": getattr(tflite.TensorType, spec.dtype.upper()),
        "Buffer": buffer,
        "Name": b.CreateString(spec.name),
    }
    if spec.scales.size:
        fields["Quantization"] = _table(
            b,
            "QuantizationParameters",
            Scale=b.CreateNumpyVector(spec.scales),
            ZeroPoint=b.CreateNumpyVector(spec.zero_points),
            QuantizedDimension=spec.axis,
        )
    if spec.fields.get("Sparsity"):
        spec.fields["Sparsity"] = _table(b, "SparsityParameters")
    return _table(b, "Tensor", **fields, **spec.fields)


def _operator_code(b: flatbuffers.Builder, name: str) -> int:
    custom = {} if hasattr(tflite.BuiltinOperator, name) else {"CustomCode": b.CreateString(name)}
    number = getattr(tflite.BuiltinOperator, "CUSTOM" if custom else name)
    return _table(
        b,
        "OperatorCode",
        DeprecatedBuiltinCode=min(number, 127),
        BuiltinCode=number,
        Version=1,
        **custom,
    )


def _operator(
    b: flatbuffers.Builder,
    code: int,
    name: str,
    inputs: Sequence[int],
    outputs: Sequence[int],
    options: dict[str, Any],
) -> int:
    fields: dict[str, Any] = {
        "OpcodeIndex": code,
        "Inputs": _int32s(b, inputs),
        "Outputs": _int32s(b, outputs),
    }
    if name in OPTIONS:
        lists = {key: _int32s(b, v) for key, v in options.items() if isinstance(v, list)}
        options = {**options, **lists}
        fields["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, OPTIONS[name])
        fields["BuiltinOptions"] = _table(b, OPTIONS[name], **options)
    return _table(b, "Operator", **fields)
