"""Run length and relative index with fields of fixed width, the form of Deep Compression (Han, ICLR 2016) and of EIE
(ISCA 2016).

An entry is a run of defaults (zeros), in 4, 5 or 8 bits, and the folded code behind it. A run that is too long gets a
padding entry: the longest run and the default itself. A lane's rows are one sequence; its last entry may be such a
default too, and zeros that are left are cut off. Stream: u8 bits of a run; lanes of entries, run first, most
significant bit first."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tvm_ergo.target.codecs import Codec, bits
from tvm_ergo.target.codecs.base import SymbolCost
from tvm_ergo.target.codecs.prefix_code import pack
from tvm_ergo.target.codecs.weights import Coded, Frame, Reader, WeightCodec, broken
from tvm_ergo.target.events import Event

RUN_BITS = (4, 5, 8)


class RunsCodec(WeightCodec):
    """A step is one entry."""

    codec: ClassVar[Codec] = Codec.RUNS
    COST: ClassVar[SymbolCost] = SymbolCost(
        1.0,
        {Event.LUT_READ: 1, Event.ALU_8: 2},
        "EIE (ISCA 2016): one entry per cycle: a look-up of the code and an addition to the index; the fields have a "
        "fixed width, "
        "so that no table is read to find the next",
    )

    def encode(self, folded, frame, lanes):
        width = code_bits(frame.entries)
        rows = [folded[lane].ravel() for lane in lanes]
        chosen = min(
            RUN_BITS, key=lambda run_bits: sum(padded(row, run_bits)[0].size for row in rows) * (run_bits + width)
        )
        return bytes([chosen]), [_packed(*padded(row, chosen), chosen, width) for row in rows]

    def decode(self, reader: Reader, frame: Frame, shape):
        run_bits, width = reader.byte(), code_bits(frame.entries)
        if run_bits not in RUN_BITS:
            raise broken("an unknown width of runs", str(run_bits), ", ".join(map(str, RUN_BITS)))
        lanes = [
            _expanded(payload, run_bits, width, (lane.stop - lane.start) * shape[1])
            for lane, payload in reader.lanes(shape[0])
        ]
        return np.concatenate([row for row, _ in lanes]).reshape(shape), [steps for _, steps in lanes]

    def most_symbols(self, size_bytes: int) -> int:
        return 256 * 8 * size_bytes // (RUN_BITS[0] + 1)

    def state_bytes(self) -> int:
        """The entry being read and the run that is left."""
        return 4


def code_bits(entries: int) -> int:
    """Bits of a folded code, at least one."""
    return max(1, (entries - 1).bit_length())


def padded(folded: np.ndarray, run_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """int64 runs and codes of the entries."""
    longest = (1 << run_bits) - 1
    places = np.flatnonzero(folded)
    codes = folded[places].astype(np.int64)
    if not places.size or places[-1] != folded.size - 1:
        places, codes = (
            np.append(places, folded.size - 1),
            np.append(codes, 0),
        )  # the zeros that are left end with one that is written
    gaps = np.diff(places, prepend=-1) - 1
    count = gaps // (longest + 1) + 1
    runs, coded = np.full(int(count.sum()), longest, np.int64), np.zeros(int(count.sum()), np.int64)
    last = np.cumsum(count) - 1
    runs[last], coded[last] = gaps % (longest + 1), codes
    return runs, coded


def _packed(runs: np.ndarray, codes: np.ndarray, run_bits: int, width: int) -> Coded:
    return Coded(pack(runs << width | codes, np.full(runs.size, run_bits + width)), runs.size)


def _expanded(payload: bytes, run_bits: int, width: int, count: int) -> tuple[np.ndarray, int]:
    """uint8[count] and the entries."""
    size = run_bits + width
    entries = 8 * len(payload) // size
    if not entries:
        raise broken("a lane without an entry")
    fields = _fields(payload, entries, size)
    ends = np.cumsum((fields >> width) + 1)
    if ends[-1] < count:
        raise broken("its runs end too early", f"{int(ends[-1])} weights", f"{count} weights")
    used = int(np.searchsorted(ends, count)) + 1
    if ends[used - 1] != count or bits.packed_bytes(used * size) != len(payload):
        raise broken("its runs do not end with its last weight")
    folded = np.zeros(count, np.uint8)
    folded[ends[:used] - 1] = fields[:used] & (1 << width) - 1
    return folded, used


def _fields(payload: bytes, count: int, size: int) -> np.ndarray:
    """int64[count] fields of ``size`` <= 16 bits."""
    data = np.frombuffer(payload + bytes(3), np.uint8).astype(np.int64)
    at = np.arange(count) * size
    window = data[at >> 3] << 16 | data[(at >> 3) + 1] << 8 | data[(at >> 3) + 2]
    return window >> (24 - size - (at & 7)) & (1 << size) - 1
