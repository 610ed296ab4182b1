"""The network that every level of Napier shares: tensors, layers, and how each layer rounds.

Only data lives here. `golden.operators` computes with it, `simulator` times it, `rtl_models` feeds
it to Verilog; none of them share arithmetic.

Conventions
-----------
* Tensors are NHWC integer codes; real = scale * (code - zero_point).
* Convolution weights are (out_channels, kernel_height, kernel_width, in_channels / groups);
  depthwise convolution is a convolution with groups == in_channels, its output channel c reads
  input channel c // multiplier. Fully connected weights are (out_features, in_features).
* The accumulator of a layer is the sum over k of
  (w[k] - weight_zero_point) * (x[k] - input_zero_point), k running over
  (kernel_y, kernel_x, in_channel), in_channel fastest; padded taps add nothing. The bias is added
  afterwards, then `Requantization`, the output zero point, and the activation clamp.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Rounding = Literal["double", "single", "multiplier16", "shift_half_up", "shift_half_even"]
"""How an accumulator is brought to the output scale (exact rules, see `golden.arithmetic`).

* ``double``: gemmlowp / TensorFlow Lite reference: a rounding doubling high multiply (ties up),
  then a rounding right shift (ties away from zero).
* ``single``: one rounding, half up: (acc * m + 2**(30 - shift)) >> (31 - shift).
* ``multiplier16``: 64-bit accumulators; the multiplier is first reduced to 16 bits.
* ``shift_half_up``, ``shift_half_even``: power-of-two scale; only `shift` is used.
"""

DTYPES: dict[str, np.dtype[np.generic]] = {
    "int4": np.dtype(np.int8),  # one code per byte once loaded
    "int8": np.dtype(np.int8),
    "uint8": np.dtype(np.uint8),
    "int16": np.dtype(np.int16),
    "int32": np.dtype(np.int32),
    "int64": np.dtype(np.int64),
    "float32": np.dtype(np.float32),
}
"""Element types a tensor can have, and how NumPy stores them."""


@dataclass(frozen=True)
class Tensor:
    """One activation tensor of a network, or a constant in the place of one.

    Parameters
    ----------
    name : str
    shape : tuple of int
        NHWC for images, batch first always; it is 1 in a stored network and free at run time.
    dtype : str
        A key of `DTYPES`.
    scale : float or None
        None for float tensors and for plain integers that carry no scale.
    zero_point : int
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int = 0


@dataclass(frozen=True)
class Requantization:
    """Brings accumulators to the output scale: per output channel, with the rounding rule named.

    Parameters
    ----------
    multiplier : (C,) int32 array
        Q0.31 multipliers; C is 1 (per tensor) or the number of output channels.
    shift : (C,) int32 array
        TensorFlow Lite's sense: positive shifts left. For the ``shift_*`` rules it is minus the
        number of bits dropped.
    rounding : Rounding
    """

    multiplier: NDArray[np.int32]
    shift: NDArray[np.int32]
    rounding: Rounding = "double"


@dataclass(frozen=True)
class Layer:
    """What every layer has.

    Parameters
    ----------
    name : str
        Unique in the network, readable in a table.
    inputs, outputs : tuple of int
        Indices into `Network.tensors` (activations and `Network.constants`; weights are fields of
        the layer).
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def op(self) -> str:
        """The operator's name, as reports print it."""
        return OP_NAMES[type(self)]


@dataclass(frozen=True)
class Padding:
    """Rows and columns added around the image; they hold real zeros (the input zero point)."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0


@dataclass(frozen=True)
class WeightedLayer(Layer):
    """A layer that multiplies by weights on the array: convolution, depthwise, fully connected.

    Parameters
    ----------
    weights : integer array
        Codes as stored (int8, or uint8 with `weight_zero_point`); shapes: module docstring.
    weight_bits : int
        Width of the stored codes: 2 to 8 or 16.
    weight_zero_point : int
        0 except in the older uint8 scheme.
    bias : (out_channels,) int64 array or None
    input_zero_point, output_zero_point : int
    requantization : Requantization
    activation_min, activation_max : int
        Clamp of the output codes, both included.
    """

    weights: NDArray[np.generic]
    weight_bits: int
    weight_zero_point: int
    bias: NDArray[np.int64] | None
    input_zero_point: int
    output_zero_point: int
    requantization: Requantization
    activation_min: int
    activation_max: int


@dataclass(frozen=True)
class Conv2D(WeightedLayer):
    """2-D convolution; depthwise where groups == in_channels > 1, or a `DepthwiseConv2D`."""

    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: Padding = field(default_factory=Padding)
    groups: int = 1


@dataclass(frozen=True)
class DepthwiseConv2D(Conv2D):
    """Convolution with groups == in_channels; weights are (out_channels, kernel_h, kernel_w, 1)."""


@dataclass(frozen=True)
class FullyConnected(WeightedLayer):
    """Dense layer on the last axis: weights (out_features, in_features).

    All leading axes of the input are batch, as TensorFlow Lite flattens them.
    """


@dataclass(frozen=True)
class Pool2D(Layer):
    """What average and max pooling have in common; padded taps do not count."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: Padding
    activation_min: int
    activation_max: int


