"""Compare the Verilog engine with the golden model and the cycle model, layer by layer.

A layer is cut into the passes of the cycle model (rules T2, T3) and run in Icarus. Outputs and
overflow counters must equal `golden`, cycles and their causes the fast model. Where anything
differs, the layer runs again with a trace, and the first signal that parts from the stepped model
is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.accumulate import accumulate_layer
from golden.errors import HardwareError, InputError
from golden.formats import IntFormat
from golden.network import (
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Padding,
    Requantization,
    Rounding,
    Tensor,
    WeightedLayer,
)
from golden.operators import post_process
from rtl_models.builds import Simulator
from rtl_models.contracts import PERun, narrow_variants, replace_module, run_pe
from rtl_models.engine import EngineRuns, run_engine
from rtl_models.reference import counted, golden_accumulator, golden_steps
from rtl_models.trace import first_difference
from simulator.hardware import Hardware, changed_hardware
from simulator.plan import StepPlan
from simulator.program import Geometry, LayerProgram, compile_layer, layer_geometry
from simulator.stepped import ENGINE_CAUSES, Engine
from simulator.timing import plan_layer, run_timings

Array = NDArray[Any]

ALONE = "alone"
"""Kind of a report on a module that ran without the engine."""

SPARE_CYCLES = 1000
"""A run this much longer than expected is cut off."""


@dataclass(frozen=True)
class Difference:
    """Where the Verilog first differs.

    Parameters
    ----------
    sample : int or None
        Image of the batch; None where a module ran alone.
    run, cycle : int or None
        Engine run of the image from 0 and cycle of the run from 1; None where the Verilog agrees
        with the stepped model in every cycle and differs from `golden` or the fast model. Of a
        module that ran alone, the cycle since reset from 0.
    signal : str
    expected, found : str
    waves : Path or None
        Waveform (FST) of the layer.
    operands : str
        What led there, where known.
    """

    sample: int | None
    run: int | None
    cycle: int | None
    signal: str
    expected: str
    found: str
    waves: Path | None
    operands: str = ""

    def __str__(self) -> str:
        named = {"sample": self.sample, "run": self.run, "cycle": self.cycle}
        place = ", ".join(f"{name} {value}" for name, value in named.items() if value is not None)
        operands = f", {self.operands}" if self.operands else ""
        waves = "" if self.waves is None else f"; waves: {self.waves}"
        return f"{place}: {self.signal} is {self.found}, expected {self.expected}{operands}{waves}"


@dataclass(frozen=True)
class VerifyReport:
    """What the comparison of one layer gave.

    Parameters
    ----------
    name, op : str
        Of the layer.
    input_shape : tuple of int
    runs : int
        Engine runs (passes), all samples.
    outputs : int
        Codes compared.
    cycles : int
        Of the engine, all runs, counted by the Verilog.
    cycles_by_cause : dict of str to int
        `fill`, `compute`, `drain`, `stall_feed`.
    overflow_events, overflow_outputs : int
        Counted by the Verilog.
    seconds : float
        Of the simulation.
    seed : int
    difference : Difference or None
    """

    name: str
    op: str
    input_shape: tuple[int, ...]
    runs: int
    outputs: int
    cycles: int
    cycles_by_cause: dict[str, int]
    overflow_events: int
    overflow_outputs: int
    seconds: float
    seed: int
    difference: Difference | None

    @property
    def passed(self) -> bool:
        """Whether everything was equal."""
        return self.difference is None


@dataclass(frozen=True)
class _Expected:
    """What the Verilog must do with one image."""

    codes: NDArray[np.int64]  # (out_height, out_width, out_channels)
    counters: dict[str, int]


@dataclass(frozen=True)
class _Job:
    """A layer laid out for the engine."""

    layer: WeightedLayer
    hardware: Hardware  # memories large enough for the whole layer
    plan: StepPlan
    runs: list[LayerProgram]
    input_signed: bool

    @property
    def geometry(self) -> Geometry:
        return self.runs[0].geometry


def verify_layer(
    layer: WeightedLayer,
    hardware: Hardware,
    x: Array,
    *,
    workdir: Path,
    seed: int = 0,
    simulator: Simulator = "icarus",
    sources: Sequence[Path] | None = None,
    overrides: Mapping[str, int] | None = None,
    lockstep: bool = False,
    own_registers: bool = True,
) -> VerifyReport:
    """Run one layer through the Verilog and compare every bit and every cycle.

    Parameters
    ----------
    layer : WeightedLayer
    hardware : Hardware
    x : integer array
        Input codes, batch first; an unsigned type for unsigned codes.
    workdir : Path
        Memory files, builds, trace and waves.
    seed : int
        Where layer and input come from, for the report.
    simulator : "icarus" or "verilator"
        See `run_engine`; differences are always looked for in Icarus.
    sources : sequence of Path, optional
        Verilog files of the engine instead of the package's.
    overrides : mapping, optional
        Verilog parameters to change.
    lockstep : bool
        Compare every register with the stepped model in every cycle, also where all results agree.
    own_registers : bool
        Whether `sources` have the registers that the trace names; otherwise only outputs, counters
        and cycles are compared.

    Raises
    ------
    HardwareError, InputError
        The hardware does not take the layer, or the layer not the input.
    ToolError
        The simulator is missing or cannot compile the sources.
    """
    job = _prepare(layer, hardware, x)
    options: dict[str, Any] = {
        "input_signed": job.input_signed,
        "builds": workdir / "builds",
        "sources": sources,
        "overrides": overrides,
    }
    results: list[EngineRuns] = []
    difference: Difference | None = None
    for sample, image in enumerate(x):
        expected = _expected(job, image)
        options["limit_cycles"] = expected.counters["cycles"] + SPARE_CYCLES
        options["folder"] = workdir / f"{_file_name(layer.name)}_{sample}"
        results.append(run_engine(job.runs, image, simulator=simulator, trace=lockstep, **options))
        difference = _compare(job, expected, results[-1])
        if difference is None and lockstep:
            difference = _part(job, image, results[-1])
        if difference is not None:
            again = run_engine(job.runs, image, trace=own_registers, waves=True, **options)
            if own_registers:
                difference = _part(job, image, again) or difference
            difference = replace(difference, sample=sample, waves=again.folder / "waves.fst")
            break
    totals = [result.total for result in results]
    summed = {name: sum(total[name] for total in totals) for name in totals[0]}
    return VerifyReport(
        name=layer.name,
        op=layer.op,
        input_shape=x.shape,
        runs=sum(len(result.counters) for result in results),
        outputs=len(results) * prod(_output_shape(job.geometry)),
        cycles=summed["cycles"],
        cycles_by_cause={cause: summed[cause] for cause in ENGINE_CAUSES},
        overflow_events=summed["overflow_events"],
        overflow_outputs=summed["overflow_outputs"],
        seconds=sum(result.seconds for result in results),
        seed=seed,
        difference=difference,
    )


def _output_shape(geometry: Geometry) -> tuple[int, int, int]:
    return (geometry.out_height, geometry.out_width, geometry.out_channels)


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)[:80] or "layer"


def _prepare(layer: WeightedLayer, hardware: Hardware, x: Array) -> _Job:
    """Compile the passes of the real hardware for memories that hold the whole layer."""
    _check_codes(layer, hardware, x)
    plan = plan_layer(layer, (1, *x.shape[1:]), hardware)
    roomy = _with_room(hardware, layer_geometry(layer, x.shape, hardware))
    program = compile_layer(layer, x.shape, roomy)
    runs = [
        program.part(
            range(*each.pixel_tiles),
            range(*each.channel_tiles),
            None if each.words is None else range(*each.words),
            each.drain,
        )
        for each in plan.passes
    ]
    return _Job(layer, roomy, plan, runs, bool(np.issubdtype(x.dtype, np.signedinteger)))


def _check_codes(layer: WeightedLayer, hardware: Hardware, x: Array) -> None:
    if x.ndim < 2 or not x.size or not np.issubdtype(x.dtype, np.integer):
        raise InputError(
            f'layer "{layer.name}" takes integer codes of one or more images, batch first, but got'
            f" {x.dtype} of shape {x.shape}; quantize the input and add a batch axis"
        )
    bits = hardware.array.activation_bits
    fmt = IntFormat(bits, signed=bool(np.issubdtype(x.dtype, np.signedinteger)))
    if x.min() < fmt.min or x.max() > fmt.max:
        raise HardwareError(
            f'layer "{layer.name}" has input codes from {x.min()} to {x.max()}, but'
            f" array.activation_bits={bits}; use hardware with array.activation_bits = 16"
        )


def _with_room(hardware: Hardware, geometry: Geometry) -> Hardware:
    """Hardware whose activation banks hold the whole image; the array is the same."""
    if geometry.bank_words <= hardware.bank_words:
        return hardware
    word_bytes = geometry.rows * geometry.feed * hardware.activation_code_bytes
    activation_bytes = geometry.bank_words * word_bytes
    return changed_hardware(hardware, buffers={"activation_bytes": activation_bytes})


def _expected(job: _Job, image: Array) -> _Expected:
    """Codes and overflows of `golden`, cycles of the fast model."""
    accumulator, steps = golden_accumulator(job.hardware), golden_steps(job.hardware)
    sums = accumulate_layer(job.layer, image[np.newaxis], accumulator, steps)
    # An int64 tensor stores the codes as they are, signed or not.
    output = Tensor("codes", (1,), "int64", zero_point=job.layer.output_zero_point)
    codes = post_process(job.layer, sums.value, output).astype(np.int64)
    overflows = counted(sums.events, job.hardware)
    runs = run_timings(job.plan, job.hardware)
    counters = {cause: sum(run.cycles_by_cause[cause] for run in runs) for cause in ENGINE_CAUSES}
    return _Expected(
        codes=codes.reshape(_output_shape(job.geometry)),
        counters={
            **counters,
            "cycles": sum(counters.values()),
            "overflow_events": overflows.events,
            "overflow_outputs": overflows.outputs,
        },
    )


def _compare(job: _Job, expected: _Expected, result: EngineRuns) -> Difference | None:
    """First difference among counters and output memory."""
    if len(result.counters) < len(job.runs):
        return _difference("done", "1 in every run", f"0 in run {len(result.counters)}")
    for name, count in expected.counters.items():
        if result.total[name] != count:
            return _difference(name, str(count), str(result.total[name]))
    codes, written = _output_memory(job, expected)
    mask = (1 << job.hardware.array.activation_bits) - 1
    words = codes.shape[1]
    wrong = written != result.written[:, :words]
    wrong |= written & ((codes & mask) != result.codes[:, :words])
    if not wrong.any() and not result.written[:, words:].any():
        return None
    if not wrong.any():
        bank, word, lane = np.argwhere(result.written[:, words:])[0] + (0, words, 0)
        return _difference(f"output bank {bank} word {word} lane {lane}", "nothing", "a code")
    bank, word, lane = np.argwhere(wrong)[0]
    return _difference(
        f"output bank {bank} word {word} lane {lane}",
        _shown(codes[bank, word, lane] & mask, written[bank, word, lane]),
        _shown(result.codes[bank, word, lane], result.written[bank, word, lane]),
    )


def _shown(code: np.int64, written: np.bool_) -> str:
    if not written:
        return "nothing"
    return f"0x{code:x}" if code >= 0 else "x"


def _difference(signal: str, expected: str, found: str) -> Difference:
    return Difference(0, None, None, signal, expected, found, None)


def _output_memory(job: _Job, expected: _Expected) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Lay the expected codes out in the output banks (rule M6), and mark what is written."""
    geometry = job.geometry
    shape = (geometry.rows, geometry.pixel_tiles, geometry.out_words * geometry.feed)
    codes, written = np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
    for oy, ox in np.ndindex(geometry.out_height, geometry.out_width):
        tile, row = divmod(oy * geometry.pitch + ox, geometry.rows)
        codes[row, tile, : geometry.out_channels] = expected.codes[oy, ox]
        written[row, tile, : geometry.out_channels] = True
    banks = (geometry.rows, geometry.out_bank_words, geometry.feed)
    return codes.reshape(banks), written.reshape(banks)


