"""Movement by index tables on the chip: gather in any order, padding with a tensor's own elements, repeating."""

import numpy as np
import pytest
from tvm import relax

from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.macro import normalize
from tvm_ergo.relay_passes.micro.lower_quantized import lower_quantized

R, N = relax.op, relax.op.nn
RNG = np.random.default_rng(1)


def between_quantizers(make, shape) -> relax.Function:
    """One operator on int8, everything else its frame."""
    builder, p = relax.BlockBuilder(), relax.Var("x", relax.TensorType(shape, "float32"))
    scale, zero = relax.const(np.float32(0.05)), relax.const(np.int8(-7))
    with builder.function("main", [p]):
        with builder.dataflow():
            q = builder.emit(R.quantize(p, scale, zero, out_dtype="int8"))
            y = builder.emit(make(builder.emit(R.dequantize(q, scale, zero))))
            out = builder.emit(R.quantize(y, scale, zero, out_dtype="int8"))
            out = builder.emit_output(R.dequantize(out, scale, zero))
        builder.emit_func_output(out)
    return builder.get()


def index(*values):
    return relax.const(np.array(values, np.int64))


@pytest.mark.parametrize(
    "make,shape",
    [
        (lambda x: R.take(x, index(2, 0, 1, 1), 1), (1, 3, 4, 5)),
        (lambda x: R.take(x, index(3, 1), 2), (2, 3, 4)),
        (lambda x: R.take(x, index(-1, 0), 0), (3, 2)),
        (lambda x: R.take(x, relax.const(np.array([[4, 0], [2, 2]])), 3), (1, 3, 4, 5)),
        (lambda x: R.take(x, index(5, 0, 3), 0), (6,)),
        *[
            (lambda x, m=m: N.pad(x, [0, 0, 2, 1, 1, 2, 0, 0], m), (1, 4, 5, 3))
            for m in ("reflect", "replicate", "circular")
        ],
        *[(lambda x, m=m: N.pad(x, [1, 0, 0, 2], m), (3, 4)) for m in ("reflect", "replicate", "circular")],
        (lambda x: N.pad(x, [1, 1, 0, 0, 1, 1, 2, 2], "replicate"), (2, 3, 4, 5)),
        (lambda x: N.pad(x, [0, 0, 0, 0, 2, 0, 0, 3], "circular"), (1, 2, 5, 6)),
        (lambda x: R.strided_slice(x, [1, 3], [5, -1], [0, -9], [-2, -1]), (1, 6, 3, 4)),
        (lambda x: R.strided_slice(x, [0], [-1], [-8], [-1]), (5, 2)),
        *[(lambda x, a=a: R.flip(x, a), (2, 5, 3, 4)) for a in (0, 1, -1)],
        (lambda x: R.flip(R.flip(x, 0), 1), (7, 2)),
        (lambda x: R.broadcast_to(x, (2, 4, 6)), (1, 4, 1)),
        (lambda x: R.broadcast_to(x, (3, 2, 4)), (2, 1)),
        (lambda x: R.broadcast_to(x, (5, 4)), (4,)),
    ],
)
def test_values_are_the_same_and_nothing_is_left_to_the_host(make, shape):
    mod = normalize(between_quantizers(make, shape))
    x = RNG.uniform(-6, 6, shape).astype(np.float32)
    lowered, left = lower_quantized(mod)
    assert not [f for f in left if f.op not in ("quantize", "dequantize")], left
    np.testing.assert_array_equal(build_cpu(lowered)(x)[0], evaluate(mod, x)[0])
