"""The stage that codes constant weights: per chip function, which constants stand coded in memory and how.

"auto": what costs no cycles (for the objective energy: what takes least energy; for the objective memory the fewest
bytes at a bounded loss of time in the plan of least memory). Where the network does not fit with whole layers and
those, the cheaper of two ways: more constants coded, those first that cost least time for what they save, until whole
layers fit; or rows and tiles, with no more constants coded than these need. Results never change."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING

import tvm
from tvm import relax

from tvm_ergo.codegen.choices import Weights
from tvm_ergo.codegen.compile import emit_program
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.plan import Plan, make_plan
from tvm_ergo.codegen.space import Objective, SpacePlan, choose
from tvm_ergo.codegen.space.bound import least_possible_bytes
from tvm_ergo.codegen.space.candidates import is_large
from tvm_ergo.codegen.space.search import best_plan, fitting_plan
from tvm_ergo.codegen.stream import graph_of
from tvm_ergo.codegen.weights.apply import annotated
from tvm_ergo.codegen.weights.choose import Choice
from tvm_ergo.codegen.weights.forms import Chosen, Forms, codings, stored_bytes
from tvm_ergo.target.errors import OutOfMemoryError
from tvm_ergo.target.machine import Trace
from tvm_ergo.tuning.store import undecided

if TYPE_CHECKING:
    from tvm_ergo.pipeline import PipelineOptions

NO_LIMIT = 1 << 40
CHEAP = 0.01
"""Share of all cycles (objective energy: of all pJ) that decoding may cost before rows and tiles are looked for
instead, which takes long."""
GAIN = 2.5
"""Looking at a form in rows and tiles takes half a minute in large graphs: there a form is only looked at for so much
to be won with whole layers. So more memory can cost some time in large networks."""
MORE, MUCH = 1.1, 2.0
"""Of the least memory, and how much less time has to be won by it to be told."""
ROUNDS = 4
"""Times that fewer bytes are asked for where constants shared by layers, or the order of the layers, make their sum
inexact."""


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
    return annotated(func, codings(choices))


@dataclass(frozen=True, eq=False)
class _Decision:
    """refused : bytes in which the activations of each function did not fit; constants are all that another coding of
    them changes much."""

    functions: Mapping[str, relax.Function]
    options: PipelineOptions
    refused: dict[str, int] = field(default_factory=dict)

    @property
    def by_energy(self) -> bool:
        return self.options.objective is Objective.ENERGY

    def made(self) -> Chosen:
        forms = Forms(self.functions, self.options.chip, self.by_energy)
        if self.options.weights is Weights.CODED:
            return forms.least
        first = forms.in_plan if self.options.objective is Objective.MEMORY else forms.free
        if self.missing_bytes(first) <= 0:
            return first
        return self.as_needed(forms, first)

    @cached_property
    def gain(self) -> float:
        """How much cheaper another form might be for it to be looked at."""
        graphs = [graph_of(func) for func in self.functions.values()]
        return GAIN if any(is_large(graph) for graph in graphs) else 1.0

    def missing_bytes(self, chosen: Chosen) -> int:
        """What the memory lacks for whole layers."""
        plans = self.whole_layers(chosen).values()
        return (
            sum(plan.constant_bytes for plan in plans)
            + max(p.activation_bytes for p in plans)
            - self.options.chip.memory_bytes
        )

    def as_needed(self, forms: Forms, first: Chosen) -> Chosen:
        """The cheapest choice that fits, of whole layers with as much coded as they need and of each form in rows and
        tiles."""
        found: list[tuple[float, Chosen]] = []
        more = self.enough(forms, first)
        if more is not None:
            if forms.priced(more) <= forms.priced(first) + CHEAP * forms.priced(forms.plain):
                return more
            found.append((self.cost(more), more))
        for level in forms.levels(
            Weights.AUTO, self.options.objective is Objective.MEMORY
        ).values():  # whole layers, which rows and tiles hardly ever beat, say what may be won
            if not found or self.gain * self.whole_cost(level) < min(cost for cost, _ in found):
                cost = self.cost(level)
                found += [(cost, level)] if cost < inf else []
        return min(found, key=lambda pair: pair[0], default=(inf, forms.least))[1]

    def enough(self, forms: Forms, first: Chosen) -> Chosen | None:
        """The cheapest choice with which whole layers fit; None where there is none."""
        limit = stored_bytes(first) - self.missing_bytes(first)
        for _ in range(ROUNDS):
            chosen = forms.within(limit)
            missing = 0 if chosen is None else self.missing_bytes(chosen)
            if missing <= 0:
                return chosen
            limit = min(limit, stored_bytes(chosen)) - missing
        return None

    def whole_layers(self, chosen: Chosen) -> dict[str, Plan]:
        return {name: make_plan(graph_of(_with(func, chosen[name])), NO_LIMIT) for name, func in self.functions.items()}

    def whole_cost(self, chosen: Chosen) -> float:
        """Of whole layers, in whatever memory that takes."""
        return sum(self._traced(plan) for plan in self.whole_layers(chosen).values())

    def _traced(self, plan: Plan | SpacePlan) -> float:
        trace = Trace(emit_program(plan, self.options.chip), self.options.chip)
        return trace.energy_pj if self.by_energy else trace.cycles

    def cost(self, chosen: Chosen) -> float:
        """Cycles (for the objective energy: pJ) of the plans that code generation will make; infinity where a function
        does not fit beside the others' constants."""
        constants = {name: plan.constant_bytes for name, plan in self.whole_layers(chosen).items()}
        total = 0.0
        for name, func in self.functions.items():
            limit = self.options.chip.memory_bytes - sum(constants.values()) + constants[name]
            plan = self._plan(name, _with(func, chosen[name]), limit, constants[name])
            if plan is None:
                return inf
            total += self._traced(plan)
        return total

    def _plan(self, name: str, func: relax.Function, limit: int, constant_bytes: int) -> Plan | SpacePlan | None:
        graph = graph_of(func)
        if limit - constant_bytes < max(least_possible_bytes(graph).size_bytes, self.refused.get(name, 0)):
            return None
        if self.options.objective is Objective.MEMORY:
            with contextlib.suppress(OutOfMemoryError):
                return choose(graph, self.options.chip, limit, objective=Objective.MEMORY)
            return None
        with contextlib.suppress(OutOfMemoryError):
            return make_plan(graph, limit)
        found = fitting_plan(graph, self.options.chip, limit, Options(), self.options.objective)
        if found is None:
            self.refused[name] = limit - constant_bytes
        return found


