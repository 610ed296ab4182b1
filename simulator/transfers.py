"""When the operations of a program's passes take place, and what every cycle is spent on (rules T).

`schedule` computes; `step_schedule` steps the sequencer, the DMA and the memory cycle by cycle.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


class Bus(NamedTuple):
    """What transfers depend on besides their shape."""

    beat_bytes: int
    word_bytes: int
    rows: int
    latency_cycles: int
    interval_cycles: int
    descriptor_bytes: int


class Operations(NamedTuple):
    """The passes of one program in order, one element a pass; offsets are bytes from the base."""

    layer: IntArray  # from 0, rising
    order: IntArray
    run_cycles: IntArray  # of the engine, see section 8
    descriptor_offset: IntArray
    weight_offset: IntArray
    weight_beats: IntArray  # 0: nothing to load
    load_offset: IntArray
    load_segments: IntArray  # 0: nothing to load
    load_words: IntArray
    load_stride_bytes: IntArray
    load_row_words: IntArray
    load_single: IntArray  # 1 where the horizontal stride is more than 1
    second_offset: IntArray  # -1: no second operand
    store_offset: IntArray
    store_segments: IntArray  # 0: nothing to store
    store_words: IntArray
    store_stride_bytes: IntArray
    store_first_row_words: IntArray
    store_row_words: IntArray
