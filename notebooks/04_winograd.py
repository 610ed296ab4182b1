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
# # What does integer Winograd really save?
#
# F(2x2, 3x3) takes 2.25 times fewer products than a 3 x 3 convolution, F(4x4, 3x3) four times
# fewer. Done in integers both are exact, bit for bit. But products are not cycles: operands and
# accumulators get wider, transformed weights are neither 2-hot nor ternary any more, and the
# transforms move data. This notebook follows the saving from products to cycles and energy, on
# arrays of multipliers, of serial shift-add PEs and of ternary PEs.
#
# `docs/winograd.md` has the arithmetic, `docs/winograd_unit.md` the hardware (rules W).

# %%
# %matplotlib inline
from dataclasses import asdict

import numpy as np
from matplotlib import pyplot as plt

import napier
from golden.formats import bits_needed
from golden.network import Conv2D, Network, Padding, Requantization, Tensor
from golden.run import run as run_golden
from golden.winograd import (
    certify_winograd,
    choose_named,
    transformed_weights,
    type_ranges,
    weight_terms,
    winograd,
)
from napier.loading import shipped_file
from simulator.hardware import hardware_from_dict, with_winograd
from simulator.projection import project_weights

FORMS = {"f2": winograd(2, 3), "f4": winograd(4, 3)}
INT8 = (-128, 127)
COLORS = {"off": "#999999", "f2": "#2f6690", "f4": "#bc4b51", "auto": "#6a994e"}
LABELS = {"off": "direct", "f2": "F2", "f4": "F4", "auto": "auto"}

# %% [markdown]
# ## Widths
#
# Worst cases over all int8 operands and all weights from -127 to 127, summed over 64 channels. V is
# a transformed operand, U a transformed weight, Z the output times the divisor. Every stage may
# wrap: modulo 2^P all of it is exact, and the division is exact if the output y fits P - t bits
# (t = 2 for F2, 6 for F4). So `wrap` is all that an accumulator needs, whatever `sum` says.

# %%
STAGES = {"V": "input", "U": "weight", "U*V": "product", "sum": "sum", "Z": "output", "y": "direct"}
print(f"{'':24}" + "".join(f"{stage:>6}" for stage in STAGES) + "  wrap")
for form, transform in FORMS.items():
    ranges = type_ranges(transform, INT8, (-127, 127), channels=64)
    widths = [bits_needed(*ranges[stage]) for stage in STAGES.values()]
    print(
        f"{LABELS[form]:3} int8, 64 channels    "
        + "".join(f"{width:6}" for width in widths)
        + f"{widths[-1] + transform.shift:6}"
    )

# %% [markdown]
# The same for the 3 x 3 layers of the digits network that ships with Napier, from their own
# weights: as they are, projected to 2-hot, projected to ternary. `steps` is what
# an array without any overhead would save: of products; of signed powers of two; of additions,
# which are |u| for a transformed weight u. Zeros cost nothing on any of them.

# %%
network = napier.load_model(None)
WEIGHTS = {"mac": "as-is", "2-hot": "nhot:2", "ternary": "ternary"}


def certificate_of(candidate, layer, form):
    """Exact widths of a layer that the form computes, else None."""
    if choose_named(layer, form).transform is None:
        return None
    if layer.weights.shape[1:3] != (3, 3) or layer.groups != 1:
        return None
    source = candidate.tensors[layer.inputs[0]]
    return certify_winograd(layer, source, INT8, FORMS[form])


def convolutions(candidate):
    return [layer for layer in candidate.layers if isinstance(layer, Conv2D)]


def steps_saved(name, form, weights):
    """Steps of the direct sum for each one of the transform."""
    transform = FORMS[form]
    if name == "2-hot":
        return weight_terms(transform, weights).saving
    direct, u = weights, transformed_weights(transform, weights)
    if name == "mac":
        direct, u = direct != 0, u != 0
    outputs = transform.outputs[0] * transform.outputs[1]
    return outputs * np.abs(direct).sum() / np.abs(u).sum()


