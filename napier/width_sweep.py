"""`napier widths --sweep`: what happens in accumulators narrower than the proved width."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from golden.errors import InputError
from golden.network import Network, WeightedLayer
from napier.fitting import check_labels
from napier.loading import Samples
from napier.output import write_text
from napier.report import human
from napier.widths import Observed, observe
from simulator.hardware import Hardware
from simulator.network_values import NetworkValues
from simulator.results import OverflowCounts
from simulator.sharing import THREADS, map_shared
from simulator.values import ArrayLayer

Array = NDArray[Any]
Document = dict[str, Any]
Progress = Callable[[int, int, str], None]

SCHEMA = "napier.width_sweep/1"

ACC_BITS = (2, 48)
"""Narrowest and widest accumulator of the hardware."""

RULES = ("wrap", "saturate")

BATCH_SAMPLES = 64
"""Samples that one thread runs at once, at most."""

COUNTS = ("events", "outputs_affected", "transient", "persistent")


@dataclass(frozen=True)
class Sweep:
    """What a sweep runs.

    Parameters
    ----------
    network : Network
    samples : Samples
    hardware : Hardware
        Its PE and spilling; width and overflow rule are swept.
    first, last : int
        Narrowest and widest accumulator, both included.
    labels : (samples,) integer array or None
        Classes, for the accuracy.
    observed : Observed or None
        What `observe` made of the samples on this hardware, where that is known already.
    """

    network: Network
    samples: Samples
    hardware: Hardware
    first: int
    last: int
    labels: Array | None = None
    observed: Observed | None = None

    @cached_property
    def reference(self) -> Observed:
        """What accumulators that hold every sum do with the samples.

        Raises
        ------
        InputError
            Labels beyond the classes of the first output.
        """
        check_labels(self.network, self.labels)
        return self.observed or observe(self.network, self.samples, self.hardware)

    def machine(self, acc_bits: int, acc_overflow: str) -> Hardware:
        """Return the hardware with other accumulators."""
        widths = {"acc_bits": acc_bits, "acc_overflow": acc_overflow}
        array = self.hardware.array.model_copy(update=widths)
        return self.hardware.model_copy(update={"array": array})

    def points(self) -> Iterator[Hardware]:
        """Hardware of every point, the widest first."""
        for bits in range(self.last, self.first - 1, -1):
            for rule in RULES:
                yield self.machine(bits, rule)

    def key(self) -> Document:
        """All that results depend on besides width and rule."""
        array = self.hardware.array
        parts = (self.network.tensors, self.network.layers, self.network.constants)
        labels = {} if self.labels is None else {"labels": _digest(self.labels)}
        return {
            "model": _digest(parts),
            "inputs": _digest(self.samples.arrays),
            "serial": self.hardware.serial,
            "spill_interval": array.spill_interval,
            "wide_acc_bits": array.wide_acc_bits if array.spill_interval else None,
            **labels,
        }


class Results:
    """Finished points of a sweep, trials of a search and orders, in a file where one is named.

    Parameters
    ----------
    sweep : Sweep
    path : str or None
        Written after every point; read first where it exists.

    Raises
    ------
    InputError
        Where the file holds another sweep's results, or none.
    """

    def __init__(self, sweep: Sweep, path: str | None) -> None:
        self.path = path
        self.document: Document = {
            "schema": SCHEMA,
            "key": sweep.key(),
            "samples": sweep.samples.count,
            "points": [],
            "trials": [],
            "orders": None,
        }
        if path is not None and Path(path).exists():
            earlier = _earlier_results(self.document["key"], path)
            self.document["points"] = earlier["points"]
            self.document["trials"] = earlier.get("trials", [])
            self.document["orders"] = earlier.get("orders")

    def keep(self, kind: str, entry: Document) -> None:
        """Add a finished entry of "points" or "trials".

        Raises
        ------
        OutputError
            Where the file cannot be written.
        """
        self.document[kind].append(entry)
        self.write()

    def write(self) -> None:
        """Write the file, if there is one.

        Raises
        ------
        OutputError
            Where it cannot be written.
        """
        if self.path is not None:
            write_text(self.path, json.dumps(self.document, indent=1) + "\n")


def parse_range(text: str) -> tuple[int, int]:
    """Read ``A:B``, the narrowest and the widest accumulator.

    Raises
    ------
    InputError
        Not two whole numbers in order, within what the hardware has.
    """
    first, colon, last = text.partition(":")
    low, high = ACC_BITS
    if colon and first.isdecimal() and last.isdecimal():
        bits = int(first), int(last)
        if low <= bits[0] <= bits[1] <= high:
            return bits
    raise InputError(
        f"--sweep {text} must be A:B, the narrowest and the widest accumulator, {low} to {high}"
        " bits; for example 12:20"
    )


def run_sweep(
    sweep: Sweep, results_path: str | None = None, progress: Progress | None = None
) -> Document:
    """Run every point, or take it from the results of an earlier call.

    Parameters
    ----------
    sweep : Sweep
    results_path : str or None
        Holds all finished points, also of an interrupted call; continued where it exists.
    progress : callable or None
        Called as (done, total, what).

    Returns
    -------
    dict
        The `napier.width_sweep/1` document.

    Raises
    ------
    InputError
        Where the results are another sweep's, or none.
    OutputError
        Where the results cannot be written.
    """
    results = Results(sweep, results_path)
    finished = {(p["acc_bits"], p["acc_overflow"]): p for p in results.document["points"]}
    machines = list(sweep.points())
    points = []
    for done, machine in enumerate(machines):
        bits, rule = machine.array.acc_bits, machine.array.acc_overflow
        if progress is not None:
            progress(done, len(machines), f"{bits} bits, {rule}")
        if (bits, rule) not in finished:
            finished[bits, rule] = _run_point(sweep, machine)
            results.keep("points", finished[bits, rule])
        points.append(finished[bits, rule])
    kept = ("schema", "key", "samples")
    return {**{name: results.document[name] for name in kept}, "points": points}


def _digest(value: object) -> str:
    """SHA-256 of nested tuples, dataclasses and arrays."""
    digest = hashlib.sha256()
    for piece in _pieces(value):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(value: object) -> Iterator[bytes]:
    if isinstance(value, np.ndarray):
        yield f"{value.dtype}{value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, tuple):
        for item in value:
            yield from _pieces(item)
    elif is_dataclass(value):
        yield type(value).__name__.encode()
        for each in fields(value):
            yield from _pieces(getattr(value, each.name))
    else:
        yield f"{value!r};".encode()


def _earlier_results(key: Document, path: str) -> Document:
    """Read what an earlier call finished."""
    try:
        earlier: Document = json.loads(Path(path).read_text())
        if earlier["schema"] == SCHEMA and earlier["key"] == key:
            for point in earlier["points"]:
                point["acc_bits"], point["acc_overflow"]
            for trial in earlier.get("trials", []):
                (
                    trial["acc_overflow"],
                    trial["layer_bits"],
                    trial["top1_agreement"],
                    trial["accuracy"],
                )
            orders = earlier.get("orders")
            if orders is not None:
                orders["first"], orders["last"], orders["samples"]
                np.array(orders["counts"], dtype=np.int64)
            return earlier
    except (ValueError, TypeError, KeyError, OSError):
        raise InputError(
            f"--results {path} does not hold the results of a sweep; name another file"
        ) from None
    raise InputError(
        f"--results {path} belongs to another model, input, projection, PE or labels; name"
        " another file"
    )


# -- one point ------------------------------------------------------------------------------------


def _run_point(sweep: Sweep, hardware: Hardware) -> Document:
    """Run all samples with one accumulator in every layer; sums go on as that leaves them."""
    narrow, counts = run_layers(sweep, lambda index: hardware)
    total = np.sum(list(counts.values()), axis=0).tolist()
    return {
        "acc_bits": hardware.array.acc_bits,
        "acc_overflow": hardware.array.acc_overflow,
        **dict(zip(COUNTS, total, strict=True)),
        "samples_changed": int((narrow != sweep.reference.outputs).any(axis=1).sum()),
        **scores(sweep, narrow),
        "layers": [
            {
                "index": index,
                "name": sweep.network.layers[index].name,
                **dict(zip(COUNTS, found.tolist(), strict=True)),
            }
            for index, found in counts.items()
        ],
    }


def run_layers(
    sweep: Sweep, machine_of: Callable[[int], Hardware]
) -> tuple[Array, dict[int, Array]]:
    """Run all samples, every layer on a hardware of its own.

    A sample that fits all its accumulators gives the reference; only the others are run. Where
    steps are spilled, all are.

    Parameters
    ----------
    sweep : Sweep
    machine_of : callable
        The hardware of the layer with this index.

    Returns
    -------
    outputs : (samples, codes) array
        First output.
    counts : dict of int to (4,) int array
        `COUNTS` of every layer that multiplies.
    """
    network, reference = sweep.network, sweep.reference
    counts = {index: np.zeros(len(COUNTS), dtype=np.int64) for index in reference.layers}
    overflows = np.full(sweep.samples.count, bool(sweep.hardware.array.spill_interval))
    for index, seen in reference.layers.items():
        overflows |= seen.sample_bits > machine_of(index).array.acc_bits
    outputs, chosen = reference.outputs.copy(), np.flatnonzero(overflows)
    parts = _batches(chosen)
    layers = {
        index: ArrayLayer(layer, network.tensors[layer.inputs[0]].shape, machine_of(index))
        for index, layer in enumerate(network.layers)
        if isinstance(layer, WeightedLayer)
    }

    def run(part: Array) -> tuple[Array, dict[int, OverflowCounts]]:
        batch = (array[part] for array in sweep.samples.arrays)
        inputs = dict(zip(network.inputs, batch, strict=True))
        work = NetworkValues(
            network, inputs, lambda index, x, output: layers[index].count_overflows(x, output)
        )
        found = work.run_all()
        return work.outputs[0], found

    for part, (codes, found) in zip(parts, map_shared(run, parts), strict=True):
        outputs[part] = codes.reshape(len(part), -1)
        for index, more in found.items():
            counts[index] += more.events, more.outputs_affected, more.transient, more.persistent
    return outputs, counts


def _batches(samples: Array) -> list[Array]:
    """Cut samples into parts of nearly one size, as many for each thread."""
    if samples.size == 0:
        return []
    parts = THREADS * ceil(samples.size / (THREADS * BATCH_SAMPLES))
    return np.array_split(samples, min(parts, samples.size))


def scores(sweep: Sweep, outputs: Array) -> Document:
    """Share of samples with the golden model's top-1, and with that of the labels."""
    choices = outputs.argmax(axis=1)
    accuracy = None if sweep.labels is None else float(np.mean(choices == sweep.labels))
    return {
        "top1_agreement": float(np.mean(choices == sweep.reference.outputs.argmax(axis=1))),
        "accuracy": accuracy,
    }


