"""Figures of a run, from the `napier.run/1` document alone; Matplotlib is imported on use."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from napier.report import human, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Document = dict[str, Any]

CAUSE_COLORS = {
    "compute": "#2f6690",
    "vector": "#81c3d7",
    "fill": "#d9dcd6",
    "stall_feed": "#f4a259",
    "drain": "#8cb369",
    "control": "#6c757d",
    "stall_descriptor": "#ffd166",
    "stall_weights": "#bc4b51",
    "stall_activations": "#e07a5f",
    "stall_outputs": "#5b3758",
}
CAUSE_LABELS = {
    "vector": "host",
    "stall_feed": "waits for feed",
    "stall_descriptor": "waits for program",
    "stall_weights": "waits for weights",
    "stall_activations": "waits for activations",
    "stall_outputs": "waits for outputs",
}
INCHES_PER_LAYER = 0.24
LEGEND: dict[str, Any] = {"fontsize": 8, "frameon": False}


def run_figure(document: Document) -> Figure:
    """Per-layer cycles by cause beside the roofline."""
    from matplotlib.figure import Figure

    layers = [layer for layer in document["layers"] if layer["cycles"]]
    height = max(3.6, 1.6 + INCHES_PER_LAYER * len(layers))
    figure = Figure(figsize=(11, height), layout="constrained")
    bars, roof = figure.subplots(1, 2, width_ratios=(1.25, 1))
    draw_cycles(bars, layers)
    figure.legend(*bars.get_legend_handles_labels(), loc="outside lower left", ncols=5, **LEGEND)
    draw_roofline(roof, document)
    model, hardware = document["model"]["name"], document["hardware"]["name"]
    figure.suptitle(f"{model} on {hardware}: {document['totals']['cycles']:,} cycles")
    return figure


def draw_cycles(axes: Axes, layers: list[Document]) -> None:
    """Stacked horizontal bars: the cycles of each layer, split by cause."""
    positions = range(len(layers))
    left = [0] * len(layers)
    for cause, color in CAUSE_COLORS.items():
        widths = [layer["cycles_by_cause"].get(cause, 0) for layer in layers]
        if not any(widths):
            continue
        label = CAUSE_LABELS.get(cause, cause)
        axes.barh(positions, widths, left=left, color=color, label=label, height=0.78)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    labels = [f"{layer['index']} {shorten(layer['name'], 22)}" for layer in layers]
    axes.set_yticks(positions, labels)
    axes.tick_params(axis="y", labelsize=8, length=0)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.xaxis.set_major_formatter(lambda value, _: human(int(value)))
    axes.set_xlabel("cycles")
    axes.spines[["top", "right", "left"]].set_visible(False)


def draw_roofline(axes: Axes, document: Document) -> None:
    """MACs a cycle against MACs a byte of external memory; each dot is a layer that multiplies."""
    hardware = document["hardware"]
    peak = hardware["array"]["rows"] * hardware["array"]["cols"]
    bandwidth = hardware["dram"]["bytes_per_cycle"]
    layers = [layer for layer in document["layers"] if layer["macs"] and layer["dram_bytes"]]
    intensities = [layer["macs"] / layer["dram_bytes"] for layer in layers]
    low = min([*intensities, peak / bandwidth]) / 2
    high = max([*intensities, peak / bandwidth]) * 2
    ridge = peak / bandwidth
    axes.plot([low, ridge, high], [low * bandwidth, peak, peak], color="#444444", linewidth=1.5)
    for op, marker in (("conv", "o"), ("depthwise", "^"), ("dense", "s")):
        points = [
            (x, layer["macs"] / layer["cycles"])
            for x, layer in zip(intensities, layers, strict=True)
            if layer["op"] == op
        ]
        if points:
            xs, ys = zip(*points, strict=True)
            axes.scatter(xs, ys, marker=marker, s=36, alpha=0.8, label=op)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("MACs per byte of external memory")
    axes.set_ylabel("MACs per cycle")
    axes.annotate(
        f"{peak} PEs",
        (high, peak),
        ha="right",
        va="bottom",
        fontsize=8,
        xytext=(0, 3),
        textcoords="offset points",
    )
    middle = (low * ridge) ** 0.5
    axes.text(
        middle,
        middle * bandwidth * 1.25,
        f"{bandwidth} bytes/cycle",
        ha="center",
        fontsize=8,
        rotation=math.degrees(math.atan(bandwidth)),
        rotation_mode="anchor",
        transform_rotates_text=True,
    )
    axes.grid(True, which="major", linewidth=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    if layers:
        axes.legend(loc="lower right", **LEGEND)
