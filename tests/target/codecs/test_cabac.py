"""The context coder of weights: compiled and Python give the same bytes and the same codes, whatever the bytes;
contexts gain; the state is bounded."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tvm_ergo.target.codecs import Codec, cabac, weights_native
from tvm_ergo.target.codecs.cabac import decode_matrix, encode_matrix
from tvm_ergo.target.codecs.weights import Frame, WeightCodes, encode

from ..weight_samples import KINDS, codes


def in_python(run):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights_native, "library", lambda: None)
        return run()


def case(seed: int):
    draw = random.Random(seed)
    weights = codes(draw.choice(KINDS), draw.randint(1, 20), draw.randint(1, 40), seed, draw.randint(1, 12))
    return draw, weights, Frame(weights.table.size, weights.default, weights.inner)


def test_python_alone_comes_back():
    for seed in range(12):
        _, weights, frame = case(seed)
        payload, decisions = in_python(lambda: encode_matrix(weights.folded, frame))
        folded, again = in_python(lambda: decode_matrix(payload, frame, weights.folded.shape))
        assert np.array_equal(folded, weights.folded) and decisions == again >= folded.size


@pytest.mark.skipif(weights_native.library() is None, reason="needs libweights.so, compiled by `pip install -e .`")
def test_compiled_is_the_same():
    for seed in range(30):
        draw, weights, frame = case(seed)
        payload, decisions = encode_matrix(weights.folded, frame)
        assert (payload, decisions) == in_python(lambda: encode_matrix(weights.folded, frame))
        damaged = draw.choice([payload, draw.randbytes(len(payload) + 1), payload[: len(payload) // 2], b""])
        native, python = (
            decode_matrix(damaged, frame, weights.folded.shape),
            in_python(lambda: decode_matrix(damaged, frame, weights.folded.shape)),
        )
        assert np.array_equal(native[0], python[0]) and native[1] == python[1]
        assert native[0].max() < max(
            2, weights.table.size
        )  # of a constant matrix a hostile flag may claim another value: `decode` refuses it


@pytest.mark.skipif(weights_native.library() is None, reason="needs libweights.so, compiled by `pip install -e .`")
def test_wide_matrices_alias_and_come_back(monkeypatch):
    rng = np.random.default_rng(0)
    wide = WeightCodes.of((rng.integers(-9, 9, (3, 5000)) * (rng.random((3, 5000)) < 0.2)).astype(np.int8), 700)
    frame = Frame(wide.table.size, wide.default, wide.inner)
    payload, _ = encode_matrix(wide.folded, frame)
    assert payload == in_python(lambda: encode_matrix(wide.folded, frame))[0]
    assert np.array_equal(in_python(lambda: decode_matrix(payload, frame, wide.folded.shape))[0], wide.folded)


def test_columns_of_different_density_are_learned():
    rng = np.random.default_rng(0)
    density = rng.choice([0.02, 0.6], 32)
    weights = WeightCodes.of(((rng.random((300, 32)) < density) * rng.choice([-3, 3], (300, 32))).astype(np.int8))
    coded = encode(weights, Codec.CABAC)
    ideal = 300 * sum(-p * np.log2(p / 2) - (1 - p) * np.log2(1 - p) for p in density)
    assert ideal < 8 * len(coded.data) < 0.93 * weights.entropy_bits


def test_probabilities_stay_where_the_bound_of_symbols_needs_them():
    _, squash, _, level = cabac.tables(256, 100)
    assert squash.max() == 65514 and squash.min() == 22 and level.max() == cabac.LEVELS - 1 and level.min() == 0
    constant = WeightCodes.of(np.concatenate([np.zeros(200_000), [1]]).astype(np.int8)[None])
    if weights_native.library():
        assert constant.codes.size < cabac.CabacCodec().most_symbols(len(encode(constant, Codec.CABAC).data))
