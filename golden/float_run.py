"""Run a float network in NumPy: what quantizers aim at, and what they see of a quantized prefix.

Everything is float32. Sums run in the order that NumPy's matrix product takes, so results agree
with other float runtimes to a few units in the last place, not to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from golden.errors import InputError, ModelError
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
    FloatTensor,
    FloatWeighted,
)
from golden.multipliers import Activation
from golden.network import Padding
from golden.quantization.activations import QuantizationParameters

Array = NDArray[Any]
Inputs = Sequence[FloatArray]

PATCH_ELEMENTS = 1 << 24
"""Elements of the patches of a convolution that are in memory at once (64 MB)."""

ACTIVATION_LIMITS: dict[Activation, tuple[float | None, float | None]] = {
    "none": (None, None),
    "relu": (0.0, None),
    "relu6": (0.0, 6.0),
    "relu_n1_to_1": (-1.0, 1.0),
}
"""Smallest and largest result of each activation."""


def rounded(values: Array, parameters: QuantizationParameters) -> FloatArray:
    """Round real values to the nearest that codes stand for, ties to even codes; float32."""
    steps = np.rint(np.asarray(values, np.float32) * np.float32(1 / parameters.scale))
    low, high = parameters.low - parameters.zero_point, parameters.high - parameters.zero_point
    nearest: FloatArray = np.clip(steps, low, high) * np.float32(parameters.scale)
    return nearest


def run_float(
    network: FloatNetwork,
    inputs: Sequence[Array] | Array,
    fake: Mapping[int, QuantizationParameters] | None = None,
) -> dict[int, FloatArray]:
    """Compute every tensor of a network on a batch.

    Parameters
    ----------
    network : FloatNetwork
    inputs : sequence of array, or array
        In the order of `FloatNetwork.inputs`, (N, ...) each; a bare array is the one input.
    fake : mapping of tensor index to QuantizationParameters, or None
        Tensors that are rounded as soon as they are there, inputs too.

    Returns
    -------
    dict of int to float32 array
        By tensor index; constants repeat for every sample.

    Raises
    ------
    InputError
        Where an input is missing or does not fit its tensor.
    """
    fake = {} if fake is None else fake
    values = {
        index: rounded(array, fake[index]) if index in fake else array
        for index, array in float_inputs(network, inputs).items()
    }
    for layer in network.layers:
        (target,) = layer.outputs
        output = run_layer(layer, [values[i] for i in layer.inputs], network.tensors[target])
        values[target] = rounded(output, fake[target]) if target in fake else output
    return values


def float_inputs(network: FloatNetwork, inputs: Sequence[Array] | Array) -> dict[int, FloatArray]:
    """Check inputs and return them and the constants, float32, by tensor index.

    Raises
    ------
    InputError
    """
    arrays = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
    names = ", ".join(repr(network.tensors[index].name) for index in network.inputs)
    if len(arrays) != len(network.inputs):
        raise InputError(
            f"network {network.name!r} takes {len(network.inputs)} inputs, but {len(arrays)} arrays"
            f" were given; give one for each of {names}"
        )
    values = {
        index: _checked(network.tensors[index], np.asarray(array))
        for index, array in zip(network.inputs, arrays, strict=True)
    }
    counts = {len(array) for array in values.values()}
    if len(counts) > 1:
        raise InputError(
            f"inputs of network {network.name!r} must share one batch size, but have"
            f" {sorted(counts)}; give the same number of samples to each"
        )
    for constant in network.constants:
        shape = (*counts, *constant.values.shape[1:])
        values[constant.tensor] = np.broadcast_to(constant.values, shape)
    return values


def _checked(tensor: FloatTensor, array: Array) -> FloatArray:
    if array.ndim != len(tensor.shape) or array.shape[1:] != tensor.shape[1:] or not array.size:
        free = ", ".join(["N", *(str(size) for size in tensor.shape[1:])])
        raise InputError(
            f"input {tensor.name!r} must have the shape ({free}), but has {array.shape};"
            " reshape it, batch axis first"
        )
    if array.dtype.kind not in "fiu":
        raise InputError(f"input {tensor.name!r} must hold numbers, not {array.dtype}; convert it")
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise InputError(
            f"input {tensor.name!r} must be finite, but holds infinite or undefined values;"
            " clean the data first"
        )
    return array


def check_float_network(network: FloatNetwork) -> None:
    """Refuse a network whose parts do not fit each other, by running it on zeros.

    Raises
    ------
    ModelError
        One sentence: the layer, the rule, what was found.
    """
    values = {
        index: np.zeros((1, *network.tensors[index].shape[1:]), np.float32)
        for index in network.inputs
    }
    values |= {constant.tensor: constant.values for constant in network.constants}
    for layer in network.layers:
        place = f"layer {layer.name!r}"
        if isinstance(layer, FloatWeighted) and not (
            np.isfinite(layer.weights).all() and np.isfinite(layer.bias).all()
        ):
            raise ModelError(f"{place} must have finite weights and biases; mend the model")
        (target,) = layer.outputs
        tensor = network.tensors[target]
        try:
            output = run_layer(layer, [values[index] for index in layer.inputs], tensor)
        except (IndexError, KeyError, ValueError):
            shapes = [network.tensors[index].shape for index in layer.inputs]
            raise ModelError(
                f"{place} cannot compute {tensor.shape} from {shapes}; the model contradicts itself"
            ) from None
        if output.shape != tensor.shape:
            raise ModelError(
                f"{place} computes {output.shape} where the model says {tensor.shape}; "
                "export it again with fixed shapes"
            )
        values[target] = output


def run_layer(layer: FloatLayer, inputs: Inputs, output: FloatTensor) -> FloatArray:
    """Compute what one layer writes, (N, ...), from what it reads; it may overflow to infinity."""
    with np.errstate(over="ignore", invalid="ignore"):
        return _OPERATORS[type(layer)](layer, inputs, output)


def activate(values: FloatArray, activation: Activation) -> FloatArray:
    """Clip to the activation's limits."""
    low, high = ACTIVATION_LIMITS[activation]
    return values if low is None and high is None else np.clip(values, low, high)


