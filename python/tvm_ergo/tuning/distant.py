"""Schedules measured elsewhere: by workers of other machines (`tvm_ergo.remote`), or in processes of this one.

A task goes over once a session, as JSON (`sent`); a job is a list of decisions, the answer the figures. All workers run
the very same compiler (`remote.key`), so the figures are those that would have been measured here. They are not taken
on trust: figures that no Program can have are refused, and the first of each task in each session are measured here as
well."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tvm_ergo.codegen.tuning.figures import Figures
from tvm_ergo.codegen.tuning.task import Task
from tvm_ergo.remote import client, key_file
from tvm_ergo.remote.channel import Misbehaved, shown
from tvm_ergo.remote.client import JOB_S, Job, Workers
from tvm_ergo.remote.endpoints import Address, Process
from tvm_ergo.target.errors import ErgoError, InputError, UnsupportedError
from tvm_ergo.tuning import sent

KIND = "schedule"
MOST_PER_CORE = 4
"""Processes: each holds a TVM of its own (about 200 MB)."""
MOST_TEXT = 500

Answer = Figures | str
"""Or why a schedule cannot be carried out."""


def measurer(about: dict):
    """In a worker's process: measures decisions (a list of numbers) of a task. Errors: those of `sent.from_json`."""
    space, bench = sent.from_json(about)

    def measure(job: list) -> dict:
        try:
            return {"figures": bench.measure(space.way(job)).to_json()}
        except ErgoError as error:  # a schedule that cannot be carried out is a result as well
            return {"refused": error.what}

    return measure


class Distant:
    """A `Measure` that asks workers. What `ahead` was told is measured by all of them at once."""

    def __init__(self, workers: Workers):
        self.workers = workers
        self._tasks: dict[str, client.Task] = {}
        self._known: dict[tuple[str, tuple[int, ...]], Answer] = {}
        self._measuring = threading.Lock()

    def ahead(self, wanted: Sequence[tuple[Task, Sequence[int]]]) -> None:
        """Measures what will be asked for next. Errors: RemoteError."""
        new = [(task, tuple(values)) for task, values in wanted if (task.digest, tuple(values)) not in self._known]
        for task, _ in new:
            if task.digest not in self._tasks:
                self._tasks[task.digest] = client.Task(KIND, sent.to_json(task))

        def check(index: int, result: object, first: bool) -> Answer:
            task, values = new[index]
            answer = believed(result, task)
            if first:
                with self._measuring:
                    own = measured_here(task, values)
                if own != answer:
                    raise Misbehaved(f"figures that are not those measured here: {shown(result, 120)}")
            return answer

        results = self.workers.run(self._tasks, [Job(task.digest, list(values)) for task, values in new], check)
        for (task, values), result in zip(new, results, strict=True):
            self._known[task.digest, values] = result

    def __call__(self, task: Task, values: Sequence[int]) -> Figures:
        """Errors: UnsupportedError for a schedule that cannot be carried out, RemoteError."""
        key = task.digest, tuple(values)
        if key not in self._known:
            self.ahead([(task, values)])
        found = self._known.pop(key)
        if isinstance(found, str):
            raise UnsupportedError(found)
        return found


def measured_here(task: Task, values: Sequence[int]) -> Answer:
    try:
        return task.bench.measure(task.space.way(values))
    except ErgoError as error:
        return shown(error.what, MOST_TEXT)


def believed(result: object, task: Task) -> Answer:
    """What a worker answered. Errors: Misbehaved where no worker of this version answers so."""
    if isinstance(result, dict) and set(result) == {"refused"} and isinstance(result["refused"], str):
        return shown(result["refused"], MOST_TEXT)
    if not isinstance(result, dict) or set(result) != {"figures"}:
        raise Misbehaved(f"an answer without figures: {shown(result, 120)}")
    try:
        return Figures.checked(result["figures"], [point.name for point in task.bench.chip.points])
    except ValueError as error:
        raise Misbehaved(f"figures that cannot be: {shown(error, 200)}") from None


@contextmanager
def measuring(
    workers: str | None,
    processes: int,
    trials: int | None = None,
    *,
    key: str | Path | None = None,
    job_s: float = JOB_S,
) -> Iterator[Distant | None]:
    """What measures: workers at addresses (``HOST:PORT,HOST:PORT``), as many processes here, or (None) this process.
    trials : no more processes are started than that.
    key : file of the key shared with the workers (None: `remote.key_file.default_path`). job_s : how long a worker may
    take over a schedule.

    Errors: InputError (an address, the key; more processes than the machine could make use of).
    """
    if workers is not None:
        secret = key_file.read(key)
        endpoints = [Address(text, secret) for text in dict.fromkeys(part.strip() for part in workers.split(","))]
    else:
        endpoints = [Process() for _ in range(_count(processes, trials))]
    if not endpoints:
        yield None
        return
    hired = Workers(endpoints, job_s=job_s)
    try:
        yield Distant(hired)
    finally:
        hired.close()


def _count(processes: int, trials: int | None) -> int:
    """Processes to start; 0 where this one does the work."""
    cores = len(os.sched_getaffinity(0))
    if processes > MOST_PER_CORE * cores:
        raise InputError(
            f"{processes:,} processes are more than this machine can make use of",
            required=f"at most {MOST_PER_CORE * cores}, {MOST_PER_CORE} a core",
            available=f"{cores} cores",
            remedy=f"--processes {cores}, or --workers on other machines (see 'worker')",
        )
    processes = processes if trials is None else min(processes, trials)
    return processes if processes > 1 else 0
