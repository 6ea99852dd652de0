"""Edges of a network, what stays on the host, and what is refused or kept to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tvm import relax

from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.micro.lower_context import CannotLower, Quant
from tvm_ergo.relay_passes.micro.lower_int16 import add_multipliers
from tvm_ergo.relay_passes.micro.lower_linear import BIAS_LIMIT, prove_accumulator, quantize_weights
from tvm_ergo.relay_passes.micro.lower_quantized import LowerQuantized, OutputQuant, host_fallbacks
from tvm_ergo.relay_passes.support.view import ConstTensor

from .quantized_nets import Qdq, build, check, const, ergo_calls, host_calls, op, weights_of


def test_uint8_edges_pass_tables_and_nothing_else():
    mod = build(
        [(1, 4, 4, 2)],
        [Quant(0.05, 0)],
        lambda qdq, x: op.nn.max_pool2d(x, (2, 2), (2, 2), layout="NHWC"),
        Quant(0.05, 0),
        "uint8",
    )
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
        return op.matmul(hidden, weights_of(qdq, rng, (6, 3), "int8"))

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
        y = qdq.emit(op.cumprod(y, 1), "running")
        y = qdq.dequantize(qdq.quantize(y, quant), quant)
        return op.abs(y)

    mod = build([(1, 6)], [quant], body, quant)
    lowered = LowerQuantized()(mod)
    (fallback,) = host_fallbacks(lowered)
    assert (fallback.node, fallback.op) == ("running", "cumprod")
    assert [c.op_name for c in ergo_calls(lowered)] == ["table", "table"]
    x = np.arange(-60, 60, 20, dtype=np.int8).reshape(1, 6)
    assert np.abs(build_cpu(lowered)(x)[0].astype(int) - evaluate(mod, {"x0": x})[0]).max() <= 1


def test_accumulator_proof_refuses_what_could_overflow():
    mod = build(
        [(1, 70000)],
        [Quant(0.05, -128)],
        lambda q, x: op.matmul(
            x, q.emit(op.dequantize(const(np.full((70000, 1), 127), "int8"), const(0.01), const(0, "int8")))
        ),
        Quant(10.0, 0),
    )
    (fallback,) = host_fallbacks(LowerQuantized()(mod))
    assert "int32" in fallback.reason


@given(st.floats(-20, 20), st.floats(-20, 20), st.sampled_from([1, -1]))
def test_add_multipliers_are_as_large_as_they_may_be(a, b, sign):
    fields = add_multipliers(2.0**a, sign * 2.0**b)
    largest = max(abs(fields["a_mult"]), abs(fields["b_mult"]))
    assert 2**20 - 1 <= largest < 2**21
    assert abs(fields["a_mult"] / 2.0 ** fields["shift"] - 2.0**a) <= 0.5 / 2.0 ** fields["shift"]


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
    weights = quantize_weights(
        weight,
        ConstTensor(np.array([2**31 - 1], np.int32), np.array([scale]), np.zeros(1, np.int64)),
        float(np.float32(0.05)),
    )
    assert weights.rescaled == 0 and weights.bias.tolist() == [2**31 - 1]


def test_stored_bias_is_kept_to_the_bit():
    weight = ConstTensor(np.ones((2, 3), np.int8), np.float32([0.013]), np.zeros(1, np.int64))
    stored = np.array([12345677, -987654], np.int32)
    scale = np.float32(0.05) * np.float32(0.013)
    weights = quantize_weights(
        weight, ConstTensor(stored, np.array([scale]), np.zeros(1, np.int64)), float(np.float32(0.05))
    )
    assert weights.bias.tolist() == stored.tolist()


def test_impossible_scale_is_refused():
    with pytest.raises(CannotLower, match="times its output scale"):
        add_multipliers(2.0**22, 1.0)
