"""Energy: sums by hand, and properties that any table must have."""

from __future__ import annotations

import math

import pytest

from golden.errors import HardwareError
from simulator.energy import (
    DEFAULT_TABLE,
    TABLES,
    layer_energy,
    list_tables,
    load_table,
    memory_accesses,
    sram_bytes,
)
from simulator.hardware import changed_hardware, load_hardware
from simulator.results import Events


def hardware_with(preset="mac16x16", **tables):
    return changed_hardware(load_hardware(preset), **tables)


def test_horowitz_operations_are_reproduced():
    """Horowitz, ISSCC 2014, 45 nm, in pJ: the fits stay within 15 % (add) and 3 % (multiply)."""
    table = load_table("horowitz45")
    for bits, energy_pj in ((8, 0.03), (16, 0.05), (32, 0.1)):
        assert bits * table.add_fj_per_bit * 1e-3 == pytest.approx(energy_pj, rel=0.15)
    for bits, energy_pj in ((8, 0.2), (32, 3.1)):
        assert bits**2 * table.multiply_fj_per_bit2 * 1e-3 == pytest.approx(energy_pj, rel=0.03)
    for kilobytes, energy_pj in ((8, 10), (32, 20), (1024, 100)):
        assert 64 * table.sram_pj_per_bit(kilobytes * 1024) == pytest.approx(energy_pj, rel=1e-9)


def test_jouppi_memories_are_reproduced():
    """Jouppi et al., ISCA 2021, 7 nm: 64 bits of 8 KB, 32 KB, 1 MB; DRAM 1300 pJ."""
    table = load_table("jouppi7")
    for kilobytes, energy_pj in ((8, 7.5), (32, 8.5), (1024, 14)):
        assert 64 * table.sram_pj_per_bit(kilobytes * 1024) == pytest.approx(energy_pj, rel=1e-9)
    assert 8 * table.dram_pj_per_byte == 1300


def test_a_mac_step_by_hand():
    """9 x 9 multiplier, registers of 9 + 9 bits; a 24-bit adder and register."""
    table = load_table("horowitz45")
    energy = layer_energy(Events(steps=1000), hardware_with(), table)
    assert energy.compute == pytest.approx(81 * 3.07 + 18 * 9.0)
    assert energy.accumulator == pytest.approx(24 * (3.2 + 9.0))
    assert energy.sram == energy.dram == energy.static == 0
    assert energy.total == energy.compute + energy.accumulator


def test_shift_add_and_ternary_steps_by_hand():
    table = load_table("horowitz45")
    step = Events(steps=1000)
    serial = layer_energy(step, hardware_with("nhot2_16x16"), table)
    assert serial.compute == pytest.approx(9 * 3.0 + (9 + 6) * 9.0)
    parallel = layer_energy(step, hardware_with("nhot2_parallel"), table)
    assert parallel.compute == pytest.approx(2 * 9 * 3.0 + 18 * 3.2 + (9 + 12) * 9.0)
    ternary = layer_energy(step, hardware_with("ternary16x16"), table)
    assert ternary.compute == pytest.approx((9 + 2) * 9.0)


def test_a_spilling_accumulator_pays_its_wide_part_once_an_interval():
    table = load_table("horowitz45")
    machine = hardware_with(array={"acc_bits": 16, "spill_interval": 8, "wide_acc_bits": 32})
    energy = layer_energy(Events(steps=1000), machine, table)
    assert energy.accumulator == pytest.approx((16 + 32 / 8) * 12.2)


def test_accumulator_energy_is_linear_in_its_width():
    table = load_table("cacti45")
    energies = [
        layer_energy(Events(steps=7), hardware_with(array={"acc_bits": bits}), table).accumulator
        for bits in (8, 16, 32)
    ]
    assert energies[1] == pytest.approx(2 * energies[0])
    assert energies[2] == pytest.approx(4 * energies[0])


def test_dram_costs_its_bytes():
    energy = layer_energy(
        Events(dram_read_bytes=3, dram_write_bytes=5), hardware_with(), load_table("horowitz45")
    )
    assert energy.dram == 8 * 162.5


def test_sram_bytes_by_hand():
    """16 rows x 4 operands a window word; widths of the entries and words from the hardware."""
    machine = hardware_with()
    events = Events(entries=8, window_words=2, feed_words=2, parameter_reads=8, output_codes=16)
    bits = 8 * machine.entry_bits + 2 * machine.feed_word_bits + 8 * machine.parameter_bits
    assert sram_bytes(events, machine) == math.ceil((bits + 2 * 64 * 8 + 16 * 8) / 8)
    assert sum(access.bits for access in memory_accesses(events, machine)) == (
        bits + 2 * 64 * 8 + 16 * 8
    )


@pytest.mark.parametrize("name", list_tables())
def test_every_table_is_sourced_and_rises_with_size(name):
    table = load_table(name)
    assert table.name == name
    assert set(table.sources) == {
        "add",
        "multiply",
        "shift",
        "register",
        "sram",
        "dram",
        "static",
    }
    assert all(table.sources.values())
    costs = [table.sram_pj_per_bit(1 << k) for k in range(6, 26)]
    assert costs == sorted(costs)
    assert costs[0] > 0


def test_default_is_the_named_table():
    assert load_table("default") == load_table(DEFAULT_TABLE)
    assert {"horowitz45", "jouppi7"} <= set(list_tables())


def test_an_unknown_table_names_those_there_are():
    with pytest.raises(HardwareError, match="'asic3' is not an energy table; use one of cacti45, "):
        load_table("asic3")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name = 3 =", "cannot be read"),
        ('name = "x"\nsource = "y"', "lacks or misstates 'sram'"),
    ],
)
def test_a_broken_table_is_refused_in_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "table.toml"
    path.write_text(text)
    with pytest.raises(HardwareError, match=sentence):
        load_table(str(path))


def test_a_negative_cost_is_refused(tmp_path):
    path = tmp_path / "table.toml"
    text = (TABLES / "jouppi7.toml").read_text()
    path.write_text(text.replace("fj_per_bit2 = 1.09", "fj_per_bit2 = -1.09"))
    with pytest.raises(HardwareError, match=r"multiply.fj_per_bit2=-1.09"):
        load_table(str(path))


def test_static_power_is_power_times_time(tmp_path):
    """2 mW for 500 cycles at 500 MHz: 1 us, 2 nJ."""
    path = tmp_path / "table.toml"
    text = (TABLES / "jouppi7.toml").read_text()
    path.write_text(text.replace("mw = 0.0", "mw = 2.0"))
    energy = layer_energy(Events(), hardware_with(), load_table(str(path)), cycles=500)
    assert energy.static == pytest.approx(2000)
