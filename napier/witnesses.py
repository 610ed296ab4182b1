"""`napier verify --witness`: worst-case inputs through the Verilog, at the proved width and below.

A layer's certificate says how many bits its accumulators need. Its witnesses, the inputs that reach
the smallest and the largest sum, are run as an image of one window: at that width no accumulator
may overflow, one bit narrower the worse of the two must.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.certificates import Certificate, certify, witness
from golden.errors import InputError
from golden.network import Conv2D, Network, Padding, Tensor, WeightedLayer
from golden.ranges import Range, clamp_ranges, datatype_range
from rtl_models.builds import Simulator
from rtl_models.verify import Difference, VerifyReport, verify_layer
from simulator.hardware import Hardware, changed_hardware

Array = NDArray[Any]


@dataclass(frozen=True)
class Extremes:
    """What the proof of one layer says for the steps of a kind of PE.

    Parameters
    ----------
    bits : int
        Width in which no channel overflows.
    channels : (int, int)
        Output channels with the smallest and with the largest sum at any step.
    decisive : (bool, bool)
        Whether the smallest, the largest sum does not fit one bit less.
    """

    bits: int
    channels: tuple[int, int]
    decisive: tuple[bool, bool]


def extremes(certificate: Certificate, serial: bool) -> Extremes:
    """Read the certificate for products, or for signed powers of two (`serial`)."""
    low = certificate.term_lo if serial else certificate.prefix_lo
    high = certificate.term_hi if serial else certificate.prefix_hi
    widths = certificate.term_bits if serial else certificate.exact_bits
    bits = int(widths.max())
    bound = 1 << max(bits - 2, 0)
    return Extremes(
        bits=bits,
        channels=(int(low.argmin()), int(high.argmax())),
        decisive=(bool(low.min() < -bound), bool(high.max() > bound - 1)),
    )


def verify_witnesses(
    network: Network,
    layers: list[WeightedLayer],
    hardware: Hardware,
    activation_range: str,
    simulator: Simulator,
    workdir: Path,
) -> Iterator[VerifyReport]:
    """Run the witnesses of layers, two widths each; reports are named `layer extreme/bits`.

    Parameters
    ----------
    network : Network
    layers : list of WeightedLayer
    hardware : Hardware
        Its accumulator widths are replaced; nothing is spilled.
    activation_range : "datatype" or "clamp"
        See `golden.ranges`.
    simulator : "icarus" or "verilator"
    workdir : Path

    Raises
    ------
    InputError
        A certified width that no accumulator of the hardware can have.
    """
    clamps = clamp_ranges(network)
    for layer in layers:
        source = network.tensors[layer.inputs[0]]
        codes = (
            datatype_range(source) if activation_range == "datatype" else clamps[layer.inputs[0]]
        )
        assert codes is not None  # a layer on the array reads integers
        proof = extremes(certify(layer, source, codes), hardware.serial)
        for extreme, channel in zip(("lo", "hi"), proof.channels, strict=True):
            window, image = window_of(layer, source, codes, channel, extreme)
            for bits in (proof.bits, proof.bits - 1):
                machine = with_accumulator(hardware, layer.name, bits)
                report = verify_layer(window, machine, image, workdir=workdir, simulator=simulator)
                must = bits < proof.bits and proof.decisive[extreme == "hi"]
                name = f"{layer.name} {extreme}/{bits}"
                yield _judged(report, name, bits == proof.bits, must)


def window_of(
    layer: WeightedLayer, source: Tensor, codes: Range, channel: int, extreme: str
) -> tuple[WeightedLayer, Array]:
    """Cut a layer down to one output pixel, with the input that drives one channel to its extreme.

    Returns
    -------
    layer : WeightedLayer
        The same weights, on an image of one window, without padding.
    image : (1, ...) array of codes
    """
    alone = np.zeros_like(layer.weights) + layer.weights.dtype.type(layer.weight_zero_point)
    alone[channel] = layer.weights[channel]
    found = witness(replace(layer, weights=alone), source, codes, "hi" if extreme == "hi" else "lo")
    if not isinstance(layer, Conv2D):
        return layer, found.patch.reshape(1, -1)
    height, width, depth = found.patch.shape
    rows, columns = layer.dilation
    image = np.full(
        (1, (height - 1) * rows + 1, (width - 1) * columns + 1, depth * layer.groups),
        layer.input_zero_point,
        dtype=found.patch.dtype,
    )
    group = channel // (layer.weights.shape[0] // layer.groups)
    image[0, ::rows, ::columns, group * depth : (group + 1) * depth] = found.patch
    return replace(layer, padding=Padding(), stride=(1, 1)), image


def with_accumulator(hardware: Hardware, name: str, bits: int) -> Hardware:
    """Give the hardware accumulators of `bits` bits that wrap and never spill.

    Raises
    ------
    InputError
        No hardware has such accumulators.
    """
    if not 2 <= bits <= hardware.post_bits:
        raise InputError(
            f"layer {name!r} has a proof for {bits} bits, but accumulators have 2 to"
            f" {hardware.post_bits}; choose another layer with --layer"
        )
    array = {"acc_bits": bits, "acc_overflow": "wrap", "spill_interval": 0}
    return changed_hardware(hardware, array=array)


def _judged(report: VerifyReport, name: str, certified: bool, must: bool) -> VerifyReport:
    """Name a report, and turn an overflow that must or must not be into a difference."""
    difference = report.difference
    events = report.overflow_events
    if difference is None and ((certified and events) or (must and not events)):
        wanted = "0, as proved" if certified else "at least 1"
        difference = Difference(None, None, None, "overflow_events", wanted, str(events), None)
    return replace(report, name=name, difference=difference)
