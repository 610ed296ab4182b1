"""When the operations of a program's passes take place, and what every cycle is spent on (rules T).

`schedule` computes; `step_schedule` steps the sequencer, the DMA and the memory cycle by cycle.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator import transfer_kernels as kernels
from simulator.hardware import Hardware
from simulator.transfer_kernels import Bus, Operations

__all__ = [
    "OPERATIONS",
    "TRANSFER_CAUSES",
    "Bus",
    "Operations",
    "Schedule",
    "bus_of",
    "schedule",
    "step_schedule",
]

IntArray = NDArray[np.int64]

OPERATIONS = ("descriptor", "weights", "activations", "second", "store")
"""Columns of `Schedule.start` and `Schedule.end`: D, W, A, A2, S of a pass."""

TRANSFER_CAUSES = (
    "control",
    "stall_descriptor",
    "stall_weights",
    "stall_activations",
    "stall_outputs",
)
"""Columns of `Schedule.causes` (rule T10)."""


class Schedule(NamedTuple):
    """Absolute cycles; the host's start is cycle 0.

    The engine's start g of a pass is `configure + 1`. The cycles `configure + 2 .. done` have the
    engine's own causes, which belong to the pass's layer.
    """

    start: IntArray  # (passes, 5) s of the operations
    end: IntArray  # (passes, 5) e
    configure: IntArray  # (passes,) c
    done: IntArray  # (passes,) the engine's done is high
    layer_end: IntArray  # (layers,) last cycle of each layer
    causes: IntArray  # (layers, 5) cycles outside the engine's runs, by TRANSFER_CAUSES

    @property
    def cycles(self) -> int:
        """Of the whole program."""
        return int(self.layer_end[-1])

    @property
    def layer_cycles(self) -> IntArray:
        """Cycles from the end of the layer before to the end of each layer."""
        return np.diff(self.layer_end, prepend=0)


def bus_of(hardware: Hardware) -> Bus:
    """Bus and memory of a hardware description (rules T6 to T9)."""
    return Bus(
        beat_bytes=hardware.beat_bytes,
        word_bytes=hardware.word_bytes,
        rows=hardware.array.rows,
        latency_cycles=hardware.dram.latency_cycles,
        interval_cycles=hardware.interval_cycles,
        descriptor_bytes=hardware.descriptor_bytes,
    )


def schedule(operations: Operations, bus: Bus) -> Schedule:
    """Time a program by the recurrences of rules T4 to T10.

    Parameters
    ----------
    operations : Operations
        One element a pass, at least one pass.
    bus : Bus

    Returns
    -------
    Schedule
    """
    found = _zeros(operations)
    kernels.schedule(bus, operations, found)
    return Schedule(*found)


def step_schedule(operations: Operations, bus: Bus) -> Schedule:
    """Time a program by stepping its machines cycle by cycle; the same as `schedule`."""
    found = _zeros(operations)
    kernels.step_schedule(bus, operations, found)
    return Schedule(*found)


def _zeros(operations: Operations) -> kernels.Times:
    passes, layers = operations.layer.size, int(operations.layer[-1]) + 1

    def zeros(*shape: int) -> IntArray:
        return np.zeros(shape, dtype=np.int64)

    return kernels.Times(
        start=zeros(passes, 5),
        end=zeros(passes, 5),
        configure=zeros(passes),
        done=zeros(passes),
        layer_end=zeros(layers),
        causes=zeros(layers, 5),
    )
