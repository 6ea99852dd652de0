"""Changes of element type, shapes as values, made-up tensors, and look-ups."""

from __future__ import annotations

import numpy as np
from tvm import relax

from tvm_ergo.frontend.tflite.converter import Converter, Node, dtype_of_output
from tvm_ergo.frontend.tflite.registry import operator
from tvm_ergo.relay_passes.relax_utils import Constant, Expr, array_of, const, dtype_of, shape_of


@operator("QUANTIZE", options="QuantizeOptions")
@operator("DEQUANTIZE", options="DequantizeOptions")
@operator("DENSIFY", options="DensifyOptions")
def as_real(c: Converter, node: Node) -> None:
    """The same real numbers in the output's form; sparse and float16 constants were made dense and float32 when they
    were read."""
    x = c.real(node, 0)
    if isinstance(x, Constant) or node.code != "DENSIFY":
        c.store(node, x)
    else:
        c.bind(node.output(), c.stored(node, 0))


@operator("FAKE_QUANT", options="FakeQuantOptions", handled="min max num_bits narrow_range")
def fake_quant(c: Converter, node: Node) -> None:
    """Rounded to the levels of a quantization that has zero among them, and still real numbers."""
    bits, low, high = int(node.opt["num_bits"]), float(node.opt["min"]), float(node.opt["max"])
    if not 2 <= bits <= 16 or not low <= 0 <= high or low == high:
        raise node.refuse(f"has {bits} bits over {low:g}..{high:g}", required="2 to 16 bits over a range with 0")
    first, last = (1 if node.opt["narrow_range"] else 0), 2**bits - 1
    scale = np.float32((high - low) / (last - first))
    zero = np.float32(np.clip(np.floor(first - low / scale + 0.5), first, last))
    bottom, top = float((first - zero) * scale), float((last - zero) * scale)
    steps = c.emit(
        relax.op.divide(
            c.emit(relax.op.subtract(c.emit(relax.op.clip(c.real(node, 0), bottom, top)), const(np.float32(bottom)))),
            const(scale),
        )
    )
    whole = c.emit(relax.op.floor(c.emit(relax.op.add(steps, const(np.float32(0.5))))))
    c.store(node, c.emit(relax.op.add(c.emit(relax.op.multiply(whole, const(scale))), const(np.float32(bottom)))))


@operator(
    "CAST",
    options="CastOptions",
    without_meaning={"in_data_type": "the input tensor says it", "out_data_type": "the output tensor says it"},
)
def cast(c: Converter, node: Node) -> None:
    """Of the stored numbers: a scale does not count. Real numbers are truncated to integers."""
    x, dtype = c.stored(node, 0), dtype_of_output(node.output(), node)
    c.bind(node.output(), x if dtype_of(x) == dtype else c.emit(relax.op.astype(x, dtype)))


@operator("SHAPE", options="ShapeOptions", without_meaning={"out_type": "the output tensor says it"})
def shape(c: Converter, node: Node) -> None:
    c.bind(node.output(), const(np.array(shape_of(c.stored(node, 0)), dtype_of_output(node.output(), node))))


@operator("RANK", options="RankOptions")
def rank(c: Converter, node: Node) -> None:
    c.bind(node.output(), const(np.array(len(shape_of(c.stored(node, 0))), np.int32)))


@operator("FILL", options="FillOptions")
def fill(c: Converter, node: Node) -> None:
    dims, value = c.ints(node, 0, "a shape"), c.stored(node, 1)
    if min(dims, default=1) < 0:
        raise node.refuse(f"makes the shape {dims}", remedy="the file is damaged; convert it again")
    c.bind(node.output(), c.emit(relax.op.full(dims, value, dtype_of(value))))


@operator("ZEROS_LIKE", options="ZerosLikeOptions")
def zeros_like(c: Converter, node: Node) -> None:
    dims = shape_of(c.stored(node, 0))
    c.bind(
        node.output(),
        c.emit(
            relax.op.full(
                dims, const(np.zeros((), dtype_of_output(node.output(), node))), dtype_of_output(node.output(), node)
            )
        ),
    )


