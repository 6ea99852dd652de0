"""Placement of buffers by several orderings of best fit and first fit; the lowest result is kept.

A buffer goes into a gap between the buffers that are already placed and live at the same time as it (the skyline of its
interval). The search stops as soon as a result equals the live-bytes bound, which no placement can beat. It is a
heuristic: it may miss a placement that exists, except with up to EXHAUSTIVE buffers: an optimal placement pushed down
as far as it goes is what first fit makes of the buffers in the order of their offsets, so trying every order finds it.
Where it stays above the bound, the exact search (``exact``) takes over, within a limit of work, not of time: results do
not depend on the machine."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from tvm_ergo.codegen.memory import exact
from tvm_ergo.codegen.memory.problem import Problem, Solution, columns

RANDOM_RESTARTS = 24
EXHAUSTIVE = 5
WORK_LIMIT = 100_000_000
"""Elementary steps of the exact search per problem: about a second. MiniMalloc's hardest instance needs 9e9."""


def orderings(problem: Problem) -> Iterator[np.ndarray]:
    """Deterministic orders known to work (size, area, length, time), then perturbations of the best two by a fixed
    seed."""
    size, lower, upper, _ = columns(problem)
    length = upper - lower
    number = np.arange(len(size))
    keys = [
        (number, -length, -size),
        (number, -size * length),
        (number, -size, -length),
        (number, lower, -size),
        (number, -size, lower),
        (number, -upper, -size),
        (number, -_contention(problem), -size),
    ]
    for key in keys:
        yield np.lexsort(key)
    if len(size) <= EXHAUSTIVE:
        yield from (np.array(order, np.int64) for order in itertools.permutations(range(len(size))))
        return
    rng = np.random.default_rng(0)
    for _ in range(RANDOM_RESTARTS):
        noise = rng.uniform(0.5, 2.0, len(size))
        yield np.argsort(-size * noise, kind="stable")
        yield np.argsort(-size * length * noise, kind="stable")


def _contention(problem: Problem) -> np.ndarray:
    """Most bytes live at any time of each buffer's lifetime: buffers across the peak must be placed first. int64[n]."""
    steps = problem.live_bytes()
    times = np.array([t for t, _ in steps], np.int64)
    totals = np.array([v for _, v in steps], np.int64)
    worst = []
    for b in problem.buffers:
        first, last = np.searchsorted(times, b.lower, "right") - 1, np.searchsorted(times, b.upper, "left")
        worst.append(int(totals[max(first, 0) : last].max(initial=0)))
    return np.array(worst, np.int64)


def place(problem: Problem, order: np.ndarray, best_fit: bool, limit: int | None = None) -> np.ndarray | None:
    """Offsets int64[n] from placing buffers in ``order``; None as soon as one would end above ``limit`` bytes."""
    size, lower, upper, alignment = columns(problem)
    offsets = np.zeros(len(size), np.int64)
    placed = np.zeros(len(size), bool)
    for i in order:
        if size[i] == 0 or lower[i] >= upper[i]:
            continue
        rivals = np.flatnonzero(placed & (lower < upper[i]) & (lower[i] < upper))
        rivals = rivals[np.argsort(offsets[rivals], kind="stable")]
        offset = _gap(
            offsets[rivals].tolist(), (offsets + size)[rivals].tolist(), int(size[i]), int(alignment[i]), best_fit
        )
        if limit is not None and offset + size[i] > limit:
            return None
        offsets[i], placed[i] = offset, True
    return offsets


def _gap(starts: list[int], ends: list[int], size: int, alignment: int, best_fit: bool) -> int:
    """Lowest aligned offset (or the tightest gap, under ``best_fit``) for ``size`` bytes beside ``[starts, ends)``,
    sorted by start."""
    top, best, best_waste = 0, None, None
    for start, end in zip(starts, ends, strict=True):
        candidate = -(-top // alignment) * alignment
        if candidate + size <= start:
            if not best_fit:
                return candidate
            waste = start - candidate - size
            if best_waste is None or waste < best_waste:
                best, best_waste = candidate, waste
        top = max(top, end)
    return best if best is not None else -(-top // alignment) * alignment


@dataclass(frozen=True)
class Allocation:
    """A placement and what is known of it. peak_bytes : what it needs. bound_bytes : no placement needs less.

    work : elementary steps of the exact search, 0 where the heuristics met the bound.
    """

    solution: Solution
    peak_bytes: int
    bound_bytes: int
    work: int = 0

    @property
    def optimal(self) -> bool:
        return self.peak_bytes <= self.bound_bytes

    def __str__(self) -> str:
        if self.optimal:
            return f"{self.peak_bytes} bytes, optimal"
        return (
            f"{self.peak_bytes} bytes, within {100 * (self.peak_bytes / self.bound_bytes - 1):.1f} % of the bound of "
            f"{self.bound_bytes}"
        )


def lower_bound(problem: Problem) -> int:
    """Most bytes live at one time, each buffer but one rounded up to the alignment that all have in common."""
    size, lower, upper, alignment = columns(problem)
    alive = lower < upper
    grain = int(np.gcd.reduce(alignment)) if len(alignment) else 1
    rounded = -(-size // grain) * grain
    spared = np.where(alive, rounded - size, 0).max(initial=0)  # the topmost buffer needs no rounding
    padded = Problem(tuple(replace(b, size=int(r)) for b, r in zip(problem.buffers, rounded, strict=True)))
    return max(problem.lower_bound(), padded.lower_bound() - int(spared), int(size.max(initial=0)))


def allocate(
    problem: Problem, work_limit: int = WORK_LIMIT, progress: Callable[[int], None] | None = None
) -> Allocation:
    """The lowest placement found: heuristics first, and where they stay above the bound the exact search.

    The search is asked for the bound itself and, where that is refuted or too hard, for peaks halfway to what is known.
    work_limit : of the exact search over all its questions (0: heuristics only). ``progress`` is told the peak at each
    improvement."""
    bound = lower_bound(problem)
    best = _by_heuristics(problem, bound, progress)
    peak, work = best.peak(problem), 0
    if peak <= bound or work_limit <= 0 or not exact.available(problem):
        return Allocation(best, peak, bound)
    target, undecided = bound, bound  # below `bound` no placement exists, below `undecided` none was found
    while undecided < peak and work < work_limit:
        # most of the work goes where it counts: to the bound itself
        share = max(1, (work_limit - work) * 3 // 4 if target == bound else (work_limit - work) // 4)
        answer = exact.place_within(problem, target, share)
        work += answer.work
        if answer.solution is not None:
            best, peak = answer.solution, answer.solution.peak(problem)
            if progress:
                progress(peak)
        else:
            bound = target + 1 if answer.impossible else bound
            undecided = target + 1
        target = (undecided + peak - 1) // 2
    return Allocation(best, peak, bound, work)


def solve(problem: Problem, progress: Callable[[int], None] | None = None) -> Solution:
    """The placement of :func:`allocate`."""
    return allocate(problem, progress=progress).solution


def _by_heuristics(problem: Problem, bound: int, progress: Callable[[int], None] | None) -> Solution:
    best, best_peak = None, None
    for order in orderings(problem):
        for best_fit in (False, True):
            offsets = place(problem, order, best_fit, None if best_peak is None else best_peak - 1)
            if offsets is None:
                continue
            best = Solution(tuple(offsets.tolist()))
            best_peak = best.peak(problem)
            if progress:
                progress(best_peak)
            if best_peak <= bound:
                return best
    return best if best is not None else Solution(())
