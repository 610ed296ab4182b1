"""The Winograd output transform against direct convolution in plain integers."""

from dataclasses import dataclass

import cocotb
import numpy as np
from bench_input_transform import MATRICES
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly

# Row-minimal G: the outputs are 4, or 576, times the convolution (methods of Cook and Toom).
WEIGHTS = {
    4: np.array([[1, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 1]]),
    6: np.array([[1, 0, 0], [-1, -1, -1], [-1, 1, -1], [1, 2, 4], [1, -2, 4], [0, 0, 1]]),
}


@dataclass(frozen=True)
class Case:
    """Products of each chunk, tap, place and lane, and the outputs they belong to."""

    products: np.ndarray  # (chunks, n, n, places, lanes)
    outputs: np.ndarray  # (places, m * m, lanes)


def random_case(rng, side, chunks, places, lanes, limit):
    """Convolutions of 3 x 3 weights with patches, `chunks` channels each."""
    data = rng.integers(-limit, limit, (chunks, side, side, places, lanes))
    kernels = rng.integers(-127, 128, (chunks, 3, 3, places))
    if rng.integers(2):
        data, kernels = np.where(data < 0, -limit, limit - 1), np.where(kernels < 0, -127, 127)
    b, g = MATRICES[side], WEIGHTS[side]
    v = np.einsum("ki,xijpf,lj->xklpf", b, data, b)
    u = np.einsum("ki,xijp,lj->xklp", g, kernels, g)
    m = side - 2
    outputs = [
        (data[:, i : i + 3, j : j + 3] * kernels[..., np.newaxis]).sum(axis=(0, 1, 2))
        for i in range(m)
        for j in range(m)
    ]
    return Case(v * u[..., np.newaxis], np.stack(outputs, axis=1))


def pack(values, bits):
    return sum((int(v) & ((1 << bits) - 1)) << (bits * i) for i, v in enumerate(values))


def wrapped(value, bits):
    value = int(value) & ((1 << bits) - 1)
    return value - (1 << bits) if value >> (bits - 1) else value


async def outputs_of(dut, side, case, rng):
    """Drive a tile after tile as the drain does; sub-cycles of the last tap, pauses elsewhere."""
    lanes, result_bits = int(dut.LANES.value), int(dut.RESULT_W.value)
    sum_bits = int(dut.SUM_W.value)
    chunks, places = case.products.shape[0], case.products.shape[3]
    phases = (side - 2) ** 2
    found = np.zeros_like(case.outputs)
    dut.cfg_form4.value = int(side == 6)
    due = {}  # cycle: (place, phase)
    cycle = 0

    async def step(valid):
        nonlocal cycle
        dut.in_valid.value = int(valid)
        place_phase = due.get(cycle + 1)
        dut.out_phase.value = place_phase[1] if place_phase else int(rng.integers(phases))
        await ReadOnly()
        if cycle in due:
            place, phase = due.pop(cycle)
            word = int(dut.out_result.value)
            found[place, phase] = [
                wrapped(word >> (result_bits * lane), result_bits) for lane in range(lanes)
            ]
        await FallingEdge(dut.clk)
        cycle += 1

    for chunk in range(chunks):
        for k in range(side):
            for tap in range(side):
                first = chunk == k == tap == 0
                last = (chunk, k, tap) == (chunks - 1, side - 1, side - 1)
                for place in range(places):
                    dut.in_first.value = int(first)
                    dut.in_tap_row.value, dut.in_tap_column.value = k, tap
                    dut.in_addr.value = place
                    products = [wrapped(x, sum_bits) for x in case.products[chunk, k, tap, place]]
                    dut.in_result.value = pack(products, result_bits)
                    if last:
                        due |= {cycle + 3 + phase: (place, phase) for phase in range(phases)}
                    await step(valid=True)
                    for _ in range(phases - 1 if last else rng.integers(2) + (places == 1)):
                        await step(valid=False)
    while due:
        await step(valid=False)
    return found


async def start(dut):
    cocotb.start_soon(Clock(dut.clk, 10, unit="ns").start())
    dut.in_valid.value = 0
    dut.out_phase.value = 0
    await FallingEdge(dut.clk)
    return {1: (4,), 2: (6,), 3: (4, 6)}[int(dut.FORMS.value)]


@cocotb.test()
async def outputs_are_those_of_the_direct_convolution(dut):
    rng = np.random.default_rng(1)
    depth = int(dut.DEPTH.value)
    for side in await start(dut):
        for chunks, places in ((1, depth), (2, 1), (3, max(1, depth - 1))):
            case = random_case(rng, side, chunks, places, int(dut.LANES.value), 128)
            assert (await outputs_of(dut, side, case, rng) == case.outputs).all()


@cocotb.test()
async def sums_wrap_at_the_output_width_plus_the_shift_and_not_a_bit_earlier(dut):
    """Outputs of SUM_W - 2, or SUM_W - 6, bits are exact; the next larger one is not."""
    rng = np.random.default_rng(2)
    lanes, sum_bits = int(dut.LANES.value), int(dut.SUM_W.value)
    for side in await start(dut):
        m = side - 2
        bits = sum_bits - {4: 2, 6: 6}[side]
        values = np.array(
            [(1 << (bits - 1)) - 1, -(1 << (bits - 1)), 1 << (bits - 1)], dtype=object
        )
        weights = np.zeros((3, 3), dtype=object)
        weights[1, 1] = 1
        data = np.zeros((side, side), dtype=object)
        for value in values:
            data[1:-1, 1:-1] = value
            v = MATRICES[side] @ data @ MATRICES[side].T
            u = WEIGHTS[side] @ weights @ WEIGHTS[side].T
            products = np.array([[wrapped(x, sum_bits) for x in row] for row in v * u])
            products = products[np.newaxis, :, :, np.newaxis, np.newaxis].repeat(lanes, axis=4)
            expected = np.full((1, m * m, lanes), wrapped(value, bits))
            case = Case(products, expected)
            assert (await outputs_of(dut, side, case, rng) == expected).all()
