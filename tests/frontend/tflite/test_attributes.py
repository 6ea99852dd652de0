"""docs/tflite_attributes.md: every option of every operator against LiteRT, none wrong, the page as it is written now."""

from pathlib import Path

import pytest

pytest.importorskip("ai_edge_litert", reason="LiteRT is the reference of TFLite files")
from tvm_ergo.evaluation.tflite import attributes  # noqa: E402


def test_the_page_is_current_and_nothing_is_wrong():
    found = attributes.results()
    assert not [r for r in found if r.result.startswith("WRONG")]
    page = Path(__file__).resolve().parents[3] / attributes.PAGE
    assert page.read_text() == attributes.page(found), "python -m tvm_ergo.evaluation.tflite.attributes"


def test_every_option_that_is_read_is_tried():
    assert attributes.unlisted() == []
