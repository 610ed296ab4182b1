"""EasyQuant's alternating search on a synthetic layer: methods.md 2.2, section 9 case 16.

The generator behind the table of methods.md is not printed, and its digits are not reached: what
is tested is the order of its columns on a layer of the same kind (seed 2006, 16 to 32 channels,
3x3, Student's t with 4 degrees of freedom), whose own digits stand beside the table's.
"""

from __future__ import annotations

import numpy as np
import pytest

from golden.quantization.codes import largest_code
from golden.quantization.method import Moments, WeightTask
from golden.quantization.registry import parse_method
from golden.quantization.search import search_scale


def synthetic_layer():
    """Inputs (patches) and weights with heavy tails."""
    rng = np.random.default_rng(2006)
    weights = rng.standard_t(4, (32, 144))
    x = rng.standard_t(4, (400, 144))
    return x, weights


def mean_cosine(a, b):
    return ((a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))).mean()


def rounded(values, scale, bits):
    levels = largest_code(bits)
    return scale * np.clip(np.rint(values / scale), -levels, levels)


def quantized_outputs(bits, ranges=None, rounds=0):
    """Outputs after rounds of weights first, activations second; from the largest magnitudes."""
    x, weights = synthetic_layer()
    outputs = x @ weights.T
    x_scale = np.array([np.abs(x).max() / largest_code(bits)])
    method, options = parse_method("uniform" if ranges is None else f"easyquant:ranges={ranges}")
    for _ in range(max(rounds, 1)):
        codes = rounded(x, x_scale, bits)
        moments = Moments(
            (codes.T @ codes)[np.newaxis], outputs.T @ codes, (outputs**2).sum(axis=0)
        )
        found = method.quantize(WeightTask(weights, bits, moments), options)
        reals = found.scales[:, np.newaxis] * found.codes

        def score(scale, reals=reals):
            return np.array([mean_cosine(outputs, rounded(x, scale, bits) @ reals.T)])

        if rounds:
            x_scale = search_scale(x_scale, score, ranges, "activations")
    return mean_cosine(outputs, rounded(x, x_scale, bits) @ reals.T)


COSINES = {
    8: ((0.999087, 0.999310, 0.999315, 0.999104, 0.999311),
        (0.998423, 0.998757, 0.998825, 0.998465, 0.998779)),
    7: ((0.996293, 0.997884, 0.997890, 0.996344, 0.997874),
        (0.993714, 0.996444, 0.996631, 0.993857, 0.996494)),
    6: ((0.985114, 0.994090, 0.994258, 0.985381, 0.994045),
        (0.974159, 0.990461, 0.991200, 0.974798, 0.990370)),
    4: ((0.799441, 0.927407, 0.959114, 0.809155, 0.927235),
        (0.697769, 0.878698, 0.943842, 0.703533, 0.876568)),
}  # fmt: skip
"""Largest value, paper 1 and 2 rounds, released ranges, ncnn: methods.md 2.2; the layer here."""


@pytest.mark.parametrize("bits", COSINES)
def test_the_paper_s_ranges_win_and_the_released_ones_hardly_help(bits):
    absmax = quantized_outputs(bits)
    released = quantized_outputs(bits, "released", 1)
    ncnn = quantized_outputs(bits, "ncnn", 1)
    paper = quantized_outputs(bits, "paper", 1)
    again = quantized_outputs(bits, "paper", 2)
    table, here = COSINES[bits]
    found = (absmax, paper, again, released, ncnn)
    assert tuple(round(float(cosine), 6) for cosine in found) == here
    for first, one, two, code, port in (table, here):
        assert first < code < one <= two
        assert port == pytest.approx(one, abs=0.1 * (one - first) + 1e-6)
        assert code - first < 0.15 * (one - first)  # in the table 1 to 8 % of the gain


def test_ncnn_s_grid_can_end_below_its_start():
    """The start is not among its candidates, and here it alone is best."""
    start = np.array([0.5])

    def score(scale):
        return -np.abs(scale - 0.5)

    assert search_scale(start, score, "paper") == start
    assert search_scale(start, score, "released") == start
    assert search_scale(start, score, "ncnn") != start


@pytest.mark.parametrize(
    ("ranges", "operand", "factors"),
    [
        ("paper", "weights", [1.0, *np.linspace(0.5, 2, 100)]),
        ("ncnn", "weights", 0.5 + 1.5 * np.arange(100) / 100),
        ("released", "activations", [1.0, *np.linspace(0.8, 1.0, 200)[1:-1]]),
        ("released", "weights", [1.0, *(np.linspace(1, 4, 100)[1:-1] / 4)]),
    ],
)
def test_candidates_are_those_of_their_source(ranges, operand, factors):
    """S = 4; the inclusive grid of the paper holds S itself, at index 33."""
    tried = []

    def score(scale):
        tried.append(scale.copy())
        return np.zeros(1)

    best = search_scale(np.array([0.25]), score, ranges, operand)
    np.testing.assert_allclose(0.25 / np.concatenate(tried), factors)
    assert best == tried[0]  # of equal scores the first
    assert np.linspace(0.5, 2, 100)[33] == 1


def test_channels_are_searched_apart():
    def score(scales):
        return -np.abs(scales - np.array([0.2, 0.6, 1.0]))

    found = search_scale(np.full(3, 0.4), score)
    alone = [search_scale(np.array([0.4]), lambda s, t=t: -np.abs(s - t)) for t in (0.2, 0.6, 1.0)]
    np.testing.assert_array_equal(found, np.concatenate(alone))
