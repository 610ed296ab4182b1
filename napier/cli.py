"""The command `napier`. The only module that prints.

Exit codes: 0 done, 1 a verification that failed, 2 bad input (one sentence on standard error).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from golden.errors import InputError, NapierError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console, RenderableType

    from golden.accumulate import Steps
    from golden.fitting import Method, Rescale
    from golden.quantization.activations import Scheme
    from golden.ranges import ActivationRange
    from napier.quantizing import ActivationScales
    from rtl_models.builds import Simulator
    from simulator.hardware import Hardware

Progress = Callable[[int, int, str], None]
"""Called as (done, total, what) while long work goes on."""

DEFAULT_HARDWARE = "mac16x16"
VERIFY_HARDWARE = "mac4x4"
CONTRACT_LAYERS = 8
FIGURE_FORMATS = ("png", "svg", "pdf")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(package_name="napier-sim", prog_name="napier")
def cli() -> None:
    """Bit- and cycle-exact model of an integer neural-network accelerator."""


winograd_option = click.option(
    "--winograd",
    type=click.Choice(["auto", "off", "f2", "f4"]),
    help="Winograd units, added where there are none: for 3 x 3 layers.",
)
winograd_by_option = click.option(
    "--winograd-by",
    type=click.Choice(["cycles", "energy"]),
    help="What --winograd auto makes small, layer by layer.",
)


def machine_of(name: str, winograd: str | None, winograd_by: str | None) -> Hardware:
    """Read a hardware description, and give it the Winograd units that are asked for."""
    from simulator.hardware import load_hardware, with_winograd

    if winograd_by is not None and winograd != "auto":
        raise InputError(
            f"--winograd-by {winograd_by} is how --winograd auto chooses, but --winograd is"
            f" {winograd or 'not given'}; add --winograd auto, or leave --winograd-by out"
        )
    machine = load_hardware(name)
    return machine if winograd is None else with_winograd(machine, winograd, winograd_by)


@cli.command()
@click.argument("model", required=False)
@click.option("--hardware", default=DEFAULT_HARDWARE, show_default=True, help="Preset or TOML.")
@click.option("--input", "inputs", multiple=True, metavar="X.npy", help="Samples, integer codes.")
@click.option(
    "--weights", default="as-is", show_default=True, metavar="as-is|nhot:N|ternary",
    help="Project the weights first.",
)  # fmt: skip
@winograd_option
@winograd_by_option
@click.option("--json", "json_path", metavar="FILE", help="Everything, as JSON ('-' prints it).")
@click.option("--csv", "csv_path", metavar="FILE", help="One row a layer ('-' prints it).")
@click.option("--plot", "plot_path", metavar="FILE", help="Cycles and roofline (png, svg, pdf).")
@click.option("--no-values", is_flag=True, help="Cycles and energy only: compute no values.")
@click.option("--stepped", is_flag=True, help="Step every register in every cycle (slow).")
def run(
    model: str | None,
    hardware: str,
    inputs: tuple[str, ...],
    weights: str,
    winograd: str | None,
    winograd_by: str | None,
    json_path: str | None,
    csv_path: str | None,
    plot_path: str | None,
    no_values: bool,
    stepped: bool,
) -> None:
    """Cycles, energy and accumulators of MODEL, layer by layer.

    MODEL is a .tflite file or Napier's own .npz; without it the small network that ships with
    Napier is run on its test images. Cycles and energy are for one inference; accumulators are
    observed over all samples.
    """
    from napier.loading import default_samples, load_model, load_samples
    from napier.output import check_outputs, write_text
    from napier.report import run_csv, run_table
    from simulator.machine import simulate

    check_outputs((json_path, csv_path, plot_path), inputs)
    if json_path == "-" and csv_path == "-":
        raise InputError("--json - and --csv - would be mixed up; write one of them to a file")
    figure_format = None if plot_path is None else check_figure_format(plot_path)
    if stepped and no_values:
        raise InputError("--stepped moves real data through the array; leave --no-values out")
    network = load_model(model)
    machine = machine_of(hardware, winograd, winograd_by)
    samples = None
    if inputs:
        samples = load_samples(network, inputs)
    elif not no_values:
        samples = default_samples(network, model)
    with progress_bar() as progress:
        result = simulate(
            network,
            machine,
            None if samples is None or no_values else samples.arrays,
            values=not no_values,
            speed="stepped" if stepped else "fast",
            weights=weights,
            progress=progress,
        )
    document: dict[str, Any] = result.to_dict()
    document["model"]["weights"] = weights
    document["model"]["inputs"] = samples.description if samples and not no_values else None
    texts = {json_path: json.dumps(document, indent=1) + "\n", csv_path: run_csv(document)}
    if "-" in texts:
        click.echo(texts["-"], nl=False)
    else:
        console().print(run_table(document))
    for path, text in texts.items():
        if path not in (None, "-"):
            write_text(path, text)
    if plot_path:
        from napier.plots import run_figure

        save_figure(run_figure(document), plot_path, figure_format)


@cli.command()
@click.argument("model", required=False)
@click.option("--input", "inputs", multiple=True, required=True, metavar="X.npy")
@click.option("--output", "outputs", multiple=True, required=True, metavar="Y.npy")
def infer(model: str | None, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
    """Write the outputs of MODEL by the golden model, as integer codes.

    Several inputs or outputs: repeat the option, in the model's order.
    """
    import numpy as np

    from golden.run import run as run_golden
    from napier.loading import load_model, load_samples
    from napier.output import check_outputs, replacing

    check_outputs(outputs, inputs)
    network = load_model(model)
    if len(outputs) != len(network.outputs):
        raise InputError(
            f"--output was given {len(outputs)} times but {network.name} has "
            f"{len(network.outputs)} outputs; give one file for each"
        )
    samples = load_samples(network, inputs)
    result = run_golden(network, samples.arrays)
    for path, array in zip(outputs, result.outputs, strict=True):
        with replacing(path) as file:
            np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
        click.echo(f"{path}: {array.dtype} {array.shape}")


@cli.command()
@click.argument("model", required=False)
@click.option(
    "--activation-range",
    type=click.Choice(["datatype", "clamp", "calibrated"]),
    default="clamp",
    show_default=True,
    help="What activations can be.",
)
@click.option("--input", "inputs", multiple=True, metavar="X.npy", help="Samples to observe.")
@click.option("--hardware", metavar="H", help="Preset or TOML that the layers must fit.")
@click.option(
    "--weights", default="as-is", show_default=True,
    metavar="as-is|nhot:N|ternary",
    help="Project the weights first; with P: until accumulators of P bits hold every sum.",
)  # fmt: skip
@click.option("--sweep", "sweep_range", metavar="A:B", help="Run --input at A to B bits.")
@click.option("--results", "results_path", metavar="FILE", help="Keep and continue a sweep.")
@click.option(
    "--tolerance", type=float, metavar="T",
    help="Search widths that cost at most T percent points of accuracy.",
)  # fmt: skip
@click.option("--labels", "labels_path", metavar="Y.npy", help="Classes of --input, from 0.")
@click.option("--orders", is_flag=True, help="Sweep orders of addition too.")
@click.option(
    "--winograd",
    type=click.Choice(["off", "f2", "f3", "f4", "f6", "complex"]),
    default="off",
    show_default=True,
    help="Stages of layers in the Winograd domain too.",
)
@click.option(
    "--winograd-project",
    metavar="nhot:N|ternary",
    help="Its weights of few terms, and the error on --input.",
)
@click.option("--witness", "witness_folder", metavar="DIR", help="Write worst-case inputs there.")
@click.option("--plot", "plot_path", metavar="FILE", help="Bounds and sums (png, svg, pdf).")
@click.option("--layer", "plot_layer", metavar="L", help="Whose sums --plot shows [widest].")
@click.option("--json", "json_path", metavar="FILE", help="Everything, as JSON ('-' prints it).")
def widths(
    model: str | None,
    activation_range: ActivationRange,
    inputs: tuple[str, ...],
    hardware: str | None,
    weights: str,
    sweep_range: str | None,
    results_path: str | None,
    tolerance: float | None,
    labels_path: str | None,
    orders: bool,
    winograd: Literal["off", "f2", "f3", "f4", "f6", "complex"],
    winograd_project: str | None,
    witness_folder: str | None,
    plot_path: str | None,
    plot_layer: str | None,
    json_path: str | None,
) -> None:
    """Accumulator widths that are safe for MODEL, proved from its weights.

    datatype: activations hold any code of their element type. clamp: any code that the producing
    layer can emit. Both are proofs. calibrated: codes seen on --input; not a proof.

    --sweep runs the samples with every width from A to B bits, wrapping and saturating, and counts
    what overflows and what changes. --results keeps finished points; call again to continue.
    --tolerance finds the smallest width of the sweep, and by a greedy search smaller ones for each
    layer, at which accuracy (without --labels: agreement of the top-1) falls by at most T points.
    --plot draws the bounds of every layer and, with --input, the sums of one.
    --orders compares the declared order with sorted addends and with a tree of adders.
    --winograd adds the exact widths of every stage of the layers that a transform computes.
    --winograd-project tells what those layers cost and how far off they are where the transformed
    weights are projected; such layers are no convolutions any more, and no array here runs them.
    """
    from golden.network import WeightedLayer
    from napier.fitting import load_labels
    from napier.loading import load_model, load_samples
    from napier.output import check_outputs
    from napier.widths import (
        find_layer,
        observe,
        prepare_folder,
        proved_widths,
        sums_histogram,
        widest_layer,
        widths_document,
        widths_table,
    )
    from napier.winograd_projection import add_projection, parse_projection, projection_table
    from napier.winograd_widths import add_winograd, winograd_table
    from simulator.hardware import load_hardware
    from simulator.projection import project_weights

    check_outputs(
        (json_path, results_path, plot_path),
        (*inputs, *([] if labels_path is None else [labels_path])),
    )
    swept = None
    if sweep_range is not None:  # what runs samples takes longer to import than a certificate
        from napier.orders import orders_document, orders_table
        from napier.width_search import check_tolerance, search_table, search_widths
        from napier.width_sweep import Sweep, parse_range, run_sweep, sweep_table

        swept = parse_range(sweep_range)
    if swept is not None and not inputs:
        raise InputError("--sweep needs samples to run; add --input X.npy")
    if (results_path is not None or orders) and swept is None:
        raise InputError("--results and --orders belong to a sweep; add --sweep A:B")
    if winograd_project is not None and (winograd == "off" or not inputs):
        raise InputError(
            "--winograd-project measures Winograd layers on samples; add --winograd F --input X.npy"
        )
    projection = None if winograd_project is None else parse_projection(winograd_project)
    if (tolerance is not None or labels_path is not None) and swept is None:
        raise InputError("--tolerance and --labels belong to a sweep; add --sweep A:B")
    if labels_path is not None and tolerance is None:
        tolerance = 0.0
    if tolerance is not None:
        check_tolerance(tolerance)
    figure_format = None if plot_path is None else check_figure_format(plot_path)
    if plot_layer is not None and (plot_path is None or not inputs):
        raise InputError(
            "--layer chooses whose sums a figure shows; add --plot F.png --input X.npy"
        )
    network = project_weights(load_model(model), weights)
    if not any(isinstance(layer, WeightedLayer) for layer in network.layers) and (
        swept is not None or plot_path is not None
    ):
        raise InputError(
            f"{network.name} has no layer that multiplies, so there is nothing to sweep or plot;"
            " leave --sweep and --plot out"
        )
    shown = None if plot_layer is None else find_layer(network, plot_layer)
    machine = None if hardware is None else load_hardware(hardware)
    samples = load_samples(network, inputs) if inputs else None
    labels = None if labels_path is None or samples is None else load_labels(labels_path, samples)
    if witness_folder is not None:
        prepare_folder(witness_folder)
    with progress_bar() as progress:
        observed = None if samples is None else observe(network, samples, machine, progress)
        document = widths_document(
            network, activation_range, samples, machine, witness_folder, progress, observed
        )
        if winograd != "off":
            add_winograd(document, network, winograd, witness_folder, progress)
        if projection is not None and samples is not None:
            add_projection(document, network, projection, samples, progress)
        if swept is not None and samples is not None:
            swept_machine = machine or load_hardware(DEFAULT_HARDWARE)
            sweep = Sweep(network, samples, swept_machine, *swept, labels, observed)
            document["sweep"] = run_sweep(sweep, results_path, progress)
            if tolerance is not None:
                document["search"] = search_widths(
                    sweep, document["sweep"]["points"], proved_widths(document),
                    document["proof"], tolerance, results_path, progress,
                )  # fmt: skip
            if orders:
                document["orders"] = orders_document(sweep, results_path, progress)
    if plot_path is not None and samples is not None:
        index = widest_layer(document) if shown is None else shown
        document["histogram"] = sums_histogram(network, samples, index)
    document["model"]["weights"] = weights
    if plot_path is not None:
        from napier.width_plots import widths_figure

        save_figure(widths_figure(document), plot_path, figure_format)
    tables = [widths_table(document)]
    if winograd != "off":
        tables.append(winograd_table(document))
    if "winograd_projection" in document:
        tables.append(projection_table(document))
    if "sweep" in document:
        tables.append(sweep_table(document["sweep"]))
    if "search" in document:
        tables.append(search_table(document["search"], document["sweep"]["samples"]))
    if "orders" in document:
        tables.append(orders_table(document["orders"]))
    report(document, json_path, *tables)


@cli.command()
@click.argument("model", required=False)
@click.option("--acc-bits", type=int, required=True, metavar="N", help="Width to fit.")
@click.option(
    "--method",
    type=click.Choice(["a2q", "a2q+", "axe"]),
    default="axe",
    show_default=True,
    help="How weights are moved.",
)
@click.option(
    "--rescale",
    type=click.Choice(["keep", "refit", "search"]),
    default="search",
    show_default=True,
    help="What becomes of the multipliers.",
)
@click.option(
    "--activation-range",
    type=click.Choice(["datatype", "clamp"]),
    default="clamp",
    show_default=True,
    help="What activations can be.",
)
@click.option(
    "--steps",
    type=click.Choice(["product", "terms"]),
    default="product",
    show_default=True,
    help="What accumulators add.",
)
@click.option("--calibrate", "calibration", multiple=True, metavar="C.npy", help="Fit to these.")
@click.option("--input", "inputs", multiple=True, metavar="X.npy", help="Samples to compare on.")
@click.option("--labels", "labels_path", metavar="Y.npy", help="Classes of --input, from 0.")
@click.option("-o", "--output", required=True, metavar="OUT.npz", help="The fitted network.")
@click.option("--json", "json_path", metavar="FILE", help="What changed ('-' prints it).")
def fit(
    model: str | None,
    acc_bits: int,
    method: Method,
    rescale: Rescale,
    activation_range: ActivationRange,
    steps: Steps,
    calibration: tuple[str, ...],
    inputs: tuple[str, ...],
    labels_path: str | None,
    output: str,
    json_path: str | None,
) -> None:
    """Move the weights of MODEL until accumulators of N bits provably fit.

    axe: weight by weight, with what is lost made up for. a2q, a2q+: the nearest weights within the
    published bounds. search: the weights are scaled too, and the requantization takes up the
    factor. --calibrate fits layers and biases to samples; keep these apart from --input, on which
    the fitted network is compared with the given one.
    """
    from golden.files import save_network
    from napier.fitting import (
        check_model_name,
        fit_document,
        fit_table,
        load_labels,
    )
    from napier.loading import default_samples, load_model, load_samples, shipped_digits
    from napier.output import check_outputs

    read = (*calibration, *inputs, *([] if labels_path is None else [labels_path]))
    check_outputs((output, json_path), read)
    check_model_name(output)
    if labels_path is not None and not inputs:
        raise InputError("--labels are the classes of the samples of --input; add --input X.npy")
    network = load_model(model)
    fitted_to = load_samples(network, calibration) if calibration else None
    samples = load_samples(network, inputs) if inputs else None
    labels = None if samples is None or labels_path is None else load_labels(labels_path, samples)
    if model is None and samples is None:
        samples, labels = default_samples(network, model), shipped_digits()[1]
    with progress_bar() as progress:
        fitted, document = fit_document(
            *(network, acc_bits, method, rescale, activation_range, steps),
            *(fitted_to, samples, labels, progress),
        )
    save_network(fitted, output)
    report(document, json_path, fit_table(document), written=output)


@cli.command()
@click.argument("model", required=False)
@click.option("--method", default="uniform", show_default=True, metavar="M", help="Of weights.")
@click.option("--bits", type=int, default=8, show_default=True, help="Width of weight codes.")
@click.option(
    "--layer", "layers", multiple=True, metavar="NAME=M[@BITS]", help="Another method for a layer."
)
@click.option(
    "--activation-bits",
    type=click.IntRange(2, 8),
    help="Width of activations [8; uniform, easyquant: --bits].",
)
@click.option("--input-bits", type=click.IntRange(2, 8), help="Width of real inputs' codes [8].")
@click.option(
    "--scheme",
    type=click.Choice(["symmetric", "asymmetric"]),
    help="Codes of activations [asymmetric; easyquant: symmetric].",
)
@click.option(
    "--activations",
    "scales",
    type=click.Choice(["max", "percentile", "mse", "kl", "search", "keep"]),
    help="How their scales are found [max; easyquant: search].",
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Of weights, activations.",
)
@click.option("--keep-ends", is_flag=True, help="First and last layer: uniform, 8 bits.")
@click.option("--correct-bias", is_flag=True, help="Biases take up mean errors.")
@click.option(
    "--partial-sums",
    "partial_sum_bits",
    type=click.IntRange(2, 48),
    metavar="P",
    help="Plan sums of P bits that spill and never overflow.",
)
@click.option(
    "--activation-terms",
    type=click.IntRange(1, 8),
    metavar="N",
    help="Also compare with activations that are N-hot.",
)
@click.option("--input", "inputs", multiple=True, metavar="X.npy", help="Samples to calibrate on.")
@click.option("--test", "tests", multiple=True, metavar="X.npy", help="Samples to compare on.")
@click.option("--labels", "labels_path", metavar="Y.npy", help="Classes of --test, from 0.")
@click.option(
    "--codes", "code_paths", multiple=True, metavar="C.npy", help="Write --test as codes."
)
@click.option("-o", "--output", metavar="OUT.npz", help="The quantized network.")
@click.option("--json", "json_path", metavar="FILE", help="Everything, as JSON ('-' prints it).")
@click.option("--list", "list_methods", is_flag=True, help="Name the methods, and stop.")
def quantize(
    model: str | None,
    method: str,
    bits: int,
    layers: tuple[str, ...],
    activation_bits: int | None,
    input_bits: int | None,
    scheme: Scheme | None,
    scales: ActivationScales | None,
    rounds: int,
    keep_ends: bool,
    correct_bias: bool,
    partial_sum_bits: int | None,
    activation_terms: int | None,
    inputs: tuple[str, ...],
    tests: tuple[str, ...],
    labels_path: str | None,
    code_paths: tuple[str, ...],
    output: str | None,
    json_path: str | None,
    list_methods: bool,
) -> None:
    """Make an integer network of MODEL, a float network or an integer one.

    MODEL is a float .onnx or .tflite file, whose samples are real values, or a quantized .tflite or
    .npz file, whose samples are its input codes. A method takes settings behind a colon, as in
    nhot:n=2. Integer networks keep the scales of their activations where no --input is given.

    All activations but inputs and results have --activation-bits; docs/quantize.md has the rules.
    """
    import numpy as np

    from golden.files import save_network
    from napier.fitting import check_model_name, load_labels
    from napier.loading import shipped_digits
    from napier.output import check_outputs, replacing
    from napier.quantizing import (
        Request,
        input_codes,
        load_reals,
        load_source,
        methods_table,
        parse_settings,
        quantize_document,
        quantize_table,
        shipped_test,
    )

    if list_methods:
        console().print(methods_table())
        return
    if output is None:
        raise InputError("the quantized network needs a file to go to; add -o OUT.npz")
    read = (*inputs, *tests, *([] if labels_path is None else [labels_path]))
    check_outputs((output, json_path, *code_paths), (*read, *own_methods(method, layers)))
    check_model_name(output)
    if not tests and (labels_path is not None or code_paths):
        raise InputError("--labels and --codes belong to the samples of --test; add --test X.npy")
    request = Request(
        *(method, bits, layers, activation_bits, input_bits, scheme, scales, rounds),
        *(keep_ends, correct_bias, partial_sum_bits, activation_terms),
    )
    parse_settings(request)
    source = load_source(model)
    if code_paths and len(code_paths) != len(source.network.inputs):
        raise InputError(
            f"--codes was given {len(code_paths)} times but {source.network.name} has"
            f" {len(source.network.inputs)} inputs; give one file for each"
        )
    calibration = load_reals(source, inputs) if inputs else None
    test = load_reals(source, tests) if tests else None
    labels = None
    if test is not None and labels_path is not None:
        labels = load_labels(labels_path, test, of="--test")
    if model is None and test is None:
        test, labels = shipped_test(source), shipped_digits()[1]
    with progress_bar() as progress:
        quantized, document = quantize_document(
            source, request, calibration, test, labels, progress
        )
    save_network(quantized.network, output)
    written = [] if test is None or not code_paths else input_codes(quantized, test)
    for path, codes in zip(code_paths, written, strict=True):
        with replacing(path) as file:
            np.lib.format.write_array(file, codes, allow_pickle=False)
    report(document, json_path, quantize_table(document), written=output)


@cli.command()
@click.argument("model", required=False)
@click.option("--method", default="nhot:n=2", show_default=True, metavar="M", help="Of weights.")
@click.option("--bits", type=int, default=8, show_default=True, help="Width of weight codes.")
@click.option(
    "--layer", "layers", multiple=True, metavar="NAME=M[@BITS]", help="Another method for a layer."
)
@click.option("--keep-ends", is_flag=True, help="First and last layer: uniform, 8 bits.")
@click.option(
    "--activation-bits",
    type=click.IntRange(2, 8),
    default=8,
    show_default=True,
    help="Width of activations.",
)
@click.option(
    "--input", "inputs", multiple=True, required=True, metavar="X.npy", help="Training samples."
)
@click.option("--labels", "labels_path", metavar="Y.npy", help="Their classes, from 0.")
@click.option("--test", "tests", multiple=True, metavar="X.npy", help="Samples to compare on.")
@click.option("--test-labels", "test_labels_path", metavar="Y.npy", help="Their classes.")
@click.option("--epochs", type=click.IntRange(0), default=10, show_default=True, help="With M.")
@click.option(
    "--uniform-epochs",
    type=click.IntRange(0),
    show_default="2 before nhot, else 0",
    help="With uniform weights, before.",
)
@click.option(
    "--learning-rate", type=float, default=1e-3, show_default=True, help="Of Adam, at the start."
)
@click.option("--relative", is_flag=True, help="Steps in proportion to a channel's weights.")
@click.option(
    "--normalize/--no-normalize", default=True, show_default=True,
    help="Batch normalisation while coarse weights learn; folded at the end.",
)  # fmt: skip
@click.option(
    "--dampening", type=float, default=0.003, show_default=True,
    help="Share of the way to its level that a coarse weight goes in a step, at the end.",
)  # fmt: skip
@click.option("--batch", type=int, default=32, show_default=True, help="Samples of a step.")
@click.option(
    "--distillation", type=float, default=0.5, show_default=True,
    help="Share of the loss that compares with the float network.",
)  # fmt: skip
@click.option(
    "--shift", type=int, default=0, show_default=True, help="Pixels that images move, either way."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--threads", type=int, default=1, show_default=True, help="Last bits of sums depend on it."
)
@click.option("-o", "--output", required=True, metavar="OUT.npz", help="The trained network.")
@click.option("--json", "json_path", metavar="FILE", help="Everything, as JSON ('-' prints it).")
def finetune(
    model: str | None,
    method: str,
    bits: int,
    layers: tuple[str, ...],
    keep_ends: bool,
    activation_bits: int,
    inputs: tuple[str, ...],
    labels_path: str | None,
    tests: tuple[str, ...],
    test_labels_path: str | None,
    epochs: int,
    uniform_epochs: int | None,
    learning_rate: float,
    relative: bool,
    normalize: bool,
    dampening: float,
    batch: int,
    distillation: float,
    shift: int,
    seed: int,
    threads: int,
    output: str,
    json_path: str | None,
) -> None:
    """Train MODEL with its quantizers in place; write the integer network.

    MODEL and its samples are those of `napier quantize`. M is one of its methods that need weights
    alone, or a2q:P, a2q+:P: weights whose sums P bits provably hold. Without --labels only the
    float network teaches. Needs PyTorch, the extra `train`; docs/finetuning.md has the rules.
    """
    from golden.files import save_network
    from napier.finetuning import (
        Plan,
        finetune_document,
        finetune_table,
        require_torch,
        usual_uniform_epochs,
    )
    from napier.fitting import check_model_name, load_labels
    from napier.output import check_outputs
    from napier.quantizing import load_reals, load_source

    paths = [path for path in (labels_path, test_labels_path) if path is not None]
    check_outputs((output, json_path), (*inputs, *tests, *paths, *own_methods(method, layers)))
    check_model_name(output)
    if test_labels_path is not None and not tests:
        raise InputError("--test-labels belong to the samples of --test; add --test X.npy")
    require_torch()
    from napier.training import Training

    source = load_source(model)
    samples = load_reals(source, inputs)
    labels = None if labels_path is None else load_labels(labels_path, samples)
    test = load_reals(source, tests) if tests else None
    test_labels = None
    if test is not None and test_labels_path is not None:
        test_labels = load_labels(test_labels_path, test, "--test-labels", "--test")
    if uniform_epochs is None:
        uniform_epochs = usual_uniform_epochs(method)
    plan = Plan(
        *(method, epochs, uniform_epochs, learning_rate),
        *(bits, layers, activation_bits, keep_ends),
    )
    training = Training(batch, distillation, seed, threads, shift, relative, normalize, dampening)
    with progress_bar() as progress:
        network, document = finetune_document(
            *(source, plan, training, samples, labels, test, test_labels, by_epoch(progress))
        )
    save_network(network, output)
    report(document, json_path, finetune_table(document), written=output)


@cli.command()
@click.argument("model", required=False)
@click.option(
    "--random", "count", type=click.IntRange(1), metavar="N", help="N random networks (or layers)."
)
@click.option(
    "--hardware",
    default=VERIFY_HARDWARE,
    show_default=True,
    help="Preset or TOML; 'random' draws one for each random network.",
)
@click.option("--engine", is_flag=True, help="Layer by layer in the layer engine alone.")
@click.option(
    "--witness", is_flag=True, help="Worst-case inputs at the proved accumulator widths, and below."
)
@click.option(
    "--activation-range",
    type=click.Choice(["datatype", "clamp"]),
    default="clamp",
    show_default=True,
    help="What the proofs of --witness assume (docs/widths.md).",
)
@click.option("--layer", "layer_names", multiple=True, help="Only this layer (name or index).")
@click.option("--input", "inputs", multiple=True, metavar="X.npy", help="One sample of codes.")
@click.option(
    "--weights", default="as-is", show_default=True, metavar="as-is|nhot:N|ternary",
    help="Project the weights first.",
)  # fmt: skip
@winograd_option
@winograd_by_option
@click.option(
    "--seed", type=click.IntRange(0), default=1, show_default=True, help="Seed of what is random."
)
@click.option(
    "--simulator",
    type=click.Choice(["icarus", "verilator"]),
    default="icarus",
    show_default=True,
    help="What runs the Verilog.",
)
@click.option(
    "--stalls",
    "stall_percent",
    type=click.IntRange(0, 95),
    default=0,
    metavar="PERCENT",
    help="The memory pauses at random; then cycles are not compared.",
)
@click.option("--work", "work_folder", metavar="DIR", help="Keep builds and waveforms.")
@click.option("--rtl", "files", multiple=True, metavar="F.v", help="Your Verilog; repeat it.")
@click.option(
    "--contract",
    type=click.Choice(["pe", "array", "requantizer", "layer_engine", "top"]),
    help="What --rtl replaces (docs/contracts.md).",
)
def verify(
    model: str | None,
    count: int | None,
    hardware: str,
    engine: bool,
    witness: bool,
    activation_range: str,
    layer_names: tuple[str, ...],
    inputs: tuple[str, ...],
    weights: str,
    winograd: str | None,
    winograd_by: str | None,
    seed: int,
    simulator: Simulator,
    stall_percent: int,
    work_folder: str | None,
    files: tuple[str, ...],
    contract: str | None,
) -> None:
    """Run a network through the Verilog and compare every bit and every cycle.

    The whole accelerator runs: host registers, DMA, memories, every layer. All tensors and overflow
    counters are compared with the golden model, cycles and their causes with the cycle model. A
    difference ends with exit code 1 and names layer or signal, expected and found value, and the
    waveform. With --engine or --layer the layers that multiply run one by one in the layer
    engine, and a difference names the first cycle.

    With --rtl and --contract your module takes the place of Napier's. It runs random layers (by
    default 8, --random N for more) with each of several accumulators, most so narrow that they
    overflow; a PE also runs alone, through every operand and code.
    """
    from napier.verification import (
        verify_model,
        verify_network,
        verify_proofs,
        verify_random_layers,
        verify_random_networks,
        verify_rtl,
    )

    engine = engine or witness or bool(layer_names)
    drawn = hardware == "random"
    if count is not None and model is not None:
        raise InputError("--random draws its own layers; leave MODEL out, or leave --random out")
    if bool(files) != (contract is not None):
        raise InputError("--rtl and --contract go together: the files, and what they replace")
    if contract is not None and (model is not None or layer_names or inputs):
        raise InputError("--rtl runs layers of its own; leave MODEL, --layer and --input out")
    if drawn and (count is None or engine or contract is not None):
        raise InputError("--hardware random goes with --random N and whole networks; name a preset")
    if (winograd or winograd_by) is not None and (drawn or engine):
        raise InputError("--winograd is of whole programs on hardware that you name; leave it out")
    if witness and (count is not None or inputs or contract is not None):
        raise InputError("--witness makes its own inputs; leave --random, --input and --rtl out")
    if stall_percent and (engine or contract is not None):
        raise InputError("--stalls pauses the memory of the whole accelerator; leave it out here")
    machine = None if drawn else machine_of(hardware, winograd, winograd_by)
    with progress_bar() as progress:
        if machine is None:
            summary = verify_random_networks(
                *(count or 1, None, seed, simulator, stall_percent, work_folder, progress)
            )
        elif witness:
            summary = verify_proofs(
                *(model, machine, layer_names, activation_range, weights, simulator),
                *(work_folder, progress),
            )
        elif contract is not None:
            summary = verify_rtl(
                *(contract, files, machine, count or CONTRACT_LAYERS),
                *(seed, simulator, work_folder, progress),
            )
        elif count is not None and engine:
            summary = verify_random_layers(count, machine, seed, simulator, work_folder, progress)
        elif count is not None:
            summary = verify_random_networks(
                *(count, machine, seed, simulator, stall_percent, work_folder, progress)
            )
        elif engine:
            summary = verify_model(
                model, machine, layer_names, inputs, weights, simulator, work_folder, progress
            )
        else:
            summary = verify_network(
                *(model, machine, inputs, weights, simulator),
                *(stall_percent, work_folder, progress),
            )
    console().print(summary.table())
    if not summary.passed:
        raise SystemExit(1)


@cli.command()
@click.argument("model", required=False)
@click.option("--hardware", default=VERIFY_HARDWARE, show_default=True, help="Preset or TOML.")
@click.option("--input", "inputs", multiple=True, metavar="X.npy", help="One sample of codes.")
@click.option(
    "--weights", default="as-is", show_default=True, metavar="as-is|nhot:N|ternary",
    help="Project the weights first.",
)  # fmt: skip
@winograd_option
@winograd_by_option
@click.option("-o", "--output", "folder", required=True, metavar="DIR", help="New or empty folder.")
def export(
    model: str | None,
    hardware: str,
    inputs: tuple[str, ...],
    weights: str,
    winograd: str | None,
    winograd_by: str | None,
    folder: str,
) -> None:
    """Write Verilog, memory image and bench of MODEL.

    DIR gets everything that a run of the whole network takes but Icarus Verilog: the accelerator
    with its parameters, descriptors, weights and one sample in a memory image, the outputs, cycles
    and counters that are expected, a bench that compares them, and a README. Layers that the
    accelerator does not run may stand before and after the others; they are left to the host.
    """
    from napier.exporting import export_model

    machine = machine_of(hardware, winograd, winograd_by)
    click.echo(export_model(model, machine, inputs, weights, folder).text())


@cli.command()
@click.option("--hardware", default=VERIFY_HARDWARE, show_default=True, help="Preset or TOML.")
@click.option("--json", "json_path", metavar="FILE", help="Everything, as JSON ('-' prints it).")
@click.option("--place", is_flag=True, help="Place and route each kind of PE (nextpnr-ice40).")
def synth(hardware: str, json_path: str | None, place: bool) -> None:
    """Area of the Verilog by module and by kind of PE, as Yosys counts it.

    Generic gates, flip-flops and bits of memories, and LUTs, flip-flops, carry cells and RAM blocks
    of an iCE40, for the whole accelerator. The hierarchy is kept. Of the weight buffer half are
    entry streams, a quarter each feed words and parameters. --place adds the logic cells that each
    kind of PE takes alone on an iCE40 HX8K, and its clock.
    """
    from napier.output import check_writable
    from napier.synthesis import synthesis_table
    from rtl_models.placement import place_pe_kinds
    from rtl_models.synth import synthesize
    from simulator.hardware import load_hardware

    check_writable(json_path)
    machine = load_hardware(hardware)
    with progress_bar() as progress:
        placed = place_pe_kinds(machine, progress) if place else None
        synthesis = synthesize(machine, progress)
    document = synthesis.to_dict()
    if placed is not None:
        document["placed"] = {kind: asdict(each) for kind, each in placed.items()}
    report(document, json_path, synthesis_table(synthesis, placed))


@cli.group()
def hardware() -> None:
    """Hardware that ships with Napier."""


@hardware.command("list")
def hardware_list() -> None:
    """Name the presets."""
    from napier.report import hardware_table
    from simulator.hardware import list_presets, load_hardware

    console().print(hardware_table([load_hardware(name) for name in list_presets()]))


@hardware.command("show")
@click.argument("name")
def hardware_show(name: str) -> None:
    """Print the TOML of a preset or a file, all settings filled in."""
    from simulator.hardware import load_hardware, to_toml

    click.echo(to_toml(load_hardware(name)), nl=False)


def own_methods(method: str, layers: tuple[str, ...]) -> list[str]:
    """Files of the user's own that --method and --layer name."""
    from golden.quantization.registry import method_file
    from napier.quantizing import layer_parts

    texts = [method, *(layer_parts(text)[1] for text in layers)]
    return [str(path) for path in map(method_file, texts) if path is not None]


