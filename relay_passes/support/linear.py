"""Rules of the tensor engine: convolutions, dense layers, and products of two activations."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes.support.epilogue import Bounds, absorb_clamps, bounds_of, scalar_const
from tvm_ergo.relay_passes.support.rule import Group, Kind, Rule, constraint, make_group, register
from tvm_ergo.relay_passes.support.view import ConstTensor, FunctionView, static_shape


@dataclass(frozen=True)
class LinearParts:
    """A linear group taken apart. weight: [O,kh,kw,C] (dense: [N,K]), bias: float or quantized, one per channel or
    one."""

    x: relax.Var
    call: relax.Call
    weight: ConstTensor
    bias: ConstTensor | None
    bounds: Bounds


class LinearRule(Rule):
    """Base of the layers with constant weights."""

    kind = Kind.LINEAR
    target_layout = "OHWI"

    @classmethod
    def match(cls, view, root, claimed):
        if view.op(root) not in {f"relax.{op}" for op in cls.ops}:
            return None
        members = [root]
        user = view.only_user(root)
        if user is not None and user not in claimed and bias_of(view, user, root) is not None:
            members.append(user)
        return make_group(cls, view, root, absorb_clamps(view, members, claimed))

    @classmethod
    def weight(cls, view: FunctionView, call: relax.Call) -> ConstTensor | None:
        """The weights in OHWI order."""
        const, layout = view.const(call.args[1]), str(call.attrs.kernel_layout)
        if const is None or sorted(layout) != sorted("OIHW"):
            return None
        return const.transpose(tuple(layout.index(c) for c in cls.target_layout))

    @classmethod
    def parts(cls, view: FunctionView, group: Group) -> LinearParts:
        call = view.value[group.root]
        follow = group.members[group.members.index(group.root) + 1 :]
        bias = bias_of(view, follow[0], group.root) if follow else None
        chain = follow if bias is not None else (group.root, *follow)
        return LinearParts(call.args[0], call, cls.weight(view, call), bias, bounds_of(view, chain))

    @constraint
    def constant_weights(group: Group, view: FunctionView) -> str | None:
        """Weights and bias are constants and finite."""
        call = view.value[group.root]
        const = view.const(call.args[1])
        if const is None:
            return "its weights are computed at run time"
        if not np.isfinite(const.real()).all():
            return "its weights contain NaN or infinity"
        parts = group.rule.parts(view, group)
        if parts.bias is not None and not np.isfinite(parts.bias.real()).all():
            return "its bias contains NaN or infinity"
        return None

    @constraint
    def weight_quantization(group: Group, view: FunctionView) -> str | None:
        """Quantized weights are int8 or uint8, per tensor or per output channel, with one zero point."""
        weight = group.rule.weight(view, view.value[group.root])
        if weight is None or weight.scale is None:
            return None
        if str(weight.stored.dtype) not in ("int8", "uint8"):
            return f"its weights are quantized to {weight.stored.dtype}"
        if np.unique(weight.zero_point).size != 1:
            return "its weight channels have different zero points"
        if weight.scale.size > 1 and weight.axis != group.rule.channel_axis(view, group):
            return f"its weights are quantized along axis {weight.axis}, not along the output channels"
        return None

    @classmethod
    def channel_axis(cls, view: FunctionView, group: Group) -> int:
        return 0


def bias_of(view: FunctionView, var: relax.Var, source: relax.Var) -> ConstTensor | None:
    """The constant added to ``source`` by the binding of ``var``: one value, or one per last-axis channel;
    flattened."""
    if view.op(var) != "relax.add":
        return None
    args = view.value[var].args
    other = args[1] if args[0] == source else args[0]
    const, shape = view.const(other), static_shape(source)
    if const is None or shape is None or static_shape(var) != shape:
        return None
    if const.stored.size == 1 or (const.shape and const.stored.size == const.shape[-1] == shape[-1]):
        return const.reshape((const.stored.size,))
    return None


class ConvRule(LinearRule):
    """Base of the two-dimensional convolutions."""

    remedy = "export the model with constant weights, so that the convolution can be quantized"

    @constraint
    def layouts(group: Group, view: FunctionView) -> str | None:
        """Activations are NHWC (the frontends bring every model to it)."""
        attrs = view.value[group.root].attrs
        if str(attrs.data_layout) != "NHWC" or str(attrs.out_layout) not in ("", "NHWC"):
            return f"its data layout is {attrs.data_layout}"
        if sorted(str(attrs.kernel_layout)) != sorted("OIHW"):
            return f"its kernel layout is {attrs.kernel_layout}"
        return None


@register
class Conv2d(ConvRule):
    """Two-dimensional convolution with constant weights, any kernel, stride, dilation, groups and padding, with bias
    and relu, relu6 or clip."""

    ops = ("nn.conv2d",)
    runs_as = ("conv2d", "depthwise_conv2d", "conv2d_16")


@register
class Conv2dTranspose(ConvRule):
    """Two-dimensional transposed convolution with constant weights, with bias and relu, relu6 or clip."""

    ops = ("nn.conv2d_transpose",)
    runs_as = ("conv2d_transpose", "pad", "reshape", "depthwise_conv2d", "slice", "concat")

    @classmethod
    def weight(cls, view: FunctionView, call: relax.Call) -> ConstTensor | None:
        """The weights as [O, kh, kw, C/groups]; Relax has [O/groups, kh, kw, C], with a scale for each of its rows."""
        weight, groups = super().weight(view, call), int(call.attrs.groups)
        if weight is None or groups == 1:
            return weight
        stored = np.concatenate(np.split(weight.stored, groups, axis=3), axis=0)
        if weight.scale is None or weight.axis != 0:
            return replace(weight, stored=stored)
        repeated = {
            n: np.tile(v, groups) if v.size > 1 else v
            for n, v in (("scale", weight.scale), ("zero_point", weight.zero_point))
        }
        return replace(weight, stored=stored, **repeated)


@register
class Dense(LinearRule):
    """Dense layer: product with a constant matrix [K, N], with bias and relu, relu6 or clip."""

    ops = ("matmul",)
    runs_as = ("conv2d", "conv2d_16")

    @classmethod
    def match(cls, view, root, claimed):
        if view.op(root) != "relax.matmul":
            return None
        a, b = view.value[root].args[:2]
        const = view.const(b)
        return (
            super().match(view, root, claimed)
            if const is not None and const.stored.ndim == 2 and view.const(a) is None
            else None
        )

    @classmethod
    def weight(cls, view, call):
        """The weights as [N, K]."""
        return view.const(call.args[1]).transpose((1, 0))


@dataclass(frozen=True)
class MatmulParts:
    """A product taken apart: operands as they enter the chip's operator, the scalar behind it, and the clamp."""

    a: relax.Expr
    b: relax.Expr
    transpose_b: bool
    scale: float
    bounds: Bounds


