"""`napier quantize`: an integer network of a float one, what it lost, and what it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import isfinite, log10
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from golden.accumulate import naf_digits
from golden.errors import InputError
from golden.float_network import FloatNetwork, FloatWeighted
from golden.float_run import run_float
from golden.importers.float_tflite import is_float_tflite, load_float_tflite
from golden.network import Network, Tensor, WeightedLayer
from golden.quantization.activations import QuantizationParameters, Scheme
from golden.quantization.calibrate import (
    QuantizedNetwork,
    Settings,
    WeightSettings,
    layer_settings,
    quantize_network,
)
from golden.quantization.clipping import RANGE_RULES, RangeRule
from golden.quantization.from_integer import dequantize
from golden.quantization.method import WeightCodes
from golden.quantization.nhot_activations import run_nhot
from golden.quantization.partial_sums import PartialSumPlan, partial_sum_plan
from golden.quantization.registry import methods, parse_method
from golden.quantization.search import SEARCH_RANGES, SearchRanges
from golden.run import run as run_golden
from napier.fitting import check_labels
from napier.loading import Samples, default_samples, fitted_inputs, load_model, load_samples
from napier.report import shorten

Array = NDArray[Any]
Document = dict[str, Any]
Progress = Callable[[int, int, str], None]

SCHEMA = "napier.quantize/1"

MODEL_SUFFIXES = (".onnx", ".tflite", ".npz", ".toml")

BATCH_SAMPLES = 16
"""Samples run at once: every tensor of that many is in memory."""

INTEGER_METHODS = ("easyquant", "uniform")
"""Methods whose bits are those of activations too: INT7 is both."""

FLOAT_BITS = 32
"""Of a float weight or bias; of a stored bias, and of the scale of a channel."""

ActivationScales = Literal["max", "percentile", "mse", "kl", "search", "keep"]
"""Where scales of activations come from.

* a `RangeRule`: the range of a tensor's values.
* ``search``: the outputs of the layers that read it (EasyQuant), from the largest value; with the
  released or ncnn's search ranges from the range of least divergence.
* ``keep``: the integer network that is quantized anew.
"""

ACTIVATION_SCALES: tuple[ActivationScales, ...] = get_args(ActivationScales)


@dataclass(frozen=True)
class Source:
    """What is quantized.

    Parameters
    ----------
    network : FloatNetwork
    integer : Network or None
        The integer network that it was made of.
    parameters : mapping of tensor index to QuantizationParameters
        Scales that the integer network had.
    """

    network: FloatNetwork
    integer: Network | None
    parameters: Mapping[int, QuantizationParameters]


@dataclass(frozen=True)
class Request:
    """What the user asked for, as the command line says it; None is the method's own default."""

    method: str
    bits: int
    layers: tuple[str, ...] = ()
    activation_bits: int | None = None
    input_bits: int | None = None
    scheme: Scheme | None = None
    scales: ActivationScales | None = None
    rounds: int = 1
    keep_ends: bool = False
    correct_bias: bool = False
    partial_sum_bits: int | None = None
    activation_terms: int | None = None


# -- what is read ---------------------------------------------------------------------------------


def load_source(model: str | None) -> Source:
    """Load a float network, or an integer one as the float network that it stands for.

    Parameters
    ----------
    model : str or None
        A ``.onnx``, ``.tflite`` or ``.npz`` file; None is the network that ships with Napier.

    Raises
    ------
    InputError, ModelError
    """
    suffix = "" if model is None else Path(model).suffix
    if model is not None and suffix not in MODEL_SUFFIXES:
        raise InputError(
            f"{model} must be a .onnx, .tflite, .npz or .toml file; without MODEL the network that"
            " ships with Napier is taken"
        )
    if model is not None and Path(model).is_file():
        if suffix == ".onnx":
            from golden.importers.onnx import load_onnx

            return Source(load_onnx(model), None, {})
        if suffix == ".tflite" and is_float_tflite(model):
            return Source(load_float_tflite(model), None, {})
    integer = load_model(model)
    found = dequantize(integer)
    return Source(found.network, integer, found.parameters)


