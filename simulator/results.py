"""What a simulation returns: cycles by cause, counted events, overflow records."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

LayerUnit = Literal["array", "vector", "host", "free"]
"""What does a layer: the PE array, the vector unit, the host, or nothing (its words stay)."""

CAUSES = (
    "compute",
    "fill",
    "stall_feed",
    "drain",
    "control",
    "stall_descriptor",
    "stall_weights",
    "stall_activations",
    "stall_outputs",
    "vector",
)
"""Every cycle of a layer has one of these causes (docs/microarchitecture.md, rules E5, T10, V5).

`vector` are the cycles of a layer that the host computes."""


@dataclass(frozen=True)
class Events:
    """Counted events of one layer and one inference; energy is these times a table.

    Parameters
    ----------
    steps : int
        Steps of PEs whose row holds a real pixel: products, terms, or signed additions.
    entries : int
        Stream entries read, all columns, fillers included.
    window_words : int
        Words of R x F operands loaded into the window.
    feed_words : int
        Words read from the feed memory.
    parameter_reads : int
        Words read from the parameter memory (one for each column and group of Q rows drained).
    output_codes : int
        Codes written to the output memory.
    transformed_words : int
        Words of R x F operands that the Winograd input transform takes, and gives.
    summed_results : int
        Groups of Q results that the Winograd output transform adds to its sums.
    vector_operations : int
        Elements that layers without weights work on: outputs; of a pool its taps inside the image,
        of a mean its inputs.
    weight_load_bytes, activation_load_bytes, output_store_bytes : int
        Bytes that the DMA moves into the weight memories and the activation banks, and from the
        output banks.
    dram_read_bytes, dram_write_bytes : int
        All bytes from and to external memory: those and the descriptors, or the host's.
    """

    steps: int = 0
    entries: int = 0
    window_words: int = 0
    feed_words: int = 0
    parameter_reads: int = 0
    output_codes: int = 0
    transformed_words: int = 0
    summed_results: int = 0
    vector_operations: int = 0
    weight_load_bytes: int = 0
    activation_load_bytes: int = 0
    output_store_bytes: int = 0
    dram_read_bytes: int = 0
    dram_write_bytes: int = 0

    def __add__(self, other: Events) -> Events:
        return Events(
            *(getattr(self, each.name) + getattr(other, each.name) for each in fields(self))
        )

    def __mul__(self, times: int) -> Events:
        return Events(*(getattr(self, each.name) * times for each in fields(self)))


class OverflowCounts(NamedTuple):
    """How often the accumulators of one layer overflowed; see `OverflowRecord`."""

    events: int
    transient: int
    persistent: int

    @property
    def outputs_affected(self) -> int:
        """Outputs with at least one event."""
        return self.transient + self.persistent


@dataclass(frozen=True)
class OverflowRecord:
    """What the accumulators of one layer did, over all outputs of all samples.

    Parameters
    ----------
    acc_bits : int
    acc_overflow : str
        "wrap" or "saturate".
    events : int
        Steps whose exact sum left the range.
    outputs_affected : int
        Outputs with at least one event.
    transient, persistent : int
        Outputs with an event whose exact final sum fits, or does not fit, the result's width.
    minimum, maximum : int
        Extremes over all prefixes (the initial 0 included) of an unbounded accumulator.
    bits_needed : int
        Smallest two's complement width that holds [minimum, maximum].
    """

    acc_bits: int
    acc_overflow: str
    events: int
    outputs_affected: int
    transient: int
    persistent: int
    minimum: int
    maximum: int
    bits_needed: int

    @property
    def counts(self) -> OverflowCounts:
        """How often, without the extremes."""
        return OverflowCounts(self.events, self.transient, self.persistent)


@dataclass(frozen=True)
class AccumulatorValues:
    """Per-output accumulator results of one weighted layer; arrays have the output's NHWC shape.

    Parameters
    ----------
    value : int64 array
        Final content of the accumulator, bias excluded.
    events : int64 array
        Overflow events of each output.
    first_step : int64 array
        Step (from 0, in the output's own order) of the first event; -1 without events.
    minimum, maximum : int64 arrays
        Extremes of an unbounded accumulator over all prefixes, 0 included.
    persistent : bool array
        The exact final sum does not fit the result's width.
    """

    value: NDArray[np.int64]
    events: NDArray[np.int64]
    first_step: NDArray[np.int64]
    minimum: NDArray[np.int64]
    maximum: NDArray[np.int64]
    persistent: NDArray[np.bool_]


@dataclass(frozen=True)
class LayerTiming:
    """Cycles and events of one layer and one inference.

    Parameters
    ----------
    cycles : int
        From the end of the layer before to its own end (rule T10).
    cycles_by_cause : dict of str to int
        Every name of `CAUSES`; the values sum to `cycles`.
    events : Events
    """

    cycles: int
    cycles_by_cause: dict[str, int] = field(default_factory=dict)
    events: Events = field(default_factory=Events)

    def __add__(self, other: LayerTiming) -> LayerTiming:
        causes = self.cycles_by_cause | other.cycles_by_cause
        return LayerTiming(
            self.cycles + other.cycles,
            {
                cause: self.cycles_by_cause.get(cause, 0) + other.cycles_by_cause.get(cause, 0)
                for cause in causes
            },
            self.events + other.events,
        )


@dataclass(frozen=True)
class RunTiming:
    """One run of the engine.

    Parameters
    ----------
    cycles : int
        From 1 to the cycle of `done` (rule E3).
    cycles_by_cause : dict of str to int
        Causes of rule E5; the values sum to `cycles`.
    events : Events
        Those of the engine; no transfers.
    """

    cycles: int
    cycles_by_cause: dict[str, int]
    events: Events
