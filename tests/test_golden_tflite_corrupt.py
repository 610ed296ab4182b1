"""A damaged TensorFlow Lite file gives a network that runs or one sentence, and soon."""

from __future__ import annotations

import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray
from tflite_builder import ModelBuilder
from tflite_random import OPERATORS, Case, codes, mobilenet

from golden.errors import ModelError, NapierError
from golden.importers.tflite import load_tflite
from golden.network import Conv2D, FullyConnected, Network, Pool2D
from golden.run import run

SHARED = Path(__file__).parents[2] / "shared/models/mlperf_tiny"
MOST_SECONDS = 1.0
MOST_BYTES = 200e6
MOST_OPERATIONS = 1e7
"""A network that costs more is taken, but not run here."""

INT32_EXTREMES = [0, 1, 2, -1, -(2**31), 2**31 - 1, 2**16, 2**24, 2**30]


def outcome(data: bytes, path: Path, rng: Generator) -> str:
    """Load, run where it is cheap, and say what happened; anything but a NapierError escapes."""
    path.write_bytes(data)
    tracemalloc.reset_peak()
    started = time.process_time()
    try:
        network = load_tflite(path)
        result = "loaded"
        if _operations(network) <= MOST_OPERATIONS:
            run(network, [_input(network, i, rng) for i in network.inputs])
            result = "ran"
    except NapierError as error:
        text = str(error)
        assert text.startswith(f"{path.name}: "), text
        assert text.endswith("."), text
        assert "\n" not in text, text
        result = "refused"
    seconds = time.process_time() - started
    assert seconds < MOST_SECONDS, (seconds, result)
    _, peak_bytes = tracemalloc.get_traced_memory()
    assert peak_bytes < MOST_BYTES, (peak_bytes, result)
    return result


def _operations(network: Network) -> int:
    total = 0
    for layer in network.layers:
        total += sum(prod(network.tensors[i].shape) for i in layer.inputs)
        size = prod(network.tensors[layer.outputs[0]].shape)
        taps = 1
        if isinstance(layer, Conv2D | FullyConnected):
            taps = layer.weights[0].size
        elif isinstance(layer, Pool2D):
            taps = prod(layer.kernel)
        total += size * taps
    return total


def _input(network: Network, index: int, rng: Generator) -> NDArray[Any]:
    tensor = network.tensors[index]
    if tensor.dtype == "float32":
        return rng.normal(0, 100, tensor.shape).astype(np.float32)
    return codes(rng, tensor.shape, tensor.dtype)


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@cache
def case_of(operator: str, seed: int) -> Case:
    """A valid model; of the network there is one."""
    if operator == "network":
        return mobilenet(np.random.default_rng(0), 12, 4, 2, "int8", "AVERAGE_POOL_2D")
    return OPERATORS[operator](np.random.default_rng(seed))


