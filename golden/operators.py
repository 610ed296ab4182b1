"""What every layer computes: one plain function per layer type.

Each function takes the layer, its input arrays and the tensor it writes, and returns that tensor's
codes. The batch axis is free: it follows the inputs, not the stored shape. The arithmetic is that
of TensorFlow Lite Micro's reference kernels, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from golden.arithmetic import INT32, doubling_high_multiply, requantize, rounding_right_shift, wrap
from golden.errors import InputError
from golden.formats import Int64Array
from golden.multipliers import CODE_FORMATS
from golden.network import (
    DTYPES,
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
    Pad,
    Padding,
    Pool2D,
    Quantize,
    Requantization,
    Reshape,
    ResizeNearest,
    Softmax,
    Tensor,
    WeightedLayer,
)

Array = NDArray[Any]
Inputs = Sequence[Array]

FLOAT64_EXACT = 1 << 53
"""Below this magnitude every integer is exact in float64, and so is every partial sum."""


# Convolution and fully connected ------------------------------------------------------------------


def _exact_dtype(x: Int64Array, rows: Int64Array) -> np.dtype[Any]:
    """Type that holds every partial sum of x * rows exactly; `rows` is (outputs, terms)."""
    largest_x = max(int(x.max(initial=0)), -int(x.min(initial=0)))
    largest_row = int(np.abs(rows).sum(axis=1).max(initial=0))
    return np.dtype(np.float64 if largest_x * largest_row < FLOAT64_EXACT else np.int64)


def output_size(size: int, before: int, after: int, kernel: int, stride: int, dilation: int) -> int:
    """Positions of a window of `kernel` taps along one padded axis, at least 0."""
    return max(0, (size + before + after - (kernel - 1) * dilation - 1) // stride + 1)


def pad_image(x: Int64Array, padding: Padding, value: int) -> Int64Array:
    """Add rows and columns of `value` around (N, H, W, C) images."""
    widths = ((0, 0), (padding.top, padding.bottom), (padding.left, padding.right), (0, 0))
    return np.pad(x, widths, constant_values=value)


def _tap(x: Array, start: tuple[int, int], stride: tuple[int, int], P: int, Q: int) -> Array:
    """One kernel tap's view of padded images: (N, P, Q, C)."""
    return x[:, start[0] :: stride[0], start[1] :: stride[1]][:, :P, :Q]


def _conv_accumulators(layer: Conv2D, x: Int64Array, w: Int64Array) -> Int64Array:
    K, R, S, C = w.shape
    N, H, W, _ = x.shape
    pad, (dy, dx) = layer.padding, layer.dilation
    P = output_size(H, pad.top, pad.bottom, R, layer.stride[0], dy)
    Q = output_size(W, pad.left, pad.right, S, layer.stride[1], dx)
    dtype = _exact_dtype(x, w.reshape(K, -1))
    image: Array = pad_image(x, pad, 0).astype(dtype)
    weights: Array = w.astype(dtype)
    acc: Array = np.zeros((N, P, Q, K), dtype=dtype)
    per_group = K // layer.groups
    for r in range(R):
        for s in range(S):
            tap = _tap(image, (r * dy, s * dx), layer.stride, P, Q)
            if C == 1:
                # One input channel per group: each output channel scales a single input channel.
                acc += np.repeat(tap, per_group, axis=3) * weights[:, r, s, 0]
                continue
            for g in range(layer.groups):
                k = slice(g * per_group, (g + 1) * per_group)
                acc[..., k] += tap[..., g * C : (g + 1) * C] @ weights[k, r, s].T
    return acc.astype(np.int64)


def _dense_accumulators(x: Int64Array, w: Int64Array) -> Int64Array:
    dtype = _exact_dtype(x, w)
    rows = x.reshape(-1, w.shape[1]).astype(dtype)
    acc: Array = rows @ w.T.astype(dtype)
    return acc.astype(np.int64)