# -- the table ------------------------------------------------------------------------------------


def sweep_table(document: Document) -> RenderableType:
    """One row a width and rule, then the narrowest widths that change nothing; fits 80 columns."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("bits", justify="right")
    table.add_column("rule", no_wrap=True)
    measured = any(point.get("accuracy") is not None for point in document["points"])
    score, heading_of_score = (
        ("accuracy", "accuracy") if measured else ("top1_agreement", "same top-1")
    )
    headings = ("events", "outputs", "transient", "persistent", "changed", heading_of_score)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for point in document["points"]:
        table.add_row(
            str(point["acc_bits"]),
            point["acc_overflow"],
            *(human(point[name]) for name in COUNTS),
            f"{point['samples_changed']}/{document['samples']}",
            f"{100 * point[score]:.1f}%",
            style="green" if point["samples_changed"] == 0 else None,
        )
    return Group(Text(""), table, Text(_narrowest(document)))


def _narrowest(document: Document) -> str:
    """Name the narrowest accumulators down to which no sample changed."""
    parts = []
    for rule in RULES:
        safe = None
        for point in document["points"]:
            if point["acc_overflow"] == rule and point["samples_changed"]:
                break
            if point["acc_overflow"] == rule:
                safe = point["acc_bits"]
        text = "none of these widths" if safe is None else f"{safe} bits"
        parts.append(f"{text} ({rule})")
    return (
        f"outputs of these {document['samples']} samples stay the same down to"
        f" {' and '.join(parts)}; observed, not proved"
    )
