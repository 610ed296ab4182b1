"""The one place that calls `numba.njit`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def jit(function: F) -> F:
    """Compile `function` with Numba and keep the machine code on disk.

    Numba refuses `cache=True` where it finds no place for the cache (code from standard input, a
    read-only installation without a home folder); the function is then compiled in each process.
    Numba does not notice an edited callee in another file, so a kernel calls only kernels of its
    own file.
    """
    try:
        return cast(F, numba.njit(cache=True)(function))
    except RuntimeError:
        return cast(F, numba.njit(function))


def jit_nogil(function: F) -> F:
    """`jit` for a kernel that several Python threads run at once, each on its own part."""
    try:
        return cast(F, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:
        return cast(F, numba.njit(nogil=True)(function))
