"""Whole programs on napier_top in Icarus: every code, every cycle, every counter."""

from pathlib import Path

import numpy as np
import pytest

from golden.files import load_network
from golden.network import (
    Add,
    AveragePool2D,
    Concat,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    MaxPool2D,
    Mul,
    Network,
    Padding,
    Requantization,
    Reshape,
    Softmax,
    Tensor,
)
from napier.loading import shipped_digits
from rtl_models.top import Bus, TopSimulation, run_program, verify_network
from simulator.compiler import compile_network
from simulator.hardware import changed_hardware, load_hardware
from simulator.plan import Program

MODELS = Path(__file__).parents[1] / "napier" / "models"
PRESETS = ["mac4x4", "nhot2_4x4", "nhot2_parallel_4x4", "ternary4x4"]

pytestmark = pytest.mark.rtl


@pytest.fixture(scope="module")
def builds(tmp_path_factory):
    """One folder for the module, so that builds are shared."""
    return tmp_path_factory.mktemp("top")


def hardware(preset="mac4x4", **tables):
    return changed_hardware(load_hardware(preset), **tables)


def requantization(shift=-8, multiplier=1 << 30, rounding="double"):
    return Requantization(np.array([multiplier], np.int32), np.array([shift], np.int32), rounding)


CLAMP = {"activation_min": -128, "activation_max": 127}


