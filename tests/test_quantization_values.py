"""Value sets of the quantizers and what is known of them: methods.md 1.2 to 1.7, 2.3, 9."""

from __future__ import annotations

import numpy as np
import pytest

from golden.quantization.accounting import (
    centernet_mobilenet_v2,
    codebook_bits,
    mobilenet_v2_backbone,
    operation_accounts,
    size_accounts,
    unrecoded_share,
)
from golden.quantization.codes import Levels, largest_code, nhot_levels
from golden.quantization.methods.apot import apot_levels
from golden.quantization.partial_sums import guaranteed_products


def naf_weight(values):
    """Nonzero digits of the non-adjacent form: popcount(|v| XOR 3|v|)."""
    magnitude = np.abs(np.asarray(values, dtype=np.int64))
    return np.bitwise_count(magnitude ^ 3 * magnitude).astype(int)


def booth_digits(values, bits):
    """Nonzero radix-4 Booth digits of two's complement codes."""
    codes = np.asarray(values, dtype=np.int64)
    count = np.zeros(codes.shape, int)
    for low in range(0, bits, 2):
        window = (codes << 1 >> low) & 7  # bits low + 1, low, low - 1
        count += (window != 0) & (window != 7)
    return count


# Counts (1.3, case 1) -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "counts", "mean"),
    [
        (-7, 7, [1, 6, 8], 1.4667),
        (-8, 7, [1, 7, 8], 1.4375),
        (-15, 15, [1, 8, 18, 4], 1.8065),
        (-31, 31, [1, 10, 32, 20], 2.1270),
        (-63, 63, [1, 12, 50, 56, 8], 2.4567),
        (-64, 63, [1, 13, 50, 56, 8], 2.4453),
        (-127, 127, [1, 14, 72, 120, 48], 2.7843),
        (-128, 127, [1, 15, 72, 120, 48], 2.7773),
        (0, 15, [1, 4, 9, 2], 1.75),
        (0, 127, [1, 7, 36, 60, 24], 2.7734),
        (0, 255, [1, 8, 49, 110, 80, 8], 3.1094),
    ],
)
def test_integers_by_their_least_number_of_signed_powers_of_two(low, high, counts, mean):
    """methods.md 1.3, there by brute force; the sets of n-hot values must agree with the NAF."""
    values = np.arange(low, high + 1)
    weights = naf_weight(values)
    assert np.bincount(weights).tolist() == counts
    assert round(weights.mean(), 4) == mean
    for terms in range(1, len(counts)):
        inside = np.isin(np.abs(values), nhot_levels(terms, 9, 512).magnitudes)
        assert (inside == (weights <= terms)).all()


@pytest.mark.parametrize(
    ("bits", "exponent", "terms", "size", "width", "largest", "missing", "gap"),
    [
        (4, 2, 2, 13, 4, 6, 2, 1),
        (4, 3, 2, 15, 4, 7, 0, 1),
        (6, 5, 2, 43, 6, 31, 20, 4),
        (7, 5, 2, 55, 6, 48, 72, 8),
        (7, 6, 1, 13, 4, 32, 114, 16),
        (7, 6, 2, 63, 6, 63, 64, 8),
        (7, 6, 3, 119, 7, 63, 8, 2),
        (8, 6, 1, 15, 4, 64, 240, 32),
        (8, 6, 2, 77, 7, 96, 178, 16),
        (8, 7, 2, 87, 7, 127, 168, 16),
        (8, 6, 3, 183, 8, 127, 72, 8),
        (8, 7, 3, 207, 8, 127, 48, 4),
        (8, 7, 4, 255, 8, 127, 0, 1),
    ],
)
def test_nhot_sets(bits, exponent, terms, size, width, largest, missing, gap):
    """methods.md 1.4; the largest gap is that between neighbours below the largest value."""
    levels = nhot_levels(terms, exponent, largest_code(bits))
    assert (levels.size, levels.codebook_bits, levels.largest) == (size, width, largest)
    assert 2 * largest_code(bits) + 1 - size == missing
    assert np.diff(levels.magnitudes[levels.magnitudes <= largest]).max() == gap


def test_three_hot_values_missing_from_int8():
    text = "43 45 51 53 75 77 83 85 86 87 89 90 91 93 99 101 102 103 105 106 107 109 115 117"
    missing = set(range(128)) - set(nhot_levels(3, 7, 127).magnitudes.tolist())
    assert sorted(missing) == [int(value) for value in text.split()]


# Projection (1.5, case 3) -------------------------------------------------------------------------


def greedy(weight, terms, max_exponent, upward=False):
    """Repeat: subtract the nearest signed power of two; of two the smaller, or the larger one."""
    value = 0
    for _ in range(terms):
        left = weight - value
        if left:
            candidates = [sign << e for e in range(max_exponent + 1) for sign in (1, -1)]
            value += min(candidates, key=lambda c: (abs(left - c), -abs(c) if upward else abs(c)))
    return value


