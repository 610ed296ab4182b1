"""Legal random stimuli for the engine and the whole accelerator.

As in `rtl_models.stimuli`. The modules below these are subjects themselves and stay as they are:
what is mutated is how they are put together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from random import Random

from golden.errors import HardwareError
from rtl_models.dut import Dut
from rtl_models.mutants import Subject
from rtl_models.parameters import top_parameters
from rtl_models.random_networks import random_network
from rtl_models.sources import sources
from rtl_models.stimuli import MAC, RARELY, array_column, moods, scaled_group, word
from rtl_models.stimuli_control import (
    ABORT,
    BASE_HIGH,
    BASE_LOW,
    CONTROL,
    ENABLE,
    INTERRUPT,
    LAYER,
    PROGRAM,
    START,
    Host,
    legal_words,
)
from rtl_models.stimuli_transfers import far, load_configuration, store_configuration
from rtl_models.stimuli_units import ADD, MAX, MUL, SUM, pair_configuration
from rtl_models.top import Memory
from simulator.compiler import CompiledNetwork, compile_network
from simulator.hardware import Hardware, hardware_from_dict

ROWS, COLS, FEED, LANES, CODE_BITS, WEIGHT_BITS = 2, 2, 2, 1, 8, 5
X_BITS = CODE_BITS + 1
LANE_BITS = 1
GROUPS = ROWS // LANES


def below(module: str) -> tuple[str, ...]:
    """Names of all modules that a module is made of."""
    return tuple(path.stem for path in sources(module) if path.stem != module)


class Streams:
    """Entries of the array's columns in their memories, and what the memories put out.

    Parameters
    ----------
    rng : Random
    words : sequence of int
        Words of each channel tile.
    size : int
        Entries of a memory.
    """

    def __init__(self, rng: Random, words: Sequence[int], size: int) -> None:
        columns = [self._column(rng, words) for _ in range(COLS)]
        while max(map(len, columns)) > size:
            columns = [self._column(rng, words) for _ in range(COLS)]
        self.base = rng.randrange(size)
        self._entry_bits = 5 + LANE_BITS + WEIGHT_BITS
        noise = [rng.getrandbits(self._entry_bits) for _ in range(size)]
        self._memories = [list(noise) for _ in columns]
        for memory, column in zip(self._memories, columns, strict=True):
            for place, entry in enumerate(column):
                memory[(self.base + place) % size] = entry
        self._outputs = [0] * COLS

    @staticmethod
    def _column(rng: Random, words: Sequence[int]) -> list[int]:
        return [
            entry
            for count in words
            for entry in array_column(rng, count, FEED, LANE_BITS, WEIGHT_BITS)
        ]

    @property
    def output(self) -> int:
        """Output registers of all memories."""
        return sum(entry << self._entry_bits * c for c, entry in enumerate(self._outputs))

    def read(self, dut: Dut) -> None:
        """Take over what is read in this cycle."""
        bits = dut.ports.outputs["stream_addr"] // COLS
        for c, memory in enumerate(self._memories):
            if dut["stream_read"] >> c & 1:
                self._outputs[c] = memory[dut["stream_addr"] >> bits * c & (1 << bits) - 1]


def tile_lengths(rng: Random, mode: int, channel_tiles: int) -> list[int]:
    """Draw the words of each channel tile."""
    if mode in (ADD, MUL):
        return [2] * channel_tiles
    return [rng.choice([1, 2, 3, 4, 6, 12]) for _ in range(channel_tiles)]


def drive_core(dut: Dut, rng: Random, cycles: int) -> None:
    """Drive runs of the array, tiles in parts too, and of the vector unit, all at their paces."""
    widths = dut.ports.inputs
    size = 1 << widths["cfg_stream_base"]
    valids, readies = moods(rng), moods(rng)
    dut.cycle(rst=1, flush=0, begin_run=0, feed_valid=0, handoff_ready=0)
    while dut.cycles < cycles:
        mode = rng.choice([0, 0, 0, SUM, MAX, ADD, MUL])
        drains = int(rng.random() < 0.85)
        pixel_tiles, channel_tiles = (rng.randint(1, 3), rng.randint(1, 3)) if drains else (1, 1)
        parts = rng.choice([1, 1, 2]) if mode == 0 and drains else 1
        words = tile_lengths(rng, mode, channel_tiles * parts)
        streams = Streams(rng, words, size)
        stream = [
            n == length - 1
            for tile in range(channel_tiles)
            for _ in range(pixel_tiles)
            for length in words[tile * parts : (tile + 1) * parts]
            for n in range(length)
        ]
        fired, ends, offered, age, data = 0, pixel_tiles * channel_tiles * parts, False, 0, 0
        mask = 0
        extra = rng.randrange(8)
        while (fired < ends or extra) and age < 1500 and rng.random() >= RARELY / 5:
            extra -= fired == ends
            if not offered:
                offered = age > 1 and bool(stream) and rng.random() < next(valids)
                data, mask = rng.getrandbits(widths["feed_data"]), rng.getrandbits(ROWS)
            dut.cycle(
                rst=0,
                flush=age == 0,
                begin_run=age == 1,
                cfg_mode=mode,
                cfg_drain=drains,
                cfg_stream_base=streams.base,
                part_last=fired % parts == parts - 1,
                pixel_last=fired // parts % pixel_tiles == pixel_tiles - 1,
                run_last=fired == ends - 1,
                feed_valid=offered,
                feed_data=data,
                feed_mask=mask,
                feed_last=stream[0] if offered else rng.getrandbits(1),
                stream_entry=streams.output,
                handoff_ready=rng.random() < next(readies),
                result_col=rng.randrange(2),
            )
            streams.read(dut)
            if offered and dut["feed_ready"]:
                offered = False
                stream.pop(0)
            fired += dut["fire"]
            age += 1
        if fired < ends or rng.random() < 0.2:
            dut.cycle(rst=1, feed_valid=0)


def drive_engine(dut: Dut, rng: Random, cycles: int) -> None:
    """Drive runs of the array and of the vector unit with all of their memories."""
    widths = dut.ports.inputs
    feed_size, stream_size = 1 << widths["cfg_feed_base"], 1 << widths["cfg_stream_base"]
    coordinate_bits = widths["cfg_height"]
    low_bits = widths["feed_word"] - 1
    dut.cycle(rst=1, start=0)
    word = codes = parameters = 0
    while dut.cycles < cycles:
        mode = rng.choice([0, 0, 0, SUM, MAX, ADD, MUL])
        drains = int(rng.random() < 0.85)
        pixel_tiles, channel_tiles = (rng.randint(1, 3), rng.randint(1, 3)) if drains else (1, 1)
        lengths = tile_lengths(rng, mode, channel_tiles)
        streams = Streams(rng, lengths, stream_size)
        feed = [rng.getrandbits(low_bits) for _ in range(feed_size)]
        base = place = rng.randrange(feed_size)
        for length in lengths:
            place += length
            feed[(place - 1) % feed_size] |= 1 << low_bits
        limit = 1 << (coordinate_bits - 2)
        columns = FEED if mode else COLS
        low, high = sorted(rng.randint(-128, 127) for _ in range(2))
        values = pair_configuration(dut, rng, mode) | {
            "cfg_pixel_tiles": pixel_tiles,
            "cfg_channel_tiles": channel_tiles,
            "cfg_results": columns * GROUPS,
            "cfg_results_last": rng.randint(1, columns) * GROUPS,
            "cfg_feed_base": base,
            "cfg_stream_base": streams.base,
            "cfg_height": rng.randint(1, limit),
            "cfg_width": rng.randint(1, limit),
            "cfg_end_y": rng.randint(0, limit),
            "cfg_end_x": rng.randint(0, limit),
            "cfg_drain": drains,
            "cfg_minimum": low,
            "cfg_maximum": high,
            "cfg_output_zero_point": rng.randint(low, high),
            "cfg_input_zero_point": rng.randint(-128, 127),
        }
        for axis in "yx":
            starts = [rng.randint(-3, 9) % (1 << coordinate_bits) for _ in range(ROWS)]
            values[f"cfg_start_{axis}"] = sum(
                s << coordinate_bits * r for r, s in enumerate(starts)
            )
        for name in ("step_y", "step_x", "row_y", "wrap_x", "pitch_x"):
            far_bit = 1 << rng.randrange(4, coordinate_bits) if rng.random() < 0.1 else 0
            values[f"cfg_{name}"] = rng.randint(0, 12) + far_bit
        left = [n for n in widths if n.startswith("cfg_") and n not in values]
        values |= {name: rng.getrandbits(widths[name]) for name in left}
        values["rst"] = 0
        age, done = 0, False
        while not done and age < 1500 and rng.random() >= RARELY / 5:
            dut.cycle(
                start=age == 0 or rng.random() < 0.1,
                feed_word=word,
                act_code=codes,
                stream_entry=streams.output,
                param_word=parameters,
                **values,
                **dut.presets(rng, 0.05),
            )
            values = {}
            done = bool(dut["done"]) and age > 0
            streams.read(dut)
            if dut["feed_read"]:
                word = feed[dut["feed_addr"]]
            if dut["act_read"]:
                codes = rng.getrandbits(widths["act_code"])
            if dut["param_read"]:
                bias = rng.choice([0, rng.getrandbits(32), rng.randint(-200, 200)]) & 0xFFFFFFFF
                scale = rng.randrange(1 << rng.randrange(8, 31)) << 8
                shift = rng.randint(-12, 0)
                if rng.random() < 0.4:  # sums of pairs show all their bits
                    scale, shift = rng.randrange(1 << 30, 1 << 31) << 8, rng.randint(-2, 1)
                    bias = rng.randint(-50, 50) & 0xFFFFFFFF
                parameters = bias << 40 | scale | shift & 0xFF
            age += 1
        if not done:
            dut.cycle(rst=1, start=0)
        for _ in range(rng.randrange(3)):
            dut.cycle(rst=0, start=0)


# -- whole accelerator ----------------------------------------------------------------------------

FEED_BEATS, STREAM_BEATS, PARAM_WORDS = 64, 128, 64


@cache
def small_machine() -> Hardware:
    """Return an accelerator of few PEs and small buffers."""
    return hardware_from_dict(
        {
            "name": "small",
            "clock_hz": 1e8,
            "array": {"rows": ROWS, "cols": 3, "feed": FEED, "lookahead": 4, "acc_bits": 12}
            | {"acc_overflow": "saturate", "activation_bits": 8, "weight_bits": 4},
            "pe": {"kind": "mac", "terms": 1},
            "post": {"lanes": 2},
            "buffers": {"activation_bytes": 512, "weight_bytes": 4096, "output_bytes": 256}
            | {"double_buffer": True},
            "dram": {"bytes_per_cycle": 8, "latency_cycles": 3},
        }
    )


def compiled_networks(rng: Random) -> Iterator[tuple[CompiledNetwork, Memory]]:
    """Draw networks that the small machine holds, and their memories."""
    from numpy.random import default_rng

    machine = small_machine()
    while True:
        draws = default_rng(rng.getrandbits(32))
        network, inputs = random_network(draws, machine, 2)
        try:
            compiled = compile_network(network, machine)
        except HardwareError:
            continue
        memories = compiled.plan.memories
        needed = memories.feed_beats, memories.stream_beats, memories.parameter_words
        if any(n > m for n, m in zip(needed, (FEED_BEATS, STREAM_BEATS, PARAM_WORDS), strict=True)):
            continue
        memory = Memory(compiled)
        for index, codes in zip(network.inputs, inputs, strict=True):
            memory.write(index, codes)
        for constant in network.constants:
            memory.write(constant.tensor, constant.codes)
        yield compiled, memory


class Bus:
    """A memory on AXI4 that pauses at random; a rare beat answers with an error.

    Parameters
    ----------
    rng : Random
    data : bytes-like
    base : int
        Address of its first byte.
    fails : float
        Probability of an error.
    """

    def __init__(self, rng: Random, data: bytes, base: int, fails: float) -> None:
        self._rng, self._data, self._base, self._fails = rng, bytearray(data), base, fails
        self._paces = {name: moods(rng) for name in ("ar", "r", "aw", "w", "b")}
        self._reads: list[list[int]] = []
        self._writes: list[int] = []
        self._beats: list[tuple[int, int, int]] = []
        self._answers = 0
        self._beat: dict[str, int] = {}
        self._answer: dict[str, int] = {}

    def inputs(self, data_bits: int) -> dict[str, int]:
        """Draw the inputs of this cycle; what was shown and not taken stays."""
        rng, paces = self._rng, {name: next(pace) for name, pace in self._paces.items()}
        size = data_bits // 8
        if not self._beat and self._reads and rng.random() < paces["r"]:
            self._beat = {
                "rvalid": 1,
                "rdata": self._word(self._reads[0][0] - self._base, size),
                "rlast": self._reads[0][1] == 1,
                "rresp": rng.choice([2, 3]) if rng.random() < self._fails else 0,
            }
        if not self._answer and self._answers and rng.random() < paces["b"]:
            fails = rng.random() < self._fails
            self._answer = {"bvalid": 1, "bresp": rng.choice([2, 3]) if fails else 0}
        values: dict[str, int] = {
            f"{name}ready": rng.random() < paces[name] for name in ("ar", "aw", "w")
        }
        values |= self._beat or {"rvalid": 0, "rdata": rng.getrandbits(data_bits)}
        values |= self._answer or {"bvalid": 0}
        return {f"m_axi_{name}": value for name, value in values.items()}

    def _word(self, place: int, size: int) -> int:
        """Return what lies at a place; beyond the data it is noise."""
        if 0 <= place <= len(self._data) - size:
            return int.from_bytes(self._data[place : place + size], "little")
        return self._rng.getrandbits(8 * size)

    def take(self, dut: Dut, data_bits: int) -> None:
        """See what was transferred in this cycle."""

        def moved(channel: str) -> bool:
            ready = dut.value(f"m_axi_{channel}ready")
            return bool(dut[f"m_axi_{channel}valid"] and ready)

        size = data_bits // 8
        if self._beat and dut["m_axi_rready"]:
            self._beat = {}
            self._reads[0][0] += size
            self._reads[0][1] -= 1
            if not self._reads[0][1]:
                self._reads.pop(0)
        if self._answer and dut["m_axi_bready"]:
            self._answer = {}
            self._answers -= 1
        if moved("ar"):
            self._reads.append([dut["m_axi_araddr"], dut["m_axi_arlen"] + 1])
        if moved("aw"):
            self._writes.append(dut["m_axi_awaddr"])
        if moved("w"):
            self._beats.append((dut["m_axi_wdata"], dut["m_axi_wstrb"], dut["m_axi_wlast"]))
        while self._writes and self._beats:
            data, strobes, last = self._beats.pop(0)
            place = self._writes[0] - self._base
            for lane in range(size):
                if strobes >> lane & 1 and 0 <= place + lane < len(self._data):
                    self._data[place + lane] = data >> 8 * lane & 255
            self._writes[0] += size
            if last:
                self._writes.pop(0)
                self._answers += 1


DESCRIPTOR_BYTES = 384
"""Of a machine of two rows."""


def changed(rng: Random, data: bytes, program: int) -> bytes:
    """Change some bits of one of a program's descriptors, or put others in their place."""
    places = [program]
    while not data[places[-1] + 8] & 8:  # program_end
        places.append(places[-1] + DESCRIPTOR_BYTES)
    place, result = rng.choice(places), bytearray(data)
    kind = rng.random()
    if kind < 0.6:  # a bit in each of several words
        for n in range(4, 64 + ROWS):
            if rng.random() < 0.1:
                result[place + 4 * n + rng.randrange(4)] ^= 1 << rng.randrange(8)
    elif kind < 0.75:
        words = [word & 0xFFFFFFFF for word in legal_words(rng, _FIELDS)]
        result[place : place + 4 * len(words)] = b"".join(n.to_bytes(4, "little") for n in words)
    else:
        for _ in range(rng.choice([1, 1, 3])):
            result[place + rng.randrange(8, 4 * (64 + ROWS))] ^= 1 << rng.randrange(8)
    return bytes(result)


