"""What a layer computes through the Winograd units (the fast speed): sums of parts, outputs, codes.

An independent statement of what `golden.winograd` computes: the two are compared.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.network import Conv2D, Tensor
from simulator import kernels
from simulator import winograd_kernels as transforms
from simulator.cuts import step_geometry
from simulator.hardware import Hardware
from simulator.lowering import Step
from simulator.program import Geometry, entry_rule
from simulator.results import OverflowRecord
from simulator.sharing import TASKS_PER_THREAD, THREADS, share_out
from simulator.values import LANES, accumulator_rules, post_process, tallied_record
from simulator.winograd import form_of

Array = NDArray[Any]

PARALLEL_WORK = 2_000_000
"""Products or elements from which on threads are worth starting."""

BLOCK_ELEMENTS = 1 << 24
"""Transformed operands and sums kept at once, so that many samples need little memory."""


def run_winograd(
    step: Step, x: Array, output: Tensor, hardware: Hardware
) -> tuple[Array, OverflowRecord]:
    """Output codes and overflow record of a step that the Winograd units compute.

    Parameters
    ----------
    step : Step
        See `simulator.winograd.winograd_step`.
    x : (N, H, W, C) integer array
        Codes.
    output : Tensor
    hardware : Hardware

    Returns
    -------
    codes : array
    record : OverflowRecord
        Over the sums of all parts (rule W4) of all samples.
    """
    layer, geometry = step.layer, step_geometry(step)
    assert isinstance(layer, Conv2D)
    form = form_of(geometry)
    pixels = geometry.image[0] * geometry.image[1]
    tiles = geometry.out_height * geometry.out_width
    per_sample = form.taps**2 * tiles * (geometry.in_channels + geometry.out_channels)
    samples = max(1, BLOCK_ELEMENTS // per_sample)
    codes, tallies = [], []
    for start in range(0, len(x), samples):
        block = x[start : start + samples]
        operands = transform_inputs(layer, block, geometry)
        sums, tally = accumulate_parts(layer, operands, len(block) * tiles, geometry, hardware)
        contents = transform_outputs(sums, len(block), geometry, hardware.result_bits)
        codes.append(post_process(layer, contents, len(block) * pixels, output, hardware))
        tallies.append(tally)
    return np.concatenate(codes), tallied_record(np.concatenate(tallies), hardware)


def transform_inputs(layer: Conv2D, x: Array, geometry: Geometry) -> Array:
    """Make V, (products, blocks, in_channels, lanes), of the tiles of all samples.

    Lanes of the last block beyond the last tile are 0.
    """
    form, grid = form_of(geometry), (geometry.out_height, geometry.out_width)
    tiles = len(x) * grid[0] * grid[1]
    blocks = ceil(tiles / LANES)
    lanes = ceil(tiles / blocks / 16) * 16
    largest = np.abs(form.inputs).sum(axis=1).max() ** 2 * _largest_operand(layer, x)
    dtype = np.int16 if largest < 1 << 15 else np.int32
    V = np.zeros((form.taps**2, blocks, x.shape[3], lanes), dtype=dtype)
    share_out(
        transforms.transform_inputs, tiles, _threads(V.size),
        x, layer.input_zero_point, (layer.padding.top, layer.padding.left), form.outputs, grid,
        form.inputs, V,
    )  # fmt: skip
    return V


def _largest_operand(layer: Conv2D, x: Array) -> int:
    zero = layer.input_zero_point
    return max(zero - int(x.min(initial=zero)), int(x.max(initial=zero)) - zero)


def accumulate_parts(
    layer: Conv2D, operands: Array, tiles: int, geometry: Geometry, hardware: Hardware
) -> tuple[Array, NDArray[np.int64]]:
    """Accumulate the parts of all tiles as the PEs do.

    Parameters
    ----------
    layer : Conv2D
        With transformed weights.
    operands : (products, blocks, in_channels, lanes) array
    tiles : int
    geometry : Geometry
    hardware : Hardware

    Returns
    -------
    sums : (products, out_channels, tiles) int64 array
        What the accumulators hold, over all chunks.
    tallies : (tasks, 5) int64 array
        See `kernels.accumulate`.
    """
    products, _, channels, _ = operands.shape
    largest = np.maximum(operands.max(axis=(1, 3)), -operands.min(axis=(1, 3)).astype(np.int64))
    weights = layer.weights.reshape(geometry.out_channels, products, channels)
    sums = np.empty((products, geometry.out_channels, tiles), dtype=np.int64)
    threads = _threads(sums.size * channels)
    tasks = products * (ceil(TASKS_PER_THREAD * threads / products) if threads > 1 else 1)
    tallies = np.zeros((tasks, 5), dtype=np.int64)
    share_out(
        kernels.accumulate_parts, tasks, threads,
        operands, largest, weights, geometry.chunk_words * geometry.feed, tiles,
        *entry_rule(hardware), accumulator_rules(hardware), sums, tallies,
    )  # fmt: skip
    return sums, tallies


def transform_outputs(sums: Array, samples: int, geometry: Geometry, valid: int) -> Array:
    """Make accumulators, (pixel blocks, out_channels, lanes), of sums modulo 2**valid."""
    form = form_of(geometry)
    pixels = samples * geometry.image[0] * geometry.image[1]
    lanes = min(LANES, pixels)
    y = np.empty((ceil(pixels / lanes), geometry.out_channels, lanes), dtype=np.int64)
    inverse = np.array(pow(form.odd, -1, 1 << 64), dtype=np.uint64).astype(np.int64)[()]
    share_out(
        transforms.transform_outputs, geometry.out_channels, _threads(sums.size),
        sums, form.sums, geometry.image, (geometry.out_height, geometry.out_width), form.shift,
        inverse, valid - form.shift, y,
    )  # fmt: skip
    return y


def _threads(work: int) -> int:
    return THREADS if work > PARALLEL_WORK else 1
