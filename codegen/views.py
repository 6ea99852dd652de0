"""Storage resolution: which tensors live inside another tensor's buffer, and where.

Two sweeps. Backwards: a concat's members, a pad's interior, and what is reshaped or transposed into such a place (or
into a graph output) are put where the result lies, so that their producers write there. Forwards: reshapes, slices and
transposes become views of their source, and elementwise ops overwrite an input that dies in them. Whatever stays apart
is copied: the lowering rules move data between two views and emit nothing where both are the same place.

What keeps it right:
- a tensor has one buffer, and is embedded at most once; a graph input is never embedded (its frame is one dense block);
- a graph output is embedded only where its view is dense, and its buffer lives to the end;
- constants are never written: no in-place op on them, nothing embedded with them;
- tensors that share bytes hold the same values there, except across an in-place op. That op demands that no tensor
  touching those bytes is read later or is an output, and that its other operands are apart from them or exactly the
  same.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from tvm_ergo.codegen.graph import Graph, Node
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.strided import View, operands_overlap
from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.dialect.traits import Move
from tvm_ergo.target.isa import DType


@dataclass(frozen=True)
class NodeTime:
    """First and last step of a node, and whether its steps' boxes are disjoint (none computed twice)."""

    first: int
    last: int
    disjoint: bool = True


def resolve(
    graph: Graph, options: Options, times: Sequence[NodeTime] | None = None, apart: Set[int] = frozenset()
) -> tuple[View, ...]:
    """The view of every tensor, by id; ``root`` is the id of the tensor whose dense buffer it lies in.

    times : when each node runs, by node id; the given order, one step each, unless given. apart : tensors that share no
    other's buffer."""
    return _Resolver(graph, options, times or [NodeTime(n.id, n.id) for n in graph.nodes], apart).run()


