"""Put a user's Verilog in the place of one of ours, and hold it to the same rules.

A contract is the name, the parameters, the ports and the timing of one module; docs/contracts.md
has them. What the ports must be is read from our own module, so that there is one truth.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from golden.errors import InputError, ToolError
from rtl_models.parameters import engine_parameters, top_parameters
from rtl_models.runner import find_tool, run_yosys
from rtl_models.sources import VERILOG, modules_named_in, sources
from simulator.hardware import Hardware, changed_hardware
from simulator.stepped import array_config, reset_array
from simulator.stepped_kernels import accumulate, hand_over

IntArray = NDArray[np.int64]

CONTRACTS = {
    "pe": "napier_pe",
    "array": "napier_array",
    "requantizer": "requantizer",
    "layer_engine": "layer_engine",
    "top": "napier_top",
}
"""Module that each contract replaces."""

ENGINE = "layer_engine"
PE_BENCH = VERILOG / "tb" / "pe_bench.v"

ADV_W, SHIFT_W = 4, 4
"""Widths that the hardware file does not set (rules S1, S2)."""

EXHAUSTIVE_PAIRS = 1 << 18
"""Operand and code are tried in all pairs up to this many, otherwise as many at random."""

RANDOM_CYCLES = 20_000
"""Cycles of random steps and clears."""

TAIL_CYCLES = 4
"""Cycles without anything, in which the last result comes out."""

LISTED_STEPS = 6
"""Steps that are shown with a wrong result."""

_YOSYS_ERROR = re.compile(r"ERROR: .*")


@dataclass(frozen=True)
class Port:
    """Direction ("input", "output", "inout") and width in bits of a port."""

    direction: str
    bits: int


# -- the user's files ------------------------------------------------------------------------------


def replace_module(contract: str, files: Sequence[Path], hardware: Hardware) -> tuple[Path, ...]:
    """Check the user's files and give the sources of an engine with their module in it.

    Parameters
    ----------
    contract : str
        A key of `CONTRACTS`.
    files : sequence of Path
        The user's Verilog; what it does not define is taken from ours.
    hardware : Hardware
        Sets the parameters.

    Returns
    -------
    tuple of Path

    Raises
    ------
    InputError
        A file or the module is missing, or a parameter or port is not as the contract has it.
    ToolError
        Yosys is missing or cannot read the files.
    """
    for path in files:
        if not path.is_file():
            raise InputError(f"--rtl {path}: there is no such file; check the path")
    module = CONTRACTS[contract]
    defined = _read(files)
    names = ", ".join(str(path) for path in files)
    if module not in defined:
        raise InputError(
            f"the contract {contract} needs a module {module}, but {names} has"
            f" {', '.join(sorted(defined)) or 'no module'}; name yours {module}"
        )
    for clash in sorted(defined & _needed_by_others(module)):
        raise InputError(
            f"{names} has a module {clash}, which is one of Napier's that stays in the engine;"
            " rename yours"
        )
    parameters = contract_parameters(contract, hardware)
    used = {name for path in files for name in modules_named_in(path)} - defined
    inside = _with_ours(files, defined, *used)
    _check_parameters(module, parameters, inside)
    expected = _ports(module, parameters, sources(module))
    _check_ports(module, expected, _ports(module, parameters, inside))
    return _with_ours(files, defined, *used, module if contract == "top" else ENGINE)


def _with_ours(files: Sequence[Path], defined: set[str], *tops: str) -> tuple[Path, ...]:
    """Give the user's files and those of our modules from `tops` down that they do not define."""
    ours = (path for path in sources(*tops) if path.stem not in defined)
    return (*(path.resolve() for path in files), *ours)


