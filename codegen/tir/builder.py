"""Builds a codegen Graph op by op; values are tensor ids. Movements that change nothing are left out."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from tvm_ergo.codegen.graph import Graph, Node, Tensor
from tvm_ergo.relay_passes.dialect import ErgoOp, Pad, Reshape, Slice, Transpose


class GraphBuilder:
    """Collects tensors and nodes; ``finish`` gives the checked Graph."""

    def __init__(self):
        self.tensors: list[Tensor] = []
        self.nodes: list[Node] = []
        self.inputs: list[int] = []

    def shape(self, value: int) -> tuple[int, ...]:
        return self.tensors[value].shape

    def _tensor(self, name: str, shape, dtype: str, data: np.ndarray | None = None) -> int:
        self.tensors.append(Tensor(len(self.tensors), name, tuple(shape), dtype, data))
        return len(self.tensors) - 1

    def input(self, name: str, shape: Sequence[int], dtype: str) -> int:
        """A new input."""
        self.inputs.append(self._tensor(name, shape, dtype))
        return self.inputs[-1]

    def constant(self, data: np.ndarray) -> int:
        """A constant."""
        return self._tensor(f"const{len(self.tensors)}", data.shape, data.dtype.name, np.ascontiguousarray(data))

    def emit(self, op: ErgoOp, *inputs: int, name: str) -> int:
        """One op; gives its (only) output. Errors: ModelError if the op does not accept the inputs."""
        types = [self.tensors[i] for i in inputs]
        ((shape, dtype),) = op.infer([t.shape for t in types], [t.dtype for t in types])
        output = self._tensor(name, shape, dtype)
        self.nodes.append(Node(len(self.nodes), name, op, inputs, (output,)))
        return output

    def reshape(self, value: int, shape: Sequence[int], name: str) -> int:
        shape = tuple(int(n) for n in shape)
        assert prod(shape) == prod(self.shape(value)), (shape, self.shape(value))
        return (
            value
            if shape == self.shape(value)
            else self.emit(Reshape(shape=shape, name=name), value, name=f"{name}.reshape")
        )

    def transpose(self, value: int, perm: Sequence[int], name: str) -> int:
        perm = tuple(int(p) for p in perm)
        return (
            value
            if perm == tuple(range(len(perm)))
            else self.emit(Transpose(perm=perm, name=name), value, name=f"{name}.transpose")
        )

    def pad(self, value: int, pad_width: Sequence[int], constant: int, name: str) -> int:
        return (
            value
            if not any(pad_width)
            else self.emit(Pad(pad_width=tuple(pad_width), value=constant, name=name), value, name=f"{name}.pad")
        )

    def crop(self, value: int, ends: Sequence[int], name: str) -> int:
        """``value[:ends[0], :ends[1], ...]``."""
        ends = tuple(int(e) for e in ends)
        if ends == self.shape(value):
            return value
        return self.emit(
            Slice(begin=(0,) * len(ends), end=ends, strides=(1,) * len(ends), name=name), value, name=f"{name}.crop"
        )

    def finish(self, outputs: Sequence[int], name: str) -> Graph:
        graph = Graph(tuple(self.tensors), tuple(self.nodes), tuple(self.inputs), tuple(outputs), name)
        graph.validate()
        return graph
