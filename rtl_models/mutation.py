"""Command `python -m rtl_models.mutation`: how many faults of the Verilog are noticed.

A module's netlist (`rtl_models.mutants`) runs under legal random stimuli (`rtl_models.stimuli`),
each of its mutants then sees the same until an output differs. What no stimulus kills is put to
solvers (`rtl_models.equivalence`): a mutant whose outputs and next states are those of the module,
from every state and for every legal input, is equivalent and no fault.

    score = killed / (mutants - proven equivalent)
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from golden.errors import ToolError
from rtl_models.commands import run_command
from rtl_models.dut import Dut
from rtl_models.equivalence import Prover
from rtl_models.ladder import digest, record_mutation
from rtl_models.mutants import Mutant, Netlist, Subject, build
from rtl_models.replay import build_dut
from rtl_models.subjects import SUBJECTS

CHECKED_CYCLES = 3_000
"""Of the netlist without a fault beside its Verilog."""


@dataclass(frozen=True)
class MutationReport:
    """What became of the mutants of one subject.

    Parameters
    ----------
    name : str
    mutants, killed, equivalent : int
    survivors : tuple of Mutant
        Neither killed nor proven equivalent.
    cycles : int
        Longest run of a mutant.
    last_kill_cycle : int
        When the mutant that lived longest was killed.
    """

    name: str
    mutants: int
    killed: int
    equivalent: int
    survivors: tuple[Mutant, ...]
    cycles: int
    last_kill_cycle: int

    @property
    def score(self) -> float:
        """Killed among those that are faults."""
        faults = self.mutants - self.equivalent
        return self.killed / faults if faults else 1.0


def measure(
    subject: Subject,
    folder: Path,
    *,
    mutants: int = 200,
    cycles: int = 50_000,
    seed: int = 1,
    prove: bool = True,
) -> MutationReport:
    """Mutate a module, run the mutants, and prove or report those that live.

    Parameters
    ----------
    subject : Subject
    folder : Path
        Netlists and build products.
    mutants : int
        How many to draw at most.
    cycles : int
    seed : int
        Of the choice of mutants and of the stimuli.
    prove : bool
        Put what lives to a solver; else it is a survivor unless nothing reads the pin.

    Raises
    ------
    ToolError
        Yosys, Verilator or g++ is missing or failed, or made of the module what it is not.
    """
    netlist = Netlist(subject, folder, mutants, seed)
    dut = Dut(netlist.ports, build(netlist), subject.gates)
    check_netlist(subject, dut, folder / "source", seed)
    subject.stimuli(dut, random.Random(seed), cycles)
    unread = {mutant.number for mutant in netlist.mutants if netlist.is_unread(mutant)}
    first = dut.first_differences(len(netlist.mutants), unread)
    living = [mutant for mutant in netlist.mutants if first[mutant.number] < 0]
    is_equivalent = Prover(netlist).is_equivalent if prove else netlist.is_unread
    survivors = tuple(m for m in living if not is_equivalent(m))
    return MutationReport(
        name=subject.name,
        mutants=len(netlist.mutants),
        killed=len(netlist.mutants) - len(living),
        equivalent=len(living) - len(survivors),
        survivors=survivors,
        cycles=dut.cycles,
        last_kill_cycle=int(first.max(initial=-1)) + 1,
    )


def check_netlist(subject: Subject, dut: Dut, folder: Path, seed: int) -> None:
    """Compare the netlist without a fault with the Verilog that it was made of.

    Raises
    ------
    ToolError
        An output differs: a tool computes the wrong gates, and mutants of them say nothing.
    """
    source = build_dut(subject, folder)
    subject.stimuli(source, random.Random(seed), CHECKED_CYCLES)
    cycle = dut.difference_from(source)
    if cycle >= 0:
        raise ToolError(
            f"the netlist of {subject.name} is not its Verilog: they differ in cycle {cycle}, so"
            " that its mutants say nothing; another version of Yosys or Verilator may help"
        )


AT_LEAST_1 = click.IntRange(min=1)


@click.command("rtl_models.mutation")
@click.argument("names", nargs=-1)
@click.option(
    "--mutants", type=AT_LEAST_1, default=200, show_default=True, help="Most mutants of a module."
)
@click.option(
    "--cycles", type=AT_LEAST_1, default=50_000, show_default=True, help="Longest run of a mutant."
)
@click.option("--seed", default=1, show_default=True, help="Of the mutants and of the stimuli.")
@click.option("--prove/--no-prove", default=True, help="Whether solvers look at what lives.")
@click.option("--record", is_flag=True, help="Keep the figures for the table of the ladder.")
@click.option("--workdir", type=click.Path(path_type=Path), help="Keep netlists and proofs here.")
def main(
    names: tuple[str, ...],
    mutants: int,
    cycles: int,
    seed: int,
    prove: bool,
    record: bool,
    workdir: Path | None,
) -> None:
    """Mutate the Verilog modules NAMES (all by default) and print how many faults are noticed."""
    known = {subject.name: subject for subject in SUBJECTS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise click.UsageError(f"no module {unknown[0]!r}; there are {', '.join(known)}")
    click.echo("| module | mutants | killed | equivalent | survived | score | last kill, cycle |")
    click.echo("|---|---|---|---|---|---|---|")
    with TemporaryDirectory() as scratch:
        for name in names or known:
            folder = (workdir or Path(scratch)) / name.replace(" ", "_")
            begun = digest(known[name].module)
            report = measure(
                known[name], folder, mutants=mutants, cycles=cycles, seed=seed, prove=prove
            )
            click.echo(
                f"| {name} | {report.mutants} | {report.killed} | {report.equivalent} |"
                f" {len(report.survivors)} | {report.score:.1%} | {report.last_kill_cycle:,} |"
            )
            if record:
                figures = {
                    "mutants": report.mutants,
                    "killed": report.killed,
                    "equivalent": report.equivalent,
                    "survived": len(report.survivors),
                    "cycles": report.cycles,
                }
                record_mutation(known[name].module, name, seed, figures, begun)
            for mutant in report.survivors:
                click.echo(f"survived: {name} {mutant.number}: {mutant.options}", err=True)


if __name__ == "__main__":
    run_command(main)
