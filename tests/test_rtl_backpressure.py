"""Streams that idle and stall as they like change no result: 4 idle rates x 4 stall rates.

The idle rate is the probability that a source has nothing in a cycle, the stall rate the
probability that the sink does not take it. The requantizer has the same 16 combinations against
golden in test_rtl_requantizer.py. A column sequencer has its streams in the array.
"""

import random
from itertools import chain, product

import pytest

from rtl_models.replay import build_dut
from rtl_models.subjects import SUBJECTS

KNOWN = {subject.name: subject for subject in SUBJECTS}
RATES = (0.0, 0.1, 0.5, 0.9)
LIMIT_CYCLES = 20_000

pytestmark = [pytest.mark.rtl, pytest.mark.slow]


class Source:
    """Items in their order; one that is offered stays until it is taken."""

    def __init__(self, items, idle, rng):
        self.items, self.idle, self.rng = list(items), idle, rng
        self.offered = False

    def offer(self):
        self.offered = self.offered or (bool(self.items) and self.rng.random() >= self.idle)
        return self.offered

    @property
    def head(self):
        return self.items[0]

    def take(self):
        self.items.pop(0)
        self.offered = False


def pack(values, bits):
    return sum((value & ((1 << bits) - 1)) << (bits * index) for index, value in enumerate(values))


def unpack_signed(vector, count, bits):
    half = 1 << (bits - 1)
    values = [vector >> (bits * index) & (2 * half - 1) for index in range(count)]
    return [(value ^ half) - half for value in values]


def assert_rates_change_nothing(run, expected):
    """Call run(idle, stall, rng) with all 16 combinations; returns their numbers of cycles."""
    cycles = {}
    for seed, (idle, stall) in enumerate(product(RATES, RATES)):
        found, cycles[idle, stall] = run(idle, stall, random.Random(seed))
        assert found == expected, f"idle {idle}, stall {stall}"
    return cycles


# -- array ------------------------------------------------------------------------------------

ROWS, COLS, FEED, X_BITS, CODE_BITS, ACC_BITS = 2, 2, 2, 5, 4, 8


def array_tiles(rng, count, longest=8, x_limit=16, weight_limit=8):
    """Words [row][lane] and entries (last, advance, lane, weight) of each column."""
    tiles = []
    for _ in range(count):
        length = rng.randrange(1, longest + 1)
        words = [
            [[rng.randrange(-x_limit, x_limit) for _ in range(FEED)] for _ in range(ROWS)]
            for _ in range(length)
        ]

        def weight():
            return rng.randrange(-weight_limit, weight_limit)

        columns = []
        for _ in range(COLS):
            steps = [1 if word < length - 1 else 0 for word in range(length)]
            entries = []
            for step in steps:
                entries += [(0, 0, rng.randrange(FEED), weight()) for _ in range(rng.randrange(3))]
                entries.append((0, step, rng.randrange(FEED), weight()))
            entries[-1] = (1, 1, *entries[-1][2:])
            columns.append(entries)
        tiles.append((words, columns))
    return tiles


def array_results(tiles, bits=ACC_BITS):
    """Sum of operand times weight, modulo 2^bits, tile by tile, column by column."""
    results = []
    for words, columns in tiles:
        for entries in columns:
            sums, word = [0] * ROWS, 0
            for _, advance, lane, weight in entries:
                sums = [total + words[word][r][lane] * weight for r, total in enumerate(sums)]
                word += advance
            half = 1 << (bits - 1)
            results.append([(total + half) % (2 * half) - half for total in sums])
    return results


