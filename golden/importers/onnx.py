"""Read a float ONNX file into a `golden.float_network.FloatNetwork`.

ONNX images are NCHW and the network's are NHWC. No layer moves data for it: every value knows which
axis of the stored tensor each of its axes is, a transpose only renames axes, and dense layers after
a flattened image get their weights in the order in which the image is stored. Batch normalisation
and sums and products with a constant for each channel are folded into the layer before them, or
into the one behind.

Nodes that read nothing but constants (or shapes) are computed by ONNX's reference evaluator. Needs
the package ``onnx``.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.errors import ModelError, NapierError, ToolError, UnsupportedError
from golden.float_network import (
    FloatActivation,
    FloatAdd,
    FloatArray,
    FloatConcat,
    FloatConstant,
    FloatConv2D,
    FloatDense,
    FloatLayer,
    FloatMean,
    FloatMul,
    FloatNetwork,
    FloatPad,
    FloatPool2D,
    FloatReshape,
    FloatSoftmax,
    FloatTensor,
    FloatWeighted,
)
from golden.float_run import check_float_network
from golden.importers.float_graph import fold_constants, fuse_activations
from golden.importers.tflite import MAX_ELEMENTS, reading_file
from golden.multipliers import Activation
from golden.network import Padding

Array = NDArray[Any]
Shape = tuple[int, ...]

CHANNELS_FIRST = (0, 3, 1, 2)
"""Where the axes of an NCHW value are in a stored NHWC tensor."""

CLIPS: dict[tuple[float, float], Activation] = {
    (0.0, float("inf")): "relu",
    (0.0, 6.0): "relu6",
    (-1.0, 1.0): "relu_n1_to_1",
}
"""Limits of Clip that are activations."""

AUTOMATIC_PADS = (b"NOTSET", b"SAME_UPPER", b"SAME_LOWER", b"VALID")

PASSED_ON = ("Identity", "Dropout", "Cast")
"""Operators that leave values as they are, at inference and among floats."""


@dataclass(frozen=True)
class Value:
    """A value of the graph and where it is stored.

    Parameters
    ----------
    tensor : int
        Index into the network's tensors.
    shape : tuple of int
        As ONNX has it, with a batch of 1.
    axes : tuple of int
        Axis of the stored tensor for each of the value's axes.
    features : int64 array or None
        Of a flattened image: position in the stored row of each of the value's features.
    """

    tensor: int
    shape: Shape
    axes: tuple[int, ...]
    features: NDArray[np.int64] | None = None

    @property
    def stored_shape(self) -> Shape:
        """Shape of the stored tensor."""
        return tuple(self.shape[self.axes.index(axis)] for axis in range(len(self.shape)))

    def positions(self) -> NDArray[np.int64]:
        """Position in a stored sample of every element of the value, in the value's order."""
        if self.features is not None:
            return self.features
        return _positions(self.shape, self.axes)


def _positions(shape: Shape, axes: tuple[int, ...]) -> NDArray[np.int64]:
    stored = tuple(shape[axes.index(axis)] for axis in range(len(shape)))
    return np.arange(prod(shape)).reshape(stored).transpose(axes).reshape(-1)


def load_onnx(path: str | Path) -> FloatNetwork:
    """Read a float network from an ONNX file.

    Parameters
    ----------
    path : str or Path
        An ``.onnx`` file of a plain convolutional network; its batch may be free.

    Returns
    -------
    FloatNetwork
        Images NHWC, also those that are inputs and outputs.

    Raises
    ------
    ModelError
        The file cannot be read, or contradicts itself.
    UnsupportedError
        The file uses an operator or attribute that Napier does not know.
    ToolError
        The package ``onnx`` is missing.
    """
    try:
        onnx = importlib.import_module("onnx")
    except ImportError:
        raise ToolError(
            "reading ONNX files needs the package onnx, which is not installed;"
            " pip install 'napier-sim[onnx]'"
        ) from None
    with reading_file(path) as file:
        try:
            model = onnx.load(str(file))
            onnx.checker.check_model(model)
        except OSError:
            raise
        except Exception as error:  # protobuf and the checker raise classes of their own
            raise _not_valid(error) from None
        try:
            with np.errstate(all="ignore"):  # what is not finite is said of the layer
                network = _Importer(onnx, model, file.stem, file.name).network()
        except NapierError:
            raise
        except Exception:
            _check_consistent(onnx, model)  # a file that contradicts itself may do anything
            raise
        _check_consistent(onnx, model)
        return network


def _not_valid(error: Exception) -> ModelError:
    """Say in one sentence what ONNX's own checks say."""
    text = re.sub(r"\[\w+\] |Inference error\(s\): ", "", str(error)).strip() or "damaged"
    return ModelError(
        f"must be a valid ONNX model, but is not ({text.splitlines()[0].rstrip('.')}); export the"
        " network again"
    )


def _check_consistent(onnx: Any, model: Any) -> None:
    """Let ONNX infer all types and shapes; those that the file gives of its outputs do not count.

    Raises
    ------
    ModelError
        An operator cannot read what it is given.
    """
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    try:
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        raise _not_valid(error) from None


@dataclass(frozen=True)
class Node:
    """An operator of the graph."""

    index: int
    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    @property
    def place(self) -> str:
        """How error messages name the operator."""
        return f"node {self.index} ({self.op}{f' {self.name!r}' if self.name else ''})"


