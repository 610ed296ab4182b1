"""Write a folder that runs a compiled network with Icarus alone: Verilog, images, bench."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.errors import HardwareError
from golden.network import Network
from rtl_models.reference import golden_network, winograd_forms
from rtl_models.sources import sources as module_sources
from rtl_models.top import (
    COUNTERS,
    HARNESS,
    Memory,
    expected_counters,
    network_parameters,
)
from simulator.compiler import CompiledNetwork, compile_network, program_layers
from simulator.hardware import Hardware, to_toml
from simulator.lowering import Step
from simulator.plan import Program
from simulator.results import LayerTiming
from simulator.timing import time_network

Array = NDArray[Any]

SCHEMA = "napier.export/1"

TEMPLATES = Path(__file__).parent / "templates"
"""Texts with {fields} to be filled in."""

TESTBENCH, IMAGE, EXPECTED, EXPECTED_COUNTERS, README, MANIFEST, TOML = (
    "testbench.v",
    "image.hex",
    "expected.hex",
    "counters.hex",
    "README.md",
    "manifest.json",
    "hardware.toml",
)
"""Files of an exported folder, besides `verilog/`."""

COMPILE = f"iverilog -g2012 -s testbench -o testbench.vvp {TESTBENCH} verilog/*.v"
RUN = "vvp -n testbench.vvp"
"""Commands that run an exported folder, from inside."""

SPARE_CYCLES = 1000
"""Cycles beyond the expected ones after which the bench gives up."""


@dataclass(frozen=True)
class Export:
    """What was written.

    Parameters
    ----------
    cycles : int
        Of the program.
    files : tuple of str
        Paths in the folder, sorted.
    host_layers : tuple of str
        Names of the layers that are left to the host.
    """

    cycles: int
    files: tuple[str, ...]
    host_layers: tuple[str, ...]


def write_export(
    network: Network,
    hardware: Hardware,
    inputs: Sequence[Array],
    folder: Path,
    *,
    input_description: str = "",
    weights: str = "as-is",
) -> Export:
    """Compile a network and write everything into an empty folder.

    Layers of the host may stand before and after the program; golden computes what they give.

    Parameters
    ----------
    network : Network
    hardware : Hardware
    inputs : sequence of array
        One sample of each input, in the order of `Network.inputs`.
    folder : Path
    input_description, weights : str
        Where inputs and weights came from, for the README.

    Raises
    ------
    HardwareError
        The network does not fit, or a layer of the host stands between two programs.
    """
    return _Folder(network, hardware, inputs, input_description, weights).write(folder)


class _Folder:
    """Everything that the files tell."""

    def __init__(
        self,
        network: Network,
        hardware: Hardware,
        inputs: Sequence[Array],
        input_description: str,
        weights: str,
    ) -> None:
        self.network, self.hardware = network, hardware
        self.input_description, self.weights = input_description, weights
        self.compiled = compile_network(network, hardware)
        self.program = _only_program(self.compiled)
        self.tensors, self.overflows = golden_network(
            network, hardware, inputs, winograd_forms(self.compiled.plan)
        )
        self.timings = time_network(network, hardware)
        self.layers = program_layers(self.program)
        self.memory = Memory(self.compiled)
        self.given = _given(self.compiled, self.program)
        for tensor in self.given:
            self.memory.write(tensor, self.tensors[tensor])
        self.parameters = network_parameters(self.compiled)

    @property
    def timing(self) -> list[LayerTiming]:
        """Of the program's layers."""
        return [self.timings[layer] for layer in self.layers]

    @property
    def cycles(self) -> int:
        return sum(timing.cycles for timing in self.timing)

    @property
    def hosts(self) -> list[Step]:
        return [part for part in self.compiled.plan.parts if isinstance(part, Step)]

    def write(self, folder: Path) -> Export:
        verilog = folder / "verilog"
        verilog.mkdir()
        for source in (*HARNESS, *module_sources("napier_top")):
            shutil.copyfile(source, verilog / source.name)
        texts = {
            IMAGE: self.memory.image(),
            EXPECTED: self._expected(),
            EXPECTED_COUNTERS: self._counters(),
            TESTBENCH: self._testbench(),
            TOML: to_toml(self.hardware),
            README: self._readme(),
        }
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        files = sorted(
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
        )
        manifest = json.dumps(self._manifest(folder, files), indent=1) + "\n"
        (folder / MANIFEST).write_text(manifest, encoding="utf-8")
        return Export(
            self.cycles, tuple(sorted([*files, MANIFEST])), tuple(step.name for step in self.hosts)
        )

    # -- images -----------------------------------------------------------------------------------

    @property
    def written(self) -> list[int]:
        """Tensors that the program writes, one for each place in memory."""
        storage = self.compiled.plan.lowered.storage
        return sorted({storage[tensor] for tensor in self.compiled.written(self.program)})

    def _expected(self) -> str:
        """Bytes of all tensors that the program writes, without lanes beyond the last channel."""
        known = Memory(self.compiled)
        known.known[:] = False
        for tensor in self.written:
            codes = self.tensors[tensor]
            known.write(tensor, codes)
            # A tensor of ones tells which bytes hold codes.
            offset = self.compiled.plan.offsets[tensor]
            marks = self.compiled.encode_tensor(tensor, np.full(codes.shape, -1))
            known.known[offset : offset + len(marks)] = np.frombuffer(marks, np.uint8) != 0
        return known.image()

    def _counters(self) -> str:
        lines = []
        for layer, timing in zip(self.layers, self.timing, strict=True):
            counters = expected_counters(timing, self.overflows.get(layer), timed=True)
            words = " ".join(f"{counters[name]:x}" for name in COUNTERS)
            lines.append(f"{words} // {_comment(self.network.layers[layer].name)}")
        return "\n".join(lines) + "\n"

    # -- texts ------------------------------------------------------------------------------------

    def _testbench(self) -> str:
        overrides = self.parameters | {
            "MEMORY_BYTES": self.compiled.plan.total_bytes,
            "REPORT": 0,
        }
        parameters = ",\n".join(f"      .{name}({value})" for name, value in overrides.items())
        return _template(TESTBENCH).format(
            parameters=parameters,
            network=_comment(self.network.name),
            hardware=_comment(self.hardware.name),
            memory_bytes=self.compiled.plan.total_bytes,
            program=self.program.descriptor_offset,
            layers=len(self.layers),
            counters=len(COUNTERS),
            latency=self.hardware.dram.latency_cycles,
            interval=self.hardware.interval_cycles,
            cycles=self.cycles,
            limit=self.cycles + SPARE_CYCLES,
            image=IMAGE,
            expected=EXPECTED,
            expected_counters=EXPECTED_COUNTERS,
        )

    def _readme(self) -> str:
        names = [self.network.layers[layer].name for layer in self.layers]
        inputs = f" ({self.input_description})" if self.input_description else ""
        return _template(README).format(
            network=self.network.name,
            source=f" from {self.network.source}" if self.network.source else "",
            weights=self.weights,
            hardware=self.hardware.name,
            compile=COMPILE,
            run=RUN,
            cycles=self.cycles,
            layers=", ".join(names),
            hosts=self._host_sentence(),
            input_description=inputs,
            program=self.program.descriptor_offset,
            descriptors=len(self.program.passes),
            descriptor_bytes=self.hardware.descriptor_bytes,
            total_bytes=self.compiled.plan.total_bytes,
            word_bytes=self.hardware.word_bytes,
            feed=self.hardware.array.feed,
            machine=self.hardware.machine_id,
            memory_map=self._memory_map(),
            parameters="\n".join(f"| {name} | {v} |" for name, v in self.parameters.items()),
            testbench=TESTBENCH,
            image=IMAGE,
            expected=EXPECTED,
            expected_counters=EXPECTED_COUNTERS,
            manifest=MANIFEST,
            toml=TOML,
        )

    def _host_sentence(self) -> str:
        if not self.hosts:
            return "No layer is left to the host."
        names = ", ".join(
            f"{step.name} ({self.network.layers[step.layer_index].op})" for step in self.hosts
        )
        return (
            f"Left to the host: {names}. What the program reads from such layers is in {IMAGE} as"
            " the golden model computes it."
        )

    def _regions(self) -> list[dict[str, Any]]:
        """Everything in memory, by offset."""
        plan, network = self.compiled.plan, self.network
        descriptors = self.program.descriptor_offset
        regions: list[dict[str, Any]] = [
            {
                "what": "descriptors" if offset == descriptors else "weight block",
                "offset": offset,
                "bytes": len(data),
            }
            for offset, data in self.compiled.image.items()
        ]
        constants = {constant.tensor for constant in network.constants}
        taken = {plan.offsets[tensor] for tensor in constants if tensor in plan.offsets}
        regions = [region for region in regions if region["offset"] not in taken]
        roles = dict.fromkeys(self.written, "intermediate")
        roles |= dict.fromkeys(self.given, "input")
        roles |= {tensor: "constant" for tensor in constants if tensor in plan.offsets}
        storage = plan.lowered.storage
        last = {storage[tensor] for tensor in network.outputs if tensor in storage}
        last |= {storage[i] for step in self.hosts for i in step.inputs if i in storage}
        roles |= {tensor: "output" for tensor in self.written if tensor in last}
        for tensor, role in roles.items():
            info = network.tensors[tensor]
            regions.append(
                {
                    "what": role,
                    "offset": plan.offsets[tensor],
                    "bytes": self.compiled.tensor_size_bytes(tensor),
                    "tensor": info.name,
                    "shape": [1, *info.shape[1:]],
                    "dtype": info.dtype,
                    "scale": info.scale,
                    "zero_point": info.zero_point,
                }
            )
        return sorted(regions, key=lambda region: region["offset"])

    def _memory_map(self) -> str:
        """Rows of a table; weight blocks as one."""
        rows, blocks = [], []
        for region in self._regions():
            if region["what"] == "weight block":
                blocks.append(region)
                continue
            tensor = ""
            if "tensor" in region:
                shape = " x ".join(map(str, region["shape"][1:]))
                name = _comment(region["tensor"]).replace("|", "\\|")
                tensor = f"{name}, {shape}, {region['dtype']}"
            rows.append((region["offset"], region["bytes"], region["what"], tensor))
        if blocks:
            size = sum(block["bytes"] for block in blocks)
            rows.append((blocks[0]["offset"], size, f"{len(blocks)} weight blocks", ""))
        return "\n".join(
            f"| {offset:#x} | {size} | {what} | {tensor} |"
            for offset, size, what, tensor in sorted(rows)
        )

    def _manifest(self, folder: Path, files: list[str]) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "model": {
                "name": self.network.name,
                "source": self.network.source,
                "weights": self.weights,
                "input": self.input_description,
            },
            "hardware": self.hardware.model_dump(mode="json"),
            "parameters": self.parameters,
            "program": {
                "descriptor_offset": self.program.descriptor_offset,
                "descriptors": len(self.program.passes),
                "layers": [self.network.layers[layer].name for layer in self.layers],
                "cycles": self.cycles,
            },
            "host_layers": [step.name for step in self.hosts],
            "memory_bytes": self.compiled.plan.total_bytes,
            "memory": self._regions(),
            "commands": [COMPILE, RUN],
            "files": {
                name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files
            },
        }


