"""Values of the fast model against `golden`: accumulators, overflow records, codes, networks."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path

import naive
import numpy as np
import pytest
from random_layers import PES, ROUNDINGS, random_hardware, random_layer

from golden import multipliers, operators
from golden.accumulate import Accumulator, accumulate_layer
from golden.errors import HardwareError, InputError
from golden.importers.tflite import load_tflite
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
from simulator import kernels, values
from simulator.hardware import load_hardware
from simulator.machine import simulate
from simulator.values import ArrayLayer, overflow_record
from simulator.vector import ELEMENT_WISE, run_vector

MODELS = Path(__file__).parents[2] / "shared" / "models" / "mlperf_tiny"
FIELDS = ("value", "events", "first_step", "minimum", "maximum", "persistent")


def golden_accumulator(hardware):
    array = hardware.array
    if array.spill_interval:
        return Accumulator(
            array.acc_bits, array.acc_overflow, array.spill_interval, array.wide_acc_bits
        )
    return Accumulator(array.acc_bits, array.acc_overflow)


@pytest.mark.parametrize("pe", PES)
@pytest.mark.parametrize("block", range(3))
def test_accumulators_and_codes_equal_golden(pe, block):
    rng = np.random.default_rng([11, list(PES).index(pe), block])
    overflows = 0
    for _ in range(25):
        layer, x = random_layer(rng, pe)
        hardware = random_hardware(rng, pe)
        expected = accumulate_layer(layer, x, golden_accumulator(hardware), PES[pe][2])
        found = ArrayLayer(layer, x.shape, hardware).accumulate(x)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        output = Tensor("y", (1, *expected.value.shape[1:]), "int8")
        codes, record = ArrayLayer(layer, x.shape, hardware).run(x, output)
        np.testing.assert_array_equal(
            codes, operators.post_process(layer, expected.value, output).reshape(codes.shape)
        )
        affected = expected.events > 0
        assert record.events == expected.events.sum()
        assert record.outputs_affected == affected.sum()
        assert record.transient == expected.transient.sum()
        assert record.persistent == (expected.persistent & affected).sum()
        assert record.minimum == expected.minimum.min()
        assert record.maximum == expected.maximum.max()
        assert record == overflow_record(found, hardware)
        again, counts = ArrayLayer(layer, x.shape, hardware).count_overflows(x, output)
        np.testing.assert_array_equal(again, codes)
        assert counts == (record.events, record.transient, record.persistent)
        overflows += record.events > 0
    assert overflows >= 4


@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
def test_overflows_of_long_8_bit_sums_are_counted_at_every_width(overflow):
    rng = np.random.default_rng(816)
    weights = rng.integers(-128, 128, (3, 600)).astype(np.int8)  # longer than a turn of 252 steps
    x = rng.integers(0, 256, (4, 600)).astype(np.uint8)
    weights[1], x[1] = np.where(np.arange(600) < 300, -128, 127), 255  # the largest products
    weights[2], x[2] = 127, 255  # 25 bits
    layer = replace(dense([[0]]), weights=weights)
    output = Tensor("y", (1, 3), "int8")
    for bits in range(2, 33):
        hardware = hardware_with(
            "mac4x4", acc_bits=bits, acc_overflow=overflow, activation_bits=9, weight_bits=9
        )
        plain = [
            naive.accumulate([a * b for a, b in zip(w, row, strict=True)], bits, overflow)
            for row in x.tolist()
            for w in weights.tolist()
        ]
        touched = [one for one in plain if one["events"]]
        lost = sum(bool(one["persistent"]) for one in touched)
        events = sum(one["events"] for one in plain)
        contents = np.array([[one["value"] for one in plain]]).reshape(4, 3)
        codes, counts = ArrayLayer(layer, x.shape, hardware).count_overflows(x, output)
        assert counts == (events, len(touched) - lost, lost), bits
        np.testing.assert_array_equal(codes, operators.post_process(layer, contents, output))


@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
@pytest.mark.parametrize(
    ("preset", "steps"), [("mac4x4", "product"), ("nhot2_4x4", "terms"), ("ternary4x4", "ternary")]
)
def test_every_width_from_4_to_32_equals_unlimited_python_integers(preset, steps, overflow):
    rng = np.random.default_rng(432)
    widest, taps = (1, 90) if steps == "ternary" else ((1 << 15) - 1, 24)
    weights = rng.integers(-widest, widest + 1, (3, taps)).astype(np.int16)
    x = rng.integers(-(1 << 15), 1 << 15, (4, taps)).astype(np.int16)
    weights[1], x[1] = -widest, rng.integers(30000, 32768, taps)  # 36 bits; ternary 23
    weights[2], x[2, ::2], x[2, 1::2] = 1, 3, -4  # stays small
    if steps == "ternary":
        weights = weights.astype(np.int8)
    layer = replace(dense([[0]]), weights=weights, weight_bits=8 * weights.itemsize)
    output = Tensor("y", (1, 3), "int8")
    for bits in range(4, 33):
        hardware = hardware_with(
            preset, acc_bits=bits, acc_overflow=overflow, activation_bits=16, weight_bits=16
        )
        golden = accumulate_layer(layer, x, golden_accumulator(hardware), steps)
        found = ArrayLayer(layer, x.shape, hardware).accumulate(x)
        codes, counts = ArrayLayer(layer, x.shape, hardware).count_overflows(x, output)
        plain = [
            naive.accumulate(
                naive.steps_of(list(zip(w, row, strict=True)), steps), bits, overflow, None, None
            )
            for row in x.tolist()
            for w in weights.tolist()
        ]
        for name in FIELDS:
            expected = [record[name] for record in plain]
            assert getattr(golden, name).reshape(-1).tolist() == expected, (bits, name)
            assert getattr(found, name).reshape(-1).tolist() == expected, (bits, name)
        affected = [record for record in plain if record["events"]]
        lost = sum(record["persistent"] for record in affected)
        assert counts == (sum(r["events"] for r in affected), len(affected) - lost, lost)
        exact = np.array([record["value"] for record in plain]).reshape(4, 3)
        np.testing.assert_array_equal(codes, operators.post_process(layer, exact, output))
        assert bool(affected) == (bits < 23 or steps != "ternary")


def dense(weights, **changes):
    layer = FullyConnected(
        name="dense",
        inputs=(0,),
        outputs=(1,),
        weights=np.array(weights, dtype=np.int8),
        weight_bits=8,
        weight_zero_point=0,
        bias=None,
        input_zero_point=0,
        output_zero_point=0,
        requantization=Requantization(
            np.array([1 << 30], np.int32), np.array([0], np.int32), "shift_half_up"
        ),
        activation_min=-128,
        activation_max=127,
    )
    return replace(layer, **changes)


def hardware_with(name="mac4x4", **array):
    machine = load_hardware(name)
    return machine.model_copy(update={"array": machine.array.model_copy(update=array)})


def test_transient_overflow_by_hand():
    """100, 200, 50 in 8 bits: wrap ends right, saturation ends at 127 - 150 (methods.md 4.4)."""
    layer = dense([[1, 1, -1]], input_zero_point=-50)
    x = np.array([[50, 50, 100]], dtype=np.int8)  # operands 100, 100, 150
    wrapped = ArrayLayer(layer, x.shape, hardware_with(acc_bits=8)).accumulate(x)
    assert [wrapped.value.item(), wrapped.events.item(), wrapped.first_step.item()] == [50, 2, 1]
    assert [wrapped.minimum.item(), wrapped.maximum.item()] == [0, 200]
    assert not wrapped.persistent.item()
    saturated = ArrayLayer(
        layer, x.shape, hardware_with(acc_bits=8, acc_overflow="saturate")
    ).accumulate(x)
    assert [saturated.value.item(), saturated.events.item()] == [-23, 1]


def test_eight_int7_products_fit_int16_and_int8_ones_do_not():
    """EasyQuant, section 3.3: 8 * 63 * 63 = 31752; methods.md 2.3: of int8 products 2 fit."""
    eight = np.full((1, 8), 63, dtype=np.int8)
    machine = hardware_with(acc_bits=16)
    assert ArrayLayer(dense(eight), eight.shape, machine).accumulate(eight).events.item() == 0
    three = np.full((1, 3), 127, dtype=np.int8)
    assert ArrayLayer(dense(three), three.shape, machine).accumulate(three).first_step.item() == 2


def test_spilling_every_eight_int7_products_never_overflows():
    weights = np.full((1, 64), 63, dtype=np.int8)
    machine = hardware_with(acc_bits=16, spill_interval=8, wide_acc_bits=32)
    found = ArrayLayer(dense(weights), weights.shape, machine).accumulate(weights)
    assert [found.value.item(), found.events.item()] == [64 * 63 * 63, 0]
    assert found.maximum.item() == 64 * 63 * 63


def test_a_segment_can_overflow_where_the_whole_sum_never_does():
    """-100, 0 | 100, 100 in 8 bits, spilled every 2 steps: prefixes stay in -100..100."""
    layer = dense([[1, 1, 1, 1]])
    x = np.array([[-100, 0, 100, 100]], dtype=np.int8)
    machine = hardware_with(acc_bits=8, spill_interval=2, wide_acc_bits=16)
    found = ArrayLayer(layer, x.shape, machine).accumulate(x)
    assert [found.minimum.item(), found.maximum.item()] == [-100, 100]
    assert [found.events.item(), found.first_step.item()] == [1, 3]
    assert found.value.item() == -100 + (200 - 256)


def test_sums_beyond_32_bits_stay_exact():
    """16-bit activations: 4000 * 32767 * 127 needs 35 bits."""
    machine = hardware_with(activation_bits=16, acc_bits=48)
    layer = dense(np.full((3, 4000), 127))
    x = np.full((2, 4000), 32767, dtype=np.int16)
    x[1] = -32768
    found = ArrayLayer(layer, x.shape, machine).accumulate(x)
    np.testing.assert_array_equal(found.value[0], 4000 * 32767 * 127)
    np.testing.assert_array_equal(found.minimum[1], -4000 * 32768 * 127)
    narrow = ArrayLayer(layer, x.shape, hardware_with(activation_bits=16, acc_bits=32)).accumulate(
        x
    )
    assert narrow.persistent.all()
    expected = accumulate_layer(layer, x, Accumulator(32), "product")
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(narrow, name), getattr(expected, name))


def test_a_channel_without_weights_takes_no_step():
    layer = dense([[0, 0], [5, 0]], bias=np.array([7, 0]))
    x = np.array([[1, 2]], dtype=np.int8)
    machine = load_hardware("mac4x4")
    found = ArrayLayer(layer, x.shape, machine).accumulate(x)
    assert found.value.tolist() == [[0, 5]]
    codes, _ = ArrayLayer(layer, x.shape, load_hardware("mac4x4")).run(
        x, Tensor("y", (1, 2), "int8")
    )
    assert codes.tolist() == [[7, 5]]


def test_a_layer_large_enough_for_all_threads_equals_golden():
    rng = np.random.default_rng(5)
    layer = Conv2D(
        name="conv",
        inputs=(0,),
        outputs=(1,),
        weights=rng.integers(-127, 128, (70, 3, 3, 40)).astype(np.int8),
        weight_bits=8,
        weight_zero_point=0,
        bias=rng.integers(-1000, 1000, 70),
        input_zero_point=-3,
        output_zero_point=4,
        requantization=multipliers.requantization(list(rng.random(70) * 1e-3)),
        activation_min=-128,
        activation_max=127,
        padding=Padding(1, 1, 1, 1),
    )
    x = rng.integers(-128, 128, (2, 21, 19, 40)).astype(np.int8)
    output = Tensor("y", (1, 21, 19, 70), "int8")
    codes, record = ArrayLayer(layer, x.shape, load_hardware("mac16x16")).run(x, output)
    np.testing.assert_array_equal(codes, operators.conv2d(layer, [x], output))
    assert record.events == 0
    narrow, record = ArrayLayer(layer, x.shape, hardware_with("mac16x16", acc_bits=17)).run(
        x, output
    )
    assert record.events > 0
    exact = operators.accumulators(layer, x)
    wrapped = (exact + (1 << 16)) % (1 << 17) - (1 << 16)
    np.testing.assert_array_equal(narrow, operators.post_process(layer, wrapped, output))


def test_blocks_of_a_very_large_layer_make_no_difference(monkeypatch):
    rng = np.random.default_rng(6)
    machine = hardware_with(acc_bits=12)
    for _ in range(20):
        layer, x = random_layer(rng, "mac")
        whole_layer = ArrayLayer(layer, x.shape, machine)
        output = Tensor("y", (1, *whole_layer.accumulate(x).value.shape[1:]), "int8")
        whole = whole_layer.run(x, output)
        with monkeypatch.context() as patch:
            patch.setattr(values, "BLOCK_WEIGHTS", 7)
            patch.setattr(values, "KEPT_WEIGHTS", 20)
            codes, record = ArrayLayer(layer, x.shape, machine).run(x, output)
        np.testing.assert_array_equal(codes, whole[0])
        assert record == whole[1]


def test_weights_the_pe_cannot_take_are_refused():
    with pytest.raises(HardwareError, match="--weights ternary"):
        ArrayLayer(
            dense([[2]]), np.ones((1, 1), np.int8).shape, load_hardware("ternary4x4")
        ).accumulate(np.ones((1, 1), np.int8))
    with pytest.raises(HardwareError, match="nhot:2"):
        ArrayLayer(
            dense([[21]]), np.ones((1, 1), np.int8).shape, load_hardware("nhot2_parallel_4x4")
        ).accumulate(np.ones((1, 1), np.int8))


# -- requantization -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "shift", "expected"),
    [
        ("double", 0, [-2, -1, 2, 3]),
        ("single", 0, [-2, -1, 2, 3]),
        ("shift_half_up", -1, [-2, -1, 2, 3]),
        ("shift_half_even", -1, [-2, -2, 2, 2]),
    ],
)
def test_ties_at_one_half_round_as_the_rule_says(rule, shift, expected):
    """-5/2, -3/2, 3/2, 5/2; gemmlowp's doubling multiply and plain definitions."""
    values = np.array([-5, -3, 3, 5])
    found = kernels.rescale_all(values, 1 << 30, shift, ROUNDINGS.index(rule))
    assert found.tolist() == expected


