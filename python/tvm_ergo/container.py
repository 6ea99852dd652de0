"""The file of a compiled model: named sections behind a checksum.

Bytes, little-endian: magic ``ERGOMODL``, version u16, SHA-256 (32 bytes, over magic, version and payload), payload. The
payload is, per section: length u16 of the name, name, length u64, content.

Sections: ``meta`` (JSON: chip, source, inputs, outputs, host operators); then either ``chain`` (JSON, see
`tvm_ergo.chain`) and one ``program:SYMBOL`` a Program, all of it data; or, where operators stay on the host,
``library`` (machine code, a shared library) and ``places`` (JSON: where in the library each Program's bytes lie, so
that they can be read without loading it). Networks with several
entries have further sections (`tvm_ergo.entry_files`). Version 1 had ``meta`` and ``library`` only."""

from __future__ import annotations

import hashlib
import json
import struct
import tempfile
from pathlib import Path

import tvm
import tvm_ffi

from tvm_ergo.files import write_atomically
from tvm_ergo.target.errors import OutputError, ProgramError
from tvm_ergo.target.limits import Declared, parsed_json, read_bytes
from tvm_ergo.target.program import HEAD as PROGRAM_HEAD
from tvm_ergo.target.program import MAGIC as PROGRAM_MAGIC

MAGIC = b"ERGOMODL"
VERSION = 2
READABLE = (1, 2)
PROGRAM = "program:"
HEAD = struct.Struct("<8sH32s")
MAX_SYMBOL = 1024


def _digest(version: int, payload: bytes) -> bytes:
    return hashlib.sha256(MAGIC + struct.pack("<H", version) + payload).digest()


def write(path: Path, sections: dict[str, bytes]) -> None:
    """Writes the file, or leaves what was there. Errors: OutputError."""
    write_atomically(path, packed(sections))


def packed(sections: dict[str, bytes]) -> bytes:
    """The bytes of the file."""
    payload = b"".join(
        struct.pack("<H", len(n.encode())) + n.encode() + struct.pack("<Q", len(c)) + c for n, c in sections.items()
    )
    return HEAD.pack(MAGIC, VERSION, _digest(VERSION, payload)) + payload


def read(path: Path) -> dict[str, bytes]:
    """The sections. Errors: ProgramError for a file that cannot be read, is something else, truncated, or changed in
    any bit."""
    try:
        data = read_bytes(path, Declared(str(path), error=ProgramError))
    except (OSError, ValueError) as error:  # ValueError: too large, or a name no file can have
        raise ProgramError(
            "the compiled model cannot be read",
            where=str(path),
            available=getattr(error, "strerror", None) or str(error),
            remedy="check the path and its permissions",
        ) from None
    return unpacked(data, str(path))


def unpacked(data: bytes, path: str) -> dict[str, bytes]:
    """As `read`, of what `packed` made. path : for messages."""
    if len(data) < HEAD.size or not data.startswith(MAGIC):
        raise ProgramError(
            "this is not a compiled model",
            where=path,
            required=f"a file that begins with {MAGIC.decode()}",
            remedy="compiled models are written by `tvm-ergo compile` or CompiledModel.save",
        )
    _, version, digest = HEAD.unpack_from(data)
    if version not in READABLE:
        raise ProgramError(
            f"the compiled model has version {version}",
            where=path,
            required=f"version {' or '.join(map(str, READABLE))}",
            remedy="compile it again",
        )
    payload = data[HEAD.size :]
    if _digest(version, payload) != digest:
        raise ProgramError(
            "the compiled model's checksum does not match: it is truncated or its bytes were changed",
            where=path,
            remedy="copy or compile it again",
        )
    try:
        return _sections(payload)
    except (struct.error, UnicodeDecodeError) as error:
        raise ProgramError(
            f"the compiled model's sections are not what was written: {error}", where=path, remedy="compile it again"
        ) from None


