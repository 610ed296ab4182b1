"""Fine-grained ternary: an exact ternary optimum for each small group of weights.

The group's scale is rounded to an integer 1 .. 2**m - 1 times the channel's, which is that of the
largest group over 2**m - 1; thresholds follow the rounded scales. The code is the trit times that
integer. Groups: `golden.quantization.groups`. By default m fills the code's bits.
"""

from __future__ import annotations

import numpy as np

from golden.errors import InputError
from golden.quantization.clipping import unit_where_zero
from golden.quantization.groups import in_groups
from golden.quantization.method import Method, Options, WeightCodes, WeightTask
from golden.quantization.ternary import exact_scales, ternary_codes, trit_storage_bits


def quantize(task: WeightTask, options: Options) -> WeightCodes:
    """Quantize one layer."""
    size, m = int(options["group"]), int(options["m"])
    if size < 1 or m > task.bits - 1 or m == 0 or m < -1:
        raise InputError(
            f"fgq needs group >= 1 and m from 1 to {task.bits - 1} for codes of {task.bits} bits,"
            f" or -1 for {task.bits - 1}, not group={size}, m={m}; for example group=4,m=4"
        )
    m = task.bits - 1 if m == -1 else m
    groups, real = in_groups(task, size)
    channels, count, _ = groups.shape
    rows = groups.reshape(-1, size)
    alpha = exact_scales(rows).reshape(channels, count)
    scales = unit_where_zero(alpha.max(axis=1) / ((1 << m) - 1))
    steps = np.maximum(np.rint(alpha / scales[:, np.newaxis]), 1)
    trits = ternary_codes(rows, (steps * scales[:, np.newaxis] / 2).reshape(-1))
    codes = trits.reshape(groups.shape) * steps.astype(np.int64)[:, :, np.newaxis]
    bits = trit_storage_bits(task.weights.size) + alpha.size * m
    return WeightCodes(codes[:, real], scales, task.bits, bits)


METHOD = Method(
    name="fgq",
    quantize=quantize,
    summary="exact ternary optimum of each group, its scale an integer times the channel's",
    source="Mellempudi et al. 2017 (1705.01462), FGQ; integer group scales are ours",
    options={"group": 4, "m": -1},
)
