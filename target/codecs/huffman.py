"""Canonical Huffman code of weights: one code of at most 12 bits per weight, zeros included.

Stream: the table of code lengths, one for each entry of the table of values; lanes of codes, each padded to a byte.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tvm_ergo.target.codecs import Codec, weights_native
from tvm_ergo.target.codecs.base import SymbolCost
from tvm_ergo.target.codecs.prefix_code import LONGEST, BitReader, PrefixCode, check_end, pack
from tvm_ergo.target.codecs.weights import Coded, Frame, Reader, WeightCodec
from tvm_ergo.target.events import Event

LOOK_UP = {Event.LOCAL_READ_BYTE: 2, Event.ALU_8: 4}  # 12 bits of table; the window of 32 bits shifted


class HuffmanCodec(WeightCodec):
    """A step is one weight."""

    codec: ClassVar[Codec] = Codec.HUFFMAN
    COST: ClassVar[SymbolCost] = SymbolCost(
        1.0,
        {**LOOK_UP, Event.LUT_READ: 1},
        "assumption: a table of 2**12 entries gives symbol and length in one cycle (one code per cycle is what "
        "table-driven Huffman decoders do); a shifter of 32 bits; then the value out of the weights' table",
    )

    def encode(self, folded, frame, lanes):
        code = PrefixCode.of(np.bincount(folded.ravel(), minlength=frame.entries))
        return code.table(), [
            Coded(pack(code.codes[rows := folded[lane].ravel()], code.lengths[rows]), rows.size) for lane in lanes
        ]

    def decode(self, reader: Reader, frame: Frame, shape):
        code = PrefixCode.read(reader, frame.entries)
        rows = [
            _symbols(code, payload, (lane.stop - lane.start) * shape[1]) for lane, payload in reader.lanes(shape[0])
        ]
        return np.concatenate(rows).reshape(shape), [row.size for row in rows]

    def most_symbols(self, size_bytes: int) -> int:
        return 8 * size_bytes

    def state_bytes(self) -> int:
        """The look-up table, 12 bits an entry."""
        return (1 << LONGEST) * 12 // 8


def _symbols(code: PrefixCode, payload: bytes, count: int) -> np.ndarray:
    """uint8[count]."""
    if weights_native.library():
        symbols, read = weights_native.huffman_decode(payload, code.lookup, code.longest, count)
    else:
        source = BitReader(payload)
        symbols = np.array([source.symbol(code) for _ in range(count)], np.uint8)
        read = source.at
    check_end(read, payload)
    return symbols
