"""Jobs over workers on this machine: all done, each once, whoever is killed; nobody without the key is served, and
nobody who misbehaves is believed."""

import ast
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

import tvm_ergo
from tvm_ergo.remote import Workers, compiler_key, key_file
from tvm_ergo.remote.channel import LENGTH, Channel, Misbehaved, parsed, shown
from tvm_ergo.remote.client import Job, Task
from tvm_ergo.remote.endpoints import Address, Endpoint, Process, address_of, is_loopback
from tvm_ergo.remote.greeting import Refused, be_greeted, greet
from tvm_ergo.remote.server import answer
from tvm_ergo.remote.worker import Worker
from tvm_ergo.target.errors import InputError, RemoteError

SECRET = b"s" * 64
COMMAND = (
    "-c",
    """
import os, signal, time
from tvm_ergo.remote import process, server

def measurer(task):
    def do(job):
        if "log" in task:
            with open(task["log"], "a") as log:
                log.write(f"{os.getpid()} {job}\\n")
        if job == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if job == "fail":
            raise ValueError("no such number")
        if job == "nan":
            return float("nan")
        time.sleep(3600 if job == "hang" else task.get("slow_s", 0))
        return job ** 2
    return do

server.MEASURERS["sample"] = measurer
process._loaded = lambda: None
process.main()
""",
)
"""A worker's process with a measurer that squares numbers, and knows how to go wrong."""


@pytest.fixture
def worker():
    worker = Worker("127.0.0.1", 0, SECRET, 2, COMMAND)
    yield worker
    worker.stop()


@pytest.fixture
def hire():
    """Workers that are let go at the end of the test."""
    hired = []

    def make(*endpoints, **options):
        hired.append(Workers(endpoints, **options))
        return hired[-1]

    yield make
    for workers in hired:
        workers.close()


def tasks(**about):
    return {"t": Task("sample", about)}


def gone(pid: int, seconds: float = 30) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_jobs_are_spread_and_come_back_in_order_though_one_process_is_killed(worker, hire, tmp_path):
    workers, seen, log, killed = hire(Address(worker.address, SECRET)), [], tmp_path / "log", []

    def kill_one():
        while not log.exists() or len({line.split()[0] for line in log.read_text().splitlines()}) < 2:
            time.sleep(0.01)
        killed.append(int(log.read_text().split()[0]))
        os.kill(killed[0], signal.SIGKILL)

    threading.Thread(target=kill_one, daemon=True).start()
    results = workers.run(
        tasks(log=str(log), slow_s=0.02),
        [Job("t", n) for n in range(100)],
        done=lambda index, result: seen.append((index, result)),
    )
    assert results == [n * n for n in range(100)] and sorted(seen) == [(n, n * n) for n in range(100)]
    assert killed and workers.broken == 1
    done = Counter(line.split()[1] for line in log.read_text().splitlines())
    assert (
        set(done) == {str(n) for n in range(100)} and sum(done.values()) - 100 <= 1
    )  # the job that was being done is done again
    assert workers.run(tasks(), [Job("t", 7)]) == [49]  # sessions are kept, and the task need not be sent again


def test_a_job_that_fails_or_breaks_workers_is_an_error_that_names_it(hire):
    workers = hire(*(Process(COMMAND) for _ in range(3)))
    with pytest.raises(RemoteError, match="no such number"):
        workers.run(tasks(), [Job("t", 1), Job("t", "fail")])
    with pytest.raises(RemoteError, match="KeyError"):
        workers.run({"u": Task("os.system", "true")}, [Job("u", 1)])
    with pytest.raises(RemoteError, match="no JSON"):
        workers.run(tasks(), [Job("t", "nan")])
    with pytest.raises(RemoteError, match="a job broke 2 workers"):
        workers.run(tasks(), [Job("t", "kill")])
    assert workers.run(tasks(), [Job("t", 3)]) == [9]  # by the third
    with pytest.raises(RemoteError, match="no worker is left.*\n.*ended with exit code -9"):
        workers.run(tasks(), [Job("t", "kill")])


def test_a_process_that_was_killed_is_started_again(worker, hire):
    first = worker.processes[0][0].pid
    os.kill(first, signal.SIGKILL)
    worker.processes[0][0].wait()
    assert worker.look() == 1 == worker.restarts and worker.processes[0][0].pid != first
    assert hire(Address(worker.address, SECRET)).run(tasks(), [Job("t", n) for n in range(5)]) == [0, 1, 4, 9, 16]


def test_processes_that_end_at_once_are_not_started_for_ever():
    worker = Worker("127.0.0.1", 0, SECRET, 1, ("-c", "raise SystemExit(3)"))
    try:
        with pytest.raises(RemoteError, match="as soon as they are started[^$]*exit code 3"):
            while True:
                worker.processes[0][0].wait()
                worker.look()
    finally:
        worker.stop()


