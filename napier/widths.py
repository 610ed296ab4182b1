"""`napier widths`: accumulator certificates as a document, a table, and files of witnesses."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from golden.accumulate import Steps
from golden.certificates import (
    Certificate,
    certify,
    certify_spill,
    largest_spill_interval,
    witness,
)
from golden.errors import InputError, OutputError
from golden.network import Network, WeightedLayer
from golden.ranges import ActivationRange, Range, clamp_ranges, datatype_range, observed_range
from golden.run import run as run_golden
from napier.loading import Samples
from napier.output import replacing
from napier.report import LONGEST_NAME, SHORT_OPS, shorten
from simulator.hardware import Hardware, check_layer_fits, load_hardware
from simulator.results import AccumulatorValues

Array = NDArray[Any]
Document = dict[str, Any]
Progress = Callable[[int, int, str], None]

SCHEMA = "napier.widths/1"

BATCH_SAMPLES = 16
"""Samples run at once: every tensor of that many is in memory."""

NAMED_LAYERS = 8
"""Layers that a sentence names."""

SOURCES: dict[str, str] = {
    "datatype": "any code of their element type: a proof",
    "clamp": "any code the producing layer can emit: a proof",
    "calibrated": "only codes seen on the input: NOT a proof",
}
"""What each activation range assumes of the activations."""


@dataclass(frozen=True)
class Observation:
    """What one layer saw on all samples.

    Parameters
    ----------
    codes : (int, int)
        Smallest and largest input code.
    minimum, maximum : (out_channels,) int64 array
        Extremes over all prefixes of the accumulator, its initial 0 included.
    sample_bits : (samples,) int64 array
        Smallest accumulator in which no step of the sample overflows.
    """

    codes: Range
    minimum: Array
    maximum: Array
    sample_bits: Array


@dataclass(frozen=True)
class Observed:
    """What accumulators that hold every sum did with the samples.

    Parameters
    ----------
    layers : dict of int to Observation
        By the index of every layer that multiplies.
    outputs : (samples, codes) array
        First output of the golden model.
    """

    layers: dict[int, Observation]
    outputs: Array


# -- the document ---------------------------------------------------------------------------------


def widths_document(
    network: Network,
    activation_range: ActivationRange,
    samples: Samples | None = None,
    hardware: Hardware | None = None,
    witness_folder: str | None = None,
    progress: Progress | None = None,
    observed: Observed | None = None,
) -> Document:
    """Certify every layer that multiplies.

    Parameters
    ----------
    network : Network
    activation_range : ActivationRange
    samples : Samples or None
        For the observed widths and the calibrated range.
    hardware : Hardware or None
        Whose accumulators the layers must fit; its PE decides what one step adds.
    witness_folder : str or None
        Where a file of witnesses for each layer goes.
    progress : callable or None
        Called as (done, total, what).
    observed : Observed or None
        What `observe` made of the samples, where that is known already.

    Returns
    -------
    dict
        The `napier.widths/1` document: plain Python values, ready for JSON.

    Raises
    ------
    InputError
        A calibrated range without samples.
    HardwareError
        A layer that the PE cannot hold.
    OutputError
        A folder that cannot be written.
    """
    if activation_range == "calibrated" and samples is None:
        raise InputError(
            "--activation-range calibrated needs the inputs to calibrate on; add --input X.npy"
        )
    layers = [
        (index, layer)
        for index, layer in enumerate(network.layers)
        if isinstance(layer, WeightedLayer)
    ]
    if hardware is not None:
        for _, layer in layers:
            check_layer_fits(layer, hardware, network.tensors[layer.inputs[0]].dtype)
    if witness_folder is not None:
        prepare_folder(witness_folder)
    if observed is None and samples is not None:
        observed = observe(network, samples, hardware, progress)
    seen = {} if observed is None else observed.layers
    ranges: dict[int, Range | None] = {index: found.codes for index, found in seen.items()}
    if activation_range != "calibrated":
        clamps = clamp_ranges(network)
        for index, layer in layers:
            tensor = layer.inputs[0]
            ranges[index] = (
                clamps[tensor]
                if activation_range == "clamp"
                else datatype_range(network.tensors[tensor])
            )
    entries = []
    for done, (index, layer) in enumerate(layers):
        if progress is not None:
            progress(done, len(layers), layer.name)
        codes = ranges[index]
        assert codes is not None  # check_network: layers that multiply read integer codes
        entries.append(
            _layer_entry(network, index, layer, codes, seen.get(index), hardware, witness_folder)
        )
    return {
        "schema": SCHEMA,
        "model": {
            "name": network.name,
            "source": network.source,
            "inputs": None if samples is None else samples.description,
            "samples": 0 if samples is None else samples.count,
        },
        "activation_range": activation_range,
        "proof": activation_range != "calibrated",
        "hardware": None if hardware is None else _hardware_entry(hardware),
        "layers": entries,
    }


def proved_widths(document: Document) -> dict[int, int]:
    """Bits that every layer needs by its certificate, by index; of the hardware's PE if given."""
    return {
        layer["index"]: layer["exact_bits"]
        if layer["hardware"] is None
        else layer["hardware"]["bits_needed"]
        for layer in document["layers"]
    }


