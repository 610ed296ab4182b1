"""Words, rounding rules and the preparation of multipliers."""

import math

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden import multipliers
from golden.arithmetic import (
    doubling_high_multiply,
    requantize,
    rounding_right_shift,
    saturate,
    wrap,
)
from golden.errors import ModelError
from golden.formats import IntFormat
from golden.network import Requantization

exact = settings(deadline=None, derandomize=True, max_examples=200)
INT32 = st.integers(-(2**31), 2**31 - 1)
EXTREMES32 = [-(2**31), 1 - 2**31, -(2**30), -1, 0, 1, 2**30, 2**31 - 1]


def rule(multiplier, shift, rounding):
    return Requantization(np.array([multiplier], np.int32), np.array([shift], np.int32), rounding)


@exact
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1), st.integers(1, 63), st.booleans())
def test_wrap_and_saturate_equal_unlimited_integers(values, bits, signed):
    fmt = IntFormat(bits, signed)
    wrapped, wrap_mask = wrap(np.array(values), fmt)
    saturated, saturate_mask = saturate(np.array(values), fmt)
    assert wrapped.tolist() == [naive.wrap(v, bits, signed) for v in values]
    assert saturated.tolist() == [naive.saturate(v, bits, signed) for v in values]
    low, high = naive.bounds(bits, signed)
    outside = [not low <= v <= high for v in values]
    assert wrap_mask.tolist() == saturate_mask.tolist() == outside


def test_wrap_to_64_bits_changes_nothing():
    values = np.array([-(2**63), -1, 0, 2**63 - 1])
    wrapped, overflowed = wrap(values, IntFormat(64))
    np.testing.assert_array_equal(wrapped, values)
    assert not overflowed.any()


@pytest.mark.parametrize("a", EXTREMES32)
@pytest.mark.parametrize("b", EXTREMES32)
def test_doubling_high_multiply_at_the_extremes(a, b):
    assert doubling_high_multiply(a, b) == naive.doubling_high_multiply(a, b)


def test_doubling_high_multiply_saturates_its_one_overflow():
    assert doubling_high_multiply(-(2**31), -(2**31)) == 2**31 - 1


def test_doubling_high_multiply_rounds_ties_up():
    # Values of gemmlowp's own routine: (-1 * 2**30) -> 0, (-3 * 2**30) -> -1.
    assert doubling_high_multiply([-1, -3, 1, 3], 2**30).tolist() == [0, -1, 1, 2]


@exact
@given(INT32, st.integers(0, 31))
def test_rounding_right_shift_rounds_half_away_from_zero(value, bits):
    assert rounding_right_shift(value, bits) == naive.half_away(naive.Fraction(value, 2**bits))


def test_ties_of_every_rule_at_one_half():
    # By hand: -2.5 -1.5 1.5 2.5.
    acc = np.array([-5, -3, 3, 5])
    assert requantize(acc, rule(2**30, 0, "double")).tolist() == [-2, -1, 2, 3]
    assert requantize(acc, rule(2**30, 0, "single")).tolist() == [-2, -1, 2, 3]
    assert requantize(acc, rule(0, -1, "shift_half_up")).tolist() == [-2, -1, 2, 3]
    assert requantize(acc, rule(0, -1, "shift_half_even")).tolist() == [-2, -2, 2, 2]


def test_double_and_single_rounding_differ_on_a_negative_tie():
    # -12 / 8 = -1.5: away from zero against half up.
    assert requantize([-12], rule(2**30, -2, "double")).tolist() == [-2]
    assert requantize([-12], rule(2**30, -2, "single")).tolist() == [-1]


def test_the_left_shift_of_double_rounding_wraps_in_int32():
    # 3 * 2**30 wraps to -2**30, which halves to -2**29.
    assert requantize([3], rule(2**30, 30, "double")).tolist() == [-(2**29)]


