"""Which tensors of a network can be int16 in place of int8, and who reads them so.

What makes such a tensor has a form in 16 bits (layers, sums, products, averages, tables of what is int16 itself;
`lower_int16`, `lower_averages`), and what is moved or joined with it is the same. Operators that read it and have no
such form read an int8 copy. `raise_bits` says which ones are."""

from __future__ import annotations

from tvm_ergo.relay_passes.micro import lower_averages, lower_spatial
from tvm_ergo.relay_passes.micro.observe import Range
from tvm_ergo.relay_passes.support import elementwise, linear, spatial

LEVELS = 30000.0
"""Steps of an int16 tensor up to the largest magnitude seen: 9 % are left for what was not seen."""
LAYERS = (linear.Conv2d, linear.Dense)
BINARY = ("add", "subtract", "multiply")


def scale_of(found: Range) -> float:
    """Of an int16 tensor with zero point 0."""
    return max(abs(found.lo), abs(found.hi), 1e-30) / LEVELS


def reads_sixteen(view, group, sixteen, unquantized) -> bool:
    """Whether a group reads int16 tensors as they are. unquantized : results that leave the chip as sums of 32 bits,
    which sums of 40 cannot."""
    if _moves(view, group):
        return group.output in sixteen
    if group.rule is elementwise.UnaryTable:
        return group.output not in unquantized
    return _has_form(view, group) and group.output not in unquantized


def _has_form(view, group) -> bool:
    """Beside tables, whose form depends on what they read."""
    if group.rule in spatial.AVERAGES:
        return lower_averages.has_form(view, group)
    return group.rule in LAYERS or (group.rule is elementwise.BinaryElementwise and group.op in BINARY)


def expanded(view, groups, names, unquantized) -> set:
    """Variables that are int16 where those of ``names`` are to be: those that can, what they are moved or looked up
    from, and where they are moved to."""
    made_by = {g.output: g for g in groups}
    able: dict = {}

    def can(var) -> bool:
        if var not in able:
            group = made_by.get(var)
            able[var] = (
                group is not None
                and var not in unquantized
                and (all(map(can, group.inputs)) if _follows(view, group) else _has_form(view, group))
            )
        return able[var]

    chosen, waiting = set(), [v for v in made_by if v.name in names]
    while waiting:
        var = waiting.pop()
        if var not in chosen and can(var):
            chosen.add(var)
            waiting += made_by[var].inputs if _follows(view, made_by[var]) else ()
            waiting += [
                g.output for g in groups if _moves(view, g) and var in g.inputs and all(i in chosen for i in g.inputs)
            ]
    return chosen


def _moves(view, group) -> bool:
    """Whether it only moves values, of any width."""
    return group.copies or (group.rule is spatial.Resize2d and lower_spatial.moves_16(view, group))


def _follows(view, group) -> bool:
    """Whether its result is int16 only where all that it reads is."""
    return bool(group.inputs) and (_moves(view, group) or group.rule is elementwise.UnaryTable)
