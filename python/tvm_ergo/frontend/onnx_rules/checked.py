"""What ONNX's own checker is shown: nodes in order, and files valid for the runtimes people use though not for it."""

from __future__ import annotations

import heapq

import onnx
from onnx import helper

from tvm_ergo.frontend.onnx_rules.view import ONNX_DOMAINS, read_names

_UNKNOWN_TO_IT = frozenset({"SimplifiedLayerNormalization"})
"""Operators that ONNX Runtime's optimizer writes without a domain."""


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Nodes after those whose results they read, in place; the file's order stays where it allows that. Cycles are left
    to the checker."""
    produced = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    if _in_order(graph, produced):
        return
    needs = [{produced[name] for name in read_names(node) if name in produced} for node in graph.node]
    readers: dict[int, list[int]] = {}
    for i, sources in enumerate(needs):
        for source in sources:
            readers.setdefault(source, []).append(i)
    left = [len(sources) for sources in needs]
    ready, order = [i for i, count in enumerate(left) if not count], []
    while ready:
        order.append(heapq.heappop(ready))
        for reader in readers.get(order[-1], ()):
            left[reader] -= 1
            if not left[reader]:
                heapq.heappush(ready, reader)
    if len(order) < len(graph.node):
        return
    copies = [onnx.NodeProto.FromString(graph.node[i].SerializeToString()) for i in order]
    del graph.node[:]
    graph.node.extend(copies)


def _in_order(graph: onnx.GraphProto, produced) -> bool:
    seen: set[str] = set()
    for node in graph.node:
        if any(name in produced and name not in seen for name in read_names(node)):
            return False
        seen.update(node.output)
    return True


def checkable(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model``, or a copy with stand-ins for GroupNormalization of opset 18 (which ONNX withdrew after exporters wrote
    it) and operators of ONNX Runtime's optimizer without a domain."""
    opset = max((o.version for o in model.opset_import if o.domain in ONNX_DOMAINS), default=1)
    withdrawn = _UNKNOWN_TO_IT | ({"GroupNormalization"} if 18 <= opset < 21 else set())
    if not any(n.op_type in withdrawn and n.domain in ONNX_DOMAINS for n in model.graph.node):
        return model
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    nodes = [
        helper.make_node("Identity", n.input[:1], n.output[:1]) if n.op_type in withdrawn else n
        for n in shown.graph.node
    ]
    kept = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del shown.graph.node[:]
    shown.graph.node.extend(kept)
    return shown
