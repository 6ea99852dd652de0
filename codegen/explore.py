"""What a network can be had for: the Pareto front of memory, cycles and energy, every point a plan that was lowered and
priced.

Memory is what a limit means: constants and activations together. Limits lie between the smallest plan found, whatever
it computes again, and whole layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from tvm_ergo.codegen.choices import POINTS
from tvm_ergo.codegen.compile import emit_program
from tvm_ergo.codegen.graph import Graph
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.plan import Plan, make_plan
from tvm_ergo.codegen.space.candidates import Candidates, grid
from tvm_ergo.codegen.space.plan import SpacePlan, macs_of
from tvm_ergo.codegen.space.search import Objective, variants
from tvm_ergo.codegen.space.search import candidates as chosen_from
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.chip import Point as OperatingPoint
from tvm_ergo.target.machine.trace import Trace
from tvm_ergo.target.program import Program
from tvm_ergo.target.sums import added

NO_LIMIT = 1 << 40
GAP = 1.01
"""A placement this much above its live bytes is looked at for longer."""
WHOLE, LEAST = "whole layers", "least memory"


@dataclass(frozen=True)
class Point:
    """One plan. how : "whole layers", "least memory", or the objective it was chosen for. activation_bytes : reached,
    the frame (or its rows) included. cycles, energy_pj : of one inference, from the Program's trace, leakage included.
    mac_overhead : 1.0 where nothing is computed twice.
    programs : one a chip function. compressed : tensors that wait compressed. weights : how constant weights stand in
    memory."""

    how: str
    constant_bytes: int
    activation_bytes: int
    cycles: int
    energy_pj: float
    macs: int
    mac_overhead: float
    programs: tuple[Program, ...] = field(repr=False, compare=False)
    compressed: int = 0
    weights: str = "plain"

    @property
    def memory_bytes(self) -> int:
        """Of the unified memory: constants and activations."""
        return self.constant_bytes + self.activation_bytes

    @property
    def figures(self) -> tuple[int, int, float]:
        """What is to be small."""
        return self.memory_bytes, self.cycles, self.energy_pj


def pareto(
    graph: Graph,
    chip: Chip,
    options: Options = Options(),
    *,
    points: int = POINTS,
    at: OperatingPoint | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Point]:
    """The plans of which no other is better in memory, cycles and energy, by rising bytes.

    From the smallest plan found to whole layers, ``points`` limits a cost between them, whatever memory the chip has.
    at : operating point for the energy. progress : ``progress(done, total)``. Errors: UnsupportedError from the
    lowering rules."""
    total, done = 2 * points + 3, 0
    found: list[Point] = []
    for how, plan in candidates(graph, chip, options, points):
        if plan is not None:
            found.append(priced(how, plan, graph.macs(), chip, at))
        done += 1
        if progress:
            progress(done, total)
    return undominated(found)


def candidates(
    graph: Graph, chip: Chip, options: Options, points: int
) -> Iterator[tuple[str, Plan | SpacePlan | None]]:
    """``(how, plan)``; None in place of one that was there already. All limits share one search."""
    whole = make_plan(graph, NO_LIMIT, options)
    yield WHOLE, whole
    if not graph.nodes:
        return
    searches = list(variants(graph, chip, options))
    low = min(whole.activation_bytes, *(paths.smallest().peak_bytes for paths in searches))
    limits = list(grid(whole.activation_bytes, low))[::-1] or [low]
    some = tuple(
        dict.fromkeys(limits[round(number * (len(limits) - 1) / max(points - 1, 1))] for number in range(points))
    )
    fronts = [chosen_from(paths, some) for paths in searches]
    for smallest in (
        Candidates.smallest,
        Candidates.least,
    ):  # within the multiply-accumulates that the objective memory allows, and whatever they are
        yield LEAST, min((smallest(front) for front in fronts), key=lambda plan: plan.memory_bytes)
    seen: set[tuple] = set()
    for objective in (Objective.LATENCY, Objective.ENERGY):
        for limit in some:
            found = [(path, front) for front in fronts if (path := front.cheapest(limit, objective.cost)) is not None]
            path, front = min(found, key=lambda f: getattr(f[0], objective.cost), default=(None, None))
            if path is None or path.key in seen:
                yield "", None
                continue
            seen.add(path.key)
            plan = front.plan(path)
            yield (
                objective.value,
                front.plan(path, tight=True) if plan.activation_bytes > GAP * plan.live_bytes else plan,
            )


def priced(
    how: str, plan: Plan | SpacePlan, useful_macs: int, chip: Chip, at: OperatingPoint | str | None, compressed: int = 0
) -> Point:
    """A plan, lowered. useful_macs : multiply-accumulates of the network, for the overhead."""
    program = emit_program(plan, chip)
    trace = Trace(program, chip, at)
    macs = macs_of(plan) if isinstance(plan, SpacePlan) else plan.graph.macs()
    return Point(
        how,
        plan.constant_bytes,
        plan.activation_bytes,
        trace.cycles,
        trace.energy_pj,
        macs,
        macs / max(useful_macs, 1),
        (program,),
        compressed,
    )


def undominated(points: Iterable[Point]) -> list[Point]:
    """Those that no other equals or beats in all figures, by rising bytes; of equal ones the first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: p.figures):  # whatever dominates a point sorts before it
        if not any(all(a <= b for a, b in zip(other.figures, point.figures)) for other in kept):
            kept.append(point)
    return kept


def labelled(points: Sequence[Point]) -> list[Point]:
    """A front whose labels are true of it: the least memory is that of its first point, others that were looked for as
    such are plans for the objective memory."""
    found = [replace(p, how=p.how.replace(LEAST, Objective.MEMORY.value)) for p in points]
    if found and WHOLE not in found[0].how:
        found[0] = replace(found[0], how=LEAST)
    return found


def combined(fronts: Sequence[Sequence[Point]]) -> list[Point]:
    """The front of a network whose chip functions, each with its front, run one after another in one activation area
    above all constants."""
    if len(fronts) == 1:
        return list(fronts[0])
    found = []
    for limit in sorted({point.activation_bytes for front in fronts for point in front}):
        fitting = [[point for point in front if point.activation_bytes <= limit] for front in fronts]
        if all(fitting):
            for figure in ("memory_bytes", "cycles", "energy_pj"):
                found.append(_together([min(front, key=lambda p: getattr(p, figure)) for front in fitting]))
    return undominated(found)


def _together(parts: Sequence[Point]) -> Point:
    useful = sum(part.macs / part.mac_overhead for part in parts)
    macs = sum(part.macs for part in parts)
    return Point(
        "; ".join(dict.fromkeys(part.how for part in parts)),
        sum(part.constant_bytes for part in parts),
        max(part.activation_bytes for part in parts),
        sum(part.cycles for part in parts),
        added(part.energy_pj for part in parts),
        macs,
        macs / max(useful, 1),
        tuple(program for part in parts for program in part.programs),
        sum(part.compressed for part in parts),
        parts[0].weights,
    )
