"""From a float network, codes of its weights and scales of its activations to an integer network.

The rules are TensorFlow Lite's, so that everything that runs its networks runs these: int8 tensors
of one scale and zero point, weights of one scale a channel, biases of 32 bits at the scale
input * weight, exact double-rounding multipliers. Activations of fewer than 8 bits are codes of a
narrower range in int8 tensors: what makes them clamps to that range, and certificates of
accumulators see it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from golden import multipliers
from golden.check import check_network
from golden.errors import UnsupportedError
from golden.float_network import (
    FloatActivation,
    FloatAdd,
    FloatArray,
    FloatConcat,
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
    FloatWeighted,
)
from golden.network import (
    Add,
    AveragePool2D,
    Clamp,
    Concat,
    Constant,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Layer,
    MaxPool2D,
    Mean,
    Mul,
    Network,
    Pad,
    Reshape,
    ResizeNearest,
    Softmax,
    Tensor,
)
from golden.quantization.activations import QuantizationParameters
from golden.quantization.method import Float64Array, WeightCodes

SOFTMAX_OUTPUT = QuantizationParameters(1 / 256, -128, -128, 127)
"""What TensorFlow Lite prescribes for the output of a softmax."""

TIED = (FloatPool2D, FloatReshape, FloatPad, FloatConcat, FloatResize)
"""Layers that move or compare codes: their inputs and outputs share scale and zero point."""

LARGEST_BIAS = 1 << 30
"""Of codes: it leaves the 32 bits of the post-processor room for the sum."""

IDLE_STEPS = 1 << 16
"""Steps of the bias in one output code, for channels whose weights are all 0."""


def tied_tensors(network: FloatNetwork) -> tuple[int, ...]:
    """Name, for every tensor, the first of those it shares scale and zero point with."""
    first = list(range(len(network.tensors)))

    def root(index: int) -> int:
        while first[index] != index:
            index = first[index]
        return index

    for layer in network.layers:
        if isinstance(layer, TIED):
            roots = sorted({root(index) for index in (*layer.inputs, *layer.outputs)})
            for other in roots[1:]:
                first[other] = roots[0]
    return tuple(root(index) for index in range(len(first)))


def prescribed(network: FloatNetwork) -> dict[int, QuantizationParameters]:
    """Scales that no calibration chooses: of outputs of softmax and of what is tied to them.

    Raises
    ------
    UnsupportedError
        Where such a tensor is joined with one that is computed otherwise.
    """
    groups = tied_tensors(network)
    fixed = {
        groups[layer.outputs[0]] for layer in network.layers if isinstance(layer, FloatSoftmax)
    }
    for layer in network.layers:
        if groups[layer.outputs[0]] in fixed and not isinstance(layer, (*TIED, FloatSoftmax)):
            raise UnsupportedError(
                f"layer {layer.name!r} shares its output's scale with a softmax, whose scale is"
                " 1/256; end the network before they are joined"
            )
    return {i: SOFTMAX_OUTPUT for i, group in enumerate(groups) if group in fixed}


def stored_parameters(parameters: QuantizationParameters) -> QuantizationParameters:
    """Round the scale to float32, as model files store it."""
    return replace(parameters, scale=float(np.float32(parameters.scale)))


@dataclass(frozen=True)
class _Assembly:
    network: FloatNetwork
    parameters: Mapping[int, QuantizationParameters]
    weights: Mapping[str, WeightCodes]
    biases: Mapping[str, Float64Array]

    def of(self, index: int) -> QuantizationParameters:
        return self.parameters[index]

    def wired(self, layer: FloatLayer) -> dict[str, Any]:
        return {"name": layer.name, "inputs": layer.inputs, "outputs": layer.outputs}

    def clamp(self, layer: FloatLayer, activation: multipliers.Activation) -> dict[str, Any]:
        """Codes that an activation lets through, within those of the output."""
        output = self.of(layer.outputs[0])
        low, high = multipliers.activation_range(
            activation, "int8", output.scale, output.zero_point
        )
        low, high = max(low, output.low), min(high, output.high)
        return {"activation_min": min(low, high), "activation_max": high}

    def zero_points(self, layer: FloatLayer) -> dict[str, Any]:
        return {
            "input_zero_point": self.of(layer.inputs[0]).zero_point,
            "output_zero_point": self.of(layer.outputs[0]).zero_point,
        }


@dataclass(frozen=True)
class Assembled:
    """What became of a float network.

    Parameters
    ----------
    network : Network
        The same tensors and layers at the same indices, all int8.
    weights : mapping of layer name to WeightCodes
        As they are stored: changed where a bias would leave its range.
    """

    network: Network
    weights: Mapping[str, WeightCodes]


def assemble(
    network: FloatNetwork,
    parameters: Mapping[int, QuantizationParameters],
    weights: Mapping[str, WeightCodes],
    biases: Mapping[str, FloatArray] | None = None,
) -> Assembled:
    """Make an integer network of a float one.

    Parameters
    ----------
    network : FloatNetwork
    parameters : mapping of tensor index to QuantizationParameters
        One for every tensor, constants included; the same where `tied_tensors` says so.
    weights : mapping of layer name to WeightCodes
        One for every layer that multiplies.
    biases : mapping of layer name to (out_channels,) float array, or None
        In the place of the layers' own.

    Returns
    -------
    Assembled

    Raises
    ------
    ModelError
        Where the scales lead to multipliers that do not exist.
    """
    stored = {index: stored_parameters(each) for index, each in parameters.items()}
    real_biases = {
        layer.name: np.asarray((biases or {}).get(layer.name, layer.bias), np.float64)
        for layer in network.layers
        if isinstance(layer, FloatWeighted)
    }
    kept = _stored_weights(network, stored, weights, real_biases)
    assembly = _Assembly(network, stored, kept, real_biases)
    result = Network(
        name=network.name,
        tensors=tuple(
            Tensor(tensor.name, tensor.shape, "int8", stored[index].scale, stored[index].zero_point)
            for index, tensor in enumerate(network.tensors)
        ),
        layers=tuple(_BUILDERS[type(layer)](assembly, layer) for layer in network.layers),
        inputs=network.inputs,
        outputs=network.outputs,
        source=network.source,
        constants=tuple(
            Constant(each.tensor, stored[each.tensor].codes(each.values).astype(np.int8))
            for each in network.constants
        ),
    )
    check_network(result)
    return Assembled(result, kept)


# -- layers that multiply -------------------------------------------------------------------------


def real_weights(codes: WeightCodes, shape: tuple[int, ...]) -> FloatArray:
    """Float32 weights that codes stand for, in the layer's own shape."""
    reals = codes.scales[:, np.newaxis] * (codes.codes - codes.zero_point)
    return np.asarray(reals.reshape(shape), np.float32)


