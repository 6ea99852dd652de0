"""Jobs handed to workers.

Every endpoint that has room gets a session and a thread, at any time: workers may come and go. A job whose session
breaks goes back to the front of the queue; a result is taken from whoever gives it, and as a job is in one place at a
time, exactly once. Who does not answer in time, or answers what cannot be, is given up."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tvm_ergo.remote.channel import Channel, Gone, Late, Misbehaved, shown
from tvm_ergo.remote.endpoints import AGAIN_S, Endpoint
from tvm_ergo.remote.greeting import Refused
from tvm_ergo.remote.server import MOST_ANSWER_BYTES
from tvm_ergo.target.errors import RemoteError

PATIENCE_S = 60.0
JOB_S = 300.0
LOOK_AGAIN_S = 0.5
MOST_BREAKS = 2
"""Sessions that a job may break before it is given up: it, and not the machines, is what is wrong then."""


@dataclass(frozen=True)
class Job:
    """task : name of the task it belongs to. content : what its Measurer is given; what JSON holds."""

    task: str
    content: object


@dataclass(frozen=True)
class Task:
    """kind : of `server.MEASURERS`. about : what the maker there is given; what JSON holds."""

    kind: str
    about: object


class JobFailed(Exception):
    """A worker could not do a job, and says why."""


@dataclass(eq=False)
class Session:
    """One connection, for as long as it lives. first : whether the job at hand is the first of its task here."""

    endpoint: Endpoint
    channel: Channel
    seconds: float
    sent: set[str] = field(default_factory=set)
    first: bool = False

    def do(self, job: Job, tasks: Mapping[str, Task]) -> object:
        """The result. Errors: JobFailed, Gone, Late, Misbehaved."""
        self.first = job.task not in self.sent
        if self.first:
            task = tasks[job.task]
            self._answer({"task": job.task, "kind": task.kind, "about": task.about}, "taken")
            self.sent.add(job.task)
        return self._answer({"task": job.task, "job": job.content}, "result")

    def _answer(self, message: dict, key: str) -> object:
        self.channel.send(message)
        answer = self.channel.receive(MOST_ANSWER_BYTES, self.seconds)
        if set(answer) == {"error"} and isinstance(answer["error"], str):
            raise JobFailed(shown(answer["error"], 500))
        if set(answer) != {key}:
            raise Misbehaved(f"an answer without {key!r}: {shown(answer, 100)}")
        return answer[key]


class Workers:
    """The workers that there are.

    endpoints : where they are. patience_s : how long to wait while none answers at all. job_s : how long one may take
    over a job."""

    def __init__(self, endpoints: Sequence[Endpoint], *, patience_s: float = PATIENCE_S, job_s: float = JOB_S):
        self.endpoints, self.patience_s, self.job_s = list(endpoints), patience_s, job_s
        self.idle: list[Session] = []
        self.broken = 0
        """Sessions lost so far."""

    def run(
        self,
        tasks: Mapping[str, Task],
        jobs: Sequence[Job],
        check: Callable[[int, object, bool], object] | None = None,
        done: Callable[[int, object], None] | None = None,
    ) -> list:
        """The results of ``jobs``, in order. tasks : by name.

        check : ``check(index, result, first)`` gives what is taken as the result, or raises Misbehaved, for a result
        that cannot be; first : of that task in that session. Called from the session's thread. done : ``done(index,
        result)``, from this thread, as results come. Errors: RemoteError where a job fails, breaks every worker it is
        given to, or no worker is left."""
        return _Round(self, tasks, jobs, check).run(done)

    def close(self) -> None:
        for session in self.idle:
            session.channel.close()
        self.idle.clear()
        for endpoint in self.endpoints:
            endpoint.close()


class _Round:
    def __init__(self, workers: Workers, tasks: Mapping[str, Task], jobs: Sequence[Job], check):
        self.workers, self.tasks, self.jobs, self.check = workers, tasks, jobs, check
        self.waiting = deque(range(len(jobs)))
        self.breaks: list[list[str]] = [[] for _ in jobs]
        self.results: dict[int, object] = {}
        self.reported: deque[int] = deque()
        self.error: RemoteError | None = None
        self.working = 0
        self.changed = threading.Condition()

    def run(self, done: Callable[[int, object], None] | None) -> list:
        alone_since = None
        try:
            while True:
                with self.changed:
                    if not self.reported and self.error is None and len(self.results) < len(self.jobs):
                        self.changed.wait(LOOK_AGAIN_S if self.working else 0.05)
                    news, error, finished, working = (
                        list(self.reported),
                        self.error,
                        len(self.results) == len(self.jobs),
                        self.working,
                    )
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
                hopeless = all(endpoint.given_up for endpoint in self.workers.endpoints) and not working
                if hopeless or alone_since and time.monotonic() - alone_since > self.workers.patience_s:
                    self._no_one()
        except BaseException:  # also when interrupted: threads that still work find that there is nothing left to do
            with self.changed:
                self.waiting.clear()
            raise

    def _hire(self) -> None:
        """A thread for each session that may be had and each job that waits."""
        starts: list[Session | Endpoint] = []
        with self.changed:
            wanted = len(self.waiting)
            while wanted > len(starts) and self.workers.idle:
                session = self.workers.idle.pop()
                if session.channel.is_over():  # it ended while it had nothing to do: no job is to blame
                    self._end(session, "it closed the connection")
                    continue
                starts.append(session)
                self.working += 1
            for endpoint in self.workers.endpoints:
                while wanted > len(starts) and endpoint.has_room():
                    endpoint.sessions += 1
                    starts.append(endpoint)
        for start in starts:
            threading.Thread(target=self._begin, args=(start,), daemon=True).start()

    def _begin(self, start: Session | Endpoint) -> None:
        try:
            session = start if isinstance(start, Session) else self._opened(start)
        except Exception as error:  # no thread ends without a word
            with self.changed:
                self.error = self.error or RemoteError(f"a worker could not be asked: {type(error).__name__}: {error}")
                self.changed.notify_all()
            return
        if session is not None:
            self._work(session)

    def _opened(self, endpoint: Endpoint) -> Session | None:
        try:
            channel = endpoint.open()
        except (Gone, Late, Refused) as error:
            with self.changed:
                endpoint.sessions -= 1
                endpoint.trouble, endpoint.not_before = str(error), time.monotonic() + AGAIN_S
                if isinstance(error, Refused):
                    endpoint.given_up = str(error)
                self.changed.notify_all()
            return None
        with self.changed:
            self.working += 1
        return Session(endpoint, channel, self.workers.job_s)

    def _work(self, session: Session) -> None:
        index = None
        try:
            while (index := self._next()) is not None:
                try:
                    result = session.do(self.jobs[index], self.tasks)
                    self._answered(index, self.check(index, result, session.first) if self.check else result)
                except JobFailed as error:
                    self._failed(index, session, error)
            with self.changed:
                self.workers.idle.append(session)
        except (Gone, Late, Misbehaved) as error:
            self._lost(session, index, error)
        except Exception as error:  # of this side: no thread ends without a word
            self._lost(session, index, error)
            with self.changed:
                self.error = self.error or (
                    error
                    if isinstance(error, RemoteError)
                    else RemoteError(f"a job could not be handed over: {type(error).__name__}: {error}")
                )
        finally:
            with self.changed:
                self.working -= 1
                self.changed.notify_all()

    def _next(self) -> int | None:
        with self.changed:
            return self.waiting.popleft() if self.waiting and self.error is None else None

    def _lost(self, session: Session, index: int, error: Exception) -> None:
        """The session is over; its job is done elsewhere."""
        endpoint, job = session.endpoint, self.jobs[index]
        with self.changed:
            self._end(session, str(error))
            endpoint.not_before = time.monotonic() + AGAIN_S  # its job goes to another first
            if isinstance(error, Late):
                endpoint.most -= 1  # that process hangs; others there may not
            if isinstance(error, Misbehaved) or endpoint.most < 1:
                endpoint.given_up = str(error)
            self.breaks[index].append(f"{endpoint.name}: {error}")
            if len(self.breaks[index]) >= MOST_BREAKS and self.error is None:
                self.error = RemoteError(
                    f"a job broke {MOST_BREAKS} workers",
                    where=f"task {job.task}, {shown(job.content, 200)}",
                    available="; ".join(self.breaks[index]),
                    remedy="measure here, without workers, to see why; what was measured is kept, --resume goes on",
                )
            self.waiting.appendleft(index)

    def _end(self, session: Session, why: str) -> None:
        session.channel.close()
        self.workers.broken += 1
        session.endpoint.sessions -= 1
        session.endpoint.trouble = why

    def _answered(self, index: int, result: object) -> None:
        with self.changed:
            self.results[index] = result
            self.reported.append(index)
            self.changed.notify_all()

    def _failed(self, index: int, session: Session, error: JobFailed) -> None:
        with self.changed:
            self.error = self.error or RemoteError(
                "a worker could not do a job",
                where=f"task {self.jobs[index].task}, {session.endpoint.name}",
                available=str(error),
            )

    def _no_one(self) -> None:
        told = "; ".join(f"{e.name}: {e.given_up or e.trouble or 'no answer yet'}" for e in self.workers.endpoints)
        every = all(endpoint.given_up for endpoint in self.workers.endpoints)
        raise RemoteError(
            "no worker is left" if every else f"no worker answers, for {self.workers.patience_s:g} s",
            available=told or "no workers",
            remedy="start some with `tvm-ergo worker`, of this very version and with this key; what was measured is "
            "kept, --resume goes on",
        )
