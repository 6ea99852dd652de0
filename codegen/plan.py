"""The plan: what runs in which order over which boxes, and where everything lies. A plain, printable value.

Time is counted in steps. A buffer lives from the first step that writes any tensor in it (inputs: from 0) to the last
that reads one (outputs: to the end). Constants live for the whole program and lie densely below the activations."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property

from tvm_ergo.codegen.graph import Graph, Node, Region
from tvm_ergo.codegen.memory import Buffer, Problem, Solution
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.order import Ordering, best_order, reordered
from tvm_ergo.codegen.states import solved, states_of
from tvm_ergo.codegen.strided import View, elements
from tvm_ergo.codegen.validate import validate
from tvm_ergo.codegen.views import NodeTime, resolve
from tvm_ergo.codegen.weights.panels import Panels
from tvm_ergo.codegen.weights.sparse import SparseWeights
from tvm_ergo.target.errors import ErgoError, OutOfMemoryError
from tvm_ergo.target.isa import Operand

KIB = 1024
NOTHING_SHARED = Options(
    view_slice=False, view_transpose=False, concat_in_place=False, pad_in_place=False, in_place=False
)


@dataclass(frozen=True)
class Step:
    """One node over one box of its output."""

    node: Node
    region: Region


@dataclass(frozen=True)
class Life:
    """A line of the memory map: ``size`` bytes at ``addr`` belong to a root's buffer during the steps ``[lower,
    upper)``."""

    root: int
    addr: int
    size: int
    lower: int
    upper: int


@dataclass(frozen=True, eq=False)
class Plan:
    """Steps in order, each tensor's view, and the solved memory problem of the activations.

    problem.buffers' ids are the roots of views; offsets count from ``constant_bytes``. constants : address of each used
    constant.
    options : the ones it was made with. ordering : what the search for an order found, None where there was none.
    bound_bytes : most live bytes if no tensor shared another's memory except by reshape (what other planners call the
    bound)."""

    graph: Graph
    steps: tuple[Step, ...]
    views: tuple[View, ...]
    problem: Problem
    solution: Solution
    constants: dict[int, int]
    constant_bytes: int
    bound_bytes: int
    options: Options
    ordering: Ordering | None = None

    @cached_property
    def addresses(self) -> dict[int, int]:
        """Byte address of every root buffer."""
        found = dict(self.constants)
        for buffer, offset in zip(self.problem.buffers, self.solution.offsets, strict=True):
            found[buffer.id] = self.constant_bytes + offset
        return found

    @property
    def activation_bytes(self) -> int:
        """What the allocator reached, input frame included."""
        return self.solution.peak(self.problem)

    @property
    def memory_bytes(self) -> int:
        return self.constant_bytes + self.activation_bytes

    @cached_property
    def live_bytes(self) -> int:
        """Most bytes live at one time: the least that any placement of this plan needs."""
        return self.problem.lower_bound()

    def placed(self, t: int, time: int = 0) -> View:
        """A tensor's view in the whole memory: ``offset`` is an address, the same at every step ``time``."""
        view = self.views[t]
        return view.moved(-1, self.addresses[view.root])

    @cached_property
    def panels(self) -> Panels:
        """The coded constants."""
        return Panels(self.graph, self.steps)

    def panel(self, t: int, box: Region) -> Operand | None:
        """A box of coded weights as an operand; None for a tensor that is not coded."""
        return self.panels.operand(t, box, self.constants.get(t, 0))

    def sparse(self, t: int, box: Region) -> tuple[Operand, SparseWeights] | None:
        """A box of weights that the sparse engine computes on; None for any others."""
        return self.panels.sparse(t, box, self.constants.get(t, 0))

    def is_whole(self, t: int, time: int) -> bool:
        """Whether all of a tensor can be read just after the step ``time`` that completes it: here always."""
        return True

    def lives(self) -> list[Life]:
        """The memory map of the activations."""
        return [Life(b.id, self.addresses[b.id], b.size, b.lower, b.upper) for b in self.problem.buffers]

    def __str__(self) -> str:
        graph = self.graph
        lines = [
            f"plan of {graph.name}: {self.constant_bytes} constant bytes, {self.activation_bytes} activation bytes"
        ]
        for i, step in enumerate(self.steps):
            t = step.node.outputs[0]
            box = "x".join(f"{b}:{e}" for b, e in step.region)
            lines.append(
                f"{i:4d} {type(step.node.op).__name__:16s} {graph.tensors[t].name} [{box}] -> "
                f"{_show(self.views[t], graph)}"
            )
        for buffer, offset in zip(self.problem.buffers, self.solution.offsets, strict=True):
            lines.append(
                f"     {graph.tensors[buffer.id].name}: {buffer.size} bytes at {self.constant_bytes + offset}, steps "
                f"[{buffer.lower}, {buffer.upper})"
            )
        return "\n".join(lines)


