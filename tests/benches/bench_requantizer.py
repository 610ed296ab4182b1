"""The requantizer against golden.arithmetic and against sums done by hand, with random stalls."""

from collections import deque
from dataclasses import dataclass

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly, RisingEdge
from cocotb.types import LogicArray

from golden.arithmetic import requantize, wrap
from golden.formats import IntFormat
from golden.network import Requantization

ROUNDINGS = ("double", "single", "multiplier16", "shift_half_up", "shift_half_even")
SHIFTS = {
    "double": (-31, 30),
    "single": (-31, 30),
    "multiplier16": (-31, 14),
    "shift_half_up": (-62, 0),
    "shift_half_even": (-62, 0),
}
INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1


@dataclass(frozen=True)
class Format:
    lanes: int
    acc_bits: int
    post_bits: int
    code_bits: int

    @classmethod
    def of(cls, dut):
        names = ("LANES", "ACC_W", "POST_W", "OUT_W")
        return cls(*(int(getattr(dut, name).value) for name in names))

    @property
    def wide(self):
        return self.post_bits == 64


@dataclass(frozen=True)
class Post:
    """Configuration that every result of a run shares."""

    rounding: str
    zero_point: int
    minimum: int
    maximum: int


@dataclass(frozen=True)
class Group:
    """Accumulators of one channel and its parameters."""

    accs: tuple
    bias: int
    multiplier: int
    shift: int


def expected_codes(fmt, post, group):
    biased, _ = wrap(np.array(group.accs, np.int64) + group.bias, IntFormat(fmt.post_bits))
    rule = Requantization(
        np.array([group.multiplier], np.int32), np.array([group.shift], np.int32), post.rounding
    )
    codes = requantize(biased, rule) + post.zero_point
    return np.clip(codes, post.minimum, post.maximum).tolist()


def pack(values, bits):
    return sum((value & ((1 << bits) - 1)) << (bits * i) for i, value in enumerate(values))


def unpack(vector, count, bits, signed):
    sign = 1 << (bits - 1) if signed else 0
    mask = (1 << bits) - 1
    return [(((vector >> (bits * i)) & mask) ^ sign) - sign for i in range(count)]


def drive(dut, fmt, group):
    """Put a group on the inputs, or unknown bits where there is none."""
    dut.in_valid.value = int(group is not None)
    if group is None:
        for port in (dut.in_acc, dut.in_bias, dut.in_multiplier, dut.in_shift):
            port.value = LogicArray("X" * len(port))
        return
    dut.in_acc.value = pack(group.accs, fmt.acc_bits)
    dut.in_bias.value = group.bias
    dut.in_multiplier.value = group.multiplier
    dut.in_shift.value = group.shift


async def reset(dut):
    Clock(dut.clk, 10, unit="ns").start()
    dut.rst.value = 1
    dut.in_valid.value = 0
    dut.out_ready.value = 0
    await RisingEdge(dut.clk)
    await FallingEdge(dut.clk)
    dut.rst.value = 0


async def run(dut, fmt, post, groups, rng, idle=0.0, stall=0.0):
    """Send groups, collect codes; returns the codes and the cycle of each transfer in and out."""
    dut.cfg_rounding.value = ROUNDINGS.index(post.rounding)
    dut.cfg_zero_point.value = post.zero_point
    dut.cfg_minimum.value = post.minimum
    dut.cfg_maximum.value = post.maximum
    waiting, offered = deque(groups), None
    codes, sent, received = [], [], []
    held = None  # what the output must still show
    cycle = 0
    while len(codes) < len(groups):
        if offered is None and waiting and rng.random() >= idle:
            offered = waiting.popleft()
        drive(dut, fmt, offered)
        ready = rng.random() >= stall
        dut.out_ready.value = int(ready)
        await ReadOnly()
        if held is not None:
            assert int(dut.out_valid.value) == 1, "a valid code was withdrawn"
            assert int(dut.out_code.value) == held, "a waiting code changed"
            held = None
        if int(dut.out_valid.value):
            vector = int(dut.out_code.value)
            if ready:
                codes.append(unpack(vector, fmt.lanes, fmt.code_bits, post.minimum < 0))
                received.append(cycle)
            else:
                held = vector
        if offered is not None and int(dut.in_ready.value):
            sent.append(cycle)
            offered = None
        await FallingEdge(dut.clk)
        cycle += 1
        assert cycle < 100 * len(groups) + 100, "the pipeline hangs"
    return codes, sent, received


async def check(dut, fmt, post, groups, rng, **stalls):
    codes, sent, received = await run(dut, fmt, post, groups, rng, **stalls)
    for group, code in zip(groups, codes, strict=True):
        assert code == expected_codes(fmt, post, group), f"{post} {group}"
    return sent, received


def random_post(rng, rounding, code_bits, signed):
    low = -(1 << (code_bits - 1)) if signed else 0
    high = low + (1 << code_bits) - 1
    minimum, maximum = sorted(rng.integers(low, high, 2, endpoint=True).tolist())
    if rng.random() < 0.7:
        minimum, maximum = low, high
    return Post(rounding, int(rng.integers(low, high, endpoint=True)), minimum, maximum)


