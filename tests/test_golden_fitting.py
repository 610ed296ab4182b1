"""Fitted networks against brute force over every input, certificates, hand sums and optimality."""

from dataclasses import replace
from itertools import product

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden.certificates import certify
from golden.errors import InputError
from golden.fitting import METHODS, fit_network
from golden.formats import bits_needed
from golden.multipliers import requantization
from golden.network import Conv2D, DepthwiseConv2D, FullyConnected, Network, Padding, Tensor
from golden.operators import accumulators, operands
from golden.ranges import clamp_ranges
from golden.run import run

RESCALES = ("keep", "refit", "search")


def network_of(layer, shape, dtype="int8", out_shape=None):
    source = Tensor("x", shape, dtype, 1.0, layer.input_zero_point)
    target = Tensor("y", out_shape or (1, len(layer.weights)), "int8", 1.0, 0)
    return Network("net", (source, target), (layer,), (0,), (1,))


def common(zero_point=0, bias=None, rule=None):
    return {
        "name": "layer",
        "inputs": (0,),
        "outputs": (1,),
        "weight_bits": 8,
        "weight_zero_point": 0,
        "bias": None if bias is None else np.array(bias, dtype=np.int64),
        "input_zero_point": zero_point,
        "output_zero_point": 0,
        "requantization": requantization(1 / 64) if rule is None else rule,
        "activation_min": -128,
        "activation_max": 127,
    }


def dense(weights, dtype="int8", **settings):
    layer = FullyConnected(weights=np.array(weights, dtype=np.int8), **common(**settings))
    return network_of(layer, (1, layer.weights.shape[1]), dtype)


def conv(rng, kind=Conv2D, groups=1, zero_point=-128, **geometry):
    kernel = (4, 3, 2, 4 // groups)
    weights = rng.integers(-127, 128, kernel).astype(np.int8)
    layer = kind(
        weights=weights,
        groups=groups,
        **common(zero_point, bias=rng.integers(-500, 500, 4)),
        **geometry,
    )
    x = np.zeros((1, 6, 5, 4), np.int8)
    return network_of(layer, x.shape, out_shape=accumulators(layer, x).shape)


def fitted_weights(network, acc_bits, method, **settings):
    return fit_network(network, acc_bits, method, **settings).network.layers[0].weights.tolist()


def certificate(network):
    (layer,) = network.layers
    return certify(layer, network.tensors[0], clamp_ranges(network)[0])


def real_multipliers(rule):
    return np.ldexp(rule.multiplier.astype(float), rule.shift - 31)


# -- hand sums: operands -128 to 127, multipliers kept ---------------------------------------------


def test_a2q_lowers_all_magnitudes_by_the_same_amount():
    # 511 >> 7 = 3 is the l1 norm that 10 bits allow: 5 and 2, each less 2
    assert fitted_weights(dense([[5, -2]]), 10, "a2q", rescale="keep") == [[3, 0]]


def test_a2q_rounds_toward_zero_where_the_nearest_would_overflow():
    # 1023 >> 7 = 7: 4 - 9/4 = 1.75 four times; rounded to 2 they sum to 8, and 8 * -128 = -1024
    # fits 11 bits, but 8 * 128 (weights negated) = 1024 does not
    assert fitted_weights(dense([[4, 4, 4, 4]]), 11, "a2q", rescale="keep") == [[1, 1, 1, 1]]


def test_a2q_plus_centres_and_gives_each_sign_half_the_room():
    # mean 4: 4 -2 -2; 511 // 255 = 2 for each sign: 2 and -1 -1
    assert fitted_weights(dense([[8, 2, 2]]), 10, "a2q+", rescale="keep") == [[2, -1, -1]]


def test_a2q_plus_stays_within_the_weights_element_type():
    # mean -43: 170 -85 -85; 32767 // 255 = 128 for each sign: 128 -64 -64, and int8 ends at 127
    weights = [[127, -128, -128]]
    assert fitted_weights(dense(weights), 16, "a2q+", rescale="keep") == [[127, -64, -64]]


def test_axe_takes_the_exact_interval_of_the_accumulator():
    # 4 * -128 = -512 and 4 * 127 = 508: nothing is left of 10 bits for the second weight
    assert fitted_weights(dense([[5, -2]]), 10, "axe", rescale="keep") == [[4, 0]]
    # a single operand fills 8 bits: -128 to 127
    assert fitted_weights(dense([[3]]), 8, "axe", rescale="keep") == [[1]]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        # operands 0 and 255, once equal and once independent. 1022 / 255 = 4.008 is the l1 norm of
        # the target 2.004 -2.004. The first weight loses 3 - 2 = 1; where the second operand is
        # always the same as the first it makes up for it: -2.004 + 1 -> -1
        ([[-128, -128], [127, 127]], [2, -1]),
        ([[-128, -128], [-128, 127], [127, -128], [127, 127]], [2, -2]),
    ],
)
def test_axe_makes_up_for_earlier_weights_as_far_as_operands_agree(samples, expected):
    network = dense([[3, -3]], zero_point=-128)
    fit = fit_network(
        network, 10, "axe", rescale="keep", calibration=[np.array(samples, dtype=np.int8)]
    )
    assert fit.network.layers[0].weights.tolist() == [expected]


