"""A user's Verilog in the place of ours: classic mistakes are found, a right rewrite passes."""

from pathlib import Path

import pytest

from golden.errors import InputError, ToolError
from rtl_models.contracts import CONTRACTS, narrow_variants, replace_module, run_pe
from rtl_models.sources import VERILOG
from rtl_models.verify import ALONE, verify_contract
from simulator.hardware import changed_hardware, load_hardware


def with_array(preset, **array):
    return changed_hardware(load_hardware(preset), array=array)


# Weights of 4 bits, codes of 5: all operands with all codes are 2^14 products.
MACHINE = with_array("mac4x4", weight_bits=4)
SERIAL = load_hardware("nhot2_4x4")
INDEPENDENT = Path(__file__).parent / "benches" / "independent_pe.v"

pytestmark = pytest.mark.rtl


def changed(folder, original, *changes):
    text = original.read_text()
    for before, after in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    path = folder / "my.v"
    path.write_text(text)
    return path


def verify(contract, path, folder, hardware=MACHINE, count=2):
    return verify_contract(contract, [path], hardware, count, 1, workdir=folder)


# Operands of 9 bits with every code: 9-bit weights, one term of 6 bits, 3 ternary codes; two terms
# have more pairs than are tried.
PAIRS = {
    "mac4x4": 2**18,
    "nhot2_4x4": 2**15,
    "nhot2_parallel_4x4": 2**16,
    "ternary4x4": 3 * 2**9,
}


@pytest.mark.slow
@pytest.mark.parametrize("preset", PAIRS)
def test_an_independent_pe_passes_for_every_kind(tmp_path, preset):
    hardware = load_hardware(preset)
    variants = narrow_variants(hardware)
    reports = verify("pe", INDEPENDENT, tmp_path, hardware, count=4)
    assert all(report.passed for report in reports), reports[-1].difference
    alone = [report for report in reports if report.op == ALONE]
    assert (len(alone), len(reports)) == (len(variants), 5 * len(variants))
    assert alone[0].outputs > PAIRS[preset]
    # Every narrow accumulator overflows, alone and in layers: otherwise nothing was tried.
    for variant in variants[:-1]:
        mine = [report for report in reports if report.name.startswith(variant.name)]
        assert len(mine) == 5
        assert mine[0].overflow_events > 0
    assert sum(report.overflow_events for report in reports if report.op != ALONE) > 0


