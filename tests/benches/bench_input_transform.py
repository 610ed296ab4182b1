"""The Winograd input transform against B^T d B in plain integers, with random stalls."""

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly, RisingEdge

# Source: Lavin and Gray 2016; signs as Cook-Toom gives them at 0, 1, -1 (, 2, -2), infinity.
MATRICES = {
    4: np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]]),
    6: np.array(
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ]
    ),
}


class Unit:
    def __init__(self, dut):
        self.dut = dut
        self.lanes, self.x_bits = int(dut.LANES.value), int(dut.X_W.value)
        self.v_bits, self.half = int(dut.V_W.value), int(dut.HALF.value)
        self.sides = {1: (4,), 2: (6,), 3: (4, 6)}[int(dut.FORMS.value)]

    async def start(self, side, words, chunk):
        dut = self.dut
        dut.cfg_form4.value, dut.cfg_words.value = int(side == 6), words
        dut.cfg_chunk_words.value = chunk
        dut.flush.value = 1
        await FallingEdge(dut.clk)
        dut.flush.value = 0

    def pack(self, values):
        mask = (1 << self.x_bits) - 1
        return sum((int(v) & mask) << (self.x_bits * i) for i, v in enumerate(values))

    def unpack(self, vector):
        mask, sign = (1 << self.v_bits) - 1, 1 << (self.v_bits - 1)
        parts = [(vector >> (self.v_bits * i)) & mask for i in range(self.lanes)]
        return [(part ^ sign) - sign for part in parts]


async def reset(dut):
    cocotb.start_soon(Clock(dut.clk, 10, unit="ns").start())
    dut.rst.value, dut.flush.value, dut.in_valid.value, dut.out_ready.value = 1, 0, 0, 0
    await FallingEdge(dut.clk)
    await FallingEdge(dut.clk)
    dut.rst.value = 0
    return Unit(dut)


def expected(patches, words, chunk):
    """Words of V in the order (tile, chunk, tap row, tap column, word of the chunk)."""
    side = patches.shape[1]
    matrix = MATRICES[side]
    v = np.einsum("ki,pijc,lj->pklc", matrix, patches, matrix)
    result = []
    for tile in range(0, len(v), words):
        for first in range(tile, tile + words, chunk):
            part = v[first : min(first + chunk, tile + words)]
            result += part.transpose(1, 2, 0, 3).reshape(-1, part.shape[3]).tolist()
    return result


async def run(unit, side, words, chunk, patches, rates, rng):
    """Send patches; give what comes out and the cycles of the transfers on both sides."""
    dut = unit.dut
    await unit.start(side, words, chunk)
    inputs = [unit.pack(word) for word in patches.reshape(-1, unit.lanes)]
    outputs, taken, given, cycle = [], [], [], 0
    while len(outputs) < len(inputs):
        offers = len(taken) < len(inputs) and rng.random() >= rates[0]
        ready = rng.random() >= rates[1]
        dut.in_valid.value, dut.out_ready.value = int(offers), int(ready)
        if offers:
            dut.in_data.value = inputs[len(taken)]
        await ReadOnly()
        if offers and int(dut.in_ready.value):
            taken.append(cycle)
        if ready and int(dut.out_valid.value):
            outputs.append(unit.unpack(int(dut.out_data.value)))
            given.append(cycle)
        await RisingEdge(dut.clk)
        await FallingEdge(dut.clk)
        cycle += 1
        assert cycle < 200 * len(inputs) + 1000, "nothing comes out"
    return outputs, taken, given


def random_patches(unit, rng, count, side):
    limit = 1 << (unit.x_bits - 1)
    kind = rng.integers(3)
    values = rng.integers(-limit, limit, (count, side, side, unit.lanes))
    if kind == 0:  # corners: the extremes alone
        values = np.where(values < 0, -limit, limit - 1)
    return values


@cocotb.test()
async def words_are_the_transforms_of_the_patches(dut):
    rng = np.random.default_rng(1)
    unit = await reset(dut)
    for rates in ((0, 0), (0.5, 0), (0, 0.5), (0.3, 0.7), (0.7, 0.3)):
        for side in unit.sides:
            largest = unit.half // (side * side)
            words, chunk = int(rng.integers(1, 2 * largest + 2)), int(rng.integers(1, largest + 1))
            patches = random_patches(unit, rng, 3 * words, side)
            outputs, _, _ = await run(unit, side, words, chunk, patches, rates, rng)
            assert outputs == expected(patches, words, chunk)


@cocotb.test()
async def the_largest_result_fits(dut):
    rng = np.random.default_rng(2)
    unit = await reset(dut)
    limit = 1 << (unit.x_bits - 1)
    for side in unit.sides:
        matrix = MATRICES[side]
        sign = np.einsum("ki,lj->klij", matrix, matrix)
        worst = np.where(sign > 0, limit - 1, -limit).reshape(-1, side, side)
        patches = np.repeat(worst[..., np.newaxis], unit.lanes, axis=3)
        patches = np.concatenate([patches, -1 - patches])
        outputs, _, _ = await run(unit, side, 1, 1, patches, (0, 0), rng)
        assert outputs == expected(patches, 1, 1)


@cocotb.test()
async def a_chunk_is_read_in_the_cycle_of_rule_w3(dut):
    rng = np.random.default_rng(3)
    unit = await reset(dut)
    for side in unit.sides:
        taps = side * side
        chunk = max(1, unit.half // taps // 2)
        patches = random_patches(unit, rng, 6 * chunk, side)
        _, taken, given = await run(unit, side, 3 * chunk, chunk, patches, (0, 0), rng)
        words = taps * chunk
        begin, freed = [], []  # of each chunk: its first acceptance, its last read
        for q in range(6):
            earliest = begin[q - 1] + words if q else 0
            begin.append(max(earliest, freed[q - 2] + 1) if q > 1 else earliest)
            stored = begin[q] + words + taps + 2 * side
            first = max(stored + 1, freed[q - 1] + 1 if q else 0)
            freed.append(first + words - 1)
        assert taken[::words] == begin
        assert given[words - 1 :: words] == [cycle + 1 for cycle in freed]


@cocotb.test()
async def a_flush_in_the_middle_begins_anew(dut):
    rng = np.random.default_rng(4)
    unit = await reset(dut)
    for side in unit.sides:
        patches = random_patches(unit, rng, 4, side)
        await unit.start(side, 2, 1)
        for word in patches.reshape(-1, unit.lanes)[: int(rng.integers(1, 3 * side * side))]:
            dut.in_valid.value, dut.in_data.value = 1, unit.pack(word)
            await FallingEdge(dut.clk)
        dut.in_valid.value = 0
        outputs, _, _ = await run(unit, side, 2, 1, patches, (0.2, 0.2), rng)
        assert outputs == expected(patches, 2, 1)
