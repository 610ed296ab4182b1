"""Fine-tune a float network with its quantizers in place, so that it learns to live with them.

Each step rounds weights and activations as the integer network will (the NumPy statements of
`golden.quantization` give the values) and lets gradients pass as if nothing had been rounded
(straight-through, Bengio et al. 2013). Scales of activations are learned with their zero points
held (LSQ, Esser et al. 2020; in octaves, as in TQT, Jain et al. 2020). What comes out are integer
codes and scales for every layer: no rounding is left to be done. Where weights are coarse, what
layers sum is normalised while they learn, see `napier.normalization`, and weights are drawn to
their levels more and more, so that they settle (oscillation dampening, Nagel et al. 2022).

Stages follow one another from where the last one ended. n-hot networks take two, uniform and then
n-hot (arXiv 2103.11704). ``a2q`` and ``a2q+`` are stages of their own: while they learn, weights
are kept where accumulators of a given width hold every sum (Colbert et al. 2023 and 2024).

One seed gives one result on one machine: images come in an order that depends on seed, stage and
epoch alone, PyTorch's deterministic kernels are used, and the number of threads is fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from golden.certificates import MAX_BITS
from golden.errors import InputError, ModelError
from golden.fitting import Method
from golden.float_network import FloatArray, FloatNetwork, FloatReshape, FloatSoftmax, FloatWeighted
from golden.network import Network
from golden.quantization.activations import QuantizationParameters
from golden.quantization.assemble import assemble, prescribed
from golden.quantization.calibrate import WeightSettings
from golden.quantization.method import WeightCodes
from golden.quantization.registry import parse_method
from golden.ranges import Range
from napier.activation_training import TrainedActivations
from napier.normalization import Moments, Normalization, Observer
from napier.torch_network import Hook, TorchNetwork, unchanged
from napier.weight_training import TINY, WeightQuantizer, confined_weights, trained_weights

Array = NDArray[Any]
Progress = Callable[[int, int, str], None]

FLOAT = "float"
"""The stage that quantizes no weights."""

CONFINED: dict[str, Method] = {"a2q": "a2q", "a2q+": "a2q+"}
"""Stages of `golden.fitting.Method`, each with the bits of the accumulator behind a colon."""

SMALL_WEIGHTS, SMALL_OUTPUTS = 0.05, 1.0
"""Root mean square of a layer's weights, and range of its outputs, below which it learns slower."""

RELATIVE_WEIGHTS = 0.1
"""Root mean square of a channel's weights at which relative steps are those of the rate."""

COARSE = 1 / 32
"""Share of the weights' energy that a projection may lose before sums are normalised: 15 dB."""

NORMALIZED_WEIGHTS = 1 / 60
"""Root mean square of a channel's weights where sums are normalised, which makes it free."""

LEAST_BATCH = 8
"""Samples of a step from which sums are normalised."""

LARGEST_RATE = 1e30
"""Of a learning rate: float32, in which weights learn, holds steps of such a size."""

LARGEST_EXPONENT = 126
"""Of two, in scales that learn: they and their inverses are float32 numbers."""

FIRST_SAMPLES, LAST_SAMPLES = 512, 4096
"""Samples that moments of sums are measured on, before a stage and after it."""


@dataclass(frozen=True)
class Stage:
    """One part of the training.

    Parameters
    ----------
    method : str
        A method of the registry with its settings (``nhot:n=2``); ``float``; or ``a2q:P``,
        ``a2q+:P`` for accumulators of P bits.
    epochs : int
        Times that every sample is seen; 0 projects and learns nothing.
    learning_rate : float
        Of Adam at the start; it falls to 0 along half a cosine. Layers of small weights or outputs
        have less, see `SMALL_WEIGHTS`.
    bits : int
        Width of the weights' codes.
    """

    method: str
    epochs: int
    learning_rate: float = 1e-3
    bits: int = 8


