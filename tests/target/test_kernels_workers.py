"""Distributing bands over threads: every item once, errors arrive, and the results do not depend on the number of
threads."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from tvm_ergo.target.machine.kernels import workers

DIGESTS = """
import hashlib, numpy as np
from tvm_ergo.target.machine import kernels as k
from tvm_ergo.target.machine.kernels import workers
rng = np.random.default_rng(0)
i8 = lambda *shape: rng.integers(-128, 128, shape).astype(np.int8)
q = lambda n: (rng.integers(-999, 999, n), rng.integers(1 << 23, 1 << 24, n), np.full(n, 34))
x = i8(2, 60, 61, 48)
print(workers.thread_count())
for result in (k.conv2d(x, i8(64, 3, 3, 48), *q(64), padding=(1, 1, 1, 1)), k.conv2d(x, i8(64, 3, 3, 24), *q(64), groups=2, strides=(2, 1)),
               k.conv2d(i8(1, 7, 7, 4000), i8(300, 1, 1, 4000), *q(300)), k.depthwise_conv2d(x, i8(3, 3, 48), *q(48), strides=(1, 2)),
               k.add(x, x, a_mult=3, shift=1), k.mul(x, x[:1], mult=1 << 23, shift=31), k.table(x, i8(256))):
    print(hashlib.sha256(result.tobytes()).hexdigest())
"""


def run_with(threads):
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    output = subprocess.run(
        [sys.executable, "-c", DIGESTS], env=environment, check=True, capture_output=True, text=True
    ).stdout.split()
    assert output[0] == str(threads)
    return output[1:]


def test_results_do_not_depend_on_the_number_of_threads():
    one = run_with(1)
    assert len(set(one)) == 7 and run_with(3) == one


@pytest.fixture
def three_threads(monkeypatch):
    monkeypatch.setattr(workers, "thread_count", lambda: 3)
    workers._pool.cache_clear()
    yield
    workers._pool().shutdown()
    workers._pool.cache_clear()


def test_every_item_runs_once_on_several_threads(three_threads):
    meet, seen = threading.Barrier(3, timeout=60), []

    def function(item):
        if item < 3:
            meet.wait()  # passes only when three threads are here at once
        seen.append((item, threading.get_ident()))

    workers.run_all(function, range(40))
    assert sorted(item for item, _ in seen) == list(range(40)) and len({thread for _, thread in seen}) == 3


def test_errors_arrive_and_nesting_does_not_block(three_threads):
    def nested(item):
        workers.run_all(lambda inner: 1 // (inner - 5), range(item))

    workers.run_all(nested, range(6))
    with pytest.raises(ZeroDivisionError):
        workers.run_all(nested, range(9))
    workers.run_all(nested, range(6))  # still usable


@pytest.mark.skipif(workers._openblas() is None, reason="NumPy does not use its own OpenBLAS here")
def test_blas_thread_count_is_restored():
    _, get_threads = workers._openblas()
    before = get_threads()
    with workers.single_threaded_blas():
        with workers.single_threaded_blas():
            assert get_threads() == 1
        assert get_threads() == 1
        np.ones((300, 300)) @ np.ones((300, 300))
    assert get_threads() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_threads_work_in_a_forked_child():
    code = """
import os
from tvm_ergo.target.machine.kernels import workers
seen = []
workers.run_all(seen.append, range(9))
child = os.fork()
if child == 0:
    workers.run_all(seen.append, range(9))
    os._exit(0 if len(seen) == 18 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "OMP_NUM_THREADS": "3"},
        check=True,
        timeout=120,
    )


def test_runs_that_want_all_processors_keep_to_their_threads(three_threads):
    seen = set()

    def nested(runs: int) -> None:
        if runs:
            with workers.a_run():
                nested(runs - 1)
        else:
            workers.run_all(lambda item: seen.add(threading.get_ident()), range(40))

    assert not workers.alone()
    nested(3)
    assert seen == {threading.get_ident()} and not workers.alone()


def test_a_forked_process_counts_its_own_runs():
    """Another thread is running, and holds the lock, when the process forks; the child can run, and counts its one run
    alone."""
    code = """
import os, threading
from tvm_ergo.target.machine.kernels import workers
entered, leave = threading.Event(), threading.Event()
def run():
    with workers.a_run(), workers._blas_lock:
        entered.set(); leave.wait(60)
threading.Thread(target=run).start()
entered.wait(60)
child = os.fork()
if child == 0:
    with workers.a_run():
        os._exit(workers._runs)
leave.set()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True, timeout=120
    )
    assert result.stdout.split() == ["1"]