def run_array(dut, tiles, idle, stall, rng):
    feed = Source([word for words, _ in tiles for word in words], idle, rng)
    columns = [
        Source([entry for _, entries in tiles for entry in entries[c]], idle, rng)
        for c in range(COLS)
    ]
    results, reads, busy, cycle = [], {}, 0, 0
    noise_bits = dut.ports.inputs["feed_data"]
    dut.cycle(rst=1, flush=0, feed_valid=0, entry_valid=0, handoff_ready=0, drain_enable=1)
    while len(results) < COLS * len(tiles) and cycle < LIMIT_CYCLES:
        packed = []
        for column in columns:
            last, advance, lane, weight = column.head if column.offer() else (1, 9, 1, 5)
            packed.append(((last << 4 | advance) << 1 | lane) << CODE_BITS | weight & 15)
        operands = rng.getrandbits(noise_bits)
        if feed.offer():
            operands = pack([x for row in feed.head for x in row], X_BITS)
        dut.cycle(
            rst=0,
            feed_valid=feed.offered,
            feed_data=operands,
            entry_valid=pack([column.offered for column in columns], 1),
            entry_data=pack(packed, 6 + CODE_BITS),
            handoff_ready=busy == 0 and rng.random() >= stall,
            result_col=reads.get(cycle, 0),
        )
        if cycle in reads:
            results.append(unpack_signed(dut["result"], ROWS, ACC_BITS))
        if feed.offered and dut["feed_ready"]:
            feed.take()
        for c, column in enumerate(columns):
            if column.offered and dut["entry_ready"] >> c & 1:
                column.take()
        busy = max(busy - 1, 0)
        if dut["fire"]:  # COLS results are read from three cycles later on (rules D1, D2)
            reads |= {cycle + 3 + c: c for c in range(COLS)}
            busy = COLS - 1
        cycle += 1
    return results, cycle


def test_array_sums_do_not_depend_on_idle_and_stalled_streams(tmp_path):
    dut = build_dut(KNOWN["napier_array"], tmp_path)
    tiles = array_tiles(random.Random(1), 30)
    cycles = assert_rates_change_nothing(
        lambda *rates: run_array(dut, tiles, *rates), array_results(tiles)
    )
    assert cycles[0.9, 0.0] > 2 * cycles[0.0, 0.0]
    assert cycles[0.0, 0.9] > cycles[0.0, 0.0]


# -- core and vector unit ---------------------------------------------------------------------


def drive_tiles(dut, words, width, reads_a_tile, idle, stall, rng, every_cycle):
    """Feed (word, last) until all have fired; results [row] as they are read after each fire."""
    feed = Source(words, idle, rng)
    tiles = sum(last for _, last in words)
    results, reads, busy, cycle, fired = [], {}, 0, 0, 0
    while len(results) < reads_a_tile * tiles and cycle < LIMIT_CYCLES:
        data, last = feed.head if feed.offer() else (rng.getrandbits(9 * ROWS * FEED), 1)
        select = reads.get(cycle, 0)
        dut.cycle(
            rst=0,
            flush=0,
            feed_valid=feed.offered,
            feed_data=data,
            feed_last=last,
            handoff_ready=busy == 0 and rng.random() >= stall,
            **every_cycle(select, cycle, fired),
        )
        if cycle in reads:
            results.append(unpack_signed(dut["result"], ROWS, width))
        if feed.offered and dut["feed_ready"]:
            feed.take()
        busy = max(busy - 1, 0)
        if dut["fire"]:  # in the shadow registers from three cycles later on (rule D2)
            reads |= {cycle + 3 + place: place for place in range(reads_a_tile)}
            busy, fired = reads_a_tile - 1, fired + 1
        cycle += 1
    return results, cycle


def test_core_gives_the_same_results_to_idle_words_and_late_drains(tmp_path):
    dut = build_dut(KNOWN["engine_core"], tmp_path)
    tiles = array_tiles(random.Random(3), 7, longest=3, x_limit=7, weight_limit=7)
    words = [
        (pack([x for row in word for x in row], 9), word is part[-1])
        for part, _ in tiles
        for word in part
    ]
    memories = [
        [
            ((last << 4 | advance) << 1 | lane) << 5 | weight & 31
            for _, columns in tiles
            for last, advance, lane, weight in columns[c]
        ]
        for c in range(COLS)
    ]
    assert max(map(len, memories)) <= 64

    def run(idle, stall, rng):
        outputs = [0] * COLS

        def ports(select, cycle, fired):
            for c in range(COLS):
                if cycle and dut["stream_read"] >> c & 1:
                    outputs[c] = memories[c][dut["stream_addr"] >> 6 * c & 63]
            return {
                "begin_run": cycle == 0,
                "part_last": 1,
                "pixel_last": 1,
                "run_last": fired == len(tiles) - 1,
                "stream_entry": pack(outputs, 11),
                "result_col": select,
            }

        dut.cycle(rst=1, flush=0, begin_run=0, feed_valid=0, cfg_mode=0, cfg_drain=1)
        return drive_tiles(dut, words, 32, COLS, idle, stall, rng, ports)

    cycles = assert_rates_change_nothing(run, array_results(tiles, 12))
    assert min(cycles[0.9, 0.0], cycles[0.0, 0.9]) > cycles[0.0, 0.0]


