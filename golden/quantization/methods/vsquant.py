"""VS-Quant: short vectors along the input channels, each with an integer scale of a few bits.

Elements have n bits, s_v = max |w| / (2**(n - 1) - 1) in vector v; the channel's gamma = max s_v /
(2**m - 1), the vector's integer scale is s_v / gamma rounded (``nearest``, ties to even, or up:
``ceil``) to 0 .. 2**m - 1, and w ~ q * (integer scale) * gamma. The code is q times the integer
scale: n + m bits, which the hardware's codes must have. Vectors: `golden.quantization.groups`.
"""

from __future__ import annotations

import numpy as np

from golden.errors import InputError
from golden.quantization.clipping import unit_where_zero
from golden.quantization.codes import largest_code
from golden.quantization.groups import in_groups
from golden.quantization.method import Method, Options, WeightCodes, WeightTask

ROUND = {"nearest": np.rint, "ceil": np.ceil}


def quantize(task: WeightTask, options: Options) -> WeightCodes:
    """Quantize one layer."""
    size, n, m = (int(options[key]) for key in ("vector", "n", "m"))
    if size < 1 or n < 2 or m < 1 or n + m > task.bits:
        raise InputError(
            f"vsquant needs vector >= 1, n >= 2, m >= 1 and n + m <= {task.bits}, the bits of the"
            f" codes, not vector={size}, n={n}, m={m}; for example n={task.bits // 2},m=2"
        )
    vectors, real = in_groups(task, size)
    largest = largest_code(n)
    vector_scales = np.abs(vectors).max(axis=2) / largest
    most = (1 << m) - 1
    gamma = unit_where_zero(vector_scales.max(axis=1) / most)
    steps = ROUND[str(options["rounding"])](vector_scales / gamma[:, np.newaxis])
    steps = np.clip(steps, 0, most)[:, :, np.newaxis]
    elements = np.rint(vectors / (np.maximum(steps, 1) * gamma[:, np.newaxis, np.newaxis]))
    codes = (np.clip(elements, -largest, largest) * steps).astype(np.int64)[:, real]
    bits = codes.size * n + vector_scales.size * m
    return WeightCodes(codes, gamma, task.bits, bits)


METHOD = Method(
    name="vsquant",
    quantize=quantize,
    summary="uniform n-bit elements times an m-bit integer scale of each short vector",
    source="Dai et al. 2021 (2102.04503), section 4, two-level scaling",
    options={"vector": 16, "n": 4, "m": 4, "rounding": "nearest"},
    choices={"rounding": tuple(ROUND)},
)
