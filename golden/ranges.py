"""Which codes the tensors of a network can hold: what accumulator certificates start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from golden.check import INTEGER_FORMATS
from golden.network import (
    Add,
    Clamp,
    Concat,
    Layer,
    Mean,
    Mul,
    Network,
    Pad,
    Pool2D,
    Reshape,
    ResizeNearest,
    Tensor,
    WeightedLayer,
)

Array = NDArray[Any]

Range = tuple[int, int]
"""Smallest and largest code, both included."""

ActivationRange = Literal["datatype", "clamp", "calibrated"]
"""Where ranges come from.

* ``datatype``: every code of the tensor's element type (`datatype_range`). A proof.
* ``clamp``: what the producing layer can emit (`clamp_ranges`). A proof.
* ``calibrated``: what was seen on given inputs (`observed_range`). Not a proof.
"""


def datatype_range(tensor: Tensor) -> Range | None:
    """Codes of the tensor's element type; None where it holds floats."""
    fmt = INTEGER_FORMATS.get(tensor.dtype)
    return None if fmt is None else (fmt.min, fmt.max)


def clamp_ranges(
    network: Network, inputs: Mapping[int, Range] | None = None
) -> tuple[Range | None, ...]:
    """Range of every tensor of a network as its producing layer limits it.

    Parameters
    ----------
    network : Network
    inputs : mapping of tensor index to range, or None
        What inputs are promised to hold, in the place of the range of their element type.

    Returns
    -------
    tuple of (int, int) or None
        By tensor index; None where the tensor holds floats.

    Notes
    -----
    Network inputs have the range of their element type, constants that of their codes. Layers with
    an activation clamp emit what it lets through; pools first narrow it to the range of their
    input, since means and maxima stay between the extremes. Reshape and resize pass the range on,
    padding adds its value, concatenation unites its inputs. Everything else can emit its element
    type.
    """
    ranges = [datatype_range(tensor) for tensor in network.tensors]
    for constant in network.constants:
        ranges[constant.tensor] = (int(constant.codes.min()), int(constant.codes.max()))
    for index, promised in (inputs or {}).items():
        ranges[index] = promised
    for layer in network.layers:
        (target,) = layer.outputs
        sources = [codes for index in layer.inputs if (codes := ranges[index]) is not None]
        if len(sources) == len(layer.inputs) and ranges[target] is not None:
            ranges[target] = _emitted(layer, sources) or ranges[target]
    return tuple(ranges)


def _emitted(layer: Layer, sources: Sequence[Range]) -> Range | None:
    """Codes that a layer can emit; None where only the element type limits them."""
    if isinstance(layer, WeightedLayer | Mean | Add | Mul | Clamp):
        return layer.activation_min, layer.activation_max
    if isinstance(layer, Pool2D):
        limits = layer.activation_min, layer.activation_max
        low, high = (int(np.clip(code, *limits)) for code in sources[0])
        return low, high
    if isinstance(layer, Reshape | ResizeNearest):
        return sources[0]
    if isinstance(layer, Pad):
        return _union([sources[0], (layer.value, layer.value)])
    if isinstance(layer, Concat) and layer.rescale is None:
        return _union(sources)
    return None


def _union(ranges: Sequence[Range]) -> Range:
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def observed_range(codes: Array, earlier: Range | None = None) -> Range:
    """Smallest and largest of `codes`, and of what was seen `earlier`."""
    seen = (int(codes.min()), int(codes.max()))
    return seen if earlier is None else _union([earlier, seen])
