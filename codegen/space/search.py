"""Which plan to carry out: whole layers where they fit, else the cheapest path of subproblems that meets the memory limit, or the smallest.

Subproblems and their Pareto sets: `segments`; their combination: `paths`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from math import inf

from tvm_ergo.codegen.graph import Graph
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.plan import Plan, make_plan
from tvm_ergo.codegen.space.prepare import prepared
from tvm_ergo.codegen.space.advice import too_large
from tvm_ergo.codegen.space.again import Site, computed_again, sites
from tvm_ergo.codegen.space.paths import Path, Paths
from tvm_ergo.codegen.space.plan import SpacePlan, tighter
from tvm_ergo.codegen.space.remembered import costs_only, remembered
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.errors import LABELS, OutOfMemoryError

WIDER = (1.3, 1.2, 1.1, 1.05, 1.0)
"""Multiples of the limit looked at first: a way whose peak is estimated too high would never be measured at the limit itself, and a plan may need less
than its subproblems each by itself."""
TIGHTER = (0.97, 0.94, 0.9, 0.86, 0.82, 0.75)
"""Shares of the limit asked of the live bytes, as a placement may need somewhat more than is live."""
NO_LIMIT = 1 << 40
NEARLY = 0.8
"""Subproblems whose peak is at least this share of the largest hold the peak."""
LOOSER = (1.0, 1.03)
"""Multiples of the least live bytes tried for the least memory: where more lives, the placement may still be smaller."""

ONE_LESS = 3
"""Times that the least memory is asked for with one byte less."""
LARGER = (1.05, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0)
"""Multiples of the least live bytes at which plans are looked for whose coded constants take fewer bytes."""


class Objective(Enum):
    """What a plan is chosen for, within the memory there is."""

    LATENCY = "latency"
    ENERGY = "energy"
    MEMORY = "memory"

    @property
    def cost(self) -> str:
        """The figure of a `Path` that is made least."""
        return "energy_pj" if self is Objective.ENERGY else "cycles"


def choose(graph: Graph, chip: Chip, memory_bytes: int, options: Options = Options(),
           objective: Objective = Objective.LATENCY) -> Plan | SpacePlan:
    """The plan to carry out: whole layers where they fit and nothing else is asked for, else rows and tiles.

    Errors: OutOfMemoryError; where rows and tiles were tried, with the best peak they reach, the lower bound, and the tensors that hold it.
    """
    whole, too_small = None, None
    try:
        whole = make_plan(graph, memory_bytes, options)
        if objective is not Objective.MEMORY or not graph.nodes:
            return whole
    except OutOfMemoryError as error:
        too_small = error
        if not graph.nodes:
            raise
    best = best_plan(graph, chip, memory_bytes, options, objective)
    if objective is Objective.MEMORY and whole is not None and whole.memory_bytes <= best.memory_bytes:
        return whole
    if objective is Objective.MEMORY and best.memory_bytes > memory_bytes:  # the limit counts for more than multiply-accumulates
        best = best_plan(graph, chip, memory_bytes, options, Objective.LATENCY)
    if best.memory_bytes > memory_bytes:
        if too_small and make_plan(graph, NO_LIMIT, options).memory_bytes <= best.memory_bytes:
            raise OutOfMemoryError(f"{too_small.what}, with whole layers; rows and tiles need no less", **{label: getattr(too_small, label) for label in LABELS})
        raise too_large(best, memory_bytes)
    return best


def best_plan(graph: Graph, chip: Chip, memory_bytes: int, options: Options, objective: Objective) -> SpacePlan:
    """The smallest plan, or one that fits, of the first variant that has it; equal questions are answered once (`remembered`)."""
    limit = None if objective is Objective.MEMORY else memory_bytes
    return remembered((graph.fingerprint, costs_only(chip), options, objective, limit), lambda: _looked_for(graph, chip, memory_bytes, options, objective))


def _looked_for(graph: Graph, chip: Chip, memory_bytes: int, options: Options, objective: Objective) -> SpacePlan:
    best: SpacePlan | None = None
    for paths in variants(graph, chip, options):
        plan = smallest_plan(paths) if objective is Objective.MEMORY else fitting_plan(paths, memory_bytes, objective)
        if best is not None and plan.memory_bytes >= best.memory_bytes:
            break
        best = plan
        if objective is not Objective.MEMORY and best.memory_bytes <= memory_bytes:
            break
    return best


def variants(graph: Graph, chip: Chip, options: Options) -> Iterator[Paths]:
    """The paths of the graph, then those of the graph with producers computed again where they hold the peak, as long as there are such places.

    All of them are of the graph as `prepared` gives it.
    """
    graph = prepared(graph)
    paths = Paths(graph, chip, options)
    chosen: list[Site] = []
    while True:
        yield paths
        smallest = paths.smallest()
        holding = {node.name for segment, way in smallest.parts if way.peak_bytes >= NEARLY * smallest.peak_bytes
                   for unit in paths.segments.units[segment.first:segment.last + 1] for node in unit}
        more = [site for site in sites(graph) if site not in chosen and graph.nodes[site.reader].name in holding]
        if not more:
            return
        chosen += more
        paths = Paths(computed_again(graph, chosen), chip, options)


def smallest_plan(paths: Paths) -> SpacePlan:
    """The fewest bytes found with at most ``options.mac_overhead`` times the multiply-accumulates; of equal ones the fewest cycles.

    Several paths of few live bytes are placed, as another may leave smaller gaps; those that cannot win any more are not.
    """
    macs = paths.graph.macs() * paths.options.mac_overhead
    return _smallest_of(paths, _small_paths(paths, macs), macs)


def least_plan(paths: Paths) -> SpacePlan:
    """The fewest bytes found, whatever is computed again for that; looked for once. That includes what a limit of one byte less leads to."""
    def look() -> SpacePlan:
        fresh = paths.anew()
        best = min(smallest_plan(fresh), _smallest_of(fresh, [fresh.smallest()]), key=lambda plan: plan.memory_bytes)
        for _ in range(ONE_LESS):
            found, less = _first_fitting(fresh, best.memory_bytes - 1, Objective.LATENCY)
            if not found:
                break
            best = less
        return best

    return remembered(("least", paths.graph.fingerprint, costs_only(paths.chip), paths.options), look)


def _smallest_of(paths: Paths, small: Iterable[Path], macs: float = inf) -> SpacePlan:
    """Of the plans of some paths, and of those with fewer panels of coded constants, the one of fewest bytes."""
    found = {path.key: path for path in small}
    best: tuple[tuple[int, int], SpacePlan] | None = None
    for path in (*sorted(found.values(), key=lambda p: (p.peak_bytes, p.cycles)), *_larger_tiles(paths, macs)):
        if best is None or paths.constant_bytes + path.peak_bytes < best[0][0]:
            plan = tighter(paths.plan(path))
            figures = (plan.memory_bytes, path.cycles)
            best = min(best or (figures, plan), (figures, plan), key=lambda b: b[0])
    return best[1]


def _larger_tiles(paths: Paths, macs: float) -> Iterator[Path]:
    """Paths of larger peaks where constants are coded: their tiles read them in fewer panels, which take fewer bytes."""
    if all(t.coding is None for t in paths.graph.tensors):
        return
    least = paths.smallest().peak_bytes
    for factor in LARGER:
        path = paths.cheapest(int(least * factor), "cycles")
        if path is not None and path.macs <= macs:
            yield path


def _small_paths(paths: Paths, macs: float) -> Iterator[Path]:
    """The smallest path within the multiply-accumulates, and those of least cycles or multiplications up to a tenth above its peak."""
    first = paths.smallest_within(macs)
    yield first
    for factor in LOOSER:
        for cost in ("cycles", "macs"):
            path = paths.cheapest(int(first.peak_bytes * factor), cost)
            if path is not None and path.macs <= max(macs, first.macs):
                yield path


def fitting_plan(paths: Paths, memory_bytes: int, objective: Objective = Objective.LATENCY) -> SpacePlan:
    """The first plan that fits, from cheap to small; the smallest there is, whatever it multiplies, where none does: whatever fits with
    `smallest_plan` fits here."""
    found, plan = _first_fitting(paths, memory_bytes, objective)
    return plan if found else min((least_plan(paths), *([plan] if plan else [])), key=lambda plan: plan.memory_bytes)


def _first_fitting(paths: Paths, memory_bytes: int, objective: Objective) -> tuple[bool, SpacePlan | None]:
    """``(True, the first that fits)``, or ``(False, the smallest of those looked at)``."""
    room = memory_bytes - paths.constant_bytes
    tried: set[tuple] = set()
    smallest: SpacePlan | None = None
    for path in _cheap_to_small(paths, room, objective.cost):
        if path.key in tried:
            continue
        tried.add(path.key)
        plan = paths.plan(path)
        if plan.activation_bytes > room >= plan.live_bytes:
            plan = tighter(plan)
        if plan.memory_bytes <= memory_bytes:
            return True, plan
        smallest = plan if smallest is None or plan.memory_bytes < smallest.memory_bytes else smallest
    return False, smallest


def _cheap_to_small(paths: Paths, room_bytes: int, cost: str) -> Iterator[Path]:
    """Paths whose plans might fit: those at the limit and somewhat above it by rising cost, then those of smaller and smaller peaks."""
    near = [path for share in WIDER if (path := paths.cheapest(int(share * room_bytes), cost)) is not None]
    yield from sorted(near, key=lambda path: getattr(path, cost))
    for share in TIGHTER:
        path = paths.cheapest(int(share * room_bytes), cost)
        if path is None:
            return
        yield path
