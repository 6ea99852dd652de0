"""How long a sparse matrix-vector product takes on EIE (Han et al., ISCA 2016) and on our engine, event by event.

Both broadcast the nonzero activations, one a cycle, into a queue at each processing element (PE); a broadcast waits
until every queue has room. A PE looks up where the activation's column begins and ends and takes one entry of it a
cycle. What differs:

EIE, as its authors' simulator has it (github.com/RalphMao/EIE-simulator, read, not copied: the same cycles on the real
AlexNet fc8 at all five depths):

* activations come in rows of as many as there are PEs; leaving a row takes a cycle in which nothing is found, unless
  its last activation is nonzero;
* a queue of depth D holds D - 1, being a ring whose full state must differ from its empty one;
* a column without entries on a PE costs it a cycle; the next column is looked up only when the last entry of the one
  before is taken.

Ours looks columns up ahead of the multiplier, one a cycle, and keeps the begin and length of up to ``ahead`` columns
that have entries, so that a column without entries costs nothing while there is other work; the queue uses its whole
depth; of rows of activations only those in which nothing is found take a cycle.

No read-after-write hazard costs time in either: sums are forwarded, as the authors do. The pipelines' length is
``latency_cycles``. The recurrences below take the columns in order; each step treats all PEs at once. The tests hold
them to a simulation cycle by cycle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tvm_ergo.target.codecs.eie import EieMatrix, Pointers
from tvm_ergo.target.codecs.eie_sections import LINE_BITS

LATENCY_CYCLES = 6
"""From a column's broadcast to its last sum: queue, look-up, line, decoded entry, product, sum; with the authors'
counting of the start and end of a run."""


@dataclass(frozen=True)
class Timing:
    """fifo_depth : activations a PE's queue is built for. ahead : columns looked up ahead (0: as EIE). row_gap : EIE's
    cycle between rows of activations."""

    fifo_depth: int = 8
    ahead: int = 0
    row_gap: bool = True

    @property
    def queue(self) -> int:
        """Activations the queue can hold."""
        return self.fifo_depth if self.ahead else self.fifo_depth - 1


EIE = Timing()


@dataclass(frozen=True)
class Activity:
    """What one product did. cycles : until the last sum. columns : nonzero activations. entries : taken, padding
    included; macs : those that are not padding.
    pointer_reads : of all PEs, each of both banks or of one word; pointer_bytes : in these. line_reads : of all PEs, of
    ``line_bits`` each."""

    cycles: int
    columns: int
    entries: int
    macs: int
    pointer_reads: int
    pointer_bytes: int
    line_reads: int


class Work:
    """A stored matrix as the engine sees it: prepared once, timed with any input."""

    def __init__(self, matrix: EieMatrix, line_bits: int = LINE_BITS):
        """line_bits : of the entries' memory; their number in a line decides how often it is read, not how long the
        product takes."""
        self.counts, self.pes, self.per_line = matrix.counts, matrix.format.pes, line_bits // matrix.format.entry_bits
        self.ends = np.cumsum(self.counts, 0)
        self.per_word = matrix.columns_per_word if matrix.format.pointers is Pointers.WORDS else 0
        self.pointer_bytes = 8 if self.per_word else 2 * (2 if self.ends[-1].max() < 1 << 16 else 4)
        padding = np.concatenate([[0], np.cumsum(matrix.codes == 0)])
        self.macs = (
            self.counts
            - np.diff(padding[np.concatenate([[0], np.cumsum(self.counts.T.ravel())])]).reshape(self.pes, -1).T
        )

    def run(self, active: np.ndarray, timing: Timing) -> Activity:
        """active : bool[columns], the nonzero inputs."""
        columns = np.flatnonzero(active)
        cycles = _cycles(columns, active.size, self.counts, timing)
        words = np.unique(columns // self.per_word).size if self.per_word else columns.size
        taken = self.counts[columns]
        return Activity(
            cycles,
            columns.size,
            int(taken.sum()),
            int(self.macs[columns].sum()),
            words * self.pes,
            words * self.pes * self.pointer_bytes,
            self._line_reads(columns, taken),
        )

    def _line_reads(self, columns: np.ndarray, taken: np.ndarray) -> int:
        """A PE reads a line where its next entry is not in the one it read last."""
        last = (self.ends[columns] - 1) // self.per_line
        first = (self.ends[columns] - taken) // self.per_line
        held = np.maximum.accumulate(np.where(taken > 0, last, -1), 0)
        before = np.concatenate([np.full((1, self.pes), -1), held[:-1]])
        return int(np.where(taken > 0, last - first + (first != before), 0).sum())


def _offers(columns: np.ndarray, pes: int, row_gap: bool) -> Iterator[int]:
    """Cycles that pass before each column is found, beyond one a column."""
    row, full = -1, not row_gap
    for column in columns.tolist():
        gaps = column // pes - row - full if column // pes > row else 0
        row, full = column // pes, not row_gap or column % pes == pes - 1
        yield gaps


def _cycles(columns: np.ndarray, inputs: int, counts: np.ndarray, timing: Timing) -> int:
    """Cycles until the last sum, by recurrences over the columns."""
    pes = counts.shape[1]
    free = np.zeros(pes, np.int64)  # when each PE's multiplier is free
    taken = np.zeros(pes, np.int64)  # when each PE took the column before from its queue
    started = np.zeros((max(1, timing.ahead), pes), np.int64)  # of the last columns that had entries on the PE
    all_taken: list[int] = []
    offer = 0  # cycle of the next broadcast, if the queues have room
    for number, (column, gap) in enumerate(zip(columns.tolist(), _offers(columns, pes, timing.row_gap))):
        offer += gap
        if number >= timing.queue:
            offer = max(offer, all_taken[number - timing.queue] + 1)
        length = counts[column]
        if timing.ahead:
            has = length > 0
            taken = np.maximum(taken + 1, offer + 1)
            taken = np.where(has, np.maximum(taken, started[0] + 1), taken)
            start = np.maximum(taken + 1, free)
            free = np.where(has, start + length, free)
            started = np.where(has, np.concatenate([started[1:], start[None]]), started)
        else:
            taken = np.maximum(offer + 1, free)
            free = taken + np.maximum(length, 1)
        all_taken.append(int(taken.max()))
        offer += 1
    return int(max(free.max(), taken.max())) + LATENCY_CYCLES
