"""What weights become while a network learns, and which way their gradients go.

A method of the registry is taken as it is, and gradients pass unchanged; `ttq` learns its two
scales as well, and confined weights stay where an accumulator of given width holds every sum.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from golden.errors import InputError
from golden.fitting import Method
from golden.float_network import FloatWeighted
from golden.formats import bits_needed
from golden.quantization.assemble import real_weights
from golden.quantization.calibrate import WeightSettings
from golden.quantization.method import Float64Array, WeightCodes, WeightTask, quantized_weights
from golden.quantization.methods import ttq
from golden.quantization.registry import needs_moments
from golden.ranges import Range

SCALE_CANDIDATES = 32
"""Scales tried for a channel that must fit an accumulator, before it learns."""

TINY = 1e-12
"""Stands for the length of a channel of zeros, and for the scale of a sign without weights."""


class WeightQuantizer(Protocol):
    """From the weights of a layer, while it learns, to what the hardware will have."""

    def __call__(self, weights: torch.Tensor) -> torch.Tensor:
        """Real values of the codes; gradients pass."""

    def codes(self, weights: torch.Tensor) -> WeightCodes:
        """Codes and scales."""

    def learned(self) -> list[torch.Tensor]:
        """List what it learns itself: logarithms of scales, to base 2."""


def _rows(weights: torch.Tensor) -> torch.Tensor:
    return weights.reshape(len(weights), -1)


def _logarithms(values: Float64Array) -> torch.Tensor:
    return torch.tensor(np.log2(values), dtype=torch.float32, requires_grad=True)


def trained_weights(
    layer: FloatWeighted, weights: torch.Tensor, settings: WeightSettings
) -> WeightQuantizer:
    """Give a layer what its method learns by."""
    if settings.method.name == ttq.METHOD.name:
        return _TwoScales(weights, settings)
    return _Projected(layer, settings)


def confined_weights(
    weights: torch.Tensor, method: Method, acc_bits: int, operands: Range, bits: int
) -> WeightQuantizer:
    """Give a layer what A2Q or A2Q+ learns by.

    Raises
    ------
    InputError
        For an accumulator that cannot hold a single operand.
    """
    return _Confined(weights, method, acc_bits, operands, bits)


class _Projected:
    """Any method of the registry; the gradient of the projection is taken to be 1."""

    def __init__(self, layer: FloatWeighted, settings: WeightSettings) -> None:
        self.settings = settings
        if needs_moments(settings.method, settings.options):
            raise InputError(
                f"method {settings.text} chooses by calibration data, which change in every step"
                " of training; fine-tune with a method that needs weights alone"
            )
        shape = layer.weights.shape
        self.kernel = (shape[1], shape[2], shape[3]) if len(shape) == 4 else (1, 1, shape[1])

    def codes(self, weights: torch.Tensor) -> WeightCodes:
        rows = _rows(weights).detach().numpy().astype(np.float64)
        task = WeightTask(rows, self.settings.bits, None, self.kernel)
        return quantized_weights(self.settings.method, task, self.settings.options)

    def __call__(self, weights: torch.Tensor) -> torch.Tensor:
        reals = torch.from_numpy(real_weights(self.codes(weights), tuple(weights.shape)))
        return weights + (reals - weights).detach()

    def learned(self) -> list[torch.Tensor]:
        return []


class _TwoScales:
    """Trained ternary quantization: w becomes p, 0 or -m, scales that each channel learns.

    The gradient of p is the sum of those of the weights that are p, and that of -m likewise. What
    is p or -m gets its gradient times p or m, in units of the mean of both, and what is 0 gets its
    own (1612.01064, equations 7 and 8, where weights are near 1 and the unit is left out). With
    ``rule=exact`` thresholds are half of the learned scales, else t max |w|.
    """

    def __init__(self, weights: torch.Tensor, settings: WeightSettings) -> None:
        self.settings = settings
        rows = _rows(weights).detach().numpy().astype(np.float64)
        scales = ttq.starting_scales(rows, settings.options)
        self.log_scales = _logarithms(np.maximum(scales, TINY))

    def codes(self, weights: torch.Tensor) -> WeightCodes:
        rows = _rows(weights).detach().numpy().astype(np.float64)
        scales = np.exp2(self.log_scales.detach().numpy().astype(np.float64))
        return ttq.two_scale_codes(rows, scales, self.settings.bits, self.settings.options)

    def __call__(self, weights: torch.Tensor) -> torch.Tensor:
        found, rows = self.codes(weights), _rows(weights)
        reals = torch.from_numpy(real_weights(found, tuple(rows.shape)))
        positive, negative = torch.exp2(self.log_scales)
        ternary = (reals > 0) * positive[:, None] - (reals < 0) * negative[:, None]
        unit = ((positive + negative) / 2)[:, None]
        factor = torch.where(reals == 0, 1.0, (ternary.abs() / unit)).detach()
        passing = ternary + factor * rows
        learned: torch.Tensor = reals + passing - passing.detach()
        return learned.reshape(weights.shape)

    def learned(self) -> list[torch.Tensor]:
        return [self.log_scales]


class _Confined:
    """Weights whose sums an accumulator of P bits holds: A2Q and A2Q+.

    w = g v / |v| with |.| the sum of magnitudes and g at most scale * limit; codes are w / scale
    rounded toward zero. A2Q+ subtracts the mean of v first. Operands lie in [a, b], a <= 0 <= b,
    and M = 2**(P - 1) - 1: the limit is M over the power of two that holds every operand's
    magnitude, and 2 M / (b - a) for A2Q+, half of it for either sign. v, g and scale learn.
    """

    def __init__(
        self, weights: torch.Tensor, method: Method, acc_bits: int, operands: Range, bits: int
    ) -> None:
        low, high = operands
        self.method, self.bits, self.levels = method, bits, (1 << (bits - 1)) - 1
        largest = (1 << (acc_bits - 1)) - 1
        self.limit = largest / (1 << (bits_needed(low, high) - 1))
        if method == "a2q+":
            self.limit = 2 * largest / (high - low)
        if self.limit < (2 if method == "a2q+" else 1):
            raise InputError(
                f"accumulators of {acc_bits} bits cannot hold a single operand ({low} to {high}) as"
                f" {method} counts it; ask for more bits"
            )
        rows = self._direction(weights).detach().numpy().astype(np.float64)
        norm = np.maximum(np.abs(rows).sum(axis=1), TINY)
        self.log_scale = _logarithms(self._first_scale(rows, norm))
        self.log_gain = _logarithms(norm)

    def _first_scale(self, rows: Float64Array, norm: Float64Array) -> Float64Array:
        """Scale of the least squared error, from all levels used to nothing shortened."""
        finest = np.maximum(np.abs(rows).max(axis=1), TINY) / self.levels
        coarsest = np.maximum(norm / self.limit, finest)
        best: Float64Array = finest
        least = np.full(len(rows), np.inf)
        for step in range(SCALE_CANDIDATES + 1):
            scale = finest * (coarsest / finest) ** (step / SCALE_CANDIDATES)
            shortened = rows * np.minimum(1, scale * self.limit / norm)[:, np.newaxis]
            found = scale[:, np.newaxis] * self._toward_zero(shortened, scale)
            error = ((rows - found) ** 2).sum(axis=1)
            best, least = np.where(error < least, scale, best), np.minimum(error, least)
        return best

    def _toward_zero(self, rows: Float64Array, scale: Float64Array) -> NDArray[np.int64]:
        steps = np.clip(rows / scale[:, np.newaxis], -self.levels, self.levels)
        return np.trunc(steps).astype(np.int64)

    def _direction(self, weights: torch.Tensor) -> torch.Tensor:
        rows = _rows(weights)
        return rows - rows.mean(dim=1, keepdim=True) if self.method == "a2q+" else rows

    def _real(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights before they are rounded, and the scales."""
        direction, scale = self._direction(weights), torch.exp2(self.log_scale)
        gain = torch.minimum(torch.exp2(self.log_gain), scale * self.limit)
        norm = direction.abs().sum(dim=1).clamp_min(TINY)
        return direction * (gain / norm)[:, None], scale

    def codes(self, weights: torch.Tensor) -> WeightCodes:
        rows, scale = (x.detach().numpy().astype(np.float64) for x in self._real(weights))
        codes = self._toward_zero(rows, scale)
        return WeightCodes(codes, scale, self.bits, float(codes.size * self.bits))

    def __call__(self, weights: torch.Tensor) -> torch.Tensor:
        rows, scale = self._real(weights)
        codes = torch.from_numpy(self.codes(weights).codes.astype(np.float32))
        reals = rows + scale[:, None] * (codes - rows / scale[:, None]).detach()
        return reals.reshape(weights.shape)

    def learned(self) -> list[torch.Tensor]:
        return [self.log_gain, self.log_scale]
