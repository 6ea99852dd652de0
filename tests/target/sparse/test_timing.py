"""The recurrences against the engine simulated cycle by cycle, and counts taken entry by entry."""

import collections

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.target.codecs.eie import EieFormat, Pointers, encode
from tvm_ergo.target.sparse.timing import EIE, LATENCY_CYCLES, Timing, Work


class Pe:
    """One processing element: queue of lengths of columns, lengths looked up ahead, entries left of the column at the
    multiplier."""

    def __init__(self):
        self.queue, self.ahead, self.left, self.idle_since = collections.deque(), collections.deque(), 0, 0

    def tick(self, cycle, timing):
        """One clock edge: everything changes by what was there before it."""
        if not timing.ahead:
            if self.left <= 1 and self.queue:
                self.left = max(1, self.queue.popleft()) + 1
            self.work(cycle)
            return
        room, ready = len(self.ahead) < timing.ahead, len(self.ahead)
        if self.left <= 1 and ready:
            self.left = self.ahead.popleft() + 1
        self.work(cycle)
        if self.queue and (self.queue[0] == 0 or room):
            length = self.queue.popleft()
            self.idle_since = max(self.idle_since, cycle)
            if length:
                self.ahead.append(length)

    def work(self, cycle):
        if self.left:
            self.left -= 1
            self.idle_since = cycle


def finds(active, pes, row_gap):
    """What the search for nonzeros does each cycle: a column found, or None where a row of activations is loaded or
    left."""
    found = []
    for row in range(0, active.size, pes):
        here = [row + int(c) for c in np.flatnonzero(active[row : row + pes])]
        found += here + [None] * (not here or row_gap and here[-1] != row + pes - 1)
    return [None] + found if row_gap else found


def cycle_by_cycle(work, active, timing):
    pes, todo, cycle = [Pe() for _ in range(work.pes)], finds(active, work.pes, timing.row_gap), 0
    while any(f is not None for f in todo) or any(pe.queue or pe.ahead or pe.left for pe in pes):
        room = all(len(pe.queue) < timing.queue for pe in pes)
        for pe in pes:
            pe.tick(cycle, timing)
        if todo and (todo[0] is None or room):
            column = todo.pop(0)
            for number, pe in enumerate(pes if column is not None else []):
                pe.queue.append(int(work.counts[column, number]))
        cycle += 1
    return max(pe.idle_since for pe in pes) + LATENCY_CYCLES


def random_case(seed):
    rng = np.random.default_rng(seed)
    rows, columns, pes = (int(n) for n in rng.integers(1, (60, 60, 9)))
    matrix = (rng.random((rows, columns)) < rng.choice([0.03, 0.2, 0.6])).astype(np.int8)
    form = EieFormat(pes, 1, int(rng.integers(0, 4)), list(Pointers)[int(rng.integers(0, 2))])
    ahead = int(rng.integers(0, 4))
    timing = Timing(int(rng.choice([2, 3, 8, 64])), ahead, bool(rng.integers(0, 2)))
    return encode(matrix, form), rng.random(columns) < rng.choice([0.1, 0.5, 1.0]), timing


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_cycles_are_those_of_the_simulation(seed):
    matrix, active, timing = random_case(seed)
    work = Work(matrix)
    assert work.run(active, timing).cycles == cycle_by_cycle(work, active, timing)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32))
def test_counts_are_those_of_a_walk(seed):
    """Entry by entry: lines are read when the next entry is not in the one at hand, words when another is needed."""
    matrix, active, timing = random_case(seed)
    line_bits = 64 if seed % 2 else 128
    counts, per_line = matrix.counts, line_bits // matrix.format.entry_bits
    first = np.concatenate([[0], np.cumsum(counts.sum(0))[:-1]])
    macs = entries = lines = words = 0
    for pe in range(matrix.format.pes):
        line = word = None
        for column in np.flatnonzero(active):
            needed = column // matrix.columns_per_word if matrix.format.pointers is Pointers.WORDS else column
            words, word = words + (needed != word), needed
            begin = int(counts[:column, pe].sum())
            for entry in range(begin, begin + int(counts[column, pe])):
                lines, line = lines + (entry // per_line != line), entry // per_line
                entries, macs = entries + 1, macs + bool(matrix.codes[first[pe] + entry])
    found = Work(matrix, line_bits).run(active, timing)
    assert (found.columns, found.entries, found.macs, found.line_reads, found.pointer_reads) == (
        active.sum(),
        entries,
        macs,
        lines,
        words,
    )
    assert found.pointer_bytes == words * (8 if matrix.format.pointers is Pointers.WORDS else 4)


def test_columns_without_entries():
    """EIE spends a cycle on each, ours none while there is other work. One PE: every activation is a full row, so there
    are no gaps."""
    matrix = encode(np.repeat([[1, 0, 0, 1, 1, 1]], 3, 0).astype(np.int8), EieFormat(1, 1, 2))
    active = np.ones(6, bool)
    assert (
        Work(matrix).run(active, Timing(8, 2, False)).cycles == LATENCY_CYCLES + 2 + 12
    )  # broadcast, look-up, four columns of three
    assert Work(matrix).run(active, Timing(64)).cycles == LATENCY_CYCLES + 2 + 12 + 2  # first row loaded, broadcast


def test_no_activation():
    assert Work(encode(np.eye(3, dtype=np.int8))).run(np.zeros(3, bool), EIE).cycles == LATENCY_CYCLES
