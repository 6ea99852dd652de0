"""Small subproblems of `benchmarks/tune_optimum.py`: in 5 % of its schedules the search finds one within 2 % of the
best there is, within the budgets."""

import sys
from pathlib import Path

import pytest

from tvm_ergo import evaluation
from tvm_ergo.codegen.tuning.figures import Goal, best_point

sys.path.append(str(Path(__file__).resolve().parents[2]))  # benchmarks are no package of the product

from benchmarks.tune_optimum import ON, RESNET8, Problem, best, budget_of, enumerate_all, searched  # noqa: E402

pytestmark = pytest.mark.skipif(
    not evaluation.has_shared(), reason="the shared models and data are absent (set ERGO_SHARED)"
)


@pytest.mark.parametrize(
    "problem",
    [Problem(RESNET8, 2, 3, {"rows": (0, 2), "tile": (1, 2), "inner": (0, 1)}, forms=False), Problem(RESNET8, 2, 2)],
)
def test_within_two_percent_of_the_optimum_in_a_twentieth_of_the_space(problem):
    every = enumerate_all("small", problem)
    budget, trials = budget_of(every), len(every.figures) // 20
    optimum = best(every.figures.values(), Goal.ENERGY, budget)
    assert trials >= 4 and not all(best_point(Goal.ENERGY, f, budget, ON) for f in every.figures.values())
    tasks = [searched(every, Goal.ENERGY, budget, trials, seed) for seed in (1, 1, 2)]
    assert list(tasks[0].records.items()) == list(tasks[1].records.items())
    for task in tasks:
        assert len(task.records) <= trials
        assert best(task.records.values(), Goal.ENERGY, budget) <= 1.02 * optimum
