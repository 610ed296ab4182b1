"""No tool may have anything to say about the Verilog, in any shape it is shipped in."""

import re

import pytest

from rtl_models import lint, run_yosys
from rtl_models.parameters import shared_out_parameters
from rtl_models.runner import elaborate
from rtl_models.sources import VERILOG, modules
from simulator.hardware import list_presets, load_hardware

TOOLS = ("iverilog", "verilator", "yosys")
PE_FORMATS = [
    {"PE_KIND": 0},
    {"PE_KIND": 0, "X_W": 17, "ACC_BITS": 48},
    {"PE_KIND": 1, "TERMS": 1, "ACC_BITS": 20, "SATURATE": 1},
    {"PE_KIND": 1, "TERMS": 2, "ACC_BITS": 24, "EVENTS_W": 1},
    {"PE_KIND": 1, "TERMS": 3, "ACC_BITS": 32},
    {"PE_KIND": 2, "ACC_BITS": 16},
    {"PE_KIND": 0, "ACC_BITS": 16, "SPILL": 8, "WIDE_BITS": 32},
    {"PE_KIND": 0, "ACC_BITS": 16, "SPILL": 1, "WIDE_BITS": 16, "SATURATE": 1},
]
ARRAY_SHAPES = [
    {"ROWS": 1, "COLS": 1, "FEED": 1, "DEPTH": 1},
    {"ROWS": 1, "COLS": 3, "FEED": 2, "DEPTH": 1},
    {"ROWS": 3, "COLS": 1, "FEED": 1, "DEPTH": 3},
    {"ROWS": 4, "COLS": 4, "FEED": 4, "DEPTH": 2},
    {"ROWS": 2, "COLS": 5, "FEED": 8, "DEPTH": 4, "PE_KIND": 1, "TERMS": 2},
]

pytestmark = pytest.mark.rtl


def name(parameters):
    return "-".join(f"{key}={value}" for key, value in parameters.items())


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("module", modules())
def test_every_module_is_clean(module, tool):
    assert lint(tool, module) == ""


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("parameters", PE_FORMATS, ids=name)
def test_pe_is_clean_in_every_format(parameters, tool):
    assert lint(tool, "napier_pe", parameters) == ""


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("parameters", ARRAY_SHAPES, ids=name)
def test_array_is_clean_in_every_shape(parameters, tool):
    assert lint(tool, "napier_array", parameters) == ""


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(("forms", "bits"), [(1, 3), (2, 7), (3, 7)])
def test_output_transform_is_clean_with_the_narrowest_sums(forms, bits, tool):
    # The simulator refuses sums that the exact division by 2^2, or 2^6, leaves nothing of.
    parameters = {"FORMS": forms, "RESULT_W": bits, "SUM_W": bits}
    assert lint(tool, "output_transform", parameters) == ""


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(
    "preset",
    [
        name if "4x4" in name else pytest.param(name, marks=pytest.mark.long)
        for name in list_presets()
    ],
)
def test_accelerator_of_every_preset_is_clean(preset, tool):
    assert lint(tool, "napier_top", shared_out_parameters(load_hardware(preset))) == ""


@pytest.mark.parametrize(
    ("tool", "body", "complaint"),
    [
        ("iverilog", "always_comb y = a[2];", "bit select [2] is after"),
        ("verilator", "assign y = a;", "WIDTH"),
        ("yosys", "always @* if (a[0]) y = a[1];", "Assertion failed"),
    ],
)
def test_lint_can_complain(tmp_path, tool, body, complaint):
    dirty = tmp_path / "dirty.v"
    dirty.write_text(f"module dirty (input wire [1:0] a, output logic y);\n{body}\nendmodule\n")
    assert complaint in lint(tool, "dirty", sources=[dirty])


def has_multiplier(parameters):
    code, said = run_yosys(f"{elaborate('napier_pe', parameters)} proc; select -assert-none t:$mul")
    assert code == 0 or "selection is not empty" in said, said
    return code != 0


@pytest.mark.parametrize("parameters", PE_FORMATS, ids=name)
def test_only_the_mac_has_a_multiplier(parameters):
    assert has_multiplier(parameters) == (parameters["PE_KIND"] == 0)


@pytest.mark.parametrize("module", modules())
def test_a_file_holds_one_module_of_its_name_and_leaves_the_default_net_type(module):
    lines = (VERILOG / f"{module}.v").read_text().splitlines()
    assert re.findall(r"^module (\w+)", "\n".join(lines), re.MULTILINE) == [module]
    assert (lines[0], lines[-1]) == ("`default_nettype none", "`default_nettype wire")
