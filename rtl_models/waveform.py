"""Timing diagrams from the waves of a simulation: signals of a VCD file, cycle by cycle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from vcd.reader import ScopeDecl, TokenKind, VarDecl, tokenize

LINE = "#1f4e79"
FILL = "#dce6f2"
UNKNOWN = "#f2d7d5"
GROUP = "#666666"
LOW, HIGH = 0.15, 0.75
SLANT = 0.12
"""Width of the crossing of a bus, in cycles."""


@dataclass(frozen=True)
class Waves:
    """Values of signals in every clock cycle: what stands just before the edge that ends it.

    Parameters
    ----------
    cycles : int
    values : dict of str to list
        By hierarchical name; an integer for each cycle, None where a bit is unknown.
    widths : dict of str to int
    """

    cycles: int
    values: dict[str, list[int | None]]
    widths: dict[str, int]


@dataclass(frozen=True)
class Row:
    """One line of a diagram.

    Parameters
    ----------
    label : str
        What the reader sees; a row without a signal is a heading.
    signal : str
        Hierarchical name; empty for a heading.
    names : mapping of int to str
        Words for the values of a bus, such as the states of a machine.
    hexadecimal : bool
        Print values of a bus in base 16.
    """

    label: str
    signal: str = ""
    names: Mapping[int, str] | None = None
    hexadecimal: bool = False


def read_vcd(path: Path, clock: str, signals: Sequence[str]) -> Waves:
    """Sample signals of a VCD file at every rising edge of a clock.

    Parameters
    ----------
    path : Path
    clock : str
        Hierarchical name of the clock, parts joined by dots.
    signals : sequence of str

    Raises
    ------
    KeyError
        A name that the file does not hold.
    """
    wanted = {clock, *signals}
    names: dict[str, list[str]] = {}  # by the code of the file; one code may have several names
    widths: dict[str, int] = {}
    scope: list[str] = []
    now: dict[str, int | None] = {}
    sampled: dict[str, list[int | None]] = {name: [] for name in signals}
    high = False
    pending: dict[str, int | None] = {}

    def settle() -> None:
        """Take over the changes of one moment; a rising clock samples what stood before it."""
        nonlocal high
        rising = pending.get(clock, int(high)) == 1 and not high
        if rising:
            for name in signals:
                sampled[name].append(now.get(name))
        high = pending.get(clock, int(high)) == 1
        now.update(pending)
        pending.clear()

    with path.open("rb") as file:
        for token in tokenize(file):
            if token.kind is TokenKind.SCOPE and isinstance(token.data, ScopeDecl):
                scope.append(token.data.ident)
            elif token.kind is TokenKind.UPSCOPE:
                scope.pop()
            elif token.kind is TokenKind.VAR and isinstance(token.data, VarDecl):
                name = ".".join([*scope, token.data.reference])
                if name in wanted:
                    names.setdefault(token.data.id_code, []).append(name)
                    widths[name] = token.data.size
            elif token.kind is TokenKind.ENDDEFINITIONS:
                missing = wanted - widths.keys()
                if missing:
                    raise KeyError(f"{path.name} holds no signal {sorted(missing)[0]}")
            elif token.kind is TokenKind.CHANGE_TIME:
                settle()
            elif token.kind in (TokenKind.CHANGE_SCALAR, TokenKind.CHANGE_VECTOR):
                change = token.data
                for name in names.get(change.id_code, ()):  # type: ignore[union-attr]
                    pending[name] = _number(change.value)  # type: ignore[union-attr]
    settle()
    return Waves(max(map(len, sampled.values()), default=0), sampled, widths)


def draw(waves: Waves, rows: Sequence[Row], first: int, last: int, origin: int = 0) -> Figure:
    """Draw signals over the cycles `first` .. `last`.

    Parameters
    ----------
    waves : Waves
    rows : sequence of Row
        From the top.
    first, last : int
        Cycles of `waves`, both included.
    origin : int
        Cycle of `waves` that the axis calls 0.
    """
    cycles = last - first + 1
    width = min(14.0, 2.2 + 0.36 * cycles)
    figure = Figure(figsize=(width, 0.45 + 0.27 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for index, row in enumerate(rows):
        base = len(rows) - 1 - index
        if not row.signal:
            axes.text(
                first - 0.3, base + 0.3, row.label, ha="right", size=8, color=GROUP, weight="bold"
            )
            continue
        axes.text(first - 0.3, base + 0.25, row.label, ha="right", size=8, family="monospace")
        values = waves.values[row.signal][first : last + 1]
        if waves.widths[row.signal] == 1:
            _draw_bit(axes, values, first, base)
        else:
            _draw_bus(axes, values, first, base, row)
    step = max(1, round(cycles / 16))
    ticks = [c for c in range(first, last + 1) if (c - origin) % step == 0]
    axes.set_xticks([c + 0.5 for c in ticks], [str(c - origin) for c in ticks], size=7)
    axes.set_yticks([])
    axes.set_xlim(first, last + 1)
    axes.set_ylim(-0.1, len(rows))
    axes.set_xlabel("clock cycle", size=8)
    axes.grid(axis="x", color="#eeeeee", linewidth=0.6)
    axes.set_xticks(range(first, last + 2), minor=True)
    axes.grid(axis="x", which="minor", color="#eeeeee", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, which="both")
    for side in axes.spines.values():
        side.set_visible(False)
    return figure


def _number(value: int | float | str) -> int | None:
    """Read a change: a scalar is a character, a vector a number or, with unknown bits, a text."""
    if isinstance(value, int):
        return value
    return int(value) if value in ("0", "1") else None


def _draw_bit(axes: Axes, values: Sequence[int | None], first: int, base: float) -> None:
    xs: list[float] = []
    ys: list[float] = []
    for i, value in enumerate(values):
        level = 0.45 if value is None else HIGH if value else LOW
        xs += [first + i, first + i + 1]
        ys += [base + level, base + level]
        if value is None:
            axes.fill_between([first + i, first + i + 1], base + LOW, base + HIGH, color=UNKNOWN)
    axes.plot(xs, ys, color=LINE, linewidth=1.0, solid_joinstyle="miter")


def _draw_bus(axes: Axes, values: Sequence[int | None], first: int, base: float, row: Row) -> None:
    for begin, end, value in _stretches(values):
        left, right = first + begin, first + end
        xs = [left, left + SLANT, right - SLANT, right, right - SLANT, left + SLANT]
        middle = base + (LOW + HIGH) / 2
        ys = [middle, base + HIGH, base + HIGH, middle, base + LOW, base + LOW]
        axes.fill(
            xs, ys, facecolor=UNKNOWN if value is None else FILL, edgecolor=LINE, linewidth=0.8
        )
        text = _text(value, row)
        if len(text) * 0.21 <= right - left:
            axes.text((left + right) / 2, middle, text, ha="center", va="center_baseline", size=7)


def _stretches(values: Sequence[int | None]) -> list[tuple[int, int, int | None]]:
    """List runs of equal values as (begin, one past the end, value)."""
    stretches: list[tuple[int, int, int | None]] = []
    for i, value in enumerate(values):
        if stretches and stretches[-1][2] == value:
            stretches[-1] = (stretches[-1][0], i + 1, value)
        else:
            stretches.append((i, i + 1, value))
    return stretches


def _text(value: int | None, row: Row) -> str:
    if value is None:
        return "x"
    if row.names is not None:
        return row.names.get(value, str(value))
    return f"{value:x}" if row.hexadecimal else str(value)
