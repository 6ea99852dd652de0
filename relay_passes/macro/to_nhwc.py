"""NCHW to NHWC: layouts travel with the values, transposes appear only where two of them meet.

Every value of the source is kept as a stored tensor and an order (see ``layout``). Spatial operators ask for NHWC,
operators that do not care keep the order they get and have their axes renumbered, transposes of the source only change
the order, and whatever else there is asks for the source's own order. So a chain of convolutions has one transpose at
each end, and pairs of transposes never appear."""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax

from tvm_ergo.relay_passes.interpreter_ops import ELEMENTWISE_BINARY, ELEMENTWISE_UNARY
from tvm_ergo.relay_passes.interpreter_ops_nn import pad4, pair, permutation
from tvm_ergo.relay_passes.macro.layout import (
    Order,
    after_permute,
    after_reduction,
    identity,
    original_shape,
    reshape_stored,
    step_between,
)
from tvm_ergo.relay_passes.relax_constants import permuted, reshaped
from tvm_ergo.relay_passes.relax_utils import (
    Call,
    Constant,
    Expr,
    Rewriter,
    Tuple,
    TupleGetItem,
    Var,
    array_of,
    assemble,
    body_of,
    dtype_of,
    ints,
    is_tensor,
    op_name,
    shape_of,
)

_SPATIAL = frozenset(
    f"relax.{n}"
    for n in (
        "nn.conv2d",
        "nn.conv2d_transpose",
        "nn.max_pool2d",
        "nn.avg_pool2d",
        "nn.adaptive_avg_pool2d",
        "image.resize2d",
    )
)
_ELEMENTWISE = (
    ELEMENTWISE_UNARY
    | ELEMENTWISE_BINARY
    | {"relax.clip", "relax.where", "relax.astype", "relax.nn.leakyrelu", "relax.nn.softplus"}
)
_CARRIERS = _ELEMENTWISE | {
    f"relax.{n}" for n in ("quantize", "dequantize", "concat", "strided_slice", "nn.pad", "nn.prelu", "split")
}
_NHWC: Order = (0, 2, 3, 1)


@tvm.transform.module_pass(opt_level=0, name="ergo.ToNhwc")
@dataclass(frozen=True)
class ToNhwc:
    """Convolutions NHWC with OHWI kernels, pooling and resizing NHWC; inputs and outputs keep their shapes."""

    def transform_module(self, mod: tvm.IRModule, ctx) -> tvm.IRModule:
        return _Layouter(mod).run()


def _data_layout(call: Call) -> str:
    attrs = call.attrs
    return str(attrs.data_layout if hasattr(attrs, "data_layout") else attrs.layout)


