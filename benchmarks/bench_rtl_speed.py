"""How much faster the fast model is than the Verilog of the same work, measured side by side.

    python benchmarks/bench_rtl_speed.py [--model FILE] [--icarus-cycles N] [--builds DIR]
        [--only icarus|verilator]

The same network and input run on `mac16x16` in `simulate`, in `simulator.prepared` (which keeps no
minima and maxima of accumulators) and, through `napier_top` with its memory, in Verilator (whole)
and Icarus (the first N cycles, its rate taken for the rest); the network that ships with Napier
runs whole in Icarus on `mac4x4`. Cycles must be equal. What is compared is CPU time in user mode,
which other work on the machine disturbs little: of the simulator process, and of the fast model,
one sample alone and as one of a batch of 16 (median of many, all threads together). Not in it is
what is done once for a network: planning (`simulate` remembers it; the first call is told too),
compiling the program, building the simulator.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import click
import numpy as np

from golden.network import Network
from napier.loading import default_samples, load_model
from rtl_models.builds import Simulator
from rtl_models.top import Memory, TopSimulation
from simulator.compiler import compile_network
from simulator.hardware import Hardware, load_hardware
from simulator.machine import simulate
from simulator.prepared import PreparedNetwork

RESNET = (
    Path(__file__).parents[2]
    / "shared"
    / "models"
    / "mlperf_tiny"
    / "pretrainedResnet_quant.tflite"
)
REPEATS = 25
BATCH = 16


@dataclass(frozen=True)
class Work:
    """One sample of a network on an accelerator."""

    network: Network
    hardware: Hardware
    inputs: tuple[np.ndarray, ...]

    @property
    def pes(self) -> int:
        return self.hardware.array.rows * self.hardware.array.cols


def work_of(model: str | None, preset: str) -> Work:
    network = load_model(model)
    samples = default_samples(network, model).arrays
    return Work(network, load_hardware(preset), tuple(array[:1] for array in samples))


def median_seconds(run: Callable[[], object], repeats: int = REPEATS) -> float:
    """CPU time of this process, the median of `repeats` runs after the first."""
    run()
    seconds = []
    for _ in range(repeats):
        begin = time.process_time()
        run()
        seconds.append(time.process_time() - begin)
    return sorted(seconds)[repeats // 2]


def verilog_seconds(
    work: Work, simulator: Simulator, builds: Path, limit_cycles: int | None
) -> tuple[int, float]:
    """Cycles that the Verilog ran and CPU time of its simulator, the build excluded."""
    compiled = compile_network(work.network, work.hardware)
    (program,) = compiled.plan.programs
    ran, spent = 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        for limit in (1, limit_cycles or 10**9):  # the first builds, and then gives up at once
            memory = Memory(compiled)
            for index, codes in zip(work.network.inputs, work.inputs, strict=True):
                memory.write(index, codes)
            for constant in work.network.constants:
                memory.write(constant.tensor, np.asarray(constant.codes))
            simulation = TopSimulation(builds, simulator, limit_cycles=limit)
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            found = simulation.run(program, memory, Path(folder))
            spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
            ran = found.cycles if found.status else limit
    return ran, spent


def report(work: Work, simulator: Simulator, builds: Path, limit_cycles: int | None) -> None:
    """Measure one pair and print it."""
    found = simulate(work.network, work.hardware, work.inputs)  # loads the compiled kernels
    device_cycles = sum(layer.timing.cycles for layer in found.layers if layer.unit != "host")
    unknown = replace(work.network, name="unknown")
    begin = time.process_time()
    simulate(unknown, work.hardware, work.inputs)
    planned = time.process_time() - begin
    batch = tuple(np.repeat(array, BATCH, axis=0) for array in work.inputs)
    prepared = PreparedNetwork(work.network, work.hardware)
    equal = zip(found.outputs, prepared.run(work.inputs).outputs, strict=True)
    if not all(np.array_equal(*codes) for codes in equal):
        raise SystemExit("the two fast models differ")
    alone = median_seconds(lambda: simulate(work.network, work.hardware, work.inputs))
    batched = median_seconds(lambda: simulate(work.network, work.hardware, batch)) / BATCH
    ready = median_seconds(lambda: prepared.run(work.inputs))
    ready_batched = median_seconds(lambda: prepared.run(batch)) / BATCH
    ran, seconds = verilog_seconds(work, simulator, builds, limit_cycles)
    if limit_cycles is None and ran != device_cycles:
        raise SystemExit(f"the Verilog took {ran} cycles, the model says {device_cycles}")
    rate = ran / seconds
    verilog = device_cycles / rate
    part = "" if limit_cycles is None else f" (rate of its first {ran} cycles)"
    click.echo(
        f"{work.network.name} on {work.hardware.name}: {device_cycles} cycles, {work.pes} PEs"
    )
    click.echo(
        f"  {simulator}: {verilog:.3f} s{part},"
        f" {rate:,.0f} cycles/s, {rate * work.pes * 1e-6:.2f} M PE-cycles/s"
    )
    for name, spent in (
        ("simulate", alone),
        (f"simulate, one of {BATCH} samples", batched),
        ("simulate for the first time, planning included", planned),
        ("prepared", ready),
        (f"prepared, one of {BATCH} samples", ready_batched),
    ):
        click.echo(
            f"  {name}: {spent * 1e3:.2f} ms, {device_cycles / spent:,.0f} cycles/s,"
            f" {device_cycles * work.pes / spent * 1e-6:,.0f} M PE-cycles/s,"
            f" {verilog / spent:,.0f} times as fast"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(RESNET))
    parser.add_argument("--icarus-cycles", type=int, default=4000)
    parser.add_argument("--builds", type=Path, default=None)
    parser.add_argument("--only", choices=get_args(Simulator))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        builds = arguments.builds or Path(folder)
        large = work_of(arguments.model, "mac16x16")
        if arguments.only != "verilator":
            report(work_of(None, "mac4x4"), "icarus", builds, None)
            report(large, "icarus", builds, arguments.icarus_cycles)
        if arguments.only != "icarus":
            report(large, "verilator", builds, None)


if __name__ == "__main__":
    main()
