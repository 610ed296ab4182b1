"""Run whole programs on `napier_top` in Icarus or Verilator, and compare them with the models."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.errors import ToolError
from golden.network import Network
from rtl_models.builds import Simulator, build, start_command
from rtl_models.parameters import top_parameters
from rtl_models.reference import Overflows, golden_network, winograd_forms
from rtl_models.sources import VERILOG
from rtl_models.sources import sources as module_sources
from simulator.compiler import CompiledNetwork, compile_network, program_layers
from simulator.hardware import Hardware
from simulator.plan import Program
from simulator.results import LayerTiming
from simulator.timing import time_network
from simulator.vector import run_vector

Array = NDArray[Any]

TOP = "top_harness"
HARNESS = tuple(VERILOG / "tb" / name for name in (f"{TOP}.v", "top_system.v", "axi_memory.v"))
"""Host and memory around `napier_top`; simulation only."""

COUNTERS = (
    "cycles",
    "compute",
    "fill",
    "stall_feed",
    "drain",
    "control",
    "stall_descriptor",
    "stall_weights",
    "stall_activations",
    "stall_outputs",
    "overflow_events",
    "overflow_outputs",
)
"""Counters of a layer and of a run, in the order of their registers."""

CAUSE_COUNTERS = COUNTERS[1:10]
"""Those that sum to the cycles."""

DONE = 2
"""STATUS of a program that ended well."""

IMAGE, MEMORY, REPORT = "image.hex", "memory.hex", "counters.txt"
"""Files of a simulation."""

BYTES_A_LINE = 32

LEAST_LAYERS = 16
"""Counter memories are a power of two of layers and at least this many: builds are reused."""


@dataclass(frozen=True)
class ProgramRun:
    """What the registers showed after one program.

    Parameters
    ----------
    status, error, descriptor, cycles : int
        A status of 0: the program did not end within the limit, and nothing was read.
    total : dict of str to int
        Keys of `COUNTERS`.
    layers : tuple of dict
        The same, of each layer of the program (`program_layers`); none where nothing was read.
    """

    status: int
    error: int
    descriptor: int
    cycles: int
    total: dict[str, int]
    layers: tuple[dict[str, int], ...]


@dataclass(frozen=True)
class TopRun:
    """What the Verilog did with one sample.

    Parameters
    ----------
    compiled : CompiledNetwork
    outputs : tuple of array
        In the order of `Network.outputs`.
    tensors : dict of int to array
        Every tensor that lies in memory or that the host computed, by index.
    unknown : dict of int to bool array
        Codes of tensors with bits that nothing was written to (Icarus knows).
    programs : tuple of ProgramRun
    seconds : float
        Wall time of the simulations, builds excluded.
    """

    compiled: CompiledNetwork
    outputs: tuple[Array, ...]
    tensors: dict[int, Array]
    unknown: dict[int, NDArray[np.bool_]]
    programs: tuple[ProgramRun, ...]
    seconds: float

    @property
    def cycles(self) -> int:
        """Cycles of all programs."""
        return sum(run.cycles for run in self.programs)


@dataclass(frozen=True)
class Bus:
    """The memory that the accelerator meets (tb/axi_memory.v).

    Parameters
    ----------
    latency, interval : int or None
        L and I of rule T9; None: as the hardware describes its memory.
    stall_percent, seed : int
        Pauses of every channel; then cycles are not those of the model.
    order : int
        0: data of writes may come first; 1: the address waits for data; 2: data for the address.
    base : int
        Address of the memory's first byte, a multiple of 4096.
    """

    latency: int | None = None
    interval: int | None = None
    stall_percent: int = 0
    seed: int = 1
    order: int = 0
    base: int = 0

    @property
    def as_described(self) -> bool:
        """Whether it keeps the times of the hardware's memory."""
        return self.latency is None and self.interval is None and self.stall_percent == 0


