"""Read a TensorFlow Lite file into a `golden.network.Network`.

What "equal to TensorFlow Lite" means is fixed by the reference kernels of TensorFlow Lite Micro
(kernels/conv_common.cc, fully_connected_common.cc, add_common.cc, ... of tflite-micro). Shapes are
re-derived from the operators by `golden.check.check_network`.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden import multipliers
from golden.check import INTEGER_FORMATS, Shape, check_network
from golden.errors import ModelError, UnsupportedError
from golden.importers.tflite_file import (
    FileTensor,
    FlatBuffer,
    Operator,
    place_of,
    quoted,
)
from golden.network import (
    OP_NAMES,
    Add,
    AveragePool2D,
    Clamp,
    Concat,
    Constant,
    Conv2D,
    DepthwiseConv2D,
    Dequantize,
    FullyConnected,
    Layer,
    MaxPool2D,
    Mean,
    Mul,
    Network,
    Pad,
    Padding,
    Quantize,
    Requantization,
    Reshape,
    ResizeNearest,
    Rounding,
    Softmax,
    Tensor,
)

MAX_ELEMENTS = 2**26
"""Elements of the largest activation tensor that is taken, padding included: it bounds memory."""

MAX_WINDOW = 64
"""Side of the largest pooling window that is taken where twice the image is less."""

MAX_SCALE = 2.0**60
"""Largest scale that is taken, so that no product of two leaves float32."""

WITH_CONSTANTS = ("ADD", "MUL", "CONCATENATION")
"""Operators that may read a stored tensor in the place of a computed one."""

ACTIVATIONS: dict[int, multipliers.Activation] = {
    0: "none",
    1: "relu",
    2: "relu_n1_to_1",
    3: "relu6",
}
"""The schema's fused activations that Napier knows."""


def load_tflite(path: str | Path) -> Network:
    """Read a quantized network from a TensorFlow Lite file.

    Parameters
    ----------
    path : str or Path
        A ``.tflite`` file (schema version 3) of one subgraph whose operators compute on integers.

    Returns
    -------
    Network
        One layer for each operator, in the file's order; tensors keep the file's names.

    Raises
    ------
    ModelError
        The file cannot be read, is damaged, or contradicts itself.
    UnsupportedError
        The file uses an operator, type or option that Napier does not know.
    """
    with reading_file(path) as file:
        return Importer(FlatBuffer(file.read_bytes()), file.stem, file.name).network()


@contextmanager
def reading_file(path: str | Path) -> Iterator[Path]:
    """Say of whatever is wrong with a model file which file it is."""
    file = Path(path)
    try:
        if not file.is_file():
            raise ModelError("there is no such file; give the path of a model file")
        yield file
    except OSError as error:
        raise ModelError(f"{file.name}: cannot be read: {error.strerror}.") from None
    except ModelError as error:
        raise type(error)(f"{file.name}: {str(error).rstrip('.')}.") from None


