"""Weights moved, after training, to where accumulators of a given width provably hold every sum.

A layer whose certificate already fits is left as it is, and so is every channel that fits. The
other channels are projected onto a set of weights that no operand in range can overflow, and what
`golden.certificates` then says of the layer decides: nothing is returned that it does not prove.

What the operands can be is an interval that holds 0 (a padded tap adds 0): [a, b], a <= 0 <= b.
With p the sum of a channel's positive weights and -n that of its negative ones, a sum reaches from
p*a - n*b to p*b - n*a.

Sources: A2Q, Colbert et al. 2023; A2Q+, Colbert et al. 2024; AXE, Colbert et al. 2024; the
projection onto an l1 ball, Duchi et al. 2008; GPFQ, Lybrand and Saab 2021. All bounds are computed
in integers; floats only choose among weights that are within them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from golden.accumulate import Steps
from golden.certificates import MAX_BITS, Certificate, certify, operand_range
from golden.check import SHIFT_RANGES, check_network
from golden.errors import InputError
from golden.formats import Int64Array, IntFormat, bits_needed
from golden.multipliers import requantization
from golden.network import Conv2D, Network, Requantization, Tensor, WeightedLayer
from golden.operators import OPERATORS, operands, pad_image
from golden.ranges import ActivationRange, Range, clamp_ranges, datatype_range
from golden.run import run

Array = NDArray[Any]
FloatArray = NDArray[np.float64]
Progress = Callable[[int, int, str], None]

Method = Literal["a2q", "a2q+", "axe"]
"""Which set of weights a channel is moved to, and how.

* ``a2q``: the sum of magnitudes is at most (2**(P-1) - 1) / 2**(N-s); nearest such point (soft
  threshold), then rounded toward zero.
* ``a2q+``: the channel's mean is subtracted; then p and n are at most (2**(P-1) - 1) / (b - a)
  each; nearest such point with sum zero, then rounded toward zero.
* ``axe``: the exact interval of the sum fits. Weight by weight in the declared order: what earlier
  weights lost is made up for where the operands allow (GPFQ), rounded to nearest, and cut to what
  the accumulator has left.
"""

Rescale = Literal["keep", "refit", "search"]
"""What becomes of the multipliers of changed channels.

* ``keep``: nothing.
* ``refit``: they take up the factor that brings the new sums nearest to the old ones.
* ``search``: the same, and the weights are first scaled by the best of `FACTORS` factors, so that
  many small weights can stand for few large ones.
