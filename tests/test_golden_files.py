"""Network files: faithful, all or nothing, and deaf to damage."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import resource
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden import files
from golden.check import check_network
from golden.errors import ModelError, OutputError
from golden.files import load_network, save_arrays, save_network
from golden.network import (
    OP_NAMES,
    Add,
    AveragePool2D,
    Clamp,
    Concat,
    Constant,
    Conv2D,
    DepthwiseConv2D,
    Dequantize,
    FullyConnected,
    Layer,
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

SHARED = Path(__file__).parents[2] / "shared"
SETTINGS = settings(deadline=None, derandomize=True, max_examples=150)


# -- networks to store -----------------------------------------------------------------------------


def rule(channels: int = 1, rounding: Any = "double") -> Requantization:
    shift = np.arange(channels, dtype=np.int32) - 8
    return Requantization(np.full(channels, 1 << 30, np.int32) + shift, shift, rounding)


def weights(*shape: int, dtype: Any = np.int8, seed: int = 1) -> np.ndarray:
    limits = np.iinfo(dtype)
    values = np.random.default_rng(seed).integers(limits.min, limits.max, shape, endpoint=True)
    return values.astype(dtype)


CLAMP: dict[str, Any] = {"activation_min": -128, "activation_max": 127}
ZERO_POINTS: dict[str, Any] = {"input_zero_point": 3, "output_zero_point": 3}
WEIGHTED: dict[str, Any] = {"weight_bits": 8, "weight_zero_point": 0} | ZERO_POINTS | CLAMP


def every_layer() -> Network:
    """One network in which every layer class occurs, and a constant."""
    shapes = [
        (1, 8, 8, 4),
        (1, 8, 8, 4),
        (1, 4, 4, 6),
        (1, 4, 4, 12),
        (1, 3, 3, 12),
        (1, 3, 3, 12),
        (1, 3, 3, 12),
        (1, 3, 3, 12),
        (1, 3, 3, 24),
        (1, 5, 4, 24),
        (1, 10, 8, 24),
        (1, 24),
        (1, 4, 6),
        (1, 4, 5),
        (1, 4, 5),
        (1, 4, 5),
        (1, 4, 5),
        (1, 1, 1, 12),
    ]
    tensors = [Tensor(f"t{i}", shape, "int8", 0.5, 3) for i, shape in enumerate(shapes)]
    tensors[0] = Tensor("t0", shapes[0], "float32")
    tensors[15] = Tensor("t15", shapes[15], "int8", 1 / 256, -128)
    tensors[16] = Tensor("Wörter, naïve", shapes[16], "float32")
    bias = np.array([-(2**31), 2**31 - 1, 0, 1, -1, 7], np.int64)
    layers = (
        Quantize("q", (0,), (1,), input_zero_point=0, output_zero_point=3, requantization=None),
        Conv2D(
            *("c", (1,), (2,), weights(6, 3, 3, 2)),
            **WEIGHTED,
            bias=bias,
            requantization=rule(6),
            stride=(2, 2),
            padding=Padding(0, 1, 0, 1),
            groups=2,
        ),
        DepthwiseConv2D(
            *("d", (2,), (3,), weights(12, 3, 3, 1, seed=2)),
            **WEIGHTED,
            bias=None,
            requantization=rule(12, "single"),
            dilation=(2, 2),
            padding=Padding(2, 2, 2, 2),
            groups=6,
        ),
        MaxPool2D("m", (3,), (4,), (2, 2), (1, 1), Padding(), -100, 100),
        AveragePool2D("a", (4,), (5,), (3, 3), (1, 1), Padding(1, 1, 1, 1), -128, 127),
        Add(
            *("add", (4, 5), (6,)),
            input_zero_points=(3, 3),
            output_zero_point=3,
            left_shift=20,
            input_requantizations=(rule(), rule()),
            output_requantization=rule(),
            **CLAMP,
        ),
        Mul("mul", (6, 17), (7,), (3, 3), 3, rule(), -128, 127),
        Concat("cat", (6, 7), (8,), axis=3),
        Pad("pad", (8,), (9,), ((0, 0), (1, 1), (0, 1), (0, 0)), 3),
        ResizeNearest("r", (9,), (10,), align_corners=False, half_pixel_centers=True),
        Mean("mean", (10,), (11,), (1, 2), False, 3, 3, rule(), -128, 127),
        Reshape("s", (11,), (12,)),
        FullyConnected(
            *("f", (12,), (13,), weights(5, 6, seed=3)),
            **WEIGHTED,
            bias=bias[:5],
            requantization=rule(),
        ),
        Clamp("relu", (13,), (14,), 3, 3, rule(), 3, 127),
        Softmax("p", (14,), (15,), multiplier=1 << 30, shift=26, diff_min=-31),
        Dequantize("x", (15,), (16,), scale=1 / 256, zero_point=-128),
    )
    constants = (Constant(17, weights(1, 1, 1, 12, seed=4)),)
    return Network("every layer", tuple(tensors), layers, (0,), (16, 14), "tests", constants)


def older_schemes() -> Network:
    """What `every_layer` lacks: uint8 and int16 weights, rescaling, two inputs, no constant."""
    tensors = (
        Tensor("a", (1, 4), "uint8", 0.1, 100),
        Tensor("b", (1, 4), "int8", 0.25, -5),
        Tensor("b8", (1, 4), "uint8", 0.3, 120),
        Tensor("ab", (1, 8), "uint8", 0.2, 110),
        Tensor("dense", (1, 3), "uint8", 0.2, 110),
        Tensor("plain", (1, 2), "int32"),
    )
    layers = (
        Quantize("q", (1,), (2,), -5, 120, rule()),
        Concat("cat", (0, 2), (3,), axis=1, rescale=((0.1, 100), (0.3, 120))),
        FullyConnected(
            *("old", (3,), (4,), weights(3, 8, dtype=np.uint8), 8, 131, None, 110, 110),
            *(rule(), 0, 255),
        ),
        FullyConnected(
            *("wide", (4,), (5,), weights(2, 3, dtype=np.int16), 16, 0, np.array([1 << 40, 0])),
            *(110, 0, rule(1, "multiplier16"), -(2**31), 2**31 - 1),
        ),
    )
    return Network("older schemes", tensors, layers, (0, 1), (5,))


NETWORKS = {"every_layer": every_layer(), "older_schemes": older_schemes()}


def equal(a: Any, b: Any) -> bool:
    """Whether two networks, or parts of them, agree in type and value."""
    if type(a) is not type(b):
        return False
    if dataclasses.is_dataclass(a):
        return all(equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    return bool(a == b)


def test_equal_sees_a_single_different_code() -> None:
    network = every_layer()
    conv = network.layers[1]
    assert isinstance(conv, Conv2D)
    other = conv.weights.copy()
    other[0, 0, 0, 0] ^= 1
    layers = (network.layers[0], dataclasses.replace(conv, weights=other), *network.layers[2:])
    assert equal(network, every_layer())
    assert not equal(network, dataclasses.replace(network, layers=layers))


def test_the_stored_networks_hold_every_layer_class() -> None:
    assert {type(layer) for layer in every_layer().layers} == set(OP_NAMES)


# -- round trip ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_a_stored_network_comes_back_equal(name: str, tmp_path: Path) -> None:
    save_network(NETWORKS[name], tmp_path / "n.npz")
    assert equal(load_network(tmp_path / "n.npz"), NETWORKS[name])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_stored_network_computes_the_same(name: str, tmp_path: Path) -> None:
    network = NETWORKS[name]
    save_network(network, tmp_path / "n.npz")
    rng = np.random.default_rng(0)
    inputs: list[Any] = []
    for index in network.inputs:
        tensor = network.tensors[index]
        values = rng.integers(0, 100, (3, *tensor.shape[1:]))
        inputs.append(values.astype(tensor.dtype))
    before = run(network, inputs).outputs
    after = run(load_network(tmp_path / "n.npz"), inputs).outputs
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "name", ["pretrainedResnet_quant.tflite", "kws_ref_model.tflite", "ad01_int8.tflite"]
)
def test_an_imported_network_comes_back_equal(name: str, tmp_path: Path) -> None:
    path = SHARED / "models" / "mlperf_tiny" / name
    if not path.exists():
        pytest.skip(f"{name} is not beside this checkout")
    tflite = pytest.importorskip("golden.importers.tflite")
    network = tflite.load_tflite(path)
    save_network(network, tmp_path / "n.npz")
    assert equal(load_network(tmp_path / "n.npz"), network)


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    save_network(every_layer(), tmp_path / "a.npz")
    save_network(load_network(tmp_path / "a.npz"), tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_network_without_constants_is_stored_without_that_key(tmp_path: Path) -> None:
    save_network(older_schemes(), tmp_path / "n.npz")
    assert "constants" not in document_of(tmp_path / "n.npz")
    save_network(every_layer(), tmp_path / "n.npz")
    assert document_of(tmp_path / "n.npz")["constants"] == [
        {"tensor": 17, "codes": "constants.0.codes"}
    ]


def test_the_network_that_shipped_before_constants_is_stored_as_it_was(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[1] / "napier" / "models" / "digits.npz"
    save_network(load_network(shipped), tmp_path / "n.npz")
    before, after = members(shipped), members(tmp_path / "n.npz")
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, strict=True)


def test_numpy_opens_the_file_without_pickle(tmp_path: Path) -> None:
    save_network(every_layer(), tmp_path / "n.npz")
    with np.load(tmp_path / "n.npz", allow_pickle=False) as arrays:
        document = json.loads(arrays["network.json"].tobytes())
        assert document["schema"] == "napier.network/1"
        assert document["layers"][1]["op"] == "conv"
        np.testing.assert_array_equal(arrays["layers.1.weights"], weights(6, 3, 3, 2))


def test_loaded_arrays_cannot_be_changed(tmp_path: Path) -> None:
    save_network(every_layer(), tmp_path / "n.npz")
    conv = load_network(tmp_path / "n.npz").layers[1]
    assert isinstance(conv, Conv2D)
    with pytest.raises(ValueError, match="read-only"):
        conv.weights[0, 0, 0, 0] = 1
    (constant,) = load_network(tmp_path / "n.npz").constants
    with pytest.raises(ValueError, match="read-only"):
        constant.codes[0, 0, 0, 0] = 1


# -- damage ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stored") / "n.npz"
    save_network(every_layer(), path)
    return path


def members(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def document_of(path: Path) -> Any:
    return json.loads(members(path)["network.json"].tobytes())


def refused(path: Path) -> str:
    """The sentence with which a file is refused: one line, the file named, a way out."""
    with pytest.raises(ModelError) as caught:
        load_network(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < len(str(path)) + 400
    return message


def loaded_or_refused(path: Path) -> Network | None:
    """The network, or None where the file is refused as it should be."""
    try:
        return load_network(path)
    except ModelError:
        refused(path)
        return None


def equal_or_refused(path: Path) -> None:
    network = loaded_or_refused(path)
    assert network is None or equal(network, every_layer())


@SETTINGS
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(stored: Path, share: float) -> None:
    content = stored.read_bytes()
    part = stored.with_name("truncated.npz")
    part.write_bytes(content[: int(len(content) * share)])
    refused(part)


@SETTINGS
@given(data=st.data())
def test_flipped_bits_never_change_a_network(stored: Path, data: st.DataObject) -> None:
    content = bytearray(stored.read_bytes())
    places = st.lists(st.integers(0, len(content) * 8 - 1), min_size=1, max_size=4)
    for place in data.draw(places):
        content[place // 8] ^= 1 << place % 8
    path = stored.with_name("flipped.npz")
    path.write_bytes(content)
    equal_or_refused(path)


@SETTINGS
@given(data=st.data())
def test_a_damaged_directory_of_the_archive_never_changes_a_network(
    stored: Path, data: st.DataObject
) -> None:
    content = bytearray(stored.read_bytes())
    directory = content.index(b"PK\x01\x02")  # all sizes, offsets and names follow
    place = data.draw(st.integers(directory, len(content) - 1))
    for offset, value in enumerate(data.draw(st.binary(min_size=1, max_size=8))):
        if place + offset < len(content):
            content[place + offset] = value
    path = stored.with_name("directory.npz")
    path.write_bytes(content)
    equal_or_refused(path)


@SETTINGS
@given(noise=st.binary(max_size=200), zipped=st.booleans())
def test_noise_is_refused(stored: Path, noise: bytes, zipped: bool) -> None:
    path = stored.with_name("noise.npz")
    path.write_bytes(noise)
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("network.json.npy", noise)
    refused(path)


Step = str | int


def places_of(value: Any, place: tuple[Step, ...] = ()) -> Iterator[tuple[Step, ...]]:
    """Every place in a JSON document but the root."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield (*place, key)
        yield from places_of(inner, (*place, key))


