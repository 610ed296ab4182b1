"""Whether a network holds together: indices, order, shapes, element types, ranges.

`check_network` re-derives the output shape of every layer from its inputs and fields and demands
that the network says the same. It computes no value. Importers and `golden.files` call it at the
border, so that everything behind it may take a network as right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import isfinite, prod

import numpy as np

from golden.errors import ModelError
from golden.formats import IntFormat
from golden.network import (
    DTYPES,
    OP_NAMES,
    Add,
    AveragePool2D,
    Clamp,
    Concat,
    Conv2D,
    DepthwiseConv2D,
    Dequantize,
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
    ResizeNearest,
    Softmax,
    Tensor,
    WeightedLayer,
)

Shape = tuple[int, ...]

INT32 = IntFormat(32)

INTEGER_FORMATS: dict[str, IntFormat] = {
    "int4": IntFormat(4),
    "int8": IntFormat(8),
    "uint8": IntFormat(8, signed=False),
    "int16": IntFormat(16),
    "int32": IntFormat(32),
    "int64": IntFormat(64),
}
"""Range of the codes of every integer element type."""

WEIGHT_BITS = (2, 3, 4, 5, 6, 7, 8, 16)

SHIFT_RANGES: dict[str, tuple[int, int]] = {
    "double": (-31, 30),
    "single": (-31, 30),
    "multiplier16": (-31, 14),
    "shift_half_up": (-62, 0),
    "shift_half_even": (-62, 0),
}
"""Shifts for which each rounding rule is defined (its formula shifts by no negative amount)."""

MAX_SIZE = 2**31 - 1  # of one dimension


def check_network(network: Network) -> None:
    """Refuse a network whose parts do not fit each other.

    Checked are: tensor indices, names of layers, the order of execution, the number of inputs and
    outputs of each layer, element types, output shapes, constants against their tensors, weight
    codes against `weight_bits`, lengths and ranges of requantizations, activation clamps, and zero
    points against those of the tensors.

    Parameters
    ----------
    network : Network

    Raises
    ------
    ModelError
        One sentence: the place, the rule, the value found, the way out.
    """
    _require(bool(network.tensors), "network.tensors", "must hold at least one tensor", "none")
    _require(bool(network.layers), "network.layers", "must hold at least one layer", "none")
    tensor_names: set[str] = set()
    for index, tensor in enumerate(network.tensors):
        place = f"tensors[{index}] {tensor.name!r}"
        _require(tensor.name not in tensor_names, f"{place} name", "must be unique", "used before")
        tensor_names.add(tensor.name)
        _check_tensor(place, tensor)
    _check_constants(network)
    _check_order(network)
    for index, layer in enumerate(network.layers):
        place = f"layers[{index}] {layer.name!r} ({layer.op})"
        inputs = [network.tensors[i] for i in layer.inputs]
        outputs = [network.tensors[i] for i in layer.outputs]
        _CHECKS[type(layer)](place, layer, inputs, outputs[0])


# -- the network as a whole -----------------------------------------------------------------------


def _check_tensor(place: str, tensor: Tensor) -> None:
    _require(
        tensor.dtype in DTYPES,
        f"{place} dtype",
        f"must be one of {', '.join(DTYPES)}",
        tensor.dtype,
    )
    _require(len(tensor.shape) >= 1, f"{place} shape", "must start with the batch", tensor.shape)
    for size in tensor.shape:
        _require_range(f"{place} shape", size, 1, MAX_SIZE)
    if tensor.scale is not None:
        _require_scale(f"{place} scale", tensor.scale)
    fmt = INTEGER_FORMATS.get(tensor.dtype)
    if fmt is None:
        _require(tensor.zero_point == 0, f"{place} zero_point", "must be 0", tensor.zero_point)
    else:
        _require_range(f"{place} zero_point", tensor.zero_point, fmt.min, fmt.max)


def _check_constants(network: Network) -> None:
    """Codes of the tensor's shape, type and range, the same for every sample."""
    seen: set[int] = set()
    for index, constant in enumerate(network.constants):
        place = f"constants[{index}]"
        _check_indices(f"{place} tensor", (constant.tensor,), len(network.tensors))
        _require(constant.tensor not in seen, f"{place} tensor", "must be unique", constant.tensor)
        seen.add(constant.tensor)
        tensor, codes = network.tensors[constant.tensor], constant.codes
        fmt = _require_integer(place, tensor)
        _require(tensor.shape[0] == 1, f"{place} shape", "must have the batch 1", tensor.shape)
        _require(
            codes.dtype == DTYPES[tensor.dtype] and codes.shape == tensor.shape,
            f"{place} codes",
            f"must be {DTYPES[tensor.dtype]} of shape {tensor.shape}",
            f"{codes.dtype} of shape {codes.shape}",
        )
        _require_range(f"{place} codes", int(codes.min()), fmt.min, fmt.max)
        _require_range(f"{place} codes", int(codes.max()), fmt.min, fmt.max)


