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

from golden.network import DTYPES, Network, Tensor, WeightedLayer
from simulator import kernels
from simulator.hardware import Hardware, check_layer_fits
from simulator.plan import plan_network
from simulator.program import Geometry, entry_rule, layer_geometry
from simulator.results import LayerTiming
from simulator.timing import one_inference, time_plan
from simulator.values import EXACT_BITS, count_overflows, post_process
from simulator.vector import run_vector
from simulator.winograd_values import run_winograd

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
        for layer in network.layers:
            if isinstance(layer, WeightedLayer):
                check_layer_fits(layer, hardware, network.tensors[layer.inputs[0]].dtype)
        self.network = one_inference(network)
        self.hardware = hardware
        self.plan = plan_network(self.network, hardware)
        self.timings = time_plan(self.plan)
        self._products = {
            index: product
            for index, layer in enumerate(network.layers)
            if isinstance(layer, WeightedLayer)
            and index not in self.plan.winograd_steps
            and (product := _product(layer, network.tensors[layer.inputs[0]], hardware))
        }

    def run(self, inputs: Mapping[int, Array] | Sequence[Array]) -> Inference:
        """Run samples.

        Parameters
        ----------
        inputs : mapping of tensor index to array, or sequence in the order of `Network.inputs`
            N samples each, in the tensors' element types.
        """
        network = self.network
        given = inputs if isinstance(inputs, Mapping) else zip(network.inputs, inputs, strict=True)
        tensors = dict(given)
        samples = len(next(iter(tensors.values())))
        for constant in network.constants:
            shape = (samples, *constant.codes.shape[1:])
            tensors[constant.tensor] = np.broadcast_to(constant.codes, shape)
        events: dict[int, int] = {}
        affected: dict[int, int] = {}
        for index, layer in enumerate(network.layers):
            sources = [tensors[i] for i in layer.inputs]
            output = network.tensors[layer.outputs[0]]
            if not isinstance(layer, WeightedLayer):
                codes = run_vector(layer, sources, output)
            elif index in self._products:
                codes = self._products[index].run(sources[0], output, self.hardware)
                events[index] = affected[index] = 0
            elif index in self.plan.winograd_steps:
                step = self.plan.winograd_steps[index]
                codes, record = run_winograd(step, sources[0], output, self.hardware)
                events[index], affected[index] = record.events, record.outputs_affected
            else:
                codes, counts = count_overflows(layer, sources[0], output, self.hardware)
                events[index], affected[index] = counts[0], counts[1] + counts[2]
            tensors[layer.outputs[0]] = codes
        outputs = tuple(tensors[i] for i in network.outputs)
        return Inference(outputs, events, affected, self.timings)


@dataclass(frozen=True)
class _Product:
    """A layer whose sums are a matrix product.

    Parameters
    ----------
    layer : WeightedLayer
    weights : (out_channels, taps * in_channels) float array
        Minus their zero point.
    """

    layer: WeightedLayer
    weights: Array

    def run(self, x: Array, output: Tensor, hardware: Hardware) -> Array:
        """Output codes."""
        layer = self.layer
        images = x if layer.weights.ndim == 4 else x.reshape(1, 1, -1, layer.weights.shape[1])
        geometry = layer_geometry(layer, images.shape, hardware)
        operands = _operands(images, layer.input_zero_point, geometry, self.weights.dtype.type)
        sums = (self.weights @ operands.T).astype(np.int64 if hardware.post_bits > 32 else np.int32)
        return post_process(layer, sums[np.newaxis], sums.shape[1], output, hardware)


def _product(layer: WeightedLayer, source: Tensor, hardware: Hardware) -> _Product | None:
    """Return the layer as a matrix product, if no sum of its steps can leave the accumulator."""
    weights = np.ascontiguousarray(layer.weights)
    channels = len(weights)
    if weights.ndim == 4 and source.shape[3] != weights.shape[3]:
        return None  # groups: most of the matrix would be zeros
    codes = np.iinfo(DTYPES[source.dtype])  # type: ignore[type-var]
    zero_point = layer.input_zero_point
    largest = max(abs(int(code) - zero_point) for code in (codes.min, codes.max))
    steps = weights.reshape(channels, -1, weights.shape[-1])
    *_, norm = kernels.build_steps(steps, layer.weight_zero_point, 1, *entry_rule(hardware))
    if largest * norm >= 1 << (hardware.array.acc_bits - 1):
        return None
    floats = [kind for kind, bits in EXACT_BITS.items() if largest * norm <= 1 << bits]
    return _Product(
        layer, weights.reshape(channels, -1).astype(floats[0]) - floats[0](layer.weight_zero_point)
    )


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
