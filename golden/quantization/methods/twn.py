"""Ternary weight networks: threshold 0.7 mean |w|, scale the mean of the magnitudes above it."""

from __future__ import annotations

import numpy as np

from golden.errors import InputError
from golden.quantization.clipping import unit_where_zero
from golden.quantization.method import Method, Options, WeightCodes, WeightTask
from golden.quantization.ternary import means_of_kept, ternary_codes, trit_storage_bits


def quantize(task: WeightTask, options: Options) -> WeightCodes:
    """Quantize one layer."""
    rows, factor = task.weights, float(options["factor"])
    if not factor >= 0:
        raise InputError(f"factor of twn must be 0 or above, not {factor:g}; for example 0.7")
    chosen = rows.reshape(1, -1) if options["per"] == "tensor" else rows
    thresholds = factor * np.abs(chosen).mean(axis=1)
    alpha = unit_where_zero(means_of_kept(chosen, thresholds))
    codes = ternary_codes(rows, np.broadcast_to(thresholds, len(rows)))
    scales = np.broadcast_to(alpha, len(rows)).copy()
    return WeightCodes(codes, scales, 2, trit_storage_bits(codes.size))


METHOD = Method(
    name="twn",
    quantize=quantize,
    summary="threshold 0.7 mean |w|, scale the mean of the kept magnitudes",
    source="Li et al. 2016 (1605.04711), equations 5 and 6",
    options={"per": "channel", "factor": 0.7},
    choices={"per": ("channel", "tensor")},
    trained=True,
)
