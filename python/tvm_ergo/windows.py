"""A network over a window that moves over a signal, compiled to be given the window's new rows alone (``new_rows``):
`relay_passes.compile.step_window` with ports and states."""

from __future__ import annotations

from dataclasses import replace

import tvm

from tvm_ergo import options as given
from tvm_ergo.compiled import CompiledModel
from tvm_ergo.frontend import Imported
from tvm_ergo.frontend.imported import StateInfo
from tvm_ergo.relay_passes.compile.step_window import Stepped, step_window
from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.target.errors import InputError, UnsupportedError


def given_rows(new_rows, rows_axis) -> tuple[int | None, int | None]:
    """The options ``new_rows`` and ``rows_axis``, checked. Errors: InputError."""
    if rows_axis is not None:
        rows_axis = given.whole_number("rows_axis", rows_axis)
        if new_rows is None:
            raise InputError("rows_axis says nothing without new_rows", remedy="give new_rows (--new-rows) too")
    return (None if new_rows is None else given.whole_number("new_rows", new_rows)), rows_axis


def check_alone(others: dict[str, bool]) -> None:
    """Errors: InputError where an option was given that new_rows does not go with. others : whether it was, by name."""
    for name, was_given in others.items():
        if was_given:
            raise InputError(
                f"new_rows does not go with {name}",
                required=f"new_rows (--new-rows), or {name}",
                remedy=f"leave out --{name.replace('_', '-')} or --new-rows",
            )


def stepped(lowered: tvm.IRModule, imported: Imported, rows: int, axis: int | None) -> tuple[Stepped, Imported]:
    """``(the network for new rows, its ports)``. lowered : the whole one in the integer dialect. Errors:
    UnsupportedError where nothing is kept, or the network has states of its own."""
    if imported.states:
        raise UnsupportedError(
            "the network keeps something from run to run already",
            where="new_rows (--new-rows)",
            available=", ".join(map(str, imported.states)),
            remedy="leave --new-rows out: it takes its new rows as it is",
        )
    (first, *_) = imported.inputs
    made = step_window(lowered, rows, axis, first.zero_point or 0)
    shape = tuple(rows if a == made.axis else n for a, n in enumerate(first.shape))
    of_input = f"{imported.parameters[0]}_rows"
    states = []
    for kept in made.states:
        scale = (first.scale, first.zero_point) if kept.name == of_input else (kept.scale, kept.zero_point)
        array = kept.initial
        states.append(StateInfo(kept.name, tuple(array.shape), str(array.dtype), *scale, initial=array))
    return made, replace(imported, inputs=(replace(first, shape=shape),), states=tuple(states))


def whole_run(compiled: CompiledModel, lowered: tvm.IRModule):
    """Runs of the whole network's integer form, for the comparison with its float self: ``run(sample)`` gives the
    outputs. To the bit what the chip gives for the same window."""
    interpreter = Interpreter(lowered)
    return lambda sample: interpreter.run(compiled.reference_inputs(sample))


def notes_of(made: Stepped) -> tuple[str, ...]:
    """What is computed a run, and from where on the whole window is."""
    saved = f"{made.macs:,} of the whole window's {made.whole_macs:,} multiply-accumulates are computed a run"
    return (saved, *(f"behind it the whole window is computed anew: {why}" for why in made.notes))
