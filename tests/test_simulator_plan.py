"""Plans: every output once, nothing beyond a buffer, bytes as the program's images have them."""

from __future__ import annotations

import re
from dataclasses import replace
from math import ceil

import numpy as np
import pytest
from random_layers import PES, random_hardware, random_layer

from golden.errors import HardwareError
from golden.network import Conv2D, Padding, Requantization
from simulator import kernels
from simulator.hardware import hardware_from_dict, load_hardware
from simulator.plan import Geometry, LayerPlan, capacity, channel_tiles, cut_layer, geometry
from simulator.program import compile_layer
from simulator.timing import plan_layer, time_plan

ONE = Requantization(np.array([1 << 30], np.int32), np.array([1], np.int32))


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


def largest_passes(layer, input_shape, hardware) -> LayerPlan:
    shape = geometry(layer, input_shape)
    tiles = channel_tiles(layer, shape, hardware)
    return cut_layer(layer.name, shape, tiles, hardware, capacity(hardware))


def hardware_with(preset="mac4x4", **tables):
    settings = load_hardware(preset).model_dump()
    for table, changes in tables.items():
        settings[table].update(changes)
    return hardware_from_dict(settings)


def plans(count, seed):
    """Random layers with the hardware and plan, where the buffers allow one."""
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


def test_every_output_is_drained_once_after_all_its_words():
    for layer, shape, hardware, plan in plans(120, 1):
        tiles = geometry(layer, shape).pixel_tiles(hardware.array.rows)
        drained = np.zeros((tiles, len(plan.tiles)), dtype=int)
        reached = np.zeros((tiles, len(plan.tiles)), dtype=int)  # words worked on so far
        for each in plan.passes:
            block = (slice(*each.pixel_tiles), slice(*each.channel_tiles))
            if each.words is not None:
                assert drained[block].shape == (1, 1)
                assert each.words[0] == reached[block].item()
                reached[block] = each.words[1]
                words = plan.tiles[each.channel_tiles[0]].words.size
                assert each.drain == (each.words[1] == words)
                # Another chunk was in the buffer before, so that each is loaded anew.
                assert each.load_weight_bytes > 0 or each.words == (0, words)
            drained[block] += each.drain
        assert (drained == 1).all()


def test_strips_touch_the_rows_of_their_pixels():
    """Against a walk over all pixel indices and taps, idle ones included (rule M1)."""
    rng = np.random.default_rng(9)
    for _ in range(800):
        layer, x = random_layer(rng, "mac")
        shape = geometry(layer, (1, *x.shape[1:]))
        rows = int(rng.integers(1, 5))
        tiles = shape.pixel_tiles(rows)
        first = int(rng.integers(0, tiles))
        last = int(rng.integers(first, tiles)) + 1
        touched, pixels = set(), 0
        for index in range(first * rows, last * rows):
            oy, ox = divmod(index, shape.pitch)
            if oy < shape.out_height and ox < shape.out_width:
                pixels += 1
                taps = range(shape.kernel_height)
                top = oy * shape.stride[0] - shape.padding.top
                touched |= {top + ky * shape.dilation[0] for ky in taps}
        inside = {y for y in touched if 0 <= y < shape.height}
        between = range(
            max(min(touched, default=0), 0), min(max(touched, default=-1), shape.height - 1) + 1
        )
        assert shape.input_rows((first, last), rows) == len(between) >= len(inside)
        assert shape.real_pixels((first, last), rows) == pixels


def test_stores_add_up_to_the_output():
    for layer, shape, hardware, plan in plans(60, 2):
        outputs = plan.geometry.pixels * plan.geometry.out_channels
        assert sum(each.store_bytes for each in plan.passes) == outputs
        assert hardware.array.activation_bits == 8
        assert layer.weights.shape[0] == plan.geometry.out_channels
        assert shape[0] == 1


