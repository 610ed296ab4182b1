"""Golden operators against test vectors that other people computed. No tolerance anywhere.

Origins: ARM-software/CMSIS-NN unit test vectors, google/gemmlowp's real-network product, and whole
networks run in TensorFlow Lite Micro's reference interpreter; the folder `shared` beside the
checkout names commits and licences.
"""

import ast
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from golden.accumulate import Accumulator, accumulate_layer
from golden.importers.tflite import load_tflite
from golden.network import (
    Add,
    AveragePool2D,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    MaxPool2D,
    Mul,
    Pad,
    Padding,
    Requantization,
    Softmax,
    Tensor,
    WeightedLayer,
)
from golden.operators import OPERATORS, accumulators
from golden.run import run

SHARED = Path(__file__).parents[2] / "shared"
VECTORS = SHARED / "conformance" / "cmsis_nn"

# Vectors of operators that Napier does not have, by the start of their names.
NOT_AN_OPERATOR_HERE = (
    "batch_matmul",
    "lstm",
    "maximum",
    "minimum",
    "reverse_transpose_conv",
    "svdf",
    "transpose",
)
DEPTHWISE = ("depthwise", "dw_int16xint8")
CONVOLUTION = (
    "basic_2_int4",
    "conv_",
    "grouped_conv",
    "int16xint8",
    "kernel1x1",
    "requantize_s64",
    "stride2pad1",
)
FULLY_CONNECTED = ("fully_connected", "fc_int16")
POOLS = {"avgpooling": AveragePool2D, "maxpool": MaxPool2D}
NAMES = sorted(path.stem for path in VECTORS.glob("*.npz")) if VECTORS.is_dir() else []
COVERED = [name for name in NAMES if not name.startswith(NOT_AN_OPERATOR_HERE)]

needs_shared = pytest.mark.skipif(not NAMES, reason=f"no test vectors at {VECTORS}")


def without_prefix(entries, prefix):
    return {key.removeprefix(prefix): value for key, value in entries.items()}


class Vector:
    """One CMSIS-NN test case: settings without the case's prefix, arrays by their role."""

    def __init__(self, name, settings, arrays):
        self.name = name
        self.settings = without_prefix(settings, name.upper() + "_")
        self.arrays = without_prefix(arrays, name + "_")

    @classmethod
    def load(cls, name):
        with np.load(VECTORS / f"{name}.npz", allow_pickle=False) as data:
            arrays = {key: data[key] for key in data.files}
        return cls(name, json.loads(str(arrays.pop("__config__"))), arrays)

    def __getitem__(self, key):
        return self.settings[key]

    def array(self, *names):
        """The array of one of these names; None where there is none."""
        return next((self.arrays[name] for name in names if name in self.arrays), None)

    @property
    def output(self):
        return self.array("output", "output_ref")

    def requantization(self, double):
        """Per channel from the arrays, or per tensor from the settings."""
        multiplier = self.array("output_mult", "output_multiplier")
        shift = self.array("output_shift")
        if multiplier is None:
            multiplier, shift = [self["OUTPUT_MULTIPLIER"]], [self["OUTPUT_SHIFT"]]
        return requantization(multiplier, shift, "double" if double else "multiplier16")

    def padding(self, pad, kernel, stride, dilation):
        """Before from the settings; after: whatever the stated output size needs."""
        after = [
            max(0, (self[f"OUTPUT_{a}"] - 1) * s + (k - 1) * d + 1 - self[f"INPUT_{a}"] - before)
            for a, before, k, s, d in zip("HW", pad, kernel, stride, dilation, strict=True)
        ]
        return Padding(top=pad[0], bottom=after[0], left=pad[1], right=after[1])


def requantization(multiplier, shift, rounding="double"):
    return Requantization(np.array(multiplier, np.int32), np.array(shift, np.int32), rounding)


def unpack_int4(packed, size):
    """Two codes a byte, the low half first, sign extended."""
    low, high = (packed.astype(np.int8) << 4) >> 4, packed.astype(np.int8) >> 4
    return np.stack([low, high], axis=1).reshape(-1)[:size]


def weights_of(vector, shape):
    stored = vector.array("weights", "input_weights")
    size = int(np.prod(shape))
    return (unpack_int4(stored, size) if "int4" in vector.name else stored).reshape(shape)


