"""Reset and unknown bits: what each module shows after power-up and after a reset at any time.

The recordings of `rtl_models.replay` begin with one cycle of reset, or where a module has none with
what fills its registers: a load, a start, a memory's first words. From the next cycle on every
output that means something is known. The outputs that mean something only beside another one (an
address beside its enable) are listed with the subjects.
"""

import random
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from rtl_models import engine
from rtl_models.ladder import COMBINATIONAL
from rtl_models.replay import first_difference, record, replay
from rtl_models.stimuli_machine import drive_top
from rtl_models.subjects import SUBJECTS
from rtl_models.verify import random_layer
from simulator.hardware import load_hardware
from simulator.program import compile_layer

CLOCKED = [subject for subject in SUBJECTS if subject.module not in COMBINATIONAL]
RESETS = 5
KNOWN_AFTER_CYCLES = 1
# An unknown place selects no field; a result of no pair goes straight through.
KNOWN_AT_POWER_UP = ("beat_memory", "pair_operator")

pytestmark = pytest.mark.rtl


@pytest.mark.long
@pytest.mark.parametrize("subject", CLOCKED, ids=lambda subject: subject.name)
def test_outputs_are_known_after_reset_and_a_reset_in_mid_operation_leaves_nothing(
    tmp_path, subject
):
    if subject.module == "napier_top":
        subject = replace(subject, stimuli=partial(drive_top, as_compiled=True))
    recording = record(subject, tmp_path / "recording", cycles=2000)
    fresh = replay(recording, tmp_path / "fresh")
    known = subject.module in KNOWN_AT_POWER_UP
    assert known or "x" in fresh[0].lower(), "nothing was unknown before the reset"
    assert first_difference(recording, fresh, start=KNOWN_AFTER_CYCLES) is None
    rng = random.Random(subject.name)
    for run in range(RESETS):
        # A run of its own for every reset: it too begins with unknown bits.
        cycle = rng.randrange(1, recording.cycles)
        again = replay(recording, tmp_path / f"reset_{run}", reset_at=cycle)[cycle:]
        difference = first_difference(recording, again, start=KNOWN_AFTER_CYCLES)
        assert difference is None, f"reset in cycle {cycle}"


def test_an_operation_that_outlives_the_reset_is_noticed(tmp_path):
    subject = next(subject for subject in CLOCKED if subject.name == "column_sequencer")
    recording = record(subject, tmp_path / "recording", cycles=500)
    row = bytearray(recording.inputs[0])
    assert row[0] == 1  # rst is the first port
    row[0] = 0
    broken = type(recording)(
        recording.subject,
        recording.ports,
        (bytes(row), *recording.inputs[1:]),
        recording.outputs,
        recording.cares,
    )
    found = first_difference(broken, replay(broken, tmp_path / "run"), start=KNOWN_AFTER_CYCLES)
    assert found is not None
    assert "x" in found.found.lower()


MACHINE = load_hardware("mac4x4")


@pytest.fixture(scope="module")
def layer():
    """A layer of some hundred cycles, its program and its input."""
    for seed in range(20):
        layer, x = random_layer(np.random.default_rng(seed), MACHINE)
        program = compile_layer(layer, x.shape, MACHINE)
        if program.geometry.pixel_tiles * program.geometry.channel_tiles > 8:
            return program, x[0]
    raise AssertionError("no layer is long enough")


def same(first, second):
    return (
        first.counters == second.counters
        and np.array_equal(first.codes, second.codes)
        and np.array_equal(first.written, second.written)
    )


@pytest.mark.slow
def test_engine_reset_at_random_cycles_gives_the_results_of_a_fresh_run(tmp_path, layer):
    program, image = layer
    run = partial(
        engine.run_engine, [program], image, input_signed=True, builds=tmp_path / "builds"
    )
    fresh = run(folder=tmp_path / "fresh")
    assert (fresh.codes[fresh.written] >= 0).all(), "an unknown bit was written"
    rng = random.Random(1)
    for cycle in rng.sample(range(1, fresh.total["cycles"] + 1), 10):
        again = run(folder=tmp_path / f"reset_{cycle}", reset_at=cycle)
        assert same(again, fresh), f"reset in cycle {cycle}"


@pytest.mark.long
def test_engine_does_not_depend_on_what_its_registers_hold_at_power_up(
    tmp_path, layer, monkeypatch
):
    """Verilator starts every register and net with random bits of the seed."""
    program, image = layer
    run = partial(
        engine.run_engine, [program], image, input_signed=True, builds=tmp_path / "builds"
    )
    expected = run(folder=tmp_path / "icarus")
    start = engine._start
    for seed in range(1, 11):
        monkeypatch.setattr(
            engine, "_start", lambda *a, s=seed: [*start(*a)[:-1], f"+verilator+seed+{s}"]
        )
        found = run(folder=tmp_path / f"seed_{seed}", simulator="verilator")
        assert found.counters == expected.counters, f"seed {seed}"
        assert np.array_equal(found.written, expected.written), f"seed {seed}"
        assert np.array_equal(found.codes[found.written], expected.codes[expected.written])
