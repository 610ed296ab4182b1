"""Rules T4 to T10: timelines summed by hand, and the recurrences against the stepped machines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.hardware import load_hardware
from simulator.transfers import (
    OPERATIONS,
    TRANSFER_CAUSES,
    Bus,
    Operations,
    Schedule,
    bus_of,
    schedule,
    step_schedule,
)

D, W, A, A2, S = range(5)

NOTHING = {
    "layer": 0,
    "order": 1,
    "run_cycles": 10,
    "descriptor_offset": 0,
    "weight_offset": 0,
    "weight_beats": 0,
    "load_offset": 0,
    "load_segments": 0,
    "load_words": 1,
    "load_stride_bytes": 0,
    "load_row_words": 1,
    "load_single": 0,
    "second_offset": -1,
    "store_offset": 0,
    "store_segments": 0,
    "store_words": 1,
    "store_stride_bytes": 0,
    "store_first_row_words": 1,
    "store_row_words": 1,
    "store_single": 0,
}
"""A pass that moves nothing but its descriptor."""


def passes(*each: dict[str, int]) -> Operations:
    """`NOTHING` with changes, a dictionary for each pass."""
    rows = [NOTHING | change for change in each]
    return Operations(
        **{name: np.array([row[name] for row in rows], dtype=np.int64) for name in NOTHING}
    )


def bus(**changes: int) -> Bus:
    """8-byte beats and words, 2 rows, latency 4, a beat a cycle, descriptors of 16 beats."""
    usual = {
        "beat_bytes": 8,
        "word_bytes": 8,
        "rows": 2,
        "latency_cycles": 4,
        "interval_cycles": 1,
        "descriptor_bytes": 128,
    }
    return Bus(**usual | changes)


def timed(operations: Operations, on: Bus) -> Schedule:
    """The schedule, which both ways of finding it agree on."""
    found, stepped = schedule(operations, on), step_schedule(operations, on)
    for name, computed, expected in zip(Schedule._fields, found, stepped, strict=True):
        np.testing.assert_array_equal(computed, expected, err_msg=name)
    runs = np.bincount(operations.layer, operations.run_cycles)
    np.testing.assert_array_equal(found.causes.sum(axis=1) + runs, found.layer_cycles)
    return found


def length(kind: int, on: Bus, **change: int) -> int:
    """e - s of one operation; of a store, from s* = done + 1."""
    found = timed(passes(change), on)
    begin = found.done[0] + 1 if kind == S else found.start[0, kind]
    return int(found.end[0, kind] - begin)


# -- hand sums -------------------------------------------------------------------------------------


def test_a_pass_that_moves_nothing_takes_its_descriptor_run_and_five_empty_operations() -> None:
    # D: s = 1, address in 2, beats in 2 + 5 = 7 .. 22, e = 23. W 24, S before it 25, A 26, A2 27.
    # c = 28, g = 29, done = 39; the store, with nothing to do, ends in 40.
    found = timed(passes({}), bus())
    assert dict(zip(OPERATIONS, found.start[0].tolist(), strict=True)) == {
        "descriptor": 1,
        "weights": 24,
        "activations": 26,
        "second": 27,
        "store": 28,
    }
    assert found.end[0].tolist() == [23, 24, 26, 27, 40]
    assert (found.configure[0], found.done[0], found.cycles) == (28, 39, 40)
    assert dict(zip(TRANSFER_CAUSES, found.causes[0].tolist(), strict=True)) == {
        "control": 2,
        "stall_descriptor": 23,
        "stall_weights": 1,
        "stall_activations": 2,
        "stall_outputs": 2,  # cycle 25, of the store that there is not, and 40
    }


def test_doubled_buffers_load_the_next_pass_while_the_engine_runs() -> None:
    # Pass 0 as above: c = 28, done = 129. D_1: s = 28 (order 1: A2_0 ended in 27), e = 50; W_1 51,
    # A_1 52, A2_1 53; S_0: s = 54, s* = 130 = e; c_1 = 130, done_1 = 141; S_1 142.
    found = timed(passes({"run_cycles": 100}, {"order": 0}), bus())
    assert found.start[1].tolist() == [28, 51, 52, 53, 131]
    assert found.end[0, S] == 130
    assert found.configure.tolist() == [28, 130]
    assert found.done.tolist() == [129, 141]
    assert found.causes[0].tolist() == [4, 23, 1, 2, 2]


def test_buffers_that_are_not_doubled_store_before_they_load() -> None:
    # Pass 0, order 2: D 1..23, no store 24, W 25, A 26, A2 27: c = 28, done = 39. D_1: 28..50, S_0
    # 51, W_1 52 and so on.
    found = timed(passes({"order": 2}, {"order": 2}), bus())
    assert (found.start[1, D], found.start[0, S], found.start[1, W]) == (28, 51, 52)


def test_the_first_pass_of_a_layer_has_its_weights_before_the_layer_before_ends() -> None:
    # Pass 0: done = 129; D_1: 28..50, W_1: s = 51, address 52, beats 57..64, e = 65; S_0: s = 66,
    # s* = 130, and the first layer ends there. A_1 131, A2_1 132, c_1 = 133, done_1 = 144, S 145.
    found = timed(passes({"run_cycles": 100}, {"layer": 1, "weight_beats": 8}), bus())
    assert found.end[1, W] == 65
    assert found.layer_end.tolist() == [130, 145]
    assert found.causes.tolist() == [[2, 23, 1, 2, 2], [2, 0, 0, 2, 1]]


def test_weights_take_a_beat_a_cycle() -> None:
    # 300 beats: bursts of 256 and 44. ar = s + 1, s + 2; r = s + 6 .. s + 305; e = s + 306.
    assert length(W, bus(), weight_beats=300) == 306
    assert length(W, bus(interval_cycles=3), weight_beats=300) == 6 + 299 * 3 + 1


def test_bursts_end_at_four_kilobytes() -> None:
    # 20 beats from byte 4096 - 24: 3 and 17 of them. Latency and addresses overlap: no cycle lost.
    assert length(W, bus(), weight_offset=4072, weight_beats=20) == 6 + 19 + 1


def test_a_ninth_burst_waits_for_the_first_to_end() -> None:
    # Latency 20. Runs of one beat: ar_0 .. ar_7 = s + 1 .. s + 8, taken 21 cycles later, from
    # s + 22 to s + 29. ar_8 = s + 23, ar_9 = s + 24; taken in s + 44, s + 45; e = s + 46.
    shape = {"load_segments": 10, "load_stride_bytes": 4096}
    assert length(A, bus(latency_cycles=20), **shape) == 46
    assert length(A, bus(latency_cycles=20), **shape | {"load_segments": 8}) == 30


def test_a_beat_of_activations_takes_a_cycle_for_each_piece() -> None:
    # Words of 1 byte, two rows of the array, image rows of 5 words, 10 words from byte 0.
    # Beat 0: words 0-1 2-3 4 | 5-6 7: cost 5. Beat 1: 8-9: cost 1.
    # r_0 = s + 6, r_1 = s + 11, e = s + 12.
    shape = {"load_segments": 1, "load_words": 10, "load_row_words": 5}
    assert length(A, bus(word_bytes=1), **shape) == 12
    # One word at a time: cost 8 and 2: r_1 = s + 14, e = s + 16.
    assert length(A, bus(word_bytes=1), **shape, load_single=1) == 16
    # From byte 6: beat 0 has words 0-1 (cost 1), beat 1 words 2-3 4 5-6 7-8 9 (cost 5).
    assert length(A, bus(word_bytes=1), **shape, load_offset=6) == 6 + 1 + 5
    # A word of two beats: 20 beats, cost 1 each.
    assert length(A, bus(word_bytes=16), **shape) == 6 + 19 + 1


def test_a_second_operand_is_loaded_like_the_first() -> None:
    shape = {"load_segments": 1, "load_words": 12, "load_row_words": 12, "second_offset": 4096}
    assert length(A, bus(), **shape) == length(A2, bus(), **shape) == 6 + 11 + 1


def test_a_store_packs_its_beats_and_waits_for_the_last_response() -> None:
    # 4 words of a beat each: z_0 = s* + 2, w = s* + 3 .. s* + 6, response 5 cycles later.
    shape = {"store_segments": 1, "store_words": 4, "store_row_words": 4}
    assert length(S, bus(), **shape) == 11
    assert length(S, bus(interval_cycles=3), **shape) == 3 + 9 + 5


def test_a_beat_of_outputs_takes_a_cycle_for_each_piece() -> None:
    # Words of 1 byte, first output row of 3 words, then rows of 6: 12 words from byte 0.
    # Beat 0: 0-1 2 | 3-4 5-6 7: cost 5, z_0 = s* + 6, w_0 = s* + 7. Beat 1: 8 | 9-10 11: cost 3:
    # z_1 = w_0 + 2, w_1 = s* + 10; response in s* + 15.
    shape = {"store_segments": 1, "store_words": 12, "store_row_words": 6}
    assert length(S, bus(word_bytes=1), **shape, store_first_row_words=3) == 15


def test_the_memory_does_not_forget_its_interval_between_operations() -> None:
    # One beat of weights after the descriptor, no latency, 40 cycles a beat: r_15 of the descriptor
    # is in 3 + 15 * 40 = 603, e = 604; W begins in 605, but its beat comes in 643 only.
    found = timed(passes({"weight_beats": 1}), bus(latency_cycles=0, interval_cycles=40))
    assert found.end[0].tolist()[:2] == [604, 644]


# -- both ways -------------------------------------------------------------------------------------


def random_operations(draw: Any, on: Bus) -> Operations:
    """One to four passes; offsets on both sides of 4 KB, runs from one word to several pages."""

    def number(low: int, high: int) -> int:
        return draw(st.integers(low, high))

    def words_from(limit_bytes: int) -> int:
        return number(0, max(1, limit_bytes // on.word_bytes)) * on.word_bytes

    each: list[dict[str, int]] = []
    for j in range(number(1, 4)):
        layer = each[-1]["layer"] + number(0, 1) if j else 0
        first = j > 0 and layer > each[-1]["layer"]
        row_words = number(1, 12)
        each.append(
            {
                "layer": layer,
                "order": number(1 if first else 0, 2),
                "run_cycles": number(5, 300),
                "descriptor_offset": number(0, 40) * 128,
                "weight_offset": number(0, 3) * 4096 + number(0, 9) * on.beat_bytes,
                "weight_beats": number(0, 1) * number(0, 600),
                "load_offset": words_from(9000),
                "load_segments": number(0, 12),
                "load_words": row_words * number(1, 9),
                "load_stride_bytes": words_from(6000),
                "load_row_words": row_words,
                "load_single": number(0, 1),
                "second_offset": words_from(9000) if number(0, 1) else -1,
                "store_offset": words_from(9000),
                "store_segments": number(0, 12),
                "store_words": number(1, 90),
                "store_stride_bytes": words_from(6000),
                "store_first_row_words": number(1, 12),
                "store_row_words": number(1, 12),
                "store_single": number(0, 1),
            }
        )
    return passes(*each)


@st.composite
def programs(draw: Any) -> tuple[Operations, Bus]:
    """A bus and a program on it."""
    on = Bus(
        beat_bytes=2 ** draw(st.integers(2, 7)),
        word_bytes=2 ** draw(st.integers(0, 7)),
        rows=2 ** draw(st.integers(0, 5)),
        latency_cycles=draw(st.integers(0, 200)),
        interval_cycles=draw(st.integers(1, 8)),
        descriptor_bytes=128 * draw(st.integers(1, 4)),
    )
    return random_operations(draw, on), on


@settings(max_examples=250, deadline=None)
@given(programs())
def test_recurrences_and_machines_give_the_same_schedule(program: tuple[Operations, Bus]) -> None:
    timed(*program)


@pytest.mark.parametrize(
    "changes",
    [
        {"beat_bytes": 128, "word_bytes": 1, "rows": 1},
        {"beat_bytes": 4, "word_bytes": 128, "rows": 32},
        {"latency_cycles": 0},
        {"latency_cycles": 0, "interval_cycles": 8},
        {"latency_cycles": 200, "interval_cycles": 1},
        {"beat_bytes": 16, "word_bytes": 16},
        {"word_bytes": 1, "rows": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("order", [0, 1, 2])
def test_extreme_buses_have_the_same_schedule(changes: dict[str, int], order: int) -> None:
    on = bus(**changes)
    full = {
        "weight_beats": 700,
        "weight_offset": 4096,
        "load_offset": 3968,
        "load_segments": 3,
        "load_words": 21 * 40,
        "load_stride_bytes": 4096 + 128,
        "load_row_words": 21,
        "second_offset": 8064,
        "store_offset": 128,
        "store_segments": 11,
        "store_words": 77,
        "store_stride_bytes": 1280,
        "store_first_row_words": 3,
        "store_row_words": 7,
        "order": order,
    }
    short = {"load_segments": 1, "store_segments": 1, "weight_beats": 1, "order": order}
    timed(passes(full, short, full | {"load_single": 1}, {"order": order}, full), on)


def test_a_bus_has_the_sizes_of_its_hardware() -> None:
    found = bus_of(load_hardware("mac16x16"))
    assert found.descriptor_bytes == 384  # 4 * (64 + 16) = 320, in units of 128
    assert found.rows == 16
