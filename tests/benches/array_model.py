"""Rules A1 to A6 and S1 to S4 in plain Python; imports nothing of ours."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import NamedTuple

from pe_model import PeFormat, PeModel, random_code, random_x

ADV_W = 4
LONGEST_ADVANCE = 2**ADV_W - 1


class Entry(NamedTuple):
    last: int
    advance: int
    lane: int
    code: int


class Inputs(NamedTuple):
    """What the ports of the array hold in one cycle; None where not valid."""

    word: list[list[int]] | None  # [row][lane]
    entries: list[Entry | None]  # [column]
    handoff_ready: int
    drain_enable: int
    flush: int


class Outputs(NamedTuple):
    feed_ready: int
    entry_ready: list[int]
    fire: int
    issue_any: int
    all_done: int


@dataclass
class ArrayModel:
    """All registers of the array; `outputs` of a cycle, then `tick` to the next."""

    rows: int
    cols: int
    depth: int
    fmt: PeFormat
    window: list = field(default_factory=list)  # word 0 the oldest; n = len(window)
    offset: list[int] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    handoff: int = 0
    pes: list[list[PeModel]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.flush()
        self.handoff = 0
        self.pes = [[PeModel(self.fmt) for _ in range(self.cols)] for _ in range(self.rows)]

    def flush(self) -> None:
        self.window, self.offset, self.done = [], [0] * self.cols, [0] * self.cols

    def _ready(self, column: int) -> bool:
        return self.offset[column] < len(self.window) and not self.done[column]

    def _issued(self, inputs: Inputs) -> list[Entry | None]:
        return [entry if self._ready(c) else None for c, entry in enumerate(inputs.entries)]

    def _releases(self, issued: list[Entry | None]) -> bool:
        return bool(self.window) and all(
            offset > 0 or (entry is not None and entry.advance > 0)
            for offset, entry in zip(self.offset, issued, strict=True)
        )

    def _fires(self, inputs: Inputs, issued: list[Entry | None]) -> bool:
        return bool(inputs.handoff_ready) and all(
            done or (entry is not None and entry.last)
            for done, entry in zip(self.done, issued, strict=True)
        )

    def outputs(self, inputs: Inputs) -> Outputs:
        issued = self._issued(inputs)
        return Outputs(
            feed_ready=int(len(self.window) - self._releases(issued) < self.depth),
            entry_ready=[int(self._ready(c)) for c in range(self.cols)],
            fire=int(self._fires(inputs, issued)),
            issue_any=int(any(entry is not None for entry in issued)),
            all_done=int(all(self.done)),
        )

    def tick(self, inputs: Inputs) -> None:
        issued = self._issued(inputs)
        releases, fires = self._releases(issued), self._fires(inputs, issued)
        for c, entry in enumerate(issued):
            for r in range(self.rows):
                pe = self.pes[r][c]
                if entry is None:
                    pe.tick(0, 0, self.handoff, 0, 0)
                else:
                    x = self.window[self.offset[c]][r][entry.lane]
                    pe.tick(1, int(entry.code != 0), self.handoff, x, entry.code)
        for c, entry in enumerate(issued):
            if entry is not None:
                self.offset[c] += entry.advance
                self.done[c] |= entry.last
        if releases:
            self.window.pop(0)
            self.offset = [offset - 1 for offset in self.offset]
        if inputs.word is not None and len(self.window) < self.depth:
            self.window.append(inputs.word)
        if fires:
            self.done = [0] * self.cols
        self.handoff = int(fires and inputs.drain_enable)
        if inputs.flush:
            self.flush()


class Tile(NamedTuple):
    words: list[list[list[int]]]  # [word][row][lane]
    streams: list[list[Entry]]  # [column]
    sums: list[list[list[int]]]  # [row][column]: the addends, in the order they are added


def random_tile(rows: int, cols: int, feed: int, fmt: PeFormat, addend, rng) -> Tile:
    """Words and legal streams (rules S1, S3, S4), and the addends that each PE must see."""
    length = rng.choice([1, 1, 2, 3, 5, 8, 20, 40])
    words = [
        [[random_x(fmt, rng) for _ in range(feed)] for _ in range(rows)] for _ in range(length)
    ]
    streams = []
    sums: list[list[list[int]]] = [[[] for _ in range(cols)] for _ in range(rows)]
    for c in range(cols):
        density = rng.choice([0.0, 0.02, 0.3, 1.0])
        taken = [
            (word, lane, random_code(fmt, rng))
            for word in range(length)
            for lane in range(feed)
            for _ in range(rng.choice([1, 1, 2]))
            if rng.random() < density
        ]
        if not taken or taken[0][0] != 0:
            taken.insert(0, (0, 0, 0))
        if taken[-1][0] != length - 1:
            taken.append((length - 1, 0, 0))
        filled = [taken[0]]
        for entry in taken[1:]:
            while entry[0] - filled[-1][0] > LONGEST_ADVANCE:
                filled.append((filled[-1][0] + LONGEST_ADVANCE, 0, 0))
            filled.append(entry)
        stream = [
            Entry(0, after[0] - entry[0], entry[1], entry[2])
            for entry, after in itertools.pairwise(filled)
        ]
        stream.append(Entry(1, 1, filled[-1][1], filled[-1][2]))
        streams.append(stream)
        for r in range(rows):
            sums[r][c] = [addend(fmt, words[w][r][lane], code) for w, lane, code in filled if code]
    return Tile(words, streams, sums)
