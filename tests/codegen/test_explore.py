"""The Pareto front of plans: no plan that brute force makes is much better than its points, every point runs, and
nothing dominated stays."""

import itertools
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tvm import relax

from tvm_ergo.codegen.compile import compile_graph, emit_program
from tvm_ergo.codegen.explore import LEAST, WHOLE, Point, combined, labelled, pareto, undominated
from tvm_ergo.codegen.graph import from_function
from tvm_ergo.codegen.space import Objective, make_space_plan
from tvm_ergo.codegen.space.bound import least_possible_bytes
from tvm_ergo.codegen.space.order import Needs
from tvm_ergo.codegen.space.stages import Stage
from tvm_ergo.codegen.stream import streamed
from tvm_ergo.codegen.testing import RandomFunction
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.chip import chip
from tvm_ergo.target.errors import OutOfMemoryError
from tvm_ergo.target.machine import Machine, Trace

CHIP = chip("ergo/1")


def expanding_chain(rows: int = 12, width: int = 6, wide: int = 16):
    """Expand, depthwise, project: [1, rows, width, 4] int8 -> the same shape."""
    function = RandomFunction(Random(3))
    function.params = [relax.Var("x", relax.TensorType((1, rows, width, 4), "int8"))]
    x = function.params[0]
    for op, weights, taps in (
        (dialect.Conv2d(), (wide, 1, 1, 4), 4),
        (dialect.DepthwiseConv2d(padding=(1, 1, 1, 1)), (3, 3, wide), 9),
        (dialect.Conv2d(), (4, 1, 1, wide), wide),
    ):
        channels = weights[0] if len(weights) == 4 else weights[-1]
        call = op.call(x, function.constant(weights), *function._channel_vectors(channels, taps))
        x = relax.DataflowVar(f"{op.op_name}_{len(function.bindings)}", call.ty)
        function.bindings.append(relax.VarBinding(x, call))
        function.values.append(x)
    return from_function(function.finish()["main"])


@pytest.fixture(scope="module")
def graph():
    return expanding_chain()


def priced(plan) -> tuple[int, int, float]:
    trace = Trace(emit_program(plan, CHIP), CHIP)
    return plan.memory_bytes, trace.cycles, trace.energy_pj


def every_plan(graph):
    """All bands of 1 or 4 rows or none, with all barriers; all stages in such bands, whole or in two columns."""
    needs = Needs(graph)
    choices = [[0, 1, 4]] * len(graph.nodes)
    for rows in itertools.product(*choices):
        bands = {i: r for i, r in enumerate(rows) if r}
        for barriers in (set(), {0}, {1}, {0, 1}):
            yield make_space_plan(graph, bands, barriers=barriers, needs=needs)
    for last, first in ((1, 0), (2, 1), (2, 0)):
        for columns, *rows in itertools.product((0, 3), *choices):
            bands = {i: r for i, r in enumerate(rows) if r and not first <= i < last}
            yield make_space_plan(
                graph, bands, stages={last: Stage(tuple(range(first, last)), columns=columns)}, needs=needs
            )


def test_brute_force_finds_nothing_much_better(graph):
    """Every plan there is has a point beside it that is at most a quarter worse in any figure, and none is smaller than
    the smallest point."""
    front = pareto(graph, CHIP, points=24)
    rivals = {priced(plan) for plan in every_plan(graph)}
    assert len(rivals) > 60 and front[0].memory_bytes <= min(bytes_ for bytes_, _, _ in rivals)
    for rival in rivals:
        assert min(max(a / b for a, b in zip(point.figures, rival)) for point in front) <= 1.25, rival


@pytest.mark.parametrize("stream", [False, True])
def test_every_point_is_a_program_that_computes_the_same(graph, stream):
    graph = streamed(graph) if stream else graph
    image = np.random.default_rng(0).integers(-128, 128, graph.tensors[graph.inputs[0]].shape).astype(np.int8)
    inputs = {graph.tensors[graph.inputs[0]].name: image}
    (expected,) = Machine(compile_graph(graph, CHIP), CHIP).run(inputs).outputs.values()
    steps = []
    front = pareto(graph, CHIP, points=5, progress=lambda done, total: steps.append((done, total)))
    assert len(front) >= 4 and steps[-1] == (13, 13) and len(steps) == 13
    for point in front:
        (program,) = point.programs
        result = Machine(program, CHIP, strict=True).run(inputs)
        np.testing.assert_array_equal(next(iter(result.outputs.values())), expected)
        assert (result.trace.cycles, result.trace.energy_pj) == (point.cycles, point.energy_pj) and program.meta[
            "peak_bytes"
        ] == point.memory_bytes
        assert point.activation_bytes >= least_possible_bytes(graph).size_bytes
    whole = front[-1]
    assert whole.how == "whole layers" and whole.cycles == min(p.cycles for p in front) and whole.mac_overhead == 1.0


