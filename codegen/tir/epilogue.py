"""The arithmetic after an accumulation or between two tensors, as ``clip(offset + floor(P / 2**shift), lo, hi)``.

Every way of writing a requantization that is exactly of this form is found by peeling: clips, offsets and narrowing
casts from the outside, then one shift (or division by a power of two), then a polynomial P of the loads."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.ir import Expr, prim
from tvm.ir.expr import TensorLoad

from tvm_ergo.codegen.tir.expressions import Env, Load, Mismatch, Poly, bounds, polynomial, power_of_two, resolve
from tvm_ergo.target.numerics import MULTIPLIER_BITS


@dataclass(frozen=True)
class Epilogue:
    """``clip(offset + floor(poly / 2**shift), lo, hi)``; lo or hi may lie outside of int8 where nothing is clipped."""

    poly: Poly
    shift: int
    offset: int
    lo: int
    hi: int

    @property
    def half(self) -> int:
        """What must be in the polynomial's constant for the chip's rounding, ``floor(x + 1/2)``."""
        return 1 << (self.shift - 1) if self.shift else 0


def peel(expr: Expr, env: Env) -> Epilogue:
    """Errors: Mismatch saying which piece of ``expr`` is not of the form, or may wrap around."""
    bounds(expr, env)
    offset, lo, hi = 0, -(2**62), 2**62
    while True:
        try:
            return Epilogue(polynomial(expr, env), 0, offset, lo, hi)
        except Mismatch:
            pass
        if isinstance(expr, prim.Cast):
            expr = expr.value
        elif isinstance(expr, TensorLoad):
            target = resolve(expr, env)
            assert not isinstance(target, Load), "a load of an existing buffer is a polynomial"
            expr, env = target
        elif isinstance(expr, (prim.RShift, prim.FloorDiv)):
            return Epilogue(polynomial(expr.a, env), power_of_two(expr).bit_length() - 1, offset, lo, hi)
        elif isinstance(expr, (prim.Max, prim.Min, prim.Add, prim.Sub)):
            expr, number = _with_number(expr)
            if isinstance(expr, prim.Max):
                lo, hi = max(lo, min(number + offset, hi)), max(hi, lo)
            elif isinstance(expr, prim.Min):
                hi = min(hi, max(number + offset, lo))
            else:
                offset += number
            expr = expr.a if not isinstance(_constant(expr.a), int) else expr.b
        else:
            raise Mismatch(f"{type(expr).__name__} in {expr}")


def _constant(expr: Expr) -> int | None:
    while isinstance(expr, prim.Cast):
        expr = expr.value
    return int(expr.value) if isinstance(expr, prim.IntImm) else None


def _with_number(expr: Expr) -> tuple[Expr, int]:
    """``expr`` and its constant operand, negated for a subtraction."""
    a, b = _constant(expr.a), _constant(expr.b)
    if b is not None:
        return expr, -b if isinstance(expr, prim.Sub) else b
    if a is not None and not isinstance(expr, prim.Sub):
        return expr, a
    raise Mismatch(f"neither side is a number: {expr}")


def clip_to_int8(epilogue: Epilogue) -> tuple[int, int]:
    """The clip bounds as int8; an unclipped result is known to fit by its interval."""
    lo, hi = max(epilogue.lo, -128), min(epilogue.hi, 127)
    if lo > hi:
        raise Mismatch(f"clip bounds [{epilogue.lo}, {epilogue.hi}] outside of int8")
    return lo, hi


def check_multiplier(multiplier: int) -> int:
    """A requantization multiplier the chip can carry."""
    if not 0 <= multiplier < 2**MULTIPLIER_BITS:
        raise Mismatch(f"a multiplier of {multiplier}: the chip takes 0..2**{MULTIPLIER_BITS}-1")
    return multiplier


def centred_product(poly: Poly, a: Load, b: Load) -> tuple[int, int, int, int]:
    """``(m, a_zp, b_zp, rest)`` with ``poly == m * (a - a_zp) * (b - b_zp) + rest``. Errors: Mismatch."""
    product = next((c for m, c in poly.items() if len(m) == 2 and set(m) == {a, b}), 0)
    if a == b or product == 0 or not set(poly) <= {(), (a,), (b,), (a, b), (b, a)}:
        raise Mismatch("not a product of two centred tensors")
    a_zp, left = divmod(-poly.get((b,), 0), product)
    b_zp, right = divmod(-poly.get((a,), 0), product)
    if left or right or not (-128 <= a_zp <= 127 and -128 <= b_zp <= 127):
        raise Mismatch(
            f"zero points that are not int8 numbers: {-poly.get((b,), 0)}/{product}, {-poly.get((a,), 0)}/{product}"
        )
    return product, a_zp, b_zp, poly.get((), 0) - product * a_zp * b_zp


def centred_sum(poly: Poly, a: Load, b: Load, half: int) -> tuple[int, int, int, int]:
    """``(a_mult, b_mult, a_zp, b_zp)`` with ``poly == a_mult * (a - a_zp) + b_mult * (b - b_zp) + half``. Errors:
    Mismatch."""
    if a == b or not set(poly) <= {(), (a,), (b,)}:
        raise Mismatch("not a weighted sum of two tensors")
    a_mult, b_mult = poly.get((a,), 0), poly.get((b,), 0)
    rest = half - poly.get((), 0)  # = a_mult * a_zp + b_mult * b_zp
    for a_zp in sorted(range(-128, 128), key=abs):
        b_zp, left = divmod(rest - a_mult * a_zp, b_mult)
        if not left and -128 <= b_zp <= 127:
            return a_mult, b_mult, a_zp, b_zp
    raise Mismatch(f"the constant {poly.get((), 0)} is no combination of zero points and rounding ({half})")