def network_parameters(compiled: CompiledNetwork) -> dict[str, int]:
    """Verilog parameters of `napier_top` that holds what a network's passes need."""
    memories = compiled.plan.memories
    layers = max((len(program_layers(each)) for each in compiled.plan.programs), default=0)
    parameters = top_parameters(
        compiled.hardware,
        memories.feed_beats,
        max(1, memories.stream_beats),
        memories.parameter_words,
    )
    return parameters | {"LAYERS": max(LEAST_LAYERS, 1 << (layers - 1).bit_length())}


class Memory:
    """External memory of a compiled network, and which of its bytes something was written to."""

    def __init__(self, compiled: CompiledNetwork) -> None:
        self.compiled = compiled
        self.data = np.zeros(compiled.plan.total_bytes, np.uint8)
        self.known = np.zeros(compiled.plan.total_bytes, np.bool_)
        for offset, data in compiled.image.items():
            self._put(offset, data)

    def write(self, tensor: int, codes: Array) -> None:
        """Write a tensor, if it lies in memory."""
        if tensor in self.compiled.plan.offsets:
            self._put(
                self.compiled.plan.offsets[tensor], self.compiled.encode_tensor(tensor, codes)
            )

    def read(self, tensor: int) -> tuple[Array, NDArray[np.bool_]]:
        """Codes of a tensor, and where some of their bits are unknown."""
        part = slice(
            self.compiled.plan.offsets[tensor],
            self.compiled.plan.offsets[tensor] + self.compiled.tensor_size_bytes(tensor),
        )
        codes = self.compiled.decode_tensor(tensor, self.data[part].tobytes())
        marks = np.where(self.known[part], 0, 255).astype(np.uint8).tobytes()
        return codes, self.compiled.decode_tensor(tensor, marks) != 0

    def image(self) -> str:
        """Text for $readmemh of the bytes that are known."""
        lines = []
        edges = np.flatnonzero(np.diff(self.known, prepend=False, append=False))
        for first, last in edges.reshape(-1, 2).tolist():
            lines.append(f"@{first:x}")
            text = self.data[first:last].tobytes().hex(" ").split(" ")
            lines += [
                " ".join(text[i : i + BYTES_A_LINE]) for i in range(0, len(text), BYTES_A_LINE)
            ]
        return "\n".join(lines) + "\n"

    def take(self, text: str) -> None:
        """Replace everything by what $writememh wrote."""
        words = [
            word
            for line in text.lower().splitlines()
            if not line.startswith(("/", "@"))
            for word in line.split()
        ]
        self.known = np.array(["x" not in word for word in words])
        plain = "".join("00" if "x" in word else word for word in words)
        self.data = np.frombuffer(bytes.fromhex(plain), np.uint8).copy()

    def _put(self, offset: int, data: bytes) -> None:
        self.data[offset : offset + len(data)] = np.frombuffer(data, np.uint8)
        self.known[offset : offset + len(data)] = True


