"""A network as it is trained: real weights, before any number is chosen for the hardware.

The layouts are those of `golden.network`: NHWC activations, convolution weights (out_channels,
kernel_height, kernel_width, in_channels / groups), dense weights (out_features, in_features).
Batch normalisation is folded into the weights and biases by whoever reads the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from golden.multipliers import Activation
from golden.network import Padding

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class FloatTensor:
    """One activation: its name and its NHWC shape, with a batch of 1."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class FloatLayer:
    """What every layer has.

    Parameters
    ----------
    name : str
        Unique in the network.
    inputs, outputs : tuple of int
        Indices into `FloatNetwork.tensors`.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class FloatWeighted(FloatLayer):
    """A layer that multiplies by weights.

    Parameters
    ----------
    weights : float32 array
        Output channels first; shapes: module docstring.
    bias : (out_channels,) float32 array
        Zeros where the file has none.
    activation : Activation
        Follows the bias.
    """

    weights: FloatArray
    bias: FloatArray
    activation: Activation


@dataclass(frozen=True)
class FloatConv2D(FloatWeighted):
    """Convolution; depthwise where groups == in_channels > 1."""

    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: Padding = field(default_factory=Padding)
    groups: int = 1


@dataclass(frozen=True)
class FloatDense(FloatWeighted):
    """Dense layer on the last axis; all leading axes are batch."""


@dataclass(frozen=True)
class FloatPool2D(FloatLayer):
    """Pooling; padded taps do not count. `kind` is "average" or "max"."""

    kind: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: Padding
    activation: Activation = "none"


@dataclass(frozen=True)
class FloatMean(FloatLayer):
    """Mean over `axes`; a global average pool is the mean over (1, 2)."""

    axes: tuple[int, ...]
    keep_dims: bool


@dataclass(frozen=True)
class FloatAdd(FloatLayer):
    """Element-wise sum of two tensors, with broadcasting."""

    activation: Activation = "none"


@dataclass(frozen=True)
class FloatMul(FloatLayer):
    """Element-wise product of two tensors, with broadcasting."""

    activation: Activation = "none"


@dataclass(frozen=True)
class FloatConcat(FloatLayer):
    """Concatenation along `axis`, counted from 0."""

    axis: int


@dataclass(frozen=True)
class FloatPad(FloatLayer):
    """Zeros added: `paddings[axis] = (before, after)`."""

    paddings: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class FloatReshape(FloatLayer):
    """The same values under the output's shape."""


@dataclass(frozen=True)
class FloatActivation(FloatLayer):
    """A stand-alone relu, relu6 or relu_n1_to_1."""

    activation: Activation


@dataclass(frozen=True)
class FloatSoftmax(FloatLayer):
    """exp(beta * x) over its sum along the last axis."""

    beta: float = 1.0


@dataclass(frozen=True)
class FloatResize(FloatLayer):
    """Nearest-neighbour resize of height and width."""

    align_corners: bool
    half_pixel_centers: bool


@dataclass(frozen=True)
class FloatConstant:
    """Values of a tensor that is stored, not computed; an operand of a sum, product or join.

    Parameters
    ----------
    tensor : int
        Index into `FloatNetwork.tensors`.
    values : float32 array
        Of the tensor's shape, whose batch is 1: every sample reads the same values.
    """

    tensor: int
    values: FloatArray


@dataclass(frozen=True)
class FloatNetwork:
    """Tensors and layers in execution order.

    Parameters
    ----------
    name : str
    tensors : tuple of FloatTensor
    layers : tuple of FloatLayer
        Each reads network inputs or outputs of earlier layers.
    inputs, outputs : tuple of int
        Indices into `tensors`.
    source : str
        Where it came from, for reports.
    constants : tuple of FloatConstant
    """

    name: str
    tensors: tuple[FloatTensor, ...]
    layers: tuple[FloatLayer, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    source: str = ""
    constants: tuple[FloatConstant, ...] = ()
