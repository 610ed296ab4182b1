"""Run a whole network on the accelerator: values, overflows, cycles, events, energy.

result = simulate(network, load_hardware("mac16x16"), [images])
print(result.cycles, result.to_dict()["totals"])
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from math import prod
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from golden.errors import InputError
from golden.network import DTYPES, Conv2D, Network, Tensor, WeightedLayer
from simulator.energy import EnergyBreakdown, EnergyTable, layer_energy, load_table, sram_bytes
from simulator.hardware import Hardware
from simulator.network_values import Multiply, NetworkValues, plan_inference, weighted_layers
from simulator.plan import NetworkPlan, StepPlan
from simulator.projection import project_weights
from simulator.results import LayerTiming, LayerUnit, OverflowRecord, RunTiming
from simulator.stepped import run_step
from simulator.timing import layer_units, run_timings, time_plan
from simulator.transfers import step_schedule
from simulator.values import ArrayLayer, overflow_record
from simulator.winograd_values import WinogradLayer

Array = NDArray[Any]

Speed = Literal["fast", "stepped"]
"""``fast`` computes, ``stepped`` takes every cycle; all results are equal."""

Progress = Callable[[int, int, str], None]
"""Called as (layers done, layers, name of the next layer)."""

SCHEMA = "napier.run/1"

MOST_KNOWN = 8
"""Networks whose `Estimate` is kept for the next run."""

MOST_KNOWN_WEIGHTS = 1 << 25
"""Weights of those networks together; their steps take 8 bytes each and more."""


@dataclass(frozen=True)
class LayerResult:
    """One layer of one inference; `overflow` covers all samples.

    Parameters
    ----------
    index : int
    name, op : str
    unit : str
        "array", "vector", "host", or "free" where nothing is to be done.
    algorithm, reason : str
        "direct", or the Winograd form "f2" or "f4"; why it is direct where the array has the units.
    input_shape, output_shape : tuple of int
        Of one inference; the first input's.
    macs : int
        Products of a dense computation, zero weights included; 0 for layers without weights.
    weights : int
        Weights stored, zeros included.
    steps : int
    timing : LayerTiming
    utilization : float
        Products with non-zero weights (mac) or steps (other PEs) per PE and cycle.
    sram_bytes, dram_bytes : int
        Read and written.
    energy : EnergyBreakdown
    overflow : OverflowRecord or None
        None for layers without weights, and for a run without values.
    """

    index: int
    name: str
    op: str
    unit: LayerUnit
    algorithm: str
    reason: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    macs: int
    weights: int
    steps: int
    timing: LayerTiming
    utilization: float
    sram_bytes: int
    dram_bytes: int
    energy: EnergyBreakdown
    overflow: OverflowRecord | None

    def to_dict(self) -> dict[str, Any]:
        """One element of `layers` in the run document."""
        return {
            "index": self.index,
            "name": self.name,
            "op": self.op,
            "unit": self.unit,
            "algorithm": self.algorithm,
            "algorithm_reason": self.reason,
            "input_shape": list(self.input_shape),
            "output_shape": list(self.output_shape),
            "macs": self.macs,
            "weights": self.weights,
            "steps": self.steps,
            "cycles": self.timing.cycles,
            "cycles_by_cause": dict(self.timing.cycles_by_cause),
            "utilization": self.utilization,
            "sram_bytes": self.sram_bytes,
            "dram_bytes": self.dram_bytes,
            "energy_pj": {**asdict(self.energy), "total": self.energy.total},
            "events": asdict(self.timing.events),
            "accumulator": None if self.overflow is None else _accumulator_dict(self.overflow),
        }


@dataclass(frozen=True)
class RunResult:
    """A run: what each layer did, and what came out.

    Parameters
    ----------
    network : Network
        As it ran: with projected weights where they were asked for.
    hardware : Hardware
    energy_table : EnergyTable
    weights : str
        The projection.
    samples : int
        0 without values.
    layers : tuple of LayerResult
    outputs : tuple of array
        Of all samples, in the order of `Network.outputs`; empty without values.
    """

    network: Network
    hardware: Hardware
    energy_table: EnergyTable
    weights: str
    samples: int
    layers: tuple[LayerResult, ...]
    outputs: tuple[Array, ...]

    @property
    def cycles(self) -> int:
        """Cycles of one inference."""
        return sum(layer.timing.cycles for layer in self.layers)

    @property
    def seconds(self) -> float:
        """Time of one inference."""
        return self.cycles / self.hardware.clock_hz

    @property
    def macs(self) -> int:
        """Products of one inference."""
        return sum(layer.macs for layer in self.layers)

    @property
    def steps(self) -> int:
        """Steps of one inference."""
        return sum(layer.steps for layer in self.layers)

    @property
    def energy_pj(self) -> float:
        """Energy of one inference."""
        return sum(layer.energy.total for layer in self.layers)

    @property
    def dram_bytes(self) -> int:
        """Bytes from and to external memory of one inference."""
        return sum(layer.dram_bytes for layer in self.layers)

    @property
    def overflow_events(self) -> int | None:
        """Overflow events of all samples; None without values."""
        records = [layer.overflow for layer in self.layers if layer.overflow is not None]
        return sum(record.events for record in records) if self.samples else None

    def to_dict(self) -> dict[str, Any]:
        """Return the `napier.run/1` document: plain Python values, ready for JSON."""
        return {
            "schema": SCHEMA,
            "model": {
                "name": self.network.name,
                "source": self.network.source,
                "weights": self.weights,
                "samples": self.samples,
            },
            "hardware": self.hardware.model_dump(mode="json"),
            "energy_table": {"name": self.energy_table.name, "source": self.energy_table.source},
            "totals": {
                "cycles": self.cycles,
                "seconds": self.seconds,
                "macs": self.macs,
                "steps": self.steps,
                "energy_pj": self.energy_pj,
                "dram_bytes": self.dram_bytes,
                "overflow_events": self.overflow_events,
            },
            "layers": [layer.to_dict() for layer in self.layers],
        }


def simulate(
    network: Network,
    hardware: Hardware,
    inputs: Mapping[int, Array] | Sequence[Array] | None = None,
    *,
    values: bool = True,
    speed: Speed = "fast",
    weights: str = "as-is",
    progress: Progress | None = None,
) -> RunResult:
    """Run a network.

    Parameters
    ----------
    network : Network
    hardware : Hardware
    inputs : mapping of tensor index to array, or sequence in the order of `Network.inputs`
        N samples each, in the tensors' element types. Needed with `values`.
    values : bool
        Compute outputs and overflow records. Cycles do not depend on them.
    speed : "fast" or "stepped"
        ``stepped`` takes every cycle of the array layers and needs `values`.
    weights : str
        "as-is", "nhot:N" or "ternary": see `simulator.projection`.
    progress : callable or None

    Returns
    -------
    RunResult
        Cycles, events and energy of one inference; outputs and overflows of all samples.

    Raises
    ------
    InputError
        Arguments or samples that do not fit.
    HardwareError
        A layer that the hardware cannot hold, an unknown energy table.
    """
    _check_arguments(inputs, values, speed)
    table = load_table(hardware.energy.table)
    projected = project_weights(network, weights)
    tensors = _checked_inputs(projected, inputs) if inputs is not None and values else {}
    samples = len(next(iter(tensors.values()))) if tensors else 0
    if progress is not None:  # planning is as long as a layer
        progress(0, len(projected.layers), projected.layers[0].name)
    if speed == "fast":
        layers, weighted = estimate(projected, hardware, table)
        outputs, records = _run_layers(
            projected, tensors, lambda index, x, output: weighted[index].run(x, output), progress
        )
    else:
        stepped = _SteppedArray(plan_inference(projected, hardware))
        outputs, records = _run_layers(projected, tensors, stepped.multiply, progress)
        layers = _layer_results(stepped.plan, stepped.timings(), table)
    return RunResult(
        network=projected,
        hardware=hardware,
        energy_table=table,
        weights=weights,
        samples=samples,
        layers=tuple(_with_record(layer, records.get(layer.index)) for layer in layers),
        outputs=outputs,
    )


def _run_layers(
    network: Network,
    inputs: dict[int, Array],
    multiply: Multiply[OverflowRecord],
    progress: Progress | None,
) -> tuple[tuple[Array, ...], dict[int, OverflowRecord | None]]:
    """Compute outputs and the records of the layers; nothing without inputs."""
    work = NetworkValues(network, inputs, multiply) if inputs else None
    records = {}
    for index, layer in enumerate(network.layers):
        if progress is not None and index:
            progress(index, len(network.layers), layer.name)
        if work is not None:
            records[index] = work.run(index)
    if progress is not None:
        progress(len(network.layers), len(network.layers), "done")
    return () if work is None else work.outputs, records


# -- before any input is there --------------------------------------------------------------------


class Estimate(NamedTuple):
    """What a run at the fast speed is, whatever its inputs.

    Parameters
    ----------
    layers : tuple of LayerResult
        Without overflow records.
    weighted : dict of int to ArrayLayer or WinogradLayer
        See `weighted_layers`.
    """

    layers: tuple[LayerResult, ...]
    weighted: dict[int, ArrayLayer | WinogradLayer]

    @property
    def weights(self) -> int:
        """Weights of the network."""
        return sum(layer.weights for layer in self.layers)


_known: dict[bytes, Estimate] = {}


def estimate(network: Network, hardware: Hardware, table: EnergyTable) -> Estimate:
    """Plan and time a network, or remember what an equal one gave: see `MOST_KNOWN`.

    Equal is what pickles to the same bytes, so that arrays that were written to are seen; what is
    kept belongs to a copy.

    Raises
    ------
    HardwareError
        A layer that the hardware cannot hold.
    """
    pickled = pickle.dumps((network, hardware, table))
    key = sha256(pickled).digest()
    found = _known.get(key)
    if found is None:
        plan = plan_inference(pickle.loads(pickled)[0], hardware)
        layers = _layer_results(plan, time_plan(plan), table)
        found = Estimate(layers, weighted_layers(plan))
        weights = sum(each.weights for each in _known.values())
        if len(_known) == MOST_KNOWN or weights + found.weights > MOST_KNOWN_WEIGHTS:
            _known.clear()
        _known[key] = found
    return found


# -- cycle by cycle -------------------------------------------------------------------------------


class _SteppedArray:
    """Layers with weights cycle by cycle; those of the host are computed.

    Parameters
    ----------
    plan : NetworkPlan
    """

    def __init__(self, plan: NetworkPlan) -> None:
        self.plan = plan
        self.computed = weighted_layers(plan)
        self.steps = {
            step.step.layer_index: step
            for program in plan.programs
            for step in program.steps
            if step.step.unit == "array"
        }
        self.runs: dict[int, tuple[RunTiming, ...]] = {}

    def multiply(self, index: int, x: Array, output: Tensor) -> tuple[Array, OverflowRecord]:
        """Output codes and overflow record of a layer."""
        if index not in self.steps:
            return self.computed[index].run(x, output)
        hardware = self.plan.hardware
        found = run_step(self.steps[index], hardware, x)
        self.runs[index] = found.runs
        codes = found.outputs.reshape((-1, *output.shape[1:])).astype(DTYPES[output.dtype])
        return codes, overflow_record(found.accumulators, hardware)

    def timings(self) -> tuple[LayerTiming, ...]:
        """Time every layer; all have run."""
        return time_plan(self.plan, self._run_timings, step_schedule)

    def _run_timings(self, step: StepPlan) -> Sequence[RunTiming]:
        if step.step.unit == "array":
            return self.runs[step.step.layer_index]
        return run_timings(step, self.plan.hardware)


# -- results --------------------------------------------------------------------------------------


def _layer_results(
    plan: NetworkPlan, timings: Sequence[LayerTiming], table: EnergyTable
) -> tuple[LayerResult, ...]:
    """Put the layers' results together, without overflow records."""
    units = layer_units(plan)
    return tuple(
        _layer_result(plan, index, units[index], timing, table)
        for index, timing in enumerate(timings)
    )