class _Importer:
    """Turns nodes into layers, one after the other."""

    def __init__(self, onnx: Any, model: Any, name: str, source: str) -> None:
        self.onnx = onnx
        self.model = model
        self.name = name
        self.source = source
        self.opset = max(
            (each.version for each in model.opset_import if each.domain in ("", "ai.onnx")),
            default=1,
        )
        self.tensors: list[FloatTensor] = []
        self.layers: list[FloatLayer] = []
        self.stored: list[FloatConstant] = []
        self.values: dict[str, Value] = {}
        self.constants: dict[str, Array] = {
            each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer
        }
        graph = model.graph
        self.reads = Counter(name for node in graph.node for name in node.input)
        self.reads.update(output.name for output in graph.output)
        self.batch = 1
        """Samples that the file computes at once, where it says so."""

    def network(self) -> FloatNetwork:
        """Read the whole graph and check that it holds together."""
        graph = self.model.graph
        inputs = [each for each in graph.input if each.name not in self.constants]
        indices = tuple(self._input(each).tensor for each in inputs)
        for index, node in enumerate(graph.node):
            attributes = {
                each.name: self.onnx.helper.get_attribute_value(each) for each in node.attribute
            }
            self._node(
                Node(
                    index,
                    node.op_type,
                    node.name,
                    tuple(node.input),
                    tuple(node.output),
                    attributes,
                ),
                node,
            )
        network = FloatNetwork(
            name=self.name,
            tensors=tuple(self.tensors),
            layers=tuple(self.layers),
            inputs=indices,
            outputs=self._outputs([each.name for each in graph.output]),
            source=self.source,
            constants=tuple(self.stored),
        )
        check_float_network(network)
        return fold_constants(fuse_activations(network))

    # -- the border of the graph

    def _input(self, info: Any) -> Value:
        """Make a tensor of an input; images are stored NHWC, whatever the file takes."""
        kind = info.type.tensor_type
        if kind.elem_type != self.onnx.TensorProto.FLOAT:
            found = self.onnx.TensorProto.DataType.Name(kind.elem_type).lower()
            raise UnsupportedError(
                f"input {info.name!r} must be float32, not {found}; export the model in float32,"
                " before it is quantized"
            )
        sizes = [each.dim_value for each in kind.shape.dim]
        if not sizes or any(size < 1 for size in sizes[1:]):
            raise UnsupportedError(
                f"input {info.name!r} must have a fixed shape behind the batch, not {sizes};"
                " export the model for one input size"
            )
        self.batch = max(self.batch, sizes[0])
        shape = (1, *sizes[1:])
        if prod(shape) > MAX_ELEMENTS:
            raise UnsupportedError(
                f"input {info.name!r} must have at most {MAX_ELEMENTS} elements, not {prod(shape)};"
                " export the model for a smaller input"
            )
        axes = tuple(range(len(shape)))
        if len(shape) == 4 and not self._channels_last(info.name):
            axes = CHANNELS_FIRST
        value = Value(len(self.tensors), shape, axes)
        self.tensors.append(FloatTensor(info.name, value.stored_shape))
        self.values[info.name] = value
        return value

    def _channels_last(self, name: str) -> bool:
        """Whether an input is first of all transposed from NHWC to NCHW."""
        for node in self.model.graph.node:
            if name in node.input:
                attributes = {each.name: list(each.ints) for each in node.attribute}
                return bool(node.op_type == "Transpose" and attributes.get("perm") == [0, 3, 1, 2])
        return False

    def _output(self, name: str) -> int:
        if name not in self.values:
            raise UnsupportedError(
                f"output {name!r} must be computed from the inputs, not constant"
            )
        value = self.values[name]
        if value.features is not None:
            raise UnsupportedError(
                f"output {name!r} must not be a flattened image; leave the flattening out"
            )
        if value.tensor in (self.values[each.name].tensor for each in self._graph_inputs()):
            raise UnsupportedError(f"output {name!r} must be computed, not an input of the network")
        if value.axes not in (CHANNELS_FIRST, tuple(range(len(value.axes)))):
            raise UnsupportedError(
                f"output {name!r} must not end in a transpose, which moves no data here; leave the"
                " transpose out, and do it on the outputs"
            )
        return value.tensor

    def _outputs(self, names: list[str]) -> tuple[int, ...]:
        tensors = [self._output(name) for name in names]
        for i, tensor in enumerate(tensors):
            first = tensors.index(tensor)
            if first != i:
                raise UnsupportedError(
                    f"outputs {names[first]!r} and {names[i]!r} must be computed apart, not be two"
                    " shapes of one value; leave one of them out"
                )
        return tuple(tensors)

    def _graph_inputs(self) -> list[Any]:
        return [each for each in self.model.graph.input if each.name in self.values]

    # -- one node

    def _node(self, node: Node, proto: Any) -> None:
        """Build the layers of one node; whatever is wrong with it is said with its place."""
        try:
            if proto.domain not in ("", "ai.onnx"):
                raise UnsupportedError(
                    f"is of the domain {proto.domain!r}, which is not known to Napier; export the"
                    " model with ONNX's own operators, before it is quantized"
                )
            if node.op == "Shape" and node.inputs[0] in self.values:
                sizes = self.values[node.inputs[0]].shape
                shape = np.array([self.batch, *sizes[1:]], np.int64)
                start, end = node.attributes.get("start", 0), node.attributes.get("end")
                self.constants[node.outputs[0]] = shape[start:end]
            elif not any(name in self.values for name in node.inputs):
                self._fold(node, proto)
            elif node.op in _BUILDERS:
                value = _BUILDERS[node.op](self, node)
                self.values[node.outputs[0]] = value
            else:
                quantized = "Quantize" in node.op or node.op in ("Quant", "QLinearConv")
                raise UnsupportedError(
                    "is not known to Napier; "
                    + (
                        "export the model before it is quantized"
                        if quantized
                        else f"it knows {', '.join(sorted(_BUILDERS))}"
                    )
                )
        except ModelError as error:
            raise type(error)(f"{node.place}: {error}") from None

    def _fold(self, node: Node, proto: Any) -> None:
        """Compute a node all of whose inputs are constants."""
        reference = importlib.import_module("onnx.reference")
        names = [name for name in node.inputs if name]
        helper = self.onnx.helper
        graph = helper.make_graph(
            [proto],
            "folded",
            [helper.make_empty_tensor_value_info(name) for name in names],
            [helper.make_empty_tensor_value_info(name) for name in node.outputs if name],
        )
        opsets = self.model.opset_import
        if node.op in ("QuantizeLinear", "DequantizeLinear"):
            # The evaluator knows them from operator set 19 on, which only adds element types.
            opsets = [helper.make_opsetid("", max(self.opset, 19))]
        try:
            model = helper.make_model(graph, opset_imports=opsets)
            results = reference.ReferenceEvaluator(model).run(
                None, {name: self.constants[name] for name in names}
            )
        except Exception:  # whatever the evaluator does not know or cannot compute
            raise UnsupportedError(
                "must be computable from its constants; simplify the model before exporting it"
            ) from None
        outputs = [name for name in node.outputs if name]
        self.constants.update(
            {name: np.asarray(each) for name, each in zip(outputs, results, strict=True)}
        )

    # -- what nodes read

    def value(self, node: Node, position: int = 0) -> Value:
        """Input that is computed at run time."""
        name = node.inputs[position] if position < len(node.inputs) else ""
        if name not in self.values:
            raise UnsupportedError(f"must compute input {position} at run time; fold it away")
        return self.values[name]

    def constant(self, node: Node, position: int, role: str) -> Array | None:
        """Input that is stored; None where it is left out."""
        name = node.inputs[position] if position < len(node.inputs) else ""
        if not name:
            return None
        if name not in self.constants:
            raise UnsupportedError(
                f"must have {role} stored in the file, not computed at run time; export the model"
                " for inference"
            )
        return self.constants[name]

    def required(self, node: Node, position: int, role: str) -> Array:
        """Input that is stored and must be there."""
        found = self.constant(node, position, role)
        if found is None:
            raise ModelError(f"needs {role}; export the model again")
        return found

    def image(self, node: Node) -> Value:
        """First input, which must be a batch of NCHW images."""
        value = self.value(node)
        if len(value.shape) != 4:
            raise UnsupportedError(
                f"must read images (N, C, H, W), not {value.shape}; use two dimensions of space"
            )
        if value.axes != CHANNELS_FIRST:
            raise UnsupportedError(
                "must read images whose axes are in the order N, C, H, W, but a transpose or"
                " reshape changed it; export the model without"
            )
        return value

    def plain(self, value: Value) -> Value:
        """Demand a value whose features are in the stored order."""
        if value.features is not None:
            raise UnsupportedError(
                "must not read a flattened image, whose order only dense layers can follow; put a"
                " dense layer or a global pool between them"
            )
        return value

    # -- what nodes write

    def append(self, node: Node, layer: FloatLayer, shape: Shape, axes: tuple[int, ...]) -> Value:
        """Add a layer, and the tensor that it writes."""
        if prod(shape) > MAX_ELEMENTS:
            raise UnsupportedError(
                f"must write at most {MAX_ELEMENTS} elements, not {prod(shape)}; use smaller images"
            )
        value = Value(len(self.tensors), shape, axes)
        self.tensors.append(FloatTensor(node.outputs[0], value.stored_shape))
        self.layers.append(replace(layer, outputs=(value.tensor,)))
        return value

    def name_of(self, op: str) -> str:
        """Name a layer by its operator and its place."""
        return f"{op}_{len(self.layers)}"

    def store(self, name: str, values: Array) -> int:
        """Make a tensor of a constant operand."""
        taken = {tensor.name for tensor in self.tensors}
        while name in taken:
            name += "#"
        self.tensors.append(FloatTensor(name, values.shape))
        values = np.ascontiguousarray(values, np.float32)
        self.stored.append(FloatConstant(len(self.tensors) - 1, values))
        return len(self.tensors) - 1

    def maker(self, node: Node, value: Value) -> int | None:
        """Find the layer that multiplies, writes `value`, and that nothing but `node` reads."""
        if self.reads[node.inputs[0]] != 1:
            return None
        for number, layer in enumerate(self.layers):
            if isinstance(layer, FloatWeighted) and layer.outputs == (value.tensor,):
                return number
        return None

    def rescale(self, number: int, factor: Array, addend: Array) -> None:
        """Let a layer that multiplies compute factor * y + addend, for each output channel."""
        layer = self.layers[number]
        assert isinstance(layer, FloatWeighted)  # as `maker` found it
        column = factor.reshape(-1, *[1] * (layer.weights.ndim - 1))
        self.layers[number] = replace(
            layer,
            weights=(layer.weights * column).astype(np.float32),
            bias=(layer.bias * factor + addend).astype(np.float32),
        )


