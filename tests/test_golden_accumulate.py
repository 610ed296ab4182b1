"""Accumulation with wrapping, saturating and spilling accumulators against unlimited integers."""

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_golden_operators import convolutions, naive_taps, weighted

import golden.accumulate
from golden.accumulate import Accumulator, accumulate_layer, naf_digits, step_coefficients
from golden.errors import HardwareError
from golden.network import Conv2D, DepthwiseConv2D, FullyConnected
from golden.operators import accumulators

exact = settings(deadline=None, derandomize=True, max_examples=80)
FIELDS = (
    "value",
    "events",
    "first_step",
    "exact",
    "minimum",
    "maximum",
    "transient",
    "persistent",
)


@st.composite
def accumulator_settings(draw):
    bits = draw(st.integers(4, 32))
    overflow = draw(st.sampled_from(["wrap", "saturate"]))
    if draw(st.booleans()):
        return Accumulator(bits, overflow)
    return Accumulator(bits, overflow, draw(st.integers(1, 9)), draw(st.integers(bits, 33)))


@st.composite
def dense_layers(draw, low=-128, high=127):
    """A fully connected layer and codes; extremes are as likely as everything between."""
    features, outputs, batch = (draw(st.integers(1, n)) for n in (20, 4, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def codes(shape, low, high):
        values = rng.integers(low, high + 1, shape)
        extremes = rng.choice([low, 0, high], shape)
        return np.where(rng.random(shape) < 0.5, values, extremes).astype(np.int8)

    zero_point = draw(st.integers(-128, 127))
    layer = weighted(
        FullyConnected, codes((outputs, features), low, high), input_zero_point=zero_point
    )
    return layer, codes((batch, features), -128, 127)


def naive_records(taps, accumulator, steps):
    """Records per output, as nested lists under the names of `AccumulateResult`."""
    if taps and isinstance(taps[0], list):
        inner = [naive_records(part, accumulator, steps) for part in taps]
        return {field: [record[field] for record in inner] for field in FIELDS}
    return naive.accumulate(
        naive.steps_of(taps, steps),
        accumulator.acc_bits,
        accumulator.overflow,
        accumulator.spill_interval,
        accumulator.wide_acc_bits,
    )


def assert_equal_to_naive(layer, x, accumulator, steps):
    result = accumulate_layer(layer, x, accumulator, steps)
    expected = naive_records(naive_taps(layer, x), accumulator, steps)
    for field in FIELDS:
        assert getattr(result, field).tolist() == expected[field], field


@exact
@given(dense_layers(), accumulator_settings(), st.sampled_from(["product", "parallel_terms"]))
def test_whole_weight_steps_equal_unlimited_integers(case, accumulator, steps):
    assert_equal_to_naive(*case, accumulator, steps)


@exact
@given(dense_layers(), accumulator_settings())
def test_term_steps_equal_unlimited_integers(case, accumulator):
    assert_equal_to_naive(*case, accumulator, "terms")


@exact
@given(dense_layers(low=-1, high=1), accumulator_settings())
def test_ternary_steps_equal_unlimited_integers(case, accumulator):
    assert_equal_to_naive(*case, accumulator, "ternary")


@exact
@given(convolutions(), accumulator_settings(), st.sampled_from(["product", "terms"]))
def test_convolutions_with_padding_groups_and_zero_points_equal_unlimited_integers(
    case, accumulator, steps
):
    assert_equal_to_naive(*case, accumulator, steps)


@exact
@given(convolutions())
def test_the_exact_sum_equals_the_accumulators_of_the_operator(case):
    layer, x = case
    result = accumulate_layer(layer, x, Accumulator(40), "terms")
    np.testing.assert_array_equal(result.exact, accumulators(layer, x))
    np.testing.assert_array_equal(result.value, result.exact)


@exact
@given(convolutions(), accumulator_settings())
def test_blocks_do_not_show(case, accumulator):
    layer, x = case
    whole = accumulate_layer(layer, x, accumulator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(golden.accumulate, "BLOCK_ELEMENTS", 7)
        in_blocks = accumulate_layer(layer, x, accumulator)
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(whole, field), getattr(in_blocks, field))


def one_output(weights, accumulator, steps="product"):
    """Record of one dense output whose activations are all 1."""
    layer = weighted(FullyConnected, np.array([weights], np.int16))
    result = accumulate_layer(layer, np.ones((1, len(weights)), np.int16), accumulator, steps)
    return {field: getattr(result, field)[0, 0].item() for field in FIELDS}


def test_the_order_of_saturation_by_hand():
    # Terms 100, 100, -150 in 8 bits: exact 50; 200 wraps to -56, -206 wraps to 50; 200 saturates
    # to 127, then -23. Reversed: -150 saturates to -128, -28, 72.
    record = one_output([100, 100, -150], Accumulator(8, "saturate"))
    assert record == {
        "value": -23,
        "events": 1,
        "first_step": 1,
        "exact": 50,
        "minimum": 0,
        "maximum": 200,
        "transient": True,
        "persistent": False,
    }
    wrapped = one_output([100, 100, -150], Accumulator(8, "wrap"))
    assert (wrapped["value"], wrapped["events"], wrapped["transient"]) == (50, 2, True)
    reverse = one_output([-150, 100, 100], Accumulator(8, "saturate"))
    assert (reverse["value"], reverse["first_step"]) == (72, 0)


def test_an_exact_sum_out_of_range_is_persistent_not_transient():
    record = one_output([100, 100], Accumulator(8, "wrap"))
    assert (record["value"], record["transient"], record["persistent"]) == (-56, False, True)


def test_the_bounds_themselves_do_not_overflow():
    for weights, value in (([127], 127), ([-128], -128)):
        record = one_output(weights, Accumulator(8))
        assert (record["value"], record["events"]) == (value, 0)
    for weights, value in (([127, 1], -128), ([-128, -1], 127)):
        record = one_output(weights, Accumulator(8))
        assert (record["value"], record["events"], record["first_step"]) == (value, 1, 1)


def test_spilling_by_hand():
    # Spill every 2 steps: 60 + 60 = 120 fits 8 bits and goes to the wide accumulator; the rest, 60,
    # follows at the end. 180 does not fit a wide accumulator of 8 bits: -76.
    assert one_output([60, 60, 60], Accumulator(8, "wrap", 2, 16))["value"] == 180
    record = one_output([60, 60, 60], Accumulator(8, "wrap", 2, 8))
    assert (record["value"], record["events"], record["first_step"]) == (-76, 1, 2)
    assert record["persistent"]


def test_a_spill_of_int7_products_never_overflows_int16():
    # 8 products of 63 * 63 = 31752 fit int16, 9 do not (EasyQuant).
    layer = weighted(FullyConnected, np.full((1, 64), 63, np.int8))
    x = np.full((1, 64), 63, np.int8)
    eight = accumulate_layer(layer, x, Accumulator(16, "wrap", 8, 32))
    nine = accumulate_layer(layer, x, Accumulator(16, "wrap", 9, 32))
    assert eight.events.item() == 0
    assert eight.value.item() == 64 * 63 * 63
    assert nine.events.item() == 7


def test_steps_are_counted_per_output_and_skip_zero_weights():
    layer = weighted(FullyConnected, np.array([[0, 100, 100], [100, 0, 100]], np.int8))
    result = accumulate_layer(layer, np.ones((1, 3), np.int8), Accumulator(8))
    assert result.first_step.tolist() == [[1, 1]]


def test_zero_activations_and_padded_taps_count_as_steps():
    # Spill after 2 steps: with the zero counted, 100 is spilled before 100 arrives.
    layer = weighted(FullyConnected, np.ones((1, 3), np.int8))
    x = np.array([[100, 0, 100]], np.int8)
    assert accumulate_layer(layer, x, Accumulator(8, "wrap", 2, 16)).events.item() == 0
    x = np.array([[100, 100, 0]], np.int8)
    assert accumulate_layer(layer, x, Accumulator(8, "wrap", 2, 16)).events.item() == 1


def test_terms_run_from_the_highest_exponent_down():
    # 7 = 8 - 1: the prefix reaches 8, which 4 bits (-8 to 7) cannot hold; as one product it fits.
    assert one_output([7], Accumulator(4), "terms")["maximum"] == 8
    assert one_output([7], Accumulator(4), "terms")["transient"]
    assert one_output([7], Accumulator(4), "parallel_terms")["events"] == 0


def test_an_output_without_steps_stays_zero():
    record = one_output([0, 0], Accumulator(8, "saturate", 3, 16))
    assert (record["value"], record["events"], record["first_step"]) == (0, 0, -1)


def test_depthwise_equals_grouped_convolution():
    rng = np.random.default_rng(3)
    weights = rng.integers(-128, 128, (6, 3, 3, 1)).astype(np.int8)
    x = rng.integers(-128, 128, (2, 5, 5, 3)).astype(np.int8)
    results = [
        accumulate_layer(weighted(kind, weights, groups=3), x, Accumulator(12))
        for kind in (Conv2D, DepthwiseConv2D)
    ]
    assert_equal_to_naive(
        weighted(DepthwiseConv2D, weights, groups=3), x, Accumulator(12), "product"
    )
    np.testing.assert_array_equal(results[0].value, results[1].value)


def test_naf_digits_are_exact_sparse_and_minimal():
    values = np.arange(-256, 256)
    digits = naf_digits(values)
    np.testing.assert_array_equal(digits.sum(axis=0), values)
    assert not ((digits[1:] != 0) & (digits[:-1] != 0)).any()
    # Minimal weight by the formula popcount(|v| XOR 3 |v|).
    weight = [(abs(v) ^ (3 * abs(v))).bit_count() for v in values.tolist()]
    assert np.count_nonzero(digits, axis=0).tolist() == weight
    for index, value in enumerate(values.tolist()):
        column = digits[:, index]
        assert column[column != 0].tolist() == naive.naf(value)


def test_naf_digit_counts_of_int8():
    # Known table for [-128, 127]: values with 0 to 4 terms.
    counts = np.count_nonzero(naf_digits(np.arange(-128, 128)), axis=0)
    assert np.bincount(counts).tolist() == [1, 15, 72, 120, 48]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1,), "acc_bits must be 2 to 62, but is 1"),
        ((63,), "acc_bits must be 2 to 62, but is 63"),
        ((8, "clip"), "overflow must be 'wrap' or 'saturate', but is 'clip'"),
        ((8, "wrap", 4), "belong together"),
        ((8, "wrap", None, 16), "belong together"),
        ((8, "wrap", 0, 16), "spill_interval must be at least 1 step, but is 0"),
        ((8, "wrap", 4, 7), r"wide_acc_bits must be acc_bits \(8\) to 62, but is 7"),
    ],
)
def test_impossible_accumulators_are_refused(arguments, message):
    with pytest.raises(HardwareError, match=message):
        Accumulator(*arguments)


def test_ternary_steps_refuse_other_weights():
    with pytest.raises(HardwareError, match="the weights reach from -1 to 2"):
        step_coefficients([-1, 2], "ternary")


def test_unknown_steps_are_refused():
    with pytest.raises(HardwareError, match="but is 'booth'"):
        step_coefficients([1], "booth")
