"""Reading scalar integer expressions: affine indices, exact polynomials, intervals, and values.

Expressions are read through an `Env`, which knows the stages that were not materialized (their values are read in
place) and what each axis variable stands for. `Mismatch` says that an expression is not of the form asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from tvm import tirx
from tvm.ir import Call, Expr, prim
from tvm.ir.expr import TensorLoad

from tvm_ergo.codegen.tir.stages import Stage, Var, dtype_of

Interval = tuple[int, int]
BIAS_LIMIT = 2**29
"""Magnitude an int32 vector operand (a bias) is taken to stay below: the chip's accumulators do."""


class Mismatch(Exception):
    """An expression is not of the form asked for; the text says why. Never leaves this package."""


@dataclass(frozen=True)
class Affine:
    """``constant + sum(coefficient * variable)``, variables in order of first use, no zero coefficients."""

    terms: tuple[tuple[Var, int], ...] = ()
    constant: int = 0

    def __add__(self, other: Affine) -> Affine:
        total = dict(self.terms)
        for var, coefficient in other.terms:
            total[var] = total.get(var, 0) + coefficient
        return Affine(tuple((v, c) for v, c in total.items() if c), self.constant + other.constant)

    def scaled(self, factor: int) -> Affine:
        return Affine(tuple((v, c * factor) for v, c in self.terms), self.constant * factor) if factor else Affine()


@dataclass(frozen=True)
class Load:
    """A read of one element of a buffer that exists (an input, a materialized tensor, or a reduction's accumulator)."""

    buffer: Var
    indices: tuple[Affine, ...]


Poly = dict[tuple[Load, ...], int]
"""Monomial (the loads multiplied) -> integer coefficient; ``()`` is the constant."""


@dataclass
class Env:
    """``inlined``: stages read in place. ``axes``: what their axis variables stand for. ``bounds``: intervals of
    special buffers."""

    inlined: dict[Var, Stage] = field(default_factory=dict)
    axes: dict[Var, Affine] = field(default_factory=dict)
    bounds: dict[Var, Interval] = field(default_factory=dict)

    def inside(self, stage: Stage, indices: tuple[Affine, ...]) -> Env:
        """The environment of an inlined stage's value, read at ``indices``."""
        return Env(self.inlined, {axis.var: index for axis, index in zip(stage.axes, indices)}, self.bounds)


def affine(expr: Expr, env: Env) -> Affine:
    """``expr`` as an affine form of axis variables. Errors: Mismatch."""
    if isinstance(expr, prim.IntImm):
        return Affine((), int(expr.value))
    if isinstance(expr, tirx.Var):
        return env.axes.get(expr, Affine(((expr, 1),)))
    if isinstance(expr, prim.Cast):
        return affine(expr.value, env)
    if isinstance(expr, (prim.Add, prim.Sub)):
        return affine(expr.a, env) + affine(expr.b, env).scaled(1 if isinstance(expr, prim.Add) else -1)
    if isinstance(expr, prim.Mul):
        a, b = affine(expr.a, env), affine(expr.b, env)
        if not a.terms or not b.terms:
            return a.scaled(b.constant) if not b.terms else b.scaled(a.constant)
    raise Mismatch(f"an index that is not affine: {expr}")


def resolve(expr: TensorLoad, env: Env) -> Load | tuple[Expr, Env]:
    """A load of an existing buffer, or the inlined expression and the environment to read it in."""
    indices = tuple(affine(i, env) for i in expr.indices)
    stage = env.inlined.get(expr.source)
    return Load(expr.source, indices) if stage is None else (stage.value, env.inside(stage, indices))


def bounds(expr: Expr, env: Env) -> Interval:
    """The interval of an integer expression. Errors: Mismatch where a step could leave its type (wrap around)."""
    lo, hi = _bounds(expr, env)
    _check_fits(lo, hi, str(expr.ty), expr)
    return lo, hi