class Draft:
    """A network that grows layer by layer; every PE kind takes its weights of -1, 0 and 1."""

    def __init__(self, *shape):
        self.rng = np.random.default_rng(7)
        self.tensors = [Tensor("input", (1, *shape), "int8", 1.0, -3)]
        self.layers = []

    def network(self, *outputs):
        outputs = outputs or (len(self.tensors) - 1,)
        return Network("draft", tuple(self.tensors), tuple(self.layers), (0,), outputs)

    def sample(self):
        return self.rng.integers(-128, 128, self.tensors[0].shape).astype(np.int8)

    def _put(self, kind, sources, shape, **fields):
        index = len(self.tensors)
        self.tensors.append(Tensor(f"t{index}", (1, *shape), "int8", 1.0, 5))
        name = f"{kind.__name__.lower()}_{len(self.layers)}"
        self.layers.append(kind(name=name, inputs=sources, outputs=(index,), **fields))
        return index

    def _weighted(self, kind, source, shape, weights_shape, **fields):
        return self._put(
            kind,
            (source,),
            shape,
            weights=self.rng.integers(-1, 2, weights_shape).astype(np.int8),
            weight_bits=8,
            weight_zero_point=0,
            bias=self.rng.integers(-200, 200, weights_shape[0]),
            input_zero_point=self.tensors[source].zero_point,
            output_zero_point=5,
            requantization=requantization(shift=-2),
            **CLAMP,
            **fields,
        )

    def conv(self, source, channels, kernel=3, stride=1, depthwise=False):
        _, height, width, depth = self.tensors[source].shape
        pad = kernel // 2
        shape = (*((n + 2 * pad - kernel) // stride + 1 for n in (height, width)), channels)
        kind = DepthwiseConv2D if depthwise else Conv2D
        weights = (channels, kernel, kernel, 1 if depthwise else depth)
        return self._weighted(
            kind,
            source,
            shape,
            weights,
            stride=(stride, stride),
            padding=Padding(pad, pad, pad, pad),
            groups=depth if depthwise else 1,
        )

    def dense(self, source, features):
        in_features = int(np.prod(self.tensors[source].shape))
        return self._weighted(FullyConnected, source, (features,), (features, in_features))

    def flatten(self, source):
        size = int(np.prod(self.tensors[source].shape))
        return self._put(Reshape, (source,), (size,))

    def pool(self, kind, source, kernel=2):
        _, height, width, depth = self.tensors[source].shape
        shape = (height // kernel, width // kernel, depth)
        window = {"kernel": (kernel, kernel), "stride": (kernel, kernel), "padding": Padding()}
        return self._put(kind, (source,), shape, **window, **CLAMP)

    def add(self, first, second):
        rule = requantization(shift=0)
        points = (self.tensors[first].zero_point, self.tensors[second].zero_point)
        return self._put(
            Add,
            (first, second),
            self.tensors[first].shape[1:],
            input_zero_points=points,
            output_zero_point=5,
            left_shift=20,
            input_requantizations=(rule, requantization(shift=-1, multiplier=1234567890)),
            output_requantization=requantization(shift=-18),
            **CLAMP,
        )

    def mul(self, first, second):
        points = (self.tensors[first].zero_point, self.tensors[second].zero_point)
        return self._put(
            Mul,
            (first, second),
            self.tensors[first].shape[1:],
            input_zero_points=points,
            output_zero_point=5,
            requantization=requantization(shift=-6),
            **CLAMP,
        )

    def concat(self, *sources):
        shapes = [self.tensors[i].shape for i in sources]
        shape = (*shapes[0][1:-1], sum(each[-1] for each in shapes))
        return self._put(Concat, sources, shape, axis=3)

    def softmax(self, source):
        rows = {"multiplier": 1 << 30, "shift": 20, "diff_min": -100}
        return self._put(Softmax, (source,), self.tensors[source].shape[1:], **rows)


def assert_equal(draft, network, machine, builds, **settings):
    settings = {"limit_cycles": 200_000} | settings
    result = verify_network(network, machine, [draft.sample()], TopSimulation(builds, **settings))
    assert result.difference is None
    assert result.codes
    return result


def cuts(network, machine):
    """Groups, strips and chunks of each step."""
    plan = compile_network(network, machine).plan
    return [
        (
            len(each.cut.groups),
            len(each.cut.strips),
            max(len(group.blocks) for group in each.cut.groups),
        )
        for program in plan.programs
        for each in program.steps
    ]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_network_of_every_kind_of_step(preset, builds):
    draft = Draft(6, 5, 3)
    first = draft.conv(0, 5)
    second = draft.conv(first, 5, depthwise=True)
    joined = draft.concat(first, draft.add(first, second), draft.mul(second, first))
    pooled = draft.pool(MaxPool2D, draft.conv(joined, 6, kernel=1))
    draft.dense(draft.flatten(pooled), 7)
    network = draft.network()
    result = assert_equal(draft, network, hardware(preset), builds)
    assert result.run.programs[0].descriptor + 1 >= 9  # nine steps: the concatenation has three


def test_strips_groups_and_chunks_of_a_convolution(builds):
    draft = Draft(6, 4, 4)
    draft.conv(0, 6)
    network = draft.network()
    small = hardware(buffers={"activation_bytes": 256, "weight_bytes": 512, "output_bytes": 64})
    ((groups, strips, chunks),) = cuts(network, small)
    assert min(groups, strips, chunks) > 1
    assert_equal(draft, network, small, builds)


def test_strips_of_a_strided_depthwise_layer_without_double_buffers(builds):
    draft = Draft(11, 7, 6)
    draft.conv(0, 6, stride=2, depthwise=True)
    network = draft.network()
    small = hardware(buffers={"activation_bytes": 512, "output_bytes": 64, "double_buffer": False})
    ((_, strips, _),) = cuts(network, small)
    assert strips > 1
    assert_equal(draft, network, small, builds)


def test_strips_of_pools_and_element_wise_layers(builds):
    draft = Draft(8, 8, 3)
    pooled = draft.pool(AveragePool2D, draft.add(0, 0))
    draft.concat(pooled, pooled)
    network = draft.network()
    small = hardware(buffers={"activation_bytes": 256, "output_bytes": 64})
    assert all(strips > 1 for _, strips, _ in cuts(network, small))
    assert_equal(draft, network, small, builds)


def test_overflowing_accumulators_are_counted_by_layer(builds):
    draft = Draft(4, 4, 8)
    draft.conv(draft.conv(0, 4), 3)
    narrow = hardware(array={"acc_bits": 7})
    result = assert_equal(draft, draft.network(), narrow, builds)
    events = [layer["overflow_events"] for layer in result.run.programs[0].layers]
    assert min(events) > 0
    assert result.run.programs[0].total["overflow_events"] == sum(events)


def test_cycles_and_causes_of_layers_sum_to_those_of_the_run(builds):
    draft = Draft(5, 5, 2)
    draft.pool(MaxPool2D, draft.conv(0, 4))
    result = assert_equal(draft, draft.network(), hardware(), builds)
    (run,) = result.run.programs
    for name, total in run.total.items():
        assert total == sum(layer[name] for layer in run.layers)
    causes = set(run.total) - {"cycles", "overflow_events", "overflow_outputs"}
    assert sum(run.total[name] for name in causes) == run.cycles == run.total["cycles"]


@pytest.mark.parametrize("order", [0, 1, 2])
def test_any_memory_gives_the_same_codes(order, builds):
    draft = Draft(6, 5, 3)
    draft.add(draft.conv(0, 5), draft.conv(0, 5))
    bus = Bus(latency=3, interval=1, stall_percent=40, seed=order + 1, order=order)
    assert_equal(draft, draft.network(), hardware(), builds, bus=bus)


def test_the_image_may_lie_anywhere(builds):
    draft = Draft(4, 4, 2)
    draft.conv(0, 4)
    assert_equal(draft, draft.network(), hardware(), builds, bus=Bus(base=0x12_3456_7000))


def test_a_host_layer_between_two_programs(builds):
    draft = Draft(4, 4, 2)
    draft.conv(draft.softmax(draft.conv(0, 4)), 3)
    network = draft.network()
    parts = compile_network(network, hardware()).plan.parts
    assert [isinstance(part, Program) for part in parts] == [True, False, True]
    result = assert_equal(draft, network, hardware(), builds)
    assert len(result.run.programs) == 2


def test_the_first_difference_is_named(builds):
    draft = Draft(4, 4, 8)
    draft.conv(0, 4)
    narrow = hardware(array={"acc_bits": 9})
    simulation = TopSimulation(builds, overrides={"SATURATE": 1}, limit_cycles=20_000)
    result = verify_network(draft.network(), narrow, [draft.sample()], simulation)
    assert "layer 'conv2d_0', tensor 't1', element [0, " in result.difference
    assert "should be " in result.difference


def test_a_slower_memory_is_a_difference_of_cycles(builds):
    draft = Draft(4, 4, 2)
    draft.conv(0, 4)

    class Slower(Bus):
        as_described = True

    simulation = TopSimulation(builds, bus=Slower(latency=21), limit_cycles=20_000)
    result = verify_network(draft.network(), hardware(), [draft.sample()], simulation)
    assert result.difference.startswith("layer 'conv2d_0': cycles should be ")


def test_a_program_that_does_not_end_is_given_up(builds):
    draft = Draft(4, 4, 2)
    draft.conv(0, 4)
    simulation = TopSimulation(builds, limit_cycles=100)
    run = run_program(draft.network(), hardware(), [draft.sample()], simulation)
    assert run.programs[0].status == 0
    assert run.programs[0].layers == ()


@pytest.mark.slow
@pytest.mark.parametrize("simulator", ["icarus", pytest.param("verilator", marks=pytest.mark.long)])
def test_the_shipped_network(simulator, builds):
    network = load_network(MODELS / "digits.npz")
    images = shipped_digits()[0][:1]
    result = verify_network(network, hardware(), [images], TopSimulation(builds, simulator))
    assert result.difference is None
    assert result.counters == 9 * 12 + 13  # of nine layers; of the run, with CYCLES
