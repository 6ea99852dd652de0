"""What an order costs: the live bytes at each node, as a function of the set of nodes that have run.

Storage is shared as ``views.resolve`` decides it: a root buffer (a concat with its members, a tensor with its reshapes
and slices) lives from the first node that touches any tensor in it to the last. So the bytes live while a node runs
depend only on the set of nodes before it, which is what makes the search over sets exact. Overwriting in place depends
on that set as well: where an elementwise node is the last to touch a buffer that its operand fills, its result costs
nothing more.

Not counted: overwriting an operand that fills only a part of its buffer (a slice, a member of a concat), after which
the result holds the whole buffer. ``optimistic`` models give such results no size, so that their minimum is a bound for
every order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from tvm_ergo.codegen.graph import Graph, Node
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.strided import View
from tvm_ergo.codegen.views import resolve
from tvm_ergo.relay_passes.dialect.traits import Move


@dataclass(frozen=True)
class Touch:
    """A buffer that a node touches: who touches it (a bit per node), its bytes, and whether it lives before or after
    all of them."""

    nodes: int
    size_bytes: int
    is_input: bool
    is_output: bool


@dataclass(frozen=True, eq=False)
class Model:
    """needs : nodes that must run before each node (bits). touched : buffers of each node. credits : per node, the
    ``(nodes that touch the operand's buffer, bytes of the result)`` of every operand it may overwrite. start_bytes : of
    the inputs."""

    needs: tuple[int, ...]
    touched: tuple[tuple[Touch, ...], ...]
    credits: tuple[tuple[tuple[int, int], ...], ...]
    start_bytes: int

    @property
    def count(self) -> int:
        return len(self.needs)

    @cached_property
    def ancestors(self) -> tuple[int, ...]:
        """Every node that must run before each node, directly or not (bits); nodes are in an executable order."""
        found: list[int] = []
        for needed in self.needs:
            found.append(needed)
            for other in bits(needed):
                found[-1] |= found[other]
        return tuple(found)

    def run(self, done: int, live_bytes: int, node: int) -> tuple[int, int]:
        """``(bytes live while node runs, bytes live after it)`` where ``done`` have run and hold ``live_bytes``."""
        after = done | 1 << node
        peak = live_bytes
        for touch in self.touched[node]:
            if not touch.is_input and not touch.nodes & done:
                peak += touch.size_bytes
        left = peak
        for touch in self.touched[node]:
            if not touch.is_output and not touch.nodes & ~after:
                left -= touch.size_bytes
        for nodes, size_bytes in self.credits[node]:
            if not nodes & ~after:
                return peak - size_bytes, left
        return peak, left

    def peak_bytes(self, order: Iterable[int]) -> int:
        """Most bytes live at one time when the nodes run in ``order``."""
        done, live, peak = 0, self.start_bytes, self.start_bytes
        for node in order:
            at, live = self.run(done, live, node)
            done, peak = done | 1 << node, max(peak, at)
        return peak

    def forced_bytes(self) -> list[int]:
        """Per node, the bytes that are live while it runs in every order: what it touches, and what is made before and
        read after."""
        everything = (1 << self.count) - 1
        descendants = [0] * self.count
        for node, before in enumerate(self.ancestors):
            for other in bits(before):
                descendants[other] |= 1 << node
        buffers = {touch.nodes: {} for touched in self.touched for touch in touched}
        for touched in self.touched:
            for touch in touched:
                buffers[touch.nodes][id(touch)] = touch
        distinct = [touch for group in buffers.values() for touch in group.values()]
        found = []
        for node in range(self.count):
            before, after = self.ancestors[node], descendants[node]
            total = sum(
                t.size_bytes
                for t in distinct
                if t.nodes >> node & 1 or ((t.is_input or t.nodes & before) and (t.is_output or t.nodes & after))
            )
            untouched_later = everything & ~after  # at best everything that may run before has
            total -= max((size for nodes, size in self.credits[node] if not nodes & ~untouched_later), default=0)
            found.append(total)
        return found


def bits(mask: int) -> Iterable[int]:
    """Numbers of the set bits, rising."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def model_of(graph: Graph, options: Options, optimistic: bool = False) -> Model:
    """The cost model of a graph; node numbers are places in ``graph.nodes``."""
    views = resolve(graph, Options(**{**vars(options), "in_place": False}))
    touching: dict[int, int] = {}
    for number, node in enumerate(graph.nodes):
        for t in (*node.inputs, *node.outputs):
            touching[views[t].root] = touching.get(views[t].root, 0) | 1 << number
    in_place, floating = _overwritable(graph, views) if options.in_place else ({}, set())
    nowhere = graph.streams | (floating if optimistic else set())
    sizes = {root: 0 if root in nowhere else graph.tensors[root].size_bytes for root in touching}
    inputs, outputs = ({views[t].root for t in some} for some in (graph.inputs, graph.outputs))
    touches = {
        root: Touch(nodes, sizes[root], root in inputs, root in outputs)
        for root, nodes in touching.items()
        if graph.tensors[root].data is None
    }
    touched, credits, needs = [], [], []
    number_of = {node.id: number for number, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        roots = dict.fromkeys(views[t].root for t in (*node.inputs, *node.outputs))
        touched.append(tuple(touches[root] for root in roots if root in touches))
        credits.append(
            tuple(
                (touching[root], sizes[views[node.outputs[0]].root])
                for root in in_place.get(node.id, ())
                if not touches[root].is_output
            )
        )
        needs.append(sum(1 << n for n in {number_of[graph.producer[t].id] for t in node.inputs if t in graph.producer}))
    idle = sum(graph.tensors[t].size_bytes for t in graph.inputs if t not in touches and t not in graph.streams)
    start = sum(t.size_bytes for t in touches.values() if t.is_input) + (idle if not graph.nodes else 0)
    return Model(tuple(needs), tuple(touched), tuple(credits), start)


def _overwritable(graph: Graph, views: Sequence[View]) -> tuple[dict[int, list[int]], set[int]]:
    """Per node the roots it may overwrite whole, and the results that may come to lie in a part of another buffer."""
    whole: dict[int, list[int]] = {}
    floating: set[int] = set()
    for node in graph.nodes:
        out = node.outputs[0]
        if not node.op.traits.in_place or views[out].root != out:
            continue
        for t in (node.inputs[i] for i in node.op.traits.in_place):
            tensor, root = graph.tensors[t], graph.tensors[views[t].root]
            if (
                root.data is not None
                or tensor.shape != graph.tensors[out].shape
                or tensor.itemsize != graph.tensors[out].itemsize
            ):
                continue
            if not views[t].is_dense or root.size_bytes != tensor.size_bytes or root.id in floating:
                floating.add(out)
            elif _apart(node, t, views):
                whole.setdefault(node.id, []).append(root.id)
    return whole, floating


def _apart(node: Node, t: int, views: Sequence[View]) -> bool:
    """Whether the node's other operands are in other buffers or at exactly the same place."""
    return all(views[other].root != views[t].root or views[other].same_place(views[t]) for other in node.inputs)


def ambiguous(graph: Graph) -> bool:
    """Whether some tensor could be written inside several others: then which one it is depends on the order."""
    embeds = (Move.JOIN, Move.RELABEL)
    return any(sum(c.op.traits.move in embeds for c in readers) > 1 for readers in graph.consumers.values())
