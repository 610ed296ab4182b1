"""Proofs that a single fault of a netlist is none: nothing that means something differs.

Registers and kept modules are cut out of the netlist and of the mutated one: what they put out is
a free input of both, what they take in must be equal. A solver then looks for a state and legal
inputs that tell the two apart.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtl_models.dut import Ports
from rtl_models.mutants import MOST_MUTANTS, TOP, Mutant, Netlist, Pin, Subject
from rtl_models.netlist_ports import REGISTERS
from rtl_models.runner import find_tool, module_name, yosys

PROVEN_BY_YOSYS = "SAT proof finished - no model found: SUCCESS!"
PROVEN_BY_ABC = "UNSATISFIABLE"
PROVEN_BY_PDR = "Property proved."
PROOF_TIMEOUT_SECONDS = 150
MEMORY = "bank_memory"
"""Each bit that it gives out is one that was written at the same place of a word."""


class Prover:
    """Puts mutants of a netlist to solvers.

    Parameters
    ----------
    netlist : Netlist
    """

    def __init__(self, netlist: Netlist) -> None:
        self.netlist, self.subject, self.folder = netlist, netlist.subject, netlist.folder
        self._pins: dict[str, dict[str, list[Any]]] = {}
        self._kept_invariants: dict[Path, bool] = {}
        self._kept_matters: dict[Path, bool] = {}

    def is_equivalent(self, mutant: Mutant) -> bool:
        """Whether the mutant has the module's outputs and next states, from every state.

        Where that is not proven with the kept modules cut out, they come back into both, and only
        registers are cut.
        """
        if self.netlist.is_unread(mutant):
            return True
        folder = self.folder / f"proof_{mutant.number}"
        folder.mkdir(exist_ok=True)
        (folder / "mutate.ys").write_text(
            f"read_rtlil {self.folder}/plain.il\nmutate {mutant.options}\n"
            f"write_json {folder}/mutated.json\n"
        )
        yosys(f"script {folder}/mutate.ys")
        gold, gate = self.folder / "plain.json", folder / "mutated.json"
        deep = bool(self.netlist.kept) and self.subject.deep_proofs
        # The invariant may be one of registers in modules that are opened.
        if deep and self.subject.opened:
            proven, deep = self._proven_deep(folder, gold, gate), False
        else:
            proven = self._proven_cut(folder, gold, gate, mutant)
        if proven:
            return True
        if self.subject.reset:
            proven = self._proven_from_reset(folder, gold, gate)
        elif self.subject.contract != "1'b1":
            proven = self._proven_by_contract(folder, gold, gate)
        return proven or (deep and self._proven_deep(folder, gold, gate))

    def _proven_cut(self, folder: Path, gold: Path, gate: Path, mutant: Mutant) -> bool:
        """Whether they do the same in every cycle, whatever kept modules put out."""
        problem = self._problem(folder, gold, gate, self.netlist.way(mutant))
        # Where all matters, nothing may differ; what does not matter may be anything.
        if self._step_proven(folder, problem, gold, {}):
            return True
        matters = self.subject.matters
        if any(_part(part)[0] in problem.cut.registers for part in matters):
            alone = self._does_not_matter(gold) and _never(folder, problem.fault(matters))
            if alone or self._step_proven(folder, problem, gold, matters):
                return True
        return False

    def _proven_deep(self, folder: Path, gold: Path, gate: Path) -> bool:
        """As `_proven_cut`, with gates of kept modules put in: those opened, or all."""
        matters = self.subject.matters
        whole = self._opened(folder, gold, gate)
        if not self.subject.opened:
            whole = self._filled(folder, gold, gate, self.netlist.kept)
        problem = self._problem(folder, *whole)
        return any(
            self._step_proven(folder, problem, whole[0], partly)
            for partly in ([matters, {}] if matters else [{}])
        )

    def _step_proven(
        self, folder: Path, problem: _Problem, gold: Path, partly: Mapping[str, str]
    ) -> bool:
        """Whether outputs and next states are never told apart, if the invariant is one."""
        return self._invariant_kept(gold) and _never(folder, problem.miter(partly))

    def _invariant_kept(self, gold: Path) -> bool:
        """Whether the invariant holds after every cycle that may come; looked at once."""
        if not self.subject.invariant:
            return True
        if gold not in self._kept_invariants:
            folder, problem = self._without_fault("invariant", gold)
            self._kept_invariants[gold] = _never(folder, problem.broken_invariant())
        return self._kept_invariants[gold]

    def _does_not_matter(self, gold: Path) -> bool:
        """Whether what does not matter changes nothing that does; looked at once.

        The state that is different there keeps the invariant too, and the same of it matters, so
        that a fault may be looked at from the same state in both.
        """
        if self.subject.contract != "1'b1" or not self._invariant_kept(gold):
            return False
        if gold not in self._kept_matters:
            folder, problem = self._without_fault("matters", gold)
            self._kept_matters[gold] = _never(folder, problem.noise(self.subject.matters))
        return self._kept_matters[gold]

    def _without_fault(self, name: str, gold: Path) -> tuple[Path, _Problem]:
        folder = self.folder / f"{name}_of_{gold.stem}"
        folder.mkdir(exist_ok=True)
        return folder, self._problem(folder, gold, gold)

    def _proven_from_reset(self, folder: Path, gold: Path, gate: Path) -> bool:
        """Whether two netlists do the same in every cycle after one that resets them.

        Both are in the same state before it, whichever it is. Kept modules are cut out, but for
        those that are opened: as long as both take in the same they put out the same.
        """
        gold, gate = self._opened(folder, gold, gate)
        return _sequence_proven(folder, self._problem(folder, gold, gate).sequence())

    def _proven_by_contract(self, folder: Path, gold: Path, gate: Path) -> bool:
        """Whether two netlists do the same in every cycle that the contract allows."""
        gold, gate = self._opened(folder, gold, gate)
        return _never(folder, self._problem(folder, gold, gate).by_contract())

    def _opened(self, folder: Path, gold: Path, gate: Path) -> tuple[Path, Path]:
        """Both netlists with those kept modules put in that are opened."""
        kept = self.netlist.kept
        opened = tuple(name for name in kept if module_name(name) in self.subject.opened)
        return self._filled(folder, gold, gate, opened) if opened else (gold, gate)

    def _filled(
        self, folder: Path, gold: Path, gate: Path, opened: tuple[str, ...]
    ) -> tuple[Path, Path]:
        """Both netlists with some kept modules put in as gates."""
        name = "whole.json" if opened == self.netlist.kept else "opened.json"
        if not (self.folder / name).exists():
            self._fill(gold, self.folder / name, opened)
        self._fill(gate, folder / name, opened)
        return self.folder / name, folder / name

    def _fill(self, netlist: Path, whole: Path, opened: tuple[str, ...]) -> None:
        """Put kept modules into a netlist that has been cut from them, as gates."""
        plain = whole.with_suffix(".v")
        closed = " ".join(
            re.sub(r"\W", "?", name) for name in self.netlist.kept if name not in opened
        )
        # Both must keep all registers, also one whose output the fault has cut off.
        yosys(
            f"read_json {netlist}; delete =A:blackbox; write_verilog -noattr {plain};"
            f" design -reset; read_verilog -sv {plain} {self.netlist.kept_files[0]};"
            f" hierarchy -check -top {TOP}; proc; setattr -set keep 1 {TOP}/t:$dff;"
            + (f" blackbox {closed};" if closed else "")
            + " flatten; memory -nomap; memory_map; techmap; opt_clean;"
            f" dfflegalize -cell $_DFF_P_ x; splitnets; write_json {whole}"
        )
        design = json.loads(whole.read_text())
        for cell in design["modules"][TOP]["cells"].values():  # a name that was escaped
            cell["type"] = cell["type"].removeprefix("\\")
        whole.write_text(json.dumps(design))

    def _problem(self, folder: Path, gold: Path, gate: Path, way: Sequence[Pin] = ()) -> _Problem:
        """Write both netlists cut, as gold.json and gate.json; `way` is what pins there take in."""
        designs = {"gold": json.loads(gold.read_text()), "gate": json.loads(gate.read_text())}
        # A fault at a register's output, or a pin behind it, takes some of its names away.
        named = set.intersection(*(_register_names(design) for design in designs.values()))
        for design in designs.values():
            _show_pins(design["modules"][TOP], way)
        cuts = {name: self._cut(design["modules"][TOP], named) for name, design in designs.items()}
        for name, cut in cuts.items():
            (folder / f"{name}.json").write_text(json.dumps({"modules": {name: cut.module}}))
        return _Problem(self.subject, self.netlist.ports, cuts["gold"], len(way))

    def _meanings(self, module: str) -> dict[str, list[Any]]:
        """Bits of each pin of a kept module: None if unused, 0 or 1 if constant, else `...`.

        A bit is unused where no gate of the module reads it.
        """
        if module in self._pins:
            return self._pins[module]
        path = self.folder / "pins.json"
        yosys(
            f"read_verilog -sv {self.netlist.kept_files[0]}; hierarchy -check -top \\{module};"
            " proc; flatten; opt_expr; memory -nomap; techmap t:$* t:$mul %d t:$mem* %d;"
            " rename -top pins;"
            + " opt_expr -full -keepdc; opt_reduce -full; opt_clean -purge;" * 2
            + f" write_json {path}"
        )
        found = json.loads(path.read_text())["modules"]["pins"]
        used = {
            bit
            for cell in found["cells"].values()
            for port, bits in cell["connections"].items()
            if cell["port_directions"][port] == "input" and port != "WR_DATA"
            for bit in bits
        }
        used |= {
            bit
            for port in found["ports"].values()
            if port["direction"] == "output"
            for bit in port["bits"]
        }
        # What a memory writes is used where a read port's bit is.
        for cell in found["cells"].values():
            if cell["type"] == "$mem_v2":
                pins, width = cell["connections"], int(cell["parameters"]["WIDTH"], 2)
                read = {place % width for place, bit in enumerate(pins["RD_DATA"]) if bit in used}
                used |= {bit for place, bit in enumerate(pins["WR_DATA"]) if place % width in read}
        meanings: dict[str, list[Any]] = {}
        self._pins[module] = meanings
        for name, port in found["ports"].items():
            if port["direction"] == "output":
                meanings[name] = [bit if bit in ("0", "1") else ... for bit in port["bits"]]
            else:
                meanings[name] = [... if bit in used else None for bit in port["bits"]]
        return meanings

    def _cut(self, module: dict[str, Any], named: set[str]) -> _Cut:
        """Turn outputs of registers and kept modules into `state`, their inputs into `next`.

        Registers come in the order of their first name among `named`, which both netlists have.
        """
        nets: dict[Any, str] = {}
        # Registers that an output shows have its name and none of their own.
        for wire_name in sorted(
            module["netnames"], key=lambda each: (each in module["ports"], each)
        ):
            if wire_name in named:
                nets.setdefault(module["netnames"][wire_name]["bits"][0], wire_name)

        def order(item: tuple[str, dict[str, Any]]) -> tuple[bool, str]:
            """Sort registers by their names, which all netlists have in common.

            One that has lost its name is last: what its cell is called is another thing in each.
            """
            cell_name, cell = item
            name = nets.get(cell["connections"].get("Q", [None])[0])
            return name is None, name or cell_name

        state: list[Any] = []
        following: list[Any] = []
        place: dict[Any, tuple[int, int]] = {}  # register bit -> place in `state` and in `next`
        constants: dict[Any, str] = {}
        registers: dict[str, dict[int, tuple[int, int]]] = {}
        shown: dict[Any, str] = {}  # what kept modules put out
        for cell_name, cell in sorted(module["cells"].items(), key=order):
            if cell["type"] not in ("$_DFF_P_", *self.netlist.kept):
                continue
            kept = cell["type"] in self.netlist.kept
            meanings = self._meanings(cell["type"]) if kept else {}
            pins: dict[tuple[str, int], int] = {}  # place in `state` or `next`
            for port, bits in sorted(cell["connections"].items()):
                puts_out = cell["port_directions"][port] == "output"
                side = state if puts_out else following
                means = [] if port in ("C", "clk") else meanings.get(port, [...] * len(bits))
                for bit, (net, mean) in enumerate(zip(bits, means, strict=bool(means))):
                    if mean is ...:
                        pins[port, bit] = len(side)
                        side.append(net)
                    elif puts_out:
                        constants[net] = mean
                    if puts_out:
                        shown[net] = f"state[{pins[port, bit]}]" if mean is ... else f"1'b{mean}"
            if cell["type"] == "$_DFF_P_":
                place[cell["connections"]["Q"][0]] = pins["Q", 0], pins["D", 0]
            if module_name(cell["type"]) == MEMORY:
                registers[f"{cell_name}.word"] = {
                    bit: (pins["word", bit], pins["write_data", bit])
                    for bit in range(len(cell["connections"]["word"]))
                    if {("word", bit), ("write_data", bit)} <= pins.keys()
                }
            del module["cells"][cell_name]
        _tie(module, constants)
        following = [constants.get(bit, bit) for bit in following]
        # Yosys wrote a wire of several bits as one wire a bit, name[bit].
        outputs: dict[str, dict[int, str]] = {}
        for wire_name, wire in module["netnames"].items():
            if wire["hide_name"]:
                continue
            whole, _, index = wire_name.rstrip("]").rpartition("[")
            name_of, bit = (whole, int(index)) if wire_name[-1] == "]" else (wire_name, 0)
            if wire["bits"][0] in place:
                registers.setdefault(name_of, {})[bit] = place[wire["bits"][0]]
            elif wire["bits"][0] in shown:
                outputs.setdefault(name_of, {})[bit] = shown[wire["bits"][0]]
        if not state:
            return _Cut(module, 0, 0, registers, outputs, {})
        module["ports"]["state"] = {"direction": "input", "bits": state}
        module["ports"]["next"] = {"direction": "output", "bits": following}
        for cell in module["cells"].values():
            cell["attributes"] = {}  # where it stands in the Verilog: most of what is read
        module["netnames"] = {
            name: wire | {"attributes": {}}
            for name, wire in module["netnames"].items()
            if not wire["hide_name"]
        }
        return _Cut(module, len(state), len(following), registers, outputs, dict(place.values()))


@dataclass(frozen=True)
class _Cut:
    """A netlist whose registers and kept modules are ports, `state` and `next`.

    Parameters
    ----------
    module : dict
        As Yosys writes it in JSON.
    state_bits, next_bits : int
        Of these ports.
    registers : dict
        Places in both of every bit, by name of the register. The word of a memory that is kept is
        one: what it gives out in `state`, what is written in `next`.
    outputs : dict
        Verilog of every bit that kept modules put out, by name of the net.
    following : dict of int to int
        Bits of `next` by those of `state`, where they are registers.
    """

    module: dict[str, Any]
    state_bits: int
    next_bits: int
    registers: Mapping[str, Mapping[int, tuple[int, int]]]
    outputs: Mapping[str, Mapping[int, str]]
    following: Mapping[int, int]


@dataclass(frozen=True)
class _Problem:
    """What must be shown of the modules `gold` and `gate`, which are cut alike.

    Parameters
    ----------
    subject : Subject
    ports : Ports
    cut : _Cut
    way_bits : int
        Of their output `way`: pins that a fault must change, where the states are the same.
    """

    subject: Subject
    ports: Ports
    cut: _Cut
    way_bits: int

    def miter(self, partly: Mapping[str, str]) -> str:
        """Verilog whose output tells that something differs that means something."""
        changed = [] if partly else self._way_changed()
        return self._step(partly, partly, changed, self._same())

    def fault(self, partly: Mapping[str, str]) -> str:
        """Verilog as of `miter`, for what is the same in both before the cycle."""
        return self._step({}, partly, self._way_changed(), self._same())

    def noise(self, partly: Mapping[str, str]) -> str:
        """Verilog as of `miter`, whose output also tells that noise changes what matters."""
        also = [
            "noisy.holds || !now.holds",
            "noisy.matters == now.matters",
            "noisy_after.matters_next == after.matters_next",
        ]
        return self._step(partly, partly, [], [*self._same(), *also], noisy=True)

    def by_contract(self) -> str:
        """Verilog as of `miter`, for what is the same before a cycle that the contract allows."""
        return self._step({}, {}, [*self._way_changed(), "now.fits"], self._same(), self._fits())

    def _fits(self) -> str:
        return f"  wire fits = {self.subject.contract};\n"

    def broken_invariant(self) -> str:
        """Verilog whose output tells that the invariant does not hold after a cycle."""
        return self._step({}, {}, [], ["after.holds"])

    def _same(self) -> list[str]:
        claims = ["((next ^ mutant_next) & after.matters_next) == 0"] * bool(self.cut.state_bits)
        meaning = "!now.holds || " if self.subject.invariant else ""
        return claims + [f"{meaning}{claim}" for claim in self._same_outputs()]

    def _way_changed(self) -> list[str]:
        """From the same state nothing differs where the fault does not change these pins."""
        return ["&(way ^ mutant_way)"] * bool(self.way_bits)

    def _step(
        self,
        before: Mapping[str, str],
        after: Mapping[str, str],
        premises: Sequence[str],
        claims: Sequence[str],
        also: str = "",
        *,
        noisy: bool = False,
    ) -> str:
        """Verilog of both netlists in a cycle; the output tells that a claim is wrong.

        Registers may differ before it, or after it, where they do not matter.
        """
        text = self._sides("miter")
        premises = [self.subject.legal, *premises]
        if self.subject.invariant and self.subject.contract != "1'b1":
            premises, also = [*premises, "now.fits"], self._fits()
        if self.cut.state_bits:
            text += self._registers_of("now", "state", before, also)
            text += self._registers_of("after", "next", after)
            # `other` is what the mutant holds where a register does not matter.
            text += f"  wire [{self.cut.state_bits - 1}:0] mutant_state = now.matters & state |"
            text += " ~now.matters & other;\n"
        if noisy:
            text += self._registers_of("noisy", "mutant_state", before)
            text += self._registers_of("noisy_after", "mutant_next", after)
        if self.subject.invariant:
            premises.append(f"({self.subject.begins}) || now.holds")
        given, same = (" && ".join(f"({each})" for each in part) for part in (premises, claims))
        return text + f"  assign differs = {given} && !({same});\nendmodule\n"

    def sequence(self) -> str:
        """Verilog of both netlists with their registers; the output tells that they differ."""
        subject, following = self.subject, self.cut.following
        state_bits, next_bits = range(self.cut.state_bits - 1, -1, -1), range(self.cut.next_bits)
        held = "".join("01"[bit in following] for bit in state_bits)
        taken_in = "".join("10"[bit in following.values()] for bit in reversed(next_bits))
        text = self._sides("sequence", state=False)
        text += "  reg started = 0, broken = 0;\n"
        text += f"  wire [{self.cut.state_bits - 1}:0] held = {self.cut.state_bits}'b{held};\n"
        for prefix in ("", "mutant_"):
            after = [
                f"{prefix}next[{following[bit]}]" if bit in following else "1'b0"
                for bit in state_bits
            ]
            text += f"  reg [{self.cut.state_bits - 1}:0] {prefix}registers_q = 0;\n"
            text += f"  assign {prefix}state = started ? held & {prefix}registers_q |"
            text += " ~held & other : other;\n"
            text += f"  always @(posedge clk) {prefix}registers_q <= {{{', '.join(after)}}};\n"
        text += self._registers_of("now", "state", {}, self._fits())
        premises = [subject.legal, f"started || ({subject.reset})", "now.fits"]
        for name in subject.steady:
            text += f"  reg [{self.ports.inputs[name] - 1}:0] past_{name} = 0;\n"
            text += f"  always @(posedge clk) past_{name} <= {name};\n"
            premises.append(f"({subject.reset}) || {name} == past_{name}")
        for name, condition in subject.held.items():
            text += f"  reg [{self.ports.inputs[name] - 1}:0] before_{name} = 0;\n"
            text += f"  reg may_move_{name} = 1;\n"
            text += f"  always @(posedge clk) before_{name} <= {name};\n"
            text += f"  always @(posedge clk) may_move_{name} <= {condition};\n"
            premises.append(f"may_move_{name} || {name} == before_{name}")
        claims = [
            *self._same_outputs(),
            f"((next ^ mutant_next) & {self.cut.next_bits}'b{taken_in}) == 0",
        ]
        given, same = (" && ".join(f"({each})" for each in part) for part in (premises, claims))
        text += f"  wire given = {given};\n  always @(posedge clk) started <= 1;\n"
        text += "  always @(posedge clk) broken <= broken || !given;\n"
        return text + f"  assign differs = !broken && given && !({same});\nendmodule\n"

    def _sides(self, name: str, *, state: bool = True) -> str:
        """Begin a module that holds both netlists; `state` of the first may be an input."""
        inputs, outputs = dict(self.ports.inputs), dict(self.ports.outputs)
        ports = ["output wire differs"]
        if self.cut.state_bits:
            outputs["next"] = self.cut.next_bits
            free = ("other", "state") if state else ("other",)
            inputs |= dict.fromkeys(free, self.cut.state_bits)
        if self.way_bits:
            outputs["way"] = self.way_bits
        ports += [f"input wire [{bits - 1}:0] {port}" for port, bits in inputs.items()]
        text = f"`default_nettype none\nmodule {name}({', '.join(ports)}"
        text += ");\n" if state else ", input wire clk);\n"
        clock = [".clk(1'b0)"] if self.ports.clocked else []
        for side, prefix in (("gold", ""), ("gate", "mutant_")):
            text += "".join(
                f"  wire [{bits - 1}:0] {prefix}{port};\n" for port, bits in outputs.items()
            )
            pins = [f".{port}({port})" for port in inputs if port not in ("state", "other")]
            if self.cut.state_bits:
                pins.append(f".state({prefix}state)")
                text += "" if state else f"  wire [{self.cut.state_bits - 1}:0] {prefix}state;\n"
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
        self, block: str, vector: str, partly: Mapping[str, str], also: str = ""
    ) -> str:
        """Verilog block with the registers by name, before or after the cycle, and `holds`."""
        text = f"  generate if (1) begin : {block}\n"
        for name, bits in self.cut.registers.items():
            width, side = max(bits) + 1, int(vector.endswith("next"))
            values = ", ".join(
                f"{vector}[{bits[bit][side]}]" if bit in bits else "1'b0"
                for bit in reversed(range(width))
            )
            text += f"    wire [{width - 1}:0] \\{name} = {{{values}}};\n"
        for name in self.cut.outputs.keys() - self.cut.registers.keys() if also else ():
            values = ", ".join(
                self.cut.outputs[name].get(bit, "1'b0")
                for bit in reversed(range(max(self.cut.outputs[name]) + 1))
            )
            text += f"    wire [{max(self.cut.outputs[name])}:0] \\{name} = {{{values}}};\n"
        matters, matters_next = ["1'b1"] * self.cut.state_bits, ["1'b1"] * self.cut.next_bits
        for part, condition in partly.items():
            name, high, low = _part(part)
            following = self.subject.matters_after.get(part, condition)
            # Those of kept modules are there only where these are looked at.
            for bit, (in_state, in_next) in self.cut.registers.get(name, {}).items():
                if low <= bit <= high:
                    matters[in_state] = f"({condition})"
                    matters_next[in_next] = f"({following})"
        for name, conditions in (("matters", matters), ("matters_next", matters_next)):
            values = ", ".join(reversed(conditions))
            text += f"    wire [{len(conditions) - 1}:0] {name} = {{{values}}};\n"
        text += f"    wire holds = {self.subject.invariant or 1};\n  {also}"
        return text + "  end endgenerate\n"


def _never(folder: Path, miter: str) -> bool:
    """Whether no state and no inputs make the miter's output 1."""
    (folder / "miter.v").write_text(miter)
    yosys(
        f"read_json {folder}/gold.json; read_json {folder}/gate.json;"
        f" read_verilog -sv {folder}/miter.v; hierarchy -top miter; proc; flatten; opt_clean;"
        f" setundef -anyseq; write_rtlil {folder}/miter.il; techmap; opt; aigmap; opt_clean;"
        f" write_aiger {folder}/miter.aig"
    )
    # ABC merges what is equal inside of both first, which multipliers need.
    said = _abc(f"read_aiger {folder}/miter.aig; strash; iprove")
    proven = PROVEN_BY_ABC in said
    if not proven:
        said = yosys(
            f"read_rtlil {folder}/miter.il; sat -prove differs 0 -show-public"
            f" -timeout {PROOF_TIMEOUT_SECONDS} miter"
        )
        proven = PROVEN_BY_YOSYS in said
    (folder / "said.txt").write_text(said)  # tells a state and inputs that differ, if any
    return proven


