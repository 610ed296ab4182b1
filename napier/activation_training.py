"""Scales of activations that learn while a network does."""

# mypy: allow-subclassing-any
# Where PyTorch is not installed, what `_Rounded` derives from has no type.

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch

from golden.float_network import FloatNetwork
from golden.quantization.activations import QuantizationParameters
from golden.quantization.assemble import stored_parameters, tied_tensors


class TrainedActivations:
    """Scales that learn, one for tensors that share their codes; those of `held` tensors do not."""

    def __init__(
        self,
        network: FloatNetwork,
        parameters: Mapping[int, QuantizationParameters],
        held: Iterable[int],
    ) -> None:
        self.start = dict(parameters)
        self.groups = tied_tensors(network)
        fixed = {self.groups[index] for index in held}
        self.log_scales = {
            group: torch.tensor(np.log2(parameters[group].scale), requires_grad=True)
            for group in dict.fromkeys(self.groups)
            if group in parameters and group not in fixed
        }

    def __call__(self, index: int, values: torch.Tensor) -> torch.Tensor:
        """Values of the nearest codes; gradients pass where nothing is clipped."""
        parameters, group = self.start[index], self.groups[index]
        low, high = (code - parameters.zero_point for code in (parameters.low, parameters.high))
        scale = torch.tensor(parameters.scale, dtype=torch.float32)
        if group in self.log_scales:
            scale = torch.exp2(self.log_scales[group]).float()
        return _rounded(values, scale, low, high)

    def learned(self) -> list[torch.Tensor]:
        """List what it learns."""
        return list(self.log_scales.values())

    def result(self) -> dict[int, QuantizationParameters]:
        """Scales as they are now, as model files store them."""
        scales = {group: 2.0 ** value.item() for group, value in self.log_scales.items()}
        return {
            index: stored_parameters(replace(p, scale=scales.get(self.groups[index], p.scale)))
            for index, p in self.start.items()
        }


class _Rounded(torch.autograd.Function):
    """clip(round(x / s), low, high) s, with the gradients of LSQ (Esser et al. 2020, equation 3).

    Of x: 1 inside the codes, 0 where it is clipped. Of s: the code, less x / s where nothing is
    clipped. In one function, because half of a step would else go into passes over activations.
    """

    @staticmethod
    def forward(
        ctx: Any, values: torch.Tensor, scale: torch.Tensor, low: int, high: int
    ) -> torch.Tensor:
        steps = values / scale
        rounded = torch.round(steps)
        codes = rounded.clamp(low, high)
        inside = codes == rounded
        ctx.save_for_backward(inside, codes - steps.mul_(inside))
        return codes.mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,), (inside, by_scale) = gradients, ctx.saved_tensors
        scale_gradient = (gradient * by_scale).sum() if ctx.needs_input_grad[1] else None
        return gradient * inside, scale_gradient, None, None


_rounded = cast(Callable[..., torch.Tensor], _Rounded.apply)