def _integers(node: Node, name: str, default: Sequence[int]) -> list[int]:
    return [int(each) for each in node.attributes.get(name, default)]


# -- layers that multiply -------------------------------------------------------------------------


def _conv(importer: _Importer, node: Node) -> Value:
    image = importer.image(node)
    weights = importer.required(node, 1, "weights").astype(np.float32)
    if weights.ndim != 4:
        raise UnsupportedError(f"must have weights of 4 dimensions, not {weights.shape}")
    groups = int(node.attributes.get("group", 1))
    if image.shape[1] != groups * weights.shape[1] or weights.shape[0] % groups:
        raise ModelError(
            f"must have weights for {image.shape[1]} input channels in {groups} groups, not"
            f" {weights.shape}; export the model again"
        )
    bias = importer.constant(node, 2, "a bias")
    window = _window(node, image.shape[2:], weights.shape[2:])
    depthwise = groups > 1 and weights.shape[1] == 1
    layer = FloatConv2D(
        name=importer.name_of("depthwise" if depthwise else "conv"),
        inputs=(image.tensor,),
        outputs=(),
        weights=np.ascontiguousarray(weights.transpose(0, 2, 3, 1)),
        bias=_bias(bias, len(weights)),
        activation="none",
        stride=window.stride,
        dilation=window.dilation,
        padding=window.padding,
        groups=groups,
    )
    shape = (1, len(weights), *window.output)
    return importer.append(node, layer, shape, CHANNELS_FIRST)


