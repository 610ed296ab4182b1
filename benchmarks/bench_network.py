"""A whole network, MobileNetV2 1.0 224 shapes (300 M MACs), and the speeds below the fast one.

    pytest benchmarks --benchmark-only -o python_files='bench_*.py'

The network's matmul is one float32 product for each layer, of the layer's shape, in this process.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from mobilenet_v2 import mobilenet_v2

from golden.network import WeightedLayer
from golden.run import run as run_golden
from simulator.hardware import load_hardware
from simulator.machine import simulate
from simulator.program import layer_geometry


def matmul_seconds(network):
    """Seconds of the float32 products of all layers that multiply; best of three."""
    rng = np.random.default_rng(0)
    machine = load_hardware("mac16x16")
    operands = []
    for layer in network.layers:
        if isinstance(layer, WeightedLayer):
            shape = layer_geometry(layer, network.tensors[layer.inputs[0]].shape, machine)
            pixels = shape.out_height * shape.out_width
            terms = layer.weights[0].size
            groups = shape.groups
            a = rng.random((groups, pixels, terms), dtype=np.float32)
            b = rng.random((groups, terms, shape.out_channels // groups), dtype=np.float32)
            operands.append((a, b))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        for a, b in operands:
            a @ b
        seconds.append(time.perf_counter() - start)
    return min(seconds)


@pytest.mark.parametrize("preset", ["mac16x16", "nhot2_16x16"])
def test_whole_network_with_values_and_records(benchmark, preset):
    network = mobilenet_v2()
    image = np.random.default_rng(1).integers(-128, 128, (1, 224, 224, 3)).astype(np.int8)
    machine = load_hardware(preset)
    result = benchmark.pedantic(simulate, (network, machine, [image]), rounds=3, warmup_rounds=1)
    macs = sum(layer.macs for layer in result.layers)
    seconds = benchmark.stats["min"]
    benchmark.extra_info.update(
        gmacs_per_second=macs / seconds * 1e-9,
        ratio_to_matmul=matmul_seconds(network) / seconds,
        simulated_cycles_per_second=result.cycles / seconds,
    )


def test_golden_network(benchmark):
    network = mobilenet_v2()
    image = np.random.default_rng(1).integers(-128, 128, (1, 224, 224, 3)).astype(np.int8)
    benchmark.pedantic(run_golden, (network, [image]), rounds=3, warmup_rounds=1)
    benchmark.extra_info.update(ratio_to_matmul=matmul_seconds(network) / benchmark.stats["min"])
