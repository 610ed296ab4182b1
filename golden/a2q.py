"""Weights that a given accumulator provably holds, projected after training.

Each channel keeps the direction of its weights and is shortened until no sum can overflow, rounding
toward zero, since rounding to nearest could make it longer again. The channel's requantization
takes up the factor, so what is lost is resolution. Nothing is learned again: A2Q and A2Q+ are meant
for training with the bound in place, and A2Q+ removes the mean of each channel, which a network
that was not trained for it does not survive.

Sources: A2Q, Colbert et al. 2023 (l1 bound, round toward zero); A2Q+, Colbert et al. 2024
(zero-centred weights). All arithmetic on weights is in integers.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from golden.certificates import operand_range
from golden.check import INTEGER_FORMATS, check_network
from golden.errors import InputError
from golden.formats import Int64Array, bits_needed
from golden.network import Network, Requantization, Tensor, WeightedLayer
from golden.quantization import requantization
from golden.ranges import Range

Method = Literal["a2q", "a2q+", "exact"]
"""What must not exceed the accumulator, for operands of the element type's whole range [a, b].

* ``a2q``: the sum of the weights' magnitudes times 2**(N - s) (N-bit operands, s = 1 where signed).
* ``a2q+``: with the mean of the channel subtracted, that sum times (b - a) / 2.
* ``exact``: the exact worst cases of the sum, so the least is shortened.
"""

METHODS: tuple[Method, ...] = get_args(Method)

NARROWEST, WIDEST = 2, 48


def project_to_width(network: Network, acc_bits: int, method: Method) -> Network:
    """Shorten the weights of every layer until accumulators of `acc_bits` hold every sum.

    Parameters
    ----------
    network : Network
    acc_bits : int
        2 to 48.
    method : Method

    Returns
    -------
    Network
        Weight zero points become 0. Channels that fit are left alone (centred by ``a2q+``).

    Raises
    ------
    InputError
        For a width out of range.
    """
    if not NARROWEST <= acc_bits <= WIDEST:
        raise InputError(
            f"weights can be projected to accumulators of {NARROWEST} to {WIDEST} bits, not"
            f" {acc_bits}; choose a width in range"
        )
    layers = [
        _project_layer(layer, network.tensors[layer.inputs[0]], acc_bits, method)
        if isinstance(layer, WeightedLayer)
        else layer
        for layer in network.layers
    ]
    projected = replace(network, layers=tuple(layers))
    check_network(projected)
    return projected


def shorten(weights: Int64Array, x_range: Range, acc_bits: int, method: Method) -> Int64Array:
    """Shorten channels until accumulators of `acc_bits` hold their sums.

    Parameters
    ----------
    weights : (channels, taps) int64 array
        Zero points subtracted.
    x_range : (int, int)
        Of the operands; it holds 0.
    acc_bits : int
    method : Method

    Returns
    -------
    (channels, taps) int64 array
    """
    rows = []
    for row in weights.tolist():
        unit = len(row) if method == "a2q+" else 1
        mean = sum(row) if method == "a2q+" else 0
        scaled = [unit * w - mean for w in row]  # integers, `unit` times what is shortened
        room = _room(scaled, x_range, acc_bits, method)
        factor = min(Fraction(1, unit), room)
        over, under = factor.numerator, factor.denominator
        rows.append([v * over // under if v > 0 else -(-v * over // under) for v in scaled])
    return np.array(rows, dtype=np.int64)


def _room(row: list[int], x_range: Range, acc_bits: int, method: Method) -> Fraction:
    """Factor at which a channel just fits; 1 where it is all zeros."""
    low, high = x_range
    half = 1 << (acc_bits - 1)
    positive = sum(v for v in row if v > 0)
    negative = -sum(v for v in row if v < 0)
    if method == "exact":
        sums = [(positive * high - negative * low, half - 1)]
        sums += [(negative * high - positive * low, half)]
    elif method == "a2q":
        sums = [((positive + negative) << (bits_needed(low, high) - 1), half - 1)]
    else:
        sums = [((positive + negative) * (high - low), 2 * half - 2)]
    return min((Fraction(room, size) for size, room in sums if size > 0), default=Fraction(1))


def _project_layer(
    layer: WeightedLayer, source: Tensor, acc_bits: int, method: Method
) -> WeightedLayer:
    codes = INTEGER_FORMATS[source.dtype]
    weights = layer.weights.astype(np.int64) - layer.weight_zero_point
    rows = weights.reshape(len(weights), -1)
    short = shorten(rows, operand_range(layer, (codes.min, codes.max)), acc_bits, method)
    factor = _least_squares(rows, short)
    rule = layer.requantization
    # A power-of-two scale cannot take up the factor.
    rounding = "single" if rule.rounding.startswith("shift") else rule.rounding
    bits = max(layer.weight_bits, bits_needed(int(short.min()), int(short.max())))
    fits_byte = bits <= 8
    return replace(
        layer,
        weights=short.reshape(weights.shape).astype(np.int8 if fits_byte else np.int16),
        weight_bits=bits if fits_byte else 16,
        weight_zero_point=0,
        bias=None if layer.bias is None else np.rint(layer.bias / factor).astype(np.int64),
        requantization=rule
        if (factor == 1).all()
        else requantization(_real_multipliers(rule) * factor, rounding),
    )


def _least_squares(rows: Int64Array, short: Int64Array) -> NDArray[np.float64]:
    """Per channel the factor f that brings f * short nearest to rows; 1 where that is no factor."""
    lengths = (short * short).sum(axis=1)
    products = (short * rows).sum(axis=1)
    factor: NDArray[np.float64] = np.where(products > 0, products / np.maximum(lengths, 1), 1.0)
    return factor


def _real_multipliers(rule: Requantization) -> NDArray[Any]:
    if rule.rounding.startswith("shift"):
        return np.ldexp(1.0, rule.shift)
    return np.ldexp(rule.multiplier.astype(np.float64), rule.shift - 31)