def test_terms_need_room_for_8x_before_7x():
    # 8 * 127 = 1016 fits 11 bits and 8 * 128 = 1024 does not; 7 * 128 = 896 does
    network = dense([[-7]])
    assert fit_network(network, 11, "axe").network.layers[0] is network.layers[0]
    assert certificate(network).term_bits.tolist() == [12]
    for method in METHODS[::2]:  # a single weight minus its mean is 0
        fit = fit_network(network, 11, method, steps="terms")
        assert certificate(fit.network).term_bits.max() <= 11
        assert fit.network.layers[0].weights.any()


# -- whatever the network: every sum fits ----------------------------------------------------------


@st.composite
def tasks(draw, dtype, most_taps):
    taps = draw(st.integers(1, most_taps))
    row = st.lists(st.integers(-128, 127), min_size=taps, max_size=taps)
    weights = draw(st.lists(row, min_size=1, max_size=3))
    zero_point = draw(st.integers(-8, 7) if dtype == "int4" else st.integers(-128, 127))
    return (
        dense(weights, dtype, zero_point=zero_point, bias=[7] * len(weights)),
        draw(st.integers(4, 20)),
        draw(st.sampled_from(METHODS)),
        {
            "rescale": draw(st.sampled_from(RESCALES)),
            "steps": draw(st.sampled_from(["product", "terms"])),
        },
    )


@settings(deadline=None, max_examples=150)
@given(tasks("int8", 12))
def test_the_certificate_holds_whatever_the_weights(task):
    network, acc_bits, method, options = task
    try:
        fit = fit_network(network, acc_bits, method, **options)
    except InputError as error:
        acc_bits = int(str(error).split()[-1])  # the message names a width that will do
        fit = fit_network(network, acc_bits, method, **options)
    bits = "term_bits" if options["steps"] == "terms" else "exact_bits"
    proved = getattr(certificate(fit.network), bits)
    assert proved.max() <= acc_bits
    assert fit.layers[0].bits_after.tolist() == proved.tolist()
    before = getattr(certificate(network), bits)
    assert fit.layers[0].bits_before.tolist() == before.tolist()
    old, new = network.layers[0], fit.network.layers[0]
    for channel in np.flatnonzero(before <= acc_bits):  # what fits is not touched
        assert (new.weights[channel] == old.weights[channel]).all()
        assert new.bias[channel] == old.bias[channel]
        assert fit.layers[0].factor[channel] == 1


