"""Tuning on workers: the same records as here, though one is killed in the middle; figures are believed only if they
can be true."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import fields, replace

import numpy as np
import psutil
import pytest

import tvm_ergo
from tvm_ergo import zoo
from tvm_ergo.codegen.codes import takes_codes, with_codes
from tvm_ergo.codegen.fuse import Coded
from tvm_ergo.codegen.graph import Graph, Node, OutputTable, Tensor
from tvm_ergo.codegen.tuning.figures import Figures
from tvm_ergo.codegen.weights.coding import Coding
from tvm_ergo.remote import Workers
from tvm_ergo.remote.channel import Channel
from tvm_ergo.remote.endpoints import Address, Endpoint, Process
from tvm_ergo.remote.server import answer
from tvm_ergo.remote.worker import Worker
from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.slots import SlotLayout
from tvm_ergo.target.errors import InputError, OutputError, RemoteError
from tvm_ergo.tuning import distant, sent
from tvm_ergo.tuning.distant import Distant, measurer

TRIALS = 60
SECRET = b"s" * 64


def tuned(folder, trials=TRIALS, **more):
    images = zoo.digits()[0][:16]
    return tvm_ergo.tune(
        str(zoo.DIGITS_MODEL), out=folder, calibration={"image": images}, memory=26_000, trials=trials, seed=3, **more
    )


def records(folder):
    return [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The folder of a run in this process, its result, and its tasks."""
    folder, taken = tmp_path_factory.mktemp("run") / "here", {}

    def measure(task, values):
        taken[task.digest] = task
        return task.bench.measure(task.space.way(values))

    return folder, tuned(folder, measure=measure), list(taken.values())


def test_workers_measure_what_would_have_been_measured_here_though_one_is_killed(here, tmp_path):
    worker, killed = Worker("127.0.0.1", 0, SECRET, 2), threading.Event()
    workers = Workers([Address(worker.address, SECRET), Process()])

    def kill(progress):
        if progress.trials >= TRIALS // 3 and not killed.is_set():
            killed.set()
            for child, _ in worker.processes:
                child.kill()

    try:
        there = tuned(tmp_path / "there", measure=Distant(workers), progress=kill)
        assert killed.is_set() and workers.broken >= 1
    finally:
        workers.close()
        worker.stop()
    folder, result, _ = here
    assert records(tmp_path / "there") == records(folder) and len(records(folder)) == result.trials == there.trials
    assert there.tuned == result.tuned


def test_a_search_whose_workers_are_gone_ends_with_an_error_and_goes_on_here(here, tmp_path):
    process = Process()
    workers = Workers([process], patience_s=1.0)
    try:
        with pytest.raises(RemoteError, match="--resume"):
            tuned(
                tmp_path / "run",
                measure=Distant(workers),
                progress=lambda progress: os.kill(process.pid, signal.SIGKILL) if progress.trials >= 30 else None,
            )
    finally:
        workers.close()
    left = records(tmp_path / "run")
    assert 0 < len(left) < TRIALS
    tuned(tmp_path / "run", resume=True)
    assert records(tmp_path / "run") == records(here[0]) and records(tmp_path / "run")[: len(left)] == left


def test_a_task_is_measured_elsewhere_as_here_and_one_that_arrives_as_another_is_refused(here):
    for task in here[2]:
        told = json.loads(json.dumps(sent.to_json(task)))
        measure = measurer(told)
        for key, figures in list(task.records.items())[:6]:
            found = measure(list(task.ways[key]))
            assert (
                found == {"figures": json.loads(json.dumps(figures.to_json()))}
                if figures is not None
                else set(found) == {"refused"}
            )
        with pytest.raises(RemoteError, match="arrived as another"):
            measurer({**told, "digest": "another"})
        told["graph"]["nodes"][0][2][0] = 10**6
        with pytest.raises(tvm_ergo.ErgoError, match="does not have"):
            measurer(told)