def _hardware_entry(hardware: Hardware) -> Document:
    array = hardware.array
    return {
        "name": hardware.name,
        "steps": _steps(hardware),
        "acc_bits": array.acc_bits,
        "acc_overflow": array.acc_overflow,
        "spill_interval": array.spill_interval,
        "wide_acc_bits": array.wide_acc_bits if array.spill_interval else None,
    }


def _steps(hardware: Hardware) -> Steps:
    """Name what one step of the PE adds; a ternary or parallel step is a product too."""
    return "terms" if hardware.serial else "product"


def _layer_entry(
    network: Network,
    index: int,
    layer: WeightedLayer,
    codes: Range,
    seen: Observation | None,
    hardware: Hardware | None,
    witness_folder: str | None,
) -> Document:
    source = network.tensors[layer.inputs[0]]
    certificate = certify(layer, source, codes)
    channels = _channel_entries(certificate, seen)
    widest = {
        name: max(channel[name] for channel in channels)
        for name in ("l1_bits", "exact_bits", "exact_bits_with_bias", "term_bits")
    }
    file = None
    if witness_folder is not None:
        file = _write_witness(network, index, layer, codes, Path(witness_folder))
    return {
        "index": index,
        "name": layer.name,
        "op": layer.op,
        "taps": certificate.taps,
        "x_min": certificate.x_min,
        "x_max": certificate.x_max,
        "lo": int(certificate.lo.min()),
        "hi": int(certificate.hi.max()),
        "datatype_bits": certificate.datatype_bits,
        **widest,
        "observed_bits": None if seen is None else max(c["observed_bits"] for c in channels),
        "hardware": None
        if hardware is None
        else _fit_entry(network, layer, codes, certificate, hardware),
        "witness_file": file,
        "channels": channels,
    }


def _channel_entries(certificate: Certificate, seen: Observation | None) -> list[Document]:
    arrays = {
        "l1_bits": certificate.l1_bits,
        "exact_bits": certificate.exact_bits,
        "lo": certificate.lo,
        "hi": certificate.hi,
        "prefix_lo": certificate.prefix_lo,
        "prefix_hi": certificate.prefix_hi,
        "exact_bits_with_bias": certificate.exact_bits_with_bias,
        "lo_with_bias": certificate.lo + certificate.bias,
        "hi_with_bias": certificate.hi + certificate.bias,
        "term_bits": certificate.term_bits,
        "term_lo": certificate.term_lo,
        "term_hi": certificate.term_hi,
    }
    observed = [None] * len(certificate.lo) if seen is None else _bits(seen.minimum, seen.maximum)
    rows = zip(*(array.tolist() for array in arrays.values()), observed, strict=True)
    names = (*arrays, "observed_bits")
    return [
        {"datatype_bits": certificate.datatype_bits, **dict(zip(names, row, strict=True))}
        for row in rows
    ]


