"""n-hot: weights are sums of n signed powers of two: a multiplication is n shifts and adds.

V(n, E, L): sums of n terms 0 or +-2**e, e from 0 to E, of magnitude up to L = 2**(bits - 1) - 1.
The nearest value is taken, and of two equally near the smaller magnitude. With E = bits - 1 (the
default, e=-1) 127 = 128 - 1 is 2-hot; with E = bits - 2 the largest 2-hot value of 8 bits is 96.

Two readings of the paper's quantizer give different networks: ``codes`` projects the uniform codes;
``scale`` projects w / scale with the scale searched, by the error of the weights or, with
``objective=outputs``, by the cosine of the outputs over EasyQuant's candidates.

Storage: ``codebook`` numbers the values of V, ``terms`` writes n pairs of sign and exponent (with
n = 1 the pair of 2**E, beyond L, stands for 0; otherwise terms that cancel do).
"""

from __future__ import annotations

from golden.errors import InputError
from golden.quantization.clipping import PERCENTILE, RANGE_RULES
from golden.quantization.codes import (
    OBJECTIVES,
    Levels,
    largest_code,
    level_scales,
    nhot_levels,
    projected,
    symmetric_scales,
    to_integers,
)
from golden.quantization.method import Method, Options, WeightCodes, WeightTask

MAX_TERMS = 8


def quantize(task: WeightTask, options: Options) -> WeightCodes:
    """Quantize one layer."""
    terms, exponent, levels = _levels(task.bits, options)
    rows = task.weights
    if options["reading"] == "codes":
        scales = symmetric_scales(rows, task.bits, options)
        rounding = to_integers(task.bits)
        codes = projected(rows, scales, lambda scaled: levels.project(rounding(scaled)))
    else:
        scales = level_scales(task, levels, str(options["objective"]), "nhot")
        codes = projected(rows, scales, levels.project)
    pairs = options["storage"] == "terms"
    width = terms * (1 + exponent.bit_length()) if pairs else levels.codebook_bits
    return WeightCodes(codes, scales, task.bits, codes.size * width)


def _levels(bits: int, options: Options) -> tuple[int, int, Levels]:
    terms, exponent = int(options["n"]), int(options["e"])
    if not 1 <= terms <= MAX_TERMS:
        raise InputError(f"n of nhot must be 1 to {MAX_TERMS}, not {terms}; for example n=2")
    if not -1 <= exponent <= bits - 1:
        raise InputError(
            f"e of nhot must be 0 to {bits - 1} for codes of {bits} bits, or -1 for {bits - 1}, not"
            f" {exponent}; choose an exponent in range"
        )
    exponent = bits - 1 if exponent == -1 else exponent
    return terms, exponent, nhot_levels(terms, exponent, largest_code(bits))


METHOD = Method(
    name="nhot",
    quantize=quantize,
    summary="nearest sum of n signed powers of two, of the uniform codes or with a searched scale",
    source="arXiv 2103.11704, abstract; made exact in golden.quantization.codes.nhot_levels",
    options={
        "n": 2,
        "e": -1,
        "reading": "codes",
        "per": "channel",
        "range": "max",
        "percentile": PERCENTILE,
        "objective": "weights",
        "storage": "codebook",
    },
    choices={
        "reading": ("codes", "scale"),
        "per": ("channel", "tensor"),
        "range": RANGE_RULES,
        "objective": OBJECTIVES,
        "storage": ("codebook", "terms"),
    },
    trained=True,
)
