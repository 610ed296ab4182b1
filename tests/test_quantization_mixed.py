"""Another n for each layer: the additions asked for, spent where they help most."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from golden.errors import InputError
from golden.quantization.method import Moments, WeightTask
from golden.quantization.mixed import mixed_terms
from golden.quantization.registry import parse_method

MACS = {"wide": 100, "narrow": 10, "exact": 50, "heavy": 30}


def tasks():
    rng = np.random.default_rng(0)
    return {
        "wide": WeightTask(rng.standard_normal((8, 90)), 8),
        "narrow": WeightTask(rng.standard_normal((4, 90)), 8),
        "exact": WeightTask(2.0 ** rng.integers(-6, 1, (4, 90)) * 64, 8),
        "heavy": WeightTask(rng.laplace(0, 1, (4, 90)), 8),
    }


def relative_error(task, terms):
    method, options = parse_method(f"nhot:n={terms}")
    found = method.quantize(task, options)
    error = task.weights - found.scales[:, np.newaxis] * found.codes
    return (error**2).sum() / (task.weights**2).sum()


def mean(chosen):
    return sum(MACS[name] * terms for name, terms in chosen.items()) / sum(MACS.values())


@pytest.mark.parametrize("budget", [1, 1.5, 2, 2.5, 3, 4])
def test_the_budget_is_kept_and_spent_about_as_well_as_any_choice_could(budget):
    layers = tasks()
    chosen = mixed_terms(layers, MACS, budget)
    assert mean(chosen) <= budget
    total = sum(relative_error(layers[name], terms) for name, terms in chosen.items())
    errors = {
        name: [relative_error(task, terms) for terms in range(1, 5)]
        for name, task in layers.items()
    }
    best = min(
        sum(errors[name][terms - 1] for name, terms in zip(layers, choice, strict=True))
        for choice in itertools.product(range(1, 5), repeat=4)
        if mean(dict(zip(layers, choice, strict=True))) <= budget
    )
    assert best <= total <= 2 * best + 1e-12


def test_without_room_all_layers_are_one_hot():
    assert set(mixed_terms(tasks(), MACS, 1).values()) == {1}


def test_cheap_layers_get_their_terms_first():
    layers = tasks()
    chosen = mixed_terms(layers, MACS, 1.2)
    assert chosen["narrow"] > chosen["wide"] == 1


def test_errors_of_outputs_count_where_there_are_moments():
    """Inputs that never meet the layer's awkward weights leave nothing to gain there."""
    weights = np.array([[1.0, 0.77, 0.5]])
    seen = np.diag([1.0, 0.0, 1.0])
    outputs = weights @ seen
    task = WeightTask(weights, 8, Moments(seen[np.newaxis], outputs, (outputs**2).sum(axis=1)))
    other = WeightTask(weights, 8)
    options = {"reading": "scale", "objective": "weights"}
    chosen = mixed_terms({"seen": task, "other": other}, {"seen": 1, "other": 1}, 4, options)
    assert chosen["seen"] <= chosen["other"]
    assert chosen["other"] > 1


def test_less_than_one_term_is_refused():
    with pytest.raises(InputError, match=r"must be at least 1, not 0\.5"):
        mixed_terms(tasks(), MACS, 0.5)