def _bias(bias: Array | None, channels: int) -> FloatArray:
    if bias is None:
        return np.zeros(channels, np.float32)
    if bias.size not in (1, channels) or (bias.ndim and bias.shape[-1] != bias.size):
        raise UnsupportedError(
            f"must have a bias of one value for each of its {channels} outputs, not {bias.shape}"
        )
    return np.broadcast_to(bias.reshape(-1), channels).astype(np.float32)


def _gemm(importer: _Importer, node: Node) -> Value:
    attributes = node.attributes
    if attributes.get("transA", 0):
        raise UnsupportedError("must not transpose its first operand (transA=1); use transA=0")
    source = importer.value(node)
    weights = importer.required(node, 1, "weights").astype(np.float32)
    matrix = weights if attributes.get("transB", 0) else weights.T
    bias = _bias(importer.constant(node, 2, "a bias"), len(matrix))
    scaled = matrix * np.float32(attributes.get("alpha", 1.0))
    return _dense(importer, node, source, scaled, bias * np.float32(attributes.get("beta", 1.0)))


def _matmul(importer: _Importer, node: Node) -> Value:
    source = importer.value(node)
    weights = importer.required(node, 1, "weights").astype(np.float32)
    return _dense(importer, node, source, weights.T, np.zeros(weights.shape[-1], np.float32))


def _dense(
    importer: _Importer, node: Node, source: Value, matrix: FloatArray, bias: FloatArray
) -> Value:
    """Dense layer of weights (out_features, in_features) in the value's order of features."""
    if source.axes == CHANNELS_FIRST:
        raise UnsupportedError("must read rows of features, not images; flatten them first")
    if source.axes != tuple(range(len(source.shape))):
        raise UnsupportedError(
            "must read rows of features as they are stored, not transposed ones; export the model"
            " without the transpose"
        )
    if matrix.ndim != 2:
        raise UnsupportedError(
            f"must have weights of 2 dimensions, not {matrix.shape[::-1]}; write them as a matrix"
        )
    if matrix.shape[1] != source.shape[-1]:
        raise ModelError(
            f"must have weights for {source.shape[-1]} features, not {matrix.shape[::-1]};"
            " export the model again"
        )
    if source.features is not None:
        stored = np.empty_like(matrix)
        stored[:, source.features] = matrix
        matrix = stored
    layer = FloatDense(
        name=importer.name_of("dense"),
        inputs=(source.tensor,),
        outputs=(),
        weights=np.ascontiguousarray(matrix),
        bias=bias,
        activation="none",
    )
    shape = (*source.shape[:-1], len(matrix))
    return importer.append(node, layer, shape, tuple(range(len(shape))))


def _batch_normalization(importer: _Importer, node: Node) -> Value:
    if node.attributes.get("training_mode", 0):
        raise UnsupportedError("must not train (training_mode=1); export the model for inference")
    value = importer.value(node)
    scale, shift, mean, variance = (
        importer.required(node, position, "stored statistics").astype(np.float64)
        for position in range(1, 5)
    )
    factor = scale / np.sqrt(variance + float(node.attributes.get("epsilon", 1e-5)))
    return _affine(importer, node, value, factor, shift - mean * factor)


