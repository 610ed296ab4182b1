"""Groups of weights inside a channel: neighbours along the input channels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from golden.quantization.clipping import Float64Array
from golden.quantization.method import WeightTask


def in_groups(task: WeightTask, size: int) -> tuple[Float64Array, NDArray[np.bool_]]:
    """Cut each channel's weights into groups.

    The input channels at one kernel position are cut into groups of `size`, the last one shorter;
    where a position has fewer than `size` input channels (depthwise and first layers), the whole
    channel is cut.

    Returns
    -------
    groups : (C, G, size) float64 array
        Short groups are filled up with zeros.
    real : (G, size) bool array
        Where there are weights; `groups[:, real]` are the weights in their order.
    """
    channels, taps = task.weights.shape
    run = task.kernel[2] if task.kernel[2] >= size and taps % task.kernel[2] == 0 else taps
    position = np.arange(taps)
    group_of_run = -(-run // size)
    group = position // run * group_of_run + position % run // size
    place = position % run % size
    groups = np.zeros((channels, taps // run * group_of_run, size))
    groups[:, group, place] = task.weights
    real = np.zeros(groups.shape[1:], bool)
    real[group, place] = True
    return groups, real
