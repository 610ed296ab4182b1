"""What the memories of the accelerator hold for one layer: feed words, entry streams, parameters.

A `LayerProgram` is data for the engine of docs/microarchitecture.md; no activation is touched here.
Both speeds of the model run it, and the Verilog benches load it through `stream_words`,
`feed_words` and `simulator.memory_image`.

Words are kept field by field in flat arrays; `encode_entry` and `encode_feed_word` pack them in the
bit order of rules S1 and M3, with the widths of `simulator.hardware.Widths`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import ceil, lcm, prod

import numpy as np
from numpy.typing import NDArray

from golden.errors import HardwareError, InputError
from golden.network import Conv2D, FullyConnected, Padding, Rounding, WeightedLayer
from simulator.digits import signed_digits
from simulator.hardware import MAX_ADVANCE, Hardware, Widths, check_layer_fits

IntArray = NDArray[np.int64]

ROUNDINGS: tuple[Rounding, ...] = (
    "double",
    "single",
    "multiplier16",
    "shift_half_up",
    "shift_half_even",
)
"""The rounding rules in the order of their numbers in kernels and in Verilog."""


@dataclass(frozen=True)
class Geometry:
    """Shape of one layer on one array; a dense layer is a 1x1 convolution on an image of height 1.

    Parameters
    ----------
    rows, cols, feed : int
        R, C and F of the array.
    height, width, in_channels : int
        Of the input image.
    out_height, out_width, out_channels : int
        Of the output image.
    kernel, stride, dilation : (int, int)
        Vertical first.
    pad_top, pad_left : int
    groups : int
    form : int
        0 for a direct convolution. With 1, F(2x2, 3x3), or 2, F(4x4, 3x3), an output pixel is a
        tile of m x m outputs, `kernel` the n x n taps of a patch, and `stride` m (rules W).
    chunk_words : int
        Words of input channels of a chunk (rule W2); 0 for a direct convolution.
    image : (int, int)
        Height and width of the output in outputs; (0, 0) where they are those in pixels.
    """

    rows: int
    cols: int
    feed: int
    height: int
    width: int
    in_channels: int
    out_height: int
    out_width: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pad_top: int
    pad_left: int
    groups: int
    form: int = 0
    chunk_words: int = 0
    image: tuple[int, int] = (0, 0)

    @property
    def stored(self) -> tuple[int, int]:
        """Height and width of the output image."""
        return self.image if self.form else (self.out_height, self.out_width)

    @property
    def reach(self) -> tuple[int, int]:
        """Rows and columns of the padded image that the taps read."""
        rows, columns = (
            (out - 1) * stride + (taps - 1) * dilation + 1
            for out, stride, taps, dilation in zip(
                (self.out_height, self.out_width),
                self.stride,
                self.kernel,
                self.dilation,
                strict=True,
            )
        )
        return rows, columns

    @property
    def tile_outputs(self) -> int:
        """Outputs of an output pixel: m * m, or 1."""
        return prod(self.stride) if self.form else 1

    @property
    def chunks(self) -> int:
        """Chunks of a tile's input channels (rule W2); 1 for a direct convolution."""
        return ceil(self.in_words / self.chunk_words) if self.form else 1

    @property
    def part_words(self) -> IntArray:
        """Words of the parts of a channel tile (rule W4); empty for a direct convolution."""
        if not self.form:
            return np.zeros(0, np.int64)
        words = np.full(self.chunks, self.chunk_words, np.int64)
        words[-1] = self.in_words - self.chunk_words * (self.chunks - 1)
        return np.repeat(words, prod(self.kernel))

    @property
    def strip_tiles(self) -> int:
        """Pixel tiles that a strip has a multiple of (rule W7)."""
        return lcm(self.pitch, self.rows) // self.rows if self.form else 1

    @cached_property
    def pitch(self) -> int:
        """Pixel indices from one output row to the next (rule M1)."""
        return max(self.out_width, ceil(self.width / self.stride[1]))

    @cached_property
    def pixel_tiles(self) -> int:
        """Tiles of R pixel indices (rule M1)."""
        return ceil(((self.out_height - 1) * self.pitch + self.out_width) / self.rows)

    @property
    def channel_tiles(self) -> int:
        """Tiles of C output channels."""
        return ceil(self.out_channels / self.cols)

    @property
    def in_words(self) -> int:
        """Words of F channels of an input pixel (rule M2)."""
        return ceil(self.in_channels / self.feed)

    @property
    def out_words(self) -> int:
        """Words of F channels of an output pixel (rule M6)."""
        return ceil(self.out_channels / self.feed)

    @property
    def plane_lines(self) -> int:
        """Lines of a bank for one phase plane (rule M2)."""
        return ceil(ceil(self.height / self.stride[0]) * self.pitch / self.rows)

    @property
    def bank_words(self) -> int:
        """Words that the whole image takes in each activation bank (rule M2)."""
        return prod(self.stride) * self.plane_lines * self.in_words

    @property
    def out_bank_words(self) -> int:
        """Words that the whole image takes in each output bank (rules M6, W6)."""
        return self.pixel_tiles * self.out_words * self.tile_outputs

    def columns_used(self, channel_tile: int) -> int:
        """Count the output channels of a channel tile."""
        return min(self.cols, self.out_channels - channel_tile * self.cols)

    def pixel(self, index: int) -> tuple[int, int] | None:
        """(oy, ox) of a pixel index, or None where the row is idle (rule M1)."""
        oy, ox = divmod(index, self.pitch)
        return (oy, ox) if oy < self.out_height and ox < self.out_width else None

    def walk(self) -> dict[str, int]:
        """How image coordinates go from one pixel tile to the next; names of `pixel_walker`."""
        (stride_y, stride_x), pitch = self.stride, self.pitch
        step_y, step_x = divmod(self.rows, pitch)
        return {
            "step_y": step_y * stride_y,
            "step_x": step_x * stride_x,
            "row_y": stride_y,
            "wrap_x": pitch * stride_x,
            "pitch_x": pitch * stride_x - self.pad_left,
            "end_y": self.out_height * stride_y - self.pad_top,
            "end_x": self.out_width * stride_x - self.pad_left,
        }

    def starts(self, pixel_tile: int) -> list[tuple[int, int]]:
        """Input coordinates (y, x) that tap (0, 0) reads in each row of a pixel tile."""
        first = pixel_tile * self.rows
        pixels = [divmod(index, self.pitch) for index in range(first, first + self.rows)]
        return [
            (oy * self.stride[0] - self.pad_top, ox * self.stride[1] - self.pad_left)
            for oy, ox in pixels
        ]

    def pixels_of(self, pixel_tiles: range) -> int:
        """Count the pixels, idle rows excluded, of a range of pixel tiles."""
        index = np.arange(pixel_tiles.start * self.rows, pixel_tiles.stop * self.rows)
        oy, ox = np.divmod(index, self.pitch)
        return int(np.count_nonzero((oy < self.out_height) & (ox < self.out_width)))


