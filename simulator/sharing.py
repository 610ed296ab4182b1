"""Compiled loops over tasks, on as many threads as the machine has cores."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = os.cpu_count() or 1

TASKS_PER_THREAD = 4
"""Parts of the work for each thread at least, so that none waits long for the others."""

_this_thread = threading.local()
"""`.shares` is set in threads that run beside others: their loops are not shared out again."""


def map_shared(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Results of calls that may run side by side, in order, on as many threads as cores.

    What the calls share out stays on their own threads: better than `share_out` inside where they
    also do much that is not in compiled loops.
    """
    with ThreadPoolExecutor(THREADS, initializer=_mark_thread) as pool:
        yield from pool.map(function, items)


def _mark_thread() -> None:
    _this_thread.shares = True


def share_out(kernel: Callable[..., None], tasks: int, threads: int, *arguments: object) -> None:
    """Run kernel(first, last, *arguments) over all tasks; it must release Python's lock."""
    if threads == 1 or hasattr(_this_thread, "shares"):
        kernel(0, tasks, *arguments)
        return
    parts = min(tasks, TASKS_PER_THREAD * threads)
    ends = [tasks * i // parts for i in range(parts + 1)]
    with ThreadPoolExecutor(threads) as pool:
        runs = [pool.submit(kernel, first, last, *arguments) for first, last in pairwise(ends)]
        for run in runs:
            run.result()