@operator("RANGE", options="RangeOptions")
def range_(c: Converter, node: Node) -> None:
    start, limit, step = (
        c.array(node, i, what).reshape(-1)[0] for i, what in enumerate(("a start", "a limit", "a step"))
    )
    if step == 0 or abs((float(limit) - float(start)) / float(step)) > 2**28:
        raise node.refuse(f"counts from {start} to {limit} by {step}", remedy="the file is damaged; convert it again")
    c.declared.add(8 * abs((float(limit) - float(start)) / float(step)), node.where)
    c.bind(node.output(), const(np.arange(start, limit, step, dtype_of_output(node.output(), node))))


@operator("ONE_HOT", options="OneHotOptions", handled="axis")
def one_hot(c: Converter, node: Node) -> None:
    indices, depth = c.stored(node, 0), c.ints(node, 1, "a depth")[0]
    on, off = c.array(node, 2, "a value").reshape(-1)[0], c.array(node, 3, "a value").reshape(-1)[0]
    rank_, dtype = len(shape_of(indices)), dtype_of_output(node.output(), node)
    axis = int(node.opt["axis"]) % (rank_ + 1)
    c.declared.add(8 * depth, node.where)
    spread = c.emit(relax.op.expand_dims(indices, axis))
    levels = const(
        np.arange(depth, dtype=dtype_of(indices)).reshape([-1 if i == axis else 1 for i in range(rank_ + 1)])
    )
    hit = c.emit(relax.op.equal(spread, levels))
    c.bind(node.output(), c.emit(relax.op.where(hit, const(np.asarray(on, dtype)), const(np.asarray(off, dtype)))))


@operator("BROADCAST_ARGS")
def broadcast_args(c: Converter, node: Node) -> None:
    """The shape two shapes broadcast to."""
    shapes = [tuple(c.ints(node, i, "a shape")) for i in (0, 1)]
    c.bind(node.output(), const(np.array(np.broadcast_shapes(*shapes), dtype_of_output(node.output(), node))))


@operator("SCATTER_ND", options="ScatterNdOptions")
def scatter_nd(c: Converter, node: Node) -> None:
    """Sums of updates at constant places of a tensor of zeros: a product with a matrix of ones."""
    places, dims = c.array(node, 0, "places"), c.ints(node, 2, "a shape")
    updates, depth = c.real(node, 1), places.shape[-1]
    sizes = np.array(dims[:depth])
    if (
        not 0 < depth <= len(dims)
        or min(dims) < 1
        or places.size
        and ((places < 0) | (places >= sizes)).any()
        or dtype_of(updates) != "float32"
    ):
        raise node.refuse(
            f"writes {dtype_of(updates)} at {places.shape} places of {dims}",
            required="real numbers at places inside the shape",
        )
    flat = np.ravel_multi_index(tuple(places.reshape(-1, depth).T), tuple(sizes))
    c.declared.add(4 * int(np.prod(sizes)) * flat.size, node.where)
    ones = np.zeros((int(np.prod(sizes)), flat.size), np.float32)
    ones[flat, np.arange(flat.size)] = 1
    rows = c.emit(relax.op.reshape(updates, [flat.size, int(np.prod(dims[depth:]))]))
    c.store(node, c.emit(relax.op.reshape(c.emit(relax.op.matmul(const(ones), rows)), dims)))


# ---- look-ups ----
def checked_indices(c: Converter, node: Node, i: int, size: int) -> Expr:
    """Indices of input ``i`` into ``size`` elements: constants are checked, others kept inside when they are used."""
    indices = c.stored(node, i)
    if isinstance(indices, Constant):
        values = np.asarray(array_of(indices))
        if values.size and not (0 <= values.min() and values.max() < size):
            raise node.refuse(
                f"looks up {int(values.min())}..{int(values.max())} of {size} elements",
                remedy="the file is damaged; convert it again",
            )
    return indices


@operator("GATHER", options="GatherOptions", handled="axis batch_dims")
def gather(c: Converter, node: Node) -> None:
    data, rank_ = c.stored(node, 0), len(shape_of(c.stored(node, 0)))
    axis, batch = int(node.opt["axis"]) % max(rank_, 1), int(node.opt["batch_dims"])
    indices = checked_indices(c, node, 1, shape_of(data)[axis])
    batch = batch + len(shape_of(indices)) if batch < 0 else batch
    if not 0 <= batch <= min(axis, len(shape_of(indices))) or shape_of(data)[:batch] != shape_of(indices)[:batch]:
        raise node.refuse(f"has batch_dims {batch} and the axis {axis}", required="the same leading dimensions")
    c.bind(node.output(), c.moved(node, data, node.input(0), lambda x: _taken(c, x, indices, axis, batch)))


