"""Whole layers through the Verilog engine: outputs, overflows, every register in every cycle."""

from pathlib import Path

import numpy as np
import pytest

from golden.errors import HardwareError
from golden.files import load_network
from golden.network import DTYPES, Conv2D, FullyConnected, Padding, Requantization, WeightedLayer
from golden.run import run
from rtl_models import lint, run_bench
from rtl_models.engine import run_engine
from rtl_models.parameters import engine_parameters, run_configuration
from rtl_models.verify import random_layer, verify_layer
from simulator.hardware import changed_hardware, load_hardware
from simulator.program import compile_layer
from simulator.projection import project_weights
from simulator.timing import plan_layer

NETWORK = Path(__file__).parents[1] / "napier" / "models" / "digits.npz"

pytestmark = pytest.mark.rtl


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """One folder for the module, so that builds are shared."""
    return tmp_path_factory.mktemp("engine")


def hardware(preset="mac4x4", **tables):
    return changed_hardware(load_hardware(preset), **tables)


def dense_layer(in_features, out_features, seed=1, shift=-9):
    rng = np.random.default_rng(seed)
    layer = FullyConnected(
        name="dense",
        inputs=(0,),
        outputs=(1,),
        weights=rng.integers(-127, 128, (out_features, in_features)).astype(np.int8),
        weight_bits=8,
        weight_zero_point=0,
        bias=rng.integers(-1000, 1000, out_features),
        input_zero_point=-3,
        output_zero_point=4,
        requantization=Requantization(
            np.full(1, 1 << 30, np.int32), np.full(1, shift, np.int32), "double"
        ),
        activation_min=-128,
        activation_max=127,
    )
    return layer, rng.integers(-128, 128, (1, in_features)).astype(np.int8)


