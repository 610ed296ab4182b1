"""The one place that calls `numba.njit`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from llvmlite import ir  # type: ignore[import-untyped]
from numba.extending import intrinsic

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


def jit_fused(function: F) -> F:
    """`jit` for a kernel whose float products and sums may become one operation.

    Where all of them are integers that the floats hold, that changes no result.
    """
    try:
        return cast(F, numba.njit(cache=True, fastmath={"contract"})(function))
    except RuntimeError:
        return cast(F, numba.njit(fastmath={"contract"})(function))


def _add_lanes(context: Any, a: Any, b: Any) -> Any:
    """Type and code of `add_lanes`, as Numba asks for them."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        if kind.width > 16:
            return builder.add(*arguments)
        shape = ir.FunctionType(kind, [kind, kind])
        add = builder.module.declare_intrinsic("llvm.sadd.sat", [kind], shape)
        return builder.call(add, arguments)

    return a(a, b), generate


add_lanes = cast(Callable[[Any, Any], Any], intrinsic(_add_lanes))
"""Sum of two integers of one type, in that type: int16 saturates, wider ones must not overflow.

Vector units add 16-bit lanes with saturation in one instruction, and Numba has no name for it.
"""
