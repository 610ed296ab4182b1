"""Two scales, after trained ternary quantization: w ~ +p, 0 or -m times the channel's scale.

``rule=exact``: the least squared error, which falls apart into that of the positive and that of the
negative weights, each an exact ternary optimum. ``rule=threshold``: weights above t max |w| in
magnitude are kept, as the paper starts, and each sign's scale is the mean of its kept weights. The
paper goes on to train both scales, and so does `napier finetune`. The larger scale gets the largest
code, the other one the nearest, and with ``exact`` thresholds follow the rounded scales.
"""

from __future__ import annotations

import numpy as np

from golden.errors import InputError
from golden.quantization.clipping import Float64Array, unit_where_zero
from golden.quantization.codes import largest_code
from golden.quantization.method import Method, Options, WeightCodes, WeightTask
from golden.quantization.ternary import (
    exact_scales,
    means_of_kept,
    ternary_codes,
    trit_storage_bits,
)


def quantize(task: WeightTask, options: Options) -> WeightCodes:
    """Quantize one layer."""
    scales = starting_scales(task.weights, options)
    return two_scale_codes(task.weights, scales, task.bits, options)


def starting_scales(rows: Float64Array, options: Options) -> Float64Array:
    """Scales that follow from the weights: (2, C), of the positive and of the negative ones."""
    fixed = _fixed_thresholds(rows, options)
    sides = np.maximum(rows, 0), np.maximum(-rows, 0)
    if options["rule"] == "exact":
        return np.stack([exact_scales(side) for side in sides])
    return np.stack([means_of_kept(side, fixed) for side in sides])


def two_scale_codes(
    rows: Float64Array, reals: Float64Array, bits: int, options: Options
) -> WeightCodes:
    """Codes for scales that are given.

    Parameters
    ----------
    rows : (C, K) float64 array
    reals : (2, C) float64 array
        Of the positive and of the negative weights, not negative.
    bits : int
    options : mapping
        ``rule=exact`` takes the nearest of +p, 0 and -m; else thresholds are t max |w|.
    """
    scales = unit_where_zero(reals.max(axis=0) / largest_code(bits))
    fixed = _fixed_thresholds(rows, options)
    codes = np.zeros(rows.shape, np.int64)
    for sign, real in zip((1, -1), reals, strict=True):
        step = np.rint(real / scales)
        threshold = step * scales / 2 if options["rule"] == "exact" else fixed
        kept = ternary_codes(np.maximum(sign * rows, 0), threshold)
        codes += sign * kept * step.astype(np.int64)[:, np.newaxis]
    storage_bits = trit_storage_bits(rows.size) + len(rows) * bits
    return WeightCodes(codes, scales, bits, storage_bits)


def _fixed_thresholds(rows: Float64Array, options: Options) -> Float64Array:
    t = float(options["t"])
    if not 0 <= t < 1:
        raise InputError(f"t of ttq must be 0 or above and below 1, not {t:g}; for example 0.05")
    return np.asarray(t * np.abs(rows).max(axis=1))


METHOD = Method(
    name="ttq",
    quantize=quantize,
    summary="two scales, of positive and negative weights; exact, or thresholds 0.05 max |w|",
    source="Zhu et al. 2017 (1612.01064), equations 6 and 9",
    options={"rule": "exact", "t": 0.05},
    choices={"rule": ("exact", "threshold")},
    trained=True,
)
