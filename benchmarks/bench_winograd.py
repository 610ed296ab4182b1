"""Speed of Winograd layers in the fast model, beside the same layer computed directly.

    pytest benchmarks/bench_winograd.py --benchmark-only -o python_files='bench_*.py'

`ratio_to_direct` is the time of the direct fast path (values, extremes and overflow record) over
that of the Winograd accumulators, the transform of the weights included: above 1 Winograd wins.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from golden.network import Conv2D, Padding, Requantization
from simulator.hardware import load_hardware
from simulator.values import accumulate
from simulator.winograd_values import winograd_accumulators

# 3 x 3 layers of VGG-16 (Simonyan and Zisserman 2015): channels in, channels out, height and width.
LAYERS = {
    "vgg16_64_64_224": (64, 64, 224),
    "vgg16_256_256_56": (256, 256, 56),
    "vgg16_512_512_28": (512, 512, 28),
    "vgg16_512_512_14": (512, 512, 14),
}


def make_layer(name):
    """Layer with weights that use all int8 codes, and one int8 image."""
    channels, out_channels, size = LAYERS[name]
    rng = np.random.default_rng(0)
    layer = Conv2D(
        name=name,
        inputs=(0,),
        outputs=(1,),
        weights=rng.integers(-127, 128, (out_channels, 3, 3, channels)).astype(np.int8),
        weight_bits=8,
        weight_zero_point=0,
        bias=None,
        input_zero_point=3,
        output_zero_point=0,
        requantization=Requantization(np.array([1 << 30], np.int32), np.array([-9], np.int32)),
        activation_min=-128,
        activation_max=127,
        padding=Padding(1, 1, 1, 1),
    )
    return layer, rng.integers(-128, 128, (1, size, size, channels)).astype(np.int8)


def direct_seconds(layer, x):
    """Best of three runs of the direct fast path on a PE that multiplies."""
    machine = load_hardware("mac16x16")
    accumulate(layer, x, machine)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        accumulate(layer, x, machine)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


@pytest.mark.parametrize("transform", ["f2", "f4"])
@pytest.mark.parametrize("name", LAYERS)
def test_winograd_layer(benchmark, name, transform):
    layer, x = make_layer(name)
    benchmark.pedantic(winograd_accumulators, (layer, x, transform), rounds=3, warmup_rounds=1)
    seconds = benchmark.stats["min"]
    macs = x.shape[1] * x.shape[2] * layer.weights.size
    benchmark.extra_info.update(
        direct_gmacs_per_second=macs / seconds * 1e-9,
        ratio_to_direct=direct_seconds(layer, x) / seconds,
    )
