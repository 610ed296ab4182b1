"""A network that runs again and again: planned once, and nothing recorded but what hardware counts.

Where no step of a layer can leave its accumulator, whatever the input, the order of steps does not
matter: its sums are one matrix product in floats that hold every partial sum exactly, and its
counters stay 0. Other layers run their steps one by one (`simulator.values`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from golden.network import DTYPES, Network, Tensor
from simulator.hardware import Hardware
from simulator.network_values import NetworkValues, plan_inference, weighted_layers
from simulator.program import Geometry
from simulator.results import LayerTiming, OverflowCounts
from simulator.timing import time_plan
from simulator.values import EXACT_BITS, ArrayLayer
from simulator.winograd_values import WinogradLayer

Array = NDArray[Any]


@dataclass(frozen=True)
class Inference:
    """What one run gave.

    Parameters
    ----------
    outputs : tuple of array
        In the order of `Network.outputs`.
    overflow_events, overflow_outputs : dict of int to int
        For each layer with weights, by its index: steps whose exact sum left the accumulator, and
        outputs that had one; all samples.
    timings : tuple of LayerTiming
        Of one sample, a layer each; they do not depend on the input.
    """

    outputs: tuple[Array, ...]
    overflow_events: dict[int, int]
    overflow_outputs: dict[int, int]
    timings: tuple[LayerTiming, ...]

    @property
    def cycles(self) -> int:
        """Cycles of one inference."""
        return sum(timing.cycles for timing in self.timings)


class PreparedNetwork:
    """A network planned for an accelerator.

    Parameters
    ----------
    network : Network
    hardware : Hardware

    Raises
    ------
    HardwareError
        A layer that the hardware cannot hold.
    """

    def __init__(self, network: Network, hardware: Hardware) -> None:
        self.plan = plan_inference(network, hardware)
        self.network = self.plan.lowered.network
        self.timings = time_plan(self.plan)
        self._weighted: dict[int, ArrayLayer | WinogradLayer | _Product] = {
            index: _product(each, self.network.tensors[each.layer.inputs[0]]) or each
            for index, each in weighted_layers(self.plan).items()
        }

    def run(self, inputs: Mapping[int, Array] | Sequence[Array]) -> Inference:
        """Run samples.

        Parameters
        ----------
        inputs : mapping of tensor index to array, or sequence in the order of `Network.inputs`
            N samples each, in the tensors' element types.
        """
        names = self.network.inputs
        given = inputs if isinstance(inputs, Mapping) else dict(zip(names, inputs, strict=True))
        work = NetworkValues(self.network, given, self._multiply)
        counts = work.run_all()
        return Inference(
            outputs=work.outputs,
            overflow_events={index: each.events for index, each in counts.items()},
            overflow_outputs={index: each.outputs_affected for index, each in counts.items()},
            timings=self.timings,
        )

    @property
    def products(self) -> tuple[int, ...]:
        """Layers that are matrix products, by index."""
        return tuple(i for i, each in self._weighted.items() if isinstance(each, _Product))

    def _multiply(self, index: int, x: Array, output: Tensor) -> tuple[Array, OverflowCounts]:
        return self._weighted[index].count_overflows(x, output)


@dataclass(frozen=True)
class _Product:
    """A layer whose sums are a matrix product.

    Parameters
    ----------
    array_layer : ArrayLayer
    weights : (out_channels, taps * in_channels) float array
        Minus their zero point.
    """

    array_layer: ArrayLayer
    weights: Array

    def count_overflows(self, x: Array, output: Tensor) -> tuple[Array, OverflowCounts]:
        """Output codes, and that no accumulator overflowed."""
        layer, post = self.array_layer.layer, self.array_layer.post
        kind = self.weights.dtype.type
        if layer.weights.ndim == 4:
            operands = _operands(x, layer.input_zero_point, self.array_layer.shape, kind)
        else:
            operands = x.reshape(-1, layer.weights.shape[1]) - kind(layer.input_zero_point)
        sums = (self.weights @ operands.T).astype(np.int64 if post.bits > 32 else np.int32)
        return post.run(sums[np.newaxis], sums.shape[1], output), OverflowCounts(0, 0, 0)


def _product(array_layer: ArrayLayer | WinogradLayer, source: Tensor) -> _Product | None:
    """Return a layer as a matrix product, if no sum of its steps can leave the accumulator."""
    if isinstance(array_layer, WinogradLayer) or array_layer.shape.groups > 1:
        return None  # of groups most of the matrix would be zeros
    layer = array_layer.layer
    codes = np.iinfo(DTYPES[source.dtype])  # type: ignore[type-var]
    largest = max(abs(int(code) - layer.input_zero_point) for code in (codes.min, codes.max))
    bound = largest * array_layer.norm
    if bound >= 1 << (array_layer.hardware.array.acc_bits - 1):
        return None
    kind = next(kind for kind, bits in EXACT_BITS.items() if bound <= 1 << bits)
    weights = layer.weights.reshape(len(layer.weights), -1).astype(kind)
    return _Product(array_layer, weights - kind(layer.weight_zero_point))


def _operands(x: Array, zero_point: int, geometry: Geometry, kind: type) -> Array:
    """Operands of every pixel, in the order of the weights: (pixels, taps * in_channels)."""
    samples, height, width, channels = x.shape
    size = (geometry.out_height, geometry.out_width)
    rows, columns = geometry.reach
    top, left = geometry.pad_top, geometry.pad_left
    padded = np.zeros(
        (samples, max(rows, top + height), max(columns, left + width), channels), kind
    )
    np.subtract(
        x, kind(zero_point), out=padded[:, top : top + height, left : left + width], dtype=kind
    )
    image, row, column, channel = padded.strides
    taps = as_strided(
        padded,
        (samples, *size, *geometry.kernel, channels),
        (
            image,
            row * geometry.stride[0],
            column * geometry.stride[1],
            row * geometry.dilation[0],
            column * geometry.dilation[1],
            channel,
        ),
        writeable=False,
    )
    return taps.reshape(samples * size[0] * size[1], -1)