def contract_parameters(contract: str, hardware: Hardware) -> dict[str, int]:
    """Parameters with which the engine of the hardware has the module of the contract."""
    engine = engine_parameters(hardware)
    if contract == "layer_engine":
        return engine
    if contract == "top":  # memories are as deep as a network needs; ports do not depend on them
        return top_parameters(hardware, feed_beats=64, stream_beats=64, parameter_words=64)
    if contract == "requantizer":
        return {
            "LANES": hardware.post.lanes,
            "ACC_W": hardware.post_bits,
            "POST_W": hardware.post_bits,
            "OUT_W": hardware.array.activation_bits,
        }
    names = ["PE_KIND", "TERMS", "WEIGHT_W", "ACC_BITS", "SATURATE", "EVENTS_W", "SPILL"]
    shared = {name: engine[name] for name in (*names, "WIDE_BITS")}
    shared |= {"X_W": hardware.operand_bits, "SHIFT_W": SHIFT_W}
    if contract == "pe":
        return shared
    shape = {name: engine[name] for name in ("ROWS", "COLS", "FEED", "DEPTH")}
    return {**shape, "ADV_W": ADV_W, **shared}


def _read(files: Sequence[Path]) -> set[str]:
    """Names of the modules in the files."""
    return set(_yosys(files, "")["modules"])


def _needed_by_others(module: str) -> set[str]:
    """Modules of ours that the engine needs also without `module`."""
    inside = {path.stem for path in sources(module)}
    outside = {path.stem for path in sources(ENGINE)} - inside
    named = {word for name in outside for word in modules_named_in(VERILOG / f"{name}.v")}
    shared = (named & inside) - {module}
    return outside | {path.stem for path in (sources(*shared) if shared else ())}


def _yosys(files: Sequence[Path], commands: str) -> dict[str, Any]:
    """Read files, run commands, and give the design as JSON."""
    quoted = " ".join(f'"{path}"' for path in files)
    code, said = run_yosys(f"read_verilog -sv {quoted}; {commands} proc; write_json")
    start = said.find("\n{\n")
    if code or start < 0:
        errors = _YOSYS_ERROR.findall(said)
        reason = errors[0] if errors else f"it stopped with code {code}"
        names = ", ".join(path.name for path in files if path.parent != VERILOG)
        where = re.search(r"^(\S+:\d+): ERROR", said, re.MULTILINE)
        place = f" at {where.group(1)}" if where else ""
        raise ToolError(f"Yosys cannot read {names or 'the Verilog'}{place}: {reason}")
    design, _ = json.JSONDecoder().raw_decode(said[start:].lstrip())
    return dict(design)


def _check_parameters(module: str, parameters: Mapping[str, int], files: Sequence[Path]) -> None:
    has = _yosys(files, "")["modules"][module].get("parameter_default_values", {})
    for name in parameters:
        if name not in has:
            raise InputError(
                f"{module} has no parameter {name}, which the engine sets; declare it (it has"
                f" {', '.join(has) or 'none'})"
            )


def _ports(module: str, parameters: Mapping[str, int], files: Sequence[Path]) -> dict[str, Port]:
    settings = " ".join(f"-set {name} {value}" for name, value in parameters.items())
    design = _yosys(files, f"chparam {settings} {module}; hierarchy -check -top {module};")
    (top,) = (each for each in design["modules"].values() if "top" in each["attributes"])
    return {name: Port(port["direction"], len(port["bits"])) for name, port in top["ports"].items()}


def _check_ports(module: str, expected: dict[str, Port], found: dict[str, Port]) -> None:
    for name, port in expected.items():
        if name not in found:
            raise InputError(
                f"{module} has no port {name}; add it: {port.direction}, {_bits(port.bits)}"
            )
        if found[name].direction != port.direction:
            raise InputError(
                f"port {name} of {module} is an {found[name].direction}; make it an"
                f" {port.direction}"
            )
        if found[name].bits != port.bits:
            raise InputError(
                f"port {name} of {module} has {_bits(found[name].bits)}, but the parameters of"
                f" this hardware make it {_bits(port.bits)}; compute the width from them"
            )
    for name, port in found.items():
        if name not in expected and port.direction != "output":
            raise InputError(
                f"{module} has an {port.direction} {name} that nothing drives; remove it"
            )


