"""Every attribute case of ``benchmarks.onnx_attributes`` in float, a part of them between quantizers, and the page
about them."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))  # benchmarks are no package of the product

from benchmarks import onnx_attributes  # noqa: E402
from benchmarks.onnx_attribute_cases import cases  # noqa: E402

pytest.importorskip("onnxruntime")
OPERATORS = sorted({c.op for c in cases()})
QUANTIZED_PART = cases()[::9]


@pytest.fixture(scope="module")
def in_float():
    """Results of every case in float: {operator: [(case, result, detail)]}."""
    found = {}
    for case in cases():
        found.setdefault(case.op, []).append((case, *onnx_attributes.as_float(case)))
    return found


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_attribute_is_right_or_refused_by_name(operator, in_float):
    for case, result, detail in in_float[operator]:
        assert result != onnx_attributes.WRONG, (case.attributes, detail)
        assert result != onnx_attributes.REFUSED or "node" in detail, (case.attributes, detail)


@pytest.mark.parametrize("case", QUANTIZED_PART, ids=lambda c: f"{c.op}-{'-'.join(c.attributes)}")
def test_between_quantizers_within_one_step_or_refused(case):
    result, detail = onnx_attributes.as_quantized(case)
    assert result != onnx_attributes.WRONG, detail


def test_the_page_is_current(in_float):
    """Operators, attributes, values and float results; ``python -m benchmarks.onnx_attributes`` writes the page."""
    results = onnx_attributes.Results(
        [(case, (result, "")) for found in in_float.values() for case, result, _ in found]
    )
    lines, tested, every = onnx_attributes.table(results)
    written = onnx_attributes.PAGE.read_text()
    shown = [line.rsplit("|", 2)[0] for line in written.split("\n") if line.startswith("| ")]
    assert shown == [line.rsplit("|", 2)[0] for line in lines if line.startswith("| ")]
    assert f"{tested} of {every} attributes" in written and " 0 wrong" in written.replace("\n", " ")