# -- the network ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Node:
    """An operator with its tensors at hand, and the checks that the operators share."""

    file: FlatBuffer
    operator: Operator
    layer: int  # position among the network's layers
    activations: Mapping[int, Tensor]  # by the file's index
    numbers: Mapping[int, int]  # from the file's index to the network's
    constants: Mapping[int, Tensor]  # the operands that are constant, by the file's index

    @cached_property
    def place(self) -> str:
        """How error messages name the operator."""
        return place_of(self.file, self.operator.index, self.operator.name, self.operator.outputs)

    @property
    def options(self) -> Mapping[str, Any]:
        """Options by the schema's names."""
        return self.operator.options

    def fail(self, rule: str) -> ModelError:
        """Make the error of something that no well-formed file contains."""
        return ModelError(f"{rule}; the file is damaged or was written by a bad tool")

    def check_wiring(self, low: int, high: int) -> None:
        """Demand the operator's number of inputs, one output, and no reading of that output."""
        count = len(self.operator.inputs)
        if not low <= count <= high or len(self.operator.outputs) != 1:
            wanted = f"{low}" if low == high else f"{low} to {high}"
            raise self.fail(
                f"must have {wanted} inputs and 1 output, not {count} and "
                f"{len(self.operator.outputs)}"
            )
        index = self.operator.outputs[0]
        if index in self.activations or index in self.operator.inputs:
            raise self.fail(f"must write a new tensor, not {index} again")

    def has(self, position: int) -> bool:
        """Whether an optional input is there."""
        return position < len(self.operator.inputs) and self.operator.inputs[position] != -1

    # -- activations

    def operand(self, position: int) -> Tensor:
        """Input that may also be a constant."""
        constant = self.constants.get(self.operator.inputs[position])
        return self.input(position) if constant is None else constant

    def input(self, position: int = 0) -> Tensor:
        """Input that is computed at run time."""
        index = self.operator.inputs[position]
        if index not in self.activations:
            name = self.file.tensor(index).name if index >= 0 else "none"
            if index >= 0 and self.file.tensor(index).data.size:
                raise UnsupportedError(
                    f"must read tensors computed at run time, not the constant {quoted(name)}; "
                    "fold it into a neighbouring convolution or dense layer"
                )
            raise self.fail(f"reads tensor {index} ({quoted(name)}) before any operator wrote it")
        return self.activations[index]

    def image(self) -> Tensor:
        """First input, an image."""
        tensor = self.input()
        if len(tensor.shape) != 4:
            raise self.fail(f"needs an NHWC input, not one of shape {tensor.shape}")
        return tensor

    @property
    def output(self) -> Tensor:
        """The one output."""
        return self.activations[self.operator.outputs[0]]

    def wired(self, op: str, *positions: int) -> dict[str, Any]:
        """Name, inputs and outputs of the layer."""
        for position in positions or (0,):
            self.operand(position)  # it must be there
        return {
            "name": f"{op}_{self.layer}",
            "inputs": tuple(self.numbers[self.operator.inputs[p]] for p in positions or (0,)),
            "outputs": (self.numbers[self.operator.outputs[0]],),
        }

    def integers(self, *tensors: Tensor, dtypes: Sequence[str] = ("int8", "uint8", "int16")) -> str:
        """Demand quantized tensors of one integer type, and return it."""
        dtype = tensors[0].dtype
        for tensor in tensors:
            if tensor.dtype == "float32":
                raise UnsupportedError(
                    f"computes in float32 (tensor {quoted(tensor.name)}); convert the network "
                    "with full integer quantization"
                )
            if tensor.dtype not in dtypes:
                raise UnsupportedError(
                    f"must compute on {' or '.join(dtypes)}, not {tensor.dtype} "
                    f"(tensor {quoted(tensor.name)}); convert the network with int8 quantization"
                )
            if tensor.dtype != dtype:
                raise UnsupportedError(
                    f"must have one element type, not {dtype} and {tensor.dtype}; convert the "
                    "network with one integer type throughout"
                )
            self.scale(tensor)
            if dtype == "int16" and tensor.zero_point != 0:
                raise self.fail(
                    f"must have the zero point 0 with int16 codes, not {tensor.zero_point} "
                    f"(tensor {quoted(tensor.name)})"
                )
        return dtype

    def scale(self, tensor: Tensor) -> float:
        """Scale of a tensor that must have one."""
        if tensor.scale is None:
            raise self.fail(f"needs a scale for tensor {quoted(tensor.name)}, which has none")
        return tensor.scale

    def same_quantization(self, first: Tensor, second: Tensor) -> None:
        """Demand the same scale and zero point of two tensors."""
        if (first.scale, first.zero_point) != (second.scale, second.zero_point):
            raise UnsupportedError(
                f"must keep the scale and zero point of tensor {quoted(first.name)}, "
                f"{first.scale} and {first.zero_point}, not change them to {second.scale} and "
                f"{second.zero_point}; convert the network with a current TensorFlow Lite"
            )

    # -- constants

    def constant(self, position: int, role: str, dtypes: Sequence[str]) -> FileTensor:
        """Fetch a stored tensor whose bytes match its shape."""
        if not self.has(position):
            raise self.fail(f"needs {role}")
        index = self.operator.inputs[position]
        tensor = self.file.tensor(index)
        if index in self.activations or not tensor.data.size:
            raise UnsupportedError(
                f"must have {role} stored in the file, not computed at run time "
                f"(tensor {quoted(tensor.name)}); freeze the network before converting it"
            )
        if tensor.dtype not in dtypes:
            raise UnsupportedError(
                f"must have {role} of {' or '.join(dtypes)}, not {tensor.dtype} "
                f"(tensor {quoted(tensor.name)}); convert the network with full integer "
                "quantization"
            )
        bits = 4 if tensor.dtype == "int4" else 8 * np.dtype(tensor.dtype).itemsize
        if any(size < 1 for size in tensor.shape):
            raise self.fail(f"has {role} of shape {tensor.shape}, which must be positive")
        if tensor.data.size != (prod(tensor.shape) * bits + 7) // 8:
            raise self.fail(
                f"has {role} of shape {tensor.shape} and type {tensor.dtype}, "
                f"which do not take {tensor.data.size} bytes"
            )
        return tensor

    def integer_list(self, position: int, role: str) -> list[int]:
        """Fetch stored integers."""
        values = stored_values(self.constant(position, role, ("int32", "int64")))
        return [int(v) for v in values.reshape(-1)]

    # -- options

    def positive(self, height: str, width: str) -> tuple[int, int]:
        """Two options, one for rows and one for columns, of at least 1."""
        for field in (height, width):
            if self.options[field] < 1:
                raise self.fail(f"must have {field} of at least 1, not {self.options[field]}")
        return self.options[height], self.options[width]

    def activation(self) -> multipliers.Activation:
        """Name the fused activation."""
        number = self.options["FusedActivationFunction"]
        if number not in ACTIVATIONS:
            raise UnsupportedError(
                f"must have a fused activation among {', '.join(ACTIVATIONS.values())}, "
                f"not number {number}; export the activation as an operator of its own"
            )
        return ACTIVATIONS[number]

    def activation_range(self, tensor: Tensor) -> dict[str, Any]:
        """Clamp of the fused activation in the output's codes."""
        return self.clamp(self.activation(), tensor)

    def clamp(self, activation: multipliers.Activation, tensor: Tensor) -> dict[str, Any]:
        """Clamp of an activation in the codes of `tensor`."""
        scale = self.scale(tensor)
        if activation in ("relu6", "relu_n1_to_1") and 6 / scale > 2**30:
            raise self.fail(f"must have an output scale at which {activation} fits, not {scale}")
        low, high = multipliers.activation_range(activation, tensor.dtype, scale, tensor.zero_point)
        return {"activation_min": low, "activation_max": high}

    def padding(
        self, image: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
    ) -> Padding:
        """Write SAME or VALID as rows and columns (TensorFlow Lite, kernels/padding.h)."""
        kind = self.options["Padding"]
        if kind not in (0, 1):
            raise UnsupportedError(f"must pad SAME (0) or VALID (1), not number {kind}")
        sides: list[int] = []
        for size, k, s, d in zip(image.shape[1:3], kernel, stride, dilation, strict=True):
            reach = (k - 1) * d + 1
            total = max((-(-size // s) - 1) * s + reach - size, 0) if kind == 0 else 0
            sides += [total // 2, total - total // 2]
        padding = Padding(*sides)
        padded = (image.shape[1] + sum(sides[:2])) * (image.shape[2] + sum(sides[2:]))
        if padded * image.shape[3] > MAX_ELEMENTS:
            raise UnsupportedError(
                f"must pad its input to at most {MAX_ELEMENTS} elements, "
                f"not to {padded * image.shape[3]}; use a smaller kernel or dilation"
            )
        return padding


INPUT_COUNTS = {
    "CONV_2D": (2, 3),
    "DEPTHWISE_CONV_2D": (2, 3),
    "FULLY_CONNECTED": (2, 3),
    "AVERAGE_POOL_2D": (1, 1),
    "MAX_POOL_2D": (1, 1),
    "MEAN": (2, 2),
    "ADD": (2, 2),
    "MUL": (2, 2),
    "CONCATENATION": (1, 0),
    "PAD": (2, 2),
    "PADV2": (3, 3),
    "RESHAPE": (1, 2),
    "SQUEEZE": (1, 1),
    "EXPAND_DIMS": (2, 2),
    "SOFTMAX": (1, 1),
    "RELU": (1, 1),
    "RELU6": (1, 1),
    "RELU_N1_TO_1": (1, 1),
    "QUANTIZE": (1, 1),
    "DEQUANTIZE": (1, 1),
    "RESIZE_NEAREST_NEIGHBOR": (2, 2),
}
"""Least and greatest number of inputs of each operator; 0: no upper limit."""


class Importer:
    """Turns operators into layers, one after the other."""

    constant_dtypes: tuple[str, ...] = ("int8", "uint8", "int16")

    @property
    def builders(self) -> Mapping[str, Callable[[Node], Any]]:
        """What builds each operator's layer, by the operator's name."""
        return _BUILDERS

    def __init__(self, file: FlatBuffer, name: str, source: str) -> None:
        self._file = file
        self._name = name
        self._source = source
        self._tensors: list[Tensor] = []
        self._activations: dict[int, Tensor] = {}
        self._numbers: dict[int, int] = {}
        self._constants: dict[tuple[int, Shape], Constant] = {}
        self._names: set[str] = set()

    def network(self) -> Network:
        """Read the whole network and check that it holds together."""
        layers = self._layers()
        network = Network(
            name=self._name,
            tensors=tuple(self._tensors),
            layers=layers,
            inputs=tuple(self._numbers[i] for i in self._file.inputs),
            outputs=tuple(self._numbers[i] for i in self._file.outputs),
            source=self._source,
            constants=tuple(self._constants.values()),
        )
        check_network(network)
        return network

    def _layers(self) -> tuple[Any, ...]:
        """Turn every operator into a layer."""
        file = self._file
        if not file.operator_count or not file.inputs:
            raise ModelError("must have at least one operator and one input; export it again")
        first = file.tensor(file.inputs[0])
        self._batch = first.shape[0] if first.shape else 0
        for index in file.inputs:
            self._add(index)
        operators = file.operators()
        self._check_types(operators)
        layers = tuple(self._layer(number, operator) for number, operator in enumerate(operators))
        for index in file.outputs:
            if index not in self._numbers:
                raise ModelError(f"output tensor {index} is written by no operator; export again")
        return layers

    def _check_types(self, operators: Sequence[Operator]) -> None:
        if self._file.computes_in_float(operators):
            raise UnsupportedError(
                "is a float32 network, and Napier computes on integers; quantize it with `napier "
                "quantize`, or convert it with full integer quantization"
            )

    def _layer(self, number: int, operator: Operator) -> Any:
        """Build the layer of one operator; whatever is wrong with it is said with its place."""
        node = Node(self._file, operator, number, self._activations, self._numbers, {})
        build, (low, high) = self.builders[operator.name], INPUT_COUNTS[operator.name]
        try:
            node.check_wiring(low, high or len(operator.inputs))
            self._add(operator.outputs[0])
            return build(self._with_constants(node))
        except ModelError as error:
            raise type(error)(f"{node.place}: {error}") from None

    def _add(self, index: int) -> None:
        """Make a network tensor of the activation `index`."""
        tensor = _activation(index, self._file.tensor(index), self._batch)
        self._numbers[index] = self._append(index, tensor)
        self._activations[index] = self._tensors[-1]

    def _append(self, index: int, tensor: Tensor) -> int:
        """Give the network one more tensor, under a name of its own; return its number."""
        while tensor.name in self._names:
            tensor = replace(tensor, name=f"{tensor.name}#{index}")
        self._names.add(tensor.name)
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def _with_constants(self, node: Node) -> Node:
        """Give a node the constants among its operands."""
        if node.operator.name not in WITH_CONSTANTS:
            return node
        constants = {
            index: self._constant(node, position)
            for position, index in enumerate(node.operator.inputs)
            if index >= 0 and index not in self._activations and self._file.tensor(index).data.size
        }
        numbers = {index: constant.tensor for index, constant in constants.items()}
        return replace(
            node,
            constants={index: self._tensors[number] for index, number in numbers.items()},
            numbers=ChainMap(numbers, self._numbers),
        )

    def _constant(self, node: Node, position: int) -> Constant:
        """Make a network tensor of a stored operand.

        Where shapes broadcast it gets leading axes of size 1 up to the output's rank, as TensorFlow
        Lite reads it; so one stored tensor may become several.
        """
        index = node.operator.inputs[position]
        stored = node.constant(position, "a constant operand", self.constant_dtypes)
        missing = len(node.output.shape) - len(stored.shape)
        broadcasts = node.operator.name != "CONCATENATION"
        shape = (1,) * (missing if broadcasts else 0) + stored.shape
        if shape[:1] != (1,):
            raise UnsupportedError(
                f"must have a constant operand that is the same for every sample, not of shape "
                f"{stored.shape} (tensor {quoted(stored.name)}); export the network with batch 1"
            )
        if (index, shape) not in self._constants:
            place = f"tensor {index} ({quoted(stored.name)})"
            tensor = Tensor(stored.name, shape, stored.dtype, *_per_tensor(place, stored))
            codes = stored_values(stored).reshape(shape)
            codes.setflags(write=False)
            self._constants[index, shape] = Constant(self._append(index, tensor), codes)
        return self._constants[index, shape]


def _activation(index: int, tensor: FileTensor, batch: int) -> Tensor:
    """Check an activation of the file and give it batch 1."""
    place = f"tensor {index} ({quoted(tensor.name)})"
    shape = tensor.shape
    if tensor.data.size:
        raise ModelError(f"{place} holds data although it is computed; export it again")
    if not shape or any(size < 1 for size in shape):
        raise UnsupportedError(
            f"{place} must have a fixed shape of positive sizes, not {shape}; "
            "export the network with a fixed input shape"
        )
    if prod(shape) > MAX_ELEMENTS:
        raise UnsupportedError(
            f"{place} must have at most {MAX_ELEMENTS} elements, not {prod(shape)}; "
            "export the network for a smaller input"
        )
    if shape[0] != batch:
        raise UnsupportedError(
            f"{place} must keep the batch {batch} as its first dimension, not have shape {shape}; "
            "export the network without reshaping across the batch"
        )
    if tensor.dtype not in ("int8", "uint8", "int16", "float32"):
        raise UnsupportedError(
            f"{place} must be int8, uint8, int16 or float32, not {tensor.dtype}; "
            "convert the network with full integer quantization"
        )
    scale, zero_point = _per_tensor(place, tensor)
    return Tensor(tensor.name, (1, *shape[1:]), tensor.dtype, scale, zero_point)


def _per_tensor(place: str, tensor: FileTensor) -> tuple[float | None, int]:
    """Scale and zero point of a tensor quantized as a whole."""
    if tensor.dtype == "float32" or not tensor.scales.size:
        return None, 0
    if tensor.scales.size > 1 or tensor.zero_points.size > 1:
        raise UnsupportedError(
            f"{place} must have one scale, not {tensor.scales.size}; "
            "only weights may be quantized per channel"
        )
    scale = float(tensor.scales[0])
    zero_point = int(tensor.zero_points[0]) if tensor.zero_points.size else 0
    if not 0 < scale <= MAX_SCALE:
        raise ModelError(
            f"{place} must have a scale above 0 and up to 2**60, not {scale}; export it again"
        )
    fmt = INTEGER_FORMATS[tensor.dtype]
    if not fmt.contains(zero_point):
        raise ModelError(
            f"{place} must have a zero point of {fmt.min} to {fmt.max}, not {zero_point}; "
            "export it again"
        )
    return scale, zero_point


# -- weighted layers ------------------------------------------------------------------------------


def stored_values(tensor: FileTensor) -> NDArray[Any]:
    """Decode stored numbers; of two int4 codes in a byte the first is in the low half."""
    if tensor.dtype != "int4":
        dtype = np.dtype(tensor.dtype).newbyteorder("<")
        return tensor.data.view(dtype).astype(tensor.dtype).reshape(tensor.shape)
    packed = tensor.data.view(np.int8)
    low = np.left_shift(packed, 4) >> 4  # the shift back copies the sign
    both = np.stack([low, packed >> 4], axis=-1).reshape(-1)
    return both[: prod(tensor.shape)].reshape(tensor.shape)


def _conv(node: Node) -> Layer:
    return _convolution(node, depthwise=False)


def _depthwise(node: Node) -> Layer:
    return _convolution(node, depthwise=True)


def _convolution(node: Node, *, depthwise: bool) -> Layer:
    stored, weights = _weights(node, rank=4, channel_axis=3 if depthwise else 0)
    weights, geometry = convolution_geometry(node, weights, depthwise=depthwise)
    kind = DepthwiseConv2D if depthwise else Conv2D
    return kind(**_weighted(node, kind, stored, weights), **geometry)


def convolution_geometry(
    node: Node, weights: NDArray[Any], *, depthwise: bool
) -> tuple[NDArray[Any], dict[str, Any]]:
    """Bring weights to output channels first; stride, dilation, padding and groups."""
    image = node.image()
    stride = node.positive("StrideH", "StrideW")
    dilation = node.positive("DilationHFactor", "DilationWFactor")
    padding = node.padding(image, weights.shape[1:3], stride, dilation)
    groups = in_channels = image.shape[3]
    if depthwise:
        if (
            weights.shape[0] != 1
            or weights.shape[3] != in_channels * node.options["DepthMultiplier"]
        ):
            raise node.fail(
                f"must have weights of 1 x height x width x {in_channels} input channels * "
                f"multiplier {node.options['DepthMultiplier']}, not {weights.shape}"
            )
        weights = np.ascontiguousarray(weights.transpose(3, 1, 2, 0))
    else:
        if in_channels % weights.shape[3]:
            raise node.fail(
                f"must have weights whose {weights.shape[3]} input channels divide {in_channels}"
            )
        groups = in_channels // weights.shape[3]
    return weights, {
        "stride": stride,
        "dilation": dilation,
        "padding": padding,
        "groups": groups,
    }


def _fully_connected(node: Node) -> Layer:
    stored, weights = _weights(node, rank=2, channel_axis=0)
    check_dense(node, weights)
    return FullyConnected(**_weighted(node, FullyConnected, stored, weights))


def check_dense(node: Node, weights: NDArray[Any]) -> None:
    """Demand weights (out_features, in_features) that fit the input."""
    if node.options["WeightsFormat"] != 0:
        raise UnsupportedError("must store its weights in the default order, not shuffled")
    source, output = node.input(), node.output
    rows = prod(source.shape[:-1])
    if node.options["KeepNumDims"] and output.shape != (*source.shape[:-1], weights.shape[0]):
        raise node.fail(
            f"must keep the leading dimensions of {source.shape}, not have shape {output.shape}"
        )
    if source.shape[-1] != weights.shape[1] and rows * source.shape[-1] != weights.shape[1]:
        raise node.fail(
            f"must have weights of {source.shape[-1]} input features, not {weights.shape[1]}"
        )


def _weights(node: Node, rank: int, channel_axis: int) -> tuple[FileTensor, NDArray[Any]]:
    """Weights as the file stores them, with their element type and quantization checked."""
    dtype = node.integers(node.input(), node.output)
    allowed = ("uint8",) if dtype == "uint8" else ("int8", "int4")
    stored = node.constant(1, "weights", allowed)
    if len(stored.shape) != rank:
        raise node.fail(f"must have weights of {rank} dimensions, not {stored.shape}")
    scales, zero_points = stored.scales, stored.zero_points
    channels = stored.shape[channel_axis]
    if not scales.size:
        raise node.fail(f"needs a scale for its weights {quoted(stored.name)}, which have none")
    if not bool(np.all((scales > 0) & (scales <= MAX_SCALE))):
        raise node.fail("must have weight scales above 0 and up to 2**60")
    if scales.size > 1 and (scales.size != channels or stored.axis != channel_axis):
        raise node.fail(
            f"must have one weight scale, or one for each of the {channels} channels of axis "
            f"{channel_axis}, not {scales.size} for axis {stored.axis}"
        )
    if dtype == "uint8":
        if scales.size > 1 or zero_points.size > 1:
            raise UnsupportedError("must have uint8 weights of one scale and zero point")
        if zero_points.size and not 0 <= zero_points[0] <= 255:
            raise node.fail(f"must have a weight zero point of 0 to 255, not {zero_points[0]}")
    elif np.any(zero_points):
        raise UnsupportedError(
            f"must have {stored.dtype} weights of zero point 0; convert the network with symmetric "
            "weights"
        )
    return stored, stored_values(stored)


def _weighted(
    node: Node, kind: type[Layer], stored: FileTensor, weights: NDArray[Any]
) -> dict[str, Any]:
    """Fields that convolution, depthwise convolution and dense layers share."""
    source, output = node.input(), node.output
    bias, rounding = _bias(node, weights.shape[0])
    return {
        **node.wired(OP_NAMES[kind]),
        "weights": weights,
        "weight_bits": 4 if stored.dtype == "int4" else 8,
        "weight_zero_point": int(stored.zero_points[0]) if stored.zero_points.size else 0,
        "bias": bias,
        "input_zero_point": source.zero_point,
        "output_zero_point": output.zero_point,
        "requantization": _requantization(node, stored, rounding),
        **node.activation_range(output),
    }


def _bias(node: Node, channels: int) -> tuple[NDArray[np.int64] | None, Rounding]:
    """Bias, and the rounding that its type chooses where activations are int16."""
    int16 = node.input().dtype == "int16"
    if not node.has(2):
        return None, "multiplier16" if int16 else "double"
    types: tuple[str, ...] = ("int32",)
    if int16:  # TensorFlow Lite has no int16 depthwise layer with an int32 bias
        depthwise = node.operator.name == "DEPTHWISE_CONV_2D"
        types = ("int64",) if depthwise else ("int32", "int64")
    stored = node.constant(2, "a bias", types)
    if stored.shape != (channels,):
        raise node.fail(f"must have a bias of shape ({channels},), not {stored.shape}")
    if np.any(stored.zero_points):
        raise node.fail("must have a bias of zero point 0")
    bias = stored_values(stored).astype(np.int64)
    if int(np.abs(bias).max()) >= 2**46 or int(bias.min()) == -(2**63):
        raise UnsupportedError("must have a bias below 2**46; convert the network again")
    return bias, "multiplier16" if stored.dtype == "int64" else "double"


def _requantization(node: Node, weights: FileTensor, rounding: Rounding) -> Requantization:
    """Input scale * weight scale / output scale, multiplied in the precision the kernels use."""
    # Measured on both reference interpreters: only uint8 convolutions multiply scales in float32.
    dense = node.operator.name == "FULLY_CONNECTED"
    return multipliers.convolution_requantization(
        node.scale(node.input()),
        weights.scales.tolist(),
        node.scale(node.output),
        float32_product=weights.dtype == "uint8" and not dense,
        rounding=rounding,
    )


# -- layers without weights -----------------------------------------------------------------------


def _pool(kind: type[AveragePool2D] | type[MaxPool2D]) -> Callable[[Node], Layer]:
    def build(node: Node) -> Layer:
        node.integers(node.image(), node.output)
        return kind(
            **node.wired(OP_NAMES[kind]),
            **window_geometry(node),
            **node.activation_range(node.output),
        )

    return build


def window_geometry(node: Node) -> dict[str, Any]:
    """Kernel, stride and padding of a pool."""
    image = node.image()
    kernel = node.positive("FilterHeight", "FilterWidth")
    stride = node.positive("StrideH", "StrideW")
    limit = [max(MAX_WINDOW, 2 * size) for size in image.shape[1:3]]
    if kernel[0] > limit[0] or kernel[1] > limit[1]:
        raise UnsupportedError(
            f"must have a window of at most {limit[0]} x {limit[1]}, not {kernel[0]} x "
            f"{kernel[1]}; use one that just covers the image"
        )
    padding = node.padding(image, kernel, stride, (1, 1))
    return {"kernel": kernel, "stride": stride, "padding": padding}


def _mean(node: Node) -> Layer:
    source, output = node.input(), node.output
    node.integers(source, output)
    axes = mean_axes(node)
    count = prod(source.shape[axis] for axis in axes)
    return Mean(
        **node.wired(OP_NAMES[Mean]),
        axes=axes,
        keep_dims=bool(node.options["KeepDims"]),
        input_zero_point=source.zero_point,
        output_zero_point=output.zero_point,
        requantization=multipliers.mean_requantization(
            node.scale(source), node.scale(output), count
        ),
        **node.clamp("none", output),
    )


def mean_axes(node: Node) -> tuple[int, ...]:
    """Axes of a mean, counted from 0, in order."""
    rank = len(node.input().shape)
    axes = tuple(sorted({a + rank if a < 0 else a for a in node.integer_list(1, "axes")}))
    if not axes or not 0 <= axes[0] <= axes[-1] < rank:
        raise node.fail(f"must average over axes of its {rank} dimensions, not {axes}")
    if axes[0] == 0:
        raise UnsupportedError("must not average over the batch; export it with other axes")
    return axes


def _add(node: Node) -> Layer:
    first, second, output = node.operand(0), node.operand(1), node.output
    dtype = node.integers(first, second, output)
    parameters = multipliers.add_parameters(
        node.scale(first), node.scale(second), node.scale(output), dtype
    )
    return Add(
        **node.wired(OP_NAMES[Add], 0, 1),
        input_zero_points=(first.zero_point, second.zero_point),
        output_zero_point=output.zero_point,
        left_shift=parameters.left_shift,
        input_requantizations=parameters.input_requantizations,
        output_requantization=parameters.output_requantization,
        **node.activation_range(output),
    )


def _mul(node: Node) -> Layer:
    first, second, output = node.operand(0), node.operand(1), node.output
    node.integers(first, second, output)
    return Mul(
        **node.wired(OP_NAMES[Mul], 0, 1),
        input_zero_points=(first.zero_point, second.zero_point),
        output_zero_point=output.zero_point,
        requantization=multipliers.mul_requantization(
            node.scale(first), node.scale(second), node.scale(output)
        ),
        **node.activation_range(output),
    )


def _concat(node: Node) -> Layer:
    positions = range(len(node.operator.inputs))
    inputs, output = [node.operand(p) for p in positions], node.output
    dtype = node.integers(*inputs, output)
    if node.options["FusedActivationFunction"] != 0:
        raise UnsupportedError("must have no fused activation; export it as an operator of its own")
    pairs = tuple((node.scale(tensor), tensor.zero_point) for tensor in inputs)
    rescale = None
    if any(pair != (output.scale, output.zero_point) for pair in pairs):
        if dtype != "uint8":
            for tensor in inputs:
                node.same_quantization(tensor, output)
        if not all(2**-30 < scale / node.scale(output) < 2**30 for scale, _ in pairs):
            raise node.fail(f"must join scales that are comparable, not {pairs}")
        rescale = pairs
    return Concat(
        **node.wired(OP_NAMES[Concat], *positions),
        axis=concat_axis(node),
        rescale=rescale,
    )


def concat_axis(node: Node) -> int:
    """Axis of a concatenation, counted from 0."""
    axis: int = node.options["Axis"]
    return axis + len(node.output.shape) if axis < 0 else axis


def _pad(node: Node) -> Layer:
    source, output = node.input(), node.output
    node.integers(source, output)
    node.same_quantization(source, output)
    value = output.zero_point
    if node.operator.name == "PADV2":
        value = int(stored_values(node.constant(2, "a fill value", (source.dtype,))).reshape(-1)[0])
    return Pad(
        **node.wired(OP_NAMES[Pad]),
        paddings=pad_amounts(node),
        value=value,
    )


def pad_amounts(node: Node) -> tuple[tuple[int, int], ...]:
    """Rows that a pad adds before and after each axis."""
    amounts = node.integer_list(1, "paddings")
    rank = len(node.input().shape)
    if len(amounts) != 2 * rank:
        raise node.fail(f"must have {2 * rank} paddings, not {len(amounts)}")
    return tuple(zip(amounts[::2], amounts[1::2], strict=True))


def _reshape(node: Node) -> Layer:
    node.integers(node.input(), node.output)
    return Reshape(**node.wired(OP_NAMES[Reshape]))


SOFTMAX_OUTPUTS = {
    ("int8", "int8"): (1 / 256, -128),
    ("uint8", "uint8"): (1 / 256, 0),
    ("int8", "int16"): (1 / 65536, -32768),
    ("int16", "int16"): (1 / 32768, 0),
}
"""Scale and zero point that softmax's output must have, by input and output type."""


def _softmax(node: Node) -> Layer:
    source, output = node.input(), node.output
    node.integers(source)
    beta = softmax_beta(node)
    wanted = SOFTMAX_OUTPUTS.get((source.dtype, output.dtype))
    if wanted != (output.scale, output.zero_point):
        raise UnsupportedError(
            f"must turn int8 into int8 or int16, or int16 into int16, and have an output of "
            f"scale and zero point {wanted}, not {output.dtype} of {output.scale} and "
            f"{output.zero_point}; convert the network with a current TensorFlow Lite"
        )
    parameters = multipliers.softmax_parameters(beta, node.scale(source), source.dtype)
    return Softmax(
        **node.wired(OP_NAMES[Softmax]),
        multiplier=parameters.multiplier,
        shift=parameters.shift,
        diff_min=parameters.diff_min,
    )


def softmax_beta(node: Node) -> float:
    """Factor of a softmax's input."""
    beta = float(node.options["Beta"])
    if not 0 < beta <= MAX_SCALE:
        raise node.fail(f"must have a beta above 0 and up to 2**60, not {beta}")
    return beta


def _clamp(activation: multipliers.Activation) -> Callable[[Node], Layer]:
    def build(node: Node) -> Layer:
        source, output = node.input(), node.output
        node.integers(source, output)
        return Clamp(
            **node.wired(OP_NAMES[Clamp]),
            input_zero_point=source.zero_point,
            output_zero_point=output.zero_point,
            requantization=multipliers.requantization(node.scale(source) / node.scale(output)),
            **node.clamp(activation, output),
        )

    return build


def _quantize(node: Node) -> Layer:
    source, output = node.input(), node.output
    node.integers(output)
    requantization = None
    if source.dtype != "float32":
        requantization = multipliers.requantization(node.scale(source) / node.scale(output))
    return Quantize(
        **node.wired(OP_NAMES[Quantize]),
        input_zero_point=source.zero_point,
        output_zero_point=output.zero_point,
        requantization=requantization,
    )


def _dequantize(node: Node) -> Layer:
    source = node.input()
    node.integers(source)
    return Dequantize(
        **node.wired(OP_NAMES[Dequantize]), scale=node.scale(source), zero_point=source.zero_point
    )


def _resize(node: Node) -> Layer:
    source, output = node.input(), node.output
    node.integers(source, output)
    return ResizeNearest(**node.wired(OP_NAMES[ResizeNearest]), **resize_options(node))


def resize_options(node: Node) -> dict[str, Any]:
    """Which pixel a resize takes."""
    size, shape = tuple(node.integer_list(1, "a size")), node.output.shape
    if len(shape) != 4 or size != shape[1:3]:
        raise node.fail(f"must resize to its output shape {shape}, not to {size}")
    return {
        "align_corners": bool(node.options["AlignCorners"]),
        "half_pixel_centers": bool(node.options["HalfPixelCenters"]),
    }


_BUILDERS: dict[str, Callable[[Node], Layer]] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "AVERAGE_POOL_2D": _pool(AveragePool2D),
    "MAX_POOL_2D": _pool(MaxPool2D),
    "MEAN": _mean,
    "ADD": _add,
    "MUL": _mul,
    "CONCATENATION": _concat,
    "PAD": _pad,
    "PADV2": _pad,
    "RESHAPE": _reshape,
    "SQUEEZE": _reshape,
    "EXPAND_DIMS": _reshape,
    "SOFTMAX": _softmax,
    "RELU": _clamp("relu"),
    "RELU6": _clamp("relu6"),
    "RELU_N1_TO_1": _clamp("relu_n1_to_1"),
    "QUANTIZE": _quantize,
    "DEQUANTIZE": _dequantize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
}
"""What builds each operator's layer."""
