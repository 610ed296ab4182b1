"""Cycle model: when things happen in the accelerator, and how much they cost. Numba inside."""
