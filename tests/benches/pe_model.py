"""Rules P1 to P5 of docs/microarchitecture.md in plain Python integers; imports nothing of ours."""

from __future__ import annotations

from dataclasses import dataclass, fields

MAC, SHIFT_ADD, TERNARY = 0, 1, 2
SHIFT_W = 4


@dataclass(frozen=True)
class PeFormat:
    """Parameters of the Verilog PE, under the same names in lower case."""

    pe_kind: int
    terms: int
    x_w: int
    weight_w: int
    acc_bits: int
    saturate: int
    events_w: int
    spill: int
    wide_bits: int

    @property
    def code_w(self) -> int:
        return {MAC: self.weight_w, SHIFT_ADD: self.terms * (2 + SHIFT_W), TERNARY: 2}[self.pe_kind]

    @property
    def result_w(self) -> int:
        return self.wide_bits if self.spill else self.acc_bits

    @classmethod
    def of(cls, dut) -> PeFormat:
        """Read the parameters of a module that has them all."""
        names = [field.name for field in fields(cls)]
        return cls(*(int(getattr(dut, name.upper()).value) for name in names))


def addend(fmt: PeFormat, x: int, code: int) -> int:
    """What a code adds (rule S2)."""
    if fmt.pe_kind == MAC:
        weight = code - (1 << fmt.weight_w) if code >> (fmt.weight_w - 1) else code
        return x * weight
    if fmt.pe_kind == TERNARY:
        return x * {0b00: 0, 0b01: 1, 0b11: -1}[code]
    weight = 0
    for term in range(fmt.terms):
        bits = code >> (6 * term) & 0b111111
        if bits & 0b100000:
            weight += (-1 if bits & 0b010000 else 1) * 2 ** (bits & 0b001111)
    return x * weight


def random_code(fmt: PeFormat, rng) -> int:
    """A code of rule S2: zero, the extremes and ordinary weights all come often."""
    if fmt.pe_kind == TERNARY:
        return rng.choice([0b00, 0b01, 0b11])
    if rng.random() < 0.15:
        return 0
    if fmt.pe_kind == MAC and rng.random() < 0.3:
        return rng.choice([1 << (fmt.weight_w - 1), (1 << (fmt.weight_w - 1)) - 1])
    return rng.randrange(1 << fmt.code_w)


def without_sign(fmt: PeFormat, code: int) -> int:
    """A code of the same kind that adds no negative multiple of the operand."""
    if fmt.pe_kind == MAC:
        return code >> 1
    if fmt.pe_kind == TERNARY:
        return code & 0b01
    return code & sum(0b101111 << (6 * term) for term in range(fmt.terms))


def random_x(fmt: PeFormat, rng) -> int:
    bound = 1 << (fmt.x_w - 1)
    if rng.random() < 0.3:
        return rng.choice([-bound, bound - 1])
    return rng.randrange(-bound, bound)


@dataclass
class PeModel:
    """All registers of one PE; `tick` is one rising edge."""

    fmt: PeFormat
    x: int = 0
    code: int = 0
    step: int = 0
    clear: int = 0
    acc: int = 0
    overflow: int = 0
    events: int = 0
    wide: int = 0
    count: int = 0
    result: int = 0
    result_overflow: int = 0
    result_events: int = 0

    def reset(self) -> None:
        for field in fields(self):
            if field.name != "fmt":
                setattr(self, field.name, 0)

    def _fit(self, value: int, bits: int) -> tuple[int, int]:
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        if low <= value <= high:
            return value, 0
        if self.fmt.saturate:
            return (low if value < low else high), 1
        value %= 2**bits
        return (value - 2**bits if value > high else value), 1

    def tick(self, issue: int, step: int, clear: int, x: int, code: int) -> None:
        fmt = self.fmt
        most = 2**fmt.events_w - 1
        if self.clear:
            total, event = self.acc, 0
            if fmt.spill:
                total, event = self._fit(self.wide + self.acc, fmt.wide_bits)
            self.result = total
            self.result_overflow = self.overflow | event
            self.result_events = min(self.events + event, most)
            self.acc = self.overflow = self.events = self.wide = self.count = 0
        if self.step:
            events = 0
            if fmt.spill and self.count == fmt.spill:
                self.wide, events = self._fit(self.wide + self.acc, fmt.wide_bits)
                self.acc = self.count = 0
            self.acc, event = self._fit(self.acc + addend(fmt, self.x, self.code), fmt.acc_bits)
            if fmt.spill:
                self.count += 1
            events += event
            self.overflow |= int(events > 0)
            self.events = min(self.events + events, most)
        if issue:
            self.x, self.code = x, code
        self.step, self.clear = step, clear


REGISTERS = {
    "x": ("x_q", True),
    "code": ("code_q", False),
    "step": ("step_q", False),
    "clear": ("clear_q", False),
    "acc": ("u_accumulator.acc_q", True),
    "overflow": ("u_accumulator.overflow_q", False),
    "events": ("u_accumulator.events_q", False),
    "wide": ("u_accumulator.g_spill.wide_q", True),
    "count": ("u_accumulator.g_spill.count_q", False),
    "result": ("u_accumulator.result_q", True),
    "result_overflow": ("u_accumulator.result_overflow_q", False),
    "result_events": ("u_accumulator.result_events_q", False),
}
"""Register of the rules -> path below the Verilog PE, and whether it is signed."""


class PeProbe:
    """Handles of all registers of one Verilog PE."""

    def __init__(self, pe, fmt: PeFormat) -> None:
        self.handles = {}
        for name, (path, signed) in REGISTERS.items():
            if name in ("wide", "count") and not fmt.spill:
                continue
            handle = pe
            for part in path.split("."):
                handle = getattr(handle, part)
            self.handles[name] = (handle, signed)

    def read(self) -> dict[str, int]:
        return {
            name: handle.value.to_signed() if signed else int(handle.value)
            for name, (handle, signed) in self.handles.items()
        }

    def unknown(self) -> set[str]:
        return {
            name for name, (handle, _) in self.handles.items() if not handle.value.is_resolvable
        }

    def compare(self, model: PeModel, where: str) -> None:
        for name, value in self.read().items():
            expected = getattr(model, name)
            assert value == expected, f"{where}: {name} is {value}, should be {expected}"
