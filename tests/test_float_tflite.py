"""Float TensorFlow Lite files against LiteRT, which computes them with kernels of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from golden.errors import InputError, UnsupportedError
from golden.float_network import FloatNetwork
from golden.float_run import run_float
from golden.importers.float_tflite import is_float_tflite, load_float_tflite

SHARED = Path(__file__).resolve().parents[2] / "shared"
MODELS = SHARED / "models/mlperf_tiny"

needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="needs the shared models and data")


def litert_outputs(path: Path, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(str(path))
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    outputs = []
    for sample in samples:
        interpreter.set_tensor(source["index"], sample.reshape(source["shape"]))
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(target["index"])[0])
    return np.array(outputs)


def images() -> NDArray[np.float32]:
    return np.asarray(np.load(SHARED / "data/cifar10_50.npz")["x"][:10], np.float32)


def features() -> NDArray[np.float32]:
    """MFCC as the float network takes them: the scale and zero point of the INT8 file's input."""
    codes = np.load(SHARED / "data/kws_500.npz")["x"][:40].astype(np.float32)
    return ((codes - 83) * np.float32(0.5847029089927673)).reshape(-1, 49, 10, 1)


def outputs(network: FloatNetwork, samples: NDArray[Any]) -> NDArray[np.float32]:
    return run_float(network, samples)[network.outputs[0]]


@needs_shared
@pytest.mark.parametrize(
    ("name", "samples", "tolerance"),
    [
        ("pretrainedResnet", images, 1e-5),
        # its weights are stored as int8, and LiteRT rounds activations to int8 on the way
        ("kws_ref_model_float32", features, 0.06),
    ],
)
def test_a_float_classifier_computes_what_litert_does(
    name: str, samples: Any, tolerance: float
) -> None:
    path = MODELS / f"{name}.tflite"
    expected = litert_outputs(path, samples())
    found = outputs(load_float_tflite(path), samples())
    assert np.abs(found - expected).max() < tolerance
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()


@needs_shared
def test_the_float_autoencoder_computes_what_litert_does() -> None:
    path = MODELS / "ad01_fp32.tflite"
    samples = np.random.default_rng(5).normal(-25, 3, (8, 640)).astype(np.float32)
    expected = litert_outputs(path, samples)
    np.testing.assert_allclose(outputs(load_float_tflite(path), samples), expected, atol=5e-4)


@needs_shared
def test_float_and_integer_files_are_told_apart() -> None:
    assert is_float_tflite(MODELS / "ad01_fp32.tflite")
    assert not is_float_tflite(MODELS / "ad01_int8.tflite")
    with pytest.raises(UnsupportedError, match=r"float32 network throughout, but .* is int8"):
        load_float_tflite(MODELS / "ad01_int8.tflite")


@needs_shared
def test_an_input_of_another_shape_is_refused() -> None:
    network = load_float_tflite(MODELS / "ad01_fp32.tflite")
    with pytest.raises(InputError, match=r"must have the shape \(N, 640\), but has \(2, 64\)"):
        run_float(network, np.zeros((2, 64), np.float32))
