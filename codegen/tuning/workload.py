"""A part as TVM's MetaSchedule takes it: a TIR function with a block a node, and schedules that are decisions on those
blocks.

A block reads what its node reads and carries, as annotations, all of the node that decides what it costs (operator,
shapes, strides, lengths of coded constants), and nothing else: no names, scales or values. So parts that cost the same
are structurally equal, and TVM's database knows them as one workload. The arithmetic of a block is not the node's:
which box needs which boxes is asked of the operator (`ErgoOp.input_regions`), not of its TIR."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields

import tvm
from tvm import te
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import Trace

from tvm_ergo.codegen.graph import Graph, Node
from tvm_ergo.codegen.space.elements import SHAPING
from tvm_ergo.codegen.tuning.context import unannotated
from tvm_ergo.codegen.tuning.space import Space, Way
from tvm_ergo.codegen.weights.coding import stream

PREFIX = "ergo."
USUAL = 0.7
WAY = "ergo.way"
"""Annotation that the postprocessor leaves in place of the decisions: equal for schedules that mean the same."""


def description(space: Space) -> list[dict]:
    """All of a part that its figures depend on, a dict a node."""
    graph = space.graph
    return [_of_node(graph, node, space) for node in graph.nodes]


def digest(space: Space) -> str:
    """Names the task: equal for parts that are the same to the search."""
    graph = space.graph
    told = [description(space), list(graph.inputs), list(graph.outputs), sorted(graph.streams)]
    return hashlib.sha1(json.dumps(told).encode(), usedforsecurity=False).hexdigest()[:16]


def _of_node(graph: Graph, node: Node, space: Space) -> dict:
    inner = node.inner
    shaping = {
        f.name: _plain(getattr(inner, f.name))
        for f in fields(inner)
        if f.name in (*SHAPING, "ceil_mode", "output_padding", "codec", "tile_rows", "slot_bytes")
    }
    tensors = [
        [t, list(graph.tensors[t].shape), graph.tensors[t].dtype, graph.tensors[t].data is not None]
        for t in (*node.inputs, *node.outputs)
    ]
    coded = [
        [t, [[c.codec.name, c.lanes, *_lengths(graph, t, c)] for c in space.forms[t] if c is not None]]
        for t in node.inputs
        if t in space.forms
    ]
    return {
        "op": inner.op_name,
        "shaping": shaping,
        "reads": len(node.inputs),
        "tensors": tensors,
        "forms": [c for c in coded if c[1]],
        "codes": [
            [t, [[c.codec.name, c.slot_bytes] for c in space.codes[t] if c is not None]]
            for t in node.outputs
            if t in space.codes
        ],
        **({} if node.table is None else {"output_table": list(graph.tensors[node.table.lut].shape)}),
        "codecs": str(getattr(node.op, "expands", "")) + str(getattr(node.op, "shrinks", "")),
    }


def _lengths(graph: Graph, t: int, coding) -> list[int]:
    coded = stream(graph.tensors[t], graph.tensors[t].region, coding)
    return [len(coded.data), coded.steps]


def _plain(value):
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def prim_func(space: Space) -> tvm.tirx.PrimFunc:
    """The part as TIR: a block a node, named ``n0``, ``n1``, ... Constants are not among its arguments."""
    graph, made = space.graph, {}
    arguments = [t for t in graph.inputs if graph.consumers[t]]
    for t in arguments:
        made[t] = te.placeholder(graph.tensors[t].shape or (1,), graph.tensors[t].dtype, name=f"t{t}")
    for node, told in zip(graph.nodes, description(space), strict=True):
        made |= _block(graph, node, json.dumps(told, sort_keys=True), made)
    outputs = [made[t] for t in dict.fromkeys(graph.outputs) if t in made and t not in arguments]
    return te.create_prim_func([*(made[t] for t in arguments), *outputs])


def _block(graph: Graph, node: Node, told: str, made: dict[int, te.Tensor]) -> dict[int, te.Tensor]:
    read = [made[t] for t in node.inputs if t in made]

    def value(*_):
        found = tvm.tirx.const(0, "int32")
        for x in read:
            found = found + x(*([0] * len(x.shape))).astype("int32")
        return found

    shapes, dtypes = zip(*((graph.tensors[t].shape or (1,), graph.tensors[t].dtype) for t in node.outputs))
    if len(node.outputs) == 1:
        results = [
            te.compute(
                shapes[0], lambda *i: value(*i).astype(dtypes[0]), name=f"n{node.id}", attrs={PREFIX + "node": told}
            )
        ]
    else:
        results = [
            te.compute(
                shape,
                lambda *i, dtype=dtype: value(*i).astype(dtype),
                name=f"n{node.id}" if k == 0 else f"n{node.id}_{k}",
                attrs={PREFIX + "node": told},
            )
            for k, (shape, dtype) in enumerate(zip(shapes, dtypes))
        ]
    return dict(zip(node.outputs, results))


def schedule_fn(space: Space, *usual: Sequence[int]):
    """A space for `ms.space_generator.ScheduleFn`: samples every decision and annotates its block with it. usual : the
    decisions of schedules that are known to be reasonable; every decision is made as in one of them about so often as
    USUAL says, otherwise all values are equally likely."""

    def sample(sch: Schedule) -> None:
        for choice, *common in zip(space.choices, *usual, strict=True):
            count = len(choice.candidates)
            shares = [
                float(round(USUAL / (1 - USUAL) * count / len(set(common)))) + 1 if value in common else 1.0
                for value in choice.candidates
            ]  # whole: traces are kept as text
            value = sch.sample_categorical(list(choice.candidates), shares)
            sch.annotate(sch.get_sblock(f"n{choice.node}"), _key(choice), value)

    return sample


def _key(choice) -> str:
    return f"{PREFIX}{choice.name}.{choice.unit}"


def sampled(trace: Trace) -> list[int]:
    """The decisions of a trace, as places among the candidates."""
    return [int(trace.get_decision(instruction)) for instruction in samplings(trace)]


def samplings(trace: Trace) -> list:
    """The instructions of a trace that decide."""
    return [instruction for instruction in trace.insts if instruction.kind.name == "SampleCategorical"]


def way_of(trace: Trace, space: Space) -> Way:
    """What a trace means."""
    return space.way([choice.candidates[place] for choice, place in zip(space.choices, sampled(trace), strict=True)])


def decided(trace: Trace, space: Space, values: Sequence[int]) -> Trace:
    """The trace with these values decided."""
    for instruction, choice, value in zip(samplings(trace), space.choices, values, strict=True):
        trace = trace.with_decision(instruction, choice.candidates.index(value), True)
    return trace


def canonical(sch: Schedule, space: Space, task: str, way: Way) -> None:
    """Leaves one annotation, what the decisions mean, in place of them: schedules that mean the same become equal
    modules."""
    by_block: dict[str, list[str]] = {}
    for choice in space.choices:
        by_block.setdefault(f"n{choice.node}", []).append(_key(choice))
    for block, keys in by_block.items():
        unannotated(sch, block, keys)
    sch.annotate(sch.get_sblock("n0"), WAY, f"{task} {way.key}")


def trace_json(trace: Trace) -> list:
    """A trace as JSON (``Trace.as_json`` leaves TVM's numbers in it)."""
    return _plain_json(trace.as_json(True))


def _plain_json(value):
    if isinstance(value, (list, tuple)):
        return [_plain_json(v) for v in value]
    return getattr(value, "value", value)


def replayed(space: Space, trace: list | Trace) -> Schedule:
    """A schedule of the part from a trace (as JSON, or itself): what another process makes of a stored one."""
    sch = Schedule(tvm.IRModule({"main": prim_func(space)}), debug_mask="none", error_render_level="fast")
    if isinstance(trace, Trace):
        trace.apply_to_schedule(sch, True)
    else:
        Trace.apply_json_to_schedule(trace, sch)
    return sch
