"""Resize in the forms that TVM's importer and the chip read as ONNX means them.

Any Resize is, axis by axis, a matrix product (``resize_weights``). Where Relax's ``image.resize2d`` has a spelling of
the same matrix for two axes, that spelling stays, on the last two axes of a tensor of rank 4; other nearest neighbours
become Gather with constant indices, other interpolations MatMul with the constant matrix. Resizing a constant gives a
constant."""

from __future__ import annotations

import math

import numpy as np

from tvm_ergo.frontend.onnx_emitter import Emitter
from tvm_ergo.frontend.onnx_rules.resize_weights import Method, weights
from tvm_ergo.frontend.onnx_rules.view import View, given, place, texts
from tvm_ergo.relay_passes.interpreter_ops_nn import resize_taps
from tvm_ergo.target.errors import UnsupportedError

DONE = "tvm_ergo_exact"
"""Attribute of Resize nodes that are in their final form (the converter removes it)."""
_SPELLINGS = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "tf_half_pixel_for_nn")
_ROUNDINGS = ("floor", "round_prefer_floor", "round_prefer_ceil", "ceil")
_MOST = 1 << 26
"""Elements of a matrix along one axis (0.5 GB while it is made)."""
_SAME = 1e-6
"""Weights that differ by less are equal (float32 coordinates)."""


def rule(node, e: Emitter, view: View):
    """Errors: UnsupportedError for sizes, scales or regions computed at run time."""
    attributes = texts(node)
    if attributes.get(DONE):
        return False
    shape = view.need_shape(node)
    axes = [int(a) % len(shape) for a in attributes.get("axes", range(len(shape)))]
    scales, sizes = _geometry(node, view, shape, axes, attributes)
    _check_sizes(node, [(shape[a], n) for a, n in zip(axes, sizes)])
    plan = {}
    for i, axis in enumerate(axes):
        matrix, outside = weights(shape[axis], sizes[i], scales[i], _method(node, view, attributes, i, len(axes)))
        if sizes[i] != shape[axis] or not np.array_equal(matrix, np.eye(shape[axis])):
            plan[axis] = (matrix, outside)
    fill = attributes.get("extrapolation_value", 0.0)
    stored = view.array(node.input[0])
    if stored is not None:
        e.op("Identity", [e.constant("resized", _constant(stored, plan, fill))], "value", node.output[0])
        return None
    _emit(node, e, view, shape, plan, fill, attributes.get("mode", "nearest"))
    return None


def _check_sizes(node, pairs) -> None:
    """Errors: UnsupportedError before a matrix is made that no machine holds, and for sizes without elements."""
    for size, length in pairs:
        if not 0 < length <= _MOST // max(size, 1):
            raise UnsupportedError(
                "Resize to a size that is empty or too large",
                where=place(node),
                available=f"{size} to {length} elements along an axis",
                required=f"at least 1, and a product of both of at most {_MOST}",
                remedy="give an input whose size suits (--input-shape)",
            )


def _method(node, view: View, attributes: dict, index: int, count: int) -> Method:
    name = attributes.get("coordinate_transformation_mode", "half_pixel")
    region = (0.0, 1.0)
    if name == "tf_crop_and_resize":
        roi = view.need_array(node, 1, "regions")
        region = float(roi[index]), float(roi[count + index])
    return Method(
        attributes.get("mode", "nearest"),
        name,
        attributes.get("nearest_mode", "round_prefer_floor"),
        attributes.get("cubic_coeff_a", -0.75),
        bool(attributes.get("exclude_outside", 0)),
        bool(attributes.get("antialias", 0)),
        region,
    )


def _geometry(node, view: View, shape, axes, attributes) -> tuple[list[float], list[int]]:
    """Scale and size of every axis in ``axes``."""
    scales = view.need_array(node, 2, "scales") if given(node, 2) else np.zeros(0)
    if scales.size:
        return [float(s) for s in scales], [
            int(math.floor(np.float32(s) * np.float32(shape[a]))) for s, a in zip(scales, axes)
        ]
    if not given(node, 3):
        raise UnsupportedError(
            "Resize has neither scales nor sizes",
            where=place(node),
            remedy="export the model again with scales or sizes",
        )
    sizes = [int(s) for s in view.need_array(node, 3, "sizes")]
    policy = attributes.get("keep_aspect_ratio_policy", "stretch")
    ratios = [np.float32(s) / np.float32(shape[a]) for s, a in zip(sizes, axes)]
    if policy == "stretch":
        return [float(r) for r in ratios], sizes
    ratio = (min if policy == "not_larger" else max)(ratios)
    return [float(ratio)] * len(axes), [int(math.floor(ratio * np.float32(shape[a]) + np.float32(0.5))) for a in axes]


def _constant(array: np.ndarray, plan: dict, fill: float) -> np.ndarray:
    made = array.astype(np.float64)
    for axis, (matrix, _) in plan.items():
        made = np.moveaxis(np.tensordot(matrix, made, (1, axis)), 0, axis)
    for axis, (_, outside) in plan.items():
        np.moveaxis(made, axis, 0)[outside] = fill
    return made.astype(array.dtype)


