"""Canonical Huffman codes of runs and values: the number of defaults (zeros) before a value, then the value.

A weight of an 80 % pruned layer has 0.7 bits of zero-or-not, but no prefix code of single weights goes below one bit:
runs do. A lane's rows are one sequence. Every run but the longest one, 255, is followed by a value unless it reaches
the end. Stream: u8 runs - 1 that have a code, table of their lengths, table of the values' lengths; lanes."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tvm_ergo.target.codecs import Codec, weights_native
from tvm_ergo.target.codecs.base import SymbolCost
from tvm_ergo.target.codecs.huffman import LOOK_UP
from tvm_ergo.target.codecs.prefix_code import LONGEST, BitReader, PrefixCode, check_end, pack
from tvm_ergo.target.codecs.weights import Coded, Frame, Reader, WeightCodec, broken
from tvm_ergo.target.events import Event

LONGEST_RUN = 255


class HuffmanRunsCodec(WeightCodec):
    """A step is one code: a run or a value."""

    codec: ClassVar[Codec] = Codec.HUFFMAN_RUNS
    COST: ClassVar[SymbolCost] = SymbolCost(
        1.0,
        {**LOOK_UP, Event.LUT_READ: 1},
        "assumption: as HUFFMAN, one code per cycle: a run and its value take two; the zeros of a run "
        "are written beside them",
    )

    def encode(self, folded, frame, lanes):
        entries = [entries_of(folded[lane].ravel()) for lane in lanes]
        runs = np.concatenate([run for run, _ in entries])
        values = np.concatenate([value for _, value in entries])
        run_code = PrefixCode.of(np.bincount(runs, minlength=1))
        value_code = PrefixCode.of(np.bincount(values[values > 0] - 1, minlength=max(1, frame.entries - 1)))
        tables = bytes([len(run_code.lengths) - 1]) + run_code.table() + value_code.table()
        return tables, [_packed(run, value, run_code, value_code) for run, value in entries]

    def decode(self, reader: Reader, frame: Frame, shape):
        run_code = PrefixCode.read(reader, reader.byte() + 1)
        value_code = PrefixCode.read(reader, max(1, frame.entries - 1))
        rows, steps = [], []
        for lane, payload in reader.lanes(shape[0]):
            rows.append(_expanded(run_code, value_code, payload, (lane.stop - lane.start) * shape[1]))
            run, value = entries_of(rows[-1])
            steps.append(run.size + int((value > 0).sum()))
        return np.concatenate(rows).reshape(shape), steps

    def most_symbols(self, size_bytes: int) -> int:
        return 8 * size_bytes * (LONGEST_RUN + 1)

    def state_bytes(self) -> int:
        """Two look-up tables, 12 bits an entry."""
        return 2 * (1 << LONGEST) * 12 // 8


def entries_of(folded: np.ndarray, longest: int = LONGEST_RUN) -> tuple[np.ndarray, np.ndarray]:
    """int64 runs, and the folded value behind each, 0 where there is none: behind the longest run and at the end."""
    places = np.flatnonzero(folded)
    gaps = np.diff(places, prepend=-1) - 1
    tail = folded.size - 1 - (int(places[-1]) if places.size else -1)
    gaps, values = np.append(gaps, tail), np.append(folded[places].astype(np.int64), 0)
    whole = gaps // longest
    if not tail % longest:  # the last run ends with a longest one, or there is none
        keep = np.append(np.ones(places.size, np.int64), 0)
    else:
        keep = np.ones(gaps.size, np.int64)
    count = whole + keep
    runs = np.full(int(count.sum()), longest, np.int64)
    behind = np.zeros(runs.size, np.int64)
    last = np.cumsum(count)[keep > 0] - 1
    runs[last], behind[last] = (gaps % longest)[keep > 0], values[keep > 0]
    return runs, behind


def _packed(runs: np.ndarray, values: np.ndarray, run_code: PrefixCode, value_code: PrefixCode) -> Coded:
    follows = values > 0
    value = np.maximum(values - 1, 0)
    fields = np.stack([run_code.codes[runs], np.where(follows, value_code.codes[value], 0)], axis=1).ravel()
    widths = np.stack([run_code.lengths[runs], np.where(follows, value_code.lengths[value], 0)], axis=1).ravel()
    return Coded(pack(fields, widths), runs.size + int(follows.sum()))


def _expanded(run_code: PrefixCode, value_code: PrefixCode, payload: bytes, count: int) -> np.ndarray:
    """uint8[count]."""
    if weights_native.library():
        folded, read = weights_native.huffman_runs_decode(
            payload, (run_code.lookup, run_code.longest), (value_code.lookup, value_code.longest), LONGEST_RUN, count
        )
    else:
        folded, read = expanded_in_python(run_code, value_code, payload, count)
    check_end(read, payload)
    return folded


def expanded_in_python(
    run_code: PrefixCode, value_code: PrefixCode, payload: bytes, count: int
) -> tuple[np.ndarray, int]:
    """uint8[count] and the bits read."""
    source, folded, at = BitReader(payload), np.zeros(count, np.uint8), 0
    while at < count:
        run = source.symbol(run_code)
        at += run
        if at > count:
            raise broken("a run passes the end")
        if run != LONGEST_RUN and at < count:
            folded[at] = source.symbol(value_code) + 1
            at += 1
    return folded, source.at
