"""The file of a compressed network (``.ergoz``): what `tvm-ergo compress` writes and every command reads in place of
the network.

Bytes: magic ``ERGOZ`` and version u8, 8 bytes of SHA-256 over all that follows, varint length of the header, the header
(JSON: names of inputs and outputs, what the network was made of), varint length of the structure (`module_bytes`), the
structure, then every constant (`tensors`)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tvm

from tvm_ergo.compressed.module_bytes import from_bytes, note_variables, to_bytes
from tvm_ergo.compressed.tensors import Stored, note, restore, store
from tvm_ergo.files import write_atomically
from tvm_ergo.target.codecs.weights import Reader, varint
from tvm_ergo.target.errors import ErgoError, ModelError
from tvm_ergo.target.limits import Declared, parsed_json

MAGIC = b"ERGOZ"
VERSION = 1
DIGEST_BYTES = 8
SUFFIX = ".ergoz"


@dataclass(frozen=True)
class Contents:
    """A network's file in parts. constants : each array and how it is stored, in the file's order. graph_bytes :
    structure and header. data : the file."""

    data: bytes
    constants: tuple[tuple[np.ndarray, Stored], ...]
    graph_bytes: int


def pack(mod: tvm.IRModule, inputs: list[str], outputs: list[str]) -> Contents:
    """The file's bytes for a module whose main takes ``inputs`` and gives ``outputs`` (names of the source). Errors:
    InputError."""
    structure, arrays = to_bytes(mod)
    stored = [store(array) for array in arrays]
    header = json.dumps([inputs, outputs], separators=(",", ":")).encode()
    head = varint(len(header)) + header + varint(len(structure)) + structure
    body = head + b"".join(s.data for s in stored)
    data = MAGIC + bytes([VERSION]) + hashlib.sha256(body).digest()[:DIGEST_BYTES] + body
    return Contents(data, tuple(zip(arrays, stored, strict=True)), len(data) - sum(len(s.data) for s in stored))


def write(path: str | Path, contents: Contents) -> None:
    """Errors: OutputError."""
    write_atomically(Path(path), contents.data)


def is_compressed(data: bytes) -> bool:
    return data.startswith(MAGIC)


def unpack(data: bytes, source: str = "bytes in memory") -> tuple[tvm.IRModule, list[str], list[str]]:
    """``(module, input names, output names)``. Errors: ModelError for another kind of file, a truncated or changed
    one."""
    start = len(MAGIC) + 1 + DIGEST_BYTES
    if not data.startswith(MAGIC) or len(data) < start:
        raise ModelError(
            "this is not a compressed network",
            where=source,
            required=f"a file that begins with {MAGIC.decode()}",
            remedy="give a file that tvm-ergo compress wrote, or the network's ONNX or TFLite file",
        )
    if data[len(MAGIC)] != VERSION:
        raise ModelError(
            f"the compressed network has version {data[len(MAGIC)]}",
            where=source,
            required=f"version {VERSION}",
            remedy="compress it again",
        )
    body = data[start:]
    if hashlib.sha256(body).digest()[:DIGEST_BYTES] != data[start - DIGEST_BYTES : start]:
        raise ModelError(
            "the compressed network is truncated or its bytes were changed",
            where=source,
            remedy="copy or compress it again",
        )
    try:
        reader, declared = Reader(body), Declared(source)
        inputs, outputs = parsed_json(reader.take(reader.varint()))
        structure, arrays, first = reader.take(reader.varint()), [], reader.at
        while reader.at < len(body):
            note(reader, declared)
        note_variables(structure, declared)
        declared.check()
        reader.at = first
        while reader.at < len(body):
            arrays.append(restore(reader))
        mod = from_bytes(structure, arrays, Declared(source))
        _check_names(mod, inputs, outputs)
        return mod, inputs, outputs
    except ModelError:
        raise
    except (ErgoError, ValueError, TypeError) as error:
        raise ModelError(
            "the compressed network is damaged",
            where=source,
            available=str(error).splitlines()[0][:200],
            remedy="compress the network again",
        ) from None


def _check_names(mod: tvm.IRModule, inputs, outputs) -> None:
    """Whether there is a text for every input and output. Errors: ValueError."""
    func = mod["main"]
    results = len(func.ret_ty.fields) if isinstance(func.ret_ty, tvm.ir.TupleType) else 1
    for names, count, what in ((inputs, len(func.params), "inputs"), (outputs, results, "outputs")):
        if (
            not isinstance(names, list)
            or not all(isinstance(name, str) for name in names)
            or len(names) != count
            or len(set(names)) != count
        ):
            raise ValueError(f"its {what} are not named")
