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
# # A first network: from model file to what every layer costs
#
# Napier takes a quantized network and an accelerator and says, layer by layer, how many cycles and
# how much energy an inference takes, and whether the accumulators hold. This notebook follows the
# small digits network that ships with Napier from its file to a comparison of four arrays: integer
# multipliers, serial and parallel shift-add PEs, and ternary PEs.

# %%
# %matplotlib inline
import numpy as np
from matplotlib import pyplot as plt

import napier
from golden.run import run as run_golden
from napier.loading import shipped_file
from simulator.projection import project_weights

# %% [markdown]
# ## The network
#
# A path to a `.tflite` file works in place of `None`.

# %%
network = napier.load_model(None)
for layer in network.layers:
    shape = "x".join(map(str, network.tensors[layer.outputs[0]].shape[1:]))
    print(f"{layer.name:10} {layer.op:12} -> {shape}")

# %% [markdown]
# The golden model computes what the network says, in NumPy: every integer of every tensor equals
# TensorFlow Lite Micro's. Its accuracy on the 500 held-out images:

# %%
with np.load(shipped_file("digits_test.npz")) as archive:
    images, labels = archive["images"], archive["labels"]


def accuracy(candidate):
    codes = run_golden(candidate, [images]).outputs[0]
    return float(np.mean(np.argmax(codes, axis=1) == labels))


print(f"accuracy {accuracy(network):.1%}")

# %% [markdown]
# ## One array
#
# `mac16x16` has 256 integer multipliers. The cycle model runs all 500 images through it for the
# accumulator records; cycles and energy are for one inference.

# %%
mac = napier.simulate(network, napier.load_hardware("mac16x16"), [images])
document = mac.to_dict()
for layer in document["layers"]:
    record = layer["accumulator"]
    bits = "" if record is None else f"{record['bits_needed']} of {record['bits']} bits"
    print(f"{layer['name']:10} {layer['cycles']:5} cycles {layer['utilization']:6.1%}  {bits}")
print(f"total {document['totals']['cycles']} cycles")

# %%
napier.run_figure(document)

# %% [markdown]
# A network this small cannot fill 256 PEs: 8 and 16 channels and 16 to 64 pixels leave much of the
# array idle, and loading the data takes as long as the sums. The same network on a 4 x 4 array:

# %%
small = napier.simulate(network, napier.load_hardware("mac4x4"), [images[:1]]).to_dict()
napier.run_figure(small)

# %% [markdown]
# ## Four kinds of PE, side by side
#
# * `mac`: an integer multiplier; one product a cycle.
# * `shift_add`, serial: one signed power of two a cycle, so a weight takes as many cycles as it has
#   signed digits.
# * `shift_add`, parallel: two signed powers of two a cycle. It cannot hold every weight, so the
#   weights are projected to the nearest sum of two (`nhot:2`).
# * `ternary`: adds or subtracts the activation. The weights are projected to -1, 0, +1 with a scale
#   for each channel, **without retraining**: watch the accuracy.
#
# The projected networks are other networks than the one in the file. Their accuracy stands beside
# their cost.

# %%
CANDIDATES = {
    "mac": ("mac4x4", "as-is"),
    "serial": ("nhot2_4x4", "as-is"),
    "serial, 2-hot": ("nhot2_4x4", "nhot:2"),
    "parallel, 2-hot": ("nhot2_parallel_4x4", "nhot:2"),
    "ternary": ("ternary4x4", "ternary"),
}
results = {}
for label, (hardware, weights) in CANDIDATES.items():
    candidate = project_weights(network, weights)
    result = napier.simulate(candidate, napier.load_hardware(hardware), [images]).to_dict()
    results[label] = result
    totals = result["totals"]
    print(
        f"{label:16} {totals['cycles']:6} cycles  {totals['energy_pj'] / 1e6:.2f} uJ  "
        f"accuracy {accuracy(candidate):.1%}  {totals['overflow_events']} overflows"
    )

# %%
names = [layer["name"] for layer in document["layers"] if layer["macs"]]
positions = np.arange(len(names))
figure, (cycles_axes, energy_axes) = plt.subplots(2, 1, figsize=(10, 6.5), sharex=True)
width = 0.8 / len(results)
for number, (label, result) in enumerate(results.items()):
    layers = [layer for layer in result["layers"] if layer["macs"]]
    place = positions + (number - (len(results) - 1) / 2) * width
    cycles_axes.bar(place, [layer["cycles"] for layer in layers], width, label=label)
    on_chip = [(layer["energy_pj"]["total"] - layer["energy_pj"]["dram"]) / 1e3 for layer in layers]
    energy_axes.bar(place, on_chip, width)
cycles_axes.set_ylabel("cycles")
energy_axes.set_ylabel("on-chip energy, nJ")
energy_axes.set_xticks(positions, names)
cycles_axes.legend(frameon=False, ncols=3, fontsize=9)
for axes in (cycles_axes, energy_axes):
    axes.spines[["top", "right"]].set_visible(False)
figure.tight_layout()

# %% [markdown]
# What to read from it:
#
# * A serial shift-add PE pays for every signed digit. Two-hot weights bound that at two cycles a
#   weight, and every column then takes nearly the same time, which matters because the columns of
#   an array wait for the slowest one.
# * The ternary array is the cheapest, and the accuracy above says what a projection without
#   retraining costs.
# * Energy is counted events times a table (here Horowitz, 45 nm). External memory is left out of
#   the lower figure because it dwarfs the rest.

# %% [markdown]
# ## Narrower accumulators
#
# The widest sum of the network needs fewer bits than the array has. How many are needed on these
# images, layer by layer, is in the records; what happens below shows when the width is cut.

# %%
mac4x4 = napier.load_hardware("mac4x4")
for bits in (20, 18, 16, 14):
    narrow = napier.changed_hardware(mac4x4, array={"acc_bits": bits})
    totals = napier.simulate(network, narrow, [images]).to_dict()["totals"]
    print(f"{bits} bits: {totals['overflow_events']} overflow events in {len(images)} images")
