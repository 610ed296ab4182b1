"""Minimal filtering algorithms of Winograd as integer matrices, generated from points.

A transform computes a tile of outputs of a correlation with fewer products than the direct sum:
transform the input tile and the kernel, multiply element by element, transform back,

    divisor * y = A^T [(G g G^T) * (B^T d B)] A.

Every matrix holds integers; `divisor` makes up for the fractions that the text-book matrices have,
and the division by it is exact. Sources: Toom 1963, Cook 1966 (the points); Winograd 1980;
Lavin and Gray 2016 (arXiv:1509.09308); Meng and Brothers 2019 (arXiv:1901.01965, complex points).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from golden.accumulate import naf_digits
from golden.errors import InputError
from golden.formats import Int64Array

Array = NDArray[Any]
Form = Literal["scaled", "row_minimal", "dyadic"]
"""Who carries the integer factor f of a product, S being the divisor of one axis.

* ``scaled``: the weights, S * G: what is printed most often.
* ``row_minimal``: the output transform; rows of G have no common factor. Smallest products.
* ``dyadic``: the weights carry the odd part of f, the output transform the power of two.
"""

STANDARD_POINTS: tuple[Fraction, ...] = tuple(
    Fraction(point) for point in ("0", "1", "-1", "2", "-2", "1/2", "-1/2", "4", "-4")
)
"""Points in the order in which they are used; the last product belongs to infinity."""


@dataclass(frozen=True)
class AxisTransform:
    """F(outputs, taps) along one axis: A^T [(G g) * (B^T d)] = divisor * y.

    Parameters
    ----------
    input : (n, n) int64 array
        B^T; n = outputs + taps - 1 products.
    weight : (n, taps) int64 array
        G.
    output : (outputs, n) int64 array
        A^T.
    divisor : int
        S, positive.
    """

    input: Int64Array
    weight: Int64Array
    output: Int64Array
    divisor: int


@dataclass(frozen=True)
class Transform:
    """F(outputs, kernel) in two dimensions, as a bilinear algorithm of `products` products.

    Parameters
    ----------
    name : str
    outputs, kernel : (int, int)
        Height and width of the tile of outputs and of the kernel.
    input : (products, tile_height, tile_width) int64 array
        V[p] = sum of input[p] * d.
    weight : (products, kernel_height, kernel_width) int64 array
        U[p] = sum of weight[p] * g.
    output : (out_height, out_width, products) int64 array
        divisor * y = sum over p of output[..., p] * U[p] * V[p].
    divisor : int
        2**shift * odd.
    axes : (AxisTransform, AxisTransform) or None
        Rows and columns where the transform is nested: V = B^T d B and so on, products in row-major
        order. None where it is not.
    """

    name: str
    outputs: tuple[int, int]
    kernel: tuple[int, int]
    input: Int64Array
    weight: Int64Array
    output: Int64Array
    divisor: int
    axes: tuple[AxisTransform, AxisTransform] | None = None

    @property
    def products(self) -> int:
        """Real multiplications for one tile and channel."""
        return len(self.input)

    @property
    def tile(self) -> tuple[int, int]:
        """Height and width of the input tile."""
        return self.input.shape[1], self.input.shape[2]

    @property
    def shift(self) -> int:
        """Exponent of two in the divisor."""
        return (self.divisor & -self.divisor).bit_length() - 1

    @property
    def odd(self) -> int:
        """Odd part of the divisor."""
        return self.divisor >> self.shift

    @property
    def saving(self) -> Fraction:
        """Products of the direct sum for each product of the transform."""
        (height, width), (R, S) = self.outputs, self.kernel
        return Fraction(height * width * R * S, self.products)


def inverse_of_odd(odd: int, bits: int) -> int:
    """Inverse of an odd number modulo 2**bits, so that dividing becomes multiplying."""
    return pow(odd, -1, 1 << bits)


# Cook and Toom ------------------------------------------------------------------------------------


ZERO = Fraction(0)


def _polynomial(roots: Sequence[Fraction], length: int) -> list[Fraction]:
    """Coefficients, lowest power first, of the product of (x - root)."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [ZERO, *coefficients]
        coefficients = [a - root * b for a, b in zip(shifted, [*coefficients, ZERO], strict=True)]
    return coefficients + [ZERO] * (length - len(coefficients))


