"""Exact ternary optimum: least squared error over all ternary vectors and scales.

The k largest magnitudes are kept, k = argmax (their sum)**2 / k; alpha is their mean and the
threshold alpha / 2. One scale for each channel or for the layer; for groups of weights see ``fgq``.
"""

from __future__ import annotations

import numpy as np

from golden.quantization.clipping import unit_where_zero
from golden.quantization.method import Method, Options, WeightCodes, WeightTask
from golden.quantization.ternary import exact_scales, ternary_codes, trit_storage_bits


def quantize(task: WeightTask, options: Options) -> WeightCodes:
    """Quantize one layer."""
    rows = task.weights
    alpha = exact_scales(rows.reshape(1, -1) if options["per"] == "tensor" else rows)
    scales = np.broadcast_to(alpha, len(rows)).copy()
    codes = ternary_codes(rows, scales / 2)
    return WeightCodes(codes, unit_where_zero(scales), 2, trit_storage_bits(codes.size))


METHOD = Method(
    name="ternary",
    quantize=quantize,
    summary="exact optimum: threshold alpha / 2, alpha the mean of the kept magnitudes",
    source="Li et al. 2016 (1605.04711), equation 3, solved exactly by sorting",
    options={"per": "channel"},
    choices={"per": ("channel", "tensor")},
)
