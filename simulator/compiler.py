"""From passes to what external memory holds: descriptors, weight blocks, constants.

The layouts are those of docs/programming.md. `simulator.plan` decides what every pass loads, runs
and stores and where it lies; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from golden.network import DTYPES, Network
from simulator.descriptors import MAGIC, MODES, encode_descriptor
from simulator.hardware import Hardware
from simulator.lowering import Step
from simulator.memory_image import (
    encode_parameters,
    tensor_bytes,
    tensor_from_bytes,
    tensor_planes_bytes,
)
from simulator.passes import Pass, Store
from simulator.plan import NetworkPlan, Program, plan_network
from simulator.program import (
    ROUNDINGS,
    Geometry,
    IntArray,
    LayerProgram,
    Parameters,
    check_bias,
    compile_geometry,
    encode_feed_word,
    feed_fields,
    pass_feed_words,
    stream_words,
)
from simulator.weight_blocks import Payload, address, encode_block, section_beats

PAIR_MODES = ("add", "mul")
"""Modes that read two operands."""


@dataclass(frozen=True)
class CompiledNetwork:
    """A planned network, and what external memory holds before it runs.

    Parameters
    ----------
    plan : NetworkPlan
    image : dict of int to bytes
        By offset from the base: descriptors, weight blocks, constants.
    """

    plan: NetworkPlan
    image: dict[int, bytes]

    @property
    def network(self) -> Network:
        """What was compiled."""
        return self.plan.lowered.network

    @property
    def hardware(self) -> Hardware:
        """What it was compiled for."""
        return self.plan.hardware

    def tensor_size_bytes(self, tensor: int) -> int:
        """Bytes that a tensor takes in memory."""
        array = self.hardware.array
        shape = self.network.tensors[tensor].shape
        return tensor_planes_bytes(shape, array.feed, array.activation_bits)

    def encode_tensor(self, tensor: int, codes: ArrayLike) -> bytes:
        """Lay a tensor out in planes."""
        array = self.hardware.array
        shaped = np.asarray(codes).reshape((1, *self.network.tensors[tensor].shape[1:]))
        return tensor_bytes(shaped, array.feed, array.activation_bits)

    def decode_tensor(self, tensor: int, data: bytes) -> NDArray[np.generic]:
        """Undo `encode_tensor`; the element type is the tensor's."""
        array, info = self.hardware.array, self.network.tensors[tensor]
        codes = tensor_from_bytes(
            data, info.shape, array.feed, array.activation_bits, info.dtype != "uint8"
        )
        return codes.astype(DTYPES[info.dtype])

    def written(self, program: Program) -> tuple[int, ...]:
        """Tensors that a program writes, reshaped ones included."""
        storage = self.plan.lowered.storage
        roots = {storage[each.step.output] for each in program.steps}
        return tuple(tensor for tensor, root in storage.items() if root in roots)


def compile_network(network: Network, hardware: Hardware) -> CompiledNetwork:
    """Plan a network and write its descriptors, weight blocks and constants.

    Parameters
    ----------
    network : Network
        Of one inference (batch 1).
    hardware : Hardware

    Raises
    ------
    HardwareError
        See `plan_network`.
    """
    plan = plan_network(network, hardware)
    compiled = CompiledNetwork(plan, {})
    for program in plan.programs:
        compiled.image.update(_program_image(program, hardware))
    for constant in network.constants:
        if constant.tensor in plan.offsets:
            data = compiled.encode_tensor(constant.tensor, constant.codes)
            compiled.image[plan.offsets[constant.tensor]] = data
    return compiled


def program_layers(program: Program) -> tuple[int, ...]:
    """Layers of the network that a program runs, in the order of their counters."""
    return tuple(dict.fromkeys(each.step.layer_index for each in program.steps))


def _program_image(program: Program, hardware: Hardware) -> Iterator[tuple[int, bytes]]:
    """Weight blocks and descriptors, by offset."""
    layers = program_layers(program)
    descriptors: list[bytes] = []
    for planned in program.steps:
        step = StepProgram(planned.step, hardware)
        written: dict[int, object] = {}
        for each in planned.passes:
            values = step.descriptor(
                each,
                layer=layers.index(planned.step.layer_index),
                program_end=len(descriptors) + 1 == len(program.passes),
            )
            data = encode_descriptor(values, step.geometry.starts(each.pixel_tiles[0]))
            descriptors.append(data.ljust(hardware.descriptor_bytes, b"\0"))
            # What a block depends on; passes that share a block agree in it.
            content = (each.channel_tiles, each.words, each.planes, each.load.phase_words)
            if each.weights.offset not in written:
                written[each.weights.offset] = content
                yield each.weights.offset, _block(step, each)
            assert written[each.weights.offset] == content, "passes of one block differ"
    yield program.descriptor_offset, b"".join(descriptors)


