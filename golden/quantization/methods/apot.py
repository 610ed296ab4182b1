"""Additive powers of two: each level is the sum of one entry of each of a few short tables.

With b bits, one of them the sign, magnitudes are gamma * (p_0 + p_1): b = 3: one of 0, 1/8, 1/4,
1/2; b = 4: one of 0, 1/16, 1/4, 1/2 and one of 0, 1/8; b = 5: one of 0, 1/32, 1/8, 1/2 and one of
0, 1/64, 1/16, 1/4. All are integers over a power of two, which are the codes; the division by the
largest that the paper's code makes goes into the scale. The nearest level is taken, and of two
equally near the smaller magnitude. The paper subtracts the mean of the weights first, which would
need a zero point, and learns the clipping point; here it is searched for each channel.
"""

from __future__ import annotations

import numpy as np

from golden.errors import InputError
from golden.quantization.codes import OBJECTIVES, Levels, largest_code, level_scales, projected
from golden.quantization.method import Method, Options, WeightCodes, WeightTask

TABLES: dict[int, list[tuple[int, ...]]] = {
    3: [(0, 1, 2, 4)],
    4: [(0, 1, 4, 8), (0, 2)],
    5: [(0, 2, 8, 32), (0, 1, 4, 16)],
}
"""Tables of each width, times 8, 16 and 64."""


def quantize(task: WeightTask, options: Options) -> WeightCodes:
    """Quantize one layer."""
    levels = apot_levels(int(options["b"]), task.bits)
    scales = level_scales(task, levels, str(options["objective"]), "apot")
    codes = projected(task.weights, scales, levels.project)
    return WeightCodes(codes, scales, task.bits, codes.size * int(options["b"]))


def apot_levels(b: int, bits: int) -> Levels:
    """Levels of b-bit weights, as integers that codes of `bits` bits hold."""
    sums = np.zeros(1, np.int64)
    for table in TABLES.get(b, []):
        sums = np.unique(sums[:, np.newaxis] + np.array(table))
    if b not in TABLES or sums[-1] > largest_code(bits):
        raise InputError(
            f"b of apot must be 3, 4 or 5, with levels up to 4, 10 and 48, not {b} for codes of"
            f" {bits} bits; choose fewer or wider codes"
        )
    return Levels(sums)


METHOD = Method(
    name="apot",
    quantize=quantize,
    summary="nearest sum of one power of two (or 0) from each of two sets; clipping point searched",
    source="Li et al. 2020 (1909.13144), equations 5 and 6, levels of the code yhhhli/APoT",
    options={"b": 4, "objective": "weights"},
    choices={"objective": ("max", *OBJECTIVES)},
    trained=True,
)
