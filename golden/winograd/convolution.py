"""Convolution layers through a Winograd transform, exactly or modulo a power of two.

Tiles of outputs start at the first output and lie side by side; what the last ones have too many is
dropped. Where a tile reads beyond the image, in the padding or further out, the operand is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from golden.arithmetic import wrap
from golden.errors import InputError, UnsupportedError
from golden.formats import Int64Array, IntFormat
from golden.network import Conv2D, WeightedLayer
from golden.operators import FLOAT64_EXACT, Array, accumulators, operands, output_size
from golden.winograd.transforms import (
    Transform,
    complex_f4,
    inverse_of_odd,
    transform_name,
    winograd,
)

MAX_BITS = 62
"""Widest accumulator of the wrapped form."""

TransformName = Literal["f2", "f3", "f4", "f6", "complex"]
"""Outputs of a tile along an axis; ``complex`` is `complex_f4`."""

OUTPUTS: dict[TransformName, int] = {"f2": 2, "f3": 3, "f4": 4, "f6": 6}

MAX_AXIS_PRODUCTS = 8
"""F(6,3) and F(4,5) have as many."""


@dataclass(frozen=True)
class Choice:
    """Whether a layer is computed by a transform, and why not if it is not.

    Parameters
    ----------
    transform : Transform or None
        None: the direct sum.
    reason : str
        Why it is direct, a phrase; empty where it is not.
    """

    transform: Transform | None
    reason: str = ""

    @property
    def name(self) -> str:
        """The transform's name, or ``direct``."""
        return "direct" if self.transform is None else self.transform.name


def choose(layer: WeightedLayer, transform: Transform) -> Choice:
    """Take the transform where it computes this layer, otherwise the direct sum with a reason."""
    reason = _unfit(layer)
    if reason:
        return Choice(None, reason)
    R, S = layer.weights.shape[1:3]
    if transform.kernel != (R, S):
        wanted = f"{transform.kernel[0]}x{transform.kernel[1]}"
        return Choice(None, f"kernel {R}x{S}, {transform.name} takes {wanted}")
    return Choice(transform)


def choose_named(layer: WeightedLayer, name: TransformName) -> Choice:
    """Take the transform of this name for the layer's kernel, or the direct sum with a reason.

    Rows of G are minimal. An axis along which the kernel has one tap only stays as it is. No axis
    takes more than `MAX_AXIS_PRODUCTS`: beyond, operands grow by more bits than products are saved.
    """
    reason = _unfit(layer)
    if reason:
        return Choice(None, reason)
    if name == "complex":
        return choose(layer, complex_f4())
    R, S = layer.weights.shape[1:3]
    if (R, S) == (1, 1):
        return Choice(None, "kernel 1x1, no product can be saved")
    height, width = (OUTPUTS[name] if taps > 1 else 1 for taps in (R, S))
    products = max(height + R, width + S) - 1
    if products > MAX_AXIS_PRODUCTS:
        wanted = transform_name((height, width), (R, S))
        return Choice(None, f"{wanted} has {products} products along an axis, too many")
    return Choice(winograd((height, width), (R, S)))


def _unfit(layer: WeightedLayer) -> str:
    """Say why no transform computes a layer, whatever its kernel; empty where one may."""
    if not isinstance(layer, Conv2D):
        return "no window slides over its input"
    for what, value in (("stride", layer.stride), ("dilation", layer.dilation)):
        if value != (1, 1):
            return f"{what} {value[0]}x{value[1]}, tiles need 1x1"
    return ""


@dataclass(frozen=True)
class Stages:
    """Registers of a layer in the Winograd domain; the last axes are products and channels.

    Parameters
    ----------
    input : (N, tile_rows, tile_columns, products, in_channels) int64 array
        V.
    weight : (out_channels, products, in_channels / groups) int64 array
        U.
    sum : (N, tile_rows, tile_columns, products, out_channels) int64 array
        Sum over input channels of U * V.
    output : (N, tile_rows, tile_columns, out_height, out_width, out_channels) int64 array
        Z, the divisor times the accumulators.
    """

    input: Int64Array
    weight: Int64Array
    sum: Int64Array
    output: Int64Array


@dataclass(frozen=True)
class WinogradResult:
    """Accumulators of a layer, and how they were computed.

    Parameters
    ----------
    accumulators : (N, P, Q, out_channels) int64 array
        (rows, out_features) for a fully connected layer.
    choice : Choice
    stages : Stages or None
        None where the layer is direct.
    """

    accumulators: Int64Array
    choice: Choice
    stages: Stages | None


