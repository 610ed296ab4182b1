"""Ports that a netlist of Yosys gets, in JSON: registers that are shown, or may load a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rtl_models.dut import PRESET, PRESET_VALUE

REGISTERS = "registers"
"""Output of a netlist: registers that are compared."""


def free_net(module: Mapping[str, Any]) -> int:
    """Return a number that no net of a module has, nor any above it."""
    pins = [pin for cell in module["cells"].values() for pin in cell["connections"].values()]
    pins += [named["bits"] for kind in ("netnames", "ports") for named in module[kind].values()]
    return 1 + max((bit for bits in pins for bit in bits if isinstance(bit, int)), default=1)


def new_cell(kind: str, parameters: dict[str, str], pins: dict[str, list[Any]]) -> dict[str, Any]:
    """Return a cell with output Y."""
    return {
        "hide_name": 0,
        "type": kind,
        "parameters": parameters,
        "attributes": {},
        "port_directions": {name: "output" if name == "Y" else "input" for name in pins},
        "connections": pins,
    }


def show_registers(module: dict[str, Any], names: Sequence[str]) -> None:
    """Add an output of registers, by the last parts of their names, to a module that is flat."""
    bits = [bit for cell in _registers(module, names) for bit in cell["connections"]["Q"]]
    if bits:
        module["ports"][REGISTERS] = {"direction": "output", "bits": bits}


def preset_registers(module: dict[str, Any], names: Sequence[str]) -> None:
    """Let registers of a module that is flat load a value."""
    cells = _registers(module, names)
    if not cells:
        return
    net = free_net(module)
    ports: dict[str, list[int]] = {PRESET: [net], PRESET_VALUE: []}
    net += 1
    for place, cell in enumerate(cells):
        pins, width = cell["connections"], len(cell["connections"]["Q"])
        value, following = list(range(net, net + width)), list(range(net + width, net + 2 * width))
        net += 2 * width
        mux = {"A": pins["D"], "B": value, "S": ports[PRESET], "Y": following}
        module["cells"][f"{PRESET}_{place}"] = new_cell("$mux", {"WIDTH": f"{width:032b}"}, mux)
        pins["D"] = following
        ports[PRESET_VALUE] += value
    for name, bits in ports.items():
        module["ports"][name] = {"direction": "input", "bits": bits}


def forget_wires(module: dict[str, Any]) -> None:
    """Take names from all nets but ports and registers: Verilog has a line for a bit of each."""
    registers = [
        cell["connections"]["Q"] for cell in module["cells"].values() if "Q" in cell["connections"]
    ]
    module["netnames"] = {
        name: wire
        for name, wire in module["netnames"].items()
        if name in module["ports"] or wire["bits"] in registers
    }


def _registers(module: Mapping[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    wires = [
        wire["bits"]
        for name, wire in sorted(module["netnames"].items())
        if any(f".{name}".endswith(f".{each}") for each in names)
    ]
    cells = [cell for _, cell in sorted(module["cells"].items()) if cell["type"] == "$dff"]
    return [cell for cell in cells if cell["connections"]["Q"] in wires]
