"""A network's chip functions as the tuner takes them: the plan compilation would choose, its parts, and whole plans put
together from ways of parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tvm_ergo.codegen.compile import emit_program
from tvm_ergo.codegen.fuse import fuse
from tvm_ergo.codegen.graph import Graph
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.plan import Plan
from tvm_ergo.codegen.planned import described, recasting, remade
from tvm_ergo.codegen.space.plan import SpacePlan
from tvm_ergo.codegen.tuning.measure import told
from tvm_ergo.codegen.tuning.parts import Part, parts_of
from tvm_ergo.codegen.tuning.space import Space, Way
from tvm_ergo.codegen.weights.coding import Coding
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.program import Program


@dataclass(frozen=True, eq=False)
class Function:
    """One chip function. graph : as compilation plans it, constants coded as it would. plan : the one it would
    choose."""

    name: str
    graph: Graph
    plan: Plan | SpacePlan
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, name: str, graph: Graph, plan: Plan | SpacePlan) -> Function:
        return cls(name, graph, plan, tuple(parts_of(plan)))

    def program(self, chip: Chip) -> Program:
        """Of the plan compilation would choose."""
        return emit_program(self.plan, chip)


@dataclass(frozen=True, eq=False)
class Decided:
    """A whole plan of a function. plan : JSON as `planned.remade` takes it. codings : of constants, by their digest."""

    plan: dict
    codings: Mapping[str, Coding]

    def to_json(self) -> dict:
        return {"plan": self.plan, "codings": {digest: [c.codec.name, c.lanes] for digest, c in self.codings.items()}}


def default_of(function: Function) -> Decided:
    """The plan compilation would choose, as decided."""
    codings = {t.digest: t.coding for t in function.graph.tensors if t.coding is not None}
    return Decided({**described(function.plan), **recasting(function.graph, function.plan)}, codings)


def joined(function: Function, ways: Sequence[tuple[Part, Space, Way]]) -> Decided:
    """The plan that carries out each part its way."""
    bands, stages, barriers, codings, codes = {}, {}, set(), {}, {}
    for part, space, way in ways:
        bands |= {str(part.nodes[n]): rows for n, rows in way.bands}
        stages |= {str(part.nodes[n]): [[part.nodes[i] for i in s.inner], s.columns, s.channels] for n, s in way.stages}
        barriers |= {part.nodes[n] for n in way.barriers}
        codings |= {part.graph.tensors[t].digest: space.forms[t][form] for t, form in way.forms}
        codes |= told({part.graph.tensors[t].name: space.codes[t][code] for t, code in way.codes})
    plan = {
        "nodes": len(function.plan.graph.nodes),
        "whole": False,
        "bands": bands,
        "stages": stages,
        "barriers": sorted(barriers),
        "ways": [],
        "codes": codes,
        **recasting(function.graph, function.plan),
    }
    return Decided(plan, codings)


def carried_out(
    function: Function, decided: Decided, chip: Chip, options: Options = Options()
) -> tuple[Plan | SpacePlan, Program]:
    """The whole plan and its Program, as compilation makes it. Errors: UnsupportedError from the lowering rules."""
    graph = replace(
        function.graph,
        tensors=tuple(
            replace(t, coding=decided.codings.get(t.digest)) if t.data is not None else t
            for t in function.graph.tensors
        ),
    )
    plan = remade(fuse(graph) if options.fuse_coding else graph, decided.plan, options)
    return plan, emit_program(plan, chip.with_memory(1 << 32))
