"""Rules of elementwise operators: of two tensors, and whole expressions of one tensor that become one table."""

from __future__ import annotations

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes.support.epilogue import absorb_clamps
from tvm_ergo.relay_passes.support.rule import Group, Kind, Rule, constraint, make_group, register
from tvm_ergo.relay_passes.support.tables import ELEMENTWISE, NARY, UNARY, WITH_ATTRS, evaluate
from tvm_ergo.relay_passes.support.view import FunctionView, dtype_of, op_name, scalar, static_shape, variables

_ELEMENTWISE = frozenset(ELEMENTWISE)


def constant_operand(view: FunctionView, call, arg, shape) -> np.ndarray | None:
    """A constant operand that a table can absorb: a number, or an array over the last axis of ``shape``; else None."""
    if scalar(arg) is not None:
        return np.float64(scalar(arg))
    const = view.const(arg)
    if const is None:
        return None
    if const.stored.size == 1:
        return const.real().reshape(())
    prelu_elsewhere = op_name(call) == "relax.nn.prelu" and int(call.attrs.axis) % len(shape) != len(shape) - 1
    if (
        prelu_elsewhere
        or const.stored.size != const.shape[-1]
        or const.shape[-1] != shape[-1]
        or len(const.shape) > len(shape)
    ):
        return None
    return const.real().reshape(-1)


def tensor_operands(view: FunctionView, var: relax.Var) -> list[relax.Var] | None:
    """The distinct tensors ``var``'s elementwise call reads, if all its other operands fit a table; else None."""
    if view.op(var) not in _ELEMENTWISE:
        return None
    call, shape, tensors = view.value[var], static_shape(var), []
    if not shape:
        return None
    for arg in call.args:
        if constant_operand(view, call, arg, shape) is not None:
            continue
        if not isinstance(arg, relax.Var) or view.const(arg) is not None or static_shape(arg) != shape:
            return None
        if arg not in tensors:
            tensors.append(arg)
    return tensors or None


class Dominators:
    """For each elementwise binding the closest tensor through which it depends on everything (its immediate dominator).

    The slow obvious form is: follow all operands back until one tensor is left. Claimed bindings end the search.
    """

    def __init__(self, view: FunctionView, claimed: set[relax.Var]):
        self.view, self.parent, self.depth = view, {}, {}
        for var in view.order:
            tensors = None if var in claimed else tensor_operands(view, var)
            parent = self._meet(tensors) if tensors else None
            if parent is not None:
                self.parent[var], self.depth[var] = parent, self.depth.get(parent, 0) + 1

    def _meet(self, tensors: list[relax.Var]) -> relax.Var | None:
        point = tensors[0]
        for other in tensors[1:]:
            while point is not None and point != other:
                if self.depth.get(point, 0) >= self.depth.get(other, 0):
                    point = self.parent.get(point)
                else:
                    other = self.parent.get(other)
                    if other is None:
                        return None
        return point

    def cone(self, root: relax.Var, claimed: set[relax.Var]) -> set[relax.Var] | None:
        """The largest set of bindings, ending in ``root``, that computes it from one float tensor and is read nowhere
        else.

        A binding that is read outside stays so however far the set grows upwards: the search ends at the first.
        """
        found: list[relax.Var] = []
        inside: set[relax.Var] = set()
        best, end, base = 0, root, self.parent.get(root)
        while base is not None:
            step = self._between(base, end)
            found += step
            inside |= step
            if step & claimed or any(self._read_outside(m, inside) for m in step - {root}):
                break
            if dtype_of(base) == "float32":
                best = len(found)
            end, base = base, self.parent.get(base)
        return set(found[:best]) or None

    def _between(self, base, end) -> set[relax.Var]:
        """``end`` and what lies on the ways from ``base`` to it; constants left out."""
        members, stack = {end}, [end]
        while stack:
            for source in variables(self.view.value[stack.pop()]):
                if source != base and source not in members and self.view.const(source) is None:
                    members.add(source)
                    stack.append(source)
        return members

    def _read_outside(self, var, inside: set[relax.Var]) -> bool:
        return var in self.view.outputs or any(user not in inside for user in self.view.users(var))


@register
class BinaryElementwise(Rule):
    """Sum, difference, product, maximum or minimum of two tensors (or of a tensor and a constant tensor), with
    broadcasting, with relu, relu6 or clip."""

    kind = Kind.BINARY
    ops = ("add", "subtract", "multiply", "divide", "maximum", "minimum")
    runs_as = ("add", "mul", "maximum", "minimum", "add_16", "mul_16")
    remedy = "divide by a constant, or multiply by the reciprocal"

    @classmethod
    def match(cls, view, root, claimed):
        if view.op(root) not in {f"relax.{op}" for op in cls.ops}:
            return None
        return make_group(cls, view, root, absorb_clamps(view, [root], claimed))

    @constraint
    def constant_divisor(group: Group, view: FunctionView) -> str | None:
        """A divisor is a constant tensor without zeros."""
        if group.op != "divide":
            return None
        divisor = view.const(view.value[group.root].args[1])
        if divisor is None:
            return "its divisor is computed at run time"
        return "its divisor contains zeros" if (divisor.real() == 0).any() else None

    @constraint
    def finite_constants(group: Group, view: FunctionView) -> str | None:
        """Constant tensors are finite."""
        for arg in view.value[group.root].args:
            const = view.const(arg)
            if const is not None and not np.isfinite(const.real()).all():
                return "a constant operand contains NaN or infinity"
        return None


@register
class UnaryTable(Rule):
    """Any expression of one tensor with numbers or per-channel constants (last axis): one 256-entry table,
    however many operators it has."""

    kind = Kind.TABLE
    ops = (*UNARY, *WITH_ATTRS, *NARY)
    runs_as = ("table", "table_16", "rescale_16")
    remedy = "make the other operands constants: numbers, or one value per channel of the last axis"

    @constraint
    def one_tensor(group: Group, view: FunctionView) -> str | None:
        """It depends on one tensor, of the output's shape; the other operands are numbers or vectors over the last
        axis."""
        if len(group.inputs) != 1 or any(tensor_operands(view, m) is None for m in group.members):
            return "it combines several tensors, or a tensor and constants that are neither numbers nor per channel"
        return None

    @classmethod
    def evaluate(cls, view: FunctionView, group: Group, codes: np.ndarray) -> np.ndarray:
        """The group's output for input values ``codes`` [256]: float32 [256], or [C, 256] where constants vary by
        channel.

        Every operator's result is rounded to float32, as the network's own arithmetic does: ``(1 - x) * -1e9`` with x a
        little above 1 in another precision would be 60 where it is 0."""
        known = {group.inputs[0]: np.asarray(codes, np.float32)}
        for member in group.members:
            call, shape = view.value[member], static_shape(member)
            args = []
            for arg in call.args:
                const = (
                    constant_operand(view, call, arg, shape)
                    if not isinstance(arg, relax.Var) or arg not in known
                    else None
                )
                args.append(known[arg] if const is None else const[:, None] if const.ndim else const)
            with np.errstate(over="ignore"):
                known[member] = evaluate(call, view.op(member), [np.asarray(a, np.float64) for a in args]).astype(
                    np.float32
                )
        return known[group.output]
