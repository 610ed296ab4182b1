"""Tables of a run for people and for spreadsheets, from the `napier.run/1` document alone."""

from __future__ import annotations

import csv
import io
from collections import Counter
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Document = dict[str, Any]

LONGEST_NAME = 40
"""Names are cut to this before the table cuts them to the terminal."""

LARGEST_EXACT_CYCLES = 10**9
"""From here on cycles are rounded in the table; JSON and CSV always have all digits."""

SHORT_OPS = {
    "average_pool": "avg pool",
    "max_pool": "max pool",
    "resize_nearest": "resize",
}

WAITS = {
    "stall_descriptor": "program",
    "stall_weights": "weights",
    "stall_activations": "inputs",
    "stall_outputs": "outputs",
    "stall_feed": "feed",
}
"""What the engine waits for, by cause of the cycles."""


def human(value: float) -> str:
    """Three significant digits with k, M, G, T, P: 950, 1.25k, 12.5M."""
    for factor, suffix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor * 0.9995:
            return f"{value / factor:.3g}{suffix}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def cycles_text(cycles: int) -> str:
    """All digits of a count that the table has room for, three of a larger one."""
    return str(cycles) if cycles < LARGEST_EXACT_CYCLES else human(cycles)


def human_energy(energy_pj: float) -> str:
    """Energy with its unit: 950 pJ, 12.5 nJ, 3.1 uJ, 2.4 mJ."""
    for factor, unit in ((1e15, "kJ"), (1e12, "J"), (1e9, "mJ"), (1e6, "uJ"), (1e3, "nJ")):
        if energy_pj >= factor * 0.9995:
            return f"{energy_pj / factor:.3g} {unit}"
    return f"{energy_pj:.3g} pJ"


def human_seconds(seconds: float) -> str:
    """Time with its unit: 1010 s, 4.55 ms."""
    if seconds >= 999.5:
        return f"{seconds:.0f} s"
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= factor * 0.9995:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def shorten(name: str, width: int) -> str:
    """Keep both ends of a long name."""
    if len(name) <= width:
        return name
    tail = (width - 1) // 2
    return name[: width - 1 - tail] + "…" + name[len(name) - tail :]


def largest_stall(layer: Document) -> str:
    """Name the largest cause other than compute and its share of the layer's cycles.

    A layer of the host has nothing but what the accelerator waits for.
    """
    if layer.get("unit") == "host":
        return "host"
    waits = {
        cause: cycles
        for cause, cycles in layer["cycles_by_cause"].items()
        if cause not in ("compute", "vector") and cycles
    }
    if not waits or not layer["cycles"]:
        return ""
    cause = max(waits, key=lambda name: waits[name])
    return f"{WAITS.get(cause, cause)} {100 * waits[cause] / layer['cycles']:.0f}%"


def accumulator_text(accumulator: Document | None, bits: int) -> Text:
    """`17/24`: bits needed of bits there; in red with the count where something overflowed."""
    if accumulator is None:
        return Text("")
    text = f"{accumulator['bits_needed']}/{bits}"
    if accumulator["events"]:
        return Text(f"{text} {human(accumulator['events'])}!", style="bold red")
    return Text(text, style="green")


def sum_bits(document: Document) -> int:
    """Bits that hold whole sums: of the wide accumulators where the others spill into them."""
    array = document["hardware"]["array"]
    return int(array["wide_acc_bits"] if array["spill_interval"] else array["acc_bits"])


def operation(layer: dict[str, Any]) -> str:
    """Short name of a layer's operator, and of the Winograd form that computes it."""
    name = SHORT_OPS.get(layer["op"], layer["op"])
    return name if layer["algorithm"] == "direct" else f"{name} {layer['algorithm']}"


def run_table(document: Document) -> RenderableType:
    """Per-layer table, totals and the verdict on accumulators; fits 80 columns."""
    table = Table(
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_footer=True,
        expand=True,
    )
    totals = document["totals"]
    table.add_column("#", justify="right", style="dim", no_wrap=True)
    table.add_column("layer", "total", ratio=1, no_wrap=True)  # takes what the others leave
    table.add_column("op", no_wrap=True)
    table.add_column("MACs", human(totals["macs"]), justify="right", no_wrap=True)
    table.add_column("cycles", cycles_text(totals["cycles"]), justify="right", no_wrap=True)
    table.add_column("util", justify="right", no_wrap=True)
    table.add_column("waits for", no_wrap=True)
    energy = human_energy(totals["energy_pj"])
    table.add_column("energy", energy, justify="right", no_wrap=True)
    table.add_column("acc bits", justify="right", no_wrap=True)
    bits = sum_bits(document)
    for layer in document["layers"]:
        table.add_row(
            str(layer["index"]),
            shorten(layer["name"], LONGEST_NAME),
            operation(layer),
            human(layer["macs"]) if layer["macs"] else "",
            cycles_text(layer["cycles"]),
            f"{100 * layer['utilization']:.0f}%" if layer["macs"] else "",
            largest_stall(layer),
            human_energy(layer["energy_pj"]["total"]),
            accumulator_text(layer["accumulator"], bits),
        )
    units = document["hardware"].get("winograd", {}).get("forms", "none")
    algorithms = [] if units == "none" else [winograd_text(document)]
    return Group(Text(headline(document)), table, *algorithms, verdict(document))


