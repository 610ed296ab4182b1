"""What a layer computes through the Winograd units (the fast speed): sums of parts, outputs, codes.

An independent statement of what `golden.winograd` computes: the two are compared.
"""

from __future__ import annotations

from math import ceil, prod
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
from simulator.results import OverflowCounts, OverflowRecord
from simulator.sharing import TASKS_PER_THREAD, THREADS, share_out
from simulator.values import LANES, PostProcessor, accumulator_rules, tallied_record
from simulator.winograd import form_of

Array = NDArray[Any]

PARALLEL_WORK = 2_000_000
"""Products or elements from which on threads are worth starting."""

BLOCK_ELEMENTS = 1 << 22
"""Transformed operands and sums kept at once: many more leave the caches and take memory."""


class WinogradLayer:
    """A layer that the Winograd units compute.

    Parameters
    ----------
    step : Step
        See `simulator.winograd.winograd_step`.
    hardware : Hardware
    """

    def __init__(self, step: Step, hardware: Hardware) -> None:
        assert isinstance(step.layer, Conv2D)
        self.layer, self.geometry, self.hardware = step.layer, step_geometry(step), hardware
        self._post = PostProcessor(step.layer, hardware)

    def run(self, x: Array, output: Tensor) -> tuple[Array, OverflowRecord]:
        """Output codes and overflow record.

        Parameters
        ----------
        x : (N, H, W, C) integer array
            Codes.
        output : Tensor

        Returns
        -------
        codes : array
        record : OverflowRecord
            Over the sums of all parts (rule W4) of all samples.
        """
        contents, tallies = accumulate_winograd(self.layer, x, self.geometry, self.hardware)
        pixels = len(x) * self.geometry.image[0] * self.geometry.image[1]
        codes = self._post.run(contents, pixels, output)
        return codes, tallied_record(tallies, self.hardware)

    def count_overflows(self, x: Array, output: Tensor) -> tuple[Array, OverflowCounts]:
        """Output codes, and how often the accumulators overflowed."""
        codes, record = self.run(x, output)
        return codes, record.counts


def accumulate_winograd(
    layer: Conv2D, x: Array, geometry: Geometry, hardware: Hardware
) -> tuple[Array, NDArray[np.int64]]:
    """Accumulate a layer, a block of tiles after the other.

    Parameters
    ----------
    layer : Conv2D
        With transformed weights.
    x : (N, H, W, C) integer array
        Codes.
    geometry : Geometry
    hardware : Hardware

    Returns
    -------
    contents : (pixel blocks, out_channels, lanes) int64 array
        Accumulators; pixels count through samples, rows and columns.
    tallies : (tasks, 5) int64 array
        See `kernels.accumulate`.
    """
    per_tile = prod(geometry.kernel) * (geometry.in_channels + geometry.out_channels)
    block = max(LANES, BLOCK_ELEMENTS // per_tile // LANES * LANES)
    tiles = len(x) * geometry.out_height * geometry.out_width
    pixels = len(x) * geometry.image[0] * geometry.image[1]
    lanes = min(LANES, pixels)
    dtype = _operand_type(layer, x, geometry)
    contents = np.empty((ceil(pixels / lanes), geometry.out_channels, lanes), dtype=np.int64)
    tallies = []
    for start in range(0, tiles, block):
        span = range(start, min(start + block, tiles))
        operands = _transform_inputs(layer, x, geometry, span, dtype)
        sums, tally = _accumulate_parts(layer, operands, len(span), geometry, hardware)
        _transform_outputs(sums, geometry, hardware.result_bits, start, contents)
        tallies.append(tally)
    return contents, np.concatenate(tallies)


def _transform_inputs(
    layer: Conv2D, x: Array, geometry: Geometry, span: range, dtype: type[np.signedinteger[Any]]
) -> Array:
    """Make V, (products, blocks, in_channels, lanes), of a range of tiles.

    Lanes of the last block beyond the last tile are 0.
    """
    form, grid = form_of(geometry), (geometry.out_height, geometry.out_width)
    blocks = ceil(len(span) / LANES)
    lanes = ceil(len(span) / blocks / 16) * 16
    V = np.zeros((form.taps**2, blocks, x.shape[3], lanes), dtype=dtype)
    share_out(
        transforms.transform_inputs, len(span), _threads(V.size),
        span.start, x, layer.input_zero_point, (layer.padding.top, layer.padding.left),
        form.outputs, grid, form.inputs, V,
    )  # fmt: skip
    return V


def _operand_type(layer: Conv2D, x: Array, geometry: Geometry) -> type[np.int16] | type[np.int32]:
    """Choose the type that holds every transformed operand of these codes."""
    zero = layer.input_zero_point
    largest = max(zero - int(x.min(initial=zero)), int(x.max(initial=zero)) - zero)
    gain = int(np.abs(form_of(geometry).inputs).sum(axis=1).max()) ** 2
    return np.int16 if gain * largest < 1 << 15 else np.int32


def _accumulate_parts(
    layer: Conv2D, operands: Array, tiles: int, geometry: Geometry, hardware: Hardware
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sum the parts as the PEs do: (products, out_channels, tiles) over all chunks, and tallies."""
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


def _transform_outputs(
    sums: NDArray[np.int64], geometry: Geometry, valid: int, start: int, contents: Array
) -> None:
    """Write accumulators of the tiles from `start` on; the sums are right modulo 2**valid."""
    form = form_of(geometry)
    inverse = np.array(pow(form.odd, -1, 1 << 64), dtype=np.uint64).astype(np.int64)[()]
    share_out(
        transforms.transform_outputs, geometry.out_channels, _threads(sums.size),
        start, sums, form.sums, geometry.image, (geometry.out_height, geometry.out_width),
        form.shift, inverse, valid - form.shift, contents,
    )  # fmt: skip


def _threads(work: int) -> int:
    return THREADS if work > PARALLEL_WORK else 1
