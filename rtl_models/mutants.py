"""Single-bit faults of the synthesised Verilog.

Yosys synthesises a module to gates and draws single-bit faults in them: a pin stuck, inverted, or
inverted depending on another net. All mutants sit in one netlist, selected by a port, which
Verilator turns into C++ once.
"""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rtl_models.dut import PRESET, PRESET_VALUE, Dut, compile_library, read_ports
from rtl_models.netlist_ports import (
    REGISTERS,
    forget_wires,
    free_net,
    new_cell,
    preset_registers,
    show_registers,
)
from rtl_models.runner import elaborate, module_name, yosys

TOP = "subject"
SELECT = "mutant_select"
"""Input of the mutated netlist: 0 is the module as it is, i the i-th mutant."""

SELECT_BITS = 16
MOST_MUTANTS = 10_000_000
"""More than any module has: Yosys 0.23 may search forever for a list that is nearly all of them."""


@dataclass(frozen=True)
class Subject:
    """A module that is mutated, and how it is driven.

    Parameters
    ----------
    name : str
        Row of the table.
    module : str
    parameters : mapping of str to int
        Verilog parameters; small widths, so that a few thousand cycles reach every bit.
    stimuli : function of (Dut, random.Random, int)
        Drives so many cycles of legal inputs.
    gates : mapping of str to str
        Outputs that mean something only while another output, or one of several as in ``a|b``, is
        not zero. Behind its name, ``[]`` says that each of its bits speaks for a slice of its own.
    registers : bool
        Compare every register in every cycle, as our benches of the module do, and not only the
        outputs.
    watched : tuple of str
        Registers that are compared beside the outputs: counters whose carries would be seen there
        only after millions of cycles. They may stand in modules below that are not mutated.
    presets : tuple of str
        Registers that the stimuli may load (`Dut.preset`), for the same reason.
    kept : tuple of str
        Modules below that are not mutated: they are subjects themselves.
    watched_below, presets_below : tuple of str
        As `watched` and `presets`, of registers in the module and at any depth in those kept.
        Mutants are drawn without them.
    deep_proofs : bool
        Whether what these do with a difference is looked at by the proofs.
    legal : str
        Verilog condition on the ports that the module may rely on; the proofs assume it.
    invariant : str
        Verilog condition on ports and registers of every state that means something. Where it is
        given the proofs start from these states, and prove that the next state is one of them.
    begins : str
        Verilog condition on the ports of a cycle that may come in any state: reset or load.
    matters : mapping of str to str
        Registers, or parts of them as in ``a[7:4]``, that mean something only under a Verilog
        condition on ports and registers; in the proofs they may differ where it does not hold.
    matters_after : mapping of str to str
        The condition on the ports of a cycle, where another one tells what matters after it.
    reset : str
        Verilog condition on the ports of a first cycle. Where it is given, what other proofs leave
        is put to one of all that legal inputs reach after such a cycle.
    steady : tuple of str
        Inputs that change in cycles of `reset` only; used by this proof.
    held : mapping of str to str
        Inputs that stay after a cycle in which a Verilog condition on ports does not hold; used by
        this proof.
    contract : str
        Verilog condition on ports, registers and nets of kept modules that this proof may rely on.
        Without `reset` the proof is one of a cycle from every state. The proofs that an
        `invariant` starts may rely on it too.
    opened : tuple of str
        Kept modules whose gates this proof includes.
    """

    name: str
    module: str
    parameters: Mapping[str, int]
    stimuli: Callable[[Dut, random.Random, int], None]
    gates: Mapping[str, str] = field(default_factory=dict)
    registers: bool = False
    watched: tuple[str, ...] = ()
    presets: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    watched_below: tuple[str, ...] = ()
    presets_below: tuple[str, ...] = ()
    deep_proofs: bool = True
    legal: str = "1'b1"
    invariant: str = ""
    begins: str = "1'b0"
    matters: Mapping[str, str] = field(default_factory=dict)
    matters_after: Mapping[str, str] = field(default_factory=dict)
    reset: str = ""
    steady: tuple[str, ...] = ()
    held: Mapping[str, str] = field(default_factory=dict)
    contract: str = "1'b1"
    opened: tuple[str, ...] = ()


