"""What a worker's process does with a connection: takes tasks, does their jobs, answers each message with one. Only
such processes have this; importing tvm registers nothing.

Errors of a job come back as text: what breaks a session is the connection alone, and then the job is done elsewhere.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Protocol

from tvm_ergo.remote.channel import Channel, Gone, Late, Misbehaved
from tvm_ergo.target.errors import ErgoError

MEASURERS: dict[str, str | Callable] = {"schedule": "tvm_ergo.tuning.distant:measurer"}
"""Kind of work -> a function that makes a Measurer of what describes a task, or ``module:function``. A worker does
these and nothing else."""
MOST_TASK_BYTES = 1 << 29
"""Of a message to a worker, which may hold a network's weights."""
MOST_ANSWER_BYTES = 1 << 20
GRACE_S = 10.0
"""For a job whose tuner is gone: then the process ends, and a new one takes its place."""


class Measurer(Protocol):
    """Does the jobs of one task, alone or one after another, each with the same result whenever it is done. Takes and
    gives what JSON holds."""

    def __call__(self, job: object) -> object: ...


def serve(channel: Channel) -> None:
    """Until the other side goes away."""
    tasks: dict[str, Measurer] = {}
    done = threading.Event()
    threading.Thread(target=_end_with, args=(channel, done), daemon=True).start()
    try:
        while True:
            said = answer(tasks, channel.receive(MOST_TASK_BYTES))
            try:
                channel.send(said)
            except ValueError as error:  # NaN among the figures
                channel.send({"error": f"a result that is no JSON: {error}"})
    except (Gone, Late, Misbehaved):
        pass
    finally:
        done.set()
        channel.close()


def _end_with(channel: Channel, done: threading.Event) -> None:
    """Ends the process where its tuner is gone and a job goes on and on."""
    poll = select.poll()
    try:
        poll.register(channel.sock, getattr(select, "POLLRDHUP", 0) | select.POLLHUP)
    except (OSError, ValueError):  # closed already
        return
    while not done.is_set():
        if poll.poll(1000):
            if not done.wait(GRACE_S):
                os._exit(1)
            return


def answer(tasks: dict[str, Measurer], message: dict) -> dict:
    """To ``{"task": name, "kind": ..., "about": ...}``: ``{"taken": name}``; to ``{"task": name, "job": ...}``:
    ``{"result": ...}``; ``{"error": text}`` to both."""
    try:
        name = message["task"]
        if "job" in message:
            return {"result": tasks[name](message["job"])}
        tasks[name] = _maker(message["kind"])(message["about"])
        return {"taken": name}
    except Exception as error:  # whatever it is: the other side has to hear of it, and this session goes on
        return {"error": str(error) if isinstance(error, ErgoError) else f"{type(error).__name__}: {error}"}


def _maker(kind: str) -> Callable:
    maker = MEASURERS[kind]
    if not isinstance(maker, str):
        return maker
    module, function = maker.split(":")
    return getattr(import_module(module), function)
