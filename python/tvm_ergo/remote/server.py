"""A server that measures: TVM's RPC server, registered with a tracker under the compiler's key.

The functions below are TVM globals of every process that imports tvm (`doors`), so each session of a server has them. Errors of a job come back as text: what
breaks a session is the connection alone, and then the job is done elsewhere.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Protocol

from tvm_ergo.target.errors import ErgoError, InputError, RemoteError

MEASURERS: dict[str, str | Callable] = {"schedule": "tvm_ergo.tuning.distant:measurer"}
"""Kind of work -> a function that makes a Measurer of what describes a task, or ``module:function``. A server runs these and nothing else."""
PORTS = (9090, 9999)
CONNECT_S = 5.0


class Measurer(Protocol):
    """Does the jobs of one task, alone or one after another, each with the same result whenever it is done."""

    def __call__(self, job: str) -> str: ...


_tasks: dict[str, Measurer] = {}


def take_task(name: str, text: str) -> str:
    """Global ``tvm_ergo.remote.task``: ``text`` is JSON ``{"kind": ..., "task": ...}``. "" or JSON of an error."""
    try:
        said = json.loads(text)
        _tasks[name] = _maker(said["kind"])(said["task"])
    except Exception as error:  # whatever it is: the other side has to hear of it, and this session goes on
        return _failed(error)
    return ""


def _maker(kind: str) -> Callable:
    maker = MEASURERS[kind]
    if not isinstance(maker, str):
        return maker
    module, function = maker.split(":")
    return getattr(import_module(module), function)


def do_job(name: str, job: str) -> str:
    """Global ``tvm_ergo.remote.job``: JSON ``{"result": text}`` or ``{"error": ...}``."""
    try:
        return json.dumps({"result": _tasks[name](job)})
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> str:
    return json.dumps({"error": str(error) if isinstance(error, ErgoError) else f"{type(error).__name__}: {error}"})


def serve(tracker: str, *, key: str, host: str = "0.0.0.0", begin: Callable[[], None] | None = None):
    """Starts a server in a process of its own and returns it; it has a ``port``, and ``terminate()`` ends it. host : address to listen on. begin : called in
    its process first.

    Errors: InputError (not host:port), RemoteError (no tracker there).
    """
    from tvm import rpc

    address = address_of(tracker)
    connect(tracker)
    start = partial(_begin, os.getpid(), begin)
    return rpc.Server(host, port=PORTS[0], port_end=PORTS[1], tracker_addr=address, key=key, silent=True, server_init_callback=start)


def _begin(parent: int, begin: Callable[[], None] | None) -> None:
    """In a server's process. It ends when the one that started it does, even if that was killed."""
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if begin:
        begin()


class Watched:
    """A server that is started again when it no longer listens: TVM's stops when a session of it is killed."""

    def __init__(self, tracker: str, **options):
        self.tracker, self.options, self.restarts, self._missed = tracker, options, 0, 0
        self.server = serve(tracker, **options)

    def look(self) -> bool:
        """To be called every few seconds; whether the tracker knows the server. Errors: RemoteError where the tracker is gone."""
        ports = [info["addr"][1] for info in connect(self.tracker).summary()["server_info"] if info["key"] == f"server:{self.options['key']}"]
        self._missed = 0 if self.server.port in ports else self._missed + 1
        if self._missed > 1:  # once may be before it has registered
            self.server.terminate()
            self.server, self._missed, self.restarts = serve(self.tracker, **self.options), 0, self.restarts + 1
        return not self._missed

    def stop(self) -> None:
        self.server.terminate()


def address_of(tracker: str) -> tuple[str, int]:
    """``"host:port"`` -> (host, port). Errors: InputError."""
    host, _, port = str(tracker).rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise InputError(f"{tracker!r} is no address of a tracker", required="host:port", remedy="python -m tvm.exec.rpc_tracker starts one and says its port")
    return host, int(port)


def connect(tracker: str):
    """A session with a tracker. Errors: InputError, RemoteError."""
    from tvm import rpc

    host, port = address_of(tracker)
    try:
        with socket.create_connection((host, port), timeout=CONNECT_S):  # TVM would try again for a minute
            pass
        return rpc.connect_tracker(host, port)
    except (RuntimeError, OSError) as error:
        raise RemoteError("there is no RPC tracker", where=f"{host}:{port}", available=str(error).splitlines()[0][:200],
                          remedy="python -m tvm.exec.rpc_tracker --host 0.0.0.0 --port 9190 starts one") from None
