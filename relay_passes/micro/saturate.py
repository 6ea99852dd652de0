"""Values that cannot matter are clipped before ranges are measured: additive masks in front of a softmax above all.

A mask of -1e4, -1e9 or -infinity only has to take its entries out of the softmax; quantized together with the scores it
would leave them a single step. So for every tensor the *need* is worked out (`micro.needs`), backwards from softmax,
exp, sigmoid, tanh, clips and maxima: the interval outside of which a value can be moved to the nearer end and no output
changes by half a step of 8 bits. Where the values are much wider, the float network gets a clip at that place, and
computes what it did. How low scores can lie comes from calibration; what masks can become when the input pads, though
no calibration sample did, from interval arithmetic over the operators between input and mask (`micro.masks`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.relay_passes.micro.masks import Masks
from tvm_ergo.relay_passes.micro.needs import MOVES, Interval, Needs, Seen, values_of
from tvm_ergo.relay_passes.micro.observe import Range
from tvm_ergo.relay_passes.relax_utils import (
    LINEAR_OPS,
    Call,
    Constant,
    Expr,
    Rewriter,
    Tuple,
    Var,
    array_of,
    bindings_of,
    const,
    dtype_of,
    infer,
    ints,
    is_tensor,
    main_of,
    op_name,
)
from tvm_ergo.relay_passes.support.epilogue import CLAMPS

SAMPLES = 8
MUCH_WIDER = 2.0  # a clip that saves less than a bit is not worth changing the network for
BOUNDING = frozenset(f"relax.{n}" for n in ("nn.softmax", "exp", "sigmoid", "tanh", "max"))


@dataclass(frozen=True)
class Saturated:
    """The module with its clips, and what calibration has to know of tensors by name.

    required : ranges that a tensor can take though no sample showed it; they are added to what was seen. forced :
    ranges of tensors that are read by a clip alone, so that quantization may saturate there: they replace what was
    seen."""

    mod: tvm.IRModule
    required: Mapping[str, Range] = field(default_factory=dict)
    forced: Mapping[str, Range] = field(default_factory=dict)


def saturate(mod: tvm.IRModule, data: list[dict[str, np.ndarray]]) -> Saturated:
    """``mod`` (float normal form) with clips where values cannot matter. data: calibration samples, of which at most
    ``SAMPLES`` are run."""
    if not {op_name(value) for _, value in bindings_of(main_of(mod))} & BOUNDING:
        return Saturated(mod)
    seen, interpreter = Seen(mod), Interpreter(mod)
    with np.errstate(all="ignore"):
        for i in np.linspace(0, len(data) - 1, min(SAMPLES, len(data))).round().astype(int):
            interpreter.run(data[i], seen)
    return _Saturation(mod, seen).result()


class _Saturation(Rewriter):
    """Writes the clips. ``within[new]``: an interval that a clipped tensor's values (or those moved from it) are known
    to lie in."""

    def __init__(self, mod: tvm.IRModule, seen: Seen):
        super().__init__(mod)
        self.seen, self.needs = seen, Needs(mod, seen)
        self.masks = Masks(mod, seen, self.needs)
        self.within: dict[Var, Interval] = {}
        self.written = dict(self.source)
        self.required, self.forced, self.changed = dict(self.masks.required), {}, False
        self.readers: dict[Var, list[tuple[Var, Expr]]] = {}
        for var, value in self.source:
            for operand, _ in self.needs.operands(var, value):
                if isinstance(operand, Var):
                    self.readers.setdefault(operand, []).append((var, value))

    def result(self) -> Saturated:
        for param in self.func.params:
            if is_tensor(param) and dtype_of(param) == "float32" and self._exceeds(param):
                useful = self._useful(param)
                self.replaced[param] = self._clipped(param, self.needs[param], f"{param.name}_clipped")
                self.forced[param.name] = self.required[f"{param.name}_clipped"] = Range(useful.lo, useful.hi)
        mod = self.run()
        return Saturated(mod if self.changed else self.mod, self.required, self.forced)

    def rewrite(self, var: Var, value: Expr) -> Expr:
        if not is_tensor(var) or dtype_of(var) != "float32" or not isinstance(value, Call):
            return value
        value = self._with_clipped_constants(var, value)
        if op_name(value) == "relax.where":
            value = self._as_sum(var, value)
        held = self._held(value)
        if held is not None and self.needs[var].holds(held):
            made = self.emit(value, var.name)
            self.within[made] = held
            return made
        if not self._exceeds(var):
            return value
        useful = self._useful(var)
        if math.isfinite(useful.lo) and math.isfinite(useful.hi):
            self.forced[f"{var.name}_unclipped"] = Range(useful.lo, useful.hi)
        return self._clipped(self.emit(value, f"{var.name}_unclipped"), self.needs[var], var.name)

    def _held(self, value: Call) -> Interval | None:
        """The interval that a movement's values lie in, where its operands' are known."""
        if op_name(value) not in MOVES or op_name(value) == "relax.nn.pad":
            return None
        parts = value.args[0].fields if isinstance(value.args[0], Tuple) else [value.args[0]]
        known = [values_of(array_of(p)) if isinstance(p, Constant) else self.within.get(p) for p in parts]
        if not known or any(k is None for k in known):
            return None
        return Interval(min(k.lo for k in known), max(k.hi for k in known))

    def _range(self, var: Var) -> Interval | None:
        """What the values of a tensor span: as seen, and what a mask can become."""
        seen = self.seen.interval.get(var.name)
        return self.masks.cone[var].hull(seen) if var in self.masks.leads else self.masks.span.get(var, seen)

    def _useful(self, var: Var) -> Interval:
        span, need = self._range(var), self.needs[var]
        return Interval(max(span.lo, need.lo), max(min(span.hi, need.hi), need.lo)) if span is not None else need

    def _exceeds(self, var: Var) -> bool:
        """Whether a clip belongs here: a mask, or values much wider than what matters of them, and the reader does not
        clip itself."""
        need, span = self.needs[var], self._range(var)
        if (
            need.open
            or not self.readers.get(var)
            or (span is None and var.name not in self.seen.infinite)
            or self._left_to_reader(var)
            or self._inside_cone(var)
        ):
            return False
        if var.name in self.seen.infinite:
            return True
        return _much_wider(span, need)

    def _inside_cone(self, var: Var) -> bool:
        """Whether a mask is computed from it: the mask is clipped, and all before it is part of one table."""
        return var in self.masks.leads and all(
            reader in self.masks.leads and (op_name(value) not in MOVES or self._inside_cone(reader))
            for reader, value in self.readers.get(var, ())
        )

    def _left_to_reader(self, var: Var) -> bool:
        """A clamp, or the bias of a layer, that alone reads the tensor is part of its group: the clip goes behind
        it."""
        if len(self.readers[var]) != 1:
            return False
        _, reader = self.readers[var][0]
        by_constant = (
            op_name(reader) in ("relax.add", "relax.multiply")
            and isinstance(reader.args[1], Constant)
            and array_of(reader.args[1]).ndim <= 1
        )
        return op_name(reader) in CLAMPS and _scalar_clamp(reader) or by_constant and self._linear(var)

    def _linear(self, var: Var) -> bool:
        return op_name(self.written.get(var)) in LINEAR_OPS

    def _clipped(self, x: Var, need: Interval, name: str) -> Var:
        self.changed = True
        if math.isinf(need.hi):
            made = relax.op.maximum(x, const(np.float32(need.lo)))
        elif math.isinf(need.lo):
            made = relax.op.minimum(x, const(np.float32(need.hi)))
        else:
            made = relax.op.clip(x, float(np.float32(need.lo)), float(np.float32(need.hi)))
        new = self.emit(made, name)
        self.within[new] = need
        return new

    def _with_clipped_constants(self, var: Var, value: Call) -> Call:
        """Constant operands and pad values moved to the nearer end of what matters."""
        name, need = op_name(value), self.needs[var]
        if name == "relax.nn.pad" and not need.holds(
            Interval(float(value.attrs.pad_value), float(value.attrs.pad_value))
        ):
            self.changed = True
            fill = float(np.clip(float(value.attrs.pad_value), need.lo, need.hi))
            return relax.op.nn.pad(value.args[0], list(ints(value.attrs.pad_width)), str(value.attrs.pad_mode), fill)
        wanted = (
            {old: n for old, n in self.needs.operands(var, self.written[var]) if isinstance(old, Constant)}
            if self._has_constants(value)
            else {}
        )
        clipped = {old: self._clipped_constant(old, n) for old, n in wanted.items()}
        if all(new is old for old, new in clipped.items()):
            return value
        self.changed = True
        args = [
            Tuple([clipped.get(f, f) for f in a.fields])
            if isinstance(a, Tuple)
            else clipped.get(a, a)
            if isinstance(a, Constant)
            else a
            for a in value.args
        ]
        return Call(value.op, args, value.attrs, value.ty_args)

    @staticmethod
    def _has_constants(value: Call) -> bool:
        return any(isinstance(f, Constant) for a in value.args for f in (a.fields if isinstance(a, Tuple) else [a]))

    @staticmethod
    def _clipped_constant(constant: Constant, need: Interval) -> Constant:
        array = array_of(constant)
        if need.open or str(array.dtype) != "float32" or np.isnan(array).any():
            return constant
        if np.isfinite(array).all() and not _much_wider(values_of(array), need):
            return constant
        return const(np.clip(array, need.lo, need.hi).astype(np.float32))

    def _as_sum(self, var: Var, value: Call) -> Call:
        """``where(c, scores, -1e9)`` becomes ``scores + where(c, 0, low)``: the selection is of numbers then, and the
        sum runs on the chip."""
        need, old = self.needs[var], self.written[var]
        condition, *branches = value.args
        low = [
            isinstance(b, Constant) and array_of(b).size > 0 and float(array_of(b).max()) <= need.lo for b in branches
        ]
        if sum(low) != 1 or math.isinf(need.lo) or not isinstance(branches[low.index(False)], Var):
            return value
        scores = old.args[1 + low.index(False)]
        top = self.seen.interval.get(getattr(scores, "name", ""))
        if top is None:
            return value
        self.changed = True
        depth, zero = const(np.float32(need.lo - max(top.hi, 0.0))), const(np.float32(0))
        if isinstance(condition, Constant):
            chosen = array_of(condition).astype(bool)
            mask = const(
                np.where(
                    chosen, *((array_of(depth), np.float32(0)) if low[0] else (np.float32(0), array_of(depth)))
                ).astype(np.float32)
            )
        else:
            mask = self.emit(
                infer(relax.op.where(condition, *((depth, zero) if low[0] else (zero, depth)))), f"{var.name}_mask"
            )
            self.required[f"{var.name}_mask"] = Range(float(array_of(depth)), 0.0)
        self.masks.span[var] = Interval(float(array_of(depth)) + min(top.lo, 0.0), top.hi)
        return infer(relax.op.add(branches[low.index(False)], mask))


def _much_wider(span: Interval | None, need: Interval) -> bool:
    if span is None or need.holds(span):
        return False
    inside = Interval(max(span.lo, need.lo), min(span.hi, need.hi))
    return span.width > MUCH_WIDER * inside.width


def _scalar_clamp(call: Call) -> bool:
    return op_name(call) not in ("relax.maximum", "relax.minimum") or any(
        isinstance(a, Constant) and array_of(a).size == 1 for a in call.args
    )
