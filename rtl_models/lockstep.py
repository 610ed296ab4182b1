"""Lockstep: the Verilated array and the stepped model, all state compared in every cycle.

Verilator turns `napier_array` into C++, a generated shim gives it one C function that does one
cycle and copies every register out, and a Numba loop calls that function, steps the model, and
compares.
Registers are compared by the names of docs/microarchitecture.md, sections 4 and 5.

    python -m rtl_models.lockstep [--hardware PRESET|FILE] [--cycles N] [--seed S] [--work DIR]

A long run is many episodes, each from reset and with a seed of its own, so that the one that
differs can be run again: its stimuli are recorded, and Icarus replays them with waves of the last
cycles.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import click
import numba
import numpy as np
from numpy.typing import NDArray

from rtl_models.commands import run_command
from rtl_models.parameters import engine_parameters
from rtl_models.runner import find_tool, run_tool, verilator_include
from rtl_models.sources import sources
from simulator.hardware import Hardware, load_hardware
from simulator.stepped import array_config, array_inputs, array_outputs, reset_array
from simulator.stepped_kernels import SHIFT_ADD, TERNARY, step_array

IntArray = NDArray[np.int64]

TOP = "napier_array"
REGISTERS = {
    "array_window": ("n_q", "word_q"),
    "column_sequencer": ("offset_q", "done_q"),
    "napier_array": ("handoff_q",),
    "napier_pe": ("x_q", "code_q", "step_q", "clear_q"),
    "pe_accumulator": (
        "acc_q",
        "overflow_q",
        "events_q",
        "wide_q",
        "count_q",
        "result_q",
        "result_overflow_q",
        "result_events_q",
    ),
}
"""Registers of each module that the shim reads."""

PARAMETERS = (
    "ROWS",
    "COLS",
    "FEED",
    "DEPTH",
    "PE_KIND",
    "TERMS",
    "X_W",
    "WEIGHT_W",
    "ACC_BITS",
    "SATURATE",
    "EVENTS_W",
    "SPILL",
    "WIDE_BITS",
)
"""Parameters of `napier_array` that depend on the hardware."""

PROBABILITIES = np.array([1.0, 0.9, 0.5, 0.1])
"""Of a valid or ready signal, drawn anew every thousand cycles."""

MAX_TILE_WORDS = 12
FLUSH_PERIOD_CYCLES = 5000
"""A flush comes once in so many cycles on average."""


EPISODE_CYCLES = 100_000
"""Of a long run; Icarus replays as many in a minute."""

WAVE_CYCLES = 200
"""Cycles before a difference that its waves show."""


class Field(NamedTuple):
    """One compared value: name in the document, where shim and Verilog have it, width."""

    name: str
    expression: str
    path: str
    bits: int


@dataclass(frozen=True)
class Mismatch:
    """The first difference: cycle, the signal's name, its value in the model and in Verilog."""

    cycle: int
    signal: str
    expected: int
    found: int


@dataclass(frozen=True)
class LockstepResult:
    """What a lockstep run compared.

    Parameters
    ----------
    cycles : int
        Cycles compared.
    values_per_cycle : int
        Registers and outputs compared in each.
    fires, issues, overflow_steps : int
        Tile ends, entries issued, and PE overflow flags seen: without them a run proves nothing.
    mismatch : Mismatch or None
    seed : int
        Of the episode that differs, or the first one.
    """

    cycles: int
    values_per_cycle: int
    fires: int
    issues: int
    overflow_steps: int
    mismatch: Mismatch | None
    seed: int


