"""EasyQuant: uniform codes whose scale brings each output channel nearest in angle.

The start is the scale of the largest magnitude; see `golden.quantization.search` for what is tried.
The cosine is taken over all calibration data at once, from its moments. It does not see the length
of a channel's outputs, so that the scale which the codes stand for takes up what clipping took, by
least squares: the codes and the cosine stay. Alternation with the scales
of activations, layer after layer, is the business of whoever quantizes the network.
"""

from __future__ import annotations

from golden.quantization.clipping import Float64Array, largest_magnitude, unit_where_zero
from golden.quantization.codes import largest_code, symmetric_codes
from golden.quantization.method import Method, Options, WeightCodes, WeightTask
from golden.quantization.search import (
    SEARCH_RANGES,
    output_cosines,
    output_gains,
    require_moments,
    search_scale,
)


def quantize(task: WeightTask, options: Options) -> WeightCodes:
    """Quantize one layer."""
    moments = require_moments(task.moments, "easyquant")
    rows, bits = task.weights, task.bits

    def score(scales: Float64Array) -> Float64Array:
        reals = scales[:, None] * symmetric_codes(rows, scales, bits)
        return output_cosines(reals, moments)

    start = unit_where_zero(largest_magnitude(rows) / largest_code(bits))
    ranges = next(name for name in SEARCH_RANGES if name == options["ranges"])
    scales = search_scale(start, score, ranges)
    codes = symmetric_codes(rows, scales, bits)
    scales = scales * output_gains(scales[:, None] * codes, moments)
    return WeightCodes(codes, scales, bits, codes.size * bits)


METHOD = Method(
    name="easyquant",
    quantize=quantize,
    summary="uniform; scale of each channel by the cosine of its outputs",
    source="Wu et al. 2020 (2006.16669), section 3.1, algorithm 1",
    options={"ranges": "paper"},
    choices={"ranges": SEARCH_RANGES},
    needs_data=True,
)
