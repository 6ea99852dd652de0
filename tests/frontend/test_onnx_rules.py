"""Rewrites of ONNX graphs: unsorted nodes, If, dynamic quantization, QONNX, 4 bits, ONNX Runtime's fused operators."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_kit import F, assert_same, evaluated, model, node, reference

import tvm_ergo
from tvm_ergo.frontend import load
from tvm_ergo.frontend.onnx_rules import qonnx, windows
from tvm_ergo.target.errors import ModelError, UnsupportedError

RNG = np.random.default_rng(8)
X = RNG.normal(size=(1, 3, 6, 6)).astype(F)


def test_nodes_in_any_order():
    w = {"w": RNG.normal(size=(4, 3, 1, 1)).astype(F)}
    nodes = [node("Relu", "b"), node("Sigmoid", "a", "b"), node("Conv", "x w", "a")]
    unsorted = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", 1, X.shape)],
            [helper.make_tensor_value_info("y", 1, [1, 4, 6, 6])],
            [numpy_helper.from_array(w["w"], "w")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    np.testing.assert_allclose(
        evaluated(unsorted, {"x": X})[0], reference(model(nodes[::-1], w, {"x": X}), {"x": X})[0], rtol=1e-5
    )
    circle = [node("Add", "x b", "a"), node("Relu", "a", "b"), node("Relu", "b")]
    unsorted.graph.ClearField("node")
    unsorted.graph.node.extend(circle)
    with pytest.raises(ModelError, match="not valid"):
        load(unsorted)


def branch(name, *nodes, **constants):
    return helper.make_graph(
        list(nodes),
        name,
        [],
        [helper.make_tensor_value_info(nodes[-1].output[0], 1, None)],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )


@pytest.mark.parametrize("rate", (8000, 16000))
def test_if_on_an_input_computes_both_branches(rate):
    """The branches use the same names inside, and one holds another If."""
    inner = node(
        "If",
        "b",
        "t",
        then_branch=branch("it", node("Mul", "x c", "q"), c=F(5)),
        else_branch=branch("ie", node("Relu", "x", "q")),
    )
    choice = node(
        "If",
        "b",
        then_branch=branch("t", node("Add", "x c", "t"), node("Tanh", "t", "r"), c=F(2)),
        else_branch=branch("e", inner, node("Neg", "t", "r")),
    )
    made = model([node("Equal", "sr k", "b"), choice], {"k": np.array(16000)}, {"x": X, "sr": np.array(rate)}, opset=17)
    assert_same(made, {"x": X, "sr": np.array(rate)})


def test_if_with_results_of_two_shapes_is_refused():
    choice = node(
        "If", "b", then_branch=branch("t", node("Relu", "x", "r")), else_branch=branch("e", node("ReduceMax", "x", "r"))
    )
    made = model([node("Equal", "sr k", "b"), choice], {"k": np.array(1)}, {"x": X, "sr": np.array(1)}, opset=17)
    with pytest.raises(UnsupportedError, match="(?s)different or unknown shapes.*node 'y'"):
        load(made)


def test_shapes_that_hang_on_earlier_ones():
    """Two Pads whose widths come from the shape of what is before them, then a Reshape."""
    nodes, c, x = (
        [],
        {"i": np.array(3), "k": np.array(8), "a": np.array([0]), "z": np.zeros(6, np.int64), "m": np.array([1, -1])},
        "x",
    )
    for n in "pq":
        nodes += [
            node("Shape", x, f"{n}s"),
            node("Gather", f"{n}s i", f"{n}g", axis=0),
            node("Mod", f"{n}g k", f"{n}m"),
            node("Sub", f"k {n}m", f"{n}d"),
            node("Unsqueeze", f"{n}d a", f"{n}u"),
            node("Concat", f"z a {n}u", f"{n}w", axis=0),
            node("Pad", f"{x} {n}w", f"{n}y"),
        ]
        x = f"{n}y"
    nodes += [
        node("Shape", x, "s"),
        node("Slice", "s a one", "s0"),
        node("Concat", "s0 minus", "t", axis=0),
        node("Reshape", f"{x} t"),
    ]
    c |= {"one": np.array([1]), "minus": np.array([-1])}
    assert_same(model(nodes, c, {"x": X}, opset=17), {"x": X})


def dynamic(op, w, zero, scale, **attributes):
    nodes = [
        node("DynamicQuantizeLinear", "x", "q s z"),
        node(op, "q w z wz", "i", **attributes),
        node("Cast", "i", "f", to=1),
        node("Mul", "s ws", "k"),
        node("Mul", "f k"),
    ]
    return nodes, {"w": w, "wz": zero, "ws": scale}


@pytest.mark.parametrize("kind", (np.int8, np.uint8))
def test_dynamic_quantization_becomes_the_float_product(kind):
    low, high, mid = (-128, 128, 0) if kind == np.int8 else (0, 256, 128)
    w = RNG.integers(low, high, (4, 3, 3, 3)).astype(kind)
    made = model(*dynamic("ConvInteger", w, kind(mid), F(0.01), pads=[1] * 4), {"x": X}, opset=13)
    got, want = evaluated(made, {"x": X})[0], reference(made, {"x": X})[0]
    assert np.abs(got - want).max() < 0.02 * np.ptp(want)
    rows = RNG.normal(size=(5, 8)).astype(F)
    made = model(
        *dynamic("MatMulInteger", RNG.integers(low, high, (8, 4)).astype(kind), kind(mid), F(0.01)),
        {"x": rows},
        opset=13,
    )
    samples = RNG.normal(size=(16, 5, 8)).astype(F)
    compiled = tvm_ergo.compile(made, calibration=[{"x": s} for s in samples])
    got, want = compiled.run({"x": samples[0]}).outputs["y"], reference(made, {"x": samples[0]})[0]
    assert not compiled.fallbacks and np.abs(got - want).max() < 0.05 * np.ptp(want)


def test_integer_products_of_their_own_are_exact():
    a, w = RNG.integers(0, 256, (1, 3, 6, 6)).astype(np.uint8), RNG.integers(-128, 128, (4, 3, 3, 3)).astype(np.int8)
    assert_same(
        model(
            [node("ConvInteger", "x w z", strides=[2, 1], auto_pad="SAME_UPPER")],
            {"w": w, "z": np.uint8(7)},
            {"x": a},
            opset=13,
        ),
        {"x": a},
        rtol=0,
        atol=0,
    )
    b = RNG.integers(0, 256, (5, 40)).astype(np.uint8)
    constants = {
        "w": RNG.integers(-128, 128, (40, 6)).astype(np.int8),
        "z": np.uint8(9),
        "v": RNG.integers(-5, 5, 6).astype(np.int8),
    }
    assert_same(model([node("MatMulInteger", "x w z v")], constants, {"x": b}, opset=13), {"x": b}, rtol=0, atol=0)


def by_qonnx(made, feeds):
    """What the package qonnx computes for a model of one quantizer."""
    general = (
        pytest.importorskip("qonnx.custom_op.general.intquant"),
        pytest.importorskip("qonnx.custom_op.general.trunc"),
        pytest.importorskip("qonnx.custom_op.general.bipolar_quant"),
    )
    one = made.graph.node[0]
    stored = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    values = [feeds.get(n, stored.get(n)) for n in one.input]
    a = {k.name: helper.get_attribute_value(k) for k in one.attribute}
    rounding = a.get("rounding_mode", b"").decode()
    if one.op_type == "Quant":
        return general[0].int_quant(*values, a["signed"], a["narrow"], rounding)
    if one.op_type == "BipolarQuant":
        return general[2].binary_quant(*values)
    return general[1].trunc_v1(*values, rounding)


@pytest.mark.parametrize("rounding", ("ROUND", "CEIL", "FLOOR", "DOWN", "UP", "HALF_UP", "HALF_DOWN"))
@pytest.mark.parametrize(
    "bits,signed,narrow", [(8, 1, 0), (8, 0, 0), (4, 1, 1), (4, 0, 0), (2, 1, 1), (3, 0, 1), (1, 1, 0), (12, 1, 0)]
)
def test_qonnx_quant(rounding, bits, signed, narrow):
    x = np.concatenate([RNG.normal(size=40) * 2, np.arange(-12, 12) * 0.125]).astype(F).reshape(4, 16)
    for scale, zero in (
        (F(0.25), F(0)),
        (F(0.25), F(2 if not signed else 0)),
        (np.linspace(0.1, 0.4, 16).astype(F), F(0)),
    ):
        constants = {"s": scale, "z": zero, "b": F(bits)}
        attributes = dict(domain=qonnx.DOMAINS[0], signed=signed, narrow=narrow, rounding_mode=rounding)
        made = model([node("Quant", "x s z b", **attributes)], constants, {"x": x}, opset=13, domains=qonnx.DOMAINS[:1])
        np.testing.assert_allclose(evaluated(made, {"x": x})[0], by_qonnx(made, {"x": x}), atol=1e-6)
        folded = model(
            [node("Quant", "w s z b", "q", **attributes), node("Add", "x q")],
            {**constants, "w": x},
            {"x": x},
            opset=13,
            domains=qonnx.DOMAINS[:1],
        )
        np.testing.assert_allclose(evaluated(folded, {"x": 0 * x})[0], by_qonnx(made, {"x": x}), atol=1e-6)


def test_qonnx_bipolar_and_trunc():
    x = np.concatenate([RNG.normal(size=15), [0]]).astype(F)
    made = model(
        [node("BipolarQuant", "x s", domain=qonnx.DOMAINS[0])],
        {"s": F(0.7)},
        {"x": x},
        opset=13,
        domains=qonnx.DOMAINS[:1],
    )
    np.testing.assert_allclose(evaluated(made, {"x": x})[0], by_qonnx(made, {"x": x}), atol=1e-6)
    codes = np.arange(-60, 60, dtype=F) * F(0.5)
    for rounding in ("FLOOR", "ROUND", "CEIL"):
        constants = {"s": F(0.5), "z": F(0), "b": F(8), "o": F(5)}
        made = model(
            [node("Trunc", "x s z b o", domain=qonnx.DOMAINS[0], rounding_mode=rounding)],
            constants,
            {"x": codes},
            opset=13,
            domains=qonnx.DOMAINS[:1],
        )
        np.testing.assert_allclose(evaluated(made, {"x": codes})[0], by_qonnx(made, {"x": codes}), atol=1e-6)


def test_qonnx_network_runs_on_the_chip():
    attributes = dict(domain=qonnx.DOMAINS[0], signed=1, narrow=1, rounding_mode="ROUND")
    nodes = [
        node("Quant", "x s z b", "a", **attributes),
        node("Quant", "w ws z b", "v", **attributes),
        node("Conv", "a v", "c", pads=[1] * 4),
        node("Relu", "c", "r"),
        node("Quant", "r os z b", **{**attributes, "signed": 0, "narrow": 0}),
    ]
    constants = {
        "s": F(0.1),
        "z": F(0),
        "b": F(4),
        "w": RNG.normal(size=(4, 3, 3, 3)).astype(F),
        "ws": np.full((4, 1, 1, 1), 0.2, F),
        "os": F(0.5),
    }
    compiled = tvm_ergo.compile(model(nodes, constants, {"x": X}, opset=13, domains=qonnx.DOMAINS[:1]))
    assert not compiled.fallbacks
    q = np.clip(np.rint(X / F(0.1)), -7, 7) * 0.1
    w = np.clip(np.rint(constants["w"] / 0.2), -7, 7) * 0.2
    exact = reference(model([node("Conv", "x w", pads=[1] * 4)], {"w": w.astype(F)}, {"x": X}), {"x": q.astype(F)})[0]
    assert (
        np.abs(compiled.run({"x": X}).outputs["y"] - np.clip(np.rint(np.maximum(exact, 0) / 0.5), 0, 15) * 0.5).max()
        <= 0.5
    )


def four_bits(kind, block, zeros=True):
    low, high = (-8, 8) if kind == TensorProto.INT4 else (0, 16)
    w = helper.make_tensor("w", kind, (64, 24), RNG.integers(low, high, 64 * 24).tolist())
    shape = [64 // block, 24] if block else [24]
    z = helper.make_tensor("z", kind, shape, RNG.integers(low, high, int(np.prod(shape))).tolist())
    return w, z, RNG.uniform(0.01, 0.03, shape).astype(F)


@pytest.mark.parametrize("kind", (TensorProto.INT4, TensorProto.UINT4))
@pytest.mark.parametrize("block", (0, 64, 16))
def test_four_bit_weights(kind, block):
    w, z, s = four_bits(kind, block)
    x = RNG.uniform(-2, 2, (5, 64)).astype(F)
    dq = node("DequantizeLinear", "w s z", "wd", axis=0 if block else 1, **({"block_size": block} if block else {}))
    assert_same(model([dq, node("MatMul", "x wd")], {"w": w, "z": z, "s": s}, {"x": x}, opset=21), {"x": x})
    nodes = [
        node("QuantizeLinear", "x a o", "xq"),
        node("DequantizeLinear", "xq a o", "xd"),
        dq,
        node("MatMul", "xd wd", "t"),
        node("QuantizeLinear", "t b o", "tq"),
        node("DequantizeLinear", "tq b o"),
    ]
    made = model(nodes, {"w": w, "z": z, "s": s, "a": F(0.02), "b": F(0.1), "o": np.int8(3)}, {"x": x}, opset=21)
    compiled = tvm_ergo.compile(made)
    assert np.abs(compiled.run({"x": x}).outputs["y"] - reference(made, {"x": x})[0]).max() <= 0.1001
    assert not compiled.fallbacks


def test_unknown_attributes_are_refused_by_name():
    for one, domain in (
        (node("FusedConv", "x w", domain="com.microsoft", winograd=1), "com.microsoft"),
        (node("Conv", "x w", winograd=1), ""),
    ):
        made = model(
            [one], {"w": RNG.normal(size=(4, 3, 1, 1)).astype(F)}, {"x": X}, domains=[domain] if domain else []
        )
        with pytest.raises((UnsupportedError, ModelError), match="winograd"):
            load(made)


def test_minus_infinity_before_a_maximum_is_the_poolings_padding():
    pads = np.array([0, 0, 1, 0, 0, 0, 1, 2])
    made = model(
        [node("Pad", "x p v", "t"), node("MaxPool", "t", kernel_shape=[3, 3], strides=[2, 2])],
        {"p": pads, "v": F(-np.inf)},
        {"x": X},
    )
    assert_same(made, {"x": X})
    assert "nn.pad" not in str(load(made).mod)
    beyond = model(
        [node("Pad", "x p v", "t"), node("MaxPool", "t", kernel_shape=[2, 2])], {"p": pads, "v": F(-np.inf)}, {"x": X}
    )
    assert_same(beyond, {"x": X})  # a window wholly in the padding: the infinity stays


def test_same_padding():
    """The slow twin: the least padding whose output is the input over the stride, rounded up."""
    for size in range(1, 12):
        for kernel in range(1, 6):
            for stride in range(1, 4):
                pads = windows.same_pads([size], [kernel], [stride], [1], "SAME_UPPER")
                least = next(
                    p
                    for p in range(40)
                    if size + p >= kernel and (size + p - kernel) // stride + 1 >= -(-size // stride)
                )
                assert sum(pads) == least and 0 <= pads[1] - pads[0] <= 1
                assert windows.same_pads([size], [kernel], [stride], [1], "SAME_LOWER") == pads[::-1]


def test_withdrawn_group_normalization():
    """Opset 18 has a scale per group; ONNX withdrew it, exporters wrote it."""
    constants = {"g": RNG.normal(size=2).astype(F), "b": RNG.normal(size=2).astype(F)}
    x = RNG.normal(size=(1, 4, 5, 5)).astype(F)
    made = model([node("GroupNormalization", "x g b", num_groups=2)], constants, {"x": x}, opset=18)
    groups = x.reshape(1, 2, -1)
    want = (groups - groups.mean(-1, keepdims=True)) / np.sqrt(groups.var(-1, keepdims=True) + 1e-5) * constants["g"][
        None, :, None
    ] + constants["b"][None, :, None]
    np.testing.assert_allclose(evaluated(made, {"x": x})[0], want.reshape(x.shape), atol=1e-5)


def test_onnx_protobuf_of_the_caller_stays():
    made = model([node("Upsample", "x", mode="nearest", scales=[1.0, 1.0, 2.0, 2.0])], {}, {"x": X}, opset=8)
    before = made.SerializeToString()
    load(made)
    assert made.SerializeToString() == before and isinstance(made, onnx.ModelProto)
