"""The order of operators: live peak of the given order and of the one found, the bound that no order is below, seconds
to search."""

from __future__ import annotations

import time

from benchmarks.common import parse, parser, show
from tvm_ergo import evaluation
from tvm_ergo.codegen import compile as compiler
from tvm_ergo.codegen.graph import Graph
from tvm_ergo.codegen.order import best_order, reordered
from tvm_ergo.codegen.plan import make_plan, memory_problem, whole_steps
from tvm_ergo.codegen.views import resolve
from tvm_ergo.evaluation.nets import TFLITE, compile_net

KIB = 1024


def graphs_of(name: str) -> list[Graph]:
    """The graphs that the compiler plans for a net, in their given order."""
    seen: list[Graph] = []

    def noting(graph: Graph, *arguments, **options):
        seen.append(graph)
        return make_plan(graph, *arguments, **options)

    compiler.make_plan = noting
    try:
        compile_net(name, calibration_samples=2)  # what is calibrated does not change the plan
    finally:
        compiler.make_plan = make_plan
    return seen


def live_bytes(graph: Graph, options) -> int:
    return memory_problem(graph, whole_steps(graph), resolve(graph, options), options.alignment_bytes).lower_bound()


def measure(name: str) -> list[dict]:
    rows = []
    for graph in graphs_of(name):
        plan = make_plan(graph, 1 << 40)
        start = time.perf_counter()
        found = best_order(graph, plan.options)
        seconds = time.perf_counter() - start
        live = plan.problem.lower_bound()
        rows.append(
            {
                "net": name,
                "program": graph.name,
                "nodes": len(graph.nodes),
                "given KiB": live_bytes(graph, plan.options) / KIB,
                "searched KiB": live_bytes(reordered(graph, found.order), plan.options) / KIB,
                "used KiB": live / KIB,
                "allocated KiB": plan.activation_bytes / KIB,
                "bound KiB": found.bound_bytes / KIB,
                "result": found.quality(live),
                "sets": found.states,
                "seconds": seconds,
            }
        )
    return rows


def main(argv=None) -> None:
    arguments = parse(parser(__doc__), argv)
    names = arguments.nets or [*TFLITE, *evaluation.TASKS]
    show(
        "order of operators (live peak, input frame included)",
        [row for name in names for row in measure(name)],
        arguments.json,
    )


if __name__ == "__main__":
    main()
