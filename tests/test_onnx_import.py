"""Float ONNX files against ONNX Runtime, on graphs built here operator by operator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from golden.errors import ModelError, NapierError, ToolError, UnsupportedError
from golden.float_network import FloatAdd, FloatConv2D, FloatDense, FloatMul, FloatNetwork
from golden.float_run import run_float
from golden.importers.onnx import load_onnx

onnx: Any = pytest.importorskip("onnx")
runtime: Any = pytest.importorskip("onnxruntime")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

Arrays = dict[str, NDArray[Any]]


def saved(
    folder: Path,
    nodes: Sequence[Any],
    constants: Arrays,
    shape: Sequence[Any],
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
) -> Path:
    """Write a graph from `x` to `outputs` and return its path."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    domains = {"": opset} | {each.domain: 1 for each in nodes if each.domain}
    opsets = [helper.make_opsetid(*each) for each in domains.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    path = folder / "model.onnx"
    model = onnx.shape_inference.infer_shapes(model)
    for output in model.graph.output:
        output.type.tensor_type.shape.SetInParent()  # where the shape could not be inferred
    onnx.save(model, str(path))
    return path


def node(op: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(op, inputs.split(), [output], **attributes)


def values(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def agree(path: Path, samples: NDArray[np.float32]) -> FloatNetwork:
    """Compare every output of both runtimes, images transposed; return the network."""
    network = load_onnx(path)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": samples})
    found = run_float(network, samples.transpose(0, 2, 3, 1) if samples.ndim == 4 else samples)
    for index, reference in zip(network.outputs, expected, strict=True):
        computed = found[index]
        if reference.ndim == 4:
            computed = computed.transpose(0, 3, 1, 2)
        assert computed.shape == reference.shape
        np.testing.assert_allclose(computed, reference, rtol=2e-4, atol=2e-4)
    return network


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": [0, 1, 2, 3]},
        {"pads": [1, 1, 1, 1], "strides": [2, 3]},
        {"dilations": [2, 1], "pads": [2, 0, 2, 0]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        {"auto_pad": "VALID", "strides": [2, 1]},
    ],
)
def test_convolutions_pad_stride_and_dilate_as_onnx_says(
    tmp_path: Path, attributes: dict[str, Any]
) -> None:
    constants = {"w": values(5, 3, 3, 2), "b": values(5)}
    path = saved(tmp_path, [node("Conv", "x w b", "y", **attributes)], constants, ("N", 3, 8, 7))
    agree(path, values(2, 3, 8, 7))


@pytest.mark.parametrize(("groups", "in_channels", "outputs"), [(2, 4, 6), (4, 4, 4), (4, 4, 8)])
def test_groups_split_channels(tmp_path: Path, groups: int, in_channels: int, outputs: int) -> None:
    weights = values(outputs, in_channels // groups, 3, 3)
    convolution = node("Conv", "x w", "y", group=groups, pads=[1, 1, 1, 1])
    path = saved(tmp_path, [convolution], {"w": weights}, (1, in_channels, 6, 5))
    agree(path, values(1, in_channels, 6, 5))


def statistics(channels: int) -> Arrays:
    return {
        "scale": values(channels, seed=1),
        "shift": values(channels, seed=2),
        "mean": values(channels, seed=3),
        "variance": np.abs(values(channels, seed=4)) + np.float32(0.1),
    }


def normalization(source: str, target: str, epsilon: float = 1e-3) -> Any:
    return node(
        "BatchNormalization", f"{source} scale shift mean variance", target, epsilon=epsilon
    )


def test_batch_normalization_is_folded_into_the_convolution_before_it(tmp_path: Path) -> None:
    nodes = [node("Conv", "x w b", "c"), normalization("c", "n"), node("Relu", "n", "y")]
    constants = {"w": values(4, 3, 3, 3), "b": values(4), **statistics(4)}
    network = agree(saved(tmp_path, nodes, constants, (1, 3, 6, 6)), values(1, 3, 6, 6))
    (layer,) = network.layers
    assert isinstance(layer, FloatConv2D)
    assert layer.activation == "relu"


def test_batch_normalization_of_a_value_that_is_read_twice_is_a_layer(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "c"),
        node("Identity", "c", "i"),
        normalization("i", "n"),
        node("Add", "c n", "y"),
    ]
    constants = {"w": values(4, 3, 3, 3), **statistics(4)}
    network = agree(saved(tmp_path, nodes, constants, (1, 3, 6, 6)), values(1, 3, 6, 6))
    assert [layer.name for layer in network.layers] == ["conv_0", "depthwise_1", "add_2"]


def test_batch_normalization_before_a_convolution_is_a_layer(tmp_path: Path) -> None:
    nodes = [normalization("x", "n"), node("Relu", "n", "r"), node("Conv", "r w", "y")]
    constants = {"w": values(2, 3, 1, 1), **statistics(3)}
    agree(saved(tmp_path, nodes, constants, (1, 3, 4, 4)), values(1, 3, 4, 4))


def test_normalization_of_features_and_constants_for_each_channel(tmp_path: Path) -> None:
    nodes = [
        node("Sub", "x pixel_mean", "s"),
        node("Div", "s pixel_range", "d"),
        node("Conv", "d w", "c"),
        node("Mul", "c gain", "m"),
        node("Add", "offset m", "a"),
        node("Clip", "a low high", "k"),
        node("GlobalAveragePool", "k", "g"),
        node("Flatten", "g", "f"),
        node("MatMul", "f v", "p"),
        node("Add", "p bias", "q"),
        normalization("q", "y"),
    ]
    constants = {
        "pixel_mean": values(3, 1, 1),
        "pixel_range": np.array(2.5, np.float32),
        "w": values(4, 3, 3, 3),
        "gain": values(1, 4, 1, 1),
        "offset": values(4, 1, 1),
        "low": np.array(0, np.float32),
        "high": np.array(6, np.float32),
        "v": values(4, 5),
        "bias": values(5),
        **statistics(5),
    }
    network = agree(saved(tmp_path, nodes, constants, (1, 3, 6, 6)), values(1, 3, 6, 6))
    names = [layer.name.split("_")[0] for layer in network.layers]
    assert names == ["conv", "mean", "reshape", "dense"]


@pytest.mark.parametrize(("group", "pads"), [(1, [0] * 4), (2, [0] * 4), (2, [1] * 4)])
def test_constants_before_a_convolution_are_folded_unless_padding_comes_between(
    tmp_path: Path, group: int, pads: list[int]
) -> None:
    nodes = [
        node("Add", "x shift", "s"),
        node("Mul", "s gain", "m"),
        node("Conv", "m w", "y", group=group, pads=pads),
    ]
    constants = {
        "shift": values(4, 1, 1),
        "gain": values(4, 1, 1),
        "w": values(6, 4 // group, 3, 3),
    }
    network = agree(saved(tmp_path, nodes, constants, (1, 4, 6, 5)), values(1, 4, 6, 5))
    names = [layer.name.split("_")[0] for layer in network.layers]
    assert names == (["add", "conv"] if any(pads) else ["conv"])


@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 1, 1]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"kernel_shape": [2, 3], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1},
    ],
)
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_pools_agree(tmp_path: Path, op: str, attributes: dict[str, Any]) -> None:
    path = saved(tmp_path, [node(op, "x", "y", **attributes)], {}, ("N", 3, 7, 6))
    agree(path, values(2, 3, 7, 6))


