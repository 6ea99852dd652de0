"""Elementwise stages of 8-bit tensors: of one tensor, a table; of two, a weighted sum, a product, a maximum or a
minimum."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm.ir import prim

from tvm_ergo.codegen.tir.builder import GraphBuilder
from tvm_ergo.codegen.tir.epilogue import Epilogue, centred_product, centred_sum, check_multiplier, clip_to_int8, peel
from tvm_ergo.codegen.tir.expressions import Affine, Env, Load, Mismatch, evaluate, polynomial
from tvm_ergo.codegen.tir.stages import Stage, Var, dtype_of
from tvm_ergo.relay_passes.dialect import Add, Maximum, Minimum, Mul, Table
from tvm_ergo.relay_passes.dialect.elementwise import ADD_MULTIPLIER_BITS


class ElementwiseEmitter:
    """Emits one elementwise stage; ``tensor`` gives the id of a buffer that exists."""

    def __init__(self, graph: GraphBuilder, stage: Stage, env: Env, tensor: Callable[[Var], int]):
        self.graph, self.stage, self.env, self.tensor = graph, stage, env, tensor

    def emit(self, loads: list[Load]) -> int:
        """The id of the result, of the stage's shape. Errors: Mismatch where the chip has no such op."""
        if len(loads) == 1:
            return self._table(loads[0])
        if len(loads) == 2:
            return self._binary(*loads)
        raise Mismatch(f"an elementwise expression of {len(loads)} tensors: the chip takes one or two")

    def _aligned(self, load: Load, broadcast: bool) -> int:
        """The tensor read by ``load``, with its axes in the stage's order (extent 1 where it is broadcast)."""
        shape = [axis.extent for axis in self.stage.axes]
        position = {axis.var: i for i, axis in enumerate(self.stage.axes)}
        value = self.tensor(load.buffer)
        axes: list[int | None] = []
        for index in load.indices:
            if index == Affine():
                axes.append(None)
            elif (
                index.constant == 0
                and len(index.terms) == 1
                and index.terms[0][1] == 1
                and index.terms[0][0] in position
            ):
                axes.append(position[index.terms[0][0]])
            else:
                raise Mismatch(f"{load.buffer.name} read with an offset or a step")
        used = [a for a in axes if a is not None]
        if len(set(used)) != len(used) or (not broadcast and any(n != 1 for i, n in enumerate(shape) if i not in used)):
            raise Mismatch(f"{load.buffer.name} read along a diagonal, or repeated")
        extents = [1 if a is None else shape[a] for a in axes]
        value = self.graph.crop(value, extents, self.stage.name)
        value = self.graph.reshape(value, [n for a, n in zip(axes, extents) if a is not None], self.stage.name)
        order = sorted(used)
        value = self.graph.transpose(value, [used.index(a) for a in order], self.stage.name)
        return self.graph.reshape(value, [n if i in used else 1 for i, n in enumerate(shape)], self.stage.name)

    def _table(self, load: Load) -> int:
        """Any function of one 8-bit value is a table: the expression, evaluated at all 256 values."""
        source, result = dtype_of(load.buffer), dtype_of(self.stage.buffer)
        if result not in ("int8", "uint8") or source not in ("int8", "uint8"):
            raise Mismatch(f"a function from {source} to {result}: a table has 8 bits on both sides")
        domain = np.arange(256, dtype=np.int64) - (128 if source == "int8" else 0)
        lut = evaluate(self.stage.value, self.env, lambda _: domain.astype(source), {})
        x = self._aligned(load, broadcast=False)
        if result == source and np.array_equal(lut, domain):
            return x  # a copy, or only a movement
        return self.graph.emit(
            Table(name=self.stage.name), x, self.graph.constant(lut.astype(result)), name=self.stage.name
        )

    def _binary(self, a: Load, b: Load) -> int:
        if {dtype_of(x) for x in (a.buffer, b.buffer, self.stage.buffer)} != {"int8"}:
            raise Mismatch("an elementwise function of two tensors that are not all int8")
        x, y = self._aligned(a, broadcast=True), self._aligned(b, broadcast=True)
        choice = self._choice(a, b)
        if choice is not None:
            return self.graph.emit(choice(name=self.stage.name), x, y, name=self.stage.name)
        if self._wraps(a, b):
            return self._wrapping_add(x, y)
        return self.graph.emit(self._arithmetic(a, b), x, y, name=self.stage.name)

    def _choice(self, a: Load, b: Load) -> type[Maximum] | type[Minimum] | None:
        value = self.stage.value
        if not isinstance(value, (prim.Max, prim.Min)):
            return None
        sides = [polynomial(side, self.env) for side in (value.a, value.b)]
        if sorted(map(str, sides)) != sorted(map(str, [{(a,): 1}, {(b,): 1}])):
            return None
        return Maximum if isinstance(value, prim.Max) else Minimum

    def _arithmetic(self, a: Load, b: Load) -> Add | Mul:
        e = peel(self.stage.value, self.env)
        lo, hi = clip_to_int8(e)
        common = dict(shift=e.shift, lo=lo, hi=hi, out_zp=e.offset, name=self.stage.name)
        if not -128 <= e.offset <= 127:
            raise Mismatch(f"an output zero point of {e.offset}: the chip's is int8")
        return self._product(e, a, b, common) if any(len(m) == 2 for m in e.poly) else self._sum(e, a, b, common)

    @staticmethod
    def _product(e: Epilogue, a: Load, b: Load, common: dict) -> Mul:
        mult, a_zp, b_zp, rest = centred_product(e.poly, a, b)
        if rest != e.half:
            raise Mismatch(f"a rounding constant of {rest}: the chip rounds half up, which is {e.half}")
        return Mul(a_zp=a_zp, b_zp=b_zp, mult=check_multiplier(mult), **common)

    @staticmethod
    def _sum(e: Epilogue, a: Load, b: Load, common: dict) -> Add:
        a_mult, b_mult, a_zp, b_zp = centred_sum(e.poly, a, b, e.half)
        if max(abs(a_mult), abs(b_mult)) >= 2**ADD_MULTIPLIER_BITS:
            raise Mismatch(f"multipliers {a_mult}, {b_mult}: the chip's are below 2**{ADD_MULTIPLIER_BITS}")
        return Add(a_zp=a_zp, b_zp=b_zp, a_mult=a_mult, b_mult=b_mult, **common)

    # ---- the plain int8 sum, which wraps around ----
    def _wraps(self, a: Load, b: Load) -> bool:
        """Whether the stage is ``a + b`` in int8."""
        value = self.stage.value
        return (
            isinstance(value, prim.Add)
            and str(value.ty) == "int8"
            and sorted(str(polynomial(s, self.env)) for s in (value.a, value.b))
            == sorted(map(str, [{(a,): 1}, {(b,): 1}]))
        )

    def _wrapping_add(self, x: int, y: int) -> int:
        """``a + b`` modulo 256 from saturating sums: with s the exact sum, low = clip(s), above = clip(s - 255) is -128
        unless s > 127, below = clip(s + 255) is 127 unless s < -128; tables turn the two into what must be added to low
        instead of 127 or -128."""
        name = self.stage.name

        def add(p: int, q: int, a_zp: int, b_zp: int, out_zp: int) -> int:
            return self.graph.emit(
                Add(a_zp=a_zp, b_zp=b_zp, a_mult=1, b_mult=1, shift=0, out_zp=out_zp, name=name), p, q, name=name
            )

        def table(p: int, values: np.ndarray) -> int:
            return self.graph.emit(Table(name=name), p, self.graph.constant(values.astype(np.int8)), name=name)

        domain = np.arange(-128, 128)
        low = add(x, y, 0, 0, 0)
        above = table(
            add(x, y, 127, 127, -1), np.where(domain == -128, 127, domain - 1)
        )  # s - 256, or 127 to undo the -127 below
        below = table(
            add(x, y, -128, -128, -1), np.where(domain == 127, -128, domain + 1)
        )  # s + 256, or -128 to undo the +128
        return add(add(low, above, 127, 0, 0), below, -128, 0, 0)
