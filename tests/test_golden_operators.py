"""Golden operators against plain loops and hand sums; `run` and its refusals."""

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import golden.operators
from golden import multipliers
from golden.errors import InputError
from golden.network import (
    Add,
    AveragePool2D,
    Clamp,
    Concat,
    Conv2D,
    DepthwiseConv2D,
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
from golden.operators import OPERATORS, accumulators
from golden.run import run

exact = settings(deadline=None, derandomize=True, max_examples=60)
IDENTITY = multipliers.identity_requantization()
INT8 = {"activation_min": -128, "activation_max": 127}
HALF = Requantization(np.array([2**30], np.int32), np.array([0], np.int32))


def compute(layer, *inputs, shape=(1,), dtype="int8", scale=1.0, zero_point=0):
    return OPERATORS[type(layer)](layer, inputs, Tensor("y", shape, dtype, scale, zero_point))


def weighted(kind, weights, **changes):
    fields = {
        "name": "layer",
        "inputs": (0,),
        "outputs": (1,),
        "weights": weights,
        "weight_bits": 8,
        "weight_zero_point": 0,
        "bias": None,
        "input_zero_point": 0,
        "output_zero_point": 0,
        "requantization": IDENTITY,
        **INT8,
    }
    return kind(**{**fields, **changes})


@st.composite
def convolutions(draw):
    """A random convolution with its input: geometry, groups, zero points and codes."""
    groups, per_group, multiplier = (draw(st.integers(1, 3)) for _ in range(3))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = draw(st.tuples(*[st.integers(0, 2)] * 4))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    size = [draw(st.integers(max(1, r), r + 4)) for r in reach]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    unsigned = draw(st.booleans())
    limits = np.iinfo(np.uint8 if unsigned else np.int8)
    zero_points = rng.integers(limits.min, limits.max + 1, 2)
    codes = limits.dtype
    x = rng.integers(limits.min, limits.max + 1, (2, *size, groups * per_group)).astype(codes)
    w = rng.integers(limits.min, limits.max + 1, (groups * multiplier, *kernel, per_group))
    layer = weighted(
        Conv2D,
        w.astype(codes),
        input_zero_point=int(zero_points[0]),
        weight_zero_point=int(zero_points[1]) if unsigned else 0,
        stride=stride,
        dilation=dilation,
        padding=Padding(*padding),
        groups=groups,
    )
    return layer, x


def naive_taps(layer, x):
    operands = (x.astype(int) - layer.input_zero_point).tolist()
    weights = (layer.weights.astype(int) - layer.weight_zero_point).tolist()
    if isinstance(layer, FullyConnected):
        return naive.dense_taps(operands, weights)
    pad = layer.padding
    sides = (pad.top, pad.bottom, pad.left, pad.right)
    return naive.convolution_taps(
        operands, weights, layer.stride, layer.dilation, sides, layer.groups
    )


@exact
@given(convolutions())
def test_convolution_accumulators_equal_plain_loops(case):
    layer, x = case
    expected = [
        [[[sum(w * v for w, v in taps) for taps in column] for column in row] for row in image]
        for image in naive_taps(layer, x)
    ]
    assert accumulators(layer, x).tolist() == expected


@exact
@given(convolutions())
def test_accumulators_are_the_same_in_float64_and_in_int64(case):
    layer, x = case
    in_float64 = accumulators(layer, x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(golden.operators, "FLOAT64_EXACT", 0)
        np.testing.assert_array_equal(accumulators(layer, x), in_float64)


def test_sums_beyond_float64_stay_exact():
    # 2**53 + 1 is the first integer float64 cannot hold: 2**30 * 2**23 + 1 * 1.
    layer = weighted(FullyConnected, np.array([[2**30, 1]], np.int64))
    assert accumulators(layer, np.array([[2**23, 1]])).tolist() == [[2**53 + 1]]


def test_fully_connected_flattens_what_its_input_has_too_many_axes_of():
    layer = weighted(FullyConnected, np.ones((2, 4), np.int8))
    x = np.arange(8, dtype=np.int8).reshape(2, 2, 2, 1)
    assert compute(layer, x, shape=(1, 2)).tolist() == [[6, 6], [22, 22]]


def test_depthwise_output_channel_reads_input_channel_over_multiplier():
    layer = weighted(DepthwiseConv2D, np.array([1, 2, 3, 4], np.int8).reshape(4, 1, 1, 1), groups=2)
    x = np.array([[[[10, -10]]]], np.int8)
    assert compute(layer, x).tolist() == [[[[10, 20, -30, -40]]]]


def test_bias_zero_point_and_clamp_come_after_accumulation_in_this_order():
    # (2 * 3 + 5) / 2 = 5.5 -> 6 (half up), + 10 = 16, clamped to 15.
    layer = weighted(
        FullyConnected,
        np.array([[2]], np.int8),
        bias=np.array([5]),
        requantization=HALF,
        output_zero_point=10,
        activation_max=15,
    )
    assert compute(layer, np.array([[3]], np.int8), shape=(1, 1)).tolist() == [[15]]


@st.composite
def pools(draw):
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    # Less padding than taps, so that no window misses the image.
    sides = [draw(st.integers(0, kernel[i // 2] - 1)) for i in range(4)]
    size = [draw(st.integers(k, k + 4)) for k in kernel]
    dtype = draw(st.sampled_from([np.int8, np.uint8, np.int16]))
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.integers(limits.min, limits.max + 1, (2, *size, 2)).astype(dtype)
    return kernel, stride, sides, x


@exact
@given(pools())
@pytest.mark.parametrize("kind", [AveragePool2D, MaxPool2D])
def test_pools_equal_plain_loops(kind, case):
    kernel, stride, sides, x = case
    limits = np.iinfo(x.dtype)
    layer = kind("p", (0,), (1,), kernel, stride, Padding(*sides), limits.min, limits.max)
    expected = naive.pool(x.tolist(), kernel, stride, sides, average=kind is AveragePool2D)
    actual = compute(layer, x, dtype=str(x.dtype))
    assert actual.dtype == x.dtype
    assert actual.tolist() == expected


def test_average_pool_rounds_half_away_from_zero():
    layer = AveragePool2D("p", (0,), (1,), (1, 2), (1, 2), Padding(), -128, 127)
    x = np.array([-5, -2, 5, 2], np.int8).reshape(1, 1, 4, 1)
    assert compute(layer, x).ravel().tolist() == [-4, 4]


def test_mean_rescales_the_sum_of_operands():
    # (1 + 2 + 3 + 4 - 4 * 1) / 4 * 2 = 3, + 7.
    layer = Mean(
        "m", (0,), (1,), (1, 2), False, 1, 7, multipliers.mean_requantization(2.0, 1.0, 4), **INT8
    )
    x = np.array([1, 2, 3, 4], np.int8).reshape(1, 2, 2, 1)
    assert compute(layer, x).tolist() == [[10]]


def test_add_broadcasts_and_rescales_each_input():
    # Scales 1 and 0.5 to 1: (x - 1) + (y + 2) / 2.
    parameters = multipliers.add_parameters(1.0, 0.5, 1.0, "int8")
    layer = Add(
        "a",
        (0, 1),
        (2,),
        (1, -2),
        0,
        parameters.left_shift,
        parameters.input_requantizations,
        parameters.output_requantization,
        **INT8,
    )
    x = np.array([[11, 101]], np.int8)
    y = np.array([[2], [98]], np.int8)
    assert compute(layer, x, y).tolist() == [[12, 102], [60, 127]]


def test_mul_broadcasts_and_rescales_the_product():
    layer = Mul("m", (0, 1), (2,), (1, 0), 3, HALF, **INT8)
    x = np.array([[5, -5]], np.int8)
    # (4 * 3) / 2 + 3 = 9; (-6 * 3) / 2 + 3 = -6.
    assert compute(layer, x, np.array([3], np.int8)).tolist() == [[9, -6]]


def test_clamp_moves_codes_to_the_output_scale_first():
    layer = Clamp("c", (0,), (1,), 2, -1, HALF, activation_min=-1, activation_max=5)
    assert compute(layer, np.array([2, 8, 100, -50], np.int8)).tolist() == [-1, 2, 5, -1]


def test_quantize_rounds_float_ties_away_from_zero_and_clamps():
    layer = Quantize("q", (0,), (1,), 0, 10, None)
    x = np.array([-0.75, -0.25, 0.25, 0.75, 1e30, -1e30], np.float32)
    # Divided by 0.5: -1.5 -0.5 0.5 1.5.
    assert compute(layer, x, scale=0.5).tolist() == [8, 9, 11, 12, 127, -128]


def test_quantize_of_codes_requantizes():
    layer = Quantize("q", (0,), (1,), 128, 0, IDENTITY)
    assert compute(layer, np.array([0, 128, 255], np.uint8)).tolist() == [-128, 0, 127]


def test_dequantize_multiplies_the_operand_by_the_scale():
    layer = Dequantize("d", (0,), (1,), 0.25, -2)
    actual = compute(layer, np.array([-2, 0, 2], np.int8), dtype="float32")
    assert actual.dtype == np.float32
    assert actual.tolist() == [0.0, 0.5, 1.0]


def test_concat_rescales_uint8_inputs_of_another_scale():
    layer = Concat("c", (0, 1), (2,), 1, rescale=((0.5, 0), (1.0, 10)))
    x, y = np.array([[3, 4]], np.uint8), np.array([[7]], np.uint8)
    # 3 / 2 + 10 = 11.5 rounds before the zero point is added: 2 + 10; 4 / 2 + 10; copied.
    actual = compute(layer, x, y, dtype="uint8", scale=1.0, zero_point=10)
    assert actual.tolist() == [[12, 12, 7]]


def test_pad_fills_with_its_code():
    layer = Pad("p", (0,), (1,), ((0, 0), (1, 0)), -3)
    assert compute(layer, np.array([[1, 2]], np.int8)).tolist() == [[-3, 1, 2]]


def test_reshape_keeps_the_batch_free():
    layer = Reshape("r", (0,), (1,))
    assert compute(layer, np.zeros((5, 2, 3), np.int8), shape=(1, 6)).shape == (5, 6)


@pytest.mark.parametrize(
    ("align_corners", "half_pixel_centers", "expected"),
    [
        # floor(i * 3 / 5); round(i * 2 / 4); floor((i + 0.5) * 3 / 5), by hand.
        (False, False, [0, 0, 1, 1, 2]),
        (True, False, [0, 1, 1, 2, 2]),
        (False, True, [0, 0, 1, 2, 2]),
    ],
)
def test_resize_nearest_picks_by_hand(align_corners, half_pixel_centers, expected):
    layer = ResizeNearest("r", (0,), (1,), align_corners, half_pixel_centers)
    x = np.arange(3, dtype=np.int8).reshape(1, 1, 3, 1)
    assert compute(layer, x, shape=(1, 1, 5, 1)).ravel().tolist() == expected


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_softmax_of_equal_codes_is_uniform(dtype):
    parameters = multipliers.softmax_parameters(1.0, 0.1, dtype)
    layer = Softmax("s", (0,), (1,), parameters.multiplier, parameters.shift, parameters.diff_min)
    low = np.iinfo(dtype).min
    actual = compute(layer, np.full((3, 4), 7, dtype), dtype=dtype)
    assert actual.tolist() == [[64 + low] * 4] * 3


def test_uint8_softmax_is_int8_softmax_moved_by_128():
    # The reference kernel is one template for both; only int8 runs in TensorFlow Lite Micro.
    x = np.random.default_rng(22).integers(0, 256, (20, 9)).astype(np.uint8)
    p = multipliers.softmax_parameters(1.0, 0.03, "uint8")
    layer = Softmax("s", (0,), (1,), p.multiplier, p.shift, p.diff_min)
    moved = compute(layer, (x.astype(np.int16) - 128).astype(np.int8)).astype(np.int16) + 128
    np.testing.assert_array_equal(compute(layer, x, dtype="uint8"), moved)


@pytest.mark.parametrize(
    ("kind", "weights", "x", "message"),
    [
        (FullyConnected, (2, 4), np.zeros((1, 4)), "must hold integer codes, but has .* float64"),
        (FullyConnected, (2, 4), np.zeros((1, 5), np.int8), "a multiple of 4 elements"),
        (Conv2D, (2, 1, 1, 3), np.zeros((1, 2, 2, 4), np.int8), r"shape \(N, H, W, 3\), but has"),
        (Conv2D, (2, 1, 1, 3), np.zeros((2, 2, 3), np.int8), r"shape \(N, H, W, 3\), but has"),
    ],
)
def test_accumulators_refuse_activations_that_do_not_fit(kind, weights, x, message):
    with pytest.raises(InputError, match=message):
        accumulators(weighted(kind, np.ones(weights, np.int8)), x)


# -- against the reference kernels, one operator at a time ----------------------------------------


def reference(operator, source, target, options=None, constant=None):
    """Output codes of TensorFlow Lite Micro for a model of one operator."""
    pytest.importorskip("tflite_micro")
    from oracle import run_tflite_micro
    from tflite_builder import ModelBuilder

    builder = ModelBuilder()
    x, scale, zero_point = source
    inputs = [builder.tensor(x.shape, str(x.dtype), scale, zero_point)]
    output = builder.tensor(*target)
    extra = [] if constant is None else [builder.constant(constant)]
    builder.operator(operator, inputs + extra, [output], **(options or {}))
    model = builder.build(inputs, [output])
    return run_tflite_micro(model, [x], [output])[output]


def float32(value):
    return float(np.float32(value))


SOFTMAX_OUTPUTS = {
    ("int8", "int8"): (1 / 256, -128),
    ("int8", "int16"): (1 / 65536, -32768),
    ("int16", "int16"): (1 / 32768, 0),
}


@pytest.mark.parametrize(("source", "target"), SOFTMAX_OUTPUTS)
def test_softmax_equals_the_reference_kernel(source, target):
    rng = np.random.default_rng(20)
    limits = np.iinfo(source)
    for _ in range(30):
        shape = (100, int(rng.integers(1, 12)))
        # From everything but the maximum vanishing to nearly uniform.
        scale = float32(10 ** rng.uniform(-3, 0) * 256 / 2**limits.bits)
        beta = float32(rng.choice([0.5, 1.0, 2.3]))
        x = rng.integers(limits.min, limits.max + 1, shape).astype(source)
        out_scale, out_zero = SOFTMAX_OUTPUTS[source, target]
        p = multipliers.softmax_parameters(beta, scale, source)
        layer = Softmax("s", (0,), (1,), p.multiplier, p.shift, p.diff_min)
        expected = reference(
            "SOFTMAX", (x, scale, 0), (shape, target, out_scale, out_zero), {"Beta": beta}
        )
        np.testing.assert_array_equal(compute(layer, x, shape=shape, dtype=target), expected)


@pytest.mark.parametrize("scale", [0.004192705731838942, 0.0010563783580437303])
def test_softmax_equals_the_reference_kernel_where_the_last_bit_of_exp_shows(scale):
    # Scales searched for: here a series that rounds its x**4 or its last half downwards, not to
    # nearest, changes 16-bit results.
    v = np.arange(-128, 128)
    x = np.stack([np.full_like(v, 127), v], axis=1).astype(np.int8)
    p = multipliers.softmax_parameters(1.0, scale, "int8")
    layer = Softmax("s", (0,), (1,), p.multiplier, p.shift, p.diff_min)
    target = (x.shape, "int16", 1 / 65536, -32768)
    expected = reference("SOFTMAX", (x, scale, 0), target, {"Beta": 1.0})
    np.testing.assert_array_equal(compute(layer, x, shape=x.shape, dtype="int16"), expected)


def test_int16_softmax_equals_the_reference_kernel_at_every_difference():
    # A pair (32767, v) per row: every entry of the exp table and its interpolation.
    v = np.arange(-32768, 32768, 3)
    x = np.stack([np.full_like(v, 32767), v], axis=1).astype(np.int16)
    scale = float32(10 / 65535)
    p = multipliers.softmax_parameters(1.0, scale, "int16")
    layer = Softmax("s", (0,), (1,), p.multiplier, p.shift, p.diff_min)
    expected = reference("SOFTMAX", (x, scale, 0), (x.shape, "int16", 1 / 32768, 0), {"Beta": 1.0})
    np.testing.assert_array_equal(compute(layer, x, shape=x.shape, dtype="int16"), expected)


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("axes", [(1, 2), (1,), (3,), (1, 2, 3)])
def test_mean_equals_the_reference_kernel(dtype, axes):
    rng = np.random.default_rng(21)
    limits = np.iinfo(dtype)
    for keep_dims in (False, True):
        shape = (2, *(int(n) for n in rng.integers(1, 9, 3)))
        x = rng.integers(limits.min, limits.max + 1, shape).astype(dtype)
        zero, out_zero = (
            (0, 0) if dtype == "int16" else (int(z) for z in rng.integers(-128, 128, 2))
        )
        scale = float32(10 ** rng.uniform(-3, 0))
        out_scale = float32(scale * 10 ** rng.uniform(-0.5, 0.5))
        out_shape = x.sum(axis=axes, keepdims=keep_dims).shape
        count = int(np.prod([shape[a] for a in axes]))
        rule = multipliers.mean_requantization(scale, out_scale, count)
        layer = Mean("m", (0,), (1,), axes, keep_dims, zero, out_zero, rule, limits.min, limits.max)
        expected = reference(
            "MEAN",
            (x, scale, zero),
            (out_shape, dtype, out_scale, out_zero),
            {"KeepDims": keep_dims},
            np.array(axes, np.int32),
        )
        np.testing.assert_array_equal(compute(layer, x, dtype=dtype), expected)


# -- run ------------------------------------------------------------------------------------------


def two_layers():
    """Tensor 0 -> doubled (tensor 1) -> clamped to 10 (tensor 2)."""
    double = weighted(FullyConnected, np.eye(3, dtype=np.int8) * 2)
    limit = Clamp("limit", (1,), (2,), 0, 0, IDENTITY, activation_min=-10, activation_max=10)
    tensors = tuple(Tensor(name, (1, 3), "int8", 1.0) for name in ("x", "doubled", "limited"))
    return Network("two", tensors, (double, limit), (0,), (2,))


def test_run_returns_outputs_and_on_request_every_tensor():
    x = np.array([[1, 2, 30]], np.int8)
    result = run(two_layers(), [x])
    assert [y.tolist() for y in result.outputs] == [[[2, 4, 10]]]
    assert set(result.tensors) == {2}
    np.testing.assert_array_equal(run(two_layers(), x).outputs[0], result.outputs[0])
    kept = run(two_layers(), {0: x}, keep_tensors=True).tensors
    assert set(kept) == {0, 1, 2}
    assert kept[1].tolist() == [[2, 4, 60]]


def test_the_batch_of_a_run_is_free():
    x = np.arange(-6, 6, dtype=np.int8).reshape(4, 3)
    whole = run(two_layers(), [x]).outputs[0]
    one_by_one = [run(two_layers(), [row[np.newaxis]]).outputs[0] for row in x]
    np.testing.assert_array_equal(whole, np.concatenate(one_by_one))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "takes 1 inputs, but 0 arrays"),
        ({1: np.zeros((1, 3), np.int8)}, "must be the tensors \\[0\\]"),
        ([[[1, 2, 3]]], "must be a NumPy array, but is a list"),
        ([np.zeros((1, 3), np.float32)], "must have the element type int8, but has float32"),
        ([np.zeros((1, 4), np.int8)], "must have the shape \\(N, 3\\), but has \\(1, 4\\)"),
        ([np.zeros(3, np.int8)], "must have the shape"),
        ([np.zeros((0, 3), np.int8)], "must hold at least one sample"),
    ],
)
def test_run_refuses_inputs_that_do_not_fit(inputs, message):
    with pytest.raises(InputError, match=message):
        run(two_layers(), inputs)


def single_input(dtype):
    tensors = (Tensor("x", (1, 2), dtype, 1.0), Tensor("y", (1, 2), dtype, 1.0))
    return Network("copy", tensors, (Reshape("r", (0,), (1,)),), (0,), (1,))


def test_run_refuses_codes_outside_int4():
    with pytest.raises(InputError, match="must hold int4 codes, -8 to 7, but reaches from 0 to 8"):
        run(single_input("int4"), [np.array([[0, 8]], np.int8)])


def test_run_refuses_undefined_floats():
    with pytest.raises(InputError, match="must be finite"):
        run(single_input("float32"), [np.array([[0, np.nan]], np.float32)])


def test_run_refuses_inputs_of_different_batches():
    tensors = tuple(Tensor(name, (1, 2), "int8", 1.0) for name in "abc")
    network = Network(
        "mul", tensors, (Mul("m", (0, 1), (2,), (0, 0), 0, IDENTITY, **INT8),), (0, 1), (2,)
    )
    with pytest.raises(InputError, match=r"must share one batch size, but have \[1, 2\]"):
        run(network, [np.zeros((1, 2), np.int8), np.zeros((2, 2), np.int8)])
