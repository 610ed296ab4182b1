"""Area of the Verilog by module and by kind of PE, as Yosys counts it. Never flattened."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from typing import Any

from golden.errors import ToolError
from rtl_models.parameters import PE_KINDS, engine_parameters, shared_out_parameters
from rtl_models.runner import elaborate, module_name, run_yosys
from simulator.hardware import Hardware

Progress = Callable[[int, int, str], None]

TARGETS = {
    # As `synth`, but memories of 16 words and more stay what they are: their bits are counted.
    "generic": "synth -run begin:fine; opt -fast -full; memory_map t:$mem_v2 r:SIZE<16 %i;"
    " opt -full; techmap; opt -fast; abc -fast; opt -fast; memory_unpack",
    "ice40": "synth_ice40 -noflatten",
}
"""Yosys script of each target."""

HX8K_LUTS, HX8K_BRAMS = 7680, 32
"""Logic cells and RAM blocks of the largest iCE40 (Lattice, iCE40 LP/HX Family Data Sheet, table
1-1)."""

MEMORY_BITS = "memory bits"
"""Stands among the cells of a module for the bits of its memories."""

Design = tuple[str, Mapping[str, int]]
"""Top module and its parameters."""

SCHEMA = "napier.synth/1"

TOP = "napier_top"

_FLIP_FLOP = re.compile(r"\$_(S?DFF|ALDFF|DFFSR)\w*_|SB_DFF\w*")
_LATCH = re.compile(r"\$_(S?R|DLATCH\w*)_\w*")
_MEMORY_PORT = re.compile(r"\$mem\w*")
_YOSYS_ERROR = re.compile(r"ERROR: .*")


@dataclass(frozen=True)
class Area:
    """Cells of a module and of everything below it.

    Parameters
    ----------
    gates : int
        Generic gates of one or two inputs and 2:1 multiplexers, flip-flops excluded.
    flip_flops, latches : int
        Generic, one bit each.
    memory_bits : int
        Of memories of 16 words or more, which are neither gates nor flip-flops.
    ice40_luts, ice40_flip_flops, ice40_carries, ice40_brams : int
        Lattice iCE40: LUTs of four inputs, flip-flops, carry cells, RAM blocks of 4 kbit.
    """

    gates: int
    flip_flops: int
    latches: int
    memory_bits: int
    ice40_luts: int
    ice40_flip_flops: int
    ice40_carries: int
    ice40_brams: int


@dataclass(frozen=True)
class ModuleArea:
    """A module in its place of the hierarchy.

    Parameters
    ----------
    path : tuple of str
        Module names from the top to this one.
    instances : int
        In the whole design; all have the same parameters.
    area : Area
        Of one instance.
    """

    path: tuple[str, ...]
    instances: int
    area: Area


@dataclass(frozen=True)
class PEArea:
    """A kind of PE with the operands and the accumulator of the hardware.

    Parameters
    ----------
    kind : str
    parameters : dict of str to int
        Of `napier_pe`.
    addend, accumulator, pe : Area
        What makes the addend, the accumulate stage, and the whole PE.
    """

    kind: str
    parameters: dict[str, int]
    addend: Area
    accumulator: Area
    pe: Area


@dataclass(frozen=True)
class Synthesis:
    """Area of one accelerator.

    Parameters
    ----------
    hardware : str
    yosys : str
        Version; the counts depend on it.
    modules : tuple of ModuleArea
        The hierarchy, top first, every module before what it holds.
    pe_kinds : tuple of PEArea
    """

    hardware: str
    yosys: str
    modules: tuple[ModuleArea, ...]
    pe_kinds: tuple[PEArea, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {"schema": SCHEMA, **asdict(self)}


def synthesize(hardware: Hardware, progress: Progress | None = None) -> Synthesis:
    """Synthesize the accelerator of the hardware, and each kind of PE with its accumulator.

    Parameters
    ----------
    hardware : Hardware
    progress : function of (done, total, what), optional

    Raises
    ------
    ToolError
        Yosys is missing or fails.
    """
    kinds = pe_kinds(hardware)
    designs: dict[str, Design] = {TOP: (TOP, shared_out_parameters(hardware))}
    designs |= {kind: ("napier_pe", parameters) for kind, parameters in kinds.items()}
    areas, version = synthesize_designs(designs, progress)
    return Synthesis(
        hardware=hardware.name,
        yosys=version,
        modules=areas[TOP],
        pe_kinds=tuple(
            _pe_area(kind, parameters, areas[kind]) for kind, parameters in kinds.items()
        ),
    )


def synthesize_designs(
    designs: Mapping[str, Design], progress: Progress | None = None
) -> tuple[dict[str, tuple[ModuleArea, ...]], str]:
    """Synthesize several designs for both targets, two at a time.

    Parameters
    ----------
    designs : mapping of str to (str, mapping of str to int)
        Top module and its parameters, by a name of the caller's.
    progress : function of (done, total, what), optional

    Returns
    -------
    areas : dict of str to tuple of ModuleArea
        The hierarchy of each design, top first.
    yosys : str
        Version, such as "Yosys 0.23".
    """
    cells: dict[tuple[str, str], _Cells] = {}
    version = ""
    with ThreadPoolExecutor(2) as pool:
        jobs = {
            pool.submit(_synthesize, *design, target): (name, target)
            for target in reversed(TARGETS)  # the slowest first
            for name, design in designs.items()
        }
        try:
            for job in as_completed(jobs):
                cells[jobs[job]], version = job.result()
                if progress is not None:
                    progress(len(cells), len(jobs), " ".join(jobs[job]))
        finally:
            pool.shutdown(cancel_futures=True)
    areas = {
        name: tuple(_Tree(cells[name, "generic"], cells[name, "ice40"]).walk(top))
        for name, (top, _) in designs.items()
    }
    return areas, version


def pe_kinds(hardware: Hardware) -> dict[str, dict[str, int]]:
    """Parameters of `napier_pe` for every kind of PE, by a name that tells its operands.

    All have the activation operand and the accumulator of the hardware; the multiplier takes 8-bit
    weights minus a zero point.
    """
    engine = engine_parameters(hardware)
    shared = {name: engine[name] for name in ("ACC_BITS", "SATURATE", "EVENTS_W")}
    shared |= {name: engine[name] for name in ("SPILL", "WIDE_BITS")}
    shared["X_W"] = hardware.operand_bits
    kinds = {
        _kind_name("mac", 1, 9, hardware): ("mac", 1, 9),
        _kind_name("shift_add", 1, 9, hardware): ("shift_add", 1, 9),
        _kind_name("shift_add", 2, 9, hardware): ("shift_add", 2, 9),
        _kind_name("ternary", 1, 9, hardware): ("ternary", 1, 9),
    }
    own = (hardware.pe.kind, hardware.pe.terms, hardware.weight_operand_bits)
    kinds.setdefault(_kind_name(*own, hardware), own)
    return {
        name: {"PE_KIND": PE_KINDS[kind], "TERMS": terms, "WEIGHT_W": weight_bits, **shared}
        for name, (kind, terms, weight_bits) in kinds.items()
    }


def _kind_name(kind: str, terms: int, weight_bits: int, hardware: Hardware) -> str:
    if kind == "mac":
        return f"mac {hardware.operand_bits}x{weight_bits}"
    if kind == "ternary":
        return "ternary"
    return "shift_add serial" if terms == 1 else f"shift_add {terms} terms"


_Cells = dict[str, dict[str, int]]
"""For each module as Yosys names it: how many cells or instances of each type it holds."""


def _synthesize(top: str, parameters: Mapping[str, int], target: str) -> tuple[_Cells, str]:
    """Cells of every module, and the version of Yosys."""
    said = run_synthesis(top, parameters, target, f"{TARGETS[target]}; check -assert; stat -json")
    # What follows the modules is not JSON in every version.
    before, _, text = said.rpartition('"modules":')
    modules, _ = json.JSONDecoder().raw_decode(text.lstrip())
    version = before.rpartition('"creator": "')[2].partition(" (")[0]
    cells = {
        name: {**module["num_cells_by_type"], MEMORY_BITS: module["num_memory_bits"]}
        for name, module in modules.items()
    }
    return cells, version


def run_synthesis(top: str, parameters: Mapping[str, int], target: str, commands: str) -> str:
    """Read a module with these parameters and run commands of Yosys; give what it printed.

    Raises
    ------
    ToolError
        Yosys is missing, or fails at the `target`.
    """
    code, said = run_yosys(f"{elaborate(top, parameters)} {commands}")
    if code:
        errors = _YOSYS_ERROR.findall(said)
        reason = errors[0] if errors else f"it stopped with code {code}"
        raise ToolError(f"Yosys cannot synthesize {top} for {target}: {reason}")
    return said


@dataclass(frozen=True)
class _Tree:
    """The same design for both targets; Yosys gives its modules the same names in both."""

    generic: _Cells
    ice40: _Cells

    def top(self, module: str) -> str:
        return next(name for name in self.generic if module_name(name) == module)

    def walk(
        self, module: str, path: tuple[str, ...] = (), instances: int = 1
    ) -> Iterator[ModuleArea]:
        """Every module below `module`, itself first."""
        yosys_name = module if module in self.generic else self.top(module)
        path += (module_name(yosys_name),)
        yield ModuleArea(path, instances, self.area(yosys_name))
        for kind, count in sorted(
            self.generic[yosys_name].items(), key=lambda item: module_name(item[0])
        ):
            if kind in self.generic:
                yield from self.walk(kind, path, instances * count)

    def area(self, yosys_name: str) -> Area:
        generic = _total(self.generic, yosys_name)
        ice40 = _total(self.ice40, yosys_name)
        flip_flops = _count(generic, _FLIP_FLOP)
        latches = _count(generic, _LATCH)
        memory_bits = generic.pop(MEMORY_BITS)
        ports = _count(generic, _MEMORY_PORT)
        return Area(
            gates=sum(generic.values()) - flip_flops - latches - ports,
            flip_flops=flip_flops,
            latches=latches,
            memory_bits=memory_bits,
            ice40_luts=_count(ice40, re.compile("SB_LUT4")),
            ice40_flip_flops=_count(ice40, _FLIP_FLOP),
            ice40_carries=_count(ice40, re.compile("SB_CARRY")),
            ice40_brams=_count(ice40, re.compile(r"SB_RAM40_4K\w*")),
        )


def _total(cells: _Cells, module: str) -> dict[str, int]:
    """Cells by type of a module and everything below it."""
    total: dict[str, int] = {}
    for kind, count in cells[module].items():
        below = _total(cells, kind) if kind in cells else {kind: 1}
        for each, number in below.items():
            total[each] = total.get(each, 0) + count * number
    return total


def _count(cells: Mapping[str, int], kind: re.Pattern[str]) -> int:
    return sum(count for name, count in cells.items() if kind.fullmatch(name))


def _pe_area(kind: str, parameters: dict[str, int], modules: tuple[ModuleArea, ...]) -> PEArea:
    # A PE holds what makes the addend and the accumulate stage, which holds what fits the sums.
    areas = {each.path[-1]: each.area for each in modules if len(each.path) <= 2}
    (addend,) = areas.keys() - {"napier_pe", "pe_accumulator"}
    return PEArea(kind, parameters, areas[addend], areas["pe_accumulator"], areas["napier_pe"])
