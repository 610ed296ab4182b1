"""`napier widths --tolerance`: the smallest accumulators that cost no more than some accuracy.

The uniform width is the smallest of the sweep down to which every point is within the tolerance.
From it a greedy search lowers layers one at a time. All of it is observed on samples, not proved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from golden.errors import InputError
from napier.report import LONGEST_NAME, human, human_energy, shorten
from napier.width_sweep import (
    ACC_BITS,
    RULES,
    Results,
    Sweep,
    run_layers,
    scores,
)
from simulator.energy import layer_energy, load_table
from simulator.machine import simulate
from simulator.results import Events

Document = dict[str, Any]
Progress = Callable[[int, int, str], None]
Widths = dict[int, int]
"""Accumulator bits of every layer that multiplies, by its index."""

METHOD = (
    "greedy: the layer with most PE steps first, each lowered a bit at a time as long as the score"
    " stays within the tolerance; one pass, not an optimum"
)

ADDER_UM2_PER_BIT = 4.3
"""At 45 nm: 36, 67 and 137 um2 for 8, 16 and 32 bits (M. Horowitz, ISSCC 2014)."""

REGISTER_UM2_PER_BIT = 5.98
"""At 40 nm, of Aladdin's table in Accelergy's component library."""

REGISTERS = 2
"""Words that a PE keeps: the accumulator and the result that waits to be drained."""

ROUNDING = 1e-9
"""Percent points by which a float of counts over counts may miss the tolerance."""


def check_tolerance(tolerance: float) -> None:
    """Refuse what is no share of the samples.

    Raises
    ------
    InputError
    """
    if not 0 <= tolerance <= 100:
        raise InputError(
            f"--tolerance {tolerance:g} must be 0 to 100 percent points; 0.5 lets accuracy fall"
            " from 98.5 % to 98 %"
        )


@dataclass(frozen=True)
class _Search:
    """What every trial of a search shares."""

    sweep: Sweep
    results: Results
    tolerance: float
    measure: str
    reference: float
    events: Mapping[int, Events]

    def within(self, entry: Document) -> bool:
        """Say whether the score of a point or a trial is within the tolerance."""
        lost: float = 100 * (self.reference - entry[self.measure])
        return lost <= self.tolerance + ROUNDING

    def energy_pj(self, widths: Widths) -> float:
        """Energy of the accumulators in one inference, each layer in a width of its own."""
        table = load_table(self.sweep.hardware.energy.table)
        return sum(
            layer_energy(events, self.sweep.machine(widths[index], "wrap"), table).accumulator
            for index, events in self.events.items()
        )

    def area_um2(self, widths: Widths) -> float:
        """Area of the array's accumulators, all as wide as the widest layer asks for."""
        array = self.sweep.hardware.array
        per_bit = ADDER_UM2_PER_BIT + REGISTERS * REGISTER_UM2_PER_BIT
        return array.rows * array.cols * max(widths.values()) * per_bit

    def trial(self, widths: Widths, rule: str) -> Document:
        """Run all samples with these widths, or take the result of an earlier call."""
        bits = list(widths.values())
        for trial in self.results.document["trials"]:
            if trial["acc_overflow"] == rule and trial["layer_bits"] == bits:
                return dict(trial)
        outputs, _ = run_layers(self.sweep, lambda index: self.sweep.machine(widths[index], rule))
        trial = {
            "acc_overflow": rule,
            "layer_bits": bits,
            **scores(self.sweep, outputs),
        }
        self.results.keep("trials", trial)
        return trial


def search_widths(
    sweep: Sweep,
    points: list[Document],
    proved: Widths,
    is_proof: bool,
    tolerance: float,
    results_path: str | None = None,
    progress: Progress | None = None,
) -> Document:
    """Find the smallest widths within the tolerance, for both overflow rules.

    Parameters
    ----------
    sweep : Sweep
        Its labels decide whether accuracy or top-1 agreement is the score.
    points : list of dict
        All points of the sweep, the widest first.
    proved : dict of int to int
        Certified bits of every layer that multiplies.
    is_proof : bool
        Whether no input needs more: a layer then starts at its proved width.
    tolerance : float
        Percent points that the score may fall.
    results_path : str or None
        The results of the sweep; holds the trials as well.
    progress : callable or None
        Called as (done, total, what).

    Returns
    -------
    dict
        tolerance, measure, reference, method, layers, proved, rules; see docs/widths.md.

    Raises
    ------
    InputError
        A tolerance that is none, or labels beyond the network's outputs.
    HardwareError
        A layer that the hardware cannot hold.
    """
    check_tolerance(tolerance)
    measure = "top1_agreement" if sweep.labels is None else "accuracy"
    reference: float = scores(sweep, sweep.reference.outputs)[measure]
    run = simulate(sweep.network, sweep.hardware, values=False)
    events = {index: run.layers[index].timing.events for index in proved}
    search = _Search(sweep, Results(sweep, results_path), tolerance, measure, reference, events)
    return {
        "tolerance": tolerance,
        "measure": measure,
        "reference": reference,
        "method": METHOD,
        "energy_table": run.energy_table.name,
        "proof": is_proof,
        "layers": [
            {
                "index": index,
                "name": sweep.network.layers[index].name,
                "steps": events[index].steps,
                "proved_bits": bits,
            }
            for index, bits in proved.items()
        ],
        "proved": _entry(search, dict.fromkeys(proved, max(proved.values())), reference),
        "rules": [_search_rule(search, points, proved, is_proof, rule, progress) for rule in RULES],
    }


