"""The stage that codes constant weights: per chip function, which constants stand coded in memory and how.

"auto": what costs no cycles (for the objective energy: what takes least energy; for the objective memory the fewest bytes at a bounded loss of time). Where the network does not
fit with whole layers and those, the cheaper of two ways: more constants coded, those first that cost least time for what they save, until whole layers fit;
or rows and tiles, with no more constants coded than these need. Results never change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING

import tvm
from tvm import relax
from tvm_ergo.codegen.compile import emit_program
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.plan import Plan, make_plan
from tvm_ergo.codegen.space import Objective, SpacePlan, choose
from tvm_ergo.codegen.space.bound import least_possible_bytes
from tvm_ergo.codegen.space.search import best_plan
from tvm_ergo.codegen.stream import graph_of
from tvm_ergo.codegen.weights.apply import annotated
from tvm_ergo.codegen.weights.choose import SLOWER, Candidate, Candidates, Choice, Weights, enough
from tvm_ergo.target.errors import OutOfMemoryError
from tvm_ergo.target.machine import Trace
from tvm_ergo.tuning.store import undecided

if TYPE_CHECKING:
    from tvm_ergo.pipeline import PipelineOptions

NO_LIMIT = 1 << 40
SLACK_BYTES = 256
"""For the alignment of constants."""
CHEAP = 0.03
"""Share of all cycles (objective energy: of all pJ) that decoding may cost before rows and tiles are looked for instead, which takes long."""
NEARLY = 0.9
"""Where a function is known not to get below so many live bytes, plans with other constants are not looked for unless this share of them fits."""
Chosen = dict[str, list[Choice]]
"""By chip function."""


def code_weights(mod: tvm.IRModule, options: PipelineOptions) -> tvm.IRModule:
    """A partitioned module whose chip functions carry the codings of their constants."""
    functions = undecided(mod)
    if options.weights is Weights.DENSE or not functions:
        return mod
    chosen = _Decision(functions, options).made()
    mod = mod.clone()
    for name, choices in chosen.items():
        mod[mod.get_global_var(name)] = _with(functions[name], choices)
    return mod


def _with(func: relax.Function, choices: list[Choice]) -> relax.Function:
    return annotated(func, {c.digest: c.chosen.coding for c in choices if c.chosen.coding is not None})


@dataclass(frozen=True, eq=False)
class _Decision:
    """reached : live bytes of the smallest plan found of each function that did not fit; constants are all that another coding of them changes much."""

    functions: Mapping[str, relax.Function]
    options: PipelineOptions
    reached: dict[str, int] = field(default_factory=dict)

    def made(self) -> Chosen:
        candidates = {name: Candidates(graph_of(func), self.options.chip) for name, func in self.functions.items()}
        if self.options.weights is Weights.CODED:
            return {name: c.least(share=1) for name, c in candidates.items()}
        if self.options.objective is Objective.MEMORY:
            first = {name: c.least(SLOWER) for name, c in candidates.items()}
        else:
            first = {name: c.free(self.options.objective is Objective.ENERGY) for name, c in candidates.items()}
        plans = self.whole_layers(first)
        missing = sum(plan.constant_bytes for plan in plans.values()) + max(p.activation_bytes for p in plans.values()) - self.options.chip.memory_bytes
        if missing <= 0:
            return first
        return self.as_needed(candidates, first, missing)

    def as_needed(self, candidates: Mapping[str, Candidates], first: Chosen, missing: int) -> Chosen:
        """The choices where ``first`` lacks so many bytes for whole layers."""
        least = {name: c.least() for name, c in candidates.items()}
        price = self.price(candidates)
        more = self.enough(candidates, first, missing)
        if more is not None and price(more) <= price(first) + CHEAP * price(first, plain=True):
            return more
        levels = [first, {name: c.least(SLOWER) for name, c in candidates.items()}, least, {name: c.least(share=1) for name, c in candidates.items()}]
        in_space = next((level for level in levels if self.cost(level) < inf), None)
        # what costs nothing for whole layers may cost much in tiles, which read weights once each
        plain = {name: [replace(choice, chosen=choice.plain) for choice in choices] for name, choices in first.items()} if in_space is first else None
        return min([level for level in (more, in_space, plain) if level is not None], key=self.cost, default=levels[-1])

    def enough(self, candidates: Mapping[str, Candidates], first: Chosen, missing: int) -> Chosen | None:
        """``first`` with as many other streams as whole layers need, those first that cost least for what they save; None where even all are too few."""
        flat = [choice for name in self.functions for choice in first[name]]
        ways = [c.worthwhile(t) for c in candidates.values() for t in c.readers]
        found = enough(flat, ways, missing + SLACK_BYTES, self._price(candidates))
        if _bytes(flat) - _bytes(found) < missing:
            return None
        left = iter(found)
        return {name: [next(left) for _ in first[name]] for name in self.functions}

    def _price(self, candidates: Mapping[str, Candidates]) -> Callable[[Candidate], float]:
        """Cycles of a candidate's layers, or for the objective energy pJ."""
        if self.options.objective is Objective.ENERGY and candidates:
            return next(iter(candidates.values())).energy
        return lambda candidate: candidate.cycles

    def price(self, candidates: Mapping[str, Candidates]) -> Callable[..., float]:
        """Of all choices together, as they are chosen or plain."""
        price = self._price(candidates)
        return lambda chosen, plain=False: sum(price(c.plain if plain else c.chosen) for choices in chosen.values() for c in choices)

    def whole_layers(self, chosen: Chosen) -> dict[str, Plan]:
        return {name: make_plan(graph_of(_with(func, chosen[name])), NO_LIMIT) for name, func in self.functions.items()}

    def cost(self, chosen: Chosen) -> float:
        """Cycles (for the objective energy: pJ) of the plans that code generation will make; infinity where a function does not fit beside the others' constants."""
        constants = {name: plan.constant_bytes for name, plan in self.whole_layers(chosen).items()}
        total = 0.0
        for name, func in self.functions.items():
            limit = self.options.chip.memory_bytes - sum(constants.values()) + constants[name]
            plan = self._plan(name, _with(func, chosen[name]), limit, constants[name])
            if plan is None:
                return inf
            trace = Trace(emit_program(plan, self.options.chip), self.options.chip)
            total += trace.energy_pj if self.options.objective is Objective.ENERGY else trace.cycles
        return total

    def _plan(self, name: str, func: relax.Function, limit: int, constant_bytes: int) -> Plan | SpacePlan | None:
        graph = graph_of(func)
        if constant_bytes + max(least_possible_bytes(graph).size_bytes, NEARLY * self.reached.get(name, 0)) > limit:
            return None
        try:
            return choose(graph, self.options.chip, limit, objective=self.options.objective)
        except OutOfMemoryError:
            self.reached[name] = best_plan(graph, self.options.chip, limit, Options(), Objective.LATENCY).live_bytes  # remembered: nothing is looked for again
            return None


def weights_advice(functions: Mapping[str, relax.Function], options: PipelineOptions) -> str | None:
    """For networks that do not fit: what coding the constants would do, None where it was done or saves nothing."""
    if options.weights is not Weights.DENSE:
        return None
    decision = _Decision(functions, options)
    plain = {name: [] for name in functions}
    coded = {name: Candidates(graph_of(func), options.chip).least(share=1) for name, func in functions.items()}
    before, after = (sum(plan.constant_bytes for plan in decision.whole_layers(chosen).values()) for chosen in (plain, coded))
    return f"coded weights (weights=\"coded\", --weights coded) take {after} constant bytes instead of {before}" if after < before else None


def _bytes(choices: list[Choice]) -> int:
    return sum(c.chosen.size_bytes for c in choices)

