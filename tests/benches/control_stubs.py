"""What stands around `control` in its bench: dma and engine, which take as long as they are told.

Cycles are counted from the falling edge on which `Surroundings.run` is called; everything is driven
and seen at falling edges, in the middle of a cycle.
"""

from cocotb.triggers import FallingEdge
from program_model import LOADS

KINDS = (*LOADS, "store")
ERRORS = {"error_read": 1, "error_write": 2, "error_bounds": 6, "error_block": 7}


class Surroundings:
    """Plays dma and engine for `control`, and writes down what it was asked for."""

    def __init__(self, dut, rng):
        self.dut, self.rng = dut, rng
        self.beat_words = len(dut.desc_data) // 32
        self.operations, self.taken, self.started, self.done = [], [], [], []
        self.starts, self.clears, self.aborts, self.loads = [], [], [], []
        self.offsets, self.stored, self.ran = [], [], []
        self.cycle = 0
        for name in ("op_done", "desc_write", "desc_index", "desc_data", "engine_done", *ERRORS):
            getattr(dut, name).value = 0
        dut.dma_idle.value = 1
        self._show_run(None)

    def since_start(self):
        """Cycles since the host's start; None before."""
        return self.cycle - self.starts[0] if self.starts else None

    def _over(self, cycles):
        ran = bool(self.starts) and self.since_start() > 0
        return ran and (not int(self.dut.busy.value) or self.since_start() == cycles)

    async def run(self, passes, descriptors, error=None, linger=0, cycles=None):
        """Play a program to its end, or only for some cycles after the host's start.

        `passes` are PassTimes, `descriptors` lists of words. `error` is (name, when): the signal is
        set in the cycle in which `when(self)` is true and stays. After an abort the dma has bursts
        to end for `linger` cycles.
        """
        dut = self.dut
        fetched, stores = -1, [j for j, each in enumerate(passes) if each.durations["store"]]
        operation = None  # kind, pass, begin, end
        beats, run, runs, busy_until = {}, None, 0, None
        while not self._over(cycles):
            cycle = self.cycle
            if int(dut.clear.value):
                self.clears.append(cycle)
                operation, beats, run, busy_until = None, {}, None, None
                for name in ERRORS:
                    getattr(dut, name).value = 0
            if int(dut.take.value):
                self.taken.append(cycle)
            if int(dut.u_registers.start.value):
                self.starts.append(cycle)
            if int(dut.dma_abort.value):
                self.aborts.append(cycle)
                operation, beats = None, {}
                if busy_until is None:
                    busy_until = cycle + linger

            if int(dut.op_start.value):
                assert operation is None, "one operation at a time"
                kind = KINDS[int(dut.op_kind.value)]
                if kind == "descriptor":
                    fetched += 1
                    self.offsets.append(int(dut.descriptor_offset.value))
                j = stores.pop(0) if kind == "store" else fetched
                end = cycle + passes[j].durations[kind]
                operation = (kind, j, cycle, end)
                if kind == "descriptor":
                    beats = self._beats(descriptors[j], cycle, end)
                elif kind == "store":
                    self.stored.append((j, int(dut.running.value)))
            if operation and operation[0] in LOADS[1:]:
                self.loads.append((operation[1], int(dut.loading.value)))
            ends = operation is not None and operation[3] == cycle
            dut.op_done.value = int(ends)
            if ends:
                self.operations.append(operation)
                operation = None
            self._write(beats.get(cycle))
            dut.dma_idle.value = int(operation is None and (busy_until or 0) <= cycle)

            if int(dut.engine_start.value):
                assert run is None, "one run at a time"
                self.started.append(cycle)
                run, runs = (runs, cycle + passes[runs].run_cycles), runs + 1
            if run:
                self.ran.append((run[0], int(dut.running.value)))
            dut.engine_done.value = int(run is not None and run[1] == cycle)
            if run and run[1] == cycle:
                self.done.append(cycle)

            if error and error[1](self):
                getattr(dut, error[0]).value = 1
            await FallingEdge(dut.clk)
            self.cycle += 1
            if run and run[1] == cycle:  # final from the cycle after done
                self._show_run(passes[run[0]].run)
                run = None
            elif run:
                self._show_run(None)

    def _beats(self, words, begin, end):
        """Spread a descriptor's beats over the cycles begin + 1 .. end, the last one in `end`."""
        size = self.beat_words
        data = [
            sum(word << 32 * i for i, word in enumerate(words[at : at + size]))
            for at in range(0, len(words), size)
        ]
        cycles = sorted(self.rng.sample(range(begin + 1, end), len(data) - 1)) + [end]
        return {cycle: beat for cycle, *beat in zip(cycles, range(len(data)), data, strict=True)}

    def _write(self, beat):
        dut = self.dut
        dut.desc_write.value = int(beat is not None)
        index, data = beat or (
            self.rng.getrandbits(len(dut.desc_index)),
            self.rng.getrandbits(len(dut.desc_data)),
        )
        dut.desc_index.value, dut.desc_data.value = index, data

    def _show_run(self, run):
        names = ("compute", "fill", "stall_feed", "drain", "overflow_events", "overflow_outputs")
        for name in names:
            value = run[name] if run else self.rng.getrandbits(32)
            getattr(self.dut, f"run_{name}").value = value
