"""Run a network: every output code and, on request, every tensor in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.errors import InputError
from golden.network import DTYPES, Network, Tensor
from golden.operators import OPERATORS, accumulators

__all__ = ["RunResult", "accumulators", "run"]

Array = NDArray[Any]


@dataclass(frozen=True)
class RunResult:
    """What a run of a network gave.

    Parameters
    ----------
    outputs : tuple of array
        In the order of `Network.outputs`, batch first.
    tensors : dict of int to array
        Every tensor by its index in `Network.tensors`, inputs and constants (repeated for every
        sample) included; only the outputs where intermediates were not asked for.
    """

    outputs: tuple[Array, ...]
    tensors: dict[int, Array]


def run(
    network: Network,
    inputs: Mapping[int, Array] | Sequence[Array] | Array,
    *,
    keep_tensors: bool = False,
) -> RunResult:
    """Compute a network on a batch.

    Parameters
    ----------
    network : Network
    inputs : mapping of tensor index to array, sequence of array, or array
        A sequence is taken in the order of `Network.inputs`; a bare array is the one input. Element
        types must be the tensors' own; the shapes too, but for the batch axis, which is free and
        must agree among the inputs.
    keep_tensors : bool
        Return every tensor, not only the outputs.

    Returns
    -------
    RunResult

    Raises
    ------
    InputError
        Where an input is missing, too many, or does not fit its tensor.
    """
    values = _checked_inputs(network, [inputs] if isinstance(inputs, np.ndarray) else inputs)
    for constant in network.constants:
        shape = (len(values[network.inputs[0]]), *constant.codes.shape[1:])
        values[constant.tensor] = np.broadcast_to(constant.codes, shape)
    for layer in network.layers:
        arguments = [values[index] for index in layer.inputs]
        (target,) = layer.outputs
        values[target] = OPERATORS[type(layer)](layer, arguments, network.tensors[target])
    outputs = {index: values[index] for index in network.outputs}
    return RunResult(
        outputs=tuple(values[index] for index in network.outputs),
        tensors=values if keep_tensors else outputs,
    )


def _checked_inputs(
    network: Network, inputs: Mapping[int, Array] | Sequence[Array]
) -> dict[int, Array]:
    if isinstance(inputs, Mapping):
        given = dict(inputs)
    else:
        given = dict(zip(network.inputs, inputs, strict=False))
        if len(inputs) != len(network.inputs):
            raise InputError(
                f"network {network.name!r} takes {len(network.inputs)} inputs, but {len(inputs)}"
                f" arrays were given; give one per tensor: {_names(network)}"
            )
    if set(given) != set(network.inputs):
        raise InputError(
            f"inputs of network {network.name!r} must be the tensors {sorted(network.inputs)}, but"
            f" {sorted(given)} were given; give one array per tensor: {_names(network)}"
        )
    for index, array in given.items():
        _check_input(network.tensors[index], array)
    batches = {index: array.shape[0] for index, array in given.items() if array.ndim}
    if len(set(batches.values())) > 1:
        raise InputError(
            f"inputs of network {network.name!r} must share one batch size, but have"
            f" {sorted(set(batches.values()))}; give the same number of samples to each"
        )
    return given


def _names(network: Network) -> str:
    return ", ".join(f"{network.tensors[index].name!r} ({index})" for index in network.inputs)


def _check_input(tensor: Tensor, array: Array) -> None:
    if not isinstance(array, np.ndarray):
        raise InputError(
            f"input {tensor.name!r} must be a NumPy array, but is a {type(array).__name__};"
            f" wrap it with numpy.asarray(x, dtype=numpy.{DTYPES[tensor.dtype]})"
        )
    if array.dtype != DTYPES[tensor.dtype]:
        raise InputError(
            f"input {tensor.name!r} must have the element type {DTYPES[tensor.dtype]}, but has"
            f" {array.dtype}; quantize it to the scale of the tensor, then use"
            f" x.astype(numpy.{DTYPES[tensor.dtype]})"
        )
    if array.ndim != len(tensor.shape) or array.shape[1:] != tensor.shape[1:]:
        free = ("N", *(str(size) for size in tensor.shape[1:]))
        raise InputError(
            f"input {tensor.name!r} must have the shape ({', '.join(free)}), but has {array.shape};"
            " reshape it, batch axis first"
        )
    if array.size == 0:
        raise InputError(
            f"input {tensor.name!r} must hold at least one sample, but has the shape"
            f" {array.shape}; give a batch of one or more"
        )
    if tensor.dtype == "int4" and (array.min() < -8 or array.max() > 7):
        raise InputError(
            f"input {tensor.name!r} must hold int4 codes, -8 to 7, but reaches from {array.min()}"
            f" to {array.max()}; quantize it to 4 bits"
        )
    if tensor.dtype == "float32" and not np.isfinite(array).all():
        raise InputError(
            f"input {tensor.name!r} must be finite, but holds infinite or undefined values;"
            " clean the data first"
        )
