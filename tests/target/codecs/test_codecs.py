"""Every codec on random and hostile tensors, and on damaged streams."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.base import INDEX_BYTES, fold, unfold
from tvm_ergo.target.codecs.registry import CODECS, codec_class
from tvm_ergo.target.codecs.weights_registry import WEIGHT_CODECS
from tvm_ergo.target.errors import InputError, ProgramError
from tvm_ergo.target.isa.cost import Event

LOSSLESS = [cls for cls in CODECS.values() if cls.lossless]
codecs = pytest.mark.parametrize("cls", LOSSLESS, ids=lambda cls: cls.codec.name)


def sparse(rng, shape, zero_point: int) -> np.ndarray:
    """Half zero, the rest geometric around the zero point, as activations are."""
    values = rng.geometric(0.1, shape) * (rng.random(shape) < 0.5) * rng.choice([1, -1], shape)
    return np.clip(values + zero_point, -128, 127).astype(np.int8)


def hostile(shape) -> dict[str, np.ndarray]:
    rng, flat = np.random.default_rng(5), np.arange(np.prod(shape)).reshape(shape)
    return {
        "noise": rng.integers(-128, 128, shape).astype(np.int8),
        "zeros": np.full(shape, -128, np.int8),
        "top": np.full(shape, 127, np.int8),
        "alternating": np.where(flat % 2, 127, -128).astype(np.int8),
        "ramp": (flat % 256 - 128).astype(np.int8),
        "spike": np.where(flat == flat.size // 2, 127, -128).astype(np.int8),
    }


@codecs
@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 7), st.integers(1, 6), st.integers(1, 9)),
    zero_point=st.integers(-128, 127),
    rows=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_round_trip_and_bound(cls, shape, zero_point, rows, seed):
    codec, x = cls(zero_point=zero_point, tile_rows=rows), sparse(np.random.default_rng(seed), shape, zero_point)
    data = codec.encode(x)
    assert np.array_equal(codec.decode(data, shape), x) and codec.max_error(shape) == 0
    assert len(data) <= codec.worst_case_bytes(shape) == x.size + INDEX_BYTES * -(-shape[0] // rows)
    begin = seed % shape[0]
    assert np.array_equal(codec.decode_rows(data, shape, begin, shape[0]), x[begin:])


@codecs
@pytest.mark.parametrize("shape", [(1, 1, 1), (9, 11, 13), (3, 17, 130)])
def test_hostile_tensors(cls, shape):
    for name, x in hostile(shape).items():
        data = cls().encode(x)
        assert np.array_equal(cls().decode(data, shape), x), name
        assert len(data) <= cls().worst_case_bytes(shape), name


@codecs
def test_sparse_tensors_shrink(cls):
    x = sparse(np.random.default_rng(0), (16, 16, 32), -128)
    assert len(cls().encode(x)) < 0.75 * x.size


@codecs
def test_encoding_together_is_encoding_alone(cls):
    rng = np.random.default_rng(2)
    tensors = [sparse(rng, shape, -128) for shape in ((9, 8, 24), (8, 8, 24), (3, 5, 2))]
    assert cls().encode_many(tensors) == [cls().encode(x) for x in tensors]


@codecs
def test_damaged_streams_raise_or_give_the_shape(cls):
    rng, shape = np.random.default_rng(3), (5, 6, 12)
    data = cls().encode(sparse(rng, shape, -128))
    damaged = [data[:n] for n in rng.integers(0, len(data), 12)] + [data + b"\0"]
    for _ in range(25):
        flipped = bytearray(data)
        flipped[rng.integers(len(data))] ^= 1 << rng.integers(8)
        damaged.append(bytes(flipped))
    refused = 0
    for stream in damaged:
        try:
            assert cls().decode(stream, shape).shape == shape
        except ProgramError:
            refused += 1
    assert refused >= 13  # everything cut or lengthened, at least


@codecs
def test_what_cannot_be_coded(cls):
    for wrong in (np.zeros((0, 2, 2), np.int8), np.zeros((2, 2), np.int8), np.zeros((2, 2, 2), np.uint8)):
        with pytest.raises(InputError):
            cls().encode(wrong)
    with pytest.raises(InputError):
        cls(zero_point=300)
    with pytest.raises(InputError):
        cls(tile_rows=0)


@codecs
def test_cost_is_priced_by_the_chip(cls):
    energy = {event: 1.0 for event in Event}
    assert cls.COST.pj(energy) == sum(cls.COST.events.values()) > 0 and cls.COST.cycles > 0 and cls.COST.source


def test_registry():
    assert set(CODECS) == set(Codec) - {
        Codec.RAW,
        Codec.EIE,
        *WEIGHT_CODECS,
    }  # EIE: of the sparse engine (`target.sparse`)
    with pytest.raises(ProgramError):
        codec_class(Codec.RAW)


@pytest.mark.parametrize("zero_point", [-128, -100, 0, 3, 127])
def test_fold_is_a_bijection_that_starts_at_the_zero_point(zero_point):
    x = np.arange(-128, 128).astype(np.int8)
    u = fold(x, zero_point)
    assert (
        sorted(u.tolist()) == list(range(256)) and u[zero_point + 128] == 0 and np.array_equal(unfold(u, zero_point), x)
    )
    order = np.argsort(u)
    assert (np.diff(np.abs(x.astype(int) - zero_point)[order]) >= 0).all()