def _check_order(network: Network) -> None:
    """Every layer reads what exists already, and every tensor is written once."""
    count = len(network.tensors)
    constants = {constant.tensor for constant in network.constants}
    for field, indices in (("inputs", network.inputs), ("outputs", network.outputs)):
        _require(bool(indices), f"network.{field}", "must name at least one tensor", "none")
        _check_indices(f"network.{field}", indices, count)
        _require(
            len(set(indices)) == len(indices), f"network.{field}", "must be different", indices
        )
    readable = set(network.inputs)
    _require(
        readable.isdisjoint(constants), "network.inputs", "must not be constants", network.inputs
    )
    readable |= constants
    names: set[str] = set()
    for index, layer in enumerate(network.layers):
        place = f"layers[{index}] {layer.name!r}"
        _require(
            type(layer) in OP_NAMES,
            f"layers[{index}]",
            f"must be one of {', '.join(OP_NAMES.values())}",
            type(layer).__name__,
        )
        _require(layer.name not in names, f"{place} name", "must be unique", "used before")
        names.add(layer.name)
        _check_indices(f"{place} inputs", layer.inputs, count)
        _check_indices(f"{place} outputs", layer.outputs, count)
        _check_counts(place, layer)
        for tensor in layer.inputs:
            _require(
                tensor in readable,
                f"{place} inputs",
                "must be inputs of the network, outputs of earlier layers or constants",
                f"tensor {tensor}",
            )
        _require(
            not constants.issuperset(layer.inputs),
            f"{place} inputs",
            "must have one at least that is no constant",
            f"tensors {layer.inputs}",
        )
        for tensor in layer.outputs:
            _require(
                tensor not in readable,
                f"{place} outputs",
                "must not be written before",
                f"tensor {tensor}",
            )
            readable.add(tensor)
    for tensor in network.outputs:
        _require(
            tensor in readable - constants,
            "network.outputs",
            "must be written by a layer",
            f"tensor {tensor}",
        )


def _check_indices(place: str, indices: Iterable[int], count: int) -> None:
    for index in indices:
        _require_range(place, index, 0, count - 1)


def _check_counts(place: str, layer: Layer) -> None:
    if isinstance(layer, Concat):
        _require(len(layer.inputs) >= 1, f"{place} inputs", "must be at least one", "none")
    else:
        expected = 2 if isinstance(layer, Add | Mul) else 1
        _require(
            len(layer.inputs) == expected,
            f"{place} inputs",
            f"must be {expected} tensors",
            len(layer.inputs),
        )
    _require(len(layer.outputs) == 1, f"{place} outputs", "must be 1 tensor", len(layer.outputs))


# -- one layer ------------------------------------------------------------------------------------


def _check_conv(place: str, layer: Conv2D, inputs: Sequence[Tensor], output: Tensor) -> None:
    (image,) = inputs
    _require_rank(place, image, 4)
    _check_weights(place, layer, rank=4)
    _check_window(place, layer.stride, layer.dilation, layer.padding)
    out_channels, kernel_height, kernel_width, channels_per_group = layer.weights.shape
    batch, height, width, in_channels = image.shape
    _require_range(f"{place} groups", layer.groups, 1, in_channels)
    _require(
        channels_per_group * layer.groups == in_channels,
        f"{place} weights",
        f"must have in_channels / groups = {in_channels} / {layer.groups} input channels",
        channels_per_group,
    )
    _require(
        out_channels % layer.groups == 0,
        f"{place} weights",
        f"must have a multiple of groups={layer.groups} output channels",
        out_channels,
    )
    if isinstance(layer, DepthwiseConv2D):
        _require(
            layer.groups == in_channels, f"{place} groups", f"must be {in_channels}", layer.groups
        )
    kernel = (kernel_height, kernel_width)
    rows, columns = _window_counts(
        place, (height, width), kernel, layer.stride, layer.dilation, layer.padding
    )
    _require_shape(place, output, (batch, rows, columns, out_channels))
    _check_weighted_values(place, layer, image, output)


