"""What importers do to a float network once it is read: join and fold layers, drop what is unread.

Every function takes a network that holds together and returns one that computes the same.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from golden.float_network import (
    FloatActivation,
    FloatAdd,
    FloatLayer,
    FloatMul,
    FloatNetwork,
    FloatPool2D,
    FloatWeighted,
)

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