def _sequence_proven(folder: Path, sequence: str) -> bool:
    """Whether nothing is told apart in any cycle."""
    (folder / "sequence.v").write_text(sequence)
    yosys(
        f"read_json {folder}/gold.json; read_json {folder}/gate.json;"
        f" read_verilog -sv {folder}/sequence.v; hierarchy -top sequence; proc; flatten;"
        " opt -full; techmap; opt; dfflegalize -cell $_DFF_P_ 0; aigmap; opt_clean;"
        f" write_aiger -zinit {folder}/sequence.aig"
    )
    said = _abc(f"read_aiger {folder}/sequence.aig; strash; scorr; pdr")
    (folder / "said_from_reset.txt").write_text(said)
    return PROVEN_BY_PDR in said


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


def _show_pins(module: dict[str, Any], pins: Sequence[Pin]) -> None:
    """Add the output `way`: what these pins take in."""
    if pins:
        bits = [module["cells"][cell]["connections"][port][bit] for cell, port, bit in pins]
        module["ports"]["way"] = {"direction": "output", "bits": bits}


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


def _abc(script: str) -> str:
    """Run the ABC that comes with Yosys; it says nothing where it takes too long."""
    command = [find_tool("yosys-abc"), "-c", script]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PROOF_TIMEOUT_SECONDS
        ).stdout
    except subprocess.TimeoutExpired:
        return ""