@pytest.mark.parametrize("rows, width, wide, stream", [(12, 6, 16, False), (12, 6, 16, True), (16, 8, 24, True)])
def test_a_points_own_memory_as_the_limit_costs_no_more_than_the_point(rows, width, wide, stream):
    """The limit is met inclusively, and what the front found is found again."""
    graph = expanding_chain(rows, width, wide)
    graph = streamed(graph) if stream else graph
    for point in pareto(graph, CHIP, points=6):
        for objective, figure in ((Objective.LATENCY, "cycles"), (Objective.ENERGY, "energy_pj")):
            program = compile_graph(graph, CHIP, memory_bytes=point.memory_bytes, objective=objective)
            assert program.meta["peak_bytes"] <= point.memory_bytes and getattr(
                Trace(program, CHIP), figure
            ) <= getattr(point, figure) * (1 + 1e-9), point


FIGURES = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6))


def point_of(figures, constant_bytes=1) -> Point:
    return Point(str(figures), constant_bytes, figures[0] - constant_bytes, figures[1], float(figures[2]), 10, 1.0, ())


@given(st.lists(FIGURES, max_size=40))
def test_nothing_dominated_stays_and_nothing_else_goes(figures):
    def beaten(a):
        return any(b != a and all(x <= y for x, y in zip(b, a)) for b in figures)

    assert [p.figures for p in undominated(map(point_of, figures))] == sorted({f for f in figures if not beaten(f)})


@given(st.lists(st.lists(FIGURES, min_size=1, max_size=6), min_size=2, max_size=3))
def test_several_chip_functions_share_one_activation_area(fronts):
    """Against all choices of one point a function: the combination of least cycles (energy) within every limit is
    found, and costs add up."""
    fronts = [undominated(map(point_of, front)) for front in fronts]
    found = combined(fronts)
    every = [
        (
            len(fronts) + max(p.activation_bytes for p in choice),
            sum(p.cycles for p in choice),
            sum(p.energy_pj for p in choice),
        )
        for choice in itertools.product(*fronts)
    ]
    assert all(
        p.figures[0] in {e[0] for e in every} and p.constant_bytes == len(fronts) and p.macs == 10 * len(fronts)
        for p in found
    )
    for limit in {e[0] for e in every}:
        for figure in (1, 2):
            assert min(p.figures[figure] for p in found if p.figures[0] <= limit) == min(
                e[figure] for e in every if e[0] <= limit
            )


def test_no_plan_goes_below_the_bound_also_where_sums_see_their_input_row_by_row():
    """Random nets, and one that ends in a global sum over rows: its input never exists as a whole, and its sums are one
    row."""
    summed = RandomFunction(Random(3))
    summed.params = [relax.Var("x", relax.TensorType((1, 16, 8, 4), "int8"))]
    summed.values = list(summed.params)
    x = summed.emit(
        dialect.Conv2d(padding=(1, 1, 1, 1)),
        summed.params[0],
        summed.constant((16, 3, 3, 4)),
        *summed._channel_vectors(16, 36),
    )
    summed.emit(dialect.ReduceSum((1, 2), True, 0, 2**22, 30), x)
    functions = [summed.finish()] + [RandomFunction(Random(seed), 1).grow(8).finish(1) for seed in range(12)]
    for graph in (
        streamed(g) if stream else g
        for function in functions
        for g in [from_function(function["main"])]
        for stream in (False, True)
    ):
        program = compile_graph(graph, CHIP, objective=Objective.MEMORY)
        assert (
            least_possible_bytes(graph).size_bytes <= program.meta["live_bytes"]
            and program.meta["least_bytes"] <= program.meta["live_bytes"]
        )


def test_a_graph_without_layers_is_one_point():
    function = RandomFunction(Random(1))
    assert len(pareto(from_function(function.finish()["main"]), CHIP)) == 1


def test_labels_are_true_of_their_rows():
    """The least memory is the first row's, whatever another was looked for as."""

    def named(*rows):
        return [Point(how, 10, memory, 100 - memory, 1.0, 10, 1.0, ()) for how, memory in rows]

    found = labelled(named(("latency", 5), ("energy", 6), (LEAST, 8), ("latency", 9), (WHOLE, 20)))
    assert [p.how for p in found] == [LEAST, "energy", "memory", "latency", WHOLE]
    assert [p.how for p in labelled(named((LEAST, 8), (WHOLE, 20)))] == [LEAST, WHOLE]
    assert [p.how for p in labelled(named((WHOLE, 5)))] == [WHOLE] and labelled([]) == []


def test_the_front_includes_what_a_limit_reaches_beyond_the_objectives_multiplications(graph):
    """No limit that compiling meets is below the first point."""
    front = pareto(graph, CHIP, points=4)
    with pytest.raises(OutOfMemoryError):
        compile_graph(graph, CHIP, memory_bytes=front[0].memory_bytes - 1)
