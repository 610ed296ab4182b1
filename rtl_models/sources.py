"""Where the Verilog is, and which files a module needs."""

from __future__ import annotations

import re
from pathlib import Path

VERILOG = Path(__file__).parent / "verilog"
"""Folder of the sources; one module a file, the file is named like the module."""

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


def modules() -> tuple[str, ...]:
    """Names of all modules, sorted."""
    return tuple(sorted(path.stem for path in VERILOG.glob("*.v")))


def sources(*tops: str) -> tuple[Path, ...]:
    """Files of the given modules and of everything below them.

    Parameters
    ----------
    tops : str
        Module names, see `modules`.

    Returns
    -------
    tuple of Path
        Sorted. Since a file is named like its module, every module name in the text of a needed
        file, comments aside, names another needed file.

    Raises
    ------
    ValueError
        Where there is no such module.
    """
    known = modules()
    found: set[str] = set()
    waiting = list(tops)
    while waiting:
        name = waiting.pop()
        if name not in known:
            raise ValueError(f"no Verilog module {name!r}; there are {', '.join(known)}")
        if name not in found:
            found.add(name)
            waiting += modules_named_in(VERILOG / f"{name}.v")
    return tuple(VERILOG / f"{name}.v" for name in sorted(found))


def modules_named_in(file: Path) -> set[str]:
    """Names of our modules in the text of a Verilog file, comments aside."""
    text = _COMMENT.sub("", file.read_text(encoding="utf-8"))
    return set(re.findall(r"\w+", text)) & set(modules())
