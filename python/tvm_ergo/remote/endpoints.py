"""Where sessions come from: workers at an address, and processes of this machine that hang on a socket pair."""

from __future__ import annotations

import ipaddress
import socket
import subprocess
import time
from collections.abc import Sequence

from tvm_ergo.remote import process
from tvm_ergo.remote.channel import Channel, Gone
from tvm_ergo.remote.greeting import be_greeted
from tvm_ergo.target.errors import InputError

PORT = 9190
CONNECT_S = 5.0
AGAIN_S = 2.0
"""Between two attempts at an address that does not answer: its worker may be busy with another tuner, or start
later."""


class Endpoint:
    """name : for messages. most : sessions it has room for. sessions : open ones, and attempts. trouble : why the last
    attempt failed. given_up : why it is not asked any more."""

    def __init__(self, name: str):
        self.name, self.most, self.sessions = name, 1, 0
        self.not_before = 0.0
        self.trouble: str | None = None
        self.given_up: str | None = None

    def has_room(self) -> bool:
        return self.given_up is None and self.sessions < self.most and time.monotonic() >= self.not_before

    def open(self) -> Channel:
        """A session. Errors: Refused, Gone, Late."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing of it is needed any more."""


class Address(Endpoint):
    """A worker that listens at ``host:port``."""

    def __init__(self, text: str, secret: bytes):
        self.host, self.port = address_of(text)
        self.secret = secret
        super().__init__(f"{self.host}:{self.port}")

    def open(self) -> Channel:
        try:
            sock = socket.create_connection((self.host, self.port), timeout=CONNECT_S)
        except OSError as error:
            raise Gone(str(error.strerror or error)) from None
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            channel, self.most = be_greeted(sock, self.secret)
            return channel
        except BaseException:
            sock.close()
            raise


class Process(Endpoint):
    """A process started here; it has no port and no name that another user or process could connect to."""

    def __init__(self, command: Sequence[str] = process.COMMAND):
        here, there = socket.socketpair()
        with there:
            self._process: subprocess.Popen = process.start(there, "channel", command)
        self._channel: Channel | None = Channel(here)
        super().__init__(f"process {self._process.pid}")

    @property
    def pid(self) -> int:
        return self._process.pid

    def open(self) -> Channel:
        if self._channel is None:
            code = self._process.poll()
            self.given_up = "it ended" if code is None else f"it ended with exit code {code}"
            raise Gone(self.given_up)
        channel, self._channel = self._channel, None
        return channel

    def close(self) -> None:
        process.end(self._process)
        if self._channel is not None:
            self._channel.close()


def address_of(text: str) -> tuple[str, int]:
    """``"host:port"``, ``"[::1]:port"``, ``"host"`` (port 9190) -> (host, port). Errors: InputError."""
    text = str(text)
    host, _, port = text.rpartition(":") if ":" in text and not text.endswith("]") else (text, "", str(PORT))
    host = host.removeprefix("[").removesuffix("]")
    if (
        not host
        or any(c.isspace() for c in host)
        or not port.isdecimal()
        or not port.isascii()
        or not 0 < int(port) < 1 << 16
    ):
        raise InputError(
            f"{text!r:.100} is no address of a worker", required="HOST:PORT", remedy=f"for instance 127.0.0.1:{PORT}"
        )
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
