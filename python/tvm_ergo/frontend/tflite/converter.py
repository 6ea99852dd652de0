"""From a TFLite subgraph to one Relax function in QDQ form: the state of a conversion, and the few words all rules are
written in.

A quantized operator becomes ``quantize(op(dequantize(x), ...))`` with the file's own scales, which the integer lowering
turns back into int8 instructions; its result is within one step of LiteRT's integer kernels. Float operators stay
float."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.frontend.tflite import constants
from tvm_ergo.frontend.tflite.flat import MAX_TENSOR_BYTES, NUMPY, Operator, Quantization, Subgraph, Tensor
from tvm_ergo.frontend.tflite.registry import RULES, Rule, option_values
from tvm_ergo.relay_passes.interpreter import evaluate_call
from tvm_ergo.relay_passes.interpreter_ops import OPERATORS
from tvm_ergo.relay_passes.relax_utils import (
    Call,
    Constant,
    Expr,
    Tuple,
    array_of,
    const,
    dtype_of,
    is_tensor,
    op_name,
    safe_name,
    shape_of,
)
from tvm_ergo.target.errors import ErgoError, ModelError, UnsupportedError
from tvm_ergo.target.limits import TAKEN_APART, Declared

_STORED = ("int8", "uint8", "int16")
_KEPT = ("relax.dequantize", "relax.quantize")
"""Calls on constants that are not computed here: the passes look for them."""


@dataclass(frozen=True)
class State:
    """A value that lives from one run to the next: what it is before the first, and its quantization. name: the
    file's."""

    name: str
    initial: np.ndarray
    quantization: Quantization | None


class Node:
    """One operator being converted. ``opt``: its options by name."""

    def __init__(self, op: Operator, rule: Rule, graph: Subgraph):
        self.op, self.rule, self.graph, self.opt = op, rule, graph, option_values(rule, op)

    @property
    def code(self) -> str:
        return self.op.code

    def has(self, i: int) -> bool:
        """Whether input ``i`` is given."""
        return i < len(self.op.inputs) and self.op.inputs[i] >= 0

    def input(self, i: int) -> Tensor:
        if not self.has(i):
            raise ModelError(f"{self.code} lacks its input {i}", where=self.where)
        return self.graph.tensors[self.op.inputs[i]]

    def output(self, k: int = 0) -> Tensor:
        if k >= len(self.op.outputs):
            raise ModelError(f"{self.code} lacks its output {k}", where=self.where)
        return self.graph.tensors[self.op.outputs[k]]

    @property
    def where(self) -> str:
        """``operator 3 (CONV_2D) that gives 'name'``."""
        given = (
            f" that gives {self.graph.tensors[self.op.outputs[0]].name!r}"
            if self.op.outputs and self.op.outputs[0] >= 0
            else ""
        )
        return f"operator {self.op.position} ({self.code}){given}"

    def refuse(
        self, what: str, required: str | None = None, available: str | None = None, remedy: str | None = None
    ) -> UnsupportedError:
        """The error of a variant that is not imported, to be raised."""
        return UnsupportedError(
            f"{self.code} {what}",
            where=self.where,
            required=required,
            available=available,
            remedy=remedy or "convert the model without it",
        )


