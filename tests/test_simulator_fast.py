"""The fast speed against the stepped one, and timings that can be added up by hand."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from random_layers import PES, random_hardware, random_layer

from golden.errors import HardwareError
from golden.network import (
    Add,
    AveragePool2D,
    Conv2D,
    Mean,
    Pad,
    Padding,
    Requantization,
    Reshape,
    Tensor,
)
from simulator import kernels
from simulator.hardware import hardware_from_dict, load_hardware
from simulator.results import CAUSES
from simulator.stepped import step_layer
from simulator.timing import time_layer, time_vector_layer
from simulator.values import accumulate, overflow_record, run_weighted

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
        fast = accumulate(layer, x, hardware)
        for name in ("value", "events", "first_step", "minimum", "maximum", "persistent"):
            expected = getattr(stepped.accumulators, name)
            np.testing.assert_array_equal(getattr(fast, name).reshape(expected.shape), expected)
        codes, _ = run_weighted(
            layer, x, Tensor("y", (1, *stepped.outputs.shape[1:]), "int8"), hardware
        )
        np.testing.assert_array_equal(codes, stepped.outputs)
        compared += 1
    assert compared >= 10


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
        settings = random_hardware(rng, pe).model_dump()
        settings["array"] |= {
            "activation_bits": 16,
            "acc_bits": int(rng.integers(12, 30)),
            "wide_acc_bits": int(rng.integers(30, 48)),
        }
        hardware = hardware_from_dict(settings)
        try:
            stepped = step_layer(layer, hardware, x)
        except HardwareError:
            continue
        assert time_layer(layer, (1, *x.shape[1:]), hardware) == stepped.timing
        output = Tensor("y", (1, *stepped.outputs.shape[1:]), "int16")
        codes, record = run_weighted(layer, x, output, hardware)
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
            tiles.append(kernels.with_fillers(counts.astype(np.int32)))
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


# -- transfers ------------------------------------------------------------------------------------


def stalls(weights, activations, stores, cycles, double_buffer):
    arrays = [np.array(part, dtype=np.int64) for part in (weights, activations, stores, cycles)]
    return kernels.transfer_stalls(*arrays, double_buffer, 4, 10)


def test_one_pass_waits_for_both_loads_and_its_store():
    # weights 10 + 100/4 = 35, activations 10 + 40/4 = 20, run 50, store 10 + 9/4 -> 13
    for double_buffer in (False, True):
        assert stalls([100], [40], [9], [50], double_buffer) == (35, 20, 13, 118)


def test_double_buffers_hide_the_second_load():
    # L0 0..20 (weights) 20..40; L1 40..60 while pass 0 runs 40..140; S0 140..160 while pass 1 runs
    # 140..240; S1 240..260.
    assert stalls([40, 0], [40, 40], [40, 40], [100, 100], True) == (20, 20, 20, 260)


def test_single_buffers_hide_nothing():
    # L0 0..40, pass 40..140, S0 140..160, L1 160..180, pass 180..280, S1 280..300
    assert stalls([40, 0], [40, 40], [40, 40], [100, 100], False) == (20, 60, 20, 300)


def test_waiting_for_a_store_is_named_so():
    # S0 (0..) takes 10 + 400/4 = 110; pass 2 waits for it: both its buffers are full.
    # L0 0..11, pass 0 11..12, S0 12..122, pass 1 12..13, S1 122..232, pass 2 waits 13..122
    found = stalls([4, 0, 0], [0, 0, 0], [400, 400, 4], [1, 1, 1], True)
    # pass 2 122..123, S2 232..243
    assert found == (11, 0, 109 + 120, 243)


# -- layers without weights -----------------------------------------------------------------------


def vector_hardware():
    machine = load_hardware("mac4x4")  # 2 lanes, 2048 bytes a half, 4 bytes a cycle, latency 20
    buffers = machine.buffers.model_copy(update={"output_bytes": 4096})
    return machine.model_copy(update={"buffers": buffers})


def test_add_takes_an_operation_for_each_output():
    layer = Add("add", (0, 1), (2,), (0, 0), 0, 20, (ONE, ONE), ONE, -128, 127)
    shape = (1, 4, 4, 8)
    tensors = [Tensor(name, shape, "int8") for name in "abc"]
    timing = time_vector_layer(layer, tensors[:2], tensors[2], vector_hardware())
    # load 20 + 256/4, 128 elements on 2 lanes, store 20 + 128/4
    assert timing.cycles == 84 + 64 + 52
    assert timing.cycles_by_cause["vector"] == 64
    assert timing.cycles_by_cause["stall_activations"] == 84
    assert timing.cycles_by_cause["stall_outputs"] == 52
    assert timing.events.vector_operations == 128


def test_pools_count_the_taps_inside_the_image():
    layer = AveragePool2D("pool", (0,), (1,), (3, 3), (1, 1), Padding(1, 1, 1, 1), -128, 127)
    x, y = (Tensor(name, (1, 4, 4, 2), "int8") for name in "xy")
    timing = time_vector_layer(layer, [x], y, vector_hardware())
    # along an axis 2 + 3 + 3 + 2 taps
    assert timing.events.vector_operations == 10 * 10 * 2


def test_mean_counts_its_inputs_and_pad_none():
    machine = vector_hardware()
    x = Tensor("x", (1, 4, 4, 2), "int8")
    mean = Mean("mean", (0,), (1,), (1, 2), False, 0, 0, ONE, -128, 127)
    assert (
        time_vector_layer(mean, [x], Tensor("y", (1, 2), "int8"), machine).events.vector_operations
        == 32
    )
    pad = Pad("pad", (0,), (1,), ((0, 0), (1, 1), (1, 1), (0, 0)), 0)
    timing = time_vector_layer(pad, [x], Tensor("y", (1, 6, 6, 2), "int8"), machine)
    assert timing.cycles == 20 + 8 + 20 + 18
    assert timing.events.vector_operations == 0


def test_reshape_is_free():
    x, y = Tensor("x", (1, 4, 4, 2), "int8"), Tensor("y", (1, 32), "int8")
    timing = time_vector_layer(Reshape("r", (0,), (1,)), [x], y, vector_hardware())
    assert timing.cycles == 0
    assert timing.events.dram_read_bytes == 0


def test_large_vector_layers_are_cut_into_passes():
    layer = Add("add", (0, 1), (2,), (0, 0), 0, 20, (ONE, ONE), ONE, -128, 127)
    tensors = [Tensor(name, (1, 64, 64, 2), "int8") for name in "abc"]
    machine = vector_hardware()
    timing = time_vector_layer(layer, tensors[:2], tensors[2], machine)
    assert timing.events.dram_read_bytes == 2 * 8192
    # 8 passes: loads of 20 + 512, stores of 20 + 256, 512 operations. The DMA never rests until the
    # last load; then the last pass runs beside the store before it, and stores.
    assert timing.cycles == 8 * 532 + 6 * 276 + 512 + 276
    single = machine.buffers.model_copy(update={"double_buffer": False})
    slower = time_vector_layer(
        layer, tensors[:2], tensors[2], machine.model_copy(update={"buffers": single})
    )
    # 4 passes of 4096 bytes, nothing overlaps
    assert slower.cycles == 4 * (20 + 1024 + 1024 + 20 + 512)


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
    dram = machine.dram.model_copy(update={"bytes_per_cycle": 4096})
    quick = time_layer(layer, (1, 28, 28, 512), machine.model_copy(update={"dram": dram}))
    assert quick.cycles < timing.cycles
    assert quick.cycles_by_cause["compute"] == timing.cycles_by_cause["compute"]


def test_idle_pixels_of_the_last_tile_are_no_steps():
    layer, x = random_layer(np.random.default_rng(1), "mac")
    layer = replace(layer, weights=np.ones_like(layer.weights), weight_zero_point=0)
    timing = time_layer(layer, (1, *x.shape[1:]), load_hardware("mac4x4"))
    outputs = accumulate(layer, x[:1], load_hardware("mac4x4")).value.size
    assert timing.events.steps == outputs * layer.weights[0].size
    assert timing.events.output_codes == outputs
