"""Legal random stimuli for single modules, and the modules whose mutants they must kill.

Every function drives a module through `Dut` as its neighbours in the engine may: a valid that waits
stays, a configuration is stable while it is used, a memory's output register moves when it is read.
How often valid and ready come is drawn anew every few hundred cycles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from rtl_models.dut import Dut
from rtl_models.mutants import Subject

MAC, SHIFT_ADD, TERNARY = 0, 1, 2
DOUBLE, SINGLE, MULTIPLIER16, SHIFT_HALF_UP, SHIFT_HALF_EVEN = range(5)
SHIFTS = {
    DOUBLE: (-31, 30),
    SINGLE: (-31, 30),
    MULTIPLIER16: (-31, 14),
    SHIFT_HALF_UP: (-62, 0),
    SHIFT_HALF_EVEN: (-62, 0),
}
"""Legal shifts of each rounding rule (header of requantizer.v)."""

RARELY = 0.003
"""Probability of a reset or flush in a cycle."""


def word(rng: Random, bits: int) -> int:
    """Draw bits: uniform, at the ends of the range, of any magnitude, or beside a power of two."""
    kind = rng.random()
    if kind < 0.4:
        return rng.getrandbits(bits)
    if kind < 0.6:
        return rng.choice([0, 1, -1, 1 << (bits - 1), (1 << (bits - 1)) - 1])
    magnitude = 1 << rng.randrange(bits)
    if kind < 0.8:
        return rng.choice([-1, 1]) * rng.randrange(magnitude + 1)
    return rng.choice([-1, 1]) * magnitude + rng.choice([-1, 0, 1])


def moods(rng: Random) -> Iterator[float]:
    """Probability of a valid or ready, one a cycle, the same for some hundred cycles."""
    while True:
        mood = rng.choice([1.0, 0.9, 0.5, 0.1])
        for _ in range(rng.randrange(50, 500)):
            yield mood


# -- arithmetic -----------------------------------------------------------------------------------


def drive_combinational(dut: Dut, rng: Random, cycles: int) -> None:
    """Draw all inputs in every cycle."""
    for _ in range(cycles):
        dut.cycle(**{name: word(rng, bits) for name, bits in dut.ports.inputs.items()})


def drive_ternary(dut: Dut, rng: Random, cycles: int) -> None:
    """Operands with the three codes of rule S2."""
    for _ in range(cycles):
        dut.cycle(x=word(rng, dut.ports.inputs["x"]), code=rng.choice([0b00, 0b01, 0b11]))


def drive_accumulator(dut: Dut, rng: Random, cycles: int) -> None:
    """Drive steps and clears at any time; long tiles of one addend run far over the range."""
    steps, clears, repeats, resets = (moods(rng) for _ in range(4))
    bits = dut.ports.inputs["addend"]
    low, addend, long_tile = -(1 << (bits - 1)), 0, 0
    for cycle in range(cycles):
        if rng.random() >= next(repeats):
            addend = word(rng, bits) if rng.random() < 0.5 else rng.choice([low, -low - 1])
        if not long_tile and rng.random() < 0.003:
            long_tile, addend = rng.randrange(200, 500), rng.choice([low, -low - 1])
        if long_tile:  # so many events that their counter is full when the tile ends
            long_tile -= 1
            dut.cycle(rst=cycle == 0, step=1, clear=long_tile == 0, addend=addend)
            continue
        dut.cycle(
            rst=cycle == 0 or rng.random() < next(resets) ** 2 / 20,
            step=rng.random() < next(steps),
            clear=rng.random() < next(clears) ** 2 / 5,
            addend=addend,
        )


def pe_code(rng: Random, kind: int, bits: int) -> int:
    """Draw a code of rule S2; zero comes often."""
    if rng.random() < 0.1:
        return 0
    if kind == TERNARY:
        return rng.choice([0b01, 0b11])
    return word(rng, bits) & ((1 << bits) - 1)


def drive_pe(kind: int) -> Callable[[Dut, Random, int], None]:
    """Entries as a column issues them: a step is an issue of a code that is not zero."""

    def drive(dut: Dut, rng: Random, cycles: int) -> None:
        issues, clears, repeats, resets = (moods(rng) for _ in range(4))
        x = code = 0
        for cycle in range(cycles):
            issue = rng.random() < next(issues)
            if rng.random() >= next(repeats):
                x = word(rng, dut.ports.inputs["x"])
                code = pe_code(rng, kind, dut.ports.inputs["code"])
            dut.cycle(
                rst=cycle == 0 or rng.random() < next(resets) ** 2 / 20,
                issue=issue,
                step=issue and code != 0,
                clear=rng.random() < next(clears) ** 2 / 5,
                x=x,
                code=code,
            )

    return drive


def drive_requantizer(dut: Dut, rng: Random, cycles: int) -> None:
    """Drive runs of one configuration each; half of the sums are scaled to the codes."""
    valids, readies = moods(rng), moods(rng)
    code_bits = dut.ports.outputs["out_code"]
    dut.cycle(rst=1, in_valid=0, out_ready=0)
    while dut.cycles < cycles:
        rounding = rng.randrange(5)
        low = rng.choice([0, -(1 << (code_bits - 1))])
        high = low + (1 << code_bits) - 1
        zero_point, *bounds = (rng.randint(low, high) for _ in range(3))
        minimum, maximum = (low, high) if rng.random() < 0.7 else sorted(bounds)
        waiting = [_requantizer_inputs(dut, rng, rounding) for _ in range(rng.randrange(1, 60))]
        configuration = {
            "rst": 0,
            "cfg_rounding": rounding,
            "cfg_zero_point": zero_point,
            "cfg_minimum": minimum,
            "cfg_maximum": maximum,
        }
        inside, offered = 0, False
        while (waiting or inside) and rng.random() >= RARELY:
            offered = offered or (bool(waiting) and rng.random() < next(valids))
            # What is not valid carries noise, which must not matter.
            group = waiting[0] if offered else _requantizer_inputs(dut, rng, rounding)
            dut.cycle(
                **configuration, **group, in_valid=offered, out_ready=rng.random() < next(readies)
            )
            inside -= dut["out_valid"] and dut.value("out_ready")
            if offered and dut["in_ready"]:
                waiting.pop(0)
                offered, inside = False, inside + 1
        if waiting or inside:
            dut.cycle(rst=1)


def _requantizer_inputs(dut: Dut, rng: Random, rounding: int) -> dict[str, int]:
    if rounding in (SINGLE, MULTIPLIER16) and rng.random() < 0.15:
        return _code_in_low_word(rng, rounding)
    return scaled_group(rng, rounding, dut.ports.inputs["in_acc"])


def _code_in_low_word(rng: Random, rounding: int) -> dict[str, int]:
    """Draw a result far beyond the codes, whose low 32 bits look like one."""
    unity, most = (31, 23) if rounding == SINGLE else (15, 7)
    amount = rng.randint(1, most)
    factor = rng.randrange(4 << amount, 256 << amount)
    upper = rng.choice([-1, 1]) * rng.randint(1, factor >> amount + 1)
    bias = rng.choice([0, rng.getrandbits(32)])
    return {
        "in_acc": (((upper << 32) + rng.randint(-300, 300)) << amount) // factor - bias,
        "in_bias": bias,
        "in_multiplier": factor << 31 - unity,
        "in_shift": unity - amount,
    }


def scaled_group(rng: Random, rounding: int, bits: int) -> dict[str, int]:
    """Draw a result beside a tie, one near the codes, or what only rule `double` has."""
    if rounding == DOUBLE and rng.random() < 0.05:  # the one product that saturates
        least = -(1 << 31)
        return {
            "in_acc": least,
            "in_bias": 0,
            "in_multiplier": least,
            "in_shift": rng.choice([0, SHIFTS[DOUBLE][0]]),
        }
    if rounding == DOUBLE and rng.random() < 0.15:  # a single bit shifted left, perhaps out
        bias = rng.getrandbits(32)
        return {
            "in_acc": (rng.choice([1, -1]) << rng.randrange(31)) - bias,
            "in_bias": bias,
            "in_multiplier": rng.randrange(1 << 30, 1 << 31),
            "in_shift": rng.randint(0, SHIFTS[DOUBLE][1]),
        }
    return (near_tie if rng.random() < 0.5 else requantizer_group)(rng, rounding, bits)


def requantizer_group(rng: Random, rounding: int, bits: int) -> dict[str, int]:
    """Draw a result of so many bits, and parameters that mostly bring it near the codes."""
    magnitude = rng.randrange(bits)
    acc = rng.randint(-(1 << magnitude), (1 << magnitude) - 1)
    if rng.random() < 0.2:
        acc = word(rng, bits)
    bias = rng.choice([0, rng.getrandbits(32), rng.randint(-200, 200)])
    low, high = SHIFTS[rounding]
    shift = rng.choice([rng.randint(low, high), min(max(7 - magnitude, low), high)])
    multiplier = rng.randrange(1 << 30, 1 << 31)
    if rng.random() < 0.2:
        multiplier = rng.choice(
            [1 << 30, (1 << 31) - 1, -(1 << 31), 0x40008000, 0x7FFEFFFF, 0x7FFF0000]
        )
    return {"in_acc": acc, "in_bias": bias, "in_multiplier": multiplier, "in_shift": shift}


def near_tie(rng: Random, rounding: int, bits: int) -> dict[str, int]:
    """Draw a sum whose product lies beside a tie of the rounding, which shows its lowest bits."""
    low, high = SHIFTS[rounding]
    shift = rng.randint(low, min(high, 0))
    factor, multiplier, amount = 1, rng.getrandbits(32), -shift
    if rounding in (DOUBLE, SINGLE):
        # Small odd factors have an inverse modulo 2^31, so that every product can be had.
        factor = rng.choice([rng.randrange(1, 256, 2), rng.randrange(1 << rng.randrange(1, 32))])
        factor *= rng.choice([-1, 1])
        multiplier, amount = factor, 31 - shift
    elif rounding == MULTIPLIER16:
        factor = rng.randrange(1, 1 << rng.randrange(1, 16))
        multiplier, amount = (factor << 16) + rng.randrange(-(1 << 15), 1 << 15), 15 - shift
    distance = rng.choice([0, 1, -1, 1 << rng.randrange(63), -1 << rng.randrange(63)])
    target = (rng.randint(-300, 300) << amount) + (1 << amount >> 1) + distance
    value = target // (factor or 1)
    if factor % 2 and rng.random() < 0.5:
        value = target * pow(factor, -1, 1 << (bits - 1))
    bias = rng.choice([0, rng.getrandbits(32)])
    return {
        "in_acc": value - bias,
        "in_bias": bias,
        "in_multiplier": multiplier,
        "in_shift": shift,
    }


# -- array ----------------------------------------------------------------------------------------


def drive_sequencer(depth: int) -> Callable[[Dut, Random, int], None]:
    """One column between a window and other columns that let it wait."""

    def drive(dut: Dut, rng: Random, cycles: int) -> None:
        valids, others = moods(rng), moods(rng)
        n, entry = 0, None
        dut.cycle(rst=1, flush=0, n=0, release_word=0, fire=0, entry_valid=0)
        while dut.cycles < cycles:
            rst, flush = rng.random() < RARELY, rng.random() < RARELY
            if entry is None and rng.random() < next(valids):
                entry = _entry(rng)
            last, advance = entry or (rng.getrandbits(1), rng.getrandbits(4))
            dut.settle(
                rst=rst,
                flush=flush,
                n=n,
                release_word=0,
                fire=0,
                entry_valid=entry is not None,
                entry_last=last,
                entry_advance=advance,
            )
            other = next(others)
            release = n > 0 and dut["passed"] and rng.random() < other
            fire = dut["finished"] and rng.random() < other
            dut.cycle(release_word=release, fire=fire)
            if dut["issue"]:
                entry = None
            n = n - release
            n += n < depth and rng.random() < other
            if rst or flush:
                n, entry = 0, None

    return drive


def _entry(rng: Random) -> tuple[int, int]:
    """Draw the last bit and the advance of an entry."""
    advance = rng.choice([0, 0, 1, 1, 1, 2, rng.getrandbits(4)])
    return int(rng.random() < 0.15), advance


def drive_window(dut: Dut, rng: Random, cycles: int) -> None:
    """Drive a feed that waits for room, and releases of words that are there."""
    valids, releases = moods(rng), moods(rng)
    waiting = None
    dut.cycle(rst=1, flush=0, feed_valid=0, release_word=0)
    while dut.cycles < cycles:
        rst, flush = rng.random() < RARELY, rng.random() < RARELY
        if waiting is None and rng.random() < next(valids):
            waiting = rng.getrandbits(dut.ports.inputs["feed_data"])
        noise = rng.getrandbits(dut.ports.inputs["feed_data"])
        dut.settle(
            rst=rst,
            flush=flush,
            feed_valid=waiting is not None,
            feed_data=noise if waiting is None else waiting,
        )
        dut.cycle(release_word=dut["n"] > 0 and rng.random() < next(releases))
        if rst or flush or dut["feed_ready"]:
            waiting = None


ADVANCE_BITS = 4


def array_column(
    rng: Random, words: int, feed: int, lane_bits: int, code_bits: int
) -> Iterator[int]:
    """Draw the entries of one column that walk so many words, packed."""
    left, last = words - 1, 0
    while not last:
        last = int(left == 0 and rng.random() < 0.5)
        advance = last
        if left and rng.random() < 0.7:
            advance = min(left, rng.choice([15, rng.randint(1, 15)]))
            left -= advance
        packed = last << ADVANCE_BITS | advance
        packed = packed << lane_bits | rng.randrange(feed)
        yield packed << code_bits | pe_code(rng, MAC, code_bits)


def drive_array(
    rows: int, cols: int, feed: int, x_bits: int, code_bits: int
) -> Callable[[Dut, Random, int], None]:
    """Tiles of 1 to 47 words, with resets, flushes and undrained tiles."""
    lane_bits = max(1, (feed - 1).bit_length())
    lanes = rows * feed
    entry_bits = 1 + ADVANCE_BITS + lane_bits + code_bits

    def tile(rng: Random) -> list[list[int]]:
        """Entries of every column, packed; they all walk the same words."""
        # The longest advance of 15 takes a tile of more than 15 words.
        words = rng.randrange(1, 13) if rng.random() < 0.7 else rng.randrange(16, 48)
        return [list(array_column(rng, words, feed, lane_bits, code_bits)) for _ in range(cols)]

    def drive(dut: Dut, rng: Random, cycles: int) -> None:
        valids, readies, resets = (moods(rng) for _ in range(3))
        dut.cycle(rst=1, flush=0, feed_valid=0, entry_valid=0, handoff_ready=0)
        columns, offered, fed = tile(rng), [False] * cols, False
        operands = 0
        while dut.cycles < cycles:
            valid = next(valids)
            rst = rng.random() < next(resets) ** 4 / 20
            flush = rng.random() < 3 * RARELY
            entries = 0
            for c in range(cols):
                offered[c] = offered[c] or (bool(columns[c]) and rng.random() < valid)
                entry = columns[c][0] if offered[c] else rng.getrandbits(entry_bits)
                entries |= entry << (c * entry_bits)
            if not fed:
                fed = rng.random() < valid
                operands = 0
                for lane in range(lanes):
                    operands |= (word(rng, x_bits) & ((1 << x_bits) - 1)) << (lane * x_bits)
            dut.cycle(
                rst=rst,
                flush=flush,
                feed_valid=fed,
                feed_data=operands,
                entry_valid=sum(bit << c for c, bit in enumerate(offered)),
                entry_data=entries,
                handoff_ready=rng.random() < next(readies),
                drain_enable=rng.random() < 0.9,
                result_col=rng.randrange(cols),
            )
            fed = fed and not dut["feed_ready"]
            for c in range(cols):
                if offered[c] and dut["entry_ready"] >> c & 1:
                    columns[c].pop(0)
                    offered[c] = False
            if dut["fire"] or rst or flush:
                columns, offered = tile(rng), [False] * cols
            if rst or flush:
                fed = False

    return drive


# -- engine ---------------------------------------------------------------------------------------


def drive_walker(rows: int) -> Callable[[Dut, Random, int], None]:
    """Images of all small shapes, walked in tiles of `rows` pixels, with loads in between."""

    def drive(dut: Dut, rng: Random, cycles: int) -> None:
        bits = dut.ports.inputs["cfg_pitch_x"]
        mask = (1 << bits) - 1
        while dut.cycles < cycles:
            stride_y, stride_x = rng.randint(1, 3), rng.randint(1, 3)
            out_height, out_width = rng.randint(1, 12), rng.randint(1, 12)
            pitch = out_width + rng.choice([0, 0, 1, 3])
            top, left = rng.randrange(8), rng.randrange(8)
            start = [divmod(rng.randrange(3) * rows + row, pitch) for row in range(rows)]
            step_y, step_x = divmod(rows, pitch)
            ys = [oy * stride_y - top for oy, _ in start]
            xs = [ox * stride_x - left for _, ox in start]
            configuration = {
                "cfg_start_y": sum((y & mask) << (bits * row) for row, y in enumerate(ys)),
                "cfg_start_x": sum((x & mask) << (bits * row) for row, x in enumerate(xs)),
                "cfg_step_y": step_y * stride_y,
                "cfg_step_x": step_x * stride_x,
                "cfg_row_y": stride_y,
                "cfg_wrap_x": pitch * stride_x,
                "cfg_pitch_x": pitch * stride_x - left,
                "cfg_end_y": out_height * stride_y - top,
                "cfg_end_x": out_width * stride_x - left,
            }
            if rng.random() < 0.5:
                # The registers follow the header's formulas whatever the configuration is.
                widths = dut.ports.inputs
                configuration = {name: word(rng, widths[name]) for name in configuration}
            dut.cycle_unseen(**configuration, load=1, advance=rng.getrandbits(1))
            # The furthest y is below 14 rows of stride 3 and one tile more.
            tiles = (out_height * pitch) // rows + 1
            while tiles and dut.cycles < cycles:
                load, advance = rng.random() < 0.02, rng.random() < 0.7
                dut.cycle(load=load, advance=advance)
                tiles -= advance and not load
                if load:
                    tiles = (out_height * pitch) // rows + 1

    return drive


def drive_tiles(dut: Dut, rng: Random, cycles: int) -> None:
    """Drive runs of every size, some of them cut off by the next load."""
    most = (1 << dut.ports.inputs["cfg_pixel_tiles"]) - 1
    while dut.cycles < cycles:
        sizes = sorted((rng.randint(1, most), rng.randint(1, rng.choice([2, most]))))
        pixel_tiles, channel_tiles = rng.sample(sizes, 2)
        dut.cycle_unseen(
            cfg_pixel_tiles=pixel_tiles,
            cfg_channel_tiles=channel_tiles,
            load=1,
            advance=rng.getrandbits(1),
        )
        left = pixel_tiles * channel_tiles
        while left and rng.random() >= RARELY:
            advance = rng.random() < 0.8
            dut.cycle(load=0, advance=advance)
            left -= advance


def run_tiles(rng: Random, most: int) -> tuple[int, int]:
    """Draw pixel tiles and channel tiles of a run: few of at least one of them."""
    few, many = rng.randint(1, 3), rng.randint(1, most)
    return (few, many) if rng.random() < 0.5 else (many, few)


def drive_stream_reader(dut: Dut, rng: Random, cycles: int) -> None:
    """Drive runs of a few tiles of some parts from a memory; fires wait for other columns."""
    size = 1 << dut.ports.inputs["cfg_base"]
    readies = moods(rng)
    dut.cycle(rst=1, flush=0, begin_run=0, entry_ready=0)
    output = 0
    while dut.cycles < cycles:
        pixel_tiles, channel_tiles = run_tiles(rng, 7)
        parts = rng.choice([1, 1, 2, 4])
        memory = [0] * size
        base = at = rng.randrange(size)
        for _ in range(channel_tiles * parts):
            at += rng.randint(1, max(1, size // (channel_tiles * parts + 1)))
            memory[(at - 1) % size] = 1
        part, ends = 0, pixel_tiles * channel_tiles * parts
        # A run begins in the cycle after the flush.
        for step in ("flush", "begin"):
            dut.cycle(
                rst=0,
                flush=step == "flush",
                begin_run=step == "begin",
                cfg_base=base,
                last=output,
                entry_ready=0 if step == "flush" else rng.getrandbits(1),
                part_last=parts == 1,
                pixel_last=pixel_tiles == 1,
                run_last=ends == 1,
            )
            output = memory[dut["addr"]] if dut["read"] else output
        done = False
        while part < ends and rng.random() >= RARELY:
            ready = not done and rng.random() < next(readies)
            dut.cycle(
                begin_run=0,
                flush=0,
                last=output,
                entry_ready=ready,
                part_last=part % parts == parts - 1,
                pixel_last=part // parts % pixel_tiles == pixel_tiles - 1,
                run_last=part == ends - 1,
            )
            done = done or bool(dut["entry_valid"] and ready and output)
            output = memory[dut["addr"]] if dut["read"] else output
            if done and rng.random() < 0.6:  # fire
                part, done = part + 1, False
        if part < ends:
            by_reset = rng.getrandbits(1)
            dut.cycle(rst=by_reset, flush=1 - by_reset, last=output)
        for _ in range(rng.randrange(3)):
            dut.cycle(rst=0, flush=0, last=output, entry_ready=rng.getrandbits(1))


def drive_feeder(rows: int) -> Callable[[Dut, Random, int], None]:
    """Drive runs of a few tiles; feed words, codes and coordinates are drawn when they are read."""

    def drive(dut: Dut, rng: Random, cycles: int) -> None:
        widths = dut.ports.inputs
        size = 1 << widths["cfg_feed_base"]
        coordinate_bits = widths["cfg_height"]
        rot_bits = max(1, (rows - 1).bit_length())
        low_bits = widths["feed_word"] - 1
        tap_bits = (low_bits - 1 - widths["cfg_in_words"] - rot_bits) // 2
        readies = moods(rng)

        def feed_word(last: bool) -> int:
            address = rng.getrandbits(1 + widths["cfg_in_words"])
            packed = (address << rot_bits | rng.randrange(rows)) << (2 * tap_bits)
            packed |= rng.getrandbits(2 * tap_bits)
            return last << low_bits | packed

        def coordinates() -> dict[str, int]:
            # The largest tap may be added without leaving the range.
            limit = 1 << (coordinate_bits - 1)
            mask = (1 << coordinate_bits) - 1
            packed = {"pixel_y": 0, "pixel_x": 0, "pixel_exists": 0}
            for row in range(rows):
                for name in ("pixel_y", "pixel_x"):
                    value = rng.randrange(-limit // 4, limit - (1 << tap_bits) + 1) & mask
                    packed[name] |= value << (coordinate_bits * row)
                packed["pixel_exists"] |= (rng.random() < 0.9) << row
            return packed

        dut.cycle(rst=1, flush=0, begin_run=0, ready=0)
        word_out, codes, place = 0, 0, coordinates()
        while dut.cycles < cycles:
            pixel_tiles, channel_tiles = run_tiles(rng, 7)
            base = rng.randrange(size)
            lengths = [rng.randint(1, size // (channel_tiles + 1)) for _ in range(channel_tiles)]
            memory = [feed_word(last=False) for _ in range(size)]
            for tile in range(channel_tiles):
                memory[(base + sum(lengths[: tile + 1]) - 1) % size] = feed_word(last=True)
            limit = (1 << (coordinate_bits - 1)) - 1
            configuration = {
                "cfg_pixel_tiles": pixel_tiles,
                "cfg_channel_tiles": channel_tiles,
                "cfg_feed_base": base,
                "cfg_activation_base": rng.getrandbits(widths["cfg_activation_base"]),
                "cfg_in_words": rng.getrandbits(widths["cfg_in_words"]),
                "cfg_zero_point": word(rng, widths["cfg_zero_point"]),
                "cfg_signed": rng.getrandbits(1),
                "cfg_height": rng.randint(1, limit),
                "cfg_width": rng.randint(1, limit),
            }
            left = sum(lengths) * pixel_tiles
            steps = ["flush", "begin"]
            while left and rng.random() >= RARELY:
                step = steps.pop(0) if steps else ""
                ready = rng.random() < next(readies)
                dut.cycle(
                    rst=0,
                    flush=step == "flush",
                    begin_run=step == "begin",
                    feed_word=word_out,
                    act_code=codes,
                    ready=ready,
                    **configuration,
                    **place,
                )
                left -= dut["valid"] and ready
                word_out = memory[dut["feed_addr"]] if dut["feed_read"] else word_out
                codes = rng.getrandbits(widths["act_code"]) if dut["act_read"] else codes
                if dut["pixel_load"] or dut["pixel_advance"]:
                    place = coordinates()
            if left:
                dut.cycle(rst=1)
            for _ in range(rng.randrange(3)):
                dut.cycle(rst=0, flush=0, begin_run=0, ready=rng.getrandbits(1))

    return drive


def drive_drain(cols: int, groups: int) -> Callable[[Dut, Random, int], None]:
    """Drive runs of a few tiles; a fire comes once the shadow registers are free."""

    def drive(dut: Dut, rng: Random, cycles: int) -> None:
        widths = dut.ports.inputs
        fires = moods(rng)
        noise = ("result", "result_overflow", "result_events", "pixel_exists")
        dut.cycle(rst=1, flush=0, begin_run=0, fire=0)
        parameters = 0
        while dut.cycles < cycles:
            pixel_tiles, channel_tiles = run_tiles(rng, 7)
            results, results_last = (rng.randint(1, cols) * groups for _ in range(2))
            high = (1 << (widths["cfg_minimum"] - 2)) - 1
            low = -high - 1
            if rng.random() < 0.4:
                low, high = sorted(rng.randint(low, high) for _ in range(2))
            configuration = {
                "cfg_pixel_tiles": pixel_tiles,
                "cfg_channel_tiles": channel_tiles,
                "cfg_results": results,
                "cfg_results_last": results_last,
                "cfg_first_channel": rng.getrandbits(widths["cfg_first_channel"]),
                "cfg_parameter_base": rng.getrandbits(widths["cfg_parameter_base"]),
                "cfg_shared_parameter": rng.getrandbits(1),
                "cfg_output_base": rng.getrandbits(widths["cfg_output_base"]),
                "cfg_out_words": rng.getrandbits(widths["cfg_out_words"]),
                "cfg_rounding": rng.randrange(5),
                "cfg_output_zero_point": rng.randint(low, high),
                "cfg_minimum": low,
                "cfg_maximum": high,
            }
            fired, tiles = 0, pixel_tiles * channel_tiles
            steps, finished = ["flush", "begin"], False
            while not finished and rng.random() >= RARELY:
                step = steps.pop(0) if steps else ""
                channel_last = fired // pixel_tiles == channel_tiles - 1
                dut.settle(
                    rst=0,
                    flush=step == "flush",
                    begin_run=step == "begin",
                    fire=0,
                    fire_results=results_last if channel_last else results,
                    param_word=parameters,
                    **configuration,
                    **{name: rng.getrandbits(widths[name]) for name in noise},
                )
                may = not step and fired < tiles and dut["handoff_ready"]
                fire = bool(may) and rng.random() < next(fires)
                dut.cycle(fire=fire, **dut.presets(rng, 0.02))
                fired += fire
                finished = bool(dut["finished"])
                if dut["param_read"]:
                    bias, shift = rng.randint(-50, 50), rng.randint(-6, 0)
                    multiplier = rng.randrange(1 << 30, 1 << 31)
                    if rng.random() < 0.5:  # a small multiplier shows its lowest bits
                        bits = rng.randrange(8, 30)
                        multiplier, shift = rng.randrange(1 << bits), 0
                        bias = rng.choice([-1, 1]) * rng.randrange(1 << (37 - bits))
                    parameters = (bias & 0xFFFFFFFF) << 40 | multiplier << 8 | shift & 0xFF
            if not finished:
                dut.cycle(rst=1)
            for _ in range(rng.randrange(3)):
                dut.cycle(rst=0, flush=0, begin_run=0, fire=0)

    return drive


# -- subjects -------------------------------------------------------------------------------------

_ACCUMULATOR = {"ADDEND_W": 10, "ACC_BITS": 12, "EVENTS_W": 3}
_PE = {"X_W": 6, "WEIGHT_W": 6, "SHIFT_W": 3, "ACC_BITS": 12, "EVENTS_W": 3}

SUBJECTS = (
    Subject("pe_shift_add", "pe_shift_add", {"X_W": 9, "TERMS": 2}, drive_combinational),
    Subject("pe_mac", "pe_mac", {"X_W": 9, "WEIGHT_W": 9}, drive_combinational),
    Subject("pe_ternary", "pe_ternary", {"X_W": 9}, drive_ternary, legal="code != 2'b10"),
    Subject("fit_signed wrap", "fit_signed", {"IN_W": 20, "OUT_W": 16}, drive_combinational),
    Subject(
        "fit_signed saturate",
        "fit_signed",
        {"IN_W": 20, "OUT_W": 16, "SATURATE": 1},
        drive_combinational,
    ),
    Subject(
        "pe_accumulator wrap", "pe_accumulator", _ACCUMULATOR, drive_accumulator, registers=True
    ),
    Subject(
        "pe_accumulator saturate",
        "pe_accumulator",
        _ACCUMULATOR | {"SATURATE": 1},
        drive_accumulator,
        registers=True,
    ),
    Subject(
        "pe_accumulator spill",
        "pe_accumulator",
        _ACCUMULATOR | {"SPILL": 3, "WIDE_BITS": 14},
        drive_accumulator,
        registers=True,
        # Of count steps, each an addend of 10 bits; there are events where there is an overflow.
        invariant="\\g_spill.count_q <= 3"
        " && $signed(acc_q) <= 511 * $signed({2'b0, \\g_spill.count_q })"
        " && $signed(acc_q) >= -512 * $signed({2'b0, \\g_spill.count_q })"
        " && overflow_q == (events_q != 0) && result_overflow == (result_events_q != 0)",
        begins="rst",
    ),
    Subject("napier_pe mac", "napier_pe", _PE | {"PE_KIND": MAC}, drive_pe(MAC), registers=True),
    Subject(
        "napier_pe serial",
        "napier_pe",
        _PE | {"PE_KIND": SHIFT_ADD},
        drive_pe(SHIFT_ADD),
        registers=True,
    ),
    Subject(
        "napier_pe parallel",
        "napier_pe",
        _PE | {"PE_KIND": SHIFT_ADD, "TERMS": 2},
        drive_pe(SHIFT_ADD),
        registers=True,
    ),
    Subject(
        "napier_pe ternary",
        "napier_pe",
        _PE | {"PE_KIND": TERNARY, "ACC_BITS": 8},
        drive_pe(TERNARY),
        registers=True,
        legal="code != 2'b10",
    ),
    Subject(
        "column_sequencer",
        "column_sequencer",
        {"DEPTH": 3},
        drive_sequencer(3),
        registers=True,
        legal="(!release_word || passed && n != 0) && (!fire || finished) && n <= 3",
        # An entry at the last of 3 words moves at most 15 words on.
        invariant="offset_q <= 17",
        begins="rst",
    ),
    Subject(
        "array_window",
        "array_window",
        {"WORD_W": 6, "DEPTH": 3},
        drive_window,
        legal="!release_word || n != 0",
    ),
    Subject(
        "requantizer",
        "requantizer",
        {},
        drive_requantizer,
        gates={"out_code": "out_valid"},
        legal="cfg_rounding <= 3'd4 && (cfg_rounding != 0 || !in_valid || !in_shift[7]"
        " || in_shift >= 8'd225)",
        # In `double` shifts go down to -31; 2^62, (-2^31) (-2^31), is the largest product.
        invariant="(!valid_q || cfg_rounding != 0 || \\u_rescaler.amount_q <= 31)"
        " && (!valid_q2 || (cfg_rounding != 0 || \\u_rescaler.amount_q2 <= 31)"
        " && !(\\u_rescaler.g_lane[0].product_q2 [63:62] == 2'd1"
        " && |\\u_rescaler.g_lane[0].product_q2 [61:0]))",
        begins="rst",
        matters={"g_lane[0].code_q3": "\\out_valid "},
    ),
    Subject(
        "napier_array",
        "napier_array",
        {"ROWS": 2, "COLS": 2, "FEED": 2, "DEPTH": 2, "X_W": 5, "WEIGHT_W": 4, "ACC_BITS": 8}
        | {"EVENTS_W": 2},
        drive_array(rows=2, cols=2, feed=2, x_bits=5, code_bits=4),
        registers=True,
        # A window of two words; an entry at its second word moves at most 15 words on.
        invariant="\\g_sequencer[0].u_sequencer.n <= 2 && "
        + " && ".join(f"\\g_sequencer[{c}].u_sequencer.offset <= 16" for c in range(2)),
        begins="rst",
    ),
    Subject("pixel_walker", "pixel_walker", {"ROWS": 2, "COORD_W": 8}, drive_walker(2)),
    Subject(
        "tile_counter",
        "tile_counter",
        {"TILE_W": 4},
        drive_tiles,
        # After the last tile the position means nothing.
        legal="cfg_pixel_tiles != 0 && cfg_channel_tiles != 0"
        " && (load || !advance || !pixel_last || !channel_last)",
        invariant="pixel_q < cfg_pixel_tiles && channel_q < cfg_channel_tiles",
        begins="load",
    ),
    Subject(
        "stream_reader",
        "stream_reader",
        {"ADDR_W": 5},
        drive_stream_reader,
        legal="!begin_run || !flush && !entry_valid",
        # It is read in tiles that are not the last pixel tile; that stays the same during a tile.
        matters={"first_q": "!pixel_last"},
        matters_after={
            "first_q": "!pixel_last || begin_run || entry_valid && entry_ready && last && part_last"
        },
        gates={"addr": "read"},
    ),
    Subject(
        "feeder",
        "feeder",
        {"ROWS": 3, "FEED": 2, "CODE_W": 4, "FEED_ADDR_W": 4, "ACT_ADDR_W": 4, "TAP_W": 3}
        | {"COORD_W": 7, "TILE_W": 3},
        drive_feeder(3),
        # rot is a row, and a tap does not carry a coordinate over its range.
        legal="cfg_pixel_tiles != 0 && cfg_channel_tiles != 0 && feed_word[7:6] != 2'd3 && "
        + " && ".join(
            f"(pixel_{axis}[{7 * row + 6}] || pixel_{axis}[{7 * row + 6}:{7 * row}] <= 7'd56)"
            for axis in "yx"
            for row in range(3)
        ),
        gates={"feed_addr": "feed_read", "act_addr": "act_read", "data": "valid"}
        | {"mask": "valid", "last": "valid"},
    ),
    Subject(
        "drain",
        "drain",
        {"ROWS": 4, "COLS": 3, "FEED": 2, "LANES": 2, "CODE_W": 8, "RESULT_W": 10}
        | {"EVENTS_W": 30, "PARAM_ADDR_W": 4, "OUT_ADDR_W": 4, "TILE_W": 3},
        drive_drain(cols=3, groups=2),
        gates={
            "result_col": "param_read",
            "param_addr": "param_read",
            "out_addr": "out_write",
            "out_data": "out_write",
        },
        kept=("rescaler", "requantizer"),
        presets=("events_q", "outputs_q"),
        # Two groups of rows: every tile has an even number of results.
        legal="cfg_pixel_tiles != 0 && cfg_channel_tiles != 0 && !cfg_results[0]"
        " && !cfg_results_last[0] && !fire_results[0]",
        # It is set to 0 before the first read of a tile.
        matters={"index_q": "param_read"},
    ),
)
"""The modules of the campaign, from the arithmetic up."""
