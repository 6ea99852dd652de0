"""Fields of fixed width: every weight is its folded code in as many bits as the table of values needs.

What makes 2- or 4-bit weights take 2 or 4 bits at the price of wires and a small table: no field depends on the one
before, so that many are decoded in a cycle. Stream: lanes of fields, most significant bit first, each lane padded to a
byte."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.base import SymbolCost
from tvm_ergo.target.codecs.runs import code_bits
from tvm_ergo.target.codecs.weights import Coded, Frame, Reader, WeightCodec, broken
from tvm_ergo.target.events import Event

PER_STEP = 16
"""Weights that a lane decodes in a cycle."""


class PackedCodec(WeightCodec):
    """A step is sixteen weights."""

    codec: ClassVar[Codec] = Codec.PACKED
    COST: ClassVar[SymbolCost] = SymbolCost(
        1.0,
        {Event.LUT_READ: PER_STEP},
        "assumption: sixteen fields of known place go to as many ports of a table of at most 256 bytes in one cycle; "
        "all lanes together outrun the memory's read port",
    )

    def encode(self, folded, frame, lanes):
        width = code_bits(frame.entries)
        return b"", [Coded(_pack(folded[lane].ravel(), width), _steps(folded[lane].size)) for lane in lanes]

    def decode(self, reader: Reader, frame: Frame, shape):
        width, rows, steps = code_bits(frame.entries), [], []
        for lane, payload in reader.lanes(shape[0]):
            count = (lane.stop - lane.start) * shape[1]
            if len(payload) != -(-count * width // 8):
                raise broken(
                    "a lane of fields has the wrong length", f"{len(payload)} bytes", f"{-(-count * width // 8)} bytes"
                )
            rows.append(_unpack(payload, width, count))
            steps.append(_steps(count))
        return np.concatenate(rows).reshape(shape), steps

    def most_symbols(self, size_bytes: int) -> int:
        return 8 * size_bytes

    def state_bytes(self) -> int:
        """The sixteen fields of a step."""
        return PER_STEP


def _steps(count: int) -> int:
    return -(-count // PER_STEP)


def _pack(codes: np.ndarray, width: int) -> bytes:
    return np.packbits(np.unpackbits(codes[:, None], axis=1)[:, 8 - width :]).tobytes()


def _unpack(payload: bytes, width: int, count: int) -> np.ndarray:
    """uint8[count]."""
    fields = np.unpackbits(np.frombuffer(payload, np.uint8), count=count * width).reshape(count, width)
    return np.packbits(np.pad(fields, ((0, 0), (8 - width, 0))), axis=1).ravel()
