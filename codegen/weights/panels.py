"""Panels: every box of a coded constant that steps read is a stream of its own, so that reading is at random by panel.

Layers that run whole, in rows or in columns read one box, the whole constant; chunks of channels read slices. Where all
panels together would not be smaller than the plain constant, it stays plain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tvm_ergo.codegen.graph import Graph, Node, Region
from tvm_ergo.codegen.weights.coding import stream
from tvm_ergo.codegen.weights.sparse import SparseWeights
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.codecs.weights import CodedWeights
from tvm_ergo.target.isa import DType, Operand, contiguous
from tvm_ergo.target.isa.weights import MOST_STEPS, coded_weights

WEIGHTS = 1
"""Which input of a convolution or matrix product the weights are."""


def group_runs(begin: int, end: int, per_group: int) -> list[tuple[int, int]]:
    """Cuts the output channels ``[begin, end)`` so that each piece lies in one group or is made of whole groups."""
    first_whole, last_whole = -(-begin // per_group) * per_group, end // per_group * per_group
    if first_whole > last_whole:
        return [(begin, end)]
    pieces = [(begin, first_whole), (first_whole, last_whole), (last_whole, end)]
    return [(a, b) for a, b in pieces if a < b]


def reads_weights(node: Node) -> bool:
    """Whether a node's instruction can decode its weights."""
    return isinstance(
        node.inner,
        (
            dialect.Conv2d,
            dialect.Conv2dAccumulate,
            dialect.DepthwiseConv2d,
            dialect.DepthwiseConv2dAccumulate,
            dialect.Conv2dTranspose,
            dialect.MatMul,
            dialect.MatMulAccumulate,
        ),
    )


def weight_boxes(graph: Graph, node: Node, region: Region) -> list[Region]:
    """The boxes of its weights that the instructions of a box of a node's output read, as `codegen.lower.linear` emits
    them."""
    op, shapes = node.inner, graph.shapes(node)
    w = shapes[WEIGHTS]
    region = node.op.plain_region(region, shapes) if op is not node.op else region
    channels, rest = region[-1], tuple((0, extent) for extent in w[1:])
    if isinstance(op, (dialect.Conv2d, dialect.Conv2dAccumulate)):
        return [(run, *rest) for run in group_runs(*channels, w[0] // op.groups)]
    if isinstance(op, (dialect.DepthwiseConv2d, dialect.DepthwiseConv2dAccumulate)):
        return [((0, w[0]), (0, w[1]), channels)]
    if isinstance(op, dialect.Conv2dTranspose):
        return [(channels, *rest)]
    return [tuple(op.input_regions(region, shapes)[WEIGHTS])]


@dataclass(frozen=True)
class Panel:
    """offset : bytes from the constant's place."""

    offset: int
    coded: CodedWeights


class Panels:
    """The panels of the coded constants of a graph, for the boxes that ``steps`` read; without steps each constant is
    one panel."""

    def __init__(self, graph: Graph, steps: Sequence | None = None):
        self.of: dict[int, dict[Region, Panel]] = {}
        for t, boxes in _boxes(graph, steps).items():
            tensor, panels, size = graph.tensors[t], {}, 0
            for box in boxes:
                coded = stream(tensor, box)
                panels[box] = Panel(size, coded)
                size += len(coded.data)
            if self.worthwhile(size, tensor.size_bytes) and all(p.coded.steps <= MOST_STEPS for p in panels.values()):
                self.of[t] = panels

    @staticmethod
    def worthwhile(coded_bytes: int, plain_bytes: int) -> bool:
        """Whether a constant is kept in panels of so many bytes: coding never makes anything larger."""
        return coded_bytes < plain_bytes

    def content(self, t: int) -> bytes | None:
        """What stands at the constant's place; None for one that is not coded."""
        return b"".join(panel.coded.data for panel in self.of[t].values()) if t in self.of else None

    def operand(self, t: int, box: Region, addr: int) -> Operand | None:
        """The operand of a box of a constant whose place is ``addr``; None for one that is not coded."""
        if t not in self.of:
            return None
        panel = self.of[t][box]
        return coded_weights(addr + panel.offset, tuple(end - begin for begin, end in box), panel.coded)

    def sparse(self, t: int, box: Region, addr: int) -> tuple[Operand, SparseWeights] | None:
        """The bytes of a box of a constant in the sparse engine's form; None for any other."""
        panel = self.of.get(t, {}).get(box)
        if panel is None or not isinstance(panel.coded, SparseWeights):
            return None
        return contiguous(addr + panel.offset, DType.U8, (len(panel.coded.data),)), panel.coded


def _boxes(graph: Graph, steps: Sequence | None) -> dict[int, list[Region]]:
    """Of each coded constant, in the order in which they are first read."""
    found: dict[int, dict[Region, None]] = {t.id: {} for t in graph.tensors if t.coding is not None}
    if not found:
        return {}
    if steps is None:
        return {t: [graph.tensors[t].region] for t in found}
    seen: set[tuple] = set()
    for node, region in _reading(steps):
        t = node.inputs[WEIGHTS] if len(node.inputs) > WEIGHTS else None
        if (
            t in found
            and reads_weights(node)
            and (key := (node.id, region[-1], region if len(region) != 4 else None)) not in seen
        ):
            seen.add(key)
            found[t].update(dict.fromkeys(weight_boxes(graph, node, region)))
    return {t: list(boxes) for t, boxes in found.items() if boxes}


def _reading(steps: Sequence) -> Iterator[tuple[Node, Region]]:
    """Steps that compute something: shifts have no node."""
    for step in steps:
        node = getattr(step, "node", None)
        if node is not None:
            yield node, step.region
