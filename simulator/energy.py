"""From counted events to energy: a table of sourced costs and one formula for each part.

Per step of a PE, with X the operand width (`operand_bits`), W the weight operand width and A
`acc_bits`:

=========== ===============================================================================
compute     mac: a multiplier of X * W bits; shift_add: a shifter of X bits for each term
            and, between the terms of a parallel PE, adders of X + W bits; ternary: nothing.
            All: registers of X and the code.
accumulator an adder and a register of A bits; with spill also those of the wide
            accumulator, once in `spill_interval` steps.
=========== ===============================================================================

Adders, shifters and registers are linear in their width, multipliers in the product of their
widths. Every output code costs one 32 x 32 multiplier and one 32-bit adder, every operation of a
layer without weights one 32-bit adder (compute). A bit of memory costs what a bank of its size
costs: streams, feed words and parameters are in banks of weight_bytes / C, activations in banks of
activation_bytes / R, outputs of output_bytes / R. What comes from external memory is written into
the weight or the activation memory's banks, what goes there is read from the output memory's;
descriptors go into registers. A layer of the host costs its arithmetic and external memory. Idle
PEs and the clock cost nothing. Absolute energies from such a table are good to a factor of two or
so: compare them with each other.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from golden.errors import HardwareError
from simulator.hardware import Hardware
from simulator.results import Events

TABLES = Path(__file__).parent / "energy_tables"

DEFAULT_TABLE = "horowitz45"
"""What `energy.table = "default"` stands for."""

POST_BITS = 32
"""Width of the requantizer's multiplier and adder."""


@dataclass(frozen=True)
class EnergyTable:
    """Costs with where each comes from.

    Parameters
    ----------
    name, source : str
    add_fj_per_bit, shift_fj_per_bit, register_fj_per_bit : float
    multiply_fj_per_bit2 : float
        Per product of the two widths.
    sram_kilobytes, sram_fj_per_bit : tuple of float
        Energy of a read or written bit for banks of these sizes; between and beyond them a power
        law through the two nearest.
    dram_pj_per_byte : float
    static_mw : float
    sources : dict of str to str
        For each entry.
    """

    name: str
    source: str
    add_fj_per_bit: float
    multiply_fj_per_bit2: float
    shift_fj_per_bit: float
    register_fj_per_bit: float
    sram_kilobytes: tuple[float, ...]
    sram_fj_per_bit: tuple[float, ...]
    dram_pj_per_byte: float
    static_mw: float
    sources: dict[str, str]

    def sram_pj_per_bit(self, bank_bytes: float) -> float:
        """Energy of one bit read from or written to a bank of `bank_bytes`."""
        sizes, costs = np.log(self.sram_kilobytes), np.log(self.sram_fj_per_bit)
        size = np.log(bank_bytes / 1024)
        i = int(np.clip(np.searchsorted(sizes, size) - 1, 0, len(sizes) - 2))
        slope = (costs[i + 1] - costs[i]) / (sizes[i + 1] - sizes[i])
        return float(np.exp(costs[i] + slope * (size - sizes[i]))) * 1e-3


@dataclass(frozen=True)
class EnergyBreakdown:
    """Energy of one layer and one inference, in pJ."""

    compute: float
    accumulator: float
    sram: float
    dram: float
    static: float

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return self.compute + self.accumulator + self.sram + self.dram + self.static


def list_tables() -> list[str]:
    """Names of the tables that ship with the project."""
    return sorted(path.stem for path in TABLES.glob("*.toml"))


