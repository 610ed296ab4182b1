"""Imported TensorFlow Lite models give the codes of the reference kernels, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import frexp
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite
from numpy.typing import NDArray
from oracle import run_litert, run_tflite_micro
from tflite_builder import ModelBuilder
from tflite_random import OPERATORS, Case, codes, int8_twin, mobilenet, relu, ties

from golden.errors import ModelError, UnsupportedError
from golden.importers.tflite import load_tflite
from golden.network import Network, WeightedLayer
from golden.run import run

SHARED = Path(__file__).parents[2] / "shared"
CASES_PER_OPERATOR = 60


def load(case: Case, folder: Path) -> Network:
    path = folder / "model.tflite"
    path.write_bytes(case.model)
    return load_tflite(path)


def golden_outputs(case: Case, folder: Path) -> list[NDArray[Any]]:
    return list(run(load(case, folder), case.data).outputs)


def assert_same(ours: NDArray[Any], theirs: NDArray[Any]) -> None:
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs, strict=True)


# -- the three networks of MLPerf Tiny -------------------------------------------------------------


def _kws_inputs() -> NDArray[np.int8]:
    return np.asarray(np.load(SHARED / "data/kws_500.npz")["x"][:20], np.int8).reshape(
        -1, 49, 10, 1
    )


def _cifar_inputs() -> NDArray[np.int8]:
    images: NDArray[np.uint8] = np.load(SHARED / "data/cifar10_50.npz")["x"][:5]
    return (images ^ 128).view(np.int8)


def _noise() -> NDArray[np.int8]:
    return codes(np.random.default_rng(1), (20, 640), "int8")


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("kws_ref_model", _kws_inputs),
        ("pretrainedResnet_quant", _cifar_inputs),
        ("ad01_int8", _noise),
    ],
)
def test_every_tensor_of_mlperf_tiny_equals_tflite_micro(
    name: str, inputs: Callable[[], NDArray[np.int8]]
) -> None:
    path = SHARED / "models/mlperf_tiny" / f"{name}.tflite"
    if not path.exists():
        pytest.skip("the shared models are not beside this checkout")
    x = inputs()
    network = load_tflite(path)
    tensors = run(network, [x], keep_tensors=True).tensors
    assert len(tensors) == len(network.layers) + 1
    graph = tflite.Model.GetRootAs(path.read_bytes(), 0).Subgraphs(0)
    index = {graph.Tensors(i).Name().decode(): i for i in range(graph.TensorsLength())}
    theirs = {number: index[network.tensors[number].name] for number in tensors}
    for sample in range(len(x)):
        expected = run_tflite_micro(path.read_bytes(), [x[[sample]]], theirs.values())
        for number, ours in tensors.items():
            assert_same(ours[[sample]], expected[theirs[number]])


@pytest.mark.parametrize(
    "name", ["kws_ref_model_float32.tflite", "pretrainedResnet.tflite", "ad01_fp32.tflite"]
)
def test_a_float_network_is_refused_in_one_sentence_that_says_what_to_do(name: str) -> None:
    path = SHARED / "models/mlperf_tiny" / name
    if not path.exists():
        pytest.skip("the shared models are not beside this checkout")
    with pytest.raises(
        UnsupportedError, match=r"float32 network.*napier quantize.*full integer quantization"
    ):
        load_tflite(path)


# -- random models ---------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", OPERATORS)
def test_random_operators_equal_tflite_micro(operator: str, tmp_path: Path) -> None:
    for seed in range(CASES_PER_OPERATOR):
        case = OPERATORS[operator](np.random.default_rng(seed))
        expected = run_tflite_micro(case.model, case.data, case.outputs)
        (ours,) = golden_outputs(case, tmp_path)
        assert_same(ours, expected[case.outputs[0]])


@pytest.mark.parametrize("operator", ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"])
def test_accumulators_at_ties_round_as_tflite_micro_rounds(operator: str, tmp_path: Path) -> None:
    for seed in range(20):
        case = ties(np.random.default_rng(seed), operator)
        expected = run_tflite_micro(case.model, case.data, case.outputs, arena_bytes=1 << 20)
        (ours,) = golden_outputs(case, tmp_path)
        assert_same(ours, expected[case.outputs[0]])


@pytest.mark.parametrize("operator", ["CONV_2D", "DEPTHWISE_CONV_2D"])
def test_uint8_accumulators_at_ties_round_as_litert_rounds(operator: str, tmp_path: Path) -> None:
    for seed in range(20):
        case = ties(np.random.default_rng(seed), operator, "uint8")
        (expected,) = run_litert(case.model, case.data)
        (ours,) = golden_outputs(case, tmp_path)
        assert_same(ours, expected)


@pytest.mark.parametrize(
    ("operator", "dtype", "float32_product"),
    [
        ("CONV_2D", "uint8", True),
        ("DEPTHWISE_CONV_2D", "uint8", True),
        ("FULLY_CONNECTED", "uint8", False),
        ("CONV_2D", "int8", False),
        ("DEPTHWISE_CONV_2D", "int8", False),
        ("FULLY_CONNECTED", "int8", False),
    ],
)
def test_only_uint8_convolutions_multiply_scales_in_float32(
    operator: str, dtype: str, float32_product: bool, tmp_path: Path
) -> None:
    # Measured at ties: LiteRT 2.3 for uint8, TensorFlow Lite Micro for int8.
    case = ties(np.random.default_rng(0), operator, dtype)
    x, w, _, y = (float(spec.scales[0]) for spec in case.builder.tensors)
    product = float(np.float32(x) * np.float32(w)) if float32_product else x * w
    assert float(np.float32(x) * np.float32(w)) != x * w
    fraction, shift = frexp(product / y)
    (layer,) = load(case, tmp_path).layers
    assert isinstance(layer, WeightedLayer)
    assert layer.requantization.multiplier.tolist() == [round(fraction * 2**31)]
    assert layer.requantization.shift.tolist() == [shift]


def test_relu6_bounds_at_half_codes_equal_tflite_micro(tmp_path: Path) -> None:
    # 6 / scale lies within float32's rounding of a half, so the precision of the division decides.
    for code in range(255):
        b = ModelBuilder()
        scale = 6 / (code + 0.5)
        x, y = (b.tensor((1, 1, 1, 1), "int8", scale, -128) for _ in range(2))
        ones = {"StrideH": 1, "StrideW": 1, "FilterHeight": 1, "FilterWidth": 1}
        b.operator("MAX_POOL_2D", [x], [y], FusedActivationFunction=3, **ones)
        case = Case(b, [x], [np.full((1, 1, 1, 1), 127, np.int8)], [y])
        expected = run_tflite_micro(case.model, case.data, case.outputs, arena_bytes=1 << 16)
        (ours,) = golden_outputs(case, tmp_path)
        assert_same(ours, expected[y])


SHIFT_INVARIANT = [
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "MAX_POOL_2D",
    "ADD",
    "MUL",
    "ADD with a constant",
    "MUL with a constant",
    "PAD",
    "PADV2",
    "RESHAPE",
    "RELU",
    "RESIZE_NEAREST_NEIGHBOR",
]
"""Operators that commute with adding 128 to every code and zero point; averages do not."""


@pytest.mark.parametrize("operator", SHIFT_INVARIANT)
def test_uint8_codes_are_128_above_the_int8_codes_of_tflite_micro(
    operator: str, tmp_path: Path
) -> None:
    for seed in range(CASES_PER_OPERATOR):
        unsigned, signed = int8_twin(OPERATORS[operator](np.random.default_rng(seed), "uint8"))
        expected = run_tflite_micro(signed.model, signed.data, signed.outputs)
        (ours,) = golden_outputs(unsigned, tmp_path)
        assert_same((ours ^ 128).view(np.int8), expected[signed.outputs[0]])


# LiteRT's dense layer is left out: it rounds once where TensorFlow Lite Micro rounds twice.
@pytest.mark.parametrize(
    "operator",
    [
        *(name for name in SHIFT_INVARIANT if name != "FULLY_CONNECTED"),
        "AVERAGE_POOL_2D",
        "MEAN",
        "CONCATENATION",
        "CONCATENATION with constants",
    ],
)
def test_uint8_operators_equal_litert(operator: str, tmp_path: Path) -> None:
    compared = 0
    for seed in range(CASES_PER_OPERATOR):
        case = OPERATORS[operator](np.random.default_rng(seed), "uint8")
        if operator == "CONV_2D" and len(case.builder.operators[0][1]) < 3:
            continue  # LiteRT demands the bias
        (expected,) = run_litert(case.model, case.data)
        (ours,) = golden_outputs(case, tmp_path)
        assert_same(ours, expected)
        compared += 1
    assert compared > CASES_PER_OPERATOR / 2


@pytest.mark.parametrize("operator", ["RELU", "RELU6", "RELU_N1_TO_1"])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_relus_that_rescale_equal_litert(operator: str, dtype: str, tmp_path: Path) -> None:
    for seed in range(CASES_PER_OPERATOR):
        case = relu(np.random.default_rng(seed), dtype, operator)
        (expected,) = run_litert(case.model, case.data)
        (ours,) = golden_outputs(case, tmp_path)
        assert_same(ours, expected)


@pytest.mark.parametrize("seed", range(4))
def test_every_tensor_of_random_networks_equals_tflite_micro(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    case = mobilenet(rng, 16 + 5 * seed, 8, 3 + seed % 2, "int8", "AVERAGE_POOL_2D")
    _check_every_tensor(case, case, tmp_path, flip=0)


@pytest.mark.parametrize("seed", range(3))
def test_every_tensor_of_random_uint8_networks_equals_tflite_micro(
    seed: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(100 + seed)
    case = mobilenet(rng, 16 + 5 * seed, 8, 3 + seed % 2, "uint8", "MAX_POOL_2D")
    _check_every_tensor(*int8_twin(case), tmp_path, flip=128)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_every_tensor_of_a_network_at_224_by_224_equals_tflite_micro(
    dtype: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(7)
    case = mobilenet(rng, 224, 32, 8, dtype, "MAX_POOL_2D")
    twins = int8_twin(case) if dtype == "uint8" else (case, case)
    _check_every_tensor(*twins, tmp_path, flip=128 if dtype == "uint8" else 0)


def _check_every_tensor(ours: Case, theirs: Case, folder: Path, flip: int) -> None:
    """Compare all outputs of all operators; `flip` turns uint8 codes into int8 ones."""
    expected = run_tflite_micro(theirs.model, theirs.data, theirs.outputs, arena_bytes=1 << 25)
    outputs = golden_outputs(ours, folder)
    for index, output in zip(ours.outputs, outputs, strict=True):
        assert_same((output ^ flip).view(np.int8) if flip else output, expected[index])


# -- what the importer says ------------------------------------------------------------------------


def test_a_stored_batch_becomes_a_free_one(tmp_path: Path) -> None:
    case = next(
        c
        for c in (OPERATORS["CONV_2D"](np.random.default_rng(s)) for s in range(99))
        if c.data[0].shape[0] == 2
    )
    network = load(case, tmp_path)
    assert all(tensor.shape[0] == 1 for tensor in network.tensors)
    both = run(network, case.data).outputs[0]
    for sample in range(2):
        one = run(network, [case.data[0][[sample]]]).outputs[0]
        np.testing.assert_array_equal(one, both[[sample]])


def test_layers_are_named_after_operator_and_position(tmp_path: Path) -> None:
    case = mobilenet(np.random.default_rng(1), 16, 8, 1, "int8", "AVERAGE_POOL_2D")
    assert [layer.name for layer in load(case, tmp_path).layers] == [
        "conv_0",
        "conv_1",
        "depthwise_2",
        "conv_3",
        "add_4",
        "average_pool_5",
        "reshape_6",
        "dense_7",
        "softmax_8",
    ]


def test_a_reshape_whose_shape_is_computed_from_the_batch_equals_tflite_micro(
    tmp_path: Path,
) -> None:
    # What Keras' Flatten becomes: shape = pack(strided_slice(shape(x))[0], 12)
    b = ModelBuilder()
    x = b.tensor((1, 2, 3, 2), "int8", 0.5, 3)
    shape, batch, target = (b.tensor(n, "int32") for n in ((4,), (), (2,)))
    y = b.tensor((1, 12), "int8", 0.5, 3)
    b.operator("SHAPE", [x], [shape], OutType=tflite.TensorType.INT32)
    b.operator(
        "STRIDED_SLICE",
        [shape, b.constant([0]), b.constant([1]), b.constant([1])],
        [batch],
        ShrinkAxisMask=1,
    )
    b.operator("PACK", [batch, b.constant(12)], [target], ValuesCount=2)
    b.operator("RESHAPE", [x, target], [y])
    case = Case(b, [x], [codes(np.random.default_rng(0), (1, 2, 3, 2), "int8")], [y])
    assert [layer.name for layer in load(case, tmp_path).layers] == ["reshape_0"]
    (ours,) = golden_outputs(case, tmp_path)
    assert_same(ours, run_tflite_micro(case.model, case.data, [y])[y])


def test_a_constant_serves_every_sample(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for operator in ("ADD with a constant", "MUL with a constant", "CONCATENATION with constants"):
        for seed in range(10):
            case = OPERATORS[operator](np.random.default_rng(seed))
            shapes = [case.builder.tensors[index].shape for index in case.inputs]
            batch = shapes[0][0]
            samples = [codes(rng, (6, *s[1:]), str(case.data[0].dtype)) for s in shapes]
            ours = run(load(case, tmp_path), samples).outputs[0]
            for first in range(0, 6, batch):
                part = [array[first : first + batch] for array in samples]
                theirs = run_tflite_micro(case.model, part, case.outputs)[case.outputs[0]]
                assert_same(ours[first : first + batch], theirs)


def test_one_constant_of_operators_of_two_ranks_equals_tflite_micro(tmp_path: Path) -> None:
    b = ModelBuilder()
    x = b.tensor((1, 2, 2, 3), "int8", 0.5, 3)
    c = b.tensor((3,), "int8", 0.25, -7, data=[-100, 0, 90], name="c")
    y, z = b.tensor((1, 2, 2, 3), "int8", 0.6, 1), b.tensor((1, 2, 2, 3), "int8", 2.0, 5)
    flat, last = b.tensor((1, 4, 3), "int8", 2.0, 5), b.tensor((1, 4, 3), "int8", 3.0, -9)
    b.operator("ADD", [x, c], [y])
    b.operator("MUL", [c, y], [z])
    b.operator("RESHAPE", [z, b.constant([1, 4, 3])], [flat])
    b.operator("MUL", [flat, c], [last])
    case = Case(b, [x], [codes(np.random.default_rng(0), (1, 2, 2, 3), "int8")], [y, z, last])
    network = load(case, tmp_path)
    stored = [network.tensors[constant.tensor] for constant in network.constants]
    assert [(t.name, t.shape) for t in stored] == [("c", (1, 1, 1, 3)), ("c#1", (1, 1, 3))]
    _check_every_tensor(case, case, tmp_path, flip=0)


def test_random_constants_stand_on_either_side_of_every_rank_and_batch() -> None:
    cases = [OPERATORS["ADD with a constant"](np.random.default_rng(s)) for s in range(60)]
    sides, ranks, batches = set(), set(), set()
    for case in cases:
        ((_, operands, _, _),) = case.builder.operators
        (constant,) = set(operands) - set(case.inputs)
        sides.add(list(operands).index(constant))
        ranks.add(len(case.builder.tensors[constant].shape))
        batches.add(case.data[0].shape[0])
    assert sides == {0, 1}
    assert ranks == {0, 1, 2, 3, 4}
    assert batches == {1, 2}


@dataclass
class Dense:
    """A dense layer of 4 to 3 features whose parts a test spoils before it is written."""

    b: ModelBuilder = field(default_factory=ModelBuilder)
    name: str = "FULLY_CONNECTED"
    options: dict[str, Any] = field(default_factory=dict)
    subgraphs: int = 1

    def __post_init__(self) -> None:
        self.x = self.b.tensor((1, 4), "int8", 0.5, 1, name="x")
        self.w = self.b.tensor((3, 4), "int8", 0.25, 0, data=np.ones((3, 4)), name="w")
        self.c = self.b.tensor((3,), "int32", 0.125, 0, data=[1, 2, 3], name="c")
        self.y = self.b.tensor((1, 3), "int8", 1.0, 2, name="y")
        self.inputs = [self.x, self.w, self.c]

    def change(self, tensor: int, **fields: Any) -> None:
        self.b.tensors[tensor] = replace(self.b.tensors[tensor], **fields)

    def load(self, folder: Path) -> Network:
        self.b.operator(self.name, self.inputs, [self.y], **self.options)
        path = folder / "dense.tflite"
        path.write_bytes(self.b.build([self.x], [self.y], self.subgraphs))
        return load_tflite(path)


def _no_scale(d: Dense) -> None:
    d.change(d.y, scales=np.empty(0, np.float32), zero_points=np.empty(0, np.int64))


def _recompute_weights(d: Dense) -> None:
    d.change(d.w, data=None)


def _add_a_constant(
    d: Dense, shape: tuple[int, ...] = (1, 4), name: str = "ADD", **changes: Any
) -> None:
    """Make the operator an addition of x and a constant."""
    constant = d.b.tensor(shape, "int8", 1.0, 0, data=np.ones(shape))
    d.change(constant, **changes)
    d.name, d.inputs = name, [d.x, constant]
    d.change(d.y, shape=(1, 4))
    if name == "CONCATENATION":
        d.options = {"Axis": 1}


def _add_constants_only(d: Dense) -> None:
    _add_a_constant(d)
    d.inputs = [d.inputs[1], d.inputs[1]]


def _clamp_a_constant(d: Dense) -> None:
    _add_a_constant(d)
    d.name, d.inputs = "RELU", d.inputs[1:]


def _add_a_constant_for_each_sample(d: Dense) -> None:
    _add_a_constant(d, (2, 4))
    for tensor in (d.x, d.y):
        d.change(tensor, shape=(2, 4))


def _add_ranks_that_differ(d: Dense) -> None:
    wide = d.b.tensor((1, 1, 4), "int8", 0.5, 1)
    d.b.operator("EXPAND_DIMS", [d.x, d.b.constant([1])], [wide])
    d.name, d.inputs = "ADD", [d.x, wide]
    d.change(d.y, shape=(1, 1, 4))


def _cycle(d: Dense) -> None:
    d.name, d.inputs = "ADD", [d.x, d.y]
    d.change(d.y, shape=(1, 4))


def _read_before_written(d: Dense) -> None:
    z = d.b.tensor((1, 4), "int8", 1.0, 0, name="z")
    d.b.operator("ADD", [d.x, z], [d.b.tensor((1, 4), "int8", 1.0, 0)])
    d.b.operator("RELU", [d.x], [z])


REFUSALS: dict[str, tuple[Callable[[Dense], None], str]] = {
    "an unknown operator": (
        lambda d: setattr(d, "name", "LOGISTIC"),
        r"operator 0 \(LOGISTIC, output 'y'\) is not known to Napier; it knows CONV_2D",
    ),
    "a custom operator": (
        lambda d: setattr(d, "name", "MyOwn"),
        r"operator 0 \(CUSTOM 'MyOwn', output 'y'\) is not known",
    ),
    "control flow": (lambda d: setattr(d, "name", "WHILE"), r"WHILE.*control flow"),
    "two subgraphs": (lambda d: setattr(d, "subgraphs", 2), "must hold one subgraph, not 2"),
    "a shuffled weight format": (
        lambda d: d.options.update(WeightsFormat=1),
        "weights in the default order, not shuffled",
    ),
    "a fused tanh": (
        lambda d: d.options.update(FusedActivationFunction=4),
        "fused activation among none, relu, relu_n1_to_1, relu6, not number 4",
    ),
    "an int32 input": (lambda d: d.change(d.x, dtype="int32"), "tensor 0 .'x'. must be int8"),
    "a float input to integer weights": (
        lambda d: d.change(d.x, dtype="float32"),
        r"computes in float32 \(tensor 'x'\)",
    ),
    "weights computed at run time": (_recompute_weights, "must have weights stored in the file"),
    "a missing scale": (_no_scale, "needs a scale for tensor 'y', which has none"),
    "a scale of zero": (
        lambda d: d.change(d.x, scales=np.zeros(1, np.float32)),
        "must have a scale above 0",
    ),
    "an infinite scale": (
        lambda d: d.change(d.w, scales=np.full(1, np.inf, np.float32)),
        "must have weight scales above 0",
    ),
    "a zero point outside the codes": (
        lambda d: d.change(d.x, zero_points=np.array([128])),
        "must have a zero point of -128 to 127, not 128",
    ),
    "int8 weights with a zero point": (
        lambda d: d.change(d.w, zero_points=np.array([3])),
        "must have int8 weights of zero point 0",
    ),
    "scales along the wrong axis": (
        lambda d: d.change(d.w, scales=np.ones(4, np.float32), zero_points=np.zeros(4), axis=1),
        "one for each of the 3 channels of axis 0, not 4 for axis 1",
    ),
    "sparse weights": (
        lambda d: d.change(d.w, fields={"Sparsity": True}),
        "tensor 1 .'w'. is stored sparse",
    ),
    "a variable": (
        lambda d: d.change(d.x, fields={"IsVariable": True}),
        "tensor 0 .'x'. keeps state between runs",
    ),
    "too few weight bytes": (
        lambda d: d.change(d.w, data=bytes(11)),
        r"weights of shape \(3, 4\) and type int8, which do not take 11 bytes",
    ),
    "a bias of another length": (
        lambda d: d.change(d.c, shape=(1,), data=bytes(4)),
        r"a bias of shape \(3,\), not \(1,\)",
    ),
    "a contradicting output shape": (
        lambda d: d.change(d.y, shape=(1, 5)),
        r"output shape must be 1 rows of 3, not \(1, 5\)",
    ),
    "a changed batch": (
        lambda d: d.change(d.y, shape=(3, 1)),
        r"must keep the batch 1 as its first dimension, not have shape \(3, 1\)",
    ),
    "a giant tensor": (
        lambda d: d.change(d.x, shape=(1, 2**31 - 1, 2**31 - 1)),
        "must have at most 67108864 elements",
    ),
    "a negative size": (
        lambda d: d.change(d.x, shape=(1, -4)),
        r"fixed shape of positive sizes, not \(1, -4\)",
    ),
    "a constant where none is known": (_clamp_a_constant, "not the constant 'tensor4'"),
    "constant operands only": (
        _add_constants_only,
        "inputs must have one at least that is no constant",
    ),
    "a constant for each sample": (
        _add_a_constant_for_each_sample,
        r"the same for every sample, not of shape \(2, 4\) \(tensor 'tensor4'\)",
    ),
    "a constant of higher rank": (
        lambda d: _add_a_constant(d, (1, 1, 4)),
        r"tensor 'tensor4' shape must have 2 dimensions, not \(1, 1, 4\)",
    ),
    "a joined constant of lower rank": (
        lambda d: _add_a_constant(d, (4,), "CONCATENATION"),
        r"the same for every sample, not of shape \(4,\)",
    ),
    "a joined constant without dimensions": (
        lambda d: _add_a_constant(d, (), "CONCATENATION"),
        r"the same for every sample, not of shape \(\)",
    ),
    "a float constant": (
        lambda d: _add_a_constant(d, dtype="float32", data=bytes(16)),
        "must have a constant operand of int8 or uint8 or int16, not float32",
    ),
    "a constant of another type": (
        lambda d: _add_a_constant(d, dtype="int16", data=bytes(8)),
        "must have one element type, not int8 and int16",
    ),
    "a constant with too few bytes": (
        lambda d: _add_a_constant(d, data=bytes(3)),
        r"a constant operand of shape \(1, 4\) and type int8, which do not take 3 bytes",
    ),
    "a constant without a scale": (
        lambda d: _add_a_constant(d, scales=np.empty(0, np.float32)),
        "needs a scale for tensor 'tensor4'",
    ),
    "a constant with two scales": (
        lambda d: _add_a_constant(d, scales=np.ones(2, np.float32)),
        "must have one scale, not 2",
    ),
    "operands of two ranks": (
        _add_ranks_that_differ,
        r"tensor 'x' shape must have 3 dimensions, not \(1, 4\)",
    ),
    "an operator that reads its output": (_cycle, "must write a new tensor, not 3 again"),
    "a tensor read too early": (_read_before_written, r"tensor 4 \('z'\) before any operator"),
    "a wrong number of inputs": (
        lambda d: setattr(d, "inputs", [d.x]),
        "must have 2 to 3 inputs and 1 output, not 1 and 1",
    ),
    "a tensor that is not there": (
        lambda d: setattr(d, "inputs", [d.x, 99]),
        "tensor 99 is named but the file has 4",
    ),
}


@pytest.mark.parametrize("fault", REFUSALS)
def test_refuses_in_one_sentence(fault: str, tmp_path: Path) -> None:
    dense = Dense()
    spoil, sentence = REFUSALS[fault]
    spoil(dense)
    with pytest.raises(ModelError, match=sentence) as refusal:
        dense.load(tmp_path)
    text = str(refusal.value)
    assert text.startswith("dense.tflite: ")
    assert text.endswith(".")
    assert "\n" not in text


def test_the_dense_layer_that_the_refusals_spoil_is_taken(tmp_path: Path) -> None:
    network = Dense().load(tmp_path)
    # acc = 4 * (3 - 1) = 8, with the bias 9, 10, 11; the multiplier 0.5 * 0.25 / 1 = 1/8 halves
    # first, 4.5, 5, 5.5 -> 5, 5, 6, then quarters, 1.25, 1.25, 1.5 -> 1, 1, 2; zero point 2.
    (y,) = run(network, [np.full((1, 4), 3, np.int8)]).outputs
    np.testing.assert_array_equal(y, [[3, 3, 4]])


def test_a_missing_file_and_a_text_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        load_tflite(tmp_path / "nothing.tflite")
    path = tmp_path / "text.tflite"
    path.write_text("hello, this is no model\n")
    with pytest.raises(ModelError, match="must start as a TensorFlow Lite file"):
        load_tflite(path)
