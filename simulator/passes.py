"""Passes: what one run of the engine loads, computes and stores (rules T1 to T5).

Data only. `simulator.plan` makes them, `simulator.transfers` times them, `simulator.compiler` turns
them into descriptors (docs/programming.md, whose field names they use). Offsets are bytes from the
program's base address.
"""

from __future__ import annotations

from dataclasses import dataclass

Range = tuple[int, int]
"""First and one past the last."""


@dataclass(frozen=True)
class WeightBlock:
    """A weight block in external memory and its place in the weight memories.

    Parameters
    ----------
    offset : int
    feed_beats, parameter_beats : int
    stream_beats : tuple of int
        One a column; empty for vector passes.
    load_feed, load_parameters, load_streams : int
        First beat, word, beat of the block in its memories.
    """

    offset: int
    feed_beats: int
    parameter_beats: int
    stream_beats: tuple[int, ...]
    load_feed: int
    load_parameters: int
    load_streams: int

    @property
    def beats(self) -> int:
        """Beats of the whole block."""
        return self.feed_beats + self.parameter_beats + sum(self.stream_beats)


@dataclass(frozen=True)
class Load:
    """Activations of a strip, from external memory to the banks.

    Parameters
    ----------
    offset, segments, words, stride_bytes : int
        Runs of words: first byte, number of runs, words of each, bytes from one to the next.
    base : int
        Bank address of the first plane's line 0.
    row_words, rows : int
        Words of an image row, rows of a plane.
    bank, phase_y, phase_words : int
        Bank of the first word, vertical phase of the first row, words of a bank for a phase plane.
    second_offset, second_base : int or None
        The second operand of an element-wise pass, of the same shape.
    """

    offset: int
    segments: int
    words: int
    stride_bytes: int
    base: int
    row_words: int
    rows: int
    bank: int
    phase_y: int
    phase_words: int
    second_offset: int | None = None
    second_base: int | None = None


@dataclass(frozen=True)
class Store:
    """Outputs of a pass, from the banks to external memory.

    Parameters
    ----------
    offset, segments, words, stride_bytes : int
        Runs of words, one a plane.
    base, bank : int
        Bank address and bank of the first word of the first plane.
    first_row_words, row_words : int
        Words up to the end of the first output row; of the others.
    first_lane, last_lane : int
        Lanes below the first are not written in the first plane, above the last not in the last.
    """

    offset: int
    segments: int
    words: int
    stride_bytes: int
    base: int
    bank: int
    first_row_words: int
    row_words: int
    first_lane: int
    last_lane: int


@dataclass(frozen=True)
class Pass:
    """One run of the engine with its transfers; one descriptor.

    Parameters
    ----------
    pixel_tiles, channel_tiles : Range
    words : Range or None
        None for whole channel tiles; otherwise positions in the words of the only channel tile, and
        there is only one pixel tile.
    planes : Range
        Planes (words of F channels) of the input that the pass reads.
    drain : bool
        Whether results are written; False for all but the last chunk of a cut tile (rule E4).
    order : int
        0, 1 or 2: when the store of the pass before takes place (rule T4).
    layer_end : bool
        The last pass of its layer.
    activation_base, output_base : int
        Bank addresses of the run.
    weights : WeightBlock
    load_weights : bool
        False where the memories hold the block already.
    load : Load
    load_activations : bool
        False where the banks hold the strip already.
    store : Store or None
        None where nothing is drained.
    """

    pixel_tiles: Range
    channel_tiles: Range
    words: Range | None
    planes: Range
    drain: bool
    order: int
    layer_end: bool
    activation_base: int
    output_base: int
    weights: WeightBlock
    load_weights: bool
    load: Load
    load_activations: bool
    store: Store | None
