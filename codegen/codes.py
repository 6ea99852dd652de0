"""Tensors that wait in slots because the plan says so: rows shrunk by their producer and expanded by every reader,
without a node more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tvm_ergo.codegen.fuse import Coded, expands_itself, fuse, shrinks_itself
from tvm_ergo.codegen.graph import Graph, Node, Tensor
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.slots import SlotLayout
from tvm_ergo.target.errors import UnsupportedError


def takes_codes(graph: Graph, t: int, layout: SlotLayout) -> bool:
    """Whether a tensor is made by an instruction that can shrink its rows, and read by none that cannot expand them."""
    producer, readers = graph.producer.get(t), graph.consumers[t]
    if (
        layout.tile_rows != 1
        or producer is None
        or t in graph.outputs
        or not readers
        or isinstance(producer.op, Coded)
        and producer.op.shrinks is not None
    ):
        return False
    shrink, expand = _ops(graph, t, producer, layout)
    return shrinks_itself(graph, producer, shrink) and all(
        expands_itself(graph, reader, i, expand)
        for reader in readers
        for i, read in enumerate(reader.inputs)
        if read == t
    )


def with_codes(graph: Graph, codes: Mapping[str, Sequence]) -> Graph:
    """The graph in which the tensors of those names wait in slots, nodes and their ids as before.

    codes : ``[name of the codec, bytes of a slot, zero point]``. Errors: UnsupportedError for one that is not
    `takes_codes`."""
    tensors, nodes, renamed = list(graph.tensors), [], {}
    for node in graph.nodes:
        nodes.append(replace(node, inputs=tuple(renamed.get(t, t) for t in node.inputs)))
        for t in node.outputs:
            told = codes.get(graph.tensors[t].name)
            if told is None:
                continue
            codec, slot_bytes, zero_point = told
            shrink, expand = _ops(graph, t, node, SlotLayout(Codec[codec], 1, slot_bytes, zero_point))
            slots = Tensor(
                len(tensors), f"{graph.tensors[t].name}_slots", (1, graph.tensors[t].shape[1], 1, slot_bytes), "uint8"
            )
            plain = replace(graph.tensors[t], id=len(tensors) + 1, name=f"{graph.tensors[t].name}_expanded")
            tensors += [slots, plain]
            nodes += [
                Node(-1, slots.name, shrink, (t,), (slots.id,)),
                Node(-1, plain.name, expand, (slots.id,), (plain.id,)),
            ]
            renamed[t] = plain.id
    found = fuse(replace(graph, tensors=tuple(tensors), nodes=tuple(replace(n, id=i) for i, n in enumerate(nodes))))
    if len(found.nodes) != len(graph.nodes):
        raise UnsupportedError(
            "a tensor cannot wait in slots here: an instruction next to it has no coder of rows", where=", ".join(codes)
        )
    return found


def _ops(graph: Graph, t: int, producer: Node, layout: SlotLayout) -> tuple[dialect.Compress, dialect.Decompress]:
    shape = graph.tensors[t].shape
    fields = {
        "codec": layout.codec.name,
        "tile_rows": 1,
        "slot_bytes": layout.slot_bytes,
        "out_zp": layout.zero_point,
        "bound": layout.max_error(shape[1:]),
        "name": producer.op.name,
        "out_scale": producer.out_scale,
    }
    return dialect.Compress(**fields), dialect.Decompress(**fields, shape=shape)
