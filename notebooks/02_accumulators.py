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
# # How wide must an accumulator be?
#
# A PE adds products of 8-bit operands, hundreds of them, and somebody has to say how many bits the
# sum gets. Too few and it overflows; too many and every step pays for them. This notebook follows
# the digits network that ships with Napier from the usual rule of thumb to a proof, shows the input
# that the proof is about, goes below the proved width, and ends with a network that needs less.

# %%
# %matplotlib inline
import numpy as np
from matplotlib import pyplot as plt

import napier
from golden.accumulate import Accumulator, accumulate_layer
from golden.certificates import witness
from golden.fitting import fit_network
from golden.ranges import clamp_ranges
from golden.run import run as run_golden
from napier.loading import Samples, shipped_file
from napier.orders import orders_document
from napier.width_plots import widths_figure
from napier.width_search import search_widths
from napier.width_sweep import Sweep, run_sweep
from napier.widths import proved_widths, sums_histogram, widest_layer, widths_document

network = napier.load_model(None)
with np.load(shipped_file("digits_test.npz")) as archive:
    images, labels = archive["images"], archive["labels"]
samples = Samples((images,), "500 test images")

# %% [markdown]
# ## From what is known about the weights
#
# * **datatype bound**: nothing is known but the element types and the number of products (taps).
# * **l1 bound** (A2Q, Colbert et al. 2023): the sum of the magnitudes of the weights is known.
# * **exact**: every weight is known, and so is the interval of every operand. The largest sum takes
#   the operand's upper end where the weight is positive and its lower end where it is negative.
# * **observed**: what 500 images needed. No proof: another image may need more.

# %%
document = widths_document(network, "clamp", samples)
print(f"{'layer':10} taps  datatype  l1  exact  observed")
for layer in document["layers"]:
    print(
        f"{layer['name']:10} {layer['taps']:4} {layer['datatype_bits']:9} {layer['l1_bits']:3}"
        f" {layer['exact_bits']:6} {layer['observed_bits']:9}"
    )
proved_bits = max(layer["exact_bits"] for layer in document["layers"])
print(f"\n{proved_bits} bits hold every sum of this network, for every input")

# %%
document["histogram"] = sums_histogram(network, samples, widest_layer(document))
widths_figure(document)

# %% [markdown]
# On the right are all final sums of the layer that needs most, counted by the bits that each needs.
# The distance from the bars to the blue lines is the price of a proof: images do not look like the
# worst case.

# %% [markdown]
# ## The worst case is an input
#
# A bound that nothing reaches could still be too wide. For every layer `napier widths --witness`
# writes the input that drives its worst channel to the very end of the proved interval. Here it is
# for the widest layer: the codes that one output reads, channel by channel.

# %%
index = widest_layer(document)
layer, tensor = network.layers[index], network.layers[index].inputs[0]
(entry,) = (entry for entry in document["layers"] if entry["index"] == index)
extreme = "hi" if entry["hi"] > -entry["lo"] - 1 else "lo"
worst = witness(layer, network.tensors[tensor], clamp_ranges(network)[tensor], extreme)
row, column = worst.position
print(f"{layer.name}: channel {worst.channel} at row {row}, column {column} sums to {worst.value}")
for bits in (entry["exact_bits"], entry["exact_bits"] - 1):
    found = accumulate_layer(layer, worst.codes, Accumulator(bits, "wrap"))
    value = found.value[0, row, column, worst.channel]
    events = found.events[0, row, column, worst.channel]
    print(f"{bits} bits: the accumulator holds {value} after {events} overflows")

# %%
figure, grid = plt.subplots(2, 8, figsize=(9, 2.6))
figure.suptitle("witness: 3 x 3 codes of 16 channels, black -128, white 127", fontsize=10)
for channel, axes in enumerate(grid.flat):
    axes.imshow(worst.patch[:, :, channel], cmap="gray", vmin=-128, vmax=127)
    axes.set(xticks=[], yticks=[])

# %% [markdown]
# ## Below the proved width
#
# The same images through accumulators of fewer bits, in every layer. Where a sum leaves the range,
# an accumulator either wraps around or stays at its end (saturates). What is wrong goes on through
# the network.

# %%
sweep = Sweep(network, samples, napier.load_hardware("mac4x4"), 15, 20, labels)
swept = run_sweep(sweep)
print("bits  rule      overflows  images changed  accuracy")
for point in swept["points"]:
    print(
        f"{point['acc_bits']:4}  {point['acc_overflow']:8} {point['events']:10}"
        f" {point['samples_changed']:15} {point['accuracy']:9.1%}"
    )

# %%
figure, axes = plt.subplots(figsize=(6, 3.2))
for rule, marker in (("wrap", "o"), ("saturate", "s")):
    points = [point for point in swept["points"] if point["acc_overflow"] == rule]
    axes.plot(
        [point["acc_bits"] for point in points],
        [point["accuracy"] for point in points],
        marker=marker,
        label=rule,
    )
