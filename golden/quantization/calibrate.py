"""A float network and some samples, to an integer network: in which order what is chosen.

1. The float network runs on the samples; every tensor gets its scale from the range of its values.
2. Weights, layer by layer in order: each sees its inputs as the quantized layers before it leave
   them, and the outputs of the float network as its aim.
3. Where asked for, scales of activations are searched, layer by layer in order again: of the input
   of each layer, so that its outputs are nearest in angle to those of the float network. Of inputs
   of layers that do not multiply (sums, means), which the paper leaves in floating point, the angle
   of the tensor itself counts. The start is the better of the largest value and of the range of
   least divergence.
4. 2 and 3 again for every further round (EasyQuant, algorithm 1).
5. Where asked for, biases take up the mean error of each channel, in order.

What no layer that multiplies is computed from has 8 bits, for it is the result. Everything before
has the bits that are asked for; inputs of the network, which are data, have bits of their own.

Sources: EasyQuant, Wu et al. 2020 (2006.16669), algorithm 1; bias correction, Nagel et al. 2019
(1906.04721), section 4.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.errors import InputError
from golden.float_network import (
    FloatArray,
    FloatConv2D,
    FloatLayer,
    FloatNetwork,
    FloatWeighted,
)
from golden.float_run import (
    activate,
    float_inputs,
    linear,
    patch_blocks,
    rounded,
    run_float,
    run_layer,
)
from golden.network import Network
from golden.quantization.activations import (
    Histogram,
    QuantizationParameters,
    Scheme,
    histogram,
    quantization_parameters,
)
from golden.quantization.assemble import (
    TIED,
    assemble,
    prescribed,
    real_weights,
    stored_parameters,
    tied_tensors,
)
from golden.quantization.clipping import PERCENTILE, RangeRule
from golden.quantization.method import (
    Method,
    Moments,
    Options,
    WeightCodes,
    WeightTask,
    quantized_weights,
)
from golden.quantization.registry import needs_moments, parse_method
from golden.quantization.search import SearchRanges, least_squares_gains, search_scale

Array = NDArray[Any]
Progress = Callable[[int, int, str], None]

END_BITS = 8
"""Bits of the network's results, and of first and last layers that are kept."""

BATCH_SAMPLES = 16
"""Samples of the float run whose tensors are all in memory."""

SEARCH_SAMPLES = 50
"""Samples that scales of activations are searched on, as in EasyQuant's experiments."""

MOST_TAPS = 8192
"""Weights of an output above which moments are not taken: their square is in memory."""


@dataclass(frozen=True)
class WeightSettings:
    """How the weights of a layer become codes.

    Parameters
    ----------
    method : Method
    options : mapping
        All settings of the method.
    bits : int
        Width of the codes, 2 to 8.
    """

    method: Method
    options: Options
    bits: int

    @property
    def text(self) -> str:
        """The method as the command line names it, with the settings that differ from its own."""
        changed = [f"{k}={v}" for k, v in self.options.items() if v != self.method.options[k]]
        return ":".join([self.method.name, ",".join(changed)] if changed else [self.method.name])


@dataclass(frozen=True)
class Settings:
    """How a network is quantized.

    Parameters
    ----------
    weights : WeightSettings
        Of every layer that `layers` does not name.
    layers : mapping of layer name to WeightSettings
    activation_bits : int
        2 to 8.
    input_bits : int
        Of the network's inputs, 2 to 8.
    scheme : Scheme
        Whether activations have a zero point.
    rule : RangeRule
        From the range of a tensor's values to its scale.
    percentile : float
        For that rule.
    search : SearchRanges or None
        Search scales of activations by the outputs of layers, over these ranges.
    rounds : int
        Times that weights, and with `search` activations, are chosen.
    keep_ends : bool
        Uniform weights and inputs of 8 bits in the first and the last layer that multiplies.
    correct_bias : bool
        Let biases take up the mean error.
    """

    weights: WeightSettings
    layers: Mapping[str, WeightSettings] = field(default_factory=dict)
    activation_bits: int = 8
    input_bits: int = 8
    scheme: Scheme = "asymmetric"
    rule: RangeRule = "max"
    percentile: float = PERCENTILE
    search: SearchRanges | None = None
    rounds: int = 1
    keep_ends: bool = False
    correct_bias: bool = False


