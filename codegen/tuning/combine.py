"""One schedule for each part, so that the network meets its budgets at the least cost: exact over what was measured,
then carried out as whole Programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf

from ortools.sat.python import cp_model

from tvm_ergo.codegen.tuning.figures import (
    PJ_PER_S_IN_MW,
    Budget,
    Figures,
    Goal,
    best_point,
    cost,
    of_network,
    together,
)
from tvm_ergo.codegen.tuning.gated import banks_of
from tvm_ergo.codegen.tuning.network import Decided, Function, carried_out, default_of, joined
from tvm_ergo.codegen.tuning.task import Task
from tvm_ergo.target.chip import Chip, Point
from tvm_ergo.target.errors import UnsupportedError

SHARES = (1.0, 0.97, 0.94, 0.9, 0.85, 0.8)
"""Of memory and power asked of a selection whose whole plan needed more."""
HOPES = 30
"""Selections carried out first that fit if the whole plan's addresses need no more than is live at once."""
EFFORT = 4.0
"""Deterministic seconds of CP-SAT for one selection."""
FIXPOINT = 4
"""Rounds in which the product of energy and time is made linear about the last solution."""


@dataclass(frozen=True)
class Record:
    """A measured way of a task. place : ``(chip function, first unit, last unit)`` of the part it is for."""

    key: str
    figures: Figures
    place: tuple[str, int, int] = ("", 0, 0)


@dataclass(frozen=True, eq=False)
class Network:
    """A plan of the whole network. decided : by function. point : the operating point it does best at, None where it
    meets the budget at none."""

    how: str
    decided: dict[str, Decided]
    figures: Figures
    point: Point | None


def undominated(task: Task, chip: Chip) -> list[Record]:
    """The measured ways of which no other is better in cycles, energy, constants and activations."""
    first, last = chip.points[0].name, chip.points[-1].name
    kept: list[tuple[tuple, Record]] = []
    for key, f in task.records.items():
        if f is not None:
            kept.append(
                (
                    (
                        f.cycles,
                        f.energy_pj[first],
                        f.energy_pj[last],
                        f.constant_bytes,
                        f.activation_bytes,
                        f.live_bytes,
                    ),
                    Record(key, f),
                )
            )
    kept.sort(key=lambda pair: (pair[0], pair[1].key))
    found: list[tuple[tuple, Record]] = []
    for figures, record in kept:
        if not any(all(a <= b for a, b in zip(other, figures)) for other, _ in found):
            found.append((figures, record))
    return [record for _, record in found]


def best_network(
    starts: Sequence[Sequence[Function]],
    tasks: Sequence[Task],
    goal: Goal,
    budget: Budget,
    chip: Chip,
    stopped: Callable[[], bool] = lambda: False,
) -> Network:
    """The best of: the plans that were given (the first of them compilation would choose), and selections of measured
    ways at every operating point, all carried out as whole Programs."""
    functions = starts[0]
    networks = [
        _given(start, goal, budget, chip, "tuned" if number else "default") for number, start in enumerate(starts)
    ]
    best, figures = min(networks, key=lambda network: _rank(network, goal, budget, chip)), networks[0].figures
    places = {(name, part.first, part.last): (task, part) for task in tasks for name, part in task.parts}
    records = {task.digest: undominated(task, chip) for task in tasks}
    seen: set[tuple] = set()
    order = sorted(places, key=lambda place: ([f.name for f in functions].index(place[0]), *place[1:]))
    options = [[replace(record, place=place) for record in records[places[place][0].digest]] for place in order]
    spans = spans_of(order, functions)
    for point in chip.points:
        refused: list[Sequence[Record]] = []
        for live, share in (*((True, 1.0),) * HOPES, *((False, share) for share in SHARES)):
            if stopped():
                return best
            chosen = select(options, goal, budget, chip, point, share, figures, live, refused, spans)
            if chosen is None:
                continue
            key = tuple((record.place, record.key) for record in chosen)
            found = None if key in seen else _carried_out(functions, places, chosen, goal, budget, chip)
            seen.add(key)
            refused.append(chosen)
            best = best if found is None else min(best, found, key=lambda network: _rank(network, goal, budget, chip))
            if found is not None and found.point is not None:
                break
    return best


