"""From real scales to the integers a layer computes with, as TensorFlow Lite prepares them.

Scales are float32 in a model file and are passed here as Python floats of the same value; each
function says in which precision TensorFlow Lite combines them, because the last bit of a multiplier
decides output codes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import floor, frexp, isfinite
from typing import Literal

import numpy as np

from golden.errors import ModelError
from golden.formats import IntFormat
from golden.network import Requantization, Rounding

Activation = Literal["none", "relu", "relu6", "relu_n1_to_1"]

CODE_FORMATS: dict[str, IntFormat] = {
    "int8": IntFormat(8),
    "uint8": IntFormat(8, signed=False),
    "int16": IntFormat(16),
    "int32": IntFormat(32),
}
"""Formats of the activation codes a kernel can clamp to."""

SOFTMAX_INTEGER_BITS = 5
"""Integer bits of the fixed-point argument of exp in the 8-bit softmax (Q5.26)."""


def round_half_away(value: float) -> int:
    """Nearest integer, ties away from zero: -2.5 gives -3, 2.5 gives 3 (C's round)."""
    magnitude = floor(abs(value))
    magnitude += abs(value) - magnitude >= 0.5
    return magnitude if value >= 0 else -magnitude


def quantize_multiplier(real: float) -> tuple[int, int]:
    """Write a real multiplier as multiplier * 2**(shift - 31).

    Parameters
    ----------
    real : float
        Not negative, finite.

    Returns
    -------
    multiplier : int
        2**30 to 2**31 - 1, or 0.
    shift : int
        Positive shifts left. Below -31 the product would vanish, and both results are 0.

    Raises
    ------
    ModelError
        For a negative, infinite or undefined multiplier.

    Notes
    -----
    1/32 gives (2**30, -4), 1.5 gives (1610612736, 1). A fraction that rounds up to one gives 2**30
    with the shift raised by one. Source: TensorFlow Lite, quantization_util.cc, QuantizeMultiplier.
    """
    if not isfinite(real) or real < 0:
        raise ModelError(
            "the real multiplier of a requantization must be finite and not negative, but is"
            f" {real}; check the scales of the model"
        )
    fraction, shift = frexp(real)
    multiplier = round_half_away(fraction * (1 << 31))
    if multiplier == 1 << 31:
        multiplier, shift = 1 << 30, shift + 1
    if shift < -31:
        return 0, 0
    return multiplier, shift


def quantize_multiplier_smaller_than_one(real: float) -> tuple[int, int]:
    """`quantize_multiplier` for 0 < real < 1, which element-wise addition demands.

    Raises
    ------
    ModelError
        Outside this range, where TensorFlow Lite aborts.
    """
    if not 0 < real < 1:
        raise ModelError(
            f"a multiplier that must lie between 0 and 1 is {real}; check the scales of the model"
        )
    return quantize_multiplier(real)


def requantization(reals: float | Iterable[float], rounding: Rounding = "double") -> Requantization:
    """`Requantization` of one real multiplier, or of one per output channel."""
    values = [reals] if isinstance(reals, (int, float)) else list(reals)
    pairs = [quantize_multiplier(float(real)) for real in values]
    return Requantization(
        multiplier=np.array([multiplier for multiplier, _ in pairs], dtype=np.int32),
        shift=np.array([shift for _, shift in pairs], dtype=np.int32),
        rounding=rounding,
    )


def identity_requantization() -> Requantization:
    """Multiplier exactly one: (2**30, 1), an identity for |acc| < 2**30."""
    return requantization(1.0)


def convolution_requantization(
    input_scale: float,
    weight_scales: Iterable[float],
    output_scale: float,
    *,
    float32_product: bool = False,
    rounding: Rounding = "double",
) -> Requantization:
    """Requantization of a convolution or a fully connected layer.

    Parameters
    ----------
    input_scale, output_scale : float
    weight_scales : iterable of float
        One, or one per output channel.
    float32_product : bool
        True for the uint8 scheme, where TensorFlow Lite multiplies the two scales in float32
        (GetQuantizedConvolutionMultipler); otherwise the product is taken in double.
    rounding : Rounding
    """
    if float32_product:
        products = [float(np.float32(input_scale) * np.float32(w)) for w in weight_scales]
    else:
        products = [float(input_scale) * float(w) for w in weight_scales]
    return requantization([product / float(output_scale) for product in products], rounding)


def code_of_real(value: float, scale: float, zero_point: int) -> int:
    """zero_point + round(value / scale), divided in float32 and rounded half away from zero."""
    quotient = float(np.float32(value) / np.float32(scale))
    return zero_point + round_half_away(quotient)


def activation_range(
    activation: Activation, dtype: str, scale: float, zero_point: int
) -> tuple[int, int]:
    """Clamp of the output codes of a fused activation.

    Parameters
    ----------
    activation : Activation
    dtype : str
        A key of `CODE_FORMATS`.
    scale : float
        Of the output.
    zero_point : int
        Of the output.

    Returns
    -------
    activation_min, activation_max : int
        Both included.

    Notes
    -----
    Source: TensorFlow Lite, kernel_util.cc, CalculateActivationRangeQuantized.
    """
    fmt = CODE_FORMATS[dtype]
    reals: tuple[float | None, float | None] = {
        "none": (None, None),
        "relu": (0.0, None),
        "relu6": (0.0, 6.0),
        "relu_n1_to_1": (-1.0, 1.0),
    }[activation]
    low, high = (None if real is None else code_of_real(real, scale, zero_point) for real in reals)
    return (
        fmt.min if low is None else max(fmt.min, low),
        fmt.max if high is None else min(fmt.max, high),
    )


@dataclass(frozen=True)
class AddParameters:
    """The three multipliers and the head room of an element-wise addition."""

    left_shift: int
    input_requantizations: tuple[Requantization, Requantization]
    output_requantization: Requantization


def add_parameters(scale1: float, scale2: float, output_scale: float, dtype: str) -> AddParameters:
    """Prepare an element-wise addition.

    Both inputs go to the scale 2 * max(scale1, scale2) / 2**left_shift, so that their sum needs no
    guard bit; left_shift is 15 for int16 and 20 for 8-bit codes. Source: TensorFlow Lite Micro,
    add_common.cc.

    Raises
    ------
    ModelError
        Where a multiplier does not lie between 0 and 1.
    """
    left_shift = 15 if dtype == "int16" else 20
    twice_max = 2.0 * max(float(scale1), float(scale2))
    reals = (
        float(scale1) / twice_max,
        float(scale2) / twice_max,
        twice_max / ((1 << left_shift) * float(output_scale)),
    )
    for real in reals:
        quantize_multiplier_smaller_than_one(real)
    first, second, output = (requantization(real) for real in reals)
    return AddParameters(left_shift, (first, second), output)


def mul_requantization(scale1: float, scale2: float, output_scale: float) -> Requantization:
    """Requantization of an element-wise product, in double."""
    return requantization(float(scale1) * float(scale2) / float(output_scale))


def mean_requantization(input_scale: float, output_scale: float, count: int) -> Requantization:
    """Requantization of the sum of `count` operands to their mean.

    The division by `count` is folded into the integer multiplier, which is truncated. Source:
    TensorFlow Lite, reference/reduce.h, QuantizedMeanOrSum.

    Parameters
    ----------
    input_scale, output_scale : float
    count : int
        Elements summed into one output, at least 1.
    """
    multiplier, shift = quantize_multiplier(float(input_scale) / float(output_scale))
    fold = min(count.bit_length() - 1, 32, 31 + shift)
    return Requantization(
        multiplier=np.array([(multiplier << fold) // count], dtype=np.int32),
        shift=np.array([shift - fold], dtype=np.int32),
    )


@dataclass(frozen=True)
class SoftmaxParameters:
    """Multiplier and shift of the distance to the row's maximum, and the least one that counts."""

    multiplier: int
    shift: int
    diff_min: int


def softmax_parameters(beta: float, input_scale: float, dtype: str) -> SoftmaxParameters:
    """Prepare a softmax.

    Parameters
    ----------
    beta : float
    input_scale : float
    dtype : str
        Of the input. 8-bit codes are brought to Q5.26; int16 codes so that 65535 stands for 10.0,
        the width of the table of exp (there `diff_min` has no meaning and is 0).

    Raises
    ------
    ModelError
        Where the 8-bit multiplier is not greater than one, which TensorFlow Lite refuses.
    """
    real = float(input_scale) * float(beta)
    if dtype == "int16":
        multiplier, shift = quantize_multiplier(real / (10.0 / 65535.0))
        return SoftmaxParameters(multiplier, shift, 0)
    fraction_bits = 31 - SOFTMAX_INTEGER_BITS
    real = min(real * (1 << fraction_bits), (1 << 31) - 1.0)
    if real <= 1:
        raise ModelError(
            f"softmax needs input scale * beta above 2**-{fraction_bits}, but it is"
            f" {real / (1 << fraction_bits)}; check the scale of its input"
        )
    multiplier, shift = quantize_multiplier(real)
    largest = ((1 << SOFTMAX_INTEGER_BITS) - 1) << fraction_bits
    return SoftmaxParameters(multiplier, shift, -(largest >> shift))
