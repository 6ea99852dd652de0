"""What `tvm-ergo run` says of compressed tensors, and its options."""

import pytest

from tvm_ergo.cli.models import compression
from tvm_ergo.cli.run_command import compression_lines
from tvm_ergo.target.errors import InputError


def row(name, *by_dropped):
    counts = [*by_dropped, *[0] * (9 - len(by_dropped))]
    return {"symbol": "main", "node": 0, "name": name, "tiles": sum(counts), "reduced": sum(counts[1:]), "by_dropped": counts}


def test_lines():
    assert compression_lines([]) == []
    assert compression_lines([row("a", 4), row("b", 2)]) == ["compressed: 2 tensors in 6 tiles, all exact"]
    assert compression_lines([row("a", 4), row("b", 2, 1, 3)]) == [
        "compressed: 2 tensors in 10 tiles, 4 of them in fewer bits because their data did not fit", "  b: of 6 tiles 1 without 1 bit, 3 without 2 bits"]


@pytest.mark.parametrize("name, lossless, expected", [(None, False, "auto"), ("off", False, "off"), (None, True, "lossless"), ("lossless", True, "lossless")])
def test_options(name, lossless, expected):
    assert compression(type("A", (), {"compression": name, "lossless": lossless})) == expected


def test_contradiction():
    with pytest.raises(InputError, match="contradicts"):
        compression(type("A", (), {"compression": "off", "lossless": True}))
