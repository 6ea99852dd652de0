"""PrimFuncs for the tests of ``tvm.build(..., target="ergo")``: each factory gives one function as a user would write
it in TE."""

from __future__ import annotations

from tvm import te, tirx, topi


def wide(x, dtype: str = "int32"):
    return x.astype(dtype)


def placeholder(shape, dtype: str = "int8", name: str = "x"):
    return te.placeholder(shape, dtype, name=name)


def requantized(acc, mult: int, shift: int, zero_point: int, lo: int = -128, hi: int = 127, bias=None):
    """``clip(zero_point + ((acc + bias) * mult + half >> shift), lo, hi)`` in int64, as int8."""

    def number(value: int):
        return tirx.const(value, "int64")

    def element(*i):
        total = wide(acc(*i), "int64") + (wide(bias(i[-1]), "int64") if bias is not None else number(0))
        scaled = ((total * number(mult) + number(1 << (shift - 1))) >> number(shift)) + number(zero_point)
        return tirx.max(tirx.min(scaled, number(hi)), number(lo)).astype("int8")

    return te.compute(acc.shape, element, name="requantized")


def product(a, b, *, transpose_b: bool = False, a_zp: int = 0, b_zp: int = 0):
    """int32 accumulators of a [M,K] (or [B,M,K]) times b."""
    k = te.reduce_axis((0, int(a.shape[-1])), "k")
    columns = b.shape[-2] if transpose_b else b.shape[-1]

    def element(*i):
        right = (*i[:-2], i[-1], k) if transpose_b else (*i[:-2], k, i[-1])
        return te.sum((wide(a(*i[:-1], k)) - a_zp) * (wide(b(*right)) - b_zp), axis=k)

    return te.compute((*a.shape[:-1], columns), element, name="product")


def matmul(m, k, n, *, transpose_b=False, a_zp=0, b_zp=0, requantize=False, bias=False, batch=()):
    a = placeholder((*batch, m, k), name="a")
    b = placeholder((*batch, n, k) if transpose_b else (*batch, k, n), name="b")
    v = placeholder((n,), "int32", "bias")
    acc = product(a, b, transpose_b=transpose_b, a_zp=a_zp, b_zp=b_zp)
    if requantize:
        result = requantized(acc, 12345, 20, 3, -120, 127, v if bias else None)
    else:
        result = te.compute(acc.shape, lambda *i: acc(*i) + v(i[-1]), name="biased") if bias else acc
    return te.create_prim_func([a, b, *([v] if bias else []), result])


def conv2d(n, h, w, c, o, kernel, stride, padding, dilation, *, layout="NHWC", requantize=False, bias=False):
    if layout == "NHWC":
        x, k = placeholder((n, h, w, c)), placeholder((*kernel, c, o), name="w")
        acc = topi.nn.conv2d_nhwc(x, k, stride, padding, dilation, "int32")
    else:
        x, k = placeholder((n, c, h, w)), placeholder((o, c, *kernel), name="w")
        acc = topi.nn.conv2d_nchw(x, k, stride, padding, dilation, out_dtype="int32")
    v = placeholder((o,), "int32", "bias")
    result = requantized(acc, 4321, 22, -5, bias=v if bias else None) if requantize else acc
    return te.create_prim_func([x, k, *([v] if bias and requantize else []), result])


def depthwise(n, h, w, c, kernel, stride, padding):
    x, k = placeholder((n, h, w, c)), placeholder((*kernel, c, 1), name="w")
    return te.create_prim_func([x, k, topi.nn.depthwise_conv2d_nhwc(x, k, stride, padding, (1, 1), out_dtype="int32")])


def clipped(expr):
    return tirx.max(tirx.min(expr, 127), -128).astype("int8")


UNARY = {
    "relu": lambda x: topi.nn.relu(x),
    "clip": lambda x: topi.clip(x, -3, 50),
    "double, wrapping": lambda x: topi.add(x, x),
    "shift": lambda x: te.compute(x.shape, lambda *i: (x(*i) * tirx.const(3, "int8")) >> tirx.const(1, "int8")),
    "chain": lambda x: topi.clip(topi.nn.relu(topi.negative(x)), 5, 99),
    "transpose": lambda x: topi.transpose(x, list(range(len(x.shape)))[::-1]),
    "choose": lambda x: te.compute(
        x.shape, lambda *i: tirx.Select(x(*i) > 7, x(*i) - tirx.const(100, "int8"), tirx.const(1, "int8"))
    ),
}
BINARY = {
    "add, wrapping": lambda a, b: topi.add(a, b),
    "add, saturating": lambda a, b: topi.cast(topi.clip(topi.add(wide(a), wide(b)), -128, 127), "int8"),
    "subtract": lambda a, b: topi.cast(topi.clip(topi.subtract(wide(a), wide(b)), -100, 127), "int8"),
    "average": lambda a, b: topi.cast(topi.right_shift(topi.add(wide(a), wide(b)), tirx.const(1)), "int8"),
    "maximum": lambda a, b: topi.maximum(a, b),
    "minimum": lambda a, b: topi.minimum(a, b),
    "rescaled product": lambda a, b: te.compute(
        topi.multiply(a, b).shape,
        lambda *i: clipped(
            (
                (
                    (wide(topi.broadcast_to(a, topi.multiply(a, b).shape)(*i)) - 3)
                    * (wide(topi.broadcast_to(b, topi.multiply(a, b).shape)(*i)) + 7)
                    * 5
                    + 64
                )
                >> 7
            )
            + 2
        ),
    ),
    "weighted sum": lambda a, b: te.compute(
        topi.add(a, b).shape,
        lambda *i: clipped(
            (
                (
                    (wide(topi.broadcast_to(a, topi.add(a, b).shape)(*i)) + 9) * 77
                    - wide(topi.broadcast_to(b, topi.add(a, b).shape)(*i)) * 50
                    + 32
                )
                >> 6
            )
            - 4
        ),
    ),
}


def unary(name, shape):
    x = placeholder(shape)
    return te.create_prim_func([x, UNARY[name](x)])


def binary(name, a_shape, b_shape):
    a, b = placeholder(a_shape, name="a"), placeholder(b_shape, name="b")
    return te.create_prim_func([a, b, BINARY[name](a, b)])
