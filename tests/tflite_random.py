"""Seeded random TensorFlow Lite models: one operator each, and small networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from tflite_builder import ModelBuilder

LIMITS = {"int4": (-8, 7), "int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}


@dataclass(frozen=True)
class Case:
    """A model, inputs for it, and the file indices of the tensors to compare."""

    model: bytes
    inputs: list[NDArray[Any]]
    tensors: list[int]


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
    return int(rng.choice([low, high, 0, rng.integers(low, high + 1), rng.integers(low, high + 1)]))


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


def _weighted(
    rng: Generator,
    b: ModelBuilder,
    name: str,
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    y_shape: Sequence[int],
    axis: int,
    options: dict[str, Any],
) -> Case:
    """Tensors of a weighted operator, with an output scale that fits its accumulators."""
    dtype = str(rng.choice(["int8", "int8", "int8", "int16"]))
    w_dtype = "int4" if dtype == "int8" and rng.random() < 0.25 else "int8"
    channels = w_shape[axis]
    # The reference kernels have no int4 dense layer of one scale per channel.
    per_channel = bool(rng.random() < 0.6) and not (w_dtype == "int4" and len(w_shape) == 2)
    weight_scales = np.array([scale(rng, 1e-3, 0.5) for _ in range(channels if per_channel else 1)])
    x_scale = scale(rng)
    terms = prod(w_shape) // channels
    spread = {"int8": 74.0, "int16": 18900.0}[dtype] * (4.6 if w_dtype == "int4" else 74.0)
    spread *= np.sqrt(terms)
    code_spread = {"int8": 60.0, "int16": 15000.0}[dtype]
    headroom = 2.0 ** rng.uniform(-2, 4) if rng.random() < 0.85 else 2.0 ** rng.uniform(-7, 24)
    y_scale = x_scale * float(np.median(weight_scales)) * spread / code_spread * headroom
    x = b.tensor(x_shape, dtype, x_scale, zero_point(rng, dtype))
    w = b.tensor(w_shape, w_dtype, weight_scales, 0, axis=axis, data=codes(rng, w_shape, w_dtype))
    inputs = [x, w]
    if rng.random() < 0.8:
        # An int16 dense or depthwise layer of the reference kernels reads an int64 bias only.
        wide = dtype == "int16" and (name != "CONV_2D" or rng.random() < 0.5)
        values = np.rint(rng.normal(0, spread, channels))
        bias_scales = np.float32(x_scale) * weight_scales.astype(np.float32)
        inputs.append(
            b.tensor((channels,), "int64" if wide else "int32", bias_scales, 0, data=values)
        )
    y = b.tensor(y_shape, dtype, y_scale, zero_point(rng, dtype))
    b.operator(name, inputs, [y], FusedActivationFunction=activation(rng), **options)
    return Case(b.build([x], [y]), [codes(rng, x_shape, dtype)], [y])


def _geometry(win: dict[str, Any]) -> dict[str, Any]:
    return {
        "Padding": win["padding"],
        "StrideH": win["stride"][0],
        "StrideW": win["stride"][1],
        "DilationHFactor": win["dilation"][0],
        "DilationWFactor": win["dilation"][1],
    }


def conv_2d(rng: Generator) -> Case:
    groups = int(rng.choice([1, 1, 2, 3]))
    c, k = int(rng.integers(1, 7)), int(rng.integers(1, 7))
    x_shape = image(rng, groups * c)
    win = window(rng, x_shape[1:3], dilated=True)
    w_shape = (groups * k, *win["kernel"], c)
    y_shape = (x_shape[0], *win["output"], groups * k)
    return _weighted(rng, ModelBuilder(), "CONV_2D", x_shape, w_shape, y_shape, 0, _geometry(win))


def depthwise_conv_2d(rng: Generator) -> Case:
    multiplier = int(rng.choice([1, 1, 2, 3]))
    x_shape = image(rng, int(rng.integers(1, 9)))
    win = window(rng, x_shape[1:3], dilated=True)
    out_channels = x_shape[3] * multiplier
    w_shape = (1, *win["kernel"], out_channels)
    y_shape = (x_shape[0], *win["output"], out_channels)
    options = {**_geometry(win), "DepthMultiplier": multiplier}
    return _weighted(
        rng, ModelBuilder(), "DEPTHWISE_CONV_2D", x_shape, w_shape, y_shape, 3, options
    )


def fully_connected(rng: Generator) -> Case:
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
    return _weighted(
        rng, ModelBuilder(), "FULLY_CONNECTED", x_shape, (out, features), y_shape, 0, options
    )


def _pool(name: str) -> Callable[[Generator], Case]:
    def build(rng: Generator) -> Case:
        dtype = str(rng.choice(["int8", "int8", "int16"]))
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
        return Case(b.build([x], [y]), [codes(rng, x_shape, dtype)], [y])

    return build


def mean(rng: Generator) -> Case:
    dtype = str(rng.choice(["int8", "int8", "int16"]))
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
    return Case(b.build([x], [y]), [codes(rng, shape, dtype)], [y])


def _shapes_that_broadcast(rng: Generator) -> tuple[tuple[int, ...], ...]:
    rank = int(rng.integers(2, 5))
    shape = (1, *(int(n) for n in rng.integers(1, 6, rank - 1)))
    first, second = list(shape), list(shape)
    if rng.random() < 0.4:
        for axis in range(1, rank):
            if rng.random() < 0.5:
                (first if rng.random() < 0.5 else second)[axis] = 1
    return tuple(first), tuple(second), tuple(np.broadcast_shapes(tuple(first), tuple(second)))


def add(rng: Generator) -> Case:
    dtype = str(rng.choice(["int8", "int8", "int16"]))
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
    return Case(b.build([x1, x2], [y]), [codes(rng, first, dtype), codes(rng, second, dtype)], [y])


def mul(rng: Generator) -> Case:
    dtype = str(rng.choice(["int8", "int8", "int16"]))
    first, second, output = _shapes_that_broadcast(rng)
    s1, s2 = scale(rng, 1e-3, 10), scale(rng, 1e-3, 10)
    s3 = s1 * s2 * (128 if dtype == "int8" else 32768) * 2.0 ** rng.uniform(-4, 3)
    b = ModelBuilder()
    x1 = b.tensor(first, dtype, s1, zero_point(rng, dtype))
    x2 = b.tensor(second, dtype, s2, zero_point(rng, dtype))
    y = b.tensor(output, dtype, s3, zero_point(rng, dtype))
    b.operator("MUL", [x1, x2], [y], FusedActivationFunction=activation(rng))
    return Case(b.build([x1, x2], [y]), [codes(rng, first, dtype), codes(rng, second, dtype)], [y])


def concatenation(rng: Generator) -> Case:
    dtype = str(rng.choice(["int8", "int16"]))
    rank = int(rng.integers(2, 5))
    shape = [1, *(int(n) for n in rng.integers(1, 5, rank - 1))]
    axis = int(rng.integers(1, rank))
    b, s, z = ModelBuilder(), scale(rng), zero_point(rng, dtype)
    shapes = []
    for _ in range(int(rng.integers(1, 5))):
        shape[axis] = int(rng.integers(1, 5))
        shapes.append(tuple(shape))
    xs = [b.tensor(one, dtype, s, z) for one in shapes]
    shape[axis] = sum(one[axis] for one in shapes)
    y = b.tensor(shape, dtype, s, z)
    b.operator("CONCATENATION", xs, [y], Axis=axis - (rank if rng.random() < 0.5 else 0))
    return Case(b.build(xs, [y]), [codes(rng, one, dtype) for one in shapes], [y])


def _pad(name: str) -> Callable[[Generator], Case]:
    def build(rng: Generator) -> Case:
        dtype = str(rng.choice(["int8", "int16"]))
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
        return Case(b.build([x], [y]), [codes(rng, shape, dtype)], [y])

    return build


def reshape(rng: Generator) -> Case:
    """RESHAPE, SQUEEZE or EXPAND_DIMS."""
    dtype = str(rng.choice(["int8", "int16"]))
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
    return Case(b.build([x], [y]), [codes(rng, shape, dtype)], [y])


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
    return Case(b.build([x], [y]), [codes(rng, shape, x_dtype)], [y])


def relu(rng: Generator) -> Case:
    """RELU rescales; RELU6 of the reference kernels keeps the scale."""
    name = str(rng.choice(["RELU", "RELU6"]))
    shape = (1, *(int(n) for n in rng.integers(1, 9, rng.integers(1, 4))))
    b, s, z = ModelBuilder(), scale(rng, 1e-3, 1), zero_point(rng, "int8")
    x = b.tensor(shape, "int8", s, z)
    if name == "RELU":
        s, z = s * 2.0 ** rng.uniform(-4, 4), zero_point(rng, "int8")
    y = b.tensor(shape, "int8", s, z)
    b.operator(name, [x], [y])
    return Case(b.build([x], [y]), [codes(rng, shape, "int8")], [y])


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
    return Case(b.build([x], [y]), [data], [y])


def dequantize(rng: Generator) -> Case:
    dtype = str(rng.choice(["int8", "int16", "uint8"]))
    shape = (1, int(rng.integers(1, 400)))
    b = ModelBuilder()
    x = b.tensor(shape, dtype, scale(rng, 1e-6, 100), zero_point(rng, dtype))
    y = b.tensor(shape, "float32")
    b.operator("DEQUANTIZE", [x], [y])
    return Case(b.build([x], [y]), [codes(rng, shape, dtype)], [y])


def resize_nearest_neighbor(rng: Generator) -> Case:
    dtype = str(rng.choice(["int8", "int16"]))
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
    return Case(b.build([x], [y]), [codes(rng, x_shape, dtype)], [y])


OPERATORS: dict[str, Callable[[Generator], Case]] = {
    "CONV_2D": conv_2d,
    "DEPTHWISE_CONV_2D": depthwise_conv_2d,
    "FULLY_CONNECTED": fully_connected,
    "AVERAGE_POOL_2D": _pool("AVERAGE_POOL_2D"),
    "MAX_POOL_2D": _pool("MAX_POOL_2D"),
    "MEAN": mean,
    "ADD": add,
    "MUL": mul,
    "CONCATENATION": concatenation,
    "PAD": _pad("PAD"),
    "PADV2": _pad("PADV2"),
    "RESHAPE": reshape,
    "SOFTMAX": softmax,
    "RELU": relu,
    "QUANTIZE": quantize,
    "DEQUANTIZE": dequantize,
    "RESIZE_NEAREST_NEIGHBOR": resize_nearest_neighbor,
}
"""Random models of each operator that the reference kernels know."""
