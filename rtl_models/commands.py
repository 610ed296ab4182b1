"""How the commands `python -m rtl_models...` end: a failure that is expected in one sentence."""

from __future__ import annotations

import click

from golden.errors import NapierError


def run_command(command: click.Command) -> None:
    """Run a command of this process's command line."""
    try:
        command()
    except NapierError as error:
        click.echo(f"{command.name}: {error}", err=True)
        raise SystemExit(2) from None
    except OSError as error:
        click.echo(f"{command.name}: {error.filename}: {error.strerror}", err=True)
        raise SystemExit(2) from None
