"""Random 3 x 3 layers, and random hardware with Winograd units, of every PE kind."""

from __future__ import annotations

import numpy as np

from golden.network import Conv2D, Network, Padding, Requantization, Tensor
from simulator.hardware import hardware_from_dict, load_hardware

PRESETS = ("mac4x4", "nhot2_4x4", "nhot2_parallel_4x4", "ternary4x4")


def network(rng, preset, most=10):
    """One convolution of 3 x 3 kernels with weights that the preset's PE holds."""
    pad = Padding(*(int(n) for n in rng.integers(0, 2, 4)))
    height = int(rng.integers(3 - pad.top - pad.bottom, most))
    width = int(rng.integers(3 - pad.left - pad.right, most))
    channels, outputs = int(rng.integers(1, most + 2)), int(rng.integers(1, most))
    weights = rng.integers(-127, 128, (outputs, 3, 3, channels))
    if preset == "ternary4x4":
        weights = np.sign(weights) * (np.abs(weights) > 40)
    if preset == "nhot2_parallel_4x4":
        weights //= 16
    if rng.random() < 0.3:
        weights *= rng.random(weights.shape) < 0.3
    zero_point = int(rng.integers(-20, 20))
    layer = Conv2D(
        name="conv",
        inputs=(0,),
        outputs=(1,),
        weights=weights.astype(np.int8),
        weight_bits=8,
        weight_zero_point=0,
        bias=rng.integers(-1000, 1000, outputs),
        input_zero_point=zero_point,
        output_zero_point=-2,
        requantization=Requantization(
            np.full(outputs, 1 << 30, np.int32), np.full(outputs, -9, np.int32)
        ),
        activation_min=-128,
        activation_max=127,
        padding=pad,
    )
    size = (height + pad.top + pad.bottom - 2, width + pad.left + pad.right - 2)
    tensors = (
        Tensor("x", (1, height, width, channels), "int8", 1.0, zero_point),
        Tensor("y", (1, *size, outputs), "int8", 1.0, -2),
    )
    return Network("winograd", tensors, (layer,), (0,), (1,))


def hardware(rng, preset, use, **array):
    """Draw the rest of an accelerator whose units know the form `use`."""
    rows, feed = int(rng.choice([1, 2, 4, 6])), int(rng.choice([1, 2, 4]))
    settings = load_hardware(preset).model_dump()
    settings["array"] |= {
        "rows": rows,
        "cols": int(rng.choice([1, 2, 3, 5])),
        "feed": feed,
        "lookahead": feed * int(rng.integers(1, 5)),
        "acc_bits": int(rng.choice([12, 18, 24, 32])),
        "acc_overflow": str(rng.choice(["wrap", "saturate"])),
        "events_bits": int(rng.choice([2, 20])),
    }
    if rng.random() < 0.3:
        settings["array"] |= {"acc_bits": 16, "spill_interval": int(rng.integers(1, 9))}
        settings["array"]["wide_acc_bits"] = 32
    settings["array"] |= array
    settings["post"]["lanes"] = int(rng.choice([n for n in (1, 2, 3, 6) if rows % n == 0]))
    settings["buffers"] = {
        "activation_bytes": int(rng.choice([512, 1024, 16384])),
        "weight_bytes": int(rng.choice([4096, 16384, 65536])),
        "output_bytes": int(rng.choice([512, 1024, 16384])),
        "double_buffer": bool(rng.integers(2)),
    }
    settings["dram"] |= {
        "latency_cycles": int(rng.integers(0, 30)),
        "bytes_per_cycle": int(rng.choice([4, 8, 16])),
    }
    forms = str(rng.choice([use, "both"]))
    settings["winograd"] = {
        "forms": forms,
        "use": use,
        "chunk_words": int(rng.integers(16 if forms == "f2" else 36, 200)),
    }
    return hardware_from_dict(settings)


def sample(rng, net, count=1):
    """Input codes, in half of the cases the extremes alone."""
    codes = rng.integers(-128, 128, (count, *net.tensors[0].shape[1:]))
    if rng.random() < 0.5:
        codes = np.where(codes < 0, -128, 127)
    return codes.astype(np.int8)