def fields(hardware: Hardware) -> list[Field]:
    """List what is compared in a cycle: the array's outputs, then all of its registers."""
    array, widths = hardware.array, hardware.widths
    found = [Field(name, f"top->{name}", name, 1) for name in ("feed_ready", "fire")]
    found += [
        Field(f"entry_ready[{c}]", f"bits(top->entry_ready, {c}, 1)", f"entry_ready[{c}]", 1)
        for c in range(array.cols)
    ]
    found.append(_register("n", "u_window.n_q", 16))
    found.append(_register("handoff", "handoff_q", 1))
    for c in range(array.cols):
        found.append(_register(f"offset[{c}]", f"g_sequencer[{c}].u_sequencer.offset_q", 16))
        found.append(_register(f"done[{c}]", f"g_sequencer[{c}].u_sequencer.done_q", 1))
    for d in range(hardware.depth):
        word = f"u_window.g_word[{d}].word_q"
        for lane in range(array.rows * array.feed):
            r, f = divmod(lane, array.feed)
            found.append(
                Field(
                    f"word[{d}][{r}][{f}]",
                    f"bits({_reg(word)}, {lane * widths.x}, {widths.x})",
                    f"{word}[{lane * widths.x} +: {widths.x}]",
                    widths.x,
                )
            )
    for r in range(array.rows):
        for c in range(array.cols):
            found += _pe_fields(hardware, r, c)
    return found


def _pe_fields(hardware: Hardware, r: int, c: int) -> Iterator[Field]:
    widths = hardware.widths
    pe, acc = f"g_row[{r}].g_col[{c}].u_pe", f"g_row[{r}].g_col[{c}].u_pe.u_accumulator"
    registers = [
        ("x", f"{pe}.x_q", widths.x),
        ("code", f"{pe}.code_q", widths.code),
        ("step", f"{pe}.step_q", 1),
        ("clear", f"{pe}.clear_q", 1),
        ("acc", f"{acc}.acc_q", widths.acc),
        ("overflow", f"{acc}.overflow_q", 1),
        ("events", f"{acc}.events_q", widths.events),
        ("result", f"{acc}.result_q", widths.result),
        ("result_overflow", f"{acc}.result_overflow_q", 1),
        ("result_events", f"{acc}.result_events_q", widths.events),
    ]
    if hardware.array.spill_interval:
        registers += [
            ("wide", f"{acc}.g_spill.wide_q", widths.wide),
            ("count", f"{acc}.g_spill.count_q", 16),
        ]
    for name, path, bits in registers:
        yield _register(f"{name}[{r}][{c}]", path, bits)


def _register(name: str, path: str, bits: int) -> Field:
    return Field(name, _reg(path), path, bits)


def _reg(path: str) -> str:
    """Spell a hierarchical name the way Verilator's C++ does."""
    mangled = path.replace("[", "__BRA__").replace("]", "__KET__").replace(".", "__DOT__")
    return f"top->rootp->{TOP}__DOT__{mangled}"


_SHIM = """
#include <cstdint>
#include "V{top}.h"
#include "V{top}___024root.h"
#include "verilated.h"

template <class T> static uint64_t bits(const T& v, int lsb, int width) {{
    return (uint64_t(v) >> lsb) & (width == 64 ? ~0ull : (1ull << width) - 1);
}}
template <std::size_t N> static uint64_t bits(const VlWide<N>& v, int lsb, int width) {{
    // Fields are at most 32 bits wide, so two words hold them.
    const int word = lsb / 32;
    uint64_t pair = v[word];
    if (word + 1 < int(N)) pair |= uint64_t(v[word + 1]) << 32;
    return bits(pair, lsb % 32, width);
}}
template <class T> static void put(T& v, int lsb, int width, uint64_t value) {{
    v |= T((value & (width == 64 ? ~0ull : (1ull << width) - 1)) << lsb);
}}
template <std::size_t N> static void put(VlWide<N>& v, int lsb, int width, uint64_t value) {{
    const int word = lsb / 32;
    const uint64_t pair = (value & ((1ull << width) - 1)) << (lsb % 32);
    v[word] |= uint32_t(pair);
    if (word + 1 < int(N)) v[word + 1] |= uint32_t(pair >> 32);
}}
template <class T> static void clear(T& v) {{ v = 0; }}
template <std::size_t N> static void clear(VlWide<N>& v) {{
    for (std::size_t i = 0; i < N; ++i) v[i] = 0;
}}

extern "C" void* napier_new() {{
    V{top}* top = new V{top};
    top->clk = 0; top->rst = 1; top->flush = 0; top->feed_valid = 0;
    top->entry_valid = 0; top->handoff_ready = 0; top->drain_enable = 1; top->result_col = 0;
    for (int i = 0; i < 2; ++i) {{ top->clk = 0; top->eval(); top->clk = 1; top->eval(); }}
    top->rst = 0;
    return top;
}}
extern "C" void napier_delete(void* handle) {{ delete static_cast<V{top}*>(handle); }}

// One cycle: drive `in`, read the outputs and the registers as they are in this cycle, clock edge.
extern "C" void napier_cycle(void* handle, const int64_t* in, int64_t* out) {{
    V{top}* top = static_cast<V{top}*>(handle);
    top->flush = in[0]; top->feed_valid = in[1]; top->handoff_ready = in[2];
    top->drain_enable = in[3];
    in += 4;
    clear(top->entry_valid); clear(top->entry_data); clear(top->feed_data);
    for (int c = 0; c < {cols}; ++c, ++in) {{
        put(top->entry_valid, c, 1, uint64_t(in[0]));
        uint64_t entry = uint64_t(in[{cols}]);
        entry = (entry << {advance_bits}) | uint64_t(in[2 * {cols}]);
        entry = (entry << {lane_bits}) | uint64_t(in[3 * {cols}]);
        entry = (entry << {code_bits}) | uint64_t(in[4 * {cols}]);
        put(top->entry_data, c * {entry_bits}, {entry_bits}, entry);
    }}
    in += 4 * {cols};
    for (int i = 0; i < {operands}; ++i)
        put(top->feed_data, i * {x_bits}, {x_bits}, uint64_t(in[i]));
    top->clk = 0; top->eval();
{reads}
    top->clk = 1; top->eval();
}}
"""


