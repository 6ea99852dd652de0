"""Sparse matrices stored as EIE stores them and as we do: against a writer and reader of one entry at a time, and
hostile bytes."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.target.codecs.eie import EieFormat, Pointers, decode, encode, worst_case_bytes
from tvm_ergo.target.errors import InputError, ProgramError


def random_case(seed):
    """(matrix, format, places or None)."""
    rng = np.random.default_rng(seed)
    rows, columns, pes = (int(n) for n in rng.integers(1, (50, 30, 9)))
    code_bits = int(rng.integers(1, 6))
    values = np.setdiff1d(rng.integers(-128, 128, (1 << code_bits) - 1), 0).astype(
        np.int8 if rng.random() < 0.7 else np.int16
    )
    values = values if values.size else np.array([5], np.int8)
    matrix = np.where(
        rng.random((rows, columns)) < rng.random(), values[rng.integers(0, values.size, (rows, columns))], 0
    ).astype(values.dtype)
    form = EieFormat(pes, code_bits, int(rng.integers(0, 6)), list(Pointers)[int(rng.integers(0, 2))])
    return matrix, form, rng.permutation(form.slots(rows) * pes)[:rows] if rng.random() < 0.5 else None


def entries_one_by_one(matrix, form, place):
    """{pe: [[(value, zeros before it)] of each column]}, as the paper describes it."""
    rows, columns = matrix.shape
    place = range(rows) if place is None else place.tolist()
    at = {p: matrix[r] for r, p in enumerate(place)}
    found = {}
    for pe in range(form.pes):
        found[pe] = []
        for column in range(columns):
            entries, zeros = [], 0
            for slot in range(form.slots(rows)):
                value = int(at[slot * form.pes + pe][column]) if slot * form.pes + pe in at else 0
                if value == 0:
                    zeros += 1
                    continue
                while zeros > form.longest_run:
                    entries.append((0, form.longest_run))
                    zeros -= form.longest_run + 1
                entries.append((value, zeros))
                zeros = 0
            found[pe].append(entries)
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_is_what_the_format_says(seed):
    matrix, form, place = random_case(seed)
    stored, twin = encode(matrix, form, place), entries_one_by_one(matrix, form, place)
    fields = iter(zip(stored.values[stored.codes].tolist(), stored.runs.tolist()))
    for pe in range(form.pes):
        for column, entries in enumerate(twin[pe]):
            assert stored.counts[column, pe] == len(entries)
            assert [next(fields) for _ in entries] == entries
    assert next(fields, None) is None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_round_trip(seed):
    matrix, form, place = random_case(seed)
    stored = encode(matrix, form, place)
    back = decode(stored.data, matrix.shape)
    assert back.dense().dtype == matrix.dtype and (back.dense() == matrix).all()
    assert (
        back.format == form
        and (back.counts == stored.counts).all()
        and (back.place == stored.place).all()
        and back.data == stored.data
    )
    assert len(stored.data) <= worst_case_bytes(matrix.shape, form, matrix.itemsize)


def test_bytes_of_a_known_matrix():
    """Worked out by hand: two PEs, three columns, codes of 2 bits, runs of 1 bit."""
    matrix = np.array([[0, 7, 0], [3, 0, 0], [7, 0, 0], [0, 0, 0], [3, 0, 0], [0, 0, 3]], np.int8)
    stored = encode(matrix, EieFormat(2, 2, 1))
    head = (
        bytes([2, 0, 2, 1, 0, 2, 0, 0, 6, 0, 0, 0, 3, 0, 0, 0])
        + bytes([0, 3, 7, 127, 0, 0, 0, 0])
        + bytes([3, 0, 0, 0, 3, 0, 0, 0])
    )
    pointers = bytes([0, 0, 3, 0, 2, 0, 3, 0]), bytes([0, 0, 1, 0, 1, 0, 3, 0])  # banks: columns 0, 2 and 1, end
    pe0 = (2 | 1 << 2) | (1 | 0 << 2) << 3 | (2 | 0 << 2) << 6  # column 0: a zero and 7, 3; column 1: 7
    pe1 = (1 | 0 << 2) | (0 | 1 << 2) << 3 | (1 | 0 << 2) << 6  # column 0: 3; column 2: padding for two zeros, 3
    assert stored.data == head + pointers[0] + pointers[1] + pe0.to_bytes(8, "little") + pe1.to_bytes(8, "little")


def test_hostile_bytes_are_refused_or_a_matrix():
    """Cut, flipped and spliced: our error, or a matrix whose bytes say it."""
    refused = 0
    for seed in range(40):
        matrix, form, place = random_case(seed)
        data, rng = encode(matrix, form, place).data, random.Random(seed)
        for cut in {0, 1, 15, 16, len(data) // 2, len(data) - 8, len(data) - 1}:
            with pytest.raises(ProgramError):
                decode(data[:cut], matrix.shape)
        with pytest.raises(ProgramError):
            decode(data + bytes(8), matrix.shape)
        for _ in range(40):
            changed = bytearray(data)
            for _ in range(rng.choice([1, 1, 8])):
                changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            try:
                other = decode(bytes(changed), matrix.shape)
                assert other.dense().shape == matrix.shape
            except ProgramError:
                refused += 1
    assert refused > 400


@pytest.mark.parametrize("shape", [(51, 7), (50, 8), (1, 1)])
def test_another_shape_is_refused(shape):
    with pytest.raises(ProgramError, match="shape"):
        decode(encode(np.eye(50, 7, dtype=np.int8)).data, shape)


def test_a_huge_header_takes_no_memory():
    data = bytearray(encode(np.eye(8, dtype=np.int8), EieFormat(4)).data)
    data[12:16] = (2**32 - 1).to_bytes(4, "little")
    with pytest.raises(ProgramError):
        decode(bytes(data), (8, 2**32 - 1))


def test_what_cannot_be_stored():
    with pytest.raises(InputError, match="16 different nonzero"):
        encode(np.arange(1, 17, dtype=np.int8)[None])
    for wrong in (np.zeros((0, 3), np.int8), np.zeros((2, 2), np.float32), np.zeros(4, np.int8)):
        with pytest.raises(InputError):
            encode(wrong)
    with pytest.raises(InputError, match="placed"):
        encode(np.zeros((3, 2), np.int8), place=np.array([0, 0, 1]))
    with pytest.raises(InputError):
        EieFormat(run_bits=13)