def test_no_worker_and_no_address_are_told(hire):
    with socket.create_server(("127.0.0.1", 0)) as free:
        unused = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(RemoteError, match="no worker answers[^$]*Connection refused[^$]*tvm-ergo worker"):
        hire(Address(unused, SECRET), patience_s=0.2).run(tasks(), [Job("t", 1)])
    for text in ("localhost:0", ":12", "a:b", "h:70000", "", "a b:1", "h:１"):
        with pytest.raises(InputError, match="HOST:PORT"):
            address_of(text)
    assert (
        address_of("h") == ("h", 9190) and address_of("[::1]:5") == ("::1", 5) and address_of("[::1]") == ("::1", 9190)
    )
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost"))) and not any(
        map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.org"))
    )
    with pytest.raises(RemoteError, match="cannot listen"):
        Worker("192.0.2.1", 9190, SECRET)


def test_messages_are_answered_whatever_is_in_them():
    for message in (
        {},
        {"task": "x"},
        {"task": [], "kind": "schedule", "about": 1},
        {"task": "x", "kind": "none", "about": ""},
        {"task": "never sent", "job": 1},
        {"task": "x", "kind": ["schedule"], "about": {}},
        {"task": "x", "kind": "schedule", "about": None},
        {"task": "x", "kind": "schedule", "about": {}},
    ):
        assert set(answer({}, message)) == {"error"}


def test_the_key_names_version_and_compiler():
    assert compiler_key().startswith(f"ergo-{tvm_ergo.__version__}-") and compiler_key() == compiler_key()


# ---- who is served ----
def test_who_has_another_key_is_not_served_and_not_asked(worker, hire):
    with pytest.raises(RemoteError, match="no worker is left[^$]*keys differ"):
        hire(Address(worker.address, b"x" * 64)).run(tasks(), [Job("t", 1)])
    with socket.create_connection(address_of(worker.address)) as sock:
        channel = Channel(sock)
        channel.receive(4096, 30)
        channel.send({"task": "t", "kind": "sample", "about": {}})  # in place of the proof
        assert channel.receive(4096, 30) == {"refused": "the keys differ"}
        with pytest.raises(Exception, match="closed|reset"):
            channel.receive(4096, 30)
    assert hire(Address(worker.address, SECRET)).run(tasks(), [Job("t", 2)]) == [4]  # it goes on with those who have it


def greeted(first: bytes, second: bytes):
    """Both sides over a socket pair, each with a key: what each of them got."""
    ours, theirs = socket.socketpair()
    found = {}

    def serve():
        try:
            found["worker"] = greet(theirs, second, 3)
        except Exception as error:
            found["worker"] = error

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        found["tuner"] = be_greeted(ours, first)
    except Exception as error:
        found["tuner"] = error
    thread.join()
    return found


def test_both_sides_prove_the_key_and_messages_cannot_be_altered_or_repeated():
    found = greeted(SECRET, SECRET)
    (tuner, processes), worker = found["tuner"], found["worker"]
    assert processes == 3 and tuner.key == worker.key != greeted(SECRET, SECRET)["worker"].key
    tuner.send({"n": 1})
    assert worker.receive(100, 10) == {"n": 1}
    text, key = b'{"n":2}', tuner.key
    for mac in (bytes(32), tuner._mac(0, b'{"n":1}')):
        worker.sock.sendall(LENGTH.pack(len(text)) + mac + text)
        with pytest.raises(Misbehaved, match="not of this session"):
            tuner.receive(100, 10)
    repeated = Channel(tuner.sock, b"tuner", b"worker")
    repeated.key = key
    repeated.send({"n": 1})  # as the first message was
    with pytest.raises(Misbehaved, match="not of this session"):
        worker.receive(100, 10)
    found = greeted(SECRET, b"y" * 64)
    assert isinstance(found["tuner"], Refused) and isinstance(found["worker"], Refused)


def test_a_tuner_does_not_believe_a_worker_without_the_key():
    ours, theirs = socket.socketpair()
    thief = Channel(theirs)
    thief.send({"protocol": "tvm-ergo-worker/1", "compiler": compiler_key(), "processes": 1, "nonce": "00"})
    thief.send({"proof": "00" * 32})
    with pytest.raises(Refused, match="does not have the key"):
        be_greeted(ours, SECRET)


