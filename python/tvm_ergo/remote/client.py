"""Jobs handed to the servers of a tracker.

Every server that is free gets a session and a thread, at any time: servers may come and go. A job whose session breaks goes back to the front of the queue; a result is
taken from whoever gives it, and as a job is in one place at a time, exactly once.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tvm_ergo.remote.key import compiler_key
from tvm_ergo.remote.server import connect
from tvm_ergo.target.errors import RemoteError

PATIENCE_S = 60.0
LOOK_AGAIN_S = 0.5
MOST_BREAKS = 2
"""Sessions that a job may break before it is given up: it, and not the machines, is what is wrong then."""
BROKEN = (RuntimeError, OSError, ValueError, AttributeError)
"""What TVM raises where a connection breaks, whenever that happens."""


@dataclass(frozen=True)
class Job:
    """task : name of the task it belongs to. text : what its Measurer is given."""

    task: str
    text: str


class _Session:
    """One server, for as long as it lives."""

    def __init__(self, tracker, key: str):
        self._remote = tracker.request(key, session_timeout=0)
        self._task, self._job = (self._remote.get_function(f"tvm_ergo.remote.{name}") for name in ("task", "job"))
        self._sent: set[str] = set()

    def do(self, job: Job, tasks: Mapping[str, str]) -> dict:
        if job.task not in self._sent:
            failed = str(self._task(job.task, tasks[job.task]))
            if failed:
                return json.loads(failed)
            self._sent.add(job.task)
        return json.loads(str(self._job(job.task, job.text)))


class Workers:
    """The servers that a tracker has under a key.

    tracker : ``host:port``. patience_s : how long to wait when there is no server at all. Errors: InputError, RemoteError (no tracker).
    """

    def __init__(self, tracker: str, *, key: str | None = None, patience_s: float = PATIENCE_S):
        self.address, self.key, self.patience_s = tracker, key or compiler_key(), patience_s
        self._tracker = connect(tracker)
        self._idle: list[_Session] = []
        self.broken = 0
        """Sessions lost so far."""

    def count(self) -> tuple[int, list[str]]:
        """Servers of this key, and the other keys there are. Errors: RemoteError."""
        found = self._summary()
        keys = [info["key"].removeprefix("server:") for info in found["server_info"]]
        return keys.count(self.key), sorted({key for key in keys if key != self.key})

    def run(self, tasks: Mapping[str, str], jobs: Sequence[Job], done: Callable[[int, str], None] | None = None) -> list[str]:
        """The results of ``jobs``, in order. tasks : text by name, as `server.take_task` reads it. done : ``done(index, result)``, from this thread, as results come.

        Errors: RemoteError where a job fails, breaks every server it is given to, or no server is left.
        """
        return _Round(self, tasks, jobs).run(done)

    def _summary(self) -> dict:
        try:
            return self._tracker.summary()
        except BROKEN:
            self._tracker = connect(self.address)
            return self._tracker.summary()

    def free(self) -> int:
        """Servers that wait for a session."""
        return self._summary()["queue_info"].get(self.key, {}).get("free", 0)

    def session(self) -> _Session:
        """One of those not used, or a new one. Waits for a free server."""
        return self._idle.pop() if self._idle else _Session(connect(self.address), self.key)

    def give_back(self, session: _Session) -> None:
        self._idle.append(session)


class _Round:
    def __init__(self, workers: Workers, tasks: Mapping[str, str], jobs: Sequence[Job]):
        self.workers, self.tasks, self.jobs = workers, tasks, jobs
        self.waiting = deque(range(len(jobs)))
        self.breaks = [0] * len(jobs)
        self.results: dict[int, str] = {}
        self.reported: deque[int] = deque()
        self.error: RemoteError | None = None
        self.threads = 0
        self.changed = threading.Condition()

    def run(self, done: Callable[[int, str], None] | None) -> list[str]:
        alone_since = None
        while True:
            with self.changed:
                if not self.reported and self.error is None and len(self.results) < len(self.jobs):
                    self.changed.wait(LOOK_AGAIN_S if self.threads else 0.05)
                news, error, finished, working = list(self.reported), self.error, len(self.results) == len(self.jobs), self.threads
                self.reported.clear()
            for index in news:
                if done:
                    done(index, self.results[index])
            if error is not None:
                raise error
            if finished:
                return [self.results[index] for index in range(len(self.jobs))]
            self._hire()
            alone_since = None if working else alone_since or time.monotonic()
            if alone_since and time.monotonic() - alone_since > self.workers.patience_s:
                self._no_one()

    def _hire(self) -> None:
        """A thread for each session that may be had and each job that waits."""
        with self.changed:
            wanted = min(len(self.waiting), len(self.workers._idle) + self.workers.free())
            self.threads += wanted
        for _ in range(wanted):
            threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        session = None
        try:
            session = self.workers.session()
            while (index := self._next()) is not None:
                try:
                    answer = session.do(self.jobs[index], self.tasks)
                except BROKEN:
                    self._put_back(index)
                    raise
                self._answered(index, answer)
            self.workers.give_back(session)
        except BROKEN:
            self.workers.broken += 1
        except RemoteError:
            pass  # the tracker is gone: the round notices that nobody works
        finally:
            with self.changed:
                self.threads -= 1
                self.changed.notify_all()

    def _next(self) -> int | None:
        with self.changed:
            return self.waiting.popleft() if self.waiting and self.error is None else None

    def _put_back(self, index: int) -> None:
        with self.changed:
            self.breaks[index] += 1
            if self.breaks[index] >= MOST_BREAKS:
                self.error = RemoteError(f"a job broke {MOST_BREAKS} servers", where=f"task {self.jobs[index].task}, {self.jobs[index].text[:200]}",
                                         remedy="measure here, without a tracker, to see why")
            self.waiting.appendleft(index)

    def _answered(self, index: int, answer: dict) -> None:
        with self.changed:
            if "result" in answer:
                self.results[index] = answer["result"]
                self.reported.append(index)
            else:
                self.error = RemoteError("a server could not do a job", where=f"task {self.jobs[index].task}", available=str(answer.get("error"))[:500])
            self.changed.notify_all()

    def _no_one(self) -> None:
        count, others = self.workers.count()
        raise RemoteError(f"no server answers, for {self.workers.patience_s:g} s", where=f"tracker {self.workers.address}, key {self.workers.key}",
                          available=f"{count} servers of this key" + (f"; servers of other versions: {', '.join(others)}" if others else ""),
                          remedy="start some with `tvm-ergo worker`, of this very version; what was measured is kept, --resume goes on")