def spans_of(order: Sequence[tuple[str, int, int]], functions: Sequence[Function]) -> list[tuple[int, int]]:
    """The parts as edges between numbered cuts of all functions, one after another: a path from the first cut to the
    last is a whole network."""
    offset, found = 0, {}
    for function in functions:
        found[function.name], offset = offset, offset + max(part.last for part in function.parts) + 1
    return [(found[name] + first, found[name] + last + 1) for name, first, last in order]


def _given(start: Sequence[Function], goal: Goal, budget: Budget, chip: Chip, how: str) -> Network:
    """A start as it is."""
    figures = default_figures(start, chip, budget)
    return Network(how, {f.name: default_of(f) for f in start}, figures, best_point(goal, figures, budget, chip))


def default_figures(functions: Sequence[Function], chip: Chip, budget: Budget) -> Figures:
    """Of the plans compilation would choose."""
    return of_network([f.program(chip) for f in functions], chip, budget)


def _rank(network: Network, goal: Goal, budget: Budget, chip: Chip) -> tuple:
    """What is compared: those within the budget first, then the cost; of those that are not, what they exceed it by."""
    if network.point is not None:
        return 0, cost(goal, network.figures, network.point)
    over = max(0, network.figures.memory_bytes - budget.memory_bytes)
    return 1 + (over > 0), over + min(
        max(budget.power_of(network.figures, chip, p), network.figures.peak_mw[p.name] if budget.peak_mw < inf else 0.0)
        for p in chip.points
    )


def _carried_out(
    functions: Sequence[Function], places: dict, chosen: Sequence[Record], goal: Goal, budget: Budget, chip: Chip
) -> Network | None:
    decided, programs = {}, []
    for function in functions:
        ways = [(places[record.place], record.key) for record in chosen if record.place[0] == function.name]
        decided[function.name] = joined(
            function, [(part, task.space, task.space.way(task.ways[key])) for (task, part), key in ways]
        )
        try:
            programs.append(carried_out(function, decided[function.name], chip)[1])
        except UnsupportedError:
            return None
    whole = of_network(programs, chip, budget)
    return Network("tuned", decided, whole, best_point(goal, whole, budget, chip))


def select(
    options: Sequence[Sequence[Record]],
    goal: Goal,
    budget: Budget,
    chip: Chip,
    point: Point,
    share: float = 1.0,
    about: Figures | None = None,
    live: bool = False,
    refused: Sequence[Sequence[Record]] = (),
    spans: Sequence[tuple[int, int]] | None = None,
) -> list[Record] | None:
    """One record of each list (with ``spans`` of those on a path): of those that meet the budget at the point, if
    figures add up, the selection of least cost; None if there is none.

    live : activations count as if addresses left no gaps. refused : selections of these records that are not to be made
    again. spans : per list which cuts it lies between, one list after another unless given. share : of memory and power
    that may be used.
    about : figures near which the product of energy and time is made linear; the solution replaces them.
    """
    found = None
    for _ in range(FIXPOINT if goal is Goal.EDP else 1):
        chosen = _solved(
            options,
            goal,
            budget,
            chip,
            point,
            share,
            about,
            live,
            refused,
            spans or [(i, i + 1) for i in range(len(options))],
        )
        if chosen is None or chosen == found:
            break
        found, about = chosen, together([record.figures for record in chosen])
    return found