def check_figure_format(path: str) -> str:
    """Name the figure format that the ending of `path` asks for."""
    ending = Path(path).suffix.removeprefix(".").lower()
    if ending not in FIGURE_FORMATS:
        raise InputError(
            f"--plot {path}: '{ending}' is not a figure format; use .png, .svg or .pdf"
        )
    return ending


def save_figure(figure: Figure, path: str, figure_format: str | None) -> None:
    """Draw a figure into `path`."""
    from napier.output import replacing

    with replacing(path) as file:
        figure.savefig(file, format=figure_format, dpi=150)


def report(
    document: dict[str, Any],
    json_path: str | None,
    *tables: RenderableType,
    written: str | None = None,
) -> None:
    """Print tables, and the name of a file that was written; the document goes to `json_path`.

    With `json_path` "-" the document is all that is printed.
    """
    from napier.output import write_text

    text = json.dumps(document, indent=1) + "\n"
    if json_path == "-":
        click.echo(text, nl=False)
        return
    for table in tables:
        console().print(table)
    if written:
        click.echo(f"written: {written}")
    if json_path:
        write_text(json_path, text)


def console() -> Console:
    """Where tables go: 80 columns, or as many more as the terminal has.

    A narrower terminal wraps the lines; cutting them would lose digits.
    """
    from rich.console import Console

    width = Console().width if sys.stdout.isatty() else 80
    return Console(width=max(80, width), highlight=False)


