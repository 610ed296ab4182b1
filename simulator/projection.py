"""Weights that another PE can take: n-hot and ternary projections of a quantized network.

Both are approximations made after training: the projected network is another network than the
file's, and nothing is learned again. The projections are those of `golden.quantization`, which
quantizes float networks; here they start from integers, and an n-hot weight keeps its scale.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from golden.check import check_network
from golden.errors import InputError
from golden.multipliers import requantization
from golden.network import Network, Requantization, WeightedLayer
from golden.quantization.clipping import unit_where_zero
from golden.quantization.codes import nearest_nhot
from golden.quantization.ternary import exact_scales, ternary_codes

INT8_MAX_EXPONENT = 7
"""Largest power of two of an n-hot int8 weight: 127 = 128 - 1 is 2-hot."""

MAX_TERMS = 8


def project_weights(network: Network, weights: str) -> Network:
    """Project the weights of all array layers.

    Parameters
    ----------
    network : Network
    weights : str
        ``"as-is"``, ``"nhot:N"`` with N from 1 to 8, or ``"ternary"``.

    Returns
    -------
    Network
        Its own zero point subtracted from every weight; weight zero points become 0.

    Raises
    ------
    InputError
        For another text.
    """
    if weights == "as-is":
        return network
    if weights == "ternary":
        layers = [_ternary_layer(x) if isinstance(x, WeightedLayer) else x for x in network.layers]
    else:
        terms = _terms(weights)
        layers = [
            _nhot_layer(x, terms) if isinstance(x, WeightedLayer) else x for x in network.layers
        ]
    projected = replace(network, layers=tuple(layers))
    check_network(projected)
    return projected


def _terms(weights: str) -> int:
    kind, _, number = weights.partition(":")
    if kind == "nhot" and number.isascii() and number.isdigit() and 1 <= int(number) <= MAX_TERMS:
        return int(number)
    raise InputError(
        f"weights must be as-is, nhot:N with N from 1 to {MAX_TERMS}, or ternary, not {weights!r};"
        " choose one, for example nhot:2"
    )


# -- n-hot ----------------------------------------------------------------------------------------


def _nhot_layer(layer: WeightedLayer, terms: int) -> WeightedLayer:
    """Project in the symmetric code range, or down to the least weight where that is beyond it.

    Exponents reach 7, and 8 where uint8 weights minus their zero point do not fit int8 (they are
    then stored as int16).
    """
    centred = layer.weights.astype(np.int64) - layer.weight_zero_point
    bits = layer.weight_bits
    if layer.weights.dtype == np.uint8:
        bits = 8 if centred.min() >= -128 and centred.max() <= 127 else 9
    high = (1 << (bits - 1)) - 1
    low = min(-high, int(centred.min()))
    exponent = max(INT8_MAX_EXPONENT, bits - 1)
    nearest = nearest_nhot(np.arange(low, high + 1), terms, exponent, low, high)
    table = nearest.astype(np.int8 if bits <= 8 else np.int16)
    return replace(
        layer,
        weights=table[np.minimum(centred, high) - low],
        weight_bits=bits if bits <= 8 else 16,
        weight_zero_point=0,
    )


# -- ternary --------------------------------------------------------------------------------------


def _ternary_layer(layer: WeightedLayer) -> WeightedLayer:
    """Ternary weights, one scale for each output channel folded into the requantization.

    The accumulator shrinks by alpha, so the multiplier grows by it and the bias code is divided by
    it and rounded. A power-of-two scale cannot take up alpha: the shift rules become ``single``.
    """
    centred = layer.weights.astype(np.int64) - layer.weight_zero_point
    rows = centred.reshape(len(centred), -1).astype(np.float64)
    alpha = unit_where_zero(exact_scales(rows))
    rule = layer.requantization
    reals = _real_multipliers(rule) * alpha
    rounding = "single" if rule.rounding.startswith("shift") else rule.rounding
    bias = None if layer.bias is None else np.rint(layer.bias / alpha).astype(np.int64)
    return replace(
        layer,
        weights=ternary_codes(rows, alpha / 2).reshape(centred.shape).astype(np.int8),
        weight_bits=2,
        weight_zero_point=0,
        bias=bias,
        requantization=requantization(reals, rounding),
    )


def _real_multipliers(rule: Requantization) -> NDArray[np.float64]:
    if rule.rounding.startswith("shift"):
        return np.ldexp(1.0, rule.shift)
    return np.ldexp(rule.multiplier.astype(np.float64), rule.shift - 31)