@settings(deadline=None, max_examples=25)
@given(tasks("int4", 3))
def test_no_input_overflows_at_any_step(task):
    network, acc_bits, method, options = task
    try:
        layer = fit_network(network, acc_bits, method, **options).network.layers[0]
    except InputError:
        return
    low, high = naive.bounds(acc_bits)
    for codes in product(range(-8, 8), repeat=layer.weights.shape[1]):
        for row in layer.weights.tolist():
            total = 0
            for weight, code in zip(row, codes, strict=True):
                terms = [weight] if options["steps"] == "product" else naive.naf(weight)
                for term in terms:
                    total += term * (code - layer.input_zero_point)
                    assert low <= total <= high


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "make",
    [
        lambda rng: conv(rng),
        lambda rng: conv(rng, groups=2, stride=(2, 1), padding=Padding(1, 0, 1, 1)),
        lambda rng: conv(rng, DepthwiseConv2D, groups=4, dilation=(2, 2), zero_point=10),
    ],
)
def test_convolutions_fit_with_and_without_calibration(method, make):
    rng = np.random.default_rng(5)
    network = make(rng)
    x = rng.integers(-128, 128, (20, 6, 5, 4)).astype(np.int8)
    for calibration in (None, [x]):
        fit = fit_network(network, 14, method, calibration=calibration)
        assert fit.layers[0].bits_before.min() > 14
        assert certificate(fit.network).exact_bits.max() <= 14
        assert fit.network.layers[0].weights.any()


def test_uint8_weights_keep_their_zero_point():
    weights = np.array([[0, 255, 128, 20], [128, 129, 127, 128]], dtype=np.uint8)
    layer = FullyConnected(weights=weights, **(common() | {"weight_zero_point": 128}))
    fit = fit_network(network_of(layer, (1, 4), "uint8"), 14, "axe")
    new = fit.network.layers[0]
    assert (new.weights.dtype, new.weight_zero_point) == (np.uint8, 128)
    assert certificate(fit.network).exact_bits.max() <= 14
    assert new.weights[1].tolist() == [128, 129, 127, 128]


def test_the_clamp_of_the_layer_before_gives_more_room():
    first = FullyConnected(weights=np.eye(4, dtype=np.int8), **common())
    first = replace(first, name="first", activation_min=-3, activation_max=3)
    second = FullyConnected(
        weights=np.full((1, 4), 100, np.int8), **(common() | {"inputs": (1,), "outputs": (2,)})
    )
    tensors = tuple(Tensor(str(i), (1, n), "int8", 1.0, 0) for i, n in enumerate((4, 4, 1)))
    network = Network("two", tensors, (first, second), (0,), (2,))
    # 400 * 3 = 1200 fits 12 bits; 400 * 128 does not
    assert fit_network(network, 12).network.layers == network.layers
    fit = fit_network(network, 12, activation_range="datatype")
    assert fit.network.layers[0] is network.layers[0]
    assert 0 < np.abs(fit.network.layers[1].weights).sum() <= 16  # 16 * 128 = 2048


# -- nearest, and what the requantization takes up -------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.integers(-127, 127), min_size=2, max_size=8), st.integers(9, 15))
def test_a2q_is_the_nearest_point_of_the_l1_ball_rounded_toward_zero(row, acc_bits):
    radius = ((1 << (acc_bits - 1)) - 1) >> 7
    if certificate(dense([row])).exact_bits[0] <= acc_bits or radius == 0:
        return
    low, high = 0.0, 127.0  # the threshold, by bisection
    while sum(abs(w) for w in row) > radius and high - low > 1e-12:
        middle = (low + high) / 2
        over = sum(max(abs(w) - middle, 0) for w in row) > radius
        low, high = (middle, high) if over else (low, middle)
    threshold = high if sum(abs(w) for w in row) > radius else 0
    (short,) = fitted_weights(dense([row]), acc_bits, "a2q", rescale="keep")
    for w, q in zip(row, short, strict=True):
        magnitude = max(abs(w) - threshold, 0)
        assert q * np.sign(w) >= 0
        assert abs(q) - 1e-9 <= magnitude <= abs(q) + 1 + 1e-9


