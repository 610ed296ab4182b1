"""Train, quantize and store the network that ships with Napier: 8 x 8 handwritten digits.

    python -m scripts.train_digits [FOLDER]

writes `digits.npz` (the INT8 network, see `golden.files`) and `digits_test.npz` (the held-out
images as int8 codes, and their labels) into FOLDER, by default napier/models. NumPy does
everything; scikit-learn only brings the data (UCI Optical Recognition of Handwritten Digits, test
part: 1797 images of 8 x 8 pixels of 0 to 16, by E. Alpaydin and C. Kaynak).

The last bits of a matrix product depend on the processor. So that they do not grow into other
weights, all arithmetic is float64 and every gradient is rounded to a multiple of 2**-32 before use.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.files import save_arrays, save_network
from golden.multipliers import activation_range, add_parameters, convolution_requantization
from golden.network import (
    Add,
    AveragePool2D,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Layer,
    Network,
    Padding,
    Reshape,
    Tensor,
)
from golden.run import run

FloatArray = NDArray[np.float64]
Parameters = dict[str, FloatArray]

FOLDER = Path(__file__).resolve().parents[1] / "napier" / "models"
SEED = 1617  # the year of Napier's Rabdologia
TEST_IMAGES = 500
EPOCHS = 40
BATCH = 32
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-2
NOISE = 1.5  # standard deviation, in pixel values of 0 to 16
GRADIENT_STEP = 2.0**-32
CLASSES = 10

# Kernel shapes as golden.network stores them: (out_channels, height, width, in_channels / groups).
KERNELS: dict[str, tuple[int, ...]] = {
    "stem": (8, 3, 3, 1),
    "depthwise": (8, 3, 3, 1),
    "pointwise": (16, 1, 1, 8),
    "reduce": (16, 3, 3, 16),
    "block_1": (16, 3, 3, 16),
    "block_2": (16, 3, 3, 16),
    "dense": (CLASSES, 64),
}


# -- data ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Digits:
    """Images (N, 8, 8, 1) of pixel values 0 to 16, and labels (N,)."""

    train_images: FloatArray
    train_labels: NDArray[np.int64]
    test_images: FloatArray
    test_labels: NDArray[np.int64]


def load_digits() -> Digits:
    """Split the data set once and for all: 1297 images to train on, 500 held out."""
    from sklearn import datasets

    data = datasets.load_digits()
    images = data.images.astype(np.float64)[..., np.newaxis]
    labels = data.target.astype(np.int64)
    order = np.random.default_rng(SEED).permutation(len(images))
    train, test = order[TEST_IMAGES:], order[:TEST_IMAGES]
    return Digits(images[train], labels[train], images[test], labels[test])


# -- the float network: forward and backward -------------------------------------------------------


def taps(image: FloatArray, kernel: FloatArray, stride: int) -> dict[tuple[int, int], FloatArray]:
    """Cut the zero-padded image into views, one for each tap (ky, kx) of a convolution.

    Padding is TensorFlow's SAME for an even image: with stride 2 only below and to the right.
    """
    _, height, width, _ = image.shape
    (top, bottom), (left, right) = (same_padding(size, stride) for size in kernel.shape[1:3])
    padded = np.pad(image, ((0, 0), (top, bottom), (left, right), (0, 0)))
    return {
        (y, x): padded[:, y : y + height : stride, x : x + width : stride]
        for y in range(kernel.shape[1])
        for x in range(kernel.shape[2])
    }


def same_padding(kernel: int, stride: int) -> tuple[int, int]:
    """Rows (or columns) to add before and after an image whose size is a multiple of the stride."""
    total = kernel - stride
    return total // 2, total - total // 2


def convolve(image: FloatArray, kernel: FloatArray, stride: int = 1) -> FloatArray:
    """Convolution of (N, H, W, C) images, depthwise where `is_depthwise` says so."""
    views = taps(image, kernel, stride)
    if is_depthwise(image, kernel):
        products = [tap * kernel[:, y, x, 0] for (y, x), tap in views.items()]
    else:
        products = [tap @ kernel[:, y, x].T for (y, x), tap in views.items()]
    total: FloatArray = np.sum(products, axis=0)
    return total


def convolve_backward(
    image: FloatArray, kernel: FloatArray, gradient: FloatArray, stride: int = 1
) -> tuple[FloatArray, FloatArray]:
    """Gradients of `convolve` by its image and by its kernel."""
    image_gradient, kernel_gradient = np.zeros_like(image), np.zeros_like(kernel)
    _, height, width, _ = image.shape
    (top, bottom), (left, right) = (same_padding(size, stride) for size in kernel.shape[1:3])
    padded = np.pad(image_gradient, ((0, 0), (top, bottom), (left, right), (0, 0)))
    for (y, x), tap in taps(image, kernel, stride).items():
        target = padded[:, y : y + height : stride, x : x + width : stride]
        if is_depthwise(image, kernel):
            kernel_gradient[:, y, x, 0] = np.sum(tap * gradient, axis=(0, 1, 2))
            target += gradient * kernel[:, y, x, 0]
        else:
            kernel_gradient[:, y, x] = np.tensordot(gradient, tap, axes=((0, 1, 2), (0, 1, 2)))
            target += gradient @ kernel[:, y, x]
    return padded[:, top : top + height, left : left + width], kernel_gradient


def is_depthwise(image: FloatArray, kernel: FloatArray) -> bool:
    """Whether each output channel reads its own input channel."""
    return bool(image.shape[-1] == kernel.shape[0] > 1 and kernel.shape[-1] == 1)


def average(image: FloatArray) -> FloatArray:
    """2 x 2 average pooling."""
    n, height, width, channels = image.shape
    windows = image.reshape(n, height // 2, 2, width // 2, 2, channels)
    mean: FloatArray = windows.mean(axis=(2, 4))
    return mean


def relu(x: FloatArray) -> FloatArray:
    """max(x, 0)."""
    return np.maximum(x, 0.0)


def forward(parameters: Parameters, images: FloatArray) -> dict[str, FloatArray]:
    """Every tensor of the float network, by the name of the layer that makes it."""

    def layer(name: str, x: FloatArray, stride: int = 1) -> FloatArray:
        return convolve(x, parameters[name], stride) + parameters[name + "_bias"]

    t = {"image": images / 16.0}
    t["stem"] = relu(layer("stem", t["image"]))
    t["depthwise"] = relu(layer("depthwise", t["stem"]))
    t["pointwise"] = relu(layer("pointwise", t["depthwise"]))
    t["reduce"] = relu(layer("reduce", t["pointwise"], stride=2))
    t["block_1"] = relu(layer("block_1", t["reduce"]))
    t["block_2"] = layer("block_2", t["block_1"])
    t["add"] = relu(t["reduce"] + t["block_2"])
    t["pool"] = average(t["add"])
    t["flatten"] = t["pool"].reshape(len(images), -1)
    t["dense"] = t["flatten"] @ parameters["dense"].T + parameters["dense_bias"]
    return t


def backward(
    parameters: Parameters, t: dict[str, FloatArray], labels: NDArray[np.int64]
) -> Parameters:
    """Gradient of the mean cross entropy by every parameter, at the tensors `t` of `forward`."""
    gradients: Parameters = {}

    def layer(name: str, source: str, gradient: FloatArray, stride: int = 1) -> FloatArray:
        """Store the gradients of a convolution and hand back that of its input."""
        gradients[name + "_bias"] = gradient.sum(axis=(0, 1, 2))
        image, gradients[name] = convolve_backward(t[source], parameters[name], gradient, stride)
        return image

    logits = t["dense"] - t["dense"].max(axis=1, keepdims=True)
    likelihood = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    g = (likelihood - np.eye(CLASSES)[labels]) / len(labels)
    gradients["dense_bias"] = g.sum(axis=0)
    gradients["dense"] = g.T @ t["flatten"]
    g = (g @ parameters["dense"]).reshape(t["pool"].shape)
    g = g.repeat(2, axis=1).repeat(2, axis=2) / 4.0 * (t["add"] > 0)
    skipped = g
    g = layer("block_2", "block_1", g) * (t["block_1"] > 0)
    g = (layer("block_1", "reduce", g) + skipped) * (t["reduce"] > 0)
    g = layer("reduce", "pointwise", g, stride=2) * (t["pointwise"] > 0)
    g = layer("pointwise", "depthwise", g) * (t["depthwise"] > 0)
    g = layer("depthwise", "stem", g) * (t["stem"] > 0)
    layer("stem", "image", g)
    return {name: np.rint(v / GRADIENT_STEP) * GRADIENT_STEP for name, v in gradients.items()}


def train(digits: Digits, epochs: int = EPOCHS) -> Parameters:
    """Minimize the cross entropy by Adam with decoupled weight decay, from a fixed seed.

    Each time an image is used it is disturbed anew, see `disturbed`.
    """
    rng = np.random.default_rng(SEED)
    parameters: Parameters = {}
    for name, shape in KERNELS.items():
        parameters[name] = rng.normal(0.0, np.sqrt(2.0 / np.prod(shape[1:])), shape)
        parameters[name + "_bias"] = np.zeros(shape[0])
    mean = {name: np.zeros_like(value) for name, value in parameters.items()}
    square = {name: np.zeros_like(value) for name, value in parameters.items()}
    steps = epochs * (len(digits.train_images) // BATCH)
    step = 0
    for _ in range(epochs):
        order = rng.permutation(len(digits.train_images))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            batch = order[start : start + BATCH]
            images = disturbed(digits.train_images[batch], rng)
            tensors = forward(parameters, images)
            gradients = backward(parameters, tensors, digits.train_labels[batch])
            step += 1
            rate = LEARNING_RATE * (1.0 - step / steps)
            for name, g in gradients.items():
                mean[name] += 0.1 * (g - mean[name])
                square[name] += 0.001 * (g * g - square[name])
                update = (mean[name] / (1.0 - 0.9**step)) / (
                    np.sqrt(square[name] / (1.0 - 0.999**step)) + 1e-8
                )
                if not name.endswith("_bias"):
                    update += WEIGHT_DECAY * parameters[name]
                parameters[name] -= rate * update
    return parameters


def disturbed(images: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Add noise to the images and move half of them by at most one pixel, zeros coming in."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    offsets = rng.integers(0, 3, (len(images), 2))
    offsets[rng.random(len(images)) < 0.5] = 1
    moved = [p[y : y + 8, x : x + 8] for p, (y, x) in zip(padded, offsets, strict=True)]
    return np.stack(moved) + rng.normal(0.0, NOISE, images.shape)


def float_accuracy(parameters: Parameters, digits: Digits) -> float:
    """Share of the held-out images that the float network tells right."""
    guesses = forward(parameters, digits.test_images)["dense"].argmax(axis=1)
    return float(np.mean(guesses == digits.test_labels))


# -- INT8 ------------------------------------------------------------------------------------------


def quantize_network(parameters: Parameters, images: FloatArray) -> Network:
    """Quantize the float network after training, the ranges of its tensors taken from `images`.

    Weights: int8 in [-127, 127], one scale per output channel. Activations: int8, one scale and
    zero point per tensor. Bias: integers of input scale * weight scale. Scales are float32 numbers
    and results are rounded as in TensorFlow Lite.
    """
    calibration = forward(parameters, images)
    for name in ("pool", "flatten"):  # these keep the codes' meaning
        calibration[name] = calibration["add"]
    tensors = []
    for name, values in forward(parameters, images[:1]).items():
        scale, zero_point = activation_quantization(calibration[name])
        tensors.append(Tensor(name, values.shape, "int8", scale, zero_point))
    by_name = {tensor.name: tensor for tensor in tensors}
    index = {tensor.name: i for i, tensor in enumerate(tensors)}

    def ends(name: str, *sources: str) -> dict[str, Any]:
        """Name, tensors and output clamp of a layer; ReLU is the clamp at the zero point."""
        output = by_name[name]
        linear = name in ("block_2", "dense")
        low, high = activation_range("none" if linear else "relu", "int8", *quantization(output))
        return {
            "name": name,
            "inputs": tuple(index[source] for source in sources),
            "outputs": (index[name],),
            "activation_min": low,
            "activation_max": high,
        }

    def conv(name: str, source: str, stride: int = 1) -> Conv2D:
        kernel = parameters[name]
        (top, bottom), (left, right) = (same_padding(size, stride) for size in kernel.shape[1:3])
        channels = by_name[source].shape[3]
        depthwise = is_depthwise(calibration[source], kernel)
        return (DepthwiseConv2D if depthwise else Conv2D)(
            **ends(name, source),
            **weighted(name, source),
            stride=(stride, stride),
            padding=Padding(top, bottom, left, right),
            groups=channels if depthwise else 1,
        )

    def weighted(name: str, source: str) -> dict[str, Any]:
        return quantized_weights(
            parameters[name], parameters[name + "_bias"], by_name[source], by_name[name]
        )

    skip, block, total = by_name["reduce"], by_name["block_2"], by_name["add"]
    skip_scale, block_scale, total_scale = (quantization(t)[0] for t in (skip, block, total))
    rule = add_parameters(skip_scale, block_scale, total_scale, "int8")
    layers: tuple[Layer, ...] = (
        conv("stem", "image"),
        conv("depthwise", "stem"),
        conv("pointwise", "depthwise"),
        conv("reduce", "pointwise", stride=2),
        conv("block_1", "reduce"),
        conv("block_2", "block_1"),
        Add(
            **ends("add", "reduce", "block_2"),
            input_zero_points=(skip.zero_point, block.zero_point),
            output_zero_point=total.zero_point,
            left_shift=rule.left_shift,
            input_requantizations=rule.input_requantizations,
            output_requantization=rule.output_requantization,
        ),
        AveragePool2D(**ends("pool", "add"), kernel=(2, 2), stride=(2, 2), padding=Padding()),
        Reshape("flatten", (index["pool"],), (index["flatten"],)),
        FullyConnected(**ends("dense", "flatten"), **weighted("dense", "flatten")),
    )
    return Network(
        name="digits",
        tensors=tuple(tensors),
        layers=layers,
        inputs=(index["image"],),
        outputs=(index["dense"],),
        source="scripts/train_digits.py",
    )


def activation_quantization(values: FloatArray) -> tuple[float, int]:
    """Scale (a float32 number) and zero point that map the range of `values` and 0 to int8."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    scale = float(np.float32((high - low) / 255.0))
    return scale, int(np.rint(-128.0 - low / scale))


