"""Methods by name: those of `golden.quantization.methods`, and files of the user's own.

One file is one method: it holds one `METHOD = Method(...)`. A text names a method with its
settings: ``nhot``, ``nhot:n=2,e=7``, ``my_quantizer.py:levels=5``.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable
from functools import cache
from math import isfinite
from pathlib import Path

from golden.errors import InputError
from golden.quantization.method import Method, Options

TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
"""What a setting that is on or off can be, in capitals too."""


@cache
def methods() -> dict[str, Method]:
    """All methods that ship with Napier, by name."""
    package = importlib.import_module("golden.quantization.methods")
    names = sorted(info.name for info in pkgutil.iter_modules(package.__path__))
    modules = [importlib.import_module(f"{package.__name__}.{name}") for name in names]
    return {module.METHOD.name: module.METHOD for module in modules}


def parse_method(text: str, others: Iterable[str] = ()) -> tuple[Method, Options]:
    """Find a method and its settings.

    Parameters
    ----------
    text : str
        ``name``, ``name:key=value,key=value``; a name ending in ``.py`` is a file that holds a
        `METHOD`.
    others : iterable of str
        Names that the caller takes as well, for the error that lists them all.

    Returns
    -------
    method : Method
    options : mapping
        All settings of the method: those given, and the defaults of the others.

    Raises
    ------
    InputError
        For an unknown method or setting, a value of the wrong type, or a file without a method.
    """
    name, _, settings = text.partition(":")
    path = method_file(text)
    method = _named(name, others) if path is None else method_from_file(path)
    options = dict(method.options)
    for setting in filter(None, settings.split(",")):
        key, equals, value = setting.partition("=")
        if key not in options or not equals:
            raise InputError(
                f"{setting!r} is not a setting of method {method.name}, which takes"
                f" {_listed(method)}; {_suggestion(key, options)}"
            )
        options[key] = _value(method, key, value)
    return method, options


def needs_moments(method: Method, options: Options) -> bool:
    """Whether a method, set so, reads the moments of calibration data."""
    return method.needs_data or options.get("objective") == "outputs"


def method_file(text: str) -> Path | None:
    """Path of the user's own file that a text names; None for a method of the registry."""
    name, _, _ = text.partition(":")
    return Path(name) if name.endswith(".py") else None


def method_from_file(path: Path) -> Method:
    """Read `METHOD` from a user's own file, which is run."""
    if not path.is_file():
        raise InputError(f"method file {str(path)!r} does not exist; give the path of a .py file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None  # the name ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise InputError(
            f"method file {str(path)!r} fails with {type(error).__name__}: {error}; mend it"
        ) from error
    method = getattr(module, "METHOD", None)
    if not isinstance(method, Method):
        raise InputError(
            f"method file {str(path)!r} holds no METHOD = Method(...); see docs/quantizers.md"
        )
    for key, default in method.options.items():
        if not isinstance(default, (bool, int, float, str)):
            raise InputError(
                f"{key} of method {method.name} must have a bool, int, float or str as its default,"
                f" whose type is the setting's, not {default!r}; give it one in {str(path)!r}"
            )
    return method


def _named(name: str, others: Iterable[str]) -> Method:
    if name not in methods():
        known = [*methods(), *others]
        raise InputError(
            f"{name!r} is not a method, which are {', '.join(known)}; {_suggestion(name, known)}"
        )
    return methods()[name]


def _value(method: Method, key: str, text: str) -> float | int | str:
    kind = type(method.options[key])
    if kind is str:
        allowed = method.choices.get(key, (text,))
        if text not in allowed:
            raise InputError(
                f"{key} of method {method.name} must be {' or '.join(allowed)}, not {text!r};"
                f" {_suggestion(text, allowed)}"
            )
        return text
    try:
        value = TRUTHS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        value = None
    if value is None or (isinstance(value, float) and not isfinite(value)):
        wanted = {bool: "true or false", int: "an integer"}.get(kind, "a finite number")
        raise InputError(
            f"{key} of method {method.name} must be {wanted}, not {text!r}; for example"
            f" {key}={method.options[key]}"
        )
    return value


def _listed(method: Method) -> str:
    return ", ".join(f"{key}={value}" for key, value in method.options.items()) or "none"


def _suggestion(text: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(text, list(known), 1)
    return f"did you mean {close[0]}?" if close else "choose one of these"
