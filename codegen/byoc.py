"""The BYOC hook ``relax.ext.ergo``: functions with ``Codegen="ergo"`` -> one runtime module holding their Programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import tvm
from tvm import relax

from tvm_ergo.codegen.compile import compile_function, compile_graph
from tvm_ergo.codegen.exclusive import exclusively
from tvm_ergo.codegen.graph import Graph
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.relocate import share_memory
from tvm_ergo.codegen.runtime.native import create_module
from tvm_ergo.codegen.space import Objective
from tvm_ergo.codegen.space.stream_advice import stream_advice
from tvm_ergo.codegen.stream import graph_of
from tvm_ergo.target.chip import Chip, chip_names
from tvm_ergo.target.errors import OutOfMemoryError
from tvm_ergo.target.program import Program
from tvm_ergo.target.tags import DEFAULT_CHIP, chip_of_target, is_ergo

OBJECTIVE = "ergo_objective"
"""Attribute of a chip function: the value of its `Objective`."""


def program_of_function(func: relax.Function, chip: Chip, **options) -> Program:
    """The Program of one Relax function of the integer dialect, carrying its chip's description if that is a user's
    own."""
    return with_chip(compile_function(func, chip, **options), chip)


def program_of_graph(graph: Graph, chip: Chip) -> Program:
    """As `program_of_function`, from a Graph."""
    return with_chip(compile_graph(graph, chip), chip)


def with_chip(program: Program, chip: Chip) -> Program:
    """The Program with the chip's whole description in its meta, if the chip does not ship with the product."""
    return program if chip.name in chip_names() else replace(program, meta={**program.meta, "chip": chip.to_json()})


@exclusively()
def compile_functions(functions: Sequence[relax.Function]) -> list[tvm.runtime.Module]:
    """One module of all ``functions``, each under its global symbol, for the chip of the current target.

    Outside of a target of ours (``RunCodegen`` run by hand) it is the default chip.
    Errors: ModelError for functions with other ops, OutOfMemoryError, ProgramError if the native runtime is missing.
    """
    target = tvm.target.Target.current()
    chip = chip_of_target(target if is_ergo(target) else DEFAULT_CHIP)
    programs = {str(f.attrs["global_symbol"]): _program_or_advice(f, chip) for f in functions}
    return [
        create_module({name: program.to_bytes() for name, program in share_memory(programs, chip.memory_bytes).items()})
    ]


def _program_or_advice(func: relax.Function, chip: Chip) -> Program:
    """Where a function does not fit, the error says as well what streaming its frame would do."""
    try:
        return program_of_function(func, chip, objective=objective_of(func))
    except OutOfMemoryError as error:
        advice = stream_advice(graph_of(func), chip, Options(), chip.memory_bytes)
        if advice is None:
            raise
        raise OutOfMemoryError(
            error.what,
            where=error.where,
            required=error.required,
            available=error.available,
            remedy=f"{error.remedy}; {advice}",
        ) from None


def objective_of(func: relax.Function) -> Objective:
    """What a chip function is planned for: its attribute `OBJECTIVE`, latency without it."""
    return (
        Objective(str(func.attrs[OBJECTIVE]))
        if func.attrs is not None and OBJECTIVE in func.attrs
        else Objective.LATENCY
    )
