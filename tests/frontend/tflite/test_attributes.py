"""docs/tflite_attributes.md: every option of every operator against LiteRT, none wrong, and the page promises no more
than is so now."""

from pathlib import Path

import pytest

pytest.importorskip("ai_edge_litert", reason="LiteRT is the reference of TFLite files")
from tvm_ergo.evaluation.tflite import attributes  # noqa: E402

ORDER = ("right", "host", "LiteRT", "refused", "WRONG")


def rank(result: str) -> int:
    """From what is best to what must not be; a step's rounding is no difference."""
    return (
        max(i for i, word in enumerate(ORDER) if word in result.replace("within one step", "right"))
        if result != "-"
        else -1
    )


def rows(text: str) -> dict[tuple[str, ...], list[str]]:
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")]
    return {tuple(c[:3]): c[3:] for c in cells if len(c) == 5 and c[0] != "operator"}


def test_nothing_is_wrong_and_the_page_is_current():
    found = attributes.results()
    assert not [r for r in found if r.result.startswith("WRONG")]
    written, now = (
        rows((Path(__file__).resolve().parents[3] / attributes.PAGE).read_text()),
        rows(attributes.page(found)),
    )
    assert written.keys() == now.keys(), "write the page again: python -m tvm_ergo.evaluation.tflite.attributes"
    worse = {
        key: (written[key], now[key]) for key in now if any(rank(n) > rank(w) for n, w in zip(now[key], written[key]))
    }
    assert not worse


def test_every_option_that_is_read_is_tried():
    assert attributes.unlisted() == []
