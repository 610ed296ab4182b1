"""Command `python -m rtl_models.ladder`: how far each Verilog module is verified.

The table names the tests of every rung and module; what they found is read from
`ladder_results.json`, together with the digest of the Verilog that they ran on, so that a number of
another state of the Verilog shows as old.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click

from golden.errors import InputError
from rtl_models.commands import run_command
from rtl_models.sources import modules, sources
from rtl_models.subjects import SUBJECTS

RESULTS = Path(__file__).parent / "ladder_results.json"
"""What the runs found; written by `--record` and by `python -m rtl_models.mutation --record`."""

RUNGS = {
    "L0": "lint",
    "L2": "exhaustive and proven",
    "L3": "unit bench",
    "L4": "lockstep",
    "L5": "back-pressure",
    "L6": "layers and networks",
    "L7": "coverage",
    "L8": "mutation",
    "L9": "netlist",
    "L10": "X and reset",
}
"""L1, golden against unlimited integers, is about no module."""

DECODERS = (
    *("nhot_code_decoder", "nhot_pair_decoder"),
    *("ternary_plane_decoder", "trit_decoder", "trit_pair_decoder"),
)
"""They stand beside the accelerator, which has none of them."""

COMBINATIONAL = (
    *("fit_signed", "next_address", "pe_mac", "pe_shift_add", "pe_ternary"),
    *("winograd_1d", "winograd_scale", *DECODERS),
)

_WINOGRAD_ONLY = (
    *("chunk_counter", "input_transform", "output_transform", "part_counter", "patch_transform"),
    *("winograd_1d", "winograd_scale"),
)
"""Not there unless the accelerator has a Winograd unit."""

_PE = "tests/test_rtl_pe.py::"
_ARRAY = "tests/test_rtl_array.py::"
_ENGINE = "tests/test_rtl_engine.py::"
_VECTOR = "tests/test_rtl_vector.py::"
_DMA = "tests/test_rtl_dma.py::"
_TOP = "tests/test_rtl_top.py::"
_STALLS = "tests/test_rtl_backpressure.py::"
_NETLIST = "tests/test_rtl_netlist.py::"
_RESET = "tests/test_rtl_reset.py::"
_PROOFS = "tests/test_rtl_proofs.py::"
_WINOGRAD = "tests/test_rtl_winograd.py::"
_DECODERS = "tests/test_rtl_decoders.py::"
_CODES = f"{_DECODERS}test_every_code_gives_the_weights_of_golden_or_is_refused"
_TRANSFORM = f"{_WINOGRAD}test_input_transform_equals_its_matrices_in_the_cycles_of_its_rules"
_SWEEP = f"{_PE}test_pe_adds_operand_times_weight_for_every_operand_and_code"
_STEP_PROOFS = (
    f"{_PROOFS}test_accumulator_step_is_rules_p2_to_p5_from_every_state",
    f"{_PROOFS}test_accumulator_step_of_every_preset_is_rules_p2_to_p5",
)
_GATES = f"{_NETLIST}test_gate_level_run_gives_the_outputs_of_the_source_in_every_cycle"
_MODULE_NETLIST = f"{_NETLIST}test_netlist_of_a_module_is_proven_equal"
_PE_NETLISTS = (
    f"{_NETLIST}test_netlist_of_a_pe_is_proven_equal",
    f"{_NETLIST}test_netlist_of_the_9x9_multiplier_is_proven_equal",
)
_MODULE_RESET = (
    f"{_RESET}test_outputs_are_known_after_reset_and_a_reset_in_mid_operation_leaves_nothing"
)
_ENGINE_RESETS = (
    f"{_RESET}test_engine_reset_at_random_cycles_gives_the_results_of_a_fresh_run",
    f"{_RESET}test_engine_does_not_depend_on_what_its_registers_hold_at_power_up",
    f"{_ENGINE}test_reset_in_mid_run_leaves_nothing_behind",
)


@dataclass(frozen=True)
class Evidence:
    """Tests that take a module up a rung.

    Parameters
    ----------
    rung : str
    tests : tuple of str
        Names as in ``tests/test_x.py::test_y``, all parameters together.
    only : tuple of str
        Modules themselves.
    below : tuple of str
        Modules with everything below them.
    """

    rung: str
    tests: tuple[str, ...]
    only: tuple[str, ...] = ()
    below: tuple[str, ...] = ()

    def modules(self) -> set[str]:
        """Modules that the tests speak for."""
        return {*self.only, *(path.stem for top in self.below for path in sources(top))}


EVIDENCE = (
    Evidence("L0", ("tests/test_rtl_lint.py::test_every_module_is_clean",), modules()),
    Evidence("L2", (_SWEEP,), ("pe_mac", "pe_shift_add", "pe_ternary")),
    Evidence(
        "L2",
        (
            f"{_PROOFS}test_serial_addend_is_operand_times_signed_power",
            f"{_PROOFS}test_parallel_addend_is_operand_times_sum_of_two_signed_powers",
        ),
        ("pe_shift_add",),
    ),
    Evidence("L2", (f"{_PROOFS}test_ternary_addend_is_operand_times_trit",), ("pe_ternary",)),
    Evidence("L2", _STEP_PROOFS, ("pe_accumulator", "fit_signed")),
    Evidence("L2", (_SWEEP, *_STEP_PROOFS), ("napier_pe",)),
    Evidence("L2", (_CODES,), DECODERS),
    Evidence("L3", (_CODES,), DECODERS),
    Evidence(
        "L3", (_TRANSFORM,), ("input_transform", "patch_transform", "chunk_counter", "winograd_1d")
    ),
    Evidence(
        "L3",
        (f"{_WINOGRAD}test_output_transform_gives_the_outputs_of_the_direct_convolution",),
        ("output_transform", "winograd_scale"),
    ),
    Evidence(
        "L3",
        (f"{_WINOGRAD}test_parts_of_a_tile_are_chunks_outside_and_taps_inside_at_any_pace",),
        ("part_counter",),
    ),
    Evidence(
        "L3",
        (
            f"{_PE}test_pe_of_default_widths_follows_the_rules_in_every_cycle",
            f"{_PE}test_pe_registers_follow_the_rules_in_every_cycle",
            f"{_PE}test_pe_agrees_with_sums_done_by_hand",
        ),
        below=("napier_pe",),
    ),
    Evidence(
        "L3",
        (f"{_ARRAY}test_array_follows_the_rules_in_every_register_and_cycle",),
        ("napier_array", "array_window", "column_sequencer"),
    ),
    Evidence(
        "L3",
        (
            "tests/test_rtl_requantizer.py::"
            "test_requantizer_equals_golden_at_the_extremes_and_under_stalls",
        ),
        below=("requantizer",),
    ),
    Evidence(
        "L3",
        (f"{_ENGINE}test_control_counters_and_writes_follow_a_run_counted_by_hand",),
        ("layer_engine", "engine_core", "feeder", "drain", "stream_reader", "pixel_walker")
        + ("tile_counter", "next_address", "run_counters", "post_processor", "overflow_counters"),
    ),
    Evidence(
        "L3", (f"{_VECTOR}test_smallest_run_is_counted_by_hand",), ("vector_unit", "pair_operator")
    ),
    Evidence("L3", (f"{_DMA}test_random_transfers_take_the_cycles_of_the_rules",), below=("dma",)),
    Evidence(
        "L3",
        (
            "tests/test_rtl_top_control.py::"
            "test_control_follows_the_rules_of_registers_descriptors_and_order",
        ),
        below=("control",),
    ),
    Evidence(
        "L4",
        (
            "tests/test_rtl_lockstep.py::"
            "test_verilog_array_and_stepped_model_agree_in_every_register_and_cycle",
            "tests/test_rtl_lockstep.py::test_ten_million_cycles_of_an_8x8_array_agree",
        ),
        below=("napier_array",),
    ),
    Evidence(
        "L5",
        (f"{_STALLS}test_array_sums_do_not_depend_on_idle_and_stalled_streams",),
        ("napier_array", "column_sequencer"),
    ),
    Evidence("L5", (f"{_STALLS}test_window_releases_the_words_that_were_fed",), ("array_window",)),
    Evidence(
        "L5",
        (f"{_STALLS}test_stream_reader_repeats_its_tiles_at_any_pace",),
        ("stream_reader",),
    ),
    Evidence(
        "L5",
        (f"{_STALLS}test_feeder_gives_the_same_operands_to_a_window_that_stalls",),
        ("feeder",),
    ),
    Evidence(
        "L5",
        (f"{_STALLS}test_core_gives_the_same_results_to_idle_words_and_late_drains",),
        ("engine_core",),
    ),
    Evidence(
        "L5",
        (f"{_STALLS}test_vector_unit_reduces_the_same_tiles_at_any_pace",),
        ("vector_unit",),
    ),
    Evidence(
        "L5",
        (f"{_STALLS}test_host_gets_the_same_answers_at_any_pace",),
        ("axi_lite_registers", "control"),
    ),
    Evidence(
        "L5", (f"{_STALLS}test_drain_writes_the_same_codes_however_late_the_tiles_end",), ("drain",)
    ),
    Evidence(
        "L5",
        (
            "tests/test_rtl_requantizer.py::"
            "test_requantizer_equals_golden_at_the_extremes_and_under_stalls",
        ),
        ("requantizer",),
    ),
    Evidence("L5", (_TRANSFORM,), ("input_transform",)),
    Evidence(
        "L5", (f"{_DMA}test_random_transfers_are_right_whatever_the_bus_does",), below=("dma",)
    ),
    Evidence("L5", (f"{_TOP}test_any_memory_gives_the_same_codes",), ("napier_top",)),
    Evidence(
        "L6",
        (
            f"{_ENGINE}test_random_layers_agree_in_every_register_and_cycle",
            f"{_ENGINE}test_leftover_dense_shapes",
            f"{_ENGINE}test_leftover_conv_shapes",
            f"{_ENGINE}test_shipped_network_agrees_layer_by_layer",
        ),
        below=("napier_array",),
    ),
    Evidence(
        "L6",
        (f"{_TOP}test_a_network_of_every_kind_of_step", f"{_TOP}test_the_shipped_network"),
        tuple(path.stem for path in sources("napier_top") if path.stem not in _WINOGRAD_ONLY),
    ),
    Evidence(
        "L6",
        (
            f"{_WINOGRAD}"
            "test_a_layer_through_the_accelerator_equals_golden_in_bits_and_the_model_in_cycles",
        ),
        _WINOGRAD_ONLY,
    ),
    Evidence("L9", (f"{_DECODERS}test_netlist_of_a_decoder_is_proven_equal",), DECODERS),
    Evidence("L9", _PE_NETLISTS, ("napier_pe", "pe_mac")),
    Evidence(
        "L9", (f"{_NETLIST}test_netlist_of_a_2x2_array_is_proven_equal", _GATES), ("napier_array",)
    ),
    Evidence("L9", (_GATES,), ("napier_pe", "requantizer", "feeder", "drain")),
    Evidence(
        "L9",
        (_MODULE_NETLIST,),
        ("pe_shift_add", "pe_ternary", "fit_signed", "pe_accumulator", "column_sequencer")
        + ("array_window", "pixel_walker", "tile_counter", "stream_reader")
        + ("chunk_counter", "part_counter", "winograd_1d", "winograd_scale"),
    ),
    Evidence(
        "L10",
        (_MODULE_RESET,),
        tuple({subject.module for subject in SUBJECTS} - set(COMBINATIONAL)),
    ),
    Evidence("L10", _ENGINE_RESETS, ("layer_engine",)),
    Evidence("L10", (f"{_VECTOR}test_reset_in_mid_run_leaves_nothing_behind",), ("vector_unit",)),
    Evidence(
        "L10",
        (f"{_DMA}test_after_an_abort_or_reset_in_any_cycle_all_transfers_are_right",),
        ("dma",),
    ),
    Evidence(
        "L10",
        ("tests/test_rtl_top_errors.py::test_errors_aborts_and_resets_leave_a_machine_as_new",),
        ("napier_top",),
    ),
)

_PE_MODULES = ("fit_signed", "napier_pe", "pe_accumulator", "pe_mac", "pe_shift_add", "pe_ternary")
_NO_STREAMS = (
    *("pixel_walker", "tile_counter", "next_address", "run_counters", "layer_counters"),
    *("overflow_counters", "bank_memory", "beat_memory", "delay_line", "descriptor"),
    *("layer_engine", "pair_operator", "post_processor", "rescaler", "sequencer"),
    *("chunk_counter", "output_transform", "part_counter", "patch_transform", "winograd_1d"),
    *("winograd_scale", *DECODERS),
)
_REASONS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "L2",
        tuple(m for m in modules() if m not in (*_PE_MODULES, *DECODERS)),
        "too large to try everything",
    ),
    ("L4", ("napier_top",), "compared by cycles and causes, not by registers"),
    ("L4", DECODERS, "no registers"),
    ("L6", DECODERS, "not in the accelerator"),
    ("L5", (*_PE_MODULES, *_NO_STREAMS), "has no valid and ready"),
    (
        "L7",
        tuple(modules()),
        "the mutation score takes its place: mutants are drawn from all gates, and a gate that"
        " nothing exercises or looks at leaves them alive; open where L8 is",
    ),
    ("L10", COMBINATIONAL, "combinational: nothing to reset"),
)
WAIVED = {(rung, module): reason for rung, names, reason in _REASONS for module in names}
"""Rungs that mean nothing for a module, and why."""

DONE, OLD, UNRECORDED, WAIVED_STATE, OPEN = "done", "old", "not recorded", "waived", "open"


@dataclass(frozen=True)
class Cell:
    """One rung of one module.

    Parameters
    ----------
    rung, module : str
    state : str
        "done": passed with the Verilog as it is; "old": passed with an earlier state of it;
        "not recorded"; "waived"; "open": no test, or not passed.
    figure : str
        Cases that passed, or the mutation score.
    tests : tuple of str
    reason : str
        Why it is waived, or what is missing.
    """

    rung: str
    module: str
    state: str
    figure: str = ""
    tests: tuple[str, ...] = ()
    reason: str = ""

    @property
    def text(self) -> str:
        """As the table shows it."""
        if self.state == WAIVED_STATE:
            return "–"
        if self.figure and self.state != DONE:
            return f"{self.figure} ({self.state})"
        return self.figure or self.state


def digest(module: str) -> str:
    """Digest of a module and of all below it; comments do not count."""
    text = "".join(path.read_text(encoding="utf-8") for path in sources(module))
    return hashlib.sha256(re.sub(r"//[^\n]*|\s+", "", text).encode()).hexdigest()[:12]


def load_results() -> dict[str, Any]:
    """Read what was recorded: tests by name, mutation scores by module, subject and seed."""
    if not RESULTS.is_file():
        return {"tests": {}, "mutation": {}}
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return found


def save_results(results: Mapping[str, Any]) -> None:
    """Write the results file."""
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def record_tests(report: Path) -> int:
    """Take over a JUnit report of pytest; how many of the ladder's tests were in it.

    Cases that name modules count for these alone, and what was recorded of the others stays. A
    module whose Verilog was written after the run began gets no digest, so that its number shows
    as old.

    Parameters
    ----------
    report : Path
        From ``pytest --junitxml``. A test whose cases name no modules replaces the record, also
        where only some of them ran.

    Raises
    ------
    InputError
        The file is no XML.
    """
    named = {test for evidence in EVIDENCE for test in evidence.tests}
    known = set(modules())
    outcome: dict[str, dict[str, Any]] = {}
    try:
        tree = ElementTree.parse(report)
    except ElementTree.ParseError:
        raise InputError(
            f"{report} is no report of pytest --junitxml; run the tests with it"
        ) from None
    for case in tree.iter("testcase"):
        file = case.get("classname", "").replace(".", "/") + ".py"
        name, _, parameters = case.get("name", "").partition("[")
        name = f"{file}::{name}"
        if name not in named or case.find("skipped") is not None:
            continue
        bad = any(case.find(tag) is not None for tag in ("failure", "error"))
        counts = outcome.setdefault(name, {"passed": 0, "failed": 0, "modules": {}})
        counts["failed" if bad else "passed"] += 1
        for module in known & set(re.findall(r"\w+", parameters)):
            counts["modules"][module] = counts["modules"].get(module, 0) + (not bad)
    begun = min(
        (datetime.fromisoformat(suite.get("timestamp", "")) for suite in tree.iter("testsuite")),
    ).timestamp()
    now = {module: digest(module) for module in modules() if _written(module) < begun}
    results = load_results()
    for name, counts in outcome.items():
        speaks_for = {m for each in EVIDENCE if name in each.tests for m in each.modules()}
        before = results["tests"].get(name, {"modules": {}, "digests": {}})
        kept = before["modules"].keys() - counts["modules"].keys() if counts["modules"] else set()
        counts["modules"] |= {module: before["modules"][module] for module in kept}
        digests = {
            module: before["digests"].get(module, "") if module in kept else now.get(module, "")
            for module in sorted(speaks_for)
        }
        results["tests"][name] = {**counts, "digests": digests}
    save_results(results)
    return len(outcome)


def _written(module: str) -> float:
    """When the Verilog of a module or of one below it was last written."""
    return max(path.stat().st_mtime for path in sources(module))


def record_mutation(
    module: str, subject: str, seed: int, figures: Mapping[str, int], measured: str
) -> None:
    """Keep the mutants of one subject and seed: mutants, killed, equivalent, survived.

    `measured` is the digest of the module when the run began.
    """
    results = load_results()
    row = {**figures, "digest": measured}
    results["mutation"].setdefault(module, {})[f"{subject}, seed {seed}"] = row
    save_results(results)


def table() -> list[Cell]:
    """All rungs of all modules, module by module."""
    results, tests = load_results(), _tests()
    cells = []
    for module in modules():
        now = digest(module)
        mutation = _mutation_cell(module, now, results["mutation"].get(module, {}))
        for rung in RUNGS:
            if rung == "L8":
                cells.append(mutation)
            elif rung == "L7" and mutation.state != DONE:
                cells.append(Cell(rung, module, OPEN, reason="L8 takes its place and is not done"))
            else:
                named = tests.get((rung, module), ())
                cells.append(_cell(rung, module, now, named, results["tests"]))
    return cells


def _tests() -> dict[tuple[str, str], tuple[str, ...]]:
    """Collect the tests of every rung and module."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for each in EVIDENCE:
        for module in each.modules():
            place = each.rung, module
            found[place] = (*found.get(place, ()), *each.tests)
    return found


