"""Heads: groups that share keys and values, and masks over them. A part of the lowering (`lower.Lowering`)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.attention import masks, sites
from tvm_ergo.relay_passes.attention.values import Value
from tvm_ergo.relay_passes.micro.lower_context import CannotLower, Quant
from tvm_ergo.relay_passes.support.view import static_shape


class Heads:
    """Operands of attention: [B, H, M, D], or [B, G, n, M, D] where n heads of each of G groups share keys and
    values."""

    def unscaled(self, expr) -> tuple[relax.Expr, float]:
        """An operand without the positive numbers it is multiplied by."""
        scale = 1.0
        while (call := sites.call_of(self.view, expr, "multiply", "divide")) is not None:
            pair = sites.scalar_and_other(self.view, call)
            if pair is None or pair[0] <= 0 or self.view.op(expr) == "relax.divide" and pair[1] != call.args[0]:
                break
            scale *= pair[0] if self.view.op(expr) == "relax.multiply" else 1.0 / pair[0]
            expr = pair[1]
        return expr, scale

    def shared(self, expr) -> tuple[sites.Repeat, list[int]] | None:
        """The repetition behind keys or values [B, H, ...] and the axes' order behind it, where it is of the heads."""
        call = sites.call_of(self.view, expr, "permute_dims")
        source = expr if call is None else call.args[0]
        site, rank = self.sites.get(source), len(static_shape(expr))
        if not isinstance(site, sites.Repeat) or rank != 4:
            return None
        order = (
            list(range(rank))
            if call is None
            else [int(a) % rank for a in call.attrs.axes]
            if call.attrs.axes is not None
            else list(range(rank))[::-1]
        )
        return (site, order) if order[1] == site.axis else None

    def operands(self, a, b, v) -> tuple[Value, Value, Value, int]:
        """q, k and v in int8, and how many heads share keys: more than 1 where keys and values are repeated alike."""
        keys, values = self.shared(b), self.shared(v)
        if keys is None or values is None or keys[0].times != values[0].times or len(static_shape(a)) != 4:
            return self.value(a, False), self.value(b, False), self.value(v, False), 1
        times, shape = keys[0].times, static_shape(a)
        found = [self.value(e, False) for e in (a, keys[0].x, values[0].x)]
        q = self.write.reshaped_to(found[0], (shape[0], shape[1] // times, times, *shape[2:]))
        return q, self._spread(found[1], *keys), self._spread(found[2], *values), times

    def _spread(self, value: Value, site: sites.Repeat, order: list[int]) -> Value:
        """With an axis of length 1 behind the heads, axes in the operand's order: [B, G, 1, ...]."""
        shape = static_shape(site.x)
        value = self.write.reshaped_to(value, (*shape[: site.axis + 1], 1, *shape[site.axis + 1 :]))
        perm = [p for axis in order for p in ((axis, axis + 1) if axis == site.axis else (axis + (axis > site.axis),))]
        if perm == sorted(perm):
            return value
        return replace(
            value,
            expr=self.write.emit(dialect.Transpose(perm=tuple(perm)), value.expr, quant=value.quant, part="_heads"),
        )

    def repeated(self, site: sites.Repeat, wide: bool) -> Value:
        """A repetition that nothing absorbs: copies."""
        x, shape = self.value(site.x, wide), static_shape(site.x)
        parts = self.write.reshaped_to(x, (*shape[: site.axis + 1], 1, *shape[site.axis + 1 :]))
        joined = self.write.made(
            dialect.Concat(axis=site.axis + 1), *[parts.expr] * site.times, quant=x.quant, wide=x.wide
        )
        return self.write.reshaped_to(
            joined, (*shape[: site.axis], shape[site.axis] * site.times, *shape[site.axis + 1 :])
        )

    def split_shape(self, shape: tuple[int, ...], times: int) -> tuple[int, ...]:
        """The shape of what broadcasts to [B, H, M, K], for [B, G, n, M, K]."""
        if times == 1 or len(shape) < 3:
            return shape
        head = len(shape) - 3
        split = (1, 1) if shape[head] == 1 else (shape[head] // times, times)
        return (*shape[:head], *split, *shape[head + 1 :])

    def split_heads(self, array: np.ndarray, times: int) -> np.ndarray:
        return array.reshape(self.split_shape(array.shape, times))

    def mask_tensors(self, found, times: int) -> tuple[list[relax.Expr], int | None]:
        """``(at most one int8 tensor, offset of a causal mask or None)`` that together are all the masks."""
        tensors, offset = [], None
        for mask in found:
            if isinstance(mask, masks.ConstantMask):
                if mask.causal_offset is not None and offset is None:
                    offset = mask.causal_offset
                else:
                    tensors.append(relax.const(self.split_heads(mask.valid.astype(np.int8), times)))
                continue
            expr = self.input_mask(mask) if isinstance(mask, masks.InputMask) else self.host_mask(mask)
            shape = self.split_shape(tuple(int(d) for d in expr.ty.shape.values), times)
            tensors.append(self.write.reshaped_to(Value(expr, Quant(1.0, 0), False), shape).expr)
        while len(tensors) > 1:
            tensors[:2] = [self.write.emit(dialect.Minimum(), *tensors[:2], quant=Quant(1.0, 0))]
        return tensors, offset

    def host_mask(self, mask: masks.HostMask) -> relax.Expr:
        """A mask that is no function of one input: computed on the host, int8."""
        if not isinstance(mask.expr, relax.Var):
            raise CannotLower(
                "its mask is an expression of an unknown kind", "compute the mask from inputs or constants"
            )

        def made():
            real = self.real(mask.expr)
            truth = relax.op.greater(real, relax.const(np.float32(-masks.MASKED))) if mask.additive else real
            truth = relax.op.logical_not(truth) if mask.negated else truth
            return self.write.builder.emit(
                relax.op.astype(self.write.builder.emit(truth), "int8"), name_hint=f"{mask.expr.name}_valid"
            )

        return self._once(("host mask", mask.expr, mask.additive, mask.negated), made)
