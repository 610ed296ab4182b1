"""Weight blocks: what a pass keeps in the weight memories (docs/programming.md, section 2).

A block is a train of sections of whole beats. The highest bit of a beat marks the last one of its
section; the others are payload.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.hardware import Hardware

Bits = NDArray[np.uint8]


@dataclass(frozen=True)
class Payload:
    """Words of a block.

    Parameters
    ----------
    feed : list of int
        Feed words (rule M3).
    parameters : list of int
        Parameter words (rule M5).
    streams : list of list of int
        Entries of each column (rule S1); none in vector passes.
    """

    feed: list[int]
    parameters: list[int]
    streams: list[list[int]]


def address(beat: int, places: int) -> int:
    """`{beat, place}` address of the first of a beat's `places` places."""
    return beat << (places - 1).bit_length()


def section_beats(payload: Payload, hardware: Hardware) -> list[int]:
    """Beats of each section of `encode_block`."""
    return [
        -(-len(payload.feed) // hardware.feed_places),
        len(payload.parameters) * hardware.parameter_beats,
        *(-(-len(stream) // hardware.stream_places) for stream in payload.streams),
    ]


def encode_block(payload: Payload, hardware: Hardware) -> bytes:
    """Write a weight block; every section has at least one word."""
    widths, beat_bytes = hardware.widths, hardware.beat_bytes
    sections = [_packed(payload.feed, widths.feed, hardware.feed_places, beat_bytes)]
    sections.append(_spread(payload.parameters, widths.parameter, beat_bytes))
    sections += [
        _packed(stream, widths.entry, hardware.stream_places, beat_bytes)
        for stream in payload.streams
    ]
    return b"".join(_section(section, beat_bytes) for section in sections)


def decode_block(data: bytes, hardware: Hardware) -> Payload:
    """Undo `encode_block`.

    Feed words and entries end with the last one whose `last` bit, the highest, is set: every tile's
    last word and entry has it.

    Raises
    ------
    ValueError
        The last beat does not end a section.
    """
    beats = np.frombuffer(data, np.uint8).reshape(-1, hardware.beat_bytes)
    bits = np.unpackbits(beats, axis=1, bitorder="little")
    ends = np.flatnonzero(bits[:, -1]) + 1
    if not ends.size or ends[-1] != len(beats):
        raise ValueError("the last beat of the weight block does not end a section")
    feed, parameters, *streams = np.split(bits[:, :-1], ends[:-1])
    widths = hardware.widths
    words = parameters.reshape(len(parameters) // hardware.parameter_beats, -1)
    return Payload(
        feed=_unpacked(feed, widths.feed),
        parameters=_integers(words[:, : widths.parameter]),
        streams=[_unpacked(stream, widths.entry) for stream in streams],
    )


def _word_bits(words: Sequence[int], width: int) -> Bits:
    """(words, width) bits, the lowest first."""
    size = -(-width // 8)
    if size < 8:
        table = np.array(words, "<i8").reshape(-1, 1).view(np.uint8)
    else:  # parameters: few, and wider than an int64
        data = b"".join(word.to_bytes(size, "little") for word in words)
        table = np.frombuffer(data, np.uint8).reshape(len(words), size)
    return np.unpackbits(table, axis=1, bitorder="little", count=width)


def _packed(words: Sequence[int], width: int, places: int, beat_bytes: int) -> Bits:
    """(beats, 8 * B - 1) payload of `places` words to a beat."""
    beats = -(-len(words) // places)
    flat = np.zeros((beats * places, width), np.uint8)
    flat[: len(words)] = _word_bits(words, width)
    payload = np.zeros((beats, 8 * beat_bytes - 1), np.uint8)
    payload[:, : places * width] = flat.reshape(beats, places * width)
    return payload


def _spread(words: Sequence[int], width: int, beat_bytes: int) -> Bits:
    """(beats, 8 * B - 1) payload of words that take whole beats each."""
    payload_bits = 8 * beat_bytes - 1
    beats_each = -(-width // payload_bits)
    flat = np.zeros((len(words), beats_each * payload_bits), np.uint8)
    flat[:, :width] = _word_bits(words, width)
    return flat.reshape(-1, payload_bits)


def _section(payload: Bits, beat_bytes: int) -> bytes:
    beats = np.zeros((len(payload), 8 * beat_bytes), np.uint8)
    beats[:, :-1] = payload
    beats[-1, -1] = 1
    return np.packbits(beats, axis=1, bitorder="little").tobytes()


def _unpacked(payload: Bits, width: int) -> list[int]:
    places = payload.shape[1] // width
    words = _integers(payload[:, : places * width].reshape(-1, width))
    ends = [i for i, word in enumerate(words) if word >> (width - 1)]
    return words[: ends[-1] + 1] if ends else []


def _integers(bits: Bits) -> list[int]:
    data = np.packbits(bits, axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in data]
