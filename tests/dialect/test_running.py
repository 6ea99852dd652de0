"""A running sum and its requantization on the CPU: together they are reduce_sum; row h of the sums holds the rows up to
h."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tvm import relax

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.target.errors import ModelError


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 5),
    st.integers(-128, 127),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_the_two_are_reduce_sum(height, width, channels, in_zp, keepdims, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(-128, 128, (1, height, width, channels)).astype(np.int8)
    requantize = {
        "mult": int(rng.integers(2**22, 2**24)),
        "shift": 24 + height.bit_length(),
        "lo": -100,
        "hi": 120,
        "out_zp": 3,
    }
    param = relax.Var("x", relax.TensorType(x.shape, "int8"))
    builder = relax.BlockBuilder()
    with builder.function("main", [param]):
        with builder.dataflow():
            sums = builder.emit(dialect.RunningSum(in_zp=in_zp).call(param))
            last = builder.emit(dialect.RequantizeLast(keepdims, **requantize).call(sums))
            whole = builder.emit(dialect.ReduceSum((1, 2), keepdims, in_zp, **requantize).call(param))
            result = builder.emit_output(relax.Tuple([sums, last, whole]))
        builder.emit_func_output(result)
    sums, last, whole = (np.asarray(o) for o in build_cpu(builder.get())(x))
    for row in range(height):
        np.testing.assert_array_equal(sums[0, row, 0], (x[0, : row + 1].astype(np.int64) - in_zp).sum(axis=(0, 1)))
    np.testing.assert_array_equal(last, whole)


@pytest.mark.parametrize(
    "op, shape, dtype, message",
    [
        (dialect.RunningSum(0), (2, 4, 4, 3), "int8", "not one picture"),
        (dialect.RunningSum(0), (1, 4, 4, 3), "int32", "wrong dtype"),
        (dialect.RunningSum(0), (1, 4096, 4096, 1), "int8", "more elements"),
        (dialect.RequantizeLast(True, 1, 1), (1, 4, 2, 3), "int32", "not running sums"),
    ],
)
def test_what_they_refuse(op, shape, dtype, message):
    with pytest.raises(ModelError, match=message):
        op.infer([shape], [dtype])
