"""One operator between quantizers, run in three ways: as QDQ, as integers by TVM on the CPU, as a Program."""

from __future__ import annotations

import numpy as np
from tvm import relax

import tvm_ergo
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.macro import normalize
from tvm_ergo.relay_passes.micro.lower_quantized import lower_quantized

R = relax.op


def between_quantizers(make, shape, ends=(0.05, -7), numbers=False):
    """A module: float32 ``shape`` quantized, ``make(emit, x)``, quantized with ``ends`` (not of whole ``numbers``)."""
    builder, p = relax.BlockBuilder(), relax.Var("x", relax.TensorType(shape, "float32"))
    scale, zero = relax.const(np.float32(0.05)), relax.const(np.int8(-7))
    after, point = relax.const(np.float32(ends[0])), relax.const(np.int8(ends[1]))
    with builder.function("main", [p]):
        with builder.dataflow():
            q = builder.emit(R.quantize(p, scale, zero, out_dtype="int8"))
            y = make(builder.emit, builder.emit(R.dequantize(q, scale, zero)))
            if not numbers:
                y = R.dequantize(builder.emit(R.quantize(y, after, point, out_dtype="int8")), after, point)
            out = builder.emit_output(y)
        builder.emit_func_output(out)
    return builder.get()


def three_ways(mod, x) -> tuple[np.ndarray, np.ndarray]:
    """``(what the QDQ form gives, what the chip gives)``; nothing may be left to the host, and the Program's result is
    the integer module's to the bit, by NumPy and by the C runtime."""
    mod = normalize(mod)
    lowered, left = lower_quantized(mod)
    assert not [f for f in left if f.op not in ("quantize", "dequantize")], left
    integers = build_cpu(lowered)(x)[0]
    compiled = tvm_ergo.compile(mod)
    (found,) = compiled.run({compiled.inputs[0].name: x}).outputs.values()
    np.testing.assert_array_equal(found.reshape(integers.shape), integers)
    return evaluate(mod, x)[0], integers
