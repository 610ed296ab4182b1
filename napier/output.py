"""Files for the user: whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from golden.errors import OutputError

INPUT_SUFFIXES = (".tflite", ".onnx", ".npz", ".toml")
"""What Napier reads and never writes: an existing file of these kinds is not an output."""


def check_writable(path: str | None) -> None:
    """Fail early, before the work, where `path` cannot or should not be written.

    Raises
    ------
    OutputError
        The folder is missing or may not be written, or `path` is a folder, has no name, or is a
        model or hardware file.
    """
    if path is None or path == "-":
        return
    if not path:
        raise OutputError("the name of a file to be written is empty; give it a name")
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise OutputError(f"{path} is a folder; name a file in it")
    if target.exists() and target.suffix.lower() in INPUT_SUFFIXES:
        raise OutputError(
            f"{path} is a model or hardware file and would be overwritten; name another file"
        )
    if _is_special(path):
        if not os.access(path, os.W_OK):
            raise OutputError(f"{path} cannot be written: it is read-only for you")
        return
    folder = target.parent
    if not folder.is_dir():
        raise OutputError(f"{path} cannot be written: there is no folder {folder}; create it first")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{path} cannot be written: the folder {folder} is read-only for you")


def check_outputs(outputs: Sequence[str | None], inputs: Sequence[str] = ()) -> None:
    """`check_writable` for all outputs of a command; each needs a file of its own.

    Raises
    ------
    OutputError
        As `check_writable`; or one file is named twice, or is an input too. Devices may be shared.
    """
    taken = {os.path.realpath(path) for path in inputs}
    for path in outputs:
        check_writable(path)
        if path is None or path == "-" or _is_special(path):
            continue
        if os.path.realpath(path) in taken:
            raise OutputError(f"{path} is named twice; name another file for each")
        taken.add(os.path.realpath(path))


@contextlib.contextmanager
def replacing(path: str) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` that takes its place when the block ends well.

    A symbolic link stays, what it points to is replaced. A device or pipe is written to, in one
    piece when the block ends.

    Raises
    ------
    OutputError
        The file cannot be written; what was at `path` before is untouched.
    """
    target = Path(os.path.realpath(path))
    temporary: Path | None = None
    try:
        if _is_special(path):
            buffer = io.BytesIO()
            yield buffer
            with Path(path).open("wb") as device:
                device.write(buffer.getvalue())
            return
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            yield file
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
        temporary = None
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _is_special(path: str) -> bool:
    """Whether `path` is a device or pipe; it must never be replaced by a plain file."""
    return Path(path).exists() and not Path(path).is_file()


def write_text(path: str, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
