"""`napier widths --orders`: the same sums in other orders, below the proved width.

At the proved width the order does not matter; below it, it decides how often a sum that fits in the
end leaves the accumulator on the way. Every layer gets the golden model's activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from golden.network import Conv2D, WeightedLayer
from golden.run import run as run_golden
from napier.report import human
from napier.width_sweep import Results, Sweep
from simulator.certificate_kernels import COUNTS, ORDERS, RULES, compare_orders

Array = NDArray[Any]
Document = dict[str, Any]
Progress = Callable[[int, int, str], None]

SECONDS_BETWEEN_WRITES = 1


def orders_document(
    sweep: Sweep, results_path: str | None = None, progress: Progress | None = None
) -> list[Document]:
    """Count overflows of every order, rule and width of a sweep.

    Parameters
    ----------
    sweep : Sweep
        Its network, samples and widths; every step adds a product.
    results_path : str or None
        The results of the sweep; holds the counts of the samples that are done as well.
    progress : callable or None
        Called as (done, total, what).

    Returns
    -------
    list of dict
        acc_bits, acc_overflow, order, and the counts over all outputs of all layers and samples:
        events, outputs_affected, transient, persistent, outputs_wrong (another final sum), and
        transient_removed: share of the declared order's transient overflows that are gone.

    Raises
    ------
    InputError
        Where the results are another sweep's, or none.
    OutputError
        Where the results cannot be written.
    """
    results = Results(sweep, results_path)
    acc_bits = np.arange(sweep.last, sweep.first - 1, -1)
    state = results.document["orders"]
    if state is None or (state["first"], state["last"]) != (sweep.first, sweep.last):
        shape = (len(acc_bits), len(RULES), len(ORDERS), len(COUNTS))
        state = {"first": sweep.first, "last": sweep.last, "samples": 0, "counts": np.zeros(shape)}
    counts = np.array(state["counts"], dtype=np.int64)
    written = monotonic()
    for sample in range(state["samples"], sweep.samples.count):
        if progress is not None:
            progress(sample, sweep.samples.count, "orders of addition")
        _add_sample(sweep, sample, acc_bits, counts)
        results.document["orders"] = {**state, "samples": sample + 1, "counts": counts.tolist()}
        if sample + 1 == sweep.samples.count or monotonic() > written + SECONDS_BETWEEN_WRITES:
            results.write()
            written = monotonic()
    return [
        {
            "acc_bits": int(bits),
            "acc_overflow": rule,
            "order": order,
            **dict(zip(COUNTS, counts[i, j, k].tolist(), strict=True)),
            "transient_removed": _removed(counts[i, j, :, COUNTS.index("transient")], k),
        }
        for i, bits in enumerate(acc_bits)
        for j, rule in enumerate(RULES)
        for k, order in enumerate(ORDERS)
    ]


def _removed(transient: Array, order: int) -> float | None:
    """Share of the declared order's transient overflows that another order does not have."""
    declared = int(transient[ORDERS.index("declared")])
    return 1 - int(transient[order]) / declared if declared else None


def _add_sample(sweep: Sweep, sample: int, acc_bits: Array, counts: Array) -> None:
    """Add what every layer does with one sample."""
    batch = [array[sample : sample + 1] for array in sweep.samples.arrays]
    tensors = run_golden(sweep.network, batch, keep_tensors=True).tensors
    for layer in sweep.network.layers:
        if isinstance(layer, WeightedLayer):
            for operands, weights in _products(layer, tensors[layer.inputs[0]]):
                compare_orders(operands, weights, acc_bits, counts)


def _products(layer: WeightedLayer, x: Array) -> Iterator[tuple[Array, Array]]:
    """Per group of channels, what its outputs multiply: (pixels, taps) and (channels, taps)."""
    weights = layer.weights.astype(np.int64) - layer.weight_zero_point
    operands = x.astype(np.int64) - layer.input_zero_point
    if not isinstance(layer, Conv2D):
        yield operands.reshape(-1, weights.shape[1]), weights
        return
    K, R, S, C = weights.shape
    (sy, sx), (dy, dx), pad = layer.stride, layer.dilation, layer.padding
    image = np.pad(operands, ((0, 0), (pad.top, pad.bottom), (pad.left, pad.right), (0, 0)))
    reach = ((R - 1) * dy + 1, (S - 1) * dx + 1)
    windows = np.lib.stride_tricks.sliding_window_view(image, reach, axis=(1, 2))
    taps = np.moveaxis(windows[:, ::sy, ::sx, :, ::dy, ::dx], 3, -1)  # (N, P, Q, R, S, channels)
    for group, block in enumerate(weights.reshape(layer.groups, -1, R * S * C)):
        seen = taps[..., group * C : (group + 1) * C]
        yield np.ascontiguousarray(seen).reshape(-1, R * S * C), block


def orders_table(points: list[Document]) -> RenderableType:
    """One row a width, rule and order; fits 80 columns."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("bits", justify="right")
    table.add_column("rule", no_wrap=True)
    table.add_column("order", no_wrap=True)
    for heading in ("events", "outputs", "transient", "removed", "persistent", "wrong"):
        table.add_column(heading, justify="right", no_wrap=True)
    for point in points:
        removed, texts = point["transient_removed"], [human(point[name]) for name in COUNTS]
        texts.insert(3, "-" if removed is None else f"{100 * removed:.0f}%")
        table.add_row(
            str(point["acc_bits"]),
            point["acc_overflow"],
            point["order"],
            *texts,
            style="green" if point["outputs_wrong"] == 0 else None,
        )
    headline = "orders of addition, products, every layer on the golden model's activations"
    return Group(Text(f"\n{headline}"), table)
