from io import BytesIO
from pathlib import Path

import pytest

from rtl_models.waveform import Row, draw, read_vcd

VCD = """$timescale 1ns $end
$scope module bench $end
$var reg 1 ! clk $end
$var wire 1 " valid $end
$scope module unit $end
$var wire 4 # state [3:0] $end
$var wire 1 " also_valid $end
$upscope $end
$upscope $end
$enddefinitions $end
#0
0!
x"
bxxxx #
#5
1!
#6
1"
b0011 #
#10
0!
#15
1!
#16
0"
b101 #
#20
0!
#25
1!
"""
# Edges at 5, 15, 25: before them valid is x, 1, 0 and the state x, 3, 5.


@pytest.fixture
def vcd(tmp_path: Path) -> Path:
    path = tmp_path / "waves.vcd"
    path.write_text(VCD, encoding="ascii")
    return path


def test_signals_are_sampled_just_before_each_rising_edge(vcd: Path) -> None:
    waves = read_vcd(vcd, "bench.clk", ["bench.valid", "bench.unit.state"])
    assert waves.cycles == 3
    assert waves.values == {"bench.valid": [None, 1, 0], "bench.unit.state": [None, 3, 5]}
    assert waves.widths["bench.unit.state"] == 4


def test_one_net_answers_to_all_its_names(vcd: Path) -> None:
    waves = read_vcd(vcd, "bench.clk", ["bench.unit.also_valid"])
    assert waves.values["bench.unit.also_valid"] == [None, 1, 0]


def test_an_unknown_signal_is_named(vcd: Path) -> None:
    with pytest.raises(KeyError, match=r"bench\.nothing_here"):
        read_vcd(vcd, "bench.clk", ["bench.nothing_here"])


def test_a_diagram_shows_labels_and_named_values(vcd: Path) -> None:
    waves = read_vcd(vcd, "bench.clk", ["bench.valid", "bench.unit.state"])
    rows = [
        Row("inputs"),
        Row("valid", "bench.valid"),
        Row("state", "bench.unit.state", names={3: "go"}),
    ]
    figure = draw(waves, rows, 0, 2)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["inputs", "valid", "state", "x", "go", "5"]
    figure.savefig(BytesIO(), format="svg")