def load_reals(source: Source, paths: tuple[str, ...]) -> Samples:
    """Load samples as real values: of an integer network codes, of a float one its own values.

    Raises
    ------
    InputError
        Wrong number of files, shape, type or code range.
    """
    if source.integer is not None:
        codes = load_samples(source.integer, paths)
        return replace(codes, arrays=tuple(real_inputs(source.integer, codes.arrays)))
    network = source.network
    tensors = [network.tensors[index] for index in network.inputs]
    return fitted_inputs(
        network.name, [Tensor(each.name, each.shape, "float32") for each in tensors], paths
    )


def shipped_test(source: Source) -> Samples:
    """Test images that ship with Napier, as real values."""
    assert source.integer is not None  # the shipped network is an integer one
    codes = default_samples(source.integer, None)
    return replace(codes, arrays=tuple(real_inputs(source.integer, codes.arrays)))


def real_inputs(network: Network, arrays: tuple[Array, ...]) -> Iterator[Array]:
    """Real values of the input codes of an integer network."""
    for index, array in zip(network.inputs, arrays, strict=True):
        tensor = network.tensors[index]
        if tensor.dtype == "float32" or tensor.scale is None:
            yield array.astype(np.float32)
        else:
            reals = (array.astype(np.int64) - tensor.zero_point) * tensor.scale
            yield reals.astype(np.float32)


def parse_settings(request: Request) -> Settings:
    """Check what was asked for and fill in the defaults of the method.

    Raises
    ------
    InputError
        For an unknown method, a setting that it does not have, or settings that contradict.
    """
    weights = _weight_settings(request.method, request.bits)
    layers = dict(_layer_override(text, request.bits) for text in request.layers)
    easyquant = weights.method.name == "easyquant"
    whole = request.bits if weights.method.name in INTEGER_METHODS else 8
    scales = request.scales or ("search" if easyquant else "max")
    ranges = str(weights.options.get("ranges", "paper"))
    search: SearchRanges | None = None
    rule: RangeRule = next((each for each in RANGE_RULES if each == scales), "max")
    if scales == "search":
        search = next((each for each in SEARCH_RANGES if each == ranges), "paper")
        rule = "max" if search == "paper" else "kl"
    return Settings(
        weights=weights,
        layers=layers,
        activation_bits=request.activation_bits or whole,
        input_bits=request.input_bits or 8,
        scheme=request.scheme or ("symmetric" if easyquant else "asymmetric"),
        rule=rule,
        search=search,
        rounds=request.rounds,
        keep_ends=request.keep_ends,
        correct_bias=request.correct_bias,
    )


def _weight_settings(text: str, bits: int) -> WeightSettings:
    if not 2 <= bits <= 8:
        raise InputError(f"weights must have 2 to 8 bits, not {bits}; choose a width in range")
    method, options = parse_method(text)
    return WeightSettings(method, options, bits)


def _layer_override(text: str, bits: int) -> tuple[str, WeightSettings]:
    """Split NAME=METHOD@BITS; without @BITS the layer has those of the network."""
    name, method, own = layer_parts(text)
    if not (name and method) or not (own is None or own.isdecimal()):
        raise InputError(
            f"--layer {text}: must name a layer and its method, as in conv_3=nhot:n=3 or"
            " dense=uniform@8, where 8 is the width of its codes"
        )
    return name, _weight_settings(method, bits if own is None else int(own))


def layer_parts(text: str) -> tuple[str, str, str | None]:
    """Name, method and width of a --layer NAME=METHOD@BITS, unchecked; None without a width."""
    name, _, method = text.partition("=")
    method, at, own = method.partition("@")
    return name, method, own if at else None


# -- the work -------------------------------------------------------------------------------------


