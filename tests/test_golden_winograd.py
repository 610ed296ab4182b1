"""Winograd transforms and layers against printed matrices, plain loops and published faults."""

from dataclasses import replace
from fractions import Fraction

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden.errors import InputError, UnsupportedError
from golden.formats import bits_needed
from golden.network import Conv2D, DepthwiseConv2D, FullyConnected, Padding, Requantization
from golden.operators import accumulators
from golden.winograd import (
    adders,
    axis_transform,
    choose_named,
    complex_f4,
    cook_toom,
    divide,
    inverse_of_odd,
    ncnn_f4,
    winograd,
    winograd_layer,
)
from golden.winograd.projection import (
    ProjectedWeights,
    project_transformed,
    projected_layer,
    transformed_weights,
    weight_terms,
)
from golden.winograd.published import (
    channels_that_fit,
    float32_quotient,
    largest_weight,
    products_that_fit,
    stored_weights,
)

RULE = Requantization(np.array([1 << 30], np.int32), np.array([0], np.int32))
FORMS = ("scaled", "row_minimal", "dyadic")


def conv(weights, zero_point=0, groups=1, **extra):
    kind = DepthwiseConv2D if extra.pop("depthwise", False) else Conv2D
    return kind(
        name="conv", inputs=(0,), outputs=(1,), weights=weights, weight_bits=8,
        weight_zero_point=0, bias=None, input_zero_point=zero_point, output_zero_point=0,
        requantization=RULE, activation_min=-128, activation_max=127, groups=groups, **extra,
    )  # fmt: skip


def codes(rng, *shape, low=-128, high=128):
    return rng.integers(low, high, shape).astype(np.int8)


def naive_sums(layer, x):
    """Accumulators by plain loops that know nothing of golden."""
    pad = layer.padding
    taps = naive.convolution_taps(
        (x.astype(int) - layer.input_zero_point).tolist(),
        layer.weights.astype(int).tolist(),
        layer.stride,
        layer.dilation,
        (pad.top, pad.bottom, pad.left, pad.right),
        layer.groups,
    )
    return np.array(
        [
            [[[sum(w * v for w, v in one) for one in pixel] for pixel in row] for row in image]
            for image in taps
        ]
    )


# Transforms: matrices as Lavin and Gray 2016, eq-ncnn and Meng and Brothers 2019 print them -------