@pytest.mark.parametrize(
    "said, word",
    [
        (b"HTTP/1.0 400 Bad Request\r\n\r\n", "no worker"),
        (LENGTH.pack(3) + b"{}x", "no JSON"),
        (LENGTH.pack(2) + b"[]", "no JSON object"),
        (LENGTH.pack(2) + b"{}", "no worker of this protocol"),
        (LENGTH.pack(1 << 31), "at most 4,096"),
        (b"", "closed"),
    ],
)
def test_what_listens_there_may_be_anything(hire, said, word):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                with sock:
                    sock.sendall(said)

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(RemoteError, match=f"no worker (is left|answers)[^$]*{word}"):
            hire(Address(f"127.0.0.1:{listener.getsockname()[1]}", SECRET), patience_s=0.3).run(tasks(), [Job("t", 1)])
        listener.shutdown(socket.SHUT_RDWR)


def test_the_key_file_is_made_for_its_owner_alone(tmp_path, monkeypatch):
    path = tmp_path / "new" / "worker.key"
    with pytest.raises(InputError, match="cannot be read"):
        key_file.read(path)
    made = key_file.read(path, make=True)
    assert len(made) == 64 and path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o077 == 0
    assert key_file.read(path) == made == key_file.read(path, make=True)
    path.chmod(0o640)
    with pytest.raises(InputError, match="other users can read[^$]*0640[^$]*chmod 600"):
        key_file.read(path)
    short = tmp_path / "short"
    short.write_text("secret\n")
    short.chmod(0o600)
    with pytest.raises(InputError, match="no key"):
        key_file.read(short)
    with pytest.raises(InputError):
        key_file.read(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert key_file.default_path() == tmp_path / "config" / "tvm-ergo" / "worker.key"


def test_importing_tvm_registers_nothing_that_takes_tasks_and_nothing_is_unpickled():
    import tvm  # noqa: F401
    import tvm_ffi

    assert not [name for name in tvm_ffi.registry.list_global_func_names() if "ergo.remote" in str(name)]
    package = Path(tvm_ergo.__file__).parent
    for file in (*(package / "remote").rglob("*.py"), *(package / "tuning").rglob("*.py")):
        imported = {
            alias.name
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in (*node.names, ast.alias(getattr(node, "module", None) or ""))
        }
        assert not {name.split(".")[0] for name in imported} & {"pickle", "marshal", "shelve", "cloudpickle"}, file


# ---- who misbehaves ----
class Pretended(Endpoint):
    """A worker that is a function of this process: ``serve(channel)`` gets the other end of a session."""

    def __init__(self, serve, name="pretended"):
        super().__init__(name)
        self.serve = serve

    def open(self):
        ours, theirs = socket.socketpair()
        threading.Thread(target=self.serve, args=(Channel(theirs),), daemon=True).start()
        return Channel(ours)


def raw(text: bytes):
    def serve(channel):
        channel.receive(1 << 20)
        channel.sock.sendall(LENGTH.pack(len(text)) + text)

    return serve


def vanish(channel):
    channel.receive(1 << 20)
    channel.close()


def hang(channel):
    channel.receive(1 << 20)
    time.sleep(60)


def drip(channel):
    channel.receive(1 << 20)
    try:
        channel.sock.sendall(LENGTH.pack(1000))
        for _ in range(1000):
            channel.sock.sendall(b" ")
            time.sleep(0.05)
    except OSError:
        pass  # given up, as it should be


def huge(channel):
    channel.receive(1 << 20)
    channel.sock.sendall(LENGTH.pack((1 << 32) - 1))
    time.sleep(60)


MISBEHAVIOUR = {
    "no JSON": raw(b"\xff\xfe"),
    "a list": raw(b"[1]"),
    "null": raw(b"null"),
    "empty": raw(b""),
    "without result": raw(b"{}"),
    "more": raw(b'{"taken": "t", "x": 1}'),
    "NaN": raw(b'{"taken": NaN}'),
    "infinity": raw(b'{"taken": 1e999, "b": Infinity}'),
    "deep": raw(b'{"taken": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "digits": raw(b'{"taken": ' + b"9" * 5000 + b"}"),
    "error that is no text": raw(b'{"error": 1}'),
    "huge": huge,
    "hang": hang,
    "drip": drip,
    "vanish": vanish,
}


@pytest.mark.parametrize("kind", MISBEHAVIOUR)
def test_who_misbehaves_is_given_up_and_the_work_is_done_elsewhere(hire, kind):
    bad, good = Pretended(MISBEHAVIOUR[kind]), Process(COMMAND)
    good.not_before = time.monotonic() + 0.2  # the other one is asked first
    workers = hire(bad, good, job_s=0.5)
    assert workers.run(tasks(), [Job("t", n) for n in range(20)]) == [n * n for n in range(20)] and workers.broken >= 1
    if kind != "vanish":  # that may be an accident
        assert bad.given_up
    before = threading.active_count()
    with pytest.raises(RemoteError, match="no worker is left|a job broke 2 workers") as caught:
        hire(Pretended(MISBEHAVIOUR[kind]), job_s=0.5).run(tasks(), [Job("t", 1)])
    assert (
        len(str(caught.value)) < 2000
        and str(caught.value).replace("\n", " ").isprintable()
        and threading.active_count() <= before + 2
    )


def test_what_is_checked_is_not_believed_before(hire):
    def check(index, result, first):
        if result != index * index:
            raise Misbehaved(f"not {result}")
        return result, first

    bad = Pretended(
        lambda channel: [
            channel.send({"taken": "t"} if "kind" in channel.receive(1 << 20) else {"result": -5}) for _ in range(2)
        ],
        "the liar",
    )
    good = Process(COMMAND)
    good.not_before = time.monotonic() + 0.2
    workers = hire(bad, good)
    results = workers.run(tasks(), [Job("t", n) for n in range(10)], check)
    assert [value for value, _ in results] == [n * n for n in range(10)] and sum(first for _, first in results) == 1
    assert bad.given_up == "not -5"


def test_a_process_that_hangs_is_given_up(hire):
    workers = hire(Process(COMMAND), Process(COMMAND), job_s=1.0)
    with pytest.raises(RemoteError, match="a job broke 2 workers[^$]*no answer in time"):
        workers.run(tasks(), [Job("t", "hang")])
    assert all(endpoint.given_up for endpoint in workers.endpoints)


def test_what_is_shown_of_others_is_short_and_printable():
    assert (
        shown("a\x1b[2J\n\u202e" + "x" * 1000, 40) == "a\\x1b[2J\\n\\u202e" + "x" * 21 + "..."
        or len(shown("a\x1b[2J\n\u202e" + "x" * 1000, 40)) == 40
    )
    assert shown("a\x1b[2J\nb", 100).isprintable() and parsed(b'{"a": 1}') == {"a": 1}


# ---- what is left behind ----
def test_processes_end_with_whoever_started_them_even_if_that_is_killed(tmp_path):
    """One of them is stopped besides: nothing that it would have to do itself ends it."""
    code = f"""
import os, signal, sys, time
from tvm_ergo.remote.endpoints import Process
from tvm_ergo.remote.worker import Worker
command = {COMMAND!r}
local, worker = [Process(command) for _ in range(2)], Worker("127.0.0.1", 0, b"s" * 64, 2, command)
time.sleep(1.5)
os.kill(local[0].pid, signal.SIGSTOP)
print(*(p.pid for p in local), *(child.pid for child, _ in worker.processes), flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, text=True)
    children = list(map(int, parent.stdout.readline().split()))
    assert len(children) == 4 and all(psutil.pid_exists(pid) for pid in children)
    for pid in children[:2]:  # nothing that another user could connect to
        assert not [c for c in psutil.Process(pid).net_connections("inet")]
    parent.kill()
    parent.wait()
    assert all(gone(pid) for pid in children)


def run_worker(*arguments, key):
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "tvm_ergo.cli", "worker", *arguments, "--key", str(key)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_worker_command_listens_on_this_machine_alone_unless_told_and_warns_then(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for host, warned in (("127.0.0.1", False), ("0.0.0.0", True)):
        process = run_worker("--listen", f"{host}:{port}", key=tmp_path / "key")
        try:
            line = process.stdout.readline()
            assert f"1 measuring at {host}:{port}" in line and compiler_key() in line
            listening = [
                c.laddr.ip
                for c in psutil.Process(process.pid).net_connections("inet")
                if c.status == psutil.CONN_LISTEN
            ]
            children = psutil.Process(process.pid).children()
            assert listening == [host] and len(children) == 1
        finally:
            process.terminate()
            _, errors = process.communicate(timeout=60)
        assert (
            ("can be reached from other machines" in errors) is warned
            and "Traceback" not in errors
            and process.returncode == 130
        )
        assert all(gone(child.pid) for child in children)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    import argparse

    from tvm_ergo.cli import worker_command

    parser = argparse.ArgumentParser()
    worker_command.add_arguments(parser)
    assert is_loopback(address_of(parser.parse_args([]).listen)[0])


def test_a_port_in_use_is_told(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = run_worker("--listen", f"127.0.0.1:{taken.getsockname()[1]}", key=tmp_path / "key")
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and "cannot listen here" in errors and "Traceback" not in errors


def test_results_are_json_whatever_they_are(hire):
    workers = hire(Process(COMMAND))
    assert workers.run(tasks(), [Job("t", 2.5), Job("t", 10**12)]) == json.loads("[6.25, 1000000000000000000000000]")