# Numbers, offsets and places of a descriptor: a program with others still ends, with other codes.
_VALUES = (8, 9, *range(14, 33), 38, 41, 49, 52, 55, *range(64, 64 + ROWS))
_IMAGE = (*range(14, 23), *range(64, 64 + ROWS))
# Beats or words of a memory, and the fields which say where in it something lies.
_MOVES = (
    (FEED_BEATS, (35, 1), (6, 2)),
    (STREAM_BEATS, (37, 1), (7, 8)),
    (PARAM_WORDS, (36, 1), (9, 1)),
    (128, (42, 1), (50, 1), (10, 1)),
    (64, (56, 1), (11, 1)),
)


def other_program(rng: Random, data: bytes, program: int) -> bytes:
    """Change a program so that it mostly runs on: values, places, and what its blocks hold."""
    result, places = bytearray(data), [program]
    while not data[places[-1] + 8] & 8:  # program_end
        places.append(places[-1] + DESCRIPTOR_BYTES)
    rate = rng.choice([0.0, 0.1, 0.3, 1.0])
    resizes, pairs, rescales = rng.random() < 0.4, rng.random() < 0.5, rng.random() < 0.4
    rescales = rescales or (pairs and rng.random() < 0.6)
    distances: dict[int, int] = {}
    for most, *fields in _MOVES:
        distance = rng.randrange(most) if rng.random() < 0.4 else 0
        distances |= {n: factor * distance for n, factor in fields}
    transferred = rng.choice(places) if rng.random() < 0.5 else -1
    for place in places:
        words = [int.from_bytes(data[place + 4 * n :][:4], "little") for n in range(64 + ROWS)]
        drawn = legal_words(rng, _FIELDS)
        for n in _VALUES:
            if rng.random() < rate:
                words[n] = drawn[n]
        for n in (38, 41, 49, 52, 55):
            words[n] -= words[n] % FEED  # of whole words
        mode = words[2] >> 10 & 7
        if mode and pairs:
            words[2] ^= (mode ^ rng.choice([ADD, ADD, MUL])) << 10
        if rescales:
            bits = rng.choice([8, 14, 32])  # of few, sums of operands show all
            words[28], words[29], words[31] = rng.randrange(32), word(rng, bits), word(rng, bits)
            words[30], words[32] = rng.randint(-8, 8), rng.randint(-8, 8)
            if rng.random() < 0.5:  # no clamp but that of the codes
                words[25], words[26] = -256, 255
            other_parameters(rng, result, words)
        for n, distance in distances.items():
            words[n] += distance
        words[6], words[7] = words[6] % (2 * FEED_BEATS), words[7] % (8 * STREAM_BEATS)
        if resizes:
            for n in _IMAGE:
                words[n] = rng.randrange(-9, 40)
            bounded = rng.choice([21, 22]) if rng.random() < 0.5 else rng.choice(_IMAGE)
            words[bounded] += 1 << rng.choice([6, rng.randrange(4, 19)])
        if place == transferred:
            other_transfers(rng, words)
        result[place : place + 4 * len(words)] = b"".join(
            (n & 0xFFFFFFFF).to_bytes(4, "little") for n in words
        )
    return bytes(result)


