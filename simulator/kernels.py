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


# -- timing (A, D and E rules) --------------------------------------------------------------------


@jit
def _tile_cycles(
    filled: NDArray[np.int32],
    first: int,
    stop: int,
    state: NDArray[np.int64],
    arrival: NDArray[np.int64],
    busy: NDArray[np.bool_],
) -> tuple[int, int]:
    """Run one tile's words from a window state, in cycles after the fire before.

    Parameters
    ----------
    filled : (C, words) int32
        Entries of the run, this tile's from `first` to `stop`.
    state : (D,) int64
        Cycle in which each of the next D words can be picked, at least 1.
    arrival : (longest tile + D,) int64
        Scratch; on return its elements n .. n + D - 1 are those of the D words after the tile.
    busy : bool
        Scratch, all False; as many elements as the tile may take cycles.

    Returns
    -------
    ready, compute : int
        Cycle in which the last column issues its last entry; cycles in which any column issues.
    """
    cols = filled.shape[0]
    words, depth = stop - first, state.size
    issued = np.zeros(cols, dtype=np.int64)  # cycle of each column's latest entry
    released = np.zeros(words, dtype=np.int64)
    arrival[:depth] = state
    for w in range(words + depth):
        if w >= depth:
            arrival[w] = max(arrival[w - 1], released[w - depth]) + 1
        if w < words:
            for c in range(cols):
                n = filled[c, first + w]
                if n > 0:
                    start = max(issued[c] + 1, arrival[w])
                    issued[c] = start + n - 1
                    busy[start : start + n] = True
                released[w] = max(released[w], issued[c])
    ready = released[words - 1]
    compute = 0
    for cycle in range(1, ready + 1):
        compute += busy[cycle]
        busy[cycle] = False
    return ready, compute


@jit
def run_cycles(
    filled: NDArray[np.int32],
    tile_ends: NDArray[np.int64],
    drain_cycles: NDArray[np.int64],
    pixel_tiles: int,
    depth: int,
    drain: bool,
) -> tuple[int, int, int, int]:
    """Cycles of one engine run by cause.

    Parameters
    ----------
    filled : (C, words) int32
        Entries, fillers included; channel tiles side by side.
    tile_ends : (channel tiles,) int64
        One past the last word of each.
    drain_cycles : (channel tiles,) int64
        N of rule D1.
    pixel_tiles, depth : int
    drain : bool
        `cfg_drain` (rule E4).

    Returns
    -------
    compute, stall_feed, drain, total : int
        `total` includes the three cycles of `fill`.

    Notes
    -----
    A tile depends on the past only through the window state at its beginning, so the pixel tiles of
    a channel tile become periodic; the period is found by comparing with a remembered state that
    moves on at powers of two (Brent 1980), and whole periods are added at once.
    """
    longest = 0
    span = 0
    first = 0
    for stop in tile_ends:
        longest = max(longest, stop - first)
        bound = depth + 2
        for w in range(first, stop):
            most = 0
            for c in range(filled.shape[0]):
                most = max(most, filled[c, w])
            bound += most + 1
        span = max(span, bound)
        first = stop
    arrival = np.zeros(longest + depth, dtype=np.int64)
    busy = np.zeros(span, dtype=np.bool_)
    state = np.arange(1, depth + 1)
    mark = np.zeros(depth, dtype=np.int64)
    fire = compute = waiting = 0  # fire counts from the end of the fill
    hold = 0  # N of the tile before
    first = 0
    for tile in range(tile_ends.size):
        stop = tile_ends[tile]
        words = stop - first
        mark[:] = 0  # no state: they are at least 1
        mark_tile = next_mark = 1
        mark_fire = mark_compute = mark_waiting = 0
        i = 0
        while i < pixel_tiles:
            if i > 0 and next_mark > 0 and np.array_equal(state, mark):
                period = i - mark_tile
                times = (pixel_tiles - i) // period
                i += times * period
                fire += times * (fire - mark_fire)
                compute += times * (compute - mark_compute)
                waiting += times * (waiting - mark_waiting)
                next_mark = 0  # fewer tiles than a period are left
                continue
            if i == next_mark:
                mark[:] = state
                mark_tile, mark_fire, mark_compute, mark_waiting = i, fire, compute, waiting
                next_mark *= 2
            ready, issuing = _tile_cycles(filled, first, stop, state, arrival, busy)
            fired = max(ready, hold)
            fire += fired
            compute += issuing
            waiting += fired - ready
            for j in range(depth):
                state[j] = max(1, arrival[words + j] - fired)
            hold = drain_cycles[tile]
            i += 1
        first = stop
    after = drain_cycles[-1] + 7 if drain else 1
    return compute, fire - compute - waiting, waiting + after, 3 + fire + after


# -- transfers (T rules) --------------------------------------------------------------------------


@jit
def _transfer_cycles(size_bytes: int, bytes_per_cycle: int, latency_cycles: int) -> int:
    if size_bytes == 0:
        return 0
    return latency_cycles + (size_bytes + bytes_per_cycle - 1) // bytes_per_cycle


@jit
def transfer_stalls(
    load_weight_bytes: NDArray[np.int64],
    load_activation_bytes: NDArray[np.int64],
    store_bytes: NDArray[np.int64],
    run_cycles: NDArray[np.int64],
    double_buffer: bool,
    bytes_per_cycle: int,
    latency_cycles: int,
) -> tuple[int, int, int, int]:
    """Find how long the engine waits for the DMA (rules T4 to T6).

    Parameters
    ----------
    load_weight_bytes, load_activation_bytes, store_bytes, run_cycles : (passes,) int64
    double_buffer : bool
    bytes_per_cycle, latency_cycles : int

    Returns
    -------
    stall_weights, stall_activations, stall_outputs, total : int
        `total` is the cycle in which the last store ends, counted from the layer's start.
    """
    passes = run_cycles.size
    ahead = 2 if double_buffer else 1
    done = np.zeros(passes + 1, dtype=np.int64)  # done[j + 1]: the engine finished pass j
    weights_end = np.zeros(passes, dtype=np.int64)
    loads_end = np.zeros(passes, dtype=np.int64)
    stored = np.zeros(passes, dtype=np.int64)
    dma = 0  # cycle in which the DMA is free
    stall_weights = stall_activations = stall_outputs = 0
    for load in range(passes + ahead - 1):
        if load < passes and load_weight_bytes[load] + load_activation_bytes[load] > 0:
            if load >= ahead:
                dma = max(dma, done[load - ahead + 1])
            if load_weight_bytes[load] > 0:
                dma += _transfer_cycles(load_weight_bytes[load], bytes_per_cycle, latency_cycles)
                weights_end[load] = dma
            dma += _transfer_cycles(load_activation_bytes[load], bytes_per_cycle, latency_cycles)
            loads_end[load] = dma
        j = load - ahead + 1
        if j < 0:
            continue
        free = done[j]
        start = max(free, loads_end[j])
        if j >= ahead:
            start = max(start, stored[j - ahead])
        weights = max(free, weights_end[j])
        activations = max(weights, loads_end[j])
        stall_weights += weights - free
        stall_activations += activations - weights
        stall_outputs += start - activations
        done[j + 1] = start + run_cycles[j]
        if store_bytes[j] > 0:
            dma = max(dma, done[j + 1])
            dma += _transfer_cycles(store_bytes[j], bytes_per_cycle, latency_cycles)
            stored[j] = dma
    end = max(done[passes], dma)
    return stall_weights, stall_activations, stall_outputs + end - done[passes], end