def _check_fully_connected(
    place: str, layer: FullyConnected, inputs: Sequence[Tensor], output: Tensor
) -> None:
    (source,) = inputs
    _check_weights(place, layer, rank=2)
    out_features, in_features = layer.weights.shape
    elements = prod(source.shape)
    _require(
        elements % in_features == 0,
        f"{place} weights",
        f"must take a divisor of the input's {elements} elements",
        f"{in_features} input features",
    )
    _require(
        output.shape[-1] == out_features
        and prod(output.shape) == elements // in_features * out_features,
        f"{place} output shape",
        f"must be {elements // in_features} rows of {out_features}",
        output.shape,
    )
    _check_weighted_values(place, layer, source, output)


def _check_pool(place: str, layer: Pool2D, inputs: Sequence[Tensor], output: Tensor) -> None:
    (image,) = inputs
    _require_rank(place, image, 4)
    for size in layer.kernel:
        _require_range(f"{place} kernel", size, 1, MAX_SIZE)
    _check_window(place, layer.stride, (1, 1), layer.padding)
    padding = layer.padding
    _require(
        max(padding.top, padding.bottom) < layer.kernel[0]
        and max(padding.left, padding.right) < layer.kernel[1],
        f"{place} padding",
        f"must be smaller than the kernel {layer.kernel}",
        padding,
    )
    batch, height, width, channels = image.shape
    rows, columns = _window_counts(
        place, (height, width), layer.kernel, layer.stride, (1, 1), padding
    )
    _require_shape(place, output, (batch, rows, columns, channels))
    _require_same_dtype(place, image, output)
    _check_activation(place, layer.activation_min, layer.activation_max, output)


def _check_mean(place: str, layer: Mean, inputs: Sequence[Tensor], output: Tensor) -> None:
    (source,) = inputs
    rank = len(source.shape)
    for axis in layer.axes:
        _require_range(f"{place} axes", axis, 1, rank - 1)
    _require(
        len(set(layer.axes)) == len(layer.axes) > 0,
        f"{place} axes",
        "must be at least one, all different",
        layer.axes,
    )
    kept = [
        1 if axis in layer.axes else size
        for axis, size in enumerate(source.shape)
        if layer.keep_dims or axis not in layer.axes
    ]
    _require_shape(place, output, tuple(kept))
    _check_rescaling(place, layer, source, output)


def _check_elementwise(
    place: str, layer: Add | Mul, inputs: Sequence[Tensor], output: Tensor
) -> None:
    for tensor in inputs:  # so that the batch meets nothing but the batch
        _require_rank(place, tensor, len(output.shape))
    first, second = (tensor.shape for tensor in inputs)
    try:
        shape = np.broadcast_shapes(first, second)
    except ValueError:
        raise ModelError(
            f"{place} inputs must have shapes that broadcast, not {first} and {second}; "
            "give one of them size 1 where they differ."
        ) from None
    _require_shape(place, output, shape)
    for tensor, zero_point in zip(inputs, layer.input_zero_points, strict=True):
        _check_zero_point(f"{place} input_zero_points", zero_point, tensor)
    _check_zero_point(f"{place} output_zero_point", layer.output_zero_point, output)
    if isinstance(layer, Add):
        _require_range(f"{place} left_shift", layer.left_shift, 0, 30)
        for requantization in layer.input_requantizations:
            _check_requantization(f"{place} input_requantizations", requantization)
        _check_requantization(f"{place} output_requantization", layer.output_requantization)
    else:
        _check_requantization(f"{place} requantization", layer.requantization)
    _check_activation(place, layer.activation_min, layer.activation_max, output)


