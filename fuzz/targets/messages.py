"""What workers say: frames on a connection, greetings, answers and figures; and what a worker is told."""

from __future__ import annotations

import json
import socket
from types import SimpleNamespace

from fuzz import mutate
from fuzz.engine import Target
from tvm_ergo.remote.channel import LENGTH, Channel, Gone, Late, Misbehaved
from tvm_ergo.remote.greeting import PROTOCOL, Refused, _checked
from tvm_ergo.remote.key import compiler_key
from tvm_ergo.target.chip import chip
from tvm_ergo.tuning.distant import believed

CHIP = chip("ergo/1")
TASK = SimpleNamespace(bench=SimpleNamespace(chip=CHIP))


def seeds() -> list[dict]:
    figures = {
        "cycles": 1000,
        "energy_pj": {p.name: 5.0 for p in CHIP.points},
        "constant_bytes": 10,
        "activation_bytes": 20,
        "live_bytes": 15,
        "peak_mw": {},
        "gated_mw": {},
    }
    return [
        {"result": {"figures": figures}},
        {"result": {"refused": "no room"}},
        {"error": "x"},
        {"protocol": PROTOCOL, "compiler": compiler_key(), "processes": 2},
    ]


def change(rng, seed: dict, other: dict) -> bytes:
    text = json.dumps(mutate.json_value(rng, seed)).encode("utf-8", "replace")
    if rng.random() < 0.3:
        text = mutate.some_bytes(rng, text)
    frame = LENGTH.pack(len(text) if rng.random() < 0.9 else rng.choice(mutate.NUMBERS) % (1 << 8 * LENGTH.size)) + text
    return mutate.some_bytes(rng, frame) if rng.random() < 0.1 else frame


def run(frame) -> None:
    frame = frame if isinstance(frame, bytes) else _framed(frame)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(frame)
        theirs.shutdown(socket.SHUT_WR)
        message = Channel(ours).receive(1 << 20, 5.0)
    if "result" in message:
        believed(message["result"], TASK)
    else:
        _checked(json.dumps(message).encode())


def _framed(message: dict) -> bytes:
    text = json.dumps(
        {"protocol": PROTOCOL, "compiler": compiler_key(), "processes": 2} if "error" in message else message
    ).encode()
    return LENGTH.pack(len(text)) + text


TARGET = Target(seeds, change, run, own=(Gone, Late, Misbehaved, Refused))
