"""Addresses by constraint programming, where the heuristic of `place` does not reach the least bytes alive.

For every two buffers that ever live together one lies above the other by `separations`: a disjunction each, which CP-SAT (OR-tools) decides. The search
starts from the heuristic's placement, runs on one thread and is limited in its own deterministic time, so that a plan is the same on every machine.
"""

from __future__ import annotations

import numpy as np

from tvm_ergo.codegen.space.place import NEVER, separations

EFFORT = 4.0
"""Deterministic time of CP-SAT, about seconds on a desktop machine."""


def tightened(low: np.ndarray, high: np.ndarray, alignment: int, offsets: np.ndarray, effort: float = EFFORT) -> tuple[np.ndarray, bool]:
    """``(offsets of a lower peak if one is found, whether none is lower)``.

    low, high : occupied bytes, int64[buffers, times]. offsets : a valid placement, multiples of ``alignment``.
    """
    from ortools.sat.python import cp_model

    tops = high.max(axis=1, initial=0)
    peak_bytes, bound = int((offsets + tops).max(initial=0)), int(np.maximum(high - low, 0).sum(axis=0).max(initial=0))
    if peak_bytes <= bound:
        return offsets, True
    above = separations(low, high)
    model = cp_model.CpModel()
    peak = model.NewIntVar(bound, peak_bytes, "peak")
    slots = [model.NewIntVar(0, (peak_bytes - int(top)) // alignment, "") for top in tops]
    places = [slot * alignment for slot in slots]
    for i, place in enumerate(places):
        model.Add(place + int(tops[i]) <= peak)
        model.AddHint(slots[i], int(offsets[i]) // alignment)
        for j in range(i + 1, len(places)):
            if above[i, j] > NEVER:
                over = model.NewBoolVar("")
                model.Add(place - places[j] >= int(above[i, j])).OnlyEnforceIf(over)
                model.Add(places[j] - place >= int(above[j, i])).OnlyEnforceIf(over.Not())
                model.AddHint(over, bool(offsets[i] - offsets[j] >= above[i, j]))
    model.Minimize(peak)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers, solver.parameters.random_seed, solver.parameters.max_deterministic_time = 1, 0, effort
    status = solver.Solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return offsets, False
    found = np.array([solver.Value(slot) for slot in slots], np.int64) * alignment
    better = found if int((found + tops).max(initial=0)) < peak_bytes else offsets
    return better, status == cp_model.OPTIMAL
