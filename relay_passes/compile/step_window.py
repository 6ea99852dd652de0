"""A network over a window of a signal, as one that is given the window's new rows alone: rows that it will need again
are states, and only what the new rows change is computed.

Exact: after every run the outputs are those of the whole network over the last L rows, to the bit, whatever its
paddings; rows before the first run count as zeros (`initial`). Rows at the window's ends that padding reaches are
computed anew each time, as the zeros that they see are at another place of the signal; where an operator takes all rows
together (a mean, a dense layer over the window), or its stride does not divide the new rows, everything behind it is
computed anew (`Stepped.notes`). The idea is that of kws_streaming (Rybakov et al., Streaming keyword spotting on mobile
devices, 2020) and of tract's pulse; ends are theirs only without padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.compile.moving import Anew, Moving, State, Tensor, Unchanging, moved, part
from tvm_ergo.relay_passes.dialect import ErgoOp, from_call, is_ergo_call
from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.relay_passes.relax_utils import (
    Call,
    Constant,
    Expr,
    Tuple,
    Var,
    bindings_of,
    body_of,
    dtype_of,
    infer,
    is_tensor,
    main_of,
    op_name,
    shape_of,
    variables_in,
    with_operands,
)
from tvm_ergo.target.errors import UnsupportedError

_POINTWISE = ("relax.quantize", "relax.astype")
"""What stands between a network's input and the chip, element by element. (Outputs are made of integers anew.)"""


@dataclass(frozen=True)
class Kept:
    """Rows of a tensor that outlive a run. name : of the parameter that brings them. initial : before the first.
    scale, zero_point : what its integers mean; None where that is not known."""

    name: str
    initial: np.ndarray
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True)
class Stepped:
    """mod : main takes the new rows, then the states, and gives its outputs, then the states. axis : of the input, that
    counts rows. macs, whole_macs : multiply-accumulates of a run, and of the whole network. notes : from where on the
    whole window is computed anew, and why."""

    mod: tvm.IRModule
    states: tuple[Kept, ...]
    axis: int
    macs: int
    whole_macs: int
    notes: tuple[str, ...]


def step_window(mod: tvm.IRModule, rows: int, axis: int | None = None, zero: int = 0) -> Stepped:
    """``mod``: a network with one input, in the integer dialect. rows : new ones a run. axis : of the input, that
    counts rows; None: the first with which least is computed. zero : what of an integer input means 0.

    Errors: UnsupportedError where nothing would be saved, with a number of rows with which something is."""
    func = main_of(mod)
    if len(func.params) != 1:
        raise _refused(
            f"it has {len(func.params)} inputs and states", "a network with one input and no state of its own"
        )
    best = _best(mod, rows, axis, zero)
    if best is None:
        raise _refused(f"its input is {list(shape_of(func.params[0]))}", f"an axis of more than {rows} rows")
    if best.macs < best.whole_macs or (best.states and not best.whole_macs):
        return best
    others = (_best(mod, times * rows, axis, zero) for times in MULTIPLES)
    better = next((times * rows for times, one in zip(MULTIPLES, others) if one and one.macs < one.whole_macs), None)
    raise _refused("; ".join(best.notes) or "no row is used again", "rows that are used again", better)


MULTIPLES = (2, 3, 4, 6, 8, 16)
"""Of the rows asked for, that are tried before a remedy is named."""


def _best(mod: tvm.IRModule, rows: int, axis: int | None, zero: int) -> Stepped | None:
    """For the axis with which least is computed; None where none is long enough."""
    shape = shape_of(main_of(mod).params[0])
    axes = [a for a in range(1, len(shape)) if axis in (None, a) and shape[a] > rows]
    return min((_Step(mod, rows, a, zero).run() for a in axes), key=lambda step: step.macs, default=None)


def _refused(what: str, required: str, better: int | None = None) -> UnsupportedError:
    return UnsupportedError(
        f"nothing would be saved by keeping rows: {what}",
        where="new_rows (--new-rows)",
        required=required,
        remedy="leave --new-rows out" if better is None else f"--new-rows {better}",
    )