def _only_program(compiled: CompiledNetwork) -> Program:
    """Return the program, if there is one and only the host's layers around it."""
    parts = compiled.plan.parts
    places = [i for i, part in enumerate(parts) if isinstance(part, Program)]
    name = compiled.network.name
    if not places:
        raise HardwareError(
            f"network {name!r} has no layer that the accelerator runs, so that there is nothing to"
            " export; all its layers are the host's"
        )
    between = [part for part in parts[places[0] : places[-1]] if isinstance(part, Step)]
    if between:
        step = between[0]
        op = compiled.network.layers[step.layer_index].op
        raise HardwareError(
            f"layer {step.name!r} ({op}) is the host's and stands between two programs, but an"
            " exported folder runs one; export the layers before it and those behind it as models"
            " of their own"
        )
    program = parts[places[0]]
    assert isinstance(program, Program)
    return program


def _given(compiled: CompiledNetwork, program: Program) -> list[int]:
    """Tensors that a program reads and neither writes nor has as constants."""
    storage = compiled.plan.lowered.storage
    read = {storage[tensor] for each in program.steps for tensor in each.step.inputs}
    constants = {constant.tensor for constant in compiled.network.constants}
    return sorted(read - set(compiled.written(program)) - constants)


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _comment(text: str) -> str:
    """Make a name one printable line, so that it ends no comment."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