def test_vector_unit_reduces_the_same_tiles_at_any_pace(tmp_path):
    dut = build_dut(KNOWN["vector_unit"], tmp_path)
    draw = random.Random(4)
    tiles = [[draw.sample(range(-15, 16), 4) for _ in range(draw.randint(1, 6))] for _ in range(40)]
    words = [(pack(word, 5), word is tile[-1]) for tile in tiles for word in tile]

    def lane_port(lane, *_):
        return {"result_lane": lane}

    for mode, reduce in ((1, sum), (2, max)):
        expected = [
            [reduce(word[row * FEED + lane] for word in tile) for row in range(ROWS)]
            for tile in tiles
            for lane in range(FEED)
        ]

        def run(idle, stall, rng, mode=mode):
            dut.cycle(rst=1, flush=0, feed_valid=0, cfg_mode=mode, drain_enable=1, feed_mask=3)
            return drive_tiles(dut, words, 16, FEED, idle, stall, rng, lane_port)

        cycles = assert_rates_change_nothing(run, expected)
        assert min(cycles[0.9, 0.0], cycles[0.0, 0.9]) > 2 * cycles[0.0, 0.0]


# -- host -------------------------------------------------------------------------------------

ENABLE, LAYER, BASE_LOW, BASE_HIGH, PROGRAM, STATUS = 0x30, 0x40, 0x24, 0x28, 0x2C, 0x18
KEPT = {ENABLE: 3, LAYER: 0xFFFFFFFF, BASE_LOW: 0xFFFFF000, BASE_HIGH: 0x3F, PROGRAM: 0xFFFFF000}
OKAY, SLVERR = 0, 2


def run_host(dut, accesses, idle, stall, rng):
    """Answers of writes (response) and reads (data, response), one access after the other."""
    answers, cycle = [], 0
    dut.cycle(rst=1, **{f"s_axi_{name}valid": 0 for name in ("aw", "w", "ar")})
    for kind, offset, data in accesses:
        waiting = {"aw", "w"} if kind == "write" else {"ar"}
        answer, offered = "b" if kind == "write" else "r", set()
        while cycle < LIMIT_CYCLES:
            offered |= {channel for channel in sorted(waiting) if rng.random() >= idle}
            ready = rng.random() >= stall
            dut.cycle(
                rst=0,
                s_axi_awaddr=offset if "aw" in offered else rng.getrandbits(12),
                s_axi_araddr=offset if "ar" in offered else rng.getrandbits(12),
                s_axi_wdata=data if "w" in offered else rng.getrandbits(32),
                s_axi_wstrb=15 if "w" in offered else rng.getrandbits(4),
                s_axi_bready=ready,
                s_axi_rready=ready,
                **{f"s_axi_{channel}valid": channel in offered for channel in ("aw", "w", "ar")},
            )
            cycle += 1
            taken = {channel for channel in offered if dut[f"s_axi_{channel}ready"]}
            waiting, offered = waiting - taken, offered - taken
            if ready and dut[f"s_axi_{answer}valid"]:
                read = kind == "read"
                answers.append(
                    (dut["s_axi_rdata"], dut["s_axi_rresp"]) if read else dut["s_axi_bresp"]
                )
                break
    return answers, cycle


@pytest.mark.parametrize("name", ["axi_lite_registers", "control"])
def test_host_gets_the_same_answers_at_any_pace(tmp_path, name):
    dut = build_dut(KNOWN[name], tmp_path)
    draw, values = random.Random(6), dict.fromkeys(KEPT, 0)
    accesses, expected = [], []
    for _ in range(60):
        offset, data = draw.choice([*KEPT, STATUS, 0x44, LAYER + 1]), draw.getrandbits(32)
        known = offset in KEPT
        if draw.random() < 0.5:
            accesses.append(("write", offset, data))
            expected.append(OKAY if known else SLVERR)
            values |= {offset: data & KEPT[offset]} if known else {}
        else:
            accesses.append(("read", offset, 0))
            expected.append((values.get(offset, 0), OKAY if known or offset == STATUS else SLVERR))
    cycles = assert_rates_change_nothing(lambda *rates: run_host(dut, accesses, *rates), expected)
    assert min(cycles[0.9, 0.0], cycles[0.0, 0.9]) > 2 * cycles[0.0, 0.0]


# -- window -----------------------------------------------------------------------------------


