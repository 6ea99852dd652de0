"""``stream=True``: the same network bit by bit, with a frame that never exists as a whole. (Every chip call runs on the
strict machine.)"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tvm_ergo
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.report.build import build_report
from tvm_ergo.target.environment import STRICT
from tvm_ergo.target.errors import OutOfMemoryError, UnsupportedError

_spec = importlib.util.spec_from_file_location("small_models", Path(__file__).with_name("small_models.py"))
models = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(models)

X = models.frames(1, seed=9)
FRAME_BYTES = 3 * 32 * 32


def compiled_for(**options) -> tvm_ergo.CompiledModel:
    return tvm_ergo.compile(models.camera_net(), calibration=models.frames(8), compression="off", **options)


@pytest.fixture(scope="module")
def smallest():
    return compiled_for(objective="memory", stream=True)


def activation_bytes(model) -> int:
    return max(program.meta["activation_bytes"] for program in model.programs.values())


def test_frame_of_an_nchw_network_never_exists_as_a_whole(smallest):
    resident = compiled_for(objective="memory")
    assert activation_bytes(resident) >= FRAME_BYTES > 2 * activation_bytes(smallest)
    for seed in range(3):
        x = models.frames(1, seed)
        (expected,) = build_cpu(smallest.lowered)(x)
        np.testing.assert_array_equal(smallest.run(x).outputs["y"], expected)
        np.testing.assert_array_equal(resident.run(x).outputs["y"], expected)


@pytest.mark.parametrize(
    "options",
    [{}, {"objective": "energy"}, {"memory": "3KiB"}, {"memory": "3KiB", "objective": "energy"}, {"memory": 3000}],
    ids=lambda o: " ".join(f"{k}={v}" for k, v in o.items()) or "plenty",
)
def test_same_outputs_under_every_limit(smallest, options):
    model = compiled_for(stream=True, **options)
    (program,) = model.programs.values()
    assert [port.streamed for port in program.inputs] == [True] and program.meta[
        "peak_bytes"
    ] <= model.chip.memory_bytes
    np.testing.assert_array_equal(model.run(X).outputs["y"], smallest.run(X).outputs["y"])


def test_a_limit_below_the_frame_needs_the_stream(smallest):
    limit = smallest.programs["ergo_main_0"].meta["constant_bytes"] + FRAME_BYTES - 100
    with pytest.raises(OutOfMemoryError, match=r"streamed row by row .*fits"):
        compiled_for(memory=limit)
    np.testing.assert_array_equal(
        compiled_for(memory=limit, stream=True).run(X).outputs["y"], smallest.run(X).outputs["y"]
    )


def test_report_says_that_the_frame_is_streamed(smallest):
    report = build_report("camera", smallest.programs, smallest.chip)
    (row,) = report.inputs
    assert (
        report.streamed
        and row.streamed
        and row.size_bytes == FRAME_BYTES
        and 3 * 32 <= row.held_bytes <= FRAME_BYTES // 3
    )
    resident = build_report("camera", compiled_for().programs, smallest.chip)
    assert not resident.streamed and resident.inputs[0].held_bytes == FRAME_BYTES


def test_saved_and_exported(smallest, tmp_path):
    expected = smallest.run(X).outputs["y"]
    smallest.save(tmp_path / "net.ergo")
    loaded = tvm_ergo.load(tmp_path / "net.ergo")
    np.testing.assert_array_equal(loaded.run(X).outputs["y"], expected)
    assert all(port.streamed for program in loaded.programs.values() for port in program.inputs)
    np.save(tmp_path / "x.npy", X)
    smallest.executable.export_library(str(tmp_path / "net.so"))
    code = """
import numpy as np, tvm
from tvm import relax
out = relax.VirtualMachine(tvm.runtime.load_module("net.so"), tvm.cpu())["main"](tvm.runtime.tensor(np.load("x.npy")))
np.save("y.npy", (out if hasattr(out, "numpy") else out[0]).numpy())"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120, env={STRICT.name: "1"}
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected)


def test_only_the_first_part_of_a_network_is_streamed():
    options = {"calibration": models.frames(8), "objective": "memory", "compression": "off"}
    model = tvm_ergo.compile(models.camera_net(middle="Hardmax"), stream=True, **options)
    assert [[p.streamed for p in program.inputs] for program in model.programs.values()] == [[True], [False]]
    np.testing.assert_array_equal(model.run(X).outputs["y"], build_cpu(model.lowered)(X)[0])


def test_a_network_without_a_picture_says_so():
    from tvm import relax

    from tvm_ergo.relay_passes import dialect

    builder, x = relax.BlockBuilder(), relax.Var("x", relax.TensorType((4, 8), "int8"))
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(dialect.Maximum().call(x, x))
        builder.emit_func_output(result)
    with pytest.raises(UnsupportedError, match="a picture"):
        tvm_ergo.compile(builder.get(), stream=True)
