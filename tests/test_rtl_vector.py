"""Vector passes through the Verilog engine: codes equal golden, cycles those of an array run.

The feed words are those of rule M3, all taps of all channel words (`simulator.program`). Expected
codes come from golden's operators: a `sum` is a depthwise convolution with weights of 1, a `max` is
max pooling and then a requantization. Expected cycles are those of an array run with one column and
one entry a word, K = 4 more for `add` (rules V1, V3).
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from golden import operators
from golden.network import (
    DTYPES,
    Add,
    Clamp,
    DepthwiseConv2D,
    MaxPool2D,
    Mul,
    Padding,
    Requantization,
    Tensor,
)
from rtl_models import lint
from rtl_models.engine import COUNTERS, run_engine
from rtl_models.parameters import engine_parameters
from simulator import kernels
from simulator.hardware import changed_hardware, load_hardware
from simulator.memory_image import outputs_from_banks
from simulator.program import (
    FeedWords,
    Geometry,
    LayerProgram,
    Parameters,
    Streams,
    compile_layer,
    feed_fields,
)

pytestmark = pytest.mark.rtl

MODES = {"sum": 1, "max": 2, "add": 3, "mul": 4}
ROUNDINGS = ("double", "single", "multiplier16", "shift_half_up", "shift_half_even")
PAIR_CYCLES = 4  # K of rule V3
RANGES = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}
NO_PADDING, SAME = Padding(), Padding(1, 1, 1, 1)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """One folder for the module, so that builds are shared."""
    return tmp_path_factory.mktemp("vector")


def machine(rows=4, cols=4, feed=2, lanes=2, bits=8):
    array = {"rows": rows, "cols": cols, "feed": feed, "lookahead": feed}
    array |= {"activation_bits": bits, "acc_bits": 24 if bits == 8 else 40}
    tables = {"post": {"lanes": lanes}, "buffers": {"activation_bytes": 1 << 16}}
    return changed_hardware(load_hardware("mac4x4"), array=array, **tables)


@dataclass(frozen=True)
class Shape:
    """Windows over an image of channels, height, width."""

    size: tuple[int, int, int]
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: Padding = NO_PADDING

    def geometry(self, hardware):
        channels, height, width = self.size
        pad = self.padding
        return Geometry(
            rows=hardware.array.rows,
            cols=hardware.array.feed,  # a channel tile is one word
            feed=hardware.array.feed,
            height=height,
            width=width,
            in_channels=channels,
            out_height=(height + pad.top + pad.bottom - self.kernel[0]) // self.stride[0] + 1,
            out_width=(width + pad.left + pad.right - self.kernel[1]) // self.stride[1] + 1,
            out_channels=channels,
            kernel=self.kernel,
            stride=self.stride,
            dilation=(1, 1),
            pad_top=pad.top,
            pad_left=pad.left,
            groups=channels,
        )


def feed_of(geometry, operands):
    """All taps of each word, or the same word of two operands, the second behind the first."""
    taps = np.arange(geometry.kernel[0] * geometry.kernel[1])
    taps, behind = np.repeat(taps, operands), np.tile(np.arange(operands), taps.size)
    words = np.repeat(np.arange(geometry.in_words), taps.size)
    addr, rot, dy, dx = feed_fields(
        np.tile(taps, geometry.in_words), words, geometry, geometry.in_words, geometry.plane_lines
    )
    addr = addr + np.tile(behind, geometry.in_words) * geometry.bank_words
    last = np.tile(np.arange(taps.size) == taps.size - 1, geometry.in_words).astype(np.int64)
    return FeedWords(last, addr, rot, dy, dx, np.arange(geometry.in_words + 1) * taps.size)


def parameters_of(rule, layer, channels, shared):
    """Parameters of each channel, or one word for all of them behind one that nobody may use."""
    multiplier, shift, bias = rule.multiplier, rule.shift, getattr(layer, "bias", None)
    if shared:
        multiplier, shift, bias = np.append(3, multiplier), np.append(-1, shift), np.array([-99, 0])
    channels = 2 if shared else channels
    return Parameters(
        bias=np.zeros(channels, np.int64) if bias is None else bias,
        multiplier=np.broadcast_to(multiplier, channels).astype(np.int64),
        shift=np.broadcast_to(shift, channels).astype(np.int64),
        rounding=rule.rounding,
        output_zero_point=layer.output_zero_point,
        activation_min=layer.activation_min,
        activation_max=layer.activation_max,
    )


SHARED = {"cfg_shared_parameter": 1, "cfg_parameter_base": 1}


def vector_program(hardware, geometry, rule, layer, zero_point, operands=1, shared=False):
    nothing = np.zeros(0, np.uint8)
    starts = np.zeros((hardware.array.cols, geometry.channel_tiles + 1), np.int64)
    return LayerProgram(
        name="vector",
        hardware=hardware,
        geometry=geometry,
        input_zero_point=zero_point,
        feed=feed_of(geometry, operands),
        streams=Streams(nothing, nothing, nothing, nothing.astype(np.int32), starts),
        parameters=parameters_of(rule, layer, geometry.out_channels, shared),
        pixel_tiles=range(geometry.pixel_tiles),
        channel_tiles=range(geometry.channel_tiles),
    )


def expected_counters(program, late):
    """Counters of one column with one entry a word; `late` cycles more drain."""
    geometry = program.geometry
    tiles = range(geometry.channel_tiles)
    groups = program.hardware.drain_groups
    compute, stall_feed, drain, total = kernels.run_cycles(
        np.ones((1, int(program.feed.start[-1])), np.int32),
        program.feed.start[1:],
        np.array([geometry.columns_used(tile) * groups for tile in tiles]),
        geometry.pixel_tiles,
        1,
        True,
    )
    by_cause = (total + late, compute, 3, stall_feed, drain + late)
    return dict(zip(COUNTERS, (*by_cause, 0, 0), strict=True))


@dataclass(frozen=True)
class Case:
    """A vector layer with its inputs, and what golden says."""

    mode: str
    layer: object
    rule: Requantization
    zero_points: tuple[int, ...]
    images: tuple[np.ndarray, ...]
    expected: np.ndarray
    shared: bool
    change: dict[str, int]


def check(case, shape, hardware, folder, builds, **options):
    geometry = shape.geometry(hardware)
    operands = len(case.images)
    program = vector_program(
        *(hardware, geometry, case.rule, case.layer, case.zero_points[0]), operands, case.shared
    )
    signed = case.images[0].dtype != np.uint8
    result = run_engine(
        [program],
        case.images[0][0],
        second=case.images[1][0] if operands == 2 else None,
        input_signed=signed,
        folder=folder,
        builds=builds,
        changes=[{"cfg_mode": MODES[case.mode]} | case.change | (SHARED if case.shared else {})],
        **options,
    )
    codes = outputs_from_banks(result.codes[:, : geometry.out_bank_words], geometry)
    mask = (1 << hardware.array.activation_bits) - 1
    assert np.array_equal(codes, case.expected[0].astype(np.int64) & mask)
    assert result.written.sum() == codes.size
    late = PAIR_CYCLES if case.mode == "add" else 0
    assert result.counters == (expected_counters(program, late),)
    return result


def random_rule(rng, rounding, bits, channels=1):
    """A rule that brings sums of `bits` bits more than a code to codes."""
    shift = rng.integers(-bits - 1, -bits + 2, channels).astype(np.int32)
    if rounding.startswith("shift"):
        return Requantization(np.ones(channels, np.int32), np.minimum(shift, 0), rounding)
    multiplier = rng.integers(1 << 30, 1 << 31, channels, dtype=np.int64).astype(np.int32)
    return Requantization(multiplier, shift + 1, rounding)


def random_images(rng, shape, dtype, count=1):
    channels, height, width = shape.size
    low, high = RANGES[dtype]
    images = []
    for _ in range(count):
        image = rng.integers(low, high + 1, (1, height, width, channels))
        extreme = rng.random(image.shape) < 0.2
        image = np.where(extreme, rng.choice([low, high], image.shape), image)
        images.append(image.astype(DTYPES[dtype]))
    return tuple(images)


def output_fields(rng, dtype):
    low, high = RANGES[dtype]
    bounds = sorted(rng.integers(low, high + 1, 2).tolist()) if rng.random() < 0.3 else (low, high)
    return {
        "output_zero_point": int(rng.integers(low, high + 1)) if dtype != "int16" else 0,
        "activation_min": bounds[0],
        "activation_max": bounds[1],
    }


def random_zero_point(rng, dtype):
    low, high = RANGES[dtype]
    return int(rng.choice([low, high, rng.integers(low, high + 1)]))


def tensor(dtype, shape=(1, 1, 1, 1)):
    return Tensor("y", shape, dtype, 1.0, 0)


def sum_case(rng, shape, dtype, rounding, shared):
    """Sums of the taps inside the image, as a depthwise convolution with weights of 1."""
    channels = shape.size[0]
    taps = shape.kernel[0] * shape.kernel[1]
    images = random_images(rng, shape, dtype)
    rule = random_rule(rng, rounding, taps.bit_length(), 1 if shared else channels)
    bias = rng.integers(-1000, 1000, channels)
    layer = DepthwiseConv2D(
        name="sum",
        inputs=(0,),
        outputs=(1,),
        weights=np.ones((channels, *shape.kernel, 1), np.int8),
        weight_bits=8,
        weight_zero_point=0,
        bias=np.zeros_like(bias) if shared else bias,
        input_zero_point=random_zero_point(rng, dtype),
        requantization=rule,
        stride=shape.stride,
        padding=shape.padding,
        groups=channels,
        **output_fields(rng, dtype),
    )
    expected = operators.depthwise_conv2d(layer, images, tensor(dtype))
    return Case("sum", layer, rule, (layer.input_zero_point,), images, expected, shared, {})


def max_case(rng, shape, dtype, rounding, shared):
    low, high = RANGES[dtype]
    images = random_images(rng, shape, dtype)
    pool = MaxPool2D("max", (0,), (1,), shape.kernel, shape.stride, shape.padding, low, high)
    layer = Clamp(
        name="rescale",
        inputs=(1,),
        outputs=(2,),
        input_zero_point=random_zero_point(rng, dtype),
        requantization=random_rule(rng, rounding, 0),
        **output_fields(rng, dtype),
    )
    pooled = operators.max_pool2d(pool, images, tensor(dtype))
    expected = operators.clamp(layer, [pooled], tensor(dtype))
    zero_points = (layer.input_zero_point,)
    return Case("max", layer, layer.requantization, zero_points, images, expected, shared, {})


def add_case(rng, shape, dtype, rounding, shared):
    images = random_images(rng, shape, dtype, 2)
    zero_points = tuple(random_zero_point(rng, dtype) for _ in range(2))
    left_shift = int(rng.integers(0, 21 if dtype != "int16" else 15))
    rules = tuple(random_rule(rng, rounding, 2) for _ in range(2))
    layer = Add(
        name="add",
        inputs=(0, 1),
        outputs=(2,),
        input_zero_points=zero_points,
        left_shift=left_shift,
        input_requantizations=rules,
        output_requantization=random_rule(rng, rounding, max(0, left_shift - 2)),
        **output_fields(rng, dtype),
    )
    change = {
        "cfg_second_offset": zero_points[0] - zero_points[1],
        "cfg_left_shift": left_shift,
    }
    for name, rule in zip(("first", "second"), rules, strict=True):
        change[f"cfg_{name}_multiplier"] = int(rule.multiplier[0])
        change[f"cfg_{name}_shift"] = int(rule.shift[0])
    expected = operators.add(layer, images, tensor(dtype))
    rule = layer.output_requantization
    return Case("add", layer, rule, zero_points, images, expected, shared, change)


def mul_case(rng, shape, dtype, rounding, shared):
    images = random_images(rng, shape, dtype, 2)
    zero_points = tuple(random_zero_point(rng, dtype) for _ in range(2))
    layer = Mul(
        name="mul",
        inputs=(0, 1),
        outputs=(2,),
        input_zero_points=zero_points,
        requantization=random_rule(rng, rounding, 8 if dtype != "int16" else 16),
        **output_fields(rng, dtype),
    )
    change = {"cfg_second_offset": zero_points[0] - zero_points[1]}
    expected = operators.mul(layer, images, tensor(dtype))
    rule = layer.requantization
    return Case("mul", layer, rule, zero_points, images, expected, shared, change)


CASES = {"sum": sum_case, "max": max_case, "add": add_case, "mul": mul_case}
SHAPES = {
    "windows": Shape((5, 7, 6), kernel=(3, 3), stride=(2, 2), padding=SAME),
    "global": Shape((3, 5, 4), kernel=(5, 4)),
    "points": Shape((6, 3, 5)),
}


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("dtype", RANGES)
@pytest.mark.parametrize("mode", CASES)
def test_codes_are_goldens_and_cycles_those_of_one_column(work, mode, dtype, rounding):
    shapes = SHAPES.values() if mode in ("sum", "max") else [SHAPES["points"]]
    for seed, shape in enumerate(shapes):
        rng = np.random.default_rng(seed)
        case = CASES[mode](rng, shape, dtype, rounding, shared=bool(seed % 2))
        hardware = machine(bits=16 if dtype == "int16" else 8)
        check(case, shape, hardware, work / "run", work / "builds")


MACHINES = {
    "one-of-all": {"rows": 1, "cols": 1, "feed": 1, "lanes": 1},
    "3x5-one-lane": {"rows": 3, "cols": 5, "feed": 4, "lanes": 1},
    "3x2-all-lanes": {"rows": 3, "cols": 2, "feed": 4, "lanes": 3},
    "feed-8-cols-3": {"rows": 4, "cols": 3, "feed": 8, "lanes": 4},
    "4x2-feed-1": {"rows": 4, "cols": 2, "feed": 1, "lanes": 2},
}


@pytest.mark.parametrize("shape", [
    pytest.param(Shape((5, 5, 4), (2, 3), (1, 2), Padding(1, 0, 2, 1)), id="lopsided"),
    pytest.param(Shape((9, 4, 4), (2, 2), (2, 2)), id="halves"),
    pytest.param(Shape((1, 1, 1)), id="one-code"),
    pytest.param(Shape((17, 1, 3), (1, 3)), id="row"),
])  # fmt: skip
@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("mode", CASES)
def test_leftovers_of_every_machine(work, mode, name, shape):
    if mode in ("add", "mul"):
        shape = Shape(shape.size)
    case = CASES[mode](np.random.default_rng(1), shape, "int8", "double", shared=True)
    check(case, shape, machine(**MACHINES[name]), work / "run", work / "builds")


def test_the_largest_kernel_does_not_overflow_a_sum(work):
    # 255 x 255 taps of -128 - 127 = -255 are -16 581 375, more than 2^23 in magnitude; 2^-16 of it
    # and rounded up is -253.
    shape = Shape((1, 255, 255), kernel=(255, 255))
    case = sum_case(np.random.default_rng(1), shape, "int8", "shift_half_up", shared=True)
    rule = Requantization(np.ones(1, np.int32), np.full(1, -16, np.int32), "shift_half_up")
    layer = replace(case.layer, requantization=rule, input_zero_point=127, output_zero_point=127)
    layer = replace(layer, activation_min=-128, activation_max=127)
    image = np.full((1, 255, 255, 1), -128, np.int8)
    expected = np.full((1, 1, 1, 1), -253 + 127)
    case = replace(
        case, layer=layer, rule=rule, zero_points=(127,), images=(image,), expected=expected
    )
    buffers = {"activation_bytes": 1 << 17, "weight_bytes": 1 << 20}
    hardware = changed_hardware(machine(rows=1, cols=1, feed=1, lanes=1), buffers=buffers)
    check(case, shape, hardware, work / "run", work / "builds")


def test_smallest_run_is_counted_by_hand(work):
    # One word: start in cycle 0, taken and fired in cycle 4; N = 1 lane x 4 rows / 2 = 2 results;
    # done in cycle 4 + 2 + 7 = 13, of a sum of two operands 4 cycles later.
    shape = Shape((1, 1, 1))
    for mode, words, late in (("sum", 1, 0), ("add", 2, 4)):
        case = CASES[mode](np.random.default_rng(1), shape, "int8", "double", shared=True)
        result = check(case, shape, machine(), work / "run", work / "builds")
        assert result.counters[0] == {
            "cycles": 12 + words + late,
            "compute": words,
            "fill": 3,
            "stall_feed": 0,
            "drain": 9 + late,
            "overflow_events": 0,
            "overflow_outputs": 0,
        }


@pytest.mark.parametrize("cycle", [1, 3, 5, 9, 14, 25])
def test_reset_in_mid_run_leaves_nothing_behind(work, cycle):
    for mode in CASES:
        shape = SHAPES["windows"] if mode in ("sum", "max") else SHAPES["points"]
        case = CASES[mode](np.random.default_rng(3), shape, "uint8", "single", shared=False)
        check(case, shape, machine(), work / "reset", work / "builds", reset_at=cycle)


def both_units(hardware):
    """The same sums by the array and by the vector unit."""
    shape = SHAPES["windows"]
    case = sum_case(np.random.default_rng(5), shape, "int8", "double", shared=False)
    geometry = shape.geometry(hardware)
    vector = vector_program(hardware, geometry, case.rule, case.layer, case.zero_points[0])
    array = compile_layer(case.layer, case.images[0].shape, hardware)
    return case, array, vector


def test_array_and_vector_runs_may_follow_each_other(work):
    # Overflows in the array must not count in the unit.
    case, array, vector = both_units(changed_hardware(machine(), array={"acc_bits": 9}))
    options = {"input_signed": True, "folder": work / "both", "builds": work / "builds"}
    image, array_mode, vector_mode = case.images[0][0], {}, {"cfg_mode": 1}
    (alone,) = run_engine([array], image, **options).counters
    assert alone["overflow_events"] > 0
    result = run_engine(
        [vector, array, vector, array, array, vector],
        image,
        changes=[vector_mode, array_mode, vector_mode, array_mode, array_mode, vector_mode],
        **options,
    )
    expected = expected_counters(vector, 0)
    assert result.counters == (expected, alone, expected, alone, alone, expected)
    codes = outputs_from_banks(result.codes[:, : vector.geometry.out_bank_words], vector.geometry)
    assert np.array_equal(codes, case.expected[0].astype(np.int64) & 255)


@pytest.mark.parametrize("places", [(1, 1), (2, 4), (3, 5), (7, 9)])
def test_addresses_of_beats_and_places_change_neither_codes_nor_cycles(work, places):
    case, array, vector = both_units(machine())
    options = {"input_signed": True, "builds": work / "builds"}
    options["changes"] = [{"cfg_mode": 1}, {}]
    runs, image = [vector, array], case.images[0][0]
    plain = run_engine(runs, image, folder=work / "plain", **options)
    beats = run_engine(runs, image, folder=work / "beats", places=places, **options)
    assert beats.counters == plain.counters
    assert np.array_equal(beats.codes, plain.codes)
    assert plain.bases[1][0] > places[0], "the second run must not begin in the first beat"


def test_an_engine_without_the_vector_unit_runs_the_array_the_same(work):
    case, array, _ = both_units(machine())
    options = {"input_signed": True, "builds": work / "builds"}
    full = run_engine([array], case.images[0][0], folder=work / "full", **options)
    array_only = {"VECTOR": 0}
    bare = run_engine(
        [array], case.images[0][0], folder=work / "bare", overrides=array_only, **options
    )
    assert bare.counters == full.counters
    assert np.array_equal(bare.codes, full.codes)


@pytest.mark.parametrize("tool", ["iverilog", "verilator", "yosys"])
@pytest.mark.parametrize("name", ["one-of-all", "3x2-all-lanes", "feed-8-cols-3"])
@pytest.mark.parametrize("bits", [8, pytest.param(16, marks=pytest.mark.long)])
def test_engine_is_clean_with_and_without_the_vector_unit(name, bits, tool):
    parameters = engine_parameters(machine(**MACHINES[name], bits=bits))
    for change in ({"VECTOR": 0}, {"FEED_PLACES": 3, "STREAM_PLACES": 5}):
        assert lint(tool, "layer_engine", parameters | change) == ""