def edited(stored: Path, edit: Callable[[Any], None], **changed: Any) -> Path:
    """A copy of a stored network with its JSON document edited, and members replaced."""
    arrays = members(stored)
    document = json.loads(arrays["network.json"].tobytes())
    edit(document)
    text = json.dumps(document).encode()
    path = stored.with_name("edited.npz")
    save_arrays(arrays | {"network.json": np.frombuffer(text, np.uint8)} | changed, path)
    return path


def at(document: Any, place: tuple[Step, ...]) -> Any:
    for step in place:
        document = document[step]
    return document


ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 20),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["layers.1.weights", "single", "conv", "float32", "int16", "\ud800"]),
    st.lists(st.integers(-1, 9), max_size=5),
    st.just({}),
)


@settings(SETTINGS, max_examples=300)
@given(data=st.data())
def test_an_edited_document_is_refused_or_taken_at_its_word(
    stored: Path, data: st.DataObject
) -> None:
    arrays = members(stored)
    document = json.loads(arrays["network.json"].tobytes())
    place = data.draw(st.sampled_from(list(places_of(document))))
    parent = at(document, place[:-1])
    what = data.draw(st.sampled_from(["replace", "delete", "add", "repeat"]))
    if what == "replace":
        parent[place[-1]] = data.draw(ODD_VALUES)
    elif what == "delete":
        del parent[place[-1]]
    elif isinstance(parent, list):
        parent.append(data.draw(ODD_VALUES) if what == "add" else parent[0])
    else:
        parent[data.draw(st.text(max_size=8))] = data.draw(ODD_VALUES)
    text = json.dumps(document).encode()
    path = stored.with_name("edited.npz")
    save_arrays(arrays | {"network.json": np.frombuffer(text, np.uint8)}, path)
    network = loaded_or_refused(path)
    if network is None:
        return
    save_network(network, path)
    assert json.loads(members(path)["network.json"].tobytes()) == document


