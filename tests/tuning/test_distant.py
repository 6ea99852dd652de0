"""Tuning on workers: the same records as here, though a worker is killed in the middle."""

import json
import threading
import time

import psutil
import pytest
import tvm_ergo
from tvm_ergo import zoo
from tvm_ergo.remote import Workers, compiler_key
from tvm_ergo.remote.server import serve
from tvm_ergo.target.errors import InputError, RemoteError
from tvm_ergo.tuning import distant
from tvm_ergo.tuning.distant import Distant, measurer, task_text

TRIALS = 60


def kill_all(server):
    """The server and the process of its session."""
    parent = psutil.Process(server.proc._proc.pid)
    for process in (*parent.children(recursive=True), parent):
        process.kill()



@pytest.fixture(scope="module")
def tracker():
    from tvm.rpc.tracker import Tracker

    tracker = Tracker(host="127.0.0.1", port=9190, port_end=9490, silent=True)
    yield f"127.0.0.1:{tracker.port}"
    tracker.terminate()


def tuned(folder, **more):
    images = zoo.digits()[0][:16]
    return tvm_ergo.tune(str(zoo.DIGITS_MODEL), out=folder, calibration={"image": images}, memory=26_000, trials=TRIALS, seed=3, **more)


def records(folder):
    return [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]


def test_workers_measure_what_would_have_been_measured_here_though_one_is_killed(tracker, tmp_path):
    servers = [serve(tracker, key=compiler_key(), host="127.0.0.1") for _ in range(3)]
    try:
        while Workers(tracker).free() < 3:
            time.sleep(0.1)
        workers = Workers(tracker)
        killed = threading.Event()

        def kill(progress):
            if progress.trials >= TRIALS // 3 and not killed.is_set():
                killed.set()
                kill_all(servers[0])

        there = tuned(tmp_path / "there", measure=Distant(workers), progress=kill)
        assert killed.is_set() and workers.broken == 1
    finally:
        for server in servers:
            server.terminate()
    here = tuned(tmp_path / "here")
    assert records(tmp_path / "there") == records(tmp_path / "here") and len(records(tmp_path / "here")) == here.trials == there.trials
    assert there.tuned == here.tuned


def test_a_search_whose_workers_are_gone_ends_with_an_error_and_goes_on_here(tracker, tmp_path):
    server = serve(tracker, key="leaving", host="127.0.0.1")
    workers = Workers(tracker, key="leaving", patience_s=1.0)
    with pytest.raises(RemoteError, match="--resume"):
        tuned(tmp_path / "run", measure=Distant(workers), progress=lambda progress: kill_all(server) if progress.trials >= 30 else None)
    server.terminate()
    left = records(tmp_path / "run")
    assert 0 < len(left) < TRIALS
    tuned(tmp_path / "run", resume=True)
    tuned(tmp_path / "here")
    assert records(tmp_path / "run") == records(tmp_path / "here") and records(tmp_path / "run")[:len(left)] == left


def test_a_task_that_arrives_as_another_is_refused(tmp_path):
    from tvm_ergo.codegen.tuning.task import Task

    taken = []

    def measure(task, values):
        taken.append(task)
        return task.bench.measure(task.space.way(values))

    tvm_ergo.tune(str(zoo.DIGITS_MODEL), out=tmp_path / "run", calibration={"image": zoo.digits()[0][:16]}, trials=1, measure=measure)
    task = taken[0]
    text = json.loads(task_text(task))["task"]
    figures = json.loads(measurer(text)(json.dumps(list(task.seeds[0]))))["figures"]
    assert figures == json.loads(json.dumps(task.default.to_json()))
    other = Task("another", task.space, task.bench)
    with pytest.raises(RemoteError, match="arrived as another"):
        measurer(json.loads(task_text(other))["task"])


def test_no_more_processes_than_are_of_use(monkeypatch):
    started = []

    class Server:
        def __init__(self, *args, **options):
            started.append(options["host"])

        def terminate(self):
            pass

    monkeypatch.setattr(distant, "serve", Server)
    monkeypatch.setattr(distant.os, "sched_getaffinity", lambda process: {0, 1})
    with distant.measuring(None, 8, trials=3) as measure:
        assert len(started) == 3 and isinstance(measure, distant.Distant)
    with distant.measuring(None, 8, trials=1) as measure:
        assert measure is None
    with pytest.raises(InputError, match="8, 4 a core[^$]*2 cores"), distant.measuring(None, 9, trials=3):
        pass
