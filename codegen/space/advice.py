"""What the error of an infeasible limit says: the best peak reached, what no plan goes below, which layers hold it, and
what would help by how much."""

from __future__ import annotations

from math import sqrt

from tvm_ergo.codegen.graph import Graph, Tensor
from tvm_ergo.codegen.space.bound import least_possible_bytes
from tvm_ergo.codegen.space.plan import SpacePlan
from tvm_ergo.codegen.space.rolling import Shift
from tvm_ergo.codegen.weights.coding import stream
from tvm_ergo.target.errors import OutOfMemoryError

KIB = 1024
COMPRESS = "`tvm-ergo compress` makes one of the float network"
MOST_NAMES = 3
MOST_SHARE = 0.97
LEAST_SHARE = 0.3
"""Smaller pictures than this are not advised: it is no longer the same task."""


def too_large(plan: SpacePlan, memory_bytes: int) -> OutOfMemoryError:
    """The smallest plan found needs more than there is."""
    graph, peak, least = plan.graph, plan.memory_bytes, least_possible_bytes(plan.graph)
    time = int(plan.rolled.live_bytes().argmax())
    held = (plan.rolled.high - plan.rolled.low)[:, time]
    alive = sorted(
        ((int(n), graph.tensors[root].name) for root, n in zip(plan.rolled.roots, held, strict=True) if n > 0),
        reverse=True,
    )
    step = plan.steps[min(time, len(plan.steps) - 1)]
    at = graph.tensors[step.root].name if isinstance(step, Shift) else step.node.op.name or step.node.name
    constants = (
        f"; largest constants: {_listed(_constants_by_layer(graph))}"
        if plan.constant_bytes > min(plan.activation_bytes, memory_bytes)
        else ""
    )
    return OutOfMemoryError(
        f"{graph.name} needs a peak of {peak} bytes ({peak / KIB:.1f} KiB), {peak - memory_bytes} more than the "
        "memory has, even with layers in rows and tiles",
        where=f"step {time} ({at}), in use there: {_listed(alive)}" + constants,
        required=f"{plan.constant_bytes} constant bytes + {plan.activation_bytes} activation bytes "
        f"(whole layers: {plan.bound_bytes}; none goes below {least.size_bytes}: {least.reason})",
        available=f"{memory_bytes} bytes ({memory_bytes / KIB:.1f} KiB) for constants, frame and activations together",
        remedy="; ".join(
            [
                f"more memory: --memory {peak} (memory={peak}) is the least that was found to do",
                *_advice(plan, memory_bytes),
            ]
        ),
    )


def _advice(plan: SpacePlan, memory_bytes: int) -> list[str]:
    room = memory_bytes - plan.constant_bytes
    if room < 0:
        advice = [f"constants alone exceed the memory: a smaller network ({COMPRESS})"]
    elif plan.constant_bytes > plan.activation_bytes:
        advice = [f"constants are the larger part: a network with fewer weights ({COMPRESS})"]
    else:
        advice = ["activations are the larger part: a smaller input or narrower layers there"]
    if room > 0 and any(
        len(shape) == 4 and max(shape[1:3]) > 1 for shape in (plan.graph.tensors[t].shape for t in plan.graph.inputs)
    ):
        share = (
            room / plan.activation_bytes if plan.graph.streams else sqrt(room / plan.activation_bytes)
        )  # rows grow with the width, frames with both
        if LEAST_SHARE <= share < MOST_SHARE:
            advice.append(f"a picture of about {100 * share:.0f} % of the width and height would do (estimated)")
    return advice


def _constants_by_layer(graph: Graph) -> list[tuple[int, str]]:
    sizes: dict[str, int] = {}
    for node in graph.nodes:
        layer = node.op.name or node.name
        sizes[layer] = sizes.get(layer, 0) + sum(
            _stored_bytes(graph.tensors[t]) for t in set(node.inputs) if graph.tensors[t].data is not None
        )
    return sorted(((size, layer) for layer, size in sizes.items() if size), reverse=True)


def _stored_bytes(tensor: Tensor) -> int:
    """Of a constant in memory, coded or not."""
    return tensor.size_bytes if tensor.coding is None else len(stream(tensor, tensor.region).data)


def _listed(sizes: list[tuple[int, str]]) -> str:
    more = [f"{len(sizes) - MOST_NAMES} more"] if len(sizes) > MOST_NAMES else []
    return ", ".join([f"{name} {size} bytes" for size, name in sizes[:MOST_NAMES]] + more)
