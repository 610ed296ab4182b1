"""BitNet b1.58: scale gamma = mean |w|, code = clip(rint(w / gamma), -1, 1).

The threshold is gamma / 2, where the tie goes to 0 (rint takes it to the even code). The scale is
the mean of all magnitudes, not of the kept ones, which a trained network makes up for.
"""

from __future__ import annotations

import numpy as np

from golden.quantization.clipping import unit_where_zero
from golden.quantization.method import Method, Options, WeightCodes, WeightTask
from golden.quantization.ternary import ternary_codes, trit_storage_bits


def quantize(task: WeightTask, options: Options) -> WeightCodes:
    """Quantize one layer."""
    rows = task.weights
    chosen = rows.reshape(1, -1) if options["per"] == "tensor" else rows
    gamma = np.broadcast_to(np.abs(chosen).mean(axis=1), len(rows)).copy()
    codes = ternary_codes(rows, gamma / 2)
    return WeightCodes(codes, unit_where_zero(gamma), 2, trit_storage_bits(codes.size))


METHOD = Method(
    name="absmean",
    quantize=quantize,
    summary="threshold mean |w| / 2, scale mean |w|",
    source="Ma et al. 2024 (2402.17764), BitNet b1.58, equations 1 to 3",
    options={"per": "tensor"},
    choices={"per": ("tensor", "channel")},
    trained=True,
)
