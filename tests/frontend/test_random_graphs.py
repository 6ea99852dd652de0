"""200 random ONNX graphs against ONNX Runtime, in float and between quantizers; ``benchmarks.random_graphs`` runs any
number."""

import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

sys.path.append(str(Path(__file__).resolve().parents[2]))  # benchmarks are no package of the product

from benchmarks import random_graphs as graphs  # noqa: E402
from benchmarks.random_graph_parts import PARTS, Graph, quantized, random_graph  # noqa: E402

pytest.importorskip("onnxruntime")
GRAPHS, PARTS_OF = 200, 20


@pytest.mark.parametrize("part", range(PARTS_OF))
def test_float(part):
    for seed in range(part, GRAPHS, PARTS_OF):
        outcome, detail = graphs.in_float(random_graph(seed), seed)
        assert outcome in (graphs.EXACT, graphs.REFUSED), (seed, detail)


@pytest.mark.parametrize("part", range(PARTS_OF))
def test_between_quantizers(part):
    for seed in range(part, GRAPHS, PARTS_OF):
        outcome, detail = graphs.between_quantizers(random_graph(seed), seed)
        assert outcome != graphs.WRONG, (seed, detail)


def test_every_part_occurs_and_graphs_are_the_same_each_time():
    found = {n.op_type for seed in range(GRAPHS) for n in random_graph(seed).nodes}
    assert len(found) > 45 and len(PARTS) == 25
    assert graphs.describe(random_graph(7)) == graphs.describe(random_graph(7)) != graphs.describe(random_graph(8))


def test_an_operator_that_is_two_steps_off_is_named(monkeypatch):
    """The judge itself: a chip whose LeakyRelu is two steps too high."""
    g = Graph(np.random.default_rng(0))
    g.shapes["x"] = (1, 2, 4, 4)
    g.add("LeakyRelu", ["x"], (1, 2, 4, 4), alpha=0.2)
    g.add("Transpose", ["t1"], (1, 4, 4, 2), perm=[0, 2, 3, 1])
    q, feeds = quantized(g, graphs.ranges_of(g, 0)), graphs.feeds_of(g, 0)
    assert graphs.worst_operator(q, feeds) is None
    right = dict(zip(q.steps, graphs.run_reference(q.model(list(q.steps)), feeds)))

    class Wrong:
        outputs = {**right, "t1": right["t1"] + 2 * q.steps["t1"]}

        def run(self, feeds):
            return self

    monkeypatch.setattr("tvm_ergo.compile", lambda model: Wrong())
    assert "t1 (LeakyRelu) is 2.00 steps off" in graphs.worst_operator(q, feeds)


def test_pieces_are_cut_at_quantized_tensors():
    g = random_graph(3)
    q = quantized(g, graphs.ranges_of(g, 3))
    for name in q.steps:
        nodes, inputs = graphs._piece(q, name)
        assert nodes and all(i in q.steps or i in q.inputs for i in inputs)
        assert all(isinstance(n, type(helper.make_node("Relu", ["a"], ["b"]))) for n in nodes)
