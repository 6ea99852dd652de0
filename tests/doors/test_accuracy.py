"""Every float network is compared with its float self when it is compiled: measured, warned of, refused on demand."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from tvm import relax

import tvm_ergo
from tvm_ergo.accuracy import SAMPLES, WARN
from tvm_ergo.cli import main
from tvm_ergo.report.compare import layer_error
from tvm_ergo.target.errors import AccuracyError, InputError

QUIET = tvm_ergo.QuantizeOptions(float_parts=None)


def spectrum():
    """A logarithm of powers: int8 ruins it where loudness varies."""
    rng = np.random.default_rng(0)
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 10, 16), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            bands = builder.emit(relax.op.matmul(x, relax.const(rng.normal(size=(16, 12)).astype(np.float32))))
            power = builder.emit(relax.op.add(builder.emit(relax.op.square(bands)), relax.const(np.float32(1e-6))))
            out = builder.emit_output(relax.op.log(power))
        builder.emit_func_output(out)
    return builder.get()


def sounds(count=40, seed=1, loud=(-2.5, 0)):
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [(10 ** rng.uniform(*loud) * rng.normal(size=(1, 10, 16))).astype(np.float32) for _ in range(count)]
    )


def dense():
    rng = np.random.default_rng(0)
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 10, 16), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            out = builder.emit_output(
                relax.op.nn.relu(
                    builder.emit(relax.op.matmul(x, relax.const(rng.normal(size=(16, 12)).astype(np.float32))))
                )
            )
        builder.emit_func_output(out)
    return builder.get()


def test_a_network_that_loses_little_says_how_much():
    with warnings.catch_warnings():
        warnings.simplefilter("error", tvm_ergo.AccuracyWarning)
        compiled = tvm_ergo.compile(dense(), calibration=sounds(loud=(-0.1, 0)))
    data = sounds(loud=(-0.1, 0))
    errors = [next(iter(compiled.run(x[None]).outputs.values())) - compiled.run_float(x[None])[0] for x in data]
    spread = np.std([compiled.run_float(x[None])[0] for x in data])
    assert 0 < compiled.accuracy.loss < 0.05 and compiled.accuracy.loss == pytest.approx(
        np.sqrt(np.mean(np.square(errors))) / spread, rel=0.4
    )
    assert 2 <= compiled.accuracy.samples <= SAMPLES and not compiled.accuracy.tensors


def test_a_ruined_network_warns_and_names_the_tensors_and_what_helps():
    with pytest.warns(tvm_ergo.AccuracyWarning, match="most is lost at .*--float-parts 0.1"):
        compiled = tvm_ergo.compile(spectrum(), calibration=sounds(), quantize=QUIET)
    assert compiled.accuracy.loss > WARN and len(compiled.accuracy.tensors) > 1
    with warnings.catch_warnings():  # and the remedy helps
        warnings.simplefilter("error", tvm_ergo.AccuracyWarning)
        repaired = tvm_ergo.compile(
            spectrum(), calibration=sounds(), quantize=tvm_ergo.QuantizeOptions(float_parts=0.1)
        )
    x = sounds(1, 9)
    assert (
        np.abs(next(iter(repaired.run(x).outputs.values())) - repaired.run_float(x)[0]).max()
        < np.ptp(repaired.run_float(x)[0]) / 5
    )


def test_strict_accuracy_refuses():
    with pytest.raises(AccuracyError, match="a loss of at most 0.1"):
        tvm_ergo.compile(spectrum(), calibration=sounds(), quantize=QUIET, strict_accuracy=0.1)
    tvm_ergo.compile(dense(), calibration=sounds(loud=(-0.1, 0)), strict_accuracy=0.1)
    for wrong in (0, -1, "much", True):
        with pytest.raises(InputError, match="strict_accuracy"):
            tvm_ergo.compile(dense(), calibration=sounds(), strict_accuracy=wrong)
    with pytest.raises(InputError, match="float_parts"):
        tvm_ergo.compile(dense(), calibration=sounds(), quantize=tvm_ergo.QuantizeOptions(float_parts="some"))


def onnx_spectrum(path):
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["b"]),
        helper.make_node("Mul", ["b", "b"], ["p"]),
        helper.make_node("Add", ["p", "e"], ["f"]),
        helper.make_node("Log", ["f"], ["y"]),
    ]
    constants = {"w": rng.normal(size=(16, 12)).astype(np.float32), "e": np.float32(1e-6)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 10, 16])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 10, 12])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def test_the_command_says_it_and_refuses(tmp_path, capsys):
    model, data, result = tmp_path / "net.onnx", tmp_path / "x.npz", tmp_path / "out.json"
    onnx_spectrum(model)
    np.savez(data, x=sounds())
    common = ["compile", str(model), "--calibration", str(data)]
    assert main([*common, "--float-parts", "off", "--json", str(result)]) == 0
    said = capsys.readouterr()
    assert "WARNING" in said.out + said.err and "--float-parts 0.1" in said.out + said.err
    row = json.loads(result.read_text())["accuracy"]
    assert (
        row["outputs"]["y"] > row["warn_above"]
        and row["tensors"]
        and row["remedies"]
        and 2 <= row["samples"] <= SAMPLES
    )
    assert main([*common, "--float-parts", "off", "--strict-accuracy", "0.1"]) == 2
    assert "AccuracyError" in capsys.readouterr().err
    assert main([*common, "--float-parts", "0.1", "--json", str(result)]) == 0


def test_masks_do_not_pass_for_signal():
    """A sum of which half is -1e9 and the rest is lost."""
    from types import SimpleNamespace

    real = np.where(np.arange(64) % 2, -1e9, np.random.default_rng(0).normal(size=64)).astype(np.float32)
    tensor = SimpleNamespace(name="t_add", layer="t", op="add", out_scale=1e9 / 255, out_zp=127)
    codes = np.clip(np.rint(real / tensor.out_scale) + tensor.out_zp, -128, 127).astype(np.int8)
    assert layer_error(tensor, codes, real).sqnr_db < 3


def text_map():
    """A detector: 16 scores, near 0 where the input is dark."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 16), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            weight = relax.const(8 * np.eye(16, dtype=np.float32))
            logits = builder.emit(relax.op.matmul(x, weight))
            logits = builder.emit(relax.op.add(logits, relax.const(np.full(16, -9, np.float32))))
            out = builder.emit_output(relax.op.sigmoid(logits))
        builder.emit_func_output(out)
    return builder.get()


def scenes(lively: int, count: int = 16):
    rng = np.random.default_rng(0)
    return [
        {"x": (rng.uniform(0, 2, (1, 16)) if i < lively else np.zeros((1, 16))).astype("float32")} for i in range(count)
    ]


def test_calibration_that_shows_little_of_an_output_is_warned_of():
    with pytest.warns(tvm_ergo.AccuracyWarning, match="of 16 calibration inputs 2 show something of output"):
        compiled = tvm_ergo.compile(text_map(), calibration=scenes(2))
    (name,) = (o.name for o in compiled.outputs)
    assert compiled.accuracy.unseen == ((name, 2, 16),) and compiled.accuracy.loss < WARN
    with pytest.raises(AccuracyError, match="cannot be said") as refused:
        tvm_ergo.compile(text_map(), calibration=scenes(2), strict_accuracy=0.5)
    assert "2 of 16" in str(refused.value) and f"calibration inputs on which {name}" in refused.value.remedy
    with warnings.catch_warnings():
        warnings.simplefilter("error", tvm_ergo.AccuracyWarning)
        assert tvm_ergo.compile(text_map(), calibration=scenes(8), strict_accuracy=0.5).accuracy.unseen == ()
