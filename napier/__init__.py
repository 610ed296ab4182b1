"""Front door: the command line, and the few names a notebook needs.

::

    import napier

    network = napier.load_model(None)                      # the network that ships; or a path
    hardware = napier.load_hardware("nhot2_16x16")         # a preset or a TOML file
    samples = napier.default_samples(network, None)
    result = napier.simulate(network, hardware, samples.arrays)
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "load_model": "napier.loading",
    "load_samples": "napier.loading",
    "default_samples": "napier.loading",
    "run_table": "napier.report",
    "run_csv": "napier.report",
    "run_figure": "napier.plots",
    "changed_hardware": "simulator.hardware",
    "hardware_from_dict": "simulator.hardware",
    "load_hardware": "simulator.hardware",
    "list_presets": "simulator.hardware",
    "simulate": "simulator.machine",
}

__all__ = [  # resolved on first use, so that `napier --help` imports neither Numba nor Matplotlib
    "changed_hardware",
    "default_samples",
    "hardware_from_dict",
    "list_presets",
    "load_hardware",
    "load_model",
    "load_samples",
    "run_csv",
    "run_figure",
    "run_table",
    "simulate",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"napier has no {name!r}; it has {', '.join(sorted(_HOMES))}")
