"""``tvm_ergo.tune`` and what compilation takes from it: figures are those of the compiled Program, results are the
default's to the bit."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tvm

import tvm_ergo
from tvm_ergo.codegen.runtime.recording import record
from tvm_ergo.target.errors import BudgetError, DatabaseError, InputError, OutputError
from tvm_ergo.target.machine import Machine, Trace
from tvm_ergo.target.machine.peak import peak_power

MEMORY = 10 * 1024
SETTINGS = {"memory": MEMORY, "trials": 48}


@pytest.fixture(scope="module")
def tuned(make_net, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    seen = []
    return tvm_ergo.tune(make_net(), out=folder / "a", progress=seen.append, **SETTINGS), folder / "a", seen


def test_the_compiled_program_shows_the_tuned_figures_and_gives_the_same_results(tuned, make_net):
    result, folder, seen = tuned
    compiled = tvm_ergo.compile(make_net(), memory=MEMORY, database=folder)
    default = tvm_ergo.compile(make_net(), memory=MEMORY)
    (program,), (plain,) = compiled.programs.values(), default.programs.values()
    trace = Trace(program, compiled.chip, result.tuned.point)
    assert (trace.cycles, trace.energy_pj) == (result.tuned.cycles, pytest.approx(result.tuned.energy_pj, rel=1e-12))
    assert program.meta["constant_bytes"] + program.meta["activation_bytes"] == result.tuned.memory_bytes <= MEMORY
    assert Trace(plain, default.chip).cycles == result.default.cycles >= result.tuned.cycles
    x = np.random.default_rng(1).integers(-128, 128, (1, 24, 24, 3)).astype(np.int8)
    outputs = [
        list(Machine(p, c.chip, strict=True).run({p.inputs[0].name: x}).outputs.values())
        for p, c in ((program, compiled), (plain, default))
    ]
    for a, b in zip(*outputs, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (
        result.how == "tuned"
        and result.tuned.meets_budget
        and [p.trials for p in seen] == sorted(p.trials for p in seen)
    )


def test_tvm_compile_takes_plans_within_the_scope(tuned, make_net):
    result, folder, _ = tuned
    target = tvm.target.Target({"tag": "ergo", "model": json.dumps({"memory-bytes": MEMORY})})

    def cycles() -> int:
        executable = tvm.compile(make_net(), target=target)
        machine = tvm.relax.VirtualMachine(executable, tvm.cpu())
        with record() as calls:
            machine["main"](tvm.runtime.tensor(np.zeros((1, 24, 24, 3), np.int8)))
        return sum(call.trace.cycles for call in calls)

    with tvm_ergo.database(folder):
        assert cycles() == result.tuned.cycles
    assert cycles() == result.default.cycles


def test_other_chips_versions_memories_and_models_are_refused(tuned, make_net, tmp_path):
    _, folder, _ = tuned
    for options, words in (
        ({"target": "ergo/2", "memory": MEMORY}, "another chip"),
        ({"memory": MEMORY - 1}, "another memory"),
        ({"memory": MEMORY, "stream": True}, "another model"),
    ):
        with pytest.raises(DatabaseError, match=words):
            tvm_ergo.compile(make_net(), database=folder, **options)
    with pytest.raises(DatabaseError, match="another model"):
        tvm_ergo.compile(make_net(seed=5), memory=MEMORY, database=folder)
    older = tmp_path / "older"
    older.mkdir()
    for name in ("manifest.json", "best.json"):
        (older / name).write_text(
            (folder / name).read_text().replace(f'"version": "{tvm_ergo.__version__}"', '"version": "0.0.1"')
        )
    with pytest.raises(DatabaseError, match="another version"):
        tvm_ergo.compile(make_net(), memory=MEMORY, database=older)
    with pytest.raises(DatabaseError, match="cannot be read"):
        tvm_ergo.compile(make_net(), memory=MEMORY, database=tmp_path)


def test_altered_plans_are_refused(tuned, make_net, tmp_path):
    folder = tmp_path / "altered"
    shutil.copytree(tuned[1], folder)
    best = json.loads((folder / "best.json").read_text())
    (record,) = best["functions"].values()
    for wrong in (
        {"how": "tuned"},
        {**best, "functions": {key: {**record, "plan": {**record["plan"], "nodes": 5}} for key in best["functions"]}},
    ):
        (folder / "best.json").write_text(json.dumps(wrong))
        with pytest.raises(DatabaseError, match="not as the tuner wrote them"):
            tvm_ergo.compile(make_net(), memory=MEMORY, database=folder)


@pytest.mark.parametrize(
    "name", ["trials.jsonl", "best.json", "summary.json", "database_tuning_record.json", "database_workload.json"]
)
def test_a_record_that_is_a_folder_is_refused(tuned, make_net, tmp_path, name):
    folder = tmp_path / "odd"
    shutil.copytree(tuned[1], folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(OutputError, match="not a file") as told:
        tvm_ergo.tune(make_net(), out=folder, resume=True, **SETTINGS)
    assert told.value.where.endswith(name)


@pytest.mark.parametrize(
    "wrong", [{"cycles": -5}, {"energy_pj": {"nominal": float("nan")}}, {"live_bytes": float("inf")}]
)
def test_records_that_no_tuner_wrote_are_refused(tuned, make_net, tmp_path, wrong):
    folder = tmp_path / "altered"
    shutil.copytree(tuned[1], folder)
    lines = (folder / "trials.jsonl").read_text().splitlines()
    trial = json.loads(lines[5])
    lines[5] = json.dumps({**trial, "figures": {**trial["figures"], **wrong}})
    (folder / "trials.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(DatabaseError, match="cannot be believed") as told:
        tvm_ergo.tune(make_net(), out=folder, resume=True, **SETTINGS)
    assert told.value.where.endswith("line 6") and (folder / "trials.jsonl").read_text().splitlines() == lines


def test_options_that_contradict_the_tuning_are_refused(tuned, make_net):
    for options in ({"weights": "dense"}, {"objective": "energy"}, {"compression": "off"}):
        with pytest.raises(DatabaseError, match="other options"):
            tvm_ergo.compile(make_net(), memory=MEMORY, database=tuned[1], **options)


def test_a_folder_of_another_run_is_not_mixed_with_this_one(tuned, make_net, tmp_path):
    _, folder, _ = tuned
    with pytest.raises(OutputError, match="already"):
        tvm_ergo.tune(make_net(), out=folder, **SETTINGS)
    with pytest.raises(DatabaseError, match="objective: latency there, energy asked"):
        tvm_ergo.tune(make_net(), out=folder, resume=True, objective="energy", **SETTINGS)
    with pytest.raises(OutputError, match="no tuning run"):
        tvm_ergo.tune(make_net(), out=tmp_path / "none", resume=True, **SETTINGS)
    assert not (tmp_path / "none").exists()
    (tmp_path / "letter").write_text("mine")
    with pytest.raises(OutputError, match="something else"):
        tvm_ergo.tune(make_net(), out=tmp_path, **SETTINGS)


def test_more_trials_go_on_from_those_there_are(tuned, make_net, tmp_path):
    import shutil

    result, folder, _ = tuned
    shutil.copytree(folder, tmp_path / "b")
    more = tvm_ergo.tune(make_net(), out=tmp_path / "b", resume=True, memory=MEMORY, trials=64)
    lines = (tmp_path / "b" / "trials.jsonl").read_text().splitlines()
    assert (
        lines[:48] == (folder / "trials.jsonl").read_text().splitlines()
        and len(lines) == 64
        and more.tuned.cycles <= result.tuned.cycles
    )


def test_a_power_no_schedule_meets_is_told_before_the_search(make_net, tmp_path):
    with pytest.raises(BudgetError, match="idle") as told:
        tvm_ergo.tune(make_net(), out=tmp_path / "a", power_budget_mw=0.5, frames_per_s=30, **SETTINGS)
    assert "mW at" in told.value.required and "gating" in told.value.remedy and not (tmp_path / "a").exists()
    assert (
        tvm_ergo.tune(make_net(), out=tmp_path / "a", memory=MEMORY, trials=4).trials >= 4
    )  # nothing is left of what was refused
    with pytest.raises(BudgetError, match="frames per second"):
        tvm_ergo.tune(make_net(), out=tmp_path / "b", frames_per_s=1e9, **SETTINGS)


def test_the_point_is_chosen_so_that_the_power_is_met(make_net, tmp_path):
    free = tvm_ergo.tune(make_net(), out=tmp_path / "a", frames_per_s=1000, **SETTINGS)
    bound = tvm_ergo.tune(
        make_net(), out=tmp_path / "b", frames_per_s=1000, power_budget_mw=0.97 * free.tuned.power_mw, **SETTINGS
    )
    assert free.tuned.point == "nominal" != bound.tuned.point
    assert bound.tuned.meets_budget and bound.tuned.power_mw <= 0.97 * free.tuned.power_mw < free.tuned.power_mw


def test_the_worst_window_is_the_whole_programs_and_keeps_to_its_limit(make_net, tmp_path):
    free = tvm_ergo.tune(make_net(), out=tmp_path / "a", frames_per_s=1000, window_s=5e-6, **SETTINGS).tuned
    limit = 0.9 * free.peak_mw
    bound = tvm_ergo.tune(
        make_net(), out=tmp_path / "b", frames_per_s=1000, window_s=5e-6, peak_power_mw=limit, **SETTINGS
    ).tuned
    assert bound.meets_budget and bound.peak_mw <= limit
    for cost, folder in ((free, "a"), (bound, "b")):
        model = tvm_ergo.compile(make_net(), memory=MEMORY, database=tmp_path / folder)
        traces = [Trace(program, model.chip, cost.point) for program in model.programs.values()]
        assert cost.peak_mw == peak_power(traces, window_s=5e-6, frames_per_s=1000).power_mw >= cost.power_mw
    with pytest.raises(BudgetError, match="worst window"):
        tvm_ergo.tune(make_net(), out=tmp_path / "c", frames_per_s=1000, peak_power_mw=0.5, **SETTINGS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"objective": "beauty"},
        {"peak_power_mw": 0},
        {"window_s": "long"},
        {"trials": 0},
        {"power_budget_mw": -1},
        {"frames_per_s": "30"},
        {"strategy": "luck"},
        {"seed": -1},
    ],
)
def test_options_are_checked(make_net, tmp_path, wrong):
    with pytest.raises(InputError):
        tvm_ergo.tune(make_net(), out=tmp_path / "a", **{**SETTINGS, **wrong})
    assert not (tmp_path / "a").exists()


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from conftest import net
import tvm_ergo
tvm_ergo.tune(net(), out=sys.argv[1], resume="resume" in sys.argv, memory={memory}, trials=48)
"""


def test_killed_by_the_system_and_resumed_it_ends_with_the_same_records(tuned, tmp_path):
    _, folder, _ = tuned
    script = SCRIPT.format(tests=os.path.dirname(__file__), memory=MEMORY)
    log = tmp_path / "a" / "trials.jsonl"
    process = subprocess.Popen([sys.executable, "-P", "-c", script, str(tmp_path / "a")], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while (
        process.poll() is None
        and time.monotonic() < deadline
        and not (log.exists() and len(log.read_bytes().splitlines()) > 2)
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < len(log.read_text().splitlines()) < 48
    resumed = subprocess.run(
        [sys.executable, "-P", "-c", script, str(tmp_path / "a"), "resume"], capture_output=True, text=True
    )
    assert resumed.returncode == 0, resumed.stderr

    def known(path):
        return [{k: v for k, v in json.loads(line).items()} for line in path.read_text().splitlines()]

    assert known(log) == known(folder / "trials.jsonl")
    best = [json.loads((f / "best.json").read_text()) for f in (folder, tmp_path / "a")]
    assert best[0] == best[1]
