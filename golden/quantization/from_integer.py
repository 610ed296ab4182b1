"""From an integer network back to the float network that it stands for, to quantize it anew.

Weights, biases and clamps become real numbers; what the integer network rounds on the way is not
rounded any more. A clamp at the real 0 becomes a relu, one at 0 and 6 a relu6, one at -1 and 1 a
relu_n1_to_1; other clamps are the ends of a tensor's range and are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from golden.check import INTEGER_FORMATS
from golden.errors import UnsupportedError
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
from golden.multipliers import SOFTMAX_INTEGER_BITS, Activation
from golden.network import (
    Add,
    AveragePool2D,
    Clamp,
    Concat,
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
    Pool2D,
    Quantize,
    Requantization,
    Reshape,
    ResizeNearest,
    Softmax,
    WeightedLayer,
)
from golden.quantization.activations import QuantizationParameters
from golden.quantization.method import Float64Array

SOFTMAX16_SCALE = 10.0 / 65535.0
"""Scale that a softmax of int16 codes brings its input to, see `golden.multipliers`."""


@dataclass(frozen=True)
class Dequantized:
    """A float network and the scales that its integer form had.

    Parameters
    ----------
    network : FloatNetwork
    parameters : mapping of tensor index to QuantizationParameters
        Of every tensor that is int8 in the integer network.
    """

    network: FloatNetwork
    parameters: dict[int, QuantizationParameters]


def dequantize(network: Network) -> Dequantized:
    """Make the float network that an integer network stands for.

    Parameters
    ----------
    network : Network

    Returns
    -------
    Dequantized

    Raises
    ------
    UnsupportedError
        For tensors without a scale, or a padding with something else than the real 0.
    """
    alias: dict[int, int] = {}
    for layer in network.layers:
        if isinstance(layer, Quantize | Dequantize):  # the same real values
            source = layer.inputs[0]
            alias[layer.outputs[0]] = alias.get(source, source)
    kept = [i for i in range(len(network.tensors)) if i not in alias]
    for index in kept:
        tensor = network.tensors[index]
        if tensor.dtype != "float32" and tensor.scale is None:
            raise UnsupportedError(
                f"tensor {tensor.name!r} of {network.name} has no scale, so its codes stand for no"
                " real values; quantize the float network instead"
            )
    number = {index: position for position, index in enumerate(kept)}
    number |= {index: number[source] for index, source in alias.items()}
    reader = _Reader(network, number)
    result = FloatNetwork(
        name=network.name,
        tensors=tuple(
            FloatTensor(network.tensors[index].name, network.tensors[index].shape) for index in kept
        ),
        layers=tuple(
            _BUILDERS[type(layer)](reader, layer)
            for layer in network.layers
            if not isinstance(layer, Quantize | Dequantize)
        ),
        inputs=tuple(number[index] for index in network.inputs),
        outputs=tuple(dict.fromkeys(number[index] for index in network.outputs)),
        source=network.source,
        constants=tuple(
            FloatConstant(number[each.tensor], reader.reals(each.tensor, each.codes))
            for each in network.constants
        ),
    )
    check_float_network(result)
    parameters = {
        number[index]: QuantizationParameters(reader.scale(index), tensor.zero_point, -128, 127)
        for index, tensor in enumerate(network.tensors)
        if tensor.dtype == "int8"
    }
    return Dequantized(result, parameters)


@dataclass(frozen=True)
class _Reader:
    network: Network
    number: dict[int, int]

    def scale(self, index: int) -> float:
        scale = self.network.tensors[index].scale
        assert scale is not None  # checked before
        return scale

    def reals(self, index: int, codes: Any) -> FloatArray:
        operand = codes.astype(np.int64) - self.network.tensors[index].zero_point
        return np.asarray(operand * self.scale(index), np.float32)

    def wired(self, layer: Layer) -> dict[str, Any]:
        return {
            "name": layer.name,
            "inputs": tuple(self.number[index] for index in layer.inputs),
            "outputs": tuple(self.number[index] for index in layer.outputs),
        }

    def activation(self, layer: Any) -> Activation:
        """Name what the clamp of a layer's output codes does to real values."""
        output = self.network.tensors[layer.outputs[0]]
        scale, fmt = self.scale(layer.outputs[0]), INTEGER_FORMATS[output.dtype]
        low, high = (
            code - output.zero_point for code in (layer.activation_min, layer.activation_max)
        )
        at_six = abs(high * scale - 6) <= scale / 2
        if low == 0:
            return "relu6" if at_six else "relu"
        if (
            (layer.activation_min, layer.activation_max) != (fmt.min, fmt.max)
            and abs(low * scale + 1) <= scale / 2
            and abs(high * scale - 1) <= scale / 2
        ):
            return "relu_n1_to_1"
        return "none"


