"""The judge of a plan in space: it carries the plan out with labels instead of values.

Every byte of the memory holds the label of the tensor byte that was put there last. A step may read only bytes whose
labels are those of the tensors it reads, and outputs must be whole at the end. Element by element, with no notion of
windows, rolling or lifetimes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_ergo.codegen.graph import Region
from tvm_ergo.codegen.plan import Step
from tvm_ergo.codegen.space.order import bandable, is_empty
from tvm_ergo.codegen.space.plan import SpacePlan
from tvm_ergo.codegen.space.rolling import Shift
from tvm_ergo.codegen.strided import View

NOBODY = -1


@dataclass(frozen=True)
class SpaceViolation:
    """The first byte that is not what a step takes it for. step : its number; as many as there are steps: the outputs
    at the end."""

    step: int
    tensor: str
    address: int

    def __str__(self) -> str:
        return f"step {self.step}: {self.tensor} is not at byte {self.address}"


def check(plan: SpacePlan) -> SpaceViolation | None:
    """None if every step reads what it means to read; else the first violation."""
    return _Walk(plan).run()


class _Walk:
    def __init__(self, plan: SpacePlan):
        self.plan, self.graph = plan, plan.graph
        self.memory = np.full(plan.memory_bytes + 8, NOBODY, np.int64)
        sizes = [t.size_bytes for t in self.graph.tensors]
        self.label = np.concatenate([[0], np.cumsum(sizes)])  # of each root's first byte

    def run(self) -> SpaceViolation | None:
        for t in set(self.graph.inputs) - self.graph.streams:
            self._write(t, self.graph.tensors[t].region, 0)
        for time, step in enumerate(self.plan.steps):
            if isinstance(step, Shift):
                self._shift(step, time)
                continue
            for t, box in zip(step.node.inputs, self._boxes(step), strict=True):
                wrong = self._wrong(t, box, time)
                if wrong is not None:
                    return SpaceViolation(time, self.graph.tensors[t].name, wrong)
            for t in step.node.outputs:
                self._write(t, step.region if t == step.node.outputs[0] else self.graph.tensors[t].region, time)
        end = len(self.plan.steps)
        for t in self.graph.outputs:
            wrong = self._wrong(t, self.graph.tensors[t].region, end)
            if wrong is not None:
                return SpaceViolation(end, self.graph.tensors[t].name, wrong)
        return None

    def _boxes(self, step: Step) -> list[Region]:
        """What a step reads: all of its inputs, unless its op can work on rows alone."""
        node, graph = step.node, self.graph
        if not bandable(graph, node) and step.region == graph.tensors[node.outputs[0]].region:
            return [graph.tensors[t].region for t in node.inputs]
        return node.op.input_regions(step.region, graph.shapes(node), [graph.tensors[t].data for t in node.inputs])

    def _is_constant(self, t: int) -> bool:
        return self.graph.tensors[self.plan.views[t].root].data is not None

    def _labels(self, t: int, region: Region) -> np.ndarray:
        """What the bytes of a box must hold: the tensor's root's bytes by number; a tensor that stages make anew has
        numbers of its own."""
        view, tensor = self.plan.views[t], self.graph.tensors[t]
        if t in self.plan.inner:
            view = View.dense(t, tensor.shape, tensor.itemsize)
        return self.label[view.root] + self._bytes(view, region)

    def _bytes(self, view: View, region: Region) -> np.ndarray:
        """The number of every byte of a box, in the view's own numbering."""
        box = view.box(region)
        numbers = np.full((*box.shape, box.itemsize), box.offset, np.int64) + np.arange(box.itemsize)
        for axis, stride in enumerate(box.strides):
            numbers += (np.arange(box.shape[axis]) * stride).reshape((-1,) + (1,) * (len(box.shape) - axis))
        return numbers.reshape(-1)

    def _write(self, t: int, region: Region, time: int) -> None:
        if not self._is_constant(t) and not is_empty(region):
            labels = self._labels(t, region)
            self.memory[self._bytes(self.plan.placed(t, time), region)] = labels

    def _wrong(self, t: int, region: Region, time: int) -> int | None:
        """The address of the first byte of a box that is not the tensor's."""
        if self._is_constant(t) or t in self.graph.streams or is_empty(region):
            return None
        labels = self._labels(t, region)
        addresses = self._bytes(self.plan.placed(t, time), region)
        bad = np.flatnonzero(
            (addresses < 0)
            | (addresses >= self.plan.memory_bytes)
            | (self.memory.take(addresses, mode="clip") != labels)
        )
        return int(addresses[bad[0]]) if bad.size else None

    def _shift(self, step: Shift, time: int) -> None:
        front = self.plan.placed(step.root, time).offset
        for run in step.runs:
            piece = (np.arange(run.count)[:, None] * run.pitch + np.arange(run.length)).reshape(-1) + run.begin + front
            self.memory[piece] = self.memory[piece + step.new - step.old].copy()
