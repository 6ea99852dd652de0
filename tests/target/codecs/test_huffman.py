"""Huffman codes of weights: Python and compiled alike, bounded lengths, and the size that the counts predict."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ergo.target.codecs import Codec, weights_native
from tvm_ergo.target.codecs.prefix_code import PrefixCode
from tvm_ergo.target.codecs.weights import decode, encode

from ..weight_samples import KINDS, codes


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_compiled_coder(kind, monkeypatch):
    weights = codes(kind, 9, 33)
    data = encode(weights, Codec.HUFFMAN, 3).data
    monkeypatch.setattr(weights_native, "library", lambda: None)
    assert encode(weights, Codec.HUFFMAN, 3).data == data and np.array_equal(decode(data)[0].codes, weights.codes)


def test_size_is_what_the_counts_say():
    weights = codes("dense", 64, 64)
    code = PrefixCode.of(np.bincount(weights.folded.ravel(), minlength=weights.table.size))
    coded = encode(weights, Codec.HUFFMAN)
    head = len(coded.data) - -(-code.bits_of(np.bincount(weights.folded.ravel())) // 8)
    assert 0 < head < 16 + 32 + 1 + len(code.table()) and coded.steps == 64 * 64
