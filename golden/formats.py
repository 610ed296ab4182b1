"""Two's complement and unsigned integer formats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64Array = NDArray[np.int64]


@dataclass(frozen=True)
class IntFormat:
    """An integer format of `bits` bits, two's complement where `signed`.

    Parameters
    ----------
    bits : int
        1 to 64 (1 to 63 where unsigned, so that every value fits int64).
    signed : bool
    """

    bits: int
    signed: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= (64 if self.signed else 63):
            raise ValueError(f"bits must be 1 to {64 if self.signed else 63}, not {self.bits}")

    @property
    def min(self) -> int:
        """Smallest value."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def max(self) -> int:
        """Largest value."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    def contains(self, value: int) -> bool:
        """Whether `value` is in range."""
        return self.min <= value <= self.max


def bits_needed(low: int, high: int) -> int:
    """Smallest two's complement width that holds every integer of [low, high].

    bits_needed(0, 0) = 1, bits_needed(-128, 127) = 8, bits_needed(0, 128) = 9.
    """
    if low > high:
        raise ValueError(f"low must not exceed high, but {low} > {high}")
    return 1 + max((-low - 1).bit_length() if low < 0 else 0, high.bit_length() if high > 0 else 0)


def split_by_range(values: Int64Array, fmt: IntFormat) -> NDArray[np.bool_]:
    """Mask of the elements of `values` that `fmt` cannot hold."""
    return (values < fmt.min) | (values > fmt.max)
