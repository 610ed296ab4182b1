from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from golden.certificates import certify
from golden.errors import InputError
from golden.network import (
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Network,
    Padding,
    Requantization,
    Tensor,
    WeightedLayer,
)
from napier import witnesses
from napier.cli import cli
from napier.witnesses import extremes, verify_witnesses, window_of, with_accumulator
from simulator.hardware import load_hardware

pytestmark = pytest.mark.rtl

SCALE = Requantization(np.array([1 << 30], np.int32), np.array([-8], np.int32))


def dense(weights: list[list[int]], zero_point: int = 0) -> FullyConnected:
    return FullyConnected(
        name="dense",
        inputs=(0,),
        outputs=(1,),
        weights=np.array(weights, np.int8),
        weight_bits=8,
        weight_zero_point=0,
        bias=None,
        input_zero_point=zero_point,
        output_zero_point=0,
        requantization=SCALE,
        activation_min=-128,
        activation_max=127,
    )


def network(layer: WeightedLayer, shape: tuple[int, ...], out: tuple[int, ...]) -> Network:
    tensors = (Tensor("x", shape, "int8"), Tensor("y", out, "int8"))
    return Network("one", tensors, (layer,), (0,), (1,))


# Operands are -128 .. 127; by hand:
# 7 = 8 - 1: products reach 7 * -128 = -896, the first term 8 * -128 = -1024: 11 bits both.
# 7 and 9 = 8 + 1: terms -1024, -896, -1920, -2048: 12 bits.
# 9 and 7: products reach 16 * -128 = -2048: 12 bits; terms -1024, -1152, -2176: 13 bits.
@pytest.mark.parametrize(
    ("weights", "serial", "bits"),
    [
        ([7], False, 11),
        ([7], True, 11),
        ([7, 9], True, 12),
        ([9, 7], False, 12),
        ([9, 7], True, 13),
    ],
)
def test_the_steps_of_the_pe_decide_the_width(weights, serial, bits):
    layer = dense([weights])
    proof = certify(layer, Tensor("x", (1, len(weights)), "int8"), (-128, 127))
    assert extremes(proof, serial).bits == bits


@pytest.mark.parametrize("preset", ["mac4x4", "nhot2_4x4"])
def test_serial_overshoot_is_driven_through_the_verilog(preset, tmp_path):
    """9 and 7 need 12 bits as products and 13 as terms; both widths hold, one less does not."""
    layer = dense([[9, 7], [1, 0]])
    hardware = load_hardware(preset)
    reports = list(
        verify_witnesses(
            network(layer, (1, 2), (1, 2)), [layer], hardware, "datatype", "icarus", tmp_path
        )
    )
    bits = 13 if hardware.serial else 12
    assert [report.name for report in reports] == [
        f"dense {extreme}/{width}" for extreme in ("lo", "hi") for width in (bits, bits - 1)
    ]
    assert all(report.passed for report in reports), [str(report.difference) for report in reports]
    assert [report.overflow_events > 0 for report in reports][:2] == [False, True]


def test_windows_of_padded_dilated_grouped_layers_reach_the_extremes(tmp_path):
    rng = np.random.default_rng(3)
    layer = Conv2D(
        **{
            **{k: v for k, v in vars(dense([[1]], zero_point=5)).items() if k != "weights"},
            "name": "conv",
            "weights": rng.integers(-128, 128, (4, 3, 2, 2)).astype(np.int8),
        },
        stride=(2, 1),
        dilation=(1, 2),
        padding=Padding(1, 1, 2, 0),
        groups=2,
    )
    source = Tensor("x", (1, 6, 7, 4), "int8")
    window, image = window_of(layer, source, (-128, 127), 3, "hi")
    assert image.shape == (1, 3, 3, 4)  # reach of 3 x 2 taps, 2 apart horizontally
    x = image.astype(np.int64)[0, :, ::2, 2:] - 5
    assert (x * window.weights[3]).sum() == certify(layer, source, (-128, 127)).hi[3]
    reports = verify_witnesses(
        network(layer, source.shape, (1, 3, 7, 4)),
        [layer],
        load_hardware("mac4x4"),
        "datatype",
        "icarus",
        tmp_path,
    )
    assert all(report.passed for report in reports)


