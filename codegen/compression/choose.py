"""Compression of one chip function: which tensors wait in slots, in which plan, and what that gains.

Two kinds of plan are tried. Layers run whole, and an exact selection (`solve`) among the tensors that wait says which are compressed;
its model is checked against the real plan, with a tighter limit where the model was too hopeful. Or layers run in bands between cuts whose
tensors wait in slots (`cuts`). Of the plans that fit the fastest by the machine's own clock is taken, or for the least memory the smallest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tvm import relax
from tvm_ergo.codegen.compile import PLAN, emit_program, space_plan
from tvm_ergo.codegen.compression.cuts import CutSearch
from tvm_ergo.codegen.compression.solve import solve
from tvm_ergo.codegen.compression.statistics import TensorStatistics
from tvm_ergo.codegen.compression.waiting import Waiting, problem_of
from tvm_ergo.codegen.graph import Graph, from_function
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.plan import Plan, make_plan
from tvm_ergo.codegen.space import Objective, SpacePlan, choose
from tvm_ergo.relay_passes.compile.insert_compression import insert
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.errors import OutOfMemoryError
from tvm_ergo.target.machine import Trace

TIGHTER = (1.0, 0.97, 0.94, 0.9)
"""Shares of the limit asked of a model whose real plan needed more."""
NO_LIMIT = 1 << 40


@dataclass(frozen=True, eq=False)
class Compressed:
    """One plan with tensors that wait in slots. function : with the ops inserted. decisions : by tensor name. cycles : of the machine."""

    function: relax.Function
    plan: Plan | SpacePlan
    decisions: dict[str, Waiting]
    cycles: int

    def planned(self, rows: list[dict]) -> relax.Function:
        """The function with the attribute that makes code generation carry out exactly this plan; rows : what reports show."""
        graph = self.plan.graph
        bands = {graph.tensors[n.outputs[0]].name: self.plan.bands[n.id] for n in graph.nodes if n.id in self.plan.bands} \
            if isinstance(self.plan, SpacePlan) else None
        barriers = [graph.tensors[n.outputs[0]].name for n in graph.nodes if n.id in self.plan.barriers] if bands is not None else []
        return self.function.with_attr(PLAN, json.dumps({"bands": bands, "barriers": barriers, "compression": rows}))


def needs_compression(func: relax.Function, chip: Chip, memory_bytes: int, objective: Objective, options: Options = Options()) -> bool:
    """Whether compression is worth looking at: the objective is memory, or nothing fits without. Errors: OutOfMemoryError where the constants alone
    do not fit, which no compression of activations changes."""
    if objective is Objective.MEMORY:
        return True
    try:
        choose(from_function(func), chip, memory_bytes, options, objective)
    except OutOfMemoryError:
        return True
    return False


def compress(func: relax.Function, chip: Chip, memory_bytes: int, objective: Objective, statistics: Mapping[str, TensorStatistics], *,
             lossless: bool = False, options: Options = Options()) -> Compressed | None:
    """The best plan with compression, None where it gains nothing: not below the least memory without, or not below the limit."""
    graph = from_function(func)
    found = list(_plans(func, graph, chip, memory_bytes, objective, statistics, lossless, options))
    if objective is Objective.MEMORY:
        best = min(found, key=lambda c: (c.plan.memory_bytes, c.cycles), default=None)
        if best is None or best.plan.memory_bytes > memory_bytes:
            return None
        try:
            without = choose(graph, chip, memory_bytes, options, objective).memory_bytes
        except OutOfMemoryError:
            return best
        return best if best.plan.memory_bytes < without else None
    return min((c for c in found if c.plan.memory_bytes <= memory_bytes), key=lambda c: c.cycles, default=None)


def _plans(func, graph: Graph, chip: Chip, memory_bytes: int, objective: Objective, statistics, lossless: bool, options: Options) -> Iterator[Compressed]:
    for make in (_whole_layers, _bands):
        yield from make(func, graph, chip, memory_bytes, objective, statistics, lossless, options)


def _whole_layers(func, graph, chip, memory_bytes, objective, statistics, lossless, options) -> Iterator[Compressed]:
    start = make_plan(graph, NO_LIMIT, options)
    problem = problem_of(start, graph, statistics, chip, lossless)
    limits = [None] if objective is Objective.MEMORY else [int(share * (memory_bytes - start.constant_bytes)) for share in TIGHTER]
    for limit in limits:
        selection = solve(problem, limit)
        if selection is None or not selection.chosen:
            return
        decisions = {problem.choices[i].key.name: problem.choices[i].key for i in selection.chosen}
        changed = insert(func, {name: w.decision for name, w in decisions.items()})
        plan = make_plan(from_function(changed, graph.name), NO_LIMIT, options)
        yield _measured(changed, plan, decisions, chip)
        if plan.memory_bytes <= memory_bytes:
            return


def _bands(func, graph, chip, memory_bytes, objective, statistics, lossless, options) -> Iterator[Compressed]:
    search = CutSearch(graph, chip, options, statistics, lossless)
    if not search.waiting:
        return
    least, space = search.least_peak(), memory_bytes - search.plain.constant_bytes
    targets = [least, int(least * 1.05)] if objective is Objective.MEMORY else [int(share * space) for share in TIGHTER]
    for target in targets:
        path = search.fastest(target) if target >= least else None
        if path is None or not path.decisions:
            continue
        changed = insert(func, {name: w.decision for name, w in path.decisions.items()})
        made = from_function(changed, graph.name)
        names = {search.extended.tensors[t].name: rows for t, rows in path.bands.items()}
        ends = {search.extended.tensors[search.compress[p.last].outputs[0] if p.compressed else p.last].name for p in path.pieces}
        plan = space_plan(made, names, ends, options)
        yield _measured(changed, plan, path.decisions, chip)
        if objective is not Objective.MEMORY and plan.memory_bytes <= memory_bytes:
            return


def _measured(function, plan, decisions, chip: Chip) -> Compressed:
    roomy = chip.with_memory(max(chip.memory_bytes, plan.memory_bytes))
    return Compressed(function, plan, decisions, Trace(emit_program(plan, roomy), roomy).cycles)