def headline(document: Document) -> str:
    """Say what ran on what."""
    model, hardware, totals = document["model"], document["hardware"], document["totals"]
    lines = [
        f"{model['name']} on {hardware['name']}",
        f"{totals['cycles']} cycles, {human_seconds(totals['seconds'])} and "
        f"{human_energy(totals['energy_pj'])} an inference "
        f"(energy table {document['energy_table']['name']})",
    ]
    if model.get("weights", "as-is") != "as-is":
        lines.append(f"weights projected to {model['weights']}: another network than the file's")
    if model.get("inputs"):
        lines.append(f"accumulators observed on {model['inputs']}")
    return "\n".join(lines)


def winograd_text(document: Document) -> Text:
    """Count the layers of each Winograd form, and the direct ones of the array by reason."""
    layers = [layer for layer in document["layers"] if layer["unit"] == "array"]
    forms = Counter(layer["algorithm"] for layer in layers if layer["algorithm"] != "direct")
    reasons = Counter(layer["algorithm_reason"] for layer in layers if layer["algorithm_reason"])
    parts = [f"{name} {count}" for name, count in sorted(forms.items())]
    parts += [f"direct {count} ({reason})" for reason, count in reasons.most_common()]
    return Text(f"layers by algorithm: {', '.join(parts)}")


def verdict(document: Document) -> Text:
    """Say whether the accumulators held, in one or two lines."""
    records = [
        (layer["name"], layer["accumulator"])
        for layer in document["layers"]
        if layer["accumulator"] is not None
    ]
    if not records:
        return Text("accumulators were not observed (--no-values)")
    failed = [(name, record) for name, record in records if record["events"]]
    if not failed:
        name, widest = max(records, key=lambda item: item[1]["bits_needed"])
        return Text(
            f"accumulators held: the widest sum needs {widest['bits_needed']} of "
            f"{sum_bits(document)} bits ({shorten(name, 30)})",
            style="green",
        )
    outputs = sum(record["outputs_affected"] for _, record in failed)
    direct = {layer["name"] for layer in document["layers"] if layer["algorithm"] == "direct"}
    wrapped = sum(name not in direct for name, _ in failed)
    harmless = (
        f"; in {wrapped} of them sums of a transform wrapped, which may leave outputs exact"
        " (docs/winograd_unit.md, W8)"
    )
    return Text(
        f"accumulators OVERFLOWED in {len(failed)} of {len(records)} layers: "
        f"{human(document['totals']['overflow_events'])} events in {human(outputs)} outputs; "
        f"{_way_out(document, max(record['bits_needed'] for _, record in failed))}"
        f"{harmless if wrapped else ''}",
        style="bold red",
    )


def _way_out(document: Document, needed: int) -> str:
    """Say what is known of the width that holds all sums, of which `needed` bits were seen.

    Codes behind an overflow are wrong, and the right ones have other sums. Of sums between spills
    nothing is recorded.
    """
    if document["hardware"]["array"]["spill_interval"]:
        return "`napier widths` proves how many bits hold"
    return f"these sums need {needed} bits, `napier widths` proves how many always hold"


def run_csv(document: Document) -> str:
    """One row a layer; nested values become columns like `cycles_compute`, `energy_pj_sram`."""
    rows = [_flat(layer) for layer in document["layers"]]
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _flat(layer: Document) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, value in layer.items():
        if isinstance(value, dict):
            prefix = key.removesuffix("_by_cause")
            row.update({f"{prefix}_{name}": item for name, item in value.items()})
        elif isinstance(value, list):
            row[key] = "x".join(map(str, value))
        elif value is not None:
            row[key] = value
    return row


def hardware_table(machines: list[Any]) -> RenderableType:
    """One row a preset: PE, array, feed and lookahead, accumulator, buffers, external memory."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("PE", no_wrap=True)
    for heading in ("array", "feed", "acc bits", "KiB", "B/cyc"):
        table.add_column(heading, no_wrap=True, justify="right")
    for machine in machines:
        array, buffers = machine.array, machine.buffers
        sizes = (buffers.activation_bytes, buffers.weight_bytes, buffers.output_bytes)
        table.add_row(
            machine.name,
            machine.pe.kind + (f" x{machine.pe.terms}" if machine.pe.terms > 1 else ""),
            f"{array.rows}x{array.cols}",
            f"{array.feed}/{array.lookahead}",
            f"{array.acc_bits} {array.acc_overflow}",
            "/".join(f"{size / 1024:g}" for size in sizes),
            str(machine.dram.bytes_per_cycle),
        )
    return table
