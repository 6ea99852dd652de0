"""The search in space: limits are met exactly or refused with the least there is, and more memory is never slower."""

import os
import re
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings

import tvm_ergo
from tvm_ergo.codegen.compile import compile_function, compile_graph, emit_program
from tvm_ergo.codegen.explore import pareto
from tvm_ergo.codegen.graph import from_function
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.plan import make_plan
from tvm_ergo.codegen.planned import described, remade
from tvm_ergo.codegen.space import Objective, SpacePlan, choose
from tvm_ergo.codegen.space.check import check
from tvm_ergo.codegen.space.paths import Paths
from tvm_ergo.codegen.space.plan import tighter
from tvm_ergo.codegen.space.prepare import prepared
from tvm_ergo.codegen.space.remembered import forget
from tvm_ergo.codegen.space.segments import linear_cuts
from tvm_ergo.codegen.stream import streamed
from tvm_ergo.codegen.testing import RandomFunction
from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.target.errors import OutOfMemoryError
from tvm_ergo.target.machine import Trace

from .tall import CHIP, RANDOMS, SLOW, TallFunction, assert_same, run, tall, wide_chain  # noqa: F401

SHARED = Path(os.environ.get("ERGO_SHARED", "../shared"))
DS_CNN = SHARED / "models/tinyml/kws_dscnn_qdq_int8.onnx"
SUMS = 1.02
"""Plans of many steps are chosen by the sum of their parts' figures, which the whole Program's differ from: engines
overlap across cuts."""


def test_wide_tensors_never_exist_as_a_whole(wide_chain):
    mod, graph, inputs = wide_chain
    program = compile_function(mod["main"], CHIP, objective=Objective.MEMORY)
    whole = compile_function(mod["main"], CHIP)
    frame, wide = 32 * 8 * 4, 32 * 8 * 16
    assert whole.meta["activation_bytes"] >= frame + 2 * wide and whole.meta["space"] is None
    assert program.meta["activation_bytes"] < frame + wide / 2
    space = program.meta["space"]
    assert 1.0 <= space["mac_overhead"] <= 1.35 and space["groups"] and (space["rolling"] or space["stages"])
    assert not set(space["rolling"]) & {t["name"] for t in program.meta["tensors"]}
    assert_same(run(program, inputs).values(), build_cpu(mod)(*inputs.values()))


def test_every_limit_between_least_and_whole_is_met(wide_chain):
    _, graph, inputs = wide_chain
    whole, least = (
        make_plan(graph, 1 << 20).memory_bytes,
        choose(graph, CHIP, 1 << 20, Options(), Objective.MEMORY).memory_bytes,
    )
    expected = run(compile_graph(graph, CHIP), inputs)
    cycles = []
    for limit in np.linspace(least, whole, 6).astype(int).tolist():
        program = compile_graph(graph, CHIP, memory_bytes=limit)
        assert program.meta["peak_bytes"] <= limit == program.memory_bytes
        assert_same(run(program, inputs).values(), expected.values())
        cycles.append(len(program.instructions))
    assert cycles[0] > cycles[-1] == len(graph.nodes) + 1


@settings(max_examples=15, **SLOW)
@given(RANDOMS)
def test_random_graphs_meet_random_limits_exactly(random):
    """Least memory, then limits from it up to whole layers, for time and for energy, inputs resident or streamed."""
    function = (
        tall(random, random.randint(4, 10))
        if random.random() < 0.8
        else RandomFunction(random, random.randint(1, 2)).grow(10)
    )
    resident, inputs = from_function(function.finish(random.randint(1, 2))["main"]), function.arrays_for_inputs()
    graph = streamed(resident) if random.random() < 0.5 else resident
    expected = run(emit_program(make_plan(resident, 1 << 20), CHIP), inputs)
    whole, least = choose(graph, CHIP, 1 << 20), choose(graph, CHIP, 1 << 20, Options(), Objective.MEMORY)
    assert least.memory_bytes <= whole.memory_bytes
    plans = [(1 << 20, least)]
    for limit in (least.memory_bytes, random.randint(least.memory_bytes, whole.memory_bytes)):
        objective = random.choice([Objective.LATENCY, Objective.ENERGY])
        plans.append((limit, choose(graph, CHIP, limit, Options(), objective)))
    for limit, plan in plans:
        assert plan.memory_bytes <= limit and (not isinstance(plan, SpacePlan) or check(plan) is None)
        assert_same(run(emit_program(plan, CHIP, limit), inputs).values(), expected.values())


@settings(max_examples=12, **SLOW)
@given(RANDOMS)
def test_more_memory_is_never_slower_and_compiling_gives_what_explore_shows(random):
    """Whatever was looked for before: nothing is remembered from one limit to the next."""
    graph = from_function(tall(random, random.randint(3, 8)).finish(random.randint(1, 2))["main"])
    graph = streamed(graph) if random.random() < 0.5 else graph
    front = pareto(graph, CHIP, points=5)
    objective, figure = random.choice([(Objective.LATENCY, "cycles"), (Objective.ENERGY, "energy_pj")])
    before = np.inf
    for point in front:
        forget()
        plan = choose(graph, CHIP, point.memory_bytes, Options(), objective)
        cost = getattr(Trace(emit_program(plan, CHIP), CHIP), figure)
        if isinstance(plan, SpacePlan):  # whole layers are taken at once where they fit
            assert cost <= SUMS * min(getattr(point, figure), before)
        before = cost


