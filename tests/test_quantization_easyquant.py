"""EasyQuant's alternating search on a synthetic layer: methods.md 2.2, section 9 case 16.

The generator behind the table of methods.md is not printed, so its digits cannot be reached: what
is tested is the order of its columns on a layer of the same kind (seed 2006, 16 to 32 channels,
3x3, heavy tails).
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


@pytest.mark.parametrize("bits", [8, 7, 6, 4])
def test_the_paper_s_ranges_win_and_the_released_ones_hardly_help(bits):
    absmax = quantized_outputs(bits)
    released = quantized_outputs(bits, "released", 1)
    ncnn = quantized_outputs(bits, "ncnn", 1)
    paper = quantized_outputs(bits, "paper", 1)
    again = quantized_outputs(bits, "paper", 2)
    assert absmax < released < paper <= again
    assert ncnn == pytest.approx(paper, abs=0.1 * (paper - absmax) + 1e-6)
    # in the table the released ranges bring 1 to 8 % of the gain
    assert released - absmax < 0.15 * (paper - absmax)


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
