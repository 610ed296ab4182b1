"""Packings of weights: codes worked out by hand, sizes, round trips, and what is refused."""

import re

import numpy as np
import pytest

from golden.errors import InputError
from golden.network import FullyConnected, Requantization
from golden.packings import (
    PACKINGS,
    nhot_code,
    nhot_magnitudes,
    nhot_pairs,
    signed_terms,
)
from simulator.hardware import load_hardware
from simulator.program import compile_layer


def drawn(packing, count, seed=1):
    return np.random.default_rng(seed).choice(np.array(packing.values, np.int8), count)


@pytest.mark.parametrize("name", PACKINGS)
@pytest.mark.parametrize("count", [0, 1, 4, 5, 7, 8, 9, 1003])
def test_unpacked_weights_are_those_packed_and_take_the_bytes_of_their_size(name, count):
    packing = PACKINGS[name]
    weights = drawn(packing, count)
    data = packing.pack(weights)
    assert data.dtype == np.uint8
    assert data.shape == (-(-packing.size_bits(count) // 8),)
    unpacked = packing.unpack(data, count)
    assert unpacked.dtype == np.int8
    np.testing.assert_array_equal(unpacked, weights)
    np.testing.assert_array_equal(packing.unpack(data.tobytes(), count), weights)


@pytest.mark.parametrize("name", PACKINGS)
def test_every_value_is_stored_and_no_two_alike(name):
    packing = PACKINGS[name]
    assert len(set(packing.codes.tolist())) == len(packing.groups)
    assert len(packing.groups) == len(packing.values) ** packing.group_weights
    np.testing.assert_array_equal(
        packing.unpack(packing.pack(packing.values), len(packing.values)), packing.values
    )


@pytest.mark.parametrize(
    ("name", "weights", "data"),
    [
        # 00 01 11 10 from the lowest bits up, and a second byte
        ("ternary_twos_complement", [0, 1, -1, 0, 1], [0b00_11_01_00, 0b01]),
        ("ternary_offset", [0, 1, -1, 0, 1], [0b01_00_10_01, 0b10]),
        ("ternary_planes", [0, 1, -1, 0, 1, 0, 0, -1, 1], [0b00010010, 0b10000100, 1, 0]),
        # v = 1*81 + 2*27 + 0*9 + 1*3 + 2 = 140; 140 * 256 / 243 = 147.5
        ("ternary_trits5", [0, 1, -1, 0, 1], [148]),
        ("ternary_trits5", [-1] * 5 + [1] * 5, [0, 255]),  # 242 * 256 / 243 = 254.9
        # a group of one weight: 2*81 + 27 + 9 + 3 + 1 = 202; 202 * 256 / 243 = 212.8
        ("ternary_trits5", [1], [213]),
        # v = 1 + 2*3 + 0*9 + 1*27 + 2*81 = 196
        ("ternary_base3", [0, 1, -1, 0, 1], [196]),
        # magnitudes of one power: 0 1 2 4 8 16 32 64; codes 0, 1, 8 + 1, 7, 8 + 7
        ("nhot1_code", [0, 1, -1, 64, -64], [0x10, 0x79, 0x0F]),
        # 14 is magnitude 13: 0 to 10, 12, 14 (12 of them); so 12, and -127 is 64 + 43
        ("nhot2_code", [14, -127], [12 | (107 & 1) << 7, 107 >> 1]),
        # {negative, exponent}, the higher first: 14 = 16 - 2; -8 alone; 0; 127 = 128 - 1
        ("nhot2_pairs", [14, -8, 0, 127], [0x94, 0x3B, 0x10, 0x87]),
        # 11 = 8 + 4 - 1 = 16 - 4 - 1: 4, 8+2, 8+0
        ("nhot3_pairs", [11, 0], [0xA4, 0x08, 0x11]),
    ],
)
def test_codes_worked_out_by_hand(name, weights, data):
    assert PACKINGS[name].pack(weights).tolist() == data
    assert PACKINGS[name].unpack(bytes(data), len(weights)).tolist() == weights


# methods.md 1.4: sizes of V(n, E, 2^(B-1) - 1) for B, E, n, and the bits of a code book.
SIZES = {
    (4, 2, 2): (13, 4),
    (4, 3, 2): (15, 4),
    (6, 5, 2): (43, 6),
    (7, 5, 2): (55, 6),
    (7, 6, 1): (13, 4),
    (7, 6, 2): (63, 6),
    (7, 6, 3): (119, 7),
    (8, 6, 1): (15, 4),
    (8, 6, 2): (77, 7),
    (8, 7, 2): (87, 7),
    (8, 6, 3): (183, 8),
    (8, 7, 3): (207, 8),
    (8, 7, 4): (255, 8),
}


@pytest.mark.parametrize("bits_exponent_terms", SIZES)
def test_code_books_have_the_published_number_of_values_and_bits(bits_exponent_terms):
    bits, exponent, terms = bits_exponent_terms
    packing = nhot_code(terms, exponent, (1 << (bits - 1)) - 1)
    assert (len(packing.values), packing.code_bits) == SIZES[bits_exponent_terms]


def test_magnitudes_of_two_terms_are_those_listed():
    # methods.md 1.4, E = 7; E = 6 drops the last five
    listed = [*range(11), 12, 14, 15, 16, 17, 18, 20, 24, 28, 30, 31, 32, 33, 34, 36, 40, 48, 56]
    listed += [60, 62, 63, 64, 65, 66, 68, 72, 80, 96, 112, 120, 124, 126, 127]
    assert list(nhot_magnitudes(2, 7, 127)) == listed
    assert list(nhot_magnitudes(2, 6, 127)) == listed[:-5]


@pytest.mark.parametrize("terms", [2, 3, 4])
@pytest.mark.parametrize(("exponent", "limit"), [(7, 127), (6, 127), (6, 63), (2, 7), (0, 1)])
def test_pairs_and_book_store_the_same_set(terms, exponent, limit):
    book, pairs = nhot_code(terms, exponent, limit), nhot_pairs(terms, exponent, limit)
    assert book.values == pairs.values
    weights = np.repeat(book.values, 3)
    for packing in (book, pairs):
        np.testing.assert_array_equal(packing.unpack(packing.pack(weights), weights.size), weights)


def test_wide_sets_unpack_to_int16():
    packing = nhot_code(2, 14, 32767)
    assert (len(packing.values), packing.code_bits) == (397, 9)
    weights = np.array(packing.values)
    unpacked = packing.unpack(packing.pack(weights), weights.size)
    assert unpacked.dtype == np.int16
    np.testing.assert_array_equal(unpacked, weights)


def test_terms_are_those_that_the_array_is_fed():
    """A dense layer of all 2-hot weights, compiled for an array of two terms a cycle."""
    values = [value for value in PACKINGS["nhot2_code"].values if value]
    layer = FullyConnected(
        name="all", inputs=(0,), outputs=(1,), weights=np.array([values], np.int8), weight_bits=8,
        weight_zero_point=0, bias=None, input_zero_point=0, output_zero_point=0,
        requantization=Requantization(np.array([1 << 30], np.int32), np.zeros(1, np.int32)),
        activation_min=-128, activation_max=127,
    )  # fmt: skip
    program = compile_layer(layer, (1, len(values)), load_hardware("nhot2_parallel_4x4"))
    fed = [code for code in program.streams.code[: program.streams.start[0, -1]].tolist() if code]
    words = [
        sum(
            (32 | negative << 4 | exponent) << 6 * t for t, (negative, exponent) in enumerate(terms)
        )
        for terms in map(signed_terms, values)
    ]
    assert fed == words


def test_sizes_count_whole_groups():
    assert PACKINGS["ternary_trits5"].size_bits(1_000_000) == 1_600_000
    assert PACKINGS["nhot2_code"].size_bits(1_000_000) == 7_000_000
    assert PACKINGS["ternary_planes"].size_bits(9) == 32  # two groups of eight


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        (
            "nhot2_code",
            [0, 43, 1],
            "weights packed as nhot2_code must be among its 87 values from -127 to 127,"
            " but weight 1 is 43; project them first",
        ),
        (
            "ternary_trits5",
            [[0, 1], [-2, 0]],
            "weights packed as ternary_trits5 must be among its 3 values from -1 to 1,"
            " but weight 2 is -2; project them first",
        ),
        (
            "ternary_planes",
            np.array([2**63], np.uint64),
            "weights packed as ternary_planes must be among its 3 values from -1 to 1,"
            " but weight 0 is 9223372036854775808; project them first",
        ),
        (
            "nhot2_pairs",
            [0.5],
            "weights packed as nhot2_pairs must be integers, not float64;"
            " give the codes of quantized weights",
        ),
    ],
)
def test_weights_that_a_packing_does_not_have_are_refused(name, weights, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        PACKINGS[name].pack(weights)


@pytest.mark.parametrize(
    ("name", "data", "count", "message"),
    [
        (
            "ternary_trits5",
            b"\x00\x01",
            10,
            "code 1 of weights packed as ternary_trits5 is 00000001, which stands for no weight;"
            " check the file and the packing's name",
        ),
        (
            "ternary_twos_complement",
            b"\x80",
            4,
            "code 3 of weights packed as ternary_twos_complement is 10, which stands for no"
            " weight; check the file and the packing's name",
        ),
        (
            "nhot2_code",
            b"\x00",
            2,
            "2 weights packed as nhot2_code are 2 bytes, not 1; give the bytes that pack returned"
            " and the weights' number",
        ),
        (
            "ternary_offset",
            np.zeros((1, 1), np.int64),
            1,
            "1 weights packed as ternary_offset are 1 bytes, not an array of int64 of shape"
            " (1, 1); give the bytes that pack returned and the weights' number",
        ),
        (
            "ternary_offset",
            b"\x05",
            1,
            "the last byte of 1 weights packed as ternary_offset must be filled up with zeros, not"
            " 00000101; check the number of weights",
        ),
        (
            "ternary_base3",
            b"\x00",
            4,
            "the last byte of 4 weights packed as ternary_base3 must be filled up with zeros, not"
            " 00000000; check the number of weights",
        ),
    ],
)
def test_bytes_that_no_packing_wrote_are_refused(name, data, count, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        PACKINGS[name].unpack(data, count)


def test_every_byte_that_stands_for_no_trits_is_refused():
    refused = 0
    for byte in range(256):
        try:
            PACKINGS["ternary_trits5"].unpack(bytes([byte]), 5)
        except InputError:
            refused += 1
    assert refused == 256 - 243


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: nhot_pairs(1),
            "terms of n-hot pairs must be 2 or more, not 1, because one power of two is never"
            " zero; use nhot_code, which takes no more bits",
        ),
        (
            lambda: nhot_pairs(5),
            "5 n-hot pairs with exponents up to 7 take 20 bits a weight, more than 16;"
            " use nhot_code, which takes fewer",
        ),
        (
            lambda: nhot_code(0),
            "terms of an n-hot set must be 1 to 8, not 0; choose one of them",
        ),
        (
            lambda: nhot_code(2, 15),
            "max_exponent of an n-hot set must be 0 to 14, not 15; choose one of them",
        ),
    ],
)
def test_sets_that_cannot_be_stored_are_refused(make, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        make()