def quantize_document(
    source: Source,
    request: Request,
    calibration: Samples | None,
    test: Samples | None = None,
    labels: Array | None = None,
    progress: Progress | None = None,
) -> tuple[QuantizedNetwork, Document]:
    """Quantize a network and say what it lost.

    Parameters
    ----------
    source : Source
    request : Request
    calibration : Samples or None
        Real values to choose scales by.
    test : Samples or None
        Real values to compare both networks on.
    labels : (samples,) integer array or None
        Classes of `test`.
    progress : callable or None
        Called as (done, total, what).

    Returns
    -------
    quantized : QuantizedNetwork
        Its network's `source` says how it was quantized.
    document : dict
        The `napier.quantize/1` document: plain Python values, ready for JSON.

    Raises
    ------
    InputError
        For settings that do not go together, missing samples, or labels beyond the outputs.
    """
    settings = parse_settings(request)
    layer_settings(source.network, settings)  # an unknown layer is said before the work
    check_labels(source.network, labels)
    if source.parameters and request.input_bits is not None:
        raise InputError(
            f"--input-bits chooses codes of real inputs, and {source.network.name} has int8 codes"
            " already, which stay; leave it out"
        )
    kept = _kept(source, request, calibration)
    all_kept = len(kept) == len(source.network.tensors)
    quantized = quantize_network(
        source.network,
        settings,
        None if calibration is None else calibration.arrays,
        kept,
        progress,
    )
    plan = None
    if request.partial_sum_bits is not None:
        inputs = {
            index: (quantized.parameters[index].low, quantized.parameters[index].high)
            for index in source.network.inputs
        }
        plan = partial_sum_plan(quantized.network, request.partial_sum_bits, inputs, progress)
    quantized = replace(quantized, network=_named(quantized.network, settings, plan))
    samples = test or calibration
    if request.activation_terms is not None and samples is None:
        raise InputError(
            "--activation-terms compares networks on samples, and there are none; add --test X.npy"
        )
    found = None if samples is None else _compare(source.network, quantized, samples, progress)
    losses = {} if found is None else found.losses
    document: Document = {
        "schema": SCHEMA,
        "model": {"name": source.network.name, "source": source.network.source},
        "method": settings.weights.text,
        "bits": settings.weights.bits,
        "activations": {
            "bits": max(each.bits for each in kept.values())
            if all_kept
            else settings.activation_bits,
            "scheme": settings.scheme,
            "scales": "keep"
            if all_kept
            else request.scales or ("search" if settings.search else settings.rule),
            "kept": [source.network.tensors[index].name for index in sorted(kept)],
        },
        "rounds": settings.rounds,
        "correct_bias": settings.correct_bias,
        "calibration": _described(calibration),
        "compared_on": _described(samples),
        "inputs": [_input_entry(quantized, index) for index in source.network.inputs],
        "layers": [
            _layer_entry(index, layer, quantized, losses)
            for index, layer in enumerate(source.network.layers)
            if isinstance(layer, FloatWeighted)
        ],
        "output": losses.get(source.network.outputs[0]),
        "partial_sums": None if plan is None else _plan_entry(plan),
        "nhot_activations": None
        if request.activation_terms is None or samples is None or found is None
        else _nhot_entry(quantized, samples, found, labels, request.activation_terms),
        "comparison": None
        if test is None or found is None
        else _comparison_entry(found, test, labels),
    }
    document["size"] = _size(document["layers"])
    return quantized, document


def _kept(
    source: Source, request: Request, calibration: Samples | None
) -> dict[int, QuantizationParameters]:
    """Scales of an integer source that stay: of its inputs, whose codes are data, or all."""
    parameters, network = dict(source.parameters), source.network
    if request.scales == "keep":
        if len(parameters) < len(network.tensors):
            raise InputError(
                f"--activations keep needs an int8 network, and {network.name} is not one"
                " throughout; choose how scales are found and add --input CALIBRATION.npy"
            )
        if (request.activation_bits or 8) != 8:
            raise InputError(
                f"--activations keep leaves 8 bits, not {request.activation_bits}; choose how"
                " scales are found and add --input CALIBRATION.npy"
            )
        return parameters
    nothing_asked = request.scales is None and request.scheme in (None, "asymmetric")
    if calibration is None and nothing_asked and (request.activation_bits or 8) == 8:
        return parameters
    return {index: parameters[index] for index in network.inputs if index in parameters}


