"""Batch normalisation while coarse weights learn: what it computes, where it is, how it leaves."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from float_digits import digits

from golden.quantization.activations import QuantizationParameters
from golden.quantization.assemble import real_weights
from napier.activation_training import TrainedActivations
from napier.normalization import Moments, Normalization, Observer
from napier.torch_network import unchanged
from napier.training import Stage, Training, _Trainer, fine_tune


def begun(stage: Stage, count: int = 64, **changes: Any) -> _Trainer:
    network, parameters, images, labels = digits()
    training = Training(**changes)
    trainer = _Trainer(network, parameters, [images[:count]], labels[:count], {}, training)
    trainer.begin(0, stage)
    return trainer


def test_moments_of_parts_are_those_of_the_whole() -> None:
    values = torch.from_numpy(np.random.default_rng(0).normal(3, 2, (7, 5, 4)).astype(np.float32))
    observer = Observer(unchanged)
    for part in (values[:1], values[1:5], values[5:]):
        assert observer(8, part) is part
    found = observer.moments()[8]
    rows = values.numpy().reshape(-1, 4)
    np.testing.assert_allclose(found.mean.numpy(), rows.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.variance.numpy(), rows.var(axis=0), rtol=1e-5)


def test_normalised_sums_have_the_mean_and_spread_that_learn() -> None:
    """Two channels of mean 1 and -2 and spread 4 and 1/2; a third layer is left as it is."""
    normalization = Normalization({3: Moments(torch.tensor([1.0, -2.0]), torch.tensor([16, 0.25]))})
    sums = torch.from_numpy(np.random.default_rng(1).normal(50, 9, (6, 3, 3, 2))).float()
    rows = normalization(3, sums).detach().reshape(-1, 2).numpy()
    np.testing.assert_allclose(rows.mean(axis=0), [1, -2], atol=1e-4)
    np.testing.assert_allclose(rows.std(axis=0), [4, 0.5], rtol=1e-4)
    assert normalization(4, sums) is sums


def test_a_factor_and_an_addend_stand_for_the_normalisation() -> None:
    start = Moments(torch.tensor([1.0, -2.0]), torch.tensor([16, 0.25]))
    normalization = Normalization({0: start})
    sums = torch.from_numpy(np.random.default_rng(2).normal(7, 3, (5, 4, 4, 2))).float()
    observer = Observer(normalization)
    expected = observer(0, sums).detach()
    factor, addend = normalization.folded(0, observer.moments()[0])
    np.testing.assert_allclose((factor * sums + addend).numpy(), expected.numpy(), atol=1e-4)


def test_coarse_weights_learn_normalised_and_fine_ones_do_not() -> None:
    layers = sorted(begun(Stage("ternary", 1)).student.weights)
    assert sorted(begun(Stage("ternary", 1)).normalization.offsets) == layers
    for stage, changes in (
        (Stage("nhot:n=2", 1), {}),
        (Stage("uniform", 1), {}),
        (Stage("ternary", 0), {}),
        (Stage("ternary", 1), {"normalize": False}),
        (Stage("ternary", 1), {"batch": 4}),
    ):
        assert not begun(stage, **changes).normalization.offsets


@pytest.mark.parametrize("method", ["ternary", "ttq", "nhot:n=1"])
def test_what_is_left_of_normalisation_computes_the_same(method: str) -> None:
    """One step of all samples: its moments are those that are folded."""
    trainer = begun(Stage(method, 1, 3e-3), batch=64)
    trainer.epoch()

    def scores() -> np.ndarray:
        with torch.no_grad():
            (found,) = trainer.student(
                trainer.inputs,
                weights=trainer._weights,
                sums=trainer.normalization,
                tensors=trainer.activations,
                keep=[trainer.scores],
            )
        return found.numpy()

    expected = scores()
    trainer.end()
    codes = {index: trainer._codes(index, each) for index, each in trainer.quantizers.items()}
    # Codes stay and scales take the factors.
    trainer._weights = lambda index, weights: torch.from_numpy(  # type: ignore[method-assign]
        real_weights(codes[index], tuple(weights.shape))
    )
    spread = expected.std()
    assert np.abs(scores() - expected).max() < 0.1 * spread
    assert np.abs(scores() - expected).mean() < 0.01 * spread


def test_normalisation_wins_most_of_what_few_epochs_of_ternary_weights_leave() -> None:
    network, parameters, images, labels = digits()
    losses = [
        fine_tune(
            *(network, parameters, [images[:256]], labels[:256], [Stage("ternary", 3, 2e-3)]),
            training=Training(normalize=normalize),
        )
        .epochs[-1]
        .loss
        for normalize in (True, False)
    ]
    assert losses[0] < losses[1]


def test_coarse_weights_go_a_share_of_the_way_to_their_levels() -> None:
    trainer = begun(Stage("ternary", 1))
    weights = {index: each.detach().clone() for index, each in trainer.student.weights.items()}
    levels = {index: trainer._weights(index, each).detach() for index, each in weights.items()}
    trainer._move_weights(levels, 0.25)  # without a gradient
    for index, before in weights.items():
        expected = (0.75 * before + 0.25 * levels[index]).numpy()
        found = trainer.student.weights[index].detach().numpy()
        np.testing.assert_allclose(found, expected, atol=1e-7)
        assert not np.array_equal(found, before.numpy())


def test_fine_weights_are_not_dampened() -> None:
    trainer = begun(Stage("uniform", 1))
    before = {index: each.detach().clone() for index, each in trainer.student.weights.items()}
    trainer._move_weights({index: torch.zeros_like(each) for index, each in before.items()}, 0.25)
    for index, each in before.items():
        np.testing.assert_array_equal(trainer.student.weights[index].detach().numpy(), each.numpy())


def test_dampened_weights_settle() -> None:
    """Codes that the last of four epochs changes, with and without."""

    def changed(dampening: float) -> int:
        trainer = begun(Stage("ternary", 4, 2e-3), 512, dampening=dampening)
        codes = []
        for _ in range(4):
            trainer.epoch()
            found = [trainer._codes(index, each) for index, each in trainer.quantizers.items()]
            codes.append(np.concatenate([each.codes.ravel() for each in found]))
        return int(np.count_nonzero(codes[-1] != codes[-2]))

    assert 2 * changed(0.01) < changed(0.0)


def test_gradients_of_rounded_activations() -> None:
    """Codes -2 to 1 of scale 1/2: two values inside, one clipped on either side."""
    parameters = QuantizationParameters(0.5, 0, -2, 1)
    network, _, _, _ = digits()
    rounds = TrainedActivations(network, {0: parameters}, held=[])
    values = torch.tensor([0.3, -0.6, 9.0, -9.0], requires_grad=True)
    found = rounds(0, values)
    assert found.tolist() == [0.5, -0.5, 0.5, -1.0]
    torch.autograd.backward((found * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum())
    assert values.grad is not None
    assert values.grad.tolist() == [1, 2, 0, 0]
    # by the scale: code - x / s inside (1 - 0.6, -1 + 1.2), the code outside (1, -2); octaves
    expected = (0.4 + 2 * 0.2 + 3 * 1 + 4 * -2) * 0.5 * np.log(2)
    (scale,) = rounds.learned()
    assert scale.grad is not None
    assert scale.grad.item() == pytest.approx(expected, rel=1e-5)
