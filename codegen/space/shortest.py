"""The shortest path from cut to cut through all ways of all segments, by the figures there are; figures in arrays, as a
search asks hundreds of times."""

from __future__ import annotations

import numpy as np

from tvm_ergo.codegen.space.segments import HOPE, Segment, Segments, Way

COSTS = ("cycles", "energy_pj", "macs")


class ShortestPaths:
    """Of one graph. Figures of ways that were measured or placed since the last question are taken over, ways that were
    added too."""

    def __init__(self, segments: Segments):
        self.segments = segments
        self._built = -1

    def _build(self) -> None:
        count = len(self.segments.units)
        self.found = [
            (segment, way)
            for last in range(count)
            for first in range(last + 1)
            for segment in [self.segments.segment(first, last)]
            for way in segment.ways
        ]
        self.first = np.array([segment.first for segment, _ in self.found])
        self.ends = np.searchsorted([segment.last for segment, _ in self.found], np.arange(count + 1))
        self.costs = {name: np.array([getattr(way, name) for _, way in self.found], float) for name in COSTS}
        self.peak, self.low = np.zeros(len(self.found)), np.zeros(len(self.found))
        self.exact = np.zeros(len(self.found), bool)
        for i, (_, way) in enumerate(self.found):
            way.number = i
            self._take_over(way)
        self.segments.changed.clear()
        self._built = self.segments.added

    def _take_over(self, way: Way) -> None:
        for name in COSTS:
            self.costs[name][way.number] = getattr(way, name)
        self.peak[way.number], self.low[way.number], self.exact[way.number] = (
            way.peak_bytes,
            way.between(HOPE),
            way.exact,
        )

    def _refresh(self) -> None:
        if self._built != self.segments.added:
            self._build()
        for way in self.segments.changed:
            if way.number >= 0:
                self._take_over(way)
        self.segments.changed.clear()

    def cheapest(self, cost: str, limit_bytes: int, measured: bool = False) -> list[tuple[Segment, Way]] | None:
        """Least sum of ``cost``, of these the least peak, of ways that may stay within the limit. measured : only
        measured ones. None where there is no path."""
        self._refresh()
        allowed = (self.low <= limit_bytes) & (self.exact | (not measured))
        return self._path(self.costs[cost], np.add, self.peak, np.maximum, allowed)

    def smallest(self, measured: bool = False) -> list[tuple[Segment, Way]] | None:
        """Least peak as it may turn out, of these the fewest multiply-accumulates."""
        self._refresh()
        return self._path(self.low, np.maximum, self.costs["macs"], np.add, self.exact | (not measured))

    def _path(
        self, main: np.ndarray, join_main: np.ufunc, other: np.ndarray, join_other: np.ufunc, allowed: np.ndarray
    ) -> list[tuple[Segment, Way]] | None:
        """Least ``main``, of equal ones least ``other``, each joined along the path; the first way of equal ones."""
        count = len(self.segments.units)
        best_main, best_other = np.full(count + 1, np.inf), np.full(count + 1, np.inf)  # index: unit + 1
        best_main[0] = best_other[0] = 0
        chosen = [-1] * count
        for last in range(count):
            span = slice(self.ends[last], self.ends[last + 1])
            first = self.first[span]
            total = np.where(allowed[span], join_main(best_main[first], main[span]), np.inf)
            least = total.min(initial=np.inf)
            if least == np.inf:
                continue
            equal = np.flatnonzero(total == least)
            others = join_other(best_other[first[equal]], other[span][equal])
            at = int(others.argmin())
            best_main[last + 1], best_other[last + 1], chosen[last] = (
                least,
                others[at],
                self.ends[last] + int(equal[at]),
            )
        parts, last = [], count - 1
        while last >= 0:
            if chosen[last] < 0:
                return None
            parts.append(self.found[chosen[last]])
            last = parts[-1][0].first - 1
        return parts[::-1]
