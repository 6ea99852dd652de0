"""What a form of the weights costs in a plan: a constant that is read for every band or tile is decoded as often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tvm_ergo.codegen.graph import Graph
from tvm_ergo.codegen.plan import Plan, Step
from tvm_ergo.codegen.space.cost import StepCosts
from tvm_ergo.codegen.space.order import Needs
from tvm_ergo.codegen.space.plan import SpacePlan
from tvm_ergo.codegen.weights.choose import SLOWER, Candidate, Candidates, Choice
from tvm_ergo.codegen.weights.coding import Coding
from tvm_ergo.target.chip import Chip


def bounded_in_plan(candidates: Candidates, choices: list[Choice], plan: Plan | SpacePlan) -> list[Choice]:
    """Per constant the fewest bytes with which its layers take at most `SLOWER` times the cycles of plain weights in
    this plan.

    choices : what was chosen for layers run whole; those that keep to the bound in the plan stay.
    """
    in_plan = PlanCycles(plan, candidates.chip)
    by_digest = {candidates.graph.tensors[t].digest: t for t in candidates.readers}
    return [
        replace(choice, chosen=_chosen(candidates, choice, by_digest[choice.digest], in_plan)) for choice in choices
    ]


def _chosen(candidates: Candidates, choice: Choice, t: int, in_plan: PlanCycles) -> Candidate:
    digest, limit = choice.digest, SLOWER * in_plan.of(choice.digest, None)
    if in_plan.of(digest, choice.chosen.coding) <= limit:
        return choice.chosen
    smallest_first = sorted(candidates.worthwhile(t, SLOWER), key=lambda c: (c.size_bytes, c.cycles))
    return next((c for c in smallest_first if in_plan.of(digest, c.coding) <= limit), choice.plain)


class PlanCycles:
    """Busy cycles of the steps of a plan that read a constant, by how it is coded. Constants are named by their
    digests: a plan's graph may be another."""

    def __init__(self, plan: Plan | SpacePlan, chip: Chip):
        self.graph, self.chip = plan.graph, chip
        self._steps: dict[int, list[Step]] = {}
        for step in plan.steps:
            if isinstance(step, Step):
                for t in dict.fromkeys(step.node.inputs):
                    if self.graph.tensors[t].data is not None:
                        self._steps.setdefault(t, []).append(step)
        self._tensors = {self.graph.tensors[t].digest: t for t in self._steps}
        self._needs = Needs(self.graph)

    def of(self, digest: str, coding: Coding | None) -> int:
        """coding : None: plain."""
        t = self._tensors[digest]
        graph = _with_coding(self.graph, {t: coding})
        costs = StepCosts(graph, self.chip, self._needs)
        return sum(costs.step(step)[0] for step in self._steps[t])


def _with_coding(graph: Graph, codings: Mapping[int, Coding | None]) -> Graph:
    return replace(
        graph,
        tensors=tuple(
            replace(tensor, coding=codings[tensor.id]) if tensor.id in codings else tensor for tensor in graph.tensors
        ),
    )
