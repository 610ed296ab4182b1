"""From passes to what external memory holds: descriptors, weight blocks, constants.

The layouts are those of docs/programming.md. `simulator.plan` decides what every pass loads, runs
and stores and where it lies; nothing is decided here.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.descriptors import MAGIC, MODES
from simulator.memory_image import parameter_words
from simulator.passes import Pass, Store
from simulator.program import ROUNDINGS, Geometry, LayerProgram, pass_feed_words, stream_words
from simulator.weight_blocks import Payload, address


@dataclass(frozen=True)
class Work:
    """What all passes of one layer have in common.

    Parameters
    ----------
    program : LayerProgram
        Of the whole layer.
    mode : str
        One of `MODES`.
    input_signed : bool
        Whether input codes are two's complement.
    shared_parameter : bool
        Whether one parameter word serves all channels.
    first_output_channel : int
        Channel of the output tensor that the layer's first channel is.
    pair : dict of str to int
        Fields of the element-wise modes.
    """

    program: LayerProgram
    mode: str = "array"
    input_signed: bool = True
    shared_parameter: bool = False
    first_output_channel: int = 0
    pair: dict[str, int] | None = None


def pass_payload(work: Work, each: Pass) -> Payload:
    """Words of the weight block of a pass."""
    program = work.program
    part = program.part(
        channel_tiles=range(*each.channel_tiles),
        words=None if each.words is None else range(*each.words),
    )
    planes = range(*each.planes)
    feed = pass_feed_words(part, planes, each.load.phase_words // len(planes)).tolist()
    if work.shared_parameter:
        parameters = parameter_words(program)[:1]
    else:
        parameters = parameter_words(program)[_channels(program, each)]
    columns = range(program.geometry.cols) if work.mode == "array" else ()
    return Payload(feed, parameters, [stream_words(part, column).tolist() for column in columns])


def descriptor_values(work: Work, each: Pass, *, layer: int, program_end: bool) -> dict[str, int]:
    """Values of the descriptor of a pass, by the names of `DESCRIPTOR_FIELDS`."""
    program, hardware = work.program, work.program.hardware
    geometry, parameters = program.geometry, program.parameters
    channels = _channels(program, each)
    first_channel = (work.first_output_channel + channels.start) % geometry.feed
    last_channel = first_channel + channels.stop - channels.start - 1
    last_tile = geometry.columns_used(each.channel_tiles[1] - 1)
    block = each.weights
    return {
        "magic": MAGIC,
        "machine": hardware.machine_id,
        "order": each.order,
        "layer_end": int(each.layer_end),
        "program_end": int(program_end),
        "drain": int(each.drain),
        "input_signed": int(work.input_signed),
        "shared_parameter": int(work.shared_parameter),
        "rounding": ROUNDINGS.index(parameters.rounding),
        "mode": MODES.index(work.mode),
        "layer": layer,
        "pixel_tiles": each.pixel_tiles[1] - each.pixel_tiles[0],
        "channel_tiles": each.channel_tiles[1] - each.channel_tiles[0],
        "results": geometry.cols * hardware.drain_groups,
        "results_last": last_tile * hardware.drain_groups,
        "feed_base": address(block.load_feed, hardware.feed_places),
        "stream_base": address(block.load_streams, hardware.stream_places),
        "first_channel": first_channel,
        "parameter_base": block.load_parameters - (0 if work.shared_parameter else first_channel),
        "activation_base": each.activation_base,
        "output_base": each.output_base,
        "in_words": each.planes[1] - each.planes[0],
        "out_words": last_channel // geometry.feed + 1,
        **geometry.walk(),
        "height": geometry.height,
        "width": geometry.width,
        "input_zero_point": program.input_zero_point,
        "output_zero_point": parameters.output_zero_point,
        "minimum": parameters.activation_min,
        "maximum": parameters.activation_max,
        **dict.fromkeys(PAIR_FIELDS, 0),
        **(work.pair or {}),
        "weight_offset": block.offset,
        "weight_beats": block.beats if each.load_weights else 0,
        "load_feed": block.load_feed,
        "load_parameters": block.load_parameters,
        "load_streams": block.load_streams,
        **_load_values(each, geometry),
        **_store_values(each.store, geometry, last_channel // geometry.feed + 1),
    }


PAIR_FIELDS = (
    "second_offset",
    "left_shift",
    "first_multiplier",
    "first_shift",
    "second_multiplier",
    "second_shift",
)
"""Fields of the element-wise modes; 0 in the others."""


NO_STORE = Store(*(0,) * 10)


def _channels(program: LayerProgram, each: Pass) -> slice:
    """Output channels of a pass."""
    cols, most = program.geometry.cols, program.geometry.out_channels
    return slice(each.channel_tiles[0] * cols, min(each.channel_tiles[1] * cols, most))


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
        "store_gap_words": gap // geometry.rows * out_words,
    }
