"""Operators over one spatial axis as those over two, of height 1: [N, C, L] travels as [N, C, 1, L].

A convolution or pooling over a sequence is one over a picture of a single row. So from the first to the last of them a
tensor keeps an axis of size 1 before its spatial axis: operators without an opinion on layout carry it along, and a
reshape stands only where a sequence enters or leaves. Every value of the source is kept as a stored tensor and the
place of that axis (None: it has none)."""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax

from tvm_ergo.relay_passes.interpreter_ops import ELEMENTWISE_BINARY, ELEMENTWISE_UNARY
from tvm_ergo.relay_passes.relax_constants import reshaped
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
    ints,
    is_tensor,
    op_name,
    shape_of,
)

_SPATIAL = {
    "relax.nn.conv1d": relax.op.nn.conv2d,
    "relax.nn.conv1d_transpose": relax.op.nn.conv2d_transpose,
    "relax.nn.max_pool1d": relax.op.nn.max_pool2d,
    "relax.nn.avg_pool1d": relax.op.nn.avg_pool2d,
    "relax.nn.adaptive_avg_pool1d": relax.op.nn.adaptive_avg_pool2d,
}
_ELEMENTWISE = (
    ELEMENTWISE_UNARY
    | ELEMENTWISE_BINARY
    | {"relax.clip", "relax.where", "relax.astype", "relax.nn.leakyrelu", "relax.nn.softplus"}
)
_REDUCTIONS = frozenset(f"relax.{n}" for n in ("mean", "sum", "max", "min"))
_CARRIERS = _ELEMENTWISE | {
    f"relax.{n}"
    for n in (
        "quantize",
        "dequantize",
        "concat",
        "strided_slice",
        "nn.pad",
        "nn.prelu",
        "split",
        "nn.batch_norm",
        "permute_dims",
    )
}


@tvm.transform.module_pass(opt_level=0, name="ergo.Widen1d")
@dataclass(frozen=True)
class Widen1d:
    """Convolution and pooling over [N, C, L] (or [N, L, C]) as over [N, C, 1, L]; inputs and outputs keep their
    shapes."""

    def transform_module(self, mod: tvm.IRModule, ctx) -> tvm.IRModule:
        widener = _Widener(mod)
        return widener.run() if any(op_name(value) in _SPATIAL for _, value in widener.source) else mod


def _layout(call: Call) -> str:
    return str(call.attrs.data_layout if hasattr(call.attrs, "data_layout") else call.attrs.layout)


def _wide_layout(layout: str) -> str:
    return layout.replace("W", "HW")


def _two(values, first: int) -> list[int]:
    """A value per spatial axis, the new axis' one before it."""
    return [first, int(ints(values)[0])]


def _padding(values) -> list[int]:
    """Begin and end of the only axis as top, left, bottom, right."""
    values = ints(values)
    return [0, values[0], 0, values[-1]]


def _shifted(axis: int, rank: int, at: int) -> int:
    """Where axis ``axis`` lies once there is a new one at ``at``."""
    axis %= rank
    return axis + (axis >= at)


