"""Narrow partial sums of a quantized network: after how many products they must be spilled.

EasyQuant adds INT7 products in 16 bits and spills them into 32 after eight (2006.16669, section
3.3). How many are safe depends on the codes: 8 of weights and activations within -63 to 63, fewer
where -64 occurs or a zero point widens the operands, more where the weights are small. The interval
here is exact for the weights of each layer and every input that its codes allow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from golden.certificates import SpillCertificate, certify_spill, largest_spill_interval
from golden.network import Network, WeightedLayer
from golden.ranges import Range, clamp_ranges

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class LayerSpills:
    """What one layer needs.

    Parameters
    ----------
    name : str
    largest_interval : int or None
        Most products between spills; None where the whole sum fits, 0 where not even one does.
    narrow_bits, wide_bits : int
        Widths that hold every sum at the plan's interval, worst channel; where the plan has none,
        those of an accumulator that never spills.
    """

    name: str
    largest_interval: int | None
    narrow_bits: int
    wide_bits: int


@dataclass(frozen=True)
class PartialSumPlan:
    """One interval for the whole network.

    Parameters
    ----------
    acc_bits : int
        Width of the narrow accumulator.
    interval : int or None
        Products between spills at which no layer overflows; None where no layer need spill, 0
        where there is no such interval.
    layers : tuple of LayerSpills
    """

    acc_bits: int
    interval: int | None
    layers: tuple[LayerSpills, ...]


def guaranteed_products(bits: int, acc_bits: int = 16, *, symmetric: bool = True) -> int:
    """Products of codes of `bits` bits that a partial sum holds, whatever the codes.

    floor((2**(acc_bits - 1) - 1) / largest product): 2, 8 and 34 for symmetric INT8, INT7 and INT6
    codes in 16 bits; 1, 7 and 31 with -2**(bits - 1) among them (2006.16669, section 3.3).
    """
    largest = (1 << (bits - 1)) - symmetric
    return ((1 << (acc_bits - 1)) - 1) // largest**2


def partial_sum_plan(
    network: Network,
    acc_bits: int = 16,
    inputs: Mapping[int, Range] | None = None,
    progress: Progress | None = None,
) -> PartialSumPlan:
    """Find the largest interval at which no partial sum of any layer can overflow.

    Parameters
    ----------
    network : Network
    acc_bits : int
        Width of the partial sums.
    inputs : mapping of tensor index to range, or None
        Codes that inputs of the network are promised to hold, where these are not all.
    progress : callable or None
        Called as (done, total, what).

    Returns
    -------
    PartialSumPlan
        Proved for every input: ranges are those that the producing layers can emit.
    """
    ranges = clamp_ranges(network, inputs)
    layers = [layer for layer in network.layers if isinstance(layer, WeightedLayer)]
    largest: list[int | None] = []
    for done, layer in enumerate(layers):
        if progress is not None:
            progress(done, len(layers), f"partial sums of {layer.name}")
        source = network.tensors[layer.inputs[0]]
        largest.append(largest_spill_interval(layer, source, _codes(ranges, layer), acc_bits))
    limits = [interval for interval in largest if interval is not None]
    interval = min(limits) if limits else None
    found: list[SpillCertificate] = []
    while True:
        found = [_certificate(network, layer, ranges, interval) for layer in layers]
        if not interval or all(int(each.narrow_bits.max()) <= acc_bits for each in found):
            break
        interval -= 1
    return PartialSumPlan(
        acc_bits,
        interval,
        tuple(
            LayerSpills(layer.name, most, int(each.narrow_bits.max()), int(each.wide_bits.max()))
            for layer, most, each in zip(layers, largest, found, strict=True)
        ),
    )


def _codes(ranges: tuple[Range | None, ...], layer: WeightedLayer) -> Range:
    codes = ranges[layer.inputs[0]]
    assert codes is not None  # layers that multiply read integer codes
    return codes


def _certificate(
    network: Network, layer: WeightedLayer, ranges: tuple[Range | None, ...], interval: int | None
) -> SpillCertificate:
    taps = int(layer.weights[0].size)
    source = network.tensors[layer.inputs[0]]
    return certify_spill(layer, source, _codes(ranges, layer), interval or taps)
