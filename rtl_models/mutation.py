"""Command `python -m rtl_models.mutation`: how many faults of the Verilog are noticed."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import click

from golden.errors import NapierError
from rtl_models.ladder import digest, record_mutation
from rtl_models.mutants import measure
from rtl_models.subjects import SUBJECTS


@click.command()
@click.argument("names", nargs=-1)
@click.option("--mutants", default=200, show_default=True, help="Most mutants of a module.")
@click.option("--cycles", default=50_000, show_default=True, help="Longest run of a mutant.")
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
            try:
                report = measure(
                    known[name], folder, mutants=mutants, cycles=cycles, seed=seed, prove=prove
                )
            except NapierError as error:
                raise click.ClickException(str(error)) from error
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
    main()
