"""The file of a compiled model: named sections behind a checksum.

Bytes, little-endian: magic ``ERGOMODL``, version u16, SHA-256 (32 bytes, over magic, version and payload), payload. The payload is,
per section: length u16 of the name, name, length u64, content.
"""

from __future__ import annotations

import hashlib
import struct
import tempfile
from pathlib import Path

import tvm
from tvm_ergo.files import write_atomically
from tvm_ergo.target.errors import OutputError, ProgramError

MAGIC = b"ERGOMODL"
VERSION = 1
HEAD = struct.Struct("<8sH32s")


def _digest(version: int, payload: bytes) -> bytes:
    return hashlib.sha256(MAGIC + struct.pack("<H", version) + payload).digest()


def write(path: Path, sections: dict[str, bytes]) -> None:
    """Writes the file, or leaves what was there. Errors: OutputError."""
    write_atomically(path, packed(sections))


def packed(sections: dict[str, bytes]) -> bytes:
    """The bytes of the file."""
    payload = b"".join(struct.pack("<H", len(n.encode())) + n.encode() + struct.pack("<Q", len(c)) + c for n, c in sections.items())
    return HEAD.pack(MAGIC, VERSION, _digest(VERSION, payload)) + payload


def read(path: Path) -> dict[str, bytes]:
    """The sections. Errors: ProgramError for a file that cannot be read, is something else, truncated, or changed in any bit."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ProgramError("the compiled model cannot be read", where=str(path), available=error.strerror or str(error)) from None
    if len(data) < HEAD.size or not data.startswith(MAGIC):
        raise ProgramError("this is not a compiled model", where=str(path), required=f"a file that begins with {MAGIC.decode()}",
                           remedy="compiled models are written by `tvm-ergo compile` or CompiledModel.save")
    _, version, digest = HEAD.unpack_from(data)
    if version != VERSION:
        raise ProgramError(f"the compiled model has version {version}", where=str(path), required=f"version {VERSION}", remedy="compile it again")
    payload = data[HEAD.size:]
    if _digest(version, payload) != digest:
        raise ProgramError("the compiled model's checksum does not match: it is truncated or its bytes were changed", where=str(path),
                           remedy="copy or compile it again")
    try:
        return _sections(payload)
    except (struct.error, UnicodeDecodeError) as error:
        raise ProgramError(f"the compiled model's sections are not what was written: {error}", where=str(path), remedy="compile it again") from None


def _sections(payload: bytes) -> dict[str, bytes]:
    """The checksum holds, so the lengths are what ``write`` wrote."""
    sections, at = {}, 0
    while at < len(payload):
        (name_length,) = struct.unpack_from("<H", payload, at)
        name = payload[at + 2: at + 2 + name_length].decode()
        at += 2 + name_length
        (length,) = struct.unpack_from("<Q", payload, at)
        sections[name] = payload[at + 8: at + 8 + length]
        at += 8 + length
    return sections


def library_bytes(module: tvm.runtime.Module) -> bytes:
    """The shared library of a runtime module. Errors: OutputError if it cannot be linked (needs g++)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.so"
        try:
            module.export_library(str(path))
            return path.read_bytes()
        except (OSError, RuntimeError) as error:
            raise OutputError("the model's library cannot be linked", available=str(error).splitlines()[-1] if str(error) else None,
                              remedy="install g++") from None


def library_module(library: bytes) -> tvm.runtime.Module:
    """The runtime module of a library's bytes (the file is only needed while it is being loaded)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.so"
        path.write_bytes(library)
        try:
            return tvm.runtime.load_module(str(path))
        except (OSError, RuntimeError, ValueError) as error:
            raise ProgramError("the compiled model's library cannot be loaded here", available=str(error).strip().splitlines()[-1][:300],
                               remedy="compile the model again on this machine") from None