def _fit_entry(
    network: Network,
    layer: WeightedLayer,
    codes: Range,
    certificate: Certificate,
    hardware: Hardware,
) -> Document:
    """Say whether the layer fits the accumulators of the hardware, and which spilling would."""
    source, array, steps = network.tensors[layer.inputs[0]], hardware.array, _steps(hardware)
    whole = certificate.term_bits if steps == "terms" else certificate.exact_bits
    needed, wide = int(whole.max()), None
    if array.spill_interval:
        spill = certify_spill(layer, source, codes, array.spill_interval, steps)
        needed, wide = int(spill.narrow_bits.max()), int(spill.wide_bits.max())
    return {
        "bits_needed": needed,
        "wide_bits_needed": wide,
        "fits": needed <= array.acc_bits and (wide is None or wide <= array.wide_acc_bits),
        "largest_spill_interval": largest_spill_interval(
            layer, source, codes, array.acc_bits, steps
        ),
    }


# -- observation ----------------------------------------------------------------------------------


def observe(
    network: Network,
    samples: Samples,
    hardware: Hardware | None = None,
    progress: Progress | None = None,
) -> Observed:
    """Run the samples and keep what every layer that multiplies saw.

    The accumulators have no width; they add what a step of the hardware's PE adds, products where
    no hardware is given.
    """
    from simulator.sharing import map_shared  # Numba: a certificate does without
    from simulator.values import ArrayLayer

    machine = unlimited(load_hardware("mac16x16") if hardware is None else hardware)
    found: dict[int, Observation] = {}
    outputs: list[Array] = []

    def run(start: int) -> tuple[Array, dict[int, Observation]]:
        batch = [array[start : start + BATCH_SAMPLES] for array in samples.arrays]
        result = run_golden(network, batch, keep_tensors=True)
        seen = {}
        for index, layer in enumerate(network.layers):
            if isinstance(layer, WeightedLayer):
                x = result.tensors[layer.inputs[0]]
                values = ArrayLayer(layer, x.shape, machine).accumulate(x)
                seen[index] = _observed(x, values, len(batch[0]))
        return result.outputs[0].reshape(len(batch[0]), -1), seen

    for done, (codes, seen) in enumerate(map_shared(run, range(0, samples.count, BATCH_SAMPLES))):
        if progress is not None:
            progress(done * BATCH_SAMPLES, samples.count, "observing samples")
        outputs.append(codes)
        for index, more in seen.items():
            found[index] = _joined(found[index], more) if index in found else more
    return Observed(found, np.concatenate(outputs))


def unlimited(hardware: Hardware) -> Hardware:
    """Give the PE operands and an accumulator that hold everything a network can have."""
    widths = {"activation_bits": 16, "weight_bits": 16, "acc_bits": 62, "spill_interval": 0}
    return hardware.model_copy(update={"array": hardware.array.model_copy(update=widths)})


def _observed(x: Array, values: AccumulatorValues, samples: int) -> Observation:
    shape = (samples, -1, values.minimum.shape[-1])
    low, high = values.minimum.reshape(shape).min(axis=1), values.maximum.reshape(shape).max(axis=1)
    bits = np.array(_bits(low.min(axis=1), high.max(axis=1)), dtype=np.int64)
    return Observation(observed_range(x), low.min(axis=0), high.max(axis=0), bits)


def _joined(earlier: Observation, later: Observation) -> Observation:
    """Return what a layer saw on the samples of both."""
    return Observation(
        codes=observed_range(np.array(later.codes), earlier.codes),
        minimum=np.minimum(later.minimum, earlier.minimum),
        maximum=np.maximum(later.maximum, earlier.maximum),
        sample_bits=np.concatenate([earlier.sample_bits, later.sample_bits]),
    )


def _bits(low: Array, high: Array) -> list[int]:
    """Width that holds [low, high], both sides of 0, element by element."""
    return [
        1 + max((-a - 1).bit_length() if a < 0 else 0, b.bit_length())
        for a, b in zip(low.tolist(), high.tolist(), strict=True)
    ]


def find_layer(network: Network, wanted: str) -> int:
    """Return the index of the layer that multiplies and has this name or index.

    Raises
    ------
    InputError
        There is none, or several have the name.
    """
    found = {i: x.name for i, x in enumerate(network.layers) if isinstance(x, WeightedLayer)}
    if wanted.isdecimal() and int(wanted) in found:
        return int(wanted)
    named = [index for index, name in found.items() if name == wanted]
    if len(named) == 1:
        return named[0]
    if named:
        raise InputError(
            f"--layer {wanted} names {len(named)} layers; give one of their numbers"
            f" {', '.join(map(str, named[:NAMED_LAYERS]))}"
        )
    listed = [f"{index} {name}" for index, name in list(found.items())[:NAMED_LAYERS]]
    more = len(found) - len(listed)
    raise InputError(
        f"--layer {wanted} is no layer of {network.name} that multiplies; use the number or name of"
        f" one: {', '.join(listed + [f'{more} more'] * (more > 0))}"
    )