@dataclass
class Converter:
    """The function being written. ``values``: stored expression by tensor index; ``current``, ``initial``, ``states``:
    of each state by name its value now, its first value where the file gives one, and its record and parameter.
    ``depth``: calls around this one; ``once``: before the first run."""

    graph: Subgraph
    subgraphs: tuple[Subgraph, ...]
    bb: relax.BlockBuilder
    values: dict[int, Expr] = field(default_factory=dict)
    handles: dict[int, str] = field(default_factory=dict)
    current: dict[str, Expr] = field(default_factory=dict)
    initial: dict[str, np.ndarray] = field(default_factory=dict)
    states: dict[str, tuple[State, relax.Var]] = field(default_factory=dict)
    depth: int = 0
    once: bool = False
    declared: Declared = field(default_factory=lambda: Declared("the TFLite file", parts=TAKEN_APART))

    # ---- writing ----
    def emit(self, call: Expr, name: str = "") -> Expr:
        """``call`` bound to a variable, or its value where it depends on constants only."""
        call = self.bb.normalize(call)
        if is_tensor(call):
            size = math.prod(shape_of(call)) * max(np.dtype(dtype_of(call)).itemsize, 1)
            if size > MAX_TENSOR_BYTES:
                raise ModelError(
                    "a tensor is larger than any chip's memory",
                    available=f"{dtype_of(call)}{list(shape_of(call))}",
                    required=f"at most {MAX_TENSOR_BYTES:,} bytes",
                    remedy="reduce the model's input or its layers",
                )
            self.declared.add(size, name or op_name(call))
        if (
            isinstance(call, Call)
            and op_name(call) in OPERATORS
            and op_name(call) not in _KEPT
            and all(map(_known, call.args))
        ):
            value = evaluate_call(call, [_operand(a) for a in call.args])
            return value if isinstance(value, tuple) else const(np.asarray(value, dtype_of(call)))
        return self.bb.emit(call, name) if not isinstance(call, (relax.Var, Constant)) else call

    def store(self, node: Node, real: Expr, k: int = 0) -> None:
        """Output ``k`` is ``real``, quantized as the file says (or converted to its element type)."""
        out = node.output(k)
        dtype = dtype_of_output(out, node)
        if is_quantized(out) and dtype_of(real) == "float32":
            self.bind(out, self.quantized(real, out, node))
            return
        self.bind(out, real if dtype_of(real) == dtype else self.emit(relax.op.astype(real, dtype)))

    def bind(self, out: Tensor, expr: Expr) -> None:
        """Output tensor ``out`` is the stored value ``expr``, under its own name."""
        if isinstance(expr, Call):
            expr = self.emit(expr, safe_name(out.name))
        self.values[out.index] = expr

    def quantized(self, real: Expr, out: Tensor, node: Node) -> Call:
        q = out.quantization
        if not q.per_tensor:
            raise node.refuse(
                "gives a tensor with a scale per channel",
                required="one scale for the whole tensor",
                available=f"{q.scale.size} scales",
            )
        return relax.op.quantize(
            real,
            const(q.scale[0]),
            const(np.int32(q.zero_point[0])),
            axis=max(len(shape_of(real)) - 1, 0),
            out_dtype=dtype_of_output(out, node),
        )

    # ---- reading ----
    def stored(self, node: Node, i: int) -> Expr:
        """Input ``i`` as it is stored: integers of a quantized tensor; float16 constants as float32."""
        return self.value_of(node.input(i), node)

    def value_of(self, tensor: Tensor, node: Node) -> Expr:
        if tensor.index in self.values:
            return self.values[tensor.index]
        if tensor.data is not None or 0 in tensor.shape:
            data = (
                tensor
                if tensor.data is not None
                else Tensor(
                    tensor.index, tensor.name, tensor.shape, tensor.type, tensor.quantization, np.zeros(0, np.uint8)
                )
            )
            self.values[tensor.index] = const(constants.array_of(data))
            return self.values[tensor.index]
        if tensor.variable:
            return self.state(tensor.name, tensor, node)
        raise ModelError(
            "an operator reads a tensor that nothing computes",
            where=node.where,
            available=f"tensor {tensor.name!r}",
            remedy="operators must stand in the order in which they run; convert the model again",
        )

    def real(self, node: Node, i: int, factor: float = 1.0) -> Expr:
        """Input ``i`` as real numbers (float32): dequantized where the file quantizes it, times ``factor``; integers
        without a scale as they are."""
        return self.real_of(self.stored(node, i), node.input(i), factor)

    def real_of(self, stored: Expr, tensor: Tensor, factor: float = 1.0, axis: int | None = None) -> Expr:
        """``stored`` integers of ``tensor`` as real numbers; ``axis``: where the channels stand now."""
        if not is_quantized(tensor) or dtype_of(stored) == "float32":
            return (
                stored
                if factor == 1.0 or dtype_of(stored) != "float32"
                else self.emit(relax.op.multiply(stored, const(np.float32(factor))))
            )
        q = tensor.quantization
        scale = (q.scale.astype(np.float64) * factor).astype(np.float32)
        axis = q.axis if axis is None else axis
        if q.per_tensor:
            scale, zero, axis = scale[0], np.int32(q.zero_point[0]), max(len(shape_of(stored)) - 1, 0)
        else:
            zero = q.zero_point.astype(np.int32) if q.zero_point.any() else np.int32(0)
            rank = len(shape_of(stored))
            if not 0 <= axis < rank or shape_of(stored)[axis] != q.scale.size:
                raise ModelError(
                    "the scales of a tensor do not fit its shape",
                    where=f"tensor {tensor.name!r}, {tensor}",
                    available=f"{q.scale.size} scales along dimension {axis}",
                    remedy="convert the model again; the file is damaged",
                )
        if isinstance(stored, Constant) and dtype_of(stored) not in ("int8", "uint8"):
            spread = [-1 if i == axis else 1 for i in range(len(shape_of(stored)))]
            zero, scale = (np.reshape(v, spread) if np.ndim(v) else v for v in (zero, scale))
            return const(
                ((array_of(stored).astype(np.int64) - zero) * np.asarray(scale, np.float64)).astype(np.float32)
            )
        return self.emit(relax.op.dequantize(stored, const(scale), const(zero), axis=axis))

    def array(self, node: Node, i: int, what: str) -> np.ndarray:
        """The stored values of input ``i``, which must be known before the first run. Errors: UnsupportedError."""
        expr = self.stored(node, i)
        if not isinstance(expr, Constant):
            raise node.refuse(
                f"takes {what} that is computed at run time",
                required="a constant: the chip's memory is planned before the first run",
                available=f"tensor {node.input(i).name!r}",
            )
        return np.asarray(array_of(expr))

    def ints(self, node: Node, i: int, what: str) -> list[int]:
        return [int(v) for v in self.array(node, i, what).reshape(-1)]

    def move(self, node: Node, function, i: int = 0, k: int = 0) -> None:
        """Output ``k`` is input ``i`` moved by ``function(expr) -> call``: stored integers keep their scale and zero
        point."""
        stored, source, out = self.stored(node, i), node.input(i), node.output(k)
        self.bind(out, self.moved(node, stored, source, function))

    def moved(self, node: Node, stored: Expr, source: Tensor, function) -> Expr:
        """``stored`` after a movement: between dequantize and quantize of its own scale where it is quantized and not
        constant."""
        if (
            isinstance(stored, Constant)
            or not is_quantized(source)
            or dtype_of(stored) not in _STORED
            or not source.quantization.per_tensor
        ):
            return function(stored)
        return self.quantized(self.emit(function(self.real_of(stored, source))), source, node)

    # ---- states ----
    def state(self, name: str, tensor: Tensor, node: Node) -> Expr:
        """The current value of the state ``name``, of the type of ``tensor``; its value before the run comes in as a
        parameter."""
        if name in self.current:
            return self.current[name]
        initial = self.initial.get(name)
        if initial is None:
            q = tensor.quantization
            initial = np.full(tensor.shape, int(q.zero_point[0]) if q is not None else 0, dtype_of_output(tensor, node))
        var = relax.Var(safe_name(f"{name}_before"), relax.TensorType(initial.shape, str(initial.dtype)))
        self.states[name] = State(name, initial, tensor.quantization), var
        self.current[name] = var
        return var