Pin = tuple[str, str, int]
"""Cell, port and bit."""


@dataclass(frozen=True)
class Mutant:
    """A single-bit fault: its number in the netlist from 1, and the options of Yosys' `mutate`."""

    number: int
    options: str


# -- netlists -------------------------------------------------------------------------------------


class Netlist:
    """A module in gates, and its mutants.

    Parameters
    ----------
    subject : Subject
    folder : Path
    mutants : int
        How many to draw at most.
    seed : int
    """

    def __init__(self, subject: Subject, folder: Path, mutants: int, seed: int) -> None:
        self.subject, self.folder = subject, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.kept_files: tuple[Path, ...] = ()
        self._shown_bits: list[int] = []
        self.kept: tuple[str, ...] = ()
        self._synthesise()
        self._plain = json.loads((folder / "gates.json").read_text())
        self._read_kept()
        if subject.registers or subject.watched:
            self._show_registers()
        if subject.presets:
            self._add_presets(self._flip_flops(subject.presets), [])
        self._write(f" mutate -list {MOST_MUTANTS} -module {TOP} -o {folder}/list.ys")
        lines = (folder / "list.ys").read_text().splitlines()
        # A fault of a clock pin is a fault of the clock tree, not of the logic.
        untouched = (" -port C ", " -port \\C ", f" {PRESET}", " \\clk ", *self._shown)
        options = [
            line.removeprefix("mutate ")
            for line in lines
            if not any(word in line for word in untouched)
        ]
        options = random.Random(seed).sample(options, min(mutants, len(options)))
        self.mutants = [Mutant(number, text) for number, text in enumerate(options, 1)]
        if subject.watched_below or subject.presets_below:
            self._open_kept()
            self._write()
        script = [f"read_rtlil {folder}/plain.il"]
        script += [
            f"mutate -ctrl {SELECT} {SELECT_BITS} {m.number} {m.options}" for m in self.mutants
        ]
        script += [f"write_verilog -noattr {folder}/mutants.v"]
        (folder / "mutants.ys").write_text("\n".join(script) + "\n")
        yosys(f"script {folder}/mutants.ys")
        self.ports = read_ports(self._plain["modules"][TOP])

    def _synthesise(self) -> None:
        """Write gates.json, and kept.v with the modules that stay as they are."""
        subject, folder = self.subject, self.folder
        script = f"{elaborate(subject.module, subject.parameters)} rename -top {TOP};"
        if subject.kept:
            yosys(f"{script} tee -o {folder}/modules.txt ls")
            found = (folder / "modules.txt").read_text().split()
            self.kept = tuple(name for name in found if module_name(name) in subject.kept)
            patterns = " ".join(re.sub(r"\W", "?", name) for name in self.kept)
            self.kept_files = (folder / "kept.v",)
            shown = "".join(
                f" expose {re.sub(r'[^a-z0-9_]', '?', name)}/w:{register};"
                for name in self.kept
                for register in subject.watched
            )
            # Reduced, a memory is written with one enable and not with one a bit.
            script += (
                f" proc {patterns}; opt_reduce {patterns};{shown} select {patterns};"
                f" write_verilog -noattr -selected {folder}/kept.v; select -clear;"
                f" blackbox {patterns};"
            )
        for name in dict.fromkeys((*subject.presets, *subject.watched)):
            script += f" setattr -set keep 1 */w:{name};"
        # Enables and resets become gates, so that they are mutated too.
        yosys(
            f"{script} synth -flatten -top {TOP}; dfflegalize -cell $_DFF_P_ x;"
            f" abc -g gates; splitnets; opt_clean -purge; write_json {folder}/gates.json"
        )

    def _write(self, script: str = "") -> None:
        """Write plain.json and plain.il."""
        path = self.folder / "plain.json"
        path.write_text(json.dumps(self._plain))
        yosys(f"read_json {path}; write_rtlil {self.folder}/plain.il;{script}")

    def _read_kept(self) -> None:
        """Connect pins of the kept modules that show registers."""
        top = self._plain["modules"][TOP]
        self._shown: tuple[str, ...] = ()
        net = free_net(top)
        for cell in top["cells"].values():
            if cell["type"] not in self.kept:
                continue
            ports = self._plain["modules"][cell["type"]]["ports"]
            for name in ports.keys() - cell["connections"].keys():
                width = len(ports[name]["bits"])
                cell["connections"][name] = list(range(net, net + width))
                cell["port_directions"][name] = "output"
                self._shown_bits += cell["connections"][name]
                self._shown += (f" -port {name} ", f" -port \\{name} ")
                net += width

    def _flip_flops(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Flip-flops of registers, by the last part of their names."""
        module = self._plain["modules"][TOP]
        cells = {
            cell["connections"]["Q"][0]: cell
            for cell in module["cells"].values()
            if cell["type"] == "$_DFF_P_"
        }
        wires = {
            name: wire["bits"][0]
            for name, wire in sorted(module["netnames"].items())
            if not wire["hide_name"] and re.sub(r"\[\d+\]$", "", name).split(".")[-1] in names
        }
        return list({bit: cells[bit] for bit in wires.values() if bit in cells}.values())

    def _show_registers(self) -> None:
        """Add an output of all registers, or of those that are watched."""
        module = self._plain["modules"][TOP]
        cells = [cell for _, cell in sorted(module["cells"].items()) if cell["type"] == "$_DFF_P_"]
        if not self.subject.registers:
            cells = self._flip_flops(self.subject.watched)
        bits = [bit for cell in cells for bit in cell["connections"]["Q"]] + self._shown_bits
        module["ports"][REGISTERS] = {"direction": "output", "bits": bits}

    def _add_presets(
        self, cells: list[dict[str, Any]], kept: list[tuple[dict[str, Any], int]]
    ) -> None:
        """Let flip-flops, and some bits in kept modules, load a value; no gate is mutated."""
        module = self._plain["modules"][TOP]
        net = free_net(module)
        width = len(cells) + sum(bits for _, bits in kept)
        ports = {PRESET: [net], PRESET_VALUE: list(range(net + 1, net + 1 + width))}
        for name, bits in ports.items():
            module["ports"][name] = {"direction": "input", "bits": bits}
        net += 1 + width
        for place, cell in enumerate(cells):
            pins = {"A": cell["connections"]["D"], "B": [ports[PRESET_VALUE][place]]}
            pins |= {"S": ports[PRESET], "Y": [net + place]}
            cell["connections"]["D"] = [net + place]
            module["cells"][f"{PRESET}_{place}"] = new_cell("$_MUX_", {}, pins)
        place = len(cells)
        for cell, taken in kept:
            pins = {PRESET: ports[PRESET], PRESET_VALUE: ports[PRESET_VALUE][place : place + taken]}
            cell["connections"] |= pins
            cell["port_directions"] |= dict.fromkeys(pins, "input")
            place += taken

    def _open_kept(self) -> None:
        """Show registers and let them load values, in kept modules that become flat for it."""
        subject, top, path = self.subject, self._plain["modules"][TOP], self.folder / "kept.json"
        yosys(
            f"read_verilog -sv {self.kept_files[0]}; hierarchy -check; proc; opt_reduce; flatten;"
            f" write_json {path}"
        )
        types = {cell["type"] for cell in top["cells"].values()}
        kept = {
            name.removeprefix("\\"): module  # a name that was escaped
            for name, module in json.loads(path.read_text())["modules"].items()
        }
        kept = {name: module for name, module in kept.items() if name in types}
        for module in kept.values():
            show_registers(module, subject.watched_below)
            preset_registers(module, subject.presets_below)
            forget_wires(module)
        for name, module in self._plain["modules"].items():  # what stands for those kept
            module["ports"] |= {
                port: bits
                for port, bits in kept.get(name, {"ports": {}})["ports"].items()
                if port in (REGISTERS, PRESET, PRESET_VALUE)
            }
        path.write_text(json.dumps({"modules": kept}))
        yosys(f"read_json {path}; write_verilog -noattr {self.kept_files[0]}")
        shown = [cell["connections"]["Q"][0] for cell in self._flip_flops(subject.watched_below)]
        preset = []
        net = free_net(top)
        for _, cell in sorted(top["cells"].items()):
            ports = kept[cell["type"]]["ports"] if cell["type"] in kept else {}
            if REGISTERS in ports:
                bits = list(range(net, net + len(ports[REGISTERS]["bits"])))
                cell["connections"][REGISTERS] = bits
                cell["port_directions"][REGISTERS] = "output"
                shown, net = shown + bits, net + len(bits)
            if PRESET in ports:
                preset.append((cell, len(ports[PRESET_VALUE]["bits"])))
        if shown:
            before = top["ports"].get(REGISTERS, {"bits": []})["bits"]
            top["ports"][REGISTERS] = {"direction": "output", "bits": before + shown}
        self._add_presets(self._flip_flops(subject.presets_below), preset)

    def is_unread(self, mutant: Mutant) -> bool:
        """Whether the fault is at an output pin that no gate and no port reads."""
        pin = self._pin(mutant)
        return pin is not None and self._is_output(pin) and not self._readers(pin)

    def way(self, mutant: Mutant) -> list[Pin]:
        """Pins that the fault must change, from its own on, for anything else to differ.

        They end where a net has several readers, and at registers and kept modules.
        """
        pin, pins = self._pin(mutant), []
        readers = [] if pin is None else self._readers(pin) if self._is_output(pin) else [pin]
        while readers and readers[0] is not None:
            pins.append(readers[0])
            outputs = self._plain["modules"][TOP]["cells"][readers[0][0]]["connections"]
            if len(readers) > 1 or "Y" not in outputs:
                break
            readers = self._readers((readers[0][0], "Y", 0))
        return pins

    def _pin(self, mutant: Mutant) -> Pin | None:
        found = re.search(r"-cell (\S+) -port (\S+) -portbit (\d+)", mutant.options)
        if found is None:
            return None
        name, port = (text.removeprefix("\\") for text in found.groups()[:2])
        return name, port, int(found[3])

    def _is_output(self, pin: Pin) -> bool:
        cell = self._plain["modules"][TOP]["cells"][pin[0]]
        return bool(cell["port_directions"][pin[1]] == "output")

    def _readers(self, pin: Pin) -> list[Pin | None]:
        """Input pins that read what an output pin drives, then None for each port that does."""
        cell, port, bit = pin
        net = self._plain["modules"][TOP]["cells"][cell]["connections"][port][bit]
        return self._all_readers[net]

    @cached_property
    def _all_readers(self) -> Mapping[int | str, list[Pin | None]]:
        """`_readers` by net."""
        module = self._plain["modules"][TOP]
        readers: defaultdict[int | str, list[Pin | None]] = defaultdict(list)
        for name, cell in module["cells"].items():
            for port, bits in cell["connections"].items():
                if cell["port_directions"][port] != "output":
                    for net in dict.fromkeys(bits):
                        readers[net].append((name, port, bits.index(net)))
        for shown in module["ports"].values():
            if shown["direction"] != "input":
                for net in dict.fromkeys(shown["bits"]):
                    readers[net].append(None)
        return readers


def build(netlist: Netlist) -> Path:
    """Compile the mutated netlist and its driver to a shared library.

    Raises
    ------
    ToolError
        Verilator or g++ is missing or failed.
    """
    files = [netlist.folder / "mutants.v", *netlist.kept_files]
    return compile_library(TOP, files, netlist.ports, netlist.folder / "build", select=SELECT)
