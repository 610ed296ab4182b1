"""Rung L4: the Verilated array against the stepped model, every register in every cycle."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rtl_models import lockstep
from rtl_models.sources import sources
from simulator.hardware import Hardware, changed_hardware, load_hardware

CYCLES = 500_000

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mac_wrap": ("mac4x4", {"acc_bits": 18}),
    "mac_saturate": ("mac4x4", {"acc_bits": 17, "acc_overflow": "saturate"}),
    "serial_wrap": ("nhot2_4x4", {"acc_bits": 16}),
    "serial_spill": ("nhot2_4x4", {"acc_bits": 16, "spill_interval": 3, "wide_acc_bits": 19}),
    "parallel_saturate": ("nhot2_parallel_4x4", {"acc_bits": 20, "acc_overflow": "saturate"}),
    "ternary_deep_window": (
        "ternary4x4",
        {"acc_bits": 10, "feed": 1, "lookahead": 5, "events_bits": 2, "rows": 3, "cols": 5},
    ),
}


def hardware(preset: str, changes: dict[str, Any]) -> Hardware:
    return changed_hardware(load_hardware(preset), array=changes, post={"lanes": 1})


@pytest.mark.rtl
@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_verilog_array_and_stepped_model_agree_in_every_register_and_cycle(
    name: str, tmp_path: Path
) -> None:
    machine = hardware(*CASES[name])
    library = lockstep.build(machine, tmp_path)
    result = lockstep.run_lockstep(machine, library, CYCLES, seed=len(name))
    assert result.mismatch is None
    assert result.cycles == CYCLES
    # A run without tile ends, issues and overflows would have compared nothing worth comparing.
    assert result.fires > CYCLES / 100
    assert result.issues > CYCLES / 10
    assert result.overflow_steps > 0


@pytest.mark.rtl
@pytest.mark.slow
def test_ten_million_cycles_of_an_8x8_array_agree(tmp_path: Path) -> None:
    machine = hardware("nhot2_4x4", {"rows": 8, "cols": 8, "acc_bits": 18})
    library = lockstep.build(machine, tmp_path)
    result = lockstep.run_lockstep(machine, library, 10_000_000, seed=8)
    assert result.mismatch is None
    assert result.cycles == 10_000_000
    assert result.overflow_steps > 0


@pytest.mark.rtl
@pytest.mark.slow
def test_lockstep_names_the_first_difference_of_a_wrong_array(tmp_path: Path) -> None:
    right = hardware("mac4x4", {"acc_bits": 18})
    wrong = hardware("mac4x4", {"acc_bits": 18, "acc_overflow": "saturate"})
    both = lockstep.Lockstep(right, lockstep.build(wrong, tmp_path))
    result = both.run(CYCLES, seed=1)
    assert result.mismatch is not None
    assert result.mismatch.signal.startswith("acc[")
    assert result.mismatch.expected != result.mismatch.found
    assert result.cycles == result.mismatch.cycle
    # Icarus gets the same stimuli: of the wrong array it shows the wrong value, and of the right
    # one the expected.
    for shown, value in ((wrong, result.mismatch.found), (right, result.mismatch.expected)):
        both.hardware = shown
        folder = tmp_path / shown.array.acc_overflow
        files = list(sources(lockstep.TOP))
        found, waves = lockstep.replay(both, result.mismatch, result.seed, folder, files)
        assert int(found, 16) == value
        assert waves.stat().st_size > 1000


@pytest.mark.rtl
@pytest.mark.slow
def test_a_long_run_goes_on_from_reset_with_the_next_seed(tmp_path: Path) -> None:
    arguments = ["--hardware", "ternary4x4", "--cycles", "250000", "--work", str(tmp_path)]
    done = CliRunner().invoke(lockstep.main, arguments)
    assert done.exit_code == 0, done.output
    assert "ternary4x4: 250,000 cycles of " in done.output
    assert done.output.count(" a second") == 3


def test_every_register_of_the_document_is_compared() -> None:
    machine = hardware("mac4x4", {"spill_interval": 4, "acc_bits": 18})
    names = {field.name.split("[")[0] for field in lockstep.fields(machine)}
    assert names == {
        "feed_ready", "fire", "entry_ready",
        "n", "word", "offset", "done", "handoff",
        "x", "code", "step", "clear",
        "acc", "overflow", "events", "wide", "count",
        "result", "result_overflow", "result_events",
    }  # fmt: skip
