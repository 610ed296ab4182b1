"""Loss-aware ternary: least sum of d (w - alpha q)**2, d the mean squared input of each weight.

d is the diagonal of the layer's Gram matrix, the curvature of its squared output error where inputs
do not correlate. The papers alternate between q = sign(w) [|w| > alpha / 2] and alpha = sum d |w| /
sum d over the kept weights while they train; the optimum that they walk to is found here by
sorting, see `golden.quantization.ternary.exact_scales`.
"""

from __future__ import annotations

import numpy as np

from golden.quantization.clipping import unit_where_zero
from golden.quantization.method import Method, Options, WeightCodes, WeightTask
from golden.quantization.search import require_moments
from golden.quantization.ternary import exact_scales, ternary_codes, trit_storage_bits


def quantize(task: WeightTask, options: Options) -> WeightCodes:
    """Quantize one layer."""
    rows = task.weights
    gram = require_moments(task.moments, "lat").gram
    diagonal = np.maximum(np.einsum("gkk->gk", gram), 0)
    importance = np.repeat(diagonal, len(rows) // len(diagonal), axis=0)
    if options["per"] == "tensor":
        alpha = exact_scales(rows.reshape(1, -1), importance.reshape(1, -1))
    else:
        alpha = exact_scales(rows, importance)
    scales = np.broadcast_to(alpha, len(rows)).copy()
    codes = ternary_codes(rows, scales / 2)
    return WeightCodes(codes, unit_where_zero(scales), 2, trit_storage_bits(codes.size))


METHOD = Method(
    name="lat",
    quantize=quantize,
    summary="exact optimum of the squared error weighted by the mean squared input",
    source="Hou and Kwok 2018 (1802.08635), LAT, with the Gram diagonal for Adam's second moment",
    options={"per": "channel"},
    choices={"per": ("channel", "tensor")},
    needs_data=True,
    trained=True,
)