def _sections(payload: bytes) -> dict[str, bytes]:
    sections, at = {}, 0
    while at < len(payload):
        (name_length,) = struct.unpack_from("<H", payload, at)
        name = payload[at + 2 : at + 2 + name_length].decode()
        at += 2 + name_length
        (length,) = struct.unpack_from("<Q", payload, at)
        if length > len(payload) - at - 8 or name in sections:
            raise struct.error(f"section {name!r} is longer than the file, or there twice")
        sections[name] = payload[at + 8 : at + 8 + length]
        at += 8 + length
    return sections


def program_sections(programs: dict[str, bytes], library: bytes | None) -> dict[str, bytes]:
    """The sections that let Programs be read alone: each by itself, or, with a library, where in it they lie (by
    themselves what is not in one piece there)."""
    places = (
        {}
        if library is None
        else {symbol: [at, len(data)] for symbol, data in programs.items() if (at := library.find(data)) >= 0}
    )
    sections = {PROGRAM + symbol: data for symbol, data in programs.items() if symbol not in places}
    return sections if library is None else {"places": json.dumps(places).encode(), **sections}


def programs_in(sections: dict[str, bytes]) -> dict[str, bytes]:
    """Program bytes by symbol, without loading anything. Errors: ValueError, TypeError for places that are none."""
    found = {name[len(PROGRAM) :]: content for name, content in sections.items() if name.startswith(PROGRAM)}
    library = sections.get("library")
    if library is None:
        return found
    if "places" not in sections:
        return _searched(library)
    taken: dict[tuple[int, int], bytes] = {}  # equal Programs may lie in one place; others do not overlap
    for symbol, (at, length) in dict(parsed_json(sections["places"])).items():
        if type(at) is not int or type(length) is not int or at < 0 or length < 0 or symbol in found:
            raise ValueError(f"the place of Program {symbol[:80]!r} is none")
        if (at, length) not in taken and sum(map(len, taken.values())) + length > len(library):
            raise ValueError("the places of Programs are larger than the library")
        found[symbol] = taken.setdefault((at, length), library[at : at + length])
    return found


def _searched(library: bytes) -> dict[str, bytes]:
    """Programs in a library of version 1, which says nothing of where: length u64 of the symbol, symbol, length u64,
    Program (`program_module.cc`)."""
    found, at = {}, library.find(PROGRAM_MAGIC)
    while at >= 0:
        size = (
            PROGRAM_HEAD.size + PROGRAM_HEAD.unpack_from(library, at)[-1]
            if len(library) - at >= PROGRAM_HEAD.size
            else 0
        )
        if size and at >= 17 and struct.unpack_from("<Q", library, at - 8) == (size,):
            names = (
                length
                for length in range(1, min(MAX_SYMBOL, at - 16) + 1)
                if struct.unpack_from("<Q", library, at - 16 - length) == (length,)
            )
            length = next(names, None)
            if length:
                found[library[at - 8 - length : at - 8].decode("utf-8", "replace")] = library[at : at + size]
        at = library.find(PROGRAM_MAGIC, at + 1)
    return found


def library_bytes(module: tvm.runtime.Module) -> bytes:
    """The shared library of a runtime module. Errors: OutputError if it cannot be linked (needs g++)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.so"
        try:
            module.export_library(str(path))
            return path.read_bytes()
        except (OSError, RuntimeError) as error:
            raise OutputError(
                "the model's library cannot be linked",
                available=str(error).splitlines()[-1] if str(error) else None,
                remedy="install g++",
            ) from None


def library_module(library: bytes) -> tvm.runtime.Module:
    """The runtime module of a library's bytes (the file is only needed while it is being loaded)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.so"
        path.write_bytes(library)
        try:
            # TVM's own load_module keeps every library until the process ends. Nothing that a run returns is the
            # library's, and what it is run by holds it
            return tvm_ffi.load_module(str(path), keep_module_alive=False)
        except (OSError, RuntimeError, ValueError) as error:
            raise ProgramError(
                "the compiled model's library cannot be loaded here",
                available=str(error).strip().splitlines()[-1][:300],
                remedy="compile the model again on this machine",
            ) from None