def test_graphs_with_codecs_and_codings_go_over(make_bed, make_net):
    """Operators with coders fused into them, coded constants and slots: the same graph comes out."""
    graph = make_bed(make_net(), memory=64 * 1024).tasks[0].space.graph
    graph = replace(
        graph,
        nodes=tuple(replace(node, op=replace(node.op, out_zp=3)) for node in graph.nodes),  # as the readers expect it
        tensors=tuple(
            replace(t, coding=Coding(Codec.HUFFMAN, 4)) if t.data is not None and t.data.ndim == 4 else t
            for t in graph.tensors
        ),
    )
    layout = SlotLayout(Codec.CONTEXT, 1, 64, 3)
    name = next(t.name for t in graph.tensors if t.data is None and takes_codes(graph, t.id, layout))
    coded = with_codes(graph, {name: ["CONTEXT", 64, 3]})
    assert any(isinstance(node.op, Coded) for node in coded.nodes)
    for one in (graph, coded):
        assert sent._graph_of(json.loads(json.dumps(sent._graph(one)))).fingerprint == one.fingerprint
    assert sent._layout_of(json.loads(json.dumps(sent._layout(layout)))) == layout


def test_every_field_of_a_graph_goes_over():
    """Whoever adds one adds it to `sent` as well."""
    known = {
        Graph: {"tensors", "nodes", "inputs", "outputs", "name", "streams"},
        Node: {"id", "name", "op", "inputs", "outputs", "again", "table"},
        Tensor: {"id", "name", "shape", "dtype", "data", "coding"},
        OutputTable: {"lut", "op"},
        Coded: {"inner", "expands", "shrinks", "shape"},
        Coding: {"codec", "lanes"},
        SlotLayout: {"codec", "tile_rows", "slot_bytes", "zero_point"},
    }
    for kind, names in known.items():
        assert {field.name for field in fields(kind)} == names, kind


class Lying(Endpoint):
    """A worker that measures, and then says something else: ``lie(figures, jobs done)``."""

    def __init__(self, lie):
        super().__init__("the liar")
        self.lie = lie

    def open(self):
        import socket

        ours, theirs = socket.socketpair()
        threading.Thread(target=self._serve, args=(Channel(theirs),), daemon=True).start()
        return Channel(ours)

    def _serve(self, channel):
        tasks, done = {}, 0
        try:
            while True:
                said = answer(tasks, channel.receive(1 << 24))
                if "result" in said:
                    done += 1
                    if "figures" in said["result"]:
                        said["result"] = self.lie(said["result"]["figures"], done)
                channel.send(said)
        except Exception:
            pass  # it is found out, and the session closed


