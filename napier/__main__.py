"""`python -m napier` is the command `napier`."""

from napier.cli import main

if __name__ == "__main__":
    main()