def _known(expr: Expr) -> bool:
    return (
        isinstance(expr, (Constant, relax.ShapeExpr, tvm.tirx.IntImm, tvm.tirx.FloatImm))
        or isinstance(expr, Tuple)
        and all(map(_known, expr.fields))
    )


def _operand(expr: Expr):
    if isinstance(expr, Constant):
        return array_of(expr)
    if isinstance(expr, relax.ShapeExpr):
        return tuple(int(d) for d in expr.values)
    return tuple(_operand(f) for f in expr.fields) if isinstance(expr, Tuple) else expr.value


def is_quantized(tensor: Tensor) -> bool:
    return tensor.quantization is not None and tensor.type in ("INT8", "UINT8", "INT16", "INT4", "INT32", "INT64")


def dtype_of_output(tensor: Tensor, node: Node) -> str:
    """The element type of a tensor computed at run time: float16 is computed in float32."""
    if tensor.type not in NUMPY or tensor.type == "INT4":
        raise node.refuse(
            f"computes with {tensor.type.lower()} values", required=", ".join(t for t in NUMPY if t != "INT4")
        )
    return "float32" if tensor.type == "FLOAT16" else NUMPY[tensor.type]


def convert(converter: Converter, graph: Subgraph) -> None:
    """Convert the operators of ``graph`` in order. Errors: ModelError, UnsupportedError naming the operator."""
    for op in graph.operators:
        node = Node(op, RULES[op.code], graph)
        try:
            node.rule.convert(converter, node)
        except ErgoError:
            raise
        except (
            RuntimeError,
            ValueError,
            TypeError,
            AttributeError,
            IndexError,
            KeyError,
            AssertionError,
            OverflowError,
        ) as error:
            listed = ", ".join(str(graph.tensors[i]) for i in op.inputs if i >= 0)
            raise ModelError(
                f"the inputs of {op.code} do not fit each other or its options",
                where=node.where,
                available=listed or "no inputs",
                remedy="the file is damaged, or uses a form of the operator that LiteRT refuses too; convert the "
                "model again",
            ) from error
