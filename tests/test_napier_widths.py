"""`napier widths` as a user meets it: document, table, witnesses, refusals."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import naive
import numpy as np
import pytest

from golden.accumulate import Accumulator, accumulate_layer
from golden.files import load_network, save_network
from golden.formats import bits_needed
from golden.importers.tflite import load_tflite
from golden.network import Clamp, Conv2D, Network, Padding, Requantization, Tensor, WeightedLayer
from golden.operators import OPERATORS, accumulators, post_process
from golden.run import run as run_golden
from napier import orders, width_search, width_sweep
from napier.cli import main
from napier.loading import Samples, shipped_digits, shipped_file
from napier.orders import orders_document
from napier.width_plots import widths_figure
from napier.width_search import search_widths
from napier.width_sweep import Sweep, run_sweep
from napier.widths import (
    observe,
    proved_widths,
    sums_histogram,
    widest_layer,
    widths_document,
)
from simulator.certificate_kernels import compare_orders
from simulator.hardware import changed_hardware, load_hardware, to_toml

SHARED = Path(__file__).parents[2] / "shared"
Napier = Callable[..., subprocess.CompletedProcess[str]]

LAYER_KEYS = {
    "index", "name", "op", "x_min", "x_max", "lo", "hi", "exact_bits", "witness_file", "channels",
}  # fmt: skip
CHANNEL_KEYS = {
    "datatype_bits", "l1_bits", "exact_bits", "lo", "hi", "exact_bits_with_bias", "lo_with_bias",
    "hi_with_bias", "observed_bits",
}  # fmt: skip


@pytest.fixture
def napier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Napier:
    """The command in this process (starting Python thirty times costs more than all the rest)."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["napier", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        code = int(stop.value.code or 0)
        return subprocess.CompletedProcess(arguments, code, printed.out, printed.err)

    return call


def document_of(napier: Napier, *arguments: str) -> dict[str, Any]:
    done = napier("widths", *arguments, "--json", "-")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.strip().splitlines()
    return line


def digits() -> Network:
    return load_network(shipped_file("digits.npz"))


def images() -> np.ndarray:
    return shipped_digits()[0]


def narrowed(preset: str, **array: Any) -> Any:
    """A preset with other accumulators."""
    return changed_hardware(load_hardware(preset), "narrow", array=array)


def ternary_network() -> Network:
    """int8 codes, clamped to -1 .. 1, into one 3x3 convolution of 96 channels of +1 and -1."""
    shape, clamped, out = (1, 5, 5, 96), (1, 5, 5, 96), (1, 5, 5, 2)
    one = Requantization(np.array([1 << 30], np.int32), np.array([1], np.int32))
    weights = np.where(np.arange(2 * 864).reshape(2, 3, 3, 96) % 3, 1, -1).astype(np.int8)
    common = {"requantization": one, "input_zero_point": 0, "output_zero_point": 0}
    clamp = Clamp("ternarize", (0,), (1,), activation_min=-1, activation_max=1, **common)
    conv = Conv2D(
        "conv", (1,), (2,), weights=weights, weight_bits=2, weight_zero_point=0, bias=None,
        activation_min=-128, activation_max=127, padding=Padding(1, 1, 1, 1), **common,
    )  # fmt: skip
    tensors = tuple(
        Tensor(f"t{i}", size, "int8", 1.0, 0) for i, size in enumerate((shape, clamped, out))
    )
    return Network("ternary", tensors, (clamp, conv), (0,), (2,))


def test_the_document_has_every_key_of_the_contract_for_every_layer_and_channel(
    napier: Napier,
) -> None:
    document = document_of(napier)
    assert document["schema"] == "napier.widths/1"
    assert document["activation_range"] == "clamp"
    layers = [x for x in enumerate(digits().layers) if isinstance(x[1], WeightedLayer)]
    assert [(x["index"], x["name"], x["op"]) for x in document["layers"]] == [
        (index, layer.name, layer.op) for index, layer in layers
    ]
    for entry, (_, layer) in zip(document["layers"], layers, strict=True):
        assert set(entry) >= LAYER_KEYS
        assert len(entry["channels"]) == len(layer.weights)
        assert all(set(channel) >= CHANNEL_KEYS for channel in entry["channels"])
        assert entry["witness_file"] is None
        assert entry["lo"] == min(channel["lo"] for channel in entry["channels"])
        assert entry["hi"] == max(channel["hi"] for channel in entry["channels"])
        assert entry["exact_bits"] == bits_needed(entry["lo"], entry["hi"])
        for channel in entry["channels"]:
            assert channel["exact_bits"] <= channel["l1_bits"] <= channel["datatype_bits"]
            assert channel["exact_bits"] == bits_needed(channel["lo"], channel["hi"])
            with_bias = bits_needed(channel["lo_with_bias"], channel["hi_with_bias"])
            assert channel["exact_bits_with_bias"] == with_bias
            assert channel["observed_bits"] is None


