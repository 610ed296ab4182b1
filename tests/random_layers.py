"""Seeded random array layers, inputs and hardware for the tests of the cycle model."""

from __future__ import annotations

import numpy as np

from golden.network import (
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Padding,
    Requantization,
)
from simulator.hardware import hardware_from_dict

PES = {
    "mac": ("mac", 1, "product"),
    "serial": ("shift_add", 1, "terms"),
    "parallel": ("shift_add", 2, "parallel_terms"),
    "ternary": ("ternary", 1, "ternary"),
}
"""PE kind, terms, and what `golden.accumulate` calls the steps."""

ROUNDINGS = ("double", "single", "multiplier16", "shift_half_up", "shift_half_even")


def random_weights(rng, shape, pe):
    """Codes and weight zero point that the PE can take; some sparse, some uint8."""
    if pe == "ternary":
        weights, zero_point = rng.integers(-1, 2, shape), 0
    elif pe == "parallel":  # two signed powers of two; a third of them collapse to one or none
        weights = sum(
            rng.integers(-1, 2, shape) * (1 << rng.integers(0, 6, shape)) for _ in range(2)
        )
        zero_point = 0
    elif rng.random() < 0.3:
        return rng.integers(0, 256, shape).astype(np.uint8), int(rng.integers(0, 256))
    else:
        weights, zero_point = rng.integers(-128, 128, shape), 0
    weights[rng.random(shape) > rng.choice([0.1, 0.7, 1.0])] = 0
    return weights.astype(np.int8), zero_point


def random_requantization(rng, channels):
    rounding = str(rng.choice(ROUNDINGS))
    size = channels if rng.random() < 0.5 else 1
    if rounding.startswith("shift"):
        multiplier, shift = np.full(size, 1 << 30), rng.integers(-14, 1, size)
    else:
        multiplier = rng.integers(1 << 30, 1 << 31, size)
        shift = rng.integers(-12, 1 if rounding == "multiplier16" else 3, size)
    return Requantization(multiplier.astype(np.int32), shift.astype(np.int32), rounding)


def random_layer(rng, pe, most=8):
    """One array layer, up to `most` channels a group, and int8 codes of 1 to 3 samples."""
    kind = rng.choice(["conv", "depthwise", "dense"])
    extra = {}
    if kind == "dense":
        in_features, out_features = (int(n) for n in rng.integers(1, 6 * most, 2))
        shape = (out_features, in_features)
        input_shape = (int(rng.integers(1, 4)), in_features)
    else:
        groups, in_group, out_group = (int(n) for n in rng.integers(1, [4, most + 1, 6]))
        if kind == "depthwise":
            groups, in_group, out_group = groups * in_group, 1, 1 + out_group % 2
        kernel = [int(n) for n in rng.integers(1, 4, 2)]
        dilation = tuple(int(n) for n in rng.integers(1, 3, 2))
        shape = (groups * out_group, *kernel, in_group)
        reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
        height, width = (int(rng.integers(n, 14)) for n in reach)
        input_shape = (int(rng.integers(1, 4)), height, width, groups * in_group)
        extra = {
            "stride": tuple(int(n) for n in rng.integers(1, 4, 2)),
            "dilation": dilation,
            "padding": Padding(*(int(n) for n in rng.integers(0, 3, 4))),
            "groups": groups,
        }
    weights, weight_zero_point = random_weights(rng, shape, pe)
    types = {"conv": Conv2D, "depthwise": DepthwiseConv2D, "dense": FullyConnected}
    layer = types[str(kind)](
        name="random",
        inputs=(0,),
        outputs=(1,),
        weights=weights,
        weight_bits=8,
        weight_zero_point=weight_zero_point,
        bias=rng.integers(-5000, 5000, shape[0]) if rng.random() < 0.7 else None,
        input_zero_point=int(rng.integers(-128, 128)),
        output_zero_point=int(rng.integers(-128, 128)),
        requantization=random_requantization(rng, shape[0]),
        activation_min=-128,
        activation_max=127,
        **extra,
    )
    return layer, rng.integers(-128, 128, input_shape).astype(np.int8)


def random_hardware(rng, pe):
    """Small arrays, narrow accumulators, buffers from far too small to ample."""
    kind, terms, _ = PES[pe]
    feed, rows = int(rng.choice([1, 2, 4, 8])), int(rng.choice([1, 2, 4, 8]))
    spill = int(rng.integers(1, 20)) if rng.random() < 0.4 else 0
    acc_bits = int(rng.integers(8, 18 if spill else 25)) - (5 if pe == "ternary" else 0)
    return hardware_from_dict(
        {
            "name": "random",
            "clock_hz": 1e9,
            "array": {
                "rows": rows,
                "cols": int(rng.integers(1, 9)),
                "feed": feed,
                "lookahead": feed * int(rng.integers(1, 6)),
                "acc_bits": acc_bits,
                "acc_overflow": str(rng.choice(["wrap", "saturate"])),
                "spill_interval": spill,
                "wide_acc_bits": int(rng.integers(18, 33)),
                "events_bits": int(rng.integers(1, 21)),
            },
            "pe": {"kind": kind, "terms": terms},
            "post": {"lanes": int(rng.choice([n for n in (1, 2, 4, 8) if rows % n == 0]))},
            "buffers": {
                "activation_bytes": int(rng.choice([256, 1024, 4096, 65536])),
                "weight_bytes": int(rng.choice([256, 512, 1024, 4096, 65536])),
                "output_bytes": int(rng.choice([128, 512, 4096])),
                "double_buffer": bool(rng.random() < 0.5),
            },
            "dram": {
                "bytes_per_cycle": int(rng.choice([1, 4, 16, 64])),
                "latency_cycles": int(rng.choice([0, 5, 100])),
            },
        }
    )