F23_INPUT = [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]]
F43_INPUT = [
    [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
]  # fmt: skip
F43_OUTPUT = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


def test_f23_is_that_of_lavin_and_gray():
    scaled, minimal = axis_transform(2, 3, "scaled"), axis_transform(2, 3)
    for axis in (scaled, minimal):
        assert axis.input.tolist() == F23_INPUT
        assert axis.divisor == 2
    assert scaled.weight.tolist() == [[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]
    assert scaled.output.tolist() == [[1, 1, 1, 0], [0, 1, -1, 1]]
    assert minimal.weight.tolist() == [[1, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 1]]
    assert minimal.output.tolist() == [[2, 1, 1, 0], [0, 1, -1, 2]]


def test_f43_has_the_matrices_of_eq_ncnn_and_its_row_minimal_form():
    scaled, minimal = axis_transform(4, 3, "scaled"), axis_transform(4, 3)
    for axis in (scaled, minimal, axis_transform(4, 3, "dyadic")):
        assert axis.input.tolist() == F43_INPUT
        assert axis.divisor == 24
    assert scaled.weight.tolist() == [
        [6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]
    ]  # fmt: skip
    assert scaled.output.tolist() == F43_OUTPUT
    assert minimal.weight.tolist() == [
        [1, 0, 0], [-1, -1, -1], [-1, 1, -1], [1, 2, 4], [1, -2, 4], [0, 0, 1]
    ]  # fmt: skip
    assert minimal.output.tolist() == [
        [6, 4, 4, 1, 1, 0], [0, 4, -4, 2, -2, 0], [0, 4, 4, 4, 4, 0], [0, 4, -4, 8, -8, 24]
    ]  # fmt: skip


def test_dyadic_leaves_powers_of_two_alone_in_the_output_transform():
    axis = axis_transform(4, 3, "dyadic")
    assert axis.weight[[0, 5]].tolist() == [[3, 0, 0], [0, 0, 3]]
    assert axis.output.tolist() == [
        [2, 4, 4, 1, 1, 0], [0, 4, -4, 2, -2, 0], [0, 4, 4, 4, 4, 0], [0, 4, -4, 8, -8, 8]
    ]  # fmt: skip


def test_ncnn_carries_six_instead_of_24_in_the_last_row():
    rows, columns = ncnn_f4().axes
    assert rows.weight[5].tolist() == [0, 0, 6]
    assert columns.output[3].tolist() == [0, 1, -1, 8, -8, 4]


def test_f63_has_a_divisor_of_129600_and_fractions_cleared():
    axis = axis_transform(6, 3)
    assert axis.input[0].tolist() == [-4, 0, 21, 0, -21, 0, 4, 0]
    assert axis.input[1].tolist() == [0, 4, 4, -17, -17, 4, 4, 0]
    assert axis.divisor == 360
    assert (winograd(6, 3).divisor, winograd(6, 3).shift, winograd(6, 3).odd) == (129600, 6, 2025)


def test_f25_shares_its_input_transform_with_f43():
    assert axis_transform(2, 5).input.tolist() == F43_INPUT
    assert axis_transform(2, 5).divisor == 24


def test_divisors_and_savings_of_other_sizes():
    assert [axis_transform(m, r).divisor for m, r in ((3, 3), (4, 5))] == [6, 360]
    sizes = ((2, 3), (3, 3), (4, 3), (6, 3), (2, 5), (4, 5))
    savings = [round(float(winograd(m, r).saving), 4) for m, r in sizes]
    assert savings == [2.25, 3.24, 4, 5.0625, 2.7778, 6.25]


def test_complex_points_take_46_products():
    transform = complex_f4()
    assert transform.products == 46
    assert transform.divisor == 16
    assert round(float(transform.saving), 3) == 3.130
    assert np.abs(transform.input).sum(axis=(1, 2)).max() == 16
    assert np.abs(transform.weight).sum(axis=(1, 2)).max() == 9


def test_adders_are_those_that_lavin_and_gray_count():
    counts = {
        "2 scaled": (32, 28, 24),
        "4 scaled": (216, 90, 140),
        "4 row_minimal": (216, 72, 160),
        "4 dyadic": (216, 90, 140),
    }
    for name, (inputs, weights, outputs) in counts.items():
        size, form = name.split()
        found = adders(winograd(int(size), 3, form))
        assert (found.input, found.weight, found.output) == (inputs, weights, outputs)


def check_identity(transform, rng):
    """Compare one random tile with the direct sums, in Python's own integers."""
    (height, width), (R, S) = transform.outputs, transform.kernel
    d = rng.integers(-128, 128, transform.tile)
    g = rng.integers(-128, 128, transform.kernel)
    products = (transform.input * d).sum(axis=(1, 2)) * (transform.weight * g).sum(axis=(1, 2))
    for i in range(height):
        for j in range(width):
            direct = sum(int(d[i + r, j + s]) * int(g[r, s]) for r in range(R) for s in range(S))
            assert int(transform.output[i, j] @ products) == transform.divisor * direct


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.fractions(min_value=-4, max_value=4, max_denominator=3), min_size=1, max_size=5,
        unique=True,
    ),
    st.data(),
)  # fmt: skip
def test_any_points_give_an_exact_algorithm_with_integers(points, data):
    taps = data.draw(st.integers(1, len(points) + 1))
    axis = cook_toom(points, len(points) + 2 - taps, taps, data.draw(st.sampled_from(FORMS)))
    rng = np.random.default_rng(0)
    d, g = rng.integers(-9, 10, len(axis.input)), rng.integers(-9, 10, taps)
    products = (axis.weight @ g) * (axis.input @ d)
    direct = np.array([g @ d[i : i + taps] for i in range(len(axis.output))])
    np.testing.assert_array_equal(axis.output @ products, axis.divisor * direct)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(2, 3), (4, 3), (6, 3), (2, 5), (4, 5), ((3, 1), (3, 1))])
def test_nested_transforms_are_exact(size, form):
    check_identity(winograd(*size, form), np.random.default_rng(1))


def test_ncnn_and_complex_transforms_are_exact():
    check_identity(ncnn_f4(), np.random.default_rng(1))
    check_identity(complex_f4(), np.random.default_rng(2))


