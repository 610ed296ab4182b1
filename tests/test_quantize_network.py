"""Float networks to integer ones: scales, codes, biases and clamps, and what searches aim at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from golden.errors import InputError, UnsupportedError
from golden.float_network import (
    FloatAdd,
    FloatConcat,
    FloatConstant,
    FloatConv2D,
    FloatDense,
    FloatLayer,
    FloatMean,
    FloatMul,
    FloatNetwork,
    FloatPad,
    FloatPool2D,
    FloatReshape,
    FloatSoftmax,
    FloatTensor,
)
from golden.float_run import linear, rounded, run_float
from golden.multipliers import Activation
from golden.network import Conv2D, Network, Padding, WeightedLayer
from golden.quantization.activations import QuantizationParameters
from golden.quantization.assemble import assemble, tied_tensors
from golden.quantization.calibrate import (
    QuantizedNetwork,
    Settings,
    WeightSettings,
    _channel_gains,
    _moments,
    _Walk,
    activation_bits,
    quantize_network,
)
from golden.quantization.from_integer import dequantize
from golden.quantization.method import WeightCodes
from golden.quantization.nhot_activations import run_nhot
from golden.quantization.partial_sums import guaranteed_products, partial_sum_plan
from golden.quantization.registry import parse_method
from golden.run import run
from napier.loading import load_model, shipped_digits

Array = NDArray[Any]


def with_method(text: str, bits: int = 8, **others: Any) -> Settings:
    method, options = parse_method(text)
    return Settings(WeightSettings(method, options, bits), **others)


def dense(
    weights: Any, bias: Any, activation: Activation = "none", name: str = "dense"
) -> FloatDense:
    w, b = np.asarray(weights, np.float32), np.asarray(bias, np.float32)
    return FloatDense(name, (0,), (1,), w, b, activation)


def one_layer(layer: FloatLayer, source: tuple[int, ...], target: tuple[int, ...]) -> FloatNetwork:
    tensors = (FloatTensor("x", source), FloatTensor("y", target))
    return FloatNetwork("one", tensors, (layer,), (0,), (1,))


def images(*shape: int, seed: int = 3) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def residual_network() -> FloatNetwork:
    """Every kind of layer once: conv, depthwise, add, pools, pad, concat, mul, dense, softmax."""
    rng = np.random.default_rng(11)

    def weights(*shape: int) -> NDArray[np.float32]:
        fan_in = int(np.prod(shape[1:]))
        return rng.normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32)

    def conv(name: str, ends: tuple[int, int], w: Any, **others: Any) -> FloatConv2D:
        bias = rng.normal(0, 0.1, len(w)).astype(np.float32)
        return FloatConv2D(name, (ends[0],), (ends[1],), w, bias, "relu", **others)

    around = Padding(1, 1, 1, 1)
    shapes = [
        (1, 6, 6, 2), (1, 6, 6, 4), (1, 6, 6, 4), (1, 6, 6, 4), (1, 3, 3, 4), (1, 3, 3, 4),
        (1, 3, 3, 8), (1, 5, 5, 8), (1, 5, 5, 8), (1, 5, 5, 8), (1, 5, 5, 6), (1, 6), (1, 6),
        (1, 3), (1, 3), (1, 1, 1, 8),
    ]  # fmt: skip
    layers: tuple[FloatLayer, ...] = (
        conv("stem", (0, 1), weights(4, 3, 3, 2), padding=around),
        conv("depthwise", (1, 2), weights(4, 3, 3, 1), padding=around, groups=4),
        FloatAdd("add", (1, 2), (3,), "relu"),
        FloatPool2D("max", (3,), (4,), "max", (2, 2), (2, 2), Padding()),
        FloatPool2D("average", (4,), (5,), "average", (3, 3), (1, 1), around),
        FloatConcat("concat", (4, 5), (6,), 3),
        FloatPad("pad", (6,), (7,), ((0, 0), (1, 1), (1, 1), (0, 0))),
        FloatMul("mul", (7, 15), (8,)),
        FloatAdd("shift", (8, 15), (9,), "relu6"),
        conv("grouped", (9, 10), weights(6, 1, 1, 4), groups=2),
        FloatMean("mean", (10,), (11,), (1, 2), False),
        FloatReshape("flat", (11,), (12,)),
        FloatDense("dense", (12,), (13,), weights(3, 6), np.zeros(3, np.float32), "none"),
        FloatSoftmax("softmax", (13,), (14,)),
    )
    constant = FloatConstant(15, rng.uniform(0.5, 1.5, (1, 1, 1, 8)).astype(np.float32))
    tensors = tuple(FloatTensor(f"t{i}", shape) for i, shape in enumerate(shapes))
    return FloatNetwork("residual", tensors, layers, (0,), (14,), "", (constant,))


def digits() -> tuple[Network, Array, Array]:
    images, labels = shipped_digits()
    return load_model(None), images[:120], labels[:120]


def real_digits() -> tuple[FloatNetwork, NDArray[np.float32], dict[int, QuantizationParameters]]:
    network, codes, _ = digits()
    found = dequantize(network)
    scale = network.tensors[0].scale
    assert scale is not None
    return found.network, ((codes + 128.0) * scale).astype(np.float32), found.parameters


@pytest.mark.parametrize(("terms", "total"), [(1, 8 + 4), (2, 7 + 6), (3, 7 + 6)])
def test_layers_multiply_by_nhot_activations(terms: int, total: int) -> None:
    """7 = 8 - 1 becomes 8, and 6 = 4 + 2, as near to 8, becomes 4; the sum is that of the codes."""
    network = one_layer(dense([[127, 127]], [0]), (1, 2), (1, 1))
    scales = {0: 1.0, 1: 127.0}
    parameters = {i: QuantizationParameters(s, 0, -128, 127) for i, s in scales.items()}
    found = quantize_network(network, with_method("uniform"), None, parameters)
    codes = np.array([[7, 6]], np.int8)
    assert run_nhot(found.network, found.parameters, [codes], terms)[0].item() == total


# -- assembly --------------------------------------------------------------------------------------


def test_codes_biases_and_multipliers_follow_from_the_scales_by_hand() -> None:
    # weights 0.5 * (2, -1), inputs 0.25 * (x - 3), outputs 0.125 * (y + 1):
    # bias 1.0 is 1 / (0.25 * 0.5) = 8, the multiplier 0.25 * 0.5 / 0.125 = 1 = 2**30 * 2**(1 - 30)
    network = one_layer(dense([[1.0, -0.5]], [1.0], "relu6"), (1, 2), (1, 1))
    parameters = {
        0: QuantizationParameters(0.25, 3, -128, 127),
        1: QuantizationParameters(0.125, -1, -60, 60),
    }
    codes = WeightCodes(np.array([[2, -1]]), np.array([0.5]), 4, 8.0)
    (layer,) = assemble(network, parameters, {"dense": codes}).network.layers
    assert isinstance(layer, WeightedLayer)
    assert layer.weights.tolist() == [[2, -1]]
    assert layer.weight_bits == 4
    assert layer.bias is not None
    assert layer.bias.tolist() == [8]
    assert layer.requantization.multiplier.tolist() == [1 << 30]
    assert layer.requantization.shift.tolist() == [1]
    assert (layer.input_zero_point, layer.output_zero_point) == (3, -1)
    # relu6 is the codes -1 to -1 + 6 / 0.125 = 47, inside -60 to 60
    assert (layer.activation_min, layer.activation_max) == (-1, 47)


def test_weights_with_a_zero_point_are_unsigned() -> None:
    network = one_layer(dense([[1.0, -0.5]], [0.0]), (1, 2), (1, 1))
    parameters = {i: QuantizationParameters(1.0, 0, -128, 127) for i in (0, 1)}
    codes = WeightCodes(np.array([[255, 0]]), np.array([0.5]), 8, 16.0, 85)
    (layer,) = assemble(network, parameters, {"dense": codes}).network.layers
    assert isinstance(layer, WeightedLayer)
    assert layer.weights.dtype == np.uint8
    assert layer.weight_zero_point == 85


def test_weights_that_are_all_negative_have_a_zero_point_of_255() -> None:
    """All codes are below 128, and still not int8, whose zero point is 0."""
    network = one_layer(dense([[-4.0, -2.1]], [0.0]), (1, 2), (1, 1))
    found = quantize_network(
        network, with_method("uniform:per=tensor,scheme=asymmetric"), images(4, 2)
    )
    (layer,) = found.network.layers
    assert isinstance(layer, WeightedLayer)
    assert (layer.weights.dtype, layer.weight_zero_point) == (np.uint8, 255)
    assert layer.weights.tolist() == [[0, 121]]  # 255 - rint(2.1 * 255 / 4 = 133.875)


def test_a_bias_too_large_for_its_scale_takes_its_scale_from_the_bias() -> None:
    network = one_layer(dense([[1e-9, 5e-10], [1.0, 1.0]], [4.0, 0.0]), (1, 2), (1, 2))
    parameters = {i: QuantizationParameters(0.5, 0, -127, 127) for i in (0, 1)}
    codes = WeightCodes(np.array([[127, 64], [127, 127]]), np.array([1e-11, 1 / 127]), 8, 32.0)
    (layer,) = assemble(network, parameters, {"dense": codes}).network.layers
    assert isinstance(layer, WeightedLayer)
    assert layer.bias is not None
    assert layer.bias.tolist() == [1 << 30, 0]
    assert set(layer.weights[0].tolist()) <= {64, 127}  # what the layer uses anyway


def test_a_quantized_network_tells_the_codes_that_it_stores() -> None:
    network = one_layer(dense([[1e-9, 5e-10], [1.0, 1.0]], [4.0, 0.0]), (1, 2), (1, 2))
    found = quantize_network(network, with_method("nhot:n=2"), images(8, 2))
    (layer,) = found.network.layers
    assert isinstance(layer, WeightedLayer)
    np.testing.assert_array_equal(found.weights["dense"].codes, layer.weights)
    scales = found.weights["dense"].scales * found.parameters[0].scale
    np.testing.assert_array_equal(layer.bias, np.rint(found.biases["dense"] / scales))


def test_a_channel_without_weights_keeps_its_bias() -> None:
    network = one_layer(dense([[0.0], [1.0]], [0.3, 0.0]), (1, 1), (1, 2))
    found = quantize_network(network, with_method("uniform"), np.float32([[1.0], [-1.0]]))
    output = run(found.network, np.zeros((1, 1), np.int8) + found.parameters[0].zero_point)
    real = found.parameters[1].reals(output.outputs[0])
    assert abs(real[0, 0] - 0.3) <= found.parameters[1].scale / 2


def test_layers_that_move_codes_share_one_scale() -> None:
    network = residual_network()
    groups = tied_tensors(network)
    # add's output 3, both pools, their concatenation and the pad; mean's output and its reshape
    assert [i for i, group in enumerate(groups) if group == 3] == [3, 4, 5, 6, 7]
    assert [i for i, group in enumerate(groups) if group == 11] == [11, 12]
    found = quantize_network(network, with_method("uniform"), images(8, 6, 6, 2))
    assert len({(found.network.tensors[i].scale) for i in (3, 4, 5, 6, 7)}) == 1
    softmax = found.network.tensors[14]
    assert (softmax.scale, softmax.zero_point) == (1 / 256, -128)


def test_a_softmax_joined_with_something_else_is_refused() -> None:
    layers = (
        dense(np.eye(2), np.zeros(2)),
        FloatSoftmax("softmax", (1,), (2,)),
        FloatConcat("concat", (1, 2), (3,), 1),
    )
    shapes = [(1, 2), (1, 2), (1, 2), (1, 4)]
    tensors = tuple(FloatTensor(f"t{i}", shape) for i, shape in enumerate(shapes))
    network = FloatNetwork("joined", tensors, layers, (0,), (3,))
    with pytest.raises(UnsupportedError, match="'dense' shares its output's scale with a softmax"):
        quantize_network(network, with_method("uniform"), images(4, 2))


# -- activations -----------------------------------------------------------------------------------


def test_narrow_activations_are_clamped_between_inputs_and_results_of_eight_bits() -> None:
    network = residual_network()
    settings = with_method("uniform", activation_bits=4)
    bits = activation_bits(network, settings)
    assert bits[0] == bits[13] == bits[14] == 8
    assert {bits[i] for i in range(1, 13)} == {4}
    found = quantize_network(network, settings, images(8, 6, 6, 2))
    codes = found.parameters[0].codes(images(5, 6, 6, 2, seed=4)).astype(np.int8)
    tensors = run(found.network, codes, keep_tensors=True).tensors
    for index in range(1, 13):
        assert tensors[index].min() >= -8, index
        assert tensors[index].max() <= 7, index
    assert int(tensors[13].max()) - int(tensors[13].min()) > 15


def test_a_result_that_shares_its_scale_with_what_is_multiplied_has_its_bits() -> None:
    network = residual_network()
    both = replace(network, outputs=(4, 14))  # the pool before the other pool and the concat
    settings = with_method("uniform", activation_bits=4)
    assert activation_bits(both, settings) == activation_bits(network, settings)
    pool = FloatPool2D("end", (3,), (16,), "max", (2, 2), (2, 2), Padding())
    tensors = (*network.tensors, FloatTensor("end", (1, 3, 3, 4)))
    ended = replace(network, tensors=tensors, layers=(*network.layers, pool), outputs=(14, 16))
    bits = activation_bits(ended, settings)
    assert [bits[i] for i in (3, 4, 14, 16)] == [4, 4, 8, 4]


def test_kept_ends_are_uniform_with_eight_bits() -> None:
    network = residual_network()
    settings = with_method("twn", bits=2, activation_bits=4, keep_ends=True)
    assert activation_bits(network, settings)[12] == 8
    found = quantize_network(network, settings, images(8, 6, 6, 2))
    chosen = {name: (each.text, each.bits) for name, each in found.settings.items()}
    assert chosen["stem"] == chosen["dense"] == ("uniform", 8)
    assert chosen["depthwise"] == chosen["grouped"] == ("twn", 2)


def test_symmetric_codes_leave_out_the_most_negative_one() -> None:
    found = quantize_network(
        residual_network(),
        with_method("uniform", bits=7, activation_bits=7, scheme="symmetric"),
        images(8, 6, 6, 2),
    )
    layer = found.network.layers[1]
    assert isinstance(layer, WeightedLayer)
    assert (layer.activation_min, layer.activation_max) == (0, 63)  # relu
    assert {tensor.zero_point for tensor in found.network.tensors[:14]} == {0}


# -- the quantized prefix --------------------------------------------------------------------------


def test_moments_are_sums_over_outputs_and_samples() -> None:
    layer = FloatConv2D(
        *("c", (0,), (1,), images(4, 2, 2, 1), np.zeros(4, np.float32), "none"),
        stride=(1, 2),
        padding=Padding(0, 1, 1, 0),
        groups=2,
    )
    real, quantized = images(3, 3, 4, 2), images(3, 3, 4, 2, seed=9)
    found = _moments(layer, quantized, real)
    gram, cross, power = np.zeros((2, 4, 4)), np.zeros((4, 4)), np.zeros(4)
    padded = [np.pad(x, ((0, 0), (0, 1), (1, 0), (0, 0))).astype(float) for x in (real, quantized)]
    for n in range(3):
        for p in range(3):
            for q in range(2):
                for c in range(4):
                    group = c // 2
                    windows = [x[n, p : p + 2, 2 * q : 2 * q + 2, group] for x in padded]
                    output = (windows[0] * layer.weights[c, :, :, 0]).sum()
                    taps = windows[1].reshape(-1)
                    cross[c] += taps * output
                    power[c] += output**2
                    gram[group] += np.outer(taps, taps) * (c % 2 == 0)
    np.testing.assert_allclose(found.gram, gram, rtol=1e-5)
    np.testing.assert_allclose(found.cross, cross, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.power, power, rtol=1e-5)


def test_every_layer_sees_what_the_quantized_layers_before_it_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from golden.quantization import calibrate

    seen: dict[str, Array] = {}

    def spy(layer: Any, quantized: Array, real: Array) -> Any:
        seen[layer.name] = quantized
        return _moments(layer, quantized, real)

    monkeypatch.setattr(calibrate, "_moments", spy)
    network, samples = residual_network(), images(6, 6, 6, 2)
    found = quantize_network(network, with_method("easyquant", bits=4, rule="max"), samples)
    fake = {
        layer.name: replace(
            layer,
            weights=(found.weights[layer.name].scales[:, None] * found.weights[layer.name].codes)
            .reshape(layer.weights.shape)
            .astype(np.float32),
        )
        for layer in network.layers
        if isinstance(layer, FloatConv2D | FloatDense)
    }
    layers = tuple(fake.get(layer.name, layer) for layer in network.layers)
    tensors = run_float(replace(network, layers=layers), samples, found.parameters)
    assert set(seen) == {"stem", "depthwise", "grouped", "dense"}
    for layer in layers:
        if layer.name in seen:
            np.testing.assert_allclose(seen[layer.name], tensors[layer.inputs[0]], atol=1e-6)


def output_cosine(found: QuantizedNetwork, network: FloatNetwork, samples: Array) -> float:
    codes = found.parameters[0].codes(samples).astype(np.int8)
    index = network.outputs[0]
    real = run_float(network, samples)[index].ravel()
    quantized = found.parameters[index].reals(run(found.network, codes).outputs[0]).ravel()
    return float(real @ quantized / np.sqrt((real @ real) * (quantized @ quantized)))


def test_easyquant_is_nearer_than_the_largest_value_at_few_bits() -> None:
    network, samples, _ = real_digits()
    few = {"activation_bits": 4, "scheme": "symmetric"}
    by_range = quantize_network(network, with_method("uniform", 4, **few), samples[:40])
    searched = quantize_network(
        network, with_method("easyquant", 4, **few, search="paper"), samples[:40]
    )
    cosines = [output_cosine(each, network, samples[40:80]) for each in (by_range, searched)]
    assert cosines[1] > cosines[0]


def test_what_sums_and_means_read_is_searched_too() -> None:
    """The largest value of each tensor is far out, so that every search clips it."""
    network = residual_network()
    samples = images(20, 6, 6, 2)
    samples[0] *= 4
    settings = {"activation_bits": 4, "scheme": "symmetric"}
    by_range = quantize_network(network, with_method("uniform", 4, **settings), samples)
    searched = quantize_network(
        network, with_method("easyquant", 4, **settings, search="paper"), samples
    )
    ratios = [searched.parameters[i].scale / by_range.parameters[i].scale for i in range(15)]
    read = [0, 1, 2, 3, 8, 9, 10, 11]  # 4 to 7 share the scale of 3, 12 that of 11
    assert all(ratios[i] < 0.95 for i in (1, 2, 10))  # of sums and the mean
    assert all(ratios[i] != 1 for i in read)
    assert ratios[13] == 1  # the result stays
    assert searched.parameters[15] == by_range.parameters[15]  # and a stored factor


def test_an_average_reads_codes_that_its_own_scale_has_clipped() -> None:
    """0 and 9 are averaged as 0 and 7, or 0 and 5; halves go to even codes."""
    layer = FloatPool2D("average", (0,), (1,), "average", (1, 2), (1, 2), Padding())
    reader = FloatMean("mean", (1,), (2,), (1, 2), False)
    shapes = ((1, 1, 2, 1), (1, 1, 1, 1), (1, 1))
    tensors = tuple(FloatTensor(f"t{i}", shape) for i, shape in enumerate(shapes))
    network = FloatNetwork("average", tensors, (layer, reader), (0,), (2,))
    x = np.array([0, 9], np.float32).reshape(1, 1, 2, 1)
    walk = _Walk(network, {0: x})
    walk.step(layer, {}, None, {})
    assert walk.read(1, QuantizationParameters(1.0, 0, -7, 7)).item() == 4
    assert walk.read(1, QuantizationParameters(1.0, 0, -5, 5)).item() == 2
    assert walk.real[1].item() == 4.5


def test_scales_take_up_what_clipping_took_from_a_channel() -> None:
    """Channel 0 comes out at half its length, channel 1 as it is, channel 2 not at all."""
    aims = np.array([[2.0, 1, 3], [4, -1, 3]], np.float32)
    found = np.array([[1.0, 1, 0], [2, -1, 0]], np.float32)
    assert _channel_gains(aims, found).tolist() == [2, 1, 1]


def test_noise_of_codes_that_cancel_is_not_lengthened() -> None:
    aims = np.array([[2.0, 16], [4, -16]], np.float32)
    found = np.array([[1e-10, 1.25], [2e-10, -1.25]], np.float32)
    assert _channel_gains(aims, found).tolist() == [1, 12.8]


def test_corrected_biases_take_up_the_mean_error() -> None:
    network, samples, _ = real_digits()
    errors = []
    for correct in (False, True):
        found = quantize_network(network, with_method("twn", correct_bias=correct), samples[:60])
        codes = found.parameters[0].codes(samples[:60]).astype(np.int8)
        tensors = run(found.network, codes, keep_tensors=True).tensors
        real = run_float(network, samples[:60])[6]  # block_2 has no activation
        error = real - found.parameters[6].reals(tensors[6])
        errors.append(float(np.abs(error.mean(axis=(0, 1, 2))).max()))
    assert errors[1] < errors[0] / 4


def test_rounded_values_are_those_of_the_codes() -> None:
    parameters = QuantizationParameters(0.1, 3, -8, 7)
    values = images(50)
    expected = parameters.reals(parameters.codes(values))
    np.testing.assert_allclose(rounded(values, parameters), expected, rtol=1e-6)


def test_quantized_networks_compute_in_integers_what_rounding_says_in_floats() -> None:
    network, samples = residual_network(), images(30, 6, 6, 2)
    found = quantize_network(network, with_method("uniform"), samples)
    assert output_cosine(found, network, samples) > 0.9995


# -- integer networks again ------------------------------------------------------------------------


def test_a_network_made_float_and_quantized_again_with_its_own_scales_is_the_same() -> None:
    network, codes, _ = digits()
    found = dequantize(network)
    again = quantize_network(found.network, with_method("uniform"), None, found.parameters)
    for before, after in zip(network.layers, again.network.layers, strict=True):
        if isinstance(before, WeightedLayer):
            assert isinstance(after, WeightedLayer)
            assert (before.weights == after.weights).all()
            assert before.bias is not None
            assert after.bias is not None
            assert np.abs(before.bias - after.bias).max() <= 1
            assert (after.activation_min, after.activation_max) == (-128, 127)
    outputs = [run(each, codes).outputs[0].astype(int) for each in (network, again.network)]
    assert np.abs(outputs[0] - outputs[1]).max() <= 1


def test_the_float_network_of_an_integer_one_is_within_its_rounding() -> None:
    network, codes, labels = digits()
    found, samples, parameters = real_digits()
    real = run_float(found, samples)[found.outputs[0]]
    quantized = parameters[found.outputs[0]].reals(run(network, codes).outputs[0])
    assert np.corrcoef(real.ravel(), quantized.ravel())[0, 1] > 0.999
    assert (real.argmax(axis=1) == labels).mean() > 0.97
    assert [layer.activation for layer in found.layers if isinstance(layer, FloatConv2D)] == [
        *["relu"] * 5,
        "none",
    ]


# -- partial sums ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "symmetric", "full"), [(8, 2, 1), (7, 8, 7), (6, 34, 31)]
)  # methods of EasyQuant, 3.3, and the same sums with -2**(bits - 1)
def test_products_that_fit_sixteen_bits(bits: int, symmetric: int, full: int) -> None:
    assert guaranteed_products(bits) == symmetric
    assert guaranteed_products(bits, symmetric=False) == full


def test_the_plan_spills_after_eight_of_the_largest_int7_products() -> None:
    # 63 * 63 = 3969; 8 * 3969 = 31752 fits 16 bits, 9 * 3969 = 35721 does not
    rng = np.random.default_rng(2)
    weights = np.concatenate([np.full((1, 20), 63), rng.integers(-20, 20, (3, 20))])
    layers = (
        dense(np.eye(20), np.zeros(20), name="first"),
        replace(dense(weights, np.zeros(4), name="second"), inputs=(1,), outputs=(2,)),
    )
    tensors = tuple(FloatTensor(name, (1, n)) for name, n in (("x", 20), ("h", 20), ("y", 4)))
    network = FloatNetwork("sums", tensors, layers, (0,), (2,))
    settings = with_method("uniform", bits=7, activation_bits=7, scheme="symmetric")
    quantized = quantize_network(network, settings, images(9, 20))
    plan = partial_sum_plan(quantized.network)
    assert plan.interval == 8
    promised = partial_sum_plan(quantized.network, inputs={0: (-63, 63)})
    assert [layer.wide_bits for layer in promised.layers] == [13, 18]  # 63 * 63 = 3969
    # 20 * 3969 = 79380 needs 18 bits; the first layer adds one product of 63 * 128
    assert [layer.largest_interval for layer in plan.layers] == [None, 8]
    assert plan.layers[1].narrow_bits == 16
    assert plan.layers[1].wide_bits == 18


# -- errors ----------------------------------------------------------------------------------------


def test_an_unknown_layer_and_missing_samples_are_named() -> None:
    network = residual_network()
    uniform = with_method("uniform")
    unknown = replace(uniform, layers={"steam": uniform.weights})
    with pytest.raises(InputError, match=r"--layer steam: residual has no such layer.*stem, depth"):
        quantize_network(network, unknown, images(2, 6, 6, 2))
    with pytest.raises(InputError, match="scales of activations need samples"):
        quantize_network(network, uniform, None)
    found, _, parameters = real_digits()
    with pytest.raises(InputError, match="easyquant needs samples"):
        quantize_network(found, with_method("easyquant"), None, parameters)
    with pytest.raises(InputError, match="calibrate on are 0, which tells no scale"):
        quantize_network(network, uniform, np.zeros((2, 6, 6, 2), np.float32))


def test_linear_sums_agree_with_the_integer_convolution() -> None:
    network, samples, _ = real_digits()
    layer, stored = network.layers[3], load_model(None).layers[3]
    assert isinstance(layer, FloatConv2D)
    assert isinstance(stored, Conv2D)
    tensors = run_float(network, samples[:3])
    sums = linear(layer, tensors[layer.inputs[0]]) + layer.bias
    np.testing.assert_allclose(np.maximum(sums, 0), tensors[layer.outputs[0]], rtol=1e-6)
