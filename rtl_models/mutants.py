"""Mutation score: how many single faults of the synthesised Verilog the stimuli notice.

Yosys synthesises a module to gates and draws single-bit faults in them: a pin stuck, inverted, or
inverted depending on another net. All mutants sit in one netlist, selected by a port, which
Verilator turns into C++ once. The unmutated module runs first under legal random stimuli
(`rtl_models.stimuli`), each mutant then sees the same stimuli until an output differs. What no
stimulus kills is put to a SAT solver: a mutant whose outputs and next states are those of the
module, from every state and for every legal input, is equivalent and no fault.

    score = killed / (mutants - proven equivalent)
"""

from __future__ import annotations

import ctypes
import json
import random
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.errors import ToolError
from rtl_models.runner import find_tool, run_yosys
from rtl_models.sources import sources

Words = NDArray[np.uint32]

TOP = "subject"
SELECT = "mutant_select"
"""Input of the mutated netlist: 0 is the module as it is, i the i-th mutant."""

SELECT_BITS = 16
REGISTERS = "registers"
"""Output of the netlist: registers that are compared."""

PRESET = "preset"
"""Input of the netlist: registers load `preset_value`."""

MOST_MUTANTS = 10_000_000
"""More than any module has: Yosys 0.23 may search forever for a list that is nearly all of them."""

PROVEN = "SAT proof finished - no model found: SUCCESS!"
PROVEN_BY_ABC = "UNSATISFIABLE"
PROVEN_BY_PDR = "Property proved."
PROOF_TIMEOUT_SECONDS = 150


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
    contract : str
        Verilog condition on ports and registers that this proof may rely on.
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
    deep_proofs: bool = True
    legal: str = "1'b1"
    invariant: str = ""
    begins: str = "1'b0"
    matters: Mapping[str, str] = field(default_factory=dict)
    matters_after: Mapping[str, str] = field(default_factory=dict)
    reset: str = ""
    steady: tuple[str, ...] = ()
    contract: str = "1'b1"
    opened: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mutant:
    """A single-bit fault: its number in the netlist from 1, and the options of Yosys' `mutate`."""

    number: int
    options: str


# -- netlists -------------------------------------------------------------------------------------


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


