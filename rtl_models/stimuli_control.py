"""Legal random stimuli for the control: a host, descriptors right and wrong, and what they start.

As in `rtl_models.stimuli`. Registers, fields of descriptors and errors are those of
docs/programming.md, sections 3 to 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from random import Random

from rtl_models.dut import Dut
from rtl_models.mutants import Subject
from rtl_models.stimuli import RARELY, moods, word

MAGIC = 0x4E415031
MACHINE_ID = 0xC0FFEE11
CONTROL, STATUS, ERROR, DESCRIPTOR_INDEX = 0x14, 0x18, 0x1C, 0x20
BASE_LOW, BASE_HIGH, PROGRAM, ENABLE, INTERRUPT, LAYER = 0x24, 0x28, 0x2C, 0x30, 0x34, 0x40
LISTED: tuple[int, ...] = (*range(0, 0x44, 4), *range(0x80, 0xB0, 4), *range(0xC0, 0xF0, 4))
"""Offsets of all registers."""

WRITABLE = (CONTROL, BASE_LOW, BASE_HIGH, PROGRAM, ENABLE, INTERRUPT, LAYER)
START, ABORT = 1, 2
FREE_WORDS = (*range(9, 12), 29, 31, *range(35, 38), 42, 46, 48, 50, 56, 61)
"""Words of a descriptor that may hold anything."""

ERRORS = ("error_read", "error_write", "error_bounds", "error_block")
DESCRIPTOR, STORE = 0, 4

# -- host -----------------------------------------------------------------------------------------


Draw = Callable[[Random], tuple[int, int, int] | None]


class Host:
    """Writes and reads registers on AXI4-Lite; address, data and answers come at their own pace.

    Parameters
    ----------
    rng : Random
    draw : function of Random
        The next write: offset, data, strobes; None where there is nothing to write.
    """

    def __init__(self, rng: Random, draw: Draw) -> None:
        self._rng, self._draw = rng, draw
        self._pace = moods(rng)
        self.reset()

    def reset(self) -> None:
        """Forget what is under way."""
        self._write: dict[str, dict[str, int]] = {}  # channel -> what it carries
        self._read: dict[str, dict[str, int]] = {}
        self._offered: set[str] = set()

    def inputs(self) -> dict[str, int]:
        """Draw the inputs of the next cycle."""
        rng, pace = self._rng, next(self._pace)
        drawn = self._draw(rng) if not self._write and rng.random() < pace / 3 else None
        if drawn:
            offset, data, strobes = drawn
            self._write = {
                "aw": {"awaddr": offset, "awprot": rng.getrandbits(3)},
                "w": {"wdata": data, "wstrb": strobes},
            }
        if not self._read and rng.random() < pace / 2:
            offset = any_offset(rng)
            self._read = {"ar": {"araddr": offset, "arprot": rng.getrandbits(3)}}
        noise = {"awaddr": 12, "awprot": 3, "wdata": 32, "wstrb": 4, "araddr": 12, "arprot": 3}
        values = {name: rng.getrandbits(bits) for name, bits in noise.items()}
        waiting = self._write | self._read
        self._offered |= {channel for channel in waiting if rng.random() < pace}
        for channel in ("aw", "w", "ar"):
            values[f"{channel}valid"] = channel in self._offered
            values |= waiting[channel] if channel in self._offered else {}
        values |= {"bready": rng.random() < pace, "rready": rng.random() < pace}
        return {f"s_axi_{name}": value for name, value in values.items()}

    def take(self, dut: Dut) -> None:
        """See what was taken in the cycle."""
        for channel in ("aw", "w", "ar"):
            if channel in self._offered and dut[f"s_axi_{channel}ready"]:
                self._offered.discard(channel)
                self._write.pop(channel, None)
                self._read.pop(channel, None)


def any_offset(rng: Random) -> int:
    """Draw the offset of a register; sometimes of none, mostly near one."""
    if rng.random() < 0.8:
        return rng.choice(LISTED)
    near = rng.choice(LISTED) ^ 1 << rng.randrange(12)
    return rng.choice([rng.getrandbits(12), rng.randrange(0, 0x110, 4), near])


def any_write(rng: Random) -> tuple[int, int, int]:
    """Draw a write of any register, or of none; mostly a legal one."""
    offset = rng.choice(WRITABLE)
    if rng.random() < 0.2:
        offset = rng.choice([any_offset(rng), offset ^ 1 << rng.randrange(12)])
    strobes = 15 if rng.random() < 0.9 else rng.getrandbits(4)
    return offset, rng.getrandbits(32), strobes


def drive_registers(dut: Dut, rng: Random, cycles: int) -> None:
    """Drive a host of any writes and reads, and a sequencer that does what it likes."""
    widths = dut.ports.inputs
    host = Host(rng, any_write)
    quiet = {f"s_axi_{channel}valid": 0 for channel in ("aw", "w", "ar")}
    shown = ("error", "descriptor_index", "layer_count", "total_count", "run_cycles")
    dut.cycle(rst=1, s_axi_bready=0, s_axi_rready=0, busy=0, finished=0, failed=0, **quiet)
    busy = 0
    while dut.cycles < cycles:
        rst = rng.random() < RARELY / 2
        if rng.random() < 0.05:
            busy = rng.getrandbits(1)
        dut.cycle(
            rst=rst,
            busy=busy,
            finished=rng.random() < 0.02,
            failed=rng.random() < 0.02,
            **host.inputs(),
            **{name: rng.getrandbits(widths[name]) for name in shown},
        )
        host.take(dut)
        if rst:
            host.reset()


# -- descriptors ----------------------------------------------------------------------------------


def legal_words(rng: Random, machine: Mapping[str, int]) -> list[int]:
    """Draw a descriptor of fields that make sense, as numbers that may be negative."""
    rows, feed, code_bits = machine["ROWS"], machine["FEED"], machine.get("CODE_W", 8)
    words = [0] * (64 + rows)
    layer_end, mode = rng.random() < 0.5, rng.choice([0, 0, 1, 2, 3, 4])
    drains = layer_end or rng.random() < 0.6
    program_end = layer_end and rng.random() < 0.5
    words[0], words[1] = MAGIC, machine["MACHINE_ID"]
    words[2] = rng.choice([1, 1, 2, 2, 0]) | layer_end << 2 | program_end << 3 | drains << 4
    words[2] |= rng.getrandbits(2) << 5 | rng.randrange(5) << 7 | mode << 10
    words[3] = rng.randrange(machine["LAYERS"])
    tiles = [rng.randint(1, 0xFFFF) if drains else 1 for _ in range(2)]
    words[4] = tiles[1] << 16 | tiles[0]
    most = (feed if mode else machine["COLS"]) * (rows // machine.get("LANES", 1))
    words[5] = rng.randint(1, most) << 16 | rng.randint(1, most)
    for n, name in ((6, "FEED_ADDR_W"), (7, "STREAM_ADDR_W"), (8, "CHANNEL_W")):
        words[n] = rng.getrandbits(machine[name])
    for n in (9, 10, 11, 29, 31, *range(64, 64 + rows)):
        words[n] = rng.getrandbits(32)
    words[12], words[13] = (
        rng.randint(1, machine["ACT_WORDS"]),
        rng.randint(1, machine["OUT_WORDS"]),
    )
    signed = dict.fromkeys(range(14, 23), machine["COORD_W"])
    signed |= dict.fromkeys(range(23, 27), code_bits + 1)
    signed |= {27: code_bits + 2, 30: 8, 32: 8}
    for n, bits in signed.items():
        words[n] = rng.randrange(-(1 << (bits - 1)), 1 << (bits - 1))
    words[28] = rng.randrange(32)
    loads, stores = rng.random() < 0.7, drains and rng.random() < 0.8
    unread = (*range(40, 51),) * (not loads) + (*range(54, 63), 52) * (not stores)
    unread += (38,) * (not loads) + (5, 13) * (not drains)
    for n in (35, 36, 37, 42, 46, 48, 50, 56, 61, *unread):
        words[n] = rng.getrandbits(32)
    word_bytes = feed * code_bits // 8
    if rng.random() < 0.7:
        words[33], words[34] = rng.getrandbits(20) << 12, rng.randint(1, 1 << 20)
    if loads:
        for n in (38, 41, 49):
            words[n] = rng.getrandbits(24) * word_bytes
        for n in (39, 40, 43, 44):
            words[n] = 1 << rng.randrange(32) if rng.random() < 0.5 else rng.randint(1, 1 << 31)
        stride_x, stride_y = rng.randint(1, 255), rng.randint(1, 255)
        words[45] = rng.randrange(rows) << 16 | stride_y << 8 | stride_x
        words[47] = rng.randrange(stride_y) << 16 | rng.randrange(rows)
    if stores:
        for n in (52, 55):
            words[n] = rng.getrandbits(24) * word_bytes
        for n in (53, 54, 58, 59):
            words[n] = 1 << rng.randrange(32) if rng.random() < 0.5 else rng.randint(1, 1 << 31)
        words[57], words[60] = rng.randrange(rows), rng.randrange(rows)
        words[62] = rng.randrange(feed) << 8 | rng.randrange(feed)
    return words


def checked_bits(rng: Random) -> Iterator[tuple[int, int]]:
    """Go through the bits of all words that are checked, in any order, again and again."""
    places = [(n, bit) for n in range(64) if n not in FREE_WORDS for bit in range(32)]
    while True:
        rng.shuffle(places)
        yield from places


def wrong_word(
    rng: Random, words: list[int], machine: Mapping[str, int], bits: Iterator[tuple[int, int]]
) -> None:
    """Change a bit of a word, a half of it, all of it, or all words."""
    n = rng.randrange(64)
    bounded = {3: "LAYERS", 12: "ACT_WORDS", 13: "OUT_WORDS"}
    kind = rng.random()
    if kind < 0.2:
        n = rng.choice(list(bounded))
        words[n] = rng.choice([0, machine[bounded[n]], machine[bounded[n]] + 1])
    elif kind < 0.3:
        words[n] = word(rng, 32)
    elif kind < 0.4:
        n = rng.choice([4, 5, 45, 47, 57, 60, 62])
        shift = rng.choice([0, 8, 16])
        words[n] = words[n] & ~(255 << shift) | rng.randrange(8) << shift
    elif kind < 0.43:
        words[:] = [rng.getrandbits(32) for _ in words]
    else:
        n, bit = next(bits)
        words[n] ^= 1 << bit


def beats_of(words: list[int], rng: Random, data_bits: int, beats: int) -> list[int]:
    """Pack words into beats; what follows the last word is noise."""
    size = data_bits // 32
    words = words + [rng.getrandbits(32) for _ in range(beats * size - len(words))]
    return [
        sum((value & 0xFFFFFFFF) << 32 * i for i, value in enumerate(words[at : at + size]))
        for at in range(0, beats * size, size)
    ]


def drive_descriptor(machine: Mapping[str, int]) -> Callable[[Dut, Random, int], None]:
    """Write descriptors, most of them with one thing wrong, and take some of them over."""

    def drive(dut: Dut, rng: Random, cycles: int) -> None:
        widths = dut.ports.inputs
        data_bits = widths["desc_data"]
        count = -(-(64 + machine["ROWS"]) // 32) * 32 * 32 // data_bits
        cycle, first = dut.cycle_unseen, True
        bits = checked_bits(rng)
        while dut.cycles < cycles:
            words = legal_words(rng, machine)
            if not first and rng.random() < 0.85:
                wrong_word(rng, words, machine, bits)
            order = list(enumerate(beats_of(words, rng, data_bits, count)))
            for index, beat in order:
                while rng.random() < 0.1:
                    cycle(
                        desc_write=0,
                        desc_index=rng.getrandbits(widths["desc_index"]),
                        desc_data=rng.getrandbits(data_bits),
                        new_layer=rng.getrandbits(1),
                        take=0,
                    )
                cycle(desc_write=1, desc_index=index, desc_data=beat, take=0)
            for take in (0, first or rng.random() < 0.4):
                cycle(desc_write=0, new_layer=rng.getrandbits(1), take=take)
            cycle, first = dut.cycle, False

    return drive


# -- sequencer and control ------------------------------------------------------------------------


class Surroundings:
    """Plays dma and engine: operations and runs take their time, some fail.

    Parameters
    ----------
    rng : Random
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.reset()

    def reset(self) -> None:
        """Forget what is under way."""
        self.kind = -1  # of the operation
        self._left = self._run_left = self._linger = 0
        self.errors = dict.fromkeys(ERRORS, 0)

    @property
    def left(self) -> int:
        """Cycles of the operation after this one."""
        return self._left

    @property
    def running(self) -> bool:
        """Whether the engine runs."""
        return self._run_left > 0

    @property
    def op_done(self) -> int:
        """Whether the operation ends in this cycle."""
        return int(self.kind >= 0 and self._left == 0)

    @property
    def engine_done(self) -> int:
        """Whether the run ends in this cycle."""
        return int(self._run_left == 1)

    def inputs(self) -> dict[str, int]:
        """Return the inputs of this cycle."""
        if self._rng.random() < 0.001:
            self.errors[self._rng.choice(ERRORS)] = 1
        idle = self.kind < 0 and not self._linger
        return self.errors | {
            "op_done": self.op_done,
            "engine_done": self.engine_done,
            "dma_idle": idle,
        }

    def take(self, dut: Dut, least_cycles: int = 1) -> None:
        """See what was started; a descriptor takes at least so many cycles."""
        rng = self._rng
        self._run_left = max(self._run_left - 1, 0)
        self._linger = max(self._linger - 1, 0)
        if self.op_done:
            self.kind = -1
        elif self.kind >= 0:
            self._left -= 1
        if dut["op_start"]:
            self.kind = dut["op_kind"]
            self._left = rng.choice([0, 2, rng.randrange(20)])
            if self.kind == DESCRIPTOR:
                self._left += least_cycles - 1
            self.errors = dict.fromkeys(ERRORS, 0)
        if dut["engine_start"]:
            self._run_left = rng.choice([1, 3, rng.randint(1, 60)])
        if dut["dma_abort"] and self.kind >= 0:
            self.kind, self._linger = -1, rng.randrange(8)
        if dut["clear"]:
            self.reset()


