"""Every kind of group: the integer dialect on the CPU against the float QDQ function, at most one step apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tvm import relax

from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.relay_passes.dialect import from_call, is_ergo_call
from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.micro.lower_context import CannotLower, Quant
from tvm_ergo.relay_passes.micro.lower_elementwise import add_multipliers
from tvm_ergo.relay_passes.micro.lower_linear import BIAS_LIMIT, prove_accumulator, quantize_weights
from tvm_ergo.relay_passes.micro.lower_quantized import LowerQuantized, OutputQuant, host_fallbacks, lowering_notes
from tvm_ergo.relay_passes.micro.lower_spatial import resize_table, source_coordinates
from tvm_ergo.relay_passes.support.view import ConstTensor

op = relax.op
few = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 2**31)
scales = st.floats(-7, -3).map(lambda e: float(np.float32(2.0**e)))
zero_points = st.integers(-128, 127)
quants = st.builds(Quant, scales, zero_points)


def const(array, dtype="float32"):
    return relax.const(np.asarray(array, dtype))


class Qdq:
    """Writes a QDQ function of int8 inputs and int8 outputs."""

    def __init__(self):
        self.builder, self.params = relax.BlockBuilder(), []

    def emit(self, expr, name=""):
        return self.builder.emit(expr, name_hint=name)

    def dequantize(self, x, quant, dtype="int8"):
        zero_point = quant.zero_point + (128 if dtype == "uint8" else 0)
        return self.emit(op.dequantize(x, const(quant.scale), const(zero_point, dtype)))

    def quantize(self, x, quant, dtype="int8"):
        zero_point = quant.zero_point + (128 if dtype == "uint8" else 0)
        return self.emit(op.quantize(x, const(quant.scale), const(zero_point, dtype), out_dtype=dtype))


def build(shapes, in_quants, body, out_quant, dtype="int8"):
    """The module ``quantize(body(*dequantize(inputs)))``; out_quant None: a float output."""
    qdq = Qdq()
    params = [relax.Var(f"x{i}", relax.TensorType(s, dtype)) for i, s in enumerate(shapes)]
    with qdq.builder.function("main", params):
        with qdq.builder.dataflow():
            result = qdq.emit(body(qdq, *(qdq.dequantize(p, q, dtype) for p, q in zip(params, in_quants))), "result")
            result = result if out_quant is None else qdq.quantize(result, out_quant, dtype)
            result = qdq.builder.emit_output(result)
        qdq.builder.emit_func_output(result)
    return qdq.builder.get()


def ergo_calls(mod):
    return [from_call(b.value) for block in mod["main"].body.blocks for b in block.bindings if is_ergo_call(b.value)]


def host_calls(mod):
    return [b.value.op.name for block in mod["main"].body.blocks for b in block.bindings
            if isinstance(b.value, relax.Call) and not is_ergo_call(b.value)]


def check(mod, seed, tolerance=1, expect=()):
    """Lower, run both, compare codes; returns the ops."""
    lowered = LowerQuantized()(mod)
    assert host_fallbacks(lowered) == [] and host_calls(lowered) == []
    calls = ergo_calls(lowered)
    assert all(c.name for c in calls)
    for name in expect:
        assert name in [c.op_name for c in calls]
    rng = np.random.default_rng(seed)
    params = mod["main"].params
    arrays = []
    for param in params:
        dtype = str(param.ty.dtype)
        info = np.iinfo(dtype)
        arrays.append(rng.integers(info.min, info.max + 1, tuple(int(d) for d in param.ty.shape)).astype(dtype))
    want = evaluate(mod, {p.name: a for p, a in zip(params, arrays)})[0]
    got = build_cpu(lowered)(*arrays)[0]
    assert got.dtype == want.dtype and got.shape == want.shape
    difference = np.abs(got.astype(int) - want.astype(int))
    assert difference.max() <= tolerance
    return calls


@st.composite
def convolutions(draw):
    groups_kind = draw(st.sampled_from(["one", "two", "depthwise", "multiplier"]))
    channels = draw(st.sampled_from([2, 4, 6]))
    groups = {"one": 1, "two": 2, "depthwise": channels, "multiplier": channels}[groups_kind]
    out = channels * {"one": 1, "two": 2, "depthwise": 1, "multiplier": 2}[groups_kind]
    return {"channels": channels, "groups": groups, "out": out, "kernel": (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
            "strides": (draw(st.integers(1, 2)), draw(st.integers(1, 2))), "padding": tuple(draw(st.integers(0, 2)) for _ in range(4)),
            "dilation": (draw(st.integers(1, 2)), 1), "activation": draw(st.sampled_from(["none", "relu", "relu6", "clip"])),
            "weights": draw(st.sampled_from(["float", "int8", "uint8", "channel"])), "bias": draw(st.sampled_from(["none", "float", "int32"]))}


def _weights(qdq, rng, shape, kind, channel_axis=0):
    if kind == "float":  # values that 8 bits hold exactly, so that the pass finds the same integers
        ints = rng.integers(-127, 128, shape)
        ints.reshape(shape[0], -1)[:, 0] = 127
        return const(ints * np.float32(0.013))
    if kind == "channel":
        scale = rng.uniform(0.005, 0.02, shape[channel_axis])
        return qdq.emit(op.dequantize(const(rng.integers(-127, 128, shape), "int8"), const(scale), const(np.zeros(len(scale)), "int8"), axis=channel_axis))
    zero = 3 if kind == "int8" else 119
    low = -128 if kind == "int8" else 0
    return qdq.emit(op.dequantize(const(rng.integers(low, low + 256, shape), kind), const(0.013), const(zero, kind)))


def _activate(qdq, y, kind):
    return {"none": lambda: y, "relu": lambda: op.nn.relu(y), "relu6": lambda: op.clip(y, 0.0, 6.0), "clip": lambda: op.clip(y, -1.3, 2.1)}[kind]()


@few
@given(convolutions(), quants, seeds)
def test_convolution(spec, quant, seed):
    rng = np.random.default_rng(seed)
    shape = (1, 7, 6, spec["channels"])

    def body(qdq, x):
        w = _weights(qdq, rng, (spec["out"], *spec["kernel"], spec["channels"] // spec["groups"]), spec["weights"])
        y = qdq.emit(op.nn.conv2d(x, w, strides=spec["strides"], padding=spec["padding"], dilation=spec["dilation"], groups=spec["groups"],
                                  data_layout="NHWC", kernel_layout="OHWI"), "conv")
        if spec["bias"] == "float":
            y = qdq.emit(op.add(y, const(rng.normal(size=spec["out"]))))
        if spec["bias"] == "int32":
            scale = np.float32(quant.scale) * np.float32(0.013)
            b = qdq.emit(op.dequantize(const(rng.integers(-500, 500, spec["out"]), "int32"), const(scale), const(0, "int32")))
            y = qdq.emit(op.add(y, b))
        return _activate(qdq, y, spec["activation"])

    mod = build([shape], [quant], body, Quant(0.04, -20))
    calls = check(mod, seed, 1, ("depthwise_conv2d",) if spec["groups"] == spec["channels"] == spec["out"] else ("conv2d",))
    assert len(calls) == 1


@few
@given(st.integers(1, 2), st.integers(0, 1), quants, seeds)
def test_transposed_convolution(stride, pad, quant, seed):
    rng = np.random.default_rng(seed)

    def body(qdq, x):
        w = _weights(qdq, rng, (4, 3, 3, 3), "int8")
        y = op.nn.conv2d_transpose(x, w, strides=stride, padding=pad, data_layout="NHWC", kernel_layout="IHWO")
        return op.nn.relu(qdq.emit(op.add(qdq.emit(y), const(rng.normal(size=3)))))

    check(build([(1, 4, 5, 4)], [quant], body, Quant(0.05, 3)), seed, 1, ("conv2d_transpose",))


@few
@given(st.sampled_from([(1, 12), (3, 12), (2, 3, 12)]), st.sampled_from(["int8", "channel", "uint8"]), quants, seeds)
def test_dense(shape, weights, quant, seed):
    rng = np.random.default_rng(seed)

    def body(qdq, x):
        w = qdq.emit(op.permute_dims(_weights(qdq, rng, (5, 12), weights)))
        return qdq.emit(op.add(qdq.emit(op.matmul(x, w)), const(rng.normal(size=5))))

    check(build([shape], [quant], body, Quant(0.03, 5)), seed, 1, ("conv2d",))


@few
@given(st.booleans(), st.sampled_from([None, 0.125, 0.3]), quants, quants, seeds)
def test_product_of_activations(transposed, scale, a, b, seed):
    def body(qdq, x, y):
        z = qdq.emit(op.matmul(x, qdq.emit(op.permute_dims(y, [0, 2, 1])) if transposed else y))
        return z if scale is None else op.multiply(z, const(scale))

    mod = build([(2, 3, 8), (2, 4, 8) if transposed else (2, 8, 4)], [a, b], body, Quant(0.02, 7))
    call, = check(mod, seed, 1, ("matmul",))
    assert call.transpose_b == transposed


@few
@given(st.sampled_from(["add", "subtract", "multiply", "maximum", "minimum"]), st.sampled_from([(2, 3, 4), (1, 1, 4), (2, 3, 1)]),
       st.booleans(), quants, quants, quants, seeds)
def test_two_tensors(name, other, relu, a, b, out, seed):
    def body(qdq, x, y):
        z = getattr(op, name)(x, y)
        return op.nn.relu(qdq.emit(z)) if relu else z

    check(build([(2, 3, 4), other], [a, b], body, out), seed)


def test_constant_tensor_operand():
    values = np.random.default_rng(0).integers(-128, 128, (1, 3, 3, 4))

    def body(qdq, x):
        return op.add(x, qdq.emit(op.dequantize(const(values, "int8"), const(0.02), const(4, "int8"))))

    check(build([(1, 3, 3, 4)], [Quant(0.03, 1)], body, Quant(0.04, 0)), 0, 1, ("add",))


def test_division_by_a_constant_tensor():
    values = np.random.default_rng(0).uniform(0.5, 2, (1, 3, 3, 4))
    mod = build([(1, 3, 3, 4)], [Quant(0.03, 1)], lambda qdq, x: op.divide(x, const(values)), Quant(0.06, 0))
    check(mod, 0, 2, ("mul",))  # the reciprocals are 8-bit: half a step of 2/255 of at most 3.9
    assert "constant operand" in lowering_notes(LowerQuantized()(mod))[0].text


ACTIVATIONS = {
    "silu": lambda q, x: op.multiply(x, q.emit(op.sigmoid(x))),
    "hard_swish": lambda q, x: op.multiply(x, q.emit(op.divide(q.emit(op.clip(q.emit(op.add(x, const(3.0))), 0, 6)), const(6.0)))),
    "gelu": lambda q, x: op.nn.gelu(x),
    "gelu_erf": lambda q, x: op.multiply(q.emit(op.multiply(x, const(0.5))), q.emit(op.add(q.emit(op.erf(q.emit(op.divide(x, const(2**0.5))))), const(1.0)))),
    "mish": lambda q, x: op.multiply(x, q.emit(op.tanh(q.emit(op.log(q.emit(op.add(q.emit(op.exp(x)), const(1.0)))))))),
    "leaky": lambda q, x: op.nn.leakyrelu(x, 0.1),
    "prelu": lambda q, x: op.nn.prelu(x, const([0.1, -0.2, 0.3]), axis=3),
    "normalise": lambda q, x: op.add(q.emit(op.multiply(x, const([1.5, -0.5, 2.0]))), const([0.1, 0.2, 0.3])),
    "sigmoid": lambda q, x: op.sigmoid(x), "tanh": lambda q, x: op.tanh(x), "abs": lambda q, x: op.abs(x), "sign": lambda q, x: op.sign(x),
    "square": lambda q, x: op.multiply(x, x), "relu": lambda q, x: op.nn.relu(x), "softplus": lambda q, x: op.nn.softplus(x),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_is_one_table(name):
    mod = build([(1, 5, 5, 3)], [Quant(0.04, 6)], ACTIVATIONS[name], Quant(0.05, -11))
    calls = check(mod, 1, 1, ("table",))
    assert len(calls) == 1


@few
@given(st.sampled_from(["max", "avg"]), st.integers(1, 3), st.integers(1, 2), st.tuples(*[st.integers(0, 1)] * 4), st.booleans(), quants, seeds)
def test_pooling(kind, window, stride, padding, ceil, quant, seed):
    window = max(window, 2) if any(padding) else window
    out = quant if kind == "max" else Quant(quant.scale, 3)
    pool = op.nn.max_pool2d if kind == "max" else op.nn.avg_pool2d

    def body(qdq, x):
        return pool(x, (window, window), (stride, stride), padding, ceil_mode=ceil, layout="NHWC")

    check(build([(1, 6, 7, 3)], [quant], body, out), seed, 1 if kind == "avg" else 0)


@few
@given(st.sampled_from(["mean", "sum", "max", "min", "adaptive1", "adaptive2", "count"]), quants, seeds)
def test_reduction(kind, quant, seed):
    reductions = {"mean": lambda x: op.mean(x, [1, 2], True), "sum": lambda x: op.sum(x, [3], False), "max": lambda x: op.max(x, [1], False),
                  "min": lambda x: op.min(x, [1, 3], True), "adaptive1": lambda x: op.nn.adaptive_avg_pool2d(x, (1, 1), layout="NHWC"),
                  "adaptive2": lambda x: op.nn.adaptive_avg_pool2d(x, (2, 3), layout="NHWC"),
                  "count": lambda x: op.nn.avg_pool2d(x, (3, 3), (2, 2), (1, 1), count_include_pad=True, layout="NHWC")}
    out = quant if kind in ("max", "min") else Quant(quant.scale * 1.3, -5)
    check(build([(2, 4, 6, 3)], [quant], lambda qdq, x: reductions[kind](x), out), seed)


@few
@given(st.integers(2, 40), quants, seeds)
def test_softmax(length, quant, seed):
    check(build([(3, length)], [quant], lambda qdq, x: op.nn.softmax(x, -1), Quant(1 / 256, -128)), seed, 1, ("softmax",))


MODES = ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")


@few
@given(st.sampled_from(["nearest_neighbor", "linear"]), st.sampled_from(MODES),
       st.sampled_from(["round", "floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]), st.integers(1, 9), st.integers(1, 9), quants, seeds)
def test_resize(method, mode, rounding, h, w, quant, seed):
    def body(qdq, x):
        return op.image.resize2d(x, (h, w), layout="NHWC", method=method, coordinate_transformation_mode=mode, rounding_method=rounding)

    check(build([(1, 4, 5, 2)], [quant], body, quant), seed, 1 if method == "linear" else 0)


@given(st.integers(1, 30), st.integers(1, 30), st.sampled_from((*MODES, "tf_half_pixel_for_nn")))
def test_resize_tables_are_interpolations(size, out_size, mode):
    low, high, weight = resize_table(size, out_size, mode, "linear", "").T
    at = np.clip(source_coordinates(size, out_size, mode), 0, size - 1)
    np.testing.assert_allclose(low * (1 - weight / 2048) + high * weight / 2048, at, atol=1 / 4096 + 1e-9)


MOVES = {
    "reshape": lambda q, x: op.reshape(x, (4, 18)), "flatten": lambda q, x: op.flatten(x), "expand": lambda q, x: op.expand_dims(x, [1]),
    "permute": lambda q, x: op.permute_dims(x, [0, 3, 1, 2]), "slice": lambda q, x: op.strided_slice(x, [1, 2], [-3, 0], [4, 3], [2, 1]),
    "pad": lambda q, x: op.nn.pad(x, [0, 0, 1, 2, 0, 1, 0, 0], "constant", 0.25), "squeeze": lambda q, x: op.squeeze(x, [0]),
    "depth_to_space": lambda q, x: op.reshape(q.emit(op.permute_dims(q.emit(op.reshape(x, (1, 4, 3, 2, 1, 3))), [0, 1, 4, 2, 3, 5])), (1, 4, 6, 3)),
    "take_one": lambda q, x: op.take(x, relax.const(np.int64(2)), 1), "take_some": lambda q, x: op.take(x, const([-5, 3, 5], "int64"), 3),
    "split": lambda q, x: relax.TupleGetItem(q.emit(op.split(x, 3, 3)), 1), "split_at": lambda q, x: relax.TupleGetItem(q.emit(op.split(x, [1, 3], 3)), 2),
}


@pytest.mark.parametrize("name", MOVES)
def test_movement_is_exact(name):
    quant = Quant(0.031, -7)
    check(build([(1, 4, 3, 6)], [quant], MOVES[name], quant), 3, 0)


def test_pixel_shuffle_is_exact():
    quant = Quant(0.031, -7)
    mod = build([(1, 8, 3, 2)], [quant], lambda q, x: op.nn.pixel_shuffle(x, 2), quant)
    x = np.random.default_rng(0).integers(-128, 128, (1, 8, 3, 2)).astype(np.int8)
    got = build_cpu(LowerQuantized()(mod))(x)[0]
    for c, h, w in np.ndindex(2, 6, 4):
        assert got[0, c, h, w] == x[0, c * 4 + (h % 2) * 2 + w % 2, h // 2, w // 2]


@few
@given(quants, quants, quants, seeds)
def test_concatenation_rescales(a, b, out, seed):
    mod = build([(1, 3, 2), (1, 3, 4)], [a, b], lambda qdq, x, y: op.concat([x, y], -1), out)
    calls = check(mod, seed, 0, ("concat",))
    assert sum(c.op_name == "table" for c in calls) == (a != out) + (b != out)


def test_uint8_edges_pass_tables_and_nothing_else():
    mod = build([(1, 4, 4, 2)], [Quant(0.05, 0)], lambda qdq, x: op.nn.max_pool2d(x, (2, 2), (2, 2), layout="NHWC"), Quant(0.05, 0), "uint8")
    calls = check(mod, 0, 0)
    assert [c.op_name for c in calls] == ["table", "max_pool2d", "table"]


def test_float_edges_stay_on_the_host():
    qdq, x, quant = Qdq(), relax.Var("x", relax.TensorType((1, 4, 4, 2), "float32")), Quant(0.05, 3)
    with qdq.builder.function("main", [x]):
        with qdq.builder.dataflow():
            y = qdq.dequantize(qdq.quantize(x, quant, "uint8"), quant, "uint8")
            y = qdq.dequantize(qdq.quantize(qdq.emit(op.nn.relu(y)), quant, "uint8"), quant, "uint8")
            out = qdq.builder.emit_output(qdq.emit(op.permute_dims(y, [0, 3, 1, 2])))
        qdq.builder.emit_func_output(out)
    lowered = LowerQuantized()(qdq.builder.get())
    assert host_calls(lowered) == ["relax.quantize", "relax.dequantize"] and host_fallbacks(lowered) == []
    assert [c.op_name for c in ergo_calls(lowered)] == ["table", "transpose"]
    array = np.random.default_rng(0).normal(0, 3, (1, 4, 4, 2)).astype(np.float32)
    np.testing.assert_allclose(build_cpu(lowered)(array)[0], evaluate(qdq.builder.get(), {"x": array})[0], atol=1e-6)


def _unquantized_logits():
    rng = np.random.default_rng(0)

    def body(qdq, x):
        hidden = qdq.emit(op.nn.relu(x))
        hidden = qdq.dequantize(qdq.quantize(hidden, Quant(0.05, -128)), Quant(0.05, -128))
        return op.matmul(hidden, _weights(qdq, rng, (6, 3), "int8"))

    return build([(1, 6)], [Quant(0.05, 0)], body, None)


def test_unquantized_logits_leave_the_chip_as_accumulators():
    mod = _unquantized_logits()
    lowered = LowerQuantized()(mod)
    assert host_fallbacks(lowered) == [] and "conv2d_accumulate" in [c.op_name for c in ergo_calls(lowered)]
    x = np.arange(-3, 3, dtype=np.int8).reshape(1, 6)
    np.testing.assert_allclose(build_cpu(lowered)(x)[0], evaluate(mod, {"x0": x})[0], rtol=1e-5)


@pytest.mark.parametrize("name", ["result", "the function's output"])
def test_given_quantization_brings_the_output_onto_the_chip(name):
    mod = _unquantized_logits()
    name = name if name == "result" else str(mod["main"].body.body.name)
    lowered = LowerQuantized((OutputQuant(name, 0.1, 4),))(mod)
    assert host_fallbacks(lowered) == [] and "conv2d" in [c.op_name for c in ergo_calls(lowered)]
    x = np.arange(-3, 3, dtype=np.int8).reshape(1, 6)
    np.testing.assert_allclose(build_cpu(lowered)(x)[0], evaluate(mod, {"x0": x})[0], atol=0.1)


def test_unsupported_operator_splits_the_network_and_is_listed():
    quant = Quant(0.05, 0)

    def body(qdq, x):
        y = qdq.dequantize(qdq.quantize(qdq.emit(op.nn.relu(x)), quant), quant)
        y = qdq.emit(op.cumsum(y, 1), "running")
        y = qdq.dequantize(qdq.quantize(y, quant), quant)
        return op.abs(y)

    mod = build([(1, 6)], [quant], body, quant)
    lowered = LowerQuantized()(mod)
    fallback, = host_fallbacks(lowered)
    assert (fallback.node, fallback.op) == ("running", "cumsum")
    assert [c.op_name for c in ergo_calls(lowered)] == ["table", "table"]
    x = np.arange(-60, 60, 20, dtype=np.int8).reshape(1, 6)
    assert np.abs(build_cpu(lowered)(x)[0].astype(int) - evaluate(mod, {"x0": x})[0]).max() <= 1


def test_accumulator_proof_refuses_what_could_overflow():
    mod = build([(1, 70000)], [Quant(0.05, -128)], lambda q, x: op.matmul(x, q.emit(op.dequantize(
        const(np.full((70000, 1), 127), "int8"), const(0.01), const(0, "int8")))), Quant(10.0, 0))
    fallback, = host_fallbacks(LowerQuantized()(mod))
    assert "int32" in fallback.reason


@given(st.floats(-20, 20), st.floats(-20, 20), st.sampled_from([1, -1]))
def test_add_multipliers_are_as_large_as_they_may_be(a, b, sign):
    fields = add_multipliers(2.0**a, sign * 2.0**b)
    largest = max(abs(fields["a_mult"]), abs(fields["b_mult"]))
    assert 2**20 - 1 <= largest < 2**21
    assert abs(fields["a_mult"] / 2.0**fields["shift"] - 2.0**a) <= 0.5 / 2.0**fields["shift"]


def test_channel_with_a_dominant_bias_is_rescaled():
    weight = ConstTensor(np.array([[1e-9, 2e-9], [0.5, -0.25]], np.float32))
    bias = ConstTensor(np.array([3.0, 0.1], np.float32))
    weights = quantize_weights(weight, bias, 0.05)
    assert weights.rescaled == 1 and abs(weights.bias[0]) == BIAS_LIMIT
    np.testing.assert_allclose(weights.bias * weights.scale * 0.05, [3.0, 0.1], rtol=1e-3)
    prove_accumulator(weights, -128)


def test_large_stored_bias_is_kept_where_nothing_can_overflow():
    weight = ConstTensor(np.zeros((1, 3), np.int8), np.float32([1e-9]), np.zeros(1, np.int64))
    scale = np.float32(0.05) * np.float32(1e-9)
    weights = quantize_weights(weight, ConstTensor(np.array([2**31 - 1], np.int32), np.array([scale]), np.zeros(1, np.int64)), float(np.float32(0.05)))
    assert weights.rescaled == 0 and weights.bias.tolist() == [2**31 - 1]


def test_stored_bias_is_kept_to_the_bit():
    weight = ConstTensor(np.ones((2, 3), np.int8), np.float32([0.013]), np.zeros(1, np.int64))
    stored = np.array([12345677, -987654], np.int32)
    scale = np.float32(0.05) * np.float32(0.013)
    weights = quantize_weights(weight, ConstTensor(stored, np.array([scale]), np.zeros(1, np.int64)), float(np.float32(0.05)))
    assert weights.bias.tolist() == stored.tolist()


def test_impossible_scale_is_refused():
    with pytest.raises(CannotLower, match="times its output scale"):
        add_multipliers(2.0**22, 1.0)
