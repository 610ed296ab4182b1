"""Descriptors, weight blocks and memory images: read back, and run by a plain-Python machine."""

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from paper_machine import PaperMachine
from random_layers import PES, random_layer

from golden.errors import HardwareError
from golden.files import load_network
from golden.network import Network, Tensor
from golden.run import run as run_golden
from napier.loading import shipped_digits
from rtl_models.random_networks import random_hardware, random_network
from simulator.compiler import StepProgram, compile_network, program_layers
from simulator.descriptors import (
    DESCRIPTOR_FIELDS,
    ROW_FIELDS,
    decode_descriptor,
    encode_descriptor,
)
from simulator.hardware import changed_hardware, hardware_from_dict, load_hardware
from simulator.lowering import lower
from simulator.memory_image import tensor_bytes, tensor_from_bytes, tensor_planes_bytes
from simulator.passes import Load, Pass, Store, WeightBlock
from simulator.program import layer_geometry
from simulator.weight_blocks import decode_block, encode_block, section_beats

ROOT = Path(__file__).parent.parent
PROGRAMMING = ROOT / "docs" / "programming.md"


def documented_fields():
    """(word, lsb, width, name) of every field in the table of docs/programming.md, section 3."""
    text = PROGRAMMING.read_text(encoding="utf-8")
    section = text[text.index("## 3.") : text.index("**Loading activations.**")]
    fields = []
    words = []
    for row in re.findall(r"^\|(.*)\|$", section, re.MULTILINE):
        cells = [cell.strip() for cell in row.split("|")]
        number = cells[0]
        if number in {"word", "---"}:
            continue
        span = re.fullmatch(r"(\d+) - (\d+)", number)
        if span:
            words = list(range(int(span[1]), int(span[2]) + 1))
        elif number and not number.startswith("64"):
            words = [int(word) for word in number.split(",")]
        row_word = number.startswith("64")
        name = re.compile(r"\[(\d+)(?::(\d+))?\] (\w+)")
        parts = [m for cell in cells[1:] for m in name.finditer(cell)]
        if cells[1] == "reserved":
            continue
        if parts:
            for high, low, field in (part.groups() for part in parts):
                lsb = int(low or high)
                fields.append((64 if row_word else words[0], lsb, int(high) - lsb + 1, field))
        else:
            names = [each.strip() for each in cells[1].split(",")]
            assert len(names) == len(words)
            fields += [(word, 0, 32, each) for word, each in zip(words, names, strict=True)]
    return fields


def test_the_field_table_is_the_one_of_the_document():
    ours = [(f.word, f.lsb, f.width, f.name) for f in DESCRIPTOR_FIELDS]
    ours += [(64 + f.word, f.lsb, f.width, f.name) for f in ROW_FIELDS]
    assert sorted(ours) == sorted(documented_fields())


def test_descriptors_come_back_as_they_were():
    rng = np.random.default_rng(1)
    values = {}
    for field in DESCRIPTOR_FIELDS:
        low = -(1 << (field.width - 1)) if field.signed else 0
        values[field.name] = int(rng.integers(low, low + (1 << field.width)))
    starts = [(int(y), int(x)) for y, x in rng.integers(-(1 << 15), 1 << 15, (5, 2))]
    data = encode_descriptor(values, starts)
    assert len(data) == 4 * (64 + 5)
    assert decode_descriptor(data, 5) == (values, starts)


def test_a_value_too_large_for_its_field_is_refused():
    values = dict.fromkeys((field.name for field in DESCRIPTOR_FIELDS), 0) | {"order": 4}
    with pytest.raises(ValueError, match="order=4 does not fit its 2 bits"):
        encode_descriptor(values, [])


def test_a_descriptor_by_hand():
    values = dict.fromkeys((field.name for field in DESCRIPTOR_FIELDS), 0)
    values |= {"magic": 0x4E415031, "order": 1, "drain": 1, "mode": 3, "end_y": -2}
    data = encode_descriptor(values, [(-1, 3)])
    assert data[:4] == b"1PAN"
    assert data[8:12] == bytes([1 | 1 << 4, 3 << 2, 0, 0])
    assert data[19 * 4 : 20 * 4] == b"\xfe\xff\xff\xff"
    assert data[256:260] == b"\xff\xff\x03\x00"


def test_planes_by_hand():
    # 1 x 2 pixels of 3 channels, F = 2: two planes, the second with an unused lane.
    codes = np.array([[[[1, 2, 3], [4, 5, -6]]]])
    data = tensor_bytes(codes, 2, 8)
    assert data == bytes([1, 2, 4, 5, 3, 0, 250, 0])
    assert tensor_planes_bytes(codes.shape, 2, 8) == len(data)
    np.testing.assert_array_equal(tensor_from_bytes(data, codes.shape, 2, 8, True), codes)


