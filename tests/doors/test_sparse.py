"""A pruned network of shared weights through the front door: its dense layers run on the sparse engine, with the same
results."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvm_ergo
from tvm_ergo.report.build import build_report
from tvm_ergo.target.isa import Engine

SIZES = (784, 300, 100, 10)
CODEBOOK = np.setdiff1d(np.arange(-7, 9), 0) * 0.03125


def pruned_net() -> onnx.ModelProto:
    """Dense layers of LeNet-300-100 with ReLU, a tenth of the weights nonzero, 15 values."""
    rng, nodes, constants, last = np.random.default_rng(0), [], [], "x"
    for i, (inputs, outputs) in enumerate(zip(SIZES, SIZES[1:])):
        w = np.where(rng.random((inputs, outputs)) < 0.1, rng.choice(CODEBOOK, (inputs, outputs)), 0).astype(np.float32)
        constants += [
            numpy_helper.from_array(w, f"w{i}"),
            numpy_helper.from_array(rng.normal(0, 0.1, outputs).astype(np.float32), f"b{i}"),
        ]
        nodes.append(helper.make_node("Gemm", [last, f"w{i}", f"b{i}"], [f"d{i}"], name=f"dense{i}"))
        last = f"d{i}"
        if i < len(SIZES) - 2:
            nodes.append(helper.make_node("Relu", [last], [f"r{i}"], name=f"relu{i}"))
            last = f"r{i}"
    graph = helper.make_graph(
        nodes,
        "pruned",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, SIZES[0]])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, SIZES[-1]])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def pictures(count, share=0.2):
    """Mostly 0, as digits are."""
    rng = np.random.default_rng(1)
    return np.where(rng.random((count, SIZES[0])) < share, rng.random((count, SIZES[0])), 0).astype(np.float32)


@pytest.fixture(scope="module")
def models():
    return {
        (weights, objective): tvm_ergo.compile(
            pruned_net(), calibration=pictures(8), weights=weights, objective=objective
        )
        for weights, objective in (
            ("dense", "latency"),
            ("auto", "latency"),
            ("auto", "energy"),
            ("auto", "memory"),
            ("coded", "latency"),
        )
    }


def engines(model):
    return {entry.engine for trace in model.run(pictures(1)).traces.values() for entry in trace.entries}


def figure(model, name, x):
    return sum(getattr(trace, name) for trace in model.run(x).traces.values())


def test_results_are_the_same(models, monkeypatch):
    monkeypatch.setenv("TVM_ERGO_STRICT", "1")
    for x in (*pictures(4)[:, None], np.zeros((1, SIZES[0]), np.float32), np.ones((1, SIZES[0]), np.float32)):
        (expected,) = models["dense", "latency"].run(x).outputs.values()
        for model in models.values():
            (found,) = model.run(x).outputs.values()
            np.testing.assert_array_equal(found, expected)


def test_the_sparse_engine_is_used_where_it_pays(models):
    dense, fast, frugal = (models[key] for key in (("dense", "latency"), ("auto", "latency"), ("auto", "energy")))
    assert Engine.SPARSE not in engines(dense)
    assert Engine.SPARSE in engines(fast) and Engine.SPARSE in engines(frugal)
    x = pictures(1)
    assert figure(fast, "cycles", x) < figure(dense, "cycles", x) / 2
    assert figure(frugal, "energy_pj", x) < figure(dense, "energy_pj", x) / 2
    assert figure(fast, "cycles", 0 * x) < figure(fast, "cycles", x)  # a black picture takes less time


def test_reports_say_so(models):
    model = models["auto", "latency"]
    (program,) = build_report("net", model.programs, model.chip).programs
    first = max(program.weights, key=lambda row: row.dense_bytes)
    assert first.codec == "EIE" and first.coded_bytes < 0.25 * first.dense_bytes
    assert any(layer.engine == "SPARSE" for layer in program.layers)


def test_saved_models_run_the_same(models, tmp_path):
    models["auto", "latency"].save(tmp_path / "net.ergo")
    x = pictures(1)
    again = tvm_ergo.CompiledModel.load(tmp_path / "net.ergo").run(x)
    first = models["auto", "latency"].run(x)
    np.testing.assert_array_equal(*[next(iter(r.outputs.values())) for r in (again, first)])
    assert [t.cycles for t in again.traces.values()] == [t.cycles for t in first.traces.values()]
