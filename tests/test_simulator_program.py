import tomllib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden.errors import HardwareError, InputError
from golden.network import Conv2D, FullyConnected, Padding, Requantization
from simulator.digits import digit_count
from simulator.hardware import hardware_from_dict, load_hardware, to_toml
from simulator.memory_image import (
    activation_banks,
    outputs_from_banks,
    pack_lanes,
    parameter_words,
    unpack_lanes,
)
from simulator.program import (
    compile_layer,
    encode_entry,
    encode_feed_word,
    feed_words,
    stream_words,
)


def array(preset="mac4x4", **changes):
    tree = tomllib.loads(to_toml(load_hardware(preset)))
    tree["array"] |= changes
    tree["post"]["lanes"] = 1
    return hardware_from_dict(tree)


def conv(weights, groups=1, **options):
    weights = np.asarray(weights)
    return Conv2D(
        name="conv",
        inputs=(0,),
        outputs=(1,),
        weights=weights,
        weight_bits=8,
        weight_zero_point=options.pop("weight_zero_point", 0),
        bias=np.arange(weights.shape[0], dtype=np.int64) - 1,
        input_zero_point=3,
        output_zero_point=0,
        requantization=Requantization(np.array([2**30], np.int32), np.array([-2], np.int32)),
        activation_min=-128,
        activation_max=127,
        groups=groups,
        **options,
    )


def dense(weights):
    layer = conv(np.zeros((1, 1, 1, 1)))
    fields = {
        name: getattr(layer, name)
        for name in FullyConnected.__dataclass_fields__
        if name not in ("weights", "bias")
    }
    return FullyConnected(weights=np.atleast_2d(np.asarray(weights)), bias=None, **fields)


def stream(program, column, tile=0):
    """(word, lane, code, advance, last) of each entry of a column."""
    streams = program.streams
    span = slice(streams.start[column, tile], streams.start[column, tile + 1])
    advance = streams.advance[span].astype(int)
    word = np.cumsum(advance) - advance
    return list(
        zip(
            word.tolist(),
            streams.lane[span].tolist(),
            streams.code[span].tolist(),
            advance.tolist(),
            streams.last[span].tolist(),
            strict=True,
        )
    )


# -- streams --------------------------------------------------------------------------------------


def test_a_mac_stream_is_the_nonzero_weights_in_order():
    # F = 2: channels 0, 1 are word 0; 2, 3 are word 1 (not needed, so not listed); 4, 5 word 2.
    program = compile_layer(dense([[5, -1, 0, 0, 0, 7]]), (1, 6), array())
    assert program.feed.addr.tolist() == [0, 2]
    assert stream(program, 0) == [(0, 0, 5, 0, 0), (0, 1, 0x1FF, 1, 0), (1, 1, 7, 1, 1)]


def test_a_serial_stream_has_the_digits_highest_first():
    # 7 = +2**3 - 2**0: {enable, negative, shift}; -6 = -2**3 + 2**1.
    program = compile_layer(dense([[7, -6]]), (1, 2), array("nhot2_4x4"))
    assert stream(program, 0) == [
        (0, 0, 0b1_0_0011, 0, 0),
        (0, 0, 0b1_1_0000, 0, 0),
        (0, 1, 0b1_1_0011, 0, 0),
        (0, 1, 0b1_0_0001, 1, 1),
    ]


def test_a_parallel_code_has_the_highest_exponent_in_the_lowest_bits():
    program = compile_layer(dense([[7, 4]]), (1, 2), array("nhot2_parallel_4x4"))
    assert stream(program, 0) == [
        (0, 0, 0b110000_100011, 0, 0),
        (0, 1, 0b000000_100010, 1, 1),
    ]


def test_ternary_codes_are_two_bits_of_twos_complement():
    program = compile_layer(dense([[1, -1, 0, 1]]), (1, 4), array("ternary4x4"))
    assert [entry[2] for entry in stream(program, 0)] == [0b01, 0b11, 0b01]


