"""STFT, DFT, windows and mel weights against ONNX Runtime; quantized, a spectrum's products run on the chip."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvm_ergo
from tvm_ergo.frontend import load
from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.macro import normalize
from tvm_ergo.target.errors import ModelError, UnsupportedError

ort = pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(2)
n, I = helper.make_node, np.int64
WINDOW = np.hanning(16).astype(np.float32)


def made(nodes, constants, shape, opset=17, more_inputs=()) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape), *more_inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset < 20 else 10)


LOG_MEL = [
    n("HannWindow", ["fl"], ["w"]),
    n("STFT", ["x", "st", "w", "fl"], ["s"]),
    n("Mul", ["s", "s"], ["q"]),
    n("ReduceSum", ["q", "ax"], ["p"], keepdims=0),
    n("MelWeightMatrix", ["nm", "fl", "sr", "lo", "hi"], ["M"]),
    n("MatMul", ["p", "M"], ["m"]),
    n("Add", ["m", "eps"], ["me"]),
    n("Log", ["me"], ["y"]),
]
MEL = {
    "fl": I(64),
    "st": I(32),
    "ax": np.array([-1]),
    "nm": I(10),
    "sr": I(8000),
    "lo": np.float32(50),
    "hi": np.float32(4000),
    "eps": np.float32(1e-3),
}
CASES = {
    "window": ([n("STFT", ["x", "st", "w", "fl"], ["y"])], {"st": I(4), "w": WINDOW, "fl": I(16)}, (2, 100), 17),
    "no window": ([n("STFT", ["x", "st", "", "fl"], ["y"])], {"st": I(4), "fl": I(16)}, (2, 100, 1), 17),
    "both sides": ([n("STFT", ["x", "st", "w"], ["y"], onesided=0)], {"st": I(5), "w": WINDOW}, (1, 100), 17),
    "complex signal": ([n("STFT", ["x", "st", "w"], ["y"], onesided=0)], {"st": I(5), "w": WINDOW}, (1, 100, 2), 17),
    "transform": ([n("DFT", ["x"], ["y"], axis=1)], {}, (2, 12, 1), 17),
    "cut, one side": ([n("DFT", ["x", "l"], ["y"], axis=1, onesided=1)], {"l": I(10)}, (2, 12, 1), 17),
    "filled up": ([n("DFT", ["x", "l"], ["y"], axis=1)], {"l": I(16)}, (2, 12, 3, 2), 17),
    "inverse": ([n("DFT", ["x"], ["y"], axis=2, inverse=1)], {}, (2, 3, 12, 2), 17),
    "axis as input": ([n("DFT", ["x", "", "ax"], ["y"])], {"ax": I(-2)}, (2, 12, 1), 20),
    "windows": (
        [
            n("HammingWindow", ["fl"], ["w"], periodic=0),
            n("BlackmanWindow", ["fl"], ["v"]),
            n("Mul", ["x", "w"], ["a"]),
            n("Mul", ["a", "v"], ["y"]),
        ],
        {"fl": I(16)},
        (2, 16),
        17,
    ),
    "log mel": (LOG_MEL, MEL, (1, 512), 17),
}


@pytest.mark.parametrize("case", CASES)
def test_against_onnx_runtime(case):
    nodes, constants, shape, opset = CASES[case]
    proto, x = made(nodes, constants, shape, opset), RNG.normal(size=shape).astype(np.float32)
    want = ort.InferenceSession(proto.SerializeToString()).run(None, {"x": x})[0]
    got = evaluate(normalize(load(proto).mod), {"x": x})[0]
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, atol=5e-5)


def test_spectra_are_convolutions_on_the_chip():
    proto = made([n("STFT", ["x", "st", "w"], ["s"]), n("Abs", ["s"], ["y"])], {"st": I(8), "w": WINDOW}, (1, 128))
    samples = RNG.normal(size=(16, 1, 128)).astype(np.float32)
    compiled = tvm_ergo.compile(proto, calibration=[{"x": s} for s in samples], strict=True)
    session = ort.InferenceSession(proto.SerializeToString())
    want, got = (
        np.array([f(s) for s in samples])
        for f in (lambda s: session.run(None, {"x": s})[0], lambda s: compiled.run({"x": s}).outputs["y"])
    )
    assert np.sqrt(np.mean((want - got) ** 2)) < 0.03 * want.std()


def test_what_is_not_constant_is_named():
    free = helper.make_tensor_value_info("st", TensorProto.INT64, ())
    with pytest.raises(ModelError, match="frame step is not a constant"):
        load(made([n("STFT", ["x", "st", "w"], ["y"])], {"w": WINDOW}, (1, 100), more_inputs=[free]))
    with pytest.raises((ModelError, UnsupportedError), match="one-sided"):
        load(made([n("DFT", ["x"], ["y"], axis=1, inverse=1, onesided=1)], {}, (1, 12, 2)))