@dataclass(frozen=True)
class TopSimulation:
    """How programs are run.

    Parameters
    ----------
    builds : Path
        Compiled simulations, reused where parameters and sources are the same.
    simulator : "icarus" or "verilator"
    bus : Bus
    overrides : mapping
        Verilog parameters to change.
    sources : sequence of Path or None
        Verilog files of the accelerator instead of the package's.
    waves : bool
        Write `waves.fst`.
    plain_waves : bool
        Write it as VCD text, which `rtl_models.waveform` reads, instead of FST.
    limit_cycles : int
        A program that takes longer is given up.
    """

    builds: Path
    simulator: Simulator = "icarus"
    bus: Bus = Bus()
    overrides: Mapping[str, int] = field(default_factory=dict)
    sources: Sequence[Path] | None = None
    waves: bool = False
    plain_waves: bool = False
    limit_cycles: int = 1_000_000_000

    def run(self, program: Program, memory: Memory, folder: Path) -> ProgramRun:
        """Run one program; `memory` is changed, and `folder` gets image, report and waves.

        Raises
        ------
        ToolError
            The simulator is missing, or the Verilog does not compile or run.
        """
        compiled = memory.compiled
        parameters = network_parameters(compiled) | {
            "MEMORY_BYTES": compiled.plan.total_bytes,
            "BASE": self.bus.base,
        }
        files = module_sources("napier_top") if self.sources is None else self.sources
        product = build(
            TOP,
            [*HARNESS, *files],
            parameters | dict(self.overrides),
            self.builds,
            self.simulator,
        )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / IMAGE).write_text(memory.image(), encoding="ascii")
        for name in (MEMORY, REPORT):
            (folder / name).unlink(missing_ok=True)
        process = subprocess.run(
            [
                *start_command(TOP, product, self.simulator, self.waves and not self.plain_waves),
                *self._plusargs(program, compiled.hardware),
            ],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode or not (folder / MEMORY).is_file():
            said = (process.stdout + process.stderr).strip().splitlines()
            reason = " | ".join(said[-3:]) or "no message"
            raise ToolError(
                f"{self.simulator.capitalize()} cannot run napier_top in {folder}: {reason}"
            )
        memory.take((folder / MEMORY).read_text(encoding="ascii"))
        return _read_report((folder / REPORT).read_text(encoding="ascii"))

    def _plusargs(self, program: Program, hardware: Hardware) -> list[str]:
        bus = self.bus
        dram = hardware.dram
        return [
            f"+image={IMAGE}",
            f"+program={program.descriptor_offset}",
            f"+layers={len(program_layers(program))}",
            f"+limit={self.limit_cycles}",
            f"+latency={dram.latency_cycles if bus.latency is None else bus.latency}",
            f"+interval={hardware.interval_cycles if bus.interval is None else bus.interval}",
            f"+stall={bus.stall_percent}",
            f"+seed={bus.seed}",
            f"+order={bus.order}",
            *(["+waves"] if self.waves else []),
        ]


def _read_report(text: str) -> ProgramRun:
    rows = [[int(word) for word in line.split()] for line in text.splitlines()]
    status, error, descriptor, cycles = rows[0]
    total, *layers = (
        dict(zip(COUNTERS, row, strict=True)) for row in rows[1:] or [[0] * len(COUNTERS)]
    )
    return ProgramRun(status, error, descriptor, cycles, total, tuple(layers))


def run_program(
    network: Network,
    hardware: Hardware,
    inputs: Mapping[int, Array] | Sequence[Array],
    simulation: TopSimulation,
    folder: Path | None = None,
) -> TopRun:
    """Compile a network, run its programs on `napier_top`, and read every tensor back.

    Host layers are computed by `simulator.vector` between the programs.

    Parameters
    ----------
    network : Network
    hardware : Hardware
    inputs : mapping of tensor index to array, or sequence in the order of `Network.inputs`
        One sample each.
    simulation : TopSimulation
    folder : Path or None
        Keeps memory images, reports and waves of each program; None: they are deleted.

    Raises
    ------
    ToolError
        The simulator is missing, or the Verilog does not compile or run.
    """
    compiled = compile_network(network, hardware)
    given = (
        inputs if isinstance(inputs, Mapping) else dict(zip(network.inputs, inputs, strict=True))
    )
    values = {index: np.asarray(array) for index, array in given.items()}
    values |= {constant.tensor: np.asarray(constant.codes) for constant in network.constants}
    unknown: dict[int, NDArray[np.bool_]] = {}
    memory = Memory(compiled)
    for index, codes in values.items():
        memory.write(index, codes)
    runs: list[ProgramRun] = []
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as kept:
        for part in compiled.plan.parts:
            if isinstance(part, Program):
                runs.append(simulation.run(part, memory, Path(kept) / f"program_{len(runs)}"))
                for tensor in compiled.written(part):
                    values[tensor], unknown[tensor] = memory.read(tensor)
            else:
                layer = network.layers[part.layer_index]
                output = network.tensors[part.output]
                values[part.output] = run_vector(layer, [values[i] for i in part.inputs], output)
                memory.write(part.output, values[part.output])
    return TopRun(
        compiled=compiled,
        outputs=tuple(values[i] for i in network.outputs),
        tensors=values,
        unknown=unknown,
        programs=tuple(runs),
        seconds=time.perf_counter() - begin,
    )


# -- comparison -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class TopVerification:
    """A run compared with the models.

    Parameters
    ----------
    run : TopRun
    codes, counters : int
        Codes of tensors and counters that were compared.
    difference : str or None
        The first one, in the order of the layers.
    """

    run: TopRun
    codes: int
    counters: int
    difference: str | None


def verify_network(
    network: Network,
    hardware: Hardware,
    inputs: Sequence[Array],
    simulation: TopSimulation,
    folder: Path | None = None,
) -> TopVerification:
    """Run one sample and compare every tensor with golden, every counter with the cycle model.

    Parameters are those of `run_program`. Cycles are compared where the memory is that of rule T9
    with the hardware's latency and interval.
    """
    run = run_program(network, hardware, inputs, simulation, folder)
    forms = winograd_forms(run.compiled.plan)
    expected, overflows = golden_network(network, hardware, inputs, forms)
    timings = time_network(network, hardware)
    timed = simulation.bus.as_described
    codes = counters = 0
    differences: list[str] = []
    for program, found in zip(run.compiled.plan.programs, run.programs, strict=True):
        if (found.status, found.error) != (DONE, 0):
            differences.append(
                f"the program at {program.descriptor_offset:#x} ended with STATUS {found.status},"
                f" ERROR {found.error}, DESCRIPTOR {found.descriptor}"
            )
            break
        for index, counts in zip(program_layers(program), found.layers, strict=True):
            layer = network.layers[index]
            tensor = layer.outputs[0]
            if tensor in run.unknown:
                codes += expected[tensor].size
                differences += _code_difference(
                    f"layer {layer.name!r}, tensor {network.tensors[tensor].name!r}",
                    expected[tensor],
                    run.tensors[tensor],
                    run.unknown[tensor],
                )
            wanted = expected_counters(timings[index], overflows.get(index), timed)
            counters += len(wanted)
            differences += [
                f"layer {layer.name!r}: {name} should be {value}, not {counts[name]}"
                for name, value in wanted.items()
                if counts[name] != value
            ]
        counters += 1 + len(found.total)
        differences += _sum_differences(found)
    return TopVerification(run, codes, counters, differences[0] if differences else None)


def _sum_differences(run: ProgramRun) -> list[str]:
    """Name registers of the whole run that are not the sums of its layers' counters."""
    sums = {name: sum(counts[name] for counts in run.layers) for name in COUNTERS}
    registers = {"CYCLES": run.cycles, **run.total}
    wanted = {"CYCLES": sums["cycles"], **sums}
    return [
        f"register {name} of the run should be {value}, not {registers[name]}"
        for name, value in wanted.items()
        if registers[name] != value
    ]


def expected_counters(
    timing: LayerTiming, overflows: Overflows | None, timed: bool
) -> dict[str, int]:
    """Counters of a layer by the models; without `timed` those that no memory has a say in."""
    causes = timing.cycles_by_cause
    names = CAUSE_COUNTERS if timed else ("compute", "fill", "stall_feed", "drain", "control")
    return {
        **({"cycles": timing.cycles} if timed else {}),
        **{name: causes[name] for name in names},
        "overflow_events": 0 if overflows is None else overflows.events,
        "overflow_outputs": 0 if overflows is None else overflows.outputs,
    }


def _code_difference(
    where: str, expected: Array, found: Array, unknown: NDArray[np.bool_]
) -> list[str]:
    wrong = unknown | (expected != found)
    if not wrong.any():
        return []
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    value = "unknown" if unknown[place] else int(found[place])
    return [f"{where}, element {list(place)}: should be {int(expected[place])}, not {value}"]
