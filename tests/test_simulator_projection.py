"""Projected networks: nearest n-hot weights, ternary weights that keep their scale and bias.

The sets of values and the exact ternary optimum are tested with `golden.quantization`.
"""

from __future__ import annotations

import numpy as np
import pytest

from golden.errors import InputError
from golden.network import FullyConnected, Network, Requantization, Tensor
from golden.quantization.codes import nearest_nhot
from golden.run import run
from simulator.projection import project_weights


def network(weights, dtype="int8", zero_point=0, bias=None, rounding="double"):
    weights = np.asarray(weights, dtype=dtype)
    layer = FullyConnected(
        name="dense",
        inputs=(0,),
        outputs=(1,),
        weights=weights,
        weight_bits=8,
        weight_zero_point=zero_point,
        bias=bias,
        input_zero_point=0,
        output_zero_point=0,
        requantization=Requantization(
            np.array([1 << 30], np.int32),
            np.array([-8 if rounding.startswith("shift") else -7], np.int32),
            rounding,
        ),
        activation_min=-128,
        activation_max=127,
    )
    out_features, in_features = weights.shape
    tensors = (Tensor("x", (1, in_features), "int8"), Tensor("y", (1, out_features), "int8"))
    return Network("net", tensors, (layer,), (0,), (1,))


def greedy(weight, terms):
    """Repeat: take the nearest signed power of two of the residual, the smaller one on a tie."""
    value = 0
    for _ in range(terms):
        residual = weight - value
        if residual:
            candidates = [sign * (1 << e) for e in range(8) for sign in (1, -1)]
            value += min(candidates, key=lambda c: (abs(residual - c), abs(c)))
    return value


@pytest.mark.parametrize("terms", [1, 2, 3, 4])
def test_nearest_nhot_is_as_near_as_greedy_residuals(terms):
    """methods.md 1.5: greedy is nearest for all 255 codes; out of range it is not allowed."""
    weights = np.arange(-127, 128)
    projected = nearest_nhot(weights, terms, 7, -127, 127)
    for weight, value in zip(weights.tolist(), projected.tolist(), strict=True):
        chosen = greedy(weight, terms)
        if abs(chosen) <= 127:
            assert abs(weight - value) == abs(weight - chosen)
    assert (projected == -projected[::-1]).all()


@pytest.mark.parametrize(("terms", "worst", "mean"), [(2, 8, 1.757), (3, 2, 0.220)])
def test_errors_of_nhot_int8(terms, worst, mean):
    """methods.md 1.5: over -127..127 with E = 7."""
    weights = np.arange(-127, 128)
    error = np.abs(nearest_nhot(weights, terms, 7, -127, 127) - weights)
    assert error.max() == worst
    assert error.mean() == pytest.approx(mean, abs=5e-4)


def test_ties_go_to_the_smaller_magnitude():
    # 3 lies between 2 and 4, 96 between 64 and 128, which is out of range
    assert nearest_nhot(np.array([3, -3, 96]), 1, 7, -127, 127).tolist() == [2, -2, 64]


def test_as_is_is_the_network_itself():
    net = network([[1, 2]])
    assert project_weights(net, "as-is") is net


def test_nhot_weights_have_few_digits_and_stay_put_where_they_had():
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 128, (30, 40))
    layer = project_weights(network(weights), "nhot:2").layers[0]
    projected = layer.weights.astype(int)
    digits = np.bitwise_count((3 * np.abs(projected)) ^ np.abs(projected))
    assert digits.max() == 2
    already = np.bitwise_count((3 * np.abs(weights)) ^ np.abs(weights)) <= 2
    assert (projected[already] == weights[already]).all()
    assert layer.weights.dtype == np.int8


def test_uint8_weights_lose_their_zero_point():
    near = project_weights(network([[128, 133, 255]], "uint8", 128), "nhot:1").layers[0]
    assert near.weight_zero_point == 0
    assert near.weights.tolist() == [[0, 4, 64]]
    wide = project_weights(network([[0, 255]], "uint8", 0), "nhot:2").layers[0]
    assert wide.weights.tolist() == [[0, 255]]  # 256 - 1
    assert wide.weights.dtype == np.int16


def test_ternary_networks_keep_their_scale_and_bias():
    """Weights +-100 and 0 are ternary already, so that only the scale moves into the multiplier."""
    weights = [[100, 0, -100, 100], [-7, 7, 7, 0], [0, 0, 0, 0]]
    bias = np.array([300, -70, 640])
    net = network(weights, bias=bias)
    projected = project_weights(net, "ternary")
    layer = projected.layers[0]
    assert layer.weights.tolist() == [[1, 0, -1, 1], [-1, 1, 1, 0], [0, 0, 0, 0]]
    assert layer.bias.tolist() == [3, -10, 640]
    x = np.random.default_rng(3).integers(-128, 128, (50, 4)).astype(np.int8)
    difference = run(net, [x]).outputs[0].astype(int) - run(projected, [x]).outputs[0]
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("rounding", ["shift_half_up", "shift_half_even"])
def test_power_of_two_scales_become_single_rounding(rounding):
    net = network([[100, 0, -100, 100]], rounding=rounding)
    projected = project_weights(net, "ternary")
    assert projected.layers[0].requantization.rounding == "single"
    x = np.random.default_rng(3).integers(-128, 128, (50, 4)).astype(np.int8)
    difference = run(net, [x]).outputs[0].astype(int) - run(projected, [x]).outputs[0]
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("text", ["nhot", "nhot:", "nhot:0", "nhot:9", "nhot:x", "nhot:²", "3"])
def test_other_projections_are_refused(text):
    with pytest.raises(InputError, match="weights must be as-is, nhot:N with N from 1 to 8"):
        project_weights(network([[1]]), text)