def run_window(dut, words, idle, stall, rng):
    feed, left, cycle = Source(words, idle, rng), [], 0
    dut.cycle(rst=1, flush=0, feed_valid=0, release_word=0)
    while len(left) < len(words) and cycle < LIMIT_CYCLES:
        word = feed.head if feed.offer() else rng.getrandbits(6)
        dut.settle(rst=0, feed_valid=feed.offered, feed_data=word, release_word=0)
        release = dut["n"] > 0 and rng.random() >= stall
        if release:
            left.append(dut["words"] & 63)
        dut.cycle(release_word=release)
        if feed.offered and dut["feed_ready"]:
            feed.take()
        cycle += 1
    return left, cycle


def test_window_releases_the_words_that_were_fed(tmp_path):
    dut = build_dut(KNOWN["array_window"], tmp_path)
    words = [random.Random(1).getrandbits(6) for _ in range(200)]
    cycles = assert_rates_change_nothing(lambda *rates: run_window(dut, words, *rates), words)
    assert cycles[0.0, 0.0] == 201  # one word a cycle, the first one cycle after it was fed
    assert min(cycles[0.9, 0.0], cycles[0.0, 0.9]) > 1000


# -- stream reader ----------------------------------------------------------------------------

PIXEL_TILES, PARTS, BASE = 3, ((1, 3), (4, 1), (2, 2)), 30


def run_reader(dut, idle, stall, rng):
    """Addresses of the entries that were taken; idle: how long a part's end waits for its fire."""
    memory = [0] * 32
    at = BASE
    for length in chain(*PARTS):
        at += length
        memory[(at - 1) % 32] = 1
    ends = 2 * PIXEL_TILES * len(PARTS)
    dut.cycle(rst=1, flush=0, begin_run=0, entry_ready=0)
    dut.cycle(rst=0, begin_run=1, cfg_base=BASE)
    part, done, held, taken, cycle = 0, False, dut["addr"], [], 0
    while part < ends and cycle < LIMIT_CYCLES:
        ready = not done and rng.random() >= stall
        dut.cycle(
            begin_run=0,
            last=memory[held],
            entry_ready=ready,
            part_last=part % 2,
            pixel_last=part // 2 % PIXEL_TILES == PIXEL_TILES - 1,
            run_last=part == ends - 1,
        )
        if dut["entry_valid"] and ready:
            taken.append(held)
            done = memory[held] == 1
        held = dut["addr"] if dut["read"] else held
        if done and rng.random() >= idle:
            part, done = part + 1, False
        cycle += 1
    dut.cycle(entry_ready=1)
    assert not dut["entry_valid"], "the stream goes on after the last tile"
    return taken, cycle


def test_stream_reader_repeats_its_tiles_at_any_pace(tmp_path):
    dut = build_dut(KNOWN["stream_reader"], tmp_path)
    expected, first = [], BASE
    for lengths in PARTS:  # rules S5, W4: all parts of a channel tile once for each pixel tile
        expected += [(first + entry) % 32 for entry in range(sum(lengths))] * PIXEL_TILES
        first += sum(lengths)
    assert_rates_change_nothing(lambda *rates: run_reader(dut, *rates), expected)


# -- feeder -----------------------------------------------------------------------------------

FEEDER_ROWS, TAP_BITS, COORD_BITS = 3, 3, 7


