"""Several plans to start from: what each says of the tasks, and that no network found is worse than any of them."""

from tvm_ergo.codegen.plan import make_plan
from tvm_ergo.codegen.space import Objective, choose
from tvm_ergo.codegen.tuning.combine import best_network, default_figures
from tvm_ergo.codegen.tuning.figures import Budget, Figures, Goal
from tvm_ergo.codegen.tuning.network import Function, carried_out
from tvm_ergo.codegen.tuning.starts import tasks_of_starts
from tvm_ergo.pipeline import PipelineOptions, run_stages
from tvm_ergo.tuning.prepare import prepared


def starts_of(bed) -> list[list[Function]]:
    """The bed's plan, whole layers, and the least memory, whose cuts differ."""
    graph, name = bed.function.graph, bed.function.name
    plans = [bed.function.plan, make_plan(graph, 1 << 40), choose(graph, bed.chip, 1 << 30, objective=Objective.MEMORY)]
    return [[Function.of(name, graph, plan)] for plan in plans]


def test_every_start_is_a_path_of_parts_or_seeds_of_them(make_bed):
    bed = make_bed()
    starts = starts_of(bed)
    tasks = tasks_of_starts(starts, bed.chip)
    assert {(n, p.first, p.last) for t in tasks if t.given for n, p in t.parts} == {
        (bed.function.name, p.first, p.last) for p in bed.function.parts
    }
    places = [(n, p.first, p.last) for t in tasks for n, p in t.parts]
    assert len(places) == len(set(places)) and len({t.digest for t in tasks}) == len(tasks)
    assert max(len(t.seeds) for t in tasks) > 1 and all(t.beside_bytes is not None for t in tasks)


def test_the_network_found_is_no_worse_than_any_start_and_its_figures_are_its_programs(make_bed, tmp_path):
    bed = make_bed(memory=64 * 1024)
    starts = starts_of(bed)
    bed.tasks = tasks_of_starts(starts, bed.chip)
    bed.search(tmp_path / "a", trials=24).run()
    budget = Budget(64 * 1024)
    network = best_network(starts, bed.tasks, Goal.LATENCY, budget, bed.chip)
    program = carried_out(bed.function, network.decided[bed.function.name], bed.chip)[1]
    assert Figures.of(program, bed.chip.with_memory(1 << 32)).cycles == network.figures.cycles
    assert network.figures.cycles <= min(default_figures(start, bed.chip, budget).cycles for start in starts)


def test_starts_differ_in_how_weights_stand_and_fit(make_bed, make_net):
    options = PipelineOptions(make_bed().chip)
    found = prepared(run_stages(make_net(), options, until="partition"), options)
    forms = [{t.digest: t.coding for t in f.graph.tensors if t.coding} for (f,) in (found.functions, *found.others)]
    assert all(forms.count(form) == 1 for form in forms)
    assert all(f.plan.memory_bytes <= make_bed().chip.memory_bytes for start in found.others for f in start)
