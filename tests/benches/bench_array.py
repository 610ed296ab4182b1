"""The array under random streams and stalls: all registers and outputs in every cycle.

Two judges: the rules, cycle by cycle (array_model), and the sums of each tile, without cycles.
"""

import os
import random

import cocotb
from array_model import ADV_W, ArrayModel, Inputs, random_tile
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge
from pe_model import PeFormat, PeProbe, addend


class Stream:
    """A source with bubbles: what it offers stays until it is taken."""

    def __init__(self, stall: float, rng) -> None:
        self.stall, self.rng = stall, rng
        self.waiting: list = []
        self.offered = False

    def offer(self):
        if self.waiting and not self.offered:
            self.offered = self.rng.random() >= self.stall
        return self.waiting[0] if self.offered else None

    def take(self) -> None:
        self.waiting.pop(0)
        self.offered = False

    def clear(self) -> None:
        self.waiting.clear()
        self.offered = False


class Bench:
    """Drives the ports, and reads every register of the array by its name."""

    def __init__(self, dut) -> None:
        self.dut = dut
        self.rows, self.cols, self.feed, self.depth = (
            int(handle.value) for handle in (dut.ROWS, dut.COLS, dut.FEED, dut.DEPTH)
        )
        self.fmt = PeFormat.of(dut)
        self.lane_w = max(1, (self.feed - 1).bit_length())
        self.probes = [
            [PeProbe(dut.g_row[r].g_col[c].u_pe, self.fmt) for c in range(self.cols)]
            for r in range(self.rows)
        ]
        self.sequencers = [dut.g_sequencer[c].u_sequencer for c in range(self.cols)]
        self.words = [dut.u_window.g_word[d].word_q for d in range(self.depth)]

    def idle(self) -> None:
        for name in (
            *("rst", "flush", "feed_valid", "feed_data", "entry_valid", "entry_data"),
            *("handoff_ready", "drain_enable", "result_col"),
        ):
            getattr(self.dut, name).value = 0

    def pack_word(self, word) -> int:
        mask = (1 << self.fmt.x_w) - 1
        lanes = [x & mask for row in word for x in row]
        return sum(x << (index * self.fmt.x_w) for index, x in enumerate(lanes))

    def pack_entry(self, entry) -> int:
        packed = entry.last << ADV_W | entry.advance
        packed = packed << self.lane_w | entry.lane
        return packed << self.fmt.code_w | entry.code

    def drive(self, inputs: Inputs, rng) -> None:
        """What is not valid carries noise, which must not matter."""
        dut, entry_w = self.dut, 1 + ADV_W + self.lane_w + self.fmt.code_w
        word_w = self.rows * self.feed * self.fmt.x_w
        dut.feed_valid.value = int(inputs.word is not None)
        dut.feed_data.value = (
            rng.getrandbits(word_w) if inputs.word is None else self.pack_word(inputs.word)
        )
        valid = entries = 0
        for c, entry in enumerate(inputs.entries):
            valid |= (entry is not None) << c
            packed = rng.getrandbits(entry_w) if entry is None else self.pack_entry(entry)
            entries |= packed << (c * entry_w)
        dut.entry_valid.value, dut.entry_data.value = valid, entries
        dut.handoff_ready.value = inputs.handoff_ready
        dut.drain_enable.value = inputs.drain_enable
        dut.flush.value = inputs.flush

    def check_outputs(self, expected, where: str) -> None:
        dut = self.dut
        for name in ("feed_ready", "fire", "issue_any", "all_done"):
            found = int(getattr(dut, name).value)
            assert found == getattr(expected, name), f"{where}: {name} is {found}"
        ready = [int(dut.entry_ready.value) >> c & 1 for c in range(self.cols)]
        assert ready == expected.entry_ready, f"{where}: entry_ready is {ready}"

    def check_registers(self, model: ArrayModel, where: str) -> None:
        n = int(self.dut.u_window.n_q.value)
        assert n == len(model.window), f"{where}: n is {n}, should be {len(model.window)}"
        for d, word in enumerate(model.window):
            assert int(self.words[d].value) == self.pack_word(word), f"{where}: word {d}"
        for c, sequencer in enumerate(self.sequencers):
            found = (int(sequencer.offset_q.value), int(sequencer.done_q.value))
            assert found == (model.offset[c], model.done[c]), f"{where}: column {c}: {found}"
        assert int(self.dut.handoff_q.value) == model.handoff, f"{where}: handoff"
        for r in range(self.rows):
            for c in range(self.cols):
                self.probes[r][c].compare(model.pes[r][c], f"{where}, PE ({r}, {c})")

    def check_results(self, model: ArrayModel, column: int) -> None:
        fmt = self.fmt
        for r in range(self.rows):
            pe = model.pes[r][column]
            value = int(self.dut.result.value) >> (r * fmt.result_w) & ((1 << fmt.result_w) - 1)
            events = int(self.dut.result_events.value) >> (r * fmt.events_w)
            assert value == pe.result & ((1 << fmt.result_w) - 1)
            assert events & ((1 << fmt.events_w) - 1) == pe.result_events
            assert int(self.dut.result_overflow.value) >> r & 1 == pe.result_overflow


@cocotb.test()
async def registers_are_unknown_before_reset_and_zero_after(dut):
    bench = Bench(dut)
    Clock(dut.clk, 10, unit="ns").start()
    bench.idle()
    await FallingEdge(dut.clk)
    assert not dut.u_window.n_q.value.is_resolvable
    assert not bench.sequencers[0].offset_q.value.is_resolvable
    dut.rst.value = 1
    await FallingEdge(dut.clk)
    dut.rst.value = 0
    await FallingEdge(dut.clk)
    bench.check_registers(ArrayModel(bench.rows, bench.cols, bench.depth, bench.fmt), "after reset")
    for name in ("feed_ready", "entry_ready", "fire", "issue_any", "all_done", "result"):
        assert getattr(dut, name).value.is_resolvable, name


