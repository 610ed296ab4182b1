"""Errors of the whole project; each message is one sentence: name, rule, value, way out.

::

    NapierError
    ├── ModelError          a model file or network that cannot be taken
    │   └── UnsupportedError    well formed, but uses something Napier does not know
    ├── HardwareError       a hardware file that cannot be built, or cannot hold a layer
    ├── InputError          an array or argument from the user that does not fit
    ├── OutputError         a result that cannot be written
    └── ToolError           an outside program (Icarus, Verilator, Yosys) is missing or failed
"""

from __future__ import annotations


class NapierError(Exception):
    """Root of every error that Napier raises on purpose; the command line exits with 2."""


class ModelError(NapierError):
    """A model file or network that cannot be taken."""


class UnsupportedError(ModelError):
    """A well-formed model that uses an operator or option Napier does not know."""


class HardwareError(NapierError):
    """Hardware that cannot be built, or that cannot hold a layer."""


class InputError(NapierError):
    """An array or argument from the user that does not fit."""


class OutputError(NapierError):
    """A result that cannot be written."""


class ToolError(NapierError):
    """An outside program that is missing or failed."""
