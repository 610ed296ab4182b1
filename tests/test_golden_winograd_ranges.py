"""Exact widths of Winograd stages: published table, brute force over every input, witnesses."""

from itertools import product

import numpy as np
import pytest

from golden.certificates import certify
from golden.errors import InputError
from golden.formats import bits_needed
from golden.network import Conv2D, Padding, Requantization, Tensor
from golden.operators import accumulators
from golden.winograd import (
    certify_winograd,
    complex_f4,
    input_tiles,
    ncnn_f4,
    stages_of,
    type_ranges,
    winograd,
    winograd_layer,
    winograd_stages,
    winograd_witness,
    wrapped_bits,
)

RULE = Requantization(np.array([1 << 30], np.int32), np.array([0], np.int32))
INT8, UINT8, INT7, INT6, INT4 = (-128, 127), (0, 255), (-63, 63), (-31, 31), (-7, 7)
WEIGHTS8 = (-127, 127)


def conv(weights, zero_point=0, groups=1, **extra):
    return Conv2D(
        name="conv", inputs=(0,), outputs=(1,), weights=weights, weight_bits=8,
        weight_zero_point=0, bias=None, input_zero_point=zero_point, output_zero_point=0,
        requantization=RULE, activation_min=-128, activation_max=127, groups=groups, **extra,
    )  # fmt: skip


# From data types ----------------------------------------------------------------------------------

F2, F4, SCALED, NCNN, F6 = (
    winograd(2, 3), winograd(4, 3), winograd(4, 3, "scaled"), ncnn_f4(), winograd(6, 3)
)  # fmt: skip
COLUMNS = ("input", "weight", "product", "output_first", "output", "direct")

TABLE = [
    # Bits of V, U, U * V, A^T M, Z and the direct sum of one channel, enumerated elsewhere over all
    # 2**9 kernels of extreme weights.
    (F2, INT8, WEIGHTS8, (10, 12, 21, 21, 21, 19)),
    (SCALED, INT8, WEIGHTS8, (15, 18, 31, 30, 28, 19)),
    (NCNN, INT8, WEIGHTS8, (15, 16, 29, 29, 28, 19)),
    (F4, INT8, WEIGHTS8, (15, 14, 26, 27, 28, 19)),
    (F6, INT8, WEIGHTS8, (20, 14, 31, 33, 36, 19)),
    (winograd(6, 3, "scaled"), INT8, WEIGHTS8, (20, 21, 40, None, 36, 19)),
    (F2, UINT8, WEIGHTS8, (11, 12, 22, None, None, 20)),
    (SCALED, UINT8, WEIGHTS8, (16, 18, 31, None, None, 20)),
    (NCNN, UINT8, WEIGHTS8, (16, 16, 30, None, None, 20)),
    (F4, UINT8, WEIGHTS8, (16, 14, 26, None, None, 20)),
    (F2, INT7, INT7, (9, 11, 19, 19, 19, 17)),
    (SCALED, INT7, INT7, (14, 17, 29, 28, 26, 17)),
    (NCNN, INT7, INT7, (14, 15, 27, None, 26, 17)),
    (F4, INT7, INT7, (14, 13, 24, 25, 26, 17)),
    (SCALED, INT7, INT6, (14, 16, 28, None, None, None)),
    (F4, INT7, INT6, (14, 12, 23, None, None, None)),
    (F2, INT4, INT4, (6, 7, 12, 12, 12, 10)),
    (SCALED, INT4, INT4, (11, 13, 23, None, None, 10)),
    (F4, INT4, INT4, (11, 10, 18, None, None, 10)),
]


@pytest.mark.parametrize(("transform", "x", "w", "bits"), TABLE)
def test_widths_of_data_types_are_those_of_the_table(transform, x, w, bits):
    ranges = type_ranges(transform, x, w)
    for stage, wanted in zip(COLUMNS, bits, strict=True):
        assert wanted is None or bits_needed(*ranges[stage]) == wanted, stage