def layer_geometry(
    layer: WeightedLayer, input_shape: tuple[int, ...], hardware: Hardware
) -> Geometry:
    """Lay one image of `input_shape` (batch first, any batch) out for the array.

    Raises
    ------
    InputError
        The shape is not one the layer takes.
    """
    array = hardware.array
    if isinstance(layer, FullyConnected):
        features = layer.weights.shape[1]
        vectors, left_over = divmod(prod(input_shape[1:]), features)
        if left_over or not vectors:
            raise InputError(
                f'layer "{layer.name}" takes vectors of {features} features, but one image of its'
                f" input {input_shape} has {prod(input_shape[1:])} values; check the shape"
            )
        return Geometry(
            rows=array.rows,
            cols=array.cols,
            feed=array.feed,
            height=1,
            width=vectors,
            in_channels=features,
            out_height=1,
            out_width=vectors,
            out_channels=layer.weights.shape[0],
            kernel=(1, 1),
            stride=(1, 1),
            dilation=(1, 1),
            pad_top=0,
            pad_left=0,
            groups=1,
        )
    if not isinstance(layer, Conv2D):
        raise InputError(f'layer "{layer.name}" is a {layer.op}, which the array does not run')
    if len(input_shape) != 4 or layer.weights.shape[3] * layer.groups != input_shape[3]:
        raise InputError(
            f'layer "{layer.name}" takes NHWC images of'
            f" {layer.weights.shape[3] * layer.groups} channels, but its input is {input_shape};"
            " check the shape"
        )
    height, width, in_channels = input_shape[1:]
    pad: Padding = layer.padding
    kernel = (layer.weights.shape[1], layer.weights.shape[2])
    padded = (height + pad.top + pad.bottom, width + pad.left + pad.right)
    out_height, out_width = (
        (size - (k - 1) * dilation - 1) // stride + 1
        for size, k, dilation, stride in zip(
            padded, kernel, layer.dilation, layer.stride, strict=True
        )
    )
    if out_height < 1 or out_width < 1:
        raise InputError(
            f'layer "{layer.name}" has a kernel larger than its padded input {padded}; check the'
            " shape"
        )
    return Geometry(
        rows=array.rows,
        cols=array.cols,
        feed=array.feed,
        height=height,
        width=width,
        in_channels=in_channels,
        out_height=out_height,
        out_width=out_width,
        out_channels=layer.weights.shape[0],
        kernel=kernel,
        stride=layer.stride,
        dilation=layer.dilation,
        pad_top=pad.top,
        pad_left=pad.left,
        groups=layer.groups,
    )


