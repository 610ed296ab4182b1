"""From the layers of a network to what the accelerator does for them: steps (rules V4, V5).

A *step* is a layer, or a part of one, that one unit does: the PE array, the vector unit, or the
host. A concatenation is one step for each input; a reshape whose words stay the same is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal, NamedTuple

import numpy as np

from golden.errors import HardwareError
from golden.network import (
    Add,
    AveragePool2D,
    Clamp,
    Concat,
    Conv2D,
    FullyConnected,
    Layer,
    MaxPool2D,
    Mean,
    Mul,
    Network,
    Pad,
    Padding,
    Pool2D,
    Quantize,
    Requantization,
    Reshape,
    Rounding,
    Tensor,
    WeightedLayer,
)
from simulator.hardware import TAP_BITS, Hardware, check_layer_fits
from simulator.program import Geometry, layer_geometry

Unit = Literal["array", "vector", "host"]
Mode = Literal["array", "sum", "max", "add", "mul"]

CODE_RANGES = {
    "int4": (-8, 7),
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-32768, 32767),
}
"""Smallest and largest code of the element types that the units work on."""

MAX_COORDINATE = (1 << 15) - 1
"""Largest coordinate that a descriptor can express."""

MAX_STRIDE = 255
"""Largest stride that a descriptor can express."""


class Layout(NamedTuple):
    """How a tensor lies in memory (docs/programming.md, section 1); H = 1 where it is no image."""

    height: int
    width: int
    channels: int

    @property
    def pixels(self) -> int:
        """Pixels of an image."""
        return self.height * self.width

    def planes(self, feed: int) -> int:
        """Planes of words of F channels."""
        return -(-self.channels // feed)

    def words(self, feed: int) -> int:
        """Words of F channels of the whole tensor."""
        return self.pixels * self.planes(feed)


@dataclass(frozen=True)
class VectorParameters:
    """What a vector pass needs besides its geometry (rule V2); the same for all channels.

    Parameters
    ----------
    input_zero_point, output_zero_point, minimum, maximum : int
        The first operand's zero point; zero point and clamp of the output.
    multiplier, shift : int
        Of the requantizer.
    rounding : Rounding
        Of the requantizer and of both rescalers.
    second_offset : int
        Input zero point of the first operand minus that of the second.
    left_shift : int
        Bits that the operands of an addition are shifted left before they are rescaled.
    first, second : (multiplier, shift)
        Rescalers of an addition.
    """

    input_zero_point: int
    output_zero_point: int
    minimum: int
    maximum: int
    multiplier: int
    shift: int
    rounding: Rounding
    second_offset: int = 0
    left_shift: int = 0
    first: tuple[int, int] = (0, 0)
    second: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Step:
    """What one unit does in one go.

    Parameters
    ----------
    unit : "array", "vector" or "host"
    mode : Mode or None
        None for the host.
    layer_index : int
        In `Network.layers`.
    name : str
        Of the layer.
    inputs : tuple of int
        Tensors that are read; of an array step one, of add and mul two.
    output : int
        Tensor that is written.
    first_channel : int
        Channel of the output tensor that the step's first channel goes to (concatenation).
    geometry : Geometry or None
        None for the host. A channel tile of a vector step is one word (`cols` is F). Element-wise
        steps (add, mul, clamp, quantize), and dense layers on one vector, see an image of one plane
        whose pixels are the words of the tensor.
    layer : WeightedLayer or None
        What the array computes: the layer, or the convolution with one output pixel that takes the
        place of a dense layer on one vector or on a flattened image.
    vector : VectorParameters or None
        For vector steps.
    input_signed : bool
        Whether input codes are two's complement.
    reason : str
        Why a step of an array with Winograd units is computed directly.
    """

    unit: Unit
    mode: Mode | None
    layer_index: int
    name: str
    inputs: tuple[int, ...]
    output: int
    first_channel: int = 0
    geometry: Geometry | None = None
    layer: WeightedLayer | None = None
    vector: VectorParameters | None = None
    input_signed: bool = True
    reason: str = ""

    @property
    def operands(self) -> int:
        """Tensors that lie in the activation banks at a time."""
        return 2 if self.mode in ("add", "mul") else 1


@dataclass(frozen=True)
class Lowered:
    """Steps of a network in order, and the tensors that lie in memory.

    Parameters
    ----------
    network : Network
    steps : tuple of Step
    storage : dict of int to int
        Every tensor in memory, and the tensor whose bytes it has: itself, or the input of the
        reshapes that made it. A tensor that exists nowhere (flattened on the way into a dense
        layer) is missing.
    """

    network: Network
    steps: tuple[Step, ...]
    storage: dict[int, int]


def layout(shape: tuple[int, ...]) -> Layout:
    """Place a tensor's shape, batch first, in memory."""
    if len(shape) == 4:
        return Layout(*shape[1:])
    return Layout(1, prod(shape[1:-1]), shape[-1] if len(shape) > 1 else 1)


