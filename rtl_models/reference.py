"""What golden says that hardware computes: its accumulators, its counters of overflows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.accumulate import (
    AccumulateResult,
    Accumulator,
    Steps,
    accumulate_layer,
    naf_digits,
)
from golden.arithmetic import wrap
from golden.formats import IntFormat
from golden.network import Conv2D, FullyConnected, Network, Requantization, Tensor, WeightedLayer
from golden.operators import OPERATORS, operands, post_process
from golden.winograd.convolution import divide, from_tiles, winograd_stages
from golden.winograd.transforms import winograd
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
    events = np.minimum(sums.events, (1 << hardware.array.events_bits) - 1)  # counters stop there
    return codes, Overflows(int(events.sum()), int((sums.events > 0).sum()))


def golden_winograd_layer(
    layer: Conv2D, x: Array, output: Tensor, hardware: Hardware, form: WinogradForm
) -> tuple[Array, Overflows]:
    """Codes of a layer that the Winograd units compute, and its overflow counters."""
    transform = winograd(form.outputs, 3)
    exact = winograd_stages(layer, *operands(layer, x), transform)
    accumulator = golden_accumulator(hardware)
    bits = accumulator.result_bits
    sums = np.zeros_like(exact.sum)
    events = outputs = 0
    for first in range(0, exact.weight.shape[2], form.chunk_channels):
        chunk = slice(first, first + form.chunk_channels)
        for tap in range(transform.products):
            found = accumulate_products(
                exact.weight[:, tap, chunk], exact.input[..., tap, chunk], hardware
            )
            sums[..., tap, :] += found.value
            counted = np.minimum(found.events, (1 << hardware.array.events_bits) - 1)
            events += int(counted.sum())
            outputs += int((found.events > 0).sum())
    matrix = transform.output.reshape(-1, transform.products)
    scaled = np.einsum("op,nyxpk->nyxok", matrix, sums)
    tiles = divide(wrap(scaled, IntFormat(bits))[0], transform, bits)
    tiles = tiles.reshape(*tiles.shape[:3], *transform.outputs, -1)
    image = from_tiles(tiles, (len(x), *output.shape[1:]))
    codes = post_process(layer, image, output).reshape((len(x), *output.shape[1:]))
    return codes, Overflows(events, outputs)


def accumulate_products(weights: Array, x: Array, hardware: Hardware) -> AccumulateResult:
    """Accumulate x (..., C) times weights (K, C), each in as many steps as the PE needs."""
    steps: Steps = "units" if hardware.pe.kind == "ternary" else golden_steps(hardware)
    if steps == "parallel_terms":
        weights = digit_groups(weights, hardware.pe.terms)
        x, weights = np.repeat(x, len(weights), axis=-1), np.moveaxis(weights, 0, -1)
        weights = weights.reshape(len(weights), -1)
    layer = FullyConnected(
        name="part",
        inputs=(0,),
        outputs=(1,),
        weights=weights,
        weight_bits=16,
        weight_zero_point=0,
        bias=None,
        input_zero_point=0,
        output_zero_point=0,
        requantization=Requantization(np.ones(1, np.int32), np.zeros(1, np.int32)),
        activation_min=0,
        activation_max=0,
    )
    flat = x.reshape(-1, x.shape[-1])
    found = accumulate_layer(layer, flat, golden_accumulator(hardware), steps)
    shape = (*x.shape[:-1], len(weights))
    return replace(
        found,
        **{each.name: getattr(found, each.name).reshape(shape) for each in fields(found)},
    )


def digit_groups(weights: Array, terms: int) -> Array:
    """Sum so many signed digits of each weight, highest exponents first: (groups, ...)."""
    digits = naf_digits(weights)
    group = (np.cumsum(digits != 0, axis=0) - 1) // terms
    count = max(1, int(group.max(initial=0)) + 1)
    return np.stack([np.where(group == i, digits, 0).sum(axis=0) for i in range(count)])


def winograd_forms(plan: NetworkPlan) -> dict[int, WinogradForm]:
    """Layers of a network that the Winograd units compute, by index."""
    forms = {}
    for step in plan.steps:
        geometry = step.geometry
        if geometry is not None and geometry.form:
            channels = geometry.chunk_words * geometry.feed
            forms[step.layer_index] = WinogradForm(geometry.stride[0], channels)
    return forms


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
