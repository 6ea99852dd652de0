"""What TVM's search calls: the postprocessor that enforces budgets, the mutator of decisions, builder and runner."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence

from tvm.ir.utils import derived_object
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms

from tvm_ergo.codegen.tuning.budget import Gate
from tvm_ergo.codegen.tuning.context import LOGGER
from tvm_ergo.codegen.tuning.figures import Figures
from tvm_ergo.codegen.tuning.task import Task
from tvm_ergo.codegen.tuning.workload import WAY, canonical, sampled, samplings
from tvm_ergo.target.errors import ErgoError, RemoteError

Measure = Callable[[Task, Sequence[int]], Figures]
"""``measure(task, decisions)``: what the Program costs that carries them out; raises an ErgoError where there is
none."""
FAILED_S = 1e10
"""What TVM is told a schedule takes that cannot be carried out: an infinity would stop its arithmetic."""
MORE = 0.45
"""Chance that a mutation changes one decision more."""


def postproc(task: Task, gate: Gate):
    """Rejects what exceeds a budget, before it costs a trial; leaves schedules that mean the same equal."""

    @derived_object
    class WithinBudget(ms.postproc.PyPostproc):
        def _initialize_with_tune_context(self, context) -> None:
            """Nothing of the context is needed."""

        def apply(self, sch) -> bool:
            try:
                values = [c.candidates[place] for c, place in zip(task.space.choices, sampled(sch.trace), strict=True)]
                way = task.met(values)
                if way.key not in task.records and not gate.passes(task, way):
                    return False
                canonical(sch, task.space, task.digest, way)
                return True
            except Exception:  # would end the whole tuning inside of TVM
                LOGGER.exception("a schedule is left out")
                return False

        def clone(self):
            return postproc(task, gate)

    return WithinBudget()


def mutator(task: Task, seed: int):
    """Changes one or a few decisions, neighbouring values first."""
    rng = random.Random(seed)

    @derived_object
    class MutateDecisions(ms.mutator.PyMutator):
        def _initialize_with_tune_context(self, context) -> None:
            """Nothing of the context is needed."""

        def apply(self, trace, _random_state):
            try:
                return mutated(trace, task, rng)
            except Exception:  # as above
                LOGGER.exception("a mutation is left out")
                return None

        def clone(self):
            return mutator(task, seed)

    return MutateDecisions()


def mutated(trace, task: Task, rng: random.Random):
    """The trace with some decisions changed; None where there is nothing to decide."""
    if not task.space.choices:
        return None
    instructions = samplings(trace)
    for i, place in changed([int(trace.get_decision(instruction)) for instruction in instructions], task, rng):
        trace = trace.with_decision(instructions[i], place, True)
    return trace


def changed(places: Sequence[int], task: Task, rng: random.Random) -> Iterator[tuple[int, int]]:
    """Which decisions change, and to which of their candidates, neighbouring ones first. places : of the candidates
    they are at."""
    choices = task.space.choices
    changing = {rng.randrange(len(choices))}
    while rng.random() < MORE:
        changing.add(rng.randrange(len(choices)))
    for i in sorted(changing):
        count, old = len(choices[i].candidates), places[i]
        near = [place for place in (old - 1, old + 1) if 0 <= place < count]
        others = [place for place in range(count) if place != old]
        if others:
            yield i, rng.choice(near if rng.random() < 0.5 else others)


def builder(tasks: Mapping[str, Task]):
    """What is handed to the runner in place of a file is a text: the task and the decisions."""

    @derived_object
    class Decisions(ms.builder.PyBuilder):
        def build(self, build_inputs):
            return [ms.builder.BuilderResult(artifact(given.mod, tasks), None) for given in build_inputs]

    return Decisions()


def artifact(mod, tasks: Mapping[str, Task]) -> str:
    """JSON: ``task``, ``way`` and ``values`` of a module that the postprocessor has seen."""
    sch = Schedule(mod, debug_mask="none", error_render_level="fast")
    name, key = str(sch.get(sch.get_sblock("n0")).annotations[WAY]).split(" ", 1)
    return json.dumps({"task": name, "way": key, "values": tasks[name].ways[key]})


def runner(
    tasks: Mapping[str, Task],
    measure: Measure,
    score: Callable[[Task, Figures], float],
    found: dict[tuple[str, str], Figures | None],
):
    """Prices what the builder names with the machine's model. found : takes the figures by task and way."""

    @derived_object
    class Emulated(ms.runner.PyRunner):
        def run(self, runner_inputs):
            return [future(json.loads(str(given.artifact_path))) for given in runner_inputs]

    def future(given: dict):
        @derived_object
        class Result(ms.runner.PyRunnerFuture):
            def done(self) -> bool:
                return True

            def result(self):
                try:
                    figures = measure(tasks[given["task"]], given["values"])
                except RemoteError:
                    raise  # says nothing about the schedule
                except ErgoError as error:
                    found[given["task"], given["way"]] = None
                    LOGGER.info("%s", error)
                    return ms.runner.RunnerResult([FAILED_S], None)
                found[given["task"], given["way"]] = figures
                return ms.runner.RunnerResult([score(tasks[given["task"]], figures)], None)

        return Result()

    return Emulated()