def _show(view: View, graph: Graph) -> str:
    return f"{graph.tensors[view.root].name}+{view.offset} strides {list(view.strides)}"


def whole_steps(graph: Graph) -> tuple[Step, ...]:
    """Each node once, over its whole output, in the given order."""
    return tuple(Step(node, graph.tensors[node.outputs[0]].region) for node in graph.nodes)


def make_plan(
    graph: Graph, memory_bytes: int, options: Options = Options(), steps: Sequence[Step] | None = None
) -> Plan:
    """Decides views and places; the placement is judged by the independent validator.

    Without ``steps`` and with ``options.reorder`` the nodes run in the order found by :mod:`order` if its plan needs
    less memory. The options are kept where their plan fits; else concats and pads are no longer written in place where
    that needs less.

    steps : whole nodes in the given order unless given; they must cover every node's output, producers first.
    Errors: OutOfMemoryError naming peak, limit and the tensors alive at the peak.
    """
    search = steps is None and options.reorder
    steps = whole_steps(graph) if steps is None else tuple(steps)
    times = node_times(graph, steps)
    bound = memory_problem(graph, steps, resolve(graph, NOTHING_SHARED, times), 1).lower_bound()
    smallest: Plan | None = None
    for variant in _variants(options):
        plan = _solved(graph, steps, times, variant, bound)
        if search:
            plan = _better_order(plan)
        if plan.memory_bytes <= memory_bytes:
            return plan
        if smallest is None or plan.memory_bytes < smallest.memory_bytes:
            smallest = plan
    raise _too_large(smallest, memory_bytes)


def _variants(options: Options) -> list[Options]:
    """The options, then those with less written in place: a member's early place in a large concat can cost more than
    its copy."""
    less = [("concat_in_place",), ("pad_in_place",), ("concat_in_place", "pad_in_place")]
    return list(dict.fromkeys([options, *(replace(options, **dict.fromkeys(names, False)) for names in less)]))


def _solved(
    graph: Graph, steps: tuple[Step, ...], times: Sequence[NodeTime], options: Options, bound_bytes: int
) -> Plan:
    """A plan under one set of options, whatever memory it needs. Errors: ErgoError when the validator refuses the
    placement."""
    views = resolve(graph, options, times)
    constants, constant_bytes = place_constants(graph, views, options.alignment_bytes, steps)
    problem = memory_problem(graph, steps, views, options.alignment_bytes)
    solution = solved(problem, list(states_of(graph, views)))
    violation = validate(problem, solution)
    if violation is not None:
        raise ErgoError(
            f"the memory planner made an invalid plan: {violation}",
            where=graph.name,
            remedy="this is a bug: please report it",
        )
    return Plan(graph, steps, views, problem, solution, constants, constant_bytes, bound_bytes, options)


def _better_order(plan: Plan) -> Plan:
    """The plan with the search's bound, or that of the search's order if it needs less memory."""
    ordering = best_order(plan.graph, plan.options)
    if ordering.order != tuple(range(len(plan.graph.nodes))) and ordering.model_bytes < plan.activation_bytes:
        graph = reordered(plan.graph, ordering.order)
        steps = whole_steps(graph)
        other = _solved(graph, steps, node_times(graph, steps), plan.options, plan.bound_bytes)
        if other.memory_bytes < plan.memory_bytes:
            plan = other
    return replace(plan, ordering=ordering)


