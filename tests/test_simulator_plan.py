"""Cuts and plans by hand: sizes, strips, addresses, halves; rule T3's choice among cuts."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from random_layers import PES, random_hardware, random_layer

from golden.errors import HardwareError
from golden.network import (
    Add,
    Concat,
    Constant,
    Conv2D,
    MaxPool2D,
    Network,
    Padding,
    Requantization,
    Softmax,
    Tensor,
)
from simulator import cuts, kernels
from simulator.cuts import Cutter, capacity, strip_of, tile_lines
from simulator.hardware import changed_hardware, hardware_from_dict, load_hardware
from simulator.lowering import lower
from simulator.pass_table import Runs
from simulator.plan import Alone, Program, choose_cut, plan_network, plan_step
from simulator.program import Geometry, compile_layer

ONE = Requantization(np.array([1 << 30], np.int32), np.array([1], np.int32))


def hardware_with(preset="mac4x4", **tables):
    return changed_hardware(load_hardware(preset), **tables)


def conv(weights, **changes):
    layer = Conv2D(
        name="conv",
        inputs=(0,),
        outputs=(1,),
        weights=np.asarray(weights, dtype=np.int8),
        weight_bits=8,
        weight_zero_point=0,
        bias=None,
        input_zero_point=0,
        output_zero_point=0,
        requantization=ONE,
        activation_min=-128,
        activation_max=127,
    )
    return replace(layer, **changes)


def network_of(layer, shape):
    """One layer as a network."""
    out_shape = (*shape[:-1], len(layer.weights))
    if isinstance(layer, Conv2D):
        pad, taps = layer.padding, layer.weights.shape[1:3]
        reach = [(k - 1) * d + 1 for k, d in zip(taps, layer.dilation, strict=True)]
        height = (shape[1] + pad.top + pad.bottom - reach[0]) // layer.stride[0] + 1
        width = (shape[2] + pad.left + pad.right - reach[1]) // layer.stride[1] + 1
        out_shape = (1, height, width, len(layer.weights))
    tensors = (Tensor("x", shape, "int8", 1.0), Tensor("y", out_shape, "int8", 1.0))
    return Network("one", tensors, (layer,), (0,), (1,))


def step_of(layer, shape, hardware):
    (step,) = lower(network_of(layer, shape), hardware).steps
    return step


def largest_passes(layer, shape, hardware):
    return Cutter(step_of(layer, shape, hardware), hardware).cut(capacity(hardware))


def passes_of(layer, shape, hardware):
    (program,) = plan_network(network_of(layer, shape), hardware).programs
    return program.passes


# -- by hand --------------------------------------------------------------------------------------


def test_a_layer_that_fits_by_hand():
    """1 x 1 of 2 channels on 3 x 4 pixels: 12 pixel indices in 3 pixel tiles of 4.

    mac4x4 has beats of 63 bits of payload: 2 feed words of 29 bits, 4 entries of 15, half of a
    parameter word of 72.
    """
    layer = conv(np.ones((4, 1, 1, 2)))
    plan = plan_network(network_of(layer, (1, 3, 4, 2)), hardware_with())
    (program,) = plan.parts
    (only,) = program.passes
    assert (only.pixel_tiles, only.channel_tiles, only.words) == ((0, 3), (0, 1), None)
    assert (only.planes, only.drain, only.order, only.layer_end) == ((0, 1), True, 1, True)
    assert (only.activation_base, only.output_base) == (0, 0)
    # One feed word; 4 parameter words; 2 entries in each of 4 columns.
    assert (only.weights.feed_beats, only.weights.parameter_beats) == (1, 8)
    assert only.weights.stream_beats == (1, 1, 1, 1)
    assert only.weights.beats == 13
    assert (only.weights.load_feed, only.weights.load_parameters) == (0, 0)
    assert only.load.offset == plan.offsets[0]
    # All rows of one plane: one run of 12 words.
    assert (only.load.segments, only.load.words, only.load.row_words, only.load.rows) == (
        1,
        12,
        4,
        3,
    )
    assert (only.load.bank, only.load.phase_y, only.load.phase_words) == (0, 0, 3)
    # 4 output channels are 2 planes of 12 words of 2 bytes.
    assert only.store.offset == plan.offsets[1]
    assert (only.store.segments, only.store.words, only.store.stride_bytes) == (2, 12, 24)
    assert (only.store.base, only.store.bank) == (0, 0)
    assert (only.store.first_row_words, only.store.row_words) == (4, 4)
    assert (only.store.first_lane, only.store.last_lane) == (0, 1)
    # Descriptors, the weight block, input and output, each at a multiple of 4096.
    assert (program.descriptor_offset, only.weights.offset) == (0, 4096)
    assert plan.offsets == {0: 8192, 1: 12288}
    assert plan.total_bytes == 16384
    # Both halves: 2 x 1 feed beat, 2 x 1 stream beat, 2 x 4 parameter words.
    memories = plan.memories
    assert (memories.feed_beats, memories.stream_beats, memories.parameter_words) == (2, 2, 8)


def test_strips_and_halves_by_hand():
    """3 x 3 with padding on 12 x 4 x 2: an output row is a pixel tile, an image row a line.

    64 bytes are 8 words of each of 4 banks; half of them hold 4 lines.
    """
    layer = conv(np.ones((4, 3, 3, 2)), padding=Padding(1, 1, 1, 1))
    machine = hardware_with(buffers={"activation_bytes": 64, "weight_bytes": 65536})
    plan = plan_network(network_of(layer, (1, 12, 4, 2)), machine)
    cut = largest_passes(layer, (1, 12, 4, 2), machine)
    # 4 input rows serve 2 output rows, and 3 at the top and bottom, where padding is no input.
    strips = [(0, 3), (3, 5), (5, 7), (7, 9), (9, 12)]
    assert [strip.tiles for strip in cut.strips] == strips
    assert [(strip.first_row, strip.rows) for strip in cut.strips] == [
        (0, 4),
        (2, 4),
        (4, 4),
        (6, 4),
        (8, 4),
    ]
    # 20 rows of 4 words of 2 bytes, a block of 5 + 8 + 4 * 5 beats of 8 bytes, 12 x 4 x 2 outputs.
    assert cut.moved_bytes == 20 * 8 + 33 * 8 + 48 * 2 * 2
    passes = plan.programs[0].passes
    assert [each.pixel_tiles for each in passes] == strips
    assert [each.load_weights for each in passes] == [True] + [False] * 4
    # Halves of 4 words; line 0 is the strip's first row, which is pixel tile 2's row 2, ...
    assert [each.load.base for each in passes] == [0, 4, 0, 4, 0]
    assert [each.activation_base for each in passes] == [
        0,
        4 + (3 - 2),
        0 + (5 - 4),
        4 + (7 - 6),
        0 + (9 - 8),
    ]
    assert [each.load.offset - plan.offsets[0] for each in passes] == [0, 16, 32, 48, 64]
    assert [each.store.offset - plan.offsets[1] for each in passes] == [0, 24, 40, 56, 72]
    half = machine.output_bank_words // 2
    assert [each.output_base for each in passes] == [0, half, 0, half, 0]
    assert [each.order for each in passes] == [1, 0, 0, 0, 0]
    assert [each.layer_end for each in passes] == [False] * 4 + [True]


def test_phases_and_banks_by_hand():
    """Stride 2 x 2 on 9 x 5 (1 x 1, no padding), R = 4: pitch max(3, ceil(5 / 2)) = 3.

    Output rows begin at indices 0, 3, 6, 9, 12: 4 pixel tiles. Tile 1 (4..7) has rows 1 and 2 of
    the output, input rows 2..4: rows 2 and 4 in phase 0 at indices 3.. and 6.., row 3 in phase 1.
    """
    layer = conv(np.ones((4, 1, 1, 2)), stride=(2, 2))
    geometry = step_of(layer, (1, 9, 5, 2), hardware_with()).geometry
    assert (geometry.pitch, geometry.pixel_tiles) == (3, 4)
    strip = strip_of(geometry, (1, 2))
    assert (strip.first_row, strip.rows, strip.phase_y) == (2, 3, 0)
    # Word (2, 0) has index 1 * 3: line 0, bank 3; the last, (4, 4), 2 * 3 + 2 = 8: line 2.
    assert (strip.first_line, strip.bank, strip.lines) == (0, 3, 3)
    # Tile 2 (8..11): outputs (2, 2), (3, 0), (3, 1), (3, 2); rows 4..6, (4, 0) has index 6.
    strip = strip_of(geometry, (2, 3))
    assert (strip.first_row, strip.rows) == (4, 3)
    assert (strip.first_line, strip.bank) == (1, 2)
    # (6, 4) has index 3 * 3 + 2 = 11: line 2, the second from line 1.
    assert strip.lines == 2
    # Padding of 1 row: row -1 is none, so that the strip begins in the middle of a phase.
    padded = replace(geometry, pad_top=1, out_height=5)
    strip = strip_of(padded, (1, 2))
    assert (strip.first_row, strip.rows, strip.phase_y, strip.bank) == (1, 3, 1, 0)


def test_groups_load_the_planes_they_read():
    """Two groups of 4 channels on F = 2: 4 planes, the second channel tile reads planes 2, 3."""
    layer = conv(np.ones((8, 1, 1, 4)), groups=2)
    # A tile's block: 2 feed words in a beat, 8 beats of parameters, 4 entries in 4 columns: 13.
    machine = hardware_with(buffers={"weight_bytes": 2 * 8 * 13})
    passes = passes_of(layer, (1, 2, 2, 8), machine)
    assert [each.channel_tiles for each in passes] == [(0, 1), (1, 2)]
    assert [each.planes for each in passes] == [(0, 2), (2, 4)]
    assert [each.load_activations for each in passes] == [True, True]
    first = passes[0].load.offset
    # A plane is 4 words of 2 bytes.
    assert [(each.load.offset - first, each.load.words) for each in passes] == [(0, 8), (16, 8)]
    assert [each.store.first_lane for each in passes] == [0, 0]


def test_a_channel_group_may_begin_in_the_middle_of_a_word():
    """3 columns, F = 2: the second tile (channels 3, 4) writes lane 1 of plane 1 and plane 2."""
    layer = conv(np.ones((5, 1, 1, 2)))
    machine = hardware_with(array={"cols": 3}, buffers={"weight_bytes": 160})
    passes = passes_of(layer, (1, 2, 2, 2), machine)
    assert [each.channel_tiles for each in passes] == [(0, 1), (1, 2)]
    stores = [each.store for each in passes]
    assert [store.segments for store in stores] == [2, 2]
    assert [(store.first_lane, store.last_lane) for store in stores] == [(0, 0), (1, 0)]
    assert stores[1].offset - stores[0].offset == 4 * 2


def test_a_channel_tile_that_does_not_fit_is_cut_along_its_words():
    """8 words of 2 channels in 4 columns: chunks of one word take 1 + 8 + 4 * 1 beats.

    A chunk of w words has ceil(w / 2) feed beats and ceil(2 * w / 4) entry beats: 2 words 13 too,
    3 and 4 words 2 + 8 + 4 * 2 = 18.
    """
    layer = conv(np.ones((4, 1, 1, 16)))
    machine = hardware_with(buffers={"weight_bytes": 2 * 8 * 18})
    cut = largest_passes(layer, (1, 1, 8, 16), machine)
    (group,) = cut.groups
    assert group.chunks == ((0, 4), (4, 8))
    assert [block.beats for block in group.blocks] == [18, 18]
    passes = passes_of(layer, (1, 1, 8, 16), machine)
    assert [(each.pixel_tiles, each.words, each.drain) for each in passes] == [
        ((0, 1), (0, 4), False),
        ((0, 1), (4, 8), True),
        ((1, 2), (0, 4), False),
        ((1, 2), (4, 8), True),
    ]
    assert [each.store is None for each in passes] == [True, False, True, False]
    assert [each.load_weights for each in passes] == [True] * 4
    assert [each.load_activations for each in passes] == [True] + [False] * 3
    assert [each.weights.load_feed for each in passes] == [0, 2, 0, 2]
    assert [each.activation_base for each in passes] == [0, 0, 8, 8]
    # What runs without draining writes nothing: the drained passes take turns with the halves.
    half = machine.output_bank_words // 2
    assert [each.output_base for each in passes] == [0, 0, half, half]
    assert cut.moved_bytes == 2 * 36 * 8 + 64 * 2 + 2 * 8 * 2


def test_single_buffers_store_before_the_next_loads():
    layer = conv(np.ones((4, 3, 3, 2)), padding=Padding(1, 1, 1, 1))
    machine = hardware_with(buffers={"activation_bytes": 64, "double_buffer": False})
    passes = passes_of(layer, (1, 12, 4, 2), machine)
    assert len(passes) > 1
    assert {each.order for each in passes} == {2}
    assert {each.load.base for each in passes} == {0}
    assert {each.output_base for each in passes} == {0}


def pair_network(softmax=False):
    """add(x, constant), concatenation of it and x, and perhaps the host between."""
    tensors = [Tensor(name, (1, 3, 5, 3), "int8", 1.0) for name in ("x", "c", "sum")]
    tensors.append(Tensor("both", (1, 3, 5, 6), "int8", 1.0))
    rules = (ONE, ONE)
    layers = [
        Add("add", (0, 1), (2,), (1, 2), 0, 20, rules, ONE, -128, 127),
        Concat("concat", (2, 0), (3,), 3),
    ]
    if softmax:
        tensors += [Tensor(name, (1, 3, 5, 6), "int8", 1 / 256, -128) for name in ("p", "q")]
        layers.append(Softmax("softmax", (3,), (4,), 1 << 30, 20, -100))
        layers.append(MaxPool2D("pool", (4,), (5,), (1, 1), (1, 1), Padding(), -128, 127))
    constant = Constant(1, np.ones((1, 3, 5, 3), np.int8))
    last = len(tensors) - 1
    return Network("pair", tuple(tensors), tuple(layers), (0,), (last,), constants=(constant,))


def test_two_operands_and_a_concatenation_by_hand():
    """3 channels on F = 2 are 2 planes of 15 words: 6 rows of 5 words for the addition."""
    plan = plan_network(pair_network(), hardware_with())
    (program,) = plan.programs
    add, first, second = (step.passes for step in program.steps)
    (only,) = add
    assert only.pixel_tiles == (0, 8)  # 30 words in tiles of 4
    assert (only.load.words, only.load.row_words, only.load.rows) == (30, 5, 6)
    assert (only.load.offset, only.load.second_offset) == (plan.offsets[0], plan.offsets[1])
    assert (only.load.base, only.load.second_base, only.load.phase_words) == (0, 8, 8)
    assert (only.weights.feed_beats, only.weights.parameter_beats) == (1, 2)
    assert only.weights.stream_beats == ()
    # Concatenation: channels 0..2 of 6, then 3..5, which begin in lane 1 of plane 1.
    assert [each.store.first_lane for each in first] == [0]
    assert [each.store.last_lane for each in first] == [0]
    (only,) = second
    assert (only.store.first_lane, only.store.last_lane) == (1, 1)
    assert (only.store.segments, only.store.offset) == (2, plan.offsets[3] + 15 * 2)
    ends = [each.layer_end for step in program.steps for each in step.passes]
    assert ends == [True, False, True]
    assert [each.order for step in program.steps for each in step.passes] == [1, 1, 1]


def test_the_host_divides_a_network_into_programs():
    plan = plan_network(pair_network(softmax=True), hardware_with())
    before, host, after = plan.parts
    assert [step.step.name for step in before.steps] == ["add", "concat", "concat"]
    assert (host.unit, host.name, host.layer_index) == ("host", "softmax", 2)
    assert [step.step.name for step in after.steps] == ["pool"]
    assert [program.descriptor_offset for program in plan.programs] == [0, 4096]
    assert [each.weights.load_feed for each in after.passes] == [0]  # halves begin anew
    assert sorted(plan.offsets) == [0, 1, 2, 3, 4, 5]
    assert plan_network(pair_network(softmax=True), hardware_with()).offsets == plan.offsets


def test_a_step_alone_is_a_program_of_one_layer():
    hardware = hardware_with()
    lowered = lower(pair_network(), hardware)
    plan = plan_step(lowered.steps[1], lowered, hardware)
    (program,) = plan.parts
    assert isinstance(program, Program)
    assert [step.step for step in program.steps] == [lowered.steps[1]]
    assert sorted(plan.offsets) == [2, 3]
    assert program.passes[-1].layer_end


# -- capacities -----------------------------------------------------------------------------------


def random_cuts(count, seed):
    """Random layers with the hardware and the cut into the largest passes, where one exists."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        pe = list(PES)[i % 4]
        layer, x = random_layer(rng, pe)
        hardware = random_hardware(rng, pe)
        shape = (1, *x.shape[1:])
        try:
            yield layer, shape, hardware, largest_passes(layer, shape, hardware)
        except HardwareError as error:
            assert "raise it to at least" in str(error)  # noqa: PT017


