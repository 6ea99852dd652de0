"""Bytes of model files: read, unpacked and completed with the data files beside them, never beyond the limit on what a
model may declare."""

from __future__ import annotations

import lzma
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import onnx

from tvm_ergo.files import is_result
from tvm_ergo.frontend.xz_index import unpacked_bytes
from tvm_ergo.target.errors import ModelError, OutputError
from tvm_ergo.target.limits import LOOK_BYTES, Declared, max_model_bytes

XZ_MAGIC = b"\xfd7zXZ\x00"
XZ_MEMORY_BYTES = 1 << 28
"""Of the decompressor itself: twice what the strongest setting asks for."""
CHUNK_BYTES = 1 << 24
ROOM = 4
"""What a large file's remedy names, as a multiple of its bytes."""


def read_file(path: Path) -> bytes:
    """Errors: ModelError where it cannot be read, or is larger than the limit."""
    try:
        with open(path, "rb") as file:
            _check_file(os.fstat(file.fileno()).st_size, str(path), "the file itself")
            data = file.read(max(max_model_bytes(), LOOK_BYTES) + 1)  # a pipe or device has no size
    except (OSError, ValueError) as error:  # ValueError: a name no file can have
        raise ModelError(
            "the model file cannot be read",
            where=str(path),
            available=getattr(error, "strerror", None) or str(error),
            remedy="check the path and its permissions",
        ) from error
    _check_file(len(data), str(path), "the file itself")
    return data


def _check_file(size_bytes: int, source: str, where: str) -> None:
    """Errors: ModelError above the limit. What the model in it computes is not known yet, so the remedy leaves room."""
    declared = Declared(source)
    declared.note(size_bytes, where)
    if size_bytes > max(declared.limit_bytes, LOOK_BYTES):
        raise declared.refusal(ROOM * size_bytes)
    declared.check()


def unpacked(data: bytes, source: str) -> bytes:
    """What an .xz holds, opened piece by piece. Errors: ModelError where it is damaged, or opens to more than the
    limit."""
    _check_file(unpacked_bytes(data) or 0, source, "what it opens to")
    size, parts = 0, []
    try:
        while data:
            stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES)
            while not stream.eof:
                part = stream.decompress(data, CHUNK_BYTES)
                data = b""
                if not part and not stream.eof and stream.needs_input:
                    raise EOFError("it ends before the end of the stream")
                size += len(part)
                _check_file(size, source, "what it opens to")  # whatever its index says
                parts.append(part)
            data = stream.unused_data.lstrip(b"\0")  # streams may follow each other, with padding between
    except (lzma.LZMAError, EOFError) as error:
        raise ModelError(
            "the compressed file is truncated or damaged",
            where=source,
            available=str(error),
            remedy="copy the file again; `xz -t FILE` checks it",
        ) from error
    return b"".join(parts)


def load_external(model: onnx.ModelProto, source: str, folder: Path) -> None:
    """Puts the data of tensors that are stored beside the model into it: initializers, constants of nodes, those of
    subgraphs and functions.

    Only regular files below the model's folder are read, and no links. Errors: ModelError where one is missing, short,
    or elsewhere, or asks for more than the limit."""
    declared = Declared(source)
    for tensor in tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            declared.note(_External(tensor, source, folder).size_bytes, f"tensor {tensor.name!r}")
    declared.check()
    for tensor in tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.raw_data = _External(tensor, source, folder).read()
            tensor.ClearField("data_location")
            del tensor.external_data[:]


def tensors(model: onnx.ModelProto, sparse_too: bool = False) -> Iterator[onnx.TensorProto]:
    """All that the file stores: initializers, attributes of nodes, those in subgraphs and functions; of sparse ones the
    parts, and with ``sparse_too`` themselves."""
    waiting = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        if isinstance(graph, onnx.GraphProto):
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices, *([sparse] if sparse_too else []))
        for node in graph.node:
            for attribute in node.attribute:
                yield attribute.t
                yield from attribute.tensors
                for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                    yield from (sparse.values, sparse.indices, *([sparse] if sparse_too else []))
                waiting += [attribute.g, *attribute.graphs]


class _External:
    """The place of a tensor's data. Errors: ModelError for one that is missing, short, or elsewhere."""

    def __init__(self, tensor: onnx.TensorProto, source: str, folder: Path):
        said = {entry.key: entry.value for entry in tensor.external_data}
        self.location, self.where = said.get("location", ""), f"{source}, tensor {tensor.name!r}"
        try:
            self.offset, length = (int(said.get(key) or 0) for key in ("offset", "length"))
        except ValueError:
            raise self._refuse("its offset or length is no number") from None
        self.path = self._checked(folder)
        if is_result(self.path):
            raise OutputError(
                f"{self.location} would be overwritten",
                where=self.where,
                available="it holds weights of the model",
                remedy="give another path for the result",
            )
        with self._open() as file:
            size = os.fstat(file.fileno()).st_size
        available = size - self.offset
        if self.offset < 0 or length < 0 or available < length:
            raise self._refuse(f"it has {size:,} bytes, not {self.offset + length:,}")
        self.size_bytes = length or available

    def read(self) -> bytes:
        with self._open() as file:
            file.seek(self.offset)
            data = file.read(self.size_bytes)
        if len(data) != self.size_bytes:
            raise self._refuse("it ended while it was being read")
        return data

    def _refuse(self, reason: str) -> ModelError:
        return ModelError(
            "a weight file beside the model cannot be read",
            where=self.where,
            available=f"{self.location[:200]!r}: {reason}",
            remedy="keep the data files the model names beside it, as plain files",
        )

    def _checked(self, folder: Path) -> Path:
        path, parts = folder / self.location, Path(self.location).parts
        if not parts or Path(self.location).is_absolute() or ".." in parts or "\0" in self.location:
            raise self._refuse("only files below the model's folder are read")
        try:
            if os.path.realpath(path) != os.path.join(os.path.realpath(folder), *parts):
                raise self._refuse("links are not followed")
        except (OSError, ValueError) as error:
            raise self._refuse(getattr(error, "strerror", None) or str(error)) from None
        return path

    def _open(self):
        try:
            handle = os.open(self.path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        except (OSError, ValueError) as error:
            raise self._refuse(getattr(error, "strerror", None) or str(error)) from None
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise self._refuse("it is no plain file")
        return open(handle, "rb")
