"""The graph the planner works on: typed tensors, nodes of the integer dialect, nothing of TVM but where it is read
from."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from tvm import relax
from tvm.ir import GenericConst as Constant

from tvm_ergo.codegen.weights.coding import Coding, digest
from tvm_ergo.relay_passes.compat import static_tensor_type
from tvm_ergo.relay_passes.dialect import ErgoOp, Table, from_call, is_ergo_call
from tvm_ergo.target.errors import ModelError

Region = tuple[tuple[int, int], ...]  # half-open (begin, end) per axis


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value: ``data`` is set for constants and None otherwise. dtype is a NumPy name (``int8``). coding : how a
    constant that only instructions' weight operands read stands in memory, None: plain."""

    id: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    data: np.ndarray | None = None
    coding: Coding | None = None

    @property
    def itemsize(self) -> int:
        return np.dtype(self.dtype).itemsize

    @cached_property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.itemsize

    @cached_property
    def digest(self) -> str:
        """Names a constant by dtype, shape and content."""
        return digest(self.data)

    @cached_property
    def region(self) -> Region:
        """The box of the whole tensor."""
        return tuple((0, extent) for extent in self.shape)


@dataclass(frozen=True)
class OutputTable:
    """A table in an instruction's output stage. lut : the tensor, int8 [256] or [C, 256]. op : the table that was taken
    in."""

    lut: int
    op: Table


