"""Powers of two (log2 quantization): levels 0 and +-a * 2**-i, i from 0 to 2**(b - 1) - 2.

Codes are +-2**e, e from 0 to 2**(b - 1) - 2: b = 4 fills int8. The nearest value is taken, and of
two equally near the smaller magnitude. The clipping point a is the largest magnitude
(``objective=max``) or searched for each channel.
"""

from __future__ import annotations

import numpy as np

from golden.errors import InputError
from golden.quantization.clipping import Int64Array
from golden.quantization.codes import OBJECTIVES, Levels, level_scales, projected, span
from golden.quantization.method import Method, Options, WeightCodes, WeightTask


def quantize(task: WeightTask, options: Options) -> WeightCodes:
    """Quantize one layer."""
    levels = Levels(np.append(0, power_codes(int(options["b"]), task.bits, "pot")))
    scales = level_scales(task, levels, str(options["objective"]), "pot")
    codes = projected(task.weights, scales, levels.project)
    return WeightCodes(codes, scales, task.bits, codes.size * int(options["b"]))


def power_codes(b: int, bits: int, method: str) -> Int64Array:
    """Positive codes of b-bit powers of two: 1, 2, 4 .. 2**(2**(b - 1) - 2)."""
    if not 2 <= b <= bits.bit_length():
        raise InputError(
            f"b of {method} must be {span(2, bits.bit_length())} for codes of {bits} bits, not"
            f" {b}; choose fewer powers of two"
        )
    return np.asarray(1 << np.arange(2 ** (b - 1) - 1))


METHOD = Method(
    name="pot",
    quantize=quantize,
    summary="nearest signed power of two or 0; clipping point searched",
    source="Miyashita et al. 2016 (1603.01025); levels as in Li et al. 2020 (1909.13144), eq. 3",
    options={"b": 4, "objective": "weights"},
    choices={"objective": ("max", *OBJECTIVES)},
)
