"""Sums, outputs and records of the fast model's Winograd layers against the golden ones."""

from dataclasses import replace

import numpy as np
import pytest
import winograd_cases as cases

from golden.network import Conv2D, Network, Padding, Requantization, Tensor
from golden.operators import accumulators
from golden.winograd import accumulate_winograd, winograd, winograd_layer
from rtl_models.reference import golden_accumulator, golden_steps
from simulator import winograd_values
from simulator.cuts import step_geometry
from simulator.hardware import changed_hardware, load_hardware
from simulator.lowering import lower
from simulator.machine import simulate
from simulator.values import tallied_record
from simulator.winograd import winograd_step

TRANSFORMS = {"f2": winograd(2, 3), "f4": winograd(4, 3)}
PRESETS = ("mac4x4", "nhot2_4x4", "nhot2_parallel_4x4", "ternary4x4")


def random_layer(rng, codes=128):
    """A 3 x 3 layer of stride 1 and one to three images, some smaller than a tile."""
    padding = Padding(*(int(n) for n in rng.integers(0, 4, 4)))
    shape = (int(rng.integers(1, 6)), 3, 3, int(rng.integers(1, 11)))
    unsigned = rng.random() < 0.3
    weights = (
        rng.integers(0, 256, shape).astype(np.uint8)
        if unsigned
        else rng.integers(-128, 128, shape).astype(np.int8)
    )
    layer = Conv2D(
        name="conv", inputs=(0,), outputs=(1,), weights=weights, weight_bits=8,
        weight_zero_point=117 * int(unsigned), bias=None, output_zero_point=0,
        input_zero_point=int(rng.integers(-codes, codes)), activation_min=-128, activation_max=127,
        requantization=Requantization(np.array([1 << 30], np.int32), np.array([0], np.int32)),
        padding=padding,
    )  # fmt: skip
    size = (int(rng.integers(1, 4)), *(int(n) for n in rng.integers(3, 14, 2)), shape[3])
    dtype = np.int8 if codes == 128 else np.int16
    return layer, rng.integers(-codes, codes, size).astype(dtype)


def machine(preset, name, chunk_words, **array):
    winograd = {"forms": name, "use": name, "chunk_words": chunk_words}
    return changed_hardware(load_hardware(preset), array=array, winograd=winograd)


def fast(layer, x, hardware):
    """Accumulators of a layer, and the record of its parts."""
    use = hardware.winograd.use
    pad = layer.padding
    size = (x.shape[1] + pad.top + pad.bottom - 2, x.shape[2] + pad.left + pad.right - 2)
    tensors = (
        Tensor("x", (1, *x.shape[1:]), str(x.dtype)),
        Tensor("y", (1, *size, len(layer.weights)), str(x.dtype)),
    )
    network = Network("one", tensors, (layer,), (0,), (1,))
    step = winograd_step(lower(network, hardware).steps[0], use, hardware, safe=False)
    found, tallies = winograd_values.accumulate_winograd(
        step.layer, x, step_geometry(step), hardware
    )
    pixels = found.transpose(0, 2, 1).reshape(-1, len(layer.weights))
    outputs = pixels[: len(x) * size[0] * size[1]].reshape(len(x), *size, -1)
    return outputs, tallied_record(tallies, hardware)


@pytest.mark.parametrize("codes", [128, 1 << 15])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_accumulators_equal_golden_modulo_a_power_of_two(name, codes):
    rng = np.random.default_rng([1, codes])
    for _ in range(30):
        layer, x = random_layer(rng, codes)
        for bits in (7, 16, 24, 32) if codes == 128 else (7, 24, 33, 48):
            hardware = machine(
                "mac4x4", name, 144, acc_bits=bits, activation_bits=8 if codes == 128 else 16
            )
            expected = winograd_layer(layer, x, TRANSFORMS[name], bits).accumulators
            np.testing.assert_array_equal(fast(layer, x, hardware)[0], expected, str(bits))


