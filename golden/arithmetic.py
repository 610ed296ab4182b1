"""Wrapping, saturating and rounding of integers, exactly.

Every function takes int64 arrays (or what converts to them without loss) and returns int64 arrays.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from golden.formats import Int64Array, IntFormat, split_by_range
from golden.network import Requantization, Rounding

INT32 = IntFormat(32)


def wrap(values: ArrayLike, fmt: IntFormat) -> tuple[Int64Array, NDArray[np.bool_]]:
    """Keep the low `fmt.bits` bits, as a register that drops its carry does.

    Parameters
    ----------
    values : int64 array, any shape
    fmt : IntFormat

    Returns
    -------
    wrapped : int64 array
        The value of `fmt` congruent to `values` modulo 2**bits.
    overflowed : bool array
        Where `fmt` could not hold the value.
    """
    exact = np.asarray(values, dtype=np.int64)
    if fmt.bits == 64:
        return exact.copy(), np.zeros(exact.shape, dtype=np.bool_)
    # The subtraction may itself wrap modulo 2**64, which the mask makes harmless.
    wrapped = ((exact - fmt.min) & ((1 << fmt.bits) - 1)) + fmt.min
    return wrapped, split_by_range(exact, fmt)


def saturate(values: ArrayLike, fmt: IntFormat) -> tuple[Int64Array, NDArray[np.bool_]]:
    """Replace what `fmt` cannot hold by its nearest bound.

    Parameters
    ----------
    values : int64 array, any shape
    fmt : IntFormat

    Returns
    -------
    saturated : int64 array
    overflowed : bool array
        Where a bound replaced the value.
    """
    exact = np.asarray(values, dtype=np.int64)
    return np.clip(exact, fmt.min, fmt.max), split_by_range(exact, fmt)


def doubling_high_multiply(a: ArrayLike, b: ArrayLike) -> Int64Array:
    """High half of twice the product of two int32, rounded half up: (a * b + 2**30) >> 31.

    The one product that does not fit, INT32_MIN * INT32_MIN, saturates to INT32_MAX. Source:
    gemmlowp fixedpoint.h, SaturatingRoundingDoublingHighMul. With b = 2**30 (one half) and the
    values -5, -3, 3, 5 the results are -2, -1, 2, 3.
    """
    product = np.asarray(a, dtype=np.int64) * np.asarray(b, dtype=np.int64)
    high: Int64Array = np.minimum((product + (1 << 30)) >> 31, INT32.max)
    return high


def rounding_right_shift(values: ArrayLike, bits: ArrayLike) -> Int64Array:
    """Divide int32 values by 2**bits, rounded half away from zero.

    bits is 0 to 31. Source: gemmlowp fixedpoint.h, RoundingDivideByPOT. Shifting -5, -3, 3, 5 by
    one bit gives -3, -2, 2, 3.
    """
    exact = np.asarray(values, dtype=np.int64)
    exponent = np.asarray(bits, dtype=np.int64)
    mask = (np.int64(1) << exponent) - 1
    threshold = (mask >> 1) + (exact < 0)
    away = np.asarray((exact & mask) > threshold, dtype=np.int64)
    return (exact >> exponent) + away


def _double(acc: Int64Array, multiplier: Int64Array, shift: Int64Array) -> Int64Array:
    shifted, _ = wrap(acc << np.maximum(shift, 0), INT32)
    return rounding_right_shift(doubling_high_multiply(shifted, multiplier), np.maximum(-shift, 0))


def _single(acc: Int64Array, multiplier: Int64Array, shift: Int64Array) -> Int64Array:
    word, _ = wrap(acc, INT32)
    return (word * multiplier + (np.int64(1) << (30 - shift))) >> (31 - shift)


def _multiplier16(acc: Int64Array, multiplier: Int64Array, shift: Int64Array) -> Int64Array:
    reduced = np.where(multiplier < 0x7FFF0000, (multiplier + (1 << 15)) >> 16, 0x7FFF)
    scaled = (acc * reduced + (np.int64(1) << (14 - shift))) >> (15 - shift)
    return wrap(scaled, INT32)[0]


def _shift_half_up(acc: Int64Array, multiplier: Int64Array, shift: Int64Array) -> Int64Array:
    dropped = np.maximum(-shift, 0)
    half: Int64Array = (np.int64(1) << dropped) >> 1
    rounded: Int64Array = ((acc << np.maximum(shift, 0)) + half) >> dropped
    return rounded


def _shift_half_even(acc: Int64Array, multiplier: Int64Array, shift: Int64Array) -> Int64Array:
    dropped = np.maximum(-shift, 0)
    scaled = acc << np.maximum(shift, 0)
    below_half = np.maximum(((np.int64(1) << dropped) >> 1) - 1, 0)
    odd = (scaled >> dropped) & np.minimum(dropped, 1)
    rounded: Int64Array = (scaled + below_half + odd) >> dropped
    return rounded


_RULES: dict[Rounding, Callable[[Int64Array, Int64Array, Int64Array], Int64Array]] = {
    "double": _double,
    "single": _single,
    "multiplier16": _multiplier16,
    "shift_half_up": _shift_half_up,
    "shift_half_even": _shift_half_even,
}


def requantize(
    acc: ArrayLike, requantization: Requantization, channel_axis: int = -1
) -> Int64Array:
    """Bring accumulators to the output scale; zero point and clamp are the caller's.

    Parameters
    ----------
    acc : integer array, any shape
        Accumulators with the bias added. ``double`` and ``single`` read the low 32 bits, as the
        int32 accumulator they are defined for holds them.
    requantization : Requantization
        One multiplier and shift, or one per element of `channel_axis`.
    channel_axis : int

    Returns
    -------
    int64 array of the shape of `acc`

    Notes
    -----
    Ties, at a real multiplier of one half and accumulators -5, -3, 3, 5 (multiplier 2**30, shift 0;
    for the shift rules shift -1)::

        double            -2  -1   2   3    the multiply rounds half up
        single            -2  -1   2   3    half up
        shift_half_up     -2  -1   2   3    half up
        shift_half_even   -2  -2   2   2    half to even

    and at one quarter (shift -1 for ``double``) the second, away-from-zero rounding of ``double``
    shows: -6 gives -2 where ``single`` gives -1. Sources: gemmlowp fixedpoint.h and TensorFlow Lite
    kernels/internal/common.cc. XNNPACK and ONNX Runtime multiply in float and round half to even.
    """
    exact = np.asarray(acc, dtype=np.int64)
    axis_shape = [1] * exact.ndim
    if requantization.multiplier.size > 1:
        axis_shape[channel_axis] = requantization.multiplier.size
    multiplier = requantization.multiplier.astype(np.int64).reshape(axis_shape)
    shift = requantization.shift.astype(np.int64).reshape(axis_shape)
    return _RULES[requantization.rounding](exact, multiplier, shift)
