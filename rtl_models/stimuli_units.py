"""Legal random stimuli for memories, counters, the post-processor and the vector unit.

As in `rtl_models.stimuli`; where a module has no reset, the cycles before its registers were
written mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from rtl_models.dut import Dut
from rtl_models.mutants import Subject
from rtl_models.stimuli import (
    RARELY,
    SHIFTS,
    drive_combinational,
    moods,
    near_tie,
    requantizer_group,
    scaled_group,
    word,
)

SUM, MAX, ADD, MUL = 1, 2, 3, 4

# -- memories and counters ------------------------------------------------------------------------


def drive_next_address(places: int) -> Callable[[Dut, Random, int], None]:
    """Addresses of places that a beat has."""
    place_bits = (places - 1).bit_length()

    def drive(dut: Dut, rng: Random, cycles: int) -> None:
        for _ in range(cycles):
            beat = rng.getrandbits(dut.ports.inputs["addr"] - place_bits)
            dut.cycle(addr=beat << place_bits | rng.randrange(places))

    return drive


def drive_delay(dut: Dut, rng: Random, cycles: int) -> None:
    """Words in every cycle; a rare reset."""
    bits = dut.ports.inputs["in"]
    dut.cycle(rst=1, **{"in": rng.getrandbits(bits)})
    while dut.cycles < cycles:
        dut.cycle(rst=rng.random() < RARELY, **{"in": rng.getrandbits(bits)})


def drive_bank(words: int) -> Callable[[Dut, Random, int], None]:
    """Fill a memory, then write and read it at random."""

    def drive(dut: Dut, rng: Random, cycles: int) -> None:
        widths = dut.ports.inputs
        writes, reads = moods(rng), moods(rng)
        for address in range(words):
            data = rng.getrandbits(widths["write_data"])
            dut.cycle_unseen(
                write=1, write_lanes=-1, write_addr=address, write_data=data, read=0, read_addr=0
            )
        dut.cycle_unseen(write=0, read=1)
        while dut.cycles < cycles:
            dut.cycle(
                write=rng.random() < next(writes),
                write_lanes=rng.getrandbits(widths["write_lanes"]),
                write_addr=rng.randrange(words),
                write_data=rng.getrandbits(widths["write_data"]),
                read=rng.random() < next(reads),
                read_addr=rng.randrange(words),
            )

    return drive


def drive_beats(beats: int, places: int) -> Callable[[Dut, Random, int], None]:
    """Fill a memory of beats, then write its beats and read its fields at random."""
    place_bits = (places - 1).bit_length()

    def drive(dut: Dut, rng: Random, cycles: int) -> None:
        bits = dut.ports.inputs["write_data"]
        writes, reads = moods(rng), moods(rng)
        for beat in range(beats):
            dut.cycle_unseen(
                write=1, write_beat=beat, write_data=rng.getrandbits(bits), read=0, read_addr=0
            )
        dut.cycle_unseen(write=0, read=1)
        while dut.cycles < cycles:
            dut.cycle(
                write=rng.random() < next(writes),
                write_beat=rng.randrange(beats),
                write_data=rng.getrandbits(bits),
                read=rng.random() < next(reads),
                read_addr=rng.randrange(beats) << place_bits | rng.randrange(places),
            )

    return drive


def drive_counters(dut: Dut, rng: Random, cycles: int) -> None:
    """Draw all inputs in every cycle, resets and flushes rarely; carries after presets."""
    events = [name for name in dut.ports.inputs if name not in ("rst", "flush", "preset_value")]
    dut.cycle(rst=1, flush=0)
    while dut.cycles < cycles:
        values = {name: rng.getrandbits(dut.ports.inputs[name]) for name in events}
        values.pop("preset", None)
        dut.cycle(rst=rng.random() < RARELY, flush=rng.random() < RARELY, **values)
        if rng.random() < 0.02:
            dut.preset(rng)


def drive_layer_counters(layers: int) -> Callable[[Dut, Random, int], None]:
    """Draw causes, engine runs and ends of layers; what is shown changes in every cycle."""

    def drive(dut: Dut, rng: Random, cycles: int) -> None:
        runs = [name for name in dut.ports.inputs if name.startswith("run_")]
        quiet = {"clear": 0, "counting": 0, "run_ended": 0, "layer_end": 0}
        dut.cycle(rst=1, shown_layer=-1, counter=0, **quiet)
        dut.cycle_unseen(rst=0)  # what was shown before
        kinds = moods(rng)
        while dut.cycles < cycles:
            shown = rng.randrange(layers + 1)
            if rng.random() < 0.1:
                shown = word(rng, 32)
            dut.cycle(
                rst=rng.random() < RARELY / 5,
                clear=rng.random() < RARELY,
                counting=rng.random() < next(kinds),
                causes=rng.getrandbits(5),
                run_ended=rng.random() < 0.2,
                layer_end=rng.random() < 0.05,
                layer=rng.randrange(layers),
                shown_layer=shown,
                counter=rng.randrange(12),
                **{name: rng.getrandbits(32) for name in runs if name != "run_ended"},
            )
            if rng.random() < 0.02:
                dut.preset(rng)

    return drive


# -- post-processor -------------------------------------------------------------------------------


def drive_rescaler(dut: Dut, rng: Random, cycles: int) -> None:
    """Values of one rule at a time through both registers, which take at their own pace."""
    bits = dut.ports.inputs["in_value"]
    takes = moods(rng), moods(rng)
    while dut.cycles < cycles:
        rounding = rng.randrange(5)

        def scale(rounding: int = rounding) -> dict[str, int]:
            group = scaled_group(rng, rounding, bits)
            return {
                "in_value": group["in_acc"] + group["in_bias"],
                "in_multiplier": group["in_multiplier"],
                "in_shift": group["in_shift"],
            }

        for _ in range(2):
            dut.cycle_unseen(cfg_rounding=rounding, take1=1, take2=1, **scale())
        for _ in range(rng.randrange(10, 100)):
            dut.cycle(
                take1=rng.random() < next(takes[0]), take2=rng.random() < next(takes[1]), **scale()
            )


def pair_configuration(dut: Dut, rng: Random, mode: int) -> dict[str, int]:
    """Draw the configuration of a vector pass."""
    rounding = rng.randrange(5)
    low, high = SHIFTS[rounding]
    values = {
        "cfg_mode": mode,
        "cfg_rounding": rounding,
        "cfg_second_offset": word(rng, dut.ports.inputs["cfg_second_offset"]),
        "cfg_left_shift": rng.choice([rng.randrange(32), 15, 20]),
    }
    for name in ("first", "second"):
        values[f"cfg_{name}_multiplier"] = rng.choice([1, 1, 1, -1]) * rng.choice(
            [rng.randrange(1 << 30, 1 << 31), rng.randrange(1 << rng.randrange(1, 31))]
        )
        shift = rng.choice([rng.randint(low, high), rng.randint(max(low, -4), min(high, 4))])
        values[f"cfg_{name}_shift"] = shift
    if mode == ADD and rng.random() < 0.4:  # small multipliers of large values show all their bits
        values |= {"cfg_rounding": rng.randrange(2), "cfg_left_shift": rng.randint(20, 23)}
        for name in ("first", "second"):
            values |= {f"cfg_{name}_multiplier": rng.getrandbits(rng.randrange(1, 10))}
            values |= {f"cfg_{name}_shift": 0}
    return values


def drive_pairs(dut: Dut, rng: Random, cycles: int) -> None:
    """Values of every mode; four cycles until a sum is out."""
    bits = dut.ports.inputs["in_value"]
    while dut.cycles < cycles:
        mode = rng.choice([0, SUM, MAX, ADD, ADD, ADD, MUL, MUL])
        configuration = pair_configuration(dut, rng, mode)
        for _ in range(4):
            dut.cycle_unseen(in_value=rng.getrandbits(bits), **configuration)
        for _ in range(rng.randrange(5, 60)):
            value = rng.getrandbits(bits)
            if rng.random() < 0.3:  # operands at their ends
                value = rng.choice([0, -1, 255, -256]) << 9 | rng.choice([0, 511, 255, 256])
            dut.cycle(in_value=value)


def drive_post(dut: Dut, rng: Random, cycles: int) -> None:
    """Drive runs of groups that come at any time; the parameter memory answers what is read."""
    widths = dut.ports.inputs
    reads = moods(rng)
    noise = ("in_exists", "in_group", "in_lane", "in_addr", "in_param", "in_result", "in_end")
    dut.cycle(rst=1, flush=0, in_read=0)
    parameters = 0
    while dut.cycles < cycles:
        code_bits = widths["cfg_minimum"] - 1
        low, high = -(1 << (code_bits - 1)), (1 << (code_bits - 1)) - 1
        if rng.random() < 0.3:
            low, high = sorted(rng.randint(low, high) for _ in range(2))
        configuration = pair_configuration(dut, rng, rng.choice([0, SUM, MAX, ADD, ADD, MUL]))
        configuration |= {"cfg_minimum": low, "cfg_maximum": high}
        configuration["cfg_output_zero_point"] = rng.randint(low, high)
        rounding = configuration["cfg_rounding"]
        length = rng.randrange(5, 80)
        for cycle in range(length + 12):
            read = cycle < length and rng.random() < next(reads)
            drawn = {name: rng.getrandbits(widths[name]) for name in noise}
            dut.cycle(
                rst=rng.random() < RARELY / 5,
                flush=cycle == 0 or rng.random() < RARELY,
                in_read=read,
                param_word=parameters,
                **configuration,
                **drawn,
            )
            if dut["param_read"]:
                group = requantizer_group(rng, rounding, 32)
                kind = rng.random()
                if kind < 0.3:  # the bias brings the first lane's result beside a tie
                    group = near_tie(rng, rounding, 32)
                    group["in_bias"] += group["in_acc"] - drawn["in_result"]
                elif kind < 0.6:  # a small multiplier shows its lowest bits
                    group |= {"in_multiplier": rng.getrandbits(rng.randrange(1, 31)), "in_shift": 0}
                parameters = (group["in_bias"] & 0xFFFFFFFF) << 40
                parameters |= (group["in_multiplier"] & 0xFFFFFFFF) << 8 | group["in_shift"] & 0xFF


def drive_vector(rows: int, feed: int, x_bits: int) -> Callable[[Dut, Random, int], None]:
    """Drive runs of tiles of one mode each, with stalls, late drains and runs that do not drain."""

    def drive(dut: Dut, rng: Random, cycles: int) -> None:
        most = (1 << (x_bits - 1)) - 1
        valids, readies = moods(rng), moods(rng)
        lanes = rows * feed
        lane_bits = dut.ports.inputs["result_lane"]
        dut.cycle(rst=1, flush=0, feed_valid=0, handoff_ready=0, drain_enable=1)
        while dut.cycles < cycles:
            mode = rng.choice([SUM, MAX, ADD, MUL])
            dut.cycle(rst=1, flush=0, feed_valid=0, cfg_mode=mode)
            for _ in range(rng.randrange(1, 8)):  # runs, each with its flush
                drains = int(rng.random() < 0.8)
                extreme = rng.choice([0, 0, most, -most])
                length = 2 if mode in (ADD, MUL) else rng.randrange(1, 9)
                if extreme and mode == SUM:
                    length = rng.randrange(15, 28)
                waiting = [length] * (rng.randrange(1, 6) if drains else 1)
                flush, offered, data, idle = 1, False, 0, 0
                while idle < 6 and rng.random() >= RARELY / 3:
                    # The last tile has fired when nothing waits and nothing is left to come.
                    if not offered:
                        offered = bool(waiting) and not flush and rng.random() < next(valids)
                        data = 0
                        for lane in range(lanes):
                            x = extreme or rng.randint(-most, most)
                            data |= (x & ((1 << x_bits) - 1)) << lane * x_bits
                    mask = rng.getrandbits(rows) | rng.getrandbits(rows)
                    last = waiting[0] == 1 if offered else rng.getrandbits(1)
                    dut.cycle(
                        rst=0,
                        flush=flush,
                        feed_valid=offered,
                        feed_data=data,
                        feed_mask=mask,
                        feed_last=last,
                        handoff_ready=rng.random() < next(readies),
                        drain_enable=drains,
                        result_lane=rng.randrange(feed) % (1 << lane_bits),
                    )
                    if offered and dut["feed_ready"]:
                        offered = False
                        waiting[0] -= 1
                        if not waiting[0]:
                            waiting.pop(0)
                    flush = 0
                    idle = 0 if waiting or dut["waiting"] or dut["taken"] else idle + 1

    return drive


_ARITHMETIC = ("rescaler", "requantizer", "pair_operator")

SUBJECTS = (
    Subject(
        "next_address",
        "next_address",
        {"ADDR_W": 12, "PLACES": 5},
        drive_next_address(5),
        legal="addr[2:0] < 3'd5",
    ),
    Subject("next_address plain", "next_address", {"ADDR_W": 10}, drive_combinational),
    Subject("delay_line", "delay_line", {"WIDTH": 6, "STAGES": 4}, drive_delay),
    Subject(
        "bank_memory",
        "bank_memory",
        {"WORDS": 5, "LANES": 2, "LANE_W": 4},
        drive_bank(5),
        legal="write_addr < 3'd5 && read_addr < 3'd5",
    ),
    Subject(
        "beat_memory",
        "beat_memory",
        {"PAYLOAD_W": 23, "WIDTH": 7, "BEATS": 3},
        drive_beats(3, 3),
        legal="write_beat < 2'd3 && read_addr[3:2] < 2'd3 && read_addr[1:0] < 2'd3",
        # The lowest field is what an address of no place would give.
    ),
    Subject(
        "run_counters",
        "run_counters",
        {},
        drive_counters,
        presets=("compute_q", "fill_q", "stall_feed_q", "drain_q"),
    ),
    Subject(
        "overflow_counters",
        "overflow_counters",
        {"LANES": 2},
        drive_counters,
        presets=("events_q", "outputs_q"),
    ),
    Subject(
        "layer_counters",
        "layer_counters",
        {"LAYERS": 2},
        drive_layer_counters(2),
        presets=("cycles_q", "layer_q", "total_q"),
        legal="counter < 4'd12",
    ),
    Subject(
        "rescaler",
        "rescaler",
        {},
        drive_rescaler,
        # 2^62, (-2^31) (-2^31), is the largest product.
        invariant="\\g_lane[0].product_q2 [63:62] != 2'd1 || !(|\\g_lane[0].product_q2 [61:0])",
        begins="take2",
    ),
    Subject(
        "pair_operator",
        "pair_operator",
        {},
        drive_pairs,
        legal="cfg_mode <= 3'd4",
        kept=("rescaler",),
    ),
    Subject(
        "post_processor",
        "post_processor",
        {"ROWS": 4, "FEED": 2, "LANES": 2, "VECTOR": 1, "PARAM_ADDR_W": 4, "OUT_ADDR_W": 4},
        drive_post,
        legal="cfg_mode <= 3'd4",
        gates={"param_addr": "param_read", "out_addr": "out_write", "out_data": "out_write"},
        kept=(*_ARITHMETIC, "delay_line"),
    ),
    Subject(
        "vector_unit",
        "vector_unit",
        {"ROWS": 2, "FEED": 2, "CODE_W": 4, "TAP_W": 3, "POST_W": 16},
        drive_vector(2, 2, 5),
        legal="cfg_mode <= 3'd4",
        # In mode max accumulators hold operands, of 5 bits.
        invariant=" && ".join(
            f"(cfg_mode != 2 || &\\{acc} [10:4] || !(|\\{acc} [10:4]))"
            for acc in (f"g_row[{r}].g_lane[{f}].acc_q" for r in range(2) for f in range(2))
        ),
        begins="rst",
        # An operand is used in the cycle after it was taken, if its row is not masked.
        matters={
            f"g_row[{r}].g_lane[{f}].x": f"\\g_row[{r}].step_q " for r in range(2) for f in range(2)
        },
    ),
)
