"""The end of a network in 16 bits: what is only moved between the last arithmetic and the outputs.

Where a concat there joins tensors of very different ranges (boxes beside scores), one scale of 8 bits would lose the
smaller. One scale of 16 bits holds both, and convolutions give 16 bits as they are; where even that is too little, each
tensor keeps its own scale, and the outputs are scaled element by element where they leave the chip (``MIXED``).

A sigmoid or tanh that calibration shows in a small part of its range only (the presence of a hand on pictures without
hands) would be one level of 256, since its range must stay whole: where 8 bits lose too much, it gets 16
(`float_parts`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tvm import relax

from tvm_ergo.relay_passes.micro.observe import LEVELS, Range
from tvm_ergo.relay_passes.relax_utils import Call
from tvm_ergo.relay_passes.support import FunctionView, Group, Kind, elementwise

MIX_RATIO = 4.0
"""A concat before the outputs whose inputs' ranges differ more than this gets 16 bits."""
WIDE_LEVELS = 16000.0
"""Steps up to the largest magnitude seen in calibration: as much again is left for what was not seen."""
SEEN_PART = 8.0
"""A table of known range whose values fill less than one part in so many of it gets 16 bits."""
KNOWN = {"relax.sigmoid": 1.0, "relax.tanh": 1.0}
"""Operators whose largest magnitude is known."""


MIXED = 0.0


@dataclass(frozen=True)
class Tail:
    """The scale of every tensor that is int16, by variable; ``MIXED`` where parts of a tensor have scales of their
    own."""

    wide: Mapping[relax.Var, float] = field(default_factory=dict)


def width(r: Range) -> float:
    return max(r.hi, 0.0) - min(r.lo, 0.0)


def _peak(r: Range) -> float:
    return max(abs(r.lo), abs(r.hi))


def tail_of(view: FunctionView, groups: Iterable[Group], range_of, is_linear, *, tables: bool) -> Tail:
    """range_of(var) -> Range. is_linear(group): whether it is a layer without clip, whose result may have any width.
    tables: whether tables that are barely seen get 16 bits."""
    groups = tuple(groups)
    tail, members = moved_out(view, groups)
    peaks = {g.output: KNOWN[view.op(g.output)] for g in groups if tables and _barely_seen(view, g, members, range_of)}
    seen = {v: p / 32767 for v, p in peaks.items()}
    wide = _wide_groups(tail, set(seen), range_of)
    scales: dict[relax.Var, float] = {}
    for found in _joined(wide, seen):
        joined = {g for g in wide if g.output in found}
        moved = {g.output for g in joined}
        elsewhere = {m for g in groups if g not in joined for m in g.members}
        free = {g.output for g in groups if is_linear(g) and elsewhere.isdisjoint(view.users(g.output))}
        own = {v: seen[v] if v in seen else max(_peak(range_of(v)), 1e-30) / WIDE_LEVELS for v in found}
        scale = max(own.values())
        mixed = any(scale * LEVELS > max(width(range_of(v)), 1e-12) for v in found if v not in moved and v not in seen)
        for var in (v for v in found if v in moved or v in seen or v in free):
            scales[var] = scale if not mixed else MIXED if var in moved else own[var]
    return Tail(scales)


def _wide_groups(tail: list[Group], values: set[relax.Var], range_of) -> list[Group]:
    """Those of the tail that mix ranges, or move what is in ``values`` or a result of one of them."""
    wide: list[Group] = []
    for group in tail:
        widths = [width(range_of(v)) for v in group.inputs]
        mixes = group.op == "concat" and max(widths) > MIX_RATIO * max(min(widths), 1e-12)
        if mixes or any(v in values for v in group.inputs):
            wide.append(group)
            values.add(group.output)
    return wide


def moved_out(view: FunctionView, groups) -> tuple[list[Group], set[relax.Var]]:
    """The movement groups from which values go to the outputs only, in order, and what they compute."""
    tail: list[Group] = []
    members: set[relax.Var] = set()
    for group in reversed(groups):
        users = view.users(group.output)
        if (
            group.kind is Kind.MOVEMENT
            and leads_to(view, group.output, members)
            and (users or group.output in view.outputs)
        ):
            tail.append(group)
            members.update(group.members)
    return tail[::-1], members


def leads_to(view: FunctionView, var, members) -> bool:
    """Whether only ``members`` and the function's result read it."""
    return all(u in members or not isinstance(view.value[u], Call) for u in view.users(var))


def _barely_seen(view: FunctionView, group: Group, members, range_of) -> bool:
    if group.rule is not elementwise.UnaryTable or view.op(group.output) not in KNOWN:
        return False
    return (
        leads_to(view, group.output, members)
        and _peak(range_of(group.output)) * SEEN_PART < KNOWN[view.op(group.output)]
    )


def _joined(wide: list[Group], tables: Iterable[relax.Var]) -> list[list[relax.Var]]:
    """Tensors that have one scale: those of groups that share one, and each table's that nobody moves."""
    sets: list[dict[relax.Var, None]] = [{v: None} for v in tables]
    for group in wide:
        merged = dict.fromkeys((*group.inputs, group.output))
        for other in [s for s in sets if not merged.keys().isdisjoint(s)]:
            merged = other | merged
            sets.remove(other)
        sets.append(merged)
    return [list(s) for s in sets]
