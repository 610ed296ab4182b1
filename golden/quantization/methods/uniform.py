"""Uniform quantization: equal steps, per channel or per tensor, with or without a zero point.

Symmetric: code = clip(rint(w / scale), -L, L), L = 2**(bits - 1) - 1, scale = clip / L.
Asymmetric (per tensor): code = clip(rint(w / scale) + zero_point, 0, 2**bits - 1), the range
widened to hold 0. rint takes ties to even codes.
"""

from __future__ import annotations

import numpy as np

from golden.errors import InputError
from golden.quantization.activations import quantization_parameters
from golden.quantization.blocks import each_block
from golden.quantization.clipping import (
    PERCENTILE,
    RANGE_RULES,
    Float64Array,
    Int64Array,
    RangeRule,
    symmetric_clip,
    unit_where_zero,
)
from golden.quantization.method import Method, Options, WeightCodes, WeightTask


def quantize(task: WeightTask, options: Options) -> WeightCodes:
    """Quantize one layer."""
    if options["scheme"] == "asymmetric":
        return _asymmetric(task, options)
    rows = task.weights
    tensor = options["per"] == "tensor"
    levels = (1 << (task.bits - 1)) - 1
    clips = symmetric_clip(
        rows.reshape(1, -1) if tensor else rows, levels, _rule(options), _percentile(options)
    )
    scales = np.broadcast_to(unit_where_zero(clips / levels), len(rows)).copy()
    codes = uniform_codes(rows, scales, task.bits)
    return WeightCodes(codes, scales, task.bits, rows.size * task.bits)


def uniform_codes(rows: Float64Array, scales: Float64Array, bits: int) -> Int64Array:
    """Symmetric codes clip(rint(w / scale), -L, L) of (C, K) weights; ties to even."""
    levels = (1 << (bits - 1)) - 1
    codes = np.empty(rows.shape, np.int64)

    def block(row: slice, column: slice) -> None:
        scaled = rows[row, column] / scales[row, np.newaxis]
        np.rint(scaled, out=scaled)
        codes[row, column] = np.clip(scaled, -levels, levels, out=scaled)

    each_block(block, rows.shape)
    return codes


def _asymmetric(task: WeightTask, options: Options) -> WeightCodes:
    if options["per"] != "tensor":
        raise InputError(
            "uniform with scheme=asymmetric has one zero point for the layer and needs per=tensor,"
            f" not per={options['per']}; write uniform:scheme=asymmetric,per=tensor"
        )
    rows = task.weights
    found = quantization_parameters(
        rows,
        task.bits,
        scheme="asymmetric",
        rule=_rule(options),
        percentile=_percentile(options),
        signed=False,
    )
    return WeightCodes(
        found.codes(rows),
        np.full(len(rows), found.scale),
        task.bits,
        rows.size * task.bits,
        found.zero_point,
    )


def _rule(options: Options) -> RangeRule:
    return next(rule for rule in RANGE_RULES if rule == options["range"])


def _percentile(options: Options) -> float:
    percentile = float(options["percentile"])
    if not 0 < percentile <= 100:
        raise InputError(
            f"percentile must be above 0 and at most 100, not {percentile:g}; for example 99.9"
        )
    return percentile


METHOD = Method(
    name="uniform",
    quantize=quantize,
    summary="equal steps from -L to L, or from 0 to 2**bits - 1 around a zero point",
    source="Jacob et al. 2018 (1712.05877), sections 2.1 and 3",
    options={"per": "channel", "scheme": "symmetric", "range": "max", "percentile": PERCENTILE},
    choices={
        "per": ("channel", "tensor"),
        "scheme": ("symmetric", "asymmetric"),
        "range": RANGE_RULES,
    },
)
