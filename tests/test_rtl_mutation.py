"""Single-bit faults of the synthesised Verilog are noticed; weak stimuli and proofs are too."""

import random
from dataclasses import replace

import pytest

from golden.errors import ToolError
from rtl_models.dut import Dut, compile_library, layout
from rtl_models.equivalence import Prover
from rtl_models.mutants import Netlist, build
from rtl_models.mutation import check_netlist, measure
from rtl_models.replay import module_ports
from rtl_models.sources import sources
from rtl_models.stimuli import word
from rtl_models.subjects import SUBJECTS

KNOWN = {subject.name: subject for subject in SUBJECTS}

pytestmark = [pytest.mark.rtl, pytest.mark.slow]


def driven(subject, folder, mutants, seed, cycles):
    """Netlist, module under its stimuli, and first cycle in which each mutant differs, or -1."""
    netlist = Netlist(subject, folder, mutants=mutants, seed=seed)
    dut = Dut(netlist.ports, build(netlist), subject.gates)
    subject.stimuli(dut, random.Random(1), cycles)
    return netlist, dut.first_differences(len(netlist.mutants))


@pytest.mark.parametrize(
    "name", ["pe_ternary", "fit_signed saturate", "napier_pe ternary", "array_window"]
)
def test_every_fault_is_noticed_or_proven_to_be_none(tmp_path, name):
    report = measure(KNOWN[name], tmp_path, mutants=100, cycles=5000)
    assert report.mutants == 100
    assert report.killed + report.equivalent == 100, report.survivors
    assert report.score == 1.0


def test_stimuli_that_never_clear_leave_faults_alive(tmp_path):
    def never_clear(dut, rng, cycles):
        for cycle in range(cycles):
            dut.cycle(rst=cycle == 0, step=1, clear=0, addend=word(rng, 10))

    weak = replace(KNOWN["pe_accumulator wrap"], stimuli=never_clear, registers=False)
    report = measure(weak, tmp_path, mutants=30, cycles=500)
    # The result registers stay 0, so nothing of the accumulator is ever seen.
    assert report.killed < 15
    assert report.survivors


def test_the_proof_tells_faults_from_equivalent_mutants(tmp_path):
    netlist, first = driven(KNOWN["tile_counter"], tmp_path, mutants=12, seed=3, cycles=2000)
    killed = [mutant for mutant in netlist.mutants if first[mutant.number] >= 0]
    assert len(killed) >= 6
    # A mutant whose outputs differed cannot be proven equal.
    assert not any(Prover(netlist).is_equivalent(mutant) for mutant in killed[:6])
    # Without a fault it must be.
    assert Prover(netlist).is_equivalent(replace(killed[0], number=0, options="-mode none"))


def test_without_a_fault_nothing_differs(tmp_path):
    _, first = driven(KNOWN["pe_ternary"], tmp_path, mutants=2, seed=1, cycles=300)
    assert first[0] == -1
    assert (first[1:] >= 0).all()


def test_the_proof_from_a_reset_tells_faults_from_none(tmp_path):
    subject = replace(
        KNOWN["part_counter"], invariant="", reset="load", steady=("cfg_winograd", "cfg_chunks")
    )
    netlist, first = driven(subject, tmp_path, mutants=6, seed=1, cycles=3000)
    killed = [mutant for mutant in netlist.mutants if first[mutant.number] >= 0]
    assert len(killed) >= 3
    # A mutant whose outputs differed cannot be proven equal after the reset that came before.
    assert not any(Prover(netlist).is_equivalent(mutant) for mutant in killed[:3])
    assert Prover(netlist).is_equivalent(replace(killed[0], number=0, options="-mode none"))


def test_a_netlist_that_is_not_its_verilog_is_refused(tmp_path):
    wrap, saturate = KNOWN["fit_signed wrap"], KNOWN["fit_signed saturate"]
    netlist = Netlist(wrap, tmp_path, mutants=2, seed=1)
    dut = Dut(netlist.ports, build(netlist), wrap.gates)
    check_netlist(wrap, dut, tmp_path / "wrap", seed=1)
    with pytest.raises(ToolError, match="netlist of fit_signed saturate is not its Verilog"):
        check_netlist(saturate, dut, tmp_path / "saturate", seed=1)


@pytest.mark.parametrize(
    "subject", [each for each in SUBJECTS if each.contract != "1'b1"], ids=lambda each: each.name
)
def test_what_proofs_rely_on_holds_in_the_verilog_in_every_cycle(tmp_path, subject):
    source = next(path for path in sources(subject.module) if path.stem == subject.module)
    text = source.read_text(encoding="utf-8")
    # A last port: whether the first reset has been, and whether the contract holds.
    begins = "flush" if subject.begins == "flush" else "rst"
    text = text.replace("\n);", ",\n    output wire [1:0] contract_seen\n);", 1)
    text = text.replace(
        "\nendmodule",
        f"""
  logic contract_q = 1'b0;
  always_ff @(posedge clk) contract_q <= contract_q || {begins};
  assign contract_seen = {{contract_q, {subject.contract.replace(chr(92), "")}}};
endmodule""",
    )
    changed = tmp_path / source.name
    changed.write_text(text)
    files = [changed if path == source else path for path in sources(subject.module)]
    ports = module_ports(subject.module, subject.parameters, tmp_path / "ports")
    ports = replace(ports, outputs={**ports.outputs, "contract_seen": 2})
    library = compile_library(
        subject.module, files, ports, tmp_path / "build", parameters=subject.parameters
    )
    dut = Dut(ports, library, {})
    subject.stimuli(dut, random.Random(1), 3000)
    at, _ = layout(ports.outputs)["contract_seen"]
    seen = [row[1][4 * at] for row in dut.rows]
    assert seen.count(3) > 2000
    assert 2 not in seen, f"not in cycle {seen.index(2)}"