@SETTINGS
@given(data=st.data())
def test_a_replaced_array_is_refused_or_taken_at_its_word(
    stored: Path, data: st.DataObject
) -> None:
    arrays = members(stored)
    name = data.draw(st.sampled_from([n for n in arrays if n != "network.json"]))
    dtype = data.draw(st.sampled_from([np.int8, np.uint8, np.int32, np.int64, np.float32, bool]))
    shape = data.draw(st.sampled_from([(), (0,), (1,), (6,), (6, 3, 3, 2), (5, 6), (2, 2)]))
    arrays[name] = np.full(shape, data.draw(st.integers(0, 100)), dtype)
    path = stored.with_name("replaced.npz")
    save_arrays(arrays, path)
    network = loaded_or_refused(path)
    if network is None:
        return
    save_network(network, path)
    np.testing.assert_array_equal(members(path)[name], arrays[name], strict=True)


def set_to(*place: Step, value: Any) -> Callable[[Any], None]:
    def edit(document: Any) -> None:
        at(document, place[:-1])[place[-1]] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (set_to("schema", value="napier.network/2"), "schema must be 'napier.network/1', not"),
        (set_to("schema", value=None), "schema must be"),
        (
            set_to("layers", 1, "strides", value=[1, 1]),
            "layers.1.strides is not a key.*mean stride",
        ),
        (set_to("layer", value=[]), r": layer is not a key.*did you mean layers\?"),
        (lambda d: d["layers"][1].pop("groups"), "layers.1.groups must be given, not absent"),
        (set_to("layers", 1, "op", value="convolution"), "layers.1.op must be one of conv, .*not"),
        (set_to("layers", 1, "op", value=["conv"]), "layers.1.op must be one of conv, .*not"),
        (set_to("layers", 1, "groups", value=2.0), "layers.1.groups must be of type int, not 2.0"),
        (set_to("layers", 1, "groups", value=True), "layers.1.groups must be of type int, not T"),
        (set_to("layers", 1, "groups", value=2**63), "layers.1.groups must fit 64 bits"),
        (set_to("layers", 1, "stride", value=[2]), "layers.1.stride must be a list of 2, not"),
        (
            set_to("layers", 1, "weights", value="layers.2.weights"),
            "must name the member 'layers.1",
        ),
        (set_to("layers", 1, "requantization", "rounding", value="up"), "must be one of double, s"),
        (set_to("layers", 1, "weight_bits", value=7), "weights must be -64 to 63, not"),
        (set_to("layers", 1, "weight_bits", value=9), "weight_bits must be 2 to 8"),
        (set_to("layers", 1, "inputs", value=[7]), "must be inputs of the network, outputs of ear"),
        (
            set_to("layers", 1, "inputs", value=[99]),
            r"layers\[1\] 'c' inputs must be 0 to 17, not 99",
        ),
        (set_to("layers", 1, "inputs", value=[]), "inputs must be 1 tensors, not 0"),
        (set_to("layers", 2, "outputs", value=[2]), "outputs must not be written before, not tens"),
        (set_to("layers", 1, "name", value="q"), "name must be unique"),
        (set_to("tensors", 1, "name", value="t2"), r"tensors\[2\] 't2' name must be unique"),
        (set_to("tensors", 2, "shape", 3, value=7), r"output shape must be \(1, 4, 4, 6\), not"),
        (set_to("tensors", 2, "shape", 3, value=0), "shape must be 1 to 2147483647, not 0"),
        (set_to("tensors", 2, "dtype", value="int7"), "dtype must be one of int4, int8"),
        (set_to("tensors", 2, "scale", value=-1.0), "scale must be finite and above 0, not -1.0"),
        (set_to("tensors", 2, "scale", value=float("nan")), "scale must be finite"),
        (set_to("tensors", 2, "zero_point", value=128), "zero_point must be -128 to 127, not 128"),
        (set_to("tensors", 2, "zero_point", value=4), "must be 4, as tensor 't2' says, not 3"),
        (set_to("tensors", 2, "name", value="\ud800"), "tensors.2.name must be Unicode text"),
        (set_to("layers", 1, "activation_max", value=-129), "activation_min must not exceed"),
        (set_to("outputs", value=[]), "network.outputs must name at least one tensor"),
        (set_to("constants", value=[]), r"must be named in .*, not \['constants.0.codes'\]"),
        (set_to("constants", value=None), "constants must be a list, not None"),
        (set_to("constants", 0, "tensor", value=-1), r"constants\[0\] tensor must be 0 to 17, not"),
        (set_to("constants", 0, "tensor", value="t17"), "constants.0.tensor must be of type int"),
        (set_to("constants", 0, "code", value=1), "constants.0.code is not a key.*mean codes"),
        (lambda d: d["constants"][0].pop("codes"), "constants.0.codes must be given, not absent"),
        (set_to("constants", 0, "codes", value="x"), "must name the member 'constants.0.codes'"),
    ],
)
def test_a_wrong_document_is_refused_with_its_place_and_rule(
    stored: Path, edit: Callable[[Any], None], sentence: str
) -> None:
    path = edited(stored, edit)
    with pytest.raises(ModelError, match=sentence):
        load_network(path)
    refused(path)


