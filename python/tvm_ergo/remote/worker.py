"""A machine's worker: one listening socket, and processes that take connections from it, each with one tuner at a
time."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Sequence

from tvm_ergo.remote import process
from tvm_ergo.remote.endpoints import address_of
from tvm_ergo.target.errors import RemoteError

YOUNG_S, MOST_YOUNG = 10.0, 5
"""Processes that end so soon after their start are not started again without end."""


class Worker:
    """Listens and has its processes started; `look` from time to time starts anew those that ended.

    listen : ``host:port``; port 0 (`Worker("127.0.0.1", 0, ...)`): any free one. Errors: RemoteError (it cannot listen
    there)."""

    def __init__(
        self, host: str, port: int, secret: bytes, processes: int = 1, command: Sequence[str] = process.COMMAND
    ):
        self.secret, self.command, self.restarts, self._young = secret, command, 0, 0
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self._listener = socket.socket(family, kind, protocol)
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(address)
            self._listener.listen(128)
        except OSError as error:
            raise RemoteError(
                "cannot listen here",
                where=f"{host}:{port}",
                available=str(error.strerror or error),
                remedy="another address or port with --listen",
            ) from None
        self.address = (
            "{}:{}".format(*self._listener.getsockname()[:2])
            if family == socket.AF_INET
            else "[{}]:{}".format(*self._listener.getsockname()[:2])
        )
        self._count = processes
        self.processes: list[tuple[subprocess.Popen, float]] = [self._start() for _ in range(processes)]

    def _start(self) -> tuple[subprocess.Popen, float]:
        return process.start(
            self._listener, "listener", self.command, secret=self.secret.hex(), processes=self._count
        ), time.monotonic()

    def look(self) -> int:
        """How many processes had ended and were started anew. Errors: RemoteError where they end at once, again and
        again."""
        ended = [i for i, (child, _) in enumerate(self.processes) if child.poll() is not None]
        for i in ended:
            child, since = self.processes[i]
            self._young = self._young + 1 if time.monotonic() - since < YOUNG_S else 0
            if self._young > MOST_YOUNG * self._count:
                raise RemoteError(
                    "the worker's processes end as soon as they are started",
                    available=f"exit code {child.returncode}",
                    remedy="what they say is above",
                )
            child.stdin.close()
            self.processes[i] = self._start()
        self.restarts += len(ended)
        return len(ended)

    def stop(self) -> None:
        for child, _ in self.processes:
            process.end(child)
        self._listener.close()


def listening(text: str, secret: bytes, processes: int) -> Worker:
    """A `Worker` at ``host:port``. Errors: InputError, RemoteError."""
    return Worker(*address_of(text), secret, processes)
