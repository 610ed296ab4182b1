"""Seeded random TensorFlow Lite models: one operator each, and small networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from tflite_builder import ModelBuilder

LIMITS = {"int4": (-8, 7), "int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}


@dataclass(frozen=True)
class Case:
    """A model, its input and output tensors by their index in the file, and data for the inputs."""

    builder: ModelBuilder
    inputs: list[int]
    data: list[NDArray[Any]]
    outputs: list[int]

    @property
    def model(self) -> bytes:
        return self.builder.build(self.inputs, self.outputs)


def codes(rng: Generator, shape: Sequence[int], dtype: str) -> NDArray[Any]:
    """Uniform codes; one array in four is full of extremes."""
    low, high = LIMITS[dtype]
    numpy_dtype = np.int8 if dtype == "int4" else np.dtype(dtype)
    values = rng.integers(low, high + 1, shape)
    if rng.random() < 0.25:
        values = np.where(rng.random(shape) < 0.7, rng.choice([low, high], shape), values)
    return values.astype(numpy_dtype)


def zero_point(rng: Generator, dtype: str) -> int:
    low, high = LIMITS[dtype]
    if dtype == "int16":
        return 0
    return int(rng.choice([low, high, 0, *rng.integers(low, high + 1, 2).tolist()]))


def scale(rng: Generator, low: float = 1e-4, high: float = 10.0) -> float:
    return float(np.float32(np.exp(rng.uniform(np.log(low), np.log(high)))))


def activation(rng: Generator) -> int:
    """NONE, RELU, RELU_N1_TO_1 or RELU6."""
    return int(rng.choice([0, 0, 1, 2, 3]))


def image(rng: Generator, channels: int, largest: int = 9) -> tuple[int, int, int, int]:
    batch, height, width = rng.choice([1, 1, 2]), *rng.integers(1, largest + 1, 2)
    return int(batch), int(height), int(width), channels


def window(rng: Generator, size: Sequence[int], dilated: bool) -> dict[str, Any]:
    """Kernel, stride, dilation and padding of a window that fits an image of `size`."""
    valid = bool(rng.random() < 0.5)
    kernel, dilation = [], []
    for n in size:
        d = int(rng.integers(1, 4)) if dilated and rng.random() < 0.4 else 1
        k = int(rng.integers(1, 5))
        while valid and (k - 1) * d + 1 > n:
            k -= 1
        kernel.append(k)
        dilation.append(d)
    stride = [int(s) for s in rng.integers(1, 4, 2)]
    output = [
        -(-(n - (k - 1) * d) // s) if valid else -(-n // s)
        for n, k, d, s in zip(size, kernel, dilation, stride, strict=True)
    ]
    return {
        "kernel": kernel,
        "stride": stride,
        "dilation": dilation,
        "padding": int(valid),
        "output": output,
    }


def weighted(
    rng: Generator,
    b: ModelBuilder,
    name: str,
    x: int,
    w_shape: Sequence[int],
    y_shape: Sequence[int],
    options: dict[str, Any],
    y_scale: float,
    y_zero: int,
    headroom: float,
    fused: int,
) -> int:
    """Add a weighted operator on tensor `x`, with weight scales that bring it to `y_scale`.

    At a headroom of 1 the accumulators of uniform codes spread over the output codes.
    """
    source = b.tensors[x]
    dtype, x_scale = source.dtype, float(source.scales[0])
    axis = 3 if name == "DEPTHWISE_CONV_2D" else 0
    w_dtype = "uint8" if dtype == "uint8" else "int8"
    if dtype == "int8" and rng.random() < 0.25:
        w_dtype = "int4"
    channels = w_shape[axis]
    # The reference kernels have no int4 dense layer of one scale per channel.
    per_tensor = dtype == "uint8" or (w_dtype == "int4" and len(w_shape) == 2)
    per_tensor = per_tensor or bool(rng.random() < 0.4)
    spread = 18900.0 if dtype == "int16" else 74.0  # of uniform codes
    spread *= (4.6 if w_dtype == "int4" else 74.0) * np.sqrt(prod(w_shape) // channels)
    codes_per_spread = 15000.0 if dtype == "int16" else 60.0
    median = y_scale * codes_per_spread / (x_scale * spread * headroom)
    weight_scales = median * np.exp(rng.normal(0, 0.7, 1 if per_tensor else channels))
    w = b.tensor(
        w_shape,
        w_dtype,
        weight_scales,
        zero_point(rng, "uint8") if dtype == "uint8" else 0,
        axis=axis,
        data=codes(rng, w_shape, w_dtype),
    )
    inputs = [x, w]
    if rng.random() < 0.8:
        # An int16 depthwise layer of the reference kernels reads an int64 bias only.
        wide = dtype == "int16" and (name == "DEPTHWISE_CONV_2D" or rng.random() < 0.5)
        values = np.rint(rng.normal(0, spread, channels))
        bias_scales = np.float32(x_scale) * weight_scales.astype(np.float32)
        inputs.append(
            b.tensor((channels,), "int64" if wide else "int32", bias_scales, 0, data=values)
        )
    y = b.tensor(y_shape, dtype, y_scale, y_zero)
    b.operator(name, inputs, [y], FusedActivationFunction=fused, **options)
    return y


def _weighted_case(
    rng: Generator,
    name: str,
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    y_shape: Sequence[int],
    options: dict[str, Any],
    dtype: str,
) -> Case:
    dtype = dtype or str(rng.choice(["int8", "int8", "int8", "int16"]))
    b = ModelBuilder()
    x = b.tensor(x_shape, dtype, scale(rng), zero_point(rng, dtype))
    headroom = 2.0 ** rng.uniform(-2, 4) if rng.random() < 0.85 else 2.0 ** rng.uniform(-7, 24)
    y_scale, y_zero, fused = scale(rng), zero_point(rng, dtype), activation(rng)
    y = weighted(rng, b, name, x, w_shape, y_shape, options, y_scale, y_zero, headroom, fused)
    return Case(b, [x], [codes(rng, x_shape, dtype)], [y])


def _geometry(win: dict[str, Any]) -> dict[str, Any]:
    return {
        "Padding": win["padding"],
        "StrideH": win["stride"][0],
        "StrideW": win["stride"][1],
        "DilationHFactor": win["dilation"][0],
        "DilationWFactor": win["dilation"][1],
    }


def conv_2d(rng: Generator, dtype: str = "") -> Case:
    groups = int(rng.choice([1, 1, 2, 3]))
    c, k = int(rng.integers(1, 7)), int(rng.integers(1, 7))
    x_shape = image(rng, groups * c)
    win = window(rng, x_shape[1:3], dilated=True)
    w_shape = (groups * k, *win["kernel"], c)
    y_shape = (x_shape[0], *win["output"], groups * k)
    return _weighted_case(rng, "CONV_2D", x_shape, w_shape, y_shape, _geometry(win), dtype)


def depthwise_conv_2d(rng: Generator, dtype: str = "") -> Case:
    multiplier = int(rng.choice([1, 1, 2, 3]))
    x_shape = image(rng, int(rng.integers(1, 9)))
    win = window(rng, x_shape[1:3], dilated=True)
    out_channels = x_shape[3] * multiplier
    w_shape = (1, *win["kernel"], out_channels)
    y_shape = (x_shape[0], *win["output"], out_channels)
    options = {**_geometry(win), "DepthMultiplier": multiplier}
    return _weighted_case(rng, "DEPTHWISE_CONV_2D", x_shape, w_shape, y_shape, options, dtype)


def fully_connected(rng: Generator, dtype: str = "") -> Case:
    batch, features, out = (int(n) for n in rng.integers(1, (4, 60, 20)))
    form = rng.choice(["plain", "keep", "flatten", "squeeze"])
    if form == "keep":
        middle = tuple(int(n) for n in rng.integers(1, 4, rng.integers(1, 3)))
        x_shape: tuple[int, ...] = (batch, *middle, features)
        y_shape: tuple[int, ...] = (batch, *middle, out)
    elif form == "flatten":  # the reference kernels flatten all but the batch
        batch = 1
        height, width = (int(n) for n in rng.integers(1, 4, 2))
        x_shape, y_shape = (batch, height, width, features), (batch, out)
        features *= height * width
    elif form == "squeeze":
        x_shape, y_shape = (batch, 1, 1, features), (batch, out)
    else:
        x_shape, y_shape = (batch, features), (batch, out)
    options = {"KeepNumDims": form == "keep"}
    return _weighted_case(rng, "FULLY_CONNECTED", x_shape, (out, features), y_shape, options, dtype)


def _pool(name: str) -> Callable[..., Case]:
    def build(rng: Generator, dtype: str = "") -> Case:
        dtype = dtype or str(rng.choice(["int8", "int8", "int16"]))
        x_shape = image(rng, int(rng.integers(1, 6)))
        win = window(rng, x_shape[1:3], dilated=False)
        b, s, z = ModelBuilder(), scale(rng, 1e-3, 1), zero_point(rng, dtype)
        x = b.tensor(x_shape, dtype, s, z)
        y = b.tensor((x_shape[0], *win["output"], x_shape[3]), dtype, s, z)
        b.operator(
            name,
            [x],
            [y],
            Padding=win["padding"],
            StrideH=win["stride"][0],
            StrideW=win["stride"][1],
            FilterHeight=win["kernel"][0],
            FilterWidth=win["kernel"][1],
            FusedActivationFunction=activation(rng),
        )
        return Case(b, [x], [codes(rng, x_shape, dtype)], [y])

    return build


def mean(rng: Generator, dtype: str = "") -> Case:
    dtype = dtype or str(rng.choice(["int8", "int8", "int16"]))
    rank = int(rng.integers(2, 5))
    shape = tuple(int(n) for n in (1, *rng.integers(1, 9, rank - 1)))
    axes = sorted(rng.choice(np.arange(1, rank), int(rng.integers(1, rank)), replace=False))
    if rank == 4 and rng.random() < 0.5:
        axes = [1, 2]
    keep = bool(rng.random() < 0.5)
    y_shape = [1 if a in axes else n for a, n in enumerate(shape) if keep or a not in axes]
    b, s, z = ModelBuilder(), scale(rng), zero_point(rng, dtype)
    x = b.tensor(shape, dtype, s, z)
    if rng.random() < 0.5:
        s, z = s * 2.0 ** rng.uniform(-3, 3), zero_point(rng, dtype)
    y = b.tensor(y_shape, dtype, s, z)
    stored = [int(a) - (rank if rng.random() < 0.3 else 0) for a in axes]
    b.operator("MEAN", [x, b.constant(stored)], [y], KeepDims=keep)
    return Case(b, [x], [codes(rng, shape, dtype)], [y])


def _shapes_that_broadcast(rng: Generator) -> tuple[tuple[int, ...], ...]:
    rank = int(rng.integers(2, 5))
    shape = (1, *(int(n) for n in rng.integers(1, 6, rank - 1)))
    first, second = list(shape), list(shape)
    if rng.random() < 0.4:
        for axis in range(1, rank):
            if rng.random() < 0.5:
                (first if rng.random() < 0.5 else second)[axis] = 1
    return tuple(first), tuple(second), tuple(np.broadcast_shapes(tuple(first), tuple(second)))


def add(rng: Generator, dtype: str = "") -> Case:
    dtype = dtype or str(rng.choice(["int8", "int8", "int16"]))
    first, second, output = _shapes_that_broadcast(rng)
    s1, s2 = scale(rng, 1e-3, 10), scale(rng, 1e-3, 10)
    if rng.random() < 0.3:
        s2 = s1
    s3 = max(s1, s2) * 2.0 ** rng.uniform(-3, 5)
    b = ModelBuilder()
    x1 = b.tensor(first, dtype, s1, zero_point(rng, dtype))
    x2 = b.tensor(second, dtype, s2, zero_point(rng, dtype))
    y = b.tensor(output, dtype, s3, zero_point(rng, dtype))
    b.operator("ADD", [x1, x2], [y], FusedActivationFunction=activation(rng))
    return Case(b, [x1, x2], [codes(rng, first, dtype), codes(rng, second, dtype)], [y])


def mul(rng: Generator, dtype: str = "") -> Case:
    dtype = dtype or str(rng.choice(["int8", "int8", "int16"]))
    first, second, output = _shapes_that_broadcast(rng)
    s1, s2 = scale(rng, 1e-3, 10), scale(rng, 1e-3, 10)
    s3 = s1 * s2 * (32768 if dtype == "int16" else 128) * 2.0 ** rng.uniform(-4, 3)
    b = ModelBuilder()
    x1 = b.tensor(first, dtype, s1, zero_point(rng, dtype))
    x2 = b.tensor(second, dtype, s2, zero_point(rng, dtype))
    y = b.tensor(output, dtype, s3, zero_point(rng, dtype))
    b.operator("MUL", [x1, x2], [y], FusedActivationFunction=activation(rng))
    return Case(b, [x1, x2], [codes(rng, first, dtype), codes(rng, second, dtype)], [y])


def concatenation(rng: Generator, dtype: str = "") -> Case:
    dtype = dtype or str(rng.choice(["int8", "int16"]))
    rank = int(rng.integers(2, 5))
    shape = [1, *(int(n) for n in rng.integers(1, 5, rank - 1))]
    axis = int(rng.integers(1, rank))
    b, s, z = ModelBuilder(), scale(rng), zero_point(rng, dtype)
    shapes = []
    for _ in range(int(rng.integers(1, 5))):
        shape[axis] = int(rng.integers(1, 5))
        shapes.append(tuple(shape))
    xs = []
    for one in shapes:
        if dtype == "uint8" and rng.random() < 0.5:  # the older scheme may rescale
            xs.append(b.tensor(one, dtype, s * 2.0 ** rng.uniform(-2, 2), zero_point(rng, dtype)))
        else:
            xs.append(b.tensor(one, dtype, s, z))
    shape[axis] = sum(one[axis] for one in shapes)
    y = b.tensor(shape, dtype, s, z)
    b.operator("CONCATENATION", xs, [y], Axis=axis - (rank if rng.random() < 0.5 else 0))
    return Case(b, xs, [codes(rng, one, dtype) for one in shapes], [y])


def _with_constants(build: Callable[..., Case]) -> Callable[..., Case]:
    """Models of `build` in which some operands, but never all, are stored in the file.

    Where shapes broadcast, some of them are scalars, leading axes of size 1 are left out of others,
    and some files have a batch of two, which all constants serve.
    """

    def stored(rng: Generator, dtype: str = "") -> Case:
        case = build(rng, dtype)
        while len(case.inputs) < 2:
            case = build(rng, dtype)
        tensors = case.builder.tensors
        broadcasts = case.builder.operators[0][0] != "CONCATENATION"
        computed = sorted(rng.permutation(case.inputs)[: int(rng.integers(1, len(case.inputs)))])
        data = dict(zip(case.inputs, case.data, strict=True))
        for index in set(case.inputs) - set(computed):
            spec, shape = tensors[index], tensors[index].shape
            values = data[index]
            if broadcasts and rng.random() < 0.2:
                values, whole = values.reshape(-1)[0], tensors[computed[0]].shape
                tensors[case.outputs[0]] = replace(tensors[case.outputs[0]], shape=whole)
            elif broadcasts:
                ones = next((a for a, n in enumerate(shape) if n != 1), len(shape))
                values = values.reshape(shape[int(rng.integers(ones + 1)) :])
            tensors[index] = replace(spec, shape=values.shape, data=values.tobytes())
        if broadcasts and rng.random() < 0.3:
            for index in (*computed, *case.outputs):
                tensors[index] = replace(tensors[index], shape=(2, *tensors[index].shape[1:]))
            data |= {i: codes(rng, tensors[i].shape, tensors[i].dtype) for i in computed}
        return replace(case, inputs=computed, data=[data[index] for index in computed])

    return stored


def _pad(name: str) -> Callable[..., Case]:
    def build(rng: Generator, dtype: str = "") -> Case:
        dtype = dtype or str(rng.choice(["int8", "int16"]))
        rank = int(rng.integers(2, 5))
        shape = (1, *(int(n) for n in rng.integers(1, 6, rank - 1)))
        amounts = rng.integers(0, 4, (rank, 2))
        amounts[0] = 0
        b, s, z = ModelBuilder(), scale(rng), zero_point(rng, dtype)
        x = b.tensor(shape, dtype, s, z)
        y = b.tensor(tuple(shape + amounts.sum(axis=1)), dtype, s, z)
        inputs = [x, b.constant(amounts)]
        if name == "PADV2":
            inputs.append(b.tensor((1,), dtype, s, z, data=codes(rng, (1,), dtype)))
        b.operator(name, inputs, [y])
        return Case(b, [x], [codes(rng, shape, dtype)], [y])

    return build


def reshape(rng: Generator, dtype: str = "") -> Case:
    """RESHAPE, SQUEEZE or EXPAND_DIMS."""
    dtype = dtype or str(rng.choice(["int8", "int16"]))
    batch = int(rng.integers(1, 3))
    h, w, c = (int(n) for n in rng.integers(1, 5, 3))
    b, s, z = ModelBuilder(), scale(rng), zero_point(rng, dtype)
    name = str(rng.choice(["RESHAPE", "SQUEEZE", "EXPAND_DIMS"]))
    if name == "RESHAPE":
        shape: tuple[int, ...] = (batch, h, w, c)
        target: tuple[int, ...] = ((batch, h * w * c), (batch, c, h * w), (batch, w, h, c))[
            int(rng.integers(3))
        ]
        x, y = b.tensor(shape, dtype, s, z), b.tensor(target, dtype, s, z)
        b.operator(name, [x, b.constant(target)], [y])
    elif name == "SQUEEZE":
        shape, target = (batch, 1, 1, c), (batch, c)
        x, y = b.tensor(shape, dtype, s, z), b.tensor(target, dtype, s, z)
        b.operator(name, [x], [y], SqueezeDims=[1, 2])
    else:
        shape, target = (batch, h, c), (batch, h, 1, c)
        x, y = b.tensor(shape, dtype, s, z), b.tensor(target, dtype, s, z)
        b.operator(name, [x, b.constant([2])], [y])
    return Case(b, [x], [codes(rng, shape, dtype)], [y])


def softmax(rng: Generator) -> Case:
    x_dtype, y_dtype = (
        ("int8", "int8"),
        ("int8", "int8"),
        ("int8", "int16"),
        ("int16", "int16"),
    )[int(rng.integers(4))]
    shape = (int(rng.integers(1, 4)), *(int(n) for n in rng.integers(1, 12, rng.integers(1, 4))))
    y_scale, y_zero = {
        ("int8", "int8"): (1 / 256, -128),
        ("int8", "int16"): (1 / 65536, -32768),
        ("int16", "int16"): (1 / 32768, 0),
    }[x_dtype, y_dtype]
    b = ModelBuilder()
    x = b.tensor(shape, x_dtype, scale(rng, 1e-3, 1.0) / (1 if x_dtype == "int8" else 100), 0)
    y = b.tensor(shape, y_dtype, y_scale, y_zero)
    b.operator("SOFTMAX", [x], [y], Beta=float(rng.choice([1.0, 1.0, 0.5, 2.5])))
    return Case(b, [x], [codes(rng, shape, x_dtype)], [y])


def relu(rng: Generator, dtype: str = "", name: str = "") -> Case:
    """RELU, or RELU6, which in TensorFlow Lite Micro keeps the scale.

    Named ones always rescale.
    """
    dtype = dtype or "int8"
    rescales = bool(name)
    name = name or str(rng.choice(["RELU", "RELU6"]))
    shape = (1, *(int(n) for n in rng.integers(1, 9, rng.integers(1, 4))))
    b, s, z = ModelBuilder(), scale(rng, 1e-3, 1), zero_point(rng, dtype)
    x = b.tensor(shape, dtype, s, z)
    if rescales or name == "RELU":
        s, z = s * 2.0 ** rng.uniform(-4, 4), zero_point(rng, dtype)
    y = b.tensor(shape, dtype, s, z)
    b.operator(name, [x], [y])
    return Case(b, [x], [codes(rng, shape, dtype)], [y])


def quantize(rng: Generator) -> Case:
    """Float to codes, or codes to codes."""
    pairs = [
        ("float32", "int8"),
        ("float32", "int16"),
        ("int8", "int8"),
        ("int16", "int16"),
        ("int16", "int8"),
        ("int8", "int16"),
        ("int8", "uint8"),
        ("uint8", "int8"),
    ]
    x_dtype, y_dtype = pairs[int(rng.integers(len(pairs)))]
    shape = (1, int(rng.integers(1, 400)))
    b = ModelBuilder()
    s = scale(rng, 1e-3, 1)
    y_scale = float(np.float32(s * 2.0 ** rng.uniform(-4, 4)))
    z = zero_point(rng, y_dtype)
    if x_dtype == "float32":
        x = b.tensor(shape, x_dtype)
        values = rng.normal(0, y_scale * {"int8": 80, "int16": 20000}[y_dtype], shape)
        ties = (rng.integers(-128, 128, shape) + 0.5) * y_scale
        data: NDArray[Any] = np.where(rng.random(shape) < 0.3, ties, values).astype(np.float32)
    else:
        if rng.random() < 0.3:
            s = y_scale
        x = b.tensor(shape, x_dtype, s, zero_point(rng, x_dtype))
        data = codes(rng, shape, x_dtype)
    y = b.tensor(shape, y_dtype, y_scale, z)
    b.operator("QUANTIZE", [x], [y])
    return Case(b, [x], [data], [y])


def dequantize(rng: Generator) -> Case:
    dtype = str(rng.choice(["int8", "int16", "uint8"]))
    shape = (1, int(rng.integers(1, 400)))
    b = ModelBuilder()
    x = b.tensor(shape, dtype, scale(rng, 1e-6, 100), zero_point(rng, dtype))
    y = b.tensor(shape, "float32")
    b.operator("DEQUANTIZE", [x], [y])
    return Case(b, [x], [codes(rng, shape, dtype)], [y])


def resize_nearest_neighbor(rng: Generator, dtype: str = "") -> Case:
    dtype = dtype or str(rng.choice(["int8", "int16"]))
    x_shape = image(rng, int(rng.integers(1, 4)))
    size = [int(n) for n in rng.integers(1, 20, 2)]
    b, s, z = ModelBuilder(), scale(rng), zero_point(rng, dtype)
    x = b.tensor(x_shape, dtype, s, z)
    y = b.tensor((x_shape[0], *size, x_shape[3]), dtype, s, z)
    mode = int(rng.integers(3))
    b.operator(
        "RESIZE_NEAREST_NEIGHBOR",
        [x, b.constant(size)],
        [y],
        AlignCorners=mode == 1,
        HalfPixelCenters=mode == 2,
    )
    return Case(b, [x], [codes(rng, x_shape, dtype)], [y])


OPERATORS: dict[str, Callable[..., Case]] = {
    "CONV_2D": conv_2d,
    "DEPTHWISE_CONV_2D": depthwise_conv_2d,
    "FULLY_CONNECTED": fully_connected,
    "AVERAGE_POOL_2D": _pool("AVERAGE_POOL_2D"),
    "MAX_POOL_2D": _pool("MAX_POOL_2D"),
    "MEAN": mean,
    "ADD": add,
    "MUL": mul,
    "CONCATENATION": concatenation,
    "ADD with a constant": _with_constants(add),
    "MUL with a constant": _with_constants(mul),
    "CONCATENATION with constants": _with_constants(concatenation),
    "PAD": _pad("PAD"),
    "PADV2": _pad("PADV2"),
    "RESHAPE": reshape,
    "SOFTMAX": softmax,
    "RELU": relu,
    "QUANTIZE": quantize,
    "DEQUANTIZE": dequantize,
    "RESIZE_NEAREST_NEIGHBOR": resize_nearest_neighbor,
}
"""Random models of each operator that the reference kernels know, some with stored operands."""


def ties(rng: Generator, name: str, dtype: str = "int8") -> Case:
    """A weighted operator whose accumulators lie at the ties between output codes.

    The weights are zero and the biases are the accumulators, so large that the last bits of the
    multiplier, hence the precision in which the scales were multiplied, decide the output.
    """
    channels = 16 * 255
    x_scale, w_scale = scale(rng), scale(rng, 1e-3, 1)
    product = float(np.float32(x_scale) * np.float32(w_scale))
    y_scale = float(np.float32(product * 2.0 ** rng.uniform(19, 23)))
    near = np.repeat(np.arange(-127, 128) + 0.5, 16) * (y_scale / product)
    bias = np.rint(near) + np.tile(np.rint(np.linspace(-90, 90, 16)), 255)
    dense = name == "FULLY_CONNECTED"
    b = ModelBuilder()
    zero = 128 if dtype == "uint8" else 0
    x = b.tensor((1, 1) if dense else (1, 1, 1, 1), dtype, x_scale, zero)
    w_shape = {
        "CONV_2D": (channels, 1, 1, 1),
        "DEPTHWISE_CONV_2D": (1, 1, 1, channels),
        "FULLY_CONNECTED": (channels, 1),
    }[name]
    w = b.tensor(w_shape, dtype, w_scale, zero, data=np.full(w_shape, zero))
    c = b.tensor((channels,), "int32", product, 0, data=bias)
    y = b.tensor((1, channels) if dense else (1, 1, 1, channels), dtype, y_scale, zero)
    options: dict[str, Any] = {} if dense else {"StrideH": 1, "StrideW": 1}
    if name == "DEPTHWISE_CONV_2D":
        options["DepthMultiplier"] = channels
    b.operator(name, [x, w, c], [y], **options)
    return Case(b, [x], [np.full(b.tensors[x].shape, zero, dtype)], [y])


def mobilenet(rng: Generator, size: int, channels: int, blocks: int, dtype: str, pool: str) -> Case:
    """Convolution, inverted residual blocks, global pooling, dense layer, softmax."""
    b = ModelBuilder()
    x = b.tensor((1, size, size, 3), dtype, 1 / 128, 128 if dtype == "uint8" else 0)
    y = _same_conv(rng, b, x, channels, kernel=3, stride=2)
    for block in range(blocks):
        stride = 2 if block % 2 else 1
        wide = _same_conv(rng, b, y, 2 * channels, kernel=1, stride=1)
        deep = _same_conv(rng, b, wide, 0, kernel=3, stride=stride)
        narrow = _same_conv(rng, b, deep, channels, kernel=1, stride=1, fused=0)
        if stride == 2:
            y = narrow
            continue
        first, second = b.tensors[y], b.tensors[narrow]
        largest = max(float(first.scales[0]), float(second.scales[0]))
        middle = (first.zero_points[0] + second.zero_points[0]) // 2
        total = b.tensor(first.shape, dtype, largest * 1.5, middle)
        b.operator("ADD", [y, narrow], [total])
        y = total
    last = b.tensors[y]
    side = last.shape[1]
    pooled = b.tensor((1, 1, 1, channels), dtype, last.scales, last.zero_points)
    b.operator(
        pool, [y], [pooled], Padding=1, StrideH=1, StrideW=1, FilterHeight=side, FilterWidth=side
    )
    flat = b.tensor((1, channels), dtype, last.scales, last.zero_points)
    b.operator("RESHAPE", [pooled, b.constant([1, channels])], [flat])
    middle = 128 if dtype == "uint8" else 0
    dense = weighted(
        rng, b, "FULLY_CONNECTED", flat, (10, channels), (1, 10), {}, 0.1, middle, 1.0, 0
    )
    output = b.tensor((1, 10), dtype, 1 / 256, LIMITS[dtype][0])
    b.operator("SOFTMAX", [dense], [output], Beta=1.0)
    every = [index for _, _, outputs, _ in b.operators for index in outputs]
    return Case(b, [x], [codes(rng, (1, size, size, 3), dtype)], every)


def _same_conv(
    rng: Generator,
    b: ModelBuilder,
    x: int,
    channels: int,
    kernel: int,
    stride: int,
    fused: int = 3,
) -> int:
    """Add a SAME convolution, depthwise where `channels` is 0, with a fused relu6."""
    _, height, width, depth = b.tensors[x].shape
    name = "CONV_2D" if channels else "DEPTHWISE_CONV_2D"
    w_shape = (channels, kernel, kernel, depth) if channels else (1, kernel, kernel, depth)
    y_shape = (1, -(-height // stride), -(-width // stride), channels or depth)
    options = {"Padding": 0, "StrideH": stride, "StrideW": stride}
    if not channels:
        options["DepthMultiplier"] = 1
    low, high = LIMITS[b.tensors[x].dtype]
    y_zero = low if fused else int(rng.integers(low + 90, high - 90))
    return weighted(rng, b, name, x, w_shape, y_shape, options, 0.03, y_zero, 1.0, fused)


def int8_twin(case: Case) -> tuple[Case, Case]:
    """The uint8 case with weights around 128, and the int8 case of the same real numbers.

    The codes of the second are those of the first minus 128. Weight scales become powers of two, so
    that their product with another scale is exact in float32, where the uint8 scheme takes it.
    """
    tensors = list(case.builder.tensors)
    for name, inputs, _, _ in case.builder.operators:
        if name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            x, w = tensors[inputs[0]], tensors[inputs[1]]
            exact = 2 ** np.rint(np.log2(w.scales))
            tensors[inputs[1]] = replace(w, scales=exact, zero_points=np.array([128], np.int64))
            for bias in inputs[2:]:
                tensors[bias] = replace(tensors[bias], scales=x.scales * exact)
    signed = []
    for spec in tensors:
        if spec.dtype == "uint8":
            data = spec.data and (np.frombuffer(spec.data, np.uint8) ^ 128).tobytes()
            zero_points = spec.zero_points - 128
            spec = replace(spec, dtype="int8", zero_points=zero_points, data=data)
        signed.append(spec)
    shifted = [(array ^ 128).view(np.int8) for array in case.data]
    return (
        replace(case, builder=ModelBuilder(tensors, case.builder.operators)),
        replace(case, builder=ModelBuilder(signed, case.builder.operators), data=shifted),
    )
