"""The network that ships with Napier: accurate, small, and made by its script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite
from oracle import run_tflite_micro
from tflite_builder import ModelBuilder

from golden.files import load_network, save_arrays, save_network
from golden.network import (
    Add,
    AveragePool2D,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Network,
    Reshape,
    WeightedLayer,
)
from golden.run import run

FOLDER = Path(__file__).parents[1] / "napier" / "models"


@pytest.fixture(scope="module")
def network() -> Network:
    return load_network(FOLDER / "digits.npz")


@pytest.fixture(scope="module")
def held_out() -> tuple[np.ndarray, np.ndarray]:
    with np.load(FOLDER / "digits_test.npz", allow_pickle=False) as arrays:
        return arrays["images"], arrays["labels"]


def test_at_least_97_percent_of_the_held_out_images_are_told_right(
    network: Network, held_out: tuple[np.ndarray, np.ndarray]
) -> None:
    images, labels = held_out
    assert images.shape == (500, 8, 8, 1)
    (logits,) = run(network, [images]).outputs
    assert np.mean(logits.argmax(axis=1) == labels) >= 0.97


def test_images_without_their_labels_are_told_by_chance(
    network: Network, held_out: tuple[np.ndarray, np.ndarray]
) -> None:
    """The accuracy above comes from the images: shifted labels lose it."""
    images, labels = held_out
    (logits,) = run(network, [images]).outputs
    assert np.mean(logits.argmax(axis=1) == np.roll(labels, 1)) < 0.2


def test_the_layers_are_those_that_hardware_people_ask_for(network: Network) -> None:
    assert [layer.op for layer in network.layers] == [
        *("conv", "depthwise", "conv", "conv", "conv", "conv", "add"),
        *("average_pool", "reshape", "dense"),
    ]
    convolutions = [layer for layer in network.layers if isinstance(layer, Conv2D)]
    assert [layer.stride for layer in convolutions] == [(1, 1)] * 3 + [(2, 2)] + [(1, 1)] * 2
    assert [layer.weights.shape[1:3] for layer in convolutions] == [
        *((3, 3), (3, 3), (1, 1), (3, 3), (3, 3), (3, 3)),
    ]
    (add,) = (layer for layer in network.layers if isinstance(layer, Add))
    assert add.inputs == (convolutions[3].outputs[0], convolutions[5].outputs[0])


def test_it_takes_128640_macs(network: Network) -> None:
    """By hand, padded taps counted: 4608 + 4608 + 8192 + 3 x 36864 + 640."""
    macs = 0
    for layer in network.layers:
        if isinstance(layer, WeightedLayer):
            pixels = np.prod(network.tensors[layer.outputs[0]].shape[1:-1], dtype=int)
            macs += int(pixels) * layer.weights.size
    assert macs == 128640


def test_weights_are_symmetric_and_use_their_range_in_every_channel(network: Network) -> None:
    for layer in network.layers:
        if isinstance(layer, WeightedLayer):
            largest = np.abs(layer.weights.astype(int)).reshape(len(layer.weights), -1).max(axis=1)
            np.testing.assert_array_equal(largest, 127)
            assert layer.requantization.multiplier.shape == (len(layer.weights),)
            assert layer.requantization.rounding == "double"


def test_relu_is_the_clamp_at_the_zero_point(network: Network) -> None:
    clamps = {
        layer.name: (layer.activation_min, layer.output_zero_point)
        for layer in network.layers
        if isinstance(layer, WeightedLayer | Add)
    }
    linear = {name for name, (low, zero_point) in clamps.items() if low < zero_point}
    assert linear == {"block_2", "dense"}
    assert all(low == zero for name, (low, zero) in clamps.items() if name not in linear)


# -- TensorFlow Lite Micro as the judge ------------------------------------------------------------


def as_tflite(network: Network, batch: int) -> bytes:
    """The network as a TensorFlow Lite file, whose tensors have the network's indices.

    The file holds scales, no multipliers: those the outside kernels work out themselves.
    """
    builder = ModelBuilder()
    for tensor in network.tensors:
        assert tensor.scale is not None
        builder.tensor((batch, *tensor.shape[1:]), "int8", tensor.scale, tensor.zero_point)
    relu = tflite.ActivationFunctionType.RELU
    same = tflite.Padding.SAME
    for layer in network.layers:
        inputs, (output,) = list(layer.inputs), layer.outputs
        fused: dict[str, Any] = {"FusedActivationFunction": 0}
        if getattr(layer, "activation_min", -128) == network.tensors[output].zero_point:
            fused = {"FusedActivationFunction": relu}
        if isinstance(layer, WeightedLayer):
            inputs += weights_and_bias(builder, network, layer)
        if isinstance(layer, Conv2D):
            depthwise = isinstance(layer, DepthwiseConv2D)
            name = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
            fused |= {"DepthMultiplier": 1} if depthwise else {}
            fused |= {"StrideH": layer.stride[0], "StrideW": layer.stride[1], "Padding": same}
            builder.operator(name, inputs, [output], **fused)
        elif isinstance(layer, FullyConnected):
            builder.operator("FULLY_CONNECTED", inputs, [output], **fused)
        elif isinstance(layer, Add):
            builder.operator("ADD", inputs, [output], **fused)
        elif isinstance(layer, AveragePool2D):
            sizes = {"FilterHeight": 2, "FilterWidth": 2, "StrideH": 2, "StrideW": 2}
            builder.operator("AVERAGE_POOL_2D", inputs, [output], Padding=same, **sizes)
        else:
            assert isinstance(layer, Reshape)
            shape = builder.constant([batch, *network.tensors[output].shape[1:]])
            builder.operator("RESHAPE", [*inputs, shape], [output])
    return builder.build(network.inputs, network.outputs)


def weights_and_bias(builder: ModelBuilder, network: Network, layer: WeightedLayer) -> list[int]:
    """Add the constants of a layer; a multiplier has 31 bits, enough to find its float32 scale."""
    source, output = (network.tensors[ends[0]].scale for ends in (layer.inputs, layer.outputs))
    rule = layer.requantization
    reals = rule.multiplier * 2.0 ** (rule.shift - 31)
    scales = (reals * output / source).astype(np.float32)
    weights, axis = layer.weights, 0
    if isinstance(layer, DepthwiseConv2D):
        weights, axis = weights.transpose(3, 1, 2, 0), 3
    bias_scales = np.float32(source) * scales
    return [
        builder.tensor(weights.shape, "int8", scales, axis=axis, data=weights),
        builder.tensor(layer.bias.shape, "int32", bias_scales, data=layer.bias),
    ]


def test_every_tensor_equals_that_of_tensorflow_lite_micro(
    network: Network, held_out: tuple[np.ndarray, np.ndarray]
) -> None:
    images, labels = held_out
    tensors = run(network, [images], keep_tensors=True).tensors
    expected = run_tflite_micro(as_tflite(network, len(images)), [images], tensors, 1 << 23)
    for index, values in tensors.items():
        np.testing.assert_array_equal(values, expected[index], network.tensors[index].name)
    logits = expected[network.outputs[0]]
    assert np.mean(logits.argmax(axis=1) == labels) >= 0.97


# -- the script that made it -----------------------------------------------------------------------

pytest.importorskip("sklearn", reason="scikit-learn brings the images")

from scripts import train_digits  # noqa: E402


def test_the_stored_images_are_the_held_out_ones_of_the_script(
    network: Network, held_out: tuple[np.ndarray, np.ndarray]
) -> None:
    digits = train_digits.load_digits()
    assert len(digits.train_images) == 1297
    np.testing.assert_array_equal(
        train_digits.image_codes(network, digits.test_images), held_out[0]
    )
    np.testing.assert_array_equal(digits.test_labels, held_out[1])


def test_no_image_is_both_trained_on_and_held_out() -> None:
    """The split is by image; the data set has no two equal images."""
    digits = train_digits.load_digits()
    train = {image.tobytes() for image in digits.train_images}
    test = {image.tobytes() for image in digits.test_images}
    assert len(train) == 1297
    assert len(test) == 500
    assert not train & test


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    digits = train_digits.load_digits()
    images, labels = digits.train_images[:8], digits.train_labels[:8]
    rng = np.random.default_rng(3)
    parameters = {}
    for name, shape in train_digits.KERNELS.items():
        parameters[name] = rng.normal(0.0, np.sqrt(2.0 / np.prod(shape[1:])), shape)
        parameters[name + "_bias"] = rng.normal(0.0, 0.1, shape[0])

    def loss(changed: train_digits.Parameters) -> float:
        logits = train_digits.forward(changed, images)["dense"]
        chosen = logits[np.arange(len(labels)), labels]
        return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - chosen))

    gradients = train_digits.backward(parameters, train_digits.forward(parameters, images), labels)
    assert gradients.keys() == parameters.keys()
    for name, gradient in gradients.items():
        direction = rng.normal(size=gradient.shape)
        step = 1e-6
        above, below = (
            loss(parameters | {name: parameters[name] + sign * step * direction})
            for sign in (1, -1)
        )
        slope = (above - below) / (2 * step)
        np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-4, atol=1e-7)


def test_every_int8_tensor_stays_near_the_float_one() -> None:
    """A wrong scale, zero point or bias is off by many steps; rounding alone by less than one.

    Measured here, in steps of each tensor: mean errors of 0.11 (image) to 0.73 (dense).
    """
    digits = train_digits.load_digits()
    parameters = train_digits.train(digits, epochs=2)
    network = train_digits.quantize_network(parameters, digits.train_images)
    images = digits.test_images[:50]
    expected = train_digits.forward(parameters, images)
    codes = train_digits.image_codes(network, images)
    tensors = run(network, [codes], keep_tensors=True).tensors
    assert len(tensors) == len(expected) == 11
    for index, values in tensors.items():
        tensor = network.tensors[index]
        assert tensor.scale is not None
        real = tensor.scale * (values.astype(float) - tensor.zero_point)
        assert np.mean(np.abs(real - expected[tensor.name])) < tensor.scale, tensor.name


@pytest.mark.slow
def test_the_script_makes_the_very_files_that_ship(tmp_path: Path, network: Network) -> None:
    train_digits.main(tmp_path)
    # Bytes depend on the version of zlib too, so what ships is written anew before comparing.
    save_network(network, tmp_path / "shipped.npz")
    assert (tmp_path / "digits.npz").read_bytes() == (tmp_path / "shipped.npz").read_bytes()
    with np.load(FOLDER / "digits_test.npz", allow_pickle=False) as arrays:
        save_arrays(dict(arrays), tmp_path / "shipped_test.npz")
    assert (tmp_path / "digits_test.npz").read_bytes() == (
        tmp_path / "shipped_test.npz"
    ).read_bytes()