@pytest.mark.parametrize(
    ("member", "array", "sentence"),
    [
        ("layers.1.weights", np.zeros((6, 3, 3, 3), np.int8), "in_channels / groups = 4 / 2"),
        ("layers.1.weights", np.zeros((6, 3, 3, 2), np.int32), "must be int8, uint8 or int16"),
        ("layers.1.weights", np.zeros((6, 3, 3, 2), np.float32), "must be a C-ordered integer arr"),
        ("layers.1.weights", np.zeros((3, 6, 3, 2), np.int8).T, "must be a C-ordered integer arra"),
        ("layers.1.bias", np.zeros(6, np.int32), "layers.1.bias must be of type int64, not int32"),
        ("layers.1.bias", np.full(6, 1 << 31), "bias must be -2147483648 to 2147483647, not 2147"),
        ("layers.1.requantization.shift", np.zeros(5, np.int32), "one value or 6, as many as the"),
        ("layers.1.requantization.shift", np.full(6, 31, np.int32), r"must be -31 to 30, not 31"),
        ("constants.0.codes", np.zeros((1, 1, 1, 12), np.int16), "codes must be int8 of shape"),
        ("constants.0.codes", np.zeros(12, np.int8), r"\(1, 1, 1, 12\), not int8 of shape \(12,\)"),
        ("constants.0.codes", np.zeros((1, 1, 1, 12), np.float32), "must be a C-ordered integer"),
        ("extra", np.zeros(6, np.int32), r"members must be named in network.json, not \['extra'\]"),
        ("network.json", np.zeros(6, np.uint8), "network.json must be JSON in UTF-8, but"),
        ("network.json", np.zeros(6, np.int8), "must be a one-dimensional uint8 array, not int8"),
        ("network.json", np.frombuffer(b'{"a":1,"a":1}', np.uint8), "every key once in an object"),
        ("network.json", np.frombuffer(b"[" * 100000, np.uint8), "network.json must be JSON"),
        ("network.json", np.frombuffer(b"[]", np.uint8), "network.json must be an object"),
    ],
)
def test_a_wrong_array_is_refused_with_its_place_and_rule(
    stored: Path, member: str, array: Any, sentence: str
) -> None:
    path = stored.with_name("member.npz")
    save_arrays(members(stored) | {member: array}, path)
    with pytest.raises(ModelError, match=sentence):
        load_network(path)
    refused(path)


