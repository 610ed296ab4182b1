"""Rules T4, T5 and T10 in plain Python: which operation is when, and what every cycle is spent on.

Imports nothing of ours. An operation that takes n cycles more than the one in which it begins has
duration n; one with nothing to do has duration 0.
"""

from dataclasses import dataclass, field

LOADS = ("descriptor", "weights", "activations", "second")
CAUSES = ("control", *(f"stall_{name}" for name in (*LOADS[:3], "outputs")))
ENGINE_CAUSES = ("compute", "fill", "stall_feed", "drain")
OVERFLOWS = ("overflow_events", "overflow_outputs")
COUNTERS = ("cycles", *ENGINE_CAUSES, *CAUSES, *OVERFLOWS)
"""In the order of the registers."""


@dataclass
class PassTimes:
    """What a pass does and how long each part takes."""

    order: int
    layer: int
    layer_end: bool
    durations: dict[str, int]  # of the operations in LOADS and of "store"
    run: dict[str, int]  # cycles of the engine by cause, and overflows

    @property
    def run_cycles(self):
        return sum(self.run[name] for name in ENGINE_CAUSES)


@dataclass
class Schedule:
    """Events of a program: cycles are counted from the host's start, which is cycle 0."""

    operations: list[tuple[str, int, int, int]] = field(default_factory=list)  # kind, pass, s*, e
    taken: list[int] = field(default_factory=list)
    started: list[int] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    cycles: int = 0
    layers: dict[int, dict[str, int]] = field(default_factory=dict)

    @property
    def total(self):
        """Counters of the program."""
        return {name: sum(layer[name] for layer in self.layers.values()) for name in COUNTERS}


def operations_in_order(passes):
    """Kind and pass of every operation (rule T4); the store before the first pass has pass -1."""
    for j, each in enumerate(passes):
        kinds = [(kind, j) for kind in LOADS]
        place = {0: 4, 1: 2, 2: 1}[each.order]
        yield from [*kinds[:place], ("store", j - 1), *kinds[place:]]
    yield "store", len(passes) - 1


def schedule(passes):
    """Work out a program's events and counters."""
    result, spans, cycle = Schedule(), [], 1
    for kind, j in operations_in_order(passes):
        begin, first = cycle, cycle
        if kind == "store" and j >= 0:
            first = max(cycle, result.done[j] + 1)
        end = first + (passes[j].durations[kind] if j >= 0 else 0)
        spans.append((kind, j, begin, end))
        if end > first:
            result.operations.append((kind, j, first, end))
        if kind == "second":
            taken = max(end + 1, result.done[-1] + 1 if result.done else 0)
            result.taken.append(taken)
            result.started.append(taken + 1)
            result.done.append(taken + 1 + passes[j].run_cycles)
        cycle = end + 1
    result.cycles = cycle - 1

    causes = {}
    for kind, _, begin, end in spans:
        name = {"second": "activations", "store": "outputs"}.get(kind, kind)
        causes |= dict.fromkeys(range(begin, end + 1), f"stall_{name}")
    for taken, started, done in zip(result.taken, result.started, result.done, strict=True):
        causes |= {taken: "control", started: "control"}
        causes |= dict.fromkeys(range(started + 1, done + 1), "engine")
    assert set(causes) == set(range(1, result.cycles + 1))

    first, members = 1, []
    for kind, j, _, end in spans:
        if kind != "store" or j < 0:
            continue
        members.append(passes[j].run)
        if passes[j].layer_end:
            spent = [causes[cycle] for cycle in range(first, end + 1)]
            result.layers[passes[j].layer] = (
                {"cycles": len(spent)}
                | {name: sum(run[name] for run in members) for name in ENGINE_CAUSES}
                | {name: spent.count(name) for name in CAUSES}
                | {name: sum(run[name] for run in members) for name in OVERFLOWS}
            )
            first, members = end + 1, []
    return result
