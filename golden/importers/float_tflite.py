"""Read a float TensorFlow Lite file into a `golden.float_network.FloatNetwork`.

The operators are those of `golden.importers.tflite`, which also reads their options.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.errors import ModelError, UnsupportedError
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
    FloatResize,
    FloatSoftmax,
    FloatTensor,
)
from golden.float_run import check_float_network
from golden.importers.float_graph import fold_constants, fuse_activations
from golden.importers.tflite import (
    Importer,
    Node,
    check_dense,
    concat_axis,
    convolution_geometry,
    mean_axes,
    pad_amounts,
    reading_file,
    resize_options,
    softmax_beta,
    stored_values,
    window_geometry,
)
from golden.importers.tflite_file import FlatBuffer, Operator
from golden.multipliers import Activation


def is_float_tflite(path: str | Path) -> bool:
    """Whether a TensorFlow Lite file computes in float32 throughout.

    Raises
    ------
    ModelError
        The file cannot be read, is damaged, or has an operator that Napier does not know.
    """
    with reading_file(path) as file:
        buffer = FlatBuffer(file.read_bytes())
        return buffer.computes_in_float(buffer.operators())


def load_float_tflite(path: str | Path) -> FloatNetwork:
    """Read a float network from a TensorFlow Lite file.

    Parameters
    ----------
    path : str or Path
        A ``.tflite`` file (schema version 3) of one subgraph that computes in float32.

    Returns
    -------
    FloatNetwork
        One layer for each operator, in the file's order, activations joined to the layer before
        them where nothing else reads its output.

    Raises
    ------
    ModelError
        The file cannot be read, is damaged, or contradicts itself.
    UnsupportedError
        The file uses an operator, type or option that Napier does not know.
    """
    with reading_file(path) as file:
        importer = _FloatImporter(FlatBuffer(file.read_bytes()), file.stem, file.name)
        return importer.float_network()


class _FloatImporter(Importer):
    """Turns float operators into float layers."""

    constant_dtypes = ("float32",)

    @property
    def builders(self) -> Mapping[str, Callable[[Node], Any]]:
        """What builds each operator's layer, by the operator's name."""
        return _BUILDERS

    def float_network(self) -> FloatNetwork:
        """Read the whole network and check that it holds together."""
        layers = self._layers()
        network = FloatNetwork(
            name=self._name,
            tensors=tuple(FloatTensor(tensor.name, tensor.shape) for tensor in self._tensors),
            layers=layers,
            inputs=tuple(self._numbers[i] for i in self._file.inputs),
            outputs=tuple(self._numbers[i] for i in self._file.outputs),
            source=self._source,
            constants=tuple(
                FloatConstant(constant.tensor, constant.codes.astype(np.float32))
                for constant in self._constants.values()
            ),
        )
        check_float_network(network)
        return fold_constants(fuse_activations(network))

    def _check_types(self, operators: Sequence[Operator]) -> None:
        for index in (*self._file.inputs, *(i for each in operators for i in each.outputs)):
            tensor = self._file.tensor(index)
            if tensor.dtype != "float32":
                raise UnsupportedError(
                    f"must be a float32 network throughout, but tensor {index} is {tensor.dtype}; "
                    "export it without quantization"
                )


def _weights(node: Node, rank: int, channel_axis: int = 0) -> FloatArray:
    """Weights as real numbers; a file of dynamic range quantization stores int8 and scales."""
    stored = node.constant(1, "weights", ("float32", "int8"))
    if len(stored.shape) != rank:
        raise node.fail(f"must have weights of {rank} dimensions, not {stored.shape}")
    values = stored_values(stored).astype(np.float32)
    if stored.dtype == "float32":
        return values
    if stored.scales.size not in (1, stored.shape[channel_axis]) or np.any(stored.zero_points):
        raise node.fail(
            f"must have one scale, or one for each of its {stored.shape[channel_axis]} channels, "
            f"and zero points of 0, not {stored.scales.size} scales"
        )
    shape = [1] * rank
    shape[channel_axis] = stored.scales.size
    return values * stored.scales.reshape(shape)


def _weighted(node: Node, op: str, weights: NDArray[Any]) -> dict[str, Any]:
    """Fields that convolution and dense layers share."""
    bias: FloatArray = np.zeros(len(weights), np.float32)
    if node.has(2):
        bias = stored_values(node.constant(2, "a bias", ("float32",)))
        if bias.shape != weights.shape[:1]:
            raise node.fail(f"must have a bias of shape ({len(weights)},), not {bias.shape}")
    return {
        **node.wired(op),
        "weights": weights,
        "bias": bias,
        "activation": node.activation(),
    }


def _convolution(depthwise: bool) -> Callable[[Node], FloatLayer]:
    def build(node: Node) -> FloatLayer:
        stored = _weights(node, 4, channel_axis=3 if depthwise else 0)
        weights, geometry = convolution_geometry(node, stored, depthwise=depthwise)
        op = "depthwise" if depthwise else "conv"
        return FloatConv2D(**_weighted(node, op, weights), **geometry)

    return build


def _dense(node: Node) -> FloatLayer:
    weights = _weights(node, 2)
    check_dense(node, weights)
    return FloatDense(**_weighted(node, "dense", weights))


def _pool(kind: str) -> Callable[[Node], FloatLayer]:
    def build(node: Node) -> FloatLayer:
        return FloatPool2D(
            **node.wired(f"{kind}_pool"),
            **window_geometry(node),
            kind=kind,
            activation=node.activation(),
        )

    return build


def _mean(node: Node) -> FloatLayer:
    keep_dims = bool(node.options["KeepDims"])
    return FloatMean(**node.wired("mean"), axes=mean_axes(node), keep_dims=keep_dims)


def _add(node: Node) -> FloatLayer:
    return FloatAdd(**node.wired("add", 0, 1), activation=node.activation())


def _mul(node: Node) -> FloatLayer:
    return FloatMul(**node.wired("mul", 0, 1), activation=node.activation())


def _concat(node: Node) -> FloatLayer:
    if node.activation() != "none":
        raise UnsupportedError("must have no fused activation; export it as an operator of its own")
    positions = range(len(node.operator.inputs))
    return FloatConcat(**node.wired("concat", *positions), axis=concat_axis(node))


def _pad(node: Node) -> FloatLayer:
    if node.has(2):
        value = float(stored_values(node.constant(2, "a fill value", ("float32",))).reshape(-1)[0])
        if value != 0:
            raise UnsupportedError(f"must pad with 0, not {value}; use a padding of zeros")
    return FloatPad(**node.wired("pad"), paddings=pad_amounts(node))


def _reshape(node: Node) -> FloatLayer:
    return FloatReshape(**node.wired("reshape"))


def _softmax(node: Node) -> FloatLayer:
    return FloatSoftmax(**node.wired("softmax"), beta=softmax_beta(node))


def _activation(activation: Activation) -> Callable[[Node], FloatLayer]:
    return lambda node: FloatActivation(**node.wired("clamp"), activation=activation)


def _resize(node: Node) -> FloatLayer:
    return FloatResize(**node.wired("resize_nearest"), **resize_options(node))


def _no_integers(node: Node) -> FloatLayer:
    raise ModelError("must not change element types in a float network; export it again")


_BUILDERS: dict[str, Callable[[Node], FloatLayer]] = {
    "CONV_2D": _convolution(depthwise=False),
    "DEPTHWISE_CONV_2D": _convolution(depthwise=True),
    "FULLY_CONNECTED": _dense,
    "AVERAGE_POOL_2D": _pool("average"),
    "MAX_POOL_2D": _pool("max"),
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
    "RELU": _activation("relu"),
    "RELU6": _activation("relu6"),
    "RELU_N1_TO_1": _activation("relu_n1_to_1"),
    "QUANTIZE": _no_integers,
    "DEQUANTIZE": _no_integers,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
}
"""What builds each operator's layer."""
