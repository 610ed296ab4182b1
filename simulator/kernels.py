"""Every jitted function of the fast model.

Public functions elsewhere prepare contiguous arrays; kernels only loop. Everything a kernel depends
on comes by argument, because Numba freezes module globals into its cache. The fast model shares no
arithmetic with `golden` or with the stepped model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator._jit import add_lanes, jit, jit_fused, jit_nogil

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
    weights: NDArray[np.int8],
    zero_point: int,
    groups: int,
    in_words: int,
    feed: int,
    terms: int,
    unary: bool,
) -> NDArray[np.int32]:
    """Entries of every output channel at every window word, fillers not included (S3, W10).

    Parameters
    ----------
    weights : (out_channels, taps, in_channels / groups), any integer type
    zero_point : int
        Of the weights.
    groups, in_words, feed : int
    terms : int
        Signed digits that an entry holds; 0 where one entry holds any weight.
    unary : bool
        One entry for each unit of the magnitude.

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
                weight = int(weights[channel, tap, i]) - zero_point
                if weight != 0:
                    word = tap * in_words + (first + i) // feed
                    if unary:
                        counts[channel, word] += abs(weight)
                    elif terms > 0:
                        digits = _nonadjacent_digits(weight)
                        counts[channel, word] += (digits + terms - 1) // terms
                    else:
                        counts[channel, word] += 1
    return counts


@jit
def with_fillers(counts: NDArray[np.int32], ends: NDArray[np.int64]) -> NDArray[np.int32]:
    """Entries of each column at each word, fillers included (rule S4): (C, n) to (C, n).

    `ends` (parts,) are one past the last word of each part (rule W4), in order.
    """
    filled = counts.copy()
    for c in range(counts.shape[0]):
        first = 0
        for end in ends:
            filled[c, first] = max(filled[c, first], 1)
            filled[c, end - 1] = max(filled[c, end - 1], 1)
            last = first
            for w in range(first + 1, end):
                if filled[c, w] == 0 and w - last == 15:
                    filled[c, w] = 1  # the next entry would be more than 15 words away
                if filled[c, w] > 0:
                    last = w
            first = end
    return filled