class _Resolver:
    def __init__(self, graph: Graph, options: Options, times: Sequence[NodeTime], apart: Set[int]):
        self.graph, self.options, self.times, self.apart = graph, options, times, apart
        self.sequence = sorted(
            graph.nodes, key=lambda n: self.times[n.id].first
        )  # as they begin: what is placed so far has run so far
        self.views: dict[int, View] = {}
        self.outputs = set(graph.outputs)
        self.members: dict[int, list[int]] = {}  # root -> tensors in its buffer

    def run(self) -> tuple[View, ...]:
        producerless = [t.id for t in self.graph.tensors if t.id not in self.graph.producer]
        for t in producerless:
            self._put(t, self._own(t))
        for node in reversed(self.sequence):
            self._embed_inputs(node)
        for node in self.sequence:
            for t in node.outputs:
                if t not in self.views:
                    self._put(t, self._view_of_source(node) or self._overwrite(node) or self._own(t))
        return tuple(self.views[t.id] for t in self.graph.tensors)

    def _own(self, t: int) -> View:
        tensor = self.graph.tensors[t]
        view = View.dense(t, tensor.shape, tensor.itemsize)
        if t in self.graph.producer and self.graph.producer[t].op.traits.accumulates:
            view = replace(view, strides=(view.strides[0], 0, *view.strides[2:]))  # every row where the one before was
        return view

    def _put(self, t: int, view: View) -> None:
        self.views[t] = view
        self.members.setdefault(view.root, []).append(t)

    # ---- backwards: the source is written where the result lies ----
    def _embed_inputs(self, node: Node) -> None:
        op, out = node.op, node.outputs[0]
        if out in self.apart:
            return
        if isinstance(op, dialect.Concat) and self.options.concat_in_place:
            for t, region in zip(node.inputs, member_regions(self.graph, node), strict=True):
                if self._may_embed(t):
                    self._try_embed(t, self._place(out).box(region))
        elif isinstance(op, dialect.Pad) and self.options.pad_in_place and self._may_embed(node.inputs[0]):
            self._try_embed(node.inputs[0], self._place(out).box(interior(self.graph, node)))
        elif op.traits.move is Move.RELABEL and self._allowed(op) and self._may_embed(node.inputs[0]):
            # else the forward sweep makes the result a view of its source; of a transposed output, or a reshape of
            # transposed axes, it could not
            if (
                out in self.views
                or (out in self.outputs and isinstance(op, dialect.Transpose))
                or self._joins_transposed(node)
            ):
                source = self._place(out)
                shape = self.graph.tensors[node.inputs[0]].shape
                self._try_embed(
                    node.inputs[0],
                    source.reshape(shape)
                    if isinstance(op, dialect.Reshape)
                    else source.permute([op.perm.index(axis) for axis in range(len(op.perm))]),
                )

    def _joins_transposed(self, node: Node) -> bool:
        """Whether a reshape's result can be no view of what it comes from through transposes and reshapes: attention's
        heads, joined again."""
        if not isinstance(node.op, dialect.Reshape) or not self.options.view_transpose:
            return False
        moves, source = [node], self.graph.producer.get(node.inputs[0])
        while source is not None and source.op.traits.move is Move.RELABEL and self._may_embed(source.outputs[0]):
            moves.append(source)
            source = self.graph.producer.get(source.inputs[0])
        if source is None or len(moves) == 1 or source.op.traits.move is Move.PART:
            return False
        first = self.graph.tensors[moves[-1].inputs[0]]
        view: View | None = View.dense(first.id, first.shape, first.itemsize)
        for move in reversed(moves):
            view = moved_view(move.op, view)
            if view is None:
                return move is node  # an earlier reshape that cannot be a view is copied in any case
        return False

    def _place(self, t: int) -> View:
        """Where a result that others are embedded in lies: its own buffer if nothing was decided yet."""
        if t not in self.views:
            self._put(t, self._own(t))
        return self.views[t]

    def _may_embed(self, t: int) -> bool:
        """Not placed yet, and made by a node that can write anywhere. A slice stays a view of its source."""
        return t not in self.views and t not in self.apart and self.graph.producer[t].op.traits.move is not Move.PART

    def _try_embed(self, t: int, view: View | None) -> None:
        if view is not None and (t not in self.outputs or view.is_dense):
            self._put(t, view)

    # ---- forwards: the result is read where its source lies ----
    def _allowed(self, op) -> bool:
        switches = {
            dialect.Reshape: self.options.view_reshape,
            dialect.Slice: self.options.view_slice,
            dialect.Transpose: self.options.view_transpose,
        }
        return switches.get(type(op), False)

    def _view_of_source(self, node: Node) -> View | None:
        if not self._allowed(node.op) or self.apart.intersection((node.inputs[0], node.outputs[0])):
            return None
        view = moved_view(node.op, self.views[node.inputs[0]])
        return view if view is not None and (node.outputs[0] not in self.outputs or view.is_dense) else None

    # ---- in place ----
    def _overwrite(self, node: Node) -> View | None:
        """The view of an input that the node's output may overwrite."""
        if (
            not self.options.in_place
            or not node.op.traits.in_place
            or not self.times[node.id].disjoint
            or node.outputs[0] in self.apart
        ):
            return None
        operands = [node.inputs[i] for i in node.op.traits.in_place]
        return next((self.views[t] for t in operands if t not in self.apart and self._may_overwrite(node, t)), None)

    def _may_overwrite(self, node: Node, t: int) -> bool:
        out, view = self.graph.tensors[node.outputs[0]], self.views[t]
        if (
            self.graph.tensors[view.root].data is not None
            or self.graph.tensors[t].shape != out.shape
            or view.itemsize != out.itemsize
        ):
            return False
        if out.id in self.outputs and not view.is_dense:
            return False
        for other in self.members[view.root]:
            if _touch(view, self.views[other]):
                if self._needed_after(node, other):
                    return False
                if other in node.inputs and not self.views[other].same_place(view):
                    return False
        return True

    def _needed_after(self, node: Node, t: int) -> bool:
        """Whether anything but ``node`` reads the tensor once ``node`` has begun to write."""
        first = self.times[node.id].first
        return t in self.outputs or any(
            self.times[c.id].last >= first for c in self.graph.consumers[t] if c is not node
        )


def moved_view(op, source: View) -> View | None:
    """The view of a reshape's, slice's or transpose's result inside its source; None where strides cannot express
    it."""
    if isinstance(op, dialect.Reshape):
        return source.reshape(op.shape)
    if isinstance(op, dialect.Slice):
        return source.box(tuple(zip(op.begin, op.end, strict=True)), op.strides)
    return source.permute(op.perm)


def member_regions(graph: Graph, node: Node) -> list[tuple[tuple[int, int], ...]]:
    """The box of a concat's output that each member fills."""
    regions, begin = [], 0
    for shape in graph.shapes(node):
        region = [(0, extent) for extent in shape]
        region[node.op.axis] = (begin, begin + shape[node.op.axis])
        begin += shape[node.op.axis]
        regions.append(tuple(region))
    return regions


def interior(graph: Graph, node: Node) -> tuple[tuple[int, int], ...]:
    """The box of a pad's output that its input fills."""
    shape = graph.shapes(node)[0]
    return tuple((before, before + extent) for before, extent in zip(node.op.pad_width[::2], shape, strict=True))


def _touch(a: View, b: View) -> bool:
    """Whether two views of one buffer share bytes."""
    dtypes = {1: DType.I8, 2: DType.I16, 4: DType.I32}
    return operands_overlap(a.operand(dtypes[a.itemsize]), b.operand(dtypes[b.itemsize]))