def _taken(c: Converter, x: Expr, indices: Expr, axis: int, batch: int) -> Expr:
    """``take`` along ``axis``; with batch dimensions, one after the other."""
    if batch == 0:
        return c.emit(relax.op.take(x, indices, axis, "clip"))
    parts = []
    for i in range(shape_of(x)[0]):
        row, at = (
            c.emit(relax.op.reshape(c.emit(relax.op.strided_slice(v, [0], [i], [i + 1])), list(shape_of(v)[1:])))
            for v in (x, indices)
        )
        part = _taken(c, row, at, axis - 1, batch - 1)
        parts.append(c.emit(relax.op.reshape(part, [1, *shape_of(part)])))
    return parts[0] if len(parts) == 1 else c.emit(relax.op.concat(parts, 0))


@operator("GATHER_ND", options="GatherNdOptions")
def gather_nd(c: Converter, node: Node) -> None:
    """The last axis of the indices names an element or a slice; it becomes one look-up in the flattened leading
    axes."""
    data, indices = c.stored(node, 0), c.stored(node, 1)
    shape_, depth = shape_of(data), shape_of(indices)[-1]
    if not 0 < depth <= len(shape_):
        raise node.refuse(
            f"has indices of {depth} numbers into {list(shape_)}", remedy="the file is damaged; convert it again"
        )
    sizes, steps = np.array(shape_[:depth]), np.array([int(np.prod(shape_[i + 1 : depth])) for i in range(depth)])
    if isinstance(indices, Constant):
        values = np.asarray(array_of(indices))
        if values.size and ((values < 0) | (values >= sizes)).any():
            raise node.refuse("looks up what is beyond its input", remedy="the file is damaged; convert it again")
    kind = np.dtype(dtype_of(indices)).type
    inside = c.emit(
        relax.op.maximum(c.emit(relax.op.minimum(indices, const((sizes - 1).astype(kind)))), const(kind(0)))
    )
    flat = c.emit(
        relax.op.sum(c.emit(relax.op.multiply(inside, const(steps.astype(kind)))), [len(shape_of(indices)) - 1])
    )
    rest = [int(np.prod(sizes)), *shape_[depth:]]
    c.bind(
        node.output(),
        c.moved(node, data, node.input(0), lambda x: _taken(c, c.emit(relax.op.reshape(x, rest)), flat, 0, 0)),
    )


@operator("EMBEDDING_LOOKUP")
def embedding_lookup(c: Converter, node: Node) -> None:
    """Rows of a table, which may be stored in 8 bits."""
    checked_indices(c, node, 0, shape_of(c.stored(node, 1))[0])
    c.store(node, c.emit(relax.op.take(c.real(node, 1), c.stored(node, 0), 0, "clip")))


@operator("REVERSE_SEQUENCE", options="ReverseSequenceOptions", handled="seq_dim batch_dim")
def reverse_sequence(c: Converter, node: Node) -> None:
    """The first ``length`` elements of each batch entry turned around; the lengths must be known."""
    x, lengths = c.real(node, 0), c.ints(node, 1, "lengths")
    along, batch = int(node.opt["seq_dim"]), int(node.opt["batch_dim"])
    shape_ = shape_of(x)
    if (
        along == batch
        or not 0 <= along < len(shape_)
        or not 0 <= batch < len(shape_)
        or len(lengths) != shape_[batch]
        or not all(0 <= n <= shape_[along] for n in lengths)
    ):
        raise node.refuse(
            f"turns {lengths} elements of {list(shape_)} around", remedy="the file is damaged; convert it again"
        )
    parts = []
    for i, n in enumerate(lengths):
        row = c.emit(relax.op.strided_slice(x, [batch], [i], [i + 1]))
        order = [*range(n - 1, -1, -1), *range(n, shape_[along])]
        parts.append(c.emit(relax.op.take(row, const(np.array(order, np.int32)), along, "clip")))
    c.store(node, parts[0] if len(parts) == 1 else c.emit(relax.op.concat(parts, batch)))
