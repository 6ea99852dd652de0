"""Operators that read or write where a tensor of places says: TVM's kernels do not look whether a place exists, and
would touch memory that is not the tensor's. The places are made to exist first, as those of ``take`` are: a negative
one counts from the end, as in ONNX and PyTorch, and one beyond the axis wraps around. Valid ones stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tvm
from tvm import relax, te, tirx

from tvm_ergo.relay_passes import compat

INDEX_DTYPES = ("int32", "int64")


def _shape(expr) -> tuple[int, ...]:
    static = compat.static_tensor_type(expr)
    if static is None:
        raise ValueError("a tensor of places, or the tensor it goes into, has no known shape")
    return static[0]


def _wrapped(builder: relax.BlockBuilder, places: relax.Expr, sizes: Sequence[int]) -> relax.Expr:
    """sizes : of the axes that the last axis of ``places`` numbers, or of the one axis that all are of."""
    dtype = str(places.ty.dtype)
    wide = dtype if dtype in INDEX_DTYPES else "int64"  # a size may be no number of a narrow type

    def compute(values: te.Tensor) -> te.Tensor:
        def inside(*at):
            size = tirx.const(sizes[0], wide)
            for slot, other in enumerate(sizes[1:], 1):
                size = tirx.Select(at[-1] == slot, tirx.const(other, wide), size)
            return tirx.floormod(values(*at).astype(wide), tirx.max(size, tirx.const(1, wide)))

        return te.compute(values.shape, inside, name="inside")

    return builder.emit(builder.call_te(compute, places, primfunc_name_hint="inside"))


def _scatter_nd(builder, call) -> list[relax.Expr]:
    data, places, updates = call.args
    return [data, _wrapped(builder, places, _shape(data)[: _shape(places)[-1]]), updates]


def _gather_nd(builder, call) -> list[relax.Expr]:
    data, places = call.args
    first = int(call.attrs.batch_dims)
    return [data, _wrapped(builder, places, _shape(data)[first : first + _shape(places)[-1]])]


def _along_axis(builder, call) -> list[relax.Expr]:
    data, places, *rest = call.args
    return [data, _wrapped(builder, places, [_shape(data)[int(call.attrs.axis)]]), *rest]


def _each_axis(builder, call) -> list[relax.Expr]:
    """A tuple of places, one tensor an axis."""
    data, places, *rest = call.args
    fields = places.fields if isinstance(places, relax.Tuple) else None
    if fields is None and isinstance(places.ty, tvm.ir.TupleType):
        fields = [builder.emit(relax.TupleGetItem(places, i)) for i in range(len(places.ty.fields))]
    if fields is None:
        return [data, _wrapped(builder, places, [_shape(data)[0]]), *rest]
    return [data, relax.Tuple([_wrapped(builder, f, [n]) for f, n in zip(fields, _shape(data))]), *rest]


def _lengths(builder, call) -> list[relax.Expr]:
    """How many of each sequence are turned round: at most all there are."""
    data, lengths = call.args
    most = _shape(data)[int(call.attrs.seq_axis)]

    def compute(values: te.Tensor) -> te.Tensor:
        dtype = values.dtype
        return te.compute(
            values.shape,
            lambda *at: tirx.max(tirx.min(values(*at), tirx.const(most, dtype)), tirx.const(0, dtype)),
            name="inside",
        )

    return [data, builder.emit(builder.call_te(compute, lengths, primfunc_name_hint="inside"))]


def _regions(builder, call) -> list[relax.Expr]:
    """The first number of each region of interest says in which picture it lies."""
    data, regions = call.args
    pictures = _shape(data)[0]

    def compute(values: te.Tensor) -> te.Tensor:
        def inside(row, column):
            value, dtype = values(row, column), values.dtype
            picture = tirx.max(tirx.min(value, tirx.const(pictures - 1, dtype)), tirx.const(0, dtype))
            return tirx.Select(column == 0, picture, value)

        return te.compute(values.shape, inside, name="inside")

    return [data, builder.emit(builder.call_te(compute, regions, primfunc_name_hint="inside"))]


_ARGUMENTS: dict[str, Callable] = {
    "scatter_nd": _scatter_nd,
    "scatter_elements": _along_axis,
    "gather_nd": _gather_nd,
    "gather_elements": _along_axis,
    "index_tensor": _each_axis,
    "index_put": _each_axis,
    "reverse_sequence": _lengths,
    "vision.roi_align": _regions,
    "vision.roi_pool": _regions,
}


def _rule(name: str, arguments: Callable) -> Callable:
    def legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        made = builder.normalize(relax.Call(call.op, arguments(builder, call), call.attrs, list(call.ty_args)))
        return tvm.ir.Op.get(name).get_attr("FLegalize")(builder, made)

    return legalize


RULES = {
    f"relax.{name}": _rule(f"relax.{name}", arguments)
    for name, arguments in _ARGUMENTS.items()
    if f"relax.{name}" in tvm.ir.Op.list_op_names()
}
"""For `relax.transform.LegalizeOps`."""