def shim_source(hardware: Hardware) -> str:
    """C++ of the shim: one line for every compared value."""
    array, widths = hardware.array, hardware.widths
    reads = "\n".join(
        f"    out[{i}] = int64_t({field.expression});" for i, field in enumerate(fields(hardware))
    )
    return _SHIM.format(
        top=TOP,
        cols=array.cols,
        operands=array.rows * array.feed,
        advance_bits=widths.advance,
        lane_bits=widths.lane,
        code_bits=widths.code,
        entry_bits=widths.entry,
        x_bits=widths.x,
        reads=reads,
    )


def build(hardware: Hardware, folder: Path) -> Path:
    """Compile the array of `hardware` and its shim to a shared library in `folder`.

    Raises
    ------
    ToolError
        Verilator or g++ is missing or failed.
    """
    verilator = find_tool("verilator")
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "public.vlt"
    config.write_text(
        "`verilator_config\n"
        + "".join(
            f'public_flat_rd -module "{module}" -var "{register}"\n'
            for module, registers in REGISTERS.items()
            for register in registers
        )
    )
    parameters = {**engine_parameters(hardware), "X_W": hardware.operand_bits}
    generics = [f"-G{name}={parameters[name]}" for name in PARAMETERS]
    run_tool(
        [verilator, "--cc", "-O3", "--top-module", TOP, "--Mdir", str(folder), "-DSYNTHESIS"]
        + [*generics, str(config), *map(str, sources(TOP))]
    )
    (folder / "shim.cpp").write_text(shim_source(hardware))
    root = verilator_include()
    runtime = [root / name for name in ("verilated.cpp", "verilated_threads.cpp")]
    library = folder / "lockstep.so"
    command = ["g++", "-O2", "-shared", "-fPIC", "-std=c++17", "-pthread"]
    command += [f"-I{folder}", f"-I{root}", f"-I{root / 'vltstd'}", "-o", str(library)]
    units = [*folder.glob("*.cpp"), *(unit for unit in runtime if unit.exists())]
    run_tool([*command, *map(str, sorted(units))])
    return library


