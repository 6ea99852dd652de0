"""Rules of pooling, reductions, softmax and resizing."""

from __future__ import annotations

from tvm_ergo.relay_passes.support.epilogue import absorb_clamps
from tvm_ergo.relay_passes.support.rule import Group, Kind, Rule, constraint, make_group, register
from tvm_ergo.relay_passes.support.view import FunctionView, static_shape


class SingleOp(Rule):
    """Base of the rules whose group is one operator, with the clamps behind it where the chip's operator has bounds."""

    clamps = False

    @classmethod
    def match(cls, view, root, claimed):
        if view.op(root) not in {f"relax.{op}" for op in cls.ops}:
            return None
        return make_group(cls, view, root, absorb_clamps(view, [root], claimed) if cls.clamps else [root])

    @constraint
    def one_activation(group: Group, view: FunctionView) -> str | None:
        """It reads a tensor computed at run time (what depends on constants only is folded before)."""
        return "it depends on constants only" if not group.inputs else None


class PoolRule(SingleOp):
    """Base of the windowed poolings."""

    kind = Kind.POOL

    @constraint
    def layout(group: Group, view: FunctionView) -> str | None:
        """Activations are NHWC."""
        layout = str(view.value[group.root].attrs.layout)
        return f"its layout is {layout}" if layout != "NHWC" else None


@register
class MaxPool2d(PoolRule):
    """Maximum pooling, any window, stride, dilation and padding, floor or ceil mode."""

    ops = ("nn.max_pool2d",)
    runs_as = ("max_pool2d",)
    carries = True


@register
class AvgPool2d(PoolRule):
    """Average pooling, any window, stride and padding, floor or ceil mode, padding counted or not, with relu or
    clip."""

    ops = ("nn.avg_pool2d",)
    runs_as = ("avg_pool2d", "conv2d_16")
    clamps = True
    remedy = "use dilation 1, and ceil_mode without count_include_pad"

    @constraint
    def no_dilation(group: Group, view: FunctionView) -> str | None:
        """Its dilation is 1."""
        dilation = [int(d) for d in view.value[group.root].attrs.dilation]
        return f"its dilation is {dilation}" if dilation != [1, 1] else None

    @constraint
    def ceil_without_counting(group: Group, view: FunctionView) -> str | None:
        """ceil_mode together with count_include_pad only where the windows end inside the padded input."""
        attrs = view.value[group.root].attrs
        extra = ceil_padding(static_shape(group.inputs[0]), static_shape(group.root), attrs)
        return (
            "it counts padding and has windows beyond the padding" if attrs.count_include_pad and any(extra) else None
        )


@register
class AdaptiveAvgPool2d(PoolRule):
    """Adaptive (global) average pooling to a size that divides the input's."""

    ops = ("nn.adaptive_avg_pool2d",)
    runs_as = ("reduce_sum", "avg_pool2d", "conv2d_16")
    clamps = True

    @constraint
    def divides(group: Group, view: FunctionView) -> str | None:
        """Height and width are multiples of the output's."""
        (_, h, w, _), (_, oh, ow, _) = static_shape(group.inputs[0]), static_shape(group.root)
        return f"{h}x{w} is not a multiple of {oh}x{ow}" if h % oh or w % ow else None


def clamped_resize(group: Group) -> bool:
    """Whether bounds follow an interpolation: its result then has a quantization of its own."""
    return group.rule is Resize2d and len(group.members) > 1


def ceil_padding(shape, out_shape, attrs) -> tuple[int, int]:
    """Rows and columns by which the last window reaches beyond the padded input."""
    extra = []
    for axis in (0, 1):
        window = (int(attrs.pool_size[axis]) - 1) * int(attrs.dilation[axis]) + 1
        padded = shape[1 + axis] + int(attrs.padding[axis]) + int(attrs.padding[axis + 2])
        extra.append(max(0, (out_shape[1 + axis] - 1) * int(attrs.strides[axis]) + window - padded))
    return extra[0], extra[1]


@register
class ReduceSum(SingleOp):
    """Mean or sum over any constant axes, with relu or clip."""

    kind = Kind.POOL
    ops = ("mean", "sum")
    runs_as = ("reduce_sum", "conv2d_16")
    clamps = True

    @constraint
    def accumulator(group: Group, view: FunctionView) -> str | None:
        """At most 8,421,504 elements are summed, so that the int32 accumulator cannot overflow."""
        shape, count = static_shape(group.inputs[0]), 1
        for axis in reduced_axes(view.value[group.root], len(shape)):
            count *= shape[axis]
        return f"it sums {count} elements" if count * 255 >= 2**31 else None


AVERAGES = (AvgPool2d, AdaptiveAvgPool2d, ReduceSum)
"""Sums over windows or axes: they have a form in 16 bits (`micro.lower_averages`)."""


@register
class ReduceExtreme(SingleOp):
    """Maximum or minimum over any constant axes."""

    kind = Kind.POOL
    ops = ("max", "min")
    runs_as = ("reduce_max", "reduce_min")
    carries = True


def reduced_axes(call, rank: int) -> tuple[int, ...]:
    """The axes a reduction runs over, non-negative and sorted."""
    axis = call.attrs.axis
    return tuple(sorted(int(a) % rank for a in axis)) if axis is not None else tuple(range(rank))


@register
class Softmax(SingleOp):
    """Softmax over the last axis."""

    kind = Kind.SOFTMAX
    ops = ("nn.softmax",)
    runs_as = ("softmax",)
    remedy = "transpose the tensor so that the softmax runs over its last axis"

    @constraint
    def last_axis(group: Group, view: FunctionView) -> str | None:
        """Its axis is the last one."""
        axis, rank = int(view.value[group.root].attrs.axis), len(static_shape(group.root))
        return f"its axis is {axis} of {rank}" if axis % rank != rank - 1 else None


@register
class Resize2d(SingleOp):
    """Resizing by nearest neighbour or bilinear interpolation, to any size, in every coordinate mode except cropping;
    bilinear with relu, relu6 or clip, rounded once."""

    kind = Kind.MOVEMENT
    ops = ("image.resize2d",)
    runs_as = ("resize2d",)
    carries = True
    remedy = "use nearest or linear interpolation"

    @classmethod
    def match(cls, view, root, claimed):
        group = super().match(view, root, claimed)
        if group is None or str(view.value[root].attrs.method) != "linear":
            return group
        return make_group(cls, view, root, absorb_clamps(view, [root], claimed))

    @constraint
    def method(group: Group, view: FunctionView) -> str | None:
        """Its method is nearest_neighbor or linear; NHWC; not tf_crop_and_resize."""
        attrs = view.value[group.root].attrs
        if str(attrs.method) not in ("nearest_neighbor", "linear"):
            return f"its method is {attrs.method}"
        if str(attrs.layout) != "NHWC":
            return f"its layout is {attrs.layout}"
        return (
            "its coordinates crop the image"
            if str(attrs.coordinate_transformation_mode) == "tf_crop_and_resize"
            else None
        )