def _affine(importer: _Importer, node: Node, value: Value, factor: Array, addend: Array) -> Value:
    """Compute factor * x + addend for each channel, in the layer before where that is possible."""
    if value.axes not in (CHANNELS_FIRST, (0, 1)):
        raise UnsupportedError(
            f"must read images (N, C, H, W) or rows of features, not {value.shape}"
        )
    channels = value.shape[1]
    if factor.shape != (channels,):
        raise ModelError(f"must have one value for each of {channels} channels")
    number = importer.maker(node, value)
    if number is not None:
        importer.rescale(number, factor, addend)
        return value
    if len(value.shape) == 4:
        depthwise = FloatConv2D(
            name=importer.name_of("depthwise" if channels > 1 else "conv"),
            inputs=(value.tensor,),
            outputs=(),
            weights=factor.reshape(channels, 1, 1, 1).astype(np.float32),
            bias=addend.astype(np.float32),
            activation="none",
            groups=channels,
        )
        return importer.append(node, depthwise, value.shape, value.axes)
    if not addend.any():
        return _with_constant(importer, node, value, FloatMul, factor)
    product = replace(node, outputs=(f"{node.outputs[0]}_product",))
    value = _with_constant(importer, product, value, FloatMul, factor)
    return _with_constant(importer, node, value, FloatAdd, addend)


# -- element by element ---------------------------------------------------------------------------


def _sum_or_product(kind: type[FloatAdd] | type[FloatMul], inverse: bool) -> Callable[..., Value]:
    """Add, Sub, Mul and Div: with a constant, or of two values."""

    def build(importer: _Importer, node: Node) -> Value:
        if len(node.inputs) != 2:
            raise UnsupportedError(f"must have 2 operands, not {len(node.inputs)}; chain them")
        first, second = (name in importer.values for name in node.inputs)
        if first and second:
            if inverse:
                raise UnsupportedError(
                    f"must not be between two computed values; write {node.op} by a constant as"
                    " a product or sum"
                )
            return _of_two_values(importer, node, kind)
        if inverse and not first:
            raise UnsupportedError("must have its constant as the second operand; turn it round")
        operand = importer.constants[node.inputs[1 if first else 0]].astype(np.float64)
        if inverse:
            operand = -operand if kind is FloatAdd else 1 / operand
        node = replace(node, inputs=node.inputs if first else node.inputs[::-1])
        return _with_operand(importer, node, importer.value(node), kind, operand)

    return build


def _with_operand(
    importer: _Importer,
    node: Node,
    value: Value,
    kind: type[FloatAdd] | type[FloatMul],
    operand: Array,
) -> Value:
    """Sum or product with a constant; one value for each channel is folded where possible."""
    rank = len(value.shape)
    if operand.ndim > rank:
        raise UnsupportedError(f"must have a constant of at most {rank} dimensions")
    full = operand.reshape((1,) * (rank - operand.ndim) + operand.shape)
    channel_axis = value.axes.index(rank - 1)
    number = importer.maker(node, value)
    channels = value.shape[channel_axis]
    by_channel = full.size == full.shape[channel_axis] and full.size in (1, channels)
    if by_channel and number is not None and value.features is None:
        each = np.broadcast_to(full.reshape(-1), channels)
        one, zero = np.ones(len(each)), np.zeros(len(each))
        importer.rescale(number, *((one, each) if kind is FloatAdd else (each, zero)))
        return value
    return _with_constant(importer, node, value, kind, full)


def _with_constant(
    importer: _Importer,
    node: Node,
    value: Value,
    kind: type[FloatAdd] | type[FloatMul],
    operand: Array,
) -> Value:
    """Sum or product with a stored tensor."""
    rank = len(value.shape)
    full = operand.reshape((1,) * (rank - operand.ndim) + operand.shape)
    fits = all(n in (1, size) for n, size in zip(full.shape, value.shape, strict=True))
    if full.shape[0] != 1 or not fits:
        raise UnsupportedError(
            f"must have a constant that broadcasts to {value.shape}, not {operand.shape}"
        )
    stored = full.transpose([value.axes.index(axis) for axis in range(rank)])
    if value.features is not None and full.size > 1:
        stored = np.empty((1, len(value.features)))
        stored[0, value.features] = np.broadcast_to(full, value.shape)[0]
    index = importer.store(f"{node.outputs[0]}_constant", stored)
    op = "add" if kind is FloatAdd else "mul"
    layer = kind(importer.name_of(op), (value.tensor, index), ())
    written = importer.append(node, layer, value.shape, value.axes)
    return replace(written, features=value.features)


def _of_two_values(importer: _Importer, node: Node, kind: type[FloatAdd] | type[FloatMul]) -> Value:
    first, second = (importer.plain(importer.value(node, position)) for position in (0, 1))
    if first.axes != second.axes:
        raise UnsupportedError(
            f"must have operands of the same order of axes, not {first.shape} and {second.shape};"
            " remove the transpose of one of them"
        )
    try:
        shape = np.broadcast_shapes(first.shape, second.shape)
    except ValueError:
        raise ModelError(
            f"must have shapes that broadcast, not {first.shape} and {second.shape}"
        ) from None
    op = "add" if kind is FloatAdd else "mul"
    layer = kind(importer.name_of(op), (first.tensor, second.tensor), ())
    return importer.append(node, layer, shape, first.axes)


def _activation(importer: _Importer, node: Node, activation: Activation) -> Value:
    value = importer.value(node)
    layer = FloatActivation(importer.name_of("clamp"), (value.tensor,), (), activation)
    written = importer.append(node, layer, value.shape, value.axes)
    return replace(written, features=value.features)


