"""The compiled context coder against its definition in NumPy: the same bytes out, the same values back, whatever the
bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.target.codecs import context, native
from tvm_ergo.target.codecs.arithmetic import LONGEST_STREAM
from tvm_ergo.target.codecs.context import ContextCodec, _Coder, lanes_of
from tvm_ergo.target.environment import NUMPY_CODECS
from tvm_ergo.target.errors import ProgramError

pytestmark = pytest.mark.skipif(native.library() is None, reason="needs libcontext.so, compiled by `pip install -e .`")
SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 40))
KINDS = ("activations", "noise", "zeros", "top", "alternating", "spikes")


@pytest.fixture(autouse=True, scope="module")
def many_lanes():
    """Small tiles with up to 32 lanes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(context, "LANE_VALUES", 16)
        yield


def tile(kind: str, shape, seed: int) -> np.ndarray:
    rng, flat = np.random.default_rng(seed), np.arange(np.prod(shape)).reshape(shape)
    made = {
        "activations": lambda: (rng.geometric(0.08, shape) * (rng.random(shape) < 0.6)).clip(0, 255),
        "noise": lambda: rng.integers(0, 256, shape),
        "zeros": lambda: np.zeros(shape),
        "top": lambda: np.full(shape, 255),
        "alternating": lambda: flat % 2 * 255,
        "spikes": lambda: (rng.random(shape) < 0.01) * 255,
    }
    return made[kind]().astype(np.uint8)


def in_numpy(run):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "library", lambda: None)
        return run()


@settings(max_examples=25, deadline=None)
@given(
    shape=SHAPES, kind=st.sampled_from(KINDS), seed=st.integers(0, 99), zero_point=st.sampled_from([-128, -100, 0, 127])
)
def test_same_bytes_and_back(shape, kind, seed, zero_point):
    codec, u = ContextCodec(zero_point=zero_point), tile(kind, shape, seed)
    payloads = codec.encode_tiles([u, u[:1]])
    assert payloads == in_numpy(lambda: codec.encode_tiles([u, u[:1]]))
    back = codec.decode_tiles(payloads, [shape, u[:1].shape])
    assert np.array_equal(back[0], u) and np.array_equal(back[1], u[:1])
    assert np.array_equal(in_numpy(lambda: codec.decode_tiles(payloads[:1], [shape]))[0], u)


@settings(max_examples=30, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 99), zero_point=st.integers(-128, 127), data=st.data())
def test_hostile_streams_give_what_numpy_gives(shape, seed, zero_point, data):
    codec, lanes = ContextCodec(zero_point=zero_point), lanes_of(shape)
    payload = bytearray(codec.encode_tiles([tile("activations", shape, seed)])[0])
    damage = data.draw(st.sampled_from(["flip", "cut", "lengthen", "random streams", "no streams"]))
    if damage == "flip":
        for place in data.draw(st.lists(st.integers(0, 8 * len(payload) - 1), min_size=1, max_size=8)):
            payload[place >> 3] ^= 1 << (place & 7)
    elif damage == "cut":
        del payload[data.draw(st.integers(0, len(payload) - 1)) :]
    elif damage == "lengthen":
        payload += b"\1"
    else:
        sizes = np.random.default_rng(seed).integers(0, 1 + (damage != "no streams") * 200, lanes).astype("<u2")
        payload = sizes.tobytes() + np.random.default_rng(seed).bytes(int(sizes.sum()))
    assert outcome(codec, bytes(payload), shape) == in_numpy(lambda: outcome(codec, bytes(payload), shape))


def outcome(codec, payload, shape):
    try:
        decoded = codec.decode_tiles([payload], [shape])[0]
    except ProgramError as error:
        return str(error)
    assert decoded.shape == shape and decoded.dtype == np.uint8
    return decoded.tobytes()


def test_a_tile_whose_lane_would_be_too_long_is_none_in_both():
    u = tile("noise", (70000, 1, 1), 0)  # one channel: one lane
    assert ContextCodec().encode_tiles([u]) == [None]
    assert (
        _Coder._payload([b"\1" * (LONGEST_STREAM + 1)]) is None
        and _Coder._payload([b"\1" * LONGEST_STREAM]) is not None
    )


def test_switched_off_it_is_not_loaded(monkeypatch):
    native.library.cache_clear()
    monkeypatch.setenv(NUMPY_CODECS.name, "1")
    try:
        assert native.library() is None
    finally:
        monkeypatch.undo()
        native.library.cache_clear()
    assert native.library() is not None
