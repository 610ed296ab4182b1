"""Fine-tuning: PyTorch computes what NumPy computes, gradients pass, integers come out."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from float_digits import digits

from golden.certificates import certify
from golden.errors import InputError
from golden.float_network import (
    FloatActivation,
    FloatAdd,
    FloatConcat,
    FloatConstant,
    FloatConv2D,
    FloatDense,
    FloatLayer,
    FloatMean,
    FloatMul,
    FloatNetwork,
    FloatPad,
    FloatPool2D,
    FloatReshape,
    FloatResize,
    FloatSoftmax,
    FloatTensor,
)
from golden.float_run import rounded, run_float
from golden.network import Network, Padding, WeightedLayer
from golden.quantization.calibrate import Settings, WeightSettings, quantize_network
from golden.quantization.registry import parse_method
from golden.ranges import clamp_ranges
from golden.run import run
from napier.activation_training import TrainedActivations
from napier.loading import load_model
from napier.torch_network import TorchNetwork
from napier.training import (
    FineTuned,
    Stage,
    Training,
    _moved,
    _Trainer,
    fine_tune,
    train_float,
)
from napier.weight_training import trained_weights
from simulator.hardware import load_hardware
from simulator.machine import simulate


def every_layer() -> FloatNetwork:
    """A network with each kind of layer, odd paddings, strides, a group and a constant."""
    draw = np.random.default_rng(1)
    tensors: list[FloatTensor] = []
    layers: list[FloatLayer] = []

    def tensor(name: str, *shape: int) -> int:
        tensors.append(FloatTensor(name, (1, *shape)))
        return len(tensors) - 1

    def values(*shape: int) -> np.ndarray:
        return draw.normal(0, 0.4, shape).astype(np.float32)

    x = tensor("x", 7, 9, 2)
    conv = tensor("conv", 4, 5, 6)
    layers.append(
        FloatConv2D(
            "conv", (x,), (conv,), values(6, 3, 3, 1), values(6), "relu6",
            (2, 2), (1, 1), Padding(1, 1, 1, 1), 2,
        )
    )  # fmt: skip
    wide = tensor("wide", 2, 3, 6)
    layers.append(
        FloatConv2D(
            "wide", (conv,), (wide,), values(6, 2, 2, 6), values(6), "none", dilation=(2, 2)
        )
    )
    clipped = tensor("clipped", 2, 3, 6)
    layers.append(FloatActivation("clipped", (wide,), (clipped,), "relu_n1_to_1"))
    average = tensor("average", 2, 3, 6)
    layers.append(
        FloatPool2D("average", (conv,), (average,), "average", (3, 3), (2, 2), Padding(1, 0, 1, 1))
    )
    largest = tensor("largest", 2, 3, 6)
    layers.append(
        FloatPool2D("largest", (conv,), (largest,), "max", (3, 3), (2, 2), Padding(1, 0, 1, 1))
    )
    added = tensor("added", 2, 3, 6)
    layers.append(FloatAdd("added", (clipped, average), (added,), "relu"))
    factor = tensor("factor", 1, 1, 6)
    scaled = tensor("scaled", 2, 3, 6)
    layers.append(FloatMul("scaled", (added, factor), (scaled,)))
    joined = tensor("joined", 2, 3, 12)
    layers.append(FloatConcat("joined", (scaled, largest), (joined,), 3))
    framed = tensor("framed", 3, 5, 12)
    layers.append(FloatPad("framed", (joined,), (framed,), ((0, 0), (1, 0), (0, 2), (0, 0))))
    grown = tensor("grown", 6, 10, 12)
    layers.append(FloatResize("grown", (framed,), (grown,), False, True))
    mean = tensor("mean", 12)
    layers.append(FloatMean("mean", (grown,), (mean,), (1, 2), False))
    flat = tensor("flat", 180)
    layers.append(FloatReshape("flat", (framed,), (flat,)))
    first, second = tensor("first", 4), tensor("second", 4)
    layers.append(FloatDense("first", (mean,), (first,), values(4, 12), values(4), "none"))
    layers.append(FloatDense("second", (flat,), (second,), values(4, 180), values(4), "none"))
    total, chances = tensor("total", 4), tensor("chances", 4)
    layers.append(FloatAdd("total", (first, second), (total,)))
    layers.append(FloatSoftmax("chances", (total,), (chances,), 1.5))
    return FloatNetwork(
        "every", tuple(tensors), tuple(layers), (x,), (chances,), "",
        (FloatConstant(factor, values(1, 1, 1, 6)),),
    )  # fmt: skip


def samples(network: FloatNetwork, count: int) -> np.ndarray:
    shape = network.tensors[network.inputs[0]].shape
    return np.random.default_rng(2).normal(0, 1, (count, *shape[1:])).astype(np.float32)


def test_torch_computes_every_tensor_as_numpy_does() -> None:
    network = every_layer()
    x = samples(network, 3)
    expected = run_float(network, [x])
    indices = [layer.outputs[0] for layer in network.layers]
    found = TorchNetwork(network)([torch.from_numpy(x)], keep=indices)
    for index, values in zip(indices, found, strict=True):
        np.testing.assert_allclose(values.detach().numpy(), expected[index], atol=1e-5)


def test_a_network_comes_back_as_it_went_in() -> None:
    network = every_layer()
    back = TorchNetwork(network).to_float_network()
    for before, after in zip(network.layers, back.layers, strict=True):
        if isinstance(before, FloatConv2D | FloatDense):
            assert isinstance(after, FloatConv2D | FloatDense)
            np.testing.assert_array_equal(after.weights, before.weights)
            np.testing.assert_array_equal(after.bias, before.bias)
    assert replace(back, layers=network.layers) == network


# -- the digits network that ships, as a float network ---------------------------------------------


def tuned(stages: list[Stage], count: int = 96, **changes: object) -> FineTuned:
    network, parameters, images, labels = digits()
    training = Training(**changes)  # type: ignore[arg-type]
    return fine_tune(
        network, parameters, [images[:count]], labels[:count], stages, training=training
    )


def accuracy(network: Network, images: np.ndarray, labels: np.ndarray) -> float:
    _, parameters, _, _ = digits()
    codes = parameters[0].codes(images).astype(np.int8)
    return float(np.mean(run(network, codes).outputs[0].argmax(axis=1) == labels))


def test_fine_tuning_wins_back_most_of_what_ternary_weights_lose() -> None:
    network, parameters, images, labels = digits()
    held_out = images[300:], labels[300:]
    method, options = parse_method("ternary")
    settings = Settings(WeightSettings(method, options, 8))
    projected = quantize_network(network, settings, [images[:300]], parameters).network
    trained = tuned([Stage("ternary", 4, 2e-3)], count=300).network
    before = accuracy(load_model(None), *held_out)
    lost = before - accuracy(projected, *held_out)
    assert lost > 0.05
    assert before - accuracy(trained, *held_out) < lost / 2


def test_one_seed_gives_one_network() -> None:
    first, again, other = (tuned([Stage("nhot:n=2", 1)], seed=seed) for seed in (3, 3, 4))
    for name, codes in first.weights.items():
        np.testing.assert_array_equal(again.weights[name].codes, codes.codes)
        np.testing.assert_array_equal(again.weights[name].scales, codes.scales)
    assert again.parameters == first.parameters
    assert again.epochs == first.epochs != other.epochs


def test_a_stage_of_no_epochs_is_the_projection_after_training() -> None:
    network, parameters, _, _ = digits()
    method, options = parse_method("nhot:n=1")
    settings = Settings(WeightSettings(method, options, 8))
    projected = quantize_network(network, settings, None, parameters).network
    untrained = tuned([Stage("nhot:n=1", 0)]).network
    for before, after in zip(projected.layers, untrained.layers, strict=True):
        if isinstance(before, WeightedLayer):
            np.testing.assert_array_equal(after.weights, before.weights)  # type: ignore[attr-defined]
            np.testing.assert_array_equal(after.bias, before.bias)  # type: ignore[attr-defined]


def test_trained_codes_are_values_of_the_last_method() -> None:
    result = tuned([Stage("uniform", 1), Stage("nhot:n=1", 1)])
    powers = {0, *(sign << e for sign in (1, -1) for e in range(7))}
    assert all(set(np.unique(codes.codes)) <= powers for codes in result.weights.values())
    assert [epoch.stage for epoch in result.epochs] == [0, 1]


def test_two_scales_get_the_gradients_of_their_weights() -> None:
    """Trained ternary quantization, equations 7 and 8; in octaves, so times p ln 2."""
    weights = torch.tensor([[2.0, 1.0, 0.2, -0.5, -0.5]], requires_grad=True)
    method, options = parse_method("ttq")
    layer = FloatDense(
        "dense", (0,), (1,), weights.detach().numpy(), np.zeros(1, np.float32), "none"
    )
    learning = trained_weights(layer, weights, WeightSettings(method, options, 8))
    # of 2, 1 and 0.2 keeping the first two is best, at their mean: p = 1.5, m = 0.5
    values = learning(weights)
    np.testing.assert_allclose(
        values.detach().numpy(), [[1.5, 1.5, 0, -0.5, -0.5]], atol=1.5 / 127 / 2
    )
    torch.autograd.backward((values * torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])).sum())
    (scales,) = learning.learned()
    assert scales.grad is not None
    assert weights.grad is not None
    expected = np.array([[1.5 * (1 + 2)], [-0.5 * (4 + 5)]]) * np.log(2)
    np.testing.assert_allclose(scales.grad.numpy(), expected, rtol=1e-5)
    unit = (1.5 + 0.5) / 2
    factors = np.array([[1.5, 1.5, unit, 0.5, 0.5]]) / unit
    np.testing.assert_allclose(weights.grad.numpy(), factors * [[1, 2, 3, 4, 5]], rtol=1e-5)


@pytest.mark.parametrize("rule", ["exact", "threshold"])
def test_both_scales_of_ttq_learn(rule: str) -> None:
    text = f"ttq:rule={rule}"
    start, after = (tuned([Stage(text, epochs, 1e-2)], count=300) for epochs in (0, 2))
    assert after.epochs[1].loss < after.epochs[0].loss
    for name in ("block_1", "dense"):
        both = [result.weights[name] for result in (start, after)]
        ratios = [codes.codes.max(axis=1) / -codes.codes.min(axis=1) for codes in both]
        assert (ratios[0] != ratios[1]).mean() > 0.5
        assert all(len(np.unique(row)) <= 3 for row in both[1].codes)


def test_a_fine_tuned_network_has_the_same_bits_in_the_simulator() -> None:
    _, parameters, images, _ = digits()
    network = tuned([Stage("ternary", 1)], count=32).network
    codes = parameters[0].codes(images[:2]).astype(np.int8)
    simulated = simulate(network, load_hardware("ternary4x4"), [codes])
    np.testing.assert_array_equal(simulated.outputs[0], run(network, codes).outputs[0])


def test_layers_can_keep_a_method_of_their_own() -> None:
    network, parameters, images, labels = digits()
    method, options = parse_method("uniform")
    kept = {"stem": WeightSettings(method, options, 8)}
    result = fine_tune(
        network, parameters, [images[:32]], labels[:32], [Stage("ternary", 1)], layers=kept
    )
    assert np.abs(result.weights["stem"].codes).max() == 127
    assert np.abs(result.weights["dense"].codes).max() == 1


def test_the_scale_of_the_input_stays_and_others_learn() -> None:
    _, parameters, _, _ = digits()
    result = tuned([Stage("uniform", 1)])
    assert result.parameters[0] == parameters[0]
    learned = [i for i, p in result.parameters.items() if p.scale != parameters[i].scale]
    assert len(learned) > 5
    # What passes the flattening unchanged shares one scale before and after.
    names = {layer.name: layer for layer in digits()[0].layers}
    (before,), (after,) = names["flatten"].inputs, names["flatten"].outputs
    assert result.parameters[before] == result.parameters[after]


def test_without_labels_the_float_network_teaches() -> None:
    network, parameters, images, labels = digits()
    result = fine_tune(network, parameters, [images[:256]], None, [Stage("ternary", 2)])
    losses = [epoch.loss for epoch in result.epochs]
    assert losses[1] < losses[0]


@pytest.mark.parametrize("method", ["a2q", "a2q+"])
def test_accumulator_width_holds_while_the_network_learns(method: str) -> None:
    result = tuned([Stage(f"{method}:16", 1)], count=64).network
    ranges = clamp_ranges(result)
    for layer in result.layers:
        if isinstance(layer, WeightedLayer):
            (source,) = layer.inputs
            codes = ranges[source]
            assert codes is not None
            assert certify(layer, result.tensors[source], codes).exact_bits.max() <= 16
            assert layer.weights.any()


def test_torch_rounds_activations_as_golden_does() -> None:
    network, parameters, images, _ = digits()
    rounds = TrainedActivations(network, parameters, held=[])
    values = np.random.default_rng(0).normal(0, 3, 10_000).astype(np.float32)
    for index, each in parameters.items():
        found = rounds(index, torch.from_numpy(values)).detach().numpy()
        steps = np.rint((found - rounded(values, each)) / each.scale)
        assert np.count_nonzero(steps) <= 2  # a quotient that float32 puts on the other side


def test_a_float_network_learns_before_anything_is_quantized() -> None:
    network, _, images, labels = digits()
    draw = np.random.default_rng(0)
    disturbed = replace(
        network,
        layers=tuple(
            replace(x, weights=x.weights + draw.normal(0, 0.1, x.weights.shape).astype(np.float32))
            if isinstance(x, FloatConv2D | FloatDense)
            else x
            for x in network.layers
        ),
    )
    trained = train_float(disturbed, [images], labels, Stage("float", 2, 2e-3))
    before, after = (
        np.mean(run_float(each, [images])[each.outputs[0]].argmax(axis=1) == labels)
        for each in (disturbed, trained)
    )
    assert before < 0.85
    assert after > before + 0.05


def test_layers_of_small_weights_and_outputs_learn_slower() -> None:
    network, parameters, images, labels = digits()
    first = network.layers[0]
    assert isinstance(first, FloatConv2D)
    small = replace(first, weights=first.weights / 100)
    (target,) = first.outputs
    trainer = _Trainer(
        replace(network, layers=(small, *network.layers[1:])),
        {**parameters, target: replace(parameters[target], scale=0.25 / 255)},
        [images],
        labels,
        {},
        Training(),
    )
    trainer.begin(0, Stage("uniform", 1))
    _, weights, bias, *others = trainer.optimizer.param_groups
    size = float(np.sqrt(np.mean(small.weights**2)))
    assert weights["share"] == pytest.approx(size / 0.05, rel=1e-5)
    assert bias["share"] == pytest.approx(0.25)
    assert {group["share"] for group in others} == {1.0}


def test_relative_steps_grow_with_the_weights_of_a_channel() -> None:
    """The first step of Adam is the rate for every weight, whatever its gradient."""
    network, parameters, images, labels = digits()
    first = network.layers[0]
    assert isinstance(first, FloatConv2D)
    training = Training(batch=32, relative=True)
    trainer = _Trainer(network, parameters, [images[:32]], labels[:32], {}, training)
    trainer.begin(0, Stage("uniform", 1, 1e-3))
    trainer.epoch()
    moved = np.abs(trainer.student.weights[0].detach().numpy() - first.weights)
    sizes = np.sqrt((first.weights**2).mean(axis=(1, 2, 3)))
    np.testing.assert_allclose(moved.max(axis=(1, 2, 3)), 1e-3 * sizes / 0.1, rtol=1e-2)


def test_moved_images_bring_zeros_in() -> None:
    image = torch.arange(12.0).reshape(1, 3, 4, 1)
    moved = _moved(image, 1, -2)[0, :, :, 0]  # down by 1, left by 2
    assert moved.tolist() == [[0, 0, 0, 0], [2, 3, 0, 0], [6, 7, 0, 0]]
    assert _moved(image, 0, 0) is image


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "must end in a stage that quantizes"),
        ([Stage("float", 1)], "must end in a stage that quantizes"),
        ([Stage("ternary", -1)], "epochs from 0"),
        ([Stage("ternary", 1, 0.0)], "learning rate above 0"),
        ([Stage("ternary", 1, float("inf"))], "finite learning rate above 0"),
        ([Stage("uniform", 1, bits=9)], "2 to 8 bits, not 9"),
        ([Stage("easyquant", 1)], "chooses by calibration data"),
        ([Stage("a2q", 1)], "needs the bits of the accumulator"),
        ([Stage("a2q:8", 1)], "cannot hold a single operand"),
    ],
)
def test_bad_stages_are_refused(stages: list[Stage], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tuned(stages, count=8)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("method", ["uniform", "ternary", "ttq", "a2q:16", "nhot:n=1"])
@pytest.mark.parametrize(("rate", "epochs"), [(100.0, 1), (100.0, 3), (1e6, 1), (1e30, 2)])
def test_training_that_diverges_is_stopped_in_one_sentence(
    method: str, rate: float, epochs: int
) -> None:
    message = r"training diverged in epoch \d \(loss .*; lower --learning-rate, which is"
    with pytest.raises(InputError, match=message):
        tuned([Stage(method, epochs, rate)], count=64)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("epochs", [0, 1])
def test_a_stage_after_one_that_diverged_is_not_begun_on_what_it_left(epochs: int) -> None:
    with pytest.raises(InputError, match="training diverged in epoch 1"):
        tuned([Stage("uniform", 1, 1e30), Stage("ternary", epochs, 1e30)], count=8)


@pytest.mark.parametrize(("count", "normalized"), [(1, False), (5, False), (8, True), (17, True)])
def test_steps_of_fewer_than_eight_samples_are_not_normalized(count: int, normalized: bool) -> None:
    network, parameters, images, labels = digits()
    trainer = _Trainer(network, parameters, [images[:count]], labels[:count], {}, Training(batch=8))
    trainer.begin(0, Stage("ternary", 1))
    assert bool(trainer.normalization.offsets) == normalized
    assert np.isfinite(trainer.epoch())


@pytest.mark.parametrize("method", ["nhot:n=0", "easyquant", "twn:factor=-1"])
def test_settings_that_a_method_refuses_are_refused_before_any_training(method: str) -> None:
    network, parameters, images, labels = digits()
    told: list[int] = []
    with pytest.raises(InputError, match=method.partition(":")[0]):
        fine_tune(
            *(network, parameters, [images[:32]], labels[:32]),
            [Stage("uniform", 1), Stage(method, 1)],
            progress=lambda done, total, what: told.append(done),
        )
    assert told == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 0}, "a batch and threads from 1"),
        ({"threads": 0}, "a batch and threads from 1"),
        ({"distillation": 1.5}, "a share of distillation from 0 to 1"),
        ({"dampening": -0.1}, "a share of 0 to 1 of the way to their levels, not -0.1"),
        ({"dampening": float("nan")}, "a share of 0 to 1 of the way to their levels, not nan"),
        ({"shift": 8}, "moved by 0 to 7 pixels, not 8"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tuned([Stage("ternary", 1)], count=8, **changes)


def test_labels_must_be_classes_of_the_network() -> None:
    network, parameters, images, _ = digits()
    with pytest.raises(InputError, match="classes 0 to 9"):
        fine_tune(network, parameters, [images[:2]], np.array([0, 10]), [Stage("ternary", 1)])
    with pytest.raises(InputError, match="equally many"):
        fine_tune(network, parameters, [images[:2]], np.array([0]), [Stage("ternary", 1)])
