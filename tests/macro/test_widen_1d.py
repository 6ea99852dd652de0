"""Widen1d: the same values, sequences as pictures of height 1 from the first to the last operator over one axis."""

import numpy as np
import pytest
from graphs import assert_same, module, ops
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

from tvm_ergo.relay_passes.macro import normalize
from tvm_ergo.relay_passes.macro.widen_1d import Widen1d
from tvm_ergo.relay_passes.relax_utils import bindings_of, op_name, shape_of

R = relax.op


def _between(e, draw, rng, x):
    """An operator that may stand between two convolutions of [N, C, L]."""
    n, c, length = shape_of(x)
    kind = draw(
        st.sampled_from(
            [
                "relu",
                "channel",
                "row",
                "norm",
                "mean",
                "means",
                "concat",
                "slice",
                "pad",
                "prelu",
                "split",
                "softmax",
                "transposed",
                "dense",
                "reshape",
                "qdq",
                "where",
                "plain",
            ]
        )
    )
    vector = relax.const(rng.normal(size=c).astype(np.float32))
    if kind == "relu":
        return e(R.nn.relu(x))
    if kind == "channel":
        return e(R.add(e(R.multiply(x, e(R.reshape(vector, (c, 1))))), e(R.reshape(vector, (1, c, 1)))))
    if kind == "row":
        return e(R.multiply(relax.const(rng.normal(size=length).astype(np.float32)), x))
    if kind == "norm":
        parameters = [relax.const(rng.uniform(0.5, 1.5, c).astype(np.float32)) for _ in range(4)]
        return e(
            relax.TupleGetItem(e(R.nn.batch_norm(x, *parameters, draw(st.sampled_from([1, -2])), training=False)), 0)
        )
    if kind == "mean":
        return e(R.add(x, e(R.mean(x, [draw(st.sampled_from([0, 1, 2, -1]))], keepdims=True))))
    if kind == "means":
        summed = e(draw(st.sampled_from([R.sum, R.max, R.min]))(x, [draw(st.integers(1, 2))], keepdims=False))
        return e(R.add(x, e(R.mean(summed))))
    if kind == "concat":
        return e(R.concat([x, e(R.negative(x))], draw(st.integers(1, 2))))
    if kind == "slice" and length > 2:
        return e(R.strided_slice(x, [draw(st.sampled_from([2, -1]))], [1], [length], [draw(st.integers(1, 2))]))
    if kind == "pad":
        return e(R.nn.pad(x, [0, 0, 1, 0, 2, 1], "constant", draw(st.sampled_from([0.0, 1.0]))))
    if kind == "prelu":
        return e(R.nn.prelu(x, vector, 1))
    if kind == "split" and length > 1:
        parts = e(R.split(x, [1], 2))
        return e(R.add(e(relax.TupleGetItem(parts, 1)), e(relax.TupleGetItem(parts, 0))))
    if kind == "softmax":
        return e(R.nn.softmax(x, draw(st.sampled_from([1, 2, -1]))))
    if kind == "transposed":
        return e(R.permute_dims(e(R.tanh(e(R.permute_dims(x, [0, 2, 1])))), [0, 2, 1]))
    if kind == "dense":
        weight = relax.const(rng.normal(size=(c, c)).astype(np.float32))
        return e(R.permute_dims(e(R.matmul(e(R.permute_dims(x, [0, 2, 1])), weight)), [0, 2, 1]))
    if kind == "reshape":
        return e(R.reshape(e(R.nn.relu(e(R.reshape(x, (n, c * length))))), (n, c, length)))
    if kind == "qdq":
        scale, zero = relax.const(np.full(c, 0.05, np.float32)), relax.const(np.zeros(c, np.int8))
        return e(R.dequantize(e(R.quantize(x, scale, zero, 1)), scale, zero, 1))
    if kind == "where":
        return e(R.where(e(R.greater(x, relax.const(0.1))), x, e(R.multiply(x, relax.const(0.3)))))
    return e(R.cumsum(x, 2)) if kind == "plain" else x