def _check_concat(place: str, layer: Concat, inputs: Sequence[Tensor], output: Tensor) -> None:
    rank = len(output.shape)
    axis = layer.axis
    _require_range(f"{place} axis", axis, 1, rank - 1)
    for tensor in inputs:
        _require_rank(place, tensor, rank)
        _require_same_dtype(place, tensor, output)
        size = tensor.shape[axis]
        rest = output.shape[:axis] + (size,) + output.shape[axis + 1 :]
        _require_shape(place, tensor, rest, "input")
    total = sum(tensor.shape[axis] for tensor in inputs)
    _require_shape(place, output, output.shape[:axis] + (total,) + output.shape[axis + 1 :])
    if layer.rescale is not None:
        _require(
            len(layer.rescale) == len(inputs),
            f"{place} rescale",
            f"must have one entry for each of the {len(inputs)} inputs",
            len(layer.rescale),
        )
        for (scale, zero_point), tensor in zip(layer.rescale, inputs, strict=True):
            _require_scale(f"{place} rescale", scale)
            _check_zero_point(f"{place} rescale", zero_point, tensor)


def _check_pad(place: str, layer: Pad, inputs: Sequence[Tensor], output: Tensor) -> None:
    (source,) = inputs
    _require(
        len(layer.paddings) == len(source.shape),
        f"{place} paddings",
        f"must have one pair for each of the {len(source.shape)} axes",
        len(layer.paddings),
    )
    for before, after in layer.paddings:
        _require_range(f"{place} paddings", before, 0, MAX_SIZE)
        _require_range(f"{place} paddings", after, 0, MAX_SIZE)
    _require(
        layer.paddings[0] == (0, 0),
        f"{place} paddings",
        "must be (0, 0) for the batch",
        layer.paddings[0],
    )
    shape = tuple(b + n + a for n, (b, a) in zip(source.shape, layer.paddings, strict=True))
    _require_shape(place, output, shape)
    _require_same_dtype(place, source, output)
    fmt = INTEGER_FORMATS.get(output.dtype, INT32)
    _require_range(f"{place} value", layer.value, fmt.min, fmt.max)


def _check_reshape(place: str, layer: Reshape, inputs: Sequence[Tensor], output: Tensor) -> None:
    (source,) = inputs
    _require(
        output.shape[0] == source.shape[0] and prod(output.shape) == prod(source.shape),
        f"{place} output shape",
        f"must keep the batch and the number of elements of {source.shape}",
        output.shape,
    )
    _require_same_dtype(place, source, output)


def _check_softmax(place: str, layer: Softmax, inputs: Sequence[Tensor], output: Tensor) -> None:
    (source,) = inputs
    _require_shape(place, output, source.shape)
    _require_integer(place, source)
    _require_integer(place, output)
    _require_range(f"{place} multiplier", layer.multiplier, 0, INT32.max)
    _require_range(f"{place} shift", layer.shift, -31, 31)
    _require_range(f"{place} diff_min", layer.diff_min, INT32.min, 0)


def _check_clamp(place: str, layer: Clamp, inputs: Sequence[Tensor], output: Tensor) -> None:
    (source,) = inputs
    _require_shape(place, output, source.shape)
    _check_rescaling(place, layer, source, output)


def _check_quantize(place: str, layer: Quantize, inputs: Sequence[Tensor], output: Tensor) -> None:
    (source,) = inputs
    _require_shape(place, output, source.shape)
    _check_zero_point(f"{place} output_zero_point", layer.output_zero_point, output)
    _require(
        (source.dtype == "float32") == (layer.requantization is None),
        f"{place} requantization",
        "must be absent for a float32 input and present for an integer one",
        f"{'absent' if layer.requantization is None else 'present'} for {source.dtype}",
    )
    if layer.requantization is None:
        _require(output.scale is not None, f"{place} output scale", "must be given", "absent")
        _require(
            layer.input_zero_point == 0,
            f"{place} input_zero_point",
            "must be 0 for a float32 input",
            layer.input_zero_point,
        )
    else:
        _check_zero_point(f"{place} input_zero_point", layer.input_zero_point, source)
        _check_requantization(f"{place} requantization", layer.requantization)


def _check_dequantize(
    place: str, layer: Dequantize, inputs: Sequence[Tensor], output: Tensor
) -> None:
    (source,) = inputs
    _require_shape(place, output, source.shape)
    _require_scale(f"{place} scale", layer.scale)
    _check_zero_point(f"{place} zero_point", layer.zero_point, source)
    _require(output.dtype == "float32", f"{place} output dtype", "must be float32", output.dtype)


