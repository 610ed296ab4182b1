"""INQ's levels in one shot: 0 and +-2**n2 .. +-2**n1 for the whole layer.

s = max |w|, n1 = floor(log2(4 s / 3)), n2 = n1 + 1 - 2**(b - 1) / 2. Of adjacent levels alpha <
beta, w takes beta where (alpha + beta) / 2 <= |w| < 3 beta / 2, so that a midpoint goes up. The
paper quantizes a share of the weights at a time and trains the others; here all are projected at
once.
"""

from __future__ import annotations

import numpy as np

from golden.errors import InputError
from golden.quantization.clipping import Float64Array
from golden.quantization.codes import projected, span
from golden.quantization.method import Method, Options, WeightCodes, WeightTask


def quantize(task: WeightTask, options: Options) -> WeightCodes:
    """Quantize one layer."""
    b = int(options["b"])
    most = (task.bits - 1).bit_length() + 1
    if not 2 <= b <= most:
        raise InputError(
            f"b of inq must be {span(2, most)} for codes of {task.bits} bits, not {b}; choose fewer"
            " powers of two"
        )
    count = 2 ** (b - 2)
    levels = np.append(0, 1 << np.arange(count))
    midpoints = (levels[:-1] + levels[1:]) / 2

    def project(scaled: Float64Array) -> Float64Array:
        nearest = levels[np.searchsorted(midpoints, np.abs(scaled), side="right")]
        return np.asarray(np.copysign(nearest, scaled))

    largest = float(np.abs(task.weights).max())
    n1 = int(np.floor(np.log2(4 * largest / 3))) if largest > 0 else 0
    scales = np.full(len(task.weights), np.ldexp(1.0, n1 - count + 1))
    codes = projected(task.weights, scales, project)
    return WeightCodes(codes, scales, task.bits, codes.size * b)


METHOD = Method(
    name="inq",
    quantize=quantize,
    summary="nearest of 2**(b - 2) powers of two or 0, scale a power of two",
    source="Zhou et al. 2017 (1702.03044), equations 1 to 4",
    options={"b": 4},
    trained=True,
)
