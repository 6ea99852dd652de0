"""Rules of operators on whole rows that give something else than a reduced tensor: positions of extrema, unit
vectors."""

from __future__ import annotations

import math

from tvm import relax

from tvm_ergo.relay_passes.support.epilogue import scalar_const
from tvm_ergo.relay_passes.support.rule import Group, Kind, Rule, constraint, make_group, register
from tvm_ergo.relay_passes.support.spatial import SingleOp, reduced_axes
from tvm_ergo.relay_passes.support.view import FunctionView, dtype_of, static_shape

MAX_POSITION = 2**24


@register
class ArgExtreme(SingleOp):
    """Position of the largest or least element along one axis, of equal ones the first; int32 or int64."""

    kind = Kind.POOL
    ops = ("argmax", "argmin")
    runs_as = ("argmax", "table", "transpose", "reshape")
    numbers = True
    remedy = "let it read a tensor in 8 bits"

    @classmethod
    def match(cls, view, root, claimed):
        """A cast of the positions to another integer type belongs to it."""
        if super().match(view, root, claimed) is None:
            return None
        members, user = [root], view.only_user(root)
        if user is not None and view.op(user) == "relax.astype" and dtype_of(user) in ("int32", "int64"):
            members.append(user)
        return make_group(cls, view, root, members)

    @constraint
    def float_tensors(group: Group, view: FunctionView) -> str | None:
        """It reads a float32 tensor, int8 on the chip."""
        wrong = [v for v in group.inputs if dtype_of(v) != "float32"]
        return f"{wrong[0].name} is {dtype_of(wrong[0])}" if wrong else None

    @constraint
    def static_shapes(group: Group, view: FunctionView) -> str | None:
        """Its input has a static shape of rank 1 to 6."""
        for var in group.inputs:
            shape = static_shape(var)
            if not shape or len(shape) > 6 or 0 in shape:
                return f"{var.name} has the shape {shape}"
        return None

    @constraint
    def one_axis(group: Group, view: FunctionView) -> str | None:
        """It runs along one axis of fewer than 2**24 elements."""
        axis = view.value[group.root].attrs.axis
        if axis is None:
            return "it runs over the whole tensor as one row"
        length = static_shape(group.inputs[0])[int(axis)] if group.inputs else 1
        return f"its axis has {length} elements" if length >= MAX_POSITION else None


@register
class UnitVector(Rule):
    """Vectors along one axis divided by their Euclidean length (L2_NORMALIZATION, LpNormalization, normalize)."""

    kind = Kind.POOL
    ops = ("divide",)
    runs_as = ("norm", "transpose")

    @classmethod
    def match(cls, view, root, claimed):
        found = unit_vector(view, root)
        if found is None or claimed.intersection(found[2]):
            return None
        inside = set(found[2])
        leaks = any(m != root and (m in view.outputs or set(view.users(m)) - inside) for m in inside)
        return None if leaks else make_group(cls, view, root, found[2], root)

    @constraint
    def row_length(group: Group, view: FunctionView) -> str | None:
        """Its vectors have fewer than 2**20 elements."""
        _, axis, _ = unit_vector(view, group.root)
        length = static_shape(group.output)[axis]
        return f"they have {length}" if length >= 2**20 else None


GUARD = 1e-2
"""The largest number below which a length may be taken for: it concerns vectors of nearly nothing."""


def length_below(group: Group, axis: int, limit: int) -> str | None:
    """Why rows of the output along ``axis`` are too long, if they are."""
    length = static_shape(group.output)[axis]
    return f"they have {length}" if length >= limit else None


def unit_vector(view: FunctionView, root: relax.Var) -> tuple[relax.Var, int, list[relax.Var]] | None:
    """``(x, axis, bindings)`` where ``root`` is x over the length of its vectors along ``axis``, else None."""
    return sum_along(view, root, magnitudes=False)


def sum_along(view: FunctionView, root: relax.Var, magnitudes: bool) -> tuple[relax.Var, int, list[relax.Var]] | None:
    """``(x, axis, bindings)`` where ``root`` is x over the root of the sum of its squares along ``axis`` (over the sum
    of its ``magnitudes``), else None."""
    if view.op(root) != "relax.divide":
        return None
    x, var = view.value[root].args
    members = [root]

    def step(expr, *ops):
        """The first argument of ``expr``'s binding, if that is one of ``ops``; the binding becomes a member."""
        if not isinstance(expr, relax.Var) or view.op(expr).removeprefix("relax.") not in ops:
            return None
        members.append(expr)
        return view.value[expr].args

    while (args := step(var, "maximum", "clip", "add", "broadcast_to")) is not None:
        if not _guards(view, var, args):
            return None
        var = args[0]
    if not magnitudes:
        root_of = step(var, "sqrt")
        var = root_of[0] if root_of is not None else None
    total = step(var, "sum")
    if total is None:
        return None
    call, shape = view.value[members[-1]], static_shape(x)
    if shape is None or not bool(call.attrs.keepdims) or len(axes := reduced_axes(call, len(shape))) != 1:
        return None
    parts = step(total[0], *(("abs",) if magnitudes else ("square", "multiply", "power")))
    if parts is None or parts[0] != x or not isinstance(x, relax.Var):
        return None
    name = view.op(members[-1]).removeprefix("relax.")
    if name == "multiply" and parts[1] != x or name == "power" and scalar_const(view, parts[1]) != 2:
        return None
    return x, axes[0], members


def _guards(view: FunctionView, var: relax.Var, args) -> bool:
    """Whether what is between divisor and root only keeps it from being nothing."""
    name = view.op(var).removeprefix("relax.")
    if name == "broadcast_to":
        return True
    bound = scalar_const(view, args[1])
    if bound is None or not 0 <= bound <= GUARD:
        return False
    return name != "clip" or math.isinf(high := scalar_const(view, args[2]) or 0.0) or high >= 1e9