def widest_layer(document: Document) -> int:
    """Index of the layer whose certificate needs most bits, the first of several."""
    proved = proved_widths(document)
    return max(proved, key=lambda index: proved[index])


def sums_histogram(network: Network, samples: Samples, index: int) -> Document:
    """Count the final sums of one layer by their sign and the bits that they need.

    Parameters
    ----------
    network : Network
    samples : Samples
    index : int
        A layer that multiplies.

    Returns
    -------
    dict
        index, name, bits (1, 2 ... up to the widest), and for each of them `negative` and
        `not_negative`: the sums that need exactly so many bits.
    """
    from simulator.values import ArrayLayer

    layer = network.layers[index]
    assert isinstance(layer, WeightedLayer)
    machine = unlimited(load_hardware("mac16x16"))
    powers = 1 << np.arange(62, dtype=np.int64)
    counts = np.zeros((2, len(powers) + 1), dtype=np.int64)
    for start in range(0, samples.count, BATCH_SAMPLES):
        batch = [array[start : start + BATCH_SAMPLES] for array in samples.arrays]
        tensors = run_golden(network, batch, keep_tensors=True).tensors
        x = tensors[layer.inputs[0]]
        sums = ArrayLayer(layer, x.shape, machine).accumulate(x).value.reshape(-1)
        magnitudes = np.where(sums < 0, -sums - 1, sums)
        lengths = np.searchsorted(powers, magnitudes, side="right")
        for side, chosen in enumerate((sums < 0, sums >= 0)):
            counts[side] += np.bincount(lengths[chosen], minlength=counts.shape[1])
    used = int(np.flatnonzero(counts.any(axis=0))[-1]) + 1
    return {
        "index": index,
        "name": layer.name,
        "bits": list(range(1, used + 1)),
        "negative": counts[0, :used].tolist(),
        "not_negative": counts[1, :used].tolist(),
    }


# -- witnesses ------------------------------------------------------------------------------------


def prepare_folder(folder: str) -> None:
    """Make the folder of the witnesses, or say why it cannot be one."""
    path = Path(folder)
    try:
        path.mkdir(exist_ok=True)
    except FileExistsError:
        raise OutputError(f"--witness {folder} is a file; name a folder") from None
    except FileNotFoundError:
        raise OutputError(
            f"--witness {folder}: there is no folder {path.parent}; create it first"
        ) from None
    except OSError as error:
        raise OutputError(f"--witness {folder} cannot be made: {error.strerror or error}") from None
    if not os.access(path, os.W_OK):
        raise OutputError(f"--witness {folder} is read-only for you; name another folder")


