"""napier_top and a memory, disturbed in every way; after each the same program runs as if new.

The environment names a file of the program: offsets, the memory before the run as hexadecimal bytes
by offset, what the run must write (lists of bytes, null where it must not), its cycles, and the
memory's latency and interval.
"""

import json
import os
import random
from pathlib import Path

import cocotb
from axi_lite_master import OKAY, AxiLiteMaster
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, First, RisingEdge, Timer

CONTROL, STATUS, ERROR, DESCRIPTOR = 0x14, 0x18, 0x1C, 0x20
BASE_LOW, BASE_HIGH, PROGRAM, ENABLE, CYCLES_LOW = 0x24, 0x28, 0x2C, 0x30, 0x38
START, ABORT = 1, 2
BUSY, DONE, FAILED = 1, 2, 4
READ_ERROR, WRITE_ERROR, BOUNDS, BLOCK, ABORTED = 1, 2, 6, 7, 8
UNWRITTEN = 0xA5
PERIOD_NS = 10

# An abort or error waits for at most 8 bursts of 256 beats, of which at most one is at the memory's
# latency; none of these programs has one near that long.
STOPS_WITHIN_CYCLES = 3000


class Accelerator:
    """The host's view of the machine, and a door to its memory."""

    def __init__(self, dut):
        self.dut, self.rng = dut, random.Random(int(os.environ["SEED"]))
        self.case = json.loads(Path(os.environ["CASE"]).read_text())
        self.host = AxiLiteMaster(dut)
        self.memory = dut.u_memory.memory
        self.image = {int(at): bytes.fromhex(text) for at, text in self.case["image"].items()}
        self.written = {int(at): data for at, data in self.case["written"].items()}

    async def power_up(self):
        dut = self.dut
        Clock(dut.clk, PERIOD_NS, unit="ns").start()
        dut.rst.value = 1
        dut.u_memory.latency.value = self.case["latency"]
        dut.u_memory.interval.value = self.case["interval"]
        dut.u_memory.error_set.value = 0
        for _ in range(3):
            await FallingEdge(dut.clk)
        dut.rst.value = 0
        for at, data in self.image.items():
            self.poke(at, data)
        await self.set_up()

    async def set_up(self):
        for offset, value in ((BASE_LOW, 0), (BASE_HIGH, 0), (PROGRAM, self.case["program"])):
            await self.write(offset, value)
        await self.write(ENABLE, 3)

    def poke(self, at, data):
        for i, byte in enumerate(data):
            self.memory[at + i].value = byte

    def peek(self, at, size):
        return [self.memory[at + i].value for i in range(size)]

    def poke_word(self, descriptor, n, value):
        at = self.case["program"] + descriptor * self.case["descriptor_bytes"] + 4 * n
        self.poke(at, (value & 0xFFFFFFFF).to_bytes(4, "little"))

    def word(self, descriptor, n):
        at = descriptor * self.case["descriptor_bytes"] + 4 * n
        data = self.image[self.case["program"]]
        return int.from_bytes(data[at : at + 4], "little")

    def weight_blocks(self):
        """Offset and beats of every block that a pass loads."""
        passes = range(self.case["descriptors"])
        blocks = {(self.word(i, 33), self.word(i, 34)) for i in passes}
        return sorted(block for block in blocks if block[1])

    def fill_weight_memories(self):
        """Give every beat some value: a run beyond its block reads what happens to lie there."""
        top = self.dut.u_top
        streams = [top.g_col[c].u_stream_memory for c in range(int(top.COLS.value))]
        for memory in (top.u_feed_memory, *streams):
            for i in range(int(memory.BEATS.value)):
                memory.memory[i].value = self.rng.getrandbits(int(memory.PAYLOAD_W.value))

    async def write(self, offset, value):
        assert await self.host.write(offset, value) == OKAY

    async def read(self, offset):
        value, response = await self.host.read(offset)
        assert response == OKAY
        return value

    async def wait(self, cycles):
        """Wait for the interrupt, at most so long; whether it came."""
        if not int(self.dut.irq.value):
            await First(RisingEdge(self.dut.irq), Timer(cycles * PERIOD_NS, unit="ns"))
            await FallingEdge(self.dut.clk)
        return bool(int(self.dut.irq.value))

    async def pass_by(self, cycles):
        if cycles:
            await Timer(cycles * PERIOD_NS - 1, unit="ns")
        await FallingEdge(self.dut.clk)

    async def start(self):
        await self.write(CONTROL, START)

    async def check_clean_run(self, what):
        """Run the program as it is meant; every byte it writes and its cycles must be right."""
        for at, data in self.written.items():
            self.poke(at, [UNWRITTEN] * len(data))
        await FallingEdge(self.dut.clk)
        await self.start()
        assert await self.wait(2 * self.case["cycles"]), what
        assert (await self.read(STATUS), await self.read(ERROR)) == (DONE, 0), what
        assert await self.read(CYCLES_LOW) == self.case["cycles"], what
        for at, data in self.written.items():
            expected = [UNWRITTEN if byte is None else byte for byte in data]
            assert [int(byte) for byte in self.peek(at, len(data))] == expected, what

    async def check_failure(self, code, what):
        assert await self.wait(STOPS_WITHIN_CYCLES + 2 * self.case["cycles"]), what
        assert (await self.read(STATUS), await self.read(ERROR)) == (FAILED, code), what


async def powered(dut):
    machine = Accelerator(dut)
    await machine.power_up()
    return machine