def drive_sequencer_of_passes(dut: Dut, rng: Random, cycles: int) -> None:
    """Run programs of random passes; errors, aborts and resets come at any time."""
    widths = dut.ports.inputs
    load = ("load_order", "load_program_end", "load_weights", "load_activations", "load_second")
    run = ("run_layer_end", "run_layer", "run_stores")

    def noise(names: tuple[str, ...]) -> dict[str, int]:
        return {name: rng.getrandbits(widths[name]) for name in names}

    around = Surroundings(rng)
    dut.cycle(rst=1, start=0, abort_run=0, **around.inputs())
    loaded, running = noise(load), noise(run)
    coming = noise(run)
    while dut.cycles < cycles:
        rst = rng.random() < RARELY / 6
        error = 0
        if around.kind == DESCRIPTOR:
            loaded = noise(load)
            if around.op_done:
                loaded["load_second"] &= loaded["load_activations"]
                orders = (1, 2) if dut["load_new_layer"] else (0, 1, 2)
                loaded["load_order"] = rng.choice(orders)
                loaded["load_program_end"] = rng.random() < 0.3
                coming = noise(run)
                error = rng.choice([3, 4, 5]) if rng.random() < 0.03 else 0
        dut.cycle(
            rst=rst,
            start=rng.random() < 0.1,
            abort_run=rng.random() < 0.002,
            program_offset=word(rng, 32),
            load_error=error if around.op_done else rng.randrange(6),
            **around.inputs(),
            **loaded,
            **running,
        )
        if dut["take"]:
            running = coming
        around.take(dut)
        if rst:
            around.reset()
        if rng.random() < 0.02:
            dut.preset(rng)


