"""Plain-Python reading of docs/programming.md: runs a program from its memory image.

It interprets descriptors, weight blocks and planes bit by bit, as the document tells them, and
shares with the package only the widths of the words and the table of descriptor fields;
requantization is golden's. There is no time here, but two orders of events: a `lazy` engine runs as
late as the sequence of transfers allows (rule T4), an eager one as early. A program whose passes
use one another's memory gives wrong bits in one of the two.
"""

from __future__ import annotations

import numpy as np

from golden.arithmetic import requantize
from golden.network import Requantization
from simulator.descriptors import MAGIC, MODES, decode_descriptor
from simulator.program import ROUNDINGS

NOTHING = 1 << 40
"""Content of memories that nothing was written to."""


class PaperMachine:
    """One machine; `memory` is a bytearray from the base address on."""

    def __init__(self, hardware, memory, lazy=False):
        array, widths, beat_bytes = hardware.array, hardware.widths, hardware.beat_bytes
        self.hardware, self.beat_bytes = hardware, beat_bytes
        self.memory, self.lazy = memory, lazy
        self.rows, self.cols, self.feed = array.rows, array.cols, array.feed
        self.code_bytes = array.activation_bits // 8
        self.word_bytes = self.feed * self.code_bytes
        payload = 8 * beat_bytes - 1
        self.feed_places, self.entry_places = payload // widths.feed, payload // widths.entry
        weight_bytes = hardware.buffers.weight_bytes
        self.feed_memory, self.parameter_memory = {}, {}
        self.stream_memories = [{} for _ in range(self.cols)]
        self.feed_beats = weight_bytes // beat_bytes
        self.stream_beats = weight_bytes // (beat_bytes * self.cols)
        self.parameter_words = 8 * weight_bytes // widths.parameter
        bank = self.rows * self.word_bytes
        self.in_bank_words = hardware.buffers.activation_bytes // bank
        self.out_bank_words = hardware.buffers.output_bytes // bank
        self.activations = np.full((self.rows, self.in_bank_words, self.feed), NOTHING)
        self.outputs = np.full((self.rows, self.out_bank_words, self.feed), NOTHING)
        self.sums = np.zeros((self.rows, self.cols), np.int64)
        self.stored = np.zeros(len(memory), bool)

    def run(self, program_offset):
        """Run a program; the layer index of each of its passes."""
        descriptors = []
        offset = program_offset
        before = None
        while True:
            size = -(-4 * (64 + self.rows) // 128) * 128
            fields, starts = decode_descriptor(
                bytes(self.memory[offset : offset + size]), self.rows
            )
            assert fields["magic"] == MAGIC
            assert fields["machine"] == self.hardware.machine_id
            descriptors.append(fields)
            now = (fields, starts)
            order = fields["order"]
            steps = {
                0: ("weights", "activations", "store"),
                1: ("weights", "store", "activations"),
                2: ("store", "weights", "activations"),
            }[order]
            for step in steps:
                if step == "weights":
                    self.load_weights(fields)
                elif step == "activations":
                    self.load_activations(fields)
                elif before is not None:
                    if order == 0 and not self.lazy:
                        self.compute(*now)
                    if self.lazy:
                        self.compute(*before)
                    self.store(before[0])
            if not self.lazy and (order != 0 or before is None):
                self.compute(*now)
            before = now
            if fields["program_end"]:
                break
            offset += size
        if self.lazy:
            self.compute(*before)
        self.store(before[0])
        return [fields["layer"] for fields in descriptors]

    # -- loads and stores ------------------------------------------------------------------------

    def load_weights(self, d):
        size = self.beat_bytes
        flag = 1 << (8 * size - 1)
        section, index = 0, 0
        widths = self.hardware.widths
        beats_each = -(-widths.parameter // (8 * size - 1))
        for beat in range(d["weight_beats"]):
            begin = d["weight_offset"] + beat * size
            data = int.from_bytes(self.memory[begin : begin + size], "little")
            payload = data & (flag - 1)
            if section == 0:
                address = d["load_feed"] + index
                assert address < self.feed_beats, "feed memory too small"
                self.feed_memory[address] = payload
            elif section == 1:
                word, part = divmod(index, beats_each)
                address = d["load_parameters"] + word
                assert address < self.parameter_words, "parameter memory too small"
                kept = self.parameter_memory.get(address, 0) if part else 0
                self.parameter_memory[address] = kept | payload << part * (8 * size - 1)
            else:
                address = d["load_streams"] + index
                assert address < self.stream_beats, "stream memories too small"
                self.stream_memories[section - 2][address] = payload
            index += 1
            if data & flag:
                section, index = section + 1, 0
        if d["weight_beats"]:
            expected = 2 if d["mode"] else 2 + self.cols
            assert (section, index) == (expected, 0), "sections do not end with the block"

    def load_activations(self, d):
        if not d["load_segments"]:
            return
        self.load_operand(d, d["load_offset"], d["load_base"])
        if MODES[d["mode"]] in ("add", "mul"):
            self.load_operand(d, d["second_load_offset"], d["second_load_base"])

    def load_operand(self, d, offset, base):
        sy, sx = d["load_stride_y"], d["load_stride_x"]
        pitch = d["load_pitch_words"] // d["in_words"] * self.rows + d["load_pitch_banks"]
        plane_words = d["load_rows"] * d["load_row_words"]
        count = 0
        for segment in range(d["load_segments"]):
            for i in range(d["load_words"]):
                begin = offset + segment * d["load_stride"] + i * self.word_bytes
                cw, rest = divmod(count, plane_words)
                y, x = divmod(rest, d["load_row_words"])
                phase = (y + d["load_phase_y"]) % sy * sx + x % sx
                q = d["load_bank"] + x // sx + (y + d["load_phase_y"]) // sy * pitch
                line, bank = divmod(q, self.rows)
                address = base + phase * d["load_phase_words"] + line * d["in_words"] + cw
                assert 0 <= address < self.in_bank_words, "a load goes beyond a bank"
                self.activations[bank, address] = self.codes(begin, d["input_signed"])
                count += 1
        assert count == plane_words * d["in_words"]

    def codes(self, begin, signed):
        data = self.memory[begin : begin + self.word_bytes]
        kind = f"<{'i' if signed else 'u'}{self.code_bytes}"
        return np.frombuffer(bytes(data), kind).astype(np.int64)

    def store(self, d):
        for segment in range(d["store_segments"]):
            bank, address = d["store_bank"], d["store_base"] + segment
            left = d["store_first_row_words"]
            for i in range(d["store_words"]):
                begin = d["store_offset"] + segment * d["store_stride"] + i * self.word_bytes
                for lane, code in enumerate(self.outputs[bank, address]):
                    below = segment == 0 and lane < d["store_first_lane"]
                    last = segment == d["store_segments"] - 1
                    if below or (last and lane > d["store_last_lane"]):
                        continue
                    assert code != NOTHING, "an output that was never computed is stored"
                    at = begin + lane * self.code_bytes
                    mask = (1 << 8 * self.code_bytes) - 1
                    value = (int(code) & mask).to_bytes(self.code_bytes, "little")
                    self.memory[at : at + self.code_bytes] = value
                    self.stored[at : at + self.code_bytes] = True
                left -= 1
                bank += 1
                if left == 0:
                    left = d["store_row_words"]
                    bank += d["store_gap_banks"]
                    address += d["store_gap_words"]
                while bank >= self.rows:
                    bank -= self.rows
                    address += d["out_words"]

    # -- runs ------------------------------------------------------------------------------------

    def compute(self, d, starts):
        mode = MODES[d["mode"]]
        feed = self.words(self.feed_memory, d["feed_base"], self.feed_places, "feed")
        streams = []
        if mode == "array":
            streams = [
                self.words(memory, d["stream_base"], self.entry_places, "entry")
                for memory in self.stream_memories
            ]
        channel = d["first_channel"]
        groups = self.hardware.drain_groups
        for tile in range(d["channel_tiles"]):
            last_tile = tile == d["channel_tiles"] - 1
            results = d["results_last"] if last_tile else d["results"]
            used = results // groups
            words = until_last(feed, self.hardware.widths.feed)
            columns = [until_last(stream, self.hardware.widths.entry) for stream in streams]
            for pixel_tile in range(d["pixel_tiles"]):
                ys, xs, exists = self.coordinates(d, starts, pixel_tile)
                operands = [self.operands(d, word, pixel_tile, ys, xs, exists) for word in words]
                if mode == "array":
                    for column, entries in enumerate(columns):
                        self.sums[:, column] += self.column_sum(entries, operands)
                    sums = self.sums[:, :used]
                    assert d["drain"] or (d["channel_tiles"], d["pixel_tiles"]) == (1, 1)
                    if not d["drain"]:
                        return
                    bits = self.hardware.result_bits
                    half = 1 << (bits - 1)
                    sums = (sums + half) % (2 * half) - half
                else:
                    sums = self.reduce(d, mode, operands)[:, :used]
                self.post_process(d, sums, channel, pixel_tile, exists)
                self.sums[:] = 0
            channel += used

    def words(self, memory, address, in_beat, kind):
        """Words from a `{beat, place}` address on, without an end."""
        width = getattr(self.hardware.widths, kind)
        place_bits = (in_beat - 1).bit_length()
        beat, place = address >> place_bits, address & ((1 << place_bits) - 1)
        while True:
            yield memory[beat] >> place * width & ((1 << width) - 1)
            place += 1
            if place == in_beat:
                beat, place = beat + 1, 0

    def coordinates(self, d, starts, steps):
        """Input coordinates of every row's tap (0, 0), and whether its pixel exists."""
        ys, xs, exists = [], [], []
        for y, x in starts:
            for _ in range(steps):
                x += d["step_x"]
                y += d["step_y"]
                if x >= d["pitch_x"]:
                    x -= d["wrap_x"]
                    y += d["row_y"]
            ys.append(y)
            xs.append(x)
            exists.append(y < d["end_y"] and x < d["end_x"])
        return ys, xs, exists

    def operands(self, d, word, pixel_tile, ys, xs, exists):
        """(R, F) operands minus the zero point, and (R,) whether the tap counts."""
        widths = self.hardware.widths
        dx = word & 255
        dy = word >> 8 & 255
        rot = word >> 16 & ((1 << widths.rot) - 1)
        addr = word >> (16 + widths.rot) & ((1 << widths.address) - 1)
        values = np.zeros((self.rows, self.feed), np.int64)
        counts = np.zeros(self.rows, bool)
        # Addresses are taken modulo the address width, which a power of two holds.
        modulus = 1 << (widths.address - 1)
        for row in range(self.rows):
            y, x = ys[row] + dy, xs[row] + dx
            if not (exists[row] and 0 <= y < d["height"] and 0 <= x < d["width"]):
                continue
            bank = (row + rot) % self.rows
            line = d["activation_base"] + pixel_tile * d["in_words"] + addr
            line += d["in_words"] if bank < rot else 0
            values[row] = self.activations[bank, line % modulus] - d["input_zero_point"]
            counts[row] = True
        return values, counts

    def column_sum(self, entries, operands):
        widths = self.hardware.widths
        total = np.zeros(self.rows, np.int64)
        at = 0
        for entry in entries:
            code = entry & ((1 << widths.code) - 1)
            lane = entry >> widths.code & ((1 << widths.lane) - 1)
            if code:
                picked = operands[at][0][:, lane]
                assert (np.abs(picked) < NOTHING // 2).all(), "an operand that was never loaded"
                total += picked * self.weight(code)
            at += entry >> (widths.code + widths.lane) & 15
        assert at == len(operands), "a stream that does not end with the tile's last word"
        return total

    def weight(self, code):
        bits = self.hardware.code_bits
        kind = self.hardware.pe.kind
        if kind != "shift_add":
            return code - (1 << bits) if code >> (bits - 1) else code
        total = 0
        while code:
            if code & 32:
                total += (-1 if code & 16 else 1) << (code & 15)
            code >>= 6
        return total

    def reduce(self, d, mode, operands):
        values = np.stack([value for value, _ in operands])
        counts = np.stack([count for _, count in operands])[:, :, None]
        exists = counts.any(axis=0)
        if mode == "max":
            return np.where(exists, np.where(counts, values, -NOTHING).max(axis=0), 0)
        if mode == "sum":
            return values.sum(axis=0)
        assert len(operands) == 2
        first = values[0]
        second = np.where(counts[1], values[1] + d["second_offset"], 0)
        if mode == "mul":
            return first * second
        shift = d["left_shift"]
        rounding = ROUNDINGS[d["rounding"]]
        return sum(
            requantize(
                np.where(np.abs(x) < NOTHING // 2, x, 0) << shift,
                rule(d[f"{name}_multiplier"], d[f"{name}_shift"], rounding),
            )
            for name, x in (("first", first), ("second", second))
        )

    def post_process(self, d, sums, channel, pixel_tile, exists):
        post = self.hardware.post_bits
        lanes = self.feed
        for column in range(sums.shape[1]):
            at = d["parameter_base"]
            if not d["shared_parameter"]:
                at += channel + column
            word = self.parameter_memory[at % (1 << (self.parameter_words - 1).bit_length())]
            shift = signed(word & 255, 8)
            multiplier = signed(word >> 8 & 0xFFFFFFFF, 32)
            bias = signed(word >> 40 & ((1 << post) - 1), post)
            acc = [signed((int(v) + bias) % (1 << post), post) for v in sums[:, column]]
            kept = [value if ok else 0 for value, ok in zip(acc, exists, strict=True)]
            scaled = requantize(kept, rule(multiplier, shift, ROUNDINGS[d["rounding"]]))
            codes = np.clip(scaled + d["output_zero_point"], d["minimum"], d["maximum"])
            word_index, lane = divmod(channel + column, lanes)
            address = d["output_base"] + pixel_tile * d["out_words"] + word_index
            for row in range(self.rows):
                if exists[row]:
                    assert 0 <= address < self.out_bank_words, "a result beyond the output memory"
                    self.outputs[row, address, lane] = codes[row]


def until_last(words, width):
    """Words up to the one whose highest bit is set."""
    taken = []
    for word in words:
        taken.append(word)
        if word >> (width - 1):
            return taken
    raise AssertionError("a tile without end")


def signed(value, bits):
    """Two's complement of the low `bits` bits."""
    return value - (1 << bits) if value >> (bits - 1) & 1 else value


def rule(multiplier, shift, rounding):
    """Requantization of one channel."""
    return Requantization(np.array([multiplier], np.int32), np.array([shift], np.int32), rounding)