def winograd_layer(
    layer: WeightedLayer, codes: Array, transform: Transform, bits: int | None = None
) -> WinogradResult:
    """Accumulators of a layer by a Winograd transform, or directly where that does not apply.

    Parameters
    ----------
    layer : WeightedLayer
    codes : integer array
        Input codes, as for `golden.operators.accumulators`.
    transform : Transform
    bits : int or None
        None: every stage exact. Otherwise every stage keeps its low `bits` bits (1 more than the
        transform's shift, to 62), and the division is by shift and inverse.

    Returns
    -------
    WinogradResult
        The accumulators equal those of the direct sum; with `bits` they do where the sum fits
        `bits` - transform.shift signed bits, and are its low bits otherwise.

    Raises
    ------
    InputError
        Where the codes do not fit the layer, or `bits` is out of range.
    UnsupportedError
        Where a stage could leave int64.
    """
    choice = choose(layer, transform)
    if bits is not None and not transform.shift < bits <= MAX_BITS:
        raise InputError(
            f"bits must be {transform.shift + 1} to {MAX_BITS} for {transform.name}, but is"
            f" {bits}; choose a width in range"
        )
    if choice.transform is None or not isinstance(layer, Conv2D):
        exact = accumulators(layer, codes)
        return WinogradResult(exact if bits is None else _low(exact, bits), choice, None)
    x, w = operands(layer, codes)
    stages = winograd_stages(layer, x, w, transform, bits)
    y = divide(stages.output, transform, bits)
    return WinogradResult(from_tiles(y, _accumulator_shape(layer, x)), choice, stages)


def _accumulator_shape(layer: Conv2D, x: Int64Array) -> tuple[int, ...]:
    return (len(x), *_output_shape(layer, x), len(layer.weights))


def from_tiles(tiles: Int64Array, shape: tuple[int, ...]) -> Int64Array:
    """Lay tiles (N, rows, columns, height, width, channels) side by side and cut to `shape`."""
    N, rows, columns, height, width, channels = tiles.shape
    image = np.moveaxis(tiles, 3, 2).reshape(N, rows * height, columns * width, channels)
    return image[:, : shape[1], : shape[2]]


def _low(values: Int64Array, bits: int | None) -> Int64Array:
    return values if bits is None else wrap(values, IntFormat(bits))[0]


def _output_shape(layer: Conv2D, x: Int64Array) -> tuple[int, int]:
    _, R, S, _ = layer.weights.shape
    pad = layer.padding
    return (
        output_size(x.shape[1], pad.top, pad.bottom, R, 1, 1),
        output_size(x.shape[2], pad.left, pad.right, S, 1, 1),
    )


def winograd_stages(
    layer: Conv2D,
    x: Int64Array,
    w: Int64Array,
    transform: Transform,
    bits: int | None = None,
    u: Int64Array | None = None,
) -> Stages:
    """Every stage of an eligible layer.

    Parameters
    ----------
    layer : Conv2D
    x, w : int64 array
        Operands: codes and weights minus their zero points, see `golden.operators.operands`.
    transform, bits
        As for `winograd_layer`.
    u : (out_channels, products, in_channels / groups) int64 array or None
        Other transformed weights than those of `w`.
    """
    if bits is None:
        check_int64(layer, w, _largest(x), transform)
    U = _low(transformed_weights(transform, w) if u is None else u, bits)
    V = _low(transformed_inputs(transform, layer, x), bits)
    N, ty, tx, count, _ = V.shape
    K, _, C = U.shape
    # A product of matrices for each product of the transform and each group.
    grouped_v = V.reshape(N * ty * tx, count, layer.groups, C).transpose(1, 2, 0, 3)
    grouped_u = U.reshape(layer.groups, -1, count, C).transpose(2, 0, 3, 1)
    M = _low(_product(grouped_v, grouped_u), bits)
    sums = M.transpose(2, 0, 1, 3).reshape(N, ty, tx, count, K)
    return Stages(V, U, sums, _low(transformed_outputs(transform, sums), bits))


def transformed_weights(transform: Transform, weights: Int64Array) -> Int64Array:
    """U: (out_channels, height, width, in_channels) to (out_channels, products, in_channels)."""
    K, R, S, C = weights.shape
    kernels = weights.transpose(0, 3, 1, 2).reshape(K, C, R * S)
    return _product(kernels, _rows(transform.weight).T).transpose(0, 2, 1)


def transformed_inputs(transform: Transform, layer: Conv2D, x: Int64Array) -> Int64Array:
    """V: operands (N, H, W, C) to (N, tile_rows, tile_columns, products, C)."""
    tiles = input_tiles(layer, x, transform)
    flat = tiles.reshape(*tiles.shape[:4], transform.input[0].size)
    return np.moveaxis(_product(flat, _rows(transform.input).T), 3, 4)


