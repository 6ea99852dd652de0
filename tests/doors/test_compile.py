"""``tvm.compile(mod, target="ergo")`` and ``tvm_ergo.compile``: the whole job, and what goes wrong."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax, topi

import tvm_ergo
from tvm_ergo import frontend
from tvm_ergo.pipeline import STAGES, PipelineOptions, run_stages
from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.compat import flatten_result
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.target.chip import chip
from tvm_ergo.target.errors import (
    CalibrationError,
    InputError,
    ModelError,
    OutOfMemoryError,
    OutputError,
    ProgramError,
    TargetError,
    UnsupportedError,
)

_spec = importlib.util.spec_from_file_location("small_models", Path(__file__).with_name("small_models.py"))
models = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(models)

X = models.images(1, seed=9)


@pytest.fixture(scope="module")
def compiled():
    return tvm_ergo.compile(models.conv_net(), calibration=models.images(8))


def run_vm(module, x=X) -> np.ndarray:
    return flatten_result(relax.VirtualMachine(module, tvm.cpu())["main"](tvm.runtime.tensor(x)))[0].numpy()


def test_equals_the_integer_function_on_the_cpu(compiled):
    for seed in range(4):
        x = models.images(1, seed)
        (expected,) = build_cpu(compiled.lowered)(x)
        np.testing.assert_array_equal(compiled.run(x).outputs["y"], expected)
    assert compiled.fallbacks == () and len(compiled.programs) == 1


def test_tvm_compile_does_the_whole_job(compiled):
    quantized = tvm_ergo.quantize(models.conv_net(), models.images(8))
    np.testing.assert_array_equal(run_vm(tvm.compile(quantized, target="ergo")), compiled.run(X).outputs["y"])


def test_named_pipeline_and_target_context(compiled):
    quantized = tvm_ergo.quantize(models.conv_net(), models.images(8))
    executable = relax.build(quantized, tvm.target.Target("ergo/2"), relax_pipeline="ergo")
    expected = compiled.run(X).outputs["y"]
    with tvm_ergo.record() as calls:
        np.testing.assert_array_equal(run_vm(executable), expected)
    assert {c.program.chip_name for c in calls} == {"ergo/2"}


def test_byoc_hook_alone(compiled):
    options = PipelineOptions(chip("ergo/1"))
    partitioned = run_stages(compiled.quantized, options, start="lower_quantized", until="partition")
    with tvm.target.Target("ergo"):
        generated = relax.transform.RunCodegen()(partitioned)
    assert [m.kind for m in generated.attrs["external_mods"]] == ["ergo"]


def test_every_stage_leaves_a_module_that_the_next_takes(compiled):
    mod, options = frontend.load(models.conv_net()).mod, PipelineOptions(chip("ergo/1"), models.images(8))
    for stage in STAGES:
        mod = stage.run(mod, options)
    executable = relax.build(mod, tvm.target.Target("ergo"), relax_pipeline=None)
    np.testing.assert_array_equal(run_vm(executable), compiled.run(X).outputs["y"])


def test_library_in_a_fresh_process(compiled, tmp_path):
    library, expected = tmp_path / "net.so", compiled.run(X).outputs["y"]
    np.save(tmp_path / "x.npy", X)
    compiled.executable.export_library(str(library))
    code = f"""
import numpy as np, tvm
from tvm import relax, topi
vm = relax.VirtualMachine(tvm.runtime.load_module({str(library)!r}), tvm.cpu())
out = vm["main"](tvm.runtime.tensor(np.load({str(tmp_path / "x.npy")!r})))
np.save({str(tmp_path / "y.npy")!r}, (out if hasattr(out, "numpy") else out[0]).numpy())"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected)


def test_float_without_calibration():
    imported = frontend.load(models.conv_net())
    for attempt in (lambda: tvm_ergo.compile(models.conv_net()), lambda: tvm.compile(imported.mod, target="ergo")):
        with pytest.raises(CalibrationError, match="calibration="):
            attempt()


