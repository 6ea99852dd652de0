"""Which channels of which tensors can be scaled together without changing the function.

A positive factor per channel passes through pooling, resizing, reshapes that keep the last axis, concatenation along
it, sums of two tensors, and relu. What it passes through joins channels: those of both summands and of the sum, those
of a concat's operand and its part of the result. A ``ChannelSet`` is a largest set of tensors joined in this way,
written by linear layers (whose weights take 1 / s per output channel) and read by linear layers (whose weights take s
per input channel) only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes.relax_utils import Call, op_name
from tvm_ergo.relay_passes.support import FunctionView, Group, Kind
from tvm_ergo.relay_passes.support.epilogue import Bounds, bounds_of
from tvm_ergo.relay_passes.support.spatial import reduced_axes
from tvm_ergo.relay_passes.support.view import static_shape

POOLS = ("nn.max_pool2d", "nn.avg_pool2d", "nn.adaptive_avg_pool2d", "image.resize2d")
REDUCTIONS = ("mean", "sum", "max", "min")


@dataclass(frozen=True)
class ChannelSet:
    """Tensors scaled together. ``index[tensor]`` [C]: the number of each of its channels in the set, 0..size-1.

    writers: linear groups whose output is in the set; readers: linear groups whose input is.
    inner: the tensors that carry a scale of their own (concat operands take that of the result).
    """

    index: Mapping[relax.Var, np.ndarray]
    writers: tuple[Group, ...]
    readers: tuple[Group, ...]
    inner: tuple[relax.Var, ...]

    @property
    def size(self) -> int:
        return 1 + max(int(i.max()) for i in self.index.values())


def is_depthwise(call: Call) -> bool:
    """One input channel and one output channel per group."""
    return (
        op_name(call) == "relax.nn.conv2d" and int(call.attrs.groups) == call.args[0].ty.shape[-1] == call.ty.shape[-1]
    )


def homogeneous(bounds: Bounds) -> bool:
    """Whether a clamp commutes with positive factors, or is a relu6, whose bound can be kept clear of
    (``equalize.MARGIN``)."""
    return bounds.low in (0.0, -math.inf) and bounds.high > 0


def can_write(view: FunctionView, group: Group) -> bool:
    return _plain_linear(view, group) and homogeneous(group.rule.parts(view, group).bounds)


def can_read(view: FunctionView, group: Group) -> bool:
    if not _plain_linear(view, group):
        return False
    call = view.value[group.root]
    return op_name(call) == "relax.matmul" or int(call.attrs.groups) == 1 or is_depthwise(call)


def _plain_linear(view: FunctionView, group: Group) -> bool:
    return group.kind is Kind.LINEAR and op_name(view.value[group.root]) != "relax.nn.conv2d_transpose"


def passes_through(view: FunctionView, group: Group) -> list[tuple[relax.Var, int]] | None:
    """``(input, first channel of the output it becomes)`` of a group that commutes with factors per channel, else
    None."""
    call, shape = view.value[group.root], static_shape(group.output)
    follow = group.members[group.members.index(group.root) :]
    bounds = bounds_of(view, follow)
    if group.kind is Kind.LINEAR or bounds.low not in (0.0, -math.inf) or math.isfinite(bounds.high):
        return None
    if group.op == "concat":
        operands = view.fields(call.args[0])
        if int(call.attrs.axis) % len(shape) != len(shape) - 1 or any(view.const(v) is not None for v in operands):
            return None
        sizes = [static_shape(v)[-1] for v in operands]
        return list(zip(operands, np.cumsum([0, *sizes[:-1]]).tolist()))
    if group.op == "add" and group.kind is Kind.BINARY:
        same = len(group.inputs) == 2 and all(static_shape(v) == shape for v in group.inputs)
        return [(v, 0) for v in group.inputs] if same else None
    if len(group.inputs) != 1 or static_shape(group.inputs[0])[-1] != shape[-1]:
        return None
    rank = len(static_shape(group.inputs[0]))
    over_pixels = group.op in REDUCTIONS and rank - 1 not in reduced_axes(call, rank)
    relu = group.op == "nn.relu" and len(group.members) == 1
    return [(group.inputs[0], 0)] if group.op in POOLS or group.op == "reshape" or over_pixels or relu else None


class _Sets:
    """Union-find over numbers."""

    def __init__(self):
        self.parent: list[int] = []

    def new(self, count: int) -> np.ndarray:
        begin = len(self.parent)
        self.parent += range(begin, begin + count)
        return np.arange(begin, begin + count)

    def find(self, item: int) -> int:
        while self.parent[item] != item:
            self.parent[item] = item = self.parent[self.parent[item]]
        return item

    def join(self, first, second) -> None:
        for a, b in zip(first, second):
            self.parent[self.find(int(b))] = self.find(int(a))


def channel_sets(view: FunctionView, groups) -> list[ChannelSet]:
    """Every set that has writers and readers, in order of their first tensor."""
    through = {g: p for g in groups if (p := passes_through(view, g)) is not None}
    group_of = {m: g for g in groups for m in g.members}
    channels, components = _Sets(), _Sets()
    tensors = dict.fromkeys(v for g in groups for v in (*g.inputs, g.output))
    ids = {v: channels.new(static_shape(v)[-1]) for v in tensors}
    number = {v: int(components.new(1)[0]) for v in tensors}
    for group, inputs in through.items():
        for var, begin in inputs:
            channels.join(ids[group.output][begin : begin + len(ids[var])], ids[var])
            components.join([number[group.output]], [number[var]])
    together: dict[int, list[relax.Var]] = {}
    for var in tensors:
        together.setdefault(components.find(number[var]), []).append(var)
    found = [_channel_set(view, members, group_of, through, ids, channels) for members in together.values()]
    return [s for s in found if s is not None]


def _readers(view: FunctionView, var) -> list[relax.Var]:
    """The bindings that read ``var``, tuples followed."""
    found = []
    for user in view.users(var):
        found += _readers(view, user) if isinstance(view.value[user], relax.Tuple) else [user]
    return found


def _channel_set(view, members, group_of, through, ids, channels) -> ChannelSet | None:
    """The set of these tensors; None where something else writes or reads one of them."""
    writers, readers, inner = [], [], []
    for var in members:
        source = group_of.get(var)
        if source is None or var in view.outputs or source.output is not var and source.output != var:
            return None
        if source not in through:
            if not can_write(view, source):
                return None
            writers.append(source)
        users = [group_of.get(u) for u in _readers(view, var)]
        for user in dict.fromkeys(users):
            if (
                user is None
                or user not in through
                and not (can_read(view, user) and user.rule.parts(view, user).x == var)
            ):
                return None
            if user not in through:
                readers.append(user)
        if any(u.op != "concat" for u in users):
            inner.append(var)
    if not writers or not readers:
        return None
    roots = {var: np.array([channels.find(int(i)) for i in ids[var]]) for var in members}
    order = {root: n for n, root in enumerate(dict.fromkeys(np.concatenate(list(roots.values())).tolist()))}
    index = {var: np.array([order[int(r)] for r in root]) for var, root in roots.items()}
    return ChannelSet(index, tuple(writers), tuple(readers), tuple(inner))
