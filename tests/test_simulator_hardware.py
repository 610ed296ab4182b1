import os
import tomllib
from copy import deepcopy
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden.errors import HardwareError
from golden.network import FullyConnected, Requantization
from simulator.digits import digit_count, signed_digits
from simulator.hardware import (
    changed_hardware,
    check_layer_fits,
    hardware_from_dict,
    list_presets,
    load_hardware,
    to_toml,
)


def changed(path, value, preset="mac4x4"):
    """Settings of a preset with one of them changed, or removed where value is None."""
    tree = tomllib.loads(to_toml(load_hardware(preset)))
    *tables, key = path.split(".")
    table = tree
    for name in tables:
        table = table[name]
    if value is None:
        del table[key]
    else:
        table[key] = value
    return tree


def dense(weights, weight_zero_point=0, limits=(-128, 127)):
    weights = np.atleast_2d(np.asarray(weights))
    return FullyConnected(
        name="head",
        inputs=(0,),
        outputs=(1,),
        weights=weights,
        weight_bits=8,
        weight_zero_point=weight_zero_point,
        bias=None,
        input_zero_point=0,
        output_zero_point=0,
        requantization=Requantization(np.array([2**30], np.int32), np.array([1], np.int32)),
        activation_min=limits[0],
        activation_max=limits[1],
    )


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (
            "array.acc_bits",
            1,
            "array.acc_bits=1 must be a whole number from 2 to 48; it sets the width of the"
            " accumulator",
        ),
        ("array.row", 4, "array.row is not a setting; did you mean rows?"),
        (
            "buffer",
            {},
            "buffer is not a setting; did you mean buffers?",
        ),
        (
            "dram.xyz",
            1,
            "dram.xyz is not a setting; dram has bytes_per_cycle, latency_cycles, data_bits",
        ),
        (
            "dram.data_bits",
            48,
            "dram.data_bits=48 must be 32 or 64 or 128 or 256 or 512 or 1024; it sets the width of"
            " the data bus",
        ),
        (
            "dram.bytes_per_cycle",
            129,
            "dram.bytes_per_cycle=129 asks for a data bus of more than 1024 bits; lower it to at"
            " most 128 or set dram.data_bits = 1024",
        ),
        (
            "array.rows",
            "4",
            'array.rows="4" must be a whole number from 1 to 256; it sets the PE rows (output'
            " pixels of a tile)",
        ),
        (
            "array.rows",
            True,
            "array.rows=true must be a whole number from 1 to 256; it sets the PE rows (output"
            " pixels of a tile)",
        ),
        (
            "array.cols",
            257,
            "array.cols=257 must be a whole number from 1 to 256; it sets the PE columns (output"
            " channels of a tile)",
        ),
        (
            "array.acc_overflow",
            "clip",
            'array.acc_overflow="clip" must be "wrap" or "saturate"; it sets what an accumulator'
            " does on overflow",
        ),
        (
            "array.activation_bits",
            12,
            "array.activation_bits=12 must be 8 or 16; it sets the width of activation codes",
        ),
        (
            "pe.kind",
            "multiplier",
            'pe.kind="multiplier" must be "mac" or "shift_add" or "ternary"; it sets the kind of'
            " processing element",
        ),
        (
            "pe.terms",
            2,
            'pe.terms=2 belongs to pe.kind = "shift_add", but pe.kind is "mac"; remove pe.terms',
        ),
        ("array.feed", 3, "array.feed=3 must be a power of two; use 1, 2, 4, 8, ..."),
        (
            "array.lookahead",
            5,
            "array.lookahead=5 must be a multiple of array.feed=2; use 4",
        ),
        ("post.lanes", 3, "post.lanes=3 must divide array.rows=4; use 2"),
        (
            "array.acc_bits",
            40,
            "array.acc_bits=40 must not exceed the 32 bits of the post-processor; narrow it or set"
            " array.activation_bits = 16",
        ),
        (
            "clock_hz",
            0,
            "clock_hz=0 must be a number from 1 to 1e+12; it sets the clock frequency in hertz",
        ),
        (
            "name",
            'a "b"\nc',
            'name="a \\"b\\"\\nc" must be a text in quotes, of one line and not empty; it sets the'
            " name of the hardware",
        ),
        (
            "array.rows",
            None,
            "array.rows is missing; it sets the PE rows (output pixels of a tile) and must be a"
            " whole number from 1 to 256",
        ),
        (
            "dram",
            None,
            "the table [dram] is missing; it has bytes_per_cycle, latency_cycles, data_bits",
        ),
        (
            "dram",
            16,
            "dram must be a table; write it as [dram] with bytes_per_cycle, latency_cycles,"
            " data_bits",
        ),
    ],
)
def test_a_wrong_setting_is_refused_in_one_sentence(path, value, sentence):
    with pytest.raises(HardwareError) as error:
        hardware_from_dict(changed(path, value))
    assert str(error.value) == sentence


