"""Random ONNX graphs: operators with random attributes on tensors that are there, and the same graph between
quantizers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

F = np.float32
OPSET = 18


@dataclass
class Graph:
    """A graph in the making. shapes: float tensors by name, in the order they came to be."""

    rng: np.random.Generator
    nodes: list = field(default_factory=list)
    constants: dict = field(default_factory=dict)
    shapes: dict = field(default_factory=dict)
    weights: dict = field(default_factory=dict)
    made: int = 0

    def pick(self, *ranks: int) -> str | None:
        """A tensor of one of the ranks, late ones likelier."""
        found = [n for n, s in self.shapes.items() if not ranks or len(s) in ranks]
        if not found:
            return None
        weight = np.arange(1, len(found) + 1.0) ** 2
        return str(self.rng.choice(found, p=weight / weight.sum()))

    def constant(self, value, channel: int | None = None) -> str:
        """A constant; with ``channel`` a weight whose output channels lie on that axis."""
        name = f"k{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        if channel is not None:
            self.weights[name] = channel
        return name

    def add(self, op: str, inputs: list[str], shape, **attributes) -> str:
        self.made += 1
        name = f"t{self.made}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"n{self.made}", **attributes))
        self.shapes[name] = tuple(int(d) for d in shape)
        return name

    def one(self, *choices):
        return choices[int(self.rng.integers(len(choices)))]

    def whole(self, low: int, high: int) -> int:
        """Both ends included."""
        return int(self.rng.integers(low, high + 1))

    def normal(self, *shape, scale=0.4):
        return (self.rng.normal(size=shape) * scale).astype(F)


def conv(g: Graph):
    if (x := g.pick(4)) is None:
        return
    n, c, h, w = g.shapes[x]
    groups = g.one(1, 1, c, 2 if c % 2 == 0 else 1)
    out, k, stride, dilation = (
        groups * g.whole(1, 4),
        (g.whole(1, 3), g.whole(1, 3)),
        (g.whole(1, 2), g.whole(1, 2)),
        (g.whole(1, 2), g.whole(1, 2)),
    )
    window = [(a - 1) * d + 1 for a, d in zip(k, dilation)]
    attributes = dict(strides=stride, group=groups)
    if g.rng.random() < 0.3:
        attributes["auto_pad"] = g.one("SAME_UPPER", "SAME_LOWER")
        size = [-(-a // s) for a, s in zip((h, w), stride)]
    else:
        pads = [g.whole(0, v - 1) for v in window * 2]
        size = [(a + pads[i] + pads[i + 2] - window[i]) // stride[i] + 1 for i, a in enumerate((h, w))]
        attributes |= dict(pads=pads, dilations=dilation)
    if min(size) < 1:
        return
    bias = [g.constant(g.normal(out))] if g.rng.random() < 0.7 else []
    g.add("Conv", [x, g.constant(g.normal(out, c // groups, *k), 0), *bias], (n, out, *size), **attributes)


def conv_transpose(g: Graph):
    if (x := g.pick(4)) is None or g.shapes[x][2] * g.shapes[x][3] > 150:
        return
    n, c, h, w = g.shapes[x]
    k, stride, out = (g.whole(2, 3), g.whole(2, 3)), (g.whole(1, 2), g.whole(1, 2)), g.whole(1, 4)
    groups = g.one(1, c, 2 if c % 2 == 0 else 1)
    pads = [g.whole(0, 1) for _ in range(4)]
    size = [(a - 1) * stride[i] + k[i] - pads[i] - pads[i + 2] for i, a in enumerate((h, w))]
    if min(size) >= 1:
        weight, shape = g.constant(g.normal(c, out, *k), 1), (n, out * groups, *size)
        g.add("ConvTranspose", [x, weight], shape, strides=stride, pads=pads, group=groups)


def pool(g: Graph):
    if (x := g.pick(4)) is None:
        return
    n, c, h, w = g.shapes[x]
    kind, k, stride = g.one("MaxPool", "AveragePool"), (g.whole(1, 3), g.whole(1, 3)), (g.whole(1, 2), g.whole(1, 2))
    pads = [g.whole(0, (v - 1) // 2) for v in k * 2]
    ceil = g.one(0, 0, 1)
    size = [(a + pads[i] + pads[i + 2] - k[i] + (stride[i] - 1) * ceil) // stride[i] + 1 for i, a in enumerate((h, w))]
    size = [s - 1 if ceil and (s - 1) * stride[i] >= a + pads[i] else s for i, (s, a) in enumerate(zip(size, (h, w)))]
    if min(size) >= 1 and h + pads[0] + pads[2] >= k[0] and w + pads[1] + pads[3] >= k[1]:
        extra = dict(count_include_pad=g.one(0, 1)) if kind == "AveragePool" else {}
        g.add(kind, [x], (n, c, *size), kernel_shape=k, strides=stride, pads=pads, ceil_mode=ceil, **extra)


def global_pool(g: Graph):
    if (x := g.pick(4)) is not None:
        g.add(g.one("GlobalAveragePool", "GlobalMaxPool"), [x], (*g.shapes[x][:2], 1, 1))


def unary(g: Graph):
    x = g.pick()
    op, attributes = g.one(
        ("Relu", {}),
        ("Relu", {}),
        ("LeakyRelu", dict(alpha=0.2)),
        ("Sigmoid", {}),
        ("Tanh", {}),
        ("HardSwish", {}),
        ("HardSigmoid", dict(alpha=0.3)),
        ("Elu", dict(alpha=0.7)),
        ("Softplus", {}),
        ("Abs", {}),
        ("Neg", {}),
        ("Erf", {}),
        ("Selu", {}),
        ("Softsign", {}),
        ("Mish", {}),
        ("ThresholdedRelu", dict(alpha=0.4)),
    )
    g.add(op, [x], g.shapes[x], **attributes)


def clip(g: Graph):
    x = g.pick()
    low, high = g.one((-0.5, 0.7), (0.0, 6.0), (None, 0.4), (-0.2, None))
    g.add(
        "Clip", [x, "" if low is None else g.constant(F(low)), "" if high is None else g.constant(F(high))], g.shapes[x]
    )


def binary(g: Graph):
    x = g.pick()
    shape, op = g.shapes[x], g.one("Add", "Sub", "Mul", "Max", "Min")
    others = [n for n, s in g.shapes.items() if s == shape and n != x]
    if others and g.rng.random() < 0.7:
        g.add(op, [x, str(g.rng.choice(others))], shape)
        return
    small = tuple(d if g.rng.random() < 0.5 else 1 for d in shape)[g.whole(0, len(shape)) :]
    operands = [x, g.constant(g.normal(*small, scale=1.0))]
    g.add(op, operands if g.rng.random() < 0.7 else operands[::-1], shape)


def divide(g: Graph):
    x = g.pick()
    g.add("Div", [x, g.constant(F(g.rng.uniform(0.3, 3)))], g.shapes[x])


def concat(g: Graph):
    x = g.pick()
    axis = g.whole(0, len(g.shapes[x]) - 1)
    same = [
        n
        for n, s in g.shapes.items()
        if len(s) == len(g.shapes[x]) and all(a == b for i, (a, b) in enumerate(zip(s, g.shapes[x])) if i != axis)
    ]
    parts = [x, *(str(n) for n in g.rng.choice(same, size=g.whole(1, 2)))]
    if g.rng.random() < 0.2:
        parts.append(g.constant(g.normal(*g.shapes[x])))
        g.shapes[parts[-1]] = g.shapes[x]
    total = sum(g.shapes[p][axis] for p in parts)
    g.shapes.pop(parts[-1]) if parts[-1] in g.constants else None
    g.add("Concat", parts, (*g.shapes[x][:axis], total, *g.shapes[x][axis + 1 :]), axis=axis)


def slice_(g: Graph):
    x = g.pick()
    axis = g.whole(0, len(g.shapes[x]) - 1)
    size, step = g.shapes[x][axis], g.one(1, 1, 2, -1)
    begin, end = sorted((g.whole(0, size - 1), g.whole(1, size)))
    if begin == end:
        return
    taken = len(range(begin, end, abs(step)))
    bounds = (begin, end) if step > 0 else (end - 1, begin - 1 if begin else -size - 1)
    g.add(
        "Slice",
        [x, *(g.constant(np.array([v])) for v in (*bounds, axis, step))],
        (*g.shapes[x][:axis], taken, *g.shapes[x][axis + 1 :]),
    )


def transpose(g: Graph):
    x = g.pick()
    order = [int(a) for a in g.rng.permutation(len(g.shapes[x]))]
    g.add("Transpose", [x], [g.shapes[x][a] for a in order], perm=order)


def reshape(g: Graph):
    x = g.pick()
    shape, total = g.shapes[x], int(np.prod(g.shapes[x]))
    first = g.one(1, shape[0], shape[0] * (shape[1] if len(shape) > 1 else 1))
    g.add("Reshape", [x, g.constant(np.array([first, -1]))], (first, total // first))


def squeeze(g: Graph):
    x = g.pick()
    ones = [i for i, d in enumerate(g.shapes[x]) if d == 1]
    if ones and len(g.shapes[x]) > 2:
        axis = int(g.rng.choice(ones))
        g.add("Squeeze", [x, g.constant(np.array([axis]))], g.shapes[x][:axis] + g.shapes[x][axis + 1 :])
    elif len(g.shapes[x]) < 4:
        axis = g.whole(0, len(g.shapes[x]))
        g.add("Unsqueeze", [x, g.constant(np.array([axis]))], (*g.shapes[x][:axis], 1, *g.shapes[x][axis:]))


def pad(g: Graph):
    x = g.pick()
    mode = g.one("constant", "constant", "reflect", "edge")
    shape = g.shapes[x]
    most = [min(2, d - 1) if mode == "reflect" else 2 for d in shape]
    begins, ends = ([g.whole(0, m) if g.rng.random() < 0.5 else 0 for m in most] for _ in range(2))
    value = [g.constant(F(g.rng.normal()))] if mode == "constant" and g.rng.random() < 0.5 else []
    g.add(
        "Pad",
        [x, g.constant(np.array([*begins, *ends])), *value],
        [d + b + e for d, b, e in zip(shape, begins, ends)],
        mode=mode,
    )


def resize(g: Graph):
    if (x := g.pick(4)) is None:
        return
    n, c, h, w = g.shapes[x]
    size = (n, c, g.whole(1, min(2 * h, 16)), g.whole(1, min(2 * w, 16)))
    mode = g.one("nearest", "linear", "linear", "cubic")
    attributes = dict(
        mode=mode,
        coordinate_transformation_mode=g.one("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"),
    )
    if mode == "nearest":
        attributes |= dict(
            nearest_mode=g.one("round_prefer_floor", "floor", "ceil"),
            coordinate_transformation_mode=g.one("half_pixel", "asymmetric"),
        )
    g.add("Resize", [x, "", "", g.constant(np.array(size))], size, **attributes)


def depth_to_space(g: Graph):
    if (x := g.pick(4)) is None:
        return
    n, c, h, w = g.shapes[x]
    if c % 4 == 0:
        g.add("DepthToSpace", [x], (n, c // 4, 2 * h, 2 * w), blocksize=2, mode=g.one("DCR", "CRD"))
    elif h % 2 == 0 and w % 2 == 0:
        g.add("SpaceToDepth", [x], (n, 4 * c, h // 2, w // 2), blocksize=2)


def reduction(g: Graph):
    x = g.pick()
    shape = g.shapes[x]
    axes = sorted(
        int(a)
        for a in g.rng.choice(len(shape), size=g.whole(1, len(shape) - 1) if len(shape) > 1 else 1, replace=False)
    )
    keep = g.one(0, 1) if len(shape) - len(axes) >= 1 else 1
    left = [1 if i in axes else d for i, d in enumerate(shape) if keep or i not in axes]
    g.add(
        g.one("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"), [x, g.constant(np.array(axes))], left, keepdims=keep
    )


def softmax(g: Graph):
    x = g.pick()
    g.add("Softmax", [x], g.shapes[x], axis=g.one(-1, -1, g.whole(0, len(g.shapes[x]) - 1)))


def dense(g: Graph):
    if (x := g.pick(2, 3)) is None:
        return
    shape, out = g.shapes[x], g.whole(1, 6)
    if len(shape) == 2 and g.rng.random() < 0.5:
        turned = g.one(0, 1)
        w = g.constant(g.normal(out, shape[1]), 0) if turned else g.constant(g.normal(shape[1], out), 1)
        g.add("Gemm", [x, w, g.constant(g.normal(out))], (shape[0], out), transB=turned)
    else:
        g.add("MatMul", [x, g.constant(g.normal(shape[-1], out), 1)], (*shape[:-1], out))


def product(g: Graph):
    if (x := g.pick(2, 3)) is None:
        return
    fitting = [
        n
        for n, s in g.shapes.items()
        if len(s) == len(g.shapes[x]) and s[:-2] == g.shapes[x][:-2] and s[-2] == g.shapes[x][-1]
    ]
    if fitting:
        y = str(g.rng.choice(fitting))
        g.add("MatMul", [x, y], (*g.shapes[x][:-1], g.shapes[y][-1]))


def unit(g: Graph):
    x = g.pick()
    g.add("LpNormalization", [x], g.shapes[x], axis=g.whole(0, len(g.shapes[x]) - 1), p=g.one(2, 2, 1))


def batch_norm(g: Graph):
    if (x := g.pick(4)) is None:
        return
    c = g.shapes[x][1]
    g.add(
        "BatchNormalization",
        [x, *(g.constant(v) for v in (g.normal(c) + F(1), g.normal(c), g.normal(c), np.abs(g.normal(c)) + F(0.5)))],
        g.shapes[x],
    )


def prelu(g: Graph):
    if (x := g.pick(4)) is not None:
        g.add("PRelu", [x, g.constant(np.abs(g.normal(g.shapes[x][1], 1, 1)))], g.shapes[x])


def gather(g: Graph):
    x = g.pick()
    axis = g.whole(0, len(g.shapes[x]) - 1)
    index = g.rng.integers(-g.shapes[x][axis], g.shapes[x][axis], g.whole(1, 5))
    g.add("Gather", [x, g.constant(index)], (*g.shapes[x][:axis], len(index), *g.shapes[x][axis + 1 :]), axis=axis)


def expand(g: Graph):
    x = g.pick()
    if len(g.shapes[x]) <= 3 and int(np.prod(g.shapes[x])) < 200:
        shape = tuple(d if d > 1 else g.whole(1, 3) for d in g.shapes[x])
        g.add("Expand", [x, g.constant(np.array(shape))], shape)


PARTS = {
    conv: 5,
    conv_transpose: 1,
    pool: 3,
    global_pool: 1,
    unary: 5,
    clip: 1,
    binary: 5,
    divide: 1,
    concat: 3,
    slice_: 2,
    transpose: 2,
    reshape: 1,
    squeeze: 1,
    pad: 2,
    resize: 2,
    depth_to_space: 1,
    reduction: 2,
    softmax: 1,
    unit: 1,
    dense: 2,
    product: 1,
    batch_norm: 1,
    prelu: 1,
    gather: 1,
    expand: 1,
}


def random_graph(seed: int, size: int = 5) -> Graph:
    """A graph of about ``size`` operators on one or two inputs; the same for the same seed."""
    g = Graph(np.random.default_rng(seed))
    c = g.whole(1, 4)
    g.shapes["x"] = g.one(
        (1, c, g.whole(3, 9), g.whole(3, 9)),
        (1, c, g.whole(3, 9), g.whole(3, 9)),
        (g.whole(1, 4), g.whole(2, 8)),
        (1, g.whole(2, 5), g.whole(2, 8)),
    )
    if g.rng.random() < 0.3:
        g.shapes["z"] = g.shapes["x"]
    parts, weight = list(PARTS), np.array(list(PARTS.values()), float)
    while len(g.nodes) < size:
        parts[int(g.rng.choice(len(parts), p=weight / weight.sum()))](g)
        last = next(reversed(g.shapes.values()))
        if int(np.prod(last)) > 4000:
            break
    return g


def inputs_of(g: Graph) -> list[str]:
    """Inputs that something reads."""
    read = {i for n in g.nodes for i in n.input}
    return [n for n in ("x", "z") if n in g.shapes and n in read]


def outputs_of(g: Graph) -> list[str]:
    """Results nobody reads."""
    read = {i for n in g.nodes for i in n.input}
    return [n.output[0] for n in g.nodes if n.output[0] not in read]


def as_model(nodes, constants, inputs: dict, outputs) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "random",
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)


def float_model(g: Graph, outputs=None) -> onnx.ModelProto:
    return as_model(g.nodes, g.constants, {n: g.shapes[n] for n in inputs_of(g)}, outputs or outputs_of(g))


@dataclass
class Quantized:
    """A graph between quantizers. steps: the size of a step of each tensor that is quantized; chains: tensors that are
    not (read by one activation)."""

    nodes: list
    constants: dict
    steps: dict
    inputs: dict
    outputs: list

    def model(self, outputs=None) -> onnx.ModelProto:
        return as_model(self.nodes, self.constants, self.inputs, outputs or self.outputs)


_FUSED = ("Relu", "Clip", "LeakyRelu", "BatchNormalization")


def quantized(g: Graph, ranges: dict[str, tuple[float, float]]) -> Quantized:
    """Every float tensor between QuantizeLinear and DequantizeLinear over its range, weights stored in int8, per
    channel or tensor.

    A result that only one relu-like operator reads may stay float, as quantizers leave it. Tensors keep their names
    behind DequantizeLinear."""
    made, constants, steps = [], dict(g.constants), {}
    readers: dict[str, list] = {}
    for node in g.nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for name in inputs_of(g):
        _pair(made, constants, steps, f"{name}", f"{name}_d", ranges[name], g)
    real = {name: f"{name}_d" for name in inputs_of(g)}
    for node in g.nodes:
        own = onnx.NodeProto()
        own.CopyFrom(node)
        for i, name in enumerate(node.input):
            own.input[i] = _weight(made, constants, g, name) if name in g.weights else real.get(name, name)
        out = node.output[0]
        follow = readers.get(out, [])
        made.append(own)
        if len(follow) == 1 and follow[0].op_type in _FUSED and follow[0].input[0] == out and g.rng.random() < 0.6:
            continue
        own.output[0] = f"{out}_f"
        _pair(made, constants, steps, f"{out}_f", out, ranges[out], g)
    return Quantized(made, constants, steps, {n: g.shapes[n] for n in inputs_of(g)}, outputs_of(g))


def _pair(made, constants, steps, source: str, out: str, span, g: Graph) -> None:
    low, high = min(span[0], 0.0), max(span[1], 0.0)
    kind = g.one(np.int8, np.int8, np.uint8)
    limits = np.iinfo(kind)
    scale = F((high - low) / 255 or 1)
    constants[f"{out}_s"], constants[f"{out}_z"] = (
        scale,
        kind(np.clip(np.rint(limits.min - low / scale), limits.min, limits.max)),
    )
    made.append(helper.make_node("QuantizeLinear", [source, f"{out}_s", f"{out}_z"], [f"{out}_q"]))
    made.append(helper.make_node("DequantizeLinear", [f"{out}_q", f"{out}_s", f"{out}_z"], [out]))
    steps[out] = float(scale)


def _weight(made, constants, g: Graph, name: str) -> str:
    """A weight's DequantizeLinear; the float constant goes."""
    if f"{name}_d" in constants:
        return f"{name}_d"
    w, axis = g.constants[name], g.weights[name]
    several = bool(g.rng.integers(2))
    others = tuple(a for a in range(w.ndim) if a != axis)
    scale = np.maximum(np.abs(w).max(axis=others if several else None), 1e-6).astype(F) / F(127)
    shaped = scale.reshape([-1 if a == axis else 1 for a in range(w.ndim)]) if several else scale
    constants[f"{name}_q"], constants[f"{name}_s"] = np.rint(w / shaped).astype(np.int8), scale
    constants.pop(name, None)
    made.append(
        helper.make_node(
            "DequantizeLinear", [f"{name}_q", f"{name}_s"], [f"{name}_d"], **({"axis": axis} if several else {})
        )
    )
    return f"{name}_d"
