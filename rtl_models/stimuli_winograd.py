"""Legal random stimuli for the smaller modules of the Winograd unit, as in `rtl_models.stimuli`."""

from __future__ import annotations

from random import Random

from rtl_models.mutants import Dut, Subject
from rtl_models.stimuli import RARELY, drive_combinational

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


_TAP = "(cfg_winograd == 2 ? 3'd5 : 3'd3)"

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
    Subject("winograd_scale F2", "winograd_scale", {"FORMS": 1, "W": 16}, drive_combinational),
    Subject("winograd_scale", "winograd_scale", {"FORMS": 3, "W": 16}, drive_combinational),
)