def by_epoch(progress: Progress) -> Progress:
    """Also print a line for each epoch, on standard error: training takes minutes."""

    def show(done: int, total: int, what: str) -> None:
        progress(done, total, what)
        if done:
            click.echo(f"epoch {done}/{total}: {what}", err=True)

    return show


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show progress on standard error while it is a terminal; silent otherwise."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    screen = Console(stderr=True)
    with Progress(
        TextColumn("{task.description:<28.28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, what: bar.update(
            task, completed=done, total=total, description=what
        )


def main() -> None:
    """Entry point: turns every expected failure into one sentence and an exit code."""
    try:
        code = cli.main(standalone_mode=False)
        sys.stdout.flush()
    except NapierError as error:
        fail(str(error))
    except click.ClickException as error:
        fail(error.format_message())
    except (click.exceptions.Abort, KeyboardInterrupt):
        fail("interrupted; files that were being written are as they were before")
    except BrokenPipeError:
        _drop_standard_output()
        raise SystemExit(0) from None
    except OSError as error:
        _drop_standard_output()
        fail(f"the output cannot be written: {error.strerror or error}")
    except MemoryError:
        fail("this needs more memory than the machine has; give fewer samples or a smaller model")
    else:
        raise SystemExit(code)


def _drop_standard_output() -> None:
    """Keep the interpreter from flushing what nobody can take, which would be a traceback."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(sentence: str) -> None:
    """Say one sentence and exit with 2."""
    click.echo(f"napier: {sentence}", err=True)
    raise SystemExit(2)