def _write_witness(
    network: Network, index: int, layer: WeightedLayer, codes: Range, folder: Path
) -> str:
    """Write inputs that reach the worst cases of a layer; the file's path."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", layer.name)[-LONGEST_NAME:]
    path = str(folder / f"witness_{index:03d}_{name}.npz")
    arrays: dict[str, Any] = {"layer": np.array(layer.name)}
    for extreme in ("lo", "hi"):
        found = witness(layer, network.tensors[layer.inputs[0]], codes, extreme)
        arrays[f"input_{extreme}"] = found.codes
        arrays[f"patch_{extreme}"] = found.patch
        arrays[f"channel_{extreme}"] = np.array(found.channel)
        arrays[f"position_{extreme}"] = np.array(found.position)
        arrays[f"sum_{extreme}"] = np.array(found.value)
    with replacing(path) as file:
        np.savez_compressed(file, **arrays)
    return path


# -- the table ------------------------------------------------------------------------------------


def widths_table(document: Document) -> RenderableType:
    """One row a layer, then the verdict; fits 80 columns."""
    hardware, layers = document["hardware"], document["layers"]
    observed = bool(document["model"]["samples"])
    spill = hardware is not None and not all(layer["hardware"]["fits"] for layer in layers)
    table = Table(
        box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False, expand=True
    )
    table.add_column("#", justify="right", style="dim", no_wrap=True)
    table.add_column("layer", ratio=1, no_wrap=True)
    table.add_column("op", no_wrap=True)
    headings = ["taps", "x - zero", "type", "l1", "exact", "+bias", "terms"]
    headings += ["seen"] * observed + ["acc"] * (hardware is not None) + ["spill"] * spill
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in layers:
        row: list[str | Text] = [
            str(layer["index"]),
            shorten(layer["name"], LONGEST_NAME),
            SHORT_OPS.get(layer["op"], layer["op"]),
            str(layer["taps"]),
            f"{layer['x_min']}..{layer['x_max']}",
        ]
        names = ["datatype_bits", "l1_bits", "exact_bits", "exact_bits_with_bias", "term_bits"]
        row += [str(layer[name]) for name in names + ["observed_bits"] * observed]
        if hardware is not None:
            row.append(_fit_text(layer["hardware"], hardware))
        if spill:
            interval = layer["hardware"]["largest_spill_interval"]
            row.append("-" if interval is None else str(interval))
        table.add_row(*row)
    return Group(Text(_headline(document)), table, _verdict(document))


def _headline(document: Document) -> str:
    model, activations = document["model"], document["activation_range"]
    lines = [
        f"{model['name']}: accumulator widths in bits, the widest channel of each layer",
        f"activations: {activations}, {SOURCES[activations]}",
    ]
    if model.get("weights", "as-is") != "as-is":
        lines.append(f"weights projected to {model['weights']}: another network than the file's")
    if model["samples"]:
        lines.append(f"seen: on {model['inputs']}")
    return "\n".join(lines)


def _fit_text(fit: Document, hardware: Document) -> Text:
    """`21/24`: bits needed of bits there, red where they do not fit."""
    text = f"{fit['bits_needed']}/{hardware['acc_bits']}"
    if fit["wide_bits_needed"] is not None and fit["wide_bits_needed"] > hardware["wide_acc_bits"]:
        text = f"{fit['wide_bits_needed']}/{hardware['wide_acc_bits']}"
    return Text(text, style="green" if fit["fits"] else "bold red")


def _verdict(document: Document) -> Text:
    """Say which width is safe, or which layers do not fit the hardware."""
    layers, hardware = document["layers"], document["hardware"]
    if not layers:
        return Text("no layer multiplies, so there is no accumulator to certify")
    basis = "for every input" if document["proof"] else "if no input leaves the ranges seen"
    if hardware is None:
        products, terms = (
            max(layers, key=lambda layer: layer[name]) for name in ("exact_bits", "term_bits")
        )
        return Text(
            f"{products['exact_bits']} bits hold every sum of products"
            f" ({shorten(products['name'], 30)}), {terms['term_bits']} every sum of signed powers"
            f" of two, {basis}",
            style="green" if document["proof"] else "yellow",
        )
    misfits = [layer for layer in layers if not layer["hardware"]["fits"]]
    where = _accumulator_text(hardware)
    if not misfits:
        widest = max(layers, key=lambda layer: layer["hardware"]["bits_needed"])
        return Text(
            f"all {len(layers)} layers fit {where}, {basis}; the widest needs"
            f" {widest['hardware']['bits_needed']} bits ({shorten(widest['name'], 30)})",
            style="green" if document["proof"] else "yellow",
        )
    names = [
        f"{shorten(layer['name'], 30)} ({layer['hardware']['bits_needed']} bits)"
        for layer in misfits[:NAMED_LAYERS]
    ]
    if len(misfits) > NAMED_LAYERS:
        names.append(f"{len(misfits) - NAMED_LAYERS} more")
    return Text(
        f"{len(misfits)} of {len(layers)} layers do not fit {where}: {', '.join(names)}",
        style="bold red",
    )


def _accumulator_text(hardware: Document) -> str:
    text = f"the {hardware['acc_bits']} bits of {hardware['name']}"
    if hardware["spill_interval"]:
        text += (
            f" spilling every {hardware['spill_interval']} steps into"
            f" {hardware['wide_acc_bits']} bits"
        )
    return text
