"""Small float nets in normal form, and data for them: what the quantization tests run on."""

import functools

import numpy as np
import tvm
from sklearn.datasets import load_digits
from tvm import relax

from tvm_ergo.relay_passes.relax_utils import assemble, infer


class Net:
    """Builds ``main`` binding by binding; methods return the variable they bind."""

    def __init__(self, *shapes, seed=0, dtype="float32"):
        self.rng = np.random.default_rng(seed)
        self.params = [
            relax.Var(f"x{i}" if i else "x", relax.TensorType(shape, dtype)) for i, shape in enumerate(shapes)
        ]
        self.bindings = []

    def bind(self, value, name):
        var = relax.DataflowVar(name, infer(value).ty)
        self.bindings.append((var, infer(value)))
        return var

    def weights(self, *shape, spread=0.0):
        """Random weights of unit gain; ``spread`` > 0 makes the output channels differ by factors exp(normal *
        spread)."""
        w = self.rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        return (w * np.exp(spread * self.rng.standard_normal((shape[0], *[1] * (len(shape) - 1))))).astype(np.float32)

    def conv(self, x, channels, kernel=3, stride=1, groups=1, name="conv", bias=True, spread=0.0, pad=None):
        depth = int(x.ty.shape[3])
        w = self.weights(channels, kernel, kernel, depth // groups, spread=spread)
        pad = (kernel // 2,) * 4 if pad is None else pad
        layouts = {"data_layout": "NHWC", "kernel_layout": "OHWI"}
        y = self.bind(
            relax.op.nn.conv2d(x, relax.const(w), strides=stride, padding=pad, groups=groups, **layouts), name
        )
        return self.add(y, 0.1 * self.rng.standard_normal(channels), f"{name}_b") if bias else y

    def dense(self, x, channels, name="dense", weight=None, bias=None):
        w = self.weights(channels, int(x.ty.shape[-1])).T if weight is None else weight
        y = self.bind(relax.op.matmul(x, relax.const(np.ascontiguousarray(w, np.float32))), name)
        return self.add(y, 0.1 * self.rng.standard_normal(channels) if bias is None else bias, f"{name}_b")

    def add(self, x, values, name):
        return self.bind(relax.op.add(x, relax.const(np.asarray(values, np.float32))), name)

    def relu(self, x, name="relu"):
        return self.bind(relax.op.nn.relu(x), name)

    def relu6(self, x, name="relu6"):
        return self.bind(relax.op.clip(x, 0, 6), name)

    def module(self, *outputs):
        outs = relax.Tuple(list(outputs)) if len(outputs) > 1 else outputs[0]
        first = self.params[0]
        func = relax.Function(self.params, relax.SeqExpr([relax.DataflowBlock([])], first), first.ty).with_attr(
            "global_symbol", "main"
        )
        return assemble(tvm.IRModule({"main": func}), func, self.bindings, outs)


def small_cnn(seed=0, spread=0.0, six=False):
    """[1,8,8,3] to [1,5]: convolution, depthwise, pointwise with skip, max pool, concat, mean, dense, logits."""
    net = Net((1, 8, 8, 3), seed=seed)
    act = net.relu6 if six else net.relu
    a = act(net.conv(net.params[0], 8, name="c1", spread=spread), "r1")
    b = act(net.conv(a, 8, groups=8, name="dw", spread=spread), "r2")
    c = net.bind(relax.op.add(net.conv(b, 8, kernel=1, name="pw", spread=spread), a), "skip")
    p = net.bind(relax.op.nn.max_pool2d(c, pool_size=2, strides=2, layout="NHWC"), "pool")
    left, right = net.relu(net.conv(p, 4, kernel=1, name="left"), "rl"), net.relu(net.conv(p, 4, name="right"), "rr")
    cat = net.bind(relax.op.concat([left, right], axis=3), "cat")
    m = net.bind(relax.op.mean(cat, axis=[1, 2]), "mean")
    return net.module(net.dense(m, 5, name="fc"))


def images(count, shape=(8, 8, 3), seed=0):
    """[count, *shape] float32 in -1..1, neighbours correlated."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, *shape))
    return np.tanh((x + np.roll(x, 1, 1) + np.roll(x, 1, -1)) / 2).astype(np.float32)


@functools.lru_cache(maxsize=1)
def digits():
    """``(images [1797, 64] 0..16 f32, labels)`` of scikit-learn's bundled digits."""
    data = load_digits()
    return data.data.astype(np.float32), data.target


@functools.lru_cache(maxsize=1)
def digits_mlp():
    """An MLP 64-32-10 with relu trained on the first 1200 digits by plain gradient descent: a module with real
    structure."""
    x, y = digits()
    x, y, rng = x[:1200] / 16, y[:1200], np.random.default_rng(0)
    w1, b1 = rng.standard_normal((64, 32)) * 0.2, np.zeros(32)
    w2, b2 = rng.standard_normal((32, 10)) * 0.2, np.zeros(10)
    for _ in range(400):
        h = np.maximum(x @ w1 + b1, 0)
        z = h @ w2 + b2
        p = np.exp(z - z.max(1, keepdims=True))
        d = (p / p.sum(1, keepdims=True) - np.eye(10)[y]) / len(x)
        dh = (d @ w2.T) * (h > 0)
        w2, b2 = w2 - h.T @ d / 2, b2 - d.sum(0) / 2
        w1, b1 = w1 - x.T @ dh / 2, b1 - dh.sum(0) / 2
    net = Net((1, 64))
    hidden = net.relu(net.dense(net.params[0], 32, "fc1", w1 / 16, b1))
    return net.module(net.dense(hidden, 10, "fc2", w2, b2))
