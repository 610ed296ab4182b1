"""The PE against plain Python integers, every register in every cycle."""

import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge
from pe_model import PeFormat, PeModel, PeProbe, random_code, random_x, without_sign


def idle(dut):
    for name in ("rst", "issue", "step", "clear", "x", "code"):
        getattr(dut, name).value = 0


async def start(dut):
    """Clock and reset; returns right after a falling edge, where inputs are driven."""
    Clock(dut.clk, 10, unit="ns").start()
    idle(dut)
    dut.rst.value = 1
    await RisingEdge(dut.clk)
    await FallingEdge(dut.clk)
    dut.rst.value = 0


@cocotb.test()
async def power_up_state_is_unknown_until_reset_makes_it_zero(dut):
    fmt = PeFormat.of(dut)
    probe = PeProbe(dut, fmt)
    Clock(dut.clk, 10, unit="ns").start()
    idle(dut)
    await RisingEdge(dut.clk)
    await FallingEdge(dut.clk)
    # step and clear follow their inputs; nothing else may look reset before it is.
    assert probe.unknown() == set(probe.handles) - {"step", "clear"}
    dut.rst.value = 1
    await FallingEdge(dut.clk)
    dut.rst.value = 0
    for _ in range(3):
        probe.compare(PeModel(fmt), "after reset")
        await FallingEdge(dut.clk)


@cocotb.test()
async def random_operands_match_in_every_register(dut):
    fmt = PeFormat.of(dut)
    rng = random.Random(cocotb.RANDOM_SEED)
    probe, model = PeProbe(dut, fmt), PeModel(fmt)
    await start(dut)
    clears = steps = overflows = full = 0
    for cycle in range(4000):
        # Phases of few clears let sums grow, phases of many exercise the handing-on.
        clear_rate = (0.01, 0.1, 0.5)[cycle // 200 % 3]
        drift = cycle // 50 % 2  # sums go one way for a while
        issue = int(rng.random() < 0.85)
        x, code = random_x(fmt, rng), random_code(fmt, rng)
        if drift:
            x, code = max(x, ~x), without_sign(fmt, code)
        clear = int(rng.random() < clear_rate)
        step = int(issue and code != 0)
        reset = rng.random() < 0.002
        dut.rst.value = int(reset)
        dut.issue.value, dut.step.value, dut.clear.value = issue, step, clear
        dut.x.value, dut.code.value = x, code
        await FallingEdge(dut.clk)
        if reset:
            model.reset()
        else:
            model.tick(issue, step, clear, x, code)
        probe.compare(model, f"cycle {cycle} of {fmt}")
        assert dut.result.value.to_signed() == model.result
        assert int(dut.result_overflow.value) == model.result_overflow
        assert int(dut.result_events.value) == model.result_events
        clears, steps = clears + clear, steps + step
        overflows += model.overflow
        full += model.events == 2**fmt.events_w - 1
    assert min(clears, steps) > 100
    if fmt.acc_bits < 32:
        assert overflows > 100, "the stimulus did not overflow"
    if fmt.events_w < 4:
        assert full > 3, "the stimulus did not fill the event counter"


async def accumulate(dut, fmt, addends):
    """Add the numbers (as operands of a weight of one), clear, and return result and events."""
    one = {0: 1, 1: 0b100000, 2: 0b01}[fmt.pe_kind]
    for number in addends:
        dut.issue.value = dut.step.value = 1
        dut.x.value, dut.code.value = number, one
        await FallingEdge(dut.clk)
    dut.issue.value = dut.step.value = 0
    dut.clear.value = 1
    await FallingEdge(dut.clk)
    dut.clear.value = 0
    await FallingEdge(dut.clk)
    return (
        dut.result.value.to_signed(),
        int(dut.result_overflow.value),
        int(dut.result_events.value),
    )


@cocotb.test()
async def sums_done_by_hand_in_eight_bits(dut):
    """ACC_BITS = 8. Expected (result, overflow, events), worked out beside each sum."""
    fmt = PeFormat.of(dut)
    assert fmt.acc_bits == 8
    await start(dut)
    if fmt.spill:
        assert (fmt.spill, fmt.wide_bits, fmt.saturate) == (2, 10, 0)
        # acc 100, 120 | 30, 45 | 7: wide 120, 165; result 165 + 7; nothing leaves 8 or 10 bits
        assert await accumulate(dut, fmt, [100, 20, 30, 15, 7]) == (172, 0, 0)
        # acc 100, 200 = -56 (event) | 5: -56 + 5
        assert await accumulate(dut, fmt, [100, 100, 5]) == (-51, 1, 1)
        # wide 120, 240, 360, 480, 600 = -424 (event) as the last pair begins; -424 + 120
        assert await accumulate(dut, fmt, [100, 20] * 6) == (-304, 1, 1)
        # wide 120, 240, 360, 480; at the clear 480 + 120 = 600 = -424 (event)
        assert await accumulate(dut, fmt, [100, 20] * 5) == (-424, 1, 1)
        assert await accumulate(dut, fmt, []) == (0, 0, 0)
    elif fmt.saturate:
        # 100, 127 (200 cut, event), 127 - 150 = -23
        assert await accumulate(dut, fmt, [100, 100, -150]) == (-23, 1, 1)
        # -150 cut to -128 (event), -28, 72
        assert await accumulate(dut, fmt, [-150, 100, 100]) == (72, 1, 1)
        assert await accumulate(dut, fmt, [-128, -1]) == (-128, 1, 1)
        assert await accumulate(dut, fmt, [127, 0, -127]) == (0, 0, 0)
    else:
        # 100, 200 = -56 (event), -206 = 50 (event)
        assert await accumulate(dut, fmt, [100, 100, -150]) == (50, 1, 2)
        # -150 = 106 (event), 206 = -50 (event), 50
        assert await accumulate(dut, fmt, [-150, 100, 100]) == (50, 1, 2)
        assert await accumulate(dut, fmt, [-128, -1]) == (127, 1, 1)
        assert await accumulate(dut, fmt, [127, 0, -127]) == (0, 0, 0)