@settings(deadline=None)
@given(st.lists(st.integers(-127, 127), min_size=2, max_size=8), st.integers(10, 15))
def test_a2q_plus_is_the_nearest_point_with_sum_zero_in_the_l1_ball(row, acc_bits):
    side = ((1 << (acc_bits - 1)) - 1) // 255
    if certificate(dense([row])).exact_bits[0] <= acc_bits:
        return
    (short,) = fitted_weights(dense([row]), acc_bits, "a2q+", rescale="keep")
    # p is nearest to w in a convex set with these corners if no corner z has (w - p)(z - p) > 0;
    # rounding toward zero moved each of the taps by less than 1
    slack = sum(abs(w - q) + 2 * side + 1 for w, q in zip(row, short, strict=True))
    for i, j in product(range(len(row)), repeat=2):
        corner = [side * (k == i) - side * (k == j) for k in range(len(row))]
        centred = [w - sum(row) / len(row) for w in row]
        inner = sum((w - q) * (z - q) for w, q, z in zip(centred, short, corner, strict=True))
        assert inner <= slack


def test_kept_multipliers_are_the_same_integers():
    network = dense([[90, -70, 100], [1, 2, 3]], bias=[5, 6])
    for method in METHODS:
        new = fit_network(network, 12, method, rescale="keep").network.layers[0]
        assert new.requantization is network.layers[0].requantization
        assert new.bias.tolist() == [5, 6]


def test_a_common_factor_of_the_weights_moves_to_the_multiplier():
    # 120 = 40 * 3 and so on: 3 -1 2 sum to 6, and 6 * 128 = 768 fits 11 bits; bias 4000 = 40 * 100
    network = dense([[120, -40, 80]], bias=[4000])
    fit = fit_network(network, 11, "axe")
    new = fit.network.layers[0]
    factor = fit.layers[0].factor[0]
    assert fit.layers[0].cosine > 0.99
    assert real_multipliers(new.requantization)[0] == pytest.approx(factor / 64)
    assert new.weights[0] @ [3, -1, 2] * factor == pytest.approx(40 * 14, rel=0.05)
    assert new.bias[0] == round(4000 / factor)


def test_channels_of_one_multiplier_get_their_own_and_those_that_fit_keep_it():
    network = dense([[90, -70, 100], [1, 2, 3]])
    new = fit_network(network, 12).network.layers[0].requantization
    old = network.layers[0].requantization
    assert new.multiplier.shape == (2,)
    assert (new.multiplier[1], new.shift[1]) == (old.multiplier[0], old.shift[0])