def test_fillers_bridge_more_than_fifteen_words():
    # Column 0 needs all 40 words; column 1 only words 0 and 39: fillers at 15 and 30.
    weights = np.zeros((2, 40), int)
    weights[0] = 1
    weights[1, [0, 39]] = 2
    program = compile_layer(dense(weights), (1, 40), array(feed=1, lookahead=1))
    assert stream(program, 1) == [
        (0, 0, 2, 15, 0),
        (15, 0, 0, 15, 0),
        (30, 0, 0, 9, 0),
        (39, 0, 2, 1, 1),
    ]


@pytest.mark.parametrize(
    ("gap", "between"), [(1, []), (15, []), (16, [15]), (30, [15]), (31, [15, 30])]
)
def test_fillers_stand_every_fifteen_words_after_the_earlier_entry(gap, between):
    weights = np.ones((2, gap + 1), int)
    weights[1, 1:-1] = 0
    program = compile_layer(dense(weights), (1, gap + 1), array(feed=1, lookahead=1))
    assert [entry[0] for entry in stream(program, 1)] == [0, *between, gap]


def test_a_column_gets_fillers_at_the_ends_of_the_tile():
    program = compile_layer(dense([[1, 1, 1, 1], [0, 9, 0, 0]]), (1, 4), array(feed=1, lookahead=1))
    assert stream(program, 1) == [(0, 0, 0, 1, 0), (1, 0, 9, 2, 0), (3, 0, 0, 1, 1)]


def test_unused_columns_have_fillers_only():
    program = compile_layer(dense([[1, 1, 1]]), (1, 3), array(feed=1, lookahead=1))
    for column in (1, 2, 3):
        assert stream(program, column) == [(0, 0, 0, 2, 0), (2, 0, 0, 1, 1)]


def test_a_tile_without_weights_lists_its_first_word_alone():
    weights = np.zeros((8, 3, 3, 4), np.int8)
    weights[:4] = 1
    program = compile_layer(conv(weights), (1, 5, 5, 4), array())
    assert program.words.tolist() == [18, 1]
    for column in range(4):
        assert stream(program, column, tile=1) == [(0, 0, 0, 1, 1)]


def test_a_depthwise_tile_without_weights_lists_its_own_first_channel():
    weights = np.ones((8, 1, 1, 1), np.int8)
    weights[4:] = 0
    program = compile_layer(conv(weights, groups=8), (1, 2, 2, 8), array())
    # F = 2: channels 0 to 3 are words 0 and 1, channel 4 begins word 2.
    assert program.feed.addr.tolist() == [0, 1, 2]


def test_a_depthwise_column_picks_only_its_own_channel():
    weights = np.arange(1, 5).reshape(4, 1, 1, 1)
    program = compile_layer(conv(weights, groups=4), (1, 2, 2, 4), array())
    picked = [[e[:3] for e in stream(program, c) if e[2]] for c in range(4)]
    assert picked == [[(0, 0, 1)], [(0, 1, 2)], [(1, 0, 3)], [(1, 1, 4)]]


def decoded(program):
    """Dense weights (out_channels, taps * in_words * F) read back from streams and feed words."""
    g, hardware = program.geometry, program.hardware
    weights = np.zeros((g.out_channels, g.kernel[0] * g.kernel[1], g.in_words * g.feed), int)
    for tile in range(g.channel_tiles):
        feed = slice(program.feed.start[tile], program.feed.start[tile + 1])
        ky = program.feed.dy[feed] // g.dilation[0]
        kx = program.feed.dx[feed] // g.dilation[1]
        tap = ky * g.kernel[1] + kx
        channel_word = program.feed.addr[feed] % g.in_words
        for column in range(g.columns_used(tile)):
            for word, lane, code, _, _ in stream(program, column, tile):
                value = 0
                if hardware.pe.kind == "shift_add":
                    for term in range(hardware.pe.terms):
                        group = code >> (6 * term) & 63
                        if group & 32:
                            value += (-1 if group & 16 else 1) * 2 ** (group & 15)
                elif code:
                    bits = hardware.code_bits
                    value = code - (2**bits if code >= 2 ** (bits - 1) else 0)
                place = (tap[word], channel_word[word] * g.feed + lane)
                weights[(tile * g.cols + column, *place)] += value
    return weights


