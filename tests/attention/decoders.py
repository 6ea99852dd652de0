"""Small networks that write: token numbers in, logits out, causal; as ONNX models for S tokens."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

S, C, D, V = 24, 16, 4, 40
HEADS, GROUPS = 4, 2


class Net:
    """Nodes and constants under construction."""

    def __init__(self, seed: int):
        self.rng, self.nodes, self.constants = np.random.default_rng(seed), [], {}

    def __call__(self, op: str, *args, **attrs) -> str:
        names = [a if isinstance(a, str) else self.constant(a) for a in args]
        out = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, [out], **attrs))
        return out

    def constant(self, array) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array)
        return name

    def weight(self, rows: int, columns: int) -> np.ndarray:
        return (self.rng.normal(0, 1, (rows, columns)) / rows**0.5).astype(np.float32)

    def model(self, result: str):
        self.nodes.append(helper.make_node("Identity", [result], ["logits"]))
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, S])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, S, V])],
            [numpy_helper.from_array(a, n) for n, a in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def _norm(net: Net, x: str) -> str:
    gain, shift = (net.rng.normal(m, 0.2, C).astype(np.float32) for m in (1, 0))
    return net("LayerNormalization", x, gain, shift, axis=-1)


def _rotated(net: Net, x: str) -> str:
    """Rotary embedding of [1, S, heads, D]."""
    angle = np.arange(S)[:, None] / 100 ** (np.arange(D // 2) / (D // 2))
    cos, sin = (np.tile(f(angle), 2)[None, :, None].astype(np.float32) for f in (np.cos, np.sin))
    first, second = (net("Slice", x, np.array([b]), np.array([b + D // 2]), np.array([3])) for b in (0, D // 2))
    turned = net("Concat", net("Neg", second), first, axis=-1)
    return net("Add", net("Mul", x, cos), net("Mul", turned, sin))


def _attention(net: Net, x: str, heads: int, groups: int, rotary: bool) -> str:
    q, k, v = (
        net("Reshape", net("MatMul", x, net.weight(C, n * D)), np.array([1, S, n, D])) for n in (heads, groups, groups)
    )
    if rotary:
        q, k = _rotated(net, q), _rotated(net, k)
    if groups != heads:
        order = np.repeat(np.arange(groups), heads // groups)
        k, v = net("Gather", k, order, axis=2), net("Gather", v, order, axis=2)
    q, v = (net("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, v))
    scores = net("Mul", net("MatMul", q, net("Transpose", k, perm=[0, 2, 3, 1])), np.float32(D**-0.5))
    mask = np.where(np.tril(np.ones((1, 1, S, S), bool)), 0, -1e9).astype(np.float32)
    means = net("MatMul", net("Softmax", net("Add", scores, mask), axis=-1), v)
    joined = net("Reshape", net("Transpose", means, perm=[0, 2, 1, 3]), np.array([1, S, heads * D]))
    return net("MatMul", joined, net.weight(heads * D, C))


def decoder(rotary: bool, groups: int = HEADS, layers: int = 2, seed: int = 3):
    """Positions are rotations, or a table added to the embedding."""
    net = Net(seed)
    x = net("Gather", net.weight(V, C) * np.float32(C**0.5), "ids", axis=0)
    if not rotary:
        x = net("Add", x, net.rng.normal(0, np.linspace(0.2, 1, S)[None, :, None], (1, S, C)).astype(np.float32))
    for _ in range(layers):
        x = net("Add", x, _attention(net, _norm(net, x), HEADS, groups, rotary))
        inner = net("MatMul", _norm(net, x), net.weight(C, 2 * C))
        x = net("Add", x, net("MatMul", net("Mul", inner, net("Sigmoid", inner)), net.weight(2 * C, C)))
    return net.model(net("MatMul", _norm(net, x), net.weight(C, V)))


def samples(count: int, seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [{"ids": rng.integers(0, V, (1, S))} for _ in range(count)]