@dataclass(frozen=True)
class QuantizedNetwork:
    """A quantized network and what was chosen on the way.

    Parameters
    ----------
    network : Network
        The same tensors and layers, at the same indices, as the float network.
    parameters : mapping of tensor index to QuantizationParameters
    weights : mapping of layer name to WeightCodes
        As they are stored.
    biases : mapping of layer name to (out_channels,) float array
        Real biases; those of the float network where they are not corrected.
    settings : mapping of layer name to WeightSettings
    """

    network: Network
    parameters: Mapping[int, QuantizationParameters]
    weights: Mapping[str, WeightCodes]
    biases: Mapping[str, FloatArray]
    settings: Mapping[str, WeightSettings]


def quantize_network(
    network: FloatNetwork,
    settings: Settings,
    samples: Sequence[Array] | Array | None,
    fixed: Mapping[int, QuantizationParameters] | None = None,
    progress: Progress | None = None,
) -> QuantizedNetwork:
    """Quantize a float network after training.

    Parameters
    ----------
    network : FloatNetwork
    settings : Settings
    samples : sequence of array, array, or None
        Real values, (N, ...) for each input. None where `fixed` says all and no method wants data.
    fixed : mapping of tensor index to QuantizationParameters, or None
        Scales that are not chosen here; tensors that are tied to them share them.
    progress : callable or None
        Called as (done, total, what).

    Returns
    -------
    QuantizedNetwork

    Raises
    ------
    InputError
        For settings that do not go together, an unknown layer, or missing samples.
    """
    return _Calibration(network, settings, samples, fixed or {}, progress).result()


def weighted_layers(network: FloatNetwork) -> list[FloatWeighted]:
    """Layers that multiply by weights, in order."""
    return [layer for layer in network.layers if isinstance(layer, FloatWeighted)]


def layer_settings(network: FloatNetwork, settings: Settings) -> dict[str, WeightSettings]:
    """Give every layer that multiplies its settings.

    Raises
    ------
    InputError
        Where `settings.layers` names one that is not there, or there is none at all.
    """
    names = [layer.name for layer in weighted_layers(network)]
    if not names:
        raise InputError(
            f"{network.name} has no layer that multiplies by weights; there is nothing to quantize"
        )
    for name in settings.layers:
        if name not in names:
            raise InputError(
                f"--layer {name}: {network.name} has no such layer that multiplies; it has"
                f" {', '.join(names)}"
            )
    chosen = dict.fromkeys(names, settings.weights)
    if settings.keep_ends:
        uniform, options = parse_method("uniform")
        chosen[names[0]] = chosen[names[-1]] = WeightSettings(uniform, options, END_BITS)
    return chosen | dict(settings.layers)


def activation_bits(network: FloatNetwork, settings: Settings) -> dict[int, int]:
    """Bits of the codes of every tensor; see the module's text for who keeps 8."""
    groups = tied_tensors(network)
    bits = dict.fromkeys(groups, settings.activation_bits)
    bits |= {groups[index]: settings.input_bits for index in network.inputs}
    used = multiplied_groups(network)
    bits |= {group: END_BITS for group in groups if group not in used}
    if settings.keep_ends:
        ends = (*network.inputs, weighted_layers(network)[-1].inputs[0])
        bits |= {groups[index]: END_BITS for index in ends}
    return {index: bits[group] for index, group in enumerate(groups)}


def multiplied_groups(network: FloatNetwork) -> set[int]:
    """Find the groups of tied tensors that a layer that multiplies is computed from."""
    groups = tied_tensors(network)
    used: set[int] = set()
    for layer in reversed(network.layers):
        if isinstance(layer, FloatWeighted) or layer.outputs[0] in used:
            used.update(layer.inputs)
    return {groups[index] for index in used}