def test_the_table_shows_every_layer_in_80_columns_and_a_sentence(napier: Napier) -> None:
    done = napier("widths", "--hardware", "nhot2_16x16")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    for layer in digits().layers:
        assert not isinstance(layer, WeightedLayer) or layer.name in done.stdout
    assert "a proof" in done.stdout
    assert "all 7 layers fit the 24 bits of nhot2_16x16" in " ".join(done.stdout.split())


def test_json_to_a_file_is_the_printed_document(napier: Napier, tmp_path: Path) -> None:
    printed = document_of(napier, "--activation-range", "datatype")
    assert napier("widths", "--activation-range", "datatype", "--json", "w.json").returncode == 0
    assert json.loads((tmp_path / "w.json").read_text()) == printed
    assert printed["activation_range"] == "datatype"


def test_864_ternary_products_need_11_bits_and_do_not_fit_10(
    napier: Napier, tmp_path: Path
) -> None:
    # CUTIE's ocu_pool_weights.sv keeps the sum of 3 * 3 * 96 products of -1, 0, 1 in 10 bits.
    save_network(ternary_network(), tmp_path / "ternary.npz")
    for bits in (10, 11):
        hardware = narrowed("ternary4x4", acc_bits=bits)
        (tmp_path / f"acc{bits}.toml").write_text(to_toml(hardware))
    document = document_of(napier, "ternary.npz", "--hardware", "acc10.toml")
    (layer,) = document["layers"]
    assert (layer["x_min"], layer["x_max"]) == (-1, 1)
    assert (layer["lo"], layer["hi"], layer["exact_bits"]) == (-864, 864, 11)
    assert not layer["hardware"]["fits"]
    table = napier("widths", "ternary.npz", "--hardware", "acc10.toml").stdout
    assert "1 of 1 layers do not fit the 10 bits of narrow: conv (11 bits)" in table
    assert "fit the 11 bits" in napier("widths", "ternary.npz", "--hardware", "acc11.toml").stdout
    # Any int8 code instead of -1 .. 1: 864 * 128 = 110592 in 18 bits.
    datatype = document_of(napier, "ternary.npz", "--activation-range", "datatype")
    assert datatype["layers"][0]["exact_bits"] == 18


