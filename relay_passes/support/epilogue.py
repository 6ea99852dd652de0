"""relu, relu6 and clip directly behind an operator: they become the clip bounds of the producing instruction."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvm import relax

from tvm_ergo.relay_passes.support.view import FunctionView, scalar

CLAMPS = ("relax.nn.relu", "relax.nn.relu6", "relax.clip", "relax.maximum", "relax.minimum")


@dataclass(frozen=True)
class Bounds:
    """Real bounds of a clamp, ``-inf`` or ``inf`` where open."""

    low: float = -math.inf
    high: float = math.inf

    def then(self, other: Bounds) -> Bounds:
        """This clamp followed by another."""
        return Bounds(min(max(self.low, other.low), other.high), max(min(self.high, other.high), other.low))


def scalar_const(view: FunctionView, expr) -> float | None:
    """The number in an immediate or in a one-element constant."""
    value = scalar(expr)
    if value is None:
        const = view.const(expr)
        value = float(const.real().reshape(())) if const is not None and const.stored.size == 1 else None
    return value


def clamp_bounds(view: FunctionView, var: relax.Var, source: relax.Var) -> Bounds | None:
    """The bounds if the binding of ``var`` clamps ``source`` between constants, else None."""
    name = view.op(var)
    if name not in CLAMPS:
        return None
    args = view.value[var].args
    if name == "relax.nn.relu":
        return Bounds(0.0)
    if name == "relax.nn.relu6":
        return Bounds(0.0, 6.0)
    if name == "relax.clip":
        low, high = scalar_const(view, args[1]), scalar_const(view, args[2])
        return Bounds(low, high) if low is not None and high is not None and low <= high else None
    other = args[1] if args[0] == source else args[0]
    bound = scalar_const(view, other)
    if bound is None:
        return None
    return Bounds(low=bound) if name == "relax.maximum" else Bounds(high=bound)


def absorb_clamps(view: FunctionView, members: list[relax.Var], claimed: set[relax.Var]) -> list[relax.Var]:
    """``members`` and the clamps that alone read its last member, as far as they go."""
    members = list(members)
    while True:
        user = view.only_user(members[-1])
        if user is None or user in claimed or clamp_bounds(view, user, members[-1]) is None:
            return members
        members.append(user)


def bounds_of(view: FunctionView, members) -> Bounds:
    """The combined clamp at the end of a group's members (open where there is none)."""
    bounds = Bounds()
    for before, var in zip(members, members[1:]):
        step = clamp_bounds(view, var, before)
        bounds = bounds.then(step) if step is not None else Bounds()
    return bounds
