"""The ops that give raw int32 accumulators, on the CPU as models use them, against a NumPy sum of products."""

import numpy as np
import pytest
from tvm import relax

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.target.machine import kernels


@pytest.mark.parametrize(
    "channels, units, depthwise", [(48, 10, False), (3, 1, False), (16, 33, False), (24, 24, True)]
)
def test_accumulators_scaled_on_the_host(channels, units, depthwise):
    rng = np.random.default_rng(channels)
    x = rng.integers(-128, 128, (1, 5, 4, channels)).astype(np.int8)
    w = rng.integers(-128, 128, (3, 3, channels) if depthwise else (units, 3, 3, channels)).astype(np.int8)
    bias = rng.integers(-5000, 5000, units).astype(np.int32)
    vectors = [bias, np.zeros(units, np.int32), np.zeros(units, np.int8)]
    op = (dialect.DepthwiseConv2dAccumulate if depthwise else dialect.Conv2dAccumulate)(
        padding=(1, 1, 1, 1), strides=(2, 1), in_zp=-7
    )
    builder, param = relax.BlockBuilder(), relax.Var("x", relax.TensorType(x.shape, "int8"))
    with builder.function("main", [param]):
        with builder.dataflow():
            acc = builder.emit(op.call(param, *map(relax.const, (w, *vectors))))
            real = builder.emit(
                relax.op.multiply(relax.op.astype(acc, "float32"), relax.const(np.full(units, 0.5, np.float32)))
            )
            result = builder.emit_output(relax.Tuple([acc, real]))
        builder.emit_func_output(result)
    raw, scaled = (np.asarray(o) for o in build_cpu(builder.get())(x))
    expected = np.zeros(raw.shape, np.int32)
    fields = {
        "strides": (2, 1),
        "padding": (1, 1, 1, 1),
        "dilation": (1, 1),
        "in_zp": -7,
        "w_zp": 0,
        "out_zp": 0,
        "lo": -128,
        "hi": 127,
    }
    if depthwise:
        kernels.depthwise_conv2d(x, w, *vectors, **fields, out=expected)
    else:
        kernels.conv2d(x, w, *vectors, groups=1, **fields, out=expected)
    np.testing.assert_array_equal(raw, expected)
    np.testing.assert_array_equal(scaled, expected.astype(np.float32) * 0.5)
    first = x[0, :2, :2].astype(np.int64) + 7  # the window of output (0, 0), the padding left out
    taps = w[1:, 1:].astype(np.int64) if depthwise else w[:, 1:, 1:].astype(np.int64)
    want = (first * taps).sum((0, 1)) if depthwise else (first * taps).sum((1, 2, 3))
    np.testing.assert_array_equal(raw[0, 0, 0], want + bias)