print(f"{'':22}" + "".join(f"{stage:>6}" for stage in STAGES) + "  wrap  steps")
for name, weights in WEIGHTS.items():
    projected = project_weights(network, weights)
    for layer in convolutions(projected):
        for form in FORMS:
            certificate = certificate_of(projected, layer, form)
            if certificate is None:
                continue
            saved = steps_saved(name, form, layer.weights.astype(np.int64))
            print(
                f"{name:8} {layer.name:9} {LABELS[form]:3}"
                + "".join(f"{certificate.bits(stage).max():6}" for stage in STAGES.values())
                + f"{certificate.wrapped_bits.max():6}{saved:6.2f}x"
            )

# %% [markdown]
# ## Machines
#
# A machine with Winograd units is wider everywhere (rule W9). To be fair to each form, every
# machine below gets exactly the accumulators that its form needs for the network at hand: the
# widest y for the direct sum, and 2 or 6 bits more for F2 and F4. What this does to one multiplier,
# whose energy goes with the product of its widths:


# %%
def machine(name, use, acc_bits, **changes):
    """Hardware with one form's units and accumulators; changes are lanes, chunks, memory."""
    settings = napier.load_hardware(name).model_dump()
    settings["array"]["acc_bits"] = acc_bits
    for place, value in changes.items():
        table, key = place.split("__")
        settings[table][key] = value
    return with_winograd(hardware_from_dict(settings), use)


direct_area = None
for form, products in {"off": 9, "f2": 16 / 4, "f4": 36 / 16}.items():
    built = machine("mac4x4", form, 24)
    area = built.operand_bits * built.weight_operand_bits
    direct_area = direct_area or 9 * area
    print(
        f"{LABELS[form]:7} {built.operand_bits:2} x {built.weight_operand_bits:2} bits,"
        f" {products:4} products an output: {9 / products:4.2f}x fewer products,"
        f" {direct_area / (products * area):4.2f}x fewer bit products"
    )

# %% [markdown]
# So most of the saving is gone before the first cycle, in the energy of multiplications. A PE that
# adds shifted operands pays for V only.
#
# ## A small network
#
# The digits network on 4 x 4 PEs: multipliers with the weights as they are, serial shift-add PEs
# (one signed power of two a cycle) with 2-hot weights, ternary PEs with ternary weights. Layers
# that a form cannot compute run directly. `auto` has both forms and takes, layer by layer, what has
# the fewest cycles. Outputs of 20 images are compared with the golden model's.

# %%
SMALL = {"mac": "mac4x4", "2-hot": "nhot2_4x4", "ternary": "ternary4x4"}
with np.load(shipped_file("digits_test.npz")) as archive:
    images = archive["images"][:20]


def accumulator_bits(candidate):
    """What the outputs of the 3 x 3 layers need, by form."""
    found = [certificate_of(candidate, layer, "f2") for layer in convolutions(candidate)]
    direct = max(int(each.bits("direct").max()) for each in found if each is not None)
    return {"off": direct, "f2": direct + 2, "f4": direct + 6, "auto": direct + 6}


small = {}
print(f"{'':13}  bits  cycles   steps     uJ  correct  computed by a form")
for name, weights in WEIGHTS.items():
    projected = project_weights(network, weights)
    expected = run_golden(projected, [images]).outputs[0]
    for use, acc_bits in accumulator_bits(projected).items():
        result = napier.simulate(
            projected, machine(SMALL[name], use, acc_bits), [images], weights="as-is"
        )
        small[name, use] = result
        taken = [layer.name for layer in result.layers if layer.algorithm != "direct"]
        print(
            f"{name:8} {LABELS[use]:6}{acc_bits:4}{result.cycles:8}{result.steps:8}"
            f"{result.energy_pj / 1e6:7.2f}  {np.array_equal(result.outputs[0], expected)!s:7}"
            f"  {', '.join(taken)}"
        )

# %% [markdown]
# All outputs are those of the direct sum. F2 takes fewer steps everywhere, and yet both forms are
# slower and cost more energy, on every array. `auto` sees it and computes everything directly; its
# cycles may still differ a little, because wider entries are cut into passes in other places.
# Why they lose, layer by layer:

