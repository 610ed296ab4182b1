"""Stimuli of single modules, recorded in Verilator and replayed in Icarus.

Verilator runs a module under the legal random stimuli of `rtl_models.stimuli` and records every
cycle. Icarus, which knows unknown bits and starts with nothing else, then gets the same inputs on
the same Verilog, on its netlist, or after a reset in mid-operation, and must put out the same.
"""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from golden.errors import ToolError
from rtl_models.dut import Dut, Ports, compile_library, layout, read_ports
from rtl_models.mutants import Subject
from rtl_models.runner import elaborate, find_tool, yosys
from rtl_models.sources import sources

_BENCH = """
module replay;
  reg [{in_bits}-1:0] stimulus [0:{cycles}-1];
  reg [{in_bits}-1:0] in;
  wire [{out_bits}-1:0] out;
  reg clk = 1'b0;
  integer file, cycle;
  {top} {parameters} dut ({pins});
{zeros}
  initial begin
    $readmemh("stimulus.hex", stimulus);
    file = $fopen("outputs.txt", "w");
    for (cycle = 0; cycle < {cycles}; cycle = cycle + 1) begin
      in = stimulus[cycle];
      #4 $fdisplay(file, "%h", out);
      #1 clk = 1'b1;
      #5 clk = 1'b0;
    end
    $fclose(file);
    $finish;
  end
endmodule
"""
_WORD_DIGITS = 8


@dataclass(frozen=True)
class Recording:
    """Inputs of a module, and what it put out.

    Parameters
    ----------
    subject : Subject
    ports : Ports
    inputs : tuple of bytes
        One row a cycle, ports as `rtl_models.dut.layout` says.
    outputs : tuple of str
        One row a cycle: 32-bit words in hexadecimal, the last port first.
    cares : tuple of tuple of (int, str)
        One row a cycle: words of the outputs that mean something, and which of their bits, in
        hexadecimal.
    """

    subject: Subject
    ports: Ports
    inputs: tuple[bytes, ...]
    outputs: tuple[str, ...]
    cares: tuple[tuple[tuple[int, str], ...], ...]

    @property
    def cycles(self) -> int:
        """How many are recorded."""
        return len(self.inputs)


@dataclass(frozen=True)
class Difference:
    """First output that is not as recorded; hexadecimal digits, x where bits are unknown."""

    cycle: int
    output: str
    expected: str
    found: str


def module_ports(module: str, parameters: Mapping[str, int], folder: Path) -> Ports:
    """Ports of a module with the given parameters; `folder` takes what Yosys writes.

    Raises
    ------
    ToolError
        Yosys is missing or does not understand the module.
    """
    folder.mkdir(parents=True, exist_ok=True)
    yosys(
        f"{elaborate(module, parameters)} rename -top subject; proc; write_json {folder}/ports.json"
    )
    design = json.loads((folder / "ports.json").read_text())
    return read_ports(design["modules"]["subject"])


def build_dut(subject: Subject, folder: Path) -> Dut:
    """Compile a module with Verilator, to be driven cycle by cycle.

    Parameters
    ----------
    subject : Subject
    folder : Path
        Build products.

    Raises
    ------
    ToolError
        Yosys, Verilator or g++ is missing or failed.
    """
    ports = module_ports(subject.module, subject.parameters, folder)
    library = compile_library(
        subject.module, sources(subject.module), ports, folder, parameters=subject.parameters
    )
    return Dut(ports, library, subject.gates)


def record(subject: Subject, folder: Path, *, cycles: int, seed: int = 1) -> Recording:
    """Run a module under its stimuli in Verilator.

    Parameters
    ----------
    subject : Subject
    folder : Path
        Build products.
    cycles : int
        At least so many are recorded.
    seed : int
        Of the stimuli.

    Raises
    ------
    ToolError
        Yosys, Verilator or g++ is missing or failed.
    """
    dut = build_dut(subject, folder)
    subject.stimuli(dut, random.Random(seed), cycles)
    return Recording(
        subject,
        dut.ports,
        inputs=tuple(row[0] for row in dut.rows),
        outputs=tuple(_hexadecimal(row[1]) for row in dut.rows),
        cares=tuple(_meaning(row[2]) for row in dut.rows),
    )