def operands(layer: WeightedLayer, x: Array) -> tuple[Int64Array, Int64Array]:
    """Return what the array multiplies: activations and weights minus their zero points, int64.

    Raises
    ------
    InputError
        Where `x` holds no integers, or not as many channels as the weights.
    """
    if x.dtype.kind not in "iu":
        raise InputError(
            f"the input of layer {layer.name!r} must hold integer codes, but has the element type"
            f" {x.dtype}; quantize it first"
        )
    if isinstance(layer, Conv2D):
        channels = layer.groups * layer.weights.shape[3]
        if x.ndim != 4 or x.shape[3] != channels:
            raise InputError(
                f"the input of layer {layer.name!r} must have the shape (N, H, W, {channels}), but"
                f" has {x.shape}; reshape it, channels last"
            )
    elif x.size % layer.weights.shape[1]:
        raise InputError(
            f"the input of layer {layer.name!r} must have a multiple of {layer.weights.shape[1]}"
            f" elements, but has the shape {x.shape}; give whole rows"
        )
    return (
        x.astype(np.int64) - layer.input_zero_point,
        layer.weights.astype(np.int64) - layer.weight_zero_point,
    )


def accumulators(layer: WeightedLayer, x: Array) -> Int64Array:
    """Exact accumulators of a layer that multiplies, bias excluded.

    Parameters
    ----------
    layer : WeightedLayer
    x : integer array
        Codes: (N, H, W, C) for a convolution; for a fully connected layer any shape whose size is a
        multiple of in_features.

    Returns
    -------
    int64 array
        (N, P, Q, out_channels), or (rows, out_features).

    Raises
    ------
    InputError
        Where `x` holds no integers, or not as many channels as the weights.

    Notes
    -----
    sum over k of (w[k] - weight_zero_point) * (x[k] - input_zero_point), as a number of no width.
    The product runs in float64 only where a bound on every partial sum, computed here from the
    operands, stays below 2**53.
    """
    activations, weights = operands(layer, x)
    if isinstance(layer, Conv2D):
        return _conv_accumulators(layer, activations, weights)
    return _dense_accumulators(activations, weights)


def _clamped(
    codes: Array, layer: WeightedLayer | Pool2D | Mean | Add | Mul | Clamp, output: Tensor
) -> Array:
    """Clamp codes to the layer's activation range and store them in the output's element type."""
    clamped: Array = np.clip(codes, layer.activation_min, layer.activation_max)
    return clamped.astype(DTYPES[output.dtype])


def post_process(layer: WeightedLayer, acc: Int64Array, output: Tensor) -> Array:
    """Bias, requantization, output zero point and clamp: (..., out_channels) to codes."""
    biased = acc if layer.bias is None else acc + layer.bias.astype(np.int64)
    scaled = requantize(biased, layer.requantization) + layer.output_zero_point
    return _clamped(scaled, layer, output)


def conv2d(layer: Conv2D, inputs: Inputs, output: Tensor) -> Array:
    """2-D convolution, with groups, stride, dilation and explicit padding.

    (N, H, W, C) codes to (N, P, Q, out_channels) codes. Depthwise layers are the case of as many
    groups as input channels.
    """
    return post_process(layer, accumulators(layer, inputs[0]), output)


def depthwise_conv2d(layer: DepthwiseConv2D, inputs: Inputs, output: Tensor) -> Array:
    """Depthwise convolution: output channel c reads input channel c // multiplier."""
    return conv2d(layer, inputs, output)


def fully_connected(layer: FullyConnected, inputs: Inputs, output: Tensor) -> Array:
    """Matrix product with the weights; leading axes as the output tensor keeps them."""
    return _shaped(post_process(layer, accumulators(layer, inputs[0]), output), output)


# Pooling and reduction ----------------------------------------------------------------------------


