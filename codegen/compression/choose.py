"""Compression of one chip function: which tensors wait in slots, in which plan, and what that gains.

An exact selection (`solve`) says which tensors of a plan are compressed so that the plan's live bytes stay below a
limit, or are least. Its numbers are a model (`waiting`); the plan made afterwards is what counts: it may differ, and
may leave room for a further selection among the tensors that are still plain, so the two alternate. Two starts: layers
that run whole, where tensors are compressed behind their producer and expanded before their readers; and bands of rows,
where single rows are shrunk and expanded by the engines themselves (`fuse`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial

from tvm import relax

from tvm_ergo.codegen.compile import COMPRESSION, PLAN, emit_program
from tvm_ergo.codegen.compression.solve import Problem, Selection, solve
from tvm_ergo.codegen.compression.statistics import TensorStatistics
from tvm_ergo.codegen.compression.waiting import Waiting, problem_of
from tvm_ergo.codegen.fuse import fuse
from tvm_ergo.codegen.graph import Graph
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.plan import Plan, make_plan
from tvm_ergo.codegen.planned import described, same_plan
from tvm_ergo.codegen.space import Objective, SpacePlan, choose
from tvm_ergo.codegen.space.search import best_plan
from tvm_ergo.codegen.stream import graph_of
from tvm_ergo.relay_passes.compile.insert_compression import insert
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.errors import OutOfMemoryError
from tvm_ergo.target.machine import Trace

WAITING = "ergo_waiting"
"""Attribute of a chip function in which tensors wait compressed: JSON of the `Decision`s by name, from which it is made
of the plain function again."""
TIGHTER = (1.0, 0.97, 0.94, 0.9)
"""Shares of the limit asked of a model whose real plan needed more."""
LOOSER = (1.0, 1.03, 1.07)
"""Multiples of the least live bytes asked of a selection: where more lives, the placement may still be smaller."""
ROUNDS = 3
"""Selections one after the other, each on the plan that the last one led to."""
NO_LIMIT = 1 << 40


@dataclass(frozen=True, eq=False)
class Compressed:
    """One plan with tensors that wait in slots. function : with the ops inserted. decisions : by tensor name. cycles,
    energy_pj : of the machine."""

    function: relax.Function
    plan: Plan | SpacePlan
    decisions: dict[str, Waiting]
    cycles: int
    energy_pj: float

    def annotated(self, rows: list[dict]) -> relax.Function:
        """The function with its plan, which code generation then carries out, and what reports show of it."""
        waiting = {name: asdict(w.decision) for name, w in self.decisions.items()}
        return self.function.with_attrs(
            {COMPRESSION: json.dumps(rows), PLAN: json.dumps(described(self.plan)), WAITING: json.dumps(waiting)}
        )


def needs_compression(
    func: relax.Function, chip: Chip, memory_bytes: int, objective: Objective, options: Options = Options()
) -> bool:
    """Whether compression is worth looking at: the objective is memory, or nothing fits without."""
    if objective is Objective.MEMORY:
        return True
    try:
        choose(graph_of(func), chip, memory_bytes, options, objective)
    except OutOfMemoryError:
        return True
    return False


def compress(
    func: relax.Function,
    chip: Chip,
    memory_bytes: int,
    objective: Objective,
    statistics: Mapping[str, TensorStatistics],
    *,
    lossless: bool = False,
    options: Options = Options(),
) -> tuple[Compressed | None, int]:
    """The best function with compression, None where it gains nothing; and the fewest bytes of the plans looked at.

    For the least memory: the smallest plan, if it is smaller than without. Else: of those that fit the one of least
    cycles (or energy)."""
    search = _Search(func, chip, memory_bytes, objective, statistics, lossless, options)
    if objective is Objective.MEMORY:
        found = list(search.rows())
        best = min(found, key=lambda c: (c.plan.memory_bytes, c.cycles), default=None)
        wanted = best is not None and best.plan.memory_bytes <= min(memory_bytes, search.without - 1)
        return best if wanted else None, search.least_of(found)
    found = [*search.whole_layers(), *search.rows()]
    if all(c.plan.memory_bytes > memory_bytes for c in found):
        found += search.rows(best_plan(search.graph, chip, memory_bytes, options, objective))
    fitting = [c for c in found if c.plan.memory_bytes <= memory_bytes]
    return min(
        fitting, key=lambda c: c.energy_pj if objective is Objective.ENERGY else c.cycles, default=None
    ), search.least_of(found)


class _Search:
    def __init__(
        self, func, chip: Chip, memory_bytes: int, objective: Objective, statistics, lossless: bool, options: Options
    ):
        self.func, self.chip, self.memory_bytes, self.objective = func, chip, memory_bytes, objective
        self.statistics, self.lossless, self.options = statistics, lossless, options
        self.graph = graph_of(func)
        self.without = NO_LIMIT  # bytes of the smallest plan without compression

    def least_of(self, found: list[Compressed]) -> int:
        """Bytes of the smallest plan, uncompressed ones included."""
        return min([self.without, *(c.plan.memory_bytes for c in found)])

    def problem(self, plan: Plan | SpacePlan, graph: Graph, decided: Mapping[str, Waiting], rows: bool) -> Problem:
        """Of the tensors that are not decided yet."""
        left = {name: s for name, s in self.statistics.items() if name not in decided}
        return problem_of(plan, graph, left, self.chip, self.lossless, rows)

    def made(
        self, decisions: Mapping[str, Waiting], make: Callable[[Graph], Plan | SpacePlan | None]
    ) -> Compressed | None:
        """The function with its real plan, as ``make`` makes it of the graph; None where it makes none."""
        changed = insert(self.func, {name: w.decision for name, w in decisions.items()})
        graph = (
            fuse(graph_of(changed, self.graph.name)) if self.options.fuse_coding else graph_of(changed, self.graph.name)
        )
        real = make(graph)
        if real is None:
            return None
        roomy = self.chip.with_memory(max(self.chip.memory_bytes, real.memory_bytes))
        trace = Trace(emit_program(real, roomy), roomy)
        return Compressed(changed, real, dict(decisions), trace.cycles, trace.energy_pj)

    def whole_layers(self) -> Iterator[Compressed]:
        """Whole layers below the limit at the least cost of coding; a tighter limit where the real plan needs more."""
        start = make_plan(self.graph, NO_LIMIT, self.options)
        problem = self.problem(start, self.graph, {}, rows=False)
        for share in TIGHTER:
            selection = solve(problem, int(share * (self.memory_bytes - start.constant_bytes)))
            if selection is None or not selection.chosen:
                return
            found = self.made(_chosen(problem, selection), lambda graph: make_plan(graph, NO_LIMIT, self.options))
            yield found
            if found.plan.memory_bytes <= self.memory_bytes:
                return

    def rows(self, plan: Plan | SpacePlan | None = None) -> Iterator[Compressed]:
        """Bands of rows of the least memory, with the rows that wait compressed; then once more with what that left
        plain. plan : the bands, if not those."""
        plan = plan or choose(self.graph, self.chip, NO_LIMIT, self.options, Objective.MEMORY)
        graph, decided, self.without = plan.graph, {}, min(self.without, plan.memory_bytes)
        for _ in range(ROUNDS):
            found = list(self._selections(plan, graph, decided))
            yield from found
            if not found or min(c.plan.live_bytes for c in found) >= plan.live_bytes:
                return
            least = min(found, key=lambda c: c.plan.live_bytes)
            plan, graph, decided = least.plan, least.plan.graph, least.decisions

    def _selections(self, plan: Plan | SpacePlan, graph: Graph, decided: Mapping[str, Waiting]) -> Iterator[Compressed]:
        """The least peak, and the cheapest of somewhat larger ones, whose placement may be better; in the same bands
        (unless the graph has nodes besides: some reader cannot expand), the first in new ones as well."""
        problem = self.problem(plan, graph, decided, rows=True)
        least = solve(problem)
        if not least.chosen:
            return
        seen: set[tuple] = set()
        for factor in LOOSER:
            selection = least if factor == 1 else solve(problem, int(least.peak_bytes * factor))
            if not selection.chosen or selection.chosen in seen:
                continue
            for make in (partial(same_plan, plan), *(() if seen else (self._small_plan,))):
                found = self.made({**decided, **_chosen(problem, selection)}, make)
                if found is not None:
                    yield found
            seen.add(selection.chosen)

    def _small_plan(self, graph: Graph) -> Plan | SpacePlan:
        """The plan that code generation will make."""
        if self.objective is not Objective.MEMORY:
            try:
                return choose(graph, self.chip, self.memory_bytes, self.options, self.objective)
            except OutOfMemoryError:
                pass
        return choose(graph, self.chip, NO_LIMIT, self.options, Objective.MEMORY)


def _chosen(problem: Problem, selection: Selection) -> dict[str, Waiting]:
    return {problem.choices[i].key.name: problem.choices[i].key for i in selection.chosen}