def test_padding_that_an_average_counts_is_a_pad(tmp_path: Path) -> None:
    pool = node(
        "AveragePool", "x", "y", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1
    )
    agree(saved(tmp_path, [pool], {}, (1, 2, 5, 5)), values(1, 2, 5, 5))


@pytest.mark.parametrize("how", ["flatten", "reshape", "view"])
def test_a_dense_layer_follows_the_order_of_a_flattened_image(tmp_path: Path, how: str) -> None:
    constants = {"w": values(5, 4 * 3 * 2), "b": values(5), "shape": np.array([-1, 24])}
    flat = {
        "flatten": [node("Flatten", "x", "f", axis=1)],
        "reshape": [node("Reshape", "x shape", "f")],
        "view": [  # x.view(x.size(0), -1) as PyTorch exports it
            node("Shape", "x", "sizes"),
            node("Gather", "sizes zero", "batch", axis=0),
            node("Unsqueeze", "batch axes", "row"),
            node("Concat", "row rest", "wanted", axis=0),
            node("Reshape", "x wanted", "f"),
        ],
    }[how]
    constants |= {"zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1])}
    nodes = [*flat, node("Relu", "f", "r"), node("Gemm", "r w b", "y", transB=1, alpha=0.5)]
    network = agree(saved(tmp_path, nodes, constants, ("N", 4, 3, 2)), values(3, 4, 3, 2))
    assert isinstance(network.layers[-1], FloatDense)


def test_a_network_that_was_exported_from_channels_last_has_no_transposes(tmp_path: Path) -> None:
    nodes = [
        node("Transpose", "x", "t", perm=[0, 3, 1, 2]),
        node("Conv", "t w", "c", auto_pad="SAME_UPPER"),
        node("Transpose", "c", "u", perm=[0, 2, 3, 1]),
        node("Add", "u bias", "a"),
        node("ReduceMean", "a", "y", axes=[1, 2], keepdims=0),
    ]
    constants = {"w": values(5, 3, 3, 3), "bias": values(5)}
    path = saved(tmp_path, nodes, constants, (1, 6, 4, 3))
    network = load_onnx(path)
    samples = values(1, 6, 4, 3)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": samples})
    found = run_float(network, samples)[network.outputs[0]]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert [layer.name for layer in network.layers] == ["conv_0", "mean_1"]


def test_normalization_of_features_that_nothing_can_take_up_is_a_product_and_a_sum(
    tmp_path: Path,
) -> None:
    nodes = [
        node("Gemm", "x w", "d"),
        node("Relu", "d", "r"),
        normalization("r", "n"),
        node("Gemm", "n v", "e"),
        node("Add", "n e", "y"),
    ]
    constants = {"w": values(6, 4), "v": values(4, 4), **statistics(4)}
    network = agree(saved(tmp_path, nodes, constants, (1, 6)), values(1, 6))
    assert [type(layer) for layer in network.layers[1:3]] == [FloatMul, FloatAdd]


@pytest.mark.parametrize(
    ("batch", "shape"),
    [(1, [1, -1]), (1, [0, 6]), (4, [4, -1]), (4, [0, -1]), (4, [-1, 6]), ("N", [-1, 6])],
)
def test_a_reshape_that_keeps_the_samples_apart_is_read(
    tmp_path: Path, batch: int | str, shape: list[int]
) -> None:
    nodes = [node("Reshape", "x shape", "r"), node("Gemm", "r w", "y")]
    constants = {"shape": np.array(shape), "w": values(6, 3)}
    path = saved(tmp_path, nodes, constants, (batch, 2, 3))
    samples = values(4 if batch == "N" else int(batch), 2, 3)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": samples})
    network = load_onnx(path)
    found = [run_float(network, each[np.newaxis])[network.outputs[0]] for each in samples]
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("batch", "shape"),
    [(1, [2, -1]), (1, [6, -1]), (4, [1, -1]), (4, [2, -1]), (1, [1, 1, -1, -1])],
)
def test_a_reshape_that_mixes_samples_or_makes_more_of_them_is_refused(
    tmp_path: Path, batch: int, shape: list[int]
) -> None:
    nodes = [node("Reshape", "x shape", "r"), node("Relu", "r", "y")]
    path = saved(tmp_path, nodes, {"shape": np.array(shape)}, (batch, 2, 3))
    with pytest.raises(ModelError, match=r"must (keep the batch first|be a valid ONNX model)"):
        load_onnx(path)


