"""Layers described by ranges: accumulators for weights that nobody has yet.

A TOML file names, for each layer, how many products one accumulator adds and what weights and
activations can be. It becomes a network that every command reads: one fully connected layer for
each, behind a clamp that lets through the codes of its range.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.accumulate import naf_digits
from golden.check import INTEGER_FORMATS, check_network
from golden.errors import ModelError
from golden.formats import bits_needed
from golden.network import Clamp, FullyConnected, Layer, Network, Requantization, Tensor

Array = NDArray[Any]

KEYS = {"name", "products", "weights", "activations"}
LARGEST_PRODUCTS = 1 << 20
ACTIVATION_TYPES = ("int8", "uint8", "int16")
WEIGHT_TYPES = ("int8", "int16")
LARGEST_FILE_BYTES = 1 << 20


def load_described(path: Path) -> Network:
    """Read layers from a TOML file.

    Parameters
    ----------
    path : Path
        ``[[layers]]`` with ``name``, ``products``, ``weights`` and ``activations``, the last two as
        [smallest, largest]; activations are meant without their zero point.

    Returns
    -------
    Network
        Channels of a layer hold the weights that are worst within the range.

    Raises
    ------
    ModelError
        No such description.
    """
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise ModelError(f"{path} is too large for a description of layers; give a smaller one")
        described = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ModelError(f"{path} is not a TOML file: {error}; see docs/widths.md") from None
    layers = described.get("layers")
    if set(described) != {"layers"} or not isinstance(layers, list) or not layers:
        raise ModelError(
            f"{path} must hold [[layers]] and nothing else, but holds"
            f" {', '.join(sorted(described)) or 'nothing'}; see docs/widths.md"
        )
    names = [layer.get("name") if isinstance(layer, dict) else None for layer in layers]
    if len({str(name) for name in names}) < len(names):
        raise ModelError(f"{path}: every layer must have a name of its own; rename one")
    built: list[Layer] = []
    tensors: list[Tensor] = []
    for layer in layers:
        _add_layer(str(path), layer, tensors, built)
    ends = range(0, len(tensors), 3)
    network = Network(
        path.stem,
        tuple(tensors),
        tuple(built),
        inputs=tuple(ends),
        outputs=tuple(end + 2 for end in ends),
        source=str(path),
    )
    check_network(network)
    return network


def _add_layer(path: str, layer: object, tensors: list[Tensor], built: list[Layer]) -> None:
    """Append a clamp and a fully connected layer, with their tensors."""
    if not isinstance(layer, dict) or set(layer) != KEYS or not isinstance(layer["name"], str):
        raise ModelError(
            f"{path}: every layer must have {', '.join(sorted(KEYS))}; see docs/widths.md"
        )
    name, products = layer["name"], layer["products"]
    if type(products) is not int or not 1 <= products <= LARGEST_PRODUCTS:
        raise ModelError(
            f"{path}: products of layer {name!r} must be 1 to {LARGEST_PRODUCTS}, but is"
            f" {products!r}; give how many one accumulator adds"
        )
    low, high = _range(path, name, "activations", layer["activations"])
    activation_type = _smallest(path, name, "activations", (low, high), ACTIVATION_TYPES)
    weight_range = _range(path, name, "weights", layer["weights"])
    weight_type = _smallest(path, name, "weights", weight_range, WEIGHT_TYPES)
    weights = worst_weights(*weight_range, products).astype(weight_type)
    first = len(tensors)
    tensors += [
        Tensor(f"{name}_codes", (1, products), activation_type, 1.0, 0),
        Tensor(f"{name}_operands", (1, products), activation_type, 1.0, 0),
        Tensor(f"{name}_sums", (1, len(weights)), activation_type, 1.0, 0),
    ]
    as_is = Requantization(np.array([1 << 30], np.int32), np.array([0], np.int32), "shift_half_up")
    common: dict[str, Any] = {
        "requantization": as_is,
        "input_zero_point": 0,
        "output_zero_point": 0,
    }
    built.append(
        Clamp(
            f"{name}_clamp", (first,), (first + 1,),
            activation_min=low, activation_max=high, **common,
        )
    )  # fmt: skip
    limits = INTEGER_FORMATS[activation_type]
    built.append(
        FullyConnected(
            name, (first + 1,), (first + 2,), weights=weights,
            weight_bits=max(2, bits_needed(*weight_range)) if weight_type == "int8" else 16,
            weight_zero_point=0, bias=None,
            activation_min=limits.min, activation_max=limits.max, **common,
        )
    )  # fmt: skip


def _range(path: str, name: str, what: str, given: object) -> tuple[int, int]:
    if isinstance(given, list) and len(given) == 2 and all(type(end) is int for end in given):
        low, high = given
        if low <= high:
            return low, high
    raise ModelError(
        f"{path}: {what} of layer {name!r} must be [smallest, largest], two whole numbers, but are"
        f" {given!r}; for example [-1, 1]"
    )


def _smallest(
    path: str, name: str, what: str, ends: tuple[int, int], types: tuple[str, ...]
) -> str:
    """Name the first type that holds the range."""
    for each in types:
        fmt = INTEGER_FORMATS[each]
        if fmt.min <= ends[0] and ends[1] <= fmt.max:
            return each
    raise ModelError(
        f"{path}: {what} of layer {name!r} must fit {' or '.join(types)}, but are {list(ends)};"
        " give a smaller range"
    )


def worst_weights(low: int, high: int, products: int) -> Array:
    """Weights in a range whose accumulators reach as far as any in it can.

    A sum is worst where every weight is at one end of the range. Where terms are added one by one,
    the last weight may reach further on the way than the end does (7 = 8 - 1).

    Returns
    -------
    (channels, products) int64 array
    """
    values = np.arange(low, high + 1)
    partial = np.cumsum(naf_digits(values), axis=0).reshape(-1, len(values))
    reach = [
        int(values[extreme.argmax()])
        for extreme in (partial.max(axis=0, initial=0), -partial.min(axis=0, initial=0))
    ]
    rows = {
        (most, last): np.append(np.full(products - 1, most), last)
        for most in (low, high)
        for last in (most, *reach)
    }
    return np.array(list(rows.values()), dtype=np.int64)