def _cell(
    rung: str, module: str, now: str, tests: tuple[str, ...], results: Mapping[str, Any]
) -> Cell:
    if not tests:
        if (rung, module) in WAIVED:
            return Cell(rung, module, WAIVED_STATE, reason=WAIVED[rung, module])
        return Cell(rung, module, OPEN, reason="no test")
    ran = [results[test] for test in tests if test in results]
    ran = [record for record in ran if not record["modules"] or module in record["modules"]]
    if len(ran) < len(tests):
        return Cell(rung, module, UNRECORDED, tests=tests)
    if any(record["failed"] for record in ran):
        return Cell(rung, module, OPEN, tests=tests, reason="a test fails")
    fresh = all(record["digests"].get(module) == now for record in ran)
    passed = sum(
        record["modules"].get(module, 0) if record["modules"] else record["passed"]
        for record in ran
    )
    return Cell(rung, module, DONE if fresh else OLD, str(passed), tests)


def _mutation_cell(module: str, now: str, rows: Mapping[str, Any]) -> Cell:
    if not rows:
        return Cell("L8", module, OPEN, reason="not measured")
    killed = sum(row["killed"] for row in rows.values())
    faults = sum(row["mutants"] - row["equivalent"] for row in rows.values())
    survived = sum(row["survived"] for row in rows.values())
    figure = f"{killed}/{faults}"
    if any(row["digest"] != now for row in rows.values()):
        return Cell("L8", module, OLD, figure)
    if survived:
        return Cell("L8", module, OPEN, figure, reason=f"{survived} survivors")
    return Cell("L8", module, DONE, figure)


