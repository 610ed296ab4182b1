"""From a hardware description to Verilog parameters, and from a program to configuration ports."""

from __future__ import annotations

from golden.errors import HardwareError
from simulator.hardware import Hardware
from simulator.program import ROUNDINGS, LayerProgram, check_bias

PE_KINDS = {"mac": 0, "shift_add": 1, "ternary": 2}
"""Numbers of the PE kinds in Verilog."""

FORMS = {"none": 0, "f2": 1, "f4": 2, "both": 3}
"""Numbers of the Winograd forms in Verilog."""

COORD_BITS = 20
"""Width of image coordinates in the engine (COORD_W), signed."""

TILE_BITS = 16
"""Width of tile counts in the engine (TILE_W)."""

CONFIGURATION = (
    "cfg_pixel_tiles",
    "cfg_channel_tiles",
    "cfg_results",
    "cfg_results_last",
    "cfg_feed_base",
    "cfg_stream_base",
    "cfg_first_channel",
    "cfg_parameter_base",
    "cfg_activation_base",
    "cfg_output_base",
    "cfg_in_words",
    "cfg_out_words",
    "cfg_start_y",
    "cfg_start_x",
    "cfg_step_y",
    "cfg_step_x",
    "cfg_row_y",
    "cfg_wrap_x",
    "cfg_pitch_x",
    "cfg_end_y",
    "cfg_end_x",
    "cfg_height",
    "cfg_width",
    "cfg_input_signed",
    "cfg_input_zero_point",
    "cfg_output_zero_point",
    "cfg_rounding",
    "cfg_minimum",
    "cfg_maximum",
    "cfg_drain",
    "cfg_mode",
    "cfg_shared_parameter",
    "cfg_second_offset",
    "cfg_left_shift",
    "cfg_first_multiplier",
    "cfg_first_shift",
    "cfg_second_multiplier",
    "cfg_second_shift",
)
"""Configuration ports of `layer_engine`, in the order of its header, but for those of Winograd
passes, which only whole programs have."""


def address_bits(words: int) -> int:
    """Width of the address of a memory of `words` words, at least 1."""
    return max(1, (words - 1).bit_length())


