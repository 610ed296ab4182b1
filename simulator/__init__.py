"""Cycle model: when things happen in the accelerator, and how much they cost. Numba inside.

`simulate` runs a network; `load_hardware` reads a preset or a TOML file. Names are imported on
first use, so that reading a hardware file does not load Numba.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "EnergyTable": "simulator.energy",
    "Events": "simulator.results",
    "Hardware": "simulator.hardware",
    "LayerResult": "simulator.machine",
    "LayerTiming": "simulator.results",
    "OverflowRecord": "simulator.results",
    "PreparedNetwork": "simulator.prepared",
    "RunResult": "simulator.machine",
    "accumulate": "simulator.values",
    "list_presets": "simulator.hardware",
    "load_hardware": "simulator.hardware",
    "load_table": "simulator.energy",
    "plan_layer": "simulator.timing",
    "project_weights": "simulator.projection",
    "simulate": "simulator.machine",
    "step_layer": "simulator.stepped",
    "time_layer": "simulator.timing",
}

__all__ = [
    "EnergyTable",
    "Events",
    "Hardware",
    "LayerResult",
    "LayerTiming",
    "OverflowRecord",
    "PreparedNetwork",
    "RunResult",
    "accumulate",
    "list_presets",
    "load_hardware",
    "load_table",
    "plan_layer",
    "project_weights",
    "simulate",
    "step_layer",
    "time_layer",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'simulator' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
