"""From a chip function to a Program: graph, plan, instructions, waits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from tvm import relax

from tvm_ergo.codegen.fuse import fuse
from tvm_ergo.codegen.graph import Graph
from tvm_ergo.codegen.graph import Node as GraphNode
from tvm_ergo.codegen.lower import Emitter
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.plan import Plan
from tvm_ergo.codegen.planned import remade
from tvm_ergo.codegen.schedule import schedule
from tvm_ergo.codegen.space import Objective, SpacePlan, choose
from tvm_ergo.codegen.space.bound import least_possible_bytes
from tvm_ergo.codegen.space.paths import Paths
from tvm_ergo.codegen.space.rolling import Shift
from tvm_ergo.codegen.states import states_of
from tvm_ergo.codegen.stream import graph_of, streamed, symbol_of
from tvm_ergo.codegen.weights.report import rows_of
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.errors import DatabaseError
from tvm_ergo.target.isa import DType, Halt, Instruction, contiguous
from tvm_ergo.target.program import Buffer, BufferKind, Node, Port, Program

PLAN = "ergo_plan"
"""Attribute of a chip function whose plan is decided already: JSON as `planned.described` gives it."""
COMPRESSION = "ergo_compression"
"""Attribute of a chip function in which tensors wait compressed: JSON of the rows that reports show, kept in
``Program.meta["compression"]``."""


def compile_function(
    func: relax.Function,
    chip: Chip,
    *,
    memory_bytes: int | None = None,
    options: Options = Options(),
    name: str | None = None,
    objective: Objective = Objective.LATENCY,
    stream: bool = False,
) -> Program:
    """The Program of a Relax function of ``relax.ergo.*`` calls (a region made by Partition, or any other).

    memory_bytes : the unified memory to plan for, the chip's unless given. name : for messages and meta, the function's
    global_symbol unless given. Inputs are named after the parameters, outputs after their variables.
    objective : LATENCY runs layers whole where they fit and in bands of rows where they do not; MEMORY takes the least
    activation memory.
    stream : pictures are received row by row as they are needed (`codegen.stream`), which a function's attribute STREAM
    asks for as well. Errors: ModelError (not a chip function), UnsupportedError, OutOfMemoryError."""
    name = symbol_of(func) if name is None else name
    attrs = {} if func.attrs is None else func.attrs
    decided = json.loads(str(attrs[PLAN])) if PLAN in attrs else None
    program = compile_graph(
        graph_of(func, name),
        chip,
        memory_bytes=memory_bytes,
        options=options,
        objective=objective,
        stream=stream,
        decided=decided,
    )
    if COMPRESSION not in attrs:
        return program
    return replace(program, meta={**program.meta, "compression": json.loads(str(func.attrs[COMPRESSION]))})


def compile_graph(
    graph: Graph,
    chip: Chip,
    *,
    memory_bytes: int | None = None,
    options: Options = Options(),
    objective: Objective = Objective.LATENCY,
    stream: bool = False,
    decided: dict | None = None,
) -> Program:
    """As :func:`compile_function`, from a Graph. decided : the plan to carry out (`planned.described`), if there is one
    that fits."""
    graph = streamed(graph) if stream else graph
    if options.fuse_coding:
        graph = fuse(graph)
    memory = chip.memory_bytes if memory_bytes is None else memory_bytes
    plan = None if decided is None else _carried_out(graph, decided, chip, memory, options)
    return emit_program(plan or choose(graph, chip, memory, options, objective), chip, memory)


def _carried_out(
    graph: Graph, decided: dict, chip: Chip, memory_bytes: int, options: Options
) -> Plan | SpacePlan | None:
    """The plan that was decided elsewhere, tuning results among that, which anybody may have written; None where it
    does not fit.

    Errors: DatabaseError for what is no plan.
    """
    try:
        plan = remade(graph, decided, options)
        if plan is None or plan.memory_bytes > memory_bytes:
            return None
        return (
            replace(plan, subproblems=Paths(plan.graph, chip, options).parts_of(plan, decided["ways"]))
            if isinstance(plan, SpacePlan)
            else plan
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, AssertionError, ArithmeticError) as error:
        raise DatabaseError(
            "a plan that was decided before cannot be carried out",
            available=f"{type(error).__name__}: {error}"[:200],
            remedy="tune again, or compile without tuning results",
        ) from error


def instructions_of(plan: Plan | SpacePlan) -> tuple[list[Instruction], list[int], dict[int, tuple[int, int]]]:
    """The instructions that carry out a plan, HALT last; the first one of each step; and per tensor the step and the
    number of instructions after which it is complete. Errors: UnsupportedError from the lowering rules."""
    emitter = Emitter(plan)
    starts: list[int] = []
    written: dict[int, tuple[int, int]] = {}
    for time, step in enumerate(plan.steps):
        starts.append(len(emitter.instructions))
        if isinstance(step, Shift):
            emitter.shift(
                step.root, [(r.begin, r.count, r.pitch, r.length) for r in step.runs], step.new - step.old, time
            )
            continue
        emitter.lower(step.node, step.region, time)
        written.update(dict.fromkeys(step.node.outputs, (time, len(emitter.instructions))))
    starts.append(len(emitter.instructions))
    return schedule([*emitter.instructions, Halt()], plan.constant_bytes), starts, written


def emit_program(plan: Plan | SpacePlan, chip: Chip, memory_bytes: int | None = None) -> Program:
    """The Program that carries out a plan. Errors: UnsupportedError from the lowering rules."""
    instructions, starts, written = instructions_of(plan)
    graph = plan.graph
    return Program(
        chip_name=chip.name,
        instructions=instructions,
        data=_constant_data(plan),
        inputs=_ports(plan, graph.inputs),
        outputs=_ports(plan, graph.outputs),
        nodes=[Node(n.name, n.op.op_name, n.op.name or n.name) for n in graph.nodes],
        buffers=_buffers(plan, starts, len(instructions)),
        memory_bytes=plan.memory_bytes if memory_bytes is None else memory_bytes,
        meta=_meta(plan, written),
    )


def _ports(plan: Plan, tensors: Sequence[int]) -> list[Port]:
    """Ports named after the tensors; a name that occurs again gets a number."""
    ports: list[Port] = []
    for t in tensors:
        name = base = plan.graph.tensors[t].name
        while name in (port.name for port in ports):
            name = f"{base}_{len(ports)}"
        if t in plan.graph.streams:
            ports.append(Port(name, contiguous(0, _dtype(plan, t), plan.graph.tensors[t].shape), streamed=True))
        else:
            ports.append(Port(name, plan.placed(t).operand(_dtype(plan, t))))
    return ports


def _dtype(plan: Plan, t: int) -> DType:
    return DType.of(plan.graph.tensors[t].dtype)


def _constant_data(plan: Plan) -> list[tuple[int, bytes]]:
    """Each used constant once, by address."""
    sections = {
        addr: plan.panels.content(t) or plan.graph.tensors[t].data.tobytes() for t, addr in plan.constants.items()
    }
    return sorted(sections.items())


def _buffers(plan: Plan, starts: list[int], end: int) -> list[Buffer]:
    """The memory map with lifetimes in instructions ``[first, last)``."""
    graph, found = plan.graph, []
    for t, addr in sorted(plan.constants.items(), key=lambda item: item[1]):
        tensor = graph.tensors[t]
        if not found or found[-1].addr != addr:
            found.append(
                Buffer(
                    tensor.name,
                    addr,
                    len(plan.panels.content(t) or b"") or tensor.size_bytes,
                    0,
                    end,
                    BufferKind.CONSTANT,
                )
            )
    output_roots = {plan.views[t].root for t in graph.outputs}
    states = states_of(graph, plan.views)
    for life in plan.lives():
        is_output = life.root in output_roots
        kind = (
            BufferKind.STATE
            if life.root in states
            else BufferKind.INPUT
            if life.root in graph.inputs
            else BufferKind.OUTPUT
            if is_output
            else BufferKind.ACTIVATION
        )
        last = end if is_output and life.upper >= len(plan.steps) else starts[min(life.upper, len(starts) - 1)]
        first = starts[min(life.lower, len(starts) - 1)]
        found.append(Buffer(graph.tensors[life.root].name, life.addr, life.size, first, max(first, last), kind))
    return found


def _is_slots(node: GraphNode) -> bool:
    """Whether a node's result is bytes of a codec, which mean nothing to who looks at values."""
    return isinstance(node.op, dialect.Compress) or getattr(node.op, "shrinks", None) is not None


