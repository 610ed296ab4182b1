"""All operands with all codes: every addend that came out against a product taken by NumPy."""

from pathlib import Path

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from pe_model import MAC, SHIFT_ADD


@cocotb.test()
async def every_addend_is_operand_times_weight(dut):
    kind, terms, x_w, weight_w = (
        int(handle.value) for handle in (dut.PE_KIND, dut.TERMS, dut.X_W, dut.WEIGHT_W)
    )
    Clock(dut.clk, 10, unit="ns").start()
    dut.rst.value = 1
    for _ in range(2):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    await RisingEdge(dut.finished)

    if kind == MAC:
        weights = np.arange(1 << weight_w)
        weights[1 << (weight_w - 1) :] -= 1 << weight_w
    elif kind == SHIFT_ADD:
        term = np.array([*[0] * 32, *(2**k for k in range(16)), *(-(2**k) for k in range(16))])
        weights = term
        for _ in range(terms - 1):  # term 0 lies lowest, so it varies fastest
            weights = (term[:, None] + weights[None, :]).ravel()
    else:
        weights = np.array([0, 1, 0, -1])
    operands = np.arange(1 << x_w)
    operands[1 << (x_w - 1) :] -= 1 << x_w

    addends = np.array(Path("sweep.txt").read_text().split(), dtype=np.int64)
    np.testing.assert_array_equal(addends, (weights[:, None] * operands[None, :]).ravel())
