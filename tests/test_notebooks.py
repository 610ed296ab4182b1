"""Every notebook runs from top to bottom, and its two forms say the same."""

import asyncio
import warnings
from pathlib import Path

import jupytext
import nbclient
import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.py")), ids=lambda path: path.stem)
def test_both_forms_of_a_notebook_hold_the_same_cells(path: Path) -> None:
    script = jupytext.read(path)
    stored = jupytext.read(path.with_suffix(".ipynb"))
    assert [(cell.cell_type, cell.source) for cell in script.cells] == [
        (cell.cell_type, cell.source) for cell in stored.cells
    ]


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.py")), ids=lambda path: path.stem)
def test_notebook_runs(path: Path) -> None:
    with warnings.catch_warnings():
        # Jupyter's own client warns about ports and event loops; not about the notebook.
        warnings.simplefilter("ignore")
        notebook = jupytext.read(path)
        client = nbclient.NotebookClient(
            notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}
        )
        asyncio.run(client.async_execute())
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
