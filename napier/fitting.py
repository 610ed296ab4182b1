"""`napier fit`: a network whose accumulators fit, what changed, and what it costs in accuracy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import isfinite, prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from golden.accumulate import Steps
from golden.errors import InputError, OutputError
from golden.fitting import LayerFit, Method, NetworkFit, Rescale, fit_network
from golden.float_network import FloatNetwork
from golden.network import Network
from golden.ranges import ActivationRange
from golden.run import run as run_golden
from napier.loading import Samples, load_array
from napier.report import LONGEST_NAME, SHORT_OPS, shorten

Array = NDArray[Any]
Document = dict[str, Any]
Progress = Callable[[int, int, str], None]

SCHEMA = "napier.fit/1"

BATCH_SAMPLES = 16
"""Samples run at once: every tensor of that many is in memory."""


def check_model_name(path: str) -> None:
    """Fail early where Napier would not read the fitted network again.

    Raises
    ------
    OutputError
    """
    if Path(path).suffix != ".npz":
        raise OutputError(f"{path} must end in .npz, Napier's own format; name it so")


def load_labels(
    path: str, samples: Samples, option: str = "--labels", of: str = "--input"
) -> Array:
    """Load the class of every sample.

    Parameters
    ----------
    path : str
        A .npy file of one integer, not negative, for each sample.
    samples : Samples
    option, of : str
        Options that name the file and the samples, for errors.

    Returns
    -------
    (samples,) integer array

    Raises
    ------
    InputError
        Missing, of another length, or not class numbers.
    """
    if not Path(path).exists():
        raise InputError(f"{path}: no such file; {option} is a NumPy .npy file of class numbers")
    labels = load_array(path)
    if labels.shape != (samples.count,):
        raise InputError(
            f"{path} has shape {labels.shape} but {of} holds {samples.count} samples; give one"
            " class number for each"
        )
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        found = f"integers from {labels.min()}" if labels.dtype.kind == "i" else labels.dtype
        raise InputError(
            f"{path} must hold class numbers, integers from 0, but holds {found}; write it with"
            " numpy.save"
        )
    return labels


def check_labels(
    network: Network | FloatNetwork, labels: Array | None, option: str = "--labels"
) -> None:
    """Refuse labels beyond the classes of the first output; `option` names them.

    Raises
    ------
    InputError
    """
    classes = prod(network.tensors[network.outputs[0]].shape[1:])
    if labels is not None and labels.max() >= classes:
        raise InputError(
            f"{option} reach {labels.max()} but the first output of {network.name} has {classes}"
            f" classes, 0 to {classes - 1}; give labels of this model"
        )


def fit_document(
    network: Network,
    acc_bits: int,
    method: Method,
    rescale: Rescale,
    activation_range: ActivationRange,
    steps: Steps,
    calibration: Samples | None = None,
    samples: Samples | None = None,
    labels: Array | None = None,
    progress: Progress | None = None,
) -> tuple[Network, Document]:
    """Fit a network and say what changed.

    Parameters
    ----------
    network, acc_bits, method, rescale, activation_range, steps
        See `golden.fitting.fit_network`.
    calibration : Samples or None
        What layers are fitted to.
    samples : Samples or None
        What the fitted network is compared with the given one on.
    labels : (samples,) integer array or None
    progress : callable or None
        Called as (done, total, what).

    Returns
    -------
    network : Network
        The fitted one; its `source` says how it was fitted.
    document : dict
        The `napier.fit/1` document: plain Python values, ready for JSON.

    Raises
    ------
    InputError
        A width that cannot be reached, or labels beyond the network's outputs.
    """
    check_labels(network, labels)
    before = None if samples is None else _choices(network, samples)
    fit = fit_network(
        network,
        acc_bits,
        method,
        rescale=rescale,
        activation_range=activation_range,
        steps=steps,
        calibration=None if calibration is None else calibration.arrays,
        progress=progress,
    )
    comparison = None
    if samples is not None and before is not None:
        comparison = _comparison(before, _choices(fit.network, samples), samples, labels)
    document = {
        "schema": SCHEMA,
        "model": {"name": network.name, "source": network.source},
        "acc_bits": acc_bits,
        "method": method,
        "rescale": rescale,
        "activation_range": activation_range,
        "steps": steps,
        "calibration": None
        if calibration is None
        else {"inputs": calibration.description, "samples": calibration.count},
        "layers": [_layer_entry(network, layer) for layer in fit.layers],
        "comparison": comparison,
    }
    return _named(fit, method), document


def _named(fit: NetworkFit, method: Method) -> Network:
    source = fit.network.source or fit.network.name
    return replace(fit.network, source=f"{source}, fitted to {fit.acc_bits} bits by {method}")


def _layer_entry(network: Network, fit: LayerFit) -> Document:
    channels = [
        {
            "bits_before": int(fit.bits_before[channel]),
            "bits_after": int(fit.bits_after[channel]),
            "l1_before": int(fit.l1_before[channel]),
            "l1_after": int(fit.l1_after[channel]),
            "factor": float(fit.factor[channel]),
        }
        for channel in range(len(fit.factor))
    ]
    return {
        "index": fit.index,
        "name": fit.name,
        "op": network.layers[fit.index].op,
        "weights": fit.weights,
        "changed_weights": fit.changed_weights,
        **{
            key: max(channel[key] for channel in channels)
            for key in ("bits_before", "bits_after", "l1_before", "l1_after")
        },
        "cosine": fit.cosine,
        "sqnr_db": fit.sqnr_db if isfinite(fit.sqnr_db) else None,
        "channels": channels,
    }


# -- accuracy -------------------------------------------------------------------------------------


def _choices(network: Network, samples: Samples) -> Array:
    """Largest code of the first output of every sample; the lower index on a tie."""
    parts = []
    for start in range(0, samples.count, BATCH_SAMPLES):
        batch = [array[start : start + BATCH_SAMPLES] for array in samples.arrays]
        output = run_golden(network, batch).outputs[0]
        parts.append(output.reshape(len(batch[0]), -1).argmax(axis=1))
    return np.concatenate(parts)


def _comparison(before: Array, after: Array, samples: Samples, labels: Array | None) -> Document:
    def accuracy(choices: Array) -> float | None:
        return None if labels is None else float(np.mean(choices == labels))

    return {
        "inputs": samples.description,
        "samples": samples.count,
        "top1_agreement": float(np.mean(before == after)),
        "accuracy_before": accuracy(before),
        "accuracy_after": accuracy(after),
    }


# -- the table ------------------------------------------------------------------------------------


def fit_table(document: Document) -> RenderableType:
    """One row a layer, then what the samples say; fits 80 columns."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("#", justify="right", style="dim", no_wrap=True)
    table.add_column("layer", no_wrap=True)
    table.add_column("op", no_wrap=True)
    for heading in ("changed", "l1", "bits", "cosine", "SQNR"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in document["layers"]:
        sqnr_db = layer["sqnr_db"]
        table.add_row(
            str(layer["index"]),
            shorten(layer["name"], LONGEST_NAME // 2),
            SHORT_OPS.get(layer["op"], layer["op"]),
            _share(layer["changed_weights"], layer["weights"]),
            _change(layer["l1_before"], layer["l1_after"]),
            _change(layer["bits_before"], layer["bits_after"]),
            f"{layer['cosine']:.3f}",
            "" if sqnr_db is None else f"{sqnr_db:.1f} dB",
            style="dim" if not layer["changed_weights"] else None,
        )
    name, bits = document["model"]["name"], document["acc_bits"]
    headline = (
        f"{name}: fitted to accumulators of {bits} bits by {document['method']}"
        f" ({document['rescale']}), the widest channel of each layer"
    )
    return Group(Text(headline), table, Text(_verdict(document)))


def _share(part: int, whole: int) -> str:
    return "" if part == 0 else f"{100 * part / whole:.0f}%"


def _change(before: int, after: int) -> str:
    return str(before) if before == after else f"{before} > {after}"


def _verdict(document: Document) -> str:
    what = {"product": "products", "terms": "signed powers of two"}[document["steps"]]
    lines = f"{document['acc_bits']} bits hold every sum of {what}, for every input"
    comparison = document["comparison"]
    if comparison is None:
        return lines
    lines += f"\n{comparison['inputs']}: same top-1 {comparison['top1_agreement']:.1%}"
    if comparison["accuracy_before"] is not None:
        lines += (
            f", accuracy {comparison['accuracy_before']:.1%}"
            f" before, {comparison['accuracy_after']:.1%} after"
        )
    return lines
