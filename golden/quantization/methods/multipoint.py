"""Multi-point quantization: a channel is a sum of few-bit vectors, each with its own multiplier.

w ~ scale * (m_1 q_1 + m_2 q_2 + ..), q_j integers of b bits, m_j positive integers. Points are
added greedily: each q_j with its multiplier is nearest in least squares to what the earlier ones
left. A channel takes as many points as bring its error (relative, squared, of weights or of
outputs) to `error` or below, at most `points`. Multipliers are the searched ones, as integers over
a common scale at which the sum of all points just fits the code.

Storage: b bits for each weight and point, and one multiplier for each point after the first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from golden.errors import InputError
from golden.quantization.clipping import (
    Float64Array,
    Int64Array,
    largest_magnitude,
    least_squares_scale,
    unit_where_zero,
)
from golden.quantization.codes import OBJECTIVES, largest_code, symmetric_codes, to_integers
from golden.quantization.method import Method, Moments, Options, WeightCodes, WeightTask
from golden.quantization.search import output_errors, require_moments


def quantize(task: WeightTask, options: Options) -> WeightCodes:
    """Quantize one layer."""
    b, most, limit = int(options["b"]), int(options["points"]), float(options["error"])
    room = largest_code(task.bits) // largest_code(b) if 2 <= b <= task.bits else 0
    if not 1 <= most <= room:
        raise InputError(
            f"multipoint needs b from 2 to {task.bits} and points from 1 to"
            f" (2**{task.bits - 1} - 1) // (2**(b - 1) - 1), not b={b}, points={most}; for example"
            f" b={task.bits // 2},points=2"
        )
    if not limit >= 0:
        raise InputError(f"error of multipoint must be 0 or above, not {limit:g}; for example 1e-3")
    moments = None
    if options["objective"] == "outputs":
        moments = require_moments(task.moments, "multipoint")
    rows = task.weights
    codes, scales = _points(rows, 1, b, room)
    used = np.ones(len(rows), np.int64)
    for points in range(2, most + 1):
        (poor,) = (_relative_error(rows, scales[:, np.newaxis] * codes, moments) > limit).nonzero()
        if not poor.size:
            break
        codes[poor], scales[poor] = _points(rows[poor], points, b, room)
        used[poor] = points
    bits = int((used * b).sum()) * rows.shape[1] + int((used - 1).sum()) * task.bits
    return WeightCodes(codes, scales, task.bits, bits)


def _points(rows: Float64Array, points: int, b: int, room: int) -> tuple[Int64Array, Float64Array]:
    """Codes and scales of channels with so many points, whose multipliers sum to at most `room`."""
    free = np.array([scale for scale, _ in _greedy(rows, [None] * points, b)])
    free = np.minimum.accumulate(free, axis=0)  # where nothing is left any scale is as good
    multipliers = np.maximum(1, np.floor(free * room / free.sum(axis=0)))
    multipliers[0] = np.minimum(multipliers[0], room - multipliers[1:].sum(axis=0))
    if points == 1:
        multipliers[0] = 1
    unit = free[0] / multipliers[0]
    vectors = _greedy(rows, list(multipliers * unit), b)
    codes = sum(m[:, np.newaxis] * q for m, (_, q) in zip(multipliers, vectors, strict=True))
    power = np.einsum("ck,ck->c", codes, codes)
    inner = np.einsum("ck,ck->c", rows, codes)
    best = np.divide(inner, power, out=unit.copy(), where=power > 0)
    return codes.astype(np.int64), best


def _greedy(
    rows: Float64Array, scales: Sequence[Float64Array | None], b: int
) -> list[tuple[Float64Array, Int64Array]]:
    """Points one after the other: given scales, or those of least error where None."""
    points, left = [], rows
    for given in scales:
        start = unit_where_zero(largest_magnitude(left) / largest_code(b))
        scale = least_squares_scale(left, start, to_integers(b)) if given is None else given
        point = symmetric_codes(left, scale, b)
        points.append((scale, point))
        left = left - scale[:, np.newaxis] * point
    return points


def _relative_error(
    rows: Float64Array, reals: Float64Array, moments: Moments | None
) -> Float64Array:
    if moments is not None:
        return output_errors(reals, moments) / unit_where_zero(moments.power)
    errors = ((rows - reals) ** 2).sum(axis=1)
    return np.asarray(errors / unit_where_zero((rows**2).sum(axis=1)))


METHOD = Method(
    name="multipoint",
    quantize=quantize,
    summary="sum of few-bit vectors with a multiplier each, added greedily",
    source="Liu et al. 2020 (2002.09049), section 3; multipliers as integers are ours",
    options={"b": 4, "points": 2, "error": 1e-3, "objective": "weights"},
    choices={"objective": OBJECTIVES},
)
