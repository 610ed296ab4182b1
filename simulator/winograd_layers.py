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
from simulator.results import OverflowRecord
from simulator.values import accumulate_parts, merge_records, overflow_record, post_process
from simulator.winograd import form_of
from simulator.winograd_values import output_shape, transform_inputs, transform_outputs

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
    operands = transform_inputs(
        layer, x.astype(np.int64) - layer.input_zero_point, form, np.dtype(np.int32)
    )
    weights = layer.weights.reshape(geometry.out_channels, len(operands), geometry.in_channels)
    total = np.zeros((*operands.shape[:2], geometry.out_channels), np.int64)
    records = []
    span = geometry.chunk_words * geometry.feed
    for first in range(0, geometry.in_channels, span):
        chunk = slice(first, first + span)
        found = accumulate_parts(
            np.ascontiguousarray(weights[:, :, chunk].swapaxes(0, 1)),
            operands[:, :, chunk].swapaxes(0, 1),
            hardware,
        )
        total += found.value.swapaxes(0, 1)
        records.append(overflow_record(found, hardware))
    sums = np.empty(output_shape(layer, x), np.int64)
    transform_outputs(total, form, hardware.result_bits, sums)
    pixels = sums.reshape(-1, geometry.out_channels)
    contents = np.ascontiguousarray(pixels.T)[np.newaxis]
    codes = post_process(layer, contents, len(pixels), output, hardware)
    return codes, merge_records(records)
