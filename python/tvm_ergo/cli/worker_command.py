"""Measures schedules for 'tvm-ergo tune --workers', here or on another machine.

  tvm-ergo worker --processes 4                                  for tuners of this machine (127.0.0.1:9190)
  tvm-ergo worker --listen 192.168.1.20:9190 --processes 4       for tuners of a network, who have the same key file
  tvm-ergo tune net.onnx ... --workers 192.168.1.20:9190,192.168.1.21:9190

A worker helps only tuners of its own version of tvm_ergo that have its key: a file only you can read,
~/.config/tvm-ergo/worker.key, made by the first worker; copy it to the other machines. Nothing that arrives is run as
code. What goes over the network is checked, not encrypted. Ctrl-C ends the worker; jobs it had then are done elsewhere.
"""

from __future__ import annotations

import argparse

HELP = "measure schedules for tuners on other machines"
LOOK_S = 2.0
WARNING = (
    "tvm-ergo: warning: {address} can be reached from other machines. Only who has the key is served, but the "
    "networks and schedules of its tuners cross the network "
    "unencrypted, and anybody there can keep the port busy; use a trusted network, or 127.0.0.1 and an SSH tunnel"
)


def add_arguments(parser) -> None:
    from tvm_ergo.remote.endpoints import PORT

    parser.add_argument(
        "--listen",
        default=f"127.0.0.1:{PORT}",
        metavar="HOST:PORT",
        help=f"where tuners connect to (default 127.0.0.1:{PORT}: this machine alone)",
    )
    parser.add_argument(
        "--key",
        metavar="FILE",
        help="the key shared with tuners (default ~/.config/tvm-ergo/worker.key; made where there is none)",
    )
    parser.add_argument("--processes", type=_count, default=1, metavar="N", help="processes that measure (default 1)")


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes; write 1 to 256")
    return int(text)


def run(arguments) -> None:
    import signal
    import sys
    import time

    from tvm_ergo.remote import key_file
    from tvm_ergo.remote.endpoints import address_of, is_loopback
    from tvm_ergo.remote.key import compiler_key
    from tvm_ergo.remote.worker import listening

    host, _ = address_of(arguments.listen)
    secret = key_file.read(arguments.key, make=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    worker = listening(arguments.listen, secret, arguments.processes)
    try:
        if not is_loopback(host):
            print(WARNING.format(address=worker.address), file=sys.stderr, flush=True)
        print(
            f"{arguments.processes} measuring at {worker.address} as {compiler_key()}, key "
            f"{arguments.key or key_file.default_path()}",
            flush=True,
        )
        while True:
            time.sleep(LOOK_S)
            if started := worker.look():
                print(f"{started} of the processes had ended and are started again", flush=True)
    finally:
        worker.stop()