def test_double_rounding_differs_from_single_on_negative_ties():
    """x / 8 at -12: -2 against -1 (methods.md 6.1)."""
    values = np.array([-12])
    assert kernels.rescale_all(values, 1 << 30, -2, 0).tolist() == [-2]
    assert kernels.rescale_all(values, 1 << 30, -2, 1).tolist() == [-1]


@pytest.mark.parametrize("rule", range(5))
def test_rescaling_equals_golden(rule):
    rng = np.random.default_rng(rule)
    rounding = ROUNDINGS[rule]
    for _ in range(200):
        low, high = (-40, 1) if rounding.startswith("shift") else (-31, 15)
        shift = int(rng.integers(low, high))
        multiplier = int(rng.integers(0, 1 << 31))
        width = int(rng.integers(1, 47))
        values = rng.integers(-(1 << width), 1 << width, 50)
        requantization = Requantization(
            np.array([multiplier], np.int32), np.array([shift], np.int32), rounding
        )
        np.testing.assert_array_equal(
            kernels.rescale_all(values, multiplier, shift, rule),
            operators.requantize(values, requantization),
        )


# -- layers without weights -----------------------------------------------------------------------


def random_codes(rng, shape, dtype):
    info = np.iinfo(DTYPES[dtype])
    return rng.integers(info.min, info.max + 1, shape).astype(DTYPES[dtype])