def test_a_missing_array_is_refused(stored: Path) -> None:
    arrays = members(stored)
    del arrays["layers.1.weights"]
    path = stored.with_name("missing.npz")
    save_arrays(arrays, path)
    assert "layers.1.weights must be a member of the file, not absent" in refused(path)


def test_a_missing_document_is_refused(stored: Path) -> None:
    path = stored.with_name("arrays.npz")
    save_arrays({"x": np.zeros(3, np.int8)}, path)
    assert "member network.json must be a one-dimensional uint8 array, not absent" in refused(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory)" in refused(tmp_path / "none.npz")
    assert "cannot be read (Is a directory)" in refused(tmp_path)


class Bomb:
    """Unpickling it leaves a trace."""

    unpickled = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (setattr, (Bomb, "unpickled", True))


def test_a_pickle_is_refused_and_not_opened(stored: Path) -> None:
    path = stored.with_name("pickle.npz")
    np.savez(path, **members(stored), pickled=np.array([Bomb()], dtype=object))
    assert "member 'pickled.npy' must be a C-ordered integer array" in refused(path)
    assert not Bomb.unpickled


def repacked(stored: Path, name: str, content: bytes) -> bytearray:
    """The bytes of an archive with one more member."""
    packed = io.BytesIO(stored.read_bytes())
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return bytearray(packed.getvalue())


def test_an_archive_that_declares_too_much_is_refused_unopened(stored: Path) -> None:
    content = repacked(stored, "bomb.npy", bytes(1000))
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = (2**31).to_bytes(4, "little")  # its unpacked size
    path = stored.with_name("bomb.npz")
    path.write_bytes(content)
    assert "unpacked size must not exceed 1073741824 bytes" in refused(path)


def test_an_archive_that_unpacks_to_more_than_it_declares_fills_no_memory(stored: Path) -> None:
    content = repacked(stored, "bomb.npy", bytes(64 << 20))
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = (1000).to_bytes(4, "little")
    path = stored.with_name("bomb.npz")
    path.write_bytes(content)
    tracemalloc.start()
    try:
        refused(path)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 8 << 20


def test_a_header_that_declares_too_much_is_refused(stored: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|i1", "fortran_order": False, "shape": (999999999999,)}
    )
    path = stored.with_name("header.npz")
    path.write_bytes(repacked(stored, "big.npy", header.getvalue()))
    assert "member 'big.npy' must hold 999999999999 bytes, not 0" in refused(path)


def test_two_members_of_one_name_are_refused(stored: Path) -> None:
    path = stored.with_name("twice.npz")
    with pytest.warns(UserWarning, match="Duplicate name"):
        path.write_bytes(repacked(stored, "network.json.npy", b""))
    assert "members must have different names" in refused(path)


# -- writing ---------------------------------------------------------------------------------------


