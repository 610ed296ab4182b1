"""Prints what the benchmarks are for: rates, and ratios to what a user would use instead."""

from __future__ import annotations

from typing import Any

import pytest


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    for result in getattr(session, "benchmarks", []):
        facts = "  ".join(f"{name} {value:.4g}" for name, value in result.extra_info.items())
        terminalreporter.write_line(f"{result.name}: {facts}")
