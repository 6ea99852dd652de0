"""Tensors of a network over a window that moves over a signal: which rows of them hold from one position to the next.

A window of L rows moves by N rows a run. A tensor of which every row is the same function of a few rows of the input
moves with it, by N divided by the strides before it: row i of this run is row i + shift of the last one. This holds
for the rows ``first <= i < last``; not for those at the end (new input), nor for those at either end that padding
reaches, which are zeros of another place in the signal. Whether it holds is not assumed: the boxes of inputs that the
operator itself states (`ErgoOp.input_regions`) are compared row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod

from tvm_ergo.relay_passes.dialect import Concat, ErgoOp, Pad, Reshape, Slice, Transpose
from tvm_ergo.relay_passes.dialect.traits import Rows

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Moving:
    """axis : the one that counts rows, of ``rows`` rows. shift : rows it moves by a run. first, last : rows
    ``first <= i < last`` are row ``i + shift`` of the run before, the others are computed anew."""

    axis: int
    rows: int
    shift: int
    first: int
    last: int


@dataclass(frozen=True)
class Unchanging:
    """A tensor that is the same in every run."""


@dataclass(frozen=True)
class Anew:
    """A tensor that is computed anew as a whole. why : what makes it so, "" where that is not worth a note."""

    why: str = ""


State = Moving | Unchanging | Anew


@dataclass
class Tensor:
    """One tensor of the network. needed : rows ``(begin, end)`` of a moving one that others read; of others, not empty
    where anybody does. top, bottom, kept : rows computed anew at the front and at the end, and those that a state
    brings; None: none."""

    shape: tuple[int, ...]
    state: State
    needed: list[tuple[int, int]] = field(default_factory=list)
    top: tuple[int, int] | None = None
    bottom: tuple[int, int] | None = None
    kept: tuple[int, int] | None = None

    def divide(self) -> None:
        """The needed rows of a moving tensor into those computed anew and those kept. What is kept reaches to the new
        rows: every row was one of those once."""
        state, needed = self.state, self.needed
        inner = [max(b, state.first) for b, e in needed if max(b, state.first) < min(e, state.last)]
        front = [b for b, _ in needed if b < state.first]
        self.kept = (min(inner), state.last) if inner else None
        self.top = (min(front), state.first) if front else None
        end = max([e for _, e in needed] + [state.last + state.shift if self.kept else 0])
        self.bottom = (state.last, end) if end > state.last else None


def moved(op: ErgoOp, shapes: Sequence[Shape], shape: Shape, inputs: Sequence[State]) -> State:
    """How the result of ``op`` [``shape``] moves where its inputs do."""
    moving = [(number, i) for number, i in enumerate(inputs) if isinstance(i, Moving)]
    if not moving:
        return Anew() if any(isinstance(i, Anew) for i in inputs) else Unchanging()
    if any(isinstance(i, Anew) for i in inputs):
        return Anew(f"{op.where()} joins rows with something of the whole window")
    number, source = moving[0]
    axis = _axis(op, shapes[number], shape, source)
    if axis is None:
        return Anew(f"{op.where()} takes all rows together")
    shift, rest = divmod(source.shift, stride_of(op, source.axis))
    if rest:
        return Anew(f"{op.where()} has a stride of {stride_of(op, source.axis)} where {source.shift} rows are new")
    if isinstance(op, (Reshape, Transpose)):
        return replace(source, axis=axis)
    apart = any(i.axis + len(shape) - len(shapes[n]) != axis or i.shift != source.shift for n, i in moving)
    if apart:
        return Anew(f"{op.where()} joins rows that move differently")
    boxes = [op.input_regions(_row(shape, axis, i, i + 1), shapes) for i in range(shape[axis])]
    if any(box[n][i.axis][0] >= box[n][i.axis][1] for box in boxes for n, i in moving):
        return Anew(f"{op.where()} has rows of nothing but padding")
    held = [_holds(boxes[i], boxes[i + shift], inputs) for i in range(shape[axis] - shift)]
    if not any(held):
        return Anew("" if shape[axis] <= shift else f"no row of {op.where()} is the same in two windows")
    first = held.index(True)
    last = held.index(False, first) if False in held[first:] else len(held)
    return Moving(axis, shape[axis], shift, first, last)


def _axis(op: ErgoOp, source: Shape, shape: Shape, moving: Moving) -> int | None:
    """The result's axis that counts rows; None where the operator has none that does."""
    if isinstance(op, Transpose):
        return op.perm.index(moving.axis)
    if isinstance(op, Reshape):
        before = prod(source[: moving.axis])
        places = [a for a, dim in enumerate(shape) if dim == moving.rows and prod(shape[:a]) == before]
        return places[0] if places else None
    axis = moving.axis + len(shape) - len(source)
    if isinstance(op, Concat):
        return None if op.axis == axis else axis
    if isinstance(op, Slice):
        return axis if op.strides[axis] == 1 else None
    if isinstance(op, Pad):
        return axis
    windowed = op.traits.rows is Rows.WINDOW
    if not op.traits.uniform or axis == len(shape) - 1 or (windowed and axis not in (1, 2)):
        return None
    return axis


