"""The order of nodes against every topological order, with the storage plan that would really be used."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.codegen.compile import emit_program
from tvm_ergo.codegen.graph import from_function
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.order import best_order, reordered
from tvm_ergo.codegen.order.model import Model, Touch, bits, model_of
from tvm_ergo.codegen.order.search import least_peak, segments
from tvm_ergo.codegen.plan import make_plan, memory_problem, whole_steps
from tvm_ergo.codegen.testing import RandomFunction
from tvm_ergo.codegen.views import resolve
from tvm_ergo.target.chip import chip
from tvm_ergo.target.machine import Machine

CHIP = chip("ergo/1").with_memory(1 << 30)

OPTIONS = st.builds(
    Options, concat_in_place=st.booleans(), pad_in_place=st.booleans(), in_place=st.booleans(), view_slice=st.booleans()
)


def all_orders(needs, done=0):
    if done == (1 << len(needs)) - 1:
        yield ()
    for node in range(len(needs)):
        if not done >> node & 1 and not needs[node] & ~done:
            yield from ((node, *rest) for rest in all_orders(needs, done | 1 << node))


def live_bytes(graph, options):
    """The definition: the memory problem of the plan of this order."""
    return memory_problem(graph, whole_steps(graph), resolve(graph, options), 1).lower_bound()


@st.composite
def models(draw, most=7):
    """DAGs with one buffer a node, some of them read in place, and an input."""
    count = draw(st.integers(1, most))
    needs = [draw(st.integers(0, (1 << n) - 1)) & draw(st.integers(0, (1 << n) - 1)) for n in range(count)]
    readers = [sum(1 << n for n in range(count) if needs[n] >> m & 1) for m in range(count)]
    sizes = [draw(st.integers(1, 20)) for _ in range(count)]
    out = [Touch(readers[n] | 1 << n, sizes[n], False, not readers[n]) for n in range(count)]
    frame = Touch(draw(st.integers(1, (1 << count) - 1)), draw(st.integers(0, 20)), True, False)
    touched, credits = [], []
    for n in range(count):
        touched.append(tuple([out[m] for m in bits(needs[n])] + [out[n]] + [frame] * (frame.nodes >> n & 1)))
        may = draw(st.booleans())
        credits.append(tuple((out[m].nodes, sizes[n]) for m in bits(needs[n]) if may and sizes[m] == sizes[n]))
    return Model(tuple(needs), tuple(touched), tuple(credits), frame.size_bytes)


@settings(max_examples=300, deadline=None)
@given(models())
def test_search_finds_the_least_peak_of_every_order(model):
    least = min(model.peak_bytes(order) for order in all_orders(model.needs))
    found = least_peak(model)
    assert sorted(found.order) == list(range(model.count))
    assert model.peak_bytes(found.order) == found.peak_bytes == found.bound_bytes == least
    assert max(model.forced_bytes()) <= least


@settings(max_examples=200, deadline=None)
@given(models(), st.integers(0, 3), st.integers(1, 3))
def test_limits_leave_a_valid_order_a_valid_bound_and_nothing_worse_than_given(model, states, beam):
    least = min(model.peak_bytes(order) for order in all_orders(model.needs))
    found = least_peak(model, states, beam)
    assert sorted(found.order) == list(range(model.count))
    done = 0
    for node in found.order:
        assert not model.needs[node] & ~done
        done |= 1 << node
    assert (
        found.bound_bytes
        <= least
        <= found.peak_bytes
        == model.peak_bytes(found.order)
        <= model.peak_bytes(range(model.count))
    )


def test_a_beam_that_misses_an_order_bounds_no_later_segment():
    """Node 4 is a segment of its own behind one in which the beam's order needs a byte more than the best."""
    first, both, last = Touch(9, 1, False, False), Touch(6, 2, False, False), Touch(24, 1, False, False)
    between, image = Touch(12, 1, False, False), Touch(1, 0, True, False)
    model = Model(
        needs=(0, 0, 2, 5, 8),
        touched=((first, image), (both,), (both, between), (first, between, last), (last, Touch(16, 1, False, True))),
        credits=((), (), (), (), ()),
        start_bytes=0,
    )
    assert min(model.peak_bytes(order) for order in all_orders(model.needs)) == 3
    found = least_peak(model, 0, 1)
    assert (found.peak_bytes, found.bound_bytes) == (4, 3)


