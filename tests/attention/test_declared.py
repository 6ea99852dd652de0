"""Networks with attention that come quantized: whole on the chip with the file's own integers, near ONNX Runtime's
execution of the file or nearer to the float network than that, and the machine equal to TVM on the CPU."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import tvm_ergo
from tests.attention import decoders, nets
from tvm_ergo import frontend
from tvm_ergo.relay_passes.attention.declared import declared, lower_declared, stripped
from tvm_ergo.relay_passes.attention.find import find_sites
from tvm_ergo.relay_passes.attention.rules import Attention
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.relay_passes.macro import normalize
from tvm_ergo.relay_passes.relax_utils import Constant, array_of, bindings_of, children, main_of
from tvm_ergo.relay_passes.support import FunctionView

ort = pytest.importorskip("onnxruntime")
quantization = pytest.importorskip("onnxruntime.quantization")
KINDS = quantization.QuantType


class Samples(quantization.CalibrationDataReader):
    def __init__(self, feeds):
        self.feeds = iter(feeds)

    def get_next(self):
        return next(self.feeds, None)


def quantized(tmp_path, model, feeds=None, **options) -> onnx.ModelProto:
    """As the runtime's own tools write it: static where there are feeds, else dynamic."""
    before, after = tmp_path / "float.onnx", tmp_path / "quantized.onnx"
    onnx.save(model, before)
    if feeds is None:
        quantization.quantize_dynamic(before, after, **options)
    else:
        options = {"activation_type": KINDS.QInt8, "weight_type": KINDS.QInt8, **options}
        quantization.quantize_static(before, after, Samples(feeds), **options)
    return onnx.load(after)


def runtime(model, feeds) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level, options.intra_op_num_threads = ort.GraphOptimizationLevel.ORT_DISABLE_ALL, 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.stack([session.run(None, feed)[0] for feed in feeds])


def on_chip(compiled, feeds) -> np.ndarray:
    return np.stack([next(iter(compiled.run(feed).outputs.values())) for feed in feeds])


def off(a, b) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2)) / b.std())


def integers_of(model) -> dict[str, np.ndarray]:
    """Matrices that the file stores as integers, without a zero point (as the runtime's tools write layers)."""
    found = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    middle = {n.removesuffix("_zero_point"): a for n, a in found.items() if n.endswith("_zero_point")}
    return {
        n: a
        for n, a in found.items()
        if a.dtype in (np.int8, np.uint8) and a.ndim == 2 and not np.any(middle[n.removesuffix("_quantized")])
    }


def kept(compiled, matrix: np.ndarray) -> bool:
    """Whether a constant of the integer network holds the same numbers, as stored or with output channels first."""
    constants = [
        array_of(a)
        for _, value in bindings_of(main_of(compiled.lowered))
        for a in children(value)
        if isinstance(a, Constant)
    ]
    return any(
        a.size == matrix.size and any(np.array_equal(a.reshape(m.shape), m) for m in (matrix, matrix.T))
        for a in constants
    )


def same_on_cpu(compiled, feed) -> None:
    wanted = build_cpu(compiled.lowered)(*compiled.check_inputs(feed))
    np.testing.assert_array_equal(next(iter(compiled.run(feed).outputs.values())), np.asarray(wanted[0]))


@pytest.mark.parametrize("rotary", [False, True])
def test_a_static_file_needs_no_calibration_data(tmp_path, rotary):
    """Its mask of -1e9 gives the scores one step in the runtime; here it leaves them before."""
    model, feeds = decoders.decoder(rotary), decoders.samples(8)
    file = quantized(tmp_path, model, feeds, per_channel=True)
    compiled = tvm_ergo.compile(file, strict=True)
    assert not compiled.fallbacks and len(compiled.programs) == 1
    matrices = integers_of(file)
    assert len(matrices) > 8 and all(kept(compiled, m) for m in matrices.values())
    found, wanted = on_chip(compiled, feeds), runtime(model, feeds)
    assert off(found, wanted) < 0.08 < off(runtime(file, feeds), wanted)
    same_on_cpu(compiled, feeds[0])