@cocotb.test()
async def an_abort_in_any_cycle_leaves_a_machine_as_new(dut):
    machine = await powered(dut)
    await machine.check_clean_run("first run")
    for _ in range(int(os.environ["TIMES"])):
        at = machine.rng.randrange(machine.case["cycles"] - 5)
        await machine.start()
        await machine.pass_by(at)
        await machine.write(CONTROL, ABORT)
        await machine.check_failure(ABORTED, f"abort in cycle {at}")
        await machine.check_clean_run(f"after an abort in cycle {at}")


@cocotb.test()
async def a_reset_in_any_cycle_leaves_a_machine_as_new(dut):
    machine = await powered(dut)
    for _ in range(int(os.environ["TIMES"])):
        at = machine.rng.randrange(machine.case["cycles"] + 5)
        await machine.start()
        await machine.pass_by(at)
        dut.rst.value = 1
        await FallingEdge(dut.clk)
        dut.rst.value = 0
        assert await machine.read(STATUS) == 0
        await machine.set_up()
        await machine.check_clean_run(f"after a reset in cycle {at}")


@cocotb.test()
async def an_error_of_the_bus_in_any_beat_is_told_and_leaves_a_machine_as_new(dut):
    machine = await powered(dut)
    for i in range(int(os.environ["TIMES"])):
        parts = machine.written if i % 2 else machine.image
        at, data = machine.rng.choice(list(parts.items()))
        at += machine.rng.randrange(len(data))
        dut.u_memory.error_at.value = at
        dut.u_memory.error_set.value = 1
        await machine.start()
        # A tensor between two layers is written first.
        await machine.check_failure(WRITE_ERROR if i % 2 else READ_ERROR, f"error at {at:#x}")
        dut.u_memory.error_set.value = 0
        await machine.check_clean_run(f"after an error at {at:#x}")


@cocotb.test()
async def loads_beyond_a_memory_and_blocks_of_a_wrong_size_are_told(dut):
    machine = await powered(dut)
    changes = [
        (34, 1, BLOCK),  # weight_beats, load_feed, load_parameters, load_base, store_base
        (34, -1, BLOCK),
        (35, 1 << 20, BOUNDS),
        (36, 1 << 20, BOUNDS),
        (42, 1 << 20, BOUNDS),
    ]
    for n, more, code in changes:
        machine.poke_word(0, n, machine.word(0, n) + more)
        await FallingEdge(dut.clk)
        await machine.start()
        await machine.check_failure(code, f"word {n}")
        assert await machine.read(DESCRIPTOR) == 0
        machine.poke_word(0, n, machine.word(0, n))
        await machine.check_clean_run(f"after a wrong word {n}")


@cocotb.test()
async def weight_blocks_of_any_contents_end_without_the_host(dut):
    """A block of zeros, so that no `last` bit comes; then random ones. None needs an abort."""
    machine = await powered(dut)
    rng, ends = machine.rng, []
    machine.fill_weight_memories()
    for contents in ("zeros", *["random"] * int(os.environ["TIMES"])):
        blocks = machine.weight_blocks()
        at, beats = blocks[0] if contents == "zeros" else rng.choice(blocks)
        beat_bytes = len(dut.u_top.m_axi_rdata) // 8
        original = bytes(machine.image[at][: beats * beat_bytes])
        changed = bytearray(beats * beat_bytes)
        if contents == "random":
            changed[:] = rng.randbytes(len(changed))
        for last in range(beat_bytes - 1, len(changed), beat_bytes):  # the bits that end sections
            changed[last] = changed[last] & 0x7F | original[last] & 0x80
        machine.poke(at, changed)
        await FallingEdge(dut.clk)
        await machine.start()
        assert await machine.wait(machine.case["endless_cycles"]), contents
        ends.append(await machine.read(ERROR))
        assert await machine.read(STATUS) == (FAILED if ends[-1] else DONE), contents
        machine.poke(at, original)
        for start, data in machine.image.items():  # a store may have begun
            machine.poke(start, data)
        await machine.check_clean_run(f"after a block of {contents} at {at:#x}")
    assert ends[0] == BLOCK
    assert set(ends) <= {0, BLOCK}


@cocotb.test()
async def no_descriptor_can_hang_the_machine_beyond_an_abort(dut):
    """Random bits of descriptors are wrong; what still runs, or for too long, is aborted."""
    machine = await powered(dut)
    rng, ends = machine.rng, []
    for _ in range(6 * int(os.environ["TIMES"])):
        descriptor, n = (
            rng.randrange(machine.case["descriptors"]),
            rng.choice([*range(2, 63)] + [64]),
        )
        value = machine.word(descriptor, n)
        value = rng.choice([value ^ 1 << rng.randrange(32), rng.getrandbits(32), value + 1, 0, 1])
        machine.poke_word(descriptor, n, value)
        await FallingEdge(dut.clk)
        await machine.start()
        what = f"descriptor {descriptor}, word {n} = {value:#x}"
        if await machine.wait(2 * machine.case["cycles"]):
            assert await machine.read(STATUS) in (DONE, FAILED), what
            ends.append(await machine.read(ERROR))
        else:
            await machine.write(CONTROL, ABORT)
            await machine.check_failure(ABORTED, what)
            ends.append(ABORTED)
        machine.poke_word(descriptor, n, machine.word(descriptor, n))
        for at, data in machine.image.items():  # a store may have gone anywhere
            machine.poke(at, data)
        await machine.check_clean_run(f"after {what}")
    assert 5 in ends
