"""The forms of a network's weights that are worth planning with when no limit is known."""

from __future__ import annotations

from collections.abc import Mapping

from tvm import relax
from tvm_ergo.codegen.stream import graph_of
from tvm_ergo.codegen.weights.apply import annotated
from tvm_ergo.codegen.weights.choose import SLOWER, Candidates, Weights, enough
from tvm_ergo.target.chip import Chip

PLAIN, AS_NEEDED = "plain", "coded as needed"
Functions = dict[str, relax.Function]


def levels(functions: Mapping[str, relax.Function], chip: Chip, weights: Weights) -> dict[str, Functions]:
    """The chip functions with their weights in each form, by what it is called, from fast to small; forms that are equal once.

    AUTO: coded at no loss of time, with at most SLOWER times the cycles of a layer, and in as few bytes as there can be. DENSE and CODED: that one.
    """
    if weights is Weights.DENSE:
        return {PLAIN: dict(functions)}
    candidates = {name: Candidates(graph_of(func), chip) for name, func in functions.items()}
    if weights is Weights.CODED:
        forms = {"coded": lambda c: c.least(share=1)}
    else:
        forms = {"coded for free": lambda c: c.free(), f"coded to {SLOWER:g}x a layer": lambda c: c.least(SLOWER), "fewest bytes": lambda c: c.least()}
    found: dict[str, Functions] = {}
    seen: list[dict] = []
    for form, choose in forms.items():
        codings = {name: {choice.digest: choice.chosen.coding for choice in choose(c) if choice.chosen.coding is not None} for name, c in candidates.items()}
        if codings not in seen:
            seen.append(codings)
            found[form if any(codings.values()) else PLAIN] = {name: annotated(func, codings[name]) for name, func in functions.items()}
    return found


def as_needed(functions: Mapping[str, relax.Function], chip: Chip, steps: int) -> list[Functions]:
    """The chip functions with so many amounts saved between what is coded for free and the fewest bytes, evenly spaced: each time those codings that cost least cycles a byte."""
    candidates = {name: Candidates(graph_of(func), chip) for name, func in functions.items()}
    free = [choice for c in candidates.values() for choice in c.free()]
    ways = [c.worthwhile(t) for c in candidates.values() for t in c.readers]
    most = sum(choice.chosen.size_bytes - min(way.size_bytes for way in some) for choice, some in zip(free, ways, strict=True))
    found = []
    for step in range(1, steps + 1) if most > 0 else ():
        chosen = iter(enough(free, ways, most * step // (steps + 1), lambda candidate: candidate.cycles))
        picked = {name: [next(chosen) for _ in c.readers] for name, c in candidates.items()}
        found.append({name: annotated(func, {c.digest: c.chosen.coding for c in picked[name] if c.chosen.coding is not None}) for name, func in functions.items()})
    return found
