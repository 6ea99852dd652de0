"""Compression through the front door: where it is used, what it needs, what the model then carries and says."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tvm_ergo
from tvm_ergo.pipeline import STAGES
from tvm_ergo.target.errors import InputError, OutOfMemoryError

from .small_models import camera_net, frames

CALIBRATION = frames(8)


@pytest.fixture(scope="module")
def plain():
    return tvm_ergo.compile(camera_net(), calibration=CALIBRATION, objective="memory", stream=True, compression="off")


@pytest.fixture(scope="module")
def small():
    return tvm_ergo.compile(camera_net(), calibration=CALIBRATION, objective="memory", stream=True)


def program(compiled):
    (found,) = compiled.programs.values()
    return found


def test_less_memory_and_the_same_values_where_everything_fits(plain, small):
    rows = program(small).meta["compression"]
    assert (
        rows
        and program(small).meta["activation_bytes"] < program(plain).meta["activation_bytes"]
        and program(plain).meta["compression"] == []
    )
    assert {
        "name",
        "codec",
        "slot_bytes",
        "raw_bytes",
        "stored_bytes",
        "bits_mean",
        "bits_worst",
        "tiles_reduced",
        "max_error",
    } <= set(rows[0])
    for x in CALIBRATION:
        result = small.run(x[None])
        assert (
            result.compressed
            and json.loads(json.dumps(result.compressed)) == result.compressed
            and not any(c["reduced"] for c in result.compressed)
        )
        np.testing.assert_array_equal(result.outputs["y"], plain.run(x[None]).outputs["y"])


def test_it_survives_the_file(small, tmp_path):
    small.save(tmp_path / "small.ergo")
    again = tvm_ergo.load(tmp_path / "small.ergo")
    assert program(again).meta["compression"] == program(small).meta["compression"]
    x = frames(1, 5)
    np.testing.assert_array_equal(again.run(x).outputs["y"], small.run(x).outputs["y"])


def test_a_limit_below_what_fits_without(plain, small):
    meta = program(small).meta
    limit = program(plain).meta["peak_bytes"] - 1
    options = dict(calibration=CALIBRATION, stream=True, memory=max(limit, meta["peak_bytes"]))
    assert program(tvm_ergo.compile(camera_net(), **options)).meta["peak_bytes"] <= options["memory"]


def refused(model, **options) -> OutOfMemoryError:
    with pytest.raises(OutOfMemoryError) as caught:
        tvm_ergo.compile(model, **options)
    error = caught.value
    assert error.where and error.required and error.available and error.remedy and "\n" not in error.what, error
    return error


def test_the_advice_is_of_what_was_not_tried(small):
    """And says of what was tried that it was."""
    limit = program(small).meta["constant_bytes"] + 400
    assert "calibration=..." in refused(small.quantized, stream=True, memory=limit).remedy
    off = refused(small.quantized, stream=True, memory=limit, compression="off").remedy
    assert "was off" in off and "measured" not in off
    assert "was tried" in refused(small.quantized, stream=True, memory=limit, calibration=CALIBRATION).remedy
    resident = refused(small.quantized, memory=limit + 200, compression="off").remedy
    assert (
        "--stream" in resident and "compression" not in resident
    )  # the frame alone does not fit, and it is not compressed


def test_no_advice_where_nothing_of_it_can_help(small):
    constants = program(tvm_ergo.compile(small.quantized, weights="dense")).meta["constant_bytes"]
    for options in ({}, {"stream": True}, {"calibration": CALIBRATION}):
        remedy = refused(small.quantized, memory=constants - 1, weights="dense", **options).remedy
        assert "constants alone exceed" in remedy and not any(
            word in remedy for word in ("stream", "compression", "calibration")
        )


def test_lossless_loses_nothing_whatever_comes(plain):
    exact = tvm_ergo.compile(
        camera_net(), calibration=CALIBRATION, objective="memory", stream=True, compression="lossless"
    )
    noise = 1000 * frames(1, 3)
    np.testing.assert_array_equal(exact.run(noise).outputs["y"], plain.run(noise).outputs["y"])


def test_where_it_fits_nothing_is_compressed():
    assert program(tvm_ergo.compile(camera_net(), calibration=CALIBRATION)).meta["compression"] == []


def test_calibration_may_be_read_only_once(small):
    once = tvm_ergo.compile(camera_net(), calibration=iter(list(CALIBRATION)), objective="memory", stream=True)
    assert program(once).meta["compression"] == program(small).meta["compression"]


def test_unknown_names():
    with pytest.raises(InputError, match="compression"):
        tvm_ergo.compile(camera_net(), calibration=CALIBRATION, compression="zip")
    assert [s.name for s in STAGES].index("compress") + 1 == [s.name for s in STAGES].index("codegen")
