"""A float ONNX file, through the command line, to integer codes that mean the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from napier.cli import cli

onnx: Any = pytest.importorskip("onnx")
runtime: Any = pytest.importorskip("onnxruntime")
helper = onnx.helper


def test_an_onnx_file_becomes_a_network_that_infers_nearly_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(8)
    constants = {
        "w": rng.normal(0, 0.5, (6, 1, 3, 3)),
        "gamma": rng.uniform(0.5, 2, 6),
        "beta": rng.normal(0, 0.2, 6),
        "mean": rng.normal(0, 0.2, 6),
        "var": rng.uniform(0.5, 2, 6),
        "v": rng.normal(0, 0.2, (4, 6 * 5 * 5)),
        "b": rng.normal(0, 0.2, 4),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "v", "b"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 1, 10, 10])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 4])],
        [
            onnx.numpy_helper.from_array(array.astype(np.float32), name)
            for name, array in constants.items()
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), "small.onnx")
    images = rng.uniform(0, 1, (40, 10, 10, 1)).astype(np.float32)
    np.save("calib.npy", images[:20])
    np.save("test.npy", images[20:])

    for arguments in (
        ["quantize", "small.onnx", "--input", "calib.npy", "--test", "test.npy"]
        + ["--codes", "codes.npy", "-o", "small.npz", "--json", "small.json"],
        ["infer", "small.npz", "--input", "codes.npy", "--output", "y.npy"],
    ):
        result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output

    session = runtime.InferenceSession("small.onnx", providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": images[20:].transpose(0, 3, 1, 2)})
    found = np.load("y.npy").astype(float)
    # codes are affine in the reals, so the two correlate; 8 bits leave an error of a percent
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999