class _Widener(Rewriter):
    def __init__(self, mod: tvm.IRModule):
        super().__init__(mod)
        self.at: dict[Var, tuple[Expr, int | None]] = {}
        self.items: dict[Var, int] = {}
        self.reshapes: dict[tuple[Expr, tuple[int, ...]], Expr] = {}

    # ---- running ----------------------------------------------------------------------------------------------------
    def run(self) -> tvm.IRModule:
        wanting = self._wanting()
        for param in self.func.params:
            if param in wanting:
                self.at[param] = (
                    self._reshaped(param, self._wide_shape(shape_of(param), wanting[param])),
                    wanting[param],
                )
        for var, value in self.source:
            self._hint = var.name
            new, at = self.place(var, value)
            self.at[var] = (self.emit(new, var.name), at)
        body = body_of(self.func)
        fields = [self.plain(f) for f in body.fields] if isinstance(body, Tuple) else self.plain(body)
        return assemble(self.mod, self.func, self.bindings, Tuple(fields) if isinstance(body, Tuple) else fields)

    def _wanting(self) -> dict[Var, int]:
        """Sequences that reach an operator over one axis through operators without an opinion on layout, and where that
        wants the new axis."""
        wanting: dict[Var, int] = {}
        for var, value in reversed(self.source):
            name = op_name(value)
            if name in _SPATIAL:
                operands, at = value.args[:1], _layout(value).index("W")
            elif name in _CARRIERS and var in wanting:
                operands, at = value.args, wanting[var]
                at = self._axes(value)[at] if name == "relax.permute_dims" else at
            elif isinstance(value, TupleGetItem) and var in wanting:
                operands, at = [value.tuple_value], wanting[var]
            else:
                continue
            flat = [f for o in operands for f in (o.fields if isinstance(o, Tuple) else [o])]
            wanting.update({o: at for o in flat if isinstance(o, Var) and (not is_tensor(o) or len(shape_of(o)) == 3)})
        return wanting

    @staticmethod
    def _axes(value: Call) -> tuple[int, ...]:
        rank = len(shape_of(value.args[0]))
        return (
            tuple(reversed(range(rank)))
            if value.attrs.axes is None
            else tuple(a % rank for a in ints(value.attrs.axes))
        )

    # ---- operands ---------------------------------------------------------------------------------------------------
    @staticmethod
    def _wide_shape(shape: tuple[int, ...], at: int) -> tuple[int, ...]:
        return (*shape[:at], 1, *shape[at:])

    def _reshaped(self, new: Expr, shape: tuple[int, ...]) -> Expr:
        if (new, shape) not in self.reshapes:
            name = new.name if isinstance(new, Var) else self._hint
            self.reshapes[new, shape] = reshaped(self, new, shape, f"{name}_rows")
        return self.reshapes[new, shape]

    def stored(self, old: Expr) -> tuple[Expr, int | None]:
        return self.at.get(old, (old, None)) if isinstance(old, Var) else (old, None)

    def plain(self, old: Expr) -> Expr:
        """The operand in its own shape; tuples field by field."""
        if isinstance(old, Tuple):
            return Tuple([self.plain(f) for f in old.fields])
        new, at = self.stored(old)
        return new if at is None or not is_tensor(old) else self._reshaped(new, shape_of(old))

    def want(self, old: Expr, at: int) -> Expr:
        """The operand, a tensor of rank 3, with the new axis at ``at``."""
        new, current = self.stored(old)
        return new if current == at else self._reshaped(new, self._wide_shape(shape_of(old), at))

    def broadcast(self, old: Expr, at: int) -> Expr:
        """An operand of rank 3 or less, made to broadcast against a tensor with the new axis."""
        if not is_tensor(old) or all(d == 1 for d in shape_of(old)):
            return self.plain(old)
        shape = shape_of(old)
        if len(shape) == 3:
            return self.want(old, at)
        return self._reshaped(self.plain(old), self._wide_shape((1,) * (3 - len(shape)) + shape, at))

    def chosen(self, operands) -> int | None:
        """Where the first operand that has the new axis has it."""
        flat = [f for o in operands for f in (o.fields if isinstance(o, Tuple) else [o])]
        return next(
            (
                at
                for o in flat
                for at in [self.stored(o)[1]]
                if at is not None and (not is_tensor(o) or len(shape_of(o)) == 3)
            ),
            None,
        )

    # ---- operators --------------------------------------------------------------------------------------------------
    def place(self, var: Var, value: Expr) -> tuple[Expr, int | None]:
        """The stored result of a binding and the place of its new axis."""
        if isinstance(value, Var):
            return self.stored(value)
        if isinstance(value, TupleGetItem):
            at = self.items.get(value.tuple_value)
            wide = at is not None and is_tensor(var) and len(shape_of(var)) == 3
            return TupleGetItem(self.stored(value.tuple_value)[0], int(value.index)), at if wide else None
        name = op_name(value)
        if name in _SPATIAL:
            return self.spatial(value, name)
        at = self.chosen(value.args) if name else None
        rule = _RULES.get(name) or (_Widener.elementwise if name in _ELEMENTWISE else None)
        joins = name in _ELEMENTWISE or name == "relax.concat"  # others look at their first operand only
        if rule is not None and at is not None and (joins or self.stored(value.args[0])[1] == at):
            made = rule(self, var, value, at)
            if made is not None:
                return made
        if isinstance(value, Call):
            return Call(value.op, [self.plain(a) for a in value.args], value.attrs, value.ty_args), None
        return self.plain(value), None

    def spatial(self, value: Call, name: str) -> tuple[Expr, int]:
        a, layout = value.attrs, _layout(value)
        wide, out = _wide_layout(layout), _wide_layout(str(a.out_layout) or layout)
        x = self.want(value.args[0], layout.index("W"))
        if name == "relax.nn.adaptive_avg_pool1d":
            size = None if a.output_size is None else (1, int(ints(a.output_size)[0]))
            return relax.op.nn.adaptive_avg_pool2d(x, size, wide, out), out.index("H")
        if "pool" in name:
            call = _SPATIAL[name](
                x,
                _two(a.pool_size, 1),
                _two(a.strides, 1),
                _padding(a.padding),
                _two(a.dilation, 1),
                bool(a.ceil_mode),
                bool(a.count_include_pad),
                wide,
                out,
            )
            return call, out.index("H")
        kernel, weight = str(a.kernel_layout), self.plain(value.args[1])
        weight = self._reshaped(weight, self._wide_shape(shape_of(weight), kernel.index("W")))
        more = [_two(a.output_padding, 0)] if "transpose" in name else []
        call = _SPATIAL[name](
            x,
            weight,
            _two(a.strides, 1),
            _padding(a.padding),
            *more,
            _two(a.dilation, 1),
            int(a.groups),
            wide,
            _wide_layout(kernel),
            out,
        )
        return call, out.index("H")

    def elementwise(self, var: Var, value: Call, at: int):
        if len(shape_of(var)) != 3:
            return None
        return Call(value.op, [self.broadcast(a, at) for a in value.args], value.attrs, value.ty_args), at

    def quantization(self, var: Var, value: Call, at: int):
        per_axis = any(array_of(a).size > 1 if isinstance(a, Constant) else True for a in value.args[1:])
        axis = _shifted(int(value.attrs.axis), 3, at) if per_axis else 3
        function = relax.op.quantize if op_name(value) == "relax.quantize" else relax.op.dequantize
        return function(
            self.stored(value.args[0])[0],
            self.plain(value.args[1]),
            self.plain(value.args[2]),
            axis=axis,
            out_dtype=str(value.attrs.out_dtype),
        ), at

    def batch_norm(self, var: Var, value: Call, at: int):
        a, parameters = value.attrs, [self.plain(p) for p in value.args[1:]]
        self.items[var] = at
        return relax.op.nn.batch_norm(
            self.stored(value.args[0])[0],
            *parameters,
            axis=_shifted(int(a.axis), 3, at),
            epsilon=float(a.epsilon),
            center=bool(a.center),
            scale=bool(a.scale),
            momentum=float(a.momentum),
            training=bool(a.training),
        ), at

    def prelu(self, var: Var, value: Call, at: int):
        return relax.op.nn.prelu(
            self.stored(value.args[0])[0], self.plain(value.args[1]), _shifted(int(value.attrs.axis), 3, at)
        ), at

    def softmax(self, var: Var, value: Call, at: int):
        function = relax.op.nn.softmax if op_name(value) == "relax.nn.softmax" else relax.op.nn.log_softmax
        return function(self.stored(value.args[0])[0], axis=_shifted(int(value.attrs.axis), 3, at)), at

    def reduce(self, var: Var, value: Call, at: int):
        """The new axis is reduced along with the spatial one, so that the average of a whole sequence is that of a
        whole picture."""
        axes = range(3) if value.attrs.axis is None else ints(value.attrs.axis)
        axes, keep = {_shifted(a, 3, at) for a in axes}, bool(value.attrs.keepdims)
        axes |= {at} if at + 1 in axes or not keep else set()
        function = getattr(relax.op, op_name(value).split(".")[-1])
        return function(self.stored(value.args[0])[0], sorted(axes), keepdims=keep), at if keep else None

    def pad(self, var: Var, value: Call, at: int):
        width = list(ints(value.attrs.pad_width))
        return relax.op.nn.pad(
            self.stored(value.args[0])[0],
            [*width[: 2 * at], 0, 0, *width[2 * at :]],
            str(value.attrs.pad_mode),
            float(value.attrs.pad_value),
        ), at

    def concat(self, var: Var, value: Call, at: int):
        if not isinstance(value.args[0], Tuple):
            return None
        axis = 0 if value.attrs.axis is None else int(value.attrs.axis)
        return relax.op.concat(Tuple([self.want(f, at) for f in value.args[0].fields]), _shifted(axis, 3, at)), at

    def split(self, var: Var, value: Call, at: int):
        where = value.attrs.indices_or_sections
        where = int(where) if hasattr(where, "value") or isinstance(where, int) else list(ints(where))
        self.items[var] = at
        return relax.op.split(self.stored(value.args[0])[0], where, _shifted(int(value.attrs.axis), 3, at)), at

    def strided_slice(self, var: Var, value: Call, at: int):
        if not all(isinstance(a, Tuple) for a in value.args[1:]):
            return None
        axes, *rest = [[int(v) for v in a.fields] for a in value.args[1:]]
        return relax.op.strided_slice(
            self.stored(value.args[0])[0],
            [_shifted(a, 3, at) for a in axes],
            *rest,
            assume_inbound=bool(value.attrs.assume_inbound),
        ), at

    def permute_dims(self, var: Var, value: Call, at: int):
        """The new axis stays before its spatial axis, wherever that goes."""
        axes = self._axes(value)
        moved = [b for a in axes for b in ((at, at + 1) if a == at else (a + (a > at),))]
        return relax.op.permute_dims(self.stored(value.args[0])[0], moved), axes.index(at)

    def matmul(self, var: Var, value: Call, at: int):
        """A dense layer over the last axis, where that is not the spatial one."""
        weight = value.args[1]
        if at == 2 or len(shape_of(weight)) != 2:
            return None
        return Call(value.op, [self.stored(value.args[0])[0], self.plain(weight)], value.attrs, value.ty_args), at


_RULES = {
    "relax.quantize": _Widener.quantization,
    "relax.dequantize": _Widener.quantization,
    "relax.nn.prelu": _Widener.prelu,
    "relax.nn.batch_norm": _Widener.batch_norm,
    "relax.nn.softmax": _Widener.softmax,
    "relax.nn.log_softmax": _Widener.softmax,
    "relax.nn.pad": _Widener.pad,
    "relax.concat": _Widener.concat,
    "relax.split": _Widener.split,
    "relax.strided_slice": _Widener.strided_slice,
    "relax.permute_dims": _Widener.permute_dims,
    "relax.matmul": _Widener.matmul,
    **dict.fromkeys(_REDUCTIONS, _Widener.reduce),
}
