"""`napier finetune` as a user meets it: file, document, table, accuracy, refusals."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from golden.files import load_network
from golden.network import WeightedLayer
from golden.run import run
from napier import finetuning
from napier.cli import main
from napier.finetuning import SCHEMA
from napier.loading import shipped_digits

Napier = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def napier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Napier:
    """The command, in this process; a few test images lie in its folder."""
    images, labels = shipped_digits()
    np.save(tmp_path / "x.npy", images[:64])
    np.save(tmp_path / "y.npy", labels[:64])
    np.save(tmp_path / "t.npy", images[400:440])
    np.save(tmp_path / "u.npy", labels[400:440])

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["napier", "finetune", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        code = int(stop.value.code or 0)
        return subprocess.CompletedProcess(arguments, code, printed.out, printed.err)

    return call


TRAIN = ("--input", "x.npy", "--labels", "y.npy", "--epochs", "1", "--uniform-epochs", "1")
TEST = ("--test", "t.npy", "--test-labels", "u.npy")


def test_reported_accuracy_is_that_of_the_integers_that_are_written(
    napier: Napier, tmp_path: Path
) -> None:
    result = napier(*TRAIN, *TEST, "--method", "nhot:n=1", "-o", "o.npz", "--json", "d.json")
    assert result.returncode == 0, result.stderr
    document = json.loads((tmp_path / "d.json").read_text())
    assert document["schema"] == SCHEMA
    assert [len(stage["losses"]) for stage in document["stages"]] == [1, 1]
    network = load_network(tmp_path / "o.npz")
    assert network.source.endswith("fine-tuned by nhot:n=1")
    images, labels = np.load(tmp_path / "t.npy"), np.load(tmp_path / "u.npy")
    right = np.mean(run(network, images).outputs[0].argmax(axis=1) == labels)
    assert document["comparison"]["accuracy_tuned"] == right
    (entry,), tensor = document["inputs"], network.tensors[network.inputs[0]]
    assert (entry["scale"], entry["zero_point"]) == (tensor.scale, tensor.zero_point)
    for layer in network.layers:
        if isinstance(layer, WeightedLayer):
            magnitudes = np.abs(layer.weights.astype(np.int64))
            assert (magnitudes & (magnitudes - 1) == 0).all()


def test_table_names_stages_and_accuracies_in_80_columns(napier: Napier) -> None:
    result = napier(*TRAIN, *TEST, "--method", "ternary", "-o", "o.npz")
    lines = result.stdout.splitlines()
    assert all(len(line) <= 80 for line in lines)
    text = " ".join(" ".join(lines).split())
    for part in (
        "uniform: 1 epoch, loss",
        "code = round(x / 0.003",
        "% float",
        "% ternary, not trained",
        "fine-tuned",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("method", "stages"),
    [("nhot:n=2", [("uniform", 2), ("nhot:n=2", 1)]), ("ternary", [("ternary", 1)])],
)
def test_networks_of_n_hot_weights_are_uniform_first(
    napier: Napier, tmp_path: Path, method: str, stages: list[tuple[str, int]]
) -> None:
    train = ("--input", "x.npy", "--labels", "y.npy", "--epochs", "1")
    result = napier(*train, "--method", method, "-o", "o.npz", "--json", "d.json")
    assert result.returncode == 0, result.stderr
    document = json.loads((tmp_path / "d.json").read_text())
    found = [(stage["method"], len(stage["losses"])) for stage in document["stages"]]
    assert found == stages


def test_one_seed_writes_one_file(napier: Napier, tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        napier(*TRAIN, "--method", "nhot:n=2", "--seed", "5", "-o", name)
    first, second = (load_network(tmp_path / name) for name in ("a.npz", "b.npz"))
    for one, other in zip(first.layers, second.layers, strict=True):
        if isinstance(one, WeightedLayer):
            np.testing.assert_array_equal(one.weights, other.weights)  # type: ignore[attr-defined]
            np.testing.assert_array_equal(one.bias, other.bias)  # type: ignore[attr-defined]


def test_kept_ends_are_uniform(napier: Napier, tmp_path: Path) -> None:
    napier(*TRAIN, "--method", "ternary", "--keep-ends", "-o", "o.npz", "--json", "d.json")
    layers = json.loads((tmp_path / "d.json").read_text())["layers"]
    assert [layer["method"] for layer in layers] == ["uniform", *[None] * 5, "uniform"]
    weighted = [x for x in load_network(tmp_path / "o.npz").layers if isinstance(x, WeightedLayer)]
    assert [int(np.abs(x.weights.astype(int)).max()) for x in weighted] == [127, *[1] * 5, 127]


def test_sums_hold_in_the_accumulator_that_is_asked_for(napier: Napier, tmp_path: Path) -> None:
    napier(*TRAIN, "--method", "a2q+:15", "-o", "o.npz", "--json", "d.json")
    document = json.loads((tmp_path / "d.json").read_text())
    assert max(layer["exact_bits"] for layer in document["layers"]) <= 15
    assert document["comparison"]["accuracy_projected"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "nhot:n=0"), "n of nhot must be 1 to 8"),
        (("--method", "trinary"), "vsquant, a2q, a2q+; did you mean ternary?"),
        (("--method", "a2r:16", "--uniform-epochs", "1"), "did you mean a2q?"),
        (("--layer", "stem=a2q:16"), "a2q is for all layers and cannot be chosen for one"),
        (("--method", "a2q:x"), "needs the bits of the accumulator"),
        (("--test-labels", "y.npy"), "add --test X.npy"),
        (("--learning-rate", "0"), "learning rate above 0"),
        (("--learning-rate", "inf"), "learning rate above 0"),
        (("--test", "t.npy", "--test-labels", "y.npy"), "but --test holds 40 samples"),
        (("--test", "x.npy", "--test-labels", "text.npy"), "class numbers, integers from 0"),
        (("--method", "mine.py", "--json", "mine.py"), "mine.py is named twice"),
        (("--layer", "stem=mine.py@4", "--json", "mine.py"), "mine.py is named twice"),
        (("--batch", "0"), "batch"),
    ],
)
def test_refusals_are_one_sentence(
    napier: Napier, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    np.save(tmp_path / "text.npy", np.full(64, "cat"))
    (tmp_path / "mine.py").write_text("kept")
    result = napier("--input", "x.npy", "--labels", "y.npy", "-o", "o.npz", *arguments)
    assert (tmp_path / "mine.py").read_text() == "kept"
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) <= 3
    assert not (tmp_path / "o.npz").exists()


@pytest.mark.parametrize("option", ["--labels", "--test-labels"])
def test_labels_beyond_the_classes_are_refused_before_training(
    napier: Napier, tmp_path: Path, option: str
) -> None:
    np.save(tmp_path / "high.npy", np.full(64, 10))
    result = napier("--input", "x.npy", "--test", "x.npy", option, "high.npy", "-o", "o.npz")
    assert result.returncode == 2
    assert f"{option} reach 10 but the first output of digits has 10 classes" in result.stderr
    assert "epoch" not in result.stderr


def test_one_sample_is_learned_without_normalization(napier: Napier, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", shipped_digits()[0][:1])
    train = ("--input", "one.npy", "--epochs", "1", "--method", "ternary")
    assert napier(*train, "-o", "o.npz").returncode == 0


def test_missing_torch_is_said_in_one_sentence(
    napier: Napier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetuning, "find_spec", lambda name: None)
    result = napier(*TRAIN, "-o", "o.npz")
    assert result.returncode == 2
    assert "napier-sim[train]" in result.stderr