def run_feeder(dut, stall, rng):
    """Operands that the window took; its memories answer in every cycle, so nothing idles."""
    draw = random.Random(5)
    lengths, pixel_tiles = (3, 1, 4), 2
    memory = []
    for length in lengths:
        for word in range(length):
            packed = draw.getrandbits(5) << 2 | draw.randrange(FEEDER_ROWS)
            packed = packed << 2 * TAP_BITS | draw.getrandbits(2 * TAP_BITS)
            memory.append((word == length - 1) << 13 | packed)
    places = [[draw.randrange(-3, 9) for _ in range(2 * FEEDER_ROWS)] for _ in range(pixel_tiles)]
    codes = [[draw.getrandbits(8) for _ in range(16)] for _ in range(FEEDER_ROWS)]
    dut.cycle(rst=1, flush=0, begin_run=0, ready=0)
    word = code = tile = cycle = 0
    taken = []
    while len(taken) < pixel_tiles * sum(lengths) and cycle < LIMIT_CYCLES:
        ready = rng.random() >= stall
        place = places[tile % pixel_tiles]
        dut.cycle(
            rst=0,
            begin_run=cycle == 0,
            feed_word=word,
            act_code=code,
            ready=ready,
            cfg_pixel_tiles=pixel_tiles,
            cfg_channel_tiles=len(lengths),
            cfg_feed_base=0,
            cfg_activation_base=3,
            cfg_in_words=2,
            cfg_zero_point=-2,
            cfg_signed=1,
            cfg_height=8,
            cfg_width=8,
            pixel_y=pack(place[:FEEDER_ROWS], COORD_BITS),
            pixel_x=pack(place[FEEDER_ROWS:], COORD_BITS),
            pixel_exists=7,
        )
        if dut["valid"] and ready:
            taken.append(dut["data"])
        if dut["feed_read"]:
            word = memory[dut["feed_addr"]]
        if dut["act_read"]:
            addresses = [dut["act_addr"] >> 4 * bank & 15 for bank in range(FEEDER_ROWS)]
            code = pack([codes[bank][at] for bank, at in enumerate(addresses)], 8)
        if dut["pixel_load"]:
            tile = 0
        elif dut["pixel_advance"]:
            tile += 1
        cycle += 1
    return taken, cycle


def test_feeder_gives_the_same_operands_to_a_window_that_stalls(tmp_path):
    dut = build_dut(KNOWN["feeder"], tmp_path)
    expected, fastest = run_feeder(dut, 0.0, random.Random(0))
    assert len(expected) == 16
    assert len(set(expected)) > 8
    for seed, stall in enumerate(RATES):
        found, cycles = run_feeder(dut, stall, random.Random(seed))
        assert found == expected, f"stall {stall}"
        assert stall < 0.9 or cycles > 3 * fastest


# -- drain ------------------------------------------------------------------------------------


def run_drain(dut, idle, rng):
    """Writes of a run whose tiles end late; nothing stalls the drain, which holds the array up."""
    draw = random.Random(7)
    tiles, results, widths = 6, 6, dut.ports.inputs
    noise = ("result", "result_overflow", "result_events")
    shadows = [{name: draw.getrandbits(widths[name]) for name in noise} for _ in range(tiles)]
    rows = [draw.getrandbits(4) for _ in range(tiles)]
    parameters = [draw.getrandbits(6) << 40 | 1 << 38 | 0xFE for _ in range(16)]
    writes, fires, cycle, word, pixels = [], [], 0, 0, 0
    dut.cycle(rst=1, flush=0, begin_run=0, fire=0)
    finished = False
    while not finished and cycle < LIMIT_CYCLES:
        # The shadow registers take a tile's results three cycles after its fire (rule P4).
        filled = sum(fire + 3 <= cycle for fire in fires)
        dut.settle(
            rst=0,
            begin_run=cycle == 0,
            fire=0,
            fire_results=results,
            cfg_pixel_tiles=3,
            cfg_channel_tiles=2,
            cfg_results=results,
            cfg_results_last=results,
            cfg_first_channel=0,
            cfg_parameter_base=2,
            cfg_shared_parameter=0,
            cfg_output_base=1,
            cfg_out_words=2,
            cfg_rounding=1,
            cfg_output_zero_point=1,
            cfg_minimum=-128,
            cfg_maximum=127,
            param_word=word,
            pixel_exists=rows[min(pixels, tiles - 1)],
            **shadows[max(filled - 1, 0)],
        )
        may = cycle > 0 and len(fires) < tiles and dut["handoff_ready"]
        fire = bool(may) and rng.random() >= idle
        dut.cycle(fire=fire)
        fires += [cycle] if fire else []
        if dut["out_write"]:
            writes.append((dut["out_write"], dut["out_addr"], dut["out_data"]))
        word = parameters[dut["param_addr"]] if dut["param_read"] else word
        pixels += dut["pixel_advance"]
        finished = bool(dut["finished"])
        cycle += 1
    return (writes, dut["overflow_events"], dut["overflow_outputs"]), cycle


def test_drain_writes_the_same_codes_however_late_the_tiles_end(tmp_path):
    dut = build_dut(KNOWN["drain"], tmp_path)
    expected, fastest = run_drain(dut, 0.0, random.Random(0))
    assert len(expected[0]) > 20
    for seed, idle in enumerate(RATES):
        found, cycles = run_drain(dut, idle, random.Random(seed))
        assert found == expected, f"idle {idle}"
        assert idle < 0.9 or cycles > fastest + 20
