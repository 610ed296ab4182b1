"""Every quantizer of the registry: golden, both speeds of the simulator and the Verilog agree.

A method that is added to the registry is tested here by itself.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from golden.float_network import FloatConv2D, FloatDense, FloatMean, FloatNetwork, FloatTensor
from golden.network import Padding
from golden.quantization.calibrate import QuantizedNetwork, quantize_network
from golden.quantization.partial_sums import partial_sum_plan
from golden.quantization.registry import methods
from golden.run import run
from napier.quantizing import Request, parse_settings
from rtl_models.top import TopSimulation, verify_network
from simulator.hardware import Hardware, changed_hardware, load_hardware
from simulator.machine import simulate

pytestmark = pytest.mark.rtl

DEPTHS = {"MEMORY_BYTES": 1 << 16, "FEED_BEATS": 256, "STREAM_BEATS": 256, "PARAM_WORDS": 256}
"""Larger than any network here needs, so that an array is compiled once."""


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the module, so that builds are shared."""
    return tmp_path_factory.mktemp("quantized")


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return np.random.default_rng(6).normal(size=(12, 3, 3, 2)).astype(np.float32)


def small_network() -> FloatNetwork:
    """Convolution, depthwise convolution, mean and dense layer; 4 channels are two tiles."""
    rng = np.random.default_rng(5)

    def weights(*shape: int) -> np.ndarray:
        return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)

    def bias(channels: int) -> np.ndarray:
        return rng.normal(0, 0.1, channels).astype(np.float32)

    around = Padding(1, 1, 1, 1)
    shapes = [(1, 3, 3, 2), (1, 3, 3, 4), (1, 3, 3, 4), (1, 4), (1, 3)]
    layers = (
        FloatConv2D("conv", (0,), (1,), weights(4, 3, 3, 2), bias(4), "relu", padding=around),
        FloatConv2D(
            *("depthwise", (1,), (2,), weights(4, 3, 3, 1), bias(4), "relu"),
            padding=around,
            groups=4,
        ),
        FloatMean("mean", (2,), (3,), (1, 2), False),
        FloatDense("dense", (3,), (4,), weights(3, 4), bias(3), "none"),
    )
    tensors = tuple(FloatTensor(f"t{index}", shape) for index, shape in enumerate(shapes))
    return FloatNetwork("small", tensors, layers, (0,), (4,))


def small_array(preset: str, **array: int) -> Hardware:
    """2 x 2 PEs of a preset, its array with other settings."""
    array = {"rows": 2, "cols": 2, **array}
    return changed_hardware(load_hardware(preset), array=array, post={"lanes": 1})


def quantized(request: Request, samples: np.ndarray) -> QuantizedNetwork:
    return quantize_network(small_network(), parse_settings(request), samples)


def assert_all_agree(
    quantized: QuantizedNetwork, hardware: Hardware, samples: np.ndarray, builds: Path, work: Path
) -> None:
    network = quantized.network
    codes = quantized.parameters[0].codes(samples[:1]).astype(np.int8)
    fast = simulate(network, hardware, (codes,))
    stepped = simulate(network, hardware, (codes,), speed="stepped")
    golden = run(network, codes)
    np.testing.assert_array_equal(fast.outputs[0], golden.outputs[0])
    assert stepped.to_dict() == fast.to_dict()
    simulation = TopSimulation(builds, overrides=DEPTHS, limit_cycles=100_000)
    verilog = verify_network(network, hardware, (codes,), simulation, work)
    assert verilog.difference is None
    assert sum(program.cycles for program in verilog.run.programs) == fast.cycles
    np.testing.assert_array_equal(verilog.run.outputs[0], golden.outputs[0])


REQUESTS = {
    **{name: Request(name, 8) for name in methods()},
    "uniform, 7 bits": Request("uniform", 7),
    "nhot:n=1": Request("nhot:n=1", 8),
    "nhot:n=3": Request("nhot:n=3", 8),
    "mixed": Request("nhot", 8, layers=("conv=nhot:n=3", "dense=ternary", "depthwise=uniform@6")),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_quantized_network_is_the_same_in_all_models(
    name: str, samples: np.ndarray, builds: Path, tmp_path: Path
) -> None:
    """Serial shift-add PEs, whose cycles are the terms of the codes; of ternary codes their own."""
    found = quantized(REQUESTS[name], samples)
    ternary = all(codes.bits == 2 for codes in found.weights.values())
    hardware = small_array("ternary4x4" if ternary else "nhot2_4x4")
    assert_all_agree(found, hardware, samples, builds, tmp_path)


def test_int7_runs_with_the_sums_of_sixteen_bits_that_its_plan_asks_for(
    samples: np.ndarray, builds: Path, tmp_path: Path
) -> None:
    found = quantized(Request("easyquant", 7, input_bits=7), samples)
    plan = partial_sum_plan(found.network, 16)
    assert plan.interval is not None
    hardware = small_array("mac4x4", acc_bits=16, spill_interval=plan.interval)
    assert_all_agree(found, hardware, samples, builds, tmp_path)
