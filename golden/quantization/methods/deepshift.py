"""DeepShift: w ~ sign(w) * 2**p, p = round(log2 |w|), without any other scale.

A weight between two powers of two takes the larger above sqrt(2) times the smaller (the nearest
value would change at 1.5). 2**(b - 1) - 1 exponents are there, the largest that of the layer's
largest weight (in the paper's code 0, for weights below 1); smaller weights are raised to the
smallest, as there, and only 0 becomes 0. Scales are powers of two.
"""

from __future__ import annotations

import numpy as np

from golden.quantization.clipping import unit_where_zero
from golden.quantization.method import Method, Options, WeightCodes, WeightTask
from golden.quantization.methods.pot import power_codes


def quantize(task: WeightTask, options: Options) -> WeightCodes:
    """Quantize one layer."""
    powers = power_codes(int(options["b"]), task.bits, "deepshift")
    magnitudes = np.abs(task.weights)
    exponents = np.rint(np.log2(unit_where_zero(magnitudes)))
    used = exponents[magnitudes > 0]
    largest = int(used.max()) if used.size else 0
    smallest = largest - len(powers) + 1
    kept = np.clip(exponents, smallest, largest) - smallest
    codes = np.sign(task.weights).astype(np.int64) * powers[kept.astype(np.int64)]
    scales = np.full(len(codes), np.ldexp(1.0, smallest))
    return WeightCodes(codes, scales, task.bits, codes.size * int(options["b"]))


METHOD = Method(
    name="deepshift",
    quantize=quantize,
    summary="sign and rounded log2 of the magnitude, no other scale",
    source="Elhoushi et al. 2021 (1905.13298), DeepShift-Q, and its code",
    options={"b": 4},
    trained=True,
)