"""

METHODS: tuple[Method, ...] = get_args(Method)

FACTORS = 24
"""Factors tried for a channel, from the one at which all of it fits up to 1."""

SAMPLES_AT_ONCE = 16
"""Samples whose patches are in memory together."""


@dataclass(frozen=True)
class LayerFit:
    """What became of one layer; arrays hold one element for each output channel.

    Parameters
    ----------
    index : int
        In `Network.layers`.
    name : str
    weights : int
        Number of weights.
    changed_weights : int
        Weights whose code is another than before.
    bits_before, bits_after : int64 array
        Certified widths.
    l1_before, l1_after : int64 array
        Sums of the weights' magnitudes.
    factor : float array
        Real weight per new integer weight, in units of the old one; 1 where the multiplier was
        kept.
    cosine : float
        Of old and new weights, all channels, factors applied; 1 where nothing changed, 0 where all
        became zero.
    sqnr_db : float
        Squared old weights to squared differences, factors applied; infinite where nothing changed.
    """

    index: int
    name: str
    weights: int
    changed_weights: int
    bits_before: Int64Array
    bits_after: Int64Array
    l1_before: Int64Array
    l1_after: Int64Array
    factor: FloatArray
    cosine: float
    sqnr_db: float


@dataclass(frozen=True)
class NetworkFit:
    """A network whose accumulators fit, and what it took.

    Parameters
    ----------
    network : Network
    acc_bits : int
    layers : tuple of LayerFit
        Of the layers that multiply.
    """

    network: Network
    acc_bits: int
    layers: tuple[LayerFit, ...]


class Moments(NamedTuple):
    """Second moments of a layer's operands, (groups, taps, taps), and means, (groups, taps).

    Parameters
    ----------
    gram : float array
        Mean of y[j] * y[k], y the operands that the fitted layer will see.
    cross : float array
        Mean of y[j] * x[k], x those that the layer saw before.
    mean, mean_before : float array
        Of y and x, subtracted from both where they were measured (the bias takes them up); 0 where
        nothing was measured.
    """

    gram: FloatArray
    cross: FloatArray
    mean: FloatArray
    mean_before: FloatArray


# Networks -----------------------------------------------------------------------------------------


def fit_network(
    network: Network,
    acc_bits: int,
    method: Method = "axe",
    *,
    rescale: Rescale = "search",
    activation_range: ActivationRange = "clamp",
    steps: Steps = "product",
    calibration: Sequence[Array] | None = None,
    progress: Progress | None = None,
) -> NetworkFit:
    """Move weights until accumulators of `acc_bits` provably hold every sum of every layer.

    Parameters
    ----------
    network : Network
    acc_bits : int
        2 to 62.
    method : Method
    rescale : Rescale
    activation_range : "clamp" or "datatype"
        What the operands can be, see `golden.ranges`.
    steps : "product" or "terms"
        What the accumulator adds; it must hold every step on the way too.
    calibration : sequence of arrays or None
        One batch of codes for each network input. Layers are then fitted one after the other to the
        sums that the samples give, and biases take up the mean of what is lost. Without it operands
        are taken as independent and uniform over their interval. No width depends on it.
    progress : callable or None
        Called as (done, total, what).

    Returns
    -------
    NetworkFit

    Raises
    ------
    InputError
        For a width out of range, or one that cannot hold a single operand of a layer.
    """
    if not 2 <= acc_bits <= MAX_BITS:
        raise InputError(
            f"accumulators to fit must have 2 to {MAX_BITS} bits, not {acc_bits}; choose a width in"
            " range"
        )
    if activation_range == "calibrated" or steps not in ("product", "terms"):
        raise InputError(
            "fitting proves widths for activation ranges 'clamp' or 'datatype' and steps 'product'"
            f" or 'terms', not {activation_range!r} and {steps!r}; choose among these"
        )
    ranges = (
        clamp_ranges(network)
        if activation_range == "clamp"
        else tuple(datatype_range(tensor) for tensor in network.tensors)
    )
    before = None if calibration is None else run(network, calibration, keep_tensors=True).tensors
    after = {} if before is None else _given(network, before)
    layers, fits = list(network.layers), []
    for index, layer in enumerate(network.layers):
        if progress is not None:
            progress(index, len(layers), layer.name)
        if isinstance(layer, WeightedLayer):
            tensor = layer.inputs[0]
            codes = _some(ranges[tensor])
            task = _Task(layer, network.tensors[tensor], codes, acc_bits, method, rescale, steps)
            seen = None if before is None else (before[tensor], after[tensor])
            layers[index], fit = _fit_layer(index, task, seen)
            fits.append(fit)
        if before is not None:
            (target,) = layer.outputs
            arguments = [after[tensor] for tensor in layer.inputs]
            after[target] = OPERATORS[type(layer)](
                layers[index], arguments, network.tensors[target]
            )
    fitted = replace(network, layers=tuple(layers))
    check_network(fitted)
    return NetworkFit(fitted, acc_bits, tuple(fits))


def _given(network: Network, values: dict[int, Array]) -> dict[int, Array]:
    """Tensors that no layer computes."""
    computed = {index for layer in network.layers for index in layer.outputs}
    return {index: array for index, array in values.items() if index not in computed}


def _some(codes: Range | None) -> Range:
    assert codes is not None  # a layer that multiplies reads integer codes
    return codes


# Layers -------------------------------------------------------------------------------------------


class _Task(NamedTuple):
    """A layer, what it reads, and what it shall become."""

    layer: WeightedLayer
    source: Tensor
    codes: Range
    acc_bits: int
    method: Method
    rescale: Rescale
    steps: Steps

    def certificate(self, layer: WeightedLayer) -> Certificate:
        return certify(layer, self.source, self.codes)

    def reach(self, certificate: Certificate) -> tuple[Int64Array, Int64Array]:
        """Extremes of every channel's accumulator at any step."""
        if self.steps == "terms":
            return certificate.term_lo, certificate.term_hi
        return certificate.prefix_lo, certificate.prefix_hi

    def bits(self, certificate: Certificate) -> Int64Array:
        return certificate.term_bits if self.steps == "terms" else certificate.exact_bits

    def operands(self) -> Range:
        """Interval of the operands, widened to hold 0."""
        low, high = operand_range(self.layer, self.codes)
        return min(low, 0), max(high, 0)