@pytest.mark.parametrize("activations", [KINDS.QInt8, KINDS.QUInt8, KINDS.QInt16])
@pytest.mark.parametrize("name", ["no mask", "layer normalization", "rotary", "relative positions"])
def test_static_files_of_every_activation_type(tmp_path, name, activations):
    """Without a mask the runtime's own execution is sound, and the chip's is as near to the float network."""
    model, feeds = nets.form(name)
    kinds = {"activation_type": activations, "weight_type": KINDS.QInt8}
    file = quantized(tmp_path, model, feeds, **kinds, extra_options={"UseQDQContribOps": True})
    compiled = tvm_ergo.compile(file, calibration=feeds)
    assert not compiled.fallbacks
    wanted = runtime(model, feeds)
    assert off(on_chip(compiled, feeds), wanted) < max(0.04, 1.1 * off(runtime(file, feeds), wanted))
    same_on_cpu(compiled, feeds[0])


def test_a_file_with_products_alone_takes_the_rest_from_calibration(tmp_path):
    model, feeds = decoders.decoder(False), decoders.samples(8)
    file = quantized(tmp_path, model, feeds, op_types_to_quantize=["MatMul"], per_channel=True)
    without = tvm_ergo.compile(file)
    assert without.fallbacks and any("calibration" in f.remedy for f in without.fallbacks)
    compiled = tvm_ergo.compile(file, calibration=feeds, strict=True)
    assert all(kept(compiled, m) for m in integers_of(file).values())
    wanted = runtime(model, feeds)
    assert off(on_chip(compiled, feeds), wanted) < 0.08
    assert compiled.accuracy.loss < 0.08
    same_on_cpu(compiled, feeds[0])


@pytest.mark.parametrize("kind, per_channel", [(KINDS.QInt8, True), (KINDS.QInt8, False), (KINDS.QUInt8, False)])
def test_dynamic_quantization(tmp_path, kind, per_channel):
    """DynamicQuantizeLinear and MatMulInteger, tables of integers: layers and tables keep them, except unsigned ones
    that are further than 127 from their zero point."""
    model, feeds = decoders.decoder(True, groups=2), decoders.samples(8)
    file = quantized(tmp_path, model, weight_type=kind, per_channel=per_channel)
    assert any(n.op_type == "DynamicQuantizeLinear" for n in file.graph.node)
    compiled = tvm_ergo.compile(file, calibration=feeds, strict=True)
    if kind == KINDS.QInt8:
        matrices = integers_of(file)
        assert len(matrices) > 8 and all(kept(compiled, m) for m in matrices.values())
    found, wanted = on_chip(compiled, feeds), runtime(file, feeds)
    assert off(found, wanted) < 0.08
    same_on_cpu(compiled, feeds[0])


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_in_blocks(bits):
    """MatMulNBits: blocks of 16 of 32 inputs with a scale each. The chip's layers have a scale an output channel, so
    the real weights are rounded anew, to 8 bits."""
    rng, c, n, block = np.random.default_rng(0), 32, 48, 16
    codes = rng.integers(0, 2**bits, (n, c // block, block)).astype(np.uint8)
    packed = codes if bits == 8 else codes[..., 0::2] | codes[..., 1::2] << 4
    scales = rng.uniform(0.5, 1.5, (n, c // block)).astype(np.float32) / 2 ** (bits + 1)
    fields = {"K": c, "N": n, "bits": bits, "block_size": block, "domain": "com.microsoft"}
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gain"], ["h"], axis=-1),
        helper.make_node("MatMulNBits", ["h", "packed", "scales"], ["y"], **fields),
    ]
    constants = {"gain": np.ones(c, np.float32), "packed": packed, "scales": scales.reshape(-1)}
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "net",
        [value("x", onnx.TensorProto.FLOAT, [1, 6, c])],
        [value("y", onnx.TensorProto.FLOAT, [1, 6, n])],
        [numpy_helper.from_array(a, name) for name, a in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    feeds = [{"x": rng.normal(0, 1, (1, 6, c)).astype(np.float32)} for _ in range(8)]
    compiled = tvm_ergo.compile(model, calibration=feeds, strict=True)
    assert off(on_chip(compiled, feeds), runtime(model, feeds)) < 0.02
    same_on_cpu(compiled, feeds[0])


def test_what_the_file_says_is_taken_up_to_the_bit(tmp_path):
    """Ranges of int8 give its scales and zero points again; a tensor whose range is not known is named."""
    model, feeds = decoders.decoder(False, layers=1), decoders.samples(4)
    mod = normalize(frontend.load(quantized(tmp_path, model, feeds)).mod)
    base, found = stripped(mod)
    sites = list(find_sites(FunctionView(main_of(base))).values())
    assert any(isinstance(s, Attention) for s in sites)
    made, unknown, left = lower_declared(base, declared(base, found))
    assert not unknown and not left
    _, unknown, left = lower_declared(base, declared(base, {}))
    assert unknown and left
