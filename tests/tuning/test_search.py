"""The search: the same seed gives the same records, also when it was killed and resumed; budgets hold; the optimum of a
small space is found."""

import dataclasses
import itertools
import json

import pytest
from tvm.s_tir import meta_schedule as ms

from tvm_ergo.codegen.tuning.figures import Goal, together
from tvm_ergo.codegen.tuning.search import Settings


def records(folder) -> list[tuple]:
    return [
        (line["task"], line["way"], json.dumps(line["figures"]))
        for line in map(json.loads, (folder / "trials.jsonl").read_text().splitlines())
    ]


def test_the_same_seed_gives_the_same_trials_and_another_seed_others(make_bed, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_bed().search(tmp_path / name, seed=seed).run()
    assert records(tmp_path / "a") == records(tmp_path / "b") != records(tmp_path / "c")
    assert len(records(tmp_path / "a")) == 48 == len(set(r[:2] for r in records(tmp_path / "a")))


@pytest.mark.parametrize("after", [3, 20, 41])
def test_killed_and_resumed_it_ends_with_the_records_of_an_uninterrupted_run(make_bed, tmp_path, after):
    make_bed().search(tmp_path / "whole").run()
    with pytest.raises(RuntimeError, match="killed"):
        make_bed().search(tmp_path / "torn", fail_after=after).run()
    written = records(tmp_path / "torn")
    assert len(written) <= after
    with open(tmp_path / "torn" / "trials.jsonl", "a") as file:
        file.write('{"task": "half a li')
    resumed = make_bed()
    resumed.search(tmp_path / "torn", resume=True).run()
    assert records(tmp_path / "torn") == records(tmp_path / "whole")
    assert resumed.measured == 48 - len(written)  # what was on disk was not measured again
    for name in ("database_workload.json", "database_tuning_record.json"):
        whole, torn = ((tmp_path / f / name).read_text().splitlines() for f in ("whole", "torn"))
        assert len(whole) == len(torn) == len(set(torn))


def test_the_database_is_one_that_tvm_reads(make_bed, tmp_path):
    searched = make_bed()
    search = searched.search(tmp_path / "a")
    search.run()
    database = ms.database.JSONDatabase(
        str(tmp_path / "a" / "database_workload.json"), str(tmp_path / "a" / "database_tuning_record.json")
    )
    for task in searched.tasks:
        workload = database.commit_workload(task.module)
        top = database.get_top_k(workload, 1)
        best = min(search.score(task, f) for f in task.records.values())
        assert float(top[0].run_secs[0]) == pytest.approx(best)


def test_nothing_over_the_memory_is_measured(make_bed, tmp_path):
    searched = make_bed()
    search = searched.search(tmp_path / "a", trials=96)
    search.run()
    others = {
        t.digest: sum(o.weight * o.default.constant_bytes for o in searched.tasks) - t.default.constant_bytes
        for t in searched.tasks
    }
    assert search.gate.rejected.get("memory", 0) > 0
    for task in searched.tasks:
        for figures in task.records.values():
            assert (
                figures.constant_bytes + others[task.digest] + figures.activation_bytes
                <= 1.1 * searched.budget.memory_bytes
            )


def test_a_schedule_whose_addresses_have_no_room_is_not_what_the_search_looks_for(make_bed, tmp_path):
    searched = make_bed()
    search, task = searched.search(tmp_path / "a", trials=1), searched.tasks[0]
    search.run_seeds()
    room = search.gate.room(task) - task.default.constant_bytes
    fits, over = (dataclasses.replace(task.default, activation_bytes=room + more) for more in (0, 1))
    assert search.score(task, fits) == search.model.score.measured(fits) < search.score(task, over)


@pytest.mark.parametrize("goal", [Goal.LATENCY, Goal.ENERGY])
def test_the_optimum_of_a_space_small_enough_to_enumerate_is_found(make_bed, make_net, tmp_path, goal):
    searched = make_bed(make_net(blocks=1, size=16), memory=5 * 1024)
    task = max(searched.tasks, key=lambda t: len(t.space.choices))
    searched.tasks, task.parts = [task], task.parts
    restrict(task, 5000)
    search = searched.search(tmp_path / "a", trials=10**6, goal=goal)
    gate, every = search.gate, {}
    search.run_seeds()
    for values in itertools.product(*(c.candidates for c in task.space.choices)):
        way = task.space.way(values)
        if way.key not in every:
            every[way.key] = (
                search.model.score.measured(task.bench.measure(way)) if gate.passes(task, way) else float("inf")
            )
    search.settings = Settings(max(8, len(every) // 20))
    search.run()
    found = min(search.model.score.measured(f) for f in task.records.values())
    assert search.trials <= max(8, len(every) // 20) + 1
    assert found <= 1.02 * min(every.values()), (found, min(every.values()), len(every))


def restrict(task, size: int) -> None:
    """Leaves values of decisions out, of those with most first, until a space can be enumerated; the schedule it starts
    from stays."""
    space, seed = task.space, task.seeds[0]
    task.seeds = [seed]
    while space.size > size:
        widest = max(space.choices, key=lambda c: len(c.candidates))
        first = seed[space.choices.index(widest)]
        kept = tuple(
            value
            for place, value in enumerate(widest.candidates)
            if value == first or place % 2 == widest.candidates.index(first) % 2
        )
        kept = kept if len(kept) > 1 or len(widest.candidates) == 2 else widest.candidates[:2]
        space.choices = tuple(
            dataclasses.replace(c, candidates=kept if first in kept else (first, *kept)) if c is widest else c
            for c in space.choices
        )


def test_while_the_budget_is_missed_what_may_take_less_is_tried(make_bed, tmp_path):
    searched = make_bed(frames_per_s=10_000.0, power_mw=1e6)
    search = searched.search(tmp_path / "a", trials=1)
    search.run_seeds()
    figures = together([t.default for t in searched.tasks for _ in range(t.weight)])
    least = min(
        searched.budget.power(figures.cycles, figures.energy_pj[p.name], searched.chip, p) for p in searched.chip.points
    )
    ways = [(task, task.space.way(task.seeds[0])) for task in searched.tasks]
    search.gate.budget = dataclasses.replace(searched.budget, power_mw=0.99 * least)
    assert all(search.gate.passes(task, way) for task, way in ways)  # no run is longer than its own bound
    assert search.gate.rejected == {}


def test_a_limit_for_the_worst_window_holds_the_average_before_trials(make_bed, tmp_path):
    for limit in ("power_mw", "peak_mw"):
        searched = make_bed(frames_per_s=2_000.0)
        search = searched.search(tmp_path / limit, trials=1)
        search.run_seeds()
        search.gate.budget = dataclasses.replace(searched.budget, **{limit: 1e-3})
        search.gate._known_power = lambda: 0.0  # as if the budget could be met
        assert not any(search.gate.passes(task, task.space.way(task.seeds[0])) for task in searched.tasks)
        assert set(search.gate.rejected) == {"power"}
