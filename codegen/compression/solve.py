"""Which tensors wait compressed, and how: the least cost below a limit of live bytes, or the least peak; exact, by
CP-SAT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SECONDS = 10.0
"""Deterministic time CP-SAT may take (its own unit, about a second): what it has then is used, with its bound."""


@dataclass(frozen=True, eq=False)
class Choice:
    """One way for one tensor. tensor : its id. delta : int64[times], bytes added to what lives (negative where they are
    saved).

    cost : of encoding and decoding, any unit. key : what the caller knows it by.
    """

    tensor: int
    delta: np.ndarray
    cost: int
    key: object = None


@dataclass(frozen=True, eq=False)
class Problem:
    """base : int64[times], bytes that live without compression. At most one choice a tensor."""

    base: np.ndarray
    choices: tuple[Choice, ...]

    def live_bytes(self, chosen: Sequence[int]) -> np.ndarray:
        return self.base + sum((self.choices[i].delta for i in chosen), np.zeros_like(self.base))

    def peak_bytes(self, chosen: Sequence[int]) -> int:
        return int(self.live_bytes(chosen).max(initial=0))

    def cost(self, chosen: Sequence[int]) -> int:
        return sum(self.choices[i].cost for i in chosen)

    def relevant(self) -> np.ndarray:
        """bool[times]: times that can be the peak of some selection; where another lives at least as much in every one,
        it is left out."""
        least = self.base + sum((np.minimum(c.delta, 0) for c in self.choices), np.zeros_like(self.base))
        most = self.base + sum((np.maximum(c.delta, 0) for c in self.choices), np.zeros_like(self.base))
        keep = most >= least.max(initial=0)
        table = np.stack([self.base, *(c.delta for c in self.choices)])
        _, first = np.unique(table, axis=1, return_index=True)
        distinct = np.zeros_like(keep)
        distinct[first] = True
        return keep & distinct


@dataclass(frozen=True)
class Selection:
    """chosen : indices of choices. optimal : no selection is better."""

    chosen: tuple[int, ...]
    peak_bytes: int
    cost: int
    optimal: bool


def solve(problem: Problem, limit_bytes: int | None = None) -> Selection | None:
    """The least cost with at most ``limit_bytes`` live at any time, None where that cannot be; without a limit the
    least peak, and of equal peaks the least cost."""
    if not problem.choices:
        peak = problem.peak_bytes(())
        return Selection((), peak, 0, True) if limit_bytes is None or peak <= limit_bytes else None
    if limit_bytes is not None:
        return _solve(problem, limit_bytes)
    least = _solve(problem, None)
    again = _solve(problem, least.peak_bytes)
    return Selection(again.chosen, again.peak_bytes, again.cost, least.optimal and again.optimal)


def _solve(problem: Problem, limit_bytes: int | None) -> Selection | None:
    from ortools.sat.python import cp_model  # a third of a second to import: only who compresses waits for it

    model = cp_model.CpModel()
    use = [model.new_bool_var(str(i)) for i in range(len(problem.choices))]
    for tensor in {c.tensor for c in problem.choices}:
        model.add_at_most_one(use[i] for i, c in enumerate(problem.choices) if c.tensor == tensor)
    peak = model.new_int_var(
        0, int(problem.base.max() + sum(int(np.maximum(c.delta, 0).max()) for c in problem.choices)), "peak"
    )
    for time in np.flatnonzero(problem.relevant()):
        terms = [int(c.delta[time]) * use[i] for i, c in enumerate(problem.choices) if c.delta[time]]
        model.add(int(problem.base[time]) + sum(terms) <= (peak if limit_bytes is None else limit_bytes))
    model.minimize(peak if limit_bytes is None else sum(c.cost * use[i] for i, c in enumerate(problem.choices)))
    solver = cp_model.CpSolver()
    solver.parameters.catch_sigint_signal = (
        False  # else OR-tools leaves SIGINT at the system's default afterwards: Ctrl-C kills
    )
    solver.parameters.max_deterministic_time, solver.parameters.num_workers, solver.parameters.random_seed = (
        SECONDS,
        1,
        0,
    )
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        if limit_bytes is None:
            return Selection((), problem.peak_bytes(()), 0, False)
        return None
    chosen = tuple(i for i, variable in enumerate(use) if solver.boolean_value(variable))
    return Selection(chosen, problem.peak_bytes(chosen), problem.cost(chosen), status == cp_model.OPTIMAL)
