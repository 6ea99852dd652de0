"""A normal-form function taken apart into groups: the units between which a tensor is int8."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import relax

from tvm_ergo.relay_passes.support import extreme, linear, movement, rows, spatial  # noqa: F401  (their import registers the rules, in this order)
from tvm_ergo.relay_passes.support.elementwise import BinaryElementwise, Dominators, UnaryTable, tensor_operands
from tvm_ergo.relay_passes.support.rule import RULES, Group, Refused, Supported, make_group, short
from tvm_ergo.relay_passes.support.tables import ELEMENTWISE
from tvm_ergo.relay_passes.support.view import FunctionView

HOST_BY_DESIGN = ("relax.quantize", "relax.dequantize")
"""Float to int8 at the graph's inputs and back at its outputs; between groups they vanish."""


@dataclass(frozen=True)
class Analysis:
    """The groups the chip can run, in order of their outputs, and the bindings it cannot, with reasons.

    numbered: groups that give whole numbers (positions of extrema), which no quantization concerns."""

    view: FunctionView
    groups: tuple[Group, ...]
    refused: tuple[Refused, ...]
    numbered: tuple[Group, ...] = ()

    def group_of(self) -> dict[relax.Var, Group]:
        """From every member to its group (a `split` that feeds several groups: to the first)."""
        return {m: g for g in reversed(self.groups) for m in g.members}


def find_groups(func: relax.Function) -> list[Group]:
    """The groups of a normal-form function (float, or QDQ) that the chip can run, in order."""
    return list(analyse(func).groups)


def analyse(func: relax.Function | FunctionView) -> Analysis:
    """Groups and refusals of a normal-form function. Errors: ModelError if the function has no binding block."""
    view = func if isinstance(func, FunctionView) else FunctionView(func)
    found: list[Group] = []
    claimed: set[relax.Var] = set()
    for take in (_fixed_patterns, _two_tensor_elementwise, _cones):
        take(view, found, claimed)
    groups, refused, numbered = [], [], []
    for group in sorted(found, key=lambda g: view.position[g.output]):
        result = group.rule.check(group, view)
        if isinstance(result, Supported):
            (numbered if group.rule.numbers else groups).append(group)
        else:
            refused.append((view.position[group.output], result))
    for var in view.order:
        reason = _unmatched(view, var, claimed)
        if reason is not None:
            refused.append((view.position[var], reason))
    in_order = tuple(r for _, r in sorted(refused, key=lambda item: item[0]))
    return Analysis(view, tuple(groups), in_order, tuple(numbered))


def check(func: relax.Function | FunctionView, var: relax.Var) -> Supported | Refused:
    """Whether the chip can run the binding of ``var``, and if not, why and what to do."""
    analysis = analyse(func)
    for group in (*analysis.groups, *analysis.numbered):
        if var in group.members:
            return Supported(group)
    for refused in analysis.refused:
        if var in refused.members:
            return refused
    reason = "it computes nothing: a constant, a tuple, or the edge of the quantized network"
    return Refused(short(analysis.view.op(var)), str(var.name), reason, "none needed", (var,))


def _fixed_patterns(view, found, claimed) -> None:
    """Operators that are no elementwise ones, with what they absorb; products first, because they absorb a transpose
    before them, and vectors over their lengths, whose sums are no results."""
    first = [linear.MatMul, extreme.UnitVector, rows.ShareOfSum]
    rest = [r for r in RULES if r not in (*first, BinaryElementwise, UnaryTable)]
    for rules in (first, rest):
        _match_all(view, rules, found, claimed)


def _match_all(view, rules, found, claimed) -> None:
    for var in view.order:
        if var in claimed or view.const(var) is not None:
            continue
        for rule in rules:
            group = rule.match(view, var, claimed)
            if group is not None:
                found.append(group)
                claimed.update(group.members)
                break


def _two_tensor_elementwise(view, found, claimed) -> None:
    """Elementwise operators that really combine two tensors (x * sigmoid(x) does not)."""
    dominators = Dominators(view, claimed)
    for var in view.order:
        if var in claimed or view.const(var) is not None or view.op(var) not in ELEMENTWISE:
            continue
        tensors = tensor_operands(view, var)
        if tensors is not None and (len(tensors) == 1 or dominators.cone(var, claimed)):
            continue
        group = BinaryElementwise.match(view, var, claimed)
        if group is not None:
            found.append(group)
            claimed.update(group.members)


def _cones(view, found, claimed) -> None:
    """The rest of the elementwise operators, from the last to the first, each with all it can swallow."""
    dominators = Dominators(view, claimed)
    for var in reversed(view.order):
        if var in claimed or view.const(var) is not None:
            continue
        members = dominators.cone(var, claimed)
        if members is None and view.op(var) in ELEMENTWISE:
            members = {var}
        if members:
            group = make_group(UnaryTable, view, var, members, var)
            found.append(group)
            claimed.update(members)


def _unmatched(view: FunctionView, var, claimed) -> Refused | None:
    value = view.value[var]
    if var in claimed or view.const(var) is not None or view.op(var) in HOST_BY_DESIGN:
        return None
    if isinstance(value, (relax.Var, relax.Tuple, relax.TupleGetItem)):
        return None
    if view.op(var) == "relax.astype" and (value.args[0] in view.func.params or var in view.outputs):
        return None  # the type an input or output of the network has: converted where it is quantized
    if view.op(var) == "relax.split":
        return (
            None
            if view.users(var)
            else Refused("split", str(var.name), "none of its parts is used", "remove it", (var,))
        )
    return Refused(short(view.op(var)), str(var.name), "the chip has no such operator", _NO_OPERATOR, (var,))


_NO_OPERATOR = "it runs on the host CPU; see docs/supported_operators.md for operators that stay on the chip"
