"""What lies where the model leads: within the budgets, new, the same for the same seed; and the score that leads there,
which knows what the power allows."""

from dataclasses import replace
from random import Random

import pytest

from tvm_ergo.codegen.tuning.figures import Budget, Figures, Goal, best_point, cost
from tvm_ergo.codegen.tuning.near import Near
from tvm_ergo.codegen.tuning.score import Score
from tvm_ergo.target.chip import chip

ON = chip("ergo/1")


def test_proposals_are_new_within_the_budgets_and_the_same_again(make_bed, tmp_path):
    keys = []
    for name in ("a", "b"):
        searched = make_bed()
        search = searched.search(tmp_path / name)
        search.run_seeds()
        task = max(searched.tasks, key=lambda t: len(t.space.choices))
        near = Near(task, search.gate, search.model, 7)
        keys.append([near.proposed(8, search.score) for _ in range(2)])
        for key in keys[-1][0]:
            way = task.space.way(task.ways[key])
            assert key not in task.records and search.gate.passes(task, way)
            looked = task.bench.look(way)
            assert looked.live_bytes + looked.constant_bytes <= search.gate.room(task)
    assert keys[0] == keys[1] and len(set(keys[0][0])) == 8


def test_a_search_goes_on_where_tvm_draws_nothing(make_bed, tmp_path):
    searched = make_bed()
    search = searched.search(tmp_path / "a", trials=40)
    course_of = search._course

    def without(task, number):
        course = course_of(task, number)
        course.context = type("Nothing", (), {"generate_measure_candidates": lambda self: None})()
        return course

    search._course = without
    search.run()
    assert search.trials == 40 and not all(course.drawn for course in search.courses)
    first = sum(search.model.score.measured(task.default) for task in searched.tasks)
    assert sum(course.best[-1] for course in search.courses) < first


@pytest.mark.parametrize("goal", [Goal.LATENCY, Goal.ENERGY])
def test_the_score_is_the_cost_at_the_best_point_the_budget_allows_and_more_where_it_allows_none(goal):
    random, allowed = Random(1), 0
    for _ in range(200):
        rate, gating = random.choice([0.0, 1000.0, 9000.0]), random.random() < 0.5
        budget = Budget(1 << 20, random.uniform(2, 60), rate, gating=gating)
        cycles, energy = 2 * random.randint(500, 30000), random.uniform(1e6, 9e6)
        figures = Figures(
            cycles,
            {p.name: energy * (p.voltage_v / 0.8) ** 2 + ON.leakage_pj(cycles, p) for p in ON.points},
            5000,
            900,
            900,
        )
        score, point = Score.of(goal, ON, budget, figures), best_point(goal, figures, budget, ON)
        unit = 1.0 if goal is Goal.LATENCY else 1e-12
        if point is not None:
            allowed += 1
            assert score.measured(figures) <= unit * cost(goal, figures, point) * (1 + 1e-9)
        else:
            assert score.measured(figures) > unit * min(cost(goal, figures, p) for p in ON.points)
        less = replace(figures, cycles=int(0.9 * cycles), energy_pj={p: 0.9 * e for p, e in figures.energy_pj.items()})
        assert score.measured(less) < score.measured(figures)
        half = replace(figures, cycles=cycles // 2, energy_pj={p: e / 2 for p, e in figures.energy_pj.items()})
        assert score.measured(half, (0.5, 0.5)) == pytest.approx(score.measured(figures) / 2, rel=1e-9)
    assert 30 < allowed < 170
