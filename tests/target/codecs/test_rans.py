"""The entropy coder against a slow, obvious twin: one lane and one code at a time, in Python integers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.target.codecs import native, rans
from tvm_ergo.target.codecs.static_default import FEATURES
from tvm_ergo.target.errors import InputError, ProgramError


def symbol(code: int) -> tuple[int, int, int]:
    """(symbol, number of raw bits, raw bits)"""
    if code < 4:
        return code, 0, 0
    text = bin(code)[2:]
    return 4 + 2 * (len(text) - 3) + int(text[1]), len(text) - 2, int(text[2:], 2)


def steps(u: np.ndarray, lanes: int):
    """(lane, code, sum of left and upper code) in the decoder's order, a list per step."""
    for y, x in np.ndindex(*u.shape[:2]):
        for first in range(0, u.shape[2], lanes):
            step = []
            for c in range(first, min(first + lanes, u.shape[2])):
                up = int(u[y - 1, x, c]) if y else None
                left = int(u[y, x - 1, c]) if x else None
                known = [v for v in (left, up) if v is not None]
                step.append(
                    (c - first, c, int(u[y, x, c]), 0 if not known else sum(known) if len(known) == 2 else 2 * known[0])
                )
            yield step


def encode(u: np.ndarray, tables: rans.Tables) -> bytes:
    lanes = rans.lanes_of(u.shape)
    state, words = [1 << 16] * lanes, []

    def ask(lane, limit):
        if state[lane] >= limit:
            words.append(state[lane] & 0xFFFF)
            state[lane] >>= 16

    for step in reversed(list(steps(u, lanes))):
        for lane, _, code, _ in reversed(step):
            _, count, raw = symbol(code)
            ask(lane, 1 << (32 - count))
            state[lane] = state[lane] << count | raw
        for lane, channel, code, near in reversed(step):
            row = tables.frequencies[0 if tables.group is None else tables.group[channel], symbol(near)[0]].tolist()
            s = symbol(code)[0]
            ask(lane, row[s] << 20)
            state[lane] = state[lane] // row[s] * 4096 + state[lane] % row[s] + sum(row[:s])
    return b"".join(v.to_bytes(4, "little") for v in state) + b"".join(w.to_bytes(2, "little") for w in reversed(words))


def tables_for(channels: int, seed: int) -> rans.Tables:
    rng = np.random.default_rng(seed)
    rows = np.array(
        [
            np.bincount(rng.choice(16, 4096 - 16, p=rng.dirichlet(np.ones(16))), minlength=16) + 1
            for _ in range(3 * rans.LEVELS)
        ]
    )
    return rans.Tables(rows.reshape(3, rans.LEVELS, 16), rng.integers(0, 3, channels))


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 30)),
    seed=st.integers(0, 999),
    learned=st.booleans(),
    mean=st.floats(0.01, 0.9),
)
def test_same_bytes_as_the_twin(shape, seed, learned, mean):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rans, "LANE_VALUES", 16)
        rng = np.random.default_rng(seed)
        tiles = np.minimum(rng.geometric(mean, (2, *shape)) - 1, 255).astype(np.uint8)
        tables = tables_for(shape[2], seed) if learned else FEATURES
        coded = rans.encode(tiles, tables)
        assert coded == [encode(tile, tables) for tile in tiles]
        assert np.array_equal(rans.decode(coded, shape, tables), tiles)
        patch.setattr(native, "library", lambda: None)  # compiled or not
        assert coded == rans.encode(tiles, tables) and np.array_equal(rans.decode(coded, shape, tables), tiles)


@settings(max_examples=80, deadline=None)
@given(
    content=st.binary(max_size=120),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 20)),
    keep=st.integers(0, 200),
    lanes=st.booleans(),
)
def test_any_bytes_are_refused_or_give_codes(content, shape, keep, lanes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rans, "LANE_VALUES", 16 if lanes else 2048)
        whole = rans.encode(np.full((1, *shape), len(content), np.uint8), FEATURES)[0]
        for payload in (content, whole[:keep], whole[:keep] + content):
            with pytest.MonkeyPatch.context() as second:
                compiled = outcome(payload, shape)
                second.setattr(native, "library", lambda: None)
                assert outcome(payload, shape) == compiled


def outcome(payload: bytes, shape):
    try:
        decoded = rans.decode([payload], shape, FEATURES)
    except ProgramError as error:
        return str(error)
    assert decoded.shape == (1, *shape) and decoded.dtype == np.uint8
    return decoded.tobytes()


@pytest.mark.parametrize(
    "frequencies, group",
    [(np.ones((1, 18, 16), int), None), (FEATURES.frequencies[:, 1:], None), (FEATURES.frequencies, np.array([0, 1]))],
)
def test_tables_are_checked(frequencies, group):
    with pytest.raises(InputError):
        rans.Tables(frequencies, group)


def test_a_flipped_bit_is_seen_or_changes_a_value():
    rng = np.random.default_rng(0)
    tile = np.minimum(rng.geometric(0.2, (1, 6, 7, 20)) - 1, 255).astype(np.uint8)
    payload, seen = rans.encode(tile, FEATURES)[0], 0
    for place in range(0, 8 * len(payload), 41):
        flipped = bytearray(payload)
        flipped[place >> 3] ^= 1 << (place & 7)
        try:
            assert not np.array_equal(rans.decode([bytes(flipped)], tile.shape[1:], FEATURES), tile)
        except ProgramError:
            seen += 1
    assert seen > 0


def test_symbols_and_levels_are_those_of_the_twin():
    for code in range(256):
        s, count, raw = symbol(code)
        assert (rans.SYMBOL[code], rans.RAW_BITS[code]) == (s, count) and rans.FIRST[s] + raw == code
    assert rans.LEVEL.tolist() == [symbol(v)[0] for v in range(511)] and rans.LEVEL.max() == rans.LEVELS - 1


def test_length_is_near_the_entropy():
    rng = np.random.default_rng(1)
    tile = rng.integers(0, 4, (1, 32, 32, 8)).astype(np.uint8)
    flat = rans.Tables(np.tile(np.array([1021] * 4 + [1] * 12), (1, rans.LEVELS, 1)))
    assert math.isclose(8 * len(rans.encode(tile, flat)[0]) / tile.size, 2, rel_tol=0.02)
