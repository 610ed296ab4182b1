"""Layers described by ranges in a TOML file: the widths of a published adder, and brute force."""

from itertools import product
from pathlib import Path

import naive
import pytest
from click.testing import CliRunner, Result

from golden.certificates import certify
from golden.errors import ModelError
from napier.cli import cli
from napier.described import load_described

CUTIE = """
[[layers]]
name = "ocu"
products = 864
weights = [-1, 1]
activations = [-1, 1]
"""
# CUTIE (pulp-platform/CUTIE, ocu_pool_weights.sv): 3 * 3 * 96 products of -1, 0, 1 in 10 bits.


def command(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


@pytest.fixture
def cutie(tmp_path: Path) -> str:
    path = tmp_path / "cutie.toml"
    path.write_text(CUTIE)
    return str(path)


def test_864_ternary_products_need_11_bits(cutie: str) -> None:
    result = command("widths", cutie)
    assert result.exit_code == 0, result.output
    assert "11 bits hold every sum of products (ocu)" in result.output
    narrow = command("hardware", "show", "ternary4x4").output
    lines = [
        "acc_bits = 10" if line.startswith("acc_bits") else line for line in narrow.splitlines()
    ]
    hardware = Path(cutie).with_name("ten.toml")
    hardware.write_text("\n".join(lines))
    result = command("widths", cutie, "--hardware", str(hardware))
    assert "1 of 1 layers do not fit the 10 bits of ternary4x4: ocu (11 bits)" in result.output


@pytest.mark.long
@pytest.mark.rtl
def test_864_ternary_products_overflow_10_bits_of_the_verilog(cutie: str) -> None:
    result = command("verify", "--witness", cutie, "--hardware", "ternary4x4")
    assert result.exit_code == 0, result.output
    assert "ocu hi/11" in result.output
    assert "ocu hi/10" in result.output
    said = " ".join(result.output.split())
    assert "no overflow at the proved widths, overflow one bit below" in said


@pytest.mark.parametrize(
    ("products", "weights", "activations"),
    [
        (2, (-1, 1), (-1, 1)),
        (3, (-2, 3), (0, 2)),
        (2, (5, 7), (-2, 1)),
        (2, (-7, 6), (1, 3)),
        (2, (0, 7), (-3, -1)),
        (1, (3, 3), (2, 2)),
    ],
)
def test_no_weight_and_activation_of_the_ranges_reaches_further_and_some_reach_it(
    tmp_path: Path, products: int, weights: tuple[int, int], activations: tuple[int, int]
) -> None:
    path = tmp_path / "layer.toml"
    path.write_text(
        f'[[layers]]\nname = "all"\nproducts = {products}\n'
        f"weights = {list(weights)}\nactivations = {list(activations)}\n"
    )
    network = load_described(path)
    found = certify(network.layers[1], network.tensors[1], activations)
    pairs = list(
        product(range(weights[0], weights[1] + 1), range(activations[0], activations[1] + 1))
    )
    for steps, low, high in (
        ("product", found.prefix_lo, found.prefix_hi),
        ("terms", found.term_lo, found.term_hi),
    ):
        records = [
            naive.accumulate(naive.steps_of(taps, steps), 40, "wrap")
            for taps in product(pairs, repeat=products)
        ]
        assert low.min() == min(record["minimum"] for record in records)
        assert high.max() == max(record["maximum"] for record in records)
        if steps == "product":
            assert found.lo.min() == min(record["exact"] for record in records)
            assert found.hi.max() == max(record["exact"] for record in records)


def test_several_layers_are_one_network(tmp_path: Path) -> None:
    path = tmp_path / "two.toml"
    second = CUTIE.replace("ocu", "wide").replace("activations = [-1, 1]", "activations = [0, 255]")
    path.write_text(CUTIE + second)
    network = load_described(path)
    assert [tensor.dtype for tensor in network.tensors] == ["int8"] * 3 + ["uint8"] * 3
    result = command("widths", str(path))
    assert "19 bits hold every sum of products (wide)" in result.output  # 864 * 255 = 220320


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("layers = 3", "must hold [[layers]] and nothing else"),
        ("", "but holds nothing"),
        ("[[layers]\n", "is not a TOML file"),
        ('[[layers]]\nname = "a"\n', "every layer must have activations, name, products, weights"),
        (CUTIE + CUTIE, "every layer must have a name of its own"),
        (CUTIE.replace("864", "0"), "products of layer 'ocu' must be 1 to 1048576, but is 0"),
        (CUTIE.replace("864", "true"), "products of layer 'ocu' must be"),
        (CUTIE.replace("weights = [-1, 1]", "weights = [1, -1]"), "weights of layer 'ocu' must be"),
        (CUTIE.replace("weights = [-1, 1]", "weights = [0.5, 1]"), "two whole numbers"),
        (
            CUTIE.replace("activations = [-1, 1]", "activations = [0, 40000]"),
            "activations of layer 'ocu' must fit int8 or uint8 or int16, but are [0, 40000]",
        ),
    ],
)
def test_what_is_no_description_gets_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "layer.toml"
    path.write_text(text)
    with pytest.raises(ModelError) as refused:
        load_described(path)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