def _named(network: Network, settings: Settings, plan: PartialSumPlan | None) -> Network:
    text = f"{network.source or network.name}, quantized by {settings.weights.text}"
    text += f" to {settings.weights.bits} bits"
    if plan is not None and plan.interval:
        text += f", partial sums of {plan.acc_bits} bits spilled every {plan.interval} products"
    return replace(network, source=text)


def input_codes(quantized: QuantizedNetwork, samples: Samples) -> list[Array]:
    """Real samples as the int8 codes that the quantized network takes."""
    return [
        quantized.parameters[index].codes(array).astype(np.int8)
        for index, array in zip(quantized.network.inputs, samples.arrays, strict=True)
    ]


def _described(samples: Samples | None) -> Document | None:
    return None if samples is None else {"inputs": samples.description, "samples": samples.count}


def _input_entry(quantized: QuantizedNetwork, index: int) -> Document:
    tensor, parameters = quantized.network.tensors[index], quantized.parameters[index]
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "dtype": tensor.dtype,
        "scale": tensor.scale,
        "zero_point": tensor.zero_point,
        "low": parameters.low,
        "high": parameters.high,
    }


def _layer_entry(
    index: int, layer: FloatWeighted, quantized: QuantizedNetwork, losses: Mapping[int, Document]
) -> Document:
    codes, chosen = quantized.weights[layer.name], quantized.settings[layer.name]
    stored = quantized.network.layers[index]
    assert isinstance(stored, WeightedLayer)  # the same layers at the same indices
    real = layer.weights.reshape(len(layer.weights), -1).astype(np.float64)
    error = real - codes.scales[:, np.newaxis] * (codes.codes - codes.zero_point)
    return {
        "index": index,
        "name": layer.name,
        "op": stored.op,
        "method": chosen.text,
        "bits": codes.bits,
        "weights": int(codes.codes.size),
        "channels": len(codes.codes),
        "zero_share": float(np.mean(codes.codes == codes.zero_point)),
        "terms_per_weight": terms_per_weight(codes),
        "storage_bits": float(codes.storage_bits),
        "weight_sqnr_db": _decibels(float((real**2).sum()), float((error**2).sum())),
        **losses.get(layer.outputs[0], {"cosine": None, "sqnr_db": None}),
    }


def terms_per_weight(codes: WeightCodes) -> float:
    """Mean number of signed powers of two of a weight, the fewest that it can be written with."""
    values, counts = np.unique(codes.codes - codes.zero_point, return_counts=True)
    terms = (naf_digits(values) != 0).sum(axis=0)
    return float((terms * counts).sum() / counts.sum())


def _size(layers: list[Document]) -> Document:
    """Bytes of weights, biases and scales; a scale and a bias of 32 bits for each channel."""
    weights = sum(layer["weights"] for layer in layers)
    channels = sum(layer["channels"] for layer in layers)
    bits = sum(layer["storage_bits"] for layer in layers)
    return {
        "float_bytes": (weights + channels) * FLOAT_BITS // 8,
        "int8_bytes": weights + 2 * channels * FLOAT_BITS // 8,
        "bytes": (bits + 2 * channels * FLOAT_BITS) / 8,
    }


def _plan_entry(plan: PartialSumPlan) -> Document:
    return {
        "acc_bits": plan.acc_bits,
        "interval": plan.interval,
        "layers": [
            {
                "name": layer.name,
                "largest_interval": layer.largest_interval,
                "narrow_bits": layer.narrow_bits,
                "wide_bits": layer.wide_bits,
            }
            for layer in plan.layers
        ],
    }