@dataclass(frozen=True, eq=False)
class Node:
    """One op instance: ids of the tensors it reads (as often as it reads them) and makes. again : a copy of another
    node, made by the compiler.

    table : what the op's result goes through on its way to memory (`codegen.output_tables`), read beside ``inputs``.
    """

    id: int
    name: str
    op: ErgoOp
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    again: bool = False
    table: OutputTable | None = None

    @property
    def constants(self) -> tuple[int, ...]:
        """What is read beside ``inputs``: the output stage's table."""
        return () if self.table is None else (self.table.lut,)

    @property
    def out_scale(self) -> float:
        """The real value of one step of what is written."""
        return self.op.out_scale if self.table is None else self.table.op.out_scale

    @property
    def out_zp(self) -> int:
        """The zero point of what is written."""
        return self.op.out_zp if self.table is None else self.table.op.out_zp

    @property
    def inner(self) -> ErgoOp:
        """The dialect's op, without the codecs it may have taken in (`codegen.fuse`)."""
        return getattr(self.op, "inner", self.op)


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in an executable order. ``inputs`` and ``outputs`` are tensor ids; outputs may repeat, or be inputs or
    constants.

    streams : inputs that never lie in the memory; only Receive nodes read them.
    """

    tensors: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    name: str = "main"
    streams: frozenset[int] = frozenset()

    @cached_property
    def producer(self) -> dict[int, Node]:
        """The node that makes a tensor; inputs and constants have none."""
        return {t: node for node in self.nodes for t in node.outputs}

    @cached_property
    def consumers(self) -> dict[int, tuple[Node, ...]]:
        """The nodes that read a tensor, each once, in order."""
        found: dict[int, list[Node]] = {t.id: [] for t in self.tensors}
        for node in self.nodes:
            for t in dict.fromkeys(node.inputs):
                found[t].append(node)
        return {t: tuple(nodes) for t, nodes in found.items()}

    @cached_property
    def fingerprint(self) -> str:
        """Equal for graphs that are equal in everything: names, ops, types, constants' values. Searches are remembered
        by it."""
        digest = hashlib.blake2b(repr((self.name, self.inputs, self.outputs, sorted(self.streams))).encode())
        for node in self.nodes:
            digest.update(repr((node.id, node.name, node.op, node.inputs, node.outputs, node.again)).encode())
            if node.table is not None:
                digest.update(repr(node.table).encode())
        for t in self.tensors:
            digest.update(repr((t.id, t.name, t.shape, t.dtype, t.data is None, t.coding)).encode())
            if t.data is not None:
                digest.update(np.ascontiguousarray(t.data).data)
        return digest.hexdigest()

    def shapes(self, node: Node) -> list[tuple[int, ...]]:
        """Shapes of a node's inputs."""
        return [self.tensors[t].shape for t in node.inputs]

    def macs(self) -> int:
        """Multiply-accumulates of one inference, as the dialect counts them; copies of nodes do not count."""
        return sum(node.op.macs(self.shapes(node)) for node in self.nodes if not node.again)

    def validate(self) -> None:
        """Errors: ModelError when an id is dangling, a tensor is read before it is made or made twice, or a type
        disagrees with its op."""
        made = set(self.inputs) | {t.id for t in self.tensors if t.data is not None}
        for index, tensor in enumerate(self.tensors):
            if tensor.id != index:
                raise ModelError(
                    "tensor ids of a graph must be 0, 1, 2, ...",
                    where=f"{tensor.name} has id {tensor.id} at place {index}",
                )
            if tensor.data is not None and (
                tensor.data.shape != tensor.shape or tensor.data.dtype != np.dtype(tensor.dtype)
            ):
                raise ModelError("a constant's data disagrees with its type", where=str(tensor.name))
        for node in self.nodes:
            for t in (*node.inputs, *node.constants):
                if t not in made:
                    raise ModelError(
                        "a tensor is read before it is made", where=f"{self.tensors[t].name} by {node.name}"
                    )
            expected = node.op.infer(self.shapes(node), [self.tensors[t].dtype for t in node.inputs])
            if node.table is not None:
                expected = node.table.op.infer(
                    [s for s, _ in expected] + [self.tensors[node.table.lut].shape],
                    [d for _, d in expected] + [self.tensors[node.table.lut].dtype],
                )
            actual = [(self.tensors[t].shape, self.tensors[t].dtype) for t in node.outputs]
            if [(tuple(s), d) for s, d in expected] != actual:
                raise ModelError(
                    "a node's output types are not what its op infers",
                    where=node.name,
                    required=str(expected),
                    available=str(actual),
                )
            for t in node.outputs:
                if t in made:
                    raise ModelError("a tensor is made twice", where=f"{self.tensors[t].name} by {node.name}")
                made.add(t)
        for t in self.outputs:
            if t not in made:
                raise ModelError("an output is never made", where=self.tensors[t].name)

    def __str__(self) -> str:
        def show(t: int) -> str:
            tensor = self.tensors[t]
            return f"%{t} {tensor.name}: {tensor.dtype}{list(tensor.shape)}" + (
                " const" if tensor.data is not None else ""
            )

        lines = [f"graph {self.name}({', '.join(show(t) for t in self.inputs)})"]
        lines += [
            f"  {', '.join(show(t) for t in n.outputs)} = {type(n.op).__name__}({', '.join(f'%{t}' for t in n.inputs)})"
            + (f" then %{n.table.lut}" if n.table is not None else "")
            for n in self.nodes
        ]
        return "\n".join([*lines, f"  return {', '.join(f'%{t}' for t in self.outputs)}"])


def from_function(func: relax.Function, name: str = "main") -> Graph:
    """The graph of a Relax function whose body is calls of ``relax.ergo.*`` ops; composite functions inside are
    flattened.

    Errors: ModelError for any other expression, for dynamic shapes, and for what :meth:`Graph.validate` finds.
    """
    reader = _Reader()
    for param in func.params:
        shape, dtype = _tensor_type(param)
        reader.env[param] = (reader.tensor(param.name, shape, dtype),)
    inputs = tuple(reader.env[p][0] for p in func.params)
    outputs = reader.body(func.body)
    graph = Graph(tuple(reader.tensors), tuple(reader.nodes), inputs, outputs, name)
    graph.validate()
    return graph


