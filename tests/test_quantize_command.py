"""`napier quantize`: what it writes is what every other command takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from golden.errors import InputError, NapierError
from golden.files import load_network
from golden.network import WeightedLayer
from golden.run import run
from napier.cli import cli
from napier.loading import load_model, shipped_digits
from napier.quantizing import (
    Request,
    Source,
    load_reals,
    load_source,
    parse_settings,
    quantize_document,
    quantize_table,
)
from napier.verification import verify_network
from simulator.hardware import load_hardware
from simulator.machine import simulate

SHARED = Path(__file__).resolve().parents[2] / "shared"
MODELS = SHARED / "models/mlperf_tiny"

needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="needs the shared models and data")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder with the digits as codes: calib.npy, x.npy, y.npy, one.npy."""
    images, labels = shipped_digits()
    np.save(tmp_path / "calib.npy", images[:10])
    np.save(tmp_path / "x.npy", images[40:90])
    np.save(tmp_path / "y.npy", labels[40:90])
    np.save(tmp_path / "one.npy", images[:1])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def quantize(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["quantize", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: str) -> str:
    with pytest.raises(NapierError) as caught:
        CliRunner().invoke(
            cli, ["quantize", *arguments], catch_exceptions=False, standalone_mode=False
        )
    return str(caught.value)


METHODS = {
    "int7": ("--method", "easyquant", "--bits", "7", "--input", "calib.npy"),
    "unsigned": ("--method", "uniform:scheme=asymmetric,per=tensor", "--input", "calib.npy"),
    "narrow": ("--bits", "4", "--activation-bits", "3", "--keep-ends", "--input", "calib.npy"),
    "mixed": ("--method", "nhot:n=2", "--layer", "dense=nhot:n=3", "--layer", "stem=uniform@6"),
    "ternary": ("--method", "twn", "--correct-bias", "--input", "calib.npy"),
}


@pytest.mark.parametrize("name", METHODS)
def test_golden_and_simulator_agree_on_quantized_networks(work: Path, name: str) -> None:
    quantize(*METHODS[name], "--test", "one.npy", "-o", "out.npz")
    network = load_network("out.npz")
    codes = np.load("x.npy")[:3]
    result = simulate(network, load_hardware("mac4x4"), (codes,))
    np.testing.assert_array_equal(result.outputs[0], run(network, codes).outputs[0])


def verified(name: str, hardware: str) -> None:
    quantize(*METHODS[name], "--test", "one.npy", "-o", "out.npz")
    summary = verify_network(
        *("out.npz", load_hardware(hardware), ("one.npy",), "as-is", "icarus", 0, None),
        lambda done, total, what: None,
    )
    assert summary.passed


@pytest.mark.rtl
def test_verilog_agrees_on_a_network_of_narrow_codes(work: Path) -> None:
    verified("narrow", "mac4x4")


@pytest.mark.rtl
@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "hardware"),
    [("int7", "mac4x4"), ("unsigned", "mac4x4"), ("mixed", "mac4x4"), ("ternary", "ternary4x4")],
)
def test_verilog_agrees_on_every_kind_of_code(work: Path, name: str, hardware: str) -> None:
    verified(name, hardware)


def test_the_document_says_what_every_layer_lost_and_takes(work: Path) -> None:
    quantize(
        *("--method", "nhot:n=2", "--layer", "dense=uniform@8", "--input", "calib.npy"),
        *("--test", "x.npy", "--labels", "y.npy", "--json", "q.json", "-o", "out.npz"),
    )
    document = json.loads(Path("q.json").read_text())
    assert document["schema"] == "napier.quantize/1"
    layers = {layer["name"]: layer for layer in document["layers"]}
    assert layers["reduce"]["method"] == "nhot"
    assert layers["reduce"]["terms_per_weight"] <= 2 < layers["dense"]["terms_per_weight"]
    # 87 values of 2-hot int8 take a code book of 7 bits (methods.md 1.4)
    assert layers["reduce"]["storage_bits"] == 7 * 2304
    assert layers["dense"]["storage_bits"] == 8 * 640
    # 7824 weights and 90 channels: 32 bits each; then 7 or 8 bits and twice 32 for a channel
    size = document["size"]
    assert size["float_bytes"] == 4 * (7824 + 90)
    assert size["int8_bytes"] == 7824 + 8 * 90
    assert size["bytes"] == (7 * (7824 - 640) + 8 * 640) / 8 + 8 * 90
    assert document["comparison"]["samples"] == 50
    assert document["comparison"]["accuracy"] > 0.95
    assert document["output"]["cosine"] > 0.99
    assert document["inputs"][0]["zero_point"] == -128


def test_the_table_fits_eighty_columns(work: Path) -> None:
    text = quantize(
        *METHODS["int7"], "--activations", "max", "--partial-sums", "16", "-o", "out.npz"
    )
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "easyquant" in text
    assert "…" not in text
    assert "no overflow" in text
    assert max(len(line) for line in quantize("--list").splitlines()) <= 80