def _spatial(e, draw, rng, x):
    n, c, length = shape_of(x)
    kind = draw(st.sampled_from(["conv", "depthwise", "transposed", "max", "average", "last"]))
    pads = (draw(st.integers(0, 2)), draw(st.integers(1, 2)))
    if kind in ("max", "average"):
        f = R.nn.max_pool1d if kind == "max" else R.nn.avg_pool1d
        return e(
            f(
                x,
                (3,),
                (draw(st.integers(1, 2)),),
                (1, 1),
                ceil_mode=draw(st.booleans()),
                count_include_pad=draw(st.booleans()),
            )
        )
    if kind == "last":  # channels last
        weight = relax.const(rng.normal(size=(2, c, 3)).astype(np.float32))
        y = e(
            R.nn.conv1d(
                e(R.permute_dims(x, [0, 2, 1])),
                e(R.permute_dims(weight, [2, 1, 0])),
                1,
                (1, 1),
                data_layout="NWC",
                kernel_layout="WIO",
            )
        )
        return e(R.permute_dims(y, [0, 2, 1]))
    stride, dilation = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    if kind == "transposed":
        weight = relax.const(rng.normal(size=(c, 3, 3)).astype(np.float32))
        return e(R.nn.conv1d_transpose(x, weight, stride, (1, 0), 0, dilation))
    groups = c if kind == "depthwise" else 1
    weight = relax.const(rng.normal(size=(2 * groups, c // groups, 2)).astype(np.float32) / 2)
    y = e(R.nn.conv1d(x, weight, stride, pads, dilation, groups))
    return e(R.add(y, relax.const(rng.normal(size=(1, 2 * groups, 1)).astype(np.float32))))


@st.composite
def _networks(draw):
    rng = np.random.default_rng(draw(st.integers(0, 99)))

    def build(e, x):
        for _ in range(draw(st.integers(1, 4))):
            x = (_spatial if draw(st.booleans()) else _between)(e, draw, rng, x)
        return _spatial(e, draw, rng, x)

    return module(build, (draw(st.sampled_from([1, 2])), 3, 9))


@settings(max_examples=150, deadline=None)
@given(_networks())
def test_random_networks_keep_their_values(mod):
    after = Widen1d()(mod)
    assert_same(mod, after)
    assert not any("1d" in op_name(value) for _, value in bindings_of(after["main"]))
    assert_same(mod, normalize(mod))


def test_one_reshape_at_each_end():
    rng = np.random.default_rng(0)

    def c(*shape):
        return relax.const(rng.normal(size=shape).astype(np.float32))

    def build(e, x):
        y = e(R.nn.relu(e(R.add(e(R.nn.conv1d(x, c(8, 3, 3), padding=(2, 0))), c(1, 8, 1)))))
        z = e(R.nn.conv1d(e(R.nn.max_pool1d(y, (3,), (1,), (1, 1))), c(8, 1, 5), dilation=2, padding=(4, 4), groups=8))
        return e(R.concat([e(R.add(y, z)), y], 1))

    mod = module(build, (1, 3, 20))
    assert [name for name in ops(Widen1d()(mod)) if name == "reshape"] == ["reshape"] * 2
    normal = normalize(mod)
    assert_same(mod, normal)
    assert ops(normal).count("permute_dims") == 2


@pytest.mark.parametrize("pool", [R.nn.adaptive_avg_pool1d, lambda x, size: R.mean(x, [2], keepdims=True)])
def test_average_of_a_whole_sequence_is_that_of_a_whole_picture(pool):
    mod = module(lambda e, x: e(pool(e(R.nn.conv1d(x, relax.const(np.ones((4, 3, 3), np.float32)))), 1)), (1, 3, 9))
    mean = next(v for _, v in bindings_of(normalize(mod)["main"]) if op_name(v) == "relax.mean")
    assert [int(a) for a in mean.attrs.axis] == [1, 2]
    assert_same(mod, normalize(mod))


def test_without_such_operators_nothing_changes():
    mod = module(lambda e, x: e(R.nn.relu(x)), (1, 3, 9))
    assert Widen1d()(mod).same_as(mod)
