"""Decisions and what they mean: the plan they were read from comes back, random ones can be carried out and give the
same results."""

from random import Random

import numpy as np
import pytest

from tvm_ergo.codegen.compile import emit_program
from tvm_ergo.codegen.plan import make_plan
from tvm_ergo.codegen.tuning.parts import parts_of
from tvm_ergo.codegen.tuning.task import tasks_of
from tvm_ergo.target.machine import Machine


@pytest.mark.parametrize("memory", [40 * 1024, 10 * 1024, 8 * 1024])
def test_the_default_plan_is_read_and_comes_back(make_bed, memory):
    for task in make_bed(memory=memory).tasks:
        (_, part), values = task.parts[0], task.seeds[0]
        way = task.space.way(values)
        assert (dict(way.bands), dict(way.stages)) == (part.bands, part.stages)
        assert {n for n in part.barriers if n in dict(way.bands)} <= set(way.barriers)


def test_equal_bottlenecks_are_one_task(make_bed, make_net):
    bed = make_bed(make_net(blocks=3), memory=1 << 20)
    tasks = tasks_of([("f", part) for part in parts_of(bed.function.plan, most_units=1)], bed.chip)
    assert max(task.weight for task in tasks) == 3


def test_random_decisions_give_the_same_results_in_fewer_or_more_cycles(make_bed):
    random, bed = Random(0), make_bed()
    task = max(bed.tasks, key=lambda t: len(t.space.choices))
    graph = task.space.graph
    plain = emit_program(make_plan(graph, 1 << 30), bed.chip.with_memory(1 << 20))
    rng = np.random.default_rng(0)
    inputs = {p.name: rng.integers(-128, 128, p.operand.shape).astype(np.int8) for p in plain.inputs}
    expected = list(Machine(plain, bed.chip.with_memory(1 << 20)).run(inputs).outputs.values())
    cycles = set()
    for _ in range(25):
        way = task.space.way([random.choice(choice.candidates) for choice in task.space.choices])
        program = emit_program(task.bench.plan(way), bed.chip.with_memory(1 << 20))
        outputs = Machine(program, bed.chip.with_memory(1 << 20), strict=True).run(inputs).outputs.values()
        for a, b in zip(outputs, expected, strict=True):
            np.testing.assert_array_equal(a, b)
        cycles.add(task.bench.measure(way).cycles)
    assert len(cycles) > 5


def test_no_way_lives_in_less_than_its_bound(make_bed):
    random, bed = Random(1), make_bed()
    for task in bed.tasks:
        for _ in range(40):
            way = task.space.way([random.choice(choice.candidates) for choice in task.space.choices])
            assert task.bench.least_bytes(way) <= task.bench.look(way).live_bytes
