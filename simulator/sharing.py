"""Compiled loops over tasks, on as many threads as the machine has cores."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

THREADS = os.cpu_count() or 1

TASKS_PER_THREAD = 4
"""Parts of the work for each thread at least, so that none waits long for the others."""


def share_out(kernel: Callable[..., None], tasks: int, threads: int, *arguments: object) -> None:
    """Run kernel(first, last, *arguments) over all tasks; it must release Python's lock."""
    if threads == 1:
        kernel(0, tasks, *arguments)
        return
    parts = min(tasks, TASKS_PER_THREAD * threads)
    ends = [tasks * i // parts for i in range(parts + 1)]
    with ThreadPoolExecutor(threads) as pool:
        runs = [pool.submit(kernel, first, last, *arguments) for first, last in pairwise(ends)]
        for run in runs:
            run.result()