axes.axvline(proved_bits, color="#444444", linestyle="--", label="proved")
axes.set_xlabel("accumulator, bits")
axes.set_ylabel("accuracy")
axes.yaxis.set_major_formatter("{x:.0%}")
axes.legend(frameon=False)
axes.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# A sum that wraps comes out with the wrong sign; one that saturates is only too small. The
# saturating accumulator therefore fails later. But a wrapping one may leave its range on the way
# and come back, and then the sum is right.
#
# ## A width for each layer
#
# Layers need not have the same width. A greedy search lowers them one after the other, as long as
# accuracy stays within one percent point. It is a search on these images: neither a proof nor an
# optimum. Energy is that of the accumulators' adders and registers in one inference.

# %%
half = Samples((images[:250],), "250 test images")
sweep = Sweep(network, half, napier.load_hardware("mac4x4"), 17, 19, labels[:250])
points = run_sweep(sweep)["points"]
search = search_widths(
    sweep, points, proved_widths(document), is_proof=document["proof"], tolerance=1.0
)
proved = search["proved"]
print(f"proved    {proved['layer_bits']} {proved['accumulator_pj'] / 1e3:.1f} nJ")
for rule in search["rules"]:
    greedy = rule["greedy"]
    print(
        f"{rule['acc_overflow']:9} {greedy['layer_bits']} {greedy['accumulator_pj'] / 1e3:.1f} nJ,"
        f" accuracy {greedy['score']:.1%} of {search['reference']:.1%}"
    )

# %% [markdown]
# ## Order of additions
#
# At the proved width the order cannot matter. Below it, it decides how many sums that would fit
# leave the range on the way. Sorted addends (a negative one while the sum is positive, else a
# positive one) never do as long as every addend fits. *Transient* counts outputs that overflowed
# though their final sum fits.

# %%
few = Samples((images[:20],), "20 test images")
print("bits  rule      order     transient  wrong sums")
for point in orders_document(Sweep(network, few, napier.load_hardware("mac4x4"), 16, 17)):
    print(
        f"{point['acc_bits']:4}  {point['acc_overflow']:8}  {point['order']:8}"
        f" {point['transient']:10} {point['outputs_wrong']:11}"
    )

# %% [markdown]
# When wrapping, the order makes no difference to the sums that come out wrong: those whose final
# value does not fit. When saturating it does, for what was cut off on the way is lost.
#
# ## A network for the accumulator
#
# The other way round: `napier fit` moves the weights, without training, until a given width is
# proved for every input. It is calibrated here on one half of the images and judged on the other.

# %%
other_images, other_labels = images[250:], labels[250:]


def accuracy(candidate):
    codes = run_golden(candidate, [other_images]).outputs[0]
    return float(np.mean(np.argmax(codes, axis=1) == other_labels))


print(f"as it is: {proved_bits} bits proved, accuracy {accuracy(network):.1%}")
fitted = {}
for bits in (16, 14):
    fitted[bits] = fit_network(network, bits, calibration=half.arrays).network
    certified = proved_widths(widths_document(fitted[bits], "clamp"))
    print(
        f"fitted to {bits} bits: certificate says {max(certified.values())} bits, layers"
        f" {list(certified.values())}, accuracy {accuracy(fitted[bits]):.1%}"
    )

# %% [markdown]
# The fitted networks cannot overflow at their width, so wrapping or saturating makes no difference.
# Against the network as it is, in accumulators of fewer bits, on the same images:

# %%
other = Samples((other_images,), "the other 250 test images")
mac = napier.load_hardware("mac4x4")
narrow = run_sweep(Sweep(network, other, mac, 14, 20, other_labels))["points"]
figure, axes = plt.subplots(figsize=(6, 3.2))
for rule, marker in (("wrap", "o"), ("saturate", "s")):
    points = [point for point in narrow if point["acc_overflow"] == rule]
    bits = [point["acc_bits"] for point in points]
    axes.plot(bits, [x["accuracy"] for x in points], marker=marker, label=f"as it is, {rule}")
for number, (bits, candidate) in enumerate(fitted.items()):
    points = run_sweep(Sweep(candidate, other, mac, bits, bits, other_labels))["points"]
    for point in points:
        print(
            f"fitted, {bits} bits, {point['acc_overflow']}: {point['events']} overflows,"
            f" accuracy {point['accuracy']:.1%}"
        )
    label = "fitted, proved" if number == 0 else None
    axes.plot(bits, points[0]["accuracy"], "*", color="#2a9d4a", markersize=12, label=label)
axes.axvline(proved_bits, color="#444444", linestyle="--", label="as it is, proved")
axes.set_xlabel("accumulator, bits")
axes.set_ylabel("accuracy")
axes.yaxis.set_major_formatter("{x:.0%}")
axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
axes.spines[["top", "right"]].set_visible(False)