# -- comparing ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Comparison:
    """Both networks on the same samples.

    Parameters
    ----------
    losses : mapping of tensor index to dict
        Cosine and SQNR of what each layer writes, over all samples.
    before, after : (samples,) integer array
        Largest of the first output, of the float and of the quantized network.
    """

    losses: Mapping[int, Document]
    before: Array
    after: Array


def _compare(
    network: FloatNetwork, quantized: QuantizedNetwork, samples: Samples, progress: Progress | None
) -> _Comparison:
    codes = input_codes(quantized, samples)
    sums = {layer.outputs[0]: np.zeros(4) for layer in network.layers}
    choices: list[tuple[Array, Array]] = []
    for start in range(0, samples.count, BATCH_SAMPLES):
        if progress is not None:
            progress(start, samples.count, "comparing")
        part = slice(start, start + BATCH_SAMPLES)
        reals = run_float(network, [x[part] for x in samples.arrays])
        found = run_golden(quantized.network, [x[part] for x in codes], keep_tensors=True).tensors
        for index, total in sums.items():
            real = reals[index].astype(np.float64)
            rounded = quantized.parameters[index].reals(found[index])
            products = (real**2, rounded**2, real * rounded, (real - rounded) ** 2)
            total += [float(each.sum()) for each in products]
        output = network.outputs[0]
        rows = (each[output].reshape(len(each[output]), -1) for each in (reals, found))
        choices.append(tuple(each.argmax(axis=1) for each in rows))
    losses = {
        index: {
            "cosine": float(inner / np.sqrt(power * kept)) if power * kept > 0 else None,
            "sqnr_db": _decibels(power, error),
        }
        for index, (power, kept, inner, error) in sums.items()
    }
    before, after = (np.concatenate(each) for each in zip(*choices, strict=True))
    return _Comparison(losses, before, after)


def _nhot_entry(
    quantized: QuantizedNetwork,
    samples: Samples,
    found: _Comparison,
    labels: Array | None,
    terms: int,
) -> Document:
    """Say what is left where layers multiply by n-hot activations, which no array here does."""
    codes, parts = input_codes(quantized, samples), []
    for start in range(0, samples.count, BATCH_SAMPLES):
        batch = [x[start : start + BATCH_SAMPLES] for x in codes]
        output = run_nhot(quantized.network, quantized.parameters, batch, terms)[0]
        parts.append(output.reshape(len(output), -1).argmax(axis=1))
    choices = np.concatenate(parts)
    return {
        "terms": terms,
        "inputs": samples.description,
        "samples": samples.count,
        "top1_agreement": float(np.mean(choices == found.before)),
        "accuracy": None if labels is None else float(np.mean(choices == labels)),
    }


def _decibels(power: float, error: float) -> float | None:
    """Ratio of powers in dB; None where it is infinite or nothing is there."""
    ratio = 10 * log10(power / error) if power > 0 and error > 0 else float("inf")
    return ratio if isfinite(ratio) else None


def _comparison_entry(found: _Comparison, samples: Samples, labels: Array | None) -> Document:
    before, after = found.before, found.after
    return {
        "inputs": samples.description,
        "samples": samples.count,
        "top1_agreement": float(np.mean(before == after)),
        "accuracy_float": None if labels is None else float(np.mean(before == labels)),
        "accuracy": None if labels is None else float(np.mean(after == labels)),
    }


# -- tables ---------------------------------------------------------------------------------------


