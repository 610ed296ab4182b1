"""The accelerator as a TOML file describes it, checked once when it is read."""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args

import annotated_types
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from golden.errors import HardwareError
from golden.network import WeightedLayer
from simulator.digits import digit_count

PRESETS = Path(__file__).parent / "presets"

PEKind = Literal["mac", "shift_add", "ternary"]

MIN_DATA_BITS, MAX_DATA_BITS = 64, 1024
"""Widths of the data bus where the description does not give one."""

DESCRIPTOR_FIXED_WORDS = 64
"""32-bit words of a descriptor before those of the rows (docs/programming.md, section 3)."""


class _RuleError(ValueError):
    """A rule between settings; its text is the whole sentence for the user."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Array(_Table):
    """`[array]`: processing elements, window, and accumulators."""

    rows: Annotated[int, Field(ge=1, le=256, description="the PE rows (output pixels of a tile)")]
    cols: Annotated[
        int, Field(ge=1, le=256, description="the PE columns (output channels of a tile)")
    ]
    feed: Annotated[int, Field(ge=1, le=64, description="the input channels of one window word")]
    lookahead: Annotated[
        int, Field(ge=1, le=1024, description="the input channels the window holds")
    ]
    activation_bits: Annotated[
        Literal[8, 16], Field(description="the width of activation codes")
    ] = 8
    weight_bits: Annotated[int, Field(ge=2, le=8, description="the width of weight codes")] = 8
    acc_bits: Annotated[int, Field(ge=2, le=48, description="the width of the accumulator")]
    acc_overflow: Annotated[
        Literal["wrap", "saturate"], Field(description="what an accumulator does on overflow")
    ] = "wrap"
    spill_interval: Annotated[
        int, Field(ge=0, le=65535, description="the steps between spills to the wide accumulator")
    ] = 0
    wide_acc_bits: Annotated[
        int, Field(ge=2, le=48, description="the width of the wide accumulator")
    ] = 32
    events_bits: Annotated[
        int, Field(ge=1, le=32, description="the width of the overflow event counter of a PE")
    ] = 20

    @model_validator(mode="after")
    def _hold_together(self) -> Self:
        if self.feed & (self.feed - 1):
            raise _RuleError(f"array.feed={self.feed} must be a power of two; use 1, 2, 4, 8, ...")
        if self.lookahead % self.feed:
            raise _RuleError(
                f"array.lookahead={self.lookahead} must be a multiple of array.feed={self.feed};"
                f" use {self.feed * max(1, round(self.lookahead / self.feed))}"
            )
        if self.spill_interval and self.wide_acc_bits <= self.acc_bits:
            raise _RuleError(
                f"array.wide_acc_bits={self.wide_acc_bits} must be more than"
                f" array.acc_bits={self.acc_bits} where array.spill_interval is"
                f" {self.spill_interval}; widen it or set array.spill_interval = 0"
            )
        post_bits = 32 if self.activation_bits == 8 else 64
        for name in ("acc_bits", "wide_acc_bits"):
            if getattr(self, name) > post_bits:
                raise _RuleError(
                    f"array.{name}={getattr(self, name)} must not exceed the {post_bits} bits of"
                    f" the post-processor; narrow it or set array.activation_bits = 16"
                )
        return self


class PE(_Table):
    """`[pe]`: what one processing element does in a cycle."""

    kind: Annotated[PEKind, Field(description="the kind of processing element")]
    terms: Annotated[
        int, Field(ge=1, le=4, description="the signed powers of two that a PE adds in one cycle")
    ] = 1

    @model_validator(mode="after")
    def _hold_together(self) -> Self:
        if self.kind != "shift_add" and self.terms != 1:
            raise _RuleError(
                f'pe.terms={self.terms} belongs to pe.kind = "shift_add", but pe.kind is'
                f' "{self.kind}"; remove pe.terms'
            )
        return self


class Post(_Table):
    """`[post]`: the post-processor."""

    lanes: Annotated[
        int, Field(ge=1, le=256, description="the requantizers (rows drained in a cycle)")
    ]


class Buffers(_Table):
    """`[buffers]`: on-chip memories."""

    activation_bytes: Annotated[
        int, Field(ge=64, le=1 << 28, description="the bytes of activation memory")
    ]
    weight_bytes: Annotated[
        int, Field(ge=64, le=1 << 28, description="the bytes of stream, feed and parameter memory")
    ]
    output_bytes: Annotated[int, Field(ge=64, le=1 << 28, description="the bytes of output memory")]
    double_buffer: Annotated[
        bool, Field(description="whether transfers overlap the computation")
    ] = True


class Winograd(_Table):
    """`[winograd]`: the transform units before and after the array (rules W)."""

    forms: Annotated[
        Literal["none", "f2", "f4", "both"],
        Field(description="the Winograd forms that the transform units know"),
    ] = "none"
    chunk_words: Annotated[
        int,
        Field(ge=16, le=1 << 16, description="the transformed words of a chunk of input channels"),
    ] = 144
    use: Annotated[
        Literal["auto", "off", "f2", "f4"],
        Field(description="the form that layers are computed with, where they can be"),
    ] = "auto"
    choose_by: Annotated[
        Literal["cycles", "energy"],
        Field(description='what winograd.use = "auto" makes small, layer by layer'),
    ] = "cycles"

    @model_validator(mode="after")
    def _hold_together(self) -> Self:
        if self.forms in ("f4", "both") and self.chunk_words < 36:
            raise _RuleError(
                f"winograd.chunk_words={self.chunk_words} must be at least the 36 words of a patch"
                f' where winograd.forms is "{self.forms}"; raise it'
            )
        if self.use in ("f2", "f4") and self.forms not in (self.use, "both"):
            raise _RuleError(
                f'winograd.use="{self.use}" is not one of winograd.forms="{self.forms}"; build the'
                ' unit with winograd.forms = "both" or set winograd.use = "off"'
            )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Forms that the units know."""
        return {"none": (), "both": ("f2", "f4")}.get(self.forms, (self.forms,))