@numba.njit
def _draw_entry(rng: Any, config: Any, inputs: Any, c: int, position: IntArray, words: int) -> None:
    """Draw the next entry of column c: a legal stream of a tile of `words` words (S1, S4)."""
    inputs.lane[c] = rng.integers(0, config.feed)
    left = words - 1 - position[c]
    inputs.last[c] = left == 0 and rng.random() < 0.5
    inputs.advance[c] = 0
    if inputs.last[c]:
        inputs.advance[c] = 1
    elif left > 0 and rng.random() < 0.7:
        inputs.advance[c] = rng.integers(1, min(left, 15) + 1)
    code = 0
    if config.kind == TERNARY:
        code = np.array([0, 1, 3])[rng.integers(0, 3)]
    elif config.kind == SHIFT_ADD:
        for term in range(config.terms):
            code |= rng.integers(0, 64) << (6 * term)
    else:
        code = rng.integers(0, 1 << config.weight_bits)
    inputs.code[c] = 0 if rng.random() < 0.1 else code


@numba.njit
def _draw_cycle(
    rng: Any, config: Any, inputs: Any, operand_bits: int, valid: float, ready: float
) -> None:
    """Draw one cycle's feed word, valids and handshakes; a valid entry stays until it is taken."""
    inputs.flush[0] = rng.integers(0, FLUSH_PERIOD_CYCLES) == 0
    inputs.handoff_ready[0] = rng.random() < ready
    inputs.drain[0] = rng.random() < 0.95
    for c in range(config.cols):
        inputs.entry_valid[c] |= rng.random() < valid
    if not inputs.feed_valid[0] and rng.random() < valid:
        inputs.feed_valid[0] = 1
        half = 1 << (operand_bits - 1)
        extreme = rng.random() < 0.2
        for r in range(config.rows):
            for f in range(config.feed):
                x = rng.integers(-half, half)
                inputs.feed_data[r, f] = (half - 1 if x >= 0 else -half) if extreme else x


@numba.njit
def _pack_inputs(inputs: Any, packed: IntArray) -> None:
    cols = len(inputs.entry_valid)
    packed[0] = inputs.flush[0]
    packed[1] = inputs.feed_valid[0]
    packed[2] = inputs.handoff_ready[0]
    packed[3] = inputs.drain[0]
    for c in range(cols):
        packed[4 + c] = inputs.entry_valid[c]
        packed[4 + cols + c] = inputs.last[c]
        packed[4 + 2 * cols + c] = inputs.advance[c]
        packed[4 + 3 * cols + c] = inputs.lane[c]
        packed[4 + 4 * cols + c] = inputs.code[c]
    packed[4 + 5 * cols :] = inputs.feed_data.ravel()


@numba.njit
def _pack_state(config: Any, state: Any, row: IntArray) -> None:
    """Write the model's registers behind its outputs, in the order of `fields`."""
    i = 2 + config.cols
    row[i] = state.n[0]
    row[i + 1] = state.handoff[0]
    i += 2
    for c in range(config.cols):
        row[i] = state.offset[c]
        row[i + 1] = state.done[c]
        i += 2
    words = state.word.size
    row[i : i + words] = state.word.ravel()
    i += words
    pe = state.pe
    for r in range(config.rows):
        for c in range(config.cols):
            row[i] = pe.x[r, c]
            row[i + 1] = pe.code[r, c]
            row[i + 2] = pe.step[r, c]
            row[i + 3] = pe.clear[r, c]
            row[i + 4] = pe.acc[r, c]
            row[i + 5] = pe.overflow[r, c]
            row[i + 6] = pe.events[r, c]
            row[i + 7] = pe.result[r, c]
            row[i + 8] = pe.result_overflow[r, c]
            row[i + 9] = pe.result_events[r, c]
            i += 10
            if config.spill_interval > 0:
                row[i] = pe.wide[r, c]
                row[i + 1] = pe.spill_count[r, c]
                i += 2