def _window_taps(layer: Pool2D, x: Int64Array, fill: int) -> Iterator[Array]:
    """Taps of every pooling window, out-of-image ones holding `fill`: (N, P, Q, C) each."""
    (R, S), pad = layer.kernel, layer.padding
    P = output_size(x.shape[1], pad.top, pad.bottom, R, layer.stride[0], 1)
    Q = output_size(x.shape[2], pad.left, pad.right, S, layer.stride[1], 1)
    image = pad_image(x, pad, fill)
    return (_tap(image, (r, s), layer.stride, P, Q) for r in range(R) for s in range(S))


def average_pool2d(layer: AveragePool2D, inputs: Inputs, output: Tensor) -> Array:
    """Mean of the codes inside the image, rounded half away from zero.

    Codes -5 and -2 average to -4, 5 and 2 to 4.
    """
    x = inputs[0].astype(np.int64)
    total = reduce(np.add, _window_taps(layer, x, 0))
    count = reduce(np.add, _window_taps(layer, np.ones_like(x[:1, :, :, :1]), 0))
    mean = np.sign(total) * ((np.abs(total) + count // 2) // count)
    return _clamped(mean, layer, output)


def max_pool2d(layer: MaxPool2D, inputs: Inputs, output: Tensor) -> Array:
    """Largest code inside the image."""
    x = inputs[0].astype(np.int64)
    largest = reduce(np.maximum, _window_taps(layer, x, np.iinfo(np.int64).min))
    return _clamped(largest, layer, output)


def mean(layer: Mean, inputs: Inputs, output: Tensor) -> Array:
    """Mean over `layer.axes`; the division is part of the requantization.

    `golden.multipliers.mean_requantization` prepares it.
    """
    x = inputs[0].astype(np.int64) - layer.input_zero_point
    total = x.sum(axis=layer.axes, keepdims=layer.keep_dims)
    return _rescaled(total, layer, output)


# Element-wise -------------------------------------------------------------------------------------


def _rescaled(values: Int64Array, layer: Mean | Mul | Clamp, output: Tensor) -> Array:
    scaled = requantize(values, layer.requantization) + layer.output_zero_point
    return _clamped(scaled, layer, output)


def add(layer: Add, inputs: Inputs, output: Tensor) -> Array:
    """Sum of two tensors of different scales, with broadcasting."""
    total: Int64Array = np.zeros((), dtype=np.int64)
    for x, zero_point, rule in zip(
        inputs, layer.input_zero_points, layer.input_requantizations, strict=True
    ):
        total = total + requantize((x.astype(np.int64) - zero_point) << layer.left_shift, rule)
    scaled = requantize(total, layer.output_requantization) + layer.output_zero_point
    return _clamped(scaled, layer, output)


def mul(layer: Mul, inputs: Inputs, output: Tensor) -> Array:
    """Product of two tensors, with broadcasting."""
    first, second = (
        x.astype(np.int64) - zero_point
        for x, zero_point in zip(inputs, layer.input_zero_points, strict=True)
    )
    return _rescaled(first * second, layer, output)


def clamp(layer: Clamp, inputs: Inputs, output: Tensor) -> Array:
    """Stand-alone relu, relu6, relu_n1_to_1: requantize, then clamp the codes."""
    return _rescaled(inputs[0].astype(np.int64) - layer.input_zero_point, layer, output)


def _round_half_away(values: Array) -> NDArray[np.float64]:
    """Nearest integers, ties away from zero, of float32 values (exact: float64 has room)."""
    wide = values.astype(np.float64)
    return np.copysign(np.floor(np.abs(wide) + 0.5), wide)


def quantize(layer: Quantize, inputs: Inputs, output: Tensor) -> Array:
    """Float to codes (float32 division, half away from zero), or codes to another scale."""
    x = inputs[0]
    limits = CODE_FORMATS[output.dtype]
    if layer.requantization is None:
        with np.errstate(over="ignore"):  # an infinite quotient saturates below
            quotient = x.astype(np.float32) / np.float32(cast(float, output.scale))
        rounded = _round_half_away(quotient)
        codes = np.clip(rounded, INT32.min, INT32.max).astype(np.int64)
    else:
        codes = requantize(x.astype(np.int64) - layer.input_zero_point, layer.requantization)
    clamped = np.clip(codes + layer.output_zero_point, limits.min, limits.max)
    return clamped.astype(DTYPES[output.dtype])


def dequantize(layer: Dequantize, inputs: Inputs, output: Tensor) -> Array:
    """Codes to float32, multiplied in double and rounded once."""
    operand = inputs[0].astype(np.int64) - layer.zero_point
    return (np.float64(np.float32(layer.scale)) * operand).astype(np.float32)


# Moving codes -------------------------------------------------------------------------------------


def _shaped(x: Array, output: Tensor) -> Array:
    """`x` under the output's shape, the batch axis following the data."""
    return x.reshape((-1, *output.shape[1:]) if output.shape else ())


def reshape(layer: Reshape, inputs: Inputs, output: Tensor) -> Array:
    """Give the same codes the output tensor's shape."""
    return _shaped(inputs[0], output)


def concat(layer: Concat, inputs: Inputs, output: Tensor) -> Array:
    """Concatenation; uint8 inputs of another scale go through float32, as TensorFlow Lite's do."""
    if layer.rescale is None:
        return np.concatenate(inputs, axis=layer.axis)
    scale = cast(float, output.scale)
    parts = [
        _rescale_uint8(x, source, (scale, output.zero_point))
        for x, source in zip(inputs, layer.rescale, strict=True)
    ]
    return np.concatenate(parts, axis=layer.axis)


def _rescale_uint8(x: Array, source: tuple[float, int], target: tuple[float, int]) -> Array:
    """uint8 codes from one (scale, zero point) to another, every product in float32."""
    ratio = np.float32(source[0]) * (np.float32(1) / np.float32(target[0]))
    bias = np.float32(-source[1]) * ratio
    codes = _round_half_away(x.astype(np.float32) * ratio + bias).astype(np.int64) + target[1]
    return np.clip(codes, 0, 255).astype(np.uint8)


def pad(layer: Pad, inputs: Inputs, output: Tensor) -> Array:
    """Constant padding of any axis."""
    return np.pad(inputs[0], layer.paddings, constant_values=layer.value)


def _nearest(size_in: int, size_out: int, layer: ResizeNearest) -> NDArray[np.int64]:
    """Input index of every output index along one axis, computed in float32."""
    corners = layer.align_corners and size_out > 1
    numerator, denominator = (size_in - 1, size_out - 1) if corners else (size_in, size_out)
    step = np.float32(numerator) / np.float32(denominator)
    offset = np.float32(0.5 if layer.half_pixel_centers else 0.0)
    position = (np.arange(size_out).astype(np.float32) + offset) * step
    index = _round_half_away(position) if layer.align_corners else np.floor(position)
    return np.clip(index.astype(np.int64), 0, size_in - 1)


def resize_nearest(layer: ResizeNearest, inputs: Inputs, output: Tensor) -> Array:
    """Nearest-neighbour resize to the height and width of the output tensor."""
    x = inputs[0]
    rows = _nearest(x.shape[1], output.shape[1], layer)
    columns = _nearest(x.shape[2], output.shape[2], layer)
    return x[:, rows][:, :, columns]


# Softmax ------------------------------------------------------------------------------------------

# exp(-2**e) for e = -2..4 as Q0.31, and exp(-1/8); gemmlowp fixedpoint.h, exp_on_negative_values.
EXP_NEGATIVE_POWERS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
EXP_MINUS_ONE_EIGHTH = 1895147668
ONE_THIRD_Q31 = 715827883
# 48/17 and -32/17 as Q2.29: the first guess of Newton's division.
NEWTON_CONSTANT_Q29 = 1515870810
NEWTON_SLOPE_Q29 = -1010580540
DIFF_FRACTION_BITS = 26
SUM_INTEGER_BITS = 12


def _saturating_left_shift(x: Int64Array, bits: int) -> Int64Array:
    shifted: Int64Array = np.clip(x << bits, INT32.min, INT32.max)
    return shifted


def _exp_between_minus_quarter_and_zero(a: Int64Array) -> Int64Array:
    """exp(a) for Q0.31 a in [-1/4, 0): a Taylor series of four terms around -1/8."""
    x = a + (1 << 28)
    x2 = doubling_high_multiply(x, x)
    x3 = doubling_high_multiply(x2, x)
    x4_over_4 = rounding_right_shift(doubling_high_multiply(x2, x2), 2)
    cubic = doubling_high_multiply(x4_over_4 + x3, ONE_THIRD_Q31)
    series = x + rounding_right_shift(cubic + x2, 1)
    return EXP_MINUS_ONE_EIGHTH + doubling_high_multiply(EXP_MINUS_ONE_EIGHTH, series)


def _exp_on_negative_values(a: Int64Array) -> Int64Array:
    """exp(a) as Q0.31 for Q5.26 a <= 0; gemmlowp fixedpoint.h."""
    quarter = 1 << (DIFF_FRACTION_BITS - 2)
    fraction = (a & (quarter - 1)) - quarter
    result = _exp_between_minus_quarter_and_zero(fraction << 5)
    remainder = fraction - a
    for power, factor in enumerate(EXP_NEGATIVE_POWERS):
        bit_set = (remainder >> (DIFF_FRACTION_BITS - 2 + power)) & 1 == 1
        result = np.where(bit_set, doubling_high_multiply(result, factor), result)
    return np.where(a == 0, np.int64(INT32.max), result)


def _one_over_one_plus_x(x: Int64Array) -> Int64Array:
    """1 / (1 + x) as Q0.31 for Q0.31 x in [0, 1): Newton's division, three steps in Q2.29."""
    half_denominator = (x + INT32.max + 1) >> 1
    estimate = NEWTON_CONSTANT_Q29 + doubling_high_multiply(half_denominator, NEWTON_SLOPE_Q29)
    for _ in range(3):
        error = (1 << 29) - doubling_high_multiply(half_denominator, estimate)
        correction = doubling_high_multiply(estimate, error)
        estimate = estimate + _saturating_left_shift(correction, 2)
    return _saturating_left_shift(estimate, 1)


def _leading_zeros32(x: Int64Array) -> Int64Array:
    """Leading zeros of positive 32-bit integers (frexp's exponent is their bit length)."""
    length: Int64Array = np.frexp(x.astype(np.float64))[1].astype(np.int64)
    return 32 - length


def _softmax8(layer: Softmax, x: Int64Array, output: Tensor) -> Int64Array:
    limits = CODE_FORMATS[output.dtype]
    diff = x - x.max(axis=-1, keepdims=True)
    counts = diff >= layer.diff_min
    shifted, _ = wrap(np.where(counts, diff, 0) << layer.shift, INT32)
    exps = _exp_on_negative_values(doubling_high_multiply(shifted, layer.multiplier))
    terms = np.where(counts, rounding_right_shift(exps, SUM_INTEGER_BITS), 0)
    total, _ = wrap(terms.sum(axis=-1, keepdims=True), INT32)
    zeros = _leading_zeros32(total)
    reciprocal = _one_over_one_plus_x((total << zeros) - (1 << 31))
    exponent = SUM_INTEGER_BITS - zeros + 31 - limits.bits
    scaled = rounding_right_shift(doubling_high_multiply(reciprocal, exps), exponent)
    return np.where(counts, np.clip(scaled + limits.min, limits.min, limits.max), limits.min)


def _lookup_table(function: Callable[[Array], Array], low: float, high: float) -> Int64Array:
    """513 int16 samples of `function` on [low, high] at scale 2**-15, for linear interpolation.

    Each sample is moved by half the interpolation error at the middle of its step. Everything is
    float32, as TensorFlow Lite's table generator computes it.
    """
    f32 = np.float32
    step = f32((f32(high) - f32(low)) / f32(512))
    half_step = f32(step / f32(2))
    scale = f32(f32(65536) / f32(2.0))
    points = f32(low) + np.arange(513).astype(f32) * step
    values = function(points) * scale
    sample = _round_half_away(values)
    middle = _round_half_away(function(points[:-1] + half_step) * scale)
    interpolated = _round_half_away(
        ((values[1:] + sample[:-1].astype(f32)) / f32(2)).astype(np.float32)
    )
    bias = _round_half_away((interpolated - middle) / 2)
    sample[:-1] -= bias
    sample[-1] = _round_half_away(function(np.array([high], dtype=f32)) * scale)[0]
    return np.clip(sample, -32768, 32767).astype(np.int64)


def _float32_exp(x: Array) -> Array:
    return np.exp(x.astype(np.float64)).astype(np.float32)


def _float32_reciprocal(x: Array) -> Array:
    return np.float32(1) / (np.float32(1) + x)


def _lookup(table: Int64Array, x: Int64Array) -> Int64Array:
    """Value of `table` at int16 x: nine bits of index, seven of linear interpolation."""
    index = 256 + (x >> 7)
    slope = table[index + 1] - table[index]
    value: Int64Array = table[index] + ((slope * (x & 0x7F) + 64) >> 7)
    return value


def _softmax16(layer: Softmax, x: Int64Array) -> Int64Array:
    rule = Requantization(
        np.array([layer.multiplier], dtype=np.int32), np.array([layer.shift], dtype=np.int32)
    )
    diff = requantize(x - x.max(axis=-1, keepdims=True), rule)
    exp_table = _lookup_table(_float32_exp, -10.0, 0.0)
    exps = _lookup(exp_table, np.clip(diff + 32767, -32768, 32767))
    total = exps.sum(axis=-1, keepdims=True)
    zeros = _leading_zeros32(total)
    mantissa = ((total << (zeros - 1)) + (1 << 13)) >> 14
    reciprocal_table = _lookup_table(_float32_reciprocal, 0.0, 1.0)
    reciprocal = _lookup(reciprocal_table, np.clip(mantissa - (1 << 15) - (1 << 16), -32768, 32767))
    right_shift = 31 - zeros
    scaled = (exps * reciprocal + (np.int64(1) << (right_shift - 1))) >> right_shift
    codes: Int64Array = np.clip(scaled, 0, 32767)
    return codes


def softmax(layer: Softmax, inputs: Inputs, output: Tensor) -> Array:
    """Softmax over the last axis, in fixed point.

    8-bit codes (to 8 or 16 bits) go through gemmlowp's exp and Newton division, int16 codes through
    two interpolated tables. Source: TensorFlow Lite, reference/softmax.h.
    """
    x = inputs[0].astype(np.int64)
    codes = _softmax16(layer, x) if inputs[0].dtype == np.int16 else _softmax8(layer, x, output)
    return codes.astype(DTYPES[output.dtype])


OPERATORS: dict[type[Layer], Callable[[Any, Inputs, Tensor], Array]] = {
    Conv2D: conv2d,
    DepthwiseConv2D: depthwise_conv2d,
    FullyConnected: fully_connected,
    AveragePool2D: average_pool2d,
    MaxPool2D: max_pool2d,
    Mean: mean,
    Add: add,
    Mul: mul,
    Concat: concat,
    Pad: pad,
    Reshape: reshape,
    Softmax: softmax,
    Clamp: clamp,
    Quantize: quantize,
    Dequantize: dequantize,
    ResizeNearest: resize_nearest,
}
"""The function that computes each layer type."""
