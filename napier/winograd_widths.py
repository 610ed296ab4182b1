"""`napier widths --winograd`: exact widths of the stages of layers that a transform computes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from golden.certificates import Extreme
from golden.errors import UnsupportedError
from golden.network import Conv2D, Network, WeightedLayer
from golden.ranges import Range
from golden.winograd import (
    Transform,
    TransformName,
    WinogradCertificate,
    certify_winograd,
    choose_named,
    stages_of,
    weight_terms,
    winograd_witness,
)
from napier.output import replacing
from napier.report import LONGEST_NAME, shorten

Document = dict[str, Any]
Progress = Callable[[int, int, str], None]

EXTREMES: tuple[Extreme, ...] = ("lo", "hi")

HEADINGS = {
    "input": "V",
    "weight": "U",
    "product": "U*V",
    "sum": "sum",
    "output_first": "A'M",
    "output": "Z",
    "direct": "y",
}
"""Columns of the table, by stage."""


def add_winograd(
    document: Document,
    network: Network,
    name: TransformName,
    witness_folder: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Add the Winograd form of every layer to a `napier.widths/1` document.

    Parameters
    ----------
    document : dict
        From `napier.widths.widths_document`; its layers get a key ``winograd``.
    network : Network
    name : TransformName
    witness_folder : str or None
        Where files of witnesses go; it exists.
    progress : callable or None
        Called as (done, total, what).

    Raises
    ------
    OutputError
        A file that cannot be written.
    """
    document["winograd"] = name
    for done, entry in enumerate(document["layers"]):
        if progress is not None:
            progress(done, len(document["layers"]), f"{entry['name']}, Winograd")
        layer = network.layers[entry["index"]]
        assert isinstance(layer, WeightedLayer)
        zero = layer.input_zero_point
        codes = (entry["x_min"] + zero, entry["x_max"] + zero)
        entry["winograd"] = _entry(network, entry["index"], layer, codes, name, witness_folder)


def _entry(
    network: Network,
    index: int,
    layer: WeightedLayer,
    codes: Range,
    name: TransformName,
    witness_folder: str | None,
) -> Document:
    choice = choose_named(layer, name)
    if choice.transform is None or not isinstance(layer, Conv2D):
        return {"transform": "direct", "reason": choice.reason}
    source = network.tensors[layer.inputs[0]]
    try:
        certificate = certify_winograd(layer, source, codes, choice.transform)
    except UnsupportedError:
        return {"transform": "direct", "reason": f"{choice.name} leaves 64 bits"}
    file = None
    if witness_folder is not None:
        file = _write_witness(network, index, layer, codes, choice.transform, Path(witness_folder))
    transform = choice.transform
    return {
        "transform": transform.name,
        "reason": "",
        "products": transform.products,
        "saving": float(transform.saving),
        "divisor": transform.divisor,
        "shift": transform.shift,
        "wrapped_bits": int(certificate.wrapped_bits.max()),
        "terms": _terms_entry(layer, transform),
        "stages": {stage: _stage_entry(certificate, stage) for stage in certificate.lo},
        "witness_file": file,
        "channels": _channel_entries(certificate),
    }


def _terms_entry(layer: Conv2D, transform: Transform) -> Document:
    terms = weight_terms(transform, layer.weights.astype(np.int64) - layer.weight_zero_point)
    return {**asdict(terms), "saving": terms.saving}


def _stage_entry(certificate: WinogradCertificate, stage: str) -> Document:
    return {
        "bits": int(certificate.bits(stage).max()),
        "lo": int(certificate.lo[stage].min()),
        "hi": int(certificate.hi[stage].max()),
    }


def _channel_entries(certificate: WinogradCertificate) -> list[Document]:
    """Bits and ends of every stage that depends on the output channel."""
    columns: dict[str, list[int]] = {"wrapped_bits": certificate.wrapped_bits.tolist()}
    for stage in certificate.lo:
        if not stage.startswith("input"):
            columns[f"{stage}_bits"] = certificate.bits(stage).tolist()
            columns[f"{stage}_lo"] = certificate.lo[stage].tolist()
            columns[f"{stage}_hi"] = certificate.hi[stage].tolist()
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _write_witness(
    network: Network, index: int, layer: Conv2D, codes: Range, transform: Transform, folder: Path
) -> str:
    """Write inputs that take every stage to its ends; the file's path."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", layer.name)[-LONGEST_NAME:]
    path = str(folder / f"winograd_{index:03d}_{name}.npz")
    source = network.tensors[layer.inputs[0]]
    arrays: dict[str, Any] = {
        "layer": np.array(layer.name),
        "transform": np.array(transform.name),
    }
    for stage in stages_of(transform):
        for extreme in EXTREMES:
            found = winograd_witness(layer, source, codes, transform, stage, extreme)
            end = f"{stage}_{extreme}"
            arrays[f"codes_{end}"] = found.codes
            arrays[f"channel_{end}"] = np.array(found.channel)
            arrays[f"tile_{end}"] = np.array(found.tile)
            arrays[f"register_{end}"] = np.array(found.register)
            arrays[f"in_channel_{end}"] = np.array(found.in_channel)
            arrays[f"value_{end}"] = np.array(found.value)
    with replacing(path) as file:
        np.savez_compressed(file, **arrays)
    return path


# -- the table ------------------------------------------------------------------------------------


def winograd_table(document: Document) -> RenderableType:
    """One row a layer that a transform computes, then why the others are direct; 80 columns."""
    layers = document["layers"]
    taken = [layer for layer in layers if layer["winograd"]["transform"] != "direct"]
    parts: list[RenderableType] = [Text(f"\n{_headline(document, taken)}")]
    if taken:
        parts.append(_rows(taken))
    direct = [layer["winograd"] for layer in layers if layer not in taken]
    reasons = Counter(entry["reason"] for entry in direct)
    parts += [
        Text(f"direct: {count} layer{'s' * (count > 1)}, {reason}", style="dim")
        for reason, count in reasons.items()
    ]
    return Group(*parts)


def _headline(document: Document, taken: list[Document]) -> str:
    if not taken:
        return f"Winograd {document['winograd']}: no layer"
    widest = max(taken, key=lambda layer: layer["winograd"]["wrapped_bits"])
    return (
        f"Winograd {document['winograd']}: bits of each stage, widest channel; all wrapped,"
        f" {widest['winograd']['wrapped_bits']} suffice"
    )


def _rows(layers: list[Document]) -> Table:
    table = Table(
        box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False, expand=True
    )
    table.add_column("#", justify="right", style="dim", no_wrap=True)
    table.add_column("layer", ratio=1, no_wrap=True)
    table.add_column("transform", no_wrap=True)
    for heading in (*HEADINGS.values(), "wrap", "terms"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in layers:
        entry = layer["winograd"]
        stages = entry["stages"]
        table.add_row(
            str(layer["index"]),
            shorten(layer["name"], LONGEST_NAME),
            entry["transform"].removesuffix(" complex"),
            *(str(stages[stage]["bits"]) if stage in stages else "-" for stage in HEADINGS),
            str(entry["wrapped_bits"]),
            f"{entry['terms']['saving']:.2f}x",
        )
    return table
