"""Which interval of a tensor's values can matter, worked out backwards from the operators that bound them.

Everywhere "cannot matter" means: moved to the nearer end of the interval, a value changes no entry of the bounding
operator's output by half a step of 8 bits."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import tvm

from tvm_ergo.relay_passes.relax_utils import (
    Constant,
    Expr,
    Tuple,
    TupleGetItem,
    Var,
    array_of,
    bindings_of,
    body_of,
    dtype_of,
    is_tensor,
    main_of,
    op_name,
    shape_of,
    variables_in,
)

HALF_STEPS = 512.0  # half a step of an output of 0 to 1 in 8 bits is 1/512
SIGMOID, TANH = 8.0, 4.5  # sigmoid(-8) is 1/2981, 1 - tanh(4.5) 1/4052
FAR = (
    100.0  # rows of a softmax whose maximum lies so far below all others (and ten times their spread) are masked whole
)

MOVES = frozenset(
    f"relax.{n}"
    for n in (
        "reshape",
        "permute_dims",
        "broadcast_to",
        "strided_slice",
        "concat",
        "split",
        "stack",
        "take",
        "nn.pad",
        "nn.max_pool2d",
        "expand_dims",
        "squeeze",
        "flatten",
        "nn.pixel_shuffle",
        "gather_elements",
    )
)
"""Operators whose outputs are values of their first operand (or a pad value)."""


@dataclass(frozen=True)
class Interval:
    """Real values lo..hi, infinite where open."""

    lo: float = -math.inf
    hi: float = math.inf

    @property
    def open(self) -> bool:
        return math.isinf(self.lo) and math.isinf(self.hi)

    @property
    def width(self) -> float:
        return max(self.hi - self.lo, 0.0)

    def hull(self, other: Interval | None) -> Interval:
        return self if other is None else Interval(min(self.lo, other.lo), max(self.hi, other.hi))

    def meet(self, other: Interval) -> Interval:
        """What lies in both; where nothing does, the end of the other that is nearer."""
        lo = min(max(self.lo, other.lo), other.hi)
        return Interval(lo, max(min(self.hi, other.hi), lo))

    def holds(self, other: Interval) -> bool:
        return self.lo <= other.lo and other.hi <= self.hi


ALL = Interval()


def values_of(array: np.ndarray) -> Interval | None:
    """The finite values of a real array; None without any."""
    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
    return Interval(float(finite.min()), float(finite.max())) if finite.size else None


class Seen:
    """An observer for `Interpreter.run`: finite extremes, whether there were infinities, whether all values were 0 or
    1, and maxima of softmax rows."""

    def __init__(self, mod: tvm.IRModule):
        self.interval: dict[str, Interval] = {}
        self.infinite: set[str] = set()
        self.beyond_bits: set[str] = set()
        self.rows: dict[str, list[np.ndarray]] = {}
        self._axis = {
            value.args[0].name: int(value.attrs.axis)
            for _, value in bindings_of(main_of(mod))
            if op_name(value) == "relax.nn.softmax" and isinstance(value.args[0], Var)
        }

    def __call__(self, name: str, array: np.ndarray) -> None:
        if array.dtype.kind not in "fiub" or not array.size:
            return
        found = values_of(array)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            self.infinite.add(name)
        if found is not None:
            self.interval[name] = found.hull(self.interval.get(name))
            if name not in self.beyond_bits and (found.lo < 0 or found.hi > 1 or not np.isin(array, (0, 1)).all()):
                self.beyond_bits.add(name)
        if name in self._axis:
            rows = array.max(axis=self._axis[name]).reshape(-1)
            self.rows.setdefault(name, []).append(rows[np.isfinite(rows)])

    def softmax_floor(self, name: str, length: int) -> float:
        """The bound below which entries of a softmax operand take less than half a step together, in every row seen and
        a quarter of their spread below."""
        rows = np.sort(np.concatenate(self.rows.get(name) or [np.zeros(0)]))
        if not rows.size:
            return -math.inf
        gaps = np.diff(rows)
        if gaps.size:
            at = int(np.argmax(gaps))
            if gaps[at] > max(FAR, 10 * (rows[-1] - rows[at + 1])):
                rows = rows[at + 1 :]
        return float(rows[0] - (rows[-1] - rows[0]) / 4 - math.log(HALF_STEPS * length))


@dataclass
class Needs:
    """``at[v]``: the interval of variable ``v`` that matters to any of its readers (`ALL` for results)."""

    mod: tvm.IRModule
    seen: Seen
    at: dict[Var, Interval] = field(default_factory=dict)

    def __post_init__(self) -> None:
        func = main_of(self.mod)
        for var in variables_in(body_of(func)):
            self.at[var] = ALL
        for var, value in reversed(bindings_of(func)):
            for operand, need in self.operands(var, value):
                if isinstance(operand, Var):
                    self.at[operand] = need.hull(self.at.get(operand))

    def __getitem__(self, var: Var) -> Interval:
        return self.at.get(var, ALL)

    def bounds(self, expr: Expr) -> Interval | None:
        """What is known of an operand's finite values."""
        return (
            values_of(array_of(expr))
            if isinstance(expr, Constant)
            else self.seen.interval.get(getattr(expr, "name", ""))
        )

    def operands(self, var: Var, value: Expr) -> list[tuple[Expr, Interval]]:
        """Every operand of a binding with what of it matters to this binding."""
        need, name = self[var], op_name(value)
        if isinstance(value, (Var, TupleGetItem, Tuple)):
            return [(v, need if isinstance(value, (Var, TupleGetItem)) else ALL) for v in variables_in(value)]
        args = getattr(value, "args", ())
        if name in MOVES:
            data = list(args[0].fields) if isinstance(args[0], Tuple) else [args[0]]
            return [(d, need) for d in data] + [(v, ALL) for a in args[1:] for v in variables_in(a)]
        rule = _RULES.get(name)
        if rule is None or not all(
            is_tensor(v) and dtype_of(v) == "float32" for v in variables_in(value) if name != "relax.where"
        ):
            return [(v, ALL) for v in variables_in(value)]
        return list(zip(args, rule(self, var, args, need)))

    def softmax(self, var, args, need):
        return [Interval(self.seen.softmax_floor(args[0].name, shape_of(var)[-1]))]

    def exp(self, var, args, need):
        seen = self.bounds(args[0])
        return [ALL if seen is None else Interval(seen.hi - math.log(HALF_STEPS * max((*shape_of(var)[-1:], 1))))]

    def add(self, var, args, need):
        a, b = (self.bounds(x) for x in args)
        return [
            ALL if other is None or need.open else Interval(need.lo - other.hi, need.hi - other.lo) for other in (b, a)
        ]

    def subtract(self, var, args, need):
        a, b = (self.bounds(x) for x in args)
        if a is None or b is None or need.open:
            return [ALL, ALL]
        return [Interval(need.lo + b.lo, need.hi + b.hi), Interval(a.lo - need.hi, a.hi - need.lo)]

    def multiply(self, var, args, need):
        factor = array_of(args[1]) if isinstance(args[1], Constant) else np.zeros(0)
        low, high = (float(factor.min()), float(factor.max())) if factor.size else (0.0, 0.0)
        if need.open or not np.isfinite(factor).all() or low * high <= 0:
            return [ALL, ALL]
        lo, hi = (need.lo, need.hi) if low > 0 else (need.hi, need.lo)
        return [Interval(min(lo / low, lo / high), max(hi / low, hi / high)), ALL]

    def maximum(self, var, args, need):
        a, b = (self.bounds(x) for x in args)
        return [need if other is None else Interval(max(need.lo, other.lo), max(need.hi, other.lo)) for other in (b, a)]

    def minimum(self, var, args, need):
        a, b = (self.bounds(x) for x in args)
        return [need if other is None else Interval(min(need.lo, other.hi), min(need.hi, other.hi)) for other in (b, a)]

    def clip(self, var, args, need):
        low, high = (
            float(a.value) if hasattr(a, "value") and not isinstance(a, Constant) else math.nan for a in args[1:3]
        )
        return [need if math.isnan(low + high) else need.meet(Interval(low, high)), ALL, ALL]

    def reduced(self, var, args, need):
        out = self.seen.interval.get(var.name)
        return [need if out is None else Interval(max(need.lo, out.lo - out.width / 4), need.hi)]


_RULES = {
    "relax.nn.softmax": Needs.softmax,
    "relax.exp": Needs.exp,
    "relax.add": Needs.add,
    "relax.subtract": Needs.subtract,
    "relax.multiply": Needs.multiply,
    "relax.maximum": Needs.maximum,
    "relax.minimum": Needs.minimum,
    "relax.clip": Needs.clip,
    "relax.max": Needs.reduced,
    "relax.sigmoid": lambda self, var, args, need: [Interval(-SIGMOID, SIGMOID)],
    "relax.tanh": lambda self, var, args, need: [Interval(-TANH, TANH)],
    "relax.nn.relu": lambda self, var, args, need: [need.meet(Interval(0.0))],
    "relax.negative": lambda self, var, args, need: [Interval(-need.hi, -need.lo)],
    "relax.where": lambda self, var, args, need: [ALL, need, need],
}