def _part(job: _Job, image: Array, result: EngineRuns) -> Difference | None:
    """Find the first cycle in which the Verilog leaves the stepped model."""
    engine = Engine(job.hardware, job.geometry, image, job.layer.input_zero_point)
    first = first_difference(engine, job.runs, result)
    if first is None:
        return None
    return Difference(0, first.run, first.cycle, first.signal, first.expected, first.found, None)


# -- Verilog of the user --------------------------------------------------------------------------


def verify_contract(
    contract: str,
    files: Sequence[Path],
    hardware: Hardware,
    count: int,
    seed: int,
    progress: Callable[[VerifyReport], None] | None = None,
    *,
    workdir: Path,
    simulator: Simulator = "icarus",
) -> list[VerifyReport]:
    """Hold a user's module to the rules that ours keeps, stopping at the first difference.

    A PE runs alone first, against the stepped model. Then the engine with the module in it runs
    random layers, with the accumulators of `narrow_variants`.

    Parameters
    ----------
    contract : str
        A key of `rtl_models.contracts.CONTRACTS`.
    files : sequence of Path
        The user's Verilog.
    hardware : Hardware
    count : int
        Random layers for each accumulator.
    seed : int
        Of the first random layer.
    progress : function of a report, optional
        Called after every run.
    workdir, simulator
        As in `verify_layer`.

    Raises
    ------
    InputError
        The module does not have the parameters and ports of the contract.
    ToolError
        A tool is missing or cannot read the files.
    """
    variants = narrow_variants(hardware)
    merged = {each.name: replace_module(contract, files, each) for each in variants}
    reports: list[VerifyReport] = []

    def report(each: VerifyReport) -> None:
        reports.append(each)
        if progress is not None:
            progress(each)

    if contract == "pe":
        for each in reversed(variants):  # every product first: it gives the plainest message
            run = run_pe(
                each,
                merged[each.name],
                workdir / f"pe_{_file_name(each.name)}",
                exhaustive=each is variants[-1],
                seed=seed,
            )
            report(_pe_report(each, run, seed))
            if run.difference is not None:
                return reports
    for number, each in enumerate(variants):
        done = verify_random(
            count,
            each,
            seed + number * count,
            lambda layer, name=each.name: report(replace(layer, name=f"{name}: {layer.name}")),  # type: ignore[misc]
            workdir=workdir,
            simulator=simulator,
            draw=revealing_layer,
            sources=merged[each.name],
            own_registers=False,
        )
        if not done[-1].passed:
            break
    return reports