def test_activations_become_nhot_only_in_the_comparison(work: Path) -> None:
    arguments = ("--input", "calib.npy", "--test", "x.npy", "--labels", "y.npy")
    plain = quantize(*arguments, "-o", "plain.npz")
    found = {}
    for terms in (8, 2, 1):
        out = f"{terms}.npz"
        text = quantize(*arguments, "--activation-terms", str(terms), "--json", "q.json", "-o", out)
        assert f"activations {terms}-hot, too: same top-1" in text
        assert max(len(line) for line in text.splitlines()) <= 80
        found[terms] = json.loads(Path("q.json").read_text())
        assert Path(out).read_bytes() == Path("plain.npz").read_bytes()
    assert "-hot, too" not in plain
    compared, entry = found[8]["comparison"], found[8]["nhot_activations"]
    assert entry["terms"] == 8  # every operand is a sum of so many: nothing changes
    assert entry["top1_agreement"] == compared["top1_agreement"]
    accuracies = [found[terms]["nhot_activations"]["accuracy"] for terms in (1, 2, 8)]
    assert accuracies[0] < accuracies[1]
    assert accuracies[2] - accuracies[1] <= 0.04
    assert "add --test X.npy" in refused("plain.npz", "--activation-terms", "2", "-o", "z.npz")


def test_codes_of_the_samples_are_written_for_the_other_commands(work: Path) -> None:
    quantize("--input", "calib.npy", "--test", "x.npy", "--codes", "codes.npy", "-o", "out.npz")
    np.testing.assert_array_equal(np.load("codes.npy"), np.load("x.npy"))  # the same input scale
    result = CliRunner().invoke(
        cli,
        ["infer", "out.npz", "--input", "codes.npy", "--output", "z.npy"],
        catch_exceptions=False,
    )
    assert result.exit_code == 0
    assert (np.load("z.npy").argmax(axis=1) == np.load("y.npy")).mean() > 0.95


def test_without_samples_an_integer_network_keeps_the_scales_of_its_activations(work: Path) -> None:
    arguments = ("--method", "nhot:n=1", "--test", "one.npy")
    assert "activations of 8 (kept)" in quantize(*arguments, "-o", "out.npz")
    before, after = load_model(None), load_network("out.npz")
    assert [tensor.scale for tensor in before.tensors] == [tensor.scale for tensor in after.tensors]
    assert after.source.endswith("quantized by nhot:n=1 to 8 bits")
    for layer in after.layers:
        if isinstance(layer, WeightedLayer):
            magnitudes = set(np.abs(layer.weights.astype(int)).ravel().tolist())
            assert magnitudes <= {0, 1, 2, 4, 8, 16, 32, 64}


def test_kept_activations_have_the_bits_that_they_had(work: Path) -> None:
    quantize("--bits", "4", "-o", "out.npz", "--json", "out.json")
    assert json.loads((work / "out.json").read_text())["activations"]["bits"] == 8
    printed = quantize("--bits", "3", "--activations", "keep", "-o", "other.npz")
    assert "activations of 8 (kept)" in printed