class _Layouter(Rewriter):
    def __init__(self, mod: tvm.IRModule):
        super().__init__(mod)
        self.at: dict[Var, tuple[Expr, Order]] = {}
        self.items: dict[Var, Order] = {}
        self.transposed: dict[tuple[Expr, Order], Expr] = {}

    # ---- running ----------------------------------------------------------------------------------------------------
    def run(self) -> tvm.IRModule:
        wanting = self._wanting()
        for param in self.func.params:
            if param in wanting:
                self.at[param] = (self.emit(relax.op.permute_dims(param, list(_NHWC)), f"{param.name}_nhwc"), _NHWC)
        for var, value in self.source:
            self._hint = var.name
            new, order = self.place(var, value)
            self.at[var] = (self.emit(new, var.name), order)
        body = body_of(self.func)
        fields = [self.plain(f) for f in body.fields] if isinstance(body, Tuple) else self.plain(body)
        return assemble(self.mod, self.func, self.bindings, Tuple(fields) if isinstance(body, Tuple) else fields)

    def _wanting(self) -> set[Var]:
        """Values that reach an NCHW operator through operators without an opinion on layout."""
        wanting: set[Var] = set()
        for var, value in reversed(self.source):
            name = op_name(value)
            if name in _SPATIAL and _data_layout(value) == "NCHW":
                operands = value.args[:1]
            elif name in _CARRIERS and var in wanting:
                operands = (
                    value.args if name != "relax.astype" or dtype_of(value.args[0]) != "float16" else []
                )  # an input: converted, then quantized, then moved
            elif isinstance(value, TupleGetItem) and var in wanting:
                operands = [value.tuple_value]
            else:
                continue
            flat = [f for o in operands for f in (o.fields if isinstance(o, Tuple) else [o])]
            wanting.update(o for o in flat if isinstance(o, Var) and (not is_tensor(o) or len(shape_of(o)) == 4))
        return wanting

    # ---- operands ---------------------------------------------------------------------------------------------------
    def stored(self, old: Expr) -> tuple[Expr, Order]:
        if isinstance(old, Var) and old in self.at:
            return self.at[old]
        return old, identity(len(shape_of(old))) if is_tensor(old) else ()

    def want(self, old: Expr, order: Order) -> Expr:
        """The operand's stored tensor in ``order``."""
        new, current = self.stored(old)
        if current == order:
            return new
        axes = step_between(current, order)
        if (new, axes) not in self.transposed:
            name = new.name if isinstance(new, Var) else self._hint
            self.transposed[new, axes] = permuted(self, new, axes, f"{name}_permuted")
        return self.transposed[new, axes]

    def plain(self, old: Expr) -> Expr:
        """The operand in the source's own order; tuples field by field."""
        if isinstance(old, Tuple):
            return Tuple([self.plain(f) for f in old.fields])
        if isinstance(old, Var) and is_tensor(old):
            return self.want(old, identity(len(shape_of(old))))
        return self.stored(old)[0] if isinstance(old, Var) else old

    def broadcast(self, old: Expr, order: Order) -> Expr:
        """An operand of lower or equal rank, made to broadcast against a tensor stored in ``order``."""
        if not is_tensor(old):
            return old
        shape = shape_of(old)
        if len(shape) == len(order):
            return (
                self.want(old, order) if any(d != 1 for d in shape) else self.stored(old)[0]
            )  # one element: every order is the same
        if all(d == 1 for d in shape) or order == identity(len(order)):
            return self.plain(old)
        full = reshaped(self, self.plain(old), (1,) * (len(order) - len(shape)) + shape, f"{self._hint}_operand")
        return permuted(self, full, order, f"{self._hint}_operand")

    def chosen(self, operands, rank: int) -> Order:
        """The first order among full-rank operands that is not the source's own."""
        for old in operands:
            if (
                isinstance(old, Var)
                and is_tensor(old)
                and len(shape_of(old)) == rank
                and self.stored(old)[1] != identity(rank)
            ):
                return self.stored(old)[1]
        return identity(rank)

    # ---- operators --------------------------------------------------------------------------------------------------
    def place(self, var: Var, value: Expr) -> tuple[Expr, Order]:
        """The stored result of a binding and its order."""
        if isinstance(value, Var):
            return self.stored(value)
        if isinstance(value, TupleGetItem):
            tuple_value = (
                self.stored(value.tuple_value)[0]
                if isinstance(value.tuple_value, Var)
                else self.plain(value.tuple_value)
            )
            order = self.items.get(value.tuple_value, identity(len(shape_of(var))) if is_tensor(var) else ())
            return TupleGetItem(tuple_value, int(value.index)), order
        name = op_name(value)
        rule = _RULES.get(name) or (_Layouter.elementwise if name in _ELEMENTWISE else None)
        if rule is not None:
            return rule(self, var, value)
        rank = len(shape_of(var)) if is_tensor(var) else 0
        if isinstance(value, Call):
            return Call(value.op, [self.plain(a) for a in value.args], value.attrs, value.ty_args), identity(rank)
        return self.plain(value), identity(rank)

    def elementwise(self, var: Var, value: Call) -> tuple[Expr, Order]:
        order = self.chosen(value.args, len(shape_of(var)))
        return Call(value.op, [self.broadcast(a, order) for a in value.args], value.attrs, value.ty_args), order

    def quantization(self, var: Var, value: Call) -> tuple[Expr, Order]:
        new, order = self.stored(value.args[0])
        per_axis = any(array_of(a).size > 1 if isinstance(a, Constant) else True for a in value.args[1:])
        rank = len(order)
        axis = order.index(int(value.attrs.axis) % rank) if per_axis and rank else max(rank - 1, 0)
        function = relax.op.quantize if op_name(value) == "relax.quantize" else relax.op.dequantize
        return function(
            new, self.plain(value.args[1]), self.plain(value.args[2]), axis=axis, out_dtype=str(value.attrs.out_dtype)
        ), order

    def prelu(self, var: Var, value: Call) -> tuple[Expr, Order]:
        new, order = self.stored(value.args[0])
        return relax.op.nn.prelu(new, self.plain(value.args[1]), order.index(int(value.attrs.axis) % len(order))), order

    def softmax(self, var: Var, value: Call) -> tuple[Expr, Order]:
        """The axis of the sum comes last."""
        rank = len(shape_of(var))
        axis = int(value.attrs.axis) % rank
        order = self.stored(value.args[0])[1]
        if order[-1] != axis:
            order = tuple(a for a in order if a != axis) + (axis,)
        function = relax.op.nn.softmax if op_name(value) == "relax.nn.softmax" else relax.op.nn.log_softmax
        return function(self.want(value.args[0], order), axis=-1), order

    def reduce(self, var: Var, value: Call) -> tuple[Expr, Order]:
        new, order = self.stored(value.args[0])
        rank = len(order)
        axes = sorted(a % rank for a in (range(rank) if value.attrs.axis is None else ints(value.attrs.axis)))
        keep = bool(value.attrs.keepdims)
        function = getattr(relax.op, op_name(value).split(".")[-1])
        return (
            function(new, sorted(order.index(a) for a in axes), keepdims=keep),
            order if keep else after_reduction(order, axes),
        )

    def conv2d(self, var: Var, value: Call) -> tuple[Expr, Order]:
        a, layout = value.attrs, _data_layout(value)
        x = self.want(value.args[0], permutation(layout, "NHWC"))
        w = permuted(self, self.plain(value.args[1]), permutation(str(a.kernel_layout), "OHWI"), f"{self._hint}_weight")
        call = relax.op.nn.conv2d(
            x, w, pair(a.strides), pad4(a.padding), pair(a.dilation), int(a.groups), "NHWC", "OHWI", "NHWC"
        )
        return call, permutation(str(a.out_layout) or layout, "NHWC")

    def conv2d_transpose(self, var: Var, value: Call) -> tuple[Expr, Order]:
        a, layout = value.attrs, _data_layout(value)
        x = self.want(value.args[0], permutation(layout, "NHWC"))
        w = permuted(self, self.plain(value.args[1]), permutation(str(a.kernel_layout), "OHWI"), f"{self._hint}_weight")
        call = relax.op.nn.conv2d_transpose(
            x,
            w,
            pair(a.strides),
            pad4(a.padding),
            pair(a.output_padding),
            pair(a.dilation),
            int(a.groups),
            "NHWC",
            "OHWI",
            "NHWC",
        )
        return call, permutation(str(a.out_layout) or layout, "NHWC")

    def pool(self, var: Var, value: Call) -> tuple[Expr, Order]:
        a, layout = value.attrs, _data_layout(value)
        x = self.want(value.args[0], permutation(layout, "NHWC"))
        order = permutation(str(a.out_layout) or layout, "NHWC")
        if op_name(value) == "relax.nn.adaptive_avg_pool2d":
            return relax.op.nn.adaptive_avg_pool2d(
                x, None if a.output_size is None else pair(a.output_size), "NHWC", "NHWC"
            ), order
        function = relax.op.nn.max_pool2d if op_name(value) == "relax.nn.max_pool2d" else relax.op.nn.avg_pool2d
        return function(
            x,
            pair(a.pool_size),
            pair(a.strides),
            pad4(a.padding),
            pair(a.dilation),
            bool(a.ceil_mode),
            bool(a.count_include_pad),
            "NHWC",
            "NHWC",
        ), order

    def resize2d(self, var: Var, value: Call) -> tuple[Expr, Order]:
        a, layout = value.attrs, _data_layout(value)
        x = self.want(value.args[0], permutation(layout, "NHWC"))
        call = relax.op.image.resize2d(
            x,
            value.args[1],
            [float(r) for r in a.roi],
            "NHWC",
            str(a.method),
            str(a.coordinate_transformation_mode),
            str(a.rounding_method),
            float(a.cubic_alpha),
            int(a.cubic_exclude),
            float(a.extrapolation_value),
        )
        return call, permutation(layout, "NHWC")

    def pad(self, var: Var, value: Call) -> tuple[Expr, Order]:
        new, order = self.stored(value.args[0])
        width = ints(value.attrs.pad_width)
        moved = [w for axis in order for w in (width[2 * axis], width[2 * axis + 1])]
        return relax.op.nn.pad(new, moved, str(value.attrs.pad_mode), float(value.attrs.pad_value)), order

    def concat(self, var: Var, value: Call) -> tuple[Expr, Order]:
        if not isinstance(value.args[0], Tuple):
            return Call(value.op, [self.plain(a) for a in value.args], value.attrs), identity(len(shape_of(var)))
        rank = len(shape_of(var))
        order = self.chosen(value.args[0].fields, rank)
        axis = 0 if value.attrs.axis is None else int(value.attrs.axis) % rank
        return relax.op.concat(Tuple([self.want(f, order) for f in value.args[0].fields]), order.index(axis)), order

    def split(self, var: Var, value: Call) -> tuple[Expr, Order]:
        new, order = self.stored(value.args[0])
        where = value.attrs.indices_or_sections
        where = int(where) if hasattr(where, "value") or isinstance(where, int) else list(ints(where))
        self.items[var] = order
        return relax.op.split(new, where, order.index(int(value.attrs.axis) % len(order))), order

    def strided_slice(self, var: Var, value: Call) -> tuple[Expr, Order]:
        new, order = self.stored(value.args[0])
        if not all(isinstance(a, Tuple) for a in value.args[1:]):
            return Call(value.op, [self.plain(a) for a in value.args], value.attrs), identity(len(order))
        axes, *rest = [[int(v) for v in a.fields] for a in value.args[1:]]
        return relax.op.strided_slice(
            new, [order.index(a % len(order)) for a in axes], *rest, assume_inbound=bool(value.attrs.assume_inbound)
        ), order

    def take(self, var: Var, value: Call) -> tuple[Expr, Order]:
        """One row of constant indices along one axis leaves the others where they are."""
        if value.attrs.axis is None or not isinstance(value.args[1], Constant) or len(shape_of(value.args[1])) != 1:
            return Call(value.op, [self.plain(a) for a in value.args], value.attrs), identity(len(shape_of(var)))
        new, order = self.stored(value.args[0])
        return relax.op.take(
            new, value.args[1], order.index(int(value.attrs.axis) % len(order)), str(value.attrs.mode)
        ), order

    def permute_dims(self, var: Var, value: Call) -> tuple[Expr, Order]:
        new, order = self.stored(value.args[0])
        rank = len(order)
        axes = (
            tuple(reversed(range(rank)))
            if value.attrs.axes is None
            else tuple(a % rank for a in ints(value.attrs.axes))
        )
        return new, after_permute(order, axes)

    def reshape(self, var: Var, value: Call) -> tuple[Expr, Order]:
        new, order = self.stored(value.args[0])
        after = shape_of(var)
        result = reshape_stored(original_shape(shape_of(new), order), after, order)
        if result is None:
            return reshaped(self, self.plain(value.args[0]), after, var.name), identity(len(after))
        return reshaped(self, new, tuple(after[a] for a in result), var.name), result


_RULES = {
    "relax.quantize": _Layouter.quantization,
    "relax.dequantize": _Layouter.quantization,
    "relax.nn.prelu": _Layouter.prelu,
    "relax.nn.softmax": _Layouter.softmax,
    "relax.nn.log_softmax": _Layouter.softmax,
    "relax.nn.conv2d": _Layouter.conv2d,
    "relax.nn.conv2d_transpose": _Layouter.conv2d_transpose,
    "relax.image.resize2d": _Layouter.resize2d,
    "relax.nn.pad": _Layouter.pad,
    "relax.take": _Layouter.take,
    "relax.concat": _Layouter.concat,
    "relax.split": _Layouter.split,
    "relax.strided_slice": _Layouter.strided_slice,
    "relax.permute_dims": _Layouter.permute_dims,
    **dict.fromkeys(("relax.mean", "relax.sum", "relax.max", "relax.min"), _Layouter.reduce),
    **dict.fromkeys(("relax.nn.max_pool2d", "relax.nn.avg_pool2d", "relax.nn.adaptive_avg_pool2d"), _Layouter.pool),
    **dict.fromkeys(("relax.reshape", "relax.expand_dims", "relax.squeeze", "relax.flatten"), _Layouter.reshape),
}