@dataclass(frozen=True)
class AveragePool2D(Pool2D):
    """Average of the taps inside the image, rounded half away from zero."""


@dataclass(frozen=True)
class MaxPool2D(Pool2D):
    """Largest tap inside the image."""


@dataclass(frozen=True)
class Mean(Layer):
    """Mean over `axes`, requantized to the output scale."""

    axes: tuple[int, ...]
    keep_dims: bool
    input_zero_point: int
    output_zero_point: int
    requantization: Requantization
    activation_min: int
    activation_max: int


@dataclass(frozen=True)
class Add(Layer):
    """Element-wise sum of two tensors of different scales, with broadcasting.

    Each input, minus its zero point, is shifted left by `left_shift` and rescaled by its own
    `Requantization`; the sum is rescaled by `output_requantization`.
    """

    input_zero_points: tuple[int, int]
    output_zero_point: int
    left_shift: int
    input_requantizations: tuple[Requantization, Requantization]
    output_requantization: Requantization
    activation_min: int
    activation_max: int


@dataclass(frozen=True)
class Mul(Layer):
    """Element-wise product of two tensors, with broadcasting."""

    input_zero_points: tuple[int, int]
    output_zero_point: int
    requantization: Requantization
    activation_min: int
    activation_max: int


@dataclass(frozen=True)
class Concat(Layer):
    """Concatenation along `axis`; all inputs have the output's scale and zero point.

    TensorFlow Lite's uint8 concatenation may rescale; then `rescale` holds, per input, the scale
    and zero point it starts from (see `golden.operators.concat`).
    """

    axis: int
    rescale: tuple[tuple[float, int], ...] | None = None


@dataclass(frozen=True)
class Pad(Layer):
    """Constant padding: `paddings[axis] = (before, after)`, filled with the code `value`."""

    paddings: tuple[tuple[int, int], ...]
    value: int


@dataclass(frozen=True)
class Reshape(Layer):
    """The same codes under another shape (batch kept)."""


@dataclass(frozen=True)
class Softmax(Layer):
    """Softmax over the last axis, in the fixed-point arithmetic of the reference kernels."""

    multiplier: int
    shift: int
    diff_min: int


@dataclass(frozen=True)
class Clamp(Layer):
    """A stand-alone relu / relu6 / relu_n1_to_1: requantize, then clamp codes."""

    input_zero_point: int
    output_zero_point: int
    requantization: Requantization
    activation_min: int
    activation_max: int


@dataclass(frozen=True)
class Quantize(Layer):
    """Float to integer codes (round half away from zero), or integer codes to another scale.

    `requantization` is None where the input is float.
    """

    input_zero_point: int
    output_zero_point: int
    requantization: Requantization | None


@dataclass(frozen=True)
class Dequantize(Layer):
    """Integer codes to float32: scale * (code - zero_point)."""

    scale: float
    zero_point: int


@dataclass(frozen=True)
class ResizeNearest(Layer):
    """Nearest-neighbour resize of height and width."""

    align_corners: bool
    half_pixel_centers: bool


OP_NAMES: dict[type[Layer], str] = {
    Conv2D: "conv",
    DepthwiseConv2D: "depthwise",
    FullyConnected: "dense",
    AveragePool2D: "average_pool",
    MaxPool2D: "max_pool",
    Mean: "mean",
    Add: "add",
    Mul: "mul",
    Concat: "concat",
    Pad: "pad",
    Reshape: "reshape",
    Softmax: "softmax",
    Clamp: "clamp",
    Quantize: "quantize",
    Dequantize: "dequantize",
    ResizeNearest: "resize_nearest",
}
"""Operator names in reports and in Napier's own file format."""


@dataclass(frozen=True)
class Constant:
    """Codes of a tensor that is stored, not computed: an operand of `Add`, `Mul` or `Concat`.

    Parameters
    ----------
    tensor : int
        Index into `Network.tensors`, where scale and zero point are.
    codes : integer array
        Of the tensor's shape, whose batch is 1: every sample reads the same codes.
    """

    tensor: int
    codes: NDArray[np.generic]


@dataclass(frozen=True)
class Network:
    """A quantized network: tensors and layers in execution order.

    Parameters
    ----------
    name : str
    tensors : tuple of Tensor
    layers : tuple of Layer
        Each layer reads tensors that are network inputs or outputs of earlier layers, or, besides
        one such tensor, constants.
    inputs, outputs : tuple of int
        Indices into `tensors`.
    source : str
        Where it came from (a file name, a script), for reports.
    constants : tuple of Constant
    """

    name: str
    tensors: tuple[Tensor, ...]
    layers: tuple[Layer, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    source: str = ""
    constants: tuple[Constant, ...] = ()
