"""One spelling for operators that can be written in several ways; operators that do nothing go."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes.interpreter_ops_nn import batch_norm_scale_shift, pad4, pair
from tvm_ergo.relay_passes.relax_constants import quantized_constant
from tvm_ergo.relay_passes.relax_utils import (
    Call,
    Constant,
    Expr,
    Rewriter,
    Tuple,
    TupleGetItem,
    Var,
    array_of,
    const,
    dtype_of,
    infer,
    ints,
    is_tensor,
    op_name,
    shape_of,
)

_COMMUTATIVE = {
    "relax.add": relax.op.add,
    "relax.multiply": relax.op.multiply,
    "relax.maximum": relax.op.maximum,
    "relax.minimum": relax.op.minimum,
}
_OF_STACK = {"relax.max": "maximum", "relax.min": "minimum", "relax.sum": "add"}


@tvm.transform.module_pass(opt_level=0, name="ergo.Canonicalize")
@dataclass(frozen=True)
class Canonicalize:
    """Rules: see the methods' docstrings. Values do not change but for float rounding (division by a constant is a
    product)."""

    def transform_module(self, mod: tvm.IRModule, ctx) -> tvm.IRModule:
        return _Canonicalizer(mod).run()


class _Canonicalizer(Rewriter):
    def rewrite(self, var: Var, value: Expr) -> Expr:
        if isinstance(value, TupleGetItem):
            return self._tuple_item(var, value)
        rule = _RULES.get(op_name(value))
        if rule is None:
            return value
        made = rule(self, var, value)
        return value if made is None else made

    def _tuple_item(self, var: Var, value: TupleGetItem) -> Expr:
        """dropout is its input; batch_norm with constant parameters is multiply and add."""
        dropout = self.defined(value.tuple_value, "relax.nn.dropout")
        if dropout is not None and int(value.index) == 0:
            return dropout.args[0]
        norm = self.defined(value.tuple_value, "relax.nn.batch_norm")
        if norm is None or int(value.index) != 0 or not all(isinstance(a, Constant) for a in norm.args[1:]):
            return value
        x = norm.args[0]
        rank = len(shape_of(x))
        shape = [-1 if i == int(norm.attrs.axis) % rank else 1 for i in range(rank)]
        scale, shift = batch_norm_scale_shift(norm, *(array_of(a) for a in norm.args[1:]))
        scaled = self.emit(relax.op.multiply(x, const(scale.reshape(shape))), f"{var.name}_scale")
        return relax.op.add(scaled, const(shift.reshape(shape)))

    def is_constant(self, expr: Expr) -> bool:
        return isinstance(expr, Constant) or quantized_constant(self, expr) is not None

    def scalar(self, expr: Expr) -> float | None:
        return float(array_of(expr).reshape(-1)[0]) if isinstance(expr, Constant) and array_of(expr).size == 1 else None

    def commutative(self, var: Var, value: Call) -> Expr | None:
        """A constant operand stands right; x+0 and x*1 are x; max(x, 0) is relu; min(max(x, a), b) is clip."""
        a, b = value.args
        name = op_name(value)
        if self.is_constant(a) and not self.is_constant(b):
            a, b = b, a
        number = self.scalar(b)
        if number is not None and dtype_of(a) == "float32":
            unchanged = shape_of(infer(value)) == shape_of(a)
            if unchanged and ((name == "relax.add" and number == 0) or (name == "relax.multiply" and number == 1)):
                return a
            if unchanged and name == "relax.maximum" and number == 0:
                return relax.op.nn.relu(a)
            if unchanged and name == "relax.minimum":
                clipped = self._clip_of(a, number)
                if clipped is not None:
                    return clipped
        return _COMMUTATIVE[name](a, b)

    def _clip_of(self, a: Expr, high: float) -> Expr | None:
        relu, top = self.defined(a, "relax.nn.relu"), self.defined(a, "relax.maximum")
        if relu is not None and high >= 0:
            return relax.op.clip(relu.args[0], 0.0, high)
        low = self.scalar(top.args[1]) if top is not None else None
        return (
            relax.op.clip(top.args[0], low, high)
            if low is not None and low <= high and shape_of(top) == shape_of(top.args[0])
            else None
        )

    def subtract(self, var: Var, value: Call) -> Expr | None:
        """x - c is x + (-c)."""
        a, b = value.args
        return self.commutative(var, relax.op.add(a, const(-array_of(b)))) if _float_constant(b) else None

    def divide(self, var: Var, value: Call) -> Expr | None:
        """x / c is x * (1/c)."""
        a, b = value.args
        if not _float_constant(b) or not np.all(array_of(b)):
            return None
        return self.commutative(var, relax.op.multiply(a, const((1 / array_of(b)).astype(np.float32))))

    def reshape(self, var: Var, value: Call) -> Expr | None:
        """expand_dims, squeeze, flatten and chains of reshapes are one reshape; one that changes nothing goes."""
        x, shape = value.args[0], shape_of(infer(value))
        before = self.defined(x, "relax.reshape")
        x = before.args[0] if before is not None else x
        return x if shape_of(x) == shape else relax.op.reshape(x, shape)

    def permute_dims(self, var: Var, value: Call) -> Expr | None:
        """Two transposes are one; the identity goes."""
        x = value.args[0]
        rank = len(shape_of(x))
        axes = (
            tuple(reversed(range(rank)))
            if value.attrs.axes is None
            else tuple(a % rank for a in ints(value.attrs.axes))
        )
        before = self.defined(x, "relax.permute_dims")
        if before is not None and before.attrs.axes is not None:
            x, axes = before.args[0], tuple(ints(before.attrs.axes)[a] for a in axes)
        return x if axes == tuple(range(rank)) else relax.op.permute_dims(x, list(axes))

    def quantize(self, var: Var, value: Call) -> Expr | None:
        """quantize(dequantize(q)) with the same parameters is q."""
        inner = self.defined(value.args[0], "relax.dequantize")
        if inner is None or dtype_of(inner.args[0]) != str(value.attrs.out_dtype) or not _same_parameters(inner, value):
            return None
        return inner.args[0]

    def astype(self, var: Var, value: Call) -> Expr | None:
        return value.args[0] if dtype_of(value.args[0]) == str(value.attrs.dtype) else None

    def relu6(self, var: Var, value: Call) -> Expr | None:
        return relax.op.clip(value.args[0], 0.0, 6.0)

    def concat(self, var: Var, value: Call) -> Expr | None:
        fields = getattr(value.args[0], "fields", None)
        return fields[0] if fields is not None and len(fields) == 1 else None

    def average(self, var: Var, value: Call) -> Expr | None:
        """Average pooling over the whole picture is a mean over height and width."""
        a = value.attrs
        layout = str(a.layout)
        size = [shape_of(value.args[0])[layout.index(axis)] for axis in "HW"]
        if op_name(value) == "relax.nn.adaptive_avg_pool2d":
            whole = a.output_size is not None and pair(a.output_size) == (1, 1)
        else:
            whole = tuple(size) == pair(a.pool_size) and not any(pad4(a.padding))
        return relax.op.mean(value.args[0], [layout.index("H"), layout.index("W")], keepdims=True) if whole else None

    def convolution(self, var: Var, value: Call) -> Expr | None:
        """Zero padding before a convolution becomes the convolution's padding, also through quantize and dequantize."""
        a, layout = value.attrs, str(value.attrs.data_layout)
        source = self._unpadded(value.args[0])
        if source is None or set(layout) != set("NCHW"):
            return None
        x, width = source
        rows, cols, n, c = (layout.index(axis) for axis in "HWNC")
        if any(width[2 * i] or width[2 * i + 1] for i in (n, c)):
            return None
        t, left, b, r = pad4(a.padding)
        padding = [t + width[2 * rows], left + width[2 * cols], b + width[2 * rows + 1], r + width[2 * cols + 1]]
        return relax.op.nn.conv2d(
            x,
            value.args[1],
            pair(a.strides),
            padding,
            pair(a.dilation),
            int(a.groups),
            layout,
            str(a.kernel_layout),
            str(a.out_layout) or layout,
        )

    def reduced_stack(self, var: Var, value: Call) -> Expr | None:
        """The maximum, minimum or sum over the axis along which tensors were stacked is that of the tensors, without a
        stack."""
        stack = self.defined(value.args[0], "relax.stack")
        if (
            stack is None
            or not isinstance(stack.args[0], Tuple)
            or value.attrs.axis is None
            or bool(value.attrs.keepdims)
        ):
            return None
        rank = len(shape_of(stack))
        if [a % rank for a in ints(value.attrs.axis)] != [int(stack.attrs.axis or 0) % rank]:
            return None
        narrow = [self._narrowed(p) for p in stack.args[0].fields]
        if len(narrow) > 2 and any(self.defined(p, "relax.dequantize") is not None for p in narrow):
            return None  # there is no quantization between two steps
        name, made, whole = f"relax.{_OF_STACK[op_name(value)]}", narrow[0], shape_of(infer(value))
        for part in narrow[1:]:
            made = self.emit(self.commutative(var, infer(_COMMUTATIVE[name](made, part))), var.name)
        return made if shape_of(made) == whole else relax.op.broadcast_to(made, whole)

    def _narrowed(self, part: Expr) -> Expr:
        """What was repeated to give ``part``; a constant in the smallest shape that repeats to it."""
        repeated = self.defined(part, "relax.broadcast_to")
        if repeated is not None:
            return repeated.args[0]
        if not isinstance(part, Constant):
            return part
        array = array_of(part)
        for axis in range(array.ndim):
            first = array.take([0], axis) if array.shape[axis] else array
            array = first if np.array_equal(array, np.broadcast_to(first, array.shape)) else array
        return const(array.reshape(()) if array.size == 1 else array)

    def _unpadded(self, x: Expr) -> tuple[Expr, tuple[int, ...]] | None:
        """What was padded with zeros to give ``x``, and by how much."""
        outer = self.defined(x, "relax.dequantize")
        inner = self.defined(outer.args[0], "relax.quantize") if outer is not None else None
        pad = self.defined(x if outer is None else inner.args[0] if inner is not None else None, "relax.nn.pad")
        if pad is None or str(pad.attrs.pad_mode) != "constant" or float(pad.attrs.pad_value) != 0:
            return None
        width = ints(pad.attrs.pad_width)
        if outer is None:
            return pad.args[0], width
        before = self.defined(pad.args[0], "relax.dequantize")
        if before is None or not _same_parameters(before, inner) or not _same_parameters(before, outer):
            return None
        return (pad.args[0], width) if dtype_of(before.args[0]) == str(inner.attrs.out_dtype) else None


