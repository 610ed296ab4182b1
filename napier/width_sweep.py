"""`napier widths --sweep`: what happens in accumulators narrower than the proved width."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
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
from golden.operators import OPERATORS
from golden.run import run as run_golden
from napier.loading import Samples
from napier.output import write_text
from napier.report import human
from simulator.hardware import Hardware
from simulator.values import run_weighted

Array = NDArray[Any]
Document = dict[str, Any]
Progress = Callable[[int, int, str], None]

SCHEMA = "napier.width_sweep/1"

ACC_BITS = (2, 48)
"""Narrowest and widest accumulator of the hardware."""

RULES = ("wrap", "saturate")

BATCH_SAMPLES = 64
"""Samples run at once."""

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
    """

    network: Network
    samples: Samples
    hardware: Hardware
    first: int
    last: int

    def points(self) -> Iterator[Hardware]:
        """Hardware of every point, the widest first."""
        for bits in range(self.last, self.first - 1, -1):
            for rule in RULES:
                array = self.hardware.array.model_copy(
                    update={"acc_bits": bits, "acc_overflow": rule}
                )
                yield self.hardware.model_copy(update={"array": array})

    def key(self) -> Document:
        """All that results depend on besides width and rule."""
        array = self.hardware.array
        parts = (self.network.tensors, self.network.layers, self.network.constants)
        return {
            "model": _digest(parts),
            "inputs": _digest(self.samples.arrays),
            "serial": self.hardware.serial,
            "spill_interval": array.spill_interval,
            "wide_acc_bits": array.wide_acc_bits if array.spill_interval else None,
        }


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
    document: Document = {
        "schema": SCHEMA,
        "key": sweep.key(),
        "samples": sweep.samples.count,
        "points": [],
    }
    finished = _earlier_points(document["key"], results_path)
    machines = list(sweep.points())
    reference: Array | None = None
    for done, machine in enumerate(machines):
        bits, rule = machine.array.acc_bits, machine.array.acc_overflow
        if progress is not None:
            progress(done, len(machines), f"{bits} bits, {rule}")
        if (bits, rule) not in finished:
            if reference is None:
                reference = _exact_outputs(sweep)
            finished[bits, rule] = _run_point(sweep, machine, reference)
            if results_path is not None:
                points = list(finished.values())
                text = json.dumps({**document, "points": points}, indent=1)
                write_text(results_path, text + "\n")
        document["points"].append(finished[bits, rule])
    return document


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


def _earlier_points(key: Document, path: str | None) -> dict[tuple[int, str], Document]:
    """Read the points of an earlier call by width and rule."""
    if path is None or not Path(path).exists():
        return {}
    try:
        earlier = json.loads(Path(path).read_text())
        if earlier["schema"] == SCHEMA and earlier["key"] == key:
            return {(each["acc_bits"], each["acc_overflow"]): each for each in earlier["points"]}
    except (ValueError, TypeError, KeyError, OSError):
        raise InputError(
            f"--results {path} does not hold the results of a sweep; name another file"
        ) from None
    raise InputError(
        f"--results {path} belongs to another model, input, projection or PE; name another file"
    )


# -- one point ------------------------------------------------------------------------------------


def _batches(sweep: Sweep) -> Iterator[list[Array]]:
    for start in range(0, sweep.samples.count, BATCH_SAMPLES):
        yield [array[start : start + BATCH_SAMPLES] for array in sweep.samples.arrays]


def _exact_outputs(sweep: Sweep) -> Array:
    """First output of the golden model for all samples, (samples, codes)."""
    outputs = [run_golden(sweep.network, batch).outputs[0] for batch in _batches(sweep)]
    return _rows(outputs)


def _rows(outputs: list[Array]) -> Array:
    return np.concatenate([codes.reshape(len(codes), -1) for codes in outputs])


def _run_point(sweep: Sweep, hardware: Hardware, exact: Array) -> Document:
    """Run all samples with one accumulator in every layer; sums go on as that leaves them."""
    counts: dict[int, Array] = {}
    outputs = []
    for batch in _batches(sweep):
        codes, found = _run_batch(sweep.network, batch, hardware)
        outputs.append(codes)
        for index, more in found.items():
            counts[index] = counts.get(index, 0) + more
    narrow = _rows(outputs)
    total = np.sum(list(counts.values()), axis=0).tolist()
    agreeing = narrow.argmax(axis=1) == exact.argmax(axis=1)
    return {
        "acc_bits": hardware.array.acc_bits,
        "acc_overflow": hardware.array.acc_overflow,
        **dict(zip(COUNTS, total, strict=True)),
        "samples_changed": int((narrow != exact).any(axis=1).sum()),
        "top1_agreement": float(agreeing.mean()),
        "layers": [
            {
                "index": index,
                "name": sweep.network.layers[index].name,
                **dict(zip(COUNTS, found.tolist(), strict=True)),
            }
            for index, found in counts.items()
        ],
    }


def _run_batch(
    network: Network, batch: list[Array], hardware: Hardware
) -> tuple[Array, dict[int, Array]]:
    """First output of a batch, and the counts of every layer that multiplies."""
    values = dict(zip(network.inputs, batch, strict=True))
    for constant in network.constants:
        shape = (len(batch[0]), *constant.codes.shape[1:])
        values[constant.tensor] = np.broadcast_to(constant.codes, shape)
    counts: dict[int, Array] = {}
    for index, layer in enumerate(network.layers):
        arrays = [values[tensor] for tensor in layer.inputs]
        (target,) = layer.outputs
        output = network.tensors[target]
        if isinstance(layer, WeightedLayer):
            values[target], record = run_weighted(layer, arrays[0], output, hardware)
            counts[index] = np.array([getattr(record, name) for name in COUNTS])
        else:
            values[target] = OPERATORS[type(layer)](layer, arrays, output)
    return values[network.outputs[0]], counts


# -- the table ------------------------------------------------------------------------------------


def sweep_table(document: Document) -> RenderableType:
    """One row a width and rule, then the narrowest widths that change nothing; fits 80 columns."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("bits", justify="right")
    table.add_column("rule", no_wrap=True)
    for heading in ("events", "outputs", "transient", "persistent", "changed", "same top-1"):
        table.add_column(heading, justify="right", no_wrap=True)
    for point in document["points"]:
        table.add_row(
            str(point["acc_bits"]),
            point["acc_overflow"],
            *(human(point[name]) for name in COUNTS),
            f"{point['samples_changed']}/{document['samples']}",
            f"{100 * point['top1_agreement']:.1f}%",
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
