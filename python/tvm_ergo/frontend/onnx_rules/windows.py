"""Windows in one spelling: automatic padding as numbers, a padding with minus infinity in front of a maximum as the
pooling's own."""

from __future__ import annotations

import numpy as np
from onnx import helper

from tvm_ergo.frontend.onnx_emitter import Emitter
from tvm_ergo.frontend.onnx_rules import spelling
from tvm_ergo.frontend.onnx_rules.view import View, given, place, texts
from tvm_ergo.target.errors import UnsupportedError

WINDOWED = ("Conv", "MaxPool", "AveragePool", "LpPool", "ConvTranspose", "ConvInteger", "QLinearConv")
_NOTHING_BELOW = -3.0e38
"""Paddings from here down lose against every float32 that occurs."""


def auto_pad(node, e: Emitter, view: View):
    """SAME_UPPER, SAME_LOWER and VALID as pads (of a transposed convolution: as output_shape)."""
    a = texts(node)
    mode = a.pop("auto_pad", "NOTSET")
    if mode == "NOTSET":
        return False
    if mode not in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        raise UnsupportedError(
            f"auto_pad {mode!r} is not known",
            where=place(node),
            required="NOTSET, SAME_UPPER, SAME_LOWER or VALID",
            remedy="export the model with one of these, or with pads",
        )
    shape = view.need_shape(node)
    weight = {"QLinearConv": 3}.get(node.op_type, 1)
    kernel = a.get("kernel_shape") or view.need_shape(node, weight)[2:]
    spatial = shape[2:]
    strides, dilations = a.get("strides", [1] * len(spatial)), a.get("dilations", [1] * len(spatial))
    if node.op_type == "ConvTranspose":
        if mode == "VALID":
            a["pads"] = [0] * (2 * len(spatial))
        elif "output_shape" not in a:
            a["output_shape"] = [n * s for n, s in zip(spatial, strides)]
        if mode != "VALID":
            a["auto_pad"] = mode
        return _again(node, e, a) if mode == "VALID" or "output_shape" not in texts(node) else False
    a["pads"] = same_pads(spatial, kernel, strides, dilations, mode) if mode != "VALID" else [0] * (2 * len(spatial))
    if mode != "VALID":
        a.pop("ceil_mode", None)  # the output size is given: input over stride, rounded up
    return _again(node, e, a)


def same_pads(spatial, kernel, strides, dilations, mode: str) -> list[int]:
    """Begin and end padding per axis so that the output is the input over the stride, rounded up; an odd row goes to
    the named side."""
    begins, ends = [], []
    for size, k, stride, d in zip(spatial, kernel, strides, dilations):
        total = max((-(-size // stride) - 1) * stride + (k - 1) * d + 1 - size, 0)
        begins.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
        ends.append(total - begins[-1])
    return [*begins, *ends]


def _again(node, e: Emitter, attributes: dict):
    e.nodes.append(
        helper.make_node(node.op_type, node.input, node.output, name=node.name, domain=node.domain, **attributes)
    )


def lp_pool(node, e: Emitter, view: View):
    automatic = auto_pad(node, e, view)
    return spelling.lp_pool(node, e, view) if automatic is False else automatic


def max_pool(node, e: Emitter, view: View):
    """Pad with the least value, then MaxPool: the pooling's own padding, which never wins."""
    spelling.no_indices(node, e, view)
    if texts(node).get("auto_pad", "NOTSET") != "NOTSET":
        return auto_pad(node, e, view)
    pad = view.producer.get(node.input[0])
    if pad is None or pad.op_type != "Pad" or texts(pad).get("mode", "constant") != "constant" or not given(pad, 2):
        return False
    value, pads = view.array(pad.input[2]), view.array(pad.input[1])
    rank = view.rank(pad.input[0])
    if (
        value is None
        or pads is None
        or rank is None
        or given(pad, 3)
        or len(pads) != 2 * rank
        or not value.reshape(-1)[0] <= _NOTHING_BELOW
    ):
        return False
    a = texts(node)
    kernel, own = a["kernel_shape"], a.get("pads", [0] * (2 * (rank - 2)))
    window = [(k - 1) * d + 1 for k, d in zip(kernel, a.get("dilations", [1] * len(kernel)))]
    begins, ends = pads[:rank], pads[rank:]
    total = [int(p) + int(o) for p, o in zip([*begins[2:], *ends[2:]], own)]
    inside = all(0 <= p < w for p, w in zip(total, window * 2))
    if any(begins[:2]) or any(ends[:2]) or min(pads) < 0 or not inside:
        return False
    e.nodes.append(helper.make_node("MaxPool", [pad.input[0]], node.output, name=node.name, **{**a, "pads": total}))
    return None


def pad(node, e: Emitter, view: View):
    """Axes spelled out, negative paddings as a slice."""
    if view.array(given(node, 1)) is None:
        return False
    shape = view.shape(node.input[0])
    pads = [int(p) for p in view.array(node.input[1])]
    if given(node, 3):
        axes = view.need_array(node, 3, "axes")
        if view.rank(node.input[0]) is None:
            view.need_shape(node)
        rank = view.rank(node.input[0])
        full = [0] * (2 * rank)
        for i, axis in enumerate(int(a) % rank for a in axes):
            full[axis], full[rank + axis] = pads[i], pads[len(axes) + i]
        pads = full
    elif min(pads, default=0) >= 0:
        return False
    x, inputs = node.input[0], list(node.input[:3])
    if min(pads) < 0:
        if texts(node).get("mode", "constant") != "constant" or shape is None:
            raise UnsupportedError(
                "Pad that crops in a mode other than constant is not supported",
                where=place(node),
                remedy="slice before padding",
            )
        rank = len(shape)
        bounds = [(max(-pads[i], 0), shape[i] - max(-pads[rank + i], 0)) for i in range(rank)]
        x = e.op(
            "Slice",
            [
                x,
                *(
                    e.constant(f"crop_{n}", np.array(v, np.int64))
                    for n, v in (
                        ("begin", [b for b, _ in bounds]),
                        ("end", [max(b, t) for b, t in bounds]),
                        ("axes", list(range(rank))),
                    )
                ),
            ],
            "cropped",
        )
    inputs[0], inputs[1] = x, e.constant("pads_of_all_axes", np.array([max(p, 0) for p in pads], np.int64))
    e.nodes.append(helper.make_node("Pad", inputs, node.output, name=node.name, **texts(node)))
    return None
