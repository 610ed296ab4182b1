"""Compile a harness with Icarus or Verilator once, and start it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from golden.errors import ToolError
from rtl_models.runner import find_tool

Simulator = Literal["icarus", "verilator"]


def build(
    top: str,
    files: Sequence[Path],
    parameters: Mapping[str, int],
    builds: Path,
    simulator: Simulator,
    defines: Sequence[str] = (),
) -> Path:
    """Compile a harness, or take the compilation of the same parameters and sources.

    Parameters
    ----------
    top : str
        Module of the harness.
    files : sequence of Path
        Its source and all it needs.
    parameters : mapping of str to int
    builds : Path
        Folder of the compilations.
    simulator : "icarus" or "verilator"
        Icarus compiles in seconds and knows unknown bits; Verilator takes minutes and then is
        hundreds of times as fast.
    defines : sequence of str
        Macros to define.

    Returns
    -------
    Path
        For `start_command`.

    Raises
    ------
    ToolError
        The simulator is missing, or the Verilog does not compile.
    """
    digest = hashlib.sha256(repr((top, sorted(parameters.items()), simulator, *defines)).encode())
    for path in files:
        digest.update(path.read_bytes())
    product = builds / f"{top}_{digest.hexdigest()[:16]}"
    if product.exists():
        return product
    builds.mkdir(parents=True, exist_ok=True)
    unfinished = product.with_suffix(f".{os.getpid()}")
    command = _icarus if simulator == "icarus" else _verilator
    process = subprocess.run(
        [*command(top, parameters, defines, unfinished), *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        said = (process.stdout + process.stderr).strip().splitlines()
        raise ToolError(f"{simulator.capitalize()} cannot compile {top}: {' | '.join(said[:5])}")
    if product.is_dir():  # somebody else was faster
        shutil.rmtree(unfinished, ignore_errors=True)
    else:
        unfinished.replace(product)
    return product


def start_command(top: str, product: Path, simulator: Simulator, waves: bool = False) -> list[str]:
    """Return the command that runs a compilation; the harness's plusargs come behind it."""
    if simulator == "icarus":
        return [find_tool("vvp"), "-n", str(product.resolve()), *(["-fst"] if waves else [])]
    random_bits = ("+verilator+rand+reset+2", "+verilator+seed+1")
    return [str(product.resolve() / top), *random_bits]


def _icarus(
    top: str, parameters: Mapping[str, int], defines: Sequence[str], product: Path
) -> list[str]:
    """Compile to a file for vvp."""
    return [
        *(find_tool("iverilog"), "-g2012", "-s", top, "-o", str(product)),
        *(f"-D{name}" for name in defines),
        *(f"-P{top}.{name}={value}" for name, value in parameters.items()),
    ]


def _verilator(
    top: str, parameters: Mapping[str, int], defines: Sequence[str], product: Path
) -> list[str]:
    """Compile to a folder with a program; what reset does not set starts with random bits."""
    return [
        *(find_tool("verilator"), "--binary", "--timing", "--top-module", top),
        *("-Mdir", str(product), "-o", top, "-O3", "--x-initial", "unique"),
        *("--trace-fst", "-Wno-fatal", "-Wno-lint", "-Wno-style"),
        *(f"+define+{name}" for name in defines),
        *(f"-G{name}={value}" for name, value in parameters.items()),
    ]
