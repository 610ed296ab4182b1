"""Winograd layers of the fast model against the golden ones."""

import numpy as np
import pytest

from golden.accumulate import Accumulator
from golden.errors import InputError
from golden.network import Conv2D, DepthwiseConv2D, Padding, Requantization
from golden.operators import accumulators
from golden.winograd import accumulate_winograd, winograd, winograd_layer
from simulator import winograd_values
from simulator.hardware import load_hardware
from simulator.values import accumulate
from simulator.winograd import FORMS
from simulator.winograd_values import part_layer, part_outputs, winograd_accumulators

TRANSFORMS = {"f2": winograd(2, 3), "f4": winograd(4, 3)}


def conv(weights, zero_point=0, groups=1, weight_zero_point=0, kind=Conv2D, **extra):
    return kind(
        name="conv", inputs=(0,), outputs=(1,), weights=weights, weight_bits=8,
        weight_zero_point=weight_zero_point, bias=None, input_zero_point=zero_point,
        output_zero_point=0, activation_min=-128, activation_max=127, groups=groups,
        requantization=Requantization(np.array([1 << 30], np.int32), np.array([0], np.int32)),
        **extra,
    )  # fmt: skip


def random_layer(rng):
    """A 3x3 layer of stride 1 and codes of one to three images, some smaller than a tile."""
    groups = int(rng.choice([1, 1, 2, 3]))
    per_group, out = int(rng.integers(1, 6)), int(rng.integers(1, 4))
    padding = Padding(*(int(n) for n in rng.integers(0, 4, 4)))
    shape = (groups * out, 3, 3, per_group)
    unsigned = rng.random() < 0.3
    weights = (
        rng.integers(0, 256, shape).astype(np.uint8)
        if unsigned
        else rng.integers(-128, 128, shape).astype(np.int8)
    )
    layer = conv(
        weights, int(rng.integers(-128, 128)), groups, int(unsigned) * 117, padding=padding
    )
    height, width = (int(n) for n in rng.integers(3, 14, 2))
    size = (int(rng.integers(1, 4)), height, width, groups * per_group)
    return layer, rng.integers(-128, 128, size).astype(np.int8)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", TRANSFORMS)
def test_accumulators_equal_golden_exact_and_wrapped(name, seed):
    rng = np.random.default_rng(seed)
    for _ in range(12):
        layer, x = random_layer(rng)
        direct = accumulators(layer, x)
        np.testing.assert_array_equal(winograd_accumulators(layer, x, name), direct)
        for bits in (7, 16, 24, 32, 33, 48, 62):
            expected = winograd_layer(layer, x, TRANSFORMS[name], bits).accumulators
            found = winograd_accumulators(layer, x, name, bits)
            np.testing.assert_array_equal(found, expected, str(bits))


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_layers_equal_golden(multiplier):
    rng = np.random.default_rng(5)
    weights = rng.integers(-128, 128, (8 * multiplier, 3, 3, 1)).astype(np.int8)
    layer = conv(weights, 3, 8, kind=DepthwiseConv2D, padding=Padding(1, 1, 1, 1))
    x = rng.integers(-128, 128, (2, 9, 10, 8)).astype(np.int8)
    for name in TRANSFORMS:
        found = winograd_accumulators(layer, x, name)
        np.testing.assert_array_equal(found, accumulators(layer, x))


@pytest.mark.parametrize(
    ("largest", "channels", "number"),
    [(1, 8, np.int32), (128, 512, np.float64), (1 << 32, 8, np.int64)],
)
def test_every_kind_of_number_is_exact_at_the_extremes(largest, channels, number):
    """Operands and weights of largest magnitude and of the sign that makes one output largest."""
    weights = np.where(np.arange(9 * channels) % 3, 127, -127).reshape(1, 3, 3, channels)
    layer = conv(weights.astype(np.int8))
    x = np.zeros((1, 6, 6, channels), dtype=np.int64)
    x[0, 1:4, 2:5] = np.sign(weights[0]) * largest
    form = FORMS["f4"]
    chosen, _ = winograd_values._number(weights, x, form, None)
    assert chosen == np.dtype(number)
    found = winograd_accumulators(layer, x, "f4")
    assert found.max() == 127 * 9 * channels * largest
    np.testing.assert_array_equal(found, accumulators(layer, x))


def test_blocks_of_samples_do_not_change_the_sums(monkeypatch):
    rng = np.random.default_rng(6)
    layer = conv(rng.integers(-128, 128, (3, 3, 3, 2)).astype(np.int8))
    x = rng.integers(-128, 128, (5, 8, 8, 2)).astype(np.int8)
    monkeypatch.setattr(winograd_values, "BLOCK_ELEMENTS", 5000)
    monkeypatch.setattr(winograd_values, "PARALLEL_WORK", 1)
    found = winograd_accumulators(layer, x, "f2")
    np.testing.assert_array_equal(found, accumulators(layer, x))


def wide_hardware(acc_bits, overflow, kind):
    """A PE that holds transformed operands and weights."""
    machine = load_hardware("mac16x16" if kind == "product" else "nhot2_16x16")
    widths = {
        "activation_bits": 16, "weight_bits": 16, "acc_bits": acc_bits, "acc_overflow": overflow,
        "spill_interval": 0,
    }  # fmt: skip
    return machine.model_copy(update={"array": machine.array.model_copy(update=widths)})


@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
@pytest.mark.parametrize("steps", ["product", "terms"])
@pytest.mark.parametrize(("name", "chunk"), [("f2", 2), ("f4", 5), ("f4", 8)])
def test_parts_on_narrow_accumulators_equal_golden(name, chunk, steps, overflow):
    rng = np.random.default_rng(7)
    weights = rng.integers(-128, 128, (3, 3, 3, 5)).astype(np.int8)
    layer = conv(weights, 3, padding=Padding(1, 1, 1, 1))
    x = rng.integers(-128, 128, (2, 7, 6, 5)).astype(np.int8)
    bits = 18 if name == "f2" else 22
    parts, operands = part_layer(layer, x, name, chunk)
    found = accumulate(parts, operands, wide_hardware(bits, overflow, steps))
    expected = accumulate_winograd(
        layer, x, TRANSFORMS[name], Accumulator(bits, overflow), chunk, steps
    )
    shape = expected.parts.value.shape
    for record in ("value", "events", "first_step", "minimum", "maximum", "persistent"):
        np.testing.assert_array_equal(
            getattr(found, record).reshape(shape), getattr(expected.parts, record), record
        )
    assert found.events.any()
    sums = part_outputs(layer, x, name, found.value, bits)
    np.testing.assert_array_equal(sums, expected.accumulators)


def test_parts_of_groups_are_refused():
    layer = conv(np.ones((2, 3, 3, 1), np.int8), groups=2)
    with pytest.raises(InputError, match="has groups=2 and chunk_channels=4"):
        part_layer(layer, np.zeros((1, 4, 4, 2), np.int8), "f2", 4)


def test_other_layers_and_widths_are_refused():
    x = np.zeros((1, 8, 8, 1), dtype=np.int8)
    strided = conv(np.ones((1, 3, 3, 1), np.int8), stride=(2, 2))
    with pytest.raises(InputError, match="f2 computes kernels 3x3 of stride and dilation 1"):
        winograd_accumulators(strided, x, "f2")
    with pytest.raises(InputError, match="bits must be 7 to 62 with f4, but is 6"):
        winograd_accumulators(conv(np.ones((1, 3, 3, 1), np.int8)), x, "f4", 6)
