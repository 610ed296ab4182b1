"""Run `layer_engine` in Icarus or Verilator between memory files, without per-cycle Python."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from golden.errors import ToolError
from rtl_models.builds import Simulator, build, start_command
from rtl_models.parameters import (
    address_bits,
    configuration_words,
    engine_parameters,
    run_configuration,
)
from rtl_models.sources import VERILOG
from rtl_models.sources import sources as module_sources
from simulator.memory_image import activation_banks, pack_lanes, parameter_words
from simulator.program import LayerProgram, feed_words, stream_words

TOP = "engine_harness"
HARNESS = VERILOG / "tb" / f"{TOP}.v"
"""Memories around the engine; simulation only."""

LEAST_MEMORY_WORDS = 1024
"""Memories of the harness are a power of two and at least this long, so that builds are reused."""

COUNTERS = (
    "cycles",
    "compute",
    "fill",
    "stall_feed",
    "drain",
    "overflow_events",
    "overflow_outputs",
)
"""Counters of the engine as the harness prints them, one line a run."""


@dataclass(frozen=True)
class EngineRuns:
    """What the engine did.

    Parameters
    ----------
    codes : (R, words, F) int64 array
        Output memories as unsigned bit patterns; -1 where a bit is unknown.
    written : (R, words, F) bool array
        Where the engine wrote.
    counters : tuple of dict
        One a run that ended within `limit_cycles`, keys of `COUNTERS`.
    bases : tuple of (int, int)
        Of each run: first address in the feed memory and in the stream memories.
    parameters : dict of str to int
        Verilog parameters of the harness.
    seconds : float
        Wall time of the simulation.
    folder : Path
        Memory files, trace and waves.
    """

    codes: NDArray[np.int64]
    written: NDArray[np.bool_]
    counters: tuple[dict[str, int], ...]
    bases: tuple[tuple[int, int], ...]
    parameters: dict[str, int]
    seconds: float
    folder: Path

    @property
    def total(self) -> dict[str, int]:
        """Counters summed over the runs."""
        return {name: sum(run[name] for run in self.counters) for name in COUNTERS}


@dataclass(frozen=True)
class _Images:
    """What the memories hold: parameters of the harness, text of its files, bases of the runs."""

    parameters: dict[str, int]
    files: dict[str, str]
    bases: tuple[tuple[int, int], ...]


def run_engine(
    runs: Sequence[LayerProgram],
    image: ArrayLike,
    *,
    input_signed: bool,
    folder: Path,
    builds: Path,
    simulator: Simulator = "icarus",
    sources: Sequence[Path] | None = None,
    overrides: Mapping[str, int] | None = None,
    changes: Sequence[Mapping[str, int]] | None = None,
    second: ArrayLike | None = None,
    places: tuple[int, int] = (0, 0),
    trace: bool = False,
    waves: bool = False,
    reset_at: int = 0,
    limit_cycles: int = 10_000_000,
) -> EngineRuns:
    """Run parts of one layer one after the other on one image.

    Parameters
    ----------
    runs : sequence of LayerProgram
        Parts of one layer in the order in which they run; they share the activation, parameter and
        output memories, which hold the whole layer.
    image : integer array
        Input codes of one image.
    input_signed : bool
        Whether the codes are two's complement.
    folder : Path
        Memory files, trace and waves; give every run its own.
    builds : Path
        Compiled simulations, reused where parameters and sources are the same.
    simulator : "icarus" or "verilator"
        Icarus compiles in a fraction of a second and knows unknown bits; Verilator takes half a
        minute and then is hundreds of times as fast.
    sources : sequence of Path, optional
        Verilog files of the engine instead of the package's.
    overrides : mapping, optional
        Verilog parameters to change.
    changes : sequence of mapping, optional
        Configuration ports to change, one mapping a run: what a run of the vector unit needs. The
        geometry of such a run has F columns, and its streams are empty.
    second : integer array, optional
        Codes of a second operand, of the shape of `image`; it stands behind it in the banks.
    places : (int, int)
        Words in a beat of the feed memory and of the stream memories (section 2 of
        docs/programming.md); 0 counts words.
    trace : bool
        Write `trace.txt`.
    waves : bool
        Write `waves.fst`.
    reset_at : int
        Reset in this cycle of the first run, then start again; 0 for no reset.
    limit_cycles : int
        A run that takes longer is the last.

    Raises
    ------
    ToolError
        The simulator is missing, or the Verilog does not compile or run.
    """
    operands = [image] if second is None else [image, second]
    images = _images(runs, operands, input_signed, changes, places)
    parameters = images.parameters | dict(overrides or {})
    files = [HARNESS, *(module_sources("layer_engine") if sources is None else sources)]
    product = build(TOP, files, parameters, builds, simulator, ["TRACE"] if trace else [])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in images.files.items():
        (folder / name).write_text(text, encoding="ascii")
    for stale in folder.glob("output_*.hex"):
        stale.unlink()
    arguments = [f"+runs={len(runs)}", f"+limit={limit_cycles}", f"+reset_at={reset_at}"]
    if waves:
        arguments.append("+waves")
    begin = time.perf_counter()
    process = subprocess.run(
        [*_start(product, simulator, waves), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - begin
    counters = _read_counters(folder / "counters.txt")
    if process.returncode or not (folder / "output_0.hex").is_file():
        said = (process.stdout + process.stderr).strip().splitlines()
        reason = " | ".join(said[-3:]) or "no message"
        raise ToolError(f"{simulator.capitalize()} cannot run the engine in {folder}: {reason}")
    array = runs[0].hardware.array
    codes, written = _read_outputs(folder, array.rows, array.feed, array.activation_bits)
    return EngineRuns(codes, written, counters, images.bases, parameters, seconds, folder)


def _images(
    runs: Sequence[LayerProgram],
    operands: Sequence[ArrayLike],
    input_signed: bool,
    changes: Sequence[Mapping[str, int]] | None,
    places: tuple[int, int],
) -> _Images:
    whole = runs[0]
    hardware, geometry = whole.hardware, whole.geometry
    feed_places, stream_places = places
    parameters = engine_parameters(hardware)
    parameters |= {"FEED_PLACES": feed_places, "STREAM_PLACES": stream_places}
    feed, streams, positions = _laid_side_by_side(runs)
    bases = tuple(
        (_address(feed_words_before, feed_places), _address(entries_before, stream_places))
        for feed_words_before, entries_before in positions
    )
    configuration: list[int] = []
    for program, (feed_base, stream_base), change in zip(
        runs, bases, changes or [{}] * len(runs), strict=True
    ):
        values = run_configuration(
            program, input_signed=input_signed, feed_base=feed_base, stream_base=stream_base
        )
        configuration += configuration_words(values | dict(change), parameters)
    channels = parameter_words(whole)
    banks = np.concatenate(
        [activation_banks(codes, geometry, whole.input_zero_point) for codes in operands], axis=1
    )
    sizes = {
        "FEED": _address(len(feed), feed_places),
        "STREAM": _address(len(streams[0]), stream_places),
        "PARAM": len(channels),
        "OUT": geometry.out_bank_words,
        "ACT": banks.shape[1],
    }
    for name, words in sizes.items():
        bits = address_bits(words)
        parameters[f"{name}_ADDR_W"] = max(parameters[f"{name}_ADDR_W"], bits)
        parameters[f"{name}_WORDS"] = max(LEAST_MEMORY_WORDS, 1 << bits)
    files = {
        "configuration.hex": _lines(configuration),
        "feed.hex": _memory(feed, feed_places),
        "parameters.hex": _memory(channels),
    }
    for bank, codes in enumerate(banks):
        packed = pack_lanes(codes, hardware.array.activation_bits)
        files[f"activation_{bank}.hex"] = _memory(packed)
    for column, entries in enumerate(streams):
        files[f"stream_{column}.hex"] = _memory(entries, stream_places)
    return _Images(parameters, files, bases)


def _laid_side_by_side(
    runs: Sequence[LayerProgram],
) -> tuple[list[int], list[list[int]], list[tuple[int, int]]]:
    """Feed words and streams of all runs, and how many stand before each run's.

    The accelerator loads one pass after the other; here their words lie side by side, once where
    several runs have the same.
    """
    cols = range(runs[0].hardware.array.cols)
    feed: list[int] = []
    streams: list[list[int]] = [[] for _ in cols]
    held: dict[bytes, tuple[int, int]] = {}
    positions: list[tuple[int, int]] = []
    for program in runs:
        words = feed_words(program)
        columns = [stream_words(program, column) for column in cols]
        key = b"".join(part.tobytes() for part in (words, *columns))
        if key not in held:
            held[key] = (len(feed), len(streams[0]))
            feed += words.tolist()
            longest = max(column.size for column in columns)
            for stream, column in zip(streams, columns, strict=True):
                stream += column.tolist() + [0] * (longest - column.size)
        positions.append(held[key])
    return feed, streams, positions


def _address(index: int, places: int) -> int:
    """{beat, place} of a word in a memory of `places` words a beat; its index where that is 0."""
    if places == 0:
        return index
    beat, place = divmod(index, places)
    return beat << (places - 1).bit_length() | place


def _lines(words: Sequence[int]) -> str:
    return "".join(f"{word:x}\n" for word in words)


def _memory(words: Sequence[int], places: int = 0) -> str:
    """Text for $readmemh: where `places` is not 0, every beat has an address."""
    if places == 0:
        return "@0\n" + _lines(words)
    return "".join(
        f"@{_address(first, places):x}\n" + _lines(words[first : first + places])
        for first in range(0, len(words), places)
    )


def _start(product: Path, simulator: Simulator, waves: bool) -> list[str]:
    """Return the command that runs a compiled harness."""
    return start_command(TOP, product, simulator, waves)


def _read_counters(path: Path) -> tuple[dict[str, int], ...]:
    if not path.is_file():
        return ()
    lines = path.read_text(encoding="ascii").splitlines()
    return tuple(
        dict(zip(COUNTERS, map(int, line.split()), strict=True))
        for line in lines
        if "x" not in line
    )


def _read_outputs(
    folder: Path, rows: int, feed: int, bits: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    codes, written = [], []
    for bank in range(rows):
        codes.append([_lanes(word, bits // 4, feed) for word in _words(folder, "output", bank)])
        marks = [int(word, 16) for word in _words(folder, "written", bank)]
        written.append([[mark >> lane & 1 for lane in range(feed)] for mark in marks])
    return np.array(codes, dtype=np.int64), np.array(written, dtype=np.bool_)


def _words(folder: Path, name: str, bank: int) -> list[str]:
    """Words of a memory file that a simulator wrote, comments and addresses dropped."""
    lines = (folder / f"{name}_{bank}.hex").read_text(encoding="ascii").lower().splitlines()
    return [line for line in lines if line and not line.startswith(("/", "@"))]


def _lanes(word: str, digits: int, feed: int) -> list[int]:
    """Codes of a word, whose highest lane comes first in the text; -1 where a bit is unknown."""
    lanes = [word[digits * i : digits * (i + 1)] for i in range(feed - 1, -1, -1)]
    return [-1 if "x" in lane else int(lane, 16) for lane in lanes]