def damaged(data: bytes, rng: Generator) -> bytes:
    """Flip a bit, change up to three bytes, or replace an aligned 32-bit word."""
    spoiled = bytearray(data)
    kind = rng.integers(3)
    if kind == 0:
        bit = int(rng.integers(len(spoiled) * 8))
        spoiled[bit // 8] ^= 1 << bit % 8
    elif kind == 1:
        for _ in range(int(rng.integers(1, 4))):
            spoiled[int(rng.integers(len(spoiled)))] = int(rng.choice([0, 1, 127, 128, 255]))
    else:
        at = 4 * int(rng.integers(len(spoiled) // 4))
        word = int(rng.choice([*INT32_EXTREMES, int(rng.integers(-(2**31), 2**31))]))
        spoiled[at : at + 4] = word.to_bytes(4, "little", signed=True)
    return bytes(spoiled)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("operator", [*OPERATORS, "network"])
def test_truncated_files_are_refused(operator: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = case_of(operator, 0).model
    lengths = np.unique(np.linspace(0, len(data) - 1, 60).astype(int))
    results = Counter(outcome(data[:n], tmp_path / "cut.tflite", rng) for n in lengths)
    # The last bytes of a flatbuffer may be padding or the unused tail of a vector.
    assert results["refused"] >= len(lengths) - 3


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("operator", [*OPERATORS, "network"])
def test_damaged_bytes_are_refused_or_harmless(operator: str, tmp_path: Path) -> None:
    results: Counter[str] = Counter()
    for seed in range(4):
        rng = np.random.default_rng(seed)
        data = case_of(operator, seed).model
        for _ in range(20 if operator == "network" else 60):
            results[outcome(damaged(data, rng), tmp_path / "damaged.tflite", rng)] += 1
    assert results["refused"] > 10
    assert results["ran"] > 10


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("name", ["kws_ref_model", "pretrainedResnet_quant", "ad01_int8"])
def test_damaged_real_models_are_refused_or_harmless(name: str, tmp_path: Path) -> None:
    path = SHARED / f"{name}.tflite"
    if not path.exists():
        pytest.skip("the shared models are not beside this checkout")
    data = path.read_bytes()
    rng = np.random.default_rng(5)
    table_bytes = 6000  # the tables stand at the end, most of the rest are weights
    for count in range(120):
        if count % 3 == 0:
            spoiled = data[: int(rng.integers(len(data)))]
        else:
            spoiled = data[:-table_bytes] + damaged(data[-table_bytes:], rng)
        outcome(spoiled, tmp_path / "damaged.tflite", rng)


def contradictory(case: Case, rng: Generator) -> bytes:
    """Write the model with one of its statements replaced: well formed, but wrong."""
    tensors = list(case.builder.tensors)
    operators = [(n, list(i), list(o), dict(f)) for n, i, o, f in case.builder.operators]
    at = int(rng.integers(len(tensors)))
    spec = tensors[at]
    name, inputs, outputs, options = operators[int(rng.integers(len(operators)))]
    number = int(rng.choice([*INT32_EXTREMES, 3, 5]))
    match rng.integers(8):
        case 0 if spec.shape:
            sizes = list(spec.shape)
            sizes[int(rng.integers(len(sizes)))] = number
            tensors[at] = replace(spec, shape=tuple(sizes))
        case 1:
            rank = int(rng.integers(0, 6))
            sizes = [int(n) for n in rng.integers(1, 4, rank)]
            tensors[at] = replace(spec, shape=tuple(sizes))
        case 2:
            types = [
                "int4",
                "int8",
                "uint8",
                "int16",
                "int32",
                "int64",
                "float32",
                "bool",
                "string",
            ]
            tensors[at] = replace(spec, dtype=str(rng.choice(types)))
        case 3:
            values = [0.0, -1.0, 1e-45, 1e-38, 1e-20, 1.0, 1e20, 3.4e38, np.inf, np.nan]
            scales = rng.choice(values, int(rng.integers(0, 4))).astype(np.float32)
            tensors[at] = replace(spec, scales=scales)
        case 4:
            points = [0, 1, -128, 127, 255, 256, 32767, 2**31, 2**63 - 1, -(2**63)]
            chosen = rng.choice(points, int(rng.integers(0, 4))).astype(np.int64)
            tensors[at] = replace(spec, zero_points=chosen)
        case 5 if spec.data is not None:
            values32 = rng.choice(INT32_EXTREMES, max(1, len(spec.data) // 4)).astype("<i4")
            tensors[at] = replace(spec, data=values32.tobytes()[: len(spec.data)])
        case 6:
            wires = inputs if rng.random() < 0.7 else outputs
            wires[int(rng.integers(len(wires)))] = int(rng.integers(-2, len(tensors) + 1))
        case _ if options:
            key = str(rng.choice(list(options)))
            if isinstance(options[key], bool):
                options[key] = not options[key]
            elif isinstance(options[key], float):
                options[key] = float(rng.choice([0.0, -1.0, 1e-40, 1e38, np.inf, np.nan]))
            elif isinstance(options[key], int):
                small = key in ("Padding", "FusedActivationFunction", "WeightsFormat")
                options[key] = number % 7 if small else number
        case _:
            pass
    return ModelBuilder(tensors, list(operators)).build(case.inputs, case.outputs)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("operator", [*OPERATORS, "network"])
def test_contradictory_statements_are_refused_or_harmless(operator: str, tmp_path: Path) -> None:
    results: Counter[str] = Counter()
    for seed in range(50 if operator == "network" else 150):
        rng = np.random.default_rng(seed)
        data = contradictory(case_of(operator, seed % 7), rng)
        results[outcome(data, tmp_path / "wrong.tflite", rng)] += 1
    assert results["refused"] > 10


def _window(name: str, **options: int) -> bytes:
    """An operator with a window on an 8 x 8 image, whose options a hostile file made giant."""
    b = ModelBuilder()
    x = b.tensor((1, 8, 8, 1), "int8", 1.0, 0)
    y = b.tensor((1, 8, 8, 1), "int8", 1.0, 0)
    w = b.tensor((1, 3, 3, 1), "int8", 1.0, 0, data=np.ones(9))
    inputs = [x, w] if name == "CONV_2D" else [x]
    b.operator(name, inputs, [y], Padding=0, StrideH=1, StrideW=1, **options)
    return b.build([x], [y])


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("CONV_2D", {"DilationHFactor": 2**30}, "must pad its input to at most"),
        ("CONV_2D", {"DilationWFactor": 2**31 - 1}, "must pad its input to at most"),
        (
            "MAX_POOL_2D",
            {"FilterHeight": 2**30, "FilterWidth": 1},
            "window of at most 64 x 64",
        ),
        ("AVERAGE_POOL_2D", {"FilterHeight": 2**15, "FilterWidth": 2**15}, "window of at most"),
    ],
)
def test_giant_windows_are_refused(
    name: str, options: dict[str, int], sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "giant.tflite"
    path.write_bytes(_window(name, **options))
    with pytest.raises(ModelError, match=sentence):
        load_tflite(path)