def vector_cases(rng, dtype):
    """Layers of every kind with an input shape and the tensor they write."""
    info = np.iinfo(DTYPES[dtype])
    low, high = int(info.min), int(info.max)
    zero = [int(z) for z in rng.integers(low, high + 1, 3)] if dtype != "int16" else [0, 0, 0]
    image = (2, 7, 6, 5)
    requantization = multipliers.requantization(float(rng.random() * 1.5 + 0.01))
    window = ((3, 2), (2, 1), Padding(1, 1, 1, 0), low, high)
    add = multipliers.add_parameters(*(float(s) for s in rng.random(3) + 0.1), dtype)
    softmax = multipliers.softmax_parameters(1.0, float(rng.random() * 0.2 + 0.01), dtype)
    scaled = Tensor("y", image, dtype, 0.1, zero[2])
    mean = multipliers.mean_requantization(0.3, 0.2, 42)
    yield (
        Add(
            "add",
            (0, 1),
            (2,),
            (zero[0], zero[1]),
            zero[2],
            add.left_shift,
            add.input_requantizations,
            add.output_requantization,
            low,
            high,
        ),
        [image, (2, 1, 6, 1)],
        scaled,
    )
    yield (
        Mul("mul", (0, 1), (2,), (zero[0], zero[1]), zero[2], requantization, low, high - 9),
        [image, image],
        scaled,
    )
    pooled = Tensor("y", (1, 4, 6, 5), dtype)
    yield AveragePool2D("average", (0,), (1,), *window), [image], pooled
    yield MaxPool2D("max", (0,), (1,), *window), [image], pooled
    yield (
        Mean("mean", (0,), (1,), (1, 2), False, zero[0], zero[1], mean, low, high),
        [image],
        Tensor("y", (1, 5), dtype),
    )
    yield (
        Mean("mean", (0,), (1,), (2, 1), True, zero[0], zero[1], mean, low + 3, high),
        [image],
        Tensor("y", (1, 1, 1, 5), dtype),
    )
    yield (
        Softmax("softmax", (0,), (1,), softmax.multiplier, softmax.shift, softmax.diff_min),
        [(3, 11)],
        Tensor("y", (1, 11), dtype),
    )
    yield (
        Clamp("clamp", (0,), (1,), zero[0], zero[1], requantization, low // 2, high // 2),
        [image],
        scaled,
    )
    yield Quantize("requantize", (0,), (1,), zero[0], zero[2], requantization), [image], scaled
    yield (
        Dequantize("dequantize", (0,), (1,), 0.173, zero[0]),
        [image],
        Tensor("y", image, "float32"),
    )
    yield (
        Pad("pad", (0,), (1,), ((0, 0), (1, 2), (0, 3), (1, 0)), zero[0]),
        [image],
        Tensor("y", (1, 10, 9, 6), dtype),
    )
    yield Reshape("reshape", (0,), (1,)), [image], Tensor("y", (1, 42, 5), dtype)
    yield Concat("concat", (0, 1), (2,), 3), [image, (2, 7, 6, 2)], Tensor("y", (1, 7, 6, 7), dtype)
    for corners, centers in ((False, False), (True, False), (False, True)):
        yield (
            ResizeNearest("resize", (0,), (1,), corners, centers),
            [image],
            Tensor("y", (1, 13, 4, 5), dtype),
        )


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
def test_layers_without_weights_equal_golden(dtype):
    rng = np.random.default_rng(len(dtype))
    kinds = set()
    for _ in range(12):
        for layer, shapes, output in vector_cases(rng, dtype):
            inputs = [random_codes(rng, shape, dtype) for shape in shapes]
            expected = operators.OPERATORS[type(layer)](layer, inputs, output)
            found = run_vector(layer, inputs, output)
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected, err_msg=layer.name)
            kinds.add(type(layer))
    assert len(kinds) == 13


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_element_wise_layers_of_many_elements_equal_golden(dtype):
    rng = np.random.default_rng(len(dtype))
    kinds = set()
    for layer, shapes, output in vector_cases(rng, dtype):
        if isinstance(layer, ELEMENT_WISE):
            sample = shapes[0][1:]
            samples = (1 << 16) // prod(sample) + 1  # so that a table of all codes is made
            inputs = [random_codes(rng, (samples, *sample), dtype) for _ in shapes]
            expected = operators.OPERATORS[type(layer)](layer, inputs, output)
            found = run_vector(layer, inputs, output)
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected, err_msg=layer.name)
            kinds.add(type(layer))
    assert kinds == set(ELEMENT_WISE)