def same_words(first: Layout, second: Layout, feed: int) -> bool:
    """Whether two layouts of the same codes in the same order have the same words in memory."""
    if first.channels == second.channels:
        return first.pixels == second.pixels
    lone, other = (first, second) if first.pixels == 1 else (second, first)
    return lone.pixels == 1 and lone.channels % feed == 0 and other.channels == feed


def lower(network: Network, hardware: Hardware) -> Lowered:
    """Divide a network into steps.

    Parameters
    ----------
    network : Network
        Of one inference (batch 1).
    hardware : Hardware

    Raises
    ------
    HardwareError
        A layer with weights that the array cannot hold.
    """
    work = _Lowering(network, hardware)
    for index, layer in enumerate(network.layers):
        work.add(index, layer)
    return Lowered(network, tuple(work.steps), work.storage)


# -- arithmetic -----------------------------------------------------------------------------------


def average_multiplier(taps: int, largest_sum: int) -> tuple[int, int] | None:
    """Multiplier and shift that divide sums by `taps`, rounding half away from zero (rule V4).

    With s the shift, m = floor(2**(31-s) / n) + 1 is more than 2**(31-s) / n by at most one, so the
    product exceeds the quotient by e = |sum| / 2**(31-s) at most, and by more than nothing: ties go
    away from zero, though rule `single` rounds them up. Other quotients are 1 / (2n) or more from a
    tie, so that e < 1 / (2n) is enough. Sums must fit the 32 bits that the rule reads.

    Parameters
    ----------
    taps : int
    largest_sum : int
        The largest magnitude of a sum.

    Returns
    -------
    (multiplier, shift), or None where these do not divide exactly.
    """
    shift = 1 - (taps - 1).bit_length()  # 2**30 < m < 2**31
    multiplier = (1 << (31 - shift)) // taps + 1
    exact = 2 * taps * largest_sum < 1 << (31 - shift)
    return (multiplier, shift) if exact and largest_sum < 1 << 31 else None


IDENTITY: tuple[int, int, Rounding] = (1 << 30, 1, "single")
"""A requantizer's multiplier, shift and rounding that change nothing."""


def _scalar(rule: Requantization) -> tuple[int, int, Rounding] | None:
    """Return the rule for all channels, or None where channels have their own."""
    if rule.multiplier.size != 1 or rule.shift.size != 1:
        return None
    return int(rule.multiplier.item()), int(rule.shift.item()), rule.rounding


# -- layers ---------------------------------------------------------------------------------------


