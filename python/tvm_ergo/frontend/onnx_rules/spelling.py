"""Standard operators at attribute values that TVM's importer drops or misreads, by operators it reads right."""

from __future__ import annotations

import numpy as np
from onnx import helper

from tvm_ergo.frontend.onnx_emitter import Emitter
from tvm_ergo.frontend.onnx_rules.view import View, given, place, texts
from tvm_ergo.target.errors import UnsupportedError


def _again(node, e: Emitter, inputs=None, attributes: dict | None = None):
    e.nodes.append(
        helper.make_node(
            node.op_type,
            inputs or node.input,
            node.output,
            name=node.name,
            domain=node.domain,
            **(texts(node) if attributes is None else attributes),
        )
    )


def _refuse(node, what: str, remedy: str):
    raise UnsupportedError(what, where=place(node), remedy=remedy)


def _wants_indices(node, view: View) -> bool:
    return any(name and (name in view.readers or name in view.outputs) for name in node.output[1:])


def no_indices(node, e: Emitter, view: View) -> None:
    """MaxPool's second output. Errors: UnsupportedError where somebody reads it."""
    if _wants_indices(node, view):
        _refuse(
            node,
            "MaxPool with a second output (indices) is not supported",
            "use the maxima only; unpooling has to be written as a resize",
        )


def lp_pool(node, e: Emitter, view: View):
    """Padding, dilation and partial windows as zeros around the input: they add nothing to a sum of powers."""
    a = texts(node)
    if not any(a.get("pads", ())) and not a.get("ceil_mode", 0):
        return False
    shape, kernel = view.need_shape(node), a["kernel_shape"]
    spatial = shape[2:]
    strides, dilations, pads = (
        a.get("strides", [1] * len(kernel)),
        a.get("dilations", [1] * len(kernel)),
        a.get("pads", [0] * (2 * len(kernel))),
    )
    half, ends = len(kernel), []
    for i, size in enumerate(spatial):
        window, padded = (kernel[i] - 1) * dilations[i] + 1, size + pads[i] + pads[half + i]
        steps = (padded - window) / strides[i]
        out = int(np.ceil(steps) if a.get("ceil_mode", 0) else np.floor(steps)) + 1
        if (out - 1) * strides[i] >= size + pads[i]:  # a window may not lie wholly behind the input
            out -= 1
        ends.append(max(pads[half + i], (out - 1) * strides[i] + window - size - pads[i]))
    width = np.array([0, 0, *pads[:half], 0, 0, *ends], np.int64)
    x = e.op("Pad", [node.input[0], e.constant("width", width)], "padded")
    _again(node, e, [x], {n: v for n, v in a.items() if n not in ("pads", "ceil_mode")})
    return None


def roi_align(node, e: Emitter, view: View):
    """The scale goes into the regions, where it belongs before the half pixel is taken off."""
    a = texts(node)
    if a.get("mode", "avg") == "max":
        _refuse(node, "RoiAlign of mode max is not supported", "use mode avg")
    scale = a.get("spatial_scale", 1.0)
    if scale == 1.0:
        return False
    rois = e.op(
        "Mul",
        [node.input[1], e.constant("scale", np.array(scale, view.dtype(node.input[1]) or np.float32))],
        "scaled_regions",
    )
    _again(node, e, [node.input[0], rois, *node.input[2:]], {**a, "spatial_scale": 1.0})
    return None


_OVER_NOTHING = {"ReduceL1": "Abs", "ReduceL2": "Abs", "ReduceLogSum": "Log", "ReduceSumSquare": "Mul"}


def reduce(node, e: Emitter, view: View):
    """Over no axes at all (noop_with_empty_axes): what the reduction does to each element."""
    axes = given(node, 1)
    empty = not axes or (view.array(axes) is not None and view.array(axes).size == 0)
    if not texts(node).get("noop_with_empty_axes", 0) or not empty:
        return False
    kind = _OVER_NOTHING.get(node.op_type, "Identity")
    e.named(kind, [node.input[0]] * (2 if kind == "Mul" else 1), node.name, node.output[0])
    return None


def top_k(node, e: Emitter, view: View):
    """Unsorted: any order will do, so a sorted one."""
    if texts(node).get("sorted", 1):
        return False
    _again(node, e, attributes={**texts(node), "sorted": 1})
    return None


def eye_like(node, e: Emitter, view: View):
    """A constant of its own element type."""
    a = texts(node)
    kind = helper.tensor_dtype_to_np_dtype(a["dtype"]) if "dtype" in a else view.dtype(node.input[0]) or np.float32
    rows, columns = view.need_shape(node)
    e.op("Identity", [e.constant("eye", np.eye(rows, columns, a.get("k", 0)).astype(kind))], "value", node.output[0])


def lrn(node, e: Emitter, view: View):
    if texts(node)["size"] % 2 == 0:
        _refuse(node, "LRN over an even number of channels is not supported", "use an odd size")
    return False


def compress(node, e: Emitter, view: View):
    """A known condition is a list of indices. Errors: UnsupportedError for one computed at run time."""
    condition = view.array(node.input[1])
    if condition is None:
        return data_dependent(node, e, view)
    x, axis = node.input[0], texts(node).get("axis")
    if axis is None:
        x = e.op("Reshape", [x, e.constant("flat", np.array([-1], np.int64))], "flattened")
    e.named(
        "Gather",
        [x, e.constant("chosen", np.flatnonzero(condition).astype(np.int64))],
        node.name,
        node.output[0],
        axis=axis or 0,
    )
    return None


def affine_grid(node, e: Emitter, view: View):
    """Points of a regular grid, as a constant, times theta: [N, D, H, W, 3] or [N, H, W, 2]."""
    size = [int(s) for s in view.need_array(node, 1, "sizes")]
    corners, spatial = texts(node).get("align_corners", 0), size[2:]
    lines = [np.linspace(-1, 1, n) if corners and n > 1 else (2 * np.arange(n) + 1) / n - 1 for n in spatial]
    points = np.stack([*reversed(np.meshgrid(*lines, indexing="ij")), np.ones(spatial)], axis=-1).reshape(
        1, -1, len(spatial) + 1
    )
    theta = e.op("Transpose", [node.input[0]], "theta", perm=[0, 2, 1])
    moved = e.op(
        "MatMul", [e.constant("points", points.astype(view.dtype(node.input[0]) or np.float32)), theta], "moved"
    )
    e.named(
        "Reshape",
        [moved, e.constant("shape", np.array([size[0], *spatial, len(spatial)], np.int64))],
        node.name,
        node.output[0],
    )


def data_dependent(node, e: Emitter, view: View):
    _refuse(
        node,
        f"the shape of {node.op_type}'s result depends on values computed at run time",
        "the chip's memory is planned before the first run: end the network before this operator, and do it in the "
        "application",
    )


RULES = {
    "RoiAlign": roi_align,
    "TopK": top_k,
    "EyeLike": eye_like,
    "LRN": lrn,
    "Compress": compress,
    "AffineGrid": affine_grid,
    "Unique": data_dependent,
    "NonZero": data_dependent,
    **dict.fromkeys(
        (
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceProd",
            "ReduceSum",
            "ReduceSumSquare",
        ),
        reduce,
    ),
}
