"""The switches of code generation. Each only trades memory or time; none changes a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Every optimisation of the plan can be switched off; tests run the product of the switches.

    view_reshape, view_slice, view_transpose : such a tensor is read where its source lies instead of being copied.
    concat_in_place, pad_in_place : members and interiors are written where the joined tensor lies.
    in_place : an elementwise op overwrites an input that dies in it.
    fuse_coding : instructions expand and shrink compressed rows themselves where they can (``fuse``).
    reorder : nodes run in another order where that needs less memory (``order``).
    alignment_bytes : of activation buffers (constants need only what their element type needs).
    mac_overhead : the least activation memory is looked for among plans of at most so many times the network's
    multiply-accumulates."""

    view_reshape: bool = True
    view_slice: bool = True
    view_transpose: bool = True
    concat_in_place: bool = True
    pad_in_place: bool = True
    in_place: bool = True
    fuse_coding: bool = True
    reorder: bool = True
    alignment_bytes: int = 4
    mac_overhead: float = 1.35
