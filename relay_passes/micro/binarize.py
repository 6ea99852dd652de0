"""Binarization: convolutions of signs with weights of two magnitudes run as XNOR and popcount, found from values alone.

The pass reads the integer dialect after ``lower_quantized`` and changes no result: what it replaces, it has evaluated
for every sum that can occur. A tensor is one of signs where a table gives two values for all its inputs can be; moving
and pooling keep it one. A layer is binary where its input is one of signs and each output channel's weights are +a
and -a. Where nothing but signs reads a layer, everything between its sum and them (requantization, clip, table) is an
interval of sums a channel: batch norm and sign, in whatever form the file brought them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.dialect.binary import MOST_PRODUCTS
from tvm_ergo.relay_passes.relax_utils import Constant, array_of, bindings_of, const, main_of, shape_of
from tvm_ergo.target import numerics

FEWEST_SAMPLES = 8
"""Calibration samples that must agree before an input counts as one of two values."""
MOST_SUMS = 1 << 16
"""Sums of a channel that are looked at one by one; a layer that has more stays as it is."""


@tvm.transform.module_pass(opt_level=0, name="Binarize")
@dataclass(frozen=True)
class BinarizeLayers:
    """Rewrites binary layers of ``main`` to packed signs. In, out: the integer dialect; the same values to the bit.

    inputs : of float inputs that hold -v and v only, by name, those two (`sign_inputs`): any other value given later
    counts as the nearer of them."""

    inputs: tuple[tuple[str, float, float], ...] = ()

    def transform_module(self, mod: tvm.IRModule, _context) -> tvm.IRModule:
        func = main_of(mod)
        found = _Network(func, self.inputs)
        if not found.layers:
            return mod
        mod = mod.clone()
        mod[mod.get_global_var("main")] = _Rewriting(func, found).run()
        return mod


def sign_inputs(func: relax.Function, samples) -> tuple[tuple[str, float, float], ...]:
    """``(name, less, greater)`` of the float inputs that hold -v and v in all calibration samples, several of them.

    samples : dicts of arrays by input name."""
    seen: dict[str, set] = {str(p.name): set() for p in func.params}
    count = 0
    for sample in samples:
        count += 1
        for name, values in sample.items():
            if name in seen and len(seen[name]) <= 2:
                seen[name] |= set(np.unique(np.asarray(values, np.float32))[:3].tolist())
    found = [(name, *sorted(values)) for name, values in seen.items() if len(values) == 2 and not sum(values)]
    return tuple(found) if count >= FEWEST_SAMPLES else ()


@dataclass(frozen=True)
class Signs:
    """A tensor of two values; ``table`` is the call that makes them, ``source`` what is read there."""

    minus: int
    plus: int
    low: np.ndarray  # the interval of int8 inputs of the table that give plus, a channel
    high: np.ndarray
    source: relax.Var
    table: relax.Var


@dataclass(frozen=True)
class Layer:
    """A convolution of signs. ``sum = bias[o] + scale[o] * dot``."""

    op: dialect.ErgoOp
    signs: np.ndarray  # bool, OHWI: positive weights
    scale: np.ndarray
    bias: np.ndarray


@dataclass
class _Network:
    """What is binary in a function. ``signs``: tensors of two values, ``layers``: binary convolutions."""

    func: relax.Function
    inputs: tuple = ()
    ops: dict = field(default_factory=dict)
    value: dict = field(default_factory=dict)
    readers: dict = field(default_factory=dict)
    signs: dict = field(default_factory=dict)
    layers: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        for var, value in bindings_of(self.func):
            self.value[var] = value
            for used in relax.analysis.free_vars(value):
                self.readers.setdefault(used, []).append(var)
            if dialect.is_ergo_call(value):
                self.ops[var] = dialect.from_call(value)
                self._look_at(var, self.ops[var], value.args)
            elif isinstance(value, relax.Call) and value.op == tvm.ir.Op.get("relax.quantize"):
                self._look_at_input(var, value)
        self.readers.setdefault(self.func.body.body, []).append(None)

    def _look_at_input(self, var, call) -> None:
        for name, minus, plus in self.inputs:
            if str(getattr(call.args[0], "name", "")) == name and str(var.ty.dtype) == "int8":
                scale, zero = (float(array_of(a).reshape(-1)[0]) for a in call.args[1:3])
                low, high = (int(np.clip(np.rint(v / scale) + zero, -128, 127)) for v in (minus, plus))
                if low < high:
                    self._by_middle(var, low, high)

    def _by_middle(self, var, minus: int, plus: int) -> None:
        """A tensor known to hold two values is packed from its int8 form."""
        channels = shape_of(var)[-1]
        least = np.full(channels, -(-(minus + plus) // 2), np.int8)
        self.signs[var] = Signs(minus, plus, least, np.full(channels, 127, np.int8), var, var)

    def _look_at(self, var, op, args) -> None:
        if isinstance(op, dialect.Table):
            found = self._signs_of(var, op, args)
            if found is not None:
                self.signs[var] = found
        elif args and args[0] in self.signs and (type(op) is dialect.MaxPool2d or _moves_bytes(op, args[0], var)):
            self.signs[var] = self.signs[args[0]]
        elif args and args[0] in self.signs and isinstance(op, (dialect.Transpose, dialect.Reshape)):
            self._by_middle(var, self.signs[args[0]].minus, self.signs[args[0]].plus)
        elif type(op) in (dialect.Conv2d, dialect.Conv2dAccumulate) and args[0] in self.signs:
            layer = _layer_of(op, self.signs[args[0]], args)
            if layer is not None:
                self.layers[var] = layer

    def _signs_of(self, var, op, args) -> Signs | None:
        source, lut = args[0], args[1]
        if not isinstance(lut, Constant) or str(source.ty.dtype) != "int8" or str(var.ty.dtype) != "int8":
            return None
        channels = shape_of(var)[-1]
        table = np.broadcast_to(array_of(lut), (channels, 256))
        reached = self.reached(source, channels)
        values = np.unique(table[reached])
        if len(values) != 2:
            return None
        interval = _interval(table == values[1], reached)
        return None if interval is None else Signs(int(values[0]), int(values[1]), *interval, source, var)

    def reached(self, var, channels: int) -> np.ndarray:
        """bool[C, 256]: which int8 values (+128) a tensor can hold, as far as its layer tells."""
        everything = np.ones((channels, 256), bool)
        while isinstance(self.ops.get(var), dialect.Reshape) and _keeps_channels(
            self.ops[var], self.value[var].args[0], var
        ):
            var = self.value[var].args[0]
        op = self.ops.get(var)
        if type(op) is not dialect.Conv2d or not isinstance(self.value[var].args[1], Constant):
            return everything
        sums = self.layers.get(var)
        found = np.zeros((channels, 256), bool)
        w, bias, mult, shift = (array_of(a) for a in self.value[var].args[1:])
        for o in range(channels):
            acc = binary_sums(sums, o) if sums is not None else _sums(w[o].astype(np.int64) - op.w_zp, bias[o], op)
            if acc is None:
                return everything
            found[o, numerics.requantize(acc, mult[o], shift[o], op.out_zp, op.lo, op.hi).astype(np.int64) + 128] = True
        return found


def _keeps_channels(op, source, var) -> bool:
    """Whether channels stay what they are: a reshape that leaves the last axis."""
    return isinstance(op, dialect.Reshape) and shape_of(source)[-1:] == shape_of(var)[-1:]


def _moves_bytes(op, source, var) -> bool:
    """Whether packed bytes are moved as the elements would be: whole bytes along the last axis, or the same axis."""
    whole = isinstance(op, dialect.Reshape) and not (shape_of(source)[-1] % 8 or shape_of(var)[-1] % 8)
    return whole or _keeps_channels(op, source, var)


def _sums(weights: np.ndarray, bias: int, op) -> np.ndarray | None:
    """All sums of a channel that int8 inputs could give, and perhaps more; None: too many."""
    low, high = -128 - op.in_zp, 127 - op.in_zp
    step = int(np.gcd.reduce(np.abs(weights).ravel()))
    reach = np.stack([weights * low, weights * high, np.zeros_like(weights)])
    if not step:
        return np.array([bias], np.int64)
    least, most = int(reach.min(axis=0).sum()), int(reach.max(axis=0).sum())
    if (most - least) // step > MOST_SUMS:
        return None
    return int(bias) + np.arange(-(-least // step), most // step + 1, dtype=np.int64) * step


def dots_of(layer: Layer) -> np.ndarray:
    """Every sum of signs that can occur: of all taps, or, where padding leaves some out, of any number of them."""
    depth = int(np.prod(layer.signs.shape[1:]))
    return np.arange(-depth, depth + 1, 1 if any(layer.op.padding) else 2, dtype=np.int64)


def binary_sums(layer: Layer, channel: int) -> np.ndarray:
    return int(layer.bias[channel]) + int(layer.scale[channel]) * dots_of(layer)


def _interval(plus: np.ndarray, reached: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """int8 bounds a channel within which, of the values reached, exactly those lie that give plus; None: no such
    interval. Where it begins or ends with what is reached, it is left open."""
    low, high = np.zeros(len(plus), np.int8), np.zeros(len(plus), np.int8)
    for c in range(len(plus)):
        bounds = interval_of(plus[c][reached[c]], np.flatnonzero(reached[c]) - 128, -128, 127)
        if bounds is None:
            return None
        low[c], high[c] = bounds
    return low, high


def interval_of(plus: np.ndarray, values: np.ndarray, least: int, most: int) -> tuple[int, int] | None:
    """``(low, high)`` with ``plus == (low <= values) & (values <= high)`` of ascending values, else None."""
    at = np.flatnonzero(plus)
    if not len(at):
        return most, least
    first, last = int(at[0]), int(at[-1])
    if last - first + 1 != len(at):
        return None
    return (least if first == 0 else int(values[first])), (most if last == len(values) - 1 else int(values[last]))


def _layer_of(op, signs: Signs, args) -> Layer | None:
    if op.groups != 1 or not all(isinstance(a, Constant) for a in args[1:]):
        return None
    w, bias = array_of(args[1]).astype(np.int64) - op.w_zp, array_of(args[2]).astype(np.int64)
    size = np.abs(w).reshape(len(w), -1)
    twice, middle = signs.plus - signs.minus, signs.plus + signs.minus - 2 * op.in_zp
    reach = [(k - 1) * d + 1 for k, d in zip(w.shape[1:3], op.dilation, strict=True)]
    wide = any(op.padding[a] >= reach[a] or op.padding[a + 2] >= reach[a] for a in (0, 1))
    if not size.min() or (size != size[:, :1]).any() or wide or size.shape[1] > MOST_PRODUCTS:
        return None
    if twice % 2 or (middle and any(op.padding)):
        return None  # a padded tap counts zero; halves have no sum in integers
    scale = size[:, 0] * (twice // 2)
    bias = bias + w.reshape(len(w), -1).sum(axis=1) * (middle // 2)
    if scale.max() >= 1 << 15 or np.abs(bias).max() >= 1 << 31:
        return None
    return Layer(op, w > 0, scale.astype(np.int16), bias.astype(np.int32))


def packed(signs: np.ndarray) -> np.ndarray:
    """uint8[..., ceil(C/8)] of bool[..., C]: channel c is bit c % 8 of byte c // 8."""
    return np.packbits(signs, axis=-1, bitorder="little")


