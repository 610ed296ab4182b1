"""A Winograd layer on accumulators of a declared width, as an array of them computes it.

The array sees one product of the transform after another. A *part* is the sum of U * V for one of
them over a chunk of the input channels, in an accumulator that starts at 0; the results of parts go
to the output transform, which keeps the low bits of everything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from golden.accumulate import AccumulateResult, Accumulator, Steps, accumulate_layer
from golden.errors import InputError
from golden.formats import Int64Array
from golden.network import Conv2D, FullyConnected, Requantization
from golden.operators import Array, operands
from golden.winograd.convolution import (
    accumulators_of_sums,
    choose,
    transformed_inputs,
    transformed_weights,
)
from golden.winograd.transforms import Transform


@dataclass(frozen=True)
class ArrayResult:
    """What the accumulators of a Winograd layer left.

    Parameters
    ----------
    accumulators : (N, P, Q, out_channels) int64 array
        Divided; P - t bits of them, P being the width of a part's result and 2**t the power of two
        in the divisor. They are those of the direct sum, wrapped to as many bits, unless a part
        saturated, or overflowed a narrow accumulator before it spilled.
    parts : AccumulateResult
        Of every part: (N, tile_rows, tile_columns, products, chunks, out_channels).
    """

    accumulators: Int64Array
    parts: AccumulateResult


def accumulate_winograd(
    layer: Conv2D,
    codes: Array,
    transform: Transform,
    accumulator: Accumulator,
    chunk_channels: int,
    steps: Steps = "product",
    terms: int | None = None,
) -> ArrayResult:
    """Accumulate every part of a Winograd layer step by step.

    Parameters
    ----------
    layer : Conv2D
        One that the transform computes.
    codes : (N, H, W, C) integer array
    transform : Transform
    accumulator : Accumulator
        Its result must be wider than the transform's shift.
    chunk_channels : int
        Input channels of a part, at least 1; the last part of a group has what is left.
    steps, terms
        What one step adds, of the transformed weights (`golden.accumulate.step_coefficients`).

    Raises
    ------
    InputError
        Where the transform does not compute the layer, or a number is out of range.
    HardwareError
        Where the steps cannot hold the transformed weights.
    """
    choice = choose(layer, transform)
    if choice.transform is None:
        raise InputError(
            f"layer {layer.name!r} is not computed by {transform.name}: {choice.reason}; accumulate"
            " it directly"
        )
    bits = accumulator.result_bits
    if chunk_channels < 1 or bits <= transform.shift:
        raise InputError(
            f"chunk_channels must be at least 1 and the accumulator wider than {transform.shift}"
            f" bits, but they are {chunk_channels} and {bits}; choose numbers in range"
        )
    x, w = operands(layer, codes)
    V = transformed_inputs(transform, layer, x)
    U = transformed_weights(transform, w)
    K, products, C = U.shape
    starts = range(0, C, chunk_channels)
    grid = [
        [
            _part(
                V[..., p, :],
                U[:, p],
                layer.groups,
                slice(start, min(start + chunk_channels, C)),
                accumulator,
                steps,
                terms,
            )
            for start in starts
        ]
        for p in range(products)
    ]

    def gathered(name: str) -> Array:
        stacked = np.array([[getattr(part, name) for part in row] for row in grid])
        return np.moveaxis(stacked, 2, 0).reshape(*V.shape[:3], products, len(starts), K)

    parts = AccumulateResult(
        **{name: gathered(name) for name in AccumulateResult.__dataclass_fields__}
    )
    sums = parts.value.sum(axis=4)
    return ArrayResult(accumulators_of_sums(layer, x, sums, transform, bits), parts)


def _part(
    V: Int64Array,
    U: Int64Array,
    groups: int,
    chunk: slice,
    accumulator: Accumulator,
    steps: Steps,
    terms: int | None,
) -> AccumulateResult:
    """One product and chunk of all tiles and channels: records of (tiles, out_channels)."""
    K, C = U.shape
    width = K // groups
    results = []
    for g in range(groups):
        rows = V[..., g * C : (g + 1) * C][..., chunk].reshape(-1, chunk.stop - chunk.start)
        dense = _dense(U[g * width : (g + 1) * width, chunk])
        results.append(accumulate_layer(dense, rows, accumulator, steps, terms))

    def joined(name: str) -> Array:
        return np.concatenate([getattr(result, name) for result in results], axis=1)

    return AccumulateResult(
        **{name: joined(name) for name in AccumulateResult.__dataclass_fields__}
    )


def _dense(weights: Int64Array) -> FullyConnected:
    """Make a layer of these weights; only its sums are asked for."""
    unused = Requantization(np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.int32))
    return FullyConnected("part", (), (), weights, 16, 0, None, 0, 0, unused, 0, 0)
