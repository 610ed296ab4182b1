"""EasyQuant's alternating search on a synthetic layer: methods.md 2.2, section 9 case 16.

Of the layer the notes tell the seed, 2006, its 16 and 32 channels, 3x3, and that its tails are
heavy. The draws below, and `LARGEST_S`, were found by search: they give the table in all digits.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from golden.quantization.codes import largest_code
from golden.quantization.method import Moments, WeightTask
from golden.quantization.registry import parse_method
from golden.quantization.search import search_scale

LARGEST_S = 50
"""S of each channel's largest value. The released code tries S from 1 up to it, so that its steps,
alone among the ranges, depend on the size of the weights, of which the notes tell nothing."""


@cache
def synthetic_layer():
    """Patches (50 images, 100 pixels, 144 taps), weights (32, 144), and their outputs."""
    rng = np.random.default_rng(2006)
    images = np.maximum(rng.standard_t(4, (50, 16, 12, 12)), 0)
    weights = rng.laplace(0, 1, (32, 16, 3, 3)) * rng.lognormal(0, 0.5, (32, 1, 1, 1)) * 0.04
    windows = sliding_window_view(images, (3, 3), axis=(2, 3))
    x = windows.transpose(0, 2, 3, 1, 4, 5).reshape(50, 100, 144)
    weights = weights.reshape(32, 144)
    return x, weights, x @ weights.T


def cosines(found, axes):
    """Cosines of outputs and `found`, over some axes; their mean over images.

    Where one of both is zero the released code adds 1e-5 to both.
    """
    _, _, outputs = synthetic_layer()
    zero = ~(outputs.any(axis=axes, keepdims=True) & found.any(axis=axes, keepdims=True))
    a, b = outputs + 1e-5 * zero, found + 1e-5 * zero
    lengths = (a**2).sum(axis=axes) * (b**2).sum(axis=axes)
    return ((a * b).sum(axis=axes) / np.sqrt(lengths)).mean(axis=0)


def coded(values, scale, bits):
    levels = largest_code(bits)
    return np.clip(np.rint(values / scale), -levels, levels)


def rounded(values, scale, bits):
    return scale * coded(values, scale, bits)


def searched(bits, ranges, rounds):
    """Mean cosine of the images after each round: weights first, channels apart, then inputs.

    Channels are judged by sums of codes, exact, so that scales of equal codes score alike: of them
    the first is taken, which matters where the channels come together.
    """
    x, weights, _ = synthetic_layer()
    x_scale = np.array([x.max() / largest_code(bits)])
    scales = np.abs(weights).max(axis=1) / largest_code(bits)
    unit = LARGEST_S * scales
    found = []
    for _ in range(rounds):
        codes = coded(x, x_scale, bits)

        def of_channels(scales, codes=codes):
            return cosines(codes @ coded(weights, (scales * unit)[:, np.newaxis], bits).T, 1)

        scales = search_scale(scales / unit, of_channels, ranges, "weights") * unit
        reals = rounded(weights, scales[:, np.newaxis], bits)

        def of_images(scale, reals=reals):
            return np.array([cosines(rounded(x, scale, bits) @ reals.T, (1, 2))])

        x_scale = search_scale(x_scale, of_images, ranges, "activations")
        found.append(float(of_images(x_scale)[0]))
    return found


TABLE = {
    8: (0.999087, 0.999310, 0.999315, 0.999104, 0.999311),
    7: (0.996293, 0.997884, 0.997890, 0.996344, 0.997874),
    6: (0.985114, 0.994090, 0.994258, 0.985381, 0.994045),
    4: (0.799441, 0.927407, 0.959114, 0.809155, 0.927235),
}
"""Largest value, paper 1 and 2 rounds, released ranges, ncnn: methods.md 2.2."""


@pytest.mark.parametrize("bits", TABLE)
def test_cosines_of_the_synthetic_layer(bits):
    x, weights, _ = synthetic_layer()
    scales = np.abs(weights).max(axis=1, keepdims=True) / largest_code(bits)
    reals = rounded(weights, scales, bits)
    largest = cosines(rounded(x, x.max() / largest_code(bits), bits) @ reals.T, (1, 2))
    (ncnn,), (released,) = searched(bits, "ncnn", 1), searched(bits, "released", 1)
    found = (float(largest), *searched(bits, "paper", 2), released, ncnn)
    assert tuple(round(each, 6) for each in found) == TABLE[bits]


@pytest.mark.parametrize("ranges", ["paper", "ncnn", "released"])
def test_the_method_searches_by_moments_as_by_samples(ranges):
    """Channels apart, all images one vector; INT7 inputs by the largest value."""
    x, weights, outputs = (each.reshape(-1, each.shape[-1]) for each in synthetic_layer())
    codes = rounded(x, x.max() / 63, 7)
    moments = Moments((codes.T @ codes)[np.newaxis], outputs.T @ codes, (outputs**2).sum(axis=0))
    method, options = parse_method(f"easyquant:ranges={ranges}")
    found = method.quantize(WeightTask(weights, 7, moments), options)

    def score(scales):
        products = codes @ rounded(weights, scales[:, np.newaxis], 7).T
        return (outputs * products).sum(axis=0) / np.sqrt((products**2).sum(axis=0))

    expected = search_scale(np.abs(weights).max(axis=1) / 63, score, ranges, "weights")
    chosen = np.clip(np.rint(weights / expected[:, np.newaxis]), -63, 63)
    np.testing.assert_array_equal(found.codes, chosen)  # scales are fitted to the codes after it


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
