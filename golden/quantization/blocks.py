"""Work on large matrices in blocks that fit the cache, on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

BLOCK_ELEMENTS = 1 << 16
"""Elements of a block: a few temporary arrays of it stay in the second-level cache."""


def block_slices(shape: tuple[int, int], whole_rows: bool = False) -> list[tuple[slice, slice]]:
    """Rectangles that cover a (rows, columns) matrix, row by row.

    Parameters
    ----------
    shape : (int, int)
    whole_rows : bool
        Never cut a row, however long.
    """
    rows, columns = shape
    width = columns if whole_rows else min(columns, BLOCK_ELEMENTS)
    height = max(1, BLOCK_ELEMENTS // max(width, 1))
    return [
        (slice(row, row + height), slice(column, column + width))
        for row in range(0, rows, height)
        for column in range(0, columns, max(width, 1))
    ]


def each_block(
    function: Callable[[slice, slice], Result], shape: tuple[int, int], whole_rows: bool = False
) -> list[Result]:
    """Call `function` for each block, several at a time; results in the order of the blocks.

    NumPy lets go of the interpreter inside its loops, so that threads help.
    """
    blocks = block_slices(shape, whole_rows)
    if len(blocks) == 1:
        return [function(*blocks[0])]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda block: function(*block), blocks))
