"""Subproblems combined: a path of segments through the cuts of a graph is a plan; its peak is the largest of theirs,
its cost their sum.

(Where a tensor at a cut is written into a larger one behind it, or nobody reads a node, the plan may hold somewhat
more: what counts in the end is the placed plan.) Ways are measured only when a path wants them: a search with estimates
is repeated until its path is made of measured ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from tvm_ergo.codegen.graph import Graph
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.plan import place_constants
from tvm_ergo.codegen.space.plan import SpacePlan, Subproblem, make_space_plan
from tvm_ergo.codegen.space.segments import FEAR, HOPE, Segment, Segments, Way
from tvm_ergo.codegen.space.shortest import ShortestPaths
from tvm_ergo.codegen.views import resolve
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.sums import added

NEAR = 0.85
"""Ways whose live bytes are more than this share of the limit (or of the path's peak) are placed: gaps between buffers
may take the rest."""
MAX_ROUNDS = 80
ALMOST = 1.05
"""A path of so many times the multiply-accumulates allowed is made leaner by exchanging single elements."""
MUCH = 0.2
"""Share of a path's cost from which a way of it is made leaner."""
STEP = 1.03
"""The least memory within a limit of multiply-accumulates is looked for in steps of this factor."""


@dataclass(frozen=True, eq=False)
class Path:
    """Segments in order, each with the way chosen; peak and costs from their measured ways."""

    parts: tuple[tuple[Segment, Way], ...]

    @property
    def peak_bytes(self) -> int:
        return max((way.top_bytes for _, way in self.parts), default=0)

    @property
    def cycles(self) -> int:
        return sum(way.cycles for _, way in self.parts)

    @property
    def energy_pj(self) -> float:
        return added(way.energy_pj for _, way in self.parts)

    @property
    def macs(self) -> int:
        return sum(way.macs for _, way in self.parts)

    @property
    def key(self) -> tuple:
        """Equal for equal choices."""
        return tuple((s.first, s.last, tuple(way.bands.items()), tuple(way.stages.items())) for s, way in self.parts)


class Paths:
    """The paths of one graph."""

    def __init__(self, graph: Graph, chip: Chip, options: Options = Options(), segments: Segments | None = None):
        self.graph, self.chip, self.options = graph, chip, options
        self.segments = segments or Segments(graph, chip, options)
        self._shortest = ShortestPaths(self.segments)
        self._searched = False
        self.constant_bytes = place_constants(graph, resolve(graph, options), options.alignment_bytes)[1]

    def anew(self) -> Paths:
        """The same with no way measured yet: what a search finds depends on what others had measured before it."""
        return Paths(self.graph, self.chip, self.options, Segments(self.graph, self.chip, self.options, self.segments))

    def to_search(self) -> Paths:
        """Itself the first time, as `smallest` leaves it however often that is asked for; then anew."""
        fresh = self.anew() if self._searched else self
        self._searched = True
        return fresh

    def smallest(self) -> Path:
        """The path of least peak found, multiply-accumulates unlimited; of equal peaks the one of fewest. Looked for
        once."""
        return self._smallest

    @cached_property
    def _smallest(self) -> Path:
        return self._settled(self._shortest.smallest, None)

    def cheapest(self, limit_bytes: int, cost: str) -> Path | None:
        """The path of least ``cost`` (``cycles``, ``energy_pj`` or ``macs``) whose segments stay within a limit of live
        bytes; None if there is none."""
        return self._settled(lambda measured: self._shortest.cheapest(cost, limit_bytes, measured), limit_bytes)

    def eased(self, path: Path, limit_bytes: int, cost: str) -> Path:
        """The cheapest path within a limit once ways in the place of those that hold much of the cost of ``path`` are
        measured, whose estimates exclude them, and those are made leaner."""
        for segment, way in path.parts:
            if getattr(way, cost) > MUCH * getattr(path, cost):
                self.segments.measure_excluded(segment, limit_bytes, HOPE)
                self.segments.leaner(segment, way, limit_bytes, 0, cost)
        return self.cheapest(limit_bytes, cost) or path

    def smallest_within(self, macs: float) -> Path:
        """About the least peak of a path with at most so many multiply-accumulates, and of its paths the one of fewest
        cycles."""
        path = self.smallest()
        limit = path.peak_bytes
        top = max(
            path.peak_bytes,
            *(self.segments.segment(u, u).ways[0].peak_bytes for u in range(len(self.segments.units))),
            1,
        )
        while True:
            path = self.cheapest(limit, "macs") or path
            if macs < path.macs < ALMOST * macs:
                for segment, way in sorted(path.parts, key=lambda part: -part[1].macs):
                    self.segments.leaner(segment, way, limit, int(way.macs - path.macs + macs))
                path = self.cheapest(limit, "macs") or path
            if path.macs <= macs or limit > 2 * top:
                break
            limit = int(limit * STEP) + 1
        quick = self.cheapest(max(path.peak_bytes, limit), "cycles")
        return quick if quick is not None and quick.macs <= max(macs, path.macs) else path

    def plan(self, path: Path) -> SpacePlan:
        """The whole plan of a path, placed."""
        bands = {node: rows for _, way in path.parts for node, rows in way.bands.items()}
        stages = {node: stage for _, way in path.parts for node, stage in way.stages.items()}
        plan = make_space_plan(
            self.graph,
            bands,
            self.options,
            barriers={s.last_node for s, _ in path.parts},
            stages=stages,
            needs=self.segments.needs,
        )
        return replace(
            plan, subproblems=tuple(self._subproblem(segment, way, len(segment.ways)) for segment, way in path.parts)
        )

    def _subproblem(self, segment: Segment, way: Way, ways: int) -> Subproblem:
        units = range(segment.first, segment.last + 1)
        nodes = tuple(node.id for u in units for node in self.segments.units[u])
        whole = max((self.segments.whole(u).peak_bytes for u in units), default=0)
        how = "tiles" if way.stages else "rows" if way.bands else "whole"
        return Subproblem(nodes, how, way.top_bytes, whole, way.cycles, way.energy_pj, way.macs, ways)

    def parts_of(self, plan: SpacePlan, ways: Sequence[int]) -> tuple[Subproblem, ...]:
        """The subproblems of a plan that another search made, its barriers where they end. ways : how many there were
        to choose from, in order; 1 where nobody knows."""
        found, first = [], 0
        for last, unit in enumerate(self.segments.units):
            if unit[-1].id not in plan.barriers and last < len(self.segments.units) - 1:
                continue
            nodes = {node.id for u in self.segments.units[first : last + 1] for node in u}
            way = Way(
                {n: rows for n, rows in plan.bands.items() if n in nodes},
                {n: stage for n, stage in plan.stages.items() if n in nodes},
                0,
                0,
                0.0,
                0,
            )
            segment = Segment(first, last, unit[-1].id)
            found.append(
                self._subproblem(
                    segment, self.segments.measure(segment, way), ways[len(found)] if len(found) < len(ways) else 1
                )
            )
            first = last + 1
        return tuple(found)

    def _settled(
        self, best: Callable[[bool], list[tuple[Segment, Way]] | None], limit_bytes: int | None
    ) -> Path | None:
        """The best path, all of its ways measured, those near the limit placed. What may decide is looked at first: the
        rest often leaves the path before it matters. best : the path by the figures there are, True: of measured ways
        only."""
        for _ in range(MAX_ROUNDS):
            parts = best(False)
            if parts is None:
                return None
            bound = max(way.between(HOPE) for _, way in parts) if limit_bytes is None else limit_bytes
            unknown = [part for part in parts if not part[1].exact]
            for segment, way in [part for part in unknown if part[1].between(FEAR) > bound] or unknown:
                self.segments.measure(segment, way)
            if unknown:
                continue
            high = [
                way
                for _, way in parts
                if way.peak_bytes > NEAR * bound and not way.tight and not 0 < way.reached_bytes <= bound
            ]
            if not high:
                return Path(tuple(parts))
            for way in high:
                self.segments.place(way, int(bound))
        parts = best(True)
        return None if parts is None else Path(tuple(parts))