# %%
for name in SMALL:
    for use in ("f2", "f4"):
        for direct, layer in zip(small[name, "off"].layers, small[name, use].layers, strict=True):
            if layer.algorithm != "direct":
                changes = {
                    cause: layer.timing.cycles_by_cause[cause] - cycles
                    for cause, cycles in direct.timing.cycles_by_cause.items()
                }
                most = sorted(changes.items(), key=lambda item: -abs(item[1]))[:4]
                print(
                    f"{name:8} {layer.name:8} {LABELS[use]}: {direct.timing.cycles:5} ->"
                    f" {layer.timing.cycles:5} cycles; "
                    + ", ".join(f"{cause} {change:+}" for cause, change in most)
                )
            elif layer.reason.startswith("its streams"):
                print(f"{name:8} {layer.name:8} {LABELS[use]}: direct, {layer.reason}")

# %%
CAUSES = {
    "PEs work": (("compute",), "#2f6690"),
    "drain": (("drain",), "#f4a259"),
    "start, feed": (("fill", "stall_feed", "control"), "#6a994e"),
    "wait for memory": (
        ("stall_descriptor", "stall_weights", "stall_activations", "stall_outputs"),
        "#bc4b51",
    ),
}
PARTS = {
    "compute": "#2f6690",
    "accumulator": "#8ab6d6",
    "sram": "#f4a259",
    "dram": "#bc4b51",
}


def cycle_parts(layers):
    return {
        label: sum(
            layer.timing.cycles_by_cause.get(cause, 0) for layer in layers for cause in group
        )
        for label, (group, _) in CAUSES.items()
    }


def energy_parts(layers):
    return {part: sum(asdict(layer.energy)[part] for layer in layers) / 1e6 for part in PARTS}


def stacked(axes, bars, colors):
    """Draw bars of parts from the bottom up."""
    bottom = np.zeros(len(bars))
    for part, color in colors.items():
        heights = np.array([bar[part] for bar in bars.values()])
        axes.bar(list(bars), heights, bottom=bottom, color=color, width=0.7, label=part)
        bottom += heights
    axes.spines[["top", "right"]].set_visible(False)


def draw_parts(results, uses, cycle_scale, unit):
    """One column for each array: cycles above, energy below."""
    figure, grid = plt.subplots(2, 3, figsize=(10, 6.2), sharey="row", layout="constrained")
    for column, name in enumerate(WEIGHTS):
        layers = {LABELS[use]: results[name, use].layers for use in uses}
        cycles = {
            label: {part: count / cycle_scale for part, count in cycle_parts(each).items()}
            for label, each in layers.items()
        }
        stacked(grid[0, column], cycles, {label: color for label, (_, color) in CAUSES.items()})
        stacked(grid[1, column], {k: energy_parts(v) for k, v in layers.items()}, PARTS)
        grid[0, column].set_title(name)
    grid[0, 0].set_ylabel(f"cycles of an inference{unit}")
    grid[1, 0].set_ylabel("energy of an inference, uJ")
    grid[0, 2].legend(frameon=False, fontsize=8)
    grid[1, 2].legend(frameon=False, fontsize=8)


draw_parts(small, LABELS, 1, "")

# %% [markdown]
# * **Drain.** The array hands over its results for each of the n x n products of a tile, not once
#   for a pixel. The stem has one input channel: a product at a time, and then 8 cycles of results.
# * **Memory.** There are 16 or 36 weights where there were 9, each in a wider entry, and they are
#   used for 16 pixels: four tiles of F2, one of F4. Transfers are nearly all of the energy.
# * **Rows.** Those 16 pixels are one tile of F4, so that one row of four works.
# * **Feed.** The engine begins when the first chunk is transformed (`stall_feed`).
# * **Buffers.** The streams of a tile cannot be cut, so that F4 does not even fit where a weight
#   takes an entry for each of its terms or additions.
#
# ## Layers that are large enough
#
# 3 x 3 layers as ResNet has them, on 16 x 16 PEs, with Gaussian weights. The shipped machines have
# 128 kB for weights, and the streams of 16 output channels must fit half of that at once when parts
# fire (rule W7):

