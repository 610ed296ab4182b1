"""What released integer Winograd kernels compute, and where it is not the convolution.

Models of other people's arithmetic, so that its limits can be tested; nothing of ours uses them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from golden.arithmetic import wrap
from golden.formats import Int64Array, IntFormat
from golden.ranges import Range
from golden.winograd.ranges import corners, type_ranges
from golden.winograd.transforms import Transform

INT32 = IntFormat(32)


def stored_weights(
    transform: Transform, weights: Int64Array, bits: int = 16
) -> tuple[Int64Array, NDArray[np.bool_]]:
    """Store transformed weights in words of `bits` bits.

    Parameters
    ----------
    transform : Transform
        eq-ncnn: ``winograd(4, 3, "scaled")`` in int16; ncnn today: `ncnn_f4`.
    weights : (out_channels, kernel_height, kernel_width, in_channels) int64 array
    bits : int

    Returns
    -------
    stored : (out_channels, products, in_channels) int64 array
    overflowed : bool array
        Where the word could not hold the value.

    Notes
    -----
    With 24 G a weight w of the last tap becomes 576 * w, so int16 holds every kernel of |w| <= 56
    only; 63, an INT7 weight, becomes 36288 and is stored as -29248. Source: eq-ncnn, commit
    64ba809, src/layer/arm/convolution_3x3_int8.h.
    """
    exact = np.einsum("prs,krsc->kpc", transform.weight, weights)
    return wrap(exact, IntFormat(bits))


def largest_weight(transform: Transform, bits: int) -> int:
    """Largest M for which weights in [-M, M] have transforms that fit `bits` bits."""
    gain = int(np.abs(transform.weight).sum(axis=(1, 2)).max())
    return IntFormat(bits).max // gain


def float32_quotient(scaled: Int64Array, divisor: int) -> Int64Array:
    """Divide as ncnn's vector code does: multiply by the float32 reciprocal and cut off.

    trunc(float32(z) * float32(1 / divisor)). With 576 the first wrong quotient of a multiple is
    that of y = 1,864,137. Source: ncnn a4d2ea1, x86/convolution_3x3_winograd_int8.h.
    """
    reciprocal = np.float32(1) / np.float32(divisor)
    quotient: Int64Array = np.trunc(scaled.astype(np.float32) * reciprocal).astype(np.int64)
    return quotient


def products_that_fit(bits: int, a: Range, b: Range) -> int:
    """Count the products of numbers in two ranges that `bits` bits can add for certain.

    EasyQuant adds 8 products of INT7 codes in INT16; with -64 among the codes only 7 fit.
    """
    fmt = IntFormat(bits)
    low, high = corners(a, b)
    limits = [fmt.min // low] if low < 0 else []
    limits += [fmt.max // high] if high > 0 else []
    return min(limits)


def channels_that_fit(transform: Transform, x_range: Range, w_range: Range) -> dict[str, int]:
    """Input channels that int32 holds for certain: by stage, the accumulator and Z.

    Parameters
    ----------
    transform : Transform
    x_range, w_range : (int, int)
        Of operands and weights.

    Returns
    -------
    dict
        ``sum``: channels whose products can be added; ``output``: channels whose divisor * y fits.
    """
    one = type_ranges(transform, x_range, w_range)
    return {
        stage: min(INT32.min // one[stage][0], INT32.max // one[stage][1])
        for stage in ("sum", "output")
    }
