"""Weights projected per second: 25 million of them, as many as ResNet-50 has.

python -m pytest benchmarks/bench_quantizers.py --benchmark-only
"""

import numpy as np
import pytest

from golden.quantization.method import WeightTask
from golden.quantization.registry import parse_method

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
