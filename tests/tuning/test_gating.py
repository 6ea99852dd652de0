"""Budgets that count on power gating: the figures are those reports state with it, bounds are bounds, and what gating
would meet is said."""

import itertools
import json
from dataclasses import replace
from random import Random

import pytest

import tvm_ergo
from tvm_ergo.cli import main
from tvm_ergo.codegen.compile import instructions_of
from tvm_ergo.codegen.tuning.combine import select
from tvm_ergo.codegen.tuning.feasible import floors
from tvm_ergo.codegen.tuning.figures import Budget, Goal, of_network, together
from tvm_ergo.codegen.tuning.gated import banks_of, least_pj, waking_pj
from tvm_ergo.codegen.tuning.network import carried_out, joined
from tvm_ergo.codegen.tuning.task import tasks_of
from tvm_ergo.report.power import power_parts
from tvm_ergo.target.chip import chip
from tvm_ergo.target.errors import BudgetError, DatabaseError, InputError, UnsupportedError
from tvm_ergo.target.machine import Trace, power
from tvm_ergo.target.machine.peak import peak_power
from tvm_ergo.target.machine.power import Work, work_of
from tvm_ergo.target.machine.timeline import simulate
from tvm_ergo.target.program import Program
from tvm_ergo.tuning import sent
from tvm_ergo.tuning.distant import measurer

from .test_combine import random_options

MEMORY = 10 * 1024
SETTINGS = {"memory": MEMORY, "trials": 48, "frames_per_s": 1000.0}


@pytest.fixture(scope="module")
def gated(make_net, tmp_path_factory):
    """A budget that no schedule meets without gating."""
    folder = tmp_path_factory.mktemp("gated") / "a"
    return tvm_ergo.tune(make_net(), out=folder, gating=True, power_budget_mw=1.0, **SETTINGS), folder


def test_the_figures_are_those_the_report_states_with_gating(gated, make_net):
    result, folder = gated
    for options, told in (({"database": folder}, result.tuned), ({}, result.default)):
        compiled = tvm_ergo.compile(make_net(), memory=MEMORY, **options)
        traces = [Trace(program, compiled.chip, told.point) for program in compiled.programs.values()]
        parts = power_parts(traces, compiled.chip, [1000.0])
        (row,) = [point for point in parts.points if point.point == told.point]
        assert (
            told.power_mw == told.gated_mw == parts.power[0].gated_mw == row.power[0].gated_mw < parts.power[0].power_mw
        )
        assert told.energy_pj / 1e6 == row.gated_energy_uj != row.energy_uj
        assert told.peak_mw == peak_power(traces, frames_per_s=1000.0, gating=True).power_mw
    assert result.met and result.gating and result.tuned.power_mw <= 1.0 and result.how == "tuned"
    assert json.loads((folder / "summary.json").read_text())["gating"] is True


def test_without_gating_the_figure_with_it_is_told_beside(gated, make_net, tmp_path):
    plain = tvm_ergo.tune(make_net(), out=tmp_path / "a", **{**SETTINGS, "trials": 1})
    assert (
        not plain.gating
        and plain.default.point == gated[0].default.point
        and plain.default.gated_mw == gated[0].default.gated_mw
    )
    assert plain.default.power_mw > plain.default.gated_mw


def test_a_folder_made_with_gating_is_not_resumed_without_nor_the_reverse(gated, make_net, tmp_path):
    _, folder = gated
    asked = {**SETTINGS, "power_budget_mw": 1.0, "resume": True}
    with pytest.raises(DatabaseError, match="gating: True there, False asked"):
        tvm_ergo.tune(make_net(), out=folder, **{**asked, "power_budget_mw": 5.0})
    tvm_ergo.tune(make_net(), out=tmp_path / "plain", memory=MEMORY, trials=1)
    with pytest.raises(DatabaseError, match="gating: False there, True asked"):
        tvm_ergo.tune(make_net(), out=tmp_path / "plain", memory=MEMORY, trials=1, resume=True, gating=True)
    older = json.loads((tmp_path / "plain" / "manifest.json").read_text())
    del older["gating"]  # as it was written before there was the option
    (tmp_path / "plain" / "manifest.json").write_text(json.dumps(older))
    assert tvm_ergo.tune(make_net(), out=tmp_path / "plain", memory=MEMORY, trials=1, resume=True).trials
    again = tvm_ergo.tune(make_net(), out=folder, gating=True, **asked)
    assert again.tuned == gated[0].tuned


