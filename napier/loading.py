"""What the user names, to networks and arrays. Every failure is one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from golden.errors import InputError, ModelError, UnsupportedError
from golden.files import load_network
from golden.importers.tflite import load_tflite
from golden.network import DTYPES, Network, Tensor
from napier.described import load_described

RANDOM_SEED = 0
"""Seed of the inputs that are drawn where the user gives none."""

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Samples:
    """Inputs of a run.

    Parameters
    ----------
    arrays : tuple of (N, ...) integer or float arrays
        One for each network input, N samples each.
    description : str
        Where they came from, for reports.
    """

    arrays: tuple[Array, ...]
    description: str

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self.arrays[0])


def shipped_file(name: str) -> Path:
    """Path of a file in `napier/models`."""
    return Path(str(files("napier") / "models" / name))


def shipped_digits() -> tuple[Array, Array]:
    """Test images that ship with Napier, as codes, and their classes."""
    with np.load(shipped_file("digits_test.npz"), allow_pickle=False) as archive:
        return archive["images"], archive["labels"]


def load_model(model: str | None) -> Network:
    """Load the network the user names; None is the small network that ships with Napier.

    Raises
    ------
    ModelError
        No such file, or a file that is not a network.
    UnsupportedError
        A format or an operator that Napier does not read.
    """
    if model is None:
        return load_network(shipped_file("digits.npz"))
    if not model:
        raise ModelError("the name of the model file is empty; give a .tflite or .npz file")
    path = Path(model)
    if not path.exists():
        raise ModelError(
            f"{model}: no such file; give a model file, or none for the network that ships with"
            " Napier"
        )
    if path.is_dir():
        raise ModelError(f"{model} is a folder, not a model file; give a file in it")
    if not path.is_file():
        raise ModelError(f"{model} is a device or pipe, not a model file; copy it to a file first")
    if path.suffix == ".tflite":
        return load_tflite(path)
    if path.suffix == ".npz":
        return load_network(path)
    if path.suffix == ".toml":
        return load_described(path)
    if path.suffix == ".onnx":
        raise UnsupportedError(
            f"{model}: of ONNX files Napier reads float networks alone, and computes on integers;"
            " make a network of integers of the float one with `napier quantize`"
        )
    raise ModelError(
        f"{model}: unknown kind of model file '{path.suffix}'; .tflite, .npz and .toml are read"
    )


def load_array(path: str) -> Array:
    """Load one .npy file.

    Raises
    ------
    InputError
        Missing, truncated, or not a plain array.
    """
    try:
        with Path(path).open("rb") as file:
            array: Array = np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give a NumPy .npy file") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, MemoryError, SyntaxError, TypeError, KeyError):
        raise InputError(
            f"{path} is not a whole .npy array of numbers; write it with numpy.save"
        ) from None
    return array


def load_samples(network: Network, paths: tuple[str, ...]) -> Samples:
    """Load one .npy file for each network input, N samples each.

    Raises
    ------
    InputError
        Wrong number of files, shape, type or code range.
    """
    tensors = [network.tensors[index] for index in network.inputs]
    return fitted_inputs(network.name, tensors, paths)


def fitted_inputs(name: str, tensors: Sequence[Tensor], paths: tuple[str, ...]) -> Samples:
    """Load one .npy file for each of the inputs `tensors` of the network `name`.

    Raises
    ------
    InputError
        Wrong number of files, shape, type or code range.
    """
    if len(paths) != len(tensors):
        names = ", ".join(tensor.name for tensor in tensors)
        raise InputError(
            f"--input must be given once for each input of {name} ({names}), in this order, not"
            f" {len(paths)} times"
        )
    arrays = tuple(
        _fit(load_array(path), tensor, path) for path, tensor in zip(paths, tensors, strict=True)
    )
    counts = {len(array) for array in arrays}
    if len(counts) > 1:
        raise InputError(f"--input files hold {sorted(counts)} samples; all need the same number")
    return Samples(arrays, ", ".join(Path(path).name for path in paths))


def default_samples(network: Network, model: str | None) -> Samples:
    """Choose inputs for a user who gave none: shipped test images or one random sample."""
    if model is None:
        images, _ = shipped_digits()
        return Samples((images,), f"{len(images)} test images")
    generator = np.random.default_rng(RANDOM_SEED)
    arrays = tuple(_draw(network.tensors[index], generator) for index in network.inputs)
    return Samples(arrays, f"one sample of uniform random codes, seed {RANDOM_SEED}")


def _draw(tensor: Tensor, generator: np.random.Generator) -> Array:
    if tensor.dtype == "float32":
        return generator.uniform(-1, 1, tensor.shape).astype(np.float32)
    info = np.iinfo(DTYPES[tensor.dtype])  # type: ignore[type-var]  # only integer types get here
    return generator.integers(info.min, info.max, tensor.shape, DTYPES[tensor.dtype], endpoint=True)


def _fit(array: Array, tensor: Tensor, path: str) -> Array:
    """Bring `array` to (N, ...) of the tensor's own type, or say why it does not fit."""
    sample_shape = tensor.shape[1:]
    if array.shape == sample_shape:
        array = array[np.newaxis]
    if array.shape[1:] != sample_shape or array.ndim != len(tensor.shape) or len(array) == 0:
        wanted = ", ".join(["N", *map(str, sample_shape)])
        channels_first = array.ndim == 4 and array.shape[2:] + array.shape[1:2] == sample_shape
        way_out = "reshape the array"
        if channels_first:
            way_out = "bring channels last, x.transpose(0, 2, 3, 1)"
        elif array.shape[:1] == (0,):
            way_out = "give at least one sample"
        raise InputError(
            f"{path} has shape {array.shape} but input {tensor.name} takes ({wanted}); {way_out}"
        )
    dtype = DTYPES[tensor.dtype]
    if array.dtype == dtype:
        return array
    if tensor.dtype == "float32":
        if array.dtype.kind not in "fiu":
            raise InputError(
                f"{path} holds {array.dtype} but input {tensor.name} takes float32; convert it with"
                " x.astype(numpy.float32)"
            )
        with np.errstate(over="ignore"):  # to infinity, which is refused where it is read
            return array.astype(np.float32)
    if array.dtype.kind not in "iu":
        raise InputError(
            f"{path} holds {array.dtype} but input {tensor.name} takes {tensor.dtype} codes; "
            f"quantize it first: round(x / {tensor.scale}) + {tensor.zero_point}"
        )
    info = np.iinfo(dtype)  # type: ignore[type-var]  # float types returned above
    if array.min() < info.min or array.max() > info.max:
        raise InputError(
            f"{path} holds codes from {array.min()} to {array.max()} but input {tensor.name} takes "
            f"{tensor.dtype}, {info.min} to {info.max}"
        )
    return array.astype(dtype)