def test_points_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"F\(2,3\) takes 3 different points .* got 0, 1, 1"):
        cook_toom([0, 1, 1], 2, 3)
    with pytest.raises(InputError, match="the weights can carry divisors"):
        cook_toom([Fraction(0), Fraction(1), Fraction(-1)], 2, 3, (4, 1, 1, 1))
    with pytest.raises(InputError, match="standard ones"):
        axis_transform(10, 5)


# Factored forms of docs/winograd.md ---------------------------------------------------------------


def test_twelve_additions_make_the_input_transform_of_f43():
    d = np.random.default_rng(3).integers(-128, 128, 6).tolist()
    a, b = d[4] - 4 * d[2], d[3] - 4 * d[1]
    c, e = d[4] - d[2], d[3] - d[1]
    rows = [c + 4 * (d[0] - d[2]), b + a, a - b, c + 2 * e, c - 2 * e, (d[5] - d[3]) - 4 * e]
    assert rows == (np.array(F43_INPUT) @ d).tolist()


def test_ten_additions_make_the_dyadic_output_transform_of_f43():
    m = np.random.default_rng(4).integers(-(2**20), 2**20, 6).tolist()
    s, d, u, v = m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]
    rows = [
        2 * m[0] + 4 * s + u,
        4 * d + 2 * v,
        4 * s + 4 * u,
        4 * d + 8 * v + 8 * m[5],
    ]
    assert rows == (axis_transform(4, 3, "dyadic").output @ m).tolist()


# Layers -------------------------------------------------------------------------------------------


def random_problem(rng):
    """A stride-1 layer, codes and a transform for its kernel; images from a single pixel."""
    R, S = [(3, 3), (3, 3), (5, 5), (1, 3), (3, 1), (2, 4)][rng.integers(6)]
    groups = int(rng.choice([1, 1, 2, 4]))
    per_group = int(rng.integers(1, 4))
    weights = codes(rng, groups * int(rng.integers(1, 4)), R, S, per_group)
    padding = Padding(*(int(n) for n in rng.integers(0, 4, 4)))
    height, width = (int(n) for n in rng.integers(1, 14, 2))
    height, width = max(height, R - padding.top), max(width, S - padding.left)
    layer = conv(weights, int(rng.integers(-5, 6)), groups, padding=padding)
    x = codes(rng, int(rng.integers(1, 3)), height, width, groups * per_group)
    named = [ncnn_f4(), complex_f4(), winograd(6, 3)]
    if (R, S) == (3, 3) and rng.random() < 0.5:
        return layer, x, named[rng.integers(3)]
    outputs = (int(rng.integers(1, 5)), int(rng.integers(1, 5)))
    return layer, x, winograd(outputs, (R, S), FORMS[rng.integers(3)])


@pytest.mark.parametrize("seed", range(6))
def test_layers_equal_the_direct_sum_exact_and_wrapped(seed):
    rng = np.random.default_rng(seed)
    for _ in range(25):
        layer, x, transform = random_problem(rng)
        direct = accumulators(layer, x)
        result = winograd_layer(layer, x, transform)
        assert result.choice.transform is transform
        np.testing.assert_array_equal(result.accumulators, direct)
        bits = bits_needed(int(min(direct.min(), 0)), int(max(direct.max(), 0))) + transform.shift
        wrapped = winograd_layer(layer, x, transform, bits).accumulators
        np.testing.assert_array_equal(wrapped, direct)
        if bits - 1 > transform.shift:
            narrow = winograd_layer(layer, x, transform, bits - 1).accumulators
            assert (narrow != direct).any()


def test_a_layer_equals_plain_loops():
    rng = np.random.default_rng(10)
    for transform in (winograd(2, 3), winograd(4, 3), complex_f4()):
        layer = conv(codes(rng, 4, 3, 3, 2), 3, groups=2, padding=Padding(1, 1, 1, 1))
        x = codes(rng, 1, 7, 5, 4)
        result = winograd_layer(layer, x, transform)
        np.testing.assert_array_equal(result.accumulators, naive_sums(layer, x))