OPERAND_GROWTH = {"none": 0, "f2": 2, "f4": 7, "both": 7}
"""Bits that the input transform adds: 4 and 100 times the largest operand (rule W9)."""

WEIGHT_GROWTH = {"none": 0, "f2": 4, "f4": 6, "both": 6}
"""Bits that the weight transform adds: 9 and 49 times the largest weight (rule W9)."""


SUM_SHIFT = {"none": 0, "f2": 2, "f4": 6, "both": 6}
"""Bits of a sum that the exact division shifts out (rule W8)."""


class Dram(_Table):
    """`[dram]`: the external memory as the engine sees it."""

    bytes_per_cycle: Annotated[int, Field(ge=1, le=4096, description="the bytes moved in a cycle")]
    latency_cycles: Annotated[
        int, Field(ge=0, le=1_000_000, description="the cycles before a transfer's first bytes")
    ]
    data_bits: Annotated[
        Literal[32, 64, 128, 256, 512, 1024] | None, Field(description="the width of the data bus")
    ] = None

    @model_validator(mode="after")
    def _hold_together(self) -> Self:
        if self.data_bits is None and 8 * self.bytes_per_cycle > MAX_DATA_BITS:
            raise _RuleError(
                f"dram.bytes_per_cycle={self.bytes_per_cycle} asks for a data bus of more than"
                f" {MAX_DATA_BITS} bits; lower it to at most {MAX_DATA_BITS // 8} or set"
                f" dram.data_bits = {MAX_DATA_BITS}"
            )
        return self


class Energy(_Table):
    """`[energy]`: which table turns events into energy."""

    table: Annotated[
        str, Field(min_length=1, description="the name or path of an energy table")
    ] = "default"


