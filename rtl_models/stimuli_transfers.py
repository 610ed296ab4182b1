"""Legal random stimuli for the dma and its parts: bursts, beats, and the pieces of banks.

As in `rtl_models.stimuli`. Beats carry random bits: what they say of a section's end makes many
blocks wrong, which the modules must tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from rtl_models.dut import Dut
from rtl_models.mutants import Subject
from rtl_models.stimuli import RARELY, moods, word

DESCRIPTOR, WEIGHTS, ACTIVATIONS, SECOND, STORE = range(5)
WORD_BITS = 32
MOST_OUTSTANDING = 8


def count(rng: Random, most: int = 6) -> int:
    """Draw a small count, or one beside a power of two: no carry is far away."""
    if rng.random() < 0.85:
        return rng.randint(1, most)
    return max(1, (1 << rng.randrange(WORD_BITS)) + rng.randint(0, 3))


def far(rng: Random, most: int = 6) -> int:
    """Draw a small count with one more bit: a fault that loses the bit ends early."""
    return (1 << rng.randrange(3, WORD_BITS)) + rng.randint(1, most)


def step(rng: Random, small: bool, most: int = 4) -> int:
    """Draw a distance of words: few of them, forth or back, any, or few with one more bit."""
    few = rng.randrange(most)
    if small:
        return few
    return rng.choice([word(rng, WORD_BITS), ~few, few + (1 << rng.randrange(WORD_BITS))])


def aligned(rng: Random) -> int:
    """Draw any multiple of a power of two: what is added to its negative carries from there on."""
    places = rng.randrange(WORD_BITS)
    return rng.getrandbits(WORD_BITS - places) << places


def noise(dut: Dut, rng: Random, names: Sequence[str]) -> dict[str, int]:
    """Draw bits for inputs that mean nothing."""
    return {name: rng.getrandbits(dut.ports.inputs[name]) for name in names}


def drive_writer(dut: Dut, rng: Random, cycles: int) -> None:
    """Announce bursts, at most 8 that are not sent, and offer beats that stay until taken."""
    widths = dut.ports.inputs
    bursts, valids, readies, answers = (moods(rng) for _ in range(4))
    dut.cycle(rst=1, burst=0, beat_valid=0, m_axi_wready=0, m_axi_bvalid=0)
    announced, offered = 0, False
    while dut.cycles < cycles:
        rst = rng.random() < RARELY / 3
        burst = announced < MOST_OUTSTANDING and rng.random() < next(bursts)
        length = rng.choice([0, rng.randrange(4), rng.randrange(40), rng.randrange(256)])
        if not offered:
            offered = rng.random() < next(valids)
            data, strobes = rng.getrandbits(widths["beat"]), rng.getrandbits(widths["beat_strobes"])
        dut.cycle(
            rst=rst,
            burst=burst,
            burst_beats_less_1=length,
            beat_valid=offered,
            beat=data,
            beat_strobes=strobes,
            m_axi_wready=rng.random() < next(readies),
            m_axi_bvalid=rng.random() < 0.3 * next(answers),
            m_axi_bresp=rng.getrandbits(2),
        )
        announced += burst
        if dut["beat_taken"]:
            offered = False
            announced -= dut["m_axi_wlast"]
        if rst:
            announced, offered = 0, False


def drive_bursts(dut: Dut, rng: Random, cycles: int) -> None:
    """Cut runs of every length, some of them aborted, with ends of bursts that come late."""
    widths = dut.ports.inputs
    starts = [name for name in widths if name.startswith("start_")]
    readies, ends = moods(rng), moods(rng)
    dut.cycle(rst=1, op_abort=0, start=0, ready=0, burst_end=0)
    while dut.cycles < cycles:
        far = rng.random() < 0.3
        dut.cycle(
            rst=0,
            op_abort=0,
            start=1,
            ready=rng.getrandbits(1),
            burst_end=0,
            start_addr=rng.getrandbits(widths["start_addr"]),
            start_bytes=word(rng, 16) % (1 << 16) or 1 if far else rng.randint(1, 200),
            start_stride=word(rng, WORD_BITS) if far else rng.randrange(300),
            start_runs=count(rng),
        )
        dut.settle(start=0)
        outstanding, patience, abort = 0, rng.choice([20, 60, 200]), False
        while (dut["active"] or outstanding) and rng.random() >= RARELY / 3:
            patience -= 1
            abort = abort or patience < 0 or rng.random() < 0.002
            end = outstanding > 0 and rng.random() < next(ends)
            dut.cycle(
                op_abort=abort,
                ready=rng.random() < next(readies),
                burst_end=end,
                **noise(dut, rng, starts),
            )
            outstanding += (dut["valid"] and dut.value("ready")) - end
            dut.settle(burst_end=0)
        if dut["active"] or outstanding:
            dut.cycle(rst=1, op_abort=0, burst_end=0)


def drive_weights(cols: int) -> Callable[[Dut, Random, int], None]:
    """Drive blocks of sections of random lengths, right and wrong ones."""

    def drive(dut: Dut, rng: Random, cycles: int) -> None:
        data_bits = dut.ports.inputs["beat"] - 1
        valids = moods(rng)

        def first() -> int:
            return rng.choice([0, rng.randrange(8), word(rng, WORD_BITS)])

        start = dut.cycle_unseen
        while dut.cycles < cycles:
            vector = int(rng.random() < 0.3)
            configuration = {
                "cfg_load_feed": first(),
                "cfg_load_parameters": first(),
                "cfg_load_streams": first(),
                "cfg_vector": vector,
            }
            start(start=1, beat_valid=0, **configuration, **noise(dut, rng, ("block_end", "beat")))
            start = dut.cycle
            sections = (2 if vector else 2 + cols) + rng.choice([0, 0, 0, -1, 1])
            lengths = [rng.choice([1, 2, 3, 3, 6, 9]) for _ in range(sections)]
            while lengths:
                valid = rng.random() < next(valids)
                end = lengths[0] == 1
                if not valid:
                    end = bool(rng.getrandbits(1))
                dut.cycle(
                    start=0,
                    beat_valid=valid,
                    beat=end << data_bits | rng.getrandbits(data_bits),
                    block_end=(valid and lengths == [1]) or rng.random() < 0.05,
                )
                if valid:
                    lengths[0] -= 1
                    if not lengths[0]:
                        lengths.pop(0)
            for _ in range(rng.randrange(3)):
                dut.cycle(beat_valid=0, block_end=rng.getrandbits(1))

    return drive


def load_configuration(rng: Random, rows: int, word_bytes: int, act_words: int) -> dict[str, int]:
    """Draw fields of a load: one that mostly fits the banks, or one of any addresses."""
    stride_x, stride_y = rng.choice([(1, 1), (rng.randint(1, 4), rng.randint(1, 4))])
    kind = rng.random()
    if kind < 0.1:
        stride_x, stride_y = rng.randint(1, 255), rng.randint(1, 255)
    elif kind < 0.3:  # one more bit than the phases reach
        stride_x, stride_y = (rng.randint(1, 4) | 1 << rng.randrange(8) for _ in range(2))
    phase_y = rng.randrange(min(stride_y, rng.choice([4, 255])))
    row_words = rng.choice([rng.randint(1, 3), rng.randint(1, 12), rng.randint(1, 40)])
    if rng.random() < 0.3:  # the phase returns to 0 soon
        stride_y |= 1 << rng.randrange(8)
        phase_y = stride_y - 1 - rng.randrange(min(stride_y, 3))
        row_words = rng.randint(1, 2)
    image_rows = rng.randint(1, 4)
    small = rng.random() < 0.6
    values = {
        "cfg_load_segments": rng.randint(1, 4),
        "cfg_load_words": rng.choice([row_words, row_words * image_rows, rng.randint(1, 20)]),
        "cfg_load_stride": rng.choice([rng.randrange(64), rng.getrandbits(29)]) * word_bytes,
        "cfg_load_row_words": row_words,
        "cfg_load_rows": image_rows,
        "cfg_load_stride_x": stride_x,
        "cfg_load_stride_y": stride_y,
        "cfg_load_bank": rng.randrange(rows),
        "cfg_load_phase_words": step(rng, small),
        "cfg_load_pitch_banks": rng.randrange(rows),
        "cfg_load_phase_y": phase_y,
        "cfg_load_pitch_words": step(rng, small),
        "cfg_in_words": 1 + step(rng, small, 3),
    }
    if rng.random() < 0.2:  # any product of the first phase
        values["cfg_load_stride_x"], values["cfg_load_stride_y"] = rng.randint(1, 255), 255
        values["cfg_load_phase_words"] = rng.getrandbits(WORD_BITS)
        values["cfg_load_phase_y"] = phase_y = rng.randrange(255)
        stride_x = values["cfg_load_stride_x"]
    if rng.random() < 0.3:
        values[rng.choice(["cfg_load_words", "cfg_load_row_words", "cfg_load_rows"])] = far(rng)
    first = phase_y * stride_x * values["cfg_load_phase_words"]
    # A plane before the memory: the next one is in it.
    place = rng.randrange(act_words) if rng.random() < 0.9 else -1
    kind = rng.random()
    if kind < 0.2:  # the next line is in the memory, this one is not
        values["cfg_in_words"] = aligned(rng)
        place -= values["cfg_in_words"]
    elif kind < 0.5:  # the next row is, or the next word
        values["cfg_load_phase_words"] = aligned(rng)
        first = phase_y * stride_x * values["cfg_load_phase_words"]
        place -= rng.choice([0, 1, stride_x]) * values["cfg_load_phase_words"]
    if rng.random() < 0.2:  # what the wrap adds is taken back
        values["cfg_load_pitch_words"] = rng.randrange(4) - values["cfg_in_words"]
    values["cfg_load_base"] = place - first
    values["cfg_second_load_base"] = rng.randrange(act_words) - first
    return values


def drive_activations(rows: int, word_bytes: int, words: int) -> Callable[[Dut, Random, int], None]:
    """Drive loads of random layouts, beat by beat."""

    def drive(dut: Dut, rng: Random, cycles: int) -> None:
        widths = dut.ports.inputs
        valids = moods(rng)
        while dut.cycles < cycles:
            values = load_configuration(rng, rows, word_bytes, words)
            configuration = {n: v for n, v in values.items() if n in widths}
            beat = rng.getrandbits(widths["beat"])
            for cycle in range(3):  # the first beat comes 3 cycles after start
                dut.cycle_unseen(
                    start=cycle == 0,
                    start_byte=rng.getrandbits(WORD_BITS) * word_bytes,
                    start_base=values["cfg_load_base"],
                    beat_valid=0,
                    beat=beat,
                    **configuration,
                )
            valid = False
            for _ in range(rng.randrange(5, 60)):
                if not valid:
                    valid = rng.random() < next(valids)
                    beat = rng.getrandbits(widths["beat"])
                dut.cycle(start=0, beat_valid=valid, beat=beat, start_base=rng.getrandbits(32))
                valid = valid and not dut["beat_done"]

    return drive


def store_configuration(rng: Random, rows: int, feed: int, out_words: int) -> dict[str, int]:
    """Draw fields of a store: one that mostly fits the banks, or one of any addresses."""
    small = rng.random() < 0.6
    word_bytes = feed  # of 8-bit codes
    values = {
        "store_segments": rng.randint(1, 3),
        "store_words": rng.randint(1, 14),
        "store_stride": rng.choice([rng.randrange(64), rng.getrandbits(29)]) * word_bytes,
        "store_base": rng.randrange(out_words),
        "store_bank": rng.randrange(rows),
        "store_first_row_words": rng.randint(1, 8),
        "store_row_words": rng.randint(1, 8),
        "store_gap_banks": rng.randrange(rows),
        "store_gap_words": step(rng, small, 3),
        "store_first_lane": rng.randrange(feed),
        "store_last_lane": rng.randrange(feed),
        "store_form": rng.choice([0, 0, 1, 2]),
        "out_words": 1 + step(rng, small, 3),
    }
    if rng.random() < 0.1:
        values["store_base"] = step(rng, False, out_words)
    elif rng.random() < 0.4:  # an output of the tile is in the memory, or the next tile; not this
        values["out_words"] = aligned(rng)
        tiles = rng.choice([1 << 2 * values["store_form"], rng.randrange(16)])
        values["store_base"] -= tiles * values["out_words"]
        if rng.random() < 0.5:  # all rows of a tile, soon
            values |= {f"store_{name}row_words": rng.randint(1, 3) for name in ("first_", "")}
        if rng.random() < 0.3:  # what the wrap adds is taken back
            values["store_gap_words"] = rng.randrange(3) - tiles * values["out_words"]
    elif rng.random() < 0.2:  # the next row is
        values["store_gap_words"] = aligned(rng)
        values["store_base"] -= values["store_gap_words"]
    return values


def drive_packer(rows: int, feed: int, out_words: int) -> Callable[[Dut, Random, int], None]:
    """Drive stores of random layouts; banks answer what is read, beats are taken late."""

    def drive(dut: Dut, rng: Random, cycles: int) -> None:
        widths = dut.ports.inputs
        starts = [name for name in widths if name.startswith("start_")]
        readies = moods(rng)
        dut.cycle(rst=1, start=0, beat_taken=0)
        data = 0
        while dut.cycles < cycles:
            values = store_configuration(rng, rows, feed, out_words)
            values["runs"] = values.pop("store_segments")
            for name in ("runs", "store_words", "store_first_row_words", "store_row_words"):
                if rng.random() < 0.15:
                    values[name] = far(rng)
            sampled = {f"start_{n.removeprefix('store_')}": v for n, v in values.items()}
            dut.cycle(
                rst=0,
                start=1,
                start_byte=rng.getrandbits(WORD_BITS) * feed,
                beat_taken=0,
                out_read_data=data,
                **sampled,
            )
            idle, left = 0, rng.choice([25, 40, 150])
            while idle < 4 and left:
                left -= 1
                dut.settle(start=0, out_read_data=data, beat_taken=0)
                taken = dut["beat_valid"] and rng.random() < next(readies)
                dut.cycle(beat_taken=taken, **noise(dut, rng, starts))
                if dut["out_read"]:
                    data = rng.getrandbits(widths["out_read_data"])
                idle = 0 if dut["out_read"] or dut["beat_valid"] else idle + 1
            if idle < 4 or rng.random() < 0.1:
                dut.cycle(rst=1, beat_taken=0)

    return drive


def operation(
    rng: Random, kind: int, rows: int, feed: int, words: int
) -> tuple[dict[str, int], bool]:
    """Draw the fields that an operation reads, and whether one of its counts is a large one."""
    if kind == DESCRIPTOR:
        return {"descriptor_offset": rng.getrandbits(25) << 7}, False
    if kind == WEIGHTS:
        sections = ("cfg_load_feed", "cfg_load_parameters", "cfg_load_streams")
        fields = {n: step(rng, rng.random() < 0.6, 8) for n in sections}
        fields |= {"cfg_weight_offset": rng.getrandbits(20) << 12, "cfg_vector": rng.getrandbits(1)}
        fields["cfg_weight_beats"] = rng.randint(1, 24)
        counts = ["weight_beats"]
    elif kind == STORE:
        stores = store_configuration(rng, rows, feed, words)
        fields = {f"cfg_{name}": value for name, value in stores.items()}
        fields["cfg_store_offset"] = rng.getrandbits(31) * feed
        counts = ["store_segments", "store_words", "store_first_row_words", "store_row_words"]
    else:
        fields = load_configuration(rng, rows, feed, words)
        fields |= {f"cfg_{n}load_offset": rng.getrandbits(31) * feed for n in ("", "second_")}
        counts = ["load_segments", "load_words", "load_row_words", "load_rows"]
    long = rng.random() < 0.5
    if long and rng.random() < 0.5:
        any_bits = [name for name in counts if rng.random() < 0.5]
        fields |= {f"cfg_{name}": rng.randint(1, 3) for name in counts}
        fields |= {f"cfg_{name}": rng.getrandbits(WORD_BITS) | 1 for name in any_bits}
    elif long:  # what is left without the bit ends soon
        fields |= {f"cfg_{name}": rng.randint(1, 3) for name in counts}
        fields[f"cfg_{rng.choice(counts)}"] = far(rng, 2)
    return fields, long


def drive_dma(rows: int, feed: int, words: int) -> Callable[[Dut, Random, int], None]:
    """Run operations against a memory of random bits that pauses, fails and is left alone."""

    def drive(dut: Dut, rng: Random, cycles: int) -> None:
        widths = dut.ports.inputs
        paces = {name: moods(rng) for name in ("ar", "r", "aw", "w", "b")}
        data_bits = widths["m_axi_rdata"]
        last = 1 << (data_bits - 1)
        quiet = {f"m_axi_{name}": 0 for name in ("rvalid", "bvalid")}
        dut.cycle(rst=1, op_start=0, op_abort=0, **quiet)
        outputs = 0
        while dut.cycles < cycles:
            kind = rng.choice([DESCRIPTOR, WEIGHTS, WEIGHTS, ACTIVATIONS, SECOND, STORE, STORE])
            fields, long = operation(rng, kind, rows, feed, words)
            unused = [name for name in widths if name.startswith("cfg_") and name not in fields]
            fields |= noise(dut, rng, (*unused, "descriptor_offset")) | fields
            fields["base"] = rng.getrandbits(widths["base"] - 12) << 12
            fails = 0.02 if rng.random() < 0.2 else 0.0
            ends = rng.choice([0.1, 0.5])
            reads: list[int] = []  # beats left of every burst
            writes, sent, answers = 0, 0, 0  # bursts: addresses, data, responses to come
            started = aborts = resets = False
            beat: dict[str, int] = {}
            answer: dict[str, int] = {}
            patience = rng.choice([8, 60]) if long else 200
            last_age = rng.choice([300, 300, 2000])  # what is outstanding may take long
            age, give_up = 0, rng.choice([patience, patience, patience, rng.randrange(40)])
            while True:
                # The store's fields are gone after the start.
                if started and kind == STORE:
                    sampled = [n for n in fields if "store" in n or n == "cfg_out_words"]
                    fields |= noise(dut, rng, sampled)
                if not beat and reads and rng.random() < next(paces["r"]):
                    payload = rng.getrandbits(data_bits - 1) | (rng.random() < ends) * last
                    beat = {
                        "m_axi_rvalid": 1,
                        "m_axi_rdata": payload,
                        "m_axi_rlast": reads[0] == 1,
                        "m_axi_rresp": rng.choice([2, 3]) if rng.random() < fails else 0,
                    }
                if not answer and answers and rng.random() < next(paces["b"]):
                    failed = rng.random() < 5 * fails
                    answer = {"m_axi_bvalid": 1, "m_axi_bresp": rng.choice([2, 3]) * failed}
                aborts = aborts or age > give_up
                resets = age > last_age or rng.random() < RARELY / 10
                dut.cycle(
                    rst=resets,
                    op_start=not started,
                    op_kind=rng.randrange(5) if started else kind,
                    op_abort=aborts,
                    out_read_data=outputs,
                    m_axi_arready=rng.random() < next(paces["ar"]),
                    m_axi_awready=rng.random() < next(paces["aw"]),
                    m_axi_wready=rng.random() < next(paces["w"]),
                    m_axi_rid=rng.getrandbits(1),
                    m_axi_bid=rng.getrandbits(1),
                    **(beat or {"m_axi_rvalid": 0, "m_axi_rlast": rng.getrandbits(1)}),
                    **(answer or {"m_axi_bvalid": 0, "m_axi_bresp": rng.getrandbits(2)}),
                    **fields,
                )
                if dut["out_read"]:
                    outputs = rng.getrandbits(widths["out_read_data"])
                if beat and dut["m_axi_rready"]:
                    reads[0] -= 1
                    if not reads[0]:
                        reads.pop(0)
                    beat = {}
                answers -= bool(answer)
                answer = {}
                if dut["m_axi_arvalid"] and dut.value("m_axi_arready"):
                    reads.append(dut["m_axi_arlen"] + 1)
                writes += dut["m_axi_awvalid"] and dut.value("m_axi_awready")
                if dut["m_axi_wvalid"] and dut.value("m_axi_wready"):
                    sent += dut["m_axi_wlast"]
                answered = min(writes, sent)
                answers, writes, sent = answers + answered, writes - answered, sent - answered
                if resets or dut["op_done"] or (aborts and age and dut["idle"]):
                    break
                started, age = True, age + 1
            if aborts or resets or rng.random() < 0.1:
                idle = {"op_start": 0, "op_abort": 0, "rst": 0, **quiet}
                for _ in range(rng.randint(1, 3)):
                    dut.cycle(**idle)

    return drive


_SMALL_DMA = {"ROWS": 3, "COLS": 2, "FEED": 2, "DATA_W": 64, "ADDR_W": 34}

# What a host may ask for (section 5 of docs/programming.md), and when beats come (header).
_LEGAL_LOAD = (
    "cfg_load_bank < {rows} && cfg_load_pitch_banks < {rows} && cfg_load_stride_x != 0"
    " && cfg_load_phase_y < cfg_load_stride_y && !(start && beat_valid)"
)
_LOADING = (
    "(begin_q || begin_q2 ? !beat_valid : phase_y_q < cfg_load_stride_y"
    " && phase_x_q < cfg_load_stride_x && bank_q < {rows} && row_bank_q < {rows})"
)

SUBJECTS = (
    Subject(
        "axi_writer",
        "axi_writer",
        {"DATA_W": 16},
        drive_writer,
        gates={"m_axi_wlast": "m_axi_wvalid", "m_axi_wdata": "m_axi_wvalid"}
        | {"m_axi_wstrb": "m_axi_wvalid"},
    ),
    Subject(
        "burst_generator",
        "burst_generator",
        {"ADDR_W": 16, "DATA_W": 64, "BYTES_W": 16},
        drive_bursts,
        gates={"addr": "valid", "beats_less_1": "valid"},
        # A run of 2^16 - 1 bytes has 8193 beats at most.
        invariant="left_q <= 8193",
        begins="start",
        watched=("runs_left_q", "left_q"),
    ),
    Subject(
        "weight_unpacker",
        "weight_unpacker",
        {"COLS": 2, "DATA_W": 16, "PARAM_W": 40, "FEED_BEATS": 6, "STREAM_BEATS": 5}
        | {"PARAM_WORDS": 3},
        drive_weights(2),
        gates={"feed_write_beat": "feed_write", "stream_write_beat": "stream_write"}
        | {"param_write_addr": "param_write", "param_write_data": "param_write"},
        watched=("index_q",),
    ),
    Subject(
        "activation_unpacker",
        "activation_unpacker",
        {"ROWS": 3, "FEED": 2, "DATA_W": 64, "ACT_WORDS": 24},
        drive_activations(3, 2, 24),
        gates={"act_write_addr": "act_write[]", "act_write_data": "act_write[]"}
        | {"act_write_part": "act_write[]"},
        watched=("run_left_q", "row_left_q", "rows_left_q"),
        legal=_LEGAL_LOAD.format(rows=3),
        invariant=_LOADING.format(rows=3),
        begins="start",
    ),
    Subject(
        "activation_unpacker, word of 2 beats",
        "activation_unpacker",
        {"ROWS": 2, "FEED": 4, "CODE_W": 16, "DATA_W": 32, "ACT_WORDS": 24},
        drive_activations(2, 8, 24),
        gates={"act_write_addr": "act_write[]", "act_write_data": "act_write[]"}
        | {"act_write_part": "act_write[]"},
        watched=("run_left_q", "row_left_q", "rows_left_q"),
        legal=_LEGAL_LOAD.format(rows=2),
        invariant=_LOADING.format(rows=2),
        begins="start",
        # Set when the start is over.
        matters={"phase_y_q": "!(begin_q || begin_q2)"},
    ),
    Subject(
        "output_packer",
        "output_packer",
        {"ROWS": 3, "FEED": 2, "DATA_W": 64, "OUT_WORDS": 12},
        drive_packer(3, 2, 12),
        gates={"out_read_addr": "out_read", "beat": "beat_valid", "beat_strobes": "beat_valid"},
        legal="start_bank < 3 && start_gap_banks < 3 && start_first_lane < 2"
        " && start_last_lane < 2",
        # A piece has at most ROWS words; the beat's fourth is in no piece but the last. Bits of
        # piece_pos_q have other names in the netlist.
        invariant="(!(begin_q || active_q) || bank_q < 3 && row_bank_q < 3 && first_bank_q < 3"
        " && gap_banks_q < 3)"
        " && (!piece_valid_q || piece_words_q <= 3 && piece_bank_q < 3"
        " && (piece_last_q || {\\g_word[1].from [10], \\g_word[0].from [0]} + piece_words_q <= 3))"
        " && (!(begin_q || active_q || piece_valid_q) || codes_q[63:48] == 0 && lanes_q[7:6] == 0)",
        begins="rst",
        reset="rst",
        contract="!(start && (begin_q || active_q || piece_valid_q))"
        " && (beat_valid || !beat_taken)",
        # Banks put out what was read last.
        held={"out_read_data": "out_read"},
        # A start clears them.
        matters=dict.fromkeys(("codes_q", "lanes_q"), "begin_q || active_q || piece_valid_q"),
        # Counters, and what they begin with.
        watched=("runs_left_q", "run_left_q", "row_left_q")
        + ("words_q", "first_row_words_q", "row_words_q"),
    ),
    Subject(
        "dma",
        "dma",
        _SMALL_DMA
        | {"FEED_BEATS": 6, "STREAM_BEATS": 5, "PARAM_WORDS": 3, "ACT_WORDS": 24, "OUT_WORDS": 12},
        drive_dma(3, 2, 12),
        gates={"desc_index": "desc_write", "desc_data": "desc_write"}
        | {"feed_write_beat": "feed_write", "stream_write_beat": "stream_write"}
        | {"param_write_addr": "param_write", "param_write_data": "param_write"}
        | {"act_write_addr": "act_write[]", "act_write_data": "act_write[]"}
        | {"act_write_part": "act_write[]", "out_read_addr": "out_read"}
        | {"weight_data": "feed_write|stream_write"}
        | {"m_axi_araddr": "m_axi_arvalid", "m_axi_arlen": "m_axi_arvalid"}
        | {"m_axi_awaddr": "m_axi_awvalid", "m_axi_awlen": "m_axi_awvalid"}
        | {"m_axi_wdata": "m_axi_wvalid", "m_axi_wstrb": "m_axi_wvalid"}
        | {"m_axi_wlast": "m_axi_wvalid"},
        kept=("burst_generator", "weight_unpacker", "activation_unpacker", "output_packer")
        + ("axi_writer",),
        deep_proofs=False,
        watched=("runs_left_q", "run_left_q", "row_left_q", "rows_left_q", "left_q"),
        # Section 4 of docs/programming.md: a host's base; section 3: offsets are those of words.
        # Words are of 2 bytes here.
        legal="base[11:0] == 0 && !descriptor_offset[0] && !cfg_weight_offset[0]"
        " && !cfg_load_offset[0] && !cfg_second_load_offset[0] && !cfg_store_offset[0]",
        reset="rst",
        # Beats and answers come for bursts that were asked for, loads have words.
        contract="(idle || !op_start) && (!m_axi_rvalid || kind_q != 4"
        " && \\u_bursts.outstanding_q != 0) && (!m_axi_bvalid || kind_q == 4"
        " && \\u_bursts.outstanding_q != 0) && cfg_load_words != 0 && cfg_load_row_words != 0",
        opened=("burst_generator", "activation_unpacker", "weight_unpacker", "axi_writer"),
    ),
)