def _entry(search: _Search, widths: Widths, score: float) -> Document:
    return {
        "layer_bits": list(widths.values()),
        "score": score,
        "accumulator_pj": search.energy_pj(widths),
        "accumulator_um2": search.area_um2(widths),
    }


def _search_rule(
    search: _Search,
    points: list[Document],
    proved: Widths,
    is_proof: bool,
    rule: str,
    progress: Progress | None,
) -> Document:
    uniform = _uniform([p for p in points if p["acc_overflow"] == rule], search)
    if uniform is None:
        return {"acc_overflow": rule, "uniform": None, "greedy": None}
    bits: int = uniform["acc_bits"]
    start = {index: min(bits, needed if is_proof else inf) for index, needed in proved.items()}
    widths, score = _lower(search, {i: int(b) for i, b in start.items()}, rule, progress)
    return {
        "acc_overflow": rule,
        "uniform": _entry(search, dict.fromkeys(proved, bits), uniform[search.measure]),
        "greedy": _entry(search, widths, score),
    }


def _uniform(points: list[Document], search: _Search) -> Document | None:
    """Narrowest point down to which all are within the tolerance."""
    found = None
    for point in points:
        if not search.within(point):
            break
        found = point
    return found


def _lower(
    search: _Search, start: Widths, rule: str, progress: Progress | None
) -> tuple[Widths, float]:
    """Greedy search from widths that are within the tolerance: `METHOD`."""
    widths = start
    score = search.trial(widths, rule)[search.measure]
    order = sorted(widths, key=lambda index: -search.events[index].steps)
    for done, index in enumerate(order):
        while widths[index] > ACC_BITS[0]:
            if progress is not None:
                name = search.sweep.network.layers[index].name
                progress(done, len(order), f"{rule}, {name} {widths[index] - 1} bits")
            lower = {**widths, index: widths[index] - 1}
            trial = search.trial(lower, rule)
            if not search.within(trial):
                break
            widths, score = lower, trial[search.measure]
    return widths, score


# -- the table ------------------------------------------------------------------------------------


def search_table(search: Document, samples: int) -> RenderableType:
    """Show what each choice of widths costs, then every layer's width; fits 80 columns."""
    basis = "proved" if search["proof"] else "seen"
    rows: list[tuple[str, str, Document]] = [(f"{basis}, one width", "both", search["proved"])]
    for rule in search["rules"]:
        if rule["uniform"] is not None:
            rows += [(name, rule["acc_overflow"], rule[name]) for name in ("uniform", "greedy")]
    measure = {"accuracy": "accuracy", "top1_agreement": "same top-1"}[search["measure"]]
    summary = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    summary.add_column("widths", no_wrap=True)
    summary.add_column("rule", no_wrap=True)
    for heading in ("bits", "mean", measure, "accumulators", "energy", "area"):
        summary.add_column(heading, justify="right", no_wrap=True)
    full, area = search["proved"]["accumulator_pj"], search["proved"]["accumulator_um2"]
    for title, rule_name, entry in rows:
        bits = entry["layer_bits"]
        summary.add_row(
            title,
            rule_name,
            str(bits[0]) if len(set(bits)) == 1 else f"{min(bits)}..{max(bits)}",
            f"{sum(bits) / len(bits):.1f}",
            f"{100 * entry['score']:.1f}%",
            human_energy(entry["accumulator_pj"]),
            f"{100 * entry['accumulator_pj'] / full:.0f}%",
            f"{100 * entry['accumulator_um2'] / area:.0f}%",
        )
    headline = (
        f"\nat most {search['tolerance']:g} percent points below {100 * search['reference']:.1f}%"
        f" {measure} on these {samples} samples; observed, not proved"
    )
    notes = [
        f"{rule['acc_overflow']}: the widest accumulator of the sweep is outside the tolerance;"
        " sweep wider ones"
        for rule in search["rules"]
        if rule["uniform"] is None
    ]
    notes.append(search["method"])
    notes.append(
        f"energy: accumulators alone, one inference, table {search['energy_table']}, as though"
        " each layer had its own width"
    )
    notes.append(
        f"area: adders and registers of the array's accumulators, {area:,.0f} um2 at 45 nm where"
        " proved, all as wide as the widest layer; napier synth counts gates of the Verilog"
    )
    return Group(Text(headline), summary, Text(""), _layers_table(search), Text("\n".join(notes)))


def _layers_table(search: Document) -> Table:
    found = [rule for rule in search["rules"] if rule["greedy"] is not None]
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("#", justify="right", style="dim", no_wrap=True)
    table.add_column("layer", no_wrap=True)
    for heading in (
        "steps",
        "proved" if search["proof"] else "seen",
        *(rule["acc_overflow"] for rule in found),
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for position, layer in enumerate(search["layers"]):
        table.add_row(
            str(layer["index"]),
            shorten(layer["name"], LONGEST_NAME),
            human(layer["steps"]),
            str(layer["proved_bits"]),
            *(str(rule["greedy"]["layer_bits"][position]) for rule in found),
        )
    return table