def _relu(importer: _Importer, node: Node) -> Value:
    return _activation(importer, node, "relu")


def _clip(importer: _Importer, node: Node) -> Value:
    limits: list[float] = []
    for position, (name, default) in enumerate((("min", -np.inf), ("max", np.inf)), start=1):
        stored = importer.constant(node, position, "its limits")
        given = node.attributes.get(name, default)
        limits.append(given if stored is None else _scalar(stored, f"its {name}"))
    low, high = limits[0], float("inf") if limits[1] > 3e38 else limits[1]
    if (low, high) not in CLIPS:
        raise UnsupportedError(
            f"must clip to 0 and 6, to -1 and 1, or below at 0, not to {low} and {high}; use one"
            " of these activations"
        )
    return _activation(importer, node, CLIPS[low, high])


def _scalar(stored: Array, role: str) -> float:
    if stored.size != 1:
        raise ModelError(f"must have one number as {role}, not {stored.size}; export it again")
    return float(stored.reshape(-1)[0])


def _softmax(importer: _Importer, node: Node) -> Value:
    value = importer.plain(importer.value(node))
    rank = len(value.shape)
    axis = int(node.attributes.get("axis", -1 if importer.opset >= 13 else 1)) % rank
    flattened = importer.opset < 13 and prod(value.shape[axis:]) != value.shape[axis]
    if value.axes[axis] != rank - 1 or flattened:
        raise UnsupportedError(f"must normalize over the channels, not over axis {axis}")
    layer = FloatSoftmax(importer.name_of("softmax"), (value.tensor,), ())
    return importer.append(node, layer, value.shape, value.axes)


def _passed_on(importer: _Importer, node: Node) -> Value:
    if node.op == "Cast" and node.attributes["to"] != importer.onnx.TensorProto.FLOAT:
        raise UnsupportedError("must stay float32; export the model in one precision")
    return _same(importer, node)


def _same(importer: _Importer, node: Node) -> Value:
    """Let the output be the first input, read by all that read either."""
    importer.reads[node.outputs[0]] += importer.reads[node.inputs[0]] - 1
    return importer.value(node)


# -- windows --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Window:
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: Padding
    output: tuple[int, int]