def _weighted(assembly: _Assembly, layer: FloatWeighted) -> dict[str, Any]:
    source, output = assembly.of(layer.inputs[0]), assembly.of(layer.outputs[0])
    bias, codes = assembly.biases[layer.name], assembly.weights[layer.name]
    stored, scales = codes.codes, codes.scales
    signed = codes.zero_point == 0 and int(stored.max()) < 1 << (codes.bits - 1)
    return {
        **assembly.wired(layer),
        **assembly.zero_points(layer),
        "weights": stored.reshape(layer.weights.shape).astype(np.int8 if signed else np.uint8),
        "weight_bits": codes.bits,
        "weight_zero_point": codes.zero_point,
        "bias": np.rint(bias / (source.scale * scales)).astype(np.int64),
        "requantization": multipliers.convolution_requantization(
            source.scale, scales.tolist(), output.scale
        ),
        **assembly.clamp(layer, layer.activation),
    }


def _stored_weights(
    network: FloatNetwork,
    parameters: Mapping[int, QuantizationParameters],
    weights: Mapping[str, WeightCodes],
    biases: Mapping[str, Float64Array],
) -> dict[str, WeightCodes]:
    return {
        layer.name: _with_room_for_bias(
            weights[layer.name],
            biases[layer.name],
            parameters[layer.inputs[0]].scale,
            parameters[layer.outputs[0]].scale,
        )
        for layer in network.layers
        if isinstance(layer, FloatWeighted)
    }


def _with_room_for_bias(
    codes: WeightCodes, bias: Float64Array, input_scale: float, output_scale: float
) -> WeightCodes:
    """Codes and scales, changed in channels whose bias would leave its range.

    There the scale becomes that of the largest bias, and codes the nearest among those that the
    layer uses anyway: next to such a bias they hardly count. A channel of zeros has no scale of its
    own; it gets one that keeps its bias exact.
    """
    scales = codes.scales.copy()
    stored, used = codes.codes.copy(), np.unique(codes.codes)
    least = np.abs(bias) / LARGEST_BIAS / input_scale
    idle = ~(stored != codes.zero_point).any(axis=1)
    scales[idle] = np.maximum(output_scale / IDLE_STEPS / input_scale, least[idle])
    for channel in np.flatnonzero(scales < least):
        wanted = (stored[channel] - codes.zero_point) * scales[channel] / least[channel]
        nearest = np.abs(used - codes.zero_point - wanted[:, np.newaxis]).argmin(axis=1)
        stored[channel], scales[channel] = used[nearest], least[channel]
    return replace(codes, codes=stored, scales=scales)


