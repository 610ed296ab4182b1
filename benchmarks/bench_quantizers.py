"""Weights projected per second: 25 million of them, as many as ResNet-50 has.

python -m pytest benchmarks/bench_quantizers.py --benchmark-only
"""

import numpy as np
import pytest

from golden.network import FullyConnected, Network, Requantization, Tensor
from golden.quantization.method import WeightTask
from golden.quantization.registry import parse_method
from simulator.projection import project_weights

LAYERS = [(64, 147)] + [(256, 1152)] * 20 + [(512, 4608)] * 5 + [(2048, 1024)] * 3 + [(1000, 1000)]
"""Output channels and taps; 25.0 million weights together."""


@pytest.fixture(scope="module")
def tasks():
    rng = np.random.default_rng(0)
    return [WeightTask(rng.standard_normal(shape), 8) for shape in LAYERS]


@pytest.mark.parametrize(
    "text", ["uniform", "nhot:n=2", "nhot:n=3", "ternary", "ternary:per=tensor", "twn", "fgq"]
)
def test_projection_of_a_network(benchmark, tasks, text):
    method, options = parse_method(text)

    def network():
        for task in tasks:
            method.quantize(task, options)

    benchmark.pedantic(network, rounds=3, warmup_rounds=1)
    weights = sum(task.weights.size for task in tasks)
    benchmark.extra_info.update(
        weights=weights, weights_per_second=weights / benchmark.stats["min"]
    )


@pytest.fixture(scope="module")
def integer_network():
    rng = np.random.default_rng(0)
    tensors, layers = [], []
    for index, (outputs, taps) in enumerate(LAYERS):
        tensors += [
            Tensor(f"x{index}", (1, taps), "int8"),
            Tensor(f"y{index}", (1, outputs), "int8"),
        ]
        layers.append(
            FullyConnected(
                name=f"dense_{index}",
                inputs=(2 * index,),
                outputs=(2 * index + 1,),
                weights=rng.integers(-127, 128, (outputs, taps)).astype(np.int8),
                weight_bits=8,
                weight_zero_point=0,
                bias=None,
                input_zero_point=0,
                output_zero_point=0,
                requantization=Requantization(
                    np.array([1 << 30], np.int32), np.array([-9], np.int32)
                ),
                activation_min=-128,
                activation_max=127,
            )
        )
    inputs, outputs = range(0, len(tensors), 2), range(1, len(tensors), 2)
    return Network("dense", tuple(tensors), tuple(layers), tuple(inputs), tuple(outputs))


@pytest.mark.parametrize("text", ["nhot:2", "ternary"])
def test_projection_of_an_integer_network(benchmark, integer_network, text):
    benchmark.pedantic(project_weights, (integer_network, text), rounds=3, warmup_rounds=1)
