"""Napier's own network file: one .npz that holds arrays and one JSON document, and never a pickle.

The member ``network.json`` is a uint8 array: the UTF-8 text of a `golden.network.Network`. Every
dataclass becomes an object with exactly the fields of the class (a network without constants leaves
that one out), every layer also says its ``op`` (`golden.network.OP_NAMES`), and every array field
holds the name of another member. The same code serves every class because it follows the types of
the fields. Details: ``docs/file_format.md``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import struct
import tempfile
import types
import typing
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from math import isfinite, prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.check import check_network
from golden.errors import ModelError, OutputError
from golden.network import OP_NAMES, Layer, Network

SCHEMA = "napier.network/1"
DOCUMENT = "network.json"

MAX_FILE_BYTES = 1 << 30  # all members together, unpacked
MAX_DOCUMENT_BYTES = 1 << 26
MAX_MEMBERS = 1 << 16

INT64 = np.iinfo(np.int64)

Array = NDArray[Any]

_CLASSES = {op: layer_class for layer_class, op in OP_NAMES.items()}

_DTYPES = ("|i1", "|u1", "<i2", "<i4", "<i8")

_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(?P<length>..)"
    rb"\{'descr': '(?P<dtype>[|<][iu][1248])', 'fortran_order': False, "
    rb"'shape': \((?P<shape>[0-9]{1,12},|[0-9]{1,12}(?:, [0-9]{1,12}){1,7})\), \} *\n",
    re.DOTALL,
)
"""Header of a .npy member as NumPy writes it (format 1.0), for one to eight axes."""


def save_network(network: Network, path: str | Path) -> None:
    """Write a network to one file, all of it or nothing.

    The same network gives the same bytes (with the same zlib): no time stamp is stored.

    Parameters
    ----------
    network : Network
    path : path
        By custom ``*.npz``.

    Raises
    ------
    ModelError
        Where the network does not hold together (see `golden.check.check_network`).
    OutputError
        Where the file cannot be written; an older file of this name is then untouched.
    """
    check_network(network)
    arrays: dict[str, Array] = {}
    document = {"schema": SCHEMA} | _encode(network, "", arrays)
    if not network.constants:
        del document["constants"]
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    _require_unicode(text, "names")
    save_arrays({DOCUMENT: np.frombuffer(text.encode(), dtype=np.uint8)} | arrays, path)


def load_network(path: str | Path) -> Network:
    """Read a network file.

    Parameters
    ----------
    path : path
        A file that `save_network` wrote.

    Returns
    -------
    Network
        Checked by `golden.check.check_network`; its arrays cannot be written to.

    Raises
    ------
    ModelError
        For anything that is not such a file, in one sentence.
    """
    try:
        arrays = _read_members(Path(path))
        document = _parse(arrays.pop(DOCUMENT, None))
        schema = document.pop("schema", None)
        _require(schema == SCHEMA, "schema", f"must be {SCHEMA!r}", schema)
        document.setdefault("constants", [])
        network: Network = _decode(document, Network, "", arrays)
        unused = sorted(arrays)
        _require(not unused, "members", f"must be named in {DOCUMENT}", unused[:1])
        check_network(network)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    return network


def save_arrays(arrays: Mapping[str, Array], path: str | Path) -> None:
    """Write arrays to one compressed .npz, all of it or nothing, the same bytes every time.

    Parameters
    ----------
    arrays : mapping of name to array
    path : path

    Raises
    ------
    OutputError
        Where the file cannot be written; an older file of this name is then untouched.
    """
    path = Path(path)
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    try:
        _replace(path.resolve(), content.getvalue())
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise OutputError(
            f"{path} cannot be written ({reason}); name a file in a folder that exists, "
            "that you may write to, and that has room."
        ) from None


def _replace(path: Path, content: bytes) -> None:
    """Put `content` where `path` is; whatever happens on the way, no half file is left."""
    if path.exists() and not path.is_file():
        raise ValueError("it is not a regular file")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(_mode(path))
        Path(temporary).replace(path)
    except BaseException:  # Ctrl-C too
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def _mode(path: Path) -> int:
    """Permissions that opening `path` for writing would have left."""
    try:
        return path.stat().st_mode & 0o777
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


# -- to JSON and arrays ----------------------------------------------------------------------------


def _encode(value: Any, place: str, arrays: dict[str, Array]) -> Any:
    """Return what JSON says of a value; arrays go to `arrays` under the name of their place."""
    if is_dataclass(value):
        pairs = {f.name: getattr(value, f.name) for f in fields(value)}
        head = {"op": value.op} if isinstance(value, Layer) else {}
        return head | {k: _encode(v, _join(place, k), arrays) for k, v in pairs.items()}
    if isinstance(value, tuple):
        return [_encode(item, _join(place, str(i)), arrays) for i, item in enumerate(value)]
    if isinstance(value, np.ndarray):
        arrays[place] = np.ascontiguousarray(value)
        return place
    return value.item() if isinstance(value, np.generic) else value


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


# -- from JSON and arrays --------------------------------------------------------------------------


def _decode(value: Any, hint: Any, place: str, arrays: dict[str, Array]) -> Any:
    """Turn what JSON says into the type that a field declares, or refuse it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):  # only "something or None" occurs
        (inner,) = (argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else _decode(value, inner, place, arrays)
    if origin is typing.Literal:
        _require(value in arguments, place, f"must be one of {', '.join(arguments)}", value)
        return value
    if origin is tuple:
        return _decode_tuple(value, arguments, place, arrays)
    if origin is np.ndarray:
        return _decode_array(value, arguments[1], place, arrays)
    if is_dataclass(hint):
        return _decode_object(value, typing.cast(type, hint), place, arrays)
    return _decode_scalar(value, hint, place)


def _decode_scalar(value: Any, hint: Any, place: str) -> Any:
    if hint is float and type(value) is int and abs(value) <= 2**53:
        return float(value)
    _require(type(value) is hint, place, f"must be of type {hint.__name__}", value)
    if hint is int:
        _require(INT64.min <= value <= INT64.max, place, "must fit 64 bits", value)
    if hint is float:
        _require(isfinite(value), place, "must be finite", value)
    if hint is str:
        _require_unicode(value, place)
    return value


def _decode_tuple(
    value: Any, arguments: tuple[Any, ...], place: str, arrays: dict[str, Array]
) -> tuple[Any, ...]:
    _require(isinstance(value, list), place, "must be a list", value)
    if arguments[-1] is Ellipsis:
        arguments = arguments[:1] * len(value)
    count = len(arguments)
    _require(len(value) == count, place, f"must be a list of {count}", value)
    return tuple(
        _decode(item, hint, _join(place, str(i)), arrays)
        for i, (item, hint) in enumerate(zip(value, arguments, strict=True))
    )


def _decode_array(value: Any, dtype_hint: Any, place: str, arrays: dict[str, Array]) -> Array:
    """Take the member that holds an array field; it is named after the field's place."""
    _require(value == place, place, f"must name the member {place!r}", value)
    _require(place in arrays, place, "must be a member of the file", "absent")
    array = arrays.pop(place)
    (scalar,) = typing.get_args(dtype_hint)
    _require(
        issubclass(array.dtype.type, scalar),
        place,
        f"must be of type {scalar.__name__}",
        array.dtype,
    )
    return array


def _decode_object(value: Any, cls: type, place: str, arrays: dict[str, Array]) -> Any:
    _require(isinstance(value, dict), place or "the document", "must be an object", value)
    given = dict(value)
    if issubclass(cls, Layer):
        op = given.pop("op", None)
        known = isinstance(op, str) and op in _CLASSES
        _require(known, f"{place}.op", f"must be one of {', '.join(_CLASSES)}", op)
        cls = _CLASSES[op]
    hints = _field_types(cls)
    for key in given:
        _require_known(key, hints, place)
    for key in hints:
        _require(key in given, _join(place, key), "must be given", "absent")
    return cls(**{k: _decode(given[k], hints[k], _join(place, k), arrays) for k in hints})


def _field_types(cls: type) -> dict[str, Any]:
    """Return the declared type of every field of a dataclass."""
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in fields(cls)}


