"""A sweep of accumulator widths, 8 to 24 bits, against one plain run of the same samples.

    pytest benchmarks --benchmark-only -o python_files='bench_*.py'

200 random images through ResNet-8 where the models beside the repository are there; otherwise the
test images of the digits network. The sweep runs 17 widths, wrapping and saturating.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from napier.loading import Samples, default_samples, load_model
from napier.width_sweep import Sweep, run_sweep
from simulator.hardware import load_hardware
from simulator.machine import simulate

MODELS = Path(__file__).parents[2] / "shared" / "models" / "mlperf_tiny"
RESNET = MODELS / "pretrainedResnet_quant.tflite"
ROUNDS = 3


def samples_of(network, count):
    """Draw codes, normally distributed."""
    rng = np.random.default_rng(1)
    arrays = []
    for tensor in (network.tensors[index] for index in network.inputs):
        codes = rng.normal(0, 60, (count, *tensor.shape[1:])).round().clip(-128, 127)
        arrays.append(codes.astype(np.int8))
    return Samples(tuple(arrays), "random codes")


def test_sweep_of_widths(benchmark):
    machine = load_hardware("mac16x16")
    if RESNET.exists():
        network = load_model(str(RESNET))
        samples = samples_of(network, 200)
    else:
        network = load_model(None)
        samples = default_samples(network, None)

    def sweep():
        return run_sweep(Sweep(network, samples, machine, 8, 24))

    document = benchmark.pedantic(sweep, rounds=ROUNDS, warmup_rounds=1)
    seconds = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        simulate(network, machine, list(samples.arrays))
        seconds.append(time.perf_counter() - start)
    benchmark.extra_info.update(
        points=len(document["points"]),
        points_with_overflows=sum(point["events"] > 0 for point in document["points"]),
        ratio_to_plain_run=benchmark.stats["min"] / min(seconds),
    )
