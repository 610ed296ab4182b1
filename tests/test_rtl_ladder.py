"""The table of the ladder names only what there is, and the document shows the table."""

import ast
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from rtl_models import ladder
from rtl_models.sources import modules
from rtl_models.subjects import SUBJECTS

ROOT = Path(__file__).parents[1]
NAMED = sorted({test for each in ladder.EVIDENCE for test in each.tests})


@pytest.mark.parametrize("test", NAMED)
def test_every_test_that_the_ladder_names_exists(test):
    file, _, name = test.partition("::")
    tree = ast.parse((ROOT / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_module_that_the_ladder_names_exists():
    named = {module for each in ladder.EVIDENCE for module in (*each.only, *each.below)}
    named |= {module for _, module in ladder.WAIVED}
    assert named <= set(modules())
    assert {each.rung for each in ladder.EVIDENCE} <= set(ladder.RUNGS)
    assert set(ladder.load_results()["mutation"]) <= {subject.module for subject in SUBJECTS}


def test_no_rung_is_both_tested_and_waived():
    tested = {(each.rung, module) for each in ladder.EVIDENCE for module in each.modules()}
    assert not tested & ladder.WAIVED.keys()


def test_the_table_has_every_rung_of_every_module():
    cells = ladder.table()
    assert {(cell.module, cell.rung) for cell in cells} == {
        (module, rung) for module in modules() for rung in ladder.RUNGS
    }


def report(path, *cases, begun="2999-01-01T00:00:00"):
    rows = "".join(
        f'<testcase classname="tests.test_rtl_lint" name="{name}">{inside}</testcase>'
        for name, inside in cases
    )
    suite = f'<testsuite timestamp="{begun}">{rows}</testsuite>'
    path.write_text(f"<testsuites>{suite}</testsuites>")
    return path


@pytest.fixture
def results(tmp_path, monkeypatch):
    """An empty results file."""
    monkeypatch.setattr(ladder, "RESULTS", tmp_path / "results.json")
    return tmp_path


def cell(rung, module):
    return next(each for each in ladder.table() if (each.rung, each.module) == (rung, module))


def test_a_recorded_run_shows_until_the_verilog_changes(results, monkeypatch):
    assert cell("L0", "pe_mac").state == "not recorded"
    name = "test_every_module_is_clean"
    cases = [(f"{name}[pe_mac-yosys]", ""), (f"{name}[pe_mac-iverilog]", "")]
    assert ladder.record_tests(report(results / "report.xml", *cases, ("test_other", ""))) == 1
    assert (cell("L0", "pe_mac").state, cell("L0", "pe_mac").text) == ("done", "2")
    monkeypatch.setattr(ladder, "digest", lambda module: "other")
    assert (cell("L0", "pe_mac").state, cell("L0", "pe_mac").text) == ("old", "2 (old)")


def test_a_run_before_the_verilog_was_written_is_old(results):
    case = ("test_every_module_is_clean[pe_mac-yosys]", "")
    ladder.record_tests(report(results / "report.xml", case, begun="2001-01-01T00:00:00"))
    assert cell("L0", "pe_mac").text == "1 (old)"


def test_cases_that_name_modules_count_for_these_alone(results):
    cases = [(f"test_every_module_is_clean[{m}-yosys]", "") for m in ("pe_mac", "drain", "drain")]
    ladder.record_tests(report(results / "report.xml", *cases))
    assert (cell("L0", "pe_mac").text, cell("L0", "drain").text) == ("1", "2")


def test_a_run_of_some_modules_leaves_what_was_recorded_of_others(results):
    name = "test_every_module_is_clean"
    ladder.record_tests(report(results / "first.xml", (f"{name}[pe_mac-yosys]", "")))
    assert cell("L0", "drain").state == "not recorded"
    ladder.record_tests(report(results / "second.xml", (f"{name}[drain-yosys]", "")))
    assert (cell("L0", "pe_mac").text, cell("L0", "drain").text) == ("1", "1")


def test_a_failed_case_leaves_the_rung_open(results):
    name = "test_every_module_is_clean"
    ladder.record_tests(report(results / "report.xml", (name, ""), (name, "<failure/>")))
    assert cell("L0", "pe_mac").state == "open"


def test_mutation_scores_are_summed_and_survivors_leave_the_rung_open(results):
    figures = {"mutants": 10, "killed": 9, "equivalent": 1, "survived": 0, "cycles": 5}
    ladder.record_mutation("pe_mac", "pe_mac", 1, figures, ladder.digest("pe_mac"))
    assert (cell("L8", "pe_mac").state, cell("L8", "pe_mac").text) == ("done", "9/9")
    worse = figures | {"killed": 8, "survived": 1}
    ladder.record_mutation("pe_mac", "pe_mac", 2, worse, ladder.digest("pe_mac"))
    assert (cell("L8", "pe_mac").state, cell("L8", "pe_mac").text) == ("open", "17/18 (open)")


def test_the_table_of_mutants_says_what_became_of_them_and_of_which_verilog(results):
    figures = {"mutants": 10, "killed": 8, "equivalent": 1, "survived": 1, "cycles": 5}
    ladder.record_mutation("pe_mac", "pe_mac small", 1, figures, ladder.digest("pe_mac"))
    ladder.record_mutation("pe_mac", "pe_mac small", 2, figures, "of other Verilog")
    found = CliRunner().invoke(ladder.main, ["--mutants"])
    assert found.output.splitlines()[2:] == [
        "| pe_mac small | 1 | 10 | 8 | 1 | 1 | 88.9% |",
        "| pe_mac small (old) | 2 | 10 | 8 | 1 | 1 | 88.9% |",
    ]


def test_comments_do_not_make_a_number_old(tmp_path, monkeypatch):
    file = tmp_path / "pe_mac.v"
    monkeypatch.setattr(ladder, "sources", lambda module: (file,))
    file.write_text("module a; // one\nendmodule\n")
    before = ladder.digest("pe_mac")
    file.write_text("module a;  // two\nendmodule\n")
    assert ladder.digest("pe_mac") == before
    file.write_text("module b;\nendmodule\n")
    assert ladder.digest("pe_mac") != before


def test_command_prints_the_table_and_writes_json(tmp_path):
    path = tmp_path / "ladder.json"
    found = CliRunner().invoke(ladder.main, ["--json", str(path)])
    assert found.exit_code == 0
    assert found.output.startswith("| module | L0 |")
    cells = json.loads(path.read_text())
    assert len(cells) == len(modules()) * len(ladder.RUNGS)


def test_the_document_shows_a_row_of_every_module():
    text = (ROOT / "docs" / "verification.md").read_text()
    assert "python -m rtl_models.ladder" in text
    missing = [module for module in modules() if f"\n| {module} |" not in text]
    assert not missing, f"{missing}: put the output of python -m rtl_models.ladder there again"