# %%
SHAPES = {"64 ch, 56 x 56": (64, 56), "128 ch, 28 x 28": (128, 28), "256 ch, 14 x 14": (256, 14)}
LARGE = {"mac": "mac16x16", "2-hot": "nhot2_16x16", "ternary": "ternary16x16"}


def one_layer(name, channels, size):
    rng = np.random.default_rng(channels)
    weights = np.rint(rng.normal(0, 32, (channels, 3, 3, channels))).clip(-127, 127)
    layer = Conv2D(
        name=name,
        inputs=(0,),
        outputs=(1,),
        weights=weights.astype(np.int8),
        weight_bits=8,
        weight_zero_point=0,
        bias=None,
        input_zero_point=0,
        output_zero_point=0,
        requantization=Requantization(np.array([1 << 30], np.int32), np.array([-9], np.int32)),
        activation_min=-128,
        activation_max=127,
        padding=Padding(1, 1, 1, 1),
    )
    shape = (1, size, size, channels)
    tensors = tuple(Tensor(text, shape, "int8", 1.0) for text in ("x", "y"))
    return Network(name, tensors, (layer,), (0,), (1,))


def direct_bits(layer):
    """Bits of y over all int8 inputs; every tap is inside the image for some output."""
    w = layer.weights.astype(np.int64).reshape(len(layer.weights), -1)
    ends = np.minimum(w * -128, w * 127).sum(axis=1), np.maximum(w * -128, w * 127).sum(axis=1)
    return bits_needed(int(ends[0].min()), int(ends[1].max()))


layers = {
    (shape, name): project_weights(one_layer(shape, *sizes), weights)
    for shape, sizes in SHAPES.items()
    for name, weights in WEIGHTS.items()
}
needed = {key: direct_bits(each.layers[0]) for key, each in layers.items()}


def run_layer(shape, name, use, **changes):
    growth = {"off": 0, "f2": 2, "f4": 6}[use]
    built = machine(LARGE[name], use, needed[shape, name] + growth, **changes)
    return napier.simulate(layers[shape, name], built, values=False)


print(f"{'':8}" + "".join(f"{shape:>18}" for shape in SHAPES))
for name in LARGE:
    for use in FORMS:
        fits = [run_layer(shape, name, use).layers[0].algorithm == use for shape in SHAPES]
        cells = "".join(f"{'fits' if fit else 'does not fit':>18}" for fit in fits)
        print(f"{name:8}{LABELS[use]}{cells[2:]}")

# %% [markdown]
# From here on every machine, the direct ones too, has 2 MB for weights instead. First with what the
# units have by default: chunks of 144 words, 8 requantizers.
#
# What is saved, as a factor: **steps** of PEs (products, signed powers of two, signed additions),
# cycles of the **engine** alone, cycles with all transfers, and energy.

# %%
MEMORY = {"buffers__weight_bytes": 1 << 21}
TRANSFERS = CAUSES["wait for memory"][0]


def engine_cycles(result):
    causes = result.layers[0].timing.cycles_by_cause
    return result.cycles - sum(causes.get(cause, 0) for cause in TRANSFERS)


MEASURES = {
    "steps": lambda result: result.steps,
    "engine": engine_cycles,
    "cycles": lambda result: result.cycles,
    "energy": lambda result: result.energy_pj,
}


def savings(direct, result):
    return {label: of(direct) / of(result) for label, of in MEASURES.items()}


def measure_all(**changes):
    return {
        (shape, name, use): run_layer(shape, name, use, **MEMORY, **changes)
        for shape, name in layers
        for use in ("off", *FORMS)
    }


def print_savings(results):
    print(f"{'':26} bits" + "".join(f"{label:>8}" for label in MEASURES))
    for (shape, name, use), result in results.items():
        if use != "off":
            assert result.layers[0].algorithm == use
            saved = savings(results[shape, name, "off"], result)
            print(
                f"{name:8}{LABELS[use]:3} {shape:15}{result.hardware.array.acc_bits:4}"
                + "".join(f"{factor:7.2f}x" for factor in saved.values())
            )