def quantize_table(document: Document) -> RenderableType:
    """One row a layer, then what the whole network takes and lost; fits 80 columns."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("#", justify="right", style="dim", no_wrap=True)
    for heading in ("layer", "method"):
        table.add_column(heading, no_wrap=True)
    for heading in ("bits", "weights", "terms", "kB", "cosine", "SQNR"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in document["layers"]:
        table.add_row(
            str(layer["index"]),
            shorten(layer["name"], 14),
            shorten(layer["method"], 17),
            str(layer["bits"]),
            str(layer["weights"]),
            f"{layer['terms_per_weight']:.2f}",
            f"{layer['storage_bits'] / 8000:.2f}",
            "" if layer["cosine"] is None else f"{layer['cosine']:.4f}",
            "" if layer["sqnr_db"] is None else f"{layer['sqnr_db']:.1f} dB",
        )
    return Group(Text(_headline(document)), table, Text("\n".join(_verdict(document))))


def _headline(document: Document) -> str:
    activations = document["activations"]
    kept = activations["scales"] == "keep"
    how = "kept" if kept else f"{activations['scheme']}, {activations['scales']}"
    return (
        f"{document['model']['name']}: {document['method']}, weights of {document['bits']} bits,"
        f" activations of {activations['bits']} ({how})"
    )


def _verdict(document: Document) -> list[str]:
    size = document["size"]
    lines = [
        f"size {size['bytes'] / 1000:.1f} kB with biases and scales: float"
        f" {size['float_bytes'] / 1000:.1f} kB, int8 {size['int8_bytes'] / 1000:.1f} kB"
    ]
    lines += [
        f"input {shorten(each['name'], 24)}: code = round(x / {each['scale']:.6g})"
        f" {'+' if each['zero_point'] >= 0 else '-'} {abs(each['zero_point'])},"
        f" {each['low']} to {each['high']}"
        for each in document["inputs"]
    ]
    samples = document["compared_on"]
    if samples is not None:
        lines.append(f"cosine and SQNR of what layers write: {samples['inputs']}, all samples")
    if document["partial_sums"] is not None:
        lines += _plan_lines(document["partial_sums"], document["inputs"])
    lines += _compared_lines(document)
    return lines


def _compared_lines(document: Document) -> list[str]:
    """Top-1 of the network, and of the same with n-hot activations."""
    lines = []
    comparison, nhot = document["comparison"], document["nhot_activations"]
    if comparison is not None:
        text = f"{comparison['inputs']}: same top-1 {comparison['top1_agreement']:.1%}"
        if comparison["accuracy"] is not None:
            text += (
                f", accuracy {comparison['accuracy_float']:.1%} float,"
                f" {comparison['accuracy']:.1%} quantized"
            )
        lines.append(text)
    if nhot is not None:
        text = f"activations {nhot['terms']}-hot, too: same top-1 {nhot['top1_agreement']:.1%}"
        if nhot["accuracy"] is not None:
            text += f", accuracy {nhot['accuracy']:.1%}"
        lines.append(text)
    return lines


def _plan_lines(plan: Document, inputs: list[Document]) -> list[str]:
    bits = plan["acc_bits"]
    narrow = [each for each in inputs if (each["low"], each["high"]) != (-128, 127)]
    ranges = ", ".join(f"{each['low']} to {each['high']} of {each['name']}" for each in narrow)
    whose = f"codes from {ranges}" if narrow else "every input"
    if plan["interval"] is None:
        return [f"{bits} bits hold every sum of every layer: no spilling, for {whose}"]
    if plan["interval"] == 0:
        return [f"{bits} bits do not hold the sums of every layer at any spill interval"]
    wide = max(layer["wide_bits"] for layer in plan["layers"])
    own = [f"{layer['name']} {layer['largest_interval'] or 'all'}" for layer in plan["layers"]]
    return [
        f"partial sums of {bits} bits, spilled every {plan['interval']} products into {wide}:"
        f" no overflow, for {whose}",
        f"most products of each layer alone: {', '.join(own)}",
    ]


def methods_table() -> RenderableType:
    """Methods of weights, one row each, settings below."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("method", "projection", "settings", "data"):
        table.add_column(heading)
    for method in methods().values():
        settings = ", ".join(f"{key}={value}" for key, value in method.options.items())
        table.add_row(method.name, method.summary, settings, "needed" if method.needs_data else "")
    return Group(table, Text("sources: docs/quantizers.md"))
