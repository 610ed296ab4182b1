"""Speed of the fast value model, as a ratio to a float32 matrix product of the same shape.

    pytest benchmarks --benchmark-only -o python_files='bench_*.py'

Each layer runs with values, prefix extremes, overflow record and output codes. `extra_info` has the
products a second of the layer and of NumPy's float32 matmul in the same process, and their ratio.
The matmul of a depthwise layer is a batch of one small product for each channel.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from golden.network import Conv2D, DepthwiseConv2D, Padding, Requantization, Tensor
from simulator.hardware import load_hardware
from simulator.program import layer_geometry
from simulator.timing import time_layer
from simulator.values import ArrayLayer

# MobileNetV2 1.0 224 (Sandler et al. 2018), one layer of each kind, and two 3 x 3 convolutions.
LAYERS = {
    "conv3x3_64_64_56": ((56, 56, 64), 64, 3, 1, 1),
    "conv3x3_512_512_14": ((14, 14, 512), 512, 3, 1, 1),
    "first_3_32_224": ((224, 224, 3), 32, 3, 2, 1),
    "expand_16_96_112": ((112, 112, 16), 96, 1, 1, 1),
    "depthwise_96_112_s2": ((112, 112, 96), 96, 3, 2, 96),
    "project_96_24_56": ((56, 56, 96), 24, 1, 1, 1),
    "depthwise_960_7": ((7, 7, 960), 960, 3, 1, 960),
    "last_320_1280_7": ((7, 7, 320), 1280, 1, 1, 1),
}


def make_layer(name):
    """Layer with weights that use all int8 codes, and one int8 image."""
    shape, out_channels, kernel, stride, groups = LAYERS[name]
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 128, (out_channels, kernel, kernel, shape[2] // groups))
    pad = kernel // 2
    layer = (DepthwiseConv2D if groups > 1 else Conv2D)(
        name=name,
        inputs=(0,),
        outputs=(1,),
        weights=weights.astype(np.int8),
        weight_bits=8,
        weight_zero_point=0,
        bias=rng.integers(-1000, 1000, out_channels),
        input_zero_point=3,
        output_zero_point=-4,
        requantization=Requantization(
            np.full(out_channels, 1 << 30, np.int32), np.full(out_channels, -9, np.int32)
        ),
        activation_min=-128,
        activation_max=127,
        stride=(stride, stride),
        padding=Padding(pad, pad, pad, pad),
        groups=groups,
    )
    return layer, rng.integers(-128, 128, (1, *shape)).astype(np.int8)


def hardware():
    """mac16x16 with an activation buffer that takes every layer here."""
    machine = load_hardware("mac16x16")
    buffers = machine.buffers.model_copy(update={"activation_bytes": 1 << 20})
    return machine.model_copy(update={"buffers": buffers})


def matmul_macs_per_second(pixels, terms, channels, groups):
    """Best of five float32 products; grouped layers as a batch of small ones."""
    rng = np.random.default_rng(1)
    a = rng.random((groups, pixels, terms), dtype=np.float32)
    b = rng.random((groups, terms, channels // groups), dtype=np.float32)
    a @ b
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return pixels * terms * channels / min(seconds)


@pytest.mark.parametrize("name", LAYERS)
def test_values_of_a_layer(benchmark, name):
    layer, x = make_layer(name)
    machine = hardware()
    shape = layer_geometry(layer, x.shape, machine)
    pixels = shape.out_height * shape.out_width
    output = Tensor("y", (1, shape.out_height, shape.out_width, shape.out_channels), "int8")
    benchmark(lambda: ArrayLayer(layer, x.shape, machine).run(x, output))
    terms = layer.weights[0].size
    macs = pixels * layer.weights.size
    rate = macs / benchmark.stats["min"]
    matmul = matmul_macs_per_second(pixels, terms, shape.out_channels, shape.groups)
    benchmark.extra_info.update(
        gmacs_per_second=rate * 1e-9,
        matmul_gmacs_per_second=matmul * 1e-9,
        ratio_to_matmul=rate / matmul,
    )


@pytest.mark.parametrize("name", LAYERS)
def test_timing_of_a_layer(benchmark, name):
    layer, x = make_layer(name)
    timing = benchmark(time_layer, layer, x.shape, hardware())
    benchmark.extra_info.update(
        cycles=timing.cycles, cycles_per_second=timing.cycles / benchmark.stats["min"]
    )