def test_blocks_are_those_of_the_compiled_streams():
    """Entries and words counted anew from the layer's memory contents (rules M3, S3, S4)."""
    chunks = 0
    for _, _, hardware, cut in random_cuts(120, 3):
        geometry = cut.step.geometry
        shape = (1, geometry.height, geometry.width, geometry.in_channels)
        shape = shape if isinstance(cut.step.layer, Conv2D) else (1, *shape[2:])
        program = compile_layer(cut.step.layer, shape, hardware)
        for group in cut.groups:
            held = 0
            for block, words in zip(group.blocks, group.chunks or (None,), strict=True):
                part = program.part(
                    channel_tiles=range(*group.tiles),
                    words=None if words is None else range(*words),
                )
                entries = part.entries.sum(axis=1)
                assert block.feed_beats == -(-part.words.sum() // hardware.feed_places)
                assert block.stream_beats == tuple(-(-entries // hardware.stream_places))
                channels = group.channels[1] - group.channels[0]
                assert block.parameter_beats == channels * hardware.parameter_beats
                held = block.feed_beats + block.parameter_beats
                held += hardware.array.cols * max(block.stream_beats)
                share = 2 if hardware.buffers.double_buffer else 1
                assert held * hardware.beat_bytes <= hardware.buffers.weight_bytes // share
                chunks += words is not None
    assert chunks > 20


def test_groups_and_chunks_are_as_long_as_they_can_be():
    tried = 0
    for _, _, hardware, cut in random_cuts(120, 4):
        limit = capacity(hardware)
        cutter = Cutter(cut.step, hardware)
        for group in cut.groups:
            tile = cut.tiles[group.tiles[0]]
            for (start, stop), _ in zip(group.chunks, group.blocks, strict=False):
                if stop < tile.words.size:
                    counts = np.ascontiguousarray(tile.counts[:, start : stop + 1])
                    lengths = kernels.column_entries(counts, np.array(counts.shape[1:]))
                    longest = -(-lengths.max() // hardware.stream_places)
                    held = -(-(stop + 1 - start) // hardware.feed_places)
                    held += tile.channels * hardware.parameter_beats
                    held += hardware.array.cols * longest
                    assert held > limit.weight_beats
                    tried += 1
            if not group.chunks and group.tiles[1] < len(cut.tiles):
                assert not cutter._fits(limit, group.tiles[0], group.tiles[1] + 1)
                tried += 1
    assert tried > 50


def test_lines_of_single_tiles_are_those_of_strips():
    rng = np.random.default_rng(9)
    for _ in range(300):
        layer, x = random_layer(rng, "mac")
        hardware = random_hardware(rng, "mac")
        geometry = step_of(layer, (1, *x.shape[1:]), hardware).geometry
        tiles = np.arange(geometry.pixel_tiles)
        lines = [strip_of(geometry, (i, i + 1)).lines for i in tiles.tolist()]
        np.testing.assert_array_equal(tile_lines(geometry, tiles), lines)


def test_strips_touch_the_rows_of_their_pixels():
    """Against a walk over all pixel indices and taps, idle ones included (rule M1)."""
    rng = np.random.default_rng(9)
    for _ in range(400):
        layer, x = random_layer(rng, "mac")
        geometry = step_of(layer, (1, *x.shape[1:]), random_hardware(rng, "mac")).geometry
        first = int(rng.integers(0, geometry.pixel_tiles))
        last = int(rng.integers(first, geometry.pixel_tiles)) + 1
        touched = set()
        for index in range(first * geometry.rows, last * geometry.rows):
            oy, ox = divmod(index, geometry.pitch)
            if oy < geometry.out_height and ox < geometry.out_width:
                top = oy * geometry.stride[0] - geometry.pad_top
                touched |= {top + ky * geometry.dilation[0] for ky in range(geometry.kernel[0])}
        strip = strip_of(geometry, (first, last))
        low, high = min(touched, default=0), max(touched, default=-1)
        rows = range(max(low, 0), min(high, geometry.height - 1) + 1)
        assert strip.rows == len(rows)
        if len(rows):
            assert strip.first_row == rows[0]


@pytest.mark.parametrize(
    ("buffers", "sentence"),
    [
        (
            {"activation_bytes": 64},
            r"layer 'conv' needs 256 bytes for the input rows of one pixel tile, but"
            r" buffers.activation_bytes=64, half of it for each pass, is too small; raise it to at"
            r" least 512 or lower array.rows",
        ),
        (
            {"activation_bytes": 64, "double_buffer": False},
            r"buffers.activation_bytes=64 is too small; raise it to at least 256 ",
        ),
        ({"weight_bytes": 64}, r"needs \d+ bytes for one window word .* buffers.weight_bytes=64"),
    ],
)
def test_small_buffers_are_named_with_what_would_do(buffers, sentence):
    """A pixel tile is a row of 4 pixels of 64 channels, 256 bytes."""
    layer = conv(np.ones((4, 1, 1, 64)))
    machine = hardware_with(array={"feed": 16, "lookahead": 16}, buffers=buffers)
    with pytest.raises(HardwareError, match=sentence):
        largest_passes(layer, (1, 4, 4, 64), machine)


@pytest.mark.parametrize("key", ["activation_bytes", "weight_bytes", "output_bytes"])
def test_what_a_refusal_asks_of_a_buffer_is_enough_and_not_too_much(key):
    """The part of the layer that fails first need not be the one that needs most."""
    rng = np.random.default_rng(6)
    refusals = 0
    for i in range(200):
        pe = list(PES)[i % 4]
        layer, x = random_layer(rng, pe)
        shape = (1, *x.shape[1:])
        settings = random_hardware(rng, pe).model_dump()
        sizes = ("activation_bytes", "weight_bytes", "output_bytes")
        settings["buffers"] |= dict.fromkeys(sizes, 1 << 20) | {key: 64}
        try:
            largest_passes(layer, shape, hardware_from_dict(settings))
        except HardwareError as error:
            match = re.search(rf"buffers\.{key}=64.* at least (\d+)\b", str(error))
            assert match, error  # noqa: PT017
            named = [settings["array"][name] for name in re.findall(r"array\.(\w+)", str(error))]
            assert min(named, default=2) > 1
            enough = int(match[1])
            settings["buffers"][key] = enough
            largest_passes(layer, shape, hardware_from_dict(settings))
            settings["buffers"][key] = max(enough - 1, 64)
            with pytest.raises(HardwareError, match=rf"at least {enough}\b"):
                largest_passes(layer, shape, hardware_from_dict(settings))
            refusals += 1
    assert refusals >= 20


def test_too_many_passes_are_refused_before_they_are_made():
    """A 3 x 3 convolution of 64 channels on one PE with 8 KiB: chunks for each of 50,176 pixels."""
    layer = conv(np.ones((64, 3, 3, 64)), padding=Padding(1, 1, 1, 1))
    machine = hardware_with(
        array={"rows": 1, "cols": 1, "feed": 1, "lookahead": 1},
        post={"lanes": 1},
        buffers={"activation_bytes": 1 << 22, "weight_bytes": 8192, "output_bytes": 1 << 20},
    )
    with pytest.raises(HardwareError, match=r"takes 6422528 passes, but a layer may take 131072"):
        choose_cut(step_of(layer, (1, 224, 224, 64), machine), machine)


def test_strips_have_no_more_pixel_tiles_than_a_descriptor_can_say():
    """300 x 300 pixels on one row: 90,000 pixel tiles, though the buffers would hold them all."""
    layer = conv(np.ones((1, 1, 1, 1)))
    hardware = hardware_with(
        array={"rows": 1, "cols": 1},
        post={"lanes": 1},
        buffers={"activation_bytes": 1 << 20, "output_bytes": 1 << 20},
    )
    cut = largest_passes(layer, (1, 300, 300, 1), hardware)
    assert [strip.tiles for strip in cut.strips] == [(0, 65535), (65535, 90000)]


def test_strips_are_found_without_looking_at_every_pixel_tile(monkeypatch):
    """One strip of 50,176 pixel tiles; looks are few per strip, not one a tile."""
    looks = []
    monkeypatch.setattr(
        cuts, "strip_of", lambda geometry, tiles: looks.append(tiles) or strip_of(geometry, tiles)
    )
    layer = conv(np.ones((64, 1, 1, 1)))
    hardware = hardware_with(
        array={"rows": 1, "cols": 1},
        post={"lanes": 1},
        buffers={"activation_bytes": 1 << 20, "output_bytes": 1 << 23},
    )
    assert len(largest_passes(layer, (1, 224, 224, 1), hardware).strips) == 1
    assert len(looks) < 50


# -- order and choice -----------------------------------------------------------------------------


def moved_by(plan):
    """Bytes of all transfers of a plan, from its passes."""
    hardware, total = plan.hardware, 0
    for program in plan.programs:
        for each in program.passes:
            total += each.weights.beats * hardware.beat_bytes * each.load_weights
            operands = 1 if each.load.second_offset is None else 2
            words = operands * each.load.segments * each.load.words * each.load_activations
            if each.store is not None:
                words += each.store.segments * each.store.words
            total += words * hardware.word_bytes
    return total


def test_moved_bytes_are_those_of_the_passes():
    rng = np.random.default_rng(5)
    several = 0
    for i in range(150):
        pe = list(PES)[i % 4]
        layer, x = random_layer(rng, pe)
        hardware = random_hardware(rng, pe)
        try:
            plan = plan_network(network_of(layer, (1, *x.shape[1:])), hardware)
        except HardwareError:
            continue
        (step,) = plan.programs[0].steps
        assert moved_by(plan) == step.cut.moved_bytes
        assert len(step.passes) == step.cut.passes
        several += min(len(step.cut.groups), len(step.cut.strips)) > 1
    assert several >= 5


@pytest.mark.parametrize(
    ("activation_bytes", "strips", "strips_outer", "moved_bytes"),
    [(4096, 4, True, 15360 + 4 * 1536 + 2048), (1024, 16, False, 2 * 15360 + 1536 + 2048)],
)
def test_the_loop_that_moves_fewer_bytes_is_outside(
    activation_bytes, strips, strips_outer, moved_bytes
):
    """1 x 1 of 60 channels on 16 x 16 pixels, 8 output channels, F = 4: 15 words a pixel.

    All activations take 16 * 16 * 60 = 15360 bytes, a row 960. An entry has 1 + 4 + 2 + 9 = 16
    bits, 3 of them fit a beat, and 2 feed words: a channel tile's block has 8 + 8 + 4 * 20 beats of
    8 bytes, both tiles 1536; one of them fits. Outputs take 256 * 2 words of 4 bytes. Strips outer
    load weights once a strip: 4 * 1536 < 15360, but 16 * 1536 - 1536 > 15360.
    """
    machine = hardware_with(
        array={"feed": 4, "lookahead": 4},
        buffers={
            "activation_bytes": activation_bytes,
            "weight_bytes": 800,
            "output_bytes": 65536,
            "double_buffer": False,
        },
    )
    cut = largest_passes(conv(np.ones((8, 1, 1, 60))), (1, 16, 16, 60), machine)
    assert (len(cut.groups), len(cut.strips)) == (2, strips)
    assert (cut.strips_outer, cut.moved_bytes) == (strips_outer, moved_bytes)


def test_chosen_plan_is_never_slower_nor_moves_more_than_the_largest_passes():
    faster = 0
    for layer, shape, hardware, largest in random_cuts(120, 11):
        chosen = choose_cut(step_of(layer, shape, hardware), hardware)
        cycles = Alone(largest, hardware, Runs(largest, hardware)).cycles
        assert chosen.cycles == Alone(chosen.cut, hardware, Runs(chosen.cut, hardware)).cycles
        assert chosen.cycles <= cycles
        assert chosen.cut.moved_bytes <= largest.moved_bytes
        faster += chosen.cycles < cycles
    assert faster > 0


def test_transfers_overlap_where_a_whole_layer_would_fit_one_pass():
    # 16 channel tiles of a dense-like convolution fit the weight buffer at once, but then no load
    # would hide behind a computation: the chosen plan has several passes.
    layer = conv(np.ones((64, 1, 1, 64)))
    machine = hardware_with(
        buffers={"weight_bytes": 1 << 20, "activation_bytes": 1 << 16, "output_bytes": 1 << 16}
    )
    whole = largest_passes(layer, (1, 8, 8, 64), machine)
    assert whole.passes == 1
    chosen = choose_cut(step_of(layer, (1, 8, 8, 64), machine), machine)
    assert chosen.cut.passes > 1


# -- counting -------------------------------------------------------------------------------------


def test_depthwise_columns_pick_their_own_channel_only():
    weights = np.arange(1, 5).reshape(4, 1, 1, 1)
    layer = conv(weights, groups=4)
    machine = hardware_with(array={"feed": 2, "lookahead": 4})
    (tile,) = largest_passes(layer, (1, 2, 2, 4), machine).tiles
    assert tile.words.tolist() == [0, 1]
    assert tile.counts.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]


def test_serial_entries_are_signed_digits():
    """Non-adjacent forms: 7 = 8 - 1, 85 = 64 + 16 + 4 + 1, -96 = -128 + 32, 0 none."""
    layer = conv(np.array([7, 85, -96, 0]).reshape(4, 1, 1, 1))
    (tile,) = largest_passes(layer, (1, 1, 1, 1), hardware_with("nhot2_4x4")).tiles
    assert tile.counts[:, 0].tolist() == [2, 4, 2, 0]


def test_fillers_by_hand():
    """A lone weight at word 1 of 40: fillers at 0, 16, 31 and at the end."""
    counts = np.zeros((1, 40), dtype=np.int32)
    counts[0, 1] = 2
    filled = kernels.with_fillers(counts, np.array(counts.shape[1:]))
    assert np.flatnonzero(filled).tolist() == [0, 1, 16, 31, 39]
    assert filled.sum() == 6
    assert kernels.column_entries(counts, np.array(counts.shape[1:])).tolist() == [6]


def test_a_tile_without_weights_lists_the_first_word_of_its_group():
    """Rule M3: 2 groups of 4 channels on F = 2; the second channel tile reads words 2 and 3."""
    weights = np.zeros((8, 1, 1, 4))
    weights[:4] = 1
    first, second = largest_passes(conv(weights, groups=2), (1, 2, 2, 8), hardware_with()).tiles
    assert first.words.tolist() == [0, 1]
    assert second.words.tolist() == [2]


@pytest.mark.parametrize("preset", ["mac16x16", "nhot2_16x16", "nhot2_parallel", "ternary16x16"])
@pytest.mark.parametrize(
    ("shape", "stride"),
    [((1, 112, 112, 96), 2), ((1, 224, 224, 64), 1), ((1, 28, 28, 512), 1), ((1, 14, 14, 576), 1)],
)
def test_large_presets_hold_the_widest_rows_of_usual_networks(preset, shape, stride):
    """Largest strips of MobileNetV2 1.0 224 and VGG16: 3 x 3 windows."""
    layer = conv(
        np.ones((shape[3], 3, 3, 1)),
        groups=shape[3],
        stride=(stride, stride),
        padding=Padding(1, 1, 1, 1),
    )
    cut = largest_passes(layer, shape, load_hardware(preset))
    assert cut.strips[-1].tiles[1] == cut.step.geometry.pixel_tiles


def test_geometry_is_shared():
    """Steps have the geometry that programs and Verilog are made with."""
    assert isinstance(
        step_of(conv(np.ones((4, 1, 1, 2))), (1, 3, 4, 2), hardware_with()).geometry, Geometry
    )