class _Step:
    """One run over ``main`` for one axis."""

    def __init__(self, mod: tvm.IRModule, rows: int, axis: int, zero: int):
        self.mod, self.func, self.rows, self.axis, self.zero = mod, main_of(mod), rows, axis, zero
        self.source = bindings_of(self.func)
        self.builder = relax.BlockBuilder()
        self.tensors: dict[Var, Tensor] = {}
        self.made: dict[Var, Expr] = {}
        self.pieces: dict[Var, list[tuple[int, int, Expr]]] = {}

    def run(self) -> Stepped:
        self._follow()
        self._need()
        states = self._initial()
        params = [self._input(), *(relax.Var(k.name, _type(k.initial.shape, k.initial.dtype)) for k in states)]
        kept = dict(zip([v for v, t in self.tensors.items() if t.kept], params[1:], strict=True))
        with self.builder.function("main", params, attrs=dict(self.func.attrs) if self.func.attrs else None):
            with self.builder.dataflow():
                left = self._emit_all(params[0], kept)
                body = body_of(self.func)
                results = list(body.fields) if isinstance(body, Tuple) else [body]
                out = self.builder.emit_output(Tuple([*(self._whole(r) for r in results), *left]))
            self.builder.emit_func_output(out)
        made = self.mod.clone()
        made["main"] = relax.analysis.remove_all_unused(self.builder.get()["main"])
        notes = dict.fromkeys(t.state.why for t in self.tensors.values() if isinstance(t.state, Anew) and t.state.why)
        return Stepped(made, states, self.axis, macs_of(made), macs_of(self.mod), tuple(notes))

    # ---- what moves --------------------------------------------------------------------------------------------------
    def _follow(self) -> None:
        (param,) = self.func.params
        shape = shape_of(param)
        length = shape[self.axis]
        self.tensors[param] = Tensor(shape, Moving(self.axis, length, self.rows, 0, length - self.rows))
        for var, value in self.source:
            if is_tensor(var):
                self.tensors[var] = Tensor(shape_of(var), self._state(value))

    def _state(self, value: Expr) -> State:
        if isinstance(value, Var):
            return self.tensors[value].state
        if is_ergo_call(value):
            op, args = from_call(value), value.args
            shapes = [shape_of(a) for a in args]
            ((shape, _), *more) = op.infer(shapes, [dtype_of(a) for a in args])
            found = moved(op, shapes, shape, [self._state_of(a) for a in args])
            return found if not more else Anew(f"{op.where()} has several results")
        if isinstance(value, Call) and op_name(value) in _POINTWISE:
            return self._state_of(value.args[0])
        return Anew() if variables_in(value) else Unchanging()

    def _state_of(self, arg: Expr) -> State:
        if isinstance(arg, Var):
            return self.tensors[arg].state if arg in self.tensors else Anew()  # a tuple's
        return Unchanging()

    # ---- what is needed ----------------------------------------------------------------------------------------------
    def _need(self) -> None:
        """Rows of every tensor that are read, from the outputs backwards, and where they come from."""
        for leaf in variables_in(body_of(self.func)):
            self._ask(leaf)
        for var, value in reversed(self.source):
            if var not in self.tensors:
                for leaf in variables_in(value):
                    self._ask(leaf)
                continue
            tensor = self.tensors[var]
            if isinstance(tensor.state, Moving) and tensor.needed:
                tensor.divide()
                for begin, end in filter(None, (tensor.top, tensor.bottom)):
                    for arg, rows in self._read(var, value, begin, end):
                        self._ask(arg, rows)
            elif tensor.needed:
                for leaf in variables_in(value):
                    self._ask(leaf)
        (param,) = self.func.params
        if self.tensors[param].needed:
            self.tensors[param].divide()

    def _ask(self, var: Expr, rows: tuple[int, int] | None = None) -> None:
        if isinstance(var, Var) and var in self.tensors:
            tensor = self.tensors[var]
            whole = (0, tensor.state.rows) if isinstance(tensor.state, Moving) else (0, 1)
            tensor.needed.append(whole if rows is None else rows)

    def _read(self, var: Var, value: Expr, begin: int, end: int):
        """``(operand, rows of it)`` for rows of a moving tensor."""
        state = self.tensors[var].state
        if isinstance(value, Var):
            return [(value, (begin, end))]
        if not is_ergo_call(value):
            return [(value.args[0], (begin, end))]
        op, shapes = from_call(value), [shape_of(a) for a in value.args]
        _, boxes = part(op, shapes, self.tensors[var].shape, state, begin, end)
        found = []
        for number, arg in enumerate(value.args):
            other = self._state_of(arg)
            if isinstance(other, Moving):
                found.append((arg, (begin, end) if boxes is None else boxes[number][other.axis]))
            else:
                found.append((arg, None))
        return found

    # ---- states ------------------------------------------------------------------------------------------------------
    def _initial(self) -> tuple[Kept, ...]:
        """States as if the signal had been zeros so far."""
        names = {str(v.name): v for v, t in self.tensors.items() if t.kept}
        values: dict[str, np.ndarray] = {}
        (param,) = self.func.params
        dtype = dtype_of(param)
        silence = np.full(shape_of(param), self.zero if "int" in dtype else 0, dtype)
        values[str(param.name)] = silence
        if names.keys() - values.keys():
            Interpreter(self.mod).run(
                {str(param.name): silence},
                lambda name, value: values.__setitem__(name, value) if name in names else None,
            )
        meant = {var: from_call(value) for var, value in self.source if is_ergo_call(value)}
        found = []
        for name, var in names.items():
            op = meant.get(var)
            scale = (op.out_scale, op.out_zp) if op is not None and op.out_scale else ()
            found.append(Kept(f"{name}_rows", self._before(values[name], self.tensors[var]), *scale))
        return tuple(found)

    @staticmethod
    def _before(value: np.ndarray, tensor: Tensor) -> np.ndarray:
        """The rows that the state holds after a run, of a window of zeros."""
        begin, end = tensor.kept
        rows = np.arange(begin, end + tensor.state.shift)
        return np.ascontiguousarray(np.take(value, rows, axis=tensor.state.axis))

    # ---- the new function --------------------------------------------------------------------------------------------
    def _input(self) -> Var:
        (param,) = self.func.params
        shape = list(shape_of(param))
        shape[self.axis] = self.rows
        return relax.Var(str(param.name), _type(shape, dtype_of(param)))

    def _emit_all(self, fresh: Var, kept: dict[Var, Var]) -> list[Expr]:
        """Everything; the states that are left for the next run, in the order of ``kept``."""
        (param,) = self.func.params
        left = {}
        for var, value in [(param, None), *self.source]:
            tensor = self.tensors.get(var)
            if tensor is None or not isinstance(tensor.state, Moving):
                self.made[var] = self._emit(with_operands(value, self._whole), var)
            elif tensor.needed:
                made = {
                    rows: self._part(var, value, *rows)
                    for rows in (tensor.top, tensor.bottom)
                    if rows and value is not None
                }
                if value is None:
                    tensor.bottom = (tensor.state.last, tensor.state.rows)
                    made[tensor.bottom] = fresh
                self.pieces[var] = [(*rows, expr) for rows, expr in made.items()]
                if var in kept:
                    left[var] = self._renew(var, tensor, kept[var])
        return [left[var] for var in kept]

    def _renew(self, var: Var, tensor: Tensor, state: Var) -> Expr:
        """The state with the new rows behind, in the state's own place; its rows and those behind it are pieces."""
        (begin, middle), shift = tensor.kept, tensor.state.shift
        end = middle + shift
        axis, last = tensor.state.axis, tensor.bottom[1]
        (bottom,) = [expr for first, _, expr in self.pieces[var] if first == middle]
        renewed = self._emit(dialect.ShiftRows(axis=axis).call(state, self._cut(bottom, axis, 0, shift, var)), var)
        pieces = [piece for piece in self.pieces[var] if piece[0] != middle] + [(begin, end, renewed)]
        if last > end:
            pieces.append((end, last, self._cut(bottom, axis, shift, last - middle, var)))
        self.pieces[var] = pieces
        return renewed

    def _part(self, var: Var, value: Expr, begin: int, end: int) -> Expr:
        """Rows of a moving tensor, computed."""
        if isinstance(value, Var):
            return self._rows(value, begin, end)
        if not is_ergo_call(value):
            args = [self._rows(value.args[0], begin, end), *value.args[1:]]
            return self._emit(Call(value.op, args, value.attrs, list(value.ty_args) or None), var)
        op, shapes = from_call(value), [shape_of(a) for a in value.args]
        op, _ = part(op, shapes, self.tensors[var].shape, self.tensors[var].state, begin, end)
        args = [
            self._whole(arg) if rows is None else self._rows(arg, *rows)
            for arg, rows in self._read(var, value, begin, end)
        ]
        return self._emit(op.call(*args), var)

    def _rows(self, var: Var, begin: int, end: int) -> Expr:
        """Rows of a moving tensor out of its pieces: a part of one, or several side by side."""
        axis = self.tensors[var].state.axis
        parts = []
        at = begin
        for first, last, piece in self.pieces[var]:
            if first <= at < min(last, end):
                stop = min(last, end)
                parts.append(self._cut(piece, axis, at - first, stop - first, var))
                at = stop
        if at != end:
            raise AssertionError(f"rows {at} to {end} of {var.name} are nowhere")
        return parts[0] if len(parts) == 1 else self._emit(dialect.Concat(axis=axis).call(*parts), var)

    def _cut(self, piece: Expr, axis: int, begin: int, end: int, var: Var) -> Expr:
        shape = shape_of(piece)
        if (begin, end) == (0, shape[axis]):
            return piece
        starts, stops = [0] * len(shape), list(shape)
        starts[axis], stops[axis] = begin, end
        cut = dialect.Slice(begin=tuple(starts), end=tuple(stops), strides=(1,) * len(shape))
        return self._emit(cut.call(piece), var)

    def _whole(self, expr: Expr) -> Expr:
        if isinstance(expr, Var) and expr in self.pieces:
            return self._rows(expr, 0, self.tensors[expr].state.rows)
        return self.made.get(expr, expr) if isinstance(expr, Var) else expr

    def _emit(self, value: Expr, var: Var) -> Expr:
        if isinstance(value, (Var, Constant)):
            return value
        return self.builder.emit(infer(value) if isinstance(value, Call) else value, name_hint=str(var.name))


def _type(shape, dtype) -> relax.TensorType:
    return relax.TensorType(list(shape), str(dtype))


def macs_of(mod: tvm.IRModule) -> int:
    """Multiply-accumulates of main's operators of the integer dialect."""
    total = 0
    for _, value in bindings_of(main_of(mod)):
        if is_ergo_call(value):
            op: ErgoOp = from_call(value)
            total += op.macs([shape_of(a) for a in value.args])
    return total
