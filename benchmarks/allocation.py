"""MiniMalloc's eleven instances: the live-bytes bound, what the heuristics reach, what the exact search reaches, and
seconds."""

from __future__ import annotations

import time

from benchmarks.common import parse, parser, show
from tvm_ergo.codegen.memory import Problem, allocate, exact
from tvm_ergo.codegen.validate import validate
from tvm_ergo.evaluation.datasets import shared_root

CAPACITY_BYTES = 1_048_576
WORK_LIMIT = 20_000_000_000
"""A limit of work, not time: the same placements on every machine."""


def measure(name: str) -> dict:
    problem = Problem.from_csv((shared_root() / "data" / "minimalloc" / f"{name}.{CAPACITY_BYTES}.csv").read_text())
    heuristic = allocate(problem, work_limit=0)
    start = time.perf_counter()
    found = exact.place_within(problem, CAPACITY_BYTES, WORK_LIMIT)
    seconds = time.perf_counter() - start
    fits = found.solution is not None and validate(problem, found.solution, CAPACITY_BYTES) is None
    return {
        "instance": name,
        "buffers": len(problem.buffers),
        "lower bound": heuristic.bound_bytes,
        "heuristics": heuristic.peak_bytes,
        "reached": found.solution.peak(problem) if found.solution else None,
        "fits": "yes" if fits else "no",
        "seconds": seconds,
        "million steps": found.work / 1e6,
    }


def main(argv=None) -> None:
    arguments = parse(parser(__doc__), argv)
    show(
        f"placement in {CAPACITY_BYTES:,} bytes",
        [measure(name) for name in arguments.nets or "ABCDEFGHIJK"],
        arguments.json,
    )


if __name__ == "__main__":
    main()
