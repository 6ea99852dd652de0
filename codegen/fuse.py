"""Compress and decompress fused into the instructions that write and read the tensor: it never exists uncompressed in
memory.

Where a tensor's tiles are single rows, its producer can shrink the rows it writes and its readers can expand the rows
they read (`target.isa.coded`). `fuse` rewrites a graph so: the nodes become `Coded` ops on the slots, and everything
after it (bands, rolling buffers, placement) sees tensors of slots like any others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tvm_ergo.codegen.graph import Graph, Node, Region
from tvm_ergo.relay_passes.dialect import Compress, Decompress, ErgoOp
from tvm_ergo.relay_passes.dialect.traits import Rows, Traits
from tvm_ergo.target.codecs import Codec


@dataclass(frozen=True)
class Coded:
    """An op some of whose inputs are expanded as they are read, and whose output may be shrunk as it is written.

    inner : the op. expands : ``(input, the decompress it took in)``. shrinks : the compress it took in; shape : of what
    it shrinks. Answers like an `ErgoOp`."""

    inner: ErgoOp
    expands: tuple[tuple[int, Decompress], ...] = ()
    shrinks: Compress | None = None
    shape: tuple[int, ...] = ()

    traits = Traits(rows=Rows.WHOLE)
    """Of the whole; what makes its rows is asked of ``inner``."""

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def op_name(self) -> str:
        return self.inner.op_name

    @property
    def out_scale(self) -> float:
        return self.inner.out_scale

    @property
    def out_zp(self) -> int:
        return self.inner.out_zp

    def plain_shapes(self, shapes: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Shapes of the inner op's inputs."""
        expanded = dict(self.expands)
        return [expanded[i].shape if i in expanded else tuple(shape) for i, shape in enumerate(shapes)]

    def infer(self, shapes, dtypes):
        expanded = dict(self.expands)
        for i, op in expanded.items():
            op.infer([shapes[i]], [dtypes[i]])
        results = self.inner.infer(
            self.plain_shapes(shapes), ["int8" if i in expanded else d for i, d in enumerate(dtypes)]
        )
        return results if self.shrinks is None else self.shrinks.infer([results[0][0]], [results[0][1]])

    def plain_region(self, out_region: Region, shapes) -> Region:
        """The box of the inner op's output behind a box of the result: slots are whole rows."""
        if self.shrinks is None:
            return out_region
        return ((0, 1), out_region[1], (0, self.shape[2]), (0, self.shape[3]))

    def input_regions(self, out_region: Region, shapes, values=None) -> list[Region]:
        boxes = self.inner.input_regions(self.plain_region(out_region, shapes), self.plain_shapes(shapes), values)
        for i, op in self.expands:
            empty = any(b >= e for b, e in boxes[i])
            boxes[i] = ((0, 0),) * 4 if empty else ((0, 1), boxes[i][1], (0, 1), (0, op.slot_bytes))
        return boxes

    def macs(self, shapes) -> int:
        return self.inner.macs(self.plain_shapes(shapes))


def fuse(graph: Graph) -> Graph:
    """The graph with every compress and decompress of single rows taken into its neighbours where they can do it; node
    ids are places again.

    A compress goes into the tensor's producer if nobody else reads the tensor plain; a decompress into each reader that
    can expand; it stays for the others. Values do not change."""
    if not any(isinstance(n.op, Compress) and n.op.tile_rows == 1 for n in graph.nodes):
        return graph
    made = {n.id: n for n in graph.nodes}
    for node in graph.nodes:
        if isinstance(node.op, Decompress) and node.op.tile_rows == 1:
            _into_readers(graph, node, made)
    for node in graph.nodes:
        if isinstance(node.op, Compress) and node.op.tile_rows == 1:
            _into_producer(graph, node, made)
    nodes = tuple(replace(made[n.id], id=number) for number, n in enumerate(n for n in graph.nodes if n.id in made))
    return replace(graph, nodes=nodes)


def _coded(op: ErgoOp | Coded) -> Coded:
    return op if isinstance(op, Coded) else Coded(op)


def _into_readers(graph: Graph, node: Node, made: dict[int, Node]) -> None:
    """Every reader that can reads the slots itself; the decompress goes if none is left."""
    (plain,), (slots,) = node.outputs, node.inputs
    left = plain in graph.outputs
    for reader in graph.consumers[plain]:
        places = [i for i, t in enumerate(reader.inputs) if t == plain]
        if not all(expands_itself(graph, reader, i, node.op) for i in places):
            left = True
            continue
        now = made[reader.id]
        op = _coded(now.op)
        inputs = tuple(slots if t == plain else t for t in now.inputs)
        made[reader.id] = replace(
            now, op=replace(op, expands=(*op.expands, *((i, node.op) for i in places))), inputs=inputs
        )
    if not left:
        del made[node.id]


def expands_itself(graph: Graph, reader: Node, i: int, op: Decompress) -> bool:
    """Whether a reader's input can be rows that it expands: same zero point, and whole rows are read whatever rows are
    made."""
    coding = reader.inner.traits.coding
    if coding is None or i not in coding.inputs or is_sparse(graph, reader):
        return False
    field = coding.inputs[i]
    if field is not None and getattr(reader.inner, field) != op.out_zp:
        return False
    out = graph.tensors[reader.outputs[0]]
    if len(out.shape) != 4 or out.shape[0] != 1:
        return False
    shape = reader.op.shape if isinstance(reader.op, Coded) and reader.op.shrinks is not None else out.shape
    shapes = reader.op.plain_shapes(graph.shapes(reader)) if isinstance(reader.op, Coded) else graph.shapes(reader)
    box = reader.inner.input_regions(tuple((0, extent) for extent in shape), shapes)[i]
    return box[2:] == ((0, op.shape[2]), (0, op.shape[3])) and (not coding.whole_shape or shape == op.shape)


def shrinks_itself(graph: Graph, producer: Node, op: Compress) -> bool:
    """Whether a node's result can be rows that it shrinks: same zero point."""
    if producer.inner.traits.coding is None or is_sparse(graph, producer):
        return False
    field = producer.inner.traits.coding.output
    return (
        field is None
        or (getattr(producer.inner, field) if producer.table is None else producer.table.op.out_zp) == op.out_zp
    )


def is_sparse(graph: Graph, node: Node) -> bool:
    """Whether the sparse engine computes a node: it has no coders of rows."""
    return any(graph.tensors[t].coding is not None and graph.tensors[t].coding.codec is Codec.EIE for t in node.inputs)


def _into_producer(graph: Graph, node: Node, made: dict[int, Node]) -> None:
    """The producer writes the slots, if nobody reads what it made otherwise."""
    (plain,) = node.inputs
    producer = graph.producer.get(plain)
    if (
        producer is None
        or plain in graph.outputs
        or len(graph.consumers[plain]) != 1
        or not shrinks_itself(graph, producer, node.op)
    ):
        return
    now = made[producer.id]
    op = replace(_coded(now.op), shrinks=node.op, shape=graph.tensors[plain].shape)
    made[producer.id] = replace(now, op=op, outputs=node.outputs)
    del made[node.id]
