"""How many bytes a tensor's tiles need: measured over calibration data on the uncompressed Program."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from tvm_ergo.codegen.graph import Graph, Tensor
from tvm_ergo.codegen.runtime.recording import Watched
from tvm_ergo.codegen.stream import is_received
from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.slots import HEADER_BYTES, SlotLayout, lossless_slot_bytes

MARGIN = 1.125
"""Slot over the largest tile seen: an eighth more, so that unseen data of the same kind are almost never reduced."""
TILE_ROWS = (1, 2, 4, 8)
LEARNING_VALUES = 2048
"""Values a tile of an adaptive codec has at least: below that it has learned too little to be worth its time."""
LEAST_BYTES = 256
"""Smaller tensors are not looked at."""


@dataclass(frozen=True)
class Spec:
    """One way to code a tensor: codec and rows a tile."""

    codec: Codec
    tile_rows: int


@dataclass(frozen=True, eq=False)
class TensorStatistics:
    """What one tensor [1, H, W, C] needs. coded : per spec int64[samples, T], bytes of slot with which each tile loses
    nothing."""

    name: str
    shape: tuple[int, ...]
    zero_point: int
    coded: dict[Spec, np.ndarray]

    def slot_bytes(self, spec: Spec, lossless: bool = False) -> int:
        """The largest tile seen and MARGIN, never more than holds any tile; ``lossless`` : that at once."""
        most = lossless_slot_bytes((spec.tile_rows, *self.shape[2:]))
        return most if lossless else min(most, math.ceil(int(self.coded[spec].max()) * MARGIN))

    def layout(self, spec: Spec, lossless: bool = False) -> SlotLayout:
        return SlotLayout(spec.codec, spec.tile_rows, self.slot_bytes(spec, lossless), self.zero_point)

    def bits_per_value(self, spec: Spec) -> tuple[float, float]:
        """``(mean, worst sample)`` of the coded bytes, headers included."""
        per_sample = self.coded[spec].sum(axis=1) * 8 / math.prod(self.shape)
        return float(per_sample.mean()), float(per_sample.max())


def candidates(graph: Graph) -> list[Tensor]:
    """Tensors that could wait compressed: one int8 picture of more than one row, made in the graph, read more than at
    once.

    Rows of a streamed frame as they are received are not among them: the function, in which decisions are written, has
    no such tensor."""
    found = []
    for node in graph.nodes:
        if is_received(node):
            continue
        for t in node.outputs:
            tensor = graph.tensors[t]
            if (
                tensor.dtype == "int8"
                and len(tensor.shape) == 4
                and tensor.shape[0] == 1
                and tensor.shape[1] > 1
                and tensor.size_bytes >= LEAST_BYTES
                and t not in graph.outputs
                and graph.consumers[t]
            ):
                found.append(tensor)
    return found


def specs_of(shape: tuple[int, ...]) -> list[Spec]:
    """The ways worth measuring for a tensor [1, H, W, C]: codes that learn nothing in low tiles, the adaptive coder in
    tiles high enough to learn."""
    rows = [r for r in TILE_ROWS if r <= shape[1]]
    learning = [r for r in rows if r * shape[2] * shape[3] >= LEARNING_VALUES] or rows[-1:]
    quick = [Spec(Codec.BITPLANE, r) for r in rows[:3]] + [Spec(Codec.STATIC, r) for r in rows[:2]]
    return quick + [Spec(Codec.CONTEXT, r) for r in learning[:2]]


class Collector:
    """A watcher (`codegen.runtime.recording.watch`) that measures chosen tensors. graphs : by the symbol of the chip
    function."""

    def __init__(self, graphs: Mapping[str, Graph], wanted: Mapping[str, Iterable[str]] | None = None):
        self.tensors: dict[tuple[str, str], tuple[Tensor, int]] = {}
        self.rows: dict[tuple[str, str], dict[Spec, list[np.ndarray]]] = {}
        for symbol, graph in graphs.items():
            names = None if wanted is None else set(wanted.get(symbol, ()))
            for tensor in candidates(graph):
                if names is None or tensor.name in names:
                    key = (symbol, tensor.name)
                    self.tensors[key] = tensor, graph.producer[tensor.id].op.out_zp
                    self.rows[key] = {spec: [] for spec in specs_of(tensor.shape)}

    @property
    def values(self) -> int:
        """Values measured per sample."""
        return sum(math.prod(tensor.shape) for tensor, _ in self.tensors.values())

    def __call__(self, about: Watched, value: np.ndarray) -> None:
        key = (about.symbol, about.name)
        if key in self.tensors:
            zero_point = self.tensors[key][1]
            for spec, rows in self.rows[key].items():
                rows.append(SlotLayout(spec.codec, spec.tile_rows, HEADER_BYTES, zero_point).coded_bytes(value[0]))

    def statistics(self, symbol: str) -> dict[str, TensorStatistics]:
        """Of one chip function's tensors, by name. Tensors that no run completed are left out."""
        return {
            name: TensorStatistics(
                name, tensor.shape, zero_point, {s: np.stack(r) for s, r in self.rows[(of, name)].items()}
            )
            for (of, name), (tensor, zero_point) in self.tensors.items()
            if of == symbol and all(self.rows[(of, name)].values())
        }
