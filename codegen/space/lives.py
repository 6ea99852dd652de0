"""The memory map made coarse enough to keep: what a buffer occupies over time in few pieces."""

from __future__ import annotations

import heapq

import numpy as np

MAX_LIVES = 48  # entries of the memory map a buffer may have


def merged(low: np.ndarray, high: np.ndarray, most: int = MAX_LIVES) -> list[tuple[int, int, int, int]]:
    """``(low, high, first, last)`` of equal neighbouring times. Where there are more than ``most``, neighbours become
    one around both, those first that add the fewest byte-steps."""
    change = np.flatnonzero((np.diff(low) != 0) | (np.diff(high) != 0)) + 1
    cuts = [0, *change.tolist(), len(low)]
    pieces = [(int(low[a]), int(high[a]), a, b) for a, b in zip(cuts, cuts[1:]) if low[a] < high[a]]
    after = {i: i + 1 for i in range(len(pieces) - 1)}
    before = {j: i for i, j in after.items()}
    heap = [(_added(pieces[i], pieces[j]), i, j, pieces[i], pieces[j]) for i, j in after.items()]
    heapq.heapify(heap)
    alive = dict(enumerate(pieces))
    while len(alive) > most:
        _, i, j, a, b = heapq.heappop(heap)
        if alive.get(i) != a or alive.get(j) != b or after.get(i) != j:
            continue  # one of them has grown since
        alive[i] = (min(a[0], b[0]), max(a[1], b[1]), a[2], b[3])
        del alive[j], after[i]
        if j in after:
            after[i] = after.pop(j)
            before[after[i]] = i
            heapq.heappush(heap, (_added(alive[i], alive[after[i]]), i, after[i], alive[i], alive[after[i]]))
        if i in before:
            heapq.heappush(heap, (_added(alive[before[i]], alive[i]), before[i], i, alive[before[i]], alive[i]))
    return [alive[i] for i in sorted(alive)]


def _added(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> int:
    """Byte-steps that the box around two neighbouring pieces has and they have not."""
    height = max(a[1], b[1]) - min(a[0], b[0])
    return height * (b[3] - a[2]) - (a[1] - a[0]) * (a[3] - a[2]) - (b[1] - b[0]) * (b[3] - b[2])