def fold(values: list[int], bits: int, saturate: int) -> int:
    """Sum in a register of `bits` bits."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    total = 0
    for value in values:
        total += value
        total = max(low, min(high, total)) if saturate else (total - low) % 2**bits + low
    return total


def tile_result(fmt: PeFormat, addends: list[int]) -> int:
    """Result of a PE for these addends; with spill, the wide sum of narrow sums of SPILL steps."""
    if not fmt.spill:
        return fold(addends, fmt.acc_bits, fmt.saturate)
    narrow = [
        fold(addends[start : start + fmt.spill], fmt.acc_bits, fmt.saturate)
        for start in range(0, len(addends), fmt.spill)
    ]
    return fold(narrow, fmt.wide_bits, fmt.saturate)


async def reset_array(dut, bench: Bench) -> None:
    Clock(dut.clk, 10, unit="ns").start()
    bench.idle()
    dut.rst.value = 1
    await FallingEdge(dut.clk)
    dut.rst.value = 0


class Sources:
    """The feed and entry streams of random tiles, one tile after the other."""

    def __init__(self, bench: Bench, stall: float, rng) -> None:
        self.bench, self.rng = bench, rng
        self.feed = Stream(stall, rng)
        self.columns = [Stream(stall, rng) for _ in range(bench.cols)]
        self.tiles: list = []  # under way: what each PE has to add

    def refill(self) -> None:
        bench = self.bench
        while len(self.tiles) < 2:
            tile = random_tile(bench.rows, bench.cols, bench.feed, bench.fmt, addend, self.rng)
            self.feed.waiting += tile.words
            for stream, entries in zip(self.columns, tile.streams, strict=True):
                stream.waiting += entries
            self.tiles.append(tile.sums)

    def advance(self, inputs: Inputs, outputs) -> None:
        if outputs.feed_ready and inputs.word is not None:
            self.feed.take()
        for c, stream in enumerate(self.columns):
            if outputs.entry_ready[c] and inputs.entries[c] is not None:
                stream.take()

    def restart(self) -> None:
        for stream in (self.feed, *self.columns):
            stream.clear()
        self.tiles.clear()


@cocotb.test()
async def random_streams_match_in_every_register_and_give_the_sums(dut):
    stall, cycles = float(os.environ["STALL"]), int(os.environ["CYCLES"])
    rng = random.Random(cocotb.RANDOM_SEED)
    bench = Bench(dut)
    model = ArrayModel(bench.rows, bench.cols, bench.depth, bench.fmt)
    sources = Sources(bench, stall, rng)
    awaited: list = []  # (first cycle with the results in the shadow registers, the results)
    checked = 0
    await reset_array(dut, bench)
    for cycle in range(cycles):
        where = f"cycle {cycle}"
        bench.check_registers(model, where)
        sources.refill()
        inputs = Inputs(
            word=sources.feed.offer(),
            entries=[stream.offer() for stream in sources.columns],
            handoff_ready=int(rng.random() >= stall),
            drain_enable=1,
            flush=0,
        )
        column = rng.randrange(bench.cols)
        dut.result_col.value = column
        bench.drive(inputs, rng)
        await RisingEdge(dut.clk)
        outputs = model.outputs(inputs)
        bench.check_outputs(outputs, where)
        bench.check_results(model, column)
        if awaited and awaited[0][0] == cycle:
            for r, row in enumerate(awaited.pop(0)[1]):
                value = int(dut.result.value) >> (r * bench.fmt.result_w)
                expected = tile_result(bench.fmt, row[column])
                assert (value - expected) % 2**bench.fmt.result_w == 0, f"{where}: sum of row {r}"
                checked += 1
        sources.advance(inputs, outputs)
        if outputs.fire:
            awaited.append((cycle + 3, sources.tiles.pop(0)))
        model.tick(inputs)
        await FallingEdge(dut.clk)
    assert checked >= 3, "the run was too short to say anything"


@cocotb.test()
async def reset_flush_and_runs_without_drain_match_in_every_register(dut):
    stall, cycles = float(os.environ["STALL"]), int(os.environ["CYCLES"])
    rng = random.Random(cocotb.RANDOM_SEED)
    bench = Bench(dut)
    model = ArrayModel(bench.rows, bench.cols, bench.depth, bench.fmt)
    sources = Sources(bench, stall, rng)
    resets = flushes = undrained = 0
    await reset_array(dut, bench)
    for cycle in range(cycles):
        where = f"cycle {cycle}"
        bench.check_registers(model, where)
        sources.refill()
        reset, flush = rng.random() < 0.02, rng.random() < 0.02
        inputs = Inputs(
            word=None if flush else sources.feed.offer(),
            entries=[None if flush else stream.offer() for stream in sources.columns],
            handoff_ready=int(rng.random() >= stall),
            drain_enable=int(rng.random() < 0.5),
            flush=int(flush),
        )
        dut.rst.value = int(reset)
        bench.drive(inputs, rng)
        await RisingEdge(dut.clk)
        outputs = model.outputs(inputs)
        bench.check_outputs(outputs, where)
        sources.advance(inputs, outputs)
        if outputs.fire and sources.tiles:
            sources.tiles.pop(0)
        undrained += outputs.fire and not inputs.drain_enable
        if reset:
            model.reset()
        else:
            model.tick(inputs)
        if reset or flush:
            sources.restart()
        resets, flushes = resets + reset, flushes + flush
        await FallingEdge(dut.clk)
    assert min(resets, flushes, undrained) >= 1, "the run was too short to say anything"
