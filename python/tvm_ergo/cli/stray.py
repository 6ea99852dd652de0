"""Warnings that TVM's C++ writes straight to the standard error are of its insides: they do not reach the user."""

from __future__ import annotations

import io
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

STRAY = re.compile(rb"^\[\d\d:\d\d:\d\d\] \S+\.(cc|cpp|h|hpp):\d+: Warning: ")
"""How TVM's logger begins a warning. Errors and everything else pass."""


@contextmanager
def without_stray_warnings() -> Iterator[None]:
    """Within, the process's standard error leaves out TVM's warnings; Python's own writing goes past the filter.

    Nothing happens where ``sys.stderr`` is not the process's (in tests, in notebooks)."""
    try:
        own = sys.stderr.fileno() == 2
    except (AttributeError, OSError, ValueError):
        own = False
    if not own:
        yield
        return
    python, (reading, writing), kept = sys.stderr, os.pipe(), os.dup(2)
    sys.stderr.flush()
    os.dup2(writing, 2)
    os.close(writing)
    sys.stderr = io.TextIOWrapper(
        os.fdopen(os.dup(kept), "wb", 0), python.encoding, python.errors, line_buffering=True, write_through=True
    )
    passing = threading.Thread(target=_pass_on, args=(reading, kept), daemon=True)
    passing.start()
    try:
        yield
    finally:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        os.dup2(kept, 2)  # the pipe's last writer here: the thread comes to its end
        passing.join(1.0)  # a process that was started here may still hold the pipe
        sys.stderr = python


def _pass_on(reading: int, writing: int) -> None:
    rest = b""
    while block := os.read(reading, 1 << 16):
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            if not STRAY.match(line):
                with suppress(OSError):
                    os.write(writing, line + b"\n")
    if rest and not STRAY.match(rest):
        with suppress(OSError):
            os.write(writing, rest)
