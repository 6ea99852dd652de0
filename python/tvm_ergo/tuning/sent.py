"""A task as JSON, for workers, and back: the part's graph with its constants, the chip and the options; nothing in it
is code.

What follows from these (units, decisions, forms of constants) is worked out again where it arrives; the digest says
whether the same came out."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import asdict, fields

import numpy as np

from tvm_ergo.codegen.fuse import Coded
from tvm_ergo.codegen.graph import Graph, Node, OutputTable, Tensor
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.tuning.measure import Bench
from tvm_ergo.codegen.tuning.space import Space
from tvm_ergo.codegen.tuning.task import Task
from tvm_ergo.codegen.tuning.workload import digest
from tvm_ergo.codegen.weights.coding import Coding
from tvm_ergo.relay_passes.dialect import ErgoOp
from tvm_ergo.relay_passes.dialect.base import OPS
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.slots import SlotLayout
from tvm_ergo.target.errors import ModelError, RemoteError

DTYPES = ("int8", "uint8", "int16", "int32", "int64")


def to_json(task: Task) -> dict:
    """All that a worker needs to measure ways of the task."""
    space, bench = task.space, task.bench
    layouts = {name: [_layout(layout) for layout in given] for name, given in space.layouts.items()}
    return {
        "digest": task.digest,
        "graph": _graph(space.graph),
        "chip": bench.chip.to_json(),
        "options": asdict(bench.options),
        "forms": space.codes_constants,
        "layouts": layouts,
        "limit_bytes": bench.limit_bytes,
        "gating": bench.gating,
    }


def from_json(data: Mapping) -> tuple[Space, Bench]:
    """Errors: RemoteError where what comes out is not the task that was sent; ErgoError, KeyError, TypeError,
    ValueError for what no `to_json` gave."""
    graph, chip, options = (
        _graph_of(data["graph"]),
        Chip.from_json(data["chip"], "a task's chip"),
        Options(**data["options"]),
    )
    space = Space(
        graph,
        chip,
        options,
        bool(data["forms"]),
        {str(name): [_layout_of(layout) for layout in given] for name, given in data["layouts"].items()},
    )
    if digest(space) != data["digest"]:
        raise RemoteError(
            "a task arrived as another",
            where=str(data["digest"])[:40],
            available=digest(space),
            remedy="workers of the very same version",
        )
    bench = Bench(graph, space, chip, options, bool(data["gating"]))
    bench.limit_bytes = int(data["limit_bytes"])
    return space, bench


def _graph(graph: Graph) -> dict:
    return {
        "tensors": [
            [
                t.name,
                list(t.shape),
                t.dtype,
                None if t.data is None else base64.b64encode(np.ascontiguousarray(t.data).tobytes()).decode(),
                t.coding and [t.coding.codec.name, t.coding.lanes],
            ]
            for t in graph.tensors
        ],
        "nodes": [
            [
                node.name,
                _op(node.op),
                list(node.inputs),
                list(node.outputs),
                node.again,
                node.table and [node.table.lut, _op(node.table.op)],
            ]
            for node in graph.nodes
        ],
        "inputs": list(graph.inputs),
        "outputs": list(graph.outputs),
        "name": graph.name,
        "streams": sorted(graph.streams),
    }


def _graph_of(data: Mapping) -> Graph:
    tensors = tuple(_tensor_of(number, *told) for number, told in enumerate(data["tensors"]))
    nodes = tuple(
        Node(
            number,
            str(name),
            _op_of(op),
            tuple(map(int, inputs)),
            tuple(map(int, outputs)),
            bool(again),
            table and OutputTable(int(table[0]), _op_of(table[1])),
        )
        for number, (name, op, inputs, outputs, again, table) in enumerate(data["nodes"])
    )
    places = range(len(tensors))
    for t in (
        *data["inputs"],
        *data["outputs"],
        *data["streams"],
        *(t for node in nodes for t in (*node.inputs, *node.constants, *node.outputs)),
    ):
        if t not in places:
            raise ModelError("a task names a tensor that it does not have", available=str(t)[:40])
    return Graph(
        tensors, nodes, tuple(data["inputs"]), tuple(data["outputs"]), str(data["name"]), frozenset(data["streams"])
    )


def _tensor_of(number: int, name, shape, dtype, content, coding) -> Tensor:
    if dtype not in DTYPES:
        raise ModelError(
            "a task has a tensor of another type",
            where=str(name)[:80],
            required=", ".join(DTYPES),
            available=str(dtype)[:40],
        )
    shape = tuple(map(int, shape))
    try:
        data = (
            None if content is None else np.frombuffer(base64.b64decode(content, validate=True), dtype).reshape(shape)
        )
    except (binascii.Error, ValueError) as error:
        raise ModelError(
            "a task has a constant that is not one", where=str(name)[:80], available=str(error)[:100]
        ) from None
    return Tensor(number, str(name), shape, dtype, data, coding and Coding(Codec[coding[0]], int(coding[1])))


def _op(op: ErgoOp | Coded) -> dict:
    if isinstance(op, Coded):
        return {
            "inner": _op(op.inner),
            "expands": [[i, _op(taken)] for i, taken in op.expands],
            "shrinks": op.shrinks and _op(op.shrinks),
            "shape": list(op.shape),
        }
    return {"op": op.op_name, **{f.name: getattr(op, f.name) for f in fields(op)}}


def _op_of(data: Mapping) -> ErgoOp | Coded:
    if "inner" in data:
        return Coded(
            _op_of(data["inner"]),
            tuple((int(i), _op_of(taken)) for i, taken in data["expands"]),
            data["shrinks"] and _op_of(data["shrinks"]),
            tuple(data["shape"]),
        )
    own = dict(data)
    return OPS[own.pop("op")](**own)


def _layout(layout: SlotLayout) -> list:
    return [layout.codec.name, layout.tile_rows, layout.slot_bytes, layout.zero_point]


def _layout_of(told) -> SlotLayout:
    codec, tile_rows, slot_bytes, zero_point = told
    return SlotLayout(Codec[codec], int(tile_rows), int(slot_bytes), int(zero_point))
