"""What reports show of a plan's weights: a row per constant that a convolution or matrix product reads, coded or
plain."""

from __future__ import annotations

import numpy as np

from tvm_ergo.codegen.graph import Graph, Node, Tensor
from tvm_ergo.codegen.weights.panels import WEIGHTS, Panels, reads_weights


def rows_of(graph: Graph, panels: Panels) -> list[dict]:
    """In order of first use: ``name``, ``layers`` (that read it), ``shape``, ``density`` (share of weights that are not
    the zero point), ``distinct`` (values), ``entropy_bits`` (of a weight, order 0), ``dense_bytes``, ``coded_bytes``
    (what it takes), ``codec`` (None: plain), ``panels``, ``lanes``, ``steps`` (of the decoder's busiest lanes, all
    panels once)."""
    readers: dict[int, list[Node]] = {}
    for node in graph.nodes:
        if reads_weights(node) and graph.tensors[node.inputs[WEIGHTS]].data is not None:
            readers.setdefault(node.inputs[WEIGHTS], []).append(node)
    return [_row(graph.tensors[t], nodes, panels) for t, nodes in readers.items()]


def _row(tensor: Tensor, readers: list[Node], panels: Panels) -> dict:
    counts = np.unique(tensor.data, return_counts=True)[1]
    share = counts / tensor.data.size
    coded = [panel.coded for panel in panels.of.get(tensor.id, {}).values()]
    zero = getattr(readers[0].inner, "w_zp", getattr(readers[0].inner, "b_zp", 0))
    return {
        "name": tensor.name,
        "layers": list(dict.fromkeys(n.op.name or n.name for n in readers)),
        "shape": list(tensor.shape),
        "density": float((tensor.data != zero).mean()),
        "distinct": len(counts),
        "entropy_bits": float(abs((share * np.log2(share)).sum())),
        "dense_bytes": tensor.size_bytes,
        "coded_bytes": sum(len(c.data) for c in coded) if coded else tensor.size_bytes,
        "codec": coded[0].codec.name if coded else None,
        "panels": len(coded),
        "lanes": max((c.lanes for c in coded), default=0),
        "steps": sum(c.steps for c in coded),
    }