def test_passes_fit_the_buffers_and_load_what_the_program_holds():
    """Entries and words are counted anew from the program's streams (rules T1, T2)."""
    chunks = loads = 0
    for layer, shape, hardware, plan in plans(120, 3):
        program = compile_layer(layer, shape, hardware)
        share = 2 if hardware.buffers.double_buffer else 1
        for each in plan.passes[:40]:
            part = program.part(
                range(*each.pixel_tiles),
                range(*each.channel_tiles),
                None if each.words is None else range(*each.words),
            )
            chunks += each.words is not None
            channels = [
                tile.channels * each.drain for tile in plan.tiles[slice(*each.channel_tiles)]
            ]

            def bits(entries, words, channels, hardware=hardware):
                return (
                    int(entries) * hardware.entry_bits
                    + int(words) * hardware.feed_word_bits
                    + channels * hardware.parameter_bits
                )

            held = bits(
                hardware.array.cols * part.entries.sum(axis=1).max(),
                part.words.sum(),
                sum(channels),
            )
            assert held <= 8 * (hardware.buffers.weight_bytes // share)
            if each.load_weight_bytes:
                loads += 1
                assert each.load_weight_bytes == sum(
                    ceil(bits(*tile) / 8)
                    for tile in zip(part.entries.sum(axis=0), part.words, channels, strict=True)
                )
            assert each.load_activation_bytes <= hardware.buffers.activation_bytes // share
            assert each.store_bytes <= hardware.buffers.output_bytes // share
    assert chunks > 20
    assert loads > 100


def test_a_layer_that_fits_is_one_pass():
    layer = conv(np.ones((4, 1, 1, 2)))
    (only,) = largest_passes(layer, (1, 3, 4, 2), hardware_with()).passes
    assert only.pixel_tiles == (0, 3)
    assert only.channel_tiles == (0, 1)
    assert only.words is None
    assert only.drain
    # 4 columns of 2 entries of 1 + 4 + 1 + 9 bits, one feed word, 4 parameters of 32 + 32 + 8 bits
    machine = hardware_with()
    assert machine.entry_bits == 15
    assert machine.parameter_bits == 72
    assert only.load_weight_bytes == ceil((8 * 15 + machine.feed_word_bits + 4 * 72) / 8)
    assert only.load_activation_bytes == 3 * 4 * 2
    assert only.store_bytes == 3 * 4 * 4


def test_strips_load_the_rows_they_touch():
    """3 x 3 on 12 x 4 x 2: a row has 8 bytes, so that half of 64 bytes holds 4 input rows."""
    layer = conv(np.ones((4, 3, 3, 2)), padding=Padding(1, 1, 1, 1))
    machine = hardware_with(buffers={"activation_bytes": 64, "weight_bytes": 65536})
    passes = largest_passes(layer, (1, 12, 4, 2), machine).passes
    # A pixel tile of 4 is one output row. 4 input rows serve 2 output rows, and 3 at the top and
    # bottom, where a row of padding is no input.
    assert [each.pixel_tiles for each in passes] == [
        (0, 3),
        (3, 5),
        (5, 7),
        (7, 9),
        (9, 12),
    ]
    assert [each.load_activation_bytes for each in passes] == [32] * 5
    assert [each.load_weight_bytes > 0 for each in passes] == [True] + [False] * 4


def test_the_cheaper_loop_is_inside():
    """Two strips and two groups: strips outer loads inputs once, groups outer weights once."""
    machine = hardware_with(
        array={"rows": 4, "cols": 4, "feed": 4, "lookahead": 4},
        buffers={
            "activation_bytes": 4096,
            "weight_bytes": 1024,
            "output_bytes": 128,
            "double_buffer": False,
        },
    )
    layer = conv(np.ones((8, 1, 1, 60)))
    plan = largest_passes(layer, (1, 1, 16, 60), machine)
    assert [(p.pixel_tiles, p.channel_tiles) for p in plan.passes[:2]] == [
        ((0, 4), (0, 1)),
        ((0, 4), (1, 2)),
    ]
    wide = largest_passes(layer, (1, 32, 4, 60), machine)
    inputs = sum(p.load_activation_bytes for p in wide.passes)
    weights = sum(p.load_weight_bytes for p in wide.passes)
    once = {p.pixel_tiles: p.load_activation_bytes for p in wide.passes if p.load_activation_bytes}
    tiles = {p.channel_tiles: p.load_weight_bytes for p in wide.passes if p.load_weight_bytes}
    strips_outer = sum(once.values()) + len(once) * sum(tiles.values())
    groups_outer = len(tiles) * sum(once.values()) + sum(tiles.values())
    assert len(once) > 1
    assert inputs + weights <= min(strips_outer, groups_outer)


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
    layer = conv(np.ones((4, 1, 1, 64)))
    machine = hardware_with(array={"feed": 16, "lookahead": 16}, buffers=buffers)
    with pytest.raises(HardwareError, match=sentence):
        largest_passes(layer, (1, 4, 4, 64), machine)


def test_a_raised_buffer_is_enough():
    layer = conv(np.ones((4, 1, 1, 64)))
    machine = hardware_with(buffers={"activation_bytes": 512, "weight_bytes": 64})
    for _ in range(10):
        try:
            largest_passes(layer, (1, 4, 4, 64), machine)
            break
        except HardwareError as error:
            key = str(error).split("buffers.")[1].split("=")[0]
            enough = int(str(error).split("at least ")[1].split()[0])
            machine = machine.model_copy(
                update={"buffers": machine.buffers.model_copy(update={key: enough})}
            )
    else:
        pytest.fail("the advice of the error never sufficed")


# -- counting -------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["activation_bytes", "weight_bytes", "output_bytes"])
def test_what_a_refusal_asks_of_a_buffer_is_enough_and_not_too_much(key):
    """The part of the layer that fails first need not be the one that needs most."""
    rng = np.random.default_rng(6)
    refusals = 0
    for i in range(300):
        pe = list(PES)[i % 4]
        layer, x = random_layer(rng, pe)
        shape = (1, *x.shape[1:])
        settings = random_hardware(rng, pe).model_dump()
        sizes = ("activation_bytes", "weight_bytes", "output_bytes")
        settings["buffers"] |= dict.fromkeys(sizes, 1 << 20) | {key: 64}
        try:
            largest_passes(layer, shape, hardware_from_dict(settings))
        except HardwareError as error:
            match = re.search(rf"buffers\.{key}=64.* at least (\d+) ", str(error))
            assert match, error  # noqa: PT017
            enough = int(match[1])
            settings["buffers"][key] = enough
            largest_passes(layer, shape, hardware_from_dict(settings))
            settings["buffers"][key] = max(enough - 1, 64)
            with pytest.raises(HardwareError, match=f"at least {enough} "):
                largest_passes(layer, shape, hardware_from_dict(settings))
            refusals += 1
    assert refusals >= 20


def test_strips_are_as_long_as_the_buffers_allow():
    for layer, _, hardware, plan in plans(200, 12):
        rows = hardware.array.rows
        limit = capacity(hardware)
        lanes = ceil(plan.geometry.in_channels / hardware.array.feed) * hardware.array.feed
        row_bytes = plan.geometry.width * lanes
        strips = sorted({p.pixel_tiles for p in plan.passes if p.words is None})
        for first, last in strips[:-1]:
            one_more = (first, last + 1)
            words = {p.channel_tiles for p in plan.passes}
            held = max(
                (last + 1 - first)
                * rows
                * hardware.array.feed
                * (
                    (plan.tiles[b - 1].first_channel + plan.tiles[b - 1].channels - 1)
                    // hardware.array.feed
                    - plan.tiles[a].first_channel // hardware.array.feed
                    + 1
                )
                for a, b in words
            )
            assert (
                plan.geometry.input_rows(one_more, rows) * row_bytes > limit.activation_bytes
                or held > limit.output_bytes
            ), layer


def test_strips_are_found_without_looking_at_every_pixel_tile(monkeypatch):
    """One strip of 50,176 pixel tiles; looks are few per strip, not one a tile."""
    looks = []
    count = Geometry.input_rows
    monkeypatch.setattr(
        Geometry,
        "input_rows",
        lambda self, tiles, rows: looks.append(tiles) or count(self, tiles, rows),
    )
    layer = conv(np.ones((64, 1, 1, 1)))
    hardware = hardware_with(
        array={"rows": 1, "cols": 1},
        post={"lanes": 1},
        buffers={"activation_bytes": 1 << 20, "output_bytes": 1 << 23},
    )
    assert len(largest_passes(layer, (1, 224, 224, 1), hardware).passes) == 1
    assert len(looks) < 50


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


def test_words_that_no_column_needs_are_not_listed():
    weights = np.zeros((4, 1, 1, 8))
    weights[2, 0, 0, 5] = 1
    (tile,) = largest_passes(conv(weights), (1, 1, 1, 8), hardware_with()).tiles
    assert tile.words.tolist() == [2]
    empty = largest_passes(conv(np.zeros((4, 1, 1, 8))), (1, 1, 1, 8), hardware_with())
    assert empty.tiles[0].words.tolist() == [0]


def test_fillers_by_hand():
    """A lone weight at word 1 of 40: fillers at 0, 16, 31 and at the end."""
    counts = np.zeros((1, 40), dtype=np.int32)
    counts[0, 1] = 2
    filled = kernels.with_fillers(counts)
    assert np.flatnonzero(filled).tolist() == [0, 1, 16, 31, 39]
    assert filled.sum() == 6
    assert kernels.column_entries(counts).tolist() == [6]


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
    plan = largest_passes(layer, shape, load_hardware(preset))
    assert plan.geometry.pixels == (shape[1] // stride) ** 2


def test_chosen_plan_is_never_slower_nor_moves_more_than_the_largest_passes():
    rng = np.random.default_rng(11)
    faster = 0
    for i in range(120):
        pe = list(PES)[i % 4]
        layer, x = random_layer(rng, pe)
        hardware = random_hardware(rng, pe)
        shape = (1, *x.shape[1:])
        try:
            largest = time_plan(largest_passes(layer, shape, hardware), hardware)
        except HardwareError:
            continue
        chosen = time_plan(plan_layer(layer, shape, hardware), hardware)
        assert chosen.cycles <= largest.cycles
        assert moved_bytes(chosen) <= moved_bytes(largest)
        faster += chosen.cycles < largest.cycles
    assert faster > 0


def moved_bytes(timing):
    return timing.events.dram_read_bytes + timing.events.dram_write_bytes


def test_transfers_overlap_where_whole_layer_would_fit_one_pass():
    # 16 channel tiles of a dense-like convolution fit the weight buffer at once, but then no load
    # would hide behind a computation: the chosen plan has several passes.
    layer = conv(np.ones((64, 1, 1, 64)))
    machine = hardware_with(
        buffers={"weight_bytes": 1 << 20, "activation_bytes": 1 << 16, "output_bytes": 1 << 16}
    )
    whole = largest_passes(layer, (1, 8, 8, 64), machine)
    chosen = plan_layer(layer, (1, 8, 8, 64), machine)
    assert len(whole.passes) == 1
    assert len(chosen.passes) > 1
    assert time_plan(chosen, machine).cycles < time_plan(whole, machine).cycles
