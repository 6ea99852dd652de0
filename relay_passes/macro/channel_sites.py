"""Where a net can compute on fewer channels: sets of tensors that one linear change of channels passes through.

Averages over pixels, reshapes that keep the channel axis, and sums of two tensors commute with any matrix applied to
the channels of every pixel, so what they join must share one matrix (a residual stream of linear bottlenecks does). At
the ends of such a set stand its writers and its readers. Readers have to be linear and ungrouped: their weights absorb
the expansion. A writer that is linear and has no clamp absorbs the projection as well; behind any other one a 1x1
convolution is inserted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes.relax_utils import Call, Constant, array_of, op_name
from tvm_ergo.relay_passes.support import FunctionView, Group, Kind, analyse
from tvm_ergo.relay_passes.support.epilogue import Bounds
from tvm_ergo.relay_passes.support.spatial import reduced_axes
from tvm_ergo.relay_passes.support.view import static_shape

AVERAGES = ("nn.avg_pool2d", "nn.adaptive_avg_pool2d")
SUMS = ("mean", "sum")


@dataclass(frozen=True)
class Site:
    """Tensors [..., C] that share one projection.

    tensors: all of them, in order. absorbing: linear groups that write one and take the projection into weights and
    bias. inserted: tensors behind which a product with the projection is put. readers: linear groups that take the
    expansion."""

    tensors: tuple[relax.Var, ...]
    absorbing: tuple[Group, ...]
    inserted: tuple[relax.Var, ...]
    readers: tuple[Group, ...]

    @property
    def name(self) -> str:
        """The name of the first tensor."""
        return self.tensors[0].name

    @property
    def channels(self) -> int:
        return static_shape(self.tensors[0])[-1]


@dataclass(frozen=True)
class Unprojectable:
    """A set of tensors that keeps its channels, and why."""

    tensors: tuple[str, ...]
    reason: str


def plain_weight(call: Call) -> np.ndarray | None:
    """Float weights of an ungrouped conv2d [O,kh,kw,C] or of a dense layer [C,N]; None for every other call."""
    if op_name(call) not in ("relax.nn.conv2d", "relax.matmul") or not isinstance(call.args[1], Constant):
        return None
    weight = array_of(call.args[1])
    if weight.dtype != np.float32:
        return None
    if op_name(call) == "relax.matmul":
        return weight if weight.ndim == 2 else None
    return weight if int(call.attrs.groups) == 1 and str(call.attrs.kernel_layout) == "OHWI" else None


def find_sites(func: relax.Function) -> tuple[tuple[Site, ...], tuple[Unprojectable, ...]]:
    """Every site of a float normal-form function, and what is none, with reasons; both in order of their first
    tensor."""
    analysis = analyse(func)
    view = analysis.view
    through = {g for g in analysis.groups if _commutes(view, g)}
    sets = _joined(view, analysis.groups, through)
    found = [_site(view, tensors, analysis.group_of(), through) for tensors in sets]
    return tuple(s for s in found if isinstance(s, Site)), tuple(s for s in found if isinstance(s, Unprojectable))


def _commutes(view: FunctionView, group: Group) -> bool:
    """Whether a group without clamp gives M y for every M y of its inputs, M acting on the channels of each pixel."""
    if len(group.members) != 1:
        return False
    shape, inputs = static_shape(group.output), [static_shape(v) for v in group.inputs]
    if group.op == "add" and group.kind is Kind.BINARY:
        return len(inputs) == 2 and all(s == shape for s in inputs)
    if len(inputs) != 1 or len(shape) < 2 or shape[-1] != inputs[0][-1]:
        return False
    if group.op in SUMS:
        return len(inputs[0]) - 1 not in reduced_axes(view.value[group.root], len(inputs[0]))
    return group.op in AVERAGES or group.op == "reshape"


def _joined(view: FunctionView, groups, through: set[Group]) -> list[tuple[relax.Var, ...]]:
    """The tensors between groups, those joined by ``through`` together."""
    parent: dict[relax.Var, relax.Var] = {v: v for g in groups for v in (*g.inputs, g.output)}

    def find(var):
        while parent[var] != var:
            var = parent[var]
        return var

    for group in through:
        for var in group.inputs:
            parent[find(var)] = find(group.output)
    sets: dict[relax.Var, list[relax.Var]] = {}
    for var in sorted(parent, key=lambda v: view.position.get(v, -1)):
        sets.setdefault(find(var), []).append(var)
    return [tuple(members) for members in sets.values()]


def _reading_bindings(view: FunctionView, var) -> list[relax.Var]:
    """The bindings that read ``var``, tuples followed."""
    found = []
    for user in view.users(var):
        found += _reading_bindings(view, user) if isinstance(view.value[user], relax.Tuple) else [user]
    return found


def _site(view: FunctionView, tensors, group_of, through) -> Site | Unprojectable:
    absorbing, inserted, readers = [], [], []

    def no(reason: str) -> Unprojectable:
        return Unprojectable(tuple(v.name for v in tensors), reason)

    for var in tensors:
        source = group_of.get(var)
        if source is None or source.output != var:
            return no(f"{var.name} is an input of the net, or computed on the host")
        if var in view.outputs:
            return no(f"{var.name} is an output of the net")
        if source.kind is Kind.MOVEMENT and source not in through and any(v not in group_of for v in source.inputs):
            return no(f"{var.name} is an input of the net, moved")
        if source not in through:
            (absorbing if _absorbs(view, source) else inserted).append(source)
        for user in dict.fromkeys(group_of.get(u) for u in _reading_bindings(view, var)):
            if user in through:
                continue
            if user is None or not _reads(view, user, var):
                return no(
                    f"{var.name} is read by {user.name if user else 'an operator on the host'}, which is not linear "
                    f"over all its channels"
                )
            readers.append(user)
    if not readers:
        return no("nothing reads it")
    return Site(tensors, tuple(absorbing), tuple(g.output for g in inserted), tuple(readers))


def _absorbs(view: FunctionView, group: Group) -> bool:
    """A linear layer with float weights and no clamp."""
    return (
        plain_weight(view.value[group.root]) is not None
        and group.kind is Kind.LINEAR
        and group.rule.parts(view, group).bounds == Bounds()
    )


def _reads(view: FunctionView, group: Group, var) -> bool:
    return (
        group.kind is Kind.LINEAR
        and plain_weight(view.value[group.root]) is not None
        and group.rule.parts(view, group).x == var
    )
