"""Seeing what the chip did: every call of a Program inside ``with record() as calls`` is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tvm_ergo.target.machine import TileCount, Trace
    from tvm_ergo.target.program import Program


@dataclass(frozen=True)
class ChipCall:
    """One call of one Program: the symbol it was called by, its Program, inputs and outputs by port name, the trace,
    and what became of each tensor that it kept compressed."""

    symbol: str
    program: Program
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    trace: Trace
    compressed: tuple[TileCount, ...] = ()


@dataclass(frozen=True)
class Watched:
    """One intermediate tensor: the symbol of its Program, its name, source layer and op, and what its integers mean
    (``real = out_scale * (q - out_zp)``; out_scale 0: unknown)."""

    symbol: str
    name: str
    layer: str
    op: str
    out_scale: float
    out_zp: int


Watcher = Callable[[Watched, np.ndarray], np.ndarray | None]
"""``watcher(tensor, value)``: ``value`` is a copy, taken when the tensor is complete. An array that it returns, of the
same shape and dtype, takes the tensor's place in the chip's memory: what reads it later reads that (for measuring what
coarser values would do)."""

_recorders: ContextVar[tuple[list[ChipCall], ...]] = ContextVar("tvm_ergo_recorders", default=())
_watchers: ContextVar[tuple[Watcher, ...]] = ContextVar("tvm_ergo_watchers", default=())


@contextmanager
def record() -> Iterator[list[ChipCall]]:
    """Collects every chip call made inside the block, in order. Blocks may be nested; each sees all calls inside it."""
    calls: list[ChipCall] = []
    token = _recorders.set((*_recorders.get(), calls))
    try:
        yield calls
    finally:
        _recorders.reset(token)


@contextmanager
def watch(watcher: Watcher) -> Iterator[None]:
    """Calls ``watcher`` with every intermediate tensor of the chip calls made inside the block, as each is
    completed."""
    token = _watchers.set((*_watchers.get(), watcher))
    try:
        yield
    finally:
        _watchers.reset(token)


def recorders() -> tuple[list[ChipCall], ...]:
    """The recorders of the blocks now open."""
    return _recorders.get()


def watchers() -> tuple[Watcher, ...]:
    """The watchers of the blocks now open."""
    return _watchers.get()
