"""JSON messages over a socket, each of limited size and time: a length (u32, little-endian), with a session key a MAC
(32 bytes), then the text.

The MAC is HMAC-SHA256 over the direction, the number of the message and its text, so that nobody on the way can alter,
leave out or repeat one. Nothing is encrypted."""

from __future__ import annotations

import hashlib
import hmac
import json
import select
import socket
import struct
import time
from math import inf

LENGTH = struct.Struct("<I")
MAC_BYTES = 32
CHUNK_BYTES = 1 << 16
SEND_S = 60.0


class Gone(Exception):
    """The other side closed the connection, or it broke."""


class Misbehaved(Exception):
    """The other side sent what no worker and no tuner of this version sends."""


class Late(Exception):
    """The other side did not answer in time."""


class Channel:
    """One side of a connection. key : of the session (None: no MAC, for a socket that nobody else can have). speaks,
    hears : names of the two directions."""

    def __init__(self, sock: socket.socket, speaks: bytes = b"", hears: bytes = b""):
        self.sock, self.key = sock, b""
        self._directions = speaks, hears
        self._counts = [0, 0]

    def send(self, message: dict) -> bytes:
        """Returns the text sent. Errors: Gone, Late (the other side does not read)."""
        text = json.dumps(message, allow_nan=False).encode()
        try:
            self.sock.settimeout(SEND_S)
            self.sock.sendall(LENGTH.pack(len(text)) + self._mac(0, text) + text)
        except TimeoutError:
            raise Late(f"does not read, for {SEND_S:g} s") from None
        except OSError as error:
            raise Gone(str(error.strerror or error)) from None
        return text

    def receive(self, most_bytes: int, seconds: float = inf) -> dict:
        """The next message. Errors: Gone, Late (it is not all there in time), Misbehaved (too long, not of this
        session, no JSON object)."""
        return parsed(self.receive_text(most_bytes, seconds))

    def receive_text(self, most_bytes: int, seconds: float = inf) -> bytes:
        until = time.monotonic() + seconds
        (size,) = LENGTH.unpack(self._read(LENGTH.size, until))
        if size > most_bytes:
            raise Misbehaved(f"a message of {size:,} bytes, at most {most_bytes:,} are taken")
        mac = self._read(MAC_BYTES if self.key else 0, until)
        text = self._read(size, until)
        if not hmac.compare_digest(mac, self._mac(1, text)):
            raise Misbehaved("a message that is not of this session")
        return text

    def is_over(self) -> bool:
        """Whether the other side has closed, or says something unasked."""
        if self.sock.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        self.sock.close()

    def _mac(self, direction: int, text: bytes) -> bytes:
        if not self.key:
            return b""
        self._counts[direction] += 1
        return hmac.digest(
            self.key, self._directions[direction] + struct.pack("<Q", self._counts[direction]) + text, hashlib.sha256
        )

    def _read(self, size: int, until: float) -> bytes:
        data = bytearray()  # grows with what arrives: a length alone costs no memory
        while len(data) < size:
            left = until - time.monotonic()
            if left <= 0:
                raise Late("no answer in time")
            try:
                self.sock.settimeout(None if left == inf else left)
                more = self.sock.recv(min(CHUNK_BYTES, size - len(data)))
            except TimeoutError:
                raise Late("no answer in time") from None
            except OSError as error:
                raise Gone(str(error.strerror or error)) from None
            if not more:
                raise Gone("it closed the connection")
            data += more
        return bytes(data)


def parsed(text: bytes) -> dict:
    """A JSON object without NaN and infinities. Errors: Misbehaved."""

    def refuse(constant: str):
        raise ValueError(f"{constant} is no JSON")

    try:
        message = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise Misbehaved(f"a message that is no JSON: {shown(error, 100)}") from None
    if not isinstance(message, dict):
        raise Misbehaved(f"a message that is no JSON object: {shown(message, 60)}")
    return message


def shown(value: object, most: int) -> str:
    """What somebody else wrote, for the terminal: cut, control characters escaped."""
    text = str(value)[: 4 * most]
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= most else text[: most - 3] + "..."
