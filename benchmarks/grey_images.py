"""Quantizers on small CNNs for grey images, from training to the integer networks.

python benchmarks/grey_images.py IMAGES.npz [plain|depthwise|residual ...] [--finetune]

IMAGES.npz holds x, y (to train on and to calibrate by) and u, v (to test): uint8 images
(N, 28, 28) and classes. Each CNN is trained with batch normalisation in PyTorch, written as ONNX
and quantized by the methods below from 50 images of x, drawn twice. Accuracies are those of
golden's integer networks. `--finetune` goes on to train 2-hot and ternary weights on x and y as
`napier finetune` does. Needs the extras `train` and `onnx`; some minutes a network, and with
`--finetune` some more for every 10,000 images.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import click
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

from golden.float_run import run_float
from golden.quantization.calibrate import quantize_network
from golden.run import run
from napier.finetuning import Plan, finetune_document
from napier.loading import Samples
from napier.quantizing import Request, load_source, parse_settings
from napier.training import Training

# conv: in, out, kernel, stride, groups; batch normalisation follows each
NETWORKS = {
    "plain": ["conv 1 16 3 1 1", "relu", "pool", "conv 16 32 3 1 1", "relu", "pool",
              "conv 32 64 3 1 1", "relu", "mean 64"],
    "depthwise": ["conv 1 16 3 2 1", "relu", "conv 16 16 3 1 16", "relu", "conv 16 32 1 1 1",
                  "relu", "conv 32 32 3 2 32", "relu", "conv 32 64 1 1 1", "relu",
                  "conv 64 64 3 1 64", "relu", "conv 64 64 1 1 1", "relu", "mean 64"],
    "residual": ["conv 1 16 3 2 1", "relu", "keep", "conv 16 16 3 1 1", "relu",
                 "conv 16 16 3 1 1", "add", "relu", "conv 16 32 3 2 1", "relu", "keep",
                 "conv 32 32 3 1 1", "relu", "conv 32 32 3 1 1", "add", "relu", "mean 32"],
}  # fmt: skip

REQUESTS = {
    "INT8 uniform": Request("uniform", 8),
    "INT8 easyquant": Request("easyquant", 8),
    "INT7 easyquant": Request("easyquant", 7),
    "INT7 max": Request("uniform", 7, scheme="symmetric", scales="max"),
    "INT7 kl": Request("uniform", 7, scheme="symmetric", scales="kl"),
}

PLANS = [
    Plan("nhot:n=2", epochs=1, uniform_epochs=1, learning_rate=1e-3),
    Plan("ternary", epochs=10, uniform_epochs=0, learning_rate=1e-3),
]

EPOCHS, BATCH, CALIBRATION, DRAWS = 8, 64, 50, 2


class Network(nn.Module):
    """One of `NETWORKS`, NCHW."""

    def __init__(self, steps: list[str], classes: int) -> None:
        super().__init__()
        self.steps = [step.split() for step in steps]
        sizes = [[int(n) for n in rest] for kind, *rest in self.steps if kind == "conv"]
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=False) for i, o, k, s, g in sizes
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(size[1]) for size in sizes)
        self.dense = nn.Linear(int(self.steps[-1][1]), classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of the classes."""
        layers = iter(zip(self.convs, self.norms, strict=True))
        kept = x
        for kind, *_ in self.steps:
            if kind == "conv":
                conv, norm = next(layers)
                x = norm(conv(x))
            elif kind == "relu":
                x = functional.relu(x)
            elif kind == "pool":
                x = functional.max_pool2d(x, 2)
            elif kind == "keep":
                kept = x
            elif kind == "add":
                x = x + kept
        scores: torch.Tensor = self.dense(x.mean((2, 3)))
        return scores


