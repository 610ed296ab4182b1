"""`napier widths --orders`: the same sums in other orders, below the proved width.

At the proved width the order does not matter; below it, it decides how often a sum that fits in the
end leaves the accumulator on the way. Every layer gets the golden model's activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from golden.network import Conv2D, Network, WeightedLayer
from golden.run import run as run_golden
from napier.loading import Samples
from napier.report import human
from simulator.certificate_kernels import COUNTS, ORDERS, RULES, compare_orders

Array = NDArray[Any]
Document = dict[str, Any]
Progress = Callable[[int, int, str], None]


def orders_document(
    network: Network, samples: Samples, first: int, last: int, progress: Progress | None = None
) -> list[Document]:
    """Count overflows of every order, rule and width from `last` down to `first` bits.

    Returns
    -------
    list of dict
        acc_bits, acc_overflow, order, and the counts over all outputs of all layers and samples:
        events, outputs_affected, transient, persistent, and outputs_wrong (another final sum).
    """
    acc_bits = np.arange(last, first - 1, -1)
    counts = np.zeros((len(acc_bits), len(RULES), len(ORDERS), len(COUNTS)), dtype=np.int64)
    for sample in range(samples.count):
        batch = [array[sample : sample + 1] for array in samples.arrays]
        tensors = run_golden(network, batch, keep_tensors=True).tensors
        for index, layer in enumerate(network.layers):
            if not isinstance(layer, WeightedLayer):
                continue
            if progress is not None:
                done = sample * len(network.layers) + index
                progress(done, samples.count * len(network.layers), f"orders, {layer.name}")
            for operands, weights in _products(layer, tensors[layer.inputs[0]]):
                compare_orders(operands, weights, acc_bits, counts)
    return [
        {
            "acc_bits": int(bits),
            "acc_overflow": rule,
            "order": order,
            **dict(zip(COUNTS, counts[i, j, k].tolist(), strict=True)),
        }
        for i, bits in enumerate(acc_bits)
        for j, rule in enumerate(RULES)
        for k, order in enumerate(ORDERS)
    ]


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
    for heading in ("events", "outputs", "transient", "persistent", "wrong"):
        table.add_column(heading, justify="right", no_wrap=True)
    for point in points:
        table.add_row(
            str(point["acc_bits"]),
            point["acc_overflow"],
            point["order"],
            *(human(point[name]) for name in COUNTS),
            style="green" if point["outputs_wrong"] == 0 else None,
        )
    headline = "orders of addition, products, every layer on the golden model's activations"
    return Group(Text(f"\n{headline}"), table)