def _float_constant(expr: Expr) -> bool:
    return isinstance(expr, Constant) and is_tensor(expr) and dtype_of(expr) == "float32"


def _same_parameters(a: Call, b: Call) -> bool:
    """Both per-tensor with equal constant scale and zero point."""
    pairs = list(zip(a.args[1:], b.args[1:]))
    return all(
        isinstance(p, Constant)
        and isinstance(q, Constant)
        and array_of(p).size == array_of(q).size == 1
        and float(array_of(p).reshape(-1)[0]) == float(array_of(q).reshape(-1)[0])
        for p, q in pairs
    )


_RULES = {
    "relax.subtract": _Canonicalizer.subtract,
    "relax.divide": _Canonicalizer.divide,
    "relax.quantize": _Canonicalizer.quantize,
    "relax.permute_dims": _Canonicalizer.permute_dims,
    "relax.astype": _Canonicalizer.astype,
    "relax.concat": _Canonicalizer.concat,
    "relax.nn.relu6": _Canonicalizer.relu6,
    "relax.nn.avg_pool2d": _Canonicalizer.average,
    "relax.nn.conv2d": _Canonicalizer.convolution,
    **dict.fromkeys(_OF_STACK, _Canonicalizer.reduced_stack),
    "relax.nn.adaptive_avg_pool2d": _Canonicalizer.average,
    **dict.fromkeys(_COMMUTATIVE, _Canonicalizer.commutative),
    **dict.fromkeys(("relax.reshape", "relax.expand_dims", "relax.squeeze", "relax.flatten"), _Canonicalizer.reshape),
}
