"""Traces: replayed in another process they mean the same; equal parts are structurally equal, and schedules that mean
the same as well."""

import json
import subprocess
import sys
from random import Random

from tvm_ffi import structural_equal

from tvm_ergo.codegen.tuning.rules import artifact, mutated
from tvm_ergo.codegen.tuning.workload import canonical, prim_func, replayed, trace_json, way_of


def test_a_trace_as_json_means_the_same_when_it_is_replayed(make_bed):
    random = Random(3)
    for task in make_bed().tasks:
        for _ in range(8):
            values = [random.choice(choice.candidates) for choice in task.space.choices]
            text = json.dumps(trace_json(task.trace(values)))
            assert way_of(replayed(task.space, json.loads(text)).trace, task.space).key == task.space.way(values).key


REPLAY = """
import json, sys
sys.path.insert(0, {tests!r})
from conftest import bed
from tvm_ergo.codegen.tuning.workload import replayed, way_of
task = bed().tasks[-1]
print(way_of(replayed(task.space, json.loads(sys.argv[1])).trace, task.space).key)
"""


def test_a_trace_replays_in_a_fresh_process(make_bed):
    task = make_bed().tasks[-1]
    values = [choice.candidates[-1] for choice in task.space.choices]
    code = REPLAY.format(tests=__file__.rsplit("/", 1)[0])
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, json.dumps(trace_json(task.trace(values)))], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == task.space.way(values).key


def test_parts_that_cost_the_same_are_equal_whatever_their_weights(make_bed, make_net):
    a, b = (make_bed(make_net(seed=seed)).tasks for seed in (0, 1))
    assert [t.digest for t in a] == [t.digest for t in b]
    for one, other in zip(a, b, strict=True):
        assert structural_equal(prim_func(one.space), prim_func(other.space))
    assert not structural_equal(a[-1].module["main"], make_bed(make_net(channels=9)).tasks[-1].module["main"])


def test_schedules_that_mean_the_same_become_equal_modules_and_name_their_way(make_bed):
    task = make_bed().tasks[-1]
    whole = [0 if choice.name in ("fuse", "rows") else choice.candidates[0] for choice in task.space.choices]
    idle = [
        choice.candidates[-1] if choice.name == "tile" else value for choice, value in zip(task.space.choices, whole)
    ]  # tiles of no stage
    modules = []
    for values in (whole, idle):
        sch = replayed(task.space, task.trace(values))
        canonical(sch, task.space, task.digest, task.met(values))
        modules.append(sch.mod)
        assert json.loads(artifact(sch.mod, {task.digest: task}))["way"] == task.space.way(values).key
    assert whole != idle and structural_equal(*modules)


def test_mutations_change_decisions_into_other_candidates(make_bed):
    task, random = make_bed().tasks[-1], Random(0)
    trace, changed = task.trace(task.seeds[0]), 0
    for _ in range(30):
        new = mutated(trace, task, random)
        changed += way_of(new, task.space) != way_of(trace, task.space)
        trace = new
    assert changed > 10
