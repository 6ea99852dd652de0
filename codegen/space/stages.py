"""Stages: nodes computed together, tile by tile of the last one, so that nothing between them ever exists as a whole.

Patch-based inference in small: for every tile of the last node's output its inner nodes compute just the boxes that the
tile needs, halo included, into small buffers that are dead when the tile is done. What tiles share is computed again
(unless they are chunks of the channels of a depthwise convolution, a pooling or a reduction, which share nothing):
memory is paid for with multiply-accumulates, where a rolling buffer pays for the same with rows that wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tvm_ergo.codegen.graph import Graph, Node, Region


@dataclass(frozen=True)
class Stage:
    """inner : ids of the nodes before the last, producers first; only nodes of the stage read them. columns, channels :
    of a tile of the last node's output (its rows are the node's band); 0 means all of them."""

    inner: tuple[int, ...]
    columns: int = 0
    channels: int = 0


def tiles_of(region: Region, stage: Stage) -> Iterator[Region]:
    """A band's box cut into tiles of columns and of channels; a tensor [N, C] has only channels."""
    lengths = {len(region) - 1: stage.channels}
    if len(region) == 4:
        lengths[2] = stage.columns
    boxes: list[Region] = [region]
    for axis, length in lengths.items():
        begin, end = region[axis]
        if 0 < length < end - begin:
            cuts = [(at, min(at + length, end)) for at in range(begin, end, length)]
            boxes = [(*box[:axis], cut, *box[axis + 1 :]) for cut in cuts for box in boxes]
    yield from boxes


def inner_boxes(nodes: Mapping[int, Node], needs, stage: Stage, last: Node, region: Region) -> dict[int, Region]:
    """The box of each inner node that ``region`` of the stage's last node needs, producers first; nodes of which
    nothing is needed are left out."""
    wanted: dict[int, Region] = {}  # by tensor
    producer = {nodes[i].outputs[0]: i for i in stage.inner}
    _demand(wanted, producer, last, needs.boxes(last, region))
    for i in reversed(stage.inner):
        box = wanted.get(nodes[i].outputs[0])
        if box is not None:
            _demand(wanted, producer, nodes[i], needs.boxes(nodes[i], box))
    return {i: wanted[nodes[i].outputs[0]] for i in stage.inner if nodes[i].outputs[0] in wanted}


def _demand(wanted: dict[int, Region], producer: Mapping[int, int], node: Node, boxes: list[Region]) -> None:
    for t, box in zip(node.inputs, boxes, strict=True):
        if t in producer and all(begin < end for begin, end in box):
            old = wanted.get(t, box)
            wanted[t] = tuple((min(a, c), max(b, d)) for (a, b), (c, d) in zip(old, box, strict=True))


def widened(graph: Graph, tileable: Callable[[Node], bool], nodes: Sequence[Node]) -> list[Node]:
    """Producers that may join a stage of these nodes as inner ones: they can compute any box alone and only the stage
    reads them."""
    ids = {node.id for node in nodes}
    found: dict[int, Node] = {}
    for node in nodes:
        for t in node.inputs:
            producer = graph.producer.get(t)
            if producer is None or producer.id in ids or t in graph.outputs or len(graph.tensors[t].shape) != 4:
                continue
            if (
                tileable(producer)
                and not producer.op.traits.accumulates
                and all(reader.id in ids for reader in graph.consumers[t])
            ):
                found[producer.id] = producer
    return list(found.values())
