"""MobileNetV2 with random weights, as a golden network: at 1.0 224 300 M MACs for the benchmarks.

Layer shapes from Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2;
narrower ones have channels rounded to multiples of 8, as in Keras Applications.
Weights, scales and biases are drawn: shapes and types are those of a real int8 network, accuracy is
not.
"""

from __future__ import annotations

import numpy as np

from golden.multipliers import quantize_multiplier
from golden.network import (
    Add,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Layer,
    Mean,
    Network,
    Padding,
    Requantization,
    Tensor,
)

BLOCKS = (  # expansion, channels, repeats, first stride
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
SCALE = 0.05


class Builder:
    """Appends layers to a network, drawing their numbers."""

    def __init__(self, size: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.tensors = [Tensor("input", (1, size, size, 3), "int8", SCALE, 0)]
        self.layers: list[Layer] = []

    def _tensor(self, shape: tuple[int, ...]) -> int:
        self.tensors.append(Tensor(f"t{len(self.tensors)}", shape, "int8", SCALE, -20))
        return len(self.tensors) - 1

    def _weighted(self, kind: type, source: int, shape: tuple[int, ...], weights_shape, **extra):  # type: ignore[no-untyped-def]
        output = self._tensor(shape)
        fan_in = int(np.prod(weights_shape[1:]))
        weights = np.clip(np.rint(self.rng.laplace(0, 20, weights_shape)), -127, 127)
        multiplier, shift = quantize_multiplier(0.6 / (28 * fan_in**0.5))
        channels = weights_shape[0]
        self.layers.append(
            kind(
                name=f"{kind.__name__.lower()}_{len(self.layers)}",
                inputs=(source,),
                outputs=(output,),
                weights=weights.astype(np.int8),
                weight_bits=8,
                weight_zero_point=0,
                bias=self.rng.integers(-2000, 2000, channels),
                input_zero_point=self.tensors[source].zero_point,
                output_zero_point=-20,
                requantization=Requantization(
                    np.full(channels, multiplier, np.int32), np.full(channels, shift, np.int32)
                ),
                activation_min=-128,
                activation_max=127,
                **extra,
            )
        )
        return output

    def conv(self, source: int, channels: int, kernel: int, stride: int, depthwise: bool) -> int:
        """Append a SAME convolution and return its output tensor."""
        _, height, width, in_channels = self.tensors[source].shape
        out = -(-height // stride)
        total = max(0, (out - 1) * stride + kernel - height)
        pad = Padding(total // 2, total - total // 2, total // 2, total - total // 2)
        return self._weighted(
            DepthwiseConv2D if depthwise else Conv2D,
            source,
            (1, out, out, channels),
            (channels, kernel, kernel, 1 if depthwise else in_channels),
            stride=(stride, stride),
            padding=pad,
            groups=in_channels if depthwise else 1,
        )

    def add(self, a: int, b: int) -> int:
        """Append a residual addition."""
        output = self._tensor(self.tensors[a].shape)
        half = Requantization(np.array([1 << 30], np.int32), np.array([0], np.int32))
        multiplier, shift = quantize_multiplier(2.0**-19)
        self.layers.append(
            Add(
                name=f"add_{len(self.layers)}",
                inputs=(a, b),
                outputs=(output,),
                input_zero_points=(self.tensors[a].zero_point, self.tensors[b].zero_point),
                output_zero_point=-20,
                left_shift=20,
                input_requantizations=(half, half),
                output_requantization=Requantization(
                    np.array([multiplier], np.int32), np.array([shift], np.int32)
                ),
                activation_min=-128,
                activation_max=127,
            )
        )
        return output

    def head(self, source: int, classes: int) -> int:
        """Append the global mean and the classifier."""
        _, height, width, channels = self.tensors[source].shape
        pooled = self._tensor((1, channels))
        multiplier, shift = quantize_multiplier(1.0 / (height * width))
        self.layers.append(
            Mean(
                name=f"mean_{len(self.layers)}",
                inputs=(source,),
                outputs=(pooled,),
                axes=(1, 2),
                keep_dims=False,
                input_zero_point=-20,
                output_zero_point=-20,
                requantization=Requantization(
                    np.array([multiplier], np.int32), np.array([shift], np.int32)
                ),
                activation_min=-128,
                activation_max=127,
            )
        )
        return self._weighted(FullyConnected, pooled, (1, classes), (classes, channels))


def scaled_channels(channels: int, alpha: float) -> int:
    """Multiple of 8 next to `alpha * channels`, not below 90 % of it."""
    scaled = channels * alpha
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def mobilenet_v2(size: int = 224, seed: int = 0, alpha: float = 1.0) -> Network:
    """Build the network for `size` x `size` images, `alpha` times as wide."""
    builder = Builder(size, seed)
    x = builder.conv(0, scaled_channels(32, alpha), 3, 2, depthwise=False)
    for expansion, full_channels, repeats, first_stride in BLOCKS:
        channels = scaled_channels(full_channels, alpha)
        for repeat in range(repeats):
            source, in_channels = x, builder.tensors[x].shape[3]
            if expansion > 1:
                x = builder.conv(x, expansion * in_channels, 1, 1, depthwise=False)
            stride = first_stride if repeat == 0 else 1
            x = builder.conv(x, expansion * in_channels, 3, stride, depthwise=True)
            x = builder.conv(x, channels, 1, 1, depthwise=False)
            if repeat > 0:
                x = builder.add(source, x)
    x = builder.conv(x, 1280, 1, 1, depthwise=False)
    x = builder.head(x, 1000)
    return Network(
        name=f"mobilenet_v2_{alpha}_{size}_random",
        tensors=tuple(builder.tensors),
        layers=tuple(builder.layers),
        inputs=(0,),
        outputs=(x,),
        source="benchmarks/mobilenet_v2.py",
    )
