"""Kernels that add the same products in several orders, in accumulators of several widths."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator._jit import jit, jit_nogil

Array = NDArray[Any]

ORDERS = ("declared", "sorted", "tree")
"""Orders of addition, as `compare_orders` numbers them.

* ``declared``: kernel row, kernel column, channel.
* ``sorted``: positive and negative addends, largest magnitudes first; a negative one is added
  while the sum is positive, otherwise a positive one, and at the end what is left.
* ``tree``: neighbours in pairs, their sums in pairs, and so on; every sum has the same width.
"""

RULES = ("wrap", "saturate")

COUNTS = ("events", "outputs_affected", "transient", "persistent", "outputs_wrong")


@jit
def _confine(total: int, half: int, saturate: int) -> int:
    if -half <= total < half:
        return total
    if saturate:
        return half - 1 if total > 0 else -half
    return (total + half) % (2 * half) - half


@jit
def _sort(addends: Array, count: int, ordered: Array) -> None:
    """Write addends[:count] to `ordered` in the order ``sorted``.

    The exact sum decides what comes next, so the order does not depend on the width.
    """
    ascending = np.sort(addends[:count])
    low, high, total = 0, count - 1, 0
    for i in range(count):
        take_low = ascending[low] < 0 and (total > 0 or ascending[high] < 0)
        if take_low:
            ordered[i] = ascending[low]
            low += 1
        else:
            ordered[i] = ascending[high]
            high -= 1
        total += ordered[i]


@jit
def _add_in_line(addends: Array, count: int, half: int, saturate: int) -> tuple[int, int]:
    """Content and overflow events after adding one by one."""
    content, events = 0, 0
    for i in range(count):
        total = content + addends[i]
        content = _confine(total, half, saturate)
        events += total < -half or total >= half
    return content, events


@jit
def _add_in_tree(
    addends: Array, count: int, half: int, saturate: int, sums: Array
) -> tuple[int, int]:
    """Content and overflow events of a tree of adders; an odd one waits for the next level."""
    events = 0
    for i in range(count):
        sums[i] = _confine(addends[i], half, saturate)
        events += addends[i] < -half or addends[i] >= half
    while count > 1:
        pairs = count // 2
        for i in range(pairs):
            total = sums[2 * i] + sums[2 * i + 1]
            sums[i] = _confine(total, half, saturate)
            events += total < -half or total >= half
        if count % 2:
            sums[pairs] = sums[count - 1]
        count = pairs + count % 2
    return (sums[0] if count else 0), events


@jit_nogil
def compare_orders(operands: Array, weights: Array, acc_bits: Array, counts: Array) -> None:
    """Add every output in every order, width and rule, and count what overflowed.

    Parameters
    ----------
    operands : (pixels, taps) int64 array
    weights : (channels, taps) int64 array
        A zero weight adds nothing.
    acc_bits : (widths,) int64 array
    counts : (widths, RULES, ORDERS, COUNTS) int64 array
        Added to.
    """
    taps = weights.shape[1]
    declared = np.empty(taps, dtype=np.int64)
    ordered, sums = np.empty_like(declared), np.empty_like(declared)
    for channel in range(weights.shape[0]):
        for pixel in range(operands.shape[0]):
            count, exact = 0, 0
            for k in range(taps):
                if weights[channel, k] != 0:
                    declared[count] = weights[channel, k] * operands[pixel, k]
                    exact += declared[count]
                    count += 1
            _sort(declared, count, ordered)
            for i in range(acc_bits.shape[0]):
                half = 1 << (acc_bits[i] - 1)
                persistent = exact < -half or exact >= half
                for saturate in range(2):
                    for order in range(3):
                        if order == 2:
                            found = _add_in_tree(declared, count, half, saturate, sums)
                        else:
                            line = declared if order == 0 else ordered
                            found = _add_in_line(line, count, half, saturate)
                        record = counts[i, saturate, order]
                        record[0] += found[1]
                        if found[1] > 0:
                            record[1] += 1
                            record[2 + persistent] += 1
                        record[4] += found[0] != exact
