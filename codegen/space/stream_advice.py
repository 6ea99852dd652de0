"""What the error of an infeasible limit says of streaming the frame, by trying it."""

from __future__ import annotations

from tvm_ergo.codegen.graph import Graph
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.plan import place_constants
from tvm_ergo.codegen.space.search import Objective, best_plan
from tvm_ergo.codegen.stream import streamed
from tvm_ergo.codegen.views import resolve
from tvm_ergo.target.chip import Chip


def stream_advice(graph: Graph, chip: Chip, options: Options, memory_bytes: int) -> str | None:
    """None where there is nothing to stream, or constants alone exceed the memory. Takes as long as planning does."""
    stream = streamed(graph)
    if (
        stream.streams == graph.streams
        or place_constants(stream, resolve(stream, options), options.alignment_bytes)[1] >= memory_bytes
    ):
        return None
    plan = best_plan(stream, chip, memory_bytes, options, Objective.LATENCY)
    needed = plan.memory_bytes
    if needed <= memory_bytes:
        return (
            f"the frame streamed row by row (stream=True, --stream) fits, in {needed} bytes ({plan.activation_bytes} "
            f"of them activations)"
        )
    return (
        f"the frame streamed row by row (stream=True, --stream) needs {needed} bytes ({plan.activation_bytes} of them "
        f"activations), still {needed - memory_bytes} too many"
    )