@settings(max_examples=100, deadline=None)
@given(models(most=6))
def test_segments_follow_one_another_in_every_order(model):
    pieces = segments(model)
    assert sum(piece.bit_count() for piece in pieces) == model.count
    place = {node: number for number, piece in enumerate(pieces) for node in bits(piece)}
    for order in all_orders(model.needs):
        assert [place[n] for n in order] == sorted(place.values())


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 7), st.integers(1, 2), OPTIONS)
def test_bound_and_claims_hold_for_real_plans(random, ops, outputs, options):
    kinds = RandomFunction.ELEMENTWISE + RandomFunction.MOVEMENT + ("reduce", "softmax", "pool")
    module = RandomFunction(random, inputs=random.randint(1, 2)).grow(ops, kinds).finish(outputs)
    graph = from_function(module["main"])
    if len(graph.nodes) > 8:
        return
    needs = model_of(graph, options).needs
    orders = list(all_orders(needs))
    if len(orders) > 400:
        return
    least = min(live_bytes(reordered(graph, order), options) for order in orders)
    found = best_order(graph, options)
    chosen = live_bytes(reordered(graph, found.order), options)
    assert found.bound_bytes <= least <= chosen
    reordered(graph, found.order).validate()
    if found.quality(chosen) == "optimal":
        assert chosen == least


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 10))
def test_model_counts_what_the_plan_needs(random, ops):
    """Without elementwise ops nothing is overwritten in place, and the model is the plan."""
    kinds = ("reduce", "softmax", "pool", "conv2d", "concat", "split", "reshape", "transpose", "pad")
    graph = from_function(RandomFunction(random).grow(ops, kinds).finish(1)["main"])
    model = model_of(graph, Options())
    assert model.peak_bytes(range(model.count)) == live_bytes(graph, Options())


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 14), st.integers(1, 2))
def test_plans_are_never_worse_than_in_the_given_order(random, ops, outputs):
    graph = from_function(RandomFunction(random).grow(ops).finish(outputs)["main"])
    given, found = (make_plan(graph, 1 << 30, Options(reorder=reorder)) for reorder in (False, True))
    assert found.memory_bytes <= given.memory_bytes and given.ordering is None
    assert found.ordering.bound_bytes <= found.activation_bytes


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(4, 12))
def test_another_order_computes_the_same(random, ops):
    """Any executable order, not only the one chosen, on the strict machine."""
    maker = RandomFunction(random, inputs=2).grow(ops)
    graph, arrays = from_function(maker.finish(2)["main"]), maker.arrays_for_inputs()
    needs, order, done = model_of(graph, Options()).needs, [], 0
    while len(order) < len(needs):
        order.append(random.choice([n for n in range(len(needs)) if not done >> n & 1 and not needs[n] & ~done]))
        done |= 1 << order[-1]
    results = [
        Machine(emit_program(make_plan(g, 1 << 30, Options(reorder=False)), CHIP), CHIP, strict=True)
        .run(arrays)
        .outputs
        for g in (graph, reordered(graph, order))
    ]
    for name, value in results[0].items():
        np.testing.assert_array_equal(value, results[1][name])


@cache
def fork(depth):
    """Branches that make something large of something small, then a little of it, given breadth first."""
    count = 3 * depth
    needs, touched = [], []
    for n in range(count):
        level, branch = divmod(n, depth)
        needs.append(0 if level == 0 else 1 << (n - depth))
    buffers = [
        Touch(1 << n | (1 << n + depth if n + depth < count else 0), 100 if n < depth else 1, False, n >= 2 * depth)
        for n in range(count)
    ]
    for n in range(count):
        touched.append((buffers[n],) if n < depth else (buffers[n - depth], buffers[n]))
    return Model(tuple(needs), tuple(touched), ((),) * count, 0)


@pytest.mark.parametrize(
    "depth", [2, 5, 40]
)  # the last has 4 ** 40 sets: a beam finds the order, only the bound is left below
def test_branches_run_one_after_the_other(depth):
    model = fork(depth)
    assert model.peak_bytes(range(model.count)) == 100 * depth + 1
    found = least_peak(model)
    assert found.peak_bytes == 100 + depth
    assert 100 < found.bound_bytes <= found.peak_bytes and (depth == 40 or found.bound_bytes == found.peak_bytes)