@dataclass
class _Rewriting:
    func: relax.Function
    found: _Network
    env: dict = field(default_factory=dict)  # what stands for a variable
    bits: dict = field(default_factory=dict)  # packed form of a tensor of signs

    def run(self) -> relax.Function:
        self.builder = relax.BlockBuilder()
        attrs = dict(self.func.attrs) if self.func.attrs else None
        with self.builder.function("main", list(self.func.params), attrs=attrs):
            with self.builder.dataflow():
                for var, value in bindings_of(self.func):
                    self.env[var] = self.builder.emit(self._renamed(var, value), str(var.name))
                result = self.builder.emit_output(_substituted(self.func.body.body, self.env))
            self.builder.emit_func_output(result)
        return relax.analysis.remove_all_unused(self.builder.get()["main"])

    def _renamed(self, var, value):
        if var in self.found.layers:
            return self._sum(var, value)
        return _substituted(value, self.env)

    def _sum(self, var, value):
        """A binary layer read by something else than signs."""
        layer, op = self.found.layers[var], self.found.layers[var].op
        cls = dialect.BinaryConv2dAccumulate if isinstance(op, dialect.Conv2dAccumulate) else dialect.BinaryConv2dSum
        made = cls(**self._window(layer), lo=op.lo, hi=op.hi, out_zp=op.out_zp, out_scale=op.out_scale, name=op.name)
        x, weights = self.packed_of(value.args[0]), const(packed(layer.signs))
        return made.call(x, weights, const(layer.scale), const(layer.bias), *value.args[3:])

    def _window(self, layer: Layer) -> dict:
        op = layer.op
        fields = {"strides": op.strides, "padding": op.padding, "dilation": op.dilation}
        return {**fields, "channels": layer.signs.shape[3], "pad_value": 0}

    def packed_of(self, var):
        """The packed form of a tensor of signs, made where it is first read."""
        if var in self.bits:
            return self.bits[var]
        found, op, source = self.found.signs[var], self.found.ops.get(var), self.found.value[var].args[0]
        name, common = f"{var.name}_signs", {"name": op.name if op else str(var.name)}
        if var.same_as(found.source):
            made = self._signs_of_int8(found, common["name"])
        elif isinstance(op, dialect.Table):
            made = self._thresholds(var, found, op)
            made = self._signs_of_int8(found, op.name) if made is None else made
        elif isinstance(op, dialect.Reshape):
            shape = (*shape_of(var)[:-1], -(-shape_of(var)[-1] // 8))
            made = dialect.Reshape(shape=shape, **common).call(self.packed_of(source))
        else:
            fields = {name: getattr(op, name) for name in ("pool", "strides", "padding", "dilation")}
            made = dialect.BinaryMaxPool2d(**fields, **common).call(self.packed_of(source))
        self.bits[var] = self.builder.emit(made, name)
        return self.bits[var]

    def _signs_of_int8(self, found: Signs, name: str):
        return dialect.Binarize(name=name).call(
            self.env.get(found.source, found.source), const(found.low), const(found.high)
        )

    def _thresholds(self, var, found: Signs, op):
        """Signs straight from a binary layer's sums, where it lies before the table; None elsewhere."""
        source, moves = found.source, []
        while isinstance(self.found.ops.get(source), dialect.Reshape) and _keeps_channels(
            self.found.ops[source], self.found.value[source].args[0], source
        ):
            moves.append(source)
            source = self.found.value[source].args[0]
        layer = self.found.layers.get(source)
        if layer is None or type(layer.op) is not dialect.Conv2d:
            return None
        call = self.found.value[source]
        bounds = _bounds(layer, array_of(call.args[3]), array_of(call.args[4]), found)
        if bounds is None:
            return None
        made = dialect.BinaryConv2d(**self._window(layer), name=layer.op.name).call(
            self.packed_of(call.args[0]), const(packed(layer.signs)), *map(const, bounds)
        )
        if not moves:
            return made
        shape = (*shape_of(var)[:-1], -(-shape_of(var)[-1] // 8))
        return dialect.Reshape(shape=shape, name=op.name).call(self.builder.emit(made, f"{source.name}_signs"))


def _bounds(layer: Layer, mult, shift, found: Signs) -> tuple[np.ndarray, np.ndarray] | None:
    """int16 bounds a channel of the sums of signs that give plus, by evaluating each sum that can occur."""
    op, dots = layer.op, dots_of(layer)
    low, high = np.zeros(len(mult), np.int16), np.zeros(len(mult), np.int16)
    for o in range(len(mult)):
        result = numerics.requantize(binary_sums(layer, o), mult[o], shift[o], op.out_zp, op.lo, op.hi)
        bounds = interval_of((result >= found.low[o]) & (result <= found.high[o]), dots, -(1 << 15), (1 << 15) - 1)
        if bounds is None:
            return None
        low[o], high[o] = bounds
    return low, high


def _substituted(expr, env: dict):
    """``expr`` with variables replaced."""
    if isinstance(expr, relax.Var):
        return env.get(expr, expr)
    if isinstance(expr, relax.Tuple):
        return relax.Tuple([_substituted(f, env) for f in expr.fields])
    if isinstance(expr, relax.TupleGetItem):
        return relax.TupleGetItem(_substituted(expr.tuple_value, env), expr.index)
    if isinstance(expr, relax.Call):
        return relax.Call(expr.op, [_substituted(a, env) for a in expr.args], expr.attrs, list(expr.ty_args) or None)
    return expr