def test_depthwise_layers_with_a_multiplier_are_layers_of_groups():
    rng = np.random.default_rng(11)
    layer = conv(codes(rng, 6, 3, 3, 1), groups=3, depthwise=True)
    x = codes(rng, 2, 8, 9, 3)
    result = winograd_layer(layer, x, winograd(4, 3))
    np.testing.assert_array_equal(result.accumulators, naive_sums(layer, x))


def test_the_wrapped_form_keeps_the_low_bits_of_a_sum_that_does_not_fit():
    rng = np.random.default_rng(12)
    layer, x = conv(codes(rng, 2, 3, 3, 4)), codes(rng, 1, 6, 6, 4)
    direct = accumulators(layer, x)
    for bits in (10, 16, 20):
        kept = bits - 6
        low = (direct + (1 << (kept - 1))) % (1 << kept) - (1 << (kept - 1))
        found = winograd_layer(layer, x, winograd(4, 3), bits).accumulators
        np.testing.assert_array_equal(found, low)


def test_int7_with_64_channels_needs_29_wrapped_bits():
    # 9 * 64 * 63 * 63 = 2286144 needs 23 bits signed; 6 more for 576 = 2**6 * 9.
    layer = conv(np.full((1, 3, 3, 64), 63, np.int8))
    for code in (63, -63):
        x = np.full((1, 6, 6, 64), code, np.int8)
        for bits, same in ((29, True), (28, False)):
            found = winograd_layer(layer, x, winograd(4, 3), bits).accumulators
            assert (found == accumulators(layer, x)).all() == same


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (conv(np.ones((1, 3, 3, 1), np.int8), stride=(2, 2)), "stride 2x2, tiles need 1x1"),
        (conv(np.ones((1, 3, 3, 1), np.int8), dilation=(1, 2)), "dilation 1x2, tiles need 1x1"),
        (conv(np.ones((1, 5, 5, 1), np.int8)), "kernel 5x5, F(4x4,3x3) takes 3x3"),
    ],
)
def test_other_layers_are_direct_and_say_why(layer, reason):
    x = codes(np.random.default_rng(13), 1, 9, 9, 1)
    result = winograd_layer(layer, x, winograd(4, 3))
    assert (result.choice.name, result.choice.reason) == ("direct", reason)
    np.testing.assert_array_equal(result.accumulators, accumulators(layer, x))


def test_a_dense_layer_is_direct():
    dense = FullyConnected(
        "dense", (0,), (1,), np.ones((2, 3), np.int8), 8, 0, None, 0, 0, RULE, -128, 127
    )
    result = winograd_layer(dense, np.ones((1, 3), np.int8), winograd(2, 3))
    assert result.choice.reason == "no window slides over its input"
    assert result.accumulators.tolist() == [[3, 3]]


def test_a_name_takes_the_transform_of_the_kernel():
    def named(kernel, name):
        return choose_named(conv(np.ones((1, *kernel, 1), np.int8)), name)

    assert named((3, 3), "f4").name == "F(4x4,3x3)"
    assert named((5, 5), "f2").name == "F(2x2,5x5)"
    assert named((3, 1), "f2").name == "F(2x1,3x1)"
    assert named((3, 3), "complex").transform.products == 46
    assert named((1, 1), "f2").reason == "kernel 1x1, no product can be saved"
    assert named((5, 5), "f6").reason == "F(6x6,5x5) has 10 products along an axis, too many"


def test_widths_and_operands_out_of_range_are_refused():
    layer, x = conv(np.ones((1, 3, 3, 1), np.int8)), np.ones((1, 4, 4, 1), np.int8)
    with pytest.raises(InputError, match=r"bits must be 7 to 62 for F\(4x4,3x3\), but is 6"):
        winograd_layer(layer, x, winograd(4, 3), 6)
    huge = np.full((1, 8, 8, 1), 1 << 45)
    with pytest.raises(UnsupportedError, match="exact ones end at 64"):
        winograd_layer(layer, huge, winograd(6, 3))


def test_a_remainder_is_an_error_and_never_rounded():
    with pytest.raises(ArithmeticError, match="no multiple"):
        divide(np.array([577]), winograd(4, 3))


def test_inverses_are_the_known_constants():
    assert inverse_of_odd(9, 32) == 0x38E38E39
    assert inverse_of_odd(9, 23) == 6524473
    assert inverse_of_odd(2025, 32) == 252395609
    assert inverse_of_odd(2025, 23) == 737369