def weights_advice(functions: Mapping[str, relax.Function], options: PipelineOptions) -> str | None:
    """For networks that do not fit: what coding the constants would do, None where it was done or saves nothing."""
    if options.weights is not Weights.DENSE:
        return None
    forms = Forms(functions, options.chip)
    decision, dense = _Decision(functions, options), {name: [] for name in functions}
    before, after = (
        sum(plan.constant_bytes for plan in decision.whole_layers(chosen).values()) for chosen in (dense, forms.least)
    )
    if after >= before:
        return None
    said = (
        f'coded weights (weights="auto" or "coded", --weights) take down to {after} constant bytes instead of {before}'
    )
    if after >= options.chip.memory_bytes:
        return f"{said}, which alone are still too many"
    return f"{said}, with which the network {'fits' if decision.cost(forms.least) < inf else 'does not fit either'}"


def speed_advice(functions: Mapping[str, relax.Function], options: PipelineOptions) -> str | None:
    """For a network that does not fit: what a little more than the least memory would save, where that is much. None
    for large networks, which take long to plan."""
    if (
        _Decision(functions, options).gain > 1
        or len(functions) > 1
        or options.weights is not Weights.AUTO
        or options.objective is Objective.MEMORY
    ):
        return None
    (graph,) = (graph_of(func, name) for name, func in functions.items())
    smallest = best_plan(graph, options.chip, options.chip.memory_bytes, Options(), options.objective)  # remembered
    least_bytes = min(smallest.memory_bytes, make_plan(graph, NO_LIMIT).memory_bytes)
    more = int(least_bytes * MORE)
    tight, roomy = (
        _Decision(functions, replace(options, chip=options.chip.with_memory(limit))) for limit in (least_bytes, more)
    )
    least, less = (
        decision.cost(decision.made()) for decision in (tight, roomy)
    )  # as compiling decides: in the least memory another form may be faster than this plan
    if not less * MUCH < least < inf:
        return None
    return (
        f"--memory {more} ({100 * (MORE - 1):.0f} % more than the least) it would take {least / less:.1f} times "
        f"less {'energy' if roomy.by_energy else 'time'}"
    )