def quantization(tensor: Tensor) -> tuple[float, int]:
    """Scale and zero point of a tensor that has them."""
    assert tensor.scale is not None  # for the type checker; every tensor here has a scale
    return tensor.scale, tensor.zero_point


def quantized_weights(
    weights: FloatArray, bias: FloatArray, source: Tensor, output: Tensor
) -> dict[str, Any]:
    """Quantize the weights and bias of a layer: what a `WeightedLayer` says of them."""
    (input_scale, input_zero_point), (output_scale, output_zero_point) = (
        quantization(tensor) for tensor in (source, output)
    )
    largest = np.abs(weights).reshape(len(weights), -1).max(axis=1)
    scales = (largest / 127.0).astype(np.float32).astype(np.float64)
    per_channel = scales.reshape(-1, *(1,) * (weights.ndim - 1))
    return {
        "weights": np.clip(np.rint(weights / per_channel), -127, 127).astype(np.int8),
        "weight_bits": 8,
        "weight_zero_point": 0,
        "bias": np.rint(bias / (input_scale * scales)).astype(np.int64),
        "input_zero_point": input_zero_point,
        "output_zero_point": output_zero_point,
        "requantization": convolution_requantization(input_scale, scales, output_scale),
    }


def image_codes(network: Network, images: FloatArray) -> NDArray[np.int8]:
    """Pixel values 0 to 16 as the codes that the network takes."""
    scale, zero_point = quantization(network.tensors[network.inputs[0]])
    codes = np.rint(images / 16.0 / scale) + zero_point
    clipped: FloatArray = np.clip(codes, -128, 127)
    return clipped.astype(np.int8)


def int8_accuracy(network: Network, codes: NDArray[np.int8], labels: NDArray[np.int64]) -> float:
    """Share of the images that the golden model of the INT8 network tells right."""
    (logits,) = run(network, [codes]).outputs
    return float(np.mean(logits.argmax(axis=1) == labels))


def main(folder: Path = FOLDER) -> None:
    """Train, quantize, measure, write."""
    digits = load_digits()
    parameters = train(digits)
    network = quantize_network(parameters, digits.train_images)
    codes = image_codes(network, digits.test_images)
    print(f"float accuracy: {float_accuracy(parameters, digits):.1%} of {len(codes)} images")
    print(f"INT8 accuracy:  {int8_accuracy(network, codes, digits.test_labels):.1%}")
    folder.mkdir(parents=True, exist_ok=True)
    save_network(network, folder / "digits.npz")
    labels = digits.test_labels.astype(np.uint8)
    save_arrays({"images": codes, "labels": labels}, folder / "digits_test.npz")
    print(f"written: {folder / 'digits.npz'}, {folder / 'digits_test.npz'}")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:2]))
