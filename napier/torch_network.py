"""A `FloatNetwork` that PyTorch can differentiate, and back.

Tensors keep the layouts of `golden.float_network` (NHWC); only convolutions and pools see them
permuted. Weights and activations can be put through a function on the way, which is where
quantizers come in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from golden.float_network import (
    FloatActivation,
    FloatAdd,
    FloatConcat,
    FloatConv2D,
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
    FloatWeighted,
)
from golden.float_run import run_layer
from golden.multipliers import Activation
from golden.network import Padding

Hook = Callable[[int, torch.Tensor], torch.Tensor]
"""From the index of a layer or tensor and its values to the values that are used instead."""


def unchanged(index: int, values: torch.Tensor) -> torch.Tensor:
    """Leave values as they are: the hook of a float network."""
    return values


class TorchNetwork:
    """The network's weights and biases as PyTorch tensors, and its computation.

    Parameters
    ----------
    network : FloatNetwork

    Attributes
    ----------
    weights, biases : dict of int to float32 tensor
        Of the layers that multiply, by their index in `FloatNetwork.layers`; they collect
        gradients.
    """

    def __init__(self, network: FloatNetwork) -> None:
        self.network = network
        self.weights: dict[int, torch.Tensor] = {}
        self.biases: dict[int, torch.Tensor] = {}
        for index, layer in enumerate(network.layers):
            if isinstance(layer, FloatWeighted):
                self.weights[index] = _parameter(layer.weights)
                self.biases[index] = _parameter(layer.bias)

    def __call__(
        self,
        inputs: Sequence[torch.Tensor],
        *,
        weights: Hook = unchanged,
        sums: Hook = unchanged,
        tensors: Hook = unchanged,
        keep: Sequence[int] | None = None,
    ) -> list[torch.Tensor]:
        """Compute a batch.

        Parameters
        ----------
        inputs : sequence of float32 tensor
            One for each network input, batch first.
        weights : Hook
            Applied to the weights of layer i.
        sums : Hook
            Applied to what layer i sums, bias included, before its activation function; channels
            are last.
        tensors : Hook
            Applied to activation tensor i, network inputs included, before anything reads it.
        keep : sequence of int or None
            Indices of the tensors to return; None returns the network's outputs.

        Returns
        -------
        list of float32 tensor
        """
        values = {
            index: tensors(index, value)
            for index, value in zip(self.network.inputs, inputs, strict=True)
        }
        for constant in self.network.constants:
            stored = torch.from_numpy(constant.values)
            values[constant.tensor] = tensors(constant.tensor, stored)
        for index, layer in enumerate(self.network.layers):
            (target,) = layer.outputs
            arguments = [values[source] for source in layer.inputs]
            shape = self.network.tensors[target].shape
            if isinstance(layer, FloatWeighted):
                kernel = weights(index, self.weights[index])
                summed = _weighted(layer, arguments[0], kernel, self.biases[index], shape)
                result = _activated(sums(index, summed), layer.activation)
            else:
                result = _PLAIN[type(layer)](layer, arguments, shape)
            values[target] = tensors(target, result)
        return [values[index] for index in (self.network.outputs if keep is None else keep)]

    def to_float_network(self) -> FloatNetwork:
        """Copy the weights and biases as they are now into a `FloatNetwork`."""
        layers = [
            replace(layer, weights=_array(self.weights[index]), bias=_array(self.biases[index]))
            if isinstance(layer, FloatWeighted)
            else layer
            for index, layer in enumerate(self.network.layers)
        ]
        return replace(self.network, layers=tuple(layers))


def _parameter(values: NDArray[Any]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, requires_grad=True)


def _array(values: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = values.detach().numpy().copy()
    return array


# Layers -------------------------------------------------------------------------------------------


Shape = tuple[int, ...]


def _weighted(
    layer: FloatWeighted,
    x: torch.Tensor,
    weights: torch.Tensor,
    bias: torch.Tensor,
    shape: Shape,
) -> torch.Tensor:
    if isinstance(layer, FloatConv2D):
        return functional.conv2d(
            _channels_first(_padded(x, layer.padding, 0.0)),
            weights.permute(0, 3, 1, 2),
            bias,
            stride=layer.stride,
            dilation=layer.dilation,
            groups=layer.groups,
        ).permute(0, 2, 3, 1)
    rows = functional.linear(x.reshape(-1, weights.shape[1]), weights, bias)
    return rows.reshape(-1, *shape[1:])


def _activated(x: torch.Tensor, activation: Activation) -> torch.Tensor:
    if activation == "relu":
        return functional.relu(x)
    if activation == "relu6":
        return torch.clamp(x, 0.0, 6.0)
    if activation == "relu_n1_to_1":
        return torch.clamp(x, -1.0, 1.0)
    return x


def _padded(x: torch.Tensor, padding: Padding, value: float) -> torch.Tensor:
    if padding == Padding():
        return x
    sides = (0, 0, padding.left, padding.right, padding.top, padding.bottom)
    return functional.pad(x, sides, value=value)


def _channels_first(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 3, 1, 2)


def _pool(layer: FloatPool2D, inputs: list[torch.Tensor], shape: Shape) -> torch.Tensor:
    """Pool; an average counts the taps inside the image, which pooled ones tell."""
    (x,) = inputs
    if layer.kind == "max":
        image = _channels_first(_padded(x, layer.padding, float("-inf")))
        result = functional.max_pool2d(image, layer.kernel, layer.stride)
    else:
        image = _channels_first(_padded(x, layer.padding, 0.0))
        result = functional.avg_pool2d(image, layer.kernel, layer.stride)
        if layer.padding != Padding():
            inside = _channels_first(_padded(torch.ones_like(x[:1, :, :, :1]), layer.padding, 0.0))
            result = result / functional.avg_pool2d(inside, layer.kernel, layer.stride)
    return _activated(result.permute(0, 2, 3, 1), layer.activation)


def _mean(layer: FloatMean, inputs: list[torch.Tensor], shape: Shape) -> torch.Tensor:
    return inputs[0].mean(dim=layer.axes, keepdim=layer.keep_dims)


def _add(layer: FloatAdd, inputs: list[torch.Tensor], shape: Shape) -> torch.Tensor:
    return _activated(inputs[0] + inputs[1], layer.activation)


def _mul(layer: FloatMul, inputs: list[torch.Tensor], shape: Shape) -> torch.Tensor:
    return _activated(inputs[0] * inputs[1], layer.activation)


def _concat(layer: FloatConcat, inputs: list[torch.Tensor], shape: Shape) -> torch.Tensor:
    samples = max(len(x) for x in inputs)  # a constant has one for all
    whole = [x.expand(samples, *x.shape[1:]) for x in inputs]
    return torch.cat(whole, dim=layer.axis)


def _pad(layer: FloatPad, inputs: list[torch.Tensor], shape: Shape) -> torch.Tensor:
    sides = [side for pair in reversed(layer.paddings) for side in pair]
    return functional.pad(inputs[0], sides)


def _reshape(layer: FloatReshape, inputs: list[torch.Tensor], shape: Shape) -> torch.Tensor:
    return inputs[0].reshape(len(inputs[0]), *shape[1:])


def _activation(layer: FloatActivation, inputs: list[torch.Tensor], shape: Shape) -> torch.Tensor:
    return _activated(inputs[0], layer.activation)


def _softmax(layer: FloatSoftmax, inputs: list[torch.Tensor], shape: Shape) -> torch.Tensor:
    return functional.softmax(layer.beta * inputs[0], dim=-1)


def _resize(layer: FloatResize, inputs: list[torch.Tensor], shape: Shape) -> torch.Tensor:
    """Take the pixels that the NumPy statement takes from an image of the pixels' numbers."""
    (x,) = inputs
    N, H, W, C = x.shape
    numbers = np.arange(H * W, dtype=np.float32).reshape(1, H, W, 1)
    taken = run_layer(layer, [numbers], FloatTensor("numbers", (1, *shape[1:3], 1)))
    places = torch.from_numpy(taken.reshape(-1).astype(np.int64))
    return x.reshape(N, H * W, C)[:, places].reshape(N, *shape[1:])


_PLAIN: dict[type[FloatLayer], Callable[[Any, list[torch.Tensor], Shape], torch.Tensor]] = {
    FloatPool2D: _pool,
    FloatMean: _mean,
    FloatAdd: _add,
    FloatMul: _mul,
    FloatConcat: _concat,
    FloatPad: _pad,
    FloatReshape: _reshape,
    FloatActivation: _activation,
    FloatSoftmax: _softmax,
    FloatResize: _resize,
}
