"""From a PrimFunc to the graph of integer ops: each stage is a padding, a sum of products, or elementwise.

Stages whose values are wider than 8 bits and not sums are never tensors of their own: their expressions are read inside
the stages that use them. A function that carries the attribute ``ergo.op`` (made by `prim_func_of`) is that one op."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
from tvm import te, tirx
from tvm.ir.expr import TensorLoad

from tvm_ergo.codegen.graph import Graph
from tvm_ergo.codegen.tir.builder import GraphBuilder
from tvm_ergo.codegen.tir.contraction import Contraction, contraction_of
from tvm_ergo.codegen.tir.elementwise import ElementwiseEmitter
from tvm_ergo.codegen.tir.emit import ContractionEmitter, Padding, Requantization
from tvm_ergo.codegen.tir.epilogue import Epilogue, check_multiplier, clip_to_int8, peel
from tvm_ergo.codegen.tir.expressions import Affine, Env, Load, Mismatch, evaluate, loads_of, select_parts
from tvm_ergo.codegen.tir.stages import Stage, Var, dtype_of, shape_of, stages_of, unsupported
from tvm_ergo.relay_passes.dialect import OPS, ErgoOp
from tvm_ergo.target.errors import ModelError, UnsupportedError

OP_ATTRIBUTE = "ergo.op"
EIGHT_BITS = ("int8", "uint8")


def prim_func_of(op: ErgoOp, shapes: list[tuple[int, ...]], dtypes: list[str]) -> tirx.PrimFunc:
    """The op's definition as a PrimFunc (runs on the CPU) that this backend knows to be the op, by its attribute
    ``ergo.op``."""
    inputs = [te.placeholder(s, d, name=f"x{i}") for i, (s, d) in enumerate(zip(shapes, dtypes, strict=True))]
    result = op.compute(*inputs)
    func = te.create_prim_func([*inputs, *(result if isinstance(result, (list, tuple)) else [result])])
    return func.with_attr(OP_ATTRIBUTE, json.dumps({"op": op.op_name, **asdict(op)}))


def graph_of(func: tirx.PrimFunc, name: str) -> Graph:
    """The graph of a PrimFunc: inputs are the buffers it only reads, outputs those it writes, each in parameter order.

    Errors: UnsupportedError saying what was seen, for anything that is not exactly representable on the chip.
    """
    described = func.attrs.get(OP_ATTRIBUTE, None) if func.attrs is not None else None
    try:
        return _graph_of_op(func, str(described), name) if described is not None else _Recogniser(func, name).graph()
    except ModelError as error:
        raise unsupported(f"the PrimFunc {name} is not a valid op: {error.what}", error.where) from error


def _graph_of_op(func: tirx.PrimFunc, described: str, name: str) -> Graph:
    fields = json.loads(described)
    op = OPS[fields.pop("op")](**fields)
    graph = GraphBuilder()
    values = [graph.input(p.name, shape_of(p), dtype_of(p)) for p in list(func.params)[:-1]]
    return graph.finish([graph.emit(op, *values, name=op.name or name)], name)


def _check_parameters(func: tirx.PrimFunc) -> list[Var]:
    for param in func.params:
        if not hasattr(param.ty, "shape"):
            raise unsupported("a parameter that is not a buffer", param)
    return list(func.params)


class _Recogniser:
    """Walks the stages; ``values``: tensor ids of buffers that exist in the graph."""

    def __init__(self, func: tirx.PrimFunc, name: str):
        self.name, self.stages = name, stages_of(func)
        self.params = _check_parameters(func)
        self.written = {s.buffer for s in self.stages}
        self.builder, self.env = GraphBuilder(), Env()
        self.values = {
            p: self.builder.input(p.name, shape_of(p), dtype_of(p)) for p in self.params if p not in self.written
        }
        self.sums: dict[Var, Contraction] = {}
        self.padded: dict[Var, tuple[Var, Padding]] = {}

    def graph(self) -> Graph:
        for stage in self.stages:
            try:
                self._stage(stage)
            except Mismatch as reason:
                raise unsupported(
                    f"the PrimFunc {self.name} has a stage that is no operation of the chip: {reason}",
                    f"block {stage.name!r}: {stage.buffer.name}[...] = {stage.value}",
                ) from None
        outputs = [p for p in self.params if p in self.written]
        if not outputs:
            raise unsupported(f"the PrimFunc {self.name} writes no parameter", self.name)
        return self.builder.finish([self.values[p] for p in outputs], self.name)

    def _stage(self, stage: Stage) -> None:
        is_output = stage.buffer in self.params
        padding = self._padding(stage)
        if padding is not None:
            self.padded[stage.buffer] = padding
            if is_output:
                self.values[stage.buffer] = self._tensor(stage.buffer)
        elif stage.reduce:
            self.sums[stage.buffer] = found = contraction_of(stage, self.env)
            self.env.bounds[stage.buffer] = self._sum_bounds(found)
            if is_output:
                self.values[stage.buffer] = self._emit_sum(found, None, None)
        elif isinstance(stage.value, TensorLoad) and not is_output:
            self.env.inlined[stage.buffer] = stage  # a copy or broadcast: its readers read the source
        elif dtype_of(stage.buffer) in EIGHT_BITS or is_output:
            self.values[stage.buffer] = self._elementwise(stage)
        else:
            self.env.inlined[stage.buffer] = stage

    @staticmethod
    def _sum_bounds(c: Contraction) -> tuple[int, int]:
        limit = c.depth * (128 + abs(c.x.zero_point)) * (128 + abs(c.w.zero_point))
        if limit >= 2**31:
            raise Mismatch(f"{c.depth} products may overflow the int32 accumulator")
        return -limit, limit

    def _tensor(self, buffer: Var) -> int:
        """The id of an existing tensor, padded ones made where needed."""
        if buffer in self.padded and buffer not in self.values:
            source, padding = self.padded[buffer]
            widths = [n for pair in zip(padding.before, padding.after) for n in pair]
            self.values[buffer] = self.builder.pad(self._tensor(source), widths, padding.value, buffer.name)
        if buffer not in self.values:
            raise Mismatch(f"{buffer.name} is read before it is written")
        return self.values[buffer]

    # ---- paddings ----
    def _padding(self, stage: Stage) -> tuple[Var, Padding] | None:
        """(source buffer, Padding) if the stage is ``source[i - before] inside, value outside``; None if it is no such
        thing."""
        parts = select_parts(stage.value)
        if parts is None or dtype_of(stage.buffer) != "int8":
            return None
        outside = parts[2]
        loads = loads_of(parts[1], self.env)
        if not isinstance(outside, tirx.IntImm) or len(loads) != 1 or loads[0].buffer not in self.values:
            return None
        source, before = loads[0].buffer, []
        for axis, index in zip(stage.axes, loads[0].indices):
            if axis.extent == 1 and index == Affine():
                index = Affine(((axis.var, 1),))
            if index.terms != ((axis.var, 1),) or index.constant > 0:
                return None
            before.append(-index.constant)
        shape = shape_of(source)
        after = [axis.extent - n - b for axis, n, b in zip(stage.axes, shape, before)]
        if len(shape) != len(before) or min(after) < 0 or not self._is_inside(stage, parts[0], before, shape):
            return None
        return source, Padding(tuple(before), tuple(after), int(outside.value))

    def _is_inside(self, stage: Stage, condition, before: list[int], shape: tuple[int, ...]) -> bool:
        """Whether the condition holds exactly inside of the source: checked at every element, not by its form."""
        grids = np.meshgrid(*(np.arange(a.extent) for a in stage.axes), indexing="ij", sparse=True)
        try:
            said = evaluate(condition, self.env, _no_reads, {a.var: g for a, g in zip(stage.axes, grids)})
        except Mismatch:
            return False
        inside = np.ones([1] * len(grids), bool)
        for grid, b, n in zip(grids, before, shape):
            inside = inside & (grid >= b) & (grid < b + n)
        return bool(
            np.array_equal(
                np.broadcast_to(said, [a.extent for a in stage.axes]),
                np.broadcast_to(inside, [a.extent for a in stage.axes]),
            )
        )

    # ---- sums ----
    def _emit_sum(self, c: Contraction, bias: int | None, requantization: Requantization | None) -> int:
        x, padding = c.x.load.buffer, None
        if x in self.padded and x not in self.values:
            x, padding = self.padded[x]
        return ContractionEmitter(
            self.builder, c, self._tensor(x), self._tensor(c.w.load.buffer), padding, bias, requantization
        ).emit()

    def _epilogue_of_sum(self, stage: Stage, total: Load) -> int:
        """``stage`` is a function of one sum's element and perhaps a bias: requantized, or the accumulators
        themselves."""
        c = self.sums[total.buffer]
        identity = [Affine(((a.var, 1),)) if a.extent != 1 else None for a in stage.axes]
        if len(total.indices) != len(identity) or any(
            i is not None and i != t for i, t in zip(identity, total.indices)
        ):
            raise Mismatch(f"{total.buffer.name} read in another order than it is written")
        epilogue = peel(stage.value, self.env)
        mult = check_multiplier(epilogue.poly.get((total,), 0))
        try:
            bias = self._bias(stage, c, epilogue, total, mult)
        except Mismatch:
            c = c.swapped
            bias = self._bias(stage, c, epilogue, total, mult)
        if dtype_of(stage.buffer) == "int32":
            if (
                (mult, epilogue.shift, epilogue.offset) != (1, 0, 0)
                or epilogue.lo > -(2**31)
                or epilogue.hi < 2**31 - 1
            ):
                raise Mismatch("an int32 result that is not the accumulators themselves (plus a bias)")
            return self._emit_sum(c, bias, None)
        if dtype_of(stage.buffer) != "int8":
            raise Mismatch(f"a result of type {dtype_of(stage.buffer)}")
        if not -128 <= epilogue.offset <= 127:
            raise Mismatch(f"an output zero point of {epilogue.offset}: the chip's is int8")
        return self._emit_sum(c, bias, Requantization(mult, epilogue.shift, epilogue.offset, *clip_to_int8(epilogue)))

    def _bias(self, stage: Stage, c: Contraction, epilogue: Epilogue, total: Load, mult: int) -> int | None:
        """The int32 vector added to the sum, by channel, if there is one. The rounding constant must be the chip's."""
        poly = epilogue.poly
        if poly.get((), 0) != epilogue.half:
            raise Mismatch(
                f"a rounding constant of {poly.get((), 0)}: the chip rounds half up, which is {epilogue.half} before "
                f"a shift by {epilogue.shift}"
            )
        others = [m for m in poly if m not in ((), (total,))]
        if not others:
            return None
        if len(others) != 1 or len(others[0]) != 1 or poly[others[0]] != mult:
            raise Mismatch("something else than one bias is added to the sum")
        (load,) = others[0]
        channels = c.columns or c.batch
        axis_of = {v.var: i for i, v in enumerate(c.stage.axes)}
        wanted = [Affine(((stage.axes[axis_of[v]].var, 1),)) for v in channels]
        live = {a.var for a in stage.axes if a.extent != 1}
        indices = [Affine(tuple(t for t in i.terms if t[0] in live), i.constant) for i in load.indices]
        if dtype_of(load.buffer) != "int32" or [i for i in indices if i != Affine()] != wanted:
            raise Mismatch(f"a bias that is not an int32 vector over the output channels: {load.buffer.name}")
        return self.builder.reshape(self._tensor(load.buffer), [c.size(channels)], load.buffer.name)

    # ---- elementwise ----
    def _elementwise(self, stage: Stage) -> int:
        loads = loads_of(stage.value, self.env)
        sums = [load for load in loads if load.buffer in self.sums]
        if len(sums) == 1:
            return self._epilogue_of_sum(stage, sums[0])
        if sums:
            raise Mismatch("two sums in one expression")
        return ElementwiseEmitter(self.builder, stage, self.env, self._tensor).emit(loads)


def _no_reads(load: Load) -> np.ndarray:
    raise Mismatch(f"a condition that reads {load.buffer.name}")


__all__ = ["OP_ATTRIBUTE", "UnsupportedError", "graph_of", "prim_func_of"]