def transformed_outputs(transform: Transform, sums: Int64Array) -> Int64Array:
    """Z: (..., products, out_channels) to (..., out_height, out_width, out_channels)."""
    (my, mx), K = transform.outputs, sums.shape[-1]
    Z = _product(transform.output.reshape(my * mx, transform.products), sums)
    return Z.reshape(*sums.shape[:-2], my, mx, K)


def accumulators_of_sums(
    layer: Conv2D, x: Int64Array, sums: Int64Array, transform: Transform, bits: int
) -> Int64Array:
    """Take channel sums of a layer to accumulators; everything wraps to `bits` bits.

    Parameters
    ----------
    layer : Conv2D
    x : (N, H, W, C) int64 array
        For its shape.
    sums : (N, tile_rows, tile_columns, products, out_channels) int64 array
    transform : Transform
    bits : int
    """
    Z = _low(transformed_outputs(transform, _low(sums, bits)), bits)
    return from_tiles(divide(Z, transform, bits), _accumulator_shape(layer, x))


def input_tiles(layer: Conv2D, x: Int64Array, transform: Transform) -> Int64Array:
    """Cut operands into overlapping tiles: (N, tile_rows, tile_columns, C, height, width)."""
    counts, after = [], []
    before = (layer.padding.top, layer.padding.left)
    for axis, outputs in enumerate(_output_shape(layer, x)):
        step, length = transform.outputs[axis], transform.tile[axis]
        counts.append(-(-outputs // step))
        read = max(counts[axis] - 1, 0) * step + length
        after.append(max(0, read - before[axis] - x.shape[1 + axis]))
    image = np.pad(x, ((0, 0), (before[0], after[0]), (before[1], after[1]), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(image, transform.tile, axis=(1, 2))
    stepped = windows[:, :: transform.outputs[0], :: transform.outputs[1]]
    tiles: Int64Array = stepped[:, : counts[0], : counts[1]]
    return tiles


def divide(scaled: Int64Array, transform: Transform, bits: int | None = None) -> Int64Array:
    """Divide Z by the divisor.

    Parameters
    ----------
    scaled : int64 array
        Multiples of the divisor, or with `bits` their low bits.
    transform : Transform
    bits : int or None
        As for `winograd_layer`.

    Returns
    -------
    int64 array
        With `bits` P and divisor 2**t * o: the P - t bits of (Z >> t) * o**-1, as a signed number.

    Raises
    ------
    ArithmeticError
        Where an exact Z is no multiple: a stage has lost bits. There is nothing to round.
    """
    if bits is None:
        quotient, rest = np.divmod(scaled, transform.divisor)
        if rest.any():
            raise ArithmeticError(f"an output of {transform.name} is no multiple of its divisor")
        return quotient
    kept = bits - transform.shift
    inverse = inverse_of_odd(transform.odd, kept)
    # Both factors mod 2**kept; the product wraps mod 2**64, of which 2**kept is a divisor.
    signed = np.int64(inverse - (1 << kept) if inverse >> (kept - 1) else inverse)
    return wrap((scaled >> transform.shift) * signed, IntFormat(kept))[0]


def _rows(matrix: Int64Array) -> Int64Array:
    return matrix.reshape(len(matrix), -1)


def _largest(values: Int64Array) -> int:
    return max(int(values.max(initial=0)), -int(values.min(initial=0)))


def _product(a: Int64Array, b: Int64Array) -> Int64Array:
    """Multiply matrices modulo 2**64, in float64 where no partial sum can reach 2**53."""
    if _largest(a) * _largest(b) * a.shape[-1] < FLOAT64_EXACT:
        return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64)
    exact: Int64Array = np.matmul(a, b)
    return exact


def check_int64(layer: Conv2D, w: Int64Array, largest: int, transform: Transform) -> None:
    """Refuse operands of magnitude `largest` with which a stage could leave int64.

    Raises
    ------
    UnsupportedError
    """
    norm = int(np.abs(w).reshape(len(w), -1).sum(axis=1).max(initial=0))
    gains = [int(np.abs(_rows(m)).sum(axis=1).max()) for m in (transform.input, transform.weight)]
    bound = largest * max(norm * transform.divisor, w.shape[3] * gains[0] * _largest(w) * gains[1])
    if transform.axes is not None:
        rows, columns = transform.axes
        along = [int(np.abs(m).sum(axis=1).max()) for m in (columns.input, columns.weight)]
        terms = w.shape[1] * w.shape[3]
        bound = max(bound, largest * rows.divisor * terms * along[0] * along[1] * _largest(w))
    if bound >= 1 << 63:
        raise UnsupportedError(
            f"the stages of layer {layer.name!r} could need {1 + bound.bit_length()} bits with"
            f" {transform.name}, but exact ones end at 64; use a transform of fewer outputs"
        )