class _Calibration:
    """One quantization: what is chosen so far."""

    def __init__(
        self,
        network: FloatNetwork,
        settings: Settings,
        samples: Sequence[Array] | Array | None,
        fixed: Mapping[int, QuantizationParameters],
        progress: Progress | None,
    ) -> None:
        self.network = network
        self.settings = settings
        self.chosen = layer_settings(network, settings)
        self.groups = tied_tensors(network)
        self.progress = progress
        self.inputs = None if samples is None else float_inputs(network, samples)
        held = {self.groups[index]: each for index, each in fixed.items()}
        tied = {i: held[group] for i, group in enumerate(self.groups) if group in held}
        self.held = prescribed(network) | tied
        constants = (each.tensor for each in network.constants)
        self.stored = {i for i in constants if self.groups.count(self.groups[i]) == 1}
        self.parameters: dict[int, QuantizationParameters] = {}
        self.counted: dict[int, Histogram] = {}
        self.codes: dict[str, WeightCodes] = {}
        self.biases = {layer.name: layer.bias for layer in weighted_layers(network)}
        self.done = 0

    def result(self) -> QuantizedNetwork:
        """Go through all the steps."""
        self._check()
        self.parameters = self._ranges()
        for _ in range(self.settings.rounds):
            self._choose_weights()
            if self.settings.search is not None:
                self._search_activations()
        if self.settings.correct_bias:
            self._correct_biases()
        found = assemble(self.network, self.parameters, self.codes, self.biases)
        return QuantizedNetwork(
            found.network, self.parameters, found.weights, self.biases, self.chosen
        )

    def _check(self) -> None:
        if self.inputs is not None:
            if not any(self.inputs[index].any() for index in self.network.inputs):
                raise InputError(
                    "all values of the samples to calibrate on are 0, which tells no scale; give"
                    " samples such as the network will see"
                )
            return
        missing = [i for i in range(len(self.network.tensors)) if i not in self.held]
        wanted = [each.method.name for each in self.chosen.values() if self._wants(each)]
        if self.settings.search is not None or self.settings.correct_bias:
            wanted.append("a search of activations, or a correction of biases,")
        if missing or wanted:
            who = f"{wanted[0]} needs" if wanted else "scales of activations need"
            raise InputError(
                f"{who} samples to calibrate on, and there are none; add --input CALIBRATION.npy"
            )

    def _wants(self, chosen: WeightSettings) -> bool:
        return needs_moments(chosen.method, chosen.options)

    def _tell(self, what: str) -> None:
        passes = self.settings.rounds * (2 if self.settings.search is not None else 1)
        total = (passes + self.settings.correct_bias) * len(self.network.layers)
        if self.progress is not None:
            self.progress(self.done, total, what)
        self.done += 1

    # -- scales of activations from ranges

    def _ranges(self) -> dict[int, QuantizationParameters]:
        """Scale of every tensor from the values of those that share it."""
        found = dict(self.held)
        self.counted = self._histograms()
        bits = activation_bits(self.network, self.settings)
        for group, counted in self.counted.items():
            for index in np.flatnonzero(np.array(self.groups) == group).tolist():
                alone = group in self.stored
                found[index] = stored_parameters(
                    quantization_parameters(
                        counted,
                        END_BITS if alone else bits[index],
                        scheme=self.settings.scheme,
                        rule="max" if alone else self.settings.rule,
                        percentile=self.settings.percentile,
                    )
                )
        return found

    def _histograms(self) -> dict[int, Histogram]:
        """Values of every group of tensors whose scale is not held, over all samples."""
        if self.inputs is None:
            return {}
        largest: dict[int, float] = {}
        for tensors in self._float_batches():
            for index, values in tensors.items():
                group = self.groups[index]
                largest[group] = max(largest.get(group, 0.0), float(np.abs(values).max()))
        counts: dict[int, Histogram] = {}
        for tensors in self._float_batches():
            for index, values in tensors.items():
                group = self.groups[index]
                counted = histogram(values, largest[group])
                counts[group] = counts[group] + counted if group in counts else counted
        return counts

    def _float_batches(self) -> Iterator[dict[int, FloatArray]]:
        assert self.inputs is not None  # checked before
        count = len(self.inputs[self.network.inputs[0]])
        for start in range(0, count, BATCH_SAMPLES):
            batch = [
                self.inputs[index][start : start + BATCH_SAMPLES] for index in self.network.inputs
            ]
            tensors = run_float(self.network, batch)
            for index, values in tensors.items():
                if not np.isfinite(values).all():
                    raise InputError(
                        f"tensor {self.network.tensors[index].name!r} overflows on these samples;"
                        " check that they are scaled as the network was trained"
                    )
            yield {index: values for index, values in tensors.items() if index not in self.held}

    # -- weights

    def _choose_weights(self) -> None:
        if self.inputs is None:
            for each in weighted_layers(self.network):
                self._tell(each.name)
                self.codes[each.name] = self._weight_codes(each, None)
            return
        walk = _Walk(self.network, self.inputs)
        for layer in self.network.layers:
            self._tell(layer.name)
            if isinstance(layer, FloatWeighted):
                moments = None
                if self._wants(self.chosen[layer.name]):
                    source = layer.inputs[0]
                    moments = _moments(
                        layer, walk.read(source, self.parameters[source]), walk.real[source]
                    )
                self.codes[layer.name] = self._weight_codes(layer, moments)
            walk.step(layer, self.parameters, self._weights_of(layer), self.biases)

    def _weight_codes(self, layer: FloatWeighted, moments: Moments | None) -> WeightCodes:
        chosen = self.chosen[layer.name]
        shape = layer.weights.shape
        kernel = (shape[1], shape[2], shape[3]) if len(shape) == 4 else (1, 1, shape[1])
        task = WeightTask(
            layer.weights.reshape(shape[0], -1).astype(np.float64), chosen.bits, moments, kernel
        )
        try:
            return quantized_weights(chosen.method, task, chosen.options)
        except InputError as error:
            raise InputError(f"layer {layer.name!r}: {error}") from None

    def _weights_of(self, layer: FloatLayer) -> FloatArray | None:
        if not isinstance(layer, FloatWeighted):
            return None
        return real_weights(self.codes[layer.name], layer.weights.shape)

    # -- scales of activations by search

    def _search_activations(self) -> None:
        """Search what every layer reads, in order; the first layer that reads a tensor decides."""
        assert self.inputs is not None  # checked before
        few = {index: values[:SEARCH_SAMPLES] for index, values in self.inputs.items()}
        walk = _Walk(self.network, few)
        searched = {self.groups[index] for index in self.held} | self.stored
        searched |= set(self.groups) - multiplied_groups(self.network)
        for layer in self.network.layers:
            self._tell(layer.name)
            for source in () if isinstance(layer, TIED) else layer.inputs:
                group = self.groups[source]
                if group not in searched:
                    searched.add(group)
                    self._share_scale(group, self._searched_scale(source, walk))
            if isinstance(layer, FloatWeighted) and self._wants(self.chosen[layer.name]):
                self._fit_gains(layer, walk)
            walk.step(layer, self.parameters, self._weights_of(layer), self.biases)

    def _fit_gains(self, layer: FloatWeighted, walk: _Walk) -> None:
        """Let the scales of a layer's channels take up what clipping its input took from them."""
        (source,) = layer.inputs
        weights, codes = self._weights_of(layer), self.codes[layer.name]
        found = linear(layer, walk.read(source, self.parameters[source]), weights)
        gains = _channel_gains(linear(layer, walk.real[source]), found)
        self.codes[layer.name] = replace(codes, scales=codes.scales * gains)

    def _share_scale(self, group: int, scale: float) -> None:
        for index in (i for i, each in enumerate(self.groups) if each == group):
            changed = replace(self.parameters[index], scale=scale)
            self.parameters[index] = stored_parameters(changed)

    def _searched_scale(self, index: int, walk: _Walk) -> float:
        """Scale of a tensor at which the outputs of its readers are nearest in angle."""
        assert self.settings.search is not None  # or nobody asks
        start, real = self.parameters[index], walk.real[index]
        readers = [each for each in self.network.layers if index in each.inputs]
        layers = [each for each in readers if isinstance(each, FloatWeighted)]
        aims = [linear(layer, real) for layer in layers]
        weights = [self._weights_of(layer) for layer in layers]
        plain = any(not isinstance(each, (FloatWeighted, *TIED)) for each in readers)

        def score(scales: NDArray[np.float64]) -> NDArray[np.float64]:
            x = walk.read(index, replace(start, scale=float(scales[0])))
            cosines = [
                _sample_cosines(aim, linear(layer, x, w)).mean()
                for layer, w, aim in zip(layers, weights, aims, strict=True)
            ]
            if plain:  # a sum takes the tensor as it is, so its own angle counts
                cosines.append(_sample_cosines(real, x).mean())
            return np.array([np.mean(cosines)])

        begin = max(self._starts(index), key=lambda scale: float(score(np.array([scale]))[0]))
        found = search_scale(np.array([begin]), score, self.settings.search, operand="activations")
        return float(found[0])

    def _starts(self, index: int) -> list[float]:
        """Where a search may start: where the tensor is, and, of the paper's, at the KL range.

        The paper starts at the largest value and clips to half of it at most, which is too little
        for a long tail.
        """
        present = self.parameters[index]
        if self.settings.search != "paper":
            return [present.scale]
        counted = self.counted[self.groups[index]]
        nearest = quantization_parameters(
            counted, present.bits, scheme=self.settings.scheme, rule="kl"
        )
        return [present.scale, nearest.scale]

    # -- biases

    def _correct_biases(self) -> None:
        assert self.inputs is not None  # checked before
        walk = _Walk(self.network, self.inputs)
        for layer in self.network.layers:
            self._tell(layer.name)
            weights = self._weights_of(layer)
            if isinstance(layer, FloatWeighted):
                (source,) = layer.inputs
                aim = linear(layer, walk.real[source])
                found = linear(layer, walk.read(source, self.parameters[source]), weights)
                axes = tuple(range(aim.ndim - 1))
                error = (aim - found).mean(axis=axes, dtype=np.float64)
                self.biases[layer.name] = (layer.bias + error).astype(np.float32)
            walk.step(layer, self.parameters, weights, self.biases)


