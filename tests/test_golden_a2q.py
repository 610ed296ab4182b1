"""Weights projected to an accumulator: hand sums, the guarantee, and what stays as it is."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden.a2q import METHODS, project_to_width, shorten
from golden.certificates import certify
from golden.errors import InputError
from golden.files import load_network
from golden.network import WeightedLayer
from golden.ranges import datatype_range
from napier.loading import shipped_file


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        # x in [0, 255], 12 bits: 100 * 255 = 25500 must not exceed 2047: 8.03, 4.01
        ("exact", [8, -4]),
        # 150 * 2**8 = 38400 must not exceed 2047: 5.33, 2.67
        ("a2q", [5, -2]),
        # mean 25: 75, -75; 150 * 255 = 38250 must not exceed 4094: 8.03
        ("a2q+", [8, -8]),
    ],
)
def test_channels_are_shortened_and_rounded_toward_zero(method, expected):
    assert shorten(np.array([[100, -50]]), (0, 255), 12, method).tolist() == [expected]


def test_what_fits_stays_but_for_the_mean_that_a2q_plus_removes():
    row = np.array([[3, -1, 0]])
    assert shorten(row, (-128, 127), 16, "exact").tolist() == [[3, -1, 0]]
    assert shorten(row, (-128, 127), 16, "a2q").tolist() == [[3, -1, 0]]
    # mean 2/3: 7/3, -5/3, -2/3
    assert shorten(row, (-128, 127), 16, "a2q+").tolist() == [[2, -1, 0]]
    assert shorten(np.zeros((1, 2), dtype=int), (-1, 1), 2, "a2q+").tolist() == [[0, 0]]


@given(
    st.lists(st.integers(-255, 255), min_size=1, max_size=12),
    st.tuples(st.integers(-255, 0), st.integers(0, 255)),
    st.integers(2, 20),
    st.sampled_from(METHODS),
)
@settings(max_examples=500, deadline=None)
def test_no_sum_leaves_the_accumulator(row, x_range, acc_bits, method):
    (short,) = shorten(np.array([row]), x_range, acc_bits, method).tolist()
    low, high = x_range
    largest = sum(max(w * low, w * high) for w in short)
    smallest = sum(min(w * low, w * high) for w in short)
    assert -(2 ** (acc_bits - 1)) <= smallest <= largest < 2 ** (acc_bits - 1)


@given(st.lists(st.integers(-127, 127), min_size=1, max_size=12), st.integers(2, 20))
@settings(max_examples=200, deadline=None)
def test_the_exact_bound_shortens_no_weight_more_than_the_l1_bound(row, acc_bits):
    exact, a2q = (shorten(np.array([row]), (0, 255), acc_bits, m) for m in ("exact", "a2q"))
    assert (np.abs(exact) >= np.abs(a2q)).all()


@pytest.mark.parametrize("method", METHODS)
def test_every_layer_of_a_projected_network_is_certified_for_the_width(method):
    network = project_to_width(load_network(shipped_file("digits.npz")), 14, method)
    for layer in network.layers:
        if isinstance(layer, WeightedLayer):
            source = network.tensors[layer.inputs[0]]
            assert certify(layer, source, datatype_range(source)).exact_bits.max() <= 14


def test_the_requantization_takes_up_the_factor():
    network = load_network(shipped_file("digits.npz"))
    projected = project_to_width(network, 14, "exact")
    for before, after in zip(network.layers, projected.layers, strict=True):
        if not isinstance(before, WeightedLayer):
            assert before is after
            continue
        rule = after.requantization
        scale = np.ldexp(rule.multiplier.astype(float), rule.shift)
        old = before.requantization
        factor = scale / np.ldexp(old.multiplier.astype(float), old.shift)
        shape = (-1, *[1] * (before.weights.ndim - 1))
        restored = after.weights * factor.reshape(shape)
        # Rounding toward zero loses less than one step of the shortened weights, and a common
        # factor of least squares can only bring the whole channel nearer.
        error = np.linalg.norm((restored - before.weights).reshape(len(before.weights), -1), axis=1)
        assert (
            error < np.linalg.norm(before.weights.reshape(len(before.weights), -1), axis=1)
        ).all()


def test_weight_zero_points_are_folded_in():
    network = load_network(shipped_file("digits.npz"))
    layer = network.layers[0]
    shifted = replace(
        layer, weights=(layer.weights.astype(int) + 128).astype(np.uint8), weight_zero_point=128
    )
    other = replace(network, layers=(shifted, *network.layers[1:]))
    mine, theirs = (project_to_width(each, 14, "exact").layers[0] for each in (network, other))
    assert theirs.weight_zero_point == 0
    assert np.array_equal(mine.weights, theirs.weights)


@pytest.mark.parametrize("acc_bits", [1, 49])
def test_widths_out_of_range_are_refused(acc_bits):
    network = load_network(shipped_file("digits.npz"))
    with pytest.raises(InputError, match=f"accumulators of 2 to 48 bits, not {acc_bits}"):
        project_to_width(network, acc_bits, "exact")