def train(network: Network, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Adam and one cycle of the learning rate."""
    steps = len(images) // BATCH
    optimizer = torch.optim.Adam(network.parameters(), weight_decay=1e-4)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=EPOCHS * steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(images))[: steps * BATCH]
        for chosen in order.reshape(steps, BATCH):
            loss = functional.cross_entropy(network(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            cycle.step()
    network.eval()


def save_onnx(network: Network, path: Path) -> None:
    """Write the network, batch normalisation and all."""
    nodes, stored, current, kept, used = [], [], "x", "x", 0

    def add(op: str, others: list[torch.Tensor], **attributes: object) -> None:
        nonlocal current
        names = [f"{op}{len(nodes)}_{place}" for place in range(len(others))]
        for name, values in zip(names, others, strict=True):
            stored.append(numpy_helper.from_array(values.detach().numpy(), name))
        output = f"t{len(nodes)}"
        inputs = [current, *([kept] if op == "Add" else []), *names]
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        current = output

    for kind, *_ in network.steps:
        if kind == "conv":
            conv, norm = network.convs[used], network.norms[used]
            pads, strides = [*conv.padding] * 2, [*conv.stride]
            add("Conv", [conv.weight], pads=pads, strides=strides, group=conv.groups)
            moments = [norm.weight, norm.bias, norm.running_mean, norm.running_var]
            add("BatchNormalization", moments, epsilon=norm.eps)
            used += 1
        elif kind == "pool":
            add("MaxPool", [], kernel_shape=[2, 2], strides=[2, 2])
        elif kind == "keep":
            kept = current
        elif kind in ("relu", "add"):
            add(kind.capitalize(), [])
    add("GlobalAveragePool", [])
    add("Flatten", [])
    add("Gemm", [network.dense.weight, network.dense.bias], transB=1)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 1, 28, 28]), (current, [1, network.dense.out_features]))
    ]
    graph = helper.make_graph(nodes, path.stem, ends[:1], ends[1:], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


def measure(path: Path, data: dict[str, np.ndarray]) -> None:
    """Print the accuracy of the float network and of each integer one."""
    source = load_source(str(path))
    batches = [slice(start, start + 100) for start in range(0, len(data["u"]), 100)]
    index = source.network.outputs[0]
    real = [run_float(source.network, data["u"][part])[index].argmax(axis=1) for part in batches]
    click.echo(f"{path.stem}: float {np.mean(np.concatenate(real) == data['v']):.2%}")
    for name, request in REQUESTS.items():
        found = []
        for seed in range(DRAWS):
            chosen = np.random.default_rng(seed).permutation(len(data["x"]))[:CALIBRATION]
            quantized = quantize_network(source.network, parse_settings(request), data["x"][chosen])
            codes = quantized.parameters[source.network.inputs[0]].codes(data["u"]).astype(np.int8)
            best = [run(quantized.network, codes[b]).outputs[0].argmax(axis=1) for b in batches]
            found.append(float(np.mean(np.concatenate(best) == data["v"])))
        click.echo(f"  {name:14} " + " ".join(f"{each:.2%}" for each in found))


def tune(path: Path, data: dict[str, np.ndarray]) -> None:
    """Print the accuracies of INT8, of projected weights and of fine-tuned ones."""
    source = load_source(str(path))
    samples, test = (Samples((data[key],), f"{len(data[key])} images") for key in ("x", "u"))
    labels = data["y"].astype(np.int64)
    for plan in PLANS:
        _, document = finetune_document(
            source, plan, Training(), samples, labels, test, data["v"].astype(np.int64)
        )
        found = [document["comparison"][f"accuracy_{w}"] for w in ("uniform", "projected", "tuned")]
        click.echo(f"  {plan.method:14} " + " ".join(f"{each:.2%}" for each in found))


def main() -> None:
    """Train, quantize and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images")
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--folder", default=None, help="where the ONNX files go")
    parser.add_argument("--finetune", action="store_true", help="train 2-hot and ternary weights")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with np.load(arguments.images) as archive:
        data = dict(archive)
    for key in ("x", "u"):
        data[key] = data[key].astype(np.float32)[..., np.newaxis] / 255
    images = torch.from_numpy(data["x"].transpose(0, 3, 1, 2))
    labels = torch.from_numpy(data["y"].astype(np.int64))
    folder = Path(arguments.folder or tempfile.mkdtemp())
    for name in arguments.networks:
        path = folder / f"{name}.onnx"
        if not path.exists():
            torch.manual_seed(0)
            network = Network(NETWORKS[name], int(data["y"].max()) + 1)
            train(network, images, labels)
            save_onnx(network, path)
        measure(path, data)
        if arguments.finetune:
            tune(path, data)


if __name__ == "__main__":
    main()
