"""Runs and values against a slow twin, and the compiled decoder against the one in Python."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tvm_ergo.target.codecs import Codec, weights_native
from tvm_ergo.target.codecs.huffman_runs import LONGEST_RUN, entries_of
from tvm_ergo.target.codecs.weights import WeightCodes, decode, encode

from ..weight_samples import KINDS, codes


def entries_one_by_one(folded, longest):
    found, run = [], 0
    for code in folded.tolist():
        if code:
            found.append((run, code))
            run = 0
        else:
            run += 1
            if run == longest:
                found.append((run, 0))
                run = 0
    return found + ([(run, 0)] if run else [])


def test_entries():
    draw = random.Random(0)
    for longest in (1, 2, 3, 255):
        for _ in range(60):
            folded = np.array([draw.choice([0, 0, 0, 0, 1, 7]) for _ in range(draw.randint(1, 40))], np.uint8)
            runs, values = entries_of(folded, longest)
            assert list(zip(runs.tolist(), values.tolist())) == entries_one_by_one(folded, longest)


@pytest.mark.parametrize("zeros", [0, 1, 254, 255, 256, 509, 510, 511, 700])
@pytest.mark.parametrize("tail", [0, 1])
def test_around_the_longest_run(zeros, tail):
    row = np.array([[0] * zeros + [3] * tail or [0]], np.int8)
    weights = WeightCodes(row.astype(np.uint8), np.arange(4).astype(np.int8))
    assert np.array_equal(decode(encode(weights, Codec.HUFFMAN_RUNS).data)[0].codes, row) and LONGEST_RUN == 255


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_compiled_coder(kind, monkeypatch):
    weights = codes(kind, 9, 90)
    coded = encode(weights, Codec.HUFFMAN_RUNS, 3)
    monkeypatch.setattr(weights_native, "library", lambda: None)
    assert encode(weights, Codec.HUFFMAN_RUNS, 3).data == coded.data
    back, info = decode(coded.data)
    assert np.array_equal(back.codes, weights.codes) and info.steps == coded.steps


def test_below_one_bit_a_weight():
    assert encode(codes("long runs", 100, 1000), Codec.HUFFMAN_RUNS).bits_per_weight < 0.2
