"""Passes of plans: an independent walk of rules M1 to M3, M6 and F3 and of the load and store rules
of docs/programming.md, over symbols in the place of codes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from math import ceil

import numpy as np
from random_layers import PES, random_hardware, random_layer

from golden.errors import HardwareError
from golden.network import (
    Conv2D,
    Network,
    Requantization,
    Tensor,
)
from rtl_models.random_networks import random_network
from simulator.hardware import changed_hardware, load_hardware
from simulator.plan import plan_network

ONE = Requantization(np.array([1 << 30], np.int32), np.array([1], np.int32))


def hardware_with(preset="mac4x4", **tables):
    return changed_hardware(load_hardware(preset), **tables)


def network_of(layer, shape):
    """One layer as a network."""
    images = len(shape) == 4
    if images:
        kernel, stride, padding = layer.weights.shape[1:3], layer.stride, layer.padding
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, layer.dilation, strict=True)]
        height = (shape[1] + padding.top + padding.bottom - reach[0]) // stride[0] + 1
        width = (shape[2] + padding.left + padding.right - reach[1]) // stride[1] + 1
        out_shape = (1, height, width, len(layer.weights))
    else:
        out_shape = (*shape[:-1], len(layer.weights))
    tensors = (Tensor("x", shape, "int8", 1.0), Tensor("y", out_shape, "int8", 1.0))
    return Network("one", tensors, (layer,), (0,), (1,))


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


# -- the walk -------------------------------------------------------------------------------------


class Walk:
    """Moves the names of words and lanes through the banks as the passes say.

    External memory has the name (first byte of the tensor, word) at each word of a tensor; output
    banks have the set of names that a code was computed from, of every lane.
    """

    def __init__(self, plan):
        self.hardware = plan.hardware
        self.rows, self.feed = plan.hardware.array.rows, plan.hardware.array.feed
        self.word_bytes = plan.hardware.word_bytes
        self.banks = [{} for _ in range(self.rows)]
        self.outputs = [{} for _ in range(self.rows)]
        self.stored = {}  # (byte offset of a word, lane): what was computed there
        self.weights = {}  # offset of the block that each beat or word is of
        self.before = None  # what the pass before read and wrote

    def run(self, step_plan, inputs):
        """Take the passes of the next step."""
        self.plan, self.inputs = step_plan, inputs
        self.step, self.geometry = step_plan.step, step_plan.step.geometry
        for each in step_plan.passes:
            loaded, written = self.load(each), set()
            if self.before is not None and each.order < 2:  # the pass before may run still
                assert not loaded & self.before[0]
            read = self.compute(each, written)
            if self.before is not None and each.order == 0:  # and be stored while this one runs
                assert not written & self.before[1]
            self.store(each, written)
            self.before = (read, written)

    # -- weights and activations

    def block_places(self, each):
        """(memory, beat or word) of everything in a pass's weight block."""
        block = each.weights
        words = block.parameter_beats // self.hardware.parameter_beats
        depth = max(block.stream_beats, default=0)
        return [
            *(("feed", block.load_feed + i) for i in range(block.feed_beats)),
            *(("parameters", block.load_parameters + i) for i in range(words)),
            *(("streams", block.load_streams + i) for i in range(depth)),
        ]

    def load(self, each):
        """Places that the loads of a pass write."""
        written = set()
        if each.load_weights:
            assert each.weights.offset % 4096 == 0
            for memory, i in self.block_places(each):
                self.weights[memory, i] = each.weights.offset
                written.add((memory, i))
        if each.load_activations:
            for offset, base in (
                (each.load.offset, each.load.base),
                (each.load.second_offset, each.load.second_base),
            ):
                if offset is not None:
                    written |= self.load_operand(each, offset, base)
        return written

    def load_operand(self, each, offset, base):
        """The load rule of docs/programming.md, section 3."""
        load, geometry = each.load, self.geometry
        sy, sx = geometry.stride
        in_words = each.planes[1] - each.planes[0]
        words = [
            offset + run * load.stride_bytes + i * self.word_bytes
            for run in range(load.segments)
            for i in range(load.words)
        ]
        assert load.words % load.row_words == 0
        written = set()
        for i, byte in enumerate(words):
            cw, within = divmod(i, load.rows * load.row_words)
            y, x = divmod(within, load.row_words)
            phase = ((y + load.phase_y) % sy) * sx + x % sx
            q = load.bank + (y + load.phase_y) // sy * geometry.pitch + x // sx
            address = base + phase * load.phase_words + q // self.rows * in_words + cw
            half = self.hardware.bank_words // self.hardware.halves
            assert each.load.base <= address < each.load.base + half
            place = (q % self.rows, address)
            assert place not in written
            self.banks[q % self.rows][address] = byte
            written.add(place)
        if words:
            assert cw + 1 == in_words
        return written

    # -- the engine

    def feed_words(self, each, tile):
        """(addr, rot, dy, dx, operand, cw) of the listed words of a channel tile (rule M3)."""
        geometry = self.geometry
        words = self.plan.tiles[tile].words
        words = words if each.words is None else words[slice(*each.words)]
        in_words = each.planes[1] - each.planes[0]
        for word in words.tolist():
            tap, cw = divmod(word, ceil(geometry.in_channels / self.feed))
            if self.step.mode in ("add", "mul"):
                yield tap * self.plan.plane_lines * in_words, 0, 0, 0, tap, 0
                continue
            (ky, kx), (sy, sx) = divmod(tap, geometry.kernel[1]), geometry.stride
            dy, dx = ky * geometry.dilation[0], kx * geometry.dilation[1]
            ty, tx = dy - geometry.pad_top, dx - geometry.pad_left
            q = ty // sy * geometry.pitch + tx // sx
            phase = (ty % sy) * sx + tx % sx
            line = phase * self.plan.plane_lines + q // self.rows
            yield line * in_words + cw - each.planes[0], q % self.rows, dy, dx, 0, cw

    def compute(self, each, written):
        """Check every word that the rows read; write the outputs. Places that were read."""
        geometry, rows = self.geometry, self.rows
        read = set(self.block_places(each))
        assert {self.weights[place] for place in read} == {each.weights.offset}
        in_words = each.planes[1] - each.planes[0]
        mask = (1 << (self.hardware.widths.address - 1)) - 1
        first_channel = (
            self.step.first_channel + self.plan.tiles[each.channel_tiles[0]].first_channel
        )
        last_tile = self.plan.tiles[each.channel_tiles[1] - 1]
        last_channel = self.step.first_channel + last_tile.first_channel + last_tile.channels
        skipped = first_channel // self.feed
        out_words = ceil(last_channel / self.feed) - skipped
        for tile in range(*each.channel_tiles):
            listed = list(self.feed_words(each, tile))
            channels = self.plan.tiles[tile]
            for i in range(each.pixel_tiles[1] - each.pixel_tiles[0]):
                for r in range(rows):
                    oy, ox = divmod((each.pixel_tiles[0] + i) * rows + r, geometry.pitch)
                    if oy >= geometry.out_height or ox >= geometry.out_width:
                        continue
                    for addr, rot, dy, dx, operand, cw in listed:
                        iy = oy * geometry.stride[0] - geometry.pad_top + dy
                        ix = ox * geometry.stride[1] - geometry.pad_left + dx
                        if not (0 <= iy < geometry.height and 0 <= ix < geometry.width):
                            continue
                        bank = (r + rot) % rows
                        address = each.activation_base + i * in_words + addr
                        address = (address + (in_words if bank < rot else 0)) & mask
                        source = self.inputs[operand]
                        word = (cw * geometry.height + iy) * geometry.width + ix
                        assert self.banks[bank][address] == source + word * self.word_bytes
                        read.add((bank, address))
                    for channel in range(channels.channels) if each.drain else ():
                        to = self.step.first_channel + channels.first_channel + channel
                        word = each.output_base + i * out_words + to // self.feed - skipped
                        half = self.hardware.output_bank_words // self.hardware.halves
                        assert each.output_base <= word < each.output_base + half
                        self.outputs[r][word, to % self.feed] = (oy, ox, to)
                        written.add(("out", r, word))
        return read

    # -- outputs

    def store(self, each, written):
        """The store rule of docs/programming.md, section 3."""
        store, geometry = each.store, self.geometry
        if store is None:
            assert not written
            return
        gap = geometry.pitch - geometry.out_width
        channels = self.plan.tiles[slice(*each.channel_tiles)]
        last = self.step.first_channel + channels[-1].first_channel + channels[-1].channels
        first = self.step.first_channel + channels[0].first_channel
        out_words = ceil(last / self.feed) - first // self.feed
        moved = set()
        for cw in range(store.segments):
            bank, base = store.bank, store.base + cw
            left = store.first_row_words
            for i in range(store.words):
                byte = store.offset + cw * store.stride_bytes + i * self.word_bytes
                low = store.first_lane if cw == 0 else 0
                high = store.last_lane if cw == store.segments - 1 else self.feed - 1
                for lane in range(low, high + 1):
                    assert (byte, lane) not in self.stored
                    self.stored[byte, lane] = self.outputs[bank].pop((base, lane))
                moved.add(("out", bank, base))
                step, left = 1, left - 1
                if left == 0:
                    step, left = 1 + gap, store.row_words
                base += (bank + step) // self.rows * out_words
                bank = (bank + step) % self.rows
        assert moved == written
        assert not any(self.outputs)


