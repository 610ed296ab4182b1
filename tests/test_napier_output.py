"""Files that Napier writes: whole or not at all, never over something that is not an output."""

import os
import stat
import threading
from pathlib import Path

import numpy as np
import pytest

from golden.errors import ModelError, OutputError
from napier.loading import load_model
from napier.output import check_writable, replacing, write_text


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    """A device would otherwise be replaced by a plain file, which ruins the machine."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check_writable(str(pipe))
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    array = np.arange(1000)
    with replacing(str(pipe)) as file:
        np.lib.format.write_array(file, array)
    reader.join()
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    (tmp_path / "copy.npy").write_bytes(read[0])
    np.testing.assert_array_equal(np.load(tmp_path / "copy.npy"), array)


def test_nothing_reaches_a_pipe_when_the_work_fails(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def fail_half_way() -> None:
        with replacing(str(pipe)) as file:
            file.write(b"half")
            raise ValueError("work")

    with pytest.raises(ValueError, match="work"):  # without a reader a write would wait for ever
        fail_half_way()
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder/target.json"
    target.write_text("before")
    link = tmp_path / "link.json"
    link.symlink_to("folder/target.json")
    check_writable(str(link))
    write_text(str(link), "after")
    assert link.is_symlink()
    assert target.read_text() == "after"
    assert list((tmp_path / "folder").iterdir()) == [target]


def test_a_link_to_nowhere_is_refused_by_the_folder_it_names(tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to("gone/target.json")
    with pytest.raises(
        OutputError, match=r"link.json cannot be written: there is no folder .*gone"
    ):
        check_writable(str(link))


@pytest.mark.parametrize("name", ["m.tflite", "m.TFLITE", "m.npz", "m.toml", "m.onnx"])
def test_a_model_or_hardware_file_is_never_overwritten(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    check_writable(str(path))  # a new file may have any name
    path.write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"is a model or hardware file .*name another"):
        check_writable(str(path))


def test_empty_names_are_refused_as_such() -> None:
    with pytest.raises(OutputError, match="name of a file to be written is empty"):
        check_writable("")
    with pytest.raises(ModelError, match="name of the model file is empty"):
        load_model("")


def test_a_pipe_is_not_a_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.tflite")
    with pytest.raises(ModelError, match="is a device or pipe, not a model file"):
        load_model(str(tmp_path / "m.tflite"))