@register
class MatMul(Rule):
    """Product of two activations (batched or not), with a scalar scaling and relu, relu6 or clip behind it folded
    in."""

    kind = Kind.MATMUL
    ops = ("matmul",)
    runs_as = ("matmul",)

    @classmethod
    def match(cls, view, root, claimed):
        if view.op(root) != "relax.matmul":
            return None
        members, (a, b) = [root], view.value[root].args[:2]
        const = view.const(b)
        if const is not None and const.stored.ndim == 2 and view.const(a) is None:
            return None  # a dense layer
        if swaps_last_two(view, b) and view.only_user(b) == root and b not in claimed:
            members.insert(0, b)
        user = view.only_user(root)
        if user is not None and user not in claimed and scaling(view, user, root) is not None:
            members.append(user)
        return make_group(cls, view, root, absorb_clamps(view, members, claimed))

    @classmethod
    def parts(cls, view: FunctionView, group: Group) -> MatmulParts:
        a, b = view.value[group.root].args[:2]
        transpose_b = b in group.members
        follow = group.members[group.members.index(group.root) + 1 :]
        scale = scaling(view, follow[0], group.root) if follow else None
        chain = follow if scale is not None else (group.root, *follow)
        b = view.value[b].args[0] if transpose_b else b
        return MatmulParts(a, b, transpose_b, 1.0 if scale is None else scale, bounds_of(view, chain))

    @constraint
    def ranks(group: Group, view: FunctionView) -> str | None:
        """Both operands have at least two axes."""
        for arg in view.value[group.root].args[:2]:
            if len(static_shape(arg) or ()) < 2:
                return "an operand has fewer than two axes"
        return None

    @constraint
    def accumulator(group: Group, view: FunctionView) -> str | None:
        """The inner dimension is below 33,025, so that the int32 accumulator cannot overflow."""
        inner = static_shape(view.value[group.root].args[0])[-1]
        return f"its inner dimension is {inner}" if inner * 255 * 255 >= 2**31 else None


def swaps_last_two(view: FunctionView, expr) -> bool:
    """True if ``expr`` is bound to a permute_dims that only swaps the last two axes."""
    if not isinstance(expr, relax.Var) or view.op(expr) != "relax.permute_dims" or view.const(expr) is not None:
        return False
    rank, axes = len(static_shape(expr)), view.value[expr].attrs.axes
    axes = [int(a) % rank for a in axes] if axes is not None else list(range(rank))[::-1]
    return axes == [*range(rank - 2), rank - 1, rank - 2] and rank >= 2


def scaling(view: FunctionView, var: relax.Var, source: relax.Var) -> float | None:
    """The positive number by which the binding of ``var`` multiplies ``source``, or None."""
    if view.op(var) not in ("relax.multiply", "relax.divide"):
        return None
    args = view.value[var].args
    if view.op(var) == "relax.divide" and args[0] != source:
        return None
    value = scalar_const(view, args[1] if args[0] == source else args[0])
    if value is None or not np.isfinite(value) or value <= 0:
        return None
    return value if view.op(var) == "relax.multiply" else 1.0 / value