def _check_resize(
    place: str, layer: ResizeNearest, inputs: Sequence[Tensor], output: Tensor
) -> None:
    (image,) = inputs
    _require_rank(place, image, 4)
    _require_rank(place, output, 4)
    batch, _, _, channels = image.shape
    _require_shape(place, output, (batch, output.shape[1], output.shape[2], channels))
    _require_same_dtype(place, image, output)
    _require(
        not (layer.align_corners and layer.half_pixel_centers),
        f"{place} align_corners and half_pixel_centers",
        "must not both be true",
        "true",
    )


_CHECKS: dict[type[Layer], Callable[..., None]] = {
    Conv2D: _check_conv,
    DepthwiseConv2D: _check_conv,
    FullyConnected: _check_fully_connected,
    AveragePool2D: _check_pool,
    MaxPool2D: _check_pool,
    Mean: _check_mean,
    Add: _check_elementwise,
    Mul: _check_elementwise,
    Concat: _check_concat,
    Pad: _check_pad,
    Reshape: _check_reshape,
    Softmax: _check_softmax,
    Clamp: _check_clamp,
    Quantize: _check_quantize,
    Dequantize: _check_dequantize,
    ResizeNearest: _check_resize,
}


# -- what several layers have in common -----------------------------------------------------------


def _check_weights(place: str, layer: WeightedLayer, rank: int) -> None:
    """Shape and codes of the weights: type, zero point, every code within `weight_bits`."""
    weights = layer.weights
    _require(
        weights.dtype in (np.int8, np.uint8, np.int16),
        f"{place} weights",
        "must be int8, uint8 or int16",
        weights.dtype,
    )
    _require(
        weights.ndim == rank and weights.size > 0,
        f"{place} weights",
        f"must be {rank}-dimensional and not empty",
        f"of shape {weights.shape}",
    )
    unsigned = weights.dtype == np.uint8
    _require(
        layer.weight_bits in WEIGHT_BITS and layer.weight_bits <= 8 * weights.dtype.itemsize,
        f"{place} weight_bits",
        f"must be 2 to 8 for {weights.dtype} weights, or 16 for int16",
        layer.weight_bits,
    )
    fmt = IntFormat(layer.weight_bits, signed=not unsigned)
    lowest, highest = int(weights.min()), int(weights.max())
    _require_range(f"{place} weights", lowest, fmt.min, fmt.max)
    _require_range(f"{place} weights", highest, fmt.min, fmt.max)
    limit = fmt.max if unsigned else 0
    _require_range(f"{place} weight_zero_point", layer.weight_zero_point, 0, limit)


def _check_weighted_values(
    place: str, layer: WeightedLayer, source: Tensor, output: Tensor
) -> None:
    """Bias, zero points, requantization and clamp of a layer that multiplies by weights."""
    out_channels = layer.weights.shape[0]
    if layer.bias is not None:
        _require(
            layer.bias.dtype == np.int64 and layer.bias.shape == (out_channels,),
            f"{place} bias",
            f"must be int64 of shape ({out_channels},)",
            f"{layer.bias.dtype} of shape {layer.bias.shape}",
        )
        if layer.requantization.rounding in ("double", "single"):  # rules on 32-bit accumulators
            _require_range(f"{place} bias", int(layer.bias.min()), INT32.min, INT32.max)
            _require_range(f"{place} bias", int(layer.bias.max()), INT32.min, INT32.max)
    _check_rescaling(place, layer, source, output, out_channels)


def _check_rescaling(
    place: str,
    layer: WeightedLayer | Mean | Clamp,
    source: Tensor,
    output: Tensor,
    channels: int = 1,
) -> None:
    """Zero points, requantization and clamp of a layer with one input."""
    _check_zero_point(f"{place} input_zero_point", layer.input_zero_point, source)
    _check_zero_point(f"{place} output_zero_point", layer.output_zero_point, output)
    _check_requantization(f"{place} requantization", layer.requantization, channels)
    _check_activation(place, layer.activation_min, layer.activation_max, output)


