"""The network that ships, in floating point again."""

from functools import cache

import numpy as np

from golden.float_network import FloatNetwork
from golden.quantization.activations import QuantizationParameters
from golden.quantization.from_integer import dequantize
from napier.loading import load_model, shipped_digits


@cache
def digits() -> tuple[FloatNetwork, dict[int, QuantizationParameters], np.ndarray, np.ndarray]:
    """Float network, scales of its tensors, real images and labels of the shipped test set."""
    given = dequantize(load_model(None))
    images, labels = shipped_digits()
    return given.network, given.parameters, given.parameters[0].reals(images), labels
