"""Batch normalisation while a network learns coarse weights, folded into the integers at the end.

Ternary weights move in leaps, and with every leap the mean and the spread of what a layer sums
leave what the layers behind it have learned to read. Networks of such weights are therefore trained
with batch normalisation (Ioffe and Szegedy 2015) behind each layer. A network whose own was folded
gets it back here, and starts from the means and spreads that its sums have. At the end the measured
moments go into one factor and one bias for each channel: requantization has both anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from napier.torch_network import Hook

TINY = 1e-12
"""Added to variances."""


@dataclass(frozen=True)
class Moments:
    """Of the sums of one layer over samples and pixels.

    Parameters
    ----------
    mean, variance : (channels,) float32 tensor
    """

    mean: torch.Tensor
    variance: torch.Tensor

    @property
    def spread(self) -> torch.Tensor:
        """Standard deviation, positive."""
        return torch.sqrt(self.variance + TINY)


class Observer:
    """A hook that adds up the moments of the sums that pass, on their way to another one."""

    def __init__(self, then: Hook) -> None:
        self.then = then
        self.found: dict[int, list[np.ndarray]] = {}

    def __call__(self, index: int, sums: torch.Tensor) -> torch.Tensor:
        """Note the moments of a batch."""
        rows = sums.detach().reshape(-1, sums.shape[-1]).double()
        mean = rows.mean(dim=0)
        variance = ((rows - mean) ** 2).mean(dim=0)
        entry = torch.stack([torch.full_like(mean, len(rows)), mean, variance])
        self.found.setdefault(index, []).append(entry.numpy())
        return self.then(index, sums)

    def moments(self) -> dict[int, Moments]:
        """Moments of all that passed, by layer."""
        return {index: _joined(np.stack(entries)) for index, entries in self.found.items()}


def _joined(entries: np.ndarray) -> Moments:
    """Moments of the whole from (parts, 3, channels) counts, means and variances of its parts."""
    counts, means, variances = entries.transpose(1, 0, 2)
    shares = counts / counts.sum(axis=0)
    with np.errstate(all="ignore"):  # sums of a network that diverged, which the training tells
        mean = (shares * means).sum(axis=0)
        variance = (shares * (variances + (means - mean) ** 2)).sum(axis=0)
    return Moments(*(torch.tensor(each, dtype=torch.float32) for each in (mean, variance)))


class Normalization:
    """A hook that gives the sums of each channel a mean and a spread that learn.

    Parameters
    ----------
    moments : mapping of layer index to Moments
        Where they start; layers without are left as they are.
    """

    def __init__(self, moments: Mapping[int, Moments]) -> None:
        self.log_gains = {
            index: torch.log2(each.spread).requires_grad_() for index, each in moments.items()
        }
        self.offsets = {
            index: (each.mean / each.spread).requires_grad_() for index, each in moments.items()
        }

    def __call__(self, index: int, sums: torch.Tensor) -> torch.Tensor:
        """Normalise by the moments of this batch, and apply gain and offset."""
        if index not in self.offsets:
            return sums
        gain = torch.exp2(self.log_gains[index])
        normal = functional.batch_norm(
            sums.movedim(-1, 1), None, None, gain, gain * self.offsets[index],
            training=True, eps=TINY,
        )  # fmt: skip
        return normal.movedim(1, -1)

    def learned(self) -> list[torch.Tensor]:
        """List what it learns."""
        return [*self.log_gains.values(), *self.offsets.values()]

    def folded(self, index: int, moments: Moments) -> tuple[torch.Tensor, torch.Tensor]:
        """Factor and addend of every channel that stand for the normalisation by these moments."""
        with torch.no_grad():
            gain = torch.exp2(self.log_gains[index])
            factor = gain / moments.spread
            return factor, gain * self.offsets[index] - factor * moments.mean