def _layer_result(
    plan: NetworkPlan,
    index: int,
    unit: LayerUnit,
    timing: LayerTiming,
    table: EnergyTable,
) -> LayerResult:
    network, hardware = plan.lowered.network, plan.hardware
    layer = network.layers[index]
    source = network.tensors[layer.inputs[0]].shape
    output = network.tensors[layer.outputs[0]].shape
    events = timing.events
    macs = weights = work = 0
    if isinstance(layer, WeightedLayer):
        weights = layer.weights.size
        macs = _macs(layer, source, output)
        work = events.steps
    pes = hardware.array.rows * hardware.array.cols
    step = next((step for step in plan.steps if step.layer_index == index), None)
    form = 0 if step is None or step.geometry is None else step.geometry.form
    return LayerResult(
        index=index,
        name=layer.name,
        op=layer.op,
        unit=unit,
        algorithm=("direct", "f2", "f4")[form],
        reason="" if step is None else step.reason,
        input_shape=source,
        output_shape=output,
        macs=macs,
        weights=weights,
        steps=events.steps,
        timing=timing,
        utilization=work / (pes * timing.cycles) if timing.cycles else 0.0,
        sram_bytes=sram_bytes(events, hardware, form),
        dram_bytes=events.dram_read_bytes + events.dram_write_bytes,
        energy=layer_energy(events, hardware, table, timing.cycles, form),
        overflow=None,
    )