def _pe_report(hardware: Hardware, run: PERun, seed: int) -> VerifyReport:
    first = run.difference
    return VerifyReport(
        name=f"{hardware.name}: PE",
        op=ALONE,
        input_shape=(1,),
        runs=1,
        outputs=run.results,
        cycles=run.cycles,
        cycles_by_cause={},
        overflow_events=run.overflow_events,
        overflow_outputs=0,
        seconds=run.seconds,
        seed=seed,
        difference=None
        if first is None
        else Difference(
            *(None, None, first.cycle, first.signal, first.expected, first.found),
            waves=first.waves,
            operands=first.operands,
        ),
    )


# -- random layers --------------------------------------------------------------------------------


def verify_random(
    count: int,
    hardware: Hardware,
    seed: int,
    progress: Callable[[VerifyReport], None] | None = None,
    *,
    workdir: Path,
    draw: Callable[[np.random.Generator, Hardware], tuple[WeightedLayer, Array]] | None = None,
    **options: Any,
) -> list[VerifyReport]:
    """Verify random small layers, stopping at the first that differs.

    Parameters
    ----------
    count : int
    hardware : Hardware
    seed : int
        The i-th layer is `draw` of seed + i.
    progress : function of a report, optional
        Called after every layer.
    draw : function of a generator and hardware, optional
        Draws a layer and its input; by default `random_layer`.
    workdir, **options
        As in `verify_layer`.
    """
    reports = []
    for number in range(seed, seed + count):
        layer, x = (draw or random_layer)(np.random.default_rng(number), hardware)
        reports.append(verify_layer(layer, hardware, x, seed=number, workdir=workdir, **options))
        if progress is not None:
            progress(reports[-1])
        if not reports[-1].passed:
            break
    return reports