def type_range(dtype: str) -> Interval:
    """Smallest and largest value of an integer type. Errors: Mismatch for other types."""
    if not dtype.startswith(("int", "uint")):
        raise Mismatch(f"an expression of type {dtype}: only integers are exact on the chip")
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def _check_fits(lo: int, hi: int, dtype: str, expr: Expr) -> None:
    low, high = type_range(dtype)
    if lo < low or hi > high:
        raise Mismatch(f"{dtype} may wrap around in {expr} (values {lo}..{hi}): cast to a wider type first")


def _bounds(expr: Expr, env: Env) -> Interval:
    if isinstance(expr, prim.IntImm):
        return int(expr.value), int(expr.value)
    if isinstance(expr, prim.Cast):
        return bounds(expr.value, env)
    if isinstance(expr, TensorLoad):
        target = resolve(expr, env)
        if not isinstance(target, Load):
            return bounds(*target)
        if target.buffer in env.bounds:
            return env.bounds[target.buffer]
        dtype = dtype_of(target.buffer)
        return (-BIAS_LIMIT, BIAS_LIMIT) if dtype == "int32" else type_range(dtype)
    if isinstance(expr, (prim.Add, prim.Sub, prim.Mul, prim.Max, prim.Min, prim.RShift, prim.FloorDiv)):
        return _binary_bounds(expr, bounds(expr.a, env), bounds(expr.b, env))
    raise Mismatch(f"{type(expr).__name__} in {expr}")


def _binary_bounds(expr: Expr, a: Interval, b: Interval) -> Interval:
    if isinstance(expr, prim.Add):
        return a[0] + b[0], a[1] + b[1]
    if isinstance(expr, prim.Sub):
        return a[0] - b[1], a[1] - b[0]
    if isinstance(expr, prim.Mul):
        corners = [x * y for x in a for y in b]
        return min(corners), max(corners)
    if isinstance(expr, prim.Max):
        return max(a[0], b[0]), max(a[1], b[1])
    if isinstance(expr, prim.Min):
        return min(a[0], b[0]), min(a[1], b[1])
    divisor = power_of_two(expr)
    return a[0] // divisor, a[1] // divisor


def power_of_two(expr: Expr) -> int:
    """The divisor of ``x >> n`` or ``x // 2**n``. Errors: Mismatch for any other."""
    if not isinstance(expr.b, prim.IntImm):
        raise Mismatch(f"a shift or divisor that is not a number: {expr}")
    value = int(expr.b.value)
    divisor = 1 << value if isinstance(expr, prim.RShift) and 0 <= value <= 62 else value
    if divisor <= 0 or divisor & (divisor - 1):
        raise Mismatch(f"a division by something else than a power of two: {expr}")
    return divisor


def polynomial(expr: Expr, env: Env) -> Poly:
    """``expr`` as a polynomial over loads. Errors: Mismatch if it is none, or if it could wrap around."""
    bounds(expr, env)
    return _polynomial(expr, env)


def _polynomial(expr: Expr, env: Env) -> Poly:
    if isinstance(expr, prim.IntImm):
        return {(): int(expr.value)} if int(expr.value) else {}
    if isinstance(expr, prim.Cast):
        return _polynomial(expr.value, env)
    if isinstance(expr, TensorLoad):
        target = resolve(expr, env)
        return {(target,): 1} if isinstance(target, Load) else _polynomial(*target)
    if isinstance(expr, (prim.Add, prim.Sub)):
        total = dict(_polynomial(expr.a, env))
        sign = 1 if isinstance(expr, prim.Add) else -1
        for monomial, coefficient in _polynomial(expr.b, env).items():
            total[monomial] = total.get(monomial, 0) + sign * coefficient
        return {m: c for m, c in total.items() if c}
    if isinstance(expr, prim.Mul):
        product: Poly = {}
        for m, c in _polynomial(expr.a, env).items():
            for n, d in _polynomial(expr.b, env).items():
                key = tuple(sorted((*m, *n), key=lambda load: (hash(load), str(load))))
                product[key] = product.get(key, 0) + c * d
        return {m: c for m, c in product.items() if c}
    raise Mismatch(f"{type(expr).__name__} in {expr}")


