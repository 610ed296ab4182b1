"""Uniform quantization: equal steps, per channel or per tensor, with or without a zero point.

Symmetric: code = clip(rint(w / scale), -L, L), L = 2**(bits - 1) - 1, scale = clip / L.
Asymmetric (per tensor): code = clip(rint(w / scale) + zero_point, 0, 2**bits - 1), the range
widened to hold 0. rint takes ties to even codes.
"""

from __future__ import annotations

import numpy as np

from golden.errors import InputError
from golden.quantization.activations import quantization_parameters
from golden.quantization.clipping import PERCENTILE, RANGE_RULES
from golden.quantization.codes import percentile, range_rule, symmetric_codes, symmetric_scales
from golden.quantization.method import Method, Options, WeightCodes, WeightTask


def quantize(task: WeightTask, options: Options) -> WeightCodes:
    """Quantize one layer."""
    if options["scheme"] == "asymmetric":
        return _asymmetric(task, options)
    scales = symmetric_scales(task.weights, task.bits, options)
    codes = symmetric_codes(task.weights, scales, task.bits)
    return WeightCodes(codes, scales, task.bits, codes.size * task.bits)


def _asymmetric(task: WeightTask, options: Options) -> WeightCodes:
    if options["per"] != "tensor":
        raise InputError(
            "uniform with scheme=asymmetric has one zero point for the layer and needs per=tensor,"
            f" not per={options['per']}; write uniform:scheme=asymmetric,per=tensor"
        )
    found = quantization_parameters(
        task.weights,
        task.bits,
        scheme="asymmetric",
        rule=range_rule(options),
        percentile=percentile(options),
        signed=False,
    )
    codes = found.codes(task.weights)
    scales = np.full(len(codes), found.scale)
    return WeightCodes(codes, scales, task.bits, codes.size * task.bits, found.zero_point)


METHOD = Method(
    name="uniform",
    quantize=quantize,
    summary="nearest of equal steps, -L to L, or 0 to 2**bits - 1 around a zero point",
    source="Jacob et al. 2018 (1712.05877), sections 2.1 and 3",
    options={"per": "channel", "scheme": "symmetric", "range": "max", "percentile": PERCENTILE},
    choices={
        "per": ("channel", "tensor"),
        "scheme": ("symmetric", "asymmetric"),
        "range": RANGE_RULES,
    },
)
