"""Compare the trace of `layer_engine` with the stepped model, cycle by cycle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rtl_models.engine import EngineRuns
from simulator.program import LayerProgram
from simulator.stepped import Engine
from simulator.stepped_kernels import COUNTERS

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class TraceDifference:
    """The first place where Verilog and model part.

    Parameters
    ----------
    run, cycle : int
        Engine run from 0; cycle of the run from 1 (rule E1).
    signal : str
        Field of `FIELDS`, with the index of the element where it has several.
    expected, found : str
        What the stepped model has, what the Verilog has (unknown bits as x), both in hexadecimal.
    """

    run: int
    cycle: int
    signal: str
    expected: str
    found: str


@dataclass(frozen=True)
class Field:
    """One column of `trace.txt`.

    Parameters
    ----------
    name : str
        As docs/microarchitecture.md has it.
    width : function of the harness's parameters
        Bits of one element.
    read : function of the engine
        The model's elements, in any shape, row-major.
    signal : bool
        A signal during the cycle; otherwise a register at its beginning.
    valid : function of the engine, optional
        Elements that mean something, in the shape of `read` or one for all.
    """

    name: str
    width: Callable[[dict[str, int]], int]
    read: Callable[[Engine], ArrayLike]
    signal: bool = False
    valid: Callable[[Engine], ArrayLike] | None = None


def _bits(count: int) -> Callable[[dict[str, int]], int]:
    return lambda parameters: count


def _parameter(name: str) -> Callable[[dict[str, int]], int]:
    return lambda parameters: parameters[name]


def _code_bits(parameters: dict[str, int]) -> int:
    kinds = (parameters["WEIGHT_W"], 6 * parameters["TERMS"], 2)
    return kinds[parameters["PE_KIND"]]


def _clog2(count: int) -> int:
    return (count - 1).bit_length()


def _result_bits(parameters: dict[str, int]) -> int:
    return parameters["WIDE_BITS"] if parameters["SPILL"] else parameters["ACC_BITS"]


def _wide_bits(parameters: dict[str, int]) -> int:
    return parameters["WIDE_BITS"] if parameters["SPILL"] else 1


def _count_bits(parameters: dict[str, int]) -> int:
    return _clog2(parameters["SPILL"] + 1) if parameters["SPILL"] else 1


def _results_bits(parameters: dict[str, int]) -> int:
    columns = max(parameters["COLS"], parameters["FEED"])
    return _clog2(columns * (parameters["ROWS"] // parameters["LANES"]) + 1)


def _rot_bits(parameters: dict[str, int]) -> int:
    return max(1, _clog2(parameters["ROWS"]))


def _operand_bits(parameters: dict[str, int]) -> int:
    return parameters["CODE_W"] + 1 + (0, 2, 7, 7)[parameters["WINOGRAD"]]


def _pe_field(name: str, width: Callable[[dict[str, int]], int], register: str = "") -> Field:
    return Field(name, width, lambda e: getattr(e.registers.array.pe, register or name))


def _counter_field(name: str, counter: str) -> Field:
    index = COUNTERS.index(counter)
    return Field(name, _bits(32), lambda e: e.registers.counters[index])


FIELDS = (
    Field("feed_valid", _bits(1), lambda e: e.registers.inputs.feed_valid, signal=True),
    Field("feed_ready", _bits(1), lambda e: e.registers.outputs.feed_ready, signal=True),
    Field("entry_valid", _bits(1), lambda e: e.registers.inputs.entry_valid, signal=True),
    Field("entry_ready", _bits(1), lambda e: e.registers.outputs.entry_ready, signal=True),
    Field("issue", _bits(1), lambda e: e.registers.outputs.issue, signal=True),
    Field("release", _bits(1), lambda e: e.registers.outputs.release, signal=True),
    Field("fire", _bits(1), lambda e: e.registers.outputs.fire, signal=True),
    Field("f1_valid", _bits(1), lambda e: e.registers.feeder.f1_valid),
    Field(
        "f1_word",
        _parameter("FEED_ADDR_W"),
        lambda e: e.registers.feeder.f1_word,
        valid=lambda e: e.registers.feeder.f1_valid,
    ),
    Field("f2_valid", _bits(1), lambda e: e.registers.feeder.f2_valid),
    Field(
        "f2_rot",
        _rot_bits,
        lambda e: e.registers.feeder.f2_rot,
        valid=lambda e: e.registers.feeder.f2_valid,
    ),
    Field(
        "f2_mask",
        _bits(1),
        lambda e: e.registers.feeder.f2_mask,
        valid=lambda e: e.registers.feeder.f2_valid,
    ),
    Field(
        "entry",
        _parameter("STREAM_ADDR_W"),
        lambda e: e.registers.streams.entry - e.memories.entry_start[:, 0],
        valid=lambda e: e.registers.streams.entry_valid,
    ),
    Field("n", lambda p: _clog2(p["DEPTH"] + 1), lambda e: e.registers.array.n),
    Field("word", _operand_bits, lambda e: e.registers.array.word),
    Field("offset", lambda p: _clog2(p["DEPTH"] + 15), lambda e: e.registers.array.offset),
    Field("done", _bits(1), lambda e: e.registers.array.done),
    Field("handoff", _bits(1), lambda e: e.registers.array.handoff),
    _pe_field("x", _operand_bits),
    _pe_field("code", _code_bits),
    _pe_field("step", _bits(1)),
    _pe_field("clear", _bits(1)),
    _pe_field("acc", _parameter("ACC_BITS")),
    _pe_field("overflow", _bits(1)),
    _pe_field("events", _parameter("EVENTS_W")),
    _pe_field("wide", _wide_bits),
    _pe_field("count", _count_bits, "spill_count"),
    _pe_field("result", _result_bits),
    _pe_field("result_overflow", _bits(1)),
    _pe_field("result_events", _parameter("EVENTS_W")),
    Field("handoff_counter", _results_bits, lambda e: e.registers.drain.counter),
    Field("reading", _bits(1), lambda e: e.registers.drain.reading),
    Field(
        "read_index",
        _results_bits,
        lambda e: e.registers.drain.read_index,
        valid=lambda e: e.registers.drain.reading,
    ),
    Field("post_valid", _bits(1), lambda e: e.registers.drain.post_valid),
    Field(
        "post_result",
        _parameter("POST_W"),
        lambda e: e.registers.drain.post_value[0],
        valid=lambda e: e.registers.drain.post_valid[0],
    ),
    Field(
        "post_code",
        _parameter("CODE_W"),
        lambda e: e.registers.drain.post_value[3],
        valid=lambda e: e.registers.drain.post_valid[3],
    ),
    _counter_field("fill_cycles", "fill"),
    _counter_field("compute_cycles", "compute"),
    _counter_field("drain_cycles", "drain"),
    _counter_field("stall_feed_cycles", "stall_feed"),
    _counter_field("overflow_events", "overflow_events"),
    _counter_field("overflow_outputs", "overflow_outputs"),
    Field("done_pulse", _bits(1), lambda e: e.registers.done, signal=True),
)
"""Columns of `trace.txt` after run and cycle, in the order of the harness."""


@dataclass(frozen=True)
class _Expected:
    """Elements of one field in one cycle, which of them mean something, and their shape."""

    values: IntArray
    valid: NDArray[np.bool_]
    shape: tuple[int, ...]

    def packed(self, width: int) -> tuple[int, int]:
        """Value and mask of the whole vector; bits outside the mask are not compared."""
        mask = (1 << width) - 1
        value = compared = 0
        for i, (element, valid) in enumerate(
            zip(self.values.tolist(), self.valid.tolist(), strict=True)
        ):
            if valid:
                value |= (element & mask) << (width * i)
                compared |= mask << (width * i)
        return value, compared

    def index(self, element: int) -> str:
        """Place of an element in brackets; nothing where there is but one."""
        if self.values.size == 1:
            return ""
        return "".join(f"[{i}]" for i in np.unravel_index(element, self.shape))


def first_difference(
    engine: Engine, runs: Sequence[LayerProgram], verilog: EngineRuns
) -> TraceDifference | None:
    """Step the model along the trace of the Verilog up to the first difference.

    Parameters
    ----------
    engine : Engine
        As after reset, with the image that the Verilog ran on.
    runs : sequence of LayerProgram
        The runs of the Verilog.
    verilog : EngineRuns
        Of a run with a trace.

    Returns
    -------
    TraceDifference or None
        None where every field agrees in every cycle.
    """
    lines = _lines(verilog.folder / "trace.txt")
    widths = [field.width(verilog.parameters) for field in FIELDS]
    for number, program in enumerate(runs):
        engine.start(program)
        bases = dict(zip(("f1_word", "entry"), verilog.bases[number], strict=True))
        busy = True
        while busy:
            busy = engine.busy
            expected = {f.name: _read(f, engine, bases) for f in FIELDS if not f.signal}
            if busy:
                engine.step()
                expected |= {f.name: _read(f, engine, bases) for f in FIELDS if f.signal}
            line = next(lines, None)
            if line is None:
                cycle = int(engine.registers.cycle[0])
                return TraceDifference(number, cycle, "trace", "a line", "its end")
            difference = _compare(line, expected, widths)
            if difference is not None:
                return difference
    return None


def _lines(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="ascii") as file:
        for line in file:
            yield line.split()


def _read(field: Field, engine: Engine, bases: dict[str, int]) -> _Expected:
    elements = np.array(field.read(engine), dtype=np.int64)
    values = elements.reshape(-1) + bases.get(field.name, 0)
    valid = np.ones(values.size, dtype=np.bool_)
    if field.valid is not None:
        valid &= np.asarray(field.valid(engine)).astype(np.bool_).reshape(-1)
    return _Expected(values, valid, elements.shape)


def _compare(
    line: list[str], expected: dict[str, _Expected], widths: list[int]
) -> TraceDifference | None:
    for field, width, text in sorted(
        zip(FIELDS, widths, line[2:], strict=True), key=lambda column: column[0].signal
    ):
        if field.name not in expected:
            continue
        value, compared = expected[field.name].packed(width)
        found, unknown = _known(text)
        wrong = ((found ^ value) | unknown) & compared
        if wrong:
            element = ((wrong & -wrong).bit_length() - 1) // width
            shift, mask = width * element, (1 << width) - 1
            return TraceDifference(
                run=int(line[0]),
                cycle=int(line[1]),
                signal=field.name + expected[field.name].index(element),
                expected=f"0x{(value >> shift) & mask:x}",
                found="x" if (unknown >> shift) & mask else f"0x{(found >> shift) & mask:x}",
            )
    return None


def _known(text: str) -> tuple[int, int]:
    """Value and mask of unknown bits of a hexadecimal word with x and z digits."""
    try:
        return int(text, 16), 0
    except ValueError:
        digits = [("0", "f") if digit in "xXzZ" else (digit, "0") for digit in text]
        value, unknown = ("".join(part) for part in zip(*digits, strict=True))
        return int(value, 16), int(unknown, 16)
