"""Running and compiling from several threads: every answer is the sequential one, and nothing of the process changes
under another thread's feet."""

from __future__ import annotations

import builtins
import importlib.util
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

import tvm_ergo
from tvm_ergo import zoo
from tvm_ergo.codegen.exclusive import exclusively
from tvm_ergo.target.environment import STRICT
from tvm_ergo.target.errors import ErgoError

_spec = importlib.util.spec_from_file_location("small_models", Path(__file__).with_name("small_models.py"))
small_models = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(small_models)

THREADS, RUNS, PICTURES = 4, 1000, 16


@pytest.fixture(scope="module", params=["0", "1"], ids=["plain", "strict"])
def strict(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STRICT.name, request.param)
        yield request.param == "1"


def compiled(**options):
    return tvm_ergo.compile(str(zoo.DIGITS_MODEL), calibration={"image": zoo.digits()[0][:16]}, **options)


@pytest.fixture(scope="module")
def model(strict):
    return compiled()


def pictures(count: int = PICTURES) -> np.ndarray:
    return zoo.digits()[2][:count]


def together(*works) -> None:
    """All at once, each in a thread of its own; the first error is raised."""
    errors, ready = [], threading.Barrier(len(works))

    def guarded(work):
        try:
            ready.wait()
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def check_runs(models, runs: int, *beside) -> None:
    """Each of the threads runs one of the models; every output is what one thread got before."""
    images = pictures()
    expected = [models[0].run(image[None]).outputs for image in images]
    done = []

    def run(number: int) -> None:
        own = models[number % len(models)]
        for turn in range(runs):
            i = (7 * turn + number) % len(images)
            result = own.run(images[i][None])
            assert len(result.calls) == len(own.programs)  # the calls of this thread's run alone
            assert all(np.array_equal(result.outputs[name], value) for name, value in expected[i].items())
            done.append(i)

    together(*((lambda number=number: run(number)) for number in range(THREADS)), *beside)
    assert len(done) == THREADS * runs


def runs_of(strict: bool) -> int:
    return RUNS // 10 if strict else RUNS


def test_one_model(model, strict):
    check_runs([model], runs_of(strict))


def test_two_loads_of_one_file(model, strict, tmp_path):
    model.save(tmp_path / "digits.ergo")
    check_runs([tvm_ergo.load(tmp_path / "digits.ergo") for _ in range(2)], runs_of(strict))


def test_two_loads_of_the_programs_alone(model, strict, tmp_path):
    model.save(tmp_path / "digits.ergo")
    check_runs([tvm_ergo.load(tmp_path / "digits.ergo", programs_only=True) for _ in range(2)], runs_of(strict) // 2)


def test_two_models_while_a_third_is_compiled(model, strict):
    small, made = compiled(memory=26_000), []

    def compile_a_third():
        made.append(compiled(memory=26_000))

    check_runs([model, small], runs_of(strict), compile_a_third)
    np.testing.assert_equal(made[0].run(pictures()[:1]).outputs, small.run(pictures()[:1]).outputs)
    assert {name: p.to_bytes() for name, p in made[0].programs.items()} == {
        name: p.to_bytes() for name, p in small.programs.items()
    }


def test_a_streamed_and_a_compressed_network(strict):
    frames = small_models.frames(8)
    for options in ({"stream": True}, {"compression": "lossless", "objective": "memory"}, {"weights": "coded"}):
        own = tvm_ergo.compile(small_models.camera_net(middle="Sigmoid"), calibration={"x": frames}, **options)
        expected = [own.run(frame[None]) for frame in frames]

        def run():
            for frame, known in list(zip(frames, expected)) * 4:
                found = own.run(frame[None])
                np.testing.assert_equal(found.outputs, known.outputs)
                assert found.compressed == known.compressed and [c.trace.cycles for c in found.calls] == [
                    c.trace.cycles for c in known.calls
                ]

        together(*[run] * THREADS)


def test_compiling_in_threads_gives_the_same_programs():
    limits, found = (None, 26_000, 24_000), {}

    def compile_for(limit):
        found[limit] = compiled(memory=limit)

    together(*((lambda limit=limit: compile_for(limit)) for limit in limits))
    for limit in limits:
        alone = compiled(memory=limit)
        assert {n: p.to_bytes() for n, p in found[limit].programs.items()} == {
            n: p.to_bytes() for n, p in alone.programs.items()
        }


def test_recorders_and_watchers_are_those_of_their_thread(model):
    images, expected = pictures(), [model.run(image[None]).outputs for image in pictures()]
    told, ready = [], threading.Event()

    def watched():
        def zeros(about, value):
            told.append(about.name)
            return np.zeros_like(value)

        with tvm_ergo.watch(zeros), tvm_ergo.record() as calls:
            for image in images:
                model.run(image[None])
        assert len(calls) == len(images) * len(model.programs)
        ready.set()

    def plain():
        with tvm_ergo.record() as calls:
            for image, known in zip(images, expected):
                np.testing.assert_equal(model.run(image[None]).outputs, known)
        assert len(calls) == len(images) * len(model.programs)

    together(watched, plain, plain)
    assert told and ready.is_set()


def test_a_watcher_may_run_the_same_model(model):
    image, other = pictures()[:1], pictures()[1:2]
    expected, of_other = model.run(image).outputs, model.run(other).outputs
    inside: list = []

    def again(about, value):
        if not inside:
            inside.append(None)  # the run inside is watched as well
            inside[0] = model.run(other).outputs

    with tvm_ergo.watch(again):
        np.testing.assert_equal(model.run(image).outputs, expected)
    np.testing.assert_equal(inside[0], of_other)


def test_the_float_network_in_threads(model):
    images, expected = pictures(), [model.run_float(image[None]) for image in pictures()]

    def run():
        for image, known in zip(images, expected):
            np.testing.assert_equal(model.run_float(image[None]), known)

    together(*[run] * THREADS)


def test_a_run_does_not_wait_for_a_compilation(model):
    """The other thread holds the lock of compilations all the while."""
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with exclusively():
            entered.set()
            assert leave.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert entered.wait(60)
    model.run(pictures()[:1])
    leave.set()
    holder.join()


def test_importing_leaves_the_output_and_the_warning_filters_of_the_process_alone(monkeypatch, capsys):
    """TVM's importer prints and warns; that is kept from the user without touching what belongs to all threads."""
    from tvm.relax.frontend.onnx import onnx_frontend

    from tvm_ergo.frontend.onnx_import import _Importer

    output, errors, filters, plain_print = sys.stdout, sys.stderr, list(warnings.filters), builtins.print
    seen = []

    def look(self, *args):
        seen.append(
            sys.stdout is output
            and sys.stderr is errors
            and warnings.filters == filters
            and builtins.print is plain_print
        )
        onnx_frontend.print("chatter")
        onnx_frontend.warnings.warn("chatter")
        raise ValueError("an operator that is not known")

    monkeypatch.setattr(_Importer, "_convert_operator", look)
    with warnings.catch_warnings(record=True) as caught, pytest.raises(ErgoError, match="cannot be imported"):
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        tvm_ergo.frontend.load(small_models.conv_net())
    assert seen and all(seen) and not caught and "chatter" not in capsys.readouterr().out

    onnx_frontend.print("for those who use the importer themselves")
    with pytest.warns(UserWarning, match="for those"):
        onnx_frontend.warnings.warn("for those")
    assert "for those who use" in capsys.readouterr().out