def node_times(graph: Graph, steps: Sequence[Step], optional: Set[int] = frozenset()) -> list[NodeTime]:
    """When each node runs. Errors: ErgoError when a node never does, but for ``optional`` ones, which then count as
    behind the last step."""
    at: dict[int, list[int]] = {node.id: [] for node in graph.nodes}
    computed = dict.fromkeys(at, 0)
    for time, step in enumerate(steps):
        at[step.node.id].append(time)
        computed[step.node.id] += elements(step.region)
    missing = [node.name for node in graph.nodes if not at[node.id] and node.id not in optional]
    if missing:
        raise ErgoError("a plan leaves nodes out", where=", ".join(missing), remedy="this is a bug: please report it")
    at = {node: times or [len(steps)] for node, times in at.items()}
    return [
        NodeTime(at[n.id][0], at[n.id][-1], computed[n.id] <= elements(graph.tensors[n.outputs[0]].region))
        for n in graph.nodes
    ]


def place_constants(
    graph: Graph, views: Sequence[View], alignment_bytes: int, steps: Sequence | None = None
) -> tuple[dict[int, int], int]:
    """``(address of each used constant's buffer, bytes of them all)``; constants of equal bytes share one place. steps
    : they decide into which panels coded constants are divided; one each without."""
    panels = Panels(graph, steps)
    used = {views[t].root for t in (*(t for n in graph.nodes for t in (*n.inputs, *n.constants)), *graph.outputs)}
    addresses: dict[int, int] = {}
    known: dict[bytes, int] = {}
    top = 0
    for tensor in graph.tensors:
        if tensor.data is None or tensor.id not in used:
            continue
        content = panels.content(tensor.id) or tensor.data.tobytes()
        if content not in known:
            known[content] = -(-top // 4) * 4  # the widest element type
            top = known[content] + len(content)
        addresses[tensor.id] = known[content]
    return addresses, -(-top // alignment_bytes) * alignment_bytes


def memory_problem(graph: Graph, steps: Sequence[Step], views: Sequence[View], alignment_bytes: int) -> Problem:
    """One buffer per root that is no constant; times are step numbers."""
    life: dict[int, list[int]] = {}

    def used(t: int, time: int) -> None:
        span = life.setdefault(views[t].root, [time, time + 1])
        span[0], span[1] = min(span[0], time), max(span[1], time + 1)

    for t in graph.inputs:
        if t not in graph.streams:
            used(t, 0)
    for time, step in enumerate(steps):
        for t in (*step.node.inputs, *step.node.outputs):
            if t not in graph.streams:
                used(t, time)
    for t in graph.outputs:
        used(t, max(len(steps) - 1, 0))
    return Problem(
        tuple(
            Buffer(
                root, graph.tensors[root].size_bytes, lower, upper, max(alignment_bytes, graph.tensors[root].itemsize)
            )
            for root, (lower, upper) in sorted(life.items())
            if graph.tensors[root].data is None
        )
    )


MOST_NAMES = 3
"""Tensors that a message names."""


def _too_large(plan: Plan, memory_bytes: int) -> OutOfMemoryError:
    graph, time, peak = plan.graph, plan.problem.peak_time(), plan.memory_bytes
    at = plan.steps[time].node.name if time < len(plan.steps) else "the end"
    held = sorted(((b.size, graph.tensors[b.id].name) for b in plan.problem.alive_at(time)), reverse=True)
    alive = [f"{name} {size} bytes" for size, name in held[:MOST_NAMES]]
    alive += [f"{len(held) - MOST_NAMES} more"] if len(held) > MOST_NAMES else []
    return OutOfMemoryError(
        f"{graph.name} needs a peak of {peak} bytes ({peak / KIB:.1f} KiB), {peak - memory_bytes} more than the "
        f"memory has",
        where=f"step {time} ({at}), in use there: {', '.join(alive)}",
        required=f"{plan.constant_bytes} constant bytes + {plan.activation_bytes} activation bytes",
        available=f"{memory_bytes} bytes ({memory_bytes / KIB:.1f} KiB)",
        remedy=f"more memory: --memory {peak} (memory={peak}) is the least that was found to do; "
        + _what_to_shrink(plan, memory_bytes),
    )


def _what_to_shrink(plan: Plan, memory_bytes: int) -> str:
    """Of the two parts the larger one, and any that is too large by itself."""
    fewer, smaller = "a network with fewer weights", "a smaller input or narrower layers there"
    if plan.constant_bytes > memory_bytes:
        both = plan.activation_bytes > memory_bytes
        return f"constants alone exceed the memory: {fewer}" + (f"; so do activations: {smaller}" if both else "")
    if plan.constant_bytes > plan.activation_bytes:
        return f"constants are the larger part: {fewer}"
    return f"activations are the larger part: {smaller}"
