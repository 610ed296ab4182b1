"""The fast speed against the stepped one, and timings that can be added up by hand."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from random_layers import PES, random_hardware, random_layer

from golden.errors import HardwareError
from golden.files import load_network
from golden.network import (
    Add,
    AveragePool2D,
    Concat,
    Conv2D,
    Network,
    Padding,
    Requantization,
    Reshape,
    Tensor,
)
from napier.loading import shipped_file
from simulator import kernels
from simulator.hardware import changed_hardware, load_hardware
from simulator.machine import simulate
from simulator.results import CAUSES, Events
from simulator.stepped import step_layer
from simulator.timing import time_layer, time_network
from simulator.values import ArrayLayer, overflow_record

ONE = Requantization(np.array([1 << 30], np.int32), np.array([1], np.int32))


@pytest.mark.parametrize("pe", PES)
@pytest.mark.parametrize("block", range(4))
def test_fast_equals_stepped_in_everything(pe, block):
    rng = np.random.default_rng([2026, list(PES).index(pe), block])
    compared = 0
    for _ in range(20):
        layer, x = random_layer(rng, pe)
        hardware = random_hardware(rng, pe)
        try:
            timing = time_layer(layer, (1, *x.shape[1:]), hardware)
        except HardwareError:  # buffers too small for the layer
            continue
        stepped = step_layer(layer, hardware, x)
        assert timing == stepped.timing
        assert sum(timing.cycles_by_cause.values()) == timing.cycles
        assert tuple(timing.cycles_by_cause) == CAUSES
        fast = ArrayLayer(layer, x.shape, hardware).accumulate(x)
        for name in ("value", "events", "first_step", "minimum", "maximum", "persistent"):
            expected = getattr(stepped.accumulators, name)
            np.testing.assert_array_equal(getattr(fast, name).reshape(expected.shape), expected)
        codes, _ = ArrayLayer(layer, x.shape, hardware).run(
            x, Tensor("y", (1, *stepped.outputs.shape[1:]), "int8")
        )
        np.testing.assert_array_equal(codes, stepped.outputs)
        compared += 1
    assert compared >= 8


def test_fast_equals_stepped_with_16_bit_activations():
    rng = np.random.default_rng(16)
    compared = 0
    for i in range(40):
        pe = list(PES)[i % 4]
        layer, x = random_layer(rng, pe)
        layer = replace(
            layer,
            input_zero_point=0,
            output_zero_point=0,
            activation_min=-32768,
            activation_max=32767,
        )
        x = rng.integers(-32768, 32768, x.shape).astype(np.int16)
        hardware = changed_hardware(
            random_hardware(rng, pe),
            array={
                "activation_bits": 16,
                "acc_bits": int(rng.integers(12, 30)),
                "wide_acc_bits": int(rng.integers(30, 48)),
            },
        )
        try:
            stepped = step_layer(layer, hardware, x)
        except HardwareError:
            continue
        assert time_layer(layer, (1, *x.shape[1:]), hardware) == stepped.timing
        output = Tensor("y", (1, *stepped.outputs.shape[1:]), "int16")
        codes, record = ArrayLayer(layer, x.shape, hardware).run(x, output)
        np.testing.assert_array_equal(codes, stepped.outputs)
        assert record == overflow_record(stepped.accumulators, hardware)
        compared += 1
    assert compared >= 20


@pytest.mark.parametrize("hardware", ["mac4x4", "nhot2_4x4", "nhot2_parallel_4x4", "ternary4x4"])
def test_presets_agree_at_both_speeds(hardware):
    rng = np.random.default_rng(4)
    machine = load_hardware(hardware)
    pe = {"mac4x4": "mac", "nhot2_4x4": "serial", "ternary4x4": "ternary"}.get(hardware, "parallel")
    for _ in range(5):
        layer, x = random_layer(rng, pe)
        assert time_layer(layer, (1, *x.shape[1:]), machine) == step_layer(layer, machine, x).timing


# -- the engine -----------------------------------------------------------------------------------


def walk(tiles, drain_cycles, pixel_tiles, depth, drain):
    """Take every cycle of the A, D and E rules with plain lists; entries are (advance, last)."""
    cols = len(tiles[0])
    order = [i for i in range(len(tiles)) for _ in range(pixel_tiles)]
    words_left = sum(tiles[i].shape[1] for i in order)
    streams = [[] for _ in range(cols)]
    for i in order:
        for c in range(cols):
            at = [w for w in range(tiles[i].shape[1]) for _ in range(tiles[i][c, w])]
            streams[c] += [
                (1 if after is None else after - word, after is None)
                for word, after in itertools.zip_longest(at, at[1:])
            ]
    n, offset, done, hold = 0, [0] * cols, [False] * cols, 0
    causes = {"compute": 0, "stall_feed": 0, "drain": 0}
    for cycle in itertools.count(3):  # the first word reaches the window in cycle 3
        issued = {
            c: streams[c].pop(0)
            for c in range(cols)
            if streams[c] and offset[c] < n and not done[c]
        }
        if cycle > 3:
            causes["compute" if issued else "drain" if all(done) else "stall_feed"] += 1
        release = n > 0 and all(
            offset[c] > 0 or (c in issued and issued[c][0] > 0) for c in range(cols)
        )
        for c, (advance, last) in issued.items():
            offset[c] += advance
            done[c] = last
        offset = [o - release for o in offset]
        load = words_left > 0 and n - release < depth
        n += load - release
        words_left -= load
        fire = all(done) and hold == 0
        hold = max(hold - 1, 0)
        if fire:
            done = [False] * cols
            tile = order.pop(0)
            hold = drain_cycles[tile] - 1
            if not order:
                after = drain_cycles[tile] + 7 if drain else 1
                causes["drain"] += after
                return *causes.values(), cycle + after
    raise AssertionError


def test_engine_cycles_equal_a_walk_through_every_cycle():
    rng = np.random.default_rng(8)
    for _ in range(150):
        cols, count, depth, pixel_tiles = (int(n) for n in rng.integers(1, [5, 3, 7, 25]))
        tiles = []
        for words in rng.integers(1, 25, count):
            counts = rng.integers(1, 4, (cols, words)) * (
                rng.random((cols, words)) < rng.choice([0.05, 0.3, 0.9])
            )
            tiles.append(kernels.with_fillers(counts.astype(np.int32), np.array(counts.shape[1:])))
        drain_cycles = [int(n) for n in rng.integers(1, rng.choice([2, 30]), count)]
        drain = bool(rng.random() < 0.9)
        found = kernels.run_cycles(
            np.concatenate(tiles, axis=1),
            np.cumsum([tile.shape[1] for tile in tiles]),
            np.array(drain_cycles),
            pixel_tiles,
            depth,
            drain,
        )
        assert found == walk(tiles, drain_cycles, pixel_tiles, depth, drain)


def test_many_pixel_tiles_cost_the_sum_of_their_parts():
    """A lock-step column of 7 entries a tile: 3 of fill, 7 a tile, N + 7 after the last."""
    counts = np.full((1, 7), 1, dtype=np.int32)
    args = (counts, np.array([7]), np.array([4]), 1_000_000, 3, True)
    assert kernels.run_cycles(*args) == (7_000_000, 0, 11, 7_000_014)


# -- networks -------------------------------------------------------------------------------------


def network_of(*layers, tensors):
    """Layers one after the other; the first tensors that no layer writes are inputs."""
    written = {layer.outputs[0] for layer in layers}
    inputs = tuple(i for i in range(len(tensors)) if i not in written)
    return Network("hand", tuple(tensors), layers, inputs, layers[-1].outputs)


def codes(*shape):
    return Tensor("codes", shape, "int8")


def identity_conv(channels, **changes):
    layer = Conv2D(
        name="conv",
        inputs=(0,),
        outputs=(1,),
        weights=np.eye(channels, dtype=np.int8).reshape(channels, 1, 1, channels),
        weight_bits=8,
        weight_zero_point=0,
        bias=None,
        input_zero_point=0,
        output_zero_point=0,
        requantization=ONE,
        activation_min=-128,
        activation_max=127,
    )
    return replace(layer, **changes)


def test_an_addition_by_hand():
    """4 rows, 2 lanes, words of 2 codes; beats of 8 bytes every second cycle, latency 20."""
    layer = Add("add", (0, 1), (2,), (0, 0), 0, 20, (ONE, ONE), ONE, -128, 127)
    network = network_of(layer, tensors=[codes(1, 2, 2, 2)] * 3)
    (timing,) = time_network(network, load_hardware("mac4x4"))
    # D: 48 beats: s 1, address 2, beats 23 .. 117, e 118.
    # W: a beat of two feed words, two of the one parameter: s 119, beats 141 143 145, e 146.
    # No store: 147. A: a beat with a row of 4 words: s 148, beat 170, e 171. A2: s 172, beat 194,
    # e 195. c = 196, g = 197.
    # Run: words in 4 and 5, where it fires; N = 2 columns x 2 groups; 5 + 4 + 7 + 4 = 20: done 217.
    # S: s* = 218, the piece read in 220, beat 221, response 242.
    assert timing.cycles == 242
    assert timing.cycles_by_cause == {
        "compute": 2,
        "fill": 3,
        "stall_feed": 0,
        "drain": 15,
        "control": 2,
        "stall_descriptor": 118,
        "stall_weights": 28,
        "stall_activations": 48,
        "stall_outputs": 1 + 25,
        "vector": 0,
    }
    assert timing.events == Events(
        window_words=2,
        feed_words=2,
        parameter_reads=4,
        output_codes=8,
        vector_operations=8,
        weight_load_bytes=24,
        activation_load_bytes=16,
        output_store_bytes=8,
        dram_read_bytes=384 + 24 + 16,
        dram_write_bytes=8,
    )


def test_a_pool_whose_windows_differ_is_the_hosts():
    layer = AveragePool2D("pool", (0,), (1,), (3, 3), (1, 1), Padding(1, 1, 1, 1), -128, 127)
    network = network_of(layer, tensors=[codes(1, 4, 4, 2)] * 2)
    (timing,) = time_network(network, load_hardware("mac4x4"))
    # along an axis 2 + 3 + 3 + 2 taps; 32 bytes each way, 4 a cycle; 2 lanes
    assert timing.events.vector_operations == 10 * 10 * 2
    assert timing.cycles == (20 + 8) + 100 + (20 + 8)
    assert timing.cycles_by_cause["vector"] == 100
    assert (timing.events.dram_read_bytes, timing.events.dram_write_bytes) == (32, 32)


def test_a_reshape_that_keeps_the_words_is_free_and_another_is_the_hosts():
    hardware = load_hardware("mac4x4")
    for shape, unit in (((1, 32, 2), "free"), ((1, 2, 32), "host")):
        network = network_of(Reshape("r", (0,), (1,)), tensors=[codes(1, 4, 8, 2), codes(*shape)])
        result = simulate(network, hardware, values=False)
        assert result.layers[0].unit == unit
        # 64 bytes in, 64 codes on 2 lanes, 64 bytes out
        assert result.cycles == (0 if unit == "free" else (20 + 16) + 32 + (20 + 16))


def test_inputs_of_a_concatenation_add_up():
    layer = Concat("cat", (0, 1), (2,), 3)
    tensors = [codes(1, 3, 3, 2), codes(1, 3, 3, 4), codes(1, 3, 3, 6)]
    (timing,) = time_network(network_of(layer, tensors=tensors), load_hardware("mac4x4"))
    # words of 2 codes: 9 + 18 of them in, as many out; three channel tiles of 3 pixel tiles
    assert timing.events.activation_load_bytes == timing.events.output_store_bytes == 2 * 27
    assert timing.events.window_words == 9
    assert timing.events.vector_operations == timing.events.output_codes == 54
    assert sum(timing.cycles_by_cause.values()) == timing.cycles


def test_the_next_layer_begins_to_load_before_a_layer_ends():
    network = network_of(
        identity_conv(4),
        identity_conv(4, inputs=(1,), outputs=(2,)),
        tensors=[codes(1, 8, 8, 4)] * 3,
    )
    hardware = load_hardware("mac4x4")
    first, second = time_network(network, hardware)
    alone = time_layer(network.layers[1], (1, 8, 8, 4), hardware)
    assert second.cycles_by_cause["stall_descriptor"] == 0
    assert second.cycles_by_cause["stall_weights"] == 0
    assert second.cycles < alone.cycles
    assert second.events == alone.events
    assert first.cycles >= alone.cycles


def test_a_layer_of_the_host_ends_a_program():
    pool = AveragePool2D("pool", (1,), (2,), (3, 3), (1, 1), Padding(1, 1, 1, 1), -128, 127)
    network = network_of(
        identity_conv(4),
        pool,
        identity_conv(4, inputs=(2,), outputs=(3,)),
        tensors=[codes(1, 8, 8, 4)] * 4,
    )
    first, _, last = time_network(network, load_hardware("mac4x4"))
    assert first == last == time_layer(network.layers[0], (1, 8, 8, 4), load_hardware("mac4x4"))


@pytest.mark.parametrize("hardware", ["mac4x4", "nhot2_4x4"])
def test_a_network_is_the_same_at_both_speeds(hardware):
    network = load_network(shipped_file("digits.npz"))
    x = np.random.default_rng(1).integers(-128, 128, (1, 8, 8, 1)).astype(np.int8)
    fast = simulate(network, load_hardware(hardware), [x])
    stepped = simulate(network, load_hardware(hardware), [x], speed="stepped")
    for computed, expected in zip(fast.layers, stepped.layers, strict=True):
        assert computed == expected
    np.testing.assert_array_equal(fast.outputs[0], stepped.outputs[0])


def test_faster_memory_leaves_the_engine_of_a_big_layer_as_it_is():
    """A layer of VGG16: hundreds of passes, timed by the periods of their tiles."""
    rng = np.random.default_rng(0)
    layer = Conv2D(
        name="conv",
        inputs=(0,),
        outputs=(1,),
        weights=rng.integers(-127, 128, (512, 3, 3, 512)).astype(np.int8),
        weight_bits=8,
        weight_zero_point=0,
        bias=None,
        input_zero_point=0,
        output_zero_point=0,
        requantization=ONE,
        activation_min=-128,
        activation_max=127,
        padding=Padding(1, 1, 1, 1),
    )
    machine = load_hardware("mac16x16")
    buffers = machine.buffers.model_copy(update={"activation_bytes": 1 << 18})
    machine = machine.model_copy(update={"buffers": buffers})
    timing = time_layer(layer, (1, 28, 28, 512), machine)
    assert timing.events.steps == 28 * 28 * np.count_nonzero(layer.weights)
    assert timing.cycles >= timing.events.steps / 256
    dram = machine.dram.model_copy(update={"bytes_per_cycle": 128})
    quick = time_layer(layer, (1, 28, 28, 512), machine.model_copy(update={"dram": dram}))
    assert quick.cycles < timing.cycles
    # Another cut may be the best then, which has other waits at the ends of its runs.
    compute = quick.cycles_by_cause["compute"]
    assert compute == pytest.approx(timing.cycles_by_cause["compute"], rel=1e-3)


def test_idle_pixels_of_the_last_tile_are_no_steps():
    layer, x = random_layer(np.random.default_rng(1), "mac")
    layer = replace(layer, weights=np.ones_like(layer.weights), weight_zero_point=0)
    timing = time_layer(layer, (1, *x.shape[1:]), load_hardware("mac4x4"))
    outputs = ArrayLayer(layer, x[:1].shape, load_hardware("mac4x4")).accumulate(x[:1]).value.size
    assert timing.events.steps == outputs * layer.weights[0].size
    assert timing.events.output_codes == outputs
