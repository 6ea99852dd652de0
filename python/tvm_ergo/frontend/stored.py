"""Bytes of model files: read, unpacked and completed with the data files beside them, never beyond the limit on what a
model may declare."""

from __future__ import annotations

import lzma
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import onnx

from tvm_ergo.target.errors import ModelError
from tvm_ergo.target.limits import Declared, max_model_bytes

XZ_MAGIC = b"\xfd7zXZ\x00"
XZ_MEMORY_BYTES = 1 << 28
"""Of the decompressor itself: twice what the strongest setting asks for."""
CHUNK_BYTES = 1 << 24


def read_file(path: Path) -> bytes:
    """Errors: ModelError where it cannot be read, or is larger than the limit."""
    try:
        with open(path, "rb") as file:
            Declared(str(path)).add(os.fstat(file.fileno()).st_size, "the file itself")
            data = file.read(max_model_bytes() + 1)  # a pipe or device has no size
    except (OSError, ValueError) as error:  # ValueError: a name no file can have
        raise ModelError(
            "the model file cannot be read", where=str(path), available=getattr(error, "strerror", None) or str(error)
        ) from error
    Declared(str(path)).add(len(data), "the file itself")
    return data


def unpacked(data: bytes, source: str) -> bytes:
    """What an .xz holds, opened piece by piece. Errors: ModelError where it is damaged, or opens to more than the
    limit."""
    declared, parts = Declared(source), []
    try:
        while data:
            stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES)
            while not stream.eof:
                part = stream.decompress(data, CHUNK_BYTES)
                data = b""
                if not part and not stream.eof and stream.needs_input:
                    raise EOFError("it ends before the end of the stream")
                declared.add(len(part), "unpacked")
                parts.append(part)
            data = stream.unused_data.lstrip(b"\0")  # streams may follow each other, with padding between
    except (lzma.LZMAError, EOFError) as error:
        raise ModelError("the compressed file is truncated or damaged", where=source, available=str(error)) from error
    return b"".join(parts)


def load_external(model: onnx.ModelProto, source: str, folder: Path) -> None:
    """Puts the data of tensors that are stored beside the model into it: initializers, constants of nodes, those of
    subgraphs and functions.

    Only regular files below the model's folder are read, and no links. Errors: ModelError where one is missing, short,
    or elsewhere, or asks for more than the limit."""
    declared = Declared(source)
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            declared.add_tensor(tensor.dims, 0.5, f"tensor {tensor.name!r}")  # at least, for elements of four bits
            tensor.raw_data = _external_data(tensor, source, folder, declared)
            tensor.ClearField("data_location")
            del tensor.external_data[:]


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    waiting = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        if isinstance(graph, onnx.GraphProto):
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
        for node in graph.node:
            for attribute in node.attribute:
                yield attribute.t
                yield from attribute.tensors
                for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                    yield from (sparse.values, sparse.indices)
                waiting += [attribute.g, *attribute.graphs]


def _external_data(tensor: onnx.TensorProto, source: str, folder: Path, declared: Declared) -> bytes:
    said = {entry.key: entry.value for entry in tensor.external_data}
    location, where = said.get("location", ""), f"{source}, tensor {tensor.name!r}"

    def refuse(reason: str):
        return ModelError(
            "a weight file beside the model cannot be read",
            where=where,
            available=f"{location[:200]!r}: {reason}",
            remedy="keep the data files the model names beside it, as plain files",
        )

    try:
        offset, length = (int(said.get(key) or 0) for key in ("offset", "length"))
    except ValueError:
        raise refuse("its offset or length is no number") from None
    path = folder / location
    parts = Path(location).parts
    if not parts or Path(location).is_absolute() or ".." in parts or "\0" in location:
        raise refuse("only files below the model's folder are read")
    try:
        if os.path.realpath(path) != os.path.join(os.path.realpath(folder), *parts):
            raise refuse("links are not followed")
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as error:
        raise refuse(getattr(error, "strerror", None) or str(error)) from None
    with open(handle, "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise refuse("it is no plain file")
        available = about.st_size - offset
        if offset < 0 or length < 0 or available < length:
            raise refuse(f"it has {about.st_size:,} bytes, not {offset + length:,}")
        declared.add(length or available, f"tensor {tensor.name!r}")
        file.seek(offset)
        data = file.read(length or available)
    if len(data) != (length or available):
        raise refuse("it ended while it was being read")
    return data
