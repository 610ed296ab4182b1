"""Parts of Winograd layers on accumulators of a declared width, against plain loops."""

import naive
import numpy as np
import pytest

from golden.accumulate import Accumulator
from golden.errors import HardwareError, InputError
from golden.network import Conv2D, Padding, Requantization
from golden.operators import accumulators
from golden.winograd import accumulate_winograd, winograd, winograd_layer

F2, F4 = winograd(2, 3), winograd(4, 3)


def conv(weights, zero_point=0, groups=1, **extra):
    return Conv2D(
        name="conv", inputs=(0,), outputs=(1,), weights=weights, weight_bits=8,
        weight_zero_point=0, bias=None, input_zero_point=zero_point, output_zero_point=0,
        requantization=Requantization(np.array([1 << 30], np.int32), np.array([0], np.int32)),
        activation_min=-128, activation_max=127, groups=groups, **extra,
    )  # fmt: skip


def problem(seed, groups=1, channels=5):
    rng = np.random.default_rng(seed)
    weights = rng.integers(-128, 128, (2 * groups, 3, 3, channels)).astype(np.int8)
    layer = conv(weights, 3, groups, padding=Padding(1, 1, 1, 1))
    return layer, rng.integers(-128, 128, (2, 6, 5, groups * channels)).astype(np.int8)


RECORDS = ("value", "events", "first_step", "exact", "minimum", "maximum")


@pytest.mark.parametrize(
    ("accumulator", "steps"),
    [
        (Accumulator(18), "product"),
        (Accumulator(17), "terms"),
        (Accumulator(18, "saturate"), "product"),
        (Accumulator(16, "wrap", 2, 24), "product"),
    ],
    ids=["wrap", "terms", "saturate", "spill"],
)
@pytest.mark.parametrize("groups", [1, 2])
def test_every_part_equals_plain_loops(accumulator, steps, groups):
    layer, x = problem(1, groups)
    result = accumulate_winograd(layer, x, F2, accumulator, 2, steps)
    stages = winograd_layer(layer, x, F2).stages
    assert result.parts.value.shape == (2, 3, 3, 16, 3, 2 * groups)
    decomposition = "terms" if steps == "terms" else "product"
    for *tile, p, chunk, k in list(np.ndindex(result.parts.value.shape))[::17]:
        members = range(2 * chunk, min(2 * chunk + 2, 5))
        first = k // 2 * 5
        taps = [
            (int(stages.weight[k, p, c]), int(stages.input[*tile, p, first + c])) for c in members
        ]
        expected = naive.accumulate(
            naive.steps_of(taps, decomposition),
            accumulator.acc_bits,
            accumulator.overflow,
            accumulator.spill_interval,
            accumulator.wide_acc_bits,
        )
        for name in RECORDS:
            found = getattr(result.parts, name)[*tile, p, chunk, k]
            assert found == expected[name], name
    assert result.parts.events.any()


@pytest.mark.parametrize("transform", [F2, F4], ids=["f2", "f4"])
@pytest.mark.parametrize("chunk", [1, 2, 5, 8])
def test_wrapped_parts_leave_the_low_bits_of_the_direct_sum(transform, chunk):
    layer, x = problem(2)
    direct = accumulators(layer, x)
    for bits in (12, 20, 30):
        result = accumulate_winograd(layer, x, transform, Accumulator(bits), chunk)
        kept = bits - transform.shift
        low = (direct + (1 << (kept - 1))) % (1 << kept) - (1 << (kept - 1))
        np.testing.assert_array_equal(result.accumulators, low)


def test_nothing_is_an_event_in_the_width_of_the_sums():
    layer, x = problem(3)
    sums = winograd_layer(layer, x, F4).stages.sum
    wide = accumulate_winograd(layer, x, F4, Accumulator(40), 5)
    assert not wide.parts.events.any()
    np.testing.assert_array_equal(wide.parts.value[..., 0, :], sums)


def test_what_does_not_fit_is_refused():
    layer, x = problem(4)
    with pytest.raises(InputError, match="chunk_channels must be at least 1"):
        accumulate_winograd(layer, x, F4, Accumulator(20), 0)
    with pytest.raises(InputError, match="wider than 6 bits"):
        accumulate_winograd(layer, x, F4, Accumulator(6), 4)
    with pytest.raises(InputError, match="kernel 3x3"):
        accumulate_winograd(layer, x, winograd(2, 5), Accumulator(20), 4)
    with pytest.raises(HardwareError, match="ternary steps"):
        accumulate_winograd(layer, x, F2, Accumulator(20), 4, "ternary")
