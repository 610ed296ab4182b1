"""What a weight quantizer is: integer codes for the weights of one layer, with a scale a channel.

Every method, whatever its set of values, ends in integer codes times one real scale for each output
channel, because that is what an integer array computes with: w ~ scale[c] * codes[c, k]. Values
with several scales inside a channel (groups, two-level vectors, several points) choose them as
integer multiples of the channel's scale, so that the codes carry them.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from numbers import Integral, Real
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from golden.errors import InputError, NapierError

Float64Array = NDArray[np.float64]
Int64Array = NDArray[np.int64]

Options = Mapping[str, float | int | str]
"""Settings of a method by name; a method says which it takes in `Method.options`."""

LARGEST_REAL = float(np.finfo(np.float32).max)
"""Of weights that codes stand for, and of scales."""


@dataclass(frozen=True)
class Moments:
    """Second moments of a layer's calibration data: all that a squared or cosine error needs.

    With x^ the quantized inputs of one output (K values) and o its float output without bias:

    Parameters
    ----------
    gram : (G, K, K) float64 array
        Sum of x^ x^T over outputs and samples; G groups of a convolution. |o^|^2 = w^T gram w.
    cross : (C, K) float64 array
        Sum of x^ o for each output channel. <o, o^> = cross w.
    power : (C,) float64 array
        Sum of o^2.

    Notes
    -----
    Output channel c belongs to group c // (C / G).
    """

    gram: Float64Array
    cross: Float64Array
    power: Float64Array


@dataclass(frozen=True)
class WeightTask:
    """One layer to quantize.

    Parameters
    ----------
    weights : (C, K) float64 array
        Output channels by (kernel_y, kernel_x, in_channel), in_channel fastest.
    bits : int
        Width of the codes, 2 to 8.
    moments : Moments or None
        Of the calibration data; None where there is none.
    kernel : (int, int, int)
        Kernel height and width and input channels of a group, whose product is K.
    """

    weights: Float64Array
    bits: int
    moments: Moments | None = None
    kernel: tuple[int, int, int] = (1, 1, 1)


@dataclass(frozen=True)
class WeightCodes:
    """Quantized weights: real = scales[:, None] * (codes - zero_point).

    Parameters
    ----------
    codes : (C, K) int64 array
        From -2**(bits - 1) to 2**(bits - 1) - 1; from 0 to 2**bits - 1 with a zero point.
    scales : (C,) float64 array
        Positive.
    bits : int
        Width of the codes in the hardware.
    storage_bits : float
        Bits to store the layer's weights in the method's own encoding, scales of groups included,
        one scale a channel (and biases) not.
    zero_point : int
        Not 0 only for asymmetric per-tensor codes, where all scales are equal.
    """

    codes: Int64Array
    scales: Float64Array
    bits: int
    storage_bits: float
    zero_point: int = 0


@dataclass(frozen=True)
class Method:
    """One entry of the registry.

    Parameters
    ----------
    name : str
        As on the command line, with options behind colons: ``nhot:n=2``.
    quantize : callable
        From a task and settings to codes.
    summary : str
        One line for a table: the projection.
    source : str
        Paper, section, equation.
    options : mapping of str to default
        Settings and their default values; the default's type is the setting's.
    choices : mapping of str to tuple of str
        What a setting of type str may be.
    needs_data : bool
        Whether it cannot do without `WeightTask.moments`, see `registry.needs_moments`.
    trained : bool
        Whether the paper trains the network with it; here the projection alone is applied.
    """

    name: str
    quantize: Callable[[WeightTask, Options], WeightCodes]
    summary: str
    source: str
    options: Options = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    needs_data: bool = False
    trained: bool = False


def quantized_weights(method: Method, task: WeightTask, options: Options) -> WeightCodes:
    """Codes of a layer by a method, which may be the user's own: checked to be what it promises.

    Raises
    ------
    InputError
        The method refuses the task, fails, or gives something else than `WeightCodes` describes.
    """
    try:
        found = method.quantize(task, options)
    except NapierError:
        raise
    except (Exception, SystemExit) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise InputError(
            f"method {method.name} fails with {type(error).__name__}: {error}"
            f" ({Path(place.filename).name}, line {place.lineno}); mend it"
        ) from error
    broken = _broken_promise(found, task)
    if broken:
        raise InputError(f"method {method.name} must give {broken}; see docs/quantizers.md")
    return replace(
        found,
        codes=found.codes.astype(np.int64, copy=False),
        scales=np.asarray(found.scales, np.float64),
        bits=int(found.bits),
        zero_point=int(found.zero_point),
    )


def _broken_promise(found: WeightCodes, task: WeightTask) -> str:
    """Say what a method must give and what it gave instead; empty if all is well."""
    if not isinstance(found, WeightCodes):
        return f"WeightCodes, not {type(found).__name__}"
    return _broken_codes(found, task) or _broken_zero_point(found) or _broken_scales(found)


def _broken_codes(found: WeightCodes, task: WeightTask) -> str:
    codes, bits = found.codes, found.bits
    if not isinstance(codes, np.ndarray):
        return f"codes as an integer array, not {type(codes).__name__}"
    if codes.shape != task.weights.shape or codes.dtype.kind not in "iu":
        return f"integer codes of shape {task.weights.shape}, not {codes.dtype} of {codes.shape}"
    if not isinstance(bits, Integral) or not 1 <= bits <= task.bits:
        return f"bits as an integer from 1 to {task.bits}, not {bits}"
    bits, unsigned = int(bits), bool(codes.min() >= 0)
    low = 0 if unsigned else -(1 << (bits - 1))
    high = (1 << bits if unsigned else 1 << (bits - 1)) - 1
    if codes.min() < low or codes.max() > high:
        return f"codes of {bits} bits, not {codes.min()} to {codes.max()}"
    stored = found.storage_bits
    if not isinstance(stored, Real) or not 0 <= stored < inf:
        return f"storage_bits as a finite number from 0, not {stored}"
    return ""


def _broken_zero_point(found: WeightCodes) -> str:
    zero_point, largest = found.zero_point, (1 << int(found.bits)) - 1
    if not isinstance(zero_point, Integral) or not 0 <= zero_point <= largest:
        return f"an integer zero point from 0 to {largest}, not {zero_point}"
    if zero_point and found.codes.min() < 0:
        return f"codes from 0 with zero point {zero_point}, not from {found.codes.min()}"
    return ""


def _broken_scales(found: WeightCodes) -> str:
    codes, scales = found.codes, np.asarray(found.scales)
    known = scales.shape == codes.shape[:1] and scales.dtype.kind in "fiu"
    if not known or not (np.isfinite(scales) & (scales > 0)).all():
        return f"{len(codes)} positive finite scales, one for each output channel"
    if found.zero_point and (scales != scales[0]).any():
        return (
            f"equal scales with zero point {found.zero_point}, not {scales.min()} to {scales.max()}"
        )
    low, high = (each.astype(np.int64) for each in (codes.min(axis=1), codes.max(axis=1)))
    reach = np.maximum(high - int(found.zero_point), int(found.zero_point) - low)
    if (scales > LARGEST_REAL / np.maximum(reach, 1)).any():
        return f"weights and scales up to {LARGEST_REAL:.3g}, as float32 holds, and has larger ones"
    return ""
