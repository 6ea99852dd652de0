"""Relative indices against a slow twin: runs, padding entries, the end."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.runs import RUN_BITS, code_bits, padded
from tvm_ergo.target.codecs.weights import encode

from ..weight_samples import codes


def entries_one_by_one(folded, longest):
    found, run = [], 0
    for place, code in enumerate(folded.tolist()):
        if code or run == longest or place == len(folded) - 1:
            found.append((run, code))
            run = 0
        else:
            run += 1
    return found


def test_entries():
    draw = random.Random(0)
    for run_bits in (1, 2, *RUN_BITS):
        for _ in range(60):
            folded = np.array(
                [draw.choice([0] * draw.choice([1, 9, 60]) + [1, 7]) for _ in range(draw.randint(1, 200))], np.uint8
            )
            runs, values = padded(folded, run_bits)
            assert list(zip(runs.tolist(), values.tolist())) == entries_one_by_one(folded, (1 << run_bits) - 1)


@pytest.mark.parametrize("entries, expected", [(1, 1), (2, 1), (3, 2), (16, 4), (17, 5), (256, 8)])
def test_width_of_a_code(entries, expected):
    assert code_bits(entries) == expected


def test_size_is_entries_times_width():
    weights = codes("ternary", 30, 100)
    coded = encode(weights, Codec.RUNS)
    sizes = [-(-padded(weights.folded.ravel(), b)[0].size * (b + 2) // 8) for b in RUN_BITS]
    assert min(sizes) < len(coded.data) < min(sizes) + 24
    assert coded.steps in [padded(weights.folded.ravel(), b)[0].size for b in RUN_BITS]
