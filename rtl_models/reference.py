"""What golden says that hardware computes: its accumulators, its counters of overflows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.accumulate import Accumulator, Steps, accumulate_layer
from golden.network import Conv2D, Network, Tensor, WeightedLayer
from golden.operators import OPERATORS, post_process
from golden.winograd.array import accumulate_winograd
from golden.winograd.transforms import winograd
from simulator.cuts import step_geometry
from simulator.hardware import Hardware
from simulator.plan import NetworkPlan

Array = NDArray[Any]


@dataclass(frozen=True)
class Overflows:
    """Overflow counters of a layer (rule D4)."""

    events: int
    outputs: int


@dataclass(frozen=True)
class WinogradForm:
    """F(outputs, 3) in both directions, with so many input channels in a chunk."""

    outputs: int
    chunk_channels: int


def golden_steps(hardware: Hardware) -> Steps:
    """Name what a PE adds in one step."""
    if hardware.pe.kind == "mac":
        return "product"
    if hardware.pe.kind == "ternary":
        return "ternary"
    return "terms" if hardware.serial else "parallel_terms"


def golden_accumulator(hardware: Hardware) -> Accumulator:
    """Describe the accumulator of a PE."""
    array = hardware.array
    spills = array.spill_interval > 0
    return Accumulator(
        array.acc_bits,
        array.acc_overflow,
        array.spill_interval if spills else None,
        array.wide_acc_bits if spills else None,
    )


def golden_layer(
    layer: WeightedLayer, x: Array, output: Tensor, hardware: Hardware
) -> tuple[Array, Overflows]:
    """Codes of a weighted layer and its overflow counters."""
    sums = accumulate_layer(layer, x, golden_accumulator(hardware), golden_steps(hardware))
    codes = post_process(layer, sums.value, output).reshape((len(x), *output.shape[1:]))
    return codes, counted(sums.events, hardware)


def counted(events: Array, hardware: Hardware) -> Overflows:
    """Count overflow events of each result as the hardware does."""
    limited = np.minimum(events, (1 << hardware.array.events_bits) - 1)  # the counters stop there
    return Overflows(int(limited.sum()), int((events > 0).sum()))


def golden_winograd_layer(
    layer: Conv2D, x: Array, output: Tensor, hardware: Hardware, form: WinogradForm
) -> tuple[Array, Overflows]:
    """Codes of a layer that the Winograd units compute, and its overflow counters."""
    found = accumulate_winograd(
        layer,
        x,
        winograd(form.outputs, 3),
        golden_accumulator(hardware),
        form.chunk_channels,
        "units" if hardware.pe.kind == "ternary" else golden_steps(hardware),
        hardware.pe.terms,
    )
    codes = post_process(layer, found.accumulators, output).reshape((len(x), *output.shape[1:]))
    return codes, counted(found.parts.events, hardware)


def winograd_forms(plan: NetworkPlan) -> dict[int, WinogradForm]:
    """Layers of a network that the Winograd units compute, by index."""
    geometries = {i: step_geometry(step) for i, step in plan.winograd_steps.items()}
    return {
        index: WinogradForm(each.stride[0], each.chunk_words * each.feed)
        for index, each in geometries.items()
    }


def golden_network(
    network: Network,
    hardware: Hardware,
    inputs: Mapping[int, Array] | Sequence[Array],
    forms: Mapping[int, WinogradForm] | None = None,
) -> tuple[dict[int, Array], dict[int, Overflows]]:
    """Every tensor of one sample, and the overflow counters of the weighted layers by index.

    `forms` are the layers that the Winograd units compute (`winograd_forms`).
    """
    forms = forms or {}
    given = inputs if isinstance(inputs, Mapping) else zip(network.inputs, inputs, strict=True)
    tensors = dict(given)
    tensors |= {constant.tensor: constant.codes for constant in network.constants}
    overflows = {}
    for index, layer in enumerate(network.layers):
        sources = [tensors[i] for i in layer.inputs]
        output = network.tensors[layer.outputs[0]]
        if isinstance(layer, Conv2D) and index in forms:
            codes, overflows[index] = golden_winograd_layer(
                layer, sources[0], output, hardware, forms[index]
            )
        elif isinstance(layer, WeightedLayer):
            codes, overflows[index] = golden_layer(layer, sources[0], output, hardware)
        else:
            codes = OPERATORS[type(layer)](layer, sources, output)
        tensors[layer.outputs[0]] = codes
    return tensors, overflows
