"""Dialect ops that give the raw int32 accumulators: what a PrimFunc with an int32 result asks of the tensor engine.

They are the dialect's linear ops with another last step: the instruction's ``out`` operand has dtype I32, so nothing is
requantized. Models never contain them; only PrimFuncs do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import te

from tvm_ergo.relay_passes.dialect import contraction
from tvm_ergo.relay_passes.dialect.base import Shape, ergo_op
from tvm_ergo.relay_passes.dialect.linear import Conv2d, DepthwiseConv2d, MatMul
from tvm_ergo.relay_passes.dialect.traits import Rows, Traits


class _Raw:
    """Replaces the int8 result type by int32."""

    in_models = False

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        return [(shape, "int32") for shape, _ in super().infer(shapes, dtypes)]


@ergo_op("conv2d_accumulate")
@dataclass(frozen=True)
class Conv2dAccumulate(_Raw, Conv2d):
    """conv2d without requantization: ``bias + sum (x - in_zp) * (w - w_zp)``, i32[N,OH,OW,O]; mult, shift, lo, hi are
    not used."""

    traits = Traits(rows=Rows.WHOLE)

    def compute_packed(
        self, x: te.Tensor, packed: te.Tensor, bias: te.Tensor, mult: te.Tensor, shift: te.Tensor
    ) -> te.Tensor:
        padded = contraction.pad_rows(x, self.padding, self.in_zp)
        acc = contraction.conv(
            padded, packed, int(bias.shape[0]), self.strides, self.dilation, self.groups, self.in_zp, self.w_zp
        )
        shape = (*acc.shape[:3], bias.shape[0])  # the accumulators may have lanes left over
        return te.compute(shape, lambda n, h, v, o: acc(n, h, v, o) + bias(o), name="accumulators")


@ergo_op("depthwise_conv2d_accumulate")
@dataclass(frozen=True)
class DepthwiseConv2dAccumulate(_Raw, DepthwiseConv2d):
    """depthwise_conv2d without requantization, i32[N,OH,OW,C]; mult, shift, lo, hi are not used."""

    traits = Traits(rows=Rows.WHOLE)

    def compute(self, x: te.Tensor, w: te.Tensor, bias: te.Tensor, mult: te.Tensor, shift: te.Tensor) -> te.Tensor:
        padded = contraction.pad_rows(x, self.padding, self.in_zp)
        acc = contraction.depthwise(padded, w, self.strides, self.dilation, self.in_zp, self.w_zp)
        return te.compute(acc.shape, lambda n, h, v, c: acc(n, h, v, c) + bias(c), name="accumulators")


@ergo_op("matmul_accumulate")
@dataclass(frozen=True)
class MatMulAccumulate(_Raw, MatMul):
    """matmul without requantization, i32[...,M,N]; mult, shift, lo, hi are not used."""

    traits = Traits(rows=Rows.WHOLE)

    def compute(self, a: te.Tensor, b: te.Tensor) -> te.Tensor:
        return contraction.matmul(a, b, self.transpose_b, self.a_zp, self.b_zp)
