"""Every quantizer's network through golden, cycle model and Verilog: codes, counters, cycles.

python benchmarks/quantizers_in_verilog.py MODEL SAMPLES.npy [METHOD ...] [--work DIR]

Quantizes MODEL (a float .onnx or .tflite, an integer network, or "digits", which ships with Napier)
by each method as `napier quantize` does, calibrated on SAMPLES.npy, and runs the first sample
through the accelerator as `napier verify` does: one row of a Markdown table each. Without METHOD it
takes every method of the registry and the variants below. The Verilog's memories are as large as
any network here needs, so that Verilator compiles each array once; DIR keeps the compilations.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import click

from golden.files import load_network, save_network
from golden.float_network import FloatWeighted
from golden.quantization.registry import methods
from napier.loading import Samples
from napier.quantizing import (
    Request,
    Source,
    input_codes,
    load_reals,
    load_source,
    quantize_document,
)
from rtl_models.top import TopSimulation, TopVerification, verify_network
from simulator.hardware import Hardware, changed_hardware, load_hardware

TERNARY_BITS = 2

DEPTHS = {"MEMORY_BYTES": 1 << 20, "FEED_BEATS": 4096, "STREAM_BEATS": 4096, "PARAM_WORDS": 4096}
"""Of external memory and of the weight memories; the buffer of the 4x4 presets has 4096 beats."""


def requests(source: Source) -> dict[str, tuple[Request, str]]:
    """What is asked for and the array, by the name in the table; "" is chosen by the codes."""
    layers = source.network.layers
    weighted = [layer.name for layer in layers if isinstance(layer, FloatWeighted)]
    ends = tuple(f"{name}=nhot:n=3" for name in (weighted[0], weighted[-1]))
    inner = f"{weighted[1]}=nhot:n=1"
    variants = {
        "uniform": (Request("uniform", 8), "mac4x4"),
        "uniform, 7 bits": (Request("uniform", 7), "mac4x4"),
        "uniform, 4 bits": (Request("uniform", 4), "mac4x4"),
        "easyquant": (Request("easyquant", 8), "mac4x4"),
        "easyquant, 7 bits, 16-bit sums": (Request("easyquant", 7, partial_sum_bits=16), "mac4x4"),
        "nhot:n=1": (Request("nhot:n=1", 8), ""),
        "nhot": (Request("nhot", 8), "nhot2_parallel_4x4"),
        "nhot, one term a cycle": (Request("nhot", 8), "nhot2_4x4"),
        "nhot:n=3": (Request("nhot:n=3", 8), ""),
        "nhot, n = 3, 1, 2, .., 3": (Request("nhot", 8, layers=(*ends, inner)), ""),
        "nhot:reading=scale": (Request("nhot:reading=scale", 8), "nhot2_parallel_4x4"),
    }
    return variants | {name: (Request(name, 8), "") for name in methods() if name not in variants}


def spilling(hardware: Hardware, acc_bits: int, interval: int) -> Hardware:
    """An accumulator of so many bits, added to the wide one after so many products."""
    name = f"{hardware.name}, {acc_bits} bits spilled every {interval}"
    array = {"acc_bits": acc_bits, "spill_interval": interval}
    return changed_hardware(hardware, name, array=array)


def verified(
    source: Source, samples: Samples, request: Request, preset: str, work: Path
) -> tuple[Hardware, TopVerification]:
    """Quantize, write the network, and run one sample of what was written."""
    quantized, document = quantize_document(source, request, samples)
    if not preset:
        ternary = all(codes.bits == TERNARY_BITS for codes in quantized.weights.values())
        preset = "ternary4x4" if ternary else "nhot2_4x4"
    hardware = load_hardware(preset)
    if request.partial_sum_bits is not None:
        interval = document["partial_sums"]["interval"] or 0  # None: nothing need spill
        hardware = spilling(hardware, request.partial_sum_bits, interval)
    save_network(quantized.network, work / "network.npz")
    network = load_network(work / "network.npz")
    sample = [codes[:1] for codes in input_codes(quantized, samples)]
    simulation = TopSimulation(work / "builds", "verilator", overrides=DEPTHS)
    return hardware, verify_network(network, hardware, sample, simulation, work / "run")


def main() -> None:
    """Print a row for each method; fail where one differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("samples")
    parser.add_argument("methods", nargs="*", metavar="METHOD")
    parser.add_argument("--work", default=None, help="where compilations stay")
    arguments = parser.parse_args()
    source = load_source(None if arguments.model == "digits" else arguments.model)
    samples = load_reals(source, (arguments.samples,))
    work = Path(arguments.work or tempfile.mkdtemp())
    work.mkdir(parents=True, exist_ok=True)
    chosen = requests(source)
    unknown = [name for name in arguments.methods if name not in chosen]
    if unknown:
        parser.error(f"{unknown[0]!r} is not one of {', '.join(map(repr, chosen))}")
    differ = False
    for name in arguments.methods or chosen:
        hardware, result = verified(source, samples, *chosen[name], work)
        differ |= result.difference is not None
        cycles = sum(program.cycles for program in result.run.programs)
        click.echo(
            f"| `{name}` | {source.network.name} | {hardware.name} | {result.codes:,}"
            f" | {cycles:,} | {result.difference or 'yes'} |"
        )
    sys.exit(differ)


if __name__ == "__main__":
    main()