# In the sweep operand i of code k (x = i - 256) is at the ports in cycle 512 k + i, is cleared in
# the next cycle, and its result is out two cycles after that. A code of 0 is no step.
MISTAKES = {
    "sign extension": (  # code 0x10 is -16: -256 * -16 = 4096, not -256 * 16
        MACHINE,
        [("{(64 - CODE_W) {code_r[CODE_W-1]}}", "{(64 - CODE_W) {1'b0}}")],
        f"cycle {512 * 16 + 3}: result is -4096, expected 4096,"
        " after 1 step since the clear before: x=-256 code=0x10;",
    ),
    "shift by one too many": (  # code 0x20 is +2^0
        SERIAL,
        [
            ("product + (wide_x <<< term[SHIFT_W-1:0])", "product + (wide_x <<< (term[3:0] + 1))"),
        ],
        f"cycle {512 * 0x20 + 3}: result is -512, expected -256,"
        " after 1 step since the clear before: x=-256 code=0x20;",
    ),
    "saturation at the wrong bound": (  # -2^15 + 1 instead of -2^15
        MACHINE,
        [("sum > 0 ? highest : lowest;", "sum > 0 ? highest : lowest + 64'sd1;")],
        "pe_acc_16_saturate/waves.fst",
    ),
    "lost carry": (
        MACHINE,
        [("sum = base + product", "sum = {base[63:8] + product[63:8], base[7:0] + product[7:0]}")],
        "result is ",
    ),
    "step one cycle late": (  # code 1 with x = -256 is the first step
        MACHINE,
        [
            ("step_r, clear_r;", "step_r, late, clear_r;"),
            ("step_r <= step;", "late <= step; step_r <= late;"),
        ],
        f"cycle {512 + 3}: result is 0, expected -256,"
        " after 1 step since the clear before: x=-256 code=0x01;",
    ),
    "overflow flag not sticky": (
        MACHINE,
        [("(!clear_r && overflow) || event_now", "event_now")],
        "result_overflow is 0, expected 1, after ",
    ),
    "dropped clear": (  # the second step adds -255 to -256
        MACHINE,
        [("clear_r ? 64'sd0 : acc", "acc")],
        f"cycle {512 + 4}: result is -511, expected -255,"
        " after 1 step since the clear before: x=-255 code=0x01;",
    ),
    "overflow counter that goes round": (  # found where events are counted in 2 bits
        MACHINE,
        [("event_now && count != {EVENTS_W{1'b1}}", "event_now")],
        ", expected 3, after ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_classic_mistake_in_a_pe_is_found_and_told(tmp_path, mistake):
    hardware, changes, words = MISTAKES[mistake]
    path = changed(tmp_path, INDEPENDENT, *changes)
    last = verify("pe", path, tmp_path / "work", hardware)[-1]
    assert words in str(last.difference)
    assert last.difference.waves.stat().st_size > 0


@pytest.mark.parametrize("mistake", MISTAKES)
def test_layers_alone_find_every_mistake_too(tmp_path, mistake):
    hardware, changes, _ = MISTAKES[mistake]
    path = changed(tmp_path, INDEPENDENT, *changes)
    # As part of a user's array, so that the PE does not run alone.
    array = (VERILOG / "napier_array.v").read_text().replace("napier_pe #", "my_pe #")
    path.write_text(path.read_text().replace("module napier_pe", "module my_pe") + array)
    reports = verify("array", path, tmp_path / "work", hardware, count=8)
    assert reports[-1].difference is not None
    assert reports[-1].difference.waves.stat().st_size > 0


@pytest.mark.parametrize("contract", CONTRACTS)
def test_our_own_modules_keep_their_contracts(tmp_path, contract):
    own = VERILOG / f"{CONTRACTS[contract]}.v"
    reports = verify(contract, changed(tmp_path, own), tmp_path / "work", count=1)
    assert all(report.passed for report in reports)


BROKEN = {
    "array": ("assign fire = &finished && handoff_ready", "assign fire = &finished"),
    "requantizer": ("code64 < minimum64", "1'b0"),
    "layer_engine": ("ended_q || all_done", "all_done"),
}


@pytest.mark.parametrize("contract", BROKEN)
def test_faults_in_the_other_modules_are_found_in_layers(tmp_path, contract):
    path = changed(tmp_path, VERILOG / f"{CONTRACTS[contract]}.v", BROKEN[contract])
    last = verify(contract, path, tmp_path / "work", count=8)[-1]
    assert last.difference is not None
    assert last.difference.waves.stat().st_size > 0


def test_a_spilling_pe_is_held_to_the_wide_accumulator(tmp_path):
    spilling = with_array("mac4x4", acc_bits=17, spill_interval=3, wide_acc_bits=18)
    assert [each.name for each in narrow_variants(spilling)] == [
        *("acc 9 wrap", "acc 16 wrap", "acc 9 saturate", "acc 16 saturate", "acc 17 wrap"),
    ]
    own = VERILOG / "napier_pe.v"
    files = replace_module("pe", [own], spilling)
    run = run_pe(spilling, files, tmp_path / "own", exhaustive=False, seed=1)
    assert run.difference is None
    assert run.overflow_events > 0
    with pytest.raises(InputError, match=r"port result of napier_pe has 17 bits, but .* 18 bits"):
        replace_module("pe", [INDEPENDENT], spilling)


def test_unknown_bits_are_found(tmp_path):
    path = changed(tmp_path, INDEPENDENT, ("      acc <= 0;\n", ""))
    difference = verify("pe", path, tmp_path / "work")[-1].difference
    assert (difference.signal, difference.found) == ("result", "x" * 24)


# One change for each refusal: text of the independent PE, or another file altogether.
REFUSALS = {
    "no such module": ([("module napier_pe", "module my_pe")], "needs a module napier_pe, but"),
    "no such port": (
        [("  output reg                       result_overflow,\n", ""),
         ("result_overflow <= 0;", ""), ("result_overflow <= overflow;", "")],
        "napier_pe has no port result_overflow; add it: output, 1 bit",
    ),
    "wrong direction": (
        [("input                            issue", "output                           issue")],
        "port issue of napier_pe is an output; make it an input",
    ),
    "wrong width": (
        [("signed [X_W-1:0]      x,", "signed [7:0]      x,")],
        "port x of napier_pe has 8 bits, but the parameters of this hardware make it 9 bits",
    ),
    "input that is not ours": (
        [("  input                            step,", "  input enable, input step,")],
        "napier_pe has an input enable that nothing drives",
    ),
    "no such parameter": (
        [("  parameter SPILL = 0,\n", "")],
        "napier_pe has no parameter SPILL, which the engine sets",
    ),
    "a module of ours": (
        [("// A PE that keeps", "module drain; endmodule\n// A PE that keeps")],
        "has a module drain, which is one of Napier's that stays in the engine",
    ),
}  # fmt: skip


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_module_that_does_not_fit_is_refused_in_one_sentence(tmp_path, refusal):
    changes, words = REFUSALS[refusal]
    path = changed(tmp_path, INDEPENDENT, *changes)
    with pytest.raises(InputError) as caught:
        replace_module("pe", [path], MACHINE)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_no_verilog_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"--rtl .*nowhere\.v: there is no such file"):
        replace_module("pe", [tmp_path / "nowhere.v"], MACHINE)
    path = changed(tmp_path, INDEPENDENT, ("always @(posedge clk)", "always @(posedge clk"))
    with pytest.raises(ToolError, match=r"Yosys cannot read my\.v at .*my\.v:\d+: .*syntax error"):
        replace_module("pe", [path], MACHINE)


def test_a_module_of_the_user_that_is_not_there_is_named(tmp_path):
    path = changed(tmp_path, INDEPENDENT, ("  integer t;", "  helper u_helper ();\n  integer t;"))
    with pytest.raises(ToolError, match="helper"):
        replace_module("pe", [path], MACHINE)