def test_weights_stored_as_codes_are_dequantized(tmp_path: Path) -> None:
    nodes = [node("DequantizeLinear", "codes scale", "w"), node("Conv", "x w", "y")]
    codes = np.random.default_rng(0).integers(-127, 128, (3, 2, 3, 3)).astype(np.int8)
    constants = {"codes": codes, "scale": np.array(0.01, np.float32)}
    agree(saved(tmp_path, nodes, constants, (1, 2, 5, 5), opset=13), values(1, 2, 5, 5))


def test_limits_of_a_clip_may_be_vectors_of_one_number(tmp_path: Path) -> None:
    constants = {"low": np.zeros(1, np.float32), "high": np.full(1, 6, np.float32)}
    path = saved(tmp_path, [node("Clip", "x low high", "y")], constants, (1, 2, 3, 3))
    assert load_onnx(path).layers[0].activation == "relu6"


def test_branches_join_pad_and_end_in_softmax(tmp_path: Path) -> None:
    nodes = [
        node(
            "Constant",
            "",
            "pads",
            value=numpy_helper.from_array(np.array([0, 0, 1, 0, 0, 0, 2, 1])),
        ),
        node("Pad", "x pads", "p"),
        node("Conv", "p w", "c"),
        node("Conv", "p v", "d"),
        node("Relu", "d", "e"),
        node("Dropout", "e", "o"),
        node("Concat", "c o", "j", axis=1),
        node("Mul", "c o", "m"),
        node("Concat", "j m", "k", axis=-3),
        node("GlobalMaxPool", "k", "g"),
        node("Squeeze", "g last", "s"),
        node("Softmax", "s", "y", axis=1),
    ]
    constants = {"w": values(3, 2, 3, 3), "v": values(3, 2, 3, 3), "last": np.array([2, 3])}
    agree(saved(tmp_path, nodes, constants, (1, 2, 5, 5)), values(1, 2, 5, 5))


