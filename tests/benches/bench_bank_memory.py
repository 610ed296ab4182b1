"""A bank with lane enables, one access a cycle, against a list of lanes."""

import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge


@cocotb.test()
async def a_write_changes_its_lanes_and_a_read_holds(dut):
    """A read sees the word before a write of its cycle."""
    words, lanes, bits = int(dut.WORDS.value), int(dut.LANES.value), int(dut.LANE_W.value)
    memory = [[0] * lanes for _ in range(words)]
    Clock(dut.clk, 10, unit="ns").start()
    dut.read.value = 0
    dut.write.value = 1
    dut.write_lanes.value = (1 << lanes) - 1
    dut.write_data.value = 0
    for word in range(words):
        dut.write_addr.value = word
        await FallingEdge(dut.clk)
    expected = None
    for _ in range(2000):
        address, enables = random.randrange(words), random.getrandbits(lanes)
        read, writes = random.random() < 0.7, random.random() < 0.5
        written = random.choice([address, random.randrange(words)])
        codes = [random.getrandbits(bits) for _ in range(lanes)]
        dut.read.value = int(read)
        dut.read_addr.value = address
        dut.write.value = int(writes)
        dut.write_lanes.value = enables
        dut.write_addr.value = written
        dut.write_data.value = sum(code << (bits * lane) for lane, code in enumerate(codes))
        if read:
            expected = sum(code << (bits * lane) for lane, code in enumerate(memory[address]))
        for lane in range(lanes):
            if writes and enables >> lane & 1:
                memory[written][lane] = codes[lane]
        await FallingEdge(dut.clk)
        assert expected is None or int(dut.word.value) == expected