@cache
def _meaning(row: bytes) -> tuple[tuple[int, str], ...]:
    words = np.frombuffer(row, np.uint32)
    return tuple((int(i), f"{words[i]:0{_WORD_DIGITS}x}") for i in np.flatnonzero(words))


def replay(
    recording: Recording,
    folder: Path,
    *,
    files: Sequence[Path] | None = None,
    reset_at: int = 0,
) -> list[str]:
    """Give a module the recorded inputs in Icarus, from power-up.

    Parameters
    ----------
    recording : Recording
    folder : Path
        Inputs, outputs and the compiled bench.
    files : sequence of Path, optional
        A netlist, without parameters, and its cells, in the place of the module's Verilog.
    reset_at : int
        Begin with so many cycles of the recording and then start it anew. Recordings begin with a
        reset (of what has one).

    Returns
    -------
    list of str
        Outputs as in `Recording.outputs`, of the `reset_at` cycles too; x where bits are unknown.

    Raises
    ------
    ToolError
        Icarus is missing or does not compile or run the module.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = (*recording.inputs[:reset_at], *recording.inputs)
    (folder / "stimulus.hex").write_text("".join(_hexadecimal(row) + "\n" for row in rows))
    parameters = {} if files else recording.subject.parameters
    bench = folder / "replay.v"
    bench.write_text(_bench(recording, len(rows), parameters))
    verilog = sources(recording.subject.module) if files is None else files
    program = str(folder / "replay.vvp")
    compiler = [find_tool("iverilog"), "-g2012", "-s", "replay", "-o", program]
    for command in ([*compiler, str(bench), *map(str, verilog)], [find_tool("vvp"), "-n", program]):
        process = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if process.returncode:
            said = (process.stdout + process.stderr).strip().splitlines()
            raise ToolError(
                f"Icarus cannot replay {recording.subject.name}: {' | '.join(said[:5])}"
            )
    return (folder / "outputs.txt").read_text().split()


def first_difference(
    recording: Recording, outputs: Sequence[str], start: int = 0
) -> Difference | None:
    """Compare outputs with the recorded ones from a cycle on, where they mean something."""
    names = [
        name for name, (_, words) in layout(recording.ports.outputs).items() for _ in range(words)
    ]
    for cycle in range(start, recording.cycles):
        expected, found = recording.outputs[cycle], outputs[cycle]
        if expected == found:
            continue
        for word, mask in recording.cares[cycle]:
            last = len(expected) - _WORD_DIGITS * word
            place = slice(last - _WORD_DIGITS, last)
            digits = zip(expected[place], found[place], mask, strict=True)
            if any(_differ(*digit) for digit in digits):
                return Difference(cycle, names[word], expected[place], found[place])
    return None


def _differ(expected: str, found: str, mask: str) -> bool:
    """Whether digits differ in bits of the mask; of x all bits are unknown, of X some."""
    if found in "xXzZ":
        return mask == "f" or (mask != "0" and found == "x")
    return (int(expected, 16) ^ int(found, 16)) & int(mask, 16) != 0


def _hexadecimal(row: bytes) -> str:
    return row[::-1].hex()


def _bench(recording: Recording, cycles: int, parameters: Mapping[str, int]) -> str:
    ports = recording.ports
    inputs, outputs = layout(ports.inputs), layout(ports.outputs)
    pins = [".clk(clk)"] if ports.clocked else []
    zeros = []
    for name, (at, _) in inputs.items():
        pins.append(f".{name}(in[{32 * at}+:{ports.inputs[name]}])")
    for name, (at, words) in outputs.items():
        bits = ports.outputs[name]
        pins.append(f".{name}(out[{32 * at}+:{bits}])")
        if bits < 32 * words:
            unused = 32 * words - bits
            zeros.append(f"  assign out[{32 * at + bits}+:{unused}] = {unused}'d0;")
    settings = ", ".join(f".{name}({value})" for name, value in parameters.items())
    return _BENCH.format(
        top=recording.subject.module,
        parameters=f"#({settings})" if settings else "",
        pins=", ".join(pins),
        zeros="\n".join(zeros),
        in_bits=8 * len(recording.inputs[0]),
        out_bits=4 * len(recording.outputs[0]),
        cycles=cycles,
    )
