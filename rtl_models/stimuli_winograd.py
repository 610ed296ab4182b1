"""Legal random stimuli for the modules of the Winograd unit, as in `rtl_models.stimuli`."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from rtl_models.dut import Dut
from rtl_models.mutants import Subject
from rtl_models.stimuli import RARELY, drive_combinational, moods, word

DIRECT, F2 = 0, 1


def drive_chunks(dut: Dut, rng: Random, cycles: int) -> None:
    """Cut pixels of every size into chunks of every size."""
    words_bits, chunk_bits = (dut.ports.inputs[f"cfg_{name}words"] for name in ("", "chunk_"))
    while dut.cycles < cycles:
        dut.cycle_unseen(
            cfg_words=rng.randrange(1, 1 << rng.randint(1, words_bits)),
            cfg_chunk_words=rng.randrange(1, 1 << rng.randint(1, chunk_bits)),
            flush=1,
            advance=rng.getrandbits(1),
        )
        for _ in range(rng.randrange(3, 150)):
            dut.cycle(flush=rng.random() < RARELY, advance=rng.random() < 0.8)


def drive_parts(dut: Dut, rng: Random, cycles: int) -> None:
    """Walk through tiles of every form, some of them cut off by the next load."""
    chunks_bits = dut.ports.inputs["cfg_chunks"]
    while dut.cycles < cycles:
        form = rng.choice([DIRECT, F2, F2, 2, 2])
        chunks = rng.randrange(1, 1 << rng.randint(1, chunks_bits))
        parts = {DIRECT: 4, F2: 16}.get(form, 36) * chunks
        dut.cycle_unseen(cfg_winograd=form, cfg_chunks=chunks, load=1, advance=rng.getrandbits(1))
        for _ in range(3 * parts):
            dut.cycle(load=rng.random() < RARELY, advance=rng.random() < 0.8)


def drive_patches(dut: Dut, rng: Random, cycles: int) -> None:
    """Send words of patches of both forms at any pace, some of them cut off."""
    bits, valids = dut.ports.inputs["in_data"], moods(rng)
    dut.cycle(rst=1, flush=0, form4=0, in_valid=0)
    while dut.cycles < cycles:
        by_reset = rng.getrandbits(1)
        dut.cycle(
            rst=by_reset, flush=1 - by_reset, form4=rng.getrandbits(1), in_valid=rng.getrandbits(1)
        )
        for _ in range(rng.choice([30, 150, 600])):
            valid = rng.random() < next(valids)
            dut.cycle(rst=0, flush=0, in_valid=valid, in_data=word(rng, bits))


def drive_input(half: int) -> Callable[[Dut, Random, int], None]:
    """Transform chunks of both forms; words wait for room, readers let transformed ones wait."""

    def drive(dut: Dut, rng: Random, cycles: int) -> None:
        widths = dut.ports.inputs
        valids, readies = moods(rng), moods(rng)
        dut.cycle(rst=1, flush=0, cfg_words=1, cfg_chunk_words=1, in_valid=0, out_ready=0)
        while dut.cycles < cycles:
            form4 = rng.getrandbits(1)
            dut.cycle(
                rst=0,
                flush=1,
                cfg_form4=form4,
                cfg_words=rng.randrange(1, 1 << rng.randint(1, widths["cfg_words"])),
                cfg_chunk_words=rng.randint(1, half // (36 if form4 else 16)),
                in_valid=0,
                out_ready=rng.getrandbits(1),
            )
            offered, data = False, 0
            for _ in range(rng.choice([100, 400, 1500])):
                if not offered:
                    offered, data = rng.random() < next(valids), word(rng, widths["in_data"])
                dut.cycle(
                    rst=rng.random() < RARELY / 10,
                    flush=0,
                    in_valid=offered,
                    in_data=data,
                    out_ready=rng.random() < next(readies),
                )
                offered = offered and not (dut["in_ready"] or dut.value("rst"))

    return drive


def drive_output(depth: int) -> Callable[[Dut, Random, int], None]:
    """Add products of any taps to the sums of any place; every sum begins with its first one."""

    def drive(dut: Dut, rng: Random, cycles: int) -> None:
        bits = dut.ports.inputs["in_result"]
        valids = moods(rng)
        while dut.cycles < cycles:
            form4 = rng.getrandbits(1)
            taps, outputs = (6, 16) if form4 else (4, 4)
            new, before, age = set(range(depth)), -1, 0
            for _ in range(rng.randrange(20, 400)):
                place = rng.randrange(depth)
                valid = place != before and rng.random() < next(valids)
                # The outputs of a sum are known 3 cycles after it began.
                age += valid or age > 0
                (dut.cycle if age > 3 else dut.cycle_unseen)(
                    cfg_form4=form4,
                    in_valid=valid,
                    in_first=place in new or rng.random() < 0.1,
                    in_tap_row=rng.randrange(taps),
                    in_tap_column=rng.randrange(taps),
                    in_addr=place,
                    in_result=word(rng, bits),
                    out_phase=rng.randrange(outputs),
                )
                before = place if valid else -1
                new -= {place} if valid else set()

    return drive


_TAP = "(cfg_winograd == 2 ? 3'd5 : 3'd3)"

_LAST_TAP = "(form4 ? 4'd5 : 4'd3)"
# What shifts registers out for as many cycles as there are taps leaves zeros behind; addresses stay
# where a patch begins. Words are of 7 and of 10 bits. All this is so 8 cycles after a reset.
_PATCH_INSIDE = " && ".join(
    (
        f"read_row_q <= {_LAST_TAP} && in_col_q <= {_LAST_TAP} && in_row_q <= {_LAST_TAP}",
        f"read_col_q <= {_LAST_TAP}",
        f"(!word_valid_q || word_row_q <= {_LAST_TAP})",
        f"(!out_valid || out_row_q <= {_LAST_TAP})",
        f"(!(word_valid_q && word_row_q == {_LAST_TAP}) || read_row_q == 0)",
        # Of 36 and 16 two bits are left, 2 and 4.
        "(read_base_q == 0 || read_base_q == (form4 ? 4 : 16))",
        "(reading_q || read_row_q == 0 && read_col_q == 0"
        " && read_addr_q == (read_base_q == 0 ? 0 : form4 ? 36 : 16))",
        *(f"(out_row_q < {6 - w} || out_q[{10 * w + 9}:{10 * w}] == 0)" for w in range(6)),
        "(out_q == 0 || out_row_q >= word_row_q && out_row_q + 4'd1 >= read_row_q)",
        *(f"(write_col_q < {6 - w} || turned_q[{7 * w + 6}:{7 * w}] == 0)" for w in range(6)),
        "(turned_q == 0 || write_col_q >= in_col_q)",
    )
)

_N = "(cfg_form4 ? 6 : 4)"
_IN, _STORED, _OUT = (f"\\u_{name}_chunk.left_q " for name in ("in", "store", "out"))
_LENGTH, _OUT_LENGTH = (
    f"({left} <= cfg_chunk_words ? {left} : cfg_chunk_words)" for left in (_STORED, _OUT)
)


def _one_of(value: str, step: str, first: str) -> str:
    """Verilog condition that a value lies 0 to n - 1 steps after the first one."""
    return (
        "("
        + " || ".join(f"{i} < {_N} && {value} == {i} * {step} + {first}" for i in range(6))
        + ")"
    )


# Tap (k, l) of word w goes to (k n + l) length + w. A chunk is stored after it has begun.
_CHUNKS_INSIDE = " && ".join(
    (
        *(f"{left} != 0 && {left} <= cfg_words" for left in (_IN, _STORED, _OUT)),
        f"store_word_q < {_LENGTH}",
        _one_of("store_column_q", _LENGTH, "store_word_q"),
        _one_of("store_addr_q", f"{_N} * {_LENGTH}", "store_column_q"),
        f"out_addr_q < {_N} * {_N} * {_OUT_LENGTH}",
        "stored_q + inside_q <= {1'b0, chunks_q} && chunks_q <= 2",
    )
)
# Of patch_transform: a patch goes out in consecutive cycles, each column of it as n words, the
# last of a chunk after its last word has been accepted.
_PATCHES_OUT = " && ".join(
    (
        f"v_column == (v_valid && store_addr_q == ({_N} - 1) * {_N} * {_LENGTH} + store_column_q)",
        f"v_end == (v_column && store_column_q == ({_N} - 1) * {_LENGTH} + store_word_q)",
        "(v_valid || store_addr_q == store_word_q)",
        f"(!v_end || store_word_q + 1 != {_LENGTH} || stored_q + inside_q < {{1'b0, chunks_q}})",
    )
)

# All that F(4,3) alone adds to an output is a multiple of a power of two: of 1, 2, 4 and 4 in each
# row, and column, of A^T. Zeros of the binary numbers; what stands there never carries.
_ZEROS = {
    4 * i + j: low
    for i in range(4)
    for j in range(4)
    if (low := (0, 1, 2, 2)[i] + (0, 1, 2, 2)[j]) and max(i, j) > 1
}

SUBJECTS = (
    Subject(
        "chunk_counter",
        "chunk_counter",
        {"WORDS_W": 6, "CHUNK_W": 3},
        drive_chunks,
        legal="cfg_words != 0 && cfg_chunk_words != 0",
        invariant="left_q != 0 && left_q <= cfg_words",
        begins="flush",
    ),
    Subject(
        "part_counter",
        "part_counter",
        {"CHUNKS_W": 3},
        drive_parts,
        legal="cfg_winograd != 3 && cfg_chunks != 0",
        invariant=f"row_q <= {_TAP} && column_q <= {_TAP} && chunk_q < cfg_chunks"
        " && (cfg_winograd != 0 || row_q == 0 && column_q == 0 && chunk_q == 0)",
        begins="load",
    ),
    Subject("winograd_1d F2", "winograd_1d", {"FORMS": 1, "IN_W": 9}, drive_combinational),
    Subject("winograd_1d", "winograd_1d", {"FORMS": 3, "IN_W": 9}, drive_combinational),
    Subject(
        "patch_transform",
        "patch_transform",
        {"FORMS": 3, "LANES": 1, "X_W": 3},
        drive_patches,
        gates={"out_data": "out_valid"},
        kept=("winograd_1d", "bank_memory"),
        deep_proofs=False,
        reset="rst || flush",
        steady=("form4",),
        opened=("winograd_1d",),
        invariant=_PATCH_INSIDE,
        # Word w of a column is still to go out in row r where w + r is a tap.
        matters={
            f"out_q[{10 * w + 9}:{10 * w}]": f"out_valid && out_row_q + {w} <= {_LAST_TAP}"
            for w in range(6)
        },
    ),
    Subject(
        "input_transform",
        "input_transform",
        {"FORMS": 3, "LANES": 1, "X_W": 3, "HALF": 72, "WORDS_W": 4},
        drive_input(72),
        gates={"out_data": "out_valid"},
        kept=("patch_transform", "winograd_1d", "bank_memory", "chunk_counter"),
        legal="cfg_words != 0 && cfg_chunk_words != 0"
        " && cfg_chunk_words <= (cfg_form4 ? 3'd2 : 3'd4)",
        opened=("chunk_counter",),
        invariant=_CHUNKS_INSIDE,
        begins="flush",
        contract=f"flush || {_PATCHES_OUT}",
    ),
    Subject(
        "output_transform",
        "output_transform",
        {"FORMS": 3, "LANES": 1, "RESULT_W": 18, "SUM_W": 16, "DEPTH": 3},
        drive_output(3),
        legal="in_tap_row < 6 && in_tap_column < 6 && in_addr < 2'd3"
        " && (cfg_form4 || out_phase < 4)",
        kept=("winograd_scale", "bank_memory"),
        opened=("winograd_scale",),
        # What a place holds before its first sum is never used: it is taken for 0.
        invariant=" && ".join(
            f"!(|\\u_sums.word [{16 * x + low - 1}:{16 * x}])" for x, low in _ZEROS.items()
        ),
        matters={f"u_sums.word[{16 * x + low - 1}:{16 * x}]": "1'b0" for x, low in _ZEROS.items()}
        # The shift of the division drops 2 bits, or 6 of what only F(4,3) adds to.
        | {f"sums_q[{16 * x + (5 if x in _ZEROS else 1)}:{16 * x}]": "1'b0" for x in range(16)},
    ),
    Subject("winograd_scale F2", "winograd_scale", {"FORMS": 1, "W": 16}, drive_combinational),
    Subject("winograd_scale", "winograd_scale", {"FORMS": 3, "W": 16}, drive_combinational),
)
