"""Streams of constants: made once for equal contents, lanes that pay, neighbours where the layout has them."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ergo.codegen.graph import Tensor
from tvm_ergo.codegen.weights import coding
from tvm_ergo.codegen.weights.coding import Coding, digest, figures, inner_of, stream
from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.weights import decode

RNG = np.random.default_rng(0)


def tensor(shape, how=Coding(Codec.HUFFMAN, 16), number=0):
    values = (RNG.integers(-9, 9, shape) * (RNG.random(shape) < 0.3)).astype(np.int8)
    return Tensor(number, "w", shape, "int8", values, how)


def test_equal_contents_are_coded_once():
    a = tensor((8, 3, 3, 16))
    b = Tensor(5, "other", a.shape, "int8", a.data.copy(), a.coding)
    assert a.digest == b.digest and stream(a, a.region) is stream(b, b.region)
    assert stream(a, a.region, Coding(Codec.RUNS, 16)) is not stream(a, a.region)
    assert digest(a.data) != digest(a.data.reshape(8, -1)) and digest(a.data) != digest(a.data.astype(np.int16))


def test_boxes():
    a = tensor((16, 3, 3, 32))
    box = ((4, 10), (0, 3), (0, 3), (8, 32))
    np.testing.assert_array_equal(decode(stream(a, box).data)[0].values().reshape(6, 3, 3, 24), a.data[4:10, :, :, 8:])


@pytest.mark.parametrize(
    "shape, codec, lanes",
    [
        ((4, 64), Codec.HUFFMAN, 1),
        ((8, 512), Codec.HUFFMAN, 8),
        ((64, 1024), Codec.RUNS, 16),
        ((64, 1024), Codec.CABAC, 4),
        ((64, 128), Codec.CABAC, 1),
    ],
)
def test_lanes_only_where_they_pay(shape, codec, lanes):
    a = tensor(shape, Coding(codec, 16))
    assert stream(a, a.region).lanes == lanes


@pytest.mark.parametrize("shape, inner", [((8, 3, 3, 16), 16), ((8, 1, 1, 16), 1), ((3, 3, 16), 16), ((12, 8), 1)])
def test_neighbours(shape, inner):
    assert inner_of(shape) == inner


def test_figures_and_the_limit_of_what_is_kept(monkeypatch):
    a = tensor((16, 64))
    coded = stream(a, a.region)
    assert (
        figures(a) == (a.coding, len(coded.data), coded.steps, coded.lanes)
        and figures(Tensor(0, "x", (2, 2), "int8")) is None
    )
    monkeypatch.setattr(coding, "MOST_KNOWN", 2)
    monkeypatch.setattr(coding, "_known", type(coding._known)())
    for number in range(5):
        t = tensor((4, 32 + number))
        stream(t, t.region)
    assert len(coding._known) == 2