def _compile_loop(rtl_cycle: Any) -> Any:
    """Bind the shim's function, by address, into the compiled loop; hence compiled a library."""

    @numba.njit
    def loop(
        config: Any,
        state: Any,
        inputs: Any,
        outputs: Any,
        handle: int,
        cycles: int,
        rng: Any,
        operand_bits: int,
        masks: IntArray,
        packed: IntArray,
        expected: IntArray,
        found: IntArray,
        seen: IntArray,
        stimuli: IntArray,
    ) -> int:
        position = np.zeros(config.cols, np.int64)
        words = 1
        valid, ready = 1.0, 1.0
        for c in range(config.cols):
            _draw_entry(rng, config, inputs, c, position, words)
        for cycle in range(cycles):
            if cycle % 1000 == 0:  # rare stalls and frequent ones, in turn
                valid = PROBABILITIES[rng.integers(0, 4)]
                ready = PROBABILITIES[rng.integers(0, 4)]
            _draw_cycle(rng, config, inputs, operand_bits, valid, ready)
            _pack_inputs(inputs, packed)
            if cycle < len(stimuli):
                stimuli[cycle] = packed
            rtl_cycle(handle, packed.ctypes.data, found.ctypes.data)
            _pack_state(config, state, expected)
            step_array(config, state, inputs, outputs)
            expected[0] = outputs.feed_ready[0]
            expected[1] = outputs.fire[0]
            expected[2 : 2 + config.cols] = outputs.entry_ready
            for i in range(expected.size):
                if (expected[i] ^ found[i]) & masks[i]:
                    seen[3] = i
                    return cycle
            seen[0] += outputs.fire[0]
            for c in range(config.cols):
                if outputs.issue[c]:
                    seen[1] += 1
                    position[c] += inputs.advance[c]
                    inputs.entry_valid[c] = 0
                    if not inputs.last[c]:
                        _draw_entry(rng, config, inputs, c, position, words)
            seen[2] += state.pe.overflow.sum()
            if inputs.feed_valid[0] and outputs.feed_ready[0]:
                inputs.feed_valid[0] = 0
            if outputs.fire[0] or inputs.flush[0]:
                words = rng.integers(1, MAX_TILE_WORDS + 1)
                position[:] = 0
                for c in range(config.cols):
                    inputs.entry_valid[c] = 0
                    _draw_entry(rng, config, inputs, c, position, words)
        return cycles

    return loop