class _Lowering:
    """The steps so far."""

    def __init__(self, network: Network, hardware: Hardware) -> None:
        self.network = network
        self.hardware = hardware
        self.feed = hardware.array.feed
        self.steps: list[Step] = []
        constants = [constant.tensor for constant in network.constants]
        self.storage = {tensor: tensor for tensor in (*network.inputs, *constants)}
        self.flattened: dict[int, int] = {}  # tensors that exist nowhere, and what they flatten

    def add(self, index: int, layer: Layer) -> None:
        if isinstance(layer, Reshape) and self._reshape(layer):
            return
        (output,) = layer.outputs
        self.storage[output] = output
        blank = Step("host", None, index, layer.name, layer.inputs, output)
        steps = None
        if isinstance(layer, WeightedLayer):
            steps = self._weighted(blank, layer)
        elif type(layer) in _VECTOR_LAYERS and self._codes(*layer.inputs, output):
            steps = _VECTOR_LAYERS[type(layer)](self, blank, layer)
        self.steps += steps or [blank]

    def tensor(self, index: int) -> Tensor:
        return self.network.tensors[index]

    def layout(self, index: int) -> Layout:
        return layout(self.tensor(index).shape)

    def _codes(self, *tensors: int) -> bool:
        """Whether the units can work on these tensors' codes, all signed or all unsigned inputs."""
        kinds = [self.tensor(i).dtype for i in tensors]
        wide = self.hardware.array.activation_bits == 16
        signs = {kind == "uint8" for kind in kinds[:-1]}
        return len(signs) == 1 and all(
            kind in CODE_RANGES and (wide or kind != "int16") for kind in kinds
        )

    def _reshape(self, layer: Reshape) -> bool:
        """Whether a reshape costs nothing: the words stay, or only dense layers read them."""
        (source,), (output,) = layer.inputs, layer.outputs
        before, after = self.layout(source), self.layout(output)
        if same_words(before, after, self.feed):
            self.storage[output] = self.storage[source]
            return True
        readers = [reader for reader in self.network.layers if output in reader.inputs]
        if output not in self.network.outputs and all(
            isinstance(reader, FullyConnected) and _flattens(reader, before) for reader in readers
        ):
            self.flattened[output] = source
            return True
        return False

    # -- the array --------------------------------------------------------------------------------

    def _weighted(self, blank: Step, layer: WeightedLayer) -> list[Step] | None:
        source = self.flattened.get(layer.inputs[0], layer.inputs[0])
        given = self.tensor(source)
        check_layer_fits(layer, self.hardware, given.dtype)
        shape = (1, *given.shape[1:])
        if isinstance(layer, FullyConnected):
            image = self.layout(source)
            features = layer.weights.shape[1]
            if features != image.channels and not _flattens(layer, image):
                return None
            if image.pixels == 1:
                image = _word_image(image, self.feed)
            if features != image.channels:
                layer = _as_convolution(layer, image)
                shape = (1, *image)
        geometry = layer_geometry(layer, shape, self.hardware)
        if not expressible(geometry):
            raise HardwareError(
                f'layer "{layer.name}" has an image of {geometry.height} x {geometry.width} pixels'
                f" and the stride {geometry.stride}, but a descriptor expresses coordinates up to"
                f" {MAX_COORDINATE} and strides up to {MAX_STRIDE}; use a smaller image"
            )
        step = replace(
            blank,
            unit="array",
            mode="array",
            inputs=(source,),
            geometry=geometry,
            layer=layer,
            input_signed=given.dtype != "uint8",
        )
        return [step]

    # -- the vector unit --------------------------------------------------------------------------

    def _vector(
        self, blank: Step, mode: Mode, geometry: Geometry, parameters: VectorParameters
    ) -> Step:
        return replace(
            blank,
            unit="vector",
            mode=mode,
            geometry=geometry,
            vector=parameters,
            input_signed=self.tensor(blank.inputs[0]).dtype != "uint8",
        )

    def _window(
        self,
        source: Layout,
        target: Layout,
        kernel: tuple[int, int] = (1, 1),
        stride: tuple[int, int] = (1, 1),
        padding: Padding | None = None,
    ) -> Geometry | None:
        """Windows over the planes of an image; None where no descriptor can express them."""
        padding = padding or Padding()
        # A stride that is never taken would only spread the image over phase planes.
        stride = (
            stride[0] if target.height > 1 else 1,
            stride[1] if target.width > 1 else 1,
        )
        if max(kernel) > 1 << TAP_BITS:
            return None
        geometry = Geometry(
            rows=self.hardware.array.rows,
            cols=self.feed,
            feed=self.feed,
            height=source.height,
            width=source.width,
            in_channels=source.channels,
            out_height=target.height,
            out_width=target.width,
            out_channels=source.channels,
            kernel=kernel,
            stride=stride,
            dilation=(1, 1),
            pad_top=padding.top,
            pad_left=padding.left,
            groups=1,
        )
        return geometry if expressible(geometry) else None

    def _elementwise(self, blank: Step) -> Geometry | None:
        """One plane whose pixels are all words of the tensors; None where shapes differ."""
        shapes = {self.tensor(i).shape[1:] for i in (*blank.inputs, blank.output)}
        if len(shapes) != 1:
            return None
        tensor = self.layout(blank.output)
        rows = tensor.planes(self.feed) * tensor.height
        # Rows are joined until all banks take part in the transfer of one.
        wanted = -(-self.hardware.array.rows // tensor.width)
        joined = next((n for n in range(wanted, rows) if rows % n == 0), rows)
        image = Layout(rows // joined, tensor.width * joined, self.feed)
        return self._window(image, image)

    def _pool(self, blank: Step, layer: Pool2D) -> list[Step] | None:
        source, target = self.layout(blank.inputs[0]), self.layout(blank.output)
        geometry = self._window(source, target, layer.kernel, layer.stride, layer.padding)
        counts = _window_taps(layer, source, target)
        if geometry is None or 0 in counts:
            return None
        multiplier, shift, rounding = IDENTITY
        if isinstance(layer, AveragePool2D):
            if len(counts) != 1:
                return None
            (taps,) = counts
            low, high = CODE_RANGES[self.tensor(blank.inputs[0]).dtype]
            division = average_multiplier(taps, taps * max(-low, high))
            if division is None:
                return None
            multiplier, shift = division
        parameters = VectorParameters(
            input_zero_point=0,
            output_zero_point=0,
            minimum=layer.activation_min,
            maximum=layer.activation_max,
            multiplier=multiplier,
            shift=shift,
            rounding=rounding,
        )
        mode: Mode = "max" if isinstance(layer, MaxPool2D) else "sum"
        return [self._vector(blank, mode, geometry, parameters)]

    def _mean(self, blank: Step, layer: Mean) -> list[Step] | None:
        source = self.layout(blank.inputs[0])
        rule = _scalar(layer.requantization)
        image_axes = tuple(range(1, len(self.tensor(blank.inputs[0]).shape) - 1))
        if rule is None or tuple(sorted(layer.axes)) != image_axes:
            return None
        kernel = (source.height, source.width)
        geometry = self._window(source, Layout(1, 1, source.channels), kernel)
        if geometry is None:
            return None
        return [self._vector(blank, "sum", geometry, _rescaling(layer, rule))]

    def _clamp(self, blank: Step, layer: Clamp) -> list[Step] | None:
        geometry, rule = self._elementwise(blank), _scalar(layer.requantization)
        if geometry is None or rule is None:
            return None
        return [self._vector(blank, "sum", geometry, _rescaling(layer, rule))]

    def _quantize(self, blank: Step, layer: Quantize) -> list[Step] | None:
        geometry = self._elementwise(blank)
        rule = None if layer.requantization is None else _scalar(layer.requantization)
        if geometry is None or rule is None:
            return None
        low, high = CODE_RANGES[self.tensor(blank.output).dtype]
        parameters = VectorParameters(
            layer.input_zero_point, layer.output_zero_point, low, high, *rule
        )
        return [self._vector(blank, "sum", geometry, parameters)]

    def _mul(self, blank: Step, layer: Mul) -> list[Step] | None:
        geometry, rule = self._elementwise(blank), _scalar(layer.requantization)
        if geometry is None or rule is None:
            return None
        first, second = layer.input_zero_points
        parameters = VectorParameters(
            first,
            layer.output_zero_point,
            layer.activation_min,
            layer.activation_max,
            *rule,
            second_offset=first - second,
        )
        return [self._vector(blank, "mul", geometry, parameters)]

    def _add(self, blank: Step, layer: Add) -> list[Step] | None:
        geometry = self._elementwise(blank)
        rules = (*layer.input_requantizations, layer.output_requantization)
        scalars = [rule for rule in map(_scalar, rules) if rule is not None]
        roundings = {rounding for _, _, rounding in scalars}
        if geometry is None or len(scalars) != len(rules) or len(roundings) != 1:
            return None
        first, second = layer.input_zero_points
        parameters = VectorParameters(
            first,
            layer.output_zero_point,
            layer.activation_min,
            layer.activation_max,
            *scalars[2],
            second_offset=first - second,
            left_shift=layer.left_shift,
            first=scalars[0][:2],
            second=scalars[1][:2],
        )
        return [self._vector(blank, "add", geometry, parameters)]

    def _concat(self, blank: Step, layer: Concat) -> list[Step] | None:
        rank = len(self.tensor(blank.output).shape)
        if layer.axis != rank - 1 or layer.rescale is not None:
            return None
        low, high = CODE_RANGES[self.tensor(blank.output).dtype]
        steps = []
        first_channel = 0
        for source in blank.inputs:
            image = self.layout(source)
            geometry = self._window(image, image)
            if geometry is None:
                return None
            part = replace(blank, inputs=(source,), first_channel=first_channel)
            parameters = VectorParameters(0, 0, low, high, *IDENTITY)
            steps.append(self._vector(part, "sum", geometry, parameters))
            first_channel += image.channels
        return steps

    def _pad(self, blank: Step, layer: Pad) -> list[Step] | None:
        source, target = self.layout(blank.inputs[0]), self.layout(blank.output)
        rank = len(layer.paddings)
        if rank not in (3, 4) or layer.paddings[-1] != (0, 0):
            return None
        vertical = layer.paddings[1] if rank == 4 else (0, 0)
        padding = Padding(*vertical, *layer.paddings[-2])
        geometry = self._window(source, target, padding=padding)
        if geometry is None:
            return None
        # Padded taps add nothing, so that with zero points of `value` they give `value`.
        low, high = CODE_RANGES[self.tensor(blank.output).dtype]
        parameters = VectorParameters(layer.value, layer.value, low, high, *IDENTITY)
        return [self._vector(blank, "sum", geometry, parameters)]


_VECTOR_LAYERS: dict[type[Layer], Callable[[_Lowering, Step, Any], list[Step] | None]] = {
    AveragePool2D: _Lowering._pool,
    MaxPool2D: _Lowering._pool,
    Mean: _Lowering._mean,
    Add: _Lowering._add,
    Mul: _Lowering._mul,
    Concat: _Lowering._concat,
    Pad: _Lowering._pad,
    Clamp: _Lowering._clamp,
    Quantize: _Lowering._quantize,
}


def expressible(geometry: Geometry) -> bool:
    """Whether the strides of a geometry and the coordinates of its outputs fit a descriptor."""
    height = (geometry.out_height + geometry.rows) * geometry.stride[0]
    width = (geometry.pitch + geometry.rows) * geometry.stride[1]
    return max(height, width) <= MAX_COORDINATE and max(geometry.stride) <= MAX_STRIDE


def _largest_divisor(number: int, limit: int) -> int:
    return max(n for n in range(1, min(number, limit) + 1) if number % n == 0)


def _flattens(layer: FullyConnected, image: Layout) -> bool:
    """Whether a dense layer reads whole images and is a convolution that a feed word can do."""
    features = layer.weights.shape[1]
    return features == prod(image) and max(image.height, image.width) <= 1 << TAP_BITS


def _word_image(vector: Layout, feed: int) -> Layout:
    """See a vector as an image of its words, which lie one after the other: F channels a pixel.

    It is spread over all banks then. The vector itself where no feed word reaches so far.
    """
    words, reach = vector.planes(feed), 1 << TAP_BITS
    width = _largest_divisor(words, reach)
    return Layout(words // width, width, feed) if words // width <= reach else vector


def _as_convolution(layer: FullyConnected, image: Layout) -> Conv2D:
    """Write a dense layer on flattened images as a convolution with one output pixel.

    The features are in the order (y, x, channel), which is the order of its taps. Lanes beyond the
    last feature have weights that are zero.
    """
    weights = np.asarray(layer.weights)
    unused = prod(image) - weights.shape[1]
    weights = np.pad(weights, ((0, 0), (0, unused)), constant_values=layer.weight_zero_point)
    return Conv2D(
        name=layer.name,
        inputs=layer.inputs,
        outputs=layer.outputs,
        weights=weights.reshape(-1, *image),
        weight_bits=layer.weight_bits,
        weight_zero_point=layer.weight_zero_point,
        bias=layer.bias,
        input_zero_point=layer.input_zero_point,
        output_zero_point=layer.output_zero_point,
        requantization=layer.requantization,
        activation_min=layer.activation_min,
        activation_max=layer.activation_max,
    )


def _rescaling(layer: Mean | Clamp, rule: tuple[int, int, Rounding]) -> VectorParameters:
    return VectorParameters(
        layer.input_zero_point,
        layer.output_zero_point,
        layer.activation_min,
        layer.activation_max,
        *rule,
    )


def _window_taps(layer: Pool2D, source: Layout, target: Layout) -> set[int]:
    """Numbers of taps inside the image that windows of a pool have."""
    along = []
    for axis, before in enumerate((layer.padding.top, layer.padding.left)):
        start = np.arange(target[axis]) * layer.stride[axis] - before
        stop = np.minimum(start + layer.kernel[axis], source[axis])
        along.append({int(n) for n in np.maximum(stop - np.maximum(start, 0), 0)})
    return {y * x for y in along[0] for x in along[1]}
