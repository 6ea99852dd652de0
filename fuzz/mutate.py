"""Changes of good inputs: bytes, JSON values, the parts of ONNX graphs. Each takes a ``random.Random`` and gives a new
value; nothing is changed in place."""

from __future__ import annotations

import random
import struct

NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    8,
    127,
    128,
    255,
    256,
    1 << 15,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    1 << 32,
    1 << 40,
    1 << 62,
    (1 << 63) - 1,
    -(1 << 31),
    -(1 << 63),
    1 << 80,
)
FLOATS = (0.0, -0.0, 0.5, -1.5, 1e-300, 1e300, 3.5e38, float("inf"), float("nan"))
TEXTS = ("", "x", "\x00", "\x1b[31m", "a" * 300, "../x", "int8", "float32", "NONE", "é\u202e", "[/b]")
VALUES = (None, True, False, *NUMBERS, *FLOATS[:6], *TEXTS, [], {}, [[]], [0], {"x": 1})


def some_bytes(rng: random.Random, data: bytes, other: bytes = b"") -> bytes:
    """One to four changes: bits, bytes, numbers of two to eight bytes, pieces cut, doubled, taken from another
    input."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(made) + 1)
        kind = rng.randrange(8)
        if kind == 0 and made:
            made[at % len(made)] ^= 1 << rng.randrange(8)
        elif kind == 1 and made:
            made[at % len(made)] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        elif kind == 2:
            size = rng.choice((2, 4, 8))
            made[at : at + size] = struct.pack("<Q", rng.choice(NUMBERS) % (1 << 64))[:size]
        elif kind == 3:
            del made[at : at + rng.choice((1, 2, 8, 64, len(made)))]
        elif kind == 4:
            piece = made[at : at + rng.choice((1, 4, 16, 64))]
            made[at:at] = piece * rng.choice((1, 1, 2, 8))
        elif kind == 5:
            made[at:at] = rng.randbytes(rng.choice((1, 2, 8, 32)))
        elif kind == 6 and other:
            start = rng.randrange(len(other))
            made[at : at + 32] = other[start : start + rng.choice((4, 32, 128))]
        elif made:
            made[at % len(made)] = (made[at % len(made)] + rng.choice((1, -1, 16, -16))) % 256
    return bytes(made)


def json_value(rng: random.Random, value):
    """The value with one to three of its places changed, removed, doubled or swapped."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = _one_place(rng, value)
    return value


def _one_place(rng: random.Random, value):
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.15:
        return _other(rng, value)
    if isinstance(value, dict):
        made, key = dict(value), rng.choice(list(value))
        kind = rng.randrange(8)
        if kind == 0:
            del made[key]
        elif kind == 1:
            made[rng.choice(TEXTS)] = made[key]
        elif kind == 2:
            made[key] = made[rng.choice(list(value))]
        else:
            made[key] = _one_place(rng, made[key])
        return made
    made, at = list(value), rng.randrange(len(value))
    kind = rng.randrange(8)
    if kind == 0:
        del made[at]
    elif kind == 1:
        made.insert(at, made[rng.randrange(len(made))])
    elif kind == 2:
        made[at] = made[rng.randrange(len(made))]
    else:
        made[at] = _one_place(rng, made[at])
    return made


def _other(rng: random.Random, value):
    if isinstance(value, bool) or value is None:
        return rng.choice(VALUES)
    if isinstance(value, int):
        return (
            rng.choice((value + 1, value - 1, -value, value * 2, *NUMBERS))
            if rng.random() < 0.8
            else rng.choice(VALUES)
        )
    if isinstance(value, float):
        return rng.choice((value * 2, -value, *FLOATS[:6])) if rng.random() < 0.8 else rng.choice(VALUES)
    if isinstance(value, str) and value and rng.random() < 0.5:
        at = rng.randrange(len(value))
        return value[:at] + rng.choice(("", "\x00", "A", "9", value[:8])) + value[at + 1 :]
    return rng.choice(VALUES)


def onnx_graph(rng: random.Random, model):
    """A copy of an ONNX model with one to three changes of its nodes, attributes, shapes and names."""
    made = type(model)()
    made.CopyFrom(model)
    for _ in range(rng.choice((1, 1, 2, 3))):
        _onnx_change(rng, made)
    return made


OPERATORS = (
    "Relu",
    "Add",
    "MatMul",
    "Conv",
    "Reshape",
    "Transpose",
    "Concat",
    "Expand",
    "ConstantOfShape",
    "Range",
    "Pad",
    "Resize",
    "Tile",
    "Slice",
    "Gather",
    "Split",
    "Squeeze",
    "ReduceMean",
    "Softmax",
    "Gemm",
    "MaxPool",
    "AveragePool",
    "Identity",
    "Cast",
    "OneHot",
    "Where",
    "Clip",
    "Shape",
    "LSTM",
    "BatchNormalization",
    "QuantizeLinear",
    "DequantizeLinear",
    "ConvTranspose",
    "Unsqueeze",
    "Flatten",
    "TopK",
    "ArgMax",
    "Einsum",
    "NonZero",
    "CumSum",
    "ScatterND",
    "GatherND",
    "If",
    "Loop",
    "Unknown",
)


def _onnx_change(rng: random.Random, model) -> None:
    graph = model.graph
    kind = rng.randrange(9)
    node = rng.choice(graph.node) if graph.node else None
    if kind == 0 and node:
        node.op_type = rng.choice(OPERATORS)
    elif kind == 1 and node and node.attribute:
        _attribute(rng, rng.choice(node.attribute))
    elif kind == 2 and node and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(
            [
                *(i.name for i in graph.input),
                *(t.name for t in graph.initializer),
                *(o for n in graph.node for o in n.output),
                "",
            ]
        )
    elif kind == 3 and graph.initializer:
        tensor = rng.choice(graph.initializer)
        if tensor.dims and rng.random() < 0.5:
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(NUMBERS[:19])
        elif tensor.raw_data:
            tensor.raw_data = some_bytes(rng, tensor.raw_data)[: len(tensor.raw_data)].ljust(
                len(tensor.raw_data), b"\0"
            )
        else:
            tensor.data_type = rng.randrange(25)
    elif kind == 4 and graph.input:
        dims = rng.choice(graph.input).type.tensor_type.shape.dim
        if dims:
            rng.choice(dims).dim_value = rng.choice(NUMBERS[:19])
    elif kind == 5 and node:
        del node.input[rng.randrange(len(node.input) + 1) :]
    elif kind == 6 and graph.node:
        graph.node.append(rng.choice(graph.node))
        graph.node[-1].output[0] = graph.output[0].name if rng.random() < 0.5 and graph.output else "fresh"
    elif kind == 7 and model.opset_import:
        model.opset_import[0].version = rng.choice((1, 5, 6, 7, 9, 10, 11, 13, 17, 18, 21, 99))
    elif node:
        del graph.node[rng.randrange(len(graph.node))]


def _attribute(rng: random.Random, attribute) -> None:
    if attribute.ints:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(NUMBERS[:21])
    elif attribute.type == 1:
        attribute.f = rng.choice(FLOATS)
    elif attribute.type == 2:
        attribute.i = rng.choice(NUMBERS[:21])
    elif attribute.type == 3:
        attribute.s = rng.choice(TEXTS).encode()
    else:
        attribute.name = rng.choice(("axis", "perm", "pads", "value", "to", "shape", "mode"))
