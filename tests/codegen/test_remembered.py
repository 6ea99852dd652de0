"""What searches keep for each other: equal questions are answered once, unequal ones are told apart, and figures kept
change no plan."""

from dataclasses import replace

import numpy as np

from tvm_ergo.codegen.fuse import fuse
from tvm_ergo.codegen.graph import from_function
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.planned import described
from tvm_ergo.codegen.space import Objective, choose
from tvm_ergo.codegen.space.remembered import PLANS, costs_only, footprints, forget, remembered
from tvm_ergo.relay_passes.compile.insert_compression import Decision, insert

from .compression.nets import CHIP, Waits

MEGABYTE = 1 << 20


def test_fingerprints_are_equal_for_equal_graphs_only():
    func = Waits().finish()["main"]
    graph = from_function(func)
    assert graph.fingerprint == from_function(func).fingerprint
    first = next(t for t in graph.tensors if t.data is not None)
    data = first.data.copy()
    data.flat[0] ^= 1
    other_constant = replace(graph, tensors=tuple(replace(t, data=data) if t is first else t for t in graph.tensors))
    node = graph.nodes[1]
    other_op = replace(graph, nodes=(graph.nodes[0], replace(node, op=replace(node.op, lo=-127)), *graph.nodes[2:]))
    changed = [other_constant, other_op, replace(graph, name="other"), replace(graph, streams=frozenset(graph.inputs))]
    assert len({g.fingerprint for g in (graph, *changed)}) == 5


def test_the_last_answers_are_kept():
    forget()
    asked = []
    for key in [*range(PLANS + 1), PLANS, 0]:
        assert remembered(("test", key), lambda: asked.append(key) or str(key)) == str(key)
    assert asked == [*range(PLANS + 1), 0]
    forget()


def test_a_second_search_is_the_first_ones_answer_whatever_the_memory():
    forget()
    graph = from_function(Waits().finish()["main"])
    one = choose(graph, CHIP, MEGABYTE, Options(), Objective.MEMORY)
    assert choose(graph, CHIP.with_memory(2 * MEGABYTE), MEGABYTE + 1, Options(), Objective.MEMORY) is one
    assert choose(from_function(Waits(seed=6).finish()["main"]), CHIP, MEGABYTE, Options(), Objective.MEMORY) is not one


def test_figures_kept_from_another_graph_change_no_plan():
    """A graph with a codec, searched for alone and behind the plain one, whose layers are the same but for those that
    read and write slots."""
    func = Waits().finish()["main"]
    graph = from_function(func)
    coded = fuse(
        from_function(
            insert(func, {graph.tensors[graph.nodes[0].outputs[0]].name: Decision("BITMASK", 1, 50, -128, False, True)})
        )
    )
    forget()
    alone = choose(coded, CHIP, MEGABYTE, Options(), Objective.MEMORY)
    forget()
    choose(graph, CHIP, MEGABYTE, Options(), Objective.MEMORY)
    known = len(footprints(costs_only(CHIP), Options()))
    behind = choose(coded, CHIP, MEGABYTE, Options(), Objective.MEMORY)
    assert known and described(alone) == described(behind)
    np.testing.assert_array_equal(alone.offsets, behind.offsets)