class _Walk:
    """The float network and its quantized prefix, layer by layer, side by side.

    `real` holds float tensors, `quantized` what the quantized layers compute before its own scale
    rounds it; of layers that only move or compare codes it holds nothing, as their tensors follow
    from those of the same scale. What nobody reads any more is dropped.
    """

    def __init__(self, network: FloatNetwork, inputs: Mapping[int, FloatArray]) -> None:
        self.network = network
        self.real = dict(inputs)
        self.quantized = dict(inputs)
        self.makers = {layer.outputs[0]: layer for layer in network.layers}
        groups = tied_tensors(network)
        last = {groups[i]: n for n, layer in enumerate(network.layers) for i in layer.inputs}
        self.last = {index: last.get(group) for index, group in enumerate(groups)}
        self.position = 0

    def read(self, index: int, parameters: QuantizationParameters) -> FloatArray:
        """Values of a quantized tensor; those it is tied to are rounded by the same parameters."""
        maker = self.makers.get(index)
        if not isinstance(maker, TIED):
            return rounded(self.quantized[index], parameters)
        sources = [self.read(i, parameters) for i in maker.inputs]
        return rounded(run_layer(maker, sources, self.network.tensors[index]), parameters)

    def step(
        self,
        layer: FloatLayer,
        parameters: Mapping[int, QuantizationParameters],
        weights: FloatArray | None,
        biases: Mapping[str, FloatArray],
    ) -> None:
        """Run the next layer in both networks."""
        (target,) = layer.outputs
        output = self.network.tensors[target]
        self.real[target] = run_layer(layer, [self.real[i] for i in layer.inputs], output)
        if isinstance(layer, FloatWeighted):
            (source,) = layer.inputs
            sums = linear(layer, self.read(source, parameters[source]), weights)
            result = activate(sums + biases[layer.name], layer.activation)
            self.quantized[target] = result.reshape(-1, *output.shape[1:])
        elif not isinstance(layer, TIED):
            sources = [self.read(i, parameters[i]) for i in layer.inputs]
            self.quantized[target] = run_layer(layer, sources, output)
        for index in [i for i in self.real if self.last[i] == self.position]:
            del self.real[index]
            self.quantized.pop(index, None)
        self.position += 1


