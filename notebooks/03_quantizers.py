# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What does a quantizer buy?
#
# A quantizer is judged by accuracy and bits. On an array it also decides cycles, energy and how
# wide accumulators must be. This notebook puts every method that Napier has on the same network
# (the digits that ship with it) and the same arrays, and draws accuracy against each of these.
#
# First, all methods **after training**: the weights are projected, nothing is learned. Then the
# same for networks that were **fine-tuned** with the projection in place.

# %%
# %matplotlib inline
import json
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

import napier
from golden.certificates import certify
from golden.errors import HardwareError
from golden.files import load_network
from golden.network import WeightedLayer
from golden.quantization.calibrate import Settings, WeightSettings, quantize_network
from golden.quantization.from_integer import dequantize
from golden.quantization.registry import parse_method
from golden.ranges import clamp_ranges
from golden.run import run as run_golden
from napier.loading import shipped_file

network = napier.load_model(None)
real = dequantize(network)
with np.load(shipped_file("digits_test.npz")) as archive:
    images, labels = archive["images"], archive["labels"]
calibration = real.parameters[0].reals(images[:100])
test_images, test_labels = images[100:], labels[100:]

# %% [markdown]
# ## Methods
#
# Name, settings behind the colon, bits of a code. Scales of activations are those of the INT8
# network in every case, so that only the weights differ. `docs/quantizers.md` says what each does.

# %%
UNIFORM = ["uniform@8", "uniform@6", "uniform@5", "uniform@4", "easyquant@7"]
SHIFTS = ["nhot:n=3@8", "nhot:n=2@8", "nhot:n=1@8", "deepshift@8", "pot@8", "apot@8"]
TERNARY = ["ternary@8", "twn@8", "absmean@8", "ttq@8", "fgq@8"]
SCALES = ["vsquant@8", "multipoint@8"]
FAMILIES = {
    "uniform": (UNIFORM, "#2f6690", "o"),
    "powers of two": (SHIFTS, "#f4a259", "s"),
    "ternary": (TERNARY, "#bc4b51", "^"),
    "several scales": (SCALES, "#6a994e", "D"),
}


def quantized(text):
    name, _, bits = text.partition("@")
    method, options = parse_method(name)
    settings = Settings(WeightSettings(method, options, int(bits)))
    return quantize_network(real.network, settings, [calibration], real.parameters)


# %% [markdown]
# ## What is measured
#
# * **accuracy** on 400 images that no scale was chosen by, by the golden model: integers only.
# * **cycles and energy** of one inference by the cycle model, on 4 x 4 PEs of four kinds: a
#   multiplier; serial shift-add, one signed power of two a cycle; parallel shift-add, two of them a
#   cycle; ternary. An array that cannot hold a weight of the network refuses it.
# * **size** of the weights in the method's own encoding, with scales and biases of 32 bits.
# * **accumulator**: the bits that provably hold every sum, for every input.

# %%
ARRAYS = {
    "mac": napier.load_hardware("mac4x4"),
    "serial": napier.load_hardware("nhot2_4x4"),
    "parallel": napier.load_hardware("nhot2_parallel_4x4"),
    "ternary": napier.load_hardware("ternary4x4"),
}


def accuracy(candidate):
    codes = run_golden(candidate, [test_images]).outputs[0]
    return float(np.mean(np.argmax(codes, axis=1) == test_labels))


def accumulator_bits(candidate):
    ranges = clamp_ranges(candidate)
    return max(
        int(
            certify(
                layer, candidate.tensors[layer.inputs[0]], ranges[layer.inputs[0]]
            ).exact_bits.max()
        )
        for layer in candidate.layers
        if isinstance(layer, WeightedLayer)
    )


def cost(candidate, hardware):
    try:
        result = napier.simulate(candidate, hardware, values=False).to_dict()["totals"]
    except HardwareError:
        return None
    return {"cycles": result["cycles"], "energy_uj": result["energy_pj"] / 1e6}


def measured(candidate, storage_bits):
    channels = sum(len(x.weights) for x in candidate.layers if isinstance(x, WeightedLayer))
    return {
        "accuracy": accuracy(candidate),
        "size_kb": (storage_bits + 64 * channels) / 8000,
        "bits": accumulator_bits(candidate),
        **{name: cost(candidate, hardware) for name, hardware in ARRAYS.items()},
    }


def row(text, point):
    cells = [
        "       -     -" if point[name] is None
        else f"{point[name]['cycles']:8} {point[name]['energy_uj']:5.2f}"
        for name in ARRAYS
    ]  # fmt: skip
    return (
        f"{text:12} {point['accuracy']:6.1%} {point['size_kb']:5.2f} {point['bits']:4}"
        + "".join(cells)
    )


HEADER = f"{'':12} {'':6} {'':5} {'':4}" + "".join(f"{name:>14}" for name in ARRAYS)
HEADER += f"\n{'':12} {'':>6} {'kB':>5} bits" + "  cycles    uJ" * len(ARRAYS)

# %%
projected = {}
print(HEADER)
for methods, _, _ in FAMILIES.values():
    for text in methods:
        result = quantized(text)
        storage = sum(codes.storage_bits for codes in result.weights.values())
        projected[text] = measured(result.network, storage)
        print(row(text, projected[text]))

# %% [markdown]
# ## Fine-tuned
#
# Training takes minutes and PyTorch, so it is not run here: `python -m scripts.finetune_digits`
# made these networks and stored them beside this notebook with their seeds, epochs and losses
# (`docs/finetuning.md`). They are integer networks; everything about them is measured here.
# `a2q+:P` keeps weights, while they learn, where accumulators of P bits hold every sum.

