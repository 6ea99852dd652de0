"""Random instances of the ops without weights."""

from __future__ import annotations

import numpy as np

from tvm_ergo.relay_passes.dialect.argmax import Argmax
from tvm_ergo.relay_passes.dialect.base import Shape
from tvm_ergo.relay_passes.dialect.elementwise import Add, Maximum, Minimum, Mul, Table
from tvm_ergo.relay_passes.dialect.movement import Concat, Pad, Receive, Reshape, Resize2d, Slice, Transpose
from tvm_ergo.relay_passes.dialect.order import LogSoftmax, TopK
from tvm_ergo.relay_passes.dialect.pooling import AvgPool2d, MaxPool2d, ReduceMax, ReduceMin, ReduceSum, Softmax
from tvm_ergo.relay_passes.dialect.testing.source import (
    INT8_STD,
    RandomCall,
    Source,
    any_shape,
    image_shape,
    maker,
    random_array,
)


def _pair(source: Source, shape: Shape | None) -> tuple[Shape, Shape]:
    """Two broadcastable shapes; the first is ``shape`` where that is given, and the result then has it too."""
    a = any_shape(source, shape)
    b = tuple(dim if source.chance(70) else 1 for dim in a)
    b = b[source.integer(0, len(b)) if source.chance(20) else 0 :]
    if shape is None and source.chance(30):
        a, b = b, a
    if shape is None and source.chance(15):
        a = tuple(dim if source.chance(50) else 1 for dim in a)
    return a, b


def _scalar_tail(source: Source, scale: float) -> dict:
    mult, shift = source.multiplier(scale)
    lo, hi = source.clip()
    return {"mult": mult, "shift": shift, "lo": lo, "hi": hi, "out_zp": source.zero_point()}


@maker("add")
def _add(source: Source, shape: Shape | None) -> RandomCall:
    a, b = _pair(source, shape)
    lo, hi = source.clip()
    fields = {
        "a_zp": source.zero_point(),
        "b_zp": source.zero_point(),
        "out_zp": source.zero_point(),
        "lo": lo,
        "hi": hi,
    }
    if source.chance(10):
        limit = 2**21 - 1
        mults = {
            "a_mult": source.choice((limit, -limit)),
            "b_mult": source.choice((limit, -limit, 0)),
            "shift": source.choice((0, 20, 62)),
        }
    else:
        sign = source.choice((1, 1, -1))
        mults = {
            "a_mult": source.integer(2**18, 2**21 - 1),
            "b_mult": sign * source.integer(2**18, 2**21 - 1),
            "shift": 21,
        }
    return RandomCall(Add(**mults, **fields), (a, b), ("int8", "int8"))


@maker("mul")
def _mul(source: Source, shape: Shape | None) -> RandomCall:
    a, b = _pair(source, shape)
    op = Mul(a_zp=source.zero_point(), b_zp=source.zero_point(), **_scalar_tail(source, 50.0 / INT8_STD**2))
    return RandomCall(op, (a, b), ("int8", "int8"))


@maker("maximum")
def _maximum(source: Source, shape: Shape | None) -> RandomCall:
    return RandomCall(Maximum(out_zp=source.zero_point()), _pair(source, shape), ("int8", "int8"))


@maker("minimum")
def _minimum(source: Source, shape: Shape | None) -> RandomCall:
    return RandomCall(Minimum(out_zp=source.zero_point()), _pair(source, shape), ("int8", "int8"))


@maker("table")
def _table(source: Source, shape: Shape | None) -> RandomCall:
    x = any_shape(source, shape)
    dtype = "int8" if shape is not None else source.choice(("int8", "int8", "uint8"))
    out = "int8" if shape is not None else source.choice(("int8", "int8", "uint8"))
    lut = random_array(source.rng, (x[-1], 256) if source.chance(35) else (256,), out)
    return RandomCall(Table(out_zp=source.zero_point()), (x, lut.shape), (dtype, out), {1: lut})