@exact
@given(
    st.lists(INT32, min_size=1, max_size=20),
    st.integers(0, 2**31 - 1),
    st.integers(-31, 30),
    st.sampled_from(["double", "single"]),
)
def test_32_bit_requantization_equals_unlimited_integers(acc, multiplier, shift, rounding):
    actual = requantize(np.array(acc), rule(multiplier, shift, rounding))
    assert actual.tolist() == [naive.requantize(a, multiplier, shift, rounding) for a in acc]


@exact
@given(
    st.lists(st.integers(-(2**47), 2**47 - 1), min_size=1, max_size=20),
    st.integers(0, 2**31 - 1),
    st.integers(-31, 7),
)
def test_multiplier16_equals_unlimited_integers(acc, multiplier, shift):
    actual = requantize(np.array(acc), rule(multiplier, shift, "multiplier16"))
    expected = [naive.requantize(a, multiplier, shift, "multiplier16") for a in acc]
    assert actual.tolist() == expected


def test_multiplier16_saturates_at_15_bits():
    # 2**31 - 1 would round to 2**15; 0x7FFF * 2**15 >> 15 = 32767, not 32768.
    assert requantize([2**15], rule(2**31 - 1, 0, "multiplier16")).tolist() == [0x7FFF]


@exact
@given(
    st.lists(st.integers(-(2**50), 2**50), min_size=1, max_size=20),
    st.integers(-40, 8),
    st.sampled_from(["shift_half_up", "shift_half_even"]),
)
def test_shift_rules_equal_unlimited_integers(acc, shift, rounding):
    actual = requantize(np.array(acc), rule(0, shift, rounding))
    assert actual.tolist() == [naive.requantize(a, 0, shift, rounding) for a in acc]


def test_per_channel_requantization_follows_the_channel_axis():
    rules = Requantization(
        np.array([2**30, 2**30, 2**30], np.int32), np.array([1, 0, -1], np.int32), "double"
    )
    acc = np.array([[8, 8, 8], [-8, -8, -8]])
    assert requantize(acc, rules).tolist() == [[8, 4, 2], [-8, -4, -2]]
    assert requantize(acc.T, rules, channel_axis=0).tolist() == [[8, -8], [4, -4], [2, -2]]


@exact
@given(st.floats(2**-40, 2.0**20, allow_nan=False))
def test_quantize_multiplier_is_the_nearest(real):
    assert multipliers.quantize_multiplier(real) == naive.quantize_multiplier(real)


def test_quantize_multiplier_known_values():
    # Source: TensorFlow Lite's quantization_util.
    assert multipliers.quantize_multiplier(1 / 32) == (2**30, -4)
    assert multipliers.quantize_multiplier(0.0003) == (1319413953, -11)
    assert multipliers.quantize_multiplier(1.5) == (1610612736, 1)
    assert multipliers.quantize_multiplier(0.0) == (0, 0)


def test_quantize_multiplier_carries_where_the_fraction_rounds_to_one():
    assert multipliers.quantize_multiplier(math.nextafter(1.0, 0.0)) == (2**30, 1)


def test_quantize_multiplier_flushes_what_would_shift_everything_out():
    assert multipliers.quantize_multiplier(2.0**-32) == (2**30, -31)
    assert multipliers.quantize_multiplier(2.0**-33) == (0, 0)


@pytest.mark.parametrize("real", [-1.0, math.inf, math.nan])
def test_quantize_multiplier_refuses_what_is_no_scale(real):
    with pytest.raises(ModelError, match="must be finite and not negative"):
        multipliers.quantize_multiplier(real)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        # scale 0.05, zero point -128 + 20: 6 / 0.05 = 120 codes, 1 / 0.05 = 20 codes.
        ("none", (-128, 127)),
        ("relu", (-108, 127)),
        ("relu6", (-108, 12)),
        ("relu_n1_to_1", (-128, -88)),
    ],
)
def test_activation_ranges(activation, expected):
    assert multipliers.activation_range(activation, "int8", 0.05, -108) == expected


def test_activation_range_divides_in_float32():
    # The exact quotient 6 / scale lies below 24.5, the float32 quotient is the tie 24.5.
    scale = float(np.float32(6.0 / 24.5))
    assert naive.half_away(naive.Fraction(6) / naive.Fraction(scale)) == 24
    assert multipliers.activation_range("relu6", "int16", scale, 0) == (0, 25)