class Netlist:
    """A module in gates, its mutants, and proofs about them.

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
        self._pins: dict[str, dict[str, list[Any]]] = {}
        self._kept: tuple[str, ...] = ()
        self._synthesise()
        self._plain = json.loads((folder / "gates.json").read_text())
        self._read_kept()
        if subject.registers or subject.watched:
            self._show_registers()
        if subject.presets:
            self._add_presets()
        (folder / "plain.json").write_text(json.dumps(self._plain))
        _yosys(
            f"read_json {folder}/plain.json; write_rtlil {folder}/plain.il;"
            f" mutate -list {MOST_MUTANTS} -module {TOP} -o {folder}/list.ys"
        )
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
        script = [f"read_rtlil {folder}/plain.il"]
        script += [
            f"mutate -ctrl {SELECT} {SELECT_BITS} {m.number} {m.options}" for m in self.mutants
        ]
        script += [f"write_verilog -noattr {folder}/mutants.v"]
        (folder / "mutants.ys").write_text("\n".join(script) + "\n")
        _yosys(f"script {folder}/mutants.ys")
        self.ports = read_ports(self._plain["modules"][TOP])

    def _synthesise(self) -> None:
        """Write gates.json, and kept.v with the modules that stay as they are."""
        subject, folder = self.subject, self.folder
        settings = "".join(f" -set {name} {value}" for name, value in subject.parameters.items())
        files = " ".join(f'"{path}"' for path in sources(subject.module))
        script = (
            f"read_verilog -sv -DSYNTHESIS {files};"
            + (f" chparam{settings} {subject.module};" if settings else "")
            + f" hierarchy -check -top {subject.module}; rename -top {TOP};"
        )
        if subject.kept:
            _yosys(f"{script} tee -o {folder}/modules.txt ls")
            found = (folder / "modules.txt").read_text().split()
            # As it is, or with parameters: $paramod\\name\\A=1, $paramod$<hash>\\name
            self._kept = tuple(
                name for name in found if set(name.split("\\")) & set(subject.kept) and name != TOP
            )
            patterns = " ".join(re.sub(r"\W", "?", name) for name in self._kept)
            self.kept_files = (folder / "kept.v",)
            shown = "".join(
                f" expose {re.sub(r'[^a-z0-9_]', '?', name)}/w:{register};"
                for name in self._kept
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
        _yosys(
            f"{script} synth -flatten -top {TOP}; dfflegalize -cell $_DFF_P_ x;"
            f" abc -g gates; splitnets; opt_clean -purge; write_json {folder}/gates.json"
        )

    def _read_kept(self) -> None:
        """Connect pins of the kept modules that show registers."""
        top = self._plain["modules"][TOP]
        self._shown: tuple[str, ...] = ()
        bits = [bit for wire in top["netnames"].values() for bit in wire["bits"]]
        net = 1 + max((bit for bit in bits if isinstance(bit, int)), default=1)
        for cell in top["cells"].values():
            if cell["type"] not in self._kept:
                continue
            ports = self._plain["modules"][cell["type"]]["ports"]
            for name in ports.keys() - cell["connections"].keys():
                width = len(ports[name]["bits"])
                cell["connections"][name] = list(range(net, net + width))
                cell["port_directions"][name] = "output"
                self._shown_bits += cell["connections"][name]
                self._shown += (f" -port {name} ", f" -port \\{name} ")
                net += width

    def _meanings(self, module: str) -> dict[str, list[Any]]:
        """Bits of each pin of a kept module: None if unused, 0 or 1 if constant, else `...`.

        A bit is unused where no gate of the module reads it.
        """
        if module in self._pins:
            return self._pins[module]
        path = self.folder / "pins.json"
        _yosys(
            f"read_verilog -sv {self.kept_files[0]}; hierarchy -check -top \\{module}; proc;"
            " flatten; opt_expr; memory -nomap; techmap t:$* t:$mul %d t:$mem* %d;"
            " rename -top pins;"
            + " opt_expr -full -keepdc; opt_reduce -full; opt_clean -purge;" * 2
            + f" write_json {path}"
        )
        found = json.loads(path.read_text())["modules"]["pins"]
        used = {
            bit
            for cell in found["cells"].values()
            for port, bits in cell["connections"].items()
            if cell["port_directions"][port] == "input"
            for bit in bits
        }
        used |= {
            bit
            for port in found["ports"].values()
            if port["direction"] == "output"
            for bit in port["bits"]
        }
        meanings: dict[str, list[Any]] = {}
        self._pins[module] = meanings
        for name, port in found["ports"].items():
            if port["direction"] == "output":
                meanings[name] = [bit if bit in ("0", "1") else ... for bit in port["bits"]]
            else:
                meanings[name] = [... if bit in used else None for bit in port["bits"]]
        return meanings

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

    def _add_presets(self) -> None:
        """Let registers load a value; the gates that do it are not mutated."""
        module = self._plain["modules"][TOP]
        cells = self._flip_flops(self.subject.presets)
        used = [bit for wire in module["netnames"].values() for bit in wire["bits"]]
        net = 1 + max(bit for bit in used if isinstance(bit, int))
        ports = {PRESET: [net], f"{PRESET}_value": list(range(net + 1, net + 1 + len(cells)))}
        for name, bits in ports.items():
            module["ports"][name] = {"direction": "input", "bits": bits}
        net += 1 + len(cells)
        for place, cell in enumerate(cells):
            pins = {"A": cell["connections"]["D"], "B": [ports[f"{PRESET}_value"][place]]}
            pins |= {"S": [ports[PRESET][0]], "Y": [net + place]}
            cell["connections"]["D"] = [net + place]
            module["cells"][f"{PRESET}_{place}"] = {
                "hide_name": 0,
                "type": "$_MUX_",
                "parameters": {},
                "attributes": {},
                "port_directions": {"A": "input", "B": "input", "S": "input", "Y": "output"},
                "connections": pins,
            }

    def is_equivalent(self, mutant: Mutant) -> bool:
        """Whether the mutant has the module's outputs and next states, from every state.

        Registers and kept modules are cut out of both netlists: what they put out is a free input
        of both, what they take in must be equal. Where that proves nothing, the kept modules come
        back into both, and only registers are cut.
        """
        if self.is_unread(mutant):
            return True
        folder = self.folder / f"proof_{mutant.number}"
        folder.mkdir(exist_ok=True)
        (folder / "mutate.ys").write_text(
            f"read_rtlil {self.folder}/plain.il\nmutate {mutant.options}\n"
            f"write_json {folder}/mutated.json\n"
        )
        _yosys(f"script {folder}/mutate.ys")
        gold, gate = self.folder / "plain.json", folder / "mutated.json"
        if self._proven(folder, gold, gate, self.subject.matters):
            return True
        # What does not matter may be anything then; where all matters, it must not differ.
        named = any(_part(part)[0] in self._registers for part in self.subject.matters)
        if named and self._proven(folder, gold, gate, {}):
            return True
        if self.subject.reset and self._proven_from_reset(folder, gold, gate):
            return True
        if not self._kept or not self.subject.deep_proofs:
            return False
        whole = self._filled(folder, gold, gate, self._kept)
        return self._proven(folder, *whole, self.subject.matters)

    def _filled(
        self, folder: Path, gold: Path, gate: Path, opened: tuple[str, ...]
    ) -> tuple[Path, Path]:
        """Both netlists with some kept modules put in as gates."""
        whole = self.folder / "whole.json"
        if not whole.exists():
            self._fill(gold, whole, opened)
        self._fill(gate, folder / "whole.json", opened)
        return whole, folder / "whole.json"

    def is_unread(self, mutant: Mutant) -> bool:
        """Whether the fault is at an output pin that no gate and no port reads."""
        module = self._plain["modules"][TOP]
        found = re.search(r"-cell (\S+) -port (\S+) -portbit (\d+)", mutant.options)
        if found is None:
            return False
        name, port = (text.removeprefix("\\") for text in found.groups()[:2])
        cell = module["cells"][name]
        if cell["port_directions"][port] != "output":
            return False
        read = {
            bit
            for each in module["cells"].values()
            for pin, bits in each["connections"].items()
            if each["port_directions"][pin] != "output"
            for bit in bits
        }
        shown = {
            bit
            for each in module["ports"].values()
            if each["direction"] != "input"
            for bit in each["bits"]
        }
        return cell["connections"][port][int(found[3])] not in read | shown

    def _fill(self, netlist: Path, whole: Path, opened: tuple[str, ...]) -> None:
        """Put kept modules into a netlist that has been cut from them, as gates."""
        plain = whole.with_suffix(".v")
        closed = " ".join(re.sub(r"\W", "?", name) for name in self._kept if name not in opened)
        _yosys(
            f"read_json {netlist}; delete =A:blackbox; write_verilog -noattr {plain};"
            f" design -reset; read_verilog -sv {plain} {self.kept_files[0]};"
            f" hierarchy -check -top {TOP}; proc;"
            + (f" blackbox {closed};" if closed else "")
            + " flatten; memory -nomap; memory_map; techmap; opt_clean;"
            f" dfflegalize -cell $_DFF_P_ x; splitnets; write_json {whole}"
        )
        design = json.loads(whole.read_text())
        for cell in design["modules"][TOP]["cells"].values():  # a name that was escaped
            cell["type"] = cell["type"].removeprefix("\\")
        whole.write_text(json.dumps(design))

    def _proven_from_reset(self, folder: Path, gold: Path, gate: Path) -> bool:
        """Whether two netlists do the same in every cycle after one that resets them.

        Both are in the same state before it, whichever it is. Kept modules are cut out, but for
        those that are opened: as long as both take in the same they put out the same.
        """
        if self.subject.opened:
            opened = tuple(
                name for name in self._kept if set(name.split("\\")) & set(self.subject.opened)
            )
            gold, gate = self._filled(folder, gold, gate, opened)
        self._write_cut(folder, gold, gate)
        (folder / "sequence.v").write_text(self._sequence())
        _yosys(
            f"read_json {folder}/gold.json; read_json {folder}/gate.json;"
            f" read_verilog -sv {folder}/sequence.v; hierarchy -top sequence; proc; flatten;"
            " opt -full; techmap; opt; dfflegalize -cell $_DFF_P_ 0; aigmap; opt_clean;"
            f" write_aiger -zinit {folder}/sequence.aig"
        )
        said = _abc(f"read_aiger {folder}/sequence.aig; strash; scorr; pdr")
        (folder / "said_from_reset.txt").write_text(said)
        return PROVEN_BY_PDR in said

    def _proven(self, folder: Path, gold: Path, gate: Path, partly: Mapping[str, str]) -> bool:
        """Whether two netlists have the same outputs and next states."""
        self._write_cut(folder, gold, gate)
        (folder / "miter.v").write_text(self._miter(partly))
        _yosys(
            f"read_json {folder}/gold.json; read_json {folder}/gate.json;"
            f" read_verilog -sv {folder}/miter.v; hierarchy -top miter; proc; flatten; opt -full;"
            f" write_rtlil {folder}/miter.il; techmap; opt; aigmap; opt_clean;"
            f" write_aiger {folder}/miter.aig"
        )
        # ABC merges what is equal inside of both first, which multipliers need.
        said = _abc(f"read_aiger {folder}/miter.aig; strash; iprove")
        proven = PROVEN_BY_ABC in said
        if not proven:
            said = _yosys(
                f"read_rtlil {folder}/miter.il; sat -prove differs 0 -show-public"
                f" -timeout {PROOF_TIMEOUT_SECONDS} miter"
            )
            proven = PROVEN in said
        (folder / "said.txt").write_text(said)  # tells a state and inputs that differ, if any
        return proven

    def _write_cut(self, folder: Path, gold: Path, gate: Path) -> None:
        designs = {"gold": json.loads(gold.read_text()), "gate": json.loads(gate.read_text())}
        # A fault at a register's output, or a pin behind it, takes some of its names away.
        named = set.intersection(*(_register_names(design) for design in designs.values()))
        for name, design in designs.items():
            (folder / f"{name}.json").write_text(json.dumps(self._cut(design, name, named)))

    def _cut(self, design: dict[str, Any], name: str, named: set[str]) -> dict[str, Any]:
        """Turn outputs of registers and kept modules into `state`, their inputs into `next`.

        Registers come in the order of their first name among `named`, which both netlists have.
        """
        module = json.loads(json.dumps(design["modules"][TOP]))
        nets: dict[Any, str] = {}
        # Registers that an output shows have its name and none of their own.
        for wire_name in sorted(
            module["netnames"], key=lambda each: (each in module["ports"], each)
        ):
            if wire_name in named:
                nets.setdefault(module["netnames"][wire_name]["bits"][0], wire_name)

        def order(item: tuple[str, dict[str, Any]]) -> str:
            """Sort registers by their names, which all netlists have in common."""
            cell_name, cell = item
            return str(nets.get(cell["connections"].get("Q", [None])[0], cell_name))

        state: list[Any] = []
        following: list[Any] = []
        place: dict[Any, tuple[int, int]] = {}  # register bit -> place in `state` and in `next`
        constants: dict[Any, str] = {}
        for cell_name, cell in sorted(module["cells"].items(), key=order):
            if cell["type"] not in ("$_DFF_P_", *self._kept):
                continue
            if cell["type"] == "$_DFF_P_":
                place[cell["connections"]["Q"][0]] = len(state), len(following)
            kept = cell["type"] in self._kept
            meanings = self._meanings(cell["type"]) if kept else {}
            for port, bits in sorted(cell["connections"].items()):
                means = meanings.get(port, [...] * len(bits))
                if cell["port_directions"][port] == "output":
                    state += [bit for bit, mean in zip(bits, means, strict=True) if mean is ...]
                    constants |= {
                        bit: mean for bit, mean in zip(bits, means, strict=True) if mean is not ...
                    }
                elif port not in ("C", "clk"):
                    following += [bit for bit, mean in zip(bits, means, strict=True) if mean]
            del module["cells"][cell_name]
        _tie(module, constants)
        # Yosys wrote a wire of several bits as one wire a bit, name[bit].
        self._registers: dict[str, dict[int, tuple[int, int]]] = {}
        self._following = dict(place.values())
        for wire_name, wire in module["netnames"].items():
            if wire["hide_name"] or wire["bits"][0] not in place:
                continue
            whole, _, index = wire_name.rstrip("]").rpartition("[")
            name_of, bit = (whole, int(index)) if wire_name[-1] == "]" else (wire_name, 0)
            self._registers.setdefault(name_of, {})[bit] = place[wire["bits"][0]]
        if state:
            module["ports"]["state"] = {"direction": "input", "bits": state}
            module["ports"]["next"] = {"direction": "output", "bits": following}
            self._state_bits, self._next_bits = len(state), len(following)
        else:
            self._state_bits = self._next_bits = 0
        return {"modules": {name: module}}

    def _miter(self, partly: Mapping[str, str]) -> str:
        """Verilog whose output tells that something differs that means something."""
        text = self._sides("miter")
        premises, claims = [self.subject.legal], []
        if self._state_bits:
            text += self._registers_of("now", 0, partly)
            text += self._registers_of("after", 1, partly)
            # `other` is what the mutant holds where a register does not matter.
            text += f"  wire [{self._state_bits - 1}:0] mutant_state = now.matters & state |"
            text += " ~now.matters & other;\n"
            claims.append("((next ^ mutant_next) & after.matters_next) == 0")
        meaning = ""
        if self.subject.invariant:
            meaning = "!now.holds || "
            premises.append(f"({self.subject.begins}) || now.holds")
            claims.append("after.holds")
        claims += [f"{meaning}{claim}" for claim in self._same_outputs()]
        given, same = (" && ".join(f"({each})" for each in part) for part in (premises, claims))
        return text + f"  assign differs = {given} && !({same});\nendmodule\n"

    def _sequence(self) -> str:
        """Verilog of both netlists with their registers; the output tells that they differ."""
        subject, following = self.subject, self._following
        state_bits, next_bits = range(self._state_bits - 1, -1, -1), range(self._next_bits)
        held = "".join("01"[bit in following] for bit in state_bits)
        taken_in = "".join("10"[bit in following.values()] for bit in reversed(next_bits))
        text = self._sides("sequence", state=False)
        text += "  reg started = 0, broken = 0;\n"
        text += f"  wire [{self._state_bits - 1}:0] held = {self._state_bits}'b{held};\n"
        for prefix in ("", "mutant_"):
            after = [
                f"{prefix}next[{following[bit]}]" if bit in following else "1'b0"
                for bit in state_bits
            ]
            text += f"  reg [{self._state_bits - 1}:0] {prefix}registers_q = 0;\n"
            text += f"  assign {prefix}state = started ? held & {prefix}registers_q |"
            text += " ~held & other : other;\n"
            text += f"  always @(posedge clk) {prefix}registers_q <= {{{', '.join(after)}}};\n"
        text += self._registers_of("now", 0, {}, f"  wire fits = {subject.contract};\n")
        premises = [subject.legal, f"started || ({subject.reset})", "now.fits"]
        for name in subject.steady:
            text += f"  reg [{self.ports.inputs[name] - 1}:0] past_{name} = 0;\n"
            text += f"  always @(posedge clk) past_{name} <= {name};\n"
            premises.append(f"({subject.reset}) || {name} == past_{name}")
        claims = [
            *self._same_outputs(),
            f"((next ^ mutant_next) & {self._next_bits}'b{taken_in}) == 0",
        ]
        given, same = (" && ".join(f"({each})" for each in part) for part in (premises, claims))
        text += f"  wire given = {given};\n  always @(posedge clk) started <= 1;\n"
        text += "  always @(posedge clk) broken <= broken || !given;\n"
        return text + f"  assign differs = !broken && given && !({same});\nendmodule\n"

    def _sides(self, name: str, *, state: bool = True) -> str:
        """Begin a module that holds both netlists; `state` of the first may be an input."""
        inputs, outputs = dict(self.ports.inputs), dict(self.ports.outputs)
        ports = ["output wire differs"]
        if self._state_bits:
            outputs["next"] = self._next_bits
            inputs |= {"other": self._state_bits} | ({"state": self._state_bits} if state else {})
        ports += [f"input wire [{bits - 1}:0] {port}" for port, bits in inputs.items()]
        text = f"`default_nettype none\nmodule {name}({', '.join(ports)}"
        text += ");\n" if state else ", input wire clk);\n"
        clock = [".clk(1'b0)"] if self.ports.clocked else []
        for side, prefix in (("gold", ""), ("gate", "mutant_")):
            text += "".join(
                f"  wire [{bits - 1}:0] {prefix}{port};\n" for port, bits in outputs.items()
            )
            pins = [f".{port}({port})" for port in inputs if port not in ("state", "other")]
            if self._state_bits:
                pins.append(f".state({prefix}state)")
                text += "" if state else f"  wire [{self._state_bits - 1}:0] {prefix}state;\n"
            pins += [f".{port}({prefix}{port})" for port in outputs]
            text += f"  {side} u_{side}({', '.join(clock + pins)});\n"
        return text

    def _same_outputs(self) -> list[str]:
        """Verilog conditions that outputs are the same where they mean something."""
        claims = []
        for name in self.ports.outputs:
            gate = self.subject.gates.get(name, "")
            same = f"{name} == mutant_{name}"
            if gate.endswith("[]"):
                gate = gate.removesuffix("[]")
                bits = self.ports.outputs[name] // self.ports.outputs[gate]
                means = ", ".join(
                    f"{{{bits}{{{gate}[{i}]}}}}" for i in reversed(range(self.ports.outputs[gate]))
                )
                same = f"(({name} ^ mutant_{name}) & {{{means}}}) == 0"
            elif gate:
                same = f"!(|{{{gate.replace('|', ', ')}}}) || {same}"
            claims.append(same)
        return claims

    def _registers_of(
        self, block: str, side: int, partly: Mapping[str, str], also: str = ""
    ) -> str:
        """Verilog block with the registers by name, before or after the cycle, and `holds`."""
        text = f"  generate if (1) begin : {block}\n"
        for name, bits in self._registers.items():
            vector, width = ("state", "next")[side], max(bits) + 1
            values = ", ".join(
                f"{vector}[{bits[bit][side]}]" if bit in bits else "1'b0"
                for bit in reversed(range(width))
            )
            text += f"    wire [{width - 1}:0] \\{name} = {{{values}}};\n"
        matters, matters_next = ["1'b1"] * self._state_bits, ["1'b1"] * self._next_bits
        for part, condition in partly.items():
            name, high, low = _part(part)
            following = self.subject.matters_after.get(part, condition)
            # Those of kept modules are there only where these are looked at.
            for bit, (in_state, in_next) in self._registers.get(name, {}).items():
                if low <= bit <= high:
                    matters[in_state] = f"({condition})"
                    matters_next[in_next] = f"({following})"
        for name, conditions in (("matters", matters), ("matters_next", matters_next)):
            values = ", ".join(reversed(conditions))
            text += f"    wire [{len(conditions) - 1}:0] {name} = {{{values}}};\n"
        text += f"    wire holds = {self.subject.invariant or 1};\n  {also}"
        return text + "  end endgenerate\n"


def _register_names(design: Mapping[str, Any]) -> set[str]:
    """Names of nets that flip-flops drive."""
    module = design["modules"][TOP]
    driven = {
        cell["connections"]["Q"][0]
        for cell in module["cells"].values()
        if cell["type"] == "$_DFF_P_"
    }
    return {
        name
        for name, wire in module["netnames"].items()
        if not wire["hide_name"] and name != REGISTERS and wire["bits"][0] in driven
    }


def _part(text: str) -> tuple[str, int, int]:
    """Register of ``a[high:low]``, and its bits; of ``a`` they are all."""
    found = re.fullmatch(r"(.*)\[(\d+):(\d+)\]", text)
    return (found[1], int(found[2]), int(found[3])) if found else (text, MOST_MUTANTS, 0)


def _tie(module: dict[str, Any], constants: Mapping[Any, str]) -> None:
    """Put constants in the place of nets."""
    for cell in module["cells"].values():
        for port, bits in cell["connections"].items():
            cell["connections"][port] = [constants.get(bit, bit) for bit in bits]
    for port in module["ports"].values():
        port["bits"] = [constants.get(bit, bit) for bit in port["bits"]]


def _yosys(script: str) -> str:
    code, said = run_yosys(script)
    if code:
        raise ToolError(f"yosys failed: {' | '.join(said.strip().splitlines()[-5:])}")
    return said


def _abc(script: str) -> str:
    """Run the ABC that comes with Yosys; it says nothing where it takes too long."""
    command = [find_tool("yosys-abc"), "-c", script]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PROOF_TIMEOUT_SECONDS
        ).stdout
    except subprocess.TimeoutExpired:
        return ""


# -- simulation -----------------------------------------------------------------------------------

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


def build(netlist: Netlist) -> Path:
    """Compile the mutated netlist and its driver to a shared library.

    Raises
    ------
    ToolError
        Verilator or g++ is missing or failed.
    """
    files = [netlist.folder / "mutants.v", *netlist.kept_files]
    return compile_library(TOP, files, netlist.ports, netlist.folder / "build", select=SELECT)


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
    _call([*command, *map(str, files)])
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
    root = _verilator_include()
    library = folder / "mutants.so"
    # One unit: its headers take longer than most modules.
    whole = folder / "whole.cc"
    units = sorted(unit.name for unit in folder.glob("*.cpp"))
    whole.write_text("".join(f'#include "{name}"\n' for name in units))
    command = ["g++", "-O1", "-shared", "-fPIC", "-std=c++17", "-pthread"]
    command += [f"-I{folder}", f"-I{root}", f"-I{root / 'vltstd'}", "-o", str(library)]
    _call([*command, str(whole), *map(str, _runtime())])
    return library


@cache
def _verilator_include() -> Path:
    return Path(_call([find_tool("verilator"), "--getenv", "VERILATOR_ROOT"]).strip()) / "include"


_RUNTIME_FOLDER = TemporaryDirectory(prefix="napier_verilator_", ignore_cleanup_errors=True)


@cache
def _runtime() -> tuple[Path, ...]:
    """Compile Verilator's runtime once for all modules."""
    root, objects = _verilator_include(), []
    for name in ("verilated", "verilated_threads"):
        unit = root / f"{name}.cpp"
        if unit.exists():
            objects.append(Path(_RUNTIME_FOLDER.name) / f"{name}.o")
            command = ["g++", "-O1", "-c", "-fPIC", "-std=c++17", "-pthread", f"-I{root}"]
            _call([*command, f"-I{root / 'vltstd'}", str(unit), "-o", str(objects[-1])])
    return tuple(objects)


def _call(command: Sequence[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        raise ToolError(
            f"{command[0]} is needed but not installed; install it with: sudo apt-get install"
            f" {command[0]}"
        ) from None
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout).strip().splitlines() or ["no message"]
        raise ToolError(f"{Path(command[0]).name} failed: {lines[0]}") from None


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
        bits = self.ports.inputs[f"{PRESET}_value"]
        value = rng.getrandbits(bits)
        for _ in range(rng.randrange(9)):  # the more ones, the further a carry goes
            value |= rng.getrandbits(bits)
        return {PRESET: rng.random() < probability, f"{PRESET}_value": value}

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

    def first_differences(self, mutants: int) -> NDArray[np.int64]:
        """Replay the record on mutants 0 to `mutants`; the first cycle that differs, or -1."""
        inputs, outputs, cares = (
            np.frombuffer(b"".join(row[part] for row in self._rows), np.uint32) for part in range(3)
        )
        return np.array(
            [
                self._library.first_difference(
                    number, inputs.ctypes.data, outputs.ctypes.data, cares.ctypes.data, self.cycles
                )
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