def test_host_operator_is_listed_and_refused_when_strict():
    net = models.conv_net(extra="Hardmax")
    model = tvm_ergo.compile(net, calibration=models.images(8))
    assert [f.op for f in model.fallbacks] and all(f.reason and f.remedy for f in model.fallbacks)
    (expected,) = build_cpu(model.lowered)(X)
    np.testing.assert_array_equal(model.run(X).outputs["y"], expected)
    with pytest.raises(UnsupportedError, match=model.fallbacks[0].node):
        tvm_ergo.compile(net, calibration=models.images(8), strict=True)


def test_too_small_a_memory():
    with pytest.raises(OutOfMemoryError):
        tvm_ergo.compile(models.conv_net(), calibration=models.images(8), memory=200)


def test_memory_is_what_the_chip_then_has():
    model = tvm_ergo.compile(models.conv_net(), calibration=models.images(8), memory=40_000)
    assert model.chip.memory_bytes == 40_000 and {p.memory_bytes for p in model.programs.values()} == {40_000}
    np.testing.assert_array_equal(model.run(X).outputs["y"], build_cpu(model.lowered)(X)[0])


def test_objective_memory_is_the_same_network_in_less():
    small = tvm_ergo.compile(models.conv_net(), calibration=models.images(8), objective="memory")
    fast = tvm_ergo.compile(models.conv_net(), calibration=models.images(8))
    peaks = [max(p.meta["activation_bytes"] for p in model.programs.values()) for model in (small, fast)]
    assert peaks[0] <= peaks[1]
    np.testing.assert_array_equal(small.run(X).outputs["y"], fast.run(X).outputs["y"])
    with pytest.raises(InputError, match="'latency', 'energy', 'memory'"):
        tvm_ergo.compile(models.conv_net(), calibration=models.images(8), objective="beauty")


def test_objective_energy_within_a_limit_takes_no_more_energy():
    options = {"calibration": models.frames(8), "memory": "5.5KiB"}  # whole layers need more
    energies = {}
    for objective in ("latency", "energy"):
        model = tvm_ergo.compile(models.camera_net(), objective=objective, **options)
        assert model.chip.memory_bytes == 5632 and all(p.meta["space"] for p in model.programs.values())
        result = model.run(models.frames(1))
        energies[objective] = sum(trace.energy_pj for trace in result.traces.values())
    assert energies["energy"] <= energies["latency"]