def random_groups(rng, fmt, rounding, count):
    """Sums of every magnitude; half of the scales bring them near the codes."""
    groups = []
    low, high = SHIFTS[rounding]
    # TensorFlow Lite's 16-bit kernels keep their sums below 2^47.
    limit = min(fmt.acc_bits, 47) - 1
    bias_limit = 47 if fmt.wide else 31
    for _ in range(count):
        magnitude = int(rng.integers(1, limit, endpoint=True))
        accs = rng.integers(-(1 << magnitude), 1 << magnitude, fmt.lanes).tolist()
        bias_magnitude = int(rng.integers(0, bias_limit, endpoint=True))
        bias = int(rng.integers(-(1 << bias_magnitude), 1 << bias_magnitude))
        shift = int(rng.integers(low, high, endpoint=True))
        if rng.random() < 0.5:
            shift = min(max(7 - max(magnitude, bias_magnitude), low), high)
        multiplier = int(rng.integers(1 << 30, 1 << 31))
        if rng.random() < 0.1:
            multiplier = int(rng.choice([0, 1, 1 << 30, 0x7FFEFFFF, 0x7FFF0000, INT32_MAX]))
        groups.append(Group(tuple(accs), bias, multiplier, shift))
    return groups


def extreme_groups(fmt, rounding):
    """Every legal shift with the ends of the accumulator, small ties, and extreme multipliers."""
    largest = (1 << (min(fmt.acc_bits, 47) - 1)) - 1
    low, high = SHIFTS[rounding]
    values = [largest, -largest - 1, 0, 1, -1, 2, -2, 3, -3, 5, -5, 6, -6, 12, -12, 96, -96]
    values += [0] * (-len(values) % fmt.lanes)
    multipliers = [1 << 30, INT32_MAX]
    if rounding in ("double", "single"):
        multipliers.append(INT32_MIN)  # with it comes the one product that saturates
    if rounding == "multiplier16":
        multipliers += [0x40008000, 0x7FFF0000]  # a tie of the reduction to 16 bits, its limit
    if rounding.startswith("shift"):
        multipliers = [0]
    biases = (0,) if fmt.wide else (0, INT32_MIN, INT32_MAX)
    return [
        Group(tuple(values[i : i + fmt.lanes]), bias, multiplier, shift)
        for shift in range(low, high + 1)
        for multiplier in multipliers
        for bias in biases
        for i in range(0, len(values), fmt.lanes)
    ]


@cocotb.test()
async def outputs_are_not_valid_after_reset(dut):
    await reset(dut)
    dut.out_ready.value = 1
    for _ in range(6):
        await FallingEdge(dut.clk)
        assert int(dut.out_valid.value) == 0
        assert int(dut.in_ready.value) == 1


@cocotb.test()
async def sums_done_by_hand(dut):
    # -5/2 = -2.5, -1.5, 1.5, 2.5: the doubling multiply of `double` rounds half up, a right shift
    # of `double` half away from zero (gemmlowp fixedpoint.h). -12/8 = -1.5 and 12/8 = 1.5 are the
    # ties of methods where `double` and `single` differ.
    fmt = Format.of(dut)
    half, quarter = 1 << 30, (1 << 30, -2)
    cases = {
        "double": [(-5, half, 0, -2), (-3, half, 0, -1), (3, half, 0, 2), (5, half, 0, 3)]
        + [(-12, *quarter, -2), (12, *quarter, 2)],
        "single": [(-5, half, 0, -2), (-3, half, 0, -1), (3, half, 0, 2), (5, half, 0, 3)]
        + [(-12, *quarter, -1), (12, *quarter, 2)],
        "shift_half_up": [(-5, 0, -1, -2), (-3, 0, -1, -1), (3, 0, -1, 2), (5, 0, -1, 3)],
        "shift_half_even": [(-5, 0, -1, -2), (-3, 0, -1, -2), (3, 0, -1, 2), (5, 0, -1, 2)],
        # 0x7fff0000 is reduced to 0x7fff, just below one: 100 * 32767 / 32768 rounds to 100.
        "multiplier16": [(-5, half, 0, -2), (3, half, 0, 2), (100, 0x7FFF0000, 0, 100)],
    }
    await reset(dut)
    rng = np.random.default_rng(1)
    for rounding, rows in cases.items():
        post = Post(rounding, 0, -128, 127)
        groups = [Group((acc,) * fmt.lanes, 0, m, shift) for acc, m, shift, _ in rows]
        codes, _, _ = await run(dut, fmt, post, groups, rng)
        assert codes == [[code] * fmt.lanes for *_, code in rows], rounding


@cocotb.test()
async def three_cycles_latency_and_one_result_a_cycle(dut):
    fmt = Format.of(dut)
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    await reset(dut)
    groups = random_groups(rng, fmt, "double", 20)
    sent, received = await check(dut, fmt, Post("double", 3, -128, 127), groups, rng)
    assert sent == list(range(20))
    assert received == [cycle + 3 for cycle in sent]


@cocotb.test()
async def every_legal_shift_at_the_extremes(dut):
    fmt = Format.of(dut)
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    await reset(dut)
    for rounding in ROUNDINGS:
        groups = extreme_groups(fmt, rounding)
        low = -(1 << (fmt.code_bits - 1))
        await check(dut, fmt, Post(rounding, 0, low, ~low), groups, rng)


@cocotb.test()
@cocotb.parametrize(idle=[0.0, 0.1, 0.5, 0.9], stall=[0.0, 0.1, 0.5, 0.9])
async def random_sums_under_stalls(dut, idle, stall):
    fmt = Format.of(dut)
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    await reset(dut)
    count = 60 if max(idle, stall) < 0.9 else 15
    for rounding in ROUNDINGS:
        post = random_post(rng, rounding, fmt.code_bits, signed=bool(rng.integers(2)))
        groups = random_groups(rng, fmt, rounding, count)
        sent, received = await check(dut, fmt, post, groups, rng, idle=idle, stall=stall)
        assert all(out - into >= 3 for into, out in zip(sent, received, strict=True))