def _bits(count: int) -> str:
    return "1 bit" if count == 1 else f"{count} bits"


# -- accumulators that overflow --------------------------------------------------------------------


def narrow_variants(hardware: Hardware) -> tuple[Hardware, ...]:
    """Give the hardware accumulators that small layers overflow, and last its own.

    The narrow ones wrap and saturate and have the bits of an operand and 7 more; the narrowest
    counts overflow events in 2 bits, so that the counter stops at its maximum. The name tells the
    accumulator.
    """
    widths = {
        hardware.operand_bits: min(2, hardware.array.events_bits),
        hardware.operand_bits + 7: hardware.array.events_bits,
    }
    narrow = [
        _variant(hardware, bits, overflow, events_bits)
        for overflow in ("wrap", "saturate")
        for bits, events_bits in widths.items()
        if bits < hardware.array.acc_bits
    ]
    array = hardware.array
    return (*narrow, _variant(hardware, array.acc_bits, array.acc_overflow, array.events_bits))


def _variant(hardware: Hardware, bits: int, overflow: str, events_bits: int) -> Hardware:
    array = {"acc_bits": bits, "acc_overflow": overflow, "events_bits": events_bits}
    return changed_hardware(hardware, f"acc {bits} {overflow}", array=array)


# -- one PE against the stepped model --------------------------------------------------------------


@dataclass(frozen=True)
class PEDifference:
    """The first cycle in which a PE shows something else than the stepped model.

    Parameters
    ----------
    cycle : int
        From 0, the first after reset.
    signal, expected, found : str
        Unknown bits in binary, otherwise numbers.
    operands : str
        The steps that made the result, as weights or codes.
    waves : Path
    """

    cycle: int
    signal: str
    expected: str
    found: str
    operands: str
    waves: Path


@dataclass(frozen=True)
class PERun:
    """What a PE was given: cycles, results handed on, overflow events; the first difference."""

    cycles: int
    results: int
    overflow_events: int
    seconds: float
    difference: PEDifference | None


def run_pe(
    hardware: Hardware, files: Sequence[Path], folder: Path, *, exhaustive: bool, seed: int
) -> PERun:
    """Run a PE in Icarus and compare its outputs with the stepped model in every cycle.

    Parameters
    ----------
    hardware : Hardware
        Sets the parameters.
    files : sequence of Path
        Sources with a module `napier_pe`.
    folder : Path
        Build, files and waves.
    exhaustive : bool
        First hand on every product of operand and code (`EXHAUSTIVE_PAIRS`), one a cycle.
    seed : int
        Of the random steps and clears.

    Raises
    ------
    ToolError
        Icarus is missing, or cannot compile or run the PE.
    """
    stimulus = _stimulus(hardware, np.random.default_rng(seed), exhaustive)
    registers = reset_array(hardware)
    expected = _expected_outputs(array_config(hardware), registers, stimulus)
    folder.mkdir(parents=True, exist_ok=True)
    _write_stimulus(folder / "stimulus.hex", hardware, stimulus)
    begin = time.perf_counter()
    _simulate(hardware, files, folder, len(stimulus), again=False)
    seconds = time.perf_counter() - begin
    lines = (folder / "results.txt").read_text(encoding="ascii").splitlines()
    first = _first_difference(hardware, stimulus, expected, lines)
    if first is not None:
        _simulate(hardware, files, folder, first[0] + TAIL_CYCLES, again=True)
    difference = None
    if first is not None:
        cycle, signal, wanted, found = first
        operands = _operands(hardware, stimulus, cycle)
        waves = folder / "waves.fst"
        difference = PEDifference(cycle, signal, wanted, found, operands, waves)
    cleared = np.flatnonzero(stimulus[:-2, CLEAR]) + 2
    return PERun(
        cycles=len(stimulus),
        results=len(cleared),
        overflow_events=int(expected[cleared, 2].sum()),
        seconds=seconds,
        difference=difference,
    )