LARGEST = [
    # Largest V, U and product of one channel.
    (F2, INT8, WEIGHTS8, (510, 1143, 585216)),
    (SCALED, INT8, WEIGHTS8, (12750, 73152, 932688000)),
    (NCNN, INT8, WEIGHTS8, (12750, 18288, 233501184)),
    (F4, INT8, WEIGHTS8, (12750, 6223, 28563570)),
    (F6, INT8, WEIGHTS8, (318750, 6223, 714089250)),
    (F2, UINT8, WEIGHTS8, (1020, 1143, 1165860)),
    (F4, UINT8, WEIGHTS8, (17340, 6223, 28563570)),
    (F2, INT7, INT7, (252, 567, 142884)),
    (SCALED, INT7, INT7, (6300, 36288, 228614400)),
    (F4, INT7, INT7, (6300, 3087, 7001316)),
    (F2, INT4, INT4, (28, 63, 1764)),
    (F4, INT4, INT4, (700, 343, 86436)),
]


@pytest.mark.parametrize(("transform", "x", "w", "largest"), LARGEST)
def test_largest_values_of_data_types_are_those_of_the_table(transform, x, w, largest):
    ranges = type_ranges(transform, x, w)
    assert tuple(ranges[stage][1] for stage in COLUMNS[:3]) == largest


def test_channels_multiply_the_ranges():
    one, many = (type_ranges(F4, INT7, INT7, channels) for channels in (1, 64))
    for stage in ("sum", "output_first", "output", "direct"):
        assert many[stage] == tuple(64 * end for end in one[stage])
    assert wrapped_bits(F4, *many["direct"]) == 29
    assert bits_needed(*many["sum"]) == 30


def test_interval_arithmetic_would_ask_8_bits_too_many_of_the_output():
    # Operands of +-127: product p reaches 127**2 times the L1 norms of its two rows.
    norms = np.abs(SCALED.input).sum(axis=(1, 2)) * np.abs(SCALED.weight).sum(axis=(1, 2))
    largest = int((np.abs(SCALED.output) @ (127 * 127 * norms)).max())
    assert bits_needed(-largest, largest) == 36
    assert bits_needed(*type_ranges(SCALED, WEIGHTS8, WEIGHTS8)["output"]) == 28


@pytest.mark.parametrize("form", ["scaled", "row_minimal"])
def test_types_equal_all_operands_and_weights_of_a_small_transform(form):
    """F(2,3) along rows only: 3**4 tiles by 3**3 kernels, every value tried."""
    transform = winograd((2, 1), (3, 1), form)
    tiles = np.array(list(product((-2, 0, 1), repeat=4)))
    kernels = np.array(list(product((-1, 1, 3), repeat=3)))
    rows = transform.axes[0]
    v, u = tiles @ rows.input.T, kernels @ rows.weight.T
    m = v[:, np.newaxis] * u
    z = m @ rows.output.T
    ranges = type_ranges(transform, (-2, 1), (-1, 3))
    for stage, values in (("input", v), ("weight", u), ("product", m), ("output", z)):
        assert ranges[stage] == (values.min(), values.max()), stage


def test_the_first_stage_equals_all_extreme_kernels():
    """A^T M of F(2,3): every kernel of extreme weights, the tile in closed form."""
    x, w = (-3, 2), (-1, 4)
    axis = F2.axes[0]
    B, G, A = axis.input, axis.weight, axis.output
    low, high = 0, 0
    for g in product(w, repeat=9):
        u = G @ np.reshape(g, (3, 3)) @ G.T
        # (A^T M)[i, k] = sum over l, a, b of A[i, l] u[l, k] B[l, a] B[k, b] d[a, b]
        taken = np.einsum("il,lk,la,kb->ikab", A, u, B, B)
        ends = taken * x[0], taken * x[1]
        low = min(low, np.minimum(*ends).sum(axis=(2, 3)).min())
        high = max(high, np.maximum(*ends).sum(axis=(2, 3)).max())
    assert type_ranges(F2, x, w)["output_first"] == (low, high)