def test_a_budget_that_gating_meets_is_refused_with_it_as_the_remedy(make_net, tmp_path):
    with pytest.raises(BudgetError, match="idle") as told:
        tvm_ergo.tune(make_net(), out=tmp_path / "a", power_budget_mw=1.0, **SETTINGS)
    assert (
        told.value.remedy.startswith("--gating")
        and "at least 0." in told.value.remedy
        and not (tmp_path / "a").exists()
    )
    with pytest.raises(BudgetError) as told:
        tvm_ergo.tune(make_net(), out=tmp_path / "a", power_budget_mw=0.01, **SETTINGS)
    assert "--gating" not in told.value.remedy  # would not meet it either
    with pytest.raises(BudgetError, match="idle") as told:
        tvm_ergo.tune(make_net(), out=tmp_path / "a", power_budget_mw=0.01, gating=True, **SETTINGS)
    assert (
        "at least 0." in told.value.required
        and "idle" in told.value.required
        and "gating" not in told.value.remedy
        and not (tmp_path / "a").exists()
    )


def test_a_chip_file_without_gating_cannot_be_counted_on(make_net, tmp_path):
    with pytest.raises(InputError, match="power gating"):
        tvm_ergo.tune(
            make_net(), out=tmp_path / "a", gating=True, target=replace(chip("ergo/1"), gating=None), **SETTINGS
        )
    with pytest.raises(InputError):
        tvm_ergo.tune(make_net(), out=tmp_path / "a", gating="yes", **SETTINGS)


def gated_bed(make_bed, frames_per_s: float = 1000.0):
    """A bed whose tasks are measured with gating, with ways of every task: ``(bed, [(task, way)])``."""
    bed, random = make_bed(frames_per_s=frames_per_s), Random(5)
    bed.tasks, bed.budget = (
        tasks_of([(bed.function.name, part) for part in bed.function.parts], bed.chip, gating=True),
        replace(bed.budget, gating=True),
    )
    return bed, [
        (task, task.met([random.choice(c.candidates) for c in task.space.choices]))
        for task in bed.tasks
        for _ in range(25)
    ]


def test_a_part_takes_what_its_own_program_takes(make_bed):
    bed, ways = gated_bed(make_bed)
    for task, way in ways:
        try:
            plan, figures = task.bench.plan(way), task.bench.measure(way)
        except UnsupportedError:
            continue
        program = Program(
            chip_name=bed.chip.name,
            instructions=instructions_of(plan)[0],
            data=[],
            inputs=[],
            outputs=[],
            nodes=[],
            buffers=[],
            memory_bytes=1 << 32,
            meta={},
        )
        banks = banks_of(figures.memory_bytes, bed.chip)
        work = replace(work_of(program, bed.chip, simulate(program, bed.chip)), banks=banks, kept_banks=banks)
        for point in bed.chip.points:
            assert figures.energy_pj[point.name] == pytest.approx(
                power.energy_pj(work, bed.chip, point, gating=True), rel=1e-12
            )
            counts, more = task.bench.look(way).counts, waking_pj(bed.chip, point)
            least = least_pj(
                figures.cycles, counts.events, counts.busy_cycles, task.bench.look(way).constant_bytes, bed.chip, point
            )
            assert (
                least <= figures.energy_pj[point.name]
                and counts.least_cycles <= figures.cycles <= counts.busy_cycles.sum() + 100
                and more > 0
            )


@pytest.mark.parametrize("frames_per_s", [0.0, 1000.0, 9000.0])
def test_what_the_gate_holds_a_way_to_is_below_what_its_network_takes(make_bed, tmp_path, frames_per_s):
    bed, ways = gated_bed(make_bed, frames_per_s)
    search = bed.search(tmp_path / "a")
    search.run_seeds()
    first = {task.digest: task.space.way(task.seeds[0]) for task in bed.tasks}
    compared, tight = 0, 0
    for task, way in ways:
        for position in range(len(task.parts)):
            chosen = []
            for other in bed.tasks:
                chosen += [
                    (part, other.space, way if other is task and i == position else first[other.digest])
                    for i, (_, part) in enumerate(other.parts)
                ]
            try:
                program = carried_out(bed.function, joined(bed.function, chosen), bed.chip)[1]
                looked = task.bench.look(way)
            except UnsupportedError:
                continue
            figures = of_network([program], bed.chip, bed.budget)
            for point in bed.chip.points:
                bound, taken = (
                    search.gate._least_power(task, looked, point),
                    bed.budget.power_of(figures, bed.chip, point),
                )
                assert bound <= taken
                compared, tight = compared + 1, tight + (taken < float("inf") and bound > 0.7 * taken)
    assert compared > 60 and tight > 20


