"""What a network computes on an array that shifts by activations: their codes n-hot, too.

n-hot quantization takes weights or activations (arXiv 2103.11704). Activations are not there before
an input is, so they become n-hot as they are read: each operand code - zero_point is replaced by
the nearest sum of n signed powers of two before a layer multiplies it. Everything else,
requantization included, is that of the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.network import Network, WeightedLayer
from golden.operators import OPERATORS
from golden.quantization.activations import QuantizationParameters, nhot_table

Array = NDArray[Any]


def run_nhot(
    network: Network,
    parameters: Mapping[int, QuantizationParameters],
    inputs: Sequence[Array],
    terms: int,
) -> tuple[Array, ...]:
    """Compute a network whose layers multiply by n-hot activations.

    Parameters
    ----------
    network : Network
        All its tensors int8, as `golden.quantization.assemble` makes it.
    parameters : mapping of tensor index to QuantizationParameters
        Of every tensor that a layer multiplies.
    inputs : sequence of (N, ...) int8 array
    terms : int
        Signed powers of two of an activation, from 1.

    Returns
    -------
    tuple of (N, ...) array
        In the order of `Network.outputs`.
    """
    values = dict(zip(network.inputs, inputs, strict=True))
    for constant in network.constants:
        shape = (len(inputs[0]), *constant.codes.shape[1:])
        values[constant.tensor] = np.broadcast_to(constant.codes, shape)
    for layer in network.layers:
        arguments = [values[index] for index in layer.inputs]
        if isinstance(layer, WeightedLayer):
            given = parameters[layer.inputs[0]]
            table = nhot_table(given, terms).astype(np.int8)
            arguments = [table[arguments[0].astype(np.intp) - given.low]]
        (target,) = layer.outputs
        values[target] = OPERATORS[type(layer)](layer, arguments, network.tensors[target])
    return tuple(values[index] for index in network.outputs)