# Of layers ----------------------------------------------------------------------------------------


def registers(layer, codes, transform):
    """Every value of every stage, (values, channels), dropped outputs left out."""
    x = codes.astype(np.int64) - layer.input_zero_point
    w = layer.weights.astype(np.int64)
    stages = winograd_stages(layer, x, w, transform)
    N, P, Q, K = accumulators(layer, codes).shape
    C = w.shape[3]
    by_group = [
        stages.input[..., k // (K // layer.groups) * C :][..., :C] * stages.weight[k]
        for k in range(K)
    ]
    products = np.stack(by_group)
    prefixes = np.cumsum(products, axis=-1)
    image = np.moveaxis(stages.output, 3, 2)
    height, width = image.shape[1] * image.shape[2], image.shape[3] * image.shape[4]
    found = {
        "input": stages.input.reshape(-1, 1),
        "product": products.reshape(K, -1).T,
        "sum": np.append(prefixes.reshape(K, -1).T, np.zeros((1, K), int), axis=0),
        "output": image.reshape(N, height, width, K)[:, :P, :Q].reshape(-1, K),
    }
    if transform.axes is not None:
        rows, columns = transform.axes
        tiles = input_tiles(layer, x, transform)
        found["input_first"] = np.einsum("ly,...yx->...lx", rows.input, tiles).reshape(-1, 1)
        m = stages.sum.reshape(*stages.sum.shape[:3], len(rows.input), len(columns.input), K)
        first = np.moveaxis(np.einsum("il,...lkc->...ikc", rows.output, m), 3, 2)
        found["output_first"] = first.reshape(N, height, -1, K)[:, :P].reshape(-1, K)
    return found


def small_problem(rng, index):
    """A layer on an image of at most 9 codes of two values, so that all inputs can be tried."""
    height, width = [(3, 3), (2, 3), (2, 2), (1, 4), (4, 2), (3, 2)][index % 6]
    channels = int(rng.integers(1, 3)) if height * width <= 4 else 1
    groups = channels if index % 4 == 0 else 1
    R, S = [(3, 3), (3, 1), (2, 3)][index % 3]
    padding = Padding(*(int(n) for n in rng.integers(0, 3, 4)))
    weights = rng.integers(-4, 5, (2 * groups, R, S, channels // groups)).astype(np.int8)
    layer = conv(weights, int(rng.choice([0, -3, 5])), groups, padding=padding)
    if (R, S) == (3, 3) and index % 2 == 0:
        transform = (F4, complex_f4(), winograd(2, 3, "scaled"))[rng.integers(3)]
    else:
        transform = winograd((int(rng.integers(1, 4)), int(rng.integers(1, 4))), (R, S))
    codes = tuple(sorted(int(n) for n in rng.integers(-6, 7, 2)))
    return layer, Tensor("x", (1, height, width, channels), "int8"), codes, transform


def outputs_exist(layer, shape):
    return accumulators(layer, np.zeros(shape, np.int8)).size > 0


@pytest.mark.parametrize("seed", range(4))
def test_certificates_equal_brute_force_over_every_input(seed):
    """Padding, tiles half outside, ranges without 0, groups, images smaller than a tile."""
    rng = np.random.default_rng(seed)
    for index in range(12):
        layer, source, codes, transform = small_problem(rng, index)
        if not outputs_exist(layer, source.shape):
            continue
        inputs = np.array(list(product(codes, repeat=int(np.prod(source.shape)))))
        found = registers(layer, inputs.reshape(-1, *source.shape[1:]), transform)
        certificate = certify_winograd(layer, source, codes, transform)
        assert set(found) == set(stages_of(transform))
        for stage, values in found.items():
            np.testing.assert_array_equal(certificate.lo[stage], values.min(axis=0), stage)
            np.testing.assert_array_equal(certificate.hi[stage], values.max(axis=0), stage)


@pytest.mark.parametrize("seed", range(4))
def test_witnesses_reach_both_ends_of_every_stage(seed):
    rng = np.random.default_rng(seed)
    for index in range(12):
        layer, source, codes, transform = small_problem(rng, index)
        if not outputs_exist(layer, source.shape):
            continue
        certificate = certify_winograd(layer, source, codes, transform)
        for stage in stages_of(transform):
            ends = certificate.lo[stage].min(), certificate.hi[stage].max()
            for extreme, end in zip(("lo", "hi"), ends, strict=True):
                witness = winograd_witness(layer, source, codes, transform, stage, extreme)
                assert codes[0] <= witness.codes.min() <= witness.codes.max() <= codes[1]
                if stage == "sum" and end == 0:
                    continue  # the accumulator starts there
                assert witness.value == end
                assert (registers(layer, witness.codes, transform)[stage] == end).any()


def test_the_direct_range_is_that_of_the_accumulator_certificate():
    rng = np.random.default_rng(30)
    weights = rng.integers(-128, 128, (6, 3, 3, 4)).astype(np.int8)
    layer = conv(weights, -128, padding=Padding(1, 1, 1, 1))
    source = Tensor("x", (1, 9, 10, 4), "int8")
    direct = certify(layer, source, (-128, 127))
    for transform in (F2, F4, complex_f4()):
        found = certify_winograd(layer, source, (-128, 127), transform)
        np.testing.assert_array_equal(found.lo["direct"], direct.lo)
        np.testing.assert_array_equal(found.hi["direct"], direct.hi)
        np.testing.assert_array_equal(found.wrapped_bits, direct.exact_bits + transform.shift)


def test_a_stage_never_exceeds_the_range_of_its_types():
    rng = np.random.default_rng(31)
    layer = conv(rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8))
    source = Tensor("x", (1, 8, 8, 3), "int8")
    for transform in (F2, F4, F6, complex_f4()):
        types = type_ranges(transform, INT8, WEIGHTS8, channels=3)
        certificate = certify_winograd(layer, source, INT8, transform)
        for stage in certificate.lo:
            assert types[stage][0] <= certificate.lo[stage].min(), stage
            assert types[stage][1] >= certificate.hi[stage].max(), stage


@pytest.mark.parametrize("transform", [F2, F4, complex_f4()], ids=lambda t: t.name)
def test_the_wrapped_width_is_exact_and_one_bit_less_breaks_on_the_witness(transform):
    rng = np.random.default_rng(32)
    weights = rng.integers(-127, 128, (5, 3, 3, 6)).astype(np.int8)
    layer = conv(weights, 4, padding=Padding(1, 1, 1, 1))
    source = Tensor("x", (1, 8, 9, 6), "int8")
    certificate = certify_winograd(layer, source, INT8, transform)
    bits = int(certificate.wrapped_bits.max())
    broken = []
    for extreme in ("lo", "hi"):
        x = winograd_witness(layer, source, INT8, transform, "output", extreme).codes
        direct = accumulators(layer, x)
        wide = winograd_layer(layer, x, transform, bits).accumulators
        np.testing.assert_array_equal(wide, direct)
        narrow = winograd_layer(layer, x, transform, bits - 1).accumulators
        broken.append((narrow != direct).any())
    assert any(broken)


def test_a_channel_can_be_chosen_for_the_witness():
    layer = conv(np.array([1, 2, 3], np.int8).reshape(3, 1, 1, 1) * np.ones((3, 3, 3, 1), np.int8))
    source = Tensor("x", (1, 4, 4, 1), "int8")
    found = winograd_witness(layer, source, (-2, 5), F2, "output", "hi", channel=1)
    assert (found.channel, found.value) == (1, 4 * 9 * 2 * 5)


def test_a_layer_that_the_transform_does_not_compute_is_refused():
    layer = conv(np.ones((1, 3, 3, 1), np.int8), stride=(2, 2))
    with pytest.raises(InputError, match="stride 2x2"):
        certify_winograd(layer, Tensor("x", (1, 8, 8, 1), "int8"), INT8, F2)
