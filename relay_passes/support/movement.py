"""Rules of operators that move values and change none: scale and zero point pass through."""

from __future__ import annotations

import math

from tvm import relax

from tvm_ergo.relay_passes.support.rule import Group, Kind, Rule, constraint, make_group, register
from tvm_ergo.relay_passes.support.spatial import SingleOp
from tvm_ergo.relay_passes.support.view import FunctionView, static_shape


class MovementRule(SingleOp):
    """Base of the movements: one operator, no arithmetic."""

    kind = Kind.MOVEMENT
    copies = True
    carries = True


@register
class Reshape(MovementRule):
    """Reshape, flatten, squeeze and expand_dims (no work: the same bytes)."""

    ops = ("reshape", "flatten", "squeeze", "expand_dims", "nn.batch_flatten")
    runs_as = ("reshape",)


@register
class BroadcastTo(MovementRule):
    """Broadcast to a shape: a reshape where nothing is repeated, else each element read as often as it is wanted."""

    ops = ("broadcast_to",)
    runs_as = ("reshape", "resize2d")


@register
class Transpose(MovementRule):
    """Transpose (permute_dims) to any order of the axes."""

    ops = ("permute_dims",)
    runs_as = ("transpose",)


@register
class PixelShuffle(MovementRule):
    """Pixel shuffle (depth to space) of NCHW tensors; other depth-to-space forms are reshapes and transposes."""

    ops = ("nn.pixel_shuffle",)
    runs_as = ("reshape", "transpose")


@register
class StridedSlice(MovementRule):
    """Slice with constant bounds; with negative strides its elements are read by table."""

    ops = ("strided_slice",)
    runs_as = ("slice", "resize2d")
    remedy = "use constant bounds"

    @constraint
    def constant_bounds(group: Group, view: FunctionView) -> str | None:
        """Axes, bounds and strides are constants."""
        args = view.value[group.root].args
        if not all(isinstance(a, (relax.Tuple, relax.ShapeExpr)) for a in args[1:]):
            return "its bounds are computed at run time"
        return None


@register
class Flip(MovementRule):
    """Reversing along an axis: elements read by table."""

    ops = ("flip",)
    runs_as = ("resize2d",)


@register
class Take(MovementRule):
    """Take (gather) with constant indices along one axis: a slice where they are evenly spaced and rising, else
    elements read by table."""

    ops = ("take",)
    runs_as = ("slice", "resize2d", "reshape")
    remedy = "gather with constant indices; embeddings run on the host"

    @constraint
    def constant_indices(group: Group, view: FunctionView) -> str | None:
        """Its indices are constants inside one axis."""
        return (
            "its indices are computed at run time, or outside the axis" if take_indices(view, group) is None else None
        )


def take_indices(view: FunctionView, group: Group) -> tuple[int, list[int]] | None:
    """``(axis, indices)`` of a take, the indices in a row and not negative; None where they are not known."""
    call = view.value[group.root]
    const, shape = view.const(call.args[1]), static_shape(call.args[0])
    if const is None or const.stored.size == 0 or shape is None or call.attrs.axis is None:
        return None
    axis = int(call.attrs.axis) % len(shape)
    indices = [int(i) for i in const.stored.reshape(-1)]
    indices = [i + shape[axis] if i < 0 else i for i in indices]
    return (axis, indices) if 0 <= min(indices) and max(indices) < shape[axis] else None


def take_slice(view: FunctionView, group: Group) -> tuple[int, int, int, int] | None:
    """``(axis, begin, end, stride)`` of the slice that a take amounts to, or None."""
    axis, indices = take_indices(view, group)
    steps = {b - a for a, b in zip(indices, indices[1:])} or {1}
    stride = steps.pop()
    return None if steps or stride <= 0 else (axis, indices[0], indices[-1] + 1, stride)


@register
class Split(Rule):
    """Split into parts along one axis; each part is a slice."""

    kind = Kind.MOVEMENT
    copies = True
    ops = ("split",)
    runs_as = ("slice",)
    carries = True

    @classmethod
    def match(cls, view, root, claimed):
        part = view.value[root]
        if not isinstance(part, relax.TupleGetItem) or not isinstance(part.tuple_value, relax.Var):
            return None
        if view.op(part.tuple_value) != "relax.split":
            return None
        return make_group(cls, view, part.tuple_value, [part.tuple_value, root], root)


@register
class Concat(Rule):
    """Concatenation or stacking along any axis of tensors computed at run time or constant; inputs of another scale are
    rescaled first."""

    kind = Kind.MOVEMENT
    copies = True
    ops = ("concat", "stack")
    runs_as = ("concat", "reshape")
    carries = True

    @classmethod
    def match(cls, view, root, claimed):
        return make_group(cls, view, root, [root]) if view.op(root) in ("relax.concat", "relax.stack") else None

    @constraint
    def some_activation(group: Group, view: FunctionView) -> str | None:
        """At least one input is computed at run time."""
        return "it depends on constants only" if not group.inputs else None


PAD_INDICES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
"""Relax's name of a padding that repeats elements -> NumPy's."""


@register
class Pad(MovementRule):
    """Padding with a constant value, or with the tensor's own elements (reflected, the edge's, the other end's), which
    are read by table."""

    ops = ("nn.pad",)
    runs_as = ("pad", "resize2d")
    remedy = "pad with a constant"

    @constraint
    def known_mode(group: Group, view: FunctionView) -> str | None:
        """Its widths are not negative; a constant it pads with is finite."""
        attrs = view.value[group.root].attrs
        if str(attrs.pad_mode) not in ("constant", *PAD_INDICES):
            return f"its mode is {attrs.pad_mode}"
        if any(int(w) < 0 for w in attrs.pad_width):
            return "it crops"
        return "its value is not finite" if not math.isfinite(float(attrs.pad_value)) else None
