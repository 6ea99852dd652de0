"""A compiled model in other processes, copied, loaded again and again: what it gives stays the same, and nothing of it
is left behind."""

from __future__ import annotations

import copy
import gc
import importlib.util
import multiprocessing
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import tvm_ergo
from tvm_ergo.target.errors import ProgramError

_spec = importlib.util.spec_from_file_location("small_models", Path(__file__).with_name("small_models.py"))
small_models = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(small_models)


@pytest.fixture(scope="module", params=[None, "Hardmax"], ids=["chip alone", "with the host"])
def model(request):
    return tvm_ergo.compile(small_models.conv_net(extra=request.param), calibration={"x": small_models.images(8)})


def outputs(model, count: int = 2):
    return [model.run(image[None]).outputs["y"] for image in small_models.images(count, seed=5)]


def test_a_pickled_model_is_the_one_that_load_gives(model):
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_equal(outputs(again), outputs(model))
    assert (
        again.to_bytes() == pickle.loads(pickle.dumps(again)).to_bytes()
        and again.inputs == model.inputs
        and again.is_code == model.is_code
    )
    result = pickle.loads(pickle.dumps(model.run(small_models.images(1))))
    assert result.calls[0].trace.energy_pj == model.run(small_models.images(1)).calls[0].trace.energy_pj


def test_a_model_that_was_loaded_without_its_code_stays_so(model, tmp_path):
    model.save(tmp_path / "m.ergo")
    again = pickle.loads(pickle.dumps(tvm_ergo.load(tmp_path / "m.ergo", programs_only=True)))
    assert again.module is None
    if model.is_code:
        with pytest.raises(ProgramError, match="Programs alone"):
            again.run(small_models.images(1))


def test_processes_share_a_model(model):
    images = [image[None] for image in small_models.images(3, seed=5)]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(model.run, images))
    np.testing.assert_equal([r.outputs["y"] for r in found], outputs(model, 3))


def test_copies_run_and_keep_what_a_file_does_not_hold(model):
    for own in (copy.copy(model), copy.deepcopy(model)):
        np.testing.assert_equal(outputs(own), outputs(model))
        assert own.lowered is model.lowered and own.lowered is not None


def maps() -> int:
    return Path("/proc/self/maps").read_text().count("\n")


def test_loading_again_and_again_leaves_nothing(model, tmp_path):
    """TVM would keep every library: five mappings a load."""
    model.save(tmp_path / "m.ergo")

    def load(times: int) -> None:
        for _ in range(times):
            outputs(tvm_ergo.load(tmp_path / "m.ergo"), 1)

    load(3)
    gc.collect()
    before = maps()
    load(20)
    gc.collect()
    assert maps() < before + 20  # of 100


def test_what_a_run_gave_and_what_runs_outlive_the_model(model, tmp_path):
    """Loaded, run and dropped in threads, while results and functions of TVM's virtual machine are kept longer than the
    model."""
    model.save(tmp_path / "m.ergo")
    import tvm

    images, expected, kept, errors = small_models.images(2, seed=5), outputs(model), [], []

    def work() -> None:
        try:
            for turn in range(10):
                own = tvm_ergo.load(tmp_path / "m.ergo")
                kept.append((own.run(images[turn % 2][None]), turn % 2))
                if own.module is not None and turn % 3 == 0:
                    kept.append((own.virtual_machine["main"], turn % 2))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert not errors
    for found, i in kept:
        value = (
            found.outputs["y"] if isinstance(found, tvm_ergo.RunResult) else found(tvm.runtime.tensor(images[i][None]))
        )
        np.testing.assert_equal(
            np.asarray(
                value
                if isinstance(value, np.ndarray)
                else (value[0] if isinstance(value, (tuple, list)) else value).numpy()
            ),
            expected[i],
        )
