"""What the DMA does, and when: docs/programming.md sections 1 to 3 and rules T6 to T9, in loops.

Written from the text alone; it shares nothing with `simulator` or the Verilog but the names of
fields. Memories are dicts that begin empty: unknown until written.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# fmt: off
FIELDS = (
    "gap", "kind", "abort_at", "reset_at", "abort_on_error", "base_low", "base_high",
    "descriptor_offset", "weight_offset", "weight_beats", "load_feed", "load_parameters",
    "load_streams", "vector", "load_offset", "load_segments", "load_words", "load_stride",
    "load_base", "load_row_words", "load_rows", "load_stride_x", "load_stride_y", "load_bank",
    "load_phase_words", "load_pitch_banks", "load_phase_y", "load_pitch_words",
    "second_load_offset", "second_load_base", "in_words", "store_offset", "store_segments",
    "store_words", "store_stride", "store_base", "store_bank", "store_first_row_words",
    "store_row_words", "store_gap_banks", "store_gap_words", "store_first_lane",
    "store_last_lane", "out_words",
)
# fmt: on
"""Words of an operation, in the order of dma_bench.v."""

NEVER = 0xFFFFFFFF
ORIGIN = 0x12FFFF8000
DESCRIPTOR, WEIGHTS, ACTIVATIONS, SECOND, STORE = range(5)
READ_ERROR, WRITE_ERROR, BOUNDS_ERROR, BLOCK_ERROR = 4, 8, 2, 1


@dataclass(frozen=True)
class Machine:
    """Parameters of dma_bench.v."""

    rows: int = 4
    cols: int = 3
    feed: int = 4
    code_bits: int = 8
    post_bits: int = 32
    data_bits: int = 64
    feed_beats: int = 60
    stream_beats: int = 50
    param_words: int = 40
    act_words: int = 2500
    out_words: int = 500
    bytes: int = 65536

    @property
    def beat_bytes(self) -> int:
        return self.data_bits // 8

    @property
    def word_bytes(self) -> int:
        return self.feed * self.code_bits // 8

    @property
    def lane_bytes(self) -> int:
        return self.code_bits // 8

    @property
    def param_bits(self) -> int:
        return self.post_bits + 40

    @property
    def descriptor_bytes(self) -> int:
        return -(-4 * (64 + self.rows) // 128) * 128

    @property
    def parameters(self) -> dict[str, int]:
        return {
            "ROWS": self.rows,
            "COLS": self.cols,
            "FEED": self.feed,
            "CODE_W": self.code_bits,
            "POST_W": self.post_bits,
            "DATA_W": self.data_bits,
            "FEED_BEATS": self.feed_beats,
            "STREAM_BEATS": self.stream_beats,
            "PARAM_WORDS": self.param_words,
            "ACT_WORDS": self.act_words,
            "OUT_WORDS": self.out_words,
            "BYTES": self.bytes,
        }


@dataclass
class Memories:
    """External memory, output banks, and what the DMA wrote."""

    external: bytearray
    outputs: list[list[list[int]]]  # [bank][address][lane]
    activations: dict[tuple[int, int, int], int] = field(
        default_factory=dict
    )  # bank, address, lane
    feed: dict[int, int] = field(default_factory=dict)
    streams: dict[tuple[int, int], int] = field(default_factory=dict)
    params: dict[int, int] = field(default_factory=dict)
    descriptor: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class Run:
    """Bytes of one run, the image row of each of its words."""

    first_byte: int
    bytes: int
    word_rows: list[int] | None = None  # None: beats are not made of pieces


def offset_of_base(op: dict[str, int]) -> int:
    """Position of an operation's base address in the external memory."""
    return (op["base_high"] << 32 | op["base_low"]) - ORIGIN


# -- what ------------------------------------------------------------------------------------------


def transfer(machine: Machine, memories: Memories, op: dict[str, int]) -> int:
    """Do an operation; return its bounds and block errors."""
    return {
        DESCRIPTOR: fetch_descriptor,
        WEIGHTS: load_weights,
        ACTIVATIONS: load_activations,
        SECOND: load_activations,
        STORE: store_outputs,
    }[op["kind"]](machine, memories, op)


def beat_at(machine: Machine, memories: Memories, position: int) -> int:
    return int.from_bytes(memories.external[position : position + machine.beat_bytes], "little")


