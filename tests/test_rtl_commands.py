"""Commands of the Verilog's own tools end with one sentence where something is wrong."""

import sys
from importlib import import_module

import pytest

from rtl_models.commands import run_command


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("lockstep", "--hardware", "none.toml"), "none.toml cannot be read"),
        (("lockstep", "--cycles", "0"), "0 is not in the range x>=1"),
        (("mutation", "pe_mca"), "no module 'pe_mca'; there are"),
        (("mutation", "--mutants", "0"), "0 is not in the range x>=1"),
        (("ladder", "--record", "none.xml"), "'none.xml' does not exist"),
        (("ladder", "--record", "text.xml"), "text.xml is no report of pytest --junitxml"),
        (("ladder", "--json", "nowhere/cells.json"), "nowhere/cells.json: No such file"),
    ],
)
def test_bad_input_is_named_and_ends_with_2(tmp_path, monkeypatch, capsys, arguments, sentence):
    (tmp_path / "text.xml").write_text("no XML")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(arguments))
    with pytest.raises(SystemExit) as ended:
        run_command(import_module(f"rtl_models.{arguments[0]}").main)
    assert sentence in capsys.readouterr().err
    assert ended.value.code == 2
