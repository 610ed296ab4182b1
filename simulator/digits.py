"""Signed digits of weights: canonical non-adjacent form."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def signed_digits(weight: int) -> list[tuple[int, int]]:
    """Signed powers of two of `weight` as (exponent, sign), highest exponent first.

    No two exponents are adjacent, and no other form has fewer digits. 7 gives [(3, 1), (0, -1)],
    0 gives []. Source: G. W. Reitwiesner, Binary Arithmetic, 1960.
    """
    sign = -1 if weight < 0 else 1
    rest, exponent = abs(weight), 0
    digits = []
    while rest:
        if rest & 1:
            digit = 2 - (rest & 3)  # +1 where the low bits are 01, -1 where they are 11
            digits.append((exponent, sign * digit))
            rest -= digit
        rest >>= 1
        exponent += 1
    return digits[::-1]


def digit_count(weights: ArrayLike) -> NDArray[np.int64]:
    """Count the signed digits of each weight; any integer array of up to 32 bits."""
    magnitude = np.abs(np.asarray(weights, dtype=np.int64))
    return np.bitwise_count((3 * magnitude) ^ magnitude).astype(np.int64)