def stride_of(op: ErgoOp, axis: int) -> int:
    """Rows of the input for one of the result."""
    return int(op.strides[axis - 1]) if op.traits.rows is Rows.WINDOW else 1


def _row(shape: Shape, axis: int, begin: int, end: int) -> tuple[tuple[int, int], ...]:
    return tuple((begin, end) if a == axis else (0, dim) for a, dim in enumerate(shape))


def _holds(box, later, inputs: Sequence[State]) -> bool:
    """Whether a row reads now what the row ``shift`` further on read a run ago."""
    for one, other, state in zip(box, later, inputs, strict=True):
        if not isinstance(state, Moving):
            if one != other:
                return False
            continue
        (begin, end), (begin_later, end_later) = one[state.axis], other[state.axis]
        if begin >= end or (begin_later, end_later) != (begin + state.shift, end + state.shift):
            return False
        if begin < state.first or end > state.last:
            return False
    return True


def part(op: ErgoOp, shapes: Sequence[Shape], shape: Shape, result: Moving, begin: int, end: int):
    """``(op, boxes)``: the operator that makes rows ``begin`` to ``end`` of its result out of the boxes of its
    inputs. Paddings shrink to what of them these rows meet."""
    boxes = op.input_regions(_row(shape, result.axis, begin, end), shapes)
    axis = result.axis
    if isinstance(op, Reshape):
        return replace(op, shape=_with(op.shape, axis, end - begin)), None
    if isinstance(op, Slice):
        own = replace(op, begin=_with(op.begin, axis, 0), end=_with(op.end, axis, end - begin))
        return own, boxes
    if isinstance(op, Pad):
        before, length = op.pad_width[2 * axis], shapes[0][axis]
        front, back = max(0, min(end, before) - begin), max(0, end - max(begin, before + length))
        return replace(op, pad_width=_with(_with(op.pad_width, 2 * axis, front), 2 * axis + 1, back)), boxes
    if op.traits.rows is Rows.WINDOW:
        place, reach = axis - 1, _reach(op, shapes, axis - 1)
        start = begin * op.strides[place] - op.padding[place]
        stop = (end - 1) * op.strides[place] - op.padding[place] + reach
        padding = _with(op.padding, place, max(0, -start))
        return replace(op, padding=_with(padding, place + 2, max(0, stop - shapes[0][axis]))), boxes
    return op, boxes


def _reach(op: ErgoOp, shapes: Sequence[Shape], place: int) -> int:
    """Rows of a window, dilation included."""
    kernel_axis = op.traits.kernel_axis
    kernel = _kernel(op, shapes, place) if kernel_axis is None else shapes[1][kernel_axis + place]
    return (kernel - 1) * getattr(op, "dilation", (1, 1))[place] + 1


def _kernel(op: ErgoOp, shapes: Sequence[Shape], place: int) -> int:
    return int(op.pool[place]) if hasattr(op, "pool") else int(shapes[1][1 + place])


def _with(values: Sequence[int], place: int, value: int) -> tuple[int, ...]:
    return tuple(value if i == place else v for i, v in enumerate(values))