def _meta(plan: Plan | SpacePlan, written: dict[int, tuple[int, int]]) -> dict:
    """Figures for reports, and where each activation can be read: complete once ``instructions`` of the program have
    run.

    ``tensors`` leaves out those that never exist as a whole, and slots; ``space`` tells what runs in bands, None where
    nothing does; ``compression`` has a row for each tensor that waits compressed (`codegen.compression.rows_of`),
    ``weights`` one for each constant that is a layer's weights (`codegen.weights.report.rows_of`)."""
    graph = plan.graph
    tensors = []
    for node in graph.nodes:
        for t in node.outputs:
            time, instructions = written.get(t, (0, 0))
            if t not in written or not plan.is_whole(t, time) or _is_slots(node):
                continue
            view, tensor = plan.placed(t, time), graph.tensors[t]
            tensors.append(
                {
                    "name": tensor.name,
                    "layer": (node.op if node.table is None else node.table.op).name or node.name,
                    "op": node.op.op_name,
                    "node": node.id,
                    "dtype": tensor.dtype,
                    "shape": list(tensor.shape),
                    "addr": view.offset,
                    "strides": list(view.strides),
                    "out_scale": node.out_scale,
                    "out_zp": node.out_zp,
                    "instructions": instructions,
                }
            )
    ordering, least = getattr(plan, "ordering", None), least_possible_bytes(graph)
    states = [
        {"input": graph.tensors[t].name, "output": graph.tensors[out].name, "addr": plan.placed(t).offset}
        for t, out in states_of(graph, plan.views).items()
    ]
    return {
        **({"states": states} if states else {}),
        "name": graph.name,
        "macs": graph.macs(),
        "constant_bytes": plan.constant_bytes,
        "activation_bytes": plan.activation_bytes,
        "peak_bytes": plan.memory_bytes,
        "live_bytes": plan.live_bytes,
        "bound_bytes": plan.bound_bytes,
        "tensors": tensors,
        "least_bytes": least.size_bytes,
        "least_reason": least.reason,
        "order_bound_bytes": ordering.bound_bytes if ordering else None,
        "order_optimal": ordering is not None and plan.live_bytes <= ordering.bound_bytes,
        "space": plan.report() if isinstance(plan, SpacePlan) else None,
        "compression": [],
        "weights": rows_of(graph, plan.panels),
    }