# -- layers that multiply -------------------------------------------------------------------------


def linear(layer: FloatWeighted, x: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Return the sums of products of a layer: no bias, no activation.

    Parameters
    ----------
    layer : FloatWeighted
    x : float32 array
        The layer's input, batch first.
    weights : float32 array or None
        In the place of the layer's own, of the same shape.

    Returns
    -------
    float32 array
        (N, P, Q, out_channels), or (..., out_features).
    """
    w = layer.weights if weights is None else weights.astype(np.float32, copy=False)
    if not isinstance(layer, FloatConv2D):
        return x.reshape(-1, w.shape[1]) @ w.T
    if w.shape[3] == 1:
        return _one_channel_conv(layer, x, w)
    matrix = w.reshape(layer.groups, w.shape[0] // layer.groups, -1).transpose(0, 2, 1)
    P, Q = output_sizes(layer, x.shape)
    parts = []
    for rows in patch_blocks(layer, x):
        sums = rows @ matrix  # groups, pixels, channels of a group
        parts.append(sums.transpose(1, 0, 2).reshape(-1, P, Q, w.shape[0]))
    return np.concatenate(parts)


def _one_channel_conv(layer: FloatConv2D, x: FloatArray, w: FloatArray) -> FloatArray:
    """Convolution whose groups have one input channel: each output channel scales one of them."""
    P, Q = output_sizes(layer, x.shape)
    image = _padded(x, layer.padding, 0.0)
    repeats = w.shape[0] // layer.groups
    total = np.zeros((len(x), P, Q, w.shape[0]), np.float32)
    for r in range(w.shape[1]):
        for s in range(w.shape[2]):
            y0, x0 = r * layer.dilation[0], s * layer.dilation[1]
            tap = image[:, y0 :: layer.stride[0], x0 :: layer.stride[1]][:, :P, :Q]
            total += (tap if repeats == 1 else np.repeat(tap, repeats, axis=3)) * w[:, r, s, 0]
    return total


def patch_blocks(layer: FloatWeighted, x: FloatArray) -> Iterator[FloatArray]:
    """Cut what the weights of each output multiply, some samples at a time.

    Yields
    ------
    (groups, outputs, K) float32 array
        K taps in the order of `golden.network`; outputs are the pixels of all samples of a block,
        or the rows of a dense layer.
    """
    if not isinstance(layer, FloatConv2D):
        rows = x.reshape(1, -1, layer.weights.shape[1])
        count = max(1, PATCH_ELEMENTS // rows.shape[2])
        for start in range(0, rows.shape[1], count):
            yield rows[:, start : start + count]
        return
    P, Q = output_sizes(layer, x.shape)
    _, R, S, C = layer.weights.shape
    (sy, sx), (dy, dx) = layer.stride, layer.dilation
    count = max(1, PATCH_ELEMENTS // max(1, P * Q * R * S * C * layer.groups))
    for start in range(0, len(x), count):
        image = _padded(x[start : start + count], layer.padding, 0.0)
        reach = ((R - 1) * dy + 1, (S - 1) * dx + 1)
        windows = sliding_window_view(image, reach, axis=(1, 2))
        windows = windows[:, ::sy, ::sx, :, ::dy, ::dx]  # samples, P, Q, channels, R, S
        split = windows.reshape(*windows.shape[:3], layer.groups, C, R, S)
        taps = split.transpose(3, 0, 1, 2, 5, 6, 4)
        yield taps.reshape(layer.groups, -1, R * S * C)


def output_sizes(layer: FloatConv2D, shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of a convolution's output, from the shape of its input."""
    pad = layer.padding
    sizes = (shape[1] + pad.top + pad.bottom, shape[2] + pad.left + pad.right)
    P, Q = (
        (size - (k - 1) * d - 1) // s + 1
        for size, k, d, s in zip(
            sizes, layer.weights.shape[1:3], layer.dilation, layer.stride, strict=True
        )
    )
    return P, Q


def _padded(x: FloatArray, padding: Padding, value: float) -> FloatArray:
    widths = ((0, 0), (padding.top, padding.bottom), (padding.left, padding.right), (0, 0))
    return np.pad(x, widths, constant_values=value) if padding != Padding() else x


def _weighted(layer: FloatWeighted, inputs: Inputs, output: FloatTensor) -> FloatArray:
    sums = linear(layer, inputs[0]) + layer.bias
    return _shaped(activate(sums, layer.activation), output)


# -- layers without weights -----------------------------------------------------------------------


def _pool(layer: FloatPool2D, inputs: Inputs, output: FloatTensor) -> FloatArray:
    taps = _window_taps(layer, inputs[0], 0.0 if layer.kind == "average" else -np.inf)
    if layer.kind == "max":
        return activate(reduce(np.maximum, taps), layer.activation)
    inside = np.ones((1, *inputs[0].shape[1:3], 1), np.float32)
    counts = reduce(np.add, _window_taps(layer, inside, 0.0))
    return activate(reduce(np.add, taps) / counts, layer.activation)


def _window_taps(layer: FloatPool2D, x: FloatArray, fill: float) -> list[FloatArray]:
    """Each tap of all windows, (N, P, Q, C); taps outside the image hold `fill`."""
    image = _padded(x, layer.padding, fill)
    P, Q = (
        (size - k) // s + 1
        for size, k, s in zip(image.shape[1:3], layer.kernel, layer.stride, strict=True)
    )
    sy, sx = layer.stride
    return [
        image[:, r::sy, s::sx][:, :P, :Q]
        for r in range(layer.kernel[0])
        for s in range(layer.kernel[1])
    ]


def _mean(layer: FloatMean, inputs: Inputs, output: FloatTensor) -> FloatArray:
    result: FloatArray = inputs[0].mean(axis=layer.axes, keepdims=layer.keep_dims)
    return result


def _add(layer: FloatAdd, inputs: Inputs, output: FloatTensor) -> FloatArray:
    return activate(inputs[0] + inputs[1], layer.activation)


def _mul(layer: FloatMul, inputs: Inputs, output: FloatTensor) -> FloatArray:
    return activate(inputs[0] * inputs[1], layer.activation)


def _concat(layer: FloatConcat, inputs: Inputs, output: FloatTensor) -> FloatArray:
    return np.concatenate(inputs, axis=layer.axis)


def _pad(layer: FloatPad, inputs: Inputs, output: FloatTensor) -> FloatArray:
    return np.pad(inputs[0], layer.paddings)


def _reshape(layer: FloatReshape, inputs: Inputs, output: FloatTensor) -> FloatArray:
    return _shaped(inputs[0], output)


def _shaped(x: FloatArray, output: FloatTensor) -> FloatArray:
    """`x` under the output's shape, the batch axis following the data."""
    return x.reshape(-1, *output.shape[1:])


def _activation(layer: FloatActivation, inputs: Inputs, output: FloatTensor) -> FloatArray:
    return activate(inputs[0], layer.activation)


def _softmax(layer: FloatSoftmax, inputs: Inputs, output: FloatTensor) -> FloatArray:
    shifted = (inputs[0] - inputs[0].max(axis=-1, keepdims=True)) * np.float32(layer.beta)
    exps = np.exp(shifted)
    result: FloatArray = exps / exps.sum(axis=-1, keepdims=True)
    return result


def _resize(layer: FloatResize, inputs: Inputs, output: FloatTensor) -> FloatArray:
    rows, columns = (_nearest(inputs[0].shape[axis], output.shape[axis], layer) for axis in (1, 2))
    return inputs[0][:, rows][:, :, columns]


def _nearest(size_in: int, size_out: int, layer: FloatResize) -> NDArray[np.int64]:
    """Input index of every output index along one axis, computed in float32."""
    corners = layer.align_corners and size_out > 1
    numerator, denominator = (size_in - 1, size_out - 1) if corners else (size_in, size_out)
    step = np.float32(numerator) / np.float32(denominator)
    offset = np.float32(0.5 if layer.half_pixel_centers else 0.0)
    position = (np.arange(size_out, dtype=np.float32) + offset) * step
    index = np.floor(position + 0.5) if layer.align_corners else np.floor(position)
    clipped: NDArray[np.int64] = np.clip(index.astype(np.int64), 0, size_in - 1)
    return clipped


_OPERATORS: dict[type[FloatLayer], Callable[[Any, Inputs, FloatTensor], FloatArray]] = {
    FloatConv2D: _weighted,
    FloatDense: _weighted,
    FloatPool2D: _pool,
    FloatMean: _mean,
    FloatAdd: _add,
    FloatMul: _mul,
    FloatConcat: _concat,
    FloatPad: _pad,
    FloatReshape: _reshape,
    FloatActivation: _activation,
    FloatSoftmax: _softmax,
    FloatResize: _resize,
}
"""What computes each layer."""