@jit
def column_entries(counts: NDArray[np.int32], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Length of each column's stream, fillers included: (C, n) to (C,); see `with_fillers`."""
    filled = with_fillers(counts, ends)
    cols, words = counts.shape
    lengths = np.zeros(cols, dtype=np.int64)
    for c in range(cols):
        for w in range(words):
            lengths[c] += filled[c, w]
    return lengths


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
    for j in range(depth):
        arrival[j] = state[j]
    for w in range(words + depth):
        if w >= depth:
            arrival[w] = max(arrival[w - 1], released[w - depth]) + 1
        if w < words:
            for c in range(cols):
                n = filled[c, first + w]
                if n > 0:
                    start = max(issued[c] + 1, arrival[w])
                    issued[c] = start + n - 1
                    for cycle in range(start, start + n):
                        busy[cycle] = True
                released[w] = max(released[w], issued[c])
    ready = released[words - 1]
    compute = 0
    for cycle in range(1, ready + 1):
        compute += busy[cycle]
        busy[cycle] = False
    return ready, compute


@jit
def _equal(a: NDArray[np.int64], b: NDArray[np.int64]) -> bool:
    for i in range(a.size):  # noqa: SIM110 - a generator would not compile
        if a[i] != b[i]:
            return False
    return True


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
        mark[0] = 0  # no state: their elements are at least 1
        mark_tile = next_mark = 1
        mark_fire = mark_compute = mark_waiting = 0
        i = 0
        while i < pixel_tiles:
            if next_mark > 0 and _equal(state, mark):
                period = i - mark_tile
                times = (pixel_tiles - i) // period
                i += times * period
                fire += times * (fire - mark_fire)
                compute += times * (compute - mark_compute)
                waiting += times * (waiting - mark_waiting)
                next_mark = 0  # fewer tiles than a period are left
                continue
            if i == next_mark:
                for j in range(depth):
                    mark[j] = state[j]
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


@jit
def winograd_run_cycles(
    filled: NDArray[np.int32],
    part_words: NDArray[np.int64],
    taps: int,
    results: NDArray[np.int64],
    tile_outputs: int,
    pixel_tiles: int,
    depth: int,
) -> tuple[int, int, int, int]:
    """Cycles of one engine run of a Winograd pass by cause (rules W2 to W5).

    Parameters
    ----------
    filled : (C, words) int32
        Entries, fillers included; channel tiles side by side, in the order of rule W3.
    part_words : (parts,) int64
        Words of the parts of one channel tile, `taps` parts a chunk.
    taps : int
        n * n.
    results : (channel tiles,) int64
        N of rule W5 but for a tile's last part.
    tile_outputs : int
        m * m.
    pixel_tiles, depth : int

    Returns
    -------
    compute, stall_feed, drain, total : int
        `total` includes the three cycles of `fill`.

    Notes
    -----
    A tile depends on the past through a few cycles, which `state` has relative to the fire before.
    Where they are those of the tile before, the tiles to come are all alike.
    """
    cols = filled.shape[0]
    side = 4 if taps == 16 else 6
    latency = taps + 2 * side + 1  # from a chunk's end to its first read
    busy = np.zeros(_longest_part(filled, part_words) + 4 * taps * part_words[0] + 100, np.bool_)
    released = np.zeros(depth, dtype=np.int64)  # R of the latest words, by number modulo depth
    freed_before = freed = -1  # last reads of the two chunks before
    accepted = 3  # in which the next chunk's first word can come
    issued = np.zeros(cols, dtype=np.int64)
    word = 0
    loaded = chunk_left = first_read = compute = drain = hold = 0
    fire = 3
    state = np.zeros(depth + 5, dtype=np.int64)
    before = np.zeros(depth + 5, dtype=np.int64)
    for tile in range(results.size):
        before[-1] = -1  # no state: holds are positive
        mark_fire = mark_compute = mark_drain = 0
        for i in range(pixel_tiles):
            for j in range(depth):
                state[j] = released[(word + j) % depth] - fire
            state[depth:] = freed_before - fire, freed - fire, accepted - fire, loaded - fire, hold
            if _equal(state, before):
                times, ahead = pixel_tiles - i, fire - mark_fire
                compute += times * (compute - mark_compute)
                drain += times * (drain - mark_drain)
                released += times * ahead
                fire += times * ahead
                freed_before += times * ahead
                freed += times * ahead
                accepted += times * ahead
                loaded += times * ahead
                break
            before[:] = state
            mark_fire, mark_compute, mark_drain = fire, compute, drain
            at = tile * part_words.sum()
            for part in range(part_words.size):
                if part % taps == 0:
                    chunk_left = part_words[part] * taps
                    accepted = max(accepted, freed_before + 1) + chunk_left
                    first_read = accepted + latency
                for c in range(cols):
                    issued[c] = fire
                ready = fire
                for w in range(at, at + part_words[part]):
                    read = max(loaded, first_read)
                    loaded = max(read + 1, released[word % depth])
                    chunk_left -= 1
                    if chunk_left == 0:
                        freed_before, freed = freed, read
                    first, last = loaded, loaded  # cycles that are marked already
                    for c in range(cols):
                        n = filled[c, w]
                        if n > 0:
                            start = max(issued[c], loaded) + 1
                            issued[c] = start + n - 1
                            if start < first or issued[c] > last:  # most are like the one before
                                first, last = start, issued[c]
                                for cycle in range(start - fire, start - fire + n):
                                    busy[cycle] = True
                        ready = max(ready, issued[c])
                    released[word % depth] = ready
                    word += 1
                for cycle in range(1, ready - fire + 1):
                    compute += busy[cycle]
                    busy[cycle] = False
                at += part_words[part]
                fired = max(ready, fire + hold)
                drain += fired - ready
                fire = fired
                hold = max(results[tile], 2)
            hold = results[tile] * tile_outputs
    after = results[-1] * tile_outputs + 10
    return compute, fire - 3 - compute - drain, drain + after, fire + after


@jit
def _longest_part(filled: NDArray[np.int32], part_words: NDArray[np.int64]) -> int:
    """Bound the cycles that the entries of a part take once its words are there."""
    longest = at = 0
    while at < filled.shape[1]:
        for words in part_words:
            bound = 0
            for w in range(at, at + words):
                bound += filled[:, w].max() + 2
            longest = max(longest, bound)
            at += words
    return longest


# -- accumulators (P rules) -----------------------------------------------------------------------


@jit
def build_steps(
    weights: NDArray[np.signedinteger[Any]], zero_point: int, groups: int, terms: int, unary: bool
) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64], int]:
    """List what every output channel adds, step by step.

    Parameters
    ----------
    weights : (out_channels, taps, in_channels / groups), any integer type
    zero_point : int
        Of the weights.
    groups : int
    terms : int
        A step for each so many signed digits, highest exponents first; 0: one for each weight.
    unary : bool
        A step of +1 or -1 for each unit of a weight's magnitude.

    Returns
    -------
    rows : (steps,) uint32
        Operand, as tap * in_channels + input channel.
    factors : (steps,) int64
        What the operand is multiplied by.
    starts : (out_channels + 1,) int64
        First step of every output channel.
    norm : int
        Largest sum of |factors| of a channel: times the largest |x| it bounds every prefix.
    """
    out_channels, taps, group_channels = weights.shape
    in_channels = group_channels * groups
    out_group = out_channels // groups
    starts = np.zeros(out_channels + 1, dtype=np.int64)
    for channel in range(out_channels):
        steps = 0
        for tap in range(taps):
            for i in range(group_channels):
                weight = int(weights[channel, tap, i]) - zero_point
                if unary:
                    steps += abs(weight)
                elif terms > 0:
                    steps += (_nonadjacent_digits(weight) + terms - 1) // terms
                elif weight != 0:
                    steps += 1
        starts[channel + 1] = starts[channel] + steps
    rows = np.empty(starts[out_channels], dtype=np.uint32)
    factors = np.empty(starts[out_channels], dtype=np.int64)
    step = 0
    for channel in range(out_channels):
        first = (channel // out_group) * group_channels
        for tap in range(taps):
            for i in range(group_channels):
                weight = int(weights[channel, tap, i]) - zero_point
                row = tap * in_channels + first + i
                if unary:
                    for _ in range(abs(weight)):
                        rows[step] = row
                        factors[step] = 1 if weight > 0 else -1
                        step += 1
                elif terms > 0:
                    digits = _nonadjacent_digits(weight)
                    steps = (digits + terms - 1) // terms
                    for position in range(step, step + steps):
                        rows[position] = row
                        factors[position] = 0
                    # The lowest digit comes first here, and belongs to the last step.
                    rest, unit = weight, 1
                    while rest != 0:
                        if rest & 1:
                            digit = 2 - (rest & 3)
                            digits -= 1
                            factors[step + digits // terms] += digit * unit
                            rest -= digit
                        rest >>= 1
                        unit <<= 1
                    step += steps
                elif weight != 0:
                    rows[step] = row
                    factors[step] = weight
                    step += 1
    norm = 0
    for channel in range(out_channels):
        total = 0
        for step in range(starts[channel], starts[channel + 1]):
            total += abs(factors[step])
        norm = max(norm, total)
    return rows, factors, starts, norm


@jit
def fill_planes(
    x: NDArray[np.int8], zero_point: int, top: int, left: int, planes: NDArray[np.int16]
) -> None:
    """Lay activations minus their zero point out by channel, with the padding around them.

    Parameters
    ----------
    x : (N, H, W, in_channels), any integer type
    zero_point, top, left : int
    planes : (N, in_channels, rows, columns), any number type
        Zeros; x[n, y, x, c] is written to planes[n, c, y + top, x + left], if it is there.
    """
    images, height, width, channels = x.shape
    height, width = min(height, planes.shape[2] - top), min(width, planes.shape[3] - left)
    for n in range(images):
        for iy in range(height):
            # Blocks, so that the lines read stay in the first-level cache.
            for c0 in range(0, channels, 32):
                for x0 in range(0, width, 256):
                    for c in range(c0, min(c0 + 32, channels)):
                        for ix in range(x0, min(x0 + 256, width)):
                            planes[n, c, top + iy, left + ix] = x[n, iy, ix, c] - zero_point


@jit
def _gather_operands(
    planes: NDArray[np.int16],
    window: NDArray[np.int64],
    first_pixel: int,
    count: int,
    channels: tuple[int, int],
    operands: NDArray[np.int16],
) -> None:
    """Copy the operands of `count` pixels: operands[tap * in_channels + channel, pixel].

    `planes` are those of `fill_planes`, `window` is (out_height, out_width, kernel_height,
    kernel_width, stride_y, stride_x, dilation_y, dilation_x). Only `channels` are written.
    """
    in_channels = planes.shape[1]
    out_height, out_width, kernel_height, kernel_width = window[0], window[1], window[2], window[3]
    stride = window[5]
    j = 0
    while j < count:  # pixels of one output row at a time
        image, pixel = divmod(first_pixel + j, out_height * out_width)
        oy, ox = divmod(pixel, out_width)
        part = min(out_width - ox, count - j)
        for ky in range(kernel_height):
            iy = oy * window[4] + ky * window[6]
            for kx in range(kernel_width):
                ix = ox * stride + kx * window[7]
                row = (ky * kernel_width + kx) * in_channels
                for c in range(channels[0], channels[1]):
                    source, target = planes[image, c, iy, ix:], operands[row + c, j:]
                    if stride == 1:  # a plain copy, many at once
                        for i in range(part):
                            target[i] = source[i]
                    else:
                        for i in range(part):
                            target[i] = source[i * stride]
        j += part


@jit_fused
def _prefixes(
    operands: NDArray[np.int16],
    rows: NDArray[np.uint32],
    factors: NDArray[np.signedinteger[Any]],
    start: int,
    stop: int,
    width: int,
    total: NDArray[np.int32],
    minimum: NDArray[np.int32],
    maximum: NDArray[np.int32],
) -> None:
    """Sum one channel's steps for `width` pixels; extremes over all prefixes, 0 included.

    Four steps a turn, so that the running values are loaded and stored once for four products. The
    casts keep the lanes as narrow as `total` (Numba would widen every product to 64 bits).
    """
    lane = total.dtype.type
    for j in range(width):
        total[j] = minimum[j] = maximum[j] = 0
    s = start
    while s + 4 <= stop:
        r0, r1, r2, r3 = rows[s], rows[s + 1], rows[s + 2], rows[s + 3]
        f0, f1, f2, f3 = factors[s], factors[s + 1], factors[s + 2], factors[s + 3]
        for j in range(width):
            t0 = lane(total[j] + lane(f0 * lane(operands[r0, j])))
            t1 = lane(t0 + lane(f1 * lane(operands[r1, j])))
            t2 = lane(t1 + lane(f2 * lane(operands[r2, j])))
            t3 = lane(t2 + lane(f3 * lane(operands[r3, j])))
            minimum[j] = min(minimum[j], min(min(t0, t1), min(t2, t3)))
            maximum[j] = max(maximum[j], max(max(t0, t1), max(t2, t3)))
            total[j] = t3
        s += 4
    while s < stop:
        row, factor = rows[s], factors[s]
        for j in range(width):
            t0 = lane(total[j] + lane(factor * lane(operands[row, j])))
            minimum[j] = min(minimum[j], t0)
            maximum[j] = max(maximum[j], t0)
            total[j] = t0
        s += 1


@jit
def _add(
    acc: NDArray[np.int64],
    addend: NDArray[np.int64],
    width: int,
    step: int,
    low: int,
    high: int,
    saturate: bool,
    events: NDArray[np.int64],
    first: NDArray[np.int64],
) -> None:
    """Add to accumulators of the range [low, high] (rule P2); `first` keeps the first step + 1."""
    span = high - low  # all ones
    for j in range(width):
        exact = acc[j] + addend[j]
        overflow = np.int64(exact < low) | np.int64(exact > high)
        events[j] += overflow
        first[j] = first[j] if first[j] > 0 else overflow * (step + 1)
        wrapped = ((exact - low) & span) + low
        acc[j] = min(max(exact, low), high) if saturate else wrapped


@jit
def _exact(
    operands: NDArray[np.int16],
    rows: NDArray[np.uint32],
    factors: NDArray[np.signedinteger[Any]],
    start: int,
    stop: int,
    width: int,
    rules: NDArray[np.int64],
    acc: NDArray[np.int64],
    events: NDArray[np.int64],
    first: NDArray[np.int64],
) -> None:
    """Run one channel's steps on accumulators of limited width (rules P2, P3, P5).

    `rules` is (low, high, saturate, spill, wide_low, wide_high). Adding a segment to the wide
    accumulator belongs to the segment's last step.
    """
    low, high, saturate, spill = rules[0], rules[1], rules[2] != 0, rules[3]
    addend = np.empty(width, dtype=np.int64)
    wide = np.zeros(width, dtype=np.int64)
    for j in range(width):
        acc[j] = events[j] = first[j] = 0
    for s in range(start, stop):
        if spill > 0 and s > start and (s - start) % spill == 0:
            _add(wide, acc, width, s - start - 1, rules[4], rules[5], saturate, events, first)
            for j in range(width):
                acc[j] = 0
        for j in range(width):
            addend[j] = np.int64(factors[s]) * np.int64(operands[rows[s], j])
        _add(acc, addend, width, s - start, low, high, saturate, events, first)
    if spill > 0:
        _add(wide, acc, width, stop - start - 1, rules[4], rules[5], saturate, events, first)
        for j in range(width):
            acc[j] = wide[j]


@jit
def _task_operands(
    task: int,
    tasks: int,
    planes: NDArray[np.int16],
    window: NDArray[np.int64],
    groups: int,
    shape: tuple[int, int, int],
) -> tuple[int, int, int, int, NDArray[np.int16]]:
    """Find what a task does and gather what it reads.

    `shape` is (pixel tiles, out_channels, lanes); the channels are cut into `tasks` / tiles parts.

    Returns
    -------
    tile, first_channel, last_channel, count : int
        Pixel tile, channels (the last one excluded), pixels.
    operands : (taps * in_channels, width) array
        `width` is `count` rounded up to a multiple of 16.
    """
    tiles, out_channels, lanes = shape
    blocks = tasks // tiles
    tile, block = task // blocks, task % blocks
    first_channel = out_channels * block // blocks
    last_channel = out_channels * (block + 1) // blocks
    count = min(lanes, planes.shape[0] * window[0] * window[1] - tile * lanes)
    width = (count + 15) // 16 * 16
    operands = np.zeros((window[2] * window[3] * planes.shape[1], width), dtype=planes.dtype)
    if first_channel < last_channel:
        out_group = out_channels // groups
        group_channels = planes.shape[1] // groups
        inputs = (
            first_channel // out_group * group_channels,
            ((last_channel - 1) // out_group + 1) * group_channels,
        )
        _gather_operands(planes, window, tile * lanes, count, inputs, operands)
    return tile, first_channel, last_channel, count, operands


@jit_nogil
def accumulate(
    first_task: int,
    last_task: int,
    planes: NDArray[np.int16],
    window: NDArray[np.int64],
    groups: int,
    rows: NDArray[np.uint32],
    factors: NDArray[np.int32],
    starts: NDArray[np.int64],
    rules: NDArray[np.int64],
    value: NDArray[np.int32],
    minimum: NDArray[np.int32],
    maximum: NDArray[np.int32],
    events: NDArray[np.int32],
    first: NDArray[np.int32],
    persistent: NDArray[np.bool_],
    tallies: NDArray[np.int64],
) -> None:
    """Accumulators of a part of a layer.

    A task is one pixel tile and a part of the channels. A channel whose unbounded prefixes leave
    the accumulator's range at some pixel is run again step by step.

    Parameters
    ----------
    first_task, last_task : int
        The tasks to run, the last one excluded; threads share them out.
    planes : (N, in_channels, rows, columns) int16, int32 or float32
        See `fill_planes`.
    window : (8,) int64
        See `_gather_operands`.
    groups : int
    rows, factors, starts
        See `build_steps`; `factors` has the element type of `value`.
    rules : (6,) int64
        See `_exact`.
    value, minimum, maximum : (pixel tiles, out_channels, lanes) float32, int32 or int64
        Written: the accumulator at the end, and the extremes of an unbounded one.
    events, first : (pixel tiles, out_channels, lanes) int32
        Zeros; written where there are events, `first` with the step + 1.
    persistent : (pixel tiles, out_channels, lanes) bool
        False; written where the exact sum does not fit the result.
    tallies : (tasks, 5) int64
        Zeros; written with events, transient and persistent outputs, minimum and maximum of every
        task. As many tasks as pixel tiles, or a multiple: the channels are cut into so many parts.
    """
    low, high, spill = rules[0], rules[1], rules[3]
    result_low = rules[4] if spill > 0 else low
    result_high = rules[5] if spill > 0 else high
    for task in range(first_task, last_task):
        tile, first_channel, last_channel, count, operands = _task_operands(
            task, tallies.shape[0], planes, window, groups, value.shape
        )
        width = operands.shape[1]
        total = np.empty(width, dtype=value.dtype)
        least = np.empty(width, dtype=value.dtype)
        most = np.empty(width, dtype=value.dtype)
        acc = np.empty(width, dtype=np.int64)
        lane_events = np.empty(width, dtype=np.int64)
        lane_first = np.empty(width, dtype=np.int64)
        for channel in range(first_channel, last_channel):
            start, stop = starts[channel], starts[channel + 1]
            _prefixes(operands, rows, factors, start, stop, width, total, least, most)
            lowest = 0
            highest = 0
            for j in range(count):
                lowest = min(lowest, int(least[j]))
                highest = max(highest, int(most[j]))
                value[tile, channel, j] = total[j]
                minimum[tile, channel, j] = least[j]
                maximum[tile, channel, j] = most[j]
            tallies[task, 3] = min(tallies[task, 3], lowest)
            tallies[task, 4] = max(tallies[task, 4], highest)
            if spill == 0 and low <= lowest and highest <= high:
                continue
            _exact(operands, rows, factors, start, stop, width, rules, acc, lane_events, lane_first)
            for j in range(count):
                value[tile, channel, j] = acc[j]
                lost = total[j] < result_low or total[j] > result_high
                persistent[tile, channel, j] = lost
                if lane_events[j] > 0:
                    events[tile, channel, j] = lane_events[j]
                    first[tile, channel, j] = lane_first[j]
                    tallies[task, 0] += lane_events[j]
                    tallies[task, 2 if lost else 1] += 1


@jit
def _dense_steps(
    weights: NDArray[np.signedinteger[Any]],
) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]]:
    """List what `build_steps` lists for a step a weight, quicker and zero weights included."""
    channels, _, inputs = weights.shape
    rows = np.empty((channels, inputs), dtype=np.uint32)
    factors = np.empty((channels, inputs), dtype=np.int64)
    for k in range(channels):
        for i in range(inputs):
            rows[k, i] = i
            factors[k, i] = weights[k, 0, i]
    return rows.ravel(), factors.ravel(), np.arange(channels + 1) * inputs


@jit
def _part_channels(
    operands: NDArray[np.int16],
    count: int,
    rows: NDArray[np.uint32],
    factors: NDArray[np.signedinteger[Any]],
    starts: NDArray[np.int64],
    weights: NDArray[np.signedinteger[Any]],
    first_row: int,
    bound: int,
    terms: int,
    unary: bool,
    rules: NDArray[np.int64],
    sums: NDArray[np.int64],
    tally: NDArray[np.int64],
) -> None:
    """Accumulate one part of some output channels; see `accumulate_parts`.

    `operands` are (blocks, in_channels, lanes), `rows`, `factors` and `starts` the steps, those of
    a weight together where its steps have one sign. `weights` are (channels, 1, inputs), and their
    first input channel is `first_row`. No prefix is larger than `bound`.
    """
    blocks, _, lanes = operands.shape
    total = np.empty(lanes, dtype=factors.dtype)
    least = np.empty(lanes, dtype=factors.dtype)
    most = np.empty(lanes, dtype=factors.dtype)
    shifted = np.empty(lanes, dtype=factors.dtype)
    overflows = np.empty(lanes, dtype=factors.dtype)
    acc = np.empty(lanes, dtype=np.int64)
    events = np.empty(lanes, dtype=np.int64)
    first = np.empty(lanes, dtype=np.int64)
    low, high, spill = rules[0], rules[1], rules[3]
    result_low = rules[4] if spill > 0 else low
    result_high = rules[5] if spill > 0 else high
    within = factors.itemsize == 8 or high - low + bound < 1 << 31  # `_contents` may add in lanes
    single_rows, single_factors, single_starts = rows, factors, starts
    listed = not unary and (terms > 0 or spill == 0)  # steps of zero weights would count
    for k in range(starts.size - 1):
        for b in range(blocks):
            _prefixes(
                operands[b], rows, factors, starts[k], starts[k + 1], lanes, total, least, most
            )
            lowest = highest = 0
            stop = min(lanes, count - b * lanes)
            for j in range(stop):
                lowest = min(lowest, int(least[j]))
                highest = max(highest, int(most[j]))
            tally[3] = min(tally[3], lowest)
            tally[4] = max(tally[4], highest)
            if spill == 0 and low <= lowest and highest <= high:
                for j in range(stop):
                    sums[k, b * lanes + j] += total[j]
                continue
            if not listed:
                single_rows, exact_factors, single_starts, _ = build_steps(
                    weights, 0, 1, terms, unary
                )
                single_rows += np.uint32(first_row)
                single_factors = exact_factors.astype(factors.dtype)
                listed = True
            begin, end = single_starts[k], single_starts[k + 1]
            steps = operands[b], single_rows, single_factors, begin, end, lanes
            if spill == 0 and within:
                for j in range(lanes):
                    shifted[j] = -low
                    overflows[j] = 0
                _contents(*steps, high - low, rules[2] != 0, shifted, overflows, least, None)
                for j in range(stop):
                    acc[j] = shifted[j] + low
                    events[j] = overflows[j]
            else:
                _exact(*steps, rules, acc, events, first)
            for j in range(stop):
                sums[k, b * lanes + j] += acc[j]
                if events[j] > 0:
                    lost = total[j] < result_low or total[j] > result_high
                    tally[0] += events[j]
                    tally[2 if lost else 1] += 1


@jit_nogil
def accumulate_parts(
    first_task: int,
    last_task: int,
    operands: NDArray[np.int16],
    largest: NDArray[np.int64],
    weights: NDArray[np.signedinteger[Any]],
    chunk_channels: int,
    count: int,
    terms: int,
    unary: bool,
    rules: NDArray[np.int64],
    sums: NDArray[np.int64],
    tallies: NDArray[np.int64],
) -> None:
    """Accumulators of the parts of a layer in the Winograd domain (rule W4).

    A task is one product of the transform and a part of the output channels. Where the operands of
    a part leave no doubt, its prefixes are summed in 32 bits.

    Parameters
    ----------
    first_task, last_task : int
        The tasks to run, the last one excluded; threads share them out.
    operands : (products, blocks, in_channels, lanes) int16 or int32
        Of `count` tiles; the rest of the last block is 0.
    largest : (products, in_channels) int64
        Largest magnitude of the operands.
    weights : (out_channels, products, in_channels)
    chunk_channels : int
        Input channels of a part.
    count : int
    terms : int
    unary : bool
        See `build_steps`.
    rules : (6,) int64
        See `_exact`.
    sums : (products, out_channels, count) int64
        Written: contents of the accumulators, those of all chunks added.
    tallies : (tasks, 5) int64
        See `accumulate`; a multiple of the products.
    """
    products, _, in_channels, _ = operands.shape
    out_channels = weights.shape[0]
    parts = tallies.shape[0] // products
    for task in range(first_task, last_task):
        p, part = task // parts, task % parts
        first, last = out_channels * part // parts, out_channels * (part + 1) // parts
        sums[p, first:last] = 0
        for c in range(0, in_channels, chunk_channels):
            stop = min(c + chunk_channels, in_channels)
            chunk = np.empty((last - first, 1, stop - c), dtype=weights.dtype)
            chunk[:, 0] = weights[first:last, p, c:stop]
            # Units of a weight go in one direction: their last prefix is the extreme one.
            if unary or terms == 0:
                rows, factors, starts = _dense_steps(chunk)
            else:
                rows, factors, starts, _ = build_steps(chunk, 0, 1, terms, False)
            rows += np.uint32(c)
            bound = 0
            for k in range(last - first):
                total = 0
                for s in range(starts[k], starts[k + 1]):
                    total += abs(factors[s]) * largest[p, rows[s]]
                bound = max(bound, total)
            sizes = c, bound, terms, unary
            found = sums[p, first:last], tallies[task]
            if bound < 1 << 31:
                narrow = factors.astype(np.int32)
                _part_channels(
                    operands[p], count, rows, narrow, starts, chunk, *sizes, rules, *found
                )
            else:
                _part_channels(
                    operands[p], count, rows, factors, starts, chunk, *sizes, rules, *found
                )


@jit
def _contents(
    operands: NDArray[np.int16],
    rows: NDArray[np.uint32],
    factors: NDArray[np.int16],
    start: int,
    stop: int,
    width: int,
    span: int,
    saturate: bool,
    acc: NDArray[np.int16],
    events: NDArray[np.int16],
    total: NDArray[np.signedinteger[Any]],
    upper: NDArray[np.int16] | None,
) -> None:
    """Run steps of one channel on accumulators of `span` + 1 values, and add to sums without limit.

    `acc` holds the content minus its least value, so that wrapping is a mask. `total` gets the
    products in its own type and `upper`, where there is one, their bits from 8 up. Four steps a
    turn, as in `_prefixes`; a step past the last adds 0, which never overflows.
    """
    lane = acc.dtype.type
    most, zero = lane(span), lane(0)
    for s in range(start, stop, 4):
        s1, s2, s3 = min(s + 1, stop - 1), min(s + 2, stop - 1), min(s + 3, stop - 1)
        r0, r1, r2, r3 = rows[s], rows[s1], rows[s2], rows[s3]
        f0 = factors[s]
        f1 = lane(factors[s1] * (s + 1 < stop))
        f2 = lane(factors[s2] * (s + 2 < stop))
        f3 = lane(factors[s3] * (s + 3 < stop))
        for j in range(width):
            p0, p1 = lane(f0 * lane(operands[r0, j])), lane(f1 * lane(operands[r1, j]))
            p2, p3 = lane(f2 * lane(operands[r2, j])), lane(f3 * lane(operands[r3, j]))
            t0 = add_lanes(acc[j], p0)
            c0 = min(max(t0, zero), most) if saturate else lane(lane(acc[j] + p0) & most)
            t1 = add_lanes(c0, p1)
            c1 = min(max(t1, zero), most) if saturate else lane(lane(c0 + p1) & most)
            t2 = add_lanes(c1, p2)
            c2 = min(max(t2, zero), most) if saturate else lane(lane(c1 + p2) & most)
            t3 = add_lanes(c2, p3)
            c3 = min(max(t3, zero), most) if saturate else lane(lane(c2 + p3) & most)
            acc[j] = c3
            total[j] = lane(total[j] + lane(lane(p0 + p1) + lane(p2 + p3)))
            if upper is not None:
                q0, q1 = lane(lane(p0 >> 8) + lane(p1 >> 8)), lane(lane(p2 >> 8) + lane(p3 >> 8))
                upper[j] = lane(upper[j] + lane(q0 + q1))
            early = lane(lane(t0 != c0) + lane(t1 != c1))
            late = lane(lane(t2 != c2) + lane(t3 != c3))
            events[j] = lane(events[j] + lane(early + late))


@jit
def _narrow_contents(
    operands: NDArray[np.int16],
    rows: NDArray[np.uint32],
    factors: NDArray[np.int16],
    start: int,
    stop: int,
    width: int,
    span: int,
    saturate: bool,
    acc: NDArray[np.int16],
    events: NDArray[np.int16],
    total: NDArray[np.int32],
) -> None:
    """Run all steps of one channel in 16-bit lanes; the sums without limit are wider.

    A sum that leaves 16 bits is clipped (`add_lanes`), and leaves the accumulator too. After n
    steps the true sum is that of the upper bits times 256 plus at most 255 n, and is known modulo
    2^16: of up to 256 steps it is exact. 252 steps a turn, so that the upper bits fit 16.
    """
    lower = np.empty(width, dtype=acc.dtype)
    upper = np.empty(width, dtype=acc.dtype)
    for first in range(start, stop, 252):
        last = min(first + 252, stop)
        for j in range(width):
            lower[j] = upper[j] = 0
        _contents(
            operands,
            rows,
            factors,
            first,
            last,
            width,
            span,
            saturate,
            acc,
            events,
            lower,
            upper,
        )
        for j in range(width):
            floor = np.int32(upper[j]) << 8
            total[j] += floor + ((lower[j] - floor) & 0xFFFF)


@jit_nogil
def count_overflows(
    first_task: int,
    last_task: int,
    planes: NDArray[np.int16],
    window: NDArray[np.int64],
    groups: int,
    rows: NDArray[np.uint32],
    factors: NDArray[np.int16],
    starts: NDArray[np.int64],
    rules: NDArray[np.int64],
    wide: np.dtype[np.int32],
    value: NDArray[np.int16],
    tallies: NDArray[np.int64],
) -> None:
    """Accumulators of a part of a layer that never spills, and how many of them overflowed.

    What `accumulate` does in one pass instead of two and without a record of every output: quicker
    where most accumulators overflow, most of all in 16-bit lanes.

    Parameters
    ----------
    first_task, last_task, planes, window, groups, rows, starts, rules
        See `accumulate`.
    factors : (steps,) int16, int32 or int64
    wide : dtype
        int32 or int64, of which the largest number is twice that of any prefix.
    value : (pixel tiles, out_channels, lanes), the type of `factors`
        Written: the accumulator at the end. Its type is `wide` or int16; that must hold all
        products, the number of steps of every channel and four times the limits.
    tallies : (tasks, 3) int64
        Zeros; written with events, transient and persistent outputs of every task.
    """
    low, high, saturate = rules[0], rules[1], rules[2] != 0
    for task in range(first_task, last_task):
        tile, first_channel, last_channel, count, operands = _task_operands(
            task, tallies.shape[0], planes, window, groups, value.shape
        )
        width = operands.shape[1]
        total = np.empty(width, dtype=wide)
        acc = np.empty(width, dtype=value.dtype)
        events = np.empty(width, dtype=value.dtype)
        for channel in range(first_channel, last_channel):
            start, stop = starts[channel], starts[channel + 1]
            for j in range(width):
                acc[j] = -low
                events[j] = total[j] = 0
            steps = operands, rows, factors, start, stop, width, high - low, saturate, acc, events
            if value.itemsize == 2:
                _narrow_contents(*steps, total)
            else:
                _contents(*steps, total, None)
            for j in range(count):
                value[tile, channel, j] = acc[j] + low
            overflows = affected = lost = 0
            for j in range(count):
                touched = events[j] > 0
                overflows += events[j]
                affected += touched
                lost += touched & ((total[j] < low) | (total[j] > high))
            tallies[task, 0] += overflows
            tallies[task, 1] += affected - lost
            tallies[task, 2] += lost


# -- post-processor (D rules) ---------------------------------------------------------------------


@jit
def _wrap32(value: int) -> int:
    return ((value + 0x80000000) & 0xFFFFFFFF) - 0x80000000


@jit
def _divide_half_away(value: int, bits: int) -> int:
    """Divide by 2**bits, rounded half away from zero."""
    if bits == 0:
        return value
    return (value + (1 << (bits - 1)) - (value < 0)) >> bits


@jit
def rescale(value: int, multiplier: int, shift: int, rule: int) -> int:
    """Bring one accumulator to the output scale.

    `rule` is the position in (double, single, multiplier16, shift_half_up, shift_half_even), see
    `golden.network.Rounding`.
    """
    if rule == 0:
        word = _wrap32(_wrap32(value) << max(shift, 0))
        high = (word * multiplier + (1 << 30)) >> 31
        # The only product that does not fit is that of the two most negative words.
        return _divide_half_away(high if high < 1 << 31 else high - 1, max(-shift, 0))
    if rule == 1:
        return (_wrap32(value) * multiplier + (1 << (30 - shift))) >> (31 - shift)
    if rule == 2:
        factor = (multiplier + (1 << 15)) >> 16 if multiplier < 0x7FFF0000 else 0x7FFF
        return _wrap32((value * factor + (1 << (14 - shift))) >> (15 - shift))
    bits = -shift
    if bits == 0:
        return value
    quotient = value >> bits
    rest = value - (quotient << bits)
    half = 1 << (bits - 1)
    up = rest >= half if rule == 3 else rest > half or (rest == half and quotient & 1 == 1)
    return quotient + 1 if up else quotient


@jit
def rescale_all(
    values: NDArray[np.int64], multiplier: int, shift: int, rule: int
) -> NDArray[np.int64]:
    """`rescale` of every element of a flat array by one multiplier.

    The usual rule has a loop compiled for it alone.
    """
    scaled = np.empty_like(values)
    if rule == 0:
        for i in range(values.size):
            scaled[i] = rescale(values[i], multiplier, shift, 0)
    else:
        for i in range(values.size):
            scaled[i] = rescale(values[i], multiplier, shift, rule)
    return scaled


@jit
def _add_all(
    first: NDArray[np.int8],
    second: NDArray[np.int8],
    scales: NDArray[np.int64],
    rules: tuple[int, int, int],
    limits: NDArray[np.int64],
    codes: NDArray[np.int8],
) -> None:
    """Run `add`; `rules` are the rounding rules of the inputs and the output."""
    one, two, result = scales[0], scales[1], scales[2]
    left_shift, zero_point, low, high = limits[0], limits[1], limits[2], limits[3]
    for i in range(codes.size):
        a = rescale((int(first[i]) - one[0]) << left_shift, one[1], one[2], rules[0])
        b = rescale((int(second[i]) - two[0]) << left_shift, two[1], two[2], rules[1])
        code = rescale(a + b, result[1], result[2], rules[2]) + zero_point
        codes[i] = min(max(code, low), high)


@jit
def add(
    first: NDArray[np.int8],
    second: NDArray[np.int8],
    scales: NDArray[np.int64],
    limits: NDArray[np.int64],
    codes: NDArray[np.int8],
) -> None:
    """Add codes of two scales.

    The usual rule has a loop compiled for it alone.

    Parameters
    ----------
    first, second : (n,), any integer type
    scales : (3, 4) int64
        Of both inputs and the sum: zero point, multiplier, shift, number of the rounding rule (see
        `rescale`). The zero point of the sum is not used.
    limits : (4,) int64
        Bits that the inputs are shifted left by, output zero point, least and greatest code.
    codes : (n,), any integer type
        Written.
    """
    if not scales[:, 3].any():
        _add_all(first, second, scales, (0, 0, 0), limits, codes)
    else:
        rules = scales[0, 3], scales[1, 3], scales[2, 3]
        _add_all(first, second, scales, rules, limits, codes)


@jit
def _post_process_lanes(
    value: NDArray[np.int32],
    parameters: tuple[int, int, int],
    rule: int,
    post_bits: int,
    rules: NDArray[np.int64],
    codes: NDArray[np.int64],
) -> None:
    """Run one channel of `post_process`: (lanes,) to (pixels,)."""
    zero_point, low, high = rules[2], rules[3], rules[4]
    bias, multiplier, shift = parameters
    for j in range(codes.size):
        biased = int(value[j]) + bias
        if post_bits == 32:
            biased = _wrap32(biased)
        code = rescale(biased, multiplier, shift, rule) + zero_point
        codes[j] = min(max(code, low), high)


@jit
def _post_process_tile(
    tile: int,
    value: NDArray[np.int32],
    parameters: NDArray[np.int64],
    rules: NDArray[np.int64],
    codes: NDArray[np.int64],
) -> None:
    """Run one pixel tile of `post_process`.

    The usual rule has a loop compiled for it alone, of vector instructions; codes leave their
    channels afterwards, because scattered stores would keep it from that.
    """
    rule, post_bits = rules[0], rules[1]
    _, channels, lanes = value.shape
    first = tile * lanes
    count = min(lanes, codes.shape[0] - first)
    by_channel = np.empty((channels, count), dtype=codes.dtype)
    for c in range(channels):
        words, found = value[tile, c], by_channel[c]
        own = parameters[0, c], parameters[1, c], parameters[2, c]
        if rule == 0 and post_bits == 32:
            _post_process_lanes(words, own, 0, 32, rules, found)
        else:
            _post_process_lanes(words, own, rule, post_bits, rules, found)
    for j in range(count):
        for c in range(channels):
            codes[first + j, c] = by_channel[c, j]


@jit_nogil
def post_process(
    first_tile: int,
    last_tile: int,
    value: NDArray[np.int32],
    parameters: NDArray[np.int64],
    rules: NDArray[np.int64],
    codes: NDArray[np.int64],
) -> None:
    """Bias, requantization, zero point and clamp (rule D3) of a part of a layer.

    Parameters
    ----------
    first_tile, last_tile : int
        The pixel tiles to do, the last one excluded.
    value : (pixel tiles, out_channels, lanes) float32, or any integer type
    parameters : (3, out_channels) int64
        Bias, multiplier, shift.
    rules : (5,) int64
        Number of the rounding rule (see `rescale`), width that accumulator plus bias wraps to (32
        or 64), output zero point, least and greatest code.
    codes : (pixels, out_channels), any integer type
        Written.
    """
    for tile in range(first_tile, last_tile):
        _post_process_tile(tile, value, parameters, rules, codes)


# -- layers without weights -----------------------------------------------------------------------


@jit
def pool(
    x: NDArray[np.int64], window: NDArray[np.int64], average: bool, codes: NDArray[np.int64]
) -> None:
    """Average (half away from zero) or maximum of the taps inside the image.

    Parameters
    ----------
    x : (N, H, W, C), any integer type
    window : (6,) int64
        kernel_height, kernel_width, stride_y, stride_x, pad_top, pad_left.
    average : bool
    codes : (N, out_height, out_width, C) int64
        Written, not clamped.
    """
    _, height, width, channels = x.shape
    images, out_height, out_width, _ = codes.shape
    for n in range(images):
        for oy in range(out_height):
            y0 = oy * window[2] - window[4]
            top, bottom = max(y0, 0), min(y0 + window[0], height)
            for ox in range(out_width):
                x0 = ox * window[3] - window[5]
                left, right = max(x0, 0), min(x0 + window[1], width)
                count = (bottom - top) * (right - left)
                for c in range(channels):
                    total = 0
                    largest = -(1 << 40)  # below every code
                    for iy in range(top, bottom):
                        for ix in range(left, right):
                            tap = int(x[n, iy, ix, c])
                            total += tap
                            largest = max(largest, tap)
                    if not average:
                        codes[n, oy, ox, c] = largest
                    elif total >= 0:
                        codes[n, oy, ox, c] = (total + count // 2) // count
                    else:
                        codes[n, oy, ox, c] = -((count // 2 - total) // count)


@jit
def _high_product(a: int, b: int) -> int:
    """Twice the product of two Q0.31 numbers, rounded half up, without its low 32 bits."""
    high = (a * b + (1 << 30)) >> 31
    return high if high < 1 << 31 else high - 1


@jit
def _exp_of_negative(a: int, factors: NDArray[np.int64]) -> int:
    """exp(a) as Q0.31 for a <= 0 in Q5.26; gemmlowp fixedpoint.h, exp_on_negative_values.

    `factors` are exp(-1/4), exp(-1/2), exp(-1), ... exp(-16) as Q0.31.
    """
    if a == 0:
        return (1 << 31) - 1
    fraction = (a & ((1 << 24) - 1)) - (1 << 24)  # a modulo 1/4, in [-1/4, 0)
    x = (fraction << 5) + (1 << 28)  # Q0.31, from the centre -1/8
    square = _high_product(x, x)
    cube = _high_product(square, x)
    quarter_fourth = _divide_half_away(_high_product(square, square), 2)
    tail = _divide_half_away(_high_product(quarter_fourth + cube, 715827883) + square, 1)
    result = 1895147668 + _high_product(1895147668, x + tail)  # exp(-1/8)
    whole = (fraction - a) >> 24
    for i in range(factors.size):
        if (whole >> i) & 1:
            result = _high_product(result, factors[i])
    return result


@jit
def _saturate32(value: int) -> int:
    return min(max(value, -(1 << 31)), (1 << 31) - 1)


@jit
def _leading_zeros(value: int) -> int:
    """Leading zeros of a positive 32-bit word."""
    zeros = 0
    while value < 1 << (31 - zeros):
        zeros += 1
    return zeros


@jit
def _one_over_one_plus(x: int) -> int:
    """1 / (1 + x) as Q0.31 for x in [0, 1) as Q0.31: Newton's division in Q2.29."""
    half = (x + (1 << 31)) >> 1
    estimate = 1515870810 + _high_product(half, -1010580540)  # 48/17 - 32/17 * half
    for _ in range(3):
        error = (1 << 29) - _high_product(half, estimate)
        estimate += _saturate32(_high_product(estimate, error) << 2)
    return _saturate32(estimate << 1)


@jit
def softmax8(
    x: NDArray[np.int64],
    multiplier: int,
    shift: int,
    diff_min: int,
    bits: int,
    lowest: int,
    factors: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Softmax of rows of 8-bit codes: (rows, n) to (rows, n); TensorFlow Lite, reference/softmax.h.

    `bits` and `lowest` are the output's width and least code; `factors` as in `_exp_of_negative`.
    """
    rows, length = x.shape
    codes = np.empty_like(x)
    exps = np.empty(length, dtype=np.int64)
    highest = lowest + (1 << bits) - 1
    for row in range(rows):
        largest = x[row, 0]
        for i in range(length):
            largest = max(largest, x[row, i])
        total = 0
        for i in range(length):
            diff = x[row, i] - largest
            exps[i] = -1
            if diff >= diff_min:
                scaled = _high_product(_wrap32(diff << shift), multiplier)
                exps[i] = _exp_of_negative(scaled, factors)
                total += _divide_half_away(exps[i], 12)
        zeros = _leading_zeros(total)
        reciprocal = _one_over_one_plus((total << zeros) - (1 << 31))
        for i in range(length):
            codes[row, i] = lowest
            if exps[i] >= 0:
                scaled = _divide_half_away(
                    _high_product(reciprocal, exps[i]), 12 - zeros + 31 - bits
                )
                codes[row, i] = min(max(scaled + lowest, lowest), highest)
    return codes


@jit
def _interpolate(table: NDArray[np.int64], x: int) -> int:
    """Value of a 513-entry table at an int16: nine bits of index, seven of interpolation."""
    index = 256 + (x >> 7)
    value = int(table[index])
    slope = int(table[index + 1]) - value
    return value + ((slope * (x & 127) + 64) >> 7)


@jit
def softmax16(
    x: NDArray[np.int64],
    multiplier: int,
    shift: int,
    exp_table: NDArray[np.int64],
    reciprocal_table: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Softmax of rows of 16-bit codes: (rows, n) to (rows, n).

    The tables hold exp on [-10, 0] and 1 / (1 + x) on [0, 1]. Source: TensorFlow Lite,
    reference/softmax.h.
    """
    rows, length = x.shape
    codes = np.empty_like(x)
    exps = np.empty(length, dtype=np.int64)
    for row in range(rows):
        largest = x[row, 0]
        for i in range(length):
            largest = max(largest, x[row, i])
        total = 0
        for i in range(length):
            scaled = rescale(x[row, i] - largest, multiplier, shift, 0) + 32767
            exps[i] = _interpolate(exp_table, min(max(scaled, -32768), 32767))
            total += exps[i]
        zeros = _leading_zeros(total)
        mantissa = (((total << (zeros - 1)) + (1 << 13)) >> 14) - (1 << 15) - (1 << 16)
        reciprocal = _interpolate(reciprocal_table, min(max(mantissa, -32768), 32767))
        bits = 31 - zeros
        for i in range(length):
            code = (exps[i] * reciprocal + (1 << (bits - 1))) >> bits
            codes[row, i] = min(max(code, 0), 32767)
    return codes