def _block(step: StepProgram, each: Pass) -> bytes:
    payload, planned = step.payload(each), each.weights
    sections = (planned.feed_beats, planned.parameter_beats, *planned.stream_beats)
    assert tuple(section_beats(payload, step.hardware)) == sections, "a block is not as planned"
    return encode_block(payload, step.hardware)


class StepProgram:
    """What the passes of one step of the array or of the vector unit have in common.

    Parameters
    ----------
    step : Step
    hardware : Hardware
    """

    def __init__(self, step: Step, hardware: Hardware) -> None:
        if step.geometry is None or step.mode is None:
            raise ValueError(f"step {step.name!r} is the host's")
        self.step = step
        self.hardware = hardware
        self.geometry: Geometry = step.geometry
        self.mode: str = step.mode

    @cached_property
    def layer(self) -> LayerProgram | None:
        """Streams and feed words of the whole layer; None for the vector unit."""
        if self.step.layer is None:
            return None
        program = compile_geometry(self.step.layer, self.geometry, self.hardware)
        check_bias(program)
        return program

    @cached_property
    def parameters(self) -> Parameters:
        """What the post-processor needs; one element where all channels share it."""
        vector = self.step.vector
        if vector is None:
            return self._array.parameters
        return Parameters(
            bias=np.zeros(1, np.int64),
            multiplier=np.array([vector.multiplier]),
            shift=np.array([vector.shift]),
            rounding=vector.rounding,
            output_zero_point=vector.output_zero_point,
            activation_min=vector.minimum,
            activation_max=vector.maximum,
        )

    @cached_property
    def parameter_words(self) -> list[int]:
        """Words of the parameter memory, a channel each; one where all share it."""
        return encode_parameters(self.parameters, self.hardware.widths)

    @property
    def _array(self) -> LayerProgram:
        assert self.layer is not None
        return self.layer

    def payload(self, each: Pass) -> Payload:
        """Words of the weight block of a pass."""
        planes = range(*each.planes)
        plane_lines = each.load.phase_words // len(planes)
        words = self.parameter_words
        if self.layer is None:
            if self.mode in PAIR_MODES:
                feed = self._pair_words(each)
            else:
                feed = self._window_words(each, planes, plane_lines)
            return Payload(feed.tolist(), words, [])
        part = self.layer.part(
            channel_tiles=range(*each.channel_tiles),
            words=None if each.words is None else range(*each.words),
        )
        return Payload(
            pass_feed_words(part, planes, plane_lines).tolist(),
            [words[channel] for channel in self.channels(each)],
            [stream_words(part, column).tolist() for column in range(self.geometry.cols)],
        )

    def _window_words(self, each: Pass, planes: range, plane_lines: int) -> IntArray:
        """Every tap of every word of F channels (rules V1, V4)."""
        kernel_taps = self.geometry.kernel[0] * self.geometry.kernel[1]
        word, tap = np.divmod(
            np.arange(each.channel_tiles[0] * kernel_taps, each.channel_tiles[1] * kernel_taps),
            kernel_taps,
        )
        fields = feed_fields(tap, word - planes.start, self.geometry, len(planes), plane_lines)
        last = (tap == kernel_taps - 1).astype(np.int64)
        return encode_feed_word(self.hardware.widths, last, *fields)

    def _pair_words(self, each: Pass) -> IntArray:
        """Read the two operands of a pixel (rule V2)."""
        assert each.load.second_base is not None
        addr = np.array([0, each.load.second_base - each.load.base])
        nothing = np.zeros(2, np.int64)
        last = np.array([0, 1])
        return encode_feed_word(self.hardware.widths, last, addr, nothing, nothing, nothing)

    def channels(self, each: Pass) -> range:
        """Channels of the step that a pass computes."""
        cols, most = self.geometry.cols, self.geometry.out_channels
        return range(each.channel_tiles[0] * cols, min(each.channel_tiles[1] * cols, most))

    def descriptor(self, each: Pass, *, layer: int, program_end: bool) -> dict[str, int]:
        """Values of the descriptor of a pass, by the names of `DESCRIPTOR_FIELDS`.

        Parameters
        ----------
        each : Pass
        layer : int
            Where its counters go.
        program_end : bool
        """
        geometry, hardware, parameters = self.geometry, self.hardware, self.parameters
        shared = self.layer is None
        block, channels = each.weights, self.channels(each)
        first_channel = (self.step.first_channel + channels.start) % geometry.feed
        out_words = (first_channel + len(channels) - 1) // geometry.feed + 1
        last_columns = geometry.columns_used(each.channel_tiles[1] - 1)
        return {
            "magic": MAGIC,
            "machine": hardware.machine_id,
            "order": each.order,
            "layer_end": int(each.layer_end),
            "program_end": int(program_end),
            "drain": int(each.drain),
            "input_signed": int(self.step.input_signed),
            "shared_parameter": int(shared),
            "rounding": ROUNDINGS.index(parameters.rounding),
            "mode": MODES.index(self.mode),
            "winograd": geometry.form,
            "layer": layer,
            "pixel_tiles": each.pixel_tiles[1] - each.pixel_tiles[0],
            "channel_tiles": each.channel_tiles[1] - each.channel_tiles[0],
            "results": geometry.cols * hardware.drain_groups,
            "results_last": last_columns * hardware.drain_groups,
            "feed_base": address(block.load_feed, hardware.feed_places),
            "stream_base": address(block.load_streams, hardware.stream_places),
            "first_channel": first_channel,
            "parameter_base": block.load_parameters - (0 if shared else first_channel),
            "activation_base": each.activation_base,
            "output_base": each.output_base,
            "in_words": each.planes[1] - each.planes[0],
            "out_words": out_words,
            **geometry.walk(),
            "height": geometry.height,
            "width": geometry.width,
            "output_zero_point": parameters.output_zero_point,
            "minimum": parameters.activation_min,
            "maximum": parameters.activation_max,
            **self._operands(),
            "weight_offset": block.offset,
            "weight_beats": block.beats if each.load_weights else 0,
            "load_feed": block.load_feed,
            "load_parameters": block.load_parameters,
            "load_streams": block.load_streams,
            **_load_values(each, geometry),
            **_store_values(each.store, geometry, out_words),
            "chunk_words": geometry.chunk_words,
            "chunks": geometry.chunks if geometry.form else 0,
        }

    def _operands(self) -> dict[str, int]:
        """Fields that tell what is done with operands."""
        vector = self.step.vector
        if vector is None:
            return dict.fromkeys(PAIR_FIELDS, 0) | {
                "input_zero_point": self._array.input_zero_point
            }
        return {
            "input_zero_point": vector.input_zero_point,
            "second_offset": vector.second_offset,
            "left_shift": vector.left_shift,
            "first_multiplier": vector.first[0],
            "first_shift": vector.first[1],
            "second_multiplier": vector.second[0],
            "second_shift": vector.second[1],
        }


