"""The Winograd input transform on tiles of the extremes alone."""

import cocotb
import numpy as np
from bench_input_transform import expected, reset, run


@cocotb.test()
async def corner_tiles_are_transformed_exactly(dut):
    """All 2^16 for n = 4; for n = 6 those whose signs are an outer product.

    The latter reach both ends of every transformed operand.
    """
    rng = np.random.default_rng(5)
    unit = await reset(dut)
    limit = 1 << (unit.x_bits - 1)
    for side in unit.sides:
        count = side * side if side == 4 else side
        signs = np.indices((2,) * count).reshape(count, -1).T == 0
        if side == 6:
            signs = signs[:, np.newaxis, :, np.newaxis] ^ signs[np.newaxis, :, np.newaxis]
        patches = np.where(signs, limit - 1, -limit).reshape(-1, unit.lanes, side, side)
        outputs, _, _ = await run(unit, side, 1, 1, patches.transpose(0, 2, 3, 1), (0, 0), rng)
        assert outputs == expected(patches.transpose(0, 2, 3, 1), 1, 1)
