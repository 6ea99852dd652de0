"""Seeing what the chip did: every call of a Program inside ``with record() as calls`` is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tvm_ergo.target.machine import Trace
    from tvm_ergo.target.program import Program


@dataclass(frozen=True)
class ChipCall:
    """One call of one Program: the symbol it was called by, its Program, inputs and outputs by port name, and the trace."""

    symbol: str
    program: Program
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    trace: Trace


Watcher = Callable[[str, int, object, np.ndarray], None]
"""``watcher(symbol, instruction index, operand, value)``: after an instruction wrote ``value`` to ``operand``."""

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
    """Calls ``watcher`` with a copy of what each instruction writes, for chip calls made inside the block."""
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
