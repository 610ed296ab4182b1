"""What layers without weights compute (rules V), stated independently of `golden.operators`.

Each function takes the layer, its input arrays (batch first, the batch free) and the tensor it
writes, and returns that tensor's codes. Element-wise arithmetic runs in `simulator.kernels`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.network import (
    DTYPES,
    Add,
    AveragePool2D,
    Clamp,
    Concat,
    Dequantize,
    Layer,
    MaxPool2D,
    Mean,
    Mul,
    Pad,
    Pool2D,
    Quantize,
    Requantization,
    Reshape,
    ResizeNearest,
    Softmax,
    Tensor,
)
from simulator import kernels
from simulator.values import rounding_index

Array = NDArray[Any]
Inputs = Sequence[Array]

CODE_BITS = {"int4": 4, "int8": 8, "uint8": 8, "int16": 16, "int32": 32}
"""Widths of the codes that a layer can write."""

ELEMENT_WISE = (Add, Mul, Clamp, Quantize)
"""Layers of which an output code depends on one code of each input."""

# exp(-1/4), exp(-1/2), exp(-1), exp(-2), exp(-4), exp(-8), exp(-16) as Q0.31: gemmlowp
# fixedpoint.h, exp_on_negative_values.
EXP_FACTORS = np.array(
    [1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242], dtype=np.int64
)


def run_vector(layer: Layer, inputs: Inputs, output: Tensor) -> Array:
    """Compute one layer without weights.

    Parameters
    ----------
    layer : Layer
        Any but a `WeightedLayer`.
    inputs : sequence of array
        Batch first.
    output : Tensor
        Shape (its batch is ignored), element type, scale.

    Returns
    -------
    array
    """
    operator = _OPERATORS[type(layer)]
    if isinstance(layer, ELEMENT_WISE) and _table_pays(inputs):
        table = operator(layer, _all_codes(inputs), output)
        looked_up: Array = table[tuple(x.view(np.uint8) for x in inputs)]
        return looked_up
    return operator(layer, inputs, output)


def _table_pays(inputs: Inputs) -> bool:
    """Whether there are more elements than combinations of codes."""
    shape = inputs[0].shape
    bytewide = all(x.dtype.itemsize == 1 and x.shape == shape for x in inputs)
    return bytewide and inputs[0].size > 256 ** len(inputs)


def _all_codes(inputs: Inputs) -> Inputs:
    """Every code of each input along an axis of its own, in the order of its bits."""
    codes = np.arange(256, dtype=np.uint8)
    return np.ix_(*(codes.view(x.dtype) for x in inputs))


# -- helpers --------------------------------------------------------------------------------------


def _rescale(values: Array, rule: Requantization) -> Array:
    flat = np.ascontiguousarray(values, dtype=np.int64).reshape(-1)
    scaled = kernels.rescale_all(
        flat, int(rule.multiplier[0]), int(rule.shift[0]), rounding_index(rule)
    )
    return scaled.reshape(values.shape)


def _clamp(values: Array, low: int, high: int, output: Tensor) -> Array:
    return np.minimum(np.maximum(values, low), high).astype(DTYPES[output.dtype])


def _code_range(dtype: str) -> tuple[int, int]:
    bits = CODE_BITS[dtype]
    return (0, (1 << bits) - 1) if dtype == "uint8" else (-(1 << bits - 1), (1 << bits - 1) - 1)


def _centred(x: Array, zero_point: int) -> Array:
    return np.subtract(x, zero_point, dtype=np.int64)


def _nearest_away(value: float) -> int:
    """Nearest integer, ties away from zero."""
    return floor(value + 0.5) if value >= 0 else -floor(0.5 - value)


def _nearest_away_all(values: Array) -> Array:
    """`_nearest_away` of float32 values; float64 holds each of them plus one half."""
    wide = values.astype(np.float64)
    return np.where(wide >= 0, np.floor(wide + 0.5), -np.floor(0.5 - wide))


# -- arithmetic -----------------------------------------------------------------------------------


def _pool(layer: Pool2D, inputs: Inputs, output: Tensor) -> Array:
    x = np.ascontiguousarray(inputs[0])
    codes = np.empty((len(x), *output.shape[1:]), dtype=np.int64)
    window = [*layer.kernel, *layer.stride, layer.padding.top, layer.padding.left]
    average = isinstance(layer, AveragePool2D)
    kernels.pool(x, np.array(window, dtype=np.int64), average, codes)
    return _clamp(codes, layer.activation_min, layer.activation_max, output)


def _mean(layer: Mean, inputs: Inputs, output: Tensor) -> Array:
    centred = _centred(inputs[0], layer.input_zero_point)
    total: Array = centred.sum(axis=layer.axes, keepdims=layer.keep_dims)
    codes = _rescale(total, layer.requantization) + layer.output_zero_point
    return _clamp(codes, layer.activation_min, layer.activation_max, output)


def _add(layer: Add, inputs: Inputs, output: Tensor) -> Array:
    first, second = np.broadcast_arrays(*inputs)
    rules = (*layer.input_requantizations, layer.output_requantization)
    scales = [
        [zero_point, int(rule.multiplier[0]), int(rule.shift[0]), rounding_index(rule)]
        for zero_point, rule in zip((*layer.input_zero_points, 0), rules, strict=True)
    ]
    low, high = layer.activation_min, layer.activation_max
    limits = np.array([layer.left_shift, layer.output_zero_point, low, high])
    codes = np.empty(first.shape, DTYPES[output.dtype])
    kernels.add(first.ravel(), second.ravel(), np.array(scales), limits, codes.ravel())
    return codes


def _mul(layer: Mul, inputs: Inputs, output: Tensor) -> Array:
    first, second = layer.input_zero_points
    product = _centred(inputs[0], first) * _centred(inputs[1], second)
    codes = _rescale(product, layer.requantization) + layer.output_zero_point
    return _clamp(codes, layer.activation_min, layer.activation_max, output)


def _clamp_layer(layer: Clamp, inputs: Inputs, output: Tensor) -> Array:
    centred = _centred(inputs[0], layer.input_zero_point)
    codes = _rescale(centred, layer.requantization) + layer.output_zero_point
    return _clamp(codes, layer.activation_min, layer.activation_max, output)


def _quantize(layer: Quantize, inputs: Inputs, output: Tensor) -> Array:
    if layer.requantization is None:
        scale = np.float32(1 if output.scale is None else output.scale)
        real = _nearest_away_all(inputs[0].astype(np.float32) / scale)
        codes = np.clip(real, -(1 << 31), (1 << 31) - 1).astype(np.int64)
    else:
        codes = _rescale(_centred(inputs[0], layer.input_zero_point), layer.requantization)
    return _clamp(codes + layer.output_zero_point, *_code_range(output.dtype), output)


def _dequantize(layer: Dequantize, inputs: Inputs, output: Tensor) -> Array:
    scale = float(np.float32(layer.scale))
    return (_centred(inputs[0], layer.zero_point) * scale).astype(np.float32)


# -- moving codes ---------------------------------------------------------------------------------


def _concat(layer: Concat, inputs: Inputs, output: Tensor) -> Array:
    parts = list(inputs)
    if layer.rescale is not None and output.scale is not None:
        target = (output.scale, output.zero_point)
        parts = [
            x if source == target else _rescaled_uint8(x, source, target)
            for x, source in zip(inputs, layer.rescale, strict=True)
        ]
    return np.concatenate(parts, axis=layer.axis)


def _rescaled_uint8(x: Array, source: tuple[float, int], target: tuple[float, int]) -> Array:
    """uint8 codes at another scale, in float32 as TensorFlow Lite's ConcatenationWithScaling.

    There are only 256 codes, so that a table serves.
    """
    scale = np.float32(source[0]) * (np.float32(1) / np.float32(target[0]))
    offset = np.float32(-source[1]) * scale
    real = np.arange(256, dtype=np.float32) * scale + offset
    table = np.clip(_nearest_away_all(real) + target[1], 0, 255).astype(np.uint8)
    codes: Array = table[x]
    return codes


def _pad(layer: Pad, inputs: Inputs, output: Tensor) -> Array:
    x = inputs[0]
    padded = np.full((len(x), *output.shape[1:]), layer.value, dtype=x.dtype)
    inside = tuple(
        slice(before, before + n) for (before, _), n in zip(layer.paddings, x.shape, strict=True)
    )
    padded[inside] = x
    return padded


def _reshape(layer: Reshape, inputs: Inputs, output: Tensor) -> Array:
    return inputs[0].reshape((len(inputs[0]), *output.shape[1:]))


def _resize(layer: ResizeNearest, inputs: Inputs, output: Tensor) -> Array:
    x = inputs[0]
    rows = [_source(i, x.shape[1], output.shape[1], layer) for i in range(output.shape[1])]
    columns = [_source(i, x.shape[2], output.shape[2], layer) for i in range(output.shape[2])]
    return x[:, rows][:, :, columns]


def _source(index: int, size: int, out_size: int, layer: ResizeNearest) -> int:
    """Input index of an output index, in float32; TensorFlow Lite, GetNearestNeighbor."""
    if layer.align_corners and out_size > 1:
        scale = np.float32(size - 1) / np.float32(out_size - 1)
    else:
        scale = np.float32(size) / np.float32(out_size)
    offset = np.float32(0.5 if layer.half_pixel_centers else 0)
    position = float((np.float32(index) + offset) * scale)
    nearest = _nearest_away(position) if layer.align_corners else floor(position)
    return max(0, min(nearest, size - 1))


# -- softmax --------------------------------------------------------------------------------------


def _softmax(layer: Softmax, inputs: Inputs, output: Tensor) -> Array:
    x = inputs[0]
    rows = x.reshape(-1, x.shape[-1]).astype(np.int64)
    if x.dtype == np.int16:
        exps = _table(lambda v: float(np.float32(exp(v))), -10.0, 0.0)
        reciprocals = _table(lambda v: float(np.float32(1) / (1 + np.float32(v))), 0.0, 1.0)
        codes = kernels.softmax16(rows, layer.multiplier, layer.shift, exps, reciprocals)
    else:
        lowest, _ = _code_range(output.dtype)
        codes = kernels.softmax8(
            rows,
            layer.multiplier,
            layer.shift,
            layer.diff_min,
            CODE_BITS[output.dtype],
            lowest,
            EXP_FACTORS,
        )
    return codes.reshape(x.shape).astype(DTYPES[output.dtype])


def _table(function: Callable[[float], float], low: float, high: float) -> NDArray[np.int64]:
    """513 samples of a float32 function at scale 2**-15; TensorFlow Lite, LUTPopulate.

    Every sample but the last is moved by half the error that linear interpolation makes in the
    middle of its step. All sums and products are float32.
    """
    single = np.float32
    step = single(single(high - low) / single(512))
    half_step = single(step / single(2))
    table = np.empty(513, dtype=np.int64)
    for i in range(512):
        point = single(single(low) + single(i) * step)
        after = single(single(low) + single(i + 1) * step)
        sample = _nearest_away(float(single(function(float(point))) * single(32768)))
        next_value = single(function(float(after))) * single(32768)
        interpolated = _nearest_away(float((next_value + single(sample)) / single(2)))
        middle = single(function(float(single(point + half_step)))) * single(32768)
        error = interpolated - _nearest_away(float(middle))
        table[i] = min(max(sample - _nearest_away(error / 2), -32768), 32767)
    last = _nearest_away(float(single(function(high)) * single(32768)))
    table[512] = min(max(last, -32768), 32767)
    return table


_OPERATORS: dict[type[Layer], Callable[[Any, Inputs, Tensor], Array]] = {
    AveragePool2D: _pool,
    MaxPool2D: _pool,
    Mean: _mean,
    Add: _add,
    Mul: _mul,
    Concat: _concat,
    Pad: _pad,
    Reshape: _reshape,
    Softmax: _softmax,
    Clamp: _clamp_layer,
    Quantize: _quantize,
    Dequantize: _dequantize,
    ResizeNearest: _resize,
}