def program_write(rng: Random) -> tuple[int, int, int]:
    """Draw a write as a host does it that runs programs."""
    offset = rng.choice([CONTROL, CONTROL, BASE_LOW, BASE_HIGH, PROGRAM, ENABLE, INTERRUPT, LAYER])
    data = rng.getrandbits(32)
    if offset == CONTROL:
        data = ABORT if rng.random() < 0.03 else START
    elif offset == LAYER:
        data = rng.randrange(4) | (rng.random() < 0.2) << rng.randrange(32)
    return offset, data, 15


def drive_control(machine: Mapping[str, int]) -> Callable[[Dut, Random, int], None]:
    """Run programs of random descriptors from a host, among dma and engine."""

    def drive(dut: Dut, rng: Random, cycles: int) -> None:
        widths = dut.ports.inputs
        data_bits = widths["desc_data"]
        count = -(-(64 + machine["ROWS"]) // 32) * 32 * 32 // data_bits
        counters = [name for name in widths if name.startswith("run_")]
        host, around = Host(rng, program_write), Surroundings(rng)
        quiet = {f"s_axi_{channel}valid": 0 for channel in ("aw", "w", "ar")}
        dut.cycle(rst=1, s_axi_bready=0, s_axi_rready=0, desc_write=0, **around.inputs(), **quiet)
        beats: list[int] = []
        shown = False  # the words of a descriptor have been taken over
        counts = dict.fromkeys(counters, 0)
        bits = checked_bits(rng)
        while dut.cycles < cycles:
            rst = shown and rng.random() < RARELY / 10
            if around.kind != 0:
                beats = []
            elif not beats:
                words = legal_words(rng, machine)
                if shown and rng.random() < 0.05:
                    wrong_word(rng, words, machine, bits)
                elif shown and rng.random() < 0.02:
                    words = [rng.getrandbits(32) for _ in words]
                beats = beats_of(words, rng, data_bits, count)
                index = 0
            # The last beat comes in the operation's last cycle.
            early = len(beats) > 1 and rng.random() < 0.3
            write = around.kind == DESCRIPTOR and (around.left < len(beats) or early)
            if around.running:
                counts = {name: rng.getrandbits(32) for name in counters}
            (dut.cycle if shown else dut.cycle_unseen)(
                rst=rst,
                desc_write=write,
                desc_index=index if write else rng.getrandbits(widths["desc_index"]),
                desc_data=beats[0] if write else rng.getrandbits(data_bits),
                **around.inputs(),
                **host.inputs(),
                **counts,
                **dut.presets(rng, 0.05),
            )
            if write:
                beats, index = beats[1:], index + 1
            shown = shown or bool(dut["engine_start"])
            host.take(dut)
            around.take(dut, count)
            if rst:
                host.reset()
                around.reset()

    return drive


_MACHINE = {"ROWS": 3, "COLS": 2, "FEED": 4, "LANES": 3, "MACHINE_ID": MACHINE_ID}
_FIELDS = {"COORD_W": 12, "FEED_ADDR_W": 6, "STREAM_ADDR_W": 7, "CHANNEL_W": 5, "LAYERS": 3}
_DESCRIPTOR = _MACHINE | _FIELDS | {"ACT_WORDS": 20, "OUT_WORDS": 13, "DATA_W": 1024}
# Words of fewer bits than 32, and how many they have: a descriptor with more is not taken over.
_NARROW = {2: 15, 3: 2, 6: 6, 7: 7, 8: 5, 12: 5, 28: 5, 51: 0, 63: 0}
_HOST = {"s_axi_rdata": "s_axi_rvalid", "s_axi_rresp": "s_axi_rvalid"}
_HOST |= {"s_axi_bresp": "s_axi_bvalid"}

SUBJECTS = (
    Subject(
        "axi_lite_registers",
        "axi_lite_registers",
        _MACHINE
        | {"PE_KIND": 1, "TERMS": 2, "ACC_BITS": 20, "SATURATE": 1, "CODE_W": 16, "ADDR_W": 38},
        drive_registers,
        gates=_HOST,
    ),
    Subject("descriptor", "descriptor", _DESCRIPTOR, drive_descriptor(_DESCRIPTOR)),
    Subject(
        "sequencer",
        "sequencer",
        {"LAYER_W": 3},
        drive_sequencer_of_passes,
        gates={"op_kind": "op_start", "descriptor_offset": "op_start", "layer": "layer_end"},
        presets=("index_q", "offset_q"),
        legal="load_error < 3'd6",
        # Yosys makes the engine's state one-hot, bit 0 being engine_idle.
        invariant="(engine_idle ? engine_q == 0 : engine_q == 2 || engine_q == 4) && state_q <= 8"
        " && error_q <= 8 && (state_q == 0 || state_q > 6 || error_q == 0)"
        " && (state_q != 5 || !last_q || !started_q || engine_idle && !loaded_q)"
        " && (state_q != 6 || engine_idle)",
        begins="rst",
        # A start that an error came before is forgotten.
        matters={"engine_q[2:2]": "state_q < 7"},
    ),
    Subject(
        "control",
        "control",
        _DESCRIPTOR | {"ADDR_W": 38},
        drive_control(_DESCRIPTOR),
        gates=_HOST | {"op_kind": "op_start", "descriptor_offset": "op_start"},
        # Sequencer and counters are mutated with it, since those of modules below cannot be preset.
        kept=("axi_lite_registers", "descriptor"),
        presets=("index_q", "cycles_q", "layer_q", "total_q"),
        watched=("index_q",),
        legal=" && ".join(f"running[{32 * n + 31}:{32 * n + b}] == 0" for n, b in _NARROW.items()),
    ),
)
