"""`napier export`: a folder with Verilog, memory image and bench; whole or not at all."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from golden.errors import OutputError
from napier.loading import default_samples, load_model, load_samples
from rtl_models.export import COMPILE, RUN, Export, write_export
from simulator.hardware import Hardware
from simulator.projection import project_weights


@dataclass(frozen=True)
class Exported:
    """What was written where."""

    folder: str
    network: str
    hardware: str
    export: Export

    def text(self) -> str:
        """Say what is there and how to run it."""
        hosts = ", ".join(self.export.host_layers)
        left = f"\nLeft to the host: {hosts}." if hosts else ""
        return (
            f"{self.folder}: {self.network} on {self.hardware}, {self.export.cycles} cycles,"
            f" {len(self.export.files)} files.{left}\n"
            f"Run it there with\n  {COMPILE}\n  {RUN}"
        )


def check_folder(path: str) -> None:
    """Fail early, before the work, where no folder can be written.

    Raises
    ------
    OutputError
        `path` is a file or a folder that is not empty, or the folder around it is missing or
        read-only.
    """
    if not path:
        raise OutputError("the name of the folder to be written is empty; give it a name")
    target = Path(os.path.realpath(path))
    if target.is_dir():
        if any(target.iterdir()):
            raise OutputError(f"{path} is not empty; name a new or an empty folder")
    elif target.exists():
        raise OutputError(f"{path} is a file; name a new or an empty folder")
    if not target.parent.is_dir():
        raise OutputError(
            f"{path} cannot be written: there is no folder {target.parent}; create it first"
        )
    if not os.access(target.parent, os.W_OK):
        raise OutputError(
            f"{path} cannot be written: the folder {target.parent} is read-only for you"
        )


def export_model(
    model: str | None,
    hardware: Hardware,
    inputs: tuple[str, ...],
    weights: str,
    folder: str,
) -> Exported:
    """Export a model, with the first sample of its inputs.

    Everything is written beside `folder` first and takes its place at the end.
    """
    check_folder(folder)
    network = project_weights(load_model(model), weights)
    samples = load_samples(network, inputs) if inputs else default_samples(network, model)
    description = samples.description
    if samples.count > 1:
        description = f"the first of {samples.count}: {description}"
    target = Path(os.path.realpath(folder))
    beside = target.parent / f".{target.name}.{os.getpid()}"
    try:
        beside.mkdir()
        export = write_export(
            network,
            hardware,
            tuple(array[:1] for array in samples.arrays),
            beside,
            input_description=description,
            weights=weights,
        )
        beside.replace(target)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Exported(folder, network.name, hardware.name, export)