@dataclass(frozen=True)
class FeedWords:
    """Feed memory (rule M3): one element a word, channel tiles one after the other.

    Parameters
    ----------
    last, addr, rot, dy, dx : (words,) int64 arrays
    start : (channel tiles + 1,) int64 array
        Words of the i-th channel tile of the program are start[i] to start[i + 1] - 1.
    """

    last: IntArray
    addr: IntArray
    rot: IntArray
    dy: IntArray
    dx: IntArray
    start: IntArray


@dataclass(frozen=True)
class Streams:
    """Stream memories (rules M4, S1 to S4): one element an entry, columns one after the other.

    Parameters
    ----------
    last, advance, lane : (entries,) uint8 arrays
    code : (entries,) int32 array
        Bit pattern of rule S2, not negative.
    start : (C, channel tiles + 1) int64 array
        Entries of column c in the i-th channel tile of the program are start[c, i] to
        start[c, i + 1] - 1; start[c, -1] is start[c + 1, 0].
    """

    last: NDArray[np.uint8]
    advance: NDArray[np.uint8]
    lane: NDArray[np.uint8]
    code: NDArray[np.int32]
    start: IntArray


@dataclass(frozen=True)
class Parameters:
    """Parameter memory (rule M5) and what else the post-processor needs.

    Parameters
    ----------
    bias, multiplier, shift : (out_channels,) int64 arrays
        One a channel of the layer, also in a program of some channel tiles only.
    rounding : Rounding
    output_zero_point, activation_min, activation_max : int
    """

    bias: IntArray
    multiplier: IntArray
    shift: IntArray
    rounding: Rounding
    output_zero_point: int
    activation_min: int
    activation_max: int


@dataclass(frozen=True)
class LayerProgram:
    """One layer, or with `part` the piece of it that one engine run does.

    Parameters
    ----------
    name : str
        Of the layer.
    hardware : Hardware
    geometry : Geometry
        Of the whole layer, always.
    input_zero_point : int
    feed : FeedWords
    streams : Streams
    parameters : Parameters
    pixel_tiles, channel_tiles : range
        Tiles of the layer that this program runs, channel tiles the outer loop (rule S5). `feed`
        and `streams` hold the channel tiles of the range only.
    drain : bool
        cfg_drain: False leaves the sums in the accumulators for the next run (rule E4).
    """

    name: str
    hardware: Hardware
    geometry: Geometry
    input_zero_point: int
    feed: FeedWords
    streams: Streams
    parameters: Parameters
    pixel_tiles: range
    channel_tiles: range
    drain: bool = True

    @cached_property
    def words(self) -> IntArray:
        """Feed words of each channel tile of the program."""
        return np.diff(self.feed.start)

    @cached_property
    def entries(self) -> IntArray:
        """(C, channel tiles) entries of each column in each channel tile, fillers included."""
        return np.diff(self.streams.start, axis=1)

    def part(
        self,
        pixel_tiles: range | None = None,
        channel_tiles: range | None = None,
        words: range | None = None,
        drain: bool = True,
    ) -> LayerProgram:
        """Cut out one engine run.

        Parameters
        ----------
        pixel_tiles, channel_tiles : range or None
            Of the layer, step 1, inside this program's ranges; None keeps the program's.
        words : range or None
            Words of a single channel tile (rule E4): the streams are cut there and get the fillers
            and the `last` entries that rule S4 asks for.
        drain : bool
            cfg_drain of the run.
        """
        channel_tiles = self.channel_tiles if channel_tiles is None else channel_tiles
        first = channel_tiles.start - self.channel_tiles.start
        tiles = [_read_tile(self, first + i) for i in range(len(channel_tiles))]
        if words is not None:
            tiles = [_cut(tile, words) for tile in tiles]
        feed, streams = _lay_down(tiles, self.geometry.cols)
        return replace(
            self,
            feed=feed,
            streams=streams,
            pixel_tiles=self.pixel_tiles if pixel_tiles is None else pixel_tiles,
            channel_tiles=channel_tiles,
            drain=drain,
        )