def fetch_descriptor(machine: Machine, memories: Memories, op: dict[str, int]) -> int:
    first = offset_of_base(op) + op["descriptor_offset"]
    for index in range(machine.descriptor_bytes // machine.beat_bytes):
        beat = beat_at(machine, memories, first + index * machine.beat_bytes)
        memories.descriptor.append((index, beat))
    return 0


def load_weights(machine: Machine, memories: Memories, op: dict[str, int]) -> int:
    first = offset_of_base(op) + op["weight_offset"]
    beats = [
        beat_at(machine, memories, first + i * machine.beat_bytes)
        for i in range(op["weight_beats"])
    ]
    payload_bits = machine.data_bits - 1
    sections, section = [], []
    for beat in beats:
        section.append(beat & ((1 << payload_bits) - 1))
        if beat >> payload_bits:
            sections.append(section)
            section = []
    wanted = 2 if op["vector"] else 2 + machine.cols
    errors = BLOCK_ERROR if section or len(sections) != wanted else 0
    sections = [*sections, section][:wanted]

    def put(memory, size, key, index, value):
        nonlocal errors
        if index >= size:
            errors |= BOUNDS_ERROR
        else:
            memory[key(index)] = value

    for number, content in enumerate(sections):
        if number == 1:
            parts = -(-machine.param_bits // payload_bits)
            if len(content) % parts:
                errors |= BLOCK_ERROR
            for start in range(0, len(content), parts):
                group = content[start : start + parts]
                index = op["load_parameters"] + start // parts
                if index >= machine.param_words:
                    errors |= BOUNDS_ERROR
                elif len(group) == parts:
                    value = sum(part << (payload_bits * i) for i, part in enumerate(group))
                    memories.params[index] = value & ((1 << machine.param_bits) - 1)
            continue
        for i, payload in enumerate(content):
            if number == 0:
                put(memories.feed, machine.feed_beats, int, op["load_feed"] + i, payload)
            else:
                column = number - 2
                index = op["load_streams"] + i
                put(
                    memories.streams,
                    machine.stream_beats,
                    lambda at, column=column: (column, at),
                    index,
                    payload,
                )
    return errors


def load_places(machine: Machine, op: dict[str, int]):
    """(bank, address, row) of the words of a load in their order; row counts through planes."""
    base = op["load_base"] if op["kind"] == ACTIVATIONS else op["second_load_base"]
    base -= (base >> 31) << 32
    rows, row_words = op["load_rows"], op["load_row_words"]
    sx, sy = op["load_stride_x"], op["load_stride_y"]
    in_words = op["in_words"]
    pitch = op["load_pitch_words"] // in_words * machine.rows + op["load_pitch_banks"]
    for index in range(op["load_segments"] * op["load_words"]):
        plane, rest = divmod(index, rows * row_words)
        y, x = divmod(rest, row_words)
        line, phase_y = divmod(y + op["load_phase_y"], sy)
        q = op["load_bank"] + line * pitch + x // sx
        phase = phase_y * sx + x % sx
        address = base + phase * op["load_phase_words"] + q // machine.rows * in_words + plane
        yield q % machine.rows, address, index // row_words


def load_activations(machine: Machine, memories: Memories, op: dict[str, int]) -> int:
    offset = op["load_offset"] if op["kind"] == ACTIVATIONS else op["second_load_offset"]
    first = offset_of_base(op) + offset
    size = machine.lane_bytes
    errors = 0
    for index, (bank, address, _) in enumerate(load_places(machine, op)):
        segment, word = divmod(index, op["load_words"])
        position = first + segment * op["load_stride"] + word * machine.word_bytes
        if not 0 <= address < machine.act_words:
            errors = BOUNDS_ERROR
            continue
        for lane in range(machine.feed):
            code = memories.external[position + lane * size : position + (lane + 1) * size]
            memories.activations[bank, address, lane] = int.from_bytes(code, "little")
    return errors


def store_places(machine: Machine, op: dict[str, int]):
    """(plane, word of the plane, bank, address, row) of the words of a store."""
    gap = op["store_gap_words"] // op["out_words"] * machine.rows + op["store_gap_banks"]
    for plane in range(op["store_segments"]):
        q, row, left = op["store_bank"], 0, op["store_first_row_words"]
        for word in range(op["store_words"]):
            address = op["store_base"] + plane + q // machine.rows * op["out_words"]
            yield plane, word, q % machine.rows, address, row
            q, left = q + 1, left - 1
            if left == 0:
                q, row, left = q + gap, row + 1, op["store_row_words"]


def store_outputs(machine: Machine, memories: Memories, op: dict[str, int]) -> int:
    first = offset_of_base(op) + op["store_offset"]
    size = machine.lane_bytes
    errors = 0
    for plane, word, bank, address, _ in store_places(machine, op):
        position = first + plane * op["store_stride"] + word * machine.word_bytes
        if address >= machine.out_words:
            errors = BOUNDS_ERROR
            continue
        for lane in range(machine.feed):
            if plane == 0 and lane < op["store_first_lane"]:
                continue
            if plane == op["store_segments"] - 1 and lane > op["store_last_lane"]:
                continue
            code = memories.outputs[bank][address][lane].to_bytes(size, "little")
            memories.external[position + lane * size : position + (lane + 1) * size] = code
    return errors


# -- when ------------------------------------------------------------------------------------------


def runs_of(machine: Machine, op: dict[str, int]) -> list[Run]:
    base = offset_of_base(op)
    if op["kind"] == DESCRIPTOR:
        return [Run(base + op["descriptor_offset"], machine.descriptor_bytes)]
    if op["kind"] == WEIGHTS:
        return [Run(base + op["weight_offset"], op["weight_beats"] * machine.beat_bytes)]
    if op["kind"] == STORE:
        rows = [row for plane, _, _, _, row in store_places(machine, op) if plane == 0] * op[
            "store_segments"
        ]
        name, offset = "store", op["store_offset"]
    else:
        rows = [row for _, _, row in load_places(machine, op)]
        name, offset = (
            "load",
            op["load_offset" if op["kind"] == ACTIVATIONS else "second_load_offset"],
        )
    words = op[f"{name}_words"]
    return [
        Run(
            base + offset + i * op[f"{name}_stride"],
            words * machine.word_bytes,
            rows[i * words : (i + 1) * words],
        )
        for i in range(op[f"{name}_segments"])
    ]


def costs(machine: Machine, op: dict[str, int], run: Run) -> list[int]:
    """Pieces of every beat of a run (T7, T8)."""
    first_beat = run.first_byte // machine.beat_bytes
    last_beat = (run.first_byte + run.bytes - 1) // machine.beat_bytes
    if run.word_rows is None or machine.word_bytes >= machine.beat_bytes:
        return [1] * (last_beat - first_beat + 1)
    single = op["kind"] in (ACTIVATIONS, SECOND) and op["load_stride_x"] > 1
    result = []
    for beat in range(first_beat, last_beat + 1):
        rows = []
        for i, row in enumerate(run.word_rows):
            if (run.first_byte + i * machine.word_bytes) // machine.beat_bytes == beat:
                rows.append(row)
        pieces, size = 0, 0
        for i, row in enumerate(rows):
            if size == 0 or single or size == machine.rows or row != rows[i - 1]:
                pieces, size = pieces + 1, 0
            size += 1
        result.append(pieces)
    return result


def bursts_of(machine: Machine, op: dict[str, int]) -> list[tuple[int, list[int]]]:
    """(first byte, cost of each beat) of every burst of an operation (T6)."""
    result = []
    for run in runs_of(machine, op):
        position = run.first_byte // machine.beat_bytes * machine.beat_bytes
        current: list[int] = []
        for cost in costs(machine, op, run):
            if current and (position % 4096 == 0 or len(current) == 256):
                result.append((position - len(current) * machine.beat_bytes, current))
                current = []
            current = [*current, cost]
            position += machine.beat_bytes
        result.append((position - len(current) * machine.beat_bytes, current))
    return result


class Bus:
    """The memory of rule T9 and the cycles of the DMA's transfers, one operation after another."""

    def __init__(self, machine: Machine, latency: int, interval: int) -> None:
        self.machine, self.latency, self.interval = machine, latency, interval
        self.last_read = self.last_written = -interval

    def events(self, op: dict[str, int], s: int) -> list[tuple]:
        """Every transfer of an operation that begins in cycle s, and its end, as in events.txt."""
        write = op["kind"] == STORE
        address, data = ("AW", "W") if write else ("AR", "R")
        bursts = bursts_of(self.machine, op)
        result = []
        ends: list[int] = []
        a = s
        taken = None  # cycle of the beat before
        cost_before = z = 0
        for i, (position, beat_costs) in enumerate(bursts):
            a = max(a + 1, ends[i - 8] + 1 if i >= 8 else 0)
            result.append((a, address, position, len(beat_costs) - 1))
            for cost in beat_costs:
                if write:
                    memory = max(a + 1, self.last_written + self.interval)
                    z = s + 1 + cost if taken is None else max(z + 1, taken) + cost - 1
                    taken = max(z + 1, memory)
                    self.last_written = taken
                else:
                    memory = max(a + self.latency + 1, self.last_read + self.interval)
                    taken = memory if taken is None else max(taken + cost_before, memory)
                    self.last_read, cost_before = taken, cost
                result.append((taken, data))
            ends.append(taken + self.latency + 1 if write else taken)
            if write:
                result.append((ends[-1], "B"))
        return [*result, (ends[-1] if write else taken + cost_before, "E")]
