"""Both sides of a connection prove that they have the same key, before anything else is taken; the key itself never
goes over the wire.

Worker: ``{protocol, compiler, processes, nonce}``. Tuner: ``{nonce, proof}``. Worker: ``{proof}`` or ``{refused}``.
Each proof is HMAC-SHA256 with the key over the worker's first message and the tuner's nonce, with another word for each
side and for the key of the session."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import socket

from tvm_ergo.remote.channel import Channel, Gone, Late, Misbehaved, shown
from tvm_ergo.remote.key import compiler_key

PROTOCOL = "tvm-ergo-worker/1"
MOST_BYTES = 4096
GREETING_S = 10.0
NONCE_BYTES = 32


class Refused(Exception):
    """The two sides do not fit: another key, another version, or no worker at all."""


def _proof(secret: bytes, word: bytes, said: bytes, nonce: str) -> bytes:
    return hmac.digest(secret, word + b"\0" + said + b"\0" + nonce.encode(), hashlib.sha256)


def _is(proof: object, expected: bytes) -> bool:
    return isinstance(proof, str) and hmac.compare_digest(proof.encode(), expected.hex().encode())


def greet(sock: socket.socket, secret: bytes, processes: int) -> Channel:
    """As a worker. Errors: Refused (wrong key), Gone, Late, Misbehaved."""
    channel = Channel(sock, b"worker", b"tuner")
    said = channel.send(
        {
            "protocol": PROTOCOL,
            "compiler": compiler_key(),
            "processes": processes,
            "nonce": secrets.token_hex(NONCE_BYTES),
        }
    )
    answer = channel.receive(MOST_BYTES, GREETING_S)
    nonce = answer.get("nonce")
    if (
        not isinstance(nonce, str)
        or not nonce.isascii()
        or not _is(answer.get("proof"), _proof(secret, b"tuner", said, nonce))
    ):
        channel.send({"refused": "the keys differ"})
        raise Refused("the keys differ")
    channel.send({"proof": _proof(secret, b"worker", said, nonce).hex()})
    channel.key = _proof(secret, b"session", said, nonce)
    return channel


def be_greeted(sock: socket.socket, secret: bytes) -> tuple[Channel, int]:
    """As a tuner: the channel, and how many sessions the worker has room for. Errors: Refused, Gone, Late."""
    channel, nonce = Channel(sock, b"tuner", b"worker"), secrets.token_hex(NONCE_BYTES)
    try:
        said = channel.receive_text(MOST_BYTES, GREETING_S)
        processes = _checked(said)
        channel.send({"nonce": nonce, "proof": _proof(secret, b"tuner", said, nonce).hex()})
        answer = channel.receive(MOST_BYTES, GREETING_S)
        if not _is(answer.get("proof"), _proof(secret, b"worker", said, nonce)):
            raise Refused(shown(answer.get("refused", "it does not have the key"), 200))
    except Misbehaved as error:
        raise Refused(f"it is no worker: {error}") from None
    channel.key = _proof(secret, b"session", said, nonce)
    return channel, processes


def _checked(said: bytes) -> int:
    """Errors: Refused, Misbehaved."""
    from tvm_ergo.remote.channel import parsed

    hello = parsed(said)
    if hello.get("protocol") != PROTOCOL:
        raise Refused(f"it is no worker of this protocol: {shown(hello.get('protocol'), 60)}")
    if hello.get("compiler") != compiler_key():
        raise Refused(f"it is of another version: {shown(hello.get('compiler'), 60)}, here {compiler_key()}")
    processes = hello.get("processes")
    if type(processes) is not int or not 1 <= processes <= 256:
        raise Refused(f"it is no worker: {shown(processes, 20)} processes")
    return processes


__all__ = ["GREETING_S", "Gone", "Late", "Refused", "be_greeted", "greet"]
