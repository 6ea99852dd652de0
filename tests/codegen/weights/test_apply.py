"""Codings travel with a chip function and reach its graph, however it is made."""

from __future__ import annotations

from tvm_ergo.codegen.compile import compile_function
from tvm_ergo.codegen.graph import from_function
from tvm_ergo.codegen.stream import graph_of
from tvm_ergo.codegen.weights.apply import annotated, codable, coded, codings_of
from tvm_ergo.codegen.weights.coding import Coding
from tvm_ergo.target.chip import chip
from tvm_ergo.target.codecs import Codec

from .nets import conv_function


def test_attribute_round_trip():
    codings = {"ab": Coding(Codec.RUNS, 3), "cd": Coding(Codec.CABAC, 1)}
    func = annotated(conv_function(16), codings)
    assert codings_of(func) == codings and codings_of(conv_function(16)) == {}


def test_the_graph_and_the_program_have_them():
    func = conv_function(16)
    graph = from_function(func)
    can = codable(graph, 1)
    codings = {graph.tensors[t].digest: Coding(Codec.RUNS, 2) for t in can}
    marked = annotated(func, codings)
    found = {t.digest for t in graph_of(marked).tensors if t.coding == Coding(Codec.RUNS, 2)}
    assert found == {graph.tensors[t].digest for t in codable(graph)} and found
    assert graph_of(marked).fingerprint != graph.fingerprint and coded(graph, {}) is graph
    rows = compile_function(marked, chip("ergo/1")).meta["weights"]
    assert [row["codec"] for row in rows] == ["RUNS", "RUNS"]
