"""A graph as the search in space takes it: nodes that could only run whole are split where that is exact."""

from __future__ import annotations

from tvm_ergo.codegen.graph import Graph
from tvm_ergo.codegen.space.accumulate import accumulated
from tvm_ergo.codegen.space.padding import padded_apart


def prepared(graph: Graph) -> Graph:
    """Global sums see their input row by row; padding that whole windows lie in is a node of its own. Ids of tensors
    stay."""
    return padded_apart(accumulated(graph))