def test_a_proof_that_is_a_bit_too_small_is_refuted(tmp_path, monkeypatch):
    def optimistic(certificate, serial):
        honest = extremes(certificate, serial)
        return replace(honest, bits=honest.bits - 1)

    monkeypatch.setattr(witnesses, "extremes", optimistic)
    layer = dense([[100, -100, 3]])
    one = network(layer, (1, 3), (1, 1))
    runs = verify_witnesses(one, [layer], load_hardware("mac4x4"), "clamp", "icarus", tmp_path)
    report = next(report for report in runs if not report.passed)
    assert "overflow_events is 1, expected 0, as proved" in str(report.difference)


def test_a_width_that_no_accumulator_has_is_refused():
    with pytest.raises(
        InputError, match=r"layer 'dense' has a proof for 33 bits, but accumulators"
    ):
        with_accumulator(load_hardware("mac4x4"), "dense", 33)


def test_the_command_shows_both_widths(tmp_path: Path):
    result = CliRunner().invoke(cli, ["verify", "--witness", "--layer", "pointwise"])
    assert result.exit_code == 0, result.output
    assert "pointwise lo/18" in result.output
    assert "pointwise hi/17" in result.output
    assert "overflow one bit below" in " ".join(result.output.split())


def test_the_command_refuses_inputs_of_the_user_beside_witnesses():
    result = CliRunner().invoke(cli, ["verify", "--witness", "--input", "x.npy"])
    assert isinstance(result.exception, InputError)
    assert "makes its own inputs" in str(result.exception)


def layer_of_kind(kind: str, weights_of) -> tuple[WeightedLayer, tuple[int, ...], tuple[int, ...]]:
    """A small layer, and the shapes of its input and output."""
    fields = {k: v for k, v in vars(dense([[1]], zero_point=3)).items() if k != "weights"}
    if kind == "dense":
        return FullyConnected(**{**fields, "weights": weights_of((3, 11))}), (1, 11), (1, 3)
    if kind == "depthwise":
        shape, extra = (4, 3, 3, 1), {"groups": 4, "padding": Padding(1, 1, 1, 1)}
        made = DepthwiseConv2D(**{**fields, "weights": weights_of(shape)}, **extra)
        return made, (1, 5, 5, 4), (1, 5, 5, 4)
    extra = {"stride": (2, 2), "padding": Padding(1, 1, 1, 1)}
    if kind == "grouped":
        extra["groups"] = 2
    shape = (4, 3, 3, 4 // extra.get("groups", 1))
    made = Conv2D(**{**fields, "weights": weights_of(shape)}, **extra)
    return made, (1, 5, 5, 4), (1, 3, 3, 4)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["conv", "depthwise", "grouped", "dense"])
@pytest.mark.parametrize("preset", ["mac4x4", "nhot2_4x4", "nhot2_parallel_4x4", "ternary4x4"])
def test_every_kind_of_layer_and_pe_holds_at_the_proved_width_and_overflows_below(
    preset, kind, tmp_path
):
    rng = np.random.default_rng(17)
    hardware = load_hardware(preset)

    def weights_of(shape):
        if preset == "ternary4x4":
            return rng.integers(-1, 2, shape).astype(np.int8)
        if preset == "nhot2_parallel_4x4":  # one or two signed powers of two
            terms = rng.choice([-1, 0, 1], (2, *shape)) << rng.integers(0, 6, (2, *shape))
            return terms.sum(axis=0).astype(np.int8)
        return rng.integers(-128, 128, shape).astype(np.int8)

    layer, shape, out = layer_of_kind(kind, weights_of)
    reports = list(
        verify_witnesses(
            network(layer, shape, out), [layer], hardware, "datatype", "icarus", tmp_path
        )
    )
    assert len(reports) == 4
    assert all(report.passed for report in reports), [str(report.difference) for report in reports]
    assert [report.overflow_events > 0 for report in reports[::2]] == [False, False]
    assert any(report.overflow_events > 0 for report in reports[1::2])