def conv_layer(channels, out_channels, size, seed=1, **options):
    rng = np.random.default_rng(seed)
    dense, _ = dense_layer(channels, out_channels, seed)
    fields = {name: getattr(dense, name) for name in FullyConnected.__dataclass_fields__}
    groups = options.get("groups", 1)
    shape = (out_channels, 3, 3, channels // groups)
    fields |= {"name": "conv", "weights": rng.integers(-127, 128, shape).astype(np.int8)}
    layer = Conv2D(**fields, **({"padding": Padding(1, 1, 1, 1)} | options))
    return layer, rng.integers(-128, 128, (1, *size, channels)).astype(np.int8)


def assert_equal_in_every_cycle(layer, x, machine, work, seed=0):
    report = verify_layer(layer, machine, x, workdir=work, seed=seed, lockstep=True)
    assert report.passed, f"seed {seed}: {report.difference}"
    return report


def test_control_counters_and_writes_follow_a_run_counted_by_hand(tmp_path):
    parameters = {"ROWS": 2, "COLS": 2, "LANES": 1, "ACC_BITS": 16, "EVENTS_W": 4}
    bench = Path(__file__).parent / "benches" / "bench_engine.py"
    result = run_bench("layer_engine", bench, tmp_path, parameters=parameters)
    assert len(result.tests) == 6


NARROW = {"acc_bits": 12, "events_bits": 3}
MACHINES = {
    "mac": hardware(),
    "serial": hardware("nhot2_4x4"),
    "parallel": hardware("nhot2_parallel_4x4"),
    "ternary": hardware("ternary4x4"),
    "mac-wrap": hardware(array=NARROW),
    "mac-saturate": hardware(array={**NARROW, "acc_overflow": "saturate"}),
    "serial-saturate": hardware("nhot2_4x4", array={**NARROW, "acc_overflow": "saturate"}),
    "parallel-wrap": hardware("nhot2_parallel_4x4", array=NARROW),
    "ternary-wrap": hardware("ternary4x4", array={"acc_bits": 9}),
    "spill": hardware(array={"acc_bits": 14, "spill_interval": 2, "wide_acc_bits": 16}),
    "serial-spill-saturate": hardware(
        "nhot2_4x4",
        array={
            "acc_bits": 14,
            "spill_interval": 3,
            "wide_acc_bits": 16,
            "acc_overflow": "saturate",
        },
    ),
    "feed-1-lock-step": hardware(array={"feed": 1, "lookahead": 1}),
    "feed-1-lookahead-5": hardware("nhot2_4x4", array={"feed": 1, "lookahead": 5}),
    "feed-4-lookahead-8": hardware("nhot2_4x4", array={"feed": 4, "lookahead": 8}),
    "one-pe": hardware(array={"rows": 1, "cols": 1}, post={"lanes": 1}),
    "3x5": hardware(array={"rows": 3, "cols": 5}, post={"lanes": 1}),
    "5x3-all-lanes": hardware("nhot2_4x4", array={"rows": 5, "cols": 3}, post={"lanes": 5}),
    "16-bit": hardware(array={"activation_bits": 16, "acc_bits": 40}),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_random_layers_agree_in_every_register_and_cycle(work, machine):
    overflows = 0
    for seed in range(3):
        layer, x = random_layer(np.random.default_rng(seed), MACHINES[machine])
        report = assert_equal_in_every_cycle(layer, x, MACHINES[machine], work, seed)
        overflows += report.overflow_outputs
    if MACHINES[machine].array.acc_bits <= 16 and machine != "ternary":
        assert overflows > 0, "the layers did not overflow"


@pytest.mark.parametrize("in_features", [1, 3, 5, 17])
def test_leftover_dense_shapes(work, in_features):
    for out_features in (1, 3, 5, 17):
        layer, x = dense_layer(in_features, out_features)
        assert_equal_in_every_cycle(layer, x, MACHINES["mac"], work)


@pytest.mark.parametrize(
    ("channels", "out_channels", "size", "options"),
    [
        pytest.param(1, 1, (1, 1), {}, id="one-pixel"),
        pytest.param(3, 5, (5, 17), {}, id="wide"),
        pytest.param(5, 3, (17, 3), {"stride": (2, 2)}, id="tall-stride-2"),
        pytest.param(4, 4, (7, 7), {"dilation": (2, 2), "stride": (1, 3)}, id="dilated"),
        pytest.param(3, 6, (6, 5), {"groups": 3}, id="depthwise-multiplier-2"),
        pytest.param(4, 10, (5, 5), {"groups": 2, "stride": (2, 1)}, id="groups"),
        pytest.param(2, 2, (4, 6), {"padding": Padding(4, 4, 5, 5)}, id="padding-beyond-kernel"),
    ],
)
def test_leftover_conv_shapes(work, channels, out_channels, size, options):
    layer, x = conv_layer(channels, out_channels, size, **options)
    for machine in ("mac", "feed-4-lookahead-8", "3x5"):
        assert_equal_in_every_cycle(layer, x, MACHINES[machine], work)


def test_depthwise_uses_all_columns_where_the_feed_is_as_wide(work):
    layer, x = conv_layer(4, 4, (6, 6), groups=4, padding=Padding())
    machine = hardware(array={"feed": 4, "lookahead": 16})
    report = assert_equal_in_every_cycle(layer, x, machine, work)
    # Each of 4 columns has 9 products for each of ceil((3 * 6 + 4) / 4) = 6 pixel tiles; one word
    # a cycle serves all columns, and N = 8 result cycles hide behind the 9.
    assert report.cycles_by_cause == {
        "fill": 3,
        "compute": 54,
        "drain": 8 + 7,
        "stall_feed": 0,
    }


def test_first_and_last_cycle_of_the_smallest_run(work):
    # One product: start in cycle 0, issue and fire in cycle t = 4, N = 1 column x 4 rows / 2 lanes
    # = 2, done in cycle t + N + 7 = 13 (rules E1, E3).
    layer, x = dense_layer(1, 1)
    report = assert_equal_in_every_cycle(layer, x, MACHINES["mac"], work)
    assert report.cycles == 13
    assert report.cycles_by_cause == {"fill": 3, "compute": 1, "drain": 9, "stall_feed": 0}


def test_sums_stay_in_the_accumulators_between_the_chunks_of_a_tile(work):
    layer, x = dense_layer(120, 5)
    machine = hardware("nhot2_4x4", buffers={"weight_bytes": 512})
    passes = plan_layer(layer, x.shape, machine).passes
    assert sum(not each.drain for each in passes) >= 4
    assert_equal_in_every_cycle(layer, x, machine, work)


def test_passes_share_the_memories(work):
    layer, x = conv_layer(5, 9, (9, 8))
    machine = hardware(buffers={"weight_bytes": 1024, "activation_bytes": 512, "output_bytes": 256})
    passes = plan_layer(layer, x.shape, machine).passes
    assert len({each.pixel_tiles for each in passes}) > 1
    assert len({each.channel_tiles for each in passes}) > 1
    assert_equal_in_every_cycle(layer, x, machine, work)


@pytest.mark.parametrize("cycle", [1, 2, 3, 4, 20, 133, 200])
def test_reset_in_mid_run_leaves_nothing_behind(work, cycle):
    layer, x = conv_layer(3, 5, (4, 5))
    machine = MACHINES["mac-wrap"]
    program = compile_layer(layer, x.shape, machine)
    options = {"input_signed": True, "builds": work / "builds"}
    fresh = run_engine([program], x[0], folder=work / "fresh", **options)
    assert fresh.total["cycles"] > 200
    again = run_engine([program], x[0], folder=work / "reset", reset_at=cycle, **options)
    assert again.counters == fresh.counters
    assert fresh.total["overflow_events"] > 0
    assert np.array_equal(again.codes, fresh.codes)
    assert np.array_equal(again.written, fresh.written)


def test_a_second_run_starts_from_the_state_the_first_one_left(work):
    layer, x = conv_layer(3, 5, (4, 5))
    program = compile_layer(layer, x.shape, MACHINES["serial"])
    result = run_engine(
        [program, program], x[0], input_signed=True, folder=work / "twice", builds=work / "builds"
    )
    assert result.counters[0] == result.counters[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "weights"),
    [
        ("mac4x4", "as-is"),
        ("nhot2_4x4", "as-is"),
        ("nhot2_parallel_4x4", "nhot:2"),
        ("ternary4x4", "ternary"),
    ],
)
def test_shipped_network_agrees_layer_by_layer(work, preset, weights):
    network = project_weights(load_network(NETWORK), weights)
    source = network.tensors[network.inputs[0]]
    image = np.random.default_rng(1).integers(-128, 128, (1, *source.shape[1:]))
    tensors = run(network, [image.astype(DTYPES[source.dtype])], keep_tensors=True).tensors
    layers = [layer for layer in network.layers if isinstance(layer, WeightedLayer)]
    assert len(layers) == 7
    for layer in layers:
        report = verify_layer(layer, load_hardware(preset), tensors[layer.inputs[0]], workdir=work)
        assert report.passed, f"{layer.name}: {report.difference}"


@pytest.mark.slow
def test_verilator_agrees_in_every_register_and_cycle(work):
    for seed in range(5):
        layer, x = random_layer(np.random.default_rng(seed), MACHINES["serial"])
        report = verify_layer(
            layer, MACHINES["serial"], x, workdir=work, simulator="verilator", lockstep=True
        )
        assert report.passed, f"seed {seed}: {report.difference}"


@pytest.mark.parametrize("tool", ["iverilog", "verilator", "yosys"])
@pytest.mark.parametrize("machine", ["serial-spill-saturate", "one-pe", "5x3-all-lanes", "16-bit"])
def test_engine_is_clean_in_every_shape(tool, machine):
    assert lint(tool, "layer_engine", engine_parameters(MACHINES[machine])) == ""


def test_too_many_tiles_are_refused():
    layer, _ = conv_layer(1, 1, (1, 1))
    program = compile_layer(layer, (1, 600, 600, 1), MACHINES["mac"])
    with pytest.raises(HardwareError, match="90000 tiles in one direction"):
        run_configuration(program, input_signed=True)


def test_images_beyond_the_coordinates_are_refused():
    layer, _ = conv_layer(1, 1, (1, 1), stride=(1, 200))
    program = compile_layer(layer, (1, 1, 600_000, 1), MACHINES["mac"])
    with pytest.raises(HardwareError, match="coordinates have 20 bits"):
        run_configuration(program, input_signed=True)


def test_a_bias_beyond_the_post_processor_is_refused():
    layer, x = dense_layer(2, 2)
    layer.bias[1] = -(1 << 31) - 1
    program = compile_layer(layer, x.shape, MACHINES["mac"])
    with pytest.raises(HardwareError, match="bias of magnitude 2147483649"):
        run_configuration(program, input_signed=True)