class Lockstep:
    """Model and Verilog of an array, stepped together under random streams and stalls.

    Parameters
    ----------
    hardware : Hardware
        What `library` was built for.
    library : Path
        From `build`.
    """

    def __init__(self, hardware: Hardware, library: Path) -> None:
        self.hardware = hardware
        self.fields = fields(hardware)
        self._library = ctypes.CDLL(str(library))
        self._library.napier_new.restype = ctypes.c_void_p
        self._library.napier_delete.argtypes = [ctypes.c_void_p]
        self._library.napier_cycle.argtypes = [ctypes.c_void_p] * 3
        self._library.napier_cycle.restype = None
        self._loop = _compile_loop(self._library.napier_cycle)
        self._masks = np.array([(1 << field.bits) - 1 for field in self.fields], np.int64)
        array = hardware.array
        self._input_values = 4 + 5 * array.cols + array.rows * array.feed

    def run(
        self,
        cycles: int,
        seed: int,
        episode_cycles: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> LockstepResult:
        """Compare `cycles` cycles, or as many as it takes to the first difference.

        Parameters
        ----------
        cycles, seed : int
        episode_cycles : int or None
            Reset after so many cycles and go on with the next seed; None: never.
        progress : function of the cycles done, optional
            Called after every episode.
        """
        done, totals, mismatch = 0, np.zeros(3, np.int64), None
        last_seed = seed
        while done < cycles and mismatch is None:
            episode = min(episode_cycles or cycles, cycles - done)
            ran, seen, mismatch = self._episode(episode, last_seed)
            done += ran
            totals += seen
            if mismatch is None:
                last_seed += 1
                if progress is not None:
                    progress(done)
        fires, issues, overflow_steps = (int(count) for count in totals)
        return LockstepResult(
            cycles=done,
            values_per_cycle=len(self.fields),
            fires=fires,
            issues=issues,
            overflow_steps=overflow_steps,
            mismatch=mismatch,
            seed=last_seed if mismatch else seed,
        )

    def stimuli(self, cycles: int, seed: int) -> IntArray:
        """Record the inputs of an episode's first `cycles` cycles, a row each, for `replay`."""
        recorded = np.zeros((cycles, self._input_values), np.int64)
        self._episode(cycles, seed, recorded)
        return recorded

    def _episode(
        self, cycles: int, seed: int, recorded: IntArray | None = None
    ) -> tuple[int, IntArray, Mismatch | None]:
        """Cycles compared; tile ends, entries and overflow flags seen; the first difference."""
        hardware = self.hardware
        expected, found = np.zeros((2, len(self.fields)), np.int64)
        seen = np.zeros(4, np.int64)
        handle = self._library.napier_new()
        try:
            done = self._loop(
                array_config(hardware),
                reset_array(hardware),
                array_inputs(hardware),
                array_outputs(hardware),
                handle,
                cycles,
                np.random.default_rng(seed),
                hardware.operand_bits,
                self._masks,
                np.zeros(self._input_values, np.int64),
                expected,
                found,
                seen,
                np.zeros((0, self._input_values), np.int64) if recorded is None else recorded,
            )
        finally:
            self._library.napier_delete(handle)
        if done == cycles:
            return done, seen[:3], None
        index = int(seen[3])
        mask = int(self._masks[index])
        values = (int(expected[index]) & mask, int(found[index]) & mask)
        return done, seen[:3], Mismatch(done, self.fields[index].name, *values)


def run_lockstep(hardware: Hardware, library: Path, cycles: int, seed: int) -> LockstepResult:
    """Step model and Verilog together in one episode; see `Lockstep.run`."""
    return Lockstep(hardware, library).run(cycles, seed)


# -- replay ---------------------------------------------------------------------------------------

_BENCH = """
module replay;
  reg clk = 1'b0;
  reg rst = 1'b1;
  reg flush, feed_valid, handoff_ready, drain_enable;
  reg [{cols}-1:0] entry_valid;
  reg [{cols}*{entry_bits}-1:0] entry_data;
  reg [{feed_bits}-1:0] feed_data;
  reg [4+{cols}+{cols}*{entry_bits}+{feed_bits}-1:0] stimulus[0:{cycles}-1];
  integer cycle;

  {top} #({parameters}) dut (
    .clk(clk), .rst(rst), .flush(flush),
    .feed_valid(feed_valid), .feed_ready(), .feed_data(feed_data),
    .entry_valid(entry_valid), .entry_ready(), .entry_data(entry_data),
    .handoff_ready(handoff_ready), .drain_enable(drain_enable),
    .fire(), .issue_any(), .all_done(),
    .result_col({result_col_bits}'d0), .result(), .result_overflow(), .result_events()
  );

  initial begin
    $readmemh("stimulus.hex", stimulus);
    $dumpfile("waves.fst");
    {{flush, feed_valid, handoff_ready, drain_enable, entry_valid, entry_data, feed_data}} = 0;
    drain_enable = 1'b1;
    repeat (2) begin #5 clk = 1'b1; #5 clk = 1'b0; end
    rst = 1'b0;
    for (cycle = 0; cycle < {cycles}; cycle = cycle + 1) begin
      {{flush, feed_valid, handoff_ready, drain_enable, entry_valid, entry_data, feed_data}} =
          stimulus[cycle];
      if (cycle == {first_wave}) $dumpvars(0, dut);
      #5;
      if (cycle == {cycles} - 1) $display("%h", dut.{path});
      clk = 1'b1;
      #5 clk = 1'b0;
    end
    $finish;
  end
endmodule
"""


def replay(
    lockstep: Lockstep, mismatch: Mismatch, seed: int, folder: Path, verilog: list[Path]
) -> tuple[str, Path]:
    """Run the episode of a difference in Icarus, up to the cycle of the difference.

    Parameters
    ----------
    lockstep : Lockstep
    mismatch : Mismatch
    seed : int
        Of the episode.
    folder : Path
        Gets stimuli, bench and waves.
    verilog : list of Path
        Sources of the array.

    Returns
    -------
    value : str
        Of the signal that differs, hexadecimal, as Icarus has it in that cycle.
    waves : Path
        Of the last `WAVE_CYCLES` cycles (FST).

    Raises
    ------
    ToolError
        Icarus is missing or does not take the sources.
    """
    hardware, cycles = lockstep.hardware, mismatch.cycle + 1
    array, widths = hardware.array, hardware.widths
    folder.mkdir(parents=True, exist_ok=True)
    rows = lockstep.stimuli(cycles, seed)
    lines = [f"{_stimulus_word(row, hardware):x}\n" for row in rows.tolist()]
    (folder / "stimulus.hex").write_text("".join(lines), encoding="ascii")
    parameters = {**engine_parameters(hardware), "X_W": hardware.operand_bits}
    field = next(each for each in lockstep.fields if each.name == mismatch.signal)
    bench = _BENCH.format(
        top=TOP,
        cols=array.cols,
        entry_bits=widths.entry,
        feed_bits=array.rows * array.feed * widths.x,
        result_col_bits=max(1, (array.cols - 1).bit_length()),
        cycles=cycles,
        first_wave=max(0, cycles - WAVE_CYCLES),
        parameters=", ".join(f".{name}({parameters[name]})" for name in PARAMETERS),
        path=field.path,
    )
    (folder / "replay.v").write_text(bench, encoding="ascii")
    program = folder / "replay.vvp"
    files = [str(folder / "replay.v"), *map(str, verilog)]
    run_tool([find_tool("iverilog"), "-g2012", "-s", "replay", "-o", str(program), *files])
    said = run_tool([find_tool("vvp"), "-n", str(program.resolve()), "-fst"], folder)
    value = [line for line in said.splitlines() if not line.startswith("FST")][-1]
    return value, folder / "waves.fst"


def _stimulus_word(row: list[int], hardware: Hardware) -> int:
    """One cycle's inputs as the bench's word, most significant field first."""
    array, widths = hardware.array, hardware.widths
    cols = array.cols
    flush, feed_valid, handoff_ready, drain = row[:4]
    valid, last, advance, lane, code = (row[4 + i * cols : 4 + (i + 1) * cols] for i in range(5))
    word = flush << 3 | feed_valid << 2 | handoff_ready << 1 | drain
    for c in reversed(range(cols)):
        word = word << 1 | valid[c]
    for c in reversed(range(cols)):
        entry = (last[c] << widths.advance | advance[c]) << widths.lane | lane[c]
        word = word << widths.entry | entry << widths.code | code[c]
    for operand in reversed(row[4 + 5 * cols :]):
        word = word << widths.x | operand & ((1 << widths.x) - 1)
    return word


# -- command --------------------------------------------------------------------------------------


@click.command("rtl_models.lockstep", context_settings={"show_default": True})
@click.option("--hardware", default="mac4x4", help="Preset or TOML.")
@click.option(
    "--cycles",
    type=click.IntRange(min=1),
    default=10_000_000,
    help="Compared, in episodes from reset.",
)
@click.option("--seed", default=1, help="Of the first episode.")
@click.option("--work", type=click.Path(path_type=Path), default="lockstep", help="Build, waves.")
@click.pass_context
def main(context: click.Context, hardware: str, cycles: int, seed: int, work: Path) -> None:
    """Step the Verilated array and the model together and compare every register in every cycle.

    Where they differ, Icarus replays the episode and leaves waves of its last cycles.
    """
    machine = load_hardware(hardware)
    lockstep = Lockstep(machine, build(machine, work / "build"))
    begin = time.perf_counter()

    def show(done: int) -> None:
        rate = done / (time.perf_counter() - begin)
        click.echo(f"\r{done:,} cycles, {rate:,.0f} a second", nl=False, err=True)

    result = lockstep.run(cycles, seed, EPISODE_CYCLES, show)
    click.echo(err=True)
    click.echo(
        f"{machine.name}: {result.cycles:,} cycles of {result.values_per_cycle} values compared;"
        f" {result.fires:,} tiles, {result.issues:,} entries, {result.overflow_steps:,} overflow"
        " flags seen"
    )
    first = result.mismatch
    if first is not None:
        files = list(sources(TOP))
        value, waves = replay(lockstep, first, result.seed, work / "replay", files)
        click.echo(
            f"seed {result.seed}, cycle {first.cycle}: {first.signal} is {first.found:#x}, expected"
            f" {first.expected:#x}; Icarus has 0x{value}; waves: {waves}"
        )
        context.exit(1)


if __name__ == "__main__":
    run_command(main)
