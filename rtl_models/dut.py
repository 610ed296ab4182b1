"""A Verilog module in Verilator, driven cycle by cycle from Python, everything recorded."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtl_models.runner import find_tool, run_tool, verilator_include

Words = NDArray[np.uint32]

PRESET = "preset"
PRESET_VALUE = f"{PRESET}_value"
"""Inputs of a netlist with mutants: registers load this value."""


@dataclass(frozen=True)
class Ports:
    """Widths of the ports but clock and select, in bits."""

    inputs: dict[str, int]
    outputs: dict[str, int]
    clocked: bool


def read_ports(module: Mapping[str, Any]) -> Ports:
    """Ports of a module as Yosys writes it in JSON."""
    widths: dict[str, dict[str, int]] = {"input": {}, "output": {}}
    for name, port in module["ports"].items():
        if name != "clk":
            widths[port["direction"]][name] = len(port["bits"])
    return Ports(widths["input"], widths["output"], "clk" in module["ports"])


_DRIVER = """
#include <cstdint>
#include <cstddef>
#include "Vmutants.h"
#include "verilated.h"

template <class T> static void put(T& port, const uint32_t* words) {{
    uint64_t value = words[0];
    if (sizeof(T) == 8) value |= uint64_t(words[1]) << 32;
    port = T(value);
}}
template <std::size_t N> static void put(VlWide<N>& port, const uint32_t* words) {{
    for (std::size_t i = 0; i < N; ++i) port[i] = words[i];
}}
template <class T> static void get(const T& port, uint32_t* words) {{
    words[0] = uint32_t(port);
    if (sizeof(T) == 8) words[1] = uint32_t(uint64_t(port) >> 32);
}}
template <std::size_t N> static void get(const VlWide<N>& port, uint32_t* words) {{
    for (std::size_t i = 0; i < N; ++i) words[i] = port[i];
}}

extern "C" void* create(int mutant) {{
    Vmutants* top = new Vmutants;
    {select}
    return top;
}}
extern "C" void destroy(void* handle) {{ delete static_cast<Vmutants*>(handle); }}

extern "C" void settle(void* handle, const uint32_t* in, uint32_t* out) {{
    Vmutants* top = static_cast<Vmutants*>(handle);
{puts}
    {low}
    top->eval();
{gets}
}}
extern "C" void edge(void* handle) {{
    Vmutants* top = static_cast<Vmutants*>(handle);
    (void)top;
    {high}
}}

// First cycle in which a mutant differs where it matters, or -1.
extern "C" int64_t first_difference(int mutant, const uint32_t* in, const uint32_t* expected,
                                    const uint32_t* cares, int64_t cycles) {{
    void* handle = create(mutant);
    uint32_t out[{out_words}];
    int64_t found = -1;
    for (int64_t cycle = 0; cycle < cycles && found < 0; ++cycle) {{
        settle(handle, in + cycle * {in_words}, out);
        for (int i = 0; i < {out_words}; ++i) {{
            const int64_t at = cycle * {out_words} + i;
            if ((out[i] ^ expected[at]) & cares[at]) found = cycle;
        }}
        edge(handle);
    }}
    destroy(handle);
    return found;
}}
"""


def compile_library(
    top: str,
    files: Sequence[Path],
    ports: Ports,
    folder: Path,
    *,
    parameters: Mapping[str, int] | None = None,
    select: str = "",
) -> Path:
    """Compile a module and its driver to a shared library for `Dut`.

    Parameters
    ----------
    top : str
    files : sequence of Path
        Verilog of the module and of everything below it.
    ports : Ports
        Of the module.
    folder : Path
        Build products.
    parameters : mapping of str to int, optional
        Verilog parameters of the module.
    select : str
        Input that selects the mutant, where there are mutants.

    Raises
    ------
    ToolError
        Verilator or g++ is missing or failed.
    """
    command = [find_tool("verilator"), "--cc", "-O3", "-Wno-fatal", "-Wno-lint", "-Wno-style"]
    # Verilator 5.006 computes wrong values of gates with it (its issue 4059).
    command.append("-fno-const-bit-op-tree")
    command += ["--top-module", top, "--prefix", "Vmutants", "--Mdir", str(folder)]
    command += [f"-G{name}={value}" for name, value in (parameters or {}).items()]
    run_tool([*command, *map(str, files)])
    inputs, outputs = layout(ports.inputs), layout(ports.outputs)
    (folder / "driver.cpp").write_text(
        _DRIVER.format(
            select=f"top->{select} = mutant;" if select else "(void)mutant;",
            puts="\n".join(f"    put(top->{n}, in + {at});" for n, (at, _) in inputs.items()),
            gets="\n".join(f"    get(top->{n}, out + {at});" for n, (at, _) in outputs.items()),
            low="top->clk = 0;" if ports.clocked else "",
            high="top->clk = 1; top->eval();" if ports.clocked else "",
            in_words=_words(ports.inputs),
            out_words=_words(ports.outputs),
        )
    )
    root = verilator_include()
    library = folder / "mutants.so"
    # One unit: its headers take longer than most modules.
    whole = folder / "whole.cc"
    units = sorted(unit.name for unit in folder.glob("*.cpp"))
    whole.write_text("".join(f'#include "{name}"\n' for name in units))
    command = ["g++", "-O1", "-shared", "-fPIC", "-std=c++17", "-pthread"]
    command += [f"-I{folder}", f"-I{root}", f"-I{root / 'vltstd'}", "-o", str(library)]
    run_tool([*command, str(whole), *map(str, _runtime())])
    return library


_RUNTIME_FOLDER = TemporaryDirectory(prefix="napier_verilator_", ignore_cleanup_errors=True)


@cache
def _runtime() -> tuple[Path, ...]:
    """Compile Verilator's runtime once for all modules."""
    root, objects = verilator_include(), []
    for name in ("verilated", "verilated_threads"):
        unit = root / f"{name}.cpp"
        if unit.exists():
            objects.append(Path(_RUNTIME_FOLDER.name) / f"{name}.o")
            command = ["g++", "-O1", "-c", "-fPIC", "-std=c++17", "-pthread", f"-I{root}"]
            run_tool([*command, f"-I{root / 'vltstd'}", str(unit), "-o", str(objects[-1])])
    return tuple(objects)


