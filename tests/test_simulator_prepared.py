"""Prepared networks give the codes, overflow counts and cycles of the model that records all."""

import numpy as np
import pytest

from rtl_models.random_networks import random_hardware, random_network
from simulator.hardware import changed_hardware, load_hardware
from simulator.machine import simulate
from simulator.prepared import PreparedNetwork


def held_alike(network, hardware, inputs):
    """Run both ways; how many layers were matrix products, and all overflow events."""
    prepared = PreparedNetwork(network, hardware)
    found, expected = prepared.run(inputs), simulate(network, hardware, inputs)
    for index, codes in enumerate(expected.outputs):
        np.testing.assert_array_equal(found.outputs[index], codes)
        assert found.outputs[index].dtype == codes.dtype
    records = {each.index: each.overflow for each in expected.layers if each.overflow is not None}
    assert found.overflow_events == {i: record.events for i, record in records.items()}
    assert found.overflow_outputs == {i: r.outputs_affected for i, r in records.items()}
    assert found.timings == tuple(each.timing for each in expected.layers)
    assert found.cycles == expected.cycles
    return len(prepared.products), sum(found.overflow_events.values())


@pytest.mark.parametrize("narrow", [True, False])
def test_codes_overflows_and_cycles_are_those_of_simulate(narrow):
    products = events = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        hardware = random_hardware(rng)
        if not narrow:
            hardware = changed_hardware(hardware, array={"acc_bits": 32, "spill_interval": 0})
        network, inputs = random_network(rng, hardware)
        more = held_alike(network, hardware, [np.concatenate([x, x[:, ::-1]]) for x in inputs])
        products, events = products + more[0], events + more[1]
    assert products > 0
    assert (events > 0) == narrow


def test_a_layer_is_a_product_down_to_the_width_that_holds_its_largest_sum():
    hardware = load_hardware("mac4x4")
    network, inputs = random_network(np.random.default_rng(0), hardware, 1)
    layer = next(each for each in network.layers if hasattr(each, "weights"))
    index = network.layers.index(layer)
    source = network.tensors[layer.inputs[0]]
    largest = max(abs(code - layer.input_zero_point) for code in _range(source.dtype))
    norm = int(np.abs(layer.weights.astype(int)).reshape(len(layer.weights), -1).sum(1).max())
    bits = (largest * norm).bit_length() + 1
    for acc_bits, product in ((bits, True), (bits - 1, False)):
        array = replace_array(hardware, acc_bits)
        assert (index in PreparedNetwork(network, array).products) == product
        held_alike(network, array, inputs)


def _range(dtype):
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def replace_array(hardware, acc_bits):
    return changed_hardware(hardware, array={"acc_bits": acc_bits})
