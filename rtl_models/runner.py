"""Run Icarus, Verilator and Yosys on the Verilog: benches, lint, proofs. Raises, never exits."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

from golden.errors import ToolError
from rtl_models.sources import sources as module_sources

PACKAGES = {"iverilog": "iverilog", "vvp": "iverilog", "verilator": "verilator"}
PACKAGES |= {"yosys": "yosys", "yosys-abc": "yosys", "nextpnr-ice40": "nextpnr-ice40"}
"""Debian package of each program."""

TIMESCALE = ("1ns", "1ps")


class VerificationError(Exception):
    """A bench that ran and found the Verilog wrong; not bad input, hence not a NapierError."""


@dataclass(frozen=True)
class BenchResult:
    """What a bench that passed did.

    Parameters
    ----------
    tests : tuple of str
        Names of the cocotb tests that ran, at least one.
    seconds : float
        Wall time of the tests, the build excluded.
    seed : int
    waves : Path or None
        The FST file, where waves were asked for (also by the environment variable WAVES=1).
    """

    tests: tuple[str, ...]
    seconds: float
    seed: int
    waves: Path | None


def find_tool(name: str) -> str:
    """Path of an outside program; ToolError with the apt line where it is missing."""
    path = shutil.which(name)
    if path is None:
        raise ToolError(
            f"{name} is needed but not installed;"
            f" install it with: sudo apt-get install {PACKAGES[name]}"
        )
    return path


def run_bench(
    top: str,
    bench: Path,
    build_dir: Path,
    *,
    parameters: Mapping[str, int] | None = None,
    sources: Sequence[Path] | None = None,
    test_filter: str | None = None,
    seed: int = 1,
    environment: Mapping[str, str] | None = None,
    waves: bool = False,
) -> BenchResult:
    """Build a module with Icarus and run a cocotb bench on it.

    Parameters
    ----------
    top : str
        Module that the bench sees as `dut`.
    bench : Path
        Python file with the cocotb tests; its folder is put on the import path.
    build_dir : Path
        Build products, log and results; give every run its own (pytest: `tmp_path`).
    parameters : mapping of str to int, optional
        Verilog parameters of `top`.
    sources : sequence of Path, optional
        Verilog files; by default the package's `top` and what it needs.
    test_filter : str, optional
        Regular expression; only cocotb tests whose full name matches are run. The state of the
        design survives from test to test, so what needs power-up state needs a run of its own.
    seed : int
        Seed of Python's `random` in the bench; named in the message of a failure.
    environment : mapping, optional
        Extra environment variables of the bench.
    waves : bool
        Write `<build_dir>/<top>.fst`.

    Returns
    -------
    BenchResult

    Raises
    ------
    ToolError
        Icarus or cocotb is missing, the Verilog does not compile, the bench cannot be imported, or
        not one test ran.
    VerificationError
        A test failed; the message names the tests, what they said, the seed and the log.
    """
    find_tool("iverilog")
    find_tool("vvp")
    try:
        from cocotb_tools.runner import get_runner
    except ImportError as error:
        raise ToolError(
            "cocotb is needed but not installed; install it with: pip install 'napier-sim[rtl]'"
        ) from error

    build_dir = build_dir.resolve()
    build_dir.mkdir(parents=True, exist_ok=True)
    build_log, run_log = build_dir / "build.log", build_dir / "run.log"
    results = build_dir / "results.xml"
    fst = build_dir / f"{top}.fst"
    runner = get_runner("icarus")
    try:
        runner.build(
            sources=list(module_sources(top) if sources is None else sources),
            hdl_toplevel=top,
            parameters=dict(parameters or {}),
            build_dir=build_dir,
            always=True,
            timescale=TIMESCALE,
            waves=waves,
            log_file=build_log,
        )
        complaint = build_log.read_text(errors="replace").strip()
    except (RuntimeError, SystemExit):
        complaint = _tail(build_log)
    if complaint:  # a warning too: Icarus only warns of a parameter that does not exist
        raise ToolError(f"Icarus cannot build {top} with {dict(parameters or {})}: {complaint}")

    # The runner exits the interpreter on failure under pytest and raises or says nothing otherwise;
    # the results file is the one witness that holds everywhere.
    with _on_path(bench.parent), _no_exit():
        runner.test(
            hdl_toplevel=top,
            test_module=bench.stem,
            build_dir=build_dir,
            test_dir=build_dir,
            results_xml=str(results),
            seed=seed,
            test_filter=test_filter,
            timescale=TIMESCALE,
            waves=waves,
            log_file=run_log,
            extra_env={
                "COCOTB_LOG_LEVEL": "WARNING",
                "PYGPI_PYTHON_BIN": sys.executable,
                **(environment or {}),
            },
        )
    return _judge(results, run_log, bench, seed, fst if fst.is_file() else None)


def _judge(results: Path, log: Path, bench: Path, seed: int, waves: Path | None) -> BenchResult:
    if not results.is_file():
        raise ToolError(f"bench {bench.name} (seed {seed}) left no results: {_tail(log)}")
    cases = list(ElementTree.parse(results).iter("testcase"))
    ran = [case for case in cases if case.find("skipped") is None]
    if not ran:
        raise ToolError(f"bench {bench.name} ran not one test; check the test filter")
    failures = {
        case.get("name", "?"): problem
        for case in ran
        for problem in [*case.findall("failure"), *case.findall("error")]
    }
    if failures:
        said = [line for line in log.read_text(errors="replace").splitlines() if "FATAL" in line]
        said += [
            f"{name}: {problem.get('error_msg') or problem.get('message') or problem.text or ''}"
            for name, problem in failures.items()
        ]
        reports = "; ".join(said)
        raise VerificationError(
            f"{len(failures)} of {len(ran)} tests of {bench.name} failed with seed {seed}"
            f" (log: {log}): {reports}"
        )
    return BenchResult(
        tests=tuple(case.get("name", "?") for case in ran),
        seconds=sum(float(case.get("time", 0)) for case in ran),
        seed=seed,
        waves=waves,
    )


def lint(
    tool: str,
    top: str,
    parameters: Mapping[str, int] | None = None,
    sources: Sequence[Path] | None = None,
) -> str:
    """Check a module with one tool, all its warnings on.

    Parameters
    ----------
    tool : str
        "iverilog", "verilator" or "yosys".
    top : str
    parameters : mapping of str to int, optional
    sources : sequence of Path, optional
        Verilog files; by default the package's `top` and what it needs.

    Returns
    -------
    str
        What the tool complained about; empty where it is content. Yosys also refuses latches.
    """
    sources = module_sources(top) if sources is None else sources
    files = [str(path) for path in sources]
    settings = list((parameters or {}).items())
    if tool == "iverilog":
        overrides = [f"-P{top}.{name}={value}" for name, value in settings]
        command = ["-g2012", "-Wall", "-t", "null", "-s", top, *overrides, *files]
        return _complaints("iverilog", command)
    if tool == "verilator":
        overrides = [f"-G{name}={value}" for name, value in settings]
        command = ["--lint-only", "-Wall", "--top-module", top, *overrides, *files]
        return _complaints("verilator", command)
    if tool == "yosys":
        script = elaborate(top, parameters or {}, sources) + " proc; check -assert;"
        script += " select -assert-none t:$dlatch t:$adlatch t:$dlatchsr"
        return _complaints("yosys", ["-q", "-p", script])
    raise ValueError(f"no lint tool {tool!r}; use iverilog, verilator or yosys")


def elaborate(
    top: str, parameters: Mapping[str, int], sources: Sequence[Path] | None = None
) -> str:
    """Yosys commands that read a module and those below it, with the given parameters.

    Parameters
    ----------
    top : str
    parameters : mapping of str to int
    sources : sequence of Path, optional
        Verilog files; by default the package's `top` and what it needs.
    """
    files = " ".join(f'"{path}"' for path in (module_sources(top) if sources is None else sources))
    # `hierarchy -chparam` stumbles over a value that is the default; `chparam` does not.
    settings = "".join(f" -set {name} {value}" for name, value in parameters.items())
    chparam = f" chparam{settings} {top};" if settings else ""
    return f"read_verilog -sv {files};{chparam} hierarchy -check -top {top};"


def module_name(yosys_name: str) -> str:
    r"""Name in the Verilog of what Yosys calls `\name`, `$paramod$hash\name` or `...\name\P=v`."""
    if not yosys_name.startswith("$paramod"):
        return yosys_name.removeprefix("\\")
    return yosys_name.split("\\")[1]


def run_yosys(script: str) -> tuple[int, str]:
    """Run a Yosys script; return its exit code and everything it printed."""
    process = subprocess.run(
        [find_tool("yosys"), "-p", script], capture_output=True, text=True, check=False
    )
    return process.returncode, process.stdout + process.stderr


def yosys(script: str) -> str:
    """Run a Yosys script; return everything it printed.

    Raises
    ------
    ToolError
        Yosys is missing or failed.
    """
    code, said = run_yosys(script)
    if code:
        raise ToolError(f"yosys failed: {' | '.join(said.strip().splitlines()[-5:])}")
    return said


def run_tool(command: Sequence[str], folder: Path | None = None) -> str:
    """Run a program in `folder`; return what it printed.

    Raises
    ------
    ToolError
        It is missing or failed.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    except FileNotFoundError:
        raise ToolError(
            f"{command[0]} is needed but not installed; install it with: sudo apt-get install"
            f" {command[0]}"
        ) from None
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout).strip().splitlines() or ["no message"]
        raise ToolError(f"{Path(command[0]).name} failed: {lines[0]}") from None
    return done.stdout


@cache
def verilator_include() -> Path:
    """Folder of Verilator's headers and of its runtime's sources."""
    root = run_tool([find_tool("verilator"), "--getenv", "VERILATOR_ROOT"])
    return Path(root.strip()) / "include"


def _complaints(tool: str, arguments: Sequence[str]) -> str:
    process = subprocess.run(
        [find_tool(tool), *arguments], capture_output=True, text=True, check=False
    )
    said = (process.stdout + process.stderr).strip()
    if process.returncode and not said:
        return f"{tool} stopped with code {process.returncode}"
    return said


def _tail(log: Path, lines: int = 12) -> str:
    if not log.is_file():
        return "it wrote no log"
    return " | ".join(log.read_text(errors="replace").strip().splitlines()[-lines:])


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    """Put `folder` on sys.path, which the runner hands on; it overwrites PYTHONPATH."""
    before = list(sys.path)
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
    finally:
        sys.path[:] = before


@contextmanager
def _no_exit() -> Iterator[None]:
    try:
        yield
    except (SystemExit, RuntimeError):
        # Told by the results file and the log, which the caller reads next.
        return