def check(plan):
    """Walk a plan; every output word is stored once, with what belongs there."""
    hardware = plan.hardware
    spans = []
    for program in plan.programs:
        walk = Walk(plan)
        spans.append((program.descriptor_offset, len(program.passes) * hardware.descriptor_bytes))
        for step_plan in program.steps:
            step, geometry = step_plan.step, step_plan.step.geometry
            walk.run(step_plan, [plan.offsets[i] for i in step.inputs])
            layout = plan.layouts[step.output]
            pixels = layout.height * layout.width
            expected = {}
            for channel in range(geometry.out_channels):
                to = step.first_channel + channel
                for y in range(geometry.out_height):
                    for x in range(geometry.out_width):
                        place = to // walk.feed * geometry.out_height * geometry.out_width
                        word = place + y * geometry.out_width + x
                        byte = plan.offsets[step.output] + word * walk.word_bytes
                        expected[byte, to % walk.feed] = (y, x, to)
            if step.geometry.out_height * step.geometry.out_width != pixels:
                assert geometry.out_channels == walk.feed  # element-wise: pixels are words
                assert len(expected) == pixels * layout.planes(walk.feed) * walk.feed
            assert walk.stored == expected
            walk.stored = {}
            spans.extend(
                (each.weights.offset, each.weights.beats * hardware.beat_bytes)
                for each in step_plan.passes
            )
        depths = {"feed": plan.memories.feed_beats, "streams": plan.memories.stream_beats}
        depths["parameters"] = plan.memories.parameter_words
        assert all(place < depths[memory] for memory, place in walk.weights)
    roots = {plan.lowered.storage[i] for i in plan.offsets}
    for i in roots:
        words = plan.layouts[i].words(hardware.array.feed)
        spans.append((plan.offsets[i], words * hardware.word_bytes))
    taken = sorted(set(spans))
    for (offset, size), (following, _) in itertools.pairwise(taken):
        assert offset % 4096 == 0
        assert offset + size <= following
    assert taken[-1][0] + taken[-1][1] <= plan.total_bytes


