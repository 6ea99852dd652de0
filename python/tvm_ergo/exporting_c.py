"""``tvm_ergo.export_c``: a compiled network as a folder of C that runs on any processor with a C11 compiler."""

from __future__ import annotations

import base64
import math
import os
from pathlib import Path

import numpy as np

from tvm_ergo.chain.run import Chain
from tvm_ergo.compiled import CompiledModel
from tvm_ergo.files import write_together
from tvm_ergo.target.errors import InputError, OutputError, UnsupportedError
from tvm_ergo.target.native.export import Exported, exported
from tvm_ergo.target.program import Program

KEEPS_VALUES = ("reshape", "transpose", "cast")
Scale = tuple[float, int]


def export_c(model: CompiledModel, folder: str | Path, *, name: str | None = None) -> Exported:
    """Writes the runtime's sources (only the instructions used), the network as an array, a header, an example
    ``main.c``, a Makefile, a CMake file and two boards.

    folder : new or empty. name : of the network in C (default: the source file's). Inputs and outputs are the chip's
    own integers; the header says what they
    stand for. Returns what was written and the RAM it needs.
    Errors: UnsupportedError for a network of which a part stays on the host CPU, or that keeps values between runs;
    ModelError for an instruction that the
    runtime in C does not have; OutputError.
    """
    symbol, program = _the_program(model)
    found = exported(
        program, name or Path(model.source).name.partition(".")[0] or symbol, port_scales(model, symbol, program)
    )
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise OutputError(
                "the folder is not empty", where=str(folder), remedy="give a new folder, or empty this one"
            )
        for path in found.files:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the folder cannot be made: {error.strerror or error}",
            where=os.fspath(folder),
            remedy="give another folder",
        ) from None
    write_together([(folder / path, text) for path, text in found.files.items()])
    return found


def _the_program(model: CompiledModel) -> tuple[str, Program]:
    """Symbol and Program of a network that is one call of the chip. Errors: InputError, UnsupportedError."""
    if model.fallbacks:
        raise UnsupportedError(
            "a part of this network runs on the host CPU, which exported C has not",
            where=model.source,
            available=", ".join(sorted({f.op for f in model.fallbacks})),
            remedy="compile with --strict: it says for each operator what would put it on the chip",
        )
    if model.states:
        raise UnsupportedError(
            "this network keeps values from one run to the next, which exported C does not yet",
            where=model.source,
            available=", ".join(s.name for s in model.states),
            remedy="export the network without its states as inputs and outputs",
        )
    if len(model.programs) != 1:
        raise InputError(
            f"this model has {len(model.programs)} Programs",
            where=model.source,
            required="one",
            available=", ".join(model.programs) or "none",
            remedy="compile with --strict: nothing then splits the network",
        )
    return next(iter(model.programs.items()))


def port_scales(model: CompiledModel, symbol: str, program: Program) -> dict[str, Scale]:
    """``(scale, zero point)`` of each port for which one of each holds, by the port's name: of integer inputs and
    outputs of the model, or of how the host makes and reads them."""
    chain = model.chain.data if isinstance(model.chain, Chain) else model.chain
    if chain is None:
        return {}
    known: dict[int, Scale] = {i: (t.scale, t.zero_point) for i, t in enumerate(model.inputs) if t.scale is not None}
    constants = {len(model.inputs) + i: _array(stored) for i, stored in enumerate(chain["constants"])}
    wanted: dict[int, Scale] = {
        at: (t.scale, t.zero_point) for at, t in zip(chain["outputs"], model.outputs) if t.scale is not None
    }
    steps, at = [], len(model.inputs) + len(constants)
    for op, operands, params in chain["steps"]:
        steps.append((op, operands, at))
        at += len(params["shapes"]) if op == "call" else 1
    for op, operands, result in steps:  # forwards: what the chip is given
        if op == "quantize" and (scale := _scale(constants, operands)):
            known[result] = scale
        elif op in KEEPS_VALUES and operands[0] in known:
            known[result] = known[operands[0]]
    for op, operands, result in reversed(steps):  # backwards: what is made of its results
        if op == "dequantize" and (scale := _scale(constants, operands)):
            wanted[operands[0]] = scale
        elif op in KEEPS_VALUES and result in wanted:
            wanted.setdefault(operands[0], wanted[result])
    _, operands, first = next(step for step in steps if step[0] == "call")
    ports = {port.name: known[o] for port, o in zip(program.inputs, operands) if o in known}
    return ports | {port.name: wanted[first + i] for i, port in enumerate(program.outputs) if first + i in wanted}


def _array(stored) -> np.ndarray:
    """A constant as chains hold it."""
    dtype, shape, text = stored
    return np.frombuffer(base64.b64decode(text), np.dtype(dtype).newbyteorder("<")).reshape(shape)


def _scale(constants: dict, operands: list[int]) -> Scale | None:
    """Of a quantize or dequantize with one scale and zero point."""
    found = [constants.get(at) for at in operands[1:3]]
    if any(array is None or math.prod(array.shape) != 1 for array in found):
        return None
    return float(found[0].reshape(-1)[0]), int(found[1].reshape(-1)[0])
