"""A process that measures, started by `start` and ended with whoever started it, even if that was killed.

Its first line of standard input, JSON, says what it is: ``{"parent": pid, "channel": fd}`` serves the other end of a
socket pair, which nobody else can reach; ``{"parent": pid, "listener": fd, "secret": hex, "processes": n}`` takes
connections, one after another. When its standard input ends, so does it."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1
COMMAND = ("-c", "from tvm_ergo.remote.process import main; main()")


def start(inherited: socket.socket, role: str, command: Sequence[str] = COMMAND, **settings) -> subprocess.Popen:
    """The process. role : "channel" or "listener": what the socket is to it. command : what Python is given. It hears
    no Ctrl-C of the terminal: its parent ends it."""
    inherited.set_inheritable(True)
    process = subprocess.Popen(
        [sys.executable, "-P", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=[inherited.fileno()],
        start_new_session=True,
    )
    told = {
        "parent": os.getpid(),
        "main": threading.current_thread() is threading.main_thread(),
        role: inherited.fileno(),
        **settings,
    }
    try:
        process.stdin.write(json.dumps(told).encode() + b"\n")
        process.stdin.flush()  # and stays open
    except OSError:
        pass  # it is gone already, as whoever uses it will find
    return process


def end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    process.stdin.close()


def main() -> None:
    told = json.loads(sys.stdin.buffer.readline())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent(told)
    _loaded()
    if "channel" in told:
        from tvm_ergo.remote.channel import Channel
        from tvm_ergo.remote.server import serve

        serve(Channel(socket.socket(fileno=told["channel"])))
    else:
        _accept(socket.socket(fileno=told["listener"]), bytes.fromhex(told["secret"]), told["processes"])


def _loaded() -> None:
    """Before the first connection: a tuner does not wait for imports."""
    import tvm_ergo.tuning.distant  # noqa: F401


def _end_with_parent(told: dict) -> None:
    """By a pipe that ends, and, where it can be had, by the kernel: that ends a process which is stopped, too."""

    def wait() -> None:
        while os.read(0, 1):  # not through sys.stdin, whose lock the end of the interpreter waits for
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
    if sys.platform == "linux" and told["main"]:  # the signal comes with the end of the thread that started it
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != told["parent"]:
            os._exit(1)


def _accept(listener: socket.socket, secret: bytes, processes: int) -> None:
    from tvm_ergo.remote.channel import Gone, Late, Misbehaved
    from tvm_ergo.remote.greeting import Refused, greet
    from tvm_ergo.remote.server import serve

    while True:
        sock, _ = listener.accept()
        with sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            try:
                channel = greet(sock, secret, processes)
            except (Gone, Late, Misbehaved, Refused):
                continue
            serve(channel)