def many_tiles(rng: Random, data: bytes, program: int) -> bytes:
    """Give the first pass of a program some thousand pixel tiles at most."""
    place, bit = program + 4 * 4, 1 << rng.choice([9, 10, 11, 11])
    tiles = int.from_bytes(data[place : place + 4], "little")
    return data[:place] + (tiles | bit).to_bytes(4, "little") + data[place + 4 :]


def endless(_: Random, data: bytes, program: int) -> bytes:
    """Give the first pass of a program feed words without ends, as many as the memory holds."""
    fields = [int.from_bytes(data[program + 4 * n :][:4], "little") for n in (33, 34)]
    beats = [data[fields[0] + 8 * n :][:8] for n in range(fields[1])]
    while beats and not beats.pop(0)[7] & 128:
        pass
    place = -(-len(data) // 4096) * 4096
    block = bytes(8 * FEED_BEATS - 1) + b"\x80" + b"".join(beats)
    result = bytearray(data.ljust(place, b"\0") + block)
    for n, value in ((6, 0), (33, place), (34, FEED_BEATS + len(beats)), (35, 0)):
        result[program + 4 * n : program + 4 * n + 4] = value.to_bytes(4, "little")
    return bytes(result)


def other_parameters(rng: Random, data: bytearray, words: Sequence[int]) -> None:
    """Put parameters in a weight block that show all their bits: sums are large and beside ties."""
    place, end = words[33], words[33] + 8 * words[34]
    while place < end and not data[place + 7] & 128:  # the section of feed words
        place += 8
    shift, last = 0, place + 8 >= end
    payload = 0
    while not last:
        place += 8
        last = bool(data[place + 7] & 128) or place + 8 >= end
        if not shift:
            group = scaled_group(rng, words[2] >> 7 & 7, 32)
            if (words[2] >> 10 & 7) >= ADD and rng.random() < 0.6:  # operands themselves
                group = {"in_acc": rng.randint(-50, 50), "in_bias": 0}
                group |= {"in_multiplier": rng.randrange(1 << 30, 1 << 31)}
                group |= {"in_shift": rng.randint(-3, 1)}
            bias = group["in_acc"] + group["in_bias"] & 0xFFFFFFFF
            multiplier = group["in_multiplier"] & 0xFFFFFFFF
            payload = bias << 40 | multiplier << 8 | group["in_shift"] & 255
        value = payload >> shift & (1 << 63) - 1 | (data[place + 7] >> 7) << 63
        data[place : place + 8] = value.to_bytes(8, "little")
        shift = 63 - shift  # a parameter takes two beats


def other_transfers(rng: Random, words: list[int]) -> None:
    """Draw another load, store, or place of a weight block, or a number of tiles with a far bit."""
    if words[2] & 16 and rng.random() < 0.1:
        words[4] += 1 << rng.randrange(3, 16)
    if rng.random() < 0.2:
        words[rng.choice([35, 36, 37])] += rng.choice([-1, 1]) << rng.randrange(32)
    fields = ("segments", "words", "stride", "base", "row_words", "rows")
    kind = rng.random()
    if words[39] and kind < 0.5:
        load = load_configuration(rng, ROWS, FEED, 128)
        for n, name in enumerate(fields, 39):
            words[n] = load[f"cfg_load_{name}"]
        for n in (39, 40, 43, 44):
            if rng.random() < 0.15:
                words[n] = rng.choice([far(rng), rng.getrandbits(32) | 1])
        words[45] = load["cfg_load_bank"] << 16 | load["cfg_load_stride_y"] << 8
        words[45] |= load["cfg_load_stride_x"]
        words[46], words[48] = load["cfg_load_phase_words"], load["cfg_load_pitch_words"]
        words[47] = load["cfg_load_phase_y"] << 16 | load["cfg_load_pitch_banks"]
        words[50] = load["cfg_second_load_base"]
    elif words[53] and kind < 0.9:
        store = store_configuration(rng, ROWS, FEED, 64)
        image = ("bank", "first_row_words", "row_words", "gap_banks", "gap_words")
        for n, name in enumerate((*fields[:4], *image), 53):
            words[n] = store[f"store_{name}"]
        for n in (53, 54, 58, 59):
            if rng.random() < 0.3:
                words[n] = rng.choice([far(rng), rng.getrandbits(32) | 1])
        words[62] = store["store_last_lane"] << 8 | store["store_first_lane"]


_KINDS = ("long", "compiled", "other", "wrong")  # of programs
_UP_TO = (0.04, 0.1, 0.85, 1.0)


def drive_top(dut: Dut, rng: Random, cycles: int, *, as_compiled: bool = False) -> None:
    """Run random networks from a host; memories pause, some programs are wrong, cut off or fail.

    Programs `as_compiled` read nothing that was not written, so that simulators that know unknown
    bits see none.
    """
    data_bits = dut.ports.inputs["m_axi_rdata"]
    queue: list[tuple[int, int, int]] = []

    def written(_: Random) -> tuple[int, int, int] | None:
        return queue.pop(0) if queue else None

    quiet = {f"s_axi_{channel}valid": 0 for channel in ("aw", "w", "ar")}
    quiet |= {"m_axi_rvalid": 0, "m_axi_bvalid": 0}
    networks = compiled_networks(rng)
    host = Host(rng, written)
    dut.cycle(rst=1, s_axi_bready=0, s_axi_rready=0, **quiet)
    compiled, memory = next(networks)
    while dut.cycles < cycles:
        base = rng.getrandbits(28) << 12
        program, data = compiled.plan.programs[0].descriptor_offset, memory.data.tobytes()
        kind = "compiled" if as_compiled else rng.choices(_KINDS, cum_weights=_UP_TO)[0]
        long, wrong = kind == "long", kind == "wrong"
        if long:
            data = rng.choice([many_tiles, many_tiles, endless])(rng, data, program)
        elif kind == "other":
            data = other_program(rng, data, program)
        elif wrong:
            data = changed(rng, data, program)
        bus = Bus(rng, data, base, 0.001 if rng.random() < 0.2 else 0.0)
        writes = [(INTERRUPT, 3), (BASE_LOW, base & 0xFFFFFFFF), (BASE_HIGH, base >> 32)]
        writes += [(PROGRAM, program), (ENABLE, 3), (CONTROL, START)]
        queue += [(offset, value, 15) for offset, value in writes]
        patience = rng.choice([1000 if wrong else 3000] * 3 + [rng.randrange(2000)])
        patience = 20_000 if long else patience
        presets = 0.0 if long else rng.choice([0.0, 0.0, 0.003, 0.03])
        by_reset, begun, ended, age = rng.getrandbits(1), False, 0, 0
        while ended < 150 and age < patience + (0 if by_reset else 1000):
            if age == patience:
                queue.append((CONTROL, ABORT, 15))
            inputs = bus.inputs(data_bits) | host.inputs()
            dut.cycle(rst=0, **inputs, **dut.presets(rng, presets))
            bus.take(dut, data_bits)
            host.take(dut)
            begun = begun or not (queue or dut["irq"])
            if begun and dut["irq"] and not ended:
                queue += [(LAYER, rng.randrange(4), 15) for _ in range(2)]
            ended += ended > 0 or (begun and bool(dut["irq"]))
            age += 1
        queue.clear()
        if ended < 150:
            dut.cycle(rst=1)
            host.reset()
        if rng.random() < 0.4:
            compiled, memory = next(networks)


_HOST = {"s_axi_rdata": "s_axi_rvalid", "s_axi_rresp": "s_axi_rvalid"}
_HOST |= {"s_axi_bresp": "s_axi_bvalid"}
_COUNTERS = ("run_counters", "overflow_counters")
_TOP = top_parameters(small_machine(), FEED_BEATS, STREAM_BEATS, PARAM_WORDS) | {"LAYERS": 4}
_FIELDS = _TOP | {"COORD_W": 20, "FEED_ADDR_W": 7, "STREAM_ADDR_W": 10, "CHANNEL_W": 7}
# Blocks are loaded and pitches used of descriptors without an error (section 5 of
# docs/programming.md); words are parts of beats: each has one part, from the first load on.
_LOADS = (
    f"!(op_start && op_kind == 1 && loading[{33 * 32 + 11}:{33 * 32}] != 0)"
    " && !(\\u_dma.beat_valid_q && \\u_dma.kind_q >= 2 && (\\u_dma.kind_q > 3"
    f" || loading[{47 * 32 + 15}:{47 * 32}] >= {ROWS})) && \\u_dma.u_activations.part_q == 0"
)
_ENGINE = {"ROWS": ROWS, "COLS": COLS, "FEED": FEED, "DEPTH": 2, "PE_KIND": MAC}
_ENGINE |= {"CODE_W": CODE_BITS, "WEIGHT_W": WEIGHT_BITS, "ACC_BITS": 12, "EVENTS_W": 3}
_ENGINE |= {"SATURATE": 1, "TAP_W": 2, "STREAM_ADDR_W": 6}

SUBJECTS = (
    Subject(
        "engine_core",
        "engine_core",
        _ENGINE,
        drive_core,
        legal="cfg_mode <= 3'd4",
        gates={"stream_addr": "stream_read[]"},
        kept=below("engine_core"),
        deep_proofs=False,
    ),
    Subject(
        "layer_engine",
        "layer_engine",
        _ENGINE
        | {"LANES": LANES, "FEED_ADDR_W": 5, "ACT_ADDR_W": 4, "PARAM_ADDR_W": 4, "OUT_ADDR_W": 4}
        | {"COORD_W": 8, "TILE_W": 4},
        drive_engine,
        legal="cfg_mode <= 3'd4",
        gates={"stream_addr": "stream_read[]", "feed_addr": "feed_read", "act_addr": "act_read"}
        | {"param_addr": "param_read", "out_addr": "out_write", "out_data": "out_write"},
        # The counters are mutated with it, since those of modules below cannot be preset.
        kept=tuple(name for name in below("layer_engine") if name not in ("drain", *_COUNTERS)),
        deep_proofs=False,
        presets=("compute_q", "fill_q", "stall_feed_q", "drain_q", "events_q", "outputs_q"),
        matters={"ended_q": "busy"},
    ),
    Subject(
        "napier_top",
        "napier_top",
        _TOP,
        drive_top,
        gates=_HOST
        | {"m_axi_araddr": "m_axi_arvalid", "m_axi_arlen": "m_axi_arvalid"}
        | {"m_axi_awaddr": "m_axi_awvalid", "m_axi_awlen": "m_axi_awvalid"}
        | {"m_axi_wdata": "m_axi_wvalid", "m_axi_wstrb": "m_axi_wvalid"}
        | {"m_axi_wlast": "m_axi_wvalid"},
        kept=below("napier_top"),
        deep_proofs=False,
        contract=_LOADS,
        opened=("dma", *below("dma")),
        presets_below=("waited_q",)
        + tuple(f"u_counters.{name}_q" for name in ("compute", "fill", "stall_feed", "drain"))
        + ("u_overflow.events_q", "u_overflow.outputs_q"),
        # Counters of transfers, and what they begin with.
        watched_below=("runs_left_q", "run_left_q", "row_left_q", "rows_left_q", "left_q")
        + ("words_q", "first_row_words_q", "row_words_q", "u_weights.index_q"),
    ),
)
