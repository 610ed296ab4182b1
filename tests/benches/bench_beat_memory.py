"""A memory of bus beats that is read a field at a time, one access a cycle, against a list."""

import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge


@cocotb.test()
async def a_read_gives_the_field_a_cycle_later_and_holds_it(dut):
    """The address is {beat, place}; a read sees the beat before a write of its cycle."""
    width, beats, payload = int(dut.WIDTH.value), int(dut.BEATS.value), int(dut.PAYLOAD_W.value)
    places = payload // width
    place_bits = (places - 1).bit_length()
    memory = [0] * beats
    Clock(dut.clk, 10, unit="ns").start()
    dut.read.value = 0
    for beat in range(beats):
        memory[beat] = random.getrandbits(payload)
        await write(dut, beat, memory[beat])
    expected = None
    for _ in range(2000):
        beat, place = random.randrange(beats), random.randrange(places)
        read, writes = random.random() < 0.7, random.random() < 0.5
        written, value = random.choice([beat, random.randrange(beats)]), random.getrandbits(payload)
        dut.read.value = int(read)
        dut.read_addr.value = beat << place_bits | place
        dut.write.value = int(writes)
        dut.write_beat.value = written
        dut.write_data.value = value
        if read:
            expected = memory[beat] >> (place * width) & ((1 << width) - 1)
        if writes:
            memory[written] = value
        await FallingEdge(dut.clk)
        assert expected is None or int(dut.word.value) == expected


async def write(dut, beat, value):
    dut.write.value = 1
    dut.write_beat.value = beat
    dut.write_data.value = value
    await FallingEdge(dut.clk)
    dut.write.value = 0
