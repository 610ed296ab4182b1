"""`napier finetune`: an integer network that was trained to be one, and what training won back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from golden.certificates import certify
from golden.errors import InputError, ToolError
from golden.float_run import run_float
from golden.network import Network, WeightedLayer
from golden.quantization.activations import QuantizationParameters
from golden.quantization.calibrate import Settings, layer_settings, quantize_network
from golden.ranges import clamp_ranges
from golden.run import run as run_golden
from napier.fitting import check_labels
from napier.loading import Samples
from napier.quantizing import Request, Source, layer_parts, parse_settings, terms_per_weight
from napier.report import SHORT_OPS, shorten

if TYPE_CHECKING:
    from napier.training import FineTuned, Stage, Training

Array = NDArray[Any]
Document = dict[str, Any]
Progress = Callable[[int, int, str], None]

SCHEMA = "napier.finetune/1"

UNIFORM = "uniform"
CONFINED = ("a2q", "a2q+")

CALIBRATION_SAMPLES = 512
"""Training samples that scales of activations start from."""

BATCH_SAMPLES = 16
"""Samples run at once: every tensor of that many is in memory."""


@dataclass(frozen=True)
class Plan:
    """What the user asked for.

    Parameters
    ----------
    method : str
        Of the last stage; ``a2q:P`` and ``a2q+:P`` too.
    epochs, uniform_epochs : int
        Of the last stage and of the uniform one before it; 0 leaves that out.
    learning_rate : float
    bits : int
        Of weights.
    layers : tuple of str
        ``NAME=METHOD[@BITS]``: layers with a method of their own.
    activation_bits : int
    keep_ends : bool
        Uniform weights of 8 bits in the first and last layer that multiplies.
    """

    method: str
    epochs: int
    uniform_epochs: int
    learning_rate: float
    bits: int = 8
    layers: tuple[str, ...] = ()
    activation_bits: int = 8
    keep_ends: bool = False

    @property
    def is_confined(self) -> bool:
        """Whether the method keeps weights within the bounds of an accumulator."""
        return self.method.partition(":")[0] in CONFINED


def usual_uniform_epochs(method: str) -> int:
    """Epochs with uniform weights where none are asked for: n-hot takes two stages (2103.11704)."""
    return 2 if method.partition(":")[0] == "nhot" else 0


def require_torch() -> None:
    """Fail early, in one sentence, where PyTorch is missing.

    Raises
    ------
    ToolError
    """
    if find_spec("torch") is None:
        raise ToolError(
            "fine-tuning needs PyTorch, which is not installed; install the extra with"
            " pip install 'napier-sim[train]'"
        )


def plan_settings(plan: Plan, method: str) -> Settings:
    """Build the settings of a quantization after training with one of the plan's methods.

    Raises
    ------
    InputError
    """
    request = Request(
        method,
        plan.bits,
        plan.layers,
        plan.activation_bits,
        scheme="asymmetric",
        scales="max",
        keep_ends=plan.keep_ends,
    )
    return parse_settings(request)


def finetune_document(
    source: Source,
    plan: Plan,
    training: Training,
    samples: Samples,
    labels: Array | None,
    test: Samples | None = None,
    test_labels: Array | None = None,
    progress: Progress | None = None,
) -> tuple[Network, Document]:
    """Train a network to its quantizers and compare it with those that were not trained.

    Parameters
    ----------
    source : Source
    plan : Plan
    training : Training
    samples : Samples
        Real values to train on.
    labels : (samples,) integer array or None
    test : Samples or None
        Real values to compare on; without them the training samples are taken.
    test_labels : (samples,) integer array or None
    progress : callable or None
        Called as (done, total, what).

    Returns
    -------
    network : Network
        Its `source` says how it was trained.
    document : dict
        The `napier.finetune/1` document: plain Python values, ready for JSON. Accuracies are those
        of integer networks, run by the golden model; only `accuracy_float` is not.

    Raises
    ------
    InputError
    """
    from napier.training import Stage, fine_tune

    network = source.network
    check_labels(network, labels)
    check_labels(network, test_labels, "--test-labels")
    _check_layers(plan)
    settings = plan_settings(plan, UNIFORM)
    chosen = layer_settings(network, settings)
    own = {name: each for name, each in chosen.items() if each is not settings.weights}
    calibration = [array[:CALIBRATION_SAMPLES] for array in samples.arrays]
    fixed = _fixed(source, plan)
    uniform = quantize_network(network, settings, calibration, fixed)
    stages = [Stage(UNIFORM, plan.uniform_epochs, plan.learning_rate, plan.bits)]
    stages.append(Stage(plan.method, plan.epochs, plan.learning_rate, plan.bits))
    stages = [stage for stage in stages[:-1] if stage.epochs] + stages[-1:]
    result = fine_tune(
        network, uniform.parameters, samples.arrays, labels, stages,
        layers=own, training=training, progress=progress,
    )  # fmt: skip
    name = f"{network.source or network.name}, fine-tuned by {plan.method}"
    tuned = replace(result.network, source=name)
    projected = None
    if not plan.is_confined:
        projection = plan_settings(plan, plan.method)
        projected = quantize_network(network, projection, calibration, fixed).network
    judged, classes = (samples, labels) if test is None else (test, test_labels)
    candidates = {"uniform": uniform.network, "projected": projected, "tuned": tuned}
    document = {
        "schema": SCHEMA,
        "model": {"name": network.name, "source": network.source},
        "method": plan.method,
        "stages": _stage_entries(stages, result),
        "training": {
            "inputs": samples.description,
            "samples": samples.count,
            "labels": labels is not None,
            "learning_rate": plan.learning_rate,
            "batch": training.batch,
            "distillation": training.distillation,
            "seed": training.seed,
            "threads": training.threads,
            "shift": training.shift,
            "relative": training.relative,
            "normalize": training.normalize,
            "dampening": training.dampening,
        },
        "inputs": [
            {"name": each.name, "scale": each.scale, "zero_point": each.zero_point}
            for each in (tuned.tensors[index] for index in tuned.inputs)
        ],
        "layers": [
            _layer_entry(tuned, index, result, own[layer.name].text if layer.name in own else None)
            for index, layer in enumerate(tuned.layers)
            if isinstance(layer, WeightedLayer)
        ],
        "comparison": _comparison(source, candidates, judged, classes, test is not None),
    }
    return tuned, document


def _check_layers(plan: Plan) -> None:
    for text in plan.layers:
        name = layer_parts(text)[1].partition(":")[0]
        if name in CONFINED:
            raise InputError(
                f"--layer {text}: {name} is for all layers and cannot be chosen for one; write"
                f" --method {name}:16 or give the layer another method"
            )


def _fixed(source: Source, plan: Plan) -> Mapping[int, QuantizationParameters]:
    """Scales that an integer network had: all of them, or with other bits those of its inputs."""
    if plan.activation_bits == 8:
        return source.parameters
    inputs = source.network.inputs
    return {index: p for index, p in source.parameters.items() if index in inputs}


def _stage_entries(stages: list[Stage], result: FineTuned) -> list[Document]:
    return [
        {
            "method": stage.method,
            "bits": stage.bits,
            "losses": [epoch.loss for epoch in result.epochs if epoch.stage == number],
        }
        for number, stage in enumerate(stages)
    ]


def _layer_entry(network: Network, index: int, result: FineTuned, own: str | None) -> Document:
    layer = network.layers[index]
    assert isinstance(layer, WeightedLayer)  # the caller's choice
    (source,) = layer.inputs
    codes = clamp_ranges(network)[source]
    assert codes is not None  # it reads integer codes
    certificate = certify(layer, network.tensors[source], codes)
    weights = result.weights[layer.name]
    return {
        "index": index,
        "name": layer.name,
        "op": layer.op,
        "method": own,
        "weights": int(weights.codes.size),
        "zero_share": float(np.mean(weights.codes == weights.zero_point)),
        "terms_per_weight": terms_per_weight(weights),
        "storage_bits": float(weights.storage_bits),
        "exact_bits": int(certificate.exact_bits.max()),
    }


# -- comparing ------------------------------------------------------------------------------------


def _comparison(
    source: Source,
    candidates: Mapping[str, Network | None],
    samples: Samples,
    labels: Array | None,
    held_out: bool,
) -> Document:
    choices = {name: _choices(each, samples) for name, each in candidates.items() if each}
    choices["float"] = _float_choices(source, samples)
    return {
        "inputs": samples.description,
        "samples": samples.count,
        "held_out": held_out,
        **{
            f"agreement_{name}": float(np.mean(choices[name] == choices["float"]))
            if name in choices
            else None
            for name in candidates
        },
        **{
            f"accuracy_{name}": float(np.mean(choices[name] == labels))
            if name in choices and labels is not None
            else None
            for name in ("float", *candidates)
        },
    }


def _choices(network: Network, samples: Samples) -> Array:
    """Largest code of the first output of every sample, by the golden model."""
    parts = []
    for start in range(0, samples.count, BATCH_SAMPLES):
        batch = [array[start : start + BATCH_SAMPLES] for array in samples.arrays]
        output = run_golden(network, golden_inputs(network, batch)).outputs[0]
        parts.append(output.reshape(len(output), -1).argmax(axis=1))
    return np.concatenate(parts)


def golden_inputs(network: Network, reals: list[Array]) -> list[Array]:
    """Codes of real values, nearest, as a network of int8 inputs takes them."""
    codes = []
    for index, values in zip(network.inputs, reals, strict=True):
        tensor = network.tensors[index]
        assert tensor.scale is not None  # assembled networks have one everywhere
        parameters = QuantizationParameters(tensor.scale, tensor.zero_point, -128, 127)
        codes.append(parameters.codes(values).astype(np.int8))
    return codes


def _float_choices(source: Source, samples: Samples) -> Array:
    network, parts = source.network, []
    for start in range(0, samples.count, BATCH_SAMPLES):
        batch = [array[start : start + BATCH_SAMPLES] for array in samples.arrays]
        output = run_float(network, batch)[network.outputs[0]]
        parts.append(output.reshape(len(output), -1).argmax(axis=1))
    return np.concatenate(parts)


# -- the table ------------------------------------------------------------------------------------


def finetune_table(document: Document) -> RenderableType:
    """One row a layer, then the stages and what they won; fits 80 columns."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("#", justify="right", style="dim", no_wrap=True)
    for heading in ("layer", "op", "method"):
        table.add_column(heading, no_wrap=True)
    for heading in ("weights", "zeros", "terms", "kB", "sum bits"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in document["layers"]:
        table.add_row(
            str(layer["index"]),
            shorten(layer["name"], 14),
            SHORT_OPS.get(layer["op"], layer["op"]),
            shorten(layer["method"] or document["method"], 12),
            str(layer["weights"]),
            f"{layer['zero_share']:.0%}",
            f"{layer['terms_per_weight']:.2f}",
            f"{layer['storage_bits'] / 8000:.2f}",
            str(layer["exact_bits"]),
        )
    training = document["training"]
    headline = (
        f"{document['model']['name']}: fine-tuned by {document['method']} on"
        f" {training['samples']} samples, seed {training['seed']}"
    )
    return Group(Text(headline), table, Text("\n".join(_verdict(document))))


def _verdict(document: Document) -> list[str]:
    lines = []
    for stage in document["stages"]:
        losses = stage["losses"]
        change = f"loss {losses[0]:.3f} > {losses[-1]:.3f}" if losses else "projected"
        epochs = "1 epoch" if len(losses) == 1 else f"{len(losses)} epochs"
        lines.append(f"{stage['method']}: {epochs}, {change}")
    lines += [
        f"input {shorten(each['name'], 24)}: code = round(x / {each['scale']:.6g})"
        f" {'+' if each['zero_point'] >= 0 else '-'} {abs(each['zero_point'])}"
        for each in document["inputs"]
    ]
    comparison = document["comparison"]
    what = comparison["inputs"] + ("" if comparison["held_out"] else " (trained on)")
    known = comparison["accuracy_float"] is not None
    lines.append(f"{what}: {'accuracy' if known else 'same top-1 as the float network'}")
    kind = "accuracy" if known else "agreement"
    names = {
        "float": "float",
        "uniform": "uniform, not trained",
        "projected": f"{document['method']}, not trained",
        "tuned": f"{document['method']}, fine-tuned",
    }
    for name, words in names.items():
        value = comparison.get(f"{kind}_{name}")
        if value is not None:
            lines.append(f"  {value:6.1%}  {words}")
    return lines