@pytest.mark.parametrize("spill_interval", [0, 3])
@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("name", "chunk_words"), [("f2", 32), ("f4", 36), ("f4", 72)])
def test_narrow_accumulators_of_parts_equal_golden(
    name, chunk_words, preset, overflow, spill_interval
):
    rng = np.random.default_rng([2, chunk_words])
    bits = (16 if name == "f2" else 20) - 5 * (preset == "ternary4x4")
    hardware = machine(
        preset, name, chunk_words, acc_bits=bits, acc_overflow=overflow,
        spill_interval=spill_interval, wide_acc_bits=bits + 2,
    )  # fmt: skip
    steps = "units" if preset == "ternary4x4" else golden_steps(hardware)
    chunk_channels = chunk_words // (16 if name == "f2" else 36) * hardware.array.feed
    events = 0
    for _ in range(3):
        layer, x = random_layer(rng)
        if preset != "mac4x4":  # weights that the PEs hold
            weights = np.sign(layer.weights.astype(np.int64) - layer.weight_zero_point)
            weights *= 1 if preset == "ternary4x4" else rng.choice([3, 20, 96, 127], weights.shape)
            layer = replace(layer, weights=weights.astype(np.int8), weight_zero_point=0)
        expected = accumulate_winograd(
            layer, x, TRANSFORMS[name], golden_accumulator(hardware), chunk_channels, steps,
            hardware.pe.terms,
        )  # fmt: skip
        outputs, record = fast(layer, x, hardware)
        np.testing.assert_array_equal(outputs, expected.accumulators)
        parts = expected.parts
        affected = parts.events > 0
        assert record.events == parts.events.sum()
        assert record.persistent == (affected & parts.persistent).sum()
        assert record.transient == (affected & ~parts.persistent).sum()
        assert (record.minimum, record.maximum) == (parts.minimum.min(), parts.maximum.max())
        events += record.events
    assert events


@pytest.mark.parametrize(
    ("codes", "channels", "wide"), [(127, 64, False), (32767, 8, True), (32767, 512, True)]
)
def test_sums_are_exact_at_the_extremes_in_lanes_of_32_and_64_bits(codes, channels, wide):
    """Codes and weights of the signs that make one output largest: 9 * C * 127 * codes."""
    weights = np.where(np.arange(9 * channels) % 3, 127, -127).reshape(1, 3, 3, channels)
    layer, _ = random_layer(np.random.default_rng(3))
    layer = replace(
        layer, weights=weights.astype(np.int8), weight_zero_point=0, input_zero_point=0,
        padding=Padding(),
    )  # fmt: skip
    x = np.zeros((1, 6, 6, channels), np.int16)
    x[0, 1:4, 2:5] = np.sign(weights[0]) * codes
    hardware = machine("mac4x4", "f4", 1 << 16, activation_bits=16, acc_bits=48)
    outputs, record = fast(layer, x, hardware)
    assert outputs.max() == 127 * 9 * channels * codes
    np.testing.assert_array_equal(outputs, accumulators(layer, x))
    assert (record.bits_needed > 32) == wide


def test_blocks_of_tiles_and_threads_change_nothing(monkeypatch):
    rng = np.random.default_rng(4)
    network, hardware = cases.network(rng, "mac4x4"), machine("mac4x4", "f2", 64, acc_bits=18)
    x = cases.sample(rng, network, 5)
    whole = simulate(network, hardware, [x])
    monkeypatch.setattr(winograd_values, "BLOCK_ELEMENTS", 1)
    monkeypatch.setattr(winograd_values, "LANES", 7)
    monkeypatch.setattr(winograd_values, "PARALLEL_WORK", 1)
    monkeypatch.setattr(winograd_values, "THREADS", 5)
    parts = simulate(network, hardware, [x])
    np.testing.assert_array_equal(parts.outputs[0], whole.outputs[0])
    assert parts.to_dict() == whole.to_dict()
    assert whole.layers[0].overflow.events
