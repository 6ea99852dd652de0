"""Which plan to carry out: whole layers where they fit, else the cheapest path of subproblems that meets the memory
limit, or the smallest.

Subproblems and their Pareto sets: `segments`; their combination: `paths`.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from tvm_ergo.codegen.choices import Objective
from tvm_ergo.codegen.graph import Graph
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.plan import Plan, make_plan
from tvm_ergo.codegen.space.advice import too_large
from tvm_ergo.codegen.space.again import Site, computed_again, sites
from tvm_ergo.codegen.space.candidates import LOOKS, STEEP, WIDER, Candidates, grid, is_large, small_of_large, swept
from tvm_ergo.codegen.space.paths import Paths
from tvm_ergo.codegen.space.plan import SpacePlan
from tvm_ergo.codegen.space.prepare import prepared
from tvm_ergo.codegen.space.remembered import costs_only, remembered
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.errors import LABELS, OutOfMemoryError

NO_LIMIT = 1 << 40
NEARLY = 0.8
"""Subproblems whose peak is at least this share of the largest hold the peak."""


def choose(
    graph: Graph, chip: Chip, memory_bytes: int, options: Options = Options(), objective: Objective = Objective.LATENCY
) -> Plan | SpacePlan:
    """The plan to carry out: whole layers where they fit and nothing else is asked for, else rows and tiles.

    Errors: OutOfMemoryError; where rows and tiles were tried, with the best peak they reach, the lower bound, and the
    tensors that hold it."""
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
    if (
        objective is Objective.MEMORY and best.memory_bytes > memory_bytes
    ):  # the limit counts for more than multiply-accumulates
        best = best_plan(graph, chip, memory_bytes, options, Objective.LATENCY)
    if best.memory_bytes > memory_bytes:
        if too_small and make_plan(graph, NO_LIMIT, options).memory_bytes <= best.memory_bytes:
            raise OutOfMemoryError(
                f"{too_small.what}, with whole layers; rows and tiles need no less",
                **{label: getattr(too_small, label) for label in LABELS},
            )
        raise too_large(best, memory_bytes)
    return best


def best_plan(graph: Graph, chip: Chip, memory_bytes: int, options: Options, objective: Objective) -> SpacePlan:
    """One that fits and costs least, else (and for the objective memory) the smallest, as long as variants get
    smaller."""
    found = None if objective is Objective.MEMORY else fitting_plan(graph, chip, memory_bytes, options, objective)
    if found is not None:
        return found
    best: SpacePlan | None = None
    for paths in variants(graph, chip, options):
        plan = small(paths).smallest() if objective is Objective.MEMORY else candidates(paths).least()
        if best is not None and plan.memory_bytes >= best.memory_bytes:
            break
        best = plan
    return best


def fitting_plan(
    graph: Graph, chip: Chip, memory_bytes: int, options: Options, objective: Objective
) -> SpacePlan | None:
    """In rows and tiles, the cheapest of the candidates that fit; of large graphs the first plan found that fits from
    cheap to small. None where there is none. Remembered."""

    def look() -> SpacePlan | None:
        found = []
        for paths in variants(graph, chip, options):
            if (
                is_large(paths.graph)
                and (plan := _first_fitting(paths.anew(), memory_bytes, objective.cost)) is not None
            ):
                return plan
            fits = candidates(paths).fitting(memory_bytes, objective.cost)
            if fits is not None:
                found.append(fits)
                if is_large(paths.graph):
                    break
        return min(found, key=lambda fits: fits[0], default=(0, None))[1]

    return remembered(("fits", graph.fingerprint, costs_only(chip), options, objective, memory_bytes), look)


def candidates(paths: Paths, limits: tuple[int, ...] = ()) -> Candidates:
    """What a graph is carried out as under some limit of memory, looked for once. paths : as `variants` gives them;
    limits : as in `swept`."""
    return remembered(
        ("candidates", paths.graph.fingerprint, costs_only(paths.chip), paths.options, limits),
        lambda: Candidates(fresh := paths.to_search(), swept(fresh, limits)),
    )


def small(paths: Paths) -> Candidates:
    """Of large graphs those that may have the fewest bytes, else all candidates."""
    if not is_large(paths.graph):
        return candidates(paths)
    return remembered(
        ("small", paths.graph.fingerprint, costs_only(paths.chip), paths.options),
        lambda: Candidates(fresh := paths.to_search(), small_of_large(fresh)),
    )


def variants(graph: Graph, chip: Chip, options: Options) -> Iterator[Paths]:
    """The paths of the graph, then those of the graph with producers computed again where they hold the peak, as long
    as there are such places.

    All of them are of the graph as `prepared` gives it.
    """
    graph = prepared(graph)
    paths = _paths(graph, chip, options)
    chosen: list[Site] = []
    while True:
        yield paths
        smallest = paths.smallest()
        holding = {
            node.name
            for segment, way in smallest.parts
            if way.peak_bytes >= NEARLY * smallest.peak_bytes
            for unit in paths.segments.units[segment.first : segment.last + 1]
            for node in unit
        }
        more = [site for site in sites(graph) if site not in chosen and graph.nodes[site.reader].name in holding]
        if not more:
            return
        chosen += more
        paths = _paths(computed_again(graph, chosen), chip, options)


def _paths(graph: Graph, chip: Chip, options: Options) -> Paths:
    """Made once: what a search finds depends on which ways were measured before, so they are only searched by
    `Paths.to_search`."""
    return remembered(("paths", graph.fingerprint, costs_only(chip), options), lambda: Paths(graph, chip, options))


def _first_fitting(paths: Paths, memory_bytes: int, cost: str) -> SpacePlan | None:
    """Of a large graph, the first plan that fits, None where none does. Where one is far dearer than those before it,
    its elements are exchanged."""
    tried, last, looks = set(), inf, LOOKS
    for limit in grid(int(WIDER * (memory_bytes - paths.constant_bytes))):
        path = paths.cheapest(limit, cost)
        if path is None:
            break
        if path.key in tried:
            continue
        tried.add(path.key)
        found = [path]
        if getattr(path, cost) > STEEP * last and looks:
            looks -= 1
            found.append(paths.eased(path, limit, cost))
        fits = Candidates(paths, found).fitting(memory_bytes, cost)
        if fits is not None:
            return fits[1]
        last = min(last, getattr(path, cost))
    return None
