"""Every jitted function of the fast model.

Public functions elsewhere prepare contiguous arrays; kernels only loop. Everything a kernel depends
on comes by argument, because Numba freezes module globals into its cache. The fast model shares no
arithmetic with `golden` or with the stepped model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator._jit import jit

# -- streams (S rules) ----------------------------------------------------------------------------


@jit
def _nonadjacent_digits(value: int) -> int:
    """Signed digits of the canonical form: 3v and v differ in one bit for each."""
    magnitude = abs(value)
    bits = magnitude ^ (3 * magnitude)
    count = 0
    while bits:
        bits &= bits - 1
        count += 1
    return count


@jit
def count_entries(
    weights: NDArray[np.int64], groups: int, in_words: int, feed: int, serial: bool
) -> NDArray[np.int32]:
    """Entries of every output channel at every window word, fillers not included (rule S3).

    Parameters
    ----------
    weights : (out_channels, taps, in_channels / groups) int64
        Minus their zero point.
    groups, in_words, feed : int
    serial : bool
        One entry for each signed digit instead of one for each weight.

    Returns
    -------
    (out_channels, taps * in_words) int32
    """
    out_channels, taps, group_channels = weights.shape
    out_group = out_channels // groups
    counts = np.zeros((out_channels, taps * in_words), dtype=np.int32)
    for channel in range(out_channels):
        first = (channel // out_group) * group_channels
        for tap in range(taps):
            for i in range(group_channels):
                weight = weights[channel, tap, i]
                if weight != 0:
                    word = tap * in_words + (first + i) // feed
                    counts[channel, word] += _nonadjacent_digits(weight) if serial else 1
    return counts


@jit
def with_fillers(counts: NDArray[np.int32]) -> NDArray[np.int32]:
    """Entries of each column at each word, fillers included (rule S4): (C, n) to (C, n)."""
    cols, words = counts.shape
    filled = counts.copy()
    for c in range(cols):
        filled[c, 0] = max(filled[c, 0], 1)
        filled[c, words - 1] = max(filled[c, words - 1], 1)
        last = 0
        for w in range(1, words):
            if filled[c, w] == 0 and w - last == 15:
                filled[c, w] = 1  # the next entry would be more than 15 words away
            if filled[c, w] > 0:
                last = w
    return filled


@jit
def column_entries(counts: NDArray[np.int32]) -> NDArray[np.int64]:
    """Length of each column's stream, fillers included: (C, n) to (C,)."""
    filled = with_fillers(counts)
    cols, words = counts.shape
    lengths = np.zeros(cols, dtype=np.int64)
    for c in range(cols):
        for w in range(words):
            lengths[c] += filled[c, w]
    return lengths


@jit
def chunk_end(
    counts: NDArray[np.int32],
    start: int,
    capacity_bits: int,
    entry_bits: int,
    feed_word_bits: int,
    parameter_bits: int,
) -> int:
    """One past the last word of the longest chunk from `start` that fits; `start` if none does.

    A chunk holds C x its longest column of entries (with the fillers of a tile of its own), its
    feed words and, if it is the tile's last, `parameter_bits` of parameters.
    """
    cols, words = counts.shape
    lengths = np.zeros(cols, dtype=np.int64)  # entries up to each column's last one
    last = np.full(cols, start, dtype=np.int64)
    best = start
    for w in range(start, words):
        longest = 0
        for c in range(cols):
            if w == start:
                lengths[c] = max(counts[c, w], 1)
            elif counts[c, w] > 0:
                lengths[c] += (w - last[c] - 1) // 15 + counts[c, w]
                last[c] = w
            longest = max(longest, lengths[c] + (w - last[c] + 14) // 15)
        bits = cols * longest * entry_bits + (w + 1 - start) * feed_word_bits
        if bits > capacity_bits:
            break
        if w + 1 < words or bits + parameter_bits <= capacity_bits:
            best = w + 1
    return best
