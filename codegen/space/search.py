"""Which plan to carry out: whole layers where they fit, else the cheapest path of subproblems that meets the memory limit, or the smallest.

Subproblems and their Pareto sets: `segments`; their combination: `paths`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from math import inf, log

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

WIDER = 1.3
"""Times the limit from where plans are looked for downwards: a way whose peak is estimated too high would never be measured at the limit itself, and a plan may
need less than its subproblems each by itself."""
GRID = 1.02
"""Paths are looked for at the powers of this, whatever the limit: so the limits looked at for more memory are those for less and some before them, and more
memory seldom leads to a slower plan (with shares of the limit it did). Not never: what a search measured before decides what it finds."""
STEEP, LOOKS = 1.25, 2
"""Rise of the cost from one limit to the next at which the search looks closer, and how often it does."""
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
    make = smallest_plan if objective is Objective.MEMORY else least_plan
    found = None if objective is Objective.MEMORY else fitting_plan(graph, chip, memory_bytes, options, objective)
    return found or remembered((make.__name__, graph.fingerprint, costs_only(chip), options), lambda: _smallest_variant(graph, chip, options, make))


def fitting_plan(graph: Graph, chip: Chip, memory_bytes: int, options: Options, objective: Objective) -> SpacePlan | None:
    """In rows and tiles, the first plan found that fits from cheap to small; None where there is none. Remembered."""
    def look() -> SpacePlan | None:
        for paths in variants(graph, chip, options):
            plan = _first_fitting(paths, memory_bytes, objective)
            if plan is None and paths.smallest().peak_bytes <= memory_bytes - paths.constant_bytes:
                for _ in _small_paths(paths, paths.graph.macs() * paths.options.mac_overhead):
                    pass  # measures ways whose estimates were too high
                plan = _first_fitting(paths, memory_bytes, objective) or least_plan(paths)
            if plan is not None and plan.memory_bytes <= memory_bytes:
                return plan
        return None

    return remembered(("fits", graph.fingerprint, costs_only(chip), options, objective, memory_bytes), look)


def _smallest_variant(graph: Graph, chip: Chip, options: Options, make: Callable[[Paths], SpacePlan]) -> SpacePlan:
    """Of the variants as long as they get smaller."""
    best: SpacePlan | None = None
    for paths in variants(graph, chip, options):
        plan = make(paths)
        if best is not None and plan.memory_bytes >= best.memory_bytes:
            break
        best = plan
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
            less = _first_fitting(fresh, best.memory_bytes - 1, Objective.LATENCY)
            if less is None:
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


def _first_fitting(paths: Paths, memory_bytes: int, objective: Objective) -> SpacePlan | None:
    """The first plan that fits, None where none does. Where one is far dearer than those before it, its elements are exchanged."""
    tried, last, looks = set(), inf, LOOKS
    for limit in grid(int(WIDER * (memory_bytes - paths.constant_bytes))):
        path = paths.cheapest(limit, objective.cost)
        if path is None:
            break
        if path.key in tried:
            continue
        tried.add(path.key)
        plan, cost = _placed_within(paths, path, memory_bytes), getattr(path, objective.cost)
        if cost > STEEP * last and looks:
            looks -= 1
            other = paths.eased(path, limit, objective.cost)
            if getattr(other, objective.cost) < cost and other.key not in tried:
                eased = _placed_within(paths, other, memory_bytes)
                plan = eased if eased.memory_bytes <= max(memory_bytes, plan.memory_bytes) else plan
        if plan.memory_bytes <= memory_bytes:
            return plan
        last = min(last, cost)
    return None


def _placed_within(paths: Paths, path: Path, memory_bytes: int) -> SpacePlan:
    plan = paths.plan(path)
    return tighter(plan) if plan.memory_bytes > memory_bytes >= plan.constant_bytes + plan.live_bytes else plan


def grid(top_bytes: int, least_bytes: int = 1) -> Iterator[int]:
    """Limits of live bytes that paths are looked for at, from the largest of at most ``top_bytes`` down."""
    number = int(log(max(top_bytes, 1)) / log(GRID) + 1e-9)
    while number >= 0 and (limit := int(GRID ** number)) >= least_bytes:
        if limit <= top_bytes:
            yield limit
        number -= 1