def _content(row: Sequence[Fraction]) -> Fraction:
    """Largest rational of which every element is an integer multiple."""
    return Fraction(
        gcd(*(value.numerator for value in row)), lcm(*(value.denominator for value in row))
    )


def _primitive_rows(rows: Sequence[Sequence[Fraction]]) -> Int64Array:
    """Rows as integers without a common factor."""
    return np.array(
        [[int(value / content) for value in row] for row in rows if (content := _content(row))],
        dtype=np.int64,
    )


def cook_toom(
    points: Sequence[Fraction | int],
    outputs: int,
    taps: int,
    form: Form | Sequence[int] = "row_minimal",
    flipped: Sequence[int] = (),
) -> AxisTransform:
    """F(outputs, taps) from the points at which polynomials are multiplied, and infinity.

    Parameters
    ----------
    points : sequence of Fraction or int
        outputs + taps - 2 different rationals.
    outputs, taps : int
    form : Form or sequence of int
        What the weights carry of each product's factor; a sequence gives it product by product.
    flipped : sequence of int
        Products of which both B^T and G change sign.

    Returns
    -------
    AxisTransform
        Rows of B^T are integers without a common factor, and so are the columns of A^T but for the
        factor that they carry; `divisor` is the smallest with which G is made of integers.

    Raises
    ------
    InputError
        For equal points, a wrong number of them, or a factor that cannot be split so.

    Notes
    -----
    A^T[i][k] = a_k**i, G[k][j] = a_k**j / N_k, N_k = product over l != k of (a_k - a_l); row k of
    B^T holds the coefficients of the product over l != k of (x - a_l), the last row those of the
    product over all points; the last column of A^T and the last row of G are unit vectors.
    """
    at = [Fraction(point) for point in points]
    n = outputs + taps - 1
    if outputs < 1 or taps < 1 or len(at) != n - 1 or len(set(at)) != len(at):
        raise InputError(
            f"F({outputs},{taps}) takes {n - 1} different points besides infinity, but got"
            f" {', '.join(map(str, at)) or 'none'}; give as many"
        )
    inputs = [_polynomial(at[:k] + at[k + 1 :], n) for k in range(n - 1)] + [_polynomial(at, n)]
    columns = [[a**i for i in range(outputs)] for a in at]
    columns.append([Fraction(int(i == outputs - 1)) for i in range(outputs)])
    weights = []
    for k, a in enumerate(at):
        norm = Fraction(1)
        for other in at[:k] + at[k + 1 :]:
            norm *= a - other
        weights.append([a**j / norm for j in range(taps)])
    weights.append([Fraction(int(j == taps - 1)) for j in range(taps)])

    # Integer rows of B^T and columns of A^T are content times smaller: G takes the contents.
    contents = [
        _content(row) * _content(column) * _content(weight)
        for row, column, weight in zip(inputs, columns, weights, strict=True)
    ]
    divisor = lcm(*(content.denominator for content in contents))
    factors = [int(content * divisor) for content in contents]
    shares = _weight_shares(factors, form)
    rest = [factor // share for factor, share in zip(factors, shares, strict=True)]
    signs = np.array([[-1 if k in flipped else 1] for k in range(n)])
    return AxisTransform(
        input=_primitive_rows(inputs) * signs,
        weight=_primitive_rows(weights) * np.array(shares)[:, np.newaxis] * signs,
        output=(_primitive_rows(columns) * np.array(rest)[:, np.newaxis]).T,
        divisor=divisor,
    )


def _weight_shares(factors: list[int], form: Form | Sequence[int]) -> list[int]:
    """Part of each product's factor that the weights carry."""
    if form == "scaled":
        return factors
    if form == "row_minimal":
        return [1] * len(factors)
    if form == "dyadic":
        return [factor // (factor & -factor) for factor in factors]
    shares = [share for share in form if isinstance(share, int)]
    if len(shares) != len(factors) or any(
        share < 1 or factor % share for factor, share in zip(factors, shares, strict=True)
    ):
        raise InputError(
            f"the weights can carry divisors of {factors}, but the form is {form!r}; name"
            " 'scaled', 'row_minimal' or 'dyadic', or one divisor for each product"
        )
    return shares


def axis_transform(
    outputs: int, taps: int, form: Form | Sequence[int] = "row_minimal"
) -> AxisTransform:
    """F(outputs, taps) at the first of the `STANDARD_POINTS`.

    With four products the signs are those that Lavin and Gray print.

    Raises
    ------
    InputError
        Where there are too few points.
    """
    count = outputs + taps - 2
    if outputs < 1 or taps < 1 or count > len(STANDARD_POINTS):
        raise InputError(
            f"F({outputs},{taps}) needs {count} points, but there are {len(STANDARD_POINTS)}"
            " standard ones; pass points of your own to cook_toom"
        )
    flipped = (0,) if count == 3 else ()
    return cook_toom(STANDARD_POINTS[:count], outputs, taps, form, flipped)


def nested(rows: AxisTransform, columns: AxisTransform, name: str = "") -> Transform:
    """Nest two transforms: rows first, then columns; the divisors multiply."""
    outputs = (len(rows.output), len(columns.output))
    kernel = (rows.weight.shape[1], columns.weight.shape[1])
    products = len(rows.input) * len(columns.input)

    def outer(a: Int64Array, b: Int64Array) -> Int64Array:
        grid: Int64Array = np.einsum("ij,kl->ikjl", a, b)
        return grid.reshape(products, a.shape[1], b.shape[1])

    return Transform(
        name=name or transform_name(outputs, kernel),
        outputs=outputs,
        kernel=kernel,
        input=outer(rows.input, columns.input),
        weight=outer(rows.weight, columns.weight),
        output=np.moveaxis(outer(rows.output.T, columns.output.T), 0, -1),
        divisor=rows.divisor * columns.divisor,
        axes=(rows, columns),
    )


def transform_name(outputs: tuple[int, int], kernel: tuple[int, int]) -> str:
    """F(2x2,3x3) and so on."""
    return f"F({outputs[0]}x{outputs[1]},{kernel[0]}x{kernel[1]})"


def winograd(
    outputs: int | tuple[int, int],
    kernel: int | tuple[int, int],
    form: Form | Sequence[int] = "row_minimal",
) -> Transform:
    """F(outputs, kernel) at the standard points, nested.

    Parameters
    ----------
    outputs, kernel : int or (int, int)
        Height and width; one number stands for a square.
    form : Form or sequence of int
        See `cook_toom`; all but ``row_minimal`` stand in the name.
    """
    out_height, out_width = (outputs, outputs) if isinstance(outputs, int) else outputs
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    rows, columns = axis_transform(out_height, height, form), axis_transform(out_width, width, form)
    suffix = "" if form == "row_minimal" else f" {form}"
    return nested(rows, columns, transform_name((out_height, out_width), (height, width)) + suffix)


NCNN_F4_SHARES = (6, 4, 4, 1, 1, 6)
"""What ncnn's weights carry in F(4,3) today: 24 G, but 6 instead of 24 in the last row."""


def ncnn_f4() -> Transform:
    """F(4x4,3x3) as ncnn multiplies it (convolution_3x3_winograd_int8.h, 2024)."""
    axis = axis_transform(4, 3, NCNN_F4_SHARES)
    return nested(axis, axis, "F(4x4,3x3) ncnn")


# Complex points -----------------------------------------------------------------------------------

# Products at 0, 1, -1, infinity and i.
_COMPLEX_INPUT: list[list[complex]] = [
    [-1, 0, 0, 0, 1, 0],
    [0, 1, 1, 1, 1, 0],
    [0, -1, 1, -1, 1, 0],
    [0, -1, 0, 0, 0, 1],
    [0, -1j, -1, 1j, 1, 0],
]
_COMPLEX_WEIGHT: list[list[complex]] = [
    [-1, 0, 0],
    [1, 1, 1],
    [1, -1, 1],
    [0, 0, 1],
    [1, 1j, -1],
]
_COMPLEX_OUTPUT: list[list[complex]] = [
    [4, 0, 0, 0],
    [1, 1, 1, 1],
    [1, -1, 1, -1],
    [0, 0, 0, 4],
    [1, 1j, -1, -1j],
]


def complex_f4() -> Transform:
    """F(4x4,3x3) at the points 0, 1, -1, i, -i and infinity: 46 real products, divisor 16.

    Notes
    -----
    Values at i and -i are conjugates for real tiles, so one of them is computed. 16 of the 36
    nested products are real; the other 20 are 10 complex ones and their conjugates, and each takes
    three real products: with V = a + bi and U = c + di

        Re = c (a + b) - b (c + d),    Im = c (a + b) + a (d - c),

    where the sums of c and d are formed ahead of time. Rows of G are minimal. Source: Meng and
    Brothers 2019, section 3.
    """
    B, G, A = (
        np.array(m, dtype=np.complex128) for m in (_COMPLEX_INPUT, _COMPLEX_WEIGHT, _COMPLEX_OUTPUT)
    )
    rows: list[tuple[Array, Array, Array]] = []  # of input, weight and output for each product
    for k in range(5):
        for j in range(5):
            v, u, a = (np.outer(m[k], m[j]) for m in (B, G, A))
            if k < 4 and j < 4:
                rows.append((v.real, u.real, a.real))
                continue
            rows += _three_products(v, u, a)
            if k == 4 and j == 4:  # the point pair (i, -i)
                v, u, a = (np.outer(m[k], m[j].conj()) for m in (B, G, A))
                rows += _three_products(v, u, a)
    inputs, weights, outputs = (np.array(m).astype(np.int64) for m in zip(*rows, strict=True))
    return Transform(
        name="F(4x4,3x3) complex",
        outputs=(4, 4),
        kernel=(3, 3),
        input=inputs,
        weight=weights,
        output=np.moveaxis(outputs, 0, -1),
        divisor=16,
    )


def _three_products(v: Array, u: Array, a: Array) -> list[tuple[Array, Array, Array]]:
    """Twice the real part of a * (u g) * (v d) in three real products."""
    return [
        (v.real + v.imag, u.real, 2 * (a.real - a.imag)),
        (v.real, u.imag - u.real, -2 * a.imag),
        (v.imag, u.real + u.imag, -2 * a.real),
    ]


# Cost ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Adders:
    """Additions of one tile and channel: constants as signed powers of two, nothing shared."""

    input: int
    weight: int
    output: int


def adders(transform: Transform) -> Adders:
    """Count the additions of the transforms as written; shifts are wires.

    A constant costs one addition less than its non-adjacent form has terms. Nested transforms run
    rows first, then columns. For F(2x2,3x3) these are the 32, 28 and 24 of Lavin and Gray.
    """

    def of_rows(matrix: Int64Array) -> int:
        terms: Int64Array = np.count_nonzero(naf_digits(matrix), axis=(0, 2))
        return sum(max(0, count - 1) for count in terms.tolist())

    def of_both(rows: Int64Array, columns: Int64Array) -> int:
        return of_rows(rows) * len(columns.T) + of_rows(columns) * len(rows)

    products = transform.products
    if transform.axes is None:
        return Adders(
            of_rows(transform.input.reshape(products, -1)),
            of_rows(transform.weight.reshape(products, -1)),
            of_rows(transform.output.reshape(-1, products)),
        )
    rows, columns = transform.axes
    return Adders(
        of_both(rows.input, columns.input),
        of_both(rows.weight, columns.weight),
        of_both(rows.output, columns.output),
    )
