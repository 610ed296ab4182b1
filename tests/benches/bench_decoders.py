"""Decoders of packed weights: every code against what golden.packings reads from it."""

from itertools import pairwise

import cocotb
from cocotb.triggers import Timer

from golden.errors import InputError
from golden.packings import PACKINGS, nhot_code, nhot_pairs

TRITS = {0b00: 0, 0b01: 1, 0b11: -1}  # rule S2


def weights_of(packing, code):
    """Weights of a code, or None where it stands for none."""
    data = code.to_bytes(-(-packing.code_bits // 8), "little")
    try:
        return packing.unpack(data, packing.group_weights).tolist()
    except InputError:
        return None


def terms_of(vector, count, shift_w):
    """(enable, negative, shift) of each term of rule S2, term 0 lowest."""
    fields = [vector >> (t * (2 + shift_w)) for t in range(count)]
    return [
        (field >> (shift_w + 1) & 1, field >> shift_w & 1, field & ((1 << shift_w) - 1))
        for field in fields
    ]


def check_terms(terms, weight):
    """The terms add up to the weight; no two are neighbours, so there are no fewer."""
    present = [(negative, shift) for enable, negative, shift in terms if enable]
    assert [enable for enable, *_ in terms] == sorted((e for e, *_ in terms), reverse=True)
    assert sum((-1) ** negative * 2**shift for negative, shift in present) == weight
    shifts = [shift for _, shift in present]
    assert all(high >= low + 2 for high, low in pairwise(shifts))


def parameters(dut, *names):
    return [int(getattr(dut, name).value) for name in names]


@cocotb.test()
async def nhot_codes(dut):
    terms, exponent, limit, shift_w = parameters(dut, "TERMS", "MAX_EXPONENT", "LIMIT", "SHIFT_W")
    packing = nhot_code(terms, exponent, limit)
    for code in range(1 << packing.code_bits):
        dut.code.value = code
        await Timer(1, unit="ns")
        weights = weights_of(packing, code)
        assert int(dut.valid.value) == (weights is not None), f"{code:b}"
        if weights is not None:
            found = terms_of(int(dut.terms.value), terms, shift_w)
            check_terms(found, weights[0])
            assert all(term == (0, 0, 0) for term in found if not term[0])


@cocotb.test()
async def nhot_pairs_of_int8(dut):
    terms, exponent_w, shift_w = parameters(dut, "TERMS", "EXPONENT_W", "SHIFT_W")
    packing = nhot_pairs(terms)
    assert len(dut.code) == packing.code_bits
    for code in range(1 << packing.code_bits):
        dut.code.value = code
        await Timer(1, unit="ns")
        found = terms_of(int(dut.terms.value), terms, shift_w)
        exponents = [shift for _, _, shift in found]
        falls = [
            all(high > low for high, low in pairwise(exponents[: t + 1])) for t in range(terms)
        ]
        falls[0] = exponents[0] >= exponents[1]
        pairs = [code >> (t * (1 + exponent_w)) for t in range(terms)]
        assert found == [
            (enable, pair >> exponent_w & 1, pair & ((1 << exponent_w) - 1))
            for enable, pair in zip(falls, pairs, strict=True)
        ]
        weights = weights_of(packing, code)
        if weights is not None:
            check_terms(found, weights[0])


async def check_trits(dut, weights, code):
    """The lanes of the module are the first weights of the code."""
    await Timer(1, unit="ns")
    assert int(dut.valid.value) == (weights is not None), f"{code:b}"
    if weights is not None:
        vector = int(dut.codes.value)
        lanes = len(dut.codes) // 2
        assert [TRITS[vector >> 2 * i & 3] for i in range(lanes)] == weights[:lanes]


@cocotb.test()
async def five_trits(dut):
    packing = PACKINGS["ternary_trits5"]
    for byte in range(256):
        dut.stored.value = byte
        await check_trits(dut, weights_of(packing, byte), byte)


@cocotb.test()
async def trit_pairs(dut):
    lanes, offset = parameters(dut, "LANES", "OFFSET")
    packing = PACKINGS["ternary_offset" if offset else "ternary_twos_complement"]
    for stored in range(1 << 2 * lanes):
        dut.stored.value = stored
        trits = [weights_of(packing, stored >> 2 * i & 3) for i in range(lanes)]
        weights = None if None in trits else [trit for (trit,) in trits]
        await check_trits(dut, weights, stored)


@cocotb.test()
async def trit_planes(dut):
    (lanes,) = parameters(dut, "LANES")
    packing = PACKINGS["ternary_planes"]
    for stored in range(1 << 2 * lanes):
        plus, minus = stored & ((1 << lanes) - 1), stored >> lanes
        dut.plus.value, dut.minus.value = plus, minus
        await check_trits(dut, weights_of(packing, minus << 8 | plus), stored)
