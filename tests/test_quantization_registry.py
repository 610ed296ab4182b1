"""Methods by name, their settings, and files of the user's own."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import golden.quantization.methods as shipped
from golden.errors import InputError
from golden.quantization.method import Method, WeightCodes, WeightTask, quantized_weights
from golden.quantization.registry import methods, needs_moments, parse_method

DOCS = Path(__file__).parents[1] / "docs" / "quantizers.md"


def test_one_file_is_one_method():
    files = {path.stem for path in Path(shipped.__path__[0]).glob("*.py")} - {"__init__"}
    assert set(methods()) == files


@pytest.mark.parametrize("name", list(methods()))
def test_methods_describe_themselves(name):
    method = methods()[name]
    assert method.name == name
    assert re.search(r"\d{4}", method.source), "a paper with its year or number"
    assert 10 < len(method.summary) < 100
    for key, allowed in method.choices.items():
        assert method.options[key] in allowed
    for key, default in method.options.items():
        assert not isinstance(default, str) or key in method.choices


def test_settings_replace_defaults():
    method, options = parse_method("nhot:n=3,e=7,reading=scale")
    assert method is methods()["nhot"]
    assert options == {**method.options, "n": 3, "e": 7, "reading": "scale"}
    assert parse_method("nhot")[1] == method.options
    assert parse_method("uniform:percentile=99.5")[1]["percentile"] == 99.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n-hot", "'n-hot' is not a method, which are absmean, apot, .*; did you mean nhot?"),
        ("", "'' is not a method, .*; choose one of these"),
        ("nhot:m=2", "'m=2' is not a setting of method nhot, which takes n=2, e=-1, .*"),
        ("nhot:reads=scale", "did you mean reading?"),
        ("nhot:n", "'n' is not a setting of method nhot"),
        ("ternary:n=2", "which takes per=channel; choose one of these"),
        ("nhot:n=two", "n of method nhot must be an integer, not 'two'; for example n=2"),
        ("nhot:n=1.5", "n of method nhot must be an integer, not '1.5'"),
        ("uniform:percentile=x", "percentile of method uniform must be a finite number, not 'x'"),
        ("uniform:percentile=nan", "percentile of method uniform must be a finite number"),
        ("twn:factor=inf", "factor of method twn must be a finite number, not 'inf'"),
        (
            "uniform:per=channels",
            "must be channel or tensor, not .channels.; did you mean channel?",
        ),
        ("none/such.py", "method file 'none/such.py' does not exist"),
    ],
)
def test_texts_that_name_nothing_are_refused_in_one_sentence(text, message):
    with pytest.raises(InputError, match=message) as caught:
        parse_method(text)
    assert "\n" not in str(caught.value)


def test_files_that_hold_no_method_are_refused(tmp_path):
    empty = tmp_path / "empty.py"
    empty.write_text("METHOD = 3\n")
    with pytest.raises(InputError, match=r"holds no METHOD = Method\(...\)"):
        parse_method(str(empty))
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_this_name\n")
    with pytest.raises(InputError, match="fails with ModuleNotFoundError"):
        parse_method(str(broken))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("true", True), ("YES", True), ("1", True), ("False", False), ("no", False), ("0", False)],
)
def test_a_setting_that_is_true_or_false_can_be_switched(tmp_path, text, expected):
    path = own_file(tmp_path, "options={'k': True}")
    assert parse_method(f"{path}:k={text}")[1] == {"k": expected}
    with pytest.raises(InputError, match="k of method mine must be true or false, not 'maybe'"):
        parse_method(f"{path}:k=maybe")


@pytest.mark.parametrize("default", ["None", "[1, 2]"])
def test_defaults_that_no_text_can_replace_are_refused(tmp_path, default):
    path = own_file(tmp_path, f"options={{'k': {default}}}")
    with pytest.raises(InputError, match="k of method mine must have a bool, int, float or str"):
        parse_method(f"{path}:k=0")


def own_file(folder, fields):
    path = folder / "mine.py"
    path.write_text(
        "from golden.quantization.method import Method\n"
        f"METHOD = Method('mine', lambda task, options: None, '', '', {fields})\n"
    )
    return path


def test_a_file_that_leaves_the_program_is_refused(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("raise SystemExit(0)\n")
    with pytest.raises(InputError, match=r"method file .*mine\.py' fails with SystemExit: 0"):
        parse_method(str(path))


CODES = np.zeros((4, 40), np.int64)
SCALES = np.ones(4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "must give WeightCodes, not NoneType"),
        (WeightCodes(CODES[:2], SCALES, 8, 0), r"shape \(4, 40\), not int64 of \(2, 40\)"),
        (WeightCodes(CODES + 0.5, SCALES, 8, 0), r"must give integer codes .* not float64"),
        (WeightCodes(CODES, SCALES[:2], 8, 0), "must give 4 positive finite scales"),
        (WeightCodes(CODES, 0 * SCALES, 8, 0), "must give 4 positive finite scales"),
        (WeightCodes(CODES, SCALES * np.nan, 8, 0), "must give 4 positive finite scales"),
        (WeightCodes(CODES, SCALES, 9, 0), "must give bits as an integer from 1 to 8, not 9"),
        (WeightCodes(CODES, SCALES, 8.0, 0), "must give bits as an integer from 1 to 8, not 8.0"),
        (WeightCodes(CODES, SCALES, None, 0), "must give bits as an integer .* not None"),
        (WeightCodes(CODES.tolist(), SCALES, 8, 0), "codes as an integer array, not list"),
        (WeightCodes(CODES, SCALES.astype(str), 8, 0), "must give 4 positive finite scales"),
        (WeightCodes(CODES, 1e300 * SCALES, 8, 0), "weights and scales up to 3.4e.38"),
        (WeightCodes(CODES + 127, 1e37 * SCALES, 8, 0), "weights and scales up to 3.4e.38"),
        (WeightCodes(CODES, SCALES, 8, None), "storage_bits as a finite number from 0, not None"),
        (WeightCodes(CODES, SCALES, 8, np.nan), "storage_bits as a finite number from 0, not nan"),
        (WeightCodes(CODES, SCALES, 8, -5), "storage_bits as a finite number from 0, not -5"),
        (WeightCodes(CODES - 1, SCALES, 8, 0, 3), "codes from 0 with zero point 3, not from -1"),
        (WeightCodes(CODES, SCALES, 8, 0, 3.5), "integer zero point from 0 to 255, not 3.5"),
        (WeightCodes(CODES, SCALES, 8, 0, 300), "integer zero point from 0 to 255, not 300"),
        (WeightCodes(CODES, SCALES + np.arange(4), 8, 0, 3), "equal scales with zero point 3"),
        (WeightCodes(CODES + 256, SCALES, 8, 0), "must give codes of 8 bits, not 256 to 256"),
        (WeightCodes(CODES - 129, SCALES, 8, 0), "must give codes of 8 bits, not -129 to -129"),
    ],
)
def test_a_method_that_breaks_its_promise_is_told_so(given, message):
    """A code of 9 bits would wrap in the file, and the network be another one."""
    method = Method("mine", lambda task, options: given, "", "")
    with pytest.raises(InputError, match=f"method mine .*{message}"):
        quantized_weights(method, WeightTask(CODES + 1.0, 8), {})


def test_narrow_numbers_of_a_method_are_widened_before_they_are_subtracted():
    """uint8 less a zero point would wrap."""
    given = WeightCodes(CODES.astype(np.uint8), SCALES.astype(np.float32), np.int8(8), 0, 3)
    method = Method("mine", lambda task, options: given, "", "")
    found = quantized_weights(method, WeightTask(CODES + 1.0, 8), {})
    assert (found.codes.dtype, found.scales.dtype, type(found.bits)) == (np.int64, np.float64, int)
    assert ((found.codes - found.zero_point) == -3).all()


def test_a_method_that_leaves_the_program_is_told_so():
    def leaves(task, options):
        raise SystemExit(0)

    with pytest.raises(InputError, match="method mine fails with SystemExit: 0"):
        quantized_weights(Method("mine", leaves, "", ""), WeightTask(CODES + 1.0, 8), {})


def test_a_method_that_fails_is_named_with_the_line(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from golden.quantization.method import Method\n"
        "def quantize(task, options):\n"
        "    return task.weight\n"
        "METHOD = Method('mine', quantize, '', '')\n"
    )
    method, options = parse_method(str(path))
    message = r"method mine fails with AttributeError: .* \(mine\.py, line 3\); mend it"
    with pytest.raises(InputError, match=message):
        quantized_weights(method, WeightTask(CODES + 1.0, 8), options)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("easyquant", True),
        ("lat", True),
        ("nhot", False),
        ("nhot:reading=scale,objective=outputs", True),
        ("pot:objective=outputs", True),
        ("pot", False),
    ],
)
def test_who_needs_data(text, expected):
    assert needs_moments(*parse_method(text)) is expected


def test_the_method_of_the_documentation_runs(tmp_path):
    (block,) = re.findall(r"```python\n(# sparse_nhot\.py.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(block.splitlines()) <= 30
    path = tmp_path / "sparse_nhot.py"
    path.write_text(block)
    method, options = parse_method(f"{path}:keep=0.25")
    rows = np.random.default_rng(0).standard_normal((4, 40))
    found = method.quantize(WeightTask(rows, 8), options)
    assert ((found.codes != 0).sum(axis=1) <= 10).all()
    largest = np.abs(rows).argmax(axis=1)
    assert (np.abs(found.codes[np.arange(4), largest]) == 127).all()


def test_the_documentation_lists_every_method():
    text = DOCS.read_text()
    for name in methods():
        assert f"| `{name}`" in text


def table_rows():
    """Rows of the table of measured errors: method, code bits, stored bits, decibel."""
    for line in DOCS.read_text().splitlines():
        cells = [cell.strip() for cell in line.replace("\\|", "").strip("|").split("|")]
        if len(cells) == 7 and cells[0].startswith("`"):
            yield pytest.param(cells, id=f"{cells[0].strip('`')}@{cells[2]}")


@pytest.mark.parametrize("cells", list(table_rows()))
def test_the_documentation_s_errors_are_those_of_the_methods(cells):
    """128 Gaussian channels of 576, seed 0."""
    text, summary, bits, stored, decibel, _, trained = cells
    method, options = parse_method(text.strip("`"))
    assert needs_moments(method, options) == (decibel == "data")
    if trained:
        assert trained == ("yes" if method.trained else "no")
        assert summary.replace("^", "**") == method.summary.replace("|", "")
    if decibel == "data":
        return
    rows = np.random.default_rng(0).standard_normal((128, 576))
    width = 8 if bits == "2" else int(bits)
    found = method.quantize(WeightTask(rows, width, None, (3, 3, 64)), options)
    error = rows - found.scales[:, np.newaxis] * (found.codes - found.zero_point)
    assert found.bits == int(bits)
    assert f"{found.storage_bits / rows.size:.2f}" == stored
    assert f"{10 * np.log10((rows**2).sum() / (error**2).sum()):.1f}" == decibel