def _with_record(layer: LayerResult, record: OverflowRecord | None) -> LayerResult:
    """Copy a result, so that what its owner writes does not come back with the next run."""
    kept = layer.timing
    timing = LayerTiming(kept.cycles, dict(kept.cycles_by_cause), kept.events)
    return replace(layer, timing=timing, overflow=record)


def _macs(layer: WeightedLayer, source: tuple[int, ...], output: tuple[int, ...]) -> int:
    if isinstance(layer, Conv2D):
        return int(output[1] * output[2] * layer.weights.size)
    return int(prod(source) // layer.weights.shape[1] * layer.weights.size)


def _accumulator_dict(record: OverflowRecord) -> dict[str, Any]:
    return {
        "bits": record.acc_bits,
        "overflow": record.acc_overflow,
        "events": record.events,
        "outputs_affected": record.outputs_affected,
        "transient": record.transient,
        "persistent": record.persistent,
        "min": record.minimum,
        "max": record.maximum,
        "bits_needed": record.bits_needed,
    }


# -- arguments ------------------------------------------------------------------------------------


def _check_arguments(inputs: object, values: bool, speed: str) -> None:
    if speed not in get_args(Speed):
        raise InputError(f"speed must be fast or stepped, not {speed!r}; choose one")
    if values and inputs is None:
        raise InputError(
            "a run with values needs inputs, but none were given; pass samples, or values=False"
        )
    if speed == "stepped" and not values:
        raise InputError(
            "the stepped speed moves real data and needs values, but values=False; use speed fast"
        )


def _checked_inputs(
    network: Network, inputs: Mapping[int, Array] | Sequence[Array]
) -> dict[int, Array]:
    """Return the inputs by tensor index, of the right element types and shapes and one batch."""
    given = dict(inputs) if isinstance(inputs, Mapping) else {}
    if not isinstance(inputs, Mapping):
        if len(inputs) != len(network.inputs):
            raise InputError(
                f"network {network.name!r} takes {len(network.inputs)} inputs, but {len(inputs)}"
                " were given; give one array for each"
            )
        given = dict(zip(network.inputs, inputs, strict=True))
    if set(given) != set(network.inputs):
        raise InputError(
            f"network {network.name!r} takes the tensors {sorted(network.inputs)}, but"
            f" {sorted(given)} were given; give one array for each"
        )
    for index, array in given.items():
        _check_input(network.tensors[index], array)
    batches = sorted({len(array) for array in given.values()})
    if len(batches) > 1:
        raise InputError(
            f"inputs of network {network.name!r} have {batches} samples; give the same number to"
            " each"
        )
    return given


def _check_input(tensor: Tensor, array: Array) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != DTYPES[tensor.dtype]:
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise InputError(
            f"input {tensor.name!r} must be a NumPy array of {DTYPES[tensor.dtype]}, not {kind};"
            " quantize it to the tensor's scale first"
        )
    if array.ndim != len(tensor.shape) or array.shape[1:] != tensor.shape[1:]:
        raise InputError(
            f"input {tensor.name!r} must have the shape (N, {str(tensor.shape[1:])[1:]}, but has"
            f" {array.shape}; reshape it, samples first"
        )
    if array.size == 0:
        raise InputError(f"input {tensor.name!r} holds no sample; give one or more")
    if tensor.dtype == "int4" and (array.min() < -8 or array.max() > 7):
        raise InputError(
            f"input {tensor.name!r} must hold codes from -8 to 7, but reaches from {array.min()} to"
            f" {array.max()}; quantize it to 4 bits"
        )
    if tensor.dtype == "float32" and not np.isfinite(array).all():
        raise InputError(
            f"input {tensor.name!r} holds infinite or undefined values; clean it first"
        )
