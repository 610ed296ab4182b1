"""A module's netlist, and whether it is the same machine as the module's Verilog.

Yosys synthesises a module to generic gates and writes them as Verilog. Two independent checks: the
netlist runs in Icarus under recorded stimuli (`rtl_models.replay`), and SAT proves that netlist and
source have the same outputs and next states, from every state and for every input.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from golden.errors import ToolError
from rtl_models.equivalence import PROVEN_BY_YOSYS
from rtl_models.runner import elaborate, find_tool, yosys

REFUTED = "SAT proof finished - model found: FAIL!"

Bit = int | str
"""Net of a design in JSON: a number, or a constant "0", "1" or "x"."""

Module = dict[str, Any]
"""A module of a design in JSON."""

FIRST_STATE_NET = 1 << 30
"""Nets from here on are free values; Yosys numbers its own from 2."""


def write_netlist(module: str, parameters: Mapping[str, int], path: Path) -> None:
    """Synthesise a module and those below it to generic gates, and write them as Verilog.

    Parameters
    ----------
    module : str
    parameters : mapping of str to int
        Verilog parameters; the netlist has none.
    path : Path

    Raises
    ------
    ToolError
        Yosys is missing or failed.
    """
    yosys(
        _elaborate(module, parameters)
        + f" synth -top {module}; opt_clean -purge; write_verilog -noattr -noexpr {path}"
    )


def gate_models() -> Path:
    """Verilog of the generic gates, as Yosys ships it."""
    return Path(find_tool("yosys")).resolve().parents[1] / "share" / "yosys" / "simcells.v"


def is_equivalent(
    module: str,
    parameters: Mapping[str, int],
    netlist: Path,
    folder: Path,
    *,
    legal: str = "1'b1",
    cuts: Sequence[str] = (),
    split: Sequence[str] = (),
) -> bool:
    """Prove that a netlist has the outputs and next states of its source.

    Registers are cut out of both designs: a register bit of the source and the net of the same name
    in the netlist get the same free value, and what they take in must be equal. A register that
    synthesis merged with another or found to be constant has the value of what replaced it.

    Parameters
    ----------
    module : str
    parameters : mapping of str to int
    netlist : Path
        From `write_netlist`.
    folder : Path
        What Yosys writes.
    legal : str
        Verilog condition on the ports that the module may rely on.
    cuts : sequence of str
        Wires that are cut like registers, to make a large proof two smaller ones.
    split : sequence of str
        Bits of registers or ports, as in ``code_q[3]``: one proof for each of their values.

    Returns
    -------
    bool
        False where a difference was found.

    Raises
    ------
    ToolError
        Yosys is missing or failed, or a register of the netlist is none of the source.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A register bit is a plain flip-flop in both; resets and enables are gates before it.
    registers = "dfflegalize -cell $_DFF_P_ x; opt_clean"
    yosys(
        _elaborate(module, parameters)
        + f" proc; flatten; opt_clean; memory -nomap; opt_clean; techmap; {registers};"
        f" write_json {folder}/source.json"
    )
    yosys(
        f"read_verilog {gate_models()} {netlist}; hierarchy -check -top {module}; proc; flatten;"
        f" opt_clean; techmap; {registers}; write_json {folder}/netlist.json"
    )
    source, gates = (
        json.loads((folder / f"{name}.json").read_text())["modules"][module]
        for name in ("source", "netlist")
    )
    state = _cut_alike(source, gates, cuts)
    (folder / "gold.json").write_text(json.dumps({"modules": {"gold": source}}))
    (folder / "gate.json").write_text(json.dumps({"modules": {"gate": gates}}))
    (folder / "miter.v").write_text(_miter(source, legal))
    places = [f"state[{state[bit]}]" if bit in state else bit for bit in split]
    proofs = [
        "".join(f" -set {place} {value}" for place, value in zip(places, values, strict=True))
        for values in product((0, 1), repeat=len(places))
    ]
    (folder / "prove.ys").write_text(
        f"read_json {folder}/gold.json\nread_json {folder}/gate.json\n"
        f"read_verilog -sv -formal {folder}/miter.v\nhierarchy -top miter\nproc\nflatten\n"
        "opt -full\n"
        + "".join(f"sat -set-assumes -prove-asserts{proof} miter\n" for proof in proofs)
    )
    said = yosys(f"script {folder}/prove.ys")
    proven, refuted = said.count(PROVEN_BY_YOSYS), said.count(REFUTED)
    if proven + refuted != len(proofs):
        raise ToolError(f"yosys gave no answer: {' | '.join(said.strip().splitlines()[-3:])}")
    return refuted == 0


def _elaborate(module: str, parameters: Mapping[str, int]) -> str:
    return f"{elaborate(module, parameters)} rename -top {module};"


