"""`napier synth`: tables of area."""

from __future__ import annotations

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rtl_models.placement import Placement
from rtl_models.synth import HX8K_BRAMS, HX8K_LUTS, Area, Synthesis

HEADINGS = ("gates", "FFs", "bits", "LUTs", "FFs", "carry", "BRAM")
"""Generic gates, flip-flops and bits of memories, then iCE40."""


def synthesis_table(
    synthesis: Synthesis, placed: Mapping[str, Placement] | None = None
) -> RenderableType:
    """Area by module, then by kind of PE, then those placed; fits 80 columns."""
    modules = _table("module")
    for each in synthesis.modules:
        name = "  " * (len(each.path) - 1) + each.path[-1]
        modules.add_row(name, str(each.instances), *_counts(each.area))
    kinds = _table("PE, same accumulator", counted=False)
    for kind in synthesis.pe_kinds:
        kinds.add_row(kind.kind, *_counts(kind.pe))
        kinds.add_row("  addend", *_counts(kind.addend))
    return Group(
        Text(
            f"{synthesis.hardware}: one instance and all below it, as {synthesis.yosys} counts\n"
            "generic: gates, FFs, bits of memories; iCE40: LUTs, FFs, carry, BRAM"
        ),
        modules,
        Text(_fit(synthesis.modules[0].area)),
        Text(),
        kinds,
        *(() if placed is None else (Text(), _placement_table(placed))),
    )


def _placement_table(placed: Mapping[str, Placement]) -> RenderableType:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("PE alone on an iCE40 HX8K", no_wrap=True)
    table.add_column("logic cells", justify="right")
    table.add_column("clock, MHz", justify="right")
    for kind, each in placed.items():
        table.add_row(kind, str(each.logic_cells), f"{each.clock_mhz:.1f}")
    return table


def _table(first: str, *, counted: bool = True) -> Table:
    table = Table(
        box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False, expand=True
    )
    table.add_column(first, ratio=1, no_wrap=True)
    for heading in (("count",) if counted else ()) + HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _counts(area: Area) -> tuple[str, ...]:
    generic = (area.gates, area.flip_flops, area.memory_bits)
    ice40 = (area.ice40_luts, area.ice40_flip_flops, area.ice40_carries, area.ice40_brams)
    return tuple(map(str, generic + ice40))


def _fit(machine: Area) -> str:
    """Say whether the whole can fit the largest iCE40: a logic cell holds one LUT and one FF."""
    cells = max(machine.ice40_luts, machine.ice40_flip_flops)
    needed = f"{cells} of {HX8K_LUTS} logic cells, {machine.ice40_brams} of {HX8K_BRAMS} RAM blocks"
    if cells > HX8K_LUTS or machine.ice40_brams > HX8K_BRAMS:
        return f"too large for an iCE40 HX8K: {needed}"
    return f"of an iCE40 HX8K at least {needed}"