def test_mean_folds_the_count_into_the_multiplier():
    # One half is (2**30, 0); over 4 elements 4 * 2**30 // 4 at -2, over 3 2 * 2**30 // 3 at -1.
    for count, expected in [(1, (2**30, 0)), (4, (2**30, -2)), (3, (2**31 // 3, -1))]:
        prepared = multipliers.mean_requantization(0.5, 1.0, count)
        assert (prepared.multiplier[0], prepared.shift[0]) == expected


def test_mean_never_shifts_right_by_more_than_31():
    # 2**-29 is (2**30, -28): of the six bits of 64 only three go to the shift.
    prepared = multipliers.mean_requantization(2.0**-29, 1.0, 64)
    assert (prepared.multiplier[0], prepared.shift[0]) == (2**30 * 8 // 64, -31)


def test_softmax_parameters_by_hand():
    # 2**-4 * 2**26 = 2**22, so multiplier 2**30 at shift 23, and 31 * 2**26 >> 23 = 248.
    assert multipliers.softmax_parameters(1.0, 2.0**-4, "int8") == multipliers.SoftmaxParameters(
        2**30, 23, -248
    )


def test_softmax_refuses_a_vanishing_scale():
    with pytest.raises(ModelError, match="softmax needs"):
        multipliers.softmax_parameters(1.0, 2.0**-27, "int8")


def test_add_parameters_use_the_larger_scale_twice():
    # 0.5 / (2 * 0.5) = 1/2, 0.25 / 1 = 1/4, 1 / (2**20 * 1) = 2**-20.
    prepared = multipliers.add_parameters(0.5, 0.25, 1.0, "int8")
    assert prepared.left_shift == 20
    pairs = [
        (int(r.multiplier[0]), int(r.shift[0]))
        for r in (*prepared.input_requantizations, prepared.output_requantization)
    ]
    assert pairs == [(2**30, 0), (2**30, -1), (2**30, -19)]
    assert multipliers.add_parameters(0.5, 0.25, 1.0, "int16").left_shift == 15


def test_add_refuses_an_output_scale_that_overflows_the_sum():
    with pytest.raises(ModelError, match="between 0 and 1"):
        multipliers.add_parameters(1.0, 1.0, 2.0**-20, "int8")


def test_uint8_convolution_takes_the_scale_product_in_float32():
    # 0.1f * 0.3f rounds differently in float32 and in double.
    a, b = float(np.float32(0.1)), float(np.float32(0.3))
    single = multipliers.convolution_requantization(a, [b], 1.0, float32_product=True)
    double = multipliers.convolution_requantization(a, [b], 1.0)
    assert (
        single.multiplier[0] == naive.quantize_multiplier(float(np.float32(a) * np.float32(b)))[0]
    )
    assert double.multiplier[0] == naive.quantize_multiplier(a * b)[0]
    assert single.multiplier[0] != double.multiplier[0]


BULK = 1_000_000
"""Random values for each rule (rung L1)."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "rounding", ["double", "single", "multiplier16", "shift_half_up", "shift_half_even"]
)
def test_a_million_random_requantizations_equal_unlimited_integers(rounding):
    rng = np.random.default_rng(len(rounding))
    acc = rng.integers(-(2**31), 2**31, BULK) >> rng.integers(0, 31, BULK)
    acc[::97] = rng.choice([-(2**31), 2**31 - 1, -1, 0, 1], acc[::97].size)
    multiplier = rng.integers(0, 2**31, BULK)
    multiplier[::89] = rng.choice([0, 2**30, 2**31 - 1], multiplier[::89].size)
    shift = rng.integers(-31, 8, BULK)
    rules = Requantization(multiplier.astype(np.int32), shift.astype(np.int32), rounding)
    expected = [
        naive.requantize(a, m, s, rounding)
        for a, m, s in zip(acc.tolist(), multiplier.tolist(), shift.tolist(), strict=True)
    ]
    np.testing.assert_array_equal(requantize(acc, rules), expected)
