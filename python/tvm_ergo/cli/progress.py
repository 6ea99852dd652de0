"""How far long work has come, on standard error: a bar on a terminal, a plain line now and then elsewhere (into a log,
a pipe)."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tvm_ergo.printed import SafeConsole, printable

NEW_STEP_S = 2.0
"""A new step is told when the last line, or the start, is so long ago: what takes a moment says nothing."""
SAME_STEP_S = 10.0


@contextmanager
def progress_bar(description: str, total: int | None = None):
    """Yields ``advance(done, total, description)``."""
    err = SafeConsole(stderr=True)
    if not err.is_terminal:
        with plain_lines(description, Lines()) as advance:
            yield advance
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(description, total=total)
        yield lambda done, total=total, description=description: progress.update(
            task, completed=done, total=total, description=description
        )


class Lines:
    """Lines on standard error, few enough to read: a new step at least ``new_s`` seconds after the last line (or the
    start), the same one after ``same_s``."""

    def __init__(self, new_s: float = NEW_STEP_S, same_s: float = SAME_STEP_S):
        self.new_s, self.same_s, self.step = new_s, same_s, ""
        self.start = self.last = time.monotonic()

    def tell(self, step: str, how_far: str) -> None:
        now = time.monotonic()
        if now - self.last >= (self.same_s if step == self.step else self.new_s):
            self.step, self.last = step, now
            with contextlib.suppress(OSError, ValueError):  # nobody reads any more: no reason to stop the work
                print(
                    printable(f"tvm-ergo: {' '.join(filter(None, (step, how_far)))} ({now - self.start:.0f} s)"),
                    file=sys.stderr,
                    flush=True,
                )


@contextmanager
def plain_lines(description: str, lines: Lines):
    """As `progress_bar`, in lines, also while a step says nothing for long."""
    state, stop = [description, 0, None], threading.Event()

    def watch() -> None:
        while not stop.wait(min(lines.new_s, lines.same_s) / 4):
            step, done, total = state
            lines.tell(step, f"{done:,} of {total:,}" if total and total > 1 else "")

    def advance(done: int, total: int | None = None, description: str = description) -> None:
        state[:] = description, done, total

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield advance
    finally:
        stop.set()
        thread.join()
