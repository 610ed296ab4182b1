"""Area as Yosys counts it: flip-flops against sums of register widths by hand."""

import pytest

from golden.errors import ToolError
from rtl_models import runner
from rtl_models.placement import place, place_pe_kinds
from rtl_models.runner import module_name
from rtl_models.synth import pe_kinds, synthesize_designs
from simulator.hardware import changed_hardware, load_hardware

pytestmark = pytest.mark.rtl

MACHINE = load_hardware("mac4x4")


def machine(**array):
    return changed_hardware(MACHINE, array=array)


# Accumulate stage of mac4x4: acc 24, overflow 1, events 20, and their shadows: 90. Operand stage:
# x 9, step 1, clear 1, and the code: 9 (weight), 6 (enable, sign, shift), 2 x 6, or 2 bits.
PE_FLIP_FLOPS = {
    "mac 9x9": 90 + 11 + 9,
    "shift_add serial": 90 + 11 + 6,
    "shift_add 2 terms": 90 + 11 + 12,
    "ternary": 90 + 11 + 2,
}


def test_flip_flops_of_every_pe_are_its_registers_and_there_is_no_latch():
    designs = {kind: ("napier_pe", values) for kind, values in pe_kinds(MACHINE).items()}
    areas, version = synthesize_designs(designs)
    assert version.startswith("Yosys ")
    assert {kind: modules[0].area.flip_flops for kind, modules in areas.items()} == PE_FLIP_FLOPS
    for modules in areas.values():
        assert modules[0].area.ice40_flip_flops == modules[0].area.flip_flops
        assert [each.area.latches for each in modules] == [0] * len(modules)
        addend = next(each.area for each in modules if each.path[-1] not in NOT_ADDENDS)
        assert addend.flip_flops == 0
        assert 0 < addend.gates < modules[0].area.gates
        assert 0 < addend.ice40_luts < modules[0].area.ice40_luts
    gates = {kind: modules[0].area.gates for kind, modules in areas.items()}
    assert gates["ternary"] < gates["shift_add serial"] < gates["mac 9x9"]


NOT_ADDENDS = {"napier_pe", "pe_accumulator", "fit_signed"}


def test_flip_flops_of_a_spilling_pe_count_the_wide_accumulator():
    # acc 16, wide 32, count 4 (0..8), overflow 1, events 20; result 32 + 1 + 20; 9 + 9 + 2 operands
    spilling = machine(acc_bits=16, spill_interval=8, wide_acc_bits=32)
    areas, _ = synthesize_designs({"pe": ("napier_pe", pe_kinds(spilling)["mac 9x9"])})
    assert areas["pe"][0].area.flip_flops == 16 + 32 + 4 + 1 + 20 + 53 + 20


def test_an_array_is_the_sum_of_its_modules():
    parameters = {"ROWS": 2, "COLS": 3, "FEED": 2, "DEPTH": 2, "PE_KIND": 2, "ACC_BITS": 12}
    areas, _ = synthesize_designs({"array": ("napier_array", parameters)})
    modules = {each.path[1:]: each for each in areas["array"]}
    assert {path: each.instances for path, each in modules.items()} == {
        (): 1,
        ("array_window",): 1,
        ("column_sequencer",): 3,
        ("napier_pe",): 6,
        ("napier_pe", "pe_accumulator"): 6,
        ("napier_pe", "pe_accumulator", "fit_signed"): 6,
        ("napier_pe", "pe_ternary"): 6,
    }
    flip_flops = {path: each.area.flip_flops for path, each in modules.items()}
    assert flip_flops["array_window",] == 2 + 2 * 2 * 2 * 9  # n; two words of 2 rows x 2 lanes
    assert flip_flops["column_sequencer",] == 5 + 1  # offset up to 1 + 15; done
    assert flip_flops["napier_pe",] == 2 * (12 + 1 + 16) + 9 + 2 + 2
    assert flip_flops[()] == 1 + 74 + 3 * 6 + 6 * 71  # handoff first
    # A sum of one bit more than the accumulator overflows where its upper two bits differ.
    assert modules["napier_pe", "pe_accumulator", "fit_signed"].area.gates == 1


@pytest.mark.parametrize(
    ("yosys_name", "name"),
    [
        ("\\layer_engine", "layer_engine"),
        ("$paramod$03ea522231790931052ee33f03898e02bf058ff5\\napier_pe", "napier_pe"),
        ("$paramod\\tile_counter\\TILE_W=s32'00000000000000000000000000010000", "tile_counter"),
    ],
)
def test_parameters_are_taken_off_the_names_of_modules(yosys_name, name):
    assert module_name(yosys_name) == name


def test_latches_and_flip_flops_are_told_apart(tmp_path, monkeypatch):
    file = tmp_path / "mixed.v"
    file.write_text(
        "module mixed (input clk, en, rst, input [3:0] d, output reg [3:0] latch, flop,"
        " output reg [1:0] both);\n"
        "always @* if (en) latch = d;\n"
        "always @(posedge clk) flop <= d;\n"
        "always @(posedge clk or posedge rst) if (rst) both <= 0; else if (en) both <= d[1:0];\n"
        "endmodule\n"
    )
    monkeypatch.setattr(runner, "module_sources", lambda top: (file,))
    areas, _ = synthesize_designs({"mixed": ("mixed", {})})
    assert (areas["mixed"][0].area.latches, areas["mixed"][0].area.flip_flops) == (4, 6)


def test_verilog_that_cannot_be_synthesized_is_a_tool_error(tmp_path, monkeypatch):
    file = tmp_path / "broken.v"
    file.write_text("module broken (input wire a\nendmodule\n")
    monkeypatch.setattr(runner, "module_sources", lambda top: (file,))
    with pytest.raises(ToolError, match=r"Yosys cannot synthesize broken .*syntax error"):
        synthesize_designs({"broken": ("broken", {})})


def test_a_missing_yosys_is_a_tool_error(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolError, match=r"yosys is needed .* apt-get install yosys"):
        synthesize_designs({"pe": ("napier_pe", {})})


def test_placed_pes_hold_their_flip_flops_and_the_ternary_one_is_smaller_and_faster():
    kinds = pe_kinds(MACHINE)
    ternary, mac = (place("napier_pe", kinds[kind]) for kind in ("ternary", "mac 9x9"))
    assert PE_FLIP_FLOPS["ternary"] <= ternary.logic_cells < mac.logic_cells
    assert ternary.clock_mhz > mac.clock_mhz > 0


def test_a_module_of_more_pins_than_the_device_has_cannot_be_placed():
    parameters = {"ROWS": 4, "COLS": 4, "FEED": 2, "DEPTH": 2, "PE_KIND": 2, "ACC_BITS": 12}
    with pytest.raises(ToolError, match=r"nextpnr-ice40 cannot place napier_array on an HX8K"):
        place("napier_array", parameters)


def test_a_missing_nextpnr_is_a_tool_error(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolError, match=r"nextpnr-ice40 is needed .* apt-get install nextpnr"):
        place_pe_kinds(MACHINE)


def test_hardware_of_its_own_operands_is_compared_too():
    assert list(pe_kinds(machine(weight_bits=4)))[-1] == "mac 9x5"
    assert list(pe_kinds(MACHINE)) == list(PE_FLIP_FLOPS)