def _solved(
    options,
    goal: Goal,
    budget: Budget,
    chip: Chip,
    point: Point,
    share: float,
    about: Figures | None,
    live: bool,
    refused: Sequence[Sequence[Record]],
    spans: Sequence[tuple[int, int]],
) -> list[Record] | None:
    model = cp_model.CpModel()
    taken = [[model.new_bool_var(f"{i}_{k}") for k in range(len(records))] for i, records in enumerate(options)]
    flat = [(x, record.figures) for xs, records in zip(taken, options) for x, record in zip(xs, records)]
    _on_a_path(model, taken, spans)
    peak = model.new_int_var(0, 1 << 40, "peak")
    for x, f in flat:
        model.add(peak >= (f.live_bytes if live else f.activation_bytes)).only_enforce_if(x)
    for chosen in refused:
        made = set(map(id, chosen))
        model.add_bool_or(
            [~x for xs, records in zip(taken, options) for x, record in zip(xs, records) if id(record) in made]
        )
    constants = sum(x * f.constant_bytes for x, f in flat)
    model.add(constants + peak <= int(share * budget.memory_bytes))
    nanojoules = sum(x * round(f.energy_pj[point.name] / 1000) for x, f in flat)
    cycles = sum(x * f.cycles for x, f in flat)
    if budget.frames_per_s:
        model.add(cycles <= int(point.clock_hz / budget.frames_per_s))
    if budget.average_mw < inf:
        _within_power(model, nanojoules, cycles, constants, budget, chip, point, share)
    model.minimize(_objective(goal, nanojoules, cycles, constants + peak, about, point))
    solver = cp_model.CpSolver()
    solver.parameters.catch_sigint_signal = (
        False  # else OR-tools leaves SIGINT at the system's default afterwards: Ctrl-C kills
    )
    solver.parameters.num_workers, solver.parameters.random_seed, solver.parameters.max_deterministic_time = (
        1,
        0,
        EFFORT,
    )
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    chosen = [
        (span, record)
        for span, xs, records in zip(spans, taken, options)
        for x, record in zip(xs, records)
        if solver.value(x)
    ]
    return [record for _, record in sorted(chosen, key=lambda pair: pair[0])]


def _on_a_path(model, taken: Sequence[Sequence], spans: Sequence[tuple[int, int]]) -> None:
    """From the first cut to the last one part follows the other, each taken one way."""
    last = max((end for _, end in spans), default=0)
    for cut in range(last + 1):
        begin = [x for xs, span in zip(taken, spans) for x in xs if span[0] == cut]
        end = [x for xs, span in zip(taken, spans) for x in xs if span[1] == cut]
        if cut == 0 or cut == last:
            model.add_exactly_one(begin if cut == 0 else end)
        elif begin or end:
            model.add(sum(begin) == sum(end))


def _within_power(model, nanojoules, cycles, constants, budget: Budget, chip: Chip, point: Point, share: float) -> None:
    """energy x rate + idle x (1 - rate x time) <= budget, in femtowatts; without a rate energy / time <= budget."""
    scale, fine, kept = 1e6, 1e6, 0
    if budget.frames_per_s:
        idle_mw, idle_share_per_cycle = budget.idle_mw(chip), budget.frames_per_s / point.clock_hz
        per_nj = budget.frames_per_s * 1000 * PJ_PER_S_IN_MW * scale
        per_cycle = idle_mw * idle_share_per_cycle * scale
        limit = (share * budget.average_mw - idle_mw) * scale
        if budget.gating:
            kept = _keeping(model, constants, cycles, budget, chip, idle_share_per_cycle, scale * fine)
    else:
        per_nj, per_cycle, limit = (
            1000 * PJ_PER_S_IN_MW * scale,
            share * budget.average_mw / point.clock_hz * scale,
            0.0,
        )
    model.add(round(per_nj * fine) * nanojoules - round(per_cycle * fine) * cycles + kept <= int(limit * fine))


def _keeping(model, constants, cycles, budget: Budget, chip: Chip, idle_share_per_cycle: float, scale: float):
    """What the banks of the constants take between inferences: so much a bank x (1 - rate x time)."""
    most_banks, most_cycles = banks_of(budget.memory_bytes, chip), int(1 / idle_share_per_cycle)
    banks, whole = model.new_int_var(0, most_banks, "banks"), model.new_int_var(0, most_cycles, "cycles")
    product = model.new_int_var(0, most_banks * most_cycles, "banks x cycles")
    model.add(banks * chip.bank_bytes >= constants)
    model.add(whole == cycles)
    model.add_multiplication_equality(product, [banks, whole])
    per_bank = chip.gating.bank_mw * chip.gating.retention * scale
    return round(per_bank) * banks - round(per_bank * idle_share_per_cycle) * product


def _objective(goal: Goal, nanojoules, cycles, memory, about: Figures | None, point: Point):
    if goal is Goal.LATENCY:
        return cycles * 1000 + nanojoules
    if goal is Goal.ENERGY:
        return nanojoules * 1000 + cycles
    if goal is Goal.MEMORY:
        return memory * 100000 + cycles
    total = max(1.0, about.energy_pj[point.name] / 1000)
    return round(1e9 / total) * nanojoules + round(1e9 / max(1, about.cycles)) * cycles