def test_over_the_power_with_gating_costs_no_trial(make_bed, tmp_path):
    bed, ways = gated_bed(make_bed)
    search = bed.search(tmp_path / "a")
    search.run_seeds()
    search.gate.budget = replace(bed.budget, power_mw=0.01)
    search.gate._known_power = lambda: 0.0  # as if the budget could be met
    passed = [search.gate.passes(task, way) for task, way in ways]
    assert not any(passed) and search.gate.rejected.get("power", 0) > 10


def test_no_network_is_below_the_floor(gated, make_bed):
    bed, _ = gated_bed(make_bed)
    least = min(floors(bed.tasks, bed.budget, bed.chip), key=lambda floor: floor.power_mw)
    assert 0.5 * gated[0].tuned.power_mw < least.power_mw <= gated[0].tuned.power_mw


@pytest.mark.parametrize("goal", list(Goal))
def test_selections_are_the_best_of_all_with_gating(goal):
    on, found_some = chip("ergo/1"), 0
    for seed in range(25):
        random = Random(seed)
        options = [
            [replace(r, figures=replace(r.figures, constant_bytes=97 * r.figures.constant_bytes)) for r in records]
            for records in random_options(random)
        ]
        budget = Budget(1 << 20, random.uniform(1, 400), random.choice([0.0, 1000.0, 9000.0]), gating=True)
        point = random.choice(on.points)
        allowed = [
            f
            for chosen in itertools.product(*options)
            if budget.allows(f := together([r.figures for r in chosen]), on, point)
        ]
        chosen = select(
            options, goal, budget, on, point, about=allowed[0] if allowed else together([o[0].figures for o in options])
        )
        assert (chosen is None) == (not allowed)
        if chosen is not None:
            found_some += 1
            figures = together([r.figures for r in chosen])
            assert budget.allows(figures, on, point)
    assert found_some > 5


def test_the_idle_power_is_that_of_the_machine():
    on = chip("ergo/1")
    for size in (0, 1, on.bank_bytes, 5 * on.bank_bytes + 1):
        kept = -(-size // on.bank_bytes)
        assert (
            Budget(1, gating=True).idle_mw(on, size)
            == power.idle_mw(Work(0, 0.0, kept_banks=kept), on, gating=True)
            < Budget(1).idle_mw(on, size)
            == on.idle_mw
        )


def test_workers_measure_with_gating_too(make_bed):
    bed, _ = gated_bed(make_bed)
    task = bed.tasks[0]
    told = measurer(json.loads(json.dumps(sent.to_json(task))))(list(task.seeds[0]))
    assert told["figures"]["energy_pj"] == dict(task.bench.measure(task.space.way(task.seeds[0])).energy_pj)


def test_the_command_line_counts_on_it_and_names_it(tmp_path, capsys):
    import numpy as np

    from tvm_ergo import zoo

    np.savez(tmp_path / "cal.npz", image=zoo.digits()[0][:16])
    asked = ["tune", str(zoo.DIGITS_MODEL), "--calibration", str(tmp_path / "cal.npz"), "--trials", "4", "--fps", "30"]
    assert (
        main([*asked, "--out", str(tmp_path / "a"), "--power-budget", "0.5mW"]) == 2
        and "--gating" in capsys.readouterr().err
    )
    assert main([*asked, "--out", str(tmp_path / "a"), "--power-budget", "0.5mW", "--gating"]) == 0
    assert "power gated" in capsys.readouterr().out
    # a budget just below what the search finds: above what can be refused at once
    assert main([*asked, "--out", str(tmp_path / "b"), "--power-budget", "1.5111mW"]) == 2
    error = capsys.readouterr().err
    assert "no schedule found meets the budgets" in error and "--gating, with which the closest one takes 0." in error
