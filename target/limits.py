"""How much a file may ask for: a limit on the bytes that a model declares, and JSON that is not nested without end.

A file of a few bytes can name a tensor of any size. What a model declares (constants, and every tensor that is
computed) is therefore added up before any of it is allocated, and refused above the limit of the context:
`DEFAULT_MODEL_BYTES`, or what `model_bytes_limit` or ``--max-model-bytes`` says.

The refusal names the whole sum, so that the size in its remedy is enough: a reader notes all that a file declares
(`Declared.note`) and asks then (`Declared.check`); and files are read in stages (bytes, unpacked bytes, declared
tensors, imported tensors), of which the next one may ask for more than the one before. So what is small anyway
(`LOOK_BYTES`) is looked at to the end (`whole`)."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tvm_ergo.target.errors import ErgoError, InputError, ModelError

DEFAULT_MODEL_BYTES = 4 << 30
OPTION = "--max-model-bytes"
LOOK_BYTES = 64 << 20
"""Files below it are read and imported even above the limit, only to say what limit they need; then they are
refused."""
TAKEN_APART = 4
"""Tensors in the place of one that the file declares, where the import takes operators apart."""
MAX_DEPTH = 64
"""Of nested JSON; what this program writes is nested ten deep."""

_limit: ContextVar[int] = ContextVar("tvm_ergo_model_bytes", default=DEFAULT_MODEL_BYTES)
_above: ContextVar[list[Declared] | None] = ContextVar("tvm_ergo_above_the_limit", default=None)
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"?|([\[{])|([\]}])', re.DOTALL)
"""A string, also one that never ends, matches from its first quote without a step back: one pass over any text."""


def max_model_bytes() -> int:
    """The limit in this context."""
    return _limit.get()


@contextmanager
def model_bytes_limit(size: int | str | None) -> Iterator[None]:
    """Within it files may declare ``size`` bytes (an int, or "8GiB"); None leaves the limit as it is. Errors:
    InputError for anything else."""
    if size is None:
        yield
        return
    token = _limit.set(_as_bytes(size))
    try:
        yield
    finally:
        _limit.reset(token)


def _as_bytes(size: int | str) -> int:
    from tvm_ergo.target.chip import bytes_of

    number = bytes_of(size) if isinstance(size, str) else size
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise InputError(
            "max_model_bytes is no size",
            required="a positive number of bytes, or a text such as '8GiB'",
            available=repr(size)[:80],
        )
    return number


class Declared:
    """The bytes a file has declared so far. limit_bytes : None for the context's. error : the kind raised when the sum
    is above it. parts : tensors here for one of the file (`TAKEN_APART`, else 1); the sum is divided by it."""

    def __init__(
        self, source: str, limit_bytes: int | None = None, error: type[ErgoError] = ModelError, parts: int = 1
    ):
        self.source, self.error, self.parts = source, error, parts
        self.limit_bytes = max_model_bytes() if limit_bytes is None else limit_bytes
        self.noted, self.largest, self.where = 0, -1, ""

    @property
    def total(self) -> int:
        return -(-self.noted // self.parts)

    def note(self, size_bytes: float, where: str = "") -> None:
        """Adds without asking: `check` does, once all is noted. where : a node or tensor."""
        size = max(0, int(size_bytes))
        self.noted += size
        if size > self.largest:
            self.largest, self.where = size, where

    def note_tensor(self, shape, itemsize: float, where: str = "") -> None:
        self.note(math.ceil(math.prod(max(0, int(d)) for d in shape) * itemsize), where)

    def check(self) -> None:
        """Errors: ``error``, naming the whole sum and where the most of it is, if that is too much. Within `whole` a
        small one is kept for later."""
        above = _above.get()
        if self.total <= self.limit_bytes:
            return
        if above is None or self.total > LOOK_BYTES:
            raise self.refusal()
        if self not in above:
            above.append(self)

    def add(self, size_bytes: float, where: str = "") -> None:
        """`note` and `check`: for what is allocated right afterwards."""
        self.note(size_bytes, where)
        self.check()

    def add_tensor(self, shape, itemsize: float, where: str = "") -> None:
        self.note_tensor(shape, itemsize, where)
        self.check()

    def refusal(self, needed_bytes: int | None = None) -> ErgoError:
        """needed_bytes : what is enough for the rest of the file too, where that is not the sum."""
        needed = self.total if needed_bytes is None else needed_bytes
        remedy = (
            f"where the file is meant to be that large, {OPTION} {needed}, or in Python "
            f"`with tvm_ergo.model_bytes_limit({needed}):`, allows it; else it is damaged, or made to exhaust memory"
        )
        return self.error(
            "the file asks for more memory than the limit",
            where=f"{self.source}, most of it for {self.where}" if self.where else self.source,
            required=f"{needed:,} bytes",
            available=f"{self.limit_bytes:,} bytes",
            remedy=remedy,
        )


@contextmanager
def whole() -> Iterator[None]:
    """Around the reading of one file: what asks for a little more than the limit (`LOOK_BYTES`) is looked at to the end
    and then refused by its largest sum, so that the message names a limit under which the file is read."""
    if _above.get() is not None:  # a file within a file
        yield
        return
    above: list[Declared] = []
    token = _above.set(above)
    try:
        yield
    finally:
        _above.reset(token)
    if above:
        raise max(above, key=lambda declared: declared.total).refusal()


def read_bytes(path, declared: Declared | None = None) -> bytes:
    """A whole file, which is at most as large as what a file may ask for: a link may lead to a device, which has no
    end. declared : is told of the size first. Errors: OSError, ValueError, that of ``declared``."""
    limit, size = max_model_bytes(), os.stat(path).st_size
    if declared is not None:
        declared.add(size, "the file itself")
        limit = max(limit, size)
    with open(path, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"more than {limit:,} bytes, the limit ({OPTION})")
    return data


def parsed_json(text: str | bytes, constants: bool = False):
    """JSON, nested at most `MAX_DEPTH` deep. constants : with NaN and infinity, for readers that check every number and
    name its key. Errors: ValueError."""
    if isinstance(text, (bytes, bytearray)):
        text = bytes(text).decode("utf-8")
    depth = 0
    for found in _BRACKETS.finditer(text):
        depth += bool(found[1]) - bool(found[2])
        if depth > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
    return json.loads(text, parse_constant=float if constants else _no_number)


def _no_number(text: str):
    raise ValueError(f"{text} is no number of JSON")
