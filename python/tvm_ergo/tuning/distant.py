"""Schedules measured elsewhere: on servers of a tracker (`tvm_ergo.remote`), or in processes of this machine, which are the same thing at 127.0.0.1.

A task goes over once a session, as its space; a job is a list of decisions, the answer the figures. All servers run the very same compiler (`remote.key`), so the
figures are those that would have been measured here.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tvm_ergo.codegen.tuning.figures import Figures
from tvm_ergo.codegen.tuning.measure import Bench
from tvm_ergo.codegen.tuning.task import Task
from tvm_ergo.codegen.tuning.workload import digest
from tvm_ergo.remote.client import Job, Workers
from tvm_ergo.remote.key import compiler_key
from tvm_ergo.remote.server import serve
from tvm_ergo.target.errors import ErgoError, InputError, RemoteError, UnsupportedError

KIND = "schedule"
MOST_PER_CORE = 4
"""Processes: each holds a TVM of its own (about 200 MB)."""


def task_text(task: Task) -> str:
    """What a server needs of a task. Pickled: whoever may use TVM's RPC may run anything on a server anyway."""
    data = pickle.dumps((task.digest, task.space, task.bench.chip, task.bench.options, task.bench.limit_bytes, task.bench.gating))
    return json.dumps({"kind": KIND, "task": base64.b85encode(zlib.compress(data)).decode()})


def measurer(text: str):
    """On a server: measures decisions (JSON list) of a task. Errors: RemoteError where the space is not the one the task was made of."""
    name, space, chip, options, limit_bytes, gating = pickle.loads(zlib.decompress(base64.b85decode(text)))
    if digest(space) != name:
        raise RemoteError("a task arrived as another", where=name, available=digest(space), remedy="workers of the very same version")
    bench = Bench(space.graph, space, chip, options, gating)
    bench.limit_bytes = limit_bytes

    def measure(job: str) -> str:
        try:
            return json.dumps({"figures": bench.measure(space.way(json.loads(job))).to_json()})
        except ErgoError as error:  # a schedule that cannot be carried out is a result as well
            return json.dumps({"refused": error.what})

    return measure


class Distant:
    """A `Measure` that asks workers. What `ahead` was told is measured by all of them at once."""

    def __init__(self, workers: Workers):
        self.workers = workers
        self._texts: dict[str, str] = {}
        self._known: dict[tuple[str, tuple[int, ...]], dict] = {}

    def ahead(self, wanted: Sequence[tuple[Task, Sequence[int]]]) -> None:
        """Measures what will be asked for next. Errors: RemoteError."""
        new = [(task, tuple(values)) for task, values in wanted if (task.digest, tuple(values)) not in self._known]
        for task, _ in new:
            if task.digest not in self._texts:
                self._texts[task.digest] = task_text(task)
        results = self.workers.run(self._texts, [Job(task.digest, json.dumps(values)) for task, values in new])
        for (task, values), result in zip(new, results, strict=True):
            self._known[task.digest, values] = json.loads(result)

    def __call__(self, task: Task, values: Sequence[int]) -> Figures:
        """Errors: UnsupportedError for a schedule that cannot be carried out, RemoteError."""
        key = task.digest, tuple(values)
        if key not in self._known:
            self.ahead([(task, values)])
        found = self._known.pop(key)
        if "refused" in found:
            raise UnsupportedError(found["refused"])
        return Figures.from_json(found["figures"])


@contextmanager
def measuring(tracker: str | None, processes: int, trials: int | None = None) -> Iterator[Distant | None]:
    """What measures: the servers of a tracker, as many processes here, or (None) this process. trials : no more processes are started than that.

    Errors: InputError (more processes than the machine could make use of), RemoteError.
    """
    if tracker is not None:
        yield Distant(Workers(tracker))
        return
    cores = len(os.sched_getaffinity(0))
    if processes > MOST_PER_CORE * cores:
        raise InputError(f"{processes:,} processes are more than this machine can make use of", required=f"at most {MOST_PER_CORE * cores}, {MOST_PER_CORE} a core",
                         available=f"{cores} cores", remedy=f"--processes {cores}, or --tracker and workers on other machines (see 'worker')")
    processes = processes if trials is None else min(processes, trials)
    if processes < 2:
        yield None
        return
    from tvm.rpc.tracker import Tracker

    own = Tracker(host="127.0.0.1", port=9190, port_end=9490, silent=True)
    servers: list = []
    try:
        address = f"127.0.0.1:{own.port}"
        for _ in range(processes):
            servers.append(serve(address, key=compiler_key(), host="127.0.0.1"))
        yield Distant(Workers(address))
    finally:
        for server in servers:
            server.terminate()
        own.terminate()
