"""What golden says that hardware computes: its accumulators, its counters of overflows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.accumulate import Accumulator, Steps, accumulate_layer
from golden.network import Network, Tensor, WeightedLayer
from golden.operators import OPERATORS, post_process
from simulator.hardware import Hardware

Array = NDArray[Any]


@dataclass(frozen=True)
class Overflows:
    """Overflow counters of a layer (rule D4)."""

    events: int
    outputs: int


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
    events = np.minimum(sums.events, (1 << hardware.array.events_bits) - 1)  # counters stop there
    return codes, Overflows(int(events.sum()), int((sums.events > 0).sum()))


def golden_network(
    network: Network, hardware: Hardware, inputs: Mapping[int, Array] | Sequence[Array]
) -> tuple[dict[int, Array], dict[int, Overflows]]:
    """Every tensor of one sample, and the overflow counters of the weighted layers by index."""
    given = inputs if isinstance(inputs, Mapping) else zip(network.inputs, inputs, strict=True)
    tensors = dict(given)
    tensors |= {constant.tensor: constant.codes for constant in network.constants}
    overflows = {}
    for index, layer in enumerate(network.layers):
        sources = [tensors[i] for i in layer.inputs]
        output = network.tensors[layer.outputs[0]]
        if isinstance(layer, WeightedLayer):
            codes, overflows[index] = golden_layer(layer, sources[0], output, hardware)
        else:
            codes = OPERATORS[type(layer)](layer, sources, output)
        tensors[layer.outputs[0]] = codes
    return tensors, overflows