@contextmanager
def file_size_limit(limit_bytes: int) -> Iterator[None]:
    """Let the system refuse to write more, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_fails_midway_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "n.npz"
    save_network(older_schemes(), path)
    with file_size_limit(1000), pytest.raises(OutputError, match=r"cannot be written \(File too"):
        save_network(every_layer(), path)
    assert equal(load_network(path), older_schemes())
    assert [p.name for p in tmp_path.iterdir()] == ["n.npz"]


def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "n.npz"
    save_network(older_schemes(), path)
    monkeypatch.setattr(files.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_network(every_layer(), path)
    assert equal(load_network(path), older_schemes())
    assert [p.name for p in tmp_path.iterdir()] == ["n.npz"]


def test_a_file_that_cannot_be_written_is_told_in_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "n.npz", tmp_path / "a\0b"):
        with pytest.raises(OutputError, match=r"cannot be written \(.+\); name a file in a fold"):
            save_network(every_layer(), path)
    assert list(tmp_path.iterdir()) == []


def test_a_device_is_not_replaced_by_a_file() -> None:
    with pytest.raises(OutputError, match="not a regular file"):
        save_network(every_layer(), "/dev/null")
    assert Path("/dev/null").is_char_device()


def test_a_link_is_written_through_and_permissions_stay(tmp_path: Path) -> None:
    target, link = tmp_path / "n.npz", tmp_path / "link.npz"
    save_network(older_schemes(), target)
    target.chmod(0o640)
    link.symlink_to(target)
    save_network(every_layer(), link)
    assert link.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    assert equal(load_network(target), every_layer())


# -- what holds together ---------------------------------------------------------------------------


def with_layer(index: int, **changes: Any) -> Network:
    network = every_layer()
    layers = list(network.layers)
    layers[index] = dataclasses.replace(layers[index], **changes)
    return dataclasses.replace(network, layers=tuple(layers))


def with_tensor(index: int, **changes: Any) -> Network:
    network = every_layer()
    tensors = list(network.tensors)
    tensors[index] = dataclasses.replace(tensors[index], **changes)
    return dataclasses.replace(network, tensors=tuple(tensors))


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (with_layer(0, requantization=rule()), "(quantize) requantization must be absent for a fl"),
        (with_layer(0, input_zero_point=1), "(quantize) input_zero_point must be 0 for a float32"),
        (with_layer(1, groups=4), "(conv) weights must have in_channels / groups = 4 / 4 input"),
        (with_layer(1, stride=(0, 1)), "(conv) stride must be 1 to"),
        (
            with_layer(1, dilation=(9, 1)),
            "(conv) kernel must fit the padded image of 9 x 9, not 19",
        ),
        (with_layer(1, padding=Padding(top=-1)), "(conv) padding must be 0 to"),
        (with_layer(1, weight_zero_point=1), "(conv) weight_zero_point must be 0, not 1"),
        (with_layer(2, groups=3), "(depthwise) weights must have in_channels / groups = 6 / 3"),
        (with_layer(3, padding=Padding(left=2)), "(max_pool) padding must be smaller than the"),
        (with_layer(4, kernel=(9, 9)), "(average_pool) kernel must fit the padded image of 5 x 5"),
        (with_layer(5, left_shift=31), "(add) left_shift must be 0 to 30, not 31"),
        (with_layer(5, input_zero_points=(3, 4)), "(add) input_zero_points must be 3, as tensor"),
        (with_layer(5, output_requantization=rule(2)), "(add) output_requantization.multiplier mu"),
        (with_layer(6, inputs=(6, 1)), "(mul) inputs must have shapes that broadcast, not (1, 3,"),
        (with_layer(6, inputs=(6,)), "inputs must be 2 tensors, not 1"),
        (with_layer(7, axis=0), "(concat) axis must be 1 to 3, not 0"),
        (with_layer(7, axis=2), "(concat) input shape must be (1, 3, 3, 24), not (1, 3, 3, 12)"),
        (with_layer(7, inputs=(6,)), "(concat) output shape must be (1, 3, 3, 12), not"),
        (with_layer(7, rescale=((0.5, 3),)), "(concat) rescale must have one entry for each"),
        (with_layer(8, value=200), "(pad) value must be -128 to 127, not 200"),
        (with_layer(8, paddings=((0, 0), (1, 1))), "(pad) paddings must have one pair for each"),
        (with_layer(9, align_corners=True), "(resize_nearest) align_corners and half_pixel_center"),
        (with_layer(10, axes=(0,)), "(mean) axes must be 1 to 3, not 0"),
        (with_layer(10, axes=(1, 1)), "(mean) axes must be at least one, all different"),
        (with_layer(10, keep_dims=True), "(mean) output shape must be (1, 1, 1, 24), not (1, 24)"),
        (with_tensor(12, shape=(2, 3, 4)), "(reshape) output shape must keep the batch and the"),
        (with_tensor(12, dtype="int16"), "(reshape) output dtype must be the input's int8"),
        (with_tensor(13, shape=(1, 5, 4)), "(dense) output shape must be 4 rows of 5, not"),
        (with_layer(12, weights=weights(5, 7)), "(dense) weights must take a divisor of the input"),
        (with_layer(13, activation_max=128), "(clamp) activation_max must be -128 to 127, not 128"),
        (with_layer(14, shift=32), "(softmax) shift must be -31 to 31, not 32"),
        (with_layer(14, multiplier=-1), "(softmax) multiplier must be 0 to"),
        (with_layer(15, scale=0.0), "(dequantize) scale must be finite and above 0"),
        (with_tensor(16, dtype="int8"), "(dequantize) output dtype must be float32"),
        (dataclasses.replace(every_layer(), layers=()), "network.layers must hold at least one"),
        (dataclasses.replace(every_layer(), tensors=()), "network.tensors must hold at least one"),
        (dataclasses.replace(every_layer(), inputs=(0, 0)), "network.inputs must be different"),
    ],
)
def test_a_network_that_does_not_hold_together_is_not_stored(
    network: Network, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError) as caught:
        save_network(network, tmp_path / "n.npz")
    assert sentence in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def alone(
    index: int,
    source: dict[str, Any] | None = None,
    target: dict[str, Any] | None = None,
    **changes: Any,
) -> Network:
    """One layer of `every_layer` as a network, with its tensors and fields changed."""
    network = every_layer()
    layer = network.layers[index]
    tensors = [dataclasses.replace(network.tensors[i], **(source or {})) for i in layer.inputs]
    tensors.append(dataclasses.replace(network.tensors[layer.outputs[0]], **(target or {})))
    for i, tensor in enumerate(tensors):
        tensors[i] = dataclasses.replace(tensor, name=f"t{i}")
    ends = {"inputs": tuple(range(len(layer.inputs))), "outputs": (len(layer.inputs),)}
    layer = dataclasses.replace(layer, **(ends | changes))
    return Network("alone", tuple(tensors), (layer,), ends["inputs"], ends["outputs"])


def with_constants(*constants: Constant, **changes: Any) -> Network:
    """Every layer, with other constants, and its tensor 17 changed."""
    return dataclasses.replace(with_tensor(17, **changes), constants=constants)


CONSTANT = every_layer().constants[0]


def first_is(value: int, *shape: int, dtype: Any = np.int64) -> np.ndarray:
    array = np.zeros(shape, dtype)
    array.flat[0] = value
    return array


FLOAT: dict[str, Any] = {"dtype": "float32", "scale": None, "zero_point": 0}
NEGATIVE = Requantization(np.full(6, -1, np.int32), np.zeros(6, np.int32))


@pytest.mark.parametrize("index", range(16))
def test_each_layer_holds_together_alone(index: int) -> None:
    check_network(alone(index))


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (with_tensor(0, shape=()), "tensors[0] 't0' shape must start with the batch, not ()"),
        (with_tensor(0, zero_point=1), "tensors[0] 't0' zero_point must be 0, not 1"),
        (
            dataclasses.replace(every_layer(), inputs=(99,)),
            "network.inputs must be 0 to 17, not 99",
        ),
        (
            dataclasses.replace(alone(0), layers=(Layer("x", (0,), (1,)),)),
            "must be one of conv, de",
        ),
        (
            dataclasses.replace(
                alone(3), tensors=(*alone(3).tensors, Tensor("free", (1,), "int8")), outputs=(2,)
            ),
            "network.outputs must be written by a layer, not tensor 2",
        ),
        (alone(3, outputs=(99,)), "outputs must be 0 to 1, not 99"),
        (alone(3, outputs=()), "outputs must be 1 tensor, not 0"),
        (alone(7, inputs=()), "inputs must be at least one, not none"),
        (with_constants(), "must be inputs of the network, outputs of earlier layers or constants"),
        (
            with_constants(CONSTANT, Constant(18, CONSTANT.codes)),
            "constants[1] tensor must be 0 to 17, not 18",
        ),
        (with_constants(CONSTANT, CONSTANT), "constants[1] tensor must be unique, not 17"),
        (
            with_constants(CONSTANT, **FLOAT),
            "constants[0] tensor 't17' must have integer codes, not float32",
        ),
        (
            with_constants(CONSTANT, shape=(2, 1, 1, 12)),
            "constants[0] shape must have the batch 1, not (2, 1, 1, 12)",
        ),
        (
            with_constants(CONSTANT, dtype="uint8"),
            "constants[0] codes must be uint8 of shape (1, 1, 1, 12), not int8 of shape",
        ),
        (
            with_constants(Constant(17, CONSTANT.codes[..., :11])),
            "constants[0] codes must be int8 of shape (1, 1, 1, 12), not int8 of shape (1, 1, 1, 1",
        ),
        (
            with_constants(Constant(17, first_is(8, 1, 1, 1, 12, dtype=np.int8)), dtype="int4"),
            "constants[0] codes must be -8 to 7, not 8",
        ),
        (
            with_constants(Constant(17, first_is(-9, 1, 1, 1, 12, dtype=np.int8)), dtype="int4"),
            "constants[0] codes must be -8 to 7, not -9",
        ),
        (
            dataclasses.replace(every_layer(), inputs=(0, 17)),
            "network.inputs must not be constants, not (0, 17)",
        ),
        (
            dataclasses.replace(every_layer(), outputs=(17,)),
            "network.outputs must be written by a layer, not tensor 17",
        ),
        (with_layer(6, outputs=(17,)), "outputs must not be written before, not tensor 17"),
        (
            with_layer(6, inputs=(17, 17)),
            "layers[6] 'mul' inputs must have one at least that is no constant, not tensors (17, 1",
        ),
        (with_layer(7, inputs=(17,)), "'cat' inputs must have one at least that is no constant"),
        (with_constants(CONSTANT, zero_point=4), "(mul) input_zero_points must be 4, as tensor"),
        (
            with_constants(Constant(17, CONSTANT.codes[0, 0]), shape=(1, 12)),
            "(mul) tensor 't17' shape must have 4 dimensions, not (1, 12)",
        ),
        (alone(1, {"shape": (1, 8, 32)}), "(conv) tensor 't0' shape must have 4 dimensions, not"),
        (alone(1, groups=0), "(conv) groups must be 1 to 4, not 0"),
        (alone(1, weights=weights(5, 3, 3, 2)), "must have a multiple of groups=2 output channels"),
        (alone(1, bias=np.zeros(5, np.int64)), "(conv) bias must be int64 of shape (6,), not"),
        (
            alone(1, bias=first_is(2**31, 6)),
            "bias must be -2147483648 to 2147483647, not 2147483648",
        ),
        (alone(1, bias=first_is(-(2**31) - 1, 6)), "2147483647, not -2147483649"),
        (alone(1, input_zero_point=4), "(conv) input_zero_point must be 3, as tensor 't0' says"),
        (alone(1, output_zero_point=4), "(conv) output_zero_point must be 3, as tensor 't1' says"),
        (alone(1, {"scale": None}, input_zero_point=200), "point must be -128 to 127, not 200"),
        (alone(1, FLOAT), "tensor 't0' must have integer codes, not float32"),
        (
            alone(1, requantization=rule(6, "up")),
            "requantization.rounding must be one of double, s",
        ),
        (
            alone(1, requantization=NEGATIVE),
            "requantization.multiplier must be 0 to 2147483647, not",
        ),
        (alone(1, dilation=(0, 1)), "(conv) dilation must be 1 to 2147483647, not 0"),
        (alone(1, activation_min=-129), "(conv) activation_min must be -128 to 127, not -129"),
        (
            alone(1, weights=first_is(-65, 6, 3, 3, 2, dtype=np.int8), weight_bits=7),
            "(conv) weights must be -64 to 63, not -65",
        ),
        (
            alone(1, weights=first_is(64, 6, 3, 3, 2, dtype=np.int8), weight_bits=7),
            "(conv) weights must be -64 to 63, not 64",
        ),
        (alone(2, weights=weights(12, 3, 3, 2), groups=3), "(depthwise) groups must be 6, not 3"),
        (
            alone(12, weights=weights(6)),
            "weights must be 2-dimensional and not empty, not of shape",
        ),
        (alone(12, activation_max=128), "(dense) activation_max must be -128 to 127, not 128"),
        (alone(3, {"shape": (1, 4, 48)}), "(max_pool) tensor 't0' shape must have 4 dimensions"),
        (alone(3, kernel=(0, 2)), "(max_pool) kernel must be 1 to 2147483647, not 0"),
        (alone(3, stride=(0, 1)), "(max_pool) stride must be 1 to 2147483647, not 0"),
        (alone(3, None, {"shape": (1, 3, 3, 11)}), "(max_pool) output shape must be (1, 3, 3, 12)"),
        (alone(3, None, {"dtype": "int16"}), "(max_pool) output dtype must be the input's int8"),
        (alone(3, activation_max=128), "(max_pool) activation_max must be -128 to 127, not 128"),
        (alone(10, activation_max=128), "(mean) activation_max must be -128 to 127, not 128"),
        (alone(5, None, {"shape": (1, 3, 3, 11)}), "(add) output shape must be (1, 3, 3, 12), not"),
        (alone(5, activation_max=128), "(add) activation_max must be -128 to 127, not 128"),
        (
            alone(5, input_requantizations=(rule(2), rule())),
            "input_requantizations.multiplier must",
        ),
        (alone(6, output_zero_point=4), "(mul) output_zero_point must be 3, as tensor 't2' says"),
        (alone(6, requantization=rule(2)), "(mul) requantization.multiplier must be int32, one va"),
        (alone(7, {"shape": (1, 3, 36)}), "(concat) tensor 't0' shape must have 4 dimensions, not"),
        (alone(7, {"dtype": "int16"}), "(concat) output dtype must be the input's int16, not int8"),
        (
            alone(7, rescale=((0.0, 3), (0.5, 3))),
            "(concat) rescale must be finite and above 0, not",
        ),
        (alone(7, rescale=((0.5, 4), (0.5, 3))), "(concat) rescale must be 3, as tensor 't0' says"),
        (alone(8, paddings=((0, 0), (-1, 3), (0, 1), (0, 0))), "(pad) paddings must be 0 to 21474"),
        (alone(8, paddings=((0, 0), (3, -1), (0, 1), (0, 0))), "(pad) paddings must be 0 to 21474"),
        (alone(8, paddings=((1, 0), (1, 1), (0, 1), (0, 0))), "must be (0, 0) for the batch, not"),
        (alone(8, None, {"shape": (1, 5, 4, 23)}), "(pad) output shape must be (1, 5, 4, 24), not"),
        (alone(8, None, {"dtype": "int16"}), "(pad) output dtype must be the input's int8, not in"),
        (alone(14, None, {"shape": (1, 4, 6)}), "(softmax) output shape must be (1, 4, 5), not"),
        (alone(14, FLOAT), "(softmax) tensor 't0' must have integer codes, not float32"),
        (alone(14, None, FLOAT), "(softmax) tensor 't1' must have integer codes, not float32"),
        (alone(14, diff_min=1), "(softmax) diff_min must be -2147483648 to 0, not 1"),
        (alone(13, None, {"shape": (1, 4, 6)}), "(clamp) output shape must be (1, 4, 5), not"),
        (alone(0, None, {"shape": (1, 8, 8, 5)}), "(quantize) output shape must be (1, 8, 8, 4)"),
        (alone(0, output_zero_point=4), "(quantize) output_zero_point must be 3, as tensor 't1' s"),
        (alone(0, None, {"scale": None}), "(quantize) output scale must be given, not absent"),
        (
            alone(0, {"dtype": "int8", "scale": 0.5, "zero_point": 3}, requantization=rule()),
            "(quantize) input_zero_point must be 3, as tensor 't0' says, not 0",
        ),
        (
            alone(0, {"dtype": "int8", "scale": 0.5}, requantization=rule(2)),
            "(quantize) requantization.multiplier must be int32, one value, not",
        ),
        (alone(15, None, {"shape": (1, 4, 6)}), "(dequantize) output shape must be (1, 4, 5), not"),
        (alone(15, zero_point=0), "(dequantize) zero_point must be -128, as tensor 't0' says, no"),
        (alone(9, {"shape": (1, 5, 96)}), "(resize_nearest) tensor 't0' shape must have 4 dimens"),
        (alone(9, None, {"shape": (1, 10, 192)}), "tensor 't1' shape must have 4 dimensions, not"),
        (alone(9, None, {"shape": (1, 10, 8, 23)}), "output shape must be (1, 10, 8, 24), not"),
        (alone(9, None, {"dtype": "int16"}), "(resize_nearest) output dtype must be the input's"),
    ],
)
def test_every_rule_of_a_layer_is_told_apart(network: Network, sentence: str) -> None:
    with pytest.raises(ModelError) as caught:
        check_network(network)
    assert sentence in str(caught.value)


def test_the_examples_hold_together() -> None:
    for network in NETWORKS.values():
        check_network(network)


def test_names_that_utf8_cannot_hold_are_not_stored(tmp_path: Path) -> None:
    network = dataclasses.replace(every_layer(), source="\udcff.tflite")  # an undecodable file name
    with pytest.raises(ModelError, match="names must be Unicode text"):
        save_network(network, tmp_path / "n.npz")


def test_a_whole_number_is_taken_where_a_real_one_is_due(stored: Path) -> None:
    network = load_network(edited(stored, set_to("tensors", 2, "scale", value=1)))
    assert type(network.tensors[2].scale) is float
    assert network.tensors[2].scale == 1.0


def test_the_description_of_the_format_names_every_field_of_every_layer() -> None:
    text = (Path(__file__).parents[1] / "docs" / "file_format.md").read_text()
    abbreviations = {
        "*zero points*": {"input_zero_point", "output_zero_point"},
        "*clamp*": {"activation_min", "activation_max"},
    }
    abbreviations["*weighted*"] = {"weights", "weight_bits", "weight_zero_point", "bias"}.union(
        {"requantization"}, *abbreviations.values()
    )
    rows: dict[str, set[str]] = {}
    table = text[text.index("| `op` |") :].split("\n\n")[0]
    for row in table.splitlines()[2:]:
        _, ops, described, _ = row.split("|")
        names = set(re.findall(r"`(\w+)`", described))
        for abbreviation, meant in abbreviations.items():
            names |= meant if abbreviation in described else set()
        rows |= dict.fromkeys(re.findall(r"`(\w+)`", ops), names)
    common = {"name", "inputs", "outputs"}
    assert rows == {
        op: {f.name for f in dataclasses.fields(layer_class)} - common
        for layer_class, op in OP_NAMES.items()
    }
