"""One task on its way through the search: TVM's context for it, how much another trial promises, when it has no
more."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

import tvm
from tvm.s_tir import meta_schedule as ms

from tvm_ergo.codegen.tuning.budget import Gate
from tvm_ergo.codegen.tuning.context import tune_context
from tvm_ergo.codegen.tuning.near import Near
from tvm_ergo.codegen.tuning.rules import mutator, postproc
from tvm_ergo.codegen.tuning.task import Task
from tvm_ergo.codegen.tuning.workload import schedule_fn

BATCH, LEAST_BATCH, PER_TRIAL = 16, 4, 320
"""Trials between two times of learning: less in small spaces, one for so many combinations, where the search is over
before it has learned otherwise."""
POPULATION, FRESH, GENERATIONS, RETRIES = 24, 8, 2, 3
DRAWS = 50
"""Populations drawn at most until FRESH schedules are within the budgets; TVM's 5 end a search under a tight budget at
once."""
WINDOW, BACKWARD = 2 * BATCH, 0.2
"""Of the gradient: trials over which a task's gain is looked at, and the share of that in what it promises."""
EMPTY = 8
"""Rounds without a new schedule after which a task has no more."""


@dataclass(eq=False)
class Course:
    """One task on its way: TVM's context, what proposes neighbours of the best trials, the best score after each trial,
    rounds that brought nothing (empty), all rounds; whether TVM's search still draws schedules within the budgets."""

    task: Task
    context: ms.TuneContext
    workload: object
    near: Near
    best: list[float] = field(default_factory=list)
    empty: int = 0
    rounds: int = 0
    drawn: bool = True

    @property
    def done(self) -> bool:
        return self.empty >= EMPTY or not self.task.space.choices

    @property
    def gain(self) -> float:
        """What another trial promises: the gains of the last ones, and what would be left if all were as good as the
        trials there were."""
        if not self.best:
            return inf
        lately = self.best[-WINDOW:]
        return self.task.weight * (
            BACKWARD * (lately[0] - lately[-1]) / len(lately) + (1 - BACKWARD) * self.best[-1] / len(self.best)
        )


def batch_of(task: Task) -> int:
    """Trials between two times of learning."""
    return max(LEAST_BATCH, min(BATCH, task.space.size // PER_TRIAL))


def context_of(task: Task, gate: Gate, target: tvm.target.Target, strategy: str, seed: int) -> ms.TuneContext:
    """TVM's search of a task within the budgets. strategy : see `search.Settings`."""
    space = ms.space_generator.ScheduleFn(
        schedule_fn(task.space, *task.seeds),
        sch_rules=[],
        postprocs=[postproc(task, gate)],
        mutator_probs={mutator(task, seed): 1.0},
    )
    if strategy == "random":
        searched = ms.search_strategy.ReplayTrace(max_fail_count=100)
    else:
        searched = ms.search_strategy.EvolutionarySearch(
            population_size=POPULATION,
            init_min_unmeasured=FRESH,
            genetic_num_iters=GENERATIONS,
            max_fail_count=DRAWS,
            genetic_max_fail_count=RETRIES,
            eps_greedy=0.1,
        )
    return tune_context(task.module, target, space, searched, task.digest, seed)
