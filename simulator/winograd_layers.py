"""What a layer computes through the Winograd units (the fast speed): sums of parts, outputs, codes.

Nothing here calls `golden`: the two are compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.network import Conv2D, Tensor
from simulator.cuts import step_geometry
from simulator.hardware import Hardware
from simulator.lowering import Step
from simulator.program import Geometry
from simulator.results import OverflowRecord
from simulator.values import accumulate_parts, merge_records, overflow_record, post_process
from simulator.winograd import Form, form_of

Array = NDArray[Any]
IntArray = NDArray[np.int64]


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
    operands = transformed_inputs(x, layer.input_zero_point, geometry, form)
    weights = layer.weights.reshape(geometry.out_channels, form.taps**2, geometry.in_channels)
    total: IntArray = np.zeros((len(operands), form.taps**2, geometry.out_channels), np.int64)
    records = []
    span = geometry.chunk_words * geometry.feed
    for first in range(0, geometry.in_channels, span):
        part = weights[:, :, first : first + span].transpose(1, 0, 2)
        found = accumulate_parts(
            np.ascontiguousarray(part), operands[:, :, first : first + span], hardware
        )
        total += found.value
        records.append(overflow_record(found, hardware))
    sums = outputs_of(total, form, hardware.result_bits)
    image = _image(sums, len(x), geometry).reshape(-1, geometry.out_channels)
    contents = np.ascontiguousarray(image.T)[np.newaxis]
    codes = post_process(layer, contents, len(image), output, hardware)
    return codes, merge_records(records)


def transformed_inputs(x: Array, zero_point: int, geometry: Geometry, form: Form) -> IntArray:
    """V of every tile: (N * tiles, n * n, C); places beyond the image are real zeros."""
    m, n = form.outputs, form.taps
    rows, columns = geometry.out_height, geometry.out_width
    height, width = (rows - 1) * m + n, (columns - 1) * m + n
    operands = np.zeros((len(x), height, width, geometry.in_channels), np.int64)
    top, left = geometry.pad_top, geometry.pad_left
    inside = x[:, : height - top, : width - left]
    operands[:, top : top + inside.shape[1], left : left + inside.shape[2]] = (
        inside.astype(np.int64) - zero_point
    )
    windows = np.lib.stride_tricks.sliding_window_view(operands, (n, n), axis=(1, 2))[:, ::m, ::m]
    first = np.einsum("ki,byxcij->byxckj", form.inputs, windows)
    both = np.einsum("lj,byxckj->byxklc", form.inputs, first)
    return np.ascontiguousarray(both).reshape(-1, n * n, geometry.in_channels)


def outputs_of(sums: IntArray, form: Form, bits: int) -> IntArray:
    """Make the outputs of tiles from the sums of their taps, all modulo 2**bits (rule W8).

    Parameters
    ----------
    sums : (tiles, n * n, C) int64 array
    form : Form
    bits : int
        P.

    Returns
    -------
    (tiles, m, m, C) int64 array
        P - t bits, signed.
    """
    n = form.taps
    squares = sums.reshape(-1, n, n, sums.shape[-1])
    scaled = np.einsum("ik,tklc,jl->tijc", form.sums, squares, form.sums).view(np.uint64)
    kept = bits - form.shift
    inverse = np.uint64(pow(form.odd, -1, 1 << kept))
    quotient = ((scaled >> np.uint64(form.shift)) * inverse) << np.uint64(64 - kept)
    outputs: IntArray = quotient.view(np.int64) >> (64 - kept)
    return outputs


def _image(tiles: IntArray, samples: int, geometry: Geometry) -> IntArray:
    """Lay tiles side by side: (N, height, width, C)."""
    m, channels = tiles.shape[1], tiles.shape[-1]
    rows, columns = geometry.out_height, geometry.out_width
    grid = tiles.reshape(samples, rows, columns, m, m, channels).transpose(0, 1, 3, 2, 4, 5)
    image = grid.reshape(samples, rows * m, columns * m, channels)
    return image[:, : geometry.image[0], : geometry.image[1]]