def _conv(assembly: _Assembly, layer: FloatConv2D) -> Layer:
    depthwise = layer.groups > 1 and layer.weights.shape[3] == 1
    kind = DepthwiseConv2D if depthwise else Conv2D
    return kind(
        **_weighted(assembly, layer),
        stride=layer.stride,
        dilation=layer.dilation,
        padding=layer.padding,
        groups=layer.groups,
    )


def _dense(assembly: _Assembly, layer: FloatDense) -> Layer:
    return FullyConnected(**_weighted(assembly, layer))


# -- layers without weights -----------------------------------------------------------------------


def _pool(assembly: _Assembly, layer: FloatPool2D) -> Layer:
    kind = AveragePool2D if layer.kind == "average" else MaxPool2D
    return kind(
        **assembly.wired(layer),
        kernel=layer.kernel,
        stride=layer.stride,
        padding=layer.padding,
        **assembly.clamp(layer, layer.activation),
    )


def _mean(assembly: _Assembly, layer: FloatMean) -> Layer:
    (source,), (output,) = layer.inputs, layer.outputs
    shape = assembly.network.tensors[source].shape
    count = int(np.prod([shape[axis] for axis in layer.axes]))
    return Mean(
        **assembly.wired(layer),
        **assembly.zero_points(layer),
        axes=layer.axes,
        keep_dims=layer.keep_dims,
        requantization=multipliers.mean_requantization(
            assembly.of(source).scale, assembly.of(output).scale, count
        ),
        **assembly.clamp(layer, "none"),
    )


def _add(assembly: _Assembly, layer: FloatAdd) -> Layer:
    first, second = (assembly.of(index) for index in layer.inputs)
    output = assembly.of(layer.outputs[0])
    rule = multipliers.add_parameters(first.scale, second.scale, output.scale, "int8")
    return Add(
        **assembly.wired(layer),
        input_zero_points=(first.zero_point, second.zero_point),
        output_zero_point=output.zero_point,
        left_shift=rule.left_shift,
        input_requantizations=rule.input_requantizations,
        output_requantization=rule.output_requantization,
        **assembly.clamp(layer, layer.activation),
    )


def _mul(assembly: _Assembly, layer: FloatMul) -> Layer:
    first, second = (assembly.of(index) for index in layer.inputs)
    output = assembly.of(layer.outputs[0])
    return Mul(
        **assembly.wired(layer),
        input_zero_points=(first.zero_point, second.zero_point),
        output_zero_point=output.zero_point,
        requantization=multipliers.mul_requantization(first.scale, second.scale, output.scale),
        **assembly.clamp(layer, layer.activation),
    )


def _concat(assembly: _Assembly, layer: FloatConcat) -> Layer:
    return Concat(**assembly.wired(layer), axis=layer.axis)


def _pad(assembly: _Assembly, layer: FloatPad) -> Layer:
    value = assembly.of(layer.outputs[0]).zero_point
    return Pad(**assembly.wired(layer), paddings=layer.paddings, value=value)


def _reshape(assembly: _Assembly, layer: FloatReshape) -> Layer:
    return Reshape(**assembly.wired(layer))


def _resize(assembly: _Assembly, layer: FloatResize) -> Layer:
    return ResizeNearest(
        **assembly.wired(layer),
        align_corners=layer.align_corners,
        half_pixel_centers=layer.half_pixel_centers,
    )


def _softmax(assembly: _Assembly, layer: FloatSoftmax) -> Layer:
    source = assembly.of(layer.inputs[0])
    rule = multipliers.softmax_parameters(layer.beta, source.scale, "int8")
    return Softmax(
        **assembly.wired(layer),
        multiplier=rule.multiplier,
        shift=rule.shift,
        diff_min=rule.diff_min,
    )


def _clamp(assembly: _Assembly, layer: FloatActivation) -> Layer:
    source, output = assembly.of(layer.inputs[0]), assembly.of(layer.outputs[0])
    return Clamp(
        **assembly.wired(layer),
        **assembly.zero_points(layer),
        requantization=multipliers.requantization(source.scale / output.scale),
        **assembly.clamp(layer, layer.activation),
    )


_BUILDERS: dict[type[FloatLayer], Callable[[_Assembly, Any], Layer]] = {
    FloatConv2D: _conv,
    FloatDense: _dense,
    FloatPool2D: _pool,
    FloatMean: _mean,
    FloatAdd: _add,
    FloatMul: _mul,
    FloatConcat: _concat,
    FloatPad: _pad,
    FloatReshape: _reshape,
    FloatResize: _resize,
    FloatSoftmax: _softmax,
    FloatActivation: _clamp,
}
"""What builds the integer layer of each float layer."""
