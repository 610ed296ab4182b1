"""Place and route a module on the largest iCE40: the logic cells it really takes, and its clock."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from golden.errors import ToolError
from rtl_models.runner import find_tool
from rtl_models.synth import Progress, pe_kinds, run_synthesis
from simulator.hardware import Hardware

DEVICE = ("--hx8k", "--package", "ct256")
"""HX8K, the iCE40 of most logic cells, in its package of most pins."""

SEED = 1
"""Of the placement, which begins at random: another seed changes the clock by some per cent."""


@dataclass(frozen=True)
class Placement:
    """A module alone on an iCE40 HX8K.

    Parameters
    ----------
    logic_cells : int
        Of one LUT and one flip-flop each, after packing.
    clock_mhz : float
        Highest clock that nextpnr finds for it, in MHz.
    """

    logic_cells: int
    clock_mhz: float


def place_pe_kinds(hardware: Hardware, progress: Progress | None = None) -> dict[str, Placement]:
    """Place every kind of PE (`synth.pe_kinds`), by its name.

    Raises
    ------
    ToolError
        Yosys or nextpnr-ice40 is missing or fails; a PE of more pins or cells than there are.
    """
    find_tool("nextpnr-ice40")
    kinds = pe_kinds(hardware)
    placed: dict[str, Placement] = {}
    for kind, parameters in kinds.items():
        if progress is not None:
            progress(len(placed), len(kinds), f"{kind} placed")
        placed[kind] = place("napier_pe", parameters)
    return placed


def place(top: str, parameters: Mapping[str, int]) -> Placement:
    """Synthesize a module flat, place and route it alone.

    Parameters
    ----------
    top : str
    parameters : mapping of str to int

    Raises
    ------
    ToolError
        Yosys or nextpnr-ice40 is missing or fails; a module of more pins or cells than there are.
    """
    with tempfile.TemporaryDirectory() as folder:
        netlist, report = Path(folder) / "netlist.json", Path(folder) / "report.json"
        run_synthesis(top, parameters, "ice40", f'synth_ice40 -json "{netlist}"')
        command = [find_tool("nextpnr-ice40"), *DEVICE, "--seed", str(SEED)]
        command += [
            "--timing-allow-fail",
            "--quiet",
            "--json",
            str(netlist),
            "--report",
            str(report),
        ]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        if process.returncode:
            errors = [line for line in process.stderr.splitlines() if line.startswith("ERROR: ")]
            reason = errors[0] if errors else f"it stopped with code {process.returncode}"
            raise ToolError(f"nextpnr-ice40 cannot place {top} on an HX8K: {reason}")
        found = json.loads(report.read_text(encoding="utf-8"))
    (clock,) = found["fmax"].values()
    return Placement(found["utilization"]["ICESTORM_LC"]["used"], clock["achieved"])