def test_tensors_that_are_not_images_have_height_one():
    # (batch, 2, 3) codes of 16 bits, F = 4: two pixels of three channels in one plane.
    codes = np.array([[[1, 2, 3], [-1, -2, -3]]])
    words = np.frombuffer(tensor_bytes(codes, 4, 16), "<i2")
    np.testing.assert_array_equal(words, [1, 2, 3, 0, -1, -2, -3, 0])
    np.testing.assert_array_equal(
        tensor_from_bytes(words.tobytes(), codes.shape, 4, 16, True), codes
    )


# -- programs -------------------------------------------------------------------------------------


def settings(pe="mac", rows=4, cols=4, feed=2, lanes=2, bits=8, **buffers):
    kind, terms, _ = PES[pe]
    return {
        "name": "test",
        "clock_hz": 1e9,
        "array": {
            **{"rows": rows, "cols": cols, "feed": feed, "lookahead": 2 * feed},
            **{"acc_bits": 32, "activation_bits": bits},
        },
        "pe": {"kind": kind, "terms": terms},
        "post": {"lanes": lanes},
        "buffers": {
            **{"activation_bytes": 1 << 16, "weight_bytes": 1 << 16, "output_bytes": 1 << 16},
            **buffers,
        },
        "dram": {"bytes_per_cycle": 4, "latency_cycles": 20},
    }


def one_layer(layer, codes):
    """A network of one weighted layer that takes `codes`."""
    image = layer_geometry(layer, codes.shape, load_hardware("mac4x4"))
    shape = (1, image.out_height, image.out_width, image.out_channels)
    return Network(
        "one",
        (
            Tensor("in", (1, *codes.shape[1:]), "int8", 1.0),
            Tensor("out", shape if codes.ndim == 4 else (1, *shape[3:]), "int8", 1.0),
        ),
        (layer,),
        (0,),
        (1,),
    )


def single_pass(program, load_offset, store_offset, weight_offset):
    """The whole step as one pass, the memories filled from address 0."""
    geometry, hardware = program.geometry, program.hardware
    word = hardware.word_bytes
    out_words = geometry.out_words
    each = Pass(
        pixel_tiles=(0, geometry.pixel_tiles),
        channel_tiles=(0, geometry.channel_tiles),
        words=None,
        planes=(0, geometry.in_words),
        drain=True,
        order=1,
        layer_end=True,
        activation_base=0,
        output_base=0,
        weights=WeightBlock(weight_offset, 0, 0, (), 0, 0, 0),
        load_weights=True,
        load=Load(
            offset=load_offset,
            segments=1,
            words=geometry.in_words * geometry.height * geometry.width,
            stride_bytes=0,
            base=0,
            row_words=geometry.width,
            rows=geometry.height,
            bank=0,
            phase_y=0,
            phase_words=geometry.plane_lines * geometry.in_words,
        ),
        load_activations=True,
        store=Store(
            offset=store_offset,
            segments=out_words,
            words=geometry.out_height * geometry.out_width,
            stride_bytes=geometry.out_height * geometry.out_width * word,
            base=0,
            bank=0,
            first_row_words=geometry.out_width,
            row_words=geometry.out_width,
            first_lane=0,
            last_lane=(geometry.out_channels - 1) % geometry.feed,
        ),
    )
    beats = section_beats(program.payload(each), hardware)
    return replace(
        each,
        weights=WeightBlock(weight_offset, beats[0], beats[1], tuple(beats[2:]), 0, 0, 0),
    )


@pytest.mark.parametrize("pe", PES)
@pytest.mark.parametrize("seed", range(12))
def test_a_layer_in_one_pass_computes_what_golden_does(pe, seed):
    rng = np.random.default_rng(seed)
    layer, codes = random_layer(rng, pe)
    codes = codes[:1]
    shape = {"rows": int(rng.choice([1, 2, 3, 4])), "cols": int(rng.integers(1, 6))}
    shape |= {"feed": int(rng.choice([1, 2, 4])), "lanes": 1}
    hardware = hardware_from_dict(settings(pe, **shape))
    network = one_layer(layer, codes)
    program = StepProgram(lower(network, hardware).steps[0], hardware)
    each = single_pass(program, 0x2000, 0x10000, 0x20000)
    geometry = program.geometry

    memory = bytearray(1 << 18)
    block = encode_block(program.payload(each), hardware)
    values = program.descriptor(each, layer=0, program_end=True)
    for offset, data in (
        (0x1000, encode_descriptor(values, geometry.starts(0))),
        (0x2000, tensor_bytes(codes, geometry.feed, 8)),
        (0x20000, block),
    ):
        memory[offset : offset + len(data)] = data
    PaperMachine(hardware, memory).run(0x1000)

    out_shape = network.tensors[1].shape
    size = tensor_planes_bytes(out_shape, geometry.feed, 8)
    found = tensor_from_bytes(
        bytes(memory[0x10000 : 0x10000 + size]), out_shape, geometry.feed, 8, True
    )
    np.testing.assert_array_equal(found, run_golden(network, [codes]).outputs[0])


