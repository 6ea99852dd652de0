"""The chosen stream is the smallest one."""

from __future__ import annotations

import pytest

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.weights import encode
from tvm_ergo.target.codecs.weights_choice import best_codec
from tvm_ergo.target.codecs.weights_registry import WEIGHT_CODECS

from ..weight_samples import KINDS, codes


@pytest.mark.parametrize("kind", KINDS)
def test_smallest_of_all(kind):
    weights = codes(kind, 16, 100)
    assert len(best_codec(weights).data) == min(len(encode(weights, codec).data) for codec in WEIGHT_CODECS)


def test_among_the_codecs_asked_for():
    assert best_codec(codes("pruned", 30, 60), [Codec.RUNS], lanes=4).codec == Codec.RUNS
