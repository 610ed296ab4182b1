"""napier_top with a memory in Icarus: errors, aborts and resets, and what comes after them."""

import json
from pathlib import Path

import numpy as np
import pytest

from golden.network import Conv2D, MaxPool2D, Network, Padding, Requantization, Tensor
from golden.run import run
from rtl_models import run_bench
from rtl_models.parameters import top_parameters
from rtl_models.sources import VERILOG, sources
from simulator.compiler import compile_network
from simulator.hardware import changed_hardware, load_hardware
from simulator.machine import simulate

BENCHES = Path(__file__).parent / "benches"

pytestmark = pytest.mark.rtl


TWO_TERMS = np.array([-96, -33, -4, 0, 0, 3, 17, 64], np.int8)
"""Weights that every PE holds but the ternary one."""


def small_network():
    """A convolution of several passes, a pool and another convolution."""
    rng = np.random.default_rng(1)

    def convolution(name, tensors, channels, padding):
        return Conv2D(
            name=name,
            inputs=tensors[:1],
            outputs=tensors[1:],
            weights=rng.choice(TWO_TERMS, channels[1:] + (3, 3) + channels[:1]),
            weight_bits=8,
            weight_zero_point=0,
            bias=rng.integers(-1000, 1000, channels[1]),
            input_zero_point=3,
            output_zero_point=3,
            requantization=Requantization(np.array([1 << 30]), np.array([-8])),
            activation_min=-128,
            activation_max=127,
            padding=padding,
        )

    shapes = ((1, 5, 6, 3), (1, 5, 6, 6), (1, 2, 3, 6), (1, 2, 3, 2))
    tensors = tuple(Tensor(f"t{i}", shape, "int8", 1.0, 3) for i, shape in enumerate(shapes))
    layers = (
        convolution("first", (0, 1), (3, 6), Padding(1, 1, 1, 1)),
        MaxPool2D("pool", (1,), (2,), (2, 2), (2, 2), Padding(), -128, 127),
        convolution("last", (2, 3), (6, 2), Padding(1, 1, 1, 1)),
    )
    return Network("small", tensors, layers, (0,), (3,)), rng.integers(-128, 128, shapes[0])


def machine(preset, **buffers):
    tables = {"array": {"rows": 3, "cols": 2}, "post": {"lanes": 1}, "buffers": buffers}
    return changed_hardware(load_hardware(preset), **tables)


MACHINES = {
    "mac": machine("mac4x4", activation_bytes=256, weight_bytes=1024, output_bytes=128),
    "parallel-single-buffer": machine("nhot2_parallel_4x4", double_buffer=False),
}


PATIENCE_CYCLES = 1 << 10
"""A tile may take 4 times the 2 columns of 32 beats of 4 entries (section 5 of programming.md)."""


def write_case(network, image, hardware, path):
    """Compile a network and write down what the bench has to know."""
    compiled = compile_network(network, hardware)
    plan = compiled.plan
    (program,) = plan.programs
    tensors = run(network, [image.astype(np.int8)], keep_tensors=True).tensors
    before = {**compiled.image, plan.offsets[0]: compiled.encode_tensor(0, tensors[0])}
    written = {
        plan.offsets[i]: [
            byte if channel_exists else None
            for byte, channel_exists in zip(
                compiled.encode_tensor(i, tensors[i]),
                compiled.encode_tensor(i, np.ones_like(tensors[i])),
                strict=True,
            )
        ]
        for i in compiled.written(program)
    }
    timing = simulate(network, hardware, [image.astype(np.int8)])
    cycles = sum(layer.timing.cycles for layer in timing.layers)
    tiles = sum(
        (each.pixel_tiles[1] - each.pixel_tiles[0])
        * (each.channel_tiles[1] - each.channel_tiles[0])
        for each in program.passes
    )
    case = {
        "program": program.descriptor_offset,
        "descriptors": len(program.passes),
        "descriptor_bytes": hardware.descriptor_bytes,
        "image": {at: data.hex() for at, data in before.items()},
        "written": written,
        "cycles": cycles,
        "endless_cycles": 2 * cycles + tiles * PATIENCE_CYCLES,
        "latency": hardware.dram.latency_cycles,
        "interval": hardware.interval_cycles,
    }
    path.write_text(json.dumps(case))
    return compiled


@pytest.mark.parametrize(
    ("name", "times"),
    [
        ("mac", 1),
        pytest.param("mac", 4, marks=pytest.mark.long),
        pytest.param("parallel-single-buffer", 4, marks=pytest.mark.long),
    ],
)
def test_errors_aborts_and_resets_leave_a_machine_as_new(tmp_path, name, times):
    hardware = MACHINES[name]
    network, image = small_network()
    compiled = write_case(network, image, hardware, tmp_path / "case.json")
    memories = compiled.plan.memories
    parameters = top_parameters(
        hardware, memories.feed_beats, memories.stream_beats, memories.parameter_words
    )
    bench = [VERILOG / "tb" / name for name in ("top_system.v", "axi_memory.v")]
    result = run_bench(
        "top_system",
        BENCHES / "bench_top.py",
        tmp_path / "build",
        parameters=parameters | {"MEMORY_BYTES": compiled.plan.total_bytes},
        sources=[*bench, *sources("napier_top")],
        environment={"CASE": str(tmp_path / "case.json"), "TIMES": str(times), "SEED": str(times)},
    )
    assert len(result.tests) == 6
