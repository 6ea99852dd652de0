"""A few threads that share a layer's row bands (NumPy and BLAS release the interpreter lock while they compute).

BLAS libraries bring their own threads, which wait for each other by spinning: on a busy machine that costs far more
than it gains, and they leave all the work around the matrix products (im2col, rescale) to one core. So the bands are
distributed here, and BLAS is held to one thread meanwhile, where it is the OpenBLAS that NumPy's wheels carry; with any
other BLAS convolutions run band by band. Where the caller's own threads run as many Programs at a time as there are
processors, every run keeps to its thread: each has a core then."""

from __future__ import annotations

import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

from tvm_ergo.target.environment import THREADS

MOST_THREADS = 8
_state = threading.local()  # .inside: this thread is already running bands; .blas, .runs: its share of the counts below
_blas_lock = threading.Lock()  # the BLAS thread count is global
_blas_users = 0
_blas_before = 0
_runs = 0  # Programs being run, by any threads


@cache
def thread_count() -> int:
    """OMP_NUM_THREADS where it is a positive number, else the processors this process may use; at most 8."""
    wanted = THREADS.value
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(int(wanted) if wanted.isdigit() and int(wanted) else available, MOST_THREADS))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_count() - 1, thread_name_prefix="ergo-kernels")


def _forked() -> None:
    """In a forked process, which has the thread alone that forked: no pool, a lock that nobody holds, and the runs of
    this thread."""
    global _blas_lock, _blas_users, _runs
    _pool.cache_clear()
    _blas_lock, _blas_users, _runs = threading.Lock(), getattr(_state, "blas", 0), getattr(_state, "runs", 0)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


@cache
def _openblas():
    """``(set_num_threads, get_num_threads)`` of NumPy's own OpenBLAS, or None."""
    package = Path(np.__file__).parent
    for path in sorted(
        [*(package.parent / "numpy.libs").glob("*openblas*"), *(package / ".dylibs").glob("*openblas*")]
    ):
        try:
            library = ctypes.CDLL(str(path))
        except OSError:
            continue
        for pattern in ("scipy_openblas_{}64_", "scipy_openblas_{}", "openblas_{}64_", "openblas_{}"):
            if hasattr(library, pattern.format("set_num_threads")):
                return tuple(getattr(library, pattern.format(name)) for name in ("set_num_threads", "get_num_threads"))
    return None


def alone() -> bool:
    """Whether layers stay on the thread that they are run by: inside of a band, with one processor, and where other
    runs want all of them."""
    return thread_count() == 1 or _runs >= thread_count() or getattr(_state, "inside", False)


def can_split_blas() -> bool:
    """Whether matrix products may be distributed over the threads here."""
    return not alone() and _openblas() is not None


@contextmanager
def a_run():
    """While a Program runs. BLAS is held to one thread: once a run, not once a layer."""
    global _runs
    with single_threaded_blas():
        with _blas_lock:
            _runs += 1
            _state.runs = getattr(_state, "runs", 0) + 1
        try:
            yield
        finally:
            with _blas_lock:
                _runs -= 1
                _state.runs -= 1


@contextmanager
def single_threaded_blas():
    """Hold BLAS to one thread; the last one out restores the count."""
    global _blas_users, _blas_before
    functions = _openblas()
    if functions is None:
        yield
        return
    set_threads, get_threads = functions
    with _blas_lock:
        if _blas_users == 0:
            _blas_before = get_threads()
            set_threads(1)
        _blas_users += 1
        _state.blas = getattr(_state, "blas", 0) + 1
    try:
        yield
    finally:
        with _blas_lock:
            _blas_users -= 1
            _state.blas -= 1
            if _blas_users == 0:
                set_threads(_blas_before)


def run_all(function: Callable, items: Iterable, parallel: bool = True) -> None:
    """``function(item)`` for every item, in any order, on all threads when ``parallel``; the first exception is
    raised."""
    items = list(items)
    if not parallel or len(items) < 2 or alone():
        for item in items:
            function(item)
        return
    queue = deque(items)

    def drain() -> None:
        _state.inside = True
        try:
            while True:
                try:
                    item = queue.popleft()
                except IndexError:
                    return
                function(item)
        finally:
            _state.inside = False

    futures = [_pool().submit(drain) for _ in range(min(thread_count(), len(items)) - 1)]
    try:
        drain()
    finally:
        queue.clear()
        started = [
            future for future in futures if not future.cancel()
        ]  # a thread that never got a processor is not waited for
        for future in started:
            future.exception()  # wait: the bands work on this call's arrays
    for future in started:
        future.result()