def _channel_gains(aims: FloatArray, found: FloatArray) -> NDArray[np.float64]:
    """Factor on each channel (the last axis) of `found` with the least squared error to `aims`."""
    a, b = (x.reshape(-1, x.shape[-1]).astype(np.float64) for x in (aims, found))
    return least_squares_gains((a * b).sum(axis=0), (b * b).sum(axis=0), (a * a).sum(axis=0))


def _sample_cosines(aims: FloatArray, found: FloatArray) -> NDArray[np.float64]:
    """Cosine of each sample's outputs; 1 where both are zero, 0 where one is."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (aims, found))
    inner = (a * b).sum(axis=1)
    norms = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    cosines = np.asarray(~(a.any(axis=1) | b.any(axis=1)), np.float64)
    np.divide(inner, norms, out=cosines, where=norms > 0)
    return cosines


def _moments(layer: FloatWeighted, quantized: FloatArray, real: FloatArray) -> Moments:
    """Moments of a layer's inputs in the quantized prefix and of its float outputs, no bias."""
    channels, taps = len(layer.weights), int(np.prod(layer.weights.shape[1:]))
    groups = layer.groups if isinstance(layer, FloatConv2D) else 1
    if taps > MOST_TAPS:
        raise InputError(
            f"layer {layer.name!r} has {taps} weights for each output, and moments of its inputs"
            f" are taken for up to {MOST_TAPS}; give it a method without data by --layer"
            f" {layer.name}=uniform"
        )
    gram = np.zeros((groups, taps, taps))
    cross = np.zeros((groups, channels // groups, taps))
    power = np.zeros(channels)
    outputs = linear(layer, real).reshape(-1, channels)
    start = 0
    for block in patch_blocks(layer, quantized):
        x = block.astype(np.float64)
        aim = outputs[start : start + x.shape[1]].astype(np.float64)
        start += x.shape[1]
        gram += x.transpose(0, 2, 1) @ x
        cross += aim.reshape(len(aim), groups, -1).transpose(1, 2, 0) @ x
        power += (aim**2).sum(axis=0)
    return Moments(gram, cross.reshape(channels, taps), power)
