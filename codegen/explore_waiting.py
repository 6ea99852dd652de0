"""The points of a front below the smallest plain plan: tensors wait compressed, as compiling does it with each of some
limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tvm import relax

from tvm_ergo.codegen.compression import Compressed, TensorStatistics, compress
from tvm_ergo.codegen.explore import LEAST, NO_LIMIT, Point, priced, undominated
from tvm_ergo.codegen.space import Objective
from tvm_ergo.codegen.stream import graph_of
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.chip import Point as OperatingPoint

LOWER = (0.95, 0.9, 0.85)
"""Limits below what the objective memory reaches, as shares of that: it computes no more than so much again, a limit
may."""


def waiting_front(
    func: relax.Function,
    chip: Chip,
    statistics: Mapping[str, TensorStatistics],
    below_bytes: int,
    *,
    points: int,
    lossless: bool = False,
    at: OperatingPoint | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Point]:
    """Plans in which tensors wait compressed, by rising memory; none where compression gains nothing.

    The least memory, limits below it as long as they are met, and ``points`` limits from there to ``below_bytes``, the
    memory of the smallest plan in which nothing is compressed: from there on nothing needs to be. statistics : of the
    tensors, by name. at, progress : as in `explore.pareto`."""
    useful, total, done = graph_of(func).macs(), 1 + len(LOWER) + points, 0
    found: list[Point] = []

    def tried(limit_bytes: int, objective: Objective) -> Compressed | None:
        nonlocal done
        best, _ = compress(func, chip, limit_bytes, objective, statistics, lossless=lossless)
        if best is not None:
            how = LEAST if objective is Objective.MEMORY else objective.value
            found.append(priced(how, best.plan, useful, chip, at, len(best.decisions)))
        done += 1
        if progress:
            progress(done, total)
        return best

    least = tried(NO_LIMIT, Objective.MEMORY)
    low = min(below_bytes, least.plan.memory_bytes) if least is not None else below_bytes
    for share in LOWER:
        if tried(int(share * low), Objective.LATENCY) is None:
            break
    for number in range(points if found else 0):
        limit = int(low * (max(below_bytes - 1, 1) / low) ** ((number + 1) / points))
        if low < limit < below_bytes:
            tried(limit, Objective.LATENCY)
    if progress:
        progress(total, total)
    return undominated(found)
