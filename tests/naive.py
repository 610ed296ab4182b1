"""The arithmetic once more, as plain loops over unlimited Python integers and nested lists.

Imports nothing of the project and no NumPy: it is a statement of its own, read against the text.
"""

from fractions import Fraction
from math import floor

# -- words and rounding ---------------------------------------------------------------------------


def bounds(bits, signed=True):
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def wrap(value, bits, signed=True):
    """The number congruent to value modulo 2**bits that the format holds."""
    low, high = bounds(bits, signed)
    while value > high:
        value -= 2**bits * max(1, (value - high) // 2**bits)
    while value < low:
        value += 2**bits * max(1, (low - value) // 2**bits)
    return value


def saturate(value, bits, signed=True):
    low, high = bounds(bits, signed)
    return low if value < low else high if value > high else value


def half_up(value):
    return floor(value + Fraction(1, 2))


def half_away(value):
    return half_up(value) if value >= 0 else -half_up(-value)


def half_even(value):
    below = floor(value)
    rest = value - below
    if rest == Fraction(1, 2):
        return below if below % 2 == 0 else below + 1
    return below if rest < Fraction(1, 2) else below + 1


def truncated_division(a, b):
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def doubling_high_multiply(a, b):
    """As gemmlowp writes it: nudge away from zero by sign, then divide toward zero."""
    if a == b == -(2**31):
        return 2**31 - 1
    product = a * b
    nudge = 2**30 if product >= 0 else 1 - 2**30
    return truncated_division(product + nudge, 2**31)


def requantize(acc, multiplier, shift, rounding):
    if rounding == "double":
        shifted = wrap(wrap(acc, 32) * 2 ** max(shift, 0), 32)
        high = doubling_high_multiply(shifted, multiplier)
        return half_away(Fraction(high, 2 ** max(-shift, 0)))
    if rounding == "single":
        return half_up(Fraction(wrap(acc, 32) * multiplier, 2 ** (31 - shift)))
    if rounding == "multiplier16":
        short = half_up(Fraction(multiplier, 2**16)) if multiplier < 0x7FFF0000 else 0x7FFF
        return wrap(half_up(Fraction(acc * short, 2 ** (15 - shift))), 32)
    scaled = acc * Fraction(2) ** shift
    return half_up(scaled) if rounding == "shift_half_up" else half_even(scaled)


def quantize_multiplier(real):
    """The nearest multiplier in [2**30, 2**31), by search over the exponent, in exact fractions."""
    exact = Fraction(real)
    if exact == 0:
        return 0, 0
    shift = 0
    while exact >= Fraction(2) ** shift:
        shift += 1
    while exact < Fraction(2) ** (shift - 1):
        shift -= 1
    multiplier = half_away(exact * Fraction(2) ** (31 - shift))
    if multiplier == 2**31:
        multiplier, shift = 2**30, shift + 1
    return (0, 0) if shift < -31 else (multiplier, shift)


# -- convolution, fully connected, pooling --------------------------------------------------------


def convolution_taps(x, w, stride, dilation, padding, groups):
    """Per output [n][p][q][k], the (weight, operand) pairs in the declared order.

    x is [n][y][x][c] and w is [k][r][s][c], zero points subtracted; padding is (top, bottom, left,
    right); a tap outside the image has the operand 0.
    """
    top, bottom, left, right = padding
    height, width = len(x[0]), len(x[0][0])
    out_channels, rows, columns, per_group = len(w), len(w[0]), len(w[0][0]), len(w[0][0][0])
    out_height = (height + top + bottom - (rows - 1) * dilation[0] - 1) // stride[0] + 1
    out_width = (width + left + right - (columns - 1) * dilation[1] - 1) // stride[1] + 1

    def operand(image, y, x, c):
        return image[y][x][c] if 0 <= y < height and 0 <= x < width else 0

    def taps(image, p, q, k):
        first = k // (out_channels // groups) * per_group
        return [
            (
                w[k][r][s][c],
                operand(
                    image,
                    p * stride[0] - top + r * dilation[0],
                    q * stride[1] - left + s * dilation[1],
                    first + c,
                ),
            )
            for r in range(rows)
            for s in range(columns)
            for c in range(per_group)
        ]

    return [
        [
            [[taps(image, p, q, k) for k in range(out_channels)] for q in range(out_width)]
            for p in range(out_height)
        ]
        for image in x
    ]


def dense_taps(x, w):
    """Per output [row][k], the (weight, operand) pairs."""
    return [[list(zip(row, values, strict=True)) for row in w] for values in x]


def pool(x, kernel, stride, padding, average):
    """[n][p][q][c] of the taps inside the image: rounded average, or maximum."""
    top, bottom, left, right = padding
    height, width, channels = len(x[0]), len(x[0][0]), len(x[0][0][0])
    out_height = (height + top + bottom - kernel[0]) // stride[0] + 1
    out_width = (width + left + right - kernel[1]) // stride[1] + 1

    def window(image, p, q, c):
        ys = [p * stride[0] - top + r for r in range(kernel[0])]
        xs = [q * stride[1] - left + s for s in range(kernel[1])]
        inside = [image[y][x][c] for y in ys for x in xs if 0 <= y < height and 0 <= x < width]
        return half_away(Fraction(sum(inside), len(inside))) if average else max(inside)

    return [
        [
            [[window(image, p, q, c) for c in range(channels)] for q in range(out_width)]
            for p in range(out_height)
        ]
        for image in x
    ]


# -- accumulation ---------------------------------------------------------------------------------


def naf(value):
    """Signed powers of two of the non-adjacent form, highest first."""
    terms, power = [], 1
    while value:
        if value % 2:
            digit = 2 - value % 4
            terms.insert(0, digit * power)
            value -= digit
        value //= 2
        power *= 2
    return terms


def steps_of(taps, decomposition):
    """Addends in order; a zero weight gives none."""
    if decomposition == "terms":
        return [term * x for w, x in taps for term in naf(w)]
    return [w * x for w, x in taps if w]


def accumulate(addends, acc_bits, overflow, spill_interval=None, wide_acc_bits=None):
    """One output's accumulation: value, events, first, exact, minimum, maximum, transient,
    persistent."""
    confine = wrap if overflow == "wrap" else saturate
    narrow = wide = events = exact = minimum = maximum = 0
    first = -1

    def hold(total, bits, step):
        nonlocal events, first
        low, high = bounds(bits)
        if not low <= total <= high:
            events += 1
            first = step if first < 0 else first
        return confine(total, bits)

    for step, addend in enumerate(addends):
        narrow = hold(narrow + addend, acc_bits, step)
        exact += addend
        minimum, maximum = min(minimum, exact), max(maximum, exact)
        if spill_interval and (step + 1) % spill_interval == 0:
            wide = hold(wide + narrow, wide_acc_bits, step)
            narrow = 0
    if spill_interval:
        wide = hold(wide + narrow, wide_acc_bits, len(addends) - 1)
    low, high = bounds(wide_acc_bits or acc_bits)
    persistent = not low <= exact <= high
    return {
        "value": wide if spill_interval else narrow,
        "events": events,
        "first_step": first,
        "exact": exact,
        "minimum": minimum,
        "maximum": maximum,
        "transient": events > 0 and not persistent,
        "persistent": persistent,
    }