def _cut_alike(source: Module, gates: Module, cuts: Sequence[str]) -> dict[str, int]:
    """Turn registers and cut wires of both into an input `state`, what drives them into `next`.

    A register of the source that the netlist does not know by name becomes a free value of its own:
    the proof then holds whatever it does.

    Returns
    -------
    dict of str to int
        Place in `state` of every cut bit, by its name in the source.
    """
    gate_nets = _nets(gates)
    source_drivers = _take_registers(source) | _wires(source, cuts)
    gate_drivers = _take_registers(gates) | _wires(gates, cuts)
    place = {net: FIRST_STATE_NET + index for index, net in enumerate(gate_drivers)}
    free = FIRST_STATE_NET + len(place)
    value: dict[Bit, Bit] = {}
    pairs: list[tuple[Bit, Bit]] = []  # what drives a bit of the source, and its twin
    names: dict[str, int] = {}
    twins: set[Bit] = set()
    for name, net in _nets(source).items():
        if net not in source_drivers or name not in gate_nets:
            continue
        twin = gate_nets[name]
        if twin in place:
            names[name] = place[twin] - FIRST_STATE_NET
        if net in value or (twin not in place and not isinstance(twin, str)):
            continue
        value[net] = place.get(twin, twin)
        pairs.append((source_drivers[net], gate_drivers.get(twin, twin)))
        twins.add(twin)
    strangers = place.keys() - twins
    if strangers:
        raise ToolError(f"{len(strangers)} register bits of the netlist are none of the source")
    unknown = [net for net in source_drivers if net not in value]
    value |= {net: free + index for index, net in enumerate(unknown)}
    _rewire(source, value, [driver for driver, _ in pairs])
    _rewire(gates, dict(place), [driver for _, driver in pairs])
    inputs = [*place.values(), *range(free, free + len(unknown))]
    for module in (source, gates):
        if inputs:
            module["ports"]["state"] = {"direction": "input", "bits": inputs}
    return names


def _nets(module: Module) -> dict[str, Bit]:
    """Nets by name and bit, as in ``acc_q[3]``."""
    return {
        f"{name}[{index}]": bit
        for name, wire in module["netnames"].items()
        for index, bit in enumerate(wire["bits"])
    }


def _take_registers(module: Module) -> dict[Bit, Bit]:
    """Remove the registers; what they put out -> what they take in."""
    cells = module["cells"]
    registers = [name for name, cell in cells.items() if cell["type"] == "$_DFF_P_"]
    taken = [cells.pop(name)["connections"] for name in registers]
    return {pins["Q"][0]: pins["D"][0] for pins in taken}


def _wires(module: Module, names: Sequence[str]) -> dict[Bit, Bit]:
    """Bits of wires, each driven by itself."""
    bits = [bit for name in names for bit in module["netnames"][name]["bits"]]
    return {bit: bit for bit in bits if not isinstance(bit, str)}


def _rewire(module: Module, value: Mapping[Bit, Bit], drivers: Sequence[Bit]) -> None:
    """Give every reader of a cut net its free value, and put `drivers` out as `next`."""
    for cell in module["cells"].values():
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] == "input":
                cell["connections"][port] = [value.get(bit, bit) for bit in bits]
    for port in module["ports"].values():
        if port["direction"] == "output":
            port["bits"] = [value.get(bit, bit) for bit in port["bits"]]
    driven = {bit for cell in module["cells"].values() for bit in _driven(cell)}
    following = [bit if bit in driven else value.get(bit, bit) for bit in drivers]
    if following:
        module["ports"]["next"] = {"direction": "output", "bits": following}


def _driven(cell: Mapping[str, Any]) -> list[Bit]:
    return [
        bit
        for port, bits in cell["connections"].items()
        if cell["port_directions"][port] == "output"
        for bit in bits
    ]


def _miter(source: Module, legal: str) -> str:
    """Verilog that asserts equality of all outputs and next states."""
    ports = {name: port for name, port in source["ports"].items() if name != "clk"}
    inputs = [name for name, port in ports.items() if port["direction"] == "input"]
    outputs = [name for name in ports if name not in inputs]
    width = {name: len(port["bits"]) - 1 for name, port in ports.items()}
    text = f"module miter({', '.join(f'input wire [{width[n]}:0] {n}' for n in inputs)});\n"
    clock = [".clk(1'b0)"] if "clk" in source["ports"] else []
    for side in ("gold", "gate"):
        text += "".join(f"  wire [{width[name]}:0] {side}_{name};\n" for name in outputs)
        pins = [f".{name}({name})" for name in inputs]
        pins += [f".{name}({side}_{name})" for name in outputs]
        text += f"  {side} u_{side}({', '.join(clock + pins)});\n"
    text += f"  always @* assume ({legal});\n"
    text += "".join(f"  always @* assert (gold_{n} == gate_{n});\n" for n in outputs)
    return text + "endmodule\n"