def markdown(cells: Sequence[Cell]) -> str:
    """Table of modules and rungs, and below it why rungs are waived."""
    by_place = {(cell.module, cell.rung): cell for cell in cells}
    lines = ["| module | " + " | ".join(RUNGS) + " |", "|---" * (len(RUNGS) + 1) + "|"]
    for module in dict.fromkeys(cell.module for cell in cells):
        row = [by_place[module, rung].text for rung in RUNGS]
        lines.append(f"| {module} | {' | '.join(row)} |")
    reasons: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        if cell.state == WAIVED_STATE:
            reasons.setdefault((cell.rung, cell.reason), []).append(cell.module)
    lines.append("")
    for (rung, reason), names in reasons.items():
        whose = ", ".join(names) if len(names) < 18 else "the others"
        lines.append(f"* – in {rung}: {reason} ({whose}).")
    return "\n".join(lines)


def mutants_markdown() -> str:
    """Table of what became of the mutants of every subject and seed."""
    lines = [
        "| subject | seed | mutants | killed | equivalent | survived | score |",
        "|---" * 7 + "|",
    ]
    for module, rows in sorted(load_results()["mutation"].items()):
        now = digest(module)
        for name, row in sorted(rows.items()):
            subject, _, seed = name.rpartition(", seed ")
            score = row["killed"] / (row["mutants"] - row["equivalent"])
            old = "" if row["digest"] == now else " (old)"
            counts = (row[each] for each in ("mutants", "killed", "equivalent", "survived"))
            figures = " | ".join(map(str, counts))
            lines.append(f"| {subject}{old} | {seed} | {figures} | {score:.1%} |")
    return "\n".join(lines)


@click.command("rtl_models.ladder")
@click.option("--mutants", is_flag=True, help="Print what became of the mutants instead.")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Write all cells to this file."
)
@click.option(
    "--record",
    "reports",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Take over a report of pytest --junitxml first.",
)
def main(mutants: bool, json_path: Path | None, reports: tuple[Path, ...]) -> None:
    """Print which rung of the verification ladder each Verilog module has climbed."""
    for report in reports:
        click.echo(f"{report}: {record_tests(report)} tests recorded", err=True)
    cells = table()
    if json_path:
        text = json.dumps([asdict(cell) for cell in cells], indent=1) + "\n"
        json_path.write_text(text, encoding="utf-8")
    click.echo(mutants_markdown() if mutants else markdown(cells))


if __name__ == "__main__":
    run_command(main)
