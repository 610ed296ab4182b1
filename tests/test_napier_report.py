"""Tables at the edges: numbers of any size stay readable in 80 columns."""

import copy
import io
import sys
from typing import Any

import pytest
from rich.console import Console

from golden.files import load_network
from napier.cli import console
from napier.loading import shipped_file
from napier.report import human, human_energy, human_seconds, run_table
from simulator.hardware import load_hardware
from simulator.machine import simulate


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    network = load_network(shipped_file("digits.npz"))
    return simulate(network, load_hardware("mac16x16"), values=False).to_dict()


def enlarged(document: dict[str, Any], factor: int) -> dict[str, Any]:
    """The run of a network `factor` times as large whose accumulators overflow everywhere."""
    large = copy.deepcopy(document)
    for layer in large["layers"]:
        layer["index"] += 100
        layer["name"] = f"model/stage_with_a_long_name/{layer['op']}_{layer['index']}"
        layer["op"] = {"conv": "average_pool", "add": "resize_nearest"}.get(
            layer["op"], layer["op"]
        )
        for key in ("cycles_by_cause", "energy_pj"):
            layer[key] = {name: value * factor for name, value in layer[key].items()}
        for key in ("cycles", "macs"):
            layer[key] *= factor
        if layer["macs"]:
            layer["accumulator"] = {
                "bits": 24, "bits_needed": 48, "events": 123 * factor, "outputs_affected": factor,
            }  # fmt: skip
    for key in ("cycles", "macs", "energy_pj", "seconds"):
        large["totals"][key] *= factor
    large["totals"]["overflow_events"] = 861 * factor
    return large


@pytest.mark.parametrize("factor", [1, 10**3, 10**6, 10**9])
def test_no_number_is_cut_in_80_columns(document: dict[str, Any], factor: int) -> None:
    text = io.StringIO()
    Console(file=text, width=80).print(run_table(enlarged(document, factor)))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if line.startswith(("100", "101", "102", "103", "109"))]
    assert len(rows) == 5
    for row in rows:  # only the name of the layer may be cut
        assert row.split()[1].startswith("mod")
        assert row.count("…") <= 1
        assert "e+" not in row
        assert row.rstrip().endswith("!")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (human(999), "999"),
        (human(9_999_000_000_000), "10T"),
        (human(1_234_000_000_000_000), "1.23P"),
        (human_energy(408e9), "408 mJ"),
        (human_energy(1.5e12), "1.5 J"),
        (human_energy(4.08e14), "408 J"),
        (human_energy(4.08e15), "4.08 kJ"),
        (human_seconds(999.4), "999 s"),
        (human_seconds(1007.8), "1008 s"),
        (human_seconds(0.0101), "10.1 ms"),
    ],
)
def test_units_reach_as_far_as_the_numbers(text: str, expected: str) -> None:
    assert text == expected


@pytest.mark.parametrize(("columns", "width"), [(40, 80), (132, 132)])
def test_a_narrow_terminal_does_not_cut_the_table(
    columns: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert console().width == width
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    assert console().width == 80
