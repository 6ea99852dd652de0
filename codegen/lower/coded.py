"""Lowering of `Coded` ops: the inner op's own rule, with compressed operands where the codecs were taken in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tvm_ergo.codegen.fuse import Coded
from tvm_ergo.codegen.graph import Graph, Node, Region
from tvm_ergo.codegen.lower.base import RULES, Emitter, lowers
from tvm_ergo.codegen.strided import View
from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.errors import UnsupportedError
from tvm_ergo.target.isa import Instruction, Operand
from tvm_ergo.target.isa.coded import coded as coded_operand


@dataclass(frozen=True)
class CodedView(View):
    """Rows in slots, under the plain tensor's shape; only rows can be cut.

    whole : columns and channels. made : the operands of this view and of its boxes, with their zero point.
    """

    codec: Codec = Codec.BITMASK
    zero_point: int = 0
    whole: tuple[int, int] = (0, 0)
    made: list[tuple[Operand, int]] = field(default_factory=list, compare=False)

    def _like(self, root: int, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> View:
        return replace(self, root=root, offset=offset, shape=shape, strides=strides)

    def broadcast(self, shape) -> View:
        if tuple(shape) != self.shape:
            raise UnsupportedError(
                "a compressed operand cannot be repeated", required=str(self.shape), available=str(tuple(shape))
            )
        return self

    def operand(self, dtype) -> Operand:
        if self.shape[2:] != self.whole:
            raise UnsupportedError(
                "a compressed operand is read in whole rows", required=str(self.whole), available=str(self.shape[2:])
            )
        operand = coded_operand(self.offset, self.shape, self.codec, self.strides[1])
        self.made.append((operand, self.zero_point))
        return operand


class _CodedEmitter(Emitter):
    """An emitter in whose graph the coded tensors of one node are plain, and whose views of them are `CodedView`s."""

    def __init__(self, outer: Emitter, node: Node):
        self.plan, self.instructions, self._node, self._time = outer.plan, outer.instructions, outer._node, outer._time
        self._table, self._written = node.table, {}
        self.made: list[tuple[Operand, int]] = []
        self.coded = {node.inputs[i]: op for i, op in node.op.expands}
        if node.op.shrinks is not None:
            self.coded[node.outputs[0]] = node.op.shrinks
        if node.id not in outer.plain_graphs:
            outer.plain_graphs[node.id] = self._plain(outer.graph, node)
        self.graph = outer.plain_graphs[node.id]

    def _plain(self, graph: Graph, node: Node) -> Graph:
        tensors = list(graph.tensors)
        for t, op in self.coded.items():
            tensors[t] = replace(tensors[t], shape=node.op.shape if t == node.outputs[0] else op.shape, dtype="int8")
        return replace(graph, tensors=tuple(tensors))

    def view(self, t: int, region: Region | None = None) -> View:
        op = self.coded.get(t)
        if op is None:
            return super().view(t, region)
        shape, slots = self.graph.tensors[t].shape, self.plan.placed(t, self._time)
        view = CodedView(
            -1, slots.offset, shape, (0, op.slot_bytes, 0, 0), 1, Codec[op.codec], op.out_zp, shape[2:], self.made
        )
        return view if region is None else view.box(region)

    def __call__(self, instruction: type[Instruction], **fields) -> None:
        for name, zero_point in instruction.CODED.items():
            if name == "out" and self._table is not None:
                zero_point = "table_zp"
            if fields[name].codec != Codec.RAW:  # a maximum has no zero point of its own
                fields[zero_point] = next(zp for operand, zp in self.made if operand is fields[name])
        super().__call__(instruction, **fields)


@lowers(Coded)
def coded(node: Node, region: Region, emit: Emitter) -> None:
    """The instruction of the inner op."""
    op, shapes = node.op, emit.graph.shapes(node)
    RULES[type(op.inner)](replace(node, op=op.inner), op.plain_region(region, shapes), _CodedEmitter(emit, node))