def load_table(name: str) -> EnergyTable:
    """Read a shipped table by name ("default" is `DEFAULT_TABLE`), or a TOML file by path.

    Raises
    ------
    HardwareError
        Unknown table, or a file that is not one.
    """
    chosen = DEFAULT_TABLE if name == "default" else name
    shipped = TABLES / f"{chosen}.toml"
    path = shipped if shipped.parent == TABLES and shipped.is_file() else Path(chosen)
    if not path.is_file():
        raise HardwareError(
            f"energy.table={name!r} is not an energy table; use one of {', '.join(list_tables())},"
            " or the path of a .toml file"
        )
    try:
        return _table(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise HardwareError(
            f"the energy table {path} cannot be read ({error}); compare it with {DEFAULT_TABLE}"
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise HardwareError(
            f"the energy table {path} lacks or misstates {error}; compare it with {DEFAULT_TABLE}"
        ) from None


@lru_cache(maxsize=8)
def _table(text: str) -> EnergyTable:
    data = tomllib.loads(text)
    sizes = tuple(float(size) for size in data["sram"]["kilobytes"])
    costs = tuple(_cost(cost, "sram.fj_per_bit") for cost in data["sram"]["fj_per_bit"])
    if len(sizes) != len(costs) or len(sizes) < 2 or list(sizes) != sorted(set(sizes)):
        raise ValueError("sram.kilobytes, two or more rising sizes with as many costs")
    return EnergyTable(
        name=str(data["name"]),
        source=str(data["source"]),
        add_fj_per_bit=_cost(data["add"]["fj_per_bit"], "add.fj_per_bit"),
        multiply_fj_per_bit2=_cost(data["multiply"]["fj_per_bit2"], "multiply.fj_per_bit2"),
        shift_fj_per_bit=_cost(data["shift"]["fj_per_bit"], "shift.fj_per_bit"),
        register_fj_per_bit=_cost(data["register"]["fj_per_bit"], "register.fj_per_bit"),
        sram_kilobytes=sizes,
        sram_fj_per_bit=costs,
        dram_pj_per_byte=_cost(data["dram"]["pj_per_byte"], "dram.pj_per_byte"),
        static_mw=_cost(data["static"]["mw"], "static.mw"),
        sources={key: str(part["source"]) for key, part in data.items() if isinstance(part, dict)},
    )


def _cost(value: float, name: str) -> float:
    if not 0 <= float(value) < float("inf"):
        raise ValueError(f"{name}={value}, which must be finite and not negative")
    return float(value)


@dataclass(frozen=True)
class Access:
    """Bits moved in or out of banks of one size."""

    bits: int
    bank_bytes: float


TRANSFORM_ADDITIONS = (0.0, 2.0, 4.0)
"""Additions for each operand of a transformed word, by form: 2n transforms of 4, or 12, for n*n."""

SUM_ADDITIONS = (0, 6, 20)
"""Additions for each result that the output transform sums, at most, by form: m + m * m."""


def memory_accesses(events: Events, hardware: Hardware, form: int = 0) -> list[Access]:
    """On-chip memory traffic of a layer: its own and that of the transfers.

    `form` is the Winograd form that computed it (`Geometry.form`): its transformed words are
    written and read between the two dimensions and again in a chunk, its sums at every result.
    """
    array, buffers = hardware.array, hardware.buffers
    stream_bank = buffers.weight_bytes / array.cols
    activation_bank = buffers.activation_bytes / array.rows
    output_bank = buffers.output_bytes / array.rows
    window_bits = array.rows * array.feed * array.activation_bits
    return [
        Access(events.entries * hardware.entry_bits, stream_bank),
        Access(events.feed_words * hardware.feed_word_bits, stream_bank),
        Access(events.parameter_reads * hardware.parameter_bits, stream_bank),
        Access(events.window_words * window_bits, activation_bank),
        Access(events.weight_load_bytes * 8, stream_bank),
        Access(events.activation_load_bytes * 8, activation_bank),
        Access(events.output_codes * array.activation_bits, output_bank),
        Access(events.output_store_bytes * 8, output_bank),
        *_winograd_accesses(events, hardware, form),
    ]


def _winograd_accesses(events: Events, hardware: Hardware, form: int) -> list[Access]:
    if not form:
        return []
    array, winograd = hardware.array, hardware.winograd
    word_bits = array.rows * array.feed * hardware.operand_bits
    tile_bits = hardware.post.lanes * 4**form * hardware.result_bits
    places = array.cols * hardware.drain_groups
    return [
        Access(4 * events.transformed_words * word_bits, winograd.chunk_words * word_bits / 4),
        Access(2 * events.summed_results * tile_bits, places * tile_bits / 8),
    ]


def sram_bytes(events: Events, hardware: Hardware, form: int = 0) -> int:
    """Bytes read from and written to on-chip memories, rounded up; see `memory_accesses`."""
    return -(-sum(access.bits for access in memory_accesses(events, hardware, form)) // 8)


def layer_energy(
    events: Events, hardware: Hardware, table: EnergyTable, cycles: int = 0, form: int = 0
) -> EnergyBreakdown:
    """Energy of a layer.

    Parameters
    ----------
    events : Events
    hardware : Hardware
    table : EnergyTable
    cycles : int
        Only a table with a static power needs them.
    form : int
        The Winograd form that computes it, see `memory_accesses`; its transforms count as compute.

    Returns
    -------
    EnergyBreakdown
        In pJ.
    """
    accesses = memory_accesses(events, hardware, form)
    seconds = cycles / hardware.clock_hz
    return EnergyBreakdown(
        compute=events.steps * _step_fj(hardware, table) * 1e-3
        + _transform_pj(events, hardware, table, form)
        + _post_pj(events, table),
        accumulator=events.steps * _accumulate_fj(hardware, table) * 1e-3,
        sram=sum(access.bits * table.sram_pj_per_bit(access.bank_bytes) for access in accesses),
        dram=(events.dram_read_bytes + events.dram_write_bytes) * table.dram_pj_per_byte,
        static=table.static_mw * seconds * 1e9,
    )


def _step_fj(hardware: Hardware, table: EnergyTable) -> float:
    x, w = hardware.operand_bits, hardware.weight_operand_bits
    registers = (x + hardware.code_bits) * table.register_fj_per_bit
    if hardware.pe.kind == "mac":
        return registers + x * w * table.multiply_fj_per_bit2
    if hardware.pe.kind == "ternary":
        return registers
    terms = hardware.pe.terms
    shifters = terms * x * table.shift_fj_per_bit
    return registers + shifters + (terms - 1) * (x + w) * table.add_fj_per_bit


def _transform_pj(events: Events, hardware: Hardware, table: EnergyTable, form: int) -> float:
    """Adders of the Winograd transforms (rules W2, W5)."""
    array = hardware.array
    operands = events.transformed_words * array.rows * array.feed
    inputs = operands * TRANSFORM_ADDITIONS[form] * hardware.operand_bits
    results = events.summed_results * hardware.post.lanes
    outputs = results * SUM_ADDITIONS[form] * hardware.result_bits
    return (inputs + outputs) * table.add_fj_per_bit * 1e-3


def _accumulate_fj(hardware: Hardware, table: EnergyTable) -> float:
    array = hardware.array
    bits = float(array.acc_bits)
    if array.spill_interval:
        bits += array.wide_acc_bits / array.spill_interval
    return bits * (table.add_fj_per_bit + table.register_fj_per_bit)


def _post_pj(events: Events, table: EnergyTable) -> float:
    """Post-processor; layers that only move codes do not use it."""
    if events.steps == 0 and events.vector_operations == 0:
        return 0.0
    add = POST_BITS * table.add_fj_per_bit
    multiply = POST_BITS * POST_BITS * table.multiply_fj_per_bit2
    return (events.output_codes * (multiply + add) + events.vector_operations * add) * 1e-3
