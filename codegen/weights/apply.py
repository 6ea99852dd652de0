"""Which constants can be coded, and a graph with decided codings: a chip function carries them as an attribute."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from tvm import relax

from tvm_ergo.codegen.graph import Graph, Node
from tvm_ergo.codegen.weights.coding import Coding
from tvm_ergo.codegen.weights.panels import WEIGHTS, reads_weights
from tvm_ergo.target.codecs import Codec

CODINGS = "ergo_weights"
"""Attribute of a chip function: JSON ``{digest of a constant: [codec, lanes]}``."""
SMALLEST_BYTES = 128
"""Smaller constants are not looked at: a stream's header and tables take what it saves."""


def codable(graph: Graph, smallest_bytes: int = SMALLEST_BYTES) -> dict[int, list[Node]]:
    """The int8 constants of so many bytes at least that only weight operands read, and their readers."""
    found = {}
    for tensor in graph.tensors:
        readers = graph.consumers[tensor.id]
        if (
            tensor.data is None
            or tensor.dtype != "int8"
            or tensor.size_bytes < smallest_bytes
            or len(tensor.shape) < 2
            or tensor.id in graph.outputs
        ):
            continue
        if readers and all(
            reads_weights(node) and [i for i, t in enumerate(node.inputs) if t == tensor.id] == [WEIGHTS]
            for node in readers
        ):
            found[tensor.id] = list(readers)
    return found


def coded(graph: Graph, codings: Mapping[str, Coding]) -> Graph:
    """The graph whose constants of those digests are coded, where they can be."""
    if not codings:
        return graph
    can = codable(graph)
    return replace(
        graph, tensors=tuple(replace(t, coding=codings.get(t.digest)) if t.id in can else t for t in graph.tensors)
    )


def annotated(func: relax.Function, codings: Mapping[str, Coding]) -> relax.Function:
    """The function with its codings, which `codegen.stream.graph_of` reads."""
    return func.with_attr(CODINGS, json.dumps({digest: [c.codec.name, c.lanes] for digest, c in codings.items()}))


def codings_of(func: relax.Function) -> dict[str, Coding]:
    """The codings that a function carries."""
    if func.attrs is None or CODINGS not in func.attrs:
        return {}
    return {
        digest: Coding(Codec[codec], lanes) for digest, (codec, lanes) in json.loads(str(func.attrs[CODINGS])).items()
    }