@dataclass(frozen=True)
class Widths:
    """Widths in bits of every word that programs and memory images hold; the Verilog parameters.

    Parameters
    ----------
    x : int
        Operand: activation minus zero point.
    lane, advance, code, entry : int
        Fields of a stream entry and their sum with `last` (rule S1). `lane` is at least 1.
    address, rot, dy, dx, feed : int
        Fields of a feed word and their sum with `last` (rule M3). `address` is signed; `rot` is at
        least 1.
    bias, multiplier, shift, parameter : int
        Fields of a parameter word and their sum (rule M5); all signed. `bias` is POST_W (rule D3).
    code_out : int
        Activation code.
    acc, wide, result, events : int
        Accumulator, wide accumulator, what the drain reads, event counter (P rules).
    """

    x: int
    lane: int
    advance: int
    code: int
    entry: int
    address: int
    rot: int
    dy: int
    dx: int
    feed: int
    bias: int
    multiplier: int
    shift: int
    parameter: int
    code_out: int
    acc: int
    wide: int
    result: int
    events: int


TERM_BITS = 6
"""One signed power of two: {enable, negative, shift[3:0]} (rule S2)."""

ADVANCE_BITS = 4
MAX_ADVANCE = (1 << ADVANCE_BITS) - 1
TAP_BITS = 8
"""Width of dy and dx: how far a kernel may reach."""


def _index_bits(count: int) -> int:
    """Bits that number `count` things, at least one."""
    return max(1, (count - 1).bit_length())


ONE_LINE = r"^[^\x00-\x1f\x7f]+$"
"""Text without control characters."""


