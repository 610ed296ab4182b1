"""The values of a network, a layer after the other: how layers with weights run is an argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from golden.network import Network, Tensor, WeightedLayer
from simulator.hardware import Hardware, check_layer_fits
from simulator.plan import NetworkPlan, plan_network
from simulator.timing import one_inference
from simulator.values import ArrayLayer
from simulator.vector import run_vector
from simulator.winograd_values import WinogradLayer

Array = NDArray[Any]

Record = TypeVar("Record")
"""What is kept of a layer with weights."""

Multiply = Callable[[int, Array, Tensor], tuple[Array, Record]]
"""Called as (index of the layer, codes of its input, its output); gives codes and record."""


def plan_inference(network: Network, hardware: Hardware) -> NetworkPlan:
    """Plan one inference of a network whose every layer the PEs can hold.

    Raises
    ------
    HardwareError
        See `check_layer_fits` and `plan_network`.
    """
    for layer in network.layers:
        if isinstance(layer, WeightedLayer):
            check_layer_fits(layer, hardware, network.tensors[layer.inputs[0]].dtype)
    return plan_network(one_inference(network), hardware)


def weighted_layers(plan: NetworkPlan) -> dict[int, ArrayLayer | WinogradLayer]:
    """Prepare every layer with weights, as the plan runs it; by index of the layer."""
    network, steps = plan.lowered.network, plan.winograd_steps
    return {
        index: WinogradLayer(steps[index], plan.hardware)
        if index in steps
        else ArrayLayer(layer, network.tensors[layer.inputs[0]].shape, plan.hardware)
        for index, layer in enumerate(network.layers)
        if isinstance(layer, WeightedLayer)
    }


class NetworkValues(Generic[Record]):
    """Codes of a network's tensors.

    Parameters
    ----------
    network : Network
    inputs : mapping of int to array
        Samples by index of the tensor; their number is free.
    multiply : Multiply
        Computes layers with weights.
    """

    def __init__(
        self, network: Network, inputs: Mapping[int, Array], multiply: Multiply[Record]
    ) -> None:
        self._network, self._multiply = network, multiply
        self._codes = dict(inputs)
        samples = len(next(iter(inputs.values())))
        for constant in network.constants:
            shape = (samples, *constant.codes.shape[1:])
            self._codes[constant.tensor] = np.broadcast_to(constant.codes, shape)
        self._last_uses = _last_uses(network)

    def run(self, index: int) -> Record | None:
        """Compute the next layer, `index`; its record where it has weights."""
        layer = self._network.layers[index]
        arrays = [self._codes[i] for i in layer.inputs]
        output = self._network.tensors[layer.outputs[0]]
        record = None
        if isinstance(layer, WeightedLayer):
            codes, record = self._multiply(index, arrays[0], output)
        else:
            codes = run_vector(layer, arrays, output)
        self._codes[layer.outputs[0]] = codes
        for i in layer.inputs:
            if self._last_uses[i] == index:
                self._codes.pop(i, None)
        return record

    def run_all(self) -> dict[int, Record]:
        """Compute every layer; records by index of the layer."""
        records = {index: self.run(index) for index in range(len(self._network.layers))}
        return {index: record for index, record in records.items() if record is not None}

    @property
    def outputs(self) -> tuple[Array, ...]:
        """Codes of the network's outputs, in order; once all layers have run."""
        return tuple(self._codes[i] for i in self._network.outputs)


def _last_uses(network: Network) -> dict[int, int]:
    """Index of the last layer that reads a tensor; outputs of the network are never dropped."""
    uses = {i: n for n, layer in enumerate(network.layers) for i in layer.inputs}
    return uses | dict.fromkeys(network.outputs, len(network.layers))
