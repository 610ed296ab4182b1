"""Verify the whole accelerator: networks through `napier_top` against golden and the cycle model.

Every tensor in memory, every counter of every layer and every cycle are compared, with the memory
that the hardware file describes; with a memory that pauses at random all but the cycles are.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.errors import HardwareError
from golden.network import Network
from rtl_models.builds import Simulator
from rtl_models.contracts import narrow_variants, replace_module
from rtl_models.random_networks import random_hardware, random_network
from rtl_models.top import Bus, TopSimulation, TopVerification, verify_network
from rtl_models.verify import Difference, VerifyReport
from simulator.compiler import program_layers
from simulator.hardware import Hardware
from simulator.plan import plan_network
from simulator.timing import time_network

Array = NDArray[Any]


@dataclass(frozen=True)
class MachineReport(VerifyReport):
    """A whole network, and what the Verilog counted for each of its layers.

    Parameters
    ----------
    layers : tuple of (int, dict of str to int)
        Index in the network and counters, in the order in which they ran; a program that hung
        has none.
    """

    layers: tuple[tuple[int, dict[str, int]], ...] = ()


MACHINE = "network"
"""What stands for the operator in the report of a whole network."""

UNCOUNTED = ("cycles", "overflow_events", "overflow_outputs")
"""Counters that are not causes of cycles."""

PATIENCE, PATIENCE_WITH_PAUSES = 2, 20
"""A random program that takes so many times as long as the model says hangs."""

SPARE_CYCLES = 2000
"""And so many more."""


def verify_machine(
    network: Network,
    hardware: Hardware,
    inputs: Sequence[Array],
    *,
    workdir: Path,
    simulator: Simulator = "icarus",
    bus: Bus | None = None,
    sources: Sequence[Path] | None = None,
    seed: int = 0,
    limit_cycles: int = 1_000_000_000,
) -> MachineReport:
    """Run one sample of a network through the accelerator and compare everything.

    Parameters
    ----------
    network : Network
    hardware : Hardware
    inputs : sequence of (1, ...) integer array
    workdir : Path
        Builds; memory images and, after a difference, waves.
    simulator : "icarus" or "verilator"
    bus : Bus, optional
        The memory; as the hardware describes it where absent.
    sources : sequence of Path, optional
        Verilog of the accelerator instead of the package's.
    seed : int
        For the report.
    limit_cycles : int

    Raises
    ------
    HardwareError
        A layer does not fit the hardware.
    ToolError
        The simulator is missing, or the Verilog does not compile or run.
    """
    simulation = TopSimulation(
        builds=workdir / "builds",
        simulator=simulator,
        bus=Bus() if bus is None else bus,
        sources=sources,
        limit_cycles=limit_cycles,
    )
    digest = hashlib.sha256(f"{network.name} {hardware} {seed} {simulation.bus}".encode())
    folder = workdir / f"network_{seed}_{digest.hexdigest()[:8]}"
    result = verify_network(network, hardware, inputs, simulation, folder)
    difference = None
    if result.difference is None:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        waves = _record_waves(network, hardware, inputs, simulation, folder)
        difference = _Told(None, None, None, result.difference, "", "", waves)
    return _report(network, hardware, result, seed, difference)


class _Told(Difference):
    """A difference whose signal is the whole sentence."""

    def __str__(self) -> str:
        waves = "" if self.waves is None else f"; waves: {self.waves}"
        return f"{self.signal}{waves}"


def verify_random_machines(
    count: int,
    hardware: Hardware | None,
    seed: int,
    progress: Callable[[VerifyReport], None] | None = None,
    *,
    workdir: Path,
    simulator: Simulator = "icarus",
    stall_percent: int = 0,
    sources: Sequence[Path] | None = None,
) -> list[VerifyReport]:
    """Verify random small networks on the whole accelerator, stopping at the first that differs.

    Parameters
    ----------
    count : int
    hardware : Hardware or None
        None: every network gets an accelerator and a memory of its own.
    seed : int
        The i-th network is drawn from seed + i.
    progress : function of a report, optional
    workdir, simulator, sources
        As in `verify_machine`.
    stall_percent : int
        Pauses of the memory; 0 keeps its times, and cycles are compared.
    """
    reports: list[VerifyReport] = []
    patience = PATIENCE_WITH_PAUSES if stall_percent else PATIENCE
    for number in range(seed, seed + count):
        machine, network, inputs = draw(number, hardware)
        bus = Bus(stall_percent=stall_percent, seed=number)
        expected_cycles = sum(timing.cycles for timing in time_network(network, machine))
        report = verify_machine(
            network,
            machine,
            inputs,
            workdir=workdir,
            simulator=simulator,
            bus=bus,
            sources=sources,
            seed=number,
            limit_cycles=patience * expected_cycles + SPARE_CYCLES,
        )
        reports.append(report)
        if progress is not None:
            progress(report)
        if not report.passed:
            break
    return reports


def draw(seed: int, hardware: Hardware | None) -> tuple[Hardware, Network, tuple[Array, ...]]:
    """Draw a network, and an accelerator that holds it where none is given.

    Buffers of a drawn accelerator may be too small for a drawn network: then both are drawn again.
    """
    rng = np.random.default_rng(seed)
    while True:
        machine = random_hardware(rng) if hardware is None else hardware
        network, inputs = random_network(rng, machine)
        try:
            plan_network(network, machine)
        except HardwareError:
            continue
        return machine, network, inputs


def verify_top_contract(
    files: Sequence[Path],
    hardware: Hardware,
    count: int,
    seed: int,
    progress: Callable[[VerifyReport], None] | None = None,
    *,
    workdir: Path,
    simulator: Simulator = "icarus",
) -> list[VerifyReport]:
    """Verify the user's `napier_top`: random networks, timed, then with a memory that pauses.

    Parameters
    ----------
    files : sequence of Path
    hardware : Hardware
    count : int
        Networks for each accumulator of `narrow_variants` and each memory.
    seed, progress, workdir, simulator
        As in `verify_random_machines`.

    Raises
    ------
    InputError
        The files do not keep the contract.
    """
    merged = replace_module("top", files, hardware)
    reports: list[VerifyReport] = []
    for variant in narrow_variants(hardware):
        for stall_percent in (0, 50):
            reports += verify_random_machines(
                count,
                variant,
                seed,
                progress,
                workdir=workdir,
                simulator=simulator,
                stall_percent=stall_percent,
                sources=merged,
            )
            if not reports[-1].passed:
                return reports
    return reports


def _record_waves(
    network: Network,
    hardware: Hardware,
    inputs: Sequence[Array],
    simulation: TopSimulation,
    folder: Path,
) -> Path | None:
    """Run once more in Icarus for the waves; the last program's are those of the difference."""
    recorded = replace(simulation, simulator="icarus", waves=True)
    verify_network(network, hardware, inputs, recorded, folder)
    waves = sorted(folder.glob("*/waves.*"))
    return waves[-1] if waves else None


def _report(
    network: Network,
    hardware: Hardware,
    result: TopVerification,
    seed: int,
    difference: Difference | None,
) -> MachineReport:
    totals = [program.total for program in result.run.programs]
    causes = [name for name in (totals[0] if totals else ()) if name not in UNCOUNTED]
    programs = plan_network(network, hardware).programs
    return MachineReport(
        name=network.name,
        op=MACHINE,
        input_shape=network.tensors[network.inputs[0]].shape,
        runs=len(totals),
        outputs=result.codes,
        cycles=result.run.cycles,
        cycles_by_cause={name: sum(total[name] for total in totals) for name in causes},
        overflow_events=sum(total["overflow_events"] for total in totals),
        overflow_outputs=sum(total["overflow_outputs"] for total in totals),
        seconds=result.run.seconds,
        seed=seed,
        difference=difference,
        layers=tuple(
            pair
            for program, run in zip(programs, result.run.programs, strict=False)
            for pair in zip(program_layers(program), run.layers, strict=False)
        ),
    )