class Hardware(_Table):
    """One accelerator.

    Parameters
    ----------
    name : str
    clock_hz : float
    array, pe, post, buffers, dram, winograd, energy
        The tables of the file.
    """

    name: Annotated[str, Field(pattern=ONE_LINE, description="the name of the hardware")]
    clock_hz: Annotated[float, Field(ge=1, le=1e12, description="the clock frequency in hertz")]
    array: Array
    pe: PE
    post: Post
    buffers: Buffers
    dram: Dram
    winograd: Winograd = Winograd()
    energy: Energy = Energy()

    @model_validator(mode="after")
    def _hold_together(self) -> Self:
        if self.array.rows % self.post.lanes:
            raise _RuleError(
                f"post.lanes={self.post.lanes} must divide array.rows={self.array.rows}; use"
                f" {_largest_divisor(self.array.rows, self.post.lanes)}"
            )
        shift = SUM_SHIFT[self.winograd.forms]
        if self.winograd.forms != "none" and self.result_bits <= shift:
            raise _RuleError(
                f'winograd.forms="{self.winograd.forms}" divides sums by 2**{shift}, but results'
                f" have {self.result_bits} bits; widen array.acc_bits (or array.wide_acc_bits) to"
                f" more than {shift}"
            )
        for what, bits in (("feed words", self.feed_word_bits), ("entries", self.entry_bits)):
            if bits > self.payload_bits:
                raise _RuleError(
                    f"dram.data_bits={8 * self.beat_bytes} leaves {self.payload_bits} bits of a"
                    f" beat for {what}, but they have {bits}; set dram.data_bits ="
                    f" {_power_of_two(bits + 1)}"
                )
        return self

    @property
    def depth(self) -> int:
        """Words that the window holds (D)."""
        return self.array.lookahead // self.array.feed

    @property
    def operand_bits(self) -> int:
        """Width of an operand of the array (X_W): activation minus zero point, or transformed."""
        return self.array.activation_bits + 1 + OPERAND_GROWTH[self.winograd.forms]

    @property
    def activation_code_bytes(self) -> int:
        """Bytes of one activation code in the buffers and in external memory."""
        return self.array.activation_bits // 8

    @property
    def weight_operand_bits(self) -> int:
        """Width of a weight operand: weight minus zero point, or transformed."""
        return self.array.weight_bits + 1 + WEIGHT_GROWTH[self.winograd.forms]

    @property
    def post_bits(self) -> int:
        """Width of accumulator plus bias (POST_W, rule D3)."""
        return 32 if self.array.activation_bits == 8 else 64

    @property
    def result_bits(self) -> int:
        """Width of what a PE hands to the drain."""
        return self.array.wide_acc_bits if self.array.spill_interval else self.array.acc_bits

    @property
    def serial(self) -> bool:
        """Whether a weight takes one entry for each of its signed digits."""
        return self.pe.kind == "shift_add" and self.pe.terms == 1

    @property
    def code_bits(self) -> int:
        """Width of an entry's code (rule S2)."""
        if self.pe.kind == "mac":
            return self.weight_operand_bits
        return 2 if self.pe.kind == "ternary" else TERM_BITS * self.pe.terms

    @property
    def entry_bits(self) -> int:
        """Width of a stream entry (rule S1)."""
        return self.widths.entry

    @property
    def feed_word_bits(self) -> int:
        """Width of a feed word (rule M3)."""
        return self.widths.feed

    @property
    def parameter_bits(self) -> int:
        """Width of a parameter word (rule M5)."""
        return self.widths.parameter

    @property
    def drain_groups(self) -> int:
        """Result cycles for each column of a tile (R / Q, rule D1)."""
        return self.array.rows // self.post.lanes

    @property
    def bank_words(self) -> int:
        """Words of F codes in one of the R activation banks."""
        return max(1, self.buffers.activation_bytes // (self.array.rows * self.word_bytes))

    @property
    def output_bank_words(self) -> int:
        """Words of F codes in one of the R output banks."""
        return max(1, self.buffers.output_bytes // (self.array.rows * self.word_bytes))

    @property
    def halves(self) -> int:
        """Parts of each buffer: 2 with double buffers, otherwise 1 (rule T1)."""
        return 2 if self.buffers.double_buffer else 1

    @property
    def word_bytes(self) -> int:
        """Bytes of a word of F codes (WB)."""
        return self.array.feed * self.activation_code_bytes

    @property
    def beat_bytes(self) -> int:
        """Bytes of a beat of the data bus (B)."""
        wanted = max(MIN_DATA_BITS, _power_of_two(8 * self.dram.bytes_per_cycle))
        return (self.dram.data_bits or wanted) // 8

    @property
    def payload_bits(self) -> int:
        """Bits of a beat of a weight block without its mark of a section's end."""
        return 8 * self.beat_bytes - 1

    @property
    def interval_cycles(self) -> int:
        """Cycles from one beat of the external memory to the next (I, rule T9)."""
        return -(-self.beat_bytes // self.dram.bytes_per_cycle)

    @property
    def descriptor_words(self) -> int:
        """32-bit words of a descriptor that have a meaning."""
        return DESCRIPTOR_FIXED_WORDS + self.array.rows

    @property
    def descriptor_bytes(self) -> int:
        """Bytes from one descriptor of a program to the next."""
        return -(-4 * self.descriptor_words // 128) * 128

    @property
    def feed_places(self) -> int:
        """Feed words in a beat."""
        return self.payload_bits // self.feed_word_bits

    @property
    def stream_places(self) -> int:
        """Stream entries in a beat."""
        return self.payload_bits // self.entry_bits

    @property
    def parameter_beats(self) -> int:
        """Beats of one parameter word."""
        return -(-self.parameter_bits // self.payload_bits)

    @property
    def machine_id(self) -> int:
        """32 bits that tell this hardware from others: its MACHINE register.

        A hash of everything that the Verilog parameters depend on. The depths of the weight
        memories follow from the network and are no part of it.
        """
        parts: dict[str, object] = {
            "array": self.array.model_dump(),
            "pe": self.pe.model_dump(),
            "post": self.post.model_dump(),
            "data_bits": 8 * self.beat_bytes,
            "activation_bytes": self.buffers.activation_bytes,
            "output_bytes": self.buffers.output_bytes,
        }
        if self.winograd.forms != "none":
            parts["winograd"] = [self.winograd.forms, self.winograd.chunk_words]
        text = json.dumps(parts, sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")

    @cached_property
    def widths(self) -> Widths:
        """Width of every field."""
        array = self.array
        lane, rot = _index_bits(array.feed), _index_bits(array.rows)
        address = _index_bits(self.bank_words) + 1
        multiplier, shift = 32, 8
        return Widths(
            x=self.operand_bits,
            lane=lane,
            advance=ADVANCE_BITS,
            code=self.code_bits,
            entry=1 + ADVANCE_BITS + lane + self.code_bits,
            address=address,
            rot=rot,
            dy=TAP_BITS,
            dx=TAP_BITS,
            feed=1 + address + rot + 2 * TAP_BITS,
            bias=self.post_bits,
            multiplier=multiplier,
            shift=shift,
            parameter=self.post_bits + multiplier + shift,
            code_out=array.activation_bits,
            acc=array.acc_bits,
            wide=array.wide_acc_bits,
            result=self.result_bits,
            events=array.events_bits,
        )


def _power_of_two(number: int) -> int:
    """Smallest power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()


def _largest_divisor(number: int, limit: int) -> int:
    return max(d for d in range(1, min(number, limit) + 1) if number % d == 0)


def list_presets() -> list[str]:
    """Names of the hardware files that ship with the project."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_hardware(name_or_path: str | Path) -> Hardware:
    """Read a preset by name, or any TOML file by path.

    Raises
    ------
    HardwareError
        Unknown preset, unreadable file, or settings that break a rule.
    """
    path = PRESETS / f"{name_or_path}.toml"
    if str(name_or_path) not in list_presets():
        path = Path(name_or_path)
        if path.suffix != ".toml" and not path.is_file():
            raise HardwareError(
                f"{name_or_path} is not a hardware preset; use one of"
                f" {', '.join(list_presets())}, or the path of a .toml file"
            )
    if path.is_fifo() or path.is_char_device():
        raise HardwareError(
            f"the hardware file {path} is a device or pipe; copy it to a file first"
        )
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise HardwareError(
            f"the hardware file {path} cannot be read ({error.strerror}); check the path, or use"
            f" one of {', '.join(list_presets())}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise HardwareError(
            f"the hardware file {path} is not TOML ({error}); compare it with a preset"
        ) from None
    return hardware_from_dict(settings)


def hardware_from_dict(settings: Mapping[str, Any]) -> Hardware:
    """Check settings as a TOML file nests them.

    Raises
    ------
    HardwareError
        One sentence about the first setting that breaks a rule.
    """
    try:
        return Hardware.model_validate(dict(settings))
    except ValidationError as error:
        raise HardwareError(_sentence(error)) from None


def changed_hardware(hardware: Hardware, name: str | None = None, **tables: Any) -> Hardware:
    """Hardware with other settings, checked as a file is: ``array={"acc_bits": 16}``.

    Parameters
    ----------
    hardware : Hardware
    name : str or None
        None leaves the name as it is.
    tables : mapping
        Settings to change, by table of the hardware file.

    Raises
    ------
    HardwareError
        A setting that there is not, or that the hardware cannot have.
    """
    settings = hardware.model_dump(exclude_none=True)
    for table, changes in tables.items():
        settings[table] = settings.get(table, {}) | changes
    return hardware_from_dict(settings | ({} if name is None else {"name": name}))


def with_winograd(hardware: Hardware, use: str, choose_by: str | None = None) -> Hardware:
    """Let layers be computed as `use` says, by units that the hardware gets where it has none.

    Parameters
    ----------
    hardware : Hardware
    use : str
        ``auto``, ``off``, ``f2`` or ``f4``, as in `winograd.use`. Where the units lack the form
        they get it, for ``auto`` both forms, and the name says so.
    choose_by : str or None
        ``cycles`` or ``energy``, as in `winograd.choose_by`; None leaves that as it is.

    Raises
    ------
    HardwareError
        Another `use` or `choose_by`, or widths that the units make too large.
    """
    forms, name, changes = hardware.winograd.names, hardware.name, {"use": use}
    missing = {"auto": () if forms else ("f2", "f4"), "f2": ("f2",), "f4": ("f4",)}.get(use, ())
    if set(missing) - set(forms):
        wanted = sorted({*forms, *missing})
        changes["forms"] = "both" if len(wanted) == 2 else wanted[0]
        name = f"{hardware.name}+{'+'.join(wanted)}"
    if choose_by is not None:
        changes["choose_by"] = choose_by
    return changed_hardware(hardware, name, winograd=changes)


def to_toml(hardware: Hardware) -> str:
    """Write all settings, defaults included; `load_hardware` reads them back as they were.

    A setting without a value, which has its default by a rule, is left out.
    """
    lines = [f"{key} = {_toml(value)}" for key, value in _settings(hardware)]
    for section, table in _settings(hardware, tables=True):
        lines += ["", f"[{section}]"]
        lines += [f"{key} = {_toml(value)}" for key, value in _settings(table)]
    return "\n".join(lines) + "\n"


def _settings(table: _Table, tables: bool = False) -> Iterator[tuple[str, Any]]:
    """List the settings of a table: those that are tables themselves, or the others."""
    values = ((key, getattr(table, key)) for key in type(table).model_fields)
    given = ((key, value) for key, value in values if value is not None)
    return ((key, value) for key, value in given if isinstance(value, _Table) == tables)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def _sentence(error: ValidationError) -> str:
    """Turn the first pydantic error, misspelt names before missing ones, into our sentence."""
    details = error.errors()
    first = min(details, key=lambda detail: detail["type"] != "extra_forbidden")
    path = [str(part) for part in first["loc"]]
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    if first["type"] == "extra_forbidden":
        return _unknown(path)
    name = ".".join(path)
    table, field = _find(path)
    if first["type"] == "missing":
        if field is None or _is_table(field):
            return f"the table [{name}] is missing; it has {_settings_of(_table_of(field))}"
        return f"{name} is missing; it sets {field.description} and must be {_rule(field)}"
    if field is None or _is_table(field):
        return f"{name} must be a table; write it as [{name}] with {_settings_of(table)}"
    return f"{name}={_toml(first['input'])} must be {_rule(field)}; it sets {field.description}"


def _find(path: list[str]) -> tuple[type[_Table], FieldInfo | None]:
    """Table that holds the setting `path`, and the setting; a table's own path gives its table."""
    table: type[_Table] = Hardware
    field = None
    for part in path:
        field = table.model_fields.get(part)
        if field is not None and _is_table(field):
            table = _table_of(field)
    return table, field


def _is_table(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, _Table)


def _table_of(field: FieldInfo | None) -> type[_Table]:
    return field.annotation if field and field.annotation else Hardware  # type: ignore[return-value]


def _settings_of(table: type[_Table]) -> str:
    return ", ".join(table.model_fields)


def _unknown(path: list[str]) -> str:
    table, _ = _find(path[:-1])
    close = difflib.get_close_matches(path[-1], table.model_fields, n=1)
    hint = (
        f"did you mean {close[0]}?"
        if close
        else f"{'.'.join(path[:-1]) or 'the file'} has {_settings_of(table)}"
    )
    return f"{'.'.join(path)} is not a setting; {hint}"


def _rule(field: FieldInfo) -> str:
    """Say what a setting may be, from its own constraints."""
    options = [
        option
        for each in get_args(field.annotation)
        for option in get_args(each) or (each,)
        if option is not NoneType
    ]
    if options:
        return " or ".join(_toml(option) for option in options)
    if field.annotation is bool:
        return "true or false"
    if field.annotation is str:
        return "a text in quotes, of one line and not empty"
    low = next((rule.ge for rule in field.metadata if isinstance(rule, annotated_types.Ge)), None)
    high = next(rule.le for rule in field.metadata if isinstance(rule, annotated_types.Le))
    if field.annotation is int:
        return f"a whole number from {low} to {high}"
    return f"a number {'above 0 and up to' if low is None else f'from {low:g} to'} {high:g}"


class _Misfit(NamedTuple):
    weight: int
    reason: str
    way_out: str


def check_layer_fits(
    layer: WeightedLayer, hardware: Hardware, input_dtype: str | None = None
) -> None:
    """Refuse a layer whose weights or codes the array cannot hold.

    Parameters
    ----------
    layer : WeightedLayer
    hardware : Hardware
    input_dtype : str or None
        Element type of the layer's input tensor, where it is known.

    Raises
    ------
    HardwareError
        Names the layer, the value, the PE kind, and what would make it fit.
    """
    misfit = _weight_misfit(layer, hardware)
    if misfit is not None:
        raise HardwareError(
            f'layer "{layer.name}" has the weight {misfit.weight}, but {misfit.reason};'
            f" {misfit.way_out}"
        )
    bits = hardware.array.activation_bits
    output_bits = 8 if layer.activation_min >= -128 and layer.activation_max <= 255 else 16
    if bits == 8 and (input_dtype == "int16" or output_bits == 16):
        raise HardwareError(
            f'layer "{layer.name}" has int16 activations, but array.activation_bits={bits}; use'
            " hardware with array.activation_bits = 16"
        )
    if layer.weights.ndim == 4:
        _check_reach(layer)


def _check_reach(layer: WeightedLayer) -> None:
    dilation: tuple[int, int] = getattr(layer, "dilation", (1, 1))
    reach = max((k - 1) * d for k, d in zip(layer.weights.shape[1:3], dilation, strict=True))
    if reach >= 1 << TAP_BITS:
        raise HardwareError(
            f'layer "{layer.name}" has a kernel that reaches {reach} pixels, but a feed word can'
            f" express {(1 << TAP_BITS) - 1}; use a smaller kernel or dilation"
        )


def _first_outside(layer: WeightedLayer, low: int, high: int) -> int | None:
    """First weight, its zero point subtracted, that is not from `low` to `high`."""
    codes, zero_point = layer.weights, layer.weight_zero_point
    if low <= int(codes.min()) - zero_point and int(codes.max()) - zero_point <= high:
        return None
    weights = codes.astype(np.int64).ravel() - zero_point
    return int(weights[(weights < low) | (weights > high)][0])


def _weight_misfit(layer: WeightedLayer, hardware: Hardware) -> _Misfit | None:
    bits, kind, terms = hardware.weight_operand_bits, hardware.pe.kind, hardware.pe.terms
    limit = 1 << (bits - 1)
    weight = _first_outside(layer, -limit, limit - 1)
    if weight is not None:
        return _Misfit(
            weight,
            f"array.weight_bits={hardware.array.weight_bits} gives its operand {bits} bits",
            "quantize the weights to fewer bits",
        )
    if kind == "ternary":
        weight = _first_outside(layer, -1, 1)
        if weight is not None:
            return _Misfit(
                weight,
                "the ternary PE holds only -1, 0 and 1",
                "project the weights with --weights ternary",
            )
    if kind == "shift_add" and terms > 1:
        weights = layer.weights.astype(np.int64).ravel() - layer.weight_zero_point
        bad = digit_count(weights) > terms
        if bad.any():
            return _Misfit(
                int(weights[bad][0]),
                f"the shift_add PE with pe.terms={terms} holds {terms} signed powers of two and it"
                f" needs {int(digit_count(weights[bad][:1])[0])}",
                f"project the weights with --weights nhot:{terms}",
            )
    return None
