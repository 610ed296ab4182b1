"""How quantized weights are stored: packings, what they take, and how they are read back.

A packing turns groups of integer weights into codes of a fixed width, one code for each group, and
is exact: what is unpacked is what was packed. It is a table, of every code's weights, so bytes that
no packing writes are refused.

Order of bits
-------------
Weights are taken in C order, and a last group is filled up with zero weights. Code i of width w has
bits i*w .. i*w + w - 1 of the stream, lowest bit first; bit b of the stream is bit b mod 8 of byte
b // 8; unused bits of the last byte are 0. (So do ONNX's INT2 and INT4, and Napier's weight
blocks.)

========================  =======  ====  ==========================================================
packing                   weights  bits  code, most significant bit first
========================  =======  ====  ==========================================================
nhot<n>_code                    1     w  {negative, index of the magnitude in `magnitudes`}
nhot<n>_pairs                   1     w  n times {negative, exponent}, first term lowest
ternary_twos_complement         1     2  00 = 0, 01 = +1, 11 = -1
ternary_offset                  1     2  00 = -1, 01 = 0, 10 = +1
ternary_planes                  8    16  {8 bits "is -1", 8 bits "is +1"}, first weight lowest
ternary_trits5                  5     8  ceil(v * 256 / 243), first weight most significant in v
ternary_base3                   5     8  v, first weight least significant
========================  =======  ====  ==========================================================

v is a number in base 3, five digits of weight + 1. The decoders in Verilog are `nhot_code_decoder`,
`nhot_pair_decoder`, `trit_pair_decoder`, `ternary_plane_decoder` and `trit_decoder`;
docs/packings.md compares all with their gates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from golden.errors import InputError

Bytes = NDArray[np.uint8]
Codes = NDArray[np.uint16]
Weights = NDArray[np.signedinteger[Any]]

MAX_CODE_BITS = 16
"""Widest code; a table of all codes is kept."""


@dataclass(frozen=True, eq=False)
class Packing:
    """A way to store weights.

    Parameters
    ----------
    name : str
    code_bits : int
        Width of a code, 1 to 16.
    groups : (M, G) int64 array
        Every group of G weights that can be stored: all rows of G of `values`, zero among them.
    codes : (M,) int64 array
        Their codes, all different.
    summary : str
        The code in words.
    source : str
        Who uses it, or where it is defined.
    """

    name: str
    code_bits: int
    groups: NDArray[np.int64]
    codes: NDArray[np.int64]
    summary: str
    source: str

    @property
    def group_weights(self) -> int:
        """Weights that share a code."""
        return int(self.groups.shape[1])

    @cached_property
    def values(self) -> tuple[int, ...]:
        """Weights that can be stored, ascending."""
        return tuple(np.unique(self.groups).tolist())

    def size_bits(self, count: int) -> int:
        """Bits of the codes of `count` weights; `pack` fills the last byte up."""
        return self.code_bits * -(-count // self.group_weights)

    def pack(self, weights: ArrayLike) -> Bytes:
        """Store weights.

        Parameters
        ----------
        weights : integer array of any shape
            Taken in C order.

        Returns
        -------
        (ceil(size_bits / 8),) uint8 array

        Raises
        ------
        InputError
            The weights are no integers, or one is not in `values`.
        """
        flat = self._checked(np.asarray(weights))
        filled = np.pad(flat, (0, -flat.size % self.group_weights))
        return _join(self._code_at[self._index(filled.reshape(-1, self.group_weights))], self)

    def unpack(self, data: ArrayLike | bytes, count: int) -> Weights:
        """Read weights back.

        Parameters
        ----------
        data : bytes or uint8 array
        count : int
            How many weights there are.

        Returns
        -------
        (count,) int8 array
            int16 where a value needs it.

        Raises
        ------
        InputError
            There are more or fewer bytes than `count` weights take, a code stands for no weights,
            or what fills up the last group or byte is not zero.
        """
        if isinstance(data, bytes | bytearray | memoryview):
            data = np.frombuffer(data, np.uint8)
        stored, size_bits = np.asarray(data), self.size_bits(count)
        if stored.dtype != np.uint8 or stored.shape != (-(-size_bits // 8),):
            raise InputError(
                f"{count} weights packed as {self.name} are {-(-size_bits // 8)} bytes, not"
                f" {_described(stored)}; give the bytes that pack returned and the weights' number"
            )
        codes = _split(stored, self)[: -(-count // self.group_weights)]
        weights = self._weights_at[codes]
        known = self._is_code[codes]
        if not known.all():
            place = int(np.argmin(known))
            raise InputError(
                f"code {place} of weights packed as {self.name} is"
                f" {codes[place]:0{self.code_bits}b}, which stands for no weight; check the file"
                " and the packing's name"
            )
        flat = weights.reshape(-1)
        unused_bits = -size_bits % 8
        if flat[count:].any() or (unused_bits and stored[-1] >> (8 - unused_bits)):
            raise InputError(
                f"the last byte of {count} weights packed as {self.name} must be filled up with"
                f" zeros, not {stored[-1]:08b}; check the number of weights"
            )
        return flat[:count]

    def _checked(self, weights: NDArray[Any]) -> NDArray[Any]:
        """Weights in one row, all in the set."""
        if weights.dtype.kind not in "iu":
            raise InputError(
                f"weights packed as {self.name} must be integers, not {weights.dtype}; give the"
                " codes of quantized weights"
            )
        flat = weights.reshape(-1)
        low, high = self.values[0], self.values[-1]
        known = (flat >= low) & (flat <= high)
        if known.all():
            flat = flat.astype(np.int32)  # a difference of two int16 may need 17 bits
            known = self._is_value[flat - low]
        if not known.all():
            place = int(np.argmin(known))
            raise InputError(
                f"weights packed as {self.name} must be among its {len(self.values)} values from"
                f" {low} to {high}, but weight {place} is {flat[place]}; project them first"
            )
        return flat

    # -- tables -----------------------------------------------------------------------------------

    def _index(self, groups: NDArray[Any]) -> NDArray[np.int32]:
        """Take each group as a number of digits weight - least value, the first the highest."""
        low, base = self.values[0], self.values[-1] - self.values[0] + 1
        index = np.zeros(len(groups), np.int32)
        for column in groups.T:
            index *= base
            index += column
            index -= low
        return index

    @cached_property
    def _code_at(self) -> Codes:
        base = self.values[-1] - self.values[0] + 1
        table = np.zeros(base**self.group_weights, np.uint16)
        table[self._index(self.groups)] = self.codes
        return table

    @cached_property
    def _is_value(self) -> NDArray[np.bool_]:
        return np.isin(np.arange(self.values[0], self.values[-1] + 1), self.values)

    @cached_property
    def _is_code(self) -> NDArray[np.bool_]:
        table = np.zeros(1 << self.code_bits, np.bool_)
        table[self.codes] = True
        return table

    @cached_property
    def _weights_at(self) -> Weights:
        size = (1 << self.code_bits, self.group_weights)
        table = np.zeros(size, np.min_scalar_type(min(self.values[0], -self.values[-1])))
        table[self.codes] = self.groups
        return table


def _described(data: NDArray[Any]) -> str:
    if data.dtype == np.uint8 and data.ndim == 1:
        return str(data.size)
    return f"an array of {data.dtype} of shape {data.shape}"


# -- streams of codes -----------------------------------------------------------------------------


def _overlaps(bits: int) -> list[tuple[int, int, int]]:
    """Codes i and bytes k of 8 codes in `bits` bytes that share bits; bit 0 of i is at bit s of k.

    As (i, k, s).
    """
    places = ((i, k, i * bits - 8 * k) for i, k in product(range(8), range(bits)))
    return [place for place in places if -bits < place[2] < 8]


def _shifted(words: NDArray[np.uint32], left: int) -> NDArray[np.uint32]:
    return words << np.uint32(left) if left >= 0 else words >> np.uint32(-left)


def _join(codes: Codes, packing: Packing) -> Bytes:
    """Stream of codes, in whole bytes."""
    bits = packing.code_bits
    rows = np.pad(codes, (0, -codes.size % 8)).reshape(-1, 8).astype(np.uint32)
    data = np.zeros((len(rows), bits), np.uint8)
    for code, byte, shift in _overlaps(bits):
        data[:, byte] |= (_shifted(rows[:, code], shift) & 255).astype(np.uint8)
    return data.reshape(-1)[: -(-codes.size * bits // 8)]


def _split(data: Bytes, packing: Packing) -> Codes:
    """Undo `_join`; bits that make no whole code are left out."""
    bits = packing.code_bits
    rows = np.pad(data, (0, -data.size % bits)).reshape(-1, bits).astype(np.uint32)
    codes = np.zeros((len(rows), 8), np.uint16)
    for code, byte, shift in _overlaps(bits):
        part = _shifted(rows[:, byte], -shift) & ((1 << bits) - 1)
        codes[:, code] |= part.astype(np.uint16)
    return codes.reshape(-1)[: 8 * data.size // bits]


# -- n-hot ----------------------------------------------------------------------------------------


def nhot_magnitudes(terms: int, max_exponent: int, limit: int) -> tuple[int, ...]:
    """Magnitudes of V(n, E, L), ascending; the first is 0.

    V(n, E, L) has the sums of at most n = `terms` signed powers of two 2**0 .. 2**E, E =
    `max_exponent`, of magnitude at most L = `limit`. nhot_magnitudes(2, 2, 7) is 0 to 6; 7 = 8 - 1
    needs exponent 3.

    Raises
    ------
    InputError
        n is not 1 to 8, E not 0 to 14, or L not 1 to 32767.
    """
    for name, value, low, high in (
        ("terms", terms, 1, 8),
        ("max_exponent", max_exponent, 0, 14),
        ("limit", limit, 1, 32767),
    ):
        if not low <= value <= high:
            raise InputError(
                f"{name} of an n-hot set must be {low} to {high}, not {value}; choose one of them"
            )
    powers = 1 << np.arange(max_exponent + 1)
    sums = np.zeros(1, np.int64)
    for _ in range(terms):
        sums = np.unique(
            np.concatenate([sums, *(sums + p for p in powers), *(sums - p for p in powers)])
        )
    return tuple(sums[(sums >= 0) & (sums <= limit)].tolist())


def signed_terms(value: int) -> tuple[tuple[bool, int], ...]:
    """Signed powers of two of a value as (negative, exponent), the highest exponent first.

    Non-adjacent form, so none has fewer: 7 = 8 - 1 gives ((False, 3), (True, 0)); 0 gives ().
    """
    terms = []
    exponent = 0
    while value:
        if value % 2:
            negative = value % 4 == 3
            terms.append((negative, exponent))
            value += 1 if negative else -1
        value //= 2
        exponent += 1
    return tuple(reversed(terms))


def nhot_code(terms: int, max_exponent: int = 7, limit: int = 127) -> Packing:
    """Code book of V(n, E, L): a sign and the index of the magnitude, ceil(log2 |V|) bits.

    The book is a function of n, E and L, so it is not stored. Index i of b bits stands for
    ``nhot_magnitudes(terms, max_exponent, limit)[i]``; the code is {negative, i}, and zero has no
    negative code. (|V| is odd, so a sign and ceil(log2((|V| + 1) / 2)) bits are no more than
    ceil(log2 |V|).)

    Raises
    ------
    InputError
        See `nhot_magnitudes`.
    """
    magnitudes = np.array(nhot_magnitudes(terms, max_exponent, limit))
    index = np.arange(magnitudes.size)
    index_bits = (magnitudes.size - 1).bit_length()
    return Packing(
        name=_nhot_name(terms, max_exponent, limit, "code"),
        code_bits=index_bits + 1,
        groups=np.concatenate([magnitudes, -magnitudes[1:]])[:, np.newaxis],
        codes=np.concatenate([index, index[1:] | 1 << index_bits]),
        summary="sign, index of the magnitude",
        source="n-hot (arXiv 2103.11704); the code is ours",
    )


def nhot_pairs(terms: int, max_exponent: int = 7, limit: int = 127) -> Packing:
    """Signed powers of two of V(n, E, L), n times a sign and an exponent.

    Term t is {negative, exponent} at bits t * (1 + e) and up, e the bits of the largest exponent.
    Terms are those of `signed_terms`, so exponents fall, and that says which there are: an exponent
    that is not below the one before it stands for no term, and for none after it; if the second is
    *above* the first there is no first either. A missing term is written as the one before it
    without its sign, zero as exponents 0, 1, 1, ...

    Raises
    ------
    InputError
        See `nhot_magnitudes`; for n = 1, where zero would have no code; for codes of more than 16
        bits.
    """
    magnitudes = nhot_magnitudes(terms, max_exponent, limit)
    if terms == 1:
        raise InputError(
            "terms of n-hot pairs must be 2 or more, not 1, because one power of two is never zero;"
            " use nhot_code, which takes no more bits"
        )
    values = (*magnitudes, *(-m for m in magnitudes[1:]))
    largest = max(exponent for value in values for _, exponent in signed_terms(value))
    exponent_bits = max(1, largest.bit_length())
    code_bits = terms * (1 + exponent_bits)
    if code_bits > MAX_CODE_BITS:
        raise InputError(
            f"{terms} n-hot pairs with exponents up to {largest} take {code_bits} bits a weight,"
            f" more than {MAX_CODE_BITS}; use nhot_code, which takes fewer"
        )
    return Packing(
        name=_nhot_name(terms, max_exponent, limit, "pairs"),
        code_bits=code_bits,
        groups=np.array(values)[:, np.newaxis],
        codes=np.array([_pairs_code(value, terms, exponent_bits) for value in values]),
        summary=f"{terms} x (sign, exponent)",
        source="n-hot (arXiv 2103.11704); the code is ours",
    )


def _pairs_code(value: int, terms: int, exponent_bits: int) -> int:
    present = signed_terms(value)
    nothing = (False, present[-1][1] if present else 1)
    first = present or ((False, 0),)
    pairs = [*first, *[nothing] * (terms - len(first))]
    return sum(
        (negative << exponent_bits | exponent) << t * (1 + exponent_bits)
        for t, (negative, exponent) in enumerate(pairs)
    )


def _nhot_name(terms: int, max_exponent: int, limit: int, kind: str) -> str:
    name = f"nhot{terms}_{kind}"
    return name if (max_exponent, limit) == (7, 127) else f"{name}_e{max_exponent}_l{limit}"


# -- ternary --------------------------------------------------------------------------------------


def _rows(count: int) -> NDArray[np.int64]:
    """All (3**count, count) rows of trits."""
    return np.array(list(product((-1, 0, 1), repeat=count)))


_ONE, _FIVE, _EIGHT = _rows(1), _rows(5), _rows(8)
_BITS = 2 ** np.arange(8)
_PLACES = 3 ** np.arange(5)

TERNARY = (
    Packing(
        name="ternary_twos_complement",
        code_bits=2,
        groups=_ONE,
        codes=_ONE[:, 0] & 3,
        summary="two's complement",
        source="ONNX INT2; CUTIE (Scherer et al., 2021)",
    ),
    Packing(
        name="ternary_offset",
        code_bits=2,
        groups=_ONE,
        codes=_ONE[:, 0] + 1,
        summary="weight + 1",
        source="I2_S of bitnet.cpp, TQ2_0 of llama.cpp",
    ),
    Packing(
        name="ternary_planes",
        code_bits=16,
        groups=_EIGHT,
        codes=(_EIGHT == 1) @ _BITS | ((_EIGHT == -1) @ _BITS) << 8,
        summary="a byte that tells +1, a byte that tells -1",
        source="w = P - M of popcount kernels",
    ),
    Packing(
        name="ternary_trits5",
        code_bits=8,
        groups=_FIVE,
        codes=-(-((_FIVE + 1) @ _PLACES[::-1]) * 256 // 243),
        summary="five digits of base 3, scaled to 256",
        source="the byte of llama.cpp's TQ1_0",
    ),
    Packing(
        name="ternary_base3",
        code_bits=8,
        groups=_FIVE,
        codes=(_FIVE + 1) @ _PLACES,
        summary="five digits of base 3",
        source="plain",
    ),
)
"""Packings of the weights -1, 0 and +1."""

PACKINGS: dict[str, Packing] = {
    packing.name: packing
    for packing in (
        *(nhot_code(terms) for terms in (1, 2, 3)),
        *(nhot_pairs(terms) for terms in (2, 3)),
        *TERNARY,
    )
}
"""Packings by name: `pack`, `unpack`, `size_bits`. n-hot ones are of int8, V(n, 7, 127); other sets
have `nhot_code` and `nhot_pairs`."""
