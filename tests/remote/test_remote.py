"""Jobs over a tracker and servers on this machine: all done, each once, whoever is killed."""

import json
import os
import signal
import threading
import time
from collections import Counter

import pytest
from tvm_ergo.remote import Workers, compiler_key
from tvm_ergo.remote.client import Job
from tvm_ergo.remote.server import Watched, address_of, do_job, serve, take_task
from tvm_ergo.target.errors import InputError, RemoteError

KEY = "samples"


def begin():
    """In a server's process: a measurer that squares numbers, and knows how to go wrong."""
    import os
    import signal
    import time

    from tvm_ergo.remote import server

    def measurer(task):
        def do(job):
            with open(task["log"], "a") as log:
                log.write(f"{os.getpid()} {job}\n")
            if job == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if job == "fail":
                raise ValueError("no such number")
            time.sleep(task.get("slow_s", 0))
            return str(int(job) ** 2)

        return do

    server.MEASURERS["sample"] = measurer


@pytest.fixture(scope="module")
def tracker():
    from tvm.rpc.tracker import Tracker

    tracker = Tracker(host="127.0.0.1", port=9190, port_end=9290, silent=True)
    yield f"127.0.0.1:{tracker.port}"
    tracker.terminate()


@pytest.fixture
def servers(tracker):
    started = [serve(tracker, key=KEY, host="127.0.0.1", begin=begin) for _ in range(2)]
    yield started
    for server in started:
        server.terminate()


def tasks_of(tmp_path, **more):
    return {"t": json.dumps({"kind": "sample", "task": {"log": str(tmp_path / "log"), **more}})}


def test_jobs_are_spread_and_come_back_in_order_though_one_server_is_killed(tracker, servers, tmp_path):
    workers, seen, log = Workers(tracker, key=KEY), [], tmp_path / "log"
    killed = []

    def kill_one():
        while not log.exists() or len(set(line.split()[0] for line in log.read_text().splitlines())) < 2:
            time.sleep(0.01)
        killed.append(int(log.read_text().split()[0]))
        os.kill(killed[0], signal.SIGKILL)

    threading.Thread(target=kill_one, daemon=True).start()
    results = workers.run(tasks_of(tmp_path, slow_s=0.02), [Job("t", str(n)) for n in range(60)], lambda index, result: seen.append((index, int(result))))
    assert results == [str(n * n) for n in range(60)]
    assert sorted(seen) == [(n, n * n) for n in range(60)] and killed and workers.broken == 1
    done = Counter(line.split()[1] for line in log.read_text().splitlines())
    assert set(done) == {str(n) for n in range(60)} and sum(done.values()) - 60 <= 1  # the job that was being done is done again
    assert workers.run(tasks_of(tmp_path), [Job("t", "7")]) == ["49"]  # sessions are kept, and the task need not be sent again


def test_a_job_that_fails_or_breaks_servers_is_an_error_that_names_it(tracker, servers, tmp_path):
    workers = Workers(tracker, key=KEY, patience_s=20)
    with pytest.raises(RemoteError, match="no such number"):
        workers.run(tasks_of(tmp_path), [Job("t", "1"), Job("t", "fail")])
    with pytest.raises(RemoteError, match="KeyError"):
        workers.run({"u": json.dumps({"kind": "os.system", "task": "true"})}, [Job("u", "1")])
    with pytest.raises(RemoteError, match="a job broke 2 servers"):
        workers.run(tasks_of(tmp_path), [Job("t", "kill")])


def test_a_server_that_was_killed_is_started_again(tracker, tmp_path):
    watched = Watched(tracker, key="again", host="127.0.0.1", begin=begin)
    try:
        with pytest.raises(RemoteError, match="no server answers"):
            Workers(tracker, key="again", patience_s=0.5).run(tasks_of(tmp_path), [Job("t", "kill")])
        for _ in range(200):
            if watched.look() and watched.restarts:
                break
            time.sleep(0.1)
        assert watched.restarts == 1 and Workers(tracker, key="again").run(tasks_of(tmp_path), [Job("t", "5")]) == ["25"]
    finally:
        watched.stop()


def test_no_server_no_tracker_and_no_address_are_told(tracker, tmp_path):
    workers = Workers(tracker, key="nobody", patience_s=0.2)
    with pytest.raises(RemoteError, match="tvm-ergo worker"):
        workers.run(tasks_of(tmp_path), [Job("t", "1")])
    with pytest.raises(RemoteError, match="no RPC tracker"):
        Workers("127.0.0.1:1")
    for text in ("localhost", "localhost:0", ":12", "a:b", "h:70000"):
        with pytest.raises(InputError, match="host:port"):
            address_of(text)


def test_tasks_and_jobs_answer_with_text_whatever_happens():
    assert "KeyError" in json.loads(take_task("x", json.dumps({"kind": "none", "task": ""})))["error"]
    assert "JSONDecodeError" in json.loads(take_task("x", "{"))["error"]
    assert "KeyError" in json.loads(do_job("never sent", "1"))["error"]


def test_the_key_names_version_and_compiler():
    import tvm_ergo

    assert compiler_key().startswith(f"ergo-{tvm_ergo.__version__}-") and compiler_key() == compiler_key()