def random_layer(rng: np.random.Generator, hardware: Hardware) -> tuple[WeightedLayer, Array]:
    """Draw a small layer that the hardware takes, and one image.

    Kinds, strides, dilations, paddings, groups, leftover sizes, unsigned codes, zero points, empty
    channels and every rounding rule occur.

    Parameters
    ----------
    rng : numpy.random.Generator
    hardware : Hardware

    Returns
    -------
    layer : WeightedLayer
    x : (1, height, width, channels) or (1, features) integer array
    """
    kind = str(rng.choice(["conv", "conv", "grouped", "depthwise", "dense"]))
    x_type = np.dtype(
        np.int16 if hardware.array.activation_bits == 16 else rng.choice(["i1", "u1"])
    )
    if kind == "dense":
        features, out_channels = (int(n) for n in rng.choice([1, 3, 5, 17, 40], 2))
        x = random_codes(rng, (1, features), x_type)
        weights = random_weights(rng, (out_channels, features), hardware)
        return FullyConnected(**_common(rng, "dense", weights, x_type, hardware)), x
    groups = 1 if kind == "conv" else int(rng.choice([2, 3]))
    per_group = 1 if kind == "depthwise" else int(rng.choice([1, 2, 3, 5, 8]))
    channels = groups * per_group
    out_channels = groups * int(rng.choice([1, 2, 3, 5]))
    kernel = rng.integers(1, 4, 2)
    stride = (int(rng.choice([1, 1, 2, 3])), int(rng.choice([1, 1, 2, 3])))
    dilation = (int(rng.choice([1, 1, 2])), int(rng.choice([1, 1, 2])))
    pads = [int(n) for n in rng.integers(0, 3, 4)]
    reach = [(int(k) - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    height, width = (max(1, r - 1) + int(rng.integers(0, 8)) for r in reach)
    padding = Padding(
        top=pads[0],
        bottom=max(pads[1], reach[0] - height - pads[0]),
        left=pads[2],
        right=max(pads[3], reach[1] - width - pads[2]),
    )
    x = random_codes(rng, (1, height, width, channels), x_type)
    weights = random_weights(rng, (out_channels, *map(int, kernel), per_group), hardware)
    layer_type = DepthwiseConv2D if kind == "depthwise" else Conv2D
    layer = layer_type(
        **_common(rng, kind, weights, x_type, hardware),
        stride=stride,
        dilation=dilation,
        padding=padding,
        groups=groups,
    )
    return layer, x


def revealing_layer(rng: np.random.Generator, hardware: Hardware) -> tuple[WeightedLayer, Array]:
    """Draw `random_layer`, half of the time with codes that show the last bits of sums at a bound.

    Ordinary requantization scales a bit more or less away. Here biases bring sums near the bounds
    of the accumulator to around zero, and shifts are so small that every bit and tie is seen.

    Parameters
    ----------
    rng : numpy.random.Generator
    hardware : Hardware

    Returns
    -------
    As `random_layer`.
    """
    layer, x = random_layer(rng, hardware)
    if rng.random() < 0.5:
        return layer, x
    info = np.iinfo(x.dtype)
    channels = layer.weights.shape[0]
    bound = 1 << (hardware.result_bits - 1)
    bias = rng.choice([-bound, 0, bound], channels) + rng.integers(-64, 65, channels)
    limit = (1 << (hardware.post_bits - 1)) - 1
    scales = layer.requantization
    shift = rng.integers(-3, 1, scales.shift.shape).astype(np.int32)
    revealing = replace(
        layer,
        bias=np.clip(bias, -limit, limit),
        output_zero_point=0 if x.dtype == np.int16 else (int(info.min) + int(info.max) + 1) // 2,
        requantization=replace(scales, shift=shift),
        activation_min=int(info.min),
        activation_max=int(info.max),
    )
    return revealing, x


def random_codes(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Uniform codes, a third of them at the ends of the range."""
    info = np.iinfo(dtype)
    codes = rng.integers(info.min, info.max, shape, endpoint=True)
    ends = rng.choice([info.min, info.max], shape)
    extreme = rng.random(shape) < 1 / 3
    return np.where(extreme, ends, codes).astype(dtype)


def random_weights(
    rng: np.random.Generator, shape: tuple[int, ...], hardware: Hardware
) -> NDArray[np.int8]:
    """Weights that the PE holds, a random share of them zero, some channels all zero."""
    bits, pe = hardware.array.weight_bits, hardware.pe
    if pe.kind == "ternary":
        weights = rng.integers(-1, 2, shape)
    elif pe.kind == "shift_add" and not hardware.serial:
        exponents = rng.integers(0, bits - 1, (pe.terms, *shape))
        signs = rng.integers(-1, 2, (pe.terms, *shape))
        limit = (1 << (bits - 1)) - 1
        weights = (signs << exponents).sum(axis=0)
        weights = np.where(np.abs(weights) <= limit, weights, 1)
    else:
        weights = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), shape)
    weights[rng.random(shape) < rng.choice([0.0, 0.3, 0.9])] = 0
    weights[rng.random(shape[0]) < 0.1] = 0
    return weights.astype(np.int8)


def _common(
    rng: np.random.Generator,
    name: str,
    weights: NDArray[np.int8],
    x_type: np.dtype[Any],
    hardware: Hardware,
) -> dict[str, Any]:
    """Fields that convolution and dense layers share."""
    info = np.iinfo(x_type)
    channels = weights.shape[0]
    roundings: list[Rounding] = ["double", "single", "shift_half_up", "shift_half_even"]
    if x_type == np.int16:
        roundings = ["multiplier16"]
    rounding = roundings[int(rng.integers(len(roundings)))]
    by_shift = rounding.startswith("shift")
    scales = int(rng.choice([1, channels]))
    low, high = np.sort(rng.integers(info.min, info.max, 2, endpoint=True))
    zero_points = rng.integers(info.min, info.max, 2, endpoint=True)
    if x_type == np.int16:
        zero_points = np.zeros(2, np.int64)  # as TensorFlow Lite's 16-bit scheme has it
    return {
        "name": name,
        "inputs": (0,),
        "outputs": (1,),
        "weights": weights,
        "weight_bits": hardware.array.weight_bits,
        "weight_zero_point": 0,
        "bias": rng.integers(-20000, 20000, channels) if rng.random() < 0.8 else None,
        "input_zero_point": int(zero_points[0]),
        "output_zero_point": int(zero_points[1]),
        "requantization": Requantization(
            multiplier=rng.integers(1 << 30, (1 << 31) - 1, scales).astype(np.int32),
            shift=rng.integers(-12, 1 if by_shift else 3, scales).astype(np.int32),
            rounding=rounding,
        ),
        "activation_min": int(low) if rng.random() < 0.3 else int(info.min),
        "activation_max": int(high) if rng.random() < 0.3 else int(info.max),
    }