def _window(node: Node, size: Sequence[int], kernel: Sequence[int]) -> _Window:
    """Stride, dilation, padding and output size of a window; automatic padding is written out."""
    strides, dilations = _integers(node, "strides", [1, 1]), _integers(node, "dilations", [1, 1])
    pads = _integers(node, "pads", [0, 0, 0, 0])
    if len(strides) != 2 or len(dilations) != 2 or len(pads) != 4 or min(strides + dilations) < 1:
        raise ModelError("must have strides, dilations and pads of two dimensions")
    if min(pads) < 0:
        raise UnsupportedError(f"must not pad by less than 0, as in {pads}; slice the image")
    automatic = node.attributes.get("auto_pad", b"NOTSET")
    if automatic not in AUTOMATIC_PADS:
        known = ", ".join(each.decode() for each in AUTOMATIC_PADS)
        raise ModelError(f"must have an auto_pad of {known}, not {automatic!r}; export it again")
    starts, ends, outputs = [], [], []
    for axis, (length, k) in enumerate(zip(size, kernel, strict=True)):
        s, reach = strides[axis], (k - 1) * dilations[axis] + 1
        before, after = pads[axis], pads[axis + 2]
        if automatic in (b"SAME_UPPER", b"SAME_LOWER"):
            total = max((-(-length // s) - 1) * s + reach - length, 0)
            before = total // 2 if automatic == b"SAME_UPPER" else total - total // 2
            after = total - before
        elif automatic == b"VALID":
            before = after = 0
        count = (length + before + after - reach) // s + 1
        if node.attributes.get("ceil_mode", 0):
            rounded_up = -(-(length + before + after - reach) // s) + 1
            if (rounded_up - 1) * s < length + before:  # the last window starts inside
                after += (rounded_up - count) * s - (length + before + after - reach) % s
                after, count = max(after, 0), rounded_up
        if count < 1:
            raise ModelError(f"must have a window that fits the image of {length}, not {reach}")
        starts.append(before)
        ends.append(after)
        outputs.append(count)
    return _Window(
        (strides[0], strides[1]),
        (dilations[0], dilations[1]),
        Padding(starts[0], ends[0], starts[1], ends[1]),
        (outputs[0], outputs[1]),
    )


def _pool(kind: str) -> Callable[[_Importer, Node], Value]:
    def build(importer: _Importer, node: Node) -> Value:
        image = importer.image(node)
        kernel = _integers(node, "kernel_shape", ())
        if len(kernel) != 2 or min(kernel) < 1:
            raise ModelError("must have a kernel_shape of two dimensions")
        window = _window(node, image.shape[2:], kernel)
        if window.dilation != (1, 1):
            raise UnsupportedError(f"must have dilations of 1, not {window.dilation}")
        pads = _integers(node, "pads", [0, 0, 0, 0])
        if any(pad >= size for pad, size in zip(pads, kernel * 2, strict=True)):
            raise ModelError(f"must pad by less than its kernel {kernel}, not by {pads}")
        source, padding = image.tensor, window.padding
        counted = kind == "average" and node.attributes.get("count_include_pad", 0)
        if counted and padding != Padding():
            if node.attributes.get("ceil_mode", 0):
                raise UnsupportedError("must not count padding with ceil_mode=1; use ceil_mode=0")
            amounts = ((0, 0), (padding.top, padding.bottom), (padding.left, padding.right), (0, 0))
            height, width = (
                n + sum(pair) for n, pair in zip(image.shape[2:], amounts[1:3], strict=True)
            )
            padded = importer.append(
                replace(node, outputs=(f"{node.outputs[0]}_padded",)),
                FloatPad(importer.name_of("pad"), (source,), (), amounts),
                (*image.shape[:2], height, width),
                CHANNELS_FIRST,
            )
            source, padding = padded.tensor, Padding()
        layer = FloatPool2D(
            importer.name_of(f"{kind}_pool"),
            (source,),
            (),
            kind=kind,
            kernel=(kernel[0], kernel[1]),
            stride=window.stride,
            padding=padding,
        )
        return importer.append(node, layer, (*image.shape[:2], *window.output), CHANNELS_FIRST)

    return build


def _global_pool(importer: _Importer, node: Node) -> Value:
    image = importer.image(node)
    layer = FloatMean(importer.name_of("mean"), (image.tensor,), (), (1, 2), True)
    return importer.append(node, layer, (*image.shape[:2], 1, 1), CHANNELS_FIRST)


def _global_max_pool(importer: _Importer, node: Node) -> Value:
    image = importer.image(node)
    height, width = image.shape[2:]
    layer = FloatPool2D(
        importer.name_of("max_pool"),
        (image.tensor,),
        (),
        kind="max",
        kernel=(height, width),
        stride=(1, 1),
        padding=Padding(),
    )
    return importer.append(node, layer, (*image.shape[:2], 1, 1), CHANNELS_FIRST)


def _reduce_mean(importer: _Importer, node: Node) -> Value:
    value = importer.plain(importer.value(node))
    rank = len(value.shape)
    stored = importer.constant(node, 1, "its axes")
    given = _integers(node, "axes", range(rank)) if stored is None else stored.tolist()
    axes = sorted(axis % rank for axis in given)
    if not axes or axes[0] == 0:
        raise UnsupportedError("must average over axes behind the batch; give axes from 1")
    keep = bool(node.attributes.get("keepdims", 1))
    layer = FloatMean(
        importer.name_of("mean"),
        (value.tensor,),
        (),
        tuple(sorted(value.axes[axis] for axis in axes)),
        keep,
    )
    if keep:
        shape = tuple(1 if axis in axes else n for axis, n in enumerate(value.shape))
        return importer.append(node, layer, shape, value.axes)
    left = [axis for axis in range(rank) if axis not in axes]
    order = sorted(value.axes[axis] for axis in left)
    positions = tuple(order.index(value.axes[axis]) for axis in left)
    shape = tuple(value.shape[axis] for axis in left)
    return importer.append(node, layer, shape, positions)


# -- moving data ----------------------------------------------------------------------------------


def _concat(importer: _Importer, node: Node) -> Value:
    if not all(name in importer.values for name in node.inputs):
        raise UnsupportedError("must join computed values only; fold its constants away")
    parts = [importer.plain(importer.value(node, i)) for i in range(len(node.inputs))]
    axes, rank = parts[0].axes, len(parts[0].shape)
    axis = int(node.attributes["axis"]) % rank
    if axis == 0 or any(part.axes != axes for part in parts):
        raise UnsupportedError("must join values of the same order of axes, behind the batch")
    total = sum(part.shape[axis] for part in parts)
    shape = tuple(total if i == axis else n for i, n in enumerate(parts[0].shape))
    tensors = tuple(part.tensor for part in parts)
    layer = FloatConcat(importer.name_of("concat"), tensors, (), axes[axis])
    return importer.append(node, layer, shape, axes)


def _pad(importer: _Importer, node: Node) -> Value:
    value = importer.plain(importer.value(node))
    rank = len(value.shape)
    mode = node.attributes.get("mode", b"constant").decode(errors="replace")
    fill = importer.constant(node, 2, "its fill value")
    level = node.attributes.get("value", 0.0) if fill is None else _scalar(fill, "its fill value")
    if mode != "constant" or level != 0:
        raise UnsupportedError(f"must pad with zeros, not {mode} of {level}; use zeros")
    stored = importer.constant(node, 1, "its pads")
    pads = _integers(node, "pads", ()) if stored is None else stored.tolist()
    if importer.constant(node, 3, "its axes") is not None or len(pads) != 2 * rank:
        raise UnsupportedError(f"must give {2 * rank} pads, for all axes")
    if min(pads) < 0:
        raise UnsupportedError(f"must not pad by less than 0, as in {pads}; slice the image")
    amounts = tuple(zip(pads[:rank], pads[rank:], strict=True))
    shape = tuple(n + sum(pair) for n, pair in zip(value.shape, amounts, strict=True))
    if shape[0] != 1:
        raise UnsupportedError("must not pad the batch; pad behind it")
    placed = tuple(amounts[value.axes.index(axis)] for axis in range(rank))
    layer = FloatPad(importer.name_of("pad"), (value.tensor,), (), placed)
    return importer.append(node, layer, shape, value.axes)


def _transpose(importer: _Importer, node: Node) -> Value:
    value = importer.plain(importer.value(node))
    rank = len(value.shape)
    perm = _integers(node, "perm", range(rank)[::-1])
    if perm[0] != 0:
        raise UnsupportedError(f"must leave the batch first, not permute by {perm}")
    _same(importer, node)
    return replace(
        value,
        shape=tuple(value.shape[axis] for axis in perm),
        axes=tuple(value.axes[axis] for axis in perm),
    )


def _reshape(importer: _Importer, node: Node) -> Value:
    value = importer.value(node)
    given = importer.required(node, 1, "its shape").tolist()
    if not isinstance(given, list) or any(isinstance(n, list) for n in given):
        raise ModelError("must have a shape of one dimension; export the model again")
    elements, shape = prod(value.shape), list(given)
    if not node.attributes.get("allowzero", 0):
        sizes = (importer.batch, *value.shape[1:])
        shape = [sizes[i] if n == 0 else n for i, n in enumerate(shape)]
    # The batch of a stored network is 1, whatever number the file has in its place.
    keeps_batch = shape[:1] in ([importer.batch], [-1]) or prod(shape[1:]) == elements
    if shape and shape[0] != -1:
        shape[0] = 1
    if shape.count(-1) == 1:
        rest = -prod(shape)
        shape = [elements // max(rest, 1) if n == -1 else n for n in shape]
    if not shape or not keeps_batch or shape[0] != 1 or prod(shape) != elements or min(shape) < 1:
        raise UnsupportedError(
            f"must keep the batch first and reshape {value.shape} to as many elements, not to"
            f" {given}"
        )
    return _reshaped(importer, node, value, tuple(shape))


def _flatten(importer: _Importer, node: Node) -> Value:
    value = importer.value(node)
    axis = int(node.attributes.get("axis", 1)) % len(value.shape)
    if axis != 1:
        raise UnsupportedError(f"must flatten behind the batch (axis=1), not axis={axis}")
    return _reshaped(importer, node, value, (1, prod(value.shape)))


def _squeeze(importer: _Importer, node: Node) -> Value:
    value = importer.value(node)
    stored = importer.constant(node, 1, "its axes")
    ones = [axis for axis, n in enumerate(value.shape) if n == 1 and axis > 0]
    given = _integers(node, "axes", ones) if stored is None else stored.tolist()
    axes = {axis % len(value.shape) for axis in given}
    if 0 in axes or any(value.shape[axis] != 1 for axis in axes):
        raise UnsupportedError(f"must remove axes of size 1 behind the batch, not {sorted(axes)}")
    shape = tuple(n for axis, n in enumerate(value.shape) if axis not in axes)
    return _reshaped(importer, node, value, shape)


def _unsqueeze(importer: _Importer, node: Node) -> Value:
    value = importer.value(node)
    stored = importer.constant(node, 1, "its axes")
    given = _integers(node, "axes", ()) if stored is None else stored.tolist()
    rank = len(value.shape) + len(given)
    axes = {axis % rank for axis in given}
    if 0 in axes:
        raise UnsupportedError("must leave the batch first; insert axes behind it")
    sizes = iter(value.shape)
    shape = tuple(1 if axis in axes else next(sizes) for axis in range(rank))
    return _reshaped(importer, node, value, shape)


def _reshaped(importer: _Importer, node: Node, value: Value, shape: Shape) -> Value:
    """Give a value another shape; a flattened image keeps the order in which it is stored."""
    positions = value.positions()
    plain = tuple(range(len(shape)))
    axes = plain
    if len(shape) == 4 and (positions == _positions(shape, CHANNELS_FIRST)).all():
        axes = CHANNELS_FIRST
    ordered = bool((positions == _positions(shape, axes)).all())
    if not ordered and len(shape) != 2:
        raise UnsupportedError(
            f"must not reshape {value.shape} to {shape}, which would move data in memory; flatten"
            " images to rows only"
        )
    target = Value(0, shape, axes).stored_shape
    source = value.stored_shape if value.features is None else value.shape
    if source == target:
        _same(importer, node)
        return replace(value, shape=shape, axes=axes, features=None if ordered else positions)
    layer = FloatReshape(importer.name_of("reshape"), (value.tensor,), ())
    written = importer.append(node, layer, shape, axes)
    return written if ordered else replace(written, features=positions)


_BUILDERS: dict[str, Callable[[_Importer, Node], Value]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_normalization,
    "Relu": _relu,
    "Clip": _clip,
    "Add": _sum_or_product(FloatAdd, inverse=False),
    "Sum": _sum_or_product(FloatAdd, inverse=False),
    "Sub": _sum_or_product(FloatAdd, inverse=True),
    "Mul": _sum_or_product(FloatMul, inverse=False),
    "Div": _sum_or_product(FloatMul, inverse=True),
    "MaxPool": _pool("max"),
    "AveragePool": _pool("average"),
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_max_pool,
    "ReduceMean": _reduce_mean,
    "Concat": _concat,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Softmax": _softmax,
    "Pad": _pad,
    "Transpose": _transpose,
    **dict.fromkeys(PASSED_ON, _passed_on),
}
"""What builds the layers of each operator; nodes of constants alone are computed instead."""