def _check_requantization(place: str, requantization: Requantization, channels: int = 1) -> None:
    multiplier, shift = requantization.multiplier, requantization.shift
    rounding = requantization.rounding
    _require(
        rounding in SHIFT_RANGES,
        f"{place}.rounding",
        f"must be one of {', '.join(SHIFT_RANGES)}",
        rounding,
    )
    for field, values in (("multiplier", multiplier), ("shift", shift)):
        _require(
            values.dtype == np.int32
            and values.shape == multiplier.shape
            and values.shape in ((1,), (channels,)),
            f"{place}.{field}",
            "must be int32, one value"
            + (f" or {channels}, as many as the other part" if channels > 1 else ""),
            f"{values.dtype} of shape {values.shape}",
        )
    _require_range(f"{place}.multiplier", int(multiplier.min()), 0, INT32.max)
    low, high = SHIFT_RANGES[rounding]
    for value in (int(shift.min()), int(shift.max())):
        _require_range(f"{place}.shift (rounding {rounding})", value, low, high)


def _check_window(
    place: str, stride: tuple[int, int], dilation: tuple[int, int], padding: Padding
) -> None:
    for size in stride:
        _require_range(f"{place} stride", size, 1, MAX_SIZE)
    for size in dilation:
        _require_range(f"{place} dilation", size, 1, MAX_SIZE)
    for size in (padding.top, padding.bottom, padding.left, padding.right):
        _require_range(f"{place} padding", size, 0, MAX_SIZE)


def _window_counts(
    place: str,
    image: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: Padding,
) -> tuple[int, int]:
    """Output rows and columns of a sliding window."""
    padded = (
        image[0] + padding.top + padding.bottom,
        image[1] + padding.left + padding.right,
    )
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    _require(
        padded[0] >= reach[0] and padded[1] >= reach[1],
        f"{place} kernel",
        f"must fit the padded image of {padded[0]} x {padded[1]}",
        f"{reach[0]} x {reach[1]} with its dilation",
    )
    return (padded[0] - reach[0]) // stride[0] + 1, (padded[1] - reach[1]) // stride[1] + 1


def _check_activation(place: str, low: int, high: int, output: Tensor) -> None:
    fmt = _require_integer(place, output)
    _require(low <= high, f"{place} activation_min", f"must not exceed activation_max={high}", low)
    _require_range(f"{place} activation_min", low, fmt.min, fmt.max)
    _require_range(f"{place} activation_max", high, fmt.min, fmt.max)


def _check_zero_point(place: str, zero_point: int, tensor: Tensor) -> None:
    """Demand the tensor's own zero point where it has a scale, hence a meaning of its own."""
    fmt = _require_integer(place, tensor)
    _require_range(place, zero_point, fmt.min, fmt.max)
    if tensor.scale is not None:
        _require(
            zero_point == tensor.zero_point,
            place,
            f"must be {tensor.zero_point}, as tensor {tensor.name!r} says",
            zero_point,
        )


def _require_integer(place: str, tensor: Tensor) -> IntFormat:
    _require(
        tensor.dtype in INTEGER_FORMATS,
        f"{place} tensor {tensor.name!r}",
        "must have integer codes",
        tensor.dtype,
    )
    return INTEGER_FORMATS[tensor.dtype]


def _require_same_dtype(place: str, source: Tensor, output: Tensor) -> None:
    _require(
        source.dtype == output.dtype,
        f"{place} output dtype",
        f"must be the input's {source.dtype}",
        output.dtype,
    )


def _require_rank(place: str, tensor: Tensor, rank: int) -> None:
    _require(
        len(tensor.shape) == rank,
        f"{place} tensor {tensor.name!r} shape",
        f"must have {rank} dimensions",
        tensor.shape,
    )


def _require_shape(place: str, tensor: Tensor, shape: Shape, role: str = "output") -> None:
    _require(tensor.shape == shape, f"{place} {role} shape", f"must be {shape}", tensor.shape)


def _require_scale(place: str, scale: float) -> None:
    _require(isfinite(scale) and scale > 0, place, "must be finite and above 0", scale)


def _require_range(place: str, value: int, low: int, high: int) -> None:
    rule = f"must be {low}" if low == high else f"must be {low} to {high}"
    _require(low <= value <= high, place, rule, value)


def _require(holds: bool, place: str, rule: str, value: object) -> None:
    if not holds:
        raise ModelError(f"{place} {rule}, not {value}; mend the network or import it again.")
