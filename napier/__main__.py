"""`python -m napier`, and the command `napier`."""

import sys


def main() -> None:
    """Run the command line; an interrupt while it still loads gets its sentence too."""
    try:
        from napier.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("napier: interrupted before anything was begun\n")
        raise SystemExit(2) from None
    run()


if __name__ == "__main__":
    main()