def test_quantizing_floats_and_rescaled_concatenation_equal_golden():
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((4, 50)) * 20).astype(np.float32)
    x[0, :4] = [0.05, -0.05, 1e30, -1e30]
    layer = Quantize("quantize", (0,), (1,), 0, 3, None)
    output = Tensor("y", (1, 50), "int8", 0.1, 3)
    np.testing.assert_array_equal(
        run_vector(layer, [x], output), operators.quantize(layer, [x], output)
    )
    codes = [random_codes(rng, (2, 300), "uint8") for _ in range(3)]
    concat = Concat("concat", (0, 1, 2), (3,), 1, ((0.1, 4), (0.037, 120), (0.21, 255)))
    target = Tensor("y", (1, 900), "uint8", 0.1, 4)
    np.testing.assert_array_equal(
        run_vector(concat, codes, target), operators.concat(concat, codes, target)
    )


# -- networks -------------------------------------------------------------------------------------


def model(name):
    path = MODELS / name
    if not path.exists():
        pytest.skip(f"{name} is in the folder shared beside the checkout, which is absent")
    return load_tflite(path)


@pytest.mark.parametrize(
    "name", ["ad01_int8.tflite", "kws_ref_model.tflite", "pretrainedResnet_quant.tflite"]
)
@pytest.mark.parametrize(
    ("hardware", "weights"),
    [("mac16x16", "as-is"), ("nhot2_16x16", "as-is"), ("nhot2_parallel", "nhot:2")],
)
def test_mlperf_tiny_networks_equal_golden(name, hardware, weights):
    network = model(name)
    rng = np.random.default_rng(0)
    x = random_codes(rng, (3, *network.tensors[network.inputs[0]].shape[1:]), "int8")
    result = simulate(network, load_hardware(hardware), [x], weights=weights)
    expected = run(result.network, [x])
    assert result.overflow_events == 0
    for found, wanted in zip(result.outputs, expected.outputs, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.slow
def test_keyword_spotting_is_the_same_at_both_speeds():
    network = model("kws_ref_model.tflite")
    x = random_codes(np.random.default_rng(0), (1, 49, 10, 1), "int8")
    fast, stepped = (
        simulate(network, load_hardware("mac16x16"), [x], speed=speed)
        for speed in ("fast", "stepped")
    )
    assert fast.to_dict() == stepped.to_dict()
    np.testing.assert_array_equal(fast.outputs[0], stepped.outputs[0])


def small_network():
    layer = dense(np.eye(4, dtype=np.int8) * 3)
    tensors = (Tensor("x", (1, 4), "int8", 0.5, 0), Tensor("y", (1, 4), "int8", 0.5, 0))
    return Network("small", tensors, (layer,), (0,), (1,))


def network_with_constants(rng):
    """A dense layer, then mul, add and concat with constants, each on another side."""
    names = ("x", "dense", "mul", "add", "cat", "gain", "offset", "tail")
    shapes = ((1, 3, 4),) * 4 + ((1, 3, 9), (1, 1, 4), (1, 3, 1), (1, 3, 5))
    zeros = [int(z) for z in rng.integers(-128, 128, 8)]
    zeros[4] = zeros[7] = zeros[3]
    tensors = tuple(
        Tensor(*each[:2], "int8", 0.5, each[2]) for each in zip(names, shapes, zeros, strict=True)
    )
    sum_rules = multipliers.add_parameters(0.5, 0.25, 0.7, "int8")
    clamp = {"activation_min": -128, "activation_max": 127}
    layers = (
        dense(
            rng.integers(-128, 128, (4, 4)),
            input_zero_point=zeros[0],
            output_zero_point=zeros[1],
            requantization=multipliers.requantization(0.004),
        ),
        Mul(
            "mul",
            (5, 1),
            (2,),
            (zeros[5], zeros[1]),
            zeros[2],
            multipliers.requantization(0.01),
            **clamp,
        ),
        Add(
            *("add", (2, 6), (3,), (zeros[2], zeros[6]), zeros[3], sum_rules.left_shift),
            *(sum_rules.input_requantizations, sum_rules.output_requantization),
            **clamp,
        ),
        Concat("cat", (7, 3), (4,), 2),
    )
    constants = tuple(Constant(i, random_codes(rng, shapes[i], "int8")) for i in (5, 6, 7))
    return Network("constants", tensors, layers, (0,), (4, 2), constants=constants)


@pytest.mark.parametrize("speed", ["fast", "stepped"])
@pytest.mark.parametrize("weights", ["as-is", "nhot:2", "ternary"])
def test_networks_with_constants_equal_golden(speed, weights):
    rng = np.random.default_rng(5)
    network = network_with_constants(rng)
    x = random_codes(rng, (7, 3, 4), "int8")
    hardware = hardware_with(acc_bits=32)
    result = simulate(network, hardware, [x], weights=weights, speed=speed)
    expected = run(result.network, [x])
    assert result.network.constants == network.constants
    for found, wanted in zip(result.outputs, expected.outputs, strict=True):
        assert len(np.unique(wanted)) > 5
        np.testing.assert_array_equal(found, wanted, strict=True)
    for i in range(7):  # constants are the same for every sample
        alone = run(result.network, [x[[i]]]).outputs
        np.testing.assert_array_equal(alone[0][0], expected.outputs[0][i])


def test_constants_by_hand():
    # y = (x - 1) * (c + 3) - 5; c + 3 is 0, 2, 7
    tensors = (
        Tensor("x", (1, 2, 3), "int8", 1.0, 1),
        Tensor("c", (1, 1, 3), "int8", 1.0, -3),
        Tensor("y", (1, 2, 3), "int8", 1.0, -5),
    )
    layer = Mul("mul", (1, 0), (2,), (-3, 1), -5, multipliers.requantization(1.0), -128, 127)
    constant = Constant(1, np.array([[[-3, -1, 4]]], np.int8))
    network = Network("hand", tensors, (layer,), (0,), (2,), constants=(constant,))
    x = np.array([[[1, 2, 3], [4, 5, 6]], [[11, 11, 11], [-99, -99, -99]]], np.int8)
    result = simulate(network, load_hardware("mac4x4"), [x])
    expected = [[[-5, -3, 9], [-5, 3, 30]], [[-5, 15, 65], [-5, -128, -128]]]
    assert result.outputs[0].tolist() == expected
    kept = run(network, [x], keep_tensors=True).tensors
    assert kept[2].tolist() == expected
    assert kept[1].tolist() == 2 * constant.codes.tolist()


@pytest.mark.parametrize("values", [False, True])
def test_a_constant_is_loaded_like_any_input(values):
    rng = np.random.default_rng(6)
    network = network_with_constants(rng)
    x = random_codes(rng, (2, 3, 4), "int8")
    result = simulate(network, load_hardware("mac4x4"), [x] if values else None, values=values)
    dense_layer, mul, add, cat = result.layers
    assert dense_layer.dram_bytes > 0
    # broadcasts are the host's: bytes of the constant, of the computed operand, and of the output
    assert (mul.unit, add.unit, cat.unit) == ("host", "host", "vector")
    assert mul.timing.events.dram_read_bytes == 4 + 12
    assert add.timing.events.dram_read_bytes == 12 + 3
    assert [layer.timing.events.dram_write_bytes for layer in (mul, add)] == [12, 12]
    # 3 pixels of 5 and 4 channels, words of 2: 3 and 2 planes are read; both write 3 of the 5
    assert cat.timing.events.activation_load_bytes == 3 * 2 * (3 + 2)
    assert cat.timing.events.dram_write_bytes == 3 * 2 * (3 + 3)
    # 4 bytes a cycle, latency 20, 2 lanes: load, compute, store
    assert mul.timing.cycles == 20 + 4 + 6 + 20 + 3
    assert add.timing.cycles == 20 + 4 + 6 + 20 + 3


def test_the_run_document_adds_up():
    x = np.array([[1, 2, 3, 4], [-5, 6, 7, 8]], dtype=np.int8)
    calls = []
    result = simulate(
        small_network(),
        load_hardware("mac4x4"),
        [x],
        progress=lambda *args: calls.append(args),
    )
    assert result.outputs[0].tolist() == (3 * x).tolist()
    document = result.to_dict()
    assert document["schema"] == "napier.run/1"
    (layer,) = document["layers"]
    assert layer["macs"] == 16
    assert layer["steps"] == 4
    assert layer["cycles"] == sum(layer["cycles_by_cause"].values()) == document["totals"]["cycles"]
    assert layer["utilization"] == 4 / (16 * layer["cycles"])
    parts = {k: v for k, v in layer["energy_pj"].items() if k != "total"}
    assert sum(parts.values()) == pytest.approx(layer["energy_pj"]["total"], rel=1e-12)
    assert layer["accumulator"] == {
        "bits": 24,
        "overflow": "wrap",
        "events": 0,
        "outputs_affected": 0,
        "transient": 0,
        "persistent": 0,
        "min": -15,
        "max": 24,
        "bits_needed": 6,
    }
    assert document["totals"]["seconds"] == layer["cycles"] / 500e6
    assert calls == [(0, 1, "dense"), (1, 1, "done")]


def test_without_values_cycles_are_the_same_and_nothing_is_observed():
    network, machine = small_network(), load_hardware("mac4x4")
    seen = simulate(network, machine, [np.ones((5, 4), np.int8)])
    blind = simulate(network, machine, values=False)
    assert blind.cycles == seen.cycles
    assert blind.outputs == ()
    assert blind.to_dict()["layers"][0]["accumulator"] is None
    assert blind.to_dict()["totals"]["overflow_events"] is None


def test_a_network_that_was_written_to_is_planned_again():
    network, machine = small_network(), load_hardware("mac4x4")
    x = np.ones((1, 4), np.int8)
    first = simulate(network, machine, [x])
    network.layers[0].weights[:] = 0
    second = simulate(network, machine, [x])
    assert (first.steps > 0, second.steps) == (True, 0)
    assert second.cycles < first.cycles
    assert second.layers == simulate(network, machine, [x], speed="stepped").layers


def test_what_is_written_into_a_result_stays_there():
    network, machine = small_network(), load_hardware("mac4x4")
    expected = simulate(network, machine, values=False).to_dict()
    simulate(network, machine, values=False).layers[0].timing.cycles_by_cause.clear()
    assert simulate(network, machine, values=False).to_dict() == expected


@pytest.mark.parametrize(
    ("inputs", "options", "sentence"),
    [
        (None, {}, "needs inputs"),
        ([np.ones((1, 4), np.int8)], {"speed": "slow"}, "speed must be fast or stepped"),
        (None, {"speed": "stepped", "values": False}, "use speed fast"),
        ([np.ones((1, 4), np.int16)], {}, "array of int8, not int16"),
        ([np.ones((1, 5), np.int8)], {}, r"must have the shape \(N, 4,\), but has \(1, 5\)"),
        ([np.ones((0, 4), np.int8)], {}, "holds no sample"),
        ([], {}, "takes 1 inputs, but 0 were given"),
        ({7: np.ones((1, 4), np.int8)}, {}, r"takes the tensors \[0\], but \[7\]"),
        ([np.ones((1, 4), np.int8)], {"weights": "nhot:0"}, "N from 1 to 8"),
        ([np.ones((1, 4), np.int8)], {"weights": "binary"}, "not 'binary'"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(inputs, options, sentence):
    with pytest.raises(InputError, match=sentence):
        simulate(small_network(), load_hardware("mac4x4"), inputs, **options)
