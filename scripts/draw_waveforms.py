"""Draw the timing diagrams of the docs from a run of the accelerator in Icarus Verilog.

`python scripts/draw_waveforms.py` writes docs/images/timing_*.svg: one small convolution on the
preset mac4x4, from the host's start to the interrupt.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np

from golden.network import Conv2D, Network, Padding, Requantization, Tensor
from rtl_models.top import TopSimulation, run_program
from rtl_models.waveform import Row, Waves, draw, read_vcd
from simulator.hardware import load_hardware

IMAGES = Path(__file__).parent.parent / "docs" / "images"

TOP = "top_harness.u_system.u_top."
OPERATIONS = {0: "D", 1: "W", 2: "A", 3: "A2", 4: "S", 5: "-", 7: "-"}


def small_network() -> Network:
    """One 3 x 3 convolution, 2 to 4 channels, on an image of 4 x 4 pixels."""
    rng = np.random.default_rng(1)
    layer = Conv2D(
        name="conv",
        inputs=(0,),
        outputs=(1,),
        weights=rng.integers(-8, 9, (4, 3, 3, 2)).astype(np.int8),
        weight_bits=8,
        weight_zero_point=0,
        bias=None,
        input_zero_point=0,
        output_zero_point=0,
        requantization=Requantization(np.array([1 << 30], np.int32), np.array([-5], np.int32)),
        activation_min=-128,
        activation_max=127,
        padding=Padding(1, 1, 1, 1),
    )
    tensors = (Tensor("x", (1, 4, 4, 2), "int8", 1.0), Tensor("y", (1, 4, 4, 4), "int8", 1.0))
    return Network("small", tensors, (layer,), (0,), (1,))


BUS_ROWS = (
    Row("sequencer"),
    Row("op_start", TOP + "op_start"),
    Row("op_kind", TOP + "op_kind", names=OPERATIONS),
    Row("op_done", TOP + "op_done"),
    Row("engine start", TOP + "engine_start"),
)
LOAD_ROWS = (
    *BUS_ROWS,
    Row("AXI4 read"),
    Row("arvalid", TOP + "m_axi_arvalid"),
    Row("araddr", TOP + "m_axi_araddr", hexadecimal=True),
    Row("arlen", TOP + "m_axi_arlen"),
    Row("rvalid", TOP + "m_axi_rvalid"),
    Row("rready", TOP + "m_axi_rready"),
    Row("rlast", TOP + "m_axi_rlast"),
    Row("memories"),
    Row("feed", TOP + "feed_write"),
    Row("streams", TOP + "stream_write", hexadecimal=True),
    Row("parameters", TOP + "param_write"),
    Row("activations", TOP + "act_write", hexadecimal=True),
)
ENGINE = TOP + "u_engine."
RUN_ROWS = (
    Row("start", ENGINE + "start"),
    Row("feed_read", ENGINE + "feed_read"),
    Row("act_read", ENGINE + "act_read"),
    Row("feed_valid", ENGINE + "feed_valid"),
    Row("feed_ready", ENGINE + "feed_ready"),
    Row("issue", ENGINE + "issue_any"),
    Row("fire", ENGINE + "fire"),
    Row("param_read", ENGINE + "param_read"),
    Row("out_write", ENGINE + "out_write", hexadecimal=True),
    Row("out_addr", ENGINE + "out_addr"),
    Row("done", ENGINE + "done"),
)
STORE_ROWS = (
    Row("engine done", TOP + "engine_done"),
    *BUS_ROWS[1:4],
    Row("output banks"),
    Row("out_read", TOP + "out_read"),
    Row("AXI4 write"),
    Row("awvalid", TOP + "m_axi_awvalid"),
    Row("awaddr", TOP + "m_axi_awaddr", hexadecimal=True),
    Row("wvalid", TOP + "m_axi_wvalid"),
    Row("wready", TOP + "m_axi_wready"),
    Row("wlast", TOP + "m_axi_wlast"),
    Row("bvalid", TOP + "m_axi_bvalid"),
    Row("host"),
    Row("irq", TOP + "irq"),
)


def record(folder: Path) -> Waves:
    """Run the small network with a memory of 3 cycles of latency; waves of all rows."""
    preset = load_hardware("mac4x4")
    dram = preset.dram.model_copy(update={"latency_cycles": 3, "bytes_per_cycle": 8})
    hardware = preset.model_copy(update={"dram": dram})
    simulation = TopSimulation(builds=folder / "builds", waves=True, plain_waves=True)
    image = np.arange(32, dtype=np.int8).reshape(1, 4, 4, 2)
    run_program(small_network(), hardware, [image], simulation, folder)
    signals = {row.signal for rows in (LOAD_ROWS, RUN_ROWS, STORE_ROWS) for row in rows}
    return read_vcd(folder / "program_0" / "waves.fst", TOP + "clk", sorted(signals - {""}))


def main() -> None:
    """Write the three diagrams."""
    mpl.rcParams["svg.hashsalt"] = "napier"  # the same file every time
    with tempfile.TemporaryDirectory() as folder:
        waves = record(Path(folder))
    begin = waves.values[TOP + "op_start"].index(1)  # cycle 1: the descriptor's operation begins
    start = waves.values[TOP + "engine_start"].index(1)
    done = waves.values[TOP + "engine_done"].index(1)
    end = waves.values[TOP + "irq"].index(1)
    for name, rows, first, last, origin in (
        ("load", LOAD_ROWS, begin - 1, start + 1, begin - 1),
        ("run", RUN_ROWS, start, min(start + 45, done + 1), start),
        ("store", STORE_ROWS, done - 1, end + 1, begin - 1),
    ):
        figure = draw(waves, rows, first, last, origin)
        figure.savefig(IMAGES / f"timing_{name}.svg", metadata={"Date": None})
        print(f"docs/images/timing_{name}.svg: cycles {first - origin} to {last - origin}")


if __name__ == "__main__":
    main()
