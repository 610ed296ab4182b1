"""What n-hot weights save, by the paper's kind of counting and by that of a hardware designer.

The paper (arXiv 2103.11704, of which only the abstract could be read) reports about 75 % fewer
operations and an 11.5 % smaller model for a CenterNet with MobileNetV2 backbone, both against
uniform 8-bit weights. `operation_accounts` and `size_accounts` show which countings give these
figures; that they are the paper's is a conclusion from the numbers, not a quotation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from golden.quantization.codes import largest_code, nhot_levels

UNIFORM_BITS = 8

MULTIPLY_8X8_PJ = 0.2
SHIFT_8_PJ = 0.024
ADD_24_PJ = 0.079
"""Energies in 45 nm at 0.9 V: Horowitz, ISSCC 2014, the shift from a table derived from it, the
24-bit addition interpolated between its 16 and 32 bits."""


@dataclass(frozen=True)
class LayerShape:
    """A layer that multiplies.

    Parameters
    ----------
    name : str
    out_channels : int
        Each with one scale and bias, or one batch norm.
    taps : int
        Weights of an output channel.
    pixels : int
        Output pixels.
    backbone : bool
        Whether it belongs to the feature extractor.
    """

    name: str
    out_channels: int
    taps: int
    pixels: int
    backbone: bool = True

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.out_channels * self.taps

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return self.weights * self.pixels


@dataclass(frozen=True)
class Account:
    """One way of counting.

    Parameters
    ----------
    counting : str
        What is counted.
    uniform, nhot : float
        Cost with uniform 8-bit and with n-hot weights, in the same unit.
    """

    counting: str
    uniform: float
    nhot: float

    @property
    def saving(self) -> float:
        """Part of the uniform cost that is saved; negative where n-hot costs more."""
        return 1 - self.nhot / self.uniform


# Networks -----------------------------------------------------------------------------------------

MOBILENET_V2_BLOCKS = (  # expansion, channels, repeats, first stride
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Sandler et al. 2018 (1801.04381), table 2."""


def mobilenet_v2_backbone(size: int = 512) -> tuple[LayerShape, ...]:
    """Convolutions of MobileNetV2 1.0 without its classifier, for `size` x `size` images."""
    side, channels = size // 2, 32
    layers = [LayerShape("stem", channels, 27, side**2)]
    for block, (expansion, out_channels, repeats, first_stride) in enumerate(MOBILENET_V2_BLOCKS):
        for repeat in range(repeats):
            name, wide = f"block_{block}_{repeat}", expansion * channels
            if expansion > 1:
                layers.append(LayerShape(f"{name}_expand", wide, channels, side**2))
            side //= first_stride if repeat == 0 else 1
            layers.append(LayerShape(f"{name}_depthwise", wide, 9, side**2))
            layers.append(LayerShape(f"{name}_project", out_channels, wide, side**2))
            channels = out_channels
    layers.append(LayerShape("last", 1280, channels, side**2))
    return tuple(layers)


def centernet_mobilenet_v2(size: int = 512, classes: int = 80) -> tuple[LayerShape, ...]:
    """CenterNet on that backbone: three 4x4 deconvolutions and three heads.

    Decoder and heads as in Zhou et al. 2019 (1904.07850) for ResNets: 256 channels, heads of 3x3
    with 64 channels and 1x1 for classes, sizes and offsets. The n-hot paper's own decoder is not
    known.
    """
    layers, channels, side = list(mobilenet_v2_backbone(size)), 1280, size // 32
    for stage in range(3):
        # `side` is that of the input: in a deconvolution each input pixel meets every weight once
        layers.append(LayerShape(f"deconv_{stage}", 256, 16 * channels, side**2, backbone=False))
        channels, side = 256, 2 * side
    for head, outputs in (("classes", classes), ("sizes", 2), ("offsets", 2)):
        layers.append(LayerShape(f"{head}_3x3", 64, 9 * channels, side**2, backbone=False))
        layers.append(LayerShape(f"{head}_1x1", outputs, 64, side**2, backbone=False))
    return tuple(layers)


# Accounts -----------------------------------------------------------------------------------------


def operation_accounts(
    terms: int, layers: Sequence[LayerShape] | None = None
) -> tuple[Account, ...]:
    """Cost of all multiply-accumulates with n-hot weights, counted in four ways.

    Parameters
    ----------
    terms : int
        n of n-hot.
    layers : sequence of LayerShape or None
        Default: `centernet_mobilenet_v2`.

    Returns
    -------
    tuple of Account
        Additions where every bit of a uniform weight costs one; where every bit of its magnitude
        does; where the backbone alone is n-hot; and, in picojoules, against a real 8x8 multiplier.
    """
    layers = centernet_mobilenet_v2() if layers is None else layers
    macs = sum(layer.macs for layer in layers)
    backbone = sum(layer.macs for layer in layers if layer.backbone)
    bits = UNIFORM_BITS
    return (
        Account("additions, one for each bit of a weight", bits * macs, terms * macs),
        Account(
            "additions, one for each magnitude bit of a weight", (bits - 1) * macs, terms * macs
        ),
        Account(
            "additions, one for each bit of a weight; backbone alone n-hot",
            bits * macs,
            terms * backbone + bits * (macs - backbone),
        ),
        Account(
            "picojoules, 8x8 multiplier and 24-bit addition",
            (MULTIPLY_8X8_PJ + ADD_24_PJ) * macs,
            terms * (SHIFT_8_PJ + ADD_24_PJ) * macs,
        ),
    )


def codebook_bits(terms: int, max_exponent: int = UNIFORM_BITS - 1) -> int:
    """Bits that number the n-hot values of 8-bit codes."""
    return nhot_levels(terms, max_exponent, largest_code(UNIFORM_BITS)).codebook_bits


def size_accounts(terms: int, layers: Sequence[LayerShape] | None = None) -> tuple[Account, ...]:
    """Bits of a model with n-hot weights, counted in several ways.

    Parameters
    ----------
    terms : int
        n of n-hot.
    layers : sequence of LayerShape or None
        Default: `mobilenet_v2_backbone`.

    Returns
    -------
    tuple of Account
        Weights alone in a code book; with two 32-bit numbers for each channel's batch norm; with
        one 32-bit bias for each channel; and weights alone as pairs of sign and exponent.
    """
    layers = mobilenet_v2_backbone() if layers is None else layers
    weights = sum(layer.weights for layer in layers)
    channels = sum(layer.out_channels for layer in layers)
    coded = codebook_bits(terms) * weights
    plain = UNIFORM_BITS * weights
    pairs = terms * (1 + (UNIFORM_BITS - 1).bit_length()) * weights
    return (
        Account("weights in a code book", plain, coded),
        Account(
            "weights in a code book, batch norm 2 x 32 bits a channel",
            plain + 64 * channels,
            coded + 64 * channels,
        ),
        Account(
            "weights in a code book, bias 32 bits a channel",
            plain + 32 * channels,
            coded + 32 * channels,
        ),
        Account("weights as pairs of sign and exponent", plain, pairs),
    )


def unrecoded_share(saving: float, terms: int = 2) -> float:
    """Share of a model's bits that must not be recoded for the code book to save `saving`."""
    return 1 - saving / (1 - codebook_bits(terms) / UNIFORM_BITS)
