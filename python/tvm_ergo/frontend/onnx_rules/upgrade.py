"""Operators of opsets before 13 in the spelling of opset 13, so that everything behind knows one spelling.

What each old operator means: ONNX's Changelog.md. Where the old text leaves a choice (nearest of Resize-10 when
shrinking) ONNX Runtime's is taken."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from tvm_ergo.frontend.onnx_emitter import Emitter
from tvm_ergo.frontend.onnx_rules.view import ONNX_DOMAINS, View, apply_rules, given, opset_of, place, texts
from tvm_ergo.target.errors import UnsupportedError

OPSET = 13
_BROADCASTING = ("Add", "Sub", "Mul", "Div", "And", "Or", "Xor", "Greater", "Less", "Equal", "Pow")


def upgrade(model: onnx.ModelProto) -> None:
    """Bring ``model`` to opset 13 in place; newer models stay. Errors: UnsupportedError naming a node with no
    counterpart."""
    if opset_of(model) >= OPSET:
        return
    _upgrade_graph(model, opset_of(model))
    kept = [o for o in model.opset_import if o.domain not in ONNX_DOMAINS]
    del model.opset_import[:]
    model.opset_import.extend([helper.make_opsetid("", OPSET), *kept])
    model.ir_version = max(model.ir_version, 7)


def _upgrade_graph(model: onnx.ModelProto, opset: int) -> None:
    view = View(model)
    for node in model.graph.node:
        _plain(node, opset)
        for attribute in node.attribute:
            if (
                attribute.type == onnx.AttributeProto.GRAPH
            ):  # a branch: ranks inside it are looked up in what ONNX infers for it
                inner = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
                inner.graph.CopyFrom(attribute.g)
                _upgrade_graph(inner, opset)
                attribute.g.CopyFrom(inner.graph)
    apply_rules(model, lambda node: _rule(node, opset), view)


def _plain(node: onnx.NodeProto, opset: int) -> None:
    """What changes only in attributes: those of the first opsets that steered memory, and defaults that changed."""
    names = {a.name for a in node.attribute}
    dropped = {"consumed_inputs"} if opset < 6 else set()
    if opset < 7 and node.op_type == "Gemm":
        dropped.add("broadcast")
    if opset < 7 and node.op_type in ("LSTM", "GRU", "RNN"):
        dropped.add("output_sequence")
    if opset < 4 and node.op_type == "Concat" and "axis" not in names:
        node.attribute.append(helper.make_attribute("axis", 1))
    if opset < 6 and node.op_type == "Selu":
        node.attribute.extend(
            helper.make_attribute(n, v) for n, v in (("alpha", 1.6732), ("gamma", 1.0507)) if n not in names
        )
    if opset < 6 and node.op_type == "Cast":
        to = next(a for a in node.attribute if a.name == "to")
        if to.type == onnx.AttributeProto.STRING:
            to.CopyFrom(helper.make_attribute("to", onnx.TensorProto.DataType.Value(to.s.decode().upper())))
    if opset < 2 and node.op_type in ("LpPool", "GlobalLpPool"):
        p = next((a for a in node.attribute if a.name == "p" and a.type == onnx.AttributeProto.FLOAT), None)
        if p is not None:
            p.CopyFrom(helper.make_attribute("p", int(p.f)))
    kept = [a for a in node.attribute if a.name not in dropped]
    del node.attribute[:]
    node.attribute.extend(kept)


def _rule(node: onnx.NodeProto, opset: int):
    if node.domain not in ONNX_DOMAINS:
        return None
    if opset < 7 and node.op_type in _BROADCASTING:
        return _broadcast
    before, rule = _RULES.get(node.op_type, (0, None))
    return (lambda n, e, v: rule(n, e, v, opset)) if opset < before else None


def _ints(e: Emitter, name: str, values) -> str:
    return e.constant(name, np.array(values, np.int64))


def _again(node: onnx.NodeProto, e: Emitter, inputs, kind: str = "", **attributes) -> None:
    """The node with other inputs and attributes, its name and outputs kept."""
    e.nodes.append(helper.make_node(kind or node.op_type, inputs, node.output, name=node.name, **attributes))


def _slice(node, e, view, opset):
    a = texts(node)
    axes = a.get("axes", range(len(a["starts"])))
    _again(
        node,
        e,
        [node.input[0], _ints(e, "starts", a["starts"]), _ints(e, "ends", a["ends"]), _ints(e, "axes", list(axes))],
    )


def _scalar(e: Emitter, view: View, node, name: str, value: float) -> str:
    return e.constant(name, np.array(value, view.dtype(node.input[0]) or np.float32))


def _clip(node, e, view, opset):
    a = texts(node)
    bounds = [_scalar(e, view, node, name, a[name]) if name in a else "" for name in ("min", "max")]
    _again(node, e, [node.input[0], *bounds])


def _pad(node, e, view, opset):
    a = texts(node)
    pads = a.get("pads", a.get("paddings"))
    _again(
        node,
        e,
        [node.input[0], _ints(e, "pads", pads), _scalar(e, view, node, "value", a.get("value", 0.0))],
        mode=a.get("mode", "constant"),
    )


def _top_k(node, e, view, opset):
    a = texts(node)
    k = given(node, 1) or _ints(e, "k", [a.pop("k")])
    _again(node, e, [node.input[0], k], axis=a.get("axis", -1))


def _axes_to_input(node, e, view, opset):
    a = texts(node)
    axes = a.pop("axes", None)
    _again(node, e, [node.input[0]] if axes is None else [node.input[0], _ints(e, "axes", axes)], **a)


def _split(node, e, view, opset):
    a = texts(node)
    parts = a.pop("split", None)
    _again(node, e, [node.input[0], _ints(e, "split", parts)] if parts is not None else node.input[:2], **a)


def _flat_softmax(node, e, view, opset):
    """Before opset 13 all axes from ``axis`` on were one."""
    axis, rank, x = texts(node).get("axis", 1), view.rank(node.input[0]), node.input[0]
    if rank is not None and axis % rank == rank - 1:
        _again(node, e, [x], axis=-1)
        return
    flat = e.op("Flatten", [x], "flat", axis=axis if rank is None else axis % rank)  # right for any rank
    made = e.op(node.op_type, [flat], "flat_result", axis=-1)
    _again(node, e, [made, e.op("Shape", [x], "shape")], "Reshape")


def _upsample(node, e, view, opset):
    a = texts(node)
    scales = given(node, 1)
    if not scales:
        values = a["scales"] if "scales" in a else [1.0, 1.0, a["height_scale"], a["width_scale"]]
        scales = e.constant("scales", np.array(values, np.float32))
    mode = {"bilinear": "linear"}.get(a.get("mode", "nearest"), a.get("mode", "nearest"))
    _scaled(node, e, view, scales, mode)


def _resize(node, e, view, opset):
    if opset < 11:
        _scaled(node, e, view, node.input[1], texts(node).get("mode", "nearest"))
        return None
    return False


def _scaled(node, e: Emitter, view: View, scales: str, mode: str) -> None:
    """Resize with scales only: corners meet; nearest rounds down when growing, up when shrinking (ONNX Runtime)."""
    common = dict(mode=mode, coordinate_transformation_mode="asymmetric")
    values = view.array(scales)
    values = values if values is not None else next((np.array(t) for t in _emitted(e, scales)), None)
    if mode != "nearest" or values is None or not (values < 1).any():
        _again(node, e, [node.input[0], "", scales], "Resize", nearest_mode="floor", **common)
        return
    x = node.input[0]
    if (values > 1).any():
        grown = e.constant("scales_up", np.maximum(values, 1).astype(np.float32))
        x = e.op("Resize", [x, "", grown], "grown", nearest_mode="floor", **common)
    shrunk = e.constant("scales_down", np.minimum(values, 1).astype(np.float32))
    _again(node, e, [x, "", shrunk], "Resize", nearest_mode="ceil", **common)


def _emitted(e: Emitter, name: str):
    from onnx import numpy_helper

    return [numpy_helper.to_array(t) for t in e.initializers if t.name == name]


def _dropout(node, e, view, opset):
    """Dropout in inference passes its input on (its ratio has no meaning then)."""
    _again(node, e, [node.input[0]])


def _batch_normalization(node, e, view, opset):
    a = texts(node)
    if a.pop("spatial", 1) == 0:
        raise UnsupportedError(
            "BatchNormalization with statistics per element (spatial=0) is not supported",
            where=place(node),
            remedy="write it as a multiplication and an addition, or normalize per channel",
        )
    if opset < 7 and not a.pop("is_test", 0):
        raise UnsupportedError(
            "batch normalization in training mode is not supported",
            where=place(node),
            available="is_test=0",
            remedy="export the model for inference (is_test=1)",
        )
    _again(node, e, node.input, epsilon=a.get("epsilon", 1e-5), momentum=a.get("momentum", 0.9))


def _broadcast(node, e: Emitter, view: View) -> None:
    """Before opset 7 the second operand was aligned at an axis of the first, by default at its end."""
    a = texts(node)
    x, y = node.input
    if a.get("broadcast", 0) and "axis" in a:
        ranks = view.rank(x), view.rank(y)
        if None in ranks:
            raise UnsupportedError(
                f"the ranks of the operands of {node.op_type} are not known",
                where=place(node),
                remedy="convert the model to opset 7 or newer",
            )
        missing = ranks[0] - a["axis"] % ranks[0] - ranks[1]
        if missing > 0:
            y = e.op("Unsqueeze", [y, _ints(e, "axes", list(range(ranks[1], ranks[1] + missing)))], "aligned")
    _again(node, e, [x, y])


def _prelu(node, e, view, opset):
    """Before opset 7 a slope of one axis went along the channels."""
    ranks = view.rank(node.input[0]), view.rank(node.input[1])
    if ranks[1] != 1 or ranks[0] is None or ranks[0] <= 2:
        return False
    slope = e.op("Unsqueeze", [node.input[1], _ints(e, "axes", list(range(1, ranks[0] - 1)))], "slope")
    _again(node, e, [node.input[0], slope])
    return None


def _reshape(node, e, view, opset):
    a = texts(node)
    _again(node, e, [node.input[0], _ints(e, "shape", a["shape"])] if "shape" in a else node.input)


def _tile(node, e, view, opset):
    tiles, axis, rank = view.array(given(node, 1)), view.array(given(node, 2)), view.rank(node.input[0])
    if tiles is None or axis is None or rank is None:
        raise UnsupportedError(
            "Tile of opset 1 with computed counts is not supported",
            where=place(node),
            remedy="convert the model to opset 6 or newer",
        )
    repeats = [1] * rank
    repeats[int(axis.reshape(-1)[0])] = int(tiles.reshape(-1)[0])
    _again(node, e, [node.input[0], _ints(e, "repeats", repeats)])


def _scatter(node, e, view, opset):
    _again(node, e, node.input, "ScatterElements", **texts(node))


_RULES = {
    "Slice": (10, _slice),
    "Clip": (11, _clip),
    "Pad": (11, _pad),
    "TopK": (11, _top_k),
    "Squeeze": (13, _axes_to_input),
    "Unsqueeze": (13, _axes_to_input),
    "ReduceSum": (13, _axes_to_input),
    "Split": (13, _split),
    "Softmax": (13, _flat_softmax),
    "LogSoftmax": (13, _flat_softmax),
    "Hardmax": (13, _flat_softmax),
    "Upsample": (10, _upsample),
    "Resize": (11, _resize),
    "Dropout": (12, _dropout),
    "BatchNormalization": (9, _batch_normalization),
    "PRelu": (7, _prelu),
    "Reshape": (5, _reshape),
    "Tile": (6, _tile),
    "Scatter": (11, _scatter),
}
"""Operator -> the first opset in which it has today's form, and what brings an older one there."""
