"""`napier fit` as a user meets it: file, document, table, accuracy, refusals."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from golden.certificates import certify
from golden.files import load_network
from golden.network import Network, WeightedLayer
from golden.ranges import clamp_ranges
from golden.run import run as run_golden
from napier.cli import main
from napier.fitting import SCHEMA, fit_document, fit_table
from napier.loading import Samples, shipped_digits, shipped_file

Napier = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def napier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Napier:
    """The command, in this process; a few test images lie in its folder."""
    images, labels = shipped_digits()
    np.save(tmp_path / "x.npy", images[:40])
    np.save(tmp_path / "y.npy", labels[:40])
    np.save(tmp_path / "c.npy", images[400:])

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["napier", "fit", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        code = int(stop.value.code or 0)
        return subprocess.CompletedProcess(arguments, code, printed.out, printed.err)

    return call


def digits() -> Network:
    return load_network(shipped_file("digits.npz"))


def certified_bits(network: Network, steps: str = "product") -> int:
    ranges = clamp_ranges(network)
    certificates = [
        certify(layer, network.tensors[layer.inputs[0]], ranges[layer.inputs[0]])
        for layer in network.layers
        if isinstance(layer, WeightedLayer)
    ]
    name = "term_bits" if steps == "terms" else "exact_bits"
    return max(int(getattr(c, name).max()) for c in certificates)


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done
    (line,) = done.stderr.strip().splitlines()
    return line


def test_16_bits_without_samples_to_calibrate_on_cost_the_shipped_network_nothing(napier):
    done = napier("--acc-bits", "16", "-o", "fitted.npz", "--json", "fit.json")
    assert done.returncode == 0, done.stderr
    folder = Path.cwd()
    network = load_network(folder / "fitted.npz")
    assert certified_bits(network) == 16
    assert network.source.endswith("fitted to 16 bits by axe")
    document = json.loads((folder / "fit.json").read_text())
    images, labels = shipped_digits()
    (scores,) = run_golden(network, [images]).outputs
    comparison = document["comparison"]
    assert comparison["samples"] == 500
    assert comparison["accuracy_before"] == 0.988  # as scripts/train_digits.py reports it
    assert comparison["accuracy_after"] == np.mean(scores.argmax(axis=1) == labels) > 0.98
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


@pytest.mark.parametrize("method", ["a2q", "a2q+"])
def test_every_method_writes_a_network_that_fits_and_says_what_changed(napier, method):
    done = napier(
        *("--acc-bits", "14", "--method", method, "--steps", "terms", "--calibrate", "c.npy"),
        *("--input", "x.npy", "--labels", "y.npy", "-o", "fitted.npz", "--json", "-"),
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    old, new = digits(), load_network("fitted.npz")
    assert certified_bits(new, "terms") <= 14
    assert document["schema"] == SCHEMA
    assert (document["acc_bits"], document["method"], document["steps"]) == (14, method, "terms")
    assert document["calibration"] == {"inputs": "c.npy", "samples": 100}
    assert [entry["index"] for entry in document["layers"]] == [0, 1, 2, 3, 4, 5, 9]
    for entry in document["layers"]:
        before, after = (n.layers[entry["index"]].weights for n in (old, new))
        assert entry["weights"] == before.size
        assert entry["changed_weights"] == (before != after).sum()
        norms = np.abs(after.astype(int)).reshape(len(after), -1).sum(axis=1)
        assert [c["l1_after"] for c in entry["channels"]] == norms.tolist()
        assert entry["l1_after"] == norms.max()
        assert entry["bits_after"] <= 14 < entry["bits_before"]
    assert document["comparison"]["samples"] == 40


def test_a_network_that_fits_stays_the_same(napier):
    done = napier("--acc-bits", "21", "--input", "x.npy", "-o", "fitted.npz", "--json", "fit.json")
    assert done.returncode == 0, done.stderr
    old, new = digits(), load_network("fitted.npz")
    for before, after in zip(old.layers, new.layers, strict=True):
        if isinstance(before, WeightedLayer) and isinstance(after, WeightedLayer):
            assert (before.weights == after.weights).all()
            assert (before.bias == after.bias).all()
            assert (before.requantization.multiplier == after.requantization.multiplier).all()
    document = json.loads(Path("fit.json").read_text())
    assert all(entry["changed_weights"] == 0 for entry in document["layers"])
    assert all((e["cosine"], e["sqnr_db"]) == (1.0, None) for e in document["layers"])
    assert document["comparison"]["top1_agreement"] == 1.0
    assert document["comparison"]["accuracy_after"] is None


def test_the_table_names_layers_bits_and_agreement():
    images, labels = shipped_digits()
    samples = Samples((images[:20],), "20 images")
    _, document = fit_document(
        *(digits(), 19, "a2q", "search", "clamp", "product", None, samples, labels[:20])
    )
    console = Console(width=80, file=io.StringIO())
    console.print(fit_table(document))
    text = console.file.getvalue()
    rows = {line.split()[1]: line for line in text.splitlines() if line[:1].isdigit()}
    assert "21 > 19" in rows["reduce"]
    assert rows["stem"].split()[3:] == ["659", "19", "1.000"]  # untouched: no share, no SQNR
    assert "19 bits hold every sum of products, for every input" in text
    assert "20 images: same top-1 100.0%" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--acc-bits", "8"), "8 bits cannot hold a single operand (0 to 255) of layer 'stem'"),
        (("--acc-bits", "0"), "2 to 62 bits, not 0"),
        (("--acc-bits", "x"), "'x' is not a valid integer"),
        (("--acc-bits", "16", "--labels", "y.npy"), "add --input X.npy"),
        (("--acc-bits", "16", "--input", "x.npy", "--labels", "c.npy"), "but --input holds 40"),
        (("--acc-bits", "16", "--input", "x.npy", "--labels", "no.npy"), "no.npy: no such file"),
        (("--acc-bits", "16", "--input", "x.npy", "--labels", "high.npy"), "10 classes, 0 to 9"),
        (("--acc-bits", "16", "--input", "x.npy", "--labels", "real.npy"), "class numbers"),
        (("--acc-bits", "16", "--input", "x.npy", "--labels", "text.npy"), "but holds <U3"),
        (("--acc-bits", "16", "--input", "x.npy", "--labels", "truth.npy"), "but holds bool"),
        (("--acc-bits", "16", "--input", "x.npy", "--labels", "low.npy"), "holds integers from -1"),
        (("--acc-bits", "16", "--calibrate", "y.npy"), "y.npy has shape (40,)"),
        (("--acc-bits", "16", "--input", "x.npy", "--json", "x.npy"), "x.npy is named twice"),
        (("--acc-bits", "16", "--method", "a2q++"), "'a2q++' is not one of"),
        (("--acc-bits", "16", "--activation-range", "calibrated"), "is not one of"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_in_one_sentence_before_anything_is_written(
    napier, tmp_path, arguments, words
):
    np.save(tmp_path / "high.npy", np.full(40, 10))
    np.save(tmp_path / "real.npy", np.zeros(40))
    np.save(tmp_path / "text.npy", np.full(40, "cat"))
    np.save(tmp_path / "truth.npy", np.ones(40, bool))
    np.save(tmp_path / "low.npy", np.full(40, -1))
    assert words in refusal(napier(*arguments, "-o", "fitted.npz"))
    assert not (tmp_path / "fitted.npz").exists()


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("fitted.tflite", "must end in .npz"),
        ("no/fitted.npz", "there is no folder"),
        ("taken.npz", "would be overwritten"),
        ("", "is empty"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused(napier, tmp_path, output, words):
    (tmp_path / "taken.npz").write_bytes(b"kept")
    assert words in refusal(napier("--acc-bits", "16", "-o", output))
    assert (tmp_path / "taken.npz").read_bytes() == b"kept"
