"""Speed of Winograd layers in the fast model, beside the same layer computed directly.

    pytest benchmarks/bench_winograd.py --benchmark-only -o python_files='bench_*.py'

Both are whole runs of `simulate` (values, overflow records, cycles, energy) on `winograd16x16`, in
turns. `ratio_to_direct` is the median time of the direct run over that of the Winograd one: above 1
Winograd wins. Plans are remembered after the first run; `planning_seconds` is what one takes.
"""

from __future__ import annotations

import time
from statistics import median

import numpy as np
import pytest

from golden.network import Conv2D, Network, Padding, Requantization, Tensor
from simulator.hardware import load_hardware, with_winograd
from simulator.machine import simulate
from simulator.plan import plan_network

# 3 x 3 layers of VGG-16 (Simonyan and Zisserman 2015): channels in, channels out, height and width.
LAYERS = {
    "vgg16_64_64_224": (64, 64, 224),
    "vgg16_256_256_56": (256, 256, 56),
    "vgg16_512_512_28": (512, 512, 28),
    "vgg16_512_512_14": (512, 512, 14),
}
ROUNDS = 15


def make_network(name):
    """One layer with weights that use all int8 codes, and one int8 image."""
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
    shapes = {"x": (1, size, size, channels), "y": (1, size, size, out_channels)}
    tensors = tuple(Tensor(text, shape, "int8") for text, shape in shapes.items())
    x = rng.integers(-128, 128, shapes["x"]).astype(np.int8)
    return Network(name, tensors, (layer,), (0,), (1,)), x


def timed(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


@pytest.mark.parametrize("form", ["f2", "f4"])
@pytest.mark.parametrize("name", LAYERS)
def test_winograd_layer(benchmark, name, form):
    network, x = make_network(name)
    winograd, direct = (with_winograd(load_hardware("winograd16x16"), use) for use in (form, "off"))
    assert simulate(network, winograd, [x]).layers[0].algorithm == form
    simulate(network, direct, [x])
    seconds = {"direct": [], "winograd": []}

    def one_round():
        seconds["direct"].append(timed(simulate, network, direct, [x])[0])

    def run():
        elapsed, result = timed(simulate, network, winograd, [x])
        seconds["winograd"].append(elapsed)
        return result

    benchmark.pedantic(run, setup=one_round, rounds=ROUNDS)
    benchmark.extra_info.update(
        direct_gmacs_per_second=x.shape[1] ** 2
        * network.layers[0].weights.size
        / median(seconds["winograd"])
        * 1e-9,
        ratio_to_direct=median(seconds["direct"]) / median(seconds["winograd"]),
        planning_seconds=timed(plan_network, network, winograd)[0],
        direct_planning_seconds=timed(plan_network, network, direct)[0],
    )