def engine_parameters(hardware: Hardware) -> dict[str, int]:
    """Verilog parameters of `layer_engine`.

    Parameters
    ----------
    hardware : Hardware

    Returns
    -------
    dict of str to int
        Array and post-processor as described; each memory's address as wide as its buffer asks for
        if it held nothing else.
    """
    array, buffers, widths = hardware.array, hardware.buffers, hardware.widths
    weight_bits = 8 * buffers.weight_bytes
    out_word_bits = array.rows * array.feed * array.activation_bits
    return {
        "ROWS": array.rows,
        "COLS": array.cols,
        "FEED": array.feed,
        "DEPTH": hardware.depth,
        "PE_KIND": PE_KINDS[hardware.pe.kind],
        "TERMS": hardware.pe.terms,
        "CODE_W": array.activation_bits,
        "WEIGHT_W": hardware.weight_operand_bits,
        "ACC_BITS": array.acc_bits,
        "SATURATE": int(array.acc_overflow == "saturate"),
        "EVENTS_W": array.events_bits,
        "SPILL": array.spill_interval,
        "WIDE_BITS": array.wide_acc_bits,
        "LANES": hardware.post.lanes,
        "POST_W": hardware.post_bits,
        "WINOGRAD": FORMS[hardware.winograd.forms],
        "CHUNK_WORDS": hardware.winograd.chunk_words,
        "FEED_ADDR_W": address_bits(weight_bits // widths.feed),
        "ACT_ADDR_W": widths.address - 1,
        "STREAM_ADDR_W": address_bits(weight_bits // (array.cols * widths.entry)),
        "PARAM_ADDR_W": address_bits(weight_bits // widths.parameter),
        "OUT_ADDR_W": address_bits(8 * buffers.output_bytes // out_word_bits),
        "COORD_W": COORD_BITS,
        "TILE_W": TILE_BITS,
    }


def top_parameters(
    hardware: Hardware, feed_beats: int, stream_beats: int, parameter_words: int
) -> dict[str, int]:
    """Verilog parameters of `napier_top`.

    Parameters
    ----------
    hardware : Hardware
    feed_beats : int
        Depth of the feed memory in beats.
    stream_beats : int
        Depth of each column's stream memory in beats.
    parameter_words : int
        Depth of the parameter memory.

    Returns
    -------
    dict of str to int
        All but the width of external addresses and the layers of the counter memory, which have
        defaults.
    """
    engine = engine_parameters(hardware)
    names = (
        *("ROWS", "COLS", "FEED", "DEPTH", "PE_KIND", "TERMS", "CODE_W", "WEIGHT_W", "ACC_BITS"),
        *("SATURATE", "EVENTS_W", "SPILL", "WIDE_BITS", "LANES", "POST_W"),
        *("WINOGRAD", "CHUNK_WORDS"),
    )
    return {name: engine[name] for name in names} | {
        "DATA_W": 8 * hardware.beat_bytes,
        "FEED_BEATS": feed_beats,
        "STREAM_BEATS": stream_beats,
        "PARAM_WORDS": parameter_words,
        "ACT_WORDS": hardware.bank_words,
        "OUT_WORDS": hardware.output_bank_words,
        "MACHINE_ID": hardware.machine_id,
    }


def shared_out_parameters(hardware: Hardware) -> dict[str, int]:
    """Verilog parameters of `napier_top` without a network that would size its weight memories.

    Half of the weight buffer holds the entry streams, a quarter each feed words and parameters.

    Parameters
    ----------
    hardware : Hardware
    """
    quarter_bytes = hardware.buffers.weight_bytes // 4
    quarter_beats = quarter_bytes // hardware.beat_bytes
    return top_parameters(
        hardware,
        max(1, quarter_beats),
        max(1, 2 * quarter_beats // hardware.array.cols),
        max(1, 8 * quarter_bytes // hardware.widths.parameter),
    )


def run_configuration(
    program: LayerProgram,
    *,
    input_signed: bool,
    feed_base: int = 0,
    stream_base: int = 0,
) -> dict[str, int]:
    """Values of the configuration ports for one engine run.

    The activation, parameter and output memories hold the whole layer, whichever part of it the
    program runs.

    Parameters
    ----------
    program : LayerProgram
        Of a layer, or a part of it.
    input_signed : bool
        Whether input codes are two's complement.
    feed_base, stream_base : int
        Where the program's words begin in the feed memory and in every stream memory.

    Returns
    -------
    dict of str to int
        The ports of `CONFIGURATION`, in that order; signed values are not yet cut to their widths.

    Raises
    ------
    HardwareError
        The layer exceeds what the engine's counters or its post-processor hold.
    """
    geometry, parameters, hardware = program.geometry, program.parameters, program.hardware
    groups = hardware.drain_groups
    first_tile, first_channel = program.pixel_tiles.start, program.channel_tiles.start
    starts = geometry.starts(first_tile)
    last_columns = geometry.columns_used(program.channel_tiles.stop - 1)
    values = {
        "cfg_pixel_tiles": len(program.pixel_tiles),
        "cfg_channel_tiles": len(program.channel_tiles),
        "cfg_results": geometry.cols * groups,
        "cfg_results_last": last_columns * groups,
        "cfg_feed_base": feed_base,
        "cfg_stream_base": stream_base,
        "cfg_first_channel": first_channel * geometry.cols,
        "cfg_parameter_base": 0,
        "cfg_activation_base": first_tile * geometry.in_words,
        "cfg_output_base": first_tile * geometry.out_words,
        "cfg_in_words": geometry.in_words,
        "cfg_out_words": geometry.out_words,
        "cfg_start_y": _pack([y for y, _ in starts]),
        "cfg_start_x": _pack([x for _, x in starts]),
        **{f"cfg_{name}": value for name, value in geometry.walk().items()},
        "cfg_height": geometry.height,
        "cfg_width": geometry.width,
        "cfg_input_signed": int(input_signed),
        "cfg_input_zero_point": program.input_zero_point,
        "cfg_output_zero_point": parameters.output_zero_point,
        "cfg_rounding": ROUNDINGS.index(parameters.rounding),
        "cfg_minimum": parameters.activation_min,
        "cfg_maximum": parameters.activation_max,
        "cfg_drain": int(program.drain),
        "cfg_mode": 0,
        "cfg_shared_parameter": 0,
        "cfg_second_offset": 0,
        "cfg_left_shift": 0,
        "cfg_first_multiplier": 0,
        "cfg_first_shift": 0,
        "cfg_second_multiplier": 0,
        "cfg_second_shift": 0,
    }
    _check(program, values)
    return values


def configuration_words(values: dict[str, int], parameters: dict[str, int]) -> list[int]:
    """Cut the values of `run_configuration` to the ports' widths, two's complement.

    Parameters
    ----------
    values : dict of str to int
    parameters : dict of str to int
        Of the engine, see `engine_parameters`.
    """
    coordinate = (1 << parameters["COORD_W"]) - 1
    code = (1 << (parameters["CODE_W"] + 1)) - 1
    coordinates = {"cfg_step_y", "cfg_step_x", "cfg_row_y", "cfg_wrap_x", "cfg_pitch_x"}
    coordinates |= {"cfg_end_y", "cfg_end_x", "cfg_height", "cfg_width"}
    codes = {"cfg_input_zero_point", "cfg_output_zero_point", "cfg_minimum", "cfg_maximum"}
    masks = dict.fromkeys(coordinates, coordinate) | dict.fromkeys(codes, code)
    masks["cfg_second_offset"] = 2 * code + 1
    for name in ("first", "second"):
        masks |= {f"cfg_{name}_multiplier": (1 << 32) - 1, f"cfg_{name}_shift": 255}
    return [values[name] & masks.get(name, -1) for name in CONFIGURATION]


def _pack(coordinates: list[int]) -> int:
    """Pack one coordinate a row, row 0 in the lowest bits."""
    mask = (1 << COORD_BITS) - 1
    return sum((value & mask) << (COORD_BITS * row) for row, value in enumerate(coordinates))


def _check(program: LayerProgram, values: dict[str, int]) -> None:
    geometry = program.geometry
    tiles = max(values["cfg_pixel_tiles"], values["cfg_channel_tiles"])
    if tiles >= 1 << TILE_BITS:
        raise HardwareError(
            f'layer "{program.name}" has {tiles} tiles in one direction, but the engine counts to'
            f" {(1 << TILE_BITS) - 1}; use an array with more rows and columns"
        )
    # The walker looks one tile beyond the last, and a tap reaches at most 255 beyond that.
    furthest = (
        (geometry.out_height + geometry.rows) * geometry.stride[0],
        (geometry.pitch + geometry.rows) * geometry.stride[1],
    )
    if max(furthest) + 256 >= 1 << (COORD_BITS - 1):
        raise HardwareError(
            f'layer "{program.name}" has an image of {geometry.height} x {geometry.width} pixels,'
            f" but the engine's coordinates have {COORD_BITS} bits; use a smaller image"
        )
    check_bias(program)