@dataclass(frozen=True)
class _Column:
    """Entries of one column of one tile; `word` counts the tile's listed words from 0."""

    word: IntArray
    lane: IntArray
    code: IntArray


@dataclass(frozen=True)
class _Tile:
    """Feed words (fields of rule M3 but `last`) and columns of one channel tile."""

    addr: IntArray
    rot: IntArray
    dy: IntArray
    dx: IntArray
    columns: list[_Column]
    ends: IntArray  # one past the last word of each part (rule W4)


def compile_layer(
    layer: WeightedLayer, input_shape: tuple[int, ...], hardware: Hardware
) -> LayerProgram:
    """Lay a layer out in the memories of the accelerator.

    Parameters
    ----------
    layer : WeightedLayer
    input_shape : tuple of int
        Batch first; the program is for one image, each of a batch takes one run of it.
    hardware : Hardware

    Raises
    ------
    HardwareError
        The PE cannot hold a weight (see `check_layer_fits`).
    InputError
        The layer does not take `input_shape`.
    """
    check_layer_fits(layer, hardware)
    return compile_geometry(layer, layer_geometry(layer, input_shape, hardware), hardware)


def compile_geometry(layer: WeightedLayer, geometry: Geometry, hardware: Hardware) -> LayerProgram:
    """Lay out a layer that fits the hardware; its weights are those that `geometry` speaks of."""
    largest = np.abs(layer.weights.astype(np.int64) - layer.weight_zero_point).max(initial=0)
    most = (1 << int(largest).bit_length()) - 1  # few tables serve all layers
    bits = hardware.weight_operand_bits
    codes = _code_table(hardware.pe.kind, hardware.pe.terms, bits, most)
    tiles = [
        _compile_tile(_tile_weights(layer, geometry, tile), tile, geometry, codes)
        for tile in range(geometry.channel_tiles)
    ]
    feed, streams = _lay_down(tiles, geometry.cols)
    requantization = layer.requantization
    channels = (geometry.out_channels,)
    return LayerProgram(
        name=layer.name,
        hardware=hardware,
        geometry=geometry,
        input_zero_point=layer.input_zero_point,
        feed=feed,
        streams=streams,
        parameters=Parameters(
            bias=np.zeros(channels, np.int64)
            if layer.bias is None
            else layer.bias.astype(np.int64),
            multiplier=np.broadcast_to(requantization.multiplier, channels).astype(np.int64),
            shift=np.broadcast_to(requantization.shift, channels).astype(np.int64),
            rounding=requantization.rounding,
            output_zero_point=layer.output_zero_point,
            activation_min=layer.activation_min,
            activation_max=layer.activation_max,
        ),
        pixel_tiles=range(geometry.pixel_tiles),
        channel_tiles=range(geometry.channel_tiles),
    )


def check_bias(program: LayerProgram) -> None:
    """Refuse a bias that the post-processor cannot hold (rule D3).

    Raises
    ------
    HardwareError
    """
    bits = program.hardware.post_bits
    largest = max(map(abs, program.parameters.bias.tolist()), default=0)
    if largest >= 1 << (bits - 1):
        raise HardwareError(
            f'layer "{program.name}" has a bias of magnitude {largest}, but the post-processor has'
            f" {bits} bits; use hardware with array.activation_bits = 16"
        )


