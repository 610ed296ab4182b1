"""Decoders of packed weights in Verilog: every code, against golden.packings."""

import re
from pathlib import Path

import pytest

from golden.packings import nhot_code
from rtl_models import VerificationError, lint, run_bench
from rtl_models.netlist import is_equivalent, write_netlist
from rtl_models.sources import VERILOG
from rtl_models.synth import synthesize_designs

BENCH = Path(__file__).parent / "benches" / "bench_decoders.py"
DOCUMENT = Path(__file__).parents[1] / "docs" / "packings.md"


def book(terms, max_exponent, limit):
    width = nhot_code(terms, max_exponent, limit).code_bits
    names = ("TERMS", "MAX_EXPONENT", "LIMIT", "CODE_W")
    return dict(zip(names, (terms, max_exponent, limit, width), strict=True))


TESTS = {
    "nhot_code_decoder": "nhot_codes",
    "nhot_pair_decoder": "nhot_pairs_of_int8",
    "trit_decoder": "five_trits",
    "trit_pair_decoder": "trit_pairs",
    "ternary_plane_decoder": "trit_planes",
}
FORMATS = [
    ("nhot_code_decoder", book(2, 7, 127)),
    ("nhot_code_decoder", book(1, 7, 127)),
    ("nhot_code_decoder", book(3, 7, 127)),
    ("nhot_code_decoder", book(2, 6, 127)),  # 96 = 128 - 32 takes an exponent beyond the set's
    ("nhot_code_decoder", book(2, 0, 127)),  # -2 to 2
    ("nhot_pair_decoder", {"TERMS": 2, "EXPONENT_W": 3}),
    ("nhot_pair_decoder", {"TERMS": 3, "EXPONENT_W": 3}),
    ("trit_decoder", {}),
    ("trit_pair_decoder", {"LANES": 4, "OFFSET": 0}),
    ("trit_pair_decoder", {"LANES": 4, "OFFSET": 1}),
    ("ternary_plane_decoder", {"LANES": 4}),
]

pytestmark = pytest.mark.rtl


def name(value):
    return value if isinstance(value, str) else "-".join(f"{k}={v}" for k, v in value.items())


def decode(folder, module, parameters, sources=None):
    return run_bench(
        module,
        BENCH,
        folder,
        parameters=parameters,
        sources=sources,
        test_filter=rf".*\.{TESTS[module]}",
    )


@pytest.mark.parametrize(("module", "parameters"), FORMATS, ids=name)
def test_every_code_gives_the_weights_of_golden_or_is_refused(tmp_path, module, parameters):
    assert len(decode(tmp_path, module, parameters).tests) == 1


@pytest.mark.long
@pytest.mark.parametrize(
    ("module", "right", "wrong"),
    [
        ("trit_decoder", "8'd243", "8'd244"),
        ("trit_pair_decoder", "2'b10;", "2'b11;"),
        ("ternary_plane_decoder", "plus[i] | minus[i]", "plus[i]"),
        ("nhot_code_decoder", "e <= MAX_EXPONENT", "e < MAX_EXPONENT"),
        ("nhot_pair_decoder", "<= exponent", "< exponent"),
    ],
)
def test_a_broken_decoder_is_found(tmp_path, module, right, wrong):
    text = (VERILOG / f"{module}.v").read_text()
    assert text.count(right) == 1
    broken = tmp_path / f"{module}.v"
    broken.write_text(text.replace(right, wrong))
    with pytest.raises(VerificationError, match=TESTS[module]):
        decode(tmp_path / "run", module, {}, [broken])


@pytest.mark.parametrize("module", TESTS)
def test_netlist_of_a_decoder_is_proven_equal(tmp_path, module):
    netlist = tmp_path / "netlist.v"
    write_netlist(module, {}, netlist)
    assert is_equivalent(module, {}, netlist, tmp_path / "proof")


@pytest.mark.parametrize("tool", ["iverilog", "verilator", "yosys"])
@pytest.mark.parametrize(
    ("module", "parameters"), [FORMATS[1], FORMATS[2], FORMATS[6], FORMATS[9]], ids=name
)
def test_decoders_of_other_formats_are_clean(module, parameters, tool):
    assert lint(tool, module, parameters) == ""


def test_a_code_of_the_wrong_width_is_refused(tmp_path):
    with pytest.raises(VerificationError, match="44 magnitudes need CODE_W = 7, not 8"):
        decode(tmp_path, "nhot_code_decoder", book(2, 7, 127) | {"CODE_W": 8})


SYNTHESIZED = {
    "nhot1_code": book(1, 7, 127),
    "nhot2_code": book(2, 7, 127),
    "nhot3_code": book(3, 7, 127),
    "nhot2_pairs": {"TERMS": 2},
    "nhot3_pairs": {"TERMS": 3},
    "ternary_twos_complement": {"LANES": 8, "OFFSET": 0},
    "ternary_offset": {"LANES": 8, "OFFSET": 1},
    "ternary_planes": {"LANES": 8},
    "ternary_trits5": {},
}


@pytest.mark.long
def test_the_document_has_the_gates_of_every_decoder():
    rows = re.findall(r"^\| `(\w+)` \| [\d.]+ \| `(\w+)` \| (\d+) \|", DOCUMENT.read_text(), re.M)
    assert [name for name, *_ in rows] == list(SYNTHESIZED)
    areas, _ = synthesize_designs({name: (module, SYNTHESIZED[name]) for name, module, _ in rows})
    assert {name: str(areas[name][0].area.gates) for name in areas} == {
        name: gates for name, _, gates in rows
    }
