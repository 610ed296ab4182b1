"""Random small networks and accelerators: the whole machine against golden and the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from golden.check import check_network
from golden.network import (
    DTYPES,
    Add,
    AveragePool2D,
    Clamp,
    Concat,
    Constant,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Layer,
    MaxPool2D,
    Mean,
    Mul,
    Network,
    Pad,
    Padding,
    Requantization,
    Reshape,
    Rounding,
    Tensor,
)
from rtl_models.verify import random_codes, random_weights
from simulator.hardware import SUM_SHIFT, Hardware, hardware_from_dict

Array = NDArray[Any]

LAYERS = (
    *("conv", "conv", "depthwise", "grouped", "dense", "flatten_dense", "add", "mul", "max_pool"),
    *("average_pool", "mean", "concat", "pad", "clamp"),
)
"""Kinds of layers, the more often named the more often drawn."""


def random_network(
    rng: Generator, hardware: Hardware, layers: int = 4
) -> tuple[Network, tuple[Array, ...]]:
    """Draw a network that the accelerator runs without its host, and one sample of its input.

    Branches, residual sums, concatenations, constants, leftover sizes, strides, dilations, zero
    points, every rounding rule and clamp occur.

    Parameters
    ----------
    rng : Generator
    hardware : Hardware
        Its weights, code widths and post-processor bound the draw.
    layers : int
        At most this many drawn layers.

    Returns
    -------
    network : Network
    inputs : tuple of (1, ...) integer array
    """
    wide = hardware.array.activation_bits == 16
    dtype = "int16" if wide else str(rng.choice(["int8", "uint8"]))
    draft = _Draft(rng, hardware, dtype)
    height, width = (int(n) for n in rng.integers(1, 13, 2))
    draft.tensor((1, height, width, int(rng.choice([1, 2, 3, 4, 5, 8, 13]))))
    for _ in range(int(rng.integers(1, layers + 1))):
        _DRAWS[str(rng.choice(LAYERS))](draft)
    if not draft.layers:
        _conv(draft)
    read = {i for layer in draft.layers for i in layer.inputs}
    written = [layer.outputs[0] for layer in draft.layers]
    network = Network(
        name=f"random_{dtype}",
        tensors=tuple(draft.tensors),
        layers=tuple(draft.layers),
        inputs=(0,),
        outputs=tuple(i for i in written if i not in read),
        source="random",
        constants=tuple(draft.constants),
    )
    check_network(network)
    return network, (random_codes(rng, network.tensors[0].shape, DTYPES[dtype]),)


def random_hardware(rng: Generator) -> Hardware:
    """Draw an accelerator of up to 6 x 6 PEs, with random buffers and a random memory.

    Parameters
    ----------
    rng : Generator
    """
    kind = str(rng.choice(["mac", "shift_add", "ternary"]))
    rows, cols = (int(n) for n in rng.integers(1, 7, 2))
    feed = 1 << int(rng.integers(0, 4))
    activation_bits = int(rng.choice([8, 8, 8, 16]))
    post_bits = 32 if activation_bits == 8 else 48
    acc_bits = int(rng.integers(6, post_bits + 1))
    spill = int(rng.choice([0, 0, 1, 3, 8])) if acc_bits < post_bits else 0
    word_bytes = feed * activation_bits // 8
    double = bool(rng.random() < 0.8)
    return hardware_from_dict(
        {
            "name": "random",
            "clock_hz": 1e8,
            "array": {
                "rows": rows,
                "cols": cols,
                "feed": feed,
                "lookahead": feed * int(rng.integers(1, 5)),
                "activation_bits": activation_bits,
                "weight_bits": int(rng.choice([4, 8])),
                "acc_bits": acc_bits,
                "acc_overflow": str(rng.choice(["wrap", "saturate"])),
                "spill_interval": spill,
                "wide_acc_bits": int(rng.integers(acc_bits + 1, post_bits + 1)) if spill else 32,
                "events_bits": int(rng.choice([1, 3, 16])),
            },
            "pe": {"kind": kind, "terms": int(rng.integers(1, 4)) if kind == "shift_add" else 1},
            "post": {"lanes": int(rng.choice([n for n in range(1, rows + 1) if rows % n == 0]))},
            "buffers": {
                "activation_bytes": rows * word_bytes * int(rng.choice([512, 1024, 4096])),
                "weight_bytes": int(rng.choice([4096, 16384, 65536])),
                "output_bytes": rows * word_bytes * int(rng.choice([64, 256, 1024])),
                "double_buffer": double,
            },
            "dram": {
                "bytes_per_cycle": int(rng.choice([1, 2, 3, 4, 8, 16])),
                "latency_cycles": int(rng.choice([0, 1, 7, 40, 200])),
            },
            "winograd": _random_winograd(rng, acc_bits),
        }
    )


def _random_winograd(rng: Generator, acc_bits: int) -> dict[str, Any]:
    """Draw transform units, in half of the cases none; forms are taken whether safe or not."""
    forms = str(rng.choice(["none", "none", "none", "f2", "f4", "both"]))
    if acc_bits <= SUM_SHIFT[forms]:
        forms = "none"
    names = {"none": [], "both": ["f2", "f4"]}.get(forms, [forms])
    return {
        "forms": forms,
        "chunk_words": int(rng.integers(36, 200)),
        "use": str(rng.choice(["auto", *names, *names])),
    }


@dataclass
class _Draft:
    """A network that grows."""

    rng: Generator
    hardware: Hardware
    dtype: str
    tensors: list[Tensor] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    constants: list[Constant] = field(default_factory=list)

    @property
    def code_range(self) -> tuple[int, int]:
        info = np.iinfo(DTYPES[self.dtype])  # type: ignore[type-var]
        return int(info.min), int(info.max)

    def tensor(self, shape: tuple[int, ...], zero_point: int | None = None) -> int:
        """Add a tensor and return its index."""
        low, high = self.code_range
        if zero_point is None:
            zero_point = 0 if self.dtype == "int16" else int(self.rng.integers(low, high + 1))
        index = len(self.tensors)
        scale = float(self.rng.choice([0.5, 1.0]))
        self.tensors.append(Tensor(f"t{index}", shape, self.dtype, scale, zero_point))
        return index

    def add(self, layer: Layer) -> None:
        self.layers.append(layer)

    def pick(self, rank: int = 4) -> int | None:
        """Choose a tensor of that rank, the latest most of the time."""
        fitting = [i for i, tensor in enumerate(self.tensors) if len(tensor.shape) == rank]
        fitting = [i for i in fitting if i not in {c.tensor for c in self.constants}]
        if not fitting:
            return None
        return fitting[-1] if self.rng.random() < 0.7 else int(self.rng.choice(fitting))

    def partner(self, shape: tuple[int, ...], channels: int) -> int:
        """Choose a second operand of the same image size: an earlier tensor, or a constant."""
        wanted = (*shape[:-1], channels)
        fitting = [i for i, tensor in enumerate(self.tensors) if tensor.shape == wanted]
        if fitting and self.rng.random() < 0.8:
            return int(self.rng.choice(fitting))
        index = self.tensor(wanted)
        codes = random_codes(self.rng, wanted, DTYPES[self.dtype])
        self.constants.append(Constant(index, codes))
        return index

    def name(self, kind: str) -> str:
        return f"{kind}_{len(self.layers)}"

    def clamp(self) -> dict[str, int]:
        """Full range of codes most of the time."""
        low, high = self.code_range
        first, last = np.sort(self.rng.integers(low, high + 1, 2))
        narrow = self.rng.random() < 0.3
        return {
            "activation_min": int(first) if narrow else low,
            "activation_max": int(last) if narrow else high,
        }

    def rounding(self) -> Rounding:
        if self.dtype == "int16":
            return "multiplier16"
        rules: list[Rounding] = ["double", "single", "shift_half_up", "shift_half_even"]
        return rules[int(self.rng.integers(len(rules)))]

    def requantization(
        self, channels: int = 1, rounding: Rounding | None = None, low: int = -12, high: int = 2
    ) -> Requantization:
        rounding = self.rounding() if rounding is None else rounding
        high = min(high, 0) if rounding.startswith("shift") else high
        return Requantization(
            multiplier=self.rng.integers(1 << 30, (1 << 31) - 1, channels).astype(np.int32),
            shift=self.rng.integers(low, high + 1, channels).astype(np.int32),
            rounding=rounding,
        )

    def weighted(self, weights: NDArray[np.int8], source: int, output: int) -> dict[str, Any]:
        channels = weights.shape[0]
        scales = int(self.rng.choice([1, channels]))
        biased = self.rng.random() < 0.8
        return {
            "inputs": (source,),
            "outputs": (output,),
            "weights": weights,
            "weight_bits": self.hardware.array.weight_bits,
            "weight_zero_point": 0,
            "bias": self.rng.integers(-20000, 20000, channels) if biased else None,
            "input_zero_point": self.tensors[source].zero_point,
            "output_zero_point": self.tensors[output].zero_point,
            "requantization": self.requantization(scales),
            **self.clamp(),
        }


def _conv(draft: _Draft) -> None:
    _convolution(draft, "conv")


def _grouped(draft: _Draft) -> None:
    _convolution(draft, "grouped")


def _depthwise(draft: _Draft) -> None:
    _convolution(draft, "depthwise")


def _convolution(draft: _Draft, kind: str) -> None:
    rng = draft.rng
    source = draft.pick()
    if source is None:
        return
    _, height, width, channels = draft.tensors[source].shape
    groups = {"conv": 1, "depthwise": channels}.get(kind, 2 if channels % 2 == 0 else 1)
    out_channels = groups * int(rng.choice([1, 1, 2, 3] if groups > 1 else [1, 2, 4, 5, 9]))
    stride = (int(rng.choice([1, 1, 2, 3])), int(rng.choice([1, 1, 2, 3])))
    dilation = (int(rng.choice([1, 1, 2])), int(rng.choice([1, 1, 2])))
    kernel = tuple(int(n) for n in rng.integers(1, 4, 2))
    pads = [int(n) for n in rng.integers(0, 3, 4)]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    padding = Padding(
        top=pads[0],
        bottom=max(pads[1], reach[0] - height - pads[0]),
        left=pads[2],
        right=max(pads[3], reach[1] - width - pads[2]),
    )
    size = (
        (height + padding.top + padding.bottom - reach[0]) // stride[0] + 1,
        (width + padding.left + padding.right - reach[1]) // stride[1] + 1,
    )
    weights = random_weights(rng, (out_channels, *kernel, channels // groups), draft.hardware)
    output = draft.tensor((1, *size, out_channels))
    layer_type = DepthwiseConv2D if kind == "depthwise" else Conv2D
    draft.add(
        layer_type(
            name=draft.name(kind),
            **draft.weighted(weights, source, output),
            stride=stride,
            dilation=dilation,
            padding=padding,
            groups=groups,
        )
    )


def _dense(draft: _Draft) -> None:
    """Dense layer on the channels; all other axes are its batch only where they are 1."""
    source = draft.pick(2)
    if source is None:
        return
    features = draft.tensors[source].shape[1]
    outputs = int(draft.rng.choice([1, 3, 5, 10]))
    weights = random_weights(draft.rng, (outputs, features), draft.hardware)
    output = draft.tensor((1, outputs))
    draft.add(FullyConnected(name=draft.name("dense"), **draft.weighted(weights, source, output)))


def _flatten_dense(draft: _Draft) -> None:
    source = draft.pick()
    if source is None:
        return
    tensor = draft.tensors[source]
    flat = draft.tensor((1, prod(tensor.shape)), tensor.zero_point)
    draft.add(Reshape(name=draft.name("flatten"), inputs=(source,), outputs=(flat,)))
    outputs = int(draft.rng.choice([1, 3, 5, 10]))
    weights = random_weights(draft.rng, (outputs, prod(tensor.shape)), draft.hardware)
    output = draft.tensor((1, outputs))
    draft.add(FullyConnected(name=draft.name("dense"), **draft.weighted(weights, flat, output)))


def _add(draft: _Draft) -> None:
    source = draft.pick()
    if source is None:
        return
    shape = draft.tensors[source].shape
    second = draft.partner(shape, shape[-1])
    if source == second and draft.rng.random() < 0.5:
        return
    output = draft.tensor(shape)
    rule: Rounding = "double"
    draft.add(
        Add(
            name=draft.name("add"),
            inputs=(source, second),
            outputs=(output,),
            input_zero_points=_zero_points(draft, source, second),
            output_zero_point=draft.tensors[output].zero_point,
            left_shift=15 if draft.dtype == "int16" else 20,
            input_requantizations=(
                draft.requantization(1, rule, -3, -1),
                draft.requantization(1, rule, -3, -1),
            ),
            output_requantization=draft.requantization(
                1, rule, *((-16, -12) if draft.dtype == "int16" else (-20, -16))
            ),
            **draft.clamp(),
        )
    )


def _mul(draft: _Draft) -> None:
    source = draft.pick()
    if source is None:
        return
    shape = draft.tensors[source].shape
    second = draft.partner(shape, shape[-1])
    output = draft.tensor(shape)
    draft.add(
        Mul(
            name=draft.name("mul"),
            inputs=(source, second),
            outputs=(output,),
            input_zero_points=_zero_points(draft, source, second),
            output_zero_point=draft.tensors[output].zero_point,
            requantization=draft.requantization(1, "double", -15, -4),
            **draft.clamp(),
        )
    )


def _zero_points(draft: _Draft, first: int, second: int) -> tuple[int, int]:
    return draft.tensors[first].zero_point, draft.tensors[second].zero_point


def _max_pool(draft: _Draft) -> None:
    source = draft.pick()
    if source is None:
        return
    rng = draft.rng
    _, height, width, channels = draft.tensors[source].shape
    kernel = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    stride = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    before = [int(rng.integers(0, k)) for k in kernel]
    after = [int(rng.integers(0, k)) for k in kernel]
    padded = (height + before[0] + after[0], width + before[1] + after[1])
    if padded[0] < kernel[0] or padded[1] < kernel[1]:
        return
    counts = [(p - k) // s + 1 for p, k, s in zip(padded, kernel, stride, strict=True)]
    output = draft.tensor((1, *counts, channels), draft.tensors[source].zero_point)
    draft.add(
        MaxPool2D(
            name=draft.name("max_pool"),
            inputs=(source,),
            outputs=(output,),
            kernel=kernel,
            stride=stride,
            padding=Padding(before[0], after[0], before[1], after[1]),
            **draft.clamp(),
        )
    )


def _average_pool(draft: _Draft) -> None:
    """Average without padding: all windows are whole."""
    source = draft.pick()
    if source is None:
        return
    rng = draft.rng
    _, height, width, channels = draft.tensors[source].shape
    kernel = (int(rng.integers(1, height + 1)), int(rng.integers(1, width + 1)))
    stride = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    counts = ((height - kernel[0]) // stride[0] + 1, (width - kernel[1]) // stride[1] + 1)
    output = draft.tensor((1, *counts, channels), draft.tensors[source].zero_point)
    draft.add(
        AveragePool2D(
            name=draft.name("average_pool"),
            inputs=(source,),
            outputs=(output,),
            kernel=kernel,
            stride=stride,
            padding=Padding(),
            **draft.clamp(),
        )
    )


def _mean(draft: _Draft) -> None:
    source = draft.pick()
    if source is None:
        return
    keep = bool(draft.rng.random() < 0.5)
    channels = draft.tensors[source].shape[-1]
    output = draft.tensor((1, 1, 1, channels) if keep else (1, channels))
    draft.add(
        Mean(
            name=draft.name("mean"),
            inputs=(source,),
            outputs=(output,),
            axes=(1, 2),
            keep_dims=keep,
            input_zero_point=draft.tensors[source].zero_point,
            output_zero_point=draft.tensors[output].zero_point,
            requantization=draft.requantization(1, "double", -8, 0),
            **draft.clamp(),
        )
    )


def _concat(draft: _Draft) -> None:
    source = draft.pick()
    if source is None:
        return
    shape = draft.tensors[source].shape
    channels = int(draft.rng.choice([t.shape[-1] for t in draft.tensors] + [1, 3, 6]))
    second = draft.partner(shape, channels)
    parts = (source, second, source) if draft.rng.random() < 0.2 else (source, second)
    total = sum(draft.tensors[part].shape[-1] for part in parts)
    output = draft.tensor((*shape[:-1], total))
    draft.add(Concat(name=draft.name("concat"), inputs=parts, outputs=(output,), axis=3))


def _pad(draft: _Draft) -> None:
    source = draft.pick()
    if source is None:
        return
    tensor = draft.tensors[source]
    rows, columns = (tuple(int(n) for n in draft.rng.integers(0, 3, 2)) for _ in range(2))
    paddings = ((0, 0), rows, columns, (0, 0))
    shape = tuple(b + n + a for n, (b, a) in zip(tensor.shape, paddings, strict=True))
    output = draft.tensor(shape, tensor.zero_point)
    low, high = draft.code_range
    value = int(draft.rng.choice([tensor.zero_point, low, high]))
    draft.add(
        Pad(
            name=draft.name("pad"),
            inputs=(source,),
            outputs=(output,),
            paddings=tuple((p[0], p[1]) for p in paddings),
            value=value,
        )
    )


def _clamp(draft: _Draft) -> None:
    source = draft.pick()
    if source is None:
        return
    output = draft.tensor(draft.tensors[source].shape)
    draft.add(
        Clamp(
            name=draft.name("clamp"),
            inputs=(source,),
            outputs=(output,),
            input_zero_point=draft.tensors[source].zero_point,
            output_zero_point=draft.tensors[output].zero_point,
            requantization=draft.requantization(1, "double", -1, 1),
            **draft.clamp(),
        )
    )


_DRAWS = {
    "conv": _conv,
    "depthwise": _depthwise,
    "grouped": _grouped,
    "dense": _dense,
    "flatten_dense": _flatten_dense,
    "add": _add,
    "mul": _mul,
    "max_pool": _max_pool,
    "average_pool": _average_pool,
    "mean": _mean,
    "concat": _concat,
    "pad": _pad,
    "clamp": _clamp,
}
