"""Control, counters and output writes of layer_engine in a run that is followed by hand.

The memories answer every address with the same word: one window word and one entry a tile. On
2 x 2 PEs with a window of one word, one requantizer and two pixel tiles of one channel tile:

* cycles 1 to 3 fill; both columns issue tile 0's only entry in cycle 4, and it fires there;
* both issue tile 1's entry in cycle 5, but N = 2 columns x 2 rows = 4: it fires in cycle 8 (D1);
* tile 0's results are read in cycles 7 to 10 and written in 11 to 14, tile 1's four later (D2, D3);
* done comes in cycle 8 + N + 7 = 19 (E3).
"""

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge

CYCLES = 19
COUNTS = {
    "cycles": CYCLES,
    "fill_cycles": 3,
    "compute_cycles": 2,
    "stall_feed_cycles": 0,
    "drain_cycles": 14,
    "overflow_events": 0,
    "overflow_outputs": 0,
}
# (7 - 2) * -3 + 100 = 85; times one half 42.5, rounded half up 43; plus zero point 1.
CODE = 44
# Row by row, column by column, tile by tile: (cycle, row, address); 2 channels are 2 words.
WRITES = [
    (11 + 4 * tile + 2 * column + row, row, 2 * tile + column)
    for tile in range(2)
    for column in range(2)
    for row in range(2)
]
CONFIGURATION = {
    "pixel_tiles": 2,
    "channel_tiles": 1,
    "results": 4,
    "results_last": 4,
    "feed_base": 0,
    "stream_base": 0,
    "first_channel": 0,
    "parameter_base": 0,
    "activation_base": 0,
    "output_base": 0,
    "in_words": 1,
    "out_words": 2,
    "start_y": 0,
    "start_x": 1 << 20,  # row 1 is pixel 1; a coordinate has 20 bits
    "step_y": 0,
    "step_x": 2,
    "row_y": 1,
    "wrap_x": 4,
    "pitch_x": 4,
    "end_y": 1,
    "end_x": 4,
    "height": 1,
    "width": 4,
    "input_signed": 1,
    "input_zero_point": 2,
    "output_zero_point": 1,
    "rounding": 1,
    "minimum": -128,
    "maximum": 127,
    "drain": 1,
    "mode": 0,
    "shared_parameter": 0,
    "second_offset": 0,
    "left_shift": 0,
    "first_multiplier": 0,
    "first_shift": 0,
    "second_multiplier": 0,
    "second_shift": 0,
    "winograd": 0,
    "chunk_words": 0,
    "chunks": 0,
}


async def power_up(dut):
    Clock(dut.clk, 10, unit="ns").start()
    dut.rst.value = 0
    dut.start.value = 0
    for name, value in CONFIGURATION.items():
        getattr(dut, f"cfg_{name}").value = value
    dut.feed_word.value = 1 << (len(dut.feed_word) - 1)  # last, address 0, no rotation, tap (0, 0)
    dut.act_code.value = 0x0707
    entry = 1 << 14 | 1 << 10 | (-3 & 0x1FF)  # last, advance 1, lane 0, weight -3
    dut.stream_entry.value = entry << 15 | entry
    dut.param_word.value = 100 << 40 | 1 << 38  # bias 100, multiplier 2^30, shift 0
    await FallingEdge(dut.clk)


async def reset(dut):
    dut.rst.value = 1
    await RisingEdge(dut.clk)
    await FallingEdge(dut.clk)
    dut.rst.value = 0


async def begin(dut):
    """Cycle 0; returns in cycle 1."""
    dut.start.value = 1
    await FallingEdge(dut.clk)
    dut.start.value = 0


def write_of(dut, cycle):
    """(cycle, row, address) of a write in this cycle."""
    rows = int(dut.out_write.value)
    assert rows in (1, 2)
    assert int(dut.out_data.value) == CODE
    return cycle, rows.bit_length() - 1, int(dut.out_addr.value)


async def follow(dut, disturb=False):
    """Watch a run from cycle 1 on; returns its writes, having checked busy and done."""
    writes = []
    for cycle in range(1, CYCLES + 1):
        assert int(dut.busy.value) == 1
        assert int(dut.done.value) == (cycle == CYCLES)
        if int(dut.out_write.value):
            writes.append(write_of(dut, cycle))
        dut.start.value = int(disturb and cycle < CYCLES)
        await FallingEdge(dut.clk)
    assert (int(dut.busy.value), int(dut.done.value)) == (0, 0)
    return writes


def counts(dut):
    return {name: int(getattr(dut, name).value) for name in COUNTS}


@cocotb.test()
async def state_is_unknown_before_reset_and_idle_after(dut):
    await power_up(dut)
    assert not dut.busy.value.is_resolvable
    await reset(dut)
    for _ in range(5):
        assert (int(dut.busy.value), int(dut.done.value)) == (0, 0)
        for name in ("feed_read", "act_read", "stream_read", "param_read", "out_write"):
            assert int(getattr(dut, name).value) == 0, name
        await FallingEdge(dut.clk)


@cocotb.test()
async def run_follows_the_hand_count(dut):
    await power_up(dut)
    await reset(dut)
    await begin(dut)
    assert await follow(dut) == WRITES
    assert counts(dut) == COUNTS
    await FallingEdge(dut.clk)
    assert counts(dut) == COUNTS, "the counters must hold until the next start"


@cocotb.test()
async def start_is_ignored_while_busy(dut):
    await power_up(dut)
    await reset(dut)
    await begin(dut)
    assert await follow(dut, disturb=True) == WRITES
    assert counts(dut) == COUNTS


@cocotb.test()
async def next_run_may_start_in_the_cycle_after_done(dut):
    await power_up(dut)
    await reset(dut)
    await begin(dut)
    await follow(dut)
    await begin(dut)
    assert await follow(dut) == WRITES
    assert counts(dut) == COUNTS


@cocotb.test()
async def reset_in_any_cycle_ends_the_run(dut):
    await power_up(dut)
    await reset(dut)
    for cycle in range(1, CYCLES + 1):
        await begin(dut)
        for _ in range(cycle - 1):
            await FallingEdge(dut.clk)
        await reset(dut)
        assert (int(dut.busy.value), int(dut.done.value)) == (0, 0)
        assert counts(dut) == dict.fromkeys(COUNTS, 0)
        await begin(dut)
        assert await follow(dut) == WRITES, f"after a reset in cycle {cycle}"
        assert counts(dut) == COUNTS


@cocotb.test()
async def without_drain_the_run_ends_with_the_fire_and_the_next_adds_to_it(dut):
    await power_up(dut)
    await reset(dut)
    dut.cfg_pixel_tiles.value = 1
    dut.cfg_drain.value = 0
    await begin(dut)
    for cycle in range(1, 6):  # the fire is in cycle 4
        assert int(dut.busy.value) == 1
        assert int(dut.done.value) == (cycle == 5)
        assert int(dut.out_write.value) == 0
        await FallingEdge(dut.clk)
    assert int(dut.busy.value) == 0
    assert int(dut.cycles.value) == 5
    dut.cfg_drain.value = 1
    await begin(dut)
    codes = set()
    while not int(dut.done.value):
        if int(dut.out_write.value):
            codes.add(int(dut.out_data.value))
        await FallingEdge(dut.clk)
    # 2 * (7 - 2) * -3 + 100 = 70; times one half 35, plus zero point 1.
    assert codes == {36}