PAIR_FIELDS = (
    "second_offset",
    "left_shift",
    "first_multiplier",
    "first_shift",
    "second_multiplier",
    "second_shift",
)
"""Fields of the element-wise modes."""

NO_STORE = Store(*(0,) * 10)


def _load_values(each: Pass, geometry: Geometry) -> dict[str, int]:
    load, in_words = each.load, each.planes[1] - each.planes[0]
    return {
        "load_offset": load.offset,
        "load_segments": load.segments if each.load_activations else 0,
        "load_words": load.words,
        "load_stride": load.stride_bytes,
        "load_base": load.base,
        "load_row_words": load.row_words,
        "load_rows": load.rows,
        "load_stride_x": geometry.stride[1],
        "load_stride_y": geometry.stride[0],
        "load_bank": load.bank,
        "load_phase_words": load.phase_words,
        "load_pitch_banks": geometry.pitch % geometry.rows,
        "load_phase_y": load.phase_y,
        "load_pitch_words": geometry.pitch // geometry.rows * in_words,
        "second_load_offset": load.second_offset or 0,
        "second_load_base": load.second_base or 0,
    }


def _store_values(store: Store | None, geometry: Geometry, out_words: int) -> dict[str, int]:
    gap = geometry.pitch - geometry.out_width
    store = NO_STORE if store is None else store
    return {
        "store_offset": store.offset,
        "store_segments": store.segments,
        "store_words": store.words,
        "store_stride": store.stride_bytes,
        "store_base": store.base,
        "store_bank": store.bank,
        "store_first_row_words": store.first_row_words,
        "store_row_words": store.row_words,
        "store_first_lane": store.first_lane,
        "store_last_lane": store.last_lane,
        "store_gap_banks": gap % geometry.rows,
        "store_gap_words": gap // geometry.rows * out_words * geometry.tile_outputs,
    }