ISSUE, STEP, CLEAR, X, CODE = range(5)
"""Columns of a stimulus, one row a cycle."""

OUTPUTS = ("result", "result_overflow", "result_events")


def _stimulus(hardware: Hardware, rng: np.random.Generator, exhaustive: bool) -> IntArray:
    parts = [_all_pairs(hardware, rng)] if exhaustive else []
    parts.append(_random_steps(hardware, rng))
    parts.append(np.tile([0, 0, 1, 0, 0], (TAIL_CYCLES, 1)))
    return np.concatenate(parts)


def _all_pairs(hardware: Hardware, rng: np.random.Generator) -> IntArray:
    """Every operand with every code, or as many at random, each handed on alone."""
    codes, operands = _codes(hardware), 1 << hardware.operand_bits
    pairs = len(codes) * operands
    index = np.arange(pairs) if pairs <= EXHAUSTIVE_PAIRS else rng.integers(0, pairs, 1 << 16)
    x = index % operands - operands // 2
    return _rows(np.ones_like(x), np.ones_like(x), x, codes[index // operands])


def _random_steps(hardware: Hardware, rng: np.random.Generator) -> IntArray:
    """Blocks of 64 cycles of different moods; in some all operands and codes pull one way."""
    codes, half = _codes(hardware), 1 << (hardware.operand_bits - 1)
    blocks = RANDOM_CYCLES // 64
    shape = (blocks, 64)

    def per_block(*choices: float) -> NDArray[Any]:
        return np.repeat(rng.choice(choices, blocks), 64)

    count = blocks * 64
    issue = rng.random(count) < per_block(0.3, 0.9, 1.0)
    clear = rng.random(count) < per_block(0.01, 0.1, 0.5)
    x = rng.integers(-half, half, count)
    extreme = rng.random(count) < per_block(0.0, 0.3, 1.0)
    x = np.where(extreme, rng.choice([-half, half - 1], count), x)
    code = rng.choice(codes, count)
    steady = np.repeat(rng.random(blocks) < 0.5, 64)
    x = np.where(steady, np.repeat(x.reshape(shape)[:, 0], 64), x)
    code = np.where(steady, np.repeat(code.reshape(shape)[:, 0], 64), code)
    return _rows(issue, clear, x, code)


def _rows(issue: NDArray[Any], clear: NDArray[Any], x: IntArray, code: IntArray) -> IntArray:
    """One row a cycle; a step is an issued code other than 0 (rule A6)."""
    step = issue.astype(bool) & (code != 0)
    return np.stack([issue.astype(np.int64), step, clear, x, code], axis=1).astype(np.int64)


def _codes(hardware: Hardware) -> IntArray:
    """All codes of rule S2."""
    if hardware.pe.kind == "ternary":
        return np.array([0b00, 0b01, 0b11])
    return np.arange(1 << hardware.code_bits)


@numba.njit
def _expected_outputs(config: Any, registers: Any, stimulus: IntArray) -> IntArray:
    """Shadow registers at the beginning of every cycle, one row a cycle (rules P1 to P5)."""
    pe = registers.pe
    outputs = np.zeros((len(stimulus), 3), np.int64)
    for cycle in range(len(stimulus)):
        outputs[cycle, 0] = pe.result[0, 0]
        outputs[cycle, 1] = pe.result_overflow[0, 0]
        outputs[cycle, 2] = pe.result_events[0, 0]
        if pe.clear[0, 0]:
            hand_over(config, pe, registers.seen, registers.result_seen, 0, 0)
        if pe.step[0, 0]:
            accumulate(config, pe, registers.seen, 0, 0)
        pe.clear[0, 0] = stimulus[cycle, 2]
        pe.step[0, 0] = stimulus[cycle, 1]
        if stimulus[cycle, 0]:
            pe.x[0, 0] = stimulus[cycle, 3]
            pe.code[0, 0] = stimulus[cycle, 4]
    return outputs


def _write_stimulus(path: Path, hardware: Hardware, stimulus: IntArray) -> None:
    x_bits, code_bits = hardware.operand_bits, hardware.code_bits
    words = stimulus[:, CODE] | (stimulus[:, X] & ((1 << x_bits) - 1)) << code_bits
    flags = stimulus[:, ISSUE] << 2 | stimulus[:, STEP] << 1 | stimulus[:, CLEAR]
    words |= flags << (x_bits + code_bits)
    path.write_text("".join(f"{word:x}\n" for word in words.tolist()), encoding="ascii")


def _simulate(
    hardware: Hardware, files: Sequence[Path], folder: Path, cycles: int, *, again: bool
) -> None:
    """Compile and run all cycles, or run the first cycles again with waves."""
    if not again:
        parameters = contract_parameters("pe", hardware) | {"CYCLES": cycles}
        overrides = [f"-Ppe_bench.{name}={value}" for name, value in parameters.items()]
        command = [find_tool("iverilog"), "-g2012", "-s", "pe_bench", "-o", "pe_bench.vvp"]
        _run([*command, *overrides, str(PE_BENCH), *map(str, files)], folder, "compile")
    waves = ["-fst", f"+cycles={cycles}", "+waves"] if again else []
    _run([find_tool("vvp"), "-n", "pe_bench.vvp", *waves], folder, "run")


def _run(command: list[str], folder: Path, what: str) -> None:
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if process.returncode:
        said = (process.stdout + process.stderr).strip().splitlines()
        raise ToolError(f"Icarus cannot {what} the PE: {' | '.join(said[:5]) or 'no message'}")


def _first_difference(
    hardware: Hardware, stimulus: IntArray, expected: IntArray, lines: Sequence[str]
) -> tuple[int, str, str, str] | None:
    """Cycle, signal, expected and found value."""
    bits = (hardware.result_bits, 1, hardware.array.events_bits)
    masks = [(1 << width) - 1 for width in bits]
    for cycle, (row, line) in enumerate(zip(expected.tolist(), lines, strict=False)):
        texts = line.split()
        for name, value, text, mask, width in zip(OUTPUTS, row, texts, masks, bits, strict=True):
            if not set(text) <= {"0", "1"}:
                return cycle, name, str(value), text
            found = int(text, 2)
            if found != value & mask:
                signed = name == "result" and found >> (width - 1)
                return cycle, name, str(value), str(found - (mask + 1) if signed else found)
    if len(lines) < len(stimulus):
        return len(lines), "simulation", f"{len(stimulus)} cycles", f"an end after {len(lines)}"
    return None


def _operands(hardware: Hardware, stimulus: IntArray, cycle: int) -> str:
    """Tell the steps between the two clears before the result of `cycle` (rules P2, P4)."""
    clears = np.flatnonzero(stimulus[: max(0, cycle - 1), CLEAR])
    if not len(clears):
        return "nothing was handed on yet"
    begin = int(clears[-2]) if len(clears) > 1 else 0
    rows = [row for row in stimulus[begin : clears[-1]].tolist() if row[STEP]]
    digits = (hardware.code_bits + 3) // 4
    shown = ", ".join(f"x={row[X]} code=0x{row[CODE]:0{digits}x}" for row in rows[-LISTED_STEPS:])
    what = "1 step" if len(rows) == 1 else f"{len(rows)} steps"
    more = f", the last {LISTED_STEPS}" if len(rows) > LISTED_STEPS else ""
    return f"after {what} since the clear before{more}: {shown}" if rows else "after no step"