def real_multipliers(rule: Requantization) -> Float64Array:
    """Real factor of each channel of a requantization."""
    mantissa = rule.multiplier / 2.0**31 if not rule.rounding.startswith("shift") else 1.0
    return np.asarray(mantissa * 2.0**rule.shift, np.float64)


def _weighted(reader: _Reader, layer: WeightedLayer) -> dict[str, Any]:
    source, target = reader.scale(layer.inputs[0]), reader.scale(layer.outputs[0])
    channels = len(layer.weights)
    steps = np.broadcast_to(real_multipliers(layer.requantization) * target, channels)
    codes = layer.weights.astype(np.int64) - layer.weight_zero_point
    scales = (steps / source).reshape(-1, *[1] * (codes.ndim - 1))
    bias = np.zeros(channels) if layer.bias is None else layer.bias * steps
    return {
        **reader.wired(layer),
        "weights": (codes * scales).astype(np.float32),
        "bias": bias.astype(np.float32),
        "activation": reader.activation(layer),
    }


def _conv(reader: _Reader, layer: Conv2D) -> FloatLayer:
    return FloatConv2D(
        **_weighted(reader, layer),
        stride=layer.stride,
        dilation=layer.dilation,
        padding=layer.padding,
        groups=layer.groups,
    )


def _dense(reader: _Reader, layer: FullyConnected) -> FloatLayer:
    return FloatDense(**_weighted(reader, layer))


def _pool(reader: _Reader, layer: Pool2D) -> FloatLayer:
    return FloatPool2D(
        **reader.wired(layer),
        kind="average" if isinstance(layer, AveragePool2D) else "max",
        kernel=layer.kernel,
        stride=layer.stride,
        padding=layer.padding,
        activation=reader.activation(layer),
    )


def _mean(reader: _Reader, layer: Mean) -> FloatLayer:
    return FloatMean(**reader.wired(layer), axes=layer.axes, keep_dims=layer.keep_dims)


def _add(reader: _Reader, layer: Add) -> FloatLayer:
    return FloatAdd(**reader.wired(layer), activation=reader.activation(layer))


def _mul(reader: _Reader, layer: Mul) -> FloatLayer:
    return FloatMul(**reader.wired(layer), activation=reader.activation(layer))


def _concat(reader: _Reader, layer: Concat) -> FloatLayer:
    return FloatConcat(**reader.wired(layer), axis=layer.axis)


def _pad(reader: _Reader, layer: Pad) -> FloatLayer:
    zero_point = reader.network.tensors[layer.outputs[0]].zero_point
    if layer.value != zero_point:
        raise UnsupportedError(
            f"layer {layer.name!r} must pad with the code of 0, {zero_point}, not with"
            f" {layer.value}; quantize the float network instead"
        )
    return FloatPad(**reader.wired(layer), paddings=layer.paddings)


def _reshape(reader: _Reader, layer: Reshape) -> FloatLayer:
    return FloatReshape(**reader.wired(layer))


def _softmax(reader: _Reader, layer: Softmax) -> FloatLayer:
    source = layer.inputs[0]
    factor = layer.multiplier * 2.0 ** (layer.shift - 31)
    int16 = reader.network.tensors[source].dtype == "int16"
    steps = 1 / SOFTMAX16_SCALE if int16 else 2.0 ** (31 - SOFTMAX_INTEGER_BITS)
    beta = factor / steps / reader.scale(source)
    return FloatSoftmax(**reader.wired(layer), beta=float(np.float32(beta)))


def _clamp(reader: _Reader, layer: Clamp) -> FloatLayer:
    return FloatActivation(**reader.wired(layer), activation=reader.activation(layer))


def _resize(reader: _Reader, layer: ResizeNearest) -> FloatLayer:
    return FloatResize(
        **reader.wired(layer),
        align_corners=layer.align_corners,
        half_pixel_centers=layer.half_pixel_centers,
    )


_BUILDERS: dict[type[Layer], Callable[[_Reader, Any], FloatLayer]] = {
    Conv2D: _conv,
    DepthwiseConv2D: _conv,
    FullyConnected: _dense,
    AveragePool2D: _pool,
    MaxPool2D: _pool,
    Mean: _mean,
    Add: _add,
    Mul: _mul,
    Concat: _concat,
    Pad: _pad,
    Reshape: _reshape,
    Softmax: _softmax,
    Clamp: _clamp,
    ResizeNearest: _resize,
}
"""What builds the float layer of each integer layer."""
