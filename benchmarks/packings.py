"""Prints the tables of docs/packings.md: gates of the decoders, bits a weight of networks.

    python benchmarks/packings.py [MODEL ...]

Without a model, the network that ships with Napier. Weights are projected as `napier run --weights
nhot:2` and `ternary` do; every layer is packed on its own and fills its last byte.
"""

from __future__ import annotations

import click

from golden.network import Network, WeightedLayer
from golden.packings import PACKINGS, Packing
from napier.loading import load_model
from rtl_models.synth import pe_kinds, synthesize_designs
from simulator.hardware import load_hardware
from simulator.program import LayerProgram, compile_layer
from simulator.projection import project_weights

DECODERS = {
    "nhot1_code": ("nhot_code_decoder", {"TERMS": 1, "CODE_W": 4}, 1),
    "nhot2_code": ("nhot_code_decoder", {"TERMS": 2, "CODE_W": 7}, 1),
    "nhot3_code": ("nhot_code_decoder", {"TERMS": 3, "CODE_W": 8}, 1),
    "nhot2_pairs": ("nhot_pair_decoder", {"TERMS": 2}, 1),
    "nhot3_pairs": ("nhot_pair_decoder", {"TERMS": 3}, 1),
    "ternary_twos_complement": ("trit_pair_decoder", {"LANES": 8, "OFFSET": 0}, 8),
    "ternary_offset": ("trit_pair_decoder", {"LANES": 8, "OFFSET": 1}, 8),
    "ternary_planes": ("ternary_plane_decoder", {"LANES": 8}, 8),
    "ternary_trits5": ("trit_decoder", {}, 5),
}
"""Module, parameters and weights at a time of each packing's decoder."""

PACKED = {
    "nhot:1": ["nhot1_code"],
    "nhot:2": ["nhot2_code", "nhot2_pairs"],
    "nhot:3": ["nhot3_code", "nhot3_pairs"],
    "ternary": [name for name in PACKINGS if name.startswith("ternary")],
}
STREAMED = {
    "as-is": ["mac16x16"],
    "nhot:1": ["nhot2_16x16"],
    "nhot:2": ["nhot2_16x16", "nhot2_parallel"],
    "nhot:3": ["nhot2_16x16"],
    "ternary": ["ternary16x16", "nhot2_16x16"],
}


def show_gates() -> None:
    """Gates and LUTs of each decoder, and of what makes the addend in a PE."""
    designs = {name: (module, values) for name, (module, values, _) in DECODERS.items()}
    kinds = pe_kinds(load_hardware("mac4x4"))
    designs |= {kind: ("napier_pe", values) for kind, values in kinds.items()}
    areas, version = synthesize_designs(designs)
    click.echo(
        f"{version}\n\n| packing | gates | iCE40 LUTs | weights at a time | gates a weight |"
    )
    for name, (_, _, lanes) in DECODERS.items():
        area = areas[name][0].area
        click.echo(
            f"| {name} | {area.gates} | {area.ice40_luts} | {lanes} | {area.gates / lanes:.1f} |"
        )
    for kind in kinds:
        click.echo(
            f"| PE: {kind} | {areas[kind][0].area.gates} | {areas[kind][0].area.ice40_luts} |"
        )


def weighted(network: Network) -> list[WeightedLayer]:
    return [layer for layer in network.layers if isinstance(layer, WeightedLayer)]


def show_network(network: Network) -> None:
    """Bits a weight: packed, and in the entry streams of the weight blocks."""
    count = sum(layer.weights.size for layer in weighted(network))
    click.echo(f"\n{network.name}: {len(weighted(network))} layers, {count} weights\n")
    click.echo("| weights | zero | stored as | bytes | bits a weight |")
    for weights in STREAMED:
        projected = project_weights(network, weights)
        zeros = sum(
            (layer.weights == layer.weight_zero_point).sum() for layer in weighted(projected)
        )
        head = f"| {weights} | {zeros / count:.1%} |"
        for name in PACKED.get(weights, ()):
            stored = packed_bytes(projected, PACKINGS[name])
            click.echo(f"{head} {name} | {stored} | {8 * stored / count:.3f} |")
        for preset in STREAMED[weights]:
            stored, fed = stream_bytes(projected, preset)
            both = stored + fed
            click.echo(f"{head} stream, {preset} | {stored} | {8 * stored / count:.3f} |")
            click.echo(f"{head} stream and feed words | {both} | {8 * both / count:.3f} |")


def packed_bytes(network: Network, packing: Packing) -> int:
    """Bytes of all layers, which are unpacked again."""
    total = 0
    for layer in weighted(network):
        data = packing.pack(layer.weights)
        assert (packing.unpack(data, layer.weights.size) == layer.weights.reshape(-1)).all()
        total += data.size
    return total


def stream_bytes(network: Network, preset: str) -> tuple[int, int]:
    """Bytes of the entry streams and of the feed words of all layers, in whole beats."""
    hardware = load_hardware(preset)
    streams = feeds = 0
    for layer in weighted(network):
        program: LayerProgram = compile_layer(
            layer, network.tensors[layer.inputs[0]].shape, hardware
        )
        start = program.streams.start
        entries = (start[:, -1] - start[:, 0]).tolist()
        streams += sum(-(-column // hardware.stream_places) for column in entries)
        feeds += -(-program.feed.addr.size // hardware.feed_places)
    return streams * hardware.beat_bytes, feeds * hardware.beat_bytes


@click.command()
@click.argument("models", nargs=-1)
def main(models: tuple[str, ...]) -> None:
    """Print gates of the decoders, and bits a weight of MODELS (default: the shipped network)."""
    show_gates()
    for model in models or (None,):
        show_network(load_model(model))


if __name__ == "__main__":
    main()