def weighted_fields(vector, weights):
    bias = vector.array("biases", "bias", "input_bias")
    wide = vector.array("input").dtype == np.int16 and (bias is None or bias.dtype == np.int64)
    if vector.name.startswith("int16xint8xint32"):
        wide = False  # the int32-bias family, also where a case has no bias
    return {
        "name": vector.name,
        "inputs": (0,),
        "outputs": (1,),
        "weights": weights,
        "weight_bits": 4 if "int4" in vector.name else 8,
        "weight_zero_point": 0,
        "bias": None if bias is None else bias.astype(np.int64),
        "input_zero_point": -vector["INPUT_OFFSET"],
        "output_zero_point": vector["OUTPUT_OFFSET"],
        "requantization": vector.requantization(double=not wide),
        "activation_min": vector["OUT_ACTIVATION_MIN"],
        "activation_max": vector["OUT_ACTIVATION_MAX"],
    }


def convolution(vector):
    kernel = (vector["FILTER_Y"], vector["FILTER_X"])
    stride = (vector["STRIDE_Y"], vector["STRIDE_X"])
    dilation = (vector["DILATION_Y"], vector["DILATION_X"])
    channels, K = vector["IN_CH"], vector["OUT_CH"]
    x = vector.array("input").reshape(-1, vector["INPUT_H"], vector["INPUT_W"], channels)
    pad = vector.padding((vector["PAD_Y"], vector["PAD_X"]), kernel, stride, dilation)
    geometry = {"stride": stride, "dilation": dilation, "padding": pad}
    if vector.name.startswith(DEPTHWISE):
        weights = weights_of(vector, (*kernel, K)).transpose(2, 0, 1)[..., None]
        layer = DepthwiseConv2D(**weighted_fields(vector, weights), **geometry, groups=channels)
        return layer, x
    # The stored weights tell the channels of one group.
    per_group = channels
    if "int4" not in vector.name:
        per_group = vector.array("weights", "input_weights").size // (K * kernel[0] * kernel[1])
    weights = weights_of(vector, (K, *kernel, per_group))
    layer = Conv2D(**weighted_fields(vector, weights), **geometry, groups=channels // per_group)
    return layer, x


def fully_connected(vector):
    weights = weights_of(vector, (vector["OUT_CH"], vector["ACCUMULATION_DEPTH"]))
    x = vector.array("input").reshape(-1, vector["ACCUMULATION_DEPTH"])
    return FullyConnected(**weighted_fields(vector, weights)), x


def pool(vector, kind):
    kernel = (vector["FILTER_H"], vector["FILTER_W"])
    stride = (vector["STRIDE_H"], vector["STRIDE_W"])
    pad = (vector["PADDING_H"], vector["PADDING_W"])
    x = vector.array("input_tensor")
    x = x.reshape(-1, vector["INPUT_H"], vector["INPUT_W"], vector["INPUT_C"])
    layer = kind(
        vector.name,
        (0,),
        (1,),
        kernel,
        stride,
        vector.padding(pad, kernel, stride, (1, 1)),
        vector["ACTIVATION_MIN"],
        vector["ACTIVATION_MAX"],
    )
    return layer, x


def element_wise_fields(vector):
    return {
        "name": vector.name,
        "inputs": (0, 1),
        "outputs": (2,),
        "input_zero_points": (-vector["INPUT1_OFFSET"], -vector["INPUT2_OFFSET"]),
        "output_zero_point": vector["OUTPUT_OFFSET"],
        "activation_min": vector["OUT_ACTIVATION_MIN"],
        "activation_max": vector["OUT_ACTIVATION_MAX"],
    }


def layer_and_inputs(name):
    """Build a golden layer, its inputs and the expected output from a stored case."""
    vector = Vector.load(name)
    if name.startswith(CONVOLUTION + DEPTHWISE):
        layer, *inputs = convolution(vector)
    elif name.startswith(FULLY_CONNECTED):
        layer, *inputs = fully_connected(vector)
    elif name.startswith(tuple(POOLS)):
        kind = next(kind for start, kind in POOLS.items() if name.startswith(start))
        layer, *inputs = pool(vector, kind)
    elif name.startswith("add"):
        inputs = [vector.array("input1"), vector.array("input2")]
        rules = (
            requantization([vector[f"INPUT{i}_MULT"]], [vector[f"INPUT{i}_SHIFT"]]) for i in (1, 2)
        )
        layer = Add(
            **element_wise_fields(vector),
            left_shift=vector["LEFT_SHIFT"],
            input_requantizations=tuple(rules),
            output_requantization=requantization([vector["OUTPUT_MULT"]], [vector["OUTPUT_SHIFT"]]),
        )
    elif name.startswith("mul"):
        inputs = [vector.array("input1"), vector.array("input2")]
        rule = requantization([vector["OUTPUT_MULT"]], [vector["OUTPUT_SHIFT"]])
        layer = Mul(**element_wise_fields(vector), requantization=rule)
    elif name.startswith("pad"):
        shape = [vector[f"INPUT_{axis}"] for axis in "NHWC"]
        inputs = [vector.array("input_tensor").reshape(shape)]
        widths = tuple((vector[f"PRE_PAD_{a}"], vector[f"POST_PAD_{a}"]) for a in "NHWC")
        layer = Pad(name, (0,), (1,), widths, vector["PAD_VALUE"])
    else:
        assert name.startswith("softmax"), f"no builder for {name}"
        inputs = [vector.array("input").reshape(vector["NUM_ROWS"], vector["ROW_SIZE"])]
        layer = Softmax(name, (0,), (1,), vector["INPUT_MULT"], vector["INPUT_LEFT_SHIFT"], 0)
    return layer, inputs, vector.output


def compute(layer, inputs, expected):
    rows = (len(inputs[0]), layer.weights.shape[0]) if isinstance(layer, FullyConnected) else ()
    output = Tensor("y", rows, str(expected.dtype), 1.0, 0)
    return OPERATORS[type(layer)](layer, inputs, output)


@needs_shared
@pytest.mark.parametrize("name", [name for name in COVERED if name != "ds_cnn_l"])
def test_operator_equals_cmsis_nn(name):
    layer, inputs, expected = layer_and_inputs(name)
    actual = compute(layer, inputs, expected)
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual.reshape(-1), expected)