def draw_savings(results):
    figure, grid = plt.subplots(1, 3, figsize=(10, 3.8), sharey=True, layout="constrained")
    for axes, name in zip(grid, WEIGHTS, strict=True):
        for place, (form, transform) in enumerate(FORMS.items()):
            ideal = float(transform.saving)
            axes.axhline(ideal, color=COLORS[form], linewidth=0.8, linestyle=":")
            for number, shape in enumerate(SHAPES):
                saved = savings(results[shape, name, "off"], results[shape, name, form])
                x = np.arange(len(MEASURES)) + 0.14 * (3 * place + number - 2.5)
                axes.bar(
                    x, saved.values(), 0.12, color=COLORS[form], alpha=1 - 0.3 * number,
                    label=f"{LABELS[form]}, {shape}",
                )  # fmt: skip
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set_xticks(np.arange(len(MEASURES)), MEASURES)
        axes.set_title(name)
        axes.spines[["top", "right"]].set_visible(False)
    grid[0].set_ylabel("direct / Winograd")
    handles, labels = (
        each[::3] + each[1::3] + each[2::3] for each in grid[0].get_legend_handles_labels()
    )
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)


default = measure_all()
print_savings(default)

# %% [markdown]
# Dotted: the products that each form saves. Above the black line Winograd wins.

# %%
draw_savings(default)

# %% [markdown]
# * Multipliers keep the factor in steps except where tiles hang over the border (14 is no multiple
#   of 4).
# * On the **serial** array the terms decide. The transform mixes the weights of a kernel and makes
#   2-hot ones into numbers of more terms:

# %%
for (shape, name), each in layers.items():
    if name == "2-hot":
        weights = each.layers[0].weights.astype(np.int64)
        counted = {form: weight_terms(transform, weights) for form, transform in FORMS.items()}
        direct = counted["f2"].direct_per_output / 9
        print(
            f"{shape:15} mean terms of a weight: direct {direct:.2f}"
            + "".join(
                f", {LABELS[form]} {terms.mean:.2f} (saves {terms.saving:.2f}x)"
                for form, terms in counted.items()
            )
        )

# %% [markdown]
# * The **ternary** array adds a transformed weight u in |u| steps, and half of the zeros that it
#   skips are gone after the transform. F2 saves little in steps; F4 takes more than the direct sum.
#
# ## What limits
#
# Where the cycles and the energy of the first shape go:

# %%
FIRST = next(iter(SHAPES))
draw_parts(
    {(name, use): result for (shape, name, use), result in default.items() if shape == FIRST},
    ("off", *FORMS),
    1000,
    ", thousands",
)

# %% [markdown]
# The waits and the drain are what F4 pays for its few steps. In energy it is the memories: an
# operand is written and read twice on its way to the array, again for each 16 output channels, and
# m x m sums are read and written for each product that the array hands over.
#
# Two settings of the units matter. A chunk of `chunk_words` transformed words holds
# chunk_words / (n x n) words of 4 channels: the longer it is, the more work between two drains, and
# the less often sums are read and written back; but the memory gets larger, and each access costs
# more. And as many requantizers as rows halve the drain. The sweep, again for the first shape:

# %%
CHUNKS = (72, 144, 288, 576, 1152)
LANES = {8: "-", 16: "--"}
sweep = {
    (name, use, lanes, chunk): run_layer(
        FIRST, name, use, **MEMORY, post__lanes=lanes, winograd__chunk_words=chunk
    )
    for name in LARGE
    for use in FORMS
    for lanes in LANES
    for chunk in CHUNKS
}
figure, grid = plt.subplots(2, 3, figsize=(10, 6), sharex=True, sharey="row", layout="constrained")
for column, name in enumerate(LARGE):
    base = default[FIRST, name, "off"]
    for row, (label, of) in enumerate(list(MEASURES.items())[2:]):
        axes = grid[row, column]
        axes.axhline(1, color="black", linewidth=0.8)
        for use in FORMS:
            for lanes, style in LANES.items():
                factors = [of(base) / of(sweep[name, use, lanes, chunk]) for chunk in CHUNKS]
                axes.plot(
                    CHUNKS, factors, style, color=COLORS[use], marker=".",
                    label=f"{LABELS[use]}, {lanes} requantizers",
                )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_xticks(CHUNKS, CHUNKS, fontsize=8)
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
        if column == 0:
            axes.set_ylabel(f"{label}: direct / Winograd")
    grid[0, column].set_title(name)
    grid[1, column].set_xlabel("chunk_words")