def test_a_misspelt_setting_is_named_before_the_missing_one_it_stands_for():
    tree = changed("array.rows", None)
    tree["array"]["row"] = 4
    with pytest.raises(HardwareError, match=r"^array.row is not a setting; did you mean rows\?$"):
        hardware_from_dict(tree)


def test_spilling_needs_a_wider_accumulator():
    tree = changed("array.spill_interval", 8)
    tree["array"]["acc_bits"] = 32
    with pytest.raises(HardwareError) as error:
        hardware_from_dict(tree)
    assert str(error.value) == (
        "array.wide_acc_bits=32 must be more than array.acc_bits=32 where array.spill_interval is"
        " 8; widen it or set array.spill_interval = 0"
    )


def test_an_unknown_preset_is_answered_with_the_list():
    with pytest.raises(HardwareError) as error:
        load_hardware("mac17x17")
    assert str(error.value) == (
        "mac17x17 is not a hardware preset; use one of mac16x16, mac16x16_wide, mac4x4,"
        " nhot2_16x16, nhot2_4x4, nhot2_parallel, nhot2_parallel_4x4, ternary16x16, ternary4x4,"
        " winograd16x16, or the path of a .toml file"
    )


def test_files_that_cannot_be_read_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(HardwareError, match=r"cannot be read \(No such file or directory\)"):
        load_hardware(tmp_path / "missing.toml")
    (tmp_path / "broken.toml").write_text("name = ")
    with pytest.raises(HardwareError, match=r"broken.toml is not TOML \(.*\); compare it"):
        load_hardware(tmp_path / "broken.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(HardwareError, match="is not TOML"):
        load_hardware(tmp_path / "binary.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(HardwareError, match="cannot be read"):
        load_hardware(tmp_path / "folder.toml")
    os.mkfifo(tmp_path / "pipe.toml")  # reading it would wait for ever
    with pytest.raises(HardwareError, match=r"pipe.toml is a device or pipe; copy it to a file"):
        load_hardware(tmp_path / "pipe.toml")


@pytest.mark.parametrize("name", list_presets())
def test_presets_load_and_survive_writing(name, tmp_path):
    hardware = load_hardware(name)
    assert hardware.name == name
    # Computed once and kept, but no setting; F(4x4, 3x3) makes operands 100 times larger.
    assert hardware.widths.x == (16 if name == "winograd16x16" else 9)
    (tmp_path / "copy.toml").write_text(to_toml(hardware))
    assert load_hardware(tmp_path / "copy.toml") == hardware


def test_names_with_quotes_survive_writing():
    tree = changed("name", 'a "quoted" \\ name')
    hardware = hardware_from_dict(tree)
    assert hardware_from_dict(tomllib.loads(to_toml(hardware))) == hardware


def test_defaults_are_the_documented_ones():
    tree = changed("energy", None)
    for key in ("activation_bits", "weight_bits", "acc_overflow", "spill_interval", "events_bits"):
        del tree["array"][key]
    array = hardware_from_dict(tree).array
    assert (array.activation_bits, array.weight_bits, array.events_bits) == (8, 8, 20)
    assert (array.acc_overflow, array.spill_interval) == ("wrap", 0)


# Widths by hand from rules S1, S2, M3, M5; mac4x4: F = 2, R = 4, 4096 bytes of activations
# = 512 words of 2 codes in each of 4 banks.
@pytest.mark.parametrize(
    ("preset", "code", "entry"),
    [
        ("mac4x4", 9, 1 + 4 + 1 + 9),
        ("nhot2_4x4", 6, 1 + 4 + 1 + 6),
        ("nhot2_parallel_4x4", 12, 1 + 4 + 1 + 12),
        ("ternary4x4", 2, 1 + 4 + 1 + 2),
    ],
)
def test_widths_follow_from_the_settings(preset, code, entry):
    hardware = load_hardware(preset)
    assert (hardware.code_bits, hardware.entry_bits) == (code, entry)
    assert hardware.bank_words == 512
    assert hardware.feed_word_bits == 1 + (9 + 1) + 2 + 8 + 8
    assert hardware.parameter_bits == 32 + 32 + 8
    assert (hardware.depth, hardware.operand_bits, hardware.drain_groups) == (2, 9, 2)


def test_sixteen_bit_activations_widen_operands_and_the_post_processor():
    hardware = hardware_from_dict(changed("array.activation_bits", 16))
    assert (hardware.operand_bits, hardware.post_bits, hardware.parameter_bits) == (17, 64, 104)
    assert (hardware.activation_code_bytes, hardware.bank_words) == (2, 256)


def test_spilling_hands_over_the_wide_accumulator():
    tree = changed("array.spill_interval", 8)
    assert hardware_from_dict(tree).result_bits == 32
    assert load_hardware("mac4x4").result_bits == 24


@pytest.mark.parametrize("preset", ["mac4x4", "nhot2_4x4"])
def test_weights_with_a_zero_point_fit_in_nine_bits(preset):
    # uint8 codes minus any zero point lie in [-255, 255].
    check_layer_fits(dense(np.array([0, 255], np.uint8), 255), load_hardware(preset))
    check_layer_fits(dense(np.array([0, 255], np.uint8), 0), load_hardware(preset))


@pytest.mark.parametrize(
    ("preset", "weights", "sentence"),
    [
        (
            "ternary4x4",
            [1, -1, 2],
            'layer "head" has the weight 2, but the ternary PE holds only -1, 0 and 1; project the'
            " weights with --weights ternary",
        ),
        (
            "nhot2_parallel_4x4",
            [1, 7, 11],  # 7 = 8 - 1; 11 = 8 + 4 - 1
            'layer "head" has the weight 11, but the shift_add PE with pe.terms=2 holds 2 signed'
            " powers of two and it needs 3; project the weights with --weights nhot:2",
        ),
        (
            "mac4x4",
            [256],
            'layer "head" has the weight 256, but array.weight_bits=8 gives its operand 9 bits;'
            " quantize the weights to fewer bits",
        ),
        (
            "nhot2_4x4",
            [-257],
            'layer "head" has the weight -257, but array.weight_bits=8 gives its operand 9 bits;'
            " quantize the weights to fewer bits",
        ),
    ],
)
def test_a_weight_that_the_pe_cannot_hold_is_refused(preset, weights, sentence):
    with pytest.raises(HardwareError) as error:
        check_layer_fits(dense(np.array(weights, np.int16)), load_hardware(preset))
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("layer", "dtype"),
    [(dense([1]), "int16"), (dense([1], limits=(-32768, 32767)), None)],
)
def test_int16_activations_need_a_wide_datapath(layer, dtype):
    with pytest.raises(HardwareError) as error:
        check_layer_fits(layer, load_hardware("mac4x4"), dtype)
    assert str(error.value) == (
        'layer "head" has int16 activations, but array.activation_bits=8; use hardware with'
        " array.activation_bits = 16"
    )
    check_layer_fits(layer, hardware_from_dict(changed("array.activation_bits", 16)), dtype)


@given(st.integers(-256, 255))
@settings(deadline=None, derandomize=True)
def test_signed_digits_sum_to_the_weight_and_are_not_adjacent(weight):
    digits = signed_digits(weight)
    assert sum(sign * 2**exponent for exponent, sign in digits) == weight
    exponents = [exponent for exponent, _ in digits]
    assert all(high - low >= 2 for high, low in pairwise(exponents))
    assert int(digit_count(weight)) == len(digits)


def test_signed_digits_of_known_numbers():
    assert signed_digits(7) == [(3, 1), (0, -1)]
    assert signed_digits(-3) == [(2, -1), (0, 1)]
    assert signed_digits(0) == []
    assert signed_digits(85) == [(6, 1), (4, 1), (2, 1), (0, 1)]


def test_hardware_is_frozen():
    hardware = load_hardware("mac4x4")
    before = deepcopy(hardware)
    with pytest.raises(ValueError, match="frozen"):
        hardware.array.rows = 5
    assert hardware == before


@pytest.mark.parametrize(
    ("bytes_per_cycle", "data_bits", "beat_bytes", "interval_cycles"),
    [
        (1, None, 8, 8),  # at least 64 bits
        (8, None, 8, 1),
        (12, None, 16, 2),  # 96 bits need 128; 16 bytes take ceil(16 / 12) cycles
        (128, None, 128, 1),
        (4, 32, 4, 1),
        (4, 512, 64, 16),
        (4096, 128, 16, 1),
    ],
)
def test_the_bus_is_as_wide_as_said_or_as_the_memory_asks(
    bytes_per_cycle, data_bits, beat_bytes, interval_cycles
):
    tree = changed("dram.bytes_per_cycle", bytes_per_cycle)
    if data_bits is not None:
        tree["dram"]["data_bits"] = data_bits
    hardware = hardware_from_dict(tree)
    assert (hardware.beat_bytes, hardware.interval_cycles) == (beat_bytes, interval_cycles)
    assert hardware_from_dict(tomllib.loads(to_toml(hardware))) == hardware


def test_a_beat_holds_a_feed_word_and_an_entry():
    tree = changed("dram.data_bits", 32)
    assert hardware_from_dict(tree).feed_places == 1  # 29 bits of 31
    tree["buffers"]["activation_bytes"] = 4 * 4096  # 2 more address bits: 31
    hardware_from_dict(tree)
    tree["buffers"]["activation_bytes"] *= 2
    with pytest.raises(HardwareError) as error:
        hardware_from_dict(tree)
    assert str(error.value) == (
        "dram.data_bits=32 leaves 31 bits of a beat for feed words, but they have 32; set"
        " dram.data_bits = 64"
    )
    tree = changed("dram.data_bits", 32, "nhot2_parallel_4x4")
    tree["pe"]["terms"] = 4
    tree["array"] |= {"feed": 8, "lookahead": 8}
    with pytest.raises(HardwareError) as error:  # entries: 1 + 4 + 3 + 4 * 6
        hardware_from_dict(tree)
    assert str(error.value) == (
        "dram.data_bits=32 leaves 31 bits of a beat for entries, but they have 32; set"
        " dram.data_bits = 64"
    )


def test_beats_and_descriptors_by_hand():
    hardware = load_hardware("mac4x4")  # 64 bits: 63 of payload
    assert (hardware.beat_bytes, hardware.word_bytes, hardware.halves) == (8, 2, 2)
    assert (hardware.feed_word_bits, hardware.feed_places) == (29, 2)
    assert (hardware.entry_bits, hardware.stream_places) == (15, 4)
    assert (hardware.parameter_bits, hardware.parameter_beats) == (72, 2)
    assert hardware.descriptor_words == 64 + 4
    assert hardware.descriptor_bytes == 384  # 272 rounded up to 128
    assert hardware.output_bank_words == 2048 // (4 * 2)


def test_the_machine_is_what_the_verilog_depends_on():
    base = hardware_from_dict(changed("name", "other"))
    assert base.machine_id == load_hardware("mac4x4").machine_id
    assert base.machine_id == 0xE9193ACF  # as another process computed it
    same = [("clock_hz", 1.0), ("dram.latency_cycles", 7), ("dram.data_bits", 64)]
    same += [("buffers.weight_bytes", 1 << 20), ("buffers.double_buffer", False)]
    for path, value in same:
        assert hardware_from_dict(changed(path, value)).machine_id == base.machine_id
    others = [("array.rows", 8), ("array.acc_bits", 25), ("post.lanes", 4), ("dram.data_bits", 128)]
    others += [("buffers.activation_bytes", 8192), ("buffers.output_bytes", 4096)]
    identities = {hardware_from_dict(changed(path, value)).machine_id for path, value in others}
    assert len(identities | {base.machine_id}) == 1 + len(others)


def test_settings_are_changed_by_table_and_checked_as_a_file_is():
    hardware = load_hardware("mac4x4")
    changed = changed_hardware(hardware, "narrow", array={"acc_bits": 16, "spill_interval": 2})
    assert (changed.name, changed.array.acc_bits, changed.array.spill_interval) == ("narrow", 16, 2)
    assert changed_hardware(changed, "mac4x4", array=hardware.array.model_dump()) == hardware
    assert changed_hardware(hardware, post={"lanes": 2}).name == "mac4x4"
    with pytest.raises(HardwareError, match="acc_bit"):
        changed_hardware(hardware, array={"acc_bit": 16})
    with pytest.raises(HardwareError, match="matrix"):
        changed_hardware(hardware, matrix={"acc_bits": 16})