def _require_known(key: str, known: Mapping[str, Any], place: str) -> None:
    if key not in known:
        nearest = get_close_matches(key[:80], known, n=1, cutoff=0.0)
        raise ModelError(
            f"{_join(place, _shown(key))} is not a key of {SCHEMA}; did you mean {nearest[0]}?"
        )


def _parse(member: Array | None) -> dict[str, Any]:
    """Parse the JSON document of a file."""
    _require(
        member is not None and member.dtype == np.uint8 and member.ndim == 1,
        f"member {DOCUMENT}",
        "must be a one-dimensional uint8 array",
        "absent" if member is None else f"{member.dtype} of shape {member.shape}",
    )
    assert member is not None  # for the type checker; refused above
    _require(member.size <= MAX_DOCUMENT_BYTES, DOCUMENT, "must not exceed 64 MiB", member.size)
    try:
        document = json.loads(member.tobytes().decode(), object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"{DOCUMENT} must be JSON in UTF-8, but {error}; write the file with save_network."
        ) from None
    _require(isinstance(document, dict), DOCUMENT, "must be an object", document)
    return typing.cast("dict[str, Any]", document)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        _require(key not in result, DOCUMENT, "must have every key once in an object", key)
        result[key] = value
    return result


# -- the container ---------------------------------------------------------------------------------


