"""Figure of `napier widths`, from the document alone; Matplotlib is imported on use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napier.report import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Document = dict[str, Any]

INCHES_PER_LAYER = 0.26
LEGEND: dict[str, Any] = {"fontsize": 8, "frameon": False}
PROVED_COLOR, HARDWARE_COLOR, OBSERVED_COLOR = "#2f6690", "#bc4b51", "#8cb369"
BOUNDS = {
    "datatype_bits": ("datatype bound", "s", "#adb5bd", 80),
    "l1_bits": ("l1 bound", "D", "#f4a259", 56),
    "needed_bits": ("exact", "o", PROVED_COLOR, 36),
    "observed_bits": ("observed", "^", OBSERVED_COLOR, 22),
}
"""Legend, marker, colour and area of each width of a layer; where they meet, all are seen."""


def widths_figure(document: Document) -> Figure:
    """Bounds of every layer; beside them the sums of one layer where the document has them."""
    from matplotlib.figure import Figure

    histogram = document.get("histogram")
    height = max(3.6, 1.7 + INCHES_PER_LAYER * len(document["layers"]))
    figure = Figure(figsize=(7 if histogram is None else 12, height), layout="constrained")
    if histogram is None:
        draw_bounds(figure.subplots(), document)
    else:
        bounds, sums = figure.subplots(1, 2)
        draw_bounds(bounds, document)
        draw_sums(sums, document)
    figure.suptitle(f"{document['model']['name']}: accumulator widths")
    return figure


def needed_bits(layer: Document, hardware: Document | None) -> int:
    """Bits that the certificate asks of an accumulator: of the hardware's PE where one is given."""
    bits: int = layer["exact_bits"]
    if hardware is not None:
        bits = layer["hardware"]["bits_needed"]
    return bits


def draw_bounds(axes: Axes, document: Document) -> None:
    """Draw a row for each layer: what each kind of bound says, and what the samples needed."""
    from matplotlib.ticker import MaxNLocator

    layers, hardware = document["layers"], document["hardware"]
    rows = [{**layer, "needed_bits": needed_bits(layer, hardware)} for layer in layers]
    for position, row in enumerate(rows):
        widths = [row[name] for name in BOUNDS if row[name] is not None]
        axes.plot([min(widths), max(widths)], [position] * 2, color="#dddddd", zorder=1)
    for name, (label, marker, color, area) in BOUNDS.items():
        points = [(row[name], y) for y, row in enumerate(rows) if row[name] is not None]
        if points:
            xs, ys = zip(*points, strict=True)
            axes.scatter(xs, ys, marker=marker, s=area, color=color, label=label, zorder=2)
    if hardware is not None:
        label = hardware["name"]
        axes.axvline(
            hardware["acc_bits"], color=HARDWARE_COLOR, linestyle="--", label=label, zorder=0
        )
    names = [f"{layer['index']} {shorten(layer['name'], 22)}" for layer in layers]
    axes.set_yticks(range(len(layers)), names)
    axes.tick_params(axis="y", labelsize=8, length=0)
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("accumulator, bits (widest channel)")
    axes.grid(True, axis="x", linewidth=0.4, alpha=0.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5, columnspacing=1, **LEGEND)


def draw_sums(axes: Axes, document: Document) -> None:
    """Draw how many final sums of one layer need how many bits, negative ones to the left."""
    histogram, hardware = document["histogram"], document["hardware"]
    (layer,) = (x for x in document["layers"] if x["index"] == histogram["index"])
    bits = histogram["bits"]
    axes.bar([-b for b in bits], histogram["negative"], color=OBSERVED_COLOR, width=0.85)
    axes.bar(bits, histogram["not_negative"], color=OBSERVED_COLOR, width=0.85)
    basis = "proved" if document["proof"] else "needed (not a proof)"
    needed, available = sum_limits(layer, hardware)
    draw_limit(axes, needed, PROVED_COLOR, "-", f"{basis}: {needed} bits")
    if available is not None:
        label = f"{hardware['name']}: {available} bits"
        draw_limit(axes, available, HARDWARE_COLOR, "--", label)
    widest = max(needed, available or 0, bits[-1])
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.5)
    axes.set_xlim(-widest - 1.2, widest + 1.2)
    ticks = [*range(-(widest // 4) * 4, -3, 4), *range(4, widest + 1, 4)]
    axes.set_xticks(ticks, [str(abs(tick)) for tick in ticks])
    name = shorten(layer["name"], 20)
    axes.set_xlabel(f"bits that a final sum of {name} needs (negative left, positive right)")
    axes.set_ylabel("sums")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, **LEGEND)


def sum_limits(layer: Document, hardware: Document | None) -> tuple[int, int | None]:
    """Bits that hold the whole sums by the certificate, and those of the hardware.

    Where a narrow accumulator is spilled, it is the wide one that holds them.
    """
    if hardware is None:
        return layer["exact_bits"], None
    if hardware["spill_interval"]:
        return layer["hardware"]["wide_bits_needed"], hardware["wide_acc_bits"]
    return layer["hardware"]["bits_needed"], hardware["acc_bits"]


def draw_limit(axes: Axes, bits: int, color: str, style: str, label: str) -> None:
    """Mark where an accumulator of `bits` ends, on both sides."""
    axes.axvline(bits + 0.5, color=color, linestyle=style, label=label)
    axes.axvline(-bits - 0.5, color=color, linestyle=style)
