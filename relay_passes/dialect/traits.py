"""What the compiler may do with an op of the dialect, told by the op itself.

Every pass and planner asks these fields; none keeps a list of ops of its own. An op that states no `Traits` is refused
when it is registered (`dialect.base.ergo_op`), so a new one cannot be forgotten in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Rows(Enum):
    """How the rows (pixels) of a result depend on those of the operands: what decides whether it is made in parts."""

    WHOLE = "needs all of its operands: runs as one instruction over whole tensors"
    SAME = "each row from the same rows of its operands (moved ones where it pads, cuts or joins)"
    WINDOW = "each row from a window of rows: strides, padding, dilation"
    REDUCED = "elements along the op's `axes` are combined"
    TILES = "rows of slots of compressed tensors: bands, but no boxes"


class Move(Enum):
    """How an op that copies elements unchanged relates places: such a copy is left out where both share one buffer."""

    RELABEL = "all elements of one operand, once each, under other coordinates"
    PART = "some elements of one operand"
    JOIN = "one or more operands side by side, the rest a constant"


@dataclass(frozen=True)
class Coding:
    """Which operands an instruction can read or write as compressed rows, with the op's field that holds each one's
    zero point; None: the arithmetic has none, any will do.

    inputs : number of the input -> field. output : the field of the result's. whole_shape : the inputs' shapes must be
    the result's (nothing broadcast)."""

    inputs: Mapping[int, str | None]
    output: str | None
    whole_shape: bool = False


class Tables(Enum):
    """Whether the engine looks results up in a table of 256 bytes on their way to memory."""

    NONE = "no"
    TENSOR = "one table for all"
    CHANNEL = "one table for all, or one a channel"


@dataclass(frozen=True, kw_only=True)
class Traits:
    """rows : see `Rows`. once : a box of it cannot be made again (the rows come from outside). accumulates : its result
    is a sum that grows row by row in one place. in_place : numbers of the inputs whose bytes the result may take, first
    choice first (same shape and element size). move : see `Move`; None: it computes. keeps_zero : a result is zero (the
    zero point) only where its operand was. output_table, coding : see there; coding None: plain rows only.
    kernel_axis : axis of a windowed op's weights that holds the kernel's rows; None: it has a `pool` or none. uniform :
    each row (of any axis but the last) is the same function of the rows it reads, wherever it stands: what was computed
    for a window that moves over a signal holds one place further (`compile.step_window`). renews : the result is its
    first operand with some rows replaced: one handed on from run to run stays in its place (`codegen.states`)."""

    rows: Rows
    once: bool = False
    accumulates: bool = False
    in_place: tuple[int, ...] = ()
    move: Move | None = None
    keeps_zero: bool = False
    output_table: Tables = Tables.NONE
    coding: Coding | None = None
    kernel_axis: int | None = None
    uniform: bool = False
    renews: bool = False

    @property
    def shares_bytes(self) -> bool:
        """Whether the result may lie in an operand's bytes."""
        return self.move is not None or bool(self.in_place)
