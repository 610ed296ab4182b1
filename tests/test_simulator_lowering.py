"""Steps of a network: what runs where, and that a step computes what its layer says (rules V)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from random_layers import PES, random_hardware

from golden.arithmetic import requantize
from golden.errors import HardwareError
from golden.network import (
    DTYPES,
    Add,
    AveragePool2D,
    Clamp,
    Concat,
    Constant,
    Conv2D,
    Dequantize,
    FullyConnected,
    MaxPool2D,
    Mean,
    Mul,
    Network,
    Pad,
    Padding,
    Quantize,
    Requantization,
    Reshape,
    ResizeNearest,
    Softmax,
    Tensor,
)
from golden.run import run
from rtl_models.random_networks import random_network
from simulator.hardware import changed_hardware, load_hardware
from simulator.lowering import Layout, average_multiplier, layout, lower, same_words

ONE = Requantization(np.array([1 << 30], np.int32), np.array([1], np.int32))
HALF = Requantization(np.array([1 << 30], np.int32), np.array([0], np.int32))
EACH = Requantization(np.full(4, 1 << 30, np.int32), np.full(4, 1, np.int32))
MAC4X4 = load_hardware("mac4x4")  # F = 2


def network(layers, shapes, dtypes=None, inputs=(0,), constants=()):
    dtypes = dtypes or ["int8"] * len(shapes)
    tensors = tuple(
        Tensor(f"t{i}", shape, dtype, 1.0)
        for i, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True))
    )
    outputs = (len(shapes) - 1,)
    return Network("test", tensors, tuple(layers), inputs, outputs, constants=constants)


def dense(weights, inputs=(0,), outputs=(1,), **changes):
    layer = FullyConnected(
        name="dense",
        inputs=inputs,
        outputs=outputs,
        weights=np.asarray(weights, dtype=np.int8),
        weight_bits=8,
        weight_zero_point=0,
        bias=None,
        input_zero_point=0,
        output_zero_point=0,
        requantization=ONE,
        activation_min=-128,
        activation_max=127,
    )
    return replace(layer, **changes)


# -- tensors in memory ----------------------------------------------------------------------------


def test_layouts_by_hand():
    assert layout((1, 3, 4, 5)) == Layout(3, 4, 5)
    assert layout((1, 7)) == Layout(1, 1, 7)
    assert layout((1, 6, 7)) == Layout(1, 6, 7)
    assert layout((1, 2, 3, 4, 5)) == Layout(1, 24, 5)
    assert (Layout(3, 4, 5).planes(2), Layout(3, 4, 5).words(2)) == (3, 36)


def words_of(image, feed):
    """Code index of every (word, lane) of memory; -1 in unused lanes."""
    codes = np.arange(image.pixels * image.channels).reshape(image.pixels, image.channels)
    planes = -(-image.channels // feed)
    padded = np.full((image.pixels, planes * feed), -1)
    padded[:, : image.channels] = codes
    return padded.reshape(image.pixels, planes, feed).transpose(1, 0, 2).reshape(-1, feed)


@pytest.mark.parametrize("feed", [1, 2, 4])
def test_words_stay_the_same_exactly_where_memory_does(feed):
    """Against every code's place, for all shapes of 24 codes; sizes are powers of two times 3."""
    sizes = [1, 2, 3, 4, 6, 8, 12, 24]
    shapes = [Layout(h, w, 24 // h // w) for h in sizes for w in sizes if 24 % (h * w) == 0]
    same = 0
    for first in shapes:
        for second in shapes:
            one, other = words_of(first, feed), words_of(second, feed)
            expected = one.shape == other.shape and bool((one == other).all())
            assert same_words(first, second, feed) == expected
            same += expected and first != second
    assert same > 5


# -- the division of average pools ----------------------------------------------------------------


def division_errors(taps, sums):
    """Sums that rule `single` does not divide as golden's average pool does."""
    multiplier, shift = average_multiplier(taps, int(np.abs(sums).max()))
    rule = Requantization(np.array([multiplier], np.int32), np.array([shift], np.int32), "single")
    expected = np.sign(sums) * ((np.abs(sums) + taps // 2) // taps)
    return sums[requantize(sums, rule) != expected]


@pytest.mark.parametrize("taps", [*range(1, 130), 196, 255, 256, 1024, 4096])
def test_averages_of_bytes_round_half_away_from_zero(taps):
    """Every sum of int8 and uint8 codes."""
    assert division_errors(taps, np.arange(-128 * taps, 255 * taps + 1)).size == 0


@pytest.mark.parametrize("taps", [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 25])
def test_averages_of_int16_round_half_away_from_zero(taps):
    """Every sum of int16 codes."""
    assert division_errors(taps, np.arange(-32768 * taps, 32767 * taps + 1)).size == 0


@pytest.mark.parametrize("taps", [49, 64, 100, 255, 256, 1024, 3136, 8191])
def test_averages_of_int16_hold_around_all_ties(taps):
    """Other sums are no closer to a rounding boundary than these."""
    quotients = np.arange(-32768, 32768)[:, None] * taps + taps // 2
    sums = (quotients + np.arange(-1, 3)).ravel()
    sums = sums[np.abs(sums) <= 32768 * taps]
    assert division_errors(taps, sums).size == 0


def test_divisions_that_are_not_exact_are_refused():
    # 2 * 2**14 * (2**14 * 2**15) = 2**44 is not less than 2**(31 + 13).
    assert average_multiplier(1 << 14, (1 << 14) * (1 << 15)) is None
    assert average_multiplier((1 << 14) - 1, ((1 << 14) - 1) * (1 << 15)) is not None
    assert average_multiplier(1, 1 << 31) is None


# -- what a step computes -------------------------------------------------------------------------


def compute(step, arrays, output):
    """Plain reading of rules V2 and V4: codes (H, W, C) of the step's channels, or of all words."""
    geometry, vector = step.geometry, step.vector
    first = arrays[0].astype(np.int64) - vector.input_zero_point
    rule = Requantization(np.array([vector.multiplier]), np.array([vector.shift]), vector.rounding)
    if step.mode in ("add", "mul"):
        second = arrays[1].astype(np.int64) - vector.input_zero_point + vector.second_offset
        if step.mode == "mul":
            result = first * second
        else:
            result = sum(
                requantize(
                    operand << vector.left_shift,
                    Requantization(np.array([scale]), np.array([shift]), vector.rounding),
                )
                for operand, (scale, shift) in ((first, vector.first), (second, vector.second))
            )
    elif geometry.in_channels == geometry.feed and first.shape == arrays[0].shape == output:
        result = first  # element-wise: pixels are words
    else:
        (kh, kw), (sy, sx) = geometry.kernel, geometry.stride
        result = np.zeros((geometry.out_height, geometry.out_width, geometry.in_channels), np.int64)
        for oy in range(geometry.out_height):
            for ox in range(geometry.out_width):
                taps = [
                    first[iy, ix]
                    for iy in range(oy * sy - geometry.pad_top, oy * sy - geometry.pad_top + kh)
                    for ix in range(ox * sx - geometry.pad_left, ox * sx - geometry.pad_left + kw)
                    if 0 <= iy < geometry.height and 0 <= ix < geometry.width
                ]
                none = np.zeros(geometry.in_channels, np.int64)
                reduce = {"sum": np.sum, "max": np.max}[step.mode]
                result[oy, ox] = reduce(taps, axis=0) if taps else none
    codes = requantize(result, rule) + vector.output_zero_point
    return np.clip(codes, vector.minimum, vector.maximum)


def image(codes, tensor):
    return codes.reshape(layout(tensor.shape))


def check_vector_steps(net, inputs, hardware):
    """Every vector step of a network against golden; how many of each layer there were."""
    tensors = run(net, inputs, keep_tensors=True).tensors
    lowered = lower(net, hardware)
    seen = set()
    for step in lowered.steps:
        if step.unit != "vector":
            continue
        seen.add(net.layers[step.layer_index].op)
        arrays = [image(tensors[i], net.tensors[i]) for i in step.inputs]
        target = net.tensors[step.output]
        expected = image(tensors[step.output], target)
        codes = compute(step, arrays, expected.shape)
        part = expected[..., step.first_channel : step.first_channel + codes.shape[-1]]
        np.testing.assert_array_equal(codes, part)
    return seen


def test_vector_steps_of_random_networks_compute_their_layers():
    rng = np.random.default_rng(4)
    seen = set()
    for i in range(60):
        hardware = random_hardware(rng, list(PES)[i % 4])
        net, inputs = random_network(rng, hardware, 6)
        seen |= check_vector_steps(net, inputs, hardware)
    assert seen == {"add", "mul", "max_pool", "average_pool", "mean", "concat", "pad", "clamp"}


def test_padding_of_three_axes_and_integer_quantize_compute_their_layers():
    rng = np.random.default_rng(5)
    shapes = [(1, 4, 3), (1, 9, 3), (1, 9, 3)]
    layers = [
        Pad("pad", (0,), (1,), ((0, 0), (2, 3), (0, 0)), -7),
        Quantize("quantize", (1,), (2,), -7, 130, HALF),
    ]
    net = network(layers, shapes, ["int8", "int8", "uint8"])
    codes = rng.integers(-128, 128, (1, 4, 3)).astype(np.int8)
    assert check_vector_steps(net, (codes,), MAC4X4) == {"pad", "quantize"}


@pytest.mark.parametrize("features", [3, 8, 30, 514])
@pytest.mark.parametrize("zero_point", [0, 7])
def test_dense_layers_on_a_vector_become_convolutions_over_its_words(features, zero_point):
    """514 features are 257 words of F = 2, a prime number: no kernel of 256 taps divides it."""
    rng = np.random.default_rng(features)
    weights = rng.integers(-100, 100, (5, features)).astype(np.int8)
    layer = dense(weights, weight_zero_point=zero_point, input_zero_point=3)
    net = network([layer], [(1, features), (1, 5)])
    (step,) = lower(net, MAC4X4).steps
    assert step.mode == "array"
    if features == 514:
        assert step.layer is layer
        return
    geometry, words = step.geometry, -(-features // 2)
    assert (geometry.height * geometry.width, geometry.in_channels) == (words, 2)
    assert (geometry.out_height, geometry.out_width) == (1, 1)
    codes = rng.integers(-128, 128, (1, features)).astype(np.int8)
    padded = np.full(words * 2, 99, np.int8)  # unused lanes: their weights are zero
    padded[:features] = codes
    shape = (1, geometry.height, geometry.width, 2)
    wide = network([replace(step.layer, inputs=(0,))], [shape, (1, 1, 1, 5)])
    as_image = run(wide, (padded.reshape(shape),)).outputs[0]
    np.testing.assert_array_equal(as_image.ravel(), run(net, (codes,)).outputs[0].ravel())


def test_a_dense_layer_behind_a_flattening_is_a_convolution_without_padding():
    rng = np.random.default_rng(1)
    weights = rng.integers(-100, 100, (5, 3 * 4 * 3)).astype(np.int8)
    layers = [Reshape("flat", (0,), (1,)), dense(weights, (1,), (2,))]
    net = network(layers, [(1, 3, 4, 3), (1, 36), (1, 5)])
    lowered = lower(net, MAC4X4)
    (step,) = lowered.steps
    assert (step.inputs, step.output, step.layer_index) == ((0,), 2, 1)
    assert sorted(lowered.storage) == [0, 2]  # the flattened tensor exists nowhere
    assert (step.geometry.kernel, step.geometry.out_width) == ((3, 4), 1)
    codes = rng.integers(-128, 128, (1, 3, 4, 3)).astype(np.int8)
    alone = network([replace(step.layer, inputs=(0,), outputs=(1,))], [(1, 3, 4, 3), (1, 1, 1, 5)])
    np.testing.assert_array_equal(
        run(alone, (codes,)).outputs[0].ravel(), run(net, (codes,)).outputs[0].ravel()
    )


def test_a_flattened_tensor_that_others_read_is_made_by_the_host():
    weights = np.ones((5, 36), np.int8)
    layers = [
        Reshape("flat", (0,), (1,)),
        dense(weights, (1,), (2,)),
        MaxPool2D("pool", (1,), (3,), (1, 1), (1, 1), Padding(), -128, 127),
    ]
    shapes = [(1, 3, 4, 3), (1, 1, 1, 36), (1, 5), (1, 1, 1, 36)]
    lowered = lower(network(layers, shapes), MAC4X4)
    assert [step.unit for step in lowered.steps] == ["host", "array", "vector"]
    assert lowered.storage == {0: 0, 1: 1, 2: 2, 3: 3}


def test_a_reshape_that_keeps_the_words_is_no_step():
    layers = [
        Reshape("squeeze", (0,), (1,)),
        MaxPool2D("pool", (1,), (2,), (1, 1), (1, 1), Padding(), -128, 127),
    ]
    lowered = lower(network(layers, [(1, 2, 3, 5), (1, 3, 2, 5), (1, 3, 2, 5)]), MAC4X4)
    assert [step.name for step in lowered.steps] == ["pool"]
    assert lowered.storage == {0: 0, 1: 0, 2: 2}


# -- what runs where ------------------------------------------------------------------------------


def pool(kind=AveragePool2D, kernel=(2, 2), stride=(2, 2), padding=None):
    return kind("pool", (0,), (1,), kernel, stride, padding or Padding(), -128, 127)


def mean(axes, requantization=ONE):
    return Mean("mean", (0,), (1,), axes, False, 0, 0, requantization, -128, 127)


SAME = [(1, 4, 4, 4)] * 2


@pytest.mark.parametrize(
    ("layer", "shapes", "dtypes", "unit"),
    [
        (pool(), [(1, 4, 4, 4), (1, 2, 2, 4)], None, "vector"),
        # Windows at the border have fewer taps than those inside.
        (pool(kernel=(3, 3), stride=(1, 1), padding=Padding(1, 1, 1, 1)), SAME, None, "host"),
        (
            pool(MaxPool2D, kernel=(3, 3), stride=(1, 1), padding=Padding(1, 1, 1, 1)),
            SAME,
            None,
            "vector",
        ),
        # All windows lose one row of taps to the padding.
        (
            pool(kernel=(3, 1), stride=(1, 1), padding=Padding(top=1, bottom=1)),
            [(1, 2, 4, 4), (1, 2, 4, 4)],
            None,
            "vector",
        ),
        (
            pool(kernel=(257, 1), stride=(1, 1)),
            [(1, 257, 1, 4), (1, 1, 1, 4)],
            None,
            "host",
        ),
        (pool(), [(1, 4, 4, 4), (1, 2, 2, 4)], ["int16", "int16"], "host"),
        (mean((1, 2)), [(1, 4, 4, 4), (1, 4)], None, "vector"),
        (mean((2, 1)), [(1, 4, 4, 4), (1, 4)], None, "vector"),
        (mean((1,)), [(1, 4, 4, 4), (1, 4, 4)], None, "host"),
        (mean((1,)), [(1, 4, 4), (1, 4)], None, "vector"),
        (mean((1, 2), EACH), [(1, 4, 4, 4), (1, 4)], None, "host"),
        (Clamp("clamp", (0,), (1,), 0, 0, ONE, 0, 6), SAME, None, "vector"),
        (Quantize("quantize", (0,), (1,), 0, 0, ONE), SAME, ["int8", "uint8"], "vector"),
        (Quantize("quantize", (0,), (1,), 0, 0, None), SAME, ["float32", "int8"], "host"),
        (Dequantize("dequantize", (0,), (1,), 1.0, 0), SAME, ["int8", "float32"], "host"),
        (Softmax("softmax", (0,), (1,), 1 << 30, 20, -100), SAME, None, "host"),
        (ResizeNearest("resize", (0,), (1,), False, False), SAME, None, "host"),
        (
            Pad("pad", (0,), (1,), ((0, 0), (1, 0), (0, 2), (0, 0)), 0),
            [(1, 4, 4, 4), (1, 5, 6, 4)],
            None,
            "vector",
        ),
        (
            Pad("pad", (0,), (1,), ((0, 0), (0, 0), (0, 0), (0, 4)), 0),
            [(1, 4, 4, 4), (1, 4, 4, 8)],
            None,
            "host",
        ),
    ],
)
def test_units_of_layers_with_one_input(layer, shapes, dtypes, unit):
    (step,) = lower(network([layer], shapes, dtypes), MAC4X4).steps
    assert step.unit == unit
    assert (step.geometry is None) == (step.vector is None) == (unit == "host")


@pytest.mark.parametrize(
    ("shapes", "changes", "unit"),
    [
        ([(1, 2, 2, 3)] * 3, {}, "vector"),
        ([(1, 2, 2, 3), (1, 1, 1, 3), (1, 2, 2, 3)], {}, "host"),
        ([(1, 2, 2, 3)] * 3, {"output_requantization": replace(ONE, rounding="single")}, "host"),
    ],
)
def test_units_of_additions(shapes, changes, unit):
    add = replace(Add("add", (0, 1), (2,), (0, 0), 0, 20, (ONE, ONE), ONE, -128, 127), **changes)
    (step,) = lower(network([add], shapes, inputs=(0, 1)), MAC4X4).steps
    assert step.unit == unit


def test_a_constant_is_an_operand_in_memory():
    mul = Mul("mul", (0, 1), (2,), (1, 3), 0, ONE, -128, 127)
    constant = Constant(1, np.ones((1, 2, 2, 3), np.int8))
    net = network([mul], [(1, 2, 2, 3)] * 3, constants=(constant,))
    (step,) = lower(net, MAC4X4).steps
    assert (step.unit, step.mode, step.inputs, step.operands) == ("vector", "mul", (0, 1), 2)
    assert step.vector.second_offset == 1 - 3


def test_element_wise_images_have_rows_that_reach_all_banks():
    """6 planes of 3 x 5 words on R = 4: 18 rows of 5. 2 words wide: 2 rows joined, 1 wide: 6."""
    for width, image_shape in ((5, (18, 5)), (2, (9, 4)), (1, (3, 6))):
        clamp = Clamp("clamp", (0,), (1,), 0, 0, ONE, 0, 6)
        (step,) = lower(network([clamp], [(1, 3, width, 12)] * 2), MAC4X4).steps
        geometry = step.geometry
        assert (geometry.height, geometry.width) == image_shape
        assert (geometry.in_channels, geometry.out_channels) == (2, 2)


@pytest.mark.parametrize(
    ("axis", "rescale", "units"),
    [(3, None, ["vector"] * 2), (1, None, ["host"]), (3, ((1.0, 0), (2.0, 3)), ["host"])],
)
def test_concatenations_over_channels_are_a_step_for_each_input(axis, rescale, units):
    shapes = [(1, 2, 2, 3), (1, 2, 2, 3), (1, 4, 2, 3) if axis == 1 else (1, 2, 2, 6)]
    concat = Concat("concat", (0, 1), (2,), axis, rescale)
    dtypes = ["uint8"] * 3
    steps = lower(network([concat], shapes, dtypes, inputs=(0, 1)), MAC4X4).steps
    assert [step.unit for step in steps] == units
    if units[0] == "vector":
        assert [(step.inputs, step.first_channel) for step in steps] == [((0,), 0), ((1,), 3)]
        assert not steps[0].input_signed
        assert (steps[0].vector.minimum, steps[0].vector.maximum) == (0, 255)


def test_strides_that_are_not_taken_do_not_spread_the_image():
    layer = pool(kernel=(4, 4), stride=(4, 4))
    (step,) = lower(network([layer], [(1, 4, 4, 4), (1, 1, 1, 4)]), MAC4X4).steps
    assert step.geometry.stride == (1, 1)


def test_int16_needs_wide_codes():
    wide = changed_hardware(MAC4X4, array={"activation_bits": 16})
    layer, shapes = pool(), [(1, 4, 4, 4), (1, 2, 2, 4)]
    net = network([layer], shapes, ["int16", "int16"])
    (step,) = lower(net, wide).steps
    assert step.unit == "vector"
    assert DTYPES["int16"].itemsize == 2


def test_images_beyond_the_coordinates_of_a_descriptor_are_refused():
    layer = Conv2D(
        **{
            **vars(dense(np.ones((4, 2)))),
            "name": "conv",
            "weights": np.ones((4, 1, 1, 2), np.int8),
        }
    )
    net = network([layer], [(1, 1, 40000, 2), (1, 1, 40000, 4)])
    with pytest.raises(HardwareError) as error:
        lower(net, MAC4X4)
    assert str(error.value) == (
        'layer "conv" has an image of 1 x 40000 pixels and the stride (1, 1), but a descriptor'
        " expresses coordinates up to 32767 and strides up to 255; use a smaller image"
    )