@pytest.mark.parametrize("dropped", [0, 2, 9])
def test_shift_rules_take_up_powers_of_two_and_no_more_than_they_drop(dropped):
    rule = replace(requantization(1.0, "shift_half_up"), shift=np.array([-dropped], np.int32))
    fit = fit_network(dense([[90, -70, 100]], bias=[640], rule=rule), 11)
    new = fit.network.layers[0]
    factor = int(fit.layers[0].factor[0])
    assert factor == fit.layers[0].factor[0]
    assert new.requantization.rounding == "shift_half_up"
    assert -int(new.requantization.shift[0]) == dropped - factor.bit_length() + 1 >= 0
    assert new.bias.tolist() == [640 // factor]


@pytest.mark.parametrize("rescale", RESCALES)
@pytest.mark.parametrize("groups", [1, 2])
def test_calibrated_sums_agree_in_the_mean_and_as_well_as_a_factor_can_make_them(rescale, groups):
    rng = np.random.default_rng(9)
    network = conv(rng, groups=groups, stride=(1, 2), padding=Padding(1, 1, 0, 1))
    x = rng.integers(-128, 60, (20, 6, 5, 4)).astype(np.int8)
    fit = fit_network(network, 15, "a2q", rescale=rescale, calibration=[x])
    old, new = network.layers[0], fit.network.layers[0]
    factor = fit.layers[0].factor
    before = accumulators(old, x).reshape(-1, 4).astype(float)
    after = accumulators(new, x).reshape(-1, 4).astype(float)
    lost = (before + old.bias).mean(axis=0) - factor * (after + new.bias).mean(axis=0)
    assert (np.abs(lost) <= 0.5 * factor + 1e-6).all()
    if rescale == "keep":
        assert (factor == 1).all()
        return
    best = [np.polyfit(s, t, 1)[0] for s, t in zip(after.T, before.T, strict=True)]
    np.testing.assert_allclose(factor, best, rtol=1e-9)


def test_calibration_goes_on_with_what_the_fitted_layers_give():
    rng = np.random.default_rng(2)
    weights = rng.integers(-127, 128, (2, 6, 6)).astype(np.int8)
    rules = common(-128, bias=[100] * 6, rule=requantization(1 / 400))
    zeros = (-128, -128, 0)  # of the three tensors
    layers = tuple(
        replace(
            FullyConnected(weights=w, **rules),
            name=str(i),
            inputs=(i,),
            outputs=(i + 1,),
            output_zero_point=zeros[i + 1],
        )
        for i, w in enumerate(weights)
    )
    tensors = tuple(Tensor(str(i), (1, 6), "int8", 1.0, zero) for i, zero in enumerate(zeros))
    network = Network("two", tensors, layers, (0,), (2,))
    x = rng.integers(-128, 128, (200, 6)).astype(np.int8)
    fit = fit_network(network, 13, calibration=[x])
    middle = [run(n, x, keep_tensors=True).tensors[1] for n in (network, fit.network)]
    sums = [
        accumulators(n.layers[1], m) + n.layers[1].bias
        for n, m in zip((network, fit.network), middle, strict=True)
    ]
    lost = sums[0].mean(axis=0) - fit.layers[1].factor * sums[1].mean(axis=0)
    assert (np.abs(lost) <= 0.5 * fit.layers[1].factor + 1e-6).all()


def test_the_report_counts_what_changed():
    network = dense([[90, -70, 100], [1, 2, 3]])
    fit = fit_network(network, 12, "a2q", rescale="keep")
    (layer,), new = fit.layers, fit.network.layers[0].weights.astype(int)
    old = network.layers[0].weights.astype(int)
    assert (layer.index, layer.name, layer.weights) == (0, "layer", 6)
    assert layer.changed_weights == (new != old).sum() > 0
    assert (layer.l1_before.tolist(), layer.l1_after[1]) == ([260, 6], 6)
    # 2047 >> 7 = 15; 90 -70 100, each less 87.5: 2.5 0 12.5
    assert new.tolist() == [[2, 0, 12], [1, 2, 3]]
    # 90*2 + 100*12 + 14, norms of 8100 + 4900 + 10000 + 14 and of 4 + 144 + 14
    assert layer.cosine == pytest.approx(1394 / (23014**0.5 * 162**0.5))
    # differences 88, 70, 88
    assert layer.sqnr_db == pytest.approx(10 * np.log10(23014 / (88**2 + 70**2 + 88**2)))


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "least"), [("a2q", 10), ("a2q+", 9), ("axe", 9)])
def test_a_width_that_holds_no_operand_is_refused_with_the_least_that_does(method, least):
    network = dense([[50, -20]], zero_point=-128)
    with pytest.raises(InputError, match=rf"single operand \(0 to 255\) .*at least {least}$"):
        fit_network(network, least - 1, method)
    assert fit_network(network, least, method).network.layers[0].weights.any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"acc_bits": 1}, "2 to 62 bits, not 1"),
        ({"acc_bits": 63}, "2 to 62 bits, not 63"),
        ({"acc_bits": 12, "steps": "ternary"}, "not 'clamp' and 'ternary'"),
        ({"acc_bits": 12, "activation_range": "calibrated"}, "not 'calibrated' and 'product'"),
    ],
)
def test_what_cannot_be_proved_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        fit_network(dense([[50, -50]]), **options)


def test_operands_beyond_the_widest_certificate_do_not_stop_a_wide_target():
    fit = fit_network(dense([[127] * 4]), 62)
    assert fit.layers[0].changed_weights == 0
    assert bits_needed(*operand_extremes(fit.network)) <= 62


def operand_extremes(network):
    codes = np.array([[-128] * 4, [127] * 4], dtype=np.int8)
    x, w = operands(network.layers[0], codes)
    sums = (x @ w.T).ravel()
    return int(sums.min()), int(sums.max())
