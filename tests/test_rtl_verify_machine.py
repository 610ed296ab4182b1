"""The whole accelerator against the models; faults in a user's `napier_top` are found."""

from pathlib import Path

import numpy as np
import pytest

from golden.errors import InputError
from rtl_models.contracts import replace_module
from rtl_models.random_networks import random_hardware, random_network
from rtl_models.sources import VERILOG
from rtl_models.verify_machine import draw, verify_random_machines, verify_top_contract
from simulator.hardware import changed_hardware, load_hardware

pytestmark = pytest.mark.rtl


def small_machine():
    """2 x 2 multipliers whose bus beats hold 4 words, more than the banks take at once."""
    tables = {"post": {"lanes": 1}, "dram": {"bytes_per_cycle": 8, "latency_cycles": 5}}
    return changed_hardware(load_hardware("mac4x4"), array={"rows": 2, "cols": 2}, **tables)


def with_fault(folder: Path, module: str, before: str, after: str) -> tuple[Path, ...]:
    """A user's top: ours, with one line of one module changed."""
    text = (VERILOG / f"{module}.v").read_text()
    assert text.count(before) == 1, before
    broken = folder / f"{module}.v"
    broken.write_text(text.replace(before, after))
    top = (folder if module == "napier_top" else VERILOG) / "napier_top.v"
    return tuple({broken, top})


@pytest.mark.parametrize("stall_percent", [0, 30])
def test_random_networks_on_random_machines_are_equal(tmp_path, stall_percent):
    reports = verify_random_machines(
        4, None, 100 + stall_percent, workdir=tmp_path, stall_percent=stall_percent
    )
    assert [str(report.difference) for report in reports if not report.passed] == []
    assert len(reports) == 4
    assert all(report.outputs > 0 and report.cycles > 0 for report in reports)


def test_the_same_seed_draws_the_same_network_and_machine():
    first, second = draw(7, None), draw(7, None)
    assert first[0] == second[0]
    assert [layer.name for layer in first[1].layers] == [layer.name for layer in second[1].layers]
    assert all(np.array_equal(a, b) for a, b in zip(first[2], second[2], strict=True))


def test_random_networks_have_every_kind_of_layer():
    kinds = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        network, _ = random_network(rng, random_hardware(rng))
        kinds |= {layer.op for layer in network.layers}
    assert kinds >= {
        *("conv", "depthwise", "dense", "add", "mul", "max_pool", "average_pool", "mean"),
        *("concat", "pad", "clamp", "reshape"),
    }


# A fault of one line in each part, and what the report must name.
FAULTS = {
    "beat lost under back-pressure": (
        "dma",
        "assign m_axi_rready = !beat_valid_q || beat_done;",
        "assign m_axi_rready = 1'b1;",
    ),
    "cycles counted from the second": (
        "layer_counters",
        "else cycles_q <= cycles_q + 64'(counting);",
        "else cycles_q <= cycles_q + 64'(counting && cycles_q != '0);",
    ),
    "interrupt never raised": (
        "axi_lite_registers",
        "assign irq            = (enable_q & interrupt_q) != '0;",
        "assign irq            = (enable_q & interrupt_q) == 2'b11;",
    ),
    "bursts across 4 KB": (
        "burst_generator",
        "localparam integer PAGE_BEATS = 4096 >> BEAT_BITS;",
        "localparam integer PAGE_BEATS = 2048 >> BEAT_BITS;",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_top_is_found(tmp_path, fault):
    hardware = small_machine()
    files = with_fault(tmp_path, *FAULTS[fault])
    merged = replace_module("top", files, hardware)
    reports = verify_random_machines(12, hardware, 1, workdir=tmp_path / "work", sources=merged)
    assert not reports[-1].passed, fault
    assert str(reports[-1].difference)


def test_our_own_top_keeps_the_contract(tmp_path):
    (tmp_path / "mine.v").write_text((VERILOG / "napier_top.v").read_text())
    reports = verify_top_contract(
        [tmp_path / "mine.v"], small_machine(), 1, 3, workdir=tmp_path / "work"
    )
    assert all(report.passed for report in reports)
    assert len(reports) % 2 == 0  # a memory that keeps its times and one that pauses


def test_a_top_without_a_port_is_refused_in_one_sentence(tmp_path):
    files = with_fault(tmp_path, "napier_top", "    output wire        irq,\n", "")
    text = files[0].read_text().replace(".irq                 (irq),", ".irq                 (),")
    files[0].write_text(text)
    with pytest.raises(InputError, match="napier_top has no port irq; add it: output, 1 bit"):
        replace_module("top", files, small_machine())
