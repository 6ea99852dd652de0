"""The selection of one record a part is the best there is: compared with all selections."""

import itertools
from math import inf
from random import Random

import pytest

from tvm_ergo.codegen.tuning.combine import Record, select
from tvm_ergo.codegen.tuning.figures import Budget, Figures, Goal, cost, together
from tvm_ergo.target.chip import chip

CHIP = chip("ergo/1")


def random_options(random: Random) -> list[list[Record]]:
    def figures() -> Figures:
        cycles, energy, activations = random.randint(1000, 9000), random.uniform(1e6, 9e6), random.randint(100, 900)
        points = {p.name: energy * (p.voltage_v / 0.8) ** 2 + CHIP.leakage_pj(cycles, p) for p in CHIP.points}
        return Figures(cycles, points, random.randint(100, 900), activations, activations - random.randint(0, 50))

    return [[Record(f"{i}.{k}", figures()) for k in range(random.randint(1, 4))] for i in range(random.randint(1, 4))]


@pytest.mark.parametrize("goal", list(Goal))
def test_selections_are_the_best_of_all(goal):
    found_some = 0
    for seed in range(25):
        random = Random(seed)
        options = random_options(random)
        budget = Budget(
            random.randint(1500, 4000),
            random.choice([inf, random.uniform(20, 400)]),
            random.choice([0.0, 1000.0, 9000.0]),
        )
        point = random.choice(CHIP.points)
        allowed = [together([r.figures for r in chosen]) for chosen in itertools.product(*options)]
        allowed = [f for f in allowed if budget.allows(f, CHIP, point)]
        chosen = select(
            options,
            goal,
            budget,
            CHIP,
            point,
            about=allowed[0] if allowed else together([o[0].figures for o in options]),
        )
        assert (chosen is None) == (not allowed)
        if chosen is not None:
            found_some += 1
            figures = together([r.figures for r in chosen])
            assert budget.allows(figures, CHIP, point)
            best = min(cost(goal, f, point) for f in allowed)
            assert cost(goal, figures, point) <= best * (1.02 if goal is Goal.EDP else 1.001)
    assert found_some > 5


def test_a_refused_selection_is_not_made_again():
    options = next(found for seed in range(50) if sum(map(len, found := random_options(Random(seed)))) > 6)
    budget, seen = Budget(1 << 20), []
    for _ in range(3):
        chosen = select(options, Goal.LATENCY, budget, CHIP, CHIP.points[0], refused=seen)
        if chosen is None:
            break
        assert chosen not in seen
        seen.append(chosen)
    assert len(seen) > 1
