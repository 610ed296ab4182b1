"""Two scales, after trained ternary quantization: w ~ +p, 0 or -m times the channel's scale.

``rule=exact``: the least squared error, which falls apart into that of the positive and that of the
negative weights, each an exact ternary optimum. ``rule=threshold``: weights above t max |w| in
magnitude are kept, as the paper starts, and each sign's scale is the mean of its kept weights; the
paper goes on to train both scales. The larger scale gets the largest code, the other one the
nearest, and with ``exact`` thresholds follow the rounded scales.
"""

from __future__ import annotations

import numpy as np

from golden.quantization.clipping import unit_where_zero
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
    rows, largest = task.weights, largest_code(task.bits)
    sides = [np.maximum(rows, 0), np.maximum(-rows, 0)]
    fixed = float(options["t"]) * np.abs(rows).max(axis=1)
    exact = options["rule"] == "exact"
    reals = [exact_scales(side) if exact else means_of_kept(side, fixed) for side in sides]
    scales = unit_where_zero(np.maximum(*reals) / largest)
    steps = [np.rint(real / scales) for real in reals]
    kept = [
        ternary_codes(side, step * scales / 2 if exact else fixed)
        for side, step in zip(sides, steps, strict=True)
    ]
    positive, negative = (
        q * step.astype(np.int64)[:, np.newaxis] for q, step in zip(kept, steps, strict=True)
    )
    bits = trit_storage_bits(rows.size) + len(rows) * task.bits
    return WeightCodes(positive - negative, scales, task.bits, bits)


METHOD = Method(
    name="ttq",
    quantize=quantize,
    summary="two scales, of positive and negative weights; exact, or thresholds 0.05 max |w|",
    source="Zhu et al. 2017 (1612.01064), equations 6 and 9",
    options={"rule": "exact", "t": 0.05},
    choices={"rule": ("exact", "threshold")},
    trained=True,
)