_OPERATIONS: dict[type, Callable] = {
    prim.Add: np.add,
    prim.Sub: np.subtract,
    prim.Mul: np.multiply,
    prim.Max: np.maximum,
    prim.Min: np.minimum,
    prim.FloorDiv: np.floor_divide,
    prim.FloorMod: np.mod,
    prim.BitwiseAnd: np.bitwise_and,
    prim.BitwiseOr: np.bitwise_or,
    prim.BitwiseXor: np.bitwise_xor,
    prim.RShift: np.right_shift,
    prim.LShift: np.left_shift,
    prim.EQ: np.equal,
    prim.NE: np.not_equal,
    prim.LT: np.less,
    prim.LE: np.less_equal,
    prim.GT: np.greater,
    prim.GE: np.greater_equal,
    prim.And: np.logical_and,
    prim.Or: np.logical_or,
}


def evaluate(expr: Expr, env: Env, read: Callable[[Load], np.ndarray], variables: dict[Var, np.ndarray]) -> np.ndarray:
    """The value of an integer or boolean expression on arrays, wrapping around exactly as its types do.

    ``read`` gives a load's values; ``variables`` an axis variable's. Errors: Mismatch for floats and calls.
    """
    dtype = str(expr.ty)
    if dtype != "bool":
        type_range(dtype)
    if isinstance(expr, prim.IntImm):
        return np.asarray(int(expr.value)).astype(dtype)
    if isinstance(expr, tirx.Var):
        return _evaluate_affine(env.axes.get(expr, Affine(((expr, 1),))), variables, dtype)
    if isinstance(expr, TensorLoad):
        target = resolve(expr, env)
        return read(target) if isinstance(target, Load) else evaluate(*target, read, variables)
    if isinstance(expr, prim.Cast):
        return evaluate(expr.value, env, read, variables).astype(dtype)
    if isinstance(expr, prim.Not):
        return np.logical_not(evaluate(expr.a, env, read, variables))
    condition = select_parts(expr)
    if condition is not None:
        return np.where(*(evaluate(e, env, read, variables) for e in condition))
    operation = _OPERATIONS.get(type(expr))
    if operation is None:
        raise Mismatch(f"{type(expr).__name__} in {expr}")
    a, b = evaluate(expr.a, env, read, variables), evaluate(expr.b, env, read, variables)
    if operation in (np.floor_divide, np.mod) and np.any(b == 0):
        raise Mismatch(f"a division by zero in {expr}")
    with np.errstate(over="ignore"):
        return operation(a, b)


def _evaluate_affine(form: Affine, variables: dict[Var, np.ndarray], dtype: str) -> np.ndarray:
    total = np.asarray(form.constant)
    for var, coefficient in form.terms:
        if var not in variables:
            raise Mismatch(f"a value that depends on its position ({var})")
        total = total + coefficient * variables[var]
    return total.astype(dtype)


def select_parts(expr: Expr) -> tuple[Expr, Expr, Expr] | None:
    """(condition, then, else) of a Select or an if_then_else; None for other expressions."""
    if isinstance(expr, prim.Select):
        return expr.condition, expr.true_value, expr.false_value
    if isinstance(expr, Call) and getattr(expr.op, "name", "").endswith("if_then_else"):
        return tuple(expr.args)
    return None


def loads_of(expr: Expr, env: Env) -> list[Load]:
    """Every load of an existing buffer in ``expr``, each once. Errors: Mismatch for an index that is not affine."""
    found: dict[Load, None] = {}

    def walk(e: Expr, env: Env) -> None:
        if isinstance(e, TensorLoad):
            target = resolve(e, env)
            if isinstance(target, Load):
                found[target] = None
            else:
                walk(*target)
            return
        parts = select_parts(e)
        children = (
            parts
            if parts is not None
            else e.args
            if isinstance(e, Call)
            else [getattr(e, n) for n in ("a", "b", "value") if isinstance(getattr(e, n, None), Expr)]
            if not isinstance(e, prim.IntImm)
            else []
        )
        for child in children:
            walk(child, env)

    walk(expr, env)
    return list(found)