# %%
FOLDER = Path("finetuned")
documents = json.loads((FOLDER / "finetuned.json").read_text())
BASES = {"a2q+:16": "uniform@8", "a2q+:14": "uniform@8"}  # whose encoding the weights have
tuned = {}
print(HEADER)
for name, document in documents.items():
    text = document["method"]
    base = BASES.get(text, f"{text}@8")
    channels = sum(len(x.weights) for x in network.layers if isinstance(x, WeightedLayer))
    storage = projected[base]["size_kb"] * 8000 - 64 * channels
    tuned[text] = measured(load_network(FOLDER / f"{name}.npz"), storage)
    print(row(text, tuned[text]))

# %% [markdown]
# What training won back, on the same 400 images:

# %%
for text, point in tuned.items():
    before = projected.get(f"{text}@8")
    was = "" if before is None else f"{before['accuracy']:6.1%} projected, "
    print(f"{text:9} {was}{point['accuracy']:6.1%} fine-tuned")

# %% [markdown]
# ## The Pareto figure
#
# Accuracy against what it costs. Open markers: projected after training; filled: fine-tuned, joined
# to the same method before. The gray line is the Pareto front of all of them: nothing is both
# cheaper and more accurate. Cycles are those of the serial shift-add array, which takes every
# network; energy is that of whichever array needs least for the network.


# %%
def least_energy(point):
    return min(point[name]["energy_uj"] for name in ARRAYS if point[name] is not None)


AXES = {
    "cycles of an inference, serial shift-add": lambda point: point["serial"]["cycles"],
    "energy of an inference, best array, uJ": least_energy,
    "weights, scales and biases, kB": lambda point: point["size_kb"],
    "accumulator that holds every sum, bits": lambda point: point["bits"],
}


FAMILY = {
    text.partition("@")[0]: name for name, (texts, _, _) in FAMILIES.items() for text in texts
}


def style(text):
    """Colour and marker of a method; a2q+ is uniform."""
    return FAMILIES[FAMILY.get(text.partition("@")[0], "uniform")][1:]


def front(points):
    """Points that no other one beats at both ends, by cost."""
    kept = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not kept or y > kept[-1][1]:
            kept.append((x, y))
    return kept


figure, grid = plt.subplots(2, 2, figsize=(10, 7.5), sharey=True, layout="constrained")
for axes, (label, of) in zip(grid.flat, AXES.items(), strict=True):
    everything = [(of(p), p["accuracy"]) for p in [*projected.values(), *tuned.values()]]
    axes.step(*zip(*front(everything), strict=True), where="post", color="#bbbbbb", zorder=0)
    for text, point in projected.items():
        color, marker = style(text)
        axes.plot(of(point), point["accuracy"], marker, mfc="none", color=color)
    for text, point in tuned.items():
        color, marker = style(text)
        before = projected.get(f"{text}@8")
        if before is not None:
            ends = [of(before), of(point)], [before["accuracy"], point["accuracy"]]
            axes.plot(*ends, color=color, linewidth=0.7, linestyle=":")
        axes.plot(of(point), point["accuracy"], marker, color=color)
    axes.set_xlabel(label)
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.spines[["top", "right"]].set_visible(False)
for axes in grid[:, 0]:
    axes.set_ylabel("accuracy")
for name, (_, color, marker) in FAMILIES.items():
    grid[0, 0].plot([], [], marker, color=color, label=name)
_ = figure.legend(loc="outside lower center", ncols=4, frameon=False)

# %% [markdown]
# The same near the top, with names. Points that coincide share a label.

# %%
named = [(text.removesuffix("@8"), text, point, "none") for text, point in projected.items()]
named += [(f"{text} tuned", text, point, None) for text, point in tuned.items()]
near = [entry for entry in named if entry[2]["accuracy"] > 0.945]
figure, grid = plt.subplots(2, 2, figsize=(11, 9), sharey=True, layout="constrained")
for axes, (label, of) in zip(grid.flat, AXES.items(), strict=True):
    width = np.ptp([of(point) for _, _, point, _ in near])
    places = {}
    for label_text, text, point, fill in near:
        color, marker = style(text)
        axes.plot(of(point), point["accuracy"], marker, mfc=fill or color, color=color)
        place = round(16 * of(point) / width), point["accuracy"]
        places.setdefault(place, []).append((label_text, of(point), color))
    for (_, y), group in places.items():
        names = ", ".join(text for text, *_ in group)
        axes.annotate(
            names, (group[0][1], y), fontsize=7, color=group[0][2], rotation=20,
            xytext=(4, 3), textcoords="offset points",
        )  # fmt: skip
    axes.margins(x=0.25, y=0.12)
    axes.set_xlabel(label)
    axes.yaxis.set_major_formatter("{x:.1%}")
    axes.spines[["top", "right"]].set_visible(False)
for axes in grid[:, 0]:
    axes.set_ylabel("accuracy")

# %% [markdown]
# ## What the figure says
#
# * Two signed powers of two a weight lose nothing here, even without training; one loses everything
#   without training, and two points with it.
# * Fine-tuned ternary weights take a quarter of the memory and accumulators of 15 bits instead of
#   21, and the ternary array needs two thirds of the energy, for about one point of accuracy.
# * Training for an accumulator of 14 bits (a2q+) makes 83 % of the weights zero, and arrays that
#   skip zeros gain more cycles and energy by that than by anything else.
# * Two scales (ttq) are 8-bit codes to an integer array: they save memory, but neither accumulator
#   bits nor shifts. The same is true of scales within a channel (vsquant, fgq, multipoint).
# * Serial shift-add PEs need less energy than multipliers only where weights have hardly more than
#   one signed power of two.
#
# One image is a quarter of a point on these 400, so half a point between two methods says little;
# and on a network of 7,824 weights the transfers cost as much as the sums.