def entry_rule(hardware: Hardware) -> tuple[int, bool]:
    """Say how many entries a weight takes (rules S3, W10), as `kernels.count_entries` reads it.

    Returns
    -------
    terms : int
        Signed digits that an entry holds; 0 where an entry holds any weight.
    unary : bool
        An entry for each unit of the weight's magnitude.
    """
    return (
        hardware.pe.terms if hardware.pe.kind == "shift_add" else 0,
        hardware.pe.kind == "ternary",
    )


@lru_cache(maxsize=8)
def _code_table(kind: str, terms: int, bits: int, most: int) -> tuple[tuple[int, ...], ...]:
    """Codes of the entries of each weight (rules S2, S3, W10), by weight + most."""
    return tuple(_entry_codes(weight, kind, terms, bits) for weight in range(-most, most + 1))


def _entry_codes(weight: int, kind: str, terms: int, bits: int) -> tuple[int, ...]:
    if weight == 0:
        return ()
    if kind == "mac":
        return (weight & ((1 << bits) - 1),)
    if kind == "ternary":
        return (1 if weight > 0 else 3,) * abs(weight)
    digits = [32 | (sign < 0) << 4 | exponent for exponent, sign in signed_digits(weight)]
    groups = (digits[i : i + terms] for i in range(0, len(digits), terms))
    return tuple(sum(digit << 6 * i for i, digit in enumerate(group)) for group in groups)


def _tile_weights(layer: WeightedLayer, geometry: Geometry, channel_tile: int) -> IntArray:
    """Spread a tile's weights over all input channels, zero outside a channel's group.

    Returns
    -------
    (columns used, taps, in_words * F) int64 array
        Weights minus zero point.
    """
    used = geometry.columns_used(channel_tile)
    first = channel_tile * geometry.cols
    taps = prod(geometry.kernel)
    dense = np.zeros((used, taps, geometry.in_words * geometry.feed), np.int64)
    weights = layer.weights[first : first + used].astype(np.int64) - layer.weight_zero_point
    group_inputs = geometry.in_channels // geometry.groups
    group_outputs = geometry.out_channels // geometry.groups
    for column, channel in enumerate(range(first, first + used)):
        begin = channel // group_outputs * group_inputs
        dense[column, :, begin : begin + group_inputs] = weights[column].reshape(taps, group_inputs)
    return dense


