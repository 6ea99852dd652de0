"""Addresses by constraint programming, where the heuristic of `place` does not reach the least bytes alive.

For every two buffers that ever live together one lies above the other by `separations`: a disjunction each, which
CP-SAT (OR-tools) decides. The search starts from the heuristic's placement, runs on one thread and is limited in its
own deterministic time, so that a plan is the same on every machine."""

from __future__ import annotations

import numpy as np

from tvm_ergo.codegen.space.place import NEVER, Profiles

EFFORT = 2.0
"""Deterministic time of CP-SAT, about seconds on a desktop machine."""


def tightened(
    profiles: Profiles, alignment: int, offsets: np.ndarray, effort: float = EFFORT, enough_bytes: int = 0
) -> np.ndarray:
    """Offsets of a lower peak, if one is found; else those given, a valid placement of multiples of ``alignment``.

    enough_bytes : a peak that need not be lowered further.
    """
    from ortools.sat.python import cp_model

    peak_bytes, tops, above = profiles.peak_bytes(offsets), profiles.tops, profiles.above
    bound = max(profiles.bound_bytes, enough_bytes)
    if peak_bytes <= bound:
        return offsets
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
                model.AddHint(over, int(offsets[i] - offsets[j] >= above[i, j]))  # older versions take no truth value
    model.Minimize(peak)
    solver = cp_model.CpSolver()
    solver.parameters.catch_sigint_signal = (
        False  # else OR-tools leaves SIGINT at the system's default afterwards: Ctrl-C kills
    )
    solver.parameters.num_workers, solver.parameters.random_seed, solver.parameters.max_deterministic_time = (
        1,
        0,
        effort,
    )
    if solver.Solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return offsets
    found = np.array([solver.Value(slot) for slot in slots], np.int64) * alignment
    return found if profiles.peak_bytes(found) < peak_bytes else offsets