handles, labels = grid[0, 0].get_legend_handles_labels()
_ = figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)

# %% [markdown]
# ## Tuned
#
# 16 requantizers for everyone, the direct machines too, and for each array, layer and form the
# chunks with the smallest product of cycles and energy.

# %%
tuned, chosen = {}, {}
for shape, name in layers:
    tuned[shape, name, "off"] = run_layer(shape, name, "off", **MEMORY, post__lanes=16)
    for use in FORMS:
        tried = {
            chunk: sweep[name, use, 16, chunk]
            if shape == FIRST
            else run_layer(shape, name, use, **MEMORY, post__lanes=16, winograd__chunk_words=chunk)
            for chunk in CHUNKS[2:]
        }
        best = min(tried, key=lambda chunk: tried[chunk].cycles * tried[chunk].energy_pj)
        chosen[shape, name, use], tuned[shape, name, use] = best, tried[best]
print_savings(tuned)
for use in FORMS:
    taken = sorted({chunk for (_, _, form), chunk in chosen.items() if form == use})
    print(f"chunk_words for {LABELS[use]}: {', '.join(map(str, taken))}")

# %%
draw_savings(tuned)

# %% [markdown]
# What is left between the engine and all cycles is memory. Bytes that the weights take on their
# way, and cycles that the array waits for them and for the inputs:

# %%
for shape, name, use in tuned:
    timing = tuned[shape, name, use].layers[0].timing
    causes = timing.cycles_by_cause
    print(
        f"{name:8}{LABELS[use]:7}{shape:16} weights"
        f" {timing.events.weight_load_bytes / 1e6:5.2f} MB,"
        f" waits {causes['stall_weights'] / timing.cycles:5.1%} for weights,"
        f" {causes['stall_activations'] / timing.cycles:5.1%} for inputs"
    )

# %% [markdown]
# ## VGG-16, and who chooses
#
# The shipped `winograd16x16` has memories for the 3 x 3 layers of VGG-16. `auto` takes, layer by
# layer, what has the fewest cycles, or the least energy (`napier run --winograd-by energy`),
# against the direct mode of the same machine:

# %%
VGG = {"64 ch, 224 x 224": (64, 224), "256 ch, 56 x 56": (256, 56), "512 ch, 28 x 28": (512, 28)}


def run_vgg(shape, use, choose_by="cycles"):
    hardware = with_winograd(napier.load_hardware("winograd16x16"), use, choose_by)
    return napier.simulate(one_layer(shape, *VGG[shape]), hardware, values=False)


chosen_by = {}
for shape in VGG:
    for choose_by in ("cycles", "energy"):
        direct, auto = run_vgg(shape, "off"), run_vgg(shape, "auto", choose_by)
        saved = savings(direct, auto)
        chosen_by[shape, choose_by] = auto.layers[0].algorithm, saved
        print(
            f"{shape:18} by {choose_by:7} {auto.layers[0].algorithm:7}"
            f" {saved['cycles']:5.2f}x cycles {saved['energy']:5.2f}x energy"
        )

# %% [markdown]
# ## What survives
#
# Smallest and largest factor over the three layers, with tuned units, and the accumulators:

# %%
print(f"{'':18}{'steps':>13}{'engine':>13}{'cycles':>13}{'energy':>13}  accumulator")
for name in LARGE:
    for use in FORMS:
        saved = [savings(tuned[shape, name, "off"], tuned[shape, name, use]) for shape in SHAPES]
        cells = [
            f"{min(each[label] for each in saved):.2f}-{max(each[label] for each in saved):.2f}"
            for label in MEASURES
        ]
        growth = {
            tuned[shape, name, use].hardware.array.acc_bits
            - tuned[shape, name, "off"].hardware.array.acc_bits
            for shape in SHAPES
        }
        print(
            f"{name:8}{LABELS[use]} of {FORMS[use].saving!s:4}"
            + "".join(f"{cell:>13}" for cell in cells)
            + f"  +{growth.pop()} bits"
        )