def test_calibration_is_never_called_a_proof(napier: Napier, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", images()[:3])
    arguments = ("--activation-range", "calibrated")
    assert "needs the inputs to calibrate on" in refusal(napier("widths", *arguments))
    done = napier("widths", *arguments, "--input", "x.npy")
    assert "NOT a proof" in done.stdout
    document = document_of(napier, *arguments, "--input", "x.npy")
    assert document["proof"] is False
    assert document_of(napier)["proof"] is True
    tensors = run_golden(digits(), images()[:3], keep_tensors=True).tensors
    for entry in document["layers"]:
        layer = digits().layers[entry["index"]]
        operands = tensors[layer.inputs[0]].astype(int) - layer.input_zero_point
        assert (entry["x_min"], entry["x_max"]) == (operands.min(), operands.max())


@pytest.mark.parametrize("hardware", [None, "nhot2_16x16"])
def test_observed_widths_are_those_of_the_golden_accumulation(hardware: str | None) -> None:
    network, samples = digits(), images()[:20]  # more than one batch
    machine = None if hardware is None else load_hardware(hardware)
    document = widths_document(network, "clamp", Samples((samples,), "images"), machine)
    tensors = run_golden(network, samples, keep_tensors=True).tensors
    steps = "product" if hardware is None else "terms"
    for entry in document["layers"]:
        layer = network.layers[entry["index"]]
        result = accumulate_layer(layer, tensors[layer.inputs[0]], Accumulator(32), steps)
        axes = tuple(range(result.minimum.ndim - 1))
        low, high = result.minimum.min(axis=axes), result.maximum.max(axis=axes)
        expected = [bits_needed(*pair) for pair in zip(low.tolist(), high.tolist(), strict=True)]
        assert [channel["observed_bits"] for channel in entry["channels"]] == expected
        limit = "exact_bits" if hardware is None else "term_bits"
        assert all(x["observed_bits"] <= x[limit] for x in entry["channels"])


def test_witness_files_drive_each_layer_to_exactly_lo_and_hi(
    napier: Napier, tmp_path: Path
) -> None:
    document = document_of(napier, "--witness", "worst")
    network = digits()
    for entry in document["layers"]:
        layer = network.layers[entry["index"]]
        with np.load(tmp_path / entry["witness_file"], allow_pickle=False) as archive:
            found = dict(archive)
        assert str(found["layer"]) == layer.name
        for extreme in ("lo", "hi"):
            codes = found[f"input_{extreme}"]
            assert codes.shape == network.tensors[layer.inputs[0]].shape
            sums = accumulators(layer, codes)
            sums = sums[0][tuple(found[f"position_{extreme}"])] if sums.ndim == 4 else sums[0]
            channel = int(found[f"channel_{extreme}"])
            assert sums[channel] == entry[extreme] == found[f"sum_{extreme}"]
            assert sums[channel] == entry["channels"][channel][extreme]
            held = accumulate_layer(layer, codes, Accumulator(entry["exact_bits"]))
            assert held.events.sum() == 0
        overflowed = [
            accumulate_layer(layer, found[f"input_{extreme}"], Accumulator(entry["exact_bits"] - 1))
            for extreme in ("lo", "hi")
        ]
        assert sum(int(result.events.sum()) for result in overflowed) > 0
    again = napier("widths", "--witness", "worst")  # its own files are replaced
    assert again.returncode == 0, again.stderr


def test_spilling_hardware_is_certified_for_its_interval() -> None:
    fits = widths_document(
        digits(), "clamp", hardware=narrowed("mac4x4", acc_bits=18, spill_interval=2)
    )
    assert all(layer["hardware"]["fits"] for layer in fits["layers"])
    assert fits["hardware"]["wide_acc_bits"] == 32
    for layer in fits["layers"]:
        assert layer["hardware"]["bits_needed"] <= 18
        # Fits: the wide accumulator sees the whole sum, so it needs what one accumulator would.
        assert layer["hardware"]["wide_bits_needed"] == layer["exact_bits"]
    tight = widths_document(
        digits(), "clamp", hardware=narrowed("mac4x4", acc_bits=16, spill_interval=2)
    )
    # two products of 255 and up to 128 in magnitude: beyond 2**15 in every layer
    assert not any(layer["hardware"]["fits"] for layer in tight["layers"])
    assert all(layer["hardware"]["largest_spill_interval"] == 1 for layer in tight["layers"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("none.npz",), "no such file"),
        (("--hardware", "nothing"), "nothing"),
        (("--hardware", "ternary4x4"), "the ternary PE holds only -1, 0 and 1"),
        (("--weights", "many"), "weights must be"),
        (("--witness", "file"), "is a file; name a folder"),
        (("--witness", "none/below"), "there is no folder none"),
        (("--activation-range", "guess"), "guess"),
        (("--input", "none.npy"), "none.npy: no such file"),
        (("--sweep", "9:8"), "--sweep 9:8 must be A:B"),
        (("--sweep", "12"), "--sweep 12 must be A:B"),
        (("--sweep", "8:9"), "--sweep needs samples"),
        (("--results", "r.json"), "add --sweep A:B"),
        (("--orders",), "add --sweep A:B"),
        (("--weights", "exact:1"), "weights must be"),
        (("--tolerance", "1"), "--tolerance and --labels belong to a sweep; add --sweep A:B"),
        (("--plot", "f.bmp"), "'bmp' is not a figure format"),
        (("--layer", "stem"), "--layer chooses whose sums a figure shows"),
        (("--plot", "f.png", "--layer", "stem"), "--layer chooses whose sums a figure shows"),
        (("--labels", "y.npy"), "--tolerance and --labels belong to a sweep; add --sweep A:B"),
    ],
)
def test_bad_arguments_get_one_sentence(
    napier: Napier, tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    (tmp_path / "file").write_text("")
    assert sentence in refusal(napier("widths", *arguments))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--tolerance", "-1"), "--tolerance -1 must be 0 to 100 percent points"),
        (("--tolerance", "nan"), "--tolerance nan must be 0 to 100 percent points"),
        (("--tolerance", "few"), "few"),
        (("--plot", "f.png", "--layer", "6"), "--layer 6 is no layer of digits that multiplies"),
        (("--labels", "none.npy"), "none.npy: no such file"),
        (("--labels", "three.npy"), "has shape (3,) but --input holds 2 samples"),
        (("--labels", "large.npy"), "--labels reach 10 but the first output of digits has 10"),
    ],
)
def test_bad_searches_get_one_sentence(
    napier: Napier, tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    np.save(tmp_path / "x.npy", images()[:2])
    np.save(tmp_path / "three.npy", np.arange(3))
    np.save(tmp_path / "large.npy", np.array([0, 10]))
    done = napier("widths", "--input", "x.npy", "--sweep", "19:19", *arguments)
    assert sentence in refusal(done)


def test_projected_weights_are_certified_and_named(napier: Napier) -> None:
    done = napier("widths", "--weights", "ternary", "--hardware", "ternary4x4")
    assert done.returncode == 0, done.stderr
    assert "weights projected to ternary" in done.stdout
    document = document_of(napier, "--weights", "nhot:2")
    assert document["model"]["weights"] == "nhot:2"


@pytest.mark.parametrize(
    ("model", "data", "offset"),
    [("kws_ref_model", "kws_500.npz", 0), ("pretrainedResnet_quant", "cifar10_50.npz", 128)],
)
def test_extremes_on_real_samples_equal_those_of_an_independent_script(
    model: str, data: str, offset: int
) -> None:
    if not SHARED.is_dir():
        pytest.skip(f"no observed networks at {SHARED}")
    facts = json.loads((SHARED / "expected" / "observed" / f"{model}.json").read_text())
    network = load_tflite(SHARED / "models" / "mlperf_tiny" / f"{model}.tflite")
    with np.load(SHARED / "data" / data) as archive:
        codes = (archive["x"][: facts["samples"]].astype(np.int16) - offset).astype(np.int8)
    x = codes.reshape(-1, *network.tensors[network.inputs[0]].shape[1:])
    seen = observe(network, Samples((x,), data)).layers
    for index, found in seen.items():
        stats = facts["layers"][index]["stats"]
        assert found.minimum.min() == stats["prefix_min"]
        assert found.maximum.max() == stats["prefix_max"]


# -- sweep ----------------------------------------------------------------------------------------


def swept(first: int, last: int, preset: str = "mac16x16", count: int = 12) -> Sweep:
    samples = Samples((images()[:count],), "images")
    return Sweep(digits(), samples, load_hardware(preset), first, last)


def golden_narrow(
    network: Network, x: np.ndarray, accumulator: Accumulator, steps: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of a network whose sums go through `accumulator`, and the counts of its overflows."""
    values, counts = {network.inputs[0]: x}, np.zeros(4, dtype=int)
    for layer in network.layers:
        arrays, output = [values[i] for i in layer.inputs], network.tensors[layer.outputs[0]]
        if isinstance(layer, WeightedLayer):
            found = accumulate_layer(layer, arrays[0], accumulator, steps)
            codes = post_process(layer, found.value, output)
            values[layer.outputs[0]] = codes.reshape(-1, *output.shape[1:])
            affected = found.events > 0
            counts += [
                found.events.sum(), affected.sum(), found.transient.sum(),
                (affected & found.persistent).sum(),
            ]  # fmt: skip
        else:
            values[layer.outputs[0]] = OPERATORS[type(layer)](layer, arrays, output)
    return values[network.outputs[0]], counts


@pytest.mark.parametrize(("preset", "steps"), [("mac16x16", "product"), ("nhot2_16x16", "terms")])
def test_a_sweep_counts_what_golden_accumulators_of_that_width_do(preset: str, steps: str) -> None:
    sweep = swept(15, 16, preset)
    exact = run_golden(digits(), sweep.samples.arrays[0]).outputs[0]
    points = run_sweep(sweep)["points"]
    assert [(p["acc_bits"], p["acc_overflow"]) for p in points] == [
        (16, "wrap"), (16, "saturate"), (15, "wrap"), (15, "saturate"),
    ]  # fmt: skip
    for point in points:
        accumulator = Accumulator(point["acc_bits"], point["acc_overflow"])
        outputs, counts = golden_narrow(digits(), sweep.samples.arrays[0], accumulator, steps)
        names = ("events", "outputs_affected", "transient", "persistent")
        assert [point[name] for name in names] == counts.tolist()
        assert counts[0] > 0
        assert point["samples_changed"] == np.count_nonzero((outputs != exact).any(axis=1))
        same = outputs.argmax(axis=1) == exact.argmax(axis=1)
        assert point["top1_agreement"] == same.mean()
        for name in names:
            assert sum(layer[name] for layer in point["layers"]) == point[name]


def test_nothing_overflows_or_changes_at_the_proved_width() -> None:
    document = widths_document(digits(), "clamp")
    bits = max(layer["exact_bits"] for layer in document["layers"])
    for point in run_sweep(swept(bits, bits))["points"]:
        assert point["events"] == point["samples_changed"] == 0
        assert point["top1_agreement"] == 1.0


def test_an_interrupted_sweep_continues_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sweep = str(tmp_path / "r.json"), swept(15, 16)
    whole = run_sweep(sweep)
    ran = []
    real = width_sweep._run_point

    def counted(sweep: Sweep, hardware: Any) -> Any:
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append((hardware.array.acc_bits, hardware.array.acc_overflow))
        return real(sweep, hardware)

    monkeypatch.setattr(width_sweep, "_run_point", counted)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep, path)
    assert len(json.loads(Path(path).read_text())["points"]) == 3
    monkeypatch.setattr(width_sweep, "_run_point", real)
    assert run_sweep(sweep, path) == whole
    monkeypatch.setattr(width_sweep, "_run_point", None)  # nothing is left to run
    assert run_sweep(sweep, path) == whole


def test_results_of_another_sweep_or_none_are_refused(napier: Napier, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", images()[:2])
    np.save(tmp_path / "y.npy", images()[2:4])
    arguments = ("--sweep", "20:20", "--results", "r.json")
    done = napier("widths", "--input", "x.npy", *arguments)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "outputs of these 2 samples stay the same down to 20 bits (wrap)" in done.stdout
    other = napier("widths", "--input", "y.npy", *arguments)
    assert "belongs to another model" in refusal(other)
    (tmp_path / "r.json").write_text("[1]")
    broken = napier("widths", "--input", "x.npy", *arguments)
    assert "does not hold the results of a sweep" in refusal(broken)


def test_a_network_that_multiplies_nothing_has_nothing_to_sweep_or_plot(
    napier: Napier, tmp_path: Path
) -> None:
    whole = ternary_network()
    clamps = Network("clamps", whole.tensors[:2], whole.layers[:1], (0,), (1,))
    save_network(clamps, tmp_path / "clamps.npz")
    np.save(tmp_path / "x.npy", np.zeros((1, 5, 5, 96), np.int8))
    assert "no layer multiplies" in napier("widths", "clamps.npz").stdout
    for arguments in (("--sweep", "8:8", "--input", "x.npy"), ("--plot", "f.png")):
        assert "nothing to sweep or plot" in refusal(napier("widths", "clamps.npz", *arguments))


# -- figure ---------------------------------------------------------------------------------------


def test_the_histogram_counts_every_final_sum_by_sign_and_width() -> None:
    network, x = digits(), images()[:20]  # more than one batch
    index = next(i for i, layer in enumerate(network.layers) if layer.name == "reduce")
    found = sums_histogram(network, Samples((x,), "images"), index)
    layer = network.layers[index]
    source = run_golden(network, x, keep_tensors=True).tensors[layer.inputs[0]]
    sums = accumulators(layer, source).reshape(-1).tolist()
    assert found["name"] == "reduce"
    for bits, negative, not_negative in zip(
        found["bits"], found["negative"], found["not_negative"], strict=True
    ):
        # bits_needed counts 0 as held by one bit, so it is the width of the sum alone.
        assert negative == sum(s < 0 and bits_needed(s, 0) == bits for s in sums)
        assert not_negative == sum(s >= 0 and bits_needed(0, s) == bits for s in sums)
    assert sum(found["negative"]) + sum(found["not_negative"]) == len(sums)


def test_the_figure_marks_every_bound_and_both_limits_of_the_sums() -> None:
    network, samples = digits(), Samples((images()[:3],), "images")
    document = widths_document(network, "clamp", samples, load_hardware("nhot2_16x16"))
    index = widest_layer(document)
    document["histogram"] = sums_histogram(network, samples, index)
    bounds, sums = widths_figure(document).axes
    _, labels = bounds.get_legend_handles_labels()
    assert labels == ["datatype bound", "l1 bound", "exact", "observed", "nhot2_16x16"]
    names = [layer["name"] for layer in document["layers"]]
    assert [text.get_text().split()[1] for text in bounds.get_yticklabels()] == names
    drawn = {marks.get_label(): marks.get_offsets()[:, 0].tolist() for marks in bounds.collections}
    assert drawn["exact"] == [layer["term_bits"] for layer in document["layers"]]  # a serial PE
    for label, name in (("datatype bound", "datatype_bits"), ("observed", "observed_bits")):
        assert drawn[label] == [layer[name] for layer in document["layers"]]
    proved = next(x["term_bits"] for x in document["layers"] if x["index"] == index)
    _, labels = sums.get_legend_handles_labels()
    assert labels == [f"proved: {proved} bits", "nhot2_16x16: 24 bits"]
    limits = [line.get_xdata()[0] for line in sums.lines]
    assert limits == [proved + 0.5, -proved - 0.5, 24.5, -24.5]
    low, high = sums.get_xlim()
    assert low < -24.5
    assert high > 24.5


def test_sums_of_spilling_hardware_are_held_by_the_wide_accumulator() -> None:
    samples = Samples((images()[:1],), "images")
    hardware = narrowed("mac4x4", acc_bits=18, spill_interval=2)
    document = widths_document(digits(), "clamp", samples, hardware)
    index = widest_layer(document)
    document["histogram"] = sums_histogram(digits(), samples, index)
    _, sums = widths_figure(document).axes
    _, labels = sums.get_legend_handles_labels()
    needed = next(x["exact_bits"] for x in document["layers"] if x["index"] == index)
    assert labels == [f"proved: {needed} bits", "narrow: 32 bits"]


def test_the_figure_is_written_in_the_format_of_its_ending(napier: Napier, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", images()[:2])
    assert napier("widths", "--plot", "f.png").returncode == 0
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    arguments = ("--plot", "f.svg", "--input", "x.npy", "--layer", "stem")
    document = document_of(napier, *arguments)
    assert document["histogram"]["name"] == "stem"
    assert "<svg" in (tmp_path / "f.svg").read_text()


# -- search ---------------------------------------------------------------------------------------


def classes() -> np.ndarray:
    return shipped_digits()[1]


def searched(
    sweep: Sweep, tolerance: float, path: str | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The search, and the points of its sweep."""
    points = run_sweep(sweep, path)["points"]
    proved = proved_widths(widths_document(sweep.network, "clamp"))
    return search_widths(sweep, points, proved, True, tolerance, path), points


def golden_score(sweep: Sweep, bits: dict[int, int], rule: Any) -> float:
    """Accuracy with golden accumulators, each layer in a width of its own."""
    network, values = sweep.network, {sweep.network.inputs[0]: sweep.samples.arrays[0]}
    for index, layer in enumerate(network.layers):
        arrays, output = [values[i] for i in layer.inputs], network.tensors[layer.outputs[0]]
        if isinstance(layer, WeightedLayer):
            found = accumulate_layer(layer, arrays[0], Accumulator(bits[index], rule))
            codes = post_process(layer, found.value, output)
            values[layer.outputs[0]] = codes.reshape(-1, *output.shape[1:])
        else:
            values[layer.outputs[0]] = OPERATORS[type(layer)](layer, arrays, output)
    return float(np.mean(values[network.outputs[0]].argmax(axis=1) == sweep.labels))


def test_a_search_finds_widths_whose_golden_accuracy_is_within_the_tolerance() -> None:
    sweep = replace(swept(16, 19, count=40), labels=classes()[:40])
    search, points = searched(sweep, 5)
    assert search["measure"] == "accuracy"
    indices = [layer["index"] for layer in search["layers"]]
    proved = [layer["proved_bits"] for layer in search["layers"]]
    exact = run_golden(digits(), sweep.samples.arrays[0]).outputs[0]
    assert search["reference"] == np.mean(exact.argmax(axis=1) == sweep.labels)
    for rule in search["rules"]:
        good = {
            point["acc_bits"]: 100 * (search["reference"] - point["accuracy"]) <= 5 + 1e-9
            for point in points
            if point["acc_overflow"] == rule["acc_overflow"]
        }
        uniform, greedy = rule["uniform"]["layer_bits"], rule["greedy"]["layer_bits"]
        assert good[uniform[0]]
        assert all(good[bits] for bits in good if bits > uniform[0])
        assert not good.get(uniform[0] - 1, False)
        assert all(g <= min(u, p) for g, u, p in zip(greedy, uniform, proved, strict=True))
        assert sum(greedy) < sum(uniform)
        widths = dict(zip(indices, greedy, strict=True))
        score = golden_score(sweep, widths, rule["acc_overflow"])
        assert rule["greedy"]["score"] == score
        assert 100 * (search["reference"] - score) <= 5 + 1e-9


def test_accumulator_energy_is_steps_times_bits_times_the_table() -> None:
    search, _ = searched(swept(19, 19, count=2), 0)
    assert search["measure"] == "top1_agreement"
    assert search["reference"] == 1.0
    for entry in (search["proved"], search["rules"][0]["greedy"]):
        # horowitz45: 3.2 fJ for a bit added, 9 fJ for a bit of register.
        expected = sum(
            layer["steps"] * bits * 12.2e-3
            for layer, bits in zip(search["layers"], entry["layer_bits"], strict=True)
        )
        assert entry["accumulator_pj"] == pytest.approx(expected)
        # 16 x 16 PEs; an adder bit of 4.3 um2 and two register bits of 5.98 um2.
        expected = 256 * max(entry["layer_bits"]) * 16.26
        assert entry["accumulator_um2"] == pytest.approx(expected)
    assert search["layers"][0]["steps"] == 8 * 8 * 8 * 9  # stem: one product for each MAC


def test_a_sweep_wholly_outside_the_tolerance_finds_nothing_and_says_so(
    napier: Napier, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", images()[:20])
    arguments = ("--input", "x.npy", "--sweep", "10:10", "--tolerance", "0")
    document = document_of(napier, *arguments)
    assert [rule["uniform"] for rule in document["search"]["rules"]] == [None, None]
    done = napier("widths", *arguments)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "wrap: the widest accumulator of the sweep is outside the tolerance" in done.stdout


def test_a_killed_search_continues_where_it_stopped_and_runs_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sweep = str(tmp_path / "r.json"), replace(swept(18, 19), labels=classes()[:12])
    whole, _ = searched(sweep, 0)
    real, ran = width_search.run_layers, []

    def counted(sweep: Sweep, machine_of: Any) -> Any:
        if len(ran) == 4:
            raise KeyboardInterrupt
        ran.append(0)
        return real(sweep, machine_of)

    monkeypatch.setattr(width_search, "run_layers", counted)
    with pytest.raises(KeyboardInterrupt):
        searched(sweep, 0, path)
    kept = json.loads(Path(path).read_text())
    assert len(kept["trials"]) == 4
    monkeypatch.setattr(width_search, "run_layers", real)
    assert searched(sweep, 0, path)[0] == whole
    after = json.loads(Path(path).read_text())["trials"]
    assert after[:4] == kept["trials"]
    assert len({json.dumps([t["acc_overflow"], t["layer_bits"]]) for t in after}) == len(after)
    monkeypatch.setattr(width_search, "run_layers", None)  # nothing is left to run
    assert searched(sweep, 0, path)[0] == whole


def test_widths_of_a_calibration_are_not_called_proved_in_a_search(
    napier: Napier, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", images()[:4])
    arguments = ("--activation-range", "calibrated", "--input", "x.npy", "--sweep", "19:19")
    done = napier("widths", *arguments, "--tolerance", "0")
    assert done.returncode == 0, done.stderr
    assert "seen, one width" in done.stdout
    assert "proved, one width" not in done.stdout


def test_the_search_is_printed_in_80_columns_and_called_no_proof(
    napier: Napier, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", images()[:12])
    np.save(tmp_path / "y.npy", classes()[:12])
    arguments = ("--input", "x.npy", "--sweep", "18:19", "--hardware", "nhot2_16x16")
    done = napier("widths", *arguments, "--labels", "y.npy")  # the tolerance defaults to 0
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    text = " ".join(done.stdout.split())
    assert "at most 0 percent points below 100.0% accuracy" in text
    assert "observed, not proved" in text
    assert "not an optimum" in text


# -- orders ---------------------------------------------------------------------------------------


def sorted_order(addends: list[int]) -> list[int]:
    """Positive and negative addends, largest first; a negative one while the sum is positive."""
    positive = sorted([x for x in addends if x >= 0], reverse=True)
    negative = sorted([x for x in addends if x < 0])
    line: list[int] = []
    while positive or negative:
        use_negative = negative and (sum(line) > 0 or not positive)
        line.append((negative if use_negative else positive).pop(0))
    return line


def tree_sum(addends: list[int], bits: int, confine: Any) -> tuple[int, int]:
    """Sum and overflow events of a tree of adders."""
    events = sum(confine(x, bits) != x for x in addends)
    level = [confine(x, bits) for x in addends]
    while len(level) > 1:
        pairs = [a + b for a, b in zip(level[::2], level[1::2], strict=False)]
        events += sum(confine(x, bits) != x for x in pairs)
        level = [confine(x, bits) for x in pairs] + level[len(pairs) * 2 :]
    return (level[0] if level else 0), events


def counted_by_hand(rows: list[list[int]], bits: int, rule: str, order: str) -> list[int]:
    confine = naive.wrap if rule == "wrap" else naive.saturate
    counts = [0] * 5
    for addends in rows:
        if order == "tree":
            value, events = tree_sum(addends, bits, confine)
        else:
            line = addends if order == "declared" else sorted_order(addends)
            found = naive.accumulate(line, bits, rule)
            value, events = found["value"], found["events"]
        fits = confine(sum(addends), bits) == sum(addends)
        more = [events, events > 0, events > 0 and fits, events > 0 and not fits]
        counts = [a + b for a, b in zip(counts, [*more, value != sum(addends)], strict=True)]
    return counts


def test_orders_are_counted_as_plain_loops_count_them() -> None:
    rng = np.random.default_rng(2)
    for taps in (1, 2, 7, 12):
        weights = rng.integers(-9, 10, (3, taps))
        operands = rng.integers(-9, 10, (20, taps))
        counts = np.zeros((2, 2, 3, 5), dtype=np.int64)
        compare_orders(operands, weights, np.array([8, 6]), counts)
        rows = [
            [int(w * x) for w, x in zip(channel, pixel, strict=True) if w]
            for channel in weights
            for pixel in operands
        ]
        for i, bits in enumerate((8, 6)):
            for j, rule in enumerate(("wrap", "saturate")):
                for k, order in enumerate(("declared", "sorted", "tree")):
                    expected = counted_by_hand(rows, bits, rule, order)
                    assert counts[i, j, k].tolist() == expected, (taps, bits, rule, order)


def test_sorted_addends_never_overflow_on_the_way_where_every_addend_fits() -> None:
    rng = np.random.default_rng(3)
    weights, operands = rng.integers(-5, 6, (4, 40)), rng.integers(-5, 6, (200, 40))
    counts = np.zeros((1, 2, 3, 5), dtype=np.int64)
    compare_orders(operands, weights, np.array([6]), counts)  # addends up to 25 fit 6 bits
    assert counts[0, :, 1, 2].tolist() == [0, 0]
    assert (counts[0, :, 0, 2] > 0).all()


def test_orders_of_a_network_agree_with_the_golden_accumulation_in_the_declared_order() -> None:
    network, x = digits(), images()[:2]
    points = orders_document(swept(15, 16, count=2))
    tensors = run_golden(network, x, keep_tensors=True).tensors
    layers = [layer for layer in network.layers if isinstance(layer, WeightedLayer)]
    for point in points:
        if point["order"] != "declared":
            continue
        accumulator = Accumulator(point["acc_bits"], point["acc_overflow"])
        found = [accumulate_layer(layer, tensors[layer.inputs[0]], accumulator) for layer in layers]
        assert point["events"] == sum(int(each.events.sum()) for each in found) > 0
        assert point["transient"] == sum(int(each.transient.sum()) for each in found)
        wrong = sum(np.count_nonzero(each.value != each.exact) for each in found)
        assert point["outputs_wrong"] == wrong
        assert point["transient_removed"] == 0
    for point in points:
        (declared,) = (
            each["transient"]
            for each in points
            if each["order"] == "declared"
            and all(each[name] == point[name] for name in ("acc_bits", "acc_overflow"))
        )
        assert point["transient_removed"] == 1 - point["transient"] / declared


def test_interrupted_orders_continue_where_they_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sweep = str(tmp_path / "r.json"), swept(15, 16, count=4)
    run_sweep(sweep, path)
    whole, real = orders_document(sweep), orders._add_sample
    ran: list[int] = []
    stopped: list[int] = []

    def counted(sweep: Sweep, sample: int, *others: Any) -> None:
        if sample == 3 and len(ran) == 3 and not stopped:
            stopped.append(sample)
            raise KeyboardInterrupt
        ran.append(sample)
        real(sweep, sample, *others)

    monkeypatch.setattr(orders, "SECONDS_BETWEEN_WRITES", 0)
    monkeypatch.setattr(orders, "_add_sample", counted)
    with pytest.raises(KeyboardInterrupt):
        orders_document(sweep, path)
    assert len(json.loads(Path(path).read_text())["points"]) == 4  # the sweep's are kept
    assert orders_document(sweep, path) == whole
    assert ran == [0, 1, 2, 3]
    assert orders_document(sweep, path) == whole  # nothing is left to run
    assert ran == [0, 1, 2, 3]
