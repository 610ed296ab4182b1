"""`napier verify`: layers of a network, or random ones, through the Verilog."""

from __future__ import annotations

import difflib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from golden.errors import InputError, OutputError
from golden.network import Layer, Network, WeightedLayer
from golden.run import run as run_golden
from napier.loading import Samples, default_samples, load_model, load_samples
from napier.witnesses import verify_witnesses
from rtl_models.builds import Simulator
from rtl_models.contracts import CONTRACTS, narrow_variants
from rtl_models.top import Bus
from rtl_models.verify import (
    ALONE,
    VerifyReport,
    verify_contract,
    verify_layer,
    verify_random,
)
from rtl_models.verify_machine import (
    MACHINE,
    MachineReport,
    verify_machine,
    verify_random_machines,
    verify_top_contract,
)
from simulator.hardware import Hardware
from simulator.projection import project_weights

Progress = Callable[[int, int, str], None]

LONGEST_TABLE = 30
"""Rows of a table; more layers than this are shown by kind."""


@dataclass(frozen=True)
class Summary:
    """Reports of all layers verified, in order; the last one may be the first that differs."""

    hardware: str
    reports: tuple[VerifyReport, ...]
    replaced: str = ""
    """What of the Verilog is the user's, and with which accumulators it ran."""
    timed: bool = True
    """Whether the memory kept the times of the hardware file, so that cycles were compared."""
    proofs: bool = False
    """Whether worst cases ran at the proved width and one bit below."""
    network: Network | None = None
    """Of a single report of a whole network: its layers are the rows."""

    @property
    def passed(self) -> bool:
        """Whether every layer was equal in every bit and cycle."""
        return all(report.passed for report in self.reports)

    def table(self) -> RenderableType:
        """One row a layer, or a kind of layer where there are many; then the verdict."""
        table = Table(
            box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False, expand=True
        )
        table.add_column("layer", ratio=1, no_wrap=True)
        for heading in ("op", "input"):
            table.add_column(heading, no_wrap=True)
        counts = ("outputs", "cycles", "overflows")
        for heading in counts if self.network is not None else (*counts, "seconds"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        if self.network is not None:
            for report in self.reports:
                _add_layers(table, self.network, report)
        elif len(self.reports) <= LONGEST_TABLE:
            for report in self.reports:
                shape = "x".join(map(str, report.input_shape[1:]))
                _add_row(table, report.name, report.op, shape, [report])
        else:
            for op in sorted({report.op for report in self.reports}):
                reports = [report for report in self.reports if report.op == op]
                _add_row(table, _layers(len(reports)), op, "", reports)
        return Group(table, self.verdict())

    def verdict(self) -> Text:
        """Say what was equal, or the first difference and where its waveform lies."""
        for report in self.reports:
            if report.difference is not None:
                return Text(f"{report.name} (seed {report.seed}): {report.difference}", "bold red")
        if self.proofs:
            return Text(
                f"{len(self.reports)} worst cases on {self.hardware}: no overflow at the proved"
                " widths, overflow one bit below; Verilog, golden and cycle model agree",
                "green",
            )
        cycles = sum(report.cycles for report in self.reports)
        outputs = sum(report.outputs for report in self.reports)
        replaced = f" ({self.replaced})" if self.replaced else ""
        timed = (
            f", and {cycles} cycles and their causes"
            if self.timed
            else "; cycles were not compared, since the memory paused at random"
        )
        return Text(
            f"{_runs(self.reports)} on {self.hardware}{replaced}: Verilog, golden and cycle model"
            f" agree in {outputs} outputs, all overflow counters{timed}",
            "green",
        )


def _runs(reports: tuple[VerifyReport, ...]) -> str:
    alone = sum(report.op == ALONE for report in reports)
    networks = sum(report.op == MACHINE for report in reports)
    if networks:
        return "1 network" if networks == 1 else f"{networks} networks"
    layers = _layers(len(reports) - alone)
    return f"{alone} runs of the PE alone and {layers}" if alone else layers


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"


def _add_row(table: Table, name: str, op: str, shape: str, reports: list[VerifyReport]) -> None:
    passed = all(report.passed for report in reports)
    table.add_row(
        name,
        op,
        shape,
        str(sum(report.outputs for report in reports)),
        str(sum(report.cycles for report in reports)),
        str(sum(report.overflow_events for report in reports)),
        f"{sum(report.seconds for report in reports):.2f}",
        Text("equal", "green") if passed else Text("DIFFERS", "bold red"),
    )


def _add_layers(table: Table, network: Network, report: VerifyReport) -> None:
    """One row for each layer that the accelerator ran; equal where no earlier one differs."""
    if not isinstance(report, MachineReport):
        return
    for index, counts in report.layers:
        layer = network.layers[index]
        shape = "x".join(map(str, network.tensors[layer.inputs[0]].shape[1:]))
        outputs = prod(network.tensors[layer.outputs[0]].shape)
        counted = (str(counts["cycles"]), str(counts["overflow_events"]))
        equal = Text("equal", "green") if report.passed else Text("")
        table.add_row(layer.name, layer.op, shape, str(outputs), *counted, equal)


def verify_random_networks(
    count: int,
    hardware: Hardware | None,
    seed: int,
    simulator: Simulator,
    stall_percent: int,
    work_folder: str | None,
    progress: Progress,
) -> Summary:
    """Verify `count` random networks on the whole accelerator; stops at the first that differs.

    Without hardware every network gets an accelerator and a memory of its own.
    """
    done: list[VerifyReport] = []

    def report(each: VerifyReport) -> None:
        done.append(each)
        progress(len(done), count, f"{each.cycles} cycles")

    with _folder(work_folder) as (folder, keep):
        reports = verify_random_machines(
            count,
            hardware,
            seed,
            report,
            workdir=folder,
            simulator=simulator,
            stall_percent=stall_percent,
        )
        name = "random accelerators" if hardware is None else hardware.name
        summary = Summary(name, tuple(reports), timed=not stall_percent)
        keep(not summary.passed)
    return summary


def verify_network(
    model: str | None,
    hardware: Hardware,
    inputs: tuple[str, ...],
    weights: str,
    simulator: Simulator,
    stall_percent: int,
    work_folder: str | None,
    progress: Progress,
) -> Summary:
    """Verify a whole network on the accelerator, on one sample."""
    network = project_weights(load_model(model), weights)
    one = _one_sample(network, model, inputs)
    with _folder(work_folder) as (folder, keep):
        progress(0, 1, network.name)
        report = verify_machine(
            network,
            hardware,
            one.arrays,
            workdir=folder,
            simulator=simulator,
            bus=Bus(stall_percent=stall_percent),
        )
        keep(not report.passed)
    return Summary(hardware.name, (report,), timed=not stall_percent, network=network)


def _one_sample(network: Network, model: str | None, inputs: tuple[str, ...]) -> Samples:
    samples = load_samples(network, inputs) if inputs else default_samples(network, model)
    return Samples(tuple(array[:1] for array in samples.arrays), samples.description)


def verify_random_layers(
    count: int,
    hardware: Hardware,
    seed: int,
    simulator: Simulator,
    work_folder: str | None,
    progress: Progress,
) -> Summary:
    """Verify `count` random layers; stops at the first that differs."""
    done: list[VerifyReport] = []

    def report(each: VerifyReport) -> None:
        done.append(each)
        progress(len(done), count, f"{each.op} {each.input_shape}")

    with _folder(work_folder) as (folder, keep):
        reports = verify_random(count, hardware, seed, report, workdir=folder, simulator=simulator)
        summary = Summary(hardware.name, tuple(reports))
        keep(not summary.passed)
    return summary


def verify_rtl(
    contract: str,
    files: tuple[str, ...],
    hardware: Hardware,
    count: int,
    seed: int,
    simulator: Simulator,
    work_folder: str | None,
    progress: Progress,
) -> Summary:
    """Verify the user's module in the place of ours; stops at the first difference."""
    variants = narrow_variants(hardware)
    alone = len(variants) if contract == "pe" else 0
    total = count * len(variants) * (2 if contract == "top" else 1) + alone
    done: list[VerifyReport] = []

    def report(each: VerifyReport) -> None:
        done.append(each)
        progress(len(done), total, each.name)

    paths = [Path(file) for file in files]
    with _folder(work_folder) as (folder, keep):
        options: dict[str, Any] = {"workdir": folder, "simulator": simulator}
        if contract == "top":
            reports = verify_top_contract(paths, hardware, count, seed, report, **options)
        else:
            reports = verify_contract(contract, paths, hardware, count, seed, report, **options)
        names = ", ".join(variant.name for variant in variants)
        replaced = f"{CONTRACTS[contract]} from {', '.join(files)}; {names}"
        summary = Summary(hardware.name, tuple(reports), replaced)
        keep(not summary.passed)
    return summary


def verify_model(
    model: str | None,
    hardware: Hardware,
    layer_names: tuple[str, ...],
    inputs: tuple[str, ...],
    weights: str,
    simulator: Simulator,
    work_folder: str | None,
    progress: Progress,
) -> Summary:
    """Verify the layers of a network that multiply, on one sample; stops at the first difference.

    Every layer gets the input that the golden model computes for it.

    Raises
    ------
    InputError
        A layer that is not there, or an input that does not fit.
    """
    network = project_weights(load_model(model), weights)
    layers = _choose(network, layer_names)
    one = _one_sample(network, model, inputs)
    tensors = run_golden(network, one.arrays, keep_tensors=True).tensors
    reports: list[VerifyReport] = []
    with _folder(work_folder) as (folder, keep):
        for number, layer in enumerate(layers):
            progress(number, len(layers), layer.name)
            x = tensors[layer.inputs[0]]
            reports.append(verify_layer(layer, hardware, x, workdir=folder, simulator=simulator))
            if not reports[-1].passed:
                keep(True)
                break
    return Summary(hardware.name, tuple(reports))


def verify_proofs(
    model: str | None,
    hardware: Hardware,
    layer_names: tuple[str, ...],
    activation_range: str,
    weights: str,
    simulator: Simulator,
    work_folder: str | None,
    progress: Progress,
) -> Summary:
    """Drive the worst cases of the layers that multiply through the Verilog; see `witnesses`."""
    network = project_weights(load_model(model), weights)
    layers = _choose(network, layer_names)
    reports: list[VerifyReport] = []
    with _folder(work_folder) as (folder, keep):
        runs = verify_witnesses(network, layers, hardware, activation_range, simulator, folder)
        for report in runs:
            reports.append(report)
            progress(len(reports), 4 * len(layers), report.name)
            if not report.passed:
                keep(True)
                break
    return Summary(hardware.name, tuple(reports), proofs=True)


def _choose(network: Network, names: tuple[str, ...]) -> list[WeightedLayer]:
    """Layers that multiply: all, or those that the user names by name or index."""
    if not names:
        return [layer for layer in network.layers if isinstance(layer, WeightedLayer)]
    return [_find(network, name) for name in names]


def _find(network: Network, name: str) -> WeightedLayer:
    by_name: dict[str, Layer] = {layer.name: layer for layer in network.layers}
    by_name.update({str(index): layer for index, layer in enumerate(network.layers)})
    if name not in by_name:
        close = difflib.get_close_matches(name, by_name, n=1)
        hint = (
            f"did you mean {close[0]}?"
            if close
            else f"it has layers 0 to {len(network.layers) - 1}"
        )
        raise InputError(f"--layer {name}: {network.name} has no such layer; {hint}")
    layer = by_name[name]
    if not isinstance(layer, WeightedLayer):
        raise InputError(
            f"--layer {name} is a {layer.op}, which the Verilog engine does not run yet; "
            "name a conv, depthwise or dense layer"
        )
    return layer


@contextmanager
def _folder(work_folder: str | None) -> Iterator[tuple[Path, Callable[[bool], None]]]:
    """Give the user's folder, or one of our own that goes unless told to keep it."""
    if work_folder is not None:
        path = Path(work_folder)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"--work {work_folder} cannot be made: {error.strerror or error}"
            ) from None
        yield path, lambda wanted: None
        return
    path = Path(tempfile.mkdtemp(prefix="napier-verify-"))
    kept = [False]
    try:
        yield path, lambda wanted: kept.append(wanted)
    finally:
        if not kept[-1]:
            shutil.rmtree(path, ignore_errors=True)
