"""Exact widths of every stage of a Winograd layer, with inputs that reach them.

A register of any stage is linear in the operands of one tile and linear in the weights, and
operands and weights are independent. So:

* V and U: each end takes every term at the end of its range that its coefficient asks for.
* U * V: the worst of the four corners. The channel sum adds channels, each with operands of its
  own, and so do its ranges.
* A^T M, the first stage of the output transform: along the rows the transform computes a
  correlation, whatever the columns hold. Register (i, k) is the divisor of the rows times the sum
  over kernel rows a of (G g[a])_k * (B^T d[i + a])_k, and no two terms share an operand.
* Z: the divisor times the accumulator of the direct sum.

Interval arithmetic through A^T would take for independent what is not, and find up to 8 bits too
many. Adders inside a stage may wrap at the width of the stage's result: sums are exact modulo its
power of two.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product as pairs_of
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from golden.certificates import Extreme, operand_range
from golden.errors import InputError
from golden.formats import Int64Array, bits_needed
from golden.network import DTYPES, Conv2D, Tensor
from golden.operators import Array, output_size
from golden.ranges import Range
from golden.winograd.convolution import check_int64, choose
from golden.winograd.transforms import Transform

BoolArray = NDArray[np.bool_]
Stage = Literal["input_first", "input", "product", "sum", "output_first", "output"]
"""Stages that depend on the operands.