@needs_shared
def test_every_cmsis_nn_vector_is_tested_or_named_as_out_of_scope():
    assert len(NAMES) == 105
    left_out = [name for name in NAMES if name not in COVERED]
    assert len(left_out) == 29
    for start in NOT_AN_OPERATOR_HERE:
        assert any(name.startswith(start) for name in left_out), start


def ds_cnn_part(network, index, kind, **more):
    """Layer `index` of the DS-CNN case as a vector of its own."""
    marker = f"{kind}_{index}_".upper()
    settings = {k: v for k, v in network.settings.items() if k.startswith(marker)}
    return Vector(
        f"{kind}_{index}",
        settings | more.pop("settings", {}),
        without_prefix(network.arrays, f"layer_{index}_{kind}_") | more,
    )


@needs_shared
def test_the_ds_cnn_network_of_cmsis_nn_runs_bit_for_bit():
    """Eleven convolutions, average pool, fully connected, softmax; only the end is stored."""
    network = Vector.load("ds_cnn_l")
    x = network.array("input")
    code = np.zeros(1, np.int8)  # tells the element type of the output
    for index in range(1, 12):
        kind = "depthwise_conv_2d" if index % 2 == 0 else "conv_2d"
        layer, image = convolution(ds_cnn_part(network, index, kind, input=x))
        x = compute(layer, [image], code)
    limits = {"ACTIVATION_MIN": -128, "ACTIVATION_MAX": 127, "INPUT_C": 276}
    part = ds_cnn_part(network, 12, "average_pool_2d", input_tensor=x, settings=limits)
    part.settings |= {f"PADDING_{axis}": part[f"PAD_{axis}"] for axis in "HW"}
    layer, image = pool(part, AveragePool2D)
    x = compute(layer, [image], code)
    # The file's channel counts of this layer are exchanged; the array's size agrees with these.
    depth = {"OUT_CH": 12, "ACCUMULATION_DEPTH": 276}
    part = ds_cnn_part(network, 14, "fully_connected", input=x.reshape(-1))
    part.settings |= depth
    layer, rows = fully_connected(part)
    x = compute(layer, [rows], code)
    part = ds_cnn_part(network, 15, "softmax")
    layer = Softmax("softmax", (0,), (1,), part["MULT"], part["SHIFT"], part["DIFF_MIN"])
    x = compute(layer, [x], code)
    np.testing.assert_array_equal(x.reshape(-1), network.array("output_ref"))


