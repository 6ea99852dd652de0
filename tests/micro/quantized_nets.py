"""QDQ functions of int8 inputs and outputs, and the check of their lowering: the integer dialect on the CPU against the
float QDQ function."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from tvm import relax

from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.relay_passes.dialect import from_call, is_ergo_call
from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.micro.lower_context import Quant
from tvm_ergo.relay_passes.micro.lower_quantized import LowerQuantized, host_fallbacks

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
    return [
        b.value.op.name
        for block in mod["main"].body.blocks
        for b in block.bindings
        if isinstance(b.value, relax.Call) and not is_ergo_call(b.value)
    ]


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


def weights_of(qdq, rng, shape, kind, channel_axis=0):
    if kind == "float":  # values that 8 bits hold exactly, so that the pass finds the same integers
        ints = rng.integers(-127, 128, shape)
        ints.reshape(shape[0], -1)[:, 0] = 127
        return const(ints * np.float32(0.013))
    if kind == "channel":
        scale = rng.uniform(0.005, 0.02, shape[channel_axis])
        return qdq.emit(
            op.dequantize(
                const(rng.integers(-127, 128, shape), "int8"),
                const(scale),
                const(np.zeros(len(scale)), "int8"),
                axis=channel_axis,
            )
        )
    zero = 3 if kind == "int8" else 119
    low = -128 if kind == "int8" else 0
    return qdq.emit(op.dequantize(const(rng.integers(low, low + 256, shape), kind), const(0.013), const(zero, kind)))