def _fit_layer(
    index: int, task: _Task, seen: tuple[Array, Array] | None
) -> tuple[WeightedLayer, LayerFit]:
    layer = task.layer
    bits_before = task.bits(task.certificate(layer))
    rows = _rows(layer)
    fitted, bits, factor = layer, bits_before, np.ones(len(rows))
    if bits_before.max() > task.acc_bits:
        _require_room(task)
        wide = bits_before > task.acc_bits
        moments = _uniform(task) if seen is None else _measured(layer, *seen)
        short, factor = _fit_rows(task, rows, wide, moments)
        fitted = _rescaled(layer, rows, short, factor, moments, wide)
        bits = task.bits(task.certificate(fitted))
    new = _rows(fitted)
    return fitted, LayerFit(
        index=index,
        name=layer.name,
        weights=rows.size,
        changed_weights=int((new != rows).sum()),
        bits_before=bits_before,
        bits_after=bits,
        l1_before=np.abs(rows).sum(axis=1),
        l1_after=np.abs(new).sum(axis=1),
        factor=factor,
        cosine=_cosine(rows, new * factor[:, np.newaxis]),
        sqnr_db=_sqnr_db(rows, new * factor[:, np.newaxis]),
    )


def _rows(layer: WeightedLayer) -> Int64Array:
    """Weights minus their zero point, (out_channels, taps)."""
    exact = layer.weights.astype(np.int64) - layer.weight_zero_point
    return exact.reshape(len(exact), -1)


def _require_room(task: _Task) -> None:
    """Refuse widths at which the method allows no weight but zero."""
    low, high = task.operands()
    needed = {
        "a2q": 1 + (1 << (bits_needed(low, high) - 1)).bit_length(),
        "a2q+": 1 + (high - low).bit_length(),
        "axe": min(bits_needed(low, high), bits_needed(-high, -low)),  # weight 1 or -1
    }[task.method]
    if task.acc_bits < needed:
        raise InputError(
            f"accumulators of {task.acc_bits} bits cannot hold a single operand ({low} to {high})"
            f" of layer {task.layer.name!r} as {task.method} counts it; ask for at least {needed}"
        )


def _fit_rows(
    task: _Task, rows: Int64Array, wide: NDArray[np.bool_], moments: Moments
) -> tuple[Int64Array, FloatArray]:
    """Move the `wide` rows until the certificate proves them; their factors, 1 for the others.

    Products fit at once. Terms of a weight can overshoot it (8 of 7 = 8 - 1); then the channel gets
    less room than it took, by what it exceeds the accumulator.
    """
    accumulator = IntFormat(task.acc_bits)
    room = np.full(len(rows), accumulator.max)
    while True:
        short, factor = rows.copy(), np.ones(len(rows))
        short[wide], factor[wide] = _best_rows(task, rows, wide, moments, room)
        certificate = task.certificate(_with_rows(task.layer, short))
        low, high = task.reach(certificate)
        excess = np.maximum(high - accumulator.max, accumulator.min - low)
        if (excess <= 0).all():
            return short, _allowed_factor(task.layer.requantization, factor)
        taken = np.minimum(room, np.maximum(certificate.prefix_hi, -certificate.prefix_lo))
        room = np.where(excess > 0, np.maximum(taken - excess, 0), room)


def _with_rows(layer: WeightedLayer, rows: Int64Array) -> WeightedLayer:
    codes = rows.reshape(layer.weights.shape) + layer.weight_zero_point
    return replace(layer, weights=codes.astype(layer.weights.dtype))