@needs_shared
def test_the_product_of_a_real_network_equals_gemmlowp():
    """uint8 with an offset, integer scale and one rounding half up: (acc * 3401 + 2**20) >> 21."""
    with np.load(SHARED / "conformance" / "gemmlowp" / "gemm_real_data.npz") as data:
        config = ast.literal_eval(str(data["config"]))
        m, n, k = config["m"], config["n"], config["k"]
        x, weights = data["a_data"].reshape(m, k), data["b_data"].reshape(n, k)
        expected = data["expected_c_data"].reshape(n, m).T  # stored column by column
    layer = FullyConnected(
        name="gemm",
        inputs=(0,),
        outputs=(1,),
        weights=weights,
        weight_bits=8,
        weight_zero_point=-config["b_offset"],
        bias=np.full(n, config["c_offset"]),
        input_zero_point=-config["a_offset"],
        output_zero_point=0,
        requantization=requantization([config["c_mult_int"]], [31 - config["c_shift"]], "single"),
        activation_min=0,
        activation_max=255,
    )
    np.testing.assert_array_equal(compute(layer, [x], expected), expected)


# -- whole networks -------------------------------------------------------------------------------

OBSERVED_INPUTS = {
    "kws_ref_model": ("kws_500.npz", 0),
    "pretrainedResnet_quant": ("cifar10_50.npz", 128),
}


def sha256(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


@pytest.fixture(scope="module", params=OBSERVED_INPUTS)
def observed(request):
    """A network, every tensor of its run, and what was observed in another program."""
    if not SHARED.is_dir():
        pytest.skip(f"no observed networks at {SHARED}")
    facts = json.loads((SHARED / "expected" / "observed" / f"{request.param}.json").read_text())
    network = load_tflite(SHARED / "models" / "mlperf_tiny" / f"{request.param}.tflite")
    file, offset = OBSERVED_INPUTS[request.param]
    with np.load(SHARED / "data" / file) as data:
        samples = data["x"][: facts["samples"]].astype(np.int16) - offset
    x = samples.astype(np.int8).reshape(-1, *network.tensors[network.inputs[0]].shape[1:])
    assert [sha256(sample) for sample in x] == facts["sha256_input_per_sample"]
    return network, run(network, [x], keep_tensors=True).tensors, facts["layers"]


def weighted_layers(observed):
    network, tensors, facts = observed
    # Operators and layers come in the same order, one for one.
    assert len(network.layers) == len(facts)
    for layer, fact in zip(network.layers, facts, strict=True):
        if isinstance(layer, WeightedLayer):
            yield layer, tensors[layer.inputs[0]], fact


def test_every_tensor_of_a_whole_network_has_the_observed_hash(observed):
    network, tensors, facts = observed
    for layer, fact in zip(network.layers, facts, strict=True):
        codes = tensors[layer.outputs[0]]
        assert [sha256(c) for c in codes] == fact["sha256_output_per_sample"], layer.name


def test_accumulators_of_a_whole_network_have_the_observed_hash(observed):
    for layer, x, fact in weighted_layers(observed):
        biased = (accumulators(layer, x) + layer.bias).astype(np.int32)
        assert [sha256(b) for b in biased] == fact["sha256_acc_with_bias_i32_per_sample"]


@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
def test_accumulation_of_a_whole_network_overflows_where_observed(observed, overflow):
    for layer, x, fact in weighted_layers(observed):
        stats = fact["stats"]
        for bits in map(int, stats["over"]):
            result = accumulate_layer(layer, x, Accumulator(bits, overflow))
            assert result.minimum.min() == stats["prefix_min"]
            assert result.maximum.max() == stats["prefix_max"]
            assert (result.exact.min(), result.exact.max()) == (stats["acc_min"], stats["acc_max"])
            assert np.count_nonzero(result.persistent) == stats["over"][str(bits)]
            # An unbounded prefix leaves the range exactly where some step overflows.
            affected = np.count_nonzero(result.events)
            assert affected == stats["prefix_over"][str(bits)]
            assert affected == np.count_nonzero(result.transient | result.persistent)