@dataclass(frozen=True)
class Training:
    """How every stage is trained.

    Parameters
    ----------
    batch : int
        Samples of a step.
    distillation : float
        Share of the loss that compares with the float network, 0 to 1; labels have the rest.
    seed : int
        Of the order of samples.
    threads : int
        Of PyTorch; sums of gradients depend on it in their last bits.
    shift : int
        Images are moved by up to so many pixels either way, one move a step, zeros coming in; other
        inputs are left as they are.
    relative : bool
        Steps of weights are in proportion to the weights of their channel, see `RELATIVE_WEIGHTS`,
        where quantizers are in place and sums are not normalised.
    normalize : bool
        Sums are normalised while weights lose more than `COARSE` of their energy.
    dampening : float
        Share of the way to their levels that weights go in each step where sums are normalised; it
        rises to this from 0 over the stage.
    """

    batch: int = 32
    distillation: float = 0.5
    seed: int = 0
    threads: int = 1
    shift: int = 0
    relative: bool = False
    normalize: bool = True
    dampening: float = 0.003


DEFAULT = Training()


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave: its stage (counted from 0), and the mean loss over its samples."""

    stage: int
    loss: float


@dataclass(frozen=True)
class FineTuned:
    """A trained network and the integers it was trained to.

    Parameters
    ----------
    network : Network
        Integers, ready to be run, with the tensors and layers of the float network.
    weights : dict of layer name to WeightCodes
    parameters : dict of tensor index to QuantizationParameters
    biases : dict of layer name to (out_channels,) float32 array
        Real ones.
    epochs : tuple of Epoch
    """

    network: Network
    weights: Mapping[str, WeightCodes]
    parameters: dict[int, QuantizationParameters]
    biases: dict[str, FloatArray]
    epochs: tuple[Epoch, ...]


def fine_tune(
    network: FloatNetwork,
    parameters: Mapping[int, QuantizationParameters],
    inputs: Sequence[Array],
    labels: Array | None,
    stages: Sequence[Stage],
    *,
    layers: Mapping[str, WeightSettings] | None = None,
    training: Training = DEFAULT,
    progress: Progress | None = None,
) -> FineTuned:
    """Train a network with quantized weights and activations.

    Parameters
    ----------
    network : FloatNetwork
        Trained; it is also what the quantized network is compared with while it learns.
    parameters : mapping of tensor index to QuantizationParameters
        Of every tensor, as `golden.quantization.calibrate.quantize_network` chooses them. Scales of
        the network's inputs stay; others learn.
    inputs : sequence of (N, ...) float array
        Training samples, one array for each network input.
    labels : (N,) integer array or None
        Classes; without them only the float network teaches.
    stages : sequence of Stage
    layers : mapping of layer name to WeightSettings, or None
        Layers that have a method of their own in every stage.
    training : Training
    progress : callable or None
        Called as (epochs done, total, method and loss of the last one), before each and at the end.

    Returns
    -------
    FineTuned

    Raises
    ------
    InputError
        For settings out of range, methods that need more than weights, an accumulator that cannot
        hold one operand, or training that diverges.
    """
    if not stages or stages[-1].method == FLOAT:
        raise InputError("fine-tuning must end in a stage that quantizes; give it a method")
    _check(network, inputs, labels, stages, training)
    with _reproducible(training):
        trainer = _Trainer(network, parameters, inputs, labels, layers or {}, training)
        return trainer.result(_run_stages(trainer, stages, progress))


def train_float(
    network: FloatNetwork,
    inputs: Sequence[Array],
    labels: Array,
    stage: Stage,
    training: Training = DEFAULT,
    progress: Progress | None = None,
) -> FloatNetwork:
    """Train a float network on labels alone, nothing quantized: where fine-tuning starts from.

    Parameters
    ----------
    network : FloatNetwork
        Its weights are the start.
    inputs, labels, training, progress
        See `fine_tune`.
    stage : Stage
        Its epochs and learning rate are used.

    Raises
    ------
    InputError
    """
    stage, training = replace(stage, method=FLOAT), replace(training, distillation=0.0)
    _check(network, inputs, labels, [stage], training)
    with _reproducible(training):
        trainer = _Trainer(network, {}, inputs, labels, {}, training)
        _run_stages(trainer, [stage], progress)
        return trainer.student.to_float_network()


def _run_stages(
    trainer: _Trainer, stages: Sequence[Stage], progress: Progress | None
) -> tuple[Epoch, ...]:
    for stage in stages:
        trainer.try_methods(stage)
    epochs: list[Epoch] = []
    total = sum(stage.epochs for stage in stages)
    what = stages[0].method
    for number, stage in enumerate(stages):
        trainer.begin(number, stage)
        for _ in range(stage.epochs):
            if progress is not None:
                progress(len(epochs), total, what)
            epochs.append(Epoch(number, trainer.epoch()))
            what = f"{stage.method}, loss {epochs[-1].loss:.3f}"
        trainer.end()
    if progress is not None:
        progress(total, total, what)
    return tuple(epochs)


def _check(
    network: FloatNetwork,
    inputs: Sequence[Array],
    labels: Array | None,
    stages: Sequence[Stage],
    training: Training,
) -> None:
    for stage in stages:
        if stage.epochs < 0 or not 0 < stage.learning_rate <= LARGEST_RATE:
            raise InputError(
                "a stage needs epochs from 0 and a finite learning rate above 0 and up to"
                f" {LARGEST_RATE:g}, not {stage.epochs} and {stage.learning_rate:g}; for example 3"
                " and 0.001"
            )
        if not 2 <= stage.bits <= 8:
            raise InputError(f"weights must have 2 to 8 bits, not {stage.bits}; choose a width")
    if not 0 <= training.dampening <= 1:
        raise InputError(
            "weights can go a share of 0 to 1 of the way to their levels, not"
            f" {training.dampening:g}; for example {DEFAULT.dampening:g}"
        )
    if training.batch < 1 or not 0 <= training.distillation <= 1 or training.threads < 1:
        raise InputError(
            "training needs a batch and threads from 1 and a share of distillation from 0 to 1, not"
            f" {training.batch}, {training.threads} and {training.distillation:g}; for example 32,"
            " 1 and 0.5"
        )
    sides = [side for array in inputs if array.ndim == 4 for side in array.shape[1:3]]
    if not 0 <= training.shift < min(sides, default=1):
        raise InputError(
            f"images can be moved by 0 to {min(sides, default=1) - 1} pixels, not {training.shift};"
            " for example by 1"
        )
    counts = {len(array) for array in inputs} | ({len(labels)} if labels is not None else set())
    if len(counts) != 1:
        raise InputError(
            f"samples and labels must be equally many, not {sorted(counts)}; give one class number"
            " for each sample"
        )
    shape = network.tensors[_logits(network)[0]].shape
    classes = int(np.prod(shape[1:]))
    if labels is not None and not 0 <= labels.min() <= labels.max() < classes:
        raise InputError(
            f"labels must be classes 0 to {classes - 1} of {network.name}, but reach from"
            f" {labels.min()} to {labels.max()}; give labels of this model"
        )


@contextmanager
def _reproducible(training: Training) -> Iterator[None]:
    """Deterministic kernels on a fixed number of threads; what was set before is set again."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(training.threads)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


