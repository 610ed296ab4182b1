"""n-hot weights with another n for each layer: most accuracy for so many additions.

A multiplication by an n-hot weight takes n additions, so that layers with many multiplications and
little to gain get few terms. Errors of layers are taken as independent and added; each is relative
to its layer.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from golden.errors import InputError
from golden.quantization.clipping import unit_where_zero
from golden.quantization.method import Options, WeightTask
from golden.quantization.registry import parse_method
from golden.quantization.search import output_errors

MOST_TERMS = 4
"""All 8-bit codes are at most 4-hot."""


def mixed_terms(
    tasks: Mapping[str, WeightTask],
    macs: Mapping[str, int],
    mean_terms: float,
    options: Options | None = None,
) -> dict[str, int]:
    """Choose n for each layer.

    All layers start with n = 1. The layer whose error falls most for each further addition gets one
    term more, as long as the mean over all multiplications stays within `mean_terms`.

    Parameters
    ----------
    tasks : mapping of layer name to WeightTask
        Errors are those of outputs where a task has moments, and otherwise of weights.
    macs : mapping of layer name to int
        Multiplications of each layer.
    mean_terms : float
        At least 1.
    options : mapping or None
        Settings of the method ``nhot`` other than n.

    Returns
    -------
    dict of layer name to int
        1 to `MOST_TERMS`.

    Raises
    ------
    InputError
        For a mean below 1.
    """
    if mean_terms < 1:
        raise InputError(
            f"the mean number of terms must be at least 1, not {mean_terms:g}; 1-hot is the least"
        )
    errors = {
        name: [_error(task, terms, options or {}) for terms in range(1, MOST_TERMS + 1)]
        for name, task in tasks.items()
    }
    chosen = dict.fromkeys(tasks, 1)
    room = (mean_terms - 1) * sum(macs[name] for name in tasks)
    while True:
        gains = {
            name: (errors[name][terms - 1] - errors[name][terms]) / macs[name]
            for name, terms in chosen.items()
            if terms < MOST_TERMS and macs[name] <= room
        }
        best = max(gains, key=lambda name: gains[name], default=None)
        if best is None or gains[best] <= 0:
            return chosen
        chosen[best] += 1
        room -= macs[best]


def _error(task: WeightTask, terms: int, options: Options) -> float:
    """Squared error of n-hot weights, relative to the layer."""
    method, defaults = parse_method("nhot")
    found = method.quantize(task, {**defaults, **options, "n": terms})
    reals = found.scales[:, np.newaxis] * found.codes
    if task.moments is not None:
        error, power = output_errors(reals, task.moments).sum(), task.moments.power.sum()
    else:
        error, power = ((task.weights - reals) ** 2).sum(), (task.weights**2).sum()
    return float(error / unit_where_zero(np.asarray(power)))
