"""Where each element of a network's outputs lies in the chip's memory, and what it stands for.

What TVM or the chain does between the chip's results and the network's outputs only moves elements and dequantizes
them; here the same steps are done with places in place of values."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import tvm

from tvm_ergo.frontend import TensorInfo
from tvm_ergo.relay_passes.compile.partition import is_chip_function
from tvm_ergo.relay_passes.relax_utils import (
    Call,
    Constant,
    Tuple,
    TupleGetItem,
    Var,
    array_of,
    bindings_of,
    body_of,
    dtype_of,
    ints,
    main_of,
    op_name,
    shape_of,
)
from tvm_ergo.target.errors import InputError, UnsupportedError
from tvm_ergo.target.isa import Operand
from tvm_ergo.target.numerics import quantize_multiplier
from tvm_ergo.target.program import Program

_RESHAPES = ("relax.reshape", "relax.expand_dims", "relax.squeeze", "relax.flatten", "relax.nn.batch_flatten")
MOST_SCALE = 255.0


@dataclass(frozen=True)
class Places:
    """Arrays of one shape. port : which of the Program's outputs holds an element. address : of its first byte. scale,
    zero_point : ``real = scale * (stored - zero_point)``; NaN where nothing says it."""

    port: np.ndarray
    address: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.port.shape

    def each(self, change) -> Places:
        """``change`` of every array."""
        return Places(*(change(a) for a in (self.port, self.address, self.scale, self.zero_point)))

    def __getitem__(self, at) -> Places:
        return self.each(lambda a: a[at])

    def reshape(self, *shape: int) -> Places:
        return self.each(lambda a: a.reshape(shape))

    def transpose(self, *axes: int) -> Places:
        return self.each(lambda a: a.transpose(axes))


def joined(parts: list[Places], axis: int) -> Places:
    return Places(*(np.concatenate([getattr(p, f) for p in parts], axis) for f in Places.__dataclass_fields__))


def of_port(number: int, operand: Operand, shape) -> Places:
    address = np.full(operand.shape, operand.addr, np.int64)
    for axis, stride in enumerate(operand.strides):
        address = address + (np.arange(operand.shape[axis]) * stride).reshape(
            [-1 if a == axis else 1 for a in range(operand.rank)]
        )
    unknown = np.full(operand.shape, np.nan)
    return Places(np.full(operand.shape, number), address, unknown, unknown).reshape(*shape)


def outputs_of(mod: tvm.IRModule, program: Program, outputs: tuple[TensorInfo, ...]) -> list[Places]:
    """Of each output of a partitioned module whose one chip function became ``program``. Errors: UnsupportedError where
    anything is computed behind the chip."""
    walk = _Walk(mod, program)
    found = walk.results()
    return [_told(places, info) for places, info in zip(found, outputs)]


def _told(places: Places, info: TensorInfo) -> Places:
    """What the model says of an integer output, where its steps did not."""
    if info.scale is None or not np.isnan(places.scale).all():
        return places
    return replace(
        places, scale=np.full(places.shape, info.scale), zero_point=np.full(places.shape, float(info.zero_point))
    )


class _Walk:
    def __init__(self, mod: tvm.IRModule, program: Program):
        self.mod, self.func, self.program = mod, main_of(mod), program
        self.values: dict[Var, object] = {}

    def results(self) -> list[Places]:
        for var, value in bindings_of(self.func):
            self.values[var] = self._value(value)
        found = self._value(body_of(self.func))
        found = found if isinstance(found, tuple) else (found,)
        for places in found:
            if not isinstance(places, Places):
                raise self._refused(str(places) if isinstance(places, str) else "an output that the chip does not give")
        return list(found)

    def _value(self, expr):
        """Places, a tuple of them, or what is in the way: its name."""
        if isinstance(expr, Var):
            return self.values.get(expr, "an input")
        if isinstance(expr, Tuple):
            return tuple(self._value(f) for f in expr.fields)
        if isinstance(expr, TupleGetItem):
            whole = self._value(expr.tuple_value)
            return whole[int(expr.index)] if isinstance(whole, tuple) else whole
        if isinstance(expr, Call):
            return self._call(expr)
        return "a constant"

    def _call(self, call: Call):
        if isinstance(call.op, tvm.ir.GlobalVar):
            if not is_chip_function(self.mod[call.op]):
                return str(call.op.name_hint)
            types = list(call.ty.fields) if isinstance(call.ty, tvm.ir.TupleType) else [call.ty]
            shapes = [tuple(int(d) for d in t.shape.values) for t in types]
            return (
                tuple(of_port(n, p.operand, s) for n, (p, s) in enumerate(zip(self.program.outputs, shapes)))
                if len(shapes) > 1
                else of_port(0, self.program.outputs[0].operand, shapes[0])
            )
        name = op_name(call) or "a host function"
        x = self._value(call.args[0]) if call.args else name
        parts = x if isinstance(x, tuple) else (x,)
        for reason in (p for p in parts if not isinstance(p, Places)):
            return reason if reason not in ("an input", "a constant") else name.removeprefix("relax.")
        step = _STEPS.get(name)
        found = step(call, x) if step else None
        return name.removeprefix("relax.") if found is None else found

    def _refused(self, what: str) -> UnsupportedError:
        return UnsupportedError(
            "post-processing takes the chip's own integers, and something is computed behind them",
            where=what,
            required="a network that leaves only moving of results (reshape, transpose, concat) to the host",
            remedy="export the network without it (raw heads), or without what --strict names",
        )


def _scaled(call: Call, x: Places) -> Places | None:
    axis, values = int(call.attrs.axis), []
    for operand in call.args[1:3]:
        if not isinstance(operand, Constant):
            return None
        array = array_of(operand).astype(np.float64)
        values.append(
            array.reshape(())
            if array.size == 1
            else array.reshape([-1 if a == axis % len(x.shape) else 1 for a in range(len(x.shape))])
        )
    return replace(x, scale=np.broadcast_to(values[0], x.shape), zero_point=np.broadcast_to(values[1], x.shape))


def _requantized(call: Call, x: Places) -> Places | None:
    """A quantization with the numbers that the stored integers have already."""
    again = _scaled(call, x)
    same = again is not None and np.array_equal(again.scale, x.scale) and np.array_equal(again.zero_point, x.zero_point)
    return x if same else None


def _cast(call: Call, x: Places) -> Places | None:
    """Integers as floats: sums that are given as they are; and floats of another width."""
    if not dtype_of(call).startswith("float"):
        return None
    floats = dtype_of(call.args[0]).startswith("float")
    return x if floats else replace(x, scale=np.ones(x.shape), zero_point=np.zeros(x.shape))


def _multiplied(call: Call, x: Places) -> Places | None:
    """By the scale of the sums, one a channel."""
    if not isinstance(call.args[1], Constant) or np.isnan(x.scale).any():
        return None
    factor = np.broadcast_to(array_of(call.args[1]).astype(np.float64), x.shape)
    return replace(x, scale=x.scale * factor) if (factor > 0).all() else None


def _reshaped(call: Call, x: Places) -> Places:
    return x.reshape(*shape_of(call))


def _permuted(call: Call, x: Places) -> Places:
    rank = len(x.shape)
    axes = tuple(reversed(range(rank))) if call.attrs.axes is None else tuple(a % rank for a in ints(call.attrs.axes))
    return x.transpose(*axes)


def _concatenated(call: Call, x) -> Places | None:
    return joined(list(x), 0 if call.attrs.axis is None else int(call.attrs.axis)) if isinstance(x, tuple) else None


_STEPS = {
    "relax.dequantize": _scaled,
    "relax.quantize": _requantized,
    "relax.permute_dims": _permuted,
    "relax.concat": _concatenated,
    "relax.astype": _cast,
    "relax.multiply": _multiplied,
    **dict.fromkeys(_RESHAPES, _reshaped),
}


def last_operators(mod: tvm.IRModule) -> frozenset[str]:
    """Names of the operators that compute what the outputs of a network in normal form are made of: the last ones that
    do more than move or quantize."""
    values, found, seen = dict(bindings_of(main_of(mod))), set(), set()
    waiting = [body_of(main_of(mod))]
    while waiting:
        expr = waiting.pop()
        if isinstance(expr, Var):
            if expr in values and expr not in seen:
                seen.add(expr)
                waiting.append(values[expr])
        elif isinstance(expr, Tuple):
            waiting += list(expr.fields)
        elif isinstance(expr, TupleGetItem):
            waiting.append(expr.tuple_value)
        elif isinstance(expr, Call):
            name = op_name(expr)
            if name in _STEPS and name != "relax.multiply" or name in ("relax.strided_slice", "relax.split"):
                waiting.append(expr.args[0])
            else:
                found.add(name)
    return frozenset(found)


# ---- operands ----
def operand_of(program: Program, places: Places) -> Operand | None:
    """The operand whose elements lie there; None where no strides describe them."""
    flat = places.address.reshape(-1)
    if places.port.min() != places.port.max():
        return None
    strides = []
    for axis, length in enumerate(places.shape):
        first = places.address[tuple(slice(0, 2) if a == axis else 0 for a in range(len(places.shape)))]
        strides.append(int(first[1] - first[0]) if length > 1 else 0)
    expected = np.full(places.shape, flat[0])
    for axis, stride in enumerate(strides):
        expected = expected + (np.arange(places.shape[axis]) * stride).reshape(
            [-1 if a == axis else 1 for a in range(len(places.shape))]
        )
    if not np.array_equal(expected, places.address):
        return None
    return Operand(int(flat[0]), program.outputs[int(flat_port(places))].operand.dtype, places.shape, tuple(strides))


def flat_port(places: Places) -> int:
    return int(places.port.reshape(-1)[0])


def scales_of(places: Places, keep: int, where: str) -> np.ndarray | None:
    """int32 [..., 3] of the last ``keep`` axes (multiplier of ``scale * 65536``, shift, zero point), one where all are
    equal; None where they differ along the others. Errors: InputError for scales that nothing says."""
    table = np.stack([places.scale, places.zero_point], -1)
    if np.isnan(table).any():
        raise InputError(
            "nothing says what the integers of an output stand for",
            where=where,
            required="an output with a scale and a zero point (see `tvm-ergo report`, rows gives)",
            remedy="export the network with dequantized (float) outputs",
        )
    lead = len(places.shape) - keep
    kept = table[(0,) * lead]
    if not np.array_equal(np.broadcast_to(kept, table.shape), table):
        return None
    if np.array_equal(np.broadcast_to(kept.reshape(-1, 2)[0], kept.shape), kept):
        kept = kept.reshape(-1, 2)[:1]
    elif keep > 1 and np.array_equal(np.broadcast_to(kept[(0,) * (keep - 1)], kept.shape), kept):
        kept = kept[(0,) * (keep - 1)]
    if kept[..., 0].max() > MOST_SCALE:
        raise InputError(
            "an output's scale is too large",
            where=where,
            required=f"at most {MOST_SCALE}",
            available=str(kept[..., 0].max()),
        )
    pairs = [(*quantize_multiplier(s * 65536), int(z)) for s, z in kept.reshape(-1, 2)]
    return np.array(pairs, np.int32).reshape(*kept.shape[:-1], 3)