@st.composite
def layers(draw):
    preset = draw(st.sampled_from(["mac4x4", "nhot2_4x4", "nhot2_parallel_4x4", "ternary4x4"]))
    feed = draw(st.sampled_from([1, 2, 4]))
    hardware = array(
        preset,
        rows=draw(st.integers(1, 6)),
        cols=draw(st.integers(1, 5)),
        feed=feed,
        lookahead=feed * draw(st.integers(1, 3)),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups = draw(st.sampled_from([1, 1, 2, 5]))
    per_group = draw(st.integers(1, 40 if groups == 1 else 4))
    shape = (groups * draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    values = np.arange(-127, 128)
    if preset == "ternary4x4":
        values = np.array([-1, 1])
    if preset == "nhot2_parallel_4x4":
        values = values[digit_count(values) <= 2]
    weights = rng.choice(values, (*shape, per_group))
    weights[rng.random(weights.shape) > draw(st.sampled_from([0.0, 0.05, 0.5, 1.0]))] = 0
    layer = conv(
        weights,
        groups=groups,
        stride=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        dilation=(draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        padding=Padding(*(draw(st.integers(0, 2)) for _ in range(4))),
    )
    size = (draw(st.integers(5, 9)), draw(st.integers(5, 9)))
    return layer, (1, *size, groups * per_group), hardware


@given(layers())
@settings(deadline=None, derandomize=True, max_examples=80)
def test_streams_decode_to_the_weights(case):
    layer, shape, hardware = case
    program = compile_layer(layer, shape, hardware)
    out_channels, per_group = layer.weights.shape[0], layer.weights.shape[3]
    found = decoded(program)
    expected = np.zeros_like(found)
    for channel in range(out_channels):
        first = channel // (out_channels // layer.groups) * per_group
        expected[channel, :, first : first + per_group] = layer.weights[channel].reshape(
            -1, per_group
        )
    np.testing.assert_array_equal(found, expected)


@given(layers())
@settings(deadline=None, derandomize=True, max_examples=80)
def test_every_column_walks_its_tile_from_the_first_word_to_the_last(case):
    program = compile_layer(*case)
    for tile, words in enumerate(program.words):
        needed = np.zeros(words, bool)
        for column in range(program.geometry.cols):
            entries = stream(program, column, tile)
            assert entries[0][0] == 0
            assert entries[-1][0] == words - 1
            assert [entry[4] for entry in entries] == [0] * (len(entries) - 1) + [1]
            assert entries[-1][3] == 1
            assert all(entry[3] <= 15 for entry in entries)
            needed[[entry[0] for entry in entries if entry[2]]] = True
        assert needed.all() or words == 1


@given(layers(), st.data())
@settings(deadline=None, derandomize=True, max_examples=60)
def test_chunks_hold_the_weights_of_their_words_and_obey_the_stream_rules(case, data):
    program = compile_layer(*case)
    tile = data.draw(st.integers(0, program.geometry.channel_tiles - 1))
    words = int(program.words[tile])
    cut = data.draw(st.integers(0, words - 1))
    chunks = [range(cut), range(cut, words)] if cut else [range(words)]
    for column in range(program.geometry.cols):
        joined = []
        for chunk in chunks:
            part = program.part(channel_tiles=range(tile, tile + 1), words=chunk, drain=False)
            entries = stream(part, column)
            assert (entries[0][0], entries[-1][0]) == (0, len(chunk) - 1)
            assert [entry[4] for entry in entries] == [0] * (len(entries) - 1) + [1]
            joined += [(entry[0] + chunk.start, *entry[1:3]) for entry in entries if entry[2]]
            assert part.feed.addr.tolist() == (
                program.feed.addr[program.feed.start[tile] :][chunk.start : chunk.stop].tolist()
            )
            assert part.feed.last.tolist() == [0] * (len(chunk) - 1) + [1]
            assert not part.drain
        assert joined == [entry[:3] for entry in stream(program, column, tile) if entry[2]]


def test_a_part_of_all_tiles_is_the_program_itself():
    program = compile_layer(conv(np.ones((9, 2, 2, 3), np.int8)), (1, 5, 5, 3), array())
    part = program.part()
    for column in range(4):
        assert stream_words(part, column).tolist() == stream_words(program, column).tolist()
    assert feed_words(part).tolist() == feed_words(program).tolist()
    assert (part.pixel_tiles, part.channel_tiles) == (program.pixel_tiles, program.channel_tiles)


def test_parts_nest():
    program = compile_layer(conv(np.ones((9, 2, 2, 3), np.int8)), (1, 5, 5, 3), array())
    outer = program.part(channel_tiles=range(1, 3))
    inner = outer.part(channel_tiles=range(2, 3), pixel_tiles=range(1, 2))
    direct = program.part(channel_tiles=range(2, 3), pixel_tiles=range(1, 2))
    assert stream(inner, 0) == stream(direct, 0)
    assert inner.pixel_tiles == range(1, 2)


# -- geometry and feed memory ----------------------------------------------------------------------


def test_geometry_of_a_strided_padded_layer_by_hand():
    # H = 7, W = 6, stride (2, 1), padding 1 everywhere, 3x3: OH = (7+2-3)/2+1 = 4, OW = 6.
    layer = conv(np.ones((5, 3, 3, 3), np.int8), stride=(2, 1), padding=Padding(1, 1, 1, 1))
    g = compile_layer(layer, (1, 7, 6, 3), array()).geometry
    assert (g.out_height, g.out_width, g.pitch) == (4, 6, 6)
    assert g.pixel_tiles == 6  # 3 * 6 + 6 = 24 indices, R = 4
    assert (g.in_words, g.out_words, g.channel_tiles) == (2, 3, 2)
    assert g.plane_lines == 6  # ceil(7 / 2) * 6 / 4
    assert g.bank_words == 2 * 6 * 2
    assert (g.columns_used(0), g.columns_used(1)) == (4, 1)


def test_idle_rows_by_hand():
    # 3x3 valid on 4x4: OW = 2 but pitch = W = 4; indices 0 to 5, of which 2 and 3 are idle.
    layer = conv(np.ones((1, 3, 3, 1), np.int8))
    g = compile_layer(layer, (1, 4, 4, 1), array()).geometry
    assert g.pitch == 4
    assert [g.pixel(i) for i in range(6)] == [(0, 0), (0, 1), None, None, (1, 0), (1, 1)]
    assert g.pixel(8) is None
    assert (g.pixel_tiles, g.pixels_of(range(2)), g.pixels_of(range(1, 2))) == (2, 4, 2)


def test_feed_words_of_a_small_kernel_by_hand():
    # R = 4, F = 2, 3 channels (2 words), 2x2 kernel, padding top 1 left 1, image 4 x 4: OW = 5,
    # pitch 5. Taps have q_off -6, -5, -1, 0: lines -2, -2, -1, 0 and rots 2, 3, 3, 0.
    layer = conv(np.ones((1, 2, 2, 3), np.int8), padding=Padding(1, 1, 1, 1))
    feed = compile_layer(layer, (1, 4, 4, 3), array()).feed
    assert feed.rot.tolist() == [2, 2, 3, 3, 3, 3, 0, 0]
    assert feed.addr.tolist() == [-4, -3, -4, -3, -2, -1, 0, 1]
    assert feed.dy.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert feed.dx.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert feed.last.tolist() == [0] * 7 + [1]


@given(layers())
@settings(deadline=None, derandomize=True, max_examples=60)
def test_feed_words_lead_every_row_to_its_own_bank_and_pixel(case):
    # Rules F3 and F4 in plain loops over the memory image, against the image itself.
    layer, shape, hardware = case
    program = compile_layer(layer, shape, hardware)
    g = program.geometry
    image = np.random.default_rng(0).integers(-128, 128, shape[1:])
    banks = activation_banks(image, g, zero_point=3)
    padded = np.full((g.height, g.width, g.in_words * g.feed), 3)
    padded[:, :, : g.in_channels] = image
    feed = program.feed
    for word in range(feed.addr.size):
        cw = int(feed.addr[word]) % g.in_words
        for tile in range(g.pixel_tiles):
            used = set()
            for r in range(g.rows):
                pixel = g.pixel(tile * g.rows + r)
                bank = (r + int(feed.rot[word])) % g.rows
                used.add(bank)
                if pixel is None:
                    continue
                iy = pixel[0] * g.stride[0] - g.pad_top + int(feed.dy[word])
                ix = pixel[1] * g.stride[1] - g.pad_left + int(feed.dx[word])
                if 0 <= iy < g.height and 0 <= ix < g.width:
                    wrapped = g.in_words if bank < feed.rot[word] else 0
                    address = tile * g.in_words + int(feed.addr[word]) + wrapped
                    np.testing.assert_array_equal(
                        banks[bank, address], padded[iy, ix, cw * g.feed : (cw + 1) * g.feed]
                    )
            assert len(used) == g.rows


def test_dense_rows_are_the_pixels_of_an_image_of_height_one():
    g = compile_layer(dense(np.ones((3, 6), int)), (1, 2, 5, 6), array()).geometry
    assert (g.height, g.width, g.in_channels, g.pixel_tiles) == (1, 10, 6, 3)
    g = compile_layer(dense(np.ones((3, 12), int)), (1, 2, 2, 3), array()).geometry
    assert (g.width, g.in_channels) == (1, 12)


@pytest.mark.parametrize(
    ("layer", "shape", "sentence"),
    [
        (
            dense(np.ones((3, 4), int)),
            (1, 6),
            'layer "conv" takes vectors of 4 features, but one image of its input (1, 6) has 6'
            " values; check the shape",
        ),
        (
            conv(np.ones((1, 3, 3, 2), np.int8)),
            (1, 5, 5, 3),
            'layer "conv" takes NHWC images of 2 channels, but its input is (1, 5, 5, 3); check the'
            " shape",
        ),
        (
            conv(np.ones((1, 3, 3, 2), np.int8)),
            (1, 2, 5, 2),
            'layer "conv" has a kernel larger than its padded input (2, 5); check the shape',
        ),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(layer, shape, sentence):
    with pytest.raises(InputError) as error:
        compile_layer(layer, shape, array())
    assert str(error.value) == sentence


# -- words of Verilog memories ---------------------------------------------------------------------


def test_an_entry_packs_as_last_advance_lane_code():
    widths = load_hardware("mac4x4").widths  # lane 1 bit, code 9 bits
    fields = (np.array([v]) for v in (1, 0b0101, 1, 0x1FE))
    assert encode_entry(widths, *fields).tolist() == [0b1_0101_1_111111110]


def test_a_feed_word_packs_as_last_addr_rot_dy_dx():
    widths = load_hardware("mac4x4").widths  # addr 10 bits, rot 2, dy 8, dx 8
    fields = (np.array([v]) for v in (1, -3, 2, 4, 255))
    assert encode_feed_word(widths, *fields).tolist() == [
        0b1_1111111101_10_00000100_11111111,
    ]


def test_words_of_a_program_by_hand():
    program = compile_layer(dense([[5, -1, 0, 0, 0, 7]]), (1, 6), array())
    assert stream_words(program, 0).tolist() == [
        0b0_0000_0_000000101,
        0b0_0001_1_111111111,
        0b1_0001_1_000000111,
    ]
    assert stream_words(program, 3).tolist() == [0b0_0001_0_000000000, 0b1_0001_0_000000000]
    assert feed_words(program).tolist() == [0, 0b1_0000000010_00_00000000_00000000]


def test_parameter_words_are_bias_multiplier_shift():
    # Biases -1 and 0, multiplier 2**30, shift -2, in 32, 32 and 8 bits.
    program = compile_layer(conv(np.ones((2, 1, 1, 1), np.int8)), (1, 2, 2, 1), array())
    assert parameter_words(program) == [0xFFFFFFFF_40000000_FE, 0x00000000_40000000_FE]


def test_an_image_larger_than_the_memory_has_no_feed_words():
    program = compile_layer(conv(np.ones((1, 1, 1, 1), np.int8)), (1, 100, 100, 1), array())
    with pytest.raises(HardwareError) as error:
        feed_words(program)
    assert str(error.value) == (
        'layer "conv" takes 2500 words of each activation bank, but buffers.activation_bytes=4096'
        " gives 512; enlarge it to put the whole image into the memory"
    )


# -- memory images ---------------------------------------------------------------------------------


def test_activation_banks_by_hand():
    # R = 4, F = 2, one row of 6 pixels with 3 channels: pixel q is in bank q mod 4, line q div 4,
    # two words a line; the lane beyond channel 2 and the places of pixels 6, 7 hold the zero point.
    program = compile_layer(conv(np.ones((1, 1, 1, 3), np.int8)), (1, 1, 6, 3), array())
    image = np.arange(18).reshape(1, 6, 3)
    banks = activation_banks(image, program.geometry, zero_point=-9)
    assert banks.shape == (4, 4, 2)
    assert banks[0].tolist() == [[0, 1], [2, -9], [12, 13], [14, -9]]
    assert banks[1].tolist() == [[3, 4], [5, -9], [15, 16], [17, -9]]
    assert banks[2].tolist() == [[6, 7], [8, -9], [-9, -9], [-9, -9]]


def test_phase_planes_by_hand():
    # Stride 2: pixel (iy, ix) lies in plane (iy mod 2) * 2 + (ix mod 2); 4 x 4 image, pitch 2,
    # plane_lines = ceil(2 * 2 / 4) = 1.
    layer = conv(np.ones((1, 1, 1, 1), np.int8), stride=(2, 2))
    program = compile_layer(layer, (1, 4, 4, 1), array(feed=1, lookahead=1))
    image = np.arange(16).reshape(4, 4, 1)
    banks = activation_banks(image, program.geometry, zero_point=99)
    assert banks[:, :, 0].T.tolist() == [
        [0, 2, 8, 10],
        [1, 3, 9, 11],
        [4, 6, 12, 14],
        [5, 7, 13, 15],
    ]


def test_outputs_are_read_from_bank_row_address_and_lane():
    # OW = 2, pitch 4 (see idle rows): pixel (1, 1) has index 5, so tile 1, bank 1; channel 2 is
    # lane 0 of word 1 of the two words of 3 channels.
    layer = conv(np.ones((3, 3, 3, 1), np.int8))
    g = compile_layer(layer, (1, 4, 4, 1), array()).geometry
    banks = np.zeros((4, g.out_bank_words, 2), int)
    banks[1, 1 * 2 + 1, 0] = 42
    image = outputs_from_banks(banks, g)
    assert image.shape == (2, 2, 3)
    assert image[1, 1, 2] == 42
    assert np.count_nonzero(image) == 1


def test_lanes_pack_with_lane_zero_lowest():
    assert pack_lanes([[1, -1], [127, -128]], 8) == [0xFF01, 0x807F]
    assert pack_lanes([[1, -1]], 16) == [0xFFFF0001]


@given(st.lists(st.lists(st.integers(-128, 127), min_size=8, max_size=8), min_size=1, max_size=4))
@settings(deadline=None, derandomize=True)
def test_unpacking_undoes_packing(codes):
    assert unpack_lanes(pack_lanes(codes, 8), 8, 8, signed=True).tolist() == codes
    unsigned = [[code + 128 for code in word] for word in codes]
    assert unpack_lanes(pack_lanes(unsigned, 8), 8, 8, signed=False).tolist() == unsigned


def test_a_program_keeps_the_layer_parameters_of_every_channel():
    layer = conv(np.ones((5, 1, 1, 1), np.int8))
    program = compile_layer(layer, (1, 2, 2, 1), array())
    assert program.parameters.multiplier.tolist() == [2**30] * 5
    assert program.parameters.shift.tolist() == [-2] * 5
    assert program.parameters.bias.tolist() == [-1, 0, 1, 2, 3]
    bare = compile_layer(replace(layer, bias=None), (1, 2, 2, 1), array())
    assert bare.parameters.bias.tolist() == [0] * 5
