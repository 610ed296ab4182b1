"""Descriptors: one pass in 64 + R words of 32 bits (docs/programming.md, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from simulator.hardware import DESCRIPTOR_FIXED_WORDS as FIXED_WORDS

MAGIC = 0x4E415031
"""The first word of every descriptor, "NAP1"."""

MODES = ("array", "sum", "max", "add", "mul")
"""Modes in the order of their numbers."""


class Field(NamedTuple):
    """Where a field lies: `width` bits from bit `lsb` of 32-bit word `word`."""

    word: int
    lsb: int
    width: int
    signed: bool
    name: str


def _words(first: int, *names: str, signed: bool = False) -> tuple[Field, ...]:
    """Fields of a whole word each, from word `first` on."""
    return tuple(Field(first + i, 0, 32, signed, name) for i, name in enumerate(names))


DESCRIPTOR_FIELDS: tuple[Field, ...] = (
    *_words(0, "magic", "machine"),
    Field(2, 0, 2, False, "order"),
    Field(2, 2, 1, False, "layer_end"),
    Field(2, 3, 1, False, "program_end"),
    Field(2, 4, 1, False, "drain"),
    Field(2, 5, 1, False, "input_signed"),
    Field(2, 6, 1, False, "shared_parameter"),
    Field(2, 7, 3, False, "rounding"),
    Field(2, 10, 3, False, "mode"),
    Field(2, 13, 2, False, "winograd"),
    *_words(3, "layer"),
    Field(4, 0, 16, False, "pixel_tiles"),
    Field(4, 16, 16, False, "channel_tiles"),
    Field(5, 0, 16, False, "results"),
    Field(5, 16, 16, False, "results_last"),
    *_words(6, "feed_base", "stream_base", "first_channel"),
    *_words(9, "parameter_base", "activation_base", "output_base", signed=True),
    *_words(12, "in_words", "out_words"),
    *_words(14, "step_y", "step_x", "row_y", "wrap_x", "pitch_x", signed=True),
    *_words(19, "end_y", "end_x", "height", "width", signed=True),
    *_words(23, "input_zero_point", "output_zero_point", "minimum", "maximum", signed=True),
    *_words(27, "second_offset", signed=True),
    *_words(28, "left_shift"),
    *_words(29, "first_multiplier", "first_shift", signed=True),
    *_words(31, "second_multiplier", "second_shift", signed=True),
    *_words(33, "weight_offset", "weight_beats"),
    *_words(35, "load_feed", "load_parameters", "load_streams", "load_offset"),
    *_words(39, "load_segments", "load_words", "load_stride"),
    *_words(42, "load_base", signed=True),
    *_words(43, "load_row_words", "load_rows"),
    Field(45, 0, 8, False, "load_stride_x"),
    Field(45, 8, 8, False, "load_stride_y"),
    Field(45, 16, 16, False, "load_bank"),
    *_words(46, "load_phase_words"),
    Field(47, 0, 16, False, "load_pitch_banks"),
    Field(47, 16, 16, False, "load_phase_y"),
    *_words(48, "load_pitch_words", "second_load_offset"),
    *_words(50, "second_load_base", signed=True),
    *_words(52, "store_offset", "store_segments", "store_words", "store_stride"),
    *_words(56, "store_base", "store_bank", "store_first_row_words", "store_row_words"),
    *_words(60, "store_gap_banks", "store_gap_words"),
    Field(62, 0, 8, False, "store_first_lane"),
    Field(62, 8, 8, False, "store_last_lane"),
    Field(63, 0, 16, False, "chunk_words"),
    Field(63, 16, 16, False, "chunks"),
)
"""Every field but those of the rows, in the order of their words."""

ROW_FIELDS: tuple[Field, ...] = (
    Field(0, 0, 16, True, "start_y"),
    Field(0, 16, 16, True, "start_x"),
)
"""Fields of row r's word; `word` counts from word 64 + r."""


def encode_descriptor(values: Mapping[str, int], starts: list[tuple[int, int]]) -> bytes:
    """Write a descriptor.

    Parameters
    ----------
    values : mapping of str to int
        Every name of `DESCRIPTOR_FIELDS`.
    starts : list of (start_y, start_x)
        One a row.

    Returns
    -------
    bytes
        4 * (64 + R) of them.

    Raises
    ------
    ValueError
        A value that its field cannot hold.
    """
    words = [0] * (FIXED_WORDS + len(starts))
    for field in DESCRIPTOR_FIELDS:
        words[field.word] |= _place(field, values[field.name])
    for row, start in enumerate(starts):
        for field, value in zip(ROW_FIELDS, start, strict=True):
            words[FIXED_WORDS + row] |= _place(field, value)
    return b"".join(word.to_bytes(4, "little") for word in words)


def decode_descriptor(data: bytes, rows: int) -> tuple[dict[str, int], list[tuple[int, int]]]:
    """Undo `encode_descriptor`: values by name, and (start_y, start_x) of every row."""
    words = [int.from_bytes(data[4 * i : 4 * i + 4], "little") for i in range(FIXED_WORDS + rows)]
    values = {field.name: _take(field, words[field.word]) for field in DESCRIPTOR_FIELDS}
    vertical, horizontal = ROW_FIELDS
    starts = [(_take(vertical, word), _take(horizontal, word)) for word in words[FIXED_WORDS:]]
    return values, starts


def _place(field: Field, value: int) -> int:
    low = -(1 << (field.width - 1)) if field.signed else 0
    if not low <= value < low + (1 << field.width):
        raise ValueError(
            f"descriptor field {field.name}={value} does not fit its {field.width} bits"
        )
    return (value & ((1 << field.width) - 1)) << field.lsb


def _take(field: Field, word: int) -> int:
    value = word >> field.lsb & ((1 << field.width) - 1)
    return value - (1 << field.width) if field.signed and value >> (field.width - 1) else value