# Published arithmetic and its faults --------------------------------------------------------------


def test_eq_ncnn_stores_int7_weights_wrong_and_56_is_the_largest_that_is_safe():
    scaled = winograd(4, 3, "scaled")
    weights = np.zeros((1, 3, 3, 1), dtype=np.int64)
    weights[0, 2, 2, 0] = 63
    stored, overflowed = stored_weights(scaled, weights)
    assert stored[0, 35, 0] == -29248  # 576 * 63 = 36288 = 65536 - 29248
    assert overflowed.sum() == 1
    assert largest_weight(scaled, 16) == 56
    signs = np.sign(scaled.weight).reshape(36, 3, 3, 1)
    assert not stored_weights(scaled, 56 * signs)[1].any()
    assert stored_weights(scaled, 57 * signs)[1].any()


def test_a_weight_stored_wrong_computes_another_convolution():
    weights = np.zeros((1, 3, 3, 1), dtype=np.int8)
    weights[0, 2, 2, 0] = 57
    x = codes(np.random.default_rng(20), 1, 6, 6, 1)
    layer, scaled = conv(weights), winograd(4, 3, "scaled")
    stored, _ = stored_weights(scaled, weights.astype(np.int64))
    ones = np.ones(stored.shape[:2], np.int64)
    broken = projected_layer(layer, x, scaled, ProjectedWeights(stored, ones))
    assert (broken.accumulators != accumulators(layer, x)).any()
    safe, _ = stored_weights(scaled, np.minimum(weights, 56).astype(np.int64))
    right = projected_layer(
        replace(layer, weights=np.minimum(weights, 56)), x, scaled, ProjectedWeights(safe, ones)
    )
    assert right.output_sqnr_db == float("inf")


def test_ncnn_divides_wrong_from_1864137_on():
    y = np.arange(3_728_271)  # every quotient of a non-negative int32 multiple of 576
    wrong = np.flatnonzero(float32_quotient(y * 576, 576) != y)
    assert len(wrong) == 58254
    assert wrong[0] == 1_864_137


def test_int16_holds_8_products_of_int7_only_without_the_smallest_code():
    symmetric = [products_that_fit(16, (-m, m), (-m, m)) for m in (127, 63, 31)]
    full = [products_that_fit(16, (-m - 1, m), (-m - 1, m)) for m in (127, 63, 31)]
    assert (symmetric, full) == ([2, 8, 34], [1, 7, 31])
    assert products_that_fit(16, (0, 255), (-127, 127)) == 1


def test_channels_that_int32_holds():
    int8, int6 = (-128, 127), (-31, 31)
    scaled, minimal = winograd(4, 3, "scaled"), winograd(4, 3)
    assert channels_that_fit(scaled, int8, int6)["sum"] == 9
    assert channels_that_fit(ncnn_f4(), int8, int6)["sum"] == 37
    assert channels_that_fit(ncnn_f4(), int8, (-127, 127))["sum"] == 9
    assert channels_that_fit(minimal, int8, (-127, 127)) == {"sum": 75, "output": 25}
    # 2**31 / (576 * 9 * 127 * 31) = 105.2; with -128 among the activations 104.4
    assert channels_that_fit(minimal, (-127, 127), int6)["output"] == 105
    assert channels_that_fit(minimal, int8, int6)["output"] == 104


# n-hot and ternary weights ------------------------------------------------------------------------


def two_hot_gaussian():
    """2-hot int8 weights: Gaussian, scaled by channel, nearest of all sums of two powers."""
    rng = np.random.default_rng(14)
    w = rng.normal(size=(100, 3, 3, 64))
    q = np.rint(w / np.abs(w).max(axis=(1, 2, 3), keepdims=True) * 127)
    powers = [0, *(s << e for e in range(8) for s in (-1, 1))]
    levels = np.array(sorted({a + b for a in powers for b in powers if abs(a + b) <= 127}))
    return levels[np.abs(q[..., np.newaxis] - levels).argmin(axis=-1)]


