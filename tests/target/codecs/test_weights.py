"""Streams of weights: round trips through every codec, sizes, and what is refused."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.weights import MAX_LANES, Reader, TableForm, WeightCodes, decode, encode, unfolded, varint
from tvm_ergo.target.codecs.weights_registry import WEIGHT_CODECS, weight_codec
from tvm_ergo.target.errors import InputError, ProgramError

from ..weight_samples import KINDS, codes, sample

CODECS = st.sampled_from(list(WEIGHT_CODECS))


@settings(max_examples=80, deadline=None)
@given(
    codec=CODECS,
    kind=st.sampled_from(KINDS),
    rows=st.integers(1, 20),
    columns=st.integers(1, 60),
    lanes=st.integers(1, MAX_LANES),
    inner=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_round_trip(codec, kind, rows, columns, lanes, inner, seed):
    weights = codes(kind, rows, columns, seed, inner)
    coded = encode(weights, codec, lanes)
    back, info = decode(coded.data, (rows, columns))
    assert (
        np.array_equal(back.codes, weights.codes) and np.array_equal(back.table, weights.table) and back.inner == inner
    )
    assert np.array_equal(back.values(), sample(kind, rows, columns, seed)) and back.values().dtype == np.int8
    assert (info.steps, info.total_steps, info.lanes, info.codec) == (
        coded.steps,
        coded.total_steps,
        min(lanes, rows),
        codec,
    )
    assert np.array_equal(decode(coded.data)[0].codes, weights.codes)


@settings(max_examples=30, deadline=None)
@given(codec=CODECS, entries=st.integers(1, 256), dtype=st.sampled_from(["float32", "int16"]), seed=st.integers(0, 99))
def test_tables_of_other_types(codec, entries, dtype, seed):
    rng = np.random.default_rng(seed)
    codebook = rng.permutation(np.arange(entries) * 3 - 300).astype(dtype)
    drawn = rng.integers(0, entries, (7, 50)).astype(np.uint8)
    back, _ = decode(encode(WeightCodes.with_codebook(drawn, codebook), codec, 3).data)
    assert np.array_equal(back.values(), codebook[drawn]) and back.table.dtype == dtype


@pytest.mark.parametrize("codec", WEIGHT_CODECS)
def test_hostile_streams_are_refused_or_give_the_shape(codec):
    def attack(seed):
        draw = random.Random(seed)
        rows, columns = draw.randint(1, 12), draw.randint(1, 40)
        data = bytearray(
            encode(codes(draw.choice(KINDS), rows, columns, seed, draw.randint(1, 5)), codec, draw.randint(1, 4)).data
        )
        damage = draw.randrange(4)
        if damage == 0:
            for _ in range(draw.randint(1, 4)):
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        elif damage == 1:
            del data[draw.randrange(len(data)) :]
        elif damage == 2:
            data += draw.randbytes(draw.randint(1, 20))
        else:
            data = bytearray([codec, 16 + draw.randrange(6)]) + draw.randbytes(draw.randint(0, 80))
        for shape in ((rows, columns), None):
            try:
                found, _ = decode(bytes(data), shape, max_symbols=1 << 16)
            except ProgramError:
                continue
            assert found.codes.size <= 1 << 16 and (shape is None or found.codes.shape == shape)
            assert found.values().shape == found.codes.shape

    for seed in range(400):
        attack(seed)


def header(codec, rows, columns, table=b"\x02\xff\x00\x01", inner=1, form=TableForm.I8_LIST, default=1):
    return bytes([codec, 16 + form]) + varint(rows) + varint(columns) + varint(inner) + table + bytes([default])


@pytest.mark.parametrize("codec", WEIGHT_CODECS)
def test_few_bytes_cannot_ask_for_much_memory(codec):
    with pytest.raises(ProgramError, match="wrong size"):
        decode(header(codec, 2**32 - 1, 2**32 - 1) + bytes(40))
    with pytest.raises(ProgramError, match="wrong size"):
        decode(header(codec, 1 << 10, 1 << 20) + bytes(40), max_symbols=1 << 60)


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "too early"),
        (bytes([Codec.RAW, 16]), "no codec"),
        (bytes([Codec.KLT, 16]), "no codec"),
        (bytes([99, 16]), "no codec"),
        (bytes([Codec.RUNS, 0]), "no codec"),
        (bytes([Codec.RUNS, 16 + 9]), "no codec"),
        (header(Codec.RUNS, 0, 4), "wrong size"),
        (header(Codec.RUNS, 1, 4, inner=0), "wrong size"),
        (header(Codec.RUNS, 1, 4, b"\x01\x05\x05"), "not ascending"),
        (header(Codec.RUNS, 1, 4, b"\x00" + b"\x00\x00\xc0\x7f", form=TableForm.F32_LIST), "not finite"),
        (header(Codec.RUNS, 1, 4, b"\x05\x01", form=TableForm.I8_RANGE), "empty"),
        (header(Codec.RUNS, 1, 4, bytes(32), form=TableForm.I8_BITMAP), "empty"),
        (header(Codec.RUNS, 1, 4, default=3), "default"),
        (header(Codec.RUNS, 1, 4)[:3], "too early"),
        (header(Codec.RUNS, 1, 4) + b"\x06\0\0", "width of runs"),
        (header(Codec.RUNS, 1, 4) + b"\x04\x01\0", "more lanes"),
        (header(Codec.RUNS, 1, 4) + b"\x04\0", "without an entry"),
        (bytes([Codec.RUNS, 16, 255, 255, 255, 255, 255, 1]), "too long"),
    ],
)
def test_named_damage(data, message):
    with pytest.raises(ProgramError, match=message):
        decode(data)


def test_the_expected_shape_must_fit():
    data = encode(codes("pruned", 4, 6), Codec.HUFFMAN).data
    with pytest.raises(ProgramError, match="wrong size"):
        decode(data, (6, 4))


@pytest.mark.parametrize("codec", WEIGHT_CODECS)
def test_small_state_and_stated_cost(codec):
    coder = weight_codec(codec)
    assert 0 < coder.state_bytes() < 64 * 1024 and coder.COST.cycles == 1 and coder.COST.source
    assert coder.most_symbols(1000) >= 8 * 1000


@pytest.mark.parametrize("kind", KINDS)
def test_tables_take_the_smallest_form(kind):
    weights = codes(kind, 40, 64)
    size = weights.table.size
    listed, form = 1 + size, encode(weights, Codec.RUNS).data[1] & 15
    spent = {TableForm.I8_LIST: listed, TableForm.I8_BITMAP: 32, TableForm.I8_RANGE: 2}[TableForm(form)]
    assert spent <= min(listed, 32)


def test_entropy_bounds_codes_without_contexts():
    weights = codes("clustered", 64, 64)
    assert (
        len(encode(weights, Codec.HUFFMAN).data) * 8
        > weights.entropy_bits
        > 0.9 * 8 * len(encode(weights, Codec.HUFFMAN).data) - 400
    )


@given(st.integers(0, 2**32 - 1))
def test_varint(value):
    assert Reader(varint(value)).varint() == value and len(varint(value)) <= 5


def test_unfolding_inverts_folding():
    for default in range(5):
        drawn = np.concatenate([np.arange(5), [default] * 9]).astype(np.uint8)[None]
        weights = WeightCodes(drawn, np.arange(5).astype(np.int8))
        assert weights.default == default and np.array_equal(unfolded(weights.folded, default), drawn)


@pytest.mark.parametrize(
    "make",
    [
        lambda: WeightCodes.of(np.zeros((0, 3), np.int8)),
        lambda: WeightCodes.of(np.arange(300.0)[None]),
        lambda: WeightCodes(np.zeros((1, 1), np.int8), np.zeros(1, np.int8)),
        lambda: WeightCodes(np.ones((1, 1), np.uint8), np.zeros(1, np.int8)),
        lambda: WeightCodes(np.zeros((1, 1), np.uint8), np.array([2, 1], np.int8)),
        lambda: WeightCodes(np.zeros((1, 1), np.uint8), np.array([np.nan], np.float32)),
        lambda: WeightCodes(np.zeros((1, 1), np.uint8), np.zeros(1, np.float64)),
        lambda: WeightCodes(np.zeros((1, 1), np.uint8), np.zeros(1, np.int8), 0),
        lambda: WeightCodes.with_codebook(np.array([[3]], np.uint8), np.zeros(3)),
        lambda: encode(codes("dense", 2, 2), Codec.RUNS, 17),
        lambda: varint(-1),
    ],
)
def test_odd_values_are_refused(make):
    with pytest.raises(InputError):
        make()


def test_a_codec_of_activations_codes_no_weights():
    with pytest.raises(ProgramError, match="not a codec of weights"):
        encode(codes("dense", 2, 2), Codec.BITMASK)


def test_symbols_per_cycle_counts_all_lanes():
    coded = encode(codes("dense", 16, 32), Codec.HUFFMAN, 8)
    assert coded.symbols_per_cycle == 8 and coded.total_steps == math.prod(coded.shape)
