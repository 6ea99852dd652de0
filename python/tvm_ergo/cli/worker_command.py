"""Measures schedules for 'tvm-ergo tune --tracker', here or on another machine.

  python -m tvm.exec.rpc_tracker --host 0.0.0.0 --port 9190      one tracker, anywhere
  tvm-ergo worker --tracker HOST:9190 --processes 4              on every machine that is to help
  tvm-ergo tune net.onnx ... --tracker HOST:9190

A worker helps only tuners of its own version of tvm_ergo. It ends with Ctrl-C; jobs it had then are done elsewhere. TVM's RPC has no authentication:
only in networks that are trusted.
"""

from __future__ import annotations

import argparse

HELP = "measure schedules for tuners on other machines"
LOOK_S = 2.0


def add_arguments(parser) -> None:
    parser.add_argument("--tracker", required=True, metavar="HOST:PORT", help="TVM's RPC tracker")
    parser.add_argument("--processes", type=_count, default=1, metavar="N", help="servers to run on this machine (default 1)")
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on (default 0.0.0.0)")


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes; write 1 to 256")
    return int(text)


def run(arguments) -> None:
    import signal
    import time

    from tvm_ergo.remote.key import compiler_key
    from tvm_ergo.remote.server import Watched

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    servers: list[Watched] = []
    try:
        for _ in range(arguments.processes):
            servers.append(Watched(arguments.tracker, key=compiler_key(), host=arguments.host))
        print(f"{len(servers)} measuring at tracker {arguments.tracker} as {compiler_key()}, ports {', '.join(str(s.server.port) for s in servers)}", flush=True)
        while True:
            time.sleep(LOOK_S)
            for server in servers:
                before = server.restarts
                server.look()
                if server.restarts > before:
                    print(f"a server was killed; started again at port {server.server.port}", flush=True)
    finally:
        for server in servers:
            server.stop()
