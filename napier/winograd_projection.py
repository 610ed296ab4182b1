"""`napier widths --winograd-project`: few terms in the Winograd domain, and the error they cost."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from golden.errors import InputError
from golden.network import Conv2D, Network
from golden.run import run as run_golden
from golden.winograd import (
    Method,
    Transform,
    choose_named,
    project_transformed,
    projected_layer,
    projected_terms,
    weight_terms,
)
from napier.loading import Samples
from napier.report import LONGEST_NAME, shorten

Array = NDArray[Any]
Document = dict[str, Any]
Progress = Callable[[int, int, str], None]

SAMPLES = 16
"""Samples on which errors are measured, at most."""


class Projection(NamedTuple):
    """What transformed weights become: `Method` of so many terms, and how it was asked for."""

    text: str
    method: Method
    terms: int


def parse_projection(method: str) -> Projection:
    """Read "nhot:N", N from 1 to 4, or "ternary".

    Raises
    ------
    InputError
        Anything else.
    """
    kind, _, terms = method.partition(":")
    if kind == "nhot" and terms in ("1", "2", "3", "4"):
        return Projection(method, "nhot", int(terms))
    if method == "ternary":
        return Projection(method, "ternary", 1)
    raise InputError(
        f"--winograd-project {method} is no projection of transformed weights; use nhot:N with N"
        " from 1 to 4, or ternary"
    )


def add_projection(
    document: Document,
    network: Network,
    projection: Projection,
    samples: Samples,
    progress: Progress | None = None,
) -> None:
    """Project the transformed weights of every Winograd layer of a `napier.widths/1` document.

    Parameters
    ----------
    document : dict
        After `napier.winograd_widths.add_winograd`; its Winograd layers get a key ``projected``.
    network : Network
    projection : Projection
    samples : Samples
        For the errors of the accumulators; at most `SAMPLES` are run.
    progress : callable or None
        Called as (done, total, what).
    """
    document["winograd_projection"] = projection.text
    arrays = [array[:SAMPLES] for array in samples.arrays]
    tensors = run_golden(network, arrays, keep_tensors=True).tensors
    for done, entry in enumerate(document["layers"]):
        if progress is not None:
            progress(done, len(document["layers"]), f"{entry['name']}, projected")
        layer = network.layers[entry["index"]]
        if isinstance(layer, Conv2D) and entry["winograd"]["transform"] != "direct":
            transform = choose_named(layer, document["winograd"]).transform
            assert transform is not None
            codes = tensors[layer.inputs[0]]
            entry["winograd"]["projected"] = _entry(layer, codes, transform, projection)


def _entry(layer: Conv2D, codes: Array, transform: Transform, projection: Projection) -> Document:
    weights = layer.weights.astype(np.int64) - layer.weight_zero_point
    projected = project_transformed(transform, weights, projection.method, projection.terms)
    exact = weight_terms(transform, weights)
    result = projected_layer(layer, codes, transform, projected)
    return {
        "direct_terms_per_output": exact.direct_per_output,
        "exact_terms_per_output": exact.per_output,
        "terms_per_output": projected_terms(transform, projected),
        "weight_sqnr_db": _finite(result.weight_sqnr_db),
        "output_sqnr_db": _finite(result.output_sqnr_db),
    }


def _finite(decibels: float) -> float | None:
    """None where nothing is off, which JSON has no number for."""
    return decibels if isfinite(decibels) else None


def projection_table(document: Document) -> RenderableType:
    """One row a layer that a transform computes; fits 80 columns."""
    table = Table(
        box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False, expand=True
    )
    table.add_column("#", justify="right", style="dim", no_wrap=True)
    table.add_column("layer", ratio=1, no_wrap=True)
    for heading in ("direct", "exact U", "projected", "error of U", "of the sums"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in document["layers"]:
        found = layer["winograd"].get("projected")
        if found is not None:
            table.add_row(
                str(layer["index"]),
                shorten(layer["name"], LONGEST_NAME),
                f"{found['direct_terms_per_output']:.2f}",
                f"{found['exact_terms_per_output']:.2f}",
                f"{found['terms_per_output']:.2f}",
                *(_decibels(found[f"{what}_sqnr_db"]) for what in ("weight", "output")),
            )
    headline = (
        f"U projected to {document['winograd_projection']}: terms an output and input channel,"
        " signal to error"
    )
    return Group(Text(f"\n{headline}"), table)


def _decibels(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f} dB"
