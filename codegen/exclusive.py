"""One compilation at a time in a process: what searches remember and what TVM's passes and code generators keep is
shared by all threads.

Running compiled models does not wait for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.RLock()


@contextmanager
def exclusively() -> Iterator[None]:
    """While a thread compiles, others wait. The same thread may enter again. Also a decorator."""
    with _lock:
        yield


def _forked() -> None:
    global _lock
    _lock = threading.RLock()  # whoever held it is not in the forked process


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