def test_every_word_that_a_tap_reads_is_loaded_and_every_output_stored_once():
    """Random layers with weights on random arrays with buffers from far too small to ample."""
    rng = np.random.default_rng(1)
    passes = chunks = refused = 0
    for i in range(160):
        pe = list(PES)[i % 4]
        layer, x = random_layer(rng, pe)
        hardware = random_hardware(rng, pe)
        try:
            plan = plan_network(network_of(layer, (1, *x.shape[1:])), hardware)
        except HardwareError as error:
            assert "raise it to at least" in str(error)  # noqa: PT017
            refused += 1
            continue
        check(plan)
        passes += len(plan.programs[0].passes)
        chunks += any(each.words is not None for each in plan.programs[0].passes)
    assert refused < 80
    assert passes > 500
    assert chunks > 5


def test_networks_of_all_layers_load_and_store_what_they_should():
    """Random networks of all kinds of layers, several steps in a program."""
    rng = np.random.default_rng(2)
    modes = set()
    for i in range(60):
        pe = list(PES)[i % 4]
        buffers = {"activation_bytes": 2048, "weight_bytes": 4096}
        hardware = changed_hardware(random_hardware(rng, pe), buffers=buffers)
        network, _ = random_network(rng, hardware, 6)
        try:
            plan = plan_network(network, hardware)
        except HardwareError:
            continue
        check(plan)
        modes |= {step.mode for step in plan.steps}
    assert modes >= {"array", "sum", "max", "add", "mul"}


def test_a_pass_may_begin_with_idle_tiles():
    """1 x 9 taps on rows of 12 pixels, R = 4: of the three tiles of a row two are idle.

    64 bytes of outputs are 8 words of a bank, 4 tiles of 2 words: the second strip begins with
    tile 4, and its first pixel is in tile 6.
    """
    machine = hardware_with(buffers={"output_bytes": 64, "double_buffer": False})
    plan = plan_network(network_of(conv(np.ones((4, 1, 9, 2))), (1, 3, 12, 2)), machine)
    check(plan)
    first, second = plan.programs[0].passes
    assert (first.pixel_tiles, second.pixel_tiles) == ((0, 4), (4, 7))
    assert (second.store.base, second.store.bank, second.store.words) == (4, 0, 4)