* ``input_first``: B^T d, nested transforms only.
* ``input``: V.
* ``product``: U * V of one input channel.
* ``sum``: the accumulator of products over the input channels, from its initial 0 on.
* ``output_first``: A^T M, nested transforms only.
* ``output``: Z.
"""

STAGES: tuple[Stage, ...] = ("input_first", "input", "product", "sum", "output_first", "output")

BLOCK_ELEMENTS = 1 << 20
"""Transformed weights worked on at once, so that large layers need little memory."""


def corners(a: Range, b: Range) -> Range:
    """Range of the product of two independent numbers."""
    ends = [x * y for x, y in pairs_of(a, b)]
    return min(ends), max(ends)


def _linear(coefficients: Int64Array, values: Range) -> tuple[Int64Array, Int64Array]:
    """Ranges of sums over the last axis, every value in the same range."""
    ends = coefficients * values[0], coefficients * values[1]
    return np.minimum(*ends).sum(axis=-1), np.maximum(*ends).sum(axis=-1)


def _hull(low: Int64Array, high: Int64Array) -> Range:
    return int(low.min()), int(high.max())


# From data types ----------------------------------------------------------------------------------


def type_ranges(
    transform: Transform, x_range: Range, w_range: Range, channels: int = 1
) -> dict[str, Range]:
    """Worst case of every stage over all operands and weights of given ranges.

    Parameters
    ----------
    transform : Transform
    x_range, w_range : (int, int)
        Of operands and weights, zero points subtracted.
    channels : int
        Input channels that are summed.

    Returns
    -------
    dict
        By stage (see `Stage`; those that the transform has), and ``weight`` (U) and ``direct``, the
        accumulator of the direct sum. Each end is reached by some tile and kernel.
    """
    one = _of_products(_flat(transform.input), x_range, _flat(transform.weight), w_range)
    R, S = transform.kernel
    low, high = corners(x_range, w_range)
    direct = channels * R * S * low, channels * R * S * high
    ranges = {
        "input": _hull(*_linear(_flat(transform.input), x_range)),
        "weight": _hull(*_linear(_flat(transform.weight), w_range)),
        "product": one,
        "sum": (min(0, channels * one[0]), max(0, channels * one[1])),
        "output": (transform.divisor * direct[0], transform.divisor * direct[1]),
        "direct": direct,
    }
    if transform.axes is not None:
        rows, columns = transform.axes
        low, high = _of_products(columns.input, x_range, columns.weight, w_range)
        factor = rows.divisor * R * channels
        ranges["input_first"] = _hull(*_linear(rows.input, x_range))
        ranges["output_first"] = (factor * low, factor * high)
    return ranges


def _flat(matrix: Int64Array) -> Int64Array:
    return matrix.reshape(len(matrix), -1)


def _of_products(inputs: Int64Array, x: Range, weights: Int64Array, w: Range) -> Range:
    """Range of (inputs[p] * d) * (weights[p] * g) over all p."""
    v, u = _linear(inputs, x), _linear(weights, w)
    found = [
        corners((v_low, v_high), (u_low, u_high))
        for v_low, v_high, u_low, u_high in zip(*(ends.tolist() for ends in (*v, *u)), strict=True)
    ]
    return min(low for low, _ in found), max(high for _, high in found)


# Of a layer ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WinogradCertificate:
    """Worst cases of the stages of one layer with its weights.

    Parameters
    ----------
    transform : Transform
    x_min, x_max : int
        Range of the operands, activation minus zero point.
    lo, hi : dict of int64 arrays
        By stage (see `Stage`; those that the transform has): one element for each output channel,
        a single one for ``input_first`` and ``input``. Besides ``weight`` (U) and ``direct``, the
        accumulator of the direct sum; bias excluded.
    """

    transform: Transform
    x_min: int
    x_max: int
    lo: dict[str, Int64Array]
    hi: dict[str, Int64Array]

    def bits(self, stage: str) -> Int64Array:
        """Smallest width that holds a stage."""
        pairs = zip(self.lo[stage].tolist(), self.hi[stage].tolist(), strict=True)
        return np.array([bits_needed(low, high) for low, high in pairs], dtype=np.int64)

    @property
    def wrapped_bits(self) -> Int64Array:
        """Smallest width to which every stage may wrap, for each output channel."""
        return self.bits("direct") + self.transform.shift


@dataclass(frozen=True)
class WinogradWitness:
    """An input of a layer with which a register reaches its worst case.

    Parameters
    ----------
    stage : Stage
    channel : int
        Output channel; input channel 0 for ``input_first`` and ``input``.
    tile : (int, int)
        Row and column of the tile.
    register : tuple of int
        (product,); for nested first stages (row, column) of B^T d or A^T M; (row, column) of Z.
    in_channel : int
        The product's input channel within the group; for ``sum`` the last one added. Else 0.
    value : int
        What the register holds then.
    codes : array of codes
        Of the shape of the layer's input tensor.
    """

    stage: Stage
    channel: int
    tile: tuple[int, int]
    register: tuple[int, ...]
    in_channel: int
    value: int
    codes: Array


class _View(NamedTuple):
    """A kind of tile along one axis: which positions are in the image, which outputs are kept."""

    inside: BoolArray
    kept: BoolArray
    tile: int


class _Problem(NamedTuple):
    """What all stages of a layer are computed from; `u` is (K, products, C)."""

    transform: Transform
    w: Int64Array
    u: Int64Array


def _views(size: int, before: int, outputs: int, step: int, length: int) -> list[_View]:
    """Kinds of tiles along one axis, each with the tile of its kind nearest to the middle."""
    count = -(-outputs // step)
    at = np.arange(count)[:, np.newaxis] * step
    positions = at - before + np.arange(length)
    inside = (positions >= 0) & (positions < size)
    kept = at + np.arange(step) < outputs
    kinds: dict[bytes, _View] = {}
    for tile in sorted(range(count), key=lambda tile: abs(2 * tile - count + 1)):
        view = _View(inside[tile], kept[tile], tile)
        kinds.setdefault(view.inside.tobytes() + view.kept.tobytes(), view)
    return list(kinds.values())


def _part_of(view: _View, other: _View) -> bool:
    return bool((view.inside <= other.inside).all() and (view.kept <= other.kept).all())


def _layer_views(
    layer: Conv2D, shape: tuple[int, ...], transform: Transform, x_range: Range
) -> tuple[list[_View], list[_View]]:
    """List the kinds of tiles along rows and along columns that can be the worst.

    Where an operand can be 0, a position inside the image does all that one outside does: kinds
    that are part of another are left out.
    """

    def along(axis: int, before: int, after: int) -> list[_View]:
        size = shape[1 + axis]
        outputs = output_size(size, before, after, transform.kernel[axis], 1, 1)
        views = _views(size, before, outputs, transform.outputs[axis], transform.tile[axis])
        if x_range[0] <= 0 <= x_range[1]:
            return [view for view in views if sum(_part_of(view, other) for other in views) == 1]
        return views

    pad = layer.padding
    return along(0, pad.top, pad.bottom), along(1, pad.left, pad.right)


def _problem(layer: Conv2D, transform: Transform, largest: int) -> _Problem:
    if choose(layer, transform).transform is None:
        raise InputError(
            f"layer {layer.name!r} is not computed by {transform.name}:"
            f" {choose(layer, transform).reason}; use golden.certificates.certify"
        )
    w = layer.weights.astype(np.int64) - layer.weight_zero_point
    check_int64(layer, w, largest, transform)
    return _Problem(transform, w, np.einsum("prs,krsc->kpc", transform.weight, w))


def certify_winograd(
    layer: Conv2D, source: Tensor, codes: Range, transform: Transform
) -> WinogradCertificate:
    """Worst cases of every stage of a layer.

    Parameters
    ----------
    layer : Conv2D
    source : Tensor
        The layer's input, for its shape.
    codes : (int, int)
        Smallest and largest code that the input can hold.
    transform : Transform
        One that `golden.winograd.choose` takes for the layer.

    Raises
    ------
    InputError
        Where the transform does not compute the layer.
    UnsupportedError
        Where a stage could leave int64.

    Notes
    -----
    Every kind of tile is looked at: those that read padding or lie half outside hold zeros there,
    and count where the range of the operands excludes 0 or the image is small. Outputs beyond the
    image are dropped, and do not count.
    """
    x_range = operand_range(layer, codes)
    problem = _problem(layer, transform, max(abs(end) for end in x_range))
    rows, columns = _layer_views(layer, source.shape, transform, x_range)
    lo: dict[str, Int64Array] = {}
    hi: dict[str, Int64Array] = {}
    for stage in stages_of(transform):

        def minima(ends: Range, stage: Stage = stage) -> Int64Array:
            found = [_blockwise(problem, stage, views, ends) for views in pairs_of(rows, columns)]
            lowest: Int64Array = np.min(found, axis=0)
            return lowest

        lo[stage], hi[stage] = minima(x_range), -minima(_negated(x_range))
    lo["weight"], hi["weight"] = problem.u.min(axis=(1, 2)), problem.u.max(axis=(1, 2))
    lo["direct"], hi["direct"] = (
        lo["output"] // transform.divisor,
        hi["output"] // transform.divisor,
    )
    return WinogradCertificate(transform, *x_range, lo, hi)


def stages_of(transform: Transform) -> tuple[Stage, ...]:
    """Stages that a transform has; first ones are those of nested transforms."""
    if transform.axes is not None:
        return STAGES
    return tuple(stage for stage in STAGES if not stage.endswith("first"))


def _negated(ends: Range) -> Range:
    return -ends[1], -ends[0]


def _blockwise(
    problem: _Problem, stage: Stage, views: tuple[_View, _View], ends: Range
) -> Int64Array:
    """Smallest value of a stage in each output channel."""
    if stage in ("input", "input_first"):
        lowest: Int64Array = _registers(problem, stage, views, ends).min(axis=1)
        return lowest
    height = max(1, BLOCK_ELEMENTS // problem.u[0].size)
    parts = [
        _registers(
            problem._replace(
                w=problem.w[start : start + height], u=problem.u[start : start + height]
            ),
            stage,
            views,
            ends,
        ).min(axis=1)
        for start in range(0, len(problem.w), height)
    ]
    return np.concatenate(parts)


def _registers(
    problem: _Problem, stage: Stage, views: tuple[_View, _View], ends: Range
) -> Int64Array:
    """Smallest value of every register of a stage, operands in `ends`: (out_channels, registers).

    One row for the stages of the input transform. Registers of ``product`` run over (product,
    in_channel), those of the others as in `WinogradWitness`.
    """
    transform, (rows, columns) = problem.transform, views
    if stage == "output":
        return _output_minima(problem, views, ends)
    if stage in ("input_first", "output_first"):
        assert transform.axes is not None
        along_rows, along_columns = transform.axes
        if stage == "input_first":
            low, _ = _linear(along_rows.input * rows.inside, ends)
            return np.outer(low, columns.inside).reshape(1, -1)
        v = _linear(along_columns.input * columns.inside, ends)
        first = np.einsum("ns,krsc->krnc", along_columns.weight, problem.w)  # g[a] G^T
        along = np.minimum(first * v[0][:, np.newaxis], first * v[1][:, np.newaxis]).sum(axis=3)
        taps = np.arange(transform.kernel[0])
        sums = [along[:, rows.inside[i + taps]].sum(axis=1) for i in np.flatnonzero(rows.kept)]
        return along_rows.divisor * np.concatenate(sums, axis=1)
    inside = np.outer(rows.inside, columns.inside)
    v = _linear(_flat(transform.input * inside), ends)
    if stage == "input":
        return v[0][np.newaxis]
    lowest: Int64Array = np.minimum(
        problem.u * v[0][:, np.newaxis], problem.u * v[1][:, np.newaxis]
    )
    if stage == "product":
        return lowest.reshape(len(lowest), -1)
    prefixes: Int64Array = np.cumsum(lowest, axis=2).min(axis=2)
    return np.minimum(prefixes, 0)


def _output_minima(problem: _Problem, views: tuple[_View, _View], ends: Range) -> Int64Array:
    rows, columns = views
    lowest = np.minimum(problem.w * ends[0], problem.w * ends[1]).sum(axis=3)
    R, S = problem.transform.kernel
    sums = [
        lowest[:, rows.inside[i : i + R]][:, :, columns.inside[j : j + S]].sum(axis=(1, 2))
        for i in np.flatnonzero(rows.kept)
        for j in np.flatnonzero(columns.kept)
    ]
    return problem.transform.divisor * np.stack(sums, axis=1)


# Witnesses ----------------------------------------------------------------------------------------


def winograd_witness(
    layer: Conv2D,
    source: Tensor,
    codes: Range,
    transform: Transform,
    stage: Stage,
    extreme: Extreme,
    channel: int | None = None,
) -> WinogradWitness:
    """Build an input with which a stage reaches its smallest or largest value.

    Parameters
    ----------
    layer, source, codes, transform
        As for `certify_winograd`.
    stage : Stage
    extreme : "lo" or "hi"
    channel : int or None
        Output channel; None: the worst one.

    Returns
    -------
    WinogradWitness
        In the tile of its kind that is nearest to the middle. The rest of the input holds the zero
        point, or the code nearest to it in range.
    """
    sign = 1 if extreme == "lo" else -1
    x_range = operand_range(layer, codes)
    problem = _problem(layer, transform, max(abs(end) for end in x_range))
    ends = x_range if extreme == "lo" else _negated(x_range)
    all_views = list(pairs_of(*_layer_views(layer, source.shape, transform, x_range)))
    if channel is None:
        found = [_blockwise(problem, stage, views, ends) for views in all_views]
        channel = int(np.min(found, axis=0).argmin())
    one = problem._replace(w=problem.w[channel : channel + 1], u=problem.u[channel : channel + 1])
    values = [_registers(one, stage, views, ends)[0] for views in all_views]
    best = int(np.argmin([v.min() for v in values]))
    rows, columns = views = all_views[best]
    register, in_channel, coefficients = _coefficients(
        one, stage, views, int(values[best].argmin()), ends
    )
    patch = np.where(coefficients * sign > 0, x_range[0], x_range[1])
    inside = np.outer(rows.inside, columns.inside)
    image = _placed(layer, source, codes, transform, channel, views, patch, coefficients != 0)
    return WinogradWitness(
        stage=stage,
        channel=channel,
        tile=(rows.tile, columns.tile),
        register=register,
        in_channel=in_channel,
        value=int((coefficients * patch * inside).sum()),
        codes=image,
    )


def _coefficients(
    one: _Problem, stage: Stage, views: tuple[_View, _View], index: int, ends: Range
) -> tuple[tuple[int, ...], int, Int64Array]:
    """Name a register of a single output channel and what it takes of each operand.

    Returns
    -------
    register : tuple of int
    in_channel : int
    coefficients : (in_channels, tile_height, tile_width) int64 array
    """
    transform, (rows, columns) = one.transform, views
    channels = one.w.shape[3]
    taken = np.zeros((channels, *transform.tile), dtype=np.int64)
    if stage == "output":
        width = int(columns.kept.sum())
        i, j = divmod(index, width)
        R, S = transform.kernel
        taken[:, i : i + R, j : j + S] = np.moveaxis(one.w[0], 2, 0) * transform.divisor
        return (i, j), 0, taken
    if stage in ("input_first", "output_first"):
        assert transform.axes is not None
        along_rows, along_columns = transform.axes
        i, j = divmod(index, transform.tile[1])
        if stage == "input_first":
            taken[0, :, j] = along_rows.input[i]
            return (i, j), 0, taken
        first = one.w[0].transpose(2, 0, 1) @ along_columns.weight[j]  # (C, R)
        outer = first[:, :, np.newaxis] * along_columns.input[j]
        taken[:, i : i + transform.kernel[0]] = along_rows.divisor * outer
        return (i, j), 0, taken
    if stage == "input":
        taken[0] = transform.input[index]
        return (index,), 0, taken
    if stage == "product":
        p, c = divmod(index, channels)
        taken[c] = one.u[0, p, c] * transform.input[p]
        return (p,), c, taken
    inside = np.outer(rows.inside, columns.inside)
    low, high = (end[index] for end in _linear(_flat(transform.input * inside), ends))
    prefixes = np.cumsum(np.minimum(one.u[0, index] * low, one.u[0, index] * high))
    last = int(prefixes.argmin())
    taken[: last + 1] = one.u[0, index, : last + 1, np.newaxis, np.newaxis] * transform.input[index]
    return (index,), last, taken


def _placed(
    layer: Conv2D,
    source: Tensor,
    codes: Range,
    transform: Transform,
    channel: int,
    views: tuple[_View, _View],
    patch: Int64Array,
    matters: BoolArray,
) -> Array:
    """Make an input that holds the operands `patch` (in_channels, height, width) at a tile."""
    fill = min(max(layer.input_zero_point, codes[0]), codes[1])
    image = np.full(source.shape, fill, dtype=DTYPES[source.dtype])
    wanted = np.where(matters, patch + layer.input_zero_point, fill)
    places = []
    before = (layer.padding.top, layer.padding.left)
    for axis, view in enumerate(views):
        at = np.flatnonzero(view.inside)
        places.append((at, view.tile * transform.outputs[axis] - before[axis] + at))
    (r, y), (s, x) = places
    channels = len(patch)
    first = channel // (len(layer.weights) // layer.groups) * channels
    image[0, y[:, np.newaxis], x, first : first + channels] = np.moveaxis(
        wanted[:, r[:, np.newaxis], s], 0, -1
    )
    return image


# Modulo a power of two ----------------------------------------------------------------------------


def wrapped_bits(transform: Transform, low: int, high: int) -> int:
    """Width to which every stage may wrap if the direct sums are in [low, high]."""
    return bits_needed(low, high) + transform.shift
