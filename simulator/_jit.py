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


def jit_parallel(function: F) -> F:
    """`jit` for a kernel whose outer `numba.prange` loop runs on all threads."""
    try:
        return cast(F, numba.njit(cache=True, parallel=True)(function))
    except RuntimeError:
        return cast(F, numba.njit(parallel=True)(function))
