"""Prefix codes against slow, obvious twins: the best lengths by trying all, decoding bit by bit."""

from __future__ import annotations

import heapq
import itertools
import random

import numpy as np
import pytest

from tvm_ergo.target.codecs import bits, weights_native
from tvm_ergo.target.codecs.prefix_code import BitReader, PrefixCode, bounded_lengths, check_end, pack
from tvm_ergo.target.codecs.weights import Reader
from tvm_ergo.target.errors import ProgramError


def least_bits(counts: list[int], longest: int) -> int:
    """By trying all lengths with Kraft's sum at most 1."""
    used = [c for c in counts if c]
    if len(used) == 1:
        return used[0]
    return min(
        (
            sum(c * n for c, n in zip(used, lengths))
            for lengths in itertools.product(range(1, longest + 1), repeat=len(used))
            if sum(2.0**-n for n in lengths) <= 1
        ),
        default=0,
    )


def huffman_bits(counts: list[int]) -> int:
    """The sum of all inner nodes of Huffman's tree."""
    heap, total = [c for c in counts if c], 0
    heapq.heapify(heap)
    while len(heap) > 1:
        both = heapq.heappop(heap) + heapq.heappop(heap)
        total += both
        heapq.heappush(heap, both)
    return total


def test_lengths_are_the_best_under_the_bound():
    draw = random.Random(1)
    for _ in range(60):
        counts = [draw.choice([0, 1, 2, 5, 40, 300]) for _ in range(draw.randint(1, 6))]
        for longest in (3, 4):
            lengths = bounded_lengths(np.array(counts), longest)
            assert lengths.max(initial=0) <= longest and int((lengths * counts).sum()) == least_bits(counts, longest)


def test_without_a_bound_that_matters_they_are_huffmans():
    draw = random.Random(2)
    for _ in range(40):
        counts = [draw.randint(1, 1000) for _ in range(draw.randint(2, 256))]
        assert int((bounded_lengths(np.array(counts), 25) * counts).sum()) == huffman_bits(counts)


def test_fibonacci_counts_meet_the_bound():
    counts = [1, 1]
    while len(counts) < 40:
        counts.append(counts[-1] + counts[-2])
    lengths = bounded_lengths(np.array(counts), 12)
    assert lengths.max() == 12 and sum(2.0**-n for n in lengths) == 1


def read_bit_by_bit(data: bytes, code: PrefixCode, count: int) -> list[int]:
    """Grows a word until it is a code."""
    words = {(int(code.lengths[s]), int(code.codes[s])): int(s) for s in code.order}
    stream, found, word, length = np.unpackbits(np.frombuffer(data, np.uint8)).tolist(), [], 0, 0
    while len(found) < count:
        word, length = word << 1 | stream.pop(0), length + 1
        if (length, word) in words:
            found.append(words[length, word])
            word = length = 0
    return found


def test_decoders_agree():
    draw = random.Random(3)
    for _ in range(30):
        counts = np.array([draw.choice([0, 1, 9, 100, 5000]) for _ in range(draw.randint(1, 60))])
        code = PrefixCode.of(counts)
        symbols = np.array([draw.choice(code.order.tolist()) for _ in range(50)])
        data = pack(code.codes[symbols], code.lengths[symbols])
        assert data == bits.pack(code.codes[symbols], code.lengths[symbols])
        reader = BitReader(data)
        assert read_bit_by_bit(data, code, 50) == symbols.tolist() == [reader.symbol(code) for _ in range(50)]
        check_end(reader.at, data)
        if weights_native.library():
            found, read = weights_native.huffman_decode(data, code.lookup, code.longest, 50)
            assert found.tolist() == symbols.tolist() and read == reader.at
            assert weights_native.huffman_decode(data[:-1], code.lookup, code.longest, 50)[1] == -1


def test_tables_come_back():
    draw = random.Random(4)
    for _ in range(60):
        size = draw.choice([1, 2, 3, 16, 100, 256])
        code = PrefixCode.of(np.array([draw.choice([0, 1, 3, 50, 900]) for _ in range(size)]))
        reader = Reader(code.table() + b"behind")
        assert np.array_equal(PrefixCode.read(reader, size).lengths, code.lengths) and reader.rest() == b"behind"


def test_broken_tables_are_refused():
    def read(lengths, longest=12):
        return PrefixCode.read(
            Reader(b"\0" + bits.pack(np.array(lengths), np.full(len(lengths), 4))), len(lengths), longest
        )

    for lengths in ([1, 1, 1], [1, 2], [2], [0, 0], [13] * 2):
        with pytest.raises(ProgramError, match="no code"):
            read(lengths)
    with pytest.raises(ProgramError, match="too long for the decoder"):
        read([1, 2, 3, 3], longest=2)
    with pytest.raises(ProgramError, match="unknown table"):
        PrefixCode.read(Reader(b"\2\0"), 1)
    with pytest.raises(ProgramError):
        check_end(9, b"\0")
    draw = random.Random(5)
    for _ in range(300):
        try:
            PrefixCode.read(
                Reader(bytes([draw.randrange(2)]) + draw.randbytes(draw.randint(0, 60))), draw.choice([1, 5, 40])
            ).check()
        except ProgramError:
            pass