def _emit(node, e: Emitter, view: View, shape, plan: dict, fill: float, mode: str) -> None:
    x, y, left = node.input[0], node.output[0], dict(plan)
    filled = any(outside.any() for _, outside in plan.values())
    spelled = not filled and _spelled(e, node, x, shape, plan, mode)
    if spelled:
        return
    for axis, (matrix, _) in left.items():
        x = _along(e, x, shape, axis, matrix, mode, view.dtype(node.input[0]))
        shape = (*shape[:axis], len(matrix), *shape[axis + 1 :])
    if filled:
        x = _fill(e, x, shape, plan, fill, view.dtype(node.input[0]))
    e.named("Identity", [x], f"{node.name or y}_end", y)


def _along(e: Emitter, x: str, shape, axis: int, matrix: np.ndarray, mode: str, dtype) -> str:
    """One axis through Gather or MatMul."""
    if mode == "nearest":
        return e.op(
            "Gather", [x, e.constant(f"index{axis}", matrix.argmax(axis=1).astype(np.int64))], f"axis{axis}", axis=axis
        )
    last = len(shape) - 1
    order = [*(a for a in range(len(shape)) if a != axis), axis]
    if axis != last:
        x = e.op("Transpose", [x], f"axis{axis}_last", perm=order)
    x = e.op(
        "MatMul",
        [x, e.constant(f"matrix{axis}", np.ascontiguousarray(matrix.T).astype(dtype or np.float32))],
        f"axis{axis}",
    )
    return (
        x
        if axis == last
        else e.op("Transpose", [x], f"axis{axis}_back", perm=[order.index(a) for a in range(len(shape))])
    )


def _fill(e: Emitter, x: str, shape, plan: dict, fill: float, dtype) -> str:
    keep = np.ones(shape, bool)
    for axis, (_, outside) in plan.items():
        np.moveaxis(keep, axis, 0)[outside] = False
    return e.op(
        "Where", [e.constant("inside", keep), x, e.constant("fill", np.array(fill, dtype or np.float32))], "filled"
    )


def spelling(plan: dict, shape, mode: str) -> tuple[str, str] | None:
    """``(coordinate mode, rounding)`` in which Relax's resize2d computes every matrix of ``plan``, or None."""
    if mode not in ("nearest", "linear"):
        return None
    method = "nearest_neighbor" if mode == "nearest" else "linear"
    for name in _SPELLINGS:
        for rounding in _ROUNDINGS if mode == "nearest" else ("",):
            if all(
                np.abs(_taps(shape[axis], len(m), method, name, rounding) - m).max() < _SAME
                for axis, (m, _) in plan.items()
            ):
                return name, rounding
    return None


def _taps(size: int, length: int, method: str, name: str, rounding: str) -> np.ndarray:
    """The matrix of Relax's resize2d along one axis."""
    low, high, weight = resize_taps(size, length, method, name, rounding)
    matrix, rows = np.zeros((length, size)), np.arange(length)
    np.add.at(matrix, (rows, low), 1 - weight)
    np.add.at(matrix, (rows, high), weight)
    return matrix


def _spelled(e: Emitter, node, x: str, shape, plan: dict, mode: str) -> bool:
    """One or two axes as a Resize of [N, C, H, W]; False if there is no spelling for it."""
    found = spelling(plan, shape, mode) if 1 <= len(plan) <= 2 else None
    if found is None:
        return False
    rank, name = len(shape), node.name or node.output[0]
    pair = sorted(plan)
    if len(pair) == 1:
        pair = (
            [pair[0] - 1, pair[0]] if pair[0] == rank - 1 and rank > 1 else [pair[0], pair[0] + 1] if rank > 1 else pair
        )
    others = [a for a in range(rank) if a not in pair]
    order = [*others, *pair]
    if order != list(range(rank)):
        x = e.op("Transpose", [x], "resized_last", perm=order)
    after = {a: len(plan[a][0]) if a in plan else shape[a] for a in range(rank)}
    outer = [shape[a] for a in others]
    lead = outer if len(outer) == 2 else [1, math.prod(outer)]
    flat = [*lead, *([1] * (2 - len(pair))), *(shape[a] for a in pair)]
    direct = flat == [shape[a] for a in order]
    if not direct:
        x = e.op("Reshape", [x, e.constant("as_picture", np.array(flat, np.int64))], "picture")
    sizes = e.constant("sizes", np.array([*lead, *([1] * (2 - len(pair))), *(after[a] for a in pair)], np.int64))
    last = direct and order == list(range(rank))
    rounding = {"nearest_mode": found[1]} if found[1] else {}
    x = e.named(
        "Resize",
        [x, "", "", sizes],
        name,
        node.output[0] if last else f"{e.prefix}_picture_resized",
        mode=mode,
        coordinate_transformation_mode=found[0],
        **rounding,
        **{DONE: 1},
    )
    if not direct:
        shape_after = e.constant("shape_after", np.array([after[a] for a in order], np.int64))
        x = e.op("Reshape", [x, shape_after], "unflattened", node.output[0] if order == list(range(rank)) else None)
    if order != list(range(rank)):
        e.op("Transpose", [x], "original_order", node.output[0], perm=[order.index(a) for a in range(rank)])
    return True