def test_a_promise_of_fewer_input_codes_is_named_by_the_plan_of_partial_sums(work: Path) -> None:
    source = Source(load_source(None).network, None, {})  # as if it had been read as float
    images = load_reals(load_source(None), ("calib.npy",))
    request = Request("easyquant", 7, input_bits=7, partial_sum_bits=16)
    _, document = quantize_document(source, request, images)
    console = Console(width=200)
    with console.capture() as capture:
        console.print(quantize_table(document))
    assert "no overflow, for codes from -63 to 63 of image" in capture.get()
    printed = quantize(*METHODS["int7"], "--partial-sums", "16", "-o", "out.npz")
    assert "no overflow, for every input" in " ".join(printed.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "needs a file to go to; add -o OUT.npz"),
        (("-o", "out.tflite"), "must end in .npz"),
        (("-o", "out.npz", "--bits", "9"), "weights must have 2 to 8 bits, not 9"),
        (("-o", "out.npz", "--method", "nhott"), "did you mean nhot?"),
        (("-o", "out.npz", "--method", "nhot:m=2"), "is not a setting of method nhot"),
        (("-o", "out.npz", "--layer", "stem"), "as in conv_3=nhot:n=3"),
        (("-o", "out.npz", "--layer", "stem=uniform@x"), "as in conv_3=nhot:n=3"),
        (("-o", "out.npz", "--layer", "steam=uniform"), "has no such layer that multiplies"),
        (("-o", "out.npz", "--method", "easyquant"), "add --input CALIBRATION.npy"),
        (("-o", "out.npz", "--activation-bits", "4"), "add --input CALIBRATION.npy"),
        (("-o", "out.npz", "--activations", "keep", "--activation-bits", "4"),
         "keep leaves 8 bits"),
        (("-o", "out.npz", "--input-bits", "7"), "has int8 codes already, which stay"),
        (("-o", "out.npz", "--labels", "y.npy"), "belong to the samples of --test"),
        (("-o", "out.npz", "--test", "one.npy", "--labels", "y.npy"), "but --test holds 1 samples"),
        (("-o", "out.npz", "--method", "mine.py", "--json", "mine.py"), "mine.py is named twice"),
        (("-o", "out.npz", "--layer", "stem=mine.py:k=1@4", "--test", "x.npy", "--codes",
          "mine.py"), "mine.py is named twice"),
        (("-o", "out.npz", "--method", "pot", "--bits", "2"), "b of pot must be 2 for codes of 2"),
        (("-o", "out.npz", "--method", "twn:factor=-1"), "factor of twn must be 0 or above"),
        (("-o", "out.npz", "--method", "ttq:t=1"), "t of ttq must be 0 or above and below 1"),
        (("-o", "out.npz", "--method", "multipoint:error=-1"), "error of multipoint must be 0 or"),
        (("missing.onnx", "-o", "out.npz"), "missing.onnx: no such file"),
        (("calib.npy", "-o", "out.npz"), "must be a .onnx, .tflite, .npz or .toml file"),
        (("-o", "out.npz", "--input", "y.npy"), "has shape (50,)"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_said_and_nothing_is_written(
    work: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    assert sentence in refused(*arguments)
    assert not Path("out.npz").exists()


def test_easyquant_asks_for_symmetric_searched_activations_of_the_same_bits() -> None:
    paper = parse_settings(Request("easyquant", 7))
    assert (paper.activation_bits, paper.scheme, paper.search) == (7, "symmetric", "paper")
    assert paper.rule == "max"
    released = parse_settings(Request("easyquant:ranges=released", 7))
    assert (released.search, released.rule) == ("released", "kl")
    uniform = parse_settings(Request("uniform", 4))
    assert (uniform.activation_bits, uniform.scheme, uniform.search) == (4, "asymmetric", None)
    assert parse_settings(Request("nhot:n=2", 7)).activation_bits == 8


# -- real networks ---------------------------------------------------------------------------------


def kws() -> tuple[Any, Any]:
    """MFCC as the float network takes them (input scale of the INT8 file) and classes."""
    data = np.load(SHARED / "data/kws_500.npz")
    reals = (data["x"].astype(np.float32) - 83) * np.float32(0.5847029089927673)
    return reals.reshape(-1, 49, 10, 1), data["y"]


def cifar() -> tuple[Any, Any]:
    data = np.load(SHARED / "data/cifar10_50.npz")
    return data["x"].astype(np.float32), data["y"]


def accuracies(
    float_name: str, int8_name: str, arrays: tuple[Any, Any], count: int, work: Path
) -> tuple[float, float]:
    """Of the float network quantized here and of the INT8 file, on `count` samples."""
    x, y = arrays[0][-count:], arrays[1][-count:]
    source = load_source(str(MODELS / f"{float_name}.tflite"))
    np.save(work / "c.npy", arrays[0][:20])
    np.save(work / "t.npy", x)
    from napier.quantizing import load_reals

    request = Request("uniform", 8)
    calibration, test = (load_reals(source, (str(work / name),)) for name in ("c.npy", "t.npy"))
    _, document = quantize_document(source, request, calibration, test, y)
    theirs = load_model(str(MODELS / f"{int8_name}.tflite"))
    scale = theirs.tensors[0].scale
    assert scale is not None
    codes = np.clip(np.rint(x / scale) + theirs.tensors[0].zero_point, -128, 127).astype(np.int8)
    outputs = [run(theirs, codes[i : i + 25]).outputs[0] for i in range(0, count, 25)]
    reference = float((np.concatenate(outputs).argmax(axis=1) == y).mean())
    return document["comparison"]["accuracy"], reference


@needs_shared
@pytest.mark.parametrize(
    ("float_name", "int8_name", "arrays", "count"),
    [
        ("pretrainedResnet", "pretrainedResnet_quant", cifar, 15),
        ("kws_ref_model_float32", "kws_ref_model", kws, 40),
        pytest.param("kws_ref_model_float32", "kws_ref_model", kws, 400, marks=pytest.mark.long),
    ],
)
def test_float_networks_keep_the_accuracy_of_the_int8_files(
    work: Path, float_name: str, int8_name: str, arrays: Any, count: int
) -> None:
    ours, theirs = accuracies(float_name, int8_name, arrays(), count, work)
    assert ours >= theirs - 0.01


@needs_shared
def test_samples_of_a_float_network_are_its_own_values(work: Path) -> None:
    from napier.quantizing import load_reals

    source = load_source(str(MODELS / "pretrainedResnet.tflite"))
    np.save("first.npy", np.zeros((2, 3, 32, 32), np.uint8))
    with pytest.raises(InputError, match=r"bring channels last, x.transpose\(0, 2, 3, 1\)"):
        load_reals(source, ("first.npy",))
    np.save("none.npy", np.zeros((0, 32, 32, 3), np.uint8))
    with pytest.raises(InputError, match="give at least one sample"):
        load_reals(source, ("none.npy",))
    np.save("complex.npy", np.zeros((2, 32, 32, 3), np.complex64))
    with pytest.raises(InputError, match=r"takes float32; convert it with x\.astype"):
        load_reals(source, ("complex.npy",))
    np.save("last.npy", np.full((2, 32, 32, 3), 200, np.uint8))
    assert float(load_reals(source, ("last.npy",)).arrays[0].max()) == 200.0
