"""What importers do to a float network once it is read: join and fold layers, drop what is unread.

Every function takes a network that holds together and returns one that computes the same.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from golden.float_network import (
    FloatActivation,
    FloatAdd,
    FloatConv2D,
    FloatLayer,
    FloatMul,
    FloatNetwork,
    FloatPool2D,
    FloatWeighted,
)
from golden.network import Padding

ACTIVATED = (FloatWeighted, FloatAdd, FloatMul, FloatPool2D)
"""Layers that can end in an activation."""


def readers(network: FloatNetwork) -> Counter[int]:
    """How often each tensor is read, as an output of the network too."""
    counts = Counter(index for layer in network.layers for index in layer.inputs)
    counts.update(network.outputs)
    return counts


def fuse_activations(network: FloatNetwork) -> FloatNetwork:
    """Give an activation to the layer before it where nothing else reads that layer's output."""
    counts = readers(network)
    layers: list[FloatLayer] = []
    for layer in network.layers:
        before = next((i for i, each in enumerate(layers) if each.outputs == layer.inputs), None)
        if isinstance(layer, FloatActivation) and before is not None:
            maker = layers[before]
            if (
                isinstance(maker, ACTIVATED)
                and maker.activation == "none"
                and counts[layer.inputs[0]] == 1
            ):
                layers[before] = replace(maker, outputs=layer.outputs, activation=layer.activation)
                continue
        layers.append(layer)
    return compacted(replace(network, layers=tuple(layers)))


def fold_constants(network: FloatNetwork) -> FloatNetwork:
    """Let layers that multiply take up constant factors and addends of their input's channels.

    Where nothing else reads the product or sum. An addend before a convolution that pads stays: the
    padding is added behind it.
    """
    for position in range(len(network.layers) - 1, -1, -1):
        network = _folded(network, position)
    return compacted(network)


def _folded(network: FloatNetwork, position: int) -> FloatNetwork:
    """Fold one layer, if that can be done, into the one that reads it."""
    layer = network.layers[position]
    values = {constant.tensor: constant.values for constant in network.constants}
    if not isinstance(layer, FloatAdd | FloatMul) or layer.activation != "none":
        return network
    operands = [index for index in layer.inputs if index in values]
    (target,) = layer.outputs
    following = [i for i, each in enumerate(network.layers) if target in each.inputs]
    if len(operands) != 1 or readers(network)[target] != 1 or len(following) != 1:
        return network
    reader = network.layers[following[0]]
    if not isinstance(reader, FloatWeighted):
        return network
    computed = next(index for index in layer.inputs if index not in values)
    channels = _channels(reader)
    operand = values[operands[0]].reshape(-1).astype(np.float64)
    same_shape = network.tensors[computed].shape == network.tensors[target].shape
    one_each = operand.size in (1, channels) and network.tensors[target].shape[-1] == channels
    padded = isinstance(reader, FloatConv2D) and reader.padding != Padding()
    if not (same_shape and one_each and operand.size == values[operands[0]].shape[-1]):
        return network
    if isinstance(layer, FloatAdd) and padded:
        return network
    operand = np.broadcast_to(operand, channels)
    changed = _scaled(reader, operand) if isinstance(layer, FloatMul) else _moved(reader, operand)
    layers = list(network.layers)
    layers[following[0]] = replace(changed, inputs=(computed,))
    del layers[position]
    return replace(network, layers=tuple(layers))


def _channels(layer: FloatWeighted) -> int:
    groups = layer.groups if isinstance(layer, FloatConv2D) else 1
    return int(layer.weights.shape[-1]) * groups


def _scaled(layer: FloatWeighted, factor: NDArray[np.float64]) -> FloatWeighted:
    """Layer of x instead of factor * x, factors by input channel."""
    grouped = _by_group(layer, factor)
    return replace(layer, weights=(layer.weights * grouped).astype(np.float32))


def _moved(layer: FloatWeighted, addend: NDArray[np.float64]) -> FloatWeighted:
    """Layer of x instead of x + addend, addends by input channel."""
    products = layer.weights.astype(np.float64) * _by_group(layer, addend)
    sums = products.reshape(len(products), -1).sum(axis=1)
    return replace(layer, bias=(layer.bias + sums).astype(np.float32))


def _by_group(layer: FloatWeighted, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of the input channels that each output channel reads, to multiply its weights by."""
    groups = layer.groups if isinstance(layer, FloatConv2D) else 1
    each = np.repeat(values.reshape(groups, -1), len(layer.weights) // groups, axis=0)
    return each.reshape(len(layer.weights), *[1] * (layer.weights.ndim - 2), -1)


def compacted(network: FloatNetwork) -> FloatNetwork:
    """Drop tensors and constants that no layer reads or writes."""
    wired = {index for layer in network.layers for index in (*layer.inputs, *layer.outputs)}
    kept = sorted(wired | {*network.inputs, *network.outputs})
    number = {index: position for position, index in enumerate(kept)}

    def renumbered(indices: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(number[index] for index in indices)

    return replace(
        network,
        tensors=tuple(network.tensors[index] for index in kept),
        layers=tuple(
            replace(layer, inputs=renumbered(layer.inputs), outputs=renumbered(layer.outputs))
            for layer in network.layers
        ),
        inputs=renumbered(network.inputs),
        outputs=renumbered(network.outputs),
        constants=tuple(
            replace(constant, tensor=number[constant.tensor])
            for constant in network.constants
            if constant.tensor in number
        ),
    )
