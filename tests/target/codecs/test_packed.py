"""Fields of fixed width: exactly as many bits as the table needs, sixteen a step."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.weights import WeightCodes, decode, encode
from tvm_ergo.target.errors import ProgramError


def drawn(entries: int, rows: int = 8, columns: int = 100) -> WeightCodes:
    codes = np.random.default_rng(0).integers(0, entries, (rows, columns)).astype(np.uint8)
    return WeightCodes(codes, np.arange(entries).astype(np.int16))


@pytest.mark.parametrize("entries, bits", [(1, 1), (2, 1), (3, 2), (4, 2), (9, 4), (16, 4), (17, 5), (200, 8)])
@pytest.mark.parametrize("lanes", [1, 3])
def test_bits(entries, bits, lanes):
    weights = drawn(entries)
    coded = encode(weights, Codec.PACKED, lanes)
    payload = sum(-(-rows * 100 * bits // 8) for rows in ([8] if lanes == 1 else [2, 3, 3]))
    assert 0 < len(coded.data) - payload - 2 * entries < 16 and coded.total_steps == sum(
        -(-rows * 100 // 16) for rows in ([8] if lanes == 1 else [2, 3, 3])
    )
    np.testing.assert_array_equal(decode(coded.data)[0].codes, weights.codes)


def test_fields_as_written_by_hand():
    weights = WeightCodes(np.array([[0, 1, 2, 1, 1]], np.uint8), np.array([-3, 0, 3], np.int8))
    assert encode(weights, Codec.PACKED).data[-2:] == bytes(
        [0b01_00_10_00, 0b00_000000]
    )  # the default, code 1, is 0; the others are 1 and 2


@pytest.mark.parametrize("change", [-1, 1])
def test_length(change):
    data = encode(drawn(5), Codec.PACKED).data
    with pytest.raises(ProgramError, match="wrong length"):
        decode(data[:-1] if change < 0 else data + b"\0", (8, 100))