class _Reader:
    """Walks a function's bindings; ``env`` holds the tensor ids of each variable (several for a tuple)."""

    def __init__(self):
        self.tensors: list[Tensor] = []
        self.nodes: list[Node] = []
        self.env: dict[relax.Var, tuple[int, ...] | relax.Function] = {}
        self.constants: dict[tuple, int] = {}

    def tensor(self, name: str, shape, dtype: str, data: np.ndarray | None = None) -> int:
        self.tensors.append(Tensor(len(self.tensors), name, tuple(shape), dtype, data))
        return len(self.tensors) - 1

    def body(self, body: relax.Expr) -> tuple[int, ...]:
        if not isinstance(body, relax.SeqExpr):
            return self.read(body)
        for block in body.blocks:
            for binding in block.bindings:
                value = binding.value
                if isinstance(value, relax.Function):
                    self.env[binding.var] = value
                elif isinstance(value, relax.Call):
                    self.env[binding.var] = self.call(value, binding.var.name)
                else:
                    self.env[binding.var] = self.read(value.value if isinstance(value, relax.MatchCast) else value)
        return self.read(body.body)

    def read(self, expr: relax.Expr) -> tuple[int, ...]:
        """Tensor ids an expression stands for, tuples flattened."""
        if isinstance(expr, relax.Var) and isinstance(self.env.get(expr), tuple):
            return self.env[expr]
        if isinstance(expr, Constant):
            return (self.constant(expr),)
        if isinstance(expr, relax.Tuple):
            return tuple(t for field in expr.fields for t in self.read(field))
        if isinstance(expr, relax.TupleGetItem):
            return (self.read(expr.tuple_value)[expr.index],)
        raise ModelError(
            "an expression that no chip function can hold",
            where=f"{type(expr).__name__}: {str(expr)[:200]}",
            remedy='partition the module first; host ops stay outside of functions with Codegen="ergo"',
        )

    def constant(self, expr: Constant) -> int:
        """Equal constants (bytes, shape, dtype) are one tensor."""
        data = expr.value.numpy()
        key = (data.dtype.str, data.shape, data.tobytes())
        if key not in self.constants:
            self.constants[key] = self.tensor(f"const{len(self.constants)}", data.shape, data.dtype.name, data)
        return self.constants[key]

    def name_constants(self, op, inputs: tuple[int, ...]) -> None:
        """Names constants after their first use, as ``layer.w``; others in reports would be numbers only."""
        for role, t in zip(op.arg_names, inputs):
            tensor = self.tensors[t]
            if op.name and tensor.data is not None and tensor.name.startswith("const") and tensor.name[5:].isdigit():
                self.tensors[t] = replace(tensor, name=f"{op.name}.{role.lstrip('*')}")

    def call(self, call: relax.Call, name: str) -> tuple[int, ...]:
        if is_ergo_call(call):
            op = from_call(call)
            inputs = tuple(t for arg in call.args for t in self.read(arg))
            self.name_constants(op, inputs)
            types = [self.tensors[t] for t in inputs]
            results = op.infer([t.shape for t in types], [t.dtype for t in types])
            names = [name] if len(results) == 1 else [f"{name}.{i}" for i in range(len(results))]
            outputs = tuple(self.tensor(n, shape, dtype) for n, (shape, dtype) in zip(names, results, strict=True))
            self.nodes.append(Node(len(self.nodes), name, op, inputs, outputs))
            return outputs
        func = self.env.get(call.op) if isinstance(call.op, relax.Var) else call.op
        if not isinstance(func, relax.Function):
            raise ModelError(
                "a call that is not of the integer dialect",
                where=f"{name} = {str(call.op)[:200]}",
                remedy='partition the module first; host ops stay outside of functions with Codegen="ergo"',
            )
        for param, arg in zip(func.params, call.args, strict=True):
            self.env[param] = self.read(arg)
        return self.body(func.body)


def _tensor_type(var: relax.Var) -> tuple[tuple[int, ...], str]:
    """Static shape and dtype of a variable. Errors: ModelError when it is no tensor or a dimension is symbolic."""
    static = static_tensor_type(var)
    if static is None:
        raise ModelError(
            "a chip function's parameter must be a tensor of known shape",
            where=f"{var.name}: {var.ty}",
            remedy="bind every dimension to a number",
        )
    return static
