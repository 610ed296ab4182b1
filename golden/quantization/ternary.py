"""Ternary projections of rows of weights: w ~ alpha * q, q in {-1, 0, +1}.

Given alpha, the nearest q is sign(w) where |w| > alpha / 2 and 0 elsewhere; at |w| = alpha / 2 both
are as near, and 0 is taken.
"""

from __future__ import annotations

import numpy as np

from golden.quantization.blocks import each_block
from golden.quantization.clipping import Float64Array, Int64Array

TRITS_PER_BYTE = 5


def trit_storage_bits(trits: int) -> int:
    """Bits of ternary codes packed five to a byte (3**5 = 243)."""
    return 8 * -(-trits // TRITS_PER_BYTE)


def exact_scales(rows: Float64Array, importance: Float64Array | None = None) -> Float64Array:
    """Scale of the ternary vector with the least squared error, for each row.

    Keeping the set I costs sum d w**2 - (sum over I of d |w|)**2 / (sum over I of d) at its best
    scale, and the best set is a number of largest magnitudes, whatever the importance d. So all
    prefixes of the sorted magnitudes are compared; of equal ones the shortest wins.

    Parameters
    ----------
    rows : (R, N) float64 array
    importance : (R, N) float64 array or None
        d, not negative: the error is sum d (w - alpha q)**2. None: all 1.

    Returns
    -------
    (R,) float64 array
        0 for a row whose weights, or whose weights of positive importance, are all 0.
    """
    scales = np.empty(len(rows))

    def block(row: slice, _: slice) -> None:
        magnitudes = np.abs(rows[row])
        if importance is None:
            magnitudes.sort(axis=1)
            sums = np.cumsum(magnitudes[:, ::-1], axis=1)
            counts: Float64Array = np.arange(1.0, sums.shape[1] + 1)[np.newaxis]
        else:
            order = np.argsort(-magnitudes, axis=1, kind="stable")
            kept = np.take_along_axis(importance[row], order, axis=1)
            sums = np.cumsum(kept * np.take_along_axis(magnitudes, order, axis=1), axis=1)
            counts = np.cumsum(kept, axis=1)
            counts[counts == 0] = 1  # nothing but weights that do not matter
        best = np.argmax(sums**2 / counts, axis=1)[:, np.newaxis]
        counts = np.broadcast_to(counts, sums.shape)
        scales[row] = (
            np.take_along_axis(sums, best, axis=1) / np.take_along_axis(counts, best, axis=1)
        )[:, 0]

    each_block(block, rows.shape, whole_rows=True)
    return scales


def ternary_codes(rows: Float64Array, thresholds: Float64Array) -> Int64Array:
    """Give sign(w) where |w| exceeds the row's threshold, 0 elsewhere."""
    codes = np.empty(rows.shape, np.int64)

    def block(row: slice, column: slice) -> None:
        weights, threshold = rows[row, column], thresholds[row, np.newaxis]
        codes[row, column] = (weights > threshold).view(np.int8) - (weights < -threshold).view(
            np.int8
        )

    each_block(block, rows.shape)
    return codes


def means_of_kept(rows: Float64Array, thresholds: Float64Array) -> Float64Array:
    """Mean of the magnitudes above each row's threshold; 0 where there is none."""
    magnitudes = np.abs(rows)
    kept = magnitudes > thresholds[:, np.newaxis]
    return np.asarray((magnitudes * kept).sum(axis=1) / np.maximum(kept.sum(axis=1), 1))