def truncated_naf(weight, terms):
    """The leading digits of the non-adjacent form."""
    digits, left, exponent = [], weight, 0
    while left:
        if left % 2:
            digit = 2 - left % 4
            digits.append(digit * 2**exponent)
            left -= digit
        left, exponent = left // 2, exponent + 1
    return sum(digits[-terms:])


def test_greedy_is_nearest_and_truncation_is_not():
    codes = np.arange(-127, 128)
    levels = nhot_levels(2, 7, 127)
    nearest = np.abs(levels.project(codes) - codes)
    greedily = np.array([abs(greedy(code, 2, 7) - code) for code in codes.tolist()])
    cut = np.array([abs(truncated_naf(code, 2) - code) for code in codes.tolist()])
    assert (greedily == nearest).all()
    assert (cut > nearest).sum() == 16
    assert (cut - nearest).max() == 4
    assert nearest.max() == 8
    assert round(nearest.mean(), 3) == 1.757


def test_forty_codes_of_int8_are_as_near_to_two_values():
    codes = np.arange(-127, 128)
    magnitudes = nhot_levels(2, 7, 127).magnitudes
    values = np.concatenate([-magnitudes[:0:-1], magnitudes])
    distance = np.abs(codes[:, np.newaxis] - values)
    assert ((distance == distance.min(axis=1, keepdims=True)).sum(axis=1) == 2).sum() == 40


def test_other_widths_and_terms():
    codes = np.arange(-127, 128)
    three = np.abs(nhot_levels(3, 7, 127).project(codes) - codes)
    assert (three.max(), round(three.mean(), 3)) == (2, 0.220)
    assert all(
        abs(truncated_naf(c, 3) - c) == e for c, e in zip(codes.tolist(), three, strict=True)
    )
    seven = np.arange(-63, 64)
    two = np.abs(nhot_levels(2, 6, 63).project(seven) - seven)
    cut = np.array([abs(truncated_naf(code, 2) - code) for code in seven.tolist()])
    assert (two.max(), round(two.mean(), 3), (cut > two).sum()) == (4, 0.850, 4)


@pytest.mark.parametrize(
    ("terms", "exponent", "below", "count", "with_tie"), [(2, 6, 113, 30, 32), (1, 7, 97, 62, 64)]
)
def test_greedy_can_leave_the_code_range_and_the_projection_cannot(
    terms, exponent, below, count, with_tie
):
    """Case 3: 64 + 64 with E = 6, 128 with n = 1; 112 and 96 tie, and may go up."""
    codes = np.arange(-127, 128)
    for upward, first, total in ((False, below, count), (True, below - 1, with_tie)):
        outside = [c for c in codes.tolist() if abs(greedy(c, terms, exponent, upward)) == 128]
        assert (len(outside), min(abs(code) for code in outside)) == (total, first)
    assert np.abs(nhot_levels(terms, exponent, 127).project(codes)).max() <= 127


def test_of_two_equally_near_the_smaller_magnitude_is_taken():
    one = nhot_levels(1, 7, 127)
    assert one.project(np.array([3, -3, 96, 127])).tolist() == [2, -2, 64, 64]
    halves = Levels(np.array([0, 1, 2, 4]))
    values = [0.5, 0.5000001, 1.5, 3.0, 3.0000001, -3.0, -99.0]
    assert halves.project(np.array(values)).tolist() == [0, 1, 1, 2, 4, -2, -4]


def test_projection_of_reals_is_nearest():
    """Against the distance to every level."""
    levels = nhot_levels(2, 7, 127)
    reals = np.random.default_rng(4).uniform(-140, 140, 5000)
    values = np.concatenate([-levels.magnitudes, levels.magnitudes])
    best = np.abs(reals[:, np.newaxis] - values).min(axis=1)
    np.testing.assert_array_equal(np.abs(levels.project(reals) - reals), best)


# Lanes (1.7, case 2) ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def terms():
    """Cycles of the columns of 1.7 for each of 1728 x 576 Gaussian weights, (5, taps, channels)."""
    weights = np.random.default_rng(0).standard_normal((1728, 576))
    scales = np.abs(weights).max(axis=1, keepdims=True) / 127
    values = np.arange(-127, 128)
    cycles = np.stack([
        np.bitwise_count(values & 255),
        np.bitwise_count(np.abs(values)),
        booth_digits(values, 8),
        naf_weight(values),
        naf_weight(nhot_levels(2, 7, 127).project(values)),
    ])  # fmt: skip
    return cycles[:, np.rint(weights / scales).astype(np.int64).T + 127]


def lane_cycles(terms, lanes):
    """Mean over groups of channels of the longest weight, which takes a cycle at least."""
    longest = terms.reshape(len(terms), -1, lanes).max(axis=2)
    return np.maximum(longest, 1).mean(axis=1)


def test_sixteen_lanes_wait_for_the_longest_weight(terms):
    """Case 2, digit for digit: two's complement, magnitude, Booth, NAF, 2-hot."""
    assert lane_cycles(terms, 16).round(2).tolist() == [6.82, 4.86, 3.96, 3.65, 2.00]


