"""Arithmetic of axis orders, on plain tuples.

An order is a permutation ``p``: the stored tensor is ``original.transpose(p)``, i.e. its axis ``j`` is the original's
``p[j]``."""

from __future__ import annotations

import math
from collections.abc import Sequence

Order = tuple[int, ...]


def identity(rank: int) -> Order:
    return tuple(range(rank))


def step_between(current: Order, wanted: Order) -> Order:
    """Axes of the transpose that turns a tensor stored in order ``current`` into order ``wanted``."""
    return tuple(current.index(axis) for axis in wanted)


def original_shape(stored: Sequence[int], order: Order) -> tuple[int, ...]:
    """Shape of the original tensor, given the stored one's."""
    shape = [0] * len(order)
    for j, axis in enumerate(order):
        shape[axis] = stored[j]
    return tuple(shape)


def after_permute(order: Order, axes: Sequence[int]) -> Order:
    """Order of the same stored tensor seen as ``permute_dims(original, axes)``."""
    return tuple(list(axes).index(axis) for axis in order)


def after_reduction(order: Order, axes: Sequence[int]) -> Order:
    """Order left when the original's ``axes`` are removed."""
    left = [axis for axis in range(len(order)) if axis not in axes]
    return tuple(left.index(axis) for axis in order if axis not in axes)


def regroup(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]] | None:
    """The finest matching of a reshape's input axes with its output axes: pairs with equal products, in order.

    Axes of size 1 in the input are in no pair; axes of size 1 in the output ride along. None for tensors without
    elements."""
    if math.prod(before) == 0 or math.prod(before) != math.prod(after):
        return None
    pairs: list[tuple[list[int], list[int]]] = []
    source = [i for i, d in enumerate(before) if d != 1]
    o = 0
    while source:
        ins, outs, left, right = [source.pop(0)], [], 1, 1
        left *= before[ins[0]]
        while left != right or not outs:
            if left > right:
                if o == len(after):
                    return None
                outs.append(o)
                right *= after[o]
                o += 1
            else:
                ins.append(source.pop(0))
                left *= before[ins[-1]]
        pairs.append((ins, outs))
    if o < len(after):
        if not pairs:
            return [([], list(range(len(after))))]
        pairs[-1][1].extend(range(o, len(after)))
    return pairs


def reshape_stored(before: Sequence[int], after: Sequence[int], order: Order) -> Order | None:
    """If a reshape of the original can be done on the stored tensor: the order of its result, else None.

    Possible when the axes merged or split together lie side by side, in their order, in the stored tensor.
    """
    pairs = regroup(before, after)
    if pairs is None:
        return None
    place = {axis: i for i, axis in enumerate(a for a in order if before[a] != 1)}
    for ins, _ in pairs:
        if [place[a] for a in ins] != list(range(place[ins[0]], place[ins[0]] + len(ins))) if ins else False:
            return None
    ranked = sorted(pairs, key=lambda p: place[p[0][0]] if p[0] else -1)
    return tuple(axis for _, outs in ranked for axis in outs)
