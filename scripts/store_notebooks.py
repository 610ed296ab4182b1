"""Run the notebooks and store them with their outputs.

`python scripts/store_notebooks.py [NAME ...]` runs notebooks/NAME.py from top to bottom, all of
them where no name is given, and writes notebooks/NAME.ipynb. Identifiers of cells depend on what is
in them alone, so a second run changes only outputs that changed.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import warnings
from pathlib import Path

import jupytext
import nbclient
import nbformat

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
TIMEOUT_S = 900


def store(script: Path) -> None:
    """Run one notebook and write it beside its script."""
    notebook = jupytext.read(script)
    client = nbclient.NotebookClient(
        notebook,
        timeout=TIMEOUT_S,
        coalesce_streams=True,
        resources={"metadata": {"path": str(script.parent)}},
    )
    asyncio.run(client.async_execute())
    notebook.metadata.pop("language_info", None)
    for place, cell in enumerate(notebook.cells):
        cell.metadata = {}
        cell["id"] = hashlib.sha256(f"{place}{cell.source}".encode()).hexdigest()[:8]
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    nbformat.write(notebook, script.with_suffix(".ipynb"))


def main() -> None:
    """Store the notebooks that the command line names."""
    warnings.simplefilter("ignore")  # Jupyter's own client warns about ports and event loops
    names = sys.argv[1:] or sorted(path.stem for path in NOTEBOOKS.glob("*.py"))
    for name in names:
        store(NOTEBOOKS / f"{name}.py")
        print(f"notebooks/{name}.ipynb written")


if __name__ == "__main__":
    main()
