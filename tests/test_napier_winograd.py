"""`napier widths --winograd` as a user meets it."""

import json
import subprocess
import sys

import naive
import numpy as np
import pytest

from golden.files import load_network
from golden.network import Conv2D
from golden.operators import accumulators
from golden.ranges import clamp_ranges
from golden.run import run as run_golden
from golden.winograd import certify_winograd, choose_named, winograd_layer
from napier.cli import main
from napier.loading import shipped_digits, shipped_file
from simulator.projection import project_weights


@pytest.fixture
def napier(tmp_path, monkeypatch, capsys):
    """Run the command in this process."""

    def call(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["napier", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        code = int(stop.value.code or 0)
        return subprocess.CompletedProcess(arguments, code, printed.out, printed.err)

    return call


def document_of(napier, *arguments):
    done = napier("widths", *arguments, "--json", "-")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_without_the_option_the_document_has_no_winograd(napier):
    document = document_of(napier)
    assert "winograd" not in document
    assert all("winograd" not in layer for layer in document["layers"])


@pytest.mark.parametrize(
    ("name", "shift"), [("f2", 2), ("f3", 2), ("f4", 6), ("f6", 6), ("complex", 4)]
)
def test_every_layer_is_a_transform_with_widths_or_direct_with_a_reason(napier, name, shift):
    document = document_of(napier, "--winograd", name)
    assert document["winograd"] == name
    taken = []
    for layer in document["layers"]:
        entry = layer["winograd"]
        if entry["transform"] == "direct":
            assert entry["reason"]
            continue
        taken.append(layer["name"])
        assert entry["reason"] == ""
        assert entry["shift"] == shift
        assert entry["stages"]["direct"]["lo"] == layer["lo"]
        assert entry["stages"]["direct"]["hi"] == layer["hi"]
        assert entry["wrapped_bits"] == entry["stages"]["direct"]["bits"] + shift
        assert len(entry["channels"]) == len(layer["channels"])
        for stage, found in entry["stages"].items():
            if not stage.startswith("input"):
                widest = max(channel[f"{stage}_bits"] for channel in entry["channels"])
                assert widest == found["bits"]
    assert taken == ["stem", "depthwise", "block_1", "block_2"]


def test_the_table_fits_80_columns_and_sums_up_the_direct_layers(napier, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("f2", "complex"):
        done = napier("widths", "--winograd", name)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert max(map(len, lines)) <= 80
        start = next(i for i, line in enumerate(lines) if line.startswith(f"Winograd {name}: "))
        assert lines[start].endswith("suffice")
        headings = ["transform", "V", "U", "U*V", "sum", "A'M", "Z", "y", "wrap", "terms"]
        assert lines[start + 1].split()[2:] == headings
        assert sum(line.startswith("direct: ") for line in lines[start:]) == 3


def test_terms_of_projected_weights_are_counted(napier):
    document = document_of(napier, "--winograd", "f2", "--weights", "nhot:2")
    network = project_weights(load_network(shipped_file("digits.npz")), "nhot:2")
    entry = next(x for x in document["layers"] if x["name"] == "block_1")
    weights = network.layers[entry["index"]].weights.astype(int)
    direct = sum(len(naive.naf(int(w))) for w in weights.reshape(-1))
    u = np.array([[1, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 1]])
    transformed = np.einsum("ir,krsc,js->ijkc", u, weights, u)
    terms = [len(naive.naf(int(value))) for value in transformed.reshape(-1)]
    found = entry["winograd"]["terms"]
    assert found["most"] == max(terms)
    assert found["mean"] == pytest.approx(sum(terms) / len(terms))
    # 4 outputs of a tile: 4 * direct terms against the terms of 16 products
    assert found["saving"] == pytest.approx(4 * direct / sum(terms))


def test_witness_files_take_the_stages_to_their_ends(napier, tmp_path):
    document = document_of(napier, "--winograd", "f4", "--witness", "w")
    network = load_network(shipped_file("digits.npz"))
    entry = next(x for x in document["layers"] if x["name"] == "block_1")
    layer = network.layers[entry["index"]]
    transform = choose_named(layer, "f4").transform
    bits = entry["winograd"]["wrapped_bits"]
    with np.load(tmp_path / entry["winograd"]["witness_file"], allow_pickle=False) as file:
        assert str(file["transform"]) == "F(4x4,3x3)"
        broken = False
        for extreme in ("lo", "hi"):
            codes = file[f"codes_sum_{extreme}"]
            (row, column), (p,) = file[f"tile_sum_{extreme}"], file[f"register_sum_{extreme}"]
            stages = winograd_layer(layer, codes, transform).stages
            reached = stages.sum[0, row, column, p, file[f"channel_sum_{extreme}"]]
            assert reached == file[f"value_sum_{extreme}"]
            assert reached == entry["winograd"]["stages"]["sum"][extreme]
            codes = file[f"codes_output_{extreme}"]
            direct = accumulators(layer, codes)
            wrapped = winograd_layer(layer, codes, transform, bits).accumulators
            np.testing.assert_array_equal(wrapped, direct)
            narrow = winograd_layer(layer, codes, transform, bits - 1).accumulators
            broken |= bool((narrow != direct).any())
        assert broken


@pytest.mark.parametrize("name", ["f2", "f3", "f4", "f6", "complex"])
def test_real_layers_equal_the_direct_sum_at_the_proved_width_and_stay_in_their_ranges(name):
    network = load_network(shipped_file("digits.npz"))
    images = shipped_digits()[0][:4]
    tensors = run_golden(network, [images], keep_tensors=True).tensors
    ranges = clamp_ranges(network)
    computed = 0
    for layer in network.layers:
        choice = choose_named(layer, name) if isinstance(layer, Conv2D) else None
        if choice is None or choice.transform is None:
            continue
        computed += 1
        codes, source = tensors[layer.inputs[0]], network.tensors[layer.inputs[0]]
        found = certify_winograd(layer, source, ranges[layer.inputs[0]], choice.transform)
        bits = int(found.wrapped_bits.max())
        wrapped = winograd_layer(layer, codes, choice.transform, bits).accumulators
        np.testing.assert_array_equal(wrapped, accumulators(layer, codes))
        stages = winograd_layer(layer, codes, choice.transform).stages
        seen = {"input": stages.input, "weight": stages.weight, "sum": stages.sum}
        for stage, values in seen.items():
            assert found.lo[stage].min() <= values.min()
            assert values.max() <= found.hi[stage].max()
    assert computed == 4


def test_run_takes_what_auto_shall_make_small_and_says_why_a_layer_is_direct(napier):
    done = napier(
        *("run", "--no-values", "--hardware", "mac4x4", "--winograd", "auto"),
        *("--winograd-by", "energy", "--json", "-"),
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["hardware"]["winograd"]["choose_by"] == "energy"
    direct = [layer for layer in document["layers"] if layer["unit"] == "array"]
    assert {layer["algorithm"] for layer in direct} == {"direct"}
    assert "it takes no more energy directly" in {layer["algorithm_reason"] for layer in direct}


def test_run_counts_forms_and_the_reasons_of_direct_layers(napier):
    done = napier("run", "--no-values", "--hardware", "mac4x4", "--winograd", "f2")
    text = " ".join(done.stdout.split())
    assert "layers by algorithm: f2 3, direct 1 (it is grouped)" in text
    assert "(its kernel is 1 x 1)" in text
    assert "layers by algorithm" not in napier("run", "--no-values", "--hardware", "mac4x4").stdout


@pytest.mark.parametrize("given", [[], ["--winograd", "f2"]])
def test_what_auto_makes_small_without_auto_is_refused(napier, given):
    done = napier("run", "--no-values", *given, "--winograd-by", "energy")
    assert done.returncode == 2
    assert "add --winograd auto, or leave --winograd-by out" in done.stderr


@pytest.fixture
def images(tmp_path):
    """Eight of the test images, as a file."""
    path = tmp_path / "x.npy"
    np.save(path, shipped_digits()[0][:8])
    return str(path)


def test_transformed_weights_of_few_terms_cost_less_and_are_off(napier, images):
    options = ("--input", images, "--winograd", "f4", "--winograd-project")
    found = {}
    for method in ("nhot:1", "nhot:3", "ternary"):
        document = document_of(napier, *options, method)
        assert document["winograd_projection"] == method
        entries = [layer["winograd"] for layer in document["layers"]]
        assert all(("projected" in x) == (x["transform"] != "direct") for x in entries)
        found[method] = [x for x in entries if "projected" in x][-1]
    exact = found["nhot:1"]["terms"]
    one, three, ternary = (found[method]["projected"] for method in found)
    for projected in (one, three, ternary):
        assert projected["exact_terms_per_output"] == exact["per_output"]
        assert projected["direct_terms_per_output"] == exact["direct_per_output"]
    # 36 products for 16 outputs, of at most so many terms each
    assert one["terms_per_output"] <= 36 / 16 < three["terms_per_output"] <= 108 / 16
    assert ternary["terms_per_output"] < one["terms_per_output"]
    assert three["weight_sqnr_db"] > one["weight_sqnr_db"] + 12
    assert three["output_sqnr_db"] > one["output_sqnr_db"] + 12


def test_the_table_of_projected_weights_fits_80_columns(napier, images, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    options = ("--winograd", "f2", "--winograd-project", "nhot:2")
    done = napier("widths", "--input", images, *options)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    start = next(i for i, line in enumerate(lines) if line.startswith("U projected to nhot:2: "))
    assert lines[start + 3].endswith("dB")


@pytest.mark.parametrize("method", ["nhot:0", "nhot:5", "nhot", "binary"])
def test_unknown_projections_are_refused_before_anything_runs(napier, images, method):
    options = ("--winograd", "f2", "--winograd-project", method)
    done = napier("widths", "--input", images, *options)
    assert done.returncode == 2
    assert f"--winograd-project {method} is no projection" in done.stderr


@pytest.mark.parametrize("options", [("--winograd", "f2"), ("--input", "x.npy")])
def test_projection_needs_a_transform_and_samples(napier, images, options):
    done = napier("widths", *options, "--winograd-project", "ternary")
    assert done.returncode == 2
    assert "add --winograd F --input X.npy" in done.stderr