def test_terms_of_two_hot_weights_in_the_winograd_domain():
    # 9 weights of 1.86 terms; F(2,3) 1.71 times fewer, F(4,3) 2.63 and with 24 G 2.32 times.
    w = two_hot_gaussian()
    f2, f4, scaled = (
        weight_terms(t, w) for t in (winograd(2, 3), winograd(4, 3), winograd(4, 3, "scaled"))
    )
    assert f2.direct_per_output == pytest.approx(16.75, abs=0.05)
    found = [(t.mean, t.per_output, t.saving) for t in (f2, f4, scaled)]
    expected = [(2.452, 9.81, 1.71), (2.833, 6.37, 2.63), (3.204, 7.21, 2.32)]
    for one, wanted in zip(found, expected, strict=True):
        assert one == pytest.approx(wanted, rel=0.006)
    few = [
        (naf_weights(transformed_weights(t, w)) <= 2).mean()
        for t in (winograd(2, 3), winograd(4, 3))
    ]
    assert few == pytest.approx([0.56, 0.39], abs=0.01)


def naf_weights(values):
    """Terms of the non-adjacent form: bits in which v and 3v differ (methods of Reitwiesner)."""
    magnitudes = np.abs(values)
    return np.bitwise_count(magnitudes ^ (3 * magnitudes))


def test_projected_weights_are_the_nearest_of_few_terms():
    rng = np.random.default_rng(15)
    transform, w = winograd(4, 3), rng.integers(-127, 128, (4, 3, 3, 8))
    exact = transformed_weights(transform, w)
    powers = [0, *(s << e for e in range(15) for s in (-1, 1))]
    levels = np.array(sorted({a + b for a in powers for b in powers}))
    nearest = np.abs(exact[..., np.newaxis] - levels).min(axis=-1)
    projected = project_transformed(transform, w, "nhot", 2)
    np.testing.assert_array_equal(np.abs(projected.codes - exact), nearest)
    assert naf_weights(projected.codes).max() == 2
    assert (projected.factor == 1).all()


def test_ternary_transformed_weights_have_the_least_squared_error():
    rng = np.random.default_rng(16)
    transform, w = winograd(2, 3), rng.integers(-9, 10, (2, 3, 3, 5))
    exact = transformed_weights(transform, w)
    projected = project_transformed(transform, w, "ternary")
    assert np.isin(projected.codes, (-1, 0, 1)).all()
    grid = np.stack(np.meshgrid(*[(-1, 0, 1)] * 5), axis=-1).reshape(-1, 5)
    grid = grid[grid.any(axis=1)]
    for k, p in np.ndindex(*exact.shape[:2]):
        u = exact[k, p]
        gains = (grid @ u) ** 2 / (grid**2).sum(axis=1)  # what the best real factor takes away
        chosen = projected.codes[k, p]
        if chosen.any():
            assert (chosen @ u) ** 2 / (chosen**2).sum() == pytest.approx(gains.max())
            assert abs(projected.factor[k, p] - (chosen @ u) / (chosen**2).sum()) <= 0.5


def test_projection_in_the_winograd_domain_has_the_error_of_its_terms():
    rng = np.random.default_rng(17)
    layer = conv(codes(rng, 8, 3, 3, 16, low=-127), padding=Padding(1, 1, 1, 1))
    x, transform, w = codes(rng, 1, 8, 8, 16), winograd(4, 3), layer.weights.astype(np.int64)
    errors = [
        projected_layer(layer, x, transform, project_transformed(transform, w, "nhot", n))
        for n in (1, 2, 3)
    ]
    sqnr = [error.output_sqnr_db for error in errors]
    assert sqnr == sorted(sqnr)
    assert sqnr[1] > sqnr[0] + 6
    ternary = projected_layer(layer, x, transform, project_transformed(transform, w, "ternary"))
    assert 3 < ternary.weight_sqnr_db < 12
    exact = ProjectedWeights(transformed_weights(transform, w), np.ones((8, 36), np.int64))
    unchanged = projected_layer(layer, x, transform, exact)
    np.testing.assert_array_equal(unchanged.accumulators, accumulators(layer, x))
    assert unchanged.output_sqnr_db == float("inf")


def test_an_unknown_projection_is_refused():
    w = np.ones((1, 3, 3, 1), np.int64)
    with pytest.raises(InputError, match="'nhot' of 1 to 4 terms"):
        project_transformed(winograd(2, 3), w, "nhot", 9)