def test_a_factor_on_a_branch_stays_off_the_other(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "c"),
        node("Identity", "c", "i"),
        node("Mul", "i half", "h"),
        node("Add", "c h", "y"),
    ]
    constants = {"w": values(3, 2, 1, 1), "half": np.array(0.5, np.float32)}
    network = agree(saved(tmp_path, nodes, constants, (1, 2, 3, 3)), values(1, 2, 3, 3))
    assert isinstance(network.layers[1], FloatMul)


@pytest.mark.parametrize(
    ("nodes", "sentence"),
    [
        ([node("Sigmoid", "x", "y")], r"node 0 \(Sigmoid\): is not known to Napier; it knows Add"),
        ([node("Clip", "x low high", "y")], r"must clip to 0 and 6.*, not to -2.0 and 3.0"),
        ([node("Sub", "five x", "y")], r"must have its constant as the second operand"),
        ([node("Transpose", "x", "t", perm=[0, 1, 3, 2]), node("Conv", "t w", "y")],
         r"node 1 \(Conv\): must read images whose axes are in the order N, C, H, W"),
        ([node("Flatten", "x", "y")], r"output 'y' must not be a flattened image"),
        ([node("Flatten", "x", "f"), node("Softmax", "f", "y")],
         r"must not read a flattened image"),
        ([node("Pad", "x pads", "y", mode="reflect")], r"must pad with zeros, not reflect"),
        ([node("Reshape", "x shape", "y")], r"must keep the batch first"),
        ([node("QuantizeLinear", "x five zero", "q"), node("DequantizeLinear", "q five zero", "y")],
         r"export the model before it is quantized"),
        ([node("MaxPool", "x", "y", kernel_shape=[2, 2], dilations=[2, 2])],
         r"must have dilations of 1, not \(2, 2\)"),
        ([node("Conv", "x one_w", "c"), node("Add", "c six", "y")],
         r"node 1 \(Add\): must have a constant that broadcasts to \(1, 1, 4, 4\), not .*6, 1, 1"),
        ([node("Relu", "x", "r"), node("Transpose", "r", "y", perm=[0, 3, 2, 1])],
         r"output 'y' must not end in a transpose"),
        ([node("Relu", "x", "y", domain="com.example")],
         r"is of the domain 'com.example', which is not known"),
        ([node("ReduceMean", "x", "m", axes=[2], keepdims=0), node("MatMul", "m square", "y")],
         r"must read rows of features as they are stored"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_said_in_one_sentence(
    tmp_path: Path, nodes: list[Any], sentence: str
) -> None:
    constants = {
        "low": np.array(-2, np.float32),
        "high": np.array(3, np.float32),
        "five": np.array(5, np.float32),
        "zero": np.array(0, np.int8),
        "w": values(2, 2, 1, 1),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "shape": np.array([2, 16]),
        "one_w": values(1, 2, 1, 1),
        "six": values(6, 1, 1),
        "square": values(4, 4),
    }
    path = saved(tmp_path, nodes, constants, (1, 2, 4, 4))
    with pytest.raises(UnsupportedError, match=sentence) as caught:
        load_onnx(path)
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize(
    ("nodes", "sentence"),
    [
        ([node("Add", "x three", "y")], r"Add.*must have a constant that broadcasts"),
        ([node("Add", "x text", "y")], r"Add.*unsupported type: tensor\(string\)"),
        ([node("MatMul", "x low", "y")], r"MatMul.*wrong rank"),
        ([node("Transpose", "x", "y", perm=[0, 1, 2, 7])], r"Transpose.*perm"),
        ([node("Unsqueeze", "x twice", "y")], r"Unsqueeze.*referred to more than once"),
        ([node("ReduceMean", "x", "y", axes=[9])], r"ReduceMean.*axis must be in"),
        ([node("Softmax", "x", "y", axis=9)], r"Softmax.*axis' must be in"),
        ([node("Concat", "x x", "y", axis=9)], r"Concat.*axis must be in"),
        ([node("Flatten", "x", "f", axis=-7), node("Gemm", "f w", "y")], r"Flatten.*axis"),
        ([node("BatchNormalization", "x three three one_each one_each", "y")],
         r"BatchNormalization.*Dimension mismatch"),
        ([node("Reshape", "x square", "y")], r"must have a shape of one dimension"),
        ([node("Clip", "x none", "y")], r"must have one number as its min, not 0"),
        ([node("Pad", "x pads none", "y")], r"must have one number as its fill value, not 0"),
        ([node("Conv", "x v", "y", auto_pad="FOO")], r"must have an auto_pad of NOTSET, SAME"),
        ([node("MaxPool", "x", "y", kernel_shape=[2, 2], pads=[2, 0, 0, 0])],
         r"must pad by less than its kernel \[2, 2\]"),
    ],
)  # fmt: skip
def test_a_file_that_contradicts_itself_is_refused_in_one_sentence(
    tmp_path: Path, nodes: list[Any], sentence: str
) -> None:
    constants = {
        "low": np.array(-2, np.float32),
        "three": values(3),
        "one_each": np.ones(2, np.float32),
        "text": np.full((1, 2, 4, 4), "a", object),
        "twice": np.array([1, 1]),
        "square": np.ones((2, 2), np.int64),
        "none": np.zeros(0, np.float32),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "v": values(2, 2, 1, 1),
        "w": values(32, 2),
    }
    path = saved(tmp_path, nodes, constants, (1, 2, 4, 4))
    with pytest.raises(ModelError, match=sentence) as caught:
        load_onnx(path)
    assert str(caught.value).count("\n") == 0


def test_two_shapes_of_one_value_are_not_two_outputs(tmp_path: Path) -> None:
    nodes = [node("Relu", "x", "y"), node("Reshape", "y shape", "z")]
    constants = {"shape": np.array([1, 3, 2])}
    path = saved(tmp_path, nodes, constants, (1, 2, 3), outputs=("y", "z"))
    assert len(load_onnx(path).outputs) == 2  # the second is written by a layer of its own
    path = saved(tmp_path, [nodes[0], node("Identity", "y", "z")], {}, (1, 2, 3), ("y", "z"))
    with pytest.raises(UnsupportedError, match=r"outputs 'y' and 'z' must be computed apart"):
        load_onnx(path)


def test_a_damaged_file_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a model at all")
    with pytest.raises(ModelError, match=r"must be a valid ONNX model.*; export the network again"):
        load_onnx(path)
    with pytest.raises(ModelError, match="no such file"):
        load_onnx(tmp_path / "other.onnx")


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ToolError, match=r"napier-sim\[onnx\]"):
        load_onnx(tmp_path / "model.onnx")


def test_every_error_is_napiers_own() -> None:
    assert issubclass(ToolError, NapierError)
