"""Random small NCHW networks: every operator the layout pass knows, in random order, with random branches."""

import numpy as np
from graphs import module
from hypothesis import strategies as st
from tvm import relax

from tvm_ergo.relay_passes.relax_utils import shape_of

R = relax.op


def _conv(e, draw, rng, x):
    n, c, h, w = shape_of(x)
    groups = draw(st.sampled_from([1, c]))
    out = draw(st.integers(1, 4)) * groups
    kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    weight = relax.const(rng.normal(size=(out, c // groups, *kernel)).astype(np.float32) / 2)
    y = e(
        R.nn.conv2d(
            x, weight, (draw(st.integers(1, 2)), 1), tuple(draw(st.integers(1, 2)) for _ in range(4)), groups=groups
        )
    )
    if draw(st.booleans()):
        y = e(R.add(y, e(R.reshape(relax.const(rng.normal(size=out).astype(np.float32)), (1, out, 1, 1)))))
    if draw(st.booleans()):
        parameters = [relax.const(rng.uniform(0.5, 1.5, out).astype(np.float32)) for _ in range(4)]
        y = e(relax.TupleGetItem(e(R.nn.batch_norm(y, *parameters, 1, training=False)), 0))
    return y


def _unary(e, draw, rng, x):
    f = draw(
        st.sampled_from(
            [R.nn.relu, R.sigmoid, R.tanh, lambda v: R.clip(v, -0.5, 0.5), lambda v: R.nn.leakyrelu(v, 0.2)]
        )
    )
    return e(f(x))


def _pool(e, draw, rng, x):
    f = draw(st.sampled_from([R.nn.max_pool2d, R.nn.avg_pool2d]))
    return e(f(x, (2, 2), (1, 2), (1, 1, 1, 1), ceil_mode=draw(st.booleans())))


def _axis_ops(e, draw, rng, x):
    shape = shape_of(x)
    axis = draw(st.integers(1, 3))
    kind = draw(
        st.sampled_from(["softmax", "mean", "concat", "slice", "pad", "prelu", "split", "qdq", "broadcast", "resize"])
    )
    if kind == "softmax":
        return e(R.nn.softmax(x, axis))
    if kind == "mean":
        return e(R.add(x, e(R.mean(x, [axis], keepdims=True))))
    if kind == "concat":
        return e(R.concat([x, e(R.negative(x))], axis))
    if kind == "slice" and shape[axis] > 2:
        return e(R.strided_slice(x, [axis], [1], [shape[axis]], [draw(st.integers(1, 2))]))
    if kind == "pad":
        return e(R.nn.pad(x, [0, 0, 1, 0, 0, 2, 1, 1], "constant", draw(st.sampled_from([0.0, 1.0]))))
    if kind == "prelu":
        return e(R.nn.prelu(x, relax.const(rng.normal(size=shape[1]).astype(np.float32)), 1))
    if kind == "split" and shape[axis] > 1:
        parts = e(R.split(x, [1], axis))
        return e(R.add(e(relax.TupleGetItem(parts, 1)), e(relax.TupleGetItem(parts, 0))))
    if kind == "qdq":
        scale, zero = relax.const(np.full(shape[1], 0.05, np.float32)), relax.const(np.zeros(shape[1], np.int8))
        return e(R.dequantize(e(R.quantize(x, scale, zero, 1)), scale, zero, 1))
    if kind == "broadcast":
        return e(R.multiply(relax.const(rng.normal(size=(shape[2], shape[3])).astype(np.float32)), x))
    if kind == "resize":
        return e(
            R.image.resize2d(
                x,
                (shape[2] + 1, shape[3] + 2),
                method=draw(st.sampled_from(["linear", "nearest_neighbor"])),
                coordinate_transformation_mode="asymmetric",
                rounding_method="floor",
            )
        )
    return x


def _rearrange(e, draw, rng, x):
    n, c, h, w = shape_of(x)
    axes = draw(st.permutations([1, 2, 3]))
    turned = e(R.permute_dims(x, [0, *axes]))
    return e(R.reshape(e(R.reshape(turned, (n, -1, shape_of(turned)[3]))), (n, c, h, w)))


@st.composite
def networks(draw):
    """A module of one or two NCHW inputs; outputs in rank 4, 3, 2."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))

    def build(e, x, other):
        values = [x]
        for _ in range(draw(st.integers(1, 6))):
            step = draw(st.sampled_from([_conv, _conv, _unary, _pool, _axis_ops, _axis_ops, _rearrange]))
            y = step(e, draw, rng, values[-1])
            same = [v for v in values if shape_of(v) == shape_of(y)]
            if same and draw(st.booleans()):
                y = e(R.add(y, draw(st.sampled_from(same))))
            if max(shape_of(y)) <= 24:
                values.append(y)
        last = values[-1]
        ending = draw(st.sampled_from(["none", "pool", "flatten", "tuple"]))
        if ending == "pool":
            return e(R.mean(last, [2, 3], keepdims=draw(st.booleans())))
        if ending == "flatten":
            flat = (
                e(R.flatten(last))
                if draw(st.booleans())
                else e(R.reshape(last, (shape_of(last)[0], shape_of(last)[1], -1)))
            )
            return e(R.matmul(flat, relax.const(rng.normal(size=(shape_of(flat)[-1], 3)).astype(np.float32))))
        return relax.Tuple([last, e(R.multiply(other, x))]) if ending == "tuple" else e(R.tanh(last))

    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 4)), draw(st.integers(2, 6)), draw(st.integers(2, 6)))
    return module(build, shape, shape)
