"""Certificates against brute force over every input, hand sums, and independent numbers."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden.accumulate import Accumulator, accumulate_layer
from golden.certificates import (
    certify,
    certify_spill,
    largest_spill_interval,
    operand_range,
    witness,
)
from golden.errors import HardwareError, UnsupportedError
from golden.formats import bits_needed
from golden.importers.tflite import load_tflite
from golden.network import (
    AveragePool2D,
    Concat,
    Constant,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    MaxPool2D,
    Network,
    Pad,
    Padding,
    Requantization,
    Reshape,
    Tensor,
    WeightedLayer,
)
from golden.operators import accumulators
from golden.ranges import clamp_ranges, datatype_range, observed_range

SHARED = Path(__file__).parents[2] / "shared"
MODELS = ("kws_ref_model", "pretrainedResnet_quant")

RULE = Requantization(np.array([1 << 30], np.int32), np.array([0], np.int32))
COMMON = {
    "inputs": (0,),
    "outputs": (1,),
    "output_zero_point": 0,
    "requantization": RULE,
    "activation_min": -128,
    "activation_max": 127,
}


def dense(weights, zero_point=0, weight_zero_point=0, bias=None, weight_bits=8):
    codes = np.array(weights, dtype=np.uint8 if weight_zero_point else np.int8)
    return FullyConnected(
        name="dense",
        weights=codes,
        weight_bits=weight_bits,
        weight_zero_point=weight_zero_point,
        bias=None if bias is None else np.array(bias, dtype=np.int64),
        input_zero_point=zero_point,
        **COMMON,
    )


def conv(weights, zero_point=0, kind=Conv2D, **geometry):
    return kind(
        name="conv",
        weights=np.array(weights, dtype=np.int8),
        weight_bits=8,
        weight_zero_point=0,
        bias=None,
        input_zero_point=zero_point,
        **COMMON,
        **geometry,
    )


def vector(layer, dtype="int8"):
    """The input tensor of a dense layer."""
    return Tensor("x", (1, layer.weights.shape[1]), dtype, 1.0, layer.input_zero_point)


# -- hand sums ------------------------------------------------------------------------------------


def test_signs_of_the_weights_decide_the_worst_cases():
    layer = dense([[3, -2]])
    certificate = certify(layer, vector(layer), (-4, 7))
    # 3 * -4 - 2 * 7 = -26 and 3 * 7 - 2 * -4 = 29
    assert (certificate.lo.tolist(), certificate.hi.tolist()) == ([-26], [29])
    assert certificate.exact_bits.tolist() == [6]
    # K = 2, operands up to 2**7, weights up to 2**7: 2**15 needs 17 bits; 5 * 2**7 = 640 needs 11
    assert (certificate.datatype_bits, certificate.l1_bits.tolist()) == (17, [11])


def test_864_ternary_products_of_ternary_activations_need_11_bits():
    # CUTIE's popcount difference: [-864, 864], kept in 10 bits in its ocu_pool_weights.sv
    layer = dense(np.resize([1, -1], (1, 864)), weight_bits=2)
    certificate = certify(layer, vector(layer), (-1, 1))
    assert (certificate.lo.tolist(), certificate.hi.tolist()) == ([-864], [864])
    assert certificate.exact_bits.tolist() == [11]


def test_terms_of_a_weight_overshoot_the_weight():
    # 7 = 8 - 1: the accumulator holds 8 x before 7 x
    layer = dense([[7]])
    certificate = certify(layer, vector(layer), (0, 100))
    assert (certificate.hi.tolist(), certificate.term_hi.tolist()) == ([700], [800])
    assert certificate.term_lo.tolist() == [0]


def test_operands_without_zero_make_prefixes_worse_than_the_sum():
    # x in [4, 6]: 5 * 6 = 30 after one step, 5 * 6 - 3 * 4 = 18 after two
    layer = dense([[5, -3]])
    certificate = certify(layer, vector(layer), (4, 6))
    assert (certificate.lo.tolist(), certificate.hi.tolist()) == ([2], [18])
    assert (certificate.prefix_lo.tolist(), certificate.prefix_hi.tolist()) == ([0], [30])
    assert certificate.exact_bits.tolist() == [bits_needed(0, 30)]


def test_the_bias_moves_the_whole_range():
    layer = dense([[1, -1], [1, 1]], bias=[100, -3])
    certificate = certify(layer, vector(layer), (-2, 3))
    assert certificate.exact_bits.tolist() == [4, 4]  # [-5, 5], [-4, 6]
    assert certificate.exact_bits_with_bias.tolist() == [8, 4]  # [95, 105], [-7, 3]


def test_zero_points_of_activations_and_weights_are_subtracted():
    # weights 255 - 128 = 127 and 0 - 128 = -128; operands -10 .. 245
    layer = dense([[255, 0]], zero_point=10, weight_zero_point=128)
    certificate = certify(layer, vector(layer, "uint8"), (0, 255))
    assert certificate.lo.tolist() == [127 * -10 - 128 * 245]
    assert certificate.hi.tolist() == [127 * 245 - 128 * -10]


@pytest.mark.parametrize(
    ("K", "dtype", "zero_point", "bits"),
    # Gaussian-weights table of the A2Q datatype bound: u8 x s8 for K = 27, 576, 1152, 4608; s8 x s8
    [
        (27, "int8", -128, 21), (576, "int8", -128, 26), (1152, "uint8", 0, 27),
        (4608, "int8", -128, 29), (576, "int8", 0, 25),
    ],
)  # fmt: skip
def test_datatype_bound_is_the_published_one(K, dtype, zero_point, bits):
    layer = dense(np.ones((1, K)), zero_point=zero_point)
    source = vector(layer, dtype)
    assert certify(layer, source, datatype_range(source)).datatype_bits == bits


def test_spilling_between_the_terms_of_a_weight_leaves_its_last_terms_in_the_narrow_one():
    # 7 x = 8 x - x; after each step the narrow accumulator holds 8 x, then -x
    layer = dense([[7]])
    spilled = certify_spill(layer, vector(layer), (0, 10), 1, "terms")
    assert (spilled.narrow_lo.tolist(), spilled.narrow_hi.tolist()) == ([-10], [80])
    assert (spilled.wide_lo.tolist(), spilled.wide_hi.tolist()) == ([0], [80])


def test_eight_int7_products_fit_int16_and_nine_may_not():
    # EasyQuant: 8 * 63 * 63 = 31752 <= 32767 < 9 * 63 * 63
    layer = dense(np.full((1, 64), 63), weight_bits=7)
    source = vector(layer)
    assert largest_spill_interval(layer, source, (-63, 63), 16) == 8
    assert certify_spill(layer, source, (-63, 63), 8).narrow_bits.tolist() == [16]
    assert certify_spill(layer, source, (-63, 63), 9).narrow_bits.tolist() == [17]


def test_no_spill_is_needed_where_the_whole_sum_fits_and_none_helps_where_a_product_does_not():
    layer = dense([[1, 0, -1, 2]])
    source = vector(layer)
    assert largest_spill_interval(layer, source, (-1, 1), 4) is None  # the sum is in [-4, 4]
    assert largest_spill_interval(layer, source, (-1, 1), 2) == 0  # 2 x reaches 2


def test_a_smaller_spill_interval_can_be_unsafe():
    # x in [0, 1]: groups of three reach at most 2, but the pair (2, 2) reaches 4
    layer = dense([[-1, -1, 2, 2, -1, -1]])
    source = vector(layer)
    assert certify_spill(layer, source, (0, 1), 3).narrow_bits.tolist() == [3]
    assert certify_spill(layer, source, (0, 1), 2).narrow_bits.tolist() == [4]
    assert largest_spill_interval(layer, source, (0, 1), 3) == 3


def test_ternary_steps_refuse_other_weights():
    layer = dense([[2]])
    with pytest.raises(HardwareError, match="ternary"):
        certify_spill(layer, vector(layer), (0, 1), 1, "ternary")


def test_sums_beyond_62_bits_are_refused():
    layer = dense(np.full((1, 2), 127))  # 2 * 2**63 * 2**7 = 2**71
    with pytest.raises(UnsupportedError, match="73 bits"):
        certify(layer, vector(layer, "int64"), (-(2**63), 2**63 - 1))


# -- every input ----------------------------------------------------------------------------------


def contents(addends, interval):
    """What the narrow and the wide accumulator hold on the way, their initial 0 included."""
    narrow, wide = [0], [0]
    for step, addend in enumerate(addends):
        narrow.append((0 if step % interval == 0 else narrow[-1]) + addend)
        if (step + 1) % interval == 0 or step + 1 == len(addends):
            wide.append(wide[-1] + narrow[-1])
    return narrow, wide


def brute_force(outputs, decomposition, interval):
    """Extremes over `outputs`, (weight, operand) pairs each: narrow and wide accumulator."""
    reached = [contents(naive.steps_of(taps, decomposition), interval) for taps in outputs]
    return [
        (min(min(pair[stage]) for pair in reached), max(max(pair[stage]) for pair in reached))
        for stage in (0, 1)
    ]


def check_against_every_input(layer, source, codes, outputs_of_channel):
    """`outputs_of_channel[k]`: all outputs of channel k, over every input."""
    certificate = certify(layer, source, codes)
    longest = max(len(naive.steps_of(taps[0], "terms")) for taps in outputs_of_channel)
    spills = {
        (steps, interval): certify_spill(layer, source, codes, interval, steps)
        for steps in ("product", "terms")
        for interval in range(1, longest + 2)
    }
    for k, outputs in enumerate(outputs_of_channel):
        sums = [sum(w * x for w, x in taps) for taps in outputs]
        assert (certificate.lo[k], certificate.hi[k]) == (min(sums), max(sums))
        endless = longest + 1
        prefixes, _ = brute_force(outputs, "product", endless)
        assert (certificate.prefix_lo[k], certificate.prefix_hi[k]) == prefixes
        assert certificate.exact_bits[k] == bits_needed(*prefixes)
        terms, _ = brute_force(outputs, "terms", endless)
        assert (certificate.term_lo[k], certificate.term_hi[k]) == terms
        assert certificate.term_bits[k] == bits_needed(*terms)
        for (steps, interval), spill in spills.items():
            narrow, wide = brute_force(outputs, steps, interval)
            assert (spill.narrow_lo[k], spill.narrow_hi[k]) == narrow, (steps, interval)
            assert (spill.wide_lo[k], spill.wide_hi[k]) == wide, (steps, interval)
    assert certificate.exact_bits.max() <= certificate.l1_bits.max() <= certificate.datatype_bits
    for steps in ("product", "terms"):
        for acc_bits in (3, 4, 5, 6):
            count = max(len(naive.steps_of(taps[0], steps)) for taps in outputs_of_channel)
            safe = [
                interval
                for interval in range(1, count + 1)
                if spills[steps, interval].narrow_bits.max() <= acc_bits
            ]
            found = largest_spill_interval(layer, source, codes, acc_bits, steps)
            assert found == (None if count in safe or not count else max(safe, default=0))


@given(
    st.data(),
    st.integers(1, 3),
    st.integers(1, 4),
    st.tuples(st.integers(-5, 4), st.integers(0, 3)),
)
@settings(max_examples=60, deadline=None)
def test_dense_layers_reach_exactly_what_is_certified(data, channels, taps, low_and_span):
    zero_point = data.draw(st.integers(-3, 3))
    low, high = low_and_span[0], low_and_span[0] + low_and_span[1]
    row = st.lists(st.integers(-11, 11), min_size=taps, max_size=taps)
    weights = data.draw(st.lists(row, min_size=channels, max_size=channels))
    layer = dense(weights, zero_point=zero_point)
    inputs = list(product(range(low, high + 1), repeat=taps))
    outputs = [[list(zip(row, x, strict=True)) for x in inputs] for row in weights]
    codes = (low + zero_point, high + zero_point)
    check_against_every_input(layer, vector(layer), codes, outputs)


@st.composite
def small_convolutions(draw):
    """A convolution on at most 6 operands, its input shape, and a range of two codes."""
    groups = draw(st.sampled_from([1, 1, 2]))
    in_group, out_group = draw(st.integers(1, 2)) if groups == 1 else 1, draw(st.integers(1, 2))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    height, width = draw(st.sampled_from([(1, 1), (1, 3), (2, 1), (3, 1), (1, 2)]))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = []
    for size, taps, spread in zip((height, width), kernel, dilation, strict=True):
        before = draw(st.integers(0, 2))
        missing = (taps - 1) * spread + 1 - size - before
        padding += [before, draw(st.integers(max(0, missing), max(0, missing) + 2))]
    shape = (groups * out_group, *kernel, in_group)
    size = int(np.prod(shape))
    flat = draw(st.lists(st.integers(-5, 5), min_size=size, max_size=size))
    layer = conv(
        np.reshape(flat, shape),
        zero_point=draw(st.integers(-3, 3)),
        stride=draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        dilation=dilation,
        padding=Padding(*padding),
        groups=groups,
    )
    low = draw(st.integers(-3, 3))
    return layer, (1, height, width, groups * in_group), (low, low + draw(st.integers(0, 1)))


def every_output(layer, shape, x_range):
    """Per channel, the (weight, operand) pairs of all outputs over all inputs."""
    weights = layer.weights.tolist()
    pad = layer.padding
    outputs = [[] for _ in weights]
    for values in product(range(x_range[0], x_range[1] + 1), repeat=int(np.prod(shape))):
        image = np.reshape(values, shape).tolist()
        taps = naive.convolution_taps(
            *(image, weights, layer.stride, layer.dilation),
            *((pad.top, pad.bottom, pad.left, pad.right), layer.groups),
        )
        for row in taps[0]:
            for pixel in row:
                for k, pairs in enumerate(pixel):
                    outputs[k].append(pairs)
    return outputs


@given(small_convolutions())
@settings(max_examples=60, deadline=None)
def test_convolutions_reach_exactly_what_is_certified_padding_included(case):
    layer, shape, x_range = case
    source = Tensor("x", shape, "int8", 1.0, layer.input_zero_point)
    codes = tuple(x + layer.input_zero_point for x in x_range)
    assert operand_range(layer, codes) == x_range
    check_against_every_input(layer, source, codes, every_output(layer, shape, x_range))


@given(small_convolutions(), st.sampled_from(["lo", "hi"]))
@settings(max_examples=150, deadline=None)
def test_witnesses_reach_the_worst_case_wherever_the_worst_output_is(case, extreme):
    layer, shape, x_range = case
    source = Tensor("x", shape, "int8", 1.0, layer.input_zero_point)
    codes = tuple(x + layer.input_zero_point for x in x_range)
    certificate = certify(layer, source, codes)
    found = witness(layer, source, codes, extreme)
    worst = certificate.lo.min() if extreme == "lo" else certificate.hi.max()
    assert accumulators(layer, found.codes)[0][(*found.position, found.channel)] == worst
    assert found.value == worst
    assert found.codes.min() >= codes[0]
    assert found.codes.max() <= codes[1]


# -- witnesses ------------------------------------------------------------------------------------


def wide_layers():
    rng = np.random.default_rng(5)
    grouped = conv(rng.integers(-128, 128, (6, 3, 3, 2)), 4, groups=3, padding=Padding(1, 1, 1, 1))
    depthwise = conv(rng.integers(-128, 128, (8, 3, 3, 1)), -128, DepthwiseConv2D, groups=4)
    strided = conv(rng.integers(-128, 128, (4, 5, 2, 3)), 0, stride=(2, 3), dilation=(1, 2))
    return [
        (grouped, (1, 7, 6, 6)), (depthwise, (1, 5, 5, 4)), (strided, (1, 9, 8, 3)),
        (dense(rng.integers(-128, 128, (5, 30)), zero_point=-7), (1, 2, 30)),
    ]  # fmt: skip


@pytest.mark.parametrize(("layer", "shape"), wide_layers())
@pytest.mark.parametrize("steps", ["product", "terms"])
def test_witnesses_drive_the_accumulator_to_both_extremes_and_no_step_beyond(layer, shape, steps):
    source = Tensor("x", shape, "int8", 1.0, layer.input_zero_point)
    codes = datatype_range(source)
    certificate = certify(layer, source, codes)
    low, high = certificate.prefix_lo, certificate.prefix_hi
    if steps == "terms":
        low, high = certificate.term_lo, certificate.term_hi
    reached = {}
    for extreme in ("lo", "hi"):
        found = witness(layer, source, codes, extreme)
        bits = int((certificate.exact_bits if steps == "product" else certificate.term_bits).max())
        result = accumulate_layer(layer, found.codes, Accumulator(bits), steps)
        assert result.events.sum() == 0
        assert result.minimum.min() >= low.min()
        assert result.maximum.max() <= high.max()
        at = (0, *found.position, found.channel)
        at = (0, found.channel) if isinstance(layer, FullyConnected) else at
        reached[extreme] = result.exact[at]
        if extreme == "lo":
            assert result.minimum[at] == low[found.channel]
        else:
            assert result.maximum[at] == high[found.channel]
    assert reached == {"lo": certificate.lo.min(), "hi": certificate.hi.max()}


@pytest.mark.parametrize(("layer", "shape"), wide_layers())
def test_one_bit_less_than_certified_overflows_on_a_witness(layer, shape):
    source = Tensor("x", shape, "int8", 1.0, layer.input_zero_point)
    codes = datatype_range(source)
    bits = int(certify(layer, source, codes).exact_bits.max())
    events = [
        accumulate_layer(
            layer, witness(layer, source, codes, extreme).codes, Accumulator(bits - 1)
        ).events.sum()
        for extreme in ("lo", "hi")
    ]
    assert max(events) > 0


def test_the_witness_of_a_large_image_lies_in_its_middle():
    layer = conv(np.ones((1, 3, 3, 1)), padding=Padding(1, 1, 1, 1))
    found = witness(layer, Tensor("x", (1, 9, 5, 1), "int8", 1.0), (-128, 127), "hi")
    assert found.position == (4, 2)
    assert found.patch.shape == (3, 3, 1)
    assert (found.codes[0, 3:6, 1:4] == 127).all()
    assert found.codes.astype(int).sum() == 9 * 127  # zeros elsewhere


# -- ranges ---------------------------------------------------------------------------------------


def chain(*layers, shape=(1, 4, 4, 2), zero_point=-128, constants=()):
    """A network of layers one after the other; tensor i + 1 is the output of layer i."""
    tensors = [Tensor(f"t{i}", shape, "int8", 1.0, zero_point) for i in range(len(layers) + 2)]
    return Network("net", tuple(tensors), layers, (0,), (len(layers),), constants=constants)


POOL = {"kernel": (2, 2), "stride": (1, 1), "padding": Padding()}


def test_clamp_ranges_follow_the_producing_layer_through_pools_reshapes_and_pads():
    first = replace(conv(np.ones((2, 1, 1, 2)), -128), activation_min=-100, activation_max=20)
    layers = (
        first,
        MaxPool2D("max", (1,), (2,), **POOL, activation_min=-90, activation_max=127),
        Reshape("shape", (2,), (3,)),
        Pad("pad", (3,), (4,), ((0, 0), (1, 1), (1, 1), (0, 0)), -128),
        AveragePool2D("average", (4,), (5,), **POOL, activation_min=-128, activation_max=127),
    )
    ranges = clamp_ranges(chain(*layers))
    assert ranges[:6] == (
        (-128, 127), (-100, 20), (-90, 20), (-90, 20), (-128, 20), (-128, 20)
    )  # fmt: skip


def test_concatenation_unites_the_ranges_of_its_inputs_and_constants():
    first = replace(conv(np.ones((2, 1, 1, 2)), -128), activation_min=-100, activation_max=20)
    network = chain(first, Concat("join", (1, 3), (2,), axis=3))
    codes = np.array([30, 40], dtype=np.int8)
    network = replace(network, constants=(Constant(3, codes),))
    assert clamp_ranges(network)[2] == (-100, 40)


def test_what_limits_nothing_has_the_range_of_its_element_type():
    network = chain(Concat("join", (0,), (1,), axis=3, rescale=((0.5, 0),)))
    assert clamp_ranges(network)[1] == (-128, 127)
    assert datatype_range(Tensor("u", (1,), "uint8")) == (0, 255)
    assert datatype_range(Tensor("f", (1,), "float32")) is None


def test_observed_ranges_grow():
    seen = observed_range(np.array([3, -1]))
    assert observed_range(np.array([0, 9]), seen) == (-1, 9)


# -- independent numbers --------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_ranges_of_real_networks_equal_the_independent_ones_for_every_channel(model):
    file = SHARED / "models" / "mlperf_tiny" / f"{model}.tflite"
    facts = SHARED / "expected" / "layer_facts" / f"{model}.json"
    if not (file.exists() and facts.exists()):
        pytest.skip("the shared models and expected numbers are not beside the project")
    network = load_tflite(file)
    layers = [layer for layer in network.layers if isinstance(layer, WeightedLayer)]
    clamps = clamp_ranges(network)
    for layer, expected in zip(layers, json.loads(facts.read_text())["layers"], strict=True):
        source = network.tensors[layer.inputs[0]]
        for key, codes in (
            ("range_dtype", datatype_range(source)),
            ("range_producer", clamps[layer.inputs[0]]),
        ):
            certificate, oracle = certify(layer, source, codes), expected[key]
            assert (certificate.x_min, certificate.x_max) == (oracle["xmin"], oracle["xmax"])
            assert certificate.lo.min() == oracle["acc_min"]
            assert certificate.hi.max() == oracle["acc_max"]
            assert certificate.exact_bits.tolist() == oracle["acc_bits_per_channel"]
            with_bias = (certificate.lo + certificate.bias, certificate.hi + certificate.bias)
            assert with_bias[0].min() == oracle["acc_bias_min"]
            assert with_bias[1].max() == oracle["acc_bias_max"]
            assert certificate.exact_bits_with_bias.max() == oracle["acc_bias_bits"]
