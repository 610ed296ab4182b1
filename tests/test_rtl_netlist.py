"""The Verilog against its own netlist: proven equal by SAT, and run beside it in Icarus."""

import re

import pytest

from rtl_models.netlist import gate_models, is_equivalent, write_netlist
from rtl_models.replay import first_difference, record, replay
from rtl_models.subjects import SUBJECTS

KNOWN = {subject.name: subject for subject in SUBJECTS}
WRAP = {"ACC_BITS": 24, "EVENTS_W": 16}
SATURATE = {"ACC_BITS": 20, "EVENTS_W": 8, "SATURATE": 1}
SPILL = {"ACC_BITS": 16, "SPILL": 8, "WIDE_BITS": 32, "EVENTS_W": 16}
FORMATS = {"wrap": WRAP, "saturate": SATURATE, "spill": SPILL}
KINDS = {
    "mac-5x5": {"PE_KIND": 0, "X_W": 5, "WEIGHT_W": 5},
    "serial": {"PE_KIND": 1, "TERMS": 1},
    "parallel": {"PE_KIND": 1, "TERMS": 2},
    "ternary": {"PE_KIND": 2},
}
# n and offset of a window of 1 or 3 words are legal in every state; with 2 words n = 3 is not.
ARRAY = {"ROWS": 2, "COLS": 2, "FEED": 2, "DEPTH": 3}

pytestmark = pytest.mark.rtl


def is_proven(folder, module, parameters, change=None, **options):
    netlist = folder / "netlist.v"
    write_netlist(module, parameters, netlist)
    if change:
        change_netlist(netlist, *change)
    return is_equivalent(module, parameters, netlist, folder / "proof", **options)


def change_netlist(path, right, wrong):
    """Change the last place of the netlist, which has many."""
    before, found, after = path.read_text().rpartition(right)
    assert found
    path.write_text(before + wrong + after)


def long(*values):
    return pytest.param(*values, marks=pytest.mark.long)


# Two barrel shifters and an accumulator of 24 bits take the solver half a minute.
SLOW_PES = [("parallel", "wrap"), ("parallel", "saturate")]


@pytest.mark.parametrize(
    ("kind", "format_"),
    [
        long(kind, format_) if (kind, format_) in SLOW_PES else (kind, format_)
        for kind in KINDS
        for format_ in FORMATS
    ],
)
def test_netlist_of_a_pe_is_proven_equal(tmp_path, kind, format_):
    parameters = KINDS[kind] | FORMATS[format_]
    assert is_proven(tmp_path, "napier_pe", parameters, cuts=["addend"])


@pytest.mark.long
def test_netlist_of_the_9x9_multiplier_is_proven_equal(tmp_path):
    weights = [f"code_q[{bit}]" for bit in range(4, 9)]
    parameters = {"PE_KIND": 0} | WRAP
    assert is_proven(tmp_path, "napier_pe", parameters, cuts=["addend"], split=weights)


@pytest.mark.parametrize("kind", ["mac-5x5", *map(long, ("serial", "parallel", "ternary"))])
def test_netlist_of_a_2x2_array_is_proven_equal(tmp_path, kind):
    parameters = ARRAY | KINDS[kind] | {"ACC_BITS": 16, "EVENTS_W": 4}
    cuts = [f"g_row[{r}].g_col[{c}].u_pe.addend" for r in range(2) for c in range(2)]
    assert is_proven(tmp_path, "napier_array", parameters, cuts=cuts)


@pytest.mark.parametrize(
    "name",
    [
        *("pe_shift_add", "pe_ternary", "fit_signed wrap", "fit_signed saturate"),
        *("pe_accumulator wrap", "pe_accumulator saturate", "pe_accumulator spill"),
        *("column_sequencer", "array_window", "pixel_walker", "tile_counter", "stream_reader"),
        *("chunk_counter", "part_counter", "winograd_1d", "winograd_scale"),
    ],
)
def test_netlist_of_a_module_is_proven_equal(tmp_path, name):
    subject = KNOWN[name]
    assert is_proven(tmp_path, subject.module, subject.parameters, legal=subject.legal)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        pytest.param("\\$_XOR_  ", "\\$_XNOR_  ", id="gate"),
        pytest.param("\\$_SDFF_PP0_  ", "\\$_SDFF_PP1_  ", id="reset-value"),
        pytest.param(".D(", ".D(!", id="inverted-next-state"),
    ],
)
def test_a_changed_netlist_is_refuted(tmp_path, right, wrong):
    parameters = KINDS["ternary"] | SATURATE
    assert not is_proven(tmp_path, "napier_pe", parameters, change=(right, wrong))


def test_a_netlist_with_other_outputs_is_refuted(tmp_path):
    # The module's own Verilog stands in for the netlist, with two outputs exchanged.
    write_netlist("tile_counter", {"TILE_W": 3}, tmp_path / "netlist.v")
    text = (tmp_path / "netlist.v").read_text()
    assert is_equivalent("tile_counter", {"TILE_W": 3}, tmp_path / "netlist.v", tmp_path / "right")
    swapped = re.sub(r"\b(pixel|channel)_last\b", lambda m: SWAPPED[m[0]], text)
    (tmp_path / "swapped.v").write_text(swapped)
    assert not is_equivalent(
        "tile_counter", {"TILE_W": 3}, tmp_path / "swapped.v", tmp_path / "wrong"
    )


SWAPPED = {"pixel_last": "channel_last", "channel_last": "pixel_last"}


# A 32-bit multiplier in gates takes Icarus a tenth of a second a cycle.
GATE_LEVEL_CYCLES = {
    **dict.fromkeys(("napier_pe mac", "napier_pe serial", "napier_pe parallel"), 4000),
    **dict.fromkeys(("napier_pe ternary", "pe_accumulator saturate"), 4000),
    **dict.fromkeys(("pe_accumulator spill", "napier_array", "column_sequencer"), 4000),
    **dict.fromkeys(("array_window", "stream_reader", "feeder"), 4000),
    **dict.fromkeys(("requantizer", "drain"), 100),
}


@pytest.mark.long
@pytest.mark.parametrize("name", GATE_LEVEL_CYCLES)
def test_gate_level_run_gives_the_outputs_of_the_source_in_every_cycle(tmp_path, name):
    """Verilator recorded the source; Icarus must repeat it with the source and with the gates."""
    subject = KNOWN[name]
    recording = record(subject, tmp_path / "recording", cycles=GATE_LEVEL_CYCLES[name])
    assert first_difference(recording, replay(recording, tmp_path / "source"), start=1) is None
    netlist = tmp_path / "netlist.v"
    write_netlist(subject.module, subject.parameters, netlist)
    files = [netlist, gate_models()]
    outputs = replay(recording, tmp_path / "gates", files=files)
    assert first_difference(recording, outputs, start=1) is None


def test_gate_level_run_notices_a_changed_netlist(tmp_path):
    subject = KNOWN["napier_pe ternary"]
    recording = record(subject, tmp_path / "recording", cycles=4000)
    netlist = tmp_path / "netlist.v"
    write_netlist(subject.module, subject.parameters, netlist)
    change_netlist(netlist, "\\$_XOR_  ", "\\$_XNOR_  ")
    outputs = replay(recording, tmp_path / "changed", files=[netlist, gate_models()])
    assert first_difference(recording, outputs, start=1) is not None