# Training -----------------------------------------------------------------------------------------


class _Trainer:
    """The network, its quantizers, and where the training stands."""

    def __init__(
        self,
        network: FloatNetwork,
        parameters: Mapping[int, QuantizationParameters],
        inputs: Sequence[Array],
        labels: Array | None,
        layers: Mapping[str, WeightSettings],
        training: Training,
    ) -> None:
        self.network, self.layers, self.training = network, layers, training
        self.distillation = 1.0 if labels is None else training.distillation
        self.inputs = [torch.from_numpy(np.asarray(array, np.float32)) for array in inputs]
        self.labels = None if labels is None else torch.from_numpy(labels.astype(np.int64))
        self.scores, self.beta = _logits(network)
        self.teacher, self.student = TorchNetwork(network), TorchNetwork(network)
        held = (*network.inputs, *prescribed(network))
        self.answers: torch.Tensor | None = None
        self.factors: dict[int, torch.Tensor] = {}
        self.begun, self.loss = 0, 0.0
        self.activations = TrainedActivations(network, parameters, held)

    def try_methods(self, stage: Stage) -> None:
        """Quantize all weights once, so that a setting out of range is said before the work."""
        self.stage = stage
        for index, quantizer in self._quantizers().items():
            quantizer.codes(self.student.weights[index])

    def begin(self, number: int, stage: Stage) -> None:
        """Put the quantizers of a stage in and start its optimizer."""
        self.number, self.stage, self.done = number, stage, 0
        self._apply_factors()
        self.quantizers = self._quantizers()
        self.normalization = self._normalization()
        if self.normalization.offsets:
            self.quantizers = self._quantizers()  # of weights that have another size now
        groups: list[dict[str, Any]] = []
        if stage.method != FLOAT:
            scales = [x for each in self.quantizers.values() for x in each.learned()]
            scales += self.activations.learned() + self.normalization.learned()
            groups.append({"params": scales, "share": 1.0})
        for index in self.student.weights:
            weights, bias = self.student.weights[index], self.student.biases[index]
            groups.append({"params": [weights], "share": self._weight_share(index)})
            groups.append({"params": [bias], "share": self._bias_share(index)})
        relative = self.training.relative and stage.method != FLOAT
        self.paces = {
            index: _pace(weights)
            for index, weights in self.student.weights.items()
            if relative and index not in self.normalization.offsets
        }
        self.optimizer = torch.optim.Adam(groups, lr=stage.learning_rate)

    def _quantizers(self) -> dict[int, WeightQuantizer]:
        return {
            index: self._quantizer(index, layer)
            for index, layer in enumerate(self.network.layers)
            if isinstance(layer, FloatWeighted) and self.stage.method != FLOAT
        }

    def _normalization(self) -> Normalization:
        """Normalise all layers if the weights are coarse, and size their weights."""
        least = min(self.training.batch, len(self.inputs[0]))  # `_parts` makes no smaller steps
        wanted = self.training.normalize and least >= LEAST_BATCH
        if not wanted or not self.stage.epochs or self._lost_energy() <= COARSE:
            return Normalization({})
        moments = self._moments(unchanged, unchanged, FIRST_SAMPLES)
        with torch.no_grad():
            for index in moments:
                weights = self.student.weights[index]
                weights.mul_(NORMALIZED_WEIGHTS / _sizes(weights).clamp_min(TINY))
        return Normalization(moments)

    def _lost_energy(self) -> float:
        """Mean share of a layer's squared weights that quantization puts elsewhere."""
        lost = []
        with torch.no_grad():
            for index, quantizer in self.quantizers.items():
                weights = self.student.weights[index]
                error = (quantizer(weights) - weights).square().sum()
                lost.append(float(error / weights.square().sum().clamp_min(TINY)))
        return float(np.mean(lost)) if lost else 0.0

    def _moments(self, weights: Hook, sums: Hook, count: int) -> dict[int, Moments]:
        """Moments of what layers sum, over some samples drawn from all."""
        generator = np.random.default_rng([self.training.seed, self.number])
        chosen = torch.from_numpy(generator.permutation(len(self.inputs[0]))[:count])
        observer = Observer(sums)
        with torch.no_grad():
            for part in _parts(chosen, self.training.batch):
                inputs = [each[part] for each in self.inputs]
                self.student(inputs, weights=weights, sums=observer, tensors=self.activations)
        return observer.moments()

    def end(self) -> None:
        """Leave weights and biases that need no normalisation; weights want a factor a channel."""
        if not self.normalization.offsets:
            return
        moments = self._moments(self._weights, self.normalization, LAST_SAMPLES)
        with torch.no_grad():
            for index in self.normalization.offsets:
                factor, addend = self.normalization.folded(index, moments[index])
                self.factors[index] = factor
                bias = self.student.biases[index]
                bias.copy_(factor * bias + addend)
        self.normalization = Normalization({})
        self._check_numbers()

    def _apply_factors(self) -> None:
        """Let weights carry what the last stage has left to the scales of their codes."""
        with torch.no_grad():
            for index, factor in self.factors.items():
                weights = self.student.weights[index]
                weights.mul_(factor.reshape(-1, *[1] * (weights.ndim - 1)))
        self.factors = {}

    def _weight_share(self, index: int) -> float:
        """Share of the learning rate: steps of Adam do not shrink with the weights they change."""
        free = self.stage.method == FLOAT or self.training.relative
        if free or index in self.normalization.offsets:
            return 1.0
        size = float(self.student.weights[index].detach().square().mean().sqrt().item())
        return min(1.0, size / SMALL_WEIGHTS)

    def _bias_share(self, index: int) -> float:
        if self.stage.method == FLOAT:
            return 1.0
        (target,) = self.network.layers[index].outputs
        output = self.activations.start[target]
        return min(1.0, output.scale * (output.high - output.low) / SMALL_OUTPUTS)

    def _quantizer(self, index: int, layer: FloatWeighted) -> WeightQuantizer:
        weights = self.student.weights[index]
        if layer.name in self.layers:
            return trained_weights(layer, weights, self.layers[layer.name])
        name, _, width = self.stage.method.partition(":")
        if name not in CONFINED:
            method, options = parse_method(self.stage.method, CONFINED)
            settings = WeightSettings(method, options, self.stage.bits)
            return trained_weights(layer, weights, settings)
        acc_bits = _acc_bits(name, width)
        operands = self._operands(layer.inputs[0])
        return confined_weights(weights, CONFINED[name], acc_bits, operands, self.stage.bits)

    def _operands(self, tensor: int) -> Range:
        """Codes of 8 bits minus the zero point, which does not learn."""
        zero_point = self.activations.start[tensor].zero_point
        return -128 - zero_point, 127 - zero_point

    def epoch(self) -> float:
        """Show every sample once; the mean loss."""
        generator = np.random.default_rng([self.training.seed, self.number, self.done])
        order = torch.from_numpy(generator.permutation(len(self.inputs[0])))
        parts = _parts(order, self.training.batch)
        self.begun += 1
        total = 0.0
        for step, chosen in enumerate(parts):
            progress = (self.done + step / len(parts)) / self.stage.epochs
            for group in self.optimizer.param_groups:
                rate = self.stage.learning_rate * (1 + np.cos(np.pi * progress)) / 2
                group["lr"] = rate * group["share"]
            move = generator.integers(-self.training.shift, self.training.shift + 1, 2)
            inputs = [_moved(x[chosen], *move) for x in self.inputs]
            total += self._step(inputs, chosen, self.training.dampening * progress)
        self.done += 1
        return total / len(order)

    def _step(self, inputs: list[torch.Tensor], chosen: torch.Tensor, dampening: float) -> float:
        """Learn from some samples; the sum of their losses."""
        levels: dict[int, torch.Tensor] = {}

        def quantized(index: int, weights: torch.Tensor) -> torch.Tensor:
            levels[index] = self._weights(index, weights)
            return levels[index]

        tensors: Hook = self.activations if self.stage.method != FLOAT else unchanged
        kept = self.student(
            inputs,
            weights=quantized,
            sums=self.normalization,
            tensors=tensors,
            keep=[self.scores],
        )
        loss = self._loss(self._scores(kept), inputs, chosen)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self._move_weights(levels, dampening)
        self.loss = float(loss.item())
        self._check_numbers()
        return self.loss * len(chosen)

    def _check_numbers(self) -> None:
        """Stop before a loss, weight or scale that is no number is rounded."""
        real = [*self.student.weights.values(), *self.student.biases.values()]
        real += self.normalization.offsets.values()
        logarithms = [x for each in self.quantizers.values() for x in each.learned()]
        logarithms += [*self.activations.learned(), *self.normalization.log_gains.values()]
        logarithms += [factor.log2() for factor in self.factors.values()]
        finite = isfinite(self.loss) and all(bool(x.isfinite().all()) for x in real)
        if not finite or any(not bool((x.abs() <= LARGEST_EXPONENT).all()) for x in logarithms):
            raise self._diverged()

    def _diverged(self) -> InputError:
        return InputError(
            f"training diverged in epoch {self.begun} (loss {self.loss:g}): its loss, weights and"
            " scales must stay within what integers can stand for; lower --learning-rate, which is"
            f" {self.stage.learning_rate:g}"
        )

    def _loss(
        self, scores: torch.Tensor, inputs: list[torch.Tensor], chosen: torch.Tensor
    ) -> torch.Tensor:
        """Mean loss of some samples: by the float network's answers, and by their labels."""
        loss = torch.zeros(())
        if self.distillation:
            answers = self._answers(inputs, chosen)
            loss = loss + self.distillation * functional.cross_entropy(scores, answers)
        if self.labels is not None:
            right = functional.cross_entropy(scores, self.labels[chosen])
            loss = loss + (1 - self.distillation) * right
        return loss

    def _move_weights(self, levels: Mapping[int, torch.Tensor], dampening: float) -> None:
        """Take a step of the optimizer, and a share of the way from coarse weights to their levels.

        Where a threshold lies, gradients on both sides lead a weight back across it, so that it
        leaps in every few steps, and what it makes of the sums is noise.
        """
        before = {index: self.student.weights[index].detach().clone() for index in self.paces}
        self.optimizer.step()
        with torch.no_grad():
            for index, old in before.items():
                weights = self.student.weights[index]
                weights.copy_(old + self.paces[index] * (weights - old))
            for index in self.normalization.offsets:
                weights = self.student.weights[index]
                weights.add_(dampening * (levels[index] - weights))

    def _answers(self, inputs: list[torch.Tensor], chosen: torch.Tensor) -> torch.Tensor:
        """Chances that the float network gives to the classes; of unmoved images asked once."""
        if self.training.shift:
            return self._taught(inputs)
        if self.answers is None:
            every = torch.arange(len(self.inputs[0]))
            parts = _parts(every, self.training.batch)
            taught = [self._taught([each[part] for each in self.inputs]) for part in parts]
            self.answers = torch.cat(taught)
        return self.answers[chosen]

    def _taught(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        with torch.no_grad():
            return self._scores(self.teacher(inputs, keep=[self.scores])).softmax(dim=1)

    def _scores(self, kept: list[torch.Tensor]) -> torch.Tensor:
        (scores,) = kept
        return self.beta * scores.reshape(len(scores), -1)

    def _weights(self, index: int, weights: torch.Tensor) -> torch.Tensor:
        return self.quantizers[index](weights) if index in self.quantizers else weights

    def result(self, epochs: tuple[Epoch, ...]) -> FineTuned:
        """Integers of everything as it is now."""
        weights = {
            self.network.layers[index].name: self._codes(index, quantizer)
            for index, quantizer in self.quantizers.items()
        }
        biases = {
            self.network.layers[index].name: bias.detach().numpy().copy()
            for index, bias in self.student.biases.items()
        }
        parameters = self.activations.result()
        try:
            found = assemble(self.network, parameters, weights, biases)
        except ModelError as error:
            raise (self._diverged() if epochs else error) from None
        return FineTuned(found.network, found.weights, parameters, biases, epochs)

    def _codes(self, index: int, quantizer: WeightQuantizer) -> WeightCodes:
        codes = quantizer.codes(self.student.weights[index])
        if index not in self.factors:
            return codes
        return replace(codes, scales=codes.scales * self.factors[index].double().numpy())


def _parts(chosen: torch.Tensor, batch: int) -> tuple[torch.Tensor, ...]:
    """Divide samples into steps, as many in one as in another."""
    parts: tuple[torch.Tensor, ...] = torch.tensor_split(chosen, max(1, len(chosen) // batch))
    return parts


def _sizes(weights: torch.Tensor) -> torch.Tensor:
    """Root mean square of each channel's weights."""
    axes = tuple(range(1, weights.ndim))
    return weights.detach().square().mean(dim=axes, keepdim=True).sqrt()


def _pace(weights: torch.Tensor) -> torch.Tensor:
    """Size of the steps of each channel's weights, in units of the learning rate's."""
    return _sizes(weights) / RELATIVE_WEIGHTS


def _moved(images: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Images that lie elsewhere in their frame."""
    if images.ndim != 4 or not (down or right):
        return images
    return functional.pad(images, (0, 0, int(right), -int(right), int(down), -int(down)))


def _acc_bits(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and 2 <= int(text) <= MAX_BITS):
        raise InputError(
            f"method {name} needs the bits of the accumulator, 2 to {MAX_BITS}, not {text!r}; for"
            f" example {name}:16"
        )
    return int(text)


def _logits(network: FloatNetwork) -> tuple[int, float]:
    """Tensor that holds the class scores before a softmax, and the factor that it applies."""
    tensor = network.outputs[0]
    makers = {layer.outputs[0]: layer for layer in network.layers}
    while isinstance(makers.get(tensor), FloatReshape):
        (tensor,) = makers[tensor].inputs
    maker = makers.get(tensor)
    if isinstance(maker, FloatSoftmax):
        return maker.inputs[0], maker.beta
    return tensor, 1.0