def _pool_fields(source: Source, x: Shape, dilated: bool) -> dict:
    """A window that fits; the padding is shorter than the window, so none lies wholly outside."""
    pool = tuple(source.integer(1, min(3, x[1 + a])) for a in (0, 1))
    dilation = tuple(2 if dilated and pool[a] * 2 - 1 <= x[1 + a] and source.chance(30) else 1 for a in (0, 1))
    pads = [source.integer(0, (pool[a] - 1) // 2 if dilation[a] == 2 else pool[a] - 1) for a in (0, 1, 0, 1)]
    fields = {"pool": pool, "strides": tuple(source.integer(1, 3) for _ in range(2)), "padding": tuple(pads)}
    return fields | ({"dilation": dilation} if dilated else {})


@maker("max_pool2d")
def _max_pool(source: Source, shape: Shape | None) -> RandomCall:
    x = image_shape(source, shape)
    return RandomCall(MaxPool2d(out_zp=source.zero_point(), **_pool_fields(source, x, True)), (x,), ("int8",))


@maker("avg_pool2d")
def _avg_pool(source: Source, shape: Shape | None) -> RandomCall:
    x = image_shape(source, shape)
    window = _pool_fields(source, x, False)
    op = AvgPool2d(
        count_include_pad=source.chance(50), in_zp=source.zero_point(), **window, **_scalar_tail(source, 1.0)
    )
    return RandomCall(op, (x,), ("int8",))


def _axes(source: Source, x: Shape) -> tuple[int, ...]:
    axes = tuple(axis for axis in range(len(x)) if source.chance(50))
    return axes or (source.integer(0, len(x) - 1),)


@maker("reduce_sum")
def _reduce_sum(source: Source, shape: Shape | None) -> RandomCall:
    x = any_shape(source, shape)
    axes = _axes(source, x)
    count = int(np.prod([x[axis] for axis in axes]))
    op = ReduceSum(
        axes=axes, keepdims=source.chance(50), in_zp=source.zero_point(), **_scalar_tail(source, 1.0 / count)
    )
    return RandomCall(op, (x,), ("int8",))


@maker("reduce_max")
def _reduce_max(source: Source, shape: Shape | None) -> RandomCall:
    x = any_shape(source, shape)
    return RandomCall(
        ReduceMax(axes=_axes(source, x), keepdims=source.chance(50), out_zp=source.zero_point()), (x,), ("int8",)
    )


@maker("reduce_min")
def _reduce_min(source: Source, shape: Shape | None) -> RandomCall:
    x = any_shape(source, shape)
    return RandomCall(
        ReduceMin(axes=_axes(source, x), keepdims=source.chance(50), out_zp=source.zero_point()), (x,), ("int8",)
    )


@maker("argmax")
def _argmax(source: Source, shape: Shape | None) -> RandomCall:
    return RandomCall(Argmax(out_zp=source.zero_point()), (any_shape(source, shape),), ("int8",))


@maker("topk")
def _topk(source: Source, shape: Shape | None) -> RandomCall:
    x = any_shape(source, shape)
    k = x[-1] if shape is not None else source.integer(1, x[-1])
    op = TopK(k=k, positions=shape is None and source.chance(50), out_zp=source.zero_point())
    return RandomCall(op, (x,), ("int8",))


def _exponentials(source: Source) -> np.ndarray:
    step = 2.0 ** source.integer(-8, 0)
    return np.minimum(np.floor(np.exp(-step * np.arange(256)) * 2**22), 2**22).astype(np.int32)


@maker("log_softmax")
def _log_softmax(source: Source, shape: Shape | None) -> RandomCall:
    x, lo_hi = any_shape(source, shape), source.clip()
    fields = {"x_mult": source.integer(2**24, 2**28), "log_mult": source.integer(0, 2**14), "shift": 26}
    op = LogSoftmax(**fields, lo=lo_hi[0], hi=lo_hi[1], out_zp=source.choice((127, source.zero_point())))
    return RandomCall(op, (x, (256,)), ("int8", "int32"), {1: _exponentials(source)})


@maker("softmax")
def _softmax(source: Source, shape: Shape | None) -> RandomCall:
    x = any_shape(source, shape)
    step = 2.0 ** source.integer(-8, 0)
    lut = np.minimum(np.floor(np.exp(-step * np.arange(256)) * 2**23), 2**23 - 1).astype(np.int32)
    fields = _scalar_tail(source, 256.0) | {"out_zp": -128}
    return RandomCall(Softmax(**fields), (x, (256,)), ("int8", "int32"), {1: lut})


def _resize_table(source: Source, size_in: int, size_out: int, nearest: bool) -> np.ndarray:
    """Half-pixel sampling positions as (low, high, weight of high in 2**-11)."""
    position = np.clip((np.arange(size_out) + 0.5) * size_in / size_out - 0.5, 0, size_in - 1)
    low = np.round(position) if nearest else np.floor(position)
    weight = np.zeros(size_out) if nearest else np.round((position - low) * 2048)
    if source.chance(10):
        weight = source.rng.choice([0, 2048], size_out)
    return np.stack([low, np.minimum(low + 1, size_in - 1), weight], axis=1).astype(np.int32)


@maker("resize2d")
def _resize(source: Source, shape: Shape | None) -> RandomCall:
    x = image_shape(source, shape, high=6)
    nearest = source.chance(40)
    rows = _resize_table(source, x[1], source.integer(1, 13), nearest)
    cols = _resize_table(source, x[2], source.integer(1, 13), nearest)
    fields = {"out_zp": source.zero_point()}
    if source.chance(50):
        fields |= {"scaled": True, "in_zp": source.zero_point(), **_scalar_tail(source, 1.0)}
        fields["shift"] = min(fields["shift"], 40)
    return RandomCall(Resize2d(**fields), (x, rows.shape, cols.shape), ("int8", "int32", "int32"), {1: rows, 2: cols})


@maker("pad")
def _pad(source: Source, shape: Shape | None) -> RandomCall:
    x = any_shape(source, shape)
    widths = tuple(source.integer(0, 3) if source.chance(50) else 0 for _ in range(2 * len(x)))
    return RandomCall(Pad(pad_width=widths, value=source.zero_point()), (x,), ("int8",))


@maker("concat")
def _concat(source: Source, shape: Shape | None) -> RandomCall:
    x = any_shape(source, shape)
    axis = source.integer(0, len(x) - 1)
    shapes = (
        x,
        *(
            x[:axis] + (source.integer(1, 6),) + x[axis + 1 :]
            for _ in range(source.integer(0 if shape is None else 1, 3))
        ),
    )
    return RandomCall(Concat(axis=axis, out_zp=source.zero_point()), shapes, ("int8",) * len(shapes))


@maker("slice")
def _slice(source: Source, shape: Shape | None) -> RandomCall:
    x = any_shape(source, shape)
    begin = tuple(source.integer(0, dim - 1) for dim in x)
    end = tuple(source.integer(b + 1, dim) for b, dim in zip(begin, x, strict=True))
    return RandomCall(
        Slice(begin=begin, end=end, strides=tuple(source.choice((1, 1, 2, 3)) for _ in x)), (x,), ("int8",)
    )


@maker("receive")
def _receive(source: Source, shape: Shape | None) -> RandomCall:
    case = _transpose(source, shape)
    return RandomCall(Receive(perm=case.op.perm), case.shapes, case.dtypes)


@maker("transpose")
def _transpose(source: Source, shape: Shape | None) -> RandomCall:
    x = any_shape(source, shape)
    rest, perm = list(range(len(x))), []
    while rest:
        perm.append(rest.pop(source.integer(0, len(rest) - 1)))
    return RandomCall(Transpose(perm=tuple(perm)), (x,), ("int8",))


@maker("reshape")
def _reshape(source: Source, shape: Shape | None) -> RandomCall:
    x = any_shape(source, shape)
    rest, new = int(np.prod(x)), []
    for _ in range(source.integer(0, 3)):
        new.append(source.choice([d for d in range(1, rest + 1) if rest % d == 0]))
        rest //= new[-1]
    return RandomCall(Reshape(shape=(*new, rest)), (x,), ("int8",))
