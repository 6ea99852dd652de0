"""How much a file may ask for: a limit on the bytes that a model declares, and JSON that is not nested without end.

A file of a few bytes can name a tensor of any size. What a model declares (constants, and every tensor that is
computed) is therefore added up before any of it is allocated, and refused above the limit of the context:
`DEFAULT_MODEL_BYTES`, or what `model_bytes_limit` or ``--max-model-bytes`` says."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tvm_ergo.target.errors import ErgoError, InputError, ModelError

DEFAULT_MODEL_BYTES = 4 << 30
OPTION = "--max-model-bytes"
REMEDY = (
    f"where the file is meant to be that large, {OPTION} SIZE, or in Python `with tvm_ergo.model_bytes_limit(SIZE):`, "
    f"allows it; else it is damaged, or made to exhaust the memory"
)
MAX_DEPTH = 64
"""Of nested JSON; what this program writes is nested ten deep."""

_limit: ContextVar[int] = ContextVar("tvm_ergo_model_bytes", default=DEFAULT_MODEL_BYTES)
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|([\[{])|([\]}])', re.DOTALL)


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
    is above it."""

    def __init__(self, source: str, limit_bytes: int | None = None, error: type[ErgoError] = ModelError):
        self.source, self.limit_bytes, self.error, self.total = (
            source,
            max_model_bytes() if limit_bytes is None else limit_bytes,
            error,
            0,
        )

    def add(self, size_bytes: int, where: str = "") -> None:
        """Errors: ``error`` naming ``where`` (a node or tensor) if that makes too many."""
        self.total += max(0, int(size_bytes))
        if self.total > self.limit_bytes:
            raise self.error(
                "the file asks for more memory than the limit",
                where=f"{self.source}, {where}" if where else self.source,
                required=f"{self.total:,} bytes or more",
                available=f"{self.limit_bytes:,} bytes",
                remedy=REMEDY,
            )

    def add_tensor(self, shape, itemsize: float, where: str = "") -> None:
        self.add(math.ceil(math.prod(max(0, int(d)) for d in shape) * itemsize), where)


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