# %% [markdown]
# In words; the next cell checks every sentence.
#
# * **Multipliers** keep the saving of products in steps, and most of it in engine cycles. On the
#   two larger images both forms gain cycles, but F4 little more than F2, for its 4 instead of 2.25:
#   drain, loads and weights take the rest. On the smallest image F4 is slower than the direct sum.
# * **2-hot** serial arrays begin with less, about 1.7 and 2.6, because transformed weights have
#   more terms. But a longer computation hides the overhead better: cycles keep a larger part of
#   the saving in steps than with multipliers, and both forms gain on every layer.
# * **Ternary** arrays gain a few percent by F2 at best, and F4 takes about twice the cycles.
# * **Energy** is not saved in any of these cases. What multipliers and accumulators save is less
#   than what the memories of the transforms and the traffic of the weights cost. F2 comes close to
#   the direct sum on the largest image, with multipliers and with 2-hot weights.
# * **Accumulators** have to hold 2 or 6 bits more than the direct sum's.
# * On a **large image** of VGG-16 F4 has 3 times fewer cycles and takes a little less energy than
#   the machine's own direct mode; on the others of its layers only cycles are saved.
# * In the **small network** both forms lose on every array, and `auto` takes neither.
#
# All of this is for one image at a time, for int8 codes, for these machines and the shipped energy
# table. Weights that stay on the chip for many images would spare the small images their waits.

# %%
gain = {
    (SHAPES[shape][1], name, use): savings(tuned[shape, name, "off"], result)
    for (shape, name, use), result in tuned.items()
    if use != "off"
}
SIZES, LARGER = (56, 28, 14), (56, 28)
for size in SIZES:
    assert 2.2 < gain[size, "mac", "f2"]["steps"] <= 2.25
    assert gain[size, "mac", "f2"]["engine"] > 0.75 * 2.25
    assert gain[size, "mac", "f4"]["engine"] > 0.65 * 4
    assert 1.65 < gain[size, "2-hot", "f2"]["steps"] < 1.75
    assert gain[size, "ternary", "f2"]["cycles"] < 1.1
    assert 0.4 < gain[size, "ternary", "f4"]["cycles"] < 0.6
    for use in FORMS:
        assert gain[size, "2-hot", use]["cycles"] > 1
        kept = {
            name: gain[size, name, use]["cycles"] / gain[size, name, use]["steps"] for name in LARGE
        }
        assert kept["2-hot"] > kept["mac"]
for size in LARGER:
    assert 1.5 < gain[size, "mac", "f2"]["cycles"] < gain[size, "mac", "f4"]["cycles"]
    assert gain[size, "mac", "f4"]["cycles"] < 1.3 * gain[size, "mac", "f2"]["cycles"]
    assert 2.55 < gain[size, "2-hot", "f4"]["steps"] < 2.7
assert gain[14, "mac", "f4"]["cycles"] < 1
assert all(each["energy"] < 1 for each in gain.values())
assert all(gain[56, name, "f2"]["energy"] > 0.9 for name in ("mac", "2-hot"))
first, *others = VGG
assert chosen_by[first, "cycles"][0] == chosen_by[first, "energy"][0] == "f4"
assert chosen_by[first, "cycles"][1]["cycles"] > 3
assert 1 < chosen_by[first, "energy"][1]["energy"] < 1.1
for shape in others:
    assert chosen_by[shape, "cycles"][1]["cycles"] > 2
    assert chosen_by[shape, "energy"][0] == "direct"
for shape in SHAPES:
    before, *after = (energy_parts(tuned[shape, "mac", use].layers) for use in ("off", *FORMS))
    for parts in after:
        saved = sum(before[part] - parts[part] for part in ("compute", "accumulator"))
        assert 0 < saved < sum(parts[part] - before[part] for part in ("sram", "dram"))
for name in SMALL:
    for use in FORMS:
        assert small[name, use].cycles > small[name, "off"].cycles
        assert small[name, use].energy_pj > small[name, "off"].energy_pj
    assert all(layer.algorithm == "direct" for layer in small[name, "auto"].layers)
print("checked")
