"""Slots: nothing overflows, whatever the data; the certified error holds; what fits comes back exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.base import fold_table
from tvm_ergo.target.codecs.slots import (
    HEADER_BYTES,
    SLOT_CODECS,
    SlotLayout,
    level_error,
    level_tables,
    lossless_slot_bytes,
)
from tvm_ergo.target.errors import InputError, ProgramError

from .. import slots_twin

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 5), st.integers(1, 9))


def data_of(kind: str, shape, zero_point: int, rng) -> np.ndarray:
    """What a network may meet, and what somebody may feed it."""
    count = math.prod(shape)
    made = {
        "noise": rng.integers(-128, 128, count),
        "constant": np.full(count, rng.integers(-128, 128)),
        "zero": np.full(count, zero_point),
        "sparse": np.where(rng.random(count) < 0.8, zero_point, rng.integers(-128, 128, count)),
        "smooth": np.clip(np.cumsum(rng.integers(-3, 4, count)), -128, 127),
        "ends": rng.choice([-128, 127], count),
        "checkers": np.where(np.arange(count) % 2, zero_point, ~zero_point),
        "steps": np.arange(count) * 37 % 256 - 128,
    }
    return made[kind].astype(np.int8).reshape(shape)


KINDS = ("noise", "constant", "zero", "sparse", "smooth", "ends", "checkers", "steps")
CASE = dict(
    shape=SHAPES,
    tile_rows=st.integers(1, 5),
    zero_point=st.one_of(st.sampled_from([-128, 0, 127]), st.integers(-128, 127)),
    codec=st.sampled_from(SLOT_CODECS),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 99),
    share=st.floats(0, 1),
)


@settings(max_examples=150, deadline=None)
@given(**CASE)
def test_any_data_in_any_slot(shape, tile_rows, zero_point, codec, kind, seed, share):
    x = data_of(kind, shape, zero_point, np.random.default_rng(seed))
    most = lossless_slot_bytes((tile_rows, *shape[1:]))
    layout = SlotLayout(codec, tile_rows, HEADER_BYTES + round(share * (most - HEADER_BYTES)), zero_point)
    slots = layout.encode(x)
    assert (
        slots.dtype == np.uint8
        and slots.shape == (-(-shape[0] // tile_rows), layout.slot_bytes)
        and slots.size == layout.stored_bytes(shape)
    )
    back = layout.decode(slots, shape)
    error = np.abs(back.astype(int) - x)
    assert error.max() <= layout.max_error(shape)
    assert (back[x == zero_point] == zero_point).all()
    dropped, needed = layout.dropped(slots), layout.coded_bytes(x)
    assert ((dropped == 0) == (needed <= layout.slot_bytes)).all()
    for i, d in enumerate(dropped):
        assert error[i * tile_rows : (i + 1) * tile_rows].max() <= level_error(zero_point, int(d))
    np.testing.assert_array_equal(layout.encode(back)[dropped == 0], slots[dropped == 0])
    if layout.slot_bytes >= most:
        assert layout.max_error(shape) == 0 and not dropped.any() and np.array_equal(back, x)


@settings(max_examples=60, deadline=None)
@given(**CASE)
def test_equals_the_twin(shape, tile_rows, zero_point, codec, kind, seed, share):
    x = data_of(kind, shape, zero_point, np.random.default_rng(seed))
    size = HEADER_BYTES + round(share * math.prod((min(tile_rows, shape[0]), *shape[1:])))
    layout = SlotLayout(codec, tile_rows, size, zero_point)
    slots = layout.encode(x)
    tiles = [x[y : y + tile_rows] for y in range(0, shape[0], tile_rows)]
    for slot, tile in zip(slots, tiles, strict=True):
        np.testing.assert_array_equal(slot, slots_twin.encode(tile, codec, size, zero_point))
    expected = [slots_twin.decode(slot, tile.shape, codec, zero_point) for slot, tile in zip(slots, tiles, strict=True)]
    np.testing.assert_array_equal(layout.decode(slots, shape), np.concatenate(expected))


@pytest.mark.parametrize("codec", SLOT_CODECS)
def test_every_slot_size_of_a_tile_of_noise(codec):
    x = data_of("noise", (2, 3, 4), -5, np.random.default_rng(3))
    lost = []
    for size in range(HEADER_BYTES, lossless_slot_bytes(x.shape) + 1):
        layout = SlotLayout(codec, 2, size, -5)
        slots = layout.encode(x)
        assert np.abs(layout.decode(slots, x.shape).astype(int) - x).max() <= layout.max_error(x.shape)
        lost.append(int(layout.dropped(slots)[0]))
    assert lost == sorted(lost, reverse=True) and lost[0] == 8 and lost[-1] == 0


@pytest.mark.parametrize("dropped", range(9))
def test_levels_of_every_zero_point(dropped):
    for zero_point in range(-128, 128):
        codes, values = level_tables(zero_point, dropped)
        twin_codes, twin_values = slots_twin.tables(zero_point, dropped)
        assert codes.tolist() == [twin_codes[x] for x in range(-128, 128)]
        assert all(values[code] == value for code, value in twin_values.items())
        assert (
            len(values) == 1 << (8 - dropped)
            and codes.max() < len(values)
            and values[0] == zero_point
            and codes[zero_point + 128] == 0
        )
        if dropped == 0:
            assert np.array_equal(codes, fold_table(zero_point)) and level_error(zero_point, 0) == 0


def test_foreign_bytes_are_refused_or_decoded_in_range():
    """Whatever stands in a slot, decoding gives values or a ProgramError."""
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        layout = SlotLayout(SLOT_CODECS[rng.integers(len(SLOT_CODECS))], 2, int(rng.integers(4, 40)), 3)
        slots = rng.integers(0, 256, (2, layout.slot_bytes), dtype=np.uint8)
        slots[:, :3] = rng.integers(0, 40, (2, 1)) * [[1, 0, 0]]
        try:
            assert layout.decode(slots, (3, 2, 4)).shape == (3, 2, 4)
        except ProgramError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("head", [40, 9 << 27, 15 << 27, 3 | 1 << 31, 2 | 8 << 27 | 1 << 31])
def test_broken_headers(head):
    layout = SlotLayout(Codec.BITMASK, 1, 32, 0)
    slots = np.zeros((1, 32), np.uint8)
    slots[0, :4] = np.frombuffer(head.to_bytes(4, "little"), np.uint8)
    with pytest.raises(ProgramError):
        layout.decode(slots, (1, 2, 5))


def test_wrong_parameters():
    for codec, rows, size, zero_point in (
        (Codec.RAW, 1, 9, 0),
        (Codec.REDUCED, 1, 9, 0),
        (Codec.BITMASK, 0, 9, 0),
        (Codec.BITMASK, 1, 3, 0),
        (Codec.BITMASK, 1, 1 << 27, 0),
        (Codec.BITMASK, 1, 9, 200),
    ):
        with pytest.raises(InputError):
            SlotLayout(codec, rows, size, zero_point)
    layout = SlotLayout(Codec.BITMASK, 1, 9, 0)
    for bad in (np.zeros((3, 4), np.int8), np.zeros((0, 4, 1), np.int8)):
        with pytest.raises(InputError):
            layout.encode(bad)
    with pytest.raises(InputError):
        layout.decode(np.zeros((2, 9), np.uint8), (3, 1, 1))


@settings(max_examples=80, deadline=None)
@given(**CASE)
def test_lengths_without_coding(shape, tile_rows, zero_point, codec, kind, seed, share):
    """`payload_bytes` is the length of what `encode_tiles` gives."""
    codes = level_tables(zero_point, 0)[0][
        data_of(kind, shape, zero_point, np.random.default_rng(seed)).astype(np.int16) + 128
    ]
    coder = SlotLayout(codec, tile_rows, 4, zero_point).coder
    tiles = [codes[y : y + tile_rows] for y in range(0, shape[0], tile_rows)]
    assert coder.payload_bytes(tiles) == [None if p is None else len(p) for p in coder.encode_tiles(tiles)]
