"""Files that quantize some tensors and leave others in float: what the messages promise of calibration data holds."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="ONNX Runtime gives the ranges")
sys.path.append(str(Path(__file__).resolve().parents[2]))  # benchmarks are no package of the product
import tvm_ergo  # noqa: E402
from benchmarks import random_graphs as graphs  # noqa: E402
from benchmarks.random_graph_parts import as_model, quantized, random_graph  # noqa: E402
from tvm_ergo.accuracy import AccuracyWarning  # noqa: E402
from tvm_ergo.relay_passes.micro.lower_context import NEEDS_QUANTIZATION, scale_of  # noqa: E402
from tvm_ergo.relay_passes.relax_utils import CALIBRATED_ATTR, main_of  # noqa: E402
from tvm_ergo.relay_passes.support import FunctionView  # noqa: E402


def partly_quantized(seed: int):
    """A random graph between quantizers of which about half are missing, and samples of its inputs."""
    g, rng = random_graph(seed), np.random.default_rng([seed, 14])
    q = quantized(g, graphs.ranges_of(g, seed))
    made = {n.output[0]: n for n in q.nodes}
    dropped = {}
    for name in q.steps:
        if rng.random() < 0.5:
            dropped[name] = made[made[name].input[0]].input[0]
    outputs = {source: name for name, source in dropped.items() if name in q.outputs}  # an output keeps its name
    current = {**{name: outputs.get(source, source) for name, source in dropped.items()}, **outputs}
    nodes = []
    for node in q.nodes:
        if node.output[0] in dropped or node.output[0].removesuffix("_q") in dropped:
            continue
        own = type(node)()
        own.CopyFrom(node)
        own.input[:] = [current.get(name, name) for name in node.input]
        own.output[0] = outputs.get(node.output[0], node.output[0])
        nodes.append(own)
    used = {name for node in nodes for name in node.input}
    constants = {k: v for k, v in q.constants.items() if k in used}
    inputs = {k: v for k, v in q.inputs.items() if k in used}
    model = as_model(nodes, constants, inputs, q.outputs)
    return model, [{k: graphs.feeds_of(g, seed + i)[k] for k in inputs} for i in range(8)]


@pytest.mark.parametrize("seed", range(0, 60, 2))
def test_calibration_data_do_what_the_remedy_says(seed):
    model, samples = partly_quantized(seed)
    try:
        before = tvm_ergo.compile(model)
    except tvm_ergo.ErgoError:  # no quantizer is left: an ordinary float model
        pytest.skip("nothing of it is quantized")
    after = tvm_ergo.compile(model, calibration=samples)
    assert not [f for f in after.fallbacks if "calibration" in f.remedy]
    assert {(f.node, f.op) for f in after.fallbacks} <= {(f.node, f.op) for f in before.fallbacks}
    if any(f.remedy == NEEDS_QUANTIZATION for f in before.fallbacks):
        assert len(after.fallbacks) < len(before.fallbacks)
        assert after.accuracy is not None and after.accuracy.loss < 0.4


def quantizations(mod) -> dict:
    view = FunctionView(main_of(mod))
    found = {v: scale_of(view, view.value[v]) for v in view.order if view.op(v) == "relax.quantize"}
    return {view.value[v].args[0].name: quant for v, quant in found.items()}


def test_what_the_file_quantizes_stays_as_it_is():
    told = 0
    for seed in range(0, 30, 2):
        model, samples = partly_quantized(seed)
        try:
            compiled = tvm_ergo.compile(model, calibration=samples)
        except tvm_ergo.ErgoError:
            continue
        before, after = quantizations(compiled.reference), quantizations(compiled.quantized)
        if CALIBRATED_ATTR in (main_of(compiled.quantized).attrs or {}) and before:
            told += len(after) > len(before)
            assert before.items() <= after.items()
    assert told >= 3


def test_a_network_without_gaps_stays_the_same_module():
    whole = 0
    for seed in range(8):
        g = random_graph(seed)
        model, samples = quantized(g, graphs.ranges_of(g, seed)).model(), [graphs.feeds_of(g, seed)]
        compiled = tvm_ergo.compile(model, calibration=samples)
        if not tvm_ergo.compile(model).fallbacks:
            whole += 1
            assert compiled.quantized is compiled.reference and compiled.accuracy is None
    assert whole >= 4


def test_the_warning_names_a_way_that_this_network_has(monkeypatch):
    """Parts in float are chosen for float networks only; here the calibration data can be left out."""
    monkeypatch.setattr("tvm_ergo.accuracy.WARN", 0.01)  # 8 bits lose 2.4 % here
    model, samples = partly_quantized(42)
    with pytest.warns(AccuracyWarning, match="without calibration data") as told:
        tvm_ergo.compile(model, calibration=samples)
    assert "--float-parts" not in str(told[0].message)
    with pytest.raises(tvm_ergo.ErgoError, match="without calibration data") as refused:
        tvm_ergo.compile(model, calibration=samples, strict_accuracy=0.01)
    assert "--float-parts" not in str(refused.value)
