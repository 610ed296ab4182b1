"""Proofs by SAT: for every operand, code and state, not only for those a test happened to try."""

from pathlib import Path

import pytest

from rtl_models import run_yosys
from rtl_models.parameters import engine_parameters
from rtl_models.runner import elaborate
from rtl_models.sources import sources
from simulator.hardware import list_presets, load_hardware

PROOFS = Path(__file__).parent / "proofs"
PROVEN = "SAT proof finished - no model found: SUCCESS!"
REFUTED = "SAT proof finished - model found: FAIL!"

pytestmark = pytest.mark.rtl


def is_proven_equal(module, reference, parameters, files=None, cases=("",)):
    """Whether the module equals its reference in all outputs and all next states.

    `expose -evert-dff` turns registers of the same name into inputs (state) and outputs (next
    state), so that one combinational proof covers every step from every state. `cases` cut a proof
    into smaller ones; together they must cover everything.
    """

    def prepare(top, texts, name):
        return (
            f"{elaborate(top, parameters, texts)} proc; flatten; rename -top {name};"
            f" design -stash {name}; "
        )

    code, said = run_yosys(
        prepare(module, files, "gate")
        + prepare(reference, [PROOFS / f"{reference}.v"], "gold")
        + "design -copy-from gate -as gate gate; design -copy-from gold -as gold gold;"
        " opt_clean; expose -shared -evert-dff -dff gold gate; opt_clean;"
        " select -assert-none t:$*dff* t:$*latch*;"
        " miter -equiv -flatten -make_assert gold gate miter; hierarchy -top miter; opt -full; "
        + "; ".join(f"sat -prove-asserts {case} miter" for case in cases)
    )
    assert code == 0, said[-2000:]
    assert said.count(PROVEN) + said.count(REFUTED) == len(cases), said[-2000:]
    return said.count(PROVEN) == len(cases)


def broken_copy(folder, module, right, wrong):
    """Files of the module with one place changed."""
    changed = []
    found = 0
    for path in sources(module):
        text = path.read_text()
        found += text.count(right)
        copy = folder / path.name
        copy.write_text(text.replace(right, wrong))
        changed.append(copy)
    assert found == 1, f"{right!r} is there {found} times"
    return changed


@pytest.mark.parametrize("x_w", [9, 17])
def test_serial_addend_is_operand_times_signed_power(x_w):
    assert is_proven_equal("pe_shift_add", "shift_add_reference", {"X_W": x_w, "TERMS": 1})


@pytest.mark.slow
def test_parallel_addend_is_operand_times_sum_of_two_signed_powers():
    shifts = [
        f"-set in_code[3:0] {low} -set in_code[9:6] {high}"
        for low in range(16)
        for high in range(16)
    ]
    assert is_proven_equal(
        "pe_shift_add", "shift_add_reference", {"X_W": 9, "TERMS": 2}, cases=shifts
    )


@pytest.mark.parametrize("x_w", [9, 17])
def test_ternary_addend_is_operand_times_trit(x_w):
    assert is_proven_equal("pe_ternary", "ternary_reference", {"X_W": x_w})


ADDEND_W = {"mac": 18, "serial": 25, "parallel": 26, "ternary": 10}
FORMATS = [
    pytest.param({"ACC_BITS": 16, "EVENTS_W": 16}, id="16"),
    pytest.param({"ACC_BITS": 20, "EVENTS_W": 8}, id="20"),
    pytest.param({"ACC_BITS": 24, "EVENTS_W": 16}, id="24"),
    pytest.param({"ACC_BITS": 32, "EVENTS_W": 1}, id="32"),
    pytest.param({"ACC_BITS": 16, "SPILL": 8, "WIDE_BITS": 32, "EVENTS_W": 16}, id="16-spill-32"),
    pytest.param({"ACC_BITS": 12, "SPILL": 1, "WIDE_BITS": 12, "EVENTS_W": 1}, id="12-spill-12"),
]


@pytest.mark.parametrize("saturate", [0, 1], ids=["wrap", "saturate"])
@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("kind", ADDEND_W)
def test_accumulator_step_is_rules_p2_to_p5_from_every_state(kind, format_, saturate):
    parameters = {"ADDEND_W": ADDEND_W[kind], "SATURATE": saturate} | format_
    assert is_proven_equal("pe_accumulator", "accumulator_reference", parameters)


@pytest.mark.parametrize("preset", list_presets())
def test_accumulator_step_of_every_preset_is_rules_p2_to_p5(preset):
    """From any addend: a proof of the product of 16 x 15 bits of `winograd16x16` would not end."""
    hardware = load_hardware(preset)
    machine = engine_parameters(hardware)
    shared = ("ACC_BITS", "SATURATE", "EVENTS_W", "SPILL", "WIDE_BITS")
    sums = (machine["TERMS"] - 1).bit_length()
    grows = {0: hardware.weight_operand_bits, 1: 16 + sums, 2: 1}[machine["PE_KIND"]]
    parameters = {name: machine[name] for name in shared}
    parameters["ADDEND_W"] = hardware.operand_bits + grows
    assert is_proven_equal("pe_accumulator", "accumulator_reference", parameters)


@pytest.mark.parametrize(
    ("module", "reference", "right", "wrong"),
    [
        ("pe_shift_add", "shift_add_reference", " + ADDEND_W'(negate)", ""),
        ("pe_shift_add", "shift_add_reference", "x_wide <<< shift", "x_wide <<< shift[2:0]"),
        ("pe_ternary", "ternary_reference", "-x_wide : x_wide", "x_wide : x_wide"),
    ],
)
def test_a_broken_addend_is_refuted(tmp_path, module, reference, right, wrong):
    files = broken_copy(tmp_path, module, right, wrong)
    assert not is_proven_equal(module, reference, {"X_W": 9}, files=files)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("(clear || spill) ? '0 : acc_q", "spill ? '0 : acc_q"),
        ("step ? fitted : base", "step ? fitted : acc_q"),
        ("{(OUT_W - 1) {!negative}}", "{(OUT_W - 1) {1'b0}}"),
        ("(!clear && overflow_q) ||", "overflow_q ||"),
        ("count[EVENTS_W] ? '1", "count[EVENTS_W] ? '0"),
        ("COUNT_W'(step_event) + COUNT_W'(spill_event)", "COUNT_W'(step_event || spill_event)"),
        ("spill = step && !clear &&", "spill = step &&"),
        ("clear ? '0 : spill ? total : wide_q", "spill ? total : wide_q"),
        ("result_overflow_d = overflow_q || total_event", "result_overflow_d = overflow_q"),
        ("result_events_q   <= result_events_d", "result_events_q   <= events_q"),
        ("end else if (clear) begin", "end else begin"),
        ("acc_q      <= '0;", "acc_q      <= acc_d;"),
    ],
)
def test_a_broken_accumulator_is_refuted(tmp_path, right, wrong):
    files = broken_copy(tmp_path, "pe_accumulator", right, wrong)
    parameters = {"ACC_BITS": 12, "WIDE_BITS": 14, "SPILL": 3, "EVENTS_W": 2, "SATURATE": 1}
    assert not is_proven_equal("pe_accumulator", "accumulator_reference", parameters, files=files)