def test_users_chip_runs_in_a_fresh_process(tmp_path):
    import json

    path = tmp_path / "mine.json"
    path.write_text(json.dumps(chip("ergo/1").to_json() | {"name": "mine"}))
    model = tvm_ergo.compile(models.conv_net(), calibration=models.images(8), target=path)
    model.save(tmp_path / "net.ergo")
    np.save(tmp_path / "x.npy", X)
    path.unlink()
    code = (
        "import tvm_ergo, numpy as np; m = tvm_ergo.load('net.ergo'); r = m.run(np.load('x.npy')); print(m.chip.name, "
        "r.outputs['y'].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.stdout.strip() == f"mine {model.run(X).outputs['y'].tolist()}", done.stderr


@pytest.mark.parametrize("target", ["ergo/9", "cuda-like", "/no/such/chip.json"])
def test_unknown_target(target):
    with pytest.raises(TargetError):
        tvm_ergo.compile(models.conv_net(), target=target)


def test_module_without_main():
    with pytest.raises(ModelError):
        tvm.compile(tvm.IRModule({"other": relax.Function([], relax.const(1.0))}), target="ergo")


@pytest.mark.parametrize(
    "inputs, word",
    [
        (np.zeros((1, 3, 8, 9), np.float32), "shape"),
        (np.zeros((1, 3, 8, 8)), "dtype"),
        (np.full((1, 3, 8, 8), np.nan, np.float32), "NaN"),
        ({"z": X}, "not those"),
        ({}, "not those"),
        ({"x": X, "z": X}, "not those"),
    ],
)
def test_wrong_inputs(compiled, inputs, word):
    with pytest.raises(InputError, match=word):
        compiled.run(inputs)


def test_save_and_load(compiled, tmp_path):
    path = tmp_path / "net.ergo"
    compiled.save(path)
    loaded = tvm_ergo.load(path)
    np.testing.assert_array_equal(loaded.run({"x": X}).outputs["y"], compiled.run(X).outputs["y"])
    assert (loaded.inputs, loaded.outputs, loaded.chip, loaded.fallbacks) == (
        compiled.inputs,
        compiled.outputs,
        compiled.chip,
        compiled.fallbacks,
    )
    assert {k: p.to_bytes() for k, p in loaded.programs.items()} == {
        k: p.to_bytes() for k, p in compiled.programs.items()
    }
    assert os.listdir(tmp_path) == ["net.ergo"]


def test_model_without_host_work_is_saved_and_saved_again(tmp_path):
    """Integers in and out leave no kernel for the host: TVM links an empty library, which exists in this process
    only."""
    model = tvm_ergo.compile(
        function_of((4, 8), "int8", lambda b, x: dialect.Reshape(shape=(8, 4)).call(dialect.Maximum().call(x, x)))
    )
    first, second = tmp_path / "first.ergo", tmp_path / "second.ergo"
    model.save(first)
    tvm_ergo.load(first).save(second)
    x = np.arange(32, dtype=np.int8).reshape(4, 8)
    np.testing.assert_array_equal(tvm_ergo.load(second).run(x).outputs["output"], x.reshape(8, 4))
    assert "output: int8[8, 4]" in repr(model) and len(repr(model)) < 300


def test_every_damage_is_found(compiled, tmp_path):
    path = tmp_path / "net.ergo"
    compiled.save(path)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    header_bits = range(0, 42 * 8)
    for bit in [*header_bits, *rng.integers(0, len(data) * 8, 200)]:
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(damaged)
        with pytest.raises(ProgramError):
            tvm_ergo.load(path)
    for size in (0, 5, 41, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(ProgramError):
            tvm_ergo.load(path)


def test_unwritable_output_leaves_nothing(compiled, tmp_path):
    with pytest.raises(OutputError):
        compiled.save(tmp_path / "missing" / "net.ergo")
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError):
        compiled.save(tmp_path / "taken")
    assert os.listdir(tmp_path) == ["taken"]
    with pytest.raises(ProgramError):
        tvm_ergo.load(tmp_path / "absent")


def function_of(shape, dtype, build) -> tvm.IRModule:
    """A Relax module of one function of one tensor: ``build(builder, parameter) -> value``."""
    builder, x = relax.BlockBuilder(), relax.Var("x", relax.TensorType(shape, dtype))
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(build(builder, x))
        builder.emit_func_output(result)
    return builder.get()


@pytest.mark.parametrize(
    "dtype, build, expected",
    [
        ("int64", lambda b, x: relax.op.add(x, x), lambda x: x + x),
        ("float32", lambda b, x: relax.op.sort(x), np.sort),
        ("int8", lambda b, x: b.call_te(topi.nn.relu, x), lambda x: np.maximum(x, 0)),
        ("float32", lambda b, x: x, lambda x: x),
        ("int8", lambda b, x: dialect.Add(a_zp=0, b_zp=0, a_mult=1, b_mult=1, shift=1).call(x, x), lambda x: x),
    ],
    ids=["integers", "library call", "call_tir", "nothing to do", "integer dialect"],
)
def test_modules_that_are_not_networks(dtype, build, expected):
    x = np.random.default_rng(0).integers(-100, 100, (4, 8)).astype(dtype)
    np.testing.assert_array_equal(run_vm(tvm.compile(function_of((4, 8), dtype, build), target="ergo"), x), expected(x))


def test_integer_dialect_through_the_short_form():
    mod = function_of((4, 8), "int8", lambda b, x: dialect.Reshape(shape=(8, 4)).call(dialect.Maximum().call(x, x)))
    x = np.arange(32, dtype=np.int8).reshape(4, 8)
    model = tvm_ergo.compile(mod)
    np.testing.assert_array_equal(model.run(x).outputs["output"], x.reshape(8, 4))
    assert len(model.programs) == 1


def test_inputs_in_other_byte_orders_and_lists(compiled):
    expected = compiled.run(X).outputs["y"]
    np.testing.assert_array_equal(compiled.run(X.astype(">f4")).outputs["y"], expected)
    with pytest.raises(InputError, match="no array"):
        compiled.run([[1.0], [1.0, 2.0]])
