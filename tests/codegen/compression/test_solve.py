"""The selection against brute force: least cost below a limit, least peak, one way a tensor."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.codegen.compression.solve import Choice, Problem, Selection, solve


def problems():
    times = st.integers(1, 6)
    return times.flatmap(
        lambda n: st.builds(
            lambda base, choices: Problem(
                np.array(base), tuple(Choice(t, np.array(delta), cost) for t, delta, cost in choices)
            ),
            st.lists(st.integers(0, 60), min_size=n, max_size=n),
            st.lists(
                st.tuples(
                    st.integers(0, 3), st.lists(st.integers(-30, 15), min_size=n, max_size=n), st.integers(0, 20)
                ),
                max_size=7,
            ),
        )
    )


def every_selection(problem: Problem):
    """All of them, one by one."""
    for size in range(len(problem.choices) + 1):
        for chosen in itertools.combinations(range(len(problem.choices)), size):
            tensors = [problem.choices[i].tensor for i in chosen]
            if len(set(tensors)) == len(tensors):
                live = problem.base.copy()
                for i in chosen:
                    live = live + problem.choices[i].delta
                yield max(0, int(live.max())), sum(problem.choices[i].cost for i in chosen)


def legal(problem: Problem, found: Selection):
    tensors = [problem.choices[i].tensor for i in found.chosen]
    assert len(set(tensors)) == len(tensors) and found.optimal
    assert found.peak_bytes == problem.peak_bytes(found.chosen) and found.cost == problem.cost(found.chosen)


@settings(max_examples=80, deadline=None)
@given(problems())
def test_least_peak_and_of_those_the_least_cost(problem):
    found = solve(problem)
    legal(problem, found)
    assert (found.peak_bytes, found.cost) == min(every_selection(problem))


@settings(max_examples=80, deadline=None)
@given(problems(), st.integers(0, 60))
def test_least_cost_below_a_limit(problem, limit):
    found = solve(problem, limit)
    fitting = [cost for peak, cost in every_selection(problem) if peak <= limit]
    assert (found is None) == (not fitting)
    if found is not None:
        legal(problem, found)
        assert found.peak_bytes <= limit and found.cost == min(fitting)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_times_left_out_are_never_the_peak(problem):
    kept = problem.relevant()
    for chosen in itertools.chain.from_iterable(
        itertools.combinations(range(len(problem.choices)), n) for n in range(4)
    ):
        live = problem.live_bytes(chosen)
        assert live[kept].max() == live.max()
