"""The static code: tables learned from calibration code what they were learned for, and what they were not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.target.codecs import rans
from tvm_ergo.target.codecs.static import StaticCodec, frequencies_of, group_bytes, learn, table_bytes
from tvm_ergo.target.codecs.static_default import FEATURES, RESIDUALS
from tvm_ergo.target.errors import InputError


def maps(seed: int, channels: int = 12) -> np.ndarray:
    """The first half of the channels is mostly zero, the other is not."""
    rng = np.random.default_rng(seed)
    share = np.where(np.arange(channels) < channels // 2, 0.05, 0.9)
    return np.clip(
        rng.geometric(0.06, (16, 16, channels)) * (rng.random((16, 16, channels)) < share) - 128, -128, 127
    ).astype(np.int8)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 10**9), min_size=16, max_size=16))
def test_frequencies(counts):
    row = frequencies_of(np.array(counts)[None])[0]
    assert row.sum() == 1 << rans.TOTAL_BITS and row.min() >= 1
    if sum(counts):
        room = (1 << rans.TOTAL_BITS) - rans.SYMBOLS
        assert np.abs(row - 1 - np.array(counts) / sum(counts) * room).max() < 1.001


@pytest.mark.parametrize("tables", [FEATURES, RESIDUALS])
def test_built_in_tables_expect_more_beside_large_values(tables):
    (rows,) = tables.frequencies
    assert np.diff(rows[1:-1] @ rans.FIRST).min() > 0


def test_learned_tables_are_shorter_and_exact():
    tables = learn([[maps(0), maps(1)], [maps(2, 5)]], [-128, -128], groups=3)
    codec, plain, x = StaticCodec(tables=tables[0]), StaticCodec(), maps(7)
    assert np.array_equal(codec.decode(codec.encode(x), x.shape), x)
    assert len(codec.encode(x)) < len(plain.encode(x)) < x.size
    assert tables[0].frequencies is tables[1].frequencies and tables[1].group.shape == (5,)
    groups = tables[0].group
    assert set(groups[:6]).isdisjoint(groups[6:])  # the two kinds of channels are told apart
    assert (
        table_bytes(tables[0]) == 3 * 18 * 16 * 12 // 8
        and group_bytes(tables[0]) == 12 * 2 // 8
        and group_bytes(FEATURES) == 0
    )


def test_what_was_never_seen_is_exact_too():
    (tables,) = learn([[np.full((4, 4, 6), -128, np.int8)]], [-128], groups=2)
    x = np.random.default_rng(0).integers(-128, 128, (9, 5, 6)).astype(np.int8)
    codec = StaticCodec(tables=tables)
    data = codec.encode(x)
    assert np.array_equal(codec.decode(data, x.shape), x) and len(data) <= codec.worst_case_bytes(x.shape)


def test_tables_fit_their_tensor():
    (tables,) = learn([[maps(0)]], [-128])
    with pytest.raises(InputError):
        StaticCodec(tables=tables).encode(np.zeros((2, 2, 5), np.int8))
    with pytest.raises(InputError):
        learn([], [])
    with pytest.raises(InputError):
        learn([[maps(0)]], [-128], groups=0)