def _compile_tile(
    weights: IntArray, channel_tile: int, geometry: Geometry, codes: tuple[tuple[int, ...], ...]
) -> _Tile:
    used, taps, _ = weights.shape
    by_word = weights.reshape(used, taps * geometry.in_words, geometry.feed)
    if geometry.form:
        listed, ends = word_order(geometry), np.cumsum(geometry.part_words)
        patches = patch_order(geometry)
    else:
        listed = np.flatnonzero(by_word.any(axis=(0, 2)))
    if not listed.size:
        group_outputs = geometry.out_channels // geometry.groups
        group = channel_tile * geometry.cols // group_outputs
        first_channel = group * (geometry.in_channels // geometry.groups)
        listed = np.array([first_channel // geometry.feed])
    if not geometry.form:
        patches, ends = listed, np.array([listed.size])

    counts = np.array([len(code) for code in codes])
    flat_codes = np.array([code for entry in codes for code in entry], np.int64)
    first_code = np.cumsum(counts) - counts
    columns = []
    for column in by_word[:, listed].reshape(used, -1):
        position = np.flatnonzero(column)
        index = column[position] + len(codes) // 2
        count = counts[index]
        code_at = np.repeat(first_code[index] - np.cumsum(count) + count, count)
        position = np.repeat(position, count)
        columns.append(
            _Column(
                word=position // geometry.feed,
                lane=position % geometry.feed,
                code=flat_codes[code_at + np.arange(code_at.size)],
            )
        )
    tap, word = np.divmod(patches, geometry.in_words)
    fields = feed_fields(tap, word, geometry, geometry.in_words, geometry.plane_lines)
    return _Tile(*fields, columns, ends)


def word_order(geometry: Geometry) -> IntArray:
    """List transformed words in the order of rule W3, as tap * in_words + cw."""
    taps = prod(geometry.kernel)
    words = np.arange(taps * geometry.in_words).reshape(taps, geometry.in_words)
    first = range(0, geometry.in_words, geometry.chunk_words)
    return np.concatenate([words[:, i : i + geometry.chunk_words].ravel() for i in first])


def patch_order(geometry: Geometry) -> IntArray:
    """List patch words in the order of rule W1, as tap * in_words + cw."""
    taps = prod(geometry.kernel)
    return np.arange(taps * geometry.in_words).reshape(taps, geometry.in_words).T.ravel()


def feed_fields(
    tap: IntArray, word: IntArray, geometry: Geometry, in_words: int, plane_lines: int
) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Fields addr, rot, dy, dx of feed words (rule M3).

    Parameters
    ----------
    tap : int64 array
        ky * kernel width + kx.
    word : int64 array
        cw, counted from the first word of a pixel that the banks hold.
    geometry : Geometry
    in_words, plane_lines : int
        Words of a pixel, and lines of a phase plane, that the banks hold.
    """
    (sy, sx), (dilation_y, dilation_x) = geometry.stride, geometry.dilation
    ky, kx = np.divmod(tap, geometry.kernel[1])
    ty = ky * dilation_y - geometry.pad_top
    tx = kx * dilation_x - geometry.pad_left
    line, rot = np.divmod((ty // sy) * geometry.pitch + tx // sx, geometry.rows)
    plane = (ty % sy) * sx + tx % sx
    addr = (plane * plane_lines + line) * in_words + word
    return addr, rot, ky * dilation_y, kx * dilation_x


def _with_fillers(column: _Column, ends: IntArray) -> _Column:
    """Add the fillers of rule S4 to a column of a tile whose parts end before the words `ends`."""
    word = column.word
    needed = np.unique(np.concatenate([[0], ends[:-1], ends - 1]))
    missing = needed[~np.isin(needed, word)]
    stops = np.sort(np.concatenate([word, missing]))
    gaps = np.diff(stops)
    between = np.maximum(gaps - 1, 0) // MAX_ADVANCE
    behind = np.repeat(stops[:-1], between)
    nth = np.arange(behind.size) - np.repeat(np.cumsum(between) - between, between) + 1
    fillers = np.concatenate([missing, behind + MAX_ADVANCE * nth])
    order = np.argsort(np.concatenate([word, fillers]), kind="stable")
    nothing = np.zeros(fillers.size, np.int64)
    return _Column(
        word=np.concatenate([word, fillers])[order],
        lane=np.concatenate([column.lane, nothing])[order],
        code=np.concatenate([column.code, nothing])[order],
    )


def _lay_down(tiles: list[_Tile], cols: int) -> tuple[FeedWords, Streams]:
    """Write tiles one after the other into the feed memory and the stream memories."""
    empty = _Column(*(np.zeros(0, np.int64) for _ in range(3)))
    last, advance, lane, code = [], [], [], []
    lengths = np.zeros((cols, len(tiles)), np.int64)
    for c in range(cols):
        for i, tile in enumerate(tiles):
            given = tile.columns[c] if c < len(tile.columns) else empty
            column = _with_fillers(given, tile.ends)
            lengths[c, i] = column.word.size
            # The word after the tile makes the advance of the `last` entry 1.
            advance.append(np.diff(column.word, append=tile.ends[-1]).astype(np.uint8))
            part = np.searchsorted(tile.ends, column.word, side="right")
            last.append(np.diff(part, append=tile.ends.size) > 0)
            lane.append(column.lane.astype(np.uint8))
            code.append(column.code.astype(np.int32))
    starts = np.concatenate([[0], np.cumsum(lengths)])
    streams = Streams(
        last=np.concatenate(last).astype(np.uint8),
        advance=np.concatenate(advance),
        lane=np.concatenate(lane),
        code=np.concatenate(code),
        start=np.stack([starts[c * len(tiles) : (c + 1) * len(tiles) + 1] for c in range(cols)]),
    )
    counts = np.array([tile.addr.size for tile in tiles])
    feed_last = np.concatenate([np.arange(count) == count - 1 for count in counts])
    feed = FeedWords(
        last=feed_last.astype(np.int64),
        addr=np.concatenate([tile.addr for tile in tiles]),
        rot=np.concatenate([tile.rot for tile in tiles]),
        dy=np.concatenate([tile.dy for tile in tiles]),
        dx=np.concatenate([tile.dx for tile in tiles]),
        start=np.concatenate([[0], np.cumsum(counts)]),
    )
    return feed, streams


def _read_tile(program: LayerProgram, index: int) -> _Tile:
    """Take the `index`-th channel tile of a program out of its memories, fillers dropped."""
    feed, streams = program.feed, program.streams
    words = slice(int(feed.start[index]), int(feed.start[index + 1]))
    columns = []
    for c in range(program.geometry.cols):
        entries = slice(int(streams.start[c, index]), int(streams.start[c, index + 1]))
        advance = streams.advance[entries].astype(np.int64)
        code = streams.code[entries].astype(np.int64)
        keep = code != 0
        columns.append(
            _Column(
                word=(np.cumsum(advance) - advance)[keep],
                lane=streams.lane[entries].astype(np.int64)[keep],
                code=code[keep],
            )
        )
    parts = np.cumsum(program.geometry.part_words)
    ends = parts if parts.size else np.array([words.stop - words.start])
    return _Tile(feed.addr[words], feed.rot[words], feed.dy[words], feed.dx[words], columns, ends)


def _cut(tile: _Tile, words: range) -> _Tile:
    """Keep the words of a range, counted from its start."""
    part = slice(words.start, words.stop)
    columns = []
    for column in tile.columns:
        keep = (column.word >= words.start) & (column.word < words.stop)
        columns.append(
            _Column(column.word[keep] - words.start, column.lane[keep], column.code[keep])
        )
    ends = np.array([len(words)])
    return _Tile(tile.addr[part], tile.rot[part], tile.dy[part], tile.dx[part], columns, ends)


def encode_entry(
    widths: Widths, last: IntArray, advance: IntArray, lane: IntArray, code: IntArray
) -> IntArray:
    """Pack {last, advance, lane, code}, `last` the highest bit (rule S1); int64 arrays."""
    word = (last << widths.advance) | advance
    word = (word << widths.lane) | lane
    return (word << widths.code) | code


def encode_feed_word(
    widths: Widths, last: IntArray, addr: IntArray, rot: IntArray, dy: IntArray, dx: IntArray
) -> IntArray:
    """Pack {last, addr, rot, dy, dx}, `last` the highest bit, `addr` signed (rule M3)."""
    word = (last << widths.address) | (addr & ((1 << widths.address) - 1))
    word = (word << widths.rot) | rot
    word = (word << widths.dy) | dy
    return (word << widths.dx) | dx


def pass_feed_words(program: LayerProgram, planes: range, plane_lines: int) -> IntArray:
    """Words of the feed memory where the banks hold some planes of the image and some lines of it.

    Parameters
    ----------
    program : LayerProgram
    planes : range
        Words of F channels of a pixel that the banks hold; the program reads no others.
    plane_lines : int
        Lines that a phase plane takes.
    """
    geometry, feed = program.geometry, program.feed
    tap = feed.dy // geometry.dilation[0] * geometry.kernel[1] + feed.dx // geometry.dilation[1]
    word = feed.addr % geometry.in_words - planes.start
    fields = feed_fields(tap, word, geometry, len(planes), plane_lines)
    return encode_feed_word(program.hardware.widths, feed.last, *fields)


def stream_words(program: LayerProgram, column: int) -> IntArray:
    """Words of the stream memory of one column, in the order of their addresses."""
    streams = program.streams
    entries = slice(int(streams.start[column, 0]), int(streams.start[column, -1]))
    fields = (streams.last, streams.advance, streams.lane, streams.code)
    return encode_entry(
        program.hardware.widths, *(field[entries].astype(np.int64) for field in fields)
    )


def feed_words(program: LayerProgram) -> IntArray:
    """Words of the feed memory, in the order of their addresses.

    Raises
    ------
    HardwareError
        The image does not fit the activation memory, so that an address would not fit its field.
    """
    geometry, hardware = program.geometry, program.hardware
    if geometry.bank_words > hardware.bank_words:
        raise HardwareError(
            f'layer "{program.name}" takes {geometry.bank_words} words of each activation bank, but'
            f" buffers.activation_bytes={hardware.buffers.activation_bytes} gives"
            f" {hardware.bank_words}; enlarge it to put the whole image into the memory"
        )
    feed = program.feed
    return encode_feed_word(hardware.widths, feed.last, feed.addr, feed.rot, feed.dy, feed.dx)
