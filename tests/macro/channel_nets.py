"""Small normal-form nets whose tensors can be projected, and some that cannot."""

import numpy as np
from graphs import module
from tvm import relax

R = relax.op
NHWC = {"data_layout": "NHWC", "kernel_layout": "OHWI"}


def weights(rng, *shape):
    return relax.const((rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32))


def conv(e, rng, x, out, kernel=3, bias=True, **attributes):
    depth = int(x.ty.shape[3]) // attributes.get("groups", 1)
    attributes.setdefault("padding", (kernel // 2,) * 4)
    y = e(R.nn.conv2d(x, weights(rng, out, kernel, kernel, depth), **NHWC, **attributes))
    return e(R.add(y, relax.const(rng.normal(size=out).astype(np.float32)))) if bias else y


def dense(e, rng, x, out):
    return e(R.matmul(x, relax.const(rng.normal(size=(int(x.ty.shape[-1]), out)).astype(np.float32))))


def relu_net(seed=0):
    """conv, relu ("y"), read by a padded 3x3 with stride 2 and by an unpadded dilated one."""
    rng = np.random.default_rng(seed)

    def build(e, x):
        y = e(R.nn.relu(conv(e, rng, x, 8)), "y")
        left = conv(e, rng, y, 4, strides=(2, 2), padding=(0, 1, 1, 1))
        right = conv(e, rng, y, 3, dilation=(2, 2), padding=(0, 0, 0, 0), bias=False)
        return relax.Tuple([e(R.tanh(left)), e(R.tanh(right))])

    return module(build, (1, 9, 9, 3))


def residual_net(seed=0):
    """Linear bottlenecks: a stream "y" of 6 channels through two sums, pooled, read by a dense layer; everything
    absorbed."""
    rng = np.random.default_rng(seed)

    def build(e, x):
        y = conv(e, rng, x, 6, kernel=1)
        for _ in range(2):
            inner = e(R.nn.relu(conv(e, rng, y, 12, kernel=1)))
            inner = e(R.nn.relu(conv(e, rng, inner, 12, groups=12)))
            y = e(R.add(conv(e, rng, inner, 6, kernel=1), y))
        pooled = e(R.nn.avg_pool2d(y, (2, 2), (2, 2), layout="NHWC"))
        flat = e(R.reshape(e(R.mean(pooled, [1, 2], keepdims=True)), (1, 6)))
        return dense(e, rng, flat, 5)

    return module(build, (1, 8, 8, 3))


def low_rank_net(rank=3, channels=16, seed=0):
    """A linear layer of ``channels`` outputs that span only ``rank`` dimensions, then a 3x3 layer, relu, a 1x1
    layer."""
    rng = np.random.default_rng(seed)

    def build(e, x):
        matrix = rng.normal(size=(channels, rank)) @ rng.normal(size=(rank, 6))
        y = e(R.nn.conv2d(x, relax.const(matrix[:, None, None].astype(np.float32)), **NHWC), "y")
        return conv(e, rng, e(R.nn.relu(conv(e, rng, y, 8))), 4, kernel=1)

    return module(build, (1, 8, 8, 6))


def samples(mod, count, seed=0):
    rng = np.random.default_rng(seed)
    shape = [int(d) for d in mod["main"].params[0].ty.shape]
    return rng.normal(size=(count, *shape[1:])).astype(np.float32)