@pytest.mark.skipif(not DS_CNN.exists(), reason="ERGO_SHARED has no models/tinyml/kws_dscnn_qdq_int8.onnx")
def test_ds_cnn_in_little_memory_is_as_fast_as_explore_says():
    """32,154 bytes: 22,042 cycles in `explore`, 60,004 from compiling as long as each limit had a search of its own."""
    before = np.inf
    for memory in (31334, 32154, 33134, 34115):
        forget()
        (program,) = tvm_ergo.compile(DS_CNN, memory=memory).programs.values()
        cycles = Trace(program, CHIP.with_memory(memory)).cycles
        assert program.meta["peak_bytes"] <= memory and cycles <= before
        before = cycles
        if memory == 32154:
            assert cycles <= 22042


def test_what_cannot_fit_names_the_best_peak(wide_chain):
    _, graph, _ = wide_chain
    least = choose(graph, CHIP, 1 << 20, Options(), Objective.MEMORY)
    with pytest.raises(OutOfMemoryError) as caught:
        compile_graph(graph, CHIP, memory_bytes=least.constant_bytes + 1000)
    text = str(caught.value)
    reached = int(
        re.search(r"a peak of (\d+) bytes", text)[1]
    )  # without the limit of multiply-accumulates that `least` has
    assert (
        least.constant_bytes + 1000 < reached <= least.memory_bytes
        and "rows and tiles" in text
        and "goes below 1024: the inputs" in text
    )
    with pytest.raises(OutOfMemoryError, match="constants alone exceed"):
        compile_graph(graph, CHIP, memory_bytes=least.constant_bytes - 1)


@settings(max_examples=20, **SLOW)
@given(RANDOMS)
def test_paths_end_at_the_last_node_and_cuts_are_crossed_by_one_tensor(random):
    graph = from_function(tall(random, 8).finish()["main"])
    paths = Paths(graph, CHIP)
    path = paths.smallest()
    assert path.parts[-1][0].last_node == graph.nodes[-1].id and [s.first for s, _ in path.parts[1:]] == [
        s.last + 1 for s, _ in path.parts[:-1]
    ]
    assert check(paths.plan(path)) is None
    for cut in linear_cuts(graph)[:-1]:
        before, behind = graph.nodes[: cut + 1], graph.nodes[cut + 1 :]
        made, later = ({t for node in nodes for t in node.outputs} for nodes in (before, behind))
        read = {t for node in behind for t in node.inputs if graph.tensors[t].data is None}
        crossing = (read - later) | (made & set(graph.outputs))
        assert crossing <= set(graph.nodes[cut].outputs)


def test_the_largest_of_the_segments_peaks_is_the_plans(wide_chain):
    paths = Paths(wide_chain[1], CHIP)
    path = paths.smallest()
    plan = tighter(
        paths.plan(path)
    )  # segments share the tensors at their cuts, so that together they may need a little more
    assert (
        plan.live_bytes
        <= path.peak_bytes
        == max(way.peak_bytes for _, way in path.parts)
        <= plan.activation_bytes
        <= 1.05 * path.peak_bytes
    )
    assert all(way.tight for _, way in path.parts if way.peak_bytes == path.peak_bytes)


def test_the_least_memory_meets_a_limit_that_takes_more_multiply_accumulates_than_it_may_spend(wide_chain):
    _, graph, _ = wide_chain
    least = choose(graph, CHIP, 1 << 20, Options(mac_overhead=1.0), Objective.MEMORY)
    tight = tighter(Paths(graph, CHIP).plan(Paths(graph, CHIP).smallest()))
    assert tight.memory_bytes < least.memory_bytes
    plan = choose(graph, CHIP, tight.memory_bytes, Options(mac_overhead=1.0), Objective.MEMORY)
    assert plan.memory_bytes <= tight.memory_bytes and check(plan) is None


def test_a_described_plan_is_made_again_of_the_graph_as_it_was_before_the_search():
    """Plans of rows are of the prepared graph, which may have more nodes."""
    function = TallFunction(Random(5)).grow(2, ("conv2d",))
    x = function.pick(4)
    function.emit(dialect.ReduceSum((1, 2), True, 0, **function.scale(200), **function.clip()), x)
    graph = from_function(function.finish()["main"])
    plan = tighter(Paths(prepared(graph), CHIP).plan(Paths(prepared(graph), CHIP).smallest()))
    again = remade(graph, described(plan))
    assert (
        len(plan.graph.nodes) > len(graph.nodes) and again.memory_bytes == plan.memory_bytes and str(again) == str(plan)
    )


def test_a_refusal_names_whole_layers_where_rows_and_tiles_need_more():
    """Averages over a large input run early or late: whole layers take another order, the search in space keeps the
    given one."""
    function = TallFunction(Random(1))
    x = function.pick(4)
    for _ in range(2):
        function.emit(dialect.Table(), x, function.constant((256,)))
    function.emit(dialect.ReduceSum((1, 2), True, 0, **function.scale(200), **function.clip()), x)
    graph = from_function(function.finish(3)["main"])
    with pytest.raises(OutOfMemoryError) as caught:
        choose(graph, CHIP, 1)
    peak = int(re.search(r"a peak of (\d+) bytes", str(caught.value))[1])
    assert peak <= make_plan(graph, 1 << 30).memory_bytes and choose(graph, CHIP, peak).memory_bytes == peak
    with pytest.raises(OutOfMemoryError):
        choose(graph, CHIP, peak - 1)
