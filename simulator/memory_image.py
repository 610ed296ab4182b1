"""Between tensors, external memory and the banked memories of the accelerator (rules M2, M5, M6).

Images are arrays of codes, one element a code; `pack_lanes` and `parameter_words` make the words
that Verilog memories hold, `tensor_bytes` the planes of external memory (docs/programming.md).
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulator.hardware import Widths
from simulator.program import Geometry, LayerProgram, Parameters

IntArray = NDArray[np.int64]


def activation_banks(image: ArrayLike, geometry: Geometry, zero_point: int) -> IntArray:
    """Lay one input image out in the activation memory (rule M2).

    Parameters
    ----------
    image : integer array, any shape of height * width * in_channels values, channels last
        Codes, as the layer before wrote them.
    geometry : Geometry
    zero_point : int
        Of the input; fills lanes beyond the last channel and places without a pixel.

    Returns
    -------
    (R, bank_words, F) int64 array
    """
    codes = np.asarray(image, dtype=np.int64).reshape(
        geometry.height, geometry.width, geometry.in_channels
    )
    padded = np.full(
        (geometry.height, geometry.width, geometry.in_words * geometry.feed), zero_point, np.int64
    )
    padded[:, :, : geometry.in_channels] = codes
    iy, ix = np.indices((geometry.height, geometry.width))
    sy, sx = geometry.stride
    plane = (iy % sy) * sx + ix % sx
    line, bank = np.divmod((iy // sy) * geometry.pitch + ix // sx, geometry.rows)
    banks = np.full(
        (geometry.rows, sy * sx * geometry.plane_lines, geometry.in_words, geometry.feed),
        zero_point,
        np.int64,
    )
    banks[bank, plane * geometry.plane_lines + line] = padded.reshape(
        geometry.height, geometry.width, geometry.in_words, geometry.feed
    )
    return banks.reshape(geometry.rows, geometry.bank_words, geometry.feed)


def outputs_from_banks(banks: ArrayLike, geometry: Geometry) -> IntArray:
    """Read one output image back from the output memory (rule M6).

    Parameters
    ----------
    banks : (R, out_bank_words, F) integer array
    geometry : Geometry

    Returns
    -------
    (height, width, out_channels) int64 array
    """
    words = np.asarray(banks, dtype=np.int64).reshape(
        geometry.rows, geometry.pixel_tiles, geometry.tile_outputs, -1
    )
    step_y, step_x = geometry.stride if geometry.form else (1, 1)
    y, x = np.indices(geometry.stored)
    tile, row = np.divmod(y // step_y * geometry.pitch + x // step_x, geometry.rows)
    return words[row, tile, y % step_y * step_x + x % step_x, : geometry.out_channels]


def pack_lanes(codes: ArrayLike, bits: int) -> list[int]:
    """Pack words of lanes into integers, lane 0 in the lowest bits, two's complement.

    Parameters
    ----------
    codes : (words, F) integer array
    bits : int
        Of a lane.
    """
    lanes = np.asarray(codes, dtype=np.int64).astype(object) & ((1 << bits) - 1)
    return [sum(lane << (bits * i) for i, lane in enumerate(word)) for word in lanes]


def unpack_lanes(words: list[int], lanes: int, bits: int, signed: bool) -> IntArray:
    """Undo `pack_lanes`; an (words, lanes) int64 array of signed or unsigned codes."""
    mask, sign = (1 << bits) - 1, (1 << bits - 1) if signed else 0
    return np.array(
        [[((word >> (bits * i) & mask) ^ sign) - sign for i in range(lanes)] for word in words],
        dtype=np.int64,
    ).reshape(len(words), lanes)


def parameter_words(program: LayerProgram) -> list[int]:
    """Words of the parameter memory, a channel of the layer each (rule M5)."""
    return encode_parameters(program.parameters, program.hardware.widths)


def encode_parameters(parameters: Parameters, widths: Widths) -> list[int]:
    """Pack {bias, multiplier, shift}, `bias` the highest bits (rule M5)."""
    words = []
    for bias, multiplier, shift in zip(
        parameters.bias.tolist(),
        parameters.multiplier.tolist(),
        parameters.shift.tolist(),
        strict=True,
    ):
        word = bias & ((1 << widths.bias) - 1)
        word = (word << widths.multiplier) | (multiplier & ((1 << widths.multiplier) - 1))
        words.append((word << widths.shift) | (shift & ((1 << widths.shift) - 1)))
    return words


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Height, width and channels of a tensor (batch first): H = 1 where it is not an image."""
    *places, channels = shape[1:] if len(shape) > 1 else (1,)
    if len(shape) == 4:
        return places[0], places[1], channels
    return 1, prod(places), channels


def tensor_planes_bytes(shape: tuple[int, ...], feed: int, bits: int) -> int:
    """Bytes of one sample of a tensor in external memory, unused lanes included."""
    height, width, channels = image_shape(shape)
    return -(-channels // feed) * height * width * feed * bits // 8


def tensor_bytes(codes: ArrayLike, feed: int, bits: int) -> bytes:
    """Lay one sample out in external memory: planes of F channels (docs/programming.md).

    Parameters
    ----------
    codes : (1, ...) integer array
        Batch first, channels last.
    feed, bits : int
        F, and the width of a code.

    Returns
    -------
    bytes
        Lanes beyond the last channel are 0.
    """
    array = np.asarray(codes, dtype=np.int64)
    height, width, channels = image_shape(array.shape)
    planes = -(-channels // feed)
    padded = np.zeros((height, width, planes * feed), np.int64)
    padded[:, :, :channels] = array.reshape(height, width, channels)
    words = padded.reshape(height, width, planes, feed).transpose(2, 0, 1, 3)
    data: bytes = words.astype(f"<i{bits // 8}").tobytes()
    return data


def tensor_from_bytes(
    data: bytes, shape: tuple[int, ...], feed: int, bits: int, signed: bool
) -> IntArray:
    """Undo `tensor_bytes`: an int64 array of `shape`, whose batch is 1."""
    height, width, channels = image_shape(shape)
    planes = -(-channels // feed)
    words = np.frombuffer(data, f"<{'i' if signed else 'u'}{bits // 8}").astype(np.int64)
    image = words.reshape(planes, height, width, feed).transpose(1, 2, 0, 3)
    return image.reshape(height, width, planes * feed)[:, :, :channels].reshape(shape)