@pytest.mark.parametrize(
    ("lanes", "table", "here"),
    [
        (1, [4.004, 2.819, 2.670, 2.396, 1.870], [4.005, 2.816, 2.668, 2.393, 1.869]),
        (4, [5.747, 3.995, 3.521, 3.147, 2.000], [5.752, 3.992, 3.522, 3.147, 2.000]),
        (16, [6.818, 4.864, 3.956, 3.645, 2.000], [6.822, 4.862, 3.959, 3.650, 2.000]),
        (64, [7.473, 5.582, 4.000, 3.980, 2.000], [7.477, 5.561, 4.000, 3.985, 2.000]),
    ],
)
def test_lanes_of_other_samples_than_the_table_s(terms, lanes, table, here):
    """methods.md 1.7 does not tell its draw; docs/quantizers.md lists what differs."""
    assert lane_cycles(terms, lanes).round(3).tolist() == here
    np.testing.assert_allclose(here, table, atol=0.021)


# Products and Winograd weights (cases 4 and 5) ----------------------------------------------------


@pytest.mark.parametrize(("bits", "symmetric", "full"), [(8, 2, 1), (7, 8, 7), (6, 34, 31)])
def test_products_in_16_bits(bits, symmetric, full):
    assert guaranteed_products(bits) == symmetric
    assert guaranteed_products(bits, symmetric=False) == full
    largest = largest_code(bits)
    assert symmetric * largest**2 <= 32767 < (symmetric + 1) * largest**2


def test_winograd_f43_weights_leave_int16_above_56():
    g24 = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]])
    reach = np.abs(g24).sum(axis=1)
    largest = np.outer(reach, reach).max()  # over all weights of magnitude 1
    assert largest == 576
    assert 56 * largest <= 32767 < 57 * largest
    corner = np.zeros((3, 3), np.int64)
    corner[2, 2] = 63
    transformed = g24 @ corner @ g24.T
    assert transformed[5, 5] == 36288
    assert transformed.astype(np.int16)[5, 5] == -29248


# Relatives (1.8) ----------------------------------------------------------------------------------


def test_apot_levels():
    """methods.md 1.8, there with denominators 8, 256 and 256."""
    assert (apot_levels(3, 8).magnitudes * 32).tolist() == [0, 32, 64, 128]
    assert (apot_levels(4, 8).magnitudes * 16).tolist() == [0, 16, 32, 48, 64, 96, 128, 160]
    four = "0 4 8 12 16 24 32 36 48 64 72 96 128 132 144 192"
    assert (apot_levels(5, 8).magnitudes * 4).tolist() == [int(v) for v in four.split()]


# Accounts (1.2) -----------------------------------------------------------------------------------


def saving(accounts, counting):
    (account,) = [account for account in accounts if account.counting == counting]
    return 100 * account.saving


def test_mobilenet_v2_has_its_published_size():
    layers = mobilenet_v2_backbone(224)
    assert sum(layer.weights for layer in layers) == 2_189_760
    assert sum(layer.out_channels for layer in layers) == 17_056
    assert sum(layer.macs for layer in layers) == 299_494_272  # "300M", table 4 of the paper


@pytest.mark.parametrize(("terms", "by_bits"), [(1, 87.5), (2, 75.0), (3, 62.5)])
def test_operations_saved_against_one_addition_a_bit(terms, by_bits):
    assert saving(operation_accounts(terms), "additions, one for each bit of a weight") == by_bits


def test_three_quarters_of_the_operations_and_a_quarter_of_the_energy():
    accounts = operation_accounts(2)
    magnitude = saving(accounts, "additions, one for each magnitude bit of a weight")
    assert round(magnitude, 1) == 71.4
    # 0.279 pJ for a product and its addition, 2 * 0.103 for two shifts and additions
    real = "picojoules, 8x8 multiplier and 24-bit addition"
    assert round(saving(accounts, real), 1) == 26.2
    assert saving(operation_accounts(3), real) < 0


def test_size_saved_by_a_code_book_of_two_hot_weights():
    assert [codebook_bits(terms) for terms in (1, 2, 3)] == [4, 7, 8]
    accounts = size_accounts(2)
    assert saving(accounts, "weights in a code book") == 12.5
    with_norm = "weights in a code book, batch norm 2 x 32 bits a channel"
    assert round(saving(accounts, with_norm), 2) == 11.77
    assert round(saving(accounts, "weights in a code book, bias 32 bits a channel"), 2) == 12.12
    assert saving(accounts, "weights as pairs of sign and exponent") == 0
    assert round(100 * unrecoded_share(0.115), 1) == 8.0
    assert saving(size_accounts(3), "weights in a code book") == 0


def test_a_decoder_that_is_not_nhot_would_hide_the_saving():
    counting = "additions, one for each bit of a weight; backbone alone n-hot"
    assert saving(operation_accounts(2, centernet_mobilenet_v2()), counting) < 10
    assert saving(operation_accounts(2, mobilenet_v2_backbone()), counting) == 75
