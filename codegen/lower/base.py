"""What the lowering rules share: their table, the emitter that turns boxes into operands, and window arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm_ergo.codegen.graph import Graph, Node, OutputTable, Region
from tvm_ergo.codegen.plan import Plan
from tvm_ergo.codegen.strided import View, collapse
from tvm_ergo.codegen.weights.sparse import SparseWeights
from tvm_ergo.relay_passes.dialect import ErgoOp
from tvm_ergo.target.errors import UnsupportedError
from tvm_ergo.target.isa import Copy, DType, Fill, Instruction, Operand

Rule = Callable[[Node, Region, "Emitter"], None]
RULES: dict[type[ErgoOp], Rule] = {}


def lowers(op: type[ErgoOp]) -> Callable[[Rule], Rule]:
    """Registers ``rule(node, region, emit)``: emits instructions that compute the box ``region`` of the node's
    output."""

    def register(rule: Rule) -> Rule:
        if op in RULES:
            raise ValueError(f"{op.__name__} has two lowering rules")
        RULES[op] = rule
        return rule

    return register


class Emitter:
    """Collects instructions; gives operands of tensors' boxes at their planned addresses."""

    def __init__(self, plan: Plan):
        self.plan, self.graph = plan, plan.graph
        self.instructions: list[Instruction] = []
        self._node = self._time = 0
        self._table: OutputTable | None = None  # of the node that is lowered
        self._written: dict[int, tuple[Operand, Region]] = {}  # boxes of its output, by the operand's id
        self.plain_graphs: dict[int, Graph] = {}  # of coded nodes, by id (`lower.coded`)

    def lower(self, node: Node, region: Region, time: int = 0) -> None:
        """Appends the instructions of step ``time``. Errors: UnsupportedError when the op has no rule or the box cannot
        be done."""
        self._time = time
        if type(node.op) not in RULES:
            raise UnsupportedError(
                f"the chip has no lowering of {type(node.op).__name__}",
                where=node.name,
                available=", ".join(sorted(op.__name__ for op in RULES)),
            )
        self._node, self._table = node.id, node.table
        self._written.clear()
        RULES[type(node.op)](node, region, self)

    def shift(self, root: int, boxes: Sequence[tuple[int, int, int, int]], distance: int, time: int) -> None:
        """Moves bytes of a rolling buffer ``distance`` bytes down, to where they lie after step ``time``.

        boxes : ``(first byte of the tensor, pieces, bytes between pieces, bytes of each)``.
        """
        producer = self.graph.producer.get(root)
        self._node = self._node if producer is None else producer.id
        front = self.plan.placed(root, time).offset
        for begin, count, pitch, length in boxes:
            target = View(-1, front + begin, (count, length), (pitch, 1), 1)
            self.move(target.moved(-1, distance), target, DType.I8)

    def __call__(self, instruction: type[Instruction], **fields) -> None:
        if self._table is not None and instruction.OUTPUT_TABLE:
            fields["table"] = (self._output_table(fields["out"]),)
        self.instructions.append(instruction(**fields, node=self._node))

    def dtype(self, t: int) -> DType:
        return DType.of(self.graph.tensors[t].dtype)

    def view(self, t: int, region: Region | None = None) -> View:
        """Where a box of a tensor (all of it by default) lies in the memory."""
        view = self.plan.placed(t, self._time)
        return view if region is None else view.box(region)

    def operand(self, t: int, region: Region | None = None) -> Operand:
        """A box of a tensor as an operand of the tensor's own rank."""
        operand = self.view(t, region).operand(self.dtype(t))
        if self._table is not None and region is not None and len(self.graph.tensors[self._table.lut].shape) == 2:
            self._written[id(operand)] = operand, region
        return operand

    def _output_table(self, out: Operand) -> Operand:
        """The output stage's table, of one a channel those of the channels written."""
        lut = self._table.lut
        if len(self.graph.tensors[lut].shape) == 1:
            return self.view(lut).operand(self.dtype(lut))
        return self.view(lut, (self._written[id(out)][1][-1], (0, 256))).operand(self.dtype(lut))

    def weights(self, t: int, region: Region) -> Operand:
        """A box of constant weights as an operand, coded where the plan has them so."""
        return self.plan.panel(t, region) or self.operand(t, region)

    def sparse(self, t: int, region: Region) -> tuple[Operand, SparseWeights] | None:
        """A box of constant weights in the sparse engine's form, where the plan has them so."""
        return self.plan.sparse(t, region)

    def inputs(self, node: Node, region: Region) -> list[Region]:
        """The boxes of the inputs that a box of output 0 needs."""
        values = [self.graph.tensors[t].data for t in node.inputs]
        return node.op.input_regions(region, self.graph.shapes(node), values)

    def move(self, source: View, target: View, dtype: DType) -> None:
        """Copies between views of one shape, unless they are the same place."""
        if source.same_place(target) or 0 in target.shape:
            return
        source, target = collapse([source, target])
        self(Copy, src=source.operand(dtype), out=target.operand(dtype))

    def fill(self, target: View, value: int, dtype: DType) -> None:
        """Sets every element of a view."""
        if 0 not in target.shape:
            self(Fill, out=collapse([target])[0].operand(dtype), value=value)


def window(
    interval: tuple[int, int], extent: int, kernel: int, stride: int, before: int, dilation: int, where: str
) -> tuple[tuple[int, int], int, int]:
    """``(rows of the input, padding before, padding after)`` with which exactly the output rows ``interval`` come out.

    extent : rows of the whole input. before : padding in front of the whole input. Errors: UnsupportedError when every
    window of the interval lies in the padding, which needs padding of a kernel's extent."""
    begin, end = interval
    low, high = begin * stride - before, (end - 1) * stride - before + (kernel - 1) * dilation + 1
    rows = max(low, 0), min(high, extent)
    if rows[0] >= rows[1]:
        raise UnsupportedError(
            "a box of output that sees nothing but padding",
            where=where,
            required=f"input rows [{low}, {high})",
            available=f"[0, {extent})",
            remedy="padding smaller than the kernel's extent",
        )
    return rows, rows[0] - low, high - rows[1]