def layout(widths: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """First word and number of words of each port in a row."""
    places, at = {}, 0
    for name, bits in widths.items():
        places[name] = (at, -(-bits // 32))
        at += -(-bits // 32)
    return places


def _words(widths: Mapping[str, int]) -> int:
    return sum(-(-bits // 32) for bits in widths.values())


class Dut:
    """The unmutated module: driven cycle by cycle, everything recorded for the mutants.

    Inputs keep their values until they are set again. `dut["port"]` is an output as it was when
    the module last settled; registers move in `cycle` and show after the next `settle`.

    Parameters
    ----------
    ports : Ports
    library : Path
        From `build`.
    gates : mapping of str to str
        Of the subject.
    """

    def __init__(self, ports: Ports, library: Path, gates: Mapping[str, str]) -> None:
        self.ports, self._gates = ports, gates
        names = [name for gate in gates.values() for name in gate.removesuffix("[]").split("|")]
        self._gate_ports = tuple(dict.fromkeys(names))
        self._library = ctypes.CDLL(str(library))
        self._library.create.restype = ctypes.c_void_p
        self._library.destroy.argtypes = [ctypes.c_void_p]
        self._library.settle.argtypes = [ctypes.c_void_p] * 3
        self._library.edge.argtypes = [ctypes.c_void_p]
        self._library.first_difference.restype = ctypes.c_int64
        self._library.first_difference.argtypes = [
            ctypes.c_int,
            *[ctypes.c_void_p] * 3,
            ctypes.c_int64,
        ]
        self._inputs, self._outputs = layout(ports.inputs), layout(ports.outputs)
        self._in = np.zeros(_words(ports.inputs), np.uint32)
        self._out = np.zeros(_words(ports.outputs), np.uint32)
        self._rows: list[tuple[bytes, bytes, bytes]] = []
        self._cares: dict[tuple[int, ...], bytes] = {}
        self._handle = self._library.create(0)

    @property
    def cycles(self) -> int:
        """How many are recorded."""
        return len(self._rows)

    @property
    def rows(self) -> Sequence[tuple[bytes, bytes, bytes]]:
        """What is recorded: inputs, outputs, and which output bits mean something, a row a cycle.

        Ports lie as `layout` says, words little-endian.
        """
        return self._rows

    def __getitem__(self, output: str) -> int:
        at, words = self._outputs[output]
        if words == 1:
            return int(self._out[at])
        return int.from_bytes(self._out[at : at + words].tobytes(), "little")

    def value(self, name: str) -> int:
        """Return an input as it is set."""
        at, words = self._inputs[name]
        return int.from_bytes(self._in[at : at + words].tobytes(), "little")

    def settle(self, **values: int) -> None:
        """Set inputs and evaluate, without a clock edge."""
        for name, value in values.items():
            at, words = self._inputs[name]
            value &= (1 << self.ports.inputs[name]) - 1
            if words == 1:
                self._in[at] = value
            else:
                row = np.frombuffer(value.to_bytes(4 * words, "little"), np.uint32)
                self._in[at : at + words] = row
        self._library.settle(self._handle, self._in.ctypes.data, self._out.ctypes.data)

    def cycle(self, **values: int) -> None:
        """Set inputs, record inputs and outputs, and give a clock edge."""
        self.settle(**values)
        self._record(self._care(tuple(self[gate] for gate in self._gate_ports)))

    def cycle_unseen(self, **values: int) -> None:
        """Drive a cycle in which the outputs mean nothing."""
        self.settle(**values)
        self._record(bytes(self._out.nbytes))

    def presets(self, rng: random.Random, probability: float = 1.0) -> dict[str, int]:
        """Draw inputs that load the registers which the subject lets be loaded."""
        if PRESET not in self.ports.inputs:  # the module itself has none
            return {}
        bits = self.ports.inputs[PRESET_VALUE]
        value = rng.getrandbits(bits)
        for _ in range(rng.randrange(9)):  # the more ones, the further a carry goes
            value |= rng.getrandbits(bits)
        return {PRESET: rng.random() < probability, PRESET_VALUE: value}

    def preset(self, rng: random.Random) -> None:
        """Load these registers in a cycle of its own."""
        inputs = self.presets(rng)
        if inputs:
            self.cycle(**inputs)
            self.settle(**{PRESET: 0})

    def _record(self, cares: bytes) -> None:
        self._rows.append((self._in.tobytes(), self._out.tobytes(), cares))
        self._library.edge(self._handle)

    def _care(self, values: tuple[int, ...]) -> bytes:
        """Which bits mean something while the gates have these values."""
        if values not in self._cares:
            row = np.full(len(self._out), 0xFFFFFFFF, np.uint32)
            gates = dict(zip(self._gate_ports, values, strict=True))
            for name, text in self._gates.items():
                gate = text.removesuffix("[]")
                at, words = self._outputs[name]
                mask = 0
                if gate != text:
                    bits = self.ports.outputs[name] // self.ports.outputs[gate]
                    for index in range(self.ports.outputs[gate]):
                        if gates[gate] >> index & 1:
                            mask |= (1 << bits) - 1 << bits * index
                elif any(gates[each] for each in gate.split("|")):
                    mask = -1
                mask &= (1 << 32 * words) - 1
                row[at : at + words] = np.frombuffer(mask.to_bytes(4 * words, "little"), np.uint32)
            self._cares[values] = row.tobytes()
        return self._cares[values]

    def difference_from(self, source: Dut) -> int:
        """First recorded cycle of `source` in which this module puts out something else, or -1.

        Ports that only one of them has are left alone.
        """
        inputs, outputs, cares = (
            _rearranged(b"".join(row[part] for row in source.rows), *ports)
            for part, ports in enumerate(
                [
                    (source.ports.inputs, self.ports.inputs),
                    (source.ports.outputs, self.ports.outputs),
                    (source.ports.outputs, self.ports.outputs),
                ]
            )
        )
        return int(
            self._library.first_difference(
                0, inputs.ctypes.data, outputs.ctypes.data, cares.ctypes.data, source.cycles
            )
        )

    def first_differences(self, mutants: int, skipped: Collection[int] = ()) -> NDArray[np.int64]:
        """Replay the record on mutants 0 to `mutants`; the first cycle that differs, or -1.

        Those that are skipped are taken for the same.
        """
        inputs, outputs, cares = (
            np.frombuffer(b"".join(row[part] for row in self._rows), np.uint32) for part in range(3)
        )
        return np.array(
            [
                self._library.first_difference(
                    number, inputs.ctypes.data, outputs.ctypes.data, cares.ctypes.data, self.cycles
                )
                if number not in skipped
                else -1
                for number in range(mutants + 1)
            ],
            np.int64,
        )


def _rearranged(rows: bytes, ports: Mapping[str, int], wanted: Mapping[str, int]) -> Words:
    """Rows of some ports as rows of other ports; zeros where there is no such port."""
    given = np.frombuffer(rows, np.uint32).reshape(-1, _words(ports))
    places, found = layout(ports), np.zeros((len(given), _words(wanted)), np.uint32)
    for name, (at, words) in layout(wanted).items():
        if name in places:
            first = places[name][0]
            found[:, at : at + words] = given[:, first : first + words]
    return found