LIES = {
    "negative": lambda f: {"figures": {**f, "cycles": -5}},
    "text": lambda f: {"figures": {**f, "cycles": "5"}},
    "truth": lambda f: {"figures": {**f, "cycles": True}},
    "fraction": lambda f: {"figures": {**f, "cycles": 5.5}},
    "missing": lambda f: {"figures": {k: v for k, v in f.items() if k != "cycles"}},
    "no point": lambda f: {"figures": {**f, "energy_pj": {}}},
    "infinite": lambda f: {"figures": {**f, "energy_pj": {k: 10**400 for k in f["energy_pj"]}}},
    "negative energy": lambda f: {"figures": {**f, "energy_pj": {k: -1.0 for k in f["energy_pj"]}}},
    "peak": lambda f: {"figures": {**f, "peak_mw": {"slow": 1}}},
    "null": lambda f: {"figures": None},
    "list": lambda f: [f],
    "none": lambda f: None,
    "both": lambda f: {"figures": f, "refused": "no"},
    "better than it is": lambda f: {"figures": {**f, "cycles": max(1, f["cycles"] // 2)}},
    "refused": lambda f: {"refused": "I do not like it"},
}


@pytest.mark.parametrize("kind", LIES)
def test_a_worker_that_lies_is_given_up_and_nothing_of_it_is_recorded(here, kind):
    task = here[2][0]
    ways = [values for key, values in task.ways.items() if task.records.get(key) is not None][:4]
    liar = Lying(lambda figures, done: LIES[kind](figures))
    measure = Distant(Workers([liar], patience_s=5))
    with pytest.raises(RemoteError, match="no worker is left[^$]*the liar: (figures|an answer)"):
        measure.ahead([(task, values) for values in ways])
    assert liar.given_up and not measure._known


def test_a_run_beside_a_liar_has_the_records_of_one_without(here, tmp_path):
    liar = Lying(lambda figures, done: {"figures": {**figures, "cycles": -5}} if done > 2 else {"figures": figures})
    workers = Workers([liar, Process()])
    try:
        tuned(tmp_path / "run", measure=Distant(workers))
    finally:
        workers.close()
    assert liar.given_up and records(tmp_path / "run") == records(here[0])


def test_a_measure_of_ones_own_is_not_believed_either(tmp_path):
    def measure(task, values):
        return Figures(-5, {point.name: 1.0 for point in task.bench.chip.points}, 0, 0)

    with pytest.raises(RemoteError, match="cannot be believed[^$]*cycles -5"):
        tuned(tmp_path / "run", trials=4, measure=measure)
    assert not (tmp_path / "run" / "trials.jsonl").exists()
    tuned(tmp_path / "run", trials=4)


def test_no_more_processes_than_are_of_use(monkeypatch):
    started = []

    class Started(Endpoint):
        def __init__(self):
            super().__init__("")
            started.append(self)

    monkeypatch.setattr(distant, "Process", Started)
    monkeypatch.setattr(distant.os, "sched_getaffinity", lambda process: {0, 1})
    with distant.measuring(None, 8, trials=3) as measure:
        assert len(started) == 3 and isinstance(measure, distant.Distant)
    with distant.measuring(None, 8, trials=1) as measure:
        assert measure is None
    with pytest.raises(InputError, match="8, 4 a core[^$]*2 cores"), distant.measuring(None, 9, trials=3):
        pass


def test_two_runs_do_not_share_a_folder(here, tmp_path):
    tried = []

    def another(progress):
        if not tried:
            tried.append(True)
            for resume in (False, True):
                with pytest.raises(OutputError, match="another tuning run is at work"):
                    tuned(tmp_path / "run", resume=resume)

    tuned(tmp_path / "run", progress=another)
    assert tried and records(tmp_path / "run") == records(here[0])
    tuned(tmp_path / "run", resume=True)


@pytest.fixture(scope="module")
def calibration(tmp_path_factory):
    path = tmp_path_factory.mktemp("cal") / "cal.npz"
    np.savez(path, image=zoo.digits()[0][:16])
    return str(path)


def start_tune(calibration, out, *more):
    """As a shell starts it: Ctrl-C goes to the whole process group."""
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from tvm_ergo.cli import main; "
        "sys.exit(main())"
    )
    return subprocess.Popen(
        [
            sys.executable,
            "-P",
            "-c",
            code,
            "tune",
            str(zoo.DIGITS_MODEL),
            "--calibration",
            calibration,
            "--memory",
            "26000",
            "--trials",
            "100000",
            "--seed",
            "3",
            "--out",
            str(out),
            "--processes",
            "2",
            *more,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_trials(process, out, count):
    path = out / "trials.jsonl"
    while process.poll() is None and not (path.exists() and path.read_bytes().count(b"\n") >= count):
        time.sleep(0.05)


def descendants(process):
    return [child.pid for child in psutil.Process(process.pid).children(recursive=True)]


def gone(pids, seconds=30):
    until = time.monotonic() + seconds
    while (
        left := [p for p in pids if psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE]
    ) and time.monotonic() < until:
        time.sleep(0.05)
    return not left


def test_ctrl_c_with_processes_ends_as_without(calibration, tmp_path):
    process = start_tune(calibration, tmp_path / "run")
    wait_for_trials(process, tmp_path / "run", 20)
    children = descendants(process)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0 and "Traceback" not in errors and (tmp_path / "run" / "best.json").exists(), errors
    assert len(children) == 2 and gone(children)


def test_kill_leaves_no_process_and_a_folder_that_goes_on(here, calibration, tmp_path):
    process = start_tune(calibration, tmp_path / "run")
    wait_for_trials(process, tmp_path / "run", 20)
    children = descendants(process)
    process.kill()
    process.communicate()
    left = records(tmp_path / "run")
    assert len(children) == 2 and gone(children) and len(left) >= 20
    tuned(tmp_path / "run", resume=True)
    count = max(len(left), TRIALS)
    assert records(tmp_path / "run")[:TRIALS] == records(here[0])[:TRIALS] and len(records(tmp_path / "run")) >= min(
        count, TRIALS
    )
