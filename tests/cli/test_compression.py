"""What `tvm-ergo run` and `eval` say of compressed tensors, and its options."""

import json
from argparse import Namespace

import numpy as np
import pytest

from tvm_ergo.cli import main
from tvm_ergo.cli.eval_command import measure, show
from tvm_ergo.cli.models import compression
from tvm_ergo.cli.run_command import compression_lines
from tvm_ergo.evaluation.lookup import own_test
from tvm_ergo.target.errors import InputError


def row(name, *by_dropped):
    counts = [*by_dropped, *[0] * (9 - len(by_dropped))]
    return {
        "symbol": "main",
        "node": 0,
        "name": name,
        "tiles": sum(counts),
        "reduced": sum(counts[1:]),
        "by_dropped": counts,
    }


def test_lines():
    assert compression_lines([]) == []
    assert compression_lines([row("a", 4), row("b", 2)]) == ["compressed: 2 tensors in 6 tiles, all exact"]
    assert compression_lines([row("a", 4), row("b", 2, 1, 3)]) == [
        "compressed: 2 tensors in 10 tiles, 4 of them in fewer bits because their data did not fit",
        "  b: of 6 tiles 1 without 1 bit, 3 without 2 bits",
    ]


@pytest.mark.parametrize(
    "name, lossless, expected",
    [(None, False, "auto"), ("off", False, "off"), (None, True, "lossless"), ("lossless", True, "lossless")],
)
def test_options(name, lossless, expected):
    assert compression(type("A", (), {"compression": name, "lossless": lossless})) == expected


def test_contradiction():
    with pytest.raises(InputError, match="contradicts"):
        compression(type("A", (), {"compression": "off", "lossless": True}))


class Compiled:
    """Runs that lose bits in every other sample."""

    reference, programs = None, {}

    def __init__(self):
        self.calls = 0

    states = ()

    def reset(self):
        """No state."""

    def run(self, feeds):
        self.calls += 1
        lost = [row("a", 4), row("b", 1, 2 * (self.calls % 2))]
        return type("R", (), {"outputs": {"y": np.eye(3)[[feeds["x"].argmax()]]}, "compressed": lost})


@pytest.mark.parametrize("samples", [1, 5])
def test_eval_says_which_tiles_lost_bits(capsys, samples):
    arguments = Namespace(float=False, data=None, limit=None, json="-", html=None)
    test = own_test({"x": np.eye(3)[np.arange(samples) % 3], "y": np.arange(samples) % 3}, "own.npz", "x")
    rows = measure(arguments, Compiled(), test)
    show(arguments, rows)
    out, err = capsys.readouterr()
    odd = (samples + 1) // 2
    expected = {
        "tiles": samples + 2 * odd,
        "reduced": 2 * odd,
        "runs": samples,
        "runs_reduced": odd,
        "by_dropped": [samples, 2 * odd, 0, 0, 0, 0, 0, 0, 0],
    }
    (found,) = json.loads(out)
    a, b = found["compressed"]
    assert a["reduced"] == a["runs_reduced"] == 0 and expected.items() <= b.items() and found["figures"]["top1"] == 100
    assert (
        f"own: compressed: 2 tensors in {5 * samples + 2 * odd} tiles, {2 * odd} of them in fewer bits" in err
        and f"b: of {samples + 2 * odd} tiles {2 * odd} without 1 bit" in err
    )


def test_eval_of_a_network_without_compression_says_nothing_of_it(workspace, capsys):
    assert main(["eval", str(workspace / "digits.ergo"), "--data", str(workspace / "data.npz"), "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)[0]["compressed"] == [] and "compressed" not in err
