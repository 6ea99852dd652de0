"""Choosing what waits compressed: limits are met, values are those of the CPU, data beyond the slots are counted,
nothing is promised in vain."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tvm_ergo.codegen.compile import compile_function
from tvm_ergo.codegen.compression import compress, needs_compression, rows_of
from tvm_ergo.codegen.compression.choose import NO_LIMIT
from tvm_ergo.codegen.compression.solve import solve
from tvm_ergo.codegen.compression.statistics import MARGIN, Spec, candidates, specs_of
from tvm_ergo.codegen.compression.waiting import problem_of
from tvm_ergo.codegen.fuse import fuse
from tvm_ergo.codegen.graph import from_function
from tvm_ergo.codegen.plan import make_plan
from tvm_ergo.codegen.planned import described, remade, same_plan
from tvm_ergo.codegen.space import Objective, choose
from tvm_ergo.codegen.testing import RandomFunction
from tvm_ergo.relay_passes.compile.insert_compression import insert
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.machine import Machine

from .nets import CHIP, Waits, statistics


@pytest.fixture(scope="module")
def net():
    function = Waits()
    mod = function.finish()
    return function, mod, mod["main"], statistics(mod["main"], function.pictures(6))


def test_statistics_are_what_the_layouts_need(net):
    function, mod, func, measured = net
    graph = from_function(func)
    assert set(measured) == {t.name for t in candidates(graph)} and len(measured) == 5
    for known in measured.values():
        assert set(known.coded) == set(specs_of(known.shape))
        for spec, coded in known.coded.items():
            assert coded.shape == (6, -(-known.shape[1] // spec.tile_rows)) and coded.min() >= 4
            layout = known.layout(spec)
            assert coded.max() <= layout.slot_bytes <= max(coded.max() + 1, coded.max() * MARGIN + 1)
            mean, worst = known.bits_per_value(spec)
            assert 0 < mean <= worst <= 9
            assert known.layout(spec, lossless=True).max_error(known.shape[1:]) == 0


def test_the_model_of_whole_layers_is_the_real_plan(net):
    function, mod, func, measured = net
    graph = from_function(func)
    plan = make_plan(graph, NO_LIMIT)
    problem = problem_of(plan, graph, measured, CHIP)
    assert problem.base.max() == plan.live_bytes
    for i, choice in enumerate(problem.choices):
        changed = insert(func, {choice.key.name: choice.key.decision})
        assert make_plan(from_function(changed), NO_LIMIT).live_bytes == problem.peak_bytes((i,))


def test_a_limit_that_only_compression_of_whole_layers_meets(net):
    function, mod, func, measured = net
    graph = from_function(func)
    whole = make_plan(graph, NO_LIMIT)
    least = solve(problem_of(whole, graph, measured, CHIP)).peak_bytes
    assert least < whole.activation_bytes
    limit = whole.constant_bytes + least + 64
    found = compress(func, CHIP, limit, Objective.LATENCY, measured)[0]
    assert found.plan.memory_bytes <= limit and found.decisions
    program = compile_function(found.annotated(rows_of(found.decisions, measured)), CHIP, memory_bytes=limit)
    assert program.memory_bytes == limit and program.meta["activation_bytes"] == found.plan.activation_bytes
    machine, cpu = Machine(program, CHIP, strict=True), build_cpu(mod)
    for values in function.pictures(6):
        result = machine.run(values)
        np.testing.assert_array_equal(next(iter(result.outputs.values())), cpu(*values.values())[0])
        assert result.compressed and not any(c.reduced for c in result.compressed)


def test_the_least_memory_is_less_than_without(net):
    function, mod, func, measured = net
    without = choose(from_function(func), CHIP, NO_LIMIT, objective=Objective.MEMORY)
    found = compress(func, CHIP, NO_LIMIT, Objective.MEMORY, measured)[0]
    assert found.plan.memory_bytes < without.memory_bytes
    annotated = found.annotated(rows_of(found.decisions, measured))
    program = compile_function(annotated, CHIP, objective=Objective.MEMORY)
    assert program.meta["activation_bytes"] == found.plan.activation_bytes
    parts = program.meta["space"]["subproblems"]
    assert [layer for part in parts for layer in part["layers"]] == [
        node.op.name or node.name for node in found.plan.graph.nodes
    ]
    assert max(part["peak_bytes"] for part in parts) >= found.plan.live_bytes > 0 and all(
        part["cycles"] > 0 for part in parts
    )


def test_data_unlike_the_calibration_data_are_reduced_and_counted(net):
    """Slots made for constant pictures, fed with others and with noise: the CPU computes the same, and the run says
    what was lost."""
    function, mod, func, _ = net
    measured = statistics(func, [{"x": np.full((1, 16, 6, 4), value, np.int8)} for value in (-128, -127)])
    found = compress(func, CHIP, NO_LIMIT, Objective.MEMORY, measured)[0]
    program = compile_function(found.annotated(rows_of(found.decisions, measured)), CHIP, objective=Objective.MEMORY)
    changed = mod.clone()
    changed[changed.get_global_var("main")] = found.function
    machine, cpu = Machine(program, CHIP, strict=True), build_cpu(changed)
    noise = {"x": np.random.default_rng(0).integers(-128, 128, (1, 16, 6, 4)).astype("int8")}
    reduced = []
    for values in (*function.pictures(2), noise, {"x": np.full((1, 16, 6, 4), 77, np.int8)}):
        result = machine.run(values)
        np.testing.assert_array_equal(next(iter(result.outputs.values())), cpu(*values.values())[0])
        reduced.append(sum(c.reduced for c in result.compressed))
    assert reduced[2] > 0 and [c.to_json() for c in machine.run(noise).compressed] == [
        c.to_json() for c in machine.run(noise).compressed
    ]


def test_rows_for_reports(net):
    function, mod, func, measured = net
    found = compress(func, CHIP, NO_LIMIT, Objective.MEMORY, measured)[0]
    rows = rows_of(found.decisions, measured)
    assert json.loads(json.dumps(rows)) == rows and {r["name"] for r in rows} == set(found.decisions)
    for row in rows:
        assert (
            row["stored_bytes"] == row["tiles"] * row["slot_bytes"] < row["raw_bytes"]
            and row["tiles_reduced"] == 0
            and row["samples"] == 6
        )
        assert (
            0 < row["bits_mean"] <= row["bits_worst"] <= 8 * row["stored_bytes"] / row["raw_bytes"]
            and row["max_error"] > 0
        )


def test_lossless_reserves_the_worst_case_and_so_gains_nothing(net):
    function, mod, func, measured = net
    assert compress(func, CHIP, NO_LIMIT, Objective.MEMORY, measured, lossless=True)[0] is None


def test_it_is_only_needed_where_nothing_else_fits(net):
    _, _, func, _ = net
    small = choose(from_function(func), CHIP, NO_LIMIT, objective=Objective.MEMORY)
    assert not needs_compression(func, CHIP, CHIP.memory_bytes, Objective.LATENCY)
    tiny = small.constant_bytes + small.activation_bytes // 2
    assert needs_compression(func, CHIP, tiny, Objective.LATENCY) and needs_compression(
        func, CHIP, NO_LIMIT, Objective.MEMORY
    )


def test_plans_are_handed_over(net):
    function, mod, func, measured = net
    graph = from_function(func)
    for plan in (make_plan(graph, NO_LIMIT), choose(graph, CHIP, NO_LIMIT, objective=Objective.MEMORY)):
        again = remade(graph, json.loads(json.dumps(described(plan))), plan.options)
        assert type(again) is type(plan) and again.memory_bytes == plan.memory_bytes
    assert remade(graph, {"nodes": 99, "whole": True}) is None
    name, known = next(iter(measured.items()))
    spec = Spec(Codec.BITPLANE, 1)
    layout = known.layout(spec)
    from tvm_ergo.relay_passes.compile.insert_compression import Decision

    coded = fuse(
        from_function(
            insert(func, {name: Decision("BITPLANE", 1, layout.slot_bytes, -128, keep_plain=False, one_copy=True)})
        )
    )
    assert same_plan(plan, coded).bands == plan.bands


class OneZeroPoint(RandomFunction):
    """Tall pictures, one zero point: rows that engines shrink and expand."""

    def _shape(self):
        return (1, self.random.randint(8, 20), self.random.randint(3, 6), self.random.randint(2, 4))

    def zero_point(self) -> int:
        return -9


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False), st.sampled_from(list(Objective)), st.floats(0.5, 1.2))
def test_random_functions_under_random_limits(random, objective, share):
    """Measured on one input and run on another: the strict machine equals the CPU to the bit, reduced tiles
    included."""
    function = OneZeroPoint(random).grow(
        random.randint(3, 9), ("conv2d", "overpadded", "depthwise", "pool", "add", "mul", "table", "concat", "reduce")
    )
    mod, inputs = function.finish(random.randint(1, 2)), function.arrays_for_inputs()
    func = mod["main"]
    measured = statistics(func, [{name: np.full_like(value, -9) for name, value in inputs.items()}])
    whole = make_plan(from_function(func), NO_LIMIT)
    limit = whole.constant_bytes + int(share * whole.activation_bytes)
    found = compress(func, CHIP, limit, objective, measured)[0]
    if found is None:
        return
    assert found.plan.memory_bytes <= limit
    program = compile_function(
        found.annotated(rows_of(found.decisions, measured)), CHIP, memory_bytes=limit, objective=objective
    )
    changed = mod.clone()
    changed[changed.get_global_var("main")] = found.function
    for actual, expected in zip(
        Machine(program, CHIP, strict=True).run(inputs).outputs.values(),
        build_cpu(changed)(*inputs.values()),
        strict=True,
    ):
        np.testing.assert_array_equal(actual.reshape(expected.shape), expected)
