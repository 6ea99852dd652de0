"""What memory limits choose from: the paths of one graph that some limit makes cheapest, and their plans.

What a search finds depends on which ways it measured before. So of graphs that are not large all limits choose from the
same candidates, found in the same order whatever the limit: the least bytes, then upwards over all limits of a grid,
then down again from one path to the next with fewer bytes. A limit takes the cheapest candidate that fits, so more
memory is not slower (but for what the sum of its parts' cycles is off the cycles of a plan, hence `CLOSE`), and what
`explore` shows is what compiling gives. Tried before: searching downwards from the limit asked for, which is quicker,
and gave DS-CNN 60,004 cycles in memory for which `explore` had 22,042. Large graphs are still searched like that
(`search.py`): all their limits take a minute."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf, log

from tvm_ergo.codegen.graph import Graph
from tvm_ergo.codegen.space.paths import Path, Paths
from tvm_ergo.codegen.space.place_exact import EFFORT
from tvm_ergo.codegen.space.plan import SpacePlan, tighter
from tvm_ergo.target.machine import Trace

GRID = 1.02
"""Limits of live bytes that paths are looked for at are the powers of this, whatever the limit asked for."""
WIDER = 1.3
"""Times the limit from where on candidates are tried: a plan may need less than its subproblems each by itself."""
COSTS = ("cycles", "energy_pj")
MANY_ROWS, MANY_STEPS = 1000, 30_000
"""Rows of all tensors of a large graph (MobileNetV2: 1,836), and these times its nodes (125,000), from where on looking
at all limits takes longer than a compilation may."""
STEEP, LOOKS = 1.25, 2
"""Rise of the cost from one limit to the next at which the search looks closer, and how often it does."""
NEAR_LEAST = (1.0, 1.02, 1.05, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0)
"""Multiples of the least live bytes that are limits in large graphs. The larger ones are for coded constants: larger
tiles read them in fewer panels, which take fewer bytes."""
QUICK = 0.4
"""Effort to place each of several plans of a large graph, whose exact search takes ten seconds with an effort of 2; the
one chosen is placed with all."""
LOOSER = (1.0, 1.03)
"""Multiples of the least live bytes tried for the least memory: where more lives, the placement may still be
smaller."""
CLOSE, ABOUT_AS_CHEAP, FEW_STEPS = 1.25, 6, 400
"""Plans of so few steps are compared as Programs, where their estimates are at most so far above the least, and at most
so many: the sum of the parts' cycles knows nothing of what overlaps where one part ends and the next begins, up to a
fifth in small random networks (at most 2 % in the rows of VWW)."""
ONE_LESS = 3
"""Times that the least memory is asked for with one byte less."""


def is_large(graph: Graph) -> bool:
    """Whether looking at all limits takes long: half a minute."""
    shapes = [graph.tensors[t].shape for node in graph.nodes for t in node.outputs]
    rows = sum(shape[1] for shape in shapes if len(shape) == 4)
    return rows > MANY_ROWS and rows * len(graph.nodes) > MANY_STEPS


def grid(top_bytes: int, least_bytes: int = 1) -> Iterator[int]:
    """Limits of live bytes, from the largest of at most ``top_bytes`` down."""
    number = int(log(max(top_bytes, 1)) / log(GRID) + 1e-9)
    while number >= 0 and (limit := int(GRID**number)) >= least_bytes:
        if limit <= top_bytes:
            yield limit
        number -= 1


class Candidates:
    """Paths of one graph, each with its plan."""

    def __init__(self, paths: Paths, found: Iterable[Path]):
        self.paths, self.macs, self.large = paths, most_macs(paths), is_large(paths.graph)
        self.found = list({path.key: path for path in found}.values())
        self._plans: dict[tuple[tuple, bool], SpacePlan] = {}
        self._traces: dict[tuple[tuple, bytes], Trace] = {}

    def by(self, cost: str) -> list[Path]:
        """The cheapest first. cost : a figure of `Path`."""
        return sorted(self.found, key=lambda path: (getattr(path, cost), path.peak_bytes))

    def plan(self, path: Path, tight: bool = False) -> SpacePlan:
        """The plan of a path; ``tight``: placed with effort. Made once."""
        if (path.key, tight) not in self._plans:
            self._plans[path.key, tight] = (
                tighter(self.plan(path), QUICK if self.large else EFFORT) if tight else self.paths.plan(path)
            )
        return self._plans[path.key, tight]

    def cheapest(self, peak_bytes: int, cost: str) -> Path | None:
        """Of the paths with at most so many live bytes."""
        return next((path for path in self.by(cost) if path.peak_bytes <= peak_bytes), None)

    def fitting(self, memory_bytes: int, cost: str) -> tuple[float, SpacePlan] | None:
        """The cheapest that fits, with its cost; None where none does. Of plans of few steps those about as cheap are
        lowered and compared."""
        best: tuple[float, SpacePlan] | None = None
        least, looked = inf, 0
        for path in self.by(cost):
            if looked == ABOUT_AS_CHEAP or getattr(path, cost) > CLOSE * least:
                break
            plan = self._within(path, memory_bytes)
            if plan is None:
                continue
            if self.large or len(plan.steps) > FEW_STEPS:
                return best or (getattr(path, cost), plan)
            least, looked = min(least, getattr(path, cost)), looked + 1
            best = min(best or (inf, plan), (self._lowered(path, plan, cost), plan), key=lambda b: b[0])
        return best

    def _within(self, path: Path, memory_bytes: int) -> SpacePlan | None:
        """The plan of a path if it fits, placed with effort where that is what it takes."""
        if path.peak_bytes > WIDER * (memory_bytes - self.paths.constant_bytes):
            return None
        plan = self.plan(path)
        if plan.memory_bytes > memory_bytes >= plan.constant_bytes + plan.live_bytes:
            plan = self.plan(path, tight=True)
        return plan if plan.memory_bytes <= memory_bytes else None

    def _lowered(self, path: Path, plan: SpacePlan, cost: str) -> float:
        """Cycles or energy of the Program."""
        from tvm_ergo.codegen.compile import emit_program  # which imports this package

        key = (path.key, plan.offsets.tobytes())
        if key not in self._traces:
            self._traces[key] = Trace(emit_program(plan, self.paths.chip), self.paths.chip)
        return getattr(self._traces[key], cost)

    def smallest(self) -> SpacePlan:
        """The fewest bytes found with at most ``options.mac_overhead`` times the multiply-accumulates, or about as few
        of these as there can be; of equal ones the fewest cycles."""
        within = [path for path in self.found if path.macs <= self.macs]
        return self._smallest_of(within or [min(self.found, key=lambda path: (path.macs, path.peak_bytes))])

    def least(self) -> SpacePlan:
        """The fewest bytes found, whatever is computed again for that. That includes what a limit of one byte less
        leads to."""
        best = self._smallest_of(self.found)
        for _ in range(ONE_LESS):
            less = self.fitting(best.memory_bytes - 1, "cycles")
            if less is None:
                break
            best = less[1]
        return best

    def _smallest_of(self, found: Iterable[Path]) -> SpacePlan:
        """Those that cannot win any more are not placed."""
        best: tuple[tuple[int, int], SpacePlan] | None = None
        for path in sorted(found, key=lambda p: (p.peak_bytes, p.cycles)):
            if best is None or self.paths.constant_bytes + path.peak_bytes < best[0][0]:
                plan = self.plan(path, tight=True)
                figures = (plan.memory_bytes, path.cycles)
                best = min(best or (figures, plan), (figures, plan), key=lambda b: b[0])
        return tighter(best[1]) if self.large else best[1]


def most_macs(paths: Paths) -> float:
    """What the least memory may multiply and accumulate."""
    return paths.graph.macs() * paths.options.mac_overhead


def swept(paths: Paths, limits: Iterable[int] = ()) -> Iterator[Path]:
    """The paths that limits of live bytes make cheapest in one cost or another. paths : none of whose ways is measured
    yet. limits : for large graphs some more to look at, upwards; all others are looked at in all limits."""
    yield (first := paths.smallest())
    yield from small_paths(paths, most_macs(paths))
    top = max([first.peak_bytes, *(paths.segments.whole(u).peak_bytes for u in range(len(paths.segments.units)))])
    large = is_large(paths.graph)
    yield from _cheapest(
        paths, [*_near(first), *limits] if large else [*reversed([*grid(top, first.peak_bytes)]), top], COSTS
    )
    if not large:
        for cost in COSTS:
            yield from _downwards(paths, cost, top)


def small_of_large(paths: Paths) -> Iterator[Path]:
    """Of a large graph only what may have the fewest bytes, with which half the time is saved. paths : as in
    `swept`."""
    yield (first := paths.smallest())
    yield from small_paths(paths, most_macs(paths))
    if any(t.coding is not None for t in paths.graph.tensors):
        yield from _cheapest(
            paths, _near(first)[2::2], COSTS[:1]
        )  # of those limits every other: MobileNetV2 as small as with all, in a tenth less time


def _near(first: Path) -> list[int]:
    return [int(factor * first.peak_bytes) for factor in NEAR_LEAST]


def _cheapest(paths: Paths, limits: Iterable[int], costs: Iterable[str]) -> Iterator[Path]:
    for limit in limits:
        for cost in costs:
            if (path := paths.cheapest(limit, cost)) is not None:
                yield path


def _downwards(paths: Paths, cost: str, limit_bytes: int) -> Iterator[Path]:
    """Where one is far dearer than those before it, its elements are exchanged."""
    last, looks = inf, LOOKS
    while (path := paths.cheapest(limit_bytes, cost)) is not None:
        yield path
        if getattr(path, cost) > STEEP * last and looks:
            looks -= 1
            path = paths.eased(path, limit_bytes, cost)
            yield path
        last = min(last, getattr(path, cost))
        limit_bytes = min(path.peak_bytes, limit_bytes) - 1


def small_paths(paths: Paths, macs: float) -> Iterator[Path]:
    """The smallest path within the multiply-accumulates, and those of least cycles or multiplications up to a tenth
    above its peak."""
    first = paths.smallest_within(macs)
    yield first
    for factor in LOOSER:
        for cost in ("cycles", "macs"):
            path = paths.cheapest(int(first.peak_bytes * factor), cost)
            if path is not None and path.macs <= max(macs, first.macs):
                yield path
