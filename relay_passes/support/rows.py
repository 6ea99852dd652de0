"""Rules of operators on whole rows: running sums, the largest elements, logarithms of a softmax, shares of a sum; and
squared differences."""

from __future__ import annotations

from tvm import relax

from tvm_ergo.relay_passes.support.elementwise import Dominators, tensor_operands
from tvm_ergo.relay_passes.support.epilogue import absorb_clamps, scalar_const
from tvm_ergo.relay_passes.support.extreme import length_below, sum_along
from tvm_ergo.relay_passes.support.rule import Group, Kind, Rule, constraint, make_group, register
from tvm_ergo.relay_passes.support.spatial import SingleOp
from tvm_ergo.relay_passes.support.view import FunctionView, dtype_of, static_shape

MAX_RUN = 512
MAX_ROW = 2**14


@register
class CumulativeSum(SingleOp):
    """Running sum along one axis, each element with or without itself: a product with a triangular matrix of ones."""

    kind = Kind.POOL
    ops = ("cumsum",)
    runs_as = ("conv2d", "transpose", "reshape")
    clamps = True
    remedy = f"sum along one axis of at most {MAX_RUN} elements"

    @constraint
    def short_axis(group: Group, view: FunctionView) -> str | None:
        """It runs along one axis of at most 512 elements: the matrix has their square."""
        axis = view.value[group.root].attrs.axis
        if axis is None:
            return "it runs over the whole tensor as one row"
        length = static_shape(group.root)[int(axis)]
        return f"its axis has {length} elements" if length > MAX_RUN else None


@register
class LogSoftmax(SingleOp):
    """Logarithm of the softmax along one axis."""

    kind = Kind.SOFTMAX
    ops = ("nn.log_softmax",)
    runs_as = ("log_softmax", "transpose")
    remedy = "split the axis, or let the CPU take the logarithm"

    @constraint
    def short_axis(group: Group, view: FunctionView) -> str | None:
        """Its axis has fewer than 16,384 elements."""
        length = static_shape(group.root)[int(view.value[group.root].attrs.axis)]
        return f"its axis has {length} elements" if length >= MAX_ROW else None


class _Top(Rule):
    """Base of both results of topk."""

    kind = Kind.POOL
    ops = ("topk",)
    runs_as = ("topk", "table", "transpose")
    remedy = "let it read a tensor in 8 bits whose axis has fewer than 16,384 elements"
    number, alone = 0, "values"

    @classmethod
    def match(cls, view, root, claimed):
        part = view.value[root]
        if isinstance(part, relax.TupleGetItem) and isinstance(part.tuple_value, relax.Var):
            source = part.tuple_value
            if view.op(source) != "relax.topk" or int(part.index) != cls.number:
                return None
            return make_group(cls, view, source, [source, root], root)
        if view.op(root) == "relax.topk" and str(part.attrs.ret_type) == cls.alone:
            return make_group(cls, view, root, [root])
        return None

    @constraint
    def short_axis(group: Group, view: FunctionView) -> str | None:
        """Its axis has fewer than 16,384 elements."""
        axis, shape = int(view.value[group.root].attrs.axis), static_shape(group.inputs[0]) if group.inputs else None
        if shape is None:
            return "it depends on constants only"
        return f"its axis has {shape[axis]} elements" if shape[axis] >= MAX_ROW else None


@register
class TopValues(_Top):
    """The k largest or least elements along one axis, in order."""

    carries = True


@register
class TopPositions(_Top):
    """Where the k largest or least elements along one axis stand, of equal ones the first before; int32 or int64."""

    numbers = True
    number, alone = 1, "indices"

    @constraint
    def float_tensors(group: Group, view: FunctionView) -> str | None:
        """It reads a float32 tensor, int8 on the chip."""
        wrong = [v for v in group.inputs if dtype_of(v) != "float32"]
        return f"{wrong[0].name} is {dtype_of(wrong[0])}" if wrong else None


@register
class ShareOfSum(Rule):
    """Elements over the sum of the magnitudes of their row along one axis (LpNormalization with p = 1, normalize)."""

    kind = Kind.POOL
    ops = ("divide",)
    runs_as = ("table", "pad", "softmax", "slice", "mul", "transpose")

    @classmethod
    def match(cls, view, root, claimed):
        found = sum_along(view, root, magnitudes=True)
        if found is None or claimed.intersection(found[2]):
            return None
        inside = set(found[2])
        leaks = any(m != root and (m in view.outputs or set(view.users(m)) - inside) for m in inside)
        return None if leaks else make_group(cls, view, root, found[2], root)

    @constraint
    def row_length(group: Group, view: FunctionView) -> str | None:
        """Its rows have fewer than 16,383 elements."""
        _, axis, _ = sum_along(view, group.root, magnitudes=True)
        return length_below(group, axis, MAX_ROW - 1)


@register
class SquaredDifference(Rule):
    """Square of the difference of two tensors, with broadcasting, with relu, relu6 or clip."""

    kind = Kind.BINARY
    ops = ("square", "multiply", "power")
    runs_as = ("add_wide", "rotate", "reshape")

    @classmethod
    def match(cls, view, root, claimed):
        difference = squared_difference(view, root)
        if difference is None or claimed.intersection((root, difference)):
            return None
        tensors = tensor_operands(view, difference)
        if tensors is not None and (len(tensors) == 1 or Dominators(view, claimed).cone(difference, claimed)):
            return None  # of one tensor: a table
        return make_group(cls, view, root, absorb_clamps(view, [difference, root], claimed))


def squared_difference(view: FunctionView, root: relax.Var) -> relax.Var | None:
    """The difference of which ``root`` is the square, where nothing else reads it."""
    name = view.op(root).removeprefix("relax.")
    if name not in SquaredDifference.ops:
        return None
    args = view.value[root].args
    if name == "multiply" and args[1] != args[0] or name == "power" and scalar_const(view, args[1]) != 2:
        return None
    found = args[0]
    if not isinstance(found, relax.Var) or view.op(found) != "relax.subtract" or view.only_user(found) != root:
        return None
    return found
