"""The forms of all weights of a network that plans are made with, whatever the memory: compiling takes the cheapest
that fits, exploring shows them.

Both look at the same forms, which do not depend on the limit, so that a front's rows and compiling differ by their
searches in rows and tiles only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from tvm import relax

from tvm_ergo.codegen.choices import Weights
from tvm_ergo.codegen.space import Objective, choose
from tvm_ergo.codegen.stream import graph_of
from tvm_ergo.codegen.weights.apply import annotated
from tvm_ergo.codegen.weights.choose import SLOWER, Candidate, Candidates, Choice
from tvm_ergo.codegen.weights.frontier import Frontier, aligned
from tvm_ergo.codegen.weights.in_plan import bounded_in_plan
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.sums import added

Chosen = dict[str, list[Choice]]
"""By chip function."""
PLAIN, FREE, LEAST, CODED, AS_NEEDED = "plain", "coded for free", "fewest bytes", "coded", "coded as needed"
BOUNDED = f"coded to {SLOWER:g}x a layer"
IN_PLAN = f"coded to {SLOWER:g}x a layer in the least plan"
NO_LIMIT = 1 << 40


@dataclass(frozen=True, eq=False)
class Forms:
    """functions : by name. by_energy : prices are pJ (leakage included), else cycles; of the layers run whole."""

    functions: Mapping[str, relax.Function]
    chip: Chip
    by_energy: bool = False

    @cached_property
    def candidates(self) -> dict[str, Candidates]:
        return {name: Candidates(graph_of(func), self.chip) for name, func in self.functions.items()}

    @cached_property
    def price(self) -> Callable[[Candidate], float]:
        if self.by_energy and self.candidates:
            return next(iter(self.candidates.values())).energy
        return lambda candidate: candidate.cycles

    @cached_property
    def frontier(self) -> Frontier:
        """Over the constants of all functions."""
        return Frontier.of([c.worthwhile(t) for c in self.candidates.values() for t in c.readers], self.price)

    @cached_property
    def plain(self) -> Chosen:
        return {
            name: [replace(choice, chosen=choice.plain) for choice in choices] for name, choices in self.least.items()
        }

    @cached_property
    def free(self) -> Chosen:
        """The fewest bytes at no higher price than constants coded for free have together."""
        every = [choice.chosen for c in self.candidates.values() for choice in c.free(self.by_energy)]
        return self._chosen(self.frontier.at_most(added(map(self.price, every))))

    @cached_property
    def bounded(self) -> Chosen:
        return {name: c.least(SLOWER) for name, c in self.candidates.items()}

    @cached_property
    def in_plan(self) -> Chosen:
        """`bounded` in the plan of least memory, where a constant may be decoded anew for every band: what the
        objective memory takes."""
        plans = {
            name: choose(graph_of(func, name), self.chip, NO_LIMIT, objective=Objective.MEMORY)
            for name, func in self.of(self.bounded).items()
        }
        return {name: bounded_in_plan(self.candidates[name], self.bounded[name], plan) for name, plan in plans.items()}

    @cached_property
    def least(self) -> Chosen:
        """The fewest bytes."""
        return {name: c.least(share=1) for name, c in self.candidates.items()}

    def levels(self, weights: Weights, least_memory: bool = True) -> dict[str, Chosen]:
        """By what they are called, equal ones once, from fast to small. DENSE and CODED: that one. least_memory : with
        `in_plan`, which takes a search."""
        if weights is Weights.DENSE:
            return {PLAIN: {name: [] for name in self.functions}}
        if weights is Weights.CODED:
            return {CODED: self.least}
        found: dict[str, Chosen] = {}
        between = {IN_PLAN: self.in_plan} if least_memory else {}
        for form, chosen in {
            PLAIN: self.plain,
            FREE: self.free,
            **between,
            BOUNDED: self.bounded,
            LEAST: self.least,
        }.items():
            if not any(_equal(chosen, other) for other in found.values()):
                found[form] = chosen
        return found

    def of_least_memory(self, weights: Weights) -> str:
        """What the level is called that the objective memory takes where it fits."""
        levels = self.levels(weights)
        return next(
            (form for form, chosen in levels.items() if weights is Weights.AUTO and _equal(chosen, self.in_plan)),
            next(iter(levels)),
        )

    def within(self, limit_bytes: int) -> Chosen | None:
        """The cheapest choice whose constants take at most so many bytes; None where even the smallest take more."""
        picked = self.frontier.within(limit_bytes)
        return None if picked is None else self._chosen(picked)

    def steps(self, count: int) -> list[Chosen]:
        """The cheapest choices of so many amounts of bytes between free and the smallest, evenly spaced."""
        top, low = stored_bytes(self.free), int(self.frontier.size_bytes[0])
        return [
            chosen
            for step in range(1, count + 1)
            if top > low and (chosen := self.within(top - (top - low) * step // (count + 1))) is not None
        ]

    def of(self, chosen: Chosen) -> dict[str, relax.Function]:
        """The functions that carry a choice."""
        return {name: annotated(func, codings(chosen[name])) for name, func in self.functions.items()}

    def priced(self, chosen: Chosen) -> float:
        return added(self.price(choice.chosen) for choices in chosen.values() for choice in choices)

    def _chosen(self, picked: list[Candidate]) -> Chosen:
        left = iter(picked)
        return {
            name: [replace(choice, chosen=next(left)) for choice in choices] for name, choices in self.plain.items()
        }


def _equal(chosen: Chosen, other: Chosen) -> bool:
    return all(codings(chosen[name]) == codings(other[name]) for name in chosen)


def codings(choices: list[Choice]) -> dict:
    """Of the constants that are coded, by digest."""
    return {choice.digest: choice.chosen.coding for choice in choices if choice.chosen.coding is not None}


def stored_bytes(chosen: Chosen) -> int:
    """What the constants that can be coded take."""
    return sum(aligned(choice.chosen.size_bytes) for choices in chosen.values() for choice in choices)
