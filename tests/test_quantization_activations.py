"""Scales and zero points of activations."""

from __future__ import annotations

import numpy as np
import pytest

from golden.errors import InputError
from golden.quantization.activations import (
    QuantizationParameters,
    histogram,
    nhot_table,
    quantization_parameters,
)
from golden.quantization.clipping import RANGE_RULES, kl_clip


def samples(kind, count=20_000):
    rng = np.random.default_rng(11)
    values = rng.laplace(0, 1, count)
    return np.maximum(values, 0) if kind == "relu" else values + (kind == "shifted")


def error(found, values):
    return ((found.reals(found.codes(values)) - values) ** 2).mean()


@pytest.mark.parametrize("bits", range(2, 9))
def test_max_spans_all_codes(bits):
    values = np.array([-1.0, 0.5, 3.0])
    found = quantization_parameters(values, bits)
    top = (1 << bits) - 1
    assert found.scale == 4 / top
    assert (found.low, found.high) == (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    assert found.zero_point == found.low + round(top / 4)
    assert found.reals(np.array([found.zero_point])) == [0]
    symmetric = quantization_parameters(values, bits, scheme="symmetric")
    levels = (1 << (bits - 1)) - 1
    assert symmetric == QuantizationParameters(3 / levels, 0, -levels, levels)


def test_ranges_hold_zero():
    found = quantization_parameters(np.array([2.0, 5.1]), 8)
    assert (found.zero_point, found.scale) == (-128, pytest.approx(0.02))
    negative = quantization_parameters(np.array([-5.1, -2.0]), 8)
    assert (negative.zero_point, negative.scale) == (127, pytest.approx(0.02))
    unsigned = quantization_parameters(np.array([0.0, 5.1]), 8, signed=False)
    assert (unsigned.zero_point, unsigned.low, unsigned.high) == (0, 0, 255)


def test_ties_go_to_even_before_the_zero_point_is_added():
    found = QuantizationParameters(1.0, 1, -128, 127)
    assert found.codes(np.array([0.5, 1.5, 2.5, -0.5, 500, -500])).tolist() == [
        1, 3, 3, 1, 127, -128,
    ]  # fmt: skip


@pytest.mark.parametrize("rule", RANGE_RULES)
@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
def test_zeros_are_quantized_to_zero(rule, scheme):
    found = quantization_parameters(np.zeros(5), 8, scheme=scheme, rule=rule)
    assert found.scale > 0
    assert (found.codes(np.zeros(5)) == found.zero_point).all()


@pytest.mark.parametrize("kind", ["relu", "laplace", "shifted"])
@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("bits", [8, 4])
def test_least_squares_is_no_worse_than_any_other_rule(kind, scheme, bits):
    values = samples(kind)
    errors = {
        rule: error(quantization_parameters(values, bits, scheme=scheme, rule=rule), values)
        for rule in RANGE_RULES
        if rule != "kl" or bits == 4
    }
    assert errors["mse"] <= min(errors.values()) * 1.002
    clips = np.abs(values).max() * np.linspace(0.02, 1, 120)
    if scheme == "symmetric":
        levels = (1 << (bits - 1)) - 1
        tried = [QuantizationParameters(clip / levels, 0, -levels, levels) for clip in clips]
        assert errors["mse"] <= min(error(one, values) for one in tried) * 1.005


def test_asymmetric_beats_symmetric_after_relu_by_about_a_bit():
    values = samples("relu")
    both = [
        error(quantization_parameters(values, 6, scheme=scheme, rule="mse"), values)
        for scheme in ("symmetric", "asymmetric")
    ]
    assert 3 < both[0] / both[1] < 4.2


def test_percentile_cuts_what_it_says():
    values = np.arange(-1000, 1001) / 100
    found = quantization_parameters(values, 8, rule="percentile", percentile=90)
    # 10 % lie above 8 and 10 % below -8
    assert found.scale * 255 == pytest.approx(16, abs=0.02)
    symmetric = quantization_parameters(
        values, 8, scheme="symmetric", rule="percentile", percentile=90
    )
    assert symmetric.scale * 127 == pytest.approx(9, abs=0.02)  # 10 % of the magnitudes above


def test_kl_is_that_of_the_samples():
    values = samples("laplace")
    found = quantization_parameters(values, 7, scheme="symmetric", rule="kl")
    assert found.scale * 63 == pytest.approx(kl_clip(values, 64), rel=1e-3)
    assert found.scale * 63 < np.abs(values).max()


@pytest.mark.parametrize("rule", RANGE_RULES)
def test_batches_give_what_all_samples_give(rule):
    values = samples("shifted")
    largest = float(np.abs(values).max())
    whole = histogram(values)
    parts = histogram(values[:7000], largest) + histogram(values[7000:], largest)
    np.testing.assert_array_equal(parts.counts, whole.counts)
    assert quantization_parameters(parts, 6, rule=rule) == quantization_parameters(
        values, 6, rule=rule
    )
    with pytest.raises(ValueError, match="bins differ"):
        histogram(values) + histogram(2 * values)


@pytest.mark.parametrize(
    ("values", "bits", "settings", "message"),
    [
        ([1.0], 9, {}, "activations must have 2 to 8 bits, not 9"),
        ([1.0], 8, {"rule": "mean"}, "range must be max or percentile or mse or kl, not 'mean'"),
        ([1.0], 8, {"percentile": 40.0}, "percentile must be above 50 and at most 100, not 40"),
        ([], 8, {}, "activation samples must be finite and at least one"),
        ([np.nan], 8, {}, "activation samples must be finite and at least one"),
    ],
)
def test_what_cannot_be_quantized_is_refused(values, bits, settings, message):
    with pytest.raises(InputError, match=message):
        quantization_parameters(np.array(values), bits, **settings)


def test_nhot_activations_round_codes_around_their_zero_point():
    """The operand that the array sees is code - zero_point: that is what must be n-hot."""
    found = QuantizationParameters(0.1, -128, -128, 127)
    table = nhot_table(found, terms=1)
    operands = table - found.zero_point
    assert np.bitwise_count(operands).max() == 1
    assert operands[[0, 3, 6, 7, 255]].tolist() == [0, 2, 4, 8, 128]  # ties down; 256 is no code
    with_sign = nhot_table(QuantizationParameters(0.1, 0, -63, 63), terms=2)
    assert with_sign[[0, 63, 63 + 11, 63 + 13]].tolist() == [-63, 0, 10, 12]
    assert np.abs(with_sign).max() <= 63