_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)
"""What `zipfile` raises on damaged archives."""


def _read_members(path: Path) -> dict[str, Array]:
    """Every array of an .npz, its declared sizes checked before anything is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _require_modest(members)
            return {_member_name(m.filename): _read_member(archive, m) for m in members}
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelError(f"cannot be read ({reason}); name a file that exists.") from None
    except _DAMAGE:
        raise ModelError(
            "is not an intact .npz archive; write or copy the file again, or name another."
        ) from None


def _require_modest(members: list[zipfile.ZipInfo]) -> None:
    """Refuse archives that would fill the memory, members twice, and unknown packing."""
    _require(len(members) <= MAX_MEMBERS, "members", f"must not exceed {MAX_MEMBERS}", len(members))
    size_bytes = sum(member.file_size for member in members)
    _require(
        size_bytes <= MAX_FILE_BYTES,
        "unpacked size",
        f"must not exceed {MAX_FILE_BYTES} bytes",
        size_bytes,
    )
    names = [member.filename for member in members]
    _require(len(set(names)) == len(names), "members", "must have different names", "two the same")
    for member in members:
        known = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        plain = known and not member.flag_bits & 0x1
        _require(
            plain, f"member {member.filename!r}", "must be stored or deflated", "otherwise packed"
        )


def _member_name(filename: str) -> str:
    _require(filename.endswith(".npy"), f"member {filename!r}", "must end in .npy", filename)
    return filename.removesuffix(".npy")


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    """One .npy member; a header that NumPy would not write for integers is refused, pickles too."""
    place = f"member {member.filename!r}"
    with archive.open(member) as file:
        content = file.read(member.file_size)  # a bare read would unpack more than is declared
    header = _NPY_HEADER.match(content)
    if header is None or header.end() != 10 + int.from_bytes(header["length"], "little"):
        raise ModelError(
            f"{place} must be a C-ordered integer array in .npy format 1.0, but is not; "
            "write the file with save_network."
        )
    name = header["dtype"].decode()
    _require(name in _DTYPES, place, f"must be one of {', '.join(_DTYPES)}", name)
    dtype = np.dtype(name)
    shape = tuple(int(size) for size in header["shape"].split(b",") if size)
    size_bytes = len(content) - header.end()
    expected_bytes = prod(shape) * dtype.itemsize
    _require(size_bytes == expected_bytes, place, f"must hold {expected_bytes} bytes", size_bytes)
    return np.frombuffer(content, dtype, offset=header.end()).reshape(shape)


def _require(holds: bool, place: str, rule: str, value: object) -> None:
    if not holds:
        raise ModelError(f"{place} {rule}, not {_shown(value)}; write the file with save_network.")


def _require_unicode(text: str, place: str) -> None:
    """Refuse halves of surrogate pairs, which JSON can spell and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise ModelError(f"{place} must be Unicode text, not {half!r}; choose another.") from None


def _shown(value: object) -> str:
    """Word a value for a message: cut where it is long, on one line."""
    plain = isinstance(value, np.dtype) or (isinstance(value, str) and value.isprintable())
    text = str(value) if plain else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
