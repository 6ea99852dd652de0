"""Networks in float16 and bfloat16: whole on the chip like those in float32, inputs and outputs in the file's type."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tvm import relax

import tvm_ergo
from tvm_ergo.frontend import load
from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.macro.widen_halves import WidenHalves
from tvm_ergo.relay_passes.relax_utils import bindings_of, dtype_of, is_tensor

ort = pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(9)
HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT
n = helper.make_node


def w(*shape):
    return (RNG.normal(size=shape) * 0.3).astype(np.float16)


def made(nodes, constants, shape, inside=HALF, outside=HALF, opset=17):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", inside, shape)],
        [helper.make_tensor_value_info("y", outside, None)],
        [
            v if isinstance(v, onnx.TensorProto) else numpy_helper.from_array(np.asarray(v), k)
            for k, v in constants.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10 if opset > 17 else 8)


H = np.float16
NETS = {
    "pictures": lambda: made(
        [
            n("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
            n("BatchNormalization", ["c", "g", "be", "m", "v"], ["bn"]),
            n("Clip", ["bn", "lo", "hi"], ["r"]),
            n("GlobalAveragePool", ["r"], ["p"]),
            n("Flatten", ["p"], ["f"]),
            n("Gemm", ["f", "w2", "b2"], ["y"], transB=1),
        ],
        {
            "w": w(8, 3, 3, 3),
            "b": w(8),
            "g": w(8) + H(1),
            "be": w(8),
            "m": w(8),
            "v": np.abs(w(8)) + H(1),
            "lo": H(0),
            "hi": H(6),
            "w2": w(5, 8),
            "b2": w(5),
        },
        (1, 3, 8, 8),
    ),
    "casts inside": lambda: made(
        [
            n("Cast", ["x"], ["xh"], to=HALF),
            n("Conv", ["xh", "w"], ["c"]),
            n("Sigmoid", ["c"], ["s"]),
            n("Mul", ["c", "s"], ["z"]),
            n("Cast", ["z"], ["y"], to=FLOAT),
        ],
        {"w": w(8, 3, 3, 3)},
        (1, 3, 8, 8),
        FLOAT,
        FLOAT,
    ),
    "weights cast": lambda: made(
        [n("Cast", ["w"], ["wf"], to=FLOAT), n("MatMul", ["x", "wf"], ["c"]), n("Relu", ["c"], ["y"])],
        {"w": w(8, 4)},
        (1, 8),
        FLOAT,
        FLOAT,
    ),
    "sequence": lambda: made(
        [n("LSTM", ["x", "W", "R", "B"], ["y"], hidden_size=6)],
        {"W": w(1, 24, 4), "R": w(1, 24, 6), "B": w(1, 48)},
        (5, 1, 4),
    ),
    "text": lambda: made(
        [
            n("LayerNormalization", ["x", "g", "b"], ["l"]),
            n("MatMul", ["l", "w"], ["m"]),
            n("Gelu", ["m"], ["e"]),
            n("Softmax", ["e"], ["y"]),
        ],
        {"g": w(8) + H(1), "b": w(8), "w": w(8, 8)},
        (1, 6, 8),
        opset=20,
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_whole_on_the_chip_in_the_files_type(name):
    proto = NETS[name]()
    tensor = proto.graph.input[0].type.tensor_type
    dtype, shape = helper.tensor_dtype_to_np_dtype(tensor.elem_type), [d.dim_value for d in tensor.shape.dim]
    samples = [{"x": RNG.normal(size=shape).astype(dtype)} for _ in range(32)]
    compiled, session = (
        tvm_ergo.compile(proto, calibration=samples, strict=True),
        ort.InferenceSession(proto.SerializeToString()),
    )
    got, want = [compiled.run(s).outputs["y"] for s in samples[:8]], [session.run(None, s)[0] for s in samples[:8]]
    assert got[0].dtype == want[0].dtype and got[0].shape == want[0].shape
    error = np.array(got).astype(np.float64) - np.array(want)
    assert np.sqrt(np.mean(error**2)) < 0.03 * np.array(want).astype(np.float64).std()


def test_quantized_networks_give_the_files_type():
    nodes = [
        n("QuantizeLinear", ["x", "s", "z"], ["q"]),
        n("DequantizeLinear", ["q", "s", "z"], ["d"]),
        n("Relu", ["d"], ["r"]),
        n("QuantizeLinear", ["r", "s", "z"], ["p"]),
        n("DequantizeLinear", ["p", "s", "z"], ["y"]),
    ]
    proto = made(nodes, {"s": H(0.02), "z": np.int8(3)}, (1, 4, 6, 6), opset=21)
    x = RNG.uniform(-2, 2, (1, 4, 6, 6)).astype(np.float16)
    got, want = (
        tvm_ergo.compile(proto, strict=True).run({"x": x}).outputs["y"],
        ort.InferenceSession(proto.SerializeToString()).run(None, {"x": x})[0],
    )
    assert got.dtype == want.dtype == np.float16
    assert np.abs(got.astype(np.float64) - want).max() <= 0.0201


def test_float_values_branches_and_passed_on_inputs():
    then, other = (
        helper.make_graph([n(op, ["x"], [f"{op}_y"])], op, [], [helper.make_tensor_value_info(f"{op}_y", HALF, None)])
        for op in ("Exp", "Neg")
    )
    proto = made([n("If", ["c"], ["y"], then_branch=then, else_branch=other)], {"c": np.array(True)}, (2, 3))
    x = w(2, 3)
    got = evaluate(load(proto).mod, {"x": x})[0]
    assert got.dtype == np.float16
    np.testing.assert_allclose(got, np.exp(x), rtol=2e-3)
    assert [(i.name, i.dtype) for i in load(proto).inputs] == [("x", "float16")] and load(proto).outputs[
        0
    ].dtype == "float16"


def test_bfloat16_is_widened_and_its_inputs_are_float32():
    weight = RNG.normal(size=(8, 4)).astype(np.float32)
    bits = (weight.view(np.uint32) >> 16).astype(np.uint16)
    tensor = helper.make_tensor("w", TensorProto.BFLOAT16, (8, 4), bits.tobytes(), raw=True)
    proto = made(
        [n("MatMul", ["x", "w"], ["c"]), n("Relu", ["c"], ["y"])],
        {"w": tensor},
        (1, 8),
        TensorProto.BFLOAT16,
        TensorProto.BFLOAT16,
    )
    imported, x = load(proto), RNG.normal(size=(1, 8)).astype(np.float32)
    assert imported.inputs[0].dtype == imported.outputs[0].dtype == "float32"
    exact = (bits.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_allclose(evaluate(imported.mod, {"x": x})[0], np.maximum(x @ exact, 0), rtol=1e-5)


def test_relax_modules_in_float16():
    bb, x = relax.BlockBuilder(), relax.Var("x", relax.TensorType((2, 8), "float16"))
    with bb.function("main", [x]):
        with bb.dataflow():
            y = bb.emit(relax.op.matmul(x, relax.const(w(8, 4)), out_dtype="float16"))
            wide = bb.emit(relax.op.add(relax.op.astype(y, "float32"), relax.const(np.float32(1))))
            out = bb.emit_output(relax.Tuple([bb.emit(relax.op.exp(relax.op.astype(wide, "float16"))), y]))
        bb.emit_func_output(out)
    mod = bb.get()
    after, values = WidenHalves()(mod), {"x": w(2, 8)}
    inner = [v for v, _ in bindings_of(after["main"]) if is_tensor(v) and dtype_of(v) == "float16"]
    assert len(inner) == 2 and [r.dtype for r in evaluate(after, values)] == [np.float16, np.float16]
    for a, b in zip(evaluate(mod, values), evaluate(after, values)):
        np.testing.assert_allclose(a, b, rtol=5e-3, atol=1e-3)