def test_weight_blocks_come_back_as_they_were():
    rng = np.random.default_rng(3)
    for name in ("mac4x4", "nhot2_4x4", "nhot2_parallel_4x4", "ternary4x4", "mac16x16"):
        hardware = load_hardware(name)
        pe = "ternary" if hardware.pe.kind == "ternary" else "parallel"
        layer, codes = random_layer(rng, pe)
        step = lower(one_layer(layer, codes), hardware).steps[0]
        program = StepProgram(step, hardware)
        payload = program.payload(single_pass(program, 0, 0, 0))
        data = encode_block(payload, hardware)
        assert decode_block(data, hardware) == payload
        assert len(data) == hardware.beat_bytes * sum(section_beats(payload, hardware))


# -- whole networks -------------------------------------------------------------------------------


def run_on_paper(compiled, inputs, lazy):
    """Memory after all programs of a network without host layers."""
    memory = bytearray(compiled.plan.total_bytes)
    image = dict(compiled.image)
    for tensor, codes in zip(compiled.network.inputs, inputs, strict=True):
        if tensor in compiled.plan.offsets:
            image[compiled.plan.offsets[tensor]] = compiled.encode_tensor(tensor, codes)
    for offset, data in image.items():
        memory[offset : offset + len(data)] = data
    for program in compiled.plan.programs:
        layers = PaperMachine(compiled.hardware, memory, lazy).run(program.descriptor_offset)
        assert sorted(set(layers)) == list(range(len(program_layers(program))))
    return memory


def assert_tensors_are_golden(compiled, memory, inputs):
    expected = run_golden(compiled.network, inputs, keep_tensors=True).tensors
    for tensor, offset in compiled.plan.offsets.items():
        size = compiled.tensor_size_bytes(tensor)
        found = compiled.decode_tensor(tensor, bytes(memory[offset : offset + size]))
        np.testing.assert_array_equal(found, expected[tensor], err_msg=f"tensor {tensor}")


def exact_accumulators(hardware, **buffers):
    """The same hardware with accumulators that never overflow, and other buffers."""
    bits = 48 if hardware.array.activation_bits == 16 else 32
    array = {"acc_bits": bits, "spill_interval": 0, "wide_acc_bits": 32}
    return changed_hardware(hardware, array=array, buffers=buffers)


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize("seed", range(24))
def test_whole_networks_compute_what_golden_does(seed, lazy):
    rng = np.random.default_rng(seed)
    hardware = exact_accumulators(random_hardware(rng))
    network, inputs = random_network(rng, hardware)
    compiled = compile_network(network, hardware)
    memory = run_on_paper(compiled, inputs, lazy)
    assert_tensors_are_golden(compiled, memory, inputs)


@pytest.mark.parametrize("seed", range(24))
def test_networks_cut_by_small_buffers_compute_what_golden_does(seed):
    rng = np.random.default_rng(seed)
    hardware = random_hardware(rng)
    network, inputs = random_network(rng, hardware)
    for weight_bytes in (512, 1024, 4096):
        small = exact_accumulators(
            hardware,
            weight_bytes=weight_bytes,
            activation_bytes=hardware.buffers.activation_bytes // 8,
            output_bytes=max(64, hardware.buffers.output_bytes // 8),
        )
        try:
            compiled = compile_network(network, small)
        except HardwareError:  # some layer's smallest pass is larger
            continue
        memory = run_on_paper(compiled, inputs, lazy=seed % 2 == 1)
        assert_tensors_are_golden(compiled, memory, inputs)


@pytest.mark.parametrize("preset", ["mac4x4", "nhot2_4x4", "mac16x16"])
def test_the_shipped_network_computes_what_golden_does(preset):
    network = load_network(ROOT / "napier" / "models" / "digits.npz")
    inputs = [shipped_digits()[0][:1]]
    compiled = compile_network(network, exact_accumulators(load_hardware(preset)))
    memory = run_on_paper(compiled, inputs, lazy=True)
    assert_tensors_are_golden(compiled, memory, inputs)


def test_what_is_in_memory_does_not_overlap():
    rng = np.random.default_rng(5)
    hardware = load_hardware("mac4x4")
    for _ in range(5):
        network, _ = random_network(rng, hardware, 8)
        compiled = compile_network(network, hardware)
        offsets = compiled.plan.offsets
        roots = {
            offsets[root] for root in compiled.plan.lowered.storage.values() if root in offsets
        }
        sizes = {offsets[tensor]: compiled.tensor_size_bytes(tensor) for tensor in offsets}
        spans = {(offset, offset + sizes[offset]) for offset in roots}
        spans |= {(offset, offset + len(data)) for offset, data in compiled.image.items()}
        ordered = sorted(spans)
        for (_, end), (begin, _) in pairwise(ordered):
            assert end <= begin
        assert ordered[-1][1] <= compiled.plan.total_bytes
        assert all(offset % 4096 == 0 for offset, _ in ordered)


def test_a_bias_beyond_the_post_processor_is_refused():
    layer, codes = random_layer(np.random.default_rng(2), "mac")
    channels = layer.weights.shape[0]
    wide = replace(layer, bias=np.full(channels, 1 << 31))
    with pytest.raises(HardwareError, match="a bias of magnitude 2147483648, but the post-proc"):
        compile_network(one_layer(wide, codes), hardware_from_dict(settings()))
