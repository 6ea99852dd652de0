"""A sum of products, read by its access maps: which axes both operands, one operand, or the result have decides what it
is.

No window on either operand: a (batched) matrix product of any index order. A window (``out * stride + tap * dilation``)
on one: a convolution over up to two dimensions, of any layout; depthwise where operands and result share the channel
axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from tvm.ir import prim
from tvm.ir.expr import TensorLoad

from tvm_ergo.codegen.tir.epilogue import centred_product
from tvm_ergo.codegen.tir.expressions import Affine, Env, Load, Mismatch, affine, polynomial
from tvm_ergo.codegen.tir.stages import Stage, Var, dtype_of


@dataclass(frozen=True)
class Window:
    """One windowed dimension: input index = ``out * stride + tap * dilation``. None: no such axis (extent 1)."""

    out: Var | None
    tap: Var | None
    stride: int = 1
    dilation: int = 1


@dataclass(frozen=True)
class Operand:
    """An operand: its load, zero point, and per dimension the axis (None: index 0) or the Window."""

    load: Load
    zero_point: int
    dims: tuple[Var | Window | None, ...]

    @property
    def axes(self) -> list[Var]:
        return [d for d in self.dims if isinstance(d, _VAR)]

    @property
    def windows(self) -> list[Window]:
        return [d for d in self.dims if isinstance(d, Window)]


@dataclass(frozen=True)
class Contraction:
    """``result[axes] = sum over reduce of (x - x.zero_point) * (w - w.zero_point)``. Only ``x`` may have windows.

    ``extents`` of every axis; the groups of axes by who has them: ``batch`` (x, w, result), ``rows`` (x, result),
    ``columns`` (w, result), ``inner`` (x, w, summed).
    """

    stage: Stage
    x: Operand
    w: Operand
    extents: dict[Var, int]
    batch: tuple[Var, ...]
    rows: tuple[Var, ...]
    columns: tuple[Var, ...]
    inner: tuple[Var, ...]

    @property
    def depth(self) -> int:
        """Products summed for one result."""
        return prod(a.extent for a in self.stage.reduce)

    @property
    def swapped(self) -> Contraction:
        """The same sum with the operands' roles exchanged (itself where x has windows)."""
        return self if self.x.windows else replace(self, x=self.w, w=self.x, rows=self.columns, columns=self.rows)

    def size(self, axes: Sequence[Var]) -> int:
        return prod(self.extents[a] for a in axes)


_VAR = Var


def contraction_of(stage: Stage, env: Env) -> Contraction:
    """Errors: Mismatch saying what is not of the form."""
    if not isinstance(stage.init, prim.IntImm) or int(stage.init.value) != 0:
        raise Mismatch(f"a sum that does not start from 0: {stage.init}")
    if dtype_of(stage.buffer) != "int32":
        raise Mismatch(f"accumulators of type {dtype_of(stage.buffer)}: the chip accumulates in int32")
    a, b, a_zp, b_zp = _product(stage, env)
    for load in (a, b):
        if dtype_of(load.buffer) != "int8":
            raise Mismatch(f"an operand {load.buffer.name} of type {dtype_of(load.buffer)}: the chip multiplies int8")
    extents = {axis.var: axis.extent for axis in (*stage.axes, *stage.reduce)}
    spatial, summed = {axis.var for axis in stage.axes}, {axis.var for axis in stage.reduce}
    x, w = (
        Operand(load, zp, tuple(_dim(i, extents, spatial, summed) for i in load.indices))
        for load, zp in ((a, a_zp), (b, b_zp))
    )
    first = next((a.var for a in stage.axes if a.extent != 1 and (a.var in x.axes) != (a.var in w.axes)), None)
    if w.windows or (not x.windows and first in w.axes):
        x, w = w, x  # x gives the result's leading axes, so that a plain product needs no transposing
    if w.windows or len(x.windows) > 2:
        raise Mismatch("windows on both operands, or over more than two dimensions")
    return _grouped(stage, x, w, extents, spatial, summed)


def _product(stage: Stage, env: Env) -> tuple[Load, Load, int, int]:
    value, own = stage.value, None
    if isinstance(value, prim.Add):
        own, added = (value.a, value.b) if _is_own(value.a, stage) else (value.b, value.a)
    if own is None or not _is_own(own, stage):
        raise Mismatch(f"a reduction that does not add to its own element: {value}")
    poly = polynomial(added, env)
    loads = list(dict.fromkeys(load for monomial in poly for load in monomial))
    if len(loads) != 2:
        raise Mismatch(f"a sum of something else than products of two tensors: {added}")
    scale, a_zp, b_zp, rest = centred_product(poly, *loads)
    if scale != 1 or rest != 0:
        raise Mismatch(f"a product with a factor or a constant: {added}")
    return *loads, a_zp, b_zp


def _is_own(expr, stage: Stage) -> bool:
    """Whether ``expr`` reads the element the stage writes."""
    return (
        isinstance(expr, TensorLoad)
        and expr.source.same_as(stage.buffer)
        and all(affine(i, Env()) in (Affine(((axis.var, 1),)), Affine()) for i, axis in zip(expr.indices, stage.axes))
    )


def _dim(index: Affine, extents: dict[Var, int], spatial: set[Var], summed: set[Var]) -> Var | Window | None:
    terms = [(v, c) for v, c in index.terms if extents.get(v) != 1]
    if index.constant != 0 or any(v not in extents or c < 1 for v, c in terms) or len(terms) > 2:
        raise Mismatch(f"an index with an offset, a negative step or more than two axes: {index}")
    if not terms:
        return None
    if len(terms) == 1 and terms[0][1] == 1:
        return terms[0][0]
    out = [(v, c) for v, c in terms if v in spatial]
    tap = [(v, c) for v, c in terms if v in summed]
    if len(out) > 1 or len(tap) > 1:
        raise Mismatch(f"an index over two axes of the same kind: {index}")
    return Window(*(p[0][0] if p else None for p in (out, tap)), *(p[0][1] if p else 1 for p in (out, tap)))


def _grouped(stage, x: Operand, w: Operand, extents, spatial, summed) -> Contraction:
    windows = x.windows
    outs, taps = {v.out for v in windows if v.out is not None}, {v.tap for v in windows if v.tap is not None}
    used = [*x.axes, *outs, *taps]
    if len(set(used)) != len(used) or len(set(w.axes)) != len(w.axes):
        raise Mismatch("an operand that is read along a diagonal")
    if outs & set(w.axes) or taps - set(w.axes):
        raise Mismatch("a window whose taps are not all in the other operand")
    x_axes, w_axes = set(x.axes), set(w.axes) - taps
    live = {v for v, n in extents.items() if n != 1}
    if ((x_axes ^ w_axes) & summed) or (live - x_axes - w_axes - outs - taps):
        raise Mismatch("an axis that only one operand is summed over, or that no operand has")

    def ordered(axes: set[Var], operand: Operand) -> tuple[Var, ...]:
        return tuple(v for v in operand.axes if v in axes)

    batch, columns, inner = (
        ordered(x_axes & w_axes & spatial, x),
        ordered((w_axes - x_axes) & spatial, w),
        ordered(x_axes & w_axes & summed, x),
    )
    if batch and inner and not columns and windows and len(windows) + len(inner) <= 2:
        # a depthwise window of one position: its taps look like a channel axis
        x, inner = replace(x, dims=tuple(Window(None, d) if d in inner else d for d in x.dims)), ()
    return Contraction(stage, x, w, extents, batch, ordered((x_axes - w_axes) & spatial, x), columns, inner)