def _best_rows(
    task: _Task,
    rows: Int64Array,
    wide: NDArray[np.bool_],
    moments: Moments,
    room: Int64Array,
) -> tuple[Int64Array, FloatArray]:
    """`wide` rows within their room, and their factors: the best of all that `rescale` allows."""
    x_range = task.operands()
    stored = IntFormat(task.layer.weight_bits, signed=task.layer.weights.dtype.kind == "i")
    zero = task.layer.weight_zero_point
    limits = (stored.min - zero, stored.max - zero)
    chosen, room = rows[wide], room[wide]
    groups = np.repeat(np.arange(len(moments.gram)), len(rows) // len(moments.gram))[wide]

    def project(factors: FloatArray) -> Int64Array:
        scaled = chosen * factors[:, np.newaxis]
        return project_rows(scaled, x_range, room, task.method, limits, moments, groups)

    short = project(np.ones(len(chosen)))
    if task.rescale == "keep":
        return short, np.ones(len(chosen))
    score, factor = _likeness(chosen, short, moments, groups)
    if task.rescale == "search":
        smallest = fitting_factors(chosen, x_range, room, task.method)
        for step in range(1, FACTORS + 1):
            candidate = project(smallest ** (step / FACTORS))
            new_score, new_factor = _likeness(chosen, candidate, moments, groups)
            better = new_score > score
            short[better] = candidate[better]
            score, factor = np.where(better, (new_score, new_factor), (score, factor))
    return short, factor


def _allowed_factor(rule: Requantization, factor: FloatArray) -> FloatArray:
    """Factors that the requantization can take up: powers of two where it has shifts alone."""
    if rule.rounding.startswith("shift"):
        factor = np.exp2(np.rint(np.log2(factor)))
    _, largest_shift = SHIFT_RANGES[rule.rounding]
    return np.minimum(factor, np.exp2(largest_shift - rule.shift))


def _likeness(
    rows: Int64Array, short: Int64Array, moments: Moments, groups: Int64Array
) -> tuple[FloatArray, FloatArray]:
    """How much of the old sums the new ones explain, and the factor they do it best with.

    With s the new sums and t the old ones: mean(s*t)**2 / mean(s*s) and mean(s*t) / mean(s*s).
    Where that is no factor, -1 and 1.
    """
    shared, power = np.zeros(len(rows)), np.zeros(len(rows))
    for group in np.unique(groups):
        here = groups == group
        new = short[here].astype(np.float64)
        shared[here] = ((new @ moments.cross[group]) * rows[here]).sum(axis=1)
        power[here] = ((new @ moments.gram[group]) * new).sum(axis=1)
    good = (shared > 0) & (power > 0)
    divisor = np.where(good, power, 1.0)
    return np.where(good, shared**2 / divisor, -1.0), np.where(good, shared / divisor, 1.0)


def _rescaled(
    layer: WeightedLayer,
    rows: Int64Array,
    short: Int64Array,
    factor: FloatArray,
    moments: Moments,
    wide: NDArray[np.bool_],
) -> WeightedLayer:
    """Put new weights in; the requantization takes up the factors, the bias the change of means."""
    fitted = _with_rows(layer, short)
    group = np.repeat(np.arange(len(moments.mean)), len(rows) // len(moments.mean))
    lost = (rows * moments.mean_before[group]).sum(axis=1)
    lost -= factor * (short * moments.mean[group]).sum(axis=1)
    bias = np.zeros(len(rows), dtype=np.int64) if layer.bias is None else layer.bias
    moved = np.rint((bias + lost) / factor).astype(np.int64)
    if layer.bias is not None or (moved[wide] != 0).any():
        fitted = replace(fitted, bias=np.where(wide, moved, bias))
    if (factor != 1).any():
        rule = _times(layer.requantization, factor)
        fitted = replace(fitted, requantization=rule)
    return fitted


def _times(rule: Requantization, factor: FloatArray) -> Requantization:
    """`rule` with its real multipliers times `factor`; channels of factor 1 keep their integers."""
    multiplier = np.broadcast_to(rule.multiplier, factor.shape)
    shift = np.broadcast_to(rule.shift, factor.shape)
    if rule.rounding.startswith("shift"):
        moved = shift + np.rint(np.log2(factor)).astype(np.int32)
        return Requantization(multiplier.copy(), moved.astype(np.int32), rule.rounding)
    reals = np.ldexp(multiplier.astype(np.float64), shift - 31) * factor
    new, same = requantization(reals.tolist(), rule.rounding), factor == 1
    return Requantization(
        np.where(same, multiplier, new.multiplier).astype(np.int32),
        np.where(same, shift, new.shift).astype(np.int32),
        rule.rounding,
    )


def _cosine(old: Array, new: Array) -> float:
    if (old == new).all():
        return 1.0
    lengths = float(np.linalg.norm(old) * np.linalg.norm(new))
    return float((old * new).sum()) / lengths if lengths else 0.0


def _sqnr_db(old: Array, new: Array) -> float:
    noise, signal = float(((old - new) ** 2).sum()), float((old.astype(np.float64) ** 2).sum())
    return float("inf") if noise == 0 else 10 * float(np.log10(signal / noise))


# Channels -----------------------------------------------------------------------------------------


def project_rows(
    rows: Array,
    x_range: Range,
    room: Int64Array,
    method: Method,
    limits: Range,
    moments: Moments,
    groups: Int64Array,
) -> Int64Array:
    """Integer weights near `rows` whose sums stay in [-room - 1, room] for every operand in range.

    Parameters
    ----------
    rows : (channels, taps) array
    x_range : (int, int)
        Of the operands; it holds 0.
    room : (channels,) int64 array
        Not negative.
    method : Method
    limits : (int, int)
        Of the weights; they hold 0.
    moments : Moments
        What ``axe`` takes the operands to be.
    groups : (channels,) int64 array
        Which of the moments' groups each row belongs to.
    """
    low, high = x_range
    if method == "axe":
        radius = 2 * room / (high - low)
        short = np.zeros(rows.shape, dtype=np.int64)
        for group in np.unique(groups):
            here = groups == group
            soft = _soft_threshold(rows[here], radius[here])
            second = (moments.gram[group], moments.cross[group])
            short[here] = _greedy(rows[here], soft, x_range, room[here], limits, *second)
        return short
    if method == "a2q":
        near = _soft_threshold(rows, room >> (bits_needed(low, high) - 1))
    else:
        centred = rows - rows.mean(axis=1, keepdims=True)
        side = room // (high - low)
        near = _soft_threshold(np.maximum(centred, 0), side)
        near -= _soft_threshold(np.maximum(-centred, 0), side)
    return np.clip(np.trunc(near), *limits).astype(np.int64)


def fitting_factors(
    rows: Int64Array, x_range: Range, room: Int64Array, method: Method
) -> FloatArray:
    """Per channel the largest factor up to 1 at which the channel, unrounded, fits."""
    low, high = x_range
    values = rows - rows.mean(axis=1, keepdims=True) if method == "a2q+" else rows
    positive, negative = np.maximum(values, 0).sum(axis=1), np.maximum(-values, 0).sum(axis=1)
    if method == "a2q":
        size = (positive + negative) * float(1 << (bits_needed(low, high) - 1))
    elif method == "a2q+":
        size = positive * float(high - low)
    else:
        size = np.maximum(positive * high - negative * low, negative * high - positive * low)
    factor: FloatArray = np.minimum(1.0, np.maximum(room, 1) / np.maximum(size, 1))
    return factor


def _soft_threshold(rows: Array, radius: Array) -> FloatArray:
    """Nearest points in l1 balls: magnitudes lowered by one threshold a row, down to zero.

    The threshold of a row is the one at which what remains sums to `radius`; 0 where the row is in
    the ball. Source: Duchi et al. 2008, Figure 1.
    """
    magnitude = np.abs(rows).astype(np.float64)
    ordered = -np.sort(-magnitude, axis=1)
    over = np.cumsum(ordered, axis=1) - np.asarray(radius, dtype=np.float64)[:, np.newaxis]
    candidates = over / np.arange(1, rows.shape[1] + 1)
    kept = np.maximum((ordered > candidates).sum(axis=1), 1)
    threshold = np.maximum(np.take_along_axis(candidates, kept[:, np.newaxis] - 1, axis=1), 0)
    shrunk: FloatArray = np.sign(rows) * np.maximum(magnitude - threshold, 0)
    return shrunk


def _greedy(
    rows: Array,
    soft: FloatArray,
    x_range: Range,
    room: Int64Array,
    limits: Range,
    gram: FloatArray,
    cross: FloatArray,
) -> Int64Array:
    """Quantize tap by tap, each making up for the error so far, within what room is left.

    At tap t the value wanted is the one that best cancels the error of the sums up to t:
    (soft[t] cross[t, t] + sum of (rows[j] cross[t, j] - q[j] gram[t, j]) over j < t) / gram[t, t].
    """
    low, high = x_range
    q = np.zeros(rows.shape, dtype=np.int64)
    above, below = room.copy(), room + 1  # what the sum can still grow by, and fall by
    for tap in range(rows.shape[1]):
        if gram[tap, tap] <= 0:
            continue  # this operand was always the same; its weight changes nothing
        wanted = soft[:, tap] * cross[tap, tap]
        wanted += rows[:, :tap] @ cross[tap, :tap] - q[:, :tap] @ gram[tap, :tap]
        nearest = np.rint(wanted / gram[tap, tap])
        most, least = _share(above, high, below, -low), -_share(above, -low, below, high)
        q[:, tap] = np.clip(
            nearest, np.maximum(least, limits[0]), np.minimum(most, limits[1])
        ).astype(np.int64)
        ends = np.sort([q[:, tap] * low, q[:, tap] * high], axis=0)
        below += np.minimum(ends[0], 0)
        above -= np.maximum(ends[1], 0)
    return q


def _share(above: Int64Array, up: int, below: Int64Array, down: int) -> Int64Array:
    """Largest magnitude whose products reach at most `above` upwards and `below` downwards."""
    bounds = [room // reach for room, reach in ((above, up), (below, down)) if reach > 0]
    share: Int64Array = np.minimum.reduce(bounds)
    return share


# Operands -----------------------------------------------------------------------------------------


def _uniform(task: _Task) -> Moments:
    """Operands that are independent and uniform over their interval."""
    low, high = operand_range(task.layer, task.codes)
    taps = task.layer.weights[0].size
    middle, spread = (low + high) / 2, ((high - low + 1) ** 2 - 1) / 12
    gram = np.full((1, taps, taps), middle**2) + spread * np.eye(taps)
    return Moments(gram, gram, np.zeros((1, taps)), np.zeros((1, taps)))


def _measured(layer: WeightedLayer, before: Array, after: Array) -> Moments:
    """Moments over every output of the layer on given inputs."""
    groups = layer.groups if isinstance(layer, Conv2D) else 1
    taps = layer.weights[0].size
    gram, cross = np.zeros((2, groups, taps, taps))
    sums, sums_before, count = np.zeros((groups, taps)), np.zeros((groups, taps)), 0
    for start in range(0, len(before), SAMPLES_AT_ONCE):
        x, y = (
            _patches(layer, codes[start : start + SAMPLES_AT_ONCE]) for codes in (before, after)
        )
        transposed = y.transpose(0, 2, 1)
        gram += transposed @ y
        cross += transposed @ x
        sums += y.sum(axis=1)
        sums_before += x.sum(axis=1)
        count += x.shape[1]
    mean, mean_before = sums / count, sums_before / count
    gram = gram / count - mean[:, :, np.newaxis] * mean[:, np.newaxis]
    cross = cross / count - mean[:, :, np.newaxis] * mean_before[:, np.newaxis]
    return Moments(gram, cross, mean, mean_before)


def _patches(layer: WeightedLayer, codes: Array) -> FloatArray:
    """Operands of every output, (groups, outputs, taps) in the declared order."""
    x, _ = operands(layer, codes)
    if not isinstance(layer, Conv2D):
        return x.reshape(1, -1, layer.weights.shape[1]).astype(np.float64)
    _, R, S, C = layer.weights.shape
    (sy, sx), (dy, dx) = layer.stride, layer.dilation
    reach = ((R - 1) * dy + 1, (S - 1) * dx + 1)
    image = pad_image(x, layer.padding, 0).astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(image, reach, axis=(1, 2))
    taps = windows[:, ::sy, ::sx, :, ::dy, ::dx]  # (N, P, Q, channels, R, S)
    N, P, Q = taps.shape[:3]
    grouped = taps.reshape(N, P, Q, layer.groups, C, R, S).transpose(3, 0, 1, 2, 5, 6, 4)
    return np.ascontiguousarray(grouped).reshape(layer.groups, N * P * Q, R * S * C)
